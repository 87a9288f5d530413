"""Section of docs/benchmarks.md about accelerators: figures of a card where there are some, and counts without one."""

from __future__ import annotations

from pages.common import Rows, distinct, found, table

COUNTED = {"kernels": "kernels", "syncs": "waits", "uploads": "uploads", "downloads": "downloads"}
BYTES = {"uploaded": "bytes up per row", "downloaded": "bytes down per row"}


def gpu() -> str:
    """Nothing where nothing was run."""
    parts = [part for part in (measured(*found("gpu")), counted(*found("gpu_simulated"))) if part]
    return "\n\n".join(["## On a GPU", *parts]) if parts else ""


def measured(environment: dict, rows: Rows) -> str:
    """Seconds on a card, and what was not measured."""
    if not rows:
        return (
            "**Figures of CUDA are outstanding:** nothing has been timed on a real card yet. `make gpu` takes them, "
            "[on any machine that has one](gpu.md)."
        )
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
    rows = [row for row in rows if row["status"] == "ok"]
    if not rows:
        return ""
    body = []
    for what in distinct(rows, "what"):
        few, many = sorted((row for row in rows if row["what"] == what[0]), key=lambda row: row["size"][0])
        n, twice = few["size"][0], many["size"][0]
        cells = [change(f"{few[name]:,}", f"{many[name]:,}") for name in COUNTED]
        cells += [change(f"{few[name] / n:,.0f}", f"{many[name] / twice:,.0f}") for name in BYTES]
        body.append([what[0], f"{n} → {twice}", *cells])
    return "\n\n".join(
        [
            "### Counted on a simulated device",
            "`python benchmarks/engine.py gpu --simulate`: the same rows at small sizes, on a torch device whose "
            "memory is the processor's and whose rules are CUDA's. It counts kernels, how often the "
            "program waits for the device, and what is sent to it and read back. All rows are one batch, for n and for "
            "twice as many; a number that stands alone is the same for both, so that what a method asks does not grow "
            "with the rows but by the batch. (Pairs take as many terms as their accuracy needs, which depends on the "
            "rows; every checkpoint of Source is sent anew for each pass.) "
            f"Counted with torch {environment['torch']}.",
            table(["what", "rows", *COUNTED.values(), *BYTES.values()], body),
        ]
    )


def change(few: str, many: str) -> str:
    """One number, or from one to the other."""
    return few if few == many else f"{few} → {many}"
