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
from sktda.data import UnitRows, check_finite, encode_target, for_blocks, infer_task, row_index

CPU = torch.device("cpu")


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
    ("X", "scale"),
    [
        (np.random.default_rng(0).integers(0, 256, (20, 30)), "unit"),
        (np.random.default_rng(0).normal(size=(20, 3)), "standard"),
        (np.column_stack([np.arange(20), np.arange(20) * 1000.0, np.arange(20) * 1e5]), "standard"),
        (np.random.default_rng(0).normal(size=(20, 3, 3)), "unit"),
        (sp.random(20, 5, density=0.2, format="csr"), "unit"),
    ],
)
def test_scale_is_chosen_by_whether_columns_share_a_unit(X, scale):
    assert UnitRows(X).scale == scale


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
