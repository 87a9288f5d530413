"""Many rows: what scale.py measured."""

from __future__ import annotations

import itertools
from functools import partial

from pages.common import chosen, distinct, found, table
from pages.page import Page, Picture
from pages.plots import dots, lines
from projection import ROWS, as_table, assumptions

MILLION = 1_000_000


def scale() -> Page | None:
    """A million rows from a memory map; nothing where it was not run."""
    environment, rows = found("scale")
    runs = [row for row in rows if "beyond_gib" in row]
    if not runs:
        return None
    body = [
        [row["method"], f"{row['n']:,}", f"{row['seconds']:.1f}", f"{1e6 * row['seconds'] / row['n']:.1f}"]
        + [f"{row['beyond_gib']:.2f}"]
        + [f"{row['anonymous_beyond_gib']:.2f}" if "anonymous_beyond_gib" in row else "–"]
        for row in runs
    ]
    killed = [
        f"- {row['method']}, {row['n']:,} rows: killed with {row['shards_kept']} of {row['shards']} shards of values "
        f"on disk. The second run {'took them up' if row['taken_up'] else 'did not take them up'}; its scores are "
        f"{'identical' if row['identical'] else 'not identical'} to those of an undisturbed one "
        f"({row['seconds_again']:.1f} s against {row['seconds']:.1f} s)."
        for row in rows
        if "identical" in row
    ]
    head = ["method", "rows", "seconds", "µs per row", "GiB beyond 10,000 rows", "the same without pages of the map"]
    methods = [method for (method,) in distinct(runs, "method")]
    most = {method: max(chosen(runs, method=method), key=lambda row: row["n"]) for method in methods}
    said = "; ".join(
        f"{row['n']:,} rows take {row['seconds']:.0f} s by {method}, {row['beyond_gib']:.2f} GiB beyond 10,000 rows"
        for method, row in most.items()
    )
    points = {m: sorted((row["n"], row["seconds"]) for row in chosen(runs, method=m)) for m in methods}
    tables = {"Seconds and memory": table(head, body)}
    if killed:
        tables["Killed on the way, and run again"] = "\n".join(killed)
    return Page(
        name="scale",
        question="How do seconds and memory grow with the rows?",
        answer=f"From a memory map {said}.",
        picture=Picture(
            "Seconds against rows for each method, both axes logarithmic",
            partial(lines, {"": points}, "rows", "seconds", log="xy"),
        ),
        about="100 float32 columns, MLP 128-128, values for the loss of 1,000 validation rows. Memory is the peak of "
        "the process; pages of the map are given back when something else needs them.",
        command="python benchmarks/scale.py",
        measured=[(environment, rows)],
        tables=tables,
    )


def scale_rows() -> Page | None:
    """Every method that goes through the rows block by block; nothing where it was not run."""
    environment, rows = found("scale_rows")
    if not rows:
        return None
    methods = [method for (method,) in distinct(rows, "method")]
    body = []
    kinds = {(row["method"], row["threads"], row.get("limit_gib")) for row in rows}
    for method, threads, limit in sorted(kinds, key=lambda kind: (methods.index(kind[0]), kind[2] or 0, kind[1])):
        runs = sorted(chosen(rows, method=method, threads=threads, limit_gib=limit), key=lambda row: row["n"])
        rates = [row["processor_seconds"] / row["n"] for row in runs]
        growth = ["–", *(f"{rate / before:.2f}" for before, rate in itertools.pairwise(rates))]
        for row, grown in zip(runs, growth, strict=True):
            body.append(
                [method, f"{row['n']:,} × {row['columns']}", str(threads), f"{limit:.1f}" if limit else "–"]
                + [f"{row['seconds']:.1f}", f"{row['processor_seconds']:.1f}"]
                + [f"{1e6 * row['processor_seconds'] / row['n']:.2f}", grown, f"{row['peak_gib']:.2f}"]
                + [f"{row['anonymous_gib']:.2f}" if row.get("anonymous_gib") is not None else "–"]
            )
    head = ["method", "rows", "threads", "limit, GiB", "seconds", "processor", "of it per row, µs"]
    head += ["times that of fewer rows", "GiB", "GiB without mapped files"]
    free = chosen(rows, threads=1, limit_gib=None)
    sizes = sorted(n for (n,) in distinct(free, "n"))
    most = {row["method"]: row for row in chosen(free, n=sizes[-1])}
    fast, slow = (end(most, key=lambda method: most[method]["seconds"]) for end in (min, max))
    memory = {m: row["anonymous_gib"] for m, row in most.items() if row.get("anonymous_gib") is not None}
    said = f"; without mapped files they hold at most {max(memory.values()):.1f} GiB" if memory else ""
    series = {f"{n:,} rows": {row["method"]: row["seconds"] for row in chosen(free, n=n)} for n in sizes}
    panels = {"": {name: {m: own.get(m) for m in methods} for name, own in series.items()}}
    return Page(
        name="many-rows",
        question=f"How long do methods take on {sizes[-1]:,} rows?",
        answer=f"On one thread {sizes[-1]:,} rows take {most[fast]['seconds']:,.0f} s ({fast}) to "
        f"{most[slow]['seconds']:,.0f} s ({slow}){said}.",
        picture=Picture("Seconds of each method, logarithmic, by rows", partial(dots, panels, "seconds", log=True)),
        about="Each method that goes through the rows block by block, on float32 columns that are made in a file and "
        "read from it; two classes where probabilities of all rows are a result, else ten; 1,000 validation rows, 100 "
        "of `KNNShapley`. `TracIn` and `Source` explain one epoch on all rows, which is not timed. Memory is the peak "
        "of the process, with and without the pages of mapped files, which are given back when something else needs "
        "them: runs with a limit had a control group of that size, in which those pages count. "
        f"The projection is on paper: {assumptions()}",
        command="python benchmarks/scale.py --methods all --rows 1000000 10000000 --threads 1",
        measured=[(environment, rows)],
        tables={
            "Seconds and memory": table(head, body),
            f"A projection to {ROWS:,} rows (`python benchmarks/projection.py`)": as_table(rows),
        },
    )


def scale_pairs() -> Page | None:
    """A million image-text pairs; nothing where it was not run."""
    environment, rows = found("scale_pairs")
    if not rows:
        return None
    body = [
        [f"{row['n']:,}"]
        + [f"{row[name]:.0f}" for name in ("train_processor_seconds", "train_seconds", "processor_seconds", "seconds")]
        + [f"{1e6 * row['processor_seconds'] / row['n']:.0f}", f"{row['peak_gib']:.2f}", f"{row['auroc']:.3f}"]
        for row in rows
    ]
    columns = ["pairs", "training, processor seconds", "the same, on the clock", "DiffIn, processor seconds"]
    columns += ["the same, on the clock", "µs of the processor per pair", "peak of the process, GiB", "AUROC"]
    text = (
        f"Two towers of {rows[0]['parameters']:,} parameters, one epoch in "
        f"batches of {rows[0]['batch']}, 64 numbers and 4 words a pair, made as they are read; 30 % mismatched. "
        "`DiffIn` for the loss of 1,000 matched pairs at the last checkpoint, in the batches that the pairs stood in. "
        "All rows of the table are measured, on one thread of a busy machine, where the clock says little."
    )
    if (most := rows[-1])["n"] < MILLION:
        whole = {name: most[name] * MILLION / most["n"] for name in ("processor_seconds", "train_processor_seconds")}
        text += (
            f" A million was not run: both grow with the pairs, to {whole['processor_seconds']:.0f} s of "
            f"the processor and {whole['train_processor_seconds']:.0f} s for the training; this is extrapolated."
        )
    names = {"train_processor_seconds": "training", "processor_seconds": "DiffIn"}
    points = {title: [(row["n"], row[name]) for row in rows] for name, title in names.items()}
    return Page(
        name="scale-pairs",
        question="How long do image-text pairs take, and in how much memory?",
        answer=f"{most['n']:,} pairs take {most['processor_seconds']:.0f} s of the processor by DiffIn, after "
        f"{most['train_processor_seconds']:.0f} s of training, and {most['peak_gib']:.2f} GiB; AUROC of the mismatched "
        f"is {most['auroc']:.3f}.",
        picture=Picture(
            "Seconds of the processor against pairs, both axes logarithmic",
            partial(lines, {"": points}, "pairs", "seconds of the processor", log="xy"),
        ),
        about=text,
        command="python benchmarks/scale.py --pairs",
        measured=[(environment, rows)],
        tables={"Seconds, memory, AUROC": table(columns, body)},
    )
