"""LabelConfusionDisplay: every row is in one cell; the diagonal has numbers but no colour."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

from sktda import NoisyLabelDetector
from sktda.attribution import ComplexityGap
from sktda.displays import LabelConfusionDisplay

pytestmark = pytest.mark.usefixtures("few_trees")

X, TRUE = load_digits(n_class=4, return_X_y=True)
WRONG = np.flatnonzero(TRUE == 1)[::5]
Y = TRUE.copy()
Y[WRONG] = 3
COUNTS = np.array([[50, 3, 0], [1, 40, 0], [0, 9, 30]])


def texts(display):
    return [[text.get_text() for text in line] for line in display.display_.text_]


@pytest.mark.parametrize("names", [np.arange(4), np.array(["zero", "one", "two", "three"])], ids=["numbers", "text"])
def test_counts_are_those_of_the_detector(names):
    detector = NoisyLabelDetector(ComplexityGap()).fit(X, names[Y])
    display = LabelConfusionDisplay.from_detector(detector)
    frame = detector.to_frame()
    for line, given in enumerate(detector.classes_):
        for column, suggested in enumerate(detector.classes_):
            rows = frame["given_label"] == given
            noisy = frame["noisy"] & (frame["suggested_label"] == suggested)
            expected = (rows & ~frame["noisy"]).sum() if line == column else (rows & noisy).sum()
            assert display.counts[line, column] == expected
    assert display.counts.sum() == len(Y)
    given, true = (list(detector.classes_).index(names[k]) for k in (3, 1))
    assert display.counts[given, true] > 0.9 * len(WRONG)  # what was planted


def test_cells_hold_counts_and_the_diagonal_has_no_colour():
    display = LabelConfusionDisplay(COUNTS, ["a", "b", "c"]).plot()
    assert texts(display) == [["50", "3", ""], ["1", "40", ""], ["", "9", "30"]]
    image = display.display_.im_
    np.testing.assert_array_equal(np.ma.getmaskarray(image.get_array()), np.eye(3, dtype=bool))
    np.testing.assert_array_equal(image.get_array().filled(0), COUNTS * (1 - np.eye(3)))
    assert image.get_clim() == (0, 9)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("suggested label", "given label")
    assert [tick.get_text() for tick in display.ax_.get_yticklabels()] == ["a", "b", "c"]
    colored = LabelConfusionDisplay(COUNTS, ["a", "b", "c"]).plot(color_diagonal=True)
    assert colored.display_.im_.get_clim() == (0, 50)
    assert not np.ma.getmaskarray(colored.display_.im_.get_array()).any()


def test_shares_are_of_the_rows_with_the_given_label():
    display = LabelConfusionDisplay(COUNTS, ["a", "b", "c"]).plot(normalize=True)
    np.testing.assert_allclose(display.values_, 100 * COUNTS / COUNTS.sum(axis=1, keepdims=True))
    assert texts(display)[2] == ["", "23", "77"]
    assert display.figure_.axes[-1].get_ylabel().startswith("%")
    empty = LabelConfusionDisplay(np.diag([0, 3]), "ab").plot(normalize=True)  # a class without rows
    np.testing.assert_array_equal(empty.values_, [[0, 0], [0, 100]])


def test_two_classes_and_none_that_is_wrong():
    display = LabelConfusionDisplay([[4, 0], [0, 6]], ["no", "yes"]).plot()
    assert texts(display) == [["4", ""], ["", "6"]]
    assert {tick.get_rotation() for tick in display.ax_.get_xticklabels()} == {0}


def test_of_many_classes_those_with_the_commonest_mistakes():
    counts = 100 * np.eye(100, dtype=int)
    counts[70, 3], counts[3, 70], counts[50, 20], counts[8, 9] = 9, 7, 8, 1
    names = [f"the class with the number {k:02d}" for k in range(100)]
    display = LabelConfusionDisplay(counts, names).plot(max_classes=4)
    assert display.shown_.tolist() == [3, 20, 50, 70]
    np.testing.assert_array_equal(display.values_, counts[np.ix_([3, 20, 50, 70], [3, 20, 50, 70])])
    assert display.ax_.get_title() == "4 of 100 classes, with 24 of 25 mistakes"
    assert display.ax_.get_yticklabels()[0].get_text() == "the class wi…e number 03"
    wide = LabelConfusionDisplay(counts, names).plot()
    assert len(wide.shown_) == 30
    assert wide.display_.text_ is None  # too small to read
    assert {tick.get_rotation() for tick in wide.ax_.get_xticklabels()} == {90}


def test_arguments_of_scikit_learn_and_given_axes():
    figure, ax = plt.subplots()
    display = LabelConfusionDisplay(COUNTS, "abc").plot(ax, cmap="Blues", colorbar=False, include_values=False)
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert display.display_.im_.get_cmap().name == "Blues"
    assert display.display_.text_ is None
    assert len(figure.axes) == 1


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: LabelConfusionDisplay(COUNTS, "ab").plot(), ValueError, r"counts \(3, 3\).* for 2 classes"),
        (lambda: LabelConfusionDisplay.from_detector(NoisyLabelDetector()), NotFittedError, "is not fitted yet"),
        (
            lambda: LabelConfusionDisplay.from_detector(
                NoisyLabelDetector(ComplexityGap()).fit(X, X[:, 20] + 0.5 * X[:, 30])
            ),
            ValueError,
            "fitted on numbers",
        ),
    ],
)
def test_what_cannot_be_drawn(draw, error, message):
    with pytest.raises(error, match=message):
        draw()
    assert not plt.get_fignums()
