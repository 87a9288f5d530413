"""Sections of docs/benchmarks.md about training runs: one against many, the variance, and many trainings at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pages.common import Rows, chosen, distinct, found, over_seeds, table, where

MEASURES = {
    "mean": "mean",
    "variance": "variance",
    "wasserstein": "Wasserstein distance",
    "wasserstein_gaussian": "Wasserstein distance of normal distributions",
}


def distributional() -> str:
    """The parts of distributional.py, and vit.py, that were run."""
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
    for of, floor, by in distinct(rows, "of", "floor", "by"):
        name = MEASURES[of] + ("" if floor else ", floor not subtracted")
        cells = [interval(row, "lds") for row in chosen(rows, of=of, by=by, floor=floor)]
        body.append([name, MEASURES[by], *cells])
    yield table(["change of the", "predicted by the", *(method for (method,) in distinct(rows, "method"))], body)


def groups(rows: Rows) -> Iterable[str]:
    counts = {net: chosen(rows, net=net)[0]["n_runs"] for (net,) in distinct(rows, "net")}
    yield "Variance over runs without small groups"
    yield (
        f"The same data: {rows[0]['n_groups']} random groups of each size, {counts['recipe']} nets after the recipe of "
        f"the truth and {counts['small']} small ones (8-16-1, SGD without momentum, 5 epochs) trained without each, "
        "with the seeds and batches of as many nets on all rows. Influence on the squared error or on the output "
        "itself, by these same nets or by as many from other seeds. Rank correlation over the groups of predicted and "
        "true change, averaged over the queries; ceiling: what a perfect prediction would have, estimated from two "
        "halves of the nets."
    )
    pairs = (("mean", "mean"), ("variance", "variance"), ("variance", "mean"), ("variance", "variance minus mean"))
    body = []
    for net, outcome, runs, method, share in distinct(rows, "net", "outcome", "runs", "method", "share"):
        own = chosen(rows, net=net, outcome=outcome, runs=runs, method=method, share=share)
        cells = [interval(chosen(own, of=of, by=by)[0], "correlation") for of, by in pairs]
        ceilings = " / ".join(f"{chosen(own, of=of)[0]['ceiling']:.2f}" for of in ("mean", "variance"))
        body.append([net, outcome, method, runs, f"{share:.0%}", ceilings, *cells])
    body.sort(key=lambda cells: (cells[0], cells[1] != "output", cells[2], cells[3] != "same"))
    head = ["net", "of the", "method", "runs", "removed", "ceiling of mean / variance", "mean by mean"]
    yield table([*head, "variance by variance", "variance by mean", "difference"], body)


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
        "200 digits, softmax regression (64-10) and an MLP (64-16-10), SGD without momentum at the constant rate 0.1, "
        "weight decay 0.03: values of `SGDInfluence` (the exact derivative of the recorded run) and of `Influence` "
        "with the exact Gauss-Newton matrix at its end, for 20 queries. Correlations over the rows, averaged over the "
        "queries, and the slope of the first on the second; mean ± standard deviation over "
        f"{len(distinct(rows, 'seed'))} seeds."
    )
    names = ("pearson", "spearman", "slope", "accuracy")
    body = []
    for net, steps in distinct(rows, "net", "steps"):
        own = chosen(rows, net=net, steps=steps)
        body.append([net, f"{steps:,}", *(over_seeds(own, name) for name in names)])
    yield table(["net", "steps", "Pearson", "Spearman", "slope", "accuracy on the queries"], body)


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


def vit(rows: Rows) -> Iterable[str]:
    yield "A vision transformer without a tenth of its rows"
    scores = chosen(rows, part="scores")
    first = scores[0]
    yield (
        f"`python benchmarks/vit.py`: a ViT of {first['parameters']:,} parameters on {first['n']:,} rows of "
        f"Fashion-MNIST ({first['device']}). By one run or {first['n_runs']}: the 10 % of every class with the lowest "
        "EK-FAC influence on the loss of validation rows with right labels; any class: 10 % of all rows, the recipe of "
        "arXiv:2506.12965. Nets trained again from five seeds, the same for all ways and other than those of the "
        "runs; accuracy and loss on 10,000 test rows, mean ± standard deviation over the nets, and differences paired "
        "by seed with their standard error, in points of accuracy."
    )
    body = []
    for row in chosen(rows, part="compared"):
        cells = [f"{row[name]:.3f} ± {row[name + '_sd']:.3f}" for name in ("accuracy", "loss")]
        for other in ("all_rows", "one_run"):
            name = f"accuracy_to_{other}"
            cells.append(f"{100 * row[name]:+.1f} ± {100 * row[name + '_error']:.1f}" if name in row else "–")
        body.append([f"{row['rate']:.0%}", row["way"], *cells])
    yield table(["flipped", "removed by", "accuracy", "loss", "against all rows", "against one run"], body)
    body = []
    for row in scores:
        auroc = [f"{np.mean(row['auroc_one']):.3f}", f"{row['auroc_mean']:.3f}"] if "auroc_mean" in row else ["–", "–"]
        agreement = [f"{row[name]:.2f}" for name in ("spearman_one", "spearman_half", "common_one", "common_half")]
        body.append([f"{row['rate']:.0%}", *agreement, *auroc])
    half = first["n_runs"] // 2
    yield (
        f"How far runs agree (one with another, the mean of {half} with that of {half} others: rank correlation of "
        "scores, share of the removed rows in common), and AUROC of the wrong labels:"
    )
    names = [f"{what}, {of}" for what in ("Spearman", "in common") for of in ("one run", f"mean of {half}")]
    yield table(["flipped", *names, "AUROC, one run", f"AUROC, mean of {first['n_runs']}"], body)


PARTS = {
    "distributional_lds": lds,
    "distributional_groups": groups,
    "distributional_loo": loo,
    "distributional_unrolled": unrolled,
    "vit": vit,
    "distributional_speed": speed,
}
