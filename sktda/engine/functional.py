"""Passes through a module with other parameters than its own: plain numbers, or dual ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, jvp
from torch.overrides import TorchFunctionMode

from sktda.devices import out_of_memory
from sktda.model.base import Inputs
from sktda.model.precision import passed

Direction = Mapping[str, Tensor]
DUAL_LEVEL = RLock()  # torch has one level of dual numbers for all threads


def forward_at(module: nn.Module, values: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
    """Raw outputs with these values in place of the parameters of these names.

    functional_call with tie_weights=True would leave a module that stands in two places without its parameters, so
    the other names of a shared parameter are given here, each place once.
    """
    own = dict(module.named_parameters())
    names = {id(own[name]): name for name in values}
    placed = {
        f"{prefix}.{key}" if prefix else key: values[names[id(value)]]
        for prefix, part in module.named_modules()
        for key, value in part.named_parameters(recurse=False, remove_duplicate=False)
        if id(value) in names
    }
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else ((inputs,), {})
    return passed(lambda: functional_call(module, placed, args, kwargs, tie_weights=False), module)


@contextmanager
def dual_numbers(values: Mapping[str, Tensor], directions: Direction) -> Iterator[dict[str, Tensor]]:
    """Parameters as dual numbers, which carry their change along a direction, and all that is computed of them."""
    with DUAL_LEVEL:
        load_forward_mode()
        with forward_ad.dual_level(), StillInputs():
            yield {name: forward_ad.make_dual(value, directions[name].to(value)) for name, value in values.items()}


class StillInputs(TorchFunctionMode):
    """Linear layers whose inputs do not change: torch would multiply a matrix of zeros by the weights.

    And tables whose vector of the padding is a constant, as it is to a backward pass: a weight that is used elsewhere,
    too, may change there.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one torch function."""
        kwargs = kwargs or {}
        if func is nn.functional.linear and not kwargs:
            pairs = [forward_ad.unpack_dual(each) for each in args if isinstance(each, Tensor)]
            # a frozen weight or bias has no change: torch's own rule takes these
            if pairs[0][1] is None and all(change is not None for _, change in pairs[1:]):
                changed = func(args[0], *(change for _, change in pairs[1:]))
                # a copy, for the pair is a view of its value, which an activation may want to change in place
                return forward_ad.make_dual(func(*(value for value, _ in pairs)), changed).clone()
        if func is nn.functional.embedding and kwargs.get("padding_idx") is not None:
            value, change = forward_ad.unpack_dual(args[1])
            if change is not None:
                # %: a padding index may count from the end
                others = torch.arange(len(value), device=value.device)[:, None] != kwargs["padding_idx"] % len(value)
                args = (args[0], forward_ad.make_dual(value, change * others), *args[2:])
        return func(*args, **kwargs)


@cache
def load_forward_mode() -> None:
    """Let torch load its forward derivatives, which it does at the first use with a warning to its own authors."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".*torch.jit", category=Warning
        )  # DeprecationWarning; FutureWarning from 2.14 on
        jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))


def batched_gradients(outputs: list[Tensor], leaves: list[Tensor], along: list[Tensor]) -> list[Tensor]:
    """Derivatives (k, ...) by the leaves of the k dots <outputs, along>, along (k, ...) each; the graph is kept."""
    k = len(along[0])

    def found(vectors: list[Tensor], batched: bool) -> list[Tensor | None]:
        # the graph is kept: it is gone through again, vector by vector, where a batch of them fails
        return list(
            torch.autograd.grad(
                outputs, leaves, vectors, retain_graph=True, allow_unused=True, is_grads_batched=batched
            )
        )

    result: list[Tensor | None] | None = None
    if k > 1:
        try:
            result = found(along, True)
        except RuntimeError as error:  # an operation that takes no batch of vectors
            if out_of_memory(error):
                raise
    if result is None:
        each = [found([vector[i] for vector in along], False) for i in range(k)]
        if k == 1:
            result = [None if part is None else part[None] for part in each[0]]
        else:
            result = [None if parts[0] is None else torch.stack(parts) for parts in zip(*each, strict=True)]  # type: ignore[arg-type]
    return [
        leaf.new_zeros(k, *leaf.shape) if value is None else value for leaf, value in zip(leaves, result, strict=True)
    ]
