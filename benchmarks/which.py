"""Which method when? Every attributor and the best of cleanlab on the same wrong labels, in one run.

    python benchmarks/which.py                    # all data sets; an hour and a half on two cores
    python benchmarks/which.py digits segment     # some of them
    python benchmarks/which.py digits --only TRAK # one method again, the others stay as they are in the file
    python benchmarks/which.py --quick            # a method of each kind, few rows, nothing written: does it run?

20 % of the labels of the training rows are replaced (Fashion-MNIST also 40 %): by any other class at random, or by the
next class. The slow gradient methods see Fashion-MNIST only with 20 % replaced at random, Source (over ten minutes) not
at all. A third of the rows is for testing and keeps its labels (Fashion-MNIST: 10,000 training images, its own test
images). Every method scores the training rows with its defaults (nothing validates, random_state=0), in a process of
its own. AUROC and AP are those of low scores for wrong labels; "accuracy" is that of ExtraTreesClassifier(100) on the
test rows after NoisyLabelDetector has dropped the lowest scores, as many as it estimates to be wrong; "nothing" and
"all right rows" are the bounds. Seconds are those of `fit`; memory is the peak of the process with libraries and data.
cleanlab gets 5-fold out-of-sample probabilities of the same trees that SelfConfidence uses, of a LogisticRegression and
of an MLPClassifier, through `find_label_issues` and `CleanLearning`. Writes benchmarks/results/which_DATA.json;
`python benchmarks/tables.py` makes the table of the guide from it.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from shared.common import RESULTS, begin, fashion_mnist, flip, has, load, measured, save

DATA = ("digits", "segment", "phoneme", "fashion-10k")
NOISE = [("uniform", 0.2), ("class", 0.2)]
MORE_NOISE = [("uniform", 0.4), ("class", 0.4)]  # of Fashion-MNIST
NEEDS = {  # what a method trains: nothing, classifiers out of sample, a net, a net with its run
    "LabelPosterior": "a forest",
    "ComplexityGap": "nothing",
    "KNNShapley": "nothing",
    "Ensemble": "folds",
    "LabelPosterior(SelfConfidence)": "folds",
    "SelfConfidence": "folds",
    "NormalizedMargin": "folds",
    "ConfidentLearning": "folds",
    "DataOOB": "a forest",
    "AUM": "a run",
    "Forgetting": "a run",
    "EL2N": "a run",
    "GraNd": "a run",
    "Loss": "a net",
    "LogitMargin": "a net",
    "OutlierGradient": "a net",
    "InnerProduct": "a net",
    "Influence": "a net",
    "TRAK": "a net",
    "TracIn": "a run",
    "DiffIn": "a run",
    "MoSo": "a run",
    "Source": "a run",
}
SLOW = (
    "Influence",
    "TRAK",
    "TracIn",
    "InnerProduct",
    "DiffIn",
    "MoSo",
    "Source",
)  # of Fashion-MNIST at one noise, for the time
PEERS = [(api, model) for model in ("trees", "logistic", "mlp") for api in ("find_label_issues", "CleanLearning")]


def attributor(name: str) -> Any:
    """With its defaults and a seed."""
    from sktda import attribution

    if name == "LabelPosterior(SelfConfidence)":
        made = attribution.LabelPosterior(attribution.SelfConfidence())
    else:
        made = getattr(attribution, name)()
    return made.set_params(**({"random_state": 0} if "random_state" in made.get_params(deep=False) else {}))


def problem(name: str, kind: str, rate: float) -> tuple[np.ndarray, ...]:
    """(X, given labels, wrong, X_test, y_test)."""
    from sklearn.model_selection import train_test_split

    if name == "fashion-10k":
        X, y, X_test, y_test = fashion_mnist()
        X, y = X[:10_000], y[:10_000]
    else:
        X, X_test, y, y_test = train_test_split(*load(name), test_size=1 / 3, random_state=0)
    return X, *flip(y, kind, rate), X_test, y_test


def trees() -> Any:
    """What is trained on the rows that are left."""
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(100, random_state=0)


def refit(rows: np.ndarray, X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray) -> float:
    """Accuracy on the test rows after training on these rows."""
    X, X_test = X.reshape(len(X), -1), X_test.reshape(len(X_test), -1)
    return float(trees().fit(X[rows], y[rows]).score(X_test, y_test))


def ranking(wrong: np.ndarray, scores: np.ndarray) -> dict:
    """How well low scores find the wrong labels."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {"auroc": roc_auc_score(wrong, -scores), "ap": average_precision_score(wrong, -scores)}


def ours(data: str, kind: str, rate: float, method: str) -> dict:
    """One attributor."""
    from sktda import NoisyLabelDetector
    from sktda.attribution import PrecomputedScores

    X, y, wrong, X_test, y_test = problem(data, kind, rate)
    scorer = attributor(method)
    start = time.perf_counter()
    scores = scorer.fit(X, y).scores_
    seconds = time.perf_counter() - start
    detector = NoisyLabelDetector(PrecomputedScores(scores)).fit(X, y)
    accuracy = refit(detector.sample_indices_, X, y, X_test, y_test)
    return {"seconds": seconds, "dropped": detector.noise_rate_, "accuracy": accuracy, **ranking(wrong, scores)}


def bounds(data: str, kind: str, rate: float) -> dict:
    """Accuracy without cleaning, and with the truth."""
    X, y, wrong, X_test, y_test = problem(data, kind, rate)
    tests = X, y, X_test, y_test
    return {"nothing": refit(np.arange(len(y)), *tests), "all right rows": refit(np.flatnonzero(~wrong), *tests)}


def cleanlab(data: str, kind: str, rate: float, api: str, model: str) -> dict:
    """The same of cleanlab: its quality scores, and the rows that it calls issues dropped."""
    from cleanlab.classification import CleanLearning
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    warnings.simplefilter("ignore")  # 10 epochs do not converge
    X, y, wrong, X_test, y_test = problem(data, kind, rate)
    flat = X.reshape(len(X), -1).astype(np.float32)
    epochs = 10 if data.startswith("fashion") else 50
    classifiers: dict[str, Callable[[], Any]] = {
        "trees": lambda: ExtraTreesClassifier(100, min_samples_leaf=5, random_state=0),
        "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=100)),
        "mlp": lambda: make_pipeline(StandardScaler(), MLPClassifier((256, 256), max_iter=epochs, random_state=0)),
    }
    classifier = classifiers[model]()
    start = time.perf_counter()
    if api == "CleanLearning":
        issues = CleanLearning(classifier, seed=0, cv_n_folds=5, find_label_issues_kwargs={"n_jobs": 1})
        found = issues.find_label_issues(flat, y)
        scores, dropped = found["label_quality"].to_numpy(), found["is_label_issue"].to_numpy()
        figures = ranking(wrong, scores)
    else:
        probabilities = cross_val_predict(classifier, flat, y, cv=5, method="predict_proba")
        dropped = find_label_issues(y, probabilities, n_jobs=1)
        ways = ("self_confidence", "normalized_margin")
        each = [ranking(wrong, get_label_quality_scores(y, probabilities, method=way)) for way in ways]
        figures = max(each, key=lambda figures: figures["auroc"])  # the better of both
    seconds = time.perf_counter() - start
    accuracy = refit(np.flatnonzero(~dropped), X, y, X_test, y_test)
    return {"seconds": seconds, "dropped": dropped.mean(), "accuracy": accuracy, **figures}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", default=DATA, help=f"some of {', '.join(DATA)}")
    parser.add_argument("--only", help="one method, beside what the file has of the others")
    options = begin(parser, arguments)
    data, noise, methods, peers = options.data, NOISE, list(NEEDS), PEERS
    if options.quick:
        data, noise, peers = DATA[:1], NOISE[:1], [each for each in PEERS if each[1] == "logistic"]
        methods = list({need: method for method, need in reversed(NEEDS.items())}.values())  # the first of each kind
    if not has("cleanlab"):
        peers = []
    for name in data:
        path = RESULTS / f"which_{name}.json"
        rows = []
        if options.only:
            rows = [row for row in json.loads(path.read_text())["rows"] if row["method"] != options.only]
        for kind, rate in noise + (MORE_NOISE if name.startswith("fashion") else []):
            setting = {"data": name, "noise": kind, "rate": rate}
            if not options.only:
                rows.append({**setting, "method": "bounds", **measured(bounds, name, kind, rate)})
            short = name.startswith("fashion") and (kind, rate) != NOISE[0]
            left_out = SLOW if short else ("Source",) if name.startswith("fashion") else ()
            jobs: list[tuple[str, Callable, tuple]] = [
                (each, ours, (each,)) for each in methods if each not in left_out
            ]
            jobs += [(f"cleanlab {api}, {model}", cleanlab, (api, model)) for api, model in peers]
            for method, function, extra in jobs:
                if options.only in (None, method):
                    row = {**setting, "method": method, **measured(function, name, kind, rate, *extra)}
                    rows.append(row)
                    print(
                        f"{name:12s} {kind:7s} {rate:.1f} {method:36s} AUROC {row['auroc']:.4f} AP {row['ap']:.4f} "
                        f"accuracy {row['accuracy']:.4f} {row['seconds']:7.1f} s {row['peak_gib']:.2f} GiB",
                        flush=True,
                    )
            save(f"which_{name}", rows)


if __name__ == "__main__":
    main()
