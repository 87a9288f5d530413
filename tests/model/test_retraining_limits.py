"""What trainings side by side must not change: nets with a state of their own, rows that do not count, errors."""

import pickle

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sktda import retrain
from tests.in_turn import in_turn
from tests.model.nets import Mlp
from tests.model.test_retraining import (
    MASKS,
    REGRESSOR,
    SEEDS,
    TARGETS,
    TOKENS,
    Double,
    Embedded,
    N,
    X,
    Y,
    assert_same,
    distance,
    losses,
    net,
    one_by_one,
)  # fmt: skip


class Averaging(Mlp):
    """With a mean of its own, which every batch moves."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, X):
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(0.1 * X.mean(dim=0))
        return super().forward(X - self.mean)


class Counting(Mlp):
    def __init__(self):
        super().__init__()
        self.register_buffer("n", torch.zeros(()))

    def forward(self, X):
        if self.training:
            self.n = self.n + 1
        return super().forward(X) / (1 + 0.1 * self.n)


class CountingByHand(Mlp):
    def __init__(self):
        super().__init__()
        self.n = 0

    def forward(self, X):
        self.n += self.training
        return super().forward(X) / (1 + 0.1 * self.n)


class Remembering(Mlp):
    def forward(self, X):
        self.seen = X.detach().mean()
        return super().forward(X)


class Padded(Embedded):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(6, 4, padding_idx=0)


class Seeded(Mlp):
    def __init__(self, random_state=None):
        super().__init__()
        with torch.no_grad():
            self.first.weight.normal_(generator=torch.Generator().manual_seed(random_state or 0))


class Zero(nn.Linear):
    def __init__(self):
        super().__init__(1, 1, bias=False)
        nn.init.zeros_(self.weight)


@pytest.mark.parametrize("module", [Averaging, Counting, CountingByHand, Remembering])
def test_a_module_with_a_state_of_its_own(module):
    found = retrain(net(module), X, Y, seeds=SEEDS)
    pickle.loads(pickle.dumps(found))  # no tensor of torch.func's is left in it
    assert_same(found, one_by_one(net(module), X, Y))
    for one, other in zip(found, one_by_one(net(module), X, Y), strict=True):
        np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-5)


def test_padding_of_an_embedding_is_not_trained():
    assert_same(retrain(net(Padded), TOKENS, Y, seeds=SEEDS), one_by_one(net(Padded), TOKENS, Y))


def test_rows_that_the_loss_ignores():
    y = Y.copy()
    y[::4] = -100
    assert_same(retrain(net(), X, y, seeds=SEEDS), one_by_one(net(), X, y))


def test_float64_is_not_rounded_to_float32():
    numbers = X.astype(float)
    found = retrain(net(Double), numbers, Y, seeds=SEEDS, batched=True)
    assert_same(found, one_by_one(net(Double), numbers, Y), 1e-12)


@pytest.mark.parametrize("options", [{"max_epochs": 0}, {"batch_size": 50, "iterator_train__drop_last": True}], ids=str)
def test_trainings_without_a_step(options):
    for one, other in zip(retrain(net(**options), X, Y, seeds=SEEDS), one_by_one(net(**options), X, Y), strict=True):
        assert distance(one, other) == 0
        assert len(one.history) == len(other.history)


def test_random_state_of_the_module():
    estimator = net(Seeded, module__random_state=None)
    assert_same(retrain(estimator, X, Y, seeds=SEEDS), one_by_one(estimator, X, Y))


@in_turn("n", [N - 3, N + 3])
@in_turn("batched", ["auto", True, False])
def test_X_and_y_of_different_lengths(n, batched):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        retrain(net(), X, np.resize(Y, n), seeds=SEEDS, batched=batched)


def test_same_order_without_a_row_of_nan():
    broken = X.copy()
    broken[17, 0] = np.nan
    kept = np.ones((3, N), dtype=bool)
    kept[:, 17] = False
    found = retrain(net(), broken, Y, seeds=SEEDS, rows=kept, same_order=True)
    for one, other in zip(found, retrain(net(), X, Y, seeds=SEEDS, rows=kept, same_order=True), strict=True):
        assert distance(one, other) == 0


def test_a_row_that_was_not_seen_is_not_to_blame():
    broken = X.copy()
    broken[17, 0] = np.nan
    without = [np.delete(np.arange(N), 17)]
    with pytest.raises(ValueError, match="the training diverged"):
        retrain(net(**REGRESSOR | {"lr": 1e9}), broken, TARGETS, seeds=[0], rows=without)


def test_same_order_counts_a_row_as_often_as_it_is_given():
    once = retrain(net(), X, Y, seeds=[0], rows=[range(N)], same_order=True)[0]
    try:
        often = retrain(net(), X, Y, seeds=[0], rows=[[*range(N), 0, 0, 0, 0]], same_order=True)[0]
    except ValueError:
        return  # or it is refused
    assert distance(once, often) > 1e-4


def test_same_order_history_is_the_mean_over_the_rows_that_count():
    kept = np.zeros((1, N), dtype=bool)
    kept[0, :6] = True
    estimator = net(iterator_train__shuffle=False, max_epochs=1, lr=0.0)
    found = retrain(estimator, X, Y, seeds=[0], rows=kept, same_order=True)[0]
    np.testing.assert_allclose(losses(found), losses(retrain(estimator, X, Y, seeds=[0], rows=kept)[0]), atol=1e-6)


def test_parameters_that_become_infinite_in_the_last_step():
    estimator = net(Zero, NeuralNetRegressor, criterion=nn.MSELoss, lr=3e20, max_epochs=2, batch_size=-1)
    ones = np.ones((4, 1), np.float32)
    found = retrain(estimator, ones, 0.005 * ones, seeds=[0])[0]  # as skorch: the losses were all finite
    assert np.isfinite(found.history[:, "train_loss"]).all()


def test_classes_of_rows_that_lack_one():
    part = [np.flatnonzero(Y == 1)]
    one, other = (retrain(net(), X, Y, seeds=[0], rows=part, batched=batched)[0] for batched in (True, False))
    np.testing.assert_array_equal(one.classes_, other.classes_)


def test_no_trainings_in_one_order():
    assert retrain(net(), X, Y, seeds=[], rows=MASKS[:0], same_order=True) == []


@in_turn("given", [[[0.0, 1.0]], [[[0, 1]]], [3], [["a"]]])
@in_turn("batched", ["auto", False])
def test_rows_that_are_no_positions(given, batched):
    with pytest.raises(ValueError, match=r"rows\[0\]"):
        retrain(net(), X, Y, seeds=[0], rows=given, batched=batched)


def test_unknown_batched():
    with pytest.raises(ValueError, match="batched"):
        retrain(net(), X, Y, seeds=[0], batched="yes")
