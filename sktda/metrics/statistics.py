"""Ranks, correlations, errors and intervals, column by column."""

from __future__ import annotations

import numpy as np


def bootstrap_interval(scores: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of the scores: percentiles of the mean of 10,000 samples drawn with replacement.

    For two methods on the same queries, pass the differences of their scores.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        One number per query.
    level : float, default=0.95
        Share of the samples' means inside the interval.

    Returns
    -------
    low, high : float

    Raises
    ------
    ValueError
        For no scores, another shape, numbers that are not finite, or a level outside (0, 1).

    Notes
    -----
    Only the queries are drawn again: the interval says nothing about other subsets or other training runs.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.metrics import bootstrap_interval
    >>> low, high = bootstrap_interval(np.arange(100))
    >>> round(low), round(high)
    (44, 55)
    """
    scores = finite("scores", scores)
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"scores has shape {scores.shape}; expected is (n,) with at least one number")
    if not 0 < level < 1:
        raise ValueError(f"level={level!r} is not a share between 0 and 1, such as 0.95")
    rng = np.random.default_rng(0)
    # in hundreds: all samples at once would take 10,000 times the memory of the scores
    means = [rng.choice(scores, (100, len(scores))).mean(axis=1) for _ in range(100)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def standard_error(values: np.ndarray) -> float:
    """Of the mean of values (n,); 0 for one value."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlation along the first axis, ties at their mean rank; 0 where a or b is constant."""
    return pearson(ranks(a), ranks(b))


def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation along the first axis; 0 where a or b is constant."""
    both = varies(a) & varies(b)
    # less the means first: sums of squares of large numbers would cancel
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    # the size of a constant column may be rounding, and not 0
    return np.where(both, (a * b).sum(axis=0) / np.where(both, size, 1.0), 0.0)


def varies(values: np.ndarray) -> np.ndarray:
    """Where the first axis holds more than one number; a spread would be above 0 by rounding alone."""
    return np.ptp(values, axis=0) > 0


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks 0..n-1 along the first axis of (n, m); ties share their mean rank."""
    result = np.empty(values.shape)
    for column, out in zip(values.T, result.T, strict=True):
        _, place, count = np.unique(column, return_inverse=True, return_counts=True)
        out[:] = (np.cumsum(count) - (count + 1) / 2)[place]  # the middle of the ranks that equal values take up
    return result


def finite(name: str, values: np.ndarray) -> np.ndarray:
    """values in float64; ValueError if one of them is NaN or infinite."""
    values = np.asarray(values, dtype=float)
    if bad := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{bad} of {values.size} numbers in {name} are NaN or infinite; leave out what diverged")
    return values
