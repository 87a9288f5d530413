"""SuspectGalleryDisplay: the worst rows, with their own pictures, labels and numbers."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

from sktda import NoisyLabelDetector
from sktda.attribution import ComplexityGap, KNNShapley
from sktda.displays import SuspectGalleryDisplay
from sktda.displays.drawing import KEPT, MARKED

pytestmark = pytest.mark.usefixtures("few_trees")

DIGITS = load_digits()
IMAGES, X, TRUE = DIGITS.images[:300], DIGITS.data[:300], DIGITS.target[:300]
Y = TRUE.copy()
Y[::20] = (Y[::20] + 3) % 10
DETECTOR = NoisyLabelDetector(ComplexityGap()).fit(X, Y)


def shown(ax):
    return np.asarray(ax.images[0].get_array())


def test_pictures_are_those_of_the_worst_rows():
    display = SuspectGalleryDisplay.from_detector(DETECTOR, IMAGES, n_rows=5)
    worst = DETECTOR.to_frame().index[:5].to_numpy()
    np.testing.assert_array_equal(display.rows, worst)
    low, high = IMAGES[worst].min(), IMAGES[worst].max()
    for row, ax in zip(worst, display.axes_, strict=True):
        np.testing.assert_allclose(shown(ax), (IMAGES[row] - low) / (high - low))
        assert ax.get_title() == f"{Y[row]} → {DETECTOR.suggested_labels_[row]}"
        assert ax.get_xlabel() == f"row {row}"
    assert np.mean([TRUE[row] == DETECTOR.suggested_labels_[row] for row in worst]) == 1


def test_bars_are_label_quality():
    display = SuspectGalleryDisplay.from_detector(DETECTOR, n_rows=25)
    frame = DETECTOR.to_frame().head(25)
    np.testing.assert_array_equal([bar.get_width() for bar in display.ax_.patches], frame["label_quality"])
    expected = [MARKED if noisy else KEPT for noisy in frame["noisy"]]
    assert [to_hex(bar.get_facecolor()).upper() for bar in display.ax_.patches] == expected
    assert KEPT in expected  # fewer than 25 are noisy
    names = [tick.get_text() for tick in display.ax_.get_yticklabels()]
    assert names == [
        f"row {row}:  {given} → {wanted}"
        for row, given, wanted in zip(frame.index, frame["given_label"], frame["suggested_label"], strict=True)
    ]
    assert display.ax_.get_ylim()[0] > display.ax_.get_ylim()[1]  # worst on top


def test_rows_are_called_by_the_index_of_the_data():
    frame = pd.DataFrame(X, index=[f"scan-{i}" for i in range(300)])
    detector = NoisyLabelDetector(ComplexityGap()).fit(frame, Y)
    display = SuspectGalleryDisplay.from_detector(detector, IMAGES, n_rows=3)
    assert [ax.get_xlabel() for ax in display.axes_] == list(detector.to_frame().index[:3])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda rgb: rgb, lambda rgb: rgb / 255),
        (lambda rgb: np.moveaxis(rgb, 3, 1), lambda rgb: rgb / 255),
        (lambda rgb: [Image.fromarray(each) for each in rgb], lambda rgb: rgb / 255),
        (lambda rgb: rgb / 255, lambda rgb: rgb / 255),
        (lambda rgb: rgb[..., :1], lambda rgb: rgb[..., 0] / 255),
        (lambda rgb: rgb[:, None, :, :, 0], lambda rgb: rgb[..., 0] / 255),
    ],
    ids=["channels last", "channels first", "PIL", "floats", "one channel", "one channel first"],
)
def test_kinds_of_pictures(make, expected):
    rgb = np.random.default_rng(0).integers(0, 256, size=(6, 8, 9, 3)).astype(np.uint8)
    display = SuspectGalleryDisplay(range(6), range(6), pictures=make(rgb)).plot(n_columns=4)
    for ax, picture in zip(display.axes_, expected(rgb), strict=True):
        np.testing.assert_allclose(shown(ax), picture)


def test_pictures_of_nothing_and_of_nan():
    pictures = np.zeros((2, 4, 4))
    pictures[1, 0, 0] = np.nan
    display = SuspectGalleryDisplay([0, 1], "ab", pictures=pictures).plot()
    assert all((shown(ax) == 0).all() for ax in display.axes_)


def test_from_an_attributor():
    gap = ComplexityGap().fit(X, Y)
    display = SuspectGalleryDisplay.from_attributor(gap, pd.Series(Y, index=np.arange(300) + 1000), n_rows=4)
    worst = gap.scores_.argsort()[:4]
    np.testing.assert_array_equal([bar.get_width() for bar in display.ax_.patches], gap.scores_[worst])
    np.testing.assert_array_equal(display.names, worst + 1000)
    np.testing.assert_array_equal(display.suggested, gap.loo_labels_[worst])
    assert display.ax_.get_xlabel() == "score (higher = keep)"
    plain = SuspectGalleryDisplay.from_attributor(KNNShapley(random_state=0).fit(X, Y), Y, IMAGES, n_rows=2)
    assert [ax.get_title() for ax in plain.axes_] == [str(Y[row]) for row in plain.rows]  # nothing is suggested


def test_regression_shows_numbers():
    target = X @ np.random.default_rng(0).normal(size=64)
    target[7] += 1000
    display = SuspectGalleryDisplay.from_detector(NoisyLabelDetector(ComplexityGap()).fit(X, target), n_rows=2)
    assert display.ax_.get_yticklabels()[0].get_text().startswith(f"row 7:  {target[7]:.4g} → ")


def test_names_are_cut_and_are_no_formulas():
    names = ["Barolo $ from the old hills of the north", r"$\frac{$", "  ", "two\nlines"]
    display = SuspectGalleryDisplay(range(4), names, names[::-1], [0.1] * 4).plot()
    display.figure_.canvas.draw()
    texts = [tick.get_text() for tick in display.ax_.get_yticklabels()]
    assert texts[0].startswith(r"row 0:  Barolo \$ f…the north → two lines")
    assert "(blank)" in texts[2]
    pictures = SuspectGalleryDisplay(range(4), names, names[::-1], pictures=np.eye(4)[:, None] * np.ones((4, 1))).plot()
    assert all("→" in ax.get_title() for ax in pictures.axes_)
    assert "\n" in pictures.axes_[0].get_title()


def test_axes_that_are_given_are_used():
    figure, axes = plt.subplots(1, 2, layout="constrained")
    display = SuspectGalleryDisplay.from_detector(DETECTOR, IMAGES, n_rows=4, n_columns=2, ax=axes[1])
    assert display.ax_ is axes[1]
    assert display.figure_ is figure
    assert len(plt.get_fignums()) == 1
    place = axes[1].get_position()
    figure.canvas.draw()
    for ax in display.axes_:
        assert ax.get_position().x0 >= place.x0 - 0.05


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: SuspectGalleryDisplay([1, 2], ["a"], quality=[0, 1]).plot(), ValueError, "given has 1 entries"),
        (lambda: SuspectGalleryDisplay([1], ["a"]).plot(), ValueError, "none was given"),
        (lambda: SuspectGalleryDisplay([], [], quality=[]).plot(), ValueError, "no rows"),
        (lambda: SuspectGalleryDisplay([1], ["a"], pictures=[X[0]]).plot(), ValueError, r"\(64,\) cannot be drawn"),
        (lambda: SuspectGalleryDisplay.from_detector(DETECTOR, IMAGES[:9]), ValueError, "9 images, but 300 rows"),
        (lambda: SuspectGalleryDisplay.from_detector(NoisyLabelDetector()), NotFittedError, "is not fitted yet"),
        (
            lambda: SuspectGalleryDisplay.from_attributor(ComplexityGap().fit(X, Y), Y[:9]),
            ValueError,
            "inconsistent numbers",
        ),
    ],
)
def test_what_cannot_be_drawn(draw, error, message):
    with pytest.raises(error, match=message):
        draw()
    assert not plt.get_fignums()
