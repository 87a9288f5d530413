"""What is added to the eigenvalues of EK-FAC where nothing is given, and solutions that EK-FAC makes cheap."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from sktda.engine import curvature, links, systems
from sktda.engine.curvature import DenseCurvature, conjugate_gradients
from sktda.engine.damping import LEAST, damped, unlearned, unpenalised, without_penalty
from sktda.engine.ekfac import EKFAC
from sktda.engine.gauss_newton import FactoredGaussNewton, gauss_newton_products
from sktda.engine.journal import Passes
from sktda.engine.pairwise import EKFACQueries
from sktda.engine.per_row import PerRow
from sktda.engine.systems import ENOUGH, STOPPED, Systems
from sktda.model.base import DifferentiableModel, Rows, flatten_each, unflatten
from sktda.model.likelihood import Gaussian
from sktda.model.softmax import Categorical

N, DECAY = 40, 0.02
X = (
    torch.randn(N, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    * torch.logspace(-1, 1, 5).double()
)
WEIGHTS = torch.linspace(0.5, 2, N, dtype=torch.float64)


def problem(likelihood=None, widths=(5, 4, 3), weight=None):
    """(engine, rows) of a small net."""
    torch.manual_seed(0)
    layers = [
        part
        for k, (into, out) in enumerate(pairwise(widths))
        for part in (nn.Linear(into, out, bias=k != 1), nn.Tanh())
    ]
    module = nn.Sequential(*layers[:-1]).double()
    likelihood = likelihood or Categorical()
    y = module(X).detach()
    y = y.argmax(1) if isinstance(likelihood, Categorical) else y + 0.3 * X[:, : widths[-1]]
    decay = dict.fromkeys((name for name, _ in module.named_parameters()), DECAY)
    model = DifferentiableModel(module, likelihood, None, decay=decay)
    return PerRow(model), Rows(N, lambda rows: (X[rows], y[rows]), weight)


def shared_problem(kind):
    """(engine, rows) of a small net whose weights a row uses at several positions."""
    torch.manual_seed(0)
    images = kind == "images"
    inputs = torch.randn(N, *((2, 4, 4) if images else (3, 4)), dtype=torch.float64)
    first = nn.Conv2d(2, 3, 2, stride=2) if images else nn.Linear(4, 3)
    module = nn.Sequential(first, nn.Tanh(), nn.Flatten(), nn.Linear(12 if images else 9, 3)).double()
    y = torch.arange(N) % 3
    model = DifferentiableModel(module, Categorical(), None, decay={})
    return PerRow(model), Rows(N, lambda rows: (inputs[rows], y[rows]), WEIGHTS)


def directions(engine, k=3):
    g = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(k, *value.shape, generator=g, dtype=torch.float64)
        for name, value in engine.model.parameters.items()
    }


@pytest.mark.parametrize(("widths", "penalised"), [((5, 3), True), ((5, 4, 3), False)])
def test_the_penalty_counts_in_a_model_of_one_layer(widths, penalised):
    engine, rows = problem(widths=widths)
    whole = EKFAC(engine, rows)
    bare = without_penalty(whole, engine)
    engine.model.decay = {}
    alone = EKFAC(engine, rows)
    for name, values in bare.values.items():
        torch.testing.assert_close(values, whole.values[name] if penalised else alone.values[name])


@pytest.mark.parametrize("rate", [None, 1e-3, 1e9])
def test_the_default_is_a_tenth_of_the_mean_or_what_early_stopping_leaves(rate):
    engine, rows = problem()
    bare = without_penalty(EKFAC(engine, rows), engine)
    left, found = float(unlearned(engine, rows)), damped(bare, engine, rows, rate)
    traces = np.array([float(values.sum()) for values in bare.values.values()])
    for name, values in bare.values.items():
        least = 0.1 if rate else max(left, 0.1)
        stopped = left * (traces**2).sum() / traces.sum() ** 2 / rate if rate else 0.0
        torch.testing.assert_close(found.values[name], values + max(least * float(values.mean()), stopped))


def test_what_is_left_to_learn_is_told_by_the_targets_of_other_rows():
    engine, rows = problem(Gaussian())
    fitted, untaught = unlearned(engine, rows), problem(Gaussian())
    for value in untaught[0].model.parameters.values():
        value.data.zero_()
    assert fitted < 0.9 < float(unlearned(*untaught)) <= 1


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["rows", "weighted rows"])
@pytest.mark.parametrize("likelihood", [Categorical(), Gaussian()], ids=["softmax", "numbers"])
def test_products_of_kept_factors_are_those_of_passes(likelihood, weight):
    engine, rows = problem(likelihood, (5, 4, 4, 3), weight)
    assert FactoredGaussNewton.suits(engine, rows)
    asked = directions(engine)
    found, expected = FactoredGaussNewton(engine, rows)(asked), gauss_newton_products(engine, rows, asked)
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_systems_of_a_given_damping_are_solved_exactly_in_fewer_products(damping, monkeypatch):
    monkeypatch.setattr(curvature, "ROUNDS", 1)  # else products on a device come by eight
    engine, rows = problem()
    systems, asked = Systems(engine, rows, 0, Passes(), rate=3.0), directions(engine)
    counts = {"plain": 0, "preconditioned": 0}

    def counted(name, multiply):
        def run(asked):
            counts[name] += 1
            return multiply(asked)

        return run

    plain = conjugate_gradients(
        counted("plain", lambda asked: gauss_newton_products(engine, rows, asked)), asked, damping, 1e-10, 1_000
    )
    systems._multiply = counted("preconditioned", systems._multiply)
    found = systems.solved(asked, damping)
    dense = DenseCurvature(engine, rows)
    expected = dense.apply(dense.inverse(damping), asked)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(plain[name], value, rtol=1e-6, atol=1e-8)
    assert counts["preconditioned"] < counts["plain"]
    again = systems.solved(asked, damping)
    assert all(torch.equal(again[name], found[name]) for name in found)


def links_of(engine, rows, damping):
    found = links.Links(engine, rows, unpenalised(EKFAC(engine, rows), engine), damping)
    engine.model.decay = {}
    return found


def exact_solutions(engine, rows, damping, asked):
    """Without the penalty."""
    dense = DenseCurvature(engine, rows)
    return dense.apply(dense.inverse(damping), asked)


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["rows", "weighted rows"])
@pytest.mark.parametrize("likelihood", [Categorical(), Gaussian()], ids=["softmax", "numbers"])
def test_links_in_all_directions_are_the_whole_matrix(likelihood, weight, monkeypatch):
    monkeypatch.setattr(links, "SMALL", 0.0)
    engine, rows = problem(likelihood, (5, 4, 4, 3), weight)
    found, asked = links_of(engine, rows, 0.01), directions(engine)
    assert len(found) == 4 * 6 + 4 * 4 + 3 * 5
    for name, value in exact_solutions(engine, rows, 0.01, asked).items():
        torch.testing.assert_close(found.solved(asked)[name], value, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("damping", [0.03, 0.3, 3.0])
def test_links_of_the_large_directions_are_nearly_the_whole_matrix(damping):
    engine, rows = problem(Gaussian(), (5, 16, 16, 3))
    links, asked = links_of(engine, rows, damping), directions(engine)
    exact, found = exact_solutions(engine, rows, damping, asked), links.solved(asked)
    alone = links.curvature.apply(torch.reciprocal, asked)
    assert 0 < len(links) < 0.5 * sum(value.numel() for value in engine.model.parameters.values())

    def error(values):
        return sum((values[name] - value).square().sum() for name, value in exact.items()) ** 0.5

    assert error(found) < 0.5 * error(alone)
    assert error(found) < 0.1 * sum(value.square().sum() for value in exact.values()) ** 0.5


def test_where_no_direction_is_large_links_change_nothing():
    engine, rows = problem()
    links, asked = links_of(engine, rows, 1e6), directions(engine)
    assert len(links) == 0
    for name, value in links.solved(asked).items():
        torch.testing.assert_close(value, asked[name] / 1e6, rtol=1e-4, atol=0)


@pytest.mark.parametrize("learned", [1e-9, 0.9])
def test_the_damping_of_a_recorded_run_falls_where_little_loss_is_left(learned, monkeypatch):
    monkeypatch.setattr(systems, "LEARNED", learned)
    engine, rows = problem()
    mean = torch.cat([v.flatten() for v in unpenalised(EKFAC(engine, rows), engine).values.values()]).mean()
    share = min(1.0, float(unlearned(engine, rows)) / learned) ** 2
    assert share == 1 or share < 0.5
    for rate in (3.0, 1e9):
        found = Systems(engine, rows, 0, Passes(), rate).stopped
        assert found == pytest.approx(max(float(LEAST * mean), share * STOPPED / rate))


def test_of_many_directions_the_largest_are_kept_as_many_as_the_outputs_let(monkeypatch):
    engine, rows = problem()
    values = torch.cat([values.flatten() for values in unpenalised(EKFAC(engine, rows), engine).values.values()])
    monkeypatch.setattr(links, "SMALL", 0.0)
    assert len(links_of(engine, rows, 1e-9)) == len(values)
    for name, limit in (("MOST", 7), ("WORK", 7.5**2 * 3)):  # three outputs
        with monkeypatch.context() as patch:
            patch.setattr(links, name, limit)
            found = links_of(*problem(), 1e-9)
            kept = torch.cat([values[found._kept[name]] for name, values in found.curvature.values.items()])
            torch.testing.assert_close(kept.sort().values, values.sort().values[-7:] + 1e-9)


@pytest.mark.parametrize("limit", ["MOST", None])
@pytest.mark.parametrize("kind", ["images", "sequence", "linear"])
def test_values_of_pairs_and_of_rows_are_products_with_what_is_solved(kind, limit, monkeypatch):
    """Of layers that a row uses once and at several positions."""
    if limit:
        monkeypatch.setattr(links, limit, 9)
    engine, rows = problem() if kind == "linear" else shared_problem(kind)
    found = Systems(engine, rows, 0, Passes(), rate=1e4).links
    g = engine.gradients(rows, slice(0, N))
    shapes = {name: value.shape for name, value in engine.model.parameters.items()}
    expected = g @ flatten_each(found.solved(unflatten(g, shapes)), shapes).T
    torch.testing.assert_close(found.quadratic(engine, rows, 3, N), expected.diagonal()[3:])
    source = EKFACQueries(found.curvature, found.curvature.inverse(0.0), 0.0)
    ready = found.of_queries(source.part(engine, rows, None, slice(0, 5)), engine, rows, None, slice(0, 5))
    factors = engine.capture(rows.block(slice(0, N), engine.model.device), None, found.curvature.own(engine))[1]
    torch.testing.assert_close(ready.block(factors), expected[:5])
    assert len(found) == 9 if limit else len(found) > 9


def test_eigenvalues_that_rounding_made_negative_are_the_damping():
    basis = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    values = torch.tensor([3.0, 2.0, 1.0, 1e-3, -1e-3], dtype=torch.float64)
    root = links.cholesky_root((basis * values) @ basis.T, 1e-3)
    torch.testing.assert_close(root @ root.T, (basis * values.clamp(min=1e-3)) @ basis.T)
    torch.testing.assert_close(links.cholesky_root(root @ root.T, 1e-3), root)


def test_a_net_of_many_outputs_is_solved_as_a_whole(monkeypatch):
    monkeypatch.setattr(systems, "ROOTS", 2)
    assert Systems(*problem(), 0, Passes(), 100.0).links is None


def test_a_net_with_parameters_that_no_loss_depends_on_is_solved_as_a_whole(monkeypatch):
    monkeypatch.setattr(systems, "ENOUGH", 1e-10)
    engine, rows = problem()
    module = nn.ModuleDict({"net": engine.model.module, "spare": nn.Linear(2, 2).double()})
    module.forward = lambda X: module["net"](X)
    model = DifferentiableModel(module, Categorical(), None, decay={})
    whole, asked = Systems(PerRow(model), rows, 0, Passes(), 100.0), directions(PerRow(model))
    assert whole.links is None
    found = whole.solved(asked, None)
    assert list(found) == list(asked)
    torch.testing.assert_close(found["spare.weight"], asked["spare.weight"] * 100 / STOPPED)


def test_systems_of_a_recorded_net_stop_early_without_the_penalty(monkeypatch):
    monkeypatch.setattr(systems, "ROOTS", 0)  # as for a net of many outputs
    rate = 100.0
    engine, rows = problem()
    whole, asked = Systems(engine, rows, 0, Passes(), rate), directions(engine)
    found = whole.solved(asked, None)
    shapes = {name: value.shape for name, value in engine.model.parameters.items()}
    engine.model.decay = {}
    product = gauss_newton_products(engine, rows, found)
    b, x, moved = (flatten_each(each, shapes) for each in (asked, found, product))
    left = (b - moved - STOPPED / rate * x).norm(dim=1) / b.norm(dim=1)
    assert (left <= ENOUGH + 1e-9).all()
