"""The detector by the complexity gap: what noisy_labels.py, cleaning.py and cost.py found."""

from __future__ import annotations

from functools import partial
from itertools import groupby

import numpy as np
from noisy_labels import DATA
from pages.common import Rows, band, chosen, distinct, found, mean, middle, table
from pages.page import Page, Picture
from pages.plots import dots, lines

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
    "from them, are those of before; [ordinary tables](tables.md) has today's."
)


def detection() -> Page | None:
    """Nothing where nothing was run."""
    measured = [each for name in DATA if (each := found(f"noisy_labels_{name}"))[1]]
    rows = [row for _, own in measured for row in own]
    if not rows:
        return None
    ours = [row for row in rows if row["method"] == METHODS[0] and row["ap"] is not None and row["seed"] == 0]
    cells, panels = [], {}
    for row in ours:
        same = chosen(rows, data=row["data"], noise=row["noise"], rate=row["rate"], seed=0)
        peers = [other["ap"] for other in same if other["method"] != METHODS[0]]
        if peers:
            cells.append((row["ap"], max(peers)))
    for (data,) in distinct(ours, "data"):
        panels[data] = {
            method: {
                f"{NOISE_NAMES[row['noise']]} {row['rate']:.0%}": row["ap"]
                for row in chosen(rows, data=data, method=method, seed=0)
                if row["ap"] is not None
            }
            for method in METHODS
        }
    tables = {
        f"{data}: every noise and method": by_noise(list(own)) for data, own in groupby(rows, lambda r: r["data"])
    }
    return Page(
        name="complexity-gap",
        question="Which wrong labels does ComplexityGap find, beside cleanlab?",
        answer=f"Its average precision is above the best of four ways of cleanlab in "
        f"{sum(own > best for own, best in cells)} of {len(cells)} cells; mean "
        f"{np.mean([own for own, _ in cells]):.3f} against {np.mean([best for _, best in cells]):.3f}.",
        picture=Picture(
            "Average precision by data, noise and method",
            partial(dots, panels, "average precision"),
        ),
        about="`NoisyLabelDetector(ComplexityGap())`, without the correction for noise by class that is the default, "
        "beside cleanlab with 5-fold out-of-sample probabilities of a logistic regression and of an MLP, on the same "
        "rows. Uniform: a row gets another class at random. Class-dependent: class c becomes c + 1 (of two classes "
        "only the first is affected). AUROC and AP rank the wrong labels; precision is taken at their true number. "
        f"Peak memory includes libraries and data. cleanlab has seen the 60,000 rows at 20 % uniform "
        f"noise only. {EARLIER}",
        command="python benchmarks/noisy_labels.py",
        measured=measured,
        tables=tables | {"Error of the estimated noise rate, three seeds of the noise and the method": rates(rows)},
    )


def by_noise(rows: Rows) -> str:
    """One line for each noise and method, of the first seed."""
    body = []
    for (noise, rate), group in groupby(rows, key=lambda row: (row["noise"], row["rate"])):
        first = [row for row in group if row["seed"] == 0]
        for row in sorted(first, key=lambda row: METHODS.index(row["method"])):
            ranks = ["–" if row[name] is None else f"{row[name]:.4f}" for name in ("auroc", "ap", "precision")]
            body.append(
                [f"{NOISE_NAMES[noise]} {rate:.0%}" if row["method"] == METHODS[0] else "", row["method"], *ranks]
                + [f"{row['true_rate']:.3f}", f"{row['estimated_rate']:.3f}"]
                + [f"{row['seconds']:.1f}", f"{row['peak_gib']:.2f}"]
            )
    return table(["noise", "method", "AUROC", "AP", "precision", "true rate", "estimated", "seconds", "GiB"], body)


def rates(rows: Rows) -> str:
    """Estimated minus true rate over the seeds."""
    ours = [row for row in rows if row["method"] == METHODS[0]]
    body = []
    for data in dict.fromkeys(row["data"] for row in ours):
        for noise in NOISE_NAMES:
            cells = []
            for rate in (0.0, 0.1, 0.2, 0.4):
                errors = [
                    row["estimated_rate"] - row["true_rate"] for row in chosen(ours, data=data, noise=noise, rate=rate)
                ]
                cells.append(" ".join(f"{error:+.3f}" for error in errors) or "–")
            body.append([data, NOISE_NAMES[noise], *cells])
    return table(["data", "noise", "0 %", "10 %", "20 %", "40 %"], body)


PARTS = {"given": "as given", "cleaned": "cleaned", "oracle": "right rows only"}


def cleaning() -> Page | None:
    """Accuracy before and after; nothing where it was not run."""
    environment, rows = found("cleaning")
    if not rows:
        return None
    noises = {0.2: "20% flipped", 0.4: "40% flipped", 0.0: "labels as published, guard=True"}
    body, panels, said = [], {}, []
    for rate, title in noises.items():
        models = [model for (model,) in distinct(chosen(rows, rate=rate), "model")]
        panels[title] = {}
        for part, name in PARTS.items():
            cells = {model: [row for row in chosen(rows, rate=rate, model=model) if part in row] for model in models}
            panels[title][name] = {model: band(own, part) for model, own in cells.items() if own}
        for model in models:
            own = chosen(rows, rate=rate, model=model)
            cells = []
            for part in PARTS:
                values = [row[part] for row in own if part in row]
                cells.append(f"{np.mean(values):.4f} ± {np.std(values):.4f}" if values else "–")
            gap = mean(own, "oracle") - mean(own, "given") if rate else 0.0
            gain = mean(own, "cleaned") - mean(own, "given")
            cells += [f"{100 * gain:+.2f}", f"{gain / gap:.0%}" if gap > 0.02 else "–"]
            body.append([f"{rate:.0%}" if rate else "none, `guard=True`", model, *cells])
            said += [f"{100 * gain:+.1f} ({model})"] if rate == 0.2 else []
    head = ["noise", "model", *PARTS.values(), "gain (points)", "gap closed"]
    return Page(
        name="cleaned-images",
        question="Does cleaning Fashion-MNIST help the model that is trained on it?",
        answer=f"With 20 % of the labels flipped, points of test accuracy that cleaning brings: {', '.join(said)}.",
        picture=Picture(
            "Test accuracy as given, cleaned, and on the right rows only, by model and noise",
            partial(dots, panels, "accuracy on 10,000 clean test rows", joined=True),
        ),
        about="10,000 training rows with uniform flips. Cleaned: without the rows that `NoisyLabelDetector()` calls "
        "noisy. Right rows only: the same model on what nobody knows. Without injected noise, "
        "`InfluencePruner(prune_ratio=0.1, guard=True)` decides whether to prune. Gains are in points; a model that "
        "hardly suffers has hardly a gap to close.",
        command="python benchmarks/cleaning.py",
        measured=[(environment, rows)],
        tables={"Accuracy, mean ± standard deviation": table(head, body)},
    )


def cost() -> Page | None:
    """Seconds of the kernel; nothing where it was not run."""
    environment, rows = found("cost")
    if not rows:
        return None
    body, ours, peer = [], [], []
    for n in dict.fromkeys(row["n"] for row in rows if "ratio" in row):
        runs = [row for row in rows if row["n"] == n and "ratio" in row]
        values = {name: middle(runs, name) for name in runs[0] if isinstance(runs[0][name], float)}
        body.append(
            [f"{n:,}", f"{values['seconds']:.1f}", f"{values['ridge_seconds']:.1f}", f"{values['ratio']:.2f}"]
            + [f"{values['peak_gib']:.2f}", f"{values['ridge_peak_gib']:.2f}"]
        )
        ours.append((n, values["seconds"]))
        peer.append((n, values["ridge_seconds"]))
    detection = [
        [row["data"], f"{row['rate']:.0%}", f"{row['auroc']:.4f}", f"{row['ap']:.4f}", f"{row['seconds']:.1f}"]
        for row in rows
        if row.get("repeat", 0) == 0 and row["n"] in (60_000, None)
    ]
    head = ["rows", "ComplexityGap, s", "Nystroem + RidgeClassifier, s", "ratio", "GiB", "GiB (scikit-learn)"]
    (n, seconds), (_, theirs) = ours[-1], peer[-1]
    panels = {"": {"ComplexityGap": ours, "Nystroem + RidgeClassifier": peer}}
    return Page(
        name="complexity-gap-cost",
        question="What does ComplexityGap cost?",
        answer=f"{n:,} rows of 784 pixels take {seconds:.1f} s, {seconds / theirs:.2f} times what scikit-learn "
        f"takes to "
        "train a model of the same kernel on them.",
        picture=Picture(
            "Seconds against rows, both axes logarithmic",
            partial(lines, panels, "rows", "seconds, median of three", log="xy"),
        ),
        about="Fashion-MNIST rows, 2,000 landmarks, `ComplexityGap` against scikit-learn's `Nystroem` with as many "
        "components and `RidgeClassifier` on the same rows in one run; medians of three, the ratio taken run by run.",
        command="python benchmarks/cost.py",
        measured=[(environment, rows)],
        tables={
            "Seconds and memory": table(head, body),
            "What is found in the same run": table(["data", "uniform flips", "AUROC", "AP", "seconds"], detection),
        },
    )
