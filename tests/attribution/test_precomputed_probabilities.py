"""Probabilities that the user has already: judged as the default judges its own, aligned by index and name, or refused.

TABLE holds the rows in another order and the classes in another order than X and y.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score

from sktda import CoresetSelector, InfluencePruner, NoisyLabelDetector
from sktda.attribution import LabelPosterior, PrecomputedProbabilities, SelfConfidence
from sktda.noise import (
    anchor_counts,
    as_probabilities,
    judge_labels,
    label_posterior,
    likely_matrix,
    log_odds,
    one_way_matrix,
    unfold,
)
from tests.in_turn import in_turn
from tests.spies import RecordingClassifier, noisy_blobs

X, Y, TRUE = noisy_blobs()
NAMES = np.array(["ant", "cow", "zebra"])
LABELS = NAMES[Y]
INDEX = pd.Index([f"row {i}" for i in range(len(Y))])
FRAME = pd.DataFrame(X, INDEX).add_prefix("f")
P = cross_val_predict(LogisticRegression(), X, Y, method="predict_proba")
TABLE = pd.DataFrame(P, INDEX, NAMES).sample(frac=1, random_state=0)[["zebra", "ant", "cow"]]
BY_POSITION = PrecomputedProbabilities(P).fit(X, Y)
LEARNT = ("scores_", "posterior_", "noise_matrix_", "is_corrected_", "loo_decision_")


def test_scores_and_matrix_are_those_of_the_default_on_the_same_probabilities():
    posterior = LabelPosterior(SelfConfidence(LogisticRegression())).fit(X, Y)
    own = PrecomputedProbabilities(posterior.loo_decision_).fit(X, Y)
    for name in LEARNT:
        np.testing.assert_allclose(getattr(own, name), getattr(posterior, name), rtol=1e-9)
    by_default, detector = (NoisyLabelDetector(each).fit(X, Y) for each in (clone(posterior), clone(own)))
    assert detector.noise_rate_ == by_default.noise_rate_ == pytest.approx(0.2, abs=0.07)
    assert detector.predictability_ == by_default.predictability_
    assert (detector.labels_ == by_default.labels_).all()
    assert (detector.suggested_labels_ == by_default.suggested_labels_).all()


def test_margins_by_hand():
    p = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.05, 0.05, 0.9], [1.0, 0.0, 0.0]])
    scores = PrecomputedProbabilities(p).fit(np.zeros((4, 1)), [0, 0, 2, 1]).scores_
    floor = 0.1 / 3
    np.testing.assert_allclose(scores, np.log([0.7 / 0.2, 0.3 / 0.6, 0.9 / 0.05, floor / 1]))


@in_turn(
    ("rows", "given"),
    [
        (FRAME, TABLE),
        (FRAME, TABLE.astype(np.float32)),
        (FRAME, P),
        (FRAME, P.tolist()),
        (X, pd.DataFrame(P, columns=NAMES)),
        (FRAME, pa.table(dict(zip(NAMES[::-1], P.T[::-1], strict=True)))),
    ],
)
def test_probabilities_of_every_form(rows, given):
    fitted = PrecomputedProbabilities(given).fit(rows, LABELS)
    np.testing.assert_allclose(fitted.loo_decision_, BY_POSITION.loo_decision_, rtol=1e-5)
    np.testing.assert_allclose(fitted.scores_, BY_POSITION.scores_, rtol=1e-4)
    assert fitted.classes_.tolist() == NAMES.tolist()


def test_numbers_as_classes_are_found_by_their_text():
    """A file names its columns "0", "1", ...; ten sorts before two as text, and not as a number."""
    numbers = np.array([10, 2, 300])[Y]
    swapped = P[:, [1, 0, 2]]
    for given in (swapped, *(pd.DataFrame(swapped, columns=c) for c in (["2", "10", "300"], [2, 10, 300]))):
        fitted = PrecomputedProbabilities(given).fit(X, numbers)
        np.testing.assert_allclose(fitted.loo_decision_, swapped, rtol=1e-12)
        np.testing.assert_allclose(fitted.scores_, BY_POSITION.scores_, rtol=1e-9)


def changed(values, row=3, column=1):
    p = P.copy()
    p[row, column] = values
    return p


def test_sums_and_ones_that_rounding_made_a_little_too_large_are_divided():
    p = np.array([[1.00002, 2e-9], [0.7, 0.3], [0.1, 0.905]])
    fitted = PrecomputedProbabilities(p).fit(np.zeros((3, 1)), [0, 0, 1])
    np.testing.assert_allclose(fitted.loo_decision_.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(fitted.loo_decision_[:, 0], [1, 0.7, 0.1 / 1.005], rtol=1e-8)


@in_turn(
    ("given", "rows", "message"),
    [
        (P[:100], X, r"shape \(100, 3\), and \(120, 3\) is needed: .* Inside cross-validation, .*give a DataFrame"),
        (P[:, :2], X, r"shape \(120, 2\), and \(120, 3\) is needed"),
        (P[:, 0], X, r"shape \(120,\), and \(120, 3\)"),
        (changed(np.nan), X, "NaN in 1 rows, the first is row 3; predict these rows too"),
        (changed(-0.5), X, "values below 0 in 1 rows, the first is row 3; .* softmax"),
        (changed(1.5), X, "values above 1 in 1 rows, the first is row 3; .* softmax"),
        (changed(np.inf), X, "values above 1 in 1 rows"),
        (np.log(np.maximum(P, 1e-9)), X, "values below 0 in 120 rows"),
        (0.9 * P, X, "120 rows of probabilities do not sum to 1, the first is row 0 with 0.900"),
        (P.astype(str), X, "holds <U32 values; numbers in"),
        (np.array([["a", None, 1.0]] * 120, dtype=object), X, "cells that are no numbers"),
        (TABLE.drop(columns="cow"), FRAME, "no column for 1 of the 3 classes of y, the first is 'cow'; its"),
        (TABLE.rename(columns={"cow": "Cow"}), FRAME, "no column for 1 of the 3 classes of y, the first is 'cow'"),
        (TABLE.assign(yak=0.0), FRAME, "has the column 'yak', which is the label of no row of y"),
        (pd.concat([TABLE, TABLE[["cow"]]], axis=1), FRAME, "several columns of one name"),
        (TABLE.drop(index="row 7"), FRAME, "1 rows of X have no probabilities, the first is 'row 7'"),
        (pd.concat([TABLE, TABLE[:1]]), FRAME, "the index of probabilities holds duplicates"),
        (TABLE, X, "probabilities has an index, and X none to align it by"),
        (pa.table(dict(zip(NAMES, P[:100].T, strict=True))), X, "probabilities has 100 rows but X has 120"),
    ],
)  # fmt: skip
def test_what_is_no_probability_of_these_rows_is_refused(given, rows, message):
    with pytest.raises(ValueError, match=message):
        PrecomputedProbabilities(given).fit(rows, LABELS)


def test_a_regression_target_is_refused():
    with pytest.raises(ValueError, match="continuous"):
        PrecomputedProbabilities(P).fit(X, X[:, 0])


def test_an_array_in_folds_is_refused_and_a_table_follows_the_rows():
    with pytest.raises(ValueError, match="Inside cross-validation"):
        cross_val_score(InfluencePruner(LogisticRegression(), PrecomputedProbabilities(P)), X, Y, error_score="raise")
    with pytest.raises(ValueError, match="no index to align by"):
        cross_val_score(
            InfluencePruner(LogisticRegression(), PrecomputedProbabilities(TABLE)), X, LABELS, error_score="raise"
        )
    pruner = InfluencePruner(RecordingClassifier(), PrecomputedProbabilities(TABLE), stratify=False)
    search = GridSearchCV(pruner, {"prune_ratio": [0.1, 0.2]}, cv=3, error_score="raise")
    order = np.random.default_rng(1).permutation(len(Y))
    fitted = search.set_params(refit=lambda results: 1).fit(FRAME.iloc[order], LABELS[order]).best_estimator_
    np.testing.assert_array_equal(fitted.scores_, BY_POSITION.scores_[order])
    right = pd.Series(Y == TRUE, INDEX)
    assert right[fitted.estimator_.X_.index].mean() > 0.95


def test_the_cleaners_take_them():
    kept = CoresetSelector(PrecomputedProbabilities(TABLE), n_samples=60, random_state=0).fit(FRAME, LABELS)
    assert len(kept.sample_indices_) == 60
    with pytest.raises(ValueError, match=r"all 120 scores of PrecomputedProbabilities are 0, .* probabilities="):
        InfluencePruner(LogisticRegression(), PrecomputedProbabilities()).fit(X, Y)


@pytest.mark.parametrize("unlabelled", ["error", "keep"])
def test_the_detector_aligns_tables_of_text_and_rows_without_a_label(unlabelled):
    """Text is encoded for others, which loses the index; rows without a label are left out before."""
    frame = FRAME.assign(colour=np.where(X[:, 0] > 0, "red", "blue"))
    frame = frame.iloc[np.random.default_rng(2).permutation(len(Y))]
    y = pd.Series(LABELS, INDEX)[frame.index]
    if unlabelled == "keep":
        y = y.where(y.index != frame.index[5])
    found = NoisyLabelDetector(PrecomputedProbabilities(TABLE), unlabelled=unlabelled).fit(frame, y).to_frame()
    expected = pd.Series(BY_POSITION.scores_, INDEX).drop([] if unlabelled == "error" else [frame.index[5]])
    np.testing.assert_allclose(found["score"].dropna()[expected.index], expected, atol=0.05)


def test_order_of_rows_and_columns_does_not_matter():
    order = np.random.default_rng(3).permutation(len(Y))
    again = NoisyLabelDetector(PrecomputedProbabilities(TABLE.iloc[::-1, ::-1])).fit(FRAME.iloc[order], LABELS[order])
    first = NoisyLabelDetector(PrecomputedProbabilities(TABLE)).fit(FRAME, LABELS)
    np.testing.assert_array_equal(again.labels_, first.labels_[order])
    assert again.noise_rate_ == first.noise_rate_
    np.testing.assert_array_equal(clone(again).fit(FRAME, LABELS).labels_, first.labels_)


@pytest.mark.parametrize("learnt", [True, False], ids=["a model that learnt the mistakes", "one that did not"])
def test_mistakes_by_class_are_taken_out_only_where_the_model_learnt_them(learnt):
    """A third of class 0 is called 1. Predictions are of the label, or of the true class in spite of it."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 3000)
    y = np.where((true == 0) & (rng.random(3000) < 1 / 3), 1, true)
    p = np.full((3000, 3), 0.02)
    p[np.arange(3000), true] = 0.96
    p[rng.permutation(3000)[:150]] = 1 / 3  # some say nothing
    if learnt:
        p = p @ np.array([[2 / 3, 1 / 3, 0], [0, 1, 0], [0, 0, 1]])
    q = as_probabilities(p)
    counts = anchor_counts(q, y)
    matrix = one_way_matrix(counts)
    assert matrix[0, 1] == pytest.approx(1 / 3, abs=0.05)
    posterior = label_posterior(unfold(q, matrix) if learnt else q, y, likely_matrix(counts, matrix))
    judged = judge_labels(p, y)
    assert judged.is_corrected
    np.testing.assert_array_equal(judged.posterior, posterior)
    np.testing.assert_array_equal(judged.scores, log_odds(posterior, y))
    assert roc_auc_score(y == true, judged.scores) > 0.98
