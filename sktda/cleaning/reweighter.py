"""Keep all rows and let them count by their scores: a meta-estimator for plain Pipelines."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real

import numpy as np
from scipy.special import expit
from sklearn.base import clone
from sklearn.callback import with_callbacks
from sklearn.utils._metadata_requests import UNUSED
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sktda.cleaning.base import (
    check_estimator,
    prepare_attributor,
    refuse_constant,
    task,
)
from sktda.cleaning.frame import frame_of
from sktda.cleaning.judge import detect
from sktda.cleaning.refit import RefitEstimator
from sktda.cleaning.routing import fit_and_score, weight_name, with_weights
from sktda.cleaning.scoring import Scores, given, labels_as_given
from sktda.cleaning.validation import VALIDATION
from sktda.data import row_index
from sktda.model.huge import naming_huge_cells
from sktda.weighting import (
    learned_weights,
    probability_shift,
    rank_weights,
    sigmoid_weights,
    surplus_weights,
    tail_weights,
    weigh,
)

PROBABILITY = "probability"
WEIGHTINGS = {"rank": rank_weights, "sigmoid": sigmoid_weights, "learned": learned_weights}


class InfluenceReweighter(RefitEstimator):
    """Score the training rows and fit with weights that grow with the scores. No row is dropped, ever.

    Parameters
    ----------
    estimator : estimator
        Its `fit` takes sample_weight (of a Pipeline: that of the last step); a clone, the given one stays unfitted.
    attributor : attributor, default=None
        Scores the rows, higher = keep. None = `LabelPosterior()`; with weighting="learned", which needs the unit of a
        loss, ``InnerProduct(objective="validation")``.
    weighting : {"probability", "rank", "sigmoid", "learned"} or callable, default="probability"
        "probability": twice the probability that the label is right, less 1, at least 0.001, so that clean data are
        hardly touched. Of classes `LabelPosterior` scores the log odds of it, which are shifted until the mean is
        1 - `noise_rate_`; of numbers it has the probability. By other scores weights rise with the rank and are full
        from twice that share on. "rank": in proportion to
        the share of rows that score lower. "sigmoid": 1 / (1 + exp(-z)), z the robust deviations above
        the median. "learned": one step down the gradient of the objective on validation rows from equal weights,
        ``max(0, 1 + score / mean |score|)``: for attributors whose score is a predicted rise of a loss. A callable
        takes scores (n,) and returns weights (n,) of at least 0.
    floor : float in [0, 1), default=0.0
        Least weight, as a share of the largest: weights become floor * largest + (1 - floor) * weight.
    stratify : bool, default=False
        Weigh the rows of each class by themselves, so that every class counts what it did. Not for "learned".
    validation : None, int, float, splitter or Holdout, default=None
        Validation rows for attributors that use them, as of `InfluencePruner`. Rows that a float holds out have no
        score and weight 1.
    memory : None, str or joblib.Memory, default=None
        Where scores are kept: a search over `weighting` and `floor` then scores each fold once.
    n_jobs : int, default=None
        Cross-fits at a time.
    random_state : int, RandomState instance or None, default=None
        Seed of the attributor (unless it has its own) and of `validation` as a float. None is 0, so that a fit can be
        repeated.

    Attributes
    ----------
    sample_weight_ : ndarray of shape (n_samples,)
        The weights, mean 1 (within each class if `stratify`), before they multiply a `sample_weight` given to `fit`.
    scores_ : ndarray of shape (n_samples,)
        Higher = keep.
    noise_rate_ : float
        Estimated share of wrong labels, with weighting="probability"; 0 where the features do not predict the labels,
        or cannot be read as numbers: all rows then count alike.
    estimator_, attributor_ :
        The fitted clones.
    support_, n_pruned_, objective_values_ :
        As of an `InfluencePruner` that removes no row.
    n_features_in_, feature_names_in_, classes_ :
        Of `estimator_`.

    Raises
    ------
    ValueError
        In `fit`, for an estimator that takes no sample_weight, scores that are all equal, weights that are not finite,
        negative or all 0, X_val without y_val, and validation rows given twice.

    Notes
    -----
    A weight of 0 is not quite a removed row: an estimator that counts rows (nearest neighbours, `min_samples_leaf`)
    still sees it. `InfluencePruner` removes.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn.model_selection import train_test_split
    >>> from sktda import InfluenceReweighter
    >>> X, X_test, y, y_test = train_test_split(*load_digits(return_X_y=True), train_size=500, random_state=0)
    >>> y[::4] = (y[::4] + 3) % 10
    >>> model = InfluenceReweighter(RidgeClassifier()).fit(X, y)
    >>> model.score(X_test, y_test) > RidgeClassifier().fit(X, y).score(X_test, y_test)
    True
    >>> bool(model.sample_weight_[::4].mean() < 0.3)
    True
    """

    _parameter_constraints: dict = {
        "weighting": [StrOptions({PROBABILITY, *WEIGHTINGS}), callable],
        "floor": [Interval(Real, 0, 1, closed="left")],
        "stratify": ["boolean"],
        "validation": VALIDATION,
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    __metadata_request__fit = {"sample_weight": UNUSED}  # the estimator's and the attributor's to request

    def __init__(
        self,
        estimator,
        attributor=None,
        *,
        weighting=PROBABILITY,
        floor=0.0,
        stratify=False,
        validation=None,
        memory=None,
        n_jobs=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.attributor = attributor
        self.weighting = weighting
        self.floor = floor
        self.stratify = stratify
        self.validation = validation
        self.memory = memory
        self.n_jobs = n_jobs
        self.random_state = random_state

    @with_callbacks
    @naming_huge_cells
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sensitive_features=None, **params):
        """Score the rows and fit with weights.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), or a dict of arrays by argument name
        y : array-like of shape (n_samples,)
        sample_weight, X_val, y_val, sensitive_features, **params
            As of `InfluencePruner.fit`. A sample_weight of the estimator is multiplied by the weights found here.

        Returns
        -------
        self
        """
        self._validate_params()
        params = with_weights(params, sample_weight)
        check_estimator(self.estimator)
        name = weight_name(self.estimator, self)  # before the scoring
        attributor = self._given_attributor()
        data = given(self, attributor, X, y, X_val, y_val, sensitive_features, params)
        X, y, scored = data.X, data.y, ~data.held_out
        context = self._init_callback_context(max_subtasks=2)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        scores = Scores(attributor, data, self.estimator, self.random_state, memory=self.memory, n_jobs=self.n_jobs)
        with task(self, context, "score", X, y):
            scores.score(scored)
        self.scores_, self.attributor_ = scores.values, scores.attributor
        self.objective_values_ = scores.objective_values
        refuse_constant(self.scores_[scored], self.attributor_)
        self.sample_weight_ = np.ones(len(self.scores_))
        self.sample_weight_[scored] = self._weights(data, scored)
        self.support_, self.n_pruned_ = np.ones(len(self.scores_), dtype=bool), 0
        estimator = clone(self.estimator)
        with task(self, context, "refit", X, y, estimator):
            own = data.fit_params.get(name)
            weights = self.sample_weight_ if own is None else self.sample_weight_ * np.asarray(own, dtype=float)
            estimator.fit(X, y, **{**data.fit_params, name: weights})
        self.estimator_ = estimator
        self._held_out, self._given, self._index = data.held_out, labels_as_given(y), row_index(X, y)
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _given_attributor(self):
        """What scores the rows; None = the default."""
        if self.attributor is None and self.weighting == "learned":
            from sktda.attribution.gradients.inner_product import InnerProduct

            return InnerProduct(objective="validation")
        return self.attributor

    def _weights(self, data, scored):
        """Weights of the rows of the mask, of mean 1."""
        by_class = self.stratify and self.weighting != "learned" and data.codes is not None
        codes = data.codes[scored] if by_class else None
        return weigh(self.scores_[scored], self._weighting(data, scored), self.floor, codes)

    def _weighting(self, data, scored):
        """Function from scores to weights; sets noise_rate_."""
        self.__dict__.pop("noise_rate_", None)  # of an earlier fit
        if self.weighting != PROBABILITY:
            return WEIGHTINGS.get(self.weighting) if isinstance(self.weighting, str) else self.weighting
        detector = detect(self.estimator, data.X, data.y if data.codes is None else data.codes, self.attributor_)
        self.noise_rate_ = 0.0 if detector is None else detector.noise_rate_
        wrong = getattr(self.attributor_, "wrong_probability_", None)  # of a number, by RobustResidual
        if wrong is not None and len(wrong) == scored.sum():
            return lambda scores: surplus_weights(1 - wrong)
        if not hasattr(self.attributor_, "posterior_"):
            return partial(tail_weights, rate=self.noise_rate_)
        shift = probability_shift(self.scores_[scored], self.noise_rate_)
        return lambda scores: surplus_weights(expit(scores + shift))

    def get_support(self, indices=False):
        """Mask (n_samples,) of the rows that count, or their positions: all of them."""
        check_is_fitted(self)
        return np.flatnonzero(self.support_) if indices else self.support_

    def to_frame(self):
        """DataFrame of all rows with the user's index, worst first.

        Columns: given_label, score, weight, held_out where `validation` is a float.
        """
        check_is_fitted(self)
        columns = {"given_label": self._given, "score": self.scores_, "weight": self.sample_weight_}
        if self._held_out.any():
            columns["held_out"] = self._held_out
        return frame_of(columns, self._index, np.argsort(self.scores_, kind="stable"))

    @property
    def _chooser(self):
        return prepare_attributor(self.attributor, self.estimator)

    def get_metadata_routing(self):
        """Where metadata goes: `fit` to the fit of estimator and attributor, `score` to the estimator's score."""
        return fit_and_score(self, self._given_attributor())
