"""The Gauss-Newton matrix layer by layer, against the dense matrix with the pairs of different layers set to zero."""

import pytest
import torch
from torch import nn

from sktda.engine.blocks import BlockCurvature, across
from sktda.engine.curvature import gauss_newton
from sktda.engine.per_row import PerRow
from sktda.model.base import DifferentiableModel, Rows, flatten, unflatten
from sktda.model.likelihood import Gaussian
from sktda.model.softmax import Categorical

CASES = {
    "more rows than parameters": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)),
        30,
        Categorical(),
    ),
    "fewer rows": (lambda: nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Linear(20, 3)), 6, Categorical()),
    "both": (lambda: nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Linear(20, 2)), 25, Gaussian()),
    "as many parameters as roots of two states": (
        lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)),
        5,
        Gaussian(),
    ),
    "layers of all kinds": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 5, 2), nn.Flatten(), nn.LayerNorm(10), nn.ReLU(), nn.Linear(10, 3)
        ),
        4,
        Categorical(),
    ),
}
by_case = pytest.mark.parametrize("name", CASES)


def make(name, decay=0.05, dtype=torch.float64):
    build, n, likelihood = CASES[name]
    torch.manual_seed(0)
    module = build().to(dtype).eval()
    x = torch.randn(n, 3, dtype=dtype)
    y = torch.randint(0, 3, (n,)) if isinstance(likelihood, Categorical) else torch.randn(n, 2, dtype=dtype)
    decays = {key: decay for key, _ in module.named_parameters()} if decay else {}
    return DifferentiableModel(module, likelihood, lambda *a: None, decays), Rows(n, lambda rows: (x[rows], y[rows]))


def masked(model, matrix):
    """The matrix with the pairs of parameters of different layers set to zero."""
    layer = torch.cat(
        [torch.full((value.numel(),), hash(key.rpartition(".")[0])) for key, value in model.parameters.items()]
    )
    return matrix * (layer[:, None] == layer)


def diagonal(model, decay):
    return torch.cat(
        [torch.full((v.numel(),), decay.get(k, 0.0), dtype=torch.float64) for k, v in model.parameters.items()]
    )


def function_of(matrix, fn):
    values, basis = torch.linalg.eigh(matrix)
    return (basis * fn(values)) @ basis.T


def applied(curvature, model, fn, vectors):
    shapes = {key: value.shape for key, value in model.parameters.items()}
    moved = curvature.back(curvature.scale(fn, curvature.rotate(unflatten(vectors, shapes))))
    return torch.cat([moved[key].reshape(len(vectors), -1) for key in shapes], dim=1)


def vectors_of(model, count=3):
    p = sum(value.numel() for value in model.parameters.values())
    return torch.randn(count, p, dtype=next(iter(model.parameters.values())).dtype)


def assert_near(found, expected):
    assert (found - expected).norm() <= 2e-7 * expected.norm()


def fall(values):
    return torch.exp(-3 * values) + 0.1 / (values + 0.2)


@by_case
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_functions_equal_those_of_the_dense_blocks(name, decay):
    model, rows = make(name, decay)
    matrix = masked(model, gauss_newton(PerRow(model), rows)) + torch.diag(diagonal(model, model.decay))
    vectors = vectors_of(model)
    found = applied(BlockCurvature(PerRow(model), rows), model, fall, vectors)
    assert_near(found, vectors @ function_of(matrix, fall))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("more rows than parameters", {"0": False, "2": False}),
        ("fewer rows", {"0": True, "2": True}),
        ("both", {"0": True, "2": False}),
    ],
)
def test_which_layers_follow_from_their_rows(name, expected):
    model, rows = make(name)
    curvature = BlockCurvature(PerRow(model), rows)
    assert {block: across(block) in curvature.values for block in curvature.blocks} == expected


@by_case
@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_do_not_matter(name, batch_size):
    model, rows = make(name)
    vectors = vectors_of(model)
    whole, parts = (
        applied(BlockCurvature(PerRow(model, size), rows), model, fall, vectors) for size in ("auto", batch_size)
    )
    assert_near(parts, whole)


@by_case
def test_states_are_averaged(name):
    model, rows = make(name)
    states = [{k: v.clone() for k, v in model.module.state_dict().items()} for _ in range(2)]
    states[1] = {key: value + 0.3 for key, value in states[1].items()}
    matrices = []
    for state in states:
        model.load(state)
        matrices.append(gauss_newton(PerRow(model), rows))

    def visit():
        for state in states:
            model.load(state)
            yield ""

    matrix = masked(model, sum(matrices) / 2) + torch.diag(diagonal(model, model.decay))
    vectors = vectors_of(model)
    found = applied(BlockCurvature(PerRow(model), rows, visit), model, fall, vectors)
    assert_near(found, vectors @ function_of(matrix, fall))


@by_case
def test_preconditioned_steps_with_decoupled_decay(name):
    model, rows = make(name, decay=0.0)
    root = {key: 0.5 + torch.rand_like(value) for key, value in model.parameters.items()}
    decay = dict.fromkeys(root, 0.03)
    scale = flatten(root).detach()
    matrix = masked(model, gauss_newton(PerRow(model), rows)) * scale[:, None] * scale
    matrix += torch.diag(diagonal(model, decay))
    vectors = vectors_of(model)
    found = applied(BlockCurvature(PerRow(model), rows, root=root, decay=decay), model, fall, vectors)
    assert_near(found, vectors @ function_of(matrix, fall))


@by_case
def test_float32_is_near(name):
    model, rows = make(name)
    vectors = vectors_of(model)
    expected = applied(BlockCurvature(PerRow(model), rows), model, fall, vectors)
    single, rows32 = make(name, dtype=torch.float32)
    single.load({key: value.float() for key, value in model.module.state_dict().items()})
    data = rows.block(slice(0, len(rows)), model.device)
    cast = [value.float() if value.is_floating_point() else value for value in data[:2]]
    rows32 = Rows(len(rows), lambda part: (cast[0][part], cast[1][part]))
    found = applied(BlockCurvature(PerRow(single), rows32), single, fall, vectors.float())
    assert (found.double() - expected).norm() <= 1e-4 * expected.norm()


def test_what_is_put_away_comes_back():
    model, rows = make("both")
    curvature = BlockCurvature(PerRow(model), rows)
    vectors = vectors_of(model)
    hollow = curvature.restored({key: value[:0].clone() for key, value in curvature.tensors.items()})
    again = hollow.restored({key: value.clone() for key, value in curvature.tensors.items()})
    assert torch.equal(applied(again, model, fall, vectors), applied(curvature, model, fall, vectors))


@pytest.mark.parametrize(("limit", "value"), [("DENSE_PARAMETERS", 10), ("BLOCK_BYTES", 1000)])
def test_too_many_rows_and_parameters_are_refused(monkeypatch, limit, value):
    monkeypatch.setattr(f"sktda.engine.blocks.{limit}", value)
    model, rows = make("both")
    with pytest.raises(ValueError, match=r"layer '0' has \d+ or more.*use curvature='ekfac'"):
        BlockCurvature(PerRow(model), rows)
