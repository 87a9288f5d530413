"""Data deletion and coresets: what deletion.py and coreset.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import Rows, chosen, distinct, found, mean, over_seeds, table
from pages.page import Page, Picture
from pages.plots import dots


def deletion() -> Page | None:
    """Distances to the retrained model before and after the update; nothing where it was not run."""
    environment, rows = found("deletion")
    if not rows:
        return None
    body: list[list[str]] = []
    worse: dict[tuple[str, str], list[str]] = {}
    for model, kind, removed, method in distinct(rows, "model", "kind", "removed", "method"):
        own = chosen(rows, model=model, kind=kind, removed=removed, method=method)
        cells, lost = [], []
        for what in ("parameters", "predictions"):
            before, after = (np.array([row[f"{what}_{when}"] for row in own]) for when in ("before", "after"))
            cells += [f"{before.mean():.5f}", f"{after.mean():.5f}", f"{(after > before).sum()} of {len(own)}"]
            if after.mean() > before.mean():
                lost.append(what)
        body.append([model, f"{removed} {kind}", method, *cells])
        if lost:
            worse.setdefault((method, model), []).append(f"{removed} {kind} ({' and '.join(lost)})")
    head = [f"{what}{when}" for what in ("parameters", "predictions") for when in (", before", ", after", " worse in")]
    lists = [f"- {method}, {model}: {', '.join(removals)}." for (method, model), removals in worse.items()]
    panels: dict[str, dict] = {}
    for (model,) in distinct(rows, "model"):
        own = chosen(rows, model=model)
        panels[model] = {
            method: {
                f"{removed} {kind}": mean(chosen(own, method=method, removed=removed, kind=kind), "predictions_after")
                / mean(chosen(own, method=method, removed=removed, kind=kind), "predictions_before")
                for kind, removed in distinct(chosen(own, method=method), "kind", "removed")
            }
            for (method,) in distinct(own, "method")
        }
    ratios = [value for series in panels.values() for values in series.values() for value in values.values()]
    return Page(
        name="deletion",
        question="Does an update in place of retraining delete rows from a model?",
        answer=f"In {sum(value < 1 for value in ratios)} of {len(ratios)} cells the predictions are nearer to the "
        f"retrained model after it, at best {1 / min(ratios):.0f} times; in the others up to {max(ratios):.1f} times "
        "as far.",
        picture=Picture(
            "Distance to the retrained model after the update over that before it, a line at one",
            partial(dots, panels, "distance of predictions, after / before (below 1: nearer)", mark=1, log=True),
        ),
        about="Relative distance to the model that was trained without the rows (the nets from the same start in the "
        "same batches), before the update and after it, over all parameters and over the raw outputs for all rows. "
        f"Digits, {rows[0]['n']:,} rows with 20 % of the labels flipped; means over {len(distinct(rows, 'draw'))} "
        "draws for each seed. Softmax regression: 200 steps of SGD; MLP 64-64-64-10: 20 epochs of SGD with momentum "
        "0.9. Nothing here proves that a row is forgotten.",
        command="python benchmarks/deletion.py",
        measured=[(environment, rows)],
        tables={
            "Distances by model, removal and method": table(["model", "removed", "method", *head], body),
            "Farther from the retrained model after the update than before it, on average": "\n".join(lists) or "None.",
        },
    )


def coreset() -> Page | None:
    """Accuracy on what was kept; nothing where it was not run."""
    measured = [each for name in ("coreset", "coreset_60000") if (each := found(name))[1]]
    if not measured:
        return None
    rows = measured[0][1]
    share = min(row["share"] for row in rows)
    panels, said = {}, []
    for rate in sorted(rate for (rate,) in distinct(rows, "rate")):
        own = [row for row in chosen(rows, rate=rate, share=share) if row["method"] != "random"]
        gains = {
            way: points_over_random(rows, chosen(own, method=way[0], form=way[1], strategy=way[2]))
            for way in distinct(own, "method", "form", "strategy")
        }
        title = f"{rate:.0%} flipped" if rate else "labels as published"
        panels[title] = {
            strategy: {f"{m}{f' ({f})' if f else ''}": gain for (m, f, s), gain in gains.items() if s == strategy}
            for strategy in dict.fromkeys(strategy for _, _, strategy in gains)
        }
        best = max(gains, key=lambda way: gains[way])
        said.append(
            f"{sum(gain > 0 for gain in gains.values())} of {len(gains)} with {title} ({gains[best]:+.1f} by "
            f"{best[0]}, {best[2]})"
        )
    return Page(
        name="coresets",
        question="Do scores choose a smaller training set better than chance?",
        answer=f"Keeping {share:.0%}, ways that beat random rows (the best in points): {', '.join(said)}.",
        picture=Picture(
            f"Points of accuracy over random rows when {share:.0%} are kept, by score and strategy",
            partial(dots, panels, "points of accuracy over random rows", mark=0),
        ),
        about="Accuracy on the 10,000 test rows of Fashion-MNIST of an MLP 784-256-256-10 "
        "trained on the rows that `CoresetSelector` kept, for as many steps as 20 epochs of all rows take; in brackets "
        'the difference to random rows, in points, mean over the seeds. "top" keeps the highest scores, "stratified" '
        "drops the lowest 30 % and spreads over the rest, both within each class. EL2N is taken after two epochs, the "
        "mean of three nets; easy rows have a low one. DiffIn (validation) is given 1,000 more rows with right labels.",
        command="python benchmarks/coreset.py",
        measured=measured,
        tables={title: shown for _, own in measured for title, shown in coreset_tables(own).items()},
    )


def points_over_random(rows: Rows, own: Rows) -> float:
    """Of accuracy, paired by seed."""
    return 100 * float(np.mean([row["accuracy"] - random_of(rows, row)["accuracy"] for row in own]))


def coreset_tables(rows: Rows) -> dict[str, str]:
    """By noise."""
    rates = sorted(rate for (rate,) in distinct(rows, "rate"))
    whole = [row for row in rows if row["method"].startswith("all")]
    ways = distinct([row for row in rows if row not in whole], "method", "form", "strategy")
    shares = sorted(share for (share,) in distinct([row for row in rows if row not in whole], "share"))
    tables = {}
    for rate in rates:
        body, loses = [], []
        for method, form, strategy in ways:
            name = f"{method}{f' ({form})' if form else ''}"
            cells, gains = [], []
            for share in shares:
                own = chosen(rows, rate=rate, method=method, form=form, strategy=strategy, share=share)
                gain = np.mean([row["accuracy"] - random_of(rows, row)["accuracy"] for row in own])
                wrong = f", {np.mean([row['wrong'] for row in own]):.1%} wrong" if rate else ""
                cells.append(f"{over_seeds(own, 'accuracy', 4)} ({100 * gain:+.1f}{wrong})")
                gains.append((share, gain))
            body.append([name, strategy if method != "random" else "–", *cells])
            if behind := [f"{share:.0%}" for share, gain in gains if gain < 0]:
                loses.append(f"{name}, {strategy} (at {', '.join(behind)})")
        limits = [
            f"{method} {over_seeds(chosen(rows, rate=rate, method=method), 'accuracy', 4)}"
            for (method,) in distinct(chosen(whole, rate=rate), "method")
        ]
        noise = f"{rate:.0%} of the labels flipped" if rate else "Labels as published"
        title = f"{rows[0]['n']:,} rows. {noise}; {'; '.join(limits)}"
        shown = table(["score", "strategy", *(f"keep {share:.0%}" for share in shares)], body)
        tables[title] = f"{shown}\n\nBehind random rows on average: {'; '.join(loses) or 'none'}."
    return tables


def random_of(rows: Rows, row: dict) -> dict:
    """The random choice of the same size on the same draw."""
    return chosen(rows, method="random", rate=row["rate"], seed=row["seed"], share=row["share"])[0]
