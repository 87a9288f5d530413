"""Gaps of a model between groups of people."""

from __future__ import annotations

import numpy as np

from sktda.containers import is_missing


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
        For fewer than two groups, a row without one, and text compared with a number.

    Examples
    --------
    >>> from sktda.metrics import demographic_parity_gap
    >>> demographic_parity_gap([1, 1, 0, 0], ["a", "a", "a", "b"]) == 2 / 3
    True
    """
    chosen = _is_positive("y_pred", y_pred, positive)
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
        For fewer than two groups, a row without one, a group without positive rows, and text compared with a number.

    Examples
    --------
    >>> from sktda.metrics import equal_opportunity_gap
    >>> equal_opportunity_gap([1, 1, 0, 1], [1, 0, 0, 1], ["a", "a", "a", "b"])
    0.5
    """
    chosen, among = _is_positive("y_pred", y_pred, positive), _is_positive("y_true", y_true, positive)
    return _largest_gap(chosen, among, sensitive_features)


def _is_positive(name: str, labels: np.ndarray, positive: object) -> np.ndarray:
    """Mask (n,); ValueError where none could be: of text beside a number, all shares would be 0, and so the gap."""
    labels = _column(labels)
    is_text = any(isinstance(label, str) for label in labels.tolist())
    if len(labels) and is_text != isinstance(positive, str):
        raise ValueError(
            f"{name} holds labels such as {labels.tolist()[0]!r}, and positive={positive!r} is none of their kind; "
            "give the label that counts as positive"
        )
    return labels == positive


def _column(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _largest_gap(values: np.ndarray, among: np.ndarray, groups: np.ndarray) -> float:
    groups = _column(groups)
    if not len(values) == len(among) == len(groups):
        raise ValueError(f"got {len(values)} predictions, {len(among)} labels and {len(groups)} groups")
    if missing := sum(map(is_missing, groups.tolist())):
        raise ValueError(f"{missing} rows have no group; name it, such as 'unknown', or leave them out")
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError(f"a gap is between groups, and all {len(groups)} rows are of one")
    empty = [str(name) for name in names if not among[groups == name].any()]
    if empty:
        raise ValueError(f"no row of the group {empty[0]} is positive")
    shares = [values[among & (groups == name)].mean() for name in names]
    return float(max(shares) - min(shares))
