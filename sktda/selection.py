"""From scores to decisions: which rows stay. NumPy only; higher score = keep, everywhere."""

from __future__ import annotations

import numpy as np


def removal_quota(counts: np.ndarray, n_remove: int, floor: int) -> np.ndarray:
    """How many rows each class gives up: in proportion to its size, never below the floor.

    counts (n_classes,): rows per class. Returns (n_classes,) integers that sum to n_remove
    (largest remainders get the rows that rounding leaves).
    Raises ValueError if the floor leaves fewer than n_remove rows to take.
    """
    capacity = np.maximum(counts - floor, 0)
    if n_remove > capacity.sum():
        raise ValueError(
            f"{n_remove} of {counts.sum()} rows cannot be removed: at least {floor} must stay in each of "
            f"{len(counts)} classes; remove fewer rows"
        )
    ideal = counts * (n_remove / counts.sum())
    quota = np.minimum(np.floor(ideal).astype(int), capacity)
    while quota.sum() < n_remove:
        quota[np.argmax(np.where(quota < capacity, ideal - quota, -np.inf))] += 1
    return quota


def lowest(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k lowest scores, worst first; ties by position, so that results do not depend on k."""
    return np.argsort(scores, kind="stable")[:k]


def prune(
    scores: np.ndarray,
    n_remove: int,
    codes: np.ndarray | None = None,
    *,
    stratify: bool = True,
    floor: int = 1,
) -> np.ndarray:
    """Mask of the rows that stay after the n_remove lowest scores go.

    scores (n,), finite. codes (n,): class of each row as 0..n_classes-1, None = no classes.
    stratify: every class gives the same share; otherwise the lowest scores go wherever they are,
    except for the `floor` best rows of each class. Returns (n,) bool, True = keep.
    Raises ValueError if a class is below the floor already, the floor leaves too few rows, or no row would be left.
    """
    keep = np.ones(len(scores), dtype=bool)
    if codes is None:
        if n_remove >= len(scores):
            raise ValueError(
                f"{n_remove} of {len(scores)} rows cannot be removed: none would be left; remove fewer rows"
            )
        keep[lowest(scores, n_remove)] = False
        return keep
    counts = np.bincount(codes)
    if n_remove and counts.min() < floor:
        raise ValueError(
            f"class {counts.argmin()} (in sorted order) has {counts.min()} rows, fewer than "
            f"min_samples_per_class={floor}; merge rare classes or lower the floor"
        )
    if stratify:
        for c, quota in enumerate(removal_quota(counts, n_remove, floor)):
            rows = np.flatnonzero(codes == c)
            keep[rows[lowest(scores[rows], quota)]] = False
        return keep
    removal_quota(counts, n_remove, floor)  # the same error when the floors leave too few rows
    free = scores.astype(float)
    for c in range(len(counts)):
        rows = np.flatnonzero(codes == c)
        free[rows[np.argsort(-scores[rows], kind="stable")[:floor]]] = np.inf
    keep[lowest(free, n_remove)] = False
    return keep
