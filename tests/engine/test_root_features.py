"""Features whose dot products are those of the Gauss-Newton matrix, against the dense matrix."""

import numpy as np
import pytest
import torch
from torch import nn

from sktda.engine.curvature import gauss_newton
from sktda.engine.layers import Product
from sktda.engine.per_row import REST, PerRow
from sktda.engine.root_features import RootFeatures, penalised
from sktda.model.base import DifferentiableModel, Rows, forward
from sktda.model.softmax import Categorical
from tests.engine import test_layers as table
from tests.engine import test_per_row as losses
from tests.engine.test_layers import CASES, CPU, N, close, rows_of

each_case = pytest.mark.parametrize("name", CASES)


def whole(rows):
    return rows.block(slice(0, len(rows)), CPU)


def dense(model, rows):
    """(p, p) mean of J' F J over the rows, one backward pass per output; F of a softmax."""
    total = 0
    for i in range(len(rows)):
        inputs, _, weight = rows.block(slice(i, i + 1), CPU)
        outputs = forward(model.module, inputs)[0]
        jacobian = torch.stack([table.parameter_gradient(model, each) for each in outputs])
        p = outputs.softmax(0).detach()
        fisher = jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
        total = total + (fisher if weight is None else weight[0] * fisher)
    return total / len(rows)


@each_case
def test_dots_of_features_are_products_with_the_gauss_newton_matrix(name):
    model, rows, gradients = table.truth(name)
    curving = rows.chosen(np.array([4, 1, 3, 2]))
    engine = PerRow(model, 3)  # two batches, the last one smaller
    features = RootFeatures(engine, curving)
    parts = [features.of(engine.capture(rows.block(part, CPU))[1]) for part in (slice(0, 2), slice(2, N))]
    phi = torch.cat(parts)
    close(phi @ phi.T, gradients @ dense(model, curving) @ gradients.T, 1e-9)


@losses.each_loss
def test_every_loss_has_its_roots(name):
    model, rows = losses.problem(name)
    engine = PerRow(model, 4)
    features = RootFeatures(engine, rows)
    phi = features.of(engine.capture(whole(rows))[1])
    gradients = losses.dense_gradients(name, model, rows)
    close(phi @ phi.T, gradients @ gauss_newton(engine, rows) @ gradients.T, 1e-9)


@pytest.mark.parametrize("size", [1, 2, 5, 9, "auto"])
def test_batch_sizes_agree(size):
    model, rows = losses.problem("categorical")
    engine = PerRow(model, size)
    phi = RootFeatures(engine, rows).of(engine.capture(whole(rows))[1])
    other = PerRow(model, 4)
    expected = RootFeatures(other, rows).of(other.capture(whole(rows))[1])
    assert phi.shape == expected.shape == (9, 9 * 4)  # a feature for every row and root
    close(phi @ phi.T, expected @ expected.T, 1e-12)


def test_inputs_of_a_row_are_held_once_for_all_its_roots():
    model, rows = losses.problem("categorical")
    features = RootFeatures(PerRow(model, 4), rows)
    for roots in features.batches:
        for name, part in roots[0].items():
            assert isinstance(part, Product)
            assert all(other[name].a is part.a for other in roots)


def test_rows_without_weights_are_rows_of_weight_one():
    model, rows = losses.problem("categorical")
    engine = PerRow(model, 4)
    bare, ones = Rows(9, rows.read), Rows(9, rows.read, torch.ones(9, dtype=torch.float64))
    features = [RootFeatures(engine, each) for each in (bare, ones)]
    factors = engine.capture(whole(bare))[1]
    assert torch.equal(features[0].of(factors), features[1].of(factors))


# ---- the penalty ---------------------------------------------------------------------------------------------------


def penalty_of(model, decay):
    """(p,) diagonal of the penalty's Hessian."""
    return torch.cat([
        torch.full((value.numel(),), decay.get(name, 0.0), dtype=torch.float64)
        for name, value in model.parameters.items()
    ])  # fmt: skip


def penalties(model):
    """Several penalties of a model's parameters."""
    own = list(model.parameters)
    return {
        "none": {},
        "one for all": dict.fromkeys(own, 0.3),
        "weights only": {name: 0.3 for name in own if name.rpartition(".")[2] != "bias"},
        "biases only": {name: 0.2 for name in own if name.rpartition(".")[2] == "bias"},
        "each its own": {name: 0.1 * (k + 1) for k, name in enumerate(own)},
        "the first only": {own[0]: 0.7},
    }


@each_case
def test_penalised_gradients_are_those_times_the_diagonal(name):
    model, rows, gradients = table.truth(name)
    engine = PerRow(DifferentiableModel(model.module, model.likelihood, rows_of, {}), 4)
    engine.prepare(rows)
    factors = engine.capture(whole(rows))[1]
    for kind, decay in penalties(model).items():
        engine.model.decay = decay
        found = penalised(engine, factors)
        expected = gradients * penalty_of(model, decay)
        total = torch.zeros(N, N, dtype=torch.float64) + sum(part.gram(factors[layer]) for layer, part in found.items())
        close(total, expected @ gradients.T, 1e-9)
        total = torch.zeros(N, dtype=torch.float64) + sum(part.pairs(factors[layer]) for layer, part in found.items())
        close(total, (expected * gradients).sum(1), 1e-9)
        if set(found) == set(factors):
            close(engine.formed(found), expected, 1e-9)
        groups = {layer.name: layer.parameters for layer in engine.layers}
        groups |= {REST: engine.rest} if engine.rest else {}
        assert set(found) == {layer for layer in factors if any(decay.get(n) for n in groups[layer])}, kind


def test_a_single_layer_has_the_empty_name_and_is_not_taken_for_the_rest():
    module = nn.Linear(3, 2).double()
    decay = {"weight": 0.3, "bias": 0.05}
    model = DifferentiableModel(module, Categorical(), rows_of, decay)
    rows = table.vectors(6, 2)
    engine = PerRow(model, 4)
    engine.prepare(rows)
    assert [layer.name for layer in engine.layers] == [REST]
    assert not engine.rest
    factors = engine.capture(whole(rows))[1]
    gradients = table.row_gradients(model, rows)
    close(engine.formed(penalised(engine, factors)), gradients * penalty_of(model, decay), 1e-12)
