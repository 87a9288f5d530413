"""Checkpoints as people have them on disk: what is in a file or folder, without unpickling anything."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "network", "ema", "weights")
"""Names under which a saved dict holds the module's state_dict."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors", "adapter_model.bin")
OPTIMIZERS = ("optimizer_states", "optimizer_state_dict", "optimizer", "optim")


@dataclass
class Saved:
    """What a checkpoint says: tensors by the names in it, and where it is told: steps, optimiser, logged rates."""

    tensors: dict[str, Tensor]
    steps: int | None = None
    optimizer: dict[str, Any] | None = None
    rates: dict[int, float] = field(default_factory=dict)


def read(source: Any) -> Saved:
    """A state_dict, a file of one, or a folder of the Trainer's.

    Raises FileNotFoundError, and ValueError for what is none or holds other things than tensors and plain values.
    """
    if isinstance(source, Mapping):
        return _taken_apart(source, "the dict")
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; name a file of a state_dict, or a folder of checkpoints")
    return _folder(path) if path.is_dir() else _taken_apart(_file(path), str(path))


def listed(folder: Path) -> list[Path]:
    """The checkpoints in a folder, by the steps in their names: checkpoint-* folders, or files."""
    inner = [each for each in folder.glob("checkpoint-*") if each.is_dir()]
    if not inner and any((folder / name).exists() or _index(folder / name).exists() for name in WEIGHTS):
        return [folder]
    found = inner or [
        each for each in folder.iterdir() if each.suffix in {".ckpt", ".pt", ".pth", ".bin", ".safetensors"}
    ]
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no checkpoints: neither checkpoint-* folders nor .ckpt, .pt, .pth, .bin or .safetensors"
        )
    # by number: as text, checkpoint-1000 would come before checkpoint-500
    return sorted(found, key=lambda each: ([int(number) for number in re.findall(r"\d+", each.stem)][-1:], each.name))


def _folder(folder: Path) -> Saved:
    tensors = None
    for name in WEIGHTS:
        if (folder / name).exists():
            tensors = _tensors(_file(folder / name))
        elif _index(folder / name).exists():
            shards = sorted(set(json.loads(_index(folder / name).read_text(encoding="utf-8"))["weight_map"].values()))
            tensors = {key: value for shard in shards for key, value in _tensors(_file(folder / shard)).items()}
        if tensors is not None:
            break
    if tensors is None:
        raise FileNotFoundError(f"{folder} holds no model: none of {', '.join(WEIGHTS)}, nor an index of one")
    saved = Saved(tensors)
    number = re.search(r"-(\d+)$", folder.name)
    saved.steps = int(number[1]) if number else None
    if (folder / "trainer_state.json").exists():
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        saved.steps = int(state["global_step"])
        logged = [entry for entry in state.get("log_history", []) if "learning_rate" in entry]
        saved.rates = {int(entry["step"]): float(entry["learning_rate"]) for entry in logged}
    if (folder / "optimizer.pt").exists():
        try:
            saved.optimizer = _file(folder / "optimizer.pt")
        except ValueError:  # its rates may be logged, or given
            saved.optimizer = None
    return saved


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}.index.json")


def _file(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing, which an index beside it names")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read ({str(error).splitlines()[0]}); save it anew") from error
    except Exception as error:  # of pickle, zip, torch: no class is common to what a damaged file raises
        raise ValueError(
            f"{path} is no file of tensors and plain values, and pickled objects are never loaded; save "
            "module.state_dict() with torch.save or safetensors"
        ) from error


def _taken_apart(found: Any, what: str) -> Saved:
    if not isinstance(found, Mapping):
        raise ValueError(f"{what} holds a {type(found).__name__} and no state_dict; save module.state_dict()")
    if not found:
        raise ValueError(f"{what} holds nothing; save module.state_dict()")
    if _is_state(found):
        return Saved(_tensors(found))
    inner = next(
        (found[name] for name in NESTED if isinstance(found.get(name), Mapping) and _is_state(found[name])), None
    )
    if inner is None:
        raise ValueError(
            f"{what} has no state_dict: its names are {', '.join(map(str, list(found)[:8]))}; save it under one of "
            f"{', '.join(NESTED[:4])}"
        )
    steps = next((found[name] for name in ("global_step", "step", "n_steps", "steps") if name in found), None)
    optimizer = next((found[name] for name in OPTIMIZERS if found.get(name)), None)
    if isinstance(optimizer, list):
        optimizer = optimizer[0] if len(optimizer) == 1 else None
    known = dict(optimizer) if isinstance(optimizer, Mapping) and "param_groups" in optimizer else None
    return Saved(_tensors(inner), int(steps) if isinstance(steps, int | Tensor) else None, known)


def _is_state(found: Mapping[Any, Any]) -> bool:
    return (
        bool(found)
        and any(isinstance(value, Tensor) for value in found.values())
        and all(isinstance(value, Tensor) or str(name).endswith("_extra_state") for name, value in found.items())
    )


def _tensors(found: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def fitted_to(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """The module's state in a checkpoint's tensors, in the module's dtypes, by the module's names.

    Names may have a prefix in the checkpoint ("model.", "module.", "_orig_mod."). What is frozen or tied in the module
    need not be there. Raises ValueError for another module's, and for numbers that are not finite.
    """
    own = {name: value for name, value in module.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    given = {name.replace("_orig_mod.", ""): value for name, value in tensors.items()}
    frozen = {name for name, value in module.named_parameters(remove_duplicate=False) if not value.requires_grad}
    needed = [name for name in own if name not in frozen]
    given = _unprefixed(given, needed, own)
    found: dict[str, Tensor] = {}
    for name, value in own.items():
        twins = [other for other, each in own.items() if each is value]
        source = next((given[each] for each in (name, *twins) if each in given), None)
        if source is None and name in frozen:
            source = value.detach()
        if source is None:
            raise ValueError(
                f"{what} is of another module: it has no '{name}', and begins with {', '.join(list(tensors)[:3])}"
            )
        if source.shape != value.shape:
            raise ValueError(
                f"{what} is of another module: '{name}' is {tuple(source.shape)} in it and {tuple(value.shape)} in the "
                "module"
            )
        if not torch.isfinite(source).all():
            raise ValueError(f"'{name}' holds NaN or infinity in {what}: that training had diverged; use earlier ones")
        twin = next((found[each] for each in twins if each in found), None)
        found[name] = source.detach().to("cpu", value.dtype).contiguous() if twin is None else twin
    foreign = [name for name in given if name not in own]
    if foreign:
        raise ValueError(f"{what} is of another module: the given one has no '{foreign[0]}'")
    return found


def _unprefixed(given: dict[str, Tensor], needed: list[str], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the module's names, where all that is needed is there behind one prefix."""
    if not needed or all(name in given for name in needed):
        return given
    first = needed[0]
    for prefix in sorted(name[: -len(first)] for name in given if name.endswith(f".{first}")):
        inner = {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
        if sum(name in inner for name in needed) >= 0.5 * len(needed):
            return inner
    # peft leaves the adapter's name out of its files, and what it wraps a trained module in
    short = {name: name.replace(".modules_to_save.default.", ".").replace(".default.", ".") for name in needed}
    return {name: given[each] for name, each in short.items()} if all(e in given for e in short.values()) else given
