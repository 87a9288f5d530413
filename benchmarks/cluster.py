"""Two workers against one, what is sent to them, and what a killed one changes.

    python benchmarks/cluster.py [--flows NAME ...] [--quick]

Processes of one machine, joined to a Dask scheduler, one thread each. Flows: `Distributional` over 20 trainings of a
net whose class stands in this script; `Source` over 6 checkpoints of a recorded training, for a validation loss;
`ComplexityGap` by Nyström on a million rows that are mapped from a file; and a search over `InfluencePruner`. Shown are
seconds without a cluster, on one worker and on two (the median of three runs after a first), bytes that go with each
task and bytes that are sent once, and five runs of each flow in which a worker is killed (SIGKILL) at a random moment:
seconds, and the largest difference from the result without a cluster, as a share of the largest score. Writes
benchmarks/results/cluster.json after each flow; --flows leaves what the file has of the others (--quick: in this
process, without a worker; nothing is written).
"""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pages.common import found
from shared.common import begin, fashion_mnist, quick, save

from sktda import attribution

SEED, KILLS, RUNS = 0, 5, 3
NAMES = "Distributional", "Source", "ComplexityGap", "GridSearchCV"


def rows_of(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of Fashion-MNIST."""
    images, y, *_ = fashion_mnist()
    n = 100 if quick() else n
    return (images[:n].reshape(n, -1) / 255).astype(np.float32), y[:n]


def net(epochs: int, hidden: int = 64, **settings: Any) -> Any:
    """Of a class that no worker can import."""
    import torch
    from skorch import NeuralNetClassifier

    class Net(torch.nn.Module):
        """With dropout, so that trainings are not one program."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(784, hidden), torch.nn.Dropout(0.1), torch.nn.ReLU(), torch.nn.Linear(hidden, 10)
            )

        def forward(self, X: torch.Tensor) -> torch.Tensor:
            return self.layers(X)

    return NeuralNetClassifier(
        Net, criterion=torch.nn.CrossEntropyLoss, lr=0.05, max_epochs=epochs, train_split=None, verbose=0, **settings
    )


def distributional(folder: Path) -> tuple[int, Callable[[], np.ndarray]]:
    """(rows, what is run)."""
    from sktda.attribution import Distributional, Influence

    X, y = rows_of(6_000)
    members = 2 if quick() else 20
    method = Distributional(Influence(net(1 if quick() else 8), objective="self"), n_members=members, random_state=SEED)
    return len(y), lambda: method.fit(X, y).scores_


def source(folder: Path) -> tuple[int, Callable[[], np.ndarray]]:
    """(rows, what is run)."""
    import torch
    from sklearn.frozen import FrozenEstimator

    from sktda import TrajectoryRecorder
    from sktda.attribution import Source

    X, y = rows_of(40_000)
    torch.manual_seed(SEED)
    trained = net(6 if quick() else 2, hidden=256, callbacks=[TrajectoryRecorder(n_checkpoints=6)]).fit(X, y)
    method = Source(FrozenEstimator(trained), random_state=SEED)
    return len(y), lambda: method.fit(X, y, X_val=X[:500], y_val=y[:500]).scores_


def complexity_gap(folder: Path) -> tuple[int, Callable[[], np.ndarray]]:
    """(rows, what is run)."""
    from sktda.attribution import ComplexityGap

    n, rng = 300 if quick() else 1_000_000, np.random.default_rng(SEED)
    mapped = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (n, 50))
    y = np.empty(n, dtype=int)
    for start in range(0, n, 100_000):
        part = slice(start, min(start + 100_000, n))
        mapped[part] = rng.normal(size=(part.stop - start, 50))
        y[part] = (mapped[part, 0] + mapped[part, 1] ** 2 > 1) ^ (rng.random(part.stop - start) < 0.1)
    mapped.flush()
    X = np.load(folder / "X.npy", mmap_mode="r")
    method = ComplexityGap(mode="nystrom", n_landmarks=100 if quick() else 600, random_state=SEED)
    return n, lambda: method.fit(X, y).scores_


def search(folder: Path) -> tuple[int, Callable[[], np.ndarray]]:
    """(rows, what is run)."""
    from sklearn.base import clone
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import GridSearchCV

    from sktda import InfluencePruner
    from sktda.attribution import SelfConfidence

    X, y = rows_of(6_000)
    trees = ExtraTreesClassifier(20, random_state=SEED)
    pruner = InfluencePruner(trees, SelfConfidence(trees, cv=3), guard=False)
    grid = GridSearchCV(pruner, {"prune_ratio": [0, 0.05] if quick() else [0, 0.05, 0.1, 0.2]}, cv=2 if quick() else 4)
    # a clone: the scorer that scikit-learn sends with every task holds the search, and what an earlier fit made
    return len(y), lambda: clone(grid).fit(X, y).cv_results_["mean_test_score"]


FLOWS = dict(zip(NAMES, (distributional, source, complexity_gap, search), strict=True))


class Workers:
    """Processes joined to the scheduler of a client."""

    def __init__(self, client: Any, address: str) -> None:
        self.client = client
        self.command = [sys.executable, "-m", "distributed.cli.dask_worker", address]
        self.command += ["--no-nanny", "--nthreads=1", "--no-dashboard"]
        self.processes: list[subprocess.Popen] = []

    def fill(self, n: int) -> None:
        """Start as many as there lack, with their imports, which are not timed."""
        self.processes = [each for each in self.processes if each.poll() is None]
        lacking = n - len(self.processes)
        self.processes += [subprocess.Popen(self.command, stderr=subprocess.DEVNULL) for _ in range(lacking)]
        while len(self.client.scheduler_info(n_workers=-1)["workers"]) != n:  # also those that were killed
            time.sleep(0.1)
        self.client.run(lambda: [__import__(name) for name in ("skorch", "sklearn.ensemble")])
        self.client.run(lambda: [getattr(attribution, name) for name in attribution.__all__])  # which load when asked

    def end(self) -> None:
        """All of them."""
        for each in self.processes:
            each.kill()
            each.wait()


@contextmanager
def cluster() -> Iterator[Workers]:
    """One without workers."""
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as here, Client(here) as client:
        workers = Workers(client, here.scheduler_address)
        try:
            yield workers
        finally:
            workers.end()


def timed(run: Callable[[], np.ndarray], client: Any = None) -> tuple[float, np.ndarray]:
    """(seconds, result), on the workers of a client."""
    from sktda import dask_cluster

    with ExitStack() as stack:
        if client is not None:
            stack.enter_context(dask_cluster(client))
        start = time.perf_counter()
        result = run()
        return time.perf_counter() - start, result


def warm(run: Callable[[], np.ndarray], client: Any = None) -> tuple[float, np.ndarray]:
    """As `timed`, the median of runs after a first: what a process does once, such as to load kernels, is not timed."""
    timed(run, client)
    runs = [timed(run, client) for _ in range(RUNS)]
    return sorted(runs, key=lambda each: each[0])[RUNS // 2]


@contextmanager
def counted() -> Iterator[dict]:
    """Tasks, bytes of a task's own arguments, those of its models, and those of what is sent once for all."""
    from sktda import cluster as resilient
    from sktda.workers.pickles import Carried

    kind, count, shared = resilient._Backend, {"tasks": 0, "own": 0.0, "models": 0.0, "once": 0}, {}
    make, to_args = kind._sent, kind._to_func_args

    def sent(self: Any, value: Any) -> Any:
        found = make(self, value)
        if found is value or isinstance(found, resilient.Mapped):
            count["models" if isinstance(found, Carried) else "own"] += len(pickle.dumps(found))
        elif found.key not in shared:
            shared[found.key] = len(pickle.dumps(value))
        return found

    async def noted(self: Any, func: Any) -> Any:
        count["tasks"] += len(func.items)
        return await to_args(self, func)

    kind._sent, kind._to_func_args = sent, noted
    try:
        yield count
    finally:
        kind._sent, kind._to_func_args = make, to_args
    for name in ("own", "models"):
        count[name] /= count["tasks"]
    count["once"] = sum(shared.values())


def killed(run: Callable, workers: Workers, expected: np.ndarray, length: float, trial: int) -> dict:
    """Seconds and largest difference of a run in which one of two workers is killed."""
    moment = float(np.random.default_rng([SEED, trial]).uniform(0.05, 0.9)) * length
    workers.fill(2)
    victim = workers.processes[trial % 2]
    killer = threading.Timer(moment, os.kill, (victim.pid, signal.SIGKILL))
    killer.start()
    took, result = timed(run, workers.client)
    killer.join()
    victim.wait()
    return {"killed_at": moment, "seconds": took, "difference": difference(result, expected)}


def difference(result: np.ndarray, expected: np.ndarray) -> float:
    """The largest one, as a share of the largest number."""
    return float(np.abs(result - expected).max() / np.abs(expected).max())


def measured(name: str, folder: Path) -> dict:
    """The row of a flow."""
    n, run = FLOWS[name](folder)
    if quick():
        return {"flow": name, "rows": n, "shape": run().shape}
    alone, expected = warm(run)
    with cluster() as workers:
        workers.fill(1)
        one, first = warm(run, workers.client)
        workers.fill(2)
        two, second = warm(run, workers.client)
        row = {"flow": name, "rows": n, "seed": SEED, "alone": alone, "one": one, "two": two}
        row["difference"] = max(difference(first, expected), difference(second, expected))
        with counted() as sent:
            timed(run, workers.client)
        kills = [killed(run, workers, expected, two, trial) for trial in range(KILLS)]
    return {**row, **sent, "kills": kills}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flows", nargs="+", choices=NAMES, default=NAMES, help="these; the others stay as they were")
    options = begin(parser, arguments, threads=1)
    warnings.simplefilter("ignore")  # convergence, and sockets of workers that are gone
    rows = {} if quick() else {row["flow"]: row for row in found("cluster")[1]}
    for name in options.flows:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = measured(name, Path(folder))
        print(rows[name], flush=True)
        save("cluster", [rows[each] for each in NAMES if each in rows])


if __name__ == "__main__":
    main()
