"""Compressed gradients on disk: what store.py measured."""

from __future__ import annotations

from functools import partial

from pages.common import Rows, chosen, found, table
from pages.lds import TRUTHS
from pages.page import Page, Picture
from pages.plots import bars, dots


def store() -> Page | None:
    """What asking costs against a million rows; nothing where it was not run."""
    environment, rows = found("store_size")
    if not rows:
        return None
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
    first, again = asked[0], asked[-1]
    panels = {
        "": {
            "on the clock": {cells[0]: float(cells[2].replace(",", "")) for cells in body},
            "of the processor": {cells[0]: float(cells[3]) for cells in body if cells[3]},
        }
    }
    return Page(
        name="store",
        question="What does it cost to ask a million stored rows?",
        answer=f"{first['queries']} queries against {fit['stored']:,} rows in {fit['gib']:.2f} GiB take "
        f"{first['seconds']:.0f} s the first time, with all checksums, {again['seconds']:.0f} s again, and "
        f"{max(row['gib'] for row in asked):.2f} GiB of memory.",
        picture=Picture("Seconds of the fit, of loading and of asking", partial(bars, panels, "seconds")),
        about=f"An MLP 784-2048-2048-2048-10 ({fit['parameters'] / 1e6:.1f} million "
        f"parameters) on Fashion-MNIST, `LoGra` of rank {fit['rank']}, {fit['width']} float16 numbers a row, "
        f"{fit['gib']:.2f} GiB for {fit['stored']:,} rows. Only {fit['rows']:,} come of passes through the net: "
        "the others are rows of the fit at random times a normal number, written by the same writer, so that what "
        "asking costs is that of a million and what it finds means nothing. The ten most helpful rows of each of 100 "
        "queries, in a process that has the net and the folder. Processor seconds "
        "are what one free core takes at most. Memory is the peak of the process, "
        f"{load['net_gib']:.2f} GiB before it asks: Python, torch, the pictures, the net.",
        command="python benchmarks/store.py size",
        measured=[(environment, rows)],
        tables={"Seconds and memory": table(["", "threads", "seconds", "processor seconds", "GiB"], body)},
    )


def compression() -> Page | None:
    """LDS beside other methods, by truth; nothing where it was not run."""
    measured = {name: found(f"store_{name}") for name in TRUTHS}
    measured = {name: each for name, each in measured.items() if each[1]}
    if not measured:
        return None
    panels, said = {}, []
    for name, (_, rows) in measured.items():
        panels[TRUTHS[name]] = {
            "LDS and 95 % interval": {
                f"{row['method']} ({row['numbers']:,} numbers)" if row["numbers"] else row["method"]: (
                    row["lds"],
                    row["low"],
                    row["high"],
                )
                for row in rows
            }
        }
        whole = rows[0]
        best = max((row for row in rows if row["numbers"]), key=lambda row: row["lds"])
        said.append(f"{whole['lds']:.2f} and {best['lds']:.2f} ({best['method']})")
    return Page(
        name="compression",
        question="What does compressing gradients cost in what they predict?",
        answer=f"LDS on {len(measured)} truths by {whole['method']}, which stores nothing, and by the best of the "
        f"stored: {'; '.join(said)}.",
        picture=Picture(
            "LDS of each way to compress on each truth, with intervals", partial(dots, panels, "LDS", mark=0)
        ),
        about="The linear datamodeling score as in [another page](predicts-retraining.md), of one net, with 95 % "
        "bootstrap intervals over the queries. Numbers are those that are kept of a row; EK-FAC keeps none, and passes "
        "over all rows for every block of queries. TRAK projects the whole gradient at random; with GraSS "
        "(arXiv:2505.18976) first to four times as many random coordinates. LoGra on random coordinates is the mask of "
        "factored GraSS. Neither is in the library: GraSS saves time against TRAK and not against LoGra, and no mask "
        "predicts better. Processor seconds, one thread.",
        command="python benchmarks/store.py TRUTH",
        measured=list(measured.values()),
        tables={TRUTHS[name]: lds_table(rows) for name, (_, rows) in measured.items()},
    )


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
