"""Scores to decisions, against brute force on tiny problems."""

from itertools import combinations, pairwise, product

import numpy as np
import pytest

from sktda.selection import (
    class_budgets,
    coverage_centric_rows,
    equal_width_strata,
    lowest,
    prune,
    random_rows,
    removal_quota,
    strata_quota,
    stratified_rows,
    top_rows,
)
from tests.in_turn import in_turn


def best_removal(scores, n_remove, codes, floor):
    """The set of n_remove rows with the smallest total score that leaves `floor` rows in every class."""
    allowed = [
        set(rows)
        for rows in combinations(range(len(scores)), n_remove)
        if all(np.sum(codes == c) - np.sum(codes[list(rows)] == c) >= floor for c in np.unique(codes))
    ]
    return min(allowed, key=lambda rows: sum(scores[list(rows)]))


@pytest.mark.parametrize("floor", [0, 1, 2])
def test_without_strata_the_lowest_scores_that_the_floor_allows_go(floor):
    rng = np.random.default_rng(floor)
    for _ in range(20):
        codes = np.repeat([0, 1, 2], [4, 3, 2])[rng.permutation(9)]
        scores = rng.normal(size=9) - 2 * (codes == rng.integers(3))  # the worst rows crowd into one class
        for n_remove in range(0, 9 - 3 * floor + 1):
            keep = prune(scores, n_remove, codes, stratify=False, floor=floor)
            removed = best_removal(scores, n_remove, codes, floor)
            # with distinct scores the greedy choice is the only optimum: floors are per class, rows exchange freely
            assert set(np.flatnonzero(~keep)) == removed


@pytest.mark.parametrize("floor", [0, 1, 2])
def test_quotas_are_the_closest_whole_numbers_to_equal_shares(floor):
    rng = np.random.default_rng(floor)
    for _ in range(30):
        counts = rng.integers(floor, 7, size=3)
        for n_remove in range(np.maximum(counts - floor, 0).sum() + 1):
            if counts.sum() == 0:
                continue
            quota = removal_quota(counts, n_remove, floor)
            ideal = counts * n_remove / counts.sum()
            choices = [
                np.array(choice)
                for choice in product(*(range(max(c - floor, 0) + 1) for c in counts))
                if sum(choice) == n_remove
            ]
            distance = min(np.square(choice - ideal).sum() for choice in choices)
            assert quota.sum() == n_remove
            assert (quota <= np.maximum(counts - floor, 0)).all()
            assert np.square(quota - ideal).sum() == pytest.approx(distance, abs=1e-9)


def test_largest_remainders_get_the_rows_that_rounding_leaves():
    # shares 3.0, 2.7, .9, .3, .1 of 7 rows: whole parts 3, 2, 0, 0, 0 and two rows left
    assert removal_quota(np.array([30, 27, 9, 3, 1]), 7, 0).tolist() == [3, 3, 1, 0, 0]


def test_strata_lose_their_own_lowest_rows():
    codes = np.array([0, 0, 0, 0, 1, 1])
    scores = np.array([4.0, 3.0, 2.0, 1.0, 10.0, 9.0])
    assert np.flatnonzero(~prune(scores, 3, codes)).tolist() == [2, 3, 5]
    assert np.flatnonzero(~prune(scores, 3, codes, stratify=False)).tolist() == [1, 2, 3]


def test_without_classes_only_scores_count():
    scores = np.array([3.0, 1.0, 2.0])
    assert prune(scores, 2).tolist() == [True, False, False]
    assert prune(scores, 0).all()


def test_a_smaller_removal_is_part_of_a_larger_one():
    scores = np.round(np.random.default_rng(0).normal(size=30), 1)  # with ties
    codes = np.arange(30) % 3
    for stratify in (False, True):
        removed = [set(np.flatnonzero(~prune(scores, k, codes, stratify=stratify))) for k in (3, 6, 9, 15)]
        assert all(small < large for small, large in pairwise(removed))


def test_ties_go_by_position():
    assert lowest(np.zeros(5), 3).tolist() == [0, 1, 2]
    assert prune(np.zeros(4), 2, np.array([0, 0, 1, 1])).tolist() == [False, True, False, True]


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize(
    ("counts", "n_remove", "floor", "message"),
    [
        ([3, 3], 5, 1, r"5 of 6 rows cannot be removed: at least 1 must stay in each of 2 classes; remove fewer rows"),
        ([5, 1], 1, 2, r"class 1 \(in sorted order\) has 1 rows, fewer than min_samples_per_class=2; merge rare"),
    ],
)
def test_floors_that_cannot_be_kept_are_errors(stratify, counts, n_remove, floor, message):
    codes = np.repeat(np.arange(len(counts)), counts)
    with pytest.raises(ValueError, match=message):
        prune(np.arange(6.0), n_remove, codes, stratify=stratify, floor=floor)


def test_a_class_below_the_floor_is_no_error_when_nothing_goes():
    assert prune(np.arange(4.0), 0, np.array([0, 0, 0, 1]), floor=2).all()


# ---- coresets -------------------------------------------------------------------------------------------------------


def fill_in_rounds(sizes, budget):
    """CCS's budgets, a row at a time: each round every stratum that has rows left gives one.

    In the last round there are too few rows for all of them: the largest strata give theirs (the later of equals).
    """
    given = [0] * len(sizes)
    while budget:
        ready = [j for j in range(len(sizes)) if given[j] < sizes[j]]
        if len(ready) > budget:
            ready = sorted(ready, key=lambda j: (sizes[j], j))[len(ready) - budget :]
        for j in ready:
            given[j] += 1
        budget -= len(ready)
    return given


@in_turn("seed", range(20))
def test_strata_give_as_many_rows_as_rounds_of_one_row_each(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 9, size=7) * rng.integers(0, 2, size=7)
    for budget in range(sizes.sum() + 1):
        assert strata_quota(sizes, budget).tolist() == fill_in_rounds(sizes, budget)


def test_a_small_stratum_gives_all_and_the_others_share_what_it_leaves():
    # 3 each of 9; the 1 of the first leaves 8 for two, so 4 each; the last takes the row that rounding leaves
    assert strata_quota(np.array([1, 20, 30]), 9).tolist() == [1, 4, 4]
    assert strata_quota(np.array([1, 20, 30]), 10).tolist() == [1, 4, 5]
    assert strata_quota(np.array([30, 0, 2]), 32).tolist() == [30, 0, 2]


def test_strata_are_of_equal_width():
    scores = np.array([-1.0, -0.51, -0.49, 0.0, 0.49, 0.51, 1.0])
    assert equal_width_strata(scores, 4).tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert equal_width_strata(np.full(3, 7.0), 4).tolist() == [0, 0, 0]


def test_the_top_rows_are_the_highest_of_their_class():
    codes = np.array([0, 0, 0, 0, 1, 1])
    scores = np.array([4.0, 3.0, 2.0, 1.0, 10.0, 9.0])
    assert top_rows(scores, 3, codes).tolist() == [0, 1, 4]
    assert top_rows(scores, 3, np.zeros(6, dtype=int)).tolist() == [0, 4, 5]


def stratified_choices(scores, codes, budget, drop):
    """For every class: (how many rows stay, [(rows of a stratum, how many of them stay)]), by plain loops."""
    counts = np.bincount(codes)
    kept = counts - removal_quota(counts, len(codes) - budget, 1)
    for c, k in enumerate(kept):
        ranked = sorted(np.flatnonzero(codes == c), key=lambda row: scores[row])
        pool = ranked[min(round(drop * len(ranked)), len(ranked) - k) :]
        low, high = scores[pool[0]], scores[pool[-1]]
        strata = [[] for _ in range(50)]
        for row in pool:
            strata[min(49, int((scores[row] - low) / (high - low) * 50)) if high > low else 0].append(row)
        yield k, list(zip(strata, fill_in_rounds([len(rows) for rows in strata], k), strict=True))


@pytest.mark.parametrize("drop", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("budget", [3, 40, 200, 330, 400])
def test_stratified_rows_follow_the_budgets_of_the_strata(budget, drop):
    rng = np.random.default_rng(budget)
    codes = np.repeat([0, 1, 2], [300, 97, 3])[rng.permutation(400)]
    scores = -rng.exponential(size=400) * (1 + codes)
    chosen = stratified_rows(scores, budget, codes, drop, np.random.RandomState(0))
    assert chosen.tolist() == sorted(set(chosen))
    assert len(chosen) == budget
    for c, (k, strata) in enumerate(stratified_choices(scores, codes, budget, drop)):
        assert np.sum(codes[chosen] == c) == k >= 1
        for rows, quota in strata:
            assert np.isin(rows, chosen).sum() == quota


def test_the_draw_within_a_stratum_is_random_and_even():
    scores, codes = np.append(np.zeros(9), 1.0), np.zeros(10, dtype=int)
    random = np.random.RandomState(0)
    drawn = np.bincount(
        np.concatenate([stratified_rows(scores, 4, codes, 0.0, random) for _ in range(600)]), minlength=10
    )
    assert drawn[9] == 600, "the only row of its stratum"
    assert np.abs(drawn[:9] / 600 - 3 / 9).max() < 0.08  # four standard deviations


def test_budgets_of_classes_are_their_shares_and_at_least_one():
    codes = np.repeat([0, 1, 2], [60, 39, 1])
    assert class_budgets(10, codes).tolist() == [6, 3, 1]  # 54 and 35.1 of 90 go, the only row of a class does not
    assert class_budgets(100, codes).tolist() == [60, 39, 1]
    with pytest.raises(ValueError, match="at least 1 must stay in each of 3 classes"):
        class_budgets(2, codes)


def test_random_rows_are_an_even_draw_within_classes():
    codes, random = np.repeat([0, 1], [12, 4])[np.random.default_rng(0).permutation(16)], np.random.RandomState(0)
    drawn = np.zeros(16)
    for _ in range(2000):
        rows = random_rows(8, codes, random)
        assert rows.tolist() == sorted(set(rows))
        assert np.bincount(codes[rows]).tolist() == [6, 2]
        drawn[rows] += 1
    assert np.abs(drawn / 2000 - 0.5).max() < 0.05


def coverage_centric_choices(scores, codes, budget, drop):
    """For every class: (its budget, [(its rows in a stratum of all rows, how many of them stay)]), by plain loops."""
    n = len(scores)
    worst = set(sorted(range(n), key=lambda row: scores[row])[: round(drop * n)])
    pools = []
    for c, quota in enumerate(class_budgets(budget, codes)):
        own = sorted((row for row in range(n) if codes[row] == c), key=lambda row: scores[row])
        gone = min(sum(row in worst for row in own), len(own) - quota)
        pools.append((quota, own[gone:]))
    left = [scores[row] for _, pool in pools for row in pool]
    low, high = min(left), max(left)
    for quota, pool in pools:
        strata = [[] for _ in range(50)]
        for row in pool:
            strata[min(49, int((scores[row] - low) / (high - low) * 50)) if high > low else 0].append(row)
        yield quota, list(zip(strata, fill_in_rounds([len(rows) for rows in strata], quota), strict=True))


@in_turn("drop", [0.0, 0.3, 2.0])
@in_turn("budget", [3, 40, 200, 330, 400])
def test_coverage_centric_rows_cut_and_cover_all_rows_together(budget, drop):
    rng = np.random.default_rng(budget)
    codes = np.repeat([0, 1, 2], [300, 97, 3])[rng.permutation(400)]
    scores = -rng.exponential(size=400) * (1 + codes)
    chosen = coverage_centric_rows(scores, budget, codes, drop, np.random.RandomState(0))
    assert chosen.tolist() == sorted(set(chosen))
    assert len(chosen) == budget
    for c, (quota, strata) in enumerate(coverage_centric_choices(scores, codes, budget, drop)):
        assert np.sum(codes[chosen] == c) == quota >= 1
        for rows, size in strata:
            assert np.isin(rows, chosen).sum() == size


def test_a_hard_class_loses_more_rows_where_all_are_cut_together():
    codes, scores = np.repeat([0, 1], 100), np.append(np.linspace(1, 2, 100), np.linspace(0, 2, 100))
    # the 50 lowest of all are the lower half of class 1; within classes, each would lose its lowest quarter
    together = coverage_centric_rows(scores, 100, codes, 0.25, np.random.RandomState(0))
    apart = stratified_rows(scores, 100, codes, 0.25, np.random.RandomState(0))
    assert np.bincount(codes[together]).tolist() == np.bincount(codes[apart]).tolist() == [50, 50]
    assert scores[together[codes[together] == 1]].min() > 0.99
    assert scores[together[codes[together] == 0]].min() < scores[apart[codes[apart] == 0]].min()
