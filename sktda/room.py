"""Room for arrays with a line per row: in memory, or, where they are large, in temporary files that are mapped."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HELD = 2**27  # bytes in memory
MANY_ROWS = 2**22  # of more a quarter of that is held: a fit has many arrays with a number for each
CELLS = 2**22  # looked at together


def room(shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """A new array of zeros. One that is too large to be held is the map of a file, which is gone with it.

    Raises OSError where the disk has no room for it.
    """
    n_bytes = np.dtype(dtype).itemsize * int(np.prod(shape))
    if _is_held(shape[0], n_bytes):
        return np.zeros(shape, dtype)
    handle, name = tempfile.mkstemp(prefix="sktda-array-", suffix=".bin")
    try:
        try:
            if hasattr(os, "posix_fallocate"):  # a disk that is full later would be a signal and not an error
                os.posix_fallocate(handle, 0, n_bytes)
        finally:
            os.close(handle)
        found = np.memmap(name, dtype, "r+" if os.path.getsize(name) else "w+", shape=shape)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise OSError(
            f"could not write {name}: {error.strerror or error}; {n_bytes / 1e9:.1f} GB are needed there (TMPDIR names "
            "another folder)"
        ) from error
    weakref.finalize(found, Path(name).unlink, missing_ok=True)
    return found


def _is_held(n: int, n_bytes: int) -> bool:
    return n_bytes <= (HELD if n <= MANY_ROWS else HELD // 4)


def kept(values: np.ndarray) -> np.ndarray:
    """The numbers, in `room` where they are too many to be held: for what stays."""
    if _is_held(len(values), values.nbytes):
        return values
    found = room(values.shape, values.dtype)
    found[...] = values
    return found


def parts(n: int, width: int = 1) -> Iterator[slice]:
    """Consecutive slices of 0..n, of about CELLS cells where a row has `width`."""
    size = max(1, CELLS // max(1, width))
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def row_by_row(function: Callable[..., np.ndarray], *arrays: Any, width: int | None = None) -> np.ndarray:
    """function(*arrays), of what treats each row alone, some rows at a time: (n,), or (n, width) where that is given.

    arrays: of n rows each, the first one of two dimensions.
    """
    n, columns = arrays[0].shape
    found = room((n,) if width is None else (n, width))
    for part in parts(n, columns):
        found[part] = function(*(each[part] for each in arrays))
    return found


def free_memory() -> int | None:
    """Bytes that this process may still take; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
    try:  # of a container
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # there is none, or no limit
        return free
    return min(free, max(0, limit - used))


def check_held(name: str, n_bytes: float, instead: str) -> None:
    """Raise ValueError, before the work, where what a method holds of all rows does not fit into the memory.

    n_bytes: at the least; instead: what goes through the rows block by block.
    """
    free = free_memory()
    if free is not None and n_bytes > free:
        raise ValueError(
            f"{name} would hold at least {n_bytes / 1e9:.3g} GB of all rows in memory, and {free / 1e9:.3g} GB are "
            f"free; {instead}, or take fewer rows"
        )
