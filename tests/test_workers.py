"""Models of a script's own classes reach other processes, and tasks on a cluster outlive their workers.

Passes over the rows are tasks, too: on workers they find what they find here.
"""

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from sklearn.callback import ProgressBar
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier

from sktda import InfluencePruner, TrajectoryRecorder, cluster, dask_cluster
from sktda.attribution import ComplexityGap, Influence, SelfConfidence, Source
from sktda.engine import journal, kernel
from sktda.engine.journal import Passes, shard_size
from sktda.workers import in_workers, overlapped, pickles, spread
from sktda.workers.pickles import Carried, packed, unpacked
from tests.spies import dask_worker

X, y = load_iris(return_X_y=True)
X = X.astype("float32")


SCRIPT = """
import os
import time
import torch
from sklearn.tree import DecisionTreeClassifier

HERE = os.getpid()  # workers are slow, so that there is time to kill one at it; what is expected need not be

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, X):
        return self.layer(X)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.2),
            torch.nn.ReLU(), torch.nn.Linear(6, 3)
        )

    def forward(self, X):
        time.sleep(0.02 if len(X) == 16 and os.getpid() != HERE else 0)
        return self.layers(X)

class Slow(DecisionTreeClassifier):
    def fit(self, X, y, sample_weight=None):
        time.sleep(0.15 if os.getpid() != HERE else 0)
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
    sent = pickle.dumps(Carried(given))
    del script["Own"]
    got = pickle.loads(sent).value
    if hasattr(given, "scores_"):
        np.testing.assert_array_equal(got.attribute(X[:2], y[:2]), given.attribute(X[:2], y[:2]))
    else:
        np.testing.assert_array_equal(got.predict_proba(X), given.predict_proba(X))
    again = pickle.loads(pickle.dumps(Carried(got)))  # from a worker back, where the class has no module to be found in
    assert type(again.value) is type(given)


def test_a_net_is_sent_where_print_was_replaced_meanwhile(script, monkeypatch):
    net = net_of(script["Net"]).fit(X, y)
    monkeypatch.setattr("builtins.print", lambda *args, **settings: None)
    got = pickle.loads(pickle.dumps(Carried(net))).value
    np.testing.assert_array_equal(got.predict_proba(X), net.predict_proba(X))


def test_parameters_of_a_sent_net_are_those_of_its_optimiser(script):
    net = net_of(script["Own"]).fit(X, y)
    got = pickle.loads(pickle.dumps(Carried(net))).value
    got.partial_fit(X, y)
    assert not np.array_equal(got.predict_proba(X), net.predict_proba(X))


def test_values_can_be_changed_where_they_arrive_whoever_carried_them():
    given, buffers = {"sums": torch.ones(300), "rows": np.ones(300)}, []
    data = pickle.dumps(Carried(given), protocol=5, buffer_callback=buffers.append)
    assert len(buffers) == 2
    assert len(data) < 1_000
    for carried in (map(bytes, buffers), map(bytearray, buffers)):
        found = pickle.loads(data, buffers=carried).value
        for value in found.values():
            value += 1
            assert value.sum() == 600
    assert given["sums"].sum() == 300


class Opened:
    """Notes which thread opens it."""

    def __setstate__(self, state):
        self.thread = threading.get_ident()


def test_what_arrives_is_opened_by_the_thread_that_asks_for_it():
    """Each has a current card, on which nets of "cuda" are then."""
    given = Opened()
    given.thread = None  # without a state there is nothing to open
    with ThreadPoolExecutor(1) as reader:
        arrived = reader.submit(pickle.loads, pickle.dumps(Carried(given))).result()
    assert arrived.value.thread == threading.get_ident()
    assert arrived.value is arrived.value


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

    with LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as cluster, Client(cluster) as client:
        context = multiprocessing.get_context("forkserver")  # see tests/forked.py
        processes = [context.Process(target=dask_worker, args=[cluster.scheduler_address]) for _ in range(4)]
        for each in processes:
            each.start()
        try:
            client.wait_for_workers(4, timeout=60)
            yield client, processes
        finally:
            for each in processes:
                each.kill()
                each.join()


MANY = np.random.default_rng(0).normal(size=(97, 4)).astype("float32")  # six shards of 16 and one of a single row
CODES = (MANY[:, 0] > 0).astype(int)
WEIGHTS = np.linspace(0.5, 2, 97).astype("float32")


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(journal, "SHARD", 16)
    monkeypatch.setattr(kernel, "CACHE_ELEMENTS", 0)


METHODS = {
    "Influence": (lambda net: Influence(net, curvature="ekfac"), {}),
    "Source": (lambda net: Source(net, n_segments=2), {"X_val": MANY[:9], "y_val": CODES[:9]}),
    "ComplexityGap": (lambda net: ComplexityGap(mode="nystrom", n_landmarks=30), {}),
}


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # of torch, for mapped rows
def test_passes_on_workers_find_what_they_find_here(workers, script, small_shards, tmp_path, monkeypatch):
    np.save(tmp_path / "X.npy", MANY)
    mapped, bytes_sent, differing = np.load(tmp_path / "X.npy", mmap_mode="r"), [], []
    make = cluster._Backend._sent

    def noted(self, value):
        found = make(self, value)
        # what is shared is of functions, which hold the model; rows are described, and numbers say which of them
        bytes_sent.append(len(pickle.dumps(found)) if found is value or isinstance(found, cluster.Mapped) else 0)
        return found

    monkeypatch.setattr(cluster._Backend, "_sent", noted)
    monkeypatch.setattr(cluster, "SMALL", 64)  # so that the rows of this test count as many
    recorded = net_of(script["Net"]).set_params(batch_size=50, callbacks=[TrajectoryRecorder(n_checkpoints=2)])
    trained = FrozenEstimator(recorded.fit(MANY, CODES))
    for name, (make_method, given) in METHODS.items():
        method = make_method(trained)
        expected = method.fit(mapped, CODES, sample_weight=WEIGHTS, **given).scores_
        before = len(bytes_sent)
        with dask_cluster(workers[0]):
            found = method.fit(mapped, CODES, sample_weight=WEIGHTS, **given).scores_
        if not np.array_equal(found, expected):
            differing.append((name, np.abs(found - expected).max()))
        assert len(bytes_sent) > before, f"{name} sent nothing"
    assert not differing
    assert max(bytes_sent) < 20_000


def test_rows_of_a_file_that_is_gone_are_sent_themselves(workers, small_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "SMALL", 64)
    np.save(tmp_path / "X.npy", MANY)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    (tmp_path / "X.npy").unlink()
    with dask_cluster(workers[0]):
        made = spread(lambda: [(lambda start, stop: float(mapped[start:stop].sum()), [(0, 5), (5, 97)])], {})
        assert [take() for _, take in made] == [float(MANY[:5].sum()), float(MANY[5:].sum())]


def sums_of(rows):
    return [(lambda start, stop: float(rows[start:stop].sum()), [(0, 5), (5, 97)])]


@pytest.mark.parametrize("there", [True, False])
def test_workers_of_this_machine_map_large_rows_and_others_are_sent_them(workers, there, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "SMALL", 64)
    monkeypatch.setattr(cluster, "SHARED", 64)
    monkeypatch.setattr(pickles, "APART", 64)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if not there:
        monkeypatch.setattr(cluster.socket, "gethostname", lambda: "elsewhere")
    held = {}
    with dask_cluster(workers[0]):
        for _ in range(2):
            made = spread(lambda: sums_of(MANY), held)
            assert [take() for _, take in made] == [float(MANY[:5].sum()), float(MANY[5:].sum())]
            assert len(list(tmp_path.glob("sktda-*/rows.npy"))) == there
    held.clear()
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_no_reason_to_fail(workers, monkeypatch):
    monkeypatch.setattr(cluster, "SMALL", 64)
    monkeypatch.setattr(cluster, "SHARED", 64)

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(cluster.np, "save", full)
    with dask_cluster(workers[0]):
        assert [take() for _, take in spread(lambda: sums_of(MANY), {})] == [
            float(MANY[:5].sum()),
            float(MANY[5:].sum()),
        ]


@pytest.mark.parametrize("way", ["dask_cluster", "joblib's own"])
def test_a_task_of_a_cluster_hands_out_none_of_its_own(workers, way):
    """Where each worker waits for tasks that stand behind others that wait, none goes on."""

    def place(_):
        return os.getpid(), threading.get_ident()

    def outer(_):
        return {place(0), *in_workers(place, [(0,), (1,), (2,)], None)}

    client = workers[0]
    with dask_cluster(client) if way == "dask_cluster" else joblib.parallel_config("dask", client=client):
        found = joblib.Parallel()(joblib.delayed(outer)(k) for k in range(4))
    assert [len(places) for places in found] == [1] * 4


def test_mapped_arrays_are_described_as_they_are_and_other_files_refused(tmp_path):
    path = tmp_path / "X.npy"
    np.save(path, np.arange(60.0).reshape(5, 4, 3))
    whole = np.load(path, mmap_mode="r")
    for view in (whole, whole[1:], whole[::2, 1], whole.T, whole[::-1], np.asarray(whole)[:, :, 1], whole.view("i8")):
        described = pickle.loads(pickle.dumps(cluster.Mapped.of(view)))
        np.testing.assert_array_equal(described.opened(), view)
    copied = np.load(path, mmap_mode="c")
    copied[0] = 7
    assert all(cluster.Mapped.of(each) is None for each in (copied, whole[[0, 2]], whole + 1, np.zeros(3)))
    described = cluster.Mapped.of(whole)
    np.save(path, np.zeros((5, 4, 3)))
    with pytest.raises(OSError, match=r"cannot open .*X\.npy.*put it where all workers see it"):
        described.opened()


def test_large_arrays_of_a_function_go_beside_it_and_the_copy_is_its_own():
    rows, few, net = np.zeros(200_000), np.arange(3), torch.nn.Linear(2, 1)
    code, apart = packed(lambda: (rows, rows, few, net, [net]))
    assert len(apart) == 1
    assert apart[0] is rows
    assert len(code) < 10_000
    one, two = unpacked(code, apart)(), unpacked(code, apart)()
    assert one[0] is one[1] is rows
    assert one[3] is one[4][0]
    assert len({id(one[3]), id(two[3]), id(net)}) == 3


def test_what_cannot_be_sent_runs_here_and_a_warning_says_so():
    lock = threading.Lock()

    def compute(start, stop):
        with lock:
            return stop - start

    with joblib.parallel_config("loky", n_jobs=2), pytest.warns(UserWarning, match="run in this process"):
        found = spread(lambda: [(compute, [(0, 2), (2, 5)])], {})
    assert [(part, take()) for part, take in found] == [((0, 2), 2), ((2, 5), 3)]


def test_of_two_fits_one_goes_on_while_the_other_waits():
    said = []

    def fit(name, n_steps):
        for step in range(n_steps):
            said.append(f"{name}{step}")
            yield
        said.append(f"{name} ends")

    overlapped(fit(name, n_steps) for name, n_steps in (("a", 2), ("b", 2), ("c", 0), ("d", 1)))
    assert said == ["a0", "b0", "a1", "b1", "a ends", "c ends", "d0", "b ends", "d ends"]


def test_shards_depend_on_the_rows_alone_and_are_added_in_order(monkeypatch):
    assert [shard_size(n) for n in (1, 2_048, 65_536, 65_537, 1_000_000, 10**9)] == [
        2_048, 2_048, 2_048, 4_096, 32_768, 65_536
    ]  # fmt: skip
    monkeypatch.setattr(journal, "SHARD", 10)
    values = torch.linspace(0, 1, 95, dtype=torch.float64) ** 9
    sums = {"all": torch.zeros((), dtype=torch.float64)}
    Passes().summed("sums", 95, lambda: [("", lambda start, stop: {"all": values[start:stop].sum()})], sums)
    expected = torch.zeros((), dtype=torch.float64)
    for block in values.split(40):
        whole = torch.zeros((), dtype=torch.float64)
        for part in block.split(10):
            whole += part.sum()
        expected += whole
    assert sums["all"] == expected


WIDE = torch.from_numpy(np.random.default_rng(1).normal(size=(2_000, 40)))


def summed_products(pause=0.0):
    """Of 125 shards, at two states of what the function holds."""
    held = {}

    def stages():
        for state in (1.0, 0.1):
            held["state"] = state
            yield f"state {state}", compute

    def compute(start, stop):
        time.sleep(pause if os.getpid() != here else 0)
        return {"all": held["state"] * WIDE[start:stop].T @ WIDE[start:stop]}

    sums, here = {"all": torch.zeros(40, 40, dtype=torch.float64)}, os.getpid()
    Passes().summed("sums", len(WIDE), stages, sums)
    return sums["all"].numpy()


@pytest.mark.parametrize("n_workers", [1, 2, 3, 16])
def test_sums_are_the_same_on_any_number_of_workers_and_blocks_of_shards_come_as_one(
    workers, small_shards, monkeypatch, n_workers
):
    client, received, opened = workers[0], [], pickles._opened
    places = list(client.scheduler_info(n_workers=-1)["workers"])[:n_workers]
    monkeypatch.setattr(cluster.DaskDistributedBackend, "effective_n_jobs", lambda self, n_jobs: n_workers)
    monkeypatch.setattr(
        pickles,
        "_opened",
        lambda data, buffers: (received.append(len(data) + sum(map(len, buffers))), opened(data, buffers))[1],
    )
    expected = summed_products()
    with joblib.parallel_config("dask", client=client, workers=places):
        np.testing.assert_array_equal(summed_products(), expected)
    sums = 2 * (32 if n_workers < 16 else 125)
    assert len(received) == sums
    assert sum(received) < sums * (WIDE.shape[1] ** 2 * 8 + 1_000)


def test_sums_are_the_same_in_other_processes(small_shards):
    expected = summed_products()
    with joblib.parallel_config("loky", n_jobs=2):
        np.testing.assert_array_equal(summed_products(), expected)


def test_a_pass_of_which_nothing_is_left_asks_no_workers():
    """Joblib would warn of results that nobody has taken."""
    with joblib.parallel_config("loky", n_jobs=2):
        assert list(spread(lambda: [(len, [])], {})) == []


def test_progress_of_tasks_reaches_the_callbacks(capsys):
    SelfConfidence(cv=3).set_callbacks(ProgressBar()).fit(X, y)
    assert "folds" in capsys.readouterr().out


FLOWS = {
    "ours": lambda slow, net: np.concatenate(
        [Influence(net, curvature="ekfac").fit(MANY, CODES).scores_, SelfConfidence(slow, cv=9).fit(X, y).scores_]
    ),
    "a search": lambda slow, net: (
        GridSearchCV(InfluencePruner(slow, SelfConfidence(slow, cv=3), guard=False), {"prune_ratio": [0, 0.1]}, cv=3)
        .fit(X, y)
        .cv_results_["mean_test_score"]
    ),
    "blocks of shards": lambda slow, net: summed_products(0.005),
}


@pytest.mark.filterwarnings("default")  # of threads and sockets of a worker that is gone
@pytest.mark.parametrize("flow", FLOWS)
def test_a_killed_worker_changes_nothing(workers, flow, script, small_shards):
    client, processes = workers
    slow = script["Slow"](max_depth=2, random_state=0)  # whose results no rounding moves
    net = net_of(script["Net"])
    expected = FLOWS[flow](slow, net)
    victim = next(each for each in processes if each.is_alive())
    killer = threading.Timer(0.5, os.kill, (victim.pid, signal.SIGKILL))
    with joblib.parallel_config("dask") if flow == "ours" else dask_cluster(client):
        killer.start()
        found = FLOWS[flow](slow, net)
    killer.join()
    np.testing.assert_array_equal(found, expected)
    victim.join(5)
    assert victim.exitcode == -signal.SIGKILL
