"""A trajectory in a folder: safetensors and JSON, the index last, so that a folder with an index is complete."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sktda.files import staged
from sktda.model.checkpoints import INDEX, FolderStore

if TYPE_CHECKING:
    from sktda.model.trajectory import Trajectory

FORMAT = 2
ARRAYS_FILE = "arrays.safetensors"
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
    """Write everything but the checkpoints, the index last, so that a folder with an index is complete."""
    arrays = {
        name: getattr(trajectory, name) for name in ARRAYS + OPTIONAL_ARRAYS if getattr(trajectory, name) is not None
    }
    scalars = {name: getattr(trajectory, name) for name in SCALARS}
    text = json.dumps({"format": FORMAT, "complete": True, "id": trajectory.identity, **scalars}, indent=1)
    for name, write in (
        (ARRAYS_FILE, lambda path: save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)),
        (INDEX, lambda path: path.write_text(text, encoding="utf-8")),
    ):
        temporary = folder / f".{os.getpid()}-{name}"
        write(temporary)
        os.replace(temporary, folder / name)


def names(trajectory: Trajectory) -> list[str]:
    """Of all that is in its store."""
    initial = [] if trajectory.step_index is None else ["initial"]
    return initial + [checkpoint_name(c) for c in range(len(trajectory))]


def load(kind: type[Trajectory], folder: str | os.PathLike[str]) -> Trajectory:
    """`Trajectory.load`."""
    folder = Path(folder).resolve()
    for path in (folder, folder / INDEX):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; Trajectory.load needs a folder written by save()")
    try:
        about = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        complete, version = about["complete"], about.get("format")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / INDEX} is not the index of a trajectory: {error}") from error
    if not complete:
        raise ValueError(f"the training that wrote {folder} did not end; train again into a new folder")
    if version != FORMAT:
        raise ValueError(f"{folder} has format {version!r}, this version of sktda reads {FORMAT}; train again")
    if not (folder / ARRAYS_FILE).is_file():
        raise FileNotFoundError(f"{folder / ARRAYS_FILE} is missing: the folder must stay as it was written")
    try:
        arrays = load_file(folder / ARRAYS_FILE)
        known: dict[str, Any] = {name: arrays[name] for name in ARRAYS}
        known |= {name: arrays[name] for name in OPTIONAL_ARRAYS if name in arrays}
        store = FolderStore(folder, about["identity"])
        trajectory = kind(store=store, **{name: about[name] for name in SCALARS}, **known)
        _check_shapes(trajectory)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError, IndexError) as error:
        raise ValueError(f"{folder} is not a trajectory, or is damaged: {error}") from error
    missing = [name for name in names(trajectory) if not store.file(name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{store.file(missing[0])} is missing ({len(missing)} checkpoints of {len(known['steps'])})"
        )
    return trajectory


def _check_shapes(trajectory: Trajectory) -> None:
    wrong = [name for name in ARRAYS if len(getattr(trajectory, name)) != len(trajectory)]
    if (
        trajectory.rows is not None
        and trajectory.fingerprints is not None
        and len(trajectory.rows) != len(trajectory.fingerprints)
    ):
        wrong.append("fingerprints")
    if trajectory.step_index is not None and trajectory.step_offsets[-1] != len(trajectory.step_index):  # type: ignore[index]
        wrong.append("step_index")
    if wrong or not len(trajectory) or (np.diff(trajectory.steps) <= 0).any():
        raise ValueError(f"the lengths of its arrays do not match ({', '.join(wrong) or 'steps'})")
