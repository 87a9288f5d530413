"""Long passes over the rows, shard by shard: finished shards are kept on disk and taken up again after a kill."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sktda import __version__
from sktda.data import slices
from sktda.model import sealed
from sktda.workers import spread

SHARD = 65_536  # rows at most; by their number alone, so that shards are the same whatever the batch size and workers
LEAST, PARTS = 2_048, 32  # fewer rows make no shard of their own, and more shards no pass faster
ATTEMPTS = 3  # at writing into a folder that another process removes
PAUSE = 10.0  # seconds between two writes of a running sum, which is rewritten as a whole

Begin = Callable[[str, int, int], None]


class Journal:
    """Tensors by name in one folder, each file whole or absent; `folder=None` keeps nothing.

    key: digest of all that the results depend on. Results of other keys lie in other folders and are never mixed: a
    file says of which key, name and version of sktda it is, and has a checksum.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, key: str = "") -> None:
        self.folder = None if folder is None else Path(folder) / key

    def read(self, name: str) -> dict[str, Tensor] | None:
        """What was written under this name, or None; what is damaged or another file counts as absent."""
        if self.folder is None:
            return None
        try:
            tensors, about = sealed.load(self.folder / f"{name}.safetensors")
        except (FileNotFoundError, ValueError):
            return None
        return tensors if about == self._about(name) else None

    def write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write under this name, replacing what was there in one step; OSError if the disk is full, for example."""
        if self.folder is None:
            return
        for attempt in range(ATTEMPTS):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                return sealed.save(self.folder / f"{name}.safetensors", tensors, self._about(name))
            except OSError as error:
                # where another fit of the same problem has ended meanwhile, and cleared the folder, it is made again
                if attempt + 1 == ATTEMPTS or (self.folder.exists() and "No such file" not in str(error)):
                    raise

    def _about(self, name: str) -> dict[str, str]:
        assert self.folder is not None
        return {"name": name, "key": self.folder.name, "version": __version__}

    def clear(self) -> None:
        """Remove everything: the results are where they belong."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


class Held(Journal):
    """What a journal has, in memory."""

    def __init__(self, held: Mapping[str, Mapping[str, Tensor] | None]) -> None:
        super().__init__()
        self._held = held

    def read(self, name: str) -> dict[str, Tensor] | None:
        """As of the journal."""
        found = self._held.get(name)
        return None if found is None else dict(found)


def check_folder(folder: str | os.PathLike[str] | None) -> None:
    """Make the folder `work_dir`; raise OSError with what to do where none can be made or written to."""
    if folder is None:
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(
            f"work_dir {os.fspath(folder)} cannot be written: {error.strerror}; give another folder, or None"
        ) from error


def shard_size(n: int) -> int:
    """Rows of a shard of n."""
    return min(SHARD, LEAST * max(1, -(-n // (LEAST * PARTS))))


def _shard(within: Callable[[], AbstractContextManager], compute: Callable, start: int, stop: int) -> Any:
    """compute(start, stop) as the whole pass is computed, in any process."""
    with within():
        return compute(start, stop)


class Passes:
    """Runs passes over the rows in shards, with a journal and a report of progress, by workers where there are some.

    begin(name, shard number, number of shards) is called before each shard. within: what has to be entered for it, in a
    worker too.
    """

    def __init__(
        self,
        journal: Journal | None = None,
        begin: Begin | None = None,
        within: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self.journal = journal or Journal()
        self._begin = begin
        self._within = within
        self._held: dict = {}

    def __reduce__(self) -> tuple:
        return Passes, ()  # the journal and the report are where the pass was begun

    def code(self, values: Iterable[Tensor]) -> str:
        """A digest of the tensors that a pass depends on, for its name; without a journal they are not read."""
        return "" if self.journal.folder is None else sealed.digest(values)

    def begin(self, name: str) -> None:
        """Report a pass that is not in shards."""
        if self._begin is not None:
            self._begin(name, 0, 1)

    def shards(self, name: str, n: int, size: int | None = None) -> Iterator[tuple[int, slice]]:
        """(number, rows) of the shards of a pass, each of which is reported as it begins."""
        shards = list(slices(n, size or shard_size(n)))
        for k, shard in enumerate(shards):
            if self._begin is not None:
                self._begin(name, k, len(shards))
            yield k, shard

    def collect(self, name: str, n: int, compute: Callable[[int, int], Tensor]) -> Tensor:
        """(n,) values from compute(start, stop) per shard, on the processor; shards in the journal are read."""
        shards = list(slices(n, shard_size(n)))
        kept = [self.journal.read(f"{name}-{k:06d}") for k in range(len(shards))]
        missing = [(part.start, part.stop) for part, found in zip(shards, kept, strict=True) if found is None]
        made = spread(partial(_shard, self._within, compute), missing, self._held)
        parts = []
        for k, _ in self.shards(name, n):
            found = kept[k]
            if found is None:
                found = {"values": next(made).cpu()}
                self.journal.write(f"{name}-{k:06d}", found)
            parts.append(found["values"])
        return torch.cat(parts)

    def summed(
        self, name: str, n: int, compute: Callable[[int, int], dict[str, Tensor]], sums: dict[str, Tensor]
    ) -> None:
        """Add compute(start, stop) of every shard to the sums, in order; goes on from those in the journal.

        Each shard is summed by itself, so that results depend neither on how many workers there are nor on which is
        the first to end.
        """
        done = self._taken_up(name, sums)
        parts = [(part.start, part.stop) for part in slices(n, shard_size(n)) if part.start >= done]
        made = spread(partial(_shard, self._within, compute), parts, self._held)

        def add(start: int, stop: int) -> None:
            for key, value in next(made).items():
                sums[key] += value.to(sums[key].device)

        self._go_on(name, n, add, sums, None, done)

    def accumulate(
        self, name: str, n: int, add: Callable[[int, int], None], state: dict[str, Tensor], size: int | None = None
    ) -> None:
        """add(start, stop) per shard of `size`, each changing the state, on which the next goes on; and so from what is
        in the journal.
        """
        self._go_on(name, n, add, state, size, self._taken_up(name, state))

    def _taken_up(self, name: str, state: dict[str, Tensor]) -> int:
        """How far the journal's state goes, which is put into `state`."""
        kept = self.journal.read(name)
        if kept is None:
            return 0
        done = int(kept.pop("done"))
        # in place: `add` holds this very dict
        state |= {key: value.to(state[key].device) for key, value in kept.items()}
        return done

    def _go_on(
        self,
        name: str,
        n: int,
        add: Callable[[int, int], None],
        state: dict[str, Tensor],
        size: int | None,
        done: int,
    ) -> None:
        written = time.monotonic()
        for _, shard in self.shards(name, n, size):
            if shard.start < done:
                continue
            add(shard.start, shard.stop)
            if shard.stop == n or time.monotonic() - written > PAUSE:
                self.journal.write(name, {**state, "done": torch.tensor(shard.stop)})
                written = time.monotonic()
