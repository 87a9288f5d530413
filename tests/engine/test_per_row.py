"""What the per-row engine promises for every loss, weight, penalty, batch size and source of rows."""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.functional import linear

from sktda.engine import functional
from sktda.engine.functional import StillInputs, dual_numbers, load_forward_mode
from sktda.engine.gauss_newton import gauss_newton_product
from sktda.engine.layers.linear import Linear
from sktda.engine.per_row import PerRow
from sktda.engine.second_order import SecondOrder
from sktda.model.adapters import differentiable
from sktda.model.base import DifferentiableModel, Rows, forward
from sktda.model.criterion import Custom
from sktda.model.likelihood import Binary, Gaussian, Likelihood
from sktda.model.softmax import Categorical
from tests.in_turn import in_turn
from tests.model.nets import make_net
from tests.model.nets import rows as net_rows

CPU = torch.device("cpu")
N, FEATURES = 9, 3
WEIGHTS = torch.tensor([0.5, 2.0, 1.5, 0.7], dtype=torch.float64)


def codes(n, generator, shape):
    return torch.randint(shape[0], (n,), generator=generator)


def numbers(n, generator, shape):
    return torch.randn(n, *shape, generator=generator, dtype=torch.float64)


def zeros_and_ones(n, generator, shape):
    return torch.randint(2, (n, *shape), generator=generator).double()


def shares(n, generator, shape):
    return torch.rand(n, *shape, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Loss:
    """A likelihood, the shape of a row's outputs, the maker of its targets and torch's own loss per output."""

    likelihood: Likelihood
    shape: tuple[int, ...]
    targets: object
    criterion: nn.Module
    average: bool = False
    final: Callable[[], nn.Module] = nn.Identity


def cross_entropy(**options):
    return nn.CrossEntropyLoss(reduction="none", **options)


def bce(**options):
    return nn.BCEWithLogitsLoss(reduction="none", **options)


MSE = nn.MSELoss(reduction="none")
HUBER = nn.HuberLoss(reduction="none", delta=0.7)


class LogNLL(nn.Module):
    """NLLLoss of the logarithm, which is what skorch trains a NeuralNetClassifier with."""

    def forward(self, outputs, targets):
        return nn.functional.nll_loss(outputs.log(), targets, weight=WEIGHTS, reduction="none")


LOSSES = {
    "categorical": Loss(Categorical(), (4,), codes, cross_entropy()),
    "categorical, class weights": Loss(Categorical(WEIGHTS), (4,), codes, cross_entropy(weight=WEIGHTS)),
    "categorical, smoothing": Loss(Categorical(label_smoothing=0.2), (4,), codes, cross_entropy(label_smoothing=0.2)),
    "categorical, class weights, smoothing": Loss(
        Categorical(WEIGHTS, 0.2), (4,), codes, cross_entropy(weight=WEIGHTS, label_smoothing=0.2)
    ),
    "categorical, probabilities": Loss(
        Categorical(WEIGHTS, probabilities=True), (4,), codes, LogNLL(), final=partial(nn.Softmax, dim=1)
    ),
    "binary, flat": Loss(Binary(), (), zeros_and_ones, bce()),
    "binary, flat, positive weight": Loss(
        Binary(2.5), (), zeros_and_ones, bce(pos_weight=torch.tensor(2.5, dtype=torch.float64))
    ),
    "binary, one column, shares": Loss(Binary(), (1,), shares, bce()),
    "binary, several": Loss(Binary(WEIGHTS), (4,), zeros_and_ones, bce(pos_weight=WEIGHTS)),
    "binary, several, average": Loss(
        Binary(WEIGHTS, average=True), (4,), zeros_and_ones, bce(pos_weight=WEIGHTS), average=True
    ),
    "binary, grid": Loss(Binary(), (2, 3), zeros_and_ones, bce()),
    "binary, probabilities": Loss(
        Binary(probabilities=True), (2,), zeros_and_ones, nn.BCELoss(reduction="none"), final=nn.Sigmoid
    ),
    "gaussian, flat": Loss(Gaussian(), (), numbers, MSE),
    "gaussian, one column": Loss(Gaussian(), (1,), numbers, MSE),
    "gaussian, several": Loss(Gaussian(), (3,), numbers, MSE),
    "gaussian, average": Loss(Gaussian(average=True), (3,), numbers, MSE, average=True),
    "gaussian, grid": Loss(Gaussian(average=True), (2, 2), numbers, MSE, average=True),
    "gaussian, half": Loss(
        Gaussian(0.5), (2,), numbers, type("Half", (nn.Module,), {"forward": lambda m, o, t: MSE(o, t) / 2})()
    ),
    "custom": Loss(Custom(HUBER), (3,), numbers, HUBER, average=True),
}
each_loss = pytest.mark.parametrize("name", LOSSES)


class Mlp(nn.Module):
    """Three layers with tanh, outputs of the shape asked for."""

    def __init__(self, shape, final):
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, 4), nn.Linear(4, 3)
        self.last = nn.Linear(3, int(np.prod(shape)))
        self.shape, self.final = shape, final()

    def forward(self, X):
        h = self.last(torch.tanh(self.second(torch.tanh(self.first(X)))))
        return self.final(h.reshape(len(X), *self.shape))


def rows_of(X, y, weight=None):
    return Rows(len(X), lambda block: (X[block], y[block]), weight)


def problem(name, n=N):
    """(model with decay on some parameters, rows with weights)."""
    loss = LOSSES[name]
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = Mlp(loss.shape, loss.final).double().eval()
    X = torch.randn(n, FEATURES, generator=generator, dtype=torch.float64)
    weight = torch.rand(n, generator=generator, dtype=torch.float64) + 0.2
    decay = {"first.weight": 0.3, "last.bias": 0.05}
    return DifferentiableModel(module, loss.likelihood, rows_of, decay), rows_of(
        X, loss.targets(n, generator, loss.shape), weight
    )


def row_loss(name, model, rows, i):
    """Weighted loss of row i by torch's own criterion."""
    inputs, targets, weight = rows.block(slice(i, i + 1), CPU)
    loss = LOSSES[name]
    values = loss.criterion(model.module(inputs), targets)
    return weight[0] * (values.mean() if loss.average else values.sum())


def gradient(value, model, **options):
    own = list(model.parameters.values())
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, own, materialize_grads=True, **options)])


def dense_gradients(name, model, rows):
    return torch.stack([gradient(row_loss(name, model, rows, i), model) for i in range(len(rows))])


def hessian_times(value, model, along):
    """(p,) by a second backward pass, through the gradient times the direction."""
    return gradient(gradient(value, model, create_graph=True) @ along, model)


def decay_of(model):
    return torch.cat(
        [
            torch.full((value.numel(),), model.decay.get(name, 0.0), dtype=torch.float64)
            for name, value in model.parameters.items()
        ]
    )


def direction(model, seed=3):
    generator = torch.Generator().manual_seed(seed)
    found = {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in model.parameters.items()
    }
    return flat(found), found


def flat(values):
    return torch.cat([value.flatten() for value in values.values()])


def close(got, expected, rtol=1e-11):
    assert got.shape == expected.shape
    error = (got - expected).abs().max().item()
    assert error <= rtol * expected.abs().max().item(), f"error {error:.3g} of {expected.abs().max().item():.3g}"


# ---- every loss ----------------------------------------------------------------------------------------------------


@each_loss
def test_losses_and_gradients_are_those_of_the_criterion(name):
    model, rows = problem(name)
    engine = PerRow(model, 4)
    close(engine.losses(rows), torch.stack([row_loss(name, model, rows, i) for i in range(N)]).detach())
    expected = dense_gradients(name, model, rows)
    along, directions = direction(model)
    close(engine.gradients(rows, slice(0, N)), expected)
    close(engine.square_norms(rows), expected.square().sum(1))
    close(flat(engine.mean_gradient(rows)), expected.mean(0))
    for forward_mode in (True, False):
        engine._forward_mode = forward_mode
        close(engine.dots(rows, directions), expected @ along)


@each_loss
def test_hessian_product_equals_the_dense_hessian_with_penalty(name):
    model, rows = problem(name)
    along, directions = direction(model)
    risk = sum(row_loss(name, model, rows, i) for i in range(N)) / N
    expected = hessian_times(risk, model, along) + decay_of(model) * along
    close(flat(SecondOrder(PerRow(model, 4)).product(rows, directions)[1]), expected)


@each_loss
def test_gauss_newton_product_equals_the_dense_matrix_with_penalty(name):
    model, rows = problem(name)
    along, directions = direction(model)
    expected = decay_of(model) * along
    for i in range(N):
        inputs, targets, weight = rows.block(slice(i, i + 1), CPU)
        outputs = model.module(inputs)
        jacobian = torch.stack([gradient(each, model, retain_graph=True) for each in outputs.flatten()])
        curvature = output_curvature(name, outputs.detach(), targets)
        expected += weight[0] * jacobian.T @ (curvature @ (jacobian @ along)) / N
    close(flat(gauss_newton_product(PerRow(model, 4), rows, directions)), expected)


def output_curvature(name, outputs, targets):
    """(k, k) Hessian of one row's loss in its outputs; for probabilities its mean over labels of the model."""
    loss = LOSSES[name]

    def value(out, target):
        values = loss.criterion(out.reshape(outputs.shape), target)
        return values.mean() if loss.average else values.sum()

    if name == "categorical, probabilities":
        fisher = torch.diag(1 / outputs[0])  # of unconstrained probabilities
        return WEIGHTS[targets[0]] * fisher
    if name == "binary, probabilities":
        return torch.diag((1 / (outputs * (1 - outputs)))[0])
    hessian = torch.autograd.functional.hessian(lambda out: value(out, targets), outputs.flatten())
    return hessian if not isinstance(loss.likelihood, Custom) else hessian.clamp(min=0)


@each_loss
def test_roots_multiply_to_the_output_curvature(name):
    model, rows = problem(name)
    inputs, targets, _ = rows.block(slice(0, N), CPU)
    outputs = model.module(inputs).detach()
    roots = model.likelihood.roots(outputs, targets)
    assert roots.shape[2:] == outputs.shape[1:]
    roots = roots.reshape(N, roots.shape[1], -1)
    for i in range(N):
        expected = output_curvature(name, outputs[i : i + 1], targets[i : i + 1])
        assert torch.allclose(roots[i].T @ roots[i], expected, rtol=1e-10, atol=1e-12)


# ---- labels drawn from the model -----------------------------------------------------------------------------------

drawing = pytest.mark.parametrize("name", [name for name in LOSSES if name != "custom"])
TIMES = 4000


def repeated(name):
    """Outputs and targets of one row, TIMES over, and noise: evenly spread quantiles in a random order by output."""
    model, rows = problem(name)
    inputs, targets, _ = rows.block(slice(2, 3), CPU)
    outputs = model.module(inputs).detach().expand(TIMES, *LOSSES[name].shape)
    generator = torch.Generator().manual_seed(5)
    noise = model.likelihood.noise(outputs.shape, generator)
    quantiles = (torch.arange(TIMES, dtype=torch.float64) + 0.5) / TIMES
    if isinstance(model.likelihood, Gaussian):
        quantiles = torch.special.ndtri(quantiles)
    columns = [quantiles[torch.randperm(TIMES, generator=generator)] for _ in range(noise[0].numel())]
    return (
        model.likelihood,
        outputs,
        targets.expand(TIMES, *targets.shape[1:]),
        torch.stack(columns, 1).reshape(noise.shape),
    )


@drawing
def test_drawn_labels_have_the_models_distribution(name):
    likelihood, outputs, _, noise = repeated(name)
    drawn = likelihood.draw(outputs, noise)
    assert torch.isfinite(likelihood.losses(outputs, drawn)).all()
    if isinstance(likelihood, Categorical):
        p = outputs[0] if likelihood.probabilities else outputs[0].softmax(0)
        got = torch.bincount(drawn, minlength=len(p)) / TIMES
        assert torch.allclose(got.double(), p, atol=2 / TIMES)
    elif isinstance(likelihood, Binary):
        p = outputs[0] if likelihood.probabilities else outputs[0].sigmoid()
        assert torch.allclose(drawn.mean(0), p, atol=2 / TIMES)
    else:
        scale = likelihood.scale / (outputs[0].numel() if likelihood.average else 1)
        assert torch.allclose(drawn.mean(0), outputs[0], atol=1e-3)
        assert torch.allclose(drawn.var(0), torch.full_like(drawn[0], 1 / (2 * scale)), rtol=5e-3)


@drawing
def test_slopes_have_mean_zero_and_the_output_curvature_as_covariance(name):
    likelihood, outputs, targets, noise = repeated(name)
    slopes = likelihood.slopes(outputs, targets, noise)
    assert slopes.shape == outputs.shape
    slopes = slopes.reshape(TIMES, -1)
    expected = output_curvature(name, outputs[:1], targets[:1])
    size = expected.diagonal().max()
    mean = slopes.mean(0)
    if name == "categorical, probabilities":  # along ones, where probabilities that add to one never move
        mean = mean - mean.mean()
    assert torch.allclose(mean, torch.zeros_like(mean), atol=1e-2 * size.sqrt().item())
    assert torch.allclose(slopes.T @ slopes / TIMES, expected, atol=0.06 * size.item())  # independent outputs: 1/sqrt


@drawing
def test_noise_depends_on_the_generator_alone(name):
    likelihood, outputs, _, _ = repeated(name)
    state = torch.get_rng_state()
    first, second = (likelihood.noise(outputs.shape, torch.Generator().manual_seed(8)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(first) == TIMES


@each_loss
def test_margins_are_the_log_odds_of_the_right_class(name):
    model, rows = problem(name)
    inputs, targets, _ = rows.block(slice(0, N), CPU)
    outputs = model.module(inputs).detach()
    got = model.likelihood.margins(outputs, targets)
    if isinstance(model.likelihood, Categorical):
        p = outputs if model.likelihood.probabilities else outputs.softmax(1)
        right = p[torch.arange(N), targets]
        expected = right.log() - (1 - right).log()
    elif isinstance(model.likelihood, Binary):
        p = outputs if model.likelihood.probabilities else outputs.sigmoid()
        odds = p.log() - (1 - p).log()
        expected = (odds * (2 * targets - 1)).reshape(N, -1).sum(1)
    elif isinstance(model.likelihood, Gaussian):
        expected = -(outputs - targets).abs().reshape(N, -1).sum(1)
    else:
        expected = -model.likelihood.losses(outputs, targets)
    assert torch.allclose(got, expected, rtol=1e-9)


def test_margin_of_a_certain_row_is_large_and_finite_in_single_precision():
    outputs = torch.tensor([[60.0, 0.0, -5.0], [0.0, 60.0, 0.0]])
    margins = Categorical().margins(outputs, torch.tensor([0, 0]))
    assert torch.allclose(margins, torch.tensor([60.0, -60.0]), atol=0.1)


# ---- other measures than the loss, directions, penalties -----------------------------------------------------------


def test_another_measure_replaces_the_loss():
    model, rows = problem("categorical")
    engine = PerRow(model, 4)
    engine.prepare(rows)
    inputs, targets, weight = rows.block(slice(0, N), CPU)
    margins = model.likelihood.margins(model.module(inputs), targets) * weight
    expected = torch.stack([gradient(each, model, retain_graph=True) for each in margins])
    close(engine.block_gradients((inputs, targets, weight), model.likelihood.margins), expected)
    close(flat(engine.mean_gradient(rows, model.likelihood.margins)), expected.mean(0))


def test_parameters_missing_in_a_direction_count_as_zero():
    model, rows = problem("gaussian, several")
    _, directions = direction(model)
    part = {"second.weight": directions["second.weight"]}
    whole = {name: value if name in part else torch.zeros_like(value) for name, value in directions.items()}
    expected = dense_gradients("gaussian, several", model, rows) @ flat(whole)
    for forward_mode in (True, False):
        engine = PerRow(model, 4)
        engine._forward_mode = forward_mode
        close(engine.dots(rows, part), expected)


def test_frozen_parameters_take_no_part():
    model, rows = problem("categorical")
    model.module.first.requires_grad_(False)
    model.module.last.bias.requires_grad_(False)
    engine = PerRow(model, 4)
    along, directions = direction(model)
    assert list(model.parameters) == ["second.weight", "second.bias", "last.weight"]
    expected = dense_gradients("categorical", model, rows)
    close(engine.gradients(rows, slice(0, N)), expected)
    close(engine.dots(rows, directions), expected @ along)
    risk = sum(row_loss("categorical", model, rows, i) for i in range(N)) / N
    close(flat(SecondOrder(engine).product(rows, directions)[1]), hessian_times(risk, model, along))


def test_rows_without_weights_are_rows_of_weight_one():
    model, rows = problem("binary, flat")
    ones = Rows(N, rows.read, torch.ones(N, dtype=torch.float64))
    bare = Rows(N, rows.read)
    _, directions = direction(model)
    engine = PerRow(model, 4)
    for ask in (engine.losses, engine.square_norms, lambda r: engine.dots(r, directions)):
        assert torch.equal(ask(ones), ask(bare))
    assert torch.equal(flat(engine.mean_gradient(ones)), flat(engine.mean_gradient(bare)))


def test_square_norms_of_rooted_rows_are_linear_in_the_weight():
    model, rows = problem("categorical")
    plain = PerRow(model, 4).square_norms(Rows(N, rows.read))
    close(PerRow(model, 4).square_norms(rows.rooted()), plain * rows.weight)


# ---- batches -------------------------------------------------------------------------------------------------------


def results(engine, rows, directions):
    return [
        engine.losses(rows),
        engine.square_norms(rows),
        engine.dots(rows, directions),
        flat(engine.mean_gradient(rows)),
        flat(SecondOrder(engine).product(rows, directions)[1]),
        flat(gauss_newton_product(engine, rows, directions)),
    ]


@pytest.mark.parametrize("size", [1, 7, 64, 66, "auto"])
def test_batch_sizes_agree_to_rounding_in_double_precision(size):
    model, rows = problem("categorical, class weights", 66)
    _, directions = direction(model)
    for got, expected in zip(
        results(PerRow(model, size), rows, directions), results(PerRow(model, 5), rows, directions), strict=True
    ):
        close(got, expected, 1e-12)


def test_default_batch_size_follows_the_bytes_of_a_row(monkeypatch):
    model, rows = problem("gaussian, several")
    per_row = 8 * (FEATURES + 4 + 4 + 3 + 3 + 3) + 8 * 2 * 3  # inputs and outputs of three layers and the identity
    monkeypatch.setattr("sktda.engine.per_row.ACCELERATED", 1)
    for budget, expected in ((per_row * 6, 6), (1, 1), (10**12, 1024)):
        monkeypatch.setattr("sktda.engine.per_row.BATCH_BYTES", budget)
        engine = PerRow(model)
        engine.prepare(rows)
        assert engine.batch_size == expected
        assert all(not part._forward_hooks for part in model.module.modules())


def test_batches_cover_the_range():
    model, rows = problem("gaussian, several")
    engine = PerRow(model, 4)
    assert [part for part, _ in engine.computed(rows, id)] == [slice(0, 4), slice(4, 8), slice(8, 9)]
    assert [part for part, _ in engine.computed(rows, id, 3, 9)] == [slice(3, 7), slice(7, 9)]


class Counted:
    """Rows whose reads are noted: nothing may ask for more than a block."""

    def __init__(self, rows):
        self.asked = []
        self.source = rows
        self.rows = Rows(len(rows), self.read, rows.weight)

    def read(self, block):
        self.asked.append(len(np.arange(len(self.source))[block]))
        return self.source.read(block)


@in_turn("k", range(6))
def test_rows_are_read_once_and_block_by_block(k):
    model, rows = problem("categorical", 40)
    _, directions = direction(model)
    engine = PerRow(model, 8)
    counted = Counted(rows)
    engine.prepare(counted.rows)
    assert max(counted.asked) <= 3
    counted.asked.clear()
    asks = [
        engine.losses,
        engine.square_norms,
        lambda r: engine.dots(r, directions),
        engine.mean_gradient,
        lambda r: SecondOrder(engine).product(r, directions)[1],
        lambda r: gauss_newton_product(engine, r, directions),
    ]
    asks[k](counted.rows)
    assert counted.asked == [8] * 5


def test_a_range_reads_only_its_rows():
    model, rows = problem("categorical", 40)
    engine = PerRow(model, 8)
    counted = Counted(rows)
    engine.prepare(counted.rows)
    counted.asked.clear()
    engine.dots(counted.rows, direction(model)[1], 10, 20)
    engine.square_norms(counted.rows, start=10, stop=15)
    engine.gradients(counted.rows, slice(3, 5))
    assert counted.asked == [8, 2, 5, 2]


class Refused(torch.autograd.Function):
    """The same values, which ask on their way back; a hook that raises would end the process on a simulated device."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values, refuse):
        return values.view_as(values)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.refuse = inputs[1]

    @staticmethod
    def backward(ctx, gradient):
        ctx.refuse(len(gradient))
        return gradient, None

    @staticmethod
    def jvp(ctx, moved, _):
        return moved.view_as(moved)


class Scarce(nn.Module):
    """A device too small for batches of more than `fits` rows, forward or backward."""

    def __init__(self, module, fits, where):
        super().__init__()
        self.module, self.fits, self.where = module, fits, where
        self.refused = 0

    def refuse(self, n):
        if n > self.fits:
            self.refused += 1
            raise torch.OutOfMemoryError("out of memory (of the test)")

    def forward(self, X):
        outputs = self.module(X)
        if self.where == "forward":
            self.refuse(len(X))
        elif outputs.requires_grad:
            outputs = Refused.apply(outputs, self.refuse)
        return outputs


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("forward_mode", [True, False])
def test_batches_are_halved_when_memory_runs_out(where, forward_mode):
    model, rows = problem("categorical, class weights", 40)
    model.module = Scarce(model.module, N * 10, where)
    expected = results(PerRow(model, 8), rows, direction(model)[1])
    model.module.fits = 5
    engine = PerRow(model, 32)
    engine._forward_mode = forward_mode
    before = [parameter.detach().clone() for parameter in model.module.parameters()]
    for got, other in zip(results(engine, rows, direction(model)[1]), expected, strict=True):
        close(got, other)
    assert model.module.refused >= 9  # 32, 16 and 8 rows, in each sweep that comes so far
    assert engine._forward_mode is forward_mode  # running out of memory says nothing about the module
    for parameter, other in zip(model.module.parameters(), before, strict=True):
        assert torch.equal(parameter, other)


def test_a_row_that_does_not_fit_is_an_error():
    model, rows = problem("categorical")
    engine = PerRow(model, 8)
    engine.prepare(rows)
    model.module = Scarce(model.module, 0, "forward")
    with pytest.raises(torch.OutOfMemoryError):
        engine.losses(rows)


def test_memory_that_runs_out_while_layers_are_checked_is_not_taken_for_an_unknown_layer(monkeypatch):
    def failing(*args):
        raise torch.OutOfMemoryError("out of memory (of the test)")

    model, rows = problem("categorical")
    monkeypatch.setattr(Linear, "rows", failing)
    with pytest.raises(torch.OutOfMemoryError):
        PerRow(model, 8).prepare(rows)


# ---- modules that have no rows of their own ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(4, track_running_stats=False), nn.SyncBatchNorm(4, track_running_stats=False)]
)
def test_batch_norm_without_running_statistics_is_refused(norm):
    model = DifferentiableModel(nn.Sequential(nn.Linear(3, 4), norm).double().eval(), Categorical(), rows_of)
    with pytest.raises(ValueError, match=r"layer '1' is a batch normalisation without running statistics.*GroupNorm"):
        PerRow(model)


def test_dropout_of_a_trained_net_is_not_active():
    X, y = net_rows(20)
    net = make_net(module__dropout=0.5, max_epochs=1).fit(X, y)
    net.module_.train()
    model = differentiable(net)
    rows = model.rows(X, y)
    got = PerRow(model, 7).losses(rows)
    outputs = net.module_.eval()(torch.from_numpy(X))
    expected = nn.functional.cross_entropy(outputs, torch.from_numpy(y), reduction="none").detach()
    assert torch.allclose(got, expected, rtol=1e-6)
    _, directions = direction(model)
    assert torch.equal(PerRow(model, 7).dots(rows, directions), PerRow(model, 7).dots(rows, directions))


def test_global_random_state_is_left_alone():
    model, rows = problem("categorical")
    state = torch.get_rng_state()
    results(PerRow(model), rows, direction(model)[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_forward_of_a_dict_gives_keywords():
    class Sum(nn.Module):
        def forward(self, left, right):
            return left - right

    inputs = {"right": torch.ones(2), "left": torch.zeros(2)}
    assert torch.equal(forward(Sum(), inputs), -torch.ones(2))


# ---- dual numbers --------------------------------------------------------------------------------------------------


def tensors(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


CALLS = {
    "weight and bias": lambda x, w, b: linear(x, w, b),
    "no bias": lambda x, w, b: linear(x, w),
    "bias None": lambda x, w, b: linear(x, w, None),
    "keyword bias": lambda x, w, b: linear(x, w, bias=b),
    "keywords": lambda x, w, b: linear(input=x, weight=w, bias=b),
    "activated in place": lambda x, w, b: linear(x, w, b).relu_(),
    "added to in place": lambda x, w, b: linear(x, w, b).add_(b),
    "a view changed in place": lambda x, w, b: (lambda h: h[..., :2].mul_(b[:2]) + h[..., :2])(linear(x, w, b)),
    "twice": lambda x, w, b: linear(linear(x, w, b), w[:, :2].T[:, :3].repeat(1, 2)[:, :4], None),
    "inputs that are weights": lambda x, w, b: linear(w, w, b),
}
MOVING = {"weight, bias": (1, 2), "weight": (1,), "bias": (2,), "inputs": (0,), "all": (0, 1, 2), "nothing": ()}


@in_turn("moving", MOVING)
@in_turn("shape", [(5, 3), (2, 4, 3), (3,)])
@in_turn("call", CALLS)
def test_linear_layers_of_still_inputs_have_torchs_derivatives(call, shape, moving):
    values, changes = tensors(shape, (4, 3), (4,)), tensors(shape, (4, 3), (4,))
    load_forward_mode()
    found = []
    for mode in (nullcontext(), StillInputs()):
        with forward_ad.dual_level(), mode:
            given = [
                forward_ad.make_dual(value.clone(), change) if k in MOVING[moving] else value.clone()
                for k, (value, change) in enumerate(zip(values, changes, strict=True))
            ]
            found.append(list(forward_ad.unpack_dual(CALLS[call](*given))))
    assert (found[0][1] is None) == (found[1][1] is None)
    for expected, got in zip(*found, strict=True):
        assert got is None or torch.allclose(got, expected, rtol=1e-13, atol=1e-13)


def test_the_change_of_a_linear_layer_of_still_inputs():
    x, w, b, w_change, b_change = tensors((5, 3), (4, 3), (4,), (4, 3), (4,))
    load_forward_mode()
    with forward_ad.dual_level(), StillInputs():
        outputs = linear(x, forward_ad.make_dual(w, w_change), forward_ad.make_dual(b, b_change))
        value, change = forward_ad.unpack_dual(outputs)
    assert torch.equal(value, linear(x, w, b))
    assert torch.equal(change, linear(x, w_change, b_change))


@pytest.mark.parametrize("frozen", [(), ("first.weight",), ("first.bias",), ("second.weight", "second.bias")])
def test_still_inputs_change_no_result(frozen, monkeypatch):
    model, rows = problem("categorical")
    for name in frozen:
        model.module.get_parameter(name).requires_grad_(False)
    directions = direction(model)[1]
    got = PerRow(model, 4).dots(rows, directions)
    monkeypatch.setattr(functional, "StillInputs", nullcontext)
    close(got, PerRow(model, 4).dots(rows, directions), 1e-14)
    close(got, dense_gradients("categorical", model, rows) @ flat(directions))


def test_gradients_of_dual_numbers_are_dual():
    model, rows = problem("categorical")
    along, directions = direction(model)
    engine = PerRow(model, 4)
    engine.prepare(rows)
    block = rows.block(slice(0, N), CPU)
    with dual_numbers(model.parameters, directions) as parameters:
        losses, factors = engine.capture(block, parameters=parameters)
        value, change = forward_ad.unpack_dual(losses)
        slopes, bends = forward_ad.unpack_dual(engine.formed(factors))
    expected = dense_gradients("categorical", model, rows)
    changes = [hessian_times(row_loss("categorical", model, rows, i), model, along) for i in range(N)]
    close(value.detach(), engine.losses(rows))
    close(change.detach(), expected @ along)
    close(slopes.detach(), expected)
    close(bends.detach(), torch.stack(changes))


def test_other_values_of_the_parameters():
    model, rows = problem("categorical")
    engine = PerRow(model, 4)
    engine.prepare(rows)
    block = rows.block(slice(0, N), CPU)
    moved = {name: value.detach() + 0.1 for name, value in model.parameters.items()}
    leaves = {name: value.requires_grad_() for name, value in moved.items()}
    losses, factors = engine.capture(block, parameters=leaves)
    with torch.no_grad():
        for name, value in model.parameters.items():
            value.copy_(moved[name])
    close(losses.detach(), engine.losses(rows))
    close(engine.formed(factors).detach(), dense_gradients("categorical", model, rows))


def test_formed_puts_the_pieces_in_the_order_of_the_parameters():
    model, rows = problem("categorical")
    engine = PerRow(model, 4)
    engine.prepare(rows)
    factors = engine.capture(rows.block(slice(2, 7), CPU))[1]
    expected = dense_gradients("categorical", model, rows)[2:7]
    close(engine.formed(factors), expected)
    close(engine.formed(dict(reversed(factors.items()))), expected)


def test_threads_do_not_meet():
    seen = []
    with StillInputs() as mode:
        thread = threading.Thread(target=lambda: seen.append(torch.overrides._get_current_function_mode()))
        thread.start()
        thread.join()
        assert torch.overrides._get_current_function_mode() is mode
    assert seen == [None]
    problems = [problem("categorical", 40) for _ in range(3)]
    along, directions = direction(problems[0][0])
    expected = dense_gradients("categorical", *problems[0]) @ along
    found = []
    threads = [
        threading.Thread(target=lambda model=model, rows=rows: found.append(PerRow(model, 4).dots(rows, directions)))
        for model, rows in problems
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for got in found:
        close(got, expected)


@pytest.mark.parametrize(("device", "memory", "expected"), [("cpu", None, 256), ("cuda", 64, 2_048), ("cuda", 8, 256)])
def test_the_fits_own_batch_follows_the_memory_of_the_card(device, memory, expected, monkeypatch):
    properties = SimpleNamespace(total_memory=(memory or 0) * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    engine = SimpleNamespace(model=SimpleNamespace(device=torch.device(device)), row_bytes=2**20)
    assert PerRow.own_batch.fget(engine) == expected
