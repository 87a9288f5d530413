"""A recorded training that goes on after it was interrupted: one run, in one trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sktda.model import trajectory_files
from sktda.model.checkpoints import FolderStore
from sktda.model.run_record import Recording, plain
from sktda.model.step_settings import StepSettings
from sktda.model.trajectory import Trajectory


def resumed(before: Any, path: Any, module: nn.Module, optimizer: torch.optim.Optimizer, with_steps: bool) -> Recording:
    """One that goes on where an earlier trajectory, or its folder, has a checkpoint of the module's parameters."""
    before = before if isinstance(before, Trajectory) else Trajectory.load(before)
    module = plain(module)
    before.check_module(module)
    if with_steps and before.step_index is None:
        raise ValueError("steps=True cannot begin in the middle: the record that is resumed has none; use steps=False")
    kept = next((c for c in reversed(range(len(before))) if _holds(before.state(c), module)), None)
    if kept is None:
        raise ValueError(
            "the module's parameters are those of no checkpoint of the record that is resumed; restore the module "
            f"as it was after one of the steps {', '.join(map(str, before.steps[:20]))}"
            f"{', ...' if len(before) > 20 else ''}, or take checkpoints where you save it (every=...)"
        )
    if before.optimizer != type(optimizer).__name__:
        raise ValueError(f"the record that is resumed is of {before.optimizer}, not of {type(optimizer).__name__}")
    needs_state = any(group.get("momentum") or "betas" in group for group in optimizer.param_groups)
    if needs_state and not optimizer.state:
        raise ValueError(
            f"{type(optimizer).__name__} goes on from moments that it has not: restore it, too "
            "(optimizer.load_state_dict) before the run is resumed"
        )
    own = before.store.folder if isinstance(before.store, FolderStore) else None
    if own is not None and path is not None and Path(path).resolve() != own:
        raise ValueError(f"the record that is resumed goes on in its own folder, {own}; leave out path")
    run = Recording(None if own else path, with_steps, by_parts=True)
    if own is None:
        for name in trajectory_files.names(before, kept + 1):
            run.store.write(name, before.store.read(name))
    else:
        run.identity, run.store = before.identity, before.store
    _take(run, before, kept + 1)
    if isinstance(run.store, FolderStore):
        run.write_index()  # first, so that an interrupt leaves more files than it names, and not fewer
        run.store.keep(trajectory_files.names(before, kept + 1))
    return run


def _take(run: Recording, before: Trajectory, n_checkpoints: int) -> None:
    """Be where a trajectory was at one of its checkpoints."""
    names = (*trajectory_files.ARRAYS,)
    run.taken = [{name: getattr(before, name)[c] for name in names} for c in range(n_checkpoints)]
    run.steps = run.batches = int(before.steps[n_checkpoints - 1])
    run.about = {name: getattr(before, name) for name in ("optimizer", "n_given", "rows", "fingerprints")}
    run.groups, run.module = before.groups, before.module
    run.began = True
    # with steps or without: what changed before the interrupt, or with it, is known to who takes one value for the run
    run.settings = StepSettings.of(before.groups, run.steps)
    if run.with_steps and before.group_step_rates is not None:
        run.step_rows = [before.step_positions(k) for k in range(run.steps)]
        run.step_rates = before.group_step_rates[: run.steps].tolist()
        run.step_scales = [] if before.group_step_scales is None else before.group_step_scales[: run.steps].tolist()


def _holds(state: dict[str, Any], module: nn.Module) -> bool:
    """Whether a checkpoint has the module's parameters."""
    return all(torch.equal(value.detach().cpu(), state[name]) for name, value in module.named_parameters())
