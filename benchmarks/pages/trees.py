"""Section of docs/benchmarks.md on attribution for boosted trees."""

from __future__ import annotations

import numpy as np
from pages.common import Rows, chosen, distinct, found, table, where


def trees() -> str:
    environment, rows = found("trees_removal")
    if not rows:
        return ""
    n_queries = len(rows[0]["rises"])
    parts = [
        "## Attribution of boosted trees",
        f"`python benchmarks/trees.py`. {where(environment)}",
        "### What the named rows are worth",
        "For each query, a test row, the training rows with the highest values are removed, HistGradientBoosting (50 "
        "steps) is fitted again, and the rise of its loss there is noted: the more, the better the choice. "
        f"Means over {len(distinct(rows, 'table'))} tables of up to {max(row['n'] for row in rows)} training "
        f"rows, {n_queries} queries each, seed 0; in brackets 95 % intervals by resampling queries. Leave-one-out is "
        "measured on rows drawn at random, and BoostIn's choice among the same rows stands beside it. Seconds are the "
        "mean of a table, the training of the model included.",
        removal_table(rows),
        "How much further the loss rises by BoostIn's choice than by another, query by query:",
        paired_table(rows),
        "By table, at 2 %:",
        by_table(chosen(rows, share=0.02)),
    ]
    environment, rows = found("trees_noise")
    if rows:
        parts += [
            "### Wrong labels that they find",
            f"15 % of the labels changed at random, {len(distinct(rows, 'table'))} tables of up to "
            f"{max(row['n'] for row in rows)} rows, seed 0: means over the tables, and in how many of them AP is above "
            f"that of the default. Validation scores are cross-fitted over five folds. {where(environment)}",
            noise_table(rows),
        ]
    environment, rows = found("trees_speed")
    if rows:
        parts += ["### What it costs", where(environment), speed_table(rows)]
    return "\n\n".join(parts)


def interval(values: np.ndarray) -> str:
    """Mean and 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).choice(values, (2_000, len(values))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{values.mean():+.3f} ({low:+.3f} to {high:+.3f})"


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
