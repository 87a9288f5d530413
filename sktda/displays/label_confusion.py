"""Which labels are taken for which: given against suggested."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from sktda.displays.drawing import FAINT, fitting, label_text, new_axes, width_of

MAX_NUMBERS = 20  # classes, up to which cells hold their numbers


class LabelConfusionDisplay:
    """Rows called noisy per pair of given and suggested label; on the diagonal, rows whose label stays.

    The diagonal is not coloured, as it would outshine all mistakes.

    Parameters
    ----------
    counts : array-like of int of shape (n_classes, n_classes)
        Rows with this given (line) and suggested (column) label.
    classes : array-like of shape (n_classes,)
        The labels.

    Attributes
    ----------
    shown_ : ndarray of int
        Positions of the classes that are drawn, in their order, after `plot`.
    values_ : ndarray of shape (n_shown, n_shown)
        What the cells hold: counts, or shares with `normalize`.
    display_ : ConfusionMatrixDisplay
        scikit-learn's, which draws.
    figure_, ax_ : matplotlib objects
        After `plot`.

    Raises
    ------
    ValueError
        In `from_detector`, for regression; in `plot`, for counts that are not square.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sktda import NoisyLabelDetector
    >>> from sktda.attribution import ComplexityGap
    >>> from sktda.displays import LabelConfusionDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> y[np.flatnonzero(y == 1)[::4]] = 7  # 46 of the ones are called sevens now
    >>> display = LabelConfusionDisplay.from_detector(NoisyLabelDetector(ComplexityGap(), contamination=0.05).fit(X, y))
    >>> int(display.counts[7, 1])
    46
    """

    def __init__(self, counts: Any, classes: Any) -> None:
        self.counts = counts
        self.classes = classes

    @classmethod
    def from_detector(cls, detector: Any, **kwargs: Any) -> LabelConfusionDisplay:
        """What a fitted `NoisyLabelDetector` suggests, drawn.

        Parameters
        ----------
        detector : NoisyLabelDetector
            Fitted, on classes.
        **kwargs
            As for `plot`.

        Returns
        -------
        display : LabelConfusionDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_detector")
        if not hasattr(detector, "suggested_labels_") and not hasattr(detector, "contamination"):
            raise TypeError(f"a NoisyLabelDetector is needed, got {type(detector).__name__}")
        check_is_fitted(detector, "suggested_labels_")
        if detector.task_ != "classification":
            raise ValueError("LabelConfusionDisplay counts pairs of classes, and this detector was fitted on numbers")
        codes = {label: code for code, label in enumerate(detector.classes_.tolist())}
        given, suggested = (
            np.array([codes[label] for label in labels.tolist()])
            for labels in (detector._given, detector.suggested_labels_)
        )
        counts = np.zeros((len(detector.classes_),) * 2, dtype=int)
        np.add.at(counts, (given, np.where(detector.labels_ == -1, suggested, given)), 1)
        return cls(counts, detector.classes_).plot(**kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        normalize: bool = False,
        color_diagonal: bool = False,
        max_classes: int = 30,
        **kwargs: Any,
    ) -> LabelConfusionDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            None = a new figure, larger for more classes.
        normalize : bool, default=False
            Shares of the rows with the given label, in percent, in place of counts.
        color_diagonal : bool, default=False
            Whether labels that stay are coloured by their number too.
        max_classes : int, default=30
            Of more classes, those of the commonest mistakes are drawn.
        **kwargs
            As for `ConfusionMatrixDisplay.plot`, such as ``cmap`` or ``colorbar``.

        Returns
        -------
        self
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        counts = np.asarray(self.counts)
        if counts.shape != (len(self.classes),) * 2:
            raise ValueError(f"counts {counts.shape} must be (n_classes, n_classes), for {len(self.classes)} classes")
        wrong = counts * ~np.eye(len(counts), dtype=bool)
        pairs = np.unravel_index(np.argsort(-wrong, axis=None, kind="stable"), wrong.shape)
        self.shown_ = np.sort(list(dict.fromkeys(np.transpose(pairs).ravel().tolist()))[:max_classes])
        among = np.ix_(self.shown_, self.shown_)
        sizes = counts.sum(axis=1, keepdims=True)[self.shown_]
        self.values_ = 100 * counts[among] / np.maximum(sizes, 1) if normalize else counts[among]
        n = len(self.shown_)
        side = min(3.5 + 0.4 * n, 10)
        ax = new_axes(ax, (side + 0.8, side))
        self._draw(ax, normalize, color_diagonal, kwargs)
        if n < len(counts):
            ax.set_title(
                f"{n} of {len(counts)} classes, with {wrong[among].sum():,} of {wrong.sum():,} mistakes", fontsize=9
            )
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw(self, ax: Any, normalize: bool, color_diagonal: bool, kwargs: dict) -> None:
        n, values = len(self.shown_), self.values_
        blank = np.eye(n, dtype=bool) & (not color_diagonal)
        colored = np.where(blank, 0, values)
        names = [label_text(self.classes[k]) for k in self.shown_]
        longest = max(len(name) for name in names)
        settings = {
            "cmap": "Oranges",
            "include_values": n <= MAX_NUMBERS,
            "xticks_rotation": 90 if longest > fitting(0.6 * width_of(ax) / n, 9) else 0,
            "values_format": ".0f" if normalize else "d" if values.dtype.kind in "iu" else ".3g",
            "im_kw": {"vmin": 0, "vmax": float(colored.max()) or 1},
            "text_kw": {"fontsize": 10 if n <= 10 else 7},
        } | kwargs
        with_bar = settings.pop("colorbar", True)
        self.display_ = ConfusionMatrixDisplay(colored, display_labels=names)
        self.display_.plot(ax=ax, colorbar=False, **settings)
        self.display_.im_.set_data(np.ma.masked_array(values, blank))
        if self.display_.text_ is not None:
            for (row, column), text in np.ndenumerate(self.display_.text_):
                if blank[row, column]:
                    text.set(text=format(values[row, column], settings["values_format"]), color=FAINT)
                elif not values[row, column]:
                    text.set_text("")  # among zeros the mistakes are hard to find
        ax.set(xlabel="suggested label", ylabel="given label")
        ax.tick_params(labelsize=9 if n <= MAX_NUMBERS else 7)
        if with_bar:
            what = "% of the rows with the given label" if normalize else "rows"
            what += "" if color_diagonal else (", called noisy" if normalize else " called noisy")
            bar = ax.figure.colorbar(self.display_.im_, ax=ax, label=what, shrink=0.8)
            bar.locator.set_params(integer=not normalize)
