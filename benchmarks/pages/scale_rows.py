"""Ten million rows: what scale.py --methods measured, and what projection.py makes of it."""

from __future__ import annotations

from pages.common import distinct, found, table, where
from projection import ROWS, as_table, assumptions


def scale_rows() -> str:
    """Seconds, memory and growth of each method by blocks; nothing where it was not run."""
    environment, rows = found("scale_rows")
    if not rows:
        return ""
    body = []
    for (method,) in distinct(rows, "method"):
        runs = sorted((row for row in rows if row["method"] == method), key=lambda row: row["n"])
        for k, row in enumerate(runs):
            rate = row["processor_seconds"] / row["n"]
            before = runs[k - 1]["processor_seconds"] / runs[k - 1]["n"] if k else None
            body.append(
                [method, f"{row['n']:,} x {row['columns']}", f"{row['seconds']:.1f}", f"{row['processor_seconds']:.1f}"]
                + [f"{1e6 * rate:.2f}", "–" if before is None else f"{rate / before:.2f}"]
                + [f"{row['peak_gib']:.2f}", "–" if row["anonymous_gib"] is None else f"{row['anonymous_gib']:.2f}"]
            )
    head = ["method", "rows", "seconds", "of the processor", "of the processor per row, µs", "times that of fewer rows"]
    head += ["peak, GiB", "without mapped files, GiB"]
    return "\n\n".join(
        [
            "## Ten million rows, block by block",
            "`python benchmarks/scale.py --methods all --rows 1000000 10000000`: float32 columns on disk; two classes "
            "where probabilities of all rows are a result, else ten; 1,000 validation rows, 100 of KNNShapley. Pages "
            "of mapped files are in the peak of a process until something else needs them. TracIn and Source explain "
            "one epoch on all rows, which is not timed.",
            where(environment),
            table(head, body),
            f"### A projection to {ROWS:,} rows",
            f"`python benchmarks/projection.py`, on paper: {assumptions()}",
            as_table(rows),
        ]
    )
