"""Gradient matching against brute force, non-negative least squares and explicit steps; gradients in factors."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import nn

from sktda.engine.last_layer import last_layer
from sktda.engine.layers import Mapped
from sktda.engine.matching import (
    GrowingRidge,
    Part,
    along,
    at,
    closeness,
    facility_location,
    in_parts,
    matching_pursuit,
    validation_gradient,
    validation_steps,
)
from sktda.model.base import DifferentiableModel, Rows
from sktda.model.likelihood import Gaussian
from sktda.model.softmax import Categorical
from tests.in_turn import in_turn


def factors(n, d, c, seed=0):
    rng = np.random.default_rng(seed)
    return Mapped(torch.from_numpy(rng.normal(size=(n, d))), torch.from_numpy(rng.normal(size=(n, c))), True, True)


def dense(gradients):
    return gradients.matrices().flatten(1).numpy()


def similarities(n, seed=0):
    return closeness(factors(n, 4, 3, seed))


# ---- facility location ----------------------------------------------------------------------------------------------


def test_closeness_is_that_of_materialised_gradients():
    gradients = factors(40, 5, 3)
    formed = dense(gradients)
    pairs = np.linalg.norm(formed[:, None] - formed[None], axis=2)
    np.testing.assert_allclose(closeness(gradients), pairs.max() - pairs, atol=1e-7)


def naive_facility(similarity, k):
    chosen = []
    for _ in range(k):
        rest = [j for j in range(len(similarity)) if j not in chosen]
        chosen.append(max(rest, key=lambda j: similarity[chosen + [j]].max(axis=0).sum()))
    return chosen


@in_turn("seed", range(5))
@in_turn("k", [1, 3, 12, 40])
def test_the_lazy_greedy_is_the_plain_one(seed, k):
    similarity = similarities(40, seed)
    assert facility_location(similarity, k)[0].tolist() == naive_facility(similarity, k)


@pytest.mark.parametrize("seed", range(5))
def test_the_greedy_value_is_near_the_optimum(seed):
    similarity = similarities(10, seed)

    def value(rows):
        return similarity[list(rows)].max(axis=0).sum()

    best = max(value(rows) for rows in combinations(range(10), 3))
    assert (1 - 1 / np.e) * best <= value(facility_location(similarity, 3)[0]) <= best


def test_weights_are_the_sizes_of_the_clusters():
    centers, labels = 50 * np.random.default_rng(1).normal(size=(3, 4)), np.repeat([0, 1, 2], [30, 15, 5])
    near = centers[labels] + np.random.default_rng(0).normal(size=(50, 4))
    gradients = Mapped(torch.from_numpy(near), torch.ones(50, 1).double(), True, True)
    rows, weights = facility_location(closeness(gradients), 3)
    assert dict(zip(labels[rows].tolist(), weights, strict=True)) == {0: 30.0, 1: 15.0, 2: 5.0}


def test_copies_stand_for_themselves():
    rows, weights = facility_location(np.ones((6, 6)), 4)
    assert rows.tolist() == [0, 1, 2, 3]
    assert weights.tolist() == [3, 1, 1, 1]


# ---- matching pursuit -----------------------------------------------------------------------------------------------


def naive_pursuit(formed, k, ridge=0.5):
    """Rows and weights by least squares on materialised gradients, solved anew by SciPy after every row."""
    n, p = formed.shape
    penalty = ridge * np.square(formed).sum(axis=1).mean()
    goal = np.append(formed.sum(axis=0), np.zeros(n))
    system = np.vstack([formed.T, np.sqrt(penalty) * np.eye(n)])
    weights = np.zeros(n)
    while np.count_nonzero(weights) < k:
        missing = formed @ (goal[:p] - formed.T @ weights)
        missing[weights > 0] = -np.inf
        if missing.max() <= 1e-9:
            break
        allowed = [*np.flatnonzero(weights), int(missing.argmax())]
        weights = np.zeros(n)
        weights[allowed] = nnls(system[:, allowed], goal)[0]
    return weights


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [1, 4, 10])
def test_pursuit_is_non_negative_least_squares_on_materialised_gradients(seed, k):
    gradients = factors(30, 5, 3, seed)
    rows, weights = matching_pursuit(gradients.gram(gradients).numpy(), k)
    found = np.zeros(30)
    found[rows] = weights
    np.testing.assert_allclose(found, naive_pursuit(dense(gradients), k), atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_leave_are_taken_out_of_the_inverse(seed):
    """Few directions for many rows: weights fall to 0 on the way, and what stays solves the problem exactly."""
    gradients = factors(40, 2, 2, seed)
    gram = gradients.gram(gradients).numpy()
    left = []
    original = GrowingRidge._leave

    class Watching(GrowingRidge):
        def _leave(self, place, weights):
            left.append(self.rows[place])
            return original(self, place, weights)

    solver, weights, target = Watching(gram, 0.01, 40), np.zeros(0), gram.sum(axis=1)
    for row in range(12):
        weights = solver.add(row, weights, target)
        kept = solver.rows
        inner = gram[np.ix_(kept, kept)] + 0.01 * np.eye(len(kept))
        np.testing.assert_allclose(weights, np.linalg.solve(inner, target[kept]), rtol=1e-6)
        np.testing.assert_allclose(
            solver._inverse[: len(kept), : len(kept)], np.linalg.inv(inner), rtol=1e-6, atol=1e-6
        )
        np.testing.assert_array_equal(solver.columns[: len(kept)], gram[kept])
        assert (weights > 0).all()
    assert left


def test_weighted_rows_match_the_full_gradient_better_than_random_ones():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, 8))
    gradients = Mapped(
        torch.from_numpy(centers[rng.integers(20, size=400)] + 0.1 * rng.normal(size=(400, 8))),
        torch.from_numpy(rng.normal(size=(400, 1)) + 1),
        True,
        True,
    )
    formed = dense(gradients)
    full = formed.mean(axis=0)

    def away(rows, weights):
        return np.linalg.norm(weights @ formed[rows] / weights.sum() - full)

    random = [away(rng.choice(400, 40, replace=False), np.ones(40)) for _ in range(30)]
    gram = gradients.gram(gradients).numpy()
    assert away(*facility_location(closeness(gradients), 40)) < 0.7 * np.mean(random)
    rows, weights = matching_pursuit(gram, 40, ridge=1e-3)
    assert np.linalg.norm(weights @ formed[rows] - formed.sum(axis=0)) < 0.02 * 400 * np.mean(random)


def test_the_unit_of_the_loss_plays_no_part():
    gradients = factors(30, 5, 3)
    gram = gradients.gram(gradients).numpy()
    rows, weights = matching_pursuit(gram, 8)
    scaled_rows, scaled_weights = matching_pursuit(1024.0 * gram, 8)
    assert scaled_rows.tolist() == rows.tolist()
    np.testing.assert_allclose(scaled_weights, weights)


@pytest.mark.parametrize("k", [1, 20, 30])
def test_the_budget_is_filled_where_few_rows_match_everything(k):
    along_one = np.outer(np.arange(30.0) - 10, [1.0])  # rows on both sides of a line: one side has the sum
    rows, weights = matching_pursuit(along_one @ along_one.T, k)
    assert len(set(rows.tolist())) == len(weights) == k
    assert (weights > 0).all()
    assert rows[0] == 29


def test_rows_without_a_gradient_count_alike():
    rows, weights = matching_pursuit(np.zeros((9, 9)), 4)
    assert rows.tolist() == [0, 1, 2, 3]
    assert weights.tolist() == [1, 1, 1, 1]


# ---- parts ----------------------------------------------------------------------------------------------------------


def test_large_problems_are_solved_in_parts_that_share_the_budget():
    seen = []

    def choose(part, budget):
        seen.append((part, budget))
        return np.arange(budget), np.full(budget, len(part) / budget)

    rows, weights = in_parts(103, 31, 25, np.random.RandomState(0), choose)
    assert sorted(np.concatenate([part for part, _ in seen]).tolist()) == list(range(103))
    assert max(len(part) for part, _ in seen) <= 25
    assert sorted(budget for _, budget in seen) == [6, 6, 6, 6, 7]
    assert rows.tolist() == [row for part, budget in seen for row in part[:budget]]
    assert weights.sum() == pytest.approx(103)
    assert len(in_parts(103, 2, 25, np.random.RandomState(0), choose)[0]) == 2  # fewer than parts
    whole = in_parts(25, 5, 25, None, choose)  # nothing to draw
    assert whole[0].tolist() == [0, 1, 2, 3, 4]


# ---- steps on a validation loss -------------------------------------------------------------------------------------


def head(n, seed, regression=False, bias=True):
    rng = np.random.default_rng(seed)
    torch.manual_seed(5)
    module = nn.Linear(4, 1 if regression else 3, bias=bias).double()
    x = torch.from_numpy(rng.normal(size=(n, 4)))
    y = torch.from_numpy(rng.normal(size=(n, 1)) if regression else rng.integers(3, size=n))
    likelihood = Gaussian() if regression else Categorical()
    return (
        module,
        x,
        y,
        likelihood,
        last_layer(
            DifferentiableModel(module, likelihood, rows=lambda *args: None), Rows(n, lambda part: (x[part], y[part]))
        ),
    )


@torch.no_grad()
def moved_loss(module, x, y, likelihood, moved, bias):
    weight = module.weight + moved[:, :4]
    outputs = nn.functional.linear(x, weight, module.bias + moved[:, 4] if bias else None)
    return likelihood.losses(outputs, y).mean()


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_gains_are_the_slopes_of_the_validation_loss(regression, bias):
    """Finite differences of the loss after an explicit short step on every row, at a layer moved before."""
    train, validation = head(15, 0, regression, bias), head(40, 1, regression, bias)
    gradients = train[-1].gradients
    moved = 0.1 * torch.from_numpy(np.random.default_rng(2).normal(size=(gradients.delta.shape[1], 4 + bias)))
    gains = along(gradients, validation_gradient(validation[-1], validation[-1].inputs, moved))
    for row, gain in enumerate(gains):
        step = 1e-5 * gradients.matrices()[row]
        before, after = (moved_loss(*validation[:4], moved + sign * step, bias) for sign in (1, -1))
        assert (before - after).item() / 2e-5 == pytest.approx(gain.item(), abs=1e-7)


@pytest.mark.parametrize("rounds", [1, 3, 50])
def test_steps_are_the_plain_loop_with_autograd(rounds):
    module, x, y, likelihood, own = head(60, 0)
    held = head(30, 1)
    codes, quota = np.repeat([0, 1], [40, 20]), np.array([16, 7])
    weight = torch.cat([module.weight, module.bias[:, None]], dim=1).detach()
    ones = torch.cat([x, torch.ones(60, 1)], dim=1)
    errors = likelihood.log_p(module(x)).exp().detach() - torch.eye(3)[y]
    formed = errors[:, :, None] * ones[:, None]
    step = 1 / ones.square().sum(dim=1).mean()
    chosen = []
    for number in range(1, min(rounds, 16) + 1):
        at_now = weight.clone().requires_grad_()
        loss = likelihood.losses(held[1] @ at_now[:, :4].T + at_now[:, 4], held[2]).mean()
        gain = (formed * torch.autograd.grad(loss, at_now)[0]).sum(dim=(1, 2))
        new = []
        for c, many in enumerate(quota):
            due = many * number // min(rounds, 16) - sum(codes[row] == c for row in chosen)
            rest = [row for row in range(60) if codes[row] == c and row not in chosen]
            new += sorted(rest, key=lambda row: -gain[row])[:due]
        weight = weight - step * formed[new].mean(dim=0)
        chosen += new
    found = validation_steps([Part(np.arange(60), own, held[-1])], codes, quota, rounds)
    assert found.tolist() == sorted(chosen)
    assert np.bincount(codes[found]).tolist() == [16, 7]


def test_the_chosen_rows_lower_the_validation_loss_more_than_random_ones():
    module, *_, own = head(300, 0)
    held = head(200, 1)
    with torch.no_grad():  # labels that can be learnt
        truth = torch.randn(3, 4, dtype=torch.float64)
    for each in (own, held[-1]):
        each.targets = (each.features @ truth.T).argmax(dim=1)

    def after(rows):
        part = at(own.gradients, rows)
        moved = -(part.delta.T @ part.a) / len(rows)
        return float(moved_loss(module, held[1], held[-1].targets, Categorical(), moved, True))

    rng = np.random.default_rng(0)
    random = [after(rng.choice(300, 30, replace=False)) for _ in range(30)]
    found = validation_steps([Part(np.arange(300), own, held[-1])], np.zeros(300, dtype=int), np.array([30]), rounds=5)
    assert after(found) < min(random)


def test_two_parts_that_are_the_same_choose_as_one():
    *_, own = head(60, 0)
    *_, held = head(30, 1)
    codes, quota, part = np.repeat([0, 1], [40, 20]), np.array([16, 7]), Part(np.arange(60), own, held)
    np.testing.assert_array_equal(validation_steps([part, part], codes, quota), validation_steps([part], codes, quota))
