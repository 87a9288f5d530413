"""Labels of several annotators, against the model's formulae and planted truths."""

import itertools

import numpy as np
import pandas as pd
import pytest

from sktda import consensus_labels
from sktda.consensus import PRIOR


def planted(n=400, n_classes=3, seed=0, missing=0.4):
    """(truth, annotations): two good annotators, two that mix up two classes one way, one who guesses."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(n_classes, n, p=[0.5, 0.3, 0.2])
    good = np.full((n_classes, n_classes), 0.05) + 0.85 * np.eye(n_classes)
    mixed = good.copy()
    mixed[1] = [0.05, 0.25, 0.7]
    confusion = [good, good, mixed, mixed, np.full((n_classes, n_classes), 1 / n_classes)]
    given = np.array([[rng.choice(n_classes, p=each[k]) for each in confusion] for k in truth], dtype=float)
    given[rng.random(given.shape) < missing] = np.nan
    given[np.isnan(given).all(axis=1), 0] = 0
    return truth, given, np.array(confusion)


def test_planted_annotators_are_told_apart():
    truth, given, confusion = planted(2000, missing=0.2)
    found = consensus_labels(given)
    majority = pd.DataFrame(given).mode(axis=1)[0].to_numpy()
    assert (found.labels == truth).mean() > (majority == truth).mean() + 0.02
    assert np.abs(found.confusion - confusion).max() < 0.1
    right = np.einsum("k,akk->a", np.bincount(truth) / len(truth), confusion)
    assert np.abs(found.accuracy - right).max() < 0.05
    # independent annotators: the quality is the share of right labels
    for low, high in itertools.pairwise([0.5, 0.8, 0.95, 1.01]):
        rows = (found.quality >= low) & (found.quality < high)
        share = (found.labels == truth)[rows].mean()
        assert abs(found.quality[rows].mean() - share) < 3 * np.sqrt(share * (1 - share) / rows.sum())
    np.testing.assert_array_equal(found.n_labels, (~np.isnan(given)).sum(axis=0))


def test_a_fixed_point_of_the_published_equations():
    _, given, _ = planted(60)
    found = consensus_labels(given)
    n_annotators, n_classes = given.shape[1], 3
    T, shares = found.probabilities, found.probabilities.mean(axis=0)
    counts = np.zeros((n_annotators, n_classes, n_classes))
    for i, a in zip(*np.nonzero(~np.isnan(given)), strict=True):
        counts[a, :, int(given[i, a])] += T[i]
    pooled = counts.sum(axis=0) + 1 / n_classes
    prior = PRIOR * pooled / pooled.sum(axis=1, keepdims=True)
    for a in range(n_annotators):
        expected = (counts[a] + prior) / (counts[a] + prior).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found.confusion[a], expected, atol=1e-4)
    for i, row in enumerate(given):
        likelihood = shares.copy()
        for a in np.flatnonzero(~np.isnan(row)):
            likelihood *= found.confusion[a, :, int(row[a])]
        np.testing.assert_allclose(T[i], likelihood / likelihood.sum(), atol=1e-4)


def test_order_names_and_containers_do_not_matter():
    _, given, _ = planted(80)
    plain = consensus_labels(given)
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(len(given)), rng.permutation(given.shape[1])
    moved = consensus_labels(given[rows][:, columns])
    np.testing.assert_allclose(moved.probabilities, plain.probabilities[rows], atol=1e-5)
    np.testing.assert_allclose(moved.accuracy, plain.accuracy[columns], atol=1e-5)
    assert plain.labels.dtype.kind == "i"

    names = np.array(["bird", "cat", "dog"])
    text = np.where(np.isnan(given), None, names[np.nan_to_num(given).astype(int)])
    frame = pd.DataFrame(given, columns=list("abcde")).astype("Int64")
    for other, classes in (
        (text, names),
        (text.tolist(), names),
        (pd.DataFrame(text, columns=list("abcde")), names),
        (pd.DataFrame(text).astype("category"), names),
        (frame, np.arange(3)),
    ):
        found = consensus_labels(other)
        np.testing.assert_array_equal(found.classes, classes)
        np.testing.assert_allclose(found.probabilities, plain.probabilities)
    assert consensus_labels(frame).annotators == list("abcde")
    assert consensus_labels(given, annotators="vwxyz").annotators == list("vwxyz")


def test_annotators_that_agree_are_believed():
    labels = np.tile([0, 1, 2], 20)
    found = consensus_labels(np.column_stack([labels] * 3))
    np.testing.assert_array_equal(found.labels, labels)
    assert found.quality.min() > 0.99
    assert found.accuracy.min() > 0.95
    only = consensus_labels([["a", "a"], ["a", None]])
    assert only.labels.tolist() == ["a", "a"]
    assert only.quality.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([[1, 2], [None, None]], "1 rows have no label, the first is row 1"),
        ([[1, None], [None, 2]], "no row has labels of two annotators"),
        ([1, 2], r"one column each, got shape \(2,\)"),
        ([[1, "a"], [1, "a"]], "mix of"),
        (np.zeros((0, 3)), "no row has"),
    ],
)
def test_what_says_nothing_is_refused(annotations, message):
    with pytest.raises(ValueError, match=message):
        consensus_labels(annotations)


def test_names_must_fit():
    with pytest.raises(ValueError, match="3 names of annotators for 2 columns"):
        consensus_labels([[1, 1], [0, 1]], annotators="abc")
