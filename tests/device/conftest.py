"""The tests of this folder run where there is an accelerator: in a process with the simulated one, and on CUDA.

Torch knows the simulated device from the start of a process to its end, and code that looks for accelerators finds it;
so it has a process of its own, which `test_simulated_run.py` starts, and no other test meets it. To run single tests:
SKTDA_DEVICE=simulated pytest tests/device/test_attributors.py
"""

import os

import pytest
import torch

from tests.device import backend, simulated

SIMULATED = os.environ.get("SKTDA_DEVICE") == simulated.NAME
if SIMULATED:
    backend.install()
DEVICES = ["cuda"] * torch.cuda.is_available() + [simulated.NAME] * SIMULATED

collect_ignore_glob = (
    ["test_simulated_run.py"] if "SKTDA_DEVICE" in os.environ else [] if DEVICES else ["test_[!s]*.py"]
)


@pytest.fixture(params=DEVICES)
def device(request):
    """Name of a torch device that is not the processor; on CUDA convolutions are in full float32, as products are."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield request.param


@pytest.fixture
def counting(device):
    """The simulated device, for what it counts and limits."""
    if device != simulated.NAME:
        pytest.skip("only the simulated device counts")
    return simulated
