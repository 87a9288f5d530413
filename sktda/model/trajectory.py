"""The record of a training: checkpoints, learning rates, optimiser, and which rows of which data it was trained on."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sktda.model import trajectory_files
from sktda.model.checkpoints import Store
from sktda.model.fingerprint import module_fingerprint, row_fingerprints
from sktda.model.step_settings import at_step

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
        share of the gradient that was none of the loss at any scale (clipping by value, noise, another loss).
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
        """Weight decay by parameter name."""
        return {name: float(group.get("weight_decay", 0)) for group in self.groups for name in group["parameters"]}

    @property
    def decoupled_weight_decay(self) -> bool:
        """Whether the decay shrinks the weights directly (AdamW) and is not part of the gradient."""
        return self.optimizer == "AdamW" or bool(self.groups[0].get("decoupled_weight_decay", False))

    def check_gradients(self) -> None:
        """Raise ValueError if a step was made with another gradient than a multiple of that of the loss."""
        if self.misfits.max() > MISFIT:
            raise ValueError(
                f"in the recorded training the optimiser got gradients of which {self.misfits.max():.0%} was not of "
                "the criterion's loss (clipping by value, noise, hooks, another loss), so learning rates do not tell "
                "what a row did; clip by norm and train with the criterion's loss, or use Influence"
            )

    @property
    def momentum(self) -> float:
        """Heavy-ball momentum, 0 without; ValueError if it differed between groups or changed on the way."""
        if np.ptp(self.group_momenta) > 0:
            raise ValueError(
                f"momentum was not one number: it went from {self.group_momenta.min():g} to "
                f"{self.group_momenta.max():g} (OneCycleLR cycles it); use effective_rate_sums, which knows every "
                "step's, or train with a constant momentum"
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
            raise ValueError("the steps were not recorded; train with TrajectoryRecorder(steps=True)")

    # ---- is it the trajectory of this model and of these rows?

    def check_module(self, module: nn.Module) -> None:
        """Raise ValueError if the trajectory is of another model, naming the first difference."""
        other = module_fingerprint(module)
        for kind in ("parameters", "buffers"):
            mine, theirs = ({entry[0]: entry[1:] for entry in print_[kind]} for print_ in (self.module, other))
            for name in [*mine, *theirs]:
                if mine.get(name) != theirs.get(name):
                    raise ValueError(
                        f"the trajectory is of another model: {kind[:-1]} '{name}' is {_shown(mine.get(name))} in the "
                        f"trajectory and {_shown(theirs.get(name))} in the module; use the net that was trained"
                    )
        kinds: dict[str, str] = dict(self.module["modules"])  # type: ignore[arg-type]
        for name, kind in other["modules"]:
            if kinds.get(name) != kind:
                raise ValueError(
                    f"the trajectory is of another model: {repr(name) if name else 'the module'} is a "
                    f"{kinds.get(name)} in the trajectory and a {kind} in the module; use the net that was trained"
                )

    def check_final(self, module: nn.Module) -> None:
        """Raise ValueError if the module's parameters are not those of the last checkpoint, or are not finite."""
        self.check_module(module)
        state = self.state(-1)
        for name, value in getattr(module, "_orig_mod", module).named_parameters():
            if not bool(torch.isfinite(state[name]).all()):
                raise ValueError(
                    f"training diverged: '{name}' holds NaN or infinity after step {self.n_steps}, at learning rate "
                    f"{self.learning_rates[-1]:g}; train with a smaller learning rate"
                )
            if not torch.equal(value.detach().cpu(), state[name]):
                raise ValueError(
                    f"parameters of the net are not those at the end of its trajectory ('{name}' differs). Causes: "
                    "EarlyStopping or Checkpoint with load_best=True put earlier parameters back, load_params, one "
                    "TrajectoryRecorder shared by two nets, or a second net that was built around the same module "
                    "instance and trained it further; train with load_best=False, a recorder of its own, and for a "
                    "further stage copy.deepcopy(net.module_)"
                )

    def positions(self, X: Any, y: Any = None) -> np.ndarray:
        """Position (n,) of each row of (X, y) among the trained rows; of equal rows the k-th goes to the k-th.

        X, y as they were given to `fit`, or any subset, order or repetition of those rows.
        Raises ValueError if a row was not trained on.
        """
        asked, order, first, count = self._found(X, y)
        if (count == 0).any():
            raise ValueError(self._foreign(np.flatnonzero(count == 0), len(asked)))
        return order[first + _occurrence(asked) % count]

    def contains(self, X: Any, y: Any = None) -> np.ndarray:
        """Which rows (n,) of (X, y) were trained on; of equal rows as many as were, the first ones.

        Raises ValueError if the trained rows cannot be recognised.
        """
        asked, _, _, count = self._found(X, y)
        return _occurrence(asked) < count

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
        first = np.searchsorted(ordered, asked, side="left")
        return asked, order, first, np.searchsorted(ordered, asked, side="right") - first

    def check_rows(self, X: Any, y: Any = None) -> None:
        """Raise ValueError if a row of (X, y) was not trained on; passes where rows cannot be recognised."""
        if self.fingerprints is not None:
            self.positions(X, y)

    def _foreign(self, foreign: np.ndarray, n: int) -> str:
        text = (
            f"{len(foreign)} of {n} rows are not among the {len(self.rows)} rows that the net was trained on, "  # type: ignore[arg-type]
            f"the first is row {foreign[0]}; "
        )
        held_out = (self.n_given or 0) - len(self.rows)  # type: ignore[arg-type]
        if held_out > 0:
            return text + (
                f"the net's train_split held out {held_out} of the {self.n_given} rows given to it: use "
                "train_split=None, or pass the rows at trajectory.rows only"
            )
        return text + "pass the X and y (labels too) of the training, or rows of them"

    # ---- files

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


def _occurrence(codes: np.ndarray) -> np.ndarray:
    """How many equal codes come before each one."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    occurrence = np.empty(len(codes), dtype=np.int64)
    occurrence[order] = np.arange(len(codes)) - np.searchsorted(ordered, ordered, side="left")
    return occurrence


def _shown(entry: list[Any] | None) -> str:
    return "missing" if entry is None else f"{entry[1]} {tuple(entry[0])}"
