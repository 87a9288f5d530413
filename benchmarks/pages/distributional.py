"""Training runs: one against many, the variance, the derivative of a run: what distributional.py found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from pages.common import Rows, band, chosen, distinct, found, over_seeds, table
from pages.page import Page, Picture
from pages.plots import dots, lines
from pages.trajectory import split

MEASURES = {
    "mean": "mean",
    "variance": "variance",
    "wasserstein": "Wasserstein distance",
    "wasserstein_gaussian": "Wasserstein distance of normal distributions",
}
SHORT = {"wasserstein": "Wasserstein", "wasserstein_gaussian": "W. of normals"}
BRACKETS = " In brackets: 95 % bootstrap intervals over the queries."


def page(
    result: str,
    name: str,
    question: str,
    make: Callable[[Rows], Iterable[str]],
    show: Callable[[Rows], tuple[str, Picture]],
    command: str = "python benchmarks/distributional.py",
    more: str = BRACKETS,
) -> Page | None:
    """One part; nothing where it was not run."""
    environment, rows = found(result)
    if not rows:
        return None
    about, tables = split(make(rows))
    answer, picture = show(rows)
    return Page(
        name=name,
        question=question,
        answer=answer,
        picture=picture,
        about=about + more,
        command=command,
        measured=[(environment, rows)],
        tables=tables,
    )


def over_runs() -> list[Page | None]:
    """All parts."""
    return [
        page(
            "distributional_lds",
            "over-runs",
            "Does attribution over many runs predict how the distribution of a loss changes?",
            lds,
            show_lds,
        ),
        page(
            "distributional_groups",
            "variance-over-runs",
            "Does it predict the variance over runs when a small group is left out?",
            groups,
            show_groups,
        ),
        page(
            "distributional_loo",
            "how-many-seeds",
            "How many seeds does it take to predict what leaving one row out does?",
            loo,
            show_loo,
        ),
        page(
            "distributional_unrolled",
            "derivative-and-influence",
            "When do influence functions agree with the derivative of the run?",
            unrolled,
            show_unrolled,
            more="",
        ),
    ]


def spans(row: dict, name: str) -> tuple[float, float, float]:
    """Of a dot."""
    return row[name], row[f"{name}_low"], row[f"{name}_high"]


def show_lds(rows: Rows) -> tuple[str, Picture]:
    series = {
        method: {
            f"{SHORT.get(of, of)} by {SHORT.get(by, by)}": spans(chosen(own, of=of, by=by, floor=True)[0], "lds")
            for of, floor, by in distinct(own, "of", "floor", "by")
            if floor
        }
        for (method,) in distinct(rows, "method")
        for own in [chosen(rows, method=method)]
    }
    said = ", ".join(
        f"{values['mean by mean'][0]:.2f} and {values['variance by variance'][0]:.2f} ({method})"
        for method, values in series.items()
    )
    picture = Picture(
        "Distributional LDS of each method by what is predicted and by what, with intervals",
        partial(dots, {"": series}, "distributional LDS", mark=0),
    )
    return f"Distributional LDS of the change of the mean and of the variance: {said}.", picture


def show_groups(rows: Rows) -> tuple[str, Picture]:
    own = chosen(rows, outcome="output", runs="same")
    share = max(row["share"] for row in own)
    panels = {
        f"{net}, {share:.0%} removed": {
            method: {
                f"{of} by {by}": spans(cells[0], "correlation")
                for of, by in (("mean", "mean"), ("variance", "variance"), ("variance", "mean"))
                if (cells := chosen(own, net=net, method=method, share=share, of=of, by=by))
            }
            for (method,) in distinct(chosen(own, net=net), "method")
        }
        for (net,) in distinct(own, "net")
    }
    gaps = [row for row in rows if row["by"] == "variance minus mean"]
    clear = sum(row["correlation_low"] > 0 for row in gaps)
    answer = (
        "The predicted variance predicts the change of the variance better than the predicted mean does in "
        f"{clear} of {len(gaps)} cells, and worse in {sum(row['correlation_high'] < 0 for row in gaps)}, counting "
        "those whose interval excludes zero."
    )
    picture = Picture(
        "Rank correlation of predicted and true change of mean and variance, for the largest groups",
        partial(dots, panels, "rank correlation over the groups", mark=0),
    )
    return answer, picture


def show_loo(rows: Rows) -> tuple[str, Picture]:
    series = {
        f"batches {batches}": [(row["seeds"], spans(row, "spearman")) for row in chosen(rows, batches=batches)]
        for (batches,) in distinct(rows, "batches")
    }
    said = "; ".join(
        f"{name}: {points[0][1][0]:.2f} by {points[0][0]} seed, {points[-1][1][0]:.2f} by {points[-1][0]}"
        for name, points in series.items()
    )
    picture = Picture(
        "Rank correlation of mean change and mean influence against the number of seeds",
        partial(lines, {"": series}, "seeds", "rank correlation", log="x", mark=0),
    )
    return f"Rank correlation with leave-one-out: {said}.", picture


def show_unrolled(rows: Rows) -> tuple[str, Picture]:
    series = {
        f"net {net}": [
            (steps, band(chosen(rows, net=net, steps=steps), "spearman"))
            for steps in sorted(steps for (steps,) in distinct(chosen(rows, net=net), "steps"))
        ]
        for (net,) in distinct(rows, "net")
    }
    said = "; ".join(
        f"{name}: {points[0][1][0]:.2f} after {points[0][0]} steps, {points[-1][1][0]:.2f} after {points[-1][0]:,}"
        for name, points in series.items()
    )
    picture = Picture(
        "Rank correlation of influence with the derivative of the run against the steps of training",
        partial(lines, {"": series}, "steps", "rank correlation", log="x"),
    )
    return f"Rank correlation of the two: {said}.", picture


def interval(row: dict, name: str) -> str:
    """Mean and interval."""
    return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"


def lds(rows: Rows) -> Iterable[str]:
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
    yield "Distributional LDS"
    yield table(["change of the", "predicted by the", *(method for (method,) in distinct(rows, "method"))], body)


def groups(rows: Rows) -> Iterable[str]:
    counts = {net: chosen(rows, net=net)[0]["n_runs"] for (net,) in distinct(rows, "net")}
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
    yield "Rank correlation of predicted and true change"
    yield table([*head, "variance by variance", "variance by mean", "difference"], body)


def loo(rows: Rows) -> Iterable[str]:
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
    yield "Rank correlation by number of seeds"
    yield table(["", *(f"{n} seed{'s' if n > 1 else ''}" for n in counts)], body)


def unrolled(rows: Rows) -> Iterable[str]:
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
    yield "Agreement by length of training"
    yield table(["net", "steps", "Pearson", "Spearman", "slope", "accuracy on the queries"], body)
