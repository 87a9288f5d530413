"""Accelerators: figures of a card where there are some, and counts without one."""

from __future__ import annotations

from functools import partial

from pages.common import Rows, distinct, found, table
from pages.page import Page, Picture
from pages.plots import bars

COUNTED = {"kernels": "kernels", "syncs": "waits", "uploads": "uploads", "downloads": "downloads"}
BYTES = {"uploaded": "bytes up per row", "downloaded": "bytes down per row"}


def gpu() -> Page | None:
    """Nothing where nothing was run."""
    environment, timed = found("gpu")
    simulated, counts = found("gpu_simulated")
    counts = [row for row in counts if row["status"] == "ok"]
    if not timed and not counts:
        return None
    tables = {}
    done = [row for row in timed if row["status"] == "ok"]
    if done:
        tables["Seconds on a card"] = measured(environment, timed)
        panels = {"": {"seconds": {f"{row['what']}, {row['precision']}": row["seconds"] for row in done}}}
        picture = Picture("Seconds of each task on the card", partial(bars, panels, f"seconds, {environment['card']}"))
        answer = f"On {environment['card']} {len(done)} of {len(timed)} tasks were timed, from "
        answer += f"{min(row['seconds'] for row in done):.2g} to {max(row['seconds'] for row in done):.3g} s."
    else:
        pairs = grown(counts)
        same = sum(few["syncs"] == many["syncs"] for few, many in pairs.values())
        panels = {
            "": {
                "n rows": {what: few["syncs"] for what, (few, _) in pairs.items()},
                "2n rows": {what: many["syncs"] for what, (_, many) in pairs.items()},
            }
        }
        picture = Picture(
            "How often each method waits for the device, for n and twice as many rows",
            partial(bars, panels, "waits"),
        )
        answer = "No card has been timed yet; counted on a simulated device, "
        answer += f"{same} of {len(pairs)} methods wait for the device no more often on twice as many rows."
    if counts:
        tables["Counted on a simulated device"] = counted(simulated, counts)
    return Page(
        name="gpu",
        question="What does a GPU bring, and how often is it waited for?",
        answer=answer,
        picture=picture,
        about="`make gpu` takes the figures of a card, [on any machine that has one](../gpu.md). Counts are taken at "
        "small sizes on a torch device whose memory is the processor's and whose rules are CUDA's: kernels, how often "
        "the program waits for the device, and what is sent to it and read back. All rows are one batch, for n and for "
        "twice as many; a number that stands alone is the same for both, so that what a method asks does not grow with "
        "the rows but by the batch. (Pairs take as many terms as their accuracy needs, which depends on the rows; "
        "every checkpoint of Source is sent anew for each pass, its small tensors as one.)",
        command="python benchmarks/engine.py gpu --simulate",
        measured=[(each, []) for each, rows in ((environment, timed), (simulated, counts)) if rows],
        tables=tables,
    )


def grown(rows: Rows) -> dict[str, tuple[dict, dict]]:
    """What was counted on n and on 2n rows, by task."""
    return {
        what: tuple(sorted((row for row in rows if row["what"] == what), key=lambda row: row["size"][0]))
        for (what,) in distinct(rows, "what")
    }


def measured(environment: dict, rows: Rows) -> str:
    """Seconds on a card, and what was not measured."""
    number = lambda row, name, form: format(row[name], form) if name in row else "–"  # noqa: E731
    body = [
        [row["what"], size(row["size"]), row["precision"], f"{row['seconds']:.3g}", f"{row['rate']:,.0f}"]
        + [number(row, "share", ".1%"), number(row, "peak_gib", ".1f"), number(row, "plain_passes", ".1f")]
        + [number(row, "with_fit_seconds", ".3g"), number(row, "kronfluence_seconds", "g")]
        + [number(row, "pearson", ".5f")]
        for row in rows
        if row["status"] == "ok"
    ]
    head = ["what", "size", "precision", "seconds", "rows/s", "share of peak", "GiB", "plain passes", "with the fit, s"]
    others = [f"- {row['what']}, {size(row['size'])}, {row['precision']}: {row['status']}." for row in rows]
    return "\n\n".join(
        [
            f"`make gpu`, on {environment['date']}: {environment['card']}, driver {environment['driver']}; torch "
            f"{environment['torch']}, {environment['processor']}. A share of the peak is what one plain forward and "
            "backward pass needs of operations (for ComplexityGap and KNNShapley, their products), per second, over "
            "those of a matrix product of 8,192 rows and columns in the same precision. Beside it, kronfluence as its "
            "authors publish it, on an A100. r is with the same values in fp32.",
            table([*head, "kronfluence, s", "r"], body),
            "\n".join(line for line, row in zip(others, rows, strict=True) if row["status"] != "ok"),
        ]
    ).strip()


def size(numbers: list[int]) -> str:
    """50,000 × 2,000."""
    return " × ".join(f"{k:,}" for k in numbers)


def counted(environment: dict, rows: Rows) -> str:
    """What each method asks of a device, on n and on 2n rows."""
    body = []
    for what, (few, many) in grown(rows).items():
        n, twice = few["size"][0], many["size"][0]
        cells = [change(f"{few[name]:,}", f"{many[name]:,}") for name in COUNTED]
        cells += [change(f"{few[name] / n:,.0f}", f"{many[name] / twice:,.0f}") for name in BYTES]
        body.append([what, f"{n} → {twice}", *cells])
    return table(["what", "rows", *COUNTED.values(), *BYTES.values()], body)


def change(few: str, many: str) -> str:
    """One number, or from one to the other."""
    return few if few == many else f"{few} → {many}"
