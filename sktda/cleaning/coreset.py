"""A small part of the rows that trains nearly as well as all of them."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _num_samples, check_consistent_length, check_is_fitted

import sktda.cleaning
from sktda.attribution.base import loo_decision_of, takes_missing_values
from sktda.cleaning.base import looks_rows_up, prepare_attributor, reads_tables, refuse_constant
from sktda.cleaning.scoring import Given, Scores
from sktda.cleaning.strategies.base import Candidates, CoresetStrategy
from sktda.cleaning.strategies.scores import RandomRows
from sktda.containers import as_columns, needs_encoding
from sktda.data import check_weights, encode_target, note_columns, plain_target, read_features, sliceable
from sktda.model.huge import naming_huge_cells
from sktda.noise import label_noise_rate, outliers
from sktda.seeds import random_of

STRATEGIES = {
    "stratified": "Stratified",
    "top": "Top",
    "hardest": "Hardest",
    "random": "RandomRows",
    "ccs": "CCS",
    "moderate": "Moderate",
    "k-center": "KCenter",
    "herding": "Herding",
    "craig": "CRAIG",
    "grad-match": "GradMatch",
    "glister": "GLISTER",
    "d2": "D2",
}
"""Classes of `sktda.cleaning` by short names, as they come. Most need torch, and are imported when asked for."""
BEYOND_NOISE, DROP_UNKNOWN = 0.1, 0.3  # share dropped beside the estimated noise, and where there is no estimate


def named_strategy(name: str) -> CoresetStrategy:
    """The strategy of a short name, as it comes."""
    return getattr(sktda.cleaning, STRATEGIES[name])()


class CoresetSelector(BaseEstimator):
    """Keep a share of the rows to train on, chosen by a strategy; every class keeps its share.

    A sampler: ``fit_resample(X, y)`` returns the kept rows. In a plain Pipeline it goes into
    ``ResampledEstimator(model, CoresetSelector())``, which also passes on the weights of a weighted strategy;
    Pipelines of imbalanced-learn take it as a step.

    Parameters
    ----------
    attributor : attributor, default=None
        Scores the rows, higher = keep; `LabelPosterior()` if None. Fitted for strategies by scores only.
    n_samples : float in (0, 1] or int, default=0.5
        Rows to keep: a float is a share, an int a count (1.0 is all rows, 1 is one row). At least one per class.
    strategy : str or CoresetStrategy, default="stratified"
        An object of `sktda.cleaning`, or its name, which is the object as it comes.

        By scores: `Stratified` ("stratified") drops the worst rows of each class and covers easy and hard ones alike;
        `CCS` ("ccs") does so with all classes together, as published; `Top` ("top") keeps the highest scores, and
        `Hardest` ("hardest") the lowest, for labels that are right.

        By features: `KCenter` ("k-center") takes the row farthest from those taken, again and again; `Herding`
        ("herding") keeps the mean of the class; `Moderate` ("moderate") takes the rows at a middle distance from its
        median; `D2` ("d2") drops the worst rows and takes of the rest the hard ones, few from one place.

        By gradients: `CRAIG` ("craig") and `GradMatch` ("grad-match") choose rows and weights that stand for the
        gradients of all; `GLISTER` ("glister") takes the rows whose training step lowers the validation loss most.
        Wrong labels have the longest gradients, so the first two seek them out, and the third does without validation
        rows.

        `RandomRows` ("random") draws rows, which the others have to beat; it looks at no value of X.

        Strategies by features and by gradients have the parameters `estimator` and `device`, and `GLISTER` has
        `validation`; a search reaches them as ``strategy__estimator``.
    random_state : int, RandomState instance or None, default=None
        Seed of the draw, of the training, and of the attributor unless it has its own. None is 0, so that a fit can be
        repeated.

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_kept,)
        Positions of the kept rows, in ascending order.
    sample_weight_ : ndarray of shape (n_kept,) or None
        Weights of the kept rows, of mean 1, which `ResampledEstimator` passes to its estimator. Only `CRAIG` (how many
        rows a kept one stands for) and `GradMatch` make any, and neither does where all rows are kept.
    scores_ : ndarray of shape (n_samples,)
        The attributor's, higher = keep. Only where the strategy uses scores.
    attributor_ : attributor
        The fitted clone. Only where the strategy uses scores.
    strategy_ : CoresetStrategy
        The clone that chose; the model that it trained is ``strategy_.estimator_``.
    classes_ : ndarray of shape (n_classes,)
        Only for classification.
    task_ : str
        "classification" or "regression": the attributor's where it says so, else that of the strategy's estimator,
        else as inferred from y. The rows of a regression are one class.

    Raises
    ------
    ValueError
        In `fit`, for more rows than there are, fewer than one per class, NaN or infinity, a single class, scores that
        are all equal (unless all rows are kept), and a strategy that does not return as many different rows as it was
        asked for.
    TypeError
        In `fit`, for an estimator that cannot be differentiated or has no last linear layer, where the strategy needs
        one.

    Notes
    -----
    Memory is that of the features of the largest class (of all rows, where a model makes them), as dense floats.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda import CoresetSelector
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:500], y[:500]
    >>> y[::5] = (y[::5] + 3) % 10  # a fifth of the labels is wrong now
    >>> selector = CoresetSelector(n_samples=100, random_state=0)
    >>> X_kept, y_kept = selector.fit_resample(X, y)
    >>> X_kept.shape
    (100, 64)
    >>> bool((selector.sample_indices_ % 5 == 0).mean() < 0.02)
    True
    """

    _parameter_constraints: dict = {
        "n_samples": [Interval(Integral, 1, None, closed="left"), Interval(Real, 0, 1, closed="right")],
        "strategy": [StrOptions(set(STRATEGIES)), CoresetStrategy],
        "random_state": ["random_state"],
    }

    def __init__(self, attributor=None, *, n_samples=0.5, strategy="stratified", random_state=None):
        self.attributor = attributor
        self.n_samples = n_samples
        self.strategy = strategy
        self.random_state = random_state

    @naming_huge_cells
    def fit(self, X, y):
        """Choose the rows to keep, after scoring them or training a model where the strategy needs that.

        Parameters
        ----------
        X : array-like, sparse matrix or table of shape (n_samples, ...), or a dict of arrays by argument name
            As the attributor and the estimator take it. A table with text, dates or missing cells is encoded by
            `TableEncoder` where no model reads it.
        y : array-like of shape (n_samples,)
            Class labels of any kind, or numbers.

        Returns
        -------
        self
        """
        self._validate_params()
        if y is None:
            raise ValueError("CoresetSelector requires y to be passed, but the target y is None")
        for name in ("classes_", "scores_", "attributor_"):  # of an earlier fit, of another kind
            self.__dict__.pop(name, None)
        X, y = sliceable(X), plain_target(y)
        check_consistent_length(X, y)
        self.strategy_ = strategy = self._strategy()
        strategy._validate_params()
        table, (X, encoder) = X, self._numbers(X, strategy)
        if strategy.uses_scores:
            self._score(X, y, strategy.estimator)
        numbers = read_features(self, X) if strategy.reads_numbers else None
        note_columns(self, as_columns(table), strategy.estimator)
        target, codes = self._encoded(y, strategy.estimator)
        budget = self._budget(len(codes), codes.max() + 1)
        self._n_rows, self.sample_weight_ = len(codes), None
        if budget == len(codes):
            self.sample_indices_ = np.arange(budget)
            return self
        candidates = Candidates(
            X, y, self.task_, codes, random_of(self.random_state), self.random_state, numbers=numbers, encoder=encoder
        )
        if strategy.uses_scores:
            refuse_constant(self.scores_, self.attributor_)
            candidates = replace(candidates, scores=self.scores_, drop=self._drop(target))
        rows, weights = checked_choice(strategy, *strategy.choose(candidates, budget), budget, len(codes))
        order = np.argsort(rows)
        self.sample_indices_ = rows[order]
        if weights is not None:
            self.sample_weight_ = weights[order] / weights.mean()
        return self

    def _strategy(self):
        """A new one, or a clone of the one that was given."""
        return named_strategy(self.strategy) if isinstance(self.strategy, str) else clone(self.strategy)

    def _score(self, X, y, estimator):
        """Set scores_ and attributor_, as every cleaner scores its rows."""
        n = _num_samples(X)
        scores = Scores(self.attributor, Given.of(X, y), estimator, self.random_state)
        scores.score(np.ones(n, dtype=bool))
        self.scores_, self.attributor_ = scores.values, scores.attributor

    def _numbers(self, X, strategy):
        """(X, None), or (a table that is not all numbers as an encoder makes it, that) where no model reads it."""
        looked_at = strategy.uses_scores or strategy.reads_numbers
        if not looked_at or strategy.estimator is not None or not needs_encoding(X):
            return X, None
        by_index = not strategy.reads_numbers and looks_rows_up(self.attributor)
        if self.attributor and (by_index or reads_tables(self.attributor)):
            return X, None
        from sktda.tables.encoder import TableEncoder

        encoder = TableEncoder()
        return encoder.fit_transform(X), encoder

    def _encoded(self, y, estimator):
        """(codes or values, class codes) of the target; sets task_ and classes_."""
        task = "auto"
        if estimator is not None:
            kinds = {"regression": is_regressor, "classification": is_classifier}
            task = next((name for name, is_kind in kinds.items() if is_kind(estimator)), "auto")
        task = getattr(getattr(self, "attributor_", None), "task_", task)
        self.task_, target, classes = encode_target(y, task)
        if classes is None:
            return target, np.zeros(len(target), dtype=int)
        self.classes_ = classes
        return target, target

    def _budget(self, n: int, n_classes: int) -> int:
        """Rows to keep of n."""
        whole = isinstance(self.n_samples, Integral)
        budget = int(self.n_samples) if whole else round(self.n_samples * n)
        if budget > n:
            raise ValueError(
                f"n_samples={self.n_samples} is more than the {n} rows of X; give a count up to {n}, or a share such "
                "as 0.5"
            )
        if budget < n_classes:
            what = "at least 1 row must stay" if n_classes == 1 else f"each of {n_classes} classes keeps at least 1"
            raise ValueError(f"n_samples={self.n_samples} keeps {budget} of {n} rows, but {what}; keep more rows")
        return int(budget)

    def _drop(self, target: np.ndarray) -> float:
        """Share of the rows that strategies which cover the scores leave out."""
        decision = loo_decision_of(self.attributor_)
        if decision is None:
            return DROP_UNKNOWN
        if self.task_ == "classification":
            return label_noise_rate(decision, target) + BEYOND_NOISE
        return outliers(self.attributor_, target).rate + BEYOND_NOISE

    def get_support(self, indices=False):
        """Mask (n_samples,) of the kept rows, or their positions."""
        check_is_fitted(self)
        if indices:
            return self.sample_indices_
        support = np.zeros(self._n_rows, dtype=bool)
        support[self.sample_indices_] = True
        return support

    def fit_resample(self, X, y):
        """Fit and return (X, y) of the kept rows, in the types they came in."""
        X, y = indexable(sliceable(X), y)
        self.fit(X, y)
        return _safe_indexing(X, self.sample_indices_), _safe_indexing(y, self.sample_indices_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        strategy = self._strategy()
        tags.no_validation = isinstance(strategy, RandomRows)  # X is never looked into
        chooser = prepare_attributor(self.attributor, strategy.estimator) if strategy.uses_scores else None
        others = [each for each in (chooser, strategy.estimator) if each is not None]
        tags.input_tags.allow_nan = not strategy.reads_numbers and all(map(takes_missing_values, others))
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags


def checked_choice(strategy: CoresetStrategy, rows: Any, weights: Any, budget: int, n: int) -> tuple[Any, Any]:
    """What a strategy chose, as arrays; ValueError unless it is `budget` of n positions, and a weight for each."""
    kind, rows = type(strategy).__name__, np.asarray(rows)
    whole = rows.shape == (budget,) and rows.dtype.kind in "iu"
    if not whole or len(np.unique(rows)) < budget or rows.min() < 0 or rows.max() >= n:
        raise ValueError(
            f"{kind}.choose returned {len(np.unique(rows))} different values of {rows.dtype}, shape {rows.shape}; "
            f"{budget} different positions from 0 to {n - 1} are due"
        )
    if weights is not None:
        weights = check_weights(weights, budget)
    return rows, weights
