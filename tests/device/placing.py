"""The tests of other folders on a device: models, attributors and what tests hand to the library are there.

Tests make their tensors and their references as if there were the processor only. Here each tensor that the code of a
test makes and each model that it builds are on the device, and "auto" means the device. Where the code of a test brings
tensors of both places together, or asks for NumPy, those of the device come to the processor first. The library gets no
such help: its own calls fail as they would for a user.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator
from functools import partial, wraps
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sktda import devices
from sktda.model.base import DifferentiableModel
from tests.device import backend, simulated

ROOT = Path(__file__).parents[2]
TESTS, LIBRARY = str(ROOT / "tests"), str(ROOT / "sktda")
ARRAYS = (Tensor.numpy, Tensor.__array__)
# May meet tensors of both places, and copies of them would be others: modules that move, and gradients.
AS_GIVEN = (torch._has_compatible_shallow_copy_type, Tensor.copy_, torch.autograd.grad)

_from_numpy = torch.from_numpy
_found_device = devices.resolve_device
_place: torch.device | None = None  # of the test that runs


class Placed(TorchFunctionMode):
    """Of the calls in the code of a test: what they make is on the device, and what they are given may be anywhere."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, caller = kwargs or {}, sys._getframe(1)
        if caller.f_code.co_filename.startswith(LIBRARY):
            return func(*args, **kwargs)
        places = {value.device.type for value in tensors((args, tuple(kwargs.values())))}
        apart = (len(places) > 1 and func not in AS_GIVEN) or (func in ARRAYS and "cpu" not in places)
        if apart and from_a_test(caller):
            args, kwargs = on_the_processor(args), {name: on_the_processor(each) for name, each in kwargs.items()}
        if func is torch.autograd.grad and len(places) > 1 and from_a_test(caller):
            kwargs["grad_outputs"] = beside(kwargs["grad_outputs"], args[0])
        found = func(*args, **kwargs)
        made = not places and isinstance(found, Tensor) and "device" not in kwargs
        return found.to(_place) if made and moves(caller) else found


def of_a_test(frame: FrameType) -> bool:
    """Whether this is the code of a test."""
    return frame.f_code.co_filename.startswith(TESTS) and frame.f_code.co_filename != __file__


def moves(frame: FrameType) -> bool:
    """Whether what this code makes is to be on the device.

    What a module consists of stays beside the parts that torch makes, until the library moves it; and a second
    implementation is as good on the processor, and faster.
    """
    of_a_module = frame.f_code.co_name == "__init__" and isinstance(frame.f_locals.get("self"), nn.Module)
    return of_a_test(frame) and not of_a_module and not frame.f_code.co_filename.endswith("_reference.py")


def from_a_test(frame: FrameType | None) -> bool:
    """Whether the code of a test is at work, through torch or NumPy maybe, but not through the library."""
    while frame is not None and not frame.f_code.co_filename.startswith(LIBRARY):
        if of_a_test(frame):
            return True
        frame = frame.f_back
    return False


def tensors(value: Any) -> Iterator[Tensor]:
    """All that are in the arguments of a call."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors(each)


def on_the_processor(value: Any) -> Any:
    """The same with all its tensors there."""
    if isinstance(value, list | tuple):
        return type(value)(on_the_processor(each) for each in value)
    return value.cpu() if isinstance(value, Tensor) else value


def beside(slopes: Any, outputs: Any) -> Any:
    """grad_outputs, each where its output is."""
    if isinstance(slopes, Tensor):
        slopes = (slopes,)
    pairs = zip(slopes or (), outputs, strict=False)
    return tuple(slope if slope is None else slope.to(output.device) for slope, output in pairs) or None


def from_numpy(array: Any) -> Tensor:
    """torch.from_numpy, which does not ask a TorchFunctionMode."""
    found = _from_numpy(array)
    return found.to(_place) if moves(sys._getframe(1)) else found


@wraps(_found_device)
def resolve_device(device: Any) -> torch.device:
    return _place if device == "auto" and _place is not None else _found_device(device)


# ---- what is left out ------------------------------------------------------------------------------------------------

LEFT_OUT = {  # by the beginning of the names of the tests, and why
    "attribution/test_peers.py": "other libraries do not bring tensors together, of which tests hand them both kinds",
    "model/test_loop.py::test_workers_that_read_ahead": "a loader's forked process cannot use the device",
}
if os.environ.get("SKTDA_DEVICE") == simulated.NAME:  # and not on CUDA
    wrapped = "model/test_loop.py::test_modules_that_are_wrapped_are_recorded_under_their_own_names"
    LEFT_OUT[f"{wrapped}[parallel]"] = "DataParallel knows no devices but those of CUDA"
# packages of others, of which a borrowed machine may have few
LACKING = re.compile(r"ModuleNotFoundError: No module named '(?!sktda|tests)[\w.]+'")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Files that import a package which is missing are skipped, and say so."""
    report = yield
    if report.failed and (lacking := LACKING.search(str(report.longrepr))):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {lacking[0]}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    """And so are tests."""
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if not LACKING.search(f"ModuleNotFoundError: {error}"):
            raise
        pytest.skip(str(error))


pytest_runtest_setup = pytest_runtest_call  # whose fixtures import


# ---- the device of a test --------------------------------------------------------------------------------------------

if "SKTDA_DEVICE" in os.environ:  # and not where doctests are looked for here
    if os.environ["SKTDA_DEVICE"] == simulated.NAME:
        backend.install()
    devices.resolve_device = resolve_device  # before the modules are imported that take it from there


@pytest.fixture(autouse=True)
def placed(request, monkeypatch):
    """The test runs on the device, with TF32 off; those of this folder say themselves what runs where."""
    if request.path.is_relative_to(Path(__file__).parent):
        yield
        return
    for start, why in LEFT_OUT.items():
        if request.node.nodeid.startswith(f"tests/{start}"):
            pytest.skip(why)
    build, place = DifferentiableModel.__init__, torch.device(os.environ["SKTDA_DEVICE"])

    @wraps(build)
    def built(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.to(place)

    monkeypatch.setattr(DifferentiableModel, "__init__", built)
    monkeypatch.setattr(torch.testing, "assert_close", partial(torch.testing.assert_close, check_device=False))
    monkeypatch.setattr(sys.modules[__name__], "_place", place)
    monkeypatch.setattr(torch, "from_numpy", from_numpy)
    for name, module in sys.modules.items():  # a device that tests name
        if name.startswith("tests.") and isinstance(getattr(module, "CPU", None), torch.device):
            monkeypatch.setattr(module, "CPU", place)
    # compiled modules break off where they come to `Placed`, and go on
    warnings.filterwarnings("ignore", "Dynamo does not know how to trace the builtin `sys._getframe")
    with Placed(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
