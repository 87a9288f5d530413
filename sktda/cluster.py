"""joblib's tasks on a Dask cluster whose workers may die."""

from __future__ import annotations

import os
import socket
import warnings
from asyncio import Lock, to_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from mmap import mmap
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Literal
from weakref import finalize

import numpy as np
from dask.sizeof import sizeof
from joblib import parallel_config
from joblib._dask import Batch, DaskDistributedBackend

SMALL = 1000  # bytes that go with each task
LARGE = 1_000_000  # bytes that no task should wait for
SHARED = 2**23  # bytes of an array that workers of this machine map from a file rather than have it sent
PAGES, PAGE = 64, 4096  # of a mapped file, that tell it from another one
RETRIES = 3  # of a task that fails because its worker is gone

Held = dict[int, tuple[Any, Any]]
"""By identity: a value, which keeps it from being another's, and what was sent in its place, None if nothing yet."""


class _Backend(DaskDistributedBackend):
    """joblib's backend, with arguments that can be made again.

    joblib scatters them to one worker. If that one dies they are lost, and all tasks that share them are cancelled or
    wait for ever. Here they are tasks of their own, so that Dask computes them anew.
    held: what later calls need, too; as it was sent, once it was.
    """

    def __init__(self, client: Any, held: Held | None = None, **settings: Any) -> None:
        super().__init__(client=client, **settings)
        self.held = held or {}
        self._describing = Lock()
        self.kept: Held = {}

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """At least 2: where there is but one worker, joblib would run its tasks here."""
        return max(2, super().effective_n_jobs(n_jobs))

    def stop_call(self) -> None:
        super().stop_call()
        self.kept.clear()

    async def _to_func_args(self, func: Any) -> tuple[Any, list]:
        for _, args, kwargs in func.items:
            for value in (*args, *kwargs.values()):
                await self._describe(value)
        known = set(self.kept)
        tasks = []
        for f, args, kwargs in func.items:
            sent = [self._sent(each) for each in args], {name: self._sent(each) for name, each in kwargs.items()}
            mapped = any(isinstance(each, Mapped) for each in (*sent[0], *sent[1].values()))
            tasks.append((partial(_opening, f) if mapped else f, *sent))
        new = [self.kept[key] for key in set(self.kept) - known]
        if large := [future for value, future in new if sizeof(value) > LARGE]:
            with suppress(Exception):  # on all workers: Dask puts a task where its arguments are
                await self.client._replicate(large)
        return _Batch(tasks), tasks

    async def _describe(self, value: Any) -> None:
        """Keep what is mapped from a file as where it is in the file, if the workers can open that."""
        if type(value) not in {np.ndarray, np.memmap} or sizeof(value) <= SMALL:
            return
        async with self._describing:
            if self._known(value) is not None:
                return
            mapped = Mapped.of(value)
            if mapped is None and value.nbytes >= SHARED and await self._all_say(_host, _host()):
                mapped = await to_thread(Mapped.written, value)
            if mapped is not None and await self._all_say(mapped.is_there, True):
                self._keep(value, mapped)

    async def _all_say(self, question: Callable, answer: Any) -> bool:
        """Whether there are workers, and all of them answer so."""
        with suppress(Exception):  # of workers that end meanwhile
            answers = await self.client._run(question, on_error="return")
            return bool(answers) and all(each == answer for each in answers.values())
        return False

    def _known(self, value: Any) -> Any:
        """What was sent in its place, by this call or by another one that holds the same; None if nothing was yet."""
        nothing = None, None
        return self.kept.get(id(value), self.held.get(id(value), nothing))[1]

    def _keep(self, value: Any, sent: Any) -> None:
        self.kept[id(value)] = value, sent  # the value too: its id is not given to another one meanwhile
        if self.held.get(id(value), (None, sent))[1] is None:
            self.held[id(value)] = value, sent

    def _sent(self, value: Any) -> Any:
        """The value itself, or where it is large a future of it, the same for all tasks of a call."""
        known = self._known(value)
        if known is not None:
            return known
        if sizeof(value) <= SMALL:
            return value
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")
            future = self.client.submit(_same, value, pure=False, **self.submit_kwargs)
        self._keep(value, future)
        return future


class _Batch(Batch):
    """Tasks of which none hands out tasks of its own.

    joblib's do, down to the trees of a forest in a fold of a search, and wait for them; where each worker waits for
    tasks that stand behind others that wait, none goes on.
    """

    def __call__(self, tasks: Any = None) -> list:
        with parallel_config(backend="sequential"):
            return [function(*args, **kwargs) for function, args, kwargs in tasks]


def _same(value: Any) -> Any:
    return value


def _host() -> str:
    return socket.gethostname()


def _opening(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """function of the arguments, those that are described opened."""

    def opened(value: Any) -> Any:
        return value.opened() if isinstance(value, Mapped) else value

    return function(*map(opened, args), **{name: opened(value) for name, value in kwargs.items()})


@dataclass(frozen=True)
class Mapped:
    """An array that is mapped from a file, as where it is in there: what goes to workers that can open the file."""

    path: str
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    mark: str
    """Digest of pages of the file, which another file of the same name does not have."""
    mode: Literal["r", "c"] = "r"

    @classmethod
    def of(cls, array: np.ndarray) -> Mapped | None:
        """None for an array that is in memory, or may be other than the file, or whose file is gone."""
        owner: Any = array
        while isinstance(owner, np.ndarray) and isinstance(owner.base, np.ndarray):
            owner = owner.base
        if not isinstance(owner, np.memmap) or owner.filename is None or not isinstance(owner.base, mmap):
            return None
        if owner.mode == "c" or array.dtype.hasobject:  # changes stay in memory
            return None
        if owner.mode != "r":
            owner.flush()
        moved = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
        path = os.path.abspath(owner.filename)
        try:
            return cls(path, owner.offset + moved, array.dtype, array.shape, array.strides, _mark(path))
        except OSError:
            return None

    @classmethod
    def written(cls, array: np.ndarray) -> Mapped | None:
        """Of a copy in a file, which is gone with what is returned; None where it cannot be written."""
        if array.dtype.hasobject:
            return None
        folder = None
        try:
            folder = mkdtemp(prefix="sktda-")
            np.save(f"{folder}/rows.npy", array)
            found = cls.of(np.load(f"{folder}/rows.npy", mmap_mode="r"))
            assert found is not None
        except OSError:  # no room
            if folder is not None:
                rmtree(folder, ignore_errors=True)
            return None
        found = replace(found, mode="c")  # a task may change what it gets
        finalize(found, rmtree, folder, ignore_errors=True)
        return found

    def is_there(self) -> bool:
        """Whether this process can open the file, and it is the same."""
        try:
            return _mark(self.path) == self.mark
        except OSError:
            return False

    def opened(self) -> np.ndarray:
        """The array; OSError where the file cannot be opened or is another one."""
        if not self.is_there():
            raise OSError(
                f"a worker cannot open {self.path}, where rows are mapped from, as it was when the tasks were sent; "
                "put it where all workers see it and leave it as it is, or give an array in memory"
            )
        return np.ndarray(self.shape, self.dtype, np.memmap(self.path, np.uint8, self.mode), self.offset, self.strides)


def _mark(path: str) -> str:
    """Of the size of a file and some of its pages, evenly from the first to the last."""
    code = blake2b(digest_size=12)
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        code.update(str(size).encode())
        for start in np.unique(np.linspace(0, max(0, size - PAGE), PAGES).astype(np.int64)).tolist():
            file.seek(start)
            code.update(file.read(PAGE))
    return code.hexdigest()


def resilient(backend: DaskDistributedBackend, held: Held | None = None) -> _Backend:
    """The same cluster, with arguments that can be made again."""
    return _Backend(backend.client, held, **{"retries": RETRIES, **backend.submit_kwargs})


@contextmanager
def dask_cluster(client: Any, *, retries: int = RETRIES) -> Iterator[None]:
    """Run what joblib runs side by side on the workers of a Dask client, of which some may die meanwhile.

    As ``joblib.parallel_config("dask")``, and what a worker was at when it died is done again by another one: by
    joblib alone a search ends with `FutureCancelledError` or never. Rows that several tasks share are sent once, and
    those of a mapped file that the workers can open not at all. Within ``parallel_config("dask")`` this library's own
    estimators go this way, too; for a scikit-learn search around them, open this one.

    Parameters
    ----------
    client : distributed.Client
    retries : int, default=3
        How often a task that failed is tried again. Results do not depend on it, as every task has its own seed.

    Examples
    --------
    >>> from sktda import dask_cluster
    >>> def searched(search, X, y):
    ...     from distributed import Client
    ...     with Client("scheduler:8786") as client, dask_cluster(client):
    ...         return search.fit(X, y)
    """
    with parallel_config(_Backend(client, retries=retries)):
        yield
