"""Five methods in one pass: what each one's own class finds."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from torch import nn

from sktda.attribution import DiffIn, InnerProduct, MoSo, TracIn, trajectory_scores
from sktda.engine.second_order import SecondOrder
from sktda.model.base import DifferentiableModel
from sktda.objectives import Margin
from tests.attribution import run_reference as runs
from tests.attribution.run_reference import ONE_RATE, QUERIES, N, X, Y, assert_close, targets_of, trained

WEIGHT = np.random.default_rng(1).uniform(0.5, 2.0, N)
WEIGHT[4] = 0


def each_alone(estimator, X, y, X_val, y_val, weight=None, objective="validation", metadata_val=None):
    validated = {"X_val": X_val, "y_val": y_val, "metadata_val": metadata_val}
    methods = {
        "TracIn": (TracIn(objective=objective), validated),
        "TracIn-self": (TracIn(), {}),
        "InnerProduct": (InnerProduct(objective=objective), validated),
        "MoSo": (MoSo(checkpoints="even"), {}),
        "DiffIn": (DiffIn(hvp="exact", objective=objective), validated),
    }
    return {
        name: method.set_params(estimator=estimator).fit(X, y, weight, **rows).scores_
        for name, (method, rows) in methods.items()
    }


def assert_same(found, expected, tolerance=1e-12):
    assert set(found) == set(expected)
    for name, scores in found.items():
        assert scores.dtype == np.float64
        assert_close(scores, expected[name], tolerance)


@pytest.mark.parametrize(
    ("name", "weight"), [*((name, WEIGHT) for name in ONE_RATE), ("softmax", None), ("tanh, nesterov", None)]
)
def test_the_scores_of_each_class(name, weight):
    net, y = FrozenEstimator(trained(name)), targets_of(name)
    rows = X, y, X[:QUERIES], y[:QUERIES]
    found = trajectory_scores(net, *rows, sample_weight=weight)
    assert_same(found, each_alone(net, *rows, weight))
    if weight is not None:
        assert all(scores[4] == 0 for scores in found.values())


@pytest.mark.parametrize("name", ["tanh", "softmax, momentum, decay"])
def test_the_batch_size_changes_nothing(name):
    rows = X, Y, X[:QUERIES], Y[:QUERIES]
    net = FrozenEstimator(trained(name))
    plain = trajectory_scores(net, *rows)
    for size in (1, 7):
        assert_same(trajectory_scores(net, *rows, batch_size=size), plain, 1e-10)


def gap(predict, X, y, group):
    """Difference of the mean first logits of two groups."""
    logits = predict(X)[:, 0]
    return logits[group == 1].mean() - logits[group == 0].mean()


def test_other_objectives():
    net, rows, group = FrozenEstimator(trained("tanh")), (X, Y, X[:12], Y[:12]), {"group": np.arange(12) % 2}
    assert_same(
        trajectory_scores(net, *rows, objective=gap, metadata_val=group),
        each_alone(net, *rows, objective=gap, metadata_val=group),
    )
    assert_same(trajectory_scores(net, *rows, objective=Margin()), each_alone(net, *rows, objective=Margin()))


class Mixed(nn.Module):
    """A convolution, a frozen layer, and a parameter of no layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 2, 2)
        self.fixed = nn.Linear(4, 4).requires_grad_(False)
        self.last = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(3))
        self.double()

    def forward(self, X):
        return self.scale * self.last(torch.tanh(self.fixed(torch.tanh(self.conv(X[:, None])).flatten(1))))


def test_layers_of_several_kinds():
    net = FrozenEstimator(runs.untrained(module=Mixed, schedule=None, optimizer__weight_decay=0.02).fit(X, Y))
    rows = X, Y, X[:QUERIES], Y[:QUERIES]
    assert_same(trajectory_scores(net, *rows, sample_weight=WEIGHT), each_alone(net, *rows, WEIGHT))


def test_a_net_that_is_trained_for_it_and_is_left_alone():
    net = runs.untrained(callbacks=[], schedule=None)
    rows = X, Y, X[:QUERIES], Y[:QUERIES]
    found = trajectory_scores(net, *rows, random_state=3)
    assert not net.initialized_
    trained = DiffIn(clone(net), hvp="exact", random_state=3).fit(*rows[:2], X_val=rows[2], y_val=rows[3])
    assert_same(found, each_alone(FrozenEstimator(trained.estimator_), *rows))


def test_one_pass_over_the_checkpoints(monkeypatch):
    """Each checkpoint is loaded once, then the final parameters; the rows meet it in two sweeps."""
    loads, sweeps = [], []
    load, changes = DifferentiableModel.load, SecondOrder.changes
    monkeypatch.setattr(DifferentiableModel, "load", lambda self, state: (loads.append(0), load(self, state))[1])
    monkeypatch.setattr(SecondOrder, "changes", lambda self, *args: (sweeps.append(0), changes(self, *args))[1])
    trajectory_scores(FrozenEstimator(trained("tanh")), X, Y, X[:QUERIES], Y[:QUERIES])
    assert len(loads) == 6 + 1
    assert len(sweeps) == 6


def test_what_is_refused():
    rows = X, Y, X[:QUERIES], Y[:QUERIES]
    with pytest.raises(ValueError, match="follows a recorded training run, and this LogisticRegression has none"):
        trajectory_scores(LogisticRegression(), *rows)
    with pytest.raises(ValueError, match="parameter groups at different learning rates, and this needs one"):
        trajectory_scores(FrozenEstimator(trained("groups")), *rows)
    with pytest.raises(ValueError, match="objective"):
        trajectory_scores(FrozenEstimator(trained("tanh")), *rows, objective="other")
