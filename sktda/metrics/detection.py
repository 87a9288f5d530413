"""Scores beside known mistakes and beside what a model loses when rows go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sktda.metrics.statistics import finite


def detection_curve(scores: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """How many known mistakes are found when rows are inspected from the lowest score up.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Higher = keep.
    wrong : ndarray of bool, shape (n,)
        The mistakes; at least one row is wrong and one right.

    Returns
    -------
    inspected : ndarray of shape (n + 1,)
        Share of the rows inspected, from 0 to 1.
    found : ndarray of shape (n + 1,)
        Share of the mistakes among them; rows of equal score count as inspected in random order.
    auroc : float
        Chance that a wrong row scores below a right one, ties counted half.

    Raises
    ------
    ValueError
        For shapes that do not match, rows that are all right or all wrong, scores that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.metrics import detection_curve
    >>> inspected, found, auroc = detection_curve(np.array([0.1, 0.9, 0.3, 0.7]), np.array([True, False, False, True]))
    >>> found
    array([0. , 0.5, 0.5, 1. , 1. ])
    >>> auroc
    0.75
    """
    scores, wrong = finite("scores", scores), np.asarray(wrong, dtype=bool)
    if scores.ndim != 1 or scores.shape != wrong.shape or wrong.all() or not wrong.any():
        raise ValueError(
            f"got scores {scores.shape} and wrong {wrong.shape} with {int(wrong.sum())} wrong rows; expected is one "
            "entry of each per row, and both wrong and right rows"
        )
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    share = np.bincount(place, wrong) / count  # of wrong rows among those of one score
    # every row of a tie finds the tie's share, the mean over the orders it could be in
    found = np.append(0, np.cumsum(np.repeat(share, count))) / wrong.sum()
    inspected = np.linspace(0, 1, len(scores) + 1)
    # inspected = rate * found + (1 - rate) * (share of right rows inspected), so its area holds that of the ROC curve
    rate = wrong.mean()
    auroc = (np.trapezoid(found, inspected) - rate / 2) / (1 - rate)
    return inspected, found, float(auroc)


def removal_curve(
    values: np.ndarray, n_removed: Sequence[int], retrain: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Brittleness: share of queries whose prediction flips when the rows that help them most are removed.

    Parameters
    ----------
    values : ndarray of shape (n_query, n_train)
        Predicted rise of each query's loss when one row is removed.
    n_removed : sequence of int
        How many rows to remove, each below n_train.
    retrain : callable
        Maps a mask of the rows to train on, (n_train,) bool, to the predictions of the queries, (n_query,). Called
        once with all rows, and once per query and entry of n_removed; with a fixed seed, removal is all that differs.

    Returns
    -------
    flipped : ndarray of shape (len(n_removed),)
        Shares of the queries.

    Raises
    ------
    ValueError
        For values that are not 2-D and finite, counts that leave no row, predictions of another shape.

    Notes
    -----
    Source: Ilyas et al. 2022 (datamodels, arXiv:2202.00622) for the question, Bae et al. 2024 (arXiv:2405.12186) for
    the curve; they take queries that are predicted rightly before.

    Examples
    --------
    The nearest of three points decides, and the second nearest after it.

    >>> import numpy as np
    >>> from sktda.metrics import removal_curve
    >>> x, y, query = np.array([0.0, 1.0, 5.0]), np.array([0, 0, 1]), 0.2
    >>> def retrain(kept):
    ...     return y[kept][[np.abs(x[kept] - query).argmin()]]
    >>> removal_curve(np.array([[0.9, 0.5, -0.1]]), [1, 2], retrain)
    array([0., 1.])
    """
    values = finite("values", values)
    if values.ndim != 2:
        raise ValueError(f"values has shape {values.shape}; expected is (n_query, n_train)")
    n_query, n_train = values.shape
    if bad := [k for k in n_removed if not 0 <= k < n_train]:
        raise ValueError(f"{bad[0]} of {n_train} rows cannot be removed; remove 0 to {n_train - 1}")

    def predict(removed: np.ndarray) -> np.ndarray:
        kept = np.ones(n_train, dtype=bool)
        kept[removed] = False
        predictions = np.asarray(retrain(kept))
        if predictions.shape != (n_query,):
            raise ValueError(
                f"retrain returned shape {predictions.shape}; expected is one prediction per query, ({n_query},)"
            )
        return predictions

    before = predict(np.array([], dtype=int))
    most_helpful = np.argsort(-values, axis=1, kind="stable")
    # every query has helpful rows of its own, and of that training only its own prediction counts
    flips = [[predict(rows[:k])[q] != before[q] for q, rows in enumerate(most_helpful)] for k in n_removed]
    return np.mean(flips, axis=1)
