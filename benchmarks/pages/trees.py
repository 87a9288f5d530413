"""Attribution of boosted trees: what trees.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import Rows, chosen, distinct, found, mean, table
from pages.page import Page, Picture
from pages.plots import dots


def trees() -> Page | None:
    """What the named rows are worth; nothing where it was not run."""
    environment, rows = found("trees_removal")
    if not rows:
        return None
    share = 0.02
    methods = [method for (method,) in distinct(rows, "method")]
    rises = {m: ends(np.concatenate([row["rises"] for row in chosen(rows, method=m, share=share)])) for m in methods}
    free = {method: value for method, value in rises.items() if " of " not in method}
    best = max(free, key=lambda method: free[method][0])
    said = ", ".join(f"{free[method][0]:+.3f} ({method})" for method in free)
    measured, tables = [(environment, rows)], {}
    tables["Rises of the loss by who chose the rows, and seconds"] = removal_table(rows)
    tables["How much further the loss rises by BoostIn's choice than by another, query by query"] = paired_table(rows)
    tables["By table, at 2 % removed"] = by_table(chosen(rows, share=share))
    environment, timed = found("trees_speed")
    if timed:
        measured.append((environment, timed))
        tables["Seconds and memory on many rows"] = speed_table(timed)
    return Page(
        name="boosted-trees",
        question="Which attribution of boosted trees names the rows that matter?",
        answer=f"Without the {share:.0%} of the rows that a method names the loss of a query rises most by the choice "
        f"of {best}; means: {said}.",
        picture=Picture(
            "Rise of the loss without the 2 % of the rows that each method names, with intervals",
            partial(dots, {"": {"mean and 95 % interval": rises}}, "rise of the query's loss, 2 % removed", mark=0),
        ),
        about="For each query, a test row, the training rows with the highest values are removed, HistGradientBoosting "
        "(50 steps) is fitted again, and the rise of its loss there is noted: the more, the better the choice. "
        f"Means over {len(distinct(rows, 'table'))} tables of up to {max(row['n'] for row in rows)} training "
        f"rows, {len(rows[0]['rises'])} queries each; in brackets 95 % intervals by resampling queries. Leave-one-out "
        "is measured on rows drawn at random, and BoostIn's choice among the same rows stands beside it. Seconds are "
        "the mean of a table, the training of the model included.",
        command="python benchmarks/trees.py",
        measured=measured,
        tables=tables,
    )


def trees_noise() -> Page | None:
    """Wrong labels that they find; nothing where it was not run."""
    environment, rows = found("trees_noise")
    if not rows:
        return None
    default = "NoisyLabelDetector()"
    means = {method: mean(chosen(rows, method=method), "ap") for (method,) in distinct(rows, "method")}
    ordered = sorted(means, key=lambda method: -means[method])
    best = next(method for method in ordered if method != default)
    return Page(
        name="boosted-trees-noise",
        question="Do attributions of boosted trees find wrong labels?",
        answer=f"Mean average precision of the default {means[default]:.3f}; of the scores of trees "
        f"{means[best]:.3f} is the best ({best}).",
        picture=Picture(
            "Mean average precision of each score",
            partial(dots, {"": {"mean over tables": {m: means[m] for m in ordered}}}, "average precision"),
        ),
        about=f"15 % of the labels changed at random, {len(distinct(rows, 'table'))} tables of up to "
        f"{max(row['n'] for row in rows)} rows: means over the tables, in how many of them AP is above that of the "
        "default, and the table where it is furthest below. Validation scores are cross-fitted over five folds.",
        command="python benchmarks/trees.py",
        measured=[(environment, rows)],
        tables={"Every score": noise_table(rows)},
    )


def ends(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and both ends of its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).choice(values, (2_000, len(values))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def interval(values: np.ndarray) -> str:
    """The same in words."""
    middle, low, high = ends(values)
    return f"{middle:+.3f} ({low:+.3f} to {high:+.3f})"


def removal_table(rows: Rows) -> str:
    """Rises by method and share."""
    shares = sorted({row["share"] for row in rows})
    body = []
    for (method,) in distinct(rows, "method"):
        cells = []
        for share in shares:
            own = chosen(rows, method=method, share=share)
            cells.append(interval(np.concatenate([row["rises"] for row in own])) if own else "–")
        body.append([method, *cells, f"{np.mean([row['seconds'] for row in chosen(rows, method=method)]):.1f}"])
    return table(["rows chosen by", *(f"{share:.1%} removed" for share in shares), "seconds"], body)


def paired_table(rows: Rows) -> str:
    """Differences to BoostIn; of leave-one-out to BoostIn's choice among the same rows."""
    shares = sorted({row["share"] for row in rows})
    body = []
    for (method,) in distinct(rows, "method"):
        ours = "BoostIn" if " of " not in method else f"BoostIn,{method.split(',')[1]}"
        if method == ours:
            continue
        cells = []
        for share in shares:
            pairs = [chosen(rows, method=name, share=share) for name in (ours, method)]
            lists = [np.concatenate([row["rises"] for row in own]) for own in pairs if own]
            cells.append(interval(lists[0] - lists[1]) if len(lists) == 2 else "–")
        body.append([method, *cells])
    return table(["than the choice of", *(f"{share:.1%} removed" for share in shares)], body)


def by_table(rows: Rows) -> str:
    """Mean rises of the methods that choose among all rows."""
    methods = [method for (method,) in distinct(rows, "method") if " of " not in method]
    body = []
    for (name,) in distinct(rows, "table"):
        cells = [f"{np.mean(row['rises']):+.3f}" for m in methods for row in chosen(rows, table=name, method=m)]
        body.append([name, *cells])
    return table(["table", *methods], body)


def noise_table(rows: Rows) -> str:
    """AUROC and AP by method."""
    default = {row["table"]: row["ap"] for row in chosen(rows, method="NoisyLabelDetector()")}
    body = []
    for (method,) in distinct(rows, "method"):
        own = chosen(rows, method=method)
        wins = sum(row["ap"] > default[row["table"]] for row in own)
        means = [f"{np.mean([row[name] for row in own]):.3f}" for name in ("auroc", "ap")]
        worst = min(own, key=lambda row: row["ap"] - default[row["table"]])
        gap = f"{worst['ap'] - default[worst['table']]:+.3f}, {worst['table']}"
        seconds = f"{np.mean([row['seconds'] for row in own]):.1f}"
        above = "–" if method == "NoisyLabelDetector()" else f"{wins} of {len(own)}"
        body.append([method, *means, above, "–" if above == "–" else gap, seconds])
    return table(["scores", "AUROC", "AP", "AP above the default", "worst against it", "seconds"], body)


def speed_table(rows: Rows) -> str:
    """Seconds and memory."""
    body = [
        [
            f"{row['n']:,} rows, {row['trees']} trees, {row['queries']:,} queries",
            *(f"{row[name]:.1f}" for name in ("fit", "self", "attribute")),
            f"{row['peak_gib']:.2f}",
        ]
        for row in rows
    ]
    return table(["", "fit of the model", "self scores", "`attribute`", "peak GiB"], body)
