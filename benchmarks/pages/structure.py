"""Section of docs/benchmarks.md about the code itself."""

from __future__ import annotations

from pages.common import found, table


def structure() -> str:
    """How a call passes through the files, and what is counted in them; nothing where it was not run."""
    _, rows = found("structure")
    if not rows:
        return ""
    before = any(row["before"] is not None for row in rows)
    body = [
        [
            row["what"],
            *([f"{row['before']:g}" if row["before"] is not None else "–"] if before else []),
            f"{row['now']:g}",
        ]
        for row in rows
    ]
    return "\n\n".join(
        [
            "## The code itself",
            "`python benchmarks/structure.py --source CHECKOUT`: calls followed through the files, on 300 digits. Only "
            "calls between functions of sktda count, each pair of caller and called once. A hop is such a pair in two "
            "files; it turns back where the file that it enters is at work already, further up the stack. A class "
            "counts as on a concrete one where nothing in its base is abstract, and a method as in place of a concrete "
            "one where that did something. Files that know one: those of `sktda/` whose code names a method, "
            "objective, layer, suffix or display, its own among them; the median over those that there are.",
            table(["", *(["before"] if before else []), "now"], body),
        ]
    )
