"""Covering selections against brute force on tiny problems, plain loops, and planted clusters and outliers."""

from itertools import combinations

import numpy as np
import pytest
import torch

from sktda.engine.covering import herding, k_center, message_passing, moderate, neighbour_weights
from tests.in_turn import in_turn


def points(n, d, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d))).to(dtype)


def distances(x):
    return np.linalg.norm(x.numpy()[:, None] - x.numpy()[None], axis=2)


def radius(pairs, centers):
    return pairs[:, list(centers)].min(axis=1).max()


# ---- k-center -------------------------------------------------------------------------------------------------------


def naive_k_center(x, k):
    pairs, mean = distances(x), x.numpy().mean(axis=0)
    chosen = [int(np.linalg.norm(x.numpy() - mean, axis=1).argmin())]
    while len(chosen) < k:
        nearest = pairs[:, chosen].min(axis=1)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return chosen


@in_turn("seed", range(10))
@in_turn("k", [1, 2, 4])
def test_k_center_is_within_twice_the_best_radius(seed, k):
    x = points(9, 2, seed)
    pairs = distances(x)
    best = min(radius(pairs, centers) for centers in combinations(range(9), k))
    # one center is the row nearest the mean: a fixed start, whose bound is that of any start
    assert best <= radius(pairs, k_center(x, k).tolist()) <= 2 * best + 1e-12


@pytest.mark.parametrize("pool", [1, 2, 7, 50, 2_048])
@pytest.mark.parametrize("k", [1, 5, 60, 300])
def test_k_center_is_the_plain_greedy_loop_whatever_the_pool(k, pool):
    x = points(300, 5)
    assert k_center(x, k, pool).tolist() == naive_k_center(x, k)


def test_k_center_in_blocks_of_rows_is_the_same(monkeypatch):
    x = points(300, 5)
    whole = k_center(x, 60, 20).tolist()
    monkeypatch.setattr("sktda.engine.covering.BLOCK", 64)
    assert k_center(x, 60, 20).tolist() == whole


@pytest.mark.parametrize("pool", [1, 3, 100])
def test_equally_far_rows_are_taken_in_order_and_copies_last(pool):
    x = torch.tensor([[0.0], [4.0], [-4.0], [4.0], [-4.0], [0.0]])
    assert k_center(x, 6, pool).tolist() == [0, 1, 2, 3, 4, 5]


def test_k_center_in_float32_keeps_far_copies_apart_from_rows():
    x = torch.cat([points(50, 3), points(50, 3)]).float() + 1000.0
    assert sorted(k % 50 for k in k_center(x, 50, 8).tolist()) == list(range(50))


def test_every_cluster_is_covered_before_any_twice():
    centers = 100 * points(12, 4, seed=1)
    labels = torch.arange(240) % 12
    chosen = k_center(centers[labels] + points(240, 4), 12)
    assert sorted(labels[chosen].tolist()) == list(range(12))


# ---- herding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_herding_is_the_plain_loop(seed):
    x = points(40, 3, seed).numpy() + 5
    chosen = []
    for _ in range(40):
        errors = [
            np.inf if row in chosen else np.linalg.norm(x[chosen + [row]].mean(axis=0) - x.mean(axis=0))
            for row in range(40)
        ]
        chosen.append(int(np.argmin(errors)))
    assert herding(torch.from_numpy(x), 39).tolist() == chosen[:39]


def test_the_mean_of_herded_rows_is_much_nearer_than_that_of_random_ones():
    x = points(2_000, 10)
    random = [np.random.default_rng(seed).choice(2_000, 100, replace=False) for seed in range(20)]
    away = [float((x[rows].mean(0) - x.mean(0)).norm()) for rows in [herding(x, 100), *random]]
    assert away[0] < 0.1 * min(away[1:])


# ---- moderate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [30, 31])
def test_moderate_rows_are_those_nearest_the_median_distance(n, monkeypatch):
    x = points(n, 4).numpy()
    distance = np.linalg.norm(x - np.median(x, axis=0), axis=1)
    expected = np.argsort(np.abs(distance - np.median(distance)), kind="stable")
    assert moderate(torch.from_numpy(x), 9).tolist() == expected[:9].tolist()
    monkeypatch.setattr("sktda.engine.covering.BLOCK", 1)  # a column at a time
    assert moderate(torch.from_numpy(x), n).tolist() == expected.tolist()


def test_moderate_leaves_outliers_and_the_middle_out():
    x = points(200, 6)
    x[:20] *= 20
    x[20:40] *= 0.01
    assert set(moderate(x, 100).tolist()).isdisjoint(range(40))


def test_moderate_is_not_moved_by_outliers_as_a_mean_would_be():
    x = points(200, 3)
    moved = torch.cat([x, torch.full((20, 3), 1e6)])
    assert len(set(moderate(moved, 100).tolist()) & set(moderate(x, 100).tolist())) > 60


# ---- message passing ------------------------------------------------------------------------------------------------


def naive_message_passing(x, difficulty, k, n_neighbors):
    pairs = distances(x)
    np.fill_diagonal(pairs, np.inf)
    near = np.argsort(pairs, axis=1)[:, :n_neighbors]
    unit = np.mean([pairs[i, j] for i in range(len(x)) for j in near[i]])
    total = [difficulty[i] + sum(np.exp(-pairs[i, j] / unit) * difficulty[j] for j in near[i]) for i in range(len(x))]
    chosen = []
    for _ in range(k):
        best = max((i for i in range(len(x)) if i not in chosen), key=lambda i: total[i])
        for j in near[best]:
            total[j] -= np.exp(-pairs[best, j] / unit) * total[best]
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("n_neighbors", [1, 4, 10])
@pytest.mark.parametrize("seed", range(3))
def test_message_passing_is_the_dense_loop(seed, n_neighbors, monkeypatch):
    x, difficulty = points(60, 3, seed) + 7, np.random.default_rng(seed).random(60)
    expected = naive_message_passing(x, difficulty, 60, n_neighbors)
    assert message_passing(x, difficulty, 60, n_neighbors).tolist() == expected
    monkeypatch.setattr("sktda.engine.covering.BLOCK", 7 * 60)  # seven rows at a time
    assert message_passing(1024 * x, difficulty, 20, n_neighbors).tolist() == expected[:20]


def test_messages_spread_the_choice_over_clusters():
    """One cluster of many hard rows would give all rows by difficulty alone."""
    centers, labels = 100 * points(5, 3, seed=1), torch.arange(100) % 5
    difficulty = np.where(labels == 0, 1.0, 0.8)
    x = centers[labels] + points(100, 3)
    assert np.bincount(labels[message_passing(x, difficulty, 20)], minlength=5).max() <= 8


def test_few_rows_have_few_neighbours():
    assert message_passing(points(1, 3), np.ones(1), 1).tolist() == [0]
    strength, near = neighbour_weights(torch.ones(3, 2), 10)
    assert near.shape == (3, 2)
    np.testing.assert_array_equal(strength, 1.0)  # copies are at distance 0
    assert sorted(message_passing(torch.ones(3, 2), np.ones(3), 3).tolist()) == [0, 1, 2]


def hard_to_easy(x, k):
    return message_passing(x, x[:, 0].numpy() + 10, k)


@pytest.mark.parametrize("choose", [k_center, herding, moderate, hard_to_easy])
def test_rows_are_distinct_and_the_order_of_rows_and_columns_plays_no_part(choose):
    x = points(200, 4)
    plain = set(choose(x, 50).tolist())
    assert len(plain) == 50
    order = torch.from_numpy(np.random.default_rng(1).permutation(200))
    assert set(order[choose(x[order], 50)].tolist()) == plain
    assert set(choose(x[:, [0, 2, 3, 1]], 50).tolist()) == plain


@pytest.mark.parametrize("choose", [k_center, herding, moderate])
def test_where_the_data_lie_plays_no_part(choose):
    x = points(200, 4)
    assert set(choose(x + 3.0, 50).tolist()) == set(choose(x, 50).tolist())
