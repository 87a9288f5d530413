"""Evaluation: against SciPy and scikit-learn, brute force, invariances, and answers that were planted."""

import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score

from sktda.metrics import (
    BeyondChance,
    NoiseCorrectedScorer,
    beyond_chance,
    bootstrap_interval,
    demographic_parity_gap,
    detection_curve,
    equal_opportunity_gap,
    leave_one_out_correlation,
    linear_datamodeling_score,
    noise_ceiling,
    noise_corrected_accuracy,
    removal_curve,
    standard_error,
)
from sktda.metrics.statistics import pearson, ranks, spearman
from tests.in_turn import in_turn

N_SUBSETS, N_TRAIN, N_QUERY = 60, 40, 7


def half_subsets(n_subsets, n_train, rng):
    kept = np.zeros((n_subsets, n_train), dtype=bool)
    for row in kept:
        row[rng.permutation(n_train)[: n_train // 2]] = True
    return kept


def planted(reliability, n_retrains=1, n_subsets=N_SUBSETS, n_query=N_QUERY, seed=0):
    """(values, kept, measured): the loss of a subset is minus the sum of the values it kept, plus noise of retraining.

    The noise is such that the mean of all retrains has the given reliability: variance of the sum / all of it.
    """
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_query, N_TRAIN))
    kept = half_subsets(n_subsets, N_TRAIN, rng)
    signal = -(kept @ values.T)[:, None, :]
    noise = rng.normal(size=(n_subsets, n_retrains, n_query)) * signal.std(axis=0)
    return values, kept, signal + noise * np.sqrt(n_retrains * (1 - reliability) / reliability)


# ---- correlations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [3, 1000], ids=["many ties", "few ties"])
def test_correlations_equal_those_of_scipy(levels):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, levels, (30, 5)).astype(float), rng.integers(0, levels, (30, 5)).astype(float)
    b += a
    for j in range(5):
        assert spearman(a, b)[j] == pytest.approx(spearmanr(a[:, j], b[:, j]).statistic, abs=1e-12)
        assert pearson(a, b)[j] == pytest.approx(pearsonr(a[:, j], b[:, j]).statistic, abs=1e-12)


def test_ties_share_their_mean_rank():
    np.testing.assert_array_equal(ranks(np.array([[5.0], [1.0], [5.0], [7.0]])), [[1.5], [0], [1.5], [3]])


def test_what_does_not_vary_correlates_with_nothing():
    a = np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0]])  # 0.1 + 0.1 + 0.1 is not 3 * 0.1: rounding is no variation
    b = np.array([[1.0, 0.3], [2.0, 0.3], [4.0, 0.3]])
    for correlation in (pearson, spearman):
        np.testing.assert_array_equal(correlation(a, b), [0, 0])


# ---- LDS ------------------------------------------------------------------------------------------------------------


def test_score_by_hand():
    """Every subset and query in a loop; subsets of different sizes, retrains averaged."""
    rng = np.random.default_rng(1)
    values, kept = rng.normal(size=(3, 12)), rng.random((9, 12)) < 0.6
    measured = rng.normal(size=(9, 4, 3))
    for q, score in enumerate(linear_datamodeling_score(values, kept, measured)):
        predicted = [sum(values[q, i] for i in range(12) if not subset[i]) for subset in kept]
        averaged = [sum(measured[s, r, q] for r in range(4)) / 4 for s in range(9)]
        assert score == pytest.approx(spearmanr(predicted, averaged).statistic, abs=1e-12)


def test_true_values_are_recognised_and_negated_ones_too():
    values, kept, measured = planted(reliability=1)
    np.testing.assert_allclose(linear_datamodeling_score(values, kept, measured), 1)
    np.testing.assert_allclose(linear_datamodeling_score(-values, kept, measured), -1)
    np.testing.assert_array_equal(linear_datamodeling_score(np.zeros_like(values), kept, measured), 0)


def test_score_is_that_of_its_query():
    values, kept, measured = planted(reliability=1)
    values[2] = -values[2]
    np.testing.assert_allclose(linear_datamodeling_score(values, kept, measured), [1, 1, -1, 1, 1, 1, 1])


@pytest.mark.parametrize(
    "change",
    [
        lambda values, kept, measured: (3 * values, kept, measured),
        lambda values, kept, measured: (values + 5, kept, measured),  # every subset leaves out as many rows
        lambda values, kept, measured: (values, kept, np.exp(measured / 10)),
        lambda values, kept, measured: (values, kept, measured[:, None].repeat(3, axis=1)),
        lambda values, kept, measured: (values, kept.astype(np.uint8), measured),  # as unpackbits returns them
    ],
)
def test_score_does_not_depend_on_scale_offset_and_form(change):
    values, kept, measured = planted(reliability=0.6)
    measured = measured.mean(axis=1)
    expected = linear_datamodeling_score(values, kept, measured)
    np.testing.assert_allclose(linear_datamodeling_score(*change(values, kept, measured)), expected, atol=1e-12)


def test_score_does_not_depend_on_the_order_of_subsets_and_rows():
    values, kept, measured = planted(reliability=0.6, n_retrains=3)
    expected = linear_datamodeling_score(values, kept, measured)
    rng = np.random.default_rng(3)
    subsets, rows, queries = (rng.permutation(n) for n in (N_SUBSETS, N_TRAIN, N_QUERY))
    by_subset = linear_datamodeling_score(values, kept[subsets], measured[subsets])
    by_row = linear_datamodeling_score(values[:, rows], kept[:, rows], measured)
    by_query = linear_datamodeling_score(values[queries], kept, measured[..., queries])
    np.testing.assert_allclose(by_subset, expected, atol=1e-12)
    np.testing.assert_allclose(by_row, expected, atol=1e-12)
    np.testing.assert_allclose(by_query, expected[queries], atol=1e-12)


@pytest.mark.parametrize(
    ("values", "kept", "measured"),
    [((2, 5), (9, 6), (9, 2)), ((2, 5), (9, 5), (8, 2)), ((2, 5), (9, 5), (9, 3)), ((5,), (9, 5), (9, 1))],
)
def test_shapes_that_do_not_match_are_named(values, kept, measured):
    with pytest.raises(ValueError, match=r"got values .*\(n_query, n_train\), \(n_subsets, n_train\) and") as error:
        linear_datamodeling_score(np.zeros(values), np.zeros(kept), np.zeros(measured))
    assert all(str(shape) in str(error.value) for shape in (values, kept, measured))


def test_two_subsets_are_too_few():
    with pytest.raises(ValueError, match="2 subsets give no rank correlation; retrain on at least 3"):
        linear_datamodeling_score(np.ones((1, 4)), np.eye(4)[:2], np.ones((2, 1)))


# ---- noise ceiling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reliability", "n_retrains"), [(0.3, 2), (0.7, 3), (0.95, 5), (0.3, 8), (0.95, 2)])
def test_ceiling_is_the_root_of_the_known_reliability_and_what_true_values_reach(reliability, n_retrains):
    values, kept, measured = planted(reliability, n_retrains, n_subsets=1500, n_query=10)
    # normal variables: the rank correlation is 6/pi arcsin(r/2), up to .018 below r
    assert noise_ceiling(measured) == pytest.approx(np.sqrt(reliability), abs=0.03)
    reached = linear_datamodeling_score(values, kept, measured).mean()
    assert reached == pytest.approx(noise_ceiling(measured), abs=0.03)


def test_two_retrains_have_one_split():
    _, _, measured = planted(0.5, n_retrains=2)
    r = np.mean([spearmanr(measured[:, 0, q], measured[:, 1, q]).statistic for q in range(N_QUERY)])
    assert noise_ceiling(measured) == pytest.approx(np.sqrt(2 * r / (1 + r)), abs=1e-12)


def test_three_retrains_by_all_their_splits():
    """One of an odd number stays out: pairs of single retrains, taken to a length of 3."""
    _, _, measured = planted(0.5, n_retrains=3, n_subsets=2000)
    pairs = [spearman(measured[:, a], measured[:, b]).mean() for a, b in [(0, 1), (0, 2), (1, 2)]]
    r = np.mean(pairs)
    assert np.ptp(pairs) < 0.03
    assert noise_ceiling(measured) == pytest.approx(np.sqrt(3 * r / (1 + 2 * r)), abs=0.003)


def test_ceiling_is_one_without_noise_and_nothing_for_noise_alone():
    _, _, measured = planted(1, n_retrains=4)
    assert noise_ceiling(measured) == pytest.approx(1, abs=1e-12)
    assert noise_ceiling(np.stack([measured[:, 0], -measured[:, 0]], axis=1)) == 0  # r = -1
    assert noise_ceiling(np.random.default_rng(0).normal(size=(1000, 4, 30))) < 0.2


def test_ceiling_does_not_depend_on_scale_and_order_of_subsets():
    _, _, measured = planted(0.5, n_retrains=4)
    order = np.random.default_rng(0).permutation(N_SUBSETS)
    assert noise_ceiling(5 - 3 * measured[order]) == pytest.approx(noise_ceiling(measured), abs=1e-12)


@pytest.mark.parametrize("shape", [(9, 4), (9, 1, 4), (2, 5, 4)])
def test_ceiling_needs_retrains(shape):
    with pytest.raises(ValueError, match=r"at least 3 subsets and 2 retrains") as error:
        noise_ceiling(np.zeros(shape))
    assert str(shape) in str(error.value)


# ---- bootstrap ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "deviations"), [(0.95, 1.960), (0.6827, 1.0)])
def test_interval_is_that_of_the_normal_approximation(level, deviations):
    scores = np.random.default_rng(0).normal(3, 2, size=400)
    error = scores.std() / 20
    low, high = bootstrap_interval(scores, level)
    np.testing.assert_allclose([low, high], scores.mean() + deviations * error * np.array([-1, 1]), atol=0.06 * error)


def test_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.exponential(size=50), 0.8) for _ in range(60)]
    covered = np.mean([low < 1 < high for low, high in intervals])
    assert covered == pytest.approx(0.8, abs=3 * np.sqrt(0.16 / 60))


def test_interval_moves_with_the_scores():
    scores = np.random.default_rng(0).random(30)
    low, high = bootstrap_interval(scores)
    assert bootstrap_interval(2 * scores - 7) == pytest.approx((2 * low - 7, 2 * high - 7))
    assert bootstrap_interval(scores) == (low, high), "the same draws every time"
    assert bootstrap_interval(np.full(5, 0.5)) == (0.5, 0.5)


@pytest.mark.parametrize("scores", [np.array([]), np.ones((3, 2)), np.float64(1)])
def test_interval_needs_a_list_of_scores(scores):
    with pytest.raises(ValueError, match=r"scores has shape \(.*\); expected is \(n,\)"):
        bootstrap_interval(scores)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_level_is_a_share(level):
    with pytest.raises(ValueError, match=f"level={level} is not a share between 0 and 1"):
        bootstrap_interval(np.ones(3), level)


# ---- detection ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [4, 10_000], ids=["many ties", "few ties"])
def test_area_is_the_auroc_of_scikit_learn(levels):
    rng = np.random.default_rng(0)
    wrong = rng.random(200) < 0.15
    scores = rng.integers(0, levels, 200) - 0.4 * levels * wrong * rng.random(200).round(1)
    _, _, auroc = detection_curve(scores, wrong)
    assert auroc == pytest.approx(roc_auc_score(wrong, -scores), abs=1e-12)
    assert detection_curve(-scores, wrong)[2] == pytest.approx(1 - auroc, abs=1e-12)
    assert detection_curve(np.arctan(scores / levels), wrong)[2] == pytest.approx(auroc, abs=1e-12)


def test_curve_counts_the_mistakes_among_the_lowest_scores():
    rng = np.random.default_rng(0)
    scores, wrong = rng.normal(size=50), rng.random(50) < 0.3
    inspected, found, _ = detection_curve(scores, wrong)
    for k in range(51):
        lowest = np.argsort(scores)[:k]
        assert inspected[k] == pytest.approx(k / 50)
        assert found[k] == pytest.approx(wrong[lowest].sum() / wrong.sum())


def test_curve_of_ties_is_the_mean_over_their_orders():
    rng = np.random.default_rng(0)
    scores, wrong = rng.integers(0, 3, 12), rng.random(12) < 0.4
    orders = [detection_curve(scores + rng.permutation(12) / 100, wrong)[1] for _ in range(2000)]
    np.testing.assert_allclose(detection_curve(scores, wrong)[1], np.mean(orders, axis=0), atol=0.03)


def test_scores_that_say_nothing_give_a_straight_line():
    inspected, found, auroc = detection_curve(np.zeros(8), np.arange(8) < 2)
    np.testing.assert_allclose(found, inspected)
    assert auroc == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("scores", "wrong"),
    [(np.ones(4), np.ones(4)), (np.ones(4), np.zeros(4)), (np.ones(4), np.arange(5) < 2), (np.ones((2, 2)), np.eye(2))],
)
def test_detection_needs_wrong_and_right_rows(scores, wrong):
    with pytest.raises(ValueError, match="both wrong and right rows") as error:
        detection_curve(scores, wrong)
    assert f"scores {scores.shape} and wrong {wrong.shape} with {int(wrong.sum())} wrong rows" in str(error.value)


# ---- removal --------------------------------------------------------------------------------------------------------


def test_nearest_neighbours_flip_when_their_own_class_is_gone():
    """The queries have one, two and three rows of class 0 before the first of class 1."""
    X = np.array([1.0, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24])
    y = np.array([0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1])
    distances = np.abs(np.array([[0.0], [10], [20]]) - X)

    def retrain(kept):
        return y[np.where(kept, distances, np.inf).argmin(axis=1)]

    np.testing.assert_allclose(removal_curve(-distances, [0, 1, 2, 3], retrain), [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(removal_curve(-distances, [3, 1], retrain), [1, 1 / 3])
    np.testing.assert_allclose(removal_curve(distances, [1, 3], retrain), [0, 0])  # the farthest decide nothing


def test_ridge_flips_by_the_rows_that_influence_finds():
    """Least squares on targets -1 and 1, retrained exactly; first-order values of f = -side * prediction."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5))
    y = np.sign(X @ rng.normal(size=5) + rng.normal(size=60))
    queries = rng.normal(size=(20, 5))

    def predict(kept):
        return Ridge(alpha=1.0, fit_intercept=False).fit(X[kept], y[kept]).predict(queries)

    prediction = predict(np.ones(60, dtype=bool))
    inverse = np.linalg.inv(X.T @ X + np.eye(5))
    values = -np.sign(prediction)[:, None] * (queries @ inverse @ X.T) * (X @ inverse @ X.T @ y - y)
    counts = [2, 8, 20]
    flips = removal_curve(values, counts, lambda kept: np.sign(predict(kept)))
    for k, share in zip(counts, flips, strict=True):
        rows = [np.argsort(value)[:-k] for value in values]
        by_hand = [predict(kept)[q] * prediction[q] < 0 for q, kept in enumerate(rows)]
        assert share == np.mean(by_hand)
    by_chance = removal_curve(rng.normal(size=values.shape), counts, lambda kept: np.sign(predict(kept)))
    assert np.all(np.diff(flips) > 0)
    assert flips[-1] > by_chance[-1] + 0.4
    against = removal_curve(-values, counts, lambda kept: np.sign(predict(kept)))
    np.testing.assert_array_equal(against, 0)  # rows that speak against the prediction do not hold it up


def test_retrain_is_asked_for_all_rows_and_for_every_query_and_count():
    seen = []

    def retrain(kept):
        seen.append(np.flatnonzero(~kept).tolist())
        return np.array(["a", "b"])  # any labels

    values = np.array([[1.0, 3.0, 2.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(removal_curve(values, [1, 3], retrain), [0, 0])
    assert seen == [[], [1], [3], [0, 1, 2], [1, 2, 3]]


def test_removal_says_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"4 of 4 rows cannot be removed; remove 0 to 3"):
        removal_curve(np.ones((2, 4)), [1, 4], lambda kept: np.zeros(2))
    with pytest.raises(ValueError, match=r"-1 of 4 rows cannot be removed; remove 0 to 3"):
        removal_curve(np.ones((2, 4)), [-1], lambda kept: np.zeros(2))
    with pytest.raises(ValueError, match=r"retrain returned shape \(2, 1\); expected .* \(2,\)"):
        removal_curve(np.ones((2, 4)), [1], lambda kept: np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"values has shape \(4,\); expected is \(n_query, n_train\)"):
        removal_curve(np.ones(4), [1], lambda kept: np.zeros(1))


# ---- leave-one-out --------------------------------------------------------------------------------------------------


def ridge_without_single_rows(n=80):
    """(values, retrained, full): squared errors of queries, first-order values and exact refits."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 6))
    y = X @ rng.normal(size=6) + rng.normal(size=n)
    queries, targets = rng.normal(size=(5, 6)), rng.normal(size=5)

    def losses(kept):
        return (Ridge(alpha=1.0, fit_intercept=False).fit(X[kept], y[kept]).predict(queries) - targets) ** 2

    hessian = 2 / n * (X.T @ X + np.eye(6))
    theta = np.linalg.solve(X.T @ X + np.eye(6), X.T @ y)
    gradients = 2 * (X @ theta - y)[:, None] * X
    of_query = 2 * (queries @ theta - targets)[:, None] * queries
    values = of_query @ np.linalg.solve(hessian, gradients.T) / n
    retrained = np.array([losses(np.delete(np.arange(n), i)) for i in range(n)])
    return values, retrained, losses(np.arange(n))


def test_influence_of_ridge_agrees_with_refits():
    values, retrained, full = ridge_without_single_rows()
    found = leave_one_out_correlation(values, retrained, full)
    assert found["pearson"].min() > 0.97
    assert found["spearman"].min() > 0.97
    assert 1.0 < found["slope"].min() <= found["slope"].max() < 1.3  # about 1 / (1 - leverage)
    for q in range(5):
        rise = retrained[:, q] - full[q]
        assert found["pearson"][q] == pytest.approx(pearsonr(values[q], rise).statistic, abs=1e-12)
        assert found["spearman"][q] == pytest.approx(spearmanr(values[q], rise).statistic, abs=1e-12)
        assert found["slope"][q] == pytest.approx(np.polyfit(values[q], rise, 1)[0], abs=1e-9)


def test_slope_and_sign_follow_the_values():
    values, retrained, full = ridge_without_single_rows(20)
    found = leave_one_out_correlation(values, retrained, full)
    scaled = leave_one_out_correlation(-2 * values, retrained, full)
    np.testing.assert_allclose(scaled["pearson"], -found["pearson"])
    np.testing.assert_allclose(scaled["spearman"], -found["spearman"])
    np.testing.assert_allclose(scaled["slope"], -found["slope"] / 2)
    values[1] = 0.1
    assert [of[1] for of in leave_one_out_correlation(values, retrained, full).values()] == [0, 0, 0]


def test_leave_one_out_says_what_does_not_match():
    message = (
        r"got values \(2, 5\), retrained \(2, 5\) and full \(2,\); expected \(n_query, n_rows\), \(n_rows, n_query\)"
    )
    with pytest.raises(ValueError, match=message):
        leave_one_out_correlation(np.ones((2, 5)), np.ones((2, 5)), np.ones(2))
    with pytest.raises(ValueError, match=r"full \(5,\); expected"):
        leave_one_out_correlation(np.ones((2, 5)), np.ones((5, 2)), np.ones(5))
    with pytest.raises(ValueError, match=r"values \(5,\)"):
        leave_one_out_correlation(np.ones(5), np.ones(5), np.ones(5))
    with pytest.raises(ValueError, match="2 rows give no correlation; leave out at least 3"):
        leave_one_out_correlation(np.ones((1, 2)), np.ones((2, 1)), np.ones(1))


# ---- all ------------------------------------------------------------------------------------------------------------

HALF = np.array([True, False, False])


@in_turn(
    ("name", "call"),
    [
        ("values", lambda bad, good: linear_datamodeling_score(bad, np.eye(3), good)),
        ("measured", lambda bad, good: linear_datamodeling_score(good, np.eye(3), bad)),
        ("measured", lambda bad, good: noise_ceiling(np.stack([bad, good], axis=1))),
        ("scores", lambda bad, good: bootstrap_interval(bad.ravel())),
        ("scores", lambda bad, good: detection_curve(bad[:, 0], HALF)),
        ("values", lambda bad, good: removal_curve(bad, [1], lambda kept: np.zeros(3))),
        ("values", lambda bad, good: leave_one_out_correlation(bad, good, good[0])),
        ("retrained", lambda bad, good: leave_one_out_correlation(good, bad, good[0])),
        ("full", lambda bad, good: leave_one_out_correlation(good, good, bad[:, 0])),
    ],
)
@in_turn("number", [np.nan, np.inf])
def test_numbers_of_a_diverged_model_are_refused(name, call, number):
    good = np.arange(9.0).reshape(3, 3)
    bad = good.copy()
    bad[1, 0] = number
    with pytest.raises(ValueError, match=rf"1 of \d+ numbers in {name} are NaN or infinite"):
        call(bad, good)


def test_sums_that_only_rounding_tells_apart_are_ties():
    rng = np.random.default_rng(0)
    kept = np.array([rng.permutation(100) < 50 for _ in range(60)])
    measured, classes = rng.normal(size=(60, 3)), rng.integers(3, size=100)
    assert (linear_datamodeling_score(np.full((3, 100), 0.1), kept, measured) == 0).all()
    same = classes == np.arange(3)[:, None]  # whole numbers, whose sums are exact
    exact = linear_datamodeling_score(same, kept, measured)
    for unit in (0.1, 1e-30):
        np.testing.assert_allclose(linear_datamodeling_score(unit * same, kept, measured), exact, rtol=1e-9)


@in_turn(("low", "prior", "high"), [(0.1, 0.15, 0.2), (0.1, 0.2, 0.3), (0.05, 0.075, 0.1), (0.3, 0.4, 0.5)])
def test_of_two_candidates_as_near_to_the_prior_the_better_is_the_prior_one(low, prior, high):
    for better in (0, 1):
        scores = np.zeros((3, 3))
        scores[:, better], scores[:, 2] = 0.5, [0.9, 0.9, 0]  # the third is best, but by chance
        results = {f"split{k}_test_score": scores[k] for k in range(3)}
        results["params"] = [{"a": low}, {"a": high}, {"a": high + 1}]
        assert BeyondChance({"a": prior})(results) == better


# ---- gaps between groups --------------------------------------------------------------------------------------------


def test_gaps_between_groups_by_hand():
    groups = np.array(["a"] * 4 + ["b"] * 2 + ["c"] * 2)
    y_true = np.array([1, 1, 0, 0, 1, 0, 1, 1])
    y_pred = np.array([1, 0, 1, 1, 0, 0, 1, 0])
    assert demographic_parity_gap(y_pred, groups) == 0.75  # a 3/4, b 0, c 1/2
    assert equal_opportunity_gap(y_true, y_pred, groups) == 0.5  # a 1/2, b 0, c 1/2
    assert demographic_parity_gap(y_pred, groups, positive=0) == 0.75
    assert equal_opportunity_gap(y_true[:6], y_pred[:6], groups[:6], positive=0) == 1.0  # a 0, b 1
    words = np.where(y_pred == 1, "yes", "no")
    assert demographic_parity_gap(words, groups, positive="yes") == 0.75
    order = np.random.default_rng(0).permutation(8)
    assert demographic_parity_gap(y_pred[order], groups[order]) == 0.75


@in_turn("labels", [["yes", "no"], ["1", "0"], np.array(["yes", "no"], dtype=object)])
def test_gaps_of_text_need_a_text_that_is_positive(labels):
    with pytest.raises(
        ValueError, match=r"y_pred holds labels such as .*positive=1 is none of their kind; give the label"
    ):
        demographic_parity_gap(labels, ["a", "b"])
    with pytest.raises(ValueError, match="y_pred holds"):
        equal_opportunity_gap([1, 1], labels, ["a", "b"])
    with pytest.raises(ValueError, match="y_true holds labels such as 1, and positive='yes'"):
        equal_opportunity_gap([1, 1], ["yes", "no"], ["a", "b"], positive="yes")
    assert demographic_parity_gap(labels, ["a", "b"], positive=labels[0]) == 1


@in_turn("missing", [None, np.nan, pd.NA])
def test_gaps_need_a_group_of_each_row(missing):
    with pytest.raises(ValueError, match="1 rows have no group; name it"):
        demographic_parity_gap([1, 1, 0], pd.Series(["a", missing, "b"], dtype=object))


def test_gaps_of_columns():
    y_true, y_pred, groups = np.array([1, 1, 0, 1]), np.array([1, 0, 0, 1]), np.array(["a", "a", "a", "b"])
    assert equal_opportunity_gap(y_true[:, None], y_pred, groups) == 0.5
    assert equal_opportunity_gap(y_true, pd.DataFrame({"y": y_pred}), pd.DataFrame({"group": groups})) == 0.5


def test_gaps_that_do_not_exist():
    with pytest.raises(ValueError, match="all 2 rows are of one"):
        demographic_parity_gap([1, 0], ["a", "a"])
    with pytest.raises(ValueError, match="no row of the group b is positive"):
        equal_opportunity_gap([1, 0], [1, 0], ["a", "b"])
    with pytest.raises(ValueError, match="got 2 predictions, 2 labels and 1 groups"):
        demographic_parity_gap([1, 0], ["a"])


# ---- judging by wrong labels -----------------------------------------------------------------------------------------

MATRICES = {
    "uniform": np.full((3, 3), 0.1) + 0.7 * np.eye(3),
    "by class": np.array([[0.6, 0.4, 0.0], [0.0, 1.0, 0.0], [0.1, 0.2, 0.7]]),
    "most labels wrong": np.array([[0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.8, 0.1, 0.1]]),
}


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
def test_the_corrected_accuracy_is_unbiased(matrix):
    """Its mean over all ways in which five labels can come out, each as probable as the noise makes it."""
    true, predicted = np.array([0, 1, 1, 2, 2]), np.array([0, 2, 1, 2, 0])
    expected, total = 0.0, 0.0
    for given in itertools.product(range(3), repeat=5):
        probability = matrix[true, given].prod()
        total += probability
        if probability:
            expected += probability * noise_corrected_accuracy(given, predicted, matrix)
    assert total == pytest.approx(1)
    assert expected == pytest.approx((true == predicted).mean(), abs=1e-12)


def test_noise_by_class_puts_models_in_another_order_and_uniform_noise_does_not():
    """Half of the cats are called dogs: the model that learned the mistake looks better, until it is corrected."""
    true = np.repeat([0, 1], [600, 400])
    given = true.copy()
    given[:300] = 1
    right, fooled = np.where(np.arange(1000) % 10 == 0, 1 - true, true), given.copy()
    matrix = np.array([[0.5, 0.5], [0, 1]])
    assert (right == given).mean() < (fooled == given).mean()
    assert noise_corrected_accuracy(given, right, matrix) == pytest.approx(0.9)
    assert noise_corrected_accuracy(given, fooled, np.eye(2)) == 1  # no noise: the accuracy itself
    rng = np.random.default_rng(0)
    given = rng.integers(0, 3, 50)
    plain, corrected = [], []
    for _ in range(10):
        predicted = np.where(rng.random(50) < 0.6, given, rng.integers(0, 3, 50))
        plain.append((predicted == given).mean())
        corrected.append(noise_corrected_accuracy(given, predicted, MATRICES["uniform"]))
    np.testing.assert_allclose(corrected, (np.array(plain) - 0.1) / 0.7)


def test_classes_of_any_kind_and_order():
    names, matrix = np.array(["b", "c", "a"]), MATRICES["by class"]
    given, predicted = np.array([0, 1, 2, 2, 0]), np.array([0, 1, 1, 2, 1])
    expected = noise_corrected_accuracy(given, predicted, matrix)
    assert noise_corrected_accuracy(names[given], names[predicted], matrix, names) == expected
    order = np.array([2, 0, 1])
    again = noise_corrected_accuracy(names[given], names[predicted], matrix[np.ix_(order, order)], names[order])
    assert again == pytest.approx(expected, rel=1e-12)


@in_turn(
    ("given", "predicted", "matrix", "classes", "message"),
    [
        ([0, 1], [0, 1], np.ones((2, 3)) / 3, None, "must be square"),
        ([0, 1], [0, 1], np.eye(2) / 2, None, "every row must sum to 1"),
        ([0, 1], [0, 1], np.full((2, 2), 0.5), None, "must have shares of at least 0 and an inverse"),
        ([0, 1], [0, 1], [[1.5, -0.5], [0, 1]], None, "must have shares of at least 0"),
        ([0, 1], [0, 1], np.eye(2), ["a", "b", "c"], "3 classes do not match"),
        ([0, 2], [0, 1], np.eye(2), None, r"y_true holds .*2.*, which is not among the classes \[0, 1\]"),
        (["a", "b"], ["a", "z"], np.eye(2), ["a", "b"], "y_pred holds .*'z'"),
        ([0, 1], [0], np.eye(2), None, "got 2 labels and 1 predictions"),
    ],
)
def test_what_cannot_be_corrected(given, predicted, matrix, classes, message):
    with pytest.raises(ValueError, match=message):
        noise_corrected_accuracy(given, predicted, matrix, classes)


def test_the_scorer_works_wherever_scikit_learn_takes_one():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 2)), np.array(["a", "b", "c"])[np.arange(90) % 3]
    scorer = pickle.loads(pickle.dumps(NoiseCorrectedScorer(np.eye(3))))
    plain = cross_val_score(LogisticRegression(), X, y, cv=3)
    np.testing.assert_allclose(cross_val_score(LogisticRegression(), X, y, cv=3, scoring=scorer), plain)
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, scoring=scorer, cv=3).fit(X, y)
    assert search.best_score_ <= 1
    uniform = NoiseCorrectedScorer(MATRICES["uniform"], ["a", "b", "c"])
    model = DummyClassifier(strategy="constant", constant="a").fit(X, y)
    assert uniform(model, X, y) == pytest.approx((1 / 3 - 0.1) / 0.7)


def test_the_prior_is_left_beyond_a_standard_error_only():
    scores = np.array([[0.5, 0.6, 0.55], [0.7, 0.8, 0.76], [0.9, 0.85, 0.95]])
    gain = scores[:, 1] - scores[:, 0]
    assert standard_error(gain) == pytest.approx(gain.std(ddof=1) / np.sqrt(3))
    assert gain.mean() < standard_error(gain)
    assert beyond_chance(scores[:, :2], 0) == 0  # better, but not on every split
    assert beyond_chance(scores[:, [0, 2]], 0) == 1  # better on each, by about as much
    assert beyond_chance(scores, 1) == 1  # the best is the prior's equal
    assert beyond_chance(scores[:1], 0) == 1  # of one split nothing is known but the score
    assert beyond_chance(np.ones((4, 3)), 2) == 2
    hard = scores + np.array([[-9.0], [0], [9]])  # splits that are hard for all do not count
    assert beyond_chance(hard[:, [0, 2]], 0) == 1
    assert beyond_chance([[np.nan, 0.1], [0.9, 0.1]], 0) == 1  # fits that failed
    assert beyond_chance([[0.1, np.nan], [0.1, 0.9]], 0) == 0
    for scores, prior in [([0.1, 0.2], 0), ([[0.1, 0.2]], 2), ([[0.1, 0.2]], -1)]:
        with pytest.raises(ValueError, match="expected \\(n_splits, n_candidates\\)"):
            beyond_chance(scores, prior)


def test_chance_does_not_lead_away_from_the_prior():
    """Twenty candidates that are equally good: the best is another one nearly always, and the rule mostly stays."""
    rng = np.random.default_rng(0)
    stayed = [beyond_chance(rng.normal(size=(5, 2)), 0) == 0 for _ in range(1000)]
    assert 0.79 < np.mean(stayed) < 0.84  # a t of 4 degrees of freedom exceeds 1 in 18.7 %


def results(splits, params, metric="score"):
    return {"params": params, **{f"split{k}_test_{metric}": np.array(each) for k, each in enumerate(splits)}}


@pytest.mark.parametrize(
    ("values", "prior", "nearest"),
    [
        ([None, 3, 5], 3.4, 1),
        ([None, 3, 5], None, 0),
        ([3, 5, None], "auto", 0),  # all as far: the first of equally good ones
        (["auto", 3, 5], 6, 2),
        (["auto", "3", 5], "3", 1),
        ([np.nan, 0, -1], float("nan"), 0),
        ([np.nan, 0, -1], -0.8, 2),
        ([np.inf, 1, 2], np.inf, 0),
        ([np.inf, 1, 2], 1.9, 2),
        ([1, True, 0], True, 1),
        ([True, 1, 5], 1, 1),
        ([0, *np.array([False, True])], True, 2),
        ([False, np.float64(1), np.int64(5)], 4, 2),
        ([None, pd.NA, 1], pd.NA, 1),
        ([None, (10,), (10, 10)], (10, 10), 2),
        ([None, np.ones(2), np.ones(3)], np.ones(3), 2),
        ([None, None, None], 1, 0),
    ],
)
def test_what_is_no_number_is_equal_to_the_prior_or_not(values, prior, nearest):
    flat = results([[0.5] * 3] * 2, [{"a": value} for value in values])
    assert BeyondChance({"a": prior})(flat) == nearest


def test_the_choice_of_a_search_starts_at_the_nearest_candidate():
    params = [{"ratio": r, "C": c} for r in (0, 0.1, 0.2) for c in (1, 2)]
    flat = results([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]], params)
    assert BeyondChance({"ratio": 0.12})(flat) == 2  # of the two, the first of equally good ones
    assert BeyondChance({"ratio": 0.12, "C": 2})(flat) == 3
    assert BeyondChance({"ratio": 7})(flat) == 4
    better = results([[0.1, 0.2, 0.3, 0.3, 0.5, 0.6]] * 2, params, "f1")
    assert BeyondChance({"ratio": 0}, "f1")(better) == 5
    names = results([[0.1, 0.1]], [{"kernel": "a"}, {"kernel": None}])
    assert [BeyondChance({"kernel": value})(names) for value in ("a", None)] == [0, 1]
    with pytest.raises(ValueError, match="must name parameters of the search, which are"):
        BeyondChance({"share": 0.1})(flat)
    with pytest.raises(ValueError, match="the search has no scores of metric='f1'"):
        BeyondChance({"ratio": 0.1}, "f1")(flat)
    assert pickle.loads(pickle.dumps(BeyondChance({"ratio": 0.12})))(flat) == 2
