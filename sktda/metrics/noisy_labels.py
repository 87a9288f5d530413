"""Models judged by labels of which some are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np


def noise_corrected_accuracy(
    y_true: np.ndarray, y_pred: np.ndarray, noise_matrix: np.ndarray, classes: np.ndarray | None = None
) -> float:
    """Accuracy on the true labels, estimated without bias from labels of which some are wrong.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        The given labels.
    y_pred : array-like of shape (n_samples,)
    noise_matrix : array-like of shape (n_classes, n_classes)
        T[k, j] = share of the rows of true class k that carry label j; rows sum to 1.
    classes : array-like of shape (n_classes,), default=None
        Their labels, in the order of the matrix; None = 0, 1, ...

    Returns
    -------
    accuracy : float
        Mean of inv(T)[given label, prediction]. A row counts more than 1 where label and prediction agree and less
        than 0 where they do not, so that few rows may give a figure outside [0, 1].

    Raises
    ------
    ValueError
        For a matrix that is not square, has rows that do not sum to 1 or no inverse, and for labels or predictions that
        are not among the classes.

    Notes
    -----
    Over the noise, the expected figure is the accuracy on the true labels, whatever the model and the shares of the
    classes, as long as labels are wrong as the matrix says and independently of the features within a class. Noise that
    strikes all classes alike changes the figure of every model by the same line a + b * accuracy, so it puts models in
    no other order; noise that depends on the class does. Source: the backward correction of Natarajan et al. 2013,
    lemma 1, and Patrini et al. 2017 (arXiv:1609.03683, theorem 1), of the 0-1 loss.

    Examples
    --------
    >>> from sktda.metrics import noise_corrected_accuracy
    >>> given = ["cat"] * 7 + ["dog"] * 3  # of ten cats, as 30 % of the cats are called dogs
    >>> noise = [[0.7, 0.3], [0.0, 1.0]]
    >>> round(noise_corrected_accuracy(given, ["cat"] * 10, noise, ["cat", "dog"]), 12)
    1.0
    """
    matrix = np.asarray(noise_matrix, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix.sum(axis=1), 1):
        raise ValueError(
            f"noise_matrix of shape {matrix.shape} must be square, row k the shares of true class k that carry each "
            "label, and every row must sum to 1"
        )
    # the inverse multiplies rounding by this number: beyond it few digits would be left
    if not (matrix >= 0).all() or np.linalg.cond(matrix) > 1e12:
        raise ValueError(
            "noise_matrix must have shares of at least 0 and an inverse: where two classes are labelled alike, no "
            "label tells which is right"
        )
    names = np.arange(len(matrix)) if classes is None else np.asarray(classes)
    if len(names) != len(matrix):
        raise ValueError(f"{len(names)} classes do not match a noise_matrix of {len(matrix)}")
    given, predicted = _positions("y_true", y_true, names), _positions("y_pred", y_pred, names)
    if len(given) != len(predicted):
        raise ValueError(f"got {len(given)} labels and {len(predicted)} predictions")
    # sum_j T[k, j] inv(T)[j, c] is 1 for c = k, else 0: right on average over the labels j of a row of class k
    return float(np.linalg.inv(matrix)[given, predicted].mean())


def _positions(name: str, values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Where each value stands among the classes; ValueError naming one that does not."""
    values = np.ravel(np.asarray(values))
    order = np.argsort(classes, kind="stable")
    # what is beyond the last class is found out below
    place = np.searchsorted(classes[order], values).clip(max=len(classes) - 1)
    found = order[place]
    unknown = values[classes[found] != values]
    if len(unknown):
        raise ValueError(
            f"{name} holds {unknown[0]!r}, which is not among the classes {classes.tolist()}; give classes="
        )
    return found


class NoiseCorrectedScorer:
    """Scorer by `noise_corrected_accuracy`, for ``GridSearchCV(scoring=...)`` and wherever scikit-learn takes one.

    Parameters
    ----------
    noise_matrix : array-like of shape (n_classes, n_classes)
        Of the labels that will judge, as of `noise_corrected_accuracy`; such as `LabelPosterior().fit(X, y)` estimates
        as `noise_matrix_` of the labels that are wrong by class.
    classes : array-like of shape (n_classes,), default=None
        Their labels; None = those of the model that is scored.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.model_selection import cross_val_score
    >>> from sktda.metrics import NoiseCorrectedScorer
    >>> X, y = load_wine(return_X_y=True)
    >>> scorer = NoiseCorrectedScorer([[0.8, 0.2, 0], [0, 0.8, 0.2], [0.2, 0, 0.8]])
    >>> cross_val_score(DummyClassifier(), X, y, scoring=scorer, cv=3).shape
    (3,)
    """

    def __init__(self, noise_matrix: np.ndarray, classes: np.ndarray | None = None) -> None:
        self.noise_matrix = noise_matrix
        self.classes = classes

    def __call__(self, estimator: Any, X: Any, y: np.ndarray) -> float:
        """Corrected accuracy of the estimator's predictions of X by the labels y; higher = better."""
        classes = estimator.classes_ if self.classes is None else self.classes
        return noise_corrected_accuracy(y, estimator.predict(X), self.noise_matrix, classes)

    def __repr__(self) -> str:
        return f"NoiseCorrectedScorer(of {len(self.noise_matrix)} classes)"
