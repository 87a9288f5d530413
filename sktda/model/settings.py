"""The modes of torch around a call: what would change numbers without a word is off while the library works."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any

import torch


def plain_modes(method: Callable) -> Callable:
    """The method, run outside of the caller's inference mode, autocast and default device.

    Gradients do not exist in inference mode; in autocast they are those of other numbers than the model's; new tensors
    on a default device do not meet those that come from NumPy.
    """

    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.enable_grad())
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            return method(*args, **kwargs)

    return run


def single_precision(build: Callable) -> Callable:
    """The function, run with float32 as the dtype of new parameters, whatever the default is."""

    @wraps(build)
    def run(*args: Any, **kwargs: Any) -> Any:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            return build(*args, **kwargs)
        finally:
            torch.set_default_dtype(before)

    return run
