"""How the scores of the rows are distributed, and where the cut is."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from sktda.cleaning.coreset import CoresetSelector
from sktda.cleaning.detector import NoisyLabelDetector
from sktda.cleaning.pruner import InfluencePruner
from sktda.cleaning.pruner_cv import InfluencePrunerCV
from sktda.displays.drawing import INK, KEPT, MARKED, legend_above, new_axes

LONG_TAIL = 10  # interquartile ranges that 98 % of the scores span, from where on tails get a logarithmic axis


class ScoreDistributionDisplay:
    """Histogram of the scores of the training rows, higher = keep, with removed rows in another colour.

    Parameters
    ----------
    scores : array-like of shape (n_samples,)
        NaN = without a score, such as rows held out for validation; they are counted in the legend.
    marked : array-like of bool of shape (n_samples,) or None, default=None
        Rows to show in another colour.
    cuts : float, array-like of float or None, default=None
        Where the decision falls: one line; of several, one per class, short ticks at the top.
    marked_name : str, default="marked"
        What the marked rows are called in the legend.
    other_name : str, default="rows"
        What the others are called.

    Attributes
    ----------
    counts_ : ndarray of shape (2, n_bins)
        Marked and other rows in each bin, after `plot`.
    edges_ : ndarray of shape (n_bins + 1,)
        Edges of the bins.
    n_beyond_ : int
        Rows outside the edges, which are counted in the outermost bins.
    figure_, ax_ : matplotlib objects
        After `plot`.

    Raises
    ------
    ValueError
        In `plot`, if lengths differ or no score is finite; in `from_cleaner`, for one that chose without scores.
    TypeError
        In `from_cleaner`, for other estimators, such as a Pipeline around a cleaner.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda import NoisyLabelDetector
    >>> from sktda.attribution import ComplexityGap
    >>> from sktda.displays import ScoreDistributionDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> y[::10] = (y[::10] + 3) % 10
    >>> display = ScoreDistributionDisplay.from_cleaner(NoisyLabelDetector(ComplexityGap()).fit(X, y))
    >>> display.counts_.sum(axis=1).astype(int).tolist()
    [174, 1623]
    """

    def __init__(
        self,
        scores: Any,
        marked: Any = None,
        cuts: Any = None,
        *,
        marked_name: str = "marked",
        other_name: str = "rows",
    ) -> None:
        self.scores = scores
        self.marked = marked
        self.cuts = cuts
        self.marked_name = marked_name
        self.other_name = other_name

    @classmethod
    def from_attributor(cls, attributor: Any, marked: Any = None, **kwargs: Any) -> ScoreDistributionDisplay:
        """The scores of a fitted attributor, drawn.

        Parameters
        ----------
        attributor : attributor
            Fitted, with `scores_`.
        marked : array-like of bool of shape (n_samples,), default=None
            Rows to show in another colour, such as those whose label is known to be wrong.
        **kwargs
            As for `plot`.

        Returns
        -------
        display : ScoreDistributionDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_attributor")
        check_is_fitted(attributor, "scores_")
        return cls(attributor.scores_, marked).plot(**kwargs)

    @classmethod
    def from_cleaner(cls, cleaner: Any, **kwargs: Any) -> ScoreDistributionDisplay:
        """The scores of a fitted cleaner, removed rows apart, drawn.

        Where rows are removed class by class, each class has a cut of its own. No cut is drawn where none separates
        the rows: after a choice within strata, by several rounds, or by a floor of a class.

        Parameters
        ----------
        cleaner : InfluencePruner, InfluencePrunerCV, NoisyLabelDetector or CoresetSelector
            Fitted.
        **kwargs
            As for `plot`.

        Returns
        -------
        display : ScoreDistributionDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_cleaner")
        if not isinstance(cleaner, (InfluencePruner, InfluencePrunerCV, NoisyLabelDetector, CoresetSelector)):
            raise TypeError(
                f"from_cleaner takes a fitted InfluencePruner, NoisyLabelDetector or CoresetSelector, not a "
                f"{type(cleaner).__name__}; for scores alone use from_attributor, of a Pipeline give its step"
            )
        check_is_fitted(cleaner)
        if not hasattr(cleaner, "scores_"):
            raise ValueError(f"{cleaner} chose its rows without scores, so there is no distribution to draw")
        if isinstance(cleaner, NoisyLabelDetector):
            removed, groups, names = cleaner.labels_ == -1, None, ("noisy", "clean")
        else:
            removed, names = ~cleaner.get_support(), ("removed", "kept")
            by_class = is_classifier(cleaner) and getattr(cleaner, "stratify", False)
            groups = cleaner._given if by_class and np.ndim(cleaner._given) == 1 else None
        cuts = _cuts(cleaner.scores_, removed, groups)
        return cls(cleaner.scores_, removed, cuts, marked_name=names[0], other_name=names[1]).plot(**kwargs)

    def plot(
        self, ax: Any = None, *, bins: int = 50, xscale: str = "auto", log: bool = False
    ) -> ScoreDistributionDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            None = a new figure.
        bins : int, default=50
            Number of bars, equally wide on the axis.
        xscale : {"auto", "linear", "symlog"}, default="auto"
            "symlog" is linear near 0 and logarithmic in the tails. "linear" ends where the few outermost rows would
            squeeze all others; these are then in the outermost bars, which the axis says. "auto" is "symlog" for
            scores around 0 with a long tail.
        log : bool, default=False
            Whether the numbers of rows are on a logarithmic axis.

        Returns
        -------
        self
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        if xscale not in {"auto", "linear", "symlog"}:
            raise ValueError(f"xscale={xscale!r} must be 'auto', 'linear' or 'symlog'")
        scores = np.asarray(self.scores, dtype=float)
        marked = np.zeros(scores.shape, dtype=bool) if self.marked is None else np.asarray(self.marked, dtype=bool)
        if scores.ndim != 1 or scores.shape != marked.shape:
            raise ValueError(f"scores {scores.shape} and marked {marked.shape} must both be (n_samples,)")
        cuts = np.atleast_1d([] if self.cuts is None else np.asarray(self.cuts, dtype=float))
        scored = ~np.isnan(scores)
        values, marked = scores[scored], marked[scored]
        if not np.isfinite(values).any():
            raise ValueError(f"none of the {len(scores)} scores is finite, so there is nothing to draw")
        ax = new_axes(ax)
        finite = values[np.isfinite(values)]
        xscale = _scale(finite) if xscale == "auto" else xscale
        if xscale == "symlog":
            ax.set_xscale("symlog", linthresh=np.subtract(*np.quantile(finite, [0.75, 0.25])) or 1.0)
        ends = _ends(finite, cuts, clipped=xscale == "linear")
        on_axis = ax.xaxis.get_transform()
        first, last = on_axis.transform(np.array(ends))
        self.edges_ = on_axis.inverted().transform(np.linspace(first, last, bins + 1))
        self.edges_[[0, -1]] = ends
        self.n_beyond_ = int(((values < ends[0]) | (values > ends[1])).sum())
        values = np.clip(values, *ends)
        self.counts_ = np.array([np.histogram(values[each], self.edges_)[0] for each in (marked, ~marked)])
        self._draw(ax, cuts, log, int((~scored).sum()))
        if xscale == "symlog":
            ax.set_xticks(_round_ticks(on_axis.transform, first, last))
            ax.xaxis.set_major_formatter(lambda tick, _: f"{tick:.3g}")
            ax.set_xlabel(ax.get_xlabel() + ", logarithmic away from 0")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw(self, ax: Any, cuts: np.ndarray, log: bool, n_unscored: int) -> None:
        bottom = np.zeros(len(self.edges_) - 1)
        names = ((self.marked_name, MARKED), (self.other_name, KEPT))
        for (name, color), counts in zip(names, self.counts_, strict=True):
            if counts.any() or (color == MARKED and self.marked is not None):
                style = {"color": color, "edgecolor": "white", "linewidth": 0.3, "align": "edge"}
                ax.bar(
                    self.edges_[:-1],
                    counts,
                    np.diff(self.edges_),
                    bottom,
                    label=f"{name} ({counts.sum():,.0f})",
                    **style,
                )
            bottom = bottom + counts
        if len(cuts) == 1:
            ax.axvline(cuts[0], color=INK, linestyle="--", linewidth=1, label=f"cut ({cuts[0]:.3g})")
        for number, cut in enumerate(cuts if len(cuts) > 1 else []):
            name = "_" if number else f"cuts of {len(cuts)} classes"
            ax.axvline(cut, 0.94, 1, color=INK, linewidth=1, label=name)
        if n_unscored:
            ax.plot([], [], " ", label=f"without a score ({n_unscored:,})")
        if log:
            ax.set_yscale("log")
            ax.set_ylim(bottom=0.7)
        else:
            ax.yaxis.get_major_locator().set_params(integer=True)
        beyond = f"\n{self.n_beyond_:,} rows beyond the axis are in the outermost bars" if self.n_beyond_ else ""
        ax.set(xlabel="score (higher = keep)" + beyond, ylabel="rows", xlim=(self.edges_[0], self.edges_[-1]))
        ax.spines[["top", "right"]].set_visible(False)
        legend_above(ax)


def _cuts(scores: np.ndarray, removed: np.ndarray, groups: Any) -> np.ndarray | None:
    """Thresholds between removed and kept rows: one, or one per group; None where they do not separate them."""
    found = [_cut(scores, removed)]
    if np.isnan(found[0]) and groups is not None:
        groups = np.asarray(groups)
        found = [_cut(scores[groups == each], removed[groups == each]) for each in np.unique(groups[removed])]
    return None if np.isnan(found).any() or not found else np.array(found)


def _cut(scores: np.ndarray, removed: np.ndarray) -> float:
    """Halfway between the best removed and the worst kept row; NaN where that is no cut."""
    last = scores[removed].max(initial=-np.inf)
    first = np.nanmin(scores[~removed], initial=np.inf)
    return (last + first) / 2 if np.isfinite([last, first]).all() and last <= first else np.nan


def _scale(values: np.ndarray) -> str:
    """ "symlog" for values around 0 with a long tail, else "linear"."""
    low, lower, middle, upper, high = np.quantile(values, [0.01, 0.25, 0.5, 0.75, 0.99])
    spread = upper - lower
    return "symlog" if spread > 0 and high - low > LONG_TAIL * spread and abs(middle) < 3 * spread else "linear"


def _round_ticks(on_axis: Any, first: float, last: float) -> list[float]:
    """0, powers of ten, then 5 and 2 times these, as far as they have room between first and last on the axis."""
    powers = [10.0**k for k in range(-12, 13)]
    wanted = [0.0, *(sign * step * each for step in (1, 5, 2) for each in powers[::-1] for sign in (1, -1))]
    found: list[float] = []
    for tick, place in zip(wanted, on_axis(np.array(wanted)), strict=True):
        apart = all(abs(place - on_axis(np.array([other]))[0]) > 0.09 * (last - first) for other in found)
        if first <= place <= last and apart:
            found.append(tick)
    return found


def _ends(values: np.ndarray, cuts: np.ndarray, clipped: bool) -> tuple[float, float]:
    """Where the axis begins and ends; with the cuts, and without the few values that would squeeze all others."""
    least, low, high, most = np.quantile(values, [0, 0.01, 0.99, 1])
    if clipped and high > low:
        margin = (high - low) / 2
        least, most = max(least, low - margin), min(most, high + margin)
    least, most = min(least, cuts.min(initial=np.inf)), max(most, cuts.max(initial=-np.inf))
    margin = 0.0 if most > least else abs(least) / 10 or 0.5
    return least - margin, most + margin
