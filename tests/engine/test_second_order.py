"""Hessians of rows times directions, against a backward pass through the gradient of every row alone."""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sktda.engine.layers import Formed, Product, Sum
from sktda.engine.pairwise import Preconditioned, by_layer
from sktda.engine.per_row import PerRow
from sktda.engine.second_order import SecondOrder
from sktda.model.base import DifferentiableModel, Rows, forward
from sktda.model.criterion import Custom
from sktda.model.softmax import Categorical
from tests.engine import test_layers as table
from tests.engine import test_per_row as losses
from tests.engine.test_layers import CASES, CPU, Net, close, direction, flat, rows_of

TWICE = [name for name, case in CASES.items() if case.twice]
each_case = pytest.mark.parametrize("name", TWICE)
few_cases = pytest.mark.parametrize(
    "name",
    ["MLP, ReLU in place", "conv2d, pooled", "encoder", "group norm", "LSTM", "bare parameter", "dict of inputs"],
)
K = 3


def bent(model, rows, along):
    """(n, p) H_i w by differentiating <g_i, w>, one row at a time; (k, n, p) for several w (k, p)."""
    own, found = list(model.parameters.values()), []
    for i in range(len(rows)):
        inputs, targets, weight = rows.block(slice(i, i + 1), CPU)
        with sdpa_kernel(SDPBackend.MATH):  # the other kernels of attention have no second derivative
            loss = model.likelihood.losses(forward(model.module, inputs), targets).sum()
        loss = loss if weight is None else loss * weight[0]
        slopes = torch.autograd.grad(loss, own, create_graph=True, materialize_grads=True, allow_unused=True)
        dots = along.reshape(-1, along.shape[-1]) @ torch.cat([slope.flatten() for slope in slopes])
        found.append(torch.stack([curved(own, dot) for dot in dots]))
    found = torch.stack(found, 1)
    return found if along.ndim == 2 else found[0]


def curved(own, dot):
    """(p,) gradient of a dot product with a gradient; zero where that is a constant."""
    if not dot.requires_grad:
        return torch.zeros(sum(value.numel() for value in own), dtype=dot.dtype)
    bends = torch.autograd.grad(dot, own, retain_graph=True, materialize_grads=True, allow_unused=True)
    return torch.cat([bend.flatten() for bend in bends])


@cache
def problem(name):
    """(model, rows, gradients (n, p), K directions (flat, by parameter), changes (K, n, p)) of a case."""
    model, rows, gradients = table.truth(name)
    along, directions = direction(model, 7, K)
    return model, rows, gradients, along, directions, bent(model, rows, along)


def first(directions):
    return {name: value[0] for name, value in directions.items()}


def whole(rows):
    return rows.block(slice(0, len(rows)), CPU)


def flat_each(values):
    return torch.cat([value.flatten(1) for value in values.values()], 1)


# ---- every module --------------------------------------------------------------------------------------------------


def changes_of_rows_equal_a_second_backward_pass_per_row(name):
    _, rows, gradients, along, directions, bends = problem(name)
    engine = table.prepared(name)
    found = SecondOrder(engine).changes(whole(rows), first(directions))
    close(found.dots, gradients @ along[0], 1e-9)
    close(engine.formed(found.factors), gradients, 1e-9)
    close(engine.formed(found.changes), bends[0], 1e-9)


def changes_meet_directions_rows_and_their_own_gradients(name):
    _, rows, gradients, along, directions, bends = problem(name)
    engine = table.prepared(name)
    found = SecondOrder(engine).changes(whole(rows), first(directions))
    close(Preconditioned(by_layer(engine, directions)).block(found.changes), along @ bends[0].T, 1e-9)
    others = engine.capture(rows.block(slice(1, 4), CPU))[1]
    close(sum(found.changes[n].gram(others[n]) for n in others), bends[0] @ gradients[1:4].T, 1e-9)
    close(sum(found.changes[n].pairs(found.factors[n]) for n in others), (bends[0] * gradients).sum(1), 1e-9)
    close(engine.formed({n: part.scaled(-0.3) for n, part in found.changes.items()}), -0.3 * bends[0], 1e-9)


def products_of_a_block_with_several_directions_and_with_one(name):
    _, rows, gradients, along, directions, bends = problem(name)
    second = SecondOrder(table.prepared(name))
    for k in (K, 1):
        some = {parameter: value[:k] for parameter, value in directions.items()}
        dots, slopes, products = second.block_products(whole(rows), some)
        close(dots, gradients @ along[:k].T, 1e-9)
        close(flat(slopes), gradients.sum(0), 1e-9)
        close(flat_each(products), bends[:k].sum(1), 1e-9)


def products_of_all_rows_have_the_penalty(name):
    model, rows, gradients, along, directions, bends = problem(name)
    decay = {parameter: 0.1 + 0.2 * k for k, parameter in enumerate(model.parameters) if k != 1}
    engine = PerRow(DifferentiableModel(model.module, model.likelihood, rows_of, decay), 4)
    rates = torch.cat(
        [torch.full((v.numel(),), decay.get(n, 0.0), dtype=torch.float64) for n, v in model.parameters.items()]
    )
    point = torch.cat([value.detach().flatten() for value in model.parameters.values()])
    gradient, products = SecondOrder(engine).products(rows, directions)
    close(flat(gradient), gradients.mean(0) + rates * point, 1e-9)
    close(flat_each(products), bends.mean(1) + rates * along, 1e-9)
    again, product = SecondOrder(engine).product(rows, first(directions))
    close(flat(again), flat(gradient), 1e-9)
    close(flat(product), flat_each(products)[0], 1e-9)


@each_case
def test_every_property(name):
    """All of one module, whose Hessians row by row are asked once; the traceback names the property."""
    changes_of_rows_equal_a_second_backward_pass_per_row(name)
    changes_meet_directions_rows_and_their_own_gradients(name)
    products_of_a_block_with_several_directions_and_with_one(name)
    products_of_all_rows_have_the_penalty(name)


# modules whose changes need not be formed, which is what makes them cheap
DUAL = ("linear", "frozen weight", "frozen layer", "MLP, ReLU in place", "tokens", "conv1d, pooled",
        "conv2d, pooled", "embedding", "layer norm of tokens", "batch norm of images", "encoder", "linear called twice",
        "residual block")  # fmt: skip


@pytest.mark.parametrize("name", DUAL)
def test_factors_change_without_gradients_of_rows(name):
    _, rows, _, _, directions, _ = problem(name)
    engine = table.prepared(name)
    second = SecondOrder(engine)
    found = second.changes(whole(rows), first(directions))
    assert second._dual
    for layer in engine.layers:
        assert isinstance(found.changes[layer.name], Sum) == isinstance(found.factors[layer.name], Product)


@few_cases
def test_the_module_is_left_as_it_was(name):
    model, rows = table.build(name)
    before = table.state_of(model.module)
    second = SecondOrder(PerRow(model, 4))
    second.engine.prepare(rows)
    directions = direction(model, 7, K)[1]
    second.changes(whole(rows), first(directions))
    second.products(rows, directions)
    after = table.state_of(model.module)
    for key, value in before.items():
        assert torch.equal(after[key], value) if isinstance(value, torch.Tensor) else after[key] == value, key


@few_cases
def test_single_precision(name):
    _, _, gradients, along, directions, bends = problem(name)
    model, rows = table.build(name, dtype=torch.float32)
    engine = PerRow(model, 4)
    engine.prepare(rows)
    second = SecondOrder(engine)
    found = second.changes(whole(rows), {n: value.float() for n, value in first(directions).items()})
    assert found.dots.dtype == torch.float32
    close(found.dots, gradients @ along[0], 1e-4)
    assert (engine.formed(found.changes) - bends[0]).norm() <= 1e-3 * bends[0].norm() + 1e-6


# ---- every loss ----------------------------------------------------------------------------------------------------


@losses.each_loss
def test_every_loss_has_its_dense_hessian(name):
    model, rows = losses.problem(name, 3)
    along, directions = losses.direction(model)
    gradients = losses.dense_gradients(name, model, rows)
    row_losses = [losses.row_loss(name, model, rows, i) for i in range(3)]
    expected = torch.stack([losses.hessian_times(each, model, along) for each in row_losses])
    engine = PerRow(model, 2)
    engine.prepare(rows)
    second = SecondOrder(engine)
    found = second.changes(whole(rows), directions)
    assert second._dual or name == "custom"  # torch's Huber loss has no forward derivative of its backward pass
    close(found.dots, gradients @ along, 1e-9)
    close(engine.formed(found.factors), gradients, 1e-9)
    close(engine.formed(found.changes), expected, 1e-9)
    gradient, product = second.product(rows, directions)
    rates = losses.decay_of(model)
    point = torch.cat([value.detach().flatten() for value in model.parameters.values()])
    close(flat(gradient), gradients.mean(0) + rates * point, 1e-9)
    close(flat(product), expected.mean(0) + rates * along, 1e-9)


def test_a_criterion_of_ones_own():
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    criterion = nn.SmoothL1Loss(reduction="none", beta=0.8)
    model = DifferentiableModel(module, Custom(criterion), rows_of)
    X = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    rows = rows_of(X, torch.randn(7, 2, generator=generator, dtype=torch.float64))
    along, directions = direction(model, 1)

    def product(i):
        inputs, targets, _ = rows.block(slice(i, i + 1), CPU)
        return losses.hessian_times(criterion(module(inputs), targets).mean(), model, along)

    expected = torch.stack([product(i) for i in range(7)])
    engine = PerRow(model, 3)
    engine.prepare(rows)
    second = SecondOrder(engine)
    close(engine.formed(second.changes(whole(rows), directions).changes), expected, 1e-9)
    close(flat(second.product(rows, directions)[1]), expected.mean(0), 1e-9)


# ---- derivatives that are missing or wrong -------------------------------------------------------------------------


class Cube(torch.autograd.Function):
    """x^3; the forward derivative of its backward pass is `wrong` times the true one where x changes."""

    wrong = 1.0

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return Slope.apply(x, gradient)

    @staticmethod
    def jvp(ctx, change):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * change

    @staticmethod
    def vmap(info, dims, x):
        return Cube.apply(x), dims[0]


class Slope(torch.autograd.Function):
    """The backward pass of Cube."""

    @staticmethod
    def forward(x, gradient):
        return 3 * x**2 * gradient

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, outer):
        x, gradient = ctx.saved_tensors
        return 6 * x * gradient * outer, 3 * x**2 * outer

    @staticmethod
    def jvp(ctx, x_change, gradient_change):
        x, gradient = ctx.saved_tensors
        change = torch.zeros_like(x)
        if x_change is not None:
            change = change + Cube.wrong * 6 * x * gradient * x_change
        return change if gradient_change is None else change + 3 * x**2 * gradient_change

    @staticmethod
    def vmap(info, dims, x, gradient):
        x = x.movedim(dims[0], 0) if dims[0] is not None else x.expand(info.batch_size, *x.shape)
        gradient = (
            gradient.movedim(dims[1], 0) if dims[1] is not None else gradient.expand(info.batch_size, *x.shape[1:])
        )
        return Slope.apply(x, gradient), 0


def cubed():
    """(model, rows) with a cube in the middle."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net(lambda m, x: m.last(Cube.apply(m.first(x))), first=nn.Linear(3, 4), last=nn.Linear(4, 3)).double()
    return DifferentiableModel(net, Categorical(), rows_of), table.vectors(9)


@pytest.mark.parametrize(("wrong", "trusted"), [(1.0, True), (1.001, False)])
def test_a_wrong_forward_derivative_is_found_and_the_changes_are_formed(wrong, trusted, monkeypatch):
    monkeypatch.setattr(Cube, "wrong", wrong)
    model, rows = cubed()
    along, directions = direction(model, 1)
    engine = PerRow(model, 4)
    engine.prepare(rows)
    second = SecondOrder(engine)
    found = second.changes(whole(rows), directions)
    assert second._dual is trusted
    assert all(isinstance(part, Formed) for part in found.changes.values()) is not trusted
    close(found.dots, table.row_gradients(model, rows) @ along, 1e-9)
    close(engine.formed(found.factors), table.row_gradients(model, rows), 1e-9)
    close(engine.formed(found.changes), bent(model, rows, along), 1e-9)


@pytest.mark.parametrize("first_ones", ["weigh nothing", "are asked along nothing"])
def test_what_says_nothing_about_a_forward_derivative_does_not_make_it_trusted(first_ones, monkeypatch):
    monkeypatch.setattr(Cube, "wrong", 1.1)
    model, rows = cubed()
    along, directions = direction(model, 1)
    weight = torch.ones(9, dtype=torch.float64)
    if first_ones == "weigh nothing":
        weight[:3] = 0
    rows = Rows(9, rows.read, weight)
    engine = PerRow(model, 9)
    engine.prepare(rows)
    second = SecondOrder(engine)
    if first_ones == "are asked along nothing":
        second.changes(whole(rows), {name: torch.zeros_like(value) for name, value in directions.items()})
    close(engine.formed(second.changes(whole(rows), directions).changes), bent(model, rows, along), 1e-9)


def test_a_function_without_forward_derivatives_and_vmap():
    net = Net(
        lambda m, x: m.last(table.Sign.apply(m.first(x)) * torch.tanh(m.scale)),
        first=nn.Linear(3, 4),
        last=nn.Linear(4, 3),
        scale=nn.Parameter(torch.ones(4)),
    )
    model, rows = DifferentiableModel(net.double(), Categorical(), rows_of), table.vectors()
    along, directions = direction(model, 3, K)
    engine = PerRow(model, 4)
    engine.prepare(rows)
    expected = bent(model, rows, along)
    second = SecondOrder(engine)
    close(engine.formed(second.changes(whole(rows), first(directions)).changes), expected[0], 1e-9)
    close(flat_each(second.products(rows, directions)[1]), expected.mean(1), 1e-9)


def test_no_direction_changes_nothing():
    model, rows, gradients = table.truth("MLP, ReLU in place")
    engine = table.prepared("MLP, ReLU in place")
    still = {name: torch.zeros_like(value) for name, value in model.parameters.items()}
    found = SecondOrder(engine).changes(whole(rows), still)
    assert not found.dots.any()
    assert not engine.formed(found.changes).any()
    close(engine.formed(found.factors), gradients, 1e-9)


# ---- batches -------------------------------------------------------------------------------------------------------


@few_cases
def test_every_batch_size_gives_the_same(name):
    model, rows = table.build(name, 13)
    directions = direction(model, 5, K)[1]
    found = []
    for size in (5, 1, "auto"):
        engine = PerRow(model, size)
        engine.prepare(rows)
        second = SecondOrder(engine)
        gradient, products = second.products(rows, directions)
        along = first(directions)
        found_by_batch = engine.computed(rows, lambda part: second.changes(rows.block(part, CPU), along))  # noqa: B023
        blocks = [block for _, block in found_by_batch]
        changes = torch.cat([engine.formed(block.changes) for block in blocks])
        found.append((flat(gradient), flat_each(products), changes, torch.cat([block.dots for block in blocks])))
    for other in found[1:]:
        for got, expected in zip(other, found[0], strict=True):
            close(got, expected, 1e-10)


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("k", [1, K])
def test_batches_are_halved_when_memory_runs_out(where, k):
    model, rows = losses.problem("categorical, class weights", 40)
    directions = {name: value.expand(k, *value.shape) for name, value in losses.direction(model)[1].items()}
    expected = SecondOrder(PerRow(model, 8)).products(rows, directions)
    model.module = losses.Scarce(model.module, 5, where)
    model.decay = {f"module.{name}": rate for name, rate in model.decay.items()}
    directions = {f"module.{name}": value for name, value in directions.items()}
    got = SecondOrder(PerRow(model, 32)).products(rows, directions)
    assert model.module.refused == 3  # 32, 16 and 8 rows: none is asked for again, direction by direction
    close(flat(got[0]), flat(expected[0]))
    close(flat_each(got[1]), flat_each(expected[1]))


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_memory_that_runs_out_says_nothing_about_the_module(where):
    model, rows = losses.problem("categorical", 9)
    model.module = losses.Scarce(model.module, 3, where)
    engine = PerRow(model, 4)
    engine.prepare(rows)
    second = SecondOrder(engine)
    directions = losses.direction(model)[1]
    for fits in (0, 3):  # in the trial of three rows, and after it
        model.module.fits = fits
        with pytest.raises(torch.OutOfMemoryError):
            second.changes(whole(rows), directions)
    model.module.fits = 9
    second.changes(whole(rows), directions)
    assert second._dual


def test_rows_are_read_once():
    model, rows = losses.problem("categorical", 40)
    directions = {name: value.expand(K, *value.shape) for name, value in losses.direction(model)[1].items()}
    engine = PerRow(model, 8)
    counted = losses.Counted(rows)
    engine.prepare(counted.rows)
    counted.asked.clear()
    SecondOrder(engine).products(counted.rows, directions)
    assert counted.asked == [8] * 5


def test_global_random_state_is_left_alone():
    model, rows = losses.problem("categorical")
    engine = PerRow(model)
    state = torch.get_rng_state()
    engine.prepare(rows)
    SecondOrder(engine).changes(whole(rows), losses.direction(model)[1])
    SecondOrder(engine).product(rows, losses.direction(model)[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_do_not_meet_in_the_one_level_of_dual_numbers():
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    X, y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1] * 3)
    rows = Rows(6, lambda part: (X[part], y[part]))
    along = {name: torch.randn_like(value) for name, value in module.named_parameters()}

    def change(_):
        engine = PerRow(DifferentiableModel(deepcopy(module), Categorical(), None))
        engine.prepare(rows)
        second = SecondOrder(engine)
        found = second.changes(rows.block(slice(0, 6), CPU), along)
        return second._dual, torch.cat([part.gradients() for part in found.changes.values()], dim=1)

    alone = change(0)[1]
    with ThreadPoolExecutor(8) as pool:
        for dual, values in pool.map(change, range(24)):
            assert dual
            torch.testing.assert_close(values, alone)
