"""Trajectory: files, fingerprints of rows and modules, and refusal of everything foreign."""

import copy

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset
from torch import nn
from torch.utils.data import Subset, TensorDataset

from sktda.model.fingerprint import changes_between_reads, row_fingerprints
from sktda.model.recorder import TrajectoryRecorder, find_trajectory
from sktda.model.trajectory import Trajectory
from sktda.model.trajectory_files import ARRAYS, OPTIONAL_ARRAYS, SCALARS
from tests.in_turn import in_turn
from tests.model.nets import Mlp, Tied, make_net, record, recorder_of, rows


class Items(torch.utils.data.Dataset):
    """Rows that only come one by one."""

    def __init__(self, X, y):
        self.X_, self.y_ = X, y

    def __len__(self):
        return len(self.X_)

    def __getitem__(self, i):
        return self.X_[i], self.y_[i]


def same(one, other):
    for name in ARRAYS + OPTIONAL_ARRAYS:
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None and theirs is None) or (mine.dtype == theirs.dtype and np.array_equal(mine, theirs)), name
    for name in SCALARS:
        assert getattr(one, name) == getattr(other, name) or name == "identity", name
    for c in range(len(one)):
        mine, theirs = one.state(c), other.state(c)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    return True


OPTIONS = {"steps": True, "optimizer_state": True, "net_options": {"optimizer__momentum": 0.5, "train_split": None}}


@pytest.mark.parametrize("module", [Mlp, Tied])
def test_save_and_load_give_back_everything(tmp_path, module):
    X, y = rows()
    net, trajectory = record(
        X, y, steps=True, optimizer_state=True, net_options={"module": module, "optimizer__momentum": 0.5}
    )
    trajectory.save(tmp_path / "one")
    loaded = Trajectory.load(tmp_path / "one")
    assert same(trajectory, loaded)
    assert loaded.identity == trajectory.identity
    mine, theirs = trajectory.optimizer_state(-1), loaded.optimizer_state(-1)
    assert mine.keys() == theirs.keys()
    assert torch.equal(mine["first.bias"]["momentum_buffer"], theirs["first.bias"]["momentum_buffer"])
    assert loaded.initial_state().keys() == trajectory.initial_state().keys()
    net.module_.load_state_dict(loaded.state(0))
    loaded.check_module(net.module_)
    loaded.save(tmp_path / "two")  # from files to files
    assert same(trajectory, Trajectory.load(tmp_path / "two"))
    assert {path.suffix for path in (tmp_path / "two").iterdir()} == {".safetensors"}
    with pytest.raises(FileExistsError, match="exists already"):
        trajectory.save(tmp_path / "two")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        trajectory.save(tmp_path / "no" / "where")


def test_a_folder_holds_what_memory_holds_and_goes_on(tmp_path):
    X, y = rows()
    _, memory = record(X, y, **OPTIONS)
    net, disk = record(X, y, path=tmp_path / "run", **OPTIONS)
    assert same(memory, disk)
    assert same(disk, Trajectory.load(tmp_path / "run"))
    assert find_trajectory(net) is disk
    disk.save(tmp_path / "run")  # where it is already
    net.partial_fit(X, y)
    assert Trajectory.load(tmp_path / "run").n_steps == 48
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_two_trainings_do_not_mix_in_one_folder(tmp_path):
    X, y = rows()
    folder = tmp_path / "run"
    net, first = record(X, y, path=folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match=r"run holds another trajectory, and two trainings must not mix"):
        record(X, y, path=folder)
    with pytest.raises(FileExistsError, match="holds another trajectory"):
        net.fit(X, y)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.pt").write_text("x")
    with pytest.raises(FileExistsError, match=r"holds other files \(model\.pt\)"):
        record(X, y, path=other)
    _, second = record(X, y, path=tmp_path / "second", seed=1)
    (folder / "checkpoint-00002.safetensors").write_bytes(
        (tmp_path / "second/checkpoint-00002.safetensors").read_bytes()
    )
    with pytest.raises(ValueError, match="belongs to another trajectory"):
        first.state(1)
    assert second.state(1)


def test_two_copies_of_a_net_do_not_mix_in_one_folder(tmp_path):
    X, y = rows()
    net, _ = record(X, y, path=tmp_path / "run")
    twin = copy.deepcopy(net)
    net.partial_fit(X, y)
    with pytest.raises(FileExistsError, match=r"another training .* writes into the same folder"):
        twin.partial_fit(X, y)


def test_a_training_that_failed_leaves_a_folder_that_says_so(tmp_path):
    X, y = rows()
    with pytest.raises(ValueError, match="optimizer_state=True"):
        record(X, y, path=tmp_path / "run", optimizer_state=True, net_options={"optimizer": torch.optim.LBFGS})
    with pytest.raises(ValueError, match="did not end"):
        Trajectory.load(tmp_path / "run")


def everything(folder):
    """What can be read of a folder."""
    trajectory = Trajectory.load(folder)
    states = [trajectory.initial_state(), *(trajectory.store.read(f"checkpoint-{c + 1:05d}") for c in range(3))]
    arrays = [getattr(trajectory, name) for name in ARRAYS + OPTIONAL_ARRAYS]
    return states, arrays, [getattr(trajectory, name) for name in SCALARS]


def equal(one, other):
    assert [list(state) for state in one[0]] == [list(state) for state in other[0]]
    for mine, theirs in zip(one[0], other[0], strict=True):
        assert all(mine[name].dtype == theirs[name].dtype and torch.equal(mine[name], theirs[name]) for name in mine)
    for mine, theirs in zip(one[1], other[1], strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    assert one[2] == other[2]


def few(X, y, **options):
    return record(
        X, y, steps=True, optimizer_state=True, n_checkpoints=3, net_options=OPTIONS["net_options"], **options
    )


def test_loading_anything_else_is_one_clear_error(tmp_path):
    few(*rows(), path=tmp_path / "run")
    few(*rows(), path=tmp_path / "other")
    folder = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        Trajectory.load(tmp_path / "none")
    before = everything(folder)
    files = sorted(folder.iterdir())
    assert len(files) == 5
    for path in files:
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(FileNotFoundError, match=path.name):
            everything(folder)
        contents = [b"garbage", b"", (tmp_path / "other" / path.name).read_bytes()]
        contents += [each.read_bytes() for each in files if each.exists()]
        for foreign in contents:
            path.write_bytes(foreign)
            with pytest.raises(ValueError, match="run"):
                everything(folder)
        path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sktda.model.trajectory_files.FORMAT", "2")
        with pytest.raises(ValueError, match="has format 3, this version of sktda reads 2; train again"):
            Trajectory.load(folder)
    equal(everything(folder), before)


@pytest.mark.parametrize("name", ["trajectory", "checkpoint-00002", "initial"])
def test_a_damaged_file_is_refused_or_reads_as_it_was_written(tmp_path, name):
    few(*rows(), path=tmp_path / "run")
    before, path = everything(tmp_path / "run"), tmp_path / "run" / f"{name}.safetensors"
    whole, rng, accepted = path.read_bytes(), np.random.default_rng(0), 0
    header = 8 + int.from_bytes(whole[:8], "little")
    for kind in ("flip", "cut", "lost", "swapped", "zeros") * 12:
        start, stop = sorted(rng.integers(0, rng.choice([header, len(whole)]), size=2))
        stop = max(stop, start + 1)
        content = {
            "flip": whole[:start] + bytes([whole[start] ^ 1 << rng.integers(8)]) + whole[start + 1 :],
            "cut": whole[:start],
            "lost": whole[:start] + whole[stop:],
            "swapped": whole[:start] + whole[start:stop][::-1] + whole[stop:],
            "zeros": whole[:start] + bytes(stop - start) + whole[stop:],
        }[kind]
        path.write_bytes(content)
        try:
            found = everything(tmp_path / "run")
        except ValueError as error:
            assert "run" in str(error)  # noqa: PT017
        else:
            accepted += content != whole
            equal(found, before)
    assert accepted < 5


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sktda.model.sealed.save_file", full)
    with pytest.raises(OSError, match="No space left on device; free some space or name another folder"):
        record(*rows(), path=tmp_path / "run")
    with pytest.raises(ValueError, match="did not end"):
        Trajectory.load(tmp_path / "run")


def test_a_trajectory_of_another_model_is_refused():
    _, trajectory = record(*rows())
    trajectory.check_module(Mlp())
    with pytest.raises(ValueError, match=r"'first\.weight' is float32 \(5, 3\) .* float32 \(7, 3\)"):
        trajectory.check_module(Mlp(width=7))
    with pytest.raises(ValueError, match=r"'first\.weight' is float32 \(5, 3\) in the trajectory and float64"):
        trajectory.check_module(Mlp().double())
    with pytest.raises(ValueError, match=r"'last\.weight' is .* missing in the module"):
        trajectory.check_module(nn.ModuleDict({"first": nn.Linear(3, 5)}))
    renamed = Mlp()
    renamed.dropout = nn.Identity()
    with pytest.raises(ValueError, match="'dropout' is a Dropout in the trajectory and a Identity"):
        trajectory.check_module(renamed)


FORMS = {
    "float64": lambda X, y: (X.astype(np.float64), y.astype(np.int32)),
    "tensor": lambda X, y: (torch.tensor(X), torch.tensor(y)),
    "frame": lambda X, y: (pd.DataFrame(X, index=np.arange(len(X))[::-1]), pd.Series(y, index=np.arange(len(X))[::-1])),
    "column y": lambda X, y: (X, y[:, None].astype(float)),
    "list": lambda X, y: (X.tolist(), y.tolist()),
    "sparse": lambda X, y: (sp.csr_matrix(X), y),
    "images": lambda X, y: (X.reshape(len(X), 3, 1), y),
    "skorch dataset": lambda X, y: (Dataset(X, y), None),
    "tensors dataset": lambda X, y: (TensorDataset(torch.tensor(X), torch.tensor(y)), None),
    "items": lambda X, y: (Items(X, y), None),
    "subset": lambda X, y: (Subset(Dataset(np.repeat(X, 2, axis=0), np.repeat(y, 2)), range(0, 2 * len(X), 2)), None),
    "dict": lambda X, y: ({"b": X[:, 1:], "a": X[:, :1]}, y),
    "object": lambda X, y: (X.astype(object), y.astype(object)),
    "fortran": lambda X, y: (np.asfortranarray(X), y),
}


@in_turn("form", FORMS)
def test_the_same_rows_have_the_same_fingerprints_in_every_form(form):
    X, y = rows(600)
    X[3, 1] = -0.0
    expected = row_fingerprints(X, y)
    assert len(set(expected.tolist())) == 600
    np.testing.assert_array_equal(row_fingerprints(*FORMS[form](X, y)), expected)
    some = np.array([5, 599, 5, 0])
    given, target = FORMS[form](X, y)
    np.testing.assert_array_equal(row_fingerprints(given, target, some), expected[some])


def test_fingerprints_see_every_change_and_nothing_else(tmp_path):
    X, y = rows(20)
    base = row_fingerprints(X, y)
    swapped = X[:, [1, 0, 2]]
    for changed in (
        (swapped, y),
        (X + np.float32(1e-3), y),
        (-X, y),
        (X, 1 - y),
        (X, None),
        (X[:, :2], y),
        (y[:, None], X),
    ):
        assert not np.isin(row_fingerprints(*changed), base).any()
    np.testing.assert_array_equal(row_fingerprints(X[::-1], y[::-1]), base[::-1])
    words = np.array(["a", "b", "a"], dtype=object)
    assert len(set(row_fingerprints(np.zeros((3, 1)), words).tolist())) == 2
    np.testing.assert_array_equal(row_fingerprints(words), row_fingerprints(words.astype("U1")))
    mapped = np.memmap(tmp_path / "x", dtype=np.float32, mode="w+", shape=(3000, 300))
    mapped[:] = np.random.default_rng(0).normal(size=mapped.shape)
    whole = row_fingerprints(np.array(mapped))  # several blocks
    np.testing.assert_array_equal(row_fingerprints(mapped), whole)
    np.testing.assert_array_equal(
        np.concatenate([row_fingerprints(mapped[:700]), row_fingerprints(mapped[700:])]), whole
    )
    binary = (np.arange(2**16)[:, None] >> np.arange(16)) & 1  # every 16-bit row: close codes must not collide
    assert len(np.unique(row_fingerprints(binary))) == 2**16
    assert row_fingerprints(np.full((2, 3), np.nan))[0] == row_fingerprints(np.full((2, 3), -np.nan))[1]


def mix(code):
    code = (code ^ (code >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    code = (code ^ (code >> 27)) * 0x94D049BB133111EB % 2**64
    return code ^ (code >> 31)


def one_code(row):
    total = 0
    for j, number in enumerate(row):
        place = mix((j + 1) * 0x9E3779B97F4A7C15 % 2**64)
        value = (int(np.float32(number).view(np.uint32)) + place) * 0xD6E8FEB86659FD93 % 2**64
        total += (value ^ (value >> 32)) * (place | 1)
    return total % 2**64


def test_fingerprints_equal_their_definition_in_whole_numbers():
    """They are saved with a trajectory, so the definition is part of the file format."""
    X, y = rows(5)
    for code, x, label in zip(row_fingerprints(X, y).tolist(), X, y, strict=True):
        assert code == mix(mix((one_code(x) + 0x9E3779B97F4A7C15) % 2**64) ^ mix(one_code([label])))


def test_rows_are_found_in_any_order_and_duplicates_go_in_turn():
    X, y = rows(30)
    X, y = np.concatenate([X, X[:5]]), np.concatenate([y, y[:5]])  # rows 30..34 repeat 0..4
    _, trajectory = record(X, y)
    np.testing.assert_array_equal(trajectory.positions(X, y), np.arange(35))
    some = np.array([34, 7, 7, 12])
    np.testing.assert_array_equal(trajectory.positions(X[some], y[some]), [4, 7, 7, 12])
    np.testing.assert_array_equal(trajectory.positions(X[[0, 0, 0]], y[[0, 0, 0]]), [0, 30, 0])
    trajectory.check_rows(X[::-1].astype(float), y[::-1])
    assert len(trajectory.positions(X[:0], y[:0])) == 0


def test_it_says_which_rows_it_contains_of_equal_ones_the_first():
    X, y = rows(30)
    X, y = np.concatenate([X, X[:2]]), np.concatenate([y, y[:2]])  # 0 and 1 were trained on twice
    _, trajectory = record(X, y)
    other = X + np.float32(1)
    asked = np.concatenate([other[:2], X[[0, 7, 0, 5]], other[2:3], X[[0, 7, 1]]])
    labels = np.concatenate([y[:2], y[[0, 7, 0, 5]], y[2:3], y[[0, 7, 1]]])
    expected = [False, False, True, True, True, True, False, False, False, True]
    found = trajectory.contains(asked, labels)
    assert found.dtype == bool
    assert found.tolist() == expected
    assert trajectory.contains(X[::-1].astype(float), y[::-1]).all()
    assert not trajectory.contains(X, 1 - y).any(), "the label belongs to the row"
    assert trajectory.contains(X[:0], y[:0]).shape == (0,)


def test_rows_that_were_not_trained_on_are_refused():
    X, y = rows(50)
    _, whole = record(X, y)
    other = X.copy()
    other[[4, 9]] += 1
    with pytest.raises(ValueError, match=r"2 of 50 rows are not among the 50 .* the first is row 4; pass the X and y"):
        whole.check_rows(other, y)
    with pytest.raises(ValueError, match="50 of 50 rows"):
        whole.positions(X, 1 - y)
    options = {"train_split": NeuralNetClassifier(Mlp).train_split}  # skorch's default
    _, part = record(X, y, net_options=options)
    with pytest.raises(
        ValueError, match=r"10 of 50 rows .* train_split held out 10 of the 50 rows .* train_split=None"
    ):
        part.check_rows(X, y)
    np.testing.assert_array_equal(part.positions(X[part.rows], y[part.rows]), np.arange(40))


def test_a_dataset_with_random_rows_is_not_recognised_and_says_so():
    class Noisy(Items):
        def __getitem__(self, i):
            return self.X_[i] + np.float32(torch.rand(1).item()), self.y_[i]

    X, y = rows()
    assert changes_between_reads(Subset(Noisy(X, y), [1, 2]))
    assert not changes_between_reads(Items(X, y))
    net = make_net(TrajectoryRecorder()).fit(Noisy(X, y), None)
    trajectory = recorder_of(net).trajectory_
    trajectory.check_rows(X, y)
    for ask in (trajectory.positions, trajectory.contains):
        with pytest.raises(ValueError, match="cannot be recognised"):
            ask(X, y)


def test_what_was_not_recorded_is_asked_for_in_vain():
    _, trajectory = record(*rows())
    with pytest.raises(ValueError, match=r"TrajectoryRecorder\(steps=True\)"):
        trajectory.step_rows(0)
    with pytest.raises(ValueError, match=r"TrajectoryRecorder\(optimizer_state=True\)"):
        trajectory.optimizer_state(0)
    with pytest.raises(IndexError, match="checkpoint 6 does not exist: there are 6"):
        trajectory.state(6)
    assert torch.equal(trajectory.state(-6)["last.bias"], trajectory.state(0)["last.bias"])
    assert trajectory.betas is None
    assert np.isfinite(trajectory.losses).all()
