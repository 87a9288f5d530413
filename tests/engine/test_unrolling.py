"""What a stretch of training does to a direction: functions of an eigenvalue, and flows against formed matrices."""

from decimal import Decimal, localcontext

import pytest
import torch
from torch import nn

from sktda.engine.curvature import ALL, DenseCurvature
from sktda.engine.ekfac import EKFAC
from sktda.engine.per_row import PerRow
from sktda.engine.unrolling import DiagonalFlow, SpectralFlow, gathered, remaining
from sktda.model.base import DifferentiableModel, Rows, flatten, unflatten
from sktda.model.softmax import Categorical
from tests.in_turn import in_turn

N = 21

# ---- functions of an eigenvalue -------------------------------------------------------------------------------------

SIGMAS = [0.0, 5e-324, 1e-310, 1e-300, 1e-45, 1e-38, 1e-31, 1e-30, 1e-16, 1e-8, 1e-3, 0.5, 1.0, 7.0, 1e3, 1e9, 1e18]
RATES = [0.0, 1e-12, 1e-3, 0.3, 1.0, 40.0, 1e6, 1e20]


def exact(rate, sigma):
    """(gathered, remaining) of the two float64 numbers, from 60 digits."""
    with localcontext(prec=60) as context:
        context.Emin, context.Emax = -(10**9), 10**9
        x, s = Decimal(rate), Decimal(sigma)
        left = (-x * s).exp() if x * s < 2000 else Decimal(0)
        if s == 0 or x == 0:
            return rate, 1.0
        if x * s < Decimal("1e-20"):  # 60 digits are not enough for the difference
            return float(x * (1 - x * s / 2)), float(left)
        return float((1 - left) / s), float(left)


@in_turn("rate", RATES)
@in_turn(("dtype", "digits"), [(torch.float64, 4e-16), (torch.float32, 3e-7)])
def test_functions_of_an_eigenvalue_are_exact_to_the_last_digits(rate, dtype, digits):
    values = torch.tensor(SIGMAS, dtype=torch.float64).to(dtype).reshape(1, -1)
    found = gathered(rate)(values), remaining(rate)(values)
    assert all(each.dtype == dtype and each.shape == values.shape for each in found)
    for k, sigma in enumerate(values[0].tolist()):
        for each, expected in zip(found, exact(rate, sigma), strict=True):
            # the product rate * sigma is rounded, which an exponential makes rate * sigma times as much
            allowed = digits * (2 + min(rate * sigma, 800)) * expected + torch.finfo(dtype).tiny
            assert abs(each[0, k].item() - expected) <= allowed, (sigma, each[0, k].item(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_eigenvalue_is_a_nan(dtype):
    info = torch.finfo(dtype)
    values = torch.tensor([0.0, info.smallest_normal, -info.eps, 1.0, info.max], dtype=dtype)
    for rate in (0.0, 1e-30, 1.0, 1e30):
        for fn in (gathered, remaining):
            found = fn(rate)(values[:2] if rate == 1e30 else values)
            assert torch.isfinite(found).all()
            assert (found >= 0).all()


def test_a_rounding_error_below_zero_counts_as_zero():
    values = torch.tensor([-1e-17, 0.0, 1e-17], dtype=torch.float64)
    torch.testing.assert_close(gathered(50.0)(values), torch.full_like(values, 50.0), rtol=1e-14, atol=0)
    torch.testing.assert_close(remaining(50.0)(values), torch.ones_like(values), rtol=1e-14, atol=0)


# ---- flows against matrices -----------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """A convolution, a norm, a Linear layer without and one with a bias, and one that is not used."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 2)
        self.norm = nn.LayerNorm(3)
        self.middle = nn.Linear(3, 4, bias=False)
        self.head = nn.Linear(4, 3)
        self.idle = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.middle(self.norm(torch.tanh(self.conv(x)).mean(2)))))


def make(dtype=torch.float64):
    """(engine, rows), weights penalised."""
    g = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Mixed().to(dtype).eval()
    x, y = torch.randn(N, 2, 4, generator=g, dtype=torch.float64).to(dtype), torch.randint(3, (N,), generator=g)
    decay = {key: 0.01 for key, _ in module.named_parameters() if key.endswith("weight")}
    engine = PerRow(DifferentiableModel(module, Categorical(), None, decay=decay))
    rows = Rows(N, lambda part: (x[part], y[part]))
    engine.prepare(rows)
    return engine, rows


def shapes_of(engine):
    return {name: value.shape for name, value in engine.model.parameters.items()}


def directions(engine, lead=(), dtype=torch.float64):
    g = torch.Generator().manual_seed(2)
    return {k: torch.randn(*lead, *s, generator=g, dtype=torch.float64).to(dtype) for k, s in shapes_of(engine).items()}


def preconditioner(engine):
    """A diagonal P by parameter, between 0.1 and 10."""
    g = torch.Generator().manual_seed(3)
    return {k: 10 ** (2 * torch.rand(s, generator=g, dtype=torch.float64) - 1) for k, s in shapes_of(engine).items()}


@pytest.fixture
def quiet(monkeypatch):
    """Without the warning about the layer that EK-FAC leaves out."""
    monkeypatch.setattr("sktda.engine.ekfac.warnings.warn", lambda *args, **kwargs: None)


KINDS = ["dense", "dense with P", "ekfac", "diagonal"]
RATE = 3.0


def flow_of(kind, rate=RATE, dtype=torch.float64):
    """(engine, flow) of this kind."""
    engine, rows = make(dtype)
    scale = {key: value.to(dtype) for key, value in preconditioner(engine).items()}
    if kind == "dense":
        return engine, SpectralFlow(DenseCurvature(engine, rows), rate)
    if kind == "dense with P":
        root = {key: value.double().sqrt() for key, value in scale.items()}
        return engine, SpectralFlow(DenseCurvature(engine, rows, root=root), rate, root)
    curvature = EKFAC(engine, rows, seed=4)
    if kind == "ekfac":
        return engine, SpectralFlow(curvature, rate)
    return engine, DiagonalFlow(curvature, rate, scale, {"conv.weight": 0.2, "head.bias": 0.1})


def vector(engine, values):
    """Flat, with 0 where a parameter is left out."""
    lead = next(iter(values.values())).ndim - len(shapes_of(engine)[next(iter(values))])
    lead_shape = next(iter(values.values())).shape[:lead]
    parts = [
        values[key].double().flatten(lead) if key in values else torch.zeros(*lead_shape, shape.numel()).double()
        for key, shape in shapes_of(engine).items()
    ]
    return torch.cat(parts, dim=lead)


def basis_of(engine, curvature, layer):
    """(eigenvectors of one layer as columns, the flat positions of their entries)."""
    places, start = {}, 0
    for key, shape in shapes_of(engine).items():
        places[key] = torch.arange(start, start + shape.numel())
        start += shape.numel()
    out, width = layer.size
    q_in, q_out = (
        torch.eye(size, dtype=torch.float64) if basis is None else basis.double()
        for basis, size in zip(curvature.bases(layer.name), (width, out), strict=True)
    )
    order = torch.cat([places[key].reshape(out, -1) for key in layer.parameters], 1).flatten()
    return torch.kron(q_out, q_in), order


def formed_ekfac(engine, curvature):
    """A function that makes the (p, p) matrix with the curvature's basis of eigenvalues by layer."""
    p = sum(shape.numel() for shape in shapes_of(engine).values())

    def form(values):
        matrix = torch.zeros(p, p, dtype=torch.float64)
        for layer in curvature.layers:
            basis, order = basis_of(engine, curvature, layer)
            matrix[order[:, None], order] = basis @ torch.diag(values[layer.name].double().flatten()) @ basis.T
        return matrix

    return form


def flowed(matrix, rate):
    """(exp(-rate matrix), its integral over rates from 0): the exponential of a matrix of twice the size."""
    p = len(matrix)
    eye = torch.eye(p, dtype=torch.float64)
    whole = torch.linalg.matrix_exp(rate * torch.cat([torch.cat([-matrix, eye], 1), torch.zeros(p, 2 * p)]).double())
    return whole[:p, :p], whole[:p, p:]


def matrices(kind, engine, flow, rate=RATE):
    """(gathered, remaining) as (p, p) matrices that multiply u, by another way than the flow's."""
    p = sum(shape.numel() for shape in shapes_of(engine).values())
    eye = torch.eye(p, dtype=torch.float64)
    if kind.startswith("dense"):
        curvature = flow.curvature
        m = curvature.basis @ torch.diag(curvature.values) @ curvature.basis.T
        root = eye if flow.root is None else torch.diag(flatten(flow.root))
        left, met = flowed(m, rate)
        return root @ met @ root, torch.linalg.inv(root) @ left @ root
    form = formed_ekfac(engine, flow.curvature)
    values = flow.curvature.values
    covered = torch.diag(form({name: torch.ones_like(each) for name, each in values.items()}).diagonal().round())
    h = form(values)
    if kind == "ekfac":
        left, met = flowed(h, rate)
        return met @ covered, left @ covered
    scale, decay = flatten(preconditioner(engine)), {"conv.weight": 0.2, "head.bias": 0.1}
    added = torch.cat([torch.full((s.numel(),), decay.get(k, 0.0)) for k, s in shapes_of(engine).items()]).double()
    kept = torch.exp(-rate * (scale * h.diagonal() + added))
    inverse = {}
    for layer in flow.curvature.layers:
        basis, order = basis_of(engine, flow.curvature, layer)
        turned = (basis.T @ torch.diag((added / scale)[order]) @ basis).diagonal()  # decay / P, its diagonal
        shifted = values[layer.name].double() + turned.reshape(values[layer.name].shape)
        inverse[layer.name] = 1 / (shifted + 0.1 * shifted.mean())
    return form(inverse) @ torch.diag(1 - kept), torch.diag(kept) @ covered


def close(found, expected, tolerance=1e-9):
    assert found.shape == expected.shape
    return (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lead", [(), (1,), (5,)])
def test_flows_equal_functions_of_formed_matrices(kind, lead, quiet):
    engine, flow = flow_of(kind)
    given = directions(engine, lead)
    met, left = matrices(kind, engine, flow)
    for found, matrix in ((flow.gathered(given), met), (flow.remaining(given), left)):
        assert all(found[key].shape == given[key].shape for key in found)
        assert close(vector(engine, found), vector(engine, given) @ matrix.T, 1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stretch_is_its_two_parts_one_after_the_other(kind, quiet):
    engine, whole = flow_of(kind)
    first, second = flow_of(kind, 0.3 * RATE)[1], flow_of(kind, 0.7 * RATE)[1]
    given = directions(engine, (3,))
    between = {**given, **second.remaining(given)}
    assert close(vector(engine, first.remaining(between)), vector(engine, whole.remaining(given)))
    both = vector(engine, second.gathered(given)) + vector(engine, first.gathered(between))
    assert close(both, vector(engine, whole.gathered(given)))


@pytest.mark.parametrize("kind", KINDS)
def test_no_training_leaves_the_direction_and_gathers_nothing(kind, quiet):
    engine, flow = flow_of(kind, 0.0)
    given = directions(engine)
    assert not vector(engine, flow.gathered(given)).any()
    if kind == "diagonal":  # what a decoupled decay does takes time, too
        assert all(torch.equal(value, given[key]) for key, value in flow.remaining(given).items())
    for key, value in flow.remaining(given).items():
        torch.testing.assert_close(value, given[key], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["ekfac", "diagonal"])
def test_parameters_that_ekfac_leaves_out_are_neither_met_nor_moved(kind, quiet):
    engine, flow = flow_of(kind)
    covered = set(shapes_of(engine)) - {"idle.weight", "idle.bias"}
    given = directions(engine, (2,))
    assert set(flow.gathered(given)) == set(flow.remaining(given)) == covered
    assert set(flow.coordinates(given)) == {"conv", "norm", "middle", "head"}


@pytest.mark.parametrize("kind", KINDS)
def test_results_have_the_kind_of_number_of_the_direction(kind, quiet):
    engine, flow = flow_of(kind, dtype=torch.float32)
    given = directions(engine, (2,), torch.float32)
    truth_engine, truth = flow_of(kind)
    precise = directions(truth_engine, (2,))
    for name in ("gathered", "remaining"):
        found = getattr(flow, name)(given)
        assert {value.dtype for value in found.values()} == {torch.float32}
        expected = vector(engine, getattr(truth, name)(precise))
        assert close(vector(engine, found), expected, 1e-3)  # bases of float32 factors


@pytest.mark.parametrize("kind", ["dense", "dense with P", "ekfac"])
def test_a_direction_is_rotated_once_and_another_one_is_another_one(kind, quiet, monkeypatch):
    engine, flow = flow_of(kind)
    one = directions(engine)
    other = {key: 2 * value for key, value in one.items()}
    calls = []
    rotate = flow.curvature.rotate
    monkeypatch.setattr(flow.curvature, "rotate", lambda direction: (calls.append(1), rotate(direction))[1])
    met = vector(engine, flow.gathered(one))
    flow.remaining(one)
    assert len(calls) == 1
    assert close(vector(engine, flow.gathered(other)), 2 * met, 1e-12)
    assert len(calls) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_gathered_is_the_coordinates_turned_back(kind, quiet):
    engine, flow = flow_of(kind)
    given = directions(engine, (2,))
    turned = flow.rooted(flow.curvature.back(flow.coordinates(given)))
    assert close(vector(engine, turned), vector(engine, flow.gathered(given)), 1e-14)
    if kind.startswith("dense"):
        assert flow.coordinates(given)[ALL].shape == (2, sum(s.numel() for s in shapes_of(engine).values()))


@pytest.mark.parametrize("rate", [1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("kind", ["ekfac", "diagonal"])
def test_a_short_stretch_is_gathered_in_single_precision_as_in_double(kind, rate, quiet):
    """1 - exp(-x) of float32 numbers is 0 below x = 6e-8: the values of a short training would be 0."""
    engine, rows = make(torch.float32)
    curvature = EKFAC(engine, rows, seed=4)
    precise = curvature.restored({key: value.double() for key, value in curvature.tensors.items()})
    given = directions(engine, (2,), torch.float32)
    scale = {key: value.float() for key, value in preconditioner(engine).items()}
    found = []
    for dtype, each in ((torch.float32, curvature), (torch.float64, precise)):
        u, p = ({key: value.to(dtype) for key, value in parts.items()} for parts in (given, scale))
        flow = SpectralFlow(each, rate) if kind == "ekfac" else DiagonalFlow(each, rate, p, {})
        found.append(vector(engine, flow.gathered(u)) / rate)
    assert close(found[0], found[1], 1e-5)


def test_a_preconditioned_flow_is_the_sum_of_many_small_steps():
    """Of gradient descent with P, without a square root of it."""
    engine, rows = make()
    root = {key: value.sqrt() for key, value in preconditioner(engine).items()}
    plain, scaled = DenseCurvature(engine, rows), DenseCurvature(engine, rows, root=root)
    h = plain.basis @ torch.diag(plain.values) @ plain.basis.T
    p = flatten(root).square()
    given = directions(engine)
    met = vector(engine, SpectralFlow(scaled, RATE, root).gathered(given))
    left = torch.linalg.matrix_exp(-RATE * h * p)  # of H P: the transpose of what the steps do
    assert close(vector(engine, SpectralFlow(scaled, RATE, root).remaining(given)), left @ flatten(given), 1e-8)
    steps = 4000  # the sum of small steps that the closed form stands for
    total, u = torch.zeros_like(p), flatten(given)
    half = torch.linalg.matrix_exp(-RATE / steps / 2 * h * p)
    step = half @ half
    u = half @ u
    for _ in range(steps):
        total += RATE / steps * p * u
        u = step @ u
    assert close(met, total, 1e-4)
    assert set(unflatten(met, shapes_of(engine))) == set(given)
