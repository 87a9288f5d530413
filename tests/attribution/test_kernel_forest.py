"""KernelForest: its halves by hand, what each half alone cannot see, wide data, containers, units."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import load_digits, make_classification
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.metrics import average_precision_score

from sktda.attribution import ComplexityGap, KernelForest
from sktda.attribution.features import kernel_forest
from sktda.attribution.features.kernel_forest import any_order, evened, likeliest_weight
from sktda.noise import as_probabilities, log_margin
from tests.spies import flip, noisy_blobs

X, Y, TRUE = noisy_blobs(200, centers=3)
WRONG = Y != TRUE


def test_its_halves_by_hand():
    found = KernelForest(n_estimators=40, random_state=3).fit(X, Y)
    seed = np.random.RandomState(3).randint(2**31 - 1, size=2)
    kernel = ComplexityGap(task="classification", random_state=int(seed[0])).fit(X, Y)
    order = any_order(evened(X), Y)
    total = np.zeros((200, 3))
    for kind in (ExtraTreesClassifier, RandomForestClassifier):
        forest = kind(20, min_samples_leaf=3, bootstrap=True, random_state=int(seed[1])).fit(evened(X)[order], Y[order])
        for tree, drawn in zip(forest.estimators_, forest.estimators_samples_, strict=True):
            out = np.setdiff1d(np.arange(200), drawn)
            total[order[out]] += tree.predict_proba(evened(X)[order[out]])
    halves = as_probabilities(kernel.loo_decision_), total / total.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.loo_decision_, (halves[0] + halves[1]) / 2)
    np.testing.assert_allclose(found.scores_, log_margin(as_probabilities(found.loo_decision_), Y))
    assert found.uses_forest_
    assert found.scale_ == kernel.scale_


def test_planted_labels_come_first():
    found = KernelForest(n_estimators=40).fit(X, Y)
    assert average_precision_score(WRONG, -found.scores_) > 0.95


@pytest.mark.parametrize("kind", ["heavy tails", "directions"])
def test_both_kinds_of_classes_are_seen(kind):
    """Thresholds in columns with heavy tails, which ruin a kernel; a sloping direction, which trees see in steps."""
    rng = np.random.default_rng(0)
    heavy = kind == "heavy tails"
    rows = rng.standard_cauchy(size=(600, 8)) if heavy else rng.uniform(-1, 1, size=(600, 8))
    true = (rows[:, 0] > 0) & (rows[:, 1] > -1) if heavy else rows @ rng.normal(size=8) > 0
    y = np.where(rng.random(600) < 0.1, ~true, true)
    found = KernelForest(n_estimators=100).fit(rows, y)
    kernel = log_margin(as_probabilities(ComplexityGap().fit(rows, y).loo_decision_), y * 1)
    alone, both = (average_precision_score(y != true, -scores) for scores in (kernel, found.scores_))
    assert both > (alone + 0.04 if heavy else alone - 0.05)


def test_the_same_numbers_in_any_container_and_unit():
    rows = np.round(X, 2)
    expected = KernelForest(n_estimators=20).fit(rows, Y).scores_
    for other in (sparse.csr_matrix(rows), pd.DataFrame(rows), rows.reshape(len(rows), -1, 1), np.asfortranarray(rows)):
        np.testing.assert_allclose(KernelForest(n_estimators=20).fit(other, Y).scores_, expected, atol=1e-9)
    moved = rows * [1024.0, 2.0**-20, 1.0, 1e3] + [1e6, 0, -273.15, 0]
    np.testing.assert_allclose(KernelForest(n_estimators=20).fit(moved, Y).scores_, expected, atol=1e-3)


def test_wide_data_are_left_to_the_kernel_unless_the_forest_is_clearly_better():
    images, true = load_digits(return_X_y=True)
    wide = np.repeat(images[:300], 5, axis=1)
    found = KernelForest(n_estimators=20).fit(wide, true[:300])
    assert not found.uses_forest_
    kernel = ComplexityGap().fit(wide, true[:300])
    np.testing.assert_allclose(found.loo_decision_, as_probabilities(kernel.loo_decision_, 0.6))
    tails = np.random.default_rng(0).standard_cauchy(size=(800, 270))
    tails[:, 1:30] = tails[:, :1]
    assert KernelForest(n_estimators=20).fit(tails, (tails[:, 0] > 0).astype(int)).uses_forest_


def test_a_fit_can_be_repeated_and_seeds_differ():
    rows, y = make_classification(150, random_state=0)
    first = KernelForest(n_estimators=20).fit(rows, y).scores_
    np.testing.assert_array_equal(KernelForest(n_estimators=20).fit(rows, y).scores_, first)
    assert np.abs(KernelForest(n_estimators=20, random_state=1).fit(rows, y).scores_ - first).max() > 0


def test_row_order_plays_no_part():
    rows = np.random.default_rng(0).permutation(200)
    expected = KernelForest(n_estimators=20).fit(X, Y).scores_[rows]
    np.testing.assert_allclose(KernelForest(n_estimators=20).fit(X[rows], Y[rows]).scores_, expected, atol=1e-6)


def test_one_tree_leaves_rows_without_an_opinion():
    found = KernelForest(n_estimators=1).fit(X, Y)
    np.testing.assert_allclose(found.loo_decision_.sum(axis=1), 1)


def test_a_regression_target_is_refused():
    with pytest.raises(ValueError, match="is a regression target; use RobustResidual"):
        KernelForest().fit(X, X[:, 0])
    many = np.arange(len(X))
    assert len(KernelForest(task="classification", n_estimators=2).fit(X, many // 2).classes_) == len(X) // 2


def test_flipped_digits():
    images, true = (part[:600] for part in load_digits(return_X_y=True))
    y = flip(true, 0.2)
    assert average_precision_score(y != true, -KernelForest().fit(images, y).scores_) > 0.97


def test_no_column_is_left_without_thresholds():
    rng = np.random.default_rng(0)
    columns = np.column_stack(
        [rng.standard_cauchy(500), rng.lognormal(sigma=3, size=500), rng.random(500) < 0.05, np.full(500, 7.0)]
    )
    columns[0, 1] = 1e160
    found = evened(columns)
    for column in found.T[:2]:
        middle_half = np.percentile(column, [25, 75])
        assert np.diff(middle_half) > 0.05 * np.ptp(column)
    assert len(np.unique(found[:, 2])) == 2
    np.testing.assert_array_equal(found[:, 3], 0)


def test_columns_of_many_rows_are_evened_as_some_of_them_say(monkeypatch):
    rng = np.random.default_rng(0)
    columns = np.c_[rng.normal(size=500), rng.lognormal(sigma=3, size=500), np.full(500, 7.0)]
    whole = evened(columns)
    monkeypatch.setattr(kernel_forest, "SPREAD_ROWS", 250)
    found = evened(columns)
    np.testing.assert_allclose(found[:, 0], whole[:, 0], atol=0.3)
    np.testing.assert_array_equal(found[:, 2], 0)
    for j in range(2):  # a tree sees the order of the values
        assert (np.diff(found[columns[:, j].argsort(), j]) >= 0).all()


@pytest.fixture
def many(monkeypatch):
    """As if 200 rows were many: trees of 60, and weights by their likelihood."""
    monkeypatch.setattr(kernel_forest, "TREE_ROWS", 60)
    monkeypatch.setattr(kernel_forest, "MANY_ROWS", 100)
    monkeypatch.setattr(kernel_forest, "BLOCK", 70)


def test_trees_of_many_rows_are_few_small_and_leave_each_row_as_many_predictions(many):
    batches = list(kernel_forest.subsampled(evened(X), Y, np.arange(200), 40, 1, 0))
    grown = [pair for batch in batches for pair in batch]
    assert max(map(len, batches)) <= kernel_forest.BATCH
    assert len(grown) == np.ceil(40 / np.e / (1 - 60 / 200))
    assert all(len(np.unique(drawn)) == 60 for _, drawn in grown)
    assert {tree.splitter for tree, _ in grown} == {"random", "best"}
    votes = np.sum([~np.isin(np.arange(200), drawn) for _, drawn in grown], axis=0)
    assert abs(votes.mean() - 40 / np.e) < 1


def test_planted_labels_come_first_among_many_rows_whatever_their_order_and_the_threads(many):
    found = KernelForest(n_estimators=60, n_jobs=1).fit(X, Y)
    assert average_precision_score(WRONG, -found.scores_) > 0.9
    rows = np.random.default_rng(0).permutation(200)
    again = KernelForest(n_estimators=60, n_jobs=2).fit(X[rows], Y[rows])
    np.testing.assert_allclose(again.scores_, found.scores_[rows], atol=1e-6)


def test_a_class_that_most_trees_do_not_draw_is_a_class_all_the_same(many):
    y = Y.copy()
    y[:2] = 3
    assert KernelForest(n_estimators=20).fit(X, y).loo_decision_.shape == (200, 4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_weight_is_the_share_of_labels_that_each_prediction_explains(share):
    rng = np.random.default_rng(0)
    first, second = rng.dirichlet(np.full(4, 0.3), size=(2, 20_000))
    drawn = np.where((rng.random(20_000) < share)[:, None], first, second).cumsum(axis=1)
    codes = np.minimum((rng.random((20_000, 1)) > drawn).sum(axis=1), 3)
    assert likeliest_weight(first, second, codes) == pytest.approx(share, abs=0.03)


def test_one_of_the_two_can_be_left_with_all_the_weight_where_rows_are_many(monkeypatch):
    monkeypatch.setattr(kernel_forest, "MANY_ROWS", 100)
    rng = np.random.default_rng(0)
    cauchy = rng.standard_cauchy(size=(600, 8))
    normal = rng.normal(size=(600, 12))
    by_columns = KernelForest(n_estimators=60).fit(cauchy, (cauchy[:, 0] > 0) & (cauchy[:, 1] > -1))
    by_direction = KernelForest(n_estimators=60).fit(normal, normal @ rng.normal(size=12) > 0)
    assert by_columns.forest_weight_ > 0.8
    assert by_direction.forest_weight_ < 0.2
    assert KernelForest(n_estimators=10).fit(X[:99], Y[:99]).forest_weight_ == 0.5
