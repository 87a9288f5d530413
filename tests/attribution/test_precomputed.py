"""Scores that the user has already: aligned by index, by position, or made by a function."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktda import InfluencePruner
from sktda.attribution import PrecomputedScores
from tests.in_turn import in_turn
from tests.spies import RecordingClassifier, noisy_blobs

FRAME = pd.DataFrame({"x": [1.0, 2.0, 3.0]}, index=["b", "a", "c"])


@in_turn(
    ("scores", "X", "expected"),
    [
        (None, FRAME, [0, 0, 0]),
        ([1, 2, 3], FRAME, [1, 2, 3]),
        (np.array([1, 2, 3]), FRAME.to_numpy(), [1, 2, 3]),
        (pd.Series({"a": 1, "b": 2, "c": 3, "d": 4}), FRAME, [2, 1, 3]),
        (pd.Series({"a": 1, "b": 2, "c": 3}), FRAME.loc[["c", "c", "a"]], [3, 3, 1]),
        (pd.Series([1, 2, 3], index=[7, 8, 9]), FRAME.to_numpy(), [1, 2, 3]),
        (lambda X, y: X["x"] * 2, FRAME, [2, 4, 6]),
        (lambda X, y: y, FRAME, [5, 6, 7]),
    ],
)
def test_scores_of_every_form(scores, X, expected):
    fitted = PrecomputedScores(scores).fit(X, np.array([5, 6, 7])).scores_
    assert fitted.dtype == np.float64
    assert fitted.tolist() == expected


@in_turn(
    ("scores", "X", "message"),
    [
        ([1.0, 2.0], FRAME, r"scores has shape \(2,\) but X has 3 rows; .* pandas Series instead"),
        ([[1.0], [2.0], [3.0]], FRAME, r"scores has shape \(3, 1\) but X has 3 rows"),
        (lambda X, y: [1.0], FRAME, r"scores has shape \(1,\) but X has 3 rows"),
        ([1.0, np.nan, 2.0], FRAME, "scores contains NaN"),
        ([1.0, np.inf, 2.0], FRAME, "scores contains infinity"),
        (pd.Series({"a": 1.0, "b": 2.0}), FRAME, r"1 rows of X have no score, the first is 'c'; give one per row"),
        (pd.Series({"a": 1.0, "b": np.nan, "c": 0.0}), FRAME, r"1 rows of X have no score, the first is 'b'"),
        (pd.Series([1.0, 2.0, 3.0], index=["a", "a", "b"]), FRAME, "duplicates, so rows cannot be aligned"),
        (pd.Series([1.0, 2.0]), FRAME.to_numpy(), r"Series of 2 rows but X has 3 rows and no index .* set_output"),
        # sorted by score: by position each row would get another one's
        (pd.Series([1.0, 2.0, 3.0], index=[2, 0, 1]), FRAME.to_numpy(), "index of scores is not in ascending order"),
    ],
)
def test_scores_that_do_not_fit_the_rows_are_errors(scores, X, message):
    with pytest.raises(ValueError, match=message):
        PrecomputedScores(scores).fit(X)


def test_a_series_from_a_callable_is_aligned_too():
    backwards = PrecomputedScores(lambda X, y: pd.Series({"a": 1.0, "b": 2.0, "c": 3.0}))
    assert backwards.fit(FRAME).scores_.tolist() == [2, 1, 3]


def test_scores_given_to_fit_come_first():
    attributor = PrecomputedScores([1, 2, 3])
    assert attributor.fit(FRAME, scores=[4, 5, 6]).scores_.tolist() == [4, 5, 6]
    assert attributor.fit(FRAME, scores=pd.Series({"a": 7, "b": 8, "c": 9})).scores_.tolist() == [8, 7, 9]
    assert attributor.scores == [1, 2, 3]


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0, 2.0], "one weight per row"), ([0.0, 0.0, 0.0], "above zero"), ([1.0, -1.0, 1.0], "non-negative")],
)
def test_weights_are_checked_although_they_do_not_enter(weights, message):
    with pytest.raises(ValueError, match=message):
        PrecomputedScores([1, 2, 3]).fit(FRAME, sample_weight=weights)


def frame_of_blobs():
    X, y, true = noisy_blobs()
    index = pd.Index([f"row {i}" for i in np.random.default_rng(0).permutation(len(y))])
    return pd.DataFrame(X, index=index).add_prefix("f"), pd.Series(y, index), pd.Series((y == true) * 1.0, index)


def test_a_series_follows_the_rows_through_a_search():
    """1 = right label, 0 = wrong: with 20 % pruned, every fold's model must have seen right labels only."""
    X, y, right = frame_of_blobs()
    pruner = InfluencePruner(RecordingClassifier(), PrecomputedScores(right.sample(frac=1, random_state=0)))
    pipe = make_pipeline(StandardScaler(), pruner.set_params(stratify=False)).set_output(transform="pandas")
    search = GridSearchCV(pipe, {"influencepruner__prune_ratio": [0.1, 0.2]}, cv=3, error_score="raise")
    search.set_params(refit=lambda results: 1).fit(X, y)
    fitted = search.best_estimator_[-1]
    assert fitted.n_pruned_ == 24
    assert (right[fitted.estimator_.y_.index] == 1).all()
    assert (fitted.to_frame()["score"].loc[X.index] == right).all()


def test_an_array_in_cross_validation_names_the_series():
    X, y, right = frame_of_blobs()
    pruner = InfluencePruner(LogisticRegression(), PrecomputedScores(right.to_numpy()))
    with pytest.raises(ValueError, match="Inside cross-validation give a pandas Series"):
        cross_val_score(pruner, X, y, cv=3, error_score="raise")


def test_a_cleaner_refuses_to_rank_by_nothing():
    X, y, _ = frame_of_blobs()
    with pytest.raises(
        ValueError, match=r"all 120 scores of PrecomputedScores are 0, .*PrecomputedScores needs scores="
    ):
        InfluencePruner(LogisticRegression(), PrecomputedScores()).fit(X, y)


def test_clone_keeps_the_scores():
    series = pd.Series({"a": 1.0, "b": 2.0, "c": 3.0})
    assert clone(PrecomputedScores(series)).fit(FRAME).scores_.tolist() == [2, 1, 3]
