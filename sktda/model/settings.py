"""Modes and random numbers of torch around a call: what would change numbers without a word is off, or put back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from threading import RLock
from typing import Any

import numpy as np
import torch

GENERATORS = RLock()
"""Held by whoever draws from the generators that are one for all threads, or puts them back, so that no training meets
numbers that another thread has drawn or rewound."""


@contextmanager
def torch_state_kept() -> Iterator[None]:
    """Torch's global generators are this thread's alone inside, and go on as if nothing had been drawn.

    An accelerator that nothing has used yet is left alone: asking for its generators would start it. Theirs are then
    those of a new process.
    """
    module: Any = None
    if torch.accelerator.is_available():
        module = torch.get_device_module(torch.accelerator.current_accelerator())
    started = module is not None and getattr(module, "is_initialized", lambda: True)()
    with GENERATORS, ExitStack() as stack:
        if module is not None and not started and hasattr(module, "manual_seed_all"):
            # in the end: the seed that torch.manual_seed has left for it inside is not the caller's
            stack.callback(lambda: module.manual_seed_all(torch.initial_seed()))
        stack.enter_context(torch.random.fork_rng(range(module.device_count()) if started else []))
        yield


def seed_generators(seed: int) -> None:
    """Torch's global generators begin anew: of all devices that are there.

    For each device that is not, `torch.manual_seed` writes down where it was called from, which takes a millisecond.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(int(seed))


@contextmanager
def random_state_kept() -> Iterator[None]:
    """`torch_state_kept`, for the global generators of NumPy and Python too."""
    with torch_state_kept():
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


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
        with GENERATORS:  # the default is one for all threads, too
            before = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
            try:
                return build(*args, **kwargs)
            finally:
                torch.set_default_dtype(before)

    return run
