"""Means and standard deviations of columns of any size: nothing over- or underflows, and no offset cancels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.sparsefuncs import min_max_axis
from sklearn.utils.validation import validate_data

from sktda.data import block_rows, n_columns, row_block, slices

FARTHEST = 1e15  # standard deviations: the square of a new row shall not overflow in single precision either

OFFSET = 2.0**10  # deviations from zero, from where on the 24 digits of float32 are too few for a column


class Standard:
    """What makes columns standard: (x / factor - shift - centre) / deviation, and 0 where a column is constant.

    In units of a power of two below the largest value nothing over- or underflows; shifted by the middle of their
    range, columns such as years do not cancel, and constant ones have no spread at all. All arrays (n_columns,).

    low, high: the range of each column. n: how many rows. sums(factor, shift): sums and sums of squares of
    x / factor - shift.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, n: int, sums: Callable[..., Any]) -> None:
        self.factor = power_of_two(np.maximum(np.abs(low), np.abs(high)))
        self.shift = low / self.factor / 2 + high / self.factor / 2
        total, square = sums(self.factor, self.shift)
        self.centre = total / n
        # E x^2 - (E x)^2 about the shift, where both are small; rounding may leave a constant column below 0
        deviation = np.sqrt(np.maximum(square / n - np.square(self.centre), 0))
        # the shift is subtracted with so much rounding: what varies by less does not vary
        self.varies = deviation > 64 * np.finfo(float).eps * np.abs(self.shift)
        self.deviation = np.where(self.varies, deviation, 1.0)

    @classmethod
    def of(cls, X: Any) -> Standard:
        """Of the columns of X (n, ...), dense or CSR, flattened and read block by block."""
        if not sp.issparse(X):
            return cls.of_blocks(
                lambda: (row_block(X, rows, X.dtype) for rows in slices(X.shape[0], block_rows(X))), n_columns(X)
            )
        if not X.has_canonical_format:
            X = X.copy()
            # two entries of a cell are one number, and would be squared as two
            X.sum_duplicates()
        n, d = X.shape

        def sums(factor: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            values = X.data / factor[X.indices] - shift[X.indices]
            # zeros that are not stored, each 0 / factor - shift
            blank = n - np.bincount(X.indices, minlength=d)
            total = np.bincount(X.indices, values, d) - blank * shift
            return total, np.bincount(X.indices, np.square(values), d) + blank * np.square(shift)

        low, high = min_max_axis(X.astype(np.float64), axis=0)
        return cls(low, high, n, sums)

    @classmethod
    def of_blocks(cls, blocks: Callable[[], Iterable[np.ndarray]], width: int) -> Standard:
        """Of dense blocks of rows (b, width), which are asked for twice."""
        low, high, n = np.full(width, np.inf), np.full(width, -np.inf), 0
        for block in blocks():
            low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
            n += len(block)

        def sums(factor: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            total, square = np.zeros(width), np.zeros(width)
            for block in blocks():
                values = block / factor
                values -= shift
                total += values.sum(axis=0)
                square += np.einsum("ij,ij->j", values, values)
            return total, square

        return cls(low, high, n, sums)

    @property
    def mean(self) -> np.ndarray:
        """Column means (n_columns,)."""
        return self.factor * (self.shift + self.centre)

    @property
    def spread(self) -> np.ndarray:
        """Standard deviations (n_columns,); 1 for constant columns."""
        return np.where(self.varies, self.factor * self.deviation, 1.0)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Values (..., n_columns) of type float64, made standard in place and returned."""
        with np.errstate(over="ignore"):  # of a new row that is far larger than all that were seen
            values /= self.factor
            values -= self.shift
            values -= self.centre
            values /= self.deviation
        values[..., ~self.varies] = 0
        return np.clip(values, -FARTHEST, FARTHEST, out=values)


class NearOne(TransformerMixin, BaseEstimator):
    """Brings columns near 1 by powers of two, before a model that the library chose: trees compute in float32.

    That knows no number above 3e38, and little of what varies on a large offset, which is therefore subtracted (not
    of sparse rows). Ordinary columns keep all their digits, so that trees split them where they would have without.
    """

    def fit(self, X: Any, y: Any = None) -> NearOne:
        """Read the columns of X (n, n_features), dense or CSR."""
        X = validate_data(self, X, accept_sparse="csr", dtype="numeric")
        standard = Standard.of(X)
        self.unit_ = power_of_two(standard.spread)
        far = np.abs(standard.mean) > OFFSET * standard.spread
        self.offset_ = np.where(far, standard.mean, 0.0)
        return self

    def transform(self, X: Any) -> Any:
        """A copy, float64."""
        X = validate_data(self, X, accept_sparse="csr", dtype="numeric", reset=False)
        with np.errstate(over="ignore"):  # of a new row that is far larger than all that were seen
            if sp.issparse(X):
                X = X.astype(np.float64)
                X.data = np.clip(X.data / self.unit_[X.indices], -FARTHEST, FARTHEST)
                return X
            return np.clip((X - self.offset_) / self.unit_, -FARTHEST, FARTHEST)


def power_of_two(values: np.ndarray) -> np.ndarray:
    """The largest powers of two that are not above the values (n,) >= 0; 1 for 0. Division by them is exact."""
    return np.where(values > 0, np.ldexp(1.0, np.frexp(values)[1] - 1), 1.0)
