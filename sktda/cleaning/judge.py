"""By which rows models are compared where labels are dirty, and what is expected before anything is measured."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import _num_samples

from sktda.attribution.base import loo_decision_of
from sktda.cleaning.base import prepare_attributor, scoring_features


class Judge:
    """What `NoisyLabelDetector` says of the labels: how many are wrong, and which rows can tell a better model.

    estimator: what is fitted on the rows; a Pipeline's transformers prepare the features. codes: class of each row, or
    None.

    Attributes: noise_rate, 0 where the features do not predict the labels, or the rows cannot be read as numbers
    (texts, dictionaries, missing values); trusted (n,) bool, rows whose label is not called wrong.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, codes: np.ndarray | None) -> None:
        self.codes = codes
        self.trusted = np.ones(_num_samples(X), dtype=bool)
        self.scores = np.zeros(len(self.trusted))
        self.noise_rate = 0.0
        detector = detect(estimator, X, y if codes is None else codes)
        if detector is not None:
            self.trusted, self.scores = detector.labels_ == 1, detector.scores_
            self.noise_rate = detector.noise_rate_

    def rows(self, test: np.ndarray) -> np.ndarray:
        """Those of the positions `test` whose labels judge: the trusted ones, and one row of each class there."""
        test = np.asarray(test)
        if test.dtype == bool:
            test = np.flatnonzero(test)
        judges = self.trusted[test]
        if self.codes is not None:
            for code in np.setdiff1d(self.codes[test], self.codes[test[judges]]):
                own = np.flatnonzero(self.codes[test] == code)
                judges[own[self.scores[test[own]].argmax()]] = True
        return test[judges] if judges.sum() > 1 else test  # R2 needs two


def detect(estimator: Any, X: Any, y: Any, fitted: Any = None) -> Any:
    """A `NoisyLabelDetector` fitted on these rows, or None where they cannot be read as numbers. It does not warn.

    fitted: an attributor with out-of-sample predictions of these rows, which are then not made again.
    """
    from sktda.cleaning.detector import NoisyLabelDetector

    attributor = prepare_attributor(None, estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # whoever asks has not asked for a list of wrong labels
        try:
            X, _ = scoring_features(attributor, estimator, X, y)
            decision = loo_decision_of(fitted)
            if decision is not None and len(decision) == _num_samples(X):
                attributor = FrozenEstimator(fitted)
            return NoisyLabelDetector(attributor).fit(X, y)
        except (TypeError, ValueError):
            return None
