"""Compressed gradients: exact at full rank, the same by factors as by formed gradients, unbiased where random."""

import numpy as np
import pytest
import torch
from torch import nn

from sktda.engine import compressed_curvature as module
from sktda.engine.compressed_curvature import (
    compressed_curvature,
    inverse_roots,
    leading,
    principal_sides,
    random_sides,
    side_sizes,
    sketched,
)
from sktda.engine.compression import Compression, compressed, recall_layers, taken_blocks
from sktda.engine.per_row import PerRow
from sktda.model.base import DifferentiableModel, forward, unflatten
from sktda.model.softmax import Categorical
from tests.engine.test_kronecker_blocks import CASES, N, build, flat_rows, gradients_of
from tests.engine.test_layers import rows_of
from tests.in_turn import in_turn

FULL = 64  # larger than any side
SOME = 6  # rows: two batches, the last one smaller


def compression_of(model, rows, rank, init="random", seed=0, batch=5):
    engine = PerRow(model, batch)
    blocks = taken_blocks(engine, rows)
    sides = random_sides(blocks, rank, seed) if init == "random" else principal_sides(engine, rows, blocks, rank, seed)
    return engine, Compression(blocks, rank, sides, seed, model)


def influence(compression, curvature, asked, known, damping):
    roots = inverse_roots(curvature, damping)
    return sum(
        asked[:, part] @ roots[name] @ roots[name].T @ known[:, part].T for name, part in compression.parts.items()
    )


def root_gradients(model, rows):
    """One dict of gradients for every output root, from one forward pass per row."""
    own, found = model.parameters, []
    for i in range(len(rows)):
        inputs, targets, weight = rows.block(slice(i, i + 1), model.device)
        outputs = forward(model.module, inputs)
        values = (model.likelihood.roots(outputs.detach(), targets)[0] * outputs * weight[0] ** 0.5).flatten(1).sum(1)
        found.append([
            torch.autograd.grad(value, list(own.values()), retain_graph=True, materialize_grads=True, allow_unused=True)
            for value in values
        ])  # fmt: skip
    return [
        {name: torch.stack([row[k][j] for row in found]) for j, name in enumerate(own)} for k in range(len(found[0]))
    ]


@pytest.mark.parametrize("name", CASES)
def test_full_rank_is_the_influence_of_the_block_diagonal_curvature(name, monkeypatch):
    monkeypatch.setattr(module, "FEW_OUTPUTS", 1_000)
    model, rows, _ = build(name)
    rows = rows.chosen(np.arange(SOME))
    init = "pca" if len(name) % 2 else "random"
    engine, compression = compression_of(model, rows, FULL, init)
    found = compressed(engine, rows, compression, None, 0, SOME)
    curvature = compressed_curvature(engine, rows, compression, 0)
    own, roots, expected = gradients_of(model, rows), root_gradients(model, rows), 0
    for block in compression.blocks:
        g, *pulled = (flat_rows({key: each[key] for key in block.parameters}) for each in (own, *roots))
        H = sum(each.T @ each for each in pulled) / SOME + 0.1 * torch.eye(g.shape[1]).double()
        expected += g[:4] @ torch.linalg.solve(H, g.T)
    assert found.shape == (SOME, sum(value.numel() for value in own.values()) // SOME)
    torch.testing.assert_close(influence(compression, curvature, found[:4], found, 0.1), expected)


@pytest.mark.parametrize("name", CASES)
def test_factors_and_formed_gradients_give_the_same_numbers(name):
    model, rows, _ = build(name)
    engine, compression = compression_of(model, rows, 2, "pca")
    found = compressed(engine, rows, compression, None, 0, N)
    assert found.shape[1] <= 4 * len(compression.blocks)
    torch.testing.assert_close(compression.directions(gradients_of(model, rows)), found)
    # in other batches, by a description of the compression, for some rows only
    other = PerRow(model, 3)
    recall_layers(other, compression.about(engine)["layers"])
    again = Compression.restored(compression.about(engine), compression.tensors, model)
    torch.testing.assert_close(compressed(other, rows, again, None, 4, 9), found[4:9])


def linear(n=40, out=5, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(0)
    net = nn.Linear(width, out).double()
    x = torch.randn(n, width, generator=generator, dtype=torch.float64)
    return DifferentiableModel(net, Categorical(), rows_of), rows_of(x, torch.randint(out, (n,), generator=generator))


def test_random_projections_keep_dot_products_on_average():
    model, rows = linear()
    engine = PerRow(model, 40)
    blocks = taken_blocks(engine, rows)
    found, own = [], gradients_of(model, rows)
    for seed in range(200):
        values = Compression(blocks, 3, random_sides(blocks, 3, seed), seed, model).directions(own)[:4]
        found.append(values @ values.T * (5 * 7) / 9)  # of 5 outputs and 7 inputs with the one
    exact = flat_rows(own)[:4]
    error = torch.stack(found).mean(0) - exact @ exact.T
    assert (error.abs() < 4 * torch.stack(found).std(0) / 200**0.5).all()


@pytest.mark.parametrize("init", ["pca", "random"])
def test_more_rank_is_closer(init):
    model, rows = linear(out=8, width=20, n=100)
    errors = []
    for rank in (2, 8, 16, FULL):
        engine, compression = compression_of(model, rows, rank, init, batch=100)
        values = compressed(engine, rows, compression, None, 0, len(rows))
        curvature = compressed_curvature(engine, rows, compression, 0)
        found = influence(compression, curvature, values, values, 1e-2)
        errors.append(found)
    errors = [float((each - errors[-1]).norm()) for each in errors]
    assert errors == sorted(errors, reverse=True)


def test_drawn_labels_estimate_the_curvature_of_all_roots(monkeypatch):
    model, rows = linear(n=1500)
    engine, compression = compression_of(model, rows, FULL, "random", batch=1500)
    (exact,) = compressed_curvature(engine, rows, compression, 0).values()
    monkeypatch.setattr(module, "ROOTS", 0)
    (drawn,) = compressed_curvature(engine, rows, compression, 0).values()
    monkeypatch.setattr(module, "CURVATURE_ROWS", 500)
    (fewer,) = compressed_curvature(engine, rows, compression, 0).values()
    assert 0 < (drawn - exact).norm() / exact.norm() < (fewer - exact).norm() / exact.norm() < 0.4


@pytest.mark.parametrize("rank", [3, 5])
def test_a_sketch_has_the_eigenvectors_of_the_whole(rank):
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(60, 60)))[0]
    moments = torch.from_numpy(basis * 0.3 ** np.arange(60) @ basis.T)
    test = torch.from_numpy(random.normal(size=(60, 2 * rank + 16)))
    found, exact = sketched(moments @ test, test, rank), leading(moments, rank)
    torch.testing.assert_close(found.T @ found, torch.eye(rank).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found @ found.T, exact @ exact.T, atol=1e-4, rtol=0)


def test_large_sides_are_sketched(monkeypatch):
    model, rows, _ = build("Conv1D of transformers")
    engine = PerRow(model, 5)
    blocks = taken_blocks(engine, rows)
    exact = principal_sides(engine, rows, blocks, 1, 0)
    monkeypatch.setattr(module, "WHOLE", 2)
    for name, side in principal_sides(engine, rows, blocks, 1, 0).items():
        torch.testing.assert_close(side.abs(), exact[name].abs(), atol=1e-3, rtol=0)
    assert side_sizes(blocks) == {name: len(side) for name, side in exact.items()}


@in_turn("name", CASES)
def test_every_side_that_has_gradients_has_moments(name, monkeypatch):
    model, rows, _ = build(name)
    engine = PerRow(model, 5)
    blocks = taken_blocks(engine, rows)
    with monkeypatch.context() as patch:
        patch.setattr(module, "leading", lambda moments, rank: moments)
        found = principal_sides(engine, rows, blocks, 1, 0)
    assert [key for key, moments in found.items() if not moments.any()] == []


class Planted(nn.Module):
    """What is looked up counts along one direction only, and what the table, where it is tied, meets has another."""

    def __init__(self, tied, width=6):
        super().__init__()
        basis = np.linalg.qr(np.random.default_rng(0).normal(size=(width, 2)))[0]
        self.register_buffer("basis", torch.from_numpy(basis))
        self.words, self.out = nn.Embedding(5, width), nn.Linear(width, 5, bias=False)
        if tied:
            self.out.weight = self.words.weight

    def forward(self, X):
        return self.out((self.words(X) @ self.basis[:, :1]) * self.basis[:, 1]).mean(1)


@pytest.mark.parametrize("whole", [1_024, 2])
@pytest.mark.parametrize("tied", [False, True])
def test_the_side_of_a_table_holds_all_that_its_gradients_have(tied, whole, monkeypatch):
    monkeypatch.setattr(module, "WHOLE", whole)
    torch.manual_seed(0)
    model = DifferentiableModel(Planted(tied).double(), Categorical(), rows_of)
    generator = torch.Generator().manual_seed(1)
    X, y, weight = (torch.randint(5, (9, 4), generator=generator), torch.arange(9) % 5, torch.arange(9.0) / 4)
    rows, rank = rows_of(X, y, weight.double()), 2 if tied else 1
    compression = compression_of(model, rows, rank, "pca")[1]
    side, true = compression.sides["out/words"], model.module.basis[:, :rank]
    torch.testing.assert_close(side @ side.T, true @ true.T, atol=1e-5, rtol=0)  # a sketch is moved by a little
    own = gradients_of(model, rows)["words.weight"]
    torch.testing.assert_close(own @ side @ side.T, own, atol=1e-5, rtol=0)


@pytest.mark.parametrize("whole", [1_024, 2])
def test_sides_without_any_output_gradient_are_orthonormal(whole, monkeypatch):
    monkeypatch.setattr(module, "WHOLE", whole)
    model, rows = linear(out=30)
    with torch.no_grad():
        model.module.weight.mul_(1e9)  # outputs so sure that their curvature is 0
    engine, compression = compression_of(model, rows, 2, "pca")
    for side in compression.sides.values():
        torch.testing.assert_close(side.T @ side, torch.eye(2).double(), atol=1e-6, rtol=0)
    curvature = compressed_curvature(engine, rows, compression, 0)
    assert not any(root.any() for root in inverse_roots(curvature, None).values())


def test_weights_of_rows_are_repeated_rows():
    model, rows = linear(n=12)
    inputs, targets, _ = rows.block(slice(0, 12), model.device)
    weight = torch.tensor([2.0, 0.0, 1.0] * 4, dtype=torch.float64)
    index = torch.arange(12).repeat_interleave(weight.long())
    pairs = []
    for each in (rows_of(inputs, targets, weight), rows_of(inputs[index], targets[index])):
        engine, compression = compression_of(model, each, 3, "pca")
        (curvature,) = compressed_curvature(engine, each, compression, 0).values()
        pairs.append((compression.sides, curvature))
    for name, side in pairs[0][0].items():
        torch.testing.assert_close(side @ side.T, pairs[1][0][name] @ pairs[1][0][name].T)
    torch.testing.assert_close(torch.linalg.eigvalsh(pairs[0][1]), torch.linalg.eigvalsh(pairs[1][1]))


def test_a_singular_curvature_needs_damping():
    flat = {"layer": torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))}
    with pytest.raises(ValueError, match=r"the curvature of layer is singular with damping=0.*give a damping above 0"):
        inverse_roots(flat, 0.0)
    (found,) = inverse_roots(flat, None).values()
    torch.testing.assert_close((found @ found.T).diagonal().sort()[0], torch.tensor([1 / 1.05, 1 / 0.05]).double())
    (unused,) = inverse_roots({"layer": torch.zeros(2, 2).double()}, None).values()
    assert not unused.any()


def test_nothing_to_compress_is_said():
    net = nn.Linear(3, 2)
    model = DifferentiableModel(net, Categorical(), rows_of)
    engine = PerRow(model)
    rows = rows_of(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))
    engine.prepare(rows)
    engine.layers, engine.rest = [], []
    with pytest.raises(ValueError, match=r"none of the parameters can be compressed.*weight, bias; use Influence"):
        taken_blocks(engine, rows)
    assert unflatten(torch.zeros(2), {"a": torch.Size((2,))})
