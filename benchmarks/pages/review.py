"""Section of docs/benchmarks.md about the order of a review."""

from __future__ import annotations

import numpy as np
from pages.common import read, table, where
from shared.common import RESULTS


def review() -> str:
    if not (RESULTS / "review.json").exists():
        return ""
    environment, rows = read("review")
    about = (
        f"`python benchmarks/review.py`: wrong labels found in {rows[0]['decisions']} decisions of a reviewer who is "
        f"always right, seeds {sorted({row['seed'] for row in rows})}. The fixed order is that of the first fit; the "
        f"others fit again after every {rows[0]['step']} decisions, and `pairs` also counts which classes were really "
        f"confused. Neither pays, so `sktda review` stays with the first. {where(environment)}"
    )
    return "\n\n".join(["## Order of a review", about, found(rows)])


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
