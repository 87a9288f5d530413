"""Everything that is asked of a borrowed GPU, in one command of less than ten minutes and without a network.

    make gpu OUT=folder [WHEELS=folder]
    make gpu OUT=folder SIMULATE=1         # on the simulated device: does it run?
    make gpu-wheels WHEELS=folder PY=3.12  # before, where there is a network: the wheels for a machine of that Python

It runs from a checkout, with a Python of 3.11 to 3.13 and its torch of 2.6 or later; nothing has to be installed. Of
the other packages, those that are missing or too old there are installed from WHEELS into a folder of their own, which
goes when the command ends. First come the tests on CUDA, with TF32 off, against results of the processor; then the part
`gpu` of benchmarks/engine.py. OUT then holds tests.txt, gpu.txt and gpu.json, which are written line by line. Ends with
0 if all tests passed and no measurement failed; measurements that the time did not suffice for are no failures.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHONS = (3, 11), (3, 13)
NEEDED = {  # all that is imported, with the least versions; torch comes with the machine
    "torch": "2.6",
    "numpy": "2.0",
    "scipy": "1.14",
    "scikit-learn": "1.9",
    "joblib": "1.4",
    "threadpoolctl": "3.5",
    "narwhals": "2.0.1",
    "cloudpickle": "3",
    "skorch": "1.4",
    "tabulate": "0.9",
    "tqdm": "4.14",
    "safetensors": "0.5",
    "pytest": "8",
    "pytest-timeout": "2.3",
    "pytest-xdist": "3.6",
    "execnet": "2.1",
    "iniconfig": "2",
    "packaging": "24",
    "pluggy": "1.6",
    "pygments": "2.15",
}
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")
SECONDS = 570.0  # for everything
TEST_SECONDS = 300.0
# With models and data on the card, see tests/device/placing.py; the widest first.
FOLDERS = ("tests/device", "tests/engine", "tests/attribution", "tests/model")
# Of attribution, what trains trees or takes probabilities, and computes on the processor only.
WITHOUT = (
    *("data_oob", "needs", "out_of_sample", "precomputed", "precomputed_probabilities", "robust_residual"),
    *("tree_kernel", "trees", "trees_cleaners", "trees_readers"),
)
TESTS = (*FOLDERS, *(f"--ignore=tests/attribution/test_{name}.py" for name in WITHOUT))
SIMULATED_TESTS = ("tests/device/test_rules.py", "tests/device/test_gpu_benchmark.py")  # make test runs the others
WORKERS = 8  # more processes would share the card


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--wheels", type=Path, help="folder of wheels")
    parser.add_argument("--download", metavar="PYTHON", help="fill the folder of wheels, for this Python, and end")
    parser.add_argument("--simulate", action="store_true", help="on the simulated device")
    options = parser.parse_args()
    for name in ("wheels",) if options.download else ("out",):
        if getattr(options, name) in (None, Path()):
            parser.error(f"a folder is missing: {name.upper()}=folder")
    if options.download:
        return subprocess.run(download(options.download, options.wheels)).returncode
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as site:
        if problem := unprepared(site, options.wheels) or ("" if options.simulate else without_cuda(site)):
            print(problem, file=sys.stderr)
            return 2
        options.out.mkdir(parents=True, exist_ok=True)
        tests = run(test_command(options.simulate), options.out / "tests.txt", site, TEST_SECONDS, options.simulate)
        left = SECONDS - (time.monotonic() - start)
        rows = run(row_command(options, left - 20), options.out / "gpu.txt", site, left, options.simulate)
    failed = [row for row in measured(options.out) if row["status"].startswith("failed")]
    print(f"\ntests {tests}, measurements {rows}, of which {len(failed)} failed; all of it is in {options.out}")
    return int((tests, rows) != ("passed", "passed") or bool(failed))


# ---- packages --------------------------------------------------------------------------------------------------------


def unprepared(site: str, wheels: Path | None) -> str:
    """Install what is missing into the folder `site`; why that does not do, "" if it does."""
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return f"Python {sys.version.split()[0]} is not between 3.11 and 3.13; give another: make gpu PYTHON=python3.12"
    lacking = missing()
    if "torch" in lacking:
        return f"torch {NEEDED['torch']} or later has to be there for this Python ({sys.executable})"
    if lacking and wheels is not None:
        names = [f"{name}>={NEEDED[name]}" for name in lacking]
        offline = ["--no-index", "--no-deps", "--find-links", str(wheels), "--target", site]
        installed = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *offline, *names])
        lacking = [] if installed.returncode == 0 else lacking
    if not lacking:
        return ""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return (
        f"{', '.join(lacking)}: missing here, or too old. Where there is a network, make gpu-wheels WHEELS=folder "
        f"PY={python} fills a folder with wheels; bring it, and give WHEELS=folder here"
    )


def missing() -> list[str]:
    """Packages that are not here, or older than needed."""
    lacking = []
    for name, least in NEEDED.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "0"
        if numbers(found) < numbers(least):
            lacking.append(name)
    return lacking


def numbers(text: str) -> tuple[int, ...]:
    """2.11.0+cu130 as (2, 11, 0)."""
    return tuple(int(part) for part in re.match(r"[\d.]*\d", text)[0].split("."))  # type: ignore[index]


def download(python: str, wheels: Path) -> list[str]:
    """The command that fills the folder with all packages but torch."""
    names = [f"{name}>={least}" for name, least in NEEDED.items() if name != "torch"]
    platforms = [part for name in PLATFORMS for part in ("--platform", f"{name}_x86_64")]
    only = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms]
    return [sys.executable, "-m", "pip", "download", *only, "--dest", str(wheels), *names]


def without_cuda(site: str) -> str:
    """Why nothing can run on CUDA; "" if it can."""
    ask = "import torch; torch.zeros(1, device='cuda') if torch.cuda.is_available() else exit(3)"
    asked = subprocess.run([sys.executable, "-c", ask], env=variables(site, False), capture_output=True, text=True)
    if asked.returncode == 0:
        return ""
    why = (asked.stderr.strip().splitlines() or ["torch.cuda.is_available() is False"])[-1]
    return (
        f"torch {version('torch')} sees no CUDA device here ({why}), so there is nothing to measure; SIMULATE=1 shows "
        "that all of it runs, on a simulated device"
    )


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_command(simulate: bool) -> list[str]:
    """The tests that make a difference between devices."""
    workers = str(min(WORKERS, os.cpu_count() or 1))
    tests = SIMULATED_TESTS if simulate else TESTS
    return [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-n", workers, *tests]


def row_command(options: argparse.Namespace, seconds: float) -> list[str]:
    """The benchmark, which leaves out what there is no time for."""
    command = [sys.executable, str(ROOT / "benchmarks" / "engine.py"), "gpu", "--out", str(options.out.resolve())]
    return [*command, "--simulate"] if options.simulate else [*command, "--seconds", f"{seconds:.0f}"]


def variables(site: str, simulate: bool) -> dict[str, str]:
    """The environment of all processes."""
    return os.environ | {
        "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
        "PYTHONUNBUFFERED": "1",
        "SKTDA_DEVICE": "simulated" if simulate else "cuda",
    }


def run(command: list[str], log: Path, site: str, seconds: float, simulate: bool) -> str:
    """ "passed", or how it ended; what it says goes to the screen and line by line into the log."""
    env = variables(site, simulate) | ({"NVIDIA_TF32_OVERRIDE": "0"} if "pytest" in command else {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    process = subprocess.Popen(command, cwd=ROOT, env=env, **pipes)
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, stop)
    timer.start()
    with log.open("w") as file:
        for line in process.stdout:
            file.write(line)
            file.flush()
            print(line, end="", flush=True)
    code = process.wait()
    timer.cancel()
    return f"stopped after {seconds:.0f} s" if stopped.is_set() else "failed" if code else "passed"


def measured(out: Path) -> list[dict]:
    """The rows that the benchmark has written."""
    return [row for path in out.glob("gpu*.json") for row in json.loads(path.read_text())["rows"]]


if __name__ == "__main__":
    sys.exit(main())
