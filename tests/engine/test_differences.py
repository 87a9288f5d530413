"""Finite differences against the second derivatives themselves."""

import pytest
import torch

from sktda.engine import differences
from sktda.engine.differences import FiniteDifferences, length, risk_gradient
from sktda.engine.per_row import PerRow
from sktda.engine.second_order import SecondOrder
from sktda.model.base import DifferentiableModel
from tests.engine import test_layers as table
from tests.engine import test_per_row as losses
from tests.engine.test_layers import CPU, direction, flat, rows_of

NAMES = ("linear", "few wide tokens", "conv2d", "embedding with padding", "layer norm", "encoder", "LSTM",
         "bare parameter", "tied layers", "frozen bias", "dict of inputs")  # fmt: skip
each_case = pytest.mark.parametrize("name", NAMES)
each_form = pytest.mark.parametrize("central", [True, False])


def problem(name):
    """(engine with decay, rows, directions (3, ...)); smooth modules only, for a shift must not cross a kink."""
    model, rows = table.build(name)
    decay = {parameter: 0.1 * (k + 1) for k, parameter in enumerate(model.parameters)}
    engine = PerRow(DifferentiableModel(model.module, model.likelihood, rows_of, decay), 4)
    engine.prepare(rows)
    return engine, rows, direction(model, 4, 3)[1]


def whole(rows):
    return rows.block(slice(0, len(rows)), CPU)


def first(directions):
    return {name: value[0] for name, value in directions.items()}


def error(got, expected):
    return float((got - expected).norm() / expected.norm())


@each_case
def test_products_agree_with_second_derivatives(name):
    engine, rows, directions = problem(name)
    gradient, products = SecondOrder(engine).products(rows, directions)
    for central, allowed in ((True, 1e-5), (False, 1e-2)):
        got, found = FiniteDifferences(engine, central).products(rows, directions)
        assert error(flat(got), flat(gradient)) < 1e-12
        assert {key: value.shape for key, value in found.items()} == {k: v.shape for k, v in directions.items()}
        assert error(flat(found), flat(products)) < allowed
        again, product = FiniteDifferences(engine, central).product(rows, first(directions))
        assert torch.equal(flat(again), flat(got))
        assert error(flat(product), flat(first(products))) < allowed


@each_case
def test_changes_of_rows_agree_with_second_derivatives(name):
    engine, rows, directions = problem(name)
    expected = SecondOrder(engine).changes(whole(rows), first(directions))
    gradients = engine.formed(expected.factors)
    others = engine.capture(rows.block(slice(0, 2), CPU))[1]
    for central, allowed in ((True, 1e-5), (False, 1e-2)):
        found = FiniteDifferences(engine, central).changes(whole(rows), first(directions))
        assert torch.allclose(engine.formed(found.factors), gradients, rtol=1e-10, atol=1e-14)
        assert error(found.dots, expected.dots) < allowed
        assert error(engine.formed(found.changes), engine.formed(expected.changes)) < allowed
        for layer, change in expected.changes.items():
            own, meant = found.changes[layer].gram(others[layer]), change.gram(others[layer])
            assert (own - meant).norm() <= 10 * allowed * meant.norm() + 1e-12


@pytest.mark.parametrize(("central", "order"), [(True, 2), (False, 1)])
def test_the_error_falls_with_the_order_of_the_form(central, order, monkeypatch):
    engine, rows, directions = problem("layer norm")
    expected = SecondOrder(engine)
    product = flat(expected.product(rows, first(directions))[1])
    exact = expected.changes(whole(rows), first(directions))
    found = []
    for distance in (1e-2, 1e-3):
        monkeypatch.setattr(differences, "DISTANCE", distance)
        form = FiniteDifferences(engine, central)
        changes = form.changes(whole(rows), first(directions))
        found.append([
            error(flat(form.product(rows, first(directions))[1]), product),
            error(engine.formed(changes.changes), engine.formed(exact.changes)),
            error(changes.dots, exact.dots),
        ])  # fmt: skip
    for coarse, fine in zip(*found, strict=True):
        assert 10**order * 0.8 < coarse / fine < 10**order * 1.25


@each_form
def test_the_shift_has_the_length_of_the_published_code(central):
    engine, rows, directions = problem("linear")
    points = []
    before = flat(engine.model.parameters).detach().clone()
    engine.model.module.register_forward_pre_hook(lambda module, args: points.append(flat(engine.model.parameters)))
    FiniteDifferences(engine, central).product(rows, first(directions))
    along = flat(first(directions)) / flat(first(directions)).norm()
    shifts = sorted({round(float((point.detach() - before) @ along), 12) for point in points})
    assert shifts == ([-1e-3, 0.0, 1e-3] if central else [0.0, 1e-3])


@each_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_are_put_back_bit_for_bit(central, dtype):
    model, rows = table.build("conv2d", dtype=dtype)
    before = table.state_of(model.module)
    engine = PerRow(model, 4)
    engine.prepare(rows)
    form = FiniteDifferences(engine, central)
    directions = direction(model, 4, 3)[1]  # of double precision
    form.products(rows, directions)
    form.changes(whole(rows), first(directions))
    after = table.state_of(model.module)
    for key, value in before.items():
        assert torch.equal(after[key], value) if isinstance(value, torch.Tensor) else after[key] == value, key


@each_form
def test_parameters_are_put_back_after_an_error(central):
    engine, rows, directions = problem("linear")
    before = flat(engine.model.parameters).detach().clone()

    def fail(module, args):
        if not torch.equal(flat(engine.model.parameters).detach(), before):
            raise RuntimeError("no loss here")

    engine.model.module.register_forward_pre_hook(fail)
    form = FiniteDifferences(engine, central)
    with pytest.raises(RuntimeError, match="no loss here"):
        form.product(rows, first(directions))
    with pytest.raises(RuntimeError, match="no loss here"):
        form.changes(whole(rows), first(directions))
    assert torch.equal(flat(engine.model.parameters).detach(), before)


@each_form
def test_the_length_of_the_direction_scales_the_result(central):
    engine, rows, directions = problem("layer norm")
    form = FiniteDifferences(engine, central)
    once = form.changes(whole(rows), first(directions))
    product = flat(form.product(rows, first(directions))[1])
    for scale in (1e-6, 1e6):
        more = {name: scale * value for name, value in first(directions).items()}
        found = form.changes(whole(rows), more)
        assert error(engine.formed(found.changes), scale * engine.formed(once.changes)) < 1e-8
        assert error(found.dots, scale * once.dots) < 1e-8
        assert error(flat(form.product(rows, more)[1]), scale * product) < 1e-8


@each_form
def test_no_direction_changes_nothing(central):
    engine, rows, directions = problem("few wide tokens")
    still = {name: torch.zeros_like(value) for name, value in directions.items()}
    form = FiniteDifferences(engine, central)
    gradient, products = form.products(rows, still)
    assert torch.equal(flat(gradient), flat(risk_gradient(engine, rows)))
    assert not flat(products).any()
    found = form.changes(whole(rows), first(still))
    assert not found.dots.any()
    assert not engine.formed(found.changes).any()
    close_to = engine.formed(engine.capture(whole(rows))[1])
    assert torch.equal(engine.formed(found.factors), close_to)


@pytest.mark.parametrize("size", [1, 7, 66, "auto"])
@each_form
def test_batch_sizes_agree(size, central):
    model, rows = losses.problem("categorical, class weights", 66)
    directions = {name: value[None] for name, value in losses.direction(model)[1].items()}
    expected = FiniteDifferences(PerRow(model, 5), central).products(rows, directions)
    got = FiniteDifferences(PerRow(model, size), central).products(rows, directions)
    assert error(flat(got[0]), flat(expected[0])) < 1e-12
    assert error(flat(got[1]), flat(expected[1])) < 1e-10  # a difference loses three digits


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_batches_are_halved_when_memory_runs_out(where):
    model, rows = losses.problem("categorical", 40)
    model.decay = {}
    model.module = losses.Scarce(model.module, 40, where)
    directions = {name: value[None] for name, value in losses.direction(model)[1].items()}
    expected = FiniteDifferences(PerRow(model, 40)).products(rows, directions)
    model.module.fits = 5
    got = FiniteDifferences(PerRow(model, 40)).products(rows, directions)
    assert model.module.refused
    assert error(flat(got[1]), flat(expected[1])) < 1e-9


def test_risk_gradient_and_length():
    engine, rows, directions = problem("frozen bias")
    model, gradients = engine.model, table.row_gradients(engine.model, rows)
    rates = torch.cat([
        torch.full((value.numel(),), model.decay[name], dtype=torch.float64) for name, value in model.parameters.items()
    ])  # fmt: skip
    expected = gradients.mean(0) + rates * flat(model.parameters).detach()
    assert error(flat(risk_gradient(engine, rows)), expected) < 1e-12
    assert length(directions) == pytest.approx(float(flat(directions).norm()), rel=1e-14)
