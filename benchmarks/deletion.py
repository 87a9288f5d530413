"""Data deletion: how near the predicted parameters come to those of a model that was trained without the rows.

    python benchmarks/deletion.py            # ten minutes on two cores
    python benchmarks/deletion.py --quick    # one seed, one draw, nothing written: does it run?

Digits, 1,280 rows with 20 % of the labels flipped. 1, 10 and 100 random rows go, or 100 of the flipped ones, five draws
for each of three seeds (of split, flips and training). A logistic regression of scikit-learn is trained again on the
other rows; softmax regression (200 steps of SGD) and an MLP 64-64-64-10 (20 epochs, momentum 0.9) from the same start
in the same batches. Distances are those of `unlearn`: |a - b| / |b| to the retrained model b, over all parameters and
over the raw outputs for all rows, before the update and after it. Writes benchmarks/results/deletion.json;
`python benchmarks/tables.py` makes the table from it.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from shared.common import begin, measured, save

SEEDS, DRAWS, RATE = (0, 1, 2), 5, 0.2
REMOVALS = (("random", 1), ("random", 10), ("random", 100), ("flipped", 100))
FEW_REMOVALS = (("random", 1), ("flipped", 5))
MODELS = ("LogisticRegression", "softmax regression, SGD", "MLP, SGD")


def model(name: str, problem: Any, seed: int) -> Any:
    """The trained model."""
    from shared.trajectory import DIGITS_MLP, SOFTMAX, recorded
    from sklearn.linear_model import LogisticRegression

    if name == "LogisticRegression":  # converged far beyond the effect of one row
        return LogisticRegression(tol=1e-8, max_iter=10_000).fit(problem.X.astype(float), problem.y)
    recipe = SOFTMAX if name.startswith("softmax") else DIGITS_MLP
    return recorded(recipe, problem.X, problem.y, seed, steps=True)


def part(name: str, seed: int, draws: int, removals: tuple[tuple[str, int], ...]) -> dict:
    """Every method, removal and draw on one trained model."""
    from shared.nets import timed
    from shared.trajectory import digits
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import DiffIn, Influence, SGDInfluence, unlearn

    problem = digits(RATE, seed)
    trained = model(name, problem, seed)
    X = problem.X.astype(float) if name == "LogisticRegression" else problem.X
    methods = {"Influence": Influence}
    if name != "LogisticRegression":
        methods |= {"SGDInfluence": SGDInfluence, "DiffIn": DiffIn}
    fitted = {
        method: make(FrozenEstimator(trained), objective=None, random_state=seed).fit(X, problem.y)
        for method, make in methods.items()
    }
    random = np.random.default_rng(seed)
    rows = []
    for kind, count in removals:
        for draw in range(draws):
            removed = random.choice(np.flatnonzero(problem.wrong) if kind == "flipped" else len(X), count, False)
            for method, attributor in fitted.items():
                seconds, _ = timed(lambda attributor=attributor, removed=removed: attributor.deletion_update(removed))
                found = unlearn(attributor, removed, retrain=True).distances
                row = {"model": name, "method": method, "kind": kind, "removed": count, "seed": seed, "draw": draw}
                rows.append(row | {"n": len(X), "seconds": seconds} | found)
    return {"rows": rows}


def show(rows: list[dict]) -> None:
    """Means over the draws of one seed."""
    for key in dict.fromkeys((row["model"], row["kind"], row["removed"], row["method"]) for row in rows):
        found = [row for row in rows if (row["model"], row["kind"], row["removed"], row["method"]) == key]
        words = []
        for what in ("parameters", "predictions"):
            before, after = (np.array([row[f"{what}_{when}"] for row in found]) for when in ("before", "after"))
            worse = int((after > before).sum())
            words.append(f"{what} {before.mean():.5f} -> {after.mean():.5f} (worse in {worse} of {len(found)})")
        print(f"{key[0]:24s} {key[1]:8s} {key[2]:4d} {key[3]:13s} {'; '.join(words)}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    quick = begin(parser, arguments).quick
    rows: list[dict] = []
    for name in MODELS:
        for seed in SEEDS[:1] if quick else SEEDS:
            found = measured(part, name, seed, *((1, FEW_REMOVALS) if quick else (DRAWS, REMOVALS)))["rows"]
            rows += found
            show(found)
    save("deletion", rows)


if __name__ == "__main__":
    main()
