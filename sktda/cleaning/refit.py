"""What the cleaners that refit a model share: predictions are its own, of all rows."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from copy import deepcopy
from typing import Any

from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import _routing_enabled, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sktda.attribution.base import takes_missing_values


def _refit_has(method):
    def check(self):
        getattr(self.estimator_ if hasattr(self, "estimator_") else self.estimator, method)
        return True

    return check


class RefitEstimator(CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator, metaclass=ABCMeta):
    """Delegates prediction to `estimator_`, fitted on chosen rows. It never drops rows at predict time."""

    @property
    @abstractmethod
    def _chooser(self) -> Any:
        """Who looks at the rows beside the estimator: the attributor as it is fitted, or the sampler."""

    @available_if(_refit_has("predict"))
    def predict(self, X):
        """Predict all rows of X with the refitted estimator."""
        check_is_fitted(self)
        return self.estimator_.predict(X)

    @available_if(_refit_has("predict_proba"))
    def predict_proba(self, X):
        """Class probabilities of all rows of X, (n_samples, n_classes)."""
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    @available_if(_refit_has("predict_log_proba"))
    def predict_log_proba(self, X):
        """Logarithms of the class probabilities of all rows of X."""
        check_is_fitted(self)
        return self.estimator_.predict_log_proba(X)

    @available_if(_refit_has("decision_function"))
    def decision_function(self, X):
        """Decision values of all rows of X."""
        check_is_fitted(self)
        return self.estimator_.decision_function(X)

    @available_if(_refit_has("score"))
    def score(self, X, y, **params):
        """Score of the refitted estimator on all rows of (X, y)."""
        check_is_fitted(self)
        if _routing_enabled():
            params = process_routing(self, "score", **params).estimator.score
        return self.estimator_.score(X, y, **params)

    @property
    def classes_(self):
        """Classes of the refitted estimator."""
        return self.estimator_.classes_

    @property
    def n_features_in_(self):
        """Number of features seen by the refitted estimator."""
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the features seen by the refitted estimator."""
        return self.estimator_.feature_names_in_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = deepcopy(inner.classifier_tags)
        tags.regressor_tags = deepcopy(inner.regressor_tags)
        tags.input_tags = deepcopy(inner.input_tags)
        tags.input_tags.allow_nan = inner.input_tags.allow_nan and takes_missing_values(self._chooser)
        tags.target_tags.required = True
        if tags.classifier_tags is not None:
            tags.classifier_tags.multi_label = False  # classes decide which rows may go
        for kind in (tags.classifier_tags, tags.regressor_tags):
            if kind is not None:
                kind.poor_score = True  # rows are removed, which the checks' tiny data sets feel
        return tags
