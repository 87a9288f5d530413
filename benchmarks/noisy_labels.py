"""Which wrong labels does ComplexityGap find? Beside cleanlab, on the same rows in one run (see also which.py).

    python benchmarks/noisy_labels.py                 # all data sets; about half an hour on two cores
    python benchmarks/noisy_labels.py digits segment  # some of them
    python benchmarks/noisy_labels.py --quick         # few rows, nothing written: does it run?

Every method runs in a process of its own (threads fixed), so seconds and peak memory can be compared; peak memory
includes the libraries and the data. cleanlab gets 5-fold out-of-sample probabilities of a LogisticRegression and of
an MLPClassifier on standardised columns (pixels: divided by 255), through `find_label_issues` and `CleanLearning`;
on the 60,000 rows of Fashion-MNIST only at 20 % uniform noise, because of the time that takes.
Writes benchmarks/results/noisy_labels_DATA.json; `python benchmarks/tables.py` makes the page of the docs from it.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from shared.common import begin, flip, has, load, measured, save

DATA = ("digits", "segment", "phoneme", "fashion-10k", "fashion-60k")
NOISE = [("uniform", 0.0)] + [(kind, rate) for kind in ("uniform", "class") for rate in (0.1, 0.2, 0.4)]
SEEDS = (0, 1, 2)  # of noise and method; cleanlab sees the first, because of the time it takes
PEERS = [(api, model) for model in ("logistic", "mlp") for api in ("find_label_issues", "CleanLearning")]


def sktda_detector(name: str, kind: str, rate: float, seed: int) -> dict:
    """NoisyLabelDetector by the complexity gap, without the correction for noise by class that is its default."""
    from sktda import NoisyLabelDetector
    from sktda.attribution import ComplexityGap

    X, y = load(name)
    given, wrong = flip(y, kind, rate, seed)
    start = time.perf_counter()
    detector = NoisyLabelDetector(ComplexityGap(), random_state=seed).fit(X, given)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, **quality(wrong, -detector.scores_, detector.noise_rate_)}


def cleanlab_detector(name: str, kind: str, rate: float, seed: int, api: str, model: str) -> dict:
    """cleanlab on out-of-sample probabilities of 5 folds."""
    from cleanlab.classification import CleanLearning
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    warnings.simplefilter("ignore")  # 10 epochs do not converge, as stated
    X, y = load(name)
    given, wrong = flip(y, kind, rate, seed)
    classifier = (
        LogisticRegression(max_iter=100)
        if model == "logistic"
        else MLPClassifier((256, 256), max_iter=10 if name.startswith("fashion") else 50, random_state=seed)
    )
    scaler = FunctionTransformer(to_unit) if name.startswith("fashion") else StandardScaler()
    classifier = make_pipeline(scaler, classifier)
    X = X.reshape(len(X), -1)
    start = time.perf_counter()
    # n_jobs=1: cleanlab's own worker processes fail in a spawned process, and gain nothing here
    if api == "CleanLearning":
        issues = CleanLearning(
            classifier, seed=seed, cv_n_folds=5, find_label_issues_kwargs={"n_jobs": 1}
        ).find_label_issues(X, given)
        suspicion, share = -issues["label_quality"].to_numpy(), issues["is_label_issue"].mean()
    else:
        probabilities = cross_val_predict(classifier, X, given, cv=5, method="predict_proba")
        share = find_label_issues(given, probabilities, n_jobs=1).mean()
        suspicion = -get_label_quality_scores(given, probabilities, method="normalized_margin")
    seconds = time.perf_counter() - start
    return {"seconds": seconds, **quality(wrong, suspicion, share)}


def to_unit(X: np.ndarray) -> np.ndarray:
    """Pixels to [0, 1]."""
    return X / np.float32(255)


def quality(wrong: np.ndarray, suspicion: np.ndarray, rate: float) -> dict:
    """AUROC, AP, precision at the true count and the rates; ranking figures are None without wrong labels."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    row = {"true_rate": wrong.mean(), "estimated_rate": float(rate), "auroc": None, "ap": None, "precision": None}
    if wrong.any():
        worst = np.argsort(-suspicion, kind="stable")[: wrong.sum()]
        row["auroc"] = roc_auc_score(wrong, suspicion)
        row["ap"] = average_precision_score(wrong, suspicion)
        row["precision"] = wrong[worst].mean()
    return row


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", default=DATA, help=f"some of {', '.join(DATA)}")
    options = begin(parser, arguments)
    data, noise, seeds, peers = options.data, NOISE, SEEDS, PEERS
    if options.quick:
        data, noise, seeds, peers = DATA[:1], NOISE[1:2], SEEDS[:1], PEERS[:2]
    if not has("cleanlab"):
        peers = []
    for name in data:
        rows = []
        for kind, rate in noise:
            jobs = [
                ("sktda ComplexityGap", sktda_detector, seed, ())
                for seed in (seeds if name != "fashion-60k" else seeds[:1])
            ]
            if name != "fashion-60k" or (kind, rate) == ("uniform", 0.2):
                jobs += [
                    (f"cleanlab {api}, {model}", cleanlab_detector, SEEDS[0], (api, model)) for api, model in peers
                ]
            for method, function, seed, extra in jobs:
                row = {"data": name, "noise": kind, "rate": rate, "seed": seed, "method": method}
                row |= measured(function, name, kind, rate, seed, *extra)
                rows.append(row)
                figures = [f"{row[key]:.4f}" if row[key] is not None else "-" for key in ("auroc", "ap", "precision")]
                print(
                    f"{name:12s} {kind:7s} {rate:.1f} {method:36s} AUROC {figures[0]:6s} AP {figures[1]:6s} "
                    f"P@true {figures[2]:6s} rate {row['true_rate']:.3f} -> {row['estimated_rate']:.3f} "
                    f"{row['seconds']:8.2f} s {row['peak_gib']:.2f} GiB",
                    flush=True,
                )
            save(f"noisy_labels_{name}", rows)


if __name__ == "__main__":
    main()
