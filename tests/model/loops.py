"""One small net trained in the same batches by skorch, a plain loop, Lightning and the Hugging Face Trainer."""

import logging
import warnings
from contextlib import nullcontext

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sktda import LightningRecorder, TorchModel, TrainerRecorder, TrajectoryRecorder, record_run
from tests.model.nets import Mlp, make_net, rows

ORDER = np.random.default_rng(3).permutation(40).tolist()
EPOCHS, BATCH = 6, 10
PLAN = {"n_checkpoints": 4, "steps": True, "optimizer_state": True}


class WithLoss(Mlp):
    """Computes its loss by itself when it gets labels, as Hugging Face's models do."""

    def forward(self, X, labels=None):
        logits = super().forward(X)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def data(n=40):
    """Rows as a TensorDataset."""
    X, y = rows(n)
    return TensorDataset(torch.tensor(X), torch.tensor(y))


def loader_of(dataset=None, **options):
    """Batches of ten in a fixed order."""
    options = {"batch_size": BATCH, "sampler": ORDER} | options
    return DataLoader(data() if dataset is None else dataset, **options)


def make(kind=Mlp, seed=0):
    """A module with the weights of the seed."""
    torch.manual_seed(seed)
    return kind()


def plain(module, optimizer, run=None, loader=None, epochs=EPOCHS, loss=nn.functional.cross_entropy):
    """The loop."""
    loader = loader_of() if loader is None else loader
    with nullcontext() if run is None else run:
        for _ in range(epochs):
            for X, y in loader:
                optimizer.zero_grad()
                loss(module(X), y).backward()
                optimizer.step()
    return module


def sgd(module, **options):
    """With momentum and weight decay."""
    return torch.optim.SGD(module.parameters(), **{"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01} | options)


def by_skorch(optimizer=torch.optim.SGD, **options):
    """Estimator."""
    options = {"lr": 0.1, "optimizer__weight_decay": 0.01} | options
    if optimizer is torch.optim.SGD:
        options["optimizer__momentum"] = 0.9
    net = make_net(
        TrajectoryRecorder(**PLAN),
        module=Mlp,
        optimizer=optimizer,
        iterator_train__sampler=ORDER,
        **options | {"iterator_train__shuffle": False},
    )
    return FrozenEstimator(net.fit(*rows()))


def by_plain_loop(make_optimizer=sgd):
    """Estimator."""
    module = make()
    loader, optimizer = loader_of(), make_optimizer(module)
    run = record_run(module, nn.CrossEntropyLoss(), optimizer, loader, n_steps=24, **PLAN)
    plain(module, optimizer, run, loader)
    return TorchModel(module, nn.CrossEntropyLoss(), run.trajectory_)


def by_lightning(make_optimizer=sgd, recorder=None, max_epochs=EPOCHS, ckpt_path=None, more=(), **options):
    """Estimator."""
    import lightning

    class Lit(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = make()

        def training_step(self, batch, index):
            X, y = batch
            return nn.functional.cross_entropy(self.net(X), y)

        def configure_optimizers(self):
            return make_optimizer(self.net)

    lit = Lit()
    recorder = recorder(lit.net) if recorder else LightningRecorder(lit.net, nn.CrossEntropyLoss(), **PLAN)
    trainer = quiet_trainer(recorder, max_epochs, callbacks=[recorder, *more], **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(lit, loader_of(), ckpt_path=ckpt_path)
    return TorchModel(lit.net, nn.CrossEntropyLoss(), recorder.trajectory_)


def quiet_trainer(recorder, max_epochs, **options):
    """Lightning's, on the processor, without files."""
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "barebones": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "max_epochs": max_epochs, "callbacks": [recorder]}
    return lightning.Trainer(**quiet | options)


def by_trainer(folder, make_optimizer=sgd, recorder=None, kind=WithLoss, resume=None, **options):
    """(estimator, trainer)."""
    import transformers

    class Trainer(transformers.Trainer):
        def get_train_dataloader(self):
            return self.accelerator.prepare(loader_of(self.train_dataset, collate_fn=named))

    def named(items):
        X, y = zip(*items, strict=True)
        return {"X": torch.stack(X), "labels": torch.stack(y)}

    module = make(kind)
    recorder = recorder or TrainerRecorder(nn.CrossEntropyLoss(), **PLAN)
    settings = {"num_train_epochs": EPOCHS, "max_grad_norm": 0.0, "report_to": [], "disable_tqdm": True}
    settings |= {"use_cpu": True, "save_strategy": "no", "per_device_train_batch_size": BATCH, "logging_strategy": "no"}
    arguments = transformers.TrainingArguments(str(folder), **settings | options)
    optimizers = None, None
    if make_optimizer is not None:
        optimizers = (optimizer := make_optimizer(module)), torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    trainer = Trainer(module, arguments, train_dataset=data(), optimizers=optimizers, callbacks=[recorder])
    trainer.train(resume_from_checkpoint=resume)
    return TorchModel(module, nn.CrossEntropyLoss(), recorder.trajectory_), trainer
