"""Copies and strange rows: what alike.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import chosen, found, table
from pages.page import Page, Picture
from pages.plots import dots


def alike() -> Page | None:
    """What is named of each data set as it is, and of planted rows; nothing where it was not run."""
    environment, rows = found("alike")
    if not rows:
        return None
    planted, costs = chosen(rows, part="planted"), chosen(rows, part="cost")
    seconds = "; ".join(
        f"{row['data']}: {row['compare_rows']:.2f} s of {row['score']:.1f} s ({row['compare_rows'] / row['score']:.0%})"
        for row in costs
    )
    body = [
        [
            row["data"],
            f"{row['n']:,}",
            f"{row['duplicates']:,}{' (by nature)' if row['by_nature'] else ''}",
            *(f"{row[name]:,}" for name in ("near_duplicates", "outliers")),
            *(f"{share:.0%}" for share in row["named"].values()),
        ]
        for row in planted
    ]
    kinds = list(planted[0]["named"])
    means = {kind: float(np.mean([row["named"][kind] for row in planted])) for kind in kinds}
    outliers = sum(row["outliers"] for row in planted) / sum(row["n"] for row in planted)
    panels = {"": {kind: {row["data"]: 100 * row["named"][kind] for row in planted} for kind in kinds}}
    return Page(
        name="copies-and-strange-rows",
        question="Are copies and strange rows found, and only these?",
        answer=f"Of 20 planted rows, mean of {len(planted)} data sets, those are named that are "
        f"{', '.join(f'{kind} ({means[kind]:.0%})' for kind in kinds)}; of the rows as they are, {outliers:.1%} are "
        "called outliers.",
        picture=Picture(
            "Share of planted equal, near, shuffled and far rows that are named in each data set",
            partial(dots, panels, "% of the planted rows that are named"),
        ),
        about="What `compare_rows` names of the rows as they are, and of 20 planted ones (mean of 3 seeds): equal to "
        "another row; near, with noise of 1 % of each column's standard deviation; shuffled, each cell from another "
        "row; far, 3 standard deviations up or down in every column. Near copies are not looked for where equal rows "
        "coincide by nature, and not told where few columns, or numbers beside categories, bring as many rows as near. "
        "A shuffled row of some tables is like the others."
        + (
            f" Seconds of the processor on 10,000 rows, of those of the whole `sktda score`: {seconds}."
            if costs
            else ""
        ),
        command="python benchmarks/alike.py --cost",
        measured=[(environment, rows)],
        tables={
            "Rows as they are, and shares of the planted rows that are named": table(
                ["", "rows", "equal", "near", "outliers", *(f"planted {kind}" for kind in kinds)], body
            )
        },
    )
