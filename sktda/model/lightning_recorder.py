"""LightningRecorder: a callback of Lightning that records a training."""

from __future__ import annotations

from math import isfinite
from typing import Any

from torch.utils.data import DataLoader

from sktda.model.loop import record_run

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback  # type: ignore[no-redef, assignment]
    except ImportError:
        Callback = object  # type: ignore[misc, assignment]


class LightningRecorder(Callback):
    """Record a training by Lightning's Trainer, as `record_run` records a loop.

    Parameters
    ----------
    module : torch.nn.Module
        The module whose outputs the criterion gets: the LightningModule itself where training_step calls
        ``self(inputs)``, or the part of it that it calls, such as ``lit.net``.
    criterion : torch.nn.Module
        The loss of training_step, as a module with reduction "mean" or "sum".
    n_checkpoints : int, default=6
        Checkpoints are taken after steps round(k T / n_checkpoints), T the steps that the Trainer plans, and of the
        final parameters. Where it plans none (max_epochs=-1), after every epoch.
    every : int or None, default=None
        Take a checkpoint after every so many steps instead.
    steps, optimizer_state : bool, default=False
        As of `record_run`.
    path, resume : path-like or None, default=None
        As of `record_run`; with ``trainer.fit(ckpt_path=...)``, resume continues the record, too.

    Attributes
    ----------
    trajectory_ : Trajectory
        After training, also where it was interrupted.

    Raises
    ------
    ImportError
        Without Lightning.
    ValueError
        When training starts: several optimisers or DataLoaders, several processes, LBFGS.

    Examples
    --------
    See the page "Your own training loop".
    """

    def __init__(
        self,
        module,
        criterion,
        *,
        n_checkpoints=6,
        every=None,
        steps=False,
        optimizer_state=False,
        path=None,
        resume=None,
    ):
        if Callback is object:
            raise ImportError("LightningRecorder needs Lightning; pip install lightning")
        super().__init__()
        self.module = module
        self.criterion = criterion
        self.n_checkpoints, self.every = n_checkpoints, every
        self.options = {"steps": steps, "optimizer_state": optimizer_state, "path": path, "resume": resume}
        self.run: record_run | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Stand between the Trainer and its DataLoader, whose sampler it starts before any other hook."""
        if stage != "fit":
            return
        source = trainer.fit_loop._data_source
        own = type(source).dataloader

        def told() -> Any:
            loader = own(source)
            self._begin(trainer, loader)
            return loader

        source.dataloader = told

    def _begin(self, trainer: Any, loader: Any) -> None:
        if not isinstance(loader, DataLoader):
            raise ValueError(
                f"LightningRecorder follows one DataLoader, and this training has a {type(loader).__name__}"
            )
        if self.run is None:
            if len(trainer.optimizers) != 1:
                raise ValueError(
                    f"LightningRecorder records a training by one optimiser, and this one has {len(trainer.optimizers)}"
                )
            # how many steps there will be is known once the loaders are there
            planned = {"every": self.every, "n_steps": None if self.every else 1, "n_checkpoints": self.n_checkpoints}
            self.run = record_run(self.module, self.criterion, trainer.optimizers[0], loader, **planned, **self.options)
            self.run.begin()
        self.run.follow(loader)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Plan the checkpoints."""
        if self.run is None or self.every is not None:
            return
        n_steps = trainer.estimated_stepping_batches
        self.run.plan(n_steps if isfinite(n_steps) else None)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Which rows come next."""
        if self.run is not None:
            self.run.next_drawn(batch)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Take a checkpoint where no number of steps is planned."""
        if self.run is not None:
            self.run.pass_is_over()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The present parameters are the last."""
        self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The present parameters are the last."""
        trainer.fit_loop._data_source.__dict__.pop("dataloader", None)
        if self.run is not None:
            self.run.finish()
            if hasattr(self.run, "trajectory_"):
                self.trajectory_ = self.run.trajectory_
            self.run = None
