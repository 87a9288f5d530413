"""What the engine works on: a torch module, its loss, its penalty and the way from a user's rows to its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sktda.data import slices
from sktda.devices import has_float64
from sktda.model.likelihood import Likelihood
from sktda.model.precision import passed

Inputs = Tensor | Mapping[str, Tensor]
LABELS = 4096  # read at a time, with their inputs
SMALL = 2**20  # bytes below which a tensor takes as long to start on its way to a device as to get there


class Rows:
    """Training or query rows as tensors, one block at a time: inputs, targets and weights.

    X and y stay where they are (array, memory map, Dataset); only the rows of a block become tensors.
    `read(positions)` returns (inputs, targets) on the processor, inputs a tensor or a dict of tensors.
    weight (n,) multiplies the loss of each row; None = 1. blocks: slices that cover the rows and that no pass may cut
    or join, where rows meet in the loss of a batch; None = any will do. Other Rows made of these have none.
    """

    def __init__(
        self, n: int, read: Callable[[slice | np.ndarray], tuple[Inputs, Tensor]], weight: Tensor | None = None
    ) -> None:
        self.n = n
        self.read = read
        self.weight = weight
        self.blocks: list[slice] | None = None

    def __len__(self) -> int:
        return self.n

    def rooted(self) -> Rows:
        """The same rows with the roots of their weights: for squares of gradients, which are linear in the weight."""
        return self if self.weight is None else Rows(self.n, self.read, self.weight.sqrt())

    def unweighted(self) -> Rows:
        """The same rows, each counting once."""
        return Rows(self.n, self.read)

    def chosen(self, positions: np.ndarray) -> Rows:
        """The rows at these positions."""
        weight = None if self.weight is None else self.weight[torch.from_numpy(positions)]
        return Rows(len(positions), lambda rows: self.read(positions[rows]), weight)

    def block(self, rows: slice | np.ndarray, device: torch.device) -> tuple[Inputs, Tensor, Tensor | None]:
        """(inputs, targets, weights or None) of these rows on the device."""
        inputs, targets = self.read(rows)
        weight = None if self.weight is None else sent(self.weight[rows], device)
        return to_device(inputs, device), sent(targets, device), weight


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """The same tensor or dict of tensors on the device."""
    if isinstance(inputs, Mapping):
        return {name: sent(value, device) for name, value in inputs.items()}
    return sent(inputs, device)


def sent(value: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device.

    To CUDA through memory that does not move: the program need not wait for the copy, nor for the work before it, and
    reads the next batch meanwhile.
    """
    if device.type == "cuda" and value.device.type == "cpu":
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)


def together(state: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The tensors on the device, of the processor's the small ones as one for each dtype: a copy costs by its start."""
    found = dict(state)
    if device.type == "cpu":
        return found
    alike: dict[torch.dtype, dict[str, Tensor]] = {}
    for name, value in state.items():
        if value.device.type == "cpu" and value.nbytes < SMALL:
            alike.setdefault(value.dtype, {})[name] = value
    for part in alike.values():
        found |= unflatten(sent(flatten(part), device), {name: value.shape for name, value in part.items()})
    return found


def forward(module: nn.Module, inputs: Inputs) -> Tensor:
    """Raw outputs; a dict of inputs goes in as keyword arguments."""
    return passed(lambda: module(**inputs) if isinstance(inputs, Mapping) else module(inputs), module)


@dataclass
class DifferentiableModel:
    """A fitted model that can be differentiated with respect to its trainable parameters.

    module: a copy in eval mode, owned by this object; maps inputs to raw outputs. Frozen parameters
    (requires_grad=False) take no part in any method.
    likelihood: the loss per row; the risk is the mean over the training rows plus the penalty.
    decay: penalty (decay / 2) |parameter|^2 by parameter name, a float; names that are missing are not penalised.
    rows: (X, y, sample_weight=None) of the user -> Rows; y may be None where only outputs are needed.
    invariant: (p, k) orthonormal directions of the flat parameters that change no prediction and are not penalised
    (the unpenalised intercepts of a multinomial model); None where there are none.
    linear: whether the outputs are linear in the parameters, so that the Gauss-Newton matrix is the Hessian.
    """

    module: nn.Module
    likelihood: Likelihood
    rows: Callable[..., Rows]
    decay: dict[str, float] = field(default_factory=dict)
    invariant: Tensor | None = None
    linear: bool = False

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name, each shared one once."""
        return {name: value for name, value in self.module.named_parameters() if value.requires_grad}

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(iter(self.parameters.values())).dtype

    def training_rows(self, X: Any, y: Any, sample_weight: Any = None) -> Rows:
        """`rows` of the training data; the likelihood becomes that whose mean over them the training saw."""
        rows = self.rows(X, y, sample_weight)
        if self.likelihood.unsettled:
            # labels alone are kept: inputs of a block are let go before the next is read
            parts = [rows.read(block)[1] for block in slices(len(rows), LABELS)]
            self.likelihood = self.likelihood.settled(parts)
        return rows

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put parameters and buffers of a checkpoint into the module."""
        self.module.load_state_dict(together(state, self.device))

    def to(self, device: torch.device) -> DifferentiableModel:
        """Move the module and the loss, unless it has float64 numbers and the device has none; returns self."""
        if has_float64(device.type) or not any(value.dtype == torch.float64 for value in self.module.parameters()):
            self.module.to(device)
            self.likelihood = self.likelihood.to(device)
        return self


NAMED = 8  # parameters that an error names


def restrict(model: DifferentiableModel, patterns: str | Sequence[str]) -> None:
    """Freeze, in place, the trainable parameters whose names match none of the patterns.

    patterns: one or several, as fnmatch takes them: "classifier.*", ["*.lora_*", "classifier.*"]. Upper and lower case
    differ. A frozen parameter stays frozen. The penalty and the invariant directions become those of what is left.
    Raises TypeError for patterns that are not text, ValueError for those that match no trainable parameter.
    """
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    if strange := [pattern for pattern in wanted if not isinstance(pattern, str)]:
        raise TypeError(f"names of parameters are matched with patterns such as 'classifier.*', got {strange[0]!r}")
    own = model.parameters
    unmatched = [each for each in wanted if not any(fnmatchcase(name, each) for name in own)]
    if unmatched or not wanted:
        names = ", ".join(map(repr, list(own)[:NAMED])) + (f" and {len(own) - NAMED} more" if len(own) > NAMED else "")
        what = f"{', '.join(map(repr, unmatched))} match" if unmatched else "an empty list matches"
        raise ValueError(f"{what} no trainable parameter; they are {names}. A pattern may hold * and ?")
    kept = {name for name in own if any(fnmatchcase(name, each) for each in wanted)}
    if model.invariant is not None:
        # a direction that also moves what is now frozen is free no longer
        inside = torch.cat([torch.full((value.numel(),), name in kept) for name, value in own.items()])
        model.invariant = _directions_inside(model.invariant, inside.to(model.invariant.device))
    model.decay = {name: rate for name, rate in model.decay.items() if name in kept}
    for name, value in own.items():
        value.requires_grad_(name in kept)


def _directions_inside(directions: Tensor, inside: Tensor) -> Tensor | None:
    """Orthonormal (inside.sum(), k') directions in the span of (p, k) that are 0 elsewhere, without these zeros."""
    # of a combination c, the part inside is as long as c exactly where the part outside is 0
    lengths, combinations = torch.linalg.eigh(directions[inside].T @ directions[inside])
    whole = combinations[:, lengths > 1 - 1e-6]
    return directions[inside] @ whole if whole.shape[1] else None


def flatten(values: Mapping[str, Tensor]) -> Tensor:
    """One vector (p,) of all tensors in order."""
    return torch.cat([value.reshape(-1) for value in values.values()])


def flatten_each(values: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> Tensor:
    """(..., p) from tensors of these shapes with common leading axes, in the order of `shapes`."""
    parts = [values[name].reshape(*values[name].shape[: values[name].ndim - len(s)], -1) for name, s in shapes.items()]
    return torch.cat(parts, dim=-1)


def unflatten(vectors: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The inverse of `flatten`: tensors of these shapes from (p,), or with a leading axis from (k, p)."""
    parts = vectors.split([shape.numel() for shape in shapes.values()], dim=-1)
    return {
        name: part.reshape((*vectors.shape[:-1], *shape))  # of a number, () and not nothing
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
