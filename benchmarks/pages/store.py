"""Section of docs/benchmarks.md about compressed gradients on disk."""

from __future__ import annotations

from pages.common import Rows, chosen, found, table, where
from pages.lds import TRUTHS


def store() -> str:
    """What asking costs against a million rows, and what compression costs; nothing where neither was run."""
    parts = [*size(), *quality()]
    return "\n\n".join(["## A million stored rows", *parts]) if parts else ""


def size() -> list[str]:
    """Seconds and memory of the fit and of the queries."""
    environment, rows = found("store_size")
    if not rows:
        return []
    (fit,), (load,), asked = (chosen(rows, part=part) for part in ("fit", "load", "top_k"))
    body = [
        [f"fit, {fit['rows']:,} rows", f"{fit['threads']}", f"{fit['seconds']:.0f}", f"{fit['busy']:.0f}", ""],
        ["load", "1", f"{load['seconds']:.1f}", "", ""],
        *(
            [
                f"top_k, {row['queries']} queries, {'again' if row['number'] else 'and all checksums'}",
                f"{row['threads']}",
                f"{row['seconds']:.1f}",
                f"{row['busy']:.1f}",
                f"{row['gib']:.2f}",
            ]
            for row in asked
        ),
    ]
    return [
        f"`python benchmarks/store.py size`: an MLP 784-2048-2048-2048-10 ({fit['parameters'] / 1e6:.1f} million "
        f"parameters) on Fashion-MNIST, `LoGra` of rank {fit['rank']}, {fit['width']} float16 numbers a row, "
        f"{fit['gib']:.2f} GiB for {fit['stored']:,} rows. Only {fit['rows']:,} come of passes through the net: "
        "the others are rows of the fit at random times a normal number, written by the same writer, so that what "
        "asking costs is that of a million and what it finds means nothing. The ten most helpful rows of each of 100 "
        "queries, in a process that has the net and the folder. The machine was shared with other work; "
        "processor seconds are what one free core takes at most. Memory is the peak of the process, "
        f"{load['net_gib']:.2f} GiB before it asks: Python, torch, the pictures, the net.",
        where(environment),
        table(["", "threads", "seconds", "processor seconds", "GiB"], body),
    ]


def quality() -> list[str]:
    """LDS beside other methods, by truth."""
    measured = {name: found(f"store_{name}") for name in TRUTHS}
    measured = {name: each for name, each in measured.items() if each[1]}
    if not measured:
        return []
    parts = [
        "### What compression costs",
        "`python benchmarks/store.py TRUTH`: the linear datamodeling score as above, of one net, with 95 % bootstrap "
        "intervals over the queries. Numbers are those that are kept of a row; EK-FAC keeps none, and passes over all "
        "rows for every block of queries. TRAK projects the whole gradient at random; with GraSS (arXiv:2505.18976) "
        "first to four times as many random coordinates. LoGra on random coordinates is the mask of factored GraSS. "
        "Neither is in the library: GraSS saves time against TRAK and not against LoGra, and no mask predicts better. "
        "Processor seconds, one thread.",
    ]
    for name, (environment, rows) in measured.items():
        parts += [f"#### {TRUTHS[name]}", where(environment), lds_table(rows)]
    return parts


def lds_table(rows: Rows) -> str:
    """One line a method."""
    body = [
        [
            row["method"],
            f"{row['numbers']:,}" if row["numbers"] else "–",
            f"{row['lds']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            f"{row['fit']:.1f}",
            f"{row['ask']:.2f}",
        ]
        for row in rows
    ]
    head = ["method", "numbers a row", "LDS", f"fit, {rows[0]['n']:,} rows, s", f"{rows[0]['n_query']} queries, s"]
    return table(head, body)
