"""The rows whose labels are most likely wrong, with what they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from sktda.attribution.base import loo_decision_of
from sktda.data import row_index
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


class SuspectGalleryDisplay:
    """The worst rows with given and suggested label: as pictures, or as bars of their quality.

    Parameters
    ----------
    rows : array-like of int of shape (k,)
        Positions of the rows, worst first.
    given : array-like of shape (k,)
        Their labels.
    suggested : array-like of shape (k,) or None, default=None
        What they should be.
    quality : array-like of shape (k,) or None, default=None
        Higher = keep.
    noisy : array-like of bool of shape (k,) or None, default=None
        Which of them are called noisy; None = all. The others are drawn in blue.
    names : array-like of shape (k,) or None, default=None
        What the rows are called, such as the index of a DataFrame; None = their positions.
    pictures : sequence of k arrays or None, default=None
        (height, width[, channels]); None = bars.
    quality_name : str, default="label quality"
        What the quality is.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        Of the pictures; without pictures, ``[ax_]``.
    figure_, ax_ : matplotlib objects
        After `plot`.

    Raises
    ------
    ValueError
        In `plot`, for lengths that differ, no row at all, bars without a quality, and pictures of another shape.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda import NoisyLabelDetector
    >>> from sktda.attribution import ComplexityGap
    >>> from sktda.displays import SuspectGalleryDisplay
    >>> digits = load_digits()
    >>> digits.target[:3] = 7  # they are 0, 1, 2
    >>> detector = NoisyLabelDetector(ComplexityGap()).fit(digits.data, digits.target)
    >>> display = SuspectGalleryDisplay.from_detector(detector, digits.images, n_rows=3)
    >>> [ax.get_title() for ax in display.axes_]
    ['7 → 0', '7 → 1', '7 → 2']
    """

    def __init__(
        self,
        rows: Any,
        given: Any,
        suggested: Any = None,
        quality: Any = None,
        *,
        noisy: Any = None,
        names: Any = None,
        pictures: Any = None,
        quality_name: str = "label quality",
    ) -> None:
        self.rows = rows
        self.given = given
        self.suggested = suggested
        self.quality = quality
        self.noisy = noisy
        self.names = names
        self.pictures = pictures
        self.quality_name = quality_name

    @classmethod
    def from_detector(
        cls, detector: Any, images: Any = None, *, n_rows: int = 12, **kwargs: Any
    ) -> SuspectGalleryDisplay:
        """The worst rows of a fitted `NoisyLabelDetector`, drawn.

        Parameters
        ----------
        detector : NoisyLabelDetector
            Fitted.
        images : array-like or sequence of n_samples pictures, default=None
            One per row: (n, height, width), with 1, 3 or 4 channels last or first if any, or PIL images. None = bars.
        n_rows : int, default=12
            At most so many. Those that are not called noisy are blue.
        **kwargs
            As for `plot`.

        Returns
        -------
        display : SuspectGalleryDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_detector")
        if not hasattr(detector, "suggested_labels_") and not hasattr(detector, "contamination"):
            raise TypeError(f"a NoisyLabelDetector is needed, got {type(detector).__name__}; use from_attributor")
        check_is_fitted(detector, "label_quality_")
        rows = np.argsort(detector.scores_, kind="stable")[:n_rows]
        return cls(
            rows,
            detector._given[rows],
            detector.suggested_labels_[rows],
            detector.label_quality_[rows],
            noisy=detector.labels_[rows] == -1,
            names=None if detector._index is None else np.asarray(detector._index)[rows],
            pictures=_pictures(images, rows, len(detector.scores_)),
        ).plot(**kwargs)

    @classmethod
    def from_attributor(
        cls, attributor: Any, y: Any, images: Any = None, *, n_rows: int = 12, **kwargs: Any
    ) -> SuspectGalleryDisplay:
        """The rows with the lowest scores, drawn, with the labels that the attributor suggests where it does.

        Parameters
        ----------
        attributor : attributor
            Fitted, with `scores_`.
        y : array-like of shape (n_samples,)
            The labels that it was fitted on.
        images : array-like or sequence of n_samples pictures, default=None
            As in `from_detector`.
        n_rows : int, default=12
            At most so many.
        **kwargs
            As for `plot`.

        Returns
        -------
        display : SuspectGalleryDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_attributor")
        check_is_fitted(attributor, "scores_")
        check_consistent_length(attributor.scores_, y)
        rows = np.argsort(attributor.scores_, kind="stable")[:n_rows]
        suggested, index = _predicted(attributor), row_index(y)
        return cls(
            rows,
            np.asarray(y)[rows],
            None if suggested is None else suggested[rows],
            attributor.scores_[rows],
            names=None if index is None else np.asarray(index)[rows],
            pictures=_pictures(images, rows, len(attributor.scores_)),
            quality_name="score (higher = keep)",
        ).plot(**kwargs)

    def plot(self, ax: Any = None, *, n_columns: int = 6) -> SuspectGalleryDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where all of it goes; None = a new figure, larger for more rows.
        n_columns : int, default=6
            Pictures beside each other.

        Returns
        -------
        self
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        k = len(self.rows)
        for name in ("given", "suggested", "quality", "noisy", "names", "pictures"):
            each = getattr(self, name)
            if each is not None and len(each) != k:
                raise ValueError(f"{name} has {len(each)} entries, but there are {k} rows; give one per row")
        if not k:
            raise ValueError("there are no rows to draw; n_rows must be at least 1")
        self.ax_ = self._draw_bars(ax) if self.pictures is None else self._draw_pictures(ax, n_columns)
        self.figure_ = self.ax_.figure
        return self

    def _colors(self) -> list[str]:
        noisy = np.ones(len(self.rows), dtype=bool) if self.noisy is None else np.asarray(self.noisy)
        return [MARKED if each else KEPT for each in noisy]

    def _texts(self, name_length: int, label_length: int) -> list[tuple[str, str]]:
        """(name, labels) of each row."""
        names = [f"row {row}" for row in self.rows] if self.names is None else self.names
        suggested = [None] * len(names) if self.suggested is None else self.suggested
        return [
            (
                label_text(name, name_length),
                label_text(given, label_length) + ("" if wanted is None else f" → {label_text(wanted, label_length)}"),
            )
            for name, given, wanted in zip(names, self.given, suggested, strict=True)
        ]

    def _draw_pictures(self, ax: Any, n_columns: int) -> Any:
        pictures = pick_pictures(self.pictures, range(len(self.rows)))
        n_columns = min(n_columns, len(pictures))
        n_lines = -(-len(pictures) // n_columns)
        ax = new_axes(ax, (max(1.4 * n_columns, 2.8), 1.85 * n_lines))
        length = fitting(width_of(ax) / n_columns, 8)
        self.axes_ = picture_axes(ax, len(pictures), n_columns)
        texts = self._texts(length, length - 2)
        for inner, picture, (name, labels), color in zip(self.axes_, pictures, texts, self._colors(), strict=True):
            title = labels if len(labels) <= length else labels.replace(" → ", " →\n")
            draw_picture(inner, picture, title, name, color)
        return ax

    def _draw_bars(self, ax: Any) -> Any:
        if self.quality is None:
            raise ValueError("without pictures, rows are drawn as bars of their quality, and none was given")
        quality, places = np.asarray(self.quality, dtype=float), np.arange(len(self.rows))
        ax = new_axes(ax, (6.4, 0.9 + 0.3 * len(quality)))
        ax.barh(places, quality, height=0.7, color=self._colors())
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # hides the line of the cut
        numbers = [f"{each:.2g}" for each in quality]
        ax.bar_label(ax.containers[-1], numbers, padding=3, fontsize=8, color=INK, bbox=behind)
        ax.set_yticks(places, [f"{name}:  {labels}" for name, labels in self._texts(16, 20)], fontsize=8)
        ax.invert_yaxis()
        ax.margins(x=0.12)
        if self.noisy is not None:
            ax.set_xlim(0, max(0.6, 1.15 * np.nanmax(quality)))
            ax.axvline(0.5, color=INK, linestyle="--", linewidth=1, zorder=0.5)
        what = "name:  given label" + ("" if self.suggested is None else " → suggested label")
        ax.set_title(what, loc="left", fontsize=9)
        below = ", below 0.5 = noisy" if self.noisy is not None else ""
        ax.set_xlabel(self.quality_name + below)
        ax.spines[["top", "right"]].set_visible(False)
        self.axes_ = [ax]
        return ax


def _pictures(images: Any, rows: np.ndarray, n: int) -> list[Any] | None:
    if images is None:
        return None
    if len(images) != n:
        raise ValueError(f"there are {len(images)} images, but {n} rows; give one per row")
    return [images[int(row)] for row in rows]


def _predicted(attributor: Any) -> np.ndarray | None:
    """(n,) labels or numbers that the other rows suggest, where the attributor knows."""
    decision = loo_decision_of(attributor)
    if hasattr(attributor, "loo_labels_") or decision is None or decision.ndim == 1:
        return getattr(attributor, "loo_labels_", decision)
    return attributor.classes_[decision.argmax(axis=1)] if hasattr(attributor, "classes_") else None
