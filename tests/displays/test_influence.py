"""InfluenceDisplay: the ends of `attribute`, in order and with their sign."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from sktda.attribution import ComplexityGap, Influence, ModelEnsemble
from sktda.displays import InfluenceDisplay
from sktda.displays.drawing import KEPT, MARKED

pytestmark = pytest.mark.usefixtures("few_trees")

DIGITS = load_digits()
X, Y = DIGITS.data / 16, DIGITS.target
MODEL = LogisticRegression(max_iter=500).fit(X[:150], Y[:150])
INFLUENCE = Influence(FrozenEstimator(MODEL), objective=None).fit(X[:150], Y[:150])
QUERY = X[700:701], Y[700:701]
VALUES = INFLUENCE.attribute(*QUERY)[0]


class Ask:
    """An attributor with these values."""

    def __init__(self, values):
        self.values = values

    def attribute(self, X, y):
        return np.array([self.values], dtype=float)


def test_bars_are_the_ends_of_attribute():
    display = InfluenceDisplay.from_attributor(INFLUENCE, *QUERY, k=4, labels=Y[:150])
    order = np.argsort(-VALUES)
    expected = [*order[:4], *order[-4:]]
    np.testing.assert_array_equal(display.rows, expected)
    widths = [bar.get_width() for bar in display.ax_.patches]
    np.testing.assert_allclose(widths, VALUES[expected], rtol=1e-6)
    assert widths == sorted(widths, reverse=True)
    assert [to_hex(bar.get_facecolor()).upper() for bar in display.ax_.patches] == [KEPT] * 4 + [MARKED] * 4
    names = [tick.get_text() for tick in display.ax_.get_yticklabels()]
    assert names == [f"row {row}:  {Y[row]}" for row in expected]
    assert display.query_label == Y[700]
    assert "loss" in display.ax_.get_xlabel()


def test_without_top_k_it_is_the_same():
    ensemble = ModelEnsemble(Influence(objective=None), members=[MODEL, MODEL])
    ensemble.fit(X[:150], Y[:150])
    assert not hasattr(ensemble, "top_k")
    found = InfluenceDisplay.from_attributor(ensemble, *QUERY, k=3)
    expected = InfluenceDisplay.from_attributor(INFLUENCE, *QUERY, k=3)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5)


def test_only_rows_that_help_are_helpful():
    display = InfluenceDisplay.from_attributor(Ask([0, 3, -1, 1, 0]), *QUERY, k=5)
    assert display.rows.tolist() == [1, 3, 2]
    assert display.values.tolist() == [3, 1, -1]
    helps = InfluenceDisplay.from_attributor(Ask([1, 2]), *QUERY, k=2, images=np.zeros((2, 4, 4)))
    assert helps.rows.tolist() == [1, 0]
    harms = InfluenceDisplay.from_attributor(Ask([-1, -2]), *QUERY, k=2, images=np.zeros((2, 4, 4)))
    assert harms.rows.tolist() == [0, 1]


@pytest.mark.parametrize("query_image", [None, DIGITS.images[700]], ids=["alone", "with the query"])
def test_pictures(query_image):
    display = InfluenceDisplay.from_attributor(
        INFLUENCE, *QUERY, k=3, labels=Y[:150], images=DIGITS.images[:150], query_image=query_image
    )
    axes = list(display.axes_)
    assert len(axes) == 6 + (query_image is not None)
    drawn = [np.asarray(ax.images[0].get_array()) for ax in axes]
    if query_image is not None:
        np.testing.assert_allclose(drawn.pop(0), query_image / 16)
        assert axes.pop(0).get_title() == f"query\n{Y[700]}"
    for ax, picture, row in zip(axes, drawn, display.rows, strict=True):
        np.testing.assert_allclose(picture, DIGITS.images[row] / 16)
        assert ax.get_title() == f"row {row}\n{Y[row]}"
        assert ax.get_xlabel() == f"{VALUES[row]:+.2g}"
    display.figure_.canvas.draw()
    left, bottom = np.array([ax.get_position().p0 for ax in axes]).T
    assert bottom[:3].min() > bottom[3:].max()  # helpful rows are above
    assert left[0] < left[1] < left[2]
    assert left[3] > left[4] > left[5]  # the strongest to the left in both lines
    assert set(display.ax_.child_axes) == set(display.axes_)  # no empty frames


def test_pandas_queries_and_names():
    y = pd.Series(["seven $ or so"], index=["q"])
    display = InfluenceDisplay.from_attributor(Ask([1, -1]), pd.DataFrame(QUERY[0]), y, k=1, labels=["a", "b"])
    assert display.query_label == "seven $ or so"
    assert display.ax_.get_title(loc="left") == r"query with label seven \$ or so"
    named = InfluenceDisplay([0], [1.0], value_name="variance").plot()
    assert named.ax_.get_xlabel() == "variance"


def test_axes_that_are_given_are_used():
    figure, axes = plt.subplots(2)
    display = InfluenceDisplay.from_attributor(Ask([1, -1]), *QUERY, k=1, ax=axes[0])
    assert display.ax_ is axes[0]
    assert display.figure_ is figure
    InfluenceDisplay.from_attributor(Ask([1, -1]), *QUERY, k=1, images=DIGITS.images[:2], ax=axes[1])
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: InfluenceDisplay.from_attributor(INFLUENCE, X[:2], Y[:2]), ValueError, "got 2 rows and 2 labels"),
        (lambda: InfluenceDisplay.from_attributor(INFLUENCE, X[:1], Y[:2]), ValueError, "got 1 rows and 2 labels"),
        (lambda: InfluenceDisplay.from_attributor(ComplexityGap(), *QUERY), TypeError, "ComplexityGap has no"),
        (lambda: InfluenceDisplay.from_attributor(INFLUENCE, *QUERY, k=151), ValueError, "k=151 is not between"),
        (lambda: InfluenceDisplay.from_attributor(Ask([1, 2]), *QUERY, k=3), ValueError, "k=3 is not between 1 .* 2"),
        (lambda: InfluenceDisplay.from_attributor(Ask([0, 0]), *QUERY, k=1), ValueError, "all values are 0"),
        (lambda: InfluenceDisplay([1, 2], [1.0]).plot(), ValueError, "values has 1 entries, but there are 2"),
    ],
)
def test_what_cannot_be_drawn(draw, error, message):
    with pytest.raises(error, match=message):
        draw()
    assert not plt.get_fignums()
