"""Data deletion: the parameters that a model would have without some of its rows, predicted from those it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from torch import Tensor

from sktda.attribution.gradients.fitted import Fitted
from sktda.data import refuse_numbers_as_mask
from sktda.engine.gauss_newton import gauss_newton_product
from sktda.engine.per_row import PerRow
from sktda.model.base import Rows
from sktda.model.settings import plain_modes


class Deletion(ABC):
    """What the methods that predict parameters share."""

    @plain_modes
    def deletion_update(self, rows: Any) -> dict[str, Tensor]:
        """Predicted parameters of the model if it had been trained without some rows.

        Parameters
        ----------
        rows : array-like of shape (n_removed,) or (n_samples,)
            Positions in the rows given to `fit`, or a boolean mask of them.

        Returns
        -------
        parameters : dict of Tensor
            By the name of the torch module's parameter, on the processor. `unlearn` puts them into a copy of the
            estimator.

        Raises
        ------
        ValueError
            If no row, or every row, is to go, or a position does not exist.

        Notes
        -----
        An estimate to first order in the weights of the rows, which stay in the mean with weight 0 (the sum of the
        other losses is divided by n as before, and the penalty is kept). Parameters that a curvature leaves out
        (EK-FAC says which) stay as they are.
        """
        fitted = self._ready()
        with self._precisely(fitted):
            change = self._change(fitted, removed_positions(rows, len(fitted.rows)))
        own = fitted.model.parameters
        moved = {name: own[name].detach() + change[name].to(own[name]) for name in own if name in change}
        return {name: moved.get(name, own[name].detach()).cpu() for name in own}

    @abstractmethod
    def _ready(self) -> Fitted:
        """The fitted model, at its final parameters."""

    @abstractmethod
    def _precisely(self, fitted: Fitted) -> AbstractContextManager[None]:
        """In which the fitted model is passed through at this method's precision."""

    @abstractmethod
    def _change(self, fitted: Fitted, removed: np.ndarray) -> Mapping[str, Tensor]:
        """Predicted change of the parameters when the rows at these positions go."""


def removed_positions(rows: Any, n: int) -> np.ndarray:
    """Sorted positions from positions or a mask. Raises ValueError as `deletion_update` says."""
    found = np.asarray(rows)
    if found.dtype == bool:
        if found.shape != (n,):
            raise ValueError(f"rows is a mask of shape {found.shape}, and there are {n} rows")
        found = np.flatnonzero(found)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ValueError(f"rows must be positions from 0 to {n - 1}, or a boolean mask, got {rows!r}")
    refuse_numbers_as_mask("rows", found, n)
    if found.size and (found.min() < 0 or found.max() >= n):
        wrong = found[(found < 0) | (found >= n)][0]
        raise ValueError(f"rows holds the position {wrong}; allowed are 0 to {n - 1}")
    found = np.unique(found)
    if not 0 < len(found) < n:
        raise ValueError(f"{len(found)} of {n} rows are to be removed; give at least one, and leave one")
    return found


def removed_gradient(engine: PerRow, rows: Rows, removed: np.ndarray) -> dict[str, Tensor]:
    """Sum of the gradients of some rows at the model's present parameters."""
    found = engine.mean_gradient(rows.chosen(removed))
    return {name: len(removed) * value for name, value in found.items()}  # the engine's is the mean


def line_search(
    engine: PerRow, rows: Rows, removed: np.ndarray, n: int, direction: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The direction times the number that takes the other rows' loss to its lowest point along it.

    Of the quadratic model at the present parameters: slope -<g_S, w> / n, g_S the gradients of the removed rows (what
    is left of the risk's own slope where training has not ended is not the removal's doing), and bend w' H w with the
    Gauss-Newton matrix of the other rows plus the penalty. 0 where the direction leads upwards.
    """
    lost = removed_gradient(engine, rows, removed)
    # minus the slope: at an optimum the gradients of the other rows, and the penalty's, add up to minus these
    slope = sum(float((lost[name] * direction[name]).sum()) for name in direction) / n
    kept = rows.chosen(np.setdiff1d(np.arange(len(rows)), removed))
    share, decay = len(kept) / n, engine.model.decay
    product = gauss_newton_product(engine, kept, direction)
    bend = 0.0
    for name, value in direction.items():
        penalty = decay.get(name, 0.0) * value
        # the other rows' losses over n, not over their own number, and the penalty as a whole
        bend += float(((share * (product[name] - penalty) + penalty) * value).sum())
    # the lowest point of -slope * step + bend * step^2 / 2
    step = max(slope, 0.0) / bend if bend > 0 else 0.0
    return {name: step * value for name, value in direction.items()}
