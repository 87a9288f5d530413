"""From scores to decisions: which rows stay. NumPy only; higher score = keep, everywhere."""

from __future__ import annotations

import numpy as np

N_STRATA = 50  # of the score within a class, as in the source of `stratified_rows`


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
        # also what classes at their floor could not give
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
        free[rows[np.argsort(-scores[rows], kind="stable")[:floor]]] = np.inf  # never among the lowest
    keep[lowest(free, n_remove)] = False
    return keep


def top_rows(scores: np.ndarray, budget: int, codes: np.ndarray) -> np.ndarray:
    """Sorted positions of the `budget` rows with the highest scores; every class keeps its share, at least one row.

    scores (n,), codes (n,) as in `prune`; without classes all codes are 0. Of equal scores the later rows stay.
    """
    return np.flatnonzero(prune(scores, len(scores) - budget, codes))


def class_budgets(budget: int, codes: np.ndarray) -> np.ndarray:
    """How many of `budget` rows each class keeps: its share, at least one; (n_classes,) integers.

    codes (n,) as in `prune`. Raises ValueError if there are more classes than rows to keep.
    """
    counts = np.bincount(codes)
    return counts - removal_quota(counts, len(codes) - budget, 1)


def random_rows(budget: int, codes: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Sorted positions of `budget` rows drawn without replacement; every class keeps its share, at least one row."""
    chosen = [
        random.choice(np.flatnonzero(codes == c), quota, replace=False)
        for c, quota in enumerate(class_budgets(budget, codes))
    ]
    return np.sort(np.concatenate(chosen))


def stratified_rows(
    scores: np.ndarray, budget: int, codes: np.ndarray, drop: float, random: np.random.RandomState
) -> np.ndarray:
    """Sorted positions of `budget` rows that cover easy and hard scores alike, without the worst share `drop`.

    scores (n,), codes (n,) as in `prune`; every class keeps its share, at least one row. Within each class the lowest
    round(drop * size) scores go, or fewer where the class needs them for its share; the rest is cut into 50 strata of
    equal width in the score, and `strata_quota` says how many random rows each gives.
    Source: coverage-centric selection, Zheng et al. 2023 (arXiv:2210.15809, algorithm 1), here within each class.
    """
    chosen = []
    for c, quota in enumerate(class_budgets(budget, codes)):
        rows = np.flatnonzero(codes == c)
        rows = without_lowest(rows, scores, drop, quota)
        chosen.append(spread(rows, equal_width_strata(scores[rows], N_STRATA), quota, random))
    return np.sort(np.concatenate(chosen))


def coverage_centric_rows(
    scores: np.ndarray, budget: int, codes: np.ndarray, drop: float, random: np.random.RandomState
) -> np.ndarray:
    """As `stratified_rows`, with the worst share and the strata those of all rows together.

    The lowest round(drop * n) scores go wherever they are, so that a hard class loses more rows than an easy one, but
    never what it needs for its share of the budget. The 50 strata are cut between the lowest and the highest score
    that is left; every class fills its own budget from them.
    Source: Zheng et al. 2023 (arXiv:2210.15809), algorithm 1, which has one budget for all classes.
    """
    low = np.zeros(len(scores), dtype=bool)
    low[lowest(scores, round(drop * len(scores)))] = True
    budgets, left = class_budgets(budget, codes), []
    for c, quota in enumerate(budgets):
        rows = np.flatnonzero(codes == c)
        # as a share of the class, which is cut off by its own scores: the same rows
        left.append(without_lowest(rows, scores, low[rows].mean(), quota))
    strata = np.empty(len(scores), dtype=int)
    together = np.concatenate(left)
    strata[together] = equal_width_strata(scores[together], N_STRATA)
    chosen = [spread(rows, strata[rows], quota, random) for rows, quota in zip(left, budgets, strict=True)]
    return np.sort(np.concatenate(chosen))


def without_lowest(rows: np.ndarray, scores: np.ndarray, drop: float, least: int) -> np.ndarray:
    """The rows without the share `drop` of them that scores lowest; at least `least` of them stay."""
    return np.delete(rows, lowest(scores[rows], min(round(drop * len(rows)), len(rows) - least)))


def spread(rows: np.ndarray, strata: np.ndarray, quota: int, random: np.random.RandomState) -> np.ndarray:
    """`quota` of the rows, drawn from their strata (0..49) as equally as `strata_quota` finds possible."""
    sizes = strata_quota(np.bincount(strata, minlength=N_STRATA), quota)
    chosen = [random.choice(rows[strata == stratum], size, replace=False) for stratum, size in enumerate(sizes) if size]
    return np.concatenate(chosen) if chosen else rows[:0]


def equal_width_strata(scores: np.ndarray, n_strata: int) -> np.ndarray:
    """Stratum 0..n_strata-1 of each score, cut at equal distances from the lowest to the highest; (n,) integers."""
    width = np.ptp(scores)
    if width == 0:
        return np.zeros(len(scores), dtype=int)
    # the highest score belongs to the last stratum, and does not begin another
    return np.minimum((scores - scores.min()) / width * n_strata, n_strata - 1).astype(int)


def strata_quota(sizes: np.ndarray, budget: int) -> np.ndarray:
    """How many rows each stratum gives: equally many, except that a small one gives all and the others share the rest.

    sizes (n_strata,): rows per stratum, at least `budget` in all. Returns (n_strata,) integers that sum to budget.
    The strata are visited from the smallest, so that rows left over by rounding fall to the largest.
    """
    quota = np.zeros(len(sizes), dtype=int)
    for visited, stratum in enumerate(np.argsort(sizes, kind="stable")):
        quota[stratum] = min(sizes[stratum], (budget - quota.sum()) // (len(sizes) - visited))
    return quota
