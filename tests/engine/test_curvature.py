"""Dense curvature and conjugate gradients against the Gauss-Newton matrix formed by torch.func."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from sktda.engine import curvature
from sktda.engine.curvature import ALL, ROUNDS, DenseCurvature, conjugate_gradients, gauss_newton
from sktda.engine.gauss_newton import gauss_newton_products
from sktda.engine.per_row import PerRow
from sktda.model.base import DifferentiableModel, Rows, flatten, flatten_each, unflatten
from sktda.model.likelihood import Binary, Gaussian
from sktda.model.softmax import Categorical
from tests.spies import visiting

N = 23


class Scaled(nn.Module):
    """A Linear layer times a bare parameter, which is outside every known layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor([1.3]))

    def forward(self, x):
        return self.scale * torch.tanh(self.layer(x))


def mlp(out):
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, out))


def hessian(function):
    """By backward mode twice: torch's own uses forward mode, whose first use raises a DeprecationWarning of torch."""
    return jacrev(jacrev(function))


def codes(g):
    return torch.randint(3, (N,), generator=g)


def numbers(*shape):
    return lambda g: torch.randn(N, *shape, generator=g, dtype=torch.float64)


def bits(*shape):
    return lambda g: torch.randint(2, (N, *shape), generator=g).double()


CASES = {
    # name: module, likelihood, targets, whether the outputs are linear in the parameters
    "mlp, softmax": (lambda: mlp(3), Categorical(), codes, False),
    "mlp, binary": (lambda: mlp(1), Binary(), bits(1), False),
    "mlp, binary without an output axis": (lambda: nn.Sequential(mlp(1), nn.Flatten(0)), Binary(), bits(), False),
    "mlp, squared error of 2 outputs": (lambda: mlp(2), Gaussian(), numbers(2), False),
    "mlp, mean of half the squared errors": (lambda: mlp(2), Gaussian(0.5, average=True), numbers(2), False),
    "a bare parameter": (Scaled, Categorical(), codes, False),
    "mlp, softmax with weights of classes": (lambda: mlp(3), Categorical(torch.tensor([0.3, 1.0, 2.5])), codes, False),
    "mlp, softmax with smoothed labels": (lambda: mlp(3), Categorical(label_smoothing=0.2), codes, False),
    "mlp, 2 binary outputs with weights": (
        lambda: mlp(2),
        Binary(pos_weight=torch.tensor([0.4, 3.0]), average=True),
        bits(2),
        False,
    ),
    "linear, softmax": (lambda: nn.Linear(4, 3), Categorical(), codes, True),
    "linear without bias, softmax": (lambda: nn.Linear(4, 3, bias=False), Categorical(), codes, True),
    "linear, softmax with weights of classes": (
        lambda: nn.Linear(4, 3),
        Categorical(torch.tensor([0.3, 1.0, 2.5])),
        codes,
        True,
    ),
    "linear, binary": (lambda: nn.Linear(4, 1), Binary(pos_weight=3.0), bits(1), True),
    "linear, 2 binary outputs": (lambda: nn.Linear(4, 2), Binary(average=True), bits(2), True),
    "linear, squared error": (lambda: nn.Linear(4, 2), Gaussian(), numbers(2), True),
}


def make(name, weighted=True, dtype=torch.float64, decay=None):
    """(model, rows, inputs, targets, weights) of one case; only the first parameter is penalised."""
    build, likelihood, draw, linear = CASES[name]
    g = torch.Generator().manual_seed(7)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module = build().to(dtype).eval()
    x, y = torch.randn(N, 4, generator=g, dtype=torch.float64).to(dtype), draw(g)
    y = y.to(dtype) if y.is_floating_point() else y
    weight = torch.rand(N, generator=g, dtype=torch.float64).to(dtype) * 2 if weighted else None
    if weighted:
        weight[3] = 0
    first = next(iter(dict(module.named_parameters())))
    model = DifferentiableModel(
        module, likelihood, None, decay={first: 0.05} if decay is None else decay, linear=linear
    )
    return model, Rows(N, lambda rows: (x[rows], y[rows]), weight), x, y, weight


def outputs_of(model, x):
    """Function of the flat parameters: raw outputs of the rows x."""
    shapes = {name: value.shape for name, value in model.parameters.items()}
    return lambda flat: functional_call(model.module, unflatten(flat, shapes), (x,))


def reference(model, x, y, weight):
    """(p, p) mean over rows of J' (Hessian of the loss in the outputs) J, plus the penalty."""
    flat = flatten(model.parameters).detach()
    jacobian = jacrev(outputs_of(model, x))(flat).reshape(N, -1, len(flat))
    outputs = outputs_of(model, x)(flat)

    def loss(output, target):
        return model.likelihood.losses(output[None], target[None])[0]

    inner = vmap(hessian(loss))(outputs, y).reshape(N, jacobian.shape[1], -1)
    weight = torch.ones(N, dtype=flat.dtype) if weight is None else weight
    total = torch.einsum("n,nop,noq,nqr->pr", weight, jacobian, inner, jacobian) / N
    return total + torch.diag(penalty_of(model))


def penalty_of(model):
    decays = [torch.full_like(v, model.decay.get(k, 0.0)).flatten() for k, v in model.parameters.items()]
    return torch.cat(decays).detach()


def dense(model, rows, batch_size="auto"):
    found = DenseCurvature(PerRow(model, batch_size), rows)
    return found, found.basis @ torch.diag(found.values) @ found.basis.T


def close(found, expected, tolerance=1e-10):
    assert found.shape == expected.shape
    return (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_dense_curvature_is_the_gauss_newton_matrix_plus_the_penalty(name, weighted):
    model, rows, x, y, weight = make(name, weighted)
    assert close(dense(model, rows)[1], reference(model, x, y, weight))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3]])
def test_dense_curvature_of_a_linear_model_is_the_hessian_of_the_penalised_risk(name):
    model, rows, x, y, weight = make(name)
    decay = penalty_of(model)

    def risk(flat):
        losses = model.likelihood.losses(outputs_of(model, x)(flat), y)
        return (weight * losses).mean() + (decay * flat.square()).sum() / 2

    assert close(dense(model, rows)[1], hessian(risk)(flatten(model.parameters).detach()))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_dense_curvature_does_not_depend_on_batches(batch_size):
    model, rows, x, y, weight = make("mlp, softmax")
    assert close(dense(model, rows, batch_size)[1], reference(model, x, y, weight), 1e-12)


def test_weights_of_rows_are_copies_of_rows():
    model, _, x, y, _ = make("mlp, softmax", weighted=False)
    weight = torch.tensor([0.0, 1, 2] * 8, dtype=torch.float64)[:N]
    kept = torch.arange(N).repeat_interleave(weight.long())
    weighted = gauss_newton(PerRow(model), Rows(N, lambda rows: (x[rows], y[rows]), weight)) * N
    copied = gauss_newton(PerRow(model), Rows(len(kept), lambda rows: (x[kept[rows]], y[kept[rows]]))) * len(kept)
    assert close(weighted, copied)


def test_frozen_parameters_take_no_part():
    model, rows, x, y, weight = make("mlp, softmax")
    whole = reference(model, x, y, weight)
    model.module[0].weight.requires_grad_(False)
    assert close(dense(model, rows)[1], whole[20:, 20:])  # after the 5 x 4 weights of the first layer


def test_values_are_in_float64_also_for_a_float32_model():
    model, rows, x, y, weight = make("mlp, softmax", dtype=torch.float32)
    found, matrix = dense(model, rows)
    assert found.values.dtype == found.basis.dtype == torch.float64
    assert close(matrix, reference(model, x, y, weight).double(), 1e-6)


# ---- functions of the curvature --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp, softmax", "a bare parameter"])
@pytest.mark.parametrize("lead", [(), (1,), (6,), (2, 3)])
def test_apply_multiplies_directions_by_a_function_of_the_matrix(lead, name):
    model, rows, x, y, weight = make(name)
    found, _ = dense(model, rows)
    matrix = reference(model, x, y, weight)
    shapes = {key: value.shape for key, value in model.parameters.items()}
    vectors = torch.randn(*lead, len(matrix), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction = unflatten(vectors, shapes)

    def check(fn, expected):
        moved = found.apply(fn, direction)
        assert {key: value.shape for key, value in moved.items()} == {k: (*lead, *s) for k, s in shapes.items()}
        pieces = [value.reshape(*lead, -1) for value in moved.values()]
        assert close(torch.cat(pieces, -1), vectors @ expected, 1e-9)

    check(lambda s: s, matrix)
    check(torch.ones_like, torch.eye(len(matrix), dtype=torch.float64))
    check(lambda s: torch.exp(-3 * s), torch.linalg.matrix_exp(-3 * matrix))
    check(found.inverse(0.2), torch.linalg.inv(matrix + 0.2 * torch.eye(len(matrix), dtype=torch.float64)))


def test_apply_takes_parameters_without_axes(monkeypatch):
    module = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    module.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    matrix = torch.tensor([[2.0, 1, 0], [1, 3, 1], [0, 1, 4]], dtype=torch.float64)
    monkeypatch.setattr(curvature, "gauss_newton", lambda engine, rows: matrix.clone())
    model = DifferentiableModel(module, Gaussian(), None)
    vectors = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = DenseCurvature(PerRow(model), Rows(1, None)).apply(
        lambda s: s, {"weight": vectors[:, :2, None].transpose(1, 2), "scale": vectors[:, 2]}
    )
    assert moved["scale"].shape == (5,)
    assert close(torch.cat([moved["weight"][:, 0], moved["scale"][:, None]], 1), vectors @ matrix)


def test_apply_does_not_depend_on_the_order_of_the_directions_dict():
    model, rows, *_ = make("mlp, softmax")
    found, _ = dense(model, rows)
    direction = {name: torch.randn_like(value) for name, value in model.parameters.items()}
    moved = found.apply(found.inverse(0.1), dict(reversed(direction.items())))
    for name, value in found.apply(found.inverse(0.1), direction).items():
        assert torch.equal(moved[name], value)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_quadratic_is_the_form_of_every_rows_gradient(batch_size):
    model, rows, x, y, weight = make("mlp, softmax")
    inverse = torch.linalg.inv(reference(model, x, y, weight) + 0.1 * torch.eye(43, dtype=torch.float64))
    flat = flatten(model.parameters).detach()
    losses = jacrev(lambda flat: model.likelihood.losses(outputs_of(model, x)(flat), y))(flat)
    gradients = weight[:, None] * losses
    engine = PerRow(model, batch_size)
    found = DenseCurvature(engine, rows)
    expected = torch.einsum("np,pq,nq->n", gradients, inverse, gradients)
    for start, stop in ((0, N), (5, 12)):
        values = found.quadratic(engine, rows, found.inverse(0.1), start, stop)
        assert close(values, expected[start:stop], 1e-9)


def test_singular_curvature_is_an_error_that_names_damping():
    model, rows, *_ = make("linear, softmax", decay={})  # a constant added to all logits changes nothing
    found, _ = dense(model, rows)
    with pytest.raises(ValueError, match=r"singular.*damping above 0 \(damping=0\)"):
        found.inverse(0.0)
    assert torch.isfinite(found.inverse(1e-3)(found.values)).all()


def test_penalty_on_some_parameters_makes_the_curvature_regular_only_with_the_rest_determined():
    model, rows, *_ = make("linear, softmax")  # weights are penalised, intercepts are not: one direction is free
    found, _ = dense(model, rows)
    with pytest.raises(ValueError, match="damping"):
        found.inverse(0.0)


def test_invariant_directions_do_not_make_a_multinomial_model_singular():
    model, rows, x, y, weight = make("linear, softmax")
    free = torch.zeros(15, 1, dtype=torch.float64)
    free[12:] = 3**-0.5
    matrix = reference(model, x, y, weight)
    model.invariant = free
    found, _ = dense(model, rows)
    shapes = {name: value.shape for name, value in model.parameters.items()}
    flat = flatten(model.parameters).detach()
    gradients = jacrev(lambda flat: model.likelihood.losses(outputs_of(model, x)(flat), y))(flat)
    assert (gradients @ free).abs().max() < 1e-12
    solved = found.apply(found.inverse(0.0), unflatten(gradients, shapes))
    pieces = torch.cat([value.reshape(N, -1) for value in solved.values()], 1)
    assert close(pieces, gradients @ torch.linalg.pinv(matrix, hermitian=True), 1e-9)
    assert torch.isclose(found.values.sum(), matrix.trace() * (1 + 1 / 15))  # it got the mean eigenvalue


@pytest.mark.parametrize(
    ("name", "preconditioned"), [("mlp, softmax", False), ("a bare parameter", True), ("linear, squared error", True)]
)
def test_dense_curvature_of_several_states_is_the_mean_of_their_matrices(name, preconditioned):
    """The penalty counts once, and with the root; a decoupled decay beside it."""
    model, rows, x, y, weight = make(name)
    g = torch.Generator().manual_seed(0)
    own = model.module.state_dict()
    states = [{k: v + torch.randn(v.shape, generator=g, dtype=v.dtype) for k, v in own.items()} for _ in range(3)]
    matrix = torch.zeros(())
    for state in states:
        model.load(state)
        matrix = matrix + reference(model, x, y, weight) / len(states)
    root = decay = None
    if preconditioned:
        root = {k: 0.1 + torch.rand(v.shape, generator=g, dtype=v.dtype) for k, v in model.parameters.items()}
        last = list(root)[-1]
        decay, added = (
            {last: 0.3},
            torch.cat([torch.full_like(v, 0.3 * (k == last)).flatten() for k, v in root.items()]),
        )
        matrix = torch.diag(flatten(root)) @ matrix @ torch.diag(flatten(root)) + torch.diag(added)
    found = DenseCurvature(PerRow(model, 5), rows, visiting(model, states), root, decay)
    assert close(found.basis @ torch.diag(found.values) @ found.basis.T, matrix)


def test_a_dense_curvature_is_put_back_from_its_tensors():
    model, rows, *_ = make("mlp, softmax")
    found, matrix = dense(model, rows)
    empty = found.restored({key: value[:0] for key, value in found.tensors.items()})
    assert all(len(value) == 0 for value in empty.tensors.values())
    assert close(found.basis @ torch.diag(found.values) @ found.basis.T, matrix, 1e-14), "the first is what it was"
    again = empty.restored(found.tensors)
    direction = {name: torch.ones_like(value) for name, value in model.parameters.items()}
    for name, value in found.apply(found.inverse(0.1), direction).items():
        assert torch.equal(again.apply(again.inverse(0.1), direction)[name], value)


@pytest.mark.parametrize("lead", [(), (6,), (2, 3)])
def test_rotated_directions_are_scaled_and_turned_back(lead):
    model, rows, *_ = make("a bare parameter")
    found, _ = dense(model, rows)
    shapes = {key: value.shape for key, value in model.parameters.items()}
    vectors = torch.randn(*lead, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turned = found.rotate(unflatten(vectors, shapes))
    assert list(turned) == [ALL]
    assert close(turned[ALL], vectors @ found.basis)
    assert close(found.scale(torch.exp, turned)[ALL], turned[ALL] * found.values.exp())
    back = found.back(turned)
    assert {key: value.shape for key, value in back.items()} == {key: (*lead, *shape) for key, shape in shapes.items()}
    assert close(torch.cat([value.reshape(*lead, -1) for value in back.values()], -1), vectors)


def test_more_than_5000_parameters_are_refused_before_any_row_is_read():
    model = DifferentiableModel(nn.Linear(1000, 5), Categorical(), None)
    with pytest.raises(ValueError, match=r"5005 trainable parameters.*limited to 5000.*such as 'ekfac'"):
        DenseCurvature(PerRow(model), Rows(3, None))


def test_roots_of_many_outputs_are_held_for_few_rows_at_a_time(monkeypatch):
    classes, n = 40, 64
    x, y = torch.randn(n, 2, dtype=torch.float64), torch.randint(classes, (n,))
    model = DifferentiableModel(nn.Linear(2, classes, dtype=torch.float64), Categorical(), None)
    rows = Rows(n, lambda part: (x[part], y[part]))
    whole = gauss_newton(PerRow(model), rows)
    held = []
    roots = Categorical.roots

    def watched(self, outputs, targets):
        found = roots(self, outputs, targets)
        held.append(found.nbytes)
        return found

    monkeypatch.setattr(Categorical, "roots", watched)
    monkeypatch.setattr(curvature, "ROOT_BYTES", 10 * 8 * classes**2)
    assert close(gauss_newton(PerRow(model), rows), whole, 1e-12)
    assert max(held) <= 10 * 8 * classes**2


# ---- conjugate gradients ---------------------------------------------------------------------------------------------


def product(matrix, shapes):
    def multiply(direction):
        return unflatten(flatten_each(direction, shapes).to(matrix) @ matrix, shapes)

    return multiply


def solved(multiply, b, shapes, *settings):
    """Of one system."""
    return {
        name: value[0] for name, value in conjugate_gradients(multiply, unflatten(b[None], shapes), *settings).items()
    }


SHAPES = {"weight": torch.Size((3, 4)), "bias": torch.Size((3,))}


def problem(eigenvalues, seed=0):
    g = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(15, 15, generator=g, dtype=torch.float64))[0]
    matrix = basis @ torch.diag(torch.as_tensor(eigenvalues, dtype=torch.float64)) @ basis.T
    return (matrix + matrix.T) / 2, torch.randn(15, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_conjugate_gradients_solve_the_system(damping):
    matrix, b = problem(torch.logspace(-2, 1, 15))
    found = solved(product(matrix, SHAPES), b, SHAPES, damping, 1e-10, 200)
    assert list(found) == list(SHAPES)
    expected = torch.linalg.solve(matrix + damping * torch.eye(15, dtype=torch.float64), b)
    assert close(flatten(found), expected, 1e-7)


def test_conjugate_gradients_match_names_and_not_positions():
    matrix, b = problem(torch.linspace(1, 2, 15))

    def reversed_product(direction):
        return dict(reversed(product(matrix, SHAPES)(direction).items()))

    found = solved(reversed_product, b, SHAPES, 0.0, 1e-10, 200)
    assert close(flatten(found), torch.linalg.solve(matrix, b), 1e-8)


def test_conjugate_gradients_of_zero_are_zero():
    matrix, b = problem(torch.linspace(1, 2, 15))
    assert not flatten(solved(product(matrix, SHAPES), 0 * b, SHAPES, 0.0, 1e-10, 5)).any()


@pytest.mark.parametrize("eigenvalues", [[0.0] * 15, [0.0] * 5 + [1.0] * 10, [0.0] * 5 + list(range(1, 11))])
def test_conjugate_gradients_refuse_a_singular_curvature(eigenvalues):
    matrix, b = problem(eigenvalues)
    with pytest.raises(ValueError, match="damping"):
        solved(product(matrix, SHAPES), b, SHAPES, 0.0, 1e-10, 1000)


def test_conjugate_gradients_refuse_an_indefinite_curvature_although_the_system_has_a_solution():
    matrix, b = problem([-1.0, *range(1, 15)])
    with pytest.raises(ValueError, match=r"direction of curvature -.*damping"):
        solved(product(matrix, SHAPES), b, SHAPES, 0.0, 1e-10, 1000)


def test_conjugate_gradients_that_do_not_converge_are_an_error():
    matrix, b = problem(torch.logspace(-3, 1, 15))
    with pytest.raises(ValueError, match=r"did not converge in 4 products: relative residual .*damping"):
        solved(product(matrix, SHAPES), b, SHAPES, 0.0, 1e-10, 4)


def test_conjugate_gradients_with_exactly_enough_products():
    matrix, b = problem([1.0] * 7 + [3.0] * 8)  # two different eigenvalues: two steps
    found = solved(product(matrix, SHAPES), b, SHAPES, 0.0, 1e-8, 2)
    assert close(flatten(found), torch.linalg.solve(matrix, b), 1e-7)


@pytest.mark.parametrize(("batch_size", "dtype"), [(1, torch.float32), (7, torch.float64), (64, torch.float32)])
def test_conjugate_gradients_on_products_of_the_engine_equal_the_dense_solve(batch_size, dtype):
    model, rows, x, y, weight = make("mlp, softmax", dtype=dtype)
    engine = PerRow(model, batch_size)
    matrix = reference(model, x, y, weight).double()
    b = torch.randn(len(matrix), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shapes = {name: value.shape for name, value in model.parameters.items()}
    exact = dtype == torch.float64
    multiply = partial(gauss_newton_products, engine, rows)
    found = solved(multiply, b.to(dtype), shapes, 0.05, 1e-11 if exact else 1e-5, 300)
    expected = torch.linalg.solve(matrix + 0.05 * torch.eye(len(matrix), dtype=torch.float64), b)
    assert close(flatten(found), expected, 1e-9 if exact else 1e-4)


def test_systems_that_end_at_different_rounds_are_solved_side_by_side():
    matrix, b = problem([1.0] * 7 + [3.0] * 4 + [2.0] * 4)
    basis = torch.linalg.eigh(matrix)[1]
    sides = torch.stack([basis[:, 0], torch.zeros_like(b), b, basis[:, 0] + basis[:, -1], b])
    calls = []

    def multiply(direction):
        calls.append(len(direction["bias"]))
        return product(matrix, SHAPES)(direction)

    found = flatten_each(conjugate_gradients(multiply, unflatten(sides, SHAPES), 0.1, 1e-9, 9), SHAPES)
    expected = torch.linalg.solve(matrix + 0.1 * torch.eye(15, dtype=torch.float64), sides.T).T
    assert torch.allclose(found, expected, rtol=1e-7)
    # one, two and three different eigenvalues; elsewhere than on the processor nobody looks before eight rounds
    assert calls == ([4, 3, 2] if found.device.type == "cpu" else [4] * ROUNDS)
