"""A trajectory in a folder: safetensors, the index last, so that a folder whose index is not empty is complete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sktda.files import staged
from sktda.model import sealed
from sktda.model.checkpoints import INDEX, FolderStore

if TYPE_CHECKING:
    from sktda.model.trajectory import Trajectory

FORMAT = "3"
SCALARS = ("identity", "optimizer", "groups", "module", "n_given")
ARRAYS = (
    "steps",
    "group_learning_rates",
    "group_rate_sums",
    "group_effective_rate_sums",
    "group_momenta",
    "batch_sizes",
    "losses",
    "rescalings",
    "misfits",
)
OPTIONAL_ARRAYS = ("rows", "fingerprints", "step_offsets", "step_index", "group_step_rates")


def checkpoint_name(c: int) -> str:
    """Name of the c-th checkpoint (from 0) in a store."""
    return f"checkpoint-{c + 1:05d}"


def save(trajectory: Trajectory, folder: str | os.PathLike[str]) -> None:
    """`Trajectory.save`."""
    folder = Path(folder)
    if isinstance(trajectory.store, FolderStore) and folder.resolve() == trajectory.store.folder:
        return
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"{folder} cannot be written: {folder.parent} is not a folder; create it first")
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; a trajectory is saved into a new folder")
    with staged([folder], force=False) as [temporary]:
        temporary.mkdir()
        target = FolderStore(temporary, trajectory.identity)
        for name in names(trajectory):
            target.write(name, trajectory.store.read(name))
        write_index(trajectory, temporary)


def write_index(trajectory: Trajectory, folder: Path) -> None:
    """Write everything but the checkpoints, in one file."""
    scalars = {name: getattr(trajectory, name) for name in SCALARS}
    about = {"name": INDEX, "format": FORMAT, "scalars": json.dumps(scalars)}
    sealed.save(folder / INDEX, _arrays(trajectory), about)


def _arrays(trajectory: Trajectory) -> dict[str, Tensor]:
    found = {name: getattr(trajectory, name) for name in ARRAYS + OPTIONAL_ARRAYS}
    return {name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in found.items() if each is not None}


def contents(trajectory: Trajectory) -> Iterator[str | Tensor]:
    """All that was recorded but the identity, in order: two trainings that went alike have the same."""
    yield json.dumps([getattr(trajectory, name) for name in SCALARS if name != "identity"])
    for tensors in (_arrays(trajectory), *map(trajectory.store.read, names(trajectory))):
        for name in sorted(tensors):
            yield name
            yield tensors[name]


def names(trajectory: Trajectory, n_checkpoints: int | None = None) -> list[str]:
    """Of all that is in its store, or of the first so many checkpoints."""
    initial = [] if trajectory.step_index is None else ["initial"]
    return initial + [checkpoint_name(c) for c in range(len(trajectory) if n_checkpoints is None else n_checkpoints)]


def load(kind: type[Trajectory], folder: str | os.PathLike[str]) -> Trajectory:
    """`Trajectory.load`."""
    folder = Path(folder).resolve()
    for path in (folder, folder / INDEX):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; Trajectory.load needs a folder written by save()")
    if not (folder / INDEX).stat().st_size:
        raise ValueError(f"the training that wrote {folder} did not end; train again into a new folder")
    arrays, about = sealed.load(folder / INDEX)
    if about.get("name") != INDEX:
        raise ValueError(f"{folder / INDEX} is not the index of a trajectory; restore it from a copy or train again")
    if about["format"] != FORMAT:
        raise ValueError(f"{folder} has format {about['format']}, this version of sktda reads {FORMAT}; train again")
    scalars = json.loads(about["scalars"])
    store = FolderStore(folder, scalars["identity"])
    known: dict[str, Any] = {**scalars, **{name: each.numpy() for name, each in arrays.items()}}
    trajectory = kind(store=store, **known)
    missing = [name for name in names(trajectory) if not store.file(name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{store.file(missing[0])} is missing ({len(missing)} checkpoints of {len(trajectory)})"
        )
    return trajectory
