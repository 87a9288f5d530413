"""Long passes over the rows, shard by shard: finished shards are kept on disk and taken up again after a kill."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sktda import __version__
from sktda.data import slices
from sktda.model import sealed

SHARD = 65_536  # rows; fixed, so that shards are the same whatever the batch size
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
        self.folder.mkdir(parents=True, exist_ok=True)
        sealed.save(self.folder / f"{name}.safetensors", tensors, self._about(name))

    def _about(self, name: str) -> dict[str, str]:
        assert self.folder is not None
        return {"name": name, "key": self.folder.name, "version": __version__}

    def clear(self) -> None:
        """Remove everything: the results are where they belong."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


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


class Passes:
    """Runs passes over the rows in shards, with a journal and a report of progress.

    begin(name, shard number, number of shards) is called before each shard.
    """

    def __init__(self, journal: Journal | None = None, begin: Begin | None = None) -> None:
        self.journal = journal or Journal()
        self._begin = begin

    def code(self, values: Iterable[Tensor]) -> str:
        """A digest of the tensors that a pass depends on, for its name; without a journal they are not read."""
        return "" if self.journal.folder is None else sealed.digest(values)

    def begin(self, name: str) -> None:
        """Report a pass that is not in shards."""
        if self._begin is not None:
            self._begin(name, 0, 1)

    def shards(self, name: str, n: int, size: int | None = None) -> Iterator[tuple[int, slice]]:
        """(number, rows) of the shards of a pass, each of which is reported as it begins."""
        shards = list(slices(n, size or SHARD))
        for k, shard in enumerate(shards):
            if self._begin is not None:
                self._begin(name, k, len(shards))
            yield k, shard

    def collect(self, name: str, n: int, compute: Callable[[int, int], Tensor]) -> Tensor:
        """(n,) values from compute(start, stop) per shard, on the processor; shards in the journal are read."""
        parts = []
        for k, shard in self.shards(name, n):
            label = f"{name}-{k:06d}"
            kept = self.journal.read(label)
            values = compute(shard.start, shard.stop).cpu() if kept is None else kept["values"]
            if kept is None:
                self.journal.write(label, {"values": values})
            parts.append(values)
        return torch.cat(parts)

    def accumulate(
        self, name: str, n: int, add: Callable[[int, int], None], state: dict[str, Tensor], size: int | None = None
    ) -> None:
        """add(start, stop) per shard of `size`, each changing the sums in `state`; goes on from that in the journal."""
        kept = self.journal.read(name)
        done = 0
        if kept is not None:
            done = int(kept.pop("done"))
            # in place: `add` holds this very dict
            state |= {key: value.to(state[key].device) for key, value in kept.items()}
        written = time.monotonic()
        for _, shard in self.shards(name, n, size):
            if shard.start < done:
                continue
            add(shard.start, shard.stop)
            if shard.stop == n or time.monotonic() - written > PAUSE:
                self.journal.write(name, {**state, "done": torch.tensor(shard.stop)})
                written = time.monotonic()
