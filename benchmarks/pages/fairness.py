"""Section of docs/benchmarks.md about fairness by removal, and its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pages.common import Rows, chosen, distinct, found, middle, n_seeds, over_seeds, table, where
from pages.lds_plot import STYLE
from shared.common import RESULTS

LOOKS = {
    "Influence": ("#0072B2", "o", "-"),
    "random": ("#595959", "s", (0, (2, 2))),
    "ExponentiatedGradient": ("#D55E00", "D", "none"),
}
LEAST_SPAN = 0.01  # of accuracy, in a panel
NAMES = {"DemographicParity": "demographic parity", "EqualOpportunity": "equal opportunity"}


def fairness() -> str:
    """Gaps and accuracy before and after; nothing where it was not run."""
    environment, rows = found("fairness")
    if not rows:
        return ""
    draw(rows, RESULTS / "fairness.svg")
    head = (
        f"`python benchmarks/fairness.py`: Adult, {rows[0]['n']:,} training rows, `InfluencePruner` with `Influence` "
        "of the gap, which ends by itself where that on 5,000 validation rows is closed, and after 10 % of the rows at "
        "the latest. Gaps are those of the predicted classes on the 16,281 test rows, in "
        "percentage points, as is accuracy; race is white or other. Random: the same number of rows. "
        "ExponentiatedGradient: fairlearn 0.15's, at its defaults, under the constraint of the same name. Accuracy "
        "there: its change, in points, after the first round in which the test gap was half of that before. "
        f"{n_seeds(rows)} seeds of rows and training, mean ± standard deviation; seconds are medians, on one thread."
    )
    parts = ["## Fairness by removal", head, where(environment)]
    for objective, name in NAMES.items():
        parts += [f"The gap in {name}:", of_objective(chosen(rows, objective=objective), objective)]
    parts.append("![Accuracy against the gap as rows are removed](../benchmarks/results/fairness.svg)")
    return "\n\n".join(parts)


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


def draw(rows: Rows, file: Path) -> None:
    """One panel per model, groups and objective: accuracy against the gap, means over seeds by number of rounds."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    panels = distinct(rows, "model", "feature", "objective")
    with rc_context(STYLE | {"svg.hashsalt": "fairness"}):
        figure = Figure(figsize=(10, 0.6 + 2.4 * -(-len(panels) // 4)), layout="constrained")
        FigureCanvasSVG(figure)
        axes_list = figure.subplots(-(-len(panels) // 4), 4, squeeze=False).ravel()
        for axes, (model, feature, objective) in zip(axes_list, panels, strict=False):
            own = chosen(rows, model=model, feature=feature, objective=objective)
            for method, (color, marker, dashes) in LOOKS.items():
                gaps, accuracies = path(chosen(own, method=method), objective)
                axes.plot(gaps, accuracies, color=color, marker=marker, markersize=3.5, linestyle=dashes, label=method)
            axes.set_title(f"{model}, {feature}", fontsize=9)
            axes.set_xlabel(f"gap in {NAMES[objective]}", fontsize=8)
            axes.tick_params(labelsize=8)
            axes.set_xlim(left=0)
            low, high = axes.get_ylim()
            room = max(0.0, LEAST_SPAN - (high - low)) / 2  # or noise would fill the panel
            axes.set_ylim(low - room, high + room)
        for first in axes_list[::4]:
            first.set_ylabel("accuracy", fontsize=8)
        lines = {line.get_label(): line for line in axes_list[0].get_lines()}
        figure.legend(list(lines.values()), list(lines), loc="outside upper center", ncols=3)
        figure.savefig(file, format="svg", metadata={"Date": None})


def path(rows: Rows, objective: str) -> tuple[list[float], list[float]]:
    """(gaps, accuracies): means over the seeds after each round; a seed that has ended stays where it is."""
    by_seed = [
        sorted(chosen(rows, seed=seed), key=lambda row: row.get("share", 0)) for (seed,) in distinct(rows, "seed")
    ]
    longest = max((len(own) for own in by_seed), default=0)
    steps = [[own[min(k, len(own) - 1)] for own in by_seed] for k in range(longest)]
    return (
        [float(np.mean([row[objective] for row in step])) for step in steps],
        [float(np.mean([row["accuracy"] for row in step])) for step in steps],
    )
