"""Which labels are probably wrong, and what they should be."""

from __future__ import annotations

from numbers import Real

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sktda.attribution.label_posterior import LabelPosterior
from sktda.cleaning.base import fit_attributor, import_pandas, prepare_attributor, refuse_constant
from sktda.data import encode_target, is_dictionary, row_index
from sktda.noise import label_noise_rate, outlier_rate
from sktda.selection import prune


class NoisyLabelDetector(BaseEstimator):
    """Find the rows whose label is probably wrong; by default without choosing or training a model.

    Rows are ranked by the attributor's scores. How many are called noisy is estimated from leave-one-out
    predictions (of the attributor where it makes some, otherwise of `ComplexityGap`), or given.

    Parameters
    ----------
    attributor : attributor, default=None
        Ranks the rows; `LabelPosterior()` if None: the scores of `ComplexityGap`, or, where wrong labels depend on the
        class, the probability that the label is right.
    contamination : "auto" or float in [0, 1), default="auto"
        Share of rows to call noisy. "auto" estimates how many labels are wrong: for classes by `sktda.noise`, from
        the labels that confidently predicted rows carry; for regression as the share of outlying residuals.
    random_state : int, RandomState instance or None, default=None
        Seed of the attributor, unless it has its own.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        1 clean, -1 noisy; ``round(noise_rate_ * n_samples)`` rows are noisy. The best row of each class stays clean.
    label_quality_ : ndarray of shape (n_samples,)
        In [0, 1], in the order of the scores: below 0.5 = noisy. It is not a probability.
    suggested_labels_ : ndarray of shape (n_samples,)
        What the other rows suggest: for a noisy row the best class beside the given one, for a clean row the
        predicted class; for regression the prediction.
    noise_rate_ : float
        Estimated (or given) share of wrong labels.
    scores_ : ndarray of shape (n_samples,)
        The attributor's, higher = keep.
    sample_indices_ : ndarray of shape (n_clean,)
        Positions of the clean rows.
    classes_ : ndarray of shape (n_classes,)
        Only for classification.
    task_ : str
        "classification" or "regression", as inferred from y (see `ComplexityGap`).
    attributor_ : attributor
        The fitted clone.

    Raises
    ------
    ValueError
        In `fit`, for NaN or infinity, a single class, and scores that are all equal.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda import NoisyLabelDetector
    >>> X, y = load_digits(return_X_y=True)
    >>> y[::10] = (y[::10] + 3) % 10  # 180 of 1797 labels are wrong now
    >>> detector = NoisyLabelDetector().fit(X, y)
    >>> round(detector.noise_rate_, 2)
    0.11
    >>> int((detector.labels_[::10] == -1).sum())
    180
    """

    _parameter_constraints: dict = {
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(self, attributor=None, *, contamination="auto", random_state=None):
        self.attributor = attributor
        self.contamination = contamination
        self.random_state = random_state

    def fit(self, X, y):
        """Score the rows and decide which labels are wrong.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, ...)
        y : array-like of shape (n_samples,)
            Class labels of any kind, or numbers.

        Returns
        -------
        self
        """
        self._validate_params()
        for name in ("classes_", "n_features_in_", "feature_names_in_"):  # of an earlier fit, on data of another kind
            self.__dict__.pop(name, None)
        if is_dictionary(X):
            raise ValueError(
                "NoisyLabelDetector estimates the share of wrong labels, and suggests others, from the columns of one "
                "table, and X is a dictionary; use InfluencePruner, which drops a share of your choice"
            )
        given = LabelPosterior() if self.attributor is None else self.attributor
        attributor = prepare_attributor(given, random_state=self.random_state)
        self.attributor_ = fit_attributor(attributor, X, y, {})
        reference = self.attributor_
        if not hasattr(reference, "loo_decision_"):
            reference = prepare_attributor(None, random_state=self.random_state)
            reference.set_params(task=getattr(self.attributor_, "task_", "auto")).fit(X, y)
        for name in ("n_features_in_", "feature_names_in_"):  # a list of texts has no columns
            if hasattr(reference, name):
                setattr(self, name, getattr(reference, name))
        self.task_, target, classes = encode_target(y, reference.task_)
        self.scores_ = self.attributor_.scores_
        if self.task_ == "classification":
            self.classes_ = classes
            estimate = label_noise_rate(reference.loo_decision_, target)
        else:
            estimate = outlier_rate(target - reference.loo_decision_, target)
        n_kept = 1 if classes is None else len(classes)  # one row of each class stays
        estimate = min(estimate, 1 - n_kept / len(target))
        self.noise_rate_ = estimate if self.contamination == "auto" else float(self.contamination)
        self._decide(reference.loo_decision_, target)
        self._given = np.asarray(y).ravel()
        self._index = row_index(X, y)
        return self

    def _decide(self, decision, target):
        scores = self.scores_
        n_noisy = round(self.noise_rate_ * len(target))
        if n_noisy:
            refuse_constant(scores, self.attributor_)
        codes = target if self.task_ == "classification" else None
        clean = prune(scores, n_noisy, codes, stratify=False)
        noisy = np.flatnonzero(~clean)
        self.labels_ = np.where(clean, 1, -1)
        self.sample_indices_ = np.flatnonzero(clean)
        spread = scores.std() or 1.0
        # halfway between the best noisy row and the next one; below all rows where none is noisy
        last = scores[noisy].max(initial=-np.inf)
        above = scores[scores > last].min(initial=np.inf)
        cut = (last + min(above, last + spread)) / 2 if n_noisy else above - spread
        self.label_quality_ = expit((scores - cut) / spread)
        if self.task_ == "regression":
            self.suggested_labels_ = decision
            return
        decision = decision.copy()
        decision[noisy, target[noisy]] = -np.inf
        self.suggested_labels_ = self.classes_[decision.argmax(axis=1)]

    def fit_predict(self, X, y):
        """Fit and return `labels_`: 1 clean, -1 noisy."""
        return self.fit(X, y).labels_

    def fit_resample(self, X, y):
        """Fit and return (X, y) without the noisy rows, in the types they came in."""
        X, y = indexable(X, y)
        self.fit(X, y)
        return _safe_indexing(X, self.sample_indices_), _safe_indexing(y, self.sample_indices_)

    def to_frame(self):
        """DataFrame of all rows with the user's index, worst first.

        Columns: given_label, suggested_label, label_quality, noisy.
        """
        check_is_fitted(self)
        pd = import_pandas()
        frame = pd.DataFrame(
            {
                "given_label": self._given,
                "suggested_label": self.suggested_labels_,
                "label_quality": self.label_quality_,
                "noisy": self.labels_ == -1,
            },
            index=self._index,
        )
        return frame.iloc[np.argsort(self.scores_, kind="stable")]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags
