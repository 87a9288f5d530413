"""Wrong labels and noisy features: sktda's attributors beside OpenDataVal's own evaluators, in OpenDataVal's tasks.

    python benchmarks/opendataval_tasks.py           # eight sets; twenty minutes on one core
    python benchmarks/opendataval_tasks.py iris      # some of them, the others stay as they are in the file
    python benchmarks/opendataval_tasks.py --quick   # two of ours on few rows, nothing written: does it run?

OpenDataVal (Jiang, Liang, Zou and Kwon 2023, arXiv:2306.10577) splits the rows, adds the noise, values the rows and
judges the values, as it is, the evaluators that are its own and ours: `mix_labels` gives 10 or 20 % of the training
rows another class, `add_gauss_noise` adds normal noise of standard deviation 1 to their features; both do the same to
as large a share of the validation rows. `noisy_detection` takes the lower of two groups of values (2-means in one
dimension) for the noisy rows: F1. AUROC needs no threshold. `remove_high_low` trains a logistic regression without the
rows of the lowest, or of the highest, values and asks 300 clean test rows (20 % wrong labels only).

Up to 500 rows to train on, 100 to validate (a fifth of the rows of the small sets). Sets: those that OpenDataVal
registers and scikit-learn or a formula brings; "2dplanes" and "fried" of its paper, made here by the formula behind
the files; Adult. Its evaluators have their defaults, KNNShapley also the neighbours of its notebooks. For speed there
are 100 models in place of 1,000 where models are trained: a logistic regression and, for DataOob, trees too, which is
what our DataOOB bags. InfluenceFunction trains for 5 epochs; LossVal for 20, which in a first look served it better
than 5. Ours have their defaults, which ask for no validation rows; three are asked about the same rows as well
("validation"), two of them also about the margin of these rows in place of their loss ("margin"), and about either for
a logistic regression in place of the default net ("logistic").

It needs `pip install --no-deps opendataval geomloss==0.2.6` and the torchvision that belongs to the torch that is here;
LossVal is only in its repository (github.com/opendataval/opendataval, commit 5c2856b, which was measured). Writes
benchmarks/results/opendataval_tasks.json, means over the seeds; `python benchmarks/tables.py` makes the page.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from shared.common import RESULTS, begin, flip, has, load, quick, save

REGISTERED = ("iris", "breast_cancer", "digits", "gaussian_classifier", "gaussian_classifier_high_dim")
SETS = (*REGISTERED, "2dplanes", "fried", "adult")
TASKS, RATES, SEEDS = ("labels", "features"), (0.1, 0.2), (0, 1, 2)
TRAIN, VALIDATION, TEST = 500, 100, 300  # at most; of small sets a fifth each for validation and test
MADE, MODELS, STEP = 2_000, 100, 0.2  # rows, models of one evaluator, share removed at a time
CURVE = ("labels", 0.2)
OURS = {  # name: (attributor, what it is given beside the rows)
    "LabelPosterior": ("LabelPosterior", ""),
    "ComplexityGap": ("ComplexityGap", ""),
    "KNNShapley": ("KNNShapley", ""),
    "KNNShapley, validation": ("KNNShapley", "validation"),
    "DataOOB": ("DataOOB", ""),
    "SelfConfidence": ("SelfConfidence", ""),
    "InnerProduct": ("InnerProduct", ""),
    "InnerProduct, validation": ("InnerProduct", "validation"),
    "InnerProduct, margin": ("InnerProduct", "validation margin"),
    "InnerProduct, logistic": ("InnerProduct", "validation logistic"),
    "InnerProduct, margin, logistic": ("InnerProduct", "validation margin logistic"),
    "Influence": ("Influence", ""),
    "Influence, validation": ("Influence", "validation"),
    "Influence, margin": ("Influence", "validation margin"),
    "Influence, logistic": ("Influence", "validation logistic"),
    "Influence, margin, logistic": ("Influence", "validation margin logistic"),
}
QUICK = ("ComplexityGap", "KNNShapley, validation", "RandomEvaluator", "KNNShapley, 10")


@dataclass(frozen=True)
class Problem:
    """What an attributor sees, which rows are noisy, and the same for OpenDataVal (None: it is not installed)."""

    X: np.ndarray
    y: np.ndarray
    X_val: np.ndarray
    y_val: np.ndarray
    noisy: np.ndarray
    fetcher: Any = None


def table(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(X, y) of the sets that are not registered, columns standardised as OpenDataVal's loaders do."""
    rng = np.random.default_rng(seed)
    if name == "adult":
        X, y = load("adult")
        drawn = rng.permutation(len(y))[:MADE]
        X, y = X[drawn], y[drawn]
    elif name == "fried":  # Friedman 1991, above or below the mean
        from sklearn.datasets import make_friedman1

        X, number = make_friedman1(MADE, 10, noise=1.0, random_state=seed)
        y = (number > number.mean()).astype(int)
    else:  # two planes (Breiman et al. 1984), above or below the mean; the first column says which
        X = rng.integers(-1, 2, size=(MADE, 10)).astype(float)
        X[:, 0] = rng.choice([-1.0, 1.0], size=MADE)
        up, down = 3 + X[:, 1:4] @ [3, 2, 1], -3 + X[:, 4:7] @ [3, 2, 1]
        number = np.where(X[:, 0] > 0, up, down) + rng.normal(size=MADE)
        y = (number > number.mean()).astype(int)
    return (X - X.mean(axis=0)) / (X.std(axis=0) + 1e-8), y


def counts(n: int) -> tuple[int, int, int]:
    """Rows to train on, to validate and to test."""
    validation, test = min(VALIDATION, n // 5), min(TEST, n // 5)
    return min(TRAIN, n - validation - test), validation, test


def problem(name: str, task: str, rate: float, seed: int) -> Problem:
    """Split and made noisy by OpenDataVal."""
    from opendataval.dataloader import DataFetcher, add_gauss_noise, mix_labels
    from opendataval.util import set_random_state

    set_random_state(seed)  # the registered Gaussian sets, and the first weights of its models
    if name in REGISTERED:
        fetcher = DataFetcher(name, random_state=seed)
    else:
        X, y = table(name, seed)
        fetcher = DataFetcher.from_data(X, np.eye(y.max() + 1)[y], True, seed)
    fetcher.split_dataset_by_count(*counts(fetcher.num_points))
    fetcher.noisify(mix_labels if task == "labels" else add_gauss_noise, noise_rate=rate)
    noisy = np.isin(np.arange(len(fetcher.x_train)), fetcher.noisy_train_indices)
    rows = np.asarray(fetcher.x_train, dtype=float), fetcher.y_train.argmax(axis=1)
    asked = np.asarray(fetcher.x_valid, dtype=float), fetcher.y_valid.argmax(axis=1)
    return Problem(*rows, *asked, noisy, fetcher)


def few_digits(task: str, rate: float, seed: int) -> Problem:
    """For --quick without OpenDataVal."""
    X, y = load("digits")
    if task == "labels":
        y, noisy = flip(y, "uniform", rate, seed)
    else:
        rng = np.random.default_rng(seed)
        noisy = rng.random(len(y)) < rate
        X = X + noisy[:, None] * rng.normal(size=X.shape)
    return Problem(X[40:], y[40:], X[:40], y[:40], noisy[40:])


def ours(name: str, given: Problem) -> np.ndarray:
    """Scores of the training rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from sktda import attribution
    from sktda.objectives import Margin

    kind, also = OURS[name]
    scorer = getattr(attribution, kind)()
    if "random_state" in scorer.get_params(deep=False):
        scorer.set_params(random_state=0)
    if "margin" in also:
        scorer.set_params(objective=Margin())
    if "logistic" in also:
        scorer.set_params(estimator=make_pipeline(StandardScaler(), LogisticRegression()))
    asked = {"X_val": given.X_val, "y_val": given.y_val} if "validation" in also else {}
    return scorer.fit(given.X, given.y, **asked).scores_


def theirs(seed: int) -> dict[str, Callable[[Problem], np.ndarray]]:
    """Evaluators of OpenDataVal by name; their notebooks take as many neighbours as there are validation rows."""
    from opendataval import dataval
    from sklearn.tree import DecisionTreeClassifier

    models = {"random_state": seed, "num_models": MODELS}
    made: dict[str, tuple[Callable[[Problem], Any], str, dict]] = {
        "RandomEvaluator": (lambda _: dataval.RandomEvaluator(random_state=seed), "sklogreg", {}),
        "KNNShapley, 10": (lambda _: dataval.KNNShapley(random_state=seed), "sklogreg", {}),
        "KNNShapley, all": (lambda p: dataval.KNNShapley(len(p.X_val), random_state=seed), "sklogreg", {}),
        "DataOob, logistic": (lambda _: dataval.DataOob(**models), "sklogreg", {}),
        "DataOob, trees": (lambda _: dataval.DataOob(**models), "trees", {}),
        "DataBanzhaf": (lambda _: dataval.DataBanzhaf(**models), "sklogreg", {}),
        "InfluenceSubsample": (lambda _: dataval.InfluenceSubsample(**models), "sklogreg", {}),
        "InfluenceFunction": (lambda _: dataval.InfluenceFunction(), "logisticregression", {"epochs": 5}),
        "LavaEvaluator": (lambda _: dataval.LavaEvaluator(random_state=seed), "sklogreg", {}),
    }
    if hasattr(dataval, "LossValEvaluator"):
        made["LossVal"] = (lambda _: dataval.LossValEvaluator(True, nr_epochs=20), "logisticregression", {})

    def values(make: Callable[[Problem], Any], model: str, how: dict, given: Problem) -> np.ndarray:
        from opendataval.model import ClassifierSkLearnWrapper, ModelFactory

        if model == "trees":
            bagged = ClassifierSkLearnWrapper(
                DecisionTreeClassifier, given.fetcher.label_dim[0], max_features="sqrt", random_state=seed
            )
        else:
            bagged = ModelFactory(model, given.fetcher)
        return make(given).train(given.fetcher, bagged, **how).data_values

    return {name: partial(values, *parts) for name, parts in made.items()}


def lower_group(values: np.ndarray) -> np.ndarray:
    """Mask of the lower of the two groups whose squared distances to their means sum to the least."""
    ordered = np.sort(values)
    below = ordered.cumsum()[:-1]
    size = np.arange(1, len(ordered))
    between = below**2 / size + (ordered.sum() - below) ** 2 / (len(ordered) - size)
    return values < ordered[between.argmax() + 1]


def detection(values: np.ndarray, given: Problem) -> dict:
    """F1 by OpenDataVal's rule and AUROC of low values for noisy rows."""
    from sklearn.metrics import f1_score, roc_auc_score

    if given.fetcher is None:
        f1 = f1_score(given.noisy, lower_group(values))
    else:
        from opendataval.experiment.exper_methods import noisy_detection

        f1 = noisy_detection(SimpleNamespace(data_values=values), given.fetcher)["kmeans_f1"]
    return {"f1": float(f1), "auroc": float(roc_auc_score(given.noisy, -values))}


def curves(values: np.ndarray, given: Problem) -> dict:
    """Accuracy of the logistic regression without 0, 20, .. 80 % of the rows, and its mean over what was removed."""
    from opendataval.experiment.exper_methods import remove_high_low
    from opendataval.metrics import Metrics
    from opendataval.model import ModelFactory

    found = remove_high_low(
        SimpleNamespace(data_values=values),
        given.fetcher,
        ModelFactory("sklogreg", given.fetcher),
        percentile=STEP,
        metric=Metrics.ACCURACY,
    )
    lowest, highest = (own for name, own in found.items() if name != "axis")
    return {f"lowest_{share:.0%}": lowest[i] for i, share in enumerate(np.arange(0, 1, STEP))} | {
        "lowest": float(np.mean(lowest[1:])),
        "highest": float(np.mean(highest[1:])),
    }


def measure(name: str, task: str, rate: float, seed: int, peers: bool) -> list[dict]:
    """One row for each method; without figures where it ended with an error or with values that are not finite."""
    said = io.StringIO()  # bars of progress
    rows = []
    with warnings.catch_warnings(), contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        warnings.simplefilter("ignore")  # lbfgs at its limit
        given = problem(name, task, rate, seed) if peers else few_digits(task, rate, seed)
        methods = [("sktda", each, partial(ours, each)) for each in OURS]
        methods += [("OpenDataVal", *each) for each in theirs(seed).items()] if peers else []
        methods = [each for each in methods if not quick() or each[1] in QUICK]
        for by, method, values_of in methods:
            row = {"data": name, "task": task, "rate": rate, "seed": seed, "by": by, "method": method}
            row |= {"n": len(given.y), "columns": given.X.shape[1], "classes": int(given.y.max()) + 1}
            start = time.process_time()
            try:
                values = np.asarray(values_of(given), dtype=float).ravel()
            except Exception as error:
                if by == "sktda":
                    raise
                rows.append(row | {"error": f"{type(error).__name__}: {error}"})
                continue
            row["seconds"] = time.process_time() - start
            if not np.isfinite(values).all():
                rows.append(row | {"error": "values that are not finite"})
                continue
            row |= detection(values, given)
            rows.append(row | (curves(values, given) if peers and (task, rate) == CURVE else {}))
    return rows


def over_seeds(rows: list[dict]) -> list[dict]:
    """Means over the seeds of each method in each cell, to four digits, with the deviation of F1 and AUROC."""
    cells: dict[tuple, list[dict]] = {}
    for row in rows:
        cells.setdefault(tuple(row[name] for name in ("data", "task", "rate", "by", "method")), []).append(row)
    means = []
    for group in cells.values():
        row = {name: value for name, value in group[0].items() if not isinstance(value, float) or name == "rate"}
        done = [each for each in group if "auroc" in each]
        for name in done[0] if done else ():
            if isinstance(done[0][name], float) and name != "rate":
                row[name] = round(float(np.mean([each[name] for each in done])), 4)
        for name in ("f1", "auroc"):
            if len(done) > 1:
                row[f"{name}_deviation"] = round(float(np.std([each[name] for each in done], ddof=1)), 4)
        row.pop("seed")
        means.append({**row, "n_seeds": len(done)})
    return means


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=SETS, help=f"some of {', '.join(SETS)}")
    options = begin(parser, arguments, threads=1)
    peers = has("opendataval", "geomloss", "torchvision")
    data, rates, seeds = options.data, RATES, SEEDS
    if quick():
        data, rates, seeds = ("iris" if peers else "digits",), RATES[1:], SEEDS[:1]
    file = RESULTS / "opendataval_tasks.json"
    kept = json.loads(file.read_text())["rows"] if file.exists() else []
    for name in data:
        rows = []
        for task in TASKS:
            for rate in rates:
                own = [row for seed in seeds for row in measure(name, task, rate, seed, peers)]
                rows += over_seeds(own)
                print(f"{name}, noisy {task}, {rate:.0%}", flush=True)
                for row in rows[-len(own) // len(seeds) :]:
                    figures = f"F1 {row['f1']:.3f} AUROC {row['auroc']:.3f}" if "f1" in row else row["error"]
                    print(f"  {row['by']:11s} {row['method']:26s} {figures} {row.get('seconds', 0):.2f} s", flush=True)
        kept = [row for row in kept if row["data"] != name] + rows
        save("opendataval_tasks", sorted(kept, key=lambda row: SETS.index(row["data"])))


if __name__ == "__main__":
    main()
