"""Settings of torch under which layers are seen one by one, and can be differentiated twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import RLock

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


class Held:
    """A setting of torch's, which is one for all threads: the first holder makes it, the last puts back what was."""

    def __init__(self, make: Callable[[], AbstractContextManager]) -> None:
        self.make = make
        self.lock = RLock()
        self.holders = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if not self.holders:
                self.setting = self.make()
                self.setting.__enter__()
            self.holders += 1
        try:
            yield
        finally:
            with self.lock:
                self.holders -= 1
                if not self.holders:
                    self.setting.__exit__(None, None, None)


@contextmanager
def _no_fast_path() -> Iterator[None]:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


layer_by_layer = Held(_no_fast_path)  # transformers' fast path bypasses the layers, and so the hooks
math_attention = Held(lambda: sdpa_kernel(SDPBackend.MATH))
no_cudnn = Held(lambda: torch.backends.cudnn.flags(enabled=False))


@contextmanager
def eval_kernels(module: nn.Module) -> Iterator[None]:
    """Kernels that can be differentiated in eval mode; cuDNN's of recurrent layers cannot."""
    if any(isinstance(part, nn.RNNBase) for part in module.modules()):
        with no_cudnn():
            yield
    else:
        yield


@contextmanager
def plain_kernels(module: nn.Module) -> Iterator[None]:
    """Kernels that also have forward mode and second derivatives; the fused ones of attention do not."""
    with eval_kernels(module), layer_by_layer(), math_attention():
        yield
