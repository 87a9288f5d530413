"""Section of docs/benchmarks.md: copies and strange rows."""

from __future__ import annotations

from pages.common import chosen, found, table, where


def alike() -> str:
    """What is named of each data set as it is, and of planted rows; nothing where it was not run."""
    measured, rows = found("alike")
    if not rows:
        return ""
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
    return "\n\n".join(
        [
            "## Copies and strange rows",
            f"{where(measured)} `python benchmarks/alike.py --cost`: what `compare_rows` names of the rows as they "
            "are, and of 20 planted ones (mean of 3 seeds): equal to another row; near, with noise of 1 % of each "
            "column's standard deviation; shuffled, each cell from another row; far, 3 standard deviations up or down "
            "in every column. Near copies are not looked for where equal rows coincide by nature, and not told where "
            "few columns, or numbers beside categories, bring as many rows as near. A shuffled row of some tables is "
            "like the others. "
            + (
                f"Seconds of the processor on 10,000 rows, of those of the whole `sktda score`: {seconds}."
                if costs
                else ""
            ),
            table(
                ["", "rows", "equal", "near", "outliers", "planted equal", "near", "shuffled", "far"],
                body,
            ),
        ]
    )
