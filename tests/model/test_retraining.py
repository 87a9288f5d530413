"""retrain: side by side against training one by one, a common order against a loop by hand, fallbacks, errors."""

import pickle
import re

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EpochScoring, LRScheduler
from skorch.dataset import Dataset, ValidSplit
from torch import nn
from torch.utils.data import TensorDataset, default_collate

from sktda import retrain
from sktda.attribution import Influence
from sktda.model import side_by_side as retraining
from sktda.model.fitting import train_clone
from sktda.model.side_by_side import why_not
from tests.in_turn import in_turn
from tests.model.nets import Mlp, Tied, rows

N = 43  # four batches of 10 rows and a last one of 3
X, Y = rows(N)
SEEDS = (3, 1, 8)
RNG = np.random.default_rng(0)
TARGETS = (X @ np.array([[1.0], [-2.0], [0.5]]) + RNG.normal(size=(N, 1))).astype(np.float32)
IMAGES = RNG.normal(size=(N, 1, 6, 6)).astype(np.float32)
TOKENS = RNG.integers(0, 6, size=(N, 4))
NAMED = {"left": X, "right": RNG.normal(size=(N, 2)).astype(np.float32)}
PARTS = [np.arange(30), RNG.permutation(N)[:25], np.array([4, 2, 2, 40, 7, 4, 0])]
MASKS = RNG.random((3, N)) < 0.8


class Outputs(nn.Sequential):
    def __init__(self, n=1):
        super().__init__(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, n))


class Softmax(Mlp):
    def forward(self, X):
        return torch.softmax(super().forward(X), dim=1)


class Flat(Outputs):
    """Outputs (n,)."""

    def forward(self, X):
        return super().forward(X).squeeze(-1)


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.last = nn.Linear(16, 2)

    def forward(self, X):
        return self.last(nn.functional.max_pool2d(torch.relu(self.conv(X)), 3).flatten(1))


class Normed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 6), nn.LayerNorm(6), nn.GELU(), nn.GroupNorm(2, 6), nn.Linear(6, 2))


class PartlyFrozen(Mlp):
    def __init__(self):
        super().__init__()
        self.first.weight.requires_grad_(False)


class Unused(Mlp):
    """With parameters that the outputs do not depend on."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(2, 2)


class Buffered(Mlp):
    """With random numbers that are drawn once."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.rand(3) + 0.5)

    def forward(self, X):
        return super().forward(X * self.scale)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 2), nn.Linear(2, 2)

    def forward(self, right, left):
        return self.left(left) + torch.tanh(self.right(right))


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.last = nn.Embedding(6, 4), nn.Linear(4, 2)

    def forward(self, X):
        return self.last(self.words(X).mean(dim=1))


class Attentive(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True, dropout=dropout)
        self.last = nn.Linear(3, 2)

    def forward(self, X):
        X = X.reshape(len(X), -1, 3)
        return self.last(self.attention(X, X, X)[0].mean(dim=1))


class Double(Mlp):
    def __init__(self):
        super().__init__()
        self.double()


class InTraining(Mlp):
    def forward(self, X):
        return super().forward(X) * (2.0 if self.training else 1.0)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.last = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, X):
        return self.last(self.cells(X[:, None])[0][:, -1])


class BatchNormed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


class Noisy(Mlp):
    def forward(self, X):
        return super().forward(X + 0.1 * torch.randn(X.shape) if self.training else X)


class Branching(Mlp):
    def forward(self, X):
        return super().forward(X) if float(X.sum()) > 0 else -super().forward(X)


class OwnLoss(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return 2 * super().get_loss(y_pred, y_true, X, training)


class OwnCriterion(nn.CrossEntropyLoss):
    pass


class OwnOptimizer(torch.optim.SGD):
    pass


def net(module=Mlp, kind=NeuralNetClassifier, **options):
    """An untrained net: SGD, 2 epochs of 5 batches, shuffled."""
    settings = {
        "criterion": nn.CrossEntropyLoss,
        "max_epochs": 2,
        "batch_size": 10,
        "lr": 0.1,
        "train_split": None,
        "iterator_train__shuffle": True,
        "verbose": 0,
    } | options
    return kind(module, **settings)


REGRESSOR = {"module": Outputs, "kind": NeuralNetRegressor, "criterion": nn.MSELoss, "lr": 0.02}
BINARY = {"module": Outputs, "kind": NeuralNetBinaryClassifier, "criterion": nn.BCEWithLogitsLoss}


def only(data, part):
    """These rows of arrays, or of a dict of them."""
    return {name: value[part] for name, value in data.items()} if isinstance(data, dict) else data[part]


def one_by_one(estimator, X, y, seeds=SEEDS, parts=None):
    parts = [slice(None)] * len(seeds) if parts is None else parts
    return [
        train_clone(estimator, only(X, part), y[part], random_state=k) for k, part in zip(seeds, parts, strict=True)
    ]


def seeded_start(estimator, seed):
    """The net as training finds it, and torch's random numbers as they are then."""
    torch.manual_seed(int(check_random_state(seed).randint(2**31 - 1)))
    return clone(estimator).initialize()


def distance(one, other):
    """Largest difference of two nets' parameters and buffers."""
    one, other = one.module_.state_dict(), other.module_.state_dict()
    assert list(one) == list(other)
    assert all(one[name].dtype == other[name].dtype for name in one)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def losses(net):
    return np.array(net.history[:, "train_loss"])


def assert_same(found, expected, tolerance=1e-5):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other)
        assert distance(one, other) < tolerance
        np.testing.assert_allclose(losses(one), losses(other), rtol=0, atol=10 * tolerance)
        assert one.history[:, "epoch"] == other.history[:, "epoch"]


def check(estimator, X=X, y=Y, seeds=SEEDS, given=None, parts=None, tolerance=1e-5):
    """Side by side is one by one; nothing is equal by standing still."""
    assert why_not(estimator, X, y) is None
    found = retrain(estimator, X, y, seeds=seeds, rows=given, batched=True)
    assert_same(found, one_by_one(estimator, X, y, seeds, given if parts is None else parts), tolerance)
    for seed, each in zip(seeds, found, strict=True):
        with torch.random.fork_rng():
            assert distance(each, seeded_start(estimator, seed)) > 1e-3
    assert all(distance(found[0], other) > 1e-3 for other in found[1:])
    return found


# ---- side by side is one by one --------------------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD": {},
    "momentum": {"optimizer__momentum": 0.9},
    "nesterov": {"optimizer__momentum": 0.9, "optimizer__nesterov": True, "optimizer__weight_decay": 0.05},
    "dampening": {"optimizer__momentum": 0.5, "optimizer__dampening": 0.3, "optimizer__lr": 0.2},
    "weight decay": {"optimizer__weight_decay": 0.1},
    "maximize": {"optimizer__maximize": True, "lr": 0.01},
    "Adam": {"optimizer": torch.optim.Adam, "lr": 0.01},
    "Adam, settings": {
        "optimizer": torch.optim.Adam,
        "lr": 0.01,
        "optimizer__betas": (0.7, 0.9),
        "optimizer__eps": 1e-3,
        "optimizer__weight_decay": 0.1,
        "optimizer__amsgrad": True,
    },
    "AdamW": {"optimizer": torch.optim.AdamW, "lr": 0.01, "optimizer__weight_decay": 0.5},
    "RMSprop": {"optimizer": torch.optim.RMSprop, "lr": 0.01},
    "RMSprop, settings": {
        "optimizer": torch.optim.RMSprop,
        "lr": 0.01,
        "optimizer__centered": True,
        "optimizer__momentum": 0.9,
    },
    "Adagrad": {"optimizer": torch.optim.Adagrad},
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_optimizers(options):
    check(net(**options))


LOADERS = {
    "in order": {"iterator_train__shuffle": False},
    "drop_last": {"iterator_train__drop_last": True},
    "in order, drop_last": {"iterator_train__shuffle": False, "iterator_train__drop_last": True},
    "of equal batches": {"batch_size": 43},
    "last batch of one row": {"batch_size": 7},
    "one row at a time": {"batch_size": 1, "max_epochs": 1},
    "all rows": {"batch_size": -1},
    "more than all rows": {"batch_size": 1000},
    "size of the iterator": {"batch_size": 3, "iterator_train__batch_size": 20},
    "size of the iterator, all rows": {"iterator_train__batch_size": -1},
}


@pytest.mark.parametrize("options", LOADERS.values(), ids=LOADERS)
def test_batches(options):
    check(net(**options))


MODELS = {
    "classifier with NLLLoss": (net(Softmax, criterion=nn.NLLLoss), X, Y),
    "label smoothing": (net(criterion__label_smoothing=0.2), X, Y),
    "CrossEntropyLoss of probabilities": (net(kind=NeuralNet), X, np.eye(2, dtype=np.float32)[Y]),
    "plain net": (net(kind=NeuralNet), X, Y),
    "plain net with MSELoss": (net(Outputs, NeuralNet, criterion=nn.MSELoss, lr=0.02), X, TARGETS),
    "regressor": (net(**REGRESSOR), X, TARGETS),
    "regressor of outputs (n,)": (net(**REGRESSOR | {"module": Flat}), X, TARGETS[:, 0]),
    "regressor of several outputs": (net(**REGRESSOR, module__n=3), X, np.hstack([TARGETS, X[:, :2]])),
    "L1Loss": (net(**REGRESSOR | {"criterion": nn.L1Loss}), X, TARGETS),
    "SmoothL1Loss": (net(**REGRESSOR, criterion__beta=0.5) .set_params(criterion=nn.SmoothL1Loss), X, TARGETS),
    "HuberLoss": (net(**REGRESSOR, criterion__delta=0.5).set_params(criterion=nn.HuberLoss), X, TARGETS),
    "binary": (net(**BINARY), X, Y.astype(np.float32)),
    "binary of outputs (n,)": (net(**BINARY | {"module": Flat}), X, Y.astype(np.float32)),
    "pos_weight": (net(**BINARY, criterion__pos_weight=torch.tensor(3.0)), X, Y.astype(np.float32)),
    "conv net": (net(Conv), IMAGES, Y),
    "LayerNorm and GroupNorm": (net(Normed), X, Y),
    "frozen parameter": (net(PartlyFrozen), X, Y),
    "frozen parameter, weight decay": (net(PartlyFrozen, optimizer__weight_decay=0.1), X, Y),
    "unused parameters, weight decay": (net(Unused, optimizer__weight_decay=0.1), X, Y),
    "tied parameters": (net(Tied), X, Y),
    "buffer": (net(Buffered), X, Y),
    "arrays by name": (net(Named), NAMED, Y),
    "embedding": (net(Embedded), TOKENS, Y),
    "attention": (net(Attentive), np.tile(X, 4), Y),
    "dropout of none": (net(module__dropout=0.0), X, Y),
    "float64": (net(Double), X.astype(np.float64), Y),
    "tensors": (net(), torch.from_numpy(X), torch.from_numpy(Y)),
    "another forward in training": (net(InTraining), X, Y),
    "criterion as an instance": (net(criterion=nn.CrossEntropyLoss(label_smoothing=0.1)), X, Y),
    "no callbacks": (net(callbacks=[]), X, Y),
}  # fmt: skip


@pytest.mark.parametrize(("estimator", "X", "y"), MODELS.values(), ids=MODELS)
def test_models(estimator, X, y):
    check(estimator, X, y)


def test_a_tied_parameter_stays_tied_and_a_frozen_one_stays():
    tied = retrain(net(Tied), X, Y, seeds=SEEDS, batched=True)
    assert all(each.module_.second.weight is each.module_.first.weight for each in tied)
    frozen = retrain(net(PartlyFrozen), X, Y, seeds=SEEDS, batched=True)
    for seed, each in zip(SEEDS, frozen, strict=True):
        with torch.random.fork_rng():
            start = seeded_start(net(PartlyFrozen), seed)
        assert torch.equal(each.module_.first.weight, start.module_.first.weight)
        assert not each.module_.first.weight.requires_grad
        assert each.module_.last.weight.requires_grad


def test_a_module_as_an_instance_keeps_its_weights_for_the_next_training():
    torch.manual_seed(0)
    module = Mlp()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    criterion = nn.CrossEntropyLoss()
    estimator = net(module, criterion=criterion)
    found = check(estimator)  # of one start, with orders of their own
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(each.module_ is not module for each in found)
    assert criterion.reduction == "mean"
    assert [each.criterion_.reduction for each in found] == ["mean"] * 3
    assert len({id(each.module_) for each in found}) == 3


def test_a_module_class_of_a_function():
    class Local(Mlp):
        def forward(self, X):
            return super().forward(2 * X)

    check(net(Local))


@pytest.mark.parametrize("options", [{}, {"iterator_train__shuffle": False}, {"batch_size": -1}], ids=str)
@pytest.mark.parametrize("X", [X, NAMED], ids=["array", "arrays by name"])
def test_rows_of_different_sizes(X, options):
    estimator = net(Named if isinstance(X, dict) else Mlp, max_epochs=2, **options)
    check(estimator, X, given=PARTS)
    check(estimator, X, given=MASKS, parts=[np.flatnonzero(mask) for mask in MASKS])


def test_rows_as_lists():
    for given in (PARTS, MASKS):
        expected = retrain(net(), X, Y, seeds=SEEDS, rows=given)
        found = retrain(net(), X, Y, seeds=SEEDS, rows=[part.tolist() for part in given])
        assert all(distance(one, other) == 0 for one, other in zip(found, expected, strict=True))


def test_rows_of_one_size_each_with_its_own():
    parts = np.array([RNG.permutation(N)[:20] for _ in SEEDS])
    check(net(), given=parts)
    check(net(), seeds=[5, 5, 5], given=parts)


@pytest.mark.parametrize(("size", "groups"), [(1, [1] * 7), (4000, [3, 3, 1])])
@pytest.mark.parametrize("same_order", [False, True])
def test_groups_of_nets_do_not_matter(monkeypatch, size, groups, same_order):
    given = {"seeds": range(7), "rows": np.array([np.arange(N) % 7 != k for k in range(7)]), "same_order": same_order}
    if not same_order:
        given["rows"] = [np.flatnonzero(mask)[:36] for mask in given["rows"]]  # of one size
    expected = retrain(net(optimizer__momentum=0.9), X, Y, **given)
    monkeypatch.setattr(retraining, "GROUP_BYTES", {"cpu": size})
    monkeypatch.setattr(retraining, "Stack", counted := spy(retraining.Stack))
    found = retrain(net(optimizer__momentum=0.9), X, Y, **given)
    assert_same(found, expected, 1e-6)
    assert counted.sizes[-len(groups) :] == groups  # before them one net is tried, and one measured


def spy(kind):
    """The class, noting how many nets are stacked."""

    class Counted(kind):
        sizes = []

        def __init__(self, net, X, y, seeds, *parts):
            self.sizes.append(len(seeds))
            super().__init__(net, X, y, seeds, *parts)

    return Counted


# ---- one order of batches for all ------------------------------------------------------------------------------------


def by_hand(estimator, X, y, seed, kept):
    """Batches of all rows; the loss is the mean over those that are kept."""
    with torch.random.fork_rng():
        new = seeded_start(estimator, seed)
        new.module_.train()
        for _ in range(new.max_epochs):
            for _, positions in new.get_iterator(new.get_dataset(X, np.arange(len(X))), training=True):
                seen = positions[torch.from_numpy(kept)[positions]]
                if len(seen) == 0:
                    continue
                new.optimizer_.zero_grad()
                outputs = new.infer(torch.from_numpy(X)[seen])
                new.get_loss(outputs, torch.from_numpy(y)[seen], training=True).backward()
                new.optimizer_.step()
    return new


SAME_ORDER = {
    "SGD": (net(), Y),
    "momentum": (net(optimizer__momentum=0.9, optimizer__weight_decay=0.05), Y),
    "Adam": (net(optimizer=torch.optim.Adam, lr=0.01), Y),
    "drop_last": (net(iterator_train__drop_last=True), Y),
    "in order": (net(iterator_train__shuffle=False), Y),
    "all rows": (net(batch_size=-1), Y),
    "NLLLoss": (net(Softmax, criterion=nn.NLLLoss), Y),
    "several outputs": (net(**REGRESSOR, module__n=2), np.hstack([TARGETS, X[:, :1]])),
    "binary": (net(**BINARY), Y.astype(np.float32)),
}


@pytest.mark.parametrize(("estimator", "y"), SAME_ORDER.values(), ids=SAME_ORDER)
def test_same_order_by_hand(estimator, y):
    kept = np.ones((4, N), dtype=bool)
    kept[0, 5] = False  # one row, a fifth of the rows, one of the last batch; and all are there
    kept[1, ::5] = False
    kept[2, -1] = False
    seeds = [2, 2, 4, 2]
    found = retrain(estimator, X, y, seeds=seeds, rows=kept, same_order=True)
    for seed, mask, each in zip(seeds, kept, found, strict=True):
        assert distance(each, by_hand(estimator, X, y, seed, mask)) < 1e-5
    assert distance(found[0], found[3]) > 1e-4
    positions = retrain(estimator, X, y, seeds=seeds, rows=[np.flatnonzero(m)[::-1] for m in kept], same_order=True)
    assert all(distance(one, other) == 0 for one, other in zip(found, positions, strict=True))


def test_same_order_passes_over_batches_without_a_row_that_counts():
    kept = np.zeros((2, N), dtype=bool)
    kept[0, [7, 30]] = kept[1, [1]] = True
    found = retrain(net(), X, Y, seeds=[0, 1], rows=kept, same_order=True)
    for seed, mask, each in zip([0, 1], kept, found, strict=True):
        assert distance(each, by_hand(net(), X, Y, seed, mask)) < 1e-5


@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 7}, {"batch_size": -1}, {"iterator_train__drop_last": True}], ids=str
)
def test_same_order_of_all_rows_is_bitwise_the_training_without_it(options):
    estimator = net(optimizer__momentum=0.9, **options)
    expected = retrain(estimator, X, Y, seeds=SEEDS, batched=True)
    for given in (np.ones((3, N), dtype=bool), None):
        found = retrain(estimator, X, Y, seeds=SEEDS, rows=given, same_order=True)
        assert all(distance(one, other) == 0 for one, other in zip(found, expected, strict=True))
        assert all(np.array_equal(losses(one), losses(other)) for one, other in zip(found, expected, strict=True))


def test_same_order_makes_the_difference_that_a_row_makes_less_noisy():
    kept = np.ones((6, N), dtype=bool)
    kept[3:, 5] = False
    seeds = [0, 1, 2, 0, 1, 2]
    same, other = (retrain(net(), X, Y, seeds=seeds, rows=kept, same_order=order) for order in (True, False))
    moved = [max(distance(nets[s], nets[s + 3]) for s in range(3)) for nets in (same, other)]
    assert 0 < 3 * moved[0] < moved[1]


# ---- what is given back ----------------------------------------------------------------------------------------------


def test_results_repeat_bitwise():
    first, second = (retrain(net(), X, Y, seeds=SEEDS, rows=PARTS, batched=True) for _ in range(2))
    assert all(distance(one, other) == 0 for one, other in zip(first, second, strict=True))
    assert all(np.array_equal(losses(one), losses(other)) for one, other in zip(first, second, strict=True))
    twice = retrain(net(), X, Y, seeds=[3, 3])
    assert distance(*twice) == 0


@pytest.mark.parametrize("batched", [True, False])
def test_the_estimator_the_data_and_the_random_state_stay_as_they_are(batched):
    estimator = net()
    torch.manual_seed(12345)  # a state that no training ends with
    before = dict(vars(estimator)), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    data = X.copy(), Y.copy(), MASKS.copy()
    retrain(estimator, X, Y, seeds=SEEDS, rows=MASKS, batched=batched)
    assert vars(estimator) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    np.testing.assert_array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002
    for array, copy in zip((X, Y, MASKS), data, strict=True):
        np.testing.assert_array_equal(array, copy)
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)


def test_a_fitted_estimator_is_trained_from_the_start_and_stays_fitted():
    fitted = net().fit(X, Y)
    before = pickle.loads(pickle.dumps(fitted))
    assert_same(retrain(fitted, X, Y, seeds=SEEDS, batched=True), one_by_one(net(), X, Y))
    assert distance(fitted, before) == 0
    np.testing.assert_array_equal(losses(fitted), losses(before))


def test_auto_trains_side_by_side_where_it_can(monkeypatch):
    expected = retrain(net(), X, Y, seeds=SEEDS, batched=True)
    monkeypatch.setattr("sktda.model.many_trainings.train_clone", lambda *given, **named: pytest.fail("one by one"))
    found = retrain(net(), X, Y, seeds=SEEDS)
    assert all(distance(one, other) == 0 for one, other in zip(found, expected, strict=True))
    assert retrain(net(), X, Y, seeds=[]) == []


def both_ways(estimator, y):
    """Pairs of a net that was trained beside others and the one that was trained alone."""
    found = retrain(estimator, X, y, seeds=SEEDS, batched=True)
    return zip(found, one_by_one(estimator, X, y), strict=True)


def test_nets_predict_and_score_as_those_of_skorch():
    for found, expected in both_ways(net(max_epochs=4), Y):
        np.testing.assert_array_equal(found.classes_, [0, 1])
        np.testing.assert_array_equal(found.predict(X), expected.predict(X))
        np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-5)
        assert found.score(X, Y) == expected.score(X, Y) > 0.6
        check_is_fitted(found)
    for found, expected in both_ways(net(**REGRESSOR), TARGETS):
        assert found.score(X, TARGETS) == pytest.approx(expected.score(X, TARGETS), abs=1e-4)
    for found, expected in both_ways(net(**BINARY), Y.astype(np.float32)):
        np.testing.assert_array_equal(found.predict(X), expected.predict(X))
        np.testing.assert_array_equal(found.classes_, expected.classes_)


def test_history_has_the_mean_loss_of_every_epoch():
    found, expected = retrain(net(), X, Y, seeds=SEEDS), one_by_one(net(), X, Y)
    for one, other in zip(found, expected, strict=True):
        assert one.history[:, "epoch"] == [1, 2]
        np.testing.assert_allclose(losses(one), losses(other), atol=1e-6)
        by_batch = [
            np.average([b["train_loss"] for b in e["batches"]], weights=[b["train_batch_size"] for b in e["batches"]])
            for e in other.history
        ]
        np.testing.assert_allclose(losses(one), by_batch, atol=1e-6)
        assert isinstance(one.history[-1, "train_loss"], float)


def test_training_goes_on_as_with_skorch():
    found, expected = retrain(net(), X, Y, seeds=SEEDS), one_by_one(net(), X, Y)
    for each in (*found, *expected):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            each.partial_fit(X, Y)
    assert_same(found, expected)
    assert [len(each.history) for each in found] == [4, 4, 4]
    before = distance(found[0], expected[1]), distance(found[2], expected[2])
    found[1].fit(X, Y)  # has nothing to do with the others
    assert (distance(found[0], expected[1]), distance(found[2], expected[2])) == before


def test_nets_are_pickled_and_cloned():
    estimator = net(optimizer=torch.optim.Adam, lr=0.01)
    for each in retrain(estimator, X, Y, seeds=SEEDS):
        copy = pickle.loads(pickle.dumps(each))
        assert distance(copy, each) == 0
        np.testing.assert_array_equal(copy.predict_proba(X), each.predict_proba(X))
        copy.partial_fit(X, Y)
        assert distance(copy, each) > 1e-3
        assert clone(each).get_params(deep=False) == estimator.get_params(deep=False)


def test_attributions_of_a_net_are_those_of_one_trained_by_itself():
    def scores(each):
        return Influence(FrozenEstimator(each), curvature="exact", damping=1e-2).fit(X, Y).scores_

    found, expected = (map(scores, nets) for nets in (retrain(net(), X, Y, seeds=SEEDS), one_by_one(net(), X, Y)))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * np.abs(other).max())
        assert other.std() > 0


# ---- one by one, where side by side is not possible ------------------------------------------------------------------

SCHEDULER = LRScheduler("StepLR", step_size=1, gamma=0.5)
FALLBACKS = {
    "dropout": (net(module__dropout=0.3), "Dropout draws random numbers"),
    "dropout of attention": (net(Attentive, module__dropout=0.3), "MultiheadAttention draws random numbers"),
    "random numbers in forward": (net(Noisy), "torch.func.vmap of Noisy: .*random"),
    "batch norm": (net(BatchNormed), "BatchNorm1d keeps running statistics"),
    "GRU": (net(Recurrent), "GRU .*kernel of its own"),
    "branches": (net(Branching), "torch.func.vmap of Branching: "),
    "lazy": (net(nn.LazyLinear, module__out_features=2), "torch.func.vmap of Linear|LazyLinear changes itself"),
    "callback": (net(callbacks=[Callback()]), "callbacks"),
    "scoring": (net(callbacks=[("accuracy", EpochScoring("accuracy", on_train=True))]), "callbacks"),
    "scheduler": (net(callbacks=[SCHEDULER]), "callbacks"),
    "warm start": (net(warm_start=True), "warm_start"),
    "iterator's settings": (net(iterator_train__collate_fn=default_collate), "collate_fn"),
    "own get_loss": (net(kind=OwnLoss), "OwnLoss is not one of skorch's own nets"),
    "own criterion": (net(criterion=OwnCriterion), "OwnCriterion is not one of torch's losses"),
    "sum": (net(criterion__reduction="sum", lr=0.01), "reduction='mean'"),
    "class weights": (net(criterion__weight=torch.tensor([1.0, 3.0])), "do not count alike"),
    "weights of NLLLoss": (net(Softmax, criterion=nn.NLLLoss(torch.tensor([1.0, 3.0]))), "do not count alike"),
    "ignore_index": (net(criterion__ignore_index=1), "do not count alike"),
    "LBFGS": (net(optimizer=torch.optim.LBFGS, batch_size=-1), "LBFGS"),
    "own optimizer": (net(optimizer=OwnOptimizer), "OwnOptimizer"),
    "groups of parameters": (net(optimizer__param_groups=[("first*", {"lr": 0.01})]), "groups of parameters"),
    "pipeline": (make_pipeline(StandardScaler(), net()), "Pipeline is not one"),
    "scikit-learn": (LogisticRegression(), "LogisticRegression is not one"),
}  # fmt: skip


def numbers(estimator):
    """What was learned, as one array."""
    model = estimator[-1] if hasattr(estimator, "steps") else estimator
    if isinstance(model, LogisticRegression):
        return np.append(model.coef_, model.intercept_)
    return np.concatenate([value.double().flatten().numpy() for value in model.module_.state_dict().values()])


@pytest.mark.parametrize(("estimator", "reason"), FALLBACKS.values(), ids=FALLBACKS)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_fallbacks(estimator, reason):
    said = why_not(estimator, X, Y)
    assert re.search(reason, said)
    for demand in ({"batched": True}, {"same_order": True}, {"batched": False, "same_order": True}):
        with pytest.raises(ValueError, match="cannot run side by side: " + re.escape(said)):
            retrain(estimator, X, Y, seeds=SEEDS, **demand)
    torch.manual_seed(12345)  # a state that no training ends with
    state = torch.get_rng_state()
    found = retrain(estimator, X, Y, seeds=SEEDS, rows=PARTS)
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(found, one_by_one(estimator, X, Y, parts=PARTS), strict=True):
        np.testing.assert_array_equal(numbers(one), numbers(other))


@pytest.mark.parametrize(
    "dataset", [Dataset(X, Y), TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))], ids=["skorch", "torch"]
)
def test_a_dataset_as_X(dataset):
    reason = why_not(net(), dataset, None)
    assert reason == "X and y are not arrays"
    with pytest.raises(ValueError, match=reason):
        retrain(net(), dataset, None, seeds=SEEDS, batched=True)
    assert_same(retrain(net(), dataset, None, seeds=SEEDS), one_by_one(net(), X, Y), 1e-6)


def test_a_dataset_class_of_the_net():
    class Own(Dataset):
        pass

    assert why_not(net(dataset=Own), X, Y) == "X and y are not arrays"
    assert_same(retrain(net(dataset=Own), X, Y, seeds=SEEDS), one_by_one(net(), X, Y), 1e-6)


@in_turn("batched", ["auto", True, False])
@in_turn("given", [None, MASKS])
def test_a_training_that_hides_rows(batched, given):
    for split in (ValidSplit(5), ValidSplit(4)):
        with pytest.raises(ValueError, match=r"train_split=ValidSplit.* hides .* set train_split=None"):
            retrain(net(train_split=split), X, Y, seeds=SEEDS, rows=given, batched=batched)
    with pytest.raises(ValueError, match="train_split"):
        retrain(NeuralNetClassifier(Mlp, criterion=nn.CrossEntropyLoss), X, Y, seeds=SEEDS, batched=batched)


def test_the_size_of_every_training_is_checked():
    estimator = net(BatchNormed, batch_size=10)
    assert len(retrain(estimator, X, Y, seeds=[0, 1], rows=[range(20), range(32)])) == 2
    with pytest.raises(ValueError, match="last batch of 21 rows"):
        retrain(estimator, X, Y, seeds=[0, 1], rows=[range(20), range(21)])


def test_several_jobs_give_what_one_gives():
    estimator = net(module__dropout=0.3)
    with parallel_config("threading"):
        found = retrain(estimator, X, Y, seeds=SEEDS, rows=PARTS, n_jobs=2)
    for one, other in zip(found, one_by_one(estimator, X, Y, parts=PARTS), strict=True):
        assert distance(one, other) == 0


# ---- errors ----------------------------------------------------------------------------------------------------------

BAD_ROWS = {
    "two masks": (MASKS[:2], "rows are given for 2 trainings, and there are 3 seeds"),
    "three masks in a longer list": ([*MASKS, MASKS[0]], "rows are given for 4 trainings"),
    "short masks": (MASKS[:, :-1], r"rows\[0\] is a mask of shape \(42,\), and X has 43 rows"),
    "one short mask": ([*MASKS[:2], MASKS[2, :5]], r"rows\[2\] is a mask of shape \(5,\)"),
    "one mask for all": (np.ones(3, dtype=bool), r"rows\[0\] is a mask of shape \(\)"),
    "mask of numbers": ([[0], [1], np.arange(43) % 2], r"rows\[2\] holds 0 and 1 for each row, as a mask does"),
    "position N": ([[0], [1, N], [2]], r"rows\[1\] must be positions from 0 to 42"),
    "negative position": ([[0], [1], [-1]], r"rows\[2\] must be positions from 0 to 42"),
    "no positions": ([[0], [], [2]], r"rows\[1\] must be positions .* at least one"),
    "no rows in a mask": (MASKS & np.array([[True], [True], [False]]), r"rows\[2\] must be .* at least one"),
}


@in_turn("options", [{}, {"batched": False}, {"same_order": True}])
@in_turn(("given", "message"), BAD_ROWS.values())
def test_rows_that_do_not_match(given, message, options):
    with pytest.raises(ValueError, match=message):
        retrain(net(), X, Y, seeds=SEEDS, rows=given, **options)


def test_same_order_is_only_side_by_side():
    with pytest.raises(ValueError, match="same_order=True needs trainings side by side"):
        retrain(net(), X, Y, seeds=SEEDS, rows=MASKS, same_order=True, batched=False)


def test_arrays_by_name_of_different_lengths():
    with pytest.raises(ValueError, match="must have equally many rows"):
        retrain(net(Named), {"left": X, "right": X[:5, :2]}, Y, seeds=SEEDS)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("where", ["X", "y"])
def test_a_row_with_nan_is_named(batched, where):
    broken_X, broken_y = X.copy(), TARGETS.copy()
    {"X": broken_X, "y": broken_y}[where][17, 0] = np.nan
    with pytest.raises(ValueError, match="in epoch 1: row 17 of X or y holds NaN or infinity"):
        retrain(net(**REGRESSOR), broken_X, broken_y, seeds=SEEDS, batched=batched)
    without = [np.delete(np.arange(N), 17)] * 3
    assert len(retrain(net(**REGRESSOR), broken_X, broken_y, seeds=SEEDS, rows=without, batched=batched)) == 3


@pytest.mark.parametrize("lr", [1e30, 1e5, 100.0])
def test_a_training_that_diverges_is_told_with_its_epoch(lr):
    estimator = net(**REGRESSOR | {"lr": lr, "module": nn.Linear, "max_epochs": 12, "batch_size": -1})
    estimator.set_params(module__in_features=3, module__out_features=1)
    with torch.random.fork_rng():
        epoch = 1 + int(np.argmin(np.isfinite(losses(seeded_start(estimator, 3).partial_fit(X, TARGETS)))))
    assert epoch > 1
    message = (
        f"the training loss became NaN or infinite in epoch {epoch}: the training diverged at learning rate {lr:g}"
    )
    for batched in (True, False):
        with pytest.raises(ValueError, match=re.escape(message)):
            retrain(estimator, X, TARGETS, seeds=[3], batched=batched)


def test_one_net_that_diverges_is_enough():
    estimator = net(nn.Linear, module__in_features=3, module__out_features=1, kind=NeuralNetRegressor, batch_size=-1)
    estimator.set_params(criterion=nn.MSELoss, lr=0.3, max_epochs=20)
    wide = np.append(X, [[1e3, 0, 0]], axis=0).astype(np.float32)  # one row of another scale, which one training sees
    targets = np.append(TARGETS, [[0]], axis=0).astype(np.float32)
    for batched in (True, False):
        fine = retrain(estimator, wide, targets, seeds=[0, 1], rows=[range(N), range(N)], batched=batched)
        assert len(fine) == 2
        with pytest.raises(ValueError, match="the training diverged"):
            retrain(estimator, wide, targets, seeds=[0, 1], rows=[range(N), range(1, N + 1)], batched=batched)


@in_turn("batched", ["auto", True, False])
@in_turn("criterion", [nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss])
def test_targets_are_not_broadcast(criterion, batched):
    estimator = net(**REGRESSOR | {"criterion": criterion})
    with pytest.raises(ValueError, match=r"y is \(n,\) but the net's outputs are \(n, 1\)"):
        retrain(estimator, X, TARGETS[:, 0], seeds=SEEDS, batched=batched)
    with pytest.raises(ValueError, match="outputs"):
        retrain(estimator.set_params(module=Flat), X, TARGETS, seeds=SEEDS, batched=batched)
