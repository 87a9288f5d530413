"""Tasks for joblib: models reach other processes and machines whole, and rows are sent there once."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from joblib.parallel import get_active_backend
from sklearn.utils.parallel import Parallel, delayed

from sktda.devices import own_card
from sktda.workers.pickles import Carried, Packed, carried, packed, unpacked

RAY = {"max_restarts": -1, "max_task_retries": 3}


def in_workers(function: Callable, tasks: Iterable[tuple], n_jobs: int | None) -> Iterator[Any]:
    """function(*task) of every task, in order, by the backend that joblib is told to use.

    Give rows as arguments of their own, or let the function hold them: large arrays go through joblib as they are,
    which maps them into the memory of other processes, and on a cluster sends what several tasks share once. Models,
    functions and results may be of classes that were written in a script or a notebook.
    """
    backend = get_active_backend()[0]
    if _is_dask(backend) and _in_dask_worker():  # a task that waits for others may stand in their way
        return (function(*task) for task in tasks)
    if not _leaves(backend, n_jobs):
        return iter(Parallel(n_jobs=n_jobs, **_settings(backend))(delayed(function)(*task) for task in tasks))
    code = packed(function)
    return _sent(backend, ((code, task) for task in tasks), n_jobs)


Made = Iterator[tuple[tuple, Callable[[], Any]]]
"""A part, and what waits for the result of it."""


def spread(stages: Callable[[], Iterable[tuple[Callable, Sequence[tuple]]]], held: dict) -> Made:
    """function(*part) of every part of the stages, in order: of passes over the rows, which it holds, and the model.

    stages(): yields (function, parts); what functions hold may change from one to the next, such as the parameters of
    the model. By workers where the caller has chosen a backend of joblib whose workers are other processes, and then
    all stages at once; else here, one part after the other, each when it is asked for. A task of a worker spreads no
    further. Where a model cannot be sent a warning says so.
    held: one dict for all passes of a fit, whose rows go to a cluster once then.
    """
    if n_workers() > 1:
        try:
            sent = [(code, part) for function, parts in stages() for code in [packed(function)] for part in parts]
        except Exception as error:  # pickle raises errors of many kinds, and modules their own
            warnings.warn(
                f"the passes over the rows run in this process, since the model cannot be sent to workers: {error}",
                UserWarning,
                stacklevel=2,
            )
        else:
            if not sent:  # of a pass that is taken up again: joblib warns of results that nobody takes
                return iter(())
            for (_, arrays), _ in sent:
                for array in arrays:
                    held.setdefault(id(array), (array, None))
            found = _sent(get_active_backend()[0], sent, None, held)
            return ((part, partial(next, found)) for _, part in sent)
    return in_turn(stages)


def in_turn(stages: Callable[[], Iterable[tuple[Callable, Sequence[tuple]]]]) -> Made:
    """As `spread`, in this process."""
    return ((part, partial(function, *part)) for function, parts in stages() for part in parts)


def on_cluster() -> bool:
    """Whether parts go to workers of Dask, each as soon as a worker is free and whichever pass it is of."""
    return _is_dask(get_active_backend()[0]) and not _in_dask_worker()


def overlapped(fits: Iterable[Iterator[None]]) -> None:
    """Run fits that stop where they have handed something out, two at a time: one is worked at while another waits."""
    waiting = iter(fits)
    live: list[Iterator[None]] = []

    def begin() -> None:
        for fit in waiting:
            if next(fit, fit) is None:
                live.append(fit)
                return

    begin()
    begin()
    while live:
        for fit in list(live):
            if next(fit, fit) is fit:
                live.remove(fit)
                begin()


def n_workers() -> int:
    """How many processes the parts of a pass go to; 1 where they stay here, and at least 2 on a cluster."""
    backend = get_active_backend()[0]
    if not _leaves(backend, None) or _in_dask_worker():
        return 1
    return max(2, effective_n_jobs(None))


def _leaves(backend: Any, n_jobs: int | None) -> bool:
    """Whether tasks leave this process."""
    return not getattr(backend, "supports_sharedmem", False) and (_is_dask(backend) or effective_n_jobs(n_jobs) > 1)


def _is_dask(backend: Any) -> bool:
    return any(kind.__name__ == "DaskDistributedBackend" for kind in type(backend).__mro__)


def _in_dask_worker() -> bool:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


def _settings(backend: Any, held: dict | None = None) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if _is_dask(backend):
        from sktda.cluster import resilient

        settings["backend"] = resilient(backend, held)
    if type(backend).__name__ == "RayBackend" and not backend.ray_remote_args:
        settings["ray_remote_args"] = RAY  # its pool is of actors, which are by default not started again
    if backend.supports_return_generator:  # Ray's does not
        settings["return_as"] = "generator"
    return settings


def _sent(
    backend: Any, tasks: Iterable[tuple[Packed, tuple]], n_jobs: int | None, held: dict | None = None
) -> Iterator[Any]:
    here = os.getpid()
    jobs = (delayed(_run)(here, code, len(arrays), *arrays, *map(carried, task)) for (code, arrays), task in tasks)
    return (each.value for each in Parallel(n_jobs=n_jobs, **_settings(backend, held))(jobs))


def _run(home: int, code: np.ndarray, n_arrays: int, *rest: Any) -> Carried:
    function = unpacked(code, rest[:n_arrays])
    if os.getpid() != home:
        _settle("torch" in sys.modules)
    with own_card() if "torch" in sys.modules else nullcontext():
        found = function(*(each.value if isinstance(each, Carried) else each for each in rest[n_arrays:]))
        return Carried(_on_processor(found))


@cache
def _settle(has_torch: bool) -> None:
    """Set up a process of workers, once, and once more when torch is there."""
    # rows are mapped, or shared by tasks, and nobody writes to them: torch would warn in every process
    warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
    if has_torch and "OMP_NUM_THREADS" not in os.environ:
        # there are as many workers as processors, or their environment says what there is
        sys.modules["torch"].set_num_threads(1)


def _on_processor(found: Any) -> Any:
    """Tensors on the device of a worker, by themselves or several, where every process can read them."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(found, torch.Tensor):
        return found.cpu()
    if type(found) is tuple:
        return tuple(map(_on_processor, found))
    return {key: _on_processor(value) for key, value in found.items()} if type(found) is dict else found
