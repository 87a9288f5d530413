"""The callbacks record trainings by Lightning and the Trainer as record_run records the same loop."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from sktda import LightningRecorder, TorchModel, TrainerRecorder
from sktda.attribution import DiffIn, InnerProduct, MoSo, SGDInfluence, Source, TracIn
from sktda.model import lightning_recorder, trainer_recorder
from sktda.model.trajectory import Trajectory
from tests.model.loops import PLAN, by_lightning, by_plain_loop, by_trainer, loader_of, make, quiet_trainer, sgd
from tests.model.nets import recorder_of, rows

CE = nn.CrossEntropyLoss()
METHODS = [TracIn, InnerProduct, MoSo, DiffIn, Source, SGDInfluence]
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The same training by a plain loop, Lightning and the Trainer."""
    return {
        "plain": by_plain_loop(),
        "lightning": by_lightning(),
        "trainer": by_trainer(tmp_path_factory.mktemp("trainer"))[0],
    }


@pytest.mark.parametrize("kind", ["lightning", "trainer"])
@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_the_plain_loop(models, kind, method):
    X, y = rows()
    X_val, y_val = rows(15, 7)
    one, other = (method(models[each]).fit(X, y, X_val=X_val, y_val=y_val).scores_ for each in ("plain", kind))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(one).max())


def check(model, steps, size, scale=10.0):
    trajectory = recorder_of(model.estimator).trajectory_
    assert trajectory.steps.tolist() == steps
    assert trajectory.misfits.max() < 1e-3
    assert trajectory.batch_sizes[0] == size
    if scale:
        np.testing.assert_allclose(trajectory.effective_rate_sums, scale * trajectory.rate_sums)
    return trajectory


@pytest.mark.parametrize(
    ("options", "steps", "size", "scale"),
    [
        ({"accumulate_grad_batches": 2}, [3, 6, 9, 12], 20, 10),
        ({"gradient_clip_val": 1e-3}, [6, 12, 18, 24], 10, None),
        ({"precision": "bf16-mixed"}, [6, 12, 18, 24], 10, 10),
        ({"max_epochs": -1, "max_steps": 10}, [2, 5, 8, 10], 10, 10),
        ({"limit_train_batches": 2}, [3, 6, 9, 12], 10, 10),
    ],
)
def test_lightning_with_its_options(options, steps, size, scale):
    trajectory = check(by_lightning(**options), steps, size, scale)
    if not scale:
        assert (trajectory.effective_rate_sums < trajectory.rate_sums).all()


@pytest.mark.parametrize(
    ("options", "steps", "size", "scale"),
    [
        ({"gradient_accumulation_steps": 2}, [3, 6, 9, 12], 20, 10),
        ({"gradient_accumulation_steps": 3}, [3, 6, 9, 12], 30, 10),
        ({"max_grad_norm": 1e-3}, [6, 12, 18, 24], 10, None),
        ({"bf16": True}, [6, 12, 18, 24], 10, 10),
    ],
)
def test_the_trainer_with_its_options(tmp_path, options, steps, size, scale):
    trajectory = check(by_trainer(tmp_path, **options)[0], steps, size, scale)
    if not scale:
        assert (trajectory.effective_rate_sums < trajectory.rate_sums).all()


def test_a_resumed_trainer_is_one_run(tmp_path, models):
    options = {"save_strategy": "steps", "save_steps": 6}
    recorder = TrainerRecorder(CE, **PLAN, path=tmp_path / "run")
    by_trainer(tmp_path / "out", recorder=recorder, max_steps=24, **options)
    more = TrainerRecorder(CE, **PLAN, resume=tmp_path / "run")
    model, _ = by_trainer(
        tmp_path / "out", recorder=more, resume=str(tmp_path / "out" / "checkpoint-6"), max_steps=24, **options
    )
    expected = recorder_of(models["trainer"].estimator).trajectory_
    trajectory = recorder_of(model.estimator).trajectory_
    for name in ("steps", "group_rate_sums", "group_effective_rate_sums", "step_index", "misfits"):
        np.testing.assert_array_equal(getattr(trajectory, name), getattr(expected, name))
    for name, value in expected.state(-1).items():
        assert torch.equal(trajectory.state(-1)[name], value)
    assert Trajectory.load(tmp_path / "run").steps.tolist() == expected.steps.tolist()


def test_a_resumed_lightning_training_is_one_run(tmp_path, models):
    options = {"enable_checkpointing": True, "default_root_dir": tmp_path / "out"}
    recorders = [LightningRecorder(make(), CE)]

    def first(net):
        recorders.append(LightningRecorder(net, CE, every=4, steps=True, path=tmp_path / "run"))
        return recorders[-1]

    by_lightning(recorder=first, max_epochs=3, **options)
    [saved] = (tmp_path / "out").rglob("*.ckpt")
    model = by_lightning(
        recorder=lambda net: LightningRecorder(net, CE, every=4, steps=True, resume=tmp_path / "run"),
        ckpt_path=saved,
        **options,
    )
    trajectory = recorder_of(model.estimator).trajectory_
    assert trajectory.steps.tolist() == [4, 8, 12, 16, 20, 24]
    expected = recorder_of(models["plain"].estimator).trajectory_
    np.testing.assert_array_equal(trajectory.step_index, expected.step_index)
    for name, value in expected.state(-1).items():
        assert torch.equal(trajectory.state(-1)[name], value)


def test_a_lightning_module_itself_with_loaders_of_its_own():
    import lightning

    class Lit(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = make()

        def forward(self, X):
            return self.net(X)

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, index):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def train_dataloader(self):
            return loader_of()

        def val_dataloader(self):
            return loader_of()

        def configure_optimizers(self):
            return sgd(self)

    lit = Lit()
    recorder = LightningRecorder(lit, CE, n_checkpoints=3, steps=True)
    trainer = quiet_trainer(recorder, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's about workers
        trainer.fit(lit)
    model = TorchModel(lit, CE, recorder.trajectory_)
    assert check(model, [4, 8, 12], 10).misfits.max() == 0
    assert TracIn(model).fit(*rows()).scores_.shape == (40,)
    assert lit._forward_hooks == {}


def test_what_the_callbacks_cannot_record(monkeypatch):
    import lightning

    class Lit(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = make()

        def training_step(self, batch, index):
            return self.net(batch[0]).sum()

        def configure_optimizers(self):
            return sgd(self)

    lit = Lit()
    with pytest.raises(ValueError, match="follows one DataLoader, and this training has a list"):
        quiet_trainer(LightningRecorder(lit, CE), 1).fit(lit, [loader_of(), loader_of()])
    monkeypatch.setattr(lightning_recorder, "Callback", object)
    with pytest.raises(ImportError, match="pip install lightning"):
        LightningRecorder(lit, CE)
    monkeypatch.setattr(trainer_recorder, "TrainerCallback", object)
    with pytest.raises(ImportError, match="needs transformers"):
        TrainerRecorder(CE)
    assert isinstance(loader_of().dataset, TensorDataset)
