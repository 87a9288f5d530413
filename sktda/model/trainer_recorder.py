"""TrainerRecorder: a callback of the Hugging Face Trainer that records a training."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import DataLoader

from sktda.model.batches import LABELS
from sktda.model.loop import record_run

try:
    from transformers import TrainerCallback
except ImportError:
    TrainerCallback = object  # type: ignore[misc, assignment]


class TrainerRecorder(TrainerCallback):
    """Record a training by the Hugging Face Trainer, as `record_run` records a loop.

    Parameters
    ----------
    criterion : torch.nn.Module
        The loss that the model computes of its logits and labels, as a module: ``nn.CrossEntropyLoss()`` of a
        classifier.
    n_checkpoints : int, default=6
        Checkpoints are taken after steps round(k T / n_checkpoints), T the steps that the Trainer plans, and of the
        final parameters.
    every : int or None, default=None
        Take a checkpoint after every so many steps instead.
    steps, optimizer_state : bool, default=False
        As of `record_run`.
    path, resume : path-like or None, default=None
        As of `record_run`; with ``trainer.train(resume_from_checkpoint=...)``, resume continues the record, too.

    Attributes
    ----------
    trajectory_ : Trajectory
        After training.

    Raises
    ------
    ImportError
        Without transformers.
    ValueError
        When training starts: several processes, LBFGS, a training set without positions with steps=True.

    Examples
    --------
    See the page "Your own training loop".
    """

    def __init__(
        self, criterion, *, n_checkpoints=6, every=None, steps=False, optimizer_state=False, path=None, resume=None
    ):
        if TrainerCallback is object:
            raise ImportError("TrainerRecorder needs transformers; pip install 'transformers[torch]'")
        self.criterion = criterion
        self.n_checkpoints, self.every = n_checkpoints, every
        self.options = {"steps": steps, "optimizer_state": optimizer_state, "path": path, "resume": resume}
        self.run: record_run | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Begin to record."""
        model, loader = given["model"], given["train_dataloader"]
        optimizer = getattr(given["optimizer"], "optimizer", given["optimizer"])  # accelerate's around torch's
        planned = {"n_steps": state.max_steps, "every": self.every, "n_checkpoints": self.n_checkpoints}
        self.run = record_run(model, self.criterion, optimizer, loader, **planned, **self.options)
        self._left_out = left_out(state.global_step, self.run.loader, args)
        self.run.begin(self._claim)
        self.run.follow(loader)

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """After this, training may end with other parameters put back."""
        if self.run is not None and args.load_best_model_at_end:
            self.run.checkpoint()

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """The present parameters are the last."""
        if self.run is not None:
            self.run.finish()
            if hasattr(self.run, "trajectory_"):
                self.trajectory_ = self.run.trajectory_
            self.run = None

    def _claim(self, drawn: deque[np.ndarray], module: nn.Module, keywords: Mapping[str, Any]) -> tuple[Any, Any]:
        # the Trainer reads ahead, so that a batch is known by its forward pass: they are taken in order
        if self.run is None or not module.training:
            return None, None
        while self._left_out and drawn:
            drawn.popleft()
            self._left_out -= 1
        rows = drawn.popleft() if drawn else None
        targets = next((keywords[name] for name in LABELS if keywords.get(name) is not None), None)
        if targets is None and rows is not None:
            targets = self.run.targets(rows)
        return rows, targets


def left_out(n_steps: int, loader: Any, args: Any) -> int:
    """Batches that are drawn and not trained on, of an epoch that is resumed in its middle, after so many steps."""
    if not n_steps or args.ignore_data_skip or not isinstance(loader, DataLoader):
        return 0
    per_epoch = max(1, -(-len(loader) // args.gradient_accumulation_steps))
    return n_steps % per_epoch * args.gradient_accumulation_steps
