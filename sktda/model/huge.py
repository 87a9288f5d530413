"""Numbers that are too large, or too small, to be squared: named with their column and row where they do harm."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import LinAlgWarning
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning

from sktda.containers import column_name, column_of, is_frame
from sktda.data import block_rows, slices

LEAST_SPREAD = 1e-6  # of a forest's target, also by its mean
SQUARES = 1e150  # numbers of double precision beyond it, or below its inverse, have no square to sum up
TOO_LARGE = "too large to be squared"
SIGNS = (RuntimeWarning, ConvergenceWarning, LinAlgWarning)  # that a training on huge numbers went wrong


def largest_size(dtype: np.dtype) -> float:
    """Of numbers of this type that can be squared and summed up."""
    # a hundred of the largest squares still have a sum
    return float(np.sqrt(np.finfo(dtype).max)) / 10


def huge_cell(X: Any) -> str | None:
    """Which number of X (n, ...) is too large to be squared in its own precision, in words; None where none is.

    X: an array, a sparse matrix or a table; of everything else nothing is known.
    """
    if is_frame(X):
        for j, dtype in enumerate(X.dtypes):
            if getattr(dtype, "kind", "O") in "fO" and (cell := _largest(np.asarray(column_of(X, j)))) is not None:
                return _said(column_name(X.columns, j), cell[0], cell[2])
        return None
    cell = _largest(X)
    return None if cell is None else _said(str(cell[1]), cell[0], cell[2])


def _said(column: str, row: int, value: float) -> str:
    return f"column {column} of X is {value:g} in row {row}, {TOO_LARGE}"


def _largest(X: Any) -> tuple[int, int, float] | None:
    """(row, column, value) of the largest number of an array, list or sparse matrix, where it is too large."""
    if isinstance(X, list | tuple) or getattr(getattr(X, "dtype", None), "kind", "f") == "O":
        try:
            X = np.asarray(X, dtype=np.float64)
        except (TypeError, ValueError):  # text
            return None
    dtype = getattr(X, "dtype", None)
    if not isinstance(dtype, np.dtype) or dtype.kind != "f" or 0 in X.shape:
        return None
    limit = largest_size(dtype)
    if sp.issparse(X):
        cells = X.tocoo()
        if not cells.nnz or not np.abs(cells.data).max() > limit:
            return None
        k = int(np.abs(cells.data).argmax())
        return int(cells.row[k]), int(cells.col[k]), float(cells.data[k])
    for rows in slices(X.shape[0], block_rows(X)):
        block = np.asarray(X[rows]).reshape(rows.stop - rows.start, -1)
        # np.abs would copy the block
        if max(block.max(), -block.min()) > limit:
            row, column = np.unravel_index(np.abs(block).argmax(), block.shape)
            return rows.start + int(row), int(column), float(block[row, column])
    return None


@contextmanager
def huge_cells_named(X: Any) -> Iterator[None]:
    """Where X holds a huge number: one ValueError that names it in the place of failures and numeric warnings."""
    cell = huge_cell(X)
    if cell is None:
        yield
        return
    with warnings.catch_warnings():
        for sign in SIGNS:
            warnings.simplefilter("error", sign)
        try:
            yield
        except (ValueError, ArithmeticError, RuntimeError, *SIGNS) as error:
            first = error.__cause__ if TOO_LARGE in str(error) else None  # named already, by a part that saw fewer rows
            what = " ".join(str(first or error).split())
            raise ValueError(f"{cell} ({what}); correct it, drop the row or rescale the column") from error


def naming_huge_cells(fit: Callable) -> Callable:
    """A `fit(self, X, y, ...)` that names huge numbers of X in its errors."""

    @wraps(fit)
    def named(self: Any, X: Any, y: Any, *args: Any, **kwargs: Any) -> Any:
        with huge_cells_named(X):
            return fit(self, X, y, *args, **kwargs)

    return named


def check_forest_target(model: Any, y: np.ndarray) -> None:
    """ValueError for numbers y (n,) that scikit-learn's forests see no difference in.

    They compare variances, as differences of sums of squares, and split no node of one below 2e-16.
    """
    if not isinstance(model, RandomForestRegressor | ExtraTreesRegressor):
        return
    spread, centre = float(y.std()), float(y.mean())
    if 0 < spread < max(LEAST_SPREAD, LEAST_SPREAD * abs(centre)):
        raise ValueError(
            f"y varies by {spread:.3g} around {centre:.6g}, too little for {type(model).__name__} to tell rows apart; "
            "standardise y"
        )


def check_squares(y: Any) -> None:
    """ValueError unless squared errors of the numbers y can be summed up, neither infinite nor all 0."""
    if getattr(getattr(y, "dtype", None), "kind", "O") != "f" or not len(y):
        return
    size = np.abs(np.asarray(y, dtype=np.float64)).reshape(len(y), -1).max(axis=1)
    row = int(size.argmax())
    if size[row] > SQUARES:
        raise ValueError(
            f"y reaches {size[row]:g} in row {row}, whose squared error is infinite; correct it, drop the row or "
            "divide y by a constant"
        )
    if 0 < size[row] < 1 / SQUARES:
        raise ValueError(f"y is at most {size[row]:g}, whose squared error is 0; multiply y by a constant")
