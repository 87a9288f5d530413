"""A trajectory made after the fact, of checkpoints that a training has left on disk."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sktda.model.checkpoints import Store
from sktda.model.fingerprint import module_fingerprint
from sktda.model.run_record import Counted, described, numbered_groups, plain
from sktda.model.saved_files import Saved, fitted_to, listed, read
from sktda.model.step_settings import StepSettings, at_step
from sktda.model.trajectory_files import checkpoint_name

if TYPE_CHECKING:
    from sktda.model.trajectory import Trajectory


class SavedStore(Store):
    """Checkpoints that stay where they are, and are read when they are asked for."""

    def __init__(self, sources: Mapping[str, Any], module: nn.Module, places: list[str] | None) -> None:
        self.sources = dict(sources)
        self.module = module
        self.places = places

    def write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Raises ValueError: these are files of the user."""
        raise ValueError("checkpoints that were read from files are not written to; use Trajectory.save")

    def read(self, name: str) -> dict[str, Tensor]:
        """The tensors of that name."""
        source = self.sources[name]
        saved = read(source)
        found = {f"module/{key}": value for key, value in fitted_to(self.module, saved.tensors, shown(source)).items()}
        if self.places is None or saved.optimizer is None:
            return found
        state = saved.optimizer.get("state", {})
        for number, parameter in enumerate(self.places):
            for key, value in state.get(number, {}).items():
                if isinstance(value, Tensor | float | int):
                    found[f"optimizer/{key}/{parameter}"] = torch.as_tensor(value).detach().cpu().contiguous()
        return found


def from_checkpoints(
    kind: type[Trajectory],
    checkpoints: Any,
    learning_rates: Any,
    *,
    module: nn.Module,
    steps: Sequence[int] | None,
    optimizer: Any,
    X: Any,
    y: Any,
) -> Trajectory:
    """`Trajectory.from_checkpoints`."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be the torch.nn.Module that was trained, got {type(module).__name__}")
    module, sources = plain(module), _sources(checkpoints)
    saved = [read(source) for source in sources]
    for source, each in zip(sources, saved, strict=True):
        fitted_to(module, each.tensors, shown(source))  # raises
    done = _steps(steps, saved, sources)
    groups, places = _groups(module, optimizer, saved[-1])
    if not isinstance(optimizer, torch.optim.Optimizer):
        groups = _by_step(groups, saved, done)
    rates = _rates(learning_rates, done, saved, groups)
    # (C, groups): sums over the steps from one checkpoint to the next
    sums = np.add.reduceat(rates, [0, *done[:-1]])
    at = [at_step(groups, int(step) - 1) for step in done]
    momenta, damping = (
        np.array([[float(group.get(name, 0)) for group in each] for each in at]) for name in ("momentum", "dampening")
    )
    about = _about(_optimizer_name(optimizer, groups), X, y)
    n = len(done)
    return kind(
        store=SavedStore({checkpoint_name(c): source for c, source in enumerate(sources)}, module, places),
        identity=uuid.uuid4().hex,
        groups=groups,
        module=module_fingerprint(module),
        steps=done,
        # step k, counted from 1, is in line k - 1
        group_learning_rates=rates[done - 1],
        group_rate_sums=sums,
        # as of a recorded run, but for the scale of gradients, which nobody saw
        group_effective_rate_sums=sums * np.where(momenta > 0, (1 - damping) / (1 - momenta), 1.0),
        group_momenta=momenta,
        batch_sizes=np.zeros(n, dtype=np.int64),
        losses=np.full(n, np.nan),
        rescalings=np.zeros(n),
        misfits=np.zeros(n),
        **about,
    )


def shown(source: Any) -> str:
    """How an error calls a checkpoint."""
    return "a state_dict" if isinstance(source, Mapping) else str(source)


def _sources(checkpoints: Any) -> list[Any]:
    if isinstance(checkpoints, str | Path):
        path = Path(checkpoints)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; name files of state_dicts, or a folder of checkpoints")
        found: list[Any] = listed(path) if path.is_dir() else [path]
    else:
        found = [checkpoints] if isinstance(checkpoints, Mapping) else list(checkpoints)
    if not found:
        raise ValueError("checkpoints is empty; name at least the one after training")
    return found


def _steps(steps: Sequence[int] | None, saved: list[Saved], sources: list[Any]) -> np.ndarray:
    told = [each.steps for each in saved]
    if steps is None:
        missing = [shown(source) for source, each in zip(sources, told, strict=True) if each is None]
        if missing:
            raise ValueError(
                f"{missing[0]} does not tell after how many steps of the optimiser it was saved; give steps, one "
                "number for each checkpoint"
            )
        found = np.array(told, dtype=np.int64)
    else:
        found = np.asarray(steps)
        if found.shape != (len(saved),) or found.dtype.kind not in "iu":
            raise ValueError(f"steps must be one whole number for each of the {len(saved)} checkpoints, got {steps!r}")
        found = found.astype(np.int64)
    if (np.diff(found, prepend=0) <= 0).any():
        raise ValueError(
            f"checkpoints must come in the order of training, each after more steps than the last, and theirs are "
            f"{', '.join(map(str, found))}"
        )
    return found


def _groups(module: nn.Module, optimizer: Any, last: Saved) -> tuple[list[dict[str, Any]], list[str] | None]:
    """(parameter groups; the names of the parameters in the order of the optimiser's own state, if it is known)."""
    trained = [name for name, value in module.named_parameters() if value.requires_grad]
    if isinstance(optimizer, torch.optim.Optimizer):
        groups = numbered_groups(module, optimizer)
        names = [name for group in groups for name in group["parameters"]]
        return groups, names if len(names) == sum(len(g["params"]) for g in optimizer.param_groups) else None
    own = (last.optimizer or {}).get("param_groups", [])
    if not own:
        return [{"parameters": trained}], None
    counts = [len(group["params"]) for group in own]
    places = _places(module, trained, own, counts, (last.optimizer or {}).get("state", {}))
    numbers = [{key: value for key, value in group.items() if _plain_number(value)} for group in own]
    if places is None:
        # groups that are set alike need not be told apart
        if any({k: v for k, v in each.items() if k != "initial_lr"} != numbers[0] for each in numbers[1:]):
            raise ValueError(
                "which parameters are in which of the optimiser's groups cannot be told from its file; pass the "
                "optimizer itself, made as in the training"
            )
        return [{"parameters": trained, **numbers[0]}], None
    ends = np.cumsum(counts)
    return [
        {"parameters": places[end - count : end], **each}
        for end, count, each in zip(ends, counts, numbers, strict=True)
    ], places


def _by_step(groups: list[dict[str, Any]], saved: list[Saved], done: np.ndarray) -> list[dict[str, Any]]:
    """The groups with what changed; a checkpoint's settings count for the steps since the one before, as its rates."""
    own = [(each.optimizer or {}).get("param_groups", []) for each in saved]
    if any(len(each) != len(groups) for each in own):
        return groups
    noted = StepSettings()
    for start, each in zip([0, *done[:-1]], own, strict=True):
        noted.note(int(start), each)
    return [{**group, **noted.described(g, int(done[-1]))} for g, group in enumerate(groups)]


def _places(
    module: nn.Module, trained: list[str], groups: list[dict], counts: list[int], state: Mapping[int, Any]
) -> list[str] | None:
    """Names of an optimiser's parameters in its own order; None where they cannot be told."""
    every = [name for name, _ in module.named_parameters()]
    candidates = [[name for group in groups for name in group.get("param_names", [])]]
    # a saved optimiser numbers its parameters: names follow from an order that makers of groups use
    if len(counts) == 1:
        candidates += [trained, every]
    elif len(counts) == 2:
        # two groups, as the Trainer makes them: what decays, then the rest
        plain_ones = [name for name in trained if _decays(module, name)]
        candidates.append(plain_ones + [name for name in trained if name not in set(plain_ones)])
        if counts[0] != len(plain_ones):
            candidates.pop()
    shapes = {name: value.shape for name, value in module.named_parameters()}
    for names in candidates:
        if len(names) != sum(counts) or any(name not in shapes for name in names):
            continue
        tensors = [
            (shapes[names[number]], value)
            for number, own in state.items()
            for value in own.values()
            if isinstance(value, Tensor) and value.ndim
        ]
        # moments have the shape of their parameter, so a wrong order is mostly seen
        if all(shape == value.shape for shape, value in tensors):
            return names
    return None


def _decays(module: nn.Module, name: str) -> bool:
    """Whether the Trainer lets a parameter decay: no bias, and none of a normalisation."""
    owner = module.get_submodule(name.rpartition(".")[0])
    return "bias" not in name and "norm" not in type(owner).__name__.lower() and "norm" not in name.lower()


def _plain_number(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_plain_number, value)) and not any(isinstance(each, Integral) for each in value)
    return value is None or isinstance(value, bool | int | float)


def _optimizer_name(optimizer: Any, groups: list[dict[str, Any]]) -> str:
    if isinstance(optimizer, torch.optim.Optimizer):
        return type(optimizer).__name__
    if isinstance(optimizer, str):
        if not hasattr(torch.optim, optimizer):
            raise ValueError(f"optimizer={optimizer!r} is none of torch.optim; say 'SGD', 'Adam' or 'AdamW'")
        return optimizer
    if optimizer is not None:
        raise TypeError(f"optimizer must be a torch.optim.Optimizer or its name, got {type(optimizer).__name__}")
    group = groups[0]
    # saved groups have the settings of an optimiser, and not its name
    if "betas" in group:
        return "AdamW" if group.get("decoupled_weight_decay") else "Adam"
    if "nesterov" in group:
        return "SGD"
    raise ValueError(
        "the checkpoints do not tell which optimiser made them; pass the optimizer, or its name where it had neither "
        "momentum nor weight decay, such as 'SGD'"
    )


def _rates(given: Any, steps: np.ndarray, saved: list[Saved], groups: list[dict[str, Any]]) -> np.ndarray:
    """(T, n_groups) rate of every step."""
    n_steps, each = int(steps[-1]), np.empty((int(steps[-1]), len(groups)))
    if given is not None:
        values = np.asarray(given, dtype=float)
        if values.ndim == 0:
            values = np.full(n_steps, float(values))
        elif values.shape == (len(steps),):
            values = np.repeat(values, np.diff(steps, prepend=0))
        if values.shape != (n_steps,):
            raise ValueError(
                f"learning_rates must be one number, one for each of the {len(steps)} checkpoints or one for each of "
                f"the {n_steps} steps, got shape {np.shape(given)}"
            )
        each[:] = values[:, None]
    else:
        logged = {step: rate for one in saved for step, rate in one.rates.items()}
        own = [(one.optimizer or {}).get("param_groups", []) for one in saved]
        if logged:
            # a Trainer logs that of the first group, and its schedules keep the ratio to the others
            bases = np.array([float(group.get("initial_lr", group.get("lr")) or 0) for group in groups])
            each[:] = _between(logged, n_steps)[:, None] * (bases / bases[0] if bases.all() else 1.0)
        elif all(own):
            held = [[float(group["lr"]) for group in one] for one in own]
            if any(len(one) != len(groups) and len(set(one)) > 1 for one in held):
                raise ValueError(
                    f"the optimiser's files have {' or '.join(map(str, sorted({len(one) for one in held})))} groups "
                    f"with rates of their own, and there are {len(groups)} here; pass the optimizer made as in the "
                    "training, or learning_rates"
                )
            held = [one if len(one) == len(groups) else one[:1] * len(groups) for one in held]
            each[:] = np.repeat(held, np.diff(steps, prepend=0), axis=0)
        else:
            raise ValueError(
                "the checkpoints do not tell the learning rates; give learning_rates: one number, one for each "
                "checkpoint, or one for each step"
            )
    if not np.isfinite(each).all() or (each < 0).any():
        raise ValueError("learning_rates must be finite and not negative")
    return each


def _between(logged: dict[int, float], n_steps: int) -> np.ndarray:
    """(T,) rate of every step on the line through those that were logged."""
    at = np.array(sorted(logged))
    rates, steps = np.array([logged[step] for step in at]), np.arange(1, n_steps + 1)
    # after the last one its rate stays
    found = np.interp(steps, at, rates)
    if len(at) > 1:  # before the first one: a schedule that falls, or warms up
        slope = (rates[1] - rates[0]) / (at[1] - at[0])
        found = np.where(steps < at[0], np.maximum(rates[0] + slope * (steps - at[0]), 0), found)
    return found


def _about(name: str, X: Any, y: Any) -> dict[str, Any]:
    if X is None:
        return {"optimizer": name, "n_given": None, "rows": None, "fingerprints": None}
    return described(name, *Counted.given(X, y))
