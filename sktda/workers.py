"""Tasks for joblib: models reach other processes and machines whole, and rows are sent there once."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cloudpickle
from joblib.parallel import get_active_backend
from sklearn.utils.parallel import Parallel, delayed


def in_workers(function: Callable, tasks: Iterable[tuple], n_jobs: int | None) -> Iterator[Any]:
    """function(*task) of every task, in order, by the backend that joblib is told to use.

    Give rows as arguments of their own: what is no model goes through joblib as it is, which maps large arrays into
    the memory of other processes, and on a cluster sends what several tasks share once. Models, functions and results
    may be of classes that were written in a script or a notebook.
    """
    jobs = (delayed(_run)(_Carried(function), *map(_carried, task)) for task in tasks)
    backend = get_active_backend()[0]
    settings: dict[str, Any] = {}
    if type(backend).__name__ == "DaskDistributedBackend":
        from sktda.cluster import resilient

        settings["backend"] = resilient(backend)
    if backend.supports_return_generator:  # Ray's does not
        settings["return_as"] = "generator"
    return (each.value for each in Parallel(n_jobs=n_jobs, **settings)(jobs))


class _Carried:
    """A value that is pickled together with the classes that can be imported nowhere else."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple:
        file = io.BytesIO()
        _Pickler(file).dump(self.value)
        return _opened, (file.getvalue(),)


class _Pickler(cloudpickle.Pickler):
    """cloudpickle, which takes classes of `__main__` by value, for skorch nets as well.

    A net that is initialised pickles its module by itself, and the module's class then by its name.
    """

    def reducer_override(self, obj: Any) -> Any:
        skorch = sys.modules.get("skorch")  # where it is not loaded there is no net
        if skorch is None or isinstance(obj, type) or not isinstance(obj, skorch.NeuralNet):
            return super().reducer_override(obj)
        own = tuple(obj.cuda_dependent_attributes_)  # as NeuralNet.__getstate__ tells them apart
        state = {key: value for key, value in vars(obj).items() if not key.startswith(own)}
        file = io.BytesIO()
        _Pickler(file).dump({key: value for key, value in vars(obj).items() if key.startswith(own)})
        return _net, (type(obj), state, file.getvalue())


def _net(kind: Any, state: dict, modules: bytes) -> Any:
    net = kind.__new__(kind)
    net.__setstate__({**state, "__cuda_dependent_attributes__": modules})
    return net


def _opened(data: bytes) -> _Carried:
    return _Carried(pickle.loads(data))


def _carried(value: Any) -> Any:
    return _Carried(value) if hasattr(value, "get_params") or callable(value) else value


def _run(function: _Carried, *task: Any) -> _Carried:
    return _Carried(function.value(*(each.value if isinstance(each, _Carried) else each for each in task)))
