"""Many ordinary tables, planted wrong labels, and what is measured on them; see tables_battery.py."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from shared.common import data_folder, environment, load

FILES = (
    "credit",
    "hr",
    "iris",
    "letters",
    "mushrooms",
    "penguins",
    "sonar",
    "telco",
    "titanic",
    "winered",
    "wisc",
)  # classification tables of SKTDA_DATA/data/tables
ARRAYS = ("adult", "phoneme", "segment")
BUNDLED = {"wine": "wine", "breast_cancer": "breast_cancer", "digits": "digits", "iris (scikit-learn)": "iris"}
RIGHT = ("mushrooms", "penguins", "iris", "wisc", "letters")  # labels known to be right
FIELD = {  # file: (target, rows whose label is wrong)
    "marks": ("grade", 0),
    "claims": ("amount", 0),
    "skewed": ("price", 0),
    "one_absurd": ("pay", 1),
    "spellings": ("answer", 0),
    "noise": ("label", 0),
    "contradicting_duplicates": ("kind", 15),
    "leak": ("kind", 0),
    "sentinel": ("kind", 0),
}
SETTINGS = {
    "u0": "labels as they are",
    "u5": "5 % uniform",
    "u15": "15 % uniform",
    "u30": "30 % uniform",
    "c30": "30 % of the largest class",
}
SEEDS = (0, 1, 2)
ROWS = 3_000
PEERS = ("logistic", "trees", "boosting")
MODELS = ("1-NN", "logistic", "forest", "boosting")
MOST_CATEGORIES, NUMERIC_SHARE = 50, 0.95


def table_names() -> list[str]:
    """All that can be loaded here: without SKTDA_DATA those that scikit-learn brings along."""
    return [*(FILES + ARRAYS if data_folder() else ()), *BUNDLED]


def table_data(name: str, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """(X float (n, p), y as 0..C-1): at most `rows` rows (0 = all), drawn once, the same for every seed and method."""
    if name in BUNDLED:
        from sklearn import datasets

        X, y = getattr(datasets, f"load_{BUNDLED[name]}")(return_X_y=True)
    elif name in ARRAYS:
        X, y = load(name)
    else:
        import pandas as pd

        frame = pd.read_csv(data_folder() / "tables" / f"{name}.csv.gz")
        y = frame.pop("target").astype(str).to_numpy()
        X = encode(frame)
    if rows and len(y) > rows:
        drawn = np.sort(np.random.default_rng(0).permutation(len(y))[:rows])
        X, y = X[drawn], y[drawn]
    X = np.asarray(X, dtype=float)
    return X[:, X.std(axis=0) > 0], np.unique(y, return_inverse=True)[1]


def has_field() -> bool:
    """Whether the files from the field are here."""
    return field_folder() is not None and field_folder().exists()


def field_folder() -> Path | None:
    """SKTDA_DATA/field."""
    folder = data_folder()
    return folder and folder.parent / "field"


def encode(frame: Any) -> np.ndarray:
    """Numbers with their median where they are missing; other columns one-hot: 50 frequent values, and all others.

    A column of text is one of numbers where 95 % of what stands in it are some.
    """
    import pandas as pd

    parts = []
    for name in frame:
        column = frame[name]
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.notna().sum() >= NUMERIC_SHARE * column.notna().sum():
            numbers = numbers.astype(float)
            parts.append(numbers.fillna(numbers.median()).fillna(0.0).to_numpy()[:, None])
            continue
        words = column.astype(object).where(column.notna(), "(missing)").astype(str)
        frequent = words.value_counts(sort=True).index[:MOST_CATEGORIES]
        parts.append(pd.get_dummies(words.where(words.isin(frequent), "(other)")).to_numpy(dtype=float))
    return np.hstack(parts)


def plant(y: np.ndarray, setting: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(given labels, mask of the wrong ones) for one of SETTINGS.

    Uniform: that share of the rows gets another class at random. By class: 30 % of the rows of the largest class get
    one other class, the same for all of them.
    """
    rng = np.random.default_rng(1000 + seed)
    n_classes, given = y.max() + 1, y.copy()
    share = int(setting[1:]) / 100
    if setting[0] == "u":
        rows = rng.permutation(len(y))[: round(share * len(y))]
        given[rows] = (y[rows] + rng.integers(1, n_classes, size=len(rows))) % n_classes
    else:
        largest = np.bincount(y).argmax()
        other = (largest + 1 + rng.integers(0, n_classes - 1)) % n_classes
        rows = rng.permutation(np.flatnonzero(y == largest))
        given[rows[: round(share * len(rows))]] = other
    return given, given != y


def peer(name: str, seed: int) -> Any:
    """The classifiers that cleanlab is given."""
    from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if name == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    if name == "trees":
        return ExtraTreesClassifier(300, min_samples_leaf=3, random_state=seed)
    return HistGradientBoostingClassifier(random_state=seed)


def model(name: str, seed: int) -> Any:
    """The classifiers that are trained on all rows, on cleaned ones and on right ones."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if name == "1-NN":
        return make_pipeline(StandardScaler(), KNeighborsClassifier(1))
    return RandomForestClassifier(random_state=seed) if name == "forest" else peer(name, seed)


def cleanlab_cell(X: np.ndarray, given: np.ndarray, wrong: np.ndarray, name: str, seed: int) -> dict:
    """cleanlab on out-of-sample probabilities of five folds; its rate is one minus the trace of the estimated joint."""
    from cleanlab.count import estimate_joint
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    from sklearn.model_selection import cross_val_predict

    def measure():
        probabilities = cross_val_predict(peer(name, seed), X, given, cv=5, method="predict_proba")
        quality = get_label_quality_scores(given, probabilities)
        # n_jobs=1: its own worker processes gain nothing here
        return quality, find_label_issues(given, probabilities, n_jobs=1), estimate_joint(given, probabilities)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes of fewer rows than folds, lbfgs at its limit
        (quality, flagged, joint), seconds = timed(measure)
    return {**figures(wrong, quality, flagged), "rate": float(1 - np.trace(joint)), **seconds}


def detector_cell(X: np.ndarray, given: np.ndarray, wrong: np.ndarray, seed: int) -> dict:
    """`NoisyLabelDetector()`, as it comes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector, seconds = timed(lambda: fitted_detector(X, given, seed))
    return {
        **figures(wrong, detector.scores_, detector.labels_ == -1),
        "rate": float(detector.noise_rate_),
        **seconds,
        **told(detector, caught),
    }


def warm_up(ours: bool, cleanlab: bool) -> None:
    """Load what the first cell would load, so that no cell's seconds hold it, and keep every library to one thread."""
    from threadpoolctl import threadpool_limits

    X, y = table_data("iris (scikit-learn)")
    given, wrong = plant(y, "u15", 0)
    if ours:
        fitted_detector(X, given, 0)
    if cleanlab:
        for name in PEERS:
            cleanlab_cell(X, given, wrong, name, 0)
    threadpool_limits(1)  # environment variables come too late for what was loaded before them


def told(detector: Any, caught: list) -> dict:
    """What the detector says of itself beside the rate, and the kinds of warnings that it gave."""
    said = {}
    for name in ("noise_rate_interval_", "predictability_", "predictability_error_", "can_tell_"):
        value = getattr(detector, name, None)
        said[name.rstrip("_")] = None if value is None else np.asarray(value).tolist()
    return {**said, "warnings": sorted({warning.category.__name__ for warning in caught})}


def fitted_detector(X: np.ndarray, given: np.ndarray, seed: int) -> Any:
    """Fitted; the only place that says what of ours is measured."""
    from sktda import NoisyLabelDetector

    return NoisyLabelDetector(random_state=seed).fit(X, given)


def figures(wrong: np.ndarray, scores: np.ndarray, flagged: np.ndarray) -> dict:
    """How well low scores and flags find the wrong labels; None where there is nothing to find or nothing was found."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    hits = int((wrong & flagged).sum())
    return {
        "true_rate": float(wrong.mean()),
        "ap": float(average_precision_score(wrong, -scores)) if wrong.any() else None,
        "auroc": float(roc_auc_score(wrong, -scores)) if wrong.any() else None,
        "flagged": float(flagged.mean()),
        "precision": hits / int(flagged.sum()) if flagged.any() else None,
        "recall": hits / int(wrong.sum()) if wrong.any() else None,
    }


def timed(function: Callable[[], Any]) -> tuple[Any, dict]:
    """(what it returns, seconds on the clock and of the processor); the latter do not feel other processes."""
    clock, own = time.perf_counter(), time.process_time()
    result = function()
    return result, {"seconds": time.perf_counter() - clock, "cpu": time.process_time() - own}


def split(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of (60 % for training, the rest), every class in both."""
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(len(y)), train_size=0.6, stratify=y, random_state=seed)
    return np.sort(train), np.sort(test)


def accuracy(name: str, seed: int, train: tuple, test: tuple) -> float:
    """Of a new model on (X, y) of the test rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lbfgs at its limit
        return float(model(name, seed).fit(*train).score(*test))


def source_digest() -> str:
    """Of the sources of sktda: cells of ours that were measured with others are out of date."""
    digest = hashlib.sha256()
    folder = Path(find_spec("sktda").origin).parent
    for path in sorted(folder.rglob("*.py")):
        if not {"cli", "report", "displays", "tables"} & set(path.relative_to(folder).parts):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Cells:
    """What was measured, in one JSON file and each under its key; written as it comes, so that a run goes on.

    Without a path nothing is read or written.
    """

    def __init__(self, path: Path | None):
        self.path, self.rows, self.environment = path, {}, environment()
        if path is not None and path.exists():
            content = json.loads(path.read_text())
            for row in content["rows"]:
                self.rows[cell_key(row)] = row
            if content["environment"] != self.environment:
                print(f"{path.name} was begun elsewhere: {content['environment']}", file=sys.stderr)

    def get(self, key: dict) -> dict | None:
        """The cell, if it was measured."""
        return self.rows.get(cell_key(key))

    def add(self, key: dict, found: dict) -> dict:
        """Keep a cell, in the file too."""
        row = self.rows[cell_key(key)] = {**key, **found}
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lines = ",\n".join("  " + json.dumps(row, default=float) for row in self.rows.values())
            head = json.dumps(self.environment)
            new = self.path.with_suffix(".part")
            new.write_text(f'{{\n "environment": {head},\n "rows": [\n{lines}\n ]\n}}\n')
            new.replace(self.path)
        return row


KEY = ("part", "table", "n", "setting", "seed", "method", "rows")


def cell_key(row: dict) -> tuple:
    """What names a cell."""
    return tuple(row.get(name) for name in KEY)
