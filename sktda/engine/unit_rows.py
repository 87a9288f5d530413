"""Rows of X as tensors of length 1: what methods compare that have no model."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.sparsefuncs import min_max_axis

from sktda.data import block_rows, n_columns, row_block, slices

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
            self._read_columns()
        if scale == "auto":
            self.scale = "unit" if self._share_a_unit() else "standard"

    def _read_columns(self) -> None:
        # In units of a power of two below the largest value nothing over- or underflows; shifted by the middle of
        # their range, columns such as years do not cancel, and constant ones have no spread at all.
        X = self.X
        if sp.issparse(X) and not X.has_canonical_format:
            X = X.copy()
            X.sum_duplicates()
        low, high = _column_range(X)
        self._factor = _power_of_two(np.maximum(np.abs(low), np.abs(high)))
        self._shift = low / self._factor / 2 + high / self._factor / 2
        total, square = _shifted_sums(X, self._factor, self._shift)
        self._centre = total / len(self)
        spread = np.sqrt(np.maximum(square / len(self) - np.square(self._centre), 0))
        self._varies = spread > 64 * np.finfo(float).eps * np.abs(self._shift)
        self._spread = np.where(self._varies, spread, 1.0)

    def _share_a_unit(self) -> bool:
        size = self._factor / self._factor.max()
        mean = size * (self._shift + self._centre)
        variance = np.square(np.where(self._varies, size * self._spread, 0.0))
        if not variance.any():
            return False
        many = variance.sum() ** 2 >= MANY_COLUMNS * np.square(variance).sum()
        return bool(many and variance.sum() > EVENLY * (variance + np.square(mean)).sum())

    @property
    def mean(self) -> np.ndarray:
        """Column means (n_features,)."""
        return self._factor * (self._shift + self._centre)

    @property
    def spread(self) -> np.ndarray:
        """Standard deviations (n_features,); 1 for constant columns."""
        return np.where(self._varies, self._factor * self._spread, 1.0)

    def rescaled(self, scale: str) -> UnitRows:
        """The same rows by another scale, "standard" or "unit"; what was read of the columns is shared."""
        other = copy(self)
        other.scale = scale
        if scale == "standard" and not hasattr(self, "_shift"):
            other._read_columns()
        return other

    def __len__(self) -> int:
        return self.X.shape[0]

    def block(self, rows: slice | np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """(len(rows), n_features [+ 1]) tensor of rows of length 1."""
        import torch

        if self.scale == "standard":
            values = row_block(self.X, rows)
            values /= self._factor
            values -= self._shift
            values -= self._centre
            values /= self._spread
            values[:, ~self._varies] = 0
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


def _column_range(X: Any) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest values (n_features,) of the columns."""
    if sp.issparse(X):
        return min_max_axis(X.astype(np.float64), axis=0)
    low, high = np.full(n_columns(X), np.inf), np.full(n_columns(X), -np.inf)
    for rows in slices(X.shape[0], block_rows(X)):
        block = row_block(X, rows, X.dtype)
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    return low, high


def _shifted_sums(X: Any, factor: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and sums of squares (n_features,) of X / factor - shift; of a CSR matrix without making it dense."""
    n, d = X.shape[0], n_columns(X)
    if sp.issparse(X):
        columns = X.indices
        values = X.data / factor[columns] - shift[columns]
        blank = n - np.bincount(columns, minlength=d)
        total = np.bincount(columns, values, d) - blank * shift
        return total, np.bincount(columns, np.square(values), d) + blank * np.square(shift)
    total, square = np.zeros(d), np.zeros(d)
    for rows in slices(n, block_rows(X)):
        block = row_block(X, rows)
        block /= factor
        block -= shift
        total += block.sum(axis=0)
        square += np.einsum("ij,ij->j", block, block)
    return total, square


def _power_of_two(values: np.ndarray) -> np.ndarray:
    """The largest powers of two that are not above the values (n,) >= 0; 1 for 0. Division by them is exact."""
    return np.where(values > 0, np.ldexp(1.0, np.frexp(values)[1] - 1), 1.0)
