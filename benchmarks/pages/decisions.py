"""The cleaners that decide themselves: what decisions.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import distinct, found, table
from pages.page import Page, Picture
from pages.plots import dots

NAMES = {"u0": "labels as they are", "u15": "15 % wrong labels"}


def decisions() -> Page | None:
    """Nothing where it was not run."""
    environment, rows = found("decisions")
    if not rows:
        return None
    ways = [way for way in rows[0]["decided"] if not way[0].isdigit()]
    panels: dict[str, dict] = {}
    for setting, kind in distinct(rows, "setting", "model"):
        own = [row for row in rows if (row["setting"], row["model"]) == (setting, kind)]
        gains = {way: [100 * (row[way] - row["0"]) for row in own] for way in (*ways, "right rows")}
        panels[f"{kind}, {NAMES.get(setting, setting)}"] = {
            "mean and standard error": {way: with_error(values) for way, values in gains.items()}
        }
    way = "InfluencePrunerCV"
    means: dict[str, list[str]] = {}  # by noise, of every model: what it gains, and what there is to gain
    for (setting, kind), series in zip(distinct(rows, "setting", "model"), panels.values(), strict=True):
        own = next(iter(series.values()))
        gains = f"{own[way][0]:+.1f} of {own['right rows'][0]:+.1f} ({kind})"
        means.setdefault(NAMES.get(setting, setting), []).append(gains)
    said = "; ".join(f"{' and '.join(each)} with {noise}" for noise, each in means.items())
    return Page(
        name="searches",
        question="Do the cleaners decide well how many rows to remove when the labels are dirty?",
        answer=f"Points of accuracy that {way} gains, of those by the right rows alone: {said}.",
        picture=Picture(
            "Change of test accuracy by each cleaner that decides itself, and by the right rows alone",
            partial(dots, panels, "points of accuracy over training on all rows", mark=0),
        ),
        about=f"{len({row['table'] for row in rows})} tables with 15 % of the labels changed at random, and with none; "
        f"60 % of the rows train, at most {max(row['n'] for row in rows)}, the others test with right labels. Logistic "
        "regression and a random forest on all rows, on what `InfluencePruner` leaves at each share, and by those who "
        "decide themselves; right rows are what nobody knows. To the best share: against the share that was best on "
        "average after the fact. Worst: the table that loses most against all rows.",
        command="python benchmarks/decisions.py",
        measured=[(environment, rows)],
        tables={"Means over tables and seeds": decided(rows)},
    )


def with_error(values: list[float]) -> tuple[float, float, float]:
    """(mean, mean minus, mean plus its standard error)."""
    middle = float(np.mean(values))
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return middle, middle - error, middle + error


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
