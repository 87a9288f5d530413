"""Rows for nets: blocks of whatever a net can be trained on, as tensors, without a copy of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from skorch.dataset import Dataset
from skorch.utils import is_dataset
from torch import Tensor
from torch.utils.data import default_collate

Block = slice | np.ndarray
Read = Callable[[Block], Any]


def reader(net: Any, X: Any, y: Any) -> tuple[int, Read, Read | None]:
    """(number of rows, block -> inputs, block -> targets as they came) of the X and y that a net's fit takes.

    The reader of targets is None where there are none. A torch Dataset (or a Dataset class of the user) yields both,
    row by row through the net's collate_fn; y beside a torch Dataset is not used, as skorch does not.
    """
    if in_columns(net, X):
        if y is not None and count(y) != count(X):
            raise ValueError(f"X and y have {count(X)} and {count(y)} rows; they must have equally many")
        return count(X), lambda rows: take(X, rows), None if y is None else lambda rows: take(y, rows)
    dataset = net.get_dataset(X, y)
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"{type(dataset).__name__} cannot be read by position; rows are scored one by one, so a map-style Dataset "
            "with __len__ and __getitem__ is needed"
        )
    collate = _collate(net) or default_collate

    def both(rows: Block) -> Any:
        positions = range(*rows.indices(len(dataset))) if isinstance(rows, slice) else rows.tolist()
        return collate([dataset[position] for position in positions])

    return len(dataset), lambda rows: both(rows)[0], lambda rows: both(rows)[1]


def in_columns(net: Any, X: Any) -> bool:
    """Whether X and y are arrays (or dicts of them) that the net indexes as they are, so y is read without X."""
    plain = net.dataset is Dataset and not net.get_params_for("dataset") and _collate(net) is None
    return plain and not is_dataset(X)


def _collate(net: Any) -> Callable | None:
    """What makes a batch of rows in training, or else in prediction; None where the net names nothing."""
    given = (net.get_params_for(name).get("collate_fn") for name in ("iterator_train", "iterator_valid"))
    return next((each for each in given if each is not None), None)


def count(data: Any) -> int:
    """Rows of an array, a tensor, a sparse matrix, a DataFrame, or a dict of them."""
    if isinstance(data, Mapping):
        sizes = {name: count(value) for name, value in data.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"the arrays in X must have equally many rows, got {sizes}")
        return next(iter(sizes.values()))
    return data.shape[0] if hasattr(data, "shape") else len(data)


def take(data: Any, rows: Block) -> Any:
    """These rows as a new tensor; a dict of tensors for a dict or, as in skorch, for the columns of a DataFrame."""
    if isinstance(data, Mapping):
        return {name: take(value, rows) for name, value in data.items()}
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        block = data.iloc[rows]
        return {name: torch.from_numpy(np.array(block[name]).reshape(-1, 1)) for name in data.columns}
    if isinstance(data, Tensor):
        return data[rows if isinstance(rows, slice) else torch.from_numpy(rows)]
    block = data.iloc[rows] if hasattr(data, "iloc") else _as_array(data)[rows]
    if sp.issparse(block):
        block = block.toarray()
    values = np.array(block)  # a copy: torch must not write into a memory map of the user
    if values.dtype.kind not in "biufc":
        raise ValueError(
            f"a net needs numbers, got {values.dtype} such as {values.reshape(-1)[0]!r}; encode text as numbers first "
            "(labels as 0, 1, ..., e.g. with sklearn.preprocessing.LabelEncoder), and give rows of several lengths "
            "an iterator_train__collate_fn that pads them"
        )
    return torch.from_numpy(values)


def _as_array(data: Any) -> Any:
    if isinstance(data, list | tuple):
        if data and hasattr(data[0], "shape") and np.ndim(data[0]) > 0:
            raise TypeError("a list of arrays as X cannot be split into rows; pass a dict of arrays by argument name")
        return np.asarray(data)
    return data


def as_dtype(inputs: Any, dtype: torch.dtype) -> Any:
    """Floating point inputs in the dtype of the parameters; whole numbers stay (they may index an embedding)."""
    if isinstance(inputs, Mapping):
        return {name: as_dtype(value, dtype) for name, value in inputs.items()}
    if not isinstance(inputs, Tensor):
        raise TypeError(f"a net's inputs must be a tensor or a dict of tensors, got {type(inputs).__name__}")
    return inputs.to(dtype) if inputs.is_floating_point() else inputs
