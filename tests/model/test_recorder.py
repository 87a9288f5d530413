"""TrajectoryRecorder: it changes nothing, and records every step, rate and row as they were."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import IterableDataset, Subset

from sktda.model.recorder import TrajectoryRecorder, find_trajectory
from sktda.model.sampling import Tap
from tests.in_turn import in_turn
from tests.model.nets import Mlp, Tied, make_net, record, recorder_of, rows

MODES = {
    "memory": {},
    "steps": {"steps": True, "optimizer_state": True},
    "every": {"every": 2},
}


class StopAfter(Callback):
    """Interrupts training, as a user does, once so many training batches are through."""

    def __init__(self, batches):
        self.batches = batches

    def initialize(self):
        self.seen_ = 0
        return self

    def on_batch_end(self, net, training=False, **kwargs):
        self.seen_ += training
        if training and self.seen_ == self.batches:
            raise KeyboardInterrupt


class Rates(Callback):
    """What the optimiser was given at each step, by other means than the recorder's."""

    def initialize(self):
        self.rates_ = []
        return self

    def on_grad_computed(self, net, **kwargs):
        self.rates_.append(net.optimizer_.param_groups[0]["lr"])


class Augmented(torch.utils.data.Dataset):
    """Rows with noise that is drawn on every read."""

    def __init__(self, X, y):
        self.X_, self.y_ = X, y

    def __len__(self):
        return len(self.X_)

    def __getitem__(self, i):
        return self.X_[i] + 0.1 * torch.randn(3).numpy() * random.random() * np.random.rand(), self.y_[i]  # noqa: NPY002


class Stream(IterableDataset):
    """Rows that come without positions."""

    def __iter__(self):
        yield from zip(*rows(), strict=True)


def drawing_loader(dataset, **options):
    """Draws a seed when it is made, as samplers of one's own may."""
    generator = torch.Generator().manual_seed(int(torch.randint(1000, ())))
    return torch.utils.data.DataLoader(dataset, generator=generator, **options)


def values(net):
    return {name: value.clone() for name, value in net.module_.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("data", ["arrays", "random dataset", "split", "drawing loader"])
def test_recording_changes_neither_the_parameters_nor_the_random_stream_nor_the_history(mode, data):
    X, y = rows()
    options = {"module__dropout": 0.3, "optimizer__momentum": 0.9}
    if data == "drawing loader":
        options["iterator_train"] = drawing_loader
    if data == "split":
        options["train_split"] = ValidSplit(0.25)  # draws from NumPy's global state

    def train(recorder):
        net = make_net(recorder, **options)
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)
        net.fit(*((X, y) if data != "random dataset" else (Augmented(X, y), None)))
        return net, (torch.rand(3), np.random.rand(3), random.random())  # noqa: NPY002

    plain, after = train(None)
    recorded, after_recorded = train(TrajectoryRecorder(**MODES[mode]))
    assert equal(values(plain), values(recorded))
    assert torch.equal(after[0], after_recorded[0])
    assert np.array_equal(after[1], after_recorded[1])
    assert after[2] == after_recorded[2]
    assert plain.history[:, "train_loss"] == recorded.history[:, "train_loss"]
    assert [set(row) for row in plain.history] == [set(row) for row in recorded.history]
    assert not isinstance(recorded.iterator_train, Tap)


@in_turn(
    ("options", "expected"),
    [
        ({"n_checkpoints": 6}, [4, 8, 12, 16, 20, 24]),
        ({"n_checkpoints": 5}, [5, 10, 14, 19, 24]),
        ({"n_checkpoints": 1}, [24]),
        ({"n_checkpoints": 100}, list(range(1, 25))),
        ({"every": 4}, [16, 24]),
        ({"every": 3, "n_checkpoints": 1}, [12, 24]),
    ],
)
def test_checkpoints_are_where_they_should_be(options, expected):
    net, trajectory = record(*rows(), **options)
    assert trajectory.steps.tolist() == expected
    assert len(trajectory) == len(expected)
    assert trajectory.n_steps == 24
    assert equal(trajectory.state(-1), values(net))
    assert not equal(trajectory.state(0), values(net)) or len(expected) == 1
    np.testing.assert_allclose(trajectory.rate_sums, 0.1 * np.diff([0, *expected]))


@pytest.mark.parametrize("schedule", ["step", "cosine", "none"])
def test_rates_are_those_the_optimiser_used(schedule):
    schedulers = {
        "step": [LRScheduler("StepLR", step_size=2, gamma=0.1)],
        "cosine": [LRScheduler("CosineAnnealingLR", T_max=24, step_every="batch")],
        "none": [],
    }
    net, trajectory = record(*rows(), [*schedulers[schedule], Rates()], n_checkpoints=5, steps=True)
    used = np.array(dict(net.callbacks_)["Rates"].rates_)
    assert len(used) == 24
    np.testing.assert_array_equal(trajectory.step_learning_rates, used)
    np.testing.assert_array_equal(trajectory.learning_rates, used[trajectory.steps - 1])
    np.testing.assert_allclose(trajectory.rate_sums, np.add.reduceat(used, [0, *trajectory.steps[:-1]]))
    assert trajectory.learning_rates[-1] > 0  # after the scheduler has moved on, a cosine would be 0


def test_momentum_multiplies_the_rate_sums_and_a_cycled_one_is_followed():
    options = {"optimizer__momentum": 0.9, "optimizer__nesterov": True}
    _, trajectory = record(*rows(), net_options=options)
    assert trajectory.momentum == 0.9
    assert trajectory.nesterov
    np.testing.assert_allclose(trajectory.effective_rate_sums, trajectory.rate_sums / (1 - 0.9))
    cycle = LRScheduler(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=25, step_every="batch")
    _, cycled = record(*rows(), [cycle], n_checkpoints=24, net_options={"optimizer__momentum": 0.9})
    np.testing.assert_allclose(cycled.effective_rate_sums, cycled.rate_sums / (1 - cycled.group_momenta[:, 0]))
    with pytest.raises(ValueError, match=r"momentum was not one number: it went from 0\.85"):
        cycled.momentum  # noqa: B018


def test_parameter_groups_keep_their_own_rates_and_decay():
    options = {"optimizer__param_groups": [("first.*", {"lr": 0.5, "weight_decay": 0.25})]}
    _, trajectory = record(*rows(), net_options=options)
    group = trajectory.parameter_groups
    assert trajectory.group_learning_rates[0, group["first.weight"]] == 0.5
    assert trajectory.group_learning_rates[0, group["last.weight"]] == 0.1
    assert trajectory.weight_decay == {"first.weight": 0.25, "first.bias": 0.25, "last.weight": 0, "last.bias": 0}


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW"])
def test_adam_is_described_and_its_moments_are_kept(optimizer):
    options = {"optimizer": getattr(torch.optim, optimizer), "optimizer__weight_decay": 0.02}
    net, trajectory = record(*rows(), optimizer_state=True, net_options=options)
    assert (trajectory.optimizer, trajectory.betas, trajectory.eps) == (optimizer, (0.9, 0.999), 1e-8)
    assert trajectory.decoupled_weight_decay is (optimizer == "AdamW")
    assert trajectory.weight_decay["last.bias"] == 0.02
    np.testing.assert_array_equal(trajectory.effective_rate_sums, trajectory.rate_sums)
    state = trajectory.optimizer_state(-1)
    for name, parameter in net.module_.named_parameters():
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(state[name][key], net.optimizer_.state[parameter][key])
    assert not torch.equal(trajectory.optimizer_state(0)["last.bias"]["exp_avg"], state["last.bias"]["exp_avg"])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one core
@pytest.mark.parametrize(
    ("data", "workers"), [("array", 0), ("split", 0), ("split", 2), ("subset", 0), ("drop_last", 0)]
)
def test_plain_sgd_replayed_over_the_recorded_rows_gives_the_checkpoints(data, workers):
    X, y = rows(43)
    options = {"iterator_train__num_workers": workers, "optimizer__weight_decay": 0.01, "max_epochs": 3}
    if data == "split":
        options["train_split"] = ValidSplit(4)
    if data == "drop_last":
        options["iterator_train__drop_last"] = True
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.5)
    if data == "subset":
        inner = Subset(Dataset(X, y), np.arange(42, 1, -1))
        net = make_net(TrajectoryRecorder(steps=True), callbacks=[schedule], **options)
        net.fit(inner, None)
        trajectory, (X, y) = recorder_of(net).trajectory_, (X[42:1:-1], y[42:1:-1])
    else:
        net, trajectory = record(X, y, [schedule], steps=True, net_options=options)
    module = Mlp()
    module.load_state_dict(trajectory.initial_state())
    seen = []
    for k in range(trajectory.n_steps):
        batch = trajectory.step_rows(k)
        seen.extend(batch)
        assert np.array_equal(batch, trajectory.rows[trajectory.step_positions(k)])
        module.zero_grad()
        nn.functional.cross_entropy(module(torch.tensor(X[batch])), torch.tensor(y[batch])).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= trajectory.step_learning_rates[k] * (parameter.grad + 0.01 * parameter)
        if k + 1 in trajectory.steps:
            c = trajectory.steps.tolist().index(k + 1)
            assert trajectory.batch_sizes[c] == len(batch)
            for name, value in trajectory.state(c).items():
                torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-6, atol=1e-6)
    if data == "drop_last":
        assert len(seen) == 3 * 40
    else:
        assert sorted(seen) == sorted([*trajectory.rows] * 3)


def test_train_split_rows_are_positions_in_the_given_rows():
    X, y = rows(50)
    net, trajectory = record(X, y, net_options={"train_split": ValidSplit(5, stratified=True)})
    trained, _ = net.get_split_datasets(X, y)
    np.testing.assert_array_equal(trajectory.rows, trained.indices)
    assert (len(trajectory.rows), trajectory.n_given) == (40, 50)
    _, whole = record(X, y, net_options={"train_split": predefined_split(Dataset(X, y))})
    np.testing.assert_array_equal(whole.rows, np.arange(50))


def test_training_that_stops_early_ends_with_its_final_parameters():
    X, y = rows()
    stop = EarlyStopping("train_loss", patience=1, threshold=10, threshold_mode="abs")
    net, trajectory = record(X, y, [stop], net_options={"max_epochs": 50}, n_checkpoints=10)
    epochs = len(net.history)
    assert epochs < 10
    assert trajectory.n_steps == 4 * epochs
    assert equal(trajectory.state(-1), values(net))
    net, trajectory = record(X, y, [StopAfter(10)], steps=True)
    assert trajectory.steps.tolist() == [4, 8, 10]
    np.testing.assert_allclose(trajectory.rate_sums, [0.4, 0.4, 0.2])
    assert len(trajectory.step_learning_rates) == 10
    assert equal(trajectory.state(-1), values(net))


class StopAtOnce(Callback):
    """Interrupts training before its first step, the first time."""

    def on_epoch_begin(self, net, **kwargs):
        if not hasattr(self, "stopped_"):
            self.stopped_ = True
            raise KeyboardInterrupt


def test_training_interrupted_before_its_first_step_has_no_trajectory_and_can_go_on():
    X, y = rows()
    net = make_net(TrajectoryRecorder(steps=True), callbacks=[StopAtOnce()]).fit(X, y)
    assert find_trajectory(net) is None
    net.partial_fit(X, y)
    assert find_trajectory(net).n_steps == 24


def test_partial_fit_continues_and_fit_begins_anew():
    X, y = rows()
    net, first = record(X, y, n_checkpoints=2, steps=True, net_options={"max_epochs": 2})
    net.partial_fit(X, y)
    longer = recorder_of(net).trajectory_
    assert first.steps.tolist() == [4, 8]
    assert longer.steps.tolist() == [4, 8, 12, 16]
    assert equal(first.state(-1), longer.state(1))
    assert equal(longer.state(-1), values(net))
    assert len(longer.step_learning_rates) == 16
    net.partial_fit(X, y, epochs=4)  # more than planned: the spacing goes on
    assert recorder_of(net).trajectory_.steps.tolist() == [4, 8, 12, 16, 20, 24, 28, 32]
    net.fit(X, y)
    fresh = recorder_of(net).trajectory_
    assert fresh.steps.tolist() == [4, 8]
    assert fresh.identity != longer.identity


def test_training_cannot_be_continued_on_other_rows_or_from_other_parameters():
    X, y = rows()
    net, _ = record(X, y)
    with pytest.raises(ValueError, match="continued with other rows than before"):
        net.partial_fit(X, 1 - y)
    net, _ = record(X, y)
    torch.nn.init.zeros_(net.module_.last.weight)
    with pytest.raises(ValueError, match=r"'last\.weight' differs"):
        net.partial_fit(X, y)


def test_a_net_with_a_recorder_can_be_cloned_copied_and_pickled():
    X, y = rows()
    net, trajectory = record(X, y, steps=True)
    assert not hasattr(recorder_of(clone(net).initialize()), "trajectory_")
    assert clone(recorder_of(net)).get_params() == recorder_of(net).get_params()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        found = find_trajectory(other)
        assert found is not trajectory
        assert all(equal(found.state(c), trajectory.state(c)) for c in range(len(found)))
        other.partial_fit(X, y)
        assert recorder_of(other).trajectory_.n_steps == 48
    assert recorder_of(net).trajectory_.n_steps == 24


class CopyAt(Callback):
    """Pickles the net while it trains."""

    def on_batch_end(self, net, training=False, **kwargs):
        if training and len(net.history) == 3 and len(net.history[-1]["batches"]) == 2:
            self.copy_ = pickle.dumps(net)


def test_a_copy_made_in_the_middle_of_training_can_go_on():
    X, y = rows()
    net, _ = record(X, y, [CopyAt()], steps=True)
    other = pickle.loads(dict(net.callbacks_)["CopyAt"].copy_)
    dict(other.callbacks_)["CopyAt"].copy_ = None
    other.partial_fit(X, y, epochs=1)
    trajectory = recorder_of(other).trajectory_
    assert trajectory.n_steps == 10 + 4
    np.testing.assert_allclose(trajectory.rate_sums.sum(), 1.4)
    assert equal(trajectory.state(-1), values(other))


def test_find_trajectory_and_the_ways_in_which_it_is_not_the_nets():
    X, y = rows()
    assert find_trajectory(make_net().fit(X, y)) is None
    assert find_trajectory(make_net(TrajectoryRecorder())) is None
    net, trajectory = record(X, y)
    assert find_trajectory(net) is trajectory
    shared = TrajectoryRecorder()
    one, other = make_net(shared).fit(X, y), make_net(shared, seed=1).fit(X, y)
    assert find_trajectory(other) is shared.trajectory_
    with pytest.raises(ValueError, match="one TrajectoryRecorder shared by two nets"):
        find_trajectory(one)
    diverged, _ = record(X * 1e4, y, net_options={"lr": 1e38})
    with pytest.raises(
        ValueError, match=r"diverged: '\S+' holds NaN or infinity after step 24, at learning rate 1e\+38"
    ):
        find_trajectory(diverged)


def test_a_compiled_module_is_recorded_under_its_own_names():
    X, y = rows()
    compiled = torch.compile(Mlp(), backend="eager")
    net, trajectory = record(X, y, net_options={"module": compiled, "max_epochs": 1})
    assert list(trajectory.state(0)) == list(Mlp().state_dict())
    assert list(trajectory.weight_decay) == [name for name, _ in Mlp().named_parameters()]
    trajectory.check_module(Mlp())
    assert find_trajectory(net) is trajectory


def test_tied_parameters_and_lbfgs():
    X, y = rows()
    net, trajectory = record(X, y, net_options={"module": Tied})
    state = trajectory.state(0)
    assert state["first.weight"] is state["second.weight"]
    assert list(trajectory.weight_decay) == ["first.weight", "first.bias", "second.bias"]
    net, trajectory = record(X, y, net_options={"optimizer": torch.optim.LBFGS, "max_epochs": 1}, steps=True)
    assert (trajectory.optimizer, trajectory.n_steps) == ("LBFGS", 4)
    assert equal(trajectory.state(-1), values(net))
    with pytest.raises(ValueError, match="optimizer_state=True keeps one tensor"):
        record(X, y, net_options={"optimizer": torch.optim.LBFGS}, optimizer_state=True)


def test_an_iterable_dataset_is_recorded_without_rows_and_by_epochs_only():
    options = {"iterator_train__shuffle": False}
    net = make_net(TrajectoryRecorder(every=3), **options).fit(Stream(), None)
    trajectory = find_trajectory(net)
    assert trajectory.steps.tolist() == [12, 24]
    assert trajectory.rows is None
    with pytest.raises(ValueError, match=r"use TrajectoryRecorder\(every=1\)"):
        make_net(TrajectoryRecorder(), **options).fit(Stream(), None)
    net = make_net(TrajectoryRecorder(steps=True), **options)
    with pytest.raises(ValueError, match="steps=True records which rows each batch holds, which Stream does not tell"):
        net.fit(Stream(), None)
    assert not isinstance(clone(net).iterator_train, Tap)
    assert not isinstance(pickle.loads(pickle.dumps(net.iterator_train)), Tap)
    X, y = rows()
    net.iterator_train__shuffle = True
    net.fit(X, y)  # the failed fit has left nothing behind
    assert find_trajectory(net).n_steps == 24
    assert not isinstance(net.iterator_train, Tap)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_checkpoints": 0}, "n_checkpoints=0 must be a whole number of at least 1"),
        ({"n_checkpoints": 2.5}, r"n_checkpoints=2\.5"),
        ({"n_checkpoints": None}, "n_checkpoints=None"),
        ({"every": 0}, "every=0"),
        ({"every": True}, "every=True"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        record(*rows(), **options)


class TwoModules(type(make_net())):
    """A net of two modules and two optimisers, as for adversarial training."""

    def initialize_module(self):
        super().initialize_module()
        self.critic_ = Mlp()
        return self


class Accumulating(type(make_net())):
    """Steps after every second batch."""

    def train_step(self, batch, **fit_params):
        step = self.train_step_single(batch, **fit_params)
        if len(self.history[-1]["batches"]) % 2 == 0:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
        return step


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (TwoModules, "the net has the modules module, critic"),
        (Accumulating, "a batch ended after 0 optimiser steps"),
    ],
)
def test_nets_that_train_otherwise_are_refused(kind, message):
    recorder = TrajectoryRecorder(steps=True)
    net = kind(Mlp, criterion=nn.CrossEntropyLoss, callbacks=[recorder], train_split=None, verbose=0)
    with pytest.raises(ValueError, match=message):
        net.fit(*rows(), epochs=1)
    assert not isinstance(net.iterator_train, Tap)  # the net is as it was, although training failed half way


def test_a_split_whose_rows_cannot_be_found_and_a_trimmed_net_are_refused():
    X, y = rows()
    net = make_net(TrajectoryRecorder(), train_split=lambda data, y: (Dataset(X[:30], y[:30]), None))
    with pytest.raises(ValueError, match=r"fit got 40 rows, but .* made a dataset of 30 rows that is no Subset"):
        net.fit(X, y)
    net = make_net(TrajectoryRecorder()).fit(X, y)
    net.optimizer_ = None
    with pytest.raises(ValueError, match=r"net\.optimizer_ is NoneType"):
        net.notify("on_train_begin", X=X, y=y)
    net = make_net(TrajectoryRecorder()).initialize()
    with pytest.raises(ValueError, match="call fit or partial_fit, not fit_loop"):
        net.fit_loop(X, y)
