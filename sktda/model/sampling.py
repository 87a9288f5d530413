"""Which rows a training reads: rows of a split dataset, and rows of every batch as the DataLoader draws them."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from skorch.dataset import get_len
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset


def trained_positions(dataset: Any, X: Any) -> tuple[np.ndarray, int] | None:
    """(positions in X of the rows of a training dataset, number of rows of X); None for an IterableDataset.

    A train_split returns a Subset of the dataset of X (or of a Subset), or the dataset itself.
    Raises ValueError for anything else, whose rows could come from anywhere.
    """
    if isinstance(dataset, IterableDataset):
        return None
    positions = None
    while isinstance(dataset, Subset) and dataset is not X:
        indices = np.asarray(dataset.indices, dtype=np.int64)
        positions = indices if positions is None else indices[positions]
        dataset = dataset.dataset
    given: Any = dataset if X is None else X
    n = len(given) if isinstance(given, Dataset) else get_len(given)  # type: ignore[arg-type]
    if len(dataset) != n:
        raise ValueError(
            f"which rows are trained on cannot be told: fit got {n} rows, but the net's train_split (or dataset) made "
            f"a dataset of {len(dataset)} rows that is no Subset of them; use skorch's ValidSplit or predefined_split, "
            "or return torch.utils.data.Subset"
        )
    return (np.arange(n) if positions is None else positions), n


class Tap:
    """Stands in for net.iterator_train while fit makes its DataLoader, and watches which rows that one draws.

    A copy or pickle of it is the iterator itself, so that a net whose fit failed before its first epoch is not
    changed by it.
    """

    def __init__(self, iterator: Callable[..., Any], drawn: deque[np.ndarray]) -> None:
        self.iterator = iterator
        self.drawn = drawn

    def __call__(self, dataset: Any, **kwargs: Any) -> Any:
        loader = self.iterator(dataset, **kwargs)
        _watch(loader, self.drawn)
        return loader

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.iterator, memo)

    def __reduce__(self) -> Any:
        return _same, (self.iterator,)


def remove_taps(net: Any) -> None:
    """Give the net its own iterator back."""
    while isinstance(net.iterator_train, Tap):
        net.iterator_train = net.iterator_train.iterator


def _same(value: Any) -> Any:
    return value


class _Watched:
    """A sampler that notes what it hands out; it draws exactly when and what the original draws."""

    def __init__(self, sampler: Any, drawn: deque[np.ndarray]) -> None:
        self.sampler = sampler
        self.drawn = drawn

    def __iter__(self) -> Iterator[Any]:
        return map(self._note, iter(self.sampler))  # no generator: iter() of the original may already draw

    def _note(self, indices: Any) -> Any:
        self.drawn.append(np.atleast_1d(np.asarray(indices)))
        return indices

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["sampler"], name)


def _watch(loader: Any, drawn: deque[np.ndarray]) -> None:
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        kind = type(loader.dataset if isinstance(loader, DataLoader) else loader).__name__
        raise ValueError(
            f"steps=True records which rows each batch holds, which {kind} does not tell; use a torch DataLoader and a "
            "map-style Dataset (one with __getitem__ and __len__), or steps=False"
        )
    if loader.num_workers and not getattr(loader, "in_order", True):
        raise ValueError(
            "steps=True needs the batches in the order in which they were drawn; use "
            "iterator_train__in_order=True, or steps=False"
        )
    # DataLoader refuses this assignment; a second loader around a watched sampler would lose subclasses and options
    name = "sampler" if loader.batch_sampler is None else "batch_sampler"
    vars(loader)[name] = _Watched(getattr(loader, name), drawn)
