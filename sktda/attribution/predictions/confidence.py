"""How surely a classifier that did not see a row gives it its label."""

from __future__ import annotations

import numpy as np

from sktda.attribution.predictions.out_of_sample import OutOfSample, margins


class SelfConfidence(OutOfSample):
    """Probability of the given label, in [0, 1], by a classifier that was trained without the row.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Any classifier with `predict_proba`, Pipelines included; clones of it are trained. None =
        ``ExtraTreesClassifier(100, min_samples_leaf=5)``, for sparse matrices standardised columns and
        ``LogisticRegression(C=0.1)``.
    cv : int, splitter or iterable of (train, test), default=5
        Folds. An int is stratified and shuffled, and lowered, with a warning, to the rows of the rarest class that has
        at least two. Others are taken as they are, if they predict every row once.
    task : {"auto", "classification"}, default="auto"
        "classification" takes whole numbers as classes however many they are, also for estimator=None.
    n_jobs : int or None, default=None
        Folds trained at a time. Does not change the result.
    random_state : int, RandomState instance or None, default=None
        Seeds the folds and every `random_state` of the estimator that is None. None is 0, so that a fit can be
        repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Probability of the given label, higher = keep.
    pred_probs_ : ndarray of shape (n_samples, n_classes)
        Out-of-sample probabilities of all classes, in the order of `classes_`. Also readable as `loo_decision_`, from
        which `NoisyLabelDetector` estimates the share of wrong labels and suggests others.
    classes_ : ndarray of shape (n_classes,)
    task_ : str
        "classification".

    Raises
    ------
    TypeError
        In `fit`, for an estimator without `predict_proba`.
    ValueError
        In `fit`, for a regression target (use `ComplexityGap`), a single class, NaN or infinity where estimator=None,
        weights that the estimator does not take, and folds that do not predict every row once.

    Warns
    -----
    UserWarning
        For classes with fewer rows than folds, and for rows of whose class no training part holds another one, such as
        the only one of a class: the probability of their label is 0.

    Notes
    -----
    A ``FrozenEstimator(fitted)`` predicts without training: out of sample only if it never saw these rows.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import SelfConfidence
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> y[:3] = [3, 3, 3]  # they are 0, 1, 2
    >>> confidence = SelfConfidence().fit(X, y)
    >>> bool(confidence.scores_[:3].max() < 0.1)
    True
    >>> confidence.pred_probs_[:3].argmax(axis=1).tolist()
    [0, 1, 2]
    """

    def _summarise(self, codes: np.ndarray) -> None:
        self.scores_ = self.pred_probs_[np.arange(len(codes)), codes]


class NormalizedMargin(OutOfSample):
    """Probability of the given label minus that of the best other one, in [-1, 1], by a classifier without the row.

    Of two classes the order is that of `SelfConfidence`. Of more, a row that fits no class well is not called as
    suspicious as one that fits another class.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Any classifier with `predict_proba`, Pipelines included; clones of it are trained. None =
        ``ExtraTreesClassifier(100, min_samples_leaf=5)``, for sparse matrices standardised columns and
        ``LogisticRegression(C=0.1)``.
    cv : int, splitter or iterable of (train, test), default=5
        Folds. An int is stratified and shuffled, and lowered, with a warning, to the rows of the rarest class that has
        at least two. Others are taken as they are, if they predict every row once.
    task : {"auto", "classification"}, default="auto"
        "classification" takes whole numbers as classes however many they are, also for estimator=None.
    n_jobs : int or None, default=None
        Folds trained at a time. Does not change the result.
    random_state : int, RandomState instance or None, default=None
        Seeds the folds and every `random_state` of the estimator that is None. None is 0, so that a fit can be
        repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        The margin, higher = keep; below 0 another class is more probable. cleanlab's is (1 + margin) / 2.
    pred_probs_ : ndarray of shape (n_samples, n_classes)
        Out-of-sample probabilities, see `SelfConfidence`.
    classes_ : ndarray of shape (n_classes,)
    task_ : str
        "classification".

    Raises
    ------
    TypeError, ValueError
        As `SelfConfidence`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import NormalizedMargin
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> y[:3] = [3, 3, 3]  # they are 0, 1, 2
    >>> margin = NormalizedMargin().fit(X, y)
    >>> bool(margin.scores_[:3].max() < -0.3)
    True
    """

    def _summarise(self, codes: np.ndarray) -> None:
        self.scores_ = margins(self.pred_probs_, codes)
