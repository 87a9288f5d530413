import json
import time
import unicodedata

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

from sktda import NoisyLabelDetector
from sktda.attribution import KernelForest
from sktda.findings import check_classes, inspect, merge_spellings, without_leaks
from sktda.findings.copies import _weights, row_hashes
from sktda.findings.finding import Columns
from sktda.findings.leaks import gives_away, is_copy
from sktda.findings.sentinels import sentinel_values
from sktda.findings.spellings import reader_key
from tests.in_turn import in_turn


def blobs(n=300, k=3, p=4, decimals=3, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k, n)
    return (rng.normal(0, 4, (k, p))[label] + rng.normal(size=(n, p))).round(decimals), label


def findings_of(*args, **kwargs):
    return inspect(*args, **kwargs)[1]


def kinds(findings):
    return [finding.kind for finding in findings]


# ---------------------------------------------------------------- spellings


@in_turn(
    "one",
    [
        ["no", " no", "no ", "no\t", "\u00a0no", "no.", "n\u200bo", "\ufeffno"],
        ["yes", "Yes", "YES", "yES."],
        ["very good", "very  good", "Very\u00a0Good", "very\u202fgood", " VERY GOOD."],
        ["café", unicodedata.normalize("NFD", "café"), "CAFÉ"],
        ["Größe", unicodedata.normalize("NFD", "Größe"), "größe"],
        ["нет", "Нет", "НЕТ", " нет."],
        ["İyi", "iyi", "İYİ", "i\u0307yi"],
        ["ΟΔΟΣ", "οδος"],
        ["可", "可。", "\u3000可"],
        ["12", "１２", "12.0", "12.", " 12.00"],
        ["abc", "ＡＢＣ"],
        ["0", "0.0", "0.", "-0", "+0"],
        ["-1", "\u22121", "-1.0"],
        ["non-smoker", "Non\u2013smoker", "non\u2010smoker"],
        ["don't know", "Don\u2019t know"],
        [True, "true", "TRUE"],
        [1, "1", "1.0"],
    ],
)
def test_what_is_one_to_a_reader_becomes_one(one):
    labels = [*one, one[0], one[0], "other", "other"]
    merged, (finding,) = merge_spellings(np.array(labels, dtype=object))
    assert merged.tolist() == [one[0]] * (len(one) + 2) + ["other"] * 2
    assert finding.rows.tolist() == list(range(1, len(one)))
    assert finding.kind == "spelling"
    assert finding.detail["merged"]


@in_turn(
    ("a", "b"),
    [
        ("Maße", "Masse"),
        ("año", "ano"),
        ("10²", "102"),
        ("①", "1"),
        ("ılık", "ilik"),
        ("1", "10"),
        ("1.5", "15"),
        ("-1", "1"),
        ("C", "C++"),
        ("a b", "ab"),
        ("0", ""),
        ("True", "1"),
        ("A-", "A+"),
    ],
)
def test_what_differs_to_a_reader_stays(a, b):
    y = np.array([a, b] * 10, dtype=object)
    merged, findings = merge_spellings(y)
    assert merged.tolist() == y.tolist()
    assert not findings


def test_the_most_frequent_tidy_spelling_stands_for_all_whatever_the_order():
    y = np.array([" no"] * 5 + ["no"] * 3 + ["no."] * 2 + ["yes"] * 4 + ["Yes"] * 4)
    for order in (np.arange(len(y)), np.random.default_rng(0).permutation(len(y))):
        merged, (finding,) = merge_spellings(y[order])
        assert sorted(merged) == sorted(["no"] * 10 + ["Yes"] * 8)
        assert merged.dtype == y.dtype
        assert sorted(order[finding.rows]) == [*range(5), 8, 9, *range(10, 14)]
    assert finding.message.count("labels that are one to a reader") == 1
    assert "' no' (5 rows) as 'no'" in finding.message
    assert merge_spellings([" a b", " a b", "a b."])[0].tolist() == ["a b."] * 3  # no blank goes into a suggestion
    assert merge_spellings([" x ", " x ", " x."])[0].tolist() == [" x "] * 3  # a text that is there


def test_leading_zeros_are_named_and_left():
    y = np.array(["01"] * 5 + ["1"] * 5 + ["2"] * 5)
    merged, (finding,) = merge_spellings(y)
    assert merged.tolist() == y.tolist()
    assert not finding.detail["merged"]
    assert "'01'" in finding.message
    assert finding.rows.tolist() == list(range(10))


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, pd.DataFrame], ids=["array", "csr", "frame"])
def test_case_of_short_labels_is_their_meaning_where_features_tell_them_apart(container):
    rng = np.random.default_rng(0)
    upper = rng.random(200) < 0.5
    y = np.where(upper, "A", "a")
    y[::3] = "b"
    noise = rng.normal(size=(200, 20))
    shape = noise.copy()
    shape[:, 7] += 2 * upper  # as handwriting does
    merged, (finding,) = merge_spellings(y, container(shape))
    assert merged.tolist() == y.tolist()
    assert "'A'" in finding.message
    assert not finding.detail["merged"]
    merged, (finding,) = merge_spellings(y, container(noise))
    assert len(set(merged)) == 2
    assert finding.detail["merged"]
    assert merge_spellings(y)[0].tolist() == y.tolist()  # nothing to decide by
    both = np.where(np.arange(200) % 2, y, np.char.add(y, "t"))
    (finding,) = merge_spellings(both, container(shape))[1]  # one note of all pairs
    assert sorted(sorted(pair) for pair in finding.detail["spellings"]) == [["A", "a"], ["At", "at"]]
    long = np.array([text * 3 for text in y])
    assert len(set(merge_spellings(long, container(shape))[0])) == 2  # a word is a word


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, float])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix], ids=["array", "csr"])
def test_case_of_short_labels_is_no_meaning_whatever_counts_are_stored_as(container, dtype):
    counts = np.random.default_rng(0).integers(14, 22, size=(400, 4)).astype(dtype)  # squares are beyond 255
    merged, _ = merge_spellings(np.repeat(["a", "A"], 200), container(counts))
    assert len(set(merged)) == 1


@pytest.mark.parametrize("y", [np.array([0, 1, 2]), np.array([0.5, 1.0]), np.array([True, False])])
def test_numbers_and_booleans_have_no_spelling(y):
    merged, findings = merge_spellings(y)
    assert merged is y
    assert not findings


def test_categories_and_series_are_read():
    y = pd.Series(["nope", "Nope ", "yes", "nope"] * 3, dtype="category")
    assert set(merge_spellings(y)[0]) == {"nope", "yes"}


def test_a_reader_key_of_a_key_is_itself():
    for text in ["  A  B. ", "0.50", "İ", "x\u00a0y", "..", ".", "", "e\u0301", "1\u2212"]:
        assert reader_key(reader_key(text)) == reader_key(text)


# ---------------------------------------------------------------- contradictions


def twins(n=300, p=4, pairs=15, decimals=3, seed=0):
    X, y = blobs(n, p=p, decimals=decimals, seed=seed)
    return np.vstack([X, X[:pairs]]), np.append(y, (y[:pairs] + 1) % 3)


CONTAINERS = {
    "array": np.asarray,
    "float32": lambda X: X.astype(np.float32),
    "fortran": np.asfortranarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "frame": pd.DataFrame,
    "sparse frame": lambda X: pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(X)),
    "text cells": lambda X: pd.DataFrame(X).astype(str),
    "list": lambda X: X.tolist(),
    "pictures": lambda X: X.reshape(len(X), 2, -1),
}


@in_turn("container", CONTAINERS)
@in_turn("names", [None, ["low", "mid", "high"]])
def test_equal_rows_with_different_labels_are_found_in_any_container(container, names):
    X, y = twins()
    y = y if names is None else np.array(names)[y]
    (finding,) = findings_of(CONTAINERS[container](X), y)
    assert finding.kind == "contradiction"
    assert finding.rows.tolist() == [*range(15), *range(300, 315)]
    assert [group.tolist() for group in finding.detail["groups"]] == [[i, 300 + i] for i in range(15)]
    assert "15 groups" in finding.message


@pytest.mark.parametrize("p", [2, 3, 10, 100])
def test_contradictions_are_found_at_any_width_and_follow_the_rows(p):
    X, y = twins(p=p)
    order = np.random.default_rng(1).permutation(len(y))
    (finding,) = findings_of(X[order], y[order])
    assert sorted(order[finding.rows]) == [*range(15), *range(300, 315)]


def test_a_majority_leaves_only_the_others():
    X, y = blobs()
    X[[5, 9, 40, 100]] = X[77]
    y[[5, 9, 40, 77, 100]] = [1, 0, 1, 1, 2]
    (finding,) = findings_of(X, y)
    assert finding.rows.tolist() == [9, 100]
    assert finding.detail["groups"][0].tolist() == [5, 9, 40, 77, 100]


def test_equal_rows_with_one_label_or_two_spellings_of_it_are_none():
    X, y = blobs()
    X, y = np.vstack([X, X[:30]]), np.append(y, y[:30])
    assert not findings_of(X, y)
    text = np.array(["low", "mid", "high"])[y].astype(object)
    text[300:] = [" " + label.upper() for label in text[300:]]
    assert kinds(findings_of(X, text)) == ["spelling"]


def test_a_zero_and_an_unknown_cell_equal_themselves():
    X, y = blobs()
    X[4], X[8] = [0.0, np.nan, 1.0, 2.0], [-0.0, -np.nan, 1.0, 2.0]
    y[[4, 8]] = 0, 1
    assert findings_of(X, y)[0].rows.tolist() == [4, 8]


COARSE = {
    "yes or no": lambda rng: rng.integers(0, 2, (400, 8)),
    "one-hot": lambda rng: np.hstack([np.eye(4)[rng.integers(0, 4, 400)] for _ in range(4)]),
    "small whole numbers": lambda rng: np.column_stack([rng.integers(0, k, 300) for k in (60, 12, 8)]),
    "one column": lambda rng: rng.normal(size=(300, 1)).round(1),
    "dependent answers": lambda rng: (rng.normal(size=(400, 1)) + rng.normal(size=(400, 16)) > 0).astype(float),
    "one-hot without a rare level": lambda rng: np.hstack([np.eye(5)[rng.integers(0, 5, 300)][:, :4] for _ in "abc"]),
    "text": lambda rng: pd.DataFrame({name: rng.choice(list("abcd"), 300) for name in "wxyz"}),
    "mostly empty": lambda rng: np.where(rng.random((500, 30)) < 0.01, rng.normal(size=(500, 30)), 0),
}


@in_turn("case", COARSE)
@in_turn("seed", range(3))
def test_rows_that_coincide_by_nature_contradict_nothing(case, seed):
    rng = np.random.default_rng(seed)
    X = COARSE[case](rng)
    assert not findings_of(X, rng.integers(0, 2, len(X)))


def test_a_common_state_contradicts_nothing():
    X, y = blobs(1000)
    X[:30] = 0  # a row of defaults
    assert not findings_of(X, y)
    X[:30] += np.random.default_rng(0).normal(size=(30, 4))
    X[:8] = X[0]
    assert kinds(findings_of(X, y)) == ["contradiction"]


def test_copies_are_seen_beside_coarse_columns():
    X, y = twins()
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 2, (315, 5))
    coarse[300:] = coarse[:15]
    assert kinds(findings_of(np.hstack([coarse, X, coarse == 0]), y)) == ["contradiction"]


def test_hashes_are_those_of_rows_not_of_their_storage():
    rng = np.random.default_rng(0)
    X = np.where(rng.random((200, 30)) < 0.8, 0.0, rng.integers(-3, 4, (200, 30)))
    weights = _weights(30)
    dense, thin = (row_hashes(Columns.read(form), weights) for form in (X, sparse.csr_matrix(X)))
    np.testing.assert_array_equal(dense, thin)
    assert len(np.unique(dense)) == len(np.unique(X, axis=0))
    swapped = X[:, [1, 0, *range(2, 30)]]
    differs = X[:, 0] != X[:, 1]
    assert (row_hashes(Columns.read(swapped), weights) != dense)[differs].all()


def test_many_rows_take_seconds():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200_000, 10)).round(2), rng.integers(0, 5, 200_000)
    X[7], y[[3, 7]] = X[3], [0, 1]
    start = time.perf_counter()
    assert findings_of(X, y)[0].rows.tolist() == [3, 7]
    assert time.perf_counter() - start < 10


# ---------------------------------------------------------------- leaks


def with_column(X, column):
    return np.column_stack([X, column])


@in_turn(
    "code",
    [
        lambda y: y + 7,
        lambda y: np.array([40, -3, 11])[y],
        lambda y: (np.array([0.0, 1.0, 2.0])[y] - 1) / 0.8,
        lambda y: np.array(["l", "m", "h"])[y],
        lambda y: np.array(["l", "m", "h", "l2", "m2", "h2"])[y + 3 * (np.arange(len(y)) % 2)],
        lambda y: 10 * (np.arange(len(y)) % 5) + y,  # a code that no threshold turns into the label
        lambda y: np.where(np.arange(len(y)) % 20 == 0, np.nan, y),
    ],
)
def test_a_column_that_determines_the_label_is_a_leak(code):
    X, y = blobs()
    frame = pd.DataFrame(X, columns=list("abcd")).assign(kind_code=code(y))
    label = np.array(["low", "mid", "high"], dtype=object)[y]
    label[::7] = " " + label[::7]
    findings = findings_of(frame, label)
    assert kinds(findings) == ["leak", "spelling"]
    assert findings[0].column == "kind_code"
    assert "'kind_code'" in findings[0].message
    assert list(without_leaks(frame, findings)) == list("abcd")
    if frame["kind_code"].dtype.kind == "f" or frame["kind_code"].dtype.kind == "i":
        array = findings_of(frame.to_numpy(), label, names=list(frame))
        assert [finding.message for finding in array] == [finding.message for finding in findings]
        np.testing.assert_array_equal(without_leaks(frame.to_numpy(), array), X)


@in_turn("sparse_too", [False, True])
@in_turn("left_out", [0, 1])
@in_turn("k", [3, 4])
def test_a_one_hot_label_is_a_leak(k, left_out, sparse_too):
    X, y = blobs(k=k)
    leaky = np.hstack([X[:, :2], 3.5 * np.eye(k)[y][:, left_out:] - (0 if sparse_too else 1), X[:, 2:]])
    leaky = sparse.csr_matrix(leaky) if sparse_too else leaky
    (finding,) = findings_of(leaky, y)
    assert finding.positions == tuple(range(2, k + 2 - left_out))
    rest = without_leaks(leaky, [finding])
    np.testing.assert_array_equal(rest.toarray() if sparse_too else rest, X)


def test_an_honest_feature_is_no_leak_however_strong():
    rng = np.random.default_rng(0)
    X, y = blobs(600)
    strong = {
        "threshold": y + rng.uniform(0, 0.5, 600),
        "whole numbers by threshold": 10 * y + rng.integers(0, 9, 600),
        "as many values, but exceptions": np.where(rng.random(600) < 0.02, (y + 1) % 3, y),
        "one class alone": (y == 1).astype(float),
        "identifier": rng.permutation(600),
        "purely by chance": np.arange(600) // 2,
        "hardly known": np.where(rng.random(600) < 0.3, np.nan, y),
    }
    for name, column in strong.items():
        assert not findings_of(with_column(X, column), y), name
    few = blobs(24, k=2)
    assert not findings_of(with_column(*few), few[1])  # few rows: chance


def test_chance_in_a_rare_class_is_no_leak():
    rng = np.random.default_rng(0)
    y = np.zeros(1000, dtype=int)
    y[:4] = 1
    code = rng.integers(1, 200, 1000)
    code[:4] = 0
    frame = pd.DataFrame(rng.normal(size=(1000, 3))).assign(code=code.astype(str))
    assert not findings_of(frame, y)
    y[:20], frame.loc[:19, "code"] = 1, "0"
    assert kinds(findings_of(frame, y)) == ["leak"]


def test_one_exception_makes_evidence_of_a_leak():
    y = np.arange(600) % 3
    code = np.array([5.0, 1.0, 9.0])[y]
    assert gives_away(code, y, ordered=True)
    code[77] = 9.0 if y[77] < 2 else 5.0
    assert not gives_away(code, y, ordered=True)


@pytest.mark.parametrize(
    "copy",
    [
        lambda y: 0.92 * y,
        lambda y: 3 - 2e5 * y,
        np.log,
        lambda y: np.round(0.92 * y, 2),
        lambda y: np.where(np.arange(len(y)) % 50 == 0, np.nan, y),
    ],
    ids=["other unit", "other sign", "log", "rounded", "with gaps"],
)
def test_a_copy_of_a_numeric_target_is_a_leak(copy):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    y = np.exp(8 + X.sum(axis=1) + 0.2 * rng.normal(size=400))
    (finding,) = findings_of(pd.DataFrame(X, columns=list("abcd")).assign(price_eur=copy(y)), y, "regression")
    assert (finding.kind, finding.column, finding.positions) == ("leak", "price_eur", (4,))


def test_a_column_that_disagrees_somewhere_is_evidence():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    y = X @ [3.0, 1, 0, 0] + rng.normal(size=400)
    wrong = y.copy()
    wrong[[3, 50, 200]] *= -30
    assert not findings_of(with_column(X, y), wrong, "regression")
    wrong = y.copy()
    wrong[np.argsort(y)[150]] = np.sort(y)[250]  # no absurd value, only another rank
    assert is_copy(y, y)
    assert not is_copy(y, wrong)
    assert not findings_of(with_column(X, y + 0.02 * rng.normal(size=400)), y, "regression")


def test_the_only_column_is_not_left_out():
    y = np.random.default_rng(0).normal(size=100)
    X = 2 * y[:, None]
    findings = findings_of(X, y, "regression")
    assert kinds(findings) == ["leak"]
    assert without_leaks(X, findings) is X


# ---------------------------------------------------------------- sentinels


@in_turn("value", [-999, -9999, 9999, 999, -99, 99.9, -999.25, -32768, 1e7, -1e6])
@in_turn("form", [np.asarray, pd.DataFrame, lambda X: (X - X.mean(axis=0)) / X.std(axis=0)])
def test_a_repeated_value_far_from_all_others_is_named(value, form):
    X, y = blobs()
    rows = np.sort(np.random.default_rng(1).permutation(300)[:40])
    X[rows, 1] = value
    (finding,) = findings_of(form(X), y)
    assert finding.kind == "sentinel"
    assert finding.rows.tolist() == rows.tolist()
    assert finding.positions == (1,)
    assert "in 40 rows" in finding.message


@pytest.mark.parametrize("value", [99.9, -9.99, 9999.9, -999.25, 1e6])
def test_marks_are_the_same_in_single_precision(value):
    X, y = blobs()
    X[:, 1] = np.arange(300) % 5  # a scale, of which only what is written as marks are stands out
    X[:40, 1] = value
    single, double = (findings_of(X.astype(dtype), y) for dtype in (np.float32, np.float64))
    assert [finding.rows.tolist() for finding in single] == [finding.rows.tolist() for finding in double]
    assert kinds(double) == (["sentinel"] if value != 1e6 else [])


@in_turn(
    ("values", "expected"),
    [
        ([*range(100), -1], [-1]),  # ages
        ([0, 1, -1], []),
        ([0, 1, 2, 3, -1], []),
        ([*range(-5, 30), -1], []),
        ([1, 2, 3, 4, 5, 9], []),  # the gap of 4 is not beyond the range of 4
        ([1, 2, 3, 4, 9], [9]),
        ([*range(1, 31), 99], [99]),
        ([*range(1950, 2020), 9999], [9999]),
        ([*range(100)], []),  # 99 is the next age
        ([*np.linspace(0, 1e5, 50), -999], [-999]),
        ([*np.linspace(-10, 10, 50), -999, 999, -9999], [-9999, -999, 999]),
        ([0, 1], []),
        ([0, 99], []),
        ([0, *np.linspace(5000, 6000, 50)], []),  # zero may be a true nothing
        ([*np.linspace(0, 41310, 50), 99999], [99999]),
        ([*np.geomspace(1, 1e6, 60)], []),
    ],
)
def test_what_counts_as_far(values, expected):
    values = np.unique(np.asarray(values, dtype=float))
    assert sorted(sentinel_values(values, np.full(len(values), 20), 5)) == expected
    assert not sentinel_values(values, np.full(len(values), 2), 5)  # seldom: an outlier, no sentinel


def test_seldom_values_are_outliers():
    X, y = blobs()
    X[[3, 50, 200, 201], 1] = -999
    assert not findings_of(X, y)
    X[202, 1] = -999
    assert kinds(findings_of(X, y)) == ["sentinel"]


def test_pictures_have_no_sentinels():
    digits = load_digits()
    assert not findings_of(digits.images, digits.target)


def test_sentinels_of_a_numeric_target_are_named():
    X, y = load_diabetes(return_X_y=True)
    rows = np.arange(0, 442, 10)
    y[rows] = -999
    (finding,) = findings_of(X, y, "regression")
    assert finding.message.startswith("the target holds -999 in 45 rows")
    assert finding.rows.tolist() == rows.tolist()
    assert (finding.column, finding.positions) == (None, ())
    claims = np.where(np.arange(442) % 8 == 0, 2000 + 100 * np.arange(442), 0.0)
    assert not findings_of(X, claims, "regression")  # zeros are true nothings


# ---------------------------------------------------------------- all together


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer, load_digits])
@pytest.mark.parametrize("flipped", [0.0, 0.15])
def test_ordinary_tables_have_no_findings(load, flipped):
    X, y = load(return_X_y=True)
    rng = np.random.default_rng(0)
    wrong = rng.random(len(y)) < flipped
    noisy = np.where(wrong, (y + 1) % (y.max() + 1), y)
    found = findings_of(X, noisy)
    assert all(len(X[group]) > 1 and np.ptp(X[group], axis=0).max() == 0 for f in found for group in f.detail["groups"])
    assert len(found) == 0 or (load is load_iris and flipped)  # iris has one pair of equal rows
    assert not findings_of(pd.DataFrame(X), np.array([f"class {k}" for k in y]))


def test_an_ordinary_regression_has_no_findings():
    assert not findings_of(*load_diabetes(return_X_y=True), "regression")


def test_findings_come_in_order_and_as_json():
    X, y = twins()
    X[::9, 2] = -999
    X[300:] = X[:15]
    text = np.array(["low", "mid", "high"], dtype=object)[y]
    text[20:40] = " " + text[20:40]
    frame = pd.DataFrame(X, columns=list("abcd")).assign(code=y)
    findings = findings_of(frame.drop(columns="code"), text)
    assert kinds(findings) == ["contradiction", "spelling", "sentinel"]
    assert kinds(findings_of(frame, text)) == ["leak", "spelling", "sentinel"]  # the code tells the twins apart
    for finding in findings:
        numbers = json.loads(json.dumps(finding.to_dict(5)))
        assert numbers["rows"] == finding.rows[:5].tolist()
        assert numbers["n_rows"] == len(finding.rows)
        assert numbers["message"] == finding.message


def test_a_dictionary_is_not_looked_into():
    assert not findings_of({"image": np.zeros((50, 3)), "text": np.zeros((50, 4))}, np.arange(50) % 2)


@pytest.mark.parametrize("y", [np.arange(100), [f"n{i}" for i in range(30)], np.arange(51).repeat(2)[:100] + 0.0])
def test_names_of_rows_are_no_classes(y):
    if len(np.unique(y)) > len(y) / 2:
        with pytest.raises(ValueError, match=rf"{len(np.unique(y))} different labels in {len(y)} rows.*no classes"):
            check_classes(y)
    else:
        check_classes(y)


def test_classes_are_classes():
    check_classes(["a", "b"])
    check_classes(np.arange(50).repeat(2))


def test_labels_come_back_as_they_were_compared():
    X, y = blobs()
    text = np.array(["yes", " Yes", "no"])[y]
    labels, findings = inspect(X, text)
    assert np.unique(labels).tolist() == np.unique(merge_spellings(text, X)[0]).tolist() == ["no", "yes"]
    assert kinds(findings) == ["spelling"]
    values, findings = inspect(X, y + 0.25, "regression")
    assert values.tolist() == (y + 0.25).tolist()


def test_numbers_stored_as_objects_are_numbers():
    X, y = blobs()
    plain, objects = (Columns.read(pd.DataFrame(X).astype(kind)) for kind in (float, object))
    np.testing.assert_array_equal(plain.values, objects.values)
    assert plain.ordered.all()
    assert objects.ordered.all()
    assert not Columns.read(pd.DataFrame({"a": ["x", 1.0]})).ordered.any()
    X[3, 1], X[4, 1], X[5, 1] = np.inf, np.inf, -1.7e308
    assert not findings_of(X, y)  # without a warning


def test_spellings_are_merged_once_in_a_fit(monkeypatch):
    calls = []

    def counted(y, X=None):
        calls.append(len(y))
        return merge_spellings(y, X)

    monkeypatch.setattr("sktda.findings.inspection.merge_spellings", counted)
    X, y = blobs(60)
    detector = NoisyLabelDetector(KernelForest(n_estimators=5)).fit(X, np.array(["yes", " Yes", "no"])[y])
    assert len(calls) == 1
    assert detector.classes_.tolist() == ["no", "yes"]
