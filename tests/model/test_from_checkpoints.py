"""Trajectory.from_checkpoints: what trainings have left on disk is read, and what cannot be right is refused."""

import copy
import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sktda import LightningRecorder, TorchModel, record_run
from sktda.attribution import DiffIn, SGDInfluence, Source, TracIn
from sktda.model.trajectory import Trajectory
from tests.in_turn import in_turn
from tests.model.loops import WithLoss, by_lightning, by_trainer, loader_of, make, plain, sgd
from tests.model.nets import Mlp, Tied, recorder_of, rows

CE = nn.CrossEntropyLoss()
STEPS = [8, 16, 24]


@pytest.fixture(scope="module")
def training():
    """(module, optimizer, recorded trajectory, states) of a loop that saves every two epochs."""
    module = make()
    optimizer = sgd(module)
    loader = loader_of()
    states = []
    with record_run(module, CE, optimizer, loader, n_checkpoints=3, n_steps=24, optimizer_state=True) as run:
        for _ in range(3):
            plain(module, optimizer, None, loader, epochs=2)
            states.append((copy.deepcopy(module.state_dict()), copy.deepcopy(optimizer.state_dict())))
    return module, optimizer, run.trajectory_, states


def as_is(state, optimizer, step, path):
    torch.save(state, path.with_suffix(".pt"))


def as_safetensors(state, optimizer, step, path):
    save_file(state, path.with_suffix(".safetensors"))


def with_optimizer(state, optimizer, step, path):
    torch.save({"model": state, "optimizer": optimizer, "step": step, "loss": 0.5}, path.with_suffix(".pth"))


def as_lightning(state, optimizer, step, path):
    inner = {f"net.{name}": value for name, value in state.items()} | {"metric.total": torch.zeros(1)}
    kept = {"state_dict": inner, "optimizer_states": [optimizer], "global_step": step, "epoch": 1, "callbacks": {}}
    torch.save(kept, path.with_suffix(".ckpt"))


def compiled_and_parallel(state, optimizer, step, path):
    inner = {f"module._orig_mod.{name}": value for name, value in state.items()}
    torch.save({"state_dict": inner, "global_step": step}, path.with_suffix(".pt"))


def as_trainer(state, optimizer, step, path):
    folder = path.with_name(f"checkpoint-{step}")
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    torch.save(optimizer, folder / "optimizer.pt")
    logged = [{"step": s, "learning_rate": 0.1} for s in range(4, step + 1, 4)]
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": logged}))


def in_shards(state, optimizer, step, path):
    folder = path.with_name(f"checkpoint-{step}")
    folder.mkdir()
    parts = {f"model-0000{i}-of-00002.safetensors": dict(list(state.items())[i::2]) for i in range(2)}
    for name, part in parts.items():
        save_file(part, folder / name)
    places = {key: name for name, part in parts.items() for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


FORMS = [as_is, as_safetensors, with_optimizer, as_lightning, compiled_and_parallel, as_trainer, in_shards]
TELLS_RATES = {with_optimizer, as_lightning, as_trainer}


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_on_disk_give_the_scores_of_the_recorded_run(tmp_path, training, form):
    module, optimizer, recorded, states = training
    for step, (state, own) in zip(STEPS, states, strict=True):
        form(state, own, step, tmp_path / f"epoch-{step // 4}")
    given = {} if form in TELLS_RATES else {"learning_rates": 0.1, "optimizer": optimizer}
    if form in {as_is, as_safetensors}:
        given["steps"] = STEPS
    X, y = rows()
    trajectory = Trajectory.from_checkpoints(tmp_path, module=module, X=X, y=y, **given)
    for name in ("steps", "group_rate_sums", "group_effective_rate_sums", "fingerprints"):
        np.testing.assert_allclose(getattr(trajectory, name), getattr(recorded, name))
    assert (trajectory.optimizer, trajectory.weight_decay) == ("SGD", recorded.weight_decay)
    expected, model = (TorchModel(module, CE, each) for each in (recorded, trajectory))
    k = FORMS.index(form)  # a method sees nothing of the form: all of them for the first, one for each other by turns
    for method in (TracIn, Source, DiffIn) if k == 0 else ((TracIn, Source, DiffIn)[k % 3],):
        one, other = (method(each).fit(X, y).scores_ for each in (expected, model))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(one).max())
    if form in TELLS_RATES:
        for name, state in recorded.optimizer_state(-1).items():
            assert torch.equal(trajectory.optimizer_state(-1)[name]["momentum_buffer"], state["momentum_buffer"])
    with pytest.raises(ValueError, match="the steps were not recorded"):
        SGDInfluence(model).fit(X, y)
    with pytest.raises(ValueError, match="rows are not among the 40 rows"):
        TracIn(model).fit(X + 1, y)
    trajectory.save(tmp_path / "kept")
    assert Trajectory.load(tmp_path / "kept").steps.tolist() == STEPS


def test_settings_that_differ_between_checkpoints(training):
    """Momentum, dampening and betas are each checkpoint's own, as rates are."""
    module, _, _, states = training
    saved = []
    for (state, own), step, momentum in zip(states, STEPS, (0.5, 0.9, 0.0), strict=True):
        groups = [group | {"momentum": momentum, "dampening": momentum / 2} for group in own["param_groups"]]
        saved.append({"model": state, "optimizer": own | {"param_groups": groups}, "step": step})
    trajectory = Trajectory.from_checkpoints(saved, module=module)
    factor = np.array([0.75 / 0.5, 0.55 / 0.1, 1.0])[:, None]
    np.testing.assert_allclose(trajectory.group_effective_rate_sums, trajectory.group_rate_sums * factor)
    assert trajectory.group_momenta[:, 0].tolist() == [0.5, 0.9, 0.0]
    assert [trajectory.step_groups(k)[0]["momentum"] for k in (0, 7, 8, 16, 23)] == [0.5, 0.5, 0.9, 0.0, 0.0]


def test_logged_rates_are_those_of_the_first_group(tmp_path, training):
    module, _, _, states = training
    parts = [{"params": module.last.parameters()}, {"params": module.first.parameters(), "lr": 0.01}]
    optimizer = torch.optim.SGD(parts, lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)  # as at the end of a linear schedule
    for (state, _), step in zip(states, STEPS, strict=True):
        as_trainer(state, optimizer.state_dict(), step, tmp_path / "x")
    found = Trajectory.from_checkpoints(tmp_path, module=module, optimizer=optimizer)
    np.testing.assert_allclose(found.group_rate_sums, [[0.8, 0.08]] * 3)


def test_files_with_other_groups_than_the_optimiser_are_refused_unless_rates_are_alike(training):
    module, optimizer, _, states = training

    def saved(rates):
        (group,) = optimizer.state_dict()["param_groups"]
        own = [{"state": {}, "param_groups": [group | {"lr": rate} for rate in each]} for each in rates]
        return [
            {"model": state, "optimizer": each, "step": step}
            for (state, _), each, step in zip(states, own, STEPS, strict=True)
        ]

    for rates in ([[0.1, 0.01]] * 3, [[0.1], [0.1], [0.1, 0.01]]):
        with pytest.raises(ValueError, match=r"files have .*2 groups with rates of their own, and there are 1 here"):
            Trajectory.from_checkpoints(saved(rates), module=module, optimizer=optimizer)
    alike = Trajectory.from_checkpoints(saved([[0.1], [0.2], [0.3, 0.3]]), module=module, optimizer=optimizer)
    np.testing.assert_allclose(alike.group_rate_sums, [[0.8], [1.6], [2.4]])


def test_states_in_memory_and_rates_of_every_step(training):
    module, optimizer, _, states = training
    given = [state for state, _ in states]
    rates = np.linspace(0.1, 0.0, 24)
    each = Trajectory.from_checkpoints(given, rates, module=module, steps=STEPS, optimizer=optimizer)
    np.testing.assert_allclose(each.rate_sums, rates.reshape(3, 8).sum(1))
    np.testing.assert_allclose(each.learning_rates, rates[[7, 15, 23]])
    some = Trajectory.from_checkpoints(given, [0.3, 0.2, 0.1], module=module, steps=STEPS, optimizer="SGD")
    np.testing.assert_allclose(some.effective_rate_sums, [2.4, 1.6, 0.8])
    assert some.fingerprints is None
    assert TracIn(TorchModel(module, CE, some)).fit(*rows()).scores_.shape == (40,)


def test_folders_of_lightning_and_the_trainer(tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    save = ModelCheckpoint(tmp_path / "lit", save_top_k=-1, every_n_train_steps=8, filename="{step}")

    model = by_lightning(
        recorder=lambda net: LightningRecorder(net, CE, every=8), more=[save], enable_checkpointing=True
    )
    recorded = recorder_of(model.estimator).trajectory_
    found = Trajectory.from_checkpoints(tmp_path / "lit", module=model.module_)
    np.testing.assert_allclose(found.group_effective_rate_sums, recorded.group_effective_rate_sums)
    TorchModel(model.module_, CE, found)

    model, trainer = by_trainer(tmp_path / "out", None, save_strategy="steps", save_steps=8, weight_decay=0.02)
    found = Trajectory.from_checkpoints(tmp_path / "out", module=trainer.model)
    assert (found.optimizer, found.steps.tolist()) == ("AdamW", STEPS)
    assert found.weight_decay["first.weight"] == 0.02
    assert found.weight_decay["first.bias"] == 0
    state = trainer.optimizer.optimizer.state[trainer.model.first.weight]
    assert torch.equal(found.optimizer_state(-1)["first.weight"]["exp_avg"], state["exp_avg"])
    X, y = rows()
    assert Source(TorchModel(trainer.model, CE, found)).fit(X, y).scores_.shape == (40,)


def test_what_is_tied_or_frozen_need_not_be_there():
    module = make(Tied)
    state = module.state_dict()
    del state["second.weight"]
    trajectory = Trajectory.from_checkpoints([state], 0.1, module=module, steps=[5], optimizer="SGD")
    trajectory.check_final(module)
    module = make()
    module.first.requires_grad_(False)
    head = {f"base.{name}": value for name, value in module.state_dict().items() if "last" in name}
    trajectory = Trajectory.from_checkpoints([head], 0.1, module=module, steps=[5], optimizer="SGD")
    trajectory.check_final(module)
    assert trajectory.groups[0]["parameters"] == ["last.weight", "last.bias"]


def test_adapters_are_read_under_the_names_that_peft_gives_them(tmp_path):
    from peft import LoraConfig, get_peft_model

    class Config(dict):
        """What peft asks a model for."""

    module = make()
    module.config = Config()
    adapted = get_peft_model(module, LoraConfig(r=2, target_modules=["first"], modules_to_save=["last"]))
    adapted.save_pretrained(tmp_path / "checkpoint-7")
    trajectory = Trajectory.from_checkpoints(tmp_path, 0.1, module=adapted, optimizer="SGD")
    trajectory.check_final(adapted)
    assert trajectory.steps.tolist() == [7]
    assert len(trajectory.groups[0]["parameters"]) == 4


def test_logged_rates_are_a_line_between_and_before_the_logs(tmp_path, training):
    module, _, _, states = training
    as_trainer(*states[0], 8, tmp_path / "x")
    logged = [{"step": step, "learning_rate": 0.1 * (8 - step + 1)} for step in (3, 5, 8)]
    state = json.dumps({"global_step": 8, "log_history": logged})
    (tmp_path / "checkpoint-8" / "trainer_state.json").write_text(state)
    trajectory = Trajectory.from_checkpoints(tmp_path, module=module)
    np.testing.assert_allclose(trajectory.rate_sums, [0.1 * 36])


class Hostile:
    """Would run a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch /tmp/this-must-not-happen",)


def changed(**entries):
    return lambda state: {**state, **entries}


@in_turn(
    ("change", "options", "message"),
    [
        (changed(), {"steps": None}, "does not tell after how many steps of the optimiser it was saved; give steps"),
        (changed(), {"steps": [8, 16]}, "steps must be one whole number for each of the 3 checkpoints"),
        (changed(), {"steps": [8, 24, 16]}, "must come in the order of training, .* theirs are 8, 24, 16"),
        (changed(), {"learning_rates": None}, "do not tell the learning rates; give learning_rates"),
        (changed(), {"learning_rates": [0.1, 0.2]}, r"one for each of the 24 steps, got shape \(2,\)"),
        (changed(), {"learning_rates": -0.1}, "must be finite and not negative"),
        (changed(), {"optimizer": None}, "do not tell which optimiser made them"),
        (changed(), {"optimizer": "Sgd"}, "is none of torch.optim"),
        (changed(), {"module": Mlp(width=6)}, r"'first.weight' is \(5, 3\) in it and \(6, 3\) in the module"),
        (changed(extra=torch.zeros(1)), {}, "the given one has no 'extra'"),
        (lambda state: {k: v for k, v in state.items() if k != "last.bias"}, {}, "it has no 'last.bias'"),
        (lambda state: {k: v * torch.nan for k, v in state.items()}, {}, "'first.weight' holds NaN or infinity"),
        (lambda state: {"weights": Hostile()}, {}, "pickled objects are never loaded"),
        (lambda state: [1, 2], {}, "holds a list and no state_dict"),
        (lambda state: {}, {}, "holds nothing"),
        (lambda state: {"epoch": 3, "loss": 0.5}, {}, "has no state_dict: its names are epoch, loss"),
    ],
)
def test_what_cannot_be_right_is_refused_in_one_sentence(tmp_path, training, change, options, message):
    module, _, _, states = training
    for step, (state, _) in zip(STEPS, states, strict=True):
        torch.save(change(state), tmp_path / f"step-{step}.pt")
    given = {"learning_rates": 0.1, "module": module, "steps": STEPS, "optimizer": "SGD"} | options
    with pytest.raises(ValueError, match=message) as error:
        Trajectory.from_checkpoints(tmp_path, **given)
    assert "\n" not in str(error.value)
    assert not os.path.exists("/tmp/this-must-not-happen")


def test_files_that_are_missing_or_damaged(tmp_path, training):
    module, *_ = training
    given = {"module": module, "steps": [1], "learning_rates": 0.1, "optimizer": "SGD"}
    for name, error in (("nowhere", FileNotFoundError), ("empty", FileNotFoundError)):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(error, match=r"does not exist|holds no checkpoints"):
            Trajectory.from_checkpoints(tmp_path / name, **given)
    for name in ("a.safetensors", "a.pt"):
        (tmp_path / name).write_bytes(b"not a file of this kind")
        with pytest.raises(ValueError, match=r"cannot be read|no file of tensors"):
            Trajectory.from_checkpoints([tmp_path / name], **given)
    in_shards(module.state_dict(), None, 1, tmp_path / "x")
    (tmp_path / "checkpoint-1" / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="is missing, which an index beside it names"):
        Trajectory.from_checkpoints(tmp_path / "checkpoint-1", **given)
    with pytest.raises(ValueError, match="checkpoints is empty"):
        Trajectory.from_checkpoints([], **given)
    with pytest.raises(TypeError, match=r"module must be the torch\.nn\.Module"):
        Trajectory.from_checkpoints([module.state_dict()], **given | {"module": "net"})


def test_parameters_after_the_last_checkpoint_are_noticed(training):
    module, _, _, states = training
    given = {"module": module, "steps": STEPS[:2], "learning_rates": 0.1, "optimizer": "SGD"}
    trajectory = Trajectory.from_checkpoints([state for state, _ in states[:2]], **given)
    with pytest.raises(ValueError, match="parameters of the net are not those at the end of its trajectory"):
        TorchModel(module, CE, trajectory)
    module = make(WithLoss)
    module.load_state_dict(trajectory.state(-1))
    with pytest.raises(ValueError, match="the trajectory is of another model"):
        TorchModel(module, CE, trajectory)
