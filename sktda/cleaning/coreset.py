"""A small part of the rows that trains nearly as well as all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing, check_random_state, indexable
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from sktda.cleaning.base import fit_attributor, prepare_attributor, refuse_constant
from sktda.data import encode_target, sliceable
from sktda.noise import label_noise_rate, outlier_rate
from sktda.selection import stratified_rows, top_rows

BEYOND_NOISE, DROP_UNKNOWN = 0.1, 0.3  # share dropped beside the estimated noise, and where there is no estimate


@dataclass(frozen=True)
class Candidates:
    """What a strategy chooses from: the scores and class codes of all rows (code 0 throughout for regression)."""

    scores: np.ndarray
    codes: np.ndarray
    noise_rate: float | None
    """Estimated share of wrong labels or outliers; None where the attributor makes no leave-one-out predictions."""
    random: np.random.RandomState


def _top(rows: Candidates, budget: int) -> np.ndarray:
    return top_rows(rows.scores, budget, rows.codes)


def _stratified(rows: Candidates, budget: int) -> np.ndarray:
    drop = DROP_UNKNOWN if rows.noise_rate is None else rows.noise_rate + BEYOND_NOISE
    return stratified_rows(rows.scores, budget, rows.codes, drop, rows.random)


# name: function of (candidates, number of rows to keep) that returns the sorted positions of the kept rows
STRATEGIES: dict[str, Callable[[Candidates, int], np.ndarray]] = {"top": _top, "stratified": _stratified}


class CoresetSelector(BaseEstimator):
    """Keep a share of the rows to train on, chosen by their scores; every class keeps its share of the rows.

    A sampler: ``fit_resample(X, y)`` returns the kept rows. In a plain Pipeline it goes into
    ``ResampledEstimator(model, CoresetSelector())``; Pipelines of imbalanced-learn take it as a step.

    Parameters
    ----------
    attributor : attributor, default=None
        Scores the rows, higher = keep; `ComplexityGap()` if None.
    n_samples : float in (0, 1] or int, default=0.5
        Rows to keep: a float is a share, an int a count (1.0 is all rows, 1 is one row). At least one per class.
    strategy : {"stratified", "top"}, default="stratified"
        "top" keeps the highest scores. "stratified" drops the worst rows of each class (the estimated share of wrong
        labels or outliers and 10 % more; 30 % where the attributor has no `loo_decision_` to estimate it from; fewer
        where `n_samples` needs them) and draws from 50 strata of equal width in the score, equally many rows from
        each, so that easy and hard rows are covered alike.
    random_state : int, RandomState instance or None, default=None
        Seed of the draw, and of the attributor unless it has its own.

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_kept,)
        Positions of the kept rows, in ascending order.
    sample_weight_ : None
        Weights of the kept rows, which `ResampledEstimator` passes to its estimator; these strategies make none.
    scores_ : ndarray of shape (n_samples,)
        The attributor's, higher = keep.
    classes_ : ndarray of shape (n_classes,)
        Only for classification.
    task_ : str
        "classification" or "regression": the attributor's where it says so, else as inferred from y.
    attributor_ : attributor
        The fitted clone.

    Raises
    ------
    ValueError
        In `fit`, for more rows than there are, fewer than one per class, NaN or infinity, a single class, and scores
        that are all equal (unless all rows are kept).

    Notes
    -----
    The strata are those of coverage-centric selection (arXiv:2210.15809), within each class.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda import CoresetSelector
    >>> X, y = load_digits(return_X_y=True)
    >>> y[::5] = (y[::5] + 3) % 10  # a fifth of the labels is wrong now
    >>> selector = CoresetSelector(n_samples=300, random_state=0)
    >>> X_kept, y_kept = selector.fit_resample(X, y)
    >>> X_kept.shape
    (300, 64)
    >>> bool((selector.sample_indices_ % 5 == 0).mean() < 0.02)
    True
    """

    _parameter_constraints: dict = {
        "n_samples": [Interval(Integral, 1, None, closed="left"), Interval(Real, 0, 1, closed="right")],
        "strategy": [StrOptions(set(STRATEGIES))],
        "random_state": ["random_state"],
    }

    def __init__(self, attributor=None, *, n_samples=0.5, strategy="stratified", random_state=None):
        self.attributor = attributor
        self.n_samples = n_samples
        self.strategy = strategy
        self.random_state = random_state

    def fit(self, X, y):
        """Score the rows and choose which to keep.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, ...), or a dict of them by argument name
            As the attributor takes it.
        y : array-like of shape (n_samples,)
            Class labels of any kind, or numbers.

        Returns
        -------
        self
        """
        self._validate_params()
        if y is None:
            raise ValueError("CoresetSelector requires y to be passed, but the target y is None")
        self.__dict__.pop("classes_", None)  # of an earlier fit, on data of another kind
        X = sliceable(X)
        attributor = prepare_attributor(self.attributor, random_state=self.random_state)
        self.attributor_ = fit_attributor(attributor, X, y, {})
        validate_data(self, X, skip_check_array=True)  # number and names of the features; the attributor checked X
        self.scores_ = self.attributor_.scores_
        self.task_, target, classes = encode_target(y, getattr(self.attributor_, "task_", "auto"))
        codes = np.zeros(len(target), dtype=int) if classes is None else target
        if classes is not None:
            self.classes_ = classes
        budget = self._budget(len(codes), 1 if classes is None else len(classes))
        if budget < len(codes):
            refuse_constant(self.scores_, self.attributor_)
        rows = Candidates(self.scores_, codes, self._noise_rate(target), check_random_state(self.random_state))
        self.sample_indices_ = STRATEGIES[self.strategy](rows, budget)
        self.sample_weight_ = None
        return self

    def _budget(self, n: int, n_classes: int) -> int:
        """Rows to keep of n."""
        budget = self.n_samples if isinstance(self.n_samples, Integral) else round(self.n_samples * n)
        if budget > n:
            raise ValueError(
                f"n_samples={self.n_samples} is more than the {n} rows of X; give a count up to {n}, or a share such "
                "as 0.5"
            )
        if budget < n_classes:
            what = "at least 1 row must stay" if n_classes == 1 else f"each of {n_classes} classes keeps at least 1"
            raise ValueError(f"n_samples={self.n_samples} keeps {budget} of {n} rows, but {what}; keep more rows")
        return int(budget)

    def _noise_rate(self, target: np.ndarray) -> float | None:
        decision = getattr(self.attributor_, "loo_decision_", None)
        if decision is None:
            return None
        if self.task_ == "classification":
            return label_noise_rate(decision, target)
        return outlier_rate(target - decision, target)

    def get_support(self, indices=False):
        """Mask (n_samples,) of the kept rows, or their positions."""
        check_is_fitted(self)
        if indices:
            return self.sample_indices_
        support = np.zeros(len(self.scores_), dtype=bool)
        support[self.sample_indices_] = True
        return support

    def fit_resample(self, X, y):
        """Fit and return (X, y) of the kept rows, in the types they came in."""
        X, y = indexable(sliceable(X), y)
        self.fit(X, y)
        return _safe_indexing(X, self.sample_indices_), _safe_indexing(y, self.sample_indices_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags
