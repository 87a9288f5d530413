"""The closed form of a softmax head against autograd, and the models that it must leave alone."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call

from sktda.engine.per_row import PerRow
from sktda.engine.softmax_head import SoftmaxHead
from sktda.model.base import DifferentiableModel
from sktda.model.likelihood import Gaussian
from sktda.model.softmax import Categorical
from tests.engine.test_layers import CPU, Net, close, direction, flat, frozen, rows_of

N, FEATURES, CLASSES = 11, 4, 3
LINEAR = partial(nn.Linear, FEATURES, CLASSES)


def trunk(*last):
    """A frozen layer before the head; `last` after it."""
    return nn.Sequential(
        frozen(nn.Linear(FEATURES, 5), "weight", "bias"), nn.ReLU(inplace=True), nn.Linear(5, CLASSES), *last
    )


HEADS = {
    "linear": LINEAR,
    "without bias": partial(LINEAR, bias=False),
    "frozen bias": lambda: frozen(LINEAR(), "bias"),
    "frozen weight": lambda: frozen(LINEAR(), "weight"),
    "frozen trunk": trunk,
    "identity after it": lambda: trunk(nn.Identity()),
    "dropout after it": lambda: trunk(nn.Dropout(0.5)),
}
DECAYS = {"no penalty": (0.0, 0.0), "one penalty": (0.3, 0.3), "penalty of the weight": (0.3, 0.0), "two": (0.3, 0.05)}


def problem(make, decay=(0.0, 0.0), weighted=True, likelihood=None):
    """(model, rows) of a head."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = make().double().eval()
    X = torch.randn(N, FEATURES, generator=generator, dtype=torch.float64)
    y = torch.randint(CLASSES, (N,), generator=generator)
    weight = torch.rand(N, generator=generator, dtype=torch.float64) + 0.2 if weighted else None
    model = DifferentiableModel(module, likelihood or Categorical(), rows_of)
    rates = {name: decay[name.endswith("bias")] for name in model.parameters}
    model.decay = {name: rate for name, rate in rates.items() if rate}
    return model, rows_of(X, y, weight)


def hessians(model, rows):
    """(gradients (n, p), Hessians (n, p, p)) of the rows' weighted losses, dense."""
    shapes = {name: value.shape for name, value in model.parameters.items()}

    def loss(vector, i):
        parts = vector.split([shape.numel() for shape in shapes.values()])
        values = {name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
        x, y, weight = rows.block(slice(i, i + 1), CPU)
        value = nn.functional.cross_entropy(functional_call(model.module, values, (x,)), y)
        return value if weight is None else value * weight[0]

    point = flat(model.parameters).detach()
    double = torch.func.jacrev(torch.func.jacrev(loss))
    gradients = torch.stack([torch.func.grad(loss)(point, i) for i in range(len(rows))])
    return gradients, torch.stack([double(point, i) for i in range(len(rows))])


def rates_of(model):
    return torch.cat([
        torch.full((value.numel(),), model.decay.get(name, 0.0), dtype=torch.float64)
        for name, value in model.parameters.items()
    ])  # fmt: skip


def stacked(directions):
    return {name: torch.stack([each[name] for each in directions]) for name in directions[0]}


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("name", HEADS)
def test_closed_form_equals_the_dense_hessians(name, weighted):
    gradients, bends = hessians(*problem(HEADS[name], weighted=weighted))  # the penalty is not in them
    for decay in DECAYS.values():
        model, rows = problem(HEADS[name], decay, weighted)
        head = SoftmaxHead.of(PerRow(model, 4), rows)
        assert head is not None
        rates, point = rates_of(model), flat(model.parameters).detach()
        asked = [direction(model, seed) for seed in (2, 5)]
        directions = stacked([each for _, each in asked])
        gradient, products = head.products(rows, directions)
        close(flat(gradient), gradients.mean(0) + rates * point)
        for k, (along, _) in enumerate(asked):
            close(flat({name: value[k] for name, value in products.items()}), bends.mean(0) @ along + rates * along)
        shapes = {name: (2, *value.shape) for name, value in model.parameters.items()}
        assert {name: value.shape for name, value in products.items()} == shapes
        slope, slopes = direction(model, 3)
        moved = [direction(model, seed) for seed in (4, 6)]
        found = head.second(rows.block(slice(2, 9), CPU), directions, stacked([each for _, each in moved]), slopes)
        for k in range(2):
            close(found[:, k], (gradients @ moved[k][0] + bends @ slope @ asked[k][0])[2:9])


def test_a_dict_of_inputs():
    model, rows = problem(lambda: Net(lambda m, left, right: m.head(left - right), head=LINEAR()))
    X, y = rows.read(slice(0, N))
    keyed = rows_of({"left": 2 * X, "right": X}, y, rows.weight)
    plain, _ = problem(LINEAR)
    along = stacked([direction(plain, 2)[1]])
    expected = SoftmaxHead.of(PerRow(plain, 4), rows).products(rows, along)
    head = SoftmaxHead.of(PerRow(model, 4), keyed)
    found = head.products(keyed, {f"head.{name}": value for name, value in along.items()})
    for got, other in zip(found, expected, strict=True):
        close(flat(got), flat(other))


@pytest.mark.parametrize("size", [1, 3, N, "auto"])
def test_batch_sizes_agree(size):
    model, rows = problem(LINEAR, (0.3, 0.0))
    along = stacked([direction(model, 2)[1]])
    found = SoftmaxHead.of(PerRow(model, size), rows).products(rows, along)
    expected = SoftmaxHead.of(PerRow(model, 4), rows).products(rows, along)
    for got, other in zip(found, expected, strict=True):
        close(flat(got), flat(other), 1e-12)


def test_closed_form_in_single_precision():
    model, rows = problem(LINEAR, weighted=False)
    along, directions = direction(model, 2)
    _, bends = hessians(model, rows)
    model.module.float()
    X, y = rows.read(slice(0, N))
    rows = rows_of(X.float(), y)
    directions = {name: value.float()[None] for name, value in directions.items()}
    product = flat(SoftmaxHead.of(PerRow(model, 4), rows).products(rows, directions)[1])
    assert product.dtype == torch.float32
    close(product, bends.mean(0) @ along, 1e-5)


# ---- where it does not hold ----------------------------------------------------------------------------------------

WEIGHTS = torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64)
OTHERS = {
    "weights of classes": (LINEAR, Categorical(WEIGHTS)),
    "smoothed labels": (LINEAR, Categorical(label_smoothing=0.1)),
    "probabilities": (lambda: nn.Sequential(LINEAR(), nn.Softmax(1)), Categorical(probabilities=True)),
    "squared error": (LINEAR, Gaussian()),
    "softmax in the module": (lambda: nn.Sequential(LINEAR(), nn.Softmax(1)), Categorical()),
    "log-softmax in the module": (lambda: nn.Sequential(LINEAR(), nn.LogSoftmax(1)), Categorical()),
    "temperature": (lambda: Net(lambda m, x: m.head(x) / 2, head=LINEAR()), Categorical()),
    "two layers": (lambda: nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, CLASSES)), Categorical()),
    "trained layer under a frozen head": (
        lambda: nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), frozen(nn.Linear(5, CLASSES), "weight", "bias")),
        Categorical(),
    ),
    "residual": (lambda: Net(lambda m, x: m.head(x) + x[:, :CLASSES], head=LINEAR()), Categorical()),
    "called twice": (
        lambda: Net(lambda m, x: m.head(torch.tanh(m.head(x))), head=nn.Linear(FEATURES, FEATURES)),
        Categorical(),
    ),
    "called twice, one output dropped": (
        lambda: Net(lambda m, x: (m.head(x + 1), m.head(x))[1], head=LINEAR()),
        Categorical(),
    ),
    "convolution": (
        lambda: Net(lambda m, x: m.head(x[:, None])[:, :, 0], head=nn.Conv1d(1, CLASSES, FEATURES)),
        Categorical(),
    ),
    "a trained parameter beside it": (
        lambda: Net(lambda m, x: m.head(x * m.scale), head=LINEAR(), scale=nn.Parameter(torch.ones(FEATURES))),
        Categorical(),
    ),
    "a trained norm before it": (lambda: nn.Sequential(nn.LayerNorm(FEATURES), LINEAR()), Categorical()),
    "weight used twice": (
        lambda: Net(lambda m, x: m.head(x) + x @ m.head.weight.T, head=LINEAR()),
        Categorical(),
    ),
    "logits changed in place": (lambda: nn.Sequential(LINEAR(), nn.LeakyReLU(inplace=True)), Categorical()),
    "logits divided in place": (lambda: Net(lambda m, x: m.head(x).div_(2), head=LINEAR()), Categorical()),
    "logits bounded, not in the first row": (lambda: nn.Sequential(LINEAR(), nn.Hardtanh(-1.3, 1.3)), Categorical()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_have_no_closed_form(name):
    make, likelihood = OTHERS[name]
    model, rows = problem(make, likelihood=likelihood)
    if isinstance(likelihood, Gaussian):
        X, _ = rows.read(slice(0, N))
        rows = rows_of(X, torch.randn(N, CLASSES, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    assert SoftmaxHead.of(PerRow(model, 4), rows) is None
