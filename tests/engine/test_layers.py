"""The per-row engine on a table of modules, against one backward pass per row in float64."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sktda.engine.gauss_newton import gauss_newton_product
from sktda.engine.layers import (
    Convolved,
    Formed,
    Lookup,
    Mapped,
    Sum,
    known_layers,
    layer_by_layer,
    patches,
    recording,
)
from sktda.engine.pairwise import Plain, Preconditioned, by_layer
from sktda.engine.per_row import REST, PerRow
from sktda.engine.second_order import SecondOrder
from sktda.engine.weighed import weighed
from sktda.model.base import DifferentiableModel, Rows, forward
from sktda.model.softmax import Categorical

N = 6
CPU = torch.device("cpu")


def floats(*shape: int) -> Callable[[int, torch.Generator], torch.Tensor]:
    """Maker of normal inputs (n, *shape)."""
    return lambda n, generator: torch.randn(n, *shape, generator=generator, dtype=torch.float64)


def codes(size: int, *shape: int) -> Callable[[int, torch.Generator], torch.Tensor]:
    """Maker of whole numbers below `size`, (n, *shape)."""
    return lambda n, generator: torch.randint(size, (n, *shape), generator=generator)


class Net(nn.Module):
    """Named parts and a forward pass given as a function of the module and its inputs."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def seq(*parts):
    """Sequential with its outputs flattened to (n, k)."""
    return nn.Sequential(*parts, nn.Flatten())


def frozen(module, *names):
    for name in names:
        module.get_parameter(name).requires_grad_(False)
    return module


def shaken(module):
    """Norm layers with weights, biases and running statistics that are not those of a fresh one."""
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value.add_(torch.rand_like(value) * 0.5)
            assert name
    return module


def sharing_a_weight():
    net = Net(lambda m, x: m.second(torch.tanh(m.first(x))), first=nn.Linear(3, 3), second=nn.Linear(3, 3))
    net.second.weight = net.first.weight
    return net


def language_model(table=None):
    table = table or nn.Embedding(5, 4)
    net = Net(lambda m, x: m.out(torch.tanh(m.table(x))).mean(1), table=table, out=nn.Linear(4, 5))
    net.out.weight = net.table.weight
    return net


def scored_twice():
    def run(m, x):
        h = torch.tanh(m.table(x) + m.again(x.flip(1)))
        return m.out(h).mean(1) * m.out(h[:, 0])

    net = Net(run, table=nn.Embedding(5, 4), again=nn.Embedding(5, 4), out=nn.Linear(4, 5, bias=False))
    net.out.weight = net.again.weight = net.table.weight
    return net


class Scaled(nn.Embedding):
    """A table that skips its first index and scales what it finds, as some of the models of transformers do."""

    def forward(self, x, unused=0):
        return super().forward((x + 1) % self.num_embeddings) * 3


def positions(of, place=None):
    def run(m, x):
        return m.out(torch.tanh(m.words(x) + m.place(of))).mean(1)

    return Net(run, words=nn.Embedding(5, 4), place=place or nn.Embedding(6, 4), out=nn.Linear(4, 2))


def pairs_of_positions():
    def run(m, x):
        near = m.place((torch.arange(4)[:, None] - torch.arange(4)).abs()).permute(2, 0, 1)
        return m.out((torch.softmax(near, -1) @ m.words(x)[:, None]).flatten(1))

    return Net(run, words=nn.Embedding(5, 3), place=nn.Embedding(4, 2), out=nn.Linear(24, 2))


class RootNorm(nn.Module):
    """As in Llama, or with a weight that is added to one."""

    def __init__(self, width, plus=0.0):
        super().__init__()
        self.weight, self.plus = nn.Parameter(torch.rand(width)), plus

    def forward(self, x):
        return (self.weight + self.plus) * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


def tied_to_a_convolution():
    net = Net(
        lambda m, x: m.second(torch.tanh(m.first(x))).flatten(1), first=nn.Conv1d(3, 3, 1), second=nn.Conv1d(3, 3, 1)
    )
    net.second.weight = net.first.weight
    return net


def alias():
    net = Net(lambda m, x: m.first(x) + x @ m.again.T, first=nn.Linear(3, 3))
    net.again = net.first.weight
    return net


def residual():
    def run(m, x):
        h = m.relu(m.norm1(m.conv1(x)))
        h = m.norm2(m.conv2(h))
        h += m.short(x)
        return m.head(m.relu(h).mean((2, 3)))

    return Net(
        run,
        conv1=nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False),
        norm1=shaken(nn.BatchNorm2d(3)),
        conv2=nn.Conv2d(3, 3, 3, padding=1, bias=False),
        norm2=shaken(nn.BatchNorm2d(3)),
        short=nn.Conv2d(2, 3, 1, stride=2),
        relu=nn.ReLU(inplace=True),
        head=nn.Linear(3, 4),
    )


def first_output(module):
    module.register_forward_hook(lambda module, args, output: output[0] if isinstance(output, tuple) else output)
    return module


def attention(need_weights):
    def run(m, x):
        return m.head(m.attention(x, x, x, need_weights=need_weights)[0].mean(1))

    return Net(run, attention=nn.MultiheadAttention(4, 2, batch_first=True), head=nn.Linear(4, 3))


def later(x):
    """(n, t) which are not the first."""
    return (torch.arange(x.shape[1]) > 0).expand(x.shape[:2])


def recurrent(kind):
    return Net(lambda m, x: m.head(m.cells(x)[0][:, -1]), cells=kind(3, 4, batch_first=True), head=nn.Linear(4, 3))


def sequence_first():
    def run(m, x):
        h = m.norm(torch.tanh(m.first(x.transpose(0, 1))))
        return m.last(h.mean(0))

    return Net(run, first=nn.Linear(3, 4), norm=shaken(nn.LayerNorm(4)), last=nn.Linear(4, 3))


def encoder(**options):
    layer = nn.TransformerEncoderLayer(4, 2, 6, **options)
    batch_first = options.get("batch_first", False)
    return Net(
        lambda m, x: (m.layer(x) if batch_first else m.layer(x.transpose(0, 1)).transpose(0, 1)).flatten(1),
        layer=shaken(layer),
    )


@dataclass(frozen=True)
class Case:
    """make() and inputs(n, generator) of a module; rest: the parameters that no factor may be used for.

    twice: whether torch has (right) second derivatives of it.
    """

    make: Callable[[], nn.Module]
    inputs: Callable
    rest: tuple[str, ...] = ()
    twice: bool = True


LINEAR = partial(nn.Linear, 3, 3)
FIRST, NAMED = ("0.weight", "0.bias"), ("first.weight", "first.bias")
ATTENTION = (
    "attention.in_proj_weight",
    "attention.in_proj_bias",
    "attention.out_proj.weight",
    "attention.out_proj.bias",
)
CASES = {
    "linear": Case(lambda: nn.Linear(3, 4), floats(3)),
    "linear without bias": Case(lambda: nn.Linear(3, 4, bias=False), floats(3)),
    "frozen weight": Case(lambda: frozen(seq(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), "0.weight"), floats(3)),
    "frozen bias": Case(lambda: frozen(seq(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), "2.bias"), floats(3)),
    "frozen layer": Case(
        lambda: frozen(seq(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), "0.weight", "0.bias"), floats(3)
    ),
    "frozen weight of tokens": Case(lambda: frozen(seq(nn.Linear(3, 4)), "0.weight"), floats(5, 3)),
    "MLP, ReLU in place": Case(
        lambda: seq(nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)),
        floats(3),
    ),
    "tokens": Case(lambda: seq(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), floats(5, 3)),
    "few wide tokens": Case(lambda: seq(nn.Linear(9, 12), nn.Tanh(), nn.Linear(12, 9, bias=False)), floats(2, 9)),
    "tokens on a grid": Case(lambda: seq(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), floats(2, 3, 3)),
    "tokens folded into rows": Case(
        lambda: Net(
            lambda m, x: m.last(torch.tanh(m.first(x.reshape(-1, 3))).reshape(len(x), -1)),
            first=nn.Linear(3, 2),
            last=nn.Linear(8, 3),
        ),
        floats(4, 3),
    ),
    "conv1d": Case(lambda: seq(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Conv1d(3, 2, 2, stride=2)), floats(2, 7)),
    "conv1d, all options": Case(lambda: seq(nn.Conv1d(2, 3, 3, stride=2, padding=2, dilation=2)), floats(2, 8)),
    "conv1d, same": Case(lambda: seq(nn.Conv1d(2, 3, 3, padding="same", dilation=2)), floats(2, 8)),
    "conv1d, circular": Case(lambda: seq(nn.Conv1d(2, 3, 3, padding=2, padding_mode="circular")), floats(2, 6)),
    "conv1d, grouped": Case(lambda: seq(nn.Conv1d(2, 4, 3, groups=2)), floats(2, 6)),
    "conv2d": Case(lambda: seq(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 2, bias=False)), floats(2, 5, 6)),
    "conv2d, all options": Case(
        lambda: seq(nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2))), floats(2, 5, 6)
    ),
    "conv2d, one position": Case(lambda: seq(nn.Conv2d(2, 4, 4), nn.Tanh(), nn.Conv2d(4, 3, 1)), floats(2, 4, 4)),
    "conv2d, same": Case(lambda: seq(nn.Conv2d(2, 3, (1, 3), padding="same")), floats(2, 4, 5)),
    "conv2d, valid": Case(lambda: seq(nn.Conv2d(2, 3, 2, padding="valid", stride=2)), floats(2, 4, 5)),
    "conv2d, circular": Case(lambda: seq(nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="circular")), floats(2, 4, 5)),
    "conv2d, reflect, same": Case(
        lambda: seq(nn.Conv2d(2, 3, (3, 2), padding="same", padding_mode="reflect")), floats(2, 4, 5)
    ),
    "conv2d, replicate": Case(lambda: seq(nn.Conv2d(1, 2, 3, padding=1, padding_mode="replicate")), floats(1, 4, 4)),
    "conv2d, grouped": Case(lambda: seq(nn.Conv2d(2, 4, 3, groups=2), nn.Tanh(), nn.Conv2d(4, 1, 2)), floats(2, 5, 5)),
    "conv2d, frozen weight": Case(lambda: frozen(seq(nn.Conv2d(2, 3, 2)), "0.weight"), floats(2, 4, 4)),
    "conv1d, pooled": Case(
        lambda: seq(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.AvgPool1d(2), nn.Conv1d(3, 2, 2), nn.MaxPool1d(2)), floats(2, 8)
    ),
    "conv2d, pooled": Case(
        lambda: seq(
            nn.Conv2d(2, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(3, 3, 2), nn.AdaptiveAvgPool2d(1)
        ),
        floats(2, 7, 7),
    ),
    "SiLU": Case(  # its backward pass has no forward derivative
        lambda: seq(nn.Linear(3, 4), nn.SiLU(inplace=True), nn.Linear(4, 3)), floats(3)
    ),
    "conv3d": Case(lambda: seq(nn.Conv3d(1, 2, 2)), floats(1, 3, 3, 3)),
    "transposed conv": Case(lambda: seq(nn.ConvTranspose1d(2, 2, 3)), floats(2, 4)),
    "embedding": Case(lambda: seq(nn.Embedding(4, 3), nn.Linear(3, 2)), codes(4, 6)),
    "embedding with padding": Case(lambda: seq(nn.Embedding(3, 2, padding_idx=-2), nn.Linear(2, 2)), codes(3, 7)),
    "embedding of one code": Case(lambda: seq(nn.Embedding(4, 3), nn.Linear(3, 2)), codes(4)),
    "embedding of a grid": Case(lambda: seq(nn.Embedding(3, 2)), codes(3, 2, 3)),
    "embedding bag": Case(lambda: nn.EmbeddingBag(4, 3, mode="sum"), codes(4, 5), twice=False),
    "layer norm": Case(lambda: shaken(seq(nn.LayerNorm(5, eps=0.1), nn.Linear(5, 3))), floats(5)),
    "layer norm of tokens": Case(lambda: shaken(seq(nn.LayerNorm(3, bias=False), nn.Linear(3, 2))), floats(4, 3)),
    "layer norm over two axes": Case(lambda: shaken(seq(nn.LayerNorm((2, 3)))), floats(3, 2, 3)),
    "layer norm, frozen weight": Case(lambda: frozen(seq(nn.LayerNorm(4), nn.Linear(4, 2)), "0.weight"), floats(3, 4)),
    "layer norm without weights": Case(
        lambda: seq(nn.Linear(3, 4), nn.LayerNorm(4, elementwise_affine=False), nn.Linear(4, 2)), floats(3)
    ),
    "RMS norm": Case(lambda: shaken(seq(nn.RMSNorm(5), nn.Linear(5, 3))), floats(5)),
    "RMS norm of tokens": Case(lambda: shaken(seq(nn.RMSNorm((2, 3), eps=0.2))), floats(4, 2, 3)),
    "group norm": Case(lambda: shaken(seq(nn.Conv2d(2, 4, 2), nn.GroupNorm(2, 4, eps=0.1))), floats(2, 3, 3)),
    "group norm of vectors": Case(lambda: shaken(seq(nn.GroupNorm(2, 4))), floats(4)),
    "batch norm": Case(lambda: shaken(seq(nn.Linear(3, 4), nn.BatchNorm1d(4, eps=0.1), nn.Linear(4, 3))), floats(3)),
    "batch norm of series": Case(lambda: shaken(seq(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3))), floats(2, 5)),
    "batch norm of images": Case(lambda: shaken(seq(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 2))), floats(2, 3, 3)),
    "batch norm of volumes": Case(lambda: shaken(seq(nn.BatchNorm3d(2))), floats(2, 2, 3, 2)),
    "instance norm": Case(lambda: shaken(seq(nn.InstanceNorm2d(2, affine=True), nn.Conv2d(2, 3, 2))), floats(2, 3, 3)),
    "attention": Case(lambda: attention(True), floats(4, 4)),
    "attention without weights": Case(lambda: attention(False), floats(4, 4)),
    "encoder": Case(lambda: encoder(batch_first=True), floats(3, 4)),
    "encoder, norm first, gelu": Case(
        lambda: encoder(batch_first=True, norm_first=True, activation="gelu"), floats(3, 4)
    ),
    "encoder of sequences first": Case(encoder, floats(3, 4)),
    "causal attention": Case(
        lambda: Net(
            lambda m, x: m.attention(
                x, x, x, attn_mask=torch.ones(3, 3).triu(1).bool(), key_padding_mask=(x[..., 0] > 0) & later(x)
            )[0].flatten(1),
            attention=nn.MultiheadAttention(4, 2, batch_first=True, bias=False),
        ),
        floats(3, 4),
    ),
    "attention to others": Case(
        lambda: Net(
            lambda m, x: m.head(m.attention(x, x[:, :2], x[:, :2])[0].mean(1)),
            attention=nn.MultiheadAttention(4, 2, batch_first=True),
            head=nn.Linear(4, 3),
        ),
        floats(4, 4),
        ATTENTION,
    ),
    "tied layers": Case(sharing_a_weight, floats(3)),
    "tied embedding": Case(language_model, codes(5, 4)),
    "tied embedding, called once more": Case(scored_twice, codes(5, 4)),
    "tied table of its own kind": Case(lambda: language_model(Scaled(5, 4)), codes(5, 4)),
    "tied with another kind": Case(tied_to_a_convolution, floats(3, 1), ("first.weight", "first.bias", "second.bias")),
    "positions made once": Case(lambda: positions(torch.arange(4)[None]), codes(5, 4)),
    "positions made once, without an axis of rows": Case(lambda: positions(torch.arange(4)), codes(5, 4)),
    "positions as far as a table of its own kind": Case(lambda: positions(torch.arange(4), Scaled(6, 4)), codes(5, 4)),
    "positions met otherwise": Case(pairs_of_positions, codes(5, 4), ("place.weight",)),
    "norm of Llama": Case(lambda: seq(nn.Linear(3, 4), RootNorm(4), nn.Linear(4, 2)), floats(3)),
    "norm of Gemma": Case(lambda: seq(nn.Linear(3, 4), RootNorm(4, 1.0), nn.Linear(4, 2)), floats(2, 3)),
    "alias of a weight": Case(alias, floats(3), ("again", "first.bias")),
    "linear called twice": Case(
        lambda: Net(lambda m, x: m.both(torch.tanh(m.both(x))), both=nn.Linear(3, 3)), floats(3)
    ),
    "linear called on rows and on tokens": Case(
        lambda: Net(lambda m, x: m.both(torch.tanh(m.both(x)).mean(1)), both=nn.Linear(3, 3)), floats(4, 3)
    ),
    "linear called twice, one output dropped": Case(
        lambda: Net(lambda m, x: (m.both(x + 1), m.both(x))[1], both=nn.Linear(3, 3)), floats(3)
    ),
    "conv called twice": Case(
        lambda: Net(lambda m, x: m.both(torch.tanh(m.both(x))).flatten(1), both=nn.Conv1d(2, 2, 3, padding=1)),
        floats(2, 5),
    ),
    "norm called twice": Case(
        lambda: Net(lambda m, x: m.both(torch.tanh(m.both(x))), both=shaken(nn.LayerNorm(3))),
        floats(3),
    ),
    "module in two places": Case(lambda: (lambda same: seq(same, nn.Tanh(), same))(nn.Linear(3, 3)), floats(3)),
    "weight used outside its layer": Case(
        lambda: Net(lambda m, x: m.last(m.first(x)) + (m.first.weight**2).sum(1) * x, first=LINEAR(), last=LINEAR()),
        floats(3),
        NAMED,
    ),
    "bare parameter": Case(
        lambda: Net(lambda m, x: m.first(x) * m.scale, first=nn.Linear(3, 3), scale=nn.Parameter(torch.rand(3) + 0.5)),
        floats(3),
        ("scale",),
    ),
    "a layer of a learned token": Case(
        lambda: Net(
            lambda m, x: m.last(m.first(x) * m.question(m.token)),
            first=nn.Linear(3, 3),
            question=nn.Linear(2, 3),
            last=nn.Linear(3, 3),
            token=nn.Parameter(torch.rand(1, 2)),
        ),
        floats(3),
        ("token", "question.weight", "question.bias"),
    ),
    "PReLU": Case(lambda: seq(nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 3)), floats(3)),
    "bilinear": Case(
        lambda: Net(lambda m, x: m.pair(x, x.flip(1)), pair=nn.Bilinear(3, 3, 2)),
        floats(3),
    ),
    "weight norm": Case(
        lambda: seq(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2)),
        floats(3),
        ("0.parametrizations.weight.original0", "0.parametrizations.weight.original1"),
        twice=False,  # torch.autograd.gradgradcheck of torch._weight_norm fails
    ),
    "LSTM": Case(lambda: recurrent(nn.LSTM), floats(4, 3)),
    "GRU": Case(lambda: recurrent(nn.GRU), floats(4, 3)),
    "sequence first": Case(sequence_first, floats(4, 3)),
    "sequence first, as long as the sample": Case(sequence_first, floats(3, 3)),
    "dict of inputs": Case(
        lambda: Net(
            lambda m, numbers, kind: m.last(torch.cat([m.first(numbers), m.table(kind)], 1)),
            first=nn.Linear(3, 2),
            table=nn.Embedding(4, 2),
            last=nn.Linear(4, 3),
        ),
        lambda n, generator: {"numbers": floats(3)(n, generator), "kind": codes(4)(n, generator)},
    ),
    "linear called by keyword": Case(
        lambda: Net(lambda m, x: m.last(torch.tanh(m.first(input=x))), first=nn.Linear(3, 3), last=nn.Linear(3, 3)),
        floats(3),
        NAMED,
    ),
    "residual block": Case(residual, floats(2, 5, 5)),
    "layer never called": Case(lambda: Net(lambda m, x: m.first(x), first=LINEAR(), spare=LINEAR()), floats(3)),
    "several outputs": Case(lambda: first_output(Net(lambda m, x: (m.first(x), x), first=nn.Linear(3, 3))), floats(3)),
    "output used twice": Case(
        lambda: Net(lambda m, x: (lambda h: h * torch.tanh(h))(m.first(x)), first=nn.Linear(3, 3)), floats(3)
    ),
    "first row without gradient": Case(
        lambda: Net(lambda m, x: m.first(torch.relu(x)) + F.linear(torch.relu(x), m.first.weight), first=LINEAR()),
        lambda n, generator: torch.cat([-torch.ones(1, 3, dtype=torch.float64), floats(3)(n - 1, generator)]),
        NAMED,
    ),
}


def vectors(n=N, classes=3):
    """Rows of 3 numbers."""
    X = torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return rows_of(X, torch.arange(n) % classes)


def rows_of(inputs, targets, weight=None):
    """Rows from tensors that are already there."""

    def read(part):
        at = part if isinstance(part, slice) else torch.as_tensor(part)
        if isinstance(inputs, dict):
            return {name: value[at] for name, value in inputs.items()}, targets[at]
        return inputs[at], targets[at]

    return Rows(len(targets), read, weight)


def as_dtype(inputs, dtype):
    if isinstance(inputs, dict):
        return {name: as_dtype(value, dtype) for name, value in inputs.items()}
    return inputs.to(dtype) if inputs.is_floating_point() else inputs


def build(name, n=N, dtype=torch.float64):
    """(model, rows) of a case; weights of rows differ, and the first is 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = CASES[name].make().double().eval()
    inputs = as_dtype(CASES[name].inputs(n, generator), dtype)
    model = DifferentiableModel(module.to(dtype), Categorical(), rows_of)
    with torch.no_grad():
        width = forward(model.module, inputs).shape[1]
    targets = torch.randint(width, (n,), generator=generator)
    weight = torch.rand(n, generator=generator, dtype=torch.float64) + 0.5
    weight[0] = 0
    return model, rows_of(inputs, targets, weight.to(dtype))


def parameter_gradient(model, value):
    """(p,) gradient of one number."""
    own = list(model.parameters.values())
    found = torch.autograd.grad(value, own, retain_graph=True, materialize_grads=True, allow_unused=True)
    return torch.cat([gradient.flatten() for gradient in found])


def row_gradients(model, rows):
    """(n, p): a forward and a backward pass for every row alone."""
    found = []
    for i in range(len(rows)):
        inputs, targets, weight = rows.block(slice(i, i + 1), CPU)
        loss = model.likelihood.losses(forward(model.module, inputs), targets).sum()
        found.append(parameter_gradient(model, loss if weight is None else loss * weight[0]))
    return torch.stack(found)


@cache
def truth(name):
    """(model, rows, (n, p) gradients), built once per case."""
    model, rows = build(name)
    return model, rows, row_gradients(model, rows)


@cache
def prepared(name):
    """An engine of the case's model, that has chosen its layers."""
    model, rows, _ = truth(name)
    engine = PerRow(model, 4)
    engine.prepare(rows)
    return engine


def close(got, expected, rtol=1e-10):
    """Equal up to rtol of the largest number."""
    assert got.shape == expected.shape
    error = (got.double() - expected).abs().max().item()
    assert error <= rtol * max(expected.abs().max().item(), 1e-3), f"error {error:.3g}"


each_case = pytest.mark.parametrize("name", CASES)


def direction(model, seed, k=None):
    """(flat, by parameter) random direction, or k of them; 0 at padding indices, whose vectors are constants."""
    generator = torch.Generator().manual_seed(seed)
    lead = () if k is None else (k,)
    found = {
        name: torch.randn(*lead, *value.shape, generator=generator, dtype=torch.float64)
        for name, value in model.parameters.items()
    }
    for name, part in model.module.named_modules():
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            found[f"{name}.weight"][..., part.padding_idx, :] = 0
    return torch.cat([value.flatten(len(lead)) for value in found.values()], len(lead)), found


def flat(values):
    return torch.cat([value.flatten() for value in values.values()])


def gradients_and_lengths_equal_a_backward_pass_per_row(name):
    model, rows, expected = truth(name)
    engine = prepared(name)
    assert set(engine.rest) == set(CASES[name].rest)
    close(engine.gradients(rows, slice(0, N)), expected)
    close(engine.gradients(rows, slice(2, 5)), expected[2:5])
    close(engine.square_norms(rows), expected.square().sum(1))
    close(engine.square_norms(rows, start=1, stop=5), expected[1:5].square().sum(1))
    parts = engine.square_norms(rows, by_layer=True)
    at = dict(zip(model.parameters, expected.split([v.numel() for v in model.parameters.values()], 1), strict=True))
    groups = {layer.name: layer.parameters for layer in engine.layers} | ({REST: engine.rest} if engine.rest else {})
    assert set(parts) == set(groups)
    assert sorted(name for names in groups.values() for name in names) == sorted(model.parameters)
    for layer, names in groups.items():
        close(parts[layer], sum(at[name].square().sum(1) for name in names))


def products_with_rows_and_directions_equal_those_of_gradients(name):
    model, rows, expected = truth(name)
    engine = prepared(name)
    queries = [engine.capture(rows.block(part, CPU))[1] for part in (slice(0, 1), slice(1, 5))]
    train = engine.capture(rows.block(slice(2, N), CPU))[1]
    close(Plain(queries).block(train), expected[:5] @ expected[2:].T)
    along, directions = direction(model, 2, k=3)
    close(Preconditioned(by_layer(engine, directions)).block(train), along @ expected[2:].T)


def every_row_meets_a_direction_of_its_own(name):
    model, rows, expected = truth(name)
    engine = prepared(name)
    factors = engine.capture(rows.block(slice(1, N), CPU))[1]
    along, directions = direction(model, 4, k=N - 1)
    own = by_layer(engine, directions)
    close(sum(factors[layer].along(each) for layer, each in own.items()), (along * expected[1:]).sum(1))


def a_root_for_every_parameter_multiplies_its_part_of_the_gradients(name):
    model, rows, expected = truth(name)
    roots = {each: 0.5 + 0.25 * k for k, each in enumerate(model.parameters)}
    each = torch.cat([torch.full((value.numel(),), roots[key]) for key, value in model.parameters.items()])
    engine = weighed(prepared(name), roots)
    close(engine.gradients(rows, slice(0, N)), expected * each)
    close(engine.square_norms(rows), (expected * each).square().sum(1))
    close(prepared(name).square_norms(rows), expected.square().sum(1))


def dots_equal_gradients_times_the_direction(name):
    model, rows, expected = truth(name)
    along, directions = direction(model, 3)
    for forward_mode in (True, False):
        engine = prepared(name)
        engine._forward_mode = forward_mode
        close(engine.dots(rows, directions), expected @ along)
        close(engine.dots(rows, directions, 1, 5), expected[1:5] @ along)


def mean_gradient_is_the_mean_of_the_rows_own(name):
    _, rows, expected = truth(name)
    close(flat(prepared(name).mean_gradient(rows)), expected.mean(0))


def hessian_product_is_the_slope_of_the_mean_gradient(name):
    model, rows, _ = truth(name)
    directions = direction(model, 4)[1]
    expected = slope(model, lambda: row_sum(model, rows) / N, directions)
    close(flat(SecondOrder(prepared(name)).product(rows, directions)[1]), expected, rtol=1e-6)


def row_sum(model, rows):
    """(p,) sum of the rows' gradients, in one pass."""
    inputs, targets, weight = rows.block(slice(0, len(rows)), CPU)
    return parameter_gradient(model, (model.likelihood.losses(forward(model.module, inputs), targets) * weight).sum())


def slope(model, quantity, direction, step=1e-4):
    """Derivative of quantity() as the parameters move along the direction, by a fourth-order difference."""
    values = {name: value.detach().clone() for name, value in model.parameters.items()}
    found = []
    for k in (-2, -1, 1, 2):
        with torch.no_grad():
            for name, value in model.parameters.items():
                value.copy_(values[name] + k * step * direction[name])
        found.append(quantity())
    with torch.no_grad():
        for name, value in model.parameters.items():
            value.copy_(values[name])
    return (found[0] - 8 * found[1] + 8 * found[2] - found[3]) / (12 * step)


def gauss_newton_product_equals_jacobian_fisher_jacobian(name):
    model, rows, _ = truth(name)
    along, directions = direction(model, 6)
    rows = rows_of(*rows.read(slice(1, 3)), rows.weight[1:3])
    inputs, _, weight = rows.block(slice(0, 2), CPU)
    outputs = forward(model.module, inputs)
    expected = torch.zeros_like(along)
    for i in range(2):
        jacobian = torch.stack([parameter_gradient(model, each) for each in outputs[i]])
        p = outputs[i].softmax(0).detach()
        expected += weight[i] * jacobian.T @ ((torch.diag(p) - torch.outer(p, p)) @ (jacobian @ along))
    got = gauss_newton_product(prepared(name), rows, directions)
    close(flat(got), expected / 2)


def single_precision_is_near_and_the_module_is_left_as_it_was(name):
    expected = truth(name)[2]
    model, rows = build(name, dtype=torch.float32)
    before = state_of(model.module)
    along, directions = direction(model, 5)
    engine = PerRow(model, 4)
    assert engine.square_norms(rows).dtype == torch.float32
    close(engine.square_norms(rows), expected.square().sum(1), 1e-4)
    close(engine.dots(rows, directions), expected @ along, 1e-4)
    assert set(engine.rest) == set(CASES[name].rest)
    engine.gradients(rows, slice(0, 2))
    if CASES[name].twice:
        directions = {parameter: value.float() for parameter, value in directions.items()}
        SecondOrder(engine).product(rows, directions)
        gauss_newton_product(engine, rows, directions)
    after = state_of(model.module)
    assert after.keys() == before.keys()
    for key, value in before.items():
        assert torch.equal(after[key], value) if isinstance(value, torch.Tensor) else after[key] == value, key
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


@each_case
def test_every_property(name):
    """All of one module, whose gradients row by row are formed once; the traceback names the property."""
    gradients_and_lengths_equal_a_backward_pass_per_row(name)
    products_with_rows_and_directions_equal_those_of_gradients(name)
    every_row_meets_a_direction_of_its_own(name)
    a_root_for_every_parameter_multiplies_its_part_of_the_gradients(name)
    dots_equal_gradients_times_the_direction(name)
    mean_gradient_is_the_mean_of_the_rows_own(name)
    if CASES[name].twice:
        hessian_product_is_the_slope_of_the_mean_gradient(name)
        gauss_newton_product_equals_jacobian_fisher_jacobian(name)
    single_precision_is_near_and_the_module_is_left_as_it_was(name)


MIXED = ("MLP, ReLU in place", "tokens", "conv2d, all options", "embedding", "batch norm", "dict of inputs")


@pytest.mark.parametrize("name", MIXED)
def test_every_batch_size_gives_the_same(name):
    n = 11
    model, rows = build(name, n, torch.float32)
    directions = direction(model, 5)[1]
    found = []
    for size in (1, 4, n, "auto"):
        engine = PerRow(model, size)
        gradient = flat(engine.mean_gradient(rows))
        curved = flat(SecondOrder(engine).product(rows, {name: value.float() for name, value in directions.items()})[1])
        found.append((engine.square_norms(rows), engine.dots(rows, directions), gradient, curved, engine.losses(rows)))
    for other in found[1:]:
        for got, expected in zip(other, found[0], strict=True):
            close(got, expected.double(), 1e-5)


@pytest.mark.parametrize("name", [*MIXED, "LSTM", "encoder", "residual block", "sequence first"])
def test_row_order_and_duplicates_do_not_matter(name):
    model, rows, expected = truth(name)
    order = torch.tensor([3, 1, 1, 5, 0, 3, 2])
    moved = Rows(len(order), lambda block: rows.read(order[block].numpy()), rows.weight[order])
    along, directions = direction(model, 7)
    engine = prepared(name)
    close(engine.dots(moved, directions), (expected @ along)[order])
    close(engine.square_norms(moved), expected.square().sum(1)[order])


def state_of(module):
    """Everything of a module that the engine could have left changed."""
    found = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        found[prefix, "hooks"] = [len(h) for h in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks)]
        found[prefix, "training"] = part.training
        for name, value in part.named_parameters(recurse=False, remove_duplicate=False):
            found[prefix, name, "is"] = id(value), value.requires_grad, value.grad is None
            found[prefix, name] = value.detach().clone()
        for name, value in part.named_buffers(recurse=False):
            found[prefix, name] = value.clone()
    return found


def test_a_tied_table_with_padding_has_the_dots_of_its_gradients():
    generator = torch.Generator().manual_seed(0)
    net = language_model(nn.Embedding(5, 4, padding_idx=2)).double()
    rows = rows_of(codes(5, 4)(N, generator), torch.randint(5, (N,), generator=generator))
    engine = PerRow(DifferentiableModel(net, Categorical(), rows_of), 3)
    gradients = engine.gradients(rows, slice(0, N))
    assert not engine.rest
    along = {k: torch.randn(v.shape, generator=generator, dtype=v.dtype) for k, v in engine.model.parameters.items()}
    close(engine.dots(rows, along), gradients @ torch.cat([value.flatten() for value in along.values()]), 1e-9)


def test_hooks_go_when_the_forward_pass_fails():
    module = nn.Linear(3, 2).double()
    layers = known_layers(module)
    with pytest.raises(RuntimeError, match="shapes"), recording(layers, 2):
        module(torch.ones(2, 4, dtype=torch.float64))
    assert not module._forward_hooks
    assert torch.backends.mha.get_fastpath_enabled()


def test_dots_of_a_module_in_two_places_leave_it_its_parameters():
    # functional_call(tie_weights=True) takes them out
    model, rows, _ = truth("module in two places")
    PerRow(model, 4).dots(rows, direction(model, 0)[1])
    assert set(model.parameters) == {"0.weight", "0.bias"}


# ---- which layers are trusted --------------------------------------------------------------------------------------


def with_weights(rows, weight):
    return Rows(len(rows), rows.read, weight)


@pytest.mark.parametrize("name", ["weight used outside its layer", "attention", "sequence first", "alias of a weight"])
def test_rows_of_weight_zero_say_nothing_about_a_layer(name):
    model, rows, expected = truth(name)
    engine = PerRow(model, 4)
    engine.prepare(with_weights(rows, torch.zeros(N, dtype=torch.float64)))
    assert set(engine.rest) == set(CASES[name].rest)
    close(engine.square_norms(rows), expected.square().sum(1))


def test_a_layer_used_as_a_function_is_found_where_its_gradient_is_zero():
    model, rows, expected = truth("attention")
    with torch.no_grad():
        before = model.module.head.weight.clone()
        model.module.head.weight.zero_()  # as at the start of a training that begins with a zero head
    engine = PerRow(model, 4)
    engine.prepare(rows)
    with torch.no_grad():
        model.module.head.weight.copy_(before)
    close(engine.square_norms(rows), expected.square().sum(1))


def test_a_small_use_outside_the_layer_is_found():
    net = Net(lambda m, x: m.first(x) + 1e-4 * F.linear(x.flip(1), m.first.weight), first=nn.Linear(3, 3)).double()
    model, rows = DifferentiableModel(net, Categorical(), rows_of), vectors()
    engine = PerRow(model, 4)
    close(engine.square_norms(rows), row_gradients(model, rows).square().sum(1))
    assert engine.rest == ["first.weight", "first.bias"]


def test_one_row_is_enough_to_judge_a_layer():
    model, rows, expected = truth("a layer of a learned token")
    engine = PerRow(model, 4)
    engine.prepare(Rows(1, rows.read))  # as many rows as the layer of the token is called on
    close(engine.square_norms(rows), expected.square().sum(1))


def test_dead_rows_at_the_start_do_not_hide_a_use_elsewhere():
    net = Net(lambda m, x: m.first(torch.relu(x)) + F.linear(torch.relu(x), m.first.weight), first=nn.Linear(3, 3))
    model = DifferentiableModel(net.double(), Categorical(), rows_of)
    X = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X[:3] = -1
    rows = rows_of(X, torch.arange(9) % 3)
    close(PerRow(model, 4).square_norms(rows), row_gradients(model, rows).square().sum(1))


def test_rows_that_are_sent_to_different_layers_are_refused():
    def run(m, x):
        chosen = x[:, 0] > 0
        h = x.clone()
        h[chosen] = m.expert(x[chosen])
        return m.last(h)

    model = DifferentiableModel(Net(run, expert=nn.Linear(3, 3), last=nn.Linear(3, 2)).double(), Categorical(), rows_of)
    X = torch.ones(8, 3, dtype=torch.float64)
    X[[1, 2]] = -1  # not among the rows that are looked at first
    with pytest.raises(RuntimeError, match="'expert' was called on 6 of 8 rows"):
        PerRow(model, 8).square_norms(rows_of(X, torch.arange(8) % 2))
    X[0] = -1  # now it is, and gradients are formed row by row
    rows = rows_of(X, torch.arange(8) % 2)
    engine = PerRow(model, 8)
    close(engine.square_norms(rows), row_gradients(model, rows).square().sum(1))
    assert engine.rest == ["expert.weight", "expert.bias"]


class Sign(torch.autograd.Function):
    """Straight-through estimator, written as functions were before torch.func."""

    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_a_custom_function_without_forward_mode_and_vmap():
    net = Net(
        lambda m, x: m.last(Sign.apply(m.first(x)) * m.scale),
        first=nn.Linear(3, 4),
        last=nn.Linear(4, 3),
        scale=nn.Parameter(torch.ones(4)),
    )
    model, rows = DifferentiableModel(net.double(), Categorical(), rows_of), vectors()
    expected = row_gradients(model, rows)
    along, directions = direction(model, 3)
    engine = PerRow(model, 4)
    close(engine.dots(rows, directions), expected @ along)
    close(engine.gradients(rows, slice(0, N)), expected)
    assert engine.rest == ["scale"]


# ---- products of factors -------------------------------------------------------------------------------------------


def factors(n, t, width, out, seed=0, **kind):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, t, width, generator=generator, dtype=torch.float64)
    return Mapped(
        a, torch.randn(n, t, out, generator=generator, dtype=torch.float64), **{"weight": True, "bias": True} | kind
    )


@pytest.mark.parametrize(("width", "out"), [(3, 2), (30, 20)])  # formed gradients, pairs of positions
def test_rows_of_different_lengths_have_dot_products(width, out):
    short, long = factors(4, 2, width, out), factors(3, 5, width, out, seed=1)
    close(short.gram(long), short.gradients() @ long.gradients().T)
    close(long.gram(short), long.gradients() @ short.gradients().T)


@pytest.mark.parametrize("bytes_", [1, 2**20])
@pytest.mark.parametrize("kind", [{}, {"bias": False}, {"weight": False}])
def test_forming_in_parts_changes_nothing(bytes_, kind, monkeypatch):
    monkeypatch.setattr("sktda.engine.layers.product.FORMED_BYTES", bytes_)
    monkeypatch.setattr("sktda.engine.layers.product.CONTRACT_BYTES", bytes_)
    width = 1 if kind == {"weight": False} else 4
    for rows in (factors(5, 7, width, 3, **kind), factors(5, 1, width, 3, **kind)):
        if rows.a.shape[1] == 1:
            rows = Mapped(rows.a[:, 0], rows.delta[:, 0], rows.weight, rows.bias)
        formed = rows.gradients()
        directions = torch.randn(6, formed.shape[1], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        close(rows.square_norms(), formed.square().sum(1))
        close(rows.gram(rows), formed @ formed.T)
        close(rows.contract(directions), formed @ directions.T)
        close(rows.contract(directions[:2]), formed @ directions[:2].T)


KINDS = ({}, {"bias": False}, {"weight": False})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [None, 2, 9])
@pytest.mark.parametrize("out", [3, 100])
def test_products_and_sums_of_them_are_those_of_formed_gradients(kind, t, out):
    width = 1 if kind == {"weight": False} else 101
    parts = [factors(4, t or 1, width, out, seed, **kind) for seed in range(3)]
    if t is None:
        parts = [Mapped(part.a[:, 0], part.delta[:, 0], part.weight, part.bias) for part in parts]
    one, two, other = parts
    both, formed = Sum([one, two]), one.gradients() + two.gradients()
    directions = torch.randn(6, formed.shape[1], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    close(both.gradients(), formed)
    close(both.contract(directions), formed @ directions.T)
    close(both.contract(directions[:3]), formed @ directions[:3].T)
    close(both.gram(other), formed @ other.gradients().T)
    close(both.pairs(other), (formed * other.gradients()).sum(1))
    close(both.square_norms(), formed.square().sum(1))
    close(both.along(other.gradients()), (formed * other.gradients()).sum(1))
    close(both.scaled(-2.5).gradients(), -2.5 * formed)
    close(one.pairs(other), (one.gradients() * other.gradients()).sum(1))
    close(one.contract(directions[:1]), one.gradients() @ directions[:1].T)
    close(one.scaled(0.3).gradients(), 0.3 * one.gradients())
    assert one.scaled(0.3).a is one.a
    close(Formed(formed).pairs(other), (formed * other.gradients()).sum(1))
    close(Formed(formed).scaled(3.0).gradients(), 3 * formed)
    assert one.images(directions).shape == (4, 6, *one.delta.shape[1:])
    close(one.meet(one.images(directions)), one.gradients() @ directions.T)


CONVOLUTIONS = {
    "1d": lambda bias: nn.Conv1d(3, 5, 3, bias=bias),
    "1d, circular, same": lambda bias: nn.Conv1d(3, 5, 3, padding="same", padding_mode="circular", bias=bias),
    "2d": lambda bias: nn.Conv2d(3, 5, (2, 3), padding=(1, 2), stride=(1, 2), dilation=(2, 1), bias=bias),
    "2d, reflect": lambda bias: nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect", bias=bias),
}


@pytest.mark.parametrize("ones", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_the_product_of_its_patches(name, bias, ones):
    torch.manual_seed(0)
    conv = CONVOLUTIONS[name](bias).double()
    x, other = (torch.randn(4, 3, *(7, 6)[: conv.weight.ndim - 2], dtype=torch.float64) for _ in range(2))
    conv.to(x.device)
    delta = torch.randn_like(conv(x)).flatten(2).transpose(1, 2)
    own, change = Convolved(conv, x, delta, bias), Convolved(conv, other, delta.flip(0), bias, ones)

    def dense(part, ones=True):
        a = patches(conv, part.inputs)
        a = torch.cat([a, torch.full((*a.shape[:2], 1), float(ones), dtype=a.dtype)], 2) if bias else a
        return Mapped(a, part.delta, True, bias)

    for part, true in (
        (own, dense(own)),
        (change, dense(change, ones)),
        (change.scaled(-2.0), dense(change, ones).scaled(-2.0)),
    ):
        formed = true.gradients()
        assert part.width == true.width
        directions = torch.randn(6, formed.shape[1], dtype=torch.float64)
        close(part.images(directions), true.images(directions))
        close(part.contract(directions), formed @ directions.T)
        close(part.contract(directions[:2]), formed @ directions[:2].T)
        close(part.gradients(), formed)
        close(part.square_norms(), formed.square().sum(1))
        close(part.gram(own), formed @ own.gradients().T)
        close(part.pairs(own), (formed * own.gradients()).sum(1))
        assert "a" not in vars(part)  # formed by what asks for it alone
        close(part.a, true.a)
    close(
        own.gradients(),
        torch.stack(
            [
                torch.cat(
                    [
                        g.flatten()
                        for g in torch.autograd.grad(
                            (conv(x[i : i + 1]).flatten(2).transpose(1, 2) * delta[i]).sum(), list(conv.parameters())
                        )
                    ]
                )
                for i in range(4)
            ]
        ),
    )


def test_sums_and_scales_of_embeddings():
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(6, (4, 5), generator=generator)
    deltas = torch.randn(2, 4, 5, 3, generator=generator, dtype=torch.float64)
    one, two = Lookup(indices, deltas[0], 6, 2), Lookup(indices.flip(1), deltas[1], 6, 2)
    formed = one.gradients() + two.gradients()
    both = Sum([one, two])
    close(both.gradients(), formed)
    close(both.gram(one), formed @ one.gradients().T)
    close(both.pairs(two), (formed * two.gradients()).sum(1))
    close(one.scaled(-3.0).gradients(), -3 * one.gradients())
    close(one.scaled(-3.0).gram(two), -3 * one.gradients() @ two.gradients().T)


def test_an_embedding_forms_no_table_per_row(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(6, (4, 5), generator=generator)
    rows = Lookup(indices, torch.randn(4, 5, 3, generator=generator, dtype=torch.float64), 6, 2)
    formed = rows.gradients()
    directions = torch.randn(2, 18, generator=generator, dtype=torch.float64)
    monkeypatch.setattr(Lookup, "gradients", None)
    close(rows.contract(directions), formed @ directions.T)
    close(rows.gram(rows), formed @ formed.T)
    close(rows.square_norms(), formed.square().sum(1))
    assert not formed.reshape(4, 6, 3)[:, 2].any()


@pytest.mark.parametrize("name", ["conv1d, same", "conv2d, all options", "conv2d, reflect, same", "conv2d, valid"])
def test_patches_times_the_weight_are_the_convolution(name):
    model, rows, _ = truth(name)
    conv = model.module[0]
    x = rows.block(slice(0, 3), CPU)[0]
    expected = conv(x).detach().flatten(2)
    close((patches(conv, x) @ conv.weight.flatten(1).T + conv.bias).transpose(1, 2).detach(), expected)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("weight", "bias"), [(True, True), (True, False)])
def test_maps_are_the_inverse_of_flat_gradients(weight, bias, transposed):
    rows = factors(5, 2, 5, 3, weight=weight, bias=bias, transposed=transposed)
    close(rows.maps(rows.gradients()), rows.matrices())
    few, many = rows.gradients()[:2], rows.gradients()
    close(rows.contract(few), many @ few.T)
    close(rows.contract(many), many @ many.T)


def test_a_pickled_layer_leaves_its_module_out():
    layer = pickle.loads(pickle.dumps(known_layers(nn.Linear(4, 3))[0]))
    assert layer.module is None
    assert layer.parameters == ["weight", "bias"]
    assert layer.n_parameters == 15


def test_only_layers_with_known_factors_are_known():
    net = nn.ModuleList([
        nn.Linear(2, 2), frozen(nn.Linear(2, 2), "weight", "bias"), nn.Conv2d(2, 2, 1, groups=2), nn.PReLU(),
        nn.Embedding(3, 2, max_norm=1.0), nn.Embedding(3, 2, scale_grad_by_freq=True), nn.Embedding(3, 2, sparse=True),
        nn.LayerNorm(2, elementwise_affine=False), nn.InstanceNorm1d(2, affine=True), nn.BatchNorm1d(2),
    ])  # fmt: skip
    assert [layer.name for layer in known_layers(net)] == ["0", "2", "3", "8", "9"]
    assert [layer.is_product for layer in known_layers(net)] == [True, False, False, False, False]


def test_settings_that_threads_hold_at_the_same_time_are_put_back():
    first, second = layer_by_layer(), layer_by_layer()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.mha.get_fastpath_enabled()
    second.__exit__(None, None, None)
    assert torch.backends.mha.get_fastpath_enabled()
