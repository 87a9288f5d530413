"""Two workers against this process alone, what is sent to them, and what a killed one changes.

    python benchmarks/cluster.py [--quick]

Processes of one machine, joined to a Dask scheduler, one thread each. Flows: `Distributional` over 20 trainings of a
net whose class stands in this script, `SelfConfidence` of trees in 20 folds, and a search over `InfluencePruner`. Shown
are seconds in this process and with two workers, bytes that go with each task and bytes that are sent once, and five
runs of each flow in which a worker is killed (SIGKILL) at a random moment: seconds, and the largest difference from the
result without a cluster. Writes benchmarks/results/cluster.json (--quick: in this process, without a worker; nothing
is written).
"""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from shared.common import begin, fashion_mnist, quick, save

ROWS, SEED, KILLS = 6_000, 0, 5


def flows() -> dict[str, Callable[[], np.ndarray]]:
    """What is run, by name."""
    import torch
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import GridSearchCV
    from skorch import NeuralNetClassifier

    from sktda import InfluencePruner
    from sktda.attribution import Distributional, Influence, SelfConfidence

    class Net(torch.nn.Module):
        """With dropout, so that trainings are not one program."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(784, 64), torch.nn.Dropout(0.1), torch.nn.ReLU(), torch.nn.Linear(64, 10)
            )

        def forward(self, X: torch.Tensor) -> torch.Tensor:
            return self.layers(X)

    images, y, *_ = fashion_mnist()
    n = 100 if quick() else ROWS
    X, y = (images[:n].reshape(n, -1) / 255).astype(np.float32), y[:n]
    net = NeuralNetClassifier(
        Net, criterion=torch.nn.CrossEntropyLoss, lr=0.05, max_epochs=10, train_split=None, verbose=0
    )
    trees = ExtraTreesClassifier(20, random_state=SEED)
    search = GridSearchCV(
        InfluencePruner(trees, SelfConfidence(trees, cv=3), guard=False), {"prune_ratio": [0, 0.05, 0.1, 0.2]}, cv=4
    )
    folds, members = (2, 2) if quick() else (20, 20)
    return {
        "Distributional": lambda: (
            Distributional(Influence(net, objective="self"), n_members=members, random_state=SEED).fit(X, y).scores_
        ),
        "SelfConfidence": lambda: SelfConfidence(trees, cv=folds, random_state=SEED).fit(X, y).scores_,
        "GridSearchCV": lambda: search.fit(X, y).cv_results_["mean_test_score"],
    }


@contextmanager
def cluster(n_workers: int) -> Iterator[tuple[Any, list]]:
    """(client, worker processes)."""
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as here, Client(here) as client:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", here.scheduler_address]
        command += ["--no-nanny", "--nthreads=1", "--no-dashboard"]
        workers = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(n_workers)]
        try:
            client.wait_for_workers(n_workers, timeout=60)
            client.run(lambda: __import__("sktda.attribution").attribution.Distributional)  # imports are not timed
            yield client, workers
        finally:
            for each in workers:
                each.kill()
                each.wait()


def seconds(flow: Callable, n_workers: int) -> float:
    """Of the flow on so many workers, without their imports."""
    from sktda import dask_cluster

    with cluster(n_workers) as (client, _), dask_cluster(client):
        start = time.perf_counter()
        flow()
        return time.perf_counter() - start


def sent(flow: Callable) -> dict:
    """Bytes of the arguments of one task that are its own, and of those that are sent once for all."""
    from sktda import cluster as resilient
    from sktda import dask_cluster

    own, shared = [], {}
    make = resilient._Backend._sent

    def counted(self: Any, value: Any) -> Any:
        found = make(self, value)
        if found is value:
            own.append(len(pickle.dumps(value)))
        else:
            shared[found.key] = len(pickle.dumps(value))
        return found

    tasks = []
    to_args = resilient._Backend._to_func_args

    async def noted(self: Any, func: Any) -> Any:
        tasks.append(len(func.items))
        return await to_args(self, func)

    resilient._Backend._sent, resilient._Backend._to_func_args = counted, noted
    try:
        with cluster(2) as (client, _), dask_cluster(client):
            flow()
    finally:
        resilient._Backend._sent, resilient._Backend._to_func_args = make, to_args
    return {"tasks": sum(tasks), "own": sum(own) / sum(tasks), "once": sum(shared.values())}


def killed(flow: Callable, expected: np.ndarray, length: float, trial: int) -> dict:
    """Seconds and largest difference of a run in which one of two workers is killed."""
    from sktda import dask_cluster

    moment = float(np.random.default_rng([SEED, trial]).uniform(0.05, 0.9)) * length
    with cluster(2) as (client, workers), dask_cluster(client):
        killer = threading.Timer(moment, os.kill, (workers[trial % 2].pid, signal.SIGKILL))
        start = time.perf_counter()
        killer.start()
        found = flow()
        took = time.perf_counter() - start
        killer.join()
    return {"killed_at": moment, "seconds": took, "difference": float(np.abs(found - expected).max())}


def main(arguments: list[str] | None = None) -> None:
    begin(argparse.ArgumentParser(description=__doc__.splitlines()[0]), arguments, threads=1)
    warnings.simplefilter("ignore")  # convergence, and sockets of workers that are gone
    rows = []
    for name, flow in flows().items():
        expected = flow()
        if quick():
            print(name, expected.shape)
            continue
        start = time.perf_counter()
        flow()  # in this process, where joblib runs what a cluster of one thread would
        one, two = time.perf_counter() - start, seconds(flow, 2)
        row = {"flow": name, "rows": ROWS, "seed": SEED, "one": one, "two": two, **sent(flow)}
        row["kills"] = [killed(flow, expected, two, trial) for trial in range(KILLS)]
        rows.append(row)
        print(row, flush=True)
    save("cluster", rows)


if __name__ == "__main__":
    main()
