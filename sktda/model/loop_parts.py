"""What record_run is put together from: hooks that copies do not have, and what it refuses."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from sktda.model.batches import parted
from sktda.model.reading import take
from sktda.model.run_record import plain


class Listener:
    """A hook of which copies (of the module, by deepcopy or pickle) listen to nothing."""

    def __init__(self, hook: Any = None) -> None:
        # a compiler that is at work would trace what the hook does
        self.hook = torch.compiler.disable(hook) if hook is not None and "torch._dynamo" in sys.modules else hook

    def __call__(self, *given: Any) -> None:
        if self.hook is not None:
            self.hook(*given)

    def __deepcopy__(self, memo: dict[int, Any]) -> Listener:
        return Listener()

    def __reduce__(self) -> Any:
        return Listener, ()


def targets_in(batch: Any) -> Any:
    """The targets of a batch; None where it is in no known form."""
    try:
        return parted(batch)[1]
    except TypeError:
        return None


def as_tensors(targets: Any) -> Any:
    """Targets that came as an array, a list or a Series as a tensor; what holds no numbers as it is."""
    if targets is None or isinstance(targets, Tensor):
        return targets
    try:
        return take(targets, slice(None))
    except (TypeError, ValueError):
        return targets


def check_recordable(module: Any, optimizer: Any) -> None:
    """Raise TypeError or ValueError for what no record can be made of."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be one torch.optim.Optimizer, got {type(optimizer).__name__}; several optimisers train "
            "one record each, of the parameters of one"
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError(
            "LBFGS evaluates its closure many times in a step, so that no learning rate says what a row did; train "
            "with SGD or Adam, or use Influence"
        )
    own = {id(value) for value in plain(module).parameters()}
    if not any(id(value) in own for group in optimizer.param_groups for value in group["params"]):
        raise ValueError("optimizer has none of the module's parameters; pass the one that trains this very module")
    if (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    ):
        raise ValueError(
            "one process of several sees a part of every batch, so its record would not be that of the training; "
            "record a training in one process"
        )
