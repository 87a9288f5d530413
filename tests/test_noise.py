"""How many labels are wrong, on predictions whose noise is known."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

from sktda.noise import (
    NoiseRate,
    anchor_counts,
    as_probabilities,
    association,
    balanced_accuracy,
    balanced_prediction,
    counted,
    explained_variance,
    label_noise,
    label_noise_rate,
    label_posterior,
    largest,
    likely_matrix,
    log_margin,
    log_odds,
    noise_matrix,
    one_way_matrix,
    outlier_rate,
    outliers,
    unfold,
)
from tests.in_turn import in_turn

UNIFORM = np.full((4, 4), 0.1) + 0.6 * np.eye(4)
TRANSITIONS = {
    "clean": np.eye(3),
    "uniform": UNIFORM,
    "next class": 0.7 * np.eye(5) + 0.3 * np.roll(np.eye(5), 1, axis=1),
    "one class only": np.array([[1, 0, 0], [0, 1, 0], [0.2, 0.25, 0.55]]),
    "two classes": np.array([[0.9, 0.1], [0.3, 0.7]]),
    "two classes, one way": np.array([[1, 0], [0.35, 0.65]]),
}
FEWER_AND_FEWER = (1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05)
SHARES = {2: [0.7, 0.3], 3: [0.5, 0.3, 0.2], 4: [0.4, 0.3, 0.2, 0.1], 5: [0.2] * 5}
N = 20_000


@pytest.mark.parametrize("n_values", [2, 7, 100_000])
def test_the_largest_are_those_that_sorting_puts_first(n_values):
    rng = np.random.default_rng(0)
    values = rng.integers(n_values, size=500) / 7
    order = np.argsort(-values, kind="stable")
    for k in (1, 2, 250, 499, 500):
        assert set(largest(values, k)) == set(order[:k])
        assert set(largest(values, k, values[order[k - 1]])) == set(order[:k])


def sample(transition, seed=0, n=N, accuracy=1.0):
    """(decisions, given labels, true labels): rows with a small lead are predicted wrongly first."""
    rng = np.random.default_rng(seed)
    k = len(transition)
    true = rng.choice(k, n, p=SHARES[k])
    given = (rng.random((n, 1)) > transition[true].cumsum(axis=1)).sum(axis=1)
    lead = rng.random(n)
    top = np.where(lead < 1 - accuracy, (true + rng.integers(1, k, n)) % k, true)
    sure = 0.02 + 0.9 * lead[:, None]  # of the way from equal probabilities to one class
    decision = (1 - sure) / k + sure * np.eye(k)[top] + rng.random((n, k)) * 1e-6
    return decision / decision.sum(axis=1, keepdims=True), given, true


@in_turn("accuracy", [1.0, 0.85])
@in_turn("name", TRANSITIONS)
def test_the_matrix_is_recovered(name, accuracy):
    transition = TRANSITIONS[name]
    decision, given, _ = sample(transition, accuracy=accuracy)
    smallest = 0.3 * accuracy * N * min(SHARES[len(transition)])  # anchors of the rarest class
    np.testing.assert_allclose(noise_matrix(decision, given), transition, atol=4 * 0.5 / np.sqrt(smallest))


@pytest.mark.parametrize("accuracy", [1.0, 0.85])
@pytest.mark.parametrize("name", TRANSITIONS)
def test_the_rate_is_recovered(name, accuracy):
    decision, given, true = sample(TRANSITIONS[name], accuracy=accuracy)
    expected = pytest.approx(np.mean(given != true), abs=0.02 if accuracy == 1 else 0.03)
    assert label_noise_rate(decision, given) == expected


def test_a_perfect_predictor_finds_nothing_in_clean_labels():
    decision, given, _ = sample(np.eye(4))
    assert label_noise_rate(decision, given) == 0
    np.testing.assert_array_equal(noise_matrix(decision, given), np.eye(4))


def test_wrong_but_hesitant_predictions_are_not_noise():
    """30 % of the predictions are wrong, all of them unsure: the labels are clean and the rate says so."""
    decision, given, _ = sample(np.eye(4), accuracy=0.7)
    assert np.mean(decision.argmax(axis=1) != given) == pytest.approx(0.3, abs=0.02)
    assert label_noise_rate(decision, given) < 0.01


def test_never_more_than_the_rows_that_disagree():
    rng = np.random.default_rng(0)
    for seed in range(20):
        decision, given, _ = sample(UNIFORM, seed, n=12)
        rate = label_noise_rate(decision, given)
        assert 0 <= rate <= np.mean(decision.argmax(axis=1) != given)
        assert 0 <= label_noise_rate(rng.dirichlet(np.ones(4), 6), given[:6]) <= 1


@pytest.mark.parametrize("name", ["uniform", "next class", "two classes"])
def test_row_order_and_class_names_play_no_part(name):
    decision, given, _ = sample(TRANSITIONS[name], n=2000)
    rate = label_noise_rate(decision, given)
    rows = np.random.default_rng(1).permutation(2000)
    k = decision.shape[1]
    classes = np.random.default_rng(1).permutation(k)
    renamed = np.argsort(classes)[given]
    assert label_noise_rate(decision[rows], given[rows]) == pytest.approx(rate, abs=1e-12)
    assert label_noise_rate(decision[:, classes], renamed) == pytest.approx(rate, abs=1e-9)
    np.testing.assert_allclose(
        noise_matrix(decision[:, classes], renamed), noise_matrix(decision, given)[np.ix_(classes, classes)]
    )


def test_a_class_that_nothing_is_predicted_as_counts_as_clean():
    decision = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(noise_matrix(decision, np.array([0, 1, 2]))[2], [0, 0, 1])


@pytest.mark.parametrize(("n", "anchors"), [(1000, 300), (150, 50), (60, 36), (10, 6), (1, 1)])
def test_how_many_rows_count_as_anchors(n, anchors):
    """The confident rows carry label 1, the others label 0: the share of ones tells how many were tallied."""
    lead = np.arange(n, 0, -1.0)
    decision = np.column_stack([lead, np.zeros(n)])
    given = (np.arange(n) < anchors).astype(int)
    beyond = (np.arange(n) < anchors + 1).astype(int)
    assert noise_matrix(decision, given)[0, 1] == 1
    if n > anchors:
        fewer = (np.arange(n) < anchors - 1).astype(int)
        assert noise_matrix(decision, fewer)[0, 1] == pytest.approx(1 - 1 / anchors)
        assert noise_matrix(decision, beyond)[0, 1] == 1


@pytest.mark.parametrize(("share", "scale"), [(0, 1), (0.05, 1), (0.2, 1e6), (0.3, 1e-6)])
def test_the_share_of_outliers(share, scale):
    rng = np.random.default_rng(0)
    residual = rng.normal(size=2000)
    residual[: round(share * 2000)] += 30 * rng.choice([-1, 1], round(share * 2000))
    assert outlier_rate(5 + residual * scale, residual * scale) == pytest.approx(share, abs=0.004)


def test_errors_that_are_small_beside_the_target_are_no_outliers():
    rng = np.random.default_rng(0)
    residual = rng.standard_t(1, size=2000)  # heavy tails: many lie beyond 3.5 robust deviations of their own
    target = rng.normal(size=2000)
    assert outlier_rate(residual, 0 * target) > 0.1
    assert outlier_rate(1e-6 * residual, target) == 0


def test_no_spread_means_no_outliers():
    assert outlier_rate(np.full(10, 3.0), np.arange(10.0)) == 0
    assert outlier_rate(np.full(10, 3.0), np.full(10, 3.0)) == 0


# ---- how many: the interval, and overlap that is no noise -----------------------------------------------------------


@pytest.mark.parametrize("name", TRANSITIONS)
def test_the_interval_holds_the_rate(name):
    """Predictions are perfect, so nothing but sampling is wrong."""
    inside = []
    for seed in range(20):
        decision, given, true = sample(TRANSITIONS[name], seed, n=1000)
        found = label_noise(decision, given)
        assert 0 <= found.low <= found.rate <= found.high <= 1
        inside.append(found.low <= np.mean(given != true) <= found.high)
    assert np.mean(inside) >= 0.8


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_overlap_is_not_taken_for_noise(n_classes, noise):
    """Classes that overlap along a line, each row predicted with its exact probabilities."""
    rng = np.random.default_rng(0)
    n, other = 4000, noise / (n_classes - 1)
    true = rng.integers(0, n_classes, n)
    x = 2.5 * true + rng.normal(size=n)
    likelihood = np.exp(-((x[:, None] - 2.5 * np.arange(n_classes)) ** 2) / 2)
    clean = likelihood / likelihood.sum(axis=1, keepdims=True)
    given = np.where(rng.random(n) < noise, (true + rng.integers(1, n_classes, n)) % n_classes, true)
    decision = clean * (1 - noise - other) + other
    assert np.mean(decision.argmax(axis=1) != given) > noise + 0.05
    assert abs(label_noise_rate(decision, given) - noise) < 0.05


def planted(wrong):
    """(decisions, codes) of two classes, predicted with falling confidence; labels are wrong where `wrong` says so."""
    n = len(wrong)
    top = np.arange(n) % 2
    decision = np.eye(2)[top] * np.linspace(0.99, 0.6, n)[:, None]
    return decision + (1 - decision.sum(axis=1, keepdims=True)) * np.eye(2)[1 - top], np.where(wrong, 1 - top, top)


@pytest.mark.parametrize(("n", "n_wrong"), [(100, 3), (100, 12), (300, 4), (300, 30), (1000, 3), (1000, 6), (1000, 30)])
def test_few_wrong_labels_are_seen_as_many_as_there_are(n, n_wrong):
    """None among the most confident ones is chance where few are wrong, and does not mean that none is."""
    rates = []
    for seed in range(40):
        wrong = np.random.default_rng(seed).permutation(n) < n_wrong
        rates.append(label_noise_rate(*planted(wrong)))
    assert np.mean(np.array(rates) == 0) < 0.15
    assert np.mean(rates) > 0.7 * n_wrong / n


def score_bounds(k, m, z):
    """Wilson's, where (p - k / m)^2 = z^2 p (1 - p) / m."""
    return np.sort(np.roots([1 + z**2 / m, -2 * k / m - z**2 / m, (k / m) ** 2]))


@pytest.mark.parametrize("n", [60, 300, 1000])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
def test_the_rate_is_the_share_with_the_lowest_upper_bound(n, noise):
    rng = np.random.default_rng(n)
    wrong = rng.random(n) < noise + 0.4 * (np.arange(n) > 0.6 * n)
    found = label_noise(*planted(wrong))
    sizes = [max(round(share * n), 20) for share in FEWER_AND_FEWER]
    _, k, m = min((score_bounds(wrong[:m].sum(), m, norm.ppf(0.99))[1], wrong[:m].sum(), m) for m in sizes)
    assert found.rate == pytest.approx(k / m)
    assert [found.low, found.high] == pytest.approx(score_bounds(k, m, norm.ppf(0.9985)), abs=1e-9)


@pytest.mark.parametrize(("rate", "n", "low", "high"), [(0, 100, 0, 0.02), (0.5, 10_000, 0.49, 0.51), (1, 50, 0.97, 1)])
def test_the_interval_of_a_count(rate, n, low, high):
    found = counted(rate, n)
    assert found.rate == rate
    assert found.low == pytest.approx(low, abs=0.015)
    assert found.high == pytest.approx(high, abs=0.015)


# ---- which class is called what: only what overlap cannot explain ---------------------------------------------------


def test_a_confusion_both_ways_is_overlap():
    counts = np.array([[700, 300, 0], [300, 700, 0], [0, 0, 1000]])
    np.testing.assert_array_equal(one_way_matrix(counts), np.eye(3))


def test_a_confusion_one_way_is_noise():
    counts = np.array([[700, 300, 0], [100, 900, 0], [0, 0, 1000]])
    np.testing.assert_allclose(one_way_matrix(counts), [[0.8, 0.2, 0], [0, 1, 0], [0, 0, 1]])


def test_a_rare_class_is_overlapped_by_a_frequent_one():
    """20 rows of either class look like the other: a share of .2 of the rare one, of .01 of the frequent one."""
    counts = np.array([[80, 20], [20, 1980]])
    np.testing.assert_array_equal(one_way_matrix(counts), np.eye(2))


@pytest.mark.parametrize("n_classes", [2, 5, 20])
def test_chance_makes_no_matrix(n_classes):
    """Labels that are wrong at random: a pair of classes passes for noise by class in few draws."""
    rng = np.random.default_rng(0)
    transition = np.full((n_classes, n_classes), 0.3 / (n_classes - 1))
    np.fill_diagonal(transition, 0.7)
    passed = []
    for _ in range(100):
        counts = np.stack([rng.multinomial(60, row) for row in transition])
        passed.append((one_way_matrix(counts).diagonal() < 1).any())
    assert np.mean(passed) < 0.45  # of two classes: one standard error, either way


@pytest.mark.parametrize("least", [1, 9])
def test_one_certain_pair_among_many_needs_more_than_the_last_of_many(least):
    """10 classes of 60 anchors. The same excess of a pair counts where nine others are certain, and not alone."""
    counts = 58 * np.eye(10, dtype=int) + 1
    np.fill_diagonal(counts, 51)
    for k in range(9 if least == 9 else 0):
        counts[k, k + 1], counts[k, k] = 31, 21
    counts[9, 0], counts[9, 9] = 9, 43
    assert (one_way_matrix(counts)[9, 0] > 0) == (least == 9)


def test_pairs_that_are_not_certain_are_likely_as_counted():
    counts = np.array([[700, 300, 0], [100, 840, 60], [0, 0, 1000]])
    matrix = one_way_matrix(counts)
    likely = likely_matrix(counts, matrix)
    np.testing.assert_allclose(matrix, [[0.8, 0.2, 0], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(likely, [[0.8, 0.2, 0.1 / 3], [0.1 / 3, 1, 0.06], [0.1 / 3, 0.1 / 3, 1]])


def test_classes_that_nothing_is_predicted_as_keep_their_labels():
    assert (one_way_matrix(np.zeros((3, 3), dtype=int)) == np.eye(3)).all()


# ---- from the label's probabilities to those of the true class ------------------------------------------------------

MATRIX = np.array([[0.7, 0.2, 0.1], [0.0, 0.9, 0.1], [0.05, 0.05, 0.9]])


def test_unfolding_inverts_the_matrix_where_that_is_possible():
    true = np.random.default_rng(0).dirichlet(np.full(3, 5.0), size=200)
    np.testing.assert_allclose(unfold(true @ MATRIX, MATRIX), true, atol=0.02)


def test_unfolding_step_by_step():
    q = np.random.default_rng(1).dirichlet(np.ones(3), size=30)
    for given, found in zip(q, unfold(q, MATRIX), strict=True):
        p = np.full(3, 1 / 3)
        for _ in range(30):
            labelled = [sum(p[k] * MATRIX[k, m] for k in range(3)) for m in range(3)]
            p = np.array([p[k] * sum(MATRIX[k, m] * given[m] / labelled[m] for m in range(3)) for k in range(3)])
        np.testing.assert_allclose(found, p, rtol=1e-9)


def test_nothing_to_unfold():
    q = np.random.default_rng(0).dirichlet(np.ones(4), size=10)
    np.testing.assert_array_equal(unfold(q, np.eye(4)), q)


def test_a_matrix_that_cannot_be_inverted():
    found = unfold(np.eye(3), np.full((3, 3), 1 / 3))
    np.testing.assert_allclose(found, 1 / 3)


def test_a_class_that_is_always_called_another_one():
    matrix = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = unfold(np.array([[0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]), matrix)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 0], found[:, 1])  # which of the two cannot be told


def test_the_posterior_is_that_of_bayes():
    true = np.random.default_rng(0).dirichlet(np.full(3, 5.0), size=60)
    codes = np.resize([0, 1, 2], 60)
    found = label_posterior(true, codes, MATRIX)
    odds = log_odds(found, codes)
    for p, j, row, value in zip(true, codes, found, odds, strict=True):
        joint = [p[k] * MATRIX[k, j] for k in range(3)]
        np.testing.assert_allclose(row, np.divide(joint, sum(joint)), rtol=1e-12)
        assert value == pytest.approx(np.log(joint[j] / (sum(joint) - joint[j])))


def test_odds_of_what_is_certain_are_finite():
    assert np.isfinite(log_odds(np.eye(3), np.array([0, 1, 0]))).all()


def test_the_margin_by_hand():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    found = log_margin(probabilities, np.array([0, 2, 1]))
    np.testing.assert_allclose(found, [np.log(5 / 3), np.log(2 / 5), np.log(1e-6)])


def test_decisions_become_probabilities():
    np.testing.assert_allclose(as_probabilities(np.array([[1.2, -0.3]])), [[1.2 / 1.25, 0.05 / 1.25]])
    uniform = np.full((2, 5), 0.2)
    np.testing.assert_allclose(as_probabilities(uniform), uniform)


# ---- do the features predict the label? -----------------------------------------------------------------------------


def test_the_balanced_accuracy_by_hand():
    decision = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.2, 0.8]])
    codes = np.array([0, 0, 1, 0])
    predicted = balanced_prediction(decision)
    np.testing.assert_array_equal(predicted, [0, 0, 1, 1])  # .6 / .575 > .4 / .525
    found, error = balanced_accuracy(predicted, codes)
    assert found == pytest.approx((2 / 3 + 1) / 2)
    assert error == pytest.approx(np.sqrt((2.5 / 4 * 1.5 / 4) / 3 + 1.5 / 2 * 0.5 / 2) / 2)
    by_chance = 1 / 2 * 3 / 4 + 1 / 2 * 1 / 4
    error = np.sqrt(by_chance * (1 - by_chance) / 4)
    assert association(predicted, codes) == pytest.approx((3 / 4 - by_chance) / error)


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.95, 0.05], [0.6, 0.2, 0.1, 0.1], [0.99, 0.005, 0.005]])
def test_predictions_that_know_nothing_are_within_chance(shares):
    rng = np.random.default_rng(0)
    deviations = []
    for _ in range(200):
        codes = rng.choice(len(shares), 400, p=shares)
        decision = rng.dirichlet(20 * np.array(shares), 400)
        deviations.append(association(balanced_prediction(decision), codes))
    assert abs(np.mean(deviations)) < 0.2
    assert np.std(deviations) < 1.2
    assert np.mean(np.array(deviations) > 2) < 0.07


def test_a_class_of_one_row_hides_no_prediction():
    codes = np.append(np.arange(100) % 2, 2)
    decision = np.eye(3)[np.append(np.arange(100) % 2, 0)] * 0.9 + 0.05
    assert association(balanced_prediction(decision), codes) > 5
    assert association(np.zeros(101, dtype=int), codes) == 0


def test_the_explained_variance_by_hand():
    target = np.arange(10.0)
    assert explained_variance(target, target)[0] == 1
    left_out = (target.sum() - target) / 9
    assert explained_variance(left_out, target) == (pytest.approx(0), pytest.approx(0))
    assert explained_variance(target, np.zeros(10)) == (0.0, 0.0)


def test_anchors_are_counted_per_predicted_class():
    counts = anchor_counts(np.eye(3)[[0, 0, 1, 1]], np.array([0, 2, 1, 1]))
    np.testing.assert_array_equal(counts, [[1, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_outliers_are_counted_by_the_attributor_where_it_does_so_itself():
    target = np.r_[np.random.default_rng(0).normal(size=95), np.full(5, 50.0)]
    own = SimpleNamespace(loo_decision_=np.zeros(100), outlier_rate_=0.2, outlier_rate_interval_=(0.1, 0.3))
    assert outliers(own, target) == NoiseRate(0.2, 0.1, 0.3)
    errors = outliers(SimpleNamespace(loo_decision_=np.zeros(100)), target)
    assert errors == counted(0.05, 100)
