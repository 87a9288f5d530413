"""What an optimiser got for a gradient, beside the gradient of the loss: clipped, scaled, added up, or another one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sktda.devices import exact_device, has_float64

WHOLE = 8  # first steps at which all gradients are compared, all of them
EVERY = 8  # then at every so many steps LARGE numbers of each parameter: in small nets that costs a fifth of the step
LARGE = 2**16
SMALL = 4_096  # at the other steps numbers of one parameter of each group; samples are rows that take turns


class Part(NamedTuple):
    """A loss that a step's gradient comes from.

    value: what its mean (sum) was multiplied by, as a number on its device; size: of what it is the mean; rest: what
    share of the gradient was none of it, where that was compared, up to rounding; rows: of what rows, where that is
    known.
    """

    value: Tensor
    size: int
    rest: Tensor | None = None
    rounding: float = 0.0
    rows: np.ndarray | None = None


class Step(NamedTuple):
    """What an optimiser got at a step; see `at_step`."""

    scales: list[float]
    misfit: float
    uneven: float


class StepGradients:
    """Follows the losses of one training back to their parameters, and compares at each step.

    A criterion is watched for what its value is multiplied by before it is differentiated (a scaler, accumulation),
    parameters for the gradient that autograd computed. Nothing in the training is changed.

    Whether all of a gradient is a multiple of the loss's is seen at the first steps and at every EVERY-th; by how much
    it was multiplied, at every step, from the parameter of each group that the backward pass reaches first.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._handles: list[Any] = []
        self._watched: set[Tensor] = set()
        self._first: dict[int, Tensor] = {}  # group: its parameter that is compared at the present step, if not all are
        self._computed: dict[Tensor, tuple[Any, Tensor]] = {}  # parameter: (what is compared, its gradient there)
        self._passing: dict[object, Part] = {}
        self.parts: list[Part] = []
        self._steps, self._all = 0, True  # _all: whether all parameters are compared at the present step
        self.total = False

    def __getstate__(self) -> dict[str, Any]:
        # hooks of a net that is copied in the middle of training: the copy's watch nothing
        return vars(StepGradients())

    def attach(self, criterion: Any) -> None:
        """Watch this criterion's values; parameters are added by `follow`."""
        self.total = getattr(getattr(criterion, "_orig_mod", criterion), "reduction", "mean") == "sum"
        if isinstance(criterion, nn.Module):
            self._handles.append(criterion.register_forward_hook(self._measured))

    def release(self) -> None:
        """Take all hooks away."""
        for handle in self._handles:
            handle.remove()
        self._clear()

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Watch the optimiser's parameters, those too that it has since the last call, or that were unfrozen since."""
        for k, group in enumerate(optimizer.param_groups):
            for value in group["params"]:
                if value not in self._watched and value.requires_grad and not is_lazy(value):
                    self._watched.add(value)
                    handle = value.register_hook(partial(self._found, value, k))
                    self._handles.append(handle)
                    hooks = value._backward_hooks
                    if len(hooks) > 1:  # a hook of the user's that changes the gradient comes after this one
                        own = hooks.pop(handle.id)
                        others = dict(hooks)
                        hooks.clear()
                        hooks[handle.id] = own
                        hooks.update(others)

    def _measured(self, criterion: nn.Module, arguments: tuple, value: Any) -> None:
        if self._watched and isinstance(value, Tensor) and value.requires_grad:
            call, n = object(), _length(arguments)
            value.register_hook(lambda gradient: self.passed(call, Part(gradient.detach().sum(), n)))

    def passed(self, call: object, part: Part) -> None:
        """A backward pass has gone through a loss, or through what stands for it; call tells it from others."""
        if self.parts and not self._passing and not any(_some(value.grad) for value in self._watched):
            self._forget()  # the gradients since the last step were dropped
        if not self._passing:  # what has reached no parameter when the pass is over never will (gradients of inputs)
            torch.autograd.Variable._execution_engine.queue_callback(self._passing.clear)
        self._passing[call] = part

    def _found(self, value: Tensor, group: int, gradient: Tensor) -> None:
        if self._passing:
            self.parts += self._passing.values()  # now they have reached parameters, and not inputs alone
            self._passing.clear()
        if not self._all and self._first.get(group, value) is not value:
            return
        gradient = _dense(gradient.detach())
        rows, before = self._computed.get(value) or (self._sample(gradient), None)
        part = gradient[rows]
        if not self._all and group not in self._first:
            if not part.any():  # zeros do not tell what they were multiplied by
                return
            self._first[group] = value
        if before is None or value.grad is None:
            part = part.clone()
        else:  # accumulated, unless zeros have been put there
            part = part + torch.where(_dense(value.grad).any(), before, torch.zeros_like(before))
        self._computed[value] = rows, part

    def _sample(self, gradient: Tensor) -> Any:
        """Index of what is compared of a gradient at the present step: all, if the sample would be zeros."""
        limit = LARGE if self._all else SMALL
        if self._steps < WHOLE or gradient.numel() <= limit:
            return ...
        stride = min(len(gradient), gradient.numel() // limit)
        rows = slice(self._steps % stride, None, stride)
        return rows if gradient[rows].any() else ...

    def _forget(self) -> None:
        """A step is over, or was given up."""
        self._computed.clear()
        self._first.clear()
        self.parts.clear()

    @property
    def n_losses(self) -> int:
        """Values of the criterion that the present gradients come from."""
        return len(self.parts)

    def at_step(self, optimizer: torch.optim.Optimizer, n: int) -> Step:
        """(scale by parameter group, misfit, uneven) of the step that the optimiser has just made for n rows.

        scale: what the optimiser got, in gradients of the mean (sum) of the losses. misfit: the length of what it got
        beside that, as a share of the whole, where it is more than rounding; 1 where the criterion had no part in it.
        uneven: by how much one of several losses counted more or less than the others, row for row.
        """
        if not self._watched:
            return Step([1.0] * len(optimizer.param_groups), 0.0, 0.0)
        groups = []
        for k, group in enumerate(optimizer.param_groups):
            chosen = group["params"] if self._all else [self._first[k]] if k in self._first else []
            found = [(value.grad, self._computed[value]) for value in chosen if value in self._computed]
            groups.append([(part, _dense(grad)[rows]) for grad, (rows, part) in found if grad is not None])
        compared = [part.rest for part in self.parts if part.rest is not None]
        numbers, same = _read([part.value for part in self.parts] + compared, groups)
        values, rests = numbers[: len(self.parts)], numbers[len(self.parts) :]
        sizes = [part.size for part in self.parts]
        # a mean divided among k batches comes with k factors 1 / k; of a sum each batch has its share of the rows
        loss = sum(value * (size / n if self.total else 1.0) for value, size in zip(values, sizes, strict=True))
        uneven = _unevenness(values if self.total else [v / s for v, s in zip(values, sizes, strict=True)], sizes)
        rounding = max((part.rounding for part in self.parts), default=0.0)
        if abs(loss - 1) <= rounding:
            loss = 1.0
        if uneven <= rounding:
            uneven = 0.0
        scales, misfit = [], max(rests, default=0.0) if self.parts else 1.0
        for pairs, equal in zip(groups, same, strict=True):
            scale, rest = (1.0, 0.0) if equal else _multiple(pairs)
            scales.append(scale * loss if self.parts else scale)
            misfit = max(misfit, rest)
        self._forget()
        self._steps += 1
        self._all = self._steps < WHOLE or self._steps % EVERY == 0
        return Step(scales, misfit, uneven)


def _read(losses: list[Tensor], groups: list[list[tuple[Tensor, Tensor]]]) -> tuple[list[float], list[bool]]:
    """(the losses' numbers, whether the pairs of each group are equal); a device is waited for once."""
    tensors = losses + [a for pairs in groups for a, _ in pairs]
    if not tensors or any(value.device != tensors[0].device for value in tensors) or tensors[0].device.type == "cpu":
        return [float(g) for g in losses], [all(torch.equal(a, b) for a, b in pairs) for pairs in groups]
    kind = torch.float64 if has_float64(tensors[0].device.type) else torch.float32
    flags = [(a == b).all() for pairs in groups for a, b in pairs]
    found = torch.stack([each.reshape(()).to(kind) for each in losses + flags]).tolist()
    ends = np.cumsum([len(losses), *map(len, groups)])
    return found[: len(losses)], [all(found[start:stop]) for start, stop in pairwise(ends)]


def _unevenness(weights: list[float], sizes: list[int]) -> float:
    """Largest relative distance of a row's weight from the mean of all rows'."""
    total = sum(weight * size for weight, size in zip(weights, sizes, strict=True))
    if len(weights) < 2 or not total:
        return 0.0
    return max(abs(weight * sum(sizes) / total - 1) for weight in weights)


def _multiple(pairs: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """c and |b - c a| / |b| of the c that brings c a nearest to b, over pairs (a, b)."""
    ab, aa, bb = (
        float(sum(_sum(one * other) for one, other in chosen))
        for chosen in (pairs, [(a, a) for a, _ in pairs], [(b, b) for _, b in pairs])
    )
    if not aa or not bb:  # nothing computed, or all of it dropped
        return float(not aa), float(bb > 0)
    # the least squares of b on a
    scale = ab / aa
    rest = float(sum(_sum((b - scale * a).square()) for a, b in pairs))
    rounding = 4 * max(torch.finfo(b.dtype).eps for _, b in pairs)
    share = (rest / bb) ** 0.5
    return scale, 0.0 if share <= rounding else share


def _dense(value: Tensor) -> Tensor:
    return value.to_dense() if value.is_sparse else value


def _some(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(_dense(gradient).any())


def _length(arguments: Any) -> int:
    """Rows of the first tensor among a criterion's arguments."""
    for value in arguments.values() if isinstance(arguments, Mapping) else arguments:
        if isinstance(value, Tensor):
            return len(value) if value.ndim else 1
        if isinstance(value, Mapping | tuple | list):
            return _length(value)
    return 1


def _sum(values: Tensor) -> Tensor:
    """Of all values, in float64."""
    return values.to(exact_device(values.device)).sum(dtype=torch.float64)
