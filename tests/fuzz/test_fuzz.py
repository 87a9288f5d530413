"""Whatever is given: right scores or one clear error, and nothing of the caller's is changed.

`make fuzz` tries for an hour what `make test` tries for seconds, always the same cases there.
"""

import copy
import random
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from sktda import InfluencePruner, NoisyLabelDetector, PruningWarning
from sktda.attribution import ComplexityGap, Influence, KernelForest, KNNShapley, SelfConfidence
from sktda.cleaning.base import NothingToLearnWarning
from sktda.cli.commands import app

N, PLANTED = 40, 7
METHODS = {
    "gap": lambda: ComplexityGap(),
    "forest": lambda: KernelForest(n_estimators=20),
    "confidence": lambda: SelfConfidence(LogisticRegression(), cv=4),
    "influence": lambda: Influence(LogisticRegression(), objective="self"),
    "shapley": lambda: KNNShapley(),
    "detector": lambda: NoisyLabelDetector(KernelForest(n_estimators=20)),
    "pruner": lambda: InfluencePruner(LogisticRegression(), ComplexityGap(), prune_ratio=0.1, guard=False),
}
OUR_WARNINGS = (UserWarning, PruningWarning, NothingToLearnWarning, ConvergenceWarning)
ONE_SENTENCE = (ValueError, TypeError)


def table(seed):
    """(X (N, 3), y of two classes): well apart, but for one row with the other one's label."""
    rng = np.random.default_rng(seed)
    y = np.arange(N) % 2
    X = rng.normal(size=(N, 3)) + 6 * y[:, None]
    y[PLANTED] = 1 - y[PLANTED]
    return X, y


cells = st.sampled_from(["plain", "nan", "inf", "huge", "tiny", "offset", "constant", "text", "whole", "negative zero"])
scales = st.sampled_from([1.0, 1e-300, 1e-30, 1e-12, 1e12, 1e30, 1e160, 1e300])
containers = st.sampled_from(
    ["array", "fortran", "float32", "object", "list", "frame", "nullable", "category", "sparse", "strided"]
)
labels = st.sampled_from(
    ["int", "text", "bool", "object", "float", "series", "category", "column", "three", "one class", "missing", "big"]
)
weights = st.sampled_from([None, "ones", "random", "zeros", "tiny", "huge", "negative", "nan", "short", "some zeros"])


@np.errstate(over="ignore")
def single(X):
    """X in float32, with infinity for what is beyond it."""
    return X.astype(np.float32)


def features(X, kind, scale, cell):
    """X in a container, one column scaled, one cell or column changed."""
    X = X.copy()
    X[:, 1] *= scale
    if cell == "offset":
        X[:, 2] += 1e9
    elif cell == "constant":
        X[:, 2] = 5.0
    elif cell == "whole":
        X = np.round(X)
    elif cell == "negative zero":
        X[:, 2] = -0.0
    elif cell in ("nan", "inf", "huge", "tiny"):
        X[3, 0] = {"nan": np.nan, "inf": np.inf, "huge": 1e200, "tiny": 1e-320}[cell]
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    if cell == "text":
        frame["c"] = np.where(frame["c"] > 3, "much", "little")
    if cell == "text" and kind not in ("frame", "category"):
        return frame.to_numpy(dtype=object)
    return {
        "array": lambda: X,
        "fortran": lambda: np.asfortranarray(X),
        "float32": lambda: single(X),
        "object": lambda: X.astype(object),
        "list": lambda: X.tolist(),
        "frame": lambda: frame.set_index(np.arange(N)[::-1]),
        "nullable": lambda: frame.convert_dtypes(),
        "category": lambda: frame.assign(c=frame["c"].astype("category")),
        "sparse": lambda: sp.csr_array(X),
        "strided": lambda: np.repeat(X, 2, axis=0)[::2],
    }[kind]()


def target(y, kind):
    """y in another kind."""
    y = y.copy()
    if kind == "three":
        y[::5] = 2
    if kind == "one class":
        y[:] = 1
    return {
        "text": lambda: np.where(y == 1, "dog", "cat"),
        "bool": lambda: y == 1,
        "object": lambda: np.where(y == 1, "dog", "cat").astype(object),
        "float": lambda: y.astype(float),
        "series": lambda: pd.Series(y, index=np.arange(N)[::-1]),
        "category": lambda: pd.Categorical(np.where(y == 1, "dog", "cat"), categories=["dog", "cat", "cow"]),
        "column": lambda: y[:, None],
        "missing": lambda: np.where(np.arange(N) == 5, None, y.astype(object)),
        "big": lambda: y * 2**60,
    }.get(kind, lambda: y)()


def weight(kind, seed):
    """Weights of the rows."""
    w = np.random.default_rng(seed).uniform(0.5, 2, N)
    return {
        None: None,
        "ones": np.ones(N),
        "random": w,
        "zeros": np.zeros(N),
        "tiny": w * 1e-310,
        "huge": w * 1e300,
        "negative": -w,
        "nan": np.where(np.arange(N) == 4, np.nan, w),
        "short": w[:-1],
        "some zeros": np.where(np.arange(N) % 10 == 3, 0.0, w),
    }[kind]


def states():
    """What a fit must leave as it is."""
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        random.getstate(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        np.geterr(),
    )


def same(a, b):
    """Whether two containers hold the same."""
    if a is None or b is None:
        return a is b
    if sp.issparse(a):
        return all(
            np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in ("data", "indices", "indptr")
        )
    if isinstance(a, pd.DataFrame | pd.Series):
        return bool(a.equals(b))
    return np.array_equal(np.asarray(a, dtype=object).astype(str), np.asarray(b, dtype=object).astype(str))


@pytest.mark.filterwarnings("error")
@given(
    method=st.sampled_from(list(METHODS)),
    seed=st.integers(0, 3),
    kind=containers,
    scale=scales,
    cell=cells,
    label=labels,
    w=weights,
)
def test_right_scores_or_one_clear_error(method, seed, kind, scale, cell, label, w):
    X, y = table(seed)
    X, y, w_given = features(X, kind, scale, cell), target(y, label), weight(w, seed)
    before, kept = states(), copy.deepcopy((X, y, w_given))
    estimator = METHODS[method]()
    needs_validation = method == "shapley"
    arguments = {} if w_given is None else {"sample_weight": w_given}
    if needs_validation:
        X_val, y_val = table(seed + 10)
        arguments |= {"X_val": X_val, "y_val": target(y_val, label)}
    try:
        with warnings.catch_warnings():
            for category in OUR_WARNINGS:
                warnings.simplefilter("ignore", category)
            estimator.fit(X, y, **arguments)
        error = None
    except ONE_SENTENCE as found:
        error = found
    assert states() == before
    assert all(map(same, (X, y, w_given), kept)), "the caller's rows were changed"
    if error is not None:
        text = str(error)
        assert text
        assert "Traceback" not in text
        return
    scores = estimator.scores_
    assert scores.shape == (N,)
    assert np.isfinite(scores).all()
    fair = cell in ("plain", "constant", "negative zero") and label not in ("three", "one class", "missing")
    if cell == "offset":  # a model that scales nothing fails at it, alone as well
        fair = method in ("gap", "forest", "detector") and label not in ("three", "one class", "missing")
    if fair and w in (None, "ones") and method != "pruner":
        assert (scores < scores[PLANTED]).sum() < N // 4  # in the worst part


ROWS = pd.DataFrame(np.round(table(0)[0], 2), columns=["width", "height", "age"]).assign(
    kind=np.where(table(0)[1] == 1, "dog", "cat"), remark='some, "text"', day="2024-03-01"
)
FILE = ROWS.to_csv(index=False).encode()
pieces = st.sampled_from(
    [b"", b",", b'"', b"\n", b"\r\n", b"\x00", b"\xff\xfe", b";", b"\t", b"nan", b"1e999", b"-", b"\xe9", b"=1+1", b" "]
)
changes = st.lists(st.tuples(st.integers(0, len(FILE)), st.integers(0, 40), pieces), max_size=4)


@pytest.mark.usefixtures("few_trees")
@given(changes=changes, whole=st.sampled_from([None, "utf-16", "latin-1", "reversed", "cut", "twice", "no header"]))
def test_a_damaged_file_is_scored_or_one_sentence(tmp_path_factory, changes, whole):
    content = bytearray(FILE)
    for at, length, piece in changes:
        content[at : at + length] = piece
    content = {
        "utf-16": lambda: content.decode("latin-1").encode("utf-16"),
        "latin-1": lambda: content.replace(b"some", "ñandú".encode("latin-1")),
        "reversed": lambda: b"\n".join(content.split(b"\n")[::-1]),
        "cut": lambda: content[: len(content) // 2],
        "twice": lambda: content + content,
        "no header": lambda: content.partition(b"\n")[2],
    }.get(whole, lambda: content)()
    folder = tmp_path_factory.mktemp("files")
    given_file, out = folder / "rows.csv", folder / "scores.csv"
    given_file.write_bytes(content)
    result = CliRunner().invoke(app, ["score", str(given_file), "--target", "kind", "--out", str(out)])
    assert given_file.read_bytes() == bytes(content)
    assert isinstance(result.exception, SystemExit | None), repr(result.exception)
    assert (result.exit_code == 0) == out.exists()
    assert sorted(each.name for each in folder.iterdir()) == (
        ["rows.csv", "scores.csv"] if out.exists() else ["rows.csv"]
    )
    assert "Traceback" not in result.output
    if result.exit_code:
        assert result.output.strip()
