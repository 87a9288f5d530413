"""Displays: what is drawn is what was measured."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from sktda.attribution import Distributional, Influence
from sktda.displays import MeanVarianceDisplay

RNG = np.random.default_rng(0)
MEAN, VARIANCE = RNG.normal(size=(2, 40))


@pytest.fixture(autouse=True)
def no_figure_stays():
    yield
    plt.close("all")


def points(ax):
    return np.concatenate([np.asarray(each.get_offsets()) for each in ax.collections])


def test_every_row_is_a_point():
    display = MeanVarianceDisplay(MEAN, VARIANCE).plot()
    np.testing.assert_array_equal(points(display.ax_), np.stack([MEAN, VARIANCE], axis=1))
    assert display.ax_.get_legend() is None
    assert "variance" in display.ax_.get_ylabel()


def test_marked_rows_are_apart():
    marked = np.arange(40) < 7
    display = MeanVarianceDisplay(MEAN, VARIANCE, marked).plot()
    plain, other = (np.asarray(each.get_offsets()) for each in display.ax_.collections)
    np.testing.assert_array_equal(other, np.stack([MEAN, VARIANCE], axis=1)[:7])
    assert len(plain) == 33
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["rows", "marked rows"]


def test_the_outermost_rows_are_named_once():
    display = MeanVarianceDisplay(MEAN, VARIANCE).plot(n_named=2)
    names = [int(text.get_text()) for text in display.ax_.texts]
    ends = [order[k] for order in (MEAN.argsort(), VARIANCE.argsort()) for k in (0, 1, -1, -2)]
    assert sorted(names) == sorted(set(ends))
    assert not list(MeanVarianceDisplay(MEAN, VARIANCE).plot(n_named=0).ax_.texts)


def test_axes_that_are_given_are_used():
    figure, ax = plt.subplots()
    display = MeanVarianceDisplay(MEAN, VARIANCE).plot(ax)
    assert display.ax_ is ax
    assert display.figure_ is figure


def test_from_a_fitted_attributor():
    X = RNG.normal(size=(30, 2))
    y = (X[:, 0] > 0).astype(int)
    models = [LogisticRegression(C=C).fit(X, y) for C in (0.1, 1, 10)]
    runs = Distributional(Influence(), members=models).fit(X, y)
    display = MeanVarianceDisplay.from_attributor(runs, n_named=0)
    np.testing.assert_array_equal(points(display.ax_)[:, 0], runs.measured("mean"))
    np.testing.assert_array_equal(points(display.ax_)[:, 1], runs.measured("variance"))
    with pytest.raises(NotFittedError):
        MeanVarianceDisplay.from_attributor(Distributional())


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"mean \(40,\), variance \(39,\) and marked \(40,\)"):
        MeanVarianceDisplay(MEAN, VARIANCE[1:]).plot()
