"""The training rows behind one prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import _num_samples

from sktda.displays.drawing import (
    INK,
    KEPT,
    MARKED,
    draw_picture,
    fitting,
    label_text,
    new_axes,
    pick_pictures,
    picture_axes,
    width_of,
)

UNIT = "rise of the query's loss without the row\n(right: the row helps this prediction, left: it harms)"


class InfluenceDisplay:
    """The training rows that help one prediction most, and those that harm it most, in units of the query's loss.

    Parameters
    ----------
    rows : array-like of int of shape (m,)
        Positions of training rows, from the most helpful to the most harmful.
    values : array-like of shape (m,)
        Predicted rise of the query's loss when the row is removed; positive = the row helps.
    labels : array-like of shape (m,) or None, default=None
        Labels of these rows.
    pictures : sequence of m arrays or None, default=None
        (height, width[, channels]); None = bars.
    query_picture : array or None, default=None
        The query, drawn before the rows.
    query_label : object, default=None
        The label that was asked about.
    value_name : str or None, default=None
        What the values are, where they are no rise of a loss.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        Of the pictures: the query's (if there is one), then the rows'. Without pictures, ``[ax_]``.
    figure_, ax_ : matplotlib objects
        After `plot`.

    Raises
    ------
    ValueError
        In `from_attributor`, for no or several queries, and values that are all 0; in `plot`, for lengths that differ.
    TypeError
        In `from_attributor`, for attributors that have no value of a row for a query.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktda.attribution import Influence
    >>> from sktda.displays import InfluenceDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> influence = Influence(LogisticRegression()).fit(X[1:], y[1:])
    >>> display = InfluenceDisplay.from_attributor(influence, X[:1], y[:1], k=3, labels=y[1:])
    >>> len(display.rows), bool((display.values[:3] > 0).all())
    (6, True)
    """

    def __init__(
        self,
        rows: Any,
        values: Any,
        labels: Any = None,
        *,
        pictures: Any = None,
        query_picture: Any = None,
        query_label: Any = None,
        value_name: str | None = None,
    ) -> None:
        self.rows = rows
        self.values = values
        self.labels = labels
        self.pictures = pictures
        self.query_picture = query_picture
        self.query_label = query_label
        self.value_name = value_name

    @classmethod
    def from_attributor(
        cls,
        attributor: Any,
        X_query: Any,
        y_query: Any,
        *,
        k: int = 5,
        labels: Any = None,
        images: Any = None,
        query_image: Any = None,
        value_name: str | None = None,
        **kwargs: Any,
    ) -> InfluenceDisplay:
        """Ask a fitted attributor about one query, and draw.

        Parameters
        ----------
        attributor : attributor
            Fitted, with `attribute`.
        X_query : array-like of shape (1, ...)
            One row.
        y_query : array-like of shape (1,)
            Its label, or the prediction to explain.
        k : int, default=5
            At most so many helpful and so many harmful rows: only those with values above or below 0.
        labels : array-like of shape (n_samples,), default=None
            Of the training rows.
        images : array-like or sequence of n_samples pictures, default=None
            Of the training rows: (n, height, width), with 1, 3 or 4 channels last or first if any, or PIL images.
        query_image : array of shape (height, width[, channels]) or PIL image, default=None
            Of the query; drawn with `images`.
        value_name : str, default=None
            Name of the values, where they are no rise of the loss, as for other measures and objectives.
        **kwargs
            As for `plot`.

        Returns
        -------
        display : InfluenceDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_attributor")
        if not hasattr(attributor, "attribute"):
            raise TypeError(
                f"{type(attributor).__name__} has no attribute(), so it has no values of rows for one prediction; use "
                "a gradient method such as Influence, fitted"
            )
        if _num_samples(X_query) != 1 or _num_samples(y_query) != 1:
            raise ValueError(
                f"one query is drawn at a time, got {_num_samples(X_query)} rows and {_num_samples(y_query)} labels; "
                "give a slice such as X[7:8], y[7:8]"
            )
        rows, values = _extremes(attributor, X_query, y_query, k)
        return cls(
            rows,
            values,
            None if labels is None else np.asarray(labels)[rows],
            pictures=None if images is None else [images[int(row)] for row in rows],
            query_picture=query_image,
            query_label=_safe_indexing(y_query, [0])[0] if not hasattr(y_query, "iloc") else y_query.iloc[0],
            value_name=value_name,
        ).plot(**kwargs)

    def plot(self, ax: Any = None) -> InfluenceDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where all of it goes; None = a new figure.

        Returns
        -------
        self
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        for name in ("values", "labels", "pictures"):
            each = getattr(self, name)
            if each is not None and len(each) != len(self.rows):
                raise ValueError(f"{name} has {len(each)} entries, but there are {len(self.rows)} rows")
        values = np.asarray(self.values, dtype=float)
        self.ax_ = self._draw_bars(ax, values) if self.pictures is None else self._draw_pictures(ax, values)
        self.figure_ = self.ax_.figure
        return self

    def _names(self, length: int, mark: str) -> list[str]:
        labels = [None] * len(self.rows) if self.labels is None else self.labels
        return [
            f"row {row}" + ("" if label is None else f"{mark}{label_text(label, length)}")
            for row, label in zip(self.rows, labels, strict=True)
        ]

    def _draw_bars(self, ax: Any, values: np.ndarray) -> Any:
        places = np.arange(len(values))
        ax = new_axes(ax, (6.4, 1.2 + 0.3 * len(values)))
        ax.barh(places, values, height=0.7, color=[KEPT if each >= 0 else MARKED for each in values])
        ax.bar_label(ax.containers[-1], [f"{each:.2g}" for each in values], padding=3, fontsize=8, color=INK)
        ax.set_yticks(places, self._names(24, ":  "), fontsize=8)
        ax.invert_yaxis()
        ax.margins(x=0.18)
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.set_xlabel(self.value_name or UNIT)
        if self.query_label is not None:
            ax.set_title(f"query with label {label_text(self.query_label)}", loc="left", fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        self.axes_ = [ax]
        return ax

    def _draw_pictures(self, ax: Any, values: np.ndarray) -> Any:
        """A line of helpful and a line of harmful rows, the query before the first."""
        n_helpful = int((values >= 0).sum())
        asked = int(self.query_picture is not None)
        n_columns = max(n_helpful, len(values) - n_helpful) + asked
        n_lines = 1 + (n_helpful < len(values))
        ax = new_axes(ax, (max(1.3 * n_columns, 3.9), 1.8 * n_lines + 0.5))
        length = fitting(width_of(ax) / n_columns, 8)
        cells = picture_axes(ax, n_lines * n_columns, n_columns)
        helpful, harmful = cells[asked : asked + n_helpful], cells[n_columns + asked :][: len(values) - n_helpful]
        harmful = harmful[::-1]  # the most harmful row, which is the last, comes first in its line
        chosen = [*cells[:asked], *helpful, *harmful]
        for cell in cells:
            if cell not in chosen:
                cell.remove()
        given = [self.query_picture] * asked + list(self.pictures)
        pictures = pick_pictures(given, range(len(given)))
        if asked:
            label = "" if self.query_label is None else label_text(self.query_label, length)
            draw_picture(chosen[0], pictures[0], f"query\n{label}", "", INK)
        names = self._names(length, "\n")
        for inner, picture, name, value in zip(chosen[asked:], pictures[asked:], names, values, strict=True):
            draw_picture(inner, picture, name, f"{value:+.2g}", KEPT if value >= 0 else MARKED)
        ax.set_title(self.value_name or UNIT.replace("right:", "above:").replace("left:", "below:"), fontsize=9)
        self.axes_ = chosen
        return ax


def _extremes(attributor: Any, X: Any, y: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, values) of the k most helpful and the k most harmful rows, the most helpful first."""
    if hasattr(attributor, "top_k"):
        best, worst = (attributor.top_k(X, y, k, harmful=harmful) for harmful in (False, True))
        rows = np.concatenate([best[0][0], worst[0][0][::-1]])
        values = np.concatenate([best[1][0], worst[1][0][::-1]])
        helps = np.arange(len(rows)) < len(best[0][0])
    else:
        all_values = np.asarray(attributor.attribute(X, y))[0]
        if not 1 <= k <= len(all_values):
            raise ValueError(f"k={k} is not between 1 and the number of training rows, {len(all_values)}")
        order = np.argsort(-all_values, kind="stable")
        rows = np.concatenate([order[:k], order[-k:]])
        values, helps = all_values[rows], np.arange(2 * k) < k
    chosen = np.where(helps, values > 0, values < 0)  # of few rows, the same ones are at both ends
    if not chosen.any():
        raise ValueError("all values are 0: no training row helps or harms this query")
    return rows[chosen], values[chosen]
