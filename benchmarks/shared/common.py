"""Shared by the benchmarks: how they are started, data sets, wrong labels, a process for each measurement, JSON out."""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from shared.memory import peak_gib

RESULTS = Path(__file__).parents[1] / "results"
OPENML = {"segment": ("segment", 1), "phoneme": ("phoneme", 1), "adult": ("adult", 2)}
FASHION_ROWS = {"fashion-10k": 10_000, "fashion-60k": 60_000}
MADE = {"segment": (19, 7), "phoneme": (5, 2), "adult": (20, 2)}  # columns and classes, with --quick
FEW_DIGITS, MADE_ROWS = 240, 300
INSTALL = {
    "fairlearn": "pip install --no-deps fairlearn==0.15.0",
    "skrub": "pip install skrub==0.11.0",
    "opendataval": "pip install --no-deps opendataval",
    "geomloss": "pip install --no-deps geomloss==0.2.6",
    "torchvision": "pip install torchvision",
}

_quick = False


def begin(
    parser: argparse.ArgumentParser, arguments: list[str] | None = None, *, threads: int = 2
) -> argparse.Namespace:
    """The options, among them `quick`; threads are fixed.

    With --quick a question only shows that it runs: from here on data are few rows that come with scikit-learn or are
    made, measurements stay in this process, on one thread, and `save` writes nothing.
    """
    global _quick
    parser.add_argument("--quick", action="store_true", help="seconds, on few rows without a download; writes nothing")
    options = parser.parse_args(arguments)
    _quick = options.quick
    set_threads(threads)
    return options


def quick() -> bool:
    """Whether this run is one of --quick."""
    return _quick


def has(*packages: str) -> bool:
    """Whether these are installed. Without them, a run with --quick says so and goes on; any other ends here."""
    lacking = [name for name in packages if find_spec(name) is None]
    if not lacking:
        return True
    how = "; ".join(dict.fromkeys(INSTALL.get(name, "pip install '.[benchmarks]'") for name in lacking))
    text = f"{', '.join(lacking)}: not installed, and needed here ({how})"
    if not _quick:
        raise SystemExit(text)
    print(f"{text}; left out")
    return False


def data_folder() -> Path | None:
    """SKTDA_DATA/data; None where it is not set, and with --quick."""
    folder = os.environ.get("SKTDA_DATA")
    return Path(folder) / "data" if folder and not _quick else None


def set_threads(n: int = 2) -> None:
    """Fix the threads of every numerical library (with --quick: one); call it before they are imported."""
    n = 1 if _quick else n
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(n)
    import torch

    torch.set_num_threads(n)


def fashion_mnist() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(x_train (60000, 28, 28) uint8, y_train, x_test, y_test). With --quick: 600 and 100 digits in this form."""
    return _pictures("fashion_mnist.npz", "Fashion-MNIST")


def mnist() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As `fashion_mnist`, of handwritten digits."""
    return _pictures("mnist.npz", "mnist_784")


def _pictures(file: str, title: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """From the file in SKTDA_DATA, else from OpenML, where the 10,000 test pictures stand last."""
    if _quick:
        from sklearn.datasets import load_digits

        digits = load_digits()
        X = np.pad(np.kron(digits.images, np.ones((3, 3))) * 15, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
        return X[:600], digits.target[:600], X[600:700], digits.target[600:700]
    folder = data_folder()
    if folder and (folder / file).exists():
        data = np.load(folder / file)
        return data["x_train"], data["y_train"].astype(int), data["x_test"], data["y_test"].astype(int)
    from sklearn.datasets import fetch_openml

    X, y = fetch_openml(title, version=1, as_frame=False, return_X_y=True)
    X, y = X.astype(np.uint8).reshape(-1, 28, 28), y.astype(int)
    return X[:60_000], y[:60_000], X[60_000:], y[60_000:]


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(X, y as 0..C-1) of "digits", "segment", "phoneme", "adult", "fashion-10k" or "fashion-60k" (training rows).

    With --quick: the first 240 digits, and made rows of as many columns and classes in place of what is downloaded.
    """
    if name == "digits":
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        return (X[:FEW_DIGITS], y[:FEW_DIGITS]) if _quick else (X, y)
    if name in FASHION_ROWS:
        X, y, _, _ = fashion_mnist()
        return X[: FASHION_ROWS[name]], y[: FASHION_ROWS[name]]
    if _quick:
        from sklearn.datasets import make_classification

        columns, classes = MADE[name]
        return make_classification(
            MADE_ROWS, columns, n_informative=5, n_redundant=0, n_classes=classes, random_state=0
        )
    if folder := data_folder():
        data = np.load(folder / f"{name}.npz")
        X, y = data["X"], data["y"]
    else:
        from sklearn.datasets import fetch_openml

        title, number = OPENML[name]
        frame, y = fetch_openml(title, version=number, as_frame=True, return_X_y=True, parser="auto")
        import pandas as pd

        X = pd.get_dummies(frame, dtype=float).to_numpy()
    return np.asarray(X), np.unique(y, return_inverse=True)[1]


def concrete_strength() -> tuple[np.ndarray, np.ndarray]:
    """(X (1030, 8), y (1030,)) float64, as they come; with --quick a hundred made rows."""
    if _quick:
        from sklearn.datasets import make_regression

        return make_regression(100, 8, random_state=0)
    if folder := data_folder():
        data = np.load(folder / "concrete.npz")
        X, y = data["X"], data["y"]
    else:
        from sklearn.datasets import fetch_openml

        X, y = fetch_openml(data_id=44959, as_frame=False, return_X_y=True)
    return np.asarray(X, dtype=float), np.asarray(y, dtype=float)


def flip(y: np.ndarray, kind: str, rate: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(given labels, mask of the wrong ones).

    "uniform": a share `rate` of all rows gets another class at random. "class": class-dependent, row of class c gets
    class c + 1, with probability `rate` (two classes: only class 0 is affected, so the overall rate is smaller).
    """
    rng = np.random.default_rng(seed)
    n_classes = y.max() + 1
    wrong = rng.random(len(y)) < rate
    if kind == "class":
        shift = np.ones(len(y), dtype=int)
        if n_classes == 2:
            wrong &= y == 0
    else:
        shift = rng.integers(1, n_classes, size=len(y))
    return np.where(wrong, (y + shift) % n_classes, y), wrong


def _measure(function, args) -> dict:
    start = time.perf_counter()
    result = function(*args)
    elapsed = time.perf_counter() - start
    return {"seconds": elapsed, "peak_gib": peak_gib(), **result}


def _child(pipe, function, args, threads):
    set_threads(threads)
    pipe.send(_measure(function, args))


def measured(function, *args, threads: int = 2) -> dict:
    """function(*args) -> dict in a fresh process, with `seconds` (unless it sets its own) and `peak_gib`.

    With --quick in this process, whose peak it then is.
    """
    if _quick:
        return _measure(function, args)
    context = mp.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(send, function, args, threads))
    process.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        raise RuntimeError(f"{function.__name__}{args} ended without a result") from None
    finally:
        process.join()


def environment() -> dict:
    """Versions and hardware, for the head of every result."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    packages = ("sktda", "scikit-learn", "torch", "numpy", "cleanlab")
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "python": sys.version.split()[0],
        **{name: found for name in packages if (found := installed(name))},
    }


def installed(package: str) -> str | None:
    """Its version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def save(name: str, rows: list[dict]) -> None:
    """Write benchmarks/results/NAME.json with the environment it was measured in; nothing with --quick."""
    if _quick:
        return
    RESULTS.mkdir(exist_ok=True)
    content = {"environment": environment(), "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1, default=float) + "\n")
