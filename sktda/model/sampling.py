"""Which rows a training reads: rows of a split dataset, and rows of every batch as the DataLoader draws them."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
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
        # of a part of a part: the outer positions are among the inner ones
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


class Draws:
    """The rows of the batches that a sampler has handed out, first to last; of each pass by itself."""

    def __init__(self) -> None:
        self.now: deque[np.ndarray] = deque()

    def begin(self) -> deque[np.ndarray]:
        """A new pass."""
        self.now = deque()
        return self.now


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
        watch(loader, lambda: self.drawn)
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

    def __init__(self, sampler: Any, drawn: Callable[[], deque[np.ndarray]]) -> None:
        self.sampler = sampler
        self.drawn = drawn

    def __iter__(self) -> Iterator[Any]:
        # no generator: iter() of the original may already draw
        return map(partial(_note, self.drawn()), iter(self.sampler))

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["sampler"], name)


def _note(drawn: deque[np.ndarray], indices: Any) -> Any:
    drawn.append(np.atleast_1d(np.asarray(indices)))
    return indices


def watch(loader: Any, drawn: Callable[[], deque[np.ndarray]]) -> Callable[[], None]:
    """Note the rows of the batches that a DataLoader draws, in what `drawn` gives at the start of each pass.

    Returns what gives the loader its own sampler back. Raises ValueError for a loader that does not tell rows.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        kind = type(loader.dataset if isinstance(loader, DataLoader) else loader).__name__
        raise ValueError(
            f"steps=True records which rows each batch holds, which {kind} does not tell; use a torch DataLoader and a "
            "map-style Dataset (one with __getitem__ and __len__), or steps=False"
        )
    if loader.num_workers and not getattr(loader, "in_order", True):
        raise ValueError(
            "steps=True needs the batches in the order in which they were drawn; use in_order=True of the DataLoader "
            "(iterator_train__in_order of a skorch net), or steps=False"
        )
    # DataLoader refuses this assignment; a second loader around a watched sampler would lose subclasses and options
    name = "sampler" if loader.batch_sampler is None else "batch_sampler"
    own = getattr(loader, name)
    vars(loader)[name] = _Watched(own, drawn)
    return lambda: vars(loader).update({name: own})


def handing(loader: Any, began: Callable[[], Any], handed: Callable[[Any, Any], None], over: Callable[[], None]) -> Any:
    """Let a DataLoader tell what it hands to whoever goes through it, in the order in which they get it.

    began() is called before a pass, and what it returns goes to handed(that, batch) before each batch is handed over;
    over() after the last one. Returns what makes the loader as it was.
    """
    own = type(loader)

    def __iter__(self: Any) -> Any:
        found = began()
        return _Handing(own.__iter__(self), partial(handed, found), over)

    told = type(own.__name__, (own,), {"__iter__": __iter__, "__module__": own.__module__})
    object.__setattr__(loader, "__class__", told)
    return lambda: object.__setattr__(loader, "__class__", own)


class _Handing:
    """An iterator that tells what it hands over."""

    def __init__(self, iterator: Any, handed: Callable[[Any], None], over: Callable[[], None]) -> None:
        self._iterator, self._handed, self._over = iterator, handed, over

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        try:
            batch = next(self._iterator)
        except StopIteration:
            self._over()
            raise
        self._handed(batch)
        return batch

    def __len__(self) -> int:
        return len(self._iterator)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_iterator"], name)
