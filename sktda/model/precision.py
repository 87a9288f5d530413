"""With how many digits a module is run: torch's settings of products in float32, and passes in bfloat16."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

SETTING = RLock()
LOWERED: ContextVar[bool] = ContextVar("LOWERED", default=False)
"""Whether `passes` are in bfloat16, in this thread."""


@contextmanager
def at_precision(precision: str, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Passes through a model of this device and dtype, and products of their results, at a precision.

    "auto": as torch is set. "float32": without TF32. "tf32": products and convolutions in TF32, on CUDA. "bf16": passes
    through the module in bfloat16, by torch's autocast, and all that is made of their results as with "tf32".
    Threads that ask for more than "auto" wait for each other.
    Raises ValueError for "bf16" with a model in another dtype than float32, or on a device that has none.
    """
    if precision == "auto":
        yield
        return
    if precision == "bf16":
        if dtype != torch.float32:
            raise ValueError(
                f"precision='bf16' lowers the passes of a model in float32, and this one is in {str(dtype)[6:]}; use "
                "precision='auto'"
            )
        if not torch.amp.is_autocast_available(device.type):
            raise ValueError(f"torch has no autocast on {device.type}, so no precision='bf16' there; use 'auto'")
    token = LOWERED.set(precision == "bf16")
    try:
        with _tf32(precision != "float32"):
            yield
    finally:
        LOWERED.reset(token)


@contextmanager
def exact_passes() -> Iterator[None]:
    """Passes in the model's own dtype again: for checks that compare numbers."""
    token = LOWERED.set(False)
    try:
        yield
    finally:
        LOWERED.reset(token)


def passed(run: Callable[[], Tensor], module: nn.Module) -> Tensor:
    """The outputs of a pass through a module, in float32 also where the pass is in bfloat16."""
    if not LOWERED.get():
        return run()
    with torch.autocast(next(module.parameters()).device.type, torch.bfloat16):
        # bfloat16 has 8 bits, too few for the losses and gradients that are made of outputs
        return run().float()


def raised(x: Tensor) -> Tensor:
    """What a pass in bfloat16 left, in float32: products and sums of it are."""
    return x.float() if LOWERED.get() and x.dtype == torch.bfloat16 else x


# ---- TF32 ----------------------------------------------------------------------------------------------------------


@contextmanager
def _tf32(on: bool) -> Iterator[None]:
    """Torch's setting of TF32, which is one for all threads: one after the other has it."""
    with SETTING:
        before = _readable(torch.get_float32_matmul_precision), _readable(lambda: torch.backends.cudnn.allow_tf32)
        newer = [(part, part.fp32_precision) for part in _newer()]
        # by the older interface, which changes both: torch itself reads it
        _set("high" if on else "highest", on, [(part, "none") for part, _ in newer[:1]])
        try:
            yield
        finally:
            _set(*before, newer)


def _newer() -> list[Any]:
    """Where the newer of torch's two interfaces has a setting, the general one first; none before torch 2.9."""
    backends = torch.backends
    parts: list[Any] = [backends, backends.cuda.matmul, backends.mkldnn]
    parts += [getattr(backends.cudnn, "conv", None), getattr(backends.cudnn, "rnn", None)]
    parts += [getattr(backends.mkldnn, "matmul", None)]
    return [part for part in parts if hasattr(part, "fp32_precision")]


def _readable(read: Callable[[], Any]) -> Any:
    """None where torch refuses to read by the older interface what the newer one has changed."""
    try:
        return read()
    except RuntimeError:
        return None


def _set(products: str | None, convolutions: bool | None, newer: list[tuple[Any, str]]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*TF32", UserWarning)  # of torch, that its older interface will go
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            torch.backends.cudnn.allow_tf32 = convolutions
        for part, value in newer:
            part.fp32_precision = value
