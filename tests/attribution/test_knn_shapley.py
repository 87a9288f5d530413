"""KNNShapley: brute force over all subsets, the paper's recursion, planted answers, invariances."""

import sys
from itertools import combinations
from math import comb
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from sktda import CoresetSelector, Holdout, InfluencePruner, NoisyLabelDetector
from sktda.attribution.features import knn_shapley
from sktda.attribution.features.knn_shapley import KNNShapley, shapley_values
from sktda.engine.unit_rows import UnitRows
from tests.in_turn import in_turn
from tests.spies import flip, noisy_blobs


def unit(X):
    X = np.asarray(X, dtype=float).reshape(len(X), -1)
    norm = np.linalg.norm(X, axis=1, keepdims=True)
    return X / np.where(norm > 0, norm, 1)


def utility(rows, X, y, x_val, y_val, k):
    """Right votes among the k nearest of the rows, divided by k (also where there are fewer); ties by position."""
    rows = np.sort(np.asarray(rows, dtype=int))
    near = rows[np.argsort(np.round(np.linalg.norm(X[rows] - x_val, axis=1), 9), kind="stable")[:k]]
    return np.sum(y[near] == y_val) / k


def brute_force(X, y, X_val, y_val, k):
    """Shapley's definition: mean marginal worth of each row over all sets of the other rows."""
    n, values = len(X), np.zeros(len(X))
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            for rows in combinations(others, size):
                for x, label in zip(X_val, y_val, strict=True):
                    gain = utility([*rows, i], X, y, x, label, k) - utility(rows, X, y, x, label, k)
                    values[i] += gain / (n * comb(n - 1, size))
    return values / len(X_val)


def recursion(X, y, X_val, y_val, k):
    """Theorem 1 of the paper, line by line; 1/max(k, n) for the last row where k may exceed n."""
    n, values = len(X), np.zeros(len(X))
    for x, label in zip(X_val, y_val, strict=True):
        order = np.argsort(np.round(np.linalg.norm(X - x, axis=1), 9), kind="stable")
        right = [float(y[j] == label) for j in order]
        s = [0.0] * n
        s[n - 1] = right[n - 1] / n * min(k, n) / k
        for i in range(n - 1, 0, -1):  # 1-based rank, as in the paper
            s[i - 1] = s[i] + (right[i - 1] - right[i]) / k * min(k, i) / i
        for rank, j in enumerate(order):
            values[j] += s[rank]
    return values / len(X_val)


def drawn(n, n_val, seed=0, d=3, classes=3):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return rng.normal(size=(n, d)), rng.permutation(y), rng.normal(size=(n_val, d)), rng.integers(classes, size=n_val)


# ---- what the values are --------------------------------------------------------------------------------------------


@in_turn("k", [1, 2, 3, 6, 7, 8, 20])
@in_turn("n", [2, 7])
def test_values_equal_shapleys_definition_over_all_subsets(n, k):
    X, y, X_val, y_val = drawn(n, 3, seed=k, classes=2)
    found = KNNShapley(k, scale="unit").fit(X, y, X_val=X_val, y_val=y_val).scores_
    np.testing.assert_allclose(found, brute_force(unit(X), y, unit(X_val), y_val, k), atol=1e-12)


def test_values_equal_the_definition_with_eight_rows_some_of_them_tied():
    X, y, X_val, y_val = drawn(8, 2, seed=1)
    X[5], X[6] = X[0], 3 * X[1]  # the second is tied once its length is 1
    found = KNNShapley(2, scale="unit").fit(X, y, X_val=X_val, y_val=y_val).scores_
    np.testing.assert_allclose(found, brute_force(unit(X), y, unit(X_val), y_val, 2), atol=1e-12)


@pytest.mark.parametrize("k", [1, 5, 49, 50, 51, 400])
@pytest.mark.parametrize("n_val", [1, 23])
def test_values_equal_the_papers_recursion(k, n_val):
    X, y, X_val, y_val = drawn(50, n_val, seed=k)
    found = KNNShapley(k, scale="unit").fit(X, y, X_val=X_val, y_val=y_val)
    np.testing.assert_allclose(found.scores_, recursion(unit(X), y, unit(X_val), y_val, k), rtol=1e-9, atol=1e-15)
    assert found.scores_.dtype == np.float64


def test_tables_are_standardised_by_the_training_rows_also_for_validation():
    X, y = load_wine(return_X_y=True)
    X_val, y_val, X, y = X[::4] + 1, y[::4], X[1::2], y[1::2]
    ours = KNNShapley().fit(X, y, X_val=X_val, y_val=y_val).scores_

    def scaled(rows):
        return unit(np.column_stack([(rows - X.mean(axis=0)) / X.std(axis=0), np.ones(len(rows))]))

    np.testing.assert_allclose(ours, recursion(scaled(X), y, scaled(X_val), y_val, 5), atol=1e-13)
    assert UnitRows(X).scale == "standard"


@pytest.mark.parametrize("k", [1, 5, 30, 1000])
def test_values_add_up_to_the_worth_of_all_rows(k):
    X, y, X_val, y_val = drawn(300, 40, d=5)
    found = KNNShapley(k, scale="unit").fit(X, y, X_val=X_val, y_val=y_val).scores_
    worth = np.mean([utility(range(300), unit(X), y, *row, k) for row in zip(unit(X_val), y_val, strict=True)])
    assert found.sum() == pytest.approx(worth, rel=1e-12)
    if k <= 300:
        votes = KNeighborsClassifier(k).fit(unit(X), y).kneighbors(unit(X_val), return_distance=False)
        assert found.sum() == pytest.approx(np.mean(y[votes] == y_val[:, None]), rel=1e-12)


def test_when_all_rows_vote_a_value_is_the_share_of_validation_rows_of_its_class_by_k():
    X, y, X_val, y_val = drawn(20, 9)
    found = KNNShapley(25).fit(X, y, X_val=X_val, y_val=y_val).scores_
    np.testing.assert_allclose(found, [np.mean(y_val == label) / 25 for label in y], rtol=1e-12)


def test_values_equal_those_of_pydvl(monkeypatch):
    pytest.importorskip("pydvl")
    try:
        import cvxpy  # noqa: F401
    except ImportError:  # pyDVL imports it for another method
        monkeypatch.setitem(sys.modules, "cvxpy", ModuleType("cvxpy"))
    from pydvl.valuation.dataset import Dataset
    from pydvl.valuation.methods.knn_shapley import KNNShapleyValuation

    X, y = load_digits(return_X_y=True)
    X, y = unit(X), y
    theirs = KNNShapleyValuation(
        KNeighborsClassifier(7), Dataset(X[400:450], y[400:450], data_names=np.arange(50)), progress=False
    )
    theirs.fit(Dataset(X[:400], y[:400], data_names=np.arange(400)))
    result = theirs.result
    expected = np.zeros(400)
    expected[result.indices] = result.values
    ours = KNNShapley(7, scale="unit").fit(X[:400], y[:400], X_val=X[400:450], y_val=y[400:450]).scores_
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)
    assert np.abs(expected).max() > 1e-3


def test_one_line_of_values_by_hand():
    right = torch.tensor([[True, False, True]])
    # k = 2, last: 1/3; then minus 1/2 for rank 2, plus 1/2 for rank 1
    torch.testing.assert_close(shapley_values(right, 2), torch.tensor([[1 / 3, -1 / 6, 1 / 3]], dtype=torch.float64))


# ---- ties and zeros -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 5, "auto"])
def test_equal_rows_are_ranked_by_position_whatever_the_blocks(batch_size, monkeypatch):
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(40, 33)), 10, axis=0)[rng.permutation(400)] * rng.uniform(0.1, 9, size=(400, 1))
    y, X_val, y_val = rng.integers(2, size=400), X[:17] * 2, rng.integers(2, size=17)
    expected = recursion(unit(X), y, unit(X_val), y_val, 3)
    monkeypatch.setattr(knn_shapley, "block_rows", lambda X: 61)
    found = KNNShapley(3, scale="unit", batch_size=batch_size).fit(X, y, X_val=X_val, y_val=y_val).scores_
    np.testing.assert_allclose(found, expected, atol=1e-13)


@pytest.mark.parametrize("cells", [1, 64, 399, 400, 1000])
def test_lines_are_valued_in_parts_where_they_are_long(cells, monkeypatch):
    rng = np.random.default_rng(0)
    X, y, y_val = rng.normal(size=(400, 5)), rng.integers(3, size=400), rng.integers(3, size=9)
    X_val = rng.normal(size=(9, 5))
    monkeypatch.setattr(knn_shapley, "CHUNK", {"cpu": cells})
    found = KNNShapley(3, scale="unit").fit(X, y, X_val=X_val, y_val=y_val).scores_
    np.testing.assert_allclose(found, recursion(unit(X), y, unit(X_val), y_val, 3), atol=1e-13)


@pytest.mark.parametrize("n", [10, 2**25, 2**30])
def test_a_key_holds_cosine_position_and_label(n):
    cosine = torch.tensor([[1.0, -1.0, 0.0, 0.5, 0.5, 1 - 2.0**-40]], dtype=torch.float64)
    keys = knn_shapley._keys(cosine, torch.tensor([[True, False, True, False, True, False]]), n - 6, n)
    keys = keys.sort(dim=1).values
    order, right = knn_shapley._read(keys, n)
    assert (order - (n - 6)).tolist() == [[0, 5, 3, 4, 2, 1]]  # the last one is as near as the first
    assert right.tolist() == [[1, 0, 0, 1, 1, 0]]


def test_distances_that_differ_by_rounding_only_are_ties():
    rng = np.random.default_rng(0)
    X = np.column_stack([np.full(300, 0.5), np.sqrt(0.75) * unit(rng.normal(size=(300, 40)))])
    y, x_val = rng.integers(2, size=300), np.eye(1, 41)
    assert len(np.unique(unit(X) @ x_val[0])) > 1  # one half, give or take the last digit
    found = KNNShapley(3, scale="unit").fit(X, y, X_val=x_val, y_val=[1]).scores_
    np.testing.assert_allclose(found, shapley_values(torch.from_numpy(y[None] == 1), 3)[0], atol=1e-15)


def test_rows_of_zeros_are_alike_and_at_a_right_angle_to_the_rest():
    X = np.array([[0.0, 0], [1, 0.1], [0, 0], [-1, 0], [0.1, 1]])
    y = np.array([0, 1, 0, 1, 1])
    found = KNNShapley(1, scale="unit").fit(X, y, X_val=np.zeros((1, 2)), y_val=[0]).scores_
    np.testing.assert_allclose(found, shapley_values(torch.tensor([[1, 1, 0, 0, 0]]), 1)[0, [0, 2, 1, 3, 4]])
    other = KNNShapley(1, scale="unit").fit(X, y, X_val=[[1.0, 0]], y_val=[1]).scores_
    np.testing.assert_allclose(other, shapley_values(torch.tensor([[1, 1, 0, 0, 1]]), 1)[0, [2, 0, 3, 4, 1]])


@pytest.mark.parametrize("scale", ["auto", "standard", "unit"])
def test_constant_columns_leave_ties_that_the_first_rows_win(scale):
    X, y = np.full((6, 3), 2.0), np.array([0, 1, 0, 1, 0, 1])
    found = KNNShapley(2, scale=scale).fit(X, y, X_val=X[:1], y_val=[0]).scores_
    np.testing.assert_allclose(found, shapley_values(torch.tensor([[1, 0, 1, 0, 1, 0]]), 2)[0], atol=1e-15)


# ---- cross-fitting --------------------------------------------------------------------------------------------------


def test_without_validation_rows_a_value_is_the_mean_over_rows_in_other_folds(monkeypatch):
    X, y = load_wine(return_X_y=True)
    taken = []
    values = KNNShapley._values

    def spy(self, rows, train, codes, held_rows, held, held_codes):
        taken.append((train, held))
        return values(self, rows, train, codes, held_rows, held, held_codes)

    monkeypatch.setattr(KNNShapley, "_values", spy)
    found = KNNShapley(scale="unit", random_state=3).fit(X, y).scores_
    assert len(taken) == 5
    assert sorted(np.concatenate([held for _, held in taken])) == list(range(len(y)))
    total, times = np.zeros(len(y)), np.zeros(len(y))
    for train, held in taken:
        assert sorted([*train, *held]) == list(range(len(y)))
        for c in range(3):
            assert abs(np.sum(y[held] == c) - np.sum(y == c) / 5) < 1  # stratified
        total[train] += len(held) * recursion(unit(X[train]), y[train], unit(X[held]), y[held], 5)
        times[train] += len(held)
    np.testing.assert_allclose(found, total / times, atol=1e-12)


def test_the_seed_draws_the_folds_and_nothing_else():
    X, y, X_val, y_val = drawn(60, 11)
    first, again, other = (KNNShapley(random_state=seed).fit(X, y).scores_ for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    same = [KNNShapley(random_state=seed).fit(X, y, X_val=X_val, y_val=y_val).scores_ for seed in (0, 1)]
    np.testing.assert_array_equal(*same)


def test_rare_classes_and_very_few_rows_have_finite_values():
    X, y, *_ = drawn(30, 1)
    y = np.where(np.arange(30) == 4, "rare", np.where(y == 0, "a", "b"))
    scores = KNNShapley(random_state=0).fit(X, y).scores_
    assert np.isfinite(scores).all()
    assert scores[4] < 0  # no other row of its class ever validates it
    for n in (2, 3, 6):
        assert np.isfinite(KNNShapley(random_state=0).fit(X[:n], np.arange(n) % 2).scores_).all()


# ---- planted answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5, 20])
def test_planted_flips_have_the_lowest_values(k):
    X, y = load_digits(return_X_y=True)
    given = flip(y, 0.2)
    wrong = given != y
    crossed = KNNShapley(k, random_state=0).fit(X, given).scores_
    assert roc_auc_score(wrong, -crossed) > 0.97
    train = np.arange(len(y)) % 3 > 0
    held = KNNShapley(k).fit(X[train], given[train], X_val=X[~train], y_val=y[~train]).scores_
    assert roc_auc_score(wrong[train], -held) > 0.97
    assert (held[wrong[train]] < 0).mean() > 0.9


def test_planted_flips_of_a_table_have_the_lowest_values():
    X, y = load_wine(return_X_y=True)
    given = flip(y, 0.2)
    assert roc_auc_score(given != y, -KNNShapley(random_state=0).fit(X, given).scores_) > 0.9


# ---- invariances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 64, "auto"])
def test_blocks_and_chunks_do_not_matter(batch_size, monkeypatch):
    X, y, X_val, y_val = drawn(150, 70, d=6)
    whole = KNNShapley().fit(X, y, X_val=X_val, y_val=y_val).scores_
    monkeypatch.setattr(knn_shapley, "block_rows", lambda X: 13)
    monkeypatch.setattr(knn_shapley, "CHUNK", {"cpu": 400})
    parts = KNNShapley(batch_size=batch_size).fit(X, y, X_val=X_val, y_val=y_val).scores_
    np.testing.assert_allclose(parts, whole, rtol=1e-10, atol=1e-16)


def test_no_block_has_more_validation_rows_than_asked_for(monkeypatch):
    X, y, X_val, y_val = drawn(50, 23)
    sizes = []
    cosines = knn_shapley._cosines

    def spy(rows, train, held):
        sizes.append(len(held))
        return cosines(rows, train, held)

    monkeypatch.setattr(knn_shapley, "_cosines", spy)
    KNNShapley(batch_size=10).fit(X, y, X_val=X_val, y_val=y_val)
    assert sizes == [10, 10, 3]


def test_a_device_without_memory_gets_smaller_blocks(monkeypatch):
    X, y, X_val, y_val = drawn(50, 23)
    whole = KNNShapley().fit(X, y, X_val=X_val, y_val=y_val).scores_
    cosines = knn_shapley._cosines

    def small(rows, train, held):
        if len(held) > 6:
            raise torch.OutOfMemoryError
        return cosines(rows, train, held)

    monkeypatch.setattr(knn_shapley, "_cosines", small)
    np.testing.assert_allclose(KNNShapley().fit(X, y, X_val=X_val, y_val=y_val).scores_, whole, rtol=1e-10, atol=1e-16)


def test_row_order_scale_and_label_names_do_not_matter():
    X, y = load_wine(return_X_y=True)
    X_val, y_val, X, y = X[::3], y[::3], X[1::3], y[1::3]
    base = KNNShapley().fit(X, y, X_val=X_val, y_val=y_val).scores_
    rng = np.random.default_rng(0)
    rows, held = rng.permutation(len(y)), rng.permutation(len(y_val))
    shuffled = KNNShapley().fit(X[rows], y[rows], X_val=X_val[held], y_val=y_val[held]).scores_
    np.testing.assert_allclose(shuffled, base[rows], atol=1e-13)
    moved = KNNShapley().fit(X * 3 - 100, y, X_val=X_val * 3 - 100, y_val=y_val).scores_
    np.testing.assert_allclose(moved, base, atol=1e-13)
    names = np.array(["c", "a", "b"])
    renamed = KNNShapley().fit(X, names[y], X_val=X_val, y_val=names[y_val])
    np.testing.assert_allclose(renamed.scores_, base, atol=1e-13)
    assert renamed.classes_.tolist() == ["a", "b", "c"]
    twice = KNNShapley().fit(X, y, X_val=np.vstack([X_val, X_val]), y_val=np.tile(y_val, 2)).scores_
    np.testing.assert_allclose(twice, base, atol=1e-13)


def test_images_sparse_rows_integers_frames_and_memory_maps_equal_the_table(tmp_path):
    X, y = load_digits(return_X_y=True)
    X_val, y_val, X, y = X[200:230], y[200:230], X[:200], y[:200]
    flat = KNNShapley().fit(X, y, X_val=X_val, y_val=y_val).scores_
    assert UnitRows(X).scale == "unit"
    np.save(tmp_path / "X.npy", X)
    same = [
        (X.reshape(-1, 8, 8), X_val.reshape(-1, 8, 8)),
        (X.astype(np.uint8).reshape(-1, 1, 8, 8), X_val.astype(np.uint8).reshape(-1, 1, 8, 8)),
        (sp.csr_matrix(X), sp.csr_matrix(X_val)),
        (sp.csr_matrix(X), X_val),
        (np.load(tmp_path / "X.npy", mmap_mode="r"), X_val),
        (pd.DataFrame(X).add_prefix("p"), pd.DataFrame(X_val).add_prefix("p")),
    ]
    for train, val in same:
        found = KNNShapley().fit(train, pd.Series(y), X_val=val, y_val=pd.Series(y_val)).scores_
        np.testing.assert_allclose(found, flat, atol=1e-13)
    before = X.copy()
    KNNShapley(random_state=0).fit(X, y)
    np.testing.assert_array_equal(X, before)


def test_weights_do_not_enter():
    X, y, X_val, y_val = drawn(30, 5)
    plain = KNNShapley().fit(X, y, X_val=X_val, y_val=y_val).scores_
    weighted = KNNShapley().fit(X, y, sample_weight=np.arange(30.0), X_val=X_val, y_val=y_val).scores_
    np.testing.assert_array_equal(weighted, plain)
    with pytest.raises(ValueError, match="one weight per row"):
        KNNShapley().fit(X, y, sample_weight=[1.0, 2.0])


def test_a_validation_label_without_training_rows_adds_nothing():
    X, y, X_val, y_val = drawn(30, 6)
    plain = KNNShapley().fit(X, y, X_val=X_val, y_val=y_val).scores_
    more = KNNShapley().fit(X, y, X_val=np.vstack([X_val, X_val]), y_val=np.concatenate([y_val, np.full(6, 9)]))
    np.testing.assert_allclose(more.scores_, plain / 2, atol=1e-15)


# ---- errors ---------------------------------------------------------------------------------------------------------


@in_turn(
    ("params", "changed", "message"),
    [
        ({"n_neighbors": 0}, {}, "n_neighbors"),
        ({"scale": "minmax"}, {}, "scale"),
        ({}, {"y": np.linspace(0, 1, 30)}, "this is a regression; use ComplexityGap"),
        ({"task": "regression"}, {}, "this is a regression; use ComplexityGap"),
        ({"task": "classification"}, {"y": np.linspace(0, 1, 30)}, "Unknown label type"),
        ({}, {"y": np.zeros(30, dtype=int)}, "1 class"),
        ({}, {"X": np.where(np.arange(90).reshape(30, 3) == 7, np.nan, 1.0)}, "column 1 has 1 values"),
        ({}, {"X_val": None}, "y_val came without X_val"),
        ({}, {"y_val": None}, "X_val came without y_val"),
        ({}, {"X_val": np.zeros((5, 4))}, "4 features"),
        ({}, {"X_val": np.full((5, 3), np.inf)}, "in the validation rows: .*infinity"),
        ({}, {"X_val": pd.DataFrame({"a": ["x"] * 5, "b": 1.0, "c": 1.0})}, "'a' of X are not numbers"),
        ({}, {"X_val": np.zeros((4, 3))}, "inconsistent numbers of samples"),
        ({}, {"y_val": ["a"] * 5}, "none of the labels in y_val .such as 'a'. is a class of y"),
        ({}, {"y_val": [0, 1, np.nan, 1, 0]}, "in the validation rows: .* 1 rows have no label, the first is row 2"),
        ({}, {"y_val": np.array([0, None, None, 1, 0])}, "validation rows: .* 2 rows have no label, .* row 1"),
    ],
)
def test_bad_input_gets_an_error_that_says_what_and_where(params, changed, message):
    X, y, X_val, y_val = drawn(30, 5)
    given = {"X": X, "y": y, "X_val": X_val, "y_val": y_val} | changed
    with pytest.raises(ValueError, match=message):
        KNNShapley(**params).fit(**given)


def test_images_of_another_shape_are_refused():
    X, y, *_ = drawn(30, 5, d=16)
    with pytest.raises(ValueError, match=r"shape \(4, 2\), but those of X have \(4, 4\)"):
        KNNShapley().fit(X.reshape(30, 4, 4), y, X_val=np.zeros((5, 4, 2)), y_val=np.zeros(5))


def test_diabetes_is_refused_whatever_the_cleaner():
    X, y = load_diabetes(return_X_y=True)
    with pytest.raises(ValueError, match="use ComplexityGap"):
        InfluencePruner(Ridge(), KNNShapley()).fit(X, y)
    with pytest.raises(ValueError, match="use ComplexityGap"):
        NoisyLabelDetector(KNNShapley()).fit(X, y + 0.5)


# ---- in the cleaners ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", [None, 3, 0.2, "holdout"])
def test_the_pruner_removes_planted_flips(validation):
    X, given, y = noisy_blobs(200, 0.1)
    X_val, _, y_val = noisy_blobs(60, 0.0, seed=0)
    if validation == "holdout":
        validation = Holdout(X_val, y_val)
    pruner = InfluencePruner(
        LogisticRegression(), KNNShapley(), validation=validation, prune_ratio=0.1, stratify=False, random_state=0
    ).fit(X, given)
    removed = ~pruner.support_
    assert removed.sum() > 10
    assert (given != y)[removed].mean() > 0.9


def test_the_detector_finds_planted_flips():
    X, given, y = noisy_blobs(200, 0.15)
    detector = NoisyLabelDetector(KNNShapley(), random_state=0).fit(X, given)
    assert ((detector.labels_ == -1) == (given != y)).mean() > 0.95


def test_the_coreset_leaves_planted_flips_out():
    X, given, y = noisy_blobs(200, 0.15)
    kept = CoresetSelector(KNNShapley(), n_samples=0.5, strategy="top", random_state=0).fit(X, given).sample_indices_
    assert len(kept) == 100
    assert (given == y)[kept].all()
