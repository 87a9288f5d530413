"""LeafInfluence of single points: influence functions of the leaves' values (Sharchilev et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sktda.attribution.trees.asked import Whole, row_slopes
from sktda.attribution.trees.boosted import BoostedScores
from sktda.attribution.trees.steps import Block


class LeafInfluence(BoostedScores):
    """Predicted rise of the objective when a row is removed, in loss units, by the leaves that it shares with a query.

    value = q times the sum over steps of what the removal does to the value of the common leaf, q the derivative of the
    query's loss by the output of the whole ensemble. A row moves its own output on the way, and so its later gradients,
    which are followed; the outputs of other rows are held fixed (the single-point form), and so are the splits and the
    first constant.

    Parameters
    ----------
    estimator : estimator or None, default=None
        As `BoostIn` takes it. None = HistGradientBoosting without early stopping.
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
    TypeError, ValueError
        As `BoostIn`.

    Notes
    -----
    A model that fits its rows has small derivatives at the end, where those that BoostIn takes along the way are large:
    among validation rows with wrong labels these decide nearly alone, and BoostIn is the better choice.
    Source: arXiv:1802.06640 (SinglePoint), arXiv:2205.00359, section 3, with all pairs of classes of a softmax. Minus
    what CatBoost's `get_object_importance` finds with update_method="SinglePoint" for its own models of two classes.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.attribution import LeafInfluence
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> y = X[:, 0]
    >>> values = LeafInfluence().fit(X, y).attribute(X[:3], y[:3])
    >>> values.shape
    (3, 200)
    """

    def __init__(self, estimator=None, *, objective="auto", random_state=None):
        self.estimator = estimator
        self.objective = objective
        self.random_state = random_state

    def _moves(self, rows: slice, block: Block) -> np.ndarray:
        n, n_steps, n_outputs = block.leaves.shape
        moves = np.empty((n, n_steps, n_outputs))
        # one step after the other: how far the row's output has moved decides on its gradient in the next
        moved: np.ndarray = np.zeros((n, 1, n_outputs))
        for step in range(n_steps):
            now = slice(step, step + 1)
            found, _ = self._steps.moves(rows, block.leaves[:, now], block.before[:, now], moved)
            moves[:, now] = found
            # the row is in the leaf that it moves
            moved = moved + found
        return moves

    def _moves_and_slopes(self, rows: slice, block: Block) -> tuple[np.ndarray, np.ndarray]:
        return self._moves(rows, block), self._slopes(block, self._steps.targets[rows], None)

    def _slopes(self, block: Block, targets: np.ndarray, measure: Any) -> np.ndarray:
        found = row_slopes(self._steps.facts.loss, measure, block.outputs, targets)
        # q at the final outputs is the same for every step: each adds to these what it adds to its own
        return np.broadcast_to(found[:, None], block.leaves.shape)

    def _whole_slopes(self, slopes: Whole, before: np.ndarray, outputs: np.ndarray) -> Iterator[np.ndarray]:
        found = slopes(outputs)
        for _ in range(before.shape[1]):
            yield found
