"""Where the tensors of a trajectory are kept: in memory, or one safetensors file per checkpoint in a folder."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sktda.model import sealed

INDEX = "trajectory.safetensors"


class Store(ABC):
    """Named dicts of tensors on the processor; a name is written once. Two names of one tensor stay one tensor."""

    @abstractmethod
    def write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep these tensors; ValueError if the name is taken."""

    @abstractmethod
    def read(self, name: str) -> dict[str, Tensor]:
        """The tensors of that name."""


class MemoryStore(Store):
    """Tensors in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Tensor]] = {}

    def write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep these tensors, without a copy."""
        if name in self.kept:
            raise ValueError(f"{name} is there already")
        self.kept[name] = dict(tensors)

    def read(self, name: str) -> dict[str, Tensor]:
        """The tensors themselves: do not change them."""
        return dict(self.kept[name])


class FolderStore(Store):
    """One file per name; every file carries the trajectory's id, so that two trainings cannot mix unseen."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.identity = identity

    def file(self, name: str) -> Path:
        """The file of that name."""
        return self.folder / f"{name}.safetensors"

    def claim(self) -> None:
        """Make the folder and mark it as this trajectory's.

        Raises FileExistsError if it holds anything at all, another training's checkpoints above all.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        found = sorted(path.name for path in self.folder.iterdir())
        if not found:
            try:  # exclusive creation: of two trainings that start together one gets the folder
                (self.folder / INDEX).touch(exist_ok=False)
                return
            except FileExistsError:
                found = [INDEX]
        what = "another trajectory" if INDEX in found else f"other files ({found[0]})"
        raise FileExistsError(
            f"{self.folder} holds {what}, and two trainings must not mix in one folder; give "
            "TrajectoryRecorder(path=...) a new or empty folder, or delete this one first"
        )

    def keep(self, names: Iterable[str]) -> None:
        """Delete all other checkpoints, of a part of a run that is trained again."""
        kept = {self.file(name) for name in names}
        for path in set(self.folder.glob("checkpoint-*.safetensors")) - kept:
            path.unlink()

    def write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write the file, whole or not at all."""
        path = self.file(name)
        if path.exists():
            raise FileExistsError(
                f"{path} exists already: another training (a copy of this net?) writes into the same folder; "
                "give each its own TrajectoryRecorder(path=...)"
            )
        # safetensors refuses tensors that share memory: tied ones are written once, beside their other names
        first: dict[int, str] = {}
        aliases = {key: first[id(value)] for key, value in tensors.items() if first.setdefault(id(value), key) != key}
        kept = {key: value for key, value in tensors.items() if key not in aliases}
        sealed.save(path, kept, {"trajectory": self.identity, "name": name, "aliases": json.dumps(aliases)})

    def read(self, name: str) -> dict[str, Tensor]:
        """Read the file; FileNotFoundError if it is gone, ValueError if it is damaged or of another trajectory."""
        path = self.file(name)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: the folder of a trajectory must stay as it was written")
        tensors, about = sealed.load(path)
        if about.get("trajectory") != self.identity:
            raise ValueError(f"{path} belongs to another trajectory: two trainings were mixed in {self.folder}")
        if about["name"] != name:
            raise ValueError(f"{path} is {about['name']} under another name; restore it from a copy or train again")
        tensors.update({key: tensors[other] for key, other in json.loads(about["aliases"]).items()})
        return tensors


def snapshot(module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Tensor]:
    """Copies on the processor of the module's state ("module/<name>"), and of the optimiser's
    ("optimizer/<key>/<parameter>") if one is given. Tied parameters are copied once.
    """
    copies: dict[int, Tensor] = {}
    taken = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor) or nn.parameter.is_lazy(value):
            raise ValueError(
                f"'{name}' of the module's state_dict is {type(value).__name__}, which cannot be kept in a checkpoint; "
                "only tensors can (run one batch through lazy layers before training)"
            )
        # by identity, so that tied parameters are still one tensor in the checkpoint
        if id(value) not in copies:
            copies[id(value)] = _copy(value)
        taken[f"module/{name}"] = copies[id(value)]
    if optimizer is not None:
        for name, parameter in module.named_parameters():
            for key, value in optimizer.state.get(parameter, {}).items():
                if value is not None:
                    taken[f"optimizer/{key}/{name}"] = _copy(_as_tensor(value, key, optimizer))
    return taken


def _as_tensor(value: Any, key: str, optimizer: torch.optim.Optimizer) -> Tensor:
    if isinstance(value, int | float):
        return torch.tensor(value)
    if not isinstance(value, Tensor):
        raise ValueError(
            f"optimizer_state=True keeps one tensor per parameter and quantity, but '{key}' of "
            f"{type(optimizer).__name__} is a {type(value).__name__}; use optimizer_state=False"
        )
    return value


def _copy(value: Tensor) -> Tensor:
    # a copy also on the processor: the next step changes parameters in place
    return value.detach().to("cpu", copy=True).contiguous()
