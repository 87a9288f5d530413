"""One training while it goes on: the counters, sums and lists that a Trajectory is made of."""

from __future__ import annotations

import uuid
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sktda.model.checkpoints import FolderStore, MemoryStore, Store, snapshot
from sktda.model.fingerprint import changes_between_reads, module_fingerprint, row_fingerprints
from sktda.model.sampling import trained_positions
from sktda.model.step_gradients import StepGradients
from sktda.model.step_settings import StepSettings, settings
from sktda.model.trajectory import Trajectory
from sktda.model.trajectory_files import checkpoint_name


class Recording:
    """One training as it goes on: the counters, sums and lists that a Trajectory is made of."""

    def __init__(self, path: Any, with_steps: bool) -> None:
        self.identity = uuid.uuid4().hex  # from the operating system: no random generator is touched
        self.store: Store = MemoryStore()
        if path is not None:
            self.store = FolderStore(Path(path).resolve(), self.identity)
            self.store.claim()
        self.with_steps = with_steps
        self.began = False
        self.steps = self.epochs = self.batches = self.origin = self.last_size = 0
        self.spacing: float | None = None
        self.k = 1
        self.rates: list[float] = []
        self.momenta: list[float] = []
        self.groups: list[dict[str, Any]] = []
        self.about: dict[str, Any] = {}
        self.taken: list[dict[str, Any]] = []
        self.step_rows: list[np.ndarray] = []
        self.step_rates: list[list[float]] = []
        self.step_scales: list[list[float]] = []
        self.settings = StepSettings()
        self.drawn: deque[np.ndarray] = deque()
        self._reset()
        self._reset_interval()

    def _reset(self) -> None:
        """What lives only while training runs."""
        self.data: tuple[Any, Any] | None = None
        self.handle: Any = None
        self.gradients = StepGradients()
        self.rows: np.ndarray | None = None
        self.batch_steps = self.batch_size = self.pending_rows = 0

    def _reset_interval(self) -> None:
        self.rate_sums: Any = 0.0
        self.effective_rate_sums: Any = 0.0
        self.rescaling = self.misfit = 0.0
        self.losses: list[float] = []

    def __getstate__(self) -> dict[str, Any]:
        # a copy made in the middle of training (skorch's Checkpoint) has no use for the user's data or for hooks
        return vars(self) | {
            "data": None,
            "handle": None,
            "gradients": StepGradients(),
            "rows": None,
            "drawn": deque(),
        }

    @property
    def pending(self) -> bool:
        """Whether training was announced and its first epoch has not begun."""
        return self.data is not None

    def begin(self, X: Any, y: Any) -> None:
        self.release()
        self._reset()
        self.data = (X, y)
        self.drawn = deque()

    def start(self, net: Any, dataset: Any, spacing: float | None) -> None:
        """Describe data and model (they must be the same if training continues), and follow the optimiser."""
        X, y = self.data  # type: ignore[misc]
        self.data = None
        module = _plain(net.module_)
        about = _describe(net, dataset, X, y)
        if self.steps:
            self._check_continues(about, module)
        elif self.with_steps and not self.began:  # an interrupt before the first step lets training begin twice
            self.store.write("initial", snapshot(module, net.optimizer_))
            self.began = True
        self.about = about
        self.origin, self.spacing, self.k = self.batches, spacing, 1
        self._skip_past()
        self.gradients.attach(net.criterion_)
        self.handle = net.optimizer_.register_step_post_hook(self.stepped)

    def _check_continues(self, about: dict[str, Any], module: nn.Module) -> None:
        for name, value in self.about.items():
            if not np.array_equal(value, about[name]) if isinstance(value, np.ndarray) else value != about[name]:
                what = "another optimiser" if name == "optimizer" else "other rows"
                raise ValueError(
                    f"training is continued with {what} than before, but a trajectory is of one model and one "
                    "data set; call fit to begin a new one (if train_split draws at random, give it a random_state or "
                    "use train_split=None)"
                )
        if self.taken and self.taken[-1]["steps"] == self.steps:  # else a copy made between two checkpoints
            self.trajectory().check_final(module)

    def next_batch(self, n: int, optimizer: torch.optim.Optimizer) -> None:
        self.batch_steps, self.batch_size = 0, n
        if not self.gradients.n_losses:
            self.pending_rows = 0
        self.pending_rows += n
        self.gradients.follow(optimizer)
        if not self.with_steps:
            return
        self.rows = self.drawn.popleft() if self.drawn else None
        if self.rows is None or self.rows.shape != (n,) or self.rows.dtype.kind not in "iu":
            drawn = "none were seen" if self.rows is None else f"{self.rows.size} were drawn"
            raise ValueError(
                f"steps=True lost track of the rows: a batch holds {n}, but {drawn}; the net must take its batches "
                "from iterator_train, one row per whole number that its sampler draws. Use steps=False otherwise"
            )

    def stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Called by the optimiser after each step, before any scheduler changes the rate."""
        groups = optimizer.param_groups
        self.settings.note(self.steps, groups)
        self.steps += 1
        self.batch_steps += 1
        self.rates = [float(group["lr"]) for group in groups]
        self.momenta = [float(group.get("momentum", 0)) for group in groups]
        scales, misfit = self.gradients.at_step(optimizer, self.batch_size)
        share = [
            scale * ((1 - group.get("dampening", 0)) / (1 - m) if m else 1.0)
            for group, m, scale in zip(groups, self.momenta, scales, strict=True)
        ]
        self.rescaling = max(self.rescaling, *(abs(scale - 1) for scale in scales))
        self.misfit = max(self.misfit, misfit)
        self.rate_sums = self.rate_sums + np.array(self.rates)
        self.effective_rate_sums = self.effective_rate_sums + np.array(self.rates) * share
        self.last_size, self.pending_rows = self.pending_rows, 0
        if self.rows is not None:
            self.step_rows.append(self.rows)
            self.step_rates.append(self.rates)
            self.step_scales.append(scales)

    def end_batch(self, loss: Any) -> None:
        self.batches += 1
        if self.batch_steps > 1 or (self.with_steps and not self.batch_steps):
            raise ValueError(
                f"a batch ended after {self.batch_steps} optimiser steps; TrajectoryRecorder needs one per batch (or, "
                "without steps=True, one per several batches): take it out of the callbacks, or use the batch size "
                "that you want to accumulate"
            )
        if loss is not None:
            self.losses.append(loss.item() if isinstance(loss, torch.Tensor) else float(loss))

    def due(self) -> bool:
        return self.spacing is not None and self.batches >= self.origin + round(self.k * self.spacing)

    def _skip_past(self) -> None:
        """Move on to the first planned checkpoint ahead; spacings below one batch would name a batch twice."""
        while self.spacing and self.origin + round(self.k * self.spacing) <= self.batches:
            self.k += 1

    def checkpoint(self, net: Any, with_optimizer: bool) -> None:
        """Take one of the current parameters, unless the last one is of the same step."""
        if not self.steps or (self.taken and self.taken[-1]["steps"] == self.steps):
            self._skip_past()
            return
        module, optimizer = _plain(net.module_), net.optimizer_
        self.store.write(checkpoint_name(len(self.taken)), snapshot(module, optimizer if with_optimizer else None))
        self.taken.append(
            {
                "steps": self.steps,
                "group_learning_rates": self.rates,
                "group_rate_sums": self.rate_sums,
                "group_effective_rate_sums": self.effective_rate_sums,
                "group_momenta": self.momenta,
                "batch_sizes": self.last_size,
                "rescalings": self.rescaling,
                "misfits": self.misfit,
                "losses": float(np.mean(self.losses)) if self.losses else np.nan,
            }
        )
        self._reset_interval()
        self._skip_past()
        self.groups = _groups(module, optimizer)
        self.module = module_fingerprint(module)  # after a step, when lazy layers have their shapes

    def release(self) -> None:
        if self.handle is not None:
            self.handle.remove()
        self.gradients.release()
        self.handle = self.rows = self.data = None

    def trajectory(self) -> Trajectory:
        arrays: dict[str, Any] = {name: np.array([entry[name] for entry in self.taken]) for name in self.taken[0]}
        if self.with_steps:
            sizes = [len(rows) for rows in self.step_rows]
            arrays |= {
                "step_offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
                "step_index": np.concatenate(self.step_rows).astype(np.int64),
                "group_step_rates": np.array(self.step_rates),
                "group_step_scales": np.array(self.step_scales) if len(self.step_scales) == self.steps else None,
            }
        groups = [group | self.settings.described(k, self.steps) for k, group in enumerate(self.groups)]
        about = {**self.about, "groups": groups, "module": self.module}
        return Trajectory(store=self.store, identity=self.identity, **about, **arrays)


def _plain(module: nn.Module) -> nn.Module:
    return getattr(module, "_orig_mod", module)  # torch.compile wraps it and prefixes every name


def _describe(net: Any, dataset: Any, X: Any, y: Any) -> dict[str, Any]:
    """What must stay the same if training continues."""
    about: dict[str, Any] = {
        "optimizer": type(net.optimizer_).__name__,
        "n_given": None,
        "rows": None,
        "fingerprints": None,
    }
    place = trained_positions(dataset, X)
    if place is not None:
        about["rows"], about["n_given"] = place
        source = dataset if X is None else X
        rows = None if X is None else about["rows"]
        if not changes_between_reads(source):
            about["fingerprints"] = row_fingerprints(source, y, rows)
    return about


def _groups(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Names of the parameters and every hyperparameter that is a number, per group."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return [
        {"parameters": [names[parameter] for parameter in group["params"] if parameter in names], **settings(group)}
        for group in optimizer.param_groups
    ]
