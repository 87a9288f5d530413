"""LabelPosterior: Bayes' rule by hand, when it corrects, planted class-dependent noise."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sktda import InfluencePruner, NoisyLabelDetector
from sktda.attribution import EL2N, ComplexityGap, LabelPosterior, SelfConfidence
from sktda.noise import label_posterior, noise_matrix, one_sidedness, smoothed_matrix
from tests.spies import flip

X, TRUE = (part[:900] for part in load_digits(return_X_y=True))


MATRIX = np.array([[0.7, 0.2, 0.1], [0.0, 0.9, 0.1], [0.05, 0.05, 0.9]])


def test_the_posterior_is_that_of_bayes_where_predictions_are_exact():
    """All pairs of 200 rows and labels, each label as often as its shares say."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(3, 5.0), size=200)
    q = p @ MATRIX
    codes = rng.permutation(np.repeat([0, 1, 2], np.diff(np.round(np.cumsum([0, *q.mean(axis=0)]) * 200)).astype(int)))
    found = label_posterior(q, codes, MATRIX)
    for i, j in enumerate(codes):
        right, wrong = p[i, j] * MATRIX[j, j], sum(p[i, k] * MATRIX[k, j] for k in range(3) if k != j)
        assert abs(found[i] - right / (right + wrong)) < 0.03


def test_its_steps_one_by_one():
    rng = np.random.default_rng(1)
    q, codes = rng.dirichlet(np.ones(3), size=30), np.resize([0, 1, 2], 30)
    q += 1 / 3 - q.mean(axis=0)
    found = label_posterior(q, codes, MATRIX)
    for i, j in enumerate(codes):
        given = np.maximum(q[i], 1e-3) / np.maximum(q[i], 1e-3).sum()
        p = np.full(3, 1 / 3)
        for _ in range(30):
            labelled = [sum(p[k] * MATRIX[k, m] for k in range(3)) for m in range(3)]
            p = np.array([p[k] * sum(MATRIX[k, m] * given[m] / labelled[m] for m in range(3)) for k in range(3)])
        p = np.maximum(p, 1e-3) / np.maximum(p, 1e-3).sum()
        assert np.isclose(found[i], p[j] * MATRIX[j, j] / (p @ MATRIX)[j], rtol=1e-9)


def test_a_matrix_that_cannot_be_inverted():
    matrix = np.full((3, 3), 1 / 3)
    found = label_posterior(np.eye(3)[np.resize([0, 1, 2], 30)] * 0.5, np.resize([0, 1, 2], 30), matrix)
    np.testing.assert_allclose(found, 1 / 3)


def test_no_mistake_is_impossible():
    matrix = smoothed_matrix(np.array([[8, 0, 1], [0, 0, 0], [5, 5, 10]]))
    np.testing.assert_allclose(matrix, [[0.8, 0.05, 0.15], [0.25, 0.5, 0.25], [5.5 / 21, 5.5 / 21, 10 / 21]])


def test_a_constant_per_class_does_not_matter():
    rng = np.random.default_rng(0)
    decision, codes = rng.dirichlet(np.ones(4), size=60), rng.integers(0, 4, 60)
    matrix = noise_matrix(decision, codes) * 0.5 + 0.5 * np.eye(4)
    np.testing.assert_allclose(
        label_posterior(decision - np.arange(4), codes, matrix), label_posterior(decision, codes, matrix)
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (np.eye(3) * 50, 0),
        (np.full((4, 4), 10**8) + 10**8 * np.eye(4), 0),
        (np.array([[0.9, 0.1], [0.1, 0.9]]) * 10**8, 0),
        (np.array([[0.9, 0.1], [0.3, 0.7]]) * 10**6, 0.5),
        (np.array([[1.0, 0.0], [0.2, 0.8]]) * 10**6, 1),
        (np.array([[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]]) * 100, 1),
    ],
)
def test_one_sidedness_by_hand(counts, expected):
    assert abs(one_sidedness(counts.astype(int)) - expected) < 2e-3


@pytest.mark.parametrize("n_wrong", [1, 3, 10, 40, 300])
def test_chance_alone_is_not_one_sided(n_wrong):
    """The mean over draws of labels that are wrong at random is 0, however few there are."""
    rng = np.random.default_rng(0)
    off, found = ~np.eye(6, dtype=bool), []
    for _ in range(1500):
        counts = np.zeros((6, 6), dtype=int)
        counts[off] = rng.multinomial(n_wrong, np.full(30, 1 / 30))
        found.append(one_sidedness(counts))
    assert abs(np.mean(found)) < 0.03


@pytest.mark.parametrize("rate", [0.08, 0.2, 0.4])
def test_class_dependent_noise_is_taken_out(rate):
    y = flip(TRUE, rate, "class")
    wrong = y != TRUE
    posterior = LabelPosterior().fit(X, y)
    assert posterior.is_corrected_
    assert posterior.one_sidedness_ > 0.6
    assert posterior.scores_.min() >= 0
    assert posterior.scores_.max() <= 1
    gap = ComplexityGap().fit(X, y)
    assert roc_auc_score(~wrong, posterior.scores_) > max(0.98, roc_auc_score(~wrong, gap.scores_))
    np.testing.assert_array_equal(posterior.loo_decision_, gap.loo_decision_)


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 0.4])
def test_uniform_noise_leaves_the_attributors_scores(rate):
    y = flip(TRUE, rate)
    posterior = LabelPosterior().fit(X, y)
    assert not posterior.is_corrected_
    np.testing.assert_array_equal(posterior.scores_, ComplexityGap().fit(X, y).scores_)


def test_few_wrong_labels_are_left_to_the_attributor():
    y = flip(TRUE, 0.02, "class")
    assert not LabelPosterior().fit(X, y).is_corrected_


def test_of_two_classes_one_of_which_is_mislabelled():
    rows = TRUE < 2
    true = TRUE[rows]
    y = np.where((true == 0) & (np.random.default_rng(0).random(len(true)) < 0.4), 1, true)
    posterior = LabelPosterior().fit(X[rows], y)
    assert posterior.is_corrected_
    assert posterior.scores_[(y != true)].max() < posterior.scores_[(y == true) & (y == 1)].min()


def test_around_another_attributor():
    y = flip(TRUE, 0.4, "class")
    inner = SelfConfidence(LogisticRegression(C=0.01, max_iter=2000))
    posterior = LabelPosterior(inner, random_state=3).fit(X, y)
    assert posterior.attributor_.random_state is not None
    assert roc_auc_score(y == TRUE, posterior.scores_) > roc_auc_score(y == TRUE, posterior.attributor_.scores_) + 0.05


def test_label_names_and_row_order_do_not_matter():
    y = flip(TRUE, 0.3, "class")
    expected = LabelPosterior().fit(X, y).scores_
    np.testing.assert_array_equal(LabelPosterior().fit(X, np.array(list("abcdefghij"))[y]).scores_, expected)
    order = np.random.default_rng(0).permutation(len(y))
    np.testing.assert_allclose(LabelPosterior().fit(X[order], y[order]).scores_, expected[order], atol=1e-6)


def test_regression_has_no_noise_matrix():
    y = X[:, 10] + 0.5 * X[:, 20]
    posterior = LabelPosterior().fit(X, y)
    np.testing.assert_array_equal(posterior.scores_, ComplexityGap().fit(X, y).scores_)
    assert not hasattr(posterior, "noise_matrix_")
    assert not hasattr(posterior.fit(X, TRUE).fit(X, y), "classes_")


def test_an_attributor_without_predictions_is_refused():
    with pytest.raises(TypeError, match=r"EL2N makes no leave-one-out predictions \(loo_decision_\)"):
        LabelPosterior(EL2N(random_state=0)).fit(X, TRUE)


def test_the_detector_uses_it_and_the_pruner_may():
    y = flip(TRUE, 0.4, "class")
    detector = NoisyLabelDetector().fit(X, y)
    assert isinstance(detector.attributor_, LabelPosterior)
    assert roc_auc_score(y != TRUE, -detector.scores_) > 0.98
    assert (detector.suggested_labels_ == TRUE)[y != TRUE].mean() > 0.9
    pruner = InfluencePruner(LogisticRegression(max_iter=3000), LabelPosterior(), prune_ratio=0.4, stratify=False)
    pruner.fit(X / 16, y)
    assert (y != TRUE)[~pruner.support_].mean() > 0.9


def test_one_wrong_label_is_not_one_sided():
    for k in range(2, 30):
        counts = np.eye(k, dtype=int) * 20
        counts[0, 1] = 1
        assert one_sidedness(counts) == 0


def test_labels_that_nothing_explains_leave_the_attributors_scores():
    """Of random labels every posterior may be the same, by which rows could not be ranked."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise, y = rng.normal(size=(60, 2)), rng.integers(0, 2, 60)
        assert np.ptp(LabelPosterior().fit(noise, y).scores_) > 0
