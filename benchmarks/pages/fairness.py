"""Fairness by removal: what fairness.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import Rows, chosen, distinct, found, mean, middle, over_seeds, table
from pages.page import Page, Picture
from pages.plots import dots

NAMES = {"DemographicParity": "demographic parity", "EqualOpportunity": "equal opportunity"}
PEER = "ExponentiatedGradient"


def fairness() -> Page | None:
    """Gaps and accuracy before and after; nothing where it was not run."""
    environment, rows = found("fairness")
    if not rows:
        return None
    panels, figures = {}, []
    for objective, title in NAMES.items():
        own = chosen(rows, objective=objective)
        series: dict[str, dict] = {"all rows": {}}
        for model, feature in distinct(own, "model", "feature"):
            cells = chosen(own, model=model, feature=feature)
            start = chosen(cells, method="Influence", share=0.0)
            series["all rows"][f"{model}, {feature}"] = 100 * mean(start, objective)
            for (method,) in distinct(cells, "method"):
                end = 100 * mean(chosen(cells, method=method, end=True), objective)
                series.setdefault(method, {})[f"{model}, {feature}"] = end
        panels[f"gap in {title}"] = series
        with_peer = list(series[PEER])
        others = [way for way in series["all rows"] if way not in with_peer]
        lost = [
            100 * (mean(chosen(cells, end=True), "accuracy") - mean(chosen(cells, share=0.0), "accuracy"))
            for model, feature in distinct(own, "model", "feature")
            for cells in [chosen(own, model=model, feature=feature, method="Influence")]
        ]
        figures.append(
            [
                f"{gap_left(series[method], series['all rows'], ways):.0%}" if ways else "–"
                for method, ways in (("Influence", with_peer), (PEER, with_peer), ("Influence", others))
            ]
            + [f"{np.mean(lost):+.1f}"]
        )
    ours, peer, elsewhere, price = (" and ".join(each) for each in zip(*figures, strict=True))
    return Page(
        name="fairness",
        question="Does removing rows make a model fairer, and at what price?",
        answer=f"Removal by Influence leaves {ours} of the gaps in {' and '.join(NAMES.values())}, where fairlearn's "
        f"reduction leaves {peer}, and {elsewhere} where that cannot be used, at {price} points of accuracy.",
        picture=Picture(
            "Gap between groups on the test rows before and after, by model, groups and method",
            partial(dots, panels, "gap on the test rows, percentage points"),
        ),
        about=f"Adult, {rows[0]['n']:,} training rows, `InfluencePruner` with `Influence` "
        "of the gap, which ends by itself where that on 5,000 validation rows is closed, and after 10 % of the rows at "
        "the latest. Gaps are those of the predicted classes on the 16,281 test rows, in percentage points, as is "
        "accuracy; race is white or other. Random: the same number of rows. ExponentiatedGradient: fairlearn 0.15's, "
        "at its defaults, under the constraint of the same name. Accuracy there: its change, in points, after the "
        "first round in which the test gap was half of that before. Mean ± standard deviation over seeds of rows and "
        "training; seconds are medians, on one thread. The price, and where the gap stays, are in the tables: look at "
        "the accuracy too.",
        command="python benchmarks/fairness.py",
        measured=[(environment, rows)],
        tables={
            f"The gap in {name}: before, after, accuracy": of_objective(chosen(rows, objective=objective), objective)
            for objective, name in NAMES.items()
        },
    )


def gap_left(after: dict[str, float], before: dict[str, float], ways: list[str]) -> float:
    """Share of the gap, mean over models and groups."""
    return float(np.mean([after[way] / before[way] for way in ways]))


def of_objective(rows: Rows, objective: str) -> str:
    """A row per model, groups and method."""
    body = []
    for model, feature in distinct(rows, "model", "feature"):
        own = chosen(rows, model=model, feature=feature)
        start = {row["seed"]: row for row in chosen(own, method="Influence", share=0.0)}
        before = list(start.values())
        body.append(
            [f"{model}, {feature}", "all rows", "–", points(before, objective), points(before, "accuracy"), *["–"] * 3]
        )
        for (method,) in distinct(own, "method"):
            after = chosen(own, method=method, end=True)
            share = over_seeds([{"share": 100 * row["share"]} for row in after if "share" in row], "share", 1)
            seconds = f"{middle(after, 'seconds'):.0f}" if "seconds" in after[0] else "–"
            cells = [share, points(after, objective), points(after, "accuracy"), *halved(own, method, objective, start)]
            body.append(["", method, *cells, seconds])
    head = ["model, groups", "method", "% removed", "gap", "accuracy", "gap halved in", "accuracy there", "seconds"]
    return table(head, body)


def halved(rows: Rows, method: str, objective: str, start: dict[int, dict]) -> list[str]:
    """(seeds in which half the gap went, change of accuracy in points after the first round where it had gone)."""
    changes = []
    for seed, whole in start.items():
        steps = sorted(chosen(rows, method=method, seed=seed), key=lambda row: row.get("share", 0.0))
        there = [row for row in steps if row[objective] <= whole[objective] / 2]
        changes += [{"change": 100 * (row["accuracy"] - whole["accuracy"])} for row in there[:1]]
    return [f"{len(changes)} of {len(start)}", over_seeds(changes, "change", 1)]


def points(rows: Rows, name: str) -> str:
    """Mean ± standard deviation, times 100."""
    return over_seeds([{name: 100 * row[name]} for row in rows], name, 1)
