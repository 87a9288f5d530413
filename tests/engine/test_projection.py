"""Projected gradients against gradients that are formed and multiplied with the matrix; its moments; memory."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sktda.engine import projection as module
from sktda.engine.layers import Formed, Lookup, Mapped
from sktda.engine.pairwise import by_layer
from sktda.engine.per_row import PerRow
from sktda.engine.projection import GROUPS, Projection, projected, projection_of
from sktda.model.base import DifferentiableModel, Rows, unflatten
from sktda.model.softmax import Categorical

N = 9


class Tokens(nn.Module):
    """An embedding, a shared Linear layer, a norm, a parameter of its own (no known layer), and a head."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 4, padding_idx=0)
        self.each = nn.Linear(4, 5)
        self.norm = nn.LayerNorm(5)
        self.scale = nn.Parameter(torch.ones(5))
        self.head = nn.Linear(5, 3, bias=False)

    def forward(self, x):
        return self.head(self.scale * self.norm(torch.tanh(self.each(self.table(x))).mean(1)))


def bias_only():
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    net[0].weight.requires_grad_(False)
    return net


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), (4,)),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Conv2d(3, 2, 2, bias=False), nn.Flatten(), nn.Linear(8, 3)
        ),
        (1, 4, 4),
    ),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(9, 3)), (2, 4)),
    "tokens": (Tokens, None),
    "bias only": (bias_only, (4,)),
}


def built(name, batch_size="auto"):
    torch.manual_seed(0)
    make, shape = MODELS[name]
    net = make().double()
    x = torch.randint(0, 11, (N, 7)) if shape is None else torch.randn(N, *shape, dtype=torch.float64)
    y = torch.arange(N) % 3
    engine = PerRow(DifferentiableModel(net, Categorical(), lambda *_: None), batch_size)
    return engine, Rows(N, lambda part: (x[part], y[part]))


def matrix(projection):
    """(p, width): what is done to the unit vectors, layers one after the other."""
    size = sum(projection.sizes.values())
    eye = torch.eye(size, dtype=torch.float64)
    parts = eye.split(list(projection.sizes.values()), dim=1)
    return projection({name: Formed(part) for name, part in zip(projection.sizes, parts, strict=True)})


@pytest.mark.parametrize(("dim", "block"), [(1, 5), (6, 8), (13, 5), (13, 65_536)])
@pytest.mark.parametrize("name", MODELS)
def test_rows_equal_formed_gradients_times_the_matrix(name, dim, block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)  # 5: blocks end within rows of the weights
    engine, rows = built(name)
    projection = projection_of(engine, rows, dim, seed=3)
    factors = engine.capture(rows.block(slice(0, N), engine.model.device))[1]
    formed = torch.cat([factors[layer].gradients() for layer in projection.sizes], dim=1)
    expected = formed @ matrix(projection)
    assert expected.shape == (N, dim)
    torch.testing.assert_close(projection(factors), expected, rtol=1e-10, atol=1e-13)
    monkeypatch.setattr(module, "NEAR_BYTES", 1)  # one row at a time
    torch.testing.assert_close(projection(factors), expected, rtol=1e-10, atol=1e-13)
    monkeypatch.setattr(module, "FORMED_BYTES", 1)
    torch.testing.assert_close(projection(factors), expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", MODELS)
def test_directions_by_parameter_are_projected_like_rows(name):
    engine, rows = built(name)
    projection = projection_of(engine, rows, 6, seed=0)
    own = {key: value.shape for key, value in engine.model.parameters.items()}
    gradients = unflatten(engine.gradients(rows, slice(0, N)), own)
    found = projection.directions(by_layer(engine, gradients))
    torch.testing.assert_close(found, projected(engine, rows, projection, None, 0, N), rtol=1e-10, atol=1e-13)


def test_a_direction_that_leaves_a_layer_out_is_zero_there():
    projection = Projection({"a": 30, "b": 20}, 10, seed=0)
    part = torch.randn(2, 20, dtype=torch.float64)
    whole = projection.directions({"a": torch.zeros(2, 30, dtype=torch.float64), "b": part})
    torch.testing.assert_close(projection.directions({"b": part}), whole)
    assert whole.abs().min() > 0


@pytest.mark.parametrize("batch_size", [1, 2, 4, N])
@pytest.mark.parametrize("name", ["mlp", "conv", "tokens"])
def test_batches_do_not_matter_and_parts_are_those_of_the_whole(name, batch_size):
    engine, rows = built(name)
    whole = projected(engine, rows, projection_of(engine, rows, 8, seed=1), None, 0, N)
    engine, rows = built(name, batch_size)
    part = projected(engine, rows, projection_of(engine, rows, 8, seed=1), None, 2, 7)
    torch.testing.assert_close(part, whole[2:7], rtol=1e-10, atol=1e-14)


def test_few_parameters_are_not_projected():
    engine, rows = built("mlp")
    projection = projection_of(engine, rows, 51, seed=0)  # 4 * 6 + 6 + 6 * 3 + 3
    assert projection.exact
    assert projection.width == 51
    found = projected(engine, rows, projection, None, 0, N)
    torch.testing.assert_close(found, engine.gradients(rows, slice(0, N)))
    assert not projection_of(engine, rows, 50, seed=0).exact


# ---- the matrix ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [3, 8, 30])
def test_every_parameter_enters_one_number_of_each_group(dim, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 64)
    found = matrix(Projection({"a": 100, "b": 31}, dim, seed=0)).numpy()
    groups = min(dim, GROUPS)
    assert (np.count_nonzero(found, axis=1) == groups).all()
    np.testing.assert_allclose(np.abs(found[found != 0]), groups**-0.5)
    for columns in np.array_split(np.arange(dim), groups):
        if dim % groups == 0:
            assert (np.count_nonzero(found[:, columns], axis=1) == 1).all()
    assert 0.35 < (found[found != 0] > 0).mean() < 0.65


def test_blocks_layers_and_seeds_draw_different_matrices(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 50)
    found = matrix(Projection({"a": 100, "b": 50}, 8, seed=0))
    other = matrix(Projection({"a": 100, "b": 50}, 8, seed=1))
    blocks = [*found.split(50), *other.split(50)]
    for i, one in enumerate(blocks):
        for two in blocks[:i]:
            assert not torch.equal(one, two)
    torch.testing.assert_close(matrix(Projection({"a": 100, "b": 50}, 8, seed=0)), found)


def test_dot_products_are_kept_on_average_with_the_variance_of_a_dense_matrix(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 128)
    rng = np.random.default_rng(0)
    g, h = torch.from_numpy(rng.normal(size=(2, 300)))
    h = h + 0.5 * g
    dim, found = 16, []
    for seed in range(1_000):
        left, right = Projection({"a": 300}, dim, seed)({"a": Formed(torch.stack([g, h]))})
        found.append(float(left @ right))
    bound = float(g @ g * (h @ h) + (g @ h) ** 2) / dim
    # nearer than this number of draws promises: seeds are fixed
    assert np.mean(found) == pytest.approx(float(g @ h), abs=4 * (bound / 2_000) ** 0.5)
    assert 0.7 * bound < np.var(found) < 1.1 * bound


# ---- memory ----------------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for value in found if isinstance(found, tuple | list) else [found]:
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.numel())
        return found


@pytest.mark.parametrize("kind", ["linear", "shared", "embedding"])
def test_nothing_of_the_size_of_the_gradients_is_made(kind):
    n, dim = 4, 512
    torch.manual_seed(0)
    if kind == "embedding":
        factor, size = Lookup(torch.randint(0, 30_000, (n, 6)), torch.randn(n, 6, 64), 30_000, None), 30_000 * 64
    else:
        positions = () if kind == "linear" else (3,)
        factor = Mapped(torch.randn(n, *positions, 1_501), torch.randn(n, *positions, 1_000), True, True)
        size = 1_501_000
    projection = Projection({"a": size}, dim, seed=0)
    with Largest() as largest:
        found = projection({"a": factor})
    assert largest.numbers <= n * (module.BLOCK + 2 * 1_501) < size < size * dim
    lengths = factor.square_norms()
    torch.testing.assert_close(found.square().sum(1), lengths, rtol=0.5, atol=0.0)
    torch.testing.assert_close(F.normalize(found) @ F.normalize(found).T, torch.eye(n), rtol=0, atol=0.3)
