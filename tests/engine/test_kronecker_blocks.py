"""EK-FAC over layers of every kind: blocks against gradients by row of the drawn labels."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.frozen import FrozenEstimator
from torch import nn

from sktda.attribution import Influence, unlearn
from sktda.engine import kronecker_blocks
from sktda.engine.blocks import BlockCurvature
from sktda.engine.curvature import DenseCurvature
from sktda.engine.ekfac import EKFAC
from sktda.engine.kronecker_blocks import FormedBlock, LookupBlock, ProductBlock
from sktda.engine.per_row import PerRow
from sktda.model.adapters import differentiable
from sktda.model.base import DifferentiableModel, flatten_each, forward, unflatten
from sktda.model.softmax import Categorical
from tests.engine.test_layers import (
    CPU,
    Net,
    close,
    codes,
    floats,
    language_model,
    rows_of,
    seq,
    shaken,
    sharing_a_weight,
)
from tests.model.nets import make_net

N = 12


class Conv1D(nn.Module):
    """As Hugging Face's GPT models have it: the weight is (in, out)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf) * 0.3)
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).reshape(*x.shape[:-1], self.nf)


def recurrent(kind, **options):
    ways = 2 if options.get("bidirectional") else 1
    cells = kind(3, 4, batch_first=options.pop("batch_first", True), **options)
    first = 0 if cells.batch_first else 1

    def run(m, x):
        out = m.cells(x if m.cells.batch_first else x.transpose(0, 1))[0]
        return m.head((out if first == 0 else out.transpose(0, 1))[:, -1])

    return Net(run, cells=cells, head=nn.Linear((options.get("proj_size") or 4) * ways, 3))


def cell(kind):
    def run(m, x):
        state = None
        for t in range(x.shape[1]):
            state = m.cells(x[:, t], state)
        return m.head(state[0] if isinstance(state, tuple) else state)

    return Net(run, cells=kind(3, 4), head=nn.Linear(4, 3))


def folded(layer, swapped=False):
    """A layer on (n * t, 3) inputs, by rows or by places."""

    def run(m, x):
        n = len(x)
        x = x.transpose(0, 1) if swapped else x
        h = torch.tanh(m.first(x.reshape(-1, 3)))
        h = h.reshape(-1, n, h.shape[-1]).transpose(0, 1) if swapped else h.reshape(n, -1, h.shape[-1])
        return m.head(h.mean(1))

    return Net(run, first=layer, head=nn.Linear(4, 3))


def video():
    """A convolution on the folded pictures of a row."""
    return Net(
        lambda m, x: m.head(torch.tanh(m.conv(x.flatten(0, 1))).reshape(*x.shape[:2], -1).mean(1)),
        conv=nn.Conv2d(1, 2, 2),
        head=nn.Linear(8, 3),
    )


PRODUCT, TABLE, FORMED = ProductBlock, LookupBlock, FormedBlock
CASES = {  # name: (module, inputs, {name of a block: its kind})
    "Conv1D of transformers": (lambda: seq(Conv1D(4, 3), nn.Tanh(), Conv1D(3, 4)), floats(3), {"0": PRODUCT}),
    "Conv1D of tokens": (
        lambda: Net(lambda m, x: m.last(torch.tanh(m.first(x)).mean(1)), first=Conv1D(4, 3), last=nn.Linear(4, 3)),
        floats(4, 3),
        {"first": PRODUCT},
    ),
    "conv3d": (lambda: seq(nn.Conv3d(1, 3, 2, stride=(1, 2, 1), padding=1, dilation=(1, 1, 2))), floats(1, 2, 3, 2),
               {"0": PRODUCT}),
    "conv3d, reflect": (lambda: seq(nn.Conv3d(1, 2, 2, padding=1, padding_mode="replicate")), floats(1, 2, 2, 2),
                        {"0": PRODUCT}),
    "grouped": (lambda: seq(nn.Conv2d(4, 6, 2, groups=2, bias=False)), floats(4, 3, 3), {"0": FORMED}),
    "depthwise": (lambda: seq(nn.Conv1d(3, 3, 3, groups=3, padding="same", dilation=2)), floats(3, 5), {"0": FORMED}),
    "depthwise 3d": (lambda: seq(nn.Conv3d(2, 4, 2, groups=2)), floats(2, 2, 3, 2), {"0": FORMED}),
    "transposed 1d": (lambda: seq(nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1)), floats(2, 4),
                      {"0": FORMED}),
    "transposed 2d": (
        lambda: seq(nn.ConvTranspose2d(4, 4, (2, 3), stride=(1, 2), dilation=(3, 1), output_padding=(2, 0), groups=2)),
        floats(4, 2, 2),
        {"0": FORMED},
    ),
    "transposed 3d": (lambda: seq(nn.ConvTranspose3d(2, 2, 2, bias=False)), floats(2, 2, 2, 1), {"0": FORMED}),
    "embedding": (lambda: seq(nn.Embedding(5, 3, padding_idx=1), nn.Linear(3, 2)), codes(5, 4), {"0": TABLE}),
    "bag, mean": (lambda: seq(nn.EmbeddingBag(5, 3, padding_idx=2), nn.Linear(3, 3)), codes(5, 4), {"0": TABLE}),
    "bag, sum": (lambda: nn.EmbeddingBag(4, 3, mode="sum"), codes(4, 5), {"": TABLE}),
    "bag, max": (lambda: seq(nn.EmbeddingBag(4, 3, mode="max"), nn.Linear(3, 3)), codes(4, 5), {"0.weight": FORMED}),
    "LSTM": (lambda: recurrent(nn.LSTM), floats(4, 3), {"cells.ih_l0": PRODUCT, "cells.hh_l0": PRODUCT}),
    "LSTM, two layers, both ways": (
        lambda: recurrent(nn.LSTM, num_layers=2, bidirectional=True, batch_first=False),
        floats(3, 3),
        {"cells.ih_l1_reverse": PRODUCT, "cells.hh_l0": PRODUCT},
    ),
    "LSTM that projects": (lambda: recurrent(nn.LSTM, proj_size=2), floats(3, 3), {"cells.weight_hr_l0": FORMED}),
    "GRU without bias": (lambda: recurrent(nn.GRU, bias=False), floats(4, 3), {"cells.hh_l0": PRODUCT}),
    "RNN, ReLU": (lambda: recurrent(nn.RNN, nonlinearity="relu"), floats(4, 3), {"cells.ih_l0": PRODUCT}),
    "LSTM cell": (lambda: cell(nn.LSTMCell), floats(3, 3), {"cells.ih": PRODUCT, "cells.hh": PRODUCT}),
    "GRU cell": (lambda: cell(nn.GRUCell), floats(3, 3), {"cells.ih": PRODUCT, "cells.hh": PRODUCT}),
    "RNN cell": (lambda: cell(nn.RNNCell), floats(3, 3), {"cells.ih": PRODUCT, "cells.hh": PRODUCT}),
    "norms": (
        lambda: shaken(
            seq(nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True))
        ),
        floats(2, 3, 3),
        {"1": FORMED, "2": FORMED, "3": FORMED},
    ),
    "instance norm with statistics": (
        lambda: shaken(seq(nn.InstanceNorm1d(2, affine=True, track_running_stats=True))), floats(2, 3), {"0": FORMED}
    ),
    "PReLU": (lambda: seq(nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 3), nn.PReLU()), floats(3),
              {"1": FORMED, "3": FORMED}),
    "PReLU of pictures": (lambda: seq(nn.Conv1d(2, 3, 2), nn.PReLU(3)), floats(2, 4), {"1": FORMED}),
    "bilinear": (lambda: Net(lambda m, x: m.pair(x, x[..., :2]).flatten(1), pair=nn.Bilinear(3, 2, 3)), floats(2, 3),
                 {"pair": PRODUCT}),
    "folded": (lambda: folded(nn.Linear(3, 4)), floats(5, 3), {"first": PRODUCT}),
    "folded, by places": (lambda: folded(nn.Linear(3, 4), True), floats(5, 3), {"first": PRODUCT}),
    "folded norm": (lambda: folded(nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 4))), floats(5, 3), {"first.0": FORMED}),
    "folded pictures": (video, floats(3, 1, 3, 3), {"conv": PRODUCT}),
    "convolution called twice": (
        lambda: Net(lambda m, x: m.both(torch.tanh(m.both(x))).flatten(1), both=nn.Conv1d(2, 2, 3, padding=1)),
        floats(2, 4),
        {"both": PRODUCT},
    ),
    "embedding called twice": (
        lambda: Net(lambda m, x: m.table(x[:, :2]).mean(1) - m.table(x[:, 2:]).mean(1), table=nn.Embedding(4, 3)),
        codes(4, 5),
        {"table": TABLE},
    ),
    "tied weights": (
        sharing_a_weight,
        floats(3),
        {"first": PRODUCT, "first.bias": PRODUCT, "second.bias": PRODUCT},
    ),
    "tied table": (language_model, codes(5, 4), {"table": TABLE, "out.bias": PRODUCT}),
    "bare parameters": (
        lambda: Net(
            lambda m, x: m.first(x) * m.temperature + m.shift,
            first=nn.Linear(3, 3),
            temperature=nn.Parameter(torch.tensor(1.5)),
            shift=nn.Parameter(torch.zeros(3)),
        ),
        floats(3),
        {"temperature": FORMED, "shift": FORMED},
    ),
    "attention": (
        lambda: Net(
            lambda m, x: m.head(m.attention(x, x, x)[0].mean(1)),
            attention=nn.MultiheadAttention(4, 2, batch_first=True),
            head=nn.Linear(4, 3),
        ),
        floats(3, 4),
        {"head": PRODUCT},
    ),
}  # fmt: skip


def build(name, weighted=True):
    """(model, rows, kinds); every parameter is penalised by a number of its own."""
    make, inputs, kinds = CASES[name]
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make().double().eval()
    x = inputs(N, generator)
    module.to(x.device)
    with torch.no_grad():
        width = forward(module, x).shape[1]
    weight = torch.rand(N, generator=generator, dtype=torch.float64) + 0.5 if weighted else None
    decay = {key: 0.01 * (k + 1) for k, key in enumerate(dict(module.named_parameters()))}
    model = DifferentiableModel(module, Categorical(), rows_of, decay)
    return model, rows_of(x, torch.randint(width, (N,), generator=generator), weight), kinds


def gradients_of(model, rows, targets_of=None):
    """(n, ...) gradients by parameter, one backward pass per row; of the losses, or of outputs times something."""
    own, found = model.parameters, []
    for i in range(len(rows)):
        inputs, targets, weight = rows.block(slice(i, i + 1), CPU)
        outputs = forward(model.module, inputs)
        if targets_of is None:
            value = model.likelihood.losses(outputs, targets).sum() * (1 if weight is None else weight[0])
        else:
            value = (outputs * targets_of(outputs.detach(), targets, i)).sum() * (
                1 if weight is None else weight[0] ** 0.5
            )
        found.append(torch.autograd.grad(value, list(own.values()), materialize_grads=True, allow_unused=True))
    return {name: torch.stack(values) for name, values in zip(own, zip(*found, strict=True), strict=True)}


def flat_rows(gradients):
    """(n, p)."""
    return torch.cat([value.reshape(len(value), -1) for value in gradients.values()], 1)


def drawn_gradients(model, rows, seed):
    """Of the labels that EK-FAC draws."""
    with torch.no_grad():
        shape = forward(model.module, rows.block(slice(0, 1), CPU)[0]).shape
    noise = model.likelihood.noise(torch.Size((N, *shape[1:])), torch.Generator().manual_seed(seed)).to(model.device)
    return gradients_of(
        model, rows, lambda outputs, targets, i: model.likelihood.slopes(outputs, targets, noise[i : i + 1])
    )


def penalty_of(model, block):
    """(in,) of every column of a block's matrix."""
    return torch.cat([torch.full((k,), v, dtype=torch.float64) for k, v in block.columns_of(model.decay)])


def basis_of(curvature, block):
    """(out * in, out * in) eigenvectors of a block."""
    q_in, q_out = (
        torch.eye(size, dtype=torch.float64) if basis is None else basis
        for basis, size in zip(curvature.bases(block.name), reversed(block.size), strict=True)
    )
    return torch.kron(q_out.contiguous(), q_in.contiguous())


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_is_covered_and_the_values_are_those_of_gradients_by_row(name):
    model, rows, kinds = build(name)
    engine = PerRow(model, 5)
    curvature = EKFAC(engine, rows, seed=3)
    assert not curvature.left_out
    found = {block.name: type(block) for block in curvature.layers}
    assert found | kinds == found
    drawn, true = drawn_gradients(model, rows, 3), gradients_of(model, rows)
    close(engine.gradients(rows, slice(0, N)), flat_rows(true), 1e-9)
    fn = curvature.inverse(0.02)
    g = torch.Generator().manual_seed(0)
    direction = {k: torch.randn(3, *v.shape, generator=g, dtype=torch.float64) for k, v in model.parameters.items()}
    moved, lengths = curvature.apply(fn, direction), 0.0
    for block in curvature.layers:
        basis = basis_of(curvature, block)
        close(basis.T @ basis, torch.eye(len(basis), dtype=torch.float64), 1e-9)
        each = block.matrix(drawn).flatten(-2)
        penalty = penalty_of(model, block)
        diagonal = basis.square().T @ penalty.repeat(block.size[0])
        values = (each @ basis).square().mean(0) + diagonal
        close(curvature.values[block.name].flatten(), values, 1e-9)
        inverse = basis @ torch.diag(1 / (values + 0.02)) @ basis.T
        close(block.matrix(moved).flatten(1), block.matrix(direction).flatten(1) @ inverse, 1e-8)
        own = block.matrix(true).flatten(1)
        lengths = lengths + ((own @ inverse) * own).sum(1)
        if type(block) is FormedBlock and block.size[0] == 1:  # exact, and not only in its diagonal
            close(basis.T @ (each.T @ each / N) @ basis, torch.diag(values - diagonal), 1e-9)
    close(curvature.quadratic(engine, rows, fn, 0, N), lengths, 1e-8)


@pytest.mark.parametrize(("exact", "side"), [(0, 4_096), (0, 2), (2, 4_096)])
@pytest.mark.parametrize("name", ["grouped", "transposed 2d", "norms", "bare parameters"])
def test_blocks_that_are_too_large_to_be_exact(name, exact, side, monkeypatch):
    monkeypatch.setattr(kronecker_blocks, "EXACT", exact)
    monkeypatch.setattr(kronecker_blocks, "SIDE", side)
    model, rows, _ = build(name)
    curvature = EKFAC(PerRow(model, 5), rows, seed=3)
    assert not curvature.left_out
    drawn = drawn_gradients(model, rows, 3)
    for block in curvature.layers:
        basis = basis_of(curvature, block)
        penalty = penalty_of(model, block)
        diagonal = basis.square().T @ penalty.repeat(block.size[0])
        values = (block.matrix(drawn).flatten(1) @ basis).square().mean(0) + diagonal
        close(curvature.values[block.name].flatten(), values, 1e-9)


def test_a_conv1d_of_transformers_has_the_curvature_of_a_linear_layer():
    model, rows, _ = build("Conv1D of transformers")
    other = seq(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        for k in (0, 2):
            other[k].weight.copy_(model.module[k].weight.T)
            other[k].bias.copy_(model.module[k].bias)
    linear = EKFAC(PerRow(DifferentiableModel(other, Categorical(), rows_of, model.decay)), rows, seed=5)
    found = EKFAC(PerRow(model), rows, seed=5)
    for layer in ("0", "2"):
        close(found.values[layer], linear.values[layer])
        close(found.basis_in[layer].abs(), linear.basis_in[layer].abs(), 1e-6)


def test_the_curvature_of_one_row_is_exact_where_a_row_has_one_position():
    """delta a' of one row: the Kronecker product of the factors is the layer's matrix itself."""
    model, rows, _ = build("Conv1D of transformers", weighted=False)
    one = rows.chosen(np.array([3]))
    curvature = EKFAC(PerRow(model), one, seed=2)
    drawn = drawn_gradients(model, one, 2)
    for block in curvature.layers:
        basis, each = basis_of(curvature, block), block.matrix(drawn).flatten(1)
        penalty = penalty_of(model, block)
        found = basis @ torch.diag(curvature.values[block.name].flatten()) @ basis.T
        diagonal = basis @ torch.diag(basis.square().T @ penalty.repeat(block.size[0])) @ basis.T
        close(found - diagonal, each.T @ each, 1e-9)


class Skewed(nn.Module):
    """Layers of the kinds that were left out before."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv1d(1, 4, 2)
        self.norm = nn.GroupNorm(2, 4)
        self.depthwise = nn.Conv1d(4, 4, 2, groups=4)
        self.cells = nn.GRU(4, 3, batch_first=True)
        self.scale = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(3, 2)

    def forward(self, X):
        h = torch.tanh(self.depthwise(torch.tanh(self.norm(self.body(X[:, None])))))
        return self.head(self.scale * self.cells(h.transpose(1, 2))[0][:, -1])


@pytest.fixture(scope="module")
def skewed():
    """(fitted net, X, y)."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 6)).astype(np.float32)
    y = (X[:, :2].sum(1) + 0.5 * rng.normal(size=60) > 0).astype(np.int64)
    return make_net(module=Skewed, max_epochs=15, lr=0.3).fit(X, y), X, y


def test_values_are_near_those_of_exact_gauss_newton_matrices(skewed):
    """Of single layers, closely; of the whole only where the damping covers what layers have in common."""
    net, X, y = skewed
    model = differentiable(net, len(X))
    rows, engine = model.training_rows(X, y), PerRow(model)
    engine.prepare(rows)
    gradients = engine.gradients(rows, slice(0, len(X)))
    shapes = {name: value.shape for name, value in model.parameters.items()}
    direction = unflatten(gradients[:10], shapes)
    curvatures = EKFAC(engine, rows), BlockCurvature(engine, rows), DenseCurvature(engine, rows)
    for damping, blocks, whole in ((0.02, 0.95, 0.4), (1.0, 0.99, 0.9)):
        found = []
        for curvature in curvatures:
            moved = curvature.back(curvature.scale(lambda s: 1 / (s + damping), curvature.rotate(direction)))  # noqa: B023
            found.append((flatten_each(moved, shapes).double() @ gradients.double().T).numpy().ravel())
        assert spearmanr(found[0], found[1])[0] > blocks
        assert spearmanr(found[0], found[2])[0] > whole


def test_predicted_parameters_move_in_every_layer(skewed):
    net, X, y = skewed
    influence = Influence(FrozenEstimator(net), curvature="ekfac", damping=0.1, random_state=0).fit(X, y)
    assert influence.curvature_.parameter_share == influence.curvature_.energy_share == 1
    before = dict(net.module_.named_parameters())
    after = influence.deletion_update([0, 3])
    assert list(after) == list(before)
    assert not any(torch.equal(value, before[name]) for name, value in after.items())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no steps of SGD")
        corrected = unlearn(influence, [0, 3]).estimator
    for name, value in corrected.module_.named_parameters():
        torch.testing.assert_close(value.detach(), after[name])


def test_places_that_hold_parts_of_other_rows_are_refused():
    """A layer on the words that a mask keeps: the rows that are tried first keep as many each, others do not."""

    def run(m, x):
        kept = x[..., 0] > -50
        h = torch.zeros(*x.shape[:2], 3, dtype=x.dtype)
        h[kept] = m.first(x[kept])
        return m.head(h.mean(1))

    net = Net(run, first=nn.Linear(3, 3), head=nn.Linear(3, 2)).double()
    X = torch.randn(9, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = rows_of(X, torch.arange(9) % 2)
    model = DifferentiableModel(net, Categorical(), rows_of)
    close(
        PerRow(model, 9).gradients(rows, slice(0, 9)),
        torch.cat([v.flatten(1) for v in gradients_of(model, rows).values()], 1),
    )
    X[1, 0], X[2, :3], X[3, 1:] = -100, -100, -100
    X[5, 0] = -100  # four in every ... of the nine rows together: 36 - 8
    for moved in (X, torch.cat([X[:8], X[8:]])):
        with pytest.raises(RuntimeError, match=r"layer 'first' is called on 28 inputs for 9 rows"):
            PerRow(model, 9).square_norms(rows_of(moved, torch.arange(9) % 2))
    X[6, 0] = -100  # 27 for 9 rows, which could be three of each
    with pytest.raises(RuntimeError, match=r"layer 'first' is called on 27 inputs for 9 rows"):
        PerRow(model, 9).square_norms(rows)


def test_a_dense_curvature_of_a_recurrent_net_is_the_sum_of_its_rows():
    model, rows, _ = build("LSTM", weighted=False)
    found = DenseCurvature(PerRow(model), rows)
    assert bool((found.values > 0).all())
