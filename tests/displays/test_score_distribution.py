"""ScoreDistributionDisplay: every row is counted once, in its colour, on the right side of the cut."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from sktda import CoresetSelector, InfluencePruner, InfluencePrunerCV, NoisyLabelDetector
from sktda.attribution import ComplexityGap, PrecomputedScores
from sktda.displays import ScoreDistributionDisplay
from tests.spies import ValidationScores, noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees")

X, Y, TRUE = noisy_blobs(120, centers=3)
WRONG = Y != TRUE
RNG = np.random.default_rng(0)


def legend(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_bars_are_the_histogram_of_the_scores():
    scores, marked = RNG.normal(size=200), np.arange(200) < 30
    display = ScoreDistributionDisplay(scores, marked).plot(bins=7)
    edges = display.edges_
    np.testing.assert_allclose(edges, np.linspace(scores.min(), scores.max(), 8))
    for bars, rows in zip(display.ax_.containers, (scores[marked], scores[~marked]), strict=True):
        expected = [((low <= rows) & (rows < high)).sum() for low, high in pairwise(edges)]
        expected[-1] += (rows == edges[-1]).sum()
        assert [bar.get_height() for bar in bars] == expected
        np.testing.assert_allclose([bar.get_x() for bar in bars], edges[:-1])
    bottoms = [bar.get_y() for bar in display.ax_.containers[1]]
    np.testing.assert_array_equal(bottoms, display.counts_[0])  # stacked
    assert legend(display) == ["marked (30)", "rows (170)"]


def test_rows_far_out_are_in_the_outermost_bars_and_the_axis_says_so():
    scores = np.concatenate([RNG.uniform(10, 11, size=1000), [-1e6, 1e7, np.inf]])
    display = ScoreDistributionDisplay(scores).plot()
    assert display.edges_[0] > 9
    assert display.edges_[-1] < 12
    assert display.n_beyond_ == 3
    assert display.counts_.sum() == 1003
    assert display.counts_[1, 0] == 1
    assert display.counts_[1, -1] == 2
    assert "3 rows beyond the axis" in display.ax_.get_xlabel()


def test_a_tail_of_scores_around_zero_gets_a_logarithmic_axis():
    scores = np.concatenate([RNG.normal(size=900), -(10 ** RNG.uniform(1, 3, size=100))])
    display = ScoreDistributionDisplay(scores).plot(bins=20)
    assert display.ax_.get_xscale() == "symlog"
    assert "logarithmic" in display.ax_.get_xlabel()
    assert display.n_beyond_ == 0
    assert display.counts_.sum() == 1000
    np.testing.assert_array_equal(display.edges_[[0, -1]], [scores.min(), scores.max()])
    widths = np.diff(display.ax_.xaxis.get_transform().transform(display.edges_))
    np.testing.assert_allclose(widths, widths[0])
    ticks = display.ax_.get_xticks()
    assert {0, -10, -100} <= set(ticks)
    assert ((ticks >= scores.min()) & (ticks <= scores.max())).all()
    linear = ScoreDistributionDisplay(scores).plot(xscale="linear")
    assert linear.ax_.get_xscale() == "linear"
    assert ScoreDistributionDisplay(scores + 1e4).plot().ax_.get_xscale() == "linear"  # not around 0


def test_equal_scores_and_three_rows_are_drawn():
    for value in (0.0, 5.0, -1e-9):
        display = ScoreDistributionDisplay(np.full(50, value)).plot()
        assert display.counts_.max() == 50
        assert display.edges_[0] < value < display.edges_[-1]
    display = ScoreDistributionDisplay([1, 2, 3], [True, False, False], 1.5).plot(bins=2)
    np.testing.assert_array_equal(display.counts_, [[1, 0], [0, 2]])


def test_rows_without_a_score_are_named_and_not_drawn():
    display = ScoreDistributionDisplay([1.0, np.nan, 2.0, np.nan, 3.0], [True, True, False, False, False]).plot()
    np.testing.assert_array_equal(display.counts_.sum(axis=1), [1, 2])
    assert "without a score (2)" in legend(display)


def test_a_detector_has_one_cut():
    detector = NoisyLabelDetector(ComplexityGap()).fit(X, Y)
    display = ScoreDistributionDisplay.from_cleaner(detector)
    noisy = detector.labels_ == -1
    assert display.counts_.sum(axis=1).tolist() == [noisy.sum(), (~noisy).sum()]
    (cut,) = display.cuts
    assert detector.scores_[noisy].max() < cut < detector.scores_[~noisy].min()
    np.testing.assert_array_equal(display.scores, detector.scores_)
    np.testing.assert_array_equal(display.marked, noisy)
    (line,) = display.ax_.lines
    assert set(line.get_xdata()) == {cut}


def test_a_pruner_by_class_has_a_cut_per_class():
    labels = np.array(["a", "b", "c"])[Y]
    apart = PrecomputedScores(RNG.normal(size=120) + 10 * Y)  # the worst of one class are better than all of another
    pruner = InfluencePruner(LogisticRegression(), apart, prune_ratio=0.2, stratify=True).fit(X, labels)
    display = ScoreDistributionDisplay.from_cleaner(pruner)
    assert len(display.cuts) == len(display.ax_.lines) == 3
    for cut, name in zip(display.cuts, "abc", strict=True):
        rows = labels == name
        np.testing.assert_array_equal(pruner.scores_[rows] < cut, ~pruner.support_[rows])
    assert "cuts of 3 classes" in legend(display)
    whole = InfluencePruner(LogisticRegression(), prune_ratio=0.2).fit(X, Y)
    assert len(ScoreDistributionDisplay.from_cleaner(whole).cuts) == 1
    regression = InfluencePruner(Ridge(), prune_ratio=0.2).fit(X, X[:, 0] + RNG.normal(size=120))
    assert len(ScoreDistributionDisplay.from_cleaner(regression).cuts) == 1
    nothing = InfluencePruner(LogisticRegression(), prune_ratio=0).fit(X, Y)
    assert ScoreDistributionDisplay.from_cleaner(nothing).cuts is None


def test_held_out_rows_of_a_pruner_have_no_score():
    pruner = InfluencePruner(LogisticRegression(), ValidationScores(), validation=0.25, random_state=0).fit(X, Y)
    display = ScoreDistributionDisplay.from_cleaner(pruner)
    assert display.counts_.sum() == 90
    assert "without a score (30)" in legend(display)
    assert "removed (9)" in legend(display)


def test_other_cleaners():
    pruner = InfluencePrunerCV(LogisticRegression(), prune_ratios=(0.1,), cv=2).fit(X, Y)
    assert ScoreDistributionDisplay.from_cleaner(pruner).counts_[0].sum() == pruner.n_pruned_
    selector = CoresetSelector(n_samples=40, random_state=0).fit(X, Y)
    display = ScoreDistributionDisplay.from_cleaner(selector)
    assert display.counts_.sum(axis=1).tolist() == [80, 40]
    assert display.cuts is None  # rows are drawn within strata
    del selector.scores_  # as after a strategy that needs none
    with pytest.raises(ValueError, match="without scores"):
        ScoreDistributionDisplay.from_cleaner(selector)


def test_attributors_and_marked_rows():
    attributor = ComplexityGap().fit(X, Y)
    display = ScoreDistributionDisplay.from_attributor(attributor, WRONG, log=True)
    assert display.counts_[0].sum() == WRONG.sum()
    assert display.ax_.get_yscale() == "log"
    assert display.ax_.get_ylim()[0] > 0


def test_axes_that_are_given_are_used():
    figure, ax = plt.subplots()
    display = ScoreDistributionDisplay([1.0, 2.0]).plot(ax)
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: ScoreDistributionDisplay([1, 2], [True]).plot(), ValueError, r"scores \(2,\) and marked \(1,\)"),
        (lambda: ScoreDistributionDisplay([np.nan] * 3).plot(), ValueError, "none of the 3 scores"),
        (lambda: ScoreDistributionDisplay([1, 2]).plot(xscale="log"), ValueError, "xscale='log'"),
        (lambda: ScoreDistributionDisplay.from_attributor(PrecomputedScores()), NotFittedError, "is not fitted yet"),
        (lambda: ScoreDistributionDisplay.from_cleaner(NoisyLabelDetector()), NotFittedError, "is not fitted yet"),
        (lambda: ScoreDistributionDisplay.from_cleaner(ComplexityGap()), TypeError, "not a ComplexityGap"),
        (lambda: ScoreDistributionDisplay.from_cleaner(make_pipeline(Ridge())), TypeError, "not a Pipeline"),
    ],
)
def test_what_cannot_be_drawn(draw, error, message):
    with pytest.raises(error, match=message):
        draw()
    assert not plt.get_fignums()
