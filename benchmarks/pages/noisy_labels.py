"""Sections of docs/benchmarks.md about the detector by the complexity gap: what it finds and costs, and accuracy."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from noisy_labels import DATA
from pages.common import read, table, where
from shared.common import RESULTS

NOISE_NAMES = {"uniform": "uniform", "class": "class-dependent"}
METHODS = [
    "sktda ComplexityGap",
    "cleanlab find_label_issues, logistic",
    "cleanlab CleanLearning, logistic",
    "cleanlab find_label_issues, mlp",
    "cleanlab CleanLearning, mlp",
]
EARLIER = (
    "Measured before the estimate of the noise rate, the scaling and the default of today: the rates, and what follows "
    "from them, are those of before; [ordinary tables](#ordinary-tables) has today's."
)


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
            f"noise, `InfluencePruner(prune_ratio=0.1, guard=True)` decides whether to prune.",
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
