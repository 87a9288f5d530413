"""Section of docs/benchmarks.md about the shell: seconds, memory, and what it finds."""

from __future__ import annotations

from pages.common import read, table, where
from shared.common import RESULTS

WHAT = {
    "million": "`clean`, 5 % of the labels wrong",
    "wide": "`clean`, 5 % wrong",
    "help": "`--help`",
    "start": "until the first row is read",
    "classes": "`clean`, two classes",
    "numbers": "`clean`, a number as target",
}


def front_door() -> str:
    if not (RESULTS / "front_door.json").exists():
        return ""
    environment, rows = read("front_door")
    about = (
        "`python benchmarks/front_door.py`: one command of the shell in a process of its own, with the seconds on the "
        "clock, of the processor and the peak of its memory. A "
        f"report beyond scoring: {beyond(rows)}. Seed {rows[0]['seed']}. {where(environment)}"
    )
    return "\n\n".join(["## From the shell", about, found(rows)])


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
