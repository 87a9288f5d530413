"""One training while it goes on: the counters, sums and lists that a Trajectory is made of."""

from __future__ import annotations

import uuid
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skorch.utils import is_dataset
from torch import nn

from sktda.model import trajectory_files
from sktda.model.checkpoints import FolderStore, MemoryStore, Store, snapshot
from sktda.model.fingerprint import changes_between_reads, module_fingerprint, row_fingerprints
from sktda.model.reading import count
from sktda.model.sampling import trained_positions
from sktda.model.step_gradients import StepGradients
from sktda.model.step_settings import StepSettings, settings
from sktda.model.trajectory import MISFIT, Trajectory
from sktda.model.trajectory_files import checkpoint_name


class Recording:
    """One training as it goes on: the counters, sums and lists that a Trajectory is made of."""

    def __init__(self, path: Any, with_steps: bool, by_parts: bool = False) -> None:
        self.by_parts = by_parts  # whether the losses say which rows they are of, and not the batches
        self.identity = uuid.uuid4().hex  # from the operating system: no random generator is touched
        self.store: Store = MemoryStore()
        if path is not None:
            self.store = FolderStore(Path(path).resolve(), self.identity)
            self.store.claim()
        self.with_steps = with_steps
        self.meet = False  # whether rows meet in the criterion
        self.began = self.lost = False  # lost: rows of a step are not known, where they should be
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
        self.frozen: set[tuple[int, int]] = set()
        self.drawn: deque[np.ndarray] = deque()
        self._reset()
        self._reset_interval()

    def write_index(self) -> None:
        """Make the folder one that can be loaded as it is now."""
        if isinstance(self.store, FolderStore):
            trajectory_files.write_index(self.trajectory(), self.store.folder)

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

    def start(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, about: dict[str, Any], spacing: float | None
    ) -> None:
        """Note data and model (they must be the same if training continues), and follow the optimiser."""
        self.data = None
        module = plain(module)
        if self.steps:
            self._check_continues(about, module)
        elif self.with_steps and not self.began:  # an interrupt before the first step lets training begin twice
            self.store.write("initial", snapshot(module, optimizer))
            self.began = True
        self.about = about
        self.plan(spacing)
        self.handle = optimizer.register_step_post_hook(self.stepped)

    def plan(self, spacing: float | None) -> None:
        """Checkpoints after every so many batches, or steps of a loop, from now on."""
        self.origin, self.spacing, self.k = 0 if self.by_parts else self.batches, spacing, 1
        self._skip_past()

    def _check_continues(self, about: dict[str, Any], module: nn.Module) -> None:
        for name, value in self.about.items():
            if not np.array_equal(value, about[name]) if isinstance(value, np.ndarray) else value != about[name]:
                what = "another optimiser" if name == "optimizer" else "other rows"
                raise ValueError(
                    f"training is continued with {what} than before, but a trajectory is of one model and one "
                    "data set; begin a new one (call fit of a net, leave out resume; if train_split draws at random, "
                    "give it a random_state or use train_split=None)"
                )
        if self.taken and self.taken[-1]["steps"] == self.steps:  # else a copy made between two checkpoints
            self.trajectory().check_final(module)

    def next_batch(self, n: int, optimizer: torch.optim.Optimizer) -> None:
        self.batch_steps, self.batch_size = 0, n
        # gradients may be added up over batches: the rows of a step are those since the last one
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
        self._check_groups(len(groups))
        # before the count goes on: a step is named by how many came before it
        self.settings.note(self.steps, groups)
        if self.by_parts and self.with_steps:
            self._check_rows_known()
        self.steps += 1
        self.batch_steps += 1
        self.rates = [float(group["lr"]) for group in groups]
        self.momenta = [float(group.get("momentum", 0)) for group in groups]
        # before at_step, which forgets the parts
        seen = self._seen_by_parts()
        step = self.gradients.at_step(optimizer, self.batch_size)
        # m keeps a gradient in later steps: (1 - dampening) (1 + m + m^2 + ...) = (1 - dampening) / (1 - m) in all
        share = [
            scale * ((1 - group.get("dampening", 0)) / (1 - m) if m else 1.0)
            for group, m, scale in zip(groups, self.momenta, step.scales, strict=True)
        ]
        self.rescaling = max(self.rescaling, step.uneven, *(abs(scale - 1) for scale in step.scales))
        self.misfit = max(self.misfit, step.misfit, self._woken(groups))
        self.rate_sums = self.rate_sums + np.array(self.rates)
        self.effective_rate_sums = self.effective_rate_sums + np.array(self.rates) * share
        self.last_size, self.pending_rows = self.pending_rows, 0
        rows = seen if self.by_parts else self.rows
        if self.with_steps and rows is not None:
            self.step_rows.append(rows)
            self.step_rates.append(self.rates)
            # rows that counted unevenly have no scale in common: NaN, which says that it is not known
            self.step_scales.append(step.scales if step.uneven <= MISFIT else [float("nan")] * len(groups))

    def _check_groups(self, n: int) -> None:
        """ValueError where groups of parameters came or went: their rates are columns of one array."""
        # of a run that is resumed the checkpoints know
        before = len(self.rates or (self.taken[-1]["group_momenta"] if self.taken else [])) or n
        if before != n:
            self.lost = True
            raise ValueError(
                f"the optimiser had {before} groups of parameters, and {n} at step {self.steps + 1}; give it all of "
                "them from the start, with lr=0 and their parameters frozen until it is their turn"
            )

    def _woken(self, groups: list[dict[str, Any]]) -> float:
        """Infinity where a parameter is trained that was frozen at a step whose rate counts for it, else 0."""
        frozen = {
            (k, j) for k, group in enumerate(groups) for j, p in enumerate(group["params"]) if not p.requires_grad
        }
        woken = self.frozen - frozen
        self.frozen |= {(k, j) for k, j in frozen if self.rates[k]}
        return np.inf if woken else 0.0

    def _check_rows_known(self) -> None:
        parts = self.gradients.parts
        if self.meet and len(parts) > 1:
            self.lost = True
            raise ValueError(
                f"step {self.steps + 1} adds the losses of {len(parts)} batches, in each of which rows meet, and which "
                "ones met is not recorded; make a step per batch"
            )
        if parts and all(part.rows is not None for part in parts):
            return
        self.lost = True
        cause = "no batch was named before its forward pass" if parts else "the module was not called, or not trained"
        raise ValueError(
            f"steps=True needs the rows of every step, and of step {self.steps + 1} they are not known: {cause}; go "
            "through the DataLoader that record_run was given, or call run.batch(indices) before each forward pass"
        )

    def _seen_by_parts(self) -> np.ndarray | None:
        """Rows of the step that was made, where the losses know theirs; sets the sizes that go with them."""
        if not self.by_parts:
            return None
        parts = self.gradients.parts
        self.batch_size = sum(part.size for part in parts)
        rows = [part.rows for part in parts if part.rows is not None]
        self.pending_rows = sum(part.size if part.rows is None else len(part.rows) for part in parts)
        return np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)

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
        # rounded from the start each time, so that spacings of 2.5 do not drift
        while self.spacing and self.origin + round(self.k * self.spacing) <= self.batches:
            self.k += 1

    def checkpoint(self, module: nn.Module, optimizer: torch.optim.Optimizer, with_optimizer: bool) -> None:
        """Take one of the current parameters, unless the last one is of the same step."""
        if not self.steps or (self.taken and self.taken[-1]["steps"] == self.steps):
            self._skip_past()
            return
        module = plain(module)
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
        self.groups = numbered_groups(module, optimizer)
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
                # steps may have any number of rows: those of step k are index[offsets[k] : offsets[k + 1]]
                "step_offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
                "step_index": np.concatenate(self.step_rows).astype(np.int64),
                "group_step_rates": np.array(self.step_rates),
                # a run that goes on from a record without scales has them for its later steps only
                "group_step_scales": np.array(self.step_scales) if len(self.step_scales) == self.steps else None,
            }
        groups = [group | self.settings.described(k, self.steps) for k, group in enumerate(self.groups)]
        about = {**self.about, "groups": groups, "module": self.module}
        return Trajectory(store=self.store, identity=self.identity, **about, **arrays)


class Counted:
    """Stands in for a Dataset of so many rows."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    @classmethod
    def given(cls, X: Any, y: Any) -> tuple[Any, Any, Any]:
        """(dataset, X, y) as `described` takes them, of a Dataset or of arrays."""
        return (X, None, None) if is_dataset(X) else (cls(count(X)), X, y)


def plain(module: nn.Module) -> nn.Module:
    """The module inside of what torch.compile or DistributedDataParallel put around it, which prefixes every name."""
    while True:
        module = getattr(module, "_orig_mod", module)
        if not isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
            return module
        module = module.module


def described(optimizer: str, dataset: Any, X: Any, y: Any) -> dict[str, Any]:
    """What must stay the same if training continues; X None: the dataset itself was given."""
    about: dict[str, Any] = {
        "optimizer": optimizer,
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


def numbered_groups(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Names of the parameters and every hyperparameter that is a number, per group."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return [
        # an optimiser may hold parameters of other modules, too
        {"parameters": [names[parameter] for parameter in group["params"] if parameter in names], **settings(group)}
        for group in optimizer.param_groups
    ]
