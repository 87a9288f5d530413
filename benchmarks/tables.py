"""docs/benchmarks.md from the JSON files in benchmarks/results: python benchmarks/tables.py"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
from _adversarial_tables import adversarial, objectives_cost
from _battery_tables import battery
from _common import RESULTS
from _distributional_tables import distributional
from _fairness_tables import fairness
from _finetuning_tables import finetuning
from _lds_plot import draw
from _objective_tables import hessian_free
from _page import read, table, where
from _trajectory_tables import coreset, deletion, trajectory
from _which_tables import adult, strategies, which
from decisions import page as decided
from engine import PARTS
from noisy_labels import DATA

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
NOISE_NAMES = {"uniform": "uniform", "class": "class-dependent"}
METHODS = [
    "sktda ComplexityGap",
    "cleanlab find_label_issues, logistic",
    "cleanlab CleanLearning, logistic",
    "cleanlab find_label_issues, mlp",
    "cleanlab CleanLearning, mlp",
]

ENGINE_NAMES = {
    "mlp": "Fashion-MNIST, MLP 784-512-512-10",
    "cnn": "ResNet-9 of width 32 on random 32×32×3 images",
    "source": "Source over six checkpoints of an MLP 784-512-512-10",
    "gpu": "ResNet-9 on a GPU",
}
TRUTHS = {
    "fmnist": "Fashion-MNIST, MLP 784-512-256-128-10",
    "fmnist_n": "Fashion-MNIST, 30 % noise, 3 epochs",
    "concrete": "Concrete strength, MLP 8-128-128-128-1",
    "digits": "Digits, MLP 64-64-64-10",
    "digits_adamw": "Digits, the same net by AdamW",
}
LDS_PEERS = """Beside other libraries, on the same models. kronfluence leaves weight decay out of its curvature and \
draws labels of its own; captum gets our checkpoints and sums of learning rates; TRAK projects to 2,048 dimensions, \
with the ridge that served it best on these truths (one mean eigenvalue). All are installed as said above."""
PEERS_INSTALLED = """The peers would replace torch or NumPy if pip resolved what they ask for, so they go in without it:

```shell
pip install --no-deps captum==0.9.0 kronfluence==1.0.1 dattri==0.3.0 pydvl==0.10.0 traker==0.3.2
pip install --no-deps lazy-importer more-itertools 'pydeprecate<0.4' einops einconv opt-einsum accelerate \\
    psutil requests tqdm dask distributed 'zarr>=3,<4'
```

A package that these miss in turn is named by the error of the import."""


EARLIER = (
    "Measured before the estimate of the noise rate, the scaling and the default of today: the rates, and what follows "
    "from them, are those of before; [ordinary tables](#ordinary-tables) has today's."
)


def decisions() -> str:
    if not (RESULTS / "decisions.json").exists():
        return ""
    environment, rows = read("decisions")
    seeds, settings = ({row[key] for row in rows} for key in ("seed", "setting"))
    about = (
        f"`python benchmarks/decisions.py`: {len({row['table'] for row in rows})} tables, seeds {sorted(seeds)}, noise "
        f"{', '.join(sorted(settings))}; at most {max(row['n'] for row in rows)} training rows. {where(environment)}"
    )
    return "\n\n".join(["## Searches on dirty labels", about, decided(rows)])


def detection() -> str:
    files = [path.stem for path in (RESULTS / f"noisy_labels_{name}.json" for name in DATA) if path.exists()]
    environment = read(files[0])[0]
    rows = [row for file in files for row in read(file)[1]]
    key = lambda row: (row["data"], row["noise"], row["rate"])  # noqa: E731
    parts = [
        "## Which wrong labels are found",
        "",
        "`python benchmarks/noisy_labels.py`: `NoisyLabelDetector(ComplexityGap())`, without the correction for noise "
        "by class that is the default, beside cleanlab with 5-fold "
        "out-of-sample probabilities of a logistic regression and of an MLP, on the same rows in one run (seed 0). "
        "Uniform: a row gets another class at random. Class-dependent: class c becomes c + 1 (of two classes only the "
        "first is affected). AUROC and AP rank the wrong labels; precision is taken at their true number. "
        "Peak memory includes libraries and data. cleanlab has seen the 60,000 rows at 20 % uniform noise only. "
        f"{EARLIER}",
        "",
        where(environment),
    ]
    for data, of_data in groupby(rows, key=lambda row: row["data"]):
        body = []
        for (_, noise, rate), group in groupby(of_data, key=key):
            first = [row for row in group if row["seed"] == 0]
            for row in sorted(first, key=lambda row: METHODS.index(row["method"])):
                ranks = ["–" if row[name] is None else f"{row[name]:.4f}" for name in ("auroc", "ap", "precision")]
                body.append(
                    [f"{NOISE_NAMES[noise]} {rate:.0%}" if row["method"] == METHODS[0] else "", row["method"], *ranks]
                    + [f"{row['true_rate']:.3f}", f"{row['estimated_rate']:.3f}"]
                    + [f"{row['seconds']:.1f}", f"{row['peak_gib']:.2f}"]
                )
        head = ["noise", "method", "AUROC", "AP", "precision", "true rate", "estimated", "seconds", "GiB"]
        parts += ["", f"### {data}", "", table(head, body)]
    return "\n".join(parts) + "\n\n" + rates(rows)


def rates(rows: list[dict]) -> str:
    """Estimated minus true rate over the seeds."""
    ours = [row for row in rows if row["method"] == METHODS[0]]
    body = []
    for data in dict.fromkeys(row["data"] for row in ours):
        for noise in NOISE_NAMES:
            cells = []
            for rate in (0.0, 0.1, 0.2, 0.4):
                errors = [
                    row["estimated_rate"] - row["true_rate"]
                    for row in ours
                    if (row["data"], row["noise"], row["rate"]) == (data, noise, rate)
                ]
                cells.append(" ".join(f"{error:+.3f}" for error in errors) or "–")
            body.append([data, NOISE_NAMES[noise], *cells])
    return "\n".join(
        [
            "### Error of the estimated noise rate",
            "",
            "`noise_rate_` minus the true share of wrong labels, for three seeds of the noise and the method.",
            "",
            table(["data", "noise", "0 %", "10 %", "20 %", "40 %"], body),
        ]
    )


def cleaning() -> str:
    environment, rows = read("cleaning")
    n_seeds = len({row["seed"] for row in rows})
    body = []
    for rate in (0.2, 0.4, 0.0):
        for model in dict.fromkeys(row["model"] for row in rows):
            chosen = [row for row in rows if row["rate"] == rate and row["model"] == model]
            cells = []
            for part in ("given", "cleaned", "oracle"):
                values = [row[part] for row in chosen if part in row]
                cells.append(f"{np.mean(values):.4f} ± {np.std(values):.4f}" if values else "–")
            gap = np.mean([row["oracle"] - row["given"] for row in chosen]) if rate else 0.0
            gain = np.mean([row["cleaned"] - row["given"] for row in chosen])
            cells += [f"{100 * gain:+.2f}", f"{gain / gap:.0%}" if gap > 0.02 else "–"]
            body.append([f"{rate:.0%}" if rate else "none, `guard=True`", model, *cells])
    return "\n".join(
        [
            "## What cleaning does to accuracy",
            "",
            "`python benchmarks/cleaning.py`: Fashion-MNIST, 10,000 training rows with uniform flips, 10,000 clean "
            f"test rows, {n_seeds} seeds (mean ± standard deviation). Cleaned: without the rows that "
            "`NoisyLabelDetector()` calls noisy. Oracle: the same model on the truly clean rows. Without injected "
            f"noise, `InfluencePruner(prune_ratio=0.1, guard=True)` decides whether to prune. {EARLIER}",
            "",
            where(environment),
            "",
            table(["noise", "model", "as given", "cleaned", "oracle", "gain (points)", "gap closed"], body),
        ]
    )


def cost() -> str:
    environment, rows = read("cost")
    body = []
    for n in dict.fromkeys(row["n"] for row in rows if "ratio" in row):
        runs = [row for row in rows if row["n"] == n and "ratio" in row]
        middle = {name: np.median([row[name] for row in runs]) for name in runs[0] if isinstance(runs[0][name], float)}
        body.append(
            [f"{n:,}", f"{middle['seconds']:.1f}", f"{middle['ridge_seconds']:.1f}", f"{middle['ratio']:.2f}"]
            + [f"{middle['peak_gib']:.2f}", f"{middle['ridge_peak_gib']:.2f}"]
        )
    detection = [
        [row["data"], f"{row['rate']:.0%}", f"{row['auroc']:.4f}", f"{row['ap']:.4f}", f"{row['seconds']:.1f}"]
        for row in rows
        if row.get("repeat", 0) == 0 and row["n"] in (60_000, None)
    ]
    head = ["rows", "ComplexityGap, s", "Nystroem + RidgeClassifier, s", "ratio", "GiB", "GiB (scikit-learn)"]
    return "\n".join(
        [
            "## What it costs",
            "",
            "`python benchmarks/cost.py`: Fashion-MNIST rows, 2,000 landmarks, `ComplexityGap` against scikit-learn's "
            "`Nystroem` with as many components and `RidgeClassifier` on the same rows in one run; medians of three, "
            "the ratio taken run by run.",
            "",
            where(environment),
            "",
            table(head, body),
            "",
            "Detection in the same run:",
            "",
            table(["data", "uniform flips", "AUROC", "AP", "seconds"], detection),
        ]
    )


def engine() -> str:
    """Passes of the engine, and the peers beside it; parts that were not run are left out."""
    found = {part: read(f"engine_{part}") for part in (*PARTS, "gpu") if (RESULTS / f"engine_{part}.json").exists()}
    if not found:
        return ""
    parts = [
        "## What the gradient engine costs",
        "",
        "`python benchmarks/engine.py`. Every ratio is between two times of one process, taken in turns on the same "
        "rows. A plain pass is one forward and backward pass over all rows at the best of several batch sizes. "
        "Where a target stands, it was set before the measurement.",
        "",
        PEERS_INSTALLED,
    ]
    for part, (environment, rows) in found.items():
        parts += ["", f"### {ENGINE_NAMES.get(part) or 'Beside ' + rows[0]['peer']}", "", where(environment)]
        parts += ["", engine_table(rows)]
        parts += [f"\n{row['what']}: {row['value']:.4f} (target {row['limit']:g})." for row in rows if "value" in row]
    return "\n".join(parts)


def engine_table(rows: list[dict]) -> str:
    """One of three tables, by what the rows hold."""
    target = lambda row, sign: f"{sign} {row['limit']:g}" if row.get("limit") else "–"  # noqa: E731
    rows = [row for row in rows if "value" not in row]
    if "share" in rows[0]:
        return table(
            ["what", "precision", "seconds", "rows/s", "share of peak", "r with fp32"],
            [
                [row["what"], row["precision"], f"{row['seconds']:.2f}", f"{row['rate']:,.0f}"]
                + [f"{row['share']:.1%}", f"{row['pearson']:.5f}"]
                for row in rows
            ],
        )
    if "peer_seconds" in rows[0]:
        head = ["what", "rows", "queries", "r", "rank r", "relative error", "ours, s", "theirs, s", "faster", "target"]
        body = [
            [row["what"], f"{row['n']:,}", f"{row['queries']:,}", f"{row['pearson']:.5f}", f"{row['spearman']:.5f}"]
            + [f"{row['relative_error']:.2g}", f"{row['seconds']:.3g}", f"{row['peer_seconds']:.3g}"]
            + [f"{row['ratio']:.1f}×", target(row, "≥")]
            for row in rows
        ]
        chance = [f"{row['what']} {row['own_seeds']:.3f}" for row in rows if "own_seeds" in row]
        note = f"\n\nLabels are drawn, so two seeds of ours correlate with: {'; '.join(chance)}." if chance else ""
        return table(head, body) + note + "".join(f"\n\n{row['what']}: {row['note']}" for row in rows if "note" in row)
    body = [
        [row["what"], f"{row['n']:,}", f"{row['seconds']:.3g}", f"{row['ratio']:.2f}", target(row, "≤")] for row in rows
    ]
    return table(["what", "rows", "seconds", rows[0].get("unit", "plain passes"), "target"], body)


def lds() -> str:
    """Which attribution predicts retraining, with the plot; truths that were not run are left out."""
    found = {name: read(f"lds_{name}") for name in TRUTHS if (RESULTS / f"lds_{name}.json").exists()}
    if not found:
        return ""
    draw({TRUTHS[name]: rows for name, (_, rows) in found.items()}, RESULTS / "lds.svg")
    parts = [
        "## Which attribution predicts retraining",
        "",
        "`python benchmarks/lds.py`: the linear datamodeling score (LDS). Nets were retrained on random halves of the "
        "rows; a method predicts, for every query, what each half leaves out, and its LDS is the rank correlation over "
        "the halves of the prediction with the mean of the retrained nets, averaged over the queries. Predicted is "
        "minus the margin of the right class or, for numbers, the squared error. Retraining is random itself: even a "
        "perfect prediction would only reach the ceiling, the square root of the truth's reliability. All methods get "
        "the same nets, trained on all rows from other seeds; noise is labels redrawn uniformly. One model: mean over "
        "the scored ones ± standard deviation; averaged: the LDS of the mean of the values of all models. In brackets: "
        "95 % bootstrap intervals over the queries, for differences those of the paired scores; they say nothing about "
        "other halves or other models. Seconds are of fit and attribute, medians over the models.",
        "",
        "![LDS divided by its ceiling against the number of averaged models](../benchmarks/results/lds.svg)",
    ]
    for name, (environment, rows) in found.items():
        ours = [row for row in rows if "method" in row]
        first = ours[0]
        about = f"{first['n_train']:,} rows, {first['n_queries']} queries, ceiling {first['ceiling']:.3f}"
        parts += ["", f"### {TRUTHS[name]}", "", f"{about}. {where(environment)}", "", lds_table(ours)]
        if peers := [row for row in rows if "peer" in row]:
            parts += ["", LDS_PEERS, "", lds_peers(ours, peers)]
    return "\n".join(parts)


def lds_table(rows: list[dict]) -> str:
    body = []
    for row in rows:
        cells = [row["method"]]
        for name in ("single", "averaged"):
            spread = row.get(f"{name}_sd")
            cells += [with_interval(row, name, spread=spread), f"{row[name] / row['ceiling']:.3f}"]
            gain = f"{name}_gain"
            cells += [with_interval(row, gain, sign="+") if gain in row else "–"]
        body.append([*cells, f"{row['seconds']:.1f}", f"{row['ratio']:.1f}"])
    models = f"one model, {rows[0]['n_scored']} scored", f"{rows[0]['n_models']} averaged"
    head = [cell for name in models for cell in (name, "÷ ceiling", "minus Influence")]
    return table(["method", *head, "seconds", "÷ Influence's"], body)


def with_interval(row: dict, name: str, *, sign: str = "", spread: float | None = None) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    deviation = "" if spread is None else f" ± {spread:.3f}"
    return f"{value:{sign}.3f}{deviation} [{low:{sign}.3f}, {high:{sign}.3f}]"


def lds_peers(ours: list[dict], peers: list[dict]) -> str:
    """LDS of the peers and of ours on as many of the first models."""
    counts = sorted({row["models"] for row in peers})
    body = [[row["method"], *(f"{row['first'][str(count)]:.3f}" for count in counts)] for row in ours]
    body = [[*cells, f"{row['seconds']:.1f}"] for cells, row in zip(body, ours, strict=True)]
    for row in peers:
        cells = [with_interval(row, "lds") if row["models"] == count else "–" for count in counts]
        body.append([row["peer"], *cells, f"{row['seconds'] / row['models']:.1f}"])
    heads = ["first model" if count == 1 else f"first {count} models" for count in counts]
    return table(["method", *heads, "seconds per model"], body)


def scale() -> str:
    """A million rows from a memory map; nothing where it was not run."""
    if not (RESULTS / "scale.json").exists():
        return ""
    environment, rows = read("scale")
    runs = [row for row in rows if "beyond_gib" in row]
    body = [
        [row["method"], f"{row['n']:,}", f"{row['seconds']:.1f}", f"{1e6 * row['seconds'] / row['n']:.1f}"]
        + [f"{row['beyond_gib']:.2f}"]
        + [f"{row['anonymous_beyond_gib']:.2f}" if "anonymous_beyond_gib" in row else "–"]
        for row in runs
    ]
    killed = [
        f"- {row['method']}, {row['n']:,} rows: killed with {row['shards_kept']} of {row['shards']} shards of values "
        f"on disk. The second run {'took them up' if row['taken_up'] else 'did not take them up'}; its scores are "
        f"{'identical' if row['identical'] else 'not identical'} to those of an undisturbed one "
        f"({row['seconds_again']:.1f} s against {row['seconds']:.1f} s)."
        for row in rows
        if "identical" in row
    ]
    head = ["method", "rows", "seconds", "µs per row", "GiB beyond 10,000 rows", "the same without pages of the map"]
    return "\n".join(
        [
            "## A million rows from a memory map",
            "",
            "`python benchmarks/scale.py`: 100 float32 columns, MLP 128-128, values for the loss of 1,000 validation "
            "rows. Memory is the peak of the process.",
            "",
            where(environment),
            "",
            table(head, body),
            "",
            *killed,
        ]
    )


def main() -> None:
    text = "\n\n".join(
        [
            "# Benchmarks",
            "Made by `python benchmarks/tables.py` from the JSON files beside the scripts.",
            *filter(None, (battery(), decisions())),
            detection(),
            cleaning(),
            cost(),
            *filter(
                None,
                (
                    which(),
                    adult(),
                    engine(),
                    lds(),
                    trajectory(),
                    distributional(),
                    deletion(),
                    coreset(),
                    strategies(),
                    hessian_free(),
                    fairness(),
                    adversarial(),
                    objectives_cost(),
                    finetuning(),
                    scale(),
                ),
            ),
        ]
    )
    PAGE.write_text(text + "\n")


if __name__ == "__main__":
    main()
