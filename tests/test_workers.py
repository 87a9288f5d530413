"""Models of a script's own classes reach other processes, and tasks on a cluster outlive their workers."""

import os
import pickle
import signal
import subprocess
import sys
import threading

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier

from sktda import InfluencePruner, dask_cluster
from sktda.attribution import Influence, SelfConfidence
from sktda.workers import _Carried, in_workers

X, y = load_iris(return_X_y=True)
X = X.astype("float32")


SCRIPT = """
import time
import torch
from sklearn.tree import DecisionTreeClassifier

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, X):
        return self.layer(X)

class Slow(DecisionTreeClassifier):
    def fit(self, X, y, sample_weight=None):
        time.sleep(0.15)  # long enough to be killed at it
        return super().fit(X, y, sample_weight)
"""


@pytest.fixture
def script():
    """The names of `__main__`, which hold classes that no other process can import."""
    names = vars(sys.modules["__main__"])
    known = set(names)
    exec(SCRIPT, names)
    yield names
    for name in set(names) - known:
        del names[name]


def net_of(kind):
    return NeuralNetClassifier(
        kind, criterion=torch.nn.CrossEntropyLoss, max_epochs=2, lr=0.1, train_split=None, verbose=0
    )


@pytest.mark.parametrize(
    "around",
    [
        lambda net: net,
        lambda net: FrozenEstimator(net),
        lambda net: make_pipeline(StandardScaler(), net),
        lambda net: Influence(FrozenEstimator(net), objective="self").fit(X, y),
    ],
    ids=["net", "frozen", "pipeline", "attributor"],
)
def test_a_trained_net_of_a_class_of_the_script_is_sent_with_its_class(script, around):
    given = around(net_of(script["Own"]).initialize())
    if not hasattr(given, "scores_"):
        given.fit(X, y)
    sent = pickle.dumps(_Carried(given))
    del script["Own"]
    got = pickle.loads(sent).value
    if hasattr(given, "scores_"):
        np.testing.assert_array_equal(got.attribute(X[:2], y[:2]), given.attribute(X[:2], y[:2]))
    else:
        np.testing.assert_array_equal(got.predict_proba(X), given.predict_proba(X))
    again = pickle.loads(
        pickle.dumps(_Carried(got))
    )  # from a worker back, where the class has no module to be found in
    assert type(again.value) is type(given)


def test_parameters_of_a_sent_net_are_those_of_its_optimiser(script):
    net = net_of(script["Own"]).fit(X, y)
    got = pickle.loads(pickle.dumps(_Carried(net))).value
    got.partial_fit(X, y)
    assert not np.array_equal(got.predict_proba(X), net.predict_proba(X))


def test_tasks_come_back_in_order_one_after_the_other():
    seen = []
    results = in_workers(lambda k, part: seen.append(k) or part.sum() + k, ((k, np.arange(k)) for k in range(4)), 1)
    assert next(results) == 0
    assert seen == [0]
    assert list(results) == [1, 3, 6]


@pytest.fixture(scope="module")
def workers():
    """(client, worker processes): of their own, so that one can be killed."""
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as cluster, Client(cluster) as client:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address]
        command += ["--no-nanny", "--nthreads=1", "--no-dashboard"]
        processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(3)]
        try:
            client.wait_for_workers(3, timeout=60)
            yield client, processes
        finally:
            for each in processes:
                each.kill()
                each.wait()


FLOWS = {
    "ours": lambda slow: SelfConfidence(slow, cv=9).fit(X, y).scores_,
    "a search": lambda slow: (
        GridSearchCV(InfluencePruner(slow, SelfConfidence(), guard=False), {"prune_ratio": [0, 0.1]}, cv=3)
        .fit(X, y)
        .cv_results_["mean_test_score"]
    ),
}


@pytest.mark.filterwarnings("default")  # of threads and sockets of a worker that is gone
@pytest.mark.parametrize("flow", FLOWS)
def test_a_killed_worker_changes_nothing(workers, flow, script):
    client, processes = workers
    slow = script["Slow"](max_depth=2, random_state=0)  # whose results no rounding moves
    expected = FLOWS[flow](slow)
    victim = next(each for each in processes if each.poll() is None)
    killer = threading.Timer(0.5, os.kill, (victim.pid, signal.SIGKILL))
    with joblib.parallel_config("dask") if flow == "ours" else dask_cluster(client):
        killer.start()
        found = FLOWS[flow](slow)
    killer.join()
    np.testing.assert_array_equal(found, expected)
    assert victim.wait(5) == -signal.SIGKILL
