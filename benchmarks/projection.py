"""On paper: what the methods that go through the rows block by block would take for a billion rows on 100 workers.

    python benchmarks/projection.py            # from benchmarks/results/scale_rows.json
    python benchmarks/projection.py --quick    # of made-up costs: does it run?

Nothing is measured here. Processor seconds per row are those of the largest run of `scale.py --methods`, and are taken
to grow with the columns, 768 for 100: an upper bound, as not all work does. Passes are counted in the code: how often a
method reads X. Each worker has two cores, reads its share of the rows from a disk or a store at READ bytes a second,
and works while it reads. Work is taken to be shared out evenly, that of the trees of LabelPosterior, too, which one
machine does today. What sums cross the network is small beside that: at most WORKERS x SUMS bytes a pass.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

from pages.common import found, table
from shared.common import begin

ROWS, COLUMNS, WORKERS, CORES = 1_000_000_000, 768, 100, 2
READ, PRICE = 200e6, 0.10  # bytes a second per worker; dollars per hour of a worker
SUMS = 64e6  # bytes of the largest sums: the factors of EK-FAC, or the Gram matrix of 2,000 landmarks
PASSES = {  # over X. Every method but those of nets looks once for NaN, and twice for means and deviations
    "InnerProduct": 1,
    "self-scores": 1,
    "Influence ekfac": 3,  # factors, eigenvalues, scores
    "TracIn": 6,  # one per checkpoint
    "Source": 9,  # factors, eigenvalues and scores of three segments
    "ComplexityGap": 5,  # sums, then predictions
    "LabelPosterior": 15,  # those of ComplexityGap, one to write evened columns, then these for each ten trees
}


class Projection(NamedTuple):
    """What one method takes: see the head of the table."""

    method: str
    passes: int
    terabytes: float
    worker_hours: float
    hours: float
    dollars: float


def projected(rows: list[dict]) -> list[Projection]:
    """From the largest run of each method that is a sum over the rows."""
    projections = []
    for method, passes in PASSES.items():
        runs = [row for row in rows if row["method"] == method]
        if not runs:
            continue
        run = max(runs, key=lambda row: row["n"])
        moved = 4.0 * ROWS * COLUMNS * passes
        work = run["processor_seconds"] / run["n"] * ROWS * COLUMNS / run["columns"] / CORES
        busy = max(work, moved / READ) / 3600
        projections.append(Projection(method, passes, moved / 1e12, busy, busy / WORKERS, PRICE * busy))
    return projections


def assumptions() -> str:
    """What the projection rests on, in a sentence or two."""
    return (
        f"{ROWS:,} rows of {COLUMNS} float32 columns on {WORKERS} workers of {CORES} cores, from the processor "
        f"seconds per row of scale.py, times {COLUMNS}/100 for the columns. Assumed: a worker reads "
        f"{READ / 1e6:.0f} MB a second and costs {PRICE:.2f} dollars an hour, and work is shared out evenly (that of "
        f"the trees of LabelPosterior is done by one machine today). Sums that cross the network are at most "
        f"{WORKERS * SUMS / 1e9:.1f} GB a pass."
    )


def as_table(rows: list[dict]) -> str:
    """The projection as Markdown."""
    head = ["method", "passes over X", "TB read", "worker hours", f"hours on {WORKERS}", "dollars"]
    body = [
        [each.method, f"{each.passes}", f"{each.terabytes:.1f}", f"{each.worker_hours:,.0f}", f"{each.hours:.1f}"]
        + [f"{each.dollars:,.0f}"]
        for each in projected(rows)
    ]
    return table(head, body)


def main(arguments: list[str] | None = None) -> None:
    options = begin(argparse.ArgumentParser(description=__doc__.splitlines()[0]), arguments)
    rows = found("scale_rows")[1]
    if options.quick:
        rows = [{"method": name, "n": 1_000, "columns": 100, "processor_seconds": 1e-2} for name in PASSES]
    print(f"{assumptions()}\n\n{as_table(rows)}")


if __name__ == "__main__":
    main()
