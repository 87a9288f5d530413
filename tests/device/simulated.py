"""A simulated accelerator: the torch device "simulated", whose memory is the processor's and whose rules are CUDA's.

`backend.install` once per process, before the first backward pass: torch then starts the threads of all devices.
Tensors of the device can meet only each other (and single numbers from the processor where CUDA takes these), draw
from generators of the device only, and have no `.numpy()`; each read of a value waits, and is counted (`watched`).
Memory can be short (`limited`) and float64 be missing, as on MPS (`without_float64`).

Torch 2.13 lets a backend in Python have one device only, so a process has one card, with a number: workers have one
each. A tensor that is pickled arrives on the card that it was on, as with CUDA, unless skorch reads it, and may meet no
others there.

Torch's backend in Python for the key PrivateUse1 gives the name, and one boxed fallback all operators: it checks, runs
the operator of the processor on the same bytes, and makes device tensors of what is new. Views made in C++, detach()
and .data work by themselves, as a tensor has a real storage, which is marked as the device's.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from tests.device.cells import FUSED
from tests.device.ledger import Ledger

NAME = "simulated"
aten = torch.ops.aten
CPU = torch._C.DispatchKey.CPU
# Wait for the device: the shape of what they return depends on values, or they read one.
WAITING = {
    *("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "histc"),
    *("_local_scalar_dense", "equal", "repeat_interleave"),
}
INDEXED = {"index", "index_put", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
FACTORISING = ("linalg", "cholesky", "_cholesky", "_linalg", "geqrf", "ormqr", "triangular_solve")
# Launch nothing.
QUIET = {"empty", "empty_strided", "resize_", "set_", "view", "as_strided", "_reshape_alias", "unfold"}
QUIET |= {"view_as_real", "view_as_complex"}
# Arguments that are looked at no further: torch asks Python code whether something is a generator.
PLAIN = {int, float, bool, str, type(None), torch.dtype, torch.layout, torch.memory_format}


class Memory:
    """The bytes behind device tensors: each storage of the device is one of the processor's, kept while it lives."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self.used = 0
        self._held: dict[int, tuple[StorageWeakRef, torch.UntypedStorage, int, int]] = {}
        self._lock = threading.RLock()  # backward passes have threads of their own

    def sweep(self) -> None:
        """Let go of the bytes whose device storage is gone."""
        for key in [key for key, (alive, *_) in self._held.items() if alive.expired()]:
            self.used -= self._held.pop(key)[2]

    def card(self, value: Tensor) -> int:
        """Number of the card that a device tensor is on."""
        return self._held[value.untyped_storage()._cdata][3]

    def bound(self, low: Tensor, charge: bool = True, card: int | None = None) -> Tensor:
        """A device tensor over the bytes of a processor's, on a card (None = the process's).

        Raises torch.OutOfMemoryError beyond the limit.
        """
        if low.dtype == torch.float64 and not STATE.float64:
            raise TypeError(
                f"Cannot convert a {NAME} Tensor to float64 dtype as the framework doesn't support float64."
            )
        storage = low.untyped_storage()
        with self._lock:
            n_bytes = storage.nbytes() if charge else 0
            self._claim(n_bytes)
            own = torch._C._construct_storage_from_data_pointer(storage.data_ptr(), STATE.device, storage.nbytes())
            self._held[own._cdata] = StorageWeakRef(own), storage, n_bytes, STATE.card if card is None else card
        blank = torch._C._acc.create_empty_tensor([0], low.dtype)
        place = low.storage_offset(), list(low.size()), list(low.stride())
        return aten.set_.source_Storage_storage_offset._op_dk(CPU, blank, own, *place)

    def _claim(self, n_bytes: int) -> None:
        self.used += n_bytes
        short = self.limit is not None and self.used > self.limit
        if short or self.used > STATE.ledger.peak or len(self._held) % 256 == 0:
            self.sweep()
        if self.limit is not None and self.used > self.limit:
            gc.collect()
            self.sweep()
        if self.limit is not None and self.used > self.limit:
            self.used -= n_bytes
            raise torch.OutOfMemoryError(f"{NAME} out of memory. Tried to allocate {n_bytes} of {self.limit} bytes")
        STATE.ledger.peak = max(STATE.ledger.peak, self.used)

    def lowered(self, value: Tensor) -> Tensor:
        """The processor's tensor over the bytes of a device tensor."""
        storage = self._held[value.untyped_storage()._cdata][1]
        low = aten.empty.memory_format([0], dtype=value.dtype)
        place = value.storage_offset(), list(value.size()), list(value.stride())
        return aten.set_.source_Storage_storage_offset(low, storage, *place)


class State:
    """The one device of the process, and the number of its card."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.memory = Memory()
        self.float64 = True
        self.device = torch.device("cpu")  # until it has its name
        self.card = 0
        self.mapping = False
        """Whether skorch puts what it reads on the current card, wherever that was."""
        self.installed: list[Any] = []
        self.generator = torch.Generator().manual_seed(0)


STATE = State()


def on(value: Tensor) -> bool:
    """Whether a tensor is on the device."""
    return value.device.type == NAME


@contextmanager
def watched() -> Iterator[Ledger]:
    """What happens inside."""
    before, STATE.ledger = STATE.ledger, Ledger()
    gc.collect()
    STATE.memory.sweep()
    try:
        yield STATE.ledger
    finally:
        STATE.ledger = before


@contextmanager
def limited(n_bytes: int) -> Iterator[None]:
    """At most so many bytes more than there are now."""
    gc.collect()
    STATE.memory.sweep()
    STATE.memory.limit = STATE.memory.used + n_bytes
    try:
        yield
    finally:
        STATE.memory.limit = None


@contextmanager
def without_float64() -> Iterator[None]:
    """As on MPS."""
    STATE.float64 = False
    try:
        yield
    finally:
        STATE.float64 = True


# ---- rules ---------------------------------------------------------------------------------------------------------


def tensors(*values: Any) -> list[Tensor]:
    """All that are in the arguments of an operator. RuntimeError for a generator of the processor."""
    found = []
    for value in values:
        if type(value) in PLAIN:
            continue
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors(*value)
        elif isinstance(value, torch.Generator):
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{value.device.type}'")
    return found


def check(about: Facts, args: tuple, kwargs: dict) -> None:
    """Raise what CUDA raises, and note what waits."""
    ledger, name = STATE.ledger, about.name
    if name in INDEXED:
        if not on(args[0]):
            raise RuntimeError(f"indices should be either on cpu or on the same device ({args[0].device})")
        # reading them, torch has copied those of the processor, and counted masks, in operators of their own before
        for index in tensors(args[1]) if "put" in name else ():
            if not on(index):
                ledger.note("uploads", ("uploaded", index.nbytes))
            if index.dtype == torch.bool and args[2].numel() != 1:
                ledger.note("syncs")
        args = args[:1] + args[2:]
    every = tensors(*args, *kwargs.values())
    for value in every:
        if not on(value) and not (about.single and value.ndim == 0):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and "
                f"{value.device}! (when checking argument in method {name})"
            )
    same_card(about.name, every)
    if name in WAITING and kwargs.get("output_size") is None:
        ledger.note("syncs")
    if name.startswith(FACTORISING) and any(value.dtype == torch.float64 for value in every):
        ledger.note("factorised64")
    if name not in QUIET:
        ledger.counts["kernels"] += 1


def same_card(name: str, values: list[Tensor]) -> None:
    """Raise what CUDA raises where cards meet: torch has one device here, so that no `.to` helps."""
    cards = {STATE.memory.card(value) for value in values if on(value)}
    if cards - {STATE.card}:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {NAME}:{min(cards)} and {NAME}:{max(cards)} in "
            f"a process of {NAME}:{STATE.card}! (when checking argument in method {name})"
        )


def copied(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """Within the device, or to it, or from it, which waits."""
    low = [STATE.memory.lowered(value) if on(value) else value for value in (source, target)]
    if on(source) and source.is_conj():  # numbers that are conjugated, or negated, when they are copied
        low[0] = low[0].conj()
    if on(source) and source.is_neg():
        low[0] = low[0]._neg_view()
    if on(source) and on(target):
        STATE.ledger.counts["kernels"] += 1
    elif on(source):
        STATE.ledger.note("downloads", ("downloaded", source.nbytes))
        STATE.ledger.note("syncs")
    else:
        STATE.ledger.note("uploads", ("uploaded", source.nbytes))
    aten.copy_.default(low[1], low[0])
    return target


# ---- operators -----------------------------------------------------------------------------------------------------

NUMBER = {int: torch.int64, float: torch.float64, bool: torch.bool, complex: torch.complex128}


class Facts:
    """What is asked of each operator at each call."""

    def __init__(self, op: Any) -> None:
        arguments = op._schema.arguments
        self.name = op._schema.name.split("::")[1]
        self.takes_generator = any(each.name == "generator" for each in arguments)
        self.draws = torch.Tag.nondeterministic_seeded in op.tags
        self.tensors = [str(each.type) == "Tensor" for each in arguments]
        # a single number from the processor meets numbers of the device one by one only
        self.single = torch.Tag.pointwise in op.tags or self.name in INDEXED or self.name == "fill_"


facts = cache(Facts)


def fallback(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Any operator with a device tensor among its arguments, or in its result."""
    # plain operators: no autograd, no functorch, no modes
    with torch._C._DisableFuncTorch(), torch._C._AutoDispatchBelowAutograd(), torch._C.DisableTorchFunction():
        return run(op, args, kwargs)


def run(op: Any, args: tuple, kwargs: dict) -> Any:
    """The operator on the bytes of the device."""
    about, memory = facts(op), STATE.memory
    name = about.name
    if name in ("_copy_from", "_copy_from_and_resize"):
        return copied(*args, **kwargs)
    if name in ("view", "_reshape_alias") and op._overloadname != "dtype":
        return op._op_dk(CPU, *args)  # moves nothing, so that the processor's serves
    if name == "as_strided":
        offset = args[3] if len(args) > 3 else kwargs.get("storage_offset")
        return strided(*args[:3], args[0].storage_offset() if offset is None else offset)
    if name in ("is_pinned", "record_stream"):
        return False
    if name == "_efficientzerotensor":  # has no bytes
        return memory.bound(aten.zeros.default(args[0], dtype=kwargs.get("dtype")))
    check(about, args, kwargs)
    pairs: list[tuple[Tensor, Tensor]] = []

    def lower(value: Any) -> Any:
        if type(value) in PLAIN:
            return value
        if isinstance(value, Tensor) and on(value):
            pairs.append((value, memory.lowered(value)))
            return pairs[-1][1]
        if isinstance(value, list | tuple):
            return [lower(each) for each in value]
        return CPU_DEVICE if isinstance(value, torch.device) and value.type == NAME else value

    # numbers that torch had wrapped as tensors come as numbers
    low = [
        aten.scalar_tensor.default(value, dtype=NUMBER[type(value)])
        if a_tensor and type(value) in NUMBER
        else lower(value)
        for value, a_tensor in zip(args, about.tensors, strict=False)
    ]
    named = {key: lower(value) for key, value in kwargs.items() if key != "pin_memory"}
    before = [(tuple(own.size()), own.untyped_storage()._cdata) for _, own in pairs]
    result = random(about, *operator(op, name, low), named)
    for (value, own), (size, storage) in zip(pairs, before, strict=True):
        if tuple(own.size()) != size or own.untyped_storage()._cdata != storage:  # resized: its storage may be another
            value.data = memory.bound(own)
    return raised(result, pairs)


CPU_DEVICE = torch.device("cpu")


def operator(op: Any, name: str, low: list) -> tuple[Any, list]:
    """(operator of the processor, its arguments): convolutions of a backend have names of their own."""
    if name in FUSED:
        return FUSED[name], low
    if name == "convolution_overrideable":
        return aten.convolution.default, low
    if name == "convolution_backward_overrideable":
        grad, x, w, *rest = low
        bias = [w.shape[1] * rest[5] if rest[3] else w.shape[0]]  # groups, transposed
        return aten.convolution_backward.default, [grad, x, w, bias, *rest]
    return op, low


def random(about: Facts, target: Callable, low: list, named: dict) -> Any:
    """The operator, with the device's own generator where it draws."""
    if about.takes_generator:
        return target(*low, **named | {"generator": STATE.generator})
    if not about.draws:
        return target(*low, **named)
    before = torch.get_rng_state()  # dropout takes none
    torch.set_rng_state(STATE.generator.get_state())
    try:
        return target(*low, **named)
    finally:
        STATE.generator.set_state(torch.get_rng_state())
        torch.set_rng_state(before)


def strided(value: Tensor, size: Any, stride: Any, offset: int) -> Tensor:
    """A view of a device tensor."""
    return aten.as_strided.default._op_dk(CPU, value, list(size), list(stride), offset)


def raised(result: Any, pairs: list[tuple[Tensor, Tensor]]) -> Any:
    """The operator's result on the device: an argument, a view of one, or a new tensor."""
    given = {id(own): value for value, own in pairs}
    shared = {own.untyped_storage()._cdata: value for value, own in pairs}

    def up(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(up(each) for each in value)
        if not isinstance(value, Tensor):
            return value
        if id(value) in given:
            return given[id(value)]
        source = shared.get(value.untyped_storage()._cdata)
        if source is None:
            return STATE.memory.bound(value)
        if value.dtype != source.dtype:  # the same bytes as another type
            return STATE.memory.bound(value, charge=False)
        return strided(source, value.size(), value.stride(), value.storage_offset())

    return up(result)
