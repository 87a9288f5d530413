"""The simulated device as torch knows it: its name, its module, and copies of its tensors."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from skorch import NeuralNet
from torch import Tensor, nn

from tests.device.simulated import NAME, STATE, aten, fallback, on, tensors

ROUNDED = "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "conv1d", "conv2d", "conv3d"
EXACT = "softmax", "log_softmax", "nll_loss", "cross_entropy_loss", "mse_loss", "layer_norm", "exp", "log"
MEMORY = 16 * 2**30  # bytes of the device where no limit is set


class Module:
    """torch.simulated: what torch and its users ask of torch.cuda."""

    OutOfMemoryError = torch.OutOfMemoryError

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        STATE.generator.manual_seed(seed)

    def get_rng_state(self, device: Any = None) -> Tensor:
        return STATE.generator.get_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        STATE.generator.set_state(state)

    def synchronize(self, device: Any = None) -> None:
        STATE.ledger.note("syncs")

    def empty_cache(self) -> None:
        STATE.ledger.note("emptied")

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        STATE.memory.sweep()
        total = STATE.memory.limit or MEMORY
        return max(0, total - STATE.memory.used), total

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


def install() -> None:
    """Make the device known to torch, for the rest of the process."""
    if STATE.installed:
        return
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, Module())
    STATE.device = torch.device(NAME, 0)
    every, own = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL", "PrivateUse1")
    STATE.installed += [every, own]  # an operator is gone when its library is
    every.fallback(fallback, "PrivateUse1")
    for name in ("convolution_overrideable", "convolution_backward_overrideable"):  # whose default is to raise
        op = getattr(aten, name).default
        own.impl(name, lambda *args, _op=op, **kwargs: fallback(_op, *args, **kwargs))
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("aten::_foreach_") and not name.endswith("out"):
            name, _, overload = name.removeprefix("aten::").partition(".")
            own.impl(op := getattr(getattr(aten, name), overload or "default"), partial(_of_lists, op))
    cast = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    every.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    STATE.installed.append(cast)
    for names, dtype in ((ROUNDED, None), (EXACT, torch.float32)):
        for name in names:
            op = getattr(aten, name)
            op = getattr(op, "int" if "int" in op.overloads() else "default")
            cast.impl(op, partial(_autocast, op, dtype))
    for key in ("Conjugate", "Negative"):  # which would copy the source first, and that copy's source
        STATE.installed.append(torch.library.Library("aten", "IMPL", key))
        STATE.installed[-1].impl("_copy_from", torch.library.fallthrough_kernel)
    # skorch asks this before it makes arrays
    torch.Tensor.is_cuda = property(lambda self: self.device.type in ("cuda", NAME))  # type: ignore[assignment]
    for kind in (torch.Tensor, nn.Parameter):
        _copy_as_tensors(kind)
    torch.serialization.add_safe_globals([_rebuilt])
    _map_nets()
    _keep_ties()


def _autocast(op: Any, dtype: torch.dtype | None, *args: Any, **kwargs: Any) -> Any:
    """An operator under torch.autocast, of which torch brings the kinds of CUDA for CUDA."""
    dtype = torch.get_autocast_dtype(NAME) if dtype is None else dtype
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
        return op(*(each.to(dtype) if _inexact(each) else each for each in args), **kwargs)


def _inexact(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.float32, torch.float16, torch.bfloat16)


def _of_lists(op: Any, *args: Any, **kwargs: Any) -> Any:
    """One kernel for all tensors of a list, as on CUDA; from tensor to tensor where they are not all there."""
    if all(on(value) for value in tensors(*args, *kwargs.values())):
        return fallback(op, *args, **kwargs)
    return op._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args, **kwargs)


def _copy_as_tensors(kind: type) -> None:
    """Copies and pickles of device tensors go by tensor: their storage is in two worlds."""
    copy, reduce = kind.__deepcopy__, kind.__reduce_ex__  # type: ignore[attr-defined]

    def deepcopy(self: Tensor, memo: dict) -> Tensor:
        if not on(self):
            return copy(self, memo)
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError(
                "Only Tensors created explicitly by the user support the deepcopy protocol at the moment"
            )
        new = _rebuilt(self.detach().clone(), isinstance(self, nn.Parameter), self.requires_grad)
        new.grad = None if self.grad is None else self.grad.clone()
        new.__dict__.update(self.__dict__)
        memo[id(self)] = new
        return new

    def reduced(self: Tensor, protocol: int) -> Any:
        if not on(self):
            return reduce(self, protocol)
        about = isinstance(self, nn.Parameter), self.requires_grad, STATE.memory.card(self)
        return _rebuilt, (self.detach().cpu(), *about)

    kind.__deepcopy__, kind.__reduce_ex__ = deepcopy, reduced  # type: ignore[attr-defined]


def _map_nets() -> None:
    """skorch reads the tensors of a net with map_location, its device, which without a number is the current card."""
    set_state = NeuralNet.__setstate__

    def mapped(self: NeuralNet, state: dict) -> None:
        STATE.mapping = True
        try:
            set_state(self, state)
        finally:
            STATE.mapping = False

    NeuralNet.__setstate__ = mapped


def _keep_ties() -> None:
    """A module that moves here makes new parameters, one for each place that shares one; on CUDA it makes none."""
    apply = nn.Module._apply

    def applied(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        names: dict[int, list[str]] = {}
        for name, value in self.named_parameters(remove_duplicate=False):
            names.setdefault(id(value), []).append(name)
        apply(self, *args, **kwargs)
        for first, *others in names.values():
            for other in others:
                owner, _, own = other.rpartition(".")
                setattr(self.get_submodule(owner), own, self.get_parameter(first))
        return self

    nn.Module._apply = applied  # type: ignore[method-assign]


def _rebuilt(value: Tensor, parameter: bool, requires_grad: bool, card: int | None = None) -> Tensor:
    here = card is None or STATE.mapping
    with torch._C.DisableTorchFunction():  # as tests may be at work that place what they make
        value = value.to(NAME) if here else STATE.memory.bound(value.clone(), card=card)
    return nn.Parameter(value, requires_grad) if parameter else value.requires_grad_(requires_grad)
