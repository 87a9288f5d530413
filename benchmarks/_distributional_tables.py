"""Sections of docs/benchmarks.md about training runs: one against many, the variance, and many trainings at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from _page import table, where
from _trajectory_tables import Rows, chosen, distinct, found, over_seeds

MEASURES = {
    "mean": "mean",
    "variance": "variance",
    "wasserstein": "Wasserstein distance",
    "wasserstein_gaussian": "Wasserstein distance of normal distributions",
}


def distributional() -> str:
    """The parts of distributional.py that were run."""
    parts = [(name, make) for name, make in PARTS.items() if found(name)[1]]
    if not parts:
        return ""
    sections = []
    for name, make in parts:
        environment, rows = found(name)
        title, about, *rest = make(rows)
        sections += [f"### {title}", f"{about} {where(environment)}", *rest]
    head = "`python benchmarks/distributional.py`; in brackets: 95 % bootstrap intervals over the queries."
    return "\n\n".join(["## Distributional attribution", head, *sections])


def interval(row: dict, name: str) -> str:
    """Mean and interval."""
    return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"


def lds(rows: Rows) -> Iterable[str]:
    yield "Distributional LDS on Concrete"
    yield (
        "How the distribution of a query's squared error over runs changes when half of the rows are left out: rank "
        "correlation over 100 subsets of the predicted measure with that of 20 retrained nets, averaged over 103 "
        f"queries. Predictions from {rows[0]['n_runs']} other nets; MLP 8-128-128-128-1."
    )
    body = []
    for of, name in MEASURES.items():
        for (by,) in distinct(chosen(rows, of=of), "by"):
            cells = [interval(row, "lds") for row in chosen(rows, of=of, by=by)]
            body.append([name, MEASURES[by], *cells])
    yield table(["change of the", "predicted by the", *(method for (method,) in distinct(rows, "method"))], body)


def groups(rows: Rows) -> Iterable[str]:
    first = rows[0]
    yield "Variance of the output without small groups"
    yield (
        f"The same data and net: {first['n_groups']} random groups of each size, {first['n_runs']} nets trained "
        "without each, with the seeds and batches of as many nets on all rows. EK-FAC influence on the squared error "
        "or on the output itself, by these same nets or by as many from other seeds. Rank correlation over the groups "
        "of predicted and true change, averaged over 103 queries."
    )
    body = []
    for outcome, runs, share in distinct(rows, "outcome", "runs", "share"):
        own = chosen(rows, outcome=outcome, runs=runs, share=share)
        cells = [
            interval(chosen(own, of=of, by=by)[0], "correlation")
            for of, by in (
                ("mean", "mean"),
                ("variance", "variance"),
                ("variance", "mean"),
                ("variance", "variance minus mean"),
            )
        ]
        body.append([outcome, runs, f"{share:.0%}", *cells])
    body.sort(key=lambda cells: (cells[0] != "output", cells[1] != "same"))
    head = ["of the", "runs", "removed", "mean by mean", "variance by variance", "variance by mean", "difference"]
    yield table(head, body)


def loo(rows: Rows) -> Iterable[str]:
    yield "Leave-one-out against the number of seeds"
    yield (
        f"{rows[0]['n_rows']} of 200 digits, each left out of up to {max(row['seeds'] for row in rows)} trainings of "
        "an MLP 64-16-10 (30 epochs, so many seeds for the truth and so many other runs for the prediction by exact "
        "influence): rank correlation over the rows of mean change and mean influence, averaged over 50 queries."
    )
    counts = [seeds for (seeds,) in distinct(rows, "seeds")]
    body = [
        [f"batches {batches}", *(interval(chosen(rows, batches=batches, seeds=n)[0], "spearman") for n in counts)]
        for (batches,) in distinct(rows, "batches")
    ]
    yield table(["", *(f"{n} seed{'s' if n > 1 else ''}" for n in counts)], body)


def unrolled(rows: Rows) -> Iterable[str]:
    yield "The derivative of the run, and influence functions"
    yield (
        "200 digits, MLP 64-16-10, SGD without momentum at a constant rate, weight decay 0.01: values of "
        "`SGDInfluence` (the exact derivative of the recorded run) and of `Influence` with the exact curvature at its "
        "end, for 20 queries. Correlations over the rows, averaged over the queries, and the slope of the first on the "
        f"second; mean ± standard deviation over {len(distinct(rows, 'seed'))} seeds."
    )
    body = []
    for (steps,) in distinct(rows, "steps"):
        own = chosen(rows, steps=steps)
        body.append([f"{steps:,}", *(over_seeds(own, name) for name in ("pearson", "spearman", "slope", "accuracy"))])
    yield table(["steps", "Pearson", "Spearman", "slope", "accuracy on the queries"], body)


def speed(rows: Rows) -> Iterable[str]:
    first = rows[0]
    yield "Many small nets at once"
    same = "were" if first["identical"] else "were not"
    yield (
        f"`sktda.retrain`: {first['nets']} nets 64-64-64-10 on 1,797 digits, {first['epochs']} epochs of batches of "
        f"64, device {first['device']}, beside as many fits of skorch one after the other; medians of "
        f"{len(distinct(rows, 'repeat'))} runs in turns. Repeated, all parameters {same} the same bit by bit."
    )
    seconds = {way: np.median([row["seconds"] for row in chosen(rows, way=way)]) for (way,) in distinct(rows, "way")}
    body = [
        [way, f"{value:.2f}", f"{seconds['skorch'] / value:.1f}", f"{chosen(rows, way=way)[0]['accuracy']:.4f}"]
        for way, value in seconds.items()
        if way != "side by side again"
    ]
    yield table(["", "seconds", "times as fast", "accuracy on their rows"], body)


PARTS = {
    "distributional_lds": lds,
    "distributional_groups": groups,
    "distributional_loo": loo,
    "distributional_unrolled": unrolled,
    "distributional_speed": speed,
}
