"""The record of a training: checkpoints, learning rates, optimiser, and which rows of which data it was trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sktda.model import trajectory_checks, trajectory_files
from sktda.model.checkpoints import Store
from sktda.model.fingerprint import occurrence, row_fingerprints
from sktda.model.step_settings import BY_STEP, at_step

MISFIT = 1e-3  # share of a gradient: what is below changes scores by no more


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Checkpoints c = 0..C-1 of one training, and what is needed to weigh them. Made by `TrajectoryRecorder`.

    Parameters
    ----------
    store : Store
        Holds the tensors; read them with `state`.
    identity : str
        Tells this trajectory from every other.
    optimizer : str
        Class name, such as "SGD".
    groups : list of dict
        Parameter groups of the optimiser: the names of their "parameters" and every hyperparameter, at the last step;
        "by_step" has all values of those that changed.
    module : dict
        `module_fingerprint` of the trained module.
    steps : ndarray of shape (C,)
        Number of optimiser steps done at each checkpoint; the last = all of them.
    group_learning_rates, group_rate_sums, group_effective_rate_sums, group_momenta : ndarray of shape (C, n_groups)
        Per parameter group: rate of the step that led to the checkpoint (before the scheduler moved on); sum of the
        rates of the steps since the previous checkpoint; the same with each rate divided by 1 - momentum and times
        what the gradient was scaled by (clipping by norm, accumulation without a mean); momentum.
    batch_sizes : ndarray of shape (C,)
        Rows in the step that led to the checkpoint.
    losses : ndarray of shape (C,)
        Mean training loss of the batches since the previous checkpoint.
    rescalings, misfits : ndarray of shape (C,)
        Of the steps since the previous checkpoint, the largest: ``abs(scale - 1)`` of what the gradient was scaled by;
        share of the gradient that was none of the loss at any scale (clipping by value, noise, another loss), infinity
        where parameters were trained that had been frozen.
    n_given : int or None
        Rows given to `fit`, those that train_split held out included.
    rows : ndarray of shape (N,) or None
        Positions of the trained rows in the X given to `fit`. None (as `n_given`) for an IterableDataset.
    fingerprints : ndarray of shape (N,) or None
        One uint64 per trained row; None if rows differ from read to read (random transforms).
    step_offsets, step_index, group_step_rates : ndarray of shape (T + 1,), (rows of all steps,), (T, n_groups), or None
        Recorded with ``steps=True``; read them with `step_rows`, `step_positions`, `step_learning_rates`.
    group_step_scales : ndarray of shape (T, n_groups) or None
        Also with ``steps=True``: what gradients were scaled by.
    """

    store: Store = field(repr=False)
    identity: str
    optimizer: str
    groups: list[dict[str, Any]] = field(repr=False)
    module: dict[str, list[list[Any]]] = field(repr=False)
    steps: np.ndarray
    group_learning_rates: np.ndarray = field(repr=False)
    group_rate_sums: np.ndarray = field(repr=False)
    group_effective_rate_sums: np.ndarray = field(repr=False)
    group_momenta: np.ndarray = field(repr=False)
    batch_sizes: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)
    rescalings: np.ndarray = field(repr=False)
    misfits: np.ndarray = field(repr=False)
    n_given: int | None = None
    rows: np.ndarray | None = field(default=None, repr=False)
    fingerprints: np.ndarray | None = field(default=None, repr=False)
    step_offsets: np.ndarray | None = field(default=None, repr=False)
    step_index: np.ndarray | None = field(default=None, repr=False)
    group_step_rates: np.ndarray | None = field(default=None, repr=False)
    group_step_scales: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.steps)

    # ---- tensors

    def state(self, c: int) -> dict[str, Tensor]:
        """Parameters and buffers at checkpoint c (-1 = final), on the processor; do not change them in place."""
        return self._part(self._name(c), "module/")

    def initial_state(self) -> dict[str, Tensor]:
        """Parameters and buffers before the first step; recorded with steps=True, else ValueError."""
        self._need_steps()
        return self._part("initial", "module/")

    def began_in_the_middle(self) -> bool:
        """Whether the optimiser had made steps before the first recorded one; needs steps=True, else ValueError."""
        self._need_steps()
        # SGD has a buffer, and Adam has counted, once a step was made
        state = self._part("initial", "optimizer/")
        return any(
            key.startswith("momentum_buffer/") or (key.startswith("step/") and v > 0) for key, v in state.items()
        )

    def optimizer_state(self, c: int) -> dict[str, dict[str, Tensor]]:
        """State of the optimiser at checkpoint c: {parameter name: {"momentum_buffer" or "exp_avg" ...: tensor}}.

        Raises ValueError if it was not recorded. A parameter without state (plain SGD) is left out.
        """
        state: dict[str, dict[str, Tensor]] = {}
        for place, value in self._part(self._name(c), "optimizer/").items():
            key, _, name = place.partition("/")
            state.setdefault(name, {})[key] = value
        if not state:
            without = " (SGD keeps none without momentum)" if self.optimizer == "SGD" else ""
            raise ValueError(
                f"the trajectory has no state of the optimiser {self.optimizer}: train with "
                f"TrajectoryRecorder(optimizer_state=True){without}"
            )
        return state

    def _name(self, c: int) -> str:
        if not -len(self) <= c < len(self):
            raise IndexError(f"checkpoint {c} does not exist: there are {len(self)}, counted from 0")
        return trajectory_files.checkpoint_name(c % len(self))

    def _part(self, name: str, prefix: str) -> dict[str, Tensor]:
        tensors = self.store.read(name)
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    # ---- rates and hyperparameters

    @property
    def n_steps(self) -> int:
        """Optimiser steps of the whole training."""
        return int(self.steps[-1])

    @property
    def learning_rates(self) -> np.ndarray:
        """(C,) of the first parameter group; see `parameter_groups` where there are several."""
        return self.group_learning_rates[:, 0]

    @property
    def rate_sums(self) -> np.ndarray:
        """(C,) sum of the learning rates of the steps since the previous checkpoint, first parameter group."""
        return self.group_rate_sums[:, 0]

    @property
    def effective_rate_sums(self) -> np.ndarray:
        """(C,) `rate_sums` / (1 - momentum), with each step's momentum (Adam's is 0), times its gradient's scale."""
        return self.group_effective_rate_sums[:, 0]

    @property
    def step_learning_rates(self) -> np.ndarray:
        """(T,) learning rate of every step, first parameter group."""
        self._need_steps()
        return self.group_step_rates[:, 0]  # type: ignore[index]

    @property
    def parameter_groups(self) -> dict[str, int]:
        """Group, a column of the `group_` arrays, of every parameter by name."""
        return {name: g for g, group in enumerate(self.groups) for name in group["parameters"]}

    @property
    def weight_decay(self) -> dict[str, float]:
        """Weight decay by parameter name, at the last step."""
        return {name: float(group.get("weight_decay", 0)) for group in self.groups for name in group["parameters"]}

    @property
    def decoupled_weight_decay(self) -> bool:
        """Whether the decay shrinks the weights directly (AdamW) and is not part of the gradient."""
        return self.optimizer == "AdamW" or bool(self.groups[0].get("decoupled_weight_decay", False))

    def check_gradients(self) -> None:
        """Raise ValueError if a step was made with another gradient than a multiple of that of the loss, or none."""
        if np.isinf(self.misfits.max()):
            raise ValueError(
                "in the recorded training parameters were frozen at first, whose rates count for them all the same; "
                "give those that wait for their turn a group of the optimiser with lr=0 until then, or use Influence"
            )
        if self.misfits.max() > MISFIT:
            raise ValueError(
                f"in the recorded training the optimiser got gradients of which {self.misfits.max():.0%} was not of "
                "the criterion's loss (clipping by value, noise, hooks, another loss, batches that record_run was not "
                "told of), so learning rates do not tell what a row did; clip by norm and train with the criterion's "
                "loss, or use Influence"
            )

    def check_constant(self, name: str) -> None:
        """Raise ValueError if this hyperparameter, a number, changed on the way: for what takes one for the run."""
        for group in self.groups:
            if values := group.get(BY_STEP, {}).get(name):
                raise ValueError(
                    f"{name} was not one number: it went from {min(values):g} to {max(values):g} in the recorded "
                    f"training; train with a constant {name}, or use SGDInfluence, which follows every step's"
                )

    @property
    def momentum(self) -> float:
        """Heavy-ball momentum, 0 without; ValueError if it differed between groups or changed on the way."""
        between = [group.get(BY_STEP, {}).get("momentum", []) for group in self.groups]  # the checkpoints
        every = np.concatenate([self.group_momenta.ravel(), *between])
        if np.ptp(every) > 0:
            raise ValueError(
                f"momentum was not one number: it went from {every.min():g} to {every.max():g} (OneCycleLR cycles it); "
                "use effective_rate_sums, which knows every step's, or train with a constant momentum"
            )
        return float(self.group_momenta[0, 0])

    @property
    def nesterov(self) -> bool:
        """Whether the momentum is Nesterov's."""
        return bool(self.groups[0].get("nesterov", False))

    @property
    def betas(self) -> tuple[float, ...] | None:
        """Adam's (beta1, beta2), None for optimisers without."""
        betas = self.groups[0].get("betas")
        return None if betas is None else tuple(betas)

    @property
    def eps(self) -> float | None:
        """Adam's epsilon, None for optimisers without."""
        return self.groups[0].get("eps")

    def step_positions(self, k: int) -> np.ndarray:
        """Rows of the batch of step k = 0..T-1, as positions among the trained rows (0..N-1)."""
        self._need_steps()
        if not 0 <= k < self.n_steps:
            raise IndexError(f"step {k} does not exist: there are {self.n_steps}, counted from 0")
        return self.step_index[self.step_offsets[k] : self.step_offsets[k + 1]]  # type: ignore[index]

    def step_groups(self, k: int) -> list[dict[str, Any]]:
        """`groups` as they were at step k = 0..T-1, all but their rates."""
        return at_step(self.groups, k)

    def step_rows(self, k: int) -> np.ndarray:
        """Rows of the batch of step k = 0..T-1, as positions in the X given to `fit`."""
        return self.rows[self.step_positions(k)]  # type: ignore[index]

    def _need_steps(self) -> None:
        if self.step_index is None:
            raise ValueError(
                "the steps were not recorded; train with TrajectoryRecorder(steps=True), or steps=True of record_run"
            )

    # ---- is it the trajectory of this model and of these rows?

    def check_module(self, module: nn.Module) -> None:
        """Raise ValueError if the trajectory is of another model, naming the first difference."""
        trajectory_checks.check_module(self, module)

    def check_final(self, module: nn.Module) -> None:
        """Raise ValueError if the module's parameters are not those of the last checkpoint, or are not finite."""
        trajectory_checks.check_final(self, module)

    def positions(self, X: Any, y: Any = None) -> np.ndarray:
        """Position (n,) of each row of (X, y) among the trained rows; of equal rows the k-th goes to the k-th.

        X, y as they were given to `fit`, or any subset, order or repetition of those rows.
        Raises ValueError if a row was not trained on.
        """
        asked, order, first, count = self._found(X, y)
        if (count == 0).any():
            raise ValueError(trajectory_checks.foreign(self, np.flatnonzero(count == 0), len(asked)))
        # more equal rows than were trained begin with the first again
        return order[first + occurrence(asked) % count]

    def contains(self, X: Any, y: Any = None) -> np.ndarray:
        """Which rows (n,) of (X, y) were trained on; of equal rows as many as were, the first ones.

        Raises ValueError if the trained rows cannot be recognised.
        """
        asked, _, _, count = self._found(X, y)
        return occurrence(asked) < count

    def _found(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(fingerprints of the rows, order of the trained ones, first equal one in that order, how many)."""
        if self.rows is None or self.fingerprints is None:
            raise ValueError(
                "the trained rows cannot be recognised: the Dataset is iterable, or gives other values on every read "
                "(random transforms); train on a Dataset whose rows do not change"
            )
        asked = row_fingerprints(X, y)
        order = np.argsort(self.fingerprints, kind="stable")
        ordered = self.fingerprints[order]
        # equal prints stand together in order: from left to right are all trained rows that a row can be
        first = np.searchsorted(ordered, asked, side="left")
        return asked, order, first, np.searchsorted(ordered, asked, side="right") - first

    def check_rows(self, X: Any, y: Any = None) -> None:
        """Raise ValueError if a row of (X, y) was not trained on; passes where rows cannot be recognised."""
        if self.fingerprints is not None:
            self.positions(X, y)

    # ---- files

    @classmethod
    def from_checkpoints(
        cls,
        checkpoints: Any,
        learning_rates: Any = None,
        *,
        module: nn.Module,
        steps: Sequence[int] | None = None,
        optimizer: torch.optim.Optimizer | str | None = None,
        X: Any = None,
        y: Any = None,
    ) -> Trajectory:
        """The trajectory of a training that was not recorded, of the checkpoints that it saved.

        Parameters
        ----------
        checkpoints : path-like, or list of path-like or dict
            In the order of training, the last one after it: files of a state_dict by torch.save or safetensors, alone
            or under a name such as "model" or "state_dict" (Lightning's .ckpt), folders of the Trainer
            (checkpoint-500, shards too), state_dicts; or one folder that holds them all. Nothing is unpickled. Files
            are read when they are asked for, so they must stay; `save` makes a copy.
        learning_rates : float or array-like, default=None
            One number, one for each checkpoint (it counts for the steps since the one before), or one for each step.
            None = what the files tell: the Trainer's log, else the rate that the optimiser was saved with.
        module : torch.nn.Module
            Of the class that was trained, with the parameters that were trained requiring gradients.
        steps : sequence of int, default=None
            Steps of the optimiser that were done at each checkpoint. None = what the files tell.
        optimizer : torch.optim.Optimizer or str, default=None
            One made for `module` as in the training, for momentum, weight decay and groups; or its name, where it had
            none. None = what the files tell.
        X, y : default=None
            The rows that were trained on (a Dataset alone, or arrays), so that others are recognised. None = not
            checked.

        Raises
        ------
        FileNotFoundError
            For a file that is missing.
        ValueError
            For checkpoints of another module, out of order, with NaN in them, or that hold pickled objects; and for
            steps, rates or an optimiser that neither the files nor the arguments tell.

        Notes
        -----
        What happened between checkpoints is not in them: gradients count as those of the loss, not clipped, and rows
        of single steps are not known, so that SGDInfluence needs a recorded run.
        """
        from sktda.model.from_checkpoints import from_checkpoints  # which needs this module

        return from_checkpoints(
            cls, checkpoints, learning_rates, module=module, steps=steps, optimizer=optimizer, X=X, y=y
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write safetensors files into a new folder, which appears whole or not at all; one checkpoint in memory.

        Raises FileExistsError if the folder exists (a recorder's own path is complete as it is).
        """
        trajectory_files.save(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Trajectory:
        """Read what `save`, or a recorder with a path, wrote; checkpoints are read when they are asked for.

        Raises FileNotFoundError naming a file that is missing, and ValueError for anything that is no trajectory or is
        not as it was written: every file has a checksum.
        """
        return trajectory_files.load(cls, folder)
