"""Does the cleaning help? Score on held-out rows: trained as given, cleaned, and cut at random.

Every fold holds rows out before anything else happens. The detector, the projection and the model see the
training rows only, so no row is judged by a model, or removed by a detector, that saw it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, StandardScaler

from sktda.data import n_columns

# With these limits the comparison takes two or three seconds on one core, for large data with many classes. Rows that
# judge cost little and make the differences exact; rows that are learnt from cost much.
MAX_ROWS = 10_000
MAX_TRAIN = 500, 400  # per fold, of classes and of numbers; more where there are many classes:
TRAIN_PER_CLASS = 15
MAX_VALUES = 30_000_000  # of the rows used, for images and other wide rows
MAX_FEATURES = 100  # more columns than this are projected to N_COMPONENTS
N_COMPONENTS = 50
N_REPEATS = 2  # random removals per fold
N_TREES = 30, 50  # of the default detector of classes and of numbers within a fold, in place of 200 and 100
ARMS = ("before", "after", "random")


@dataclass(frozen=True, eq=False)
class ModelScores:
    """One model's held-out score per fold (n_folds,): accuracy, or R^2 for regression."""

    model: str
    before: np.ndarray
    after: np.ndarray
    random: np.ndarray

    def summary(self) -> dict:
        """Means and standard errors over the folds; differences are paired within the fold."""
        series = {arm: getattr(self, arm) for arm in ARMS}
        series["gain"] = self.after - self.before
        series["gain_over_random"] = self.after - self.random
        numbers: dict = {"model": self.model}
        for name, values in series.items():
            numbers[name] = float(values.mean())
            numbers[name + "_se"] = float(values.std(ddof=1) / np.sqrt(len(values)))
        return numbers


@dataclass(frozen=True, eq=False)
class Comparison:
    """The scores of each model, the rows they were judged on and how many training rows each fold lost."""

    models: tuple[ModelScores, ...]
    n_rows: int
    n_removed: tuple[int, ...]
    n_train: tuple[int, ...]
    n_components: int | None  # None = the models saw all columns
    n_untold: int = 0  # folds whose detector could not tell right labels from wrong ones
    is_sampled: bool = False  # whether not all rows outside a fold were learnt from

    @property
    def verdict(self) -> str:
        """ "unchanged", "worse", "better" or "unclear": the gain, mean of the models and paired over the folds.

        Worse and better are beyond two of its standard errors; better is so also against random removal.
        """
        if not any(self.n_removed):
            return "unchanged"
        gain, over_random = (
            np.mean([scores.after - getattr(scores, arm) for scores in self.models], axis=0)
            for arm in ("before", "random")
        )
        if _beyond_error(-gain):
            return "worse"
        return "better" if _beyond_error(gain) and _beyond_error(over_random) else "unclear"

    def numbers(self, metric: str) -> dict:
        """All of it as plain numbers; those of the first model also as `<metric>_before` and so on."""
        models = [scores.summary() for scores in self.models]
        first = {f"{metric}_{name}": value for name, value in models[0].items() if name != "model"}
        return {
            "metric": metric,
            **first,
            "models": models,
            "n_rows_compared": self.n_rows,
            "n_folds": len(self.n_removed),
            "n_train_per_fold": list(self.n_train),
            "n_removed_per_fold": list(self.n_removed),
            "n_untold_folds": self.n_untold,
            "verdict": self.verdict,
        }


def compare(
    features: Any, target: np.ndarray, detector: Any, *, regression: bool, cv: int, random_state: int
) -> Comparison:
    """Cross-validated scores of two quick models before and after cleaning, and after random removal.

    features (n, ...) dense or sparse rows; target (n,) class codes, or values for regression; detector an unfitted
    estimator with `fit_resample` and `sample_indices_`, `quick` and cloned for every fold. A random subsample stands in
    for more than MAX_ROWS rows or MAX_VALUES values, and within a fold for more than MAX_TRAIN rows to learn from, or
    TRAIN_PER_CLASS per class; the detector always sees the features as they are.
    Raises ValueError if there are too few rows for the folds, or if the detector refuses a fold.
    """
    random = np.random.default_rng(random_state)
    size = min(len(target), MAX_ROWS, max(1_000, MAX_VALUES // n_columns(features)))
    rows = np.sort(random.permutation(len(target))[:size])
    features, target = (features.tocsr() if sparse.issparse(features) else features)[rows], target[rows]
    flat = features if sparse.issparse(features) else features.reshape(len(rows), -1)
    # As text, classes stay classes also in a fold with so few rows that whole numbers look like measurements.
    labels = target if regression else target.astype(str)

    size = MAX_TRAIN[1] if regression else max(MAX_TRAIN[0], TRAIN_PER_CLASS * len(np.unique(target)))
    detector = quick(detector, regression)

    models = _models(regression, random_state)
    scores: dict = {name: {arm: [] for arm in ARMS} for name in models}
    n_removed, n_train, n_untold, is_sampled = [], [], 0, False
    for train, test in _folds(target, regression, cv, random_state):
        if len(train) > size:
            is_sampled = True
            train = np.sort(random.permutation(train)[:size])
        sampler = _seeded(clone(detector), random_state)
        with warnings.catch_warnings():  # of folds: the page says it once, for all rows
            warnings.simplefilter("ignore", UserWarning)
            sampler.fit_resample(features[train], labels[train])
        n_untold += not getattr(sampler, "can_tell_", True)
        kept = train[sampler.sample_indices_]
        samples = [random.permutation(train)[: len(kept)] for _ in range(N_REPEATS)]
        n_removed.append(len(train) - len(kept))
        n_train.append(len(train))

        projected = _projection(flat, len(train)).fit(flat[train]).transform(flat).astype(np.float64)
        for name, model in models.items():
            judge = _Judge(model, projected, target, test)
            scores[name]["before"].append(judge(train))
            scores[name]["after"].append(judge(kept))
            scores[name]["random"].append(np.mean([judge(sample) for sample in samples]))

    return Comparison(
        models=tuple(ModelScores(name, *(np.array(arms[arm]) for arm in ARMS)) for name, arms in scores.items()),
        n_rows=len(rows),
        n_removed=tuple(n_removed),
        n_train=tuple(n_train),
        n_components=projected.shape[1] if flat.shape[1] > MAX_FEATURES else None,
        n_untold=n_untold,
        is_sampled=is_sampled,
    )


def quick(detector: Any, regression: bool) -> Any:
    """The detector, with fewer trees where it is the default one. ValueError for one that cannot do without rows."""
    from sktda.attribution import KernelForest, LabelPosterior, PrecomputedProbabilities, RobustResidual

    params = detector.get_params(deep=False)
    ranks = params.get("attributor", detector)
    if isinstance(ranks, PrecomputedProbabilities):
        raise ValueError("the labels of all rows were used for the given probabilities, so that no row is held out")
    default = ranks is None or (isinstance(ranks, LabelPosterior) and ranks.attributor is None)
    if not default:
        return detector
    forest = RobustResidual(n_estimators=N_TREES[1]) if regression else KernelForest(n_estimators=N_TREES[0])
    task = "regression" if regression else "classification"
    return clone(detector).set_params(attributor=LabelPosterior(forest, task=task))


def _beyond_error(gain: np.ndarray) -> bool:
    """Whether the mean of gains (n_folds,) is above two of its standard errors."""
    return bool(gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(len(gain)))


@dataclass(frozen=True, eq=False)
class _Judge:
    """Score on the test rows of a fresh copy of the model, trained on the rows that it is called with."""

    model: Any
    features: np.ndarray
    target: np.ndarray
    test: np.ndarray

    def __call__(self, rows: np.ndarray) -> float:
        model = clone(self.model)
        if isinstance(model, LogisticRegression) and len(np.unique(self.target[rows])) == 1:
            model = DummyClassifier()  # a rare or a removed class can leave one, which logistic regression refuses
        model.fit(self.features[rows], self.target[rows])
        return model.score(self.features[self.test], self.target[self.test])


def _models(regression: bool, random_state: int) -> dict:
    """A linear model, which wrong labels move little, and a flexible one, which can fit them."""
    if regression:
        forest = RandomForestRegressor(12, max_features=1 / 3, random_state=random_state)
        return {"ridge regression": Ridge(), "random forest": forest}
    forest = RandomForestClassifier(12, random_state=random_state)
    return {"logistic regression": LogisticRegression(tol=1e-3, max_iter=1_000), "random forest": forest}


def _projection(flat: Any, n_train: int) -> Pipeline:
    """Scaling and, for many columns, principal components; label-free and fitted on the training rows only."""
    wide = flat.shape[1] > MAX_FEATURES
    size = min(N_COMPONENTS, n_train - 1)
    if sparse.issparse(flat):
        dense = FunctionTransformer(_to_dense, accept_sparse=True)
        shorter = TruncatedSVD(size, random_state=0) if wide else dense
        return make_pipeline(MaxAbsScaler(), shorter, StandardScaler())
    if not wide:
        return make_pipeline(StandardScaler())
    components = PCA(size, whiten=True, svd_solver="randomized", iterated_power=3, random_state=0)
    return make_pipeline(StandardScaler(), components)


def _to_dense(rows: Any) -> np.ndarray:
    return rows.toarray()


def _seeded(detector: Any, random_state: int) -> Any:
    free = detector.get_params().get("random_state", 0) is None
    return detector.set_params(random_state=random_state) if free else detector


def _folds(target: np.ndarray, regression: bool, cv: int, random_state: int) -> list:
    largest = len(target) // 2 if regression else int(np.bincount(target).max())
    if largest < 2:
        raise ValueError(f"{len(target)} rows are too few to hold some of them out")
    kind = KFold if regression else StratifiedKFold
    folds = kind(min(cv, largest), shuffle=True, random_state=random_state)
    with warnings.catch_warnings():
        # Classes rarer than the folds are spread as evenly as can be, which is what is wanted here.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return list(folds.split(target, target))


def visible_gain(noise_rate: float, n_classes: int) -> float | None:
    """Measured over true gain in accuracy when wrong labels are spread evenly over the other classes.

    A model of true accuracy a agrees with a (1 - r) + (1 - a) r / (C - 1) of the given labels; this is the slope.
    None where the labels say nothing (a single class, or r >= (C - 1) / C).
    """
    if n_classes < 2:
        return None
    slope = 1 - noise_rate * n_classes / (n_classes - 1)
    return slope if slope > 0 else None
