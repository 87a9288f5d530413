"""What the cells of X and y are, in whatever container and under whatever label of a type they come.

Numbers that are stored as Python objects or as categories are numbers; dates and complex numbers are none, although
NumPy would turn some of them into numbers. What cannot be read is named, with its row or column and the remedy.
"""

from __future__ import annotations

import sys
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from numbers import Number, Real
from typing import Any

import numpy as np
import scipy.sparse as sp

COMPLEX = complex | np.complexfloating


def is_pipeline(estimator: Any) -> bool:
    """Whether it is a Pipeline of scikit-learn's or of a subclass; loads neither, since who has one has loaded it."""
    module = sys.modules.get("sklearn.pipeline")
    return module is not None and isinstance(estimator, module.Pipeline)


def is_frame(X: Any) -> bool:
    """Whether X is a table of named columns that may differ in type, of pandas or polars."""
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def is_table(X: Any) -> bool:
    """Whether X is a table of pandas, polars or pyarrow."""
    return is_frame(X) or (hasattr(X, "column_names") and hasattr(X, "to_pandas"))


def needs_encoding(X: Any) -> bool:
    """Whether X is a table in which some cells are missing or no numbers, or one of pyarrow."""
    if not is_table(X) or not len(X):
        return False
    if not is_frame(X):
        return True
    try:
        cells = numbers(X)
    except (TypeError, ValueError):
        return True
    return bool(np.asarray(cells.isna() if cells is X else np.isnan(cells)).any())


def as_columns(X: Any) -> Any:
    """X, a table of pyarrow as a DataFrame."""
    return X.to_pandas() if is_table(X) and not is_frame(X) else X


def without_fill(X: Any) -> Any:
    """X, a DataFrame of sparse columns dense where these leave out another value than 0, as no sparse matrix can."""
    if getattr(X, "sparse", None) is None:
        return X
    return X if all(getattr(dtype, "fill_value", 1) == 0 for dtype in X.dtypes) else X.sparse.to_dense()


def refuse_kind(kind: str, where: str) -> None:
    """Raise ValueError if kind, NumPy's letter, is that of dates, durations, complex numbers or records."""
    if kind in "mM":
        what, days = (
            ("dates", "(dates - dates.min()).dt.days")
            if kind == "M"
            else ("durations", "durations.dt.total_seconds() / 86400")
        )
        raise ValueError(f"{where} holds {what}, which are not numbers; turn them into numbers first, such as {days}")
    if kind == "c":
        raise ValueError(
            f"Complex data not supported: {where} holds complex numbers; give their real and imaginary parts as "
            "columns of their own"
        )
    if kind == "V":
        raise ValueError(f"{where} is a structured array; give pandas.DataFrame(X), or one plain array of numbers")


def check_kinds(X: Any) -> None:
    """Raise for a column of X that no estimator of scikit-learn's reads, or one takes for numbers, and name it.

    ValueError for dates, durations, complex numbers and pandas.NA among objects; TypeError for other objects but text.
    """
    if not is_frame(X):
        refuse_kind(getattr(getattr(X, "dtype", None), "kind", "O"), "X")
        return
    for j, dtype in enumerate(X.dtypes):
        where, kind = f"column {column_name(X.columns, j)} of X", getattr(dtype, "kind", "O")
        refuse_kind(kind, where)
        for row, cell in enumerate(np.asarray(column_of(X, j)).astype(object).tolist() if kind == "O" else ()):
            if cell is None or isinstance(cell, str | bytes | Real):
                continue
            if np.isnan(_number(cell, row, where)):
                raise ValueError(f"Input X contains NaN: {where} has {cell} in row {row}; impute it, or drop the row")


def numbers(X: Any) -> Any:
    """X with all cells as numbers, missing ones as NaN; as it came where check_array reads it rightly.

    Raises ValueError naming the columns of text, dates, durations and complex numbers; TypeError for other objects.
    """
    if isinstance(X, np.matrix):
        return X  # check_array says what to do
    if is_frame(X):
        if all(getattr(dtype, "kind", "O") in "biuf" for dtype in X.dtypes):
            return without_fill(X)
        return _as_numbers([_cells(column_of(X, j)) for j in range(len(X.columns))], X.columns)
    try:
        X = X if sp.issparse(X) else np.asarray(X)
    except ValueError as error:
        raise ValueError(f"X is no table: its rows differ in length or kind ({error}); make them equal") from error
    refuse_kind(X.dtype.kind, "X")
    if X.dtype.kind in "biuf" or X.ndim < 2:
        return X
    return _as_numbers(list(X.reshape(len(X), -1).T), None).reshape(X.shape)


def column_of(X: Any, j: int) -> Any:
    """The j-th column of a table of pandas or polars."""
    return X.iloc[:, j] if hasattr(X, "iloc") else X[:, j]


def _cells(column: Any) -> np.ndarray:
    """A column of a table as an array (n,); nullable numbers as floats with NaN."""
    if getattr(column.dtype, "kind", "O") in "biuf" and hasattr(column, "iloc"):
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(column)


def _as_numbers(columns: list[np.ndarray], names: Any) -> np.ndarray:
    """(n, len(columns)) float64 from columns (n,) of any kind."""
    values = np.empty((len(columns[0]), len(columns)))
    text = []
    for j, column in enumerate(columns):
        where = f"column {column_name(names, j)} of X"
        refuse_kind(column.dtype.kind, where)
        if column.dtype.kind in "biuf":
            values[:, j] = column
            continue
        cells = column.astype(object).tolist()
        if any(isinstance(cell, str | bytes) for cell in cells):
            text.append(column_name(names, j))
        else:
            values[:, j] = [_number(cell, row, where) for row, cell in enumerate(cells)]
    if text:
        shown = ", ".join(text[:5]) + (f" and {len(text) - 5} more" if len(text) > 5 else "")
        raise ValueError(
            f"could not convert string to float: columns {shown} of X are not numbers; encode them first, e.g. with "
            "sktda.TableEncoder, in a Pipeline before (or inside) the cleaner, or, "
            "where the text is that of numbers, give X.astype(float)"
        )
    return values


def _number(cell: Any, row: int, where: str) -> float:
    if is_missing(cell):
        return np.nan
    for types, kind in ((date | np.datetime64, "M"), (timedelta | np.timedelta64, "m"), (COMPLEX, "c")):
        if isinstance(cell, types):
            refuse_kind(kind, where)
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError) as error:
        raise type(error)(
            f"{where} is no number in row {row}: {error}; turn the column into numbers, or leave it out"
        ) from error


def column_name(names: Any, column: int) -> str:
    """A column as a message shows it: its position where columns have no names."""
    return str(column) if names is None else f"'{names[column]}'"


def is_missing(cell: Any) -> bool:
    """Whether a cell is None, NaN, NaT or pandas.NA."""
    if cell is None or cell is np.ma.masked:
        return True
    try:
        return bool(cell != cell)
    except (TypeError, ValueError):  # pandas.NA refuses; an array has no truth value and is a value
        return type(cell).__name__ == "NAType"


def read_target(y: Any) -> np.ndarray:
    """y as an array (n,), or (n, k) for several columns, of numbers, booleans or text, whatever container holds them.

    What y is, its cells decide: numbers that are stored as Python objects are numbers.
    Raises ValueError naming the first row for missing labels, NaN and infinity, and for a mix of kinds, for dates, for
    complex numbers, for no rows and for cells that are no labels; TypeError for a np.matrix, as scikit-learn.
    """
    if sp.issparse(y):
        raise ValueError("y is a sparse matrix, and labels are dense; give y.toarray().ravel()")
    if isinstance(y, np.matrix):
        raise TypeError("np.matrix is not supported as y; give np.asarray(y).ravel()")
    if np.ma.is_masked(y):
        _refuse_missing(np.ma.getmaskarray(y), "a masked value")
    # a list of 1 and "1", or of "a" and nan, would silently become two texts
    y = np.asarray(y, dtype=object) if isinstance(y, list | tuple) else np.asarray(y)
    if y.ndim == 0 or y.ndim > 2:
        raise ValueError(f"y should be a 1d array, one label per row, got an array of shape {y.shape}")
    if y.size == 0:
        raise ValueError(f"y is empty (shape {y.shape}): Found array with 0 sample(s); give one label per row of X")
    if y.dtype.kind in "OT":
        y = _cells_as_labels(y.astype(object))
    if y.dtype.kind in "mM":
        raise ValueError(
            "Unknown label type: y holds dates or durations; make them text (y.astype(str)) where they are classes, "
            "or numbers, such as days, for regression"
        )
    if y.dtype.kind == "c":
        raise ValueError("Complex data not supported: y holds complex numbers; give one real number or label per row")
    if y.dtype.kind == "V":
        raise ValueError(f"Unknown label type: y is a structured array ({y.dtype}); give the column of labels")
    if y.dtype.kind == "S":
        raise ValueError("Unknown label type: the labels are bytes; make them text with y.astype(str)")
    if y.dtype.kind == "f":
        _refuse_missing(np.isnan(y), "NaN")
        if (wrong := np.isinf(y)).any():
            row = int(np.flatnonzero(wrong.reshape(len(y), -1).any(axis=1))[0])
            raise ValueError(
                f"Input y contains infinity or a value too large for {y.dtype!r}: {int(wrong.sum())} rows, the first "
                f"is row {row}; correct or drop them"
            )
    return y if y.dtype.isnative else y.astype(y.dtype.newbyteorder("="))


def _cells_as_labels(y: np.ndarray) -> np.ndarray:
    """Python objects as an array of what they are: text stays, numbers and booleans get their dtype."""
    cells = y.ravel().tolist()
    if set(map(type, cells)) == {str}:
        return y
    missing = np.array([is_missing(cell) for cell in cells]).reshape(y.shape)
    if missing.any():
        first = cells[int(np.flatnonzero(missing)[0])]
        _refuse_missing(missing, "NaN" if isinstance(first, float) else str(first))
    found = {
        "text"
        if isinstance(cell, str)
        else "booleans"
        if isinstance(cell, bool | np.bool_)
        else "numbers"
        if isinstance(cell, Number | Decimal) and not isinstance(cell, COMPLEX)
        else type(cell).__name__
        for cell in cells
    }
    if len(found) > 1:
        names = sorted({type(cell).__name__ for cell in cells})
        other = next(i for i, cell in enumerate(cells) if type(cell) is not type(cells[0]))
        raise ValueError(
            f"Unknown label type: labels are a mix of {', '.join(names)} (row 0 is {cells[0]!r} and row "
            f"{other // (y.size // len(y))} is {cells[other]!r}); make them all text, or all numbers"
        )
    (kind,) = found
    if kind == "text":
        return y
    if kind not in {"booleans", "numbers"}:
        raise ValueError(
            f"Unknown label type: labels are of type {kind}, such as {cells[0]!r} in row 0; make them text or numbers"
        )
    if any(isinstance(cell, Decimal | Fraction) for cell in cells):
        cells = [float(cell) for cell in cells]
    labels = np.array(cells)
    return (labels.astype(np.float64) if labels.dtype == object else labels).reshape(y.shape)


def _refuse_missing(missing: np.ndarray, what: str) -> None:
    """Raise ValueError naming the first of the rows of the mask (n, ...) that have no label."""
    rows = np.flatnonzero(missing.reshape(len(missing), -1).any(axis=1))
    if len(rows):
        raise ValueError(
            f"Input y contains {what}: {len(rows)} rows have no label, the first is row {rows[0]}; label or drop them"
        )
