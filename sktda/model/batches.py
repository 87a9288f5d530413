"""Batches and rows as training loops have them: pairs, dicts with labels in them, several inputs in a tuple."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

LABELS = ("labels", "label", "targets", "target", "y")
"""Names under which a dict holds its targets, as Hugging Face's do; the first that is there."""


def labels_in(batch: Mapping[str, Any]) -> str | None:
    """The name of the targets in a batch or row, None where there are none."""
    return next((name for name in LABELS if name in batch), None)


def parted(batch: Any, names: list[str] | None = None) -> tuple[Any, Any]:
    """(inputs, targets) of a batch or a row: (x, y), (a, b, ..., y), or a dict that holds its labels.

    Several inputs become a dict by the names of forward's arguments, if these are given. TypeError for anything else.
    """
    if isinstance(batch, Mapping):
        key = labels_in(batch)
        if key is None:
            raise TypeError(
                f"a batch with {', '.join(map(repr, batch))} names no targets; call them one of {', '.join(LABELS)}"
            )
        return {name: value for name, value in batch.items() if name != key}, batch[key]
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        what = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else type(batch).__name__
        raise TypeError(f"a batch must be (inputs, ..., targets) or a dict with its labels, and this one is a {what}")
    *inputs, targets = batch
    if len(inputs) == 1:
        return inputs[0], targets
    if names is None:
        return tuple(inputs), targets
    return dict(zip(names, inputs, strict=False)), targets


def argument_names(module: nn.Module) -> list[str]:
    """Names of the positional arguments of a module's forward."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, each in inspect.signature(module.forward).parameters.items() if each.kind in kinds]


def unlabelled(batch: Any, names: list[str]) -> Any:
    """Inputs of a row that holds nothing else: a dict, or a tuple in the order of the arguments of forward."""
    return dict(zip(names, batch, strict=False)) if isinstance(batch, tuple | list) else batch


def as_dataset(rows: Any) -> Any:
    """Rows that a DataLoader reads though they are no Dataset of torch's, as one; anything else as it is.

    These are a Dataset of Hugging Face's, and a list of rows that are dicts or tuples of tensors or arrays.
    """
    of_hugging_face = type(rows).__module__.startswith("datasets.") and hasattr(rows, "column_names")
    return RowsOf(rows) if of_hugging_face or (isinstance(rows, list) and rows and _is_row(rows[0])) else rows


def _is_row(row: Any) -> bool:
    return isinstance(row, Mapping) or (isinstance(row, tuple) and any(hasattr(part, "shape") for part in row))


class RowsOf(Dataset):
    """Rows by position, of which dicts hold tensors; their texts are left out, as no net takes any."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Any:
        row = self.rows[int(position)]
        if not isinstance(row, Mapping):
            return row
        return {name: torch.as_tensor(value) for name, value in row.items() if not isinstance(value, str)}


class Pairs(Dataset):
    """The rows of a Dataset as (inputs, targets); targets are 0 where the rows hold none."""

    def __init__(self, dataset: Any, names: list[str], labelled: bool = True) -> None:
        self.dataset = dataset
        self.names = names
        self.labelled = labelled

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> tuple[Any, Any]:
        row = self.dataset[position]
        return parted(row, self.names) if self.labelled else (unlabelled(row, self.names), 0)


def targets_of(dataset: Any) -> np.ndarray:
    """(n, ...) the targets in the rows of a Dataset."""
    return np.stack([np.asarray(parted(dataset[position])[1]) for position in range(len(dataset))])


class Relabelled(Dataset):
    """The rows of a Dataset with other class labels (n,), of the kind that they hold; ValueError for names of codes."""

    def __init__(self, dataset: Any, labels: np.ndarray) -> None:
        self.dataset = dataset
        self.labels = labels

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> Any:
        row, label = self.dataset[position], self.labels[position]
        own = parted(row)[1]
        if isinstance(label, str) and not isinstance(own, str):
            raise ValueError(f"the labels in the rows of the Dataset are numbers, so give the number of {str(label)!r}")
        if isinstance(own, Tensor):
            label = torch.full_like(own, int(label))
        elif not isinstance(own, str):
            label = np.full_like(own, label)
        if isinstance(row, Mapping):
            return {**row, labels_in(row): label}
        return (*row[:-1], label)


class PairingCollate:
    """A collate function whose batches come as (inputs, targets)."""

    def __init__(self, collate: Callable, names: list[str]) -> None:
        self.collate = collate
        self.names = names

    def __call__(self, rows: list[Any]) -> tuple[Any, Any]:
        return parted(self.collate(rows), self.names)


def first_output(output: Any) -> Any:
    """The raw outputs among what a forward returned: the logits of a Hugging Face output, the first of a tuple."""
    if isinstance(output, Mapping):
        found = output.get("logits")
        return next((each for each in output.values() if isinstance(each, Tensor)), None) if found is None else found
    return output[0] if isinstance(output, tuple | list) else output
