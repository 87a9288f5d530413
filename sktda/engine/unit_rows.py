"""Rows of X as tensors of length 1: what methods compare that have no model."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from sktda.data import row_block
from sktda.model.standard import Standard

if TYPE_CHECKING:
    import torch

MANY_COLUMNS = 16  # below, the level of a row is too much of what it says to be normalised away
EVENLY = 0.25  # variance by mean square of values spread evenly from 0 to a bound


class UnitRows:
    """Rows of X scaled and normalised to length 1, as tensors, one block at a time.

    scale: "standard" standardises the columns and appends a constant 1; "unit" only normalises the rows, which loses
    their level; "auto" decides by the columns alone: "unit" where many columns share one unit and a meaningful zero,
    as pixels, word counts and one-hot columns do, else "standard". Many: the variances are spread over at least 16
    columns (their sum squared by the sum of their squares), however many there are. A meaningful zero: columns vary, on
    the whole, more than values that are spread evenly between 0 and a bound (the variance of those is a quarter of
    their mean square). Neither depends on the order of rows, on a common factor or on the container of X.

    Rows of zeros stay zero, constant columns count as zero.
    """

    def __init__(self, X: Any, scale: str = "auto") -> None:
        if scale not in {"auto", "standard", "unit"}:
            raise ValueError(f"scale={scale!r} is not one of 'auto', 'standard', 'unit'")
        self.X = X
        self.scale = scale
        if scale != "unit":
            self._columns = Standard.of(X)
        if scale == "auto":
            self.scale = "unit" if self._share_a_unit() else "standard"

    def _share_a_unit(self) -> bool:
        columns = self._columns
        size = columns.factor / columns.factor.max()
        mean = size * (columns.shift + columns.centre)
        variance = np.square(np.where(columns.varies, size * columns.deviation, 0.0))
        if not variance.any():
            return False
        many = variance.sum() ** 2 >= MANY_COLUMNS * np.square(variance).sum()
        return bool(many and variance.sum() > EVENLY * (variance + np.square(mean)).sum())

    @property
    def mean(self) -> np.ndarray:
        """Column means (n_features,)."""
        return self._columns.mean

    @property
    def spread(self) -> np.ndarray:
        """Standard deviations (n_features,); 1 for constant columns."""
        return self._columns.spread

    def rescaled(self, scale: str) -> UnitRows:
        """The same rows by another scale, "standard" or "unit"; what was read of the columns is shared."""
        other = copy(self)
        other.scale = scale
        if scale == "standard" and not hasattr(self, "_columns"):
            other._columns = Standard.of(self.X)
        return other

    def __len__(self) -> int:
        return self.X.shape[0]

    def block(self, rows: slice | np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """(len(rows), n_features [+ 1]) tensor of rows of length 1."""
        import torch

        if self.scale == "standard":
            values = self._columns.apply(row_block(self.X, rows))
            tensor = torch.from_numpy(np.column_stack([values, np.ones(len(values))])).to(device, dtype)
        else:
            # float64 data may not fit into float32 before they are divided
            exact = dtype == torch.float64 or (self.X.dtype.kind == "f" and self.X.dtype.itemsize > 4)
            tensor = torch.from_numpy(row_block(self.X, rows, np.float64 if exact else np.float32)).to(device)
            # squares of huge or tiny values would overflow: bring the largest to 1 first
            largest = tensor.abs().amax(dim=1, keepdim=True)
            tensor = tensor.div_(torch.where(largest > 0, largest, 1.0)).to(dtype)
        norm = torch.linalg.vector_norm(tensor, dim=1, keepdim=True)
        return tensor / torch.where(norm > 0, norm, 1.0)
