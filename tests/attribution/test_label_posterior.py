"""LabelPosterior: its parts by hand, when it corrects, planted class-dependent noise, overlap that is none."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from sktda import InfluencePruner, NoisyLabelDetector
from sktda.attribution import EL2N, ComplexityGap, KernelForest, LabelPosterior, RobustResidual, SelfConfidence
from sktda.noise import (
    anchor_counts,
    as_probabilities,
    label_posterior,
    likely_matrix,
    log_margin,
    log_odds,
    one_way_matrix,
    unfold,
)
from tests.spies import flip

X, TRUE = (part[:900] for part in load_digits(return_X_y=True))
FEW = KernelForest(n_estimators=30)


def test_its_parts_one_by_one():
    y = flip(TRUE, 0.3, "class")
    posterior = LabelPosterior(ComplexityGap()).fit(X, y)
    q = as_probabilities(ComplexityGap().fit(X, y).loo_decision_)
    counts = anchor_counts(q, y)
    matrix = one_way_matrix(counts)
    expected = label_posterior(unfold(q, matrix), y, likely_matrix(counts, matrix))
    np.testing.assert_array_equal(posterior.noise_matrix_, matrix)
    np.testing.assert_array_equal(posterior.posterior_, expected)
    np.testing.assert_array_equal(posterior.scores_, log_odds(expected, y))


def test_where_every_class_is_called_the_next_one_suggestions_are_right():
    y = np.where(np.random.default_rng(0).random(900) < 0.3, (TRUE + 1) % 10, TRUE)
    detector = NoisyLabelDetector(LabelPosterior(FEW)).fit(X, y)
    wrong = y != TRUE
    assert (detector.attributor_.noise_matrix_[np.arange(10), (np.arange(10) + 1) % 10] > 0).all()
    assert average_precision_score(wrong, -detector.scores_) > 0.99
    assert (detector.suggested_labels_ == TRUE)[wrong & (detector.labels_ == -1)].mean() > 0.99
    assert detector.noise_rate_ == pytest.approx(wrong.mean(), abs=0.05)


def test_class_dependent_noise_is_taken_out():
    y = flip(TRUE, 0.3, "class")
    wrong = y != TRUE
    posterior = LabelPosterior(FEW).fit(X, y)
    assert posterior.is_corrected_
    forest = KernelForest(n_estimators=30).fit(X, y)
    assert roc_auc_score(~wrong, posterior.scores_) > max(0.98, roc_auc_score(~wrong, forest.scores_))
    np.testing.assert_array_equal(posterior.loo_decision_, forest.loo_decision_)
    assert (posterior.posterior_.argmax(axis=1) == TRUE).mean() > 0.9


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4])
def test_uniform_noise_leaves_the_attributors_scores(rate):
    y = flip(TRUE, rate)
    posterior = LabelPosterior(ComplexityGap()).fit(X, y)
    assert not posterior.is_corrected_
    np.testing.assert_array_equal(posterior.noise_matrix_, np.eye(10))
    q = as_probabilities(posterior.loo_decision_)
    np.testing.assert_array_equal(posterior.scores_, log_margin(q, y))


def test_classes_that_overlap_are_not_corrected():
    """A grade by its neighbours: much confusion, both ways."""
    corrected = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(400, 1))
        y = np.digitize(x[:, 0] + 0.5 * rng.normal(size=400), [-1, 0, 1])
        corrected.append(LabelPosterior(ComplexityGap()).fit(x, y).is_corrected_)
    assert np.mean(corrected) <= 0.3


def test_of_two_classes_one_of_which_is_mislabelled():
    rows = TRUE < 2
    true = TRUE[rows]
    y = np.where((true == 0) & (np.random.default_rng(0).random(len(true)) < 0.4), 1, true)
    posterior = LabelPosterior(FEW).fit(X[rows], y)
    assert posterior.is_corrected_
    assert posterior.noise_matrix_[0, 1] == pytest.approx(0.4, abs=0.1)
    assert posterior.scores_[(y != true)].max() < posterior.scores_[(y == true) & (y == 1)].min()


def test_around_another_attributor():
    y = flip(TRUE, 0.3, "class")
    inner = SelfConfidence(LogisticRegression(C=0.001, max_iter=2000))
    posterior = LabelPosterior(inner, random_state=3).fit(X, y)
    assert posterior.attributor_.random_state is not None
    assert roc_auc_score(y == TRUE, posterior.scores_) > roc_auc_score(y == TRUE, posterior.attributor_.scores_) + 0.05


def test_label_names_and_row_order_do_not_matter():
    rows, y = X[:500], flip(TRUE, 0.3, "class")[:500]
    kernel = LabelPosterior(ComplexityGap())
    expected = kernel.fit(rows, y).scores_
    assert kernel.is_corrected_
    np.testing.assert_array_equal(kernel.fit(rows, np.array(list("abcdefghij"))[y]).scores_, expected)
    order = np.random.default_rng(0).permutation(len(y))
    np.testing.assert_allclose(kernel.fit(rows[order], y[order]).scores_, expected[order], atol=1e-5)


def test_regression_has_no_noise_matrix():
    y = X[:200, 10] + 0.5 * X[:200, 20]
    posterior = LabelPosterior(random_state=0).fit(X[:200], TRUE[:200])
    assert hasattr(posterior, "noise_matrix_")
    posterior.fit(X[:200], y)
    assert isinstance(posterior.attributor_, RobustResidual)
    np.testing.assert_array_equal(posterior.scores_, posterior.attributor_.scores_)
    assert not {"noise_matrix_", "classes_"} & set(vars(posterior))


def test_an_attributor_without_predictions_is_refused():
    with pytest.raises(TypeError, match=r"EL2N makes no leave-one-out predictions \(loo_decision_\)"):
        LabelPosterior(EL2N(random_state=0)).fit(X, TRUE)


def test_the_detector_and_the_pruner_use_it():
    rows, true = X[:600], TRUE[:600]
    y = flip(TRUE, 0.3, "class")[:600]
    detector = NoisyLabelDetector().fit(rows, y)
    assert isinstance(detector.attributor_, LabelPosterior)
    assert roc_auc_score(y != true, -detector.scores_) > 0.98
    assert (detector.suggested_labels_ == true)[y != true].mean() > 0.9
    pruner = InfluencePruner(LogisticRegression(max_iter=3000), prune_ratio=0.3, stratify=False).fit(rows / 16, y)
    assert isinstance(pruner.attributor_, LabelPosterior)
    assert (y != true)[~pruner.support_].mean() > 0.9


def test_what_no_other_finds_on_a_table_with_imbalance():
    """30 % of the frequent class carry the rare label, features overlap: the correction is worth what it says."""
    rng = np.random.default_rng(0)
    true = (rng.random(1200) < 0.25).astype(int)
    features = rng.normal(size=(1200, 5)) + 1.5 * true[:, None]
    y = np.where((true == 0) & (rng.random(1200) < 0.3), 1, true)
    posterior = LabelPosterior(FEW).fit(features, y)
    precision = average_precision_score(y != true, -posterior.scores_)
    assert precision > average_precision_score(y != true, -posterior.attributor_.scores_) + 0.05
