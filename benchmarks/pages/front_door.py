"""The shell, in seconds, memory, and what it finds: what front_door.py measured."""

from __future__ import annotations

from functools import partial

from pages import common
from pages.common import table
from pages.page import Page, Picture
from pages.plots import bars

WHAT = {
    "million": "`clean`, 5 % of the labels wrong",
    "wide": "`clean`, 5 % wrong",
    "help": "`--help`",
    "start": "until the first row is read",
    "classes": "`clean`, two classes",
    "numbers": "`clean`, a number as target",
}


def front_door() -> Page | None:
    """Nothing where it was not run."""
    environment, rows = common.found("front_door")
    if not rows:
        return None
    by_name = {row["what"]: row for row in rows}
    million, start = by_name["million"], by_name["help"]
    panels = {
        "seconds of the processor": {"": {label(row): row["cpu"] for row in rows}},
        "GiB, peak of the process": {"": {label(row): row["peak_gib"] for row in rows}},
    }
    return Page(
        name="shell",
        question="How long does `sktda clean` take, and how much memory?",
        answer=f"{million['rows']:,} rows of {million['columns']} columns take {million['seconds']:.0f} s on the clock "
        f"and {million['peak_gib']:.1f} GiB, {million['flagged']:,} rows are flagged with precision "
        f"{million['precision']:.3f} and recall {million['recall']:.3f}; the help is there after "
        f"{start['seconds']:.1f} s.",
        picture=Picture(
            "Seconds of the processor and peak memory of each command", partial(bars, panels, "", same=False)
        ),
        about="Each row is one command of the shell in a process of its own, with the seconds on the clock, of the "
        "processor, and the peak of its memory, libraries included. Wrong labels are planted where precision and "
        f"recall are shown. A report costs beyond scoring: {beyond(rows)}.",
        command="python benchmarks/front_door.py",
        measured=[(environment, rows)],
        tables={"Every command": found(rows)},
    )


def label(row: dict) -> str:
    """Short, for a plot."""
    size = f", {row['rows']:,} × {row['columns']:,}" if "rows" in row else ""
    return f"{row['what'].removesuffix(', report')}{size}{' and report' if row['what'].endswith('report') else ''}"


def beyond(rows: list[dict]) -> str:
    """Processor seconds that the page adds."""
    cpu = {row["what"]: row["cpu"] for row in rows}
    return ", ".join(
        f"{cpu[f'{task}, report'] - cpu[task]:.1f} s of {task}" for task in ("classes", "numbers") if task in cpu
    )


def found(rows: list[dict]) -> str:
    """One line for each command."""
    body = []
    for row in rows:
        name = row["what"]
        said = WHAT.get(name.removesuffix(", report"), f"`clean`, {name.upper().replace('SMS', 'SMS spam,')} flipped")
        size = f"{row['rows']:,} × {row['columns']:,}" if "rows" in row else ""
        shares = [f"{row[key]:.3f}" if key in row else "" for key in ("precision", "recall")]
        figures = [f"{row['seconds']:.1f}", f"{row['cpu']:.1f}", f"{row['peak_gib']:.2f}"]
        body.append([said + (" and a report" if name.endswith("report") else ""), size, *figures, *shares])
    return table(["command", "table", "seconds", "processor", "GiB", "precision", "recall"], body)
