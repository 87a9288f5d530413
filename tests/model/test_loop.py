"""record_run: the record of a plain loop is that of the same training by skorch, whatever the loop does."""

import copy
import io

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import LRScheduler
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.utils.data import DataLoader, IterableDataset, Subset

from sktda import TorchModel, record_run
from sktda.attribution import DiffIn, InnerProduct, MoSo, SGDInfluence, Source, TracIn
from sktda.model.trajectory import Trajectory
from tests.in_turn import in_turn
from tests.model.loops import PLAN, by_plain_loop, by_skorch, data, loader_of, make, plain, sgd
from tests.model.nets import Mlp, recorder_of, rows

CE = nn.CrossEntropyLoss()
METHODS = [TracIn, InnerProduct, MoSo, DiffIn, Source, SGDInfluence]


def adamw(module):
    return torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.01)


def step(module, optimizer, X, y):
    optimizer.zero_grad()
    cross_entropy(module(X), y).backward()
    optimizer.step()


def each_batch(function):
    """A loop of 6 epochs."""

    def train(module, optimizer, loader, run):
        for _ in range(6):
            for X, y in loader:
                function(module, optimizer, X, y)

    return train


def accumulating(module, optimizer, loader, run):
    for _ in range(6):
        for i, (X, y) in enumerate(loader):
            (cross_entropy(module(X), y) / 2).backward()
            if i % 2:
                optimizer.step()
                optimizer.zero_grad()


def adding(module, optimizer, loader, run):
    for _ in range(6):
        for i, (X, y) in enumerate(loader):
            cross_entropy(module(X), y).backward()
            if i % 2:
                optimizer.step()
                optimizer.zero_grad()


def clipped(module, optimizer, X, y):
    optimizer.zero_grad()
    cross_entropy(module(X), y).backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1e-3)
    optimizer.step()


def in_bf16(module, optimizer, X, y):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(module(X), y)
    loss.backward()
    optimizer.step()


def scaled(module, optimizer, loader, run):
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(6):
        for X, y in loader:
            optimizer.zero_grad()
            scaler.scale(cross_entropy(module(X), y)).backward()
            scaler.step(optimizer)
            scaler.update()


def by_closure(module, optimizer, X, y):
    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(module(X), y)
        loss.backward()
        return loss

    optimizer.step(closure)


def thrice(module, optimizer, X, y):
    for _ in range(3):
        step(module, optimizer, X, y)


def evaluating(module, optimizer, loader, run):
    for _ in range(6):
        for i, (X, y) in enumerate(loader):
            step(module, optimizer, X, y)
            if i == 1:
                module.eval()
                with torch.no_grad():
                    _ = [module(inner) for inner, _ in loader]
                _ = [cross_entropy(module(inner), label) for inner, label in loader]
                module.train()


def with_input_gradients(module, optimizer, X, y):
    moved = X.clone().requires_grad_()
    torch.autograd.grad(cross_entropy(module(moved), y), moved)
    step(module, optimizer, X, y)


def copying(module, optimizer, loader, run):
    average = torch.optim.swa_utils.AveragedModel(module)
    for _ in range(6):
        for X, y in loader:
            step(module, optimizer, X, y)
            average.update_parameters(module)
            copy.deepcopy(module)(X)
            torch.save(module, io.BytesIO())


def skipping(module, optimizer, loader, run):
    for _ in range(6):
        for i, (X, y) in enumerate(loader):
            if i == 1:
                continue
            optimizer.zero_grad()
            cross_entropy(module(X), y).backward()
            if i != 2:
                optimizer.step()


def naming(module, optimizer, loader, run):
    X, y = data().tensors
    for _ in range(6):
        for indices in torch.randperm(40, generator=torch.Generator().manual_seed(1)).split(10):
            if run is not None:
                run.batch(indices)
            step(module, optimizer, X[indices], y[indices])


def decayed(module, optimizer, loader, run):
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 24)
    for _ in range(6):
        for X, y in loader:
            step(module, optimizer, X, y)
            schedule.step()


def shuffled(**options):
    return DataLoader(data(), batch_size=10, shuffle=True, **options)


LOOPS = {  # loop, steps that it makes, what gradients were scaled by, rows of a step
    "plain": (each_batch(step), 24, 1, 10),
    "accumulation": (accumulating, 12, 1, 20),
    "accumulation without a mean": (adding, 12, 2, 20),
    "bf16": (each_batch(in_bf16), 24, 1, 10),
    "GradScaler": (scaled, 24, 1, 10),
    "closure": (each_batch(by_closure), 24, 1, 10),
    "three steps a batch": (each_batch(thrice), 72, 1, 10),
    "evaluation in between": (evaluating, 24, 1, 10),
    "gradients of inputs": (each_batch(with_input_gradients), 24, 1, 10),
    "copies of the module": (copying, 24, 1, 10),
    "batches and steps left out": (skipping, 12, 1, 10),
    "named batches": (naming, 24, 1, 10),
    "schedule": (decayed, 24, 1, 10),
}


def trained(train, record, loader=None, make_optimizer=sgd, kind=Mlp, criterion=CE, **options):
    """(module, run or None, what torch draws next) of a loop."""
    module = make(kind)
    optimizer = make_optimizer(module)
    loader = loader_of() if loader is None else loader()
    torch.manual_seed(5)
    if not record:
        train(module, optimizer, loader, None)
        return module, None, torch.rand(3)
    options = {"n_steps": 24, "steps": True} | options
    with record_run(module, criterion, optimizer, loader, **options) as run:
        train(module, optimizer, loader, run)
    assert type(loader) is DataLoader
    assert not module._forward_hooks
    return module, run, torch.rand(3)


@pytest.mark.parametrize("name", LOOPS)
def test_loops_are_not_changed_and_their_steps_are_seen(name):
    train, n_steps, scale, size = LOOPS[name]
    options = {"kind": lambda: Mlp(dropout=0.3), "loader": shuffled}
    before, _, drawn = trained(train, False, **options)
    module, run, again = trained(train, True, n_steps=n_steps, n_checkpoints=4, **options)
    for one, other in zip(before.parameters(), module.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(drawn, again)
    trajectory = run.trajectory_
    assert trajectory.steps.tolist() == [round(k * n_steps / 4) for k in (1, 2, 3, 4)]
    assert trajectory.misfits.max() == 0
    assert set(trajectory.batch_sizes) == {size}
    np.testing.assert_allclose(trajectory.effective_rate_sums, scale * 10 * trajectory.rate_sums)
    trajectory.check_final(module)
    assert all(len(trajectory.step_positions(k)) == size for k in range(n_steps))


@pytest.fixture(scope="module")
def pair():
    """By skorch and by a plain loop."""
    return by_skorch(), by_plain_loop()


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_the_same_training_by_skorch(method, pair):
    X, y = rows()
    X_val, y_val = rows(15, 7)
    one, other = (method(each).fit(X, y, X_val=X_val, y_val=y_val).scores_ for each in pair)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(one).max())


def test_adamw_and_a_schedule_are_those_of_skorch():
    schedule = LRScheduler("CosineAnnealingLR", T_max=24, step_every="batch")
    net = by_skorch(torch.optim.AdamW, lr=0.01, callbacks=[schedule])
    expected = recorder_of(net.estimator).trajectory_
    module, run, _ = trained(decayed, True, make_optimizer=adamw, **PLAN)
    for name in ("group_rate_sums", "group_effective_rate_sums", "group_learning_rates", "group_step_rates", "steps"):
        np.testing.assert_array_equal(getattr(run.trajectory_, name), getattr(expected, name))
    for name, state in expected.optimizer_state(-1).items():
        for key, value in state.items():
            assert torch.equal(run.trajectory_.optimizer_state(-1)[name][key], value)
    X, y = rows()
    model = TorchModel(module, CE, run.trajectory_)
    one, other = (Source(each).fit(X, y).scores_ for each in (net, model))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(one).max())


def test_groups_and_parameters_that_the_optimiser_has_not():
    def groups(module):
        parts = [{"params": [module.first.weight], "lr": 0.5, "weight_decay": 0.2}, {"params": [module.last.weight]}]
        return torch.optim.SGD(parts, lr=0.1)

    module, run, _ = trained(each_batch(step), True, make_optimizer=groups)
    trajectory = run.trajectory_
    assert trajectory.parameter_groups == {"first.weight": 0, "last.weight": 1}
    np.testing.assert_allclose(trajectory.group_rate_sums[0], [2.0, 0.4])
    model = TorchModel(module, CE, trajectory)
    assert TracIn(model).fit(*rows()).scores_.shape == (40,)


def test_groups_that_come_on_the_way_are_refused_and_those_that_wait_have_no_rates():
    def train(run, loader, wait):
        module, optimizer = run.module, run.optimizer
        for epoch in range(3):
            if epoch == 2 and wait:
                optimizer.param_groups[1]["lr"] = 0.05
                module.first.requires_grad_(True)
            elif epoch == 2:
                optimizer.add_param_group({"params": module.first.parameters(), "lr": 0.05})
            plain(module, optimizer, None, loader, epochs=1)

    for wait in (True, False):
        module, loader = make(), loader_of()
        module.first.requires_grad_(not wait)
        optimizer = torch.optim.SGD(module.last.parameters(), lr=0.1)
        if wait:
            optimizer.add_param_group({"params": module.first.parameters(), "lr": 0.0})
        run = record_run(module, CE, optimizer, loader, n_checkpoints=1, n_steps=12)
        if wait:
            with run:
                train(run, loader, wait)
            np.testing.assert_allclose(run.trajectory_.group_rate_sums, [[1.2, 0.2]])
        else:
            with pytest.raises(ValueError, match="had 1 groups of parameters, and 2 at step 9; give it all"), run:
                train(run, loader, wait)
            assert not hasattr(run, "trajectory_")


@pytest.mark.parametrize("method", METHODS)
def test_parameters_that_were_frozen_at_first_are_refused_by_what_needs_the_rates(method):
    module, loader = make(), loader_of()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with record_run(module, CE, optimizer, loader, n_checkpoints=3, n_steps=8, steps=True) as run:
        for frozen in (True, False):
            module.first.requires_grad_(not frozen)
            plain(module, optimizer, None, loader, epochs=1)
    with pytest.raises(ValueError, match=r"parameters were frozen at first.*with lr=0 until then"):
        method(TorchModel(module, CE, run.trajectory_)).fit(*rows())


def test_parameters_that_stay_frozen_or_become_so_are_nothing_special():
    module, loader = make(), loader_of()
    module.first.bias.requires_grad_(False)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with record_run(module, CE, optimizer, loader, n_checkpoints=2, n_steps=8) as run:
        plain(module, optimizer, None, loader, epochs=1)
        module.last.bias.requires_grad_(False)
        plain(module, optimizer, None, loader, epochs=1)
    assert run.trajectory_.misfits.max() == 0


def test_clipping_is_part_of_the_rates():
    _, run, _ = trained(each_batch(clipped), True, steps=False)
    assert (run.trajectory_.effective_rate_sums < run.trajectory_.rate_sums * 10 * 0.2).all()
    assert run.trajectory_.misfits.max() < 1e-3


def other_loss(module, optimizer, X, y):
    optimizer.zero_grad()
    cross_entropy(module(X), y, label_smoothing=0.2).backward()
    optimizer.step()


def other_rows(module, optimizer, X, y):
    step(module, optimizer, X.flip(0), y.flip(0))


def weighted(module, optimizer, X, y):
    optimizer.zero_grad()
    (cross_entropy(module(X), y, reduction="none") * torch.linspace(0, 2, len(y))).mean().backward()
    optimizer.step()


def by_value(module, optimizer, X, y):
    optimizer.zero_grad()
    cross_entropy(module(X), y).backward()
    nn.utils.clip_grad_value_(module.parameters(), 0.01)
    optimizer.step()


def unseen(module, optimizer, X, y):
    optimizer.zero_grad()
    cross_entropy(module.last(torch.relu(module.first(X))), y).backward()
    optimizer.step()


def other_outputs(module, optimizer, X, y):
    optimizer.zero_grad()
    binary_cross_entropy_with_logits(module(X)[:, 0], y.float()).backward()
    optimizer.step()


@pytest.mark.parametrize("function", [other_loss, other_rows, weighted, by_value, unseen, other_outputs])
def test_loops_that_train_with_another_gradient_than_they_say_are_refused_by_what_needs_it(function):
    module, run, _ = trained(each_batch(function), True, steps=False)
    with pytest.raises(ValueError, match=r"the optimiser got gradients of which \d+% was not of the criterion's loss"):
        TracIn(TorchModel(module, CE, run.trajectory_)).fit(*rows())


def test_a_sum_in_place_of_the_mean_is_seen():
    def total(module, optimizer, X, y):
        optimizer.zero_grad()
        cross_entropy(module(X), y, reduction="sum").backward()
        optimizer.step()

    def slow(module):
        return torch.optim.SGD(module.parameters(), lr=0.01)

    found = []
    for criterion in (CE, nn.CrossEntropyLoss(reduction="sum")):
        module, run, _ = trained(each_batch(total), True, make_optimizer=slow, criterion=criterion)
        found.append(TracIn(TorchModel(module, criterion, run.trajectory_)).fit(*rows()).scores_)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of torch.compile itself
@pytest.mark.parametrize("wrap", ["compiled", "in place", "parallel"])
def test_modules_that_are_wrapped_are_recorded_under_their_own_names(wrap):
    def kind():
        module = Mlp()
        if wrap == "in place":
            module.compile(backend="eager")
            return module
        return torch.compile(module, backend="eager") if wrap == "compiled" else nn.DataParallel(module)

    module, run, _ = trained(each_batch(step), True, kind=kind)
    assert run.trajectory_.misfits.max() == 0
    assert list(run.trajectory_.state(0)) == list(Mlp().state_dict())
    assert TracIn(TorchModel(module, CE, run.trajectory_)).fit(*rows()).scores_.shape == (40,)


def test_a_subset_is_recorded_by_its_own_rows():
    X, y = rows()
    kept = np.arange(39, 9, -1)
    loader = DataLoader(Subset(data(), kept.tolist()), batch_size=10, shuffle=True)
    module, run, _ = trained(each_batch(step), True, loader=lambda: loader, n_steps=18)
    trajectory = run.trajectory_
    np.testing.assert_array_equal(trajectory.rows, kept)
    assert sorted(np.concatenate([trajectory.step_rows(k) for k in range(3)])) == list(range(10, 40))
    model = TorchModel(module, CE, trajectory)
    assert TracIn(model).fit(X[10:], y[10:]).scores_.shape == (30,)
    with pytest.raises(ValueError, match="10 of 40 rows are not among the 30 rows"):
        TracIn(model).fit(X, y)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(*data().tensors, strict=True))


def test_a_stream_is_recorded_without_rows():
    module, run, _ = trained(each_batch(step), True, loader=lambda: DataLoader(Stream(), 10), steps=False, n_steps=None)
    assert run.trajectory_.rows is None
    assert run.trajectory_.misfits.max() == 0
    assert TracIn(TorchModel(module, CE, run.trajectory_)).fit(*rows()).scores_.shape == (40,)
    with pytest.raises(ValueError, match="steps=True records which rows each batch holds, which Stream does not tell"):
        trained(each_batch(step), True, loader=lambda: DataLoader(Stream(), 10))


def test_workers_that_read_ahead_and_passes_that_are_given_up():
    def breaking(module, optimizer, loader, run):
        for _ in range(3):
            for i, (X, y) in enumerate(loader):
                step(module, optimizer, X, y)
                if i == 1:
                    break

    _, run, _ = trained(breaking, True, loader=lambda: shuffled(num_workers=1), n_steps=None)
    assert run.trajectory_.steps.tolist() == [2, 4, 6]
    assert run.trajectory_.misfits.max() == 0


# ---- interrupted and resumed


class Interrupt(Exception):
    """Of a training."""


def interrupted(at, saved, epochs):
    """Loops until an epoch, saving after each, then raises in the middle of it."""

    def train(module, optimizer, loader, run):
        for epoch in range(*epochs):
            for i, (X, y) in enumerate(loader):
                if (epoch, i) == at:
                    raise Interrupt
                step(module, optimizer, X, y)
            saved[:] = [copy.deepcopy(module.state_dict()), copy.deepcopy(optimizer.state_dict())]

    return train


@pytest.mark.parametrize("place", ["memory", "folder"])
@pytest.mark.parametrize("at", [(3, 0), (3, 2)])
def test_a_resumed_run_is_one_run(tmp_path, place, at):
    _, whole, _ = trained(each_batch(step), True, n_steps=None, optimizer_state=True)
    path = tmp_path / "run" if place == "folder" else None
    saved = []
    options = {**PLAN, "n_checkpoints": 6, "path": path}
    module, loader = make(), loader_of()
    with pytest.raises(Interrupt), record_run(module, CE, optimizer := sgd(module), loader, **options) as run:
        interrupted(at, saved, (6,))(module, optimizer, loader, run)
    assert run.trajectory_.n_steps == 12 + at[1]
    module = make(seed=1)
    optimizer = sgd(module)
    module.load_state_dict(saved[0])
    resume = path if path else run.trajectory_
    with pytest.raises(ValueError, match="SGD goes on from moments that it has not: restore it, too"):
        record_run(module, CE, optimizer, loader, steps=True, resume=resume).start()
    optimizer.load_state_dict(saved[1])
    options |= {"path": None, "resume": resume}
    with record_run(module, CE, optimizer, loader, **options) as run:
        interrupted(None, saved, (3, 6))(module, optimizer, loader, run)
    trajectory = Trajectory.load(path) if path else run.trajectory_
    for name in ("steps", "group_rate_sums", "step_index", "step_offsets", "group_step_rates", "fingerprints"):
        np.testing.assert_array_equal(getattr(trajectory, name), getattr(whole.trajectory_, name))
    for c in range(6):
        for name, value in whole.trajectory_.state(c).items():
            assert torch.equal(trajectory.state(c)[name], value)
    if path:
        assert len(list(path.iterdir())) == 6 + 2


def test_a_resumed_run_without_steps_knows_what_changed_before():
    for first, then in (((0.1, 0.2), (0.2,)), ((0.1,), (0.2,))):
        module, loader = make(), loader_of()
        optimizer, run = sgd(module, momentum=0), None
        for part in (first, then):
            run = record_run(module, CE, optimizer, loader, every=4, resume=run and run.trajectory_)
            with run:
                for decay in part:
                    optimizer.param_groups[0]["weight_decay"] = decay
                    plain(module, optimizer, None, loader, epochs=1)
        values = np.repeat((*first, *then), 4).tolist()
        assert [run.trajectory_.step_groups(k)[0]["weight_decay"] for k in range(len(values))] == values
        with pytest.raises(ValueError, match=r"weight_decay was not one number: it went from 0\.1 to 0\.2"):
            run.trajectory_.check_constant("weight_decay")


def test_a_run_that_was_killed_has_a_folder_that_can_be_resumed(tmp_path):
    module, loader = make(), loader_of()
    run = record_run(module, CE, optimizer := sgd(module), loader, path=tmp_path / "run")
    run.start()
    plain(module, optimizer, None, loader, epochs=2)  # and no end
    assert Trajectory.load(tmp_path / "run").steps.tolist() == [4, 8]
    (tmp_path / "run" / "checkpoint-00003.safetensors").touch()  # killed between a checkpoint and its index
    other = make(seed=1)
    restored = sgd(other)
    other.load_state_dict(module.state_dict())
    restored.load_state_dict(optimizer.state_dict())
    with record_run(other, CE, restored, loader_of(), resume=tmp_path / "run") as more:
        plain(other, restored, None, more.loader, epochs=1)
    assert more.trajectory_.steps.tolist() == [4, 8, 12]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, o: m.last.weight.data.add_(1.0), "those of no checkpoint of the record that is resumed"),
        (lambda m, o: o.update(kind=adamw), "the record that is resumed is of SGD, not of AdamW"),
        (lambda m, o: o.update(steps=True), r"steps=True cannot begin in the middle"),
        (lambda m, o: o.update(data=Subset(data(), range(20))), "training is continued with other rows"),
        (lambda m, o: o.update(module=nn.Linear(3, 2)), "the trajectory is of another model"),
    ],
)
def test_what_cannot_be_continued_is_refused(change, message):
    module, run, _ = trained(each_batch(step), True, steps=False)
    given = {"kind": sgd, "steps": False, "data": data(), "module": module}
    change(module, given)
    loader = DataLoader(given["data"], batch_size=10)
    optimizer = given["kind"](given["module"])
    plain(copy.deepcopy(module), torch.optim.SGD(module.parameters(), 0.1), None, loader_of(), epochs=0)
    optimizer.state[next(iter(given["module"].parameters()))]["momentum_buffer"] = torch.zeros(1)
    with pytest.raises(ValueError, match=message):
        record_run(given["module"], CE, optimizer, loader, steps=given["steps"], resume=run.trajectory_).start()


# ---- what is refused


@in_turn(
    ("change", "error", "message"),
    [
        ({"optimizer": torch.optim.LBFGS}, ValueError, "LBFGS evaluates its closure many times"),
        ({"optimizer": lambda p: torch.optim.SGD([torch.zeros(1)], lr=1.0)}, ValueError, "none of the module's param"),
        ({"optimizer": lambda p: [torch.optim.SGD(p)]}, TypeError, r"must be one torch\.optim\.Optimizer, got list"),
        ({"criterion": cross_entropy}, TypeError, "criterion must be a torch.nn.Module .* got cross_entropy"),
        ({"criterion": nn.CrossEntropyLoss(reduction="none")}, TypeError, "has reduction='none'"),
        ({"module": "net"}, TypeError, "module must be a torch.nn.Module, got str"),
        ({"X": torch.zeros(4, 3)}, ValueError, "when to take checkpoints is not known"),
        ({"n_checkpoints": 0}, ValueError, "n_checkpoints=0 must be a whole number"),
        ({"every": 1.5}, ValueError, "every=1.5 must be a whole number"),
        ({"n_steps": True}, ValueError, "n_steps=True must be a whole number"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_it_starts(change, error, message):
    module = make()
    given = {"module": module, "criterion": CE, "optimizer": torch.optim.SGD, "X": loader_of(), **change}
    optimizer = given.pop("optimizer")(module.parameters())
    options = {name: given.pop(name) for name in list(given) if name not in {"module", "criterion", "X"}}
    with pytest.raises(error, match=message):
        record_run(given["module"], given["criterion"], optimizer, given["X"], **options)


def test_steps_of_unknown_rows_are_refused_and_leave_no_record():
    X, y = rows()
    module = make()
    optimizer = sgd(module)
    run = record_run(module, CE, optimizer, X, y, n_steps=4, steps=True)
    with pytest.raises(ValueError, match="of step 1 they are not known: no batch was named"), run:
        step(module, optimizer, *data().tensors)
    assert not hasattr(run, "trajectory_")
    with pytest.raises(ValueError, match="nothing is recorded"):
        run.batch([0])
    run = record_run(module, CE, optimizer, X, y, n_steps=4)
    with run:
        for wrong in ([40], [-1], [0.5], [[0]], [True], []):
            with pytest.raises(ValueError, match="indices must be the positions of rows in X"):
                run.batch(wrong)
    with pytest.raises(ValueError, match="records one run"):
        run.start()


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "note").touch()
    with pytest.raises(FileExistsError, match="holds other files"):
        trained(each_batch(step), True, path=tmp_path)


def test_a_loop_whose_optimizer_makes_no_step_has_no_trajectory_and_says_why():
    module = make()
    with record_run(module, CE, sgd(module), loader_of()) as run, torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.9)
    with pytest.raises(AttributeError, match="made no step"):
        run.trajectory_  # noqa: B018


FORMS = {
    "int32": lambda y: y.astype(np.int32),
    "float64": lambda y: y.astype(np.float64),
    "bool": lambda y: y.astype(bool),
    "series": lambda y: pd.Series(y, index=np.arange(len(y))[::-1]),
    "list": lambda y: y.tolist(),
}


@pytest.mark.parametrize("named", [False, True], ids=["in X and y", "by batch"])
@pytest.mark.parametrize("form", FORMS)
def test_labels_of_any_form_are_those_that_the_loop_trains_on(form, named):
    X, y = rows(40)
    given, module = FORMS[form](y), make()
    optimizer = sgd(module)
    with record_run(module, CE, optimizer, X, None if named else given, n_steps=4, n_checkpoints=1) as run:
        for part in np.split(np.arange(40), 4):
            own = given.iloc[part] if form == "series" else FORMS[form](y[part])
            run.batch(part, own if named else None)
            step(module, optimizer, torch.from_numpy(X[part]), torch.from_numpy(y[part]))
    assert run.trajectory_.misfits.max() == 0


def test_numbers_and_probabilities_of_any_precision_are_those_that_the_loop_trains_on():
    X, y = rows(40)
    hot = np.eye(2)[y]
    for criterion in (CE, nn.MSELoss()):
        module = make()
        optimizer = sgd(module)
        with record_run(module, criterion, optimizer, X, n_steps=1) as run:
            run.batch(np.arange(40), hot)
            criterion(module(torch.from_numpy(X)), torch.from_numpy(hot).float()).backward()
            optimizer.step()
        assert run.trajectory_.misfits.max() == 0
