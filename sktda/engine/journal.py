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
from sktda.workers import Made, in_turn, n_workers, spread

SHARD = 65_536  # rows at most; by their number alone, so that shards are the same whatever the batch size and workers
LEAST, PARTS = 2_048, 32  # fewer rows make no shard of their own, and more shards no pass faster
BLOCK = 4  # shards whose sums are added up by themselves, so that one task can do that and send one sum
ATTEMPTS = 3  # at writing into a folder that another process removes
PAUSE = 10.0  # seconds between two writes of a running sum, which is rewritten as a whole

Begin = Callable[[str, int, int], None]
Sums = dict[str, Tensor]
Stages = Callable[[], Iterable[tuple[str, Callable[[int, int], Any]]]]


class Journal:
    """Tensors by name in one folder, each file whole or absent; `folder=None` keeps nothing but what is `held`.

    key: digest of all that the results depend on. Results of other keys lie in other folders and are never mixed: a
    file says of which key, name and version of sktda it is, and has a checksum.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, key: str = "", held: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = None if folder is None else Path(folder) / key
        self._held = held or {}

    def read(self, name: str) -> dict[str, Tensor] | None:
        """What was written under this name, or None; what is damaged or another file counts as absent."""
        if self.folder is None:
            found = self._held.get(name)
            return None if found is None else dict(found)
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


def _sums(
    within: Callable[[], AbstractContextManager], compute: Callable, size: int, title: str, start: int, stop: int
) -> Sums:
    """Sums of compute over the shards of rows start..stop, added in order, as the whole pass is computed."""
    sums: Sums = {}
    with within():
        for part in slices(stop - start, size):
            found = compute(start + part.start, start + part.stop)
            sums = {key: sums[key].add_(value) for key, value in found.items()} if sums else found
    return sums


def _values(
    within: Callable[[], AbstractContextManager], compute: Callable, size: int, title: str, start: int, stop: int
) -> Tensor:
    """compute of the shards of rows start..stop."""
    with within():
        return torch.cat([compute(start + part.start, start + part.stop) for part in slices(stop - start, size)])


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
        self._written = 0.0

    def __reduce__(self) -> tuple:
        return Passes, ()  # the journal and the report are where the pass was begun

    def code(self, values: Iterable[Tensor]) -> str:
        """A digest of the tensors that a pass depends on, for its name; without a journal they are not read."""
        return "" if self.journal.folder is None else sealed.digest(values)

    def begin(self, name: str) -> None:
        """Report a pass that is not in shards."""
        self._report(name, 0, 1)

    def shards(self, name: str, n: int, size: int | None = None) -> Iterator[tuple[int, slice]]:
        """(number, rows) of the shards of a pass, each of which is reported as it begins."""
        shards = list(slices(n, size or shard_size(n)))
        for k, shard in enumerate(shards):
            self._report(name, k, len(shards))
            yield k, shard

    def _report(self, name: str, k: int, total: int) -> None:
        if self._begin is not None:
            self._begin(name, k, total)

    def collect(self, name: str, n: int, compute: Callable[[int, int], Tensor]) -> Tensor:
        """(n, ...) values from compute(start, stop) per shard, on the processor; shards in the journal are read."""
        return self.collected(n, lambda: [(name, compute)])[0]

    def collected(self, n: int, stages: Stages) -> list[Tensor]:
        """`collect` of each (name, compute) of the stages, which are handed out as those of `summed`."""
        size, step = self._sizes(n)
        found: dict[str, list[Tensor | None]] = {}

        def missing() -> Iterator[tuple[Callable, list[tuple]]]:
            for name, compute in stages():
                parts = [(name, part.start, part.stop) for part in slices(n, step)]
                kept = [self.journal.read(f"{name}-{k:06d}") for k in range(len(parts))]
                found[name] = [None if each is None else each["values"] for each in kept]
                function = partial(_values, self._within, compute, size)
                yield function, [part for part, each in zip(parts, kept, strict=True) if each is None]

        for (name, start, _), take in self._each(n, step, missing):
            values = take().cpu()
            self.journal.write(f"{name}-{start // step:06d}", {"values": values})
            found[name][start // step] = values
        return [torch.cat(values) for values in found.values()]  # type: ignore[arg-type]

    def summed(self, name: str, n: int, stages: Stages, sums: Sums) -> None:
        """Add compute(start, stop) of every shard to the sums, for each (label, compute) of the stages.

        stages(): an iterator, which may change what its functions hold from one to the next. Goes on from the sums in
        the journal. The order of additions is a matter of the number of rows alone, so that results depend neither on
        how many workers there are nor on which is the first to end: BLOCK shards are summed in order, and these sums in
        order. Where there are blocks enough for all workers, a task is a block: fewer sums are sent here. Tasks of all
        stages are handed out together, so that no worker waits for the end of a stage.
        """
        self.begun(name, n, stages, sums)()

    def begun(self, name: str, n: int, stages: Stages, sums: Sums) -> Callable[[], None]:
        """`summed` in two steps: workers get their tasks now, where there are some; what it returns does the rest."""
        size, step = self._sizes(n)
        # the begun block is kept, too: a pass that is taken up again adds in the same order, to the same last digit
        state = sums | {f"block {key}": torch.zeros_like(value) for key, value in sums.items()}
        counted: set[str] = set()  # stages that are in the state of a later one, whatever has become of their files

        def left() -> Iterator[tuple[Callable, list[tuple]]]:
            earlier: list[str] = []
            for label, compute in stages():
                title = f"{name} {label}".strip()
                done = self._taken_up(title, state)
                counted.update(earlier if done else [])
                earlier.append(title)
                start = n if title in counted else done
                parts = [(title, part.start, part.stop) for part in slices(n, step) if part.start >= start]
                yield partial(_sums, self._within, compute, size), parts

        self._written = time.monotonic()
        made = self._each(n, step, left)

        def finish() -> None:
            for (title, _, stop), take in made:
                found = take()
                if title in counted:  # handed out before the later state was read
                    continue
                for key, value in found.items():
                    state[f"block {key}"] += value.to(state[key].device)
                if stop == n or stop % (BLOCK * size) == 0:
                    for key in sums:
                        state[key] += state[f"block {key}"]
                        state[f"block {key}"].zero_()
                self._keep(title, state, stop, n)
            sums.update({key: state[key] for key in sums})

        return finish

    def _sizes(self, n: int) -> tuple[int, int]:
        """Rows of a shard and of a task."""
        size = shard_size(n)
        # a journal keeps shards, so that little is lost with a process
        together = self.journal.folder is None and 1 < n_workers() <= n / (BLOCK * size) / 2
        return size, BLOCK * size if together else size

    def _each(self, n: int, step: int, stages: Callable[[], Iterable]) -> Made:
        """What is made of each (title, start, stop) of the stages, which are reported, as is what is kept of them."""
        # a single shard is a single task, for which the model and the rows would be sent to another process
        return self._reported(spread(stages, self._held) if n > shard_size(n) else in_turn(stages), n, step)

    def _reported(self, made: Made, n: int, step: int) -> Made:
        begun = ""
        for part, take in made:
            title, start, _ = part
            for k in range(start // step if title == begun else 0, start // step + 1):
                self._report(title, k, -(-n // step))
            begun = title
            yield part, take

    def accumulate(
        self, name: str, n: int, add: Callable[[int, int], None], state: dict[str, Tensor], size: int | None = None
    ) -> None:
        """add(start, stop) per shard of `size`, each changing the state, on which the next goes on; and so from what is
        in the journal.
        """
        done, self._written = self._taken_up(name, state), time.monotonic()
        for _, shard in self.shards(name, n, size):
            if shard.start >= done:
                add(shard.start, shard.stop)
                self._keep(name, state, shard.stop, n)

    def _taken_up(self, name: str, state: dict[str, Tensor]) -> int:
        """How far the journal's state goes, which is put into `state`."""
        kept = self.journal.read(name)
        if kept is None:
            return 0
        done = int(kept.pop("done"))
        # in place: `add` holds this very dict
        state |= {key: value.to(state[key].device) for key, value in kept.items()}
        return done

    def _keep(self, name: str, state: Sums, stop: int, n: int) -> None:
        if stop == n or time.monotonic() - self._written > PAUSE:
            self.journal.write(name, {**state, "done": torch.tensor(stop)})
            self._written = time.monotonic()
