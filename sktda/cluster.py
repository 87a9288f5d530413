"""joblib's tasks on a Dask cluster whose workers may die."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dask.sizeof import sizeof
from joblib import parallel_config
from joblib._dask import Batch, DaskDistributedBackend

SMALL = 1000  # bytes that go with each task
LARGE = 1_000_000  # bytes that no task should wait for
RETRIES = 3  # of a task that fails because its worker is gone


class _Backend(DaskDistributedBackend):
    """joblib's backend, with arguments that can be made again.

    joblib scatters them to one worker. If that one dies they are lost, and all tasks that share them are cancelled or
    wait for ever. Here they are tasks of their own, so that Dask computes them anew.
    """

    def __init__(self, client: Any, **settings: Any) -> None:
        super().__init__(client=client, **settings)
        self.kept: dict[int, tuple[Any, Any]] = {}

    def stop_call(self) -> None:
        super().stop_call()
        self.kept.clear()

    async def _to_func_args(self, func: Any) -> tuple[Any, list]:
        known = set(self.kept)
        tasks = [
            (f, [self._sent(each) for each in args], {name: self._sent(each) for name, each in kwargs.items()})
            for f, args, kwargs in func.items
        ]
        new = [self.kept[key] for key in set(self.kept) - known]
        if large := [future for value, future in new if sizeof(value) > LARGE]:
            with suppress(Exception):  # on all workers: Dask puts a task where its arguments are
                await self.client._replicate(large)
        return Batch(tasks), tasks

    def _sent(self, value: Any) -> Any:
        """The value itself, or where it is large a future of it, the same for all tasks of a call."""
        if sizeof(value) <= SMALL:
            return value
        if id(value) not in self.kept:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sending large graph")
                future = self.client.submit(_same, value, pure=False, **self.submit_kwargs)
            self.kept[id(value)] = value, future  # the value too: its id is not given to another one meanwhile
        return self.kept[id(value)][1]


def _same(value: Any) -> Any:
    return value


def resilient(backend: DaskDistributedBackend) -> _Backend:
    """The same cluster, with arguments that can be made again."""
    return _Backend(backend.client, **{"retries": RETRIES, **backend.submit_kwargs})


@contextmanager
def dask_cluster(client: Any, *, retries: int = RETRIES) -> Iterator[None]:
    """Run what joblib runs side by side on the workers of a Dask client, of which some may die meanwhile.

    As ``joblib.parallel_config("dask")``, and what a worker was at when it died is done again by another one: by
    joblib alone a search ends with `FutureCancelledError` or never. Rows that several tasks share are sent once.
    Within ``parallel_config("dask")`` this library's own estimators go this way, too; for a scikit-learn search around
    them, open this one.

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
