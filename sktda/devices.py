"""The device that is meant, what fits into its memory, and where its float64 numbers are."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from multiprocessing import current_process
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Libraries under torch that could not have the memory they need, in errors that are no torch.OutOfMemoryError: cuBLAS,
# cuSOLVER and cuDNN, also where they make their handle; MPS; the processor (on Windows, "not enough memory").
ALLOCATION = ("STATUS_ALLOC_FAILED", "STATUS_NOT_INITIALIZED", "out of memory", "not enough memory", "allocate memory")

Ready = TypeVar("Ready")
Found = TypeVar("Found")


def resolve_device(device: Any) -> torch.device:
    """The torch device that is meant: "auto" is CUDA where there is one, else the processor.

    Of several cards, the workers of joblib (`n_jobs`), of multiprocessing and of Dask take the visible ones in turn.
    """
    import torch

    if device != "auto":
        return torch.device(device)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number = _worker_number()
    return torch.device("cuda") if number is None else torch.device("cuda", number % torch.cuda.device_count())


def own_card() -> AbstractContextManager[object]:
    """In which "cuda" without a number is the card that a worker takes, for nets that train there by themselves."""
    place = resolve_device("auto")
    if place.type != "cuda" or place.index is None:
        return nullcontext()
    import torch

    return torch.cuda.device(place)  # of this thread only, as CUDA has it


def _worker_number() -> int | None:
    """Which of the workers this process is, from 0; None where it is none.

    They are named LokyProcess-1, and so on; those of a Dask cluster have numbers as names, which count unless something
    has given each its cards already.
    """
    found = re.fullmatch(r"(?:LokyProcess|\w+PoolWorker)-(?:\d+:)*(\d+)", current_process().name)
    if found is not None:
        return int(found[1]) - 1
    distributed = sys.modules.get("distributed")
    if distributed is None or "CUDA_VISIBLE_DEVICES" in os.environ:
        return None
    try:
        name = distributed.get_worker().name
    except ValueError:
        return None
    return int(name) if str(name).isdecimal() else None


# ---- float64 -------------------------------------------------------------------------------------------------------


@cache
def has_float64(kind: str) -> bool:
    """Whether devices of this type have float64 numbers; MPS has none."""
    import torch

    try:
        torch.zeros((), dtype=torch.float64, device=kind)
    except TypeError:
        return False
    return True


def exact_device(device: torch.device) -> torch.device:
    """Where float64 numbers of a device are: on it, or on the processor where it has none."""
    import torch

    return device if has_float64(device.type) else torch.device("cpu")


def exact(values: Tensor) -> Tensor:
    """The values in float64, where their device keeps these."""
    return values.to(exact_device(values.device)).double()


def placed(values: Tensor, device: torch.device) -> Tensor:
    """The values on the device, where it keeps numbers of their precision."""
    import torch

    return values.to(exact_device(device) if values.dtype == torch.float64 else device)


def moved(curvatures: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """{name: curvature} of those that are not None, with their tensors on the device; what they share stays shared."""
    there = cache(lambda value: placed(value, device))

    @cache
    def restored(curvature: Any) -> Any:
        return curvature.restored({name: there(value) for name, value in curvature.tensors.items()})

    return {name: restored(curvature) for name, curvature in curvatures.items() if curvature is not None}


# ---- memory --------------------------------------------------------------------------------------------------------


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the device or of the processor."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in ALLOCATION)


def release() -> None:
    """Give back what torch keeps of the accelerator's memory for later, in pieces that may be too small.

    After the `except` of an error, and not in it: its traceback holds the tensors of the functions that failed.
    """
    import torch

    if torch.accelerator.is_available():
        torch.get_device_module(torch.accelerator.current_accelerator()).empty_cache()


def in_blocks(
    n: int,
    size: int,
    compute: Callable[[slice], Found],
    start: int = 0,
    spare: Callable[[], bool] | None = None,
) -> Iterator[tuple[slice, Found]]:
    """Yields (rows, compute(rows)) for slices that cover start..n; when memory runs out, halves them and goes on.

    compute must change nothing before its last allocation, so that a block can be tried again. spare lets go of what
    can be made again, and says whether there was any: a block is then tried again as it is.
    Raises the error if a single row does not fit.
    """
    while start < n:
        rows = slice(start, min(start + size, n))
        fits = True
        try:
            found = compute(rows)
        except RuntimeError as error:
            single = rows.stop - rows.start == 1
            if not out_of_memory(error) or (not (spared := spare is not None and spare()) and single):
                raise
            fits = False
        if fits:
            yield rows, found
            del found  # before the next one is made
            start = rows.stop
        else:
            size = size if spared else (rows.stop - rows.start) // 2
            release()


def where_it_fits(device: torch.device, compute: Callable[[torch.device], Found]) -> Found:
    """compute(device), or of the processor: where the device has no float64, or no room for what is made at once."""
    import torch

    place = exact_device(device)
    if place.type != "cpu":
        try:
            return compute(place)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        release()
    return compute(torch.device("cpu"))


def for_blocks(n: int, size: int, work: Callable[[slice], object]) -> None:
    """work(rows) as `in_blocks` computes."""
    for _ in in_blocks(n, size, work):
        pass


def in_pairs(
    queries: tuple[int, int],
    prepare: Callable[[slice], Ready],
    rows: tuple[int, int],
    compute: Callable[[Ready, slice], Found],
) -> Iterator[tuple[slice, slice, Found]]:
    """Yields (queries, rows, compute(prepare(queries), rows)) until all pairs are covered.

    queries, rows: (how many, how many at a time). When memory runs out, fewer rows are taken at a time, and then fewer
    queries, from the pairs that are missing. prepare and compute must change nothing.
    Raises the error if a single pair does not fit.
    """
    n, size = queries
    waiting = [(slice(start, min(start + size, n)), 0) for start in range(0, n, size)][::-1]
    while waiting:
        asked, done = waiting.pop()
        fits = True
        try:
            for part, found in in_blocks(*rows, partial(compute, prepare(asked)), done):
                done = part.stop
                yield asked, part, found
                del found
        except RuntimeError as error:
            if asked.stop - asked.start == 1 or not out_of_memory(error):
                raise
            fits = False
        if not fits:
            middle = (asked.start + asked.stop) // 2
            waiting += [(slice(middle, asked.stop), done), (slice(asked.start, middle), done)]
            release()
