"""Gaps of a model between groups of people."""

from __future__ import annotations

import numpy as np


def demographic_parity_gap(y_pred: np.ndarray, sensitive_features: np.ndarray, positive: object = 1) -> float:
    """Largest difference between groups in the share of rows that are predicted positive.

    Parameters
    ----------
    y_pred : array-like of shape (n_samples,)
        Predicted classes.
    sensitive_features : array-like of shape (n_samples,)
        Group of each row.
    positive : label, default=1

    Returns
    -------
    gap : float
        Between 0 (the same share in every group) and 1.

    Raises
    ------
    ValueError
        For fewer than two groups.

    Examples
    --------
    >>> from sktda.metrics import demographic_parity_gap
    >>> demographic_parity_gap([1, 1, 0, 0], ["a", "a", "a", "b"]) == 2 / 3
    True
    """
    chosen = np.asarray(y_pred) == positive
    return _largest_gap(chosen, np.ones(len(chosen), dtype=bool), sensitive_features)


def equal_opportunity_gap(
    y_true: np.ndarray, y_pred: np.ndarray, sensitive_features: np.ndarray, positive: object = 1
) -> float:
    """Largest difference between groups in the share of positive rows that are predicted positive.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        True and predicted classes.
    sensitive_features : array-like of shape (n_samples,)
        Group of each row.
    positive : label, default=1

    Returns
    -------
    gap : float
        Between 0 and 1.

    Raises
    ------
    ValueError
        For fewer than two groups, or a group without positive rows.

    Examples
    --------
    >>> from sktda.metrics import equal_opportunity_gap
    >>> equal_opportunity_gap([1, 1, 0, 1], [1, 0, 0, 1], ["a", "a", "a", "b"])
    0.5
    """
    return _largest_gap(np.asarray(y_pred) == positive, np.asarray(y_true) == positive, sensitive_features)


def _largest_gap(values: np.ndarray, among: np.ndarray, groups: np.ndarray) -> float:
    groups = np.asarray(groups)
    if not len(values) == len(among) == len(groups):
        raise ValueError(f"got {len(values)} predictions, {len(among)} labels and {len(groups)} groups")
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError(f"a gap is between groups, and all {len(groups)} rows are of one")
    empty = [str(name) for name in names if not among[groups == name].any()]
    if empty:
        raise ValueError(f"no row of the group {empty[0]} is positive")
    shares = [values[among & (groups == name)].mean() for name in names]
    return float(max(shares) - min(shares))
