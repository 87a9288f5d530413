"""BoostIn: TracIn for gradient-boosted trees (Brophy, Hammoudeh & Lowd 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sktda.attribution.trees.asked import Whole, row_slopes
from sktda.attribution.trees.boosted import BoostedScores
from sktda.attribution.trees.steps import Block


class BoostIn(BoostedScores):
    """Predicted rise of the objective when a row is removed, in loss units, summed over the steps of a boosting.

    value = sum over steps and trees of q rate (g_i + h_i theta) / (H + l2) where row i and the query share a leaf:
    theta = -G / (H + l2) is the leaf's value before the learning rate, G and H its sums of gradients g_i and curvatures
    h_i before the step, and q the derivative of the query's loss there. What a row does to later steps is left out, and
    so is what it does to the splits and to the first constant.

    Parameters
    ----------
    estimator : estimator or None, default=None
        HistGradientBoosting- or GradientBoostingClassifier or -Regressor, XGBClassifier or -Regressor, LGBMClassifier
        or -Regressor, CatBoostClassifier or -Regressor, a Pipeline ending in one, or FrozenEstimator of a fitted one.
        None = HistGradientBoosting without early stopping.
    objective : {"auto", "self", "validation"}, objective, callable or None, default="auto"
        "auto" is "validation" where validation rows are given, else "self"; None prepares `attribute` only.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep. Not there with objective=None. 0 for rows that early stopping held back: they took no part.
    objectives_ : dict of ObjectiveScores
        What was found for each objective of validation rows, by name.
    estimator_ : estimator
        The trained model; for estimator=None behind a transformer that brings columns near 1.
    classes_ : ndarray of shape (n_classes,)
        Only for classification.
    task_ : str
        "classification" or "regression".

    Raises
    ------
    TypeError
        In `fit`, for an estimator that is not boosted trees, and an objective that moves the inputs.
    ValueError
        In `fit`, for a loss other than the squared error and the log loss, for options whose leaves are no Newton steps
        of their rows (DART, linear leaves, bounds by monotone constraints), and for a frozen model with rows, labels
        or weights that it was not trained on.

    Notes
    -----
    The squared error counts half, as the libraries have it. Rows that are drawn for each step (subsample below 1)
    count by the chance to be drawn, and a frozen model that drew some is refused: whether the rows are its own could
    not be checked. Class weights count as weights. Source: arXiv:2205.00359, the rise of the loss where a row goes.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.attribution import BoostIn
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> y[:5] = 1 - y[:5]
    >>> sorted(np.argsort(BoostIn().fit(X, y).scores_)[:5].tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, estimator=None, *, objective="auto", random_state=None):
        self.estimator = estimator
        self.objective = objective
        self.random_state = random_state

    def _moves(self, rows: slice, block: Block) -> np.ndarray:
        return self._steps.moves(rows, block.leaves, block.before)[0]

    def _moves_and_slopes(self, rows: slice, block: Block) -> tuple[np.ndarray, np.ndarray]:
        return self._steps.moves(rows, block.leaves, block.before)  # the same derivatives for both

    def _slopes(self, block: Block, targets: np.ndarray, measure: Any) -> np.ndarray:
        b, T, K = block.before.shape
        # q at the outputs before each step, as TracIn takes it at each checkpoint: (b T, K), every step as a row
        found = row_slopes(self._steps.facts.loss, measure, block.before.reshape(b * T, K), np.repeat(targets, T))
        return found.reshape(b, T, K)

    def _whole_slopes(self, slopes: Whole, before: np.ndarray, outputs: np.ndarray) -> Iterator[np.ndarray]:
        for step in range(before.shape[1]):
            yield slopes(before[:, step])
