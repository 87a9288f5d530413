"""Any row sampler inside a plain scikit-learn Pipeline."""

from __future__ import annotations

import numpy as np
from sklearn.base import clone
from sklearn.callback import with_callbacks
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils._metadata_requests import UNUSED
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, _routing_enabled, process_routing
from sklearn.utils.validation import _check_method_params, _num_samples

from sktda.cleaning.base import check_estimator, prepare_attributor, scoring_features
from sktda.cleaning.refit import RefitEstimator
from sktda.cleaning.routing import named_weights, refuse_unweighted, weight_name, with_weights
from sktda.data import check_weights, plain_target, sliceable
from sktda.model.huge import naming_huge_cells


class ResampledEstimator(RefitEstimator):
    """Fit an estimator on the rows that a sampler returns; predict on all rows that come.

    A plain Pipeline does not let a step change the number of rows. This meta-estimator does, as its last step:
    ``make_pipeline(StandardScaler(), ResampledEstimator(LogisticRegression(), NoisyLabelDetector()))``.

    Parameters
    ----------
    estimator : estimator
        Fitted on the sampled rows; a clone, the given one stays unfitted.
    sampler : object with `fit_resample`, default=None
        `NoisyLabelDetector()` if None. Samplers of imbalanced-learn work. Per-row metadata follows the rows if the
        sampler has `sample_indices_`; its `sample_weight_`, one per sampled row, is passed to the estimator.

    Attributes
    ----------
    estimator_ : estimator
        The fitted clone.
    sampler_ : sampler
        The fitted sampler.
    n_features_in_, feature_names_in_, classes_ :
        Of `estimator_`.

    Raises
    ------
    ValueError
        In `fit`, for per-row metadata and a sampler without `sample_indices_`, for sampler weights that the
        estimator cannot take, and if no row is left.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktda import ResampledEstimator
    >>> X, y = load_iris(return_X_y=True)
    >>> y[:5] = 2  # wrong: they are class 0
    >>> model = ResampledEstimator(LogisticRegression(max_iter=500)).fit(X, y)
    >>> len(model.predict(X))
    150
    """

    __metadata_request__fit = {"sample_weight": UNUSED}  # the estimator's to request

    def __init__(self, estimator, sampler=None):
        self.estimator = estimator
        self.sampler = sampler

    @with_callbacks
    @naming_huge_cells
    def fit(self, X, y, sample_weight=None, **params):
        """Sample the rows, then fit the estimator on them.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            For the estimator.
        **params : dict
            Passed to the estimator's `fit` (routed where metadata routing is on); arrays with one entry per row
            are cut with the rows.

        Returns
        -------
        self
        """
        check_estimator(self.estimator)
        X, y = indexable(sliceable(X, self.estimator), plain_target(y))
        context = self._init_callback_context(max_subtasks=2)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        params = with_weights(params, sample_weight)
        if sample_weight is not None:
            check_weights(sample_weight, _num_samples(X))
            refuse_unweighted(self.estimator)
        if _routing_enabled():
            params = process_routing(self, "fit", **params).estimator.fit
        else:
            params = named_weights(self.estimator, params)
        sampler = self._default_sampler() if self.sampler is None else clone(self.sampler)
        step = context.subcontext(task_name="resample")
        step.call_on_fit_task_begin(estimator=self, X=X, y=y)
        X_kept, y_kept = self._resample(sampler, X, y)
        step.call_on_fit_task_end(estimator=self, X=X, y=y)
        if _num_samples(X_kept) == 0:
            raise ValueError(f"{type(sampler).__name__} kept none of the {_num_samples(X)} rows")
        params = self._resampled_params(sampler, X, X_kept, params)
        estimator = clone(self.estimator)
        step = context.subcontext(task_name="refit")
        with step.propagate_callback_context(estimator):
            step.call_on_fit_task_begin(estimator=self, X=X_kept, y=y_kept)
            estimator.fit(X_kept, y_kept, **params)
            step.call_on_fit_task_end(estimator=self, X=X_kept, y=y_kept)
        self.estimator_, self.sampler_ = estimator, sampler
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _resample(self, sampler, X, y):
        """(X, y) of the sampled rows. A sampler whose attributor reads numbers sees X as the estimator's model does."""
        params = sampler.get_params() if hasattr(sampler, "get_params") else {}
        if "attributor" not in params or params.get("strategy__estimator") is not None:
            return sampler.fit_resample(X, y)
        features, _ = scoring_features(prepare_attributor(params["attributor"]), self.estimator, X, y)
        if features is X:
            return sampler.fit_resample(X, y)
        sampler.fit_resample(features, y)
        return _safe_indexing(X, sampler.sample_indices_), _safe_indexing(y, sampler.sample_indices_)

    def _default_sampler(self):
        from sktda.cleaning.detector import NoisyLabelDetector

        return NoisyLabelDetector(prepare_attributor(None, self.estimator))

    def _resampled_params(self, sampler, X, X_kept, params):
        """Metadata of the sampled rows, times the sampler's own weights."""
        n = _num_samples(X)
        per_row = [name for name, value in params.items() if rows_in(value) == n]
        indices = getattr(sampler, "sample_indices_", None)
        if per_row and indices is None:
            raise ValueError(
                f"{type(sampler).__name__} does not say which rows it kept (sample_indices_), so the per-row metadata "
                f"{per_row} cannot follow them; use a sampler that selects rows, or leave the metadata out"
            )
        if per_row:
            params = _check_method_params(X, params, indices)
        weights = getattr(sampler, "sample_weight_", None)
        if weights is None:
            return params
        name = weight_name(self.estimator, sampler)
        given = params.get(name)
        return {**params, name: weights if given is None else weights * np.asarray(given)}

    @property
    def _chooser(self):
        return self._default_sampler() if self.sampler is None else self.sampler

    def get_metadata_routing(self):
        """Where metadata goes: `fit` to the estimator's `fit`, `score` to its `score`."""
        mapping = MethodMapping().add(caller="fit", callee="fit").add(caller="score", callee="score")
        return MetadataRouter(owner=self).add(estimator=self.estimator, method_mapping=mapping)


def rows_in(value):
    """Entries of what is a column of metadata; None of a single value."""
    try:
        return _num_samples(value)
    except TypeError:
        return None
