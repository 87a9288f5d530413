"""Data-OOB: how well the members of a bagged model that did not draw a row predict it (Kwon & Zou 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted

from sktda.attribution.base import Attributor, check_rows_fit
from sktda.data import check_weights, encode_target, is_dictionary, note_columns, sliceable
from sktda.model.fitting import train_clone
from sktda.model.given import GivenModel
from sktda.model.huge import check_forest_target, check_squares, naming_huge_cells
from sktda.model.standard import NearOne

N_ESTIMATORS = 200  # of the ensembles that are made here: each row is out of 74 bags
ENCODING = (BaggingClassifier, ExtraTreesClassifier, RandomForestClassifier)  # members learn positions of classes
HEAVY = 4.0  # times the mean weight: a row that is out of 2 % of the bags or less, if weights decide what is drawn


class DataOOB(Attributor):
    """Share of the bagged models without the row that predict its label, in [0, 1]; or minus their squared error.

    value_i = mean of T(y_i, f_b(x_i)) over the members f_b whose bootstrap has not drawn row i. T is 1 for a right
    class and 0 for a wrong one; for numbers it is minus the squared error, in squared target units.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A bagged one, with `estimators_` and `estimators_samples_` once it is fitted: BaggingClassifier,
        BaggingRegressor, random forests, ExtraTrees with bootstrap=True; a Pipeline ending in one; or FrozenEstimator
        of one that was fitted on these rows, in this order. Any other estimator is bagged: a clone per member. None =
        a random forest.
    n_estimators : int or "auto", default="auto"
        Members. "auto" = what the bagged estimator says, and 200 where it is made here. More = less noise; a row is
        predicted by about a third of them.
    task : {"auto", "classification", "regression"}, default="auto"
        "auto": that of the estimator; without one strings, booleans and whole numbers are classes (unless nearly all
        differ), the rest is regression.
    n_jobs : int or None, default=None
        Members trained at a time, where the ensemble is made here. Does not change the result.
    random_state : int, RandomState instance or None, default=None
        Seeds every `random_state` of the estimator that is None. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep. For classes the vote for the given label.
    loo_decision_ : ndarray of shape (n_samples, n_classes) or (n_samples,)
        Votes of the members without the row, in the order of `classes_` and summing to 1, or their mean prediction.
        `NoisyLabelDetector` estimates the share of wrong labels, and suggests others, from it.
    n_out_of_bag_ : ndarray of shape (n_samples,)
        Members that did not draw the row. 0 only for rows of at least four times the mean weight, which ensembles that
        draw rows by weight may leave out of no bag: these are predicted by all members.
    estimator_ : estimator
        The fitted ensemble; for estimator=None behind a transformer that brings columns near 1.
    classes_ : ndarray of shape (n_classes,)
        Only for classification.
    task_ : str
        "classification" or "regression".

    Raises
    ------
    ValueError
        In `fit`, for rows that every member has drawn, naming n_estimators; an ensemble without bootstrap; a frozen one
        that was fitted on another number of rows, or that lacks a class; one of your own whose members do not tell by
        their `classes_` whether they predict labels; NaN or infinity where estimator=None.

    Notes
    -----
    Source: Kwon & Zou 2023 (arXiv:2304.07718), with weak learners of any kind. Weights are passed to the ensemble; in
    scikit-learn's they decide how often a row is drawn. They do not weight the scores.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution.predictions.data_oob import DataOOB
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> y[:3] = [3, 3, 3]  # they are 0, 1, 2
    >>> oob = DataOOB().fit(X, y)
    >>> bool(oob.scores_[:3].max() < 0.2)
    True
    >>> oob.classes_[oob.loo_decision_[:3].argmax(axis=1)].tolist()
    [0, 1, 2]
    """

    _parameter_constraints: dict = {
        "n_estimators": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "task": [StrOptions({"auto", "classification", "regression"})],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(self, estimator=None, *, n_estimators="auto", task="auto", n_jobs=None, random_state=None):
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.task = task
        self.n_jobs = n_jobs
        self.random_state = random_state

    @naming_huge_cells
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        """Fit the ensemble (unless it is frozen) and score the rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, ...)
            As the estimator takes it; for estimator=None numbers of any shape per row, which are flattened.
        y : array-like of shape (n_samples,)
            Class labels of any kind, or numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Passed to the ensemble's `fit`, of a Pipeline to its last step.
        X_val, y_val, metadata_val : ignored
            Part of the contract of all attributors.

        Returns
        -------
        self
        """
        self._validate_params()
        self._forget()
        X, target = self._checked(X, y, sample_weight)
        check_rows_fit(self, X, 12 if self.estimator is None else 0.3 * getattr(X, "itemsize", 0))  # out of a bag
        ensemble = self._ensemble()
        if self.task_ == "regression":
            check_forest_target(GivenModel.of(ensemble).model, target)
        labels = target if self.task_ == "regression" else self.classes_[target]
        self.estimator_ = train_clone(ensemble, X, labels, sample_weight, random_state=self.random_state)
        given = GivenModel.of(self.estimator_)
        heavy = np.zeros(len(target), dtype=bool)
        if sample_weight is not None:
            weights = check_weights(sample_weight, len(target))
            heavy = weights >= HEAVY * weights.mean()
        # members know neither transformers nor frames: they get what the ensemble's own `fit` made of X
        X = check_array(given.transformed(X), accept_sparse="csr", dtype=None, ensure_all_finite=False, allow_nd=True)
        if self.task_ == "classification":
            self.loo_decision_ = self._votes(given.model, X, target, heavy)
            self.scores_ = self.loo_decision_[np.arange(len(target)), target]
        else:
            self.loo_decision_, self.scores_ = self._errors(given.model, X, target, heavy)
        return self

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, np.ndarray]:
        """(X as the ensemble takes it, codes or numbers); sets task_ and classes_."""
        X = X if is_dictionary(X) else sliceable(X)
        task = self._task()
        if self.estimator is None:
            X, self.task_, target, classes = self._validate(X, y, sample_weight, task)
            X = X if sp.issparse(X) else X.reshape(len(X), -1)
        else:
            if y is None:
                raise ValueError("DataOOB requires y to be passed, but the target y is None")
            self.task_, target, classes = encode_target(y, task)
            if is_dictionary(X):
                raise ValueError(
                    f"DataOOB draws rows of one table, and X is a dictionary ({', '.join(map(str, X))}); use an "
                    "attributor that scores rows by the gradients of a net, such as Influence(net) from "
                    "sktda.attribution"
                )
            check_consistent_length(X, target)
            if sample_weight is not None:
                check_weights(sample_weight, len(target))
            note_columns(self, X, self.estimator)  # the estimator checks X itself
        if classes is not None:
            self.classes_ = classes
        else:
            check_squares(target)
        return X, target

    def _task(self) -> str:
        """The task of the estimator, where it has one; ValueError if the parameter `task` says otherwise."""
        if self.estimator is None:
            return self.task
        own = {is_classifier(self.estimator): "classification", is_regressor(self.estimator): "regression"}.get(True)
        if own is None or self.task in ("auto", own):
            return own or self.task
        raise ValueError(
            f"task={self.task!r}, but {type(self.estimator).__name__} is for {own}; leave task='auto', or give another "
            "estimator"
        )

    def _ensemble(self) -> Any:
        """The estimator if it is bagged, else a bagging of it; with n_estimators members where that is given."""
        classes = self.task_ == "classification"
        n = N_ESTIMATORS if self.n_estimators == "auto" else self.n_estimators
        if self.estimator is None:
            kind = RandomForestClassifier if classes else RandomForestRegressor
            # trees compute in float32, in which a column far from 0 may be one number
            return make_pipeline(NearOne(), kind(n, n_jobs=self.n_jobs))
        given = GivenModel.of(self.estimator)
        if given.frozen:
            check_is_fitted(given.model)
        if not is_bagged(given.model):
            if given.frozen:
                raise ValueError(
                    f"{given.name} is not bagged: it has no estimators_samples_, which say what each member "
                    "was trained on; freeze a fitted random forest or BaggingClassifier, or give the estimator "
                    "unfrozen to have it bagged"
                )
            bagging = BaggingClassifier if classes else BaggingRegressor
            if isinstance(self.estimator, Pipeline):  # transformers may need columns by name, or texts
                *before, (name, last) = clone(self.estimator).steps
                return Pipeline([*before, (name, bagging(last, n_estimators=n, n_jobs=self.n_jobs))])
            return bagging(self.estimator, n_estimators=n, n_jobs=self.n_jobs)
        if self.n_estimators == "auto":
            return self.estimator
        if given.frozen:
            raise ValueError(
                f"n_estimators={self.n_estimators} cannot be set on a FrozenEstimator, which is not trained again; "
                "leave n_estimators='auto'"
            )
        copy = clone(self.estimator)
        GivenModel.of(copy).model.set_params(n_estimators=n)
        return copy

    def _left_out(self, bagged: Any, n: int, heavy: np.ndarray) -> np.ndarray:
        """Mask (members, n) of the rows to predict by each: not drawn by it, or heavy and drawn by all members."""
        name = type(bagged).__name__
        # bags are drawn again from seeds for the number of rows in `fit`: of others they would be wrong in silence
        trained = getattr(bagged, "_n_samples", n)
        if trained != n:
            raise ValueError(
                f"this {name} was fitted on {trained} rows and came with {n}; give the rows that it was fitted on, in "
                "the same order, or the estimator without FrozenEstimator"
            )
        left = np.ones((len(bagged.estimators_), n), dtype=bool)
        for out, drawn in zip(left, bagged.estimators_samples_, strict=True):
            out[drawn] = False  # positions or a mask
        self.n_out_of_bag_ = left.sum(axis=0)
        if not left.any():
            raise ValueError(
                f"each member of this {name} was trained on all {n} rows, so none is predicted by members without it; "
                "set bootstrap=True (or max_samples below 1.0 for Bagging)"
            )
        never = self.n_out_of_bag_ == 0
        # more members would hardly help: such a row is out of a bag with probability exp(-weight / mean weight)
        left[:, never & heavy] = True
        if (never & ~heavy).any():
            raise ValueError(
                f"{(never & ~heavy).sum()} of {n} rows, the first is row {(never & ~heavy).argmax()}, were drawn by "
                f"each of the {len(left)} members of this {name}, so nothing is known of them; raise n_estimators, to "
                "50 or more for bootstraps as large as the data"
            )
        return left

    def _predictions(self, bagged: Any, X: Any, n: int, heavy: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (the rows that a member is asked about, its predictions of them)."""
        left = self._left_out(bagged, n, heavy)
        columns = getattr(bagged, "estimators_features_", [None] * len(left))  # Bagging may draw columns, too
        for member, out, chosen in zip(bagged.estimators_, left, columns, strict=True):
            rows = np.flatnonzero(out)
            if len(rows):
                part = X[rows] if chosen is None else X[rows][:, chosen]
                yield rows, np.asarray(member.predict(part))

    def _votes(self, bagged: Any, X: Any, codes: np.ndarray, heavy: np.ndarray) -> np.ndarray:
        """(n, n_classes) shares of the votes."""
        known = np.asarray(bagged.classes_)
        position = {label: k for k, label in enumerate(self.classes_.tolist())}
        unknown = [label for label in position if label not in set(known.tolist())]
        if unknown:
            raise ValueError(
                f"y has labels that this {type(bagged).__name__} was not fitted on, such as {unknown[0]!r}; it knows "
                f"{', '.join(map(repr, known.tolist()[:5]))}"
            )
        # classes of the ensemble that no row of y has are votes for none of its labels
        column = np.array([position.get(label, len(position)) for label in known.tolist()])
        votes = np.zeros((len(codes), len(position) + 1))
        encoded = predicts_positions(bagged)
        for rows, found in self._predictions(bagged, X, len(codes), heavy):
            positions = found.astype(int) if encoded else class_positions(found, known)
            np.add.at(votes, (rows, column[positions]), 1)
        return votes[:, : len(position)] / votes.sum(axis=1, keepdims=True)

    def _errors(self, bagged: Any, X: Any, target: np.ndarray, heavy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(mean predictions, minus mean squared errors), each (n,)."""
        times, total, squares = np.zeros((3, len(target)))
        for rows, found in self._predictions(bagged, X, len(target), heavy):
            times[rows] += 1
            total[rows] += found
            # T by member: the mean of squared errors, not the squared error of the mean prediction
            squares[rows] += (found - target[rows]) ** 2
        return total / times, -squares / times


def is_bagged(model: Any) -> bool:
    """Whether the model, fitted or not, has members and says on which rows each was trained."""
    return hasattr(type(model), "estimators_samples_") or hasattr(model, "estimators_samples_")


def predicts_positions(bagged: Any) -> bool:
    """Whether the members predict positions among the ensemble's classes, as scikit-learn's do, or the classes.

    All members together tell: one alone may have met only classes whose labels are positions of others, such as 1 of
    1 and 2. ValueError where the classes that they met do not tell.
    """
    known = np.asarray(bagged.classes_).tolist()
    if isinstance(bagged, ENCODING) or known == list(range(len(known))):
        return True
    met = {label for each in bagged.estimators_ for label in np.asarray(getattr(each, "classes_", ())).tolist()}
    positions = met <= set(range(len(known)))
    if positions == (met <= set(known)):
        raise ValueError(
            f"the classes_ of the members of this {type(bagged).__name__} do not tell whether these predict labels or "
            f"positions among {', '.join(map(repr, known[:5]))}; fit it on labels 0 to {len(known) - 1}, as "
            "LabelEncoder makes them"
        )
    return positions


def class_positions(found: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Positions among the ensemble's classes of labels that a member predicts. ValueError for others."""
    place = {label: k for k, label in enumerate(known.tolist())}
    labels, each = np.unique(found, return_inverse=True)
    other = [label for label in labels.tolist() if label not in place]
    if other:
        raise ValueError(
            f"a member of the ensemble predicts {other[0]!r}, which is none of its classes_, "
            f"{', '.join(map(repr, known.tolist()[:5]))}; give it all of them"
        )
    return np.array([place[label] for label in labels.tolist()])[each]
