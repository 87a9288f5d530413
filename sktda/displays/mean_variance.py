"""Mean against variance influence of the rows, over training runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from sktda.displays.drawing import KEPT, MARKED, legend_above, new_axes


class MeanVarianceDisplay:
    """Mean against variance influence of every training row, over runs.

    To the left: rows that harm the objective. Below: rows without which training would be more stable.

    Parameters
    ----------
    mean, variance : ndarray of shape (n_samples,)
        The measures "mean" and "variance" of `Distributional`.
    marked : ndarray of bool of shape (n_samples,) or None, default=None
        Rows to show in another colour, such as those whose label is known to be wrong.

    Attributes
    ----------
    figure_, ax_ : matplotlib objects
        After `plot`.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.displays import MeanVarianceDisplay
    >>> rng = np.random.default_rng(0)
    >>> display = MeanVarianceDisplay(rng.normal(size=50), rng.normal(size=50)).plot()
    >>> display.ax_.get_xlabel()
    'mean influence: rise of the objective without the row'
    """

    def __init__(self, mean: np.ndarray, variance: np.ndarray, marked: np.ndarray | None = None) -> None:
        self.mean = mean
        self.variance = variance
        self.marked = marked

    @classmethod
    def from_attributor(cls, attributor: Any, *, marked: Any = None, **kwargs: Any) -> MeanVarianceDisplay:
        """Both measures of a fitted `Distributional`, drawn.

        Parameters
        ----------
        attributor : Distributional
            Fitted with an objective.
        marked : array-like of bool of shape (n_samples,), default=None
            Rows to show in another colour.
        **kwargs
            As for `plot`.

        Returns
        -------
        display : MeanVarianceDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_attributor")
        check_is_fitted(attributor, "member_values_")
        return cls(attributor.measured("mean"), attributor.measured("variance"), marked).plot(**kwargs)

    def plot(self, ax: Any = None, *, n_named: int = 5) -> MeanVarianceDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            None = a new figure.
        n_named : int, default=5
            The rows that are furthest out in each direction get their position beside them.

        Returns
        -------
        self
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        mean, variance = np.asarray(self.mean, dtype=float), np.asarray(self.variance, dtype=float)
        marked = np.zeros(len(mean), dtype=bool) if self.marked is None else np.asarray(self.marked, dtype=bool)
        if not mean.shape == variance.shape == marked.shape:
            raise ValueError(
                f"mean {mean.shape}, variance {variance.shape} and marked {marked.shape} must all be (n_samples,)"
            )
        ax = new_axes(ax)
        ax.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        ax.axvline(0, color="0.7", linewidth=0.8, zorder=0)
        ax.scatter(mean[~marked], variance[~marked], s=12, color=KEPT, alpha=0.6, label="rows")
        if marked.any():
            ax.scatter(mean[marked], variance[marked], s=18, color=MARKED, marker="x", label="marked rows")
            legend_above(ax)
        orders = [np.argsort(mean), np.argsort(variance)]
        for row in {int(row) for order in orders for row in [*order[:n_named], *order[::-1][:n_named]]}:
            ax.annotate(str(row), (mean[row], variance[row]), xytext=(3, 3), textcoords="offset points", fontsize=7)
        ax.set_xlabel("mean influence: rise of the objective without the row")
        ax.set_ylabel("variance influence: rise of its variance")
        self.ax_, self.figure_ = ax, ax.figure
        return self
