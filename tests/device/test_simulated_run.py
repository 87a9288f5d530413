"""All other tests of this folder, on the simulated device, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_on_the_simulated_device():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(HERE)]
    # the options of the run that this one is part of are not those of this one
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    found = subprocess.run(
        command, cwd=HERE.parents[1], env=inherited | {"SKTDA_DEVICE": "simulated"}, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout[-6_000:] + found.stderr[-2_000:]
