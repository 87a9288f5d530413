"""Section of docs/benchmarks.md about which attribution predicts retraining."""

from __future__ import annotations

from pages.common import read, table, where
from pages.lds_plot import draw
from shared.common import RESULTS

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
