"""Fingerprints of the rows of (X, y) and of modules, to refuse a trajectory of other data or of another model."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from skorch.dataset import Dataset as SkorchDataset
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from sktda.data import slices
from sktda.model.batches import labels_in, parted
from sktda.model.scaled import ScaledRows
from sktda.model.settings import random_state_kept

CHUNK = 2**18  # numbers hashed at a time: they stay in the processor's cache
ITEMS = 256  # rows of a Dataset read at a time
_ODD = np.uint64(0x9E3779B97F4A7C15)


def row_fingerprints(X: Any, y: Any = None, rows: np.ndarray | None = None) -> np.ndarray:
    """uint64 fingerprint (n,) of each row of (X, y), or of the rows at these positions.

    X, y: arrays of any shape and kind, memory maps, sparse matrices, tensors, DataFrames, a dict or list of them, or a
    torch Dataset (y is then ignored: its items hold it). Numbers count as float32, so float64, float32 and integer
    copies of the same rows agree, and so do a DataFrame and its array. One read of the data, O(block) memory.
    """
    if isinstance(X, Subset):
        chosen = np.asarray(X.indices)
        return row_fingerprints(X.dataset, None, chosen if rows is None else chosen[rows])
    if isinstance(X, SkorchDataset):
        return row_fingerprints(X.X, X.y, rows)
    if isinstance(X, TensorDataset) and len(X.tensors) <= 2:
        return (
            row_fingerprints(*X.tensors, rows=rows)
            if len(X.tensors) == 2
            else row_fingerprints(X.tensors[0], None, rows)
        )
    if isinstance(X, Dataset):
        with random_state_kept():
            return _of_items(X, np.arange(len(X)) if rows is None else rows)  # type: ignore[arg-type]
    code = _mix(_of_arrays(X, rows) + _ODD)
    return code if y is None else _mix(code ^ _mix(_of_arrays(y, rows)))


def changes_between_reads(X: Any) -> bool:
    """Whether a torch Dataset gives another first row on each read (random transforms), so that rows have no print."""
    while isinstance(X, Subset):
        X = X.dataset
    if not isinstance(X, Dataset) or isinstance(X, SkorchDataset | TensorDataset) or not len(X):  # type: ignore[arg-type]
        return False
    first = np.zeros(1, dtype=int)
    with random_state_kept():
        return bool((_of_items(X, first) != _of_items(X, first)).any())


def module_fingerprint(module: nn.Module) -> dict[str, list[list[Any]]]:
    """Classes of all submodules, and name, shape and dtype of all parameters and buffers; values play no part."""
    module = getattr(module, "_orig_mod", module)
    return {
        "modules": [[name, type(child).__qualname__] for name, child in module.named_modules()],
        "parameters": [_described(name, value) for name, value in module.named_parameters()],
        "buffers": [_described(name, value) for name, value in module.named_buffers()],
    }


def _described(name: str, value: Tensor) -> list[Any]:
    return [name, list(value.shape), str(value.dtype).removeprefix("torch.")]


def _mix(code: np.ndarray) -> np.ndarray:
    """splitmix64: every bit of the result depends on every bit of the code."""
    code = (code ^ (code >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    code = (code ^ (code >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return code ^ (code >> np.uint64(31))


def _of_arrays(X: Any, rows: np.ndarray | None) -> np.ndarray:
    parts = _parts(X)
    n = parts[0].shape[0] if rows is None else len(rows)
    codes = np.zeros(n, dtype=np.uint64)
    column = 0
    for part in parts:
        width = int(np.prod(part.shape[1:], dtype=np.int64))
        # position j of a row enters through two constants of its own, so that swapped values are seen
        place = _mix((np.arange(column, column + width, dtype=np.uint64) + np.uint64(1)) * _ODD)
        for block in slices(n, max(1, CHUNK // max(1, width))):
            bits = _bits(part[block if rows is None else rows[block]])
            values = (bits.astype(np.uint64) + place) * np.uint64(0xD6E8FEB86659FD93)
            values ^= values >> np.uint64(32)
            codes[block] += (values * (place | np.uint64(1))).sum(axis=1, dtype=np.uint64)
        column += width
    return codes


def _parts(X: Any) -> list[Any]:
    """Arrays that together hold the rows, each with a shape and sliceable by row."""
    if isinstance(X, Mapping):
        return [part for key in sorted(X, key=str) for part in _parts(X[key])]
    if hasattr(X, "iloc"):
        return [X.iloc[:, j].to_numpy() for j in range(X.shape[1])] if X.ndim == 2 else [X.to_numpy()]
    if sp.issparse(X):
        return [X.tocsr()]
    if isinstance(X, list | tuple) and X and all(getattr(part, "ndim", 0) >= 1 for part in X):
        return [part for value in X for part in _parts(value)]  # several inputs, as skorch reads such a list
    return [X if hasattr(X, "shape") and hasattr(X, "__getitem__") else np.asarray(X)]


def _bits(block: Any) -> np.ndarray:
    """The numbers of a block as (rows, columns) uint32: bits of a float32; a hash of whatever is no number."""
    if sp.issparse(block):
        block = block.toarray()
    if isinstance(block, Tensor):
        block = block.detach().cpu()
        block = (block.float() if block.dtype == torch.bfloat16 else block).numpy()
    block = np.asarray(block)
    block = block.reshape(len(block), -1) if block.size else block.reshape(len(block), 0)
    if block.dtype.kind not in "biuf":
        seen: dict[Any, int] = {}
        bits = [seen[value] if value in seen else seen.setdefault(value, _value_bits(value)) for value in block.flat]
        return np.array(bits, dtype=np.uint32).reshape(block.shape)
    with np.errstate(over="ignore"):
        numbers = block.astype(np.float32) + np.float32(0)  # -0 becomes 0
    numbers[np.isnan(numbers)] = np.nan
    return numbers.view(np.uint32)


def _value_bits(value: Any) -> int:
    if isinstance(value, int | float | np.number | np.bool_):
        return int(_bits(np.array([value], dtype=np.float64))[0, 0])
    return int.from_bytes(blake2b(str(value).encode(), digest_size=4).digest(), "little")


def _of_items(dataset: Any, rows: np.ndarray) -> np.ndarray:
    codes = np.empty(len(rows), dtype=np.uint64)
    for block in slices(len(rows), ITEMS):
        if isinstance(dataset, ScaledRows):
            codes[block] = row_fingerprints(*dataset.take(rows[block]))
            continue
        items = [dataset[int(row)] for row in rows[block]]
        pairs = [_pair(item) for item in items]
        has_y = pairs[0][1] is not None
        inputs = _stacked([x for x, _ in pairs])
        targets = _stacked([y for _, y in pairs]) if has_y else None
        if inputs is not None and (targets is not None or not has_y):
            codes[block] = row_fingerprints(inputs, targets)
        else:  # rows of different shapes
            codes[block] = [row_fingerprints(_single(x), None if y is None else _single(y))[0] for x, y in pairs]
    return codes


def _pair(item: Any) -> tuple[Any, Any]:
    """(inputs, targets), targets None where they are not told apart."""
    if isinstance(item, Mapping):
        name = labels_in(item)
        return (item, None) if name is None else parted(item)
    return item if isinstance(item, list | tuple) and len(item) == 2 else (item, None)  # type: ignore[return-value]


def _single(value: Any) -> Any:
    """A row as a batch of one."""
    if isinstance(value, Mapping):
        return {name: _single(each) for name, each in value.items()}
    if isinstance(value, tuple | list) and any(getattr(each, "ndim", 0) for each in value):
        return [_single(each) for each in value]
    return (value if isinstance(value, Tensor) else np.asarray(value))[None]


def _stacked(values: list[Any]) -> Any:
    try:
        return default_collate(values)
    except (TypeError, RuntimeError):
        return None


def occurrence(codes: np.ndarray) -> np.ndarray:
    """How many equal codes come before each one."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    earlier = np.empty(len(codes), dtype=np.int64)
    earlier[order] = np.arange(len(codes)) - np.searchsorted(ordered, ordered, side="left")
    return earlier
