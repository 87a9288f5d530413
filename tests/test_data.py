"""Input handling: tasks, targets, finite checks, scaled rows, blocks that halve."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktda import InfluencePruner, NoisyLabelDetector
from sktda.attribution import ComplexityGap
from sktda.data import check_finite, encode_target, infer_task, row_index
from sktda.devices import for_blocks
from sktda.engine.unit_rows import UnitRows
from tests.in_turn import in_turn

CPU = torch.device("cpu")


@in_turn(
    ("y", "task"),
    [
        (["a", "b", "a"], "classification"),
        ([True, False, True], "classification"),
        ([0, 1, 2], "classification"),
        ([0.0, 1.0, 1.0], "classification"),
        ([0.5, 1.0, 1.0], "regression"),
        (np.arange(300), "regression"),
        (np.arange(300) % 20, "classification"),
    ],
)
def test_task_follows_from_the_target(y, task):
    assert infer_task(np.array(y)) == task


def test_targets_become_codes_and_keep_their_classes():
    task, codes, classes = encode_target(pd.Series(["b", "a", "b"]))
    assert (task, codes.tolist(), classes.tolist()) == ("classification", [1, 0, 1], ["a", "b"])
    task, values, classes = encode_target([1, 2, 4], "regression")
    assert (task, values.tolist(), classes) == ("regression", [1.0, 2.0, 4.0], None)


@in_turn(
    ("y", "task", "message"),
    [
        (["a", "a"], "auto", "1 class"),
        ([0.5, 1.0], "classification", "Unknown label type"),
        (["a", "b"], "regression", "needs numbers"),
        ([0.0, np.nan], "auto", "NaN"),
        ([0, 1], "both", "task='both'"),
        ([[0, 1], [1, 0]], "auto", "1d array"),
    ],
)
def test_bad_targets_are_named(y, task, message):
    with pytest.raises(ValueError, match=message):
        encode_target(np.array(y), task)


def test_finite_check_names_the_column_by_the_users_name():
    X = np.array([[0.0, 1.0], [np.nan, 2.0], [np.nan, 3.0]])
    with pytest.raises(ValueError, match=r"NaN: column 'age' has 2 values .* first in row 1 \(1 columns"):
        check_finite(X, np.array(["age", "height"]))
    check_finite(np.array([[1, 2]]))
    with pytest.raises(ValueError, match="column 1"):
        check_finite(sp.csr_matrix([[0.0, np.inf]]))


def test_rows_have_length_one_and_zero_rows_stay_zero():
    X = np.array([[3.0, 4.0], [0.0, 0.0], [1e200, 1e200], [1e-200, 0.0]])
    block = UnitRows(X, "unit").block(slice(0, 4), torch.float64, CPU)
    np.testing.assert_allclose(block, [[0.6, 0.8], [0, 0], [0.5**0.5, 0.5**0.5], [1, 0]], rtol=1e-12)


def test_standard_scale_handles_constant_columns_and_large_offsets():
    X = np.array([[1e9, 5.0, 0.1], [1e9 + 1, 5.0, 0.1], [1e9 + 2, 5.0, 0.1]])
    rows = UnitRows(X, "standard")
    np.testing.assert_allclose(rows.spread, [np.sqrt(2 / 3), 1, 1])
    block = rows.block(slice(0, 3), torch.float64, CPU)
    np.testing.assert_allclose(block[1], [0, 0, 0, 1], atol=1e-12)


def pixels(n=60):
    """Bright blots on a dark ground, (n, 6, 6)."""
    rng = np.random.default_rng(0)
    return np.round(255 * rng.beta(0.4, 1.2, size=(n, 6, 6)))


def words(n=80):
    return np.random.default_rng(0).poisson(0.05, (n, 200))


RNG = np.random.default_rng(0)
TABLES = {
    "images": (pixels(), "unit"),
    "bytes": (pixels().reshape(60, 36).astype(np.uint8), "unit"),
    "word counts": (words(), "unit"),
    "one-hot": (np.eye(40)[RNG.integers(40, size=300)], "unit"),
    "one column": (RNG.integers(0, 101, (50, 1)), "standard"),
    "two columns": (RNG.random((50, 2)), "standard"),
    "marks": (RNG.integers(0, 101, (200, 3)), "standard"),
    "many marks": (RNG.normal(65, 15, (200, 40)).clip(0, 100), "standard"),
    "years": (RNG.integers(1950, 2020, (50, 30)), "standard"),
    "kelvin": (RNG.normal(290, 10, (50, 60)), "standard"),
    "other units": (RNG.exponential(size=(200, 30)) * 10.0 ** np.arange(30), "standard"),
    "one-hot and an income": (
        np.column_stack([np.eye(40)[RNG.integers(40, size=99)], RNG.random(99) * 1e5]),
        "standard",
    ),
    "one absurd value": (np.vstack([words(), np.r_[1e160, np.zeros(199)]]), "standard"),
    "constant": (np.full((20, 30), 7.0), "standard"),
    "zeros": (np.zeros((20, 30)), "standard"),
}


@in_turn("name", TABLES)
def test_columns_alone_tell_what_shares_a_unit_in_any_container_order_and_unit(name):
    X, scale = TABLES[name]
    flat = X.reshape(len(X), -1)
    for same in (X, flat, sp.csr_matrix(flat), sp.csr_array(flat), flat[::-1], flat * 1000.0, flat[:, None, :]):
        assert UnitRows(same).scale == scale


@in_turn("name", [name for name in TABLES if name != "one absurd value"])
def test_sparse_and_dense_columns_have_the_same_moments(name):
    X = TABLES[name][0].reshape(len(TABLES[name][0]), -1).astype(float)
    dense, sparse = UnitRows(X, "standard"), UnitRows(sp.csr_matrix(X), "standard")
    np.testing.assert_allclose(dense.mean, X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(dense.spread, np.where(X.std(axis=0) > 0, X.std(axis=0), 1), rtol=1e-9)
    np.testing.assert_allclose(sparse.mean, dense.mean, rtol=1e-12)
    np.testing.assert_allclose(sparse.spread, dense.spread, rtol=1e-12)


def test_a_sparse_matrix_with_cells_stored_twice_is_read_and_not_changed():
    X = sp.csr_matrix((np.array([1.0, 2.0, 5.0]), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    np.testing.assert_allclose(UnitRows(X, "standard").mean, [1.5, 2.5])
    assert X.nnz == 3


@pytest.mark.parametrize("scale", ["standard", "unit"])
@pytest.mark.parametrize("factor", [1e-310, 1e-200, 1e-13, 1.0, 1e160, 1e307])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_do_not_depend_on_the_size_of_the_numbers(scale, factor, dtype):
    X = np.round(np.random.default_rng(0).normal(size=(20, 3)), 3)
    blocks = [UnitRows(X * f, scale).block(slice(0, 20), dtype, CPU) for f in (1.0, factor)]
    torch.testing.assert_close(blocks[1], blocks[0], rtol=1e-3 if factor < 1e-300 else 1e-6, atol=1e-6)


def test_columns_far_from_zero_keep_their_digits_in_any_container():
    X = np.round(np.random.default_rng(0).normal(size=(50, 3)) * 2**20) / 2**20
    near = UnitRows(X, "standard").block(slice(0, 50), torch.float64, CPU)
    for far in (X + 2.0**28, sp.csr_matrix(X + 2.0**28)):
        torch.testing.assert_close(
            UnitRows(far, "standard").block(slice(0, 50), torch.float64, CPU), near, atol=1e-9, rtol=0
        )


def test_one_absurd_cell_leaves_the_other_columns_alone():
    X = np.random.default_rng(0).normal(size=(30, 3))
    spoilt = X.copy()
    spoilt[4, 2] = 1e160
    rows, clean = (UnitRows(values, "standard") for values in (spoilt, X))
    assert torch.isfinite(rows.block(slice(0, 30), torch.float32, CPU)).all()
    np.testing.assert_allclose(rows.spread[:2], clean.spread[:2])


def test_rescaled_rows_equal_rows_of_that_scale():
    X = np.random.default_rng(0).normal(size=(30, 3))
    for start, scale in (("unit", "standard"), ("standard", "unit")):
        changed = UnitRows(X, start).rescaled(scale).block(slice(0, 30), torch.float64, CPU)
        torch.testing.assert_close(changed, UnitRows(X, scale).block(slice(0, 30), torch.float64, CPU))


def test_blocks_halve_when_the_device_is_out_of_memory_and_every_row_is_visited_once():
    seen = []

    def work(rows):
        if rows.stop - rows.start > 3:
            raise torch.OutOfMemoryError("simulated")
        seen.extend(range(rows.start, rows.stop))

    for_blocks(20, 16, work)
    assert seen == list(range(20))


def test_a_single_row_that_does_not_fit_is_an_error():
    def work(rows):
        raise torch.OutOfMemoryError("simulated")

    with pytest.raises(torch.OutOfMemoryError):
        for_blocks(4, 4, work)


def test_index_of_X_comes_before_that_of_y():
    frame, series = pd.DataFrame({"a": [1, 2]}, index=["p", "q"]), pd.Series([0, 1], index=["r", "s"])
    assert list(row_index(frame, series)) == ["p", "q"]
    assert list(row_index(frame.to_numpy(), series)) == ["r", "s"]
    assert row_index([1, 2], [0, 1]) is None


@pytest.mark.parametrize(
    "texts", [["red apple", "blue car"] * 5, np.array(["red apple", "blue car"] * 5)], ids=["list", "array"]
)
def test_texts_are_told_what_turns_them_into_numbers(texts):
    with pytest.raises(ValueError, match=r"X holds texts; turn them into numbers first, e\.g\. with TfidfVectorizer"):
        NoisyLabelDetector().fit(texts, [0, 1] * 5)


def test_several_labels_per_row_are_told_who_takes_them():
    with pytest.raises(ValueError, match=r"shape \(10, 2\); several labels .* InfluencePruner\(net, EL2N\(\)\)"):
        NoisyLabelDetector().fit(np.eye(10), np.ones((10, 2)))


def test_a_pipeline_is_told_how_to_become_an_attributor():
    pipe = make_pipeline(StandardScaler(), ComplexityGap())
    with pytest.raises(TypeError, match="a Pipeline is no attributor; give it to one that trains an estimator"):
        InfluencePruner(LogisticRegression(), pipe).fit(np.eye(10), [0, 1] * 5)


def test_a_series_of_texts_is_text():
    with pytest.raises(ValueError, match="X holds texts"):
        NoisyLabelDetector().fit(pd.Series(["red apple", "blue car"] * 5), [0, 1] * 5)


@pytest.mark.parametrize("labels", [["b", "a", "b", "c"], ["ä", "", "a", "ä"]])
def test_classes_of_texts_are_sorted_and_coded_as_numpy_does(labels):
    y = np.array(labels, dtype=object)
    _, codes, classes = encode_target(y)
    expected = np.unique(y, return_inverse=True)
    np.testing.assert_array_equal(classes, expected[0])
    np.testing.assert_array_equal(codes, expected[1])
