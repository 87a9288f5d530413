"""Values v' (H g_i + H_i G) in every form that they are computed in, against dense Hessians."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from sktda.engine import differential
from sktda.engine.differences import FiniteDifferences
from sktda.engine.differential import (
    aggregated,
    along,
    drawn,
    each_layer,
    first_and_second,
    meeting,
    own_values,
    pairs_with,
    portion,
)
from sktda.engine.per_row import PerRow
from sktda.engine.second_order import SecondOrder
from sktda.engine.softmax_head import SoftmaxHead
from sktda.model.base import DifferentiableModel, Rows, unflatten
from tests.engine import test_layers as table
from tests.engine import test_per_row as losses
from tests.engine import test_root_features as roots
from tests.engine.test_layers import CPU, N, close, direction, flat, rows_of
from tests.engine.test_second_order import bent

NAMES = (
    *("linear", "linear without bias", "frozen weight", "frozen layer", "MLP, ReLU in place", "SiLU", "tokens"),
    *(
        "few wide tokens",
        "conv2d, pooled",
        "embedding with padding",
        "layer norm",
        "group norm",
        "batch norm",
        "encoder",
    ),
    *("LSTM", "tied layers", "linear called twice", "bare parameter", "dict of inputs", "layer never called"),
)
each_case = pytest.mark.parametrize("name", NAMES)
each_form = pytest.mark.parametrize("exact", [True, False])


def by_turns(first):
    """Every case with one of the two forms: what pairs have in both, one direction and a row alone have by turns."""
    return pytest.mark.parametrize(("name", "exact"), [(name, k % 2 == first) for k, name in enumerate(NAMES)])


@dataclass(frozen=True)
class Problem:
    """Engine with a penalty and rows; dense: gradients g (n, p), the risk's G (p,), H_i G and H g_i (n, p)."""

    engine: PerRow
    rows: Rows
    gradients: Tensor
    slope: Tensor
    changes: Tensor
    curved: Tensor
    rates: Tensor

    def hessian(self, vectors, rows=None):
        """H times each of the vectors (k, p)."""
        return bent(self.engine.model, rows or self.rows, vectors).mean(1) + self.rates * vectors


@cache
def problem(name):
    """Of a case of the table."""
    model, rows, gradients = table.truth(name)
    decay = {parameter: 0.1 * (k + 1) for k, parameter in enumerate(model.parameters) if k != 1}
    engine = PerRow(DifferentiableModel(model.module, model.likelihood, rows_of, decay), 4)
    engine.prepare(rows)
    rates = losses.decay_of(engine.model)
    slope = gradients.mean(0) + rates * flat(model.parameters).detach()
    bare = Problem(engine, rows, gradients, slope, bent(model, rows, slope), torch.empty(0), rates)
    return replace(bare, curved=bare.hessian(gradients))


def by_name(engine, vector):
    return unflatten(vector, {name: value.shape for name, value in engine.model.parameters.items()})


def bends_of(engine, exact):
    return (SecondOrder(engine), 1e-9) if exact else (FiniteDifferences(engine), 1e-4)


def gauss_newton(problem, vectors, rows=None):
    """G plus the penalty, times each of the vectors (k, p)."""
    return vectors @ roots.dense(problem.engine.model, rows or problem.rows) + problem.rates * vectors


def query(name):
    """(p,) a random v."""
    return direction(table.truth(name)[0], 5)[0]


# ---- one v for all rows --------------------------------------------------------------------------------------------


@by_turns(0)
def test_values_of_one_query_direction(name, exact):
    of = problem(name)
    engine, rows, gradients = of.engine, of.rows, of.gradients
    bends, tolerance = bends_of(engine, exact)
    both = torch.stack([query(name), query(name).flip(0)])
    products = of.hessian(both)
    each = gradients @ products.T + of.changes @ both.T
    (v, _), (product, _), expected = both, products, each[:, 0]
    slope_ = by_name(engine, of.slope)
    for k in (1, 2):
        asked = by_name(engine, both[:k]), slope_, by_name(engine, products[:k])
        close(aggregated(engine, rows, bends, *asked, 0, N), each[:, :k], tolerance)
        close(aggregated(engine, rows, bends, *asked, 2, 5), each[2:5, :k], tolerance)
    v_, product_ = (by_name(engine, each) for each in (v, product))
    first, dots, second, lengths = first_and_second(engine, rows, bends, v_, slope_, product_)
    close(first, gradients @ v, 1e-9)
    close(second, expected, tolerance)
    close(lengths, gradients.square().sum(1), 1e-9)
    close(dots, gradients @ gradients.mean(0), tolerance)  # the penalty is not in it
    block = rows.block(slice(1, 4), CPU)
    dots, bent = along(bends.changes(block, slope_), each_layer(engine, [v_, product_]), 2)
    close(dots, (torch.stack([v, product]) @ gradients.T)[:, 1:4], 1e-9)
    close(bent, (of.changes @ torch.stack([v, product], 1)).T[:, 1:4], tolerance)


@pytest.mark.parametrize("name", ["linear", "linear without bias"])
def test_the_closed_form_gives_the_same_values(name):
    of = problem(name)
    engine, rows = of.engine, of.rows
    v = torch.stack([query(name), query(name).flip(0)])
    product = of.hessian(v)
    head = SoftmaxHead.of(engine, rows)
    parts = [by_name(engine, each) for each in (v, of.slope, product)]
    expected = of.gradients @ product.T + of.changes @ v.T
    close(aggregated(engine, rows, head, *parts, 0, N), expected)
    close(aggregated(engine, rows, head, *parts, 1, 3), expected[1:3])


def test_without_a_penalty_the_dots_are_with_the_whole_gradient():
    _, rows, gradients = table.truth("MLP, ReLU in place")
    engine = table.prepared("MLP, ReLU in place")
    slope = gradients.mean(0)
    v = by_name(engine, query("MLP, ReLU in place"))
    found = first_and_second(engine, rows, SecondOrder(engine), v, by_name(engine, slope), v)
    close(found[1], gradients @ slope, 1e-9)


# ---- a v for every query, or the row's own gradient ----------------------------------------------------------------


@each_form
@each_case
def test_values_of_pairs(name, exact):
    of = problem(name)
    engine, rows, gradients, slope = of.engine, of.rows, of.gradients, by_name(of.engine, of.slope)
    bends, tolerance = bends_of(engine, exact)
    asked = [engine.capture(rows.block(part, CPU))[1] for part in (slice(0, 2), slice(2, 5))]
    for products in (True, False):
        curved = of.curved if products else gauss_newton(of, gradients)
        met = meeting(engine, bends if products else None, rows)
        met_asked = [(own, met(own)) for own in asked]
        expected = gradients[:5] @ (curved + of.changes).T
        for part in (slice(0, N), slice(1, 4)):
            close(pairs_with(engine, rows, bends, met_asked, slope, part), expected[:, part], tolerance)
        own = torch.cat([each.own() for _, each in met_asked])
        close(own, (curved * gradients).sum(1)[:5], tolerance)


@by_turns(1)
def test_values_of_rows_for_themselves(name, exact):
    of = problem(name)
    engine, rows, gradients, slope = of.engine, of.rows, of.gradients, by_name(of.engine, of.slope)
    bends, tolerance = bends_of(engine, exact)
    for products in (True, False):
        curved = of.curved if products else gauss_newton(of, gradients)
        met = meeting(engine, bends if products else None, rows)
        expected = (gradients * (curved + of.changes)).sum(1)
        size = 1 if products else 100
        close(own_values(engine, rows, bends, met, slope, size, 0, N), expected, tolerance)
        close(own_values(engine, rows, bends, met, slope, 2, 1, 4), expected[1:4], tolerance)


def test_curvature_of_other_rows_than_those_asked_about():
    of = problem("MLP, ReLU in place")
    engine, rows, gradients, slope = of.engine, of.rows, of.gradients, by_name(of.engine, of.slope)
    few = rows.chosen(np.array([1, 4]))
    bends = SecondOrder(engine)
    asked = engine.capture(rows.block(slice(0, 3), CPU))[1]
    for products in (True, False):
        curved = of.hessian(gradients, few) if products else gauss_newton(of, gradients, few)
        met = meeting(engine, bends if products else None, few)(asked)
        expected = gradients[:3] @ (curved + of.changes).T
        close(pairs_with(engine, rows, bends, [(asked, met)], slope, slice(0, N)), expected, 1e-9)


@pytest.mark.parametrize("size", [1, 4, 7, 33, "auto"])
def test_batch_sizes_agree(size):
    model, rows = losses.problem("categorical, class weights", 33)
    found = []
    for each in (5, size):
        engine = PerRow(model, each)
        bends = SecondOrder(engine)
        slope, product = bends.product(rows, losses.direction(model)[1])
        v = losses.direction(model)[1]
        met = meeting(engine, None, rows)
        values = own_values(engine, rows, bends, met, slope, 8, 0, 33)
        found.append((first_and_second(engine, rows, bends, v, slope, product), values))
    for got, expected in zip(*found, strict=True):
        close(got, expected, 1e-10)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_batches_are_halved_when_memory_runs_out(where):
    model, rows = losses.problem("categorical", 40)
    model.decay = {}
    model.module = losses.Scarce(model.module, 40, where)
    v = losses.direction(model)[1]
    found = []
    for fits in (40, 5):
        engine = PerRow(model, 40)
        engine.prepare(rows)
        bends = SecondOrder(engine)
        slope, product = bends.product(rows, v)
        met = meeting(engine, bends, rows)
        model.module.fits = fits
        values = own_values(engine, rows, bends, met, slope, 40, 0, 40)
        found.append((first_and_second(engine, rows, bends, v, slope, product), values))
        model.module.fits = 40
    assert model.module.refused
    for got, expected in zip(*found, strict=True):
        close(got, expected, 1e-10)


# ---- how many at a time, which rows --------------------------------------------------------------------------------


@pytest.mark.parametrize("by_products", [True, False])
@pytest.mark.parametrize("n_bytes", [1, 2**12, 2**28])
def test_a_portion_holds_at_least_one(n_bytes, by_products, monkeypatch):
    monkeypatch.setattr(differential, "PRODUCT_BYTES", n_bytes)
    model, rows = losses.problem("categorical", 40)
    found = portion(PerRow(model, 4), rows, by_products)
    assert isinstance(found, int)
    assert found >= 1
    held = (sum(v.nbytes for v in model.parameters.values()) if by_products else 4 * 40 * 4) * found
    assert found == 1 or held <= n_bytes


def test_a_portion_falls_with_the_size_of_the_model_and_the_number_of_rows(monkeypatch):
    monkeypatch.setattr(differential, "PRODUCT_BYTES", 2**16)
    small, rows = losses.problem("categorical", 40)
    large, _ = losses.problem("gaussian, several", 40)
    large.module.first = torch.nn.Linear(3, 400).double().to(large.device)
    assert portion(PerRow(small, 4), rows, False) > portion(
        PerRow(small, 4), losses.problem("categorical", 80)[1], False
    )
    large.module.second = torch.nn.Linear(400, 3).double().to(large.device)
    gaussian = losses.problem("gaussian, several", 40)[1]
    assert portion(PerRow(small, 4), rows, True) > portion(PerRow(large, 4), gaussian, True)


def test_rows_are_drawn_without_repetition_and_by_the_seed():
    X = torch.arange(50, dtype=torch.float64)[:, None]
    rows = rows_of(X, torch.arange(50), torch.arange(50).double() / 2)

    def taken(count, seed):
        inputs, targets, weight = drawn(rows, count, seed).block(slice(0, count), CPU)
        assert torch.equal(inputs[:, 0], targets.double())
        assert torch.equal(weight, targets.double() / 2)
        return targets.tolist()

    first = taken(20, [3, 1])
    assert len(set(first)) == 20
    assert first == sorted(first) == taken(20, [3, 1])
    assert first != taken(20, [3, 2])
    assert first != taken(20, [4, 1])
    counts = np.bincount(np.concatenate([taken(10, [seed]) for seed in range(200)]), minlength=50)
    assert counts.min() > 15  # 40 expected of every row
    assert counts.max() < 70
    for count in (None, 50, 51):
        assert drawn(rows, count, [0]) is rows
