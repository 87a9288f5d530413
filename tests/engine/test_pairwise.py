"""Values of many rows for many queries against products with matrices that are formed."""

import functools
import itertools

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from sktda.engine import pairwise
from sktda.engine.ekfac import EKFAC
from sktda.engine.layers import Product
from sktda.engine.outer_products import energies, outer_products
from sktda.engine.pairwise import EKFACQueries, Joined, LowRank, Plain, Preconditioned, by_layer, truncated
from sktda.engine.per_row import PerRow
from sktda.engine.unrolling import DiagonalFlow, SpectralFlow
from sktda.model.base import DifferentiableModel, Rows, unflatten
from sktda.model.likelihood import Gaussian
from sktda.model.softmax import Categorical
from tests.in_turn import in_turn

N, Q = 17, 6


class Tokens(nn.Module):
    """A shared Linear layer, a norm, and a head."""

    def __init__(self):
        super().__init__()
        self.each = nn.Linear(3, 5)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 3, bias=False)

    def forward(self, x):
        return self.head(self.norm(torch.tanh(self.each(x)).mean(1)))


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), (4,)),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Conv2d(3, 2, 2, bias=False), nn.Flatten(), nn.Linear(8, 3)
        ),
        (1, 4, 4),
    ),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(9, 3)), (2, 4)),
    "tokens": (Tokens, (7, 3)),
}


def rows_of(x, y, weight=None):
    return Rows(len(x), lambda rows: (x[rows], y[rows]), weight)


def make(name, dtype=torch.float64, decay=True):
    """(model, N training rows, Q query rows, indices of the training rows that the queries are)."""
    build, shape = MODELS[name]
    g = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build().to(dtype).eval()
    x, y = torch.randn(N, *shape, generator=g, dtype=torch.float64).to(dtype), torch.randint(3, (N,), generator=g)
    weight = torch.rand(N, generator=g, dtype=torch.float64).to(dtype)
    asked = torch.tensor([3, 0, 5, 16, 5, 9])
    decays = {key: 0.01 for key, _ in module.named_parameters() if key.endswith("weight")} if decay else {}
    model = DifferentiableModel(module, Categorical(), None, decay=decays)
    return model, rows_of(x, y, weight), rows_of(x[asked], y[asked], weight[asked]), asked


def fitted(model, rows, batch_size="auto"):
    engine = PerRow(model, batch_size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sktda.engine.ekfac.warnings.warn", lambda *args, **kwargs: None)
        return engine, EKFAC(engine, rows)


def gradients_of(model, rows):
    """(n, p) per-row gradients by autograd, one row at a time."""
    inputs, targets, weight = rows.block(slice(0, len(rows)), model.device)
    found = []
    for i in range(len(rows)):
        loss = model.likelihood.losses(model.module(inputs[i : i + 1]), targets[i : i + 1])[0]
        loss = loss if weight is None else loss * weight[i]
        grads = torch.autograd.grad(loss, list(model.parameters.values()))
        found.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(found)


def dense_inverse(model, curvature, fn):
    """(p, p) matrix of fn(curvature), zero for parameters that are left out, layer by layer from kron products."""
    places, start = {}, 0
    for name, value in model.parameters.items():
        places[name] = torch.arange(start, start + value.numel())
        start += value.numel()
    matrix = torch.zeros(start, start, dtype=model.dtype)
    for layer in curvature.layers:
        bases = zip(curvature.bases(layer.name), reversed(layer.size), strict=True)
        q_in, q_out = (torch.eye(k, dtype=model.dtype) if basis is None else basis for basis, k in bases)
        basis = torch.kron(q_out, q_in)
        own = basis @ torch.diag(fn(curvature.values[layer.name]).flatten()) @ basis.T
        pieces = [places[name].reshape(len(q_out), -1) for name in layer.parameters]
        order = torch.cat(pieces, 1).flatten()
        matrix[order[:, None], order[None, :]] = own
    return matrix


def values_of(prepared, engine, rows, layers=None):
    """(q, n) values over four or five batches of training rows."""
    columns, batch_size = [], len(rows) // 4
    for start in range(0, len(rows), batch_size):
        block = rows.block(slice(start, min(start + batch_size, len(rows))), engine.model.device)
        columns.append(prepared.block(engine.capture(block, None, layers)[1]))
    return torch.cat(columns, 1)


def ekfac_values(source, engine, queries, rows, measure=None):
    """The whole (q, n) matrix, and the blocks of queries it came in."""
    own = source.curvature.own(engine)
    blocks = list(source.blocks(engine, queries, measure))
    return torch.cat([values_of(ready, engine, rows, own) for _, ready in blocks]), [part for part, _ in blocks]


def close(found, expected, tolerance=1e-10):
    assert found.shape == expected.shape
    return (found - expected).norm() <= tolerance * expected.norm()


# ---- the identity, and preconditioned gradients ----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "size"), [*zip(MODELS, [1, 4, Q, 4], strict=True)])
def test_plain_values_are_dot_products_of_gradients(name, size):
    model, rows, queries, _ = make(name)
    engine = PerRow(model)
    engine.prepare(rows)
    batches = [slice(start, min(start + size, Q)) for start in range(0, Q, size)]
    asked = [engine.capture(queries.block(part, model.device))[1] for part in batches]
    expected = gradients_of(model, queries) @ gradients_of(model, rows).T
    assert close(values_of(Plain(asked), engine, rows), expected)


def test_plain_values_of_the_same_rows_have_the_square_norms_on_the_diagonal():
    model, rows, *_ = make("tokens")
    engine = PerRow(model)
    engine.prepare(rows)
    own = [engine.capture(rows.block(slice(0, N), model.device))[1]]
    assert close(values_of(Plain(own), engine, rows).diagonal(), engine.square_norms(rows))


@pytest.mark.parametrize("name", MODELS)
def test_preconditioned_values_take_directions_of_all_parameters(name):
    model, rows, *_ = make(name)
    engine = PerRow(model)
    engine.prepare(rows)
    vectors = torch.randn(4, sum(v.numel() for v in model.parameters.values()), dtype=torch.float64)
    directions = unflatten(vectors, {key: value.shape for key, value in model.parameters.items()})
    found = values_of(Preconditioned(by_layer(engine, directions)), engine, rows)
    assert close(found, vectors @ gradients_of(model, rows).T)


def test_directions_of_parameters_without_axes_are_grouped_by_layer():
    module = nn.Linear(2, 1, bias=False)
    module.scale = nn.Parameter(torch.tensor(1.0))
    engine = PerRow(DifferentiableModel(module, Categorical(), None))
    engine.layers, engine.rest = [], ["weight", "scale"]
    grouped = by_layer(engine, {"scale": torch.arange(3.0), "weight": torch.ones(3, 1, 2)})
    assert torch.equal(grouped[""], torch.tensor([[1.0, 1, 0], [1, 1, 1], [1, 1, 2]]))


# ---- EK-FAC, exact ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_exact_values_are_products_with_the_formed_matrix(name):
    model, rows, queries, _ = make(name)
    engine, curvature = fitted(model, rows)
    fn = curvature.inverse(0.03)
    found, parts = ekfac_values(EKFACQueries(curvature, fn, 0.0), engine, queries, rows)
    expected = gradients_of(model, queries) @ dense_inverse(model, curvature, fn) @ gradients_of(model, rows).T
    assert len(parts) == 1
    assert close(found, expected)


@pytest.mark.parametrize("name", MODELS)
def test_self_influence_is_the_diagonal_of_the_values(name):
    model, rows, *_ = make(name)
    engine, curvature = fitted(model, rows)
    fn = curvature.inverse()
    found, _ = ekfac_values(EKFACQueries(curvature, fn, 0.0), engine, rows, rows)
    assert close(found.diagonal(), curvature.quadratic(engine, rows, fn, 0, N), 1e-9)
    assert close(found, found.T, 1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_values_of_the_layers_sum_to_the_total(name):
    model, rows, queries, _ = make(name)
    engine, curvature = fitted(model, rows)
    fn = curvature.inverse(0.03)
    total, _ = ekfac_values(EKFACQueries(curvature, fn, 0.0), engine, queries, rows)
    matrix, q, g = dense_inverse(model, curvature, fn), gradients_of(model, queries), gradients_of(model, rows)
    start, whole = 0, 0.0
    block = engine.capture(queries.block(slice(0, Q), model.device), None, curvature.own(engine))[1]
    ready = EKFACQueries(curvature, fn, 0.0).prepared(block)
    sizes = {key: value.numel() for key, value in model.parameters.items()}
    starts = {}
    for key, size in sizes.items():
        starts[key], start = start, start + size
    for layer in curvature.layers:
        single = values_of(
            Preconditioned({layer.name: ready.directions[layer.name]}), engine, rows, curvature.own(engine)
        )
        places = torch.cat([torch.arange(starts[key], starts[key] + sizes[key]) for key in layer.parameters])
        assert close(single, q[:, places] @ matrix[places][:, places] @ g[:, places].T)
        whole = whole + single
    assert close(whole, total)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("held", [1, 2_000, 10**9])
def test_blocks_of_queries_that_fit_the_memory_give_the_same_values(monkeypatch, held, batch_size):
    model, rows, queries, _ = make("mlp")
    engine, curvature = fitted(model, rows, batch_size)
    source = EKFACQueries(curvature, curvature.inverse(0.03), 0.0)
    expected, _ = ekfac_values(source, engine, queries, rows)
    monkeypatch.setattr(pairwise, "QUERY_BYTES", held)
    found, parts = ekfac_values(source, engine, queries, rows)
    size = min(Q, max(1, held // (8 * 51)))  # 30 + 21 float64 numbers per query
    assert parts == [slice(start, min(start + size, Q)) for start in range(0, Q, size)]
    assert close(found, expected, 1e-12)


def test_activations_of_queries_are_captured_in_batches():
    model, rows, queries, _ = make("mlp")
    engine, curvature = fitted(model, rows, batch_size=4)
    seen = []
    model.module.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    ((_, ready),) = EKFACQueries(curvature, curvature.inverse(), 0.0).blocks(engine, queries, None)
    assert isinstance(ready, Joined)
    assert seen == [4, 2]


def test_a_measure_replaces_the_loss_of_the_queries_but_not_of_the_rows():
    model, rows, queries, _ = make("mlp")
    engine, curvature = fitted(model, rows)
    fn = curvature.inverse(0.03)

    def margin(outputs, targets):
        return -model.likelihood.margins(outputs, targets)

    found, _ = ekfac_values(EKFACQueries(curvature, fn, 0.0), engine, queries, rows, margin)
    inputs, targets, weight = queries.block(slice(0, Q), model.device)
    q = []
    for i in range(Q):
        value = weight[i] * margin(model.module(inputs[i : i + 1]), targets[i : i + 1])[0]
        q.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters.values()))]))
    assert close(found, torch.stack(q) @ dense_inverse(model, curvature, fn) @ gradients_of(model, rows).T)


# ---- EK-FAC, low rank ------------------------------------------------------------------------------------------------


def positive(out, width, seed=0):
    """Eigenvalues that are nearly, not quite, a product of two spectra, and a damped inverse."""
    g = torch.Generator().manual_seed(seed)
    s, a = torch.logspace(-4, 0, out, dtype=torch.float64), torch.logspace(-3, 1, width, dtype=torch.float64)
    values = s[:, None] * a * (0.3 + torch.rand(out, width, generator=g, dtype=torch.float64))
    return values, 1 / (values + 0.1 * values.mean())


@pytest.mark.parametrize(("out", "width"), [(6, 9), (9, 6), (7, 7), (1, 5)])
def test_outer_products_of_full_rank_are_the_matrix(out, width):
    values, inverse = positive(out, width)
    strength, left, right = outer_products(values, inverse)
    assert left.shape == (len(strength), out)
    assert right.shape == (len(strength), width)
    weights = values.mean(1)[:, None] * values.mean(0)
    found = torch.einsum("r,ro,ri->oi", strength, left, right)
    assert close(weights * found, weights * inverse, 1e-6)  # terms below 1e-7 of the first are dropped


@in_turn(("out", "width"), [(6, 9), (9, 6)])
@in_turn("rank", [1, 2, 3])
def test_outer_products_have_the_smallest_possible_weighted_error(out, width, rank):
    values, inverse = positive(out, width)
    strength, left, right = (part[:rank] for part in outer_products(values, inverse))
    weights = values.mean(1)[:, None] * values.mean(0)
    error = (weights * (torch.einsum("r,ro,ri->oi", strength, left, right) - inverse)).norm()
    singular = torch.linalg.svdvals(weights * inverse)
    assert torch.isclose(error, singular[rank:].norm(), rtol=1e-5)  # Eckart and Young


def test_outer_products_of_values_with_a_dead_row_and_column_are_finite():
    values, _ = positive(6, 9)
    values[2], values[:, 4] = 0, 0
    inverse = 1 / (values + 0.1 * values.mean())
    assert all(torch.isfinite(part).all() for part in outer_products(values.float(), inverse.float()))


@functools.cache
def digits():
    """(model, training rows, query rows sorted by class, engine, curvature) of an MLP trained on digits."""
    X, y = load_digits(return_X_y=True)
    x, y = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 10))
        optimiser = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
        for _ in range(10):
            for part in torch.randperm(1000).split(50):
                optimiser.zero_grad()
                F.cross_entropy(module(x[part]), y[part]).backward()
                optimiser.step()
    model = DifferentiableModel(module.eval(), Categorical(), None)
    rows = rows_of(x[:1000], y[:1000])
    order = 1000 + y[1000:1400].argsort(stable=True)
    engine = PerRow(model)
    return rows, rows_of(x[order], y[order]), engine, EKFAC(engine, rows)


@functools.cache
def exact_digits(damping):
    rows, queries, engine, curvature = digits()
    return ekfac_values(EKFACQueries(curvature, curvature.inverse(damping), 0.0), engine, queries, rows)[0]


def chosen(tolerance, damping=None):
    rows, queries, engine, curvature = digits()
    source = EKFACQueries(curvature, curvature.inverse(damping), tolerance)
    source.choose_ranks(engine, queries, rows, None)
    return source


@pytest.mark.parametrize(("tolerance", "damping"), [(0.1, None), (0.001, None), (0.02, 1e-3), (0.001, 1e-3)])
def test_low_rank_keeps_its_tolerance_over_all_queries_and_rows(tolerance, damping):
    rows, queries, engine, _ = digits()
    source = chosen(tolerance, damping)
    found, _ = ekfac_values(source, engine, queries, rows)
    truth = exact_digits(damping)
    # measured on a probe of 32 queries and 128 rows, so other pairs may miss it by a little
    assert (found - truth).norm() <= 1.5 * tolerance * truth.norm()


def test_low_rank_is_used_where_it_is_cheaper_and_grows_as_the_tolerance_shrinks():
    ranks = [chosen(tolerance).ranks for tolerance in (0.1, 0.02)]
    assert {"0", "2"} <= set(ranks[0])
    assert set(chosen(1e-4).ranks) == {"2", "4"}  # the first layer would need more products than the exact form
    assert all(ranks[1].get(name, 10**9) >= rank for name, rank in ranks[0].items())
    assert list(ranks[0]) == [name for name in ("0", "2", "4") if name in ranks[0]]  # the order of the layers


def test_ranks_grow_until_the_measured_error_is_within_the_tolerance(monkeypatch):
    def boastful(values, inverse):  # the same matrix, but its first term pretends to be nearly all of it
        strength, left, right = outer_products(values, inverse)
        scale = torch.ones_like(strength)
        scale[0] = 1e3
        return strength * scale, left / scale[:, None], right

    expected = chosen(0.1)
    monkeypatch.setattr(pairwise, "outer_products", boastful)
    source = chosen(0.1)
    assert set(source.ranks) == set(expected.ranks)
    assert max(source.ranks.values()) > 1  # who believes the boast stops at one
    rows, queries, engine, _ = digits()
    truth = exact_digits(None)
    assert (ekfac_values(source, engine, queries, rows)[0] - truth).norm() <= 1.5 * 0.1 * truth.norm()


def test_low_rank_falls_back_to_exact_where_no_rank_will_do():
    rows, queries, engine, _ = digits()
    source = chosen(1e-9)
    assert source.ranks == {}
    assert close(ekfac_values(source, engine, queries, rows)[0], exact_digits(None), 1e-6)


def test_choosing_ranks_ends_for_an_inverse_of_low_rank_and_a_tolerance_below_rounding():
    rows, queries, engine, curvature = digits()
    source = EKFACQueries(curvature, torch.ones_like, 1e-12)  # rank one is all there is, up to rounding
    source.choose_ranks(engine, queries, rows, None)
    assert source.ranks == {}


def test_an_inverse_of_rank_one_gets_rank_one():
    rows, queries, engine, curvature = digits()
    source = EKFACQueries(curvature, torch.ones_like, 1e-3)
    source.choose_ranks(engine, queries, rows, None)
    assert source.ranks["0"] == source.ranks["2"] == 1
    engine.prepare(rows)
    asked = engine.capture(queries.block(slice(0, 400), engine.model.device))[1]
    expected = values_of(Plain([asked]), engine, rows)
    assert close(ekfac_values(source, engine, queries, rows)[0], expected, 1e-5)


@pytest.mark.parametrize("held", [1, 20_000])
def test_low_rank_factors_count_as_memory_and_blocks_give_the_same_values(monkeypatch, held):
    rows, queries, engine, _ = digits()
    few = Rows(12, queries.read)
    source = chosen(0.1)
    expected, parts = ekfac_values(source, engine, few, rows)
    assert len(parts) == 1
    monkeypatch.setattr(pairwise, "QUERY_BYTES", held)
    found, parts = ekfac_values(source, engine, few, rows)
    assert len(parts) > 1
    assert close(found, expected, 1e-5)


def test_the_probe_sees_queries_of_all_classes(monkeypatch):
    """Queries come sorted by class: the first 32 are all of one class."""
    rows, queries, engine, curvature = digits()
    read = []
    watched = Rows(len(queries), lambda part: (read.append(queries.read(part)[1]), queries.read(part))[1])
    EKFACQueries(curvature, curvature.inverse(), 0.1).choose_ranks(engine, watched, rows, None)
    assert len(read[0]) <= 32
    assert len(read[0].unique()) == 10


def test_layers_with_shared_weights_are_exact_and_the_others_of_low_rank():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 60), nn.ReLU(), nn.Linear(60, 10)
        )
    X, y = load_digits(return_X_y=True)
    x, y = torch.tensor(X[:300] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(y[:300])
    model, rows, queries = (
        DifferentiableModel(module.eval(), Categorical(), None),
        rows_of(x, y),
        rows_of(x[:50], y[:50]),
    )
    engine = PerRow(model)
    curvature = EKFAC(engine, rows)
    truth, _ = ekfac_values(EKFACQueries(curvature, curvature.inverse(), 0.0), engine, queries, rows)
    source = EKFACQueries(curvature, curvature.inverse(), 0.05)
    source.choose_ranks(engine, queries, rows, None)
    assert "3" in source.ranks
    assert "0" not in source.ranks
    ((_, ready),) = source.blocks(engine, queries, None)
    assert isinstance(ready, LowRank)
    assert "0" in ready.exact.directions
    found, _ = ekfac_values(source, engine, queries, rows)
    assert 1e-7 * truth.norm() < (found - truth).norm() <= 1.5 * 0.05 * truth.norm()


def test_fewer_queries_and_rows_than_the_probe_takes():
    model, rows, queries, _ = make("mlp", torch.float32)
    engine, curvature = fitted(model, rows)
    source = EKFACQueries(curvature, curvature.inverse(), 0.1)
    source.choose_ranks(engine, queries, rows, None)
    truth, _ = ekfac_values(EKFACQueries(curvature, curvature.inverse(), 0.0), engine, queries, rows)
    assert close(ekfac_values(source, engine, queries, rows)[0], truth, 0.1)


# ---- directions of a flow by few outer products ----------------------------------------------------------------------

LINEAR = {"0", "2", "4"}


@functools.cache
def asked_digits(count=60):
    """Gradients of queries by parameter, (count, ...), at the end of the training of `digits`."""
    _, queries, engine, _ = digits()
    few = queries.block(slice(0, 6 * count, 6), engine.model.device)  # of all classes
    return unflatten(engine.block_gradients(few), {k: v.shape for k, v in engine.model.parameters.items()})


@functools.cache
def digits_flow(kind, rate):
    engine, curvature = digits()[2:]
    if kind == "sgd":
        return SpectralFlow(curvature, rate)
    # as Adam has it: 1 / (sqrt(v) + eps), v of the size of a squared mean gradient
    g = torch.Generator().manual_seed(0)
    scale = {k: 10 ** (1 + 2 * torch.rand(v.shape, generator=g)) for k, v in engine.model.parameters.items()}
    return DiagonalFlow(curvature, rate, scale, {"0.weight": 0.01})


@functools.cache
def exact_flow(kind, rate):
    """(queries, rows) values with directions that are formed."""
    rows, _, engine, _ = digits()
    return values_of(Preconditioned(by_layer(engine, digits_flow(kind, rate).gathered(asked_digits()))), engine, rows)


def low_rank(kind, rate, tolerance, linear=LINEAR, directions=None):
    flow = digits_flow(kind, rate)
    return truncated(flow, flow.coordinates(directions or asked_digits()), linear, tolerance)


FLOWS = [("sgd", 1e-6), ("sgd", 1.0), ("sgd", 30.0), ("sgd", 1e3), ("sgd", 1e6), ("adam", 1e-2), ("adam", 1.0)]


@pytest.mark.parametrize(("kind", "rate"), FLOWS)
def test_truncated_directions_keep_the_tolerance_with_fewer_products_than_formed_ones(kind, rate):
    rows, _, engine, curvature = digits()
    truth, ranks = exact_flow(kind, rate), []
    for tolerance in (0.2, 0.02, 1e-3):
        ready = low_rank(kind, rate, tolerance)
        assert (values_of(ready, engine, rows) - truth).norm() <= tolerance * truth.norm()
        assert ready.terms, "or nothing was gained"
        assert ready.layers == LINEAR
        assert not set(ready.terms) & set(ready.exact.directions)
        for name, (lefts, rights) in ready.terms.items():
            out, width = curvature.values[name].shape
            assert len(lefts) == len(rights)
            assert len(lefts) * (out + width) <= out * width
        ranks.append({name: len(ready.terms[name][0]) if name in ready.terms else 10**9 for name in LINEAR})
    for loose, tight in itertools.pairwise(ranks):
        assert all(loose[name] <= tight[name] for name in LINEAR)


@pytest.mark.parametrize(("rate", "tolerance"), [(1.0, 1e-5), (30.0, 1e-4), (1e3, 1e-5)])
def test_truncated_directions_keep_a_tolerance_near_the_rounding_of_float32(rate, tolerance):
    """What is missing is a difference of two sums: the sums are exact to 1e-7, so their difference is no smaller."""
    rows, _, engine, _ = digits()
    truth = exact_flow("sgd", rate)
    assert (values_of(low_rank("sgd", rate, tolerance), engine, rows) - truth).norm() <= tolerance * truth.norm()


def test_a_short_stretch_needs_one_outer_product_a_layer():
    """What it gathers is the gradient of a query times the rate: delta a', which is one."""
    rows, _, engine, _ = digits()
    ready = low_rank("sgd", 1e-6, 1e-3)
    assert {name: len(lefts) for name, (lefts, _) in ready.terms.items()} == dict.fromkeys(LINEAR, 1)
    expected = values_of(Plain([engine.capture(asked_block())[1]]), engine, rows)
    assert close(values_of(ready, engine, rows), 1e-6 * expected, 1e-4)


def asked_block(count=60):
    _, queries, engine, _ = digits()
    return queries.block(slice(0, 6 * count, 6), engine.model.device)


@pytest.mark.parametrize(("kind", "rate", "count"), [(*flow, 1 + k % 2) for k, flow in enumerate(FLOWS)])
def test_truncated_directions_of_few_queries(kind, rate, count):
    rows, _, engine, _ = digits()
    few = {name: value[:count] for name, value in asked_digits().items()}
    found = values_of(low_rank(kind, rate, 0.02, directions=few), engine, rows)
    truth = exact_flow(kind, rate)[:count]
    assert found.shape == truth.shape
    # of one query the rows' energy along its own direction may be far from the mean that the rank is chosen by
    assert (found - truth).norm() <= 2 * 0.02 * truth.norm()


def test_truncating_on_a_processor_leaves_the_random_state_of_other_devices_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    low_rank("sgd", 30.0, 0.02)
    assert not seeded


@pytest.mark.parametrize(("kind", "rate"), [("sgd", 30.0), ("adam", 1.0)])
def test_truncating_is_repeated_to_the_last_digit_and_leaves_the_random_state_alone(kind, rate):
    state = torch.get_rng_state()
    one = low_rank(kind, rate, 0.02)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    other = low_rank(kind, rate, 0.02)
    torch.set_rng_state(state)
    assert list(one.terms) == list(other.terms)
    for name, pair in one.terms.items():
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(pair, other.terms[name], strict=True))


def test_layers_that_are_not_linear_or_have_no_low_rank_are_formed_and_exact():
    rows, _, engine, _ = digits()
    truth = exact_flow("sgd", 30.0)
    ready = low_rank("sgd", 30.0, 0.02, {"2"})
    assert list(ready.terms) == ["2"]
    assert set(ready.exact.directions) == {"0", "4"}
    own = engine.capture(rows.block(slice(0, 9), engine.model.device))[1]
    needed = {name: own[name] for name in ready.layers}
    assert torch.equal(ready.block(needed), ready.block(own))
    nothing = low_rank("sgd", 30.0, 0.02, set())
    assert not nothing.terms
    assert close(values_of(nothing, engine, rows), truth, 1e-5)
    none_will_do = low_rank("sgd", 1e6, 1e-12)
    assert not {"0", "2"} & set(none_will_do.terms)


def test_a_layer_of_one_output_is_formed():
    """Its direction has one row: an outer product is no less."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        x, y = torch.randn(N, 5, dtype=torch.float64), torch.randn(N, 1, dtype=torch.float64)
    model, rows = DifferentiableModel(module, Gaussian(), None), rows_of(x, y)
    engine, curvature = fitted(model, rows)
    given = unflatten(engine.gradients(rows, slice(0, Q)), {k: v.shape for k, v in model.parameters.items()})
    flow = SpectralFlow(curvature, 2.0)
    ready = truncated(flow, flow.coordinates(given), {"0", "2"}, 0.5)
    assert set(ready.terms) == {"0"}
    assert set(ready.exact.directions) == {"2"}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rate", [1e-6, 0.5, 1e4])
def test_truncated_directions_of_other_nets_keep_the_tolerance(name, rate):
    """Convolutions and layers used at several positions are formed, whatever is left out of the curvature is out."""
    model, rows, *_ = make(name)
    engine, curvature = fitted(model, rows)
    linear = {key for key, each in engine.capture(rows.block(slice(0, 1), model.device))[1].items() if unshared(each)}
    assert linear == {"mlp": {"0", "2"}, "conv": {"4"}, "conv1d": {"3"}, "tokens": {"head"}}[name]
    given = unflatten(engine.gradients(rows, slice(0, Q)), {k: v.shape for k, v in model.parameters.items()})
    flow = SpectralFlow(curvature, rate)
    own = curvature.own(engine)
    exact = Preconditioned(by_layer(engine, flow.gathered(given)))
    truth = values_of(exact, engine, rows, own)
    for tolerance in (0.3, 1e-6):
        ready = truncated(flow, flow.coordinates(given), linear, tolerance)
        assert set(ready.terms) <= linear
        assert ready.layers == {layer.name for layer in own}
        assert close(values_of(ready, engine, rows, own), truth, tolerance)
        for key, direction in ready.exact.directions.items():
            assert close(direction, exact.directions[key], 1e-12)


def unshared(factor):
    return isinstance(factor, Product) and not factor.shared


def test_a_layer_without_curvature_does_no_harm():
    """One that the loss does not depend on at any row, and that no penalty holds."""
    rows, _, engine, curvature = digits()
    dead = curvature.restored({key: value.clone() for key, value in curvature.tensors.items()})
    dead.values["2"].zero_()
    flow = SpectralFlow(dead, 30.0)
    ready = truncated(flow, flow.coordinates(asked_digits()), LINEAR, 0.02)
    truth = values_of(Preconditioned(by_layer(engine, flow.gathered(asked_digits()))), engine, rows)
    assert (values_of(ready, engine, rows) - truth).norm() <= 0.02 * truth.norm()


def test_energies_are_the_roots_of_eigenvalues_that_are_a_product():
    out, into = torch.logspace(-6, 0, 7, dtype=torch.float64), torch.logspace(-3, 2, 9, dtype=torch.float64)
    values = out[:, None] * into
    left, right = energies(values)
    assert close(left[:, None] * right, values.sqrt(), 1e-12)
    values[2], values[:, 4] = 0, 0
    left, right = energies(values)
    assert (left > 0).all()
    assert (right > 0).all()
    assert torch.isfinite(1 / left[:, None] / right).all()
