"""What `memory` gives back: what was kept, or what is computed again."""

import pickle

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from sktda.cleaning.remembered import fit_attributor

X = np.random.default_rng(0).normal(size=(30, 2))
Y = (X[:, 0] > 0).astype(int)


class Distances(BaseEstimator):
    """Fits are counted in the class, which no cache keeps."""

    count = 0

    def __init__(self, power=1.0):
        self.power = power

    def fit(self, X, y):
        type(self).count += 1
        self.scores_ = np.abs(X[:, 0]) ** self.power
        self.kept_ = [np.asfortranarray(X), "text", {"y": y[::2]}]
        return self


def fit(memory, power=1.0):
    found = fit_attributor(Distances(power), X, Y, {}, str(memory))
    whole = Distances(power).fit(X, Y)
    np.testing.assert_array_equal(found.scores_, whole.scores_)
    np.testing.assert_array_equal(found.kept_[0], X)
    assert found.kept_[1] == "text"
    np.testing.assert_array_equal(found.kept_[2]["y"], Y[::2])
    return found


def fits(memory, **options):
    before = Distances.count
    fit(memory, **options)
    return Distances.count - before - 1  # one is to compare with


def entry(memory):
    (path,) = memory.rglob("output.pkl")
    return path


def test_an_entry_is_read(tmp_path):
    assert [fits(tmp_path), fits(tmp_path)] == [1, 0]
    found = fit(tmp_path)
    found.scores_[0] = 1  # arrays can be written to, as those of a fit
    assert [fits(tmp_path), fits(tmp_path, power=2.0)] == [0, 1]


@pytest.mark.parametrize("where", ["output.pkl", "metadata.json"])
def test_a_damaged_entry_is_computed_again(tmp_path, where):
    fit(tmp_path)
    (path,) = tmp_path.rglob(where)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for kind in ("flip", "cut", "lost", "swapped") * 10:
        start, stop = sorted(rng.integers(0, len(whole), size=2))
        content = {
            "flip": whole[:start] + bytes([whole[start] ^ 1 << rng.integers(8)]) + whole[start + 1 :],
            "cut": whole[:start],
            "lost": whole[:start] + whole[stop:],
            "swapped": whole[:start] + whole[start:stop][::-1] + whole[stop:],
        }[kind]
        path.write_bytes(content)
        fit(tmp_path)
        assert fits(tmp_path) == 0  # what was computed again has taken its place


@pytest.mark.parametrize("content", [b"# first line: 1\xff", b"# first line: x"])
def test_a_damaged_folder_is_one_error(tmp_path, monkeypatch, content):
    fit(tmp_path)
    (folder,) = tmp_path.rglob("_fit_attributor")
    (folder / "func_code.py").write_bytes(content)
    monkeypatch.setattr("joblib.memory._FUNCTION_HASHES", {})  # as in a new process
    with pytest.raises(ValueError, match=r"the folder of memory is damaged .* delete it, or give another one"):
        fit(tmp_path)


@pytest.mark.parametrize("foreign", [{"scores_": np.zeros(30)}, None, Distances(), "another key"])
def test_a_foreign_entry_is_computed_again_and_said(tmp_path, foreign):
    fit(tmp_path / "memory")
    content = pickle.dumps(foreign)
    if isinstance(foreign, str):
        fit(tmp_path / "other", power=3.0)
        content = entry(tmp_path / "other").read_bytes()
    entry(tmp_path / "memory").write_bytes(content)
    with pytest.warns(UserWarning, match="an entry of memory is not that of Distances on these rows"):
        assert fits(tmp_path / "memory") == 1
    assert fits(tmp_path / "memory") == 0
