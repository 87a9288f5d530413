"""Models, functions and values as they are pickled for other processes and machines, with classes of the script."""

from __future__ import annotations

import builtins
import io
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import cloudpickle
import numpy as np

from sktda.devices import own_card, resolve_device

BUFFERS = 5  # protocol of pickle from which on large values need not be copied into the rest
APART = 1_000_000  # bytes of an array that goes beside the function that holds it, and once for all tasks

Packed = tuple[np.ndarray, list[np.ndarray]]
"""A function as bytes, and the large arrays that it holds."""


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


class Carried:
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


def _opened(data: bytes, buffers: list) -> Carried:
    # Ray keeps what it carries, and values are changed by whoever gets them
    return Carried(sent=(data, [bytearray(each) if memoryview(each).readonly else each for each in buffers]))


def carried(value: Any) -> Any:
    return Carried(value) if hasattr(value, "get_params") or callable(value) else value
