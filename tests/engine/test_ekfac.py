"""EK-FAC against a reference that loops over rows: factors, eigenvalues, functions of the curvature.

What holds exactly: the basis is that of A and S; the eigenvalues are the mean squares of the per-row gradients of the
drawn labels in it; for one linear layer under squared error the Gauss-Newton matrix is the Kronecker product of A and
2 I, so EK-FAC is exact up to the drawn labels. In a deep linear net that is true of each layer alone, not of the whole.
"""

import pickle
import warnings
from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from sktda.engine import ekfac, journal, kronecker, kronecker_blocks
from sktda.engine.curvature import gauss_newton
from sktda.engine.ekfac import EKFAC
from sktda.engine.journal import Journal, Passes
from sktda.engine.kronecker import eigenvectors, self_product
from sktda.engine.kronecker_blocks import ProductBlock
from sktda.engine.layers import Mapped
from sktda.engine.per_row import PerRow
from sktda.model.base import DifferentiableModel, Rows
from sktda.model.likelihood import Binary, Gaussian
from sktda.model.softmax import Categorical
from tests.in_turn import in_turn
from tests.spies import visiting

N = 19


class Tokens(nn.Module):
    """A Linear layer shared by the tokens of a row, (n, t, 3) or (n, t, u, 3), then a head on their mean."""

    def __init__(self, bias=True):
        super().__init__()
        self.each = nn.Linear(3, 4, bias=bias)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.each(x)).flatten(1, -2).mean(1))


class Twice(nn.Module):
    """A Linear layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.body(torch.tanh(self.body(x)))))


def mlp(bias=True, out=3):
    return nn.Sequential(nn.Linear(4, 6, bias=bias), nn.Tanh(), nn.Linear(6, out, bias=bias))


def conv2d(bias=True):
    first = nn.Conv2d(2, 3, (3, 2), stride=2, padding=1, bias=bias)
    return nn.Sequential(first, nn.Tanh(), nn.Conv2d(3, 2, 2, dilation=2, bias=bias), nn.Flatten(), nn.Linear(4, 3))


def conv1d(bias=True):
    return nn.Sequential(
        nn.Conv1d(2, 3, 3, padding="same", bias=bias), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(15, 3)
    )


def frozen(build, *names):
    def make():
        module = build()
        for name in names:
            module.get_parameter(name).requires_grad_(False)
        return module

    return make


def codes(g):
    return torch.randint(3, (N,), generator=g)


def numbers(g):
    return torch.randn(N, 2, generator=g, dtype=torch.float64)


def bits(g):
    return torch.randint(2, (N, 1), generator=g).double()


CASES = {  # name: module, shape of a row, likelihood, targets
    "linear": (mlp, (4,), Categorical(), codes),
    "linear without bias": (lambda: mlp(False), (4,), Categorical(), codes),
    "linear, binary": (lambda: mlp(out=1), (4,), Binary(), bits),
    "linear, squared error": (lambda: mlp(out=2), (4,), Gaussian(), numbers),
    "linear, half the mean squared error": (lambda: mlp(out=2), (4,), Gaussian(0.5, average=True), numbers),
    "frozen weight": (frozen(mlp, "0.weight"), (4,), Categorical(), codes),
    "frozen bias": (frozen(mlp, "0.bias"), (4,), Categorical(), codes),
    "called twice": (Twice, (4,), Categorical(), codes),
    "tokens": (Tokens, (5, 3), Categorical(), codes),
    "tokens without bias": (lambda: Tokens(False), (5, 3), Categorical(), codes),
    "tokens on two axes": (Tokens, (2, 3, 3), Categorical(), codes),
    "conv1d": (conv1d, (2, 5), Categorical(), codes),
    "conv2d": (conv2d, (2, 5, 6), Categorical(), codes),
    "conv2d without bias": (lambda: conv2d(False), (2, 5, 6), Categorical(), codes),
}


def make(name, weighted=False, dtype=torch.float64):
    """(model, rows, inputs, weights); weights and biases of all layers are penalised, each differently."""
    build, shape, likelihood, draw = CASES[name]
    g = torch.Generator().manual_seed(3)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        module = build().to(dtype).eval()
    x, y = torch.randn(N, *shape, generator=g, dtype=torch.float64).to(dtype), draw(g)
    weight = None
    if weighted:
        weight = (2 * torch.rand(N, generator=g, dtype=torch.float64)).to(dtype)
        weight[2] = 0
    decay = {key: 0.01 * (k + 1) for k, key in enumerate(dict(module.named_parameters()))}
    model = DifferentiableModel(module, likelihood, None, decay=decay)
    return model, rows_of(x, y, weight), x, weight


def rows_of(x, y, weight=None):
    return Rows(len(x), lambda rows: (x[rows], y[rows]), weight)


def close(found, expected, tolerance=1e-10):
    assert found.shape == expected.shape
    return (found - expected).norm() <= tolerance * expected.norm()


# ---- the reference ---------------------------------------------------------------------------------------------------


def windows(layer, x):
    """(positions, in) inputs of one row that meet the layer's weight, cut out one by one."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    if layer.padding == "same":
        pads = [(d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2) for k, d in zip(kernel, dilation, strict=True)]
    else:
        pads = [(p, p) for p in layer.padding]
    x = F.pad(x, [number for pair in reversed(pads) for number in pair])
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    starts = [range(0, x.shape[1 + i] - spans[i] + 1, stride[i]) for i in range(len(kernel))]
    found = []
    for corner in torch.cartesian_prod(*[torch.tensor(list(s)) for s in starts]).reshape(-1, len(kernel)).tolist():
        cut = x
        for axis, start in enumerate(corner):
            cut = cut.narrow(axis + 1, start, spans[axis])
            cut = cut[(slice(None),) * (axis + 1) + (slice(None, None, dilation[axis]),)]
        found.append(cut.flatten())
    return torch.stack(found)


def note(calls, name, _, inputs, out):
    """Hook: the input and the output of one call; a copy of the output goes on, which may be changed in place."""
    calls.append((name, inputs[0].detach().clone(), out))
    return out + 0


def reference(model, x, weight, noise):
    """Per layer (A, S, per-row gradients (n, out, in + bias)) of the drawn labels, row by row by autograd."""
    layers = {
        name: part
        for name, part in model.module.named_modules()
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d) and any(p.requires_grad for p in part.parameters())
    }
    found = {name: [0.0, 0.0, []] for name in layers}
    for i in range(len(x)):
        calls = []
        handles = [part.register_forward_hook(partial(note, calls, name)) for name, part in layers.items()]
        outputs = model.module(x[i : i + 1])
        for handle in handles:
            handle.remove()
        drawn = model.likelihood.draw(outputs.detach(), noise[i : i + 1].to(outputs.device))
        loss = model.likelihood.losses(outputs, drawn)[0]
        own = 1.0 if weight is None else float(weight[i])
        names = list(model.parameters)
        grads = dict(
            zip(names, torch.autograd.grad(loss, list(model.parameters.values()), retain_graph=True), strict=True)
        )
        for name, seen, out in calls:
            part = layers[name]
            a = windows(part, seen[0])
            if not part.weight.requires_grad:
                a = a[:, :0]
            if part.bias is not None and part.bias.requires_grad:
                a = torch.cat([a, torch.ones(len(a), 1, dtype=a.dtype)], 1)
            delta = torch.autograd.grad(loss, out, retain_graph=True)[0][0]
            delta = delta.reshape(-1, delta.shape[-1]) if isinstance(part, nn.Linear) else delta.flatten(1).T
            found[name][0] = found[name][0] + own * a.T @ a / len(x)
            found[name][1] = found[name][1] + own * delta.T @ delta / len(x)
        for name, part in layers.items():
            pieces = []
            if f"{name}.weight" in grads:
                pieces.append(grads[f"{name}.weight"].reshape(len(part.weight), -1))
            if f"{name}.bias" in grads:
                pieces.append(grads[f"{name}.bias"][:, None])
            found[name][2].append(own**0.5 * torch.cat(pieces, 1))
    return {name: (a, s, torch.stack(g)) for name, (a, s, g) in found.items()}


def noise_of(model, x, seed):
    with torch.no_grad():
        shape = model.module(x[:1]).shape[1:]
    return model.likelihood.noise(torch.Size((len(x), *shape)), torch.Generator().manual_seed(seed))


def penalty_matrix(model, name, width, out):
    """(out, in + bias) penalties of the layer's entries."""
    values = torch.full((out, width), model.decay.get(f"{name}.weight", 0.0), dtype=torch.float64)
    if f"{name}.bias" in model.parameters:
        values[:, -1] = model.decay.get(f"{name}.bias", 0.0)
    return values


# weights of rows by turns: every kind of layer has cases with and without
@pytest.mark.parametrize(("name", "weighted"), [(name, k % 2 == 0) for k, name in enumerate(CASES)])
def test_factors_and_eigenvalues_equal_those_of_per_row_gradients(name, weighted):
    model, rows, x, weight = make(name, weighted)
    truth = reference(model, x, weight, noise_of(model, x, 11))
    found = EKFAC(PerRow(model, 8), rows, seed=11)
    assert not found.left_out
    assert [layer.name for layer in found.layers] == list(truth)
    for layer, (a, s, gradients) in truth.items():
        q_in, q_out = found.basis_in[layer], found.basis_out[layer]
        for basis, factor in ((q_in, a), (q_out, s)):
            assert close(basis.T @ basis, torch.eye(len(factor), dtype=torch.float64))
            rotated = basis.T @ factor @ basis
            assert close(torch.diag(rotated.diagonal()), rotated, 1e-9)
        squares = (q_out.T @ gradients @ q_in).square().mean(0)
        # a penalty that differs between weight and bias is not diagonal in the basis: its diagonal is taken
        penalty = q_in.square().T @ penalty_matrix(model, layer, len(a), len(s))[0]
        assert close(found.values[layer], squares + penalty)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["linear", "frozen weight", "tokens", "conv2d without bias", "conv1d"])
def test_apply_equals_functions_of_the_dense_reference(name, weighted):
    """Independent of signs: the matrix sum_jk fn(value_jk) u_jk u_jk' with u = kron of the reference's eigenvectors."""
    model, rows, x, weight = make(name, weighted)
    found = EKFAC(PerRow(model), rows, seed=2)
    g = torch.Generator().manual_seed(0)
    direction = {
        key: torch.randn(3, *value.shape, generator=g, dtype=torch.float64) for key, value in model.parameters.items()
    }
    moved = found.apply(found.inverse(0.05), direction)
    assert {key: value.shape for key, value in moved.items()} == {key: v.shape for key, v in direction.items()}
    for layer, (a, s, gradients) in reference(model, x, weight, noise_of(model, x, 2)).items():
        basis = torch.kron(eigenvectors(s), eigenvectors(a))
        penalty = penalty_matrix(model, layer, len(a), len(s)).flatten()
        values = (gradients.flatten(1) @ basis).square().mean(0) + basis.square().T @ penalty
        pieces, results = [], []
        for key in ("weight", "bias"):
            if f"{layer}.{key}" in direction:
                pieces.append(direction[f"{layer}.{key}"].reshape(3, len(s), -1))
                results.append(moved[f"{layer}.{key}"].reshape(3, len(s), -1))
        given, result = torch.cat(pieces, 2).flatten(1), torch.cat(results, 2).flatten(1)
        assert close(result, given @ basis @ torch.diag(1 / (values + 0.05)) @ basis.T, 1e-8)


def test_small_eigenvalues_beside_large_ones_keep_their_vectors():
    basis = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    values = torch.logspace(-10, 0, 12, dtype=torch.float64)
    found = eigenvectors(basis * values @ basis.T)
    energies = (basis.T @ found).square().T @ values
    torch.testing.assert_close(energies.sort()[0], values, rtol=1e-3, atol=0)


def test_factors_of_a_net_in_float32_are_decomposed_in_float64(monkeypatch):
    """In float32 the vectors of small eigenvalues mix, which pairs show where a layer is wide."""
    found = []

    def decomposed(matrix):
        found.append(matrix.dtype)
        return eigenvectors(matrix)

    monkeypatch.setattr(ekfac, "eigenvectors", decomposed)
    model, rows, _, _ = make("tokens", dtype=torch.float32)
    curvature = EKFAC(PerRow(model), rows, seed=0)
    assert len(found) > 1
    assert set(found) == {torch.float64}
    assert {value.dtype for value in curvature.tensors.values()} == {torch.float32}


def test_the_eigenvalue_is_the_square_of_the_sum_over_positions_and_not_the_sum_of_squares():
    model, rows, x, _ = make("tokens")
    found = EKFAC(PerRow(model), rows, seed=0)
    gradients = reference(model, x, None, noise_of(model, x, 0))["each"][2]
    energy = gradients.square().sum((1, 2)).mean() + penalty_matrix(model, "each", 4, 4).sum()
    assert torch.isclose(found.values["each"].sum(), energy)  # a rotation keeps the sum of squares


# ---- the same numbers on every path ----------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", [1, 2, 3, 40])
@pytest.mark.parametrize("formed", [1, 10**9])
def test_rotated_matrices_are_the_rotated_gradients_however_they_are_cut(monkeypatch, positions, formed):
    model, rows, *_ = make("tokens")
    found = EKFAC(PerRow(model), rows)
    g = torch.Generator().manual_seed(0)
    q_in, q_out = (torch.linalg.qr(torch.randn(k, k, generator=g, dtype=torch.float64))[0] for k in (7, 5))
    found.basis_in["each"], found.basis_out["each"] = q_in, q_out
    shape = (6,) if positions == 1 else (6, positions)
    factor = Mapped(*(torch.randn(*shape, k, generator=g, dtype=torch.float64) for k in (7, 5)), True, True)
    early = positions * (49 + 25) < 35 * 12  # rotate the factors, or the gradient formed from them
    assert early == (positions < 40)
    monkeypatch.setattr(kronecker, "FORMED_BYTES", formed)
    parts = list(found.rotated_matrices(factor, "each"))
    assert len(parts) == (6 if formed == 1 else 1)
    assert close(torch.cat(parts), q_out.T @ factor.matrices() @ q_in, 1e-12)


@pytest.mark.parametrize("name", ["linear", "tokens", "conv2d"])
@pytest.mark.parametrize("kept_bytes", [0, 5_000, 10**9])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_fit_does_not_depend_on_kept_factors_or_batches(monkeypatch, name, kept_bytes, batch_size):
    model, rows, *_ = make(name, weighted=True)
    expected = EKFAC(PerRow(model), rows, seed=1)
    monkeypatch.setattr(ekfac, "KEPT_BYTES", kept_bytes)
    found = EKFAC(PerRow(model, batch_size), rows, seed=1)
    direction = {key: torch.ones_like(value) for key, value in model.parameters.items()}
    for key, value in expected.apply(expected.inverse(0.01), direction).items():
        assert close(found.apply(found.inverse(0.01), direction)[key], value, 1e-9)
    engine = PerRow(model, batch_size)
    fn = expected.inverse(0.01)
    assert close(found.quadratic(engine, rows, fn, 0, N), expected.quadratic(PerRow(model), rows, fn, 0, N), 1e-9)


def test_running_out_of_memory_in_the_middle_of_a_batch_counts_no_row_twice(monkeypatch):
    model, rows, *_ = make("linear", weighted=True)
    expected = EKFAC(PerRow(model), rows, seed=1)
    calls = {"product": 0, "squares": 0}
    product, squares = kronecker_blocks.self_product, ProductBlock.squares

    def failing(kind, function, call):
        def run(*args):
            calls[kind] += 1
            if calls[kind] == call:  # other products of the same batch are already done
                raise torch.OutOfMemoryError("planted")
            return function(*args)

        return run

    monkeypatch.setattr(kronecker_blocks, "self_product", failing("product", product, 3))
    monkeypatch.setattr(ProductBlock, "squares", failing("squares", squares, 2))
    found = EKFAC(PerRow(model, 8), rows, seed=1)  # a part of the rows: all of them twice would give the same basis
    assert min(calls.values()) > 3
    for layer, values in expected.values.items():
        assert close(found.values[layer], values, 1e-9)
        assert close(found.basis_in[layer].abs(), expected.basis_in[layer].abs(), 1e-7)


def test_batches_that_were_halved_for_want_of_memory_count_every_row(monkeypatch):
    """Factors kept from the first pass are of half a batch: the second pass must not take them for the whole."""
    model, rows, *_ = make("linear", weighted=True)
    expected = EKFAC(PerRow(model), rows, seed=1)
    monkeypatch.setattr(PerRow, "own_batch", 8)
    product, calls = kronecker_blocks.self_product, []

    def failing(x):
        calls.append(len(x))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("planted")
        return product(x)

    monkeypatch.setattr(kronecker_blocks, "self_product", failing)
    found = EKFAC(PerRow(model), rows, seed=1)
    assert calls[1] == 4
    for layer, values in expected.values.items():
        assert close(found.values[layer], values, 1e-9)


def digits_model(kind):
    """(model, rows, inputs, labels) of a net trained on digits in float32."""
    X, y = load_digits(return_X_y=True)
    x, y = torch.tensor(X[:200] / 16, dtype=torch.float32), torch.tensor(y[:200])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "conv":
            x = x.reshape(-1, 1, 8, 8)
            module = nn.Sequential(
                nn.Conv2d(1, 6, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(6, 8, 3, stride=2),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(72, 10),
            )
        else:
            module = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
        optimiser = torch.optim.Adam(module.parameters(), 1e-2)
        for _ in range(10):
            for part in torch.randperm(200).split(40):
                optimiser.zero_grad()
                F.cross_entropy(module(x[part]), y[part]).backward()
                optimiser.step()
    return DifferentiableModel(module.eval(), Categorical(), None), rows_of(x, y), x, y


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_scores_of_a_float32_net_do_not_depend_on_batches(kind):
    """Near-equal eigenvalues mix their eigenvectors under the smallest error of a factor, and scores with them."""
    model, rows, x, y = digits_model(kind)
    query = PerRow(model).mean_gradient(rows_of(x[:20], y[:20]))
    scores = {}
    for batch_size in (200, 7):
        engine = PerRow(model, batch_size)
        found = EKFAC(engine, rows, seed=0)
        for damping in (None, 1e-3, 1e-6):
            fn = found.inverse(damping)
            own = found.quadratic(engine, rows, fn, 0, 200), engine.dots(rows, found.apply(fn, query))
            expected = scores.setdefault(damping, own)
            for values, truth in zip(own, expected, strict=True):
                assert close(values, truth, 1e-5)


# ---- cases with a known answer ---------------------------------------------------------------------------------------


def by_layer_matrix(found, layer):
    basis = torch.kron(found.basis_out[layer], found.basis_in[layer])
    return basis @ torch.diag(found.values[layer].flatten()) @ basis.T


def hadamard(width):
    """(4, width <= 4) signs with orthogonal columns."""
    signs = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64)
    return signs[:, :width]


def balanced(monkeypatch, x, y, copies=4):
    """Rows in 4 copies with noises whose mean outer product is exactly the identity: no sampling error is left."""
    signs = hadamard(y.shape[1])
    noise = signs.repeat_interleave(len(x), 0)
    monkeypatch.setattr(Gaussian, "noise", lambda self, shape, generator: noise)
    return rows_of(x.repeat(copies, 1), y.repeat(copies, 1))


def test_one_linear_layer_under_squared_error_is_exact(monkeypatch):
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(11, k, generator=g, dtype=torch.float64) for k in (5, 3))
    model = DifferentiableModel(nn.Linear(5, 3, dtype=torch.float64), Gaussian(), None)
    found = EKFAC(PerRow(model), balanced(monkeypatch, x, y))
    inputs = torch.cat([x, torch.ones(11, 1, dtype=torch.float64)], 1)
    assert close(by_layer_matrix(found, ""), torch.kron(torch.eye(3, dtype=torch.float64) * 2, inputs.T @ inputs / 11))
    dense = gauss_newton(PerRow(model), rows_of(x, y))  # flat: weight rows, then bias
    order = [*(6 * o + i for o in range(3) for i in range(5)), 5, 11, 17]
    assert close(by_layer_matrix(found, "")[order][:, order], dense)


def test_layers_of_a_deep_linear_net_are_exact_one_by_one(monkeypatch):
    """Every layer's own block of the Gauss-Newton matrix is a Kronecker product; blocks between layers are dropped."""
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(11, k, generator=g, dtype=torch.float64) for k in (5, 3))
    module = nn.Sequential(
        nn.Linear(5, 4, bias=False), nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)
    ).double()
    model = DifferentiableModel(module, Gaussian(), None)
    found = EKFAC(PerRow(model), balanced(monkeypatch, x, y))
    dense = gauss_newton(PerRow(model), rows_of(x, y))
    start = 0
    for layer, size in (("0", 20), ("1", 24), ("2", 18)):
        assert close(by_layer_matrix(found, layer), dense[start : start + size, start : start + size], 1e-9)
        start += size


def test_duplicates_of_all_rows_with_the_same_drawn_labels_change_nothing(monkeypatch):
    model, rows, x, _ = make("conv2d")
    noise = noise_of(model, x, 0)
    monkeypatch.setattr(Categorical, "noise", lambda self, shape, generator: noise.repeat(shape[0] // N))
    once = EKFAC(PerRow(model), rows)
    inputs, targets = rows.read(slice(0, N))
    twice = EKFAC(PerRow(model), rows_of(inputs.repeat(2, 1, 1, 1), targets.repeat(2)))
    for layer in once.values:
        assert close(by_layer_matrix(twice, layer), by_layer_matrix(once, layer), 1e-9)


def test_weights_of_rows_are_copies_of_rows(monkeypatch):
    model, rows, x, _ = make("conv1d")
    model.decay = {}  # where inputs are linearly dependent the basis is free, and an uneven penalty not defined in it
    noise = noise_of(model, x, 0)
    weight = torch.tensor([0.0, 1, 2] * 7, dtype=torch.float64)[:N]
    kept = torch.arange(N).repeat_interleave(weight.long())
    inputs, targets = rows.read(slice(0, N))
    monkeypatch.setattr(Categorical, "noise", lambda self, shape, generator: noise)
    weighted = EKFAC(PerRow(model), rows_of(inputs, targets, weight * N / len(kept)))
    monkeypatch.setattr(Categorical, "noise", lambda self, shape, generator: noise[kept])
    copied = EKFAC(PerRow(model), rows_of(inputs[kept], targets[kept]))
    for layer in weighted.values:
        assert close(by_layer_matrix(weighted, layer), by_layer_matrix(copied, layer), 1e-9)


def test_labels_are_drawn_from_the_model_and_not_read():
    model, rows, *_ = make("linear")
    inputs, targets = rows.read(slice(0, N))
    found = EKFAC(PerRow(model), rows, seed=5)
    other = EKFAC(PerRow(model), rows_of(inputs, (targets + 1) % 3), seed=5)
    again = EKFAC(PerRow(model), rows, seed=6)
    for layer in found.values:
        assert torch.equal(found.values[layer], other.values[layer])
        assert not torch.allclose(found.values[layer], again.values[layer], rtol=1e-3)


def test_global_random_state_is_left_alone_and_the_seed_decides():
    model, rows, *_ = make("linear")
    state = torch.get_rng_state()
    found = EKFAC(PerRow(model), rows, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    again = EKFAC(PerRow(model), rows, seed=5)
    torch.set_rng_state(state)
    assert all(torch.equal(found.values[layer], again.values[layer]) for layer in found.values)


@pytest.mark.parametrize(
    ("name", "likelihood"),
    [
        ("linear", Categorical()),
        ("linear", Categorical(torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64))),
        ("linear", Categorical(label_smoothing=0.3)),
        ("linear, binary", Binary()),
        ("linear, binary", Binary(pos_weight=4.0)),
        ("linear, squared error", Gaussian()),
    ],
)
def test_mean_over_drawn_labels_is_the_gauss_newton_block(name, likelihood):
    """The sum of a layer's eigenvalues over many draws is the trace of its block of the Gauss-Newton matrix."""
    model, rows, *_ = make(name)
    model.decay, model.likelihood = {}, likelihood
    inputs, targets = rows.read(slice(0, N))
    copies = 400
    many = rows_of(inputs.repeat(copies, 1), targets.repeat(copies, *[1] * (targets.ndim - 1)))
    found = EKFAC(PerRow(model, 1000), many, seed=0)
    dense = gauss_newton(PerRow(model), rows)
    sizes = {"0": 30, "2": len(dense) - 30}
    start = 0
    for layer, size in sizes.items():
        trace = dense[start : start + size, start : start + size].trace()
        assert torch.isclose(found.values[layer].sum(), trace, rtol=0.06)
        start += size


# ---- self-influence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("start", "stop", "batch_size"), [(0, N, 64), (5, 12, 3)])
def test_quadratic_is_the_sum_over_layers_of_the_form_of_every_rows_gradient(name, start, stop, batch_size):
    model, rows, _, weight = make(name, weighted=True)
    engine = PerRow(model, batch_size)
    found = EKFAC(engine, rows)
    fn = found.inverse(0.02)
    values = found.quadratic(engine, rows, fn, start, stop)
    inputs, targets = rows.read(slice(0, N))
    for i in range(start, stop):
        loss = weight[i] * model.likelihood.losses(model.module(inputs[i : i + 1]), targets[i : i + 1])[0]
        grads = dict(zip(model.parameters, torch.autograd.grad(loss, list(model.parameters.values())), strict=True))
        moved = found.apply(fn, grads)
        expected = sum((moved[key] * grads[key]).sum() for key in moved)
        assert torch.isclose(values[i - start], expected, rtol=1e-9, atol=1e-14)


# ---- damping, left-out layers, pickles -------------------------------------------------------------------------------


def test_default_damping_is_a_tenth_of_each_layers_mean_and_a_number_is_absolute():
    model, rows, *_ = make("linear")
    model.decay = {}
    found = EKFAC(PerRow(model), rows)
    values = found.values["0"]
    assert close(found.inverse()(values), 1 / (values + 0.1 * values.mean()), 1e-12)
    assert close(found.inverse(0.3)(values), 1 / (values + 0.3), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_curvature_is_an_error_that_names_damping(dtype):
    model, rows, *_ = make("linear", dtype=dtype)  # softmax: a constant added to all logits changes nothing
    model.decay = {}
    found = EKFAC(PerRow(model), rows)
    direction = {key: torch.ones_like(value) for key, value in model.parameters.items()}
    with pytest.raises(ValueError, match=r"singular.*damping"):
        found.apply(found.inverse(0.0), direction)
    assert all(torch.isfinite(value).all() for value in found.apply(found.inverse(1e-3), direction).values())


def test_no_warning_where_nothing_is_left_out():
    model, rows, *_ = make("conv2d")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EKFAC(PerRow(model), rows)


def test_no_parameter_left_is_an_error_that_names_the_alternative():
    rows = make("linear")[1]
    module = nn.Sequential(nn.Linear(4, 3).requires_grad_(False), Unused()).double()
    with pytest.raises(ValueError, match=r"covers none of the trainable parameters, .*: 1\.spare.*curvature='cg'"):
        EKFAC(PerRow(DifferentiableModel(module, Categorical(), None)), rows)


class Unused(nn.Module):
    """A parameter that plays no part."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x


class Auxiliary(nn.Module):
    """A head that is only used in training."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.unused = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(x)


def test_a_layer_that_is_never_called_is_left_out():
    model = DifferentiableModel(Auxiliary().double(), Categorical(), None, decay={"head.weight": 0.5})
    _, rows, *_ = make("linear")
    engine = PerRow(model)
    with pytest.warns(UserWarning, match="leaves out 2 parameters .*: unused.weight, unused.bias"):
        found = EKFAC(engine, rows)
    assert torch.isfinite(found.quadratic(engine, rows, found.inverse(), 0, N)).all()
    direction = {key: torch.ones_like(value) for key, value in model.parameters.items()}
    assert list(found.apply(found.inverse(), direction)) == ["head.weight", "head.bias"]


def test_pickle_keeps_the_numbers_and_leaves_the_model_out():
    model, rows, *_ = make("conv2d")
    engine = PerRow(model)
    found = EKFAC(engine, rows)
    stored = pickle.dumps(found)
    assert b"torch.nn.modules" not in stored
    again = pickle.loads(stored)
    direction = {key: torch.ones_like(value) for key, value in model.parameters.items()}
    for key, value in found.apply(found.inverse(), direction).items():
        assert torch.equal(again.apply(again.inverse(), direction)[key], value)
    fn = found.inverse()
    assert torch.equal(again.quadratic(engine, rows, fn, 0, N), found.quadratic(engine, rows, fn, 0, N))
    assert all(layer.module is not None for layer in engine.layers)


@in_turn("width", [1, 3, 255, 256, 257, 600])
@in_turn("dtype", [torch.float32, torch.float64])
def test_self_product_is_the_product_with_itself(width, dtype):
    x = torch.randn(37, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    found = self_product(x)
    assert close(found.double(), x.double().T @ x.double(), 1e-6 if dtype == torch.float32 else 1e-14)


# ---- several states --------------------------------------------------------------------------------------------------


def states_of(model, count=3):
    """Parameters of the module, and some near them."""
    g = torch.Generator().manual_seed(9)
    own = {name: value.detach().clone() for name, value in model.module.state_dict().items()}
    found = [own]
    for _ in range(count - 1):
        noise = {name: torch.randn(v.shape, generator=g, dtype=torch.float64).to(v) for name, v in own.items()}
        found.append({name: value + 0.3 * noise[name] for name, value in own.items()})
    return found


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "name", ["linear", "linear, squared error", "frozen weight", "called twice", "tokens", "conv2d"]
)
def test_several_states_have_averaged_factors_and_averaged_eigenvalues_in_their_basis(name, weighted):
    model, rows, x, weight = make(name, weighted)
    states = states_of(model)
    found = EKFAC(PerRow(model, 8), rows, seed=11, visit=visiting(model, states))
    truths = []
    for number, state in enumerate(states):
        model.load(state)
        truths.append(reference(model, x, weight, noise_of(model, x, 11 + number)))
    for layer in truths[0]:
        a, s = (sum(truth[layer][k] for truth in truths) / len(states) for k in (0, 1))
        gradients = torch.cat([truth[layer][2] for truth in truths])
        q_in, q_out = found.basis_in[layer], found.basis_out[layer]
        for basis, factor in ((q_in, a), (q_out, s)):
            rotated = basis.T @ factor @ basis
            assert close(torch.diag(rotated.diagonal()), rotated, 1e-9)
        squares = (q_out.T @ gradients @ q_in).square().mean(0)
        penalty = q_in.square().T @ penalty_matrix(model, layer, len(a), len(s))[0]  # once, whatever the states
        assert close(found.values[layer], squares + penalty)


def test_one_state_that_is_visited_is_the_state_that_is_there():
    model, rows, *_ = make("conv2d", weighted=True)
    expected = EKFAC(PerRow(model), rows, seed=3).tensors
    found = EKFAC(PerRow(model), rows, seed=3, visit=visiting(model, states_of(model, 1))).tensors
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_a_state_that_is_visited_twice_has_labels_drawn_twice():
    model, rows, *_ = make("linear")
    (state,) = states_of(model, 1)
    once, again = (EKFAC(PerRow(model), rows, seed=seed) for seed in (3, 4))
    twice = EKFAC(PerRow(model), rows, seed=3, visit=visiting(model, [state, state]))
    for layer in twice.values:
        traces = [each.values[layer].sum() for each in (once, again, twice)]
        assert torch.isclose(traces[2], (traces[0] + traces[1]) / 2, rtol=1e-12)
        assert not torch.isclose(traces[0], traces[1], rtol=1e-3)


@pytest.mark.parametrize("name", ["linear", "conv2d"])
@pytest.mark.parametrize("kept_bytes", [0, 5_000])
@pytest.mark.parametrize("batch_size", [1, 64])
def test_several_states_do_not_depend_on_kept_factors_or_batches(monkeypatch, name, kept_bytes, batch_size):
    model, rows, *_ = make(name, weighted=True)
    states = states_of(model)
    expected = EKFAC(PerRow(model), rows, seed=1, visit=visiting(model, states))
    monkeypatch.setattr(ekfac, "KEPT_BYTES", kept_bytes)
    monkeypatch.setattr(PerRow, "own_batch", 5)
    found = EKFAC(PerRow(model, batch_size), rows, seed=1, visit=visiting(model, states))
    for layer in expected.values:
        assert close(by_layer_matrix(found, layer), by_layer_matrix(expected, layer), 1e-9)


def test_a_curvature_is_put_back_from_its_tensors():
    model, rows, *_ = make("conv2d")
    engine = PerRow(model)
    found = EKFAC(engine, rows, seed=3)
    own = {key: value.clone() for key, value in found.tensors.items()}
    other = found.restored({key: value[:0] for key, value in own.items()})
    assert all(len(value) == 0 for value in other.tensors.values())
    again = other.restored(own)
    assert all(torch.equal(found.tensors[key], value) for key, value in own.items()), "the first is what it was"
    fn = found.inverse()
    assert torch.equal(again.quadratic(engine, rows, fn, 0, N), found.quadratic(engine, rows, fn, 0, N))
    assert set(own) == {f"{part}/{layer}" for part in ("in", "out", "values") for layer in ("0", "2", "4")}


@pytest.mark.parametrize("name", ["linear", "frozen weight", "tokens without bias", "conv2d"])
@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_rotated_directions_are_scaled_and_turned_back(name, lead):
    model, rows, *_ = make(name)
    found = EKFAC(PerRow(model), rows)
    g = torch.Generator().manual_seed(0)
    given = {k: torch.randn(*lead, *v.shape, generator=g, dtype=torch.float64) for k, v in model.parameters.items()}
    turned = found.rotate(given)
    assert {k: v.shape for k, v in turned.items()} == {k: (*lead, *v.shape) for k, v in found.values.items()}
    energy = sum(value.square().sum() for value in given.values())
    assert torch.isclose(sum(value.square().sum() for value in turned.values()), energy)  # a rotation
    for key, value in found.back(turned).items():
        assert close(value, given[key], 1e-12)
    scaled = found.scale(torch.sqrt, turned)
    for layer, values in found.values.items():
        assert close(scaled[layer], turned[layer] * values.sqrt(), 1e-14)
    for key, value in found.apply(torch.sqrt, given).items():
        assert close(value, found.back(scaled)[key], 1e-14)
    layer = found.layers[0]
    assert set(found.back({layer.name: turned[layer.name]})) == set(layer.parameters)


def fit_of_three_states(folder):
    """(tensors of the curvature, parts of the rows that were read)."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(350, 6, generator=g), torch.randint(3, (350,), generator=g)
    model = DifferentiableModel(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).eval(), Categorical(), None)
    states = [{k: torch.randn(v.shape, generator=g) for k, v in model.parameters.items()} for _ in range(3)]
    seen = []

    def visit():
        for number, state in enumerate(states, start=1):
            model.load(state)
            yield f"state {number}"

    def read(part):
        seen.append(part)
        return x[part], y[part]

    passes = Passes() if folder is None else Passes(Journal(folder, "k"))
    found = EKFAC(PerRow(model), Rows(350, read), seed=5, passes=passes, visit=visit)
    return found.tensors, seen


def shards(seen):
    """What was read in passes over the rows, and not to look at a row or three."""
    return [part for part in seen if isinstance(part, slice) and part.stop - part.start > 1]


def test_a_fit_of_several_states_that_was_interrupted_goes_on_in_the_state_where_it_was(monkeypatch, tmp_path):
    monkeypatch.setattr(journal, "SHARD", 100)
    monkeypatch.setattr(journal, "PAUSE", 0.0)
    monkeypatch.setattr(ekfac, "KEPT_BYTES", 0)  # so that every pass over the rows reads them
    fit = fit_of_three_states
    plain, _ = fit(None)
    write, written = Journal.write, []

    def broken(self, name, tensors):
        if len(written) == stop:
            raise KeyboardInterrupt
        written.append(name)
        return write(self, name, tensors)

    monkeypatch.setattr(Journal, "write", broken)
    parts = [f"{name} state {k}" for name in ("factors", "eigenvalues") for k in (1, 2, 3)]
    stop = -1
    found, _ = fit(tmp_path / "whole")
    assert list(dict.fromkeys(written)) == parts
    total = len(written)
    assert total == 24  # four shards, three states, two passes
    for stop in range(1, total, 3):
        written.clear()
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / str(stop))
        first, stop = stop, -1
        found, seen = fit(tmp_path / str(first))
        assert all(torch.equal(found[key], value) for key, value in plain.items())
        assert len(shards(seen)) == total - first, "shards that were finished are not read again"
