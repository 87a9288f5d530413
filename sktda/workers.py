"""Tasks for joblib: models reach other processes and machines whole, and rows are sent there once."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache, cached_property, partial
from typing import Any

import cloudpickle
import numpy as np
from joblib import effective_n_jobs
from joblib.parallel import get_active_backend
from sklearn.utils.parallel import Parallel, delayed

from sktda.devices import own_card, resolve_device

BUFFERS = 5  # protocol of pickle from which on large values need not be copied into the rest
APART = 1_000_000  # bytes of an array that goes beside the function that holds it, and once for all tasks

Packed = tuple[np.ndarray, list[np.ndarray]]
"""A function as bytes, and the large arrays that it holds."""

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
    jobs = (delayed(_run)(here, code, len(arrays), *arrays, *map(_carried, task)) for (code, arrays), task in tasks)
    return (each.value for each in Parallel(n_jobs=n_jobs, **_settings(backend, held))(jobs))


# ---- functions with the rows that they hold ------------------------------------------------------------------------


class _Loading(threading.local):
    """The arrays that go beside the function that this thread is opening."""

    arrays: Sequence[np.ndarray] = ()


_LOADING = _Loading()


def packed(function: Callable) -> Packed:
    """(the function as bytes, large arrays that it holds and that are not in them)."""
    file = io.BytesIO()
    pickler = _Pickler(file, apart=[])
    pickler.dump(function)
    assert pickler.apart is not None
    return np.frombuffer(file.getvalue(), np.uint8), pickler.apart


def unpacked(code: np.ndarray, arrays: Sequence[np.ndarray]) -> Callable:
    """A function as it was `packed`: a copy that nothing else holds, as models are changed by passes through them."""
    before, _LOADING.arrays = _LOADING.arrays, arrays
    try:
        return pickle.loads(code.data)
    finally:
        _LOADING.arrays = before


def _builtin(name: str) -> Any:
    return getattr(builtins, name)


def _array(number: int) -> np.ndarray:
    return _LOADING.arrays[number]


def _own_device() -> Any:
    return resolve_device("auto")


def _on_own_card(value: Any) -> bool:
    """Whether a tensor is where "cuda" without a number is in this process."""
    device = value.device
    if device.type == "cpu" or device.type != (place := _own_device()).type:
        return False
    here = sys.modules["torch"].get_device_module(place).current_device() if place.index is None else place.index
    return device.index == here


def _names_card(obj: Any) -> bool:
    """Whether what holds an object's tensors has them on a card by its number, and not on that of its process."""
    named = getattr(obj, "__dict__", {}).get("device")
    if isinstance(named, str):
        return ":" in named
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(named, torch.device) and named.index is not None


def _tensor(numbers: bytearray | memoryview, dtype: Any, shape: tuple[int, ...]) -> Any:
    import torch

    return torch.frombuffer(numbers, dtype=dtype).view(shape)


def _leaving(value: Any) -> tuple:
    is_parameter = isinstance(value, sys.modules["torch"].nn.Parameter)
    return _arrived, (value.detach().cpu(), value.requires_grad, is_parameter)


def _arrived(value: Any, requires_grad: bool, is_parameter: bool) -> Any:
    import torch

    value = value.to(_own_device())
    return torch.nn.Parameter(value, requires_grad) if is_parameter else value.requires_grad_(requires_grad)


def _run(home: int, code: np.ndarray, n_arrays: int, *rest: Any) -> _Carried:
    function = unpacked(code, rest[:n_arrays])
    if os.getpid() != home:
        _settle("torch" in sys.modules)
    with own_card() if "torch" in sys.modules else nullcontext():
        found = function(*(each.value if isinstance(each, _Carried) else each for each in rest[n_arrays:]))
        return _Carried(_on_processor(found))


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


# ---- values with their classes -------------------------------------------------------------------------------------


class _Carried:
    """A value that is pickled together with the classes that can be imported nowhere else.

    It is opened by the thread that asks for it: each has a current card, and joblib reads in its own.
    """

    def __init__(self, value: Any = None, sent: tuple[bytes, list] | None = None) -> None:
        self._sent: Any = sent
        if sent is None:
            self.value = value

    @cached_property
    def value(self) -> Any:
        data, buffers = self._sent
        found = pickle.loads(data, buffers=buffers)
        self._sent = None
        return found

    def __reduce_ex__(self, protocol: Any) -> tuple:
        file = io.BytesIO()
        buffers: list[pickle.PickleBuffer] = []
        _Pickler(file, leaves=True, buffer_callback=buffers.append if protocol >= BUFFERS else None).dump(self.value)
        return _opened, (file.getvalue(), buffers)


class _Pickler(cloudpickle.Pickler):
    """cloudpickle, which takes classes of `__main__` by value, for skorch nets as well.

    A net that is initialised pickles its module by itself, and the module's class then by its name.
    apart: where large arrays go to, and are left out; tensors then are for the device of whoever opens them.
    leaves: whether tensors of this process's card are for the card of whoever opens them; up to the first object that
    names one by its number, such as a net of "cuda:1".
    """

    def __init__(
        self, file: io.BytesIO, apart: list[np.ndarray] | None = None, leaves: bool = False, **settings: Any
    ) -> None:
        super().__init__(file, **settings)
        self.apart, self.leaves = apart, leaves

    def reducer_override(self, obj: Any) -> Any:
        if getattr(obj, "__self__", None) is builtins and obj is not getattr(builtins, obj.__name__):
            return _builtin, (obj.__name__,)  # print, which nets hold and Ray replaces
        found = NotImplemented if self.apart is None else self._of_function(obj, self.apart)
        if self.leaves:
            found = self._of_card(obj)
        if found is NotImplemented:
            found = self._of_tensor(obj)
        if found is not NotImplemented:
            return found
        skorch = sys.modules.get("skorch")  # where it is not loaded there is no net
        if skorch is None or isinstance(obj, type) or not isinstance(obj, skorch.NeuralNet):
            return super().reducer_override(obj)
        own = tuple(obj.cuda_dependent_attributes_)  # as NeuralNet.__getstate__ tells them apart
        state = {key: value for key, value in vars(obj).items() if not key.startswith(own)}
        file = io.BytesIO()
        _Pickler(file).dump({key: value for key, value in vars(obj).items() if key.startswith(own)})
        return _net, (type(obj), state, file.getvalue())

    @staticmethod
    def _of_tensor(obj: Any) -> Any:
        """Numbers that lie as they are read: torch would write a file for each, with all that they are a part of."""
        torch = sys.modules.get("torch")
        if torch is None or type(obj) is not torch.Tensor or obj.device.type != "cpu" or obj.requires_grad:
            return NotImplemented
        odd = obj.layout != torch.strided or obj.is_quantized or obj.is_conj() or obj.is_neg()
        if odd or not obj.numel() or not obj.is_contiguous():
            return NotImplemented
        numbers = obj.view(-1).view(torch.uint8).numpy()
        return _tensor, (pickle.PickleBuffer(numbers), obj.dtype, tuple(obj.shape))

    @staticmethod
    def _of_function(obj: Any, apart: list[np.ndarray]) -> Any:
        if type(obj) in {np.ndarray, np.memmap}:
            if obj.dtype.hasobject or (obj.nbytes <= APART and type(obj) is np.ndarray):
                return NotImplemented
            apart.append(obj)
            return _array, (len(apart) - 1,)
        torch = sys.modules.get("torch")
        if torch is None:
            return NotImplemented
        if isinstance(obj, torch.device) and obj.type != "cpu":
            return _own_device, ()
        if isinstance(obj, torch.Tensor) and obj.device.type not in {"cpu", "meta"}:
            return _leaving(obj)
        return NotImplemented

    def _of_card(self, obj: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is not None and type(obj) in {torch.Tensor, torch.nn.Parameter}:
            return _leaving(obj) if _on_own_card(obj) else NotImplemented
        self.leaves = not _names_card(obj)
        return NotImplemented


def _net(kind: Any, state: dict, modules: bytes) -> Any:
    net = kind.__new__(kind)
    with own_card():  # on which skorch puts a net of "cuda", and then its batches
        net.__setstate__({**state, "__cuda_dependent_attributes__": modules})
    return net


def _opened(data: bytes, buffers: list) -> _Carried:
    # Ray keeps what it carries, and values are changed by whoever gets them
    return _Carried(sent=(data, [bytearray(each) if memoryview(each).readonly else each for each in buffers]))


def _carried(value: Any) -> Any:
    return _Carried(value) if hasattr(value, "get_params") or callable(value) else value
