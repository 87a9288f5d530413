"""How many labels are wrong, on predictions whose noise is known."""

import numpy as np
import pytest

from sktda.noise import label_noise_rate, noise_matrix, outlier_rate

UNIFORM = np.full((4, 4), 0.1) + 0.6 * np.eye(4)
TRANSITIONS = {
    "clean": np.eye(3),
    "uniform": UNIFORM,
    "next class": 0.7 * np.eye(5) + 0.3 * np.roll(np.eye(5), 1, axis=1),
    "one class only": np.array([[1, 0, 0], [0, 1, 0], [0.2, 0.25, 0.55]]),
    "two classes": np.array([[0.9, 0.1], [0.3, 0.7]]),
    "two classes, one way": np.array([[1, 0], [0.35, 0.65]]),
}
SHARES = {2: [0.7, 0.3], 3: [0.5, 0.3, 0.2], 4: [0.4, 0.3, 0.2, 0.1], 5: [0.2] * 5}
N = 20_000


def sample(transition, seed=0, n=N, accuracy=1.0):
    """(decisions, given labels, true labels): rows with a small lead are predicted wrongly first."""
    rng = np.random.default_rng(seed)
    k = len(transition)
    true = rng.choice(k, n, p=SHARES[k])
    given = (rng.random((n, 1)) > transition[true].cumsum(axis=1)).sum(axis=1)
    lead = rng.random(n)
    top = np.where(lead < 1 - accuracy, (true + rng.integers(1, k, n)) % k, true)
    decision = rng.random((n, k)) * 1e-3
    decision[np.arange(n), top] += 0.01 + lead
    return decision, given, true


@pytest.mark.parametrize("accuracy", [1.0, 0.85])
@pytest.mark.parametrize("name", TRANSITIONS)
def test_the_matrix_is_recovered(name, accuracy):
    transition = TRANSITIONS[name]
    decision, given, _ = sample(transition, accuracy=accuracy)
    smallest = 0.3 * accuracy * N * min(SHARES[len(transition)])  # anchors of the rarest class
    np.testing.assert_allclose(noise_matrix(decision, given), transition, atol=4 * 0.5 / np.sqrt(smallest))


@pytest.mark.parametrize("accuracy", [1.0, 0.85])
@pytest.mark.parametrize("name", TRANSITIONS)
def test_the_rate_is_recovered(name, accuracy):
    decision, given, true = sample(TRANSITIONS[name], accuracy=accuracy)
    assert label_noise_rate(decision, given) == pytest.approx(np.mean(given != true), abs=0.02)


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
        assert 0 <= label_noise_rate(rng.normal(size=(6, 4)), given[:6]) <= 1


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


def test_scale_and_offset_of_the_decisions_play_no_part():
    decision, given, _ = sample(UNIFORM, n=2000)
    assert label_noise_rate(7 * decision - 3, given) == pytest.approx(label_noise_rate(decision, given), abs=1e-9)


def test_a_class_that_nothing_is_predicted_as_counts_as_clean():
    decision = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(noise_matrix(decision, np.array([0, 1, 2]))[2], [0, 0, 1])


@pytest.mark.parametrize(("n", "anchors"), [(1000, 300), (200, 100), (100, 60), (10, 6), (1, 1)])
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
