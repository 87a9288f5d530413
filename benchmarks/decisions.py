"""Do the cleaners decide well how many rows to remove, whether to remove any, and how much rows count?

    python benchmarks/decisions.py [--quick] [--settings u15 u0] [--tables iris ...] [--rows 1500] [--seeds 0 1]

Real tables with 15 % of the labels changed at random, and none; 60 % of the rows train, accuracy is on the other rows,
with right labels. Logistic regression and a random forest on all rows, on what InfluencePruner leaves at each share of
the grid of InfluencePrunerCV, and by those who decide themselves: InfluencePrunerCV, GridSearchCV over the same grid
with the scorer and the prior of sktda.metrics, InfluencePruner with a guard, InfluenceReweighter, ResampledEstimator;
and on the rows whose label is right, which nobody knows.
Writes benchmarks/results/decisions.json (--quick: one table of scikit-learn, nothing).
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings

import numpy as np
from shared.common import begin, save, set_threads

set_threads(1)

from pages.decisions import decided as page  # noqa: E402
from shared.battery import model, plant, split, table_data, table_names  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402

from sktda import (  # noqa: E402
    InfluencePruner,
    InfluencePrunerCV,
    InfluenceReweighter,
    NoisyLabelDetector,
    ResampledEstimator,
)
from sktda.metrics import BeyondChance, NoiseCorrectedScorer  # noqa: E402

QUICK = ("iris (scikit-learn)",)
SHARES = (0, 0.05, 0.1, 0.15, 0.2, 0.3)
GUARDED = 0.15
MODELS = ("logistic", "forest")
DECIDE = ("InfluencePrunerCV", "GridSearchCV", "guard", "InfluenceReweighter", "ResampledEstimator")


def deciders(estimator, X, y, cache: str) -> dict:
    """Unfitted estimators by name. Scores are kept in `cache`: all of them score the same rows."""
    detector = NoisyLabelDetector().fit(X, y)
    pruner = InfluencePruner(estimator, memory=cache)
    search = GridSearchCV(
        pruner,
        {"prune_ratio": SHARES},
        scoring=NoiseCorrectedScorer(detector.attributor_.noise_matrix_, detector.classes_),
        refit=BeyondChance({"prune_ratio": detector.noise_rate_}),
    )
    fixed = {f"{share:g}": InfluencePruner(estimator, prune_ratio=share, memory=cache) for share in SHARES}
    return {
        **fixed,
        "InfluencePrunerCV": InfluencePrunerCV(estimator, prune_ratios=SHARES, memory=cache),
        "GridSearchCV": search,
        "guard": InfluencePruner(estimator, prune_ratio=GUARDED, guard=True, memory=cache),
        "InfluenceReweighter": InfluenceReweighter(estimator, memory=cache),
        "ResampledEstimator": ResampledEstimator(estimator),
    }


def decided(fitted) -> float | None:
    """The share that was removed, or nothing where none was chosen."""
    if isinstance(fitted, GridSearchCV):
        return fitted.best_params_["prune_ratio"]
    if isinstance(fitted, InfluencePrunerCV):
        return fitted.best_prune_ratio_
    if isinstance(fitted, InfluenceReweighter):
        return fitted.noise_rate_
    return float(np.mean(~fitted.support_)) if hasattr(fitted, "support_") else None


def cell(name: str, setting: str, seed: int, n_rows: int, kinds: tuple[str, ...]) -> list[dict]:
    """One table, noise and seed: a row for each model, with the accuracy of each way."""
    X, true = table_data(name, n_rows)
    train, test = split(true, seed)
    given, wrong = plant(true[train], setting, seed)
    X, X_test, y_test = X[train], X[test], true[test]
    rows = []
    for kind in kinds:
        estimator = model(kind, seed)
        right = estimator.fit(X[~wrong], given[~wrong]).score(X_test, y_test)
        row = {"table": name, "setting": setting, "seed": seed, "model": kind, "n": len(given), "right rows": right}
        row |= {"wrong": float(wrong.mean()), "decided": {}, "seconds": {}}
        with tempfile.TemporaryDirectory() as cache:
            for way, unfitted in deciders(model(kind, seed), X, given, cache).items():
                start = time.perf_counter()
                fitted = unfitted.fit(X, given)
                row["seconds"][way], row["decided"][way] = time.perf_counter() - start, decided(fitted)
                row[way] = fitted.score(X_test, y_test) if way != "GridSearchCV" else accuracy(fitted, X_test, y_test)
        rows.append(row)
    return rows


def accuracy(search: GridSearchCV, X: np.ndarray, y: np.ndarray) -> float:
    """Its `score` is the corrected one."""
    return float(np.mean(search.predict(X) == y))


def main(arguments: list[str] | None = None) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", default=["u15", "u0"], help="of tables_battery.py")
    parser.add_argument("--tables", nargs="+", help="all by default")
    parser.add_argument("--rows", type=int, default=2_000, help="at most, per table; 0 = all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    chosen = begin(parser, arguments)
    kinds = MODELS
    if chosen.quick:
        chosen.tables, chosen.seeds, chosen.rows, chosen.settings, kinds = QUICK, [0], 90, ["u15"], MODELS[:1]
    warnings.simplefilter("ignore")  # lbfgs at its limit, rare classes in folds, guards that keep all rows
    rows: list[dict] = []
    for seed in chosen.seeds:
        for setting in chosen.settings:
            for name in chosen.tables or table_names():
                rows += cell(name, setting, seed, chosen.rows, kinds)
                save("decisions", rows)
                print(seed, setting, name, *(f"{way} {rows[-1][way]:.3f}" for way in ("0", *DECIDE)), flush=True)
    print(page(rows))


if __name__ == "__main__":
    main()
