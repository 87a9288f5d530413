"""A recorded training gone through again, against skorch's own training and a plain loop of torch."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import LRScheduler
from torch import nn

from sktda.engine import replay as module_under_test
from sktda.engine.per_row import PerRow
from sktda.engine.replay import Replay
from sktda.model import proxy
from sktda.model.adapters import differentiable
from sktda.model.base import flatten, unflatten
from sktda.model.given import GivenModel, GivenRows
from sktda.model.proxy import DefaultClassifier, DefaultRegressor
from sktda.model.recorder import TrajectoryRecorder
from sktda.model.trajectory import Trajectory
from tests.model.nets import Mlp, recorder_of

N, BATCH, EPOCHS = 23, 6, 3  # four batches an epoch, the last one of 5 rows
STEPS = EPOCHS * 4


def data(n=N, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    return X, (X[:, 0] + 0.3 * rng.normal(size=n) > 0).astype(np.int64)


def trained(X, y, *, kind=NeuralNetClassifier, module=Mlp, checkpoints=3, seed=0, **options):
    """A net in double precision, trained with its steps recorded."""
    settings = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.SGD,
        "lr": 0.3,
        "max_epochs": EPOCHS,
        "batch_size": BATCH,
        "train_split": None,
        "iterator_train__shuffle": True,
        "verbose": 0,
    } | options
    callbacks = [TrajectoryRecorder(checkpoints, steps=True), *settings.pop("callbacks", list)()]
    torch.manual_seed(seed)
    return kind(module, callbacks=callbacks, **settings).fit(X, y)


class Double(Mlp):
    """The small net in double precision."""

    def __init__(self, **options):
        super().__init__(**options)
        self.double()


def replay_of(net, X, y, batch_size=4):
    model = differentiable(net, n_rows=len(X))
    engine = PerRow(model, batch_size)
    return Replay.of(
        engine, model.rows(X, y), recorder_of(net).trajectory_, net, *GivenModel.of(net).seen(GivenRows(X, y))
    )


def point(replay):
    return flatten(replay.engine.model.parameters).detach().clone()


def gone_through(replay):
    """Parameters (STEPS + 1, p) where every step begins and at the end."""
    points = [point(replay) for _ in replay.forwards()]
    return torch.stack([*points, point(replay)])


def recorded(X, y, callbacks=list, **options):
    """(net with few checkpoints, parameters (STEPS + 1, p) from the same training with one for every step)."""
    net = trained(X, y, callbacks=callbacks, **options)
    trajectory = recorder_of(trained(X, y, callbacks=callbacks, **options | {"checkpoints": STEPS})).trajectory_
    assert len(trajectory) == STEPS
    return net, states_of(trajectory, differentiable(net, n_rows=len(X)).parameters)


def states_of(trajectory, names):
    """(STEPS + 1, p) parameters of a trajectory with a checkpoint after every step."""
    states = [trajectory.initial_state(), *(trajectory.state(c) for c in range(len(trajectory)))]
    return torch.stack([flatten({name: state[name] for name in names}) for state in states])


def two_groups():
    """Groups of parameters with their own rates and penalties, the last layer first."""
    return [("last.*", {"lr": 0.05, "weight_decay": 0.1}), ("*.weight", {"weight_decay": 0.02, "momentum": 0.9})]


def scheduled():
    return [LRScheduler(policy="StepLR", step_size=5, gamma=0.5, step_every="batch")]


WEIGHTS = torch.tensor([0.4, 1.7], dtype=torch.float64)
RUNS = {
    "plain": {},
    "weight decay": {"optimizer__weight_decay": 0.1},
    "momentum": {"optimizer__momentum": 0.9},
    "Nesterov, weight decay": {
        "optimizer__momentum": 0.8,
        "optimizer__nesterov": True,
        "optimizer__weight_decay": 0.05,
    },
    "dampening": {"optimizer__momentum": 0.9, "optimizer__dampening": 0.4, "optimizer__weight_decay": 0.05},
    "scheduler": {"callbacks": scheduled, "optimizer__momentum": 0.5},
    "groups": {"optimizer__param_groups": two_groups(), "optimizer__weight_decay": 0.01},
    "groups, scheduler": {"optimizer__param_groups": two_groups(), "callbacks": scheduled},
    "sum": {"criterion__reduction": "sum", "lr": 0.05, "optimizer__weight_decay": 0.1},
    "weights of classes": {"criterion__weight": WEIGHTS},
    "weights of classes, sum": {"criterion__weight": WEIGHTS, "criterion__reduction": "sum", "lr": 0.05},
    "smoothed labels, weights of classes": {"criterion__weight": WEIGHTS, "criterion__label_smoothing": 0.2},
    "in order": {"iterator_train__shuffle": False},
    "last batch dropped": {"iterator_train__drop_last": True, "max_epochs": 4},
    "whole batches": {"batch_size": -1, "max_epochs": STEPS},
    "Adam": {"optimizer": torch.optim.Adam, "lr": 0.02},
    "AdamW": {"optimizer": torch.optim.AdamW, "lr": 0.02, "optimizer__weight_decay": 0.1},
    "RMSprop": {"optimizer": torch.optim.RMSprop, "lr": 0.01},
    "maximised": {"optimizer__maximize": True, "lr": 0.02},
}


def run(name):
    """The options of a run, its callbacks not made yet."""
    return {"module": Double} | RUNS[name]


def near(got, expected, rtol=1e-12):
    assert got.shape == expected.shape
    error = (got - expected).abs().max().item()
    assert error <= rtol * expected.abs().max().item(), f"error {error:.3g}"


# ---- the recorded training -----------------------------------------------------------------------------------------


@cache
def recorded_as(name):
    """(rows, labels, net, its states) of a run; do not change them."""
    X, y = data()
    return X, y, *recorded(X, y, **run(name))


@pytest.mark.parametrize("name", RUNS)
def test_every_step_is_the_recorded_one(name, monkeypatch):
    """Backwards in segments, with all steps held or five of them by turns; then forwards, as if nothing had been."""
    whole = list(RUNS).index(name) % 2 == 0
    monkeypatch.setattr(module_under_test, "STATE_BYTES", 2**30 if whole else 5 * 8 * 32)
    X, y, net, expected = recorded_as(name)
    replay = replay_of(net, X, y)
    assert replay.stride == (512 if whole else 4)
    seen, steps = [], []
    for part in reversed(replay.segments()):
        for batch in replay.backwards(part.start, part.stop):
            steps.append(batch.step)
            seen.append(point(replay))
    assert steps == list(range(STEPS))[::-1]
    near(torch.stack(seen[::-1]), expected[:-1])
    near(gone_through(replay), expected)


def test_going_through_first_and_a_second_time():
    for name in ("plain", "Nesterov, weight decay", "groups, scheduler", "Adam"):
        X, y, net, expected = recorded_as(name)
        replay = replay_of(net, X, y)
        near(gone_through(replay), expected)
        near(gone_through(replay), expected)


def test_segments_cover_the_steps(monkeypatch):
    X, y = data()
    net = trained(X, y, module=Double)
    for stride, held in ((5, 5), (512, 512)):
        monkeypatch.setattr(module_under_test, "STRIDE", stride)
        replay = replay_of(net, X, y)
        assert replay.stride == held
        parts = replay.segments()
        assert [step for part in parts for step in range(part.start, part.stop)] == list(range(STEPS))
        assert all(part.start % replay.stride == 0 for part in parts)


def test_a_segment_can_be_gone_through_alone_and_again():
    X, y, net, expected = recorded_as("Nesterov, weight decay")
    replay = replay_of(net, X, y)
    replay.stride = 5
    for part in (slice(5, 10), slice(10, STEPS), slice(5, 10), slice(0, 5)):
        seen = [point(replay) for _ in replay.backwards(part.start, part.stop)]
        near(torch.stack(seen[::-1]), expected[part])


def test_starts_for_which_memory_ran_out_are_found_again(monkeypatch):
    X, y, net, expected = recorded_as("Nesterov, weight decay")
    replay, copied, calls = replay_of(net, X, y), module_under_test._copied, []
    replay.stride = 5

    def short(state):
        calls.append(state)
        if len(calls) == 2:  # one start is found already
            raise torch.OutOfMemoryError("out of memory (of the test)")
        return copied(state)

    monkeypatch.setattr(module_under_test, "_copied", short)
    with pytest.raises(torch.OutOfMemoryError):
        list(replay.backwards(10, STEPS))
    near(torch.stack([point(replay) for _ in replay.backwards(10, STEPS)][::-1]), expected[10:STEPS])


def test_batches_hold_the_rows_of_the_steps():
    X, y = data()
    net = trained(X, y, module=Double)
    trajectory = recorder_of(net).trajectory_
    replay = replay_of(net, X, y)
    for step, batch in enumerate(replay.forwards()):
        inputs, targets, _ = batch.rows.block(slice(0, len(batch.rows)), torch.device("cpu"))
        assert batch.step == step
        assert np.array_equal(batch.positions, trajectory.step_rows(step))
        assert np.array_equal(inputs.numpy(), X[batch.positions])
        assert np.array_equal(targets.numpy(), y[batch.positions])
        assert batch.size == (5 if step % 4 == 3 else 6)


def test_rows_in_another_order_and_equal_ones():
    X, y = data()
    X[3], y[3] = X[9], y[9]
    X[11], y[11] = X[9], y[9]
    net, expected = recorded(X, y, **run("momentum"))
    order = np.random.default_rng(4).permutation(N)
    replay = replay_of(net, X[order], y[order])
    near(gone_through(replay), expected)
    trajectory = recorder_of(net).trajectory_
    counts = np.zeros(N, dtype=int)
    for batch in replay.forwards():
        assert np.array_equal(X[order][batch.positions], X[trajectory.step_rows(batch.step)])
        counts[batch.positions] += 1
    assert (counts == EPOCHS).all()  # every one of the equal rows has its own place


def test_regression_with_a_mean_over_outputs_too():
    X, _ = data()
    y = np.random.default_rng(1).normal(size=(N, 2))
    options = {"kind": NeuralNetRegressor, "module": Double, "criterion": nn.MSELoss, "lr": 0.05}
    net, expected = recorded(X, y, **options)
    near(gone_through(replay_of(net, X, y)), expected)
    net, expected = recorded(X, y, **options | {"criterion__reduction": "sum", "lr": 0.005})
    near(gone_through(replay_of(net, X, y)), expected)


@pytest.mark.parametrize(("kind", "optimizer"), [(DefaultClassifier, "sgd"), (DefaultRegressor, "adamw")])
def test_a_default_net_with_weights_of_rows(kind, optimizer, monkeypatch):
    monkeypatch.setattr(proxy, "STEPS", 40)
    X, y = data(40)
    weight = np.random.default_rng(3).uniform(0.2, 2, size=40)
    found = []
    for checkpoints in (3, 40):
        recorder = TrajectoryRecorder(checkpoints, steps=True)
        model = kind([recorder], random_state=0, optimizer=optimizer, hidden=False).fit(X, y, weight)
        found.append((model, recorder_of(model.net_).trajectory_))
    (model, trajectory), (_, whole) = found
    different = differentiable(model, 40)
    engine = PerRow(different)
    given = GivenModel.of(model)
    net, inputs, targets = given.net, *given.seen(GivenRows(X, y, weight))
    replay = Replay.of(engine, different.rows(X, y, weight), trajectory, net, inputs, targets)
    assert len(whole) == 40
    near(gone_through(replay), states_of(whole, different.parameters), 1e-5)


def test_a_frozen_layer_stays():
    class Frozen(Double):
        def __init__(self):
            super().__init__()
            self.first.requires_grad_(False)

    X, y = data()
    net, expected = recorded(X, y, module=Frozen, optimizer__momentum=0.9, optimizer__weight_decay=0.1)
    replay = replay_of(net, X, y)
    near(gone_through(replay), expected)
    assert torch.equal(replay.engine.model.module.first.weight, net.module_.first.weight)


def test_single_precision():
    X, y = data()
    X = X.astype(np.float32)
    net, expected = recorded(X, y, module=Mlp, optimizer__momentum=0.9)
    near(gone_through(replay_of(net, X, y)), expected, 1e-5)


def test_checkpoints_are_taken_as_recorded():
    X, y = data()
    net = trained(X, y, **run("momentum"))
    trajectory = recorder_of(net).trajectory_
    changed = trajectory.state(1)["first.weight"]
    changed += 1e-6 * torch.ones_like(changed)  # as another machine's rounding would
    replay = replay_of(net, X, y)
    points = [point(replay) for _ in replay.forwards()]
    assert torch.equal(points[trajectory.steps[1]][:15].reshape(5, 3), changed)


@pytest.mark.parametrize("size", [1, 2, 100, "auto"])
def test_rows_of_a_step_at_a_time_do_not_matter(size):
    X, y, net, expected = recorded_as("weights of classes")
    near(gone_through(replay_of(net, X, y, size)), expected)


def test_finish_puts_the_final_parameters_back():
    X, y = data()
    net = trained(X, y, module=Double)
    replay = replay_of(net, X, y)
    before = copy.deepcopy(replay.engine.model.module.state_dict())
    for _ in replay.forwards():
        if _.step == 5:
            break
    replay.finish()
    after = replay.engine.model.module.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(value.grad is None for value in replay.engine.model.module.parameters())


def test_the_net_and_its_trajectory_are_left_alone():
    X, y = data()
    net = trained(X, y, module=Double, optimizer__momentum=0.9)
    trajectory = recorder_of(net).trajectory_
    before = copy.deepcopy((net.module_.state_dict(), trajectory.initial_state(), trajectory.state(0)))
    states = torch.get_rng_state()
    replay = replay_of(net, X, y)
    gone_through(replay)
    list(replay.backwards(0, STEPS))
    after = net.module_.state_dict(), trajectory.initial_state(), trajectory.state(0)
    for own, other in zip(before, after, strict=True):
        assert all(torch.equal(own[key], other[key]) for key in own)
    assert torch.equal(torch.get_rng_state(), states)


# ---- without some rows ---------------------------------------------------------------------------------------------


def plain_loop(net, X, y, without, weights=None):
    """Parameters where every step begins, and the last ones, of torch's own SGD with the recorded batches."""
    trajectory = recorder_of(net).trajectory_
    module = copy.deepcopy(net.module_)
    module.load_state_dict(trajectory.initial_state())
    own = dict(module.named_parameters())
    groups = [
        {
            "params": [own[name] for name in group["parameters"]],
            **{key: group[key] for key in ("momentum", "dampening", "nesterov", "weight_decay")},
        }
        for group in trajectory.groups
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    criterion = copy.deepcopy(net.criterion_)
    total = criterion.reduction == "sum"
    weight = criterion.weight
    criterion.reduction = "none"
    points = []
    for step in range(trajectory.n_steps):
        points.append(flatten(own).detach().clone())
        rows = trajectory.step_rows(step)
        values = criterion(module(torch.from_numpy(X[rows])), torch.from_numpy(y[rows]))
        size = 1.0 if total else len(rows) if weight is None else weight[torch.from_numpy(y[rows])].sum()
        optimizer.zero_grad()
        (values * torch.from_numpy(~without[rows]) / size).sum().backward()
        for group, rate in zip(optimizer.param_groups, trajectory.group_step_rates[step], strict=True):
            group["lr"] = float(rate)
        optimizer.step()
    return torch.stack([*points, flatten(own).detach()])


@pytest.mark.parametrize(
    "name", ["plain", "Nesterov, weight decay", "dampening", "groups, scheduler", "sum", "weights of classes"]
)
def test_without_rows_is_training_with_their_weights_at_zero(name):
    X, y = data()
    net = trained(X, y, **run(name))
    replay = replay_of(net, X, y)
    trajectory = recorder_of(net).trajectory_
    whole_batch = np.isin(np.arange(N), trajectory.step_rows(2))  # one step then has no row at all
    nothing = np.zeros(N, dtype=bool)
    for without in (np.arange(N) < 4, whole_batch, *([nothing] if name == "plain" else [])):
        points = torch.stack([*(point(replay) for _ in replay.forwards(without)), point(replay)])
        near(points, plain_loop(net, X, y, without))
    assert not torch.allclose(plain_loop(net, X, y, nothing), plain_loop(net, X, y, whole_batch))


def test_without_rows_in_another_order():
    X, y = data()
    net = trained(X, y, module=Double)
    order = np.random.default_rng(4).permutation(N)
    replay = replay_of(net, X[order], y[order])
    without = np.arange(N) < 4
    list(replay.forwards(without[order]))
    near(point(replay), plain_loop(net, X, y, without)[-1])


# ---- quantities of a batch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "sum", "weights of classes", "weight decay"])
def test_products_and_gradients_are_of_the_batchs_loss(name):
    X, y = data()
    net = trained(X, y, **run(name))
    replay = replay_of(net, X, y)
    model = replay.engine.model
    criterion = net.criterion_
    generator = torch.Generator().manual_seed(0)
    own = list(model.parameters.values())
    along = torch.randn(2, sum(value.numel() for value in own), generator=generator, dtype=torch.float64)
    for batch in replay.forwards():
        if batch.step not in (0, 3):
            continue
        rows = batch.positions
        loss = criterion(model.module(torch.from_numpy(X[rows])), torch.from_numpy(y[rows]))
        slope = torch.cat([g.flatten() for g in torch.autograd.grad(loss, own, create_graph=True)])
        expected = [torch.cat([g.flatten() for g in torch.autograd.grad(slope @ each, own, retain_graph=True)])
                    for each in along]  # fmt: skip
        dots, products = replay.products(batch, along)
        near(products, torch.stack(expected))
        near(dots.sum(0), (along @ slope).detach())
        everything = replay.gradient(batch, np.ones(N, dtype=bool))
        near(flatten(everything), slope.detach())
        for k in (0, len(rows) - 1):
            alone = np.arange(N) == rows[k]
            near(along @ flatten(replay.gradient(batch, alone)), dots[k])
        nothing = replay.gradient(batch, ~np.isin(np.arange(N), rows))
        assert not flatten(nothing).any()


def test_steps_are_linear_in_groups_of_their_own():
    X, y = data()
    net = trained(X, y, **run("groups, scheduler"), optimizer__dampening=0.25)
    replay = replay_of(net, X, y)
    first, later = (replay.linear(batch) for batch in replay.forwards() if batch.step in {0, 6})
    places = unflatten(torch.arange(replay.steps.size), replay.shapes)
    assert set(first) == {"parameters", "momentum_buffer"}
    # (name, change of the parameters by the gradient, of the buffer by itself, by the gradient at once and later)
    for name, rate, momentum, decay in (
        ("last.weight", 0.05, 0.0, 0.1),
        ("first.weight", 0.3, 0.9, 0.02),
        ("first.bias", 0.3, 0.0, 0.0),
    ):
        own = places[name].flatten()
        for found, scale, share in ((first, 1.0, 1.0), (later, 0.5, 0.75)):
            slope = -rate * scale * (share if momentum else 1.0)
            near(found["parameters"]["gradient"][own], torch.full((len(own),), slope, dtype=torch.float64))
            near(found["parameters"]["parameters"][own], torch.full((len(own),), 1 + decay * slope).double(), 1e-6)
            buffer = [found["momentum_buffer"][key][own].unique() for key in ("gradient", "momentum_buffer")]
            assert buffer == [share if momentum else 0.0, momentum or 1.0]  # what has none stays as it is


# ---- what cannot be gone through again -----------------------------------------------------------------------------


class Normed(nn.Module):
    """With batch normalisation, whose training differs from its evaluation."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)
        self.double()

    def forward(self, X):
        return self.last(torch.relu(self.norm(self.first(X))))


DRIFTING = {
    "dropout": {"module": Double, "module__dropout": 0.5},
    "batch normalisation": {"module": Normed},
}


@pytest.mark.parametrize("name", DRIFTING)
def test_a_training_that_cannot_be_gone_through_again(name):
    X, y = data()
    replay = replay_of(trained(X, y, **DRIFTING[name]), X, y)
    with pytest.raises(ValueError, match=r"after step 4 the distance is .*%.*n_checkpoints=<number of steps>"):
        list(replay.forwards())
    with pytest.raises(ValueError, match="do not lead to the recorded parameters"):
        list(replay.backwards(0, STEPS))
    # with a checkpoint after every step nothing is computed again
    net = trained(X, y, checkpoints=STEPS, **DRIFTING[name])
    replay = replay_of(net, X, y)
    expected = states_of(recorder_of(net).trajectory_, replay.engine.model.parameters)
    assert torch.equal(gone_through(replay), expected)
    seen = [point(replay) for _ in replay.backwards(0, STEPS)]
    assert torch.equal(torch.stack(seen[::-1]), expected[:-1])


def test_missing_and_foreign_rows():
    X, y = data()
    net = trained(X, y, module=Double)
    with pytest.raises(ValueError, match="3 of the 23 rows that were trained on are missing in X and y"):
        replay_of(net, X[3:], y[3:])
    with pytest.raises(ValueError, match="1 of 24 rows are not among the 23 rows"):
        replay_of(net, np.vstack([X, X[:1] + 1]), np.append(y, 0))
    with pytest.raises(ValueError, match="1 of 23 rows are not among"):
        replay_of(net, X, np.append(y[:-1], 1 - y[-1]))


def test_a_row_given_twice_keeps_one_place():
    X, y = data()
    net, expected = recorded(X, y, **run("plain"))
    replay = replay_of(net, np.vstack([X, X[:2]]), np.append(y, y[:2]))
    near(gone_through(replay), expected)


def test_steps_that_were_not_recorded():
    X, y = data()
    net = trained(X, y, module=Double)
    engine = PerRow(differentiable(net))
    bare = NeuralNetClassifier(
        Double,
        criterion=nn.CrossEntropyLoss,
        train_split=None,
        max_epochs=1,
        verbose=0,
        callbacks=[TrajectoryRecorder()],
    ).fit(X, y)
    with pytest.raises(ValueError, match=r"TrajectoryRecorder\(steps=True\)"):
        Replay.of(engine, engine.model.rows(X, y), recorder_of(bare).trajectory_, bare, X, y)


def test_rows_that_cannot_be_recognised():
    X, y = data()
    net = trained(X, y, module=Double)
    trajectory = recorder_of(net).trajectory_
    unknown = Trajectory(**{**vars(trajectory), "fingerprints": None})
    model = differentiable(net)
    with pytest.raises(ValueError, match="its rows differ from read to read"):
        Replay.of(PerRow(model), model.rows(X, y), unknown, net, X, y)


def test_scales_that_the_record_does_not_tell():
    X, y = data()
    net = trained(X, y, module=Double)
    trajectory, model = recorder_of(net).trajectory_, differentiable(net)
    half, one = np.full((STEPS, 1), 0.5), np.ones((STEPS, 1))
    for largest, scales in ((0.5, None), (0.5, one), (0.5, np.where(np.arange(STEPS) == 3, np.nan, half.T).T)):
        found = Trajectory(**vars(trajectory) | {"rescalings": np.array([largest]), "group_step_scales": scales})
        with pytest.raises(ValueError, match="gradients were scaled before a step"):
            Replay.of(PerRow(model), model.rows(X, y), found, net, X, y)
