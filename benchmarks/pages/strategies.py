"""Coreset strategies, and boosting on Adult: what coreset_strategies.py and adult.py found."""

from __future__ import annotations

from functools import partial

import numpy as np
from pages.common import Rows, chosen, distinct, found, table
from pages.page import Page, Picture
from pages.plots import dots, lines


def strategies() -> Page | None:
    """Coreset strategies beside random rows; nothing where they were not run."""
    environment, rows = found("coreset_strategies")
    if not rows:
        return None
    shares = sorted({row["share"] for row in rows})
    seeds = sorted({row["seed"] for row in rows})
    ways = distinct(rows, "strategy", "net")
    tables, panels, said = {}, {}, []
    for rate in sorted({row["rate"] for row in rows}):
        body = []
        for strategy, net in ways:
            cells = []
            for share in shares:
                own = chosen(rows, rate=rate, share=share, strategy=strategy, net=net)
                cells.append(cell(own, rows, f", {np.mean([row['wrong'] for row in own]):.0%} wrong" if rate else ""))
            body.append([f"{strategy}{' (net)' if net else ''}", *cells])
        picked = []
        for share in shares:
            best = [
                max(chosen(rows, rate=rate, share=share, seed=seed), key=lambda row: row["validation"])
                for seed in seeds
            ]
            picked.append(cell(best, rows, f": {names(best)}"))
        body.append(["**chosen**", *picked])
        noise = f"{rate:.0%} flipped" if rate else "Labels as published"
        tables[f"{noise}: accuracy by strategy"] = table(["strategy", *(f"keep {share:.0%}" for share in shares)], body)
        gains = {
            f"keep {share:.0%}": {
                f"{strategy}{' (net)' if net else ''}": gain(
                    chosen(rows, rate=rate, share=share, strategy=strategy, net=net), rows
                )
                for strategy, net in ways
                if strategy != "random"
            }
            for share in (shares[0], shares[-1])
        }
        panels[noise] = gains
        values = next(iter(gains.values()))
        top = max(values, key=lambda way, values=values: values[way])
        ahead = sum(value > 0 for value in values.values())
        said.append(f"{ahead} of {len(values)} with {noise.lower()} ({values[top]:+.1f} by {top})")
    about, k_center = k_center_seconds()
    return Page(
        name="coreset-strategies",
        question="Which strategy chooses a small training set better than random rows?",
        answer=f"Keeping {shares[0]:.0%}, strategies that beat random rows of every class (the best in points): "
        f"{', '.join(said)}.",
        picture=Picture(
            "Points of accuracy over random rows by strategy, keeping the fewest and the most rows",
            partial(dots, panels, "points of accuracy over random rows", mark=0),
        ),
        about=f"{rows[0]['n']:,} rows of Fashion-MNIST to choose from, an MLP 784-128-128-10 trained on what was kept, "
        "accuracy on the 10,000 test rows; in brackets the difference to random rows of every class, in points, mean "
        f"over {len(seeds)} seeds. *Chosen* is, for each size and seed, the strategy with the best accuracy on 5,000 "
        "validation rows, whose labels are as noisy as the others; random rows are among the candidates. Scores are "
        'those of ComplexityGap; "net": features (and gradients) of an MLP that was trained on all rows.' + about,
        command="python benchmarks/coreset_strategies.py",
        measured=[(environment, rows), *k_center],
        tables=tables,
    )


def k_center_seconds() -> tuple[str, list[tuple[dict, Rows]]]:
    """A sentence on the greedy choice without classes, and where it was measured."""
    environment, alone = found("k_center")
    said = [
        f" Greedy k-center without classes, `--k-center`: {row['picks']:,} of {row['n']:,} × 784 in "
        f"{row['seconds']:.0f} s."
        for row in alone
    ]
    return "".join(said), [(environment, alone)] if alone else []


def gain(own: Rows, rows: Rows) -> float:
    """Points over random rows of the same size, rate and seed."""
    plain = [
        chosen(rows, strategy="random", rate=row["rate"], seed=row["seed"], share=row["share"])[0]["accuracy"]
        for row in own
    ]
    return float(100 * (np.mean([row["accuracy"] for row in own]) - np.mean(plain)))


def cell(own: Rows, rows: Rows, more: str) -> str:
    """Mean and spread of the accuracy, and the difference to random rows."""
    accuracy = [row["accuracy"] for row in own]
    return f"{np.mean(accuracy):.4f} ± {np.std(accuracy):.4f} ({gain(own, rows):+.1f}{more})"


def names(rows: Rows) -> str:
    """Which strategies, and how often where there are several."""
    every = [f"{row['strategy']}{' (net)' if row['net'] else ''}" for row in rows]
    return ", ".join(f"{every.count(name)}× {name}" if len(set(every)) > 1 else name for name in dict.fromkeys(every))


def adult() -> Page | None:
    """Boosting on noisy labels; nothing where it was not run."""
    environment, rows = found("adult")
    if not rows:
        return None
    body = [
        [row["attributor"], removed(row), str(row["seed"]), f"{row['ratio']:.0%}", f"{row['cv']['0']:.4f}"]
        + [f"{max(row['cv'].values()):.4f}", f"{row['before']:.4f}", f"{row['after']:.4f}", f"{row['oracle']:.4f}"]
        + [f"{row['seconds']:.0f}"]
        for row in rows
    ]
    head = ["attributor", "rows go", "seed", "share picked", "CV of all rows", "CV of the share picked"]
    head += ["test, all rows", "test, cleaned", "test, right rows only", "seconds"]
    ratios = list(rows[0]["test"])
    curve = [
        [row["attributor"], removed(row), str(row["seed"])]
        + [f"{100 * (row['test'][r] - row['test']['0']):+.2f}" for r in ratios]
        for row in rows
    ]
    nested = [
        f"Nested 3-fold cross-validation of the whole search, {row['attributor']}, {removed(row)}, seed {row['seed']}: "
        f"{row['nested']:.4f}, of the model on all rows {row['nested_plain']:.4f}."
        for row in rows
        if "nested" in row
    ]
    groups: dict[str, Rows] = {}
    for row in rows:
        groups.setdefault(f"{row['attributor']}, {removed(row)}", []).append(row)
    gains = {way: 100 * np.mean([row["after"] - row["before"] for row in own]) for way, own in groups.items()}
    right = 100 * np.mean([row["oracle"] - row["before"] for row in rows])
    series = {
        way: [(float(r), float(100 * np.mean([row["test"][r] - row["test"]["0"] for row in own]))) for r in ratios]
        for way, own in groups.items()
    }
    return Page(
        name="boosting-on-adult",
        question="Does a search that removes rows help boosting on a census table with wrong labels?",
        answer="Points of test accuracy after it: "
        f"{', '.join(f'{round(value, 2) + 0.0:+.2f} ({way})' for way, value in gains.items())}; by the right rows "
        f"alone {right:+.2f}.",
        picture=Picture(
            "Change of test accuracy against the share of rows removed, by attributor",
            partial(
                lines, {"": series}, "share of the rows removed", "points over removing nothing", mark=0, percent=True
            ),
        ),
        about="Adult, 20 % of the labels of the training rows flipped, "
        "`InfluencePrunerCV(HistGradientBoostingClassifier())`. CV columns are accuracies on the labels as given, of "
        "which a fifth is wrong, within the search; test columns are on test rows with right labels. The picture "
        "and the second table show what removing more rows than the search picked does.",
        command="python benchmarks/adult.py",
        measured=[(environment, rows)],
        tables={
            "What the search picked, and accuracy": "\n\n".join([table(head, body), *nested]),
            "Test accuracy at every share, in points over removing nothing": table(
                ["attributor", "rows go", "seed", *(f"{float(r):.0%}" for r in ratios)], curve
            ),
        },
    )


def removed(row: dict) -> str:
    """Where the removed rows come from."""
    return "by class" if row["stratify"] else "anywhere"
