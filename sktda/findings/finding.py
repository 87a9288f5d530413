"""One thing that was found, and X as the columns that it is looked for in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse

EXACT = 2**53  # integers beyond are not told apart as float64


@dataclass(frozen=True, eq=False)
class Finding:
    """One thing about labels or rows that a reader should know before any statistics.

    Parameters
    ----------
    kind : {"contradiction", "leak", "spelling", "sentinel", "unreadable", "duplicate", "near_duplicate", "outlier"}
    message : str
        One sentence.
    rows : ndarray of shape (k,)
        Positions of the rows concerned, ascending; all rows of a leak are meant, so it names none.
    column : str, default=None
        Name of the column concerned, or several, with commas; None for the labels and for whole rows.
    positions : tuple of int, default=()
        Where these columns stand in X.
    detail : dict, default={}
        What belongs to the kind: "groups" of equal rows, the "value" of a sentinel, "spellings" with their counts, what
        duplicates are a copy "of", the "isolation" of outliers.

    Examples
    --------
    >>> import numpy as np
    >>> Finding("sentinel", "column 'b' holds -999 in 2 rows", np.array([3, 5]), "b", (1,)).to_dict()["rows"]
    [3, 5]
    """

    kind: str
    message: str
    rows: np.ndarray
    column: str | None = None
    positions: tuple[int, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)

    def to_dict(self, max_rows: int = 100) -> dict[str, Any]:
        """JSON-able: kind, message, column, n_rows, and the first `max_rows` of the rows."""
        return {
            "kind": self.kind,
            "message": self.message,
            "column": self.column,
            "n_rows": len(self.rows),
            "rows": self.rows[:max_rows].tolist(),
        }


@dataclass(frozen=True, eq=False)
class Columns:
    """X as numbers: values (n, p) dense or CSR, where rows of more dimensions are flat; text cells as codes.

    names: as shown in a message; ordered (p,): False where the numbers are only codes of texts.
    """

    values: Any
    names: list[str]
    ordered: np.ndarray
    is_table: bool

    @classmethod
    def read(cls, X: Any, names: Any = None) -> Columns | None:
        """None where X has no rows of real cells: a dictionary, lists of different lengths, complex numbers."""
        if isinstance(X, Mapping) and not sparse.issparse(X):
            return None
        if hasattr(X, "columns") and hasattr(X, "dtypes"):
            names = list(X.columns) if names is None else names
            if getattr(X, "sparse", None) is not None and all(getattr(kind, "fill_value", 1) == 0 for kind in X.dtypes):
                X = X.sparse.to_coo()
            else:
                read = [_numbers(X.iloc[:, j] if hasattr(X, "iloc") else X[:, j]) for j in range(X.shape[1])]
                values = np.column_stack([column for column, _ in read]) if read else np.empty((len(X), 0))
                return cls._named(values, names, np.array([is_number for _, is_number in read], dtype=bool), True)
        if sparse.issparse(X):
            if X.dtype.kind == "c":
                return None
            X = X.tocsr()
            return cls._named(X, names, np.ones(X.shape[1], dtype=bool), True)
        try:
            X = np.asarray(X)
        except ValueError:
            return None
        if X.dtype.kind in "biuf":
            flat = X.reshape(len(X), -1)
            return cls._named(flat, names, np.ones(flat.shape[1], dtype=bool), X.ndim == 2)
        flat = X.reshape(len(X), -1)
        read = [_numbers(flat[:, j]) for j in range(flat.shape[1])]
        values = np.column_stack([column for column, _ in read])
        return cls._named(values, names, np.array([is_number for _, is_number in read], dtype=bool), X.ndim == 2)

    @classmethod
    def _named(cls, values: Any, names: Any, ordered: np.ndarray, is_table: bool) -> Columns:
        if names is None:
            shown = [f"column {j} (counted from 0)" for j in range(values.shape[1])]
        else:
            shown = [f"column {str(name)!r}" for name in names]
        return cls(values, shown, ordered, is_table)

    @property
    def is_sparse(self) -> bool:
        return sparse.issparse(self.values)

    def column(self, j: int) -> np.ndarray:
        """(n,) float64."""
        column = self.values[:, [j]].toarray() if self.is_sparse else self.values[:, j]
        return np.asarray(column, dtype=np.float64).ravel()


def codes_of(values: Any) -> tuple[list[Any], np.ndarray]:
    """(different values in order of appearance, codes (n,)) of values of any kind; missing ones are one value."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iub":  # as objects many rows would fill the memory
        different, first, codes = np.unique(values.ravel(), return_index=True, return_inverse=True)
        order = np.argsort(first)
        return different[order].tolist(), np.argsort(order)[codes]
    cells = np.asarray(values, dtype=object).ravel().tolist()
    try:
        code: dict[Any, int] = dict.fromkeys(cells, 0)
    except TypeError:  # a cell that cannot be hashed, such as a list
        return codes_of([repr(None if cell is not None and _is_nan(cell) else cell) for cell in cells])
    table: dict[Any, int] = {}
    for cell in code:  # the different ones, of which a million rows have few
        code[cell] = table.setdefault(None if cell is not None and _is_nan(cell) else cell, len(table))
    return list(table), np.fromiter(map(code.__getitem__, cells), dtype=np.int64, count=len(cells))


def _is_nan(cell: Any) -> bool:
    try:
        return bool(cell != cell)
    except TypeError:  # pandas.NA refuses
        return True


def _numbers(column: Any) -> tuple[np.ndarray, bool]:
    """(cells as float64, whether they are numbers); other cells become codes, missing ones NaN."""
    kind = getattr(column.dtype, "kind", "O")
    if kind == "M" and hasattr(column, "isna"):
        days = column.to_numpy(dtype="datetime64[us]")
        return np.where(np.isnat(days), np.nan, days.astype(np.int64)), False
    if (
        hasattr(column, "iloc")
        and hasattr(column, "cat")
        and all(isinstance(each, str) for each in column.cat.categories)
    ):
        codes = np.asarray(column.cat.codes)
        return np.where(codes < 0, np.nan, codes), False
    if kind in "biuf":
        try:
            values = np.asarray(column, dtype=np.float64)
        except (TypeError, ValueError):  # nullable columns with missing cells
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if kind not in "iu" or not len(values) or np.nanmax(np.abs(values)) < EXACT:
            return values, True
    different, codes = codes_of(column)
    if kind == "O" and all(
        cell is None or (isinstance(cell, Real) and not isinstance(cell, bool)) for cell in different
    ):
        return np.array([np.nan if cell is None else float(cell) for cell in different], dtype=np.float64)[codes], True
    numbers = codes.astype(np.float64)
    if None in different:
        numbers[codes == different.index(None)] = np.nan
    return numbers, False
