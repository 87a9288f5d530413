"""ComplexityGap: closed forms, brute force, planted answers, invariances."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.exceptions import DataConversionWarning
from sklearn.metrics import roc_auc_score

from sktda.attribution import ComplexityGap
from sktda.attribution.features.complexity_gap import EXACT_ROWS, default_landmarks
from sktda.engine.unit_rows import UnitRows
from tests.in_turn import in_turn


def flip(y, rate, seed=0):
    """(labels with `rate` of them replaced by another class at random, mask of the wrong ones)."""
    rng = np.random.default_rng(seed)
    classes, codes = np.unique(y, return_inverse=True)
    wrong = rng.random(len(y)) < rate
    shift = rng.integers(1, len(classes), size=len(y))
    return classes[np.where(wrong, (codes + shift) % len(classes), codes)], wrong


def kernel(X):
    norm = np.linalg.norm(X, axis=1, keepdims=True)
    X = X / np.where(norm > 0, norm, 1)
    cosine = np.clip(X @ X.T, -1, 1)
    gram = cosine * (np.pi - np.arccos(cosine)) / (2 * np.pi)
    np.fill_diagonal(gram, 0.5)
    return gram


def standardised(X):
    return np.column_stack([(X - X.mean(axis=0)) / X.std(axis=0), np.ones(len(X))])


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    return X, y


def test_scores_equal_the_definition_and_loo_labels_equal_brute_force_removal(wine):
    X, y = wine[0][::3], wine[1][::3]
    gap = ComplexityGap(ridge=0.05).fit(X, y)
    gram = kernel(standardised(X)) + 0.05 * np.eye(len(X))
    onehot = np.eye(3)[y]
    Y = onehot - onehot.mean(axis=0)
    whole = np.sum(Y * np.linalg.solve(gram, Y))
    for i in range(len(X)):
        rest = np.delete(np.arange(len(X)), i)
        alpha = np.linalg.solve(gram[np.ix_(rest, rest)], Y[rest])
        assert gap.scores_[i] == pytest.approx(np.sum(Y[rest] * alpha) - whole, rel=1e-9, abs=1e-9)
        decision = gram[i, rest] @ alpha + onehot.mean(axis=0)
        np.testing.assert_allclose(gap.loo_decision_[i], decision, atol=1e-9)
        assert gap.loo_labels_[i] == decision.argmax()
        assert gap.loo_margins_[i] == pytest.approx(decision[y[i]] - np.delete(decision, y[i]).max(), abs=1e-9)
    np.testing.assert_allclose(gap.scores_, -gap.label_part_ * gap.label_free_part_, rtol=1e-12)


def test_paper_mode_equals_the_literal_definition_with_signs_against_a_sample_of_the_rest():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 30)), np.repeat([0, 1], 10)  # equal classes: the sample is the whole rest
    gap = ComplexityGap(mode="paper", scale="unit", n_repeats=2).fit(X, y)
    gram, sign = kernel(X), np.where(y == 0, 1.0, -1.0)
    whole = sign @ np.linalg.solve(gram, sign)
    for i in range(20):
        rest = np.delete(np.arange(20), i)
        without = sign[rest] @ np.linalg.solve(gram[np.ix_(rest, rest)], sign[rest])
        assert gap.scores_[i] == pytest.approx(without - whole, rel=1e-9)
    assert not hasattr(gap, "loo_labels_")


def test_paper_mode_averages_over_samples_and_survives_a_class_larger_than_the_rest():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], (y[:300] == 3).astype(int)
    few, many = (ComplexityGap(mode="paper", n_repeats=k, random_state=0).fit(X, y).scores_[y == 1] for k in (1, 40))
    other = ComplexityGap(mode="paper", n_repeats=40, random_state=1).fit(X, y).scores_[y == 1]
    assert np.abs(many - other).mean() < np.abs(few - other).mean()
    assert np.isfinite(many).all()


@pytest.mark.parametrize("mode", ["exact", "nystrom"])
def test_automatic_ridge_has_the_smallest_leave_one_out_error_and_grows_with_noise(wine, mode):
    X, y = wine
    used = []
    for rate in (0.0, 0.1, 0.4):
        given, _ = flip(y, rate)
        auto = ComplexityGap(mode=mode).fit(X, given)
        errors = {r: ComplexityGap(ridge=r).fit(X, given).label_part_.sum() for r in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)}
        assert auto.ridge_ == min(errors, key=errors.get)
        used.append(auto.ridge_)
    assert used == sorted(used)
    assert used[0] < used[-1]


def test_regression_removes_rows_exactly():
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:80], y[:80] + 0.5
    gap = ComplexityGap(ridge=0.1).fit(X, y)
    assert gap.task_ == "regression"
    assert not hasattr(gap, "classes_")
    gram = kernel(standardised(X)) + 0.1 * np.eye(80)
    rest = np.arange(1, 80)
    alpha = np.linalg.solve(gram[1:, 1:], (y[rest] - y.mean()) / y.std())
    assert gap.loo_labels_[0] == pytest.approx(gram[0, rest] @ alpha * y.std() + y.mean(), rel=1e-9)
    assert gap.loo_margins_[0] == pytest.approx(-abs(y[0] - gap.loo_labels_[0]))
    scaled = ComplexityGap(ridge=0.1).fit(X, 1000 * y - 7)
    np.testing.assert_allclose(scaled.scores_, gap.scores_, rtol=1e-9)


@pytest.mark.parametrize(
    ("load", "rate", "least"),
    [(load_digits, 0.2, 0.999), (load_digits, 0.4, 0.995), (load_wine, 0.2, 0.95), (load_breast_cancer, 0.2, 0.95)],
)
def test_planted_flips_have_the_lowest_scores(load, rate, least):
    X, y = load(return_X_y=True)
    given, wrong = flip(y, rate)
    gap = ComplexityGap().fit(X, given)
    assert roc_auc_score(wrong, -gap.scores_) >= least
    assert (gap.loo_labels_[wrong] == y[wrong]).mean() > 0.75


def test_planted_outliers_of_a_regression_have_the_lowest_scores():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4))
    y = X @ [1.0, -2, 0.5, 0] + 0.1 * rng.normal(size=300)
    y[:15] += 8
    assert set(ComplexityGap().fit(X, y).scores_.argsort()[:15]) == set(range(15))


@pytest.mark.parametrize("mode", ["exact", "nystrom"])
def test_invariances(wine, mode):
    X, y = wine
    base = ComplexityGap(mode=mode, n_landmarks=len(y)).fit(X, y)
    close = {"rtol": 1e-9} if mode == "exact" else {"rtol": 0, "atol": 1e-4 * np.abs(base.scores_).max()}
    order = np.random.default_rng(0).permutation(len(y))
    shuffled = ComplexityGap(mode=mode, n_landmarks=len(y)).fit(X[order], y[order])
    np.testing.assert_allclose(shuffled.scores_, base.scores_[order], **close)
    rescaled = ComplexityGap(mode=mode, n_landmarks=len(y)).fit(X * 3 - 100, y)
    np.testing.assert_allclose(rescaled.scores_, base.scores_, **close)
    renamed = ComplexityGap(mode=mode, n_landmarks=len(y)).fit(X, np.array(["c", "a", "b"])[y])
    np.testing.assert_allclose(renamed.scores_, base.scores_, **close)
    assert (renamed.loo_labels_ == np.array(["c", "a", "b"])[base.loo_labels_]).all()


@pytest.mark.parametrize("batch_size", [1, 7, 64, "auto"])
def test_nystrom_scores_do_not_depend_on_the_batch_size(wine, batch_size):
    X, y = wine
    whole = ComplexityGap(mode="nystrom", n_landmarks=60, random_state=0).fit(X, y)
    parts = ComplexityGap(mode="nystrom", n_landmarks=60, random_state=0, batch_size=batch_size).fit(X, y)
    np.testing.assert_allclose(parts.scores_, whole.scores_, rtol=0, atol=1e-4 * np.abs(whole.scores_).max())


def marks(n, columns, seed=0):
    """(marks from 0 to 100, grades by their mean)."""
    rng = np.random.default_rng(seed)
    X = np.round(rng.uniform(0, 100, (n, columns)))
    return X, np.digitize(X.mean(axis=1), [40, 50, 60])


def tables():
    rng = np.random.default_rng(0)
    kelvin = rng.normal(290, 10, (150, 2))
    items = rng.integers(0, 3, (200, 12))
    return {
        "digits": tuple(part[:200] for part in load_digits(return_X_y=True)),
        "wine": load_wine(return_X_y=True),
        "one mark": marks(150, 1),
        "three marks": marks(300, 3),
        "kelvin": (kelvin, (kelvin[:, 0] > kelvin[:, 1]).astype(int)),
        "points": (items, (items.sum(axis=1) > 12).astype(int)),
        "regression": (kelvin, kelvin.sum(axis=1) + 0.5),
    }


@pytest.mark.parametrize("name", tables())
def test_the_same_numbers_in_any_container_have_the_same_scale_and_scores(name):
    X, y = tables()[name]
    base = ComplexityGap().fit(X, y)
    assert base.scale_ == ("unit" if name == "digits" else "standard")
    names = [f"c{j}" for j in range(X.shape[1])]
    sparse = sp.csr_matrix(X)
    same = [X.tolist(), pd.DataFrame(X, columns=names), sparse, sp.csc_array(X), np.asfortranarray(X), X[:, None, :]]
    same.append(pd.DataFrame.sparse.from_spmatrix(sparse, columns=names))
    same.append(X.astype(np.float32))
    if name == "digits":
        same += [X.astype(np.uint8).reshape(-1, 8, 8), X.reshape(-1, 1, 8, 8)]
    if importlib.util.find_spec("polars"):
        import polars

        same.append(polars.DataFrame(X, schema=names))
    for other in same:
        gap = ComplexityGap().fit(other, y)
        assert (gap.scale_, gap.ridge_) == (base.scale_, base.ridge_)
        close = 1e-4 if name != "digits" and getattr(other, "dtype", None) == np.float32 else 1e-9
        np.testing.assert_allclose(gap.scores_, base.scores_, rtol=close, atol=close)
    with pytest.warns(DataConversionWarning):
        np.testing.assert_array_equal(ComplexityGap().fit(X, np.asarray(y)[:, None]).scores_, base.scores_)


@pytest.mark.parametrize("columns", [1, 2, 3, 12])
def test_the_level_of_ordinary_columns_is_not_normalised_away(columns):
    X, y = marks(600, columns)
    for factor, shift in ((1, 0), (0.01, 0), (1e-14, 0), (1, 1900), (9 / 5, 32)):
        gap = ComplexityGap().fit(X * factor + shift, y)
        assert gap.scale_ == "standard"
        assert (gap.loo_labels_ != y).mean() < (0.12 if columns < 12 else 0.3)


def test_evidence_takes_directions_where_labels_follow_them_and_columns_where_those_do():
    rng = np.random.default_rng(0)
    angle, length = rng.uniform(0, np.pi / 2, 400), np.exp(2 * rng.normal(size=400))
    pair = np.column_stack([np.cos(angle), np.sin(angle)]) * length[:, None]
    X = np.repeat(pair, 10, axis=1)
    assert ComplexityGap().fit(X, (angle * 8).astype(int) % 2).scale_ == "unit"
    assert ComplexityGap().fit(X, (length > 1).astype(int)).scale_ == "standard"
    assert ComplexityGap().fit(pair, (angle * 8).astype(int) % 2).scale_ == "standard"  # few columns: the level counts
    images, digits = load_digits(return_X_y=True)
    assert UnitRows(images[:400]).scale == ComplexityGap().fit(images[:400], digits[:400]).scale_ == "unit"
    brightness = images[:400].sum(axis=1)
    assert ComplexityGap().fit(images[:400], brightness + 0.5).scale_ == "standard"


@pytest.mark.parametrize("scale", ["standard", "unit"])
def test_a_given_scale_is_kept(wine, scale):
    assert ComplexityGap(scale=scale).fit(*wine).scale_ == scale
    assert ComplexityGap(scale=scale, ridge=0.1).fit(*wine).scale_ == scale


@pytest.mark.parametrize("cell", [1e160, -1e300])
@pytest.mark.parametrize("mode", ["exact", "nystrom"])
def test_huge_and_tiny_numbers_need_no_warning(wine, cell, mode):
    X, y = wine
    spoilt = X.copy()
    spoilt[5, 3] = cell
    gap = ComplexityGap(mode=mode).fit(spoilt, y)
    assert np.isfinite(gap.scores_).all()
    assert (gap.loo_labels_ == y).mean() > 0.9
    tiny = ComplexityGap(mode=mode, random_state=0).fit(X * 1e-200, y)
    base = ComplexityGap(mode=mode, random_state=0).fit(X, y)
    np.testing.assert_allclose(tiny.scores_, base.scores_, atol=1e-4 * np.abs(base.scores_).max())


@pytest.mark.parametrize("factor", [1e-200, 1e160, 1e290])
def test_targets_of_any_size_have_the_same_scores(wine, factor):
    X, y = wine[0][:, 1:], wine[0][:, 0]
    base, scaled = (ComplexityGap().fit(X, y * f) for f in (1.0, factor))
    np.testing.assert_allclose(scaled.scores_, base.scores_, rtol=1e-9)
    np.testing.assert_allclose(scaled.loo_decision_, base.loo_decision_ * factor, rtol=1e-9)


@pytest.mark.parametrize("mode", ["exact", "nystrom", "paper"])
def test_duplicates_and_zero_rows_give_finite_scores(mode):
    X, y = load_digits(return_X_y=True)
    X, y = np.vstack([X[:60], X[:60], np.zeros((3, 64))]), np.concatenate([y[:60], y[:60], [0, 1, 2]])
    y[0] = (y[0] + 1) % 10  # twins that contradict each other
    scores = ComplexityGap(mode=mode, random_state=0).fit(X, y).scores_
    assert np.isfinite(scores).all()
    assert 0 in scores.argsort()[:10]


def test_nystrom_is_chosen_above_5000_rows_and_agrees_on_the_worst():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 8)) * 4
    y = rng.integers(4, size=5_200)
    X = centres[y] + rng.normal(size=(5_200, 8))
    given, wrong = flip(y, 0.1)
    gap = ComplexityGap(ridge=0.3, n_landmarks=200, random_state=0).fit(X, given)
    assert roc_auc_score(wrong, -gap.scores_) > 0.99
    again = ComplexityGap(ridge=0.3, n_landmarks=200, random_state=0).fit(X, given)
    assert again.scores_ == pytest.approx(gap.scores_)
    assert not np.allclose(ComplexityGap(ridge=0.3, n_landmarks=200, random_state=1).fit(X, given).scores_, gap.scores_)


def test_landmarks_start_where_the_exact_kernel_stops_and_thin_out():
    assert default_landmarks(EXACT_ROWS + 1) > EXACT_ROWS / 2
    counts = [default_landmarks(n) for n in range(EXACT_ROWS, 10_001, 500)]
    assert counts == sorted(counts, reverse=True)
    assert [default_landmarks(n) for n in (10_000, 15_000, 60_000)] == [1_000, 1_500, 2_000]


def test_memory_map_is_read_and_not_written(tmp_path, wine):
    X, y = wine
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    np.testing.assert_array_equal(ComplexityGap().fit(mapped, y).scores_, ComplexityGap().fit(X, y).scores_)
    before = X.copy()
    ComplexityGap(mode="nystrom").fit(X, y)
    np.testing.assert_array_equal(X, before)


def test_imbalanced_classes_are_not_all_sent_to_the_largest():
    rng = np.random.default_rng(0)
    y = np.array([0] * 380 + [1] * 20)
    X = rng.normal(size=(400, 5)) + 4 * y[:, None]
    gap = ComplexityGap().fit(X, y)
    assert (gap.loo_labels_ == y).mean() > 0.97


@in_turn(
    ("params", "X", "y", "message"),
    [
        ({}, [[1.0, np.nan], [0.0, 1.0]], [0, 1], "column 1 has 1 values"),
        ({}, [[1.0, 1.0], [np.inf, 1.0]], [0, 1], "infinity: column 0 .* first in row 1"),
        ({}, [[1.0], [2.0]], ["a", "a"], "1 class"),
        ({"mode": "nystrom", "ridge": 0}, [[1.0], [2.0]], [0, 1], "ridge=0"),
        ({"mode": "paper"}, [[1.0], [2.0]], [0.5, 1.5], "classes only"),
        ({"task": "regression"}, [[1.0], [2.0]], ["a", "b"], "needs numbers"),
        ({"mode": "fast"}, [[1.0], [2.0]], [0, 1], "mode"),
    ],
)
def test_bad_input_gets_an_error_that_says_what_and_where(params, X, y, message):
    with pytest.raises(ValueError, match=message):
        ComplexityGap(**params).fit(np.array(X), np.array(y))
