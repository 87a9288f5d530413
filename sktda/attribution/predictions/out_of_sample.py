"""Scores from class probabilities that a row's own label had no part in: cross-validation of any classifier."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, check_cv
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._metadata_requests import UNUSED
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.validation import check_consistent_length

from sktda.attribution.base import Attributor, Needs, check_rows_fit
from sktda.attribution.progress import Progress
from sktda.data import check_weights, encode_target, note_columns, sliceable
from sktda.model.fitting import train_clone
from sktda.model.given import GivenModel, GivenRows, part_of
from sktda.model.huge import naming_huge_cells
from sktda.model.standard import NearOne
from sktda.seeds import random_of
from sktda.workers import in_workers

FOLDS = 5  # where cv=None
TOLERANCE = 1e-6  # of two probabilities that count as equal


class OutOfSample(CallbackSupportMixin, Attributor):
    """Base of the attributors that compare the given label with out-of-sample class probabilities."""

    needs = Needs(probabilities=True)
    __metadata_request__fit = {"groups": UNUSED}  # the splitter's to request

    _parameter_constraints: dict = {
        "cv": ["cv_object"],
        "task": [StrOptions({"auto", "classification"})],
        "random_state": ["random_state"],
    }

    def __init__(self, estimator=None, *, cv=5, task="auto", n_jobs=None, random_state=None):
        self.estimator = estimator
        self.cv = cv
        self.task = task
        self.n_jobs = n_jobs
        self.random_state = random_state

    @with_callbacks
    @naming_huge_cells
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None, groups=None):
        """Predict every row by a classifier that was trained without it, and score the rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, ...)
            As the estimator takes it; for estimator=None numbers of any shape per row, which are flattened.
        y : array-like of shape (n_samples,)
            Class labels of any kind. Fractions, and (for estimator=None) whole numbers that nearly all differ, are a
            regression target and refused.
        sample_weight : array-like of shape (n_samples,), default=None
            Passed to the estimator's `fit`, of a Pipeline to its last step, which must take it. It does not weight
            the scores.
        X_val, y_val, metadata_val : ignored
            Part of the contract of all attributors.
        groups : array-like of shape (n_samples,), default=None
            For a splitter that keeps groups together, such as ``cv=GroupKFold()``. Where metadata routing is on, `cv`
            is who requests them. ValueError for folds that do not use them.

        Returns
        -------
        self
        """
        self._validate_params()
        self._forget()
        self.task_, codes, self.classes_ = self._checked_target(y)
        rows = X if hasattr(X, "iloc") else None  # a splitter may know its rows by their index
        estimator, X = self._checked(X, codes, sample_weight)
        random = random_of(self.random_state)
        folds = self._folds(X if rows is None else rows, codes, random, groups)
        if not GivenModel.of(estimator).frozen:
            cell = 12 if self.estimator is None else getattr(X, "itemsize", 0)  # float64 near one, float32 for trees
            check_rows_fit(self, X, cell, max(len(train) for train, _ in folds))
            if not isinstance(self.cv, int | np.integer | None):  # of stratified ones `_n_folds` says it
                self._warn_of_classes_left_out(folds, codes)
        # drawn before the folds are trained, so that n_jobs does not matter
        seeds = random.randint(2**31 - 1, size=len(folds))
        # labels and not codes: class_weight of an estimator names them
        labels = self.classes_[codes]
        tasks = (
            (estimator, X, labels, sample_weight, *fold, int(seed)) for fold, seed in zip(folds, seeds, strict=True)
        )
        progress = Progress(self, X, y)
        parts = list(progress.each("folds", in_workers(predict_fold, tasks, self.n_jobs), len(folds)))
        self.pred_probs_ = np.zeros((len(codes), len(self.classes_)))  # 0 for classes that a fold did not see
        for (_, test), (probs, known) in zip(folds, parts, strict=True):
            self.pred_probs_[np.ix_(test, self._columns(probs, known, estimator))] = probs
        self._summarise(codes)
        progress.end()
        return self

    def get_metadata_routing(self):
        """Where metadata goes: weights as requested, groups to a `cv` that requests them."""
        router = MetadataRouter(owner=self).add_self_request(self)
        if hasattr(self.cv, "get_metadata_routing"):
            router.add(cv=self.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))
        return router

    @property
    def loo_decision_(self):
        """`pred_probs_`, from which a cleaner estimates how many labels are wrong and what they should be."""
        return self.pred_probs_

    @abstractmethod
    def _summarise(self, codes: np.ndarray) -> None:
        """Set scores_, and what else the method learns, from pred_probs_."""

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _checked_target(self, y: Any) -> tuple[str, np.ndarray, np.ndarray]:
        """("classification", codes, classes); ValueError for a regression target."""
        name = type(self).__name__
        if y is None:
            raise ValueError(f"{name} requires y to be passed, but the target y is None")
        task, codes, classes = encode_target(y, self.task)
        if task == "regression" and self.estimator is not None and (codes == np.round(codes)).all():
            task, codes, classes = encode_target(y, "classification")  # whoever names a classifier has classes
        if classes is None:
            raise ValueError(
                f"Unknown label type: {name} compares class probabilities, and y, with {len(np.unique(codes))} "
                f"different numbers in {len(codes)} rows, is a regression target; use ComplexityGap() from "
                "sktda.attribution for regression. Where the numbers are classes, make them text: y.astype(str)"
            )
        return task, codes, classes

    def _checked(self, X: Any, codes: np.ndarray, sample_weight: Any) -> tuple[Any, Any]:
        """(the classifier to train, X as it takes it, in a form of which rows can be taken)."""
        if self.estimator is None:
            X, *_ = self._validate(X, codes, sample_weight, "classification")
            X = X if sp.issparse(X) else X.reshape(len(X), -1)
            return default_classifier(X), X
        if not hasattr(self.estimator, "predict_proba"):
            kind = type(self.estimator).__name__
            raise TypeError(
                f"{type(self).__name__} needs a classifier with predict_proba, and {kind} has none; give an estimator "
                f"such as {type(self).__name__}(LogisticRegression()), or CalibratedClassifierCV around a classifier "
                "without probabilities; for regression use ComplexityGap()"
            )
        X = sliceable(X)
        check_consistent_length(X, codes)
        if sample_weight is not None:
            check_weights(sample_weight, len(codes))
        note_columns(self, X, self.estimator)  # the estimator checks X itself
        return self.estimator, X

    def _folds(
        self, X: Any, codes: np.ndarray, random: np.random.RandomState, groups: Any
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """(training rows, predicted rows) of each fold; every row is predicted once."""
        cv = FOLDS if self.cv is None else self.cv
        if groups is not None:
            check_consistent_length(X, groups)
            if not hasattr(cv, "split"):
                raise ValueError(
                    f"{type(self).__name__}(cv={self.cv!r}) was given groups, which its folds would take apart; give a "
                    "splitter that keeps them together, such as cv=GroupKFold(), or leave them out"
                )
        if isinstance(cv, int | np.integer):
            seed = random.randint(2**31 - 1)
            cv = StratifiedKFold(self._n_folds(int(cv), codes), shuffle=True, random_state=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of classes of one row: said by _n_folds
                # X plays no part in stratified folds: zeros stand for rows of any kind
                return list(cv.split(np.zeros(len(codes)), codes))
        folds = list(check_cv(cv, codes, classifier=True).split(X, codes, groups))
        times = np.bincount(np.concatenate([test for _, test in folds]), minlength=len(codes))
        if (times != 1).any():
            raise ValueError(
                f"cv={self.cv!r} predicts {int((times == 0).sum())} rows never and {int((times > 1).sum())} rows more "
                "than once, and every row needs one prediction; give a number of folds or a splitter such as KFold(5)"
            )
        return folds

    def _warn_of_classes_left_out(self, folds: list[tuple[np.ndarray, np.ndarray]], codes: np.ndarray) -> None:
        """UserWarning for rows whose label no row has that their prediction is trained on, as in sorted rows."""
        lost = np.zeros(len(codes), dtype=bool)
        for train, test in folds:
            lost[test] = ~np.isin(codes[test], codes[train])
        if lost.any():
            first = self.classes_.tolist()[codes[lost][0]]
            warnings.warn(
                f"{int(lost.sum())} rows, the first of class {first!r}, are predicted by folds that are trained on no "
                "row of their class, so the probability of their label is 0; shuffle or stratify the folds, as an int "
                "does",
                UserWarning,
                stacklevel=3,
            )

    def _n_folds(self, wanted: int, codes: np.ndarray) -> int:
        """`wanted`, or as few as the rarest class of at least two rows has rows."""
        counts = np.bincount(codes)
        if counts.max() < 2:
            raise ValueError(
                f"each of the {len(counts)} classes has 1 row, so no class can be learnt without the row that is "
                f"predicted; {type(self).__name__} needs at least two rows of a class"
            )
        names, single = self.classes_.tolist(), counts == 1
        if single.any():
            warnings.warn(
                f"classes of 1 row: {single.sum()}, such as {names[single.argmax()]!r}; no other row shows "
                "what they look like, so the probability of that label is 0; drop such rows, or merge classes",
                UserWarning,
                stacklevel=4,
            )
        # no number of folds helps a class of one row, so these do not lower it
        rarest = int(np.where(single, counts.max(), counts).argmin())
        n_folds = min(wanted, int(counts[rarest]))
        if n_folds < wanted:
            warnings.warn(
                f"class {names[rarest]!r} has {n_folds} rows, fewer than the {wanted} folds, so {n_folds} "
                f"folds are used, each trained on fewer rows; drop or merge rare classes, or set cv={n_folds}",
                UserWarning,
                stacklevel=4,
            )
        return n_folds

    def _columns(self, probs: np.ndarray, known: Any, estimator: Any) -> list[int]:
        """Which class each column of predicted probabilities is; ValueError for probabilities that are none."""
        name = type(estimator).__name__
        position = {label: k for k, label in enumerate(self.classes_.tolist())}
        known = list(position) if known is None else np.asarray(known).tolist()
        if probs.ndim != 2 or probs.shape[1] != len(known):
            raise ValueError(
                f"{name}.predict_proba returned shape {probs.shape} for {len(known)} classes; one column per class is "
                "needed"
            )
        if unknown := [label for label in known if label not in position]:
            raise ValueError(
                f"{name} predicts classes that no row of y has, such as {unknown[0]!r} (y has "
                f"{', '.join(repr(label) for label in list(position)[:5])}{', ...' if len(position) > 5 else ''}); "
                "give y the labels that it was trained with, and rows of all its classes"
            )
        if bad := int((~np.isfinite(probs)).any(axis=1).sum()):
            raise ValueError(
                f"{name}.predict_proba returned NaN or infinity for {bad} of {len(probs)} rows; its training diverged: "
                "standardise X, or use another estimator"
            )
        return [position[label] for label in known]


def default_classifier(X: Any = None) -> Any:
    """Extremely randomised trees with at least five rows in a leaf; of sparse matrices logistic regression.

    Leaves of one row learn wrong labels by heart. benchmarks/which.py measures what this finds.
    """
    if sp.issparse(X):
        # centred, sparse rows would be dense
        return make_pipeline(NearOne(), StandardScaler(with_mean=False), LogisticRegression(C=0.1, max_iter=1000))
    return make_pipeline(NearOne(), ExtraTreesClassifier(100, min_samples_leaf=5))


def predict_fold(
    estimator: Any, X: Any, y: np.ndarray, sample_weight: Any, train: np.ndarray, test: np.ndarray, seed: int
) -> tuple[np.ndarray, Any]:
    """(probabilities (len(test), n_known), their classes or None) by a clone trained on the rows `train`."""
    labels = np.unique(y[train])
    if len(labels) == 1 and not GivenModel.of(estimator).frozen:  # the only other class is the one row to predict
        return np.ones((len(test), 1)), labels
    model = train_clone(estimator, *GivenRows(X, y, sample_weight).take(train), random_state=seed)
    return np.asarray(model.predict_proba(part_of(X, test))), getattr(model, "classes_", None)


def margins(pred_probs: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """p(given label) minus the largest other probability, (n,) in [-1, 1]; pred_probs (n, n_classes)."""
    rows = np.arange(len(codes))
    others = pred_probs.copy()
    others[rows, codes] = -np.inf
    return pred_probs[rows, codes] - others.max(axis=1)
