"""Section of docs/benchmarks.md about the cleaners that decide themselves."""

from __future__ import annotations

import numpy as np
from pages.common import read, table, where
from shared.common import RESULTS


def decisions() -> str:
    if not (RESULTS / "decisions.json").exists():
        return ""
    environment, rows = read("decisions")
    seeds, settings = ({row[key] for row in rows} for key in ("seed", "setting"))
    about = (
        f"`python benchmarks/decisions.py`: {len({row['table'] for row in rows})} tables, seeds {sorted(seeds)}, noise "
        f"{', '.join(sorted(settings))}; at most {max(row['n'] for row in rows)} training rows. {where(environment)}"
    )
    return "\n\n".join(["## Searches on dirty labels", about, decided(rows)])


def decided(rows: list[dict]) -> str:
    """Means over tables and seeds, and the table where each way loses most against all rows."""
    body = []
    ways = [*rows[0]["decided"], "right rows"]
    shares = [way for way in ways if way[0].isdigit()]
    for setting in dict.fromkeys(row["setting"] for row in rows):
        for kind in dict.fromkeys(row["model"] for row in rows):
            own = [row for row in rows if (row["setting"], row["model"]) == (setting, kind)]
            means = {way: mean(own, way) for way in ways}
            best = max(shares, key=lambda way, means=means: means[way])
            for way, value in means.items():
                tables = sorted({row["table"] for row in own})
                gains = {t: np.mean([row[way] - row["0"] for row in own if row["table"] == t]) for t in tables}
                worst = min(gains, key=lambda t, gains=gains: gains[t])
                figures = [f"{value:.4f}", f"{value - means['0']:+.4f}", f"{value - means[best]:+.4f}"]
                body.append([setting, kind, way, *figures, f"{gains[worst]:+.3f}, {worst}"])
    head = ["noise", "model", "share removed, or who decides", "accuracy", "to all rows", "to the best share", "worst"]
    return table(head, body)


def mean(rows: list[dict], way: str) -> float:
    """Accuracy over rows."""
    return float(np.mean([row[way] for row in rows]))
