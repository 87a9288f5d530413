"""PruningCurveDisplay: the points are those of pruners fitted one by one."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold

from sktda import InfluencePruner, InfluencePrunerCV
from sktda.attribution import InnerProduct, PrecomputedScores
from sktda.cleaning.judge import Judge
from sktda.displays import PruningCurveDisplay
from tests.spies import noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees")

X, Y, TRUE = noisy_blobs(120, centers=3)
WRONG = Y != TRUE
MODEL = LogisticRegression()


def judging(test):
    """The test rows that judge: those whose label is not called wrong."""
    return Judge(MODEL, X, Y, Y).rows(test)


def test_points_are_scores_of_pruners():
    display = PruningCurveDisplay.from_estimator(MODEL, X, Y, prune_ratios=(0.2, 0), cv=3, n_random=0)
    folds = [(train, judging(test)) for train, test in StratifiedKFold(3).split(X, Y)]
    expected = [
        [InfluencePruner(MODEL, prune_ratio=r).fit(X[train], Y[train]).score(X[test], Y[test]) for train, test in folds]
        for r in (0, 0.2)
    ]
    np.testing.assert_allclose(display.test_scores, expected)
    np.testing.assert_array_equal(display.prune_ratios, [0, 0.2])
    assert display.random_scores is None
    (line,) = display.lines_
    np.testing.assert_allclose(line.get_ydata(), np.mean(expected, axis=1))
    np.testing.assert_array_equal(line.get_xdata(), [0, 0.2])
    (band,) = display.ax_.collections
    heights = band.get_paths()[0].vertices[:, 1]
    spread = np.std(expected, axis=1)
    np.testing.assert_allclose(heights.max(), (np.mean(expected, axis=1) + spread).max())
    np.testing.assert_allclose(heights.min(), (np.mean(expected, axis=1) - spread).min())


def test_random_rows_are_another_set_of_the_same_folds():
    settings = {"prune_ratios": (0, 0.3, 0.6), "cv": KFold(4, shuffle=True, random_state=1), "random_state": 0}
    display = PruningCurveDisplay.from_estimator(MODEL, X, Y, n_random=3, **settings)
    assert display.random_scores.shape == (3, 12)
    np.testing.assert_allclose(display.random_scores[0], np.tile(display.test_scores[0], 3))  # nothing is removed
    assert (display.random_scores[2, :4] != display.random_scores[2, 4:8]).any()
    again = PruningCurveDisplay.from_estimator(MODEL, X, Y, n_random=3, **settings)
    np.testing.assert_array_equal(again.random_scores, display.random_scores)
    np.testing.assert_allclose(display.lines_[1].get_ydata(), display.random_scores.mean(axis=1))


def test_wrong_labels_first_is_better_than_at_random():
    clean = np.flatnonzero(~WRONG)[::4]  # judged by labels that are right
    train = np.setdiff1d(np.arange(120), clean)
    frame = pd.DataFrame(X)
    worst_first = PrecomputedScores(pd.Series(np.where(WRONG, -1.0, np.arange(120))))
    display = PruningCurveDisplay.from_estimator(
        MODEL, frame, Y, worst_first, cv=[(train, clean)], scoring="neg_log_loss", random_state=0
    )
    share = WRONG[train].mean()
    enough = display.prune_ratios >= share
    means = [line.get_ydata() for line in display.lines_]
    assert (means[0] - means[1])[enough].max() > 0.05
    assert display.best_prune_ratio_ > 0
    assert "negative log loss" in display.ax_.get_ylabel()


def test_from_cv_results():
    pruner = InfluencePrunerCV(Ridge(), prune_ratios=(0, 0.1, 0.4), cv=4).fit(X, X[:, 0] * 2 + Y)
    display = PruningCurveDisplay.from_cv_results(pruner, std_display_style="errorbar")
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), pruner.cv_results_["mean_test_score"])
    assert display.test_scores.shape == (3, 4)
    np.testing.assert_array_equal(display.test_scores[:, 1], pruner.cv_results_["split1_test_score"])
    assert display.best_prune_ratio_ == pruner.best_prune_ratio_
    assert display.ax_.get_ylabel() == "R², mean ± std over folds"
    assert len(display.ax_.containers) == 1  # of the error bars


def test_the_best_share_is_marked_and_the_smallest_of_equals():
    display = PruningCurveDisplay([0, 0.25, 0.5], [[0.5, 0.5], [0.75, 0.75], [0.7, 0.8]]).plot(std_display_style=None)
    assert display.best_prune_ratio_ == 0.25
    star = display.ax_.lines[-1]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (0.25, 0.75)
    assert "best: 25 %, 0.750" in [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert not display.ax_.collections
    assert display.ax_.get_ylabel() == "score, mean over folds"
    display.figure_.canvas.draw()
    assert "20 %" in [tick.get_text() for tick in display.ax_.get_xticklabels()]


def test_validation_rows_reach_the_attributor():
    display = PruningCurveDisplay.from_estimator(
        MODEL, X, Y, InnerProduct(), validation=0.2, cv=2, prune_ratios=(0, 0.2), n_random=1, random_state=0
    )
    expected = [
        InfluencePruner(MODEL, InnerProduct(), prune_ratio=0.2, validation=0.2, random_state=0)
        .fit(X[train], Y[train])
        .score(X[judging(test)], Y[judging(test)])
        for train, test in StratifiedKFold(2).split(X, Y)
    ]
    np.testing.assert_allclose(display.test_scores[1], expected)


def test_axes_that_are_given_are_used():
    figure, ax = plt.subplots()
    display = PruningCurveDisplay([0, 0.5], [[1.0], [2.0]]).plot(ax)
    assert display.ax_ is ax
    assert display.figure_ is figure


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: PruningCurveDisplay([0, 0.5], [[1.0]]).plot(), ValueError, r"\(1, 1\).* for 2 prune_ratios"),
        (lambda: PruningCurveDisplay([0], [[1.0]], [1.0]).plot(), ValueError, r"\(1,\)"),
        (lambda: PruningCurveDisplay([0], [[1.0]]).plot(std_display_style="box"), ValueError, "'box'"),
        (lambda: PruningCurveDisplay.from_cv_results(InfluencePruner(MODEL)), TypeError, "not a InfluencePruner"),
        (lambda: PruningCurveDisplay.from_cv_results(InfluencePrunerCV(MODEL)), NotFittedError, "is not fitted yet"),
        (lambda: PruningCurveDisplay.from_estimator(MODEL, X, Y, prune_ratios=(1.5,)), ValueError, "prune_ratios"),
    ],
)
def test_what_cannot_be_drawn(draw, error, message):
    with pytest.raises(error, match=message):
        draw()
    assert not plt.get_fignums()
