"""Whether a trajectory is that of a model and of its rows, and what to say where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sktda.model.fingerprint import module_fingerprint

if TYPE_CHECKING:
    from sktda.model.trajectory import Trajectory


def check_module(trajectory: Trajectory, module: nn.Module) -> None:
    """Raise ValueError if the trajectory is of another model, naming the first difference."""
    other = module_fingerprint(module)
    for kind in ("parameters", "buffers"):
        mine, theirs = ({entry[0]: entry[1:] for entry in print_[kind]} for print_ in (trajectory.module, other))
        for name in [*mine, *theirs]:
            if mine.get(name) != theirs.get(name):
                raise ValueError(
                    f"the trajectory is of another model: {kind[:-1]} '{name}' is {_shown(mine.get(name))} in the "
                    f"trajectory and {_shown(theirs.get(name))} in the module; use the net that was trained"
                )
    kinds: dict[str, str] = dict(trajectory.module["modules"])  # type: ignore[arg-type]
    for name, kind in other["modules"]:
        if kinds.get(name) != kind:
            raise ValueError(
                f"the trajectory is of another model: {repr(name) if name else 'the module'} is a "
                f"{kinds.get(name)} in the trajectory and a {kind} in the module; use the net that was trained"
            )


def check_final(trajectory: Trajectory, module: nn.Module) -> None:
    """Raise ValueError if the module's parameters are not those of the last checkpoint, or are not finite."""
    check_module(trajectory, module)
    state = trajectory.state(-1)
    for name, value in getattr(module, "_orig_mod", module).named_parameters():
        if not bool(torch.isfinite(state[name]).all()):
            raise ValueError(
                f"training diverged: '{name}' holds NaN or infinity after step {trajectory.n_steps}, at learning rate "
                f"{trajectory.learning_rates[-1]:g}; train with a smaller learning rate"
            )
        if not torch.equal(value.detach().cpu(), state[name]):
            raise ValueError(
                f"parameters of the net are not those at the end of its trajectory ('{name}' differs). Causes: "
                "EarlyStopping or Checkpoint with load_best=True put earlier parameters back, load_params, one "
                "TrajectoryRecorder shared by two nets, or a second net that was built around the same module "
                "instance and trained it further; train with load_best=False, a recorder of its own, and for a "
                "further stage copy.deepcopy(net.module_)"
            )


def foreign(trajectory: Trajectory, foreign: np.ndarray, n: int) -> str:
    text = (
        f"{len(foreign)} of {n} rows are not among the {len(trajectory.rows)} rows that the net was trained on, "  # type: ignore[arg-type]
        f"the first is row {foreign[0]}; "
    )
    held_out = (trajectory.n_given or 0) - len(trajectory.rows)  # type: ignore[arg-type]
    if held_out > 0:
        return text + (
            f"the net's train_split held out {held_out} of the {trajectory.n_given} rows given to it: use "
            "train_split=None, or pass the rows at trajectory.rows only"
        )
    return text + "pass the X and y (labels too) of the training, or rows of them"


def _shown(entry: list[Any] | None) -> str:
    return "missing" if entry is None else f"{entry[1]} {tuple(entry[0])}"
