"""Fairness by removal: gaps between groups and accuracy on test rows as the rows that cause the gap go.

    python benchmarks/fairness.py            # about half an hour on two cores
    python benchmarks/fairness.py --quick    # one seed, few rows, nothing written: does it run?

Adult (income above 50,000 dollars), groups by sex and by race (white, other). For each of five seeds 10,000 of the
published training rows train and 5,000 others validate; the 16,281 published test rows judge. `InfluencePruner` with
`Influence` of `DemographicParity` or `EqualOpportunity` removes up to 10 % of the rows, 1 % a round (an MLP: 2 %),
and ends by itself where the gap on the validation rows is closed. For the MLP's equal opportunity also 1 % a round
with the objective at sharpness 10. Gaps are of predicted classes on the test rows. Beside it: the same number of
random rows, and fairlearn's ExponentiatedGradient with the constraint of the same name (its defaults; random at
predict time) on the same training rows with logistic regression. Every seed has a process of its own, two at a time
with one thread each. Writes benchmarks/results/fairness.json; `python benchmarks/tables.py` makes the tables and the
picture from it. Needs the folder in SKTDA_DATA; fairlearn: pip install --no-deps fairlearn==0.15.0.
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from shared.common import begin, data_folder, has, load, measured, quick, save

SEEDS, SHARE = (0, 1, 2, 3, 4), 0.1
N_TRAIN, N_VAL = 10_000, 5_000
STEPS = {"LogisticRegression": 0.01, "MLP": 0.02}
OBJECTIVES = ("DemographicParity", "EqualOpportunity")
FEATURES = ("sex", "race")
SHARP = {"sharpness": 10}  # near to the gap of the classes, where that of the probabilities closes long before it


@dataclass(frozen=True)
class Rows:
    """Features, labels and groups by sensitive feature."""

    X: np.ndarray
    y: np.ndarray
    groups: dict[str, np.ndarray]

    def part(self, rows: np.ndarray) -> Rows:
        """These of them."""
        return Rows(self.X[rows], self.y[rows], {name: values[rows] for name, values in self.groups.items()})


def adult() -> tuple[Rows, Rows]:
    """Published training and test rows; numbers standardised with the training rows. With --quick made ones."""
    if quick():
        X, y = load("adult")
        draw, test = np.random.default_rng(0), np.arange(len(y)) >= 250
        rows = Rows(X.astype(np.float32), y, {name: draw.choice(["a", "b"], len(y)) for name in FEATURES})
        return rows.part(np.flatnonzero(~test)), rows.part(np.flatnonzero(test))
    folder = data_folder()
    if folder is None:
        raise SystemExit("set SKTDA_DATA to the folder that has data/adult.npz")
    data = np.load(folder / "adult.npz")
    X, k = data["X"].astype(np.float64), int(data["n_numeric"])
    test = data["is_test"]
    X[:, :k] = (X[:, :k] - X[~test, :k].mean(0)) / X[~test, :k].std(0)
    race = np.where(data["s_race"] == "White", "White", "other")
    rows = Rows(X.astype(np.float32), data["y"], {"sex": data["s_sex"], "race": race})
    return rows.part(np.flatnonzero(~test)), rows.part(np.flatnonzero(test))


def make(name: str, seed: int) -> Any:
    """A new model."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    if name == "LogisticRegression":
        return LogisticRegression(max_iter=1_000)
    return MLPClassifier((32,), alpha=1e-3, max_iter=20, random_state=seed)


def judged(model: Any, test: Rows, feature: str) -> dict[str, float]:
    """Accuracy and both gaps of the predicted classes."""
    from sktda.metrics import demographic_parity_gap, equal_opportunity_gap

    predicted, groups = model.predict(test.X), test.groups[feature]
    return {
        "accuracy": float((predicted == test.y).mean()),
        "DemographicParity": demographic_parity_gap(predicted, groups),
        "EqualOpportunity": equal_opportunity_gap(test.y, predicted, groups),
    }


def seed_part(seed: int, n_train: int, n_val: int) -> dict:
    """All models, features and objectives on one draw of rows."""
    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Stochastic Optimizer")  # 20 epochs are what they are
    known, test = adult()
    order = np.random.default_rng(seed).permutation(len(known.y))
    train, val = known.part(order[:n_train]), known.part(order[n_train : n_train + n_val])
    rows: list[dict] = []
    for name in STEPS:
        full = make(name, seed).fit(train.X, train.y)
        for feature in FEATURES[:1] if quick() else FEATURES:
            for objective in OBJECTIVES:
                common = {"seed": seed, "n": n_train, "model": name, "feature": feature, "objective": objective}
                rows += [common | row for row in pruned(name, full, train, val, test, common)]
                if (name, objective) == ("MLP", "EqualOpportunity"):
                    rows += [common | row for row in pruned(name, full, train, val, test, common, SHARP)]
            if name == "LogisticRegression" and has("fairlearn"):
                common = {"seed": seed, "n": n_train, "model": name, "feature": feature}
                rows += [common | row for row in reduced(train, test, feature)]
    return {"rows": rows}


def pruned(
    name: str, full: Any, train: Rows, val: Rows, test: Rows, about: dict, settings: dict | None = None
) -> list[dict]:
    """The curve of test figures over rounds, that of random removal, and where the pruner ended.

    settings: of the objective; with them, rounds are of 1 % and nothing is removed at random.
    """
    from shared.nets import timed

    from sktda import Holdout, InfluencePruner, objectives
    from sktda.attribution import Influence

    feature, seed = about["feature"], about["seed"]
    objective = getattr(objectives, about["objective"])(**settings or {})
    methods = (f"Influence, sharpness {settings['sharpness']}",) if settings else ("Influence", "random")
    held = Holdout(val.X, val.y, sensitive_features=val.groups[feature])
    pruner = InfluencePruner(
        make(name, seed),
        Influence(objective=objective, random_state=seed),
        prune_ratio=2 * STEPS[name] if quick() else SHARE,
        step=0.01 if settings else STEPS[name],
        stratify=False,
        validation=held,
    )
    seconds, _ = timed(lambda: pruner.fit(train.X, train.y))
    rounds = pruner.to_frame()["round"].sort_index().to_numpy()
    order = np.random.default_rng([seed, 1]).permutation(len(rounds))
    rows = [{"method": way, "share": 0.0} | judged(full, test, feature) for way in methods]
    last = rounds.max()
    for number in range(1, last + 1):
        gone = (rounds > 0) & (rounds <= number)
        share = {"share": float(gone.mean()), "end": bool(number == last)}
        model = pruner if number == last else make(name, seed).fit(train.X[~gone], train.y[~gone])
        rows.append({"method": methods[0], "seconds": seconds} | share | judged(model, test, feature))
        if settings:
            continue
        other = order[gone.sum() :]
        at_random = make(name, seed).fit(train.X[other], train.y[other])
        rows.append({"method": "random"} | share | judged(at_random, test, feature))
    return rows


def reduced(train: Rows, test: Rows, feature: str) -> list[dict]:
    """fairlearn's reduction under both constraints."""
    from fairlearn.reductions import DemographicParity, ExponentiatedGradient, TruePositiveRateParity
    from shared.nets import timed

    rows = []
    for objective, constraint in (
        ("DemographicParity", DemographicParity()),
        ("EqualOpportunity", TruePositiveRateParity()),
    ):
        model = ExponentiatedGradient(make("LogisticRegression", 0), constraint)
        fit = partial(model.fit, train.X, train.y, sensitive_features=train.groups[feature])
        seconds, _ = timed(fit)
        rows.append(
            {"objective": objective, "method": "ExponentiatedGradient", "seconds": seconds, "end": True}
            | judged(Seeded(model), test, feature)
        )
    return rows


@dataclass
class Seeded:
    """A random classifier that predicts the same each time."""

    model: Any

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Classes."""
        return np.asarray(self.model.predict(X, random_state=0))


def show(row: dict) -> None:
    """One line."""
    if row.get("end"):
        print(
            f"seed {row['seed']} {row['model']:18s} {row['feature']:4s} {row['objective']:17s} {row['method']:21s} "
            f"{row.get('share', 0):6.1%} gone: accuracy {row['accuracy']:.4f}, parity gap "
            f"{row['DemographicParity']:.4f}, opportunity gap {row['EqualOpportunity']:.4f}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    few = begin(parser, arguments).quick
    has("fairlearn")  # before half an hour has gone
    sizes = (150, 100) if few else (N_TRAIN, N_VAL)
    rows: list[dict] = []
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda seed: measured(seed_part, seed, *sizes), SEEDS[:1] if few else SEEDS):
            rows += found["rows"]
            for row in found["rows"]:
                show(row)
            print(f"{found['seconds']:.0f} s, {found['peak_gib']:.1f} GiB", flush=True)
    save("fairness", rows)


if __name__ == "__main__":
    main()
