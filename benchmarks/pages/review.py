"""The order of a review: what review.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages import common
from pages.common import table
from pages.page import Page, Picture
from pages.plots import dots


def review() -> Page | None:
    """Nothing where it was not run."""
    environment, rows = common.found("review")
    if not rows:
        return None
    ways = list(rows[0]["found"])
    means = {way: float(np.mean([row["found"][way][-1] for row in rows])) for way in ways}
    best = {f"{row['data']}, {row['setting']}": min(row["wrong"], row["decisions"]) for row in rows}
    panels = {
        "": {way: {f"{row['data']}, {row['setting']}": row["found"][way][-1] for row in rows} for way in ways}
        | {"a perfect order": best}
    }
    return Page(
        name="review-order",
        question="Does a review find more if the detector is fitted again along the way?",
        answer=f"After {rows[0]['decisions']} decisions {', '.join(f'{means[way]:.1f} ({way})' for way in ways)} wrong "
        f"labels are found, mean of {len(rows)} settings.",
        picture=Picture(
            "Wrong labels found in each setting, by order of review",
            partial(dots, panels, f"wrong labels found in {rows[0]['decisions']} decisions"),
        ),
        about="A reviewer who is always right decides about rows from the worst one on. The fixed order is that of the "
        f"first fit; the others fit again after every {rows[0]['step']} decisions, and `pairs` also counts which "
        "classes were really confused. Best: what a perfect order would find. `sktda review` "
        "keeps the order of the first fit.",
        command="python benchmarks/review.py",
        measured=[(environment, rows)],
        tables={"Every setting": found(rows)},
    )


def found(rows: list[dict]) -> str:
    """Means over the seeds."""
    ways = list(rows[0]["found"])
    body = []
    for data, setting in dict.fromkeys((row["data"], row["setting"]) for row in rows):
        own = [row for row in rows if (row["data"], row["setting"]) == (data, setting)]
        means = [np.mean([row["found"][way][-1] for row in own]) for way in ways]
        best = np.mean([min(row["wrong"], row["decisions"]) for row in own])
        seconds = np.mean([row["seconds"]["refit"] for row in own])
        wrong = np.mean([row["wrong"] for row in own])
        figures = [f"{mean:.1f}" for mean in (*means, best)]
        body.append([data, setting, f"{own[0]['n']:,}", f"{wrong:.0f}", *figures, f"{seconds:.0f}"])
    return table(["data", "noise", "rows", "wrong", *ways, "best", "seconds of the fits"], body)
