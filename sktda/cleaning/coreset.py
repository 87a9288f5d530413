"""A small part of the rows that trains nearly as well as all of them."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.utils import _safe_indexing, check_random_state, indexable
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _num_samples, check_consistent_length, check_is_fitted

from sktda.attribution.base import loo_decision_of
from sktda.cleaning.base import Holdout, fit_attributor, prepare_attributor, reads_tables, refuse_constant
from sktda.cleaning.validation import warn_if_unlike
from sktda.containers import as_columns, needs_encoding
from sktda.data import UnitRows, encode_target, note_columns, plain_target, read_features, resolve_device, sliceable
from sktda.engine.coresets import STRATEGIES, Candidates
from sktda.engine.last_layer import last_layer
from sktda.model.adapters import can_differentiate, differentiable
from sktda.model.fitting import check_trainable, train_clone
from sktda.model.proxy import default_net
from sktda.noise import label_noise_rate, outliers

BEYOND_NOISE, DROP_UNKNOWN = 0.1, 0.3  # share dropped beside the estimated noise, and where there is no estimate


class CoresetSelector(BaseEstimator):
    """Keep a share of the rows to train on, chosen by one of eleven strategies; every class keeps its share.

    A sampler: ``fit_resample(X, y)`` returns the kept rows. In a plain Pipeline it goes into
    ``ResampledEstimator(model, CoresetSelector())``, which also passes on the weights of a weighted strategy;
    Pipelines of imbalanced-learn take it as a step.

    Parameters
    ----------
    attributor : attributor, default=None
        Scores the rows, higher = keep; `LabelPosterior()` if None. Fitted for "stratified", "top", "ccs" and "d2" only.
    n_samples : float in (0, 1] or int, default=0.5
        Rows to keep: a float is a share, an int a count (1.0 is all rows, 1 is one row). At least one per class.
    strategy : str, default="stratified"
        By scores: "stratified" drops the worst rows of each class (the estimated share of wrong labels or outliers and
        10 % more; 30 % where the attributor has no `loo_decision_` to estimate it from; fewer where `n_samples` needs
        them) and draws from 50 strata of equal width in the score, equally many rows from each, so that easy and hard
        rows are covered alike. "ccs" does so with the worst rows, and the strata, of all classes together, as
        published: a hard class is cut deeper. "top" keeps the highest scores.

        By features: "k-center" takes the row farthest from those taken, again and again (outliers and wrong labels come
        early: for clean data); "herding" keeps the mean of the class; "moderate" takes the rows at a middle
        distance from the median of the class; "d2" drops the worst rows as "stratified" does, and takes of the rest
        the hard ones among many neighbours, few from one place.

        By gradients: "craig" and "grad-match" choose rows and weights that stand for the gradients of all; "glister"
        takes the rows whose training step lowers the validation loss most. Wrong labels have the longest gradients, so
        the first two seek them out, and "glister" does without a `validation` set.

        "random" draws rows, which the others have to beat; it looks at no value of X.
    estimator : estimator, default=None
        Model that represents the rows: the inputs of its last linear layer are the features, and its errors
        (p - onehot) times features the gradients. A skorch net or one of the scikit-learn models that Influence takes,
        trained on all rows, or as it is in a `FrozenEstimator`. None: the features are the rows of X, scaled
        as in `ComplexityGap`, and the gradients those of the library's default net, trained on all rows. The attributor
        gets it where its own `estimator` is None, as in the other cleaners.
    validation : Holdout, default=None
        Validation rows of "glister"; None = the rows themselves. Other strategies do not use any.
    device : str or torch.device, default="auto"
        Where features and gradients are computed and compared. "auto" is CUDA where there is one.
    random_state : int, RandomState instance or None, default=None
        Seed of the draw, of the training, and of the attributor unless it has its own.

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_kept,)
        Positions of the kept rows, in ascending order.
    sample_weight_ : ndarray of shape (n_kept,) or None
        Weights of the kept rows, of mean 1, which `ResampledEstimator` passes to its estimator. Only "craig" (how many
        rows a kept one stands for) and "grad-match" make any, and neither does where all rows are kept.
    scores_ : ndarray of shape (n_samples,)
        The attributor's, higher = keep. Only where the strategy uses scores.
    attributor_ : attributor
        The fitted clone. Only where the strategy uses scores.
    estimator_ : estimator
        The trained clone of `estimator`, or the default net. Only where the strategy uses it.
    classes_ : ndarray of shape (n_classes,)
        Only for classification.
    task_ : str
        "classification" or "regression": the attributor's where it says so, else the estimator's, else as inferred
        from y. The rows of a regression are one class.

    Raises
    ------
    ValueError
        In `fit`, for more rows than there are, fewer than one per class, NaN or infinity, a single class, and scores
        that are all equal (unless all rows are kept).
    TypeError
        In `fit`, for an estimator that cannot be differentiated or has no last linear layer, where the strategy needs
        one.

    Notes
    -----
    Sources: coverage-centric selection (arXiv:2210.15809), here also within each class; k-center (arXiv:1708.00489);
    herding (arXiv:1611.07725); moderate coresets (Xia et al., ICLR 2023); CRAIG (arXiv:1906.01827); Grad-Match
    (arXiv:2103.00123); GLISTER (arXiv:2012.10630); D2 pruning (arXiv:2310.07931). D2's difficulty is the rank of
    the score, low = difficult, among the rows that are not dropped as suspicious: wrong labels are what is most
    difficult, and would all be kept. "craig" and "grad-match" look at random parts of at most 4,096 and 2,048 rows of a
    class, each with its share of the budget, so that their cost grows with the rows and not with their square.

    Memory is that of the features of the largest class (of all rows, where a model makes them), as dense floats.

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
        "validation": [Holdout, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        attributor=None,
        *,
        n_samples=0.5,
        strategy="stratified",
        estimator=None,
        validation=None,
        device="auto",
        random_state=None,
    ):
        self.attributor = attributor
        self.n_samples = n_samples
        self.strategy = strategy
        self.estimator = estimator
        self.validation = validation
        self.device = device
        self.random_state = random_state

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
        for name in ("classes_", "scores_", "attributor_", "estimator_"):  # of an earlier fit, of another kind
            self.__dict__.pop(name, None)
        X, y = sliceable(X), plain_target(y)
        strategy = STRATEGIES[self.strategy]
        table, X = X, self._numbers(X) if strategy.scores or strategy.features or strategy.gradients else X
        if strategy.scores:
            attributor = prepare_attributor(self.attributor, self.estimator, self.random_state)
            self.attributor_ = fit_attributor(attributor, X, y, {})
            self.scores_ = self.attributor_.scores_
        numbers = None
        if self.estimator is None and (strategy.features or strategy.gradients):
            numbers = read_features(self, X)
        note_columns(self, as_columns(table), self.estimator)
        check_consistent_length(X, y)
        target, codes = self._encoded(y)
        budget = self._budget(len(codes), codes.max() + 1)
        self._n_rows, self.sample_weight_ = len(codes), None
        if budget == len(codes):
            self.sample_indices_ = np.arange(budget)
            return self
        own = validation = None
        if strategy.gradients or (strategy.features and self.estimator is not None):
            own, validation = self._at_last_layer(X, y)
        candidates = Candidates(
            codes,
            check_random_state(self.random_state),
            scores=getattr(self, "scores_", None),
            drop=self._drop(target) if strategy.scores else 0.0,
            features=self._features(numbers, own) if strategy.features else None,
            last=own,
            validation=validation,
        )
        if strategy.scores:
            refuse_constant(self.scores_, self.attributor_)
        rows, weights = strategy.choose(candidates, budget)
        order = np.argsort(rows)
        self.sample_indices_ = rows[order]
        if weights is not None:
            self.sample_weight_ = weights[order] / weights.mean()
        return self

    def _numbers(self, X):
        """X, or a table that is not all numbers as `TableEncoder` makes it, where no model reads it."""
        if self.estimator is not None or not needs_encoding(X) or (self.attributor and reads_tables(self.attributor)):
            return X
        from sktda.tables.encoder import TableEncoder

        return TableEncoder().fit_transform(X)

    def _encoded(self, y):
        """(codes or values, class codes) of the target; sets task_ and classes_."""
        task = "auto"
        if self.estimator is not None:
            kinds = {"regression": is_regressor, "classification": is_classifier}
            task = next((name for name, is_kind in kinds.items() if is_kind(self.estimator)), "auto")
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

    def _features(self, numbers, own):
        """Function from positions to features: at the model's last layer, else the scaled rows of X."""
        if own is not None:
            return lambda rows: own.features[torch.from_numpy(rows).to(own.features.device)]
        return partial(UnitRows(numbers).block, dtype=torch.float32, device=resolve_device(self.device))

    def _at_last_layer(self, X, y):
        """(all rows, validation rows or None) at the last layer of the model, which is trained unless it is frozen."""
        estimator = default_net(self.task_) if self.estimator is None else self.estimator
        if not can_differentiate(estimator):
            differentiable(estimator)  # raises and says why
        n = _num_samples(X)
        if isinstance(estimator, FrozenEstimator):
            self.estimator_ = estimator
        else:
            check_trainable(estimator, n)
            self.estimator_ = train_clone(estimator, X, y, random_state=self.random_state)
        model = differentiable(self.estimator_, n).to(resolve_device(self.device))
        own = last_layer(model, model.rows(X, y))
        if self.validation is None or not STRATEGIES[self.strategy].gradients:
            return own, None
        warn_if_unlike(X, self.validation.X)
        held = model.rows(self.validation.X, self.validation.y)
        return own, last_layer(model, held.unweighted())  # they count alike, whatever the weights of classes

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
        tags.no_validation = self.strategy == "random"  # X is never looked into
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags
