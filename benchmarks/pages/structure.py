"""The code itself: what structure.py counted."""

from __future__ import annotations

from functools import partial

from pages.common import found, table
from pages.page import Page, Picture
from pages.plots import dots


def structure() -> Page | None:
    """How a call passes through the files, and what is counted in them; nothing where it was not run."""
    environment, rows = found("structure")
    if not rows:
        return None
    before = any(row["before"] is not None for row in rows)
    body = [
        [
            row["what"],
            *([f"{row['before']:g}" if row["before"] is not None else "–"] if before else []),
            f"{row['now']:g}",
        ]
        for row in rows
    ]
    series = {row["what"]: row["now"] / row["before"] for row in rows if row["before"]}
    less = sum(row["now"] < row["before"] for row in rows if row["before"] is not None)
    more = sum(row["now"] > row["before"] for row in rows if row["before"] is not None)
    return Page(
        name="structure",
        question="How does a call pass through the files of the library?",
        answer=f"Of {len(rows)} counts {less} are lower than before the last rebuilding and {more} higher"
        f" (files that a fit of NoisyLabelDetector passes: {rows[0]['now']:g}).",
        picture=Picture(
            "Every count now over that before, a line at one",
            partial(dots, {"": {"now / before": series}}, "now / before", mark=1, log=True),
        ),
        about="Calls followed through the files, on 300 digits. Only "
        "calls between functions of sktda count, each pair of caller and called once. A hop is such a pair in two "
        "files; it turns back where the file that it enters is at work already, further up the stack. A class "
        "counts as on a concrete one where nothing in its base is abstract, and a method as in place of a concrete "
        "one where that did something. Files that know one: those of `sktda/` whose code names a method, "
        "objective, layer, suffix or display, its own among them; the median over those that there are.",
        command="python benchmarks/structure.py --source CHECKOUT",
        measured=[(environment, rows)],
        tables={"Every count": table(["", *(["before"] if before else []), "now"], body)},
    )
