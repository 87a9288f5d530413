"""The default NoisyLabelDetector finds planted errors and says how many there are; here with all its trees."""

from functools import cache

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.metrics import roc_auc_score

from sktda import NoisyLabelDetector
from tests.spies import flip

pytestmark = pytest.mark.filterwarnings("ignore:.* of the labels are called wrong:UserWarning")
LOADERS = {"digits": load_digits, "wine": load_wine, "breast cancer": load_breast_cancer}


@cache
def planted(name, rate, kind="uniform"):
    """(X, given labels, true labels, fitted detector)"""
    X, true = LOADERS[name](return_X_y=True)
    given = flip(true, rate, kind)
    return X, given, true, NoisyLabelDetector().fit(X, given)


CASES = [
    # data, share of wrong labels, kind, least AUROC, tolerance of the estimated rate
    ("digits", 0.1, "uniform", 0.999, 0.07),
    ("digits", 0.4, "uniform", 0.995, 0.03),
    ("digits", 0.3, "next", 0.97, 0.06),
    ("wine", 0.1, "uniform", 0.98, 0.06),
    ("wine", 0.2, "next", 0.95, 0.06),
    ("breast cancer", 0.1, "uniform", 0.97, 0.06),
    ("breast cancer", 0.3, "uniform", 0.9, 0.06),
]


@pytest.mark.parametrize(("name", "rate", "kind", "auroc", "tolerance"), CASES)
def test_planted_errors_are_found_and_counted(name, rate, kind, auroc, tolerance):
    _, given, true, detector = planted(name, rate, kind)
    wrong = given != true
    assert roc_auc_score(wrong, -detector.scores_) >= auroc
    assert detector.noise_rate_ == pytest.approx(wrong.mean(), abs=tolerance)
    assert wrong[detector.labels_ == -1].mean() >= 0.6
    assert wrong[detector.labels_ == 1].mean() < 0.5 * wrong.mean()


@pytest.mark.parametrize("name", LOADERS)
def test_clean_labels_stay(name):
    assert planted(name, 0)[3].noise_rate_ <= 0.03


def test_errors_of_one_class_of_two_are_counted():
    """Class-dependent noise: only class 1 is mislabelled, 0.3 of it."""
    X, true = load_breast_cancer(return_X_y=True)
    given = true.copy()
    ones = np.flatnonzero(true == 1)
    given[np.random.default_rng(0).choice(ones, round(0.3 * len(ones)), replace=False)] = 0
    wrong = given != true
    detector = NoisyLabelDetector().fit(X, given)
    assert detector.noise_rate_ == pytest.approx(wrong.mean(), abs=0.06)
    assert roc_auc_score(wrong, -detector.scores_) > 0.9


@pytest.mark.parametrize(("name", "rate", "kind", "auroc", "tolerance"), CASES)
def test_counts_quality_and_suggestions_agree(name, rate, kind, auroc, tolerance):
    _, given, _true, detector = planted(name, rate, kind)
    noisy = detector.labels_ == -1
    assert noisy.sum() == round(detector.noise_rate_ * len(given))
    assert set(np.unique(detector.labels_)) <= {-1, 1}
    np.testing.assert_array_equal(detector.sample_indices_, np.flatnonzero(~noisy))
    quality = detector.label_quality_
    assert quality.min() >= 0
    assert quality.max() <= 1
    np.testing.assert_array_equal(quality < 0.5, noisy)
    assert (np.diff(quality[np.argsort(detector.scores_)]) >= 0).all()
    assert len(np.unique(quality)) > 0.9 * len(np.unique(detector.scores_))
    assert (detector.suggested_labels_[noisy] != given[noisy]).all()
    assert np.isin(detector.suggested_labels_, detector.classes_).all()


@pytest.mark.parametrize(("name", "rate", "kind", "auroc", "tolerance"), CASES)
def test_relabelling_as_suggested_gives_better_labels(name, rate, kind, auroc, tolerance):
    _, given, true, detector = planted(name, rate, kind)
    relabelled = np.where(detector.labels_ == -1, detector.suggested_labels_, given)
    assert (relabelled != true).mean() < 0.7 * (given != true).mean()


def test_a_clean_row_is_suggested_its_prediction():
    _, _, _, detector = planted("digits", 0.1, "uniform")
    clean = detector.labels_ == 1
    predicted = detector.attributor_.posterior_.argmax(axis=1)
    np.testing.assert_array_equal(detector.suggested_labels_[clean], predicted[clean])
