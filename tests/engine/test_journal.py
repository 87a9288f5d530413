"""Shards of a long pass: written whole, read back, never mixed; a killed fit goes on and ends with the same scores."""

import copy
import errno
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.callback import ProgressBar
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from sktda.attribution import DiffIn, Influence, InnerProduct, SGDInfluence, Source, TracIn
from sktda.engine import journal
from sktda.engine.journal import Journal, Passes
from sktda.model.sealed import digest

RNG = np.random.default_rng(0)
X = RNG.normal(size=(700, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(journal, "SHARD", 100)
    monkeypatch.setattr(journal, "PAUSE", 0.0)


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NeuralNetClassifier(
            nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)),
            criterion=nn.CrossEntropyLoss,
            max_epochs=2,
            train_split=None,
            verbose=0,
        ).fit(X, Y)


def squares(start, stop):
    return torch.arange(start, stop, dtype=torch.float64) ** 2


def test_values_are_computed_once_and_read_afterwards(tmp_path):
    asked = []

    def compute(start, stop):
        asked.append((start, stop))
        return squares(start, stop)

    for _ in range(2):
        values = Passes(Journal(tmp_path, "k")).collect("v", 250, compute)
        assert torch.equal(values, squares(0, 250))
    assert asked == [(0, 100), (100, 200), (200, 250)]


def test_sums_go_on_from_the_last_state(tmp_path):
    def broken(start, stop):
        if start == 200:
            raise KeyboardInterrupt
        state["sum"] += squares(start, stop).sum()

    state = {"sum": torch.zeros((), dtype=torch.float64)}
    with pytest.raises(KeyboardInterrupt):
        Passes(Journal(tmp_path, "k")).accumulate("s", 250, broken, state)
    again = {"sum": torch.zeros((), dtype=torch.float64)}
    asked = []

    def whole(start, stop):
        asked.append(start)
        again["sum"] += squares(start, stop).sum()

    Passes(Journal(tmp_path, "k")).accumulate("s", 250, whole, again)
    assert asked == [200]
    assert again["sum"] == squares(0, 250).sum()


def summed_stages(folder, stop_at=None):
    """Sums of two shards, the second of a few rows, at three states; stopped before the shard (state, start)."""

    def stages():
        for state in range(3):

            def compute(start, stop, state=state):
                if (state, start) == stop_at:
                    raise KeyboardInterrupt
                return {"sum": 10.0**state * squares(start, stop).sum()}

            yield f"state {state}", compute

    sums = {"sum": torch.zeros((), dtype=torch.float64)}
    Passes(Journal(folder, "k")).summed("s", 150, stages, sums)
    return sums["sum"]


def handed_out(stages, held):
    """In this process what `spread` does with workers: all stages are read before anything is computed."""
    read = [(function, list(parts)) for function, parts in stages()]
    return journal.in_turn(lambda: read)


@pytest.mark.parametrize("spread", [journal.spread, handed_out])
@pytest.mark.parametrize("stop_at", [None, (2, 100), (2, 0), (1, 100)])
@pytest.mark.parametrize("lost", [[0], [1], [0, 1], "half of 0"])
def test_no_stage_is_counted_twice_where_the_file_of_an_earlier_one_is_gone(
    tmp_path, lost, stop_at, spread, monkeypatch
):
    monkeypatch.setattr(journal, "spread", spread)
    with nullcontext() if stop_at is None else pytest.raises(KeyboardInterrupt):
        summed_stages(tmp_path, stop_at)
    files = [tmp_path / "k" / f"s state {state}.safetensors" for state in range(3)]
    if lost == "half of 0":  # what a fit leaves that made the file again and was stopped
        with pytest.raises(KeyboardInterrupt):
            summed_stages(tmp_path / "half", (0, 100))
        (tmp_path / "half" / "k" / files[0].name).replace(files[0])
    else:
        for state in lost:
            files[state].unlink(missing_ok=True)
    expected = summed_stages(None)
    for _ in range(2):  # what the first of them leaves is right, too
        assert summed_stages(tmp_path) == expected


def test_keys_do_not_mix_and_clear_removes(tmp_path):
    Journal(tmp_path, "a").write("v", {"x": torch.ones(2)})
    assert Journal(tmp_path, "b").read("v") is None
    assert Journal().read("v") is None
    Journal(tmp_path, "a").clear()
    assert not (tmp_path / "a").exists()


def swapped(folder):
    first, second = folder / "v-000000.safetensors", folder / "v-000001.safetensors"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def of_another_key(folder):
    Journal(folder.parent, "other").write("v-000001", {"values": torch.zeros(100, dtype=torch.float64)})
    (folder.parent / "other" / "v-000001.safetensors").replace(folder / "v-000001.safetensors")


def of_another_version(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "__version__", "0")
        Journal(folder.parent, "k").write("v-000001", {"values": torch.zeros(100, dtype=torch.float64)})


def plain(folder):
    save_file({"values": torch.zeros(100, dtype=torch.float64)}, folder / "v-000001.safetensors")


def one_bit(folder):
    path = folder / "v-000001.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [swapped, of_another_key, of_another_version, plain, one_bit])
def test_a_shard_that_is_not_as_it_was_written_is_computed_anew(tmp_path, damage):
    for asked in (3, 2 if damage is swapped else 1, 0):
        computed = []

        def compute(start, stop, computed=computed):
            computed.append(start)
            return squares(start, stop)

        assert torch.equal(Passes(Journal(tmp_path, "k")).collect("v", 250, compute), squares(0, 250))
        assert len(computed) == asked
        if asked == 3:
            damage(tmp_path / "k")


def test_every_damage_to_a_file_is_seen(tmp_path):
    kept = {"x": torch.arange(7.0), "n": torch.tensor(3), "u": torch.tensor([2**63], dtype=torch.uint64)}
    Journal(tmp_path).write("v", kept)
    path = tmp_path / "v.safetensors"
    whole, unseen = path.read_bytes(), 0
    for place in range(0, len(whole), 3):
        for content in (
            whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :],
            whole[:place],
            whole[:place] + whole[place + 1 :],
        ):
            path.write_bytes(content)
            read = Journal(tmp_path).read("v")
            if read is not None:  # a blank behind the header, say
                unseen += 1
                assert read.keys() == kept.keys()
                assert all(
                    read[name].dtype == kept[name].dtype and torch.equal(read[name], kept[name]) for name in kept
                )
    assert unseen < 10


@pytest.mark.parametrize("place", ["save_file", "os.replace"])
def test_a_write_that_fails_leaves_the_earlier_file(tmp_path, monkeypatch, place):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = Journal(tmp_path, "a")
    kept.write("v", {"x": torch.ones(2)})
    monkeypatch.setattr(f"sktda.model.sealed.{place}", full)
    with pytest.raises(
        OSError, match=r"v\.safetensors: No space left on device; free some space or name another folder"
    ):
        kept.write("v", {"x": torch.zeros(2)})
    assert kept.read("v")["x"].tolist() == [1, 1]
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_a_folder_that_another_fit_has_cleared_is_made_again(tmp_path, monkeypatch):
    kept, save = Journal(tmp_path, "a"), journal.sealed.save

    def late(path, *rest):
        monkeypatch.setattr(journal.sealed, "save", save)
        kept.clear()
        save(path, *rest)

    monkeypatch.setattr(journal.sealed, "save", late)
    kept.write("v", {"x": torch.ones(2)})
    assert kept.read("v")["x"].tolist() == [1, 1]


@pytest.mark.parametrize("where", ["", "below"])
def test_a_work_dir_that_is_no_folder_is_said_before_the_training(tmp_path, where):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"work_dir .*file.* cannot be written: .*; give another folder, or None"):
        TracIn(work_dir=tmp_path / "file" / where).fit(X, None)


def test_digests_tell_values_shapes_and_types_apart():
    values = [torch.zeros(2), torch.zeros(1, 2), torch.zeros(2, dtype=torch.float64), torch.ones(2), b"x", "y"]
    assert len({digest([value]) for value in values}) == len(values)


METHODS = [
    TracIn(),
    InnerProduct(),
    Influence(curvature="ekfac", random_state=0),
]


@pytest.mark.parametrize(
    ("method", "validation"),
    [(METHODS[0], True), (METHODS[1], False), (METHODS[2], False), (METHODS[2], True)],
    ids=lambda each: type(each).__name__ if each in METHODS else str(each),
)
def test_shards_change_nothing_and_are_gone_after_the_fit(method, validation, net, tmp_path):
    val = {"X_val": X[:50], "y_val": Y[:50]} if validation else {}
    method.set_params(estimator=FrozenEstimator(net), work_dir=None)
    plain = method.fit(X, Y, **val).scores_
    np.testing.assert_array_equal(method.set_params(work_dir=tmp_path).fit(X, Y, **val).scores_, plain)
    assert list(tmp_path.iterdir()) == []
    assert len(np.unique(plain)) > 600


def test_another_model_other_rows_and_other_parameters_have_other_keys(net, tmp_path):
    def key(**params):
        method = Influence(FrozenEstimator(params.pop("net", net)), work_dir=tmp_path, objective=None)
        rows = params.pop("rows", X)
        method.set_params(**params).fit(rows, Y[: len(rows)])
        return method._journal(method._fitted()).folder.name

    other = copy.deepcopy(net)
    with torch.no_grad():
        other.module_[0].bias[0] += 1e-3
    keys = [key(), key(damping=0.1), key(rows=X[:600]), key(rows=X[::-1].copy()), key(net=other)]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
    # an objective is in the digest of its direction; the repr of a function differs from process to process
    assert key(objective=lambda predict, X, y: predict(X).sum()) == keys[0]


def recorded(**options):
    return NeuralNetClassifier(
        nn.Linear(6, 2), criterion=nn.CrossEntropyLoss, optimizer__momentum=0.5, max_epochs=2, verbose=0,
        train_split=None, **options
    )  # fmt: skip


@pytest.mark.parametrize("method", [TracIn, SGDInfluence, Source, DiffIn, InnerProduct], ids=lambda kind: kind.__name__)
def test_a_fit_that_trains_goes_on_where_it_was_stopped(method, tmp_path, monkeypatch):
    """The training is done again, with another identity but the same course."""
    options = {"X_val": X[:5], "y_val": Y[:5]}
    estimator, rows = recorded(), slice(0, 300)
    written, write, read, found = [], Journal.write, Journal.read, []

    def once(self, name, tensors):
        write(self, name, tensors)
        if tmp_path in self.folder.parents:  # no shelf of Source
            written.append(name)
            raise KeyboardInterrupt

    def reading(self, name):
        kept = read(self, name)
        found.extend([name] if kept is not None else [])
        return kept

    def fit(work_dir):
        return method(estimator, work_dir=work_dir, random_state=0).fit(X[rows], Y[rows], **options).scores_

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "write", once)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path)
    monkeypatch.setattr(Journal, "read", reading)
    np.testing.assert_array_equal(fit(tmp_path), fit(None))
    assert written[0] in found
    assert list(tmp_path.iterdir()) == []


FIT = """
import sys, time
import numpy as np, torch
from torch import nn
from skorch import NeuralNetClassifier
from sklearn.frozen import FrozenEstimator
from sktda.attribution import Influence
from sktda.engine import journal


def fit(work_dir):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(700, 6)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    torch.manual_seed(0)
    net = NeuralNetClassifier(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)),
                              criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0).fit(X, y)
    method = Influence(FrozenEstimator(net), work_dir=work_dir, random_state=0)
    return method.fit(X, y, X_val=X[:50], y_val=y[:50]).scores_
"""
SLOWLY = """
torch.set_num_threads(1)
journal.SHARD, journal.PAUSE = 100, 0.0
write = journal.Journal.write
journal.Journal.write = lambda self, *args: (write(self, *args), time.sleep(0.2))
fit(sys.argv[1])
"""


def killed(names, work):
    """A process that fits is killed as it has written the third part of the values."""
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", FIT + SLOWLY, str(work)])
    deadline = time.monotonic() + 100
    while not list(work.rglob("values*-000002.safetensors")):
        assert process.poll() is None, "the fit ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def interrupted(names, work):
    """The fit in this process is stopped as it has written the first sum of the factors."""
    write = Journal.write

    def once(self, name, tensors):
        write(self, name, tensors)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(Journal, "write", once)
        with pytest.raises(KeyboardInterrupt):
            names["fit"](work)
    assert [path.name for path in work.rglob("*.safetensors")] == ["factors.safetensors"]


@pytest.mark.parametrize("stopped", [killed, interrupted])
def test_a_fit_stopped_half_way_ends_with_the_same_scores(stopped, tmp_path):
    names = {}
    exec(FIT, names)  # the same here as in the process that is killed
    work = tmp_path / "work"
    stopped(names, work)
    found, own = [], Journal.read

    def read(self, name):
        kept = own(self, name)
        found.append(kept is not None)
        return kept

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(Journal, "read", read)
        again = names["fit"](work)
    assert any(found), "the fit began anew"
    with torch.random.fork_rng():
        np.testing.assert_array_equal(again, names["fit"](tmp_path / "whole"))


def test_a_progress_bar_shows_the_passes(net, capsys):
    Influence(FrozenEstimator(net)).set_callbacks(ProgressBar()).fit(X, Y)
    shown = capsys.readouterr().out
    for name in ("factors", "eigenvalues", "self"):
        assert name in shown


def test_the_estimate_is_near_the_fit_and_needs_a_frozen_model(net):
    method = TracIn(FrozenEstimator(net))
    cost = method.estimate(X, Y)
    start = time.perf_counter()
    method.fit(X, Y)
    assert cost["rows"] == 700
    assert 0 < cost["seconds"] < 30 * (time.perf_counter() - start) + 1
    assert cost["bytes"] > 4 * sum(value.numel() for value in net.module_.parameters())
    with pytest.raises(ValueError, match="FrozenEstimator"):
        TracIn(net).estimate(X, Y)
