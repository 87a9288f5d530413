"""A suspect's values beside those of its nearest agreeing rows: which columns to show, which of them differ."""

from __future__ import annotations

from typing import Any

import numpy as np

MAX_COLUMNS = 12
MAX_TEXT = 60  # characters of a cell, where a page wants no more
SAMPLE = 1_000  # rows that the spread of a column is taken from, beside those shown;
SAMPLE_CELLS = 1_000_000  # fewer in very wide tables
DIFFERENT = 2.0  # gap of a text that no neighbour shares; numbers differ beyond 1


class Cells:
    """The data file's cells of the rows that are shown, and the spread of each column of numbers.

    rows: DataFrame of n rows; shown: positions of the rows that will be compared; max_text: characters of a cell.
    """

    def __init__(self, rows: Any, shown: np.ndarray, max_text: int = MAX_TEXT) -> None:
        self.max_text = max_text
        shown = np.unique(shown)
        size = min(len(rows), SAMPLE, max(50, SAMPLE_CELLS // max(1, rows.shape[1])))
        sample = np.linspace(0, len(rows) - 1, size).astype(int)
        block = rows.iloc[np.concatenate([shown, sample])]
        columns = [_numbers(block.iloc[:, j]) for j in range(block.shape[1])]
        self.names = [_short(str(name)) for name in rows.columns]
        self.spread = np.array([spread for _, spread in columns])
        self.numbers = np.array([numbers[: len(shown)] for numbers, _ in columns]).T
        self.values = block.iloc[: len(shown)].astype(object).to_numpy()
        self.place = {row: i for i, row in enumerate(shown.tolist())}

    def compare(self, suspect: int, neighbours: np.ndarray) -> tuple[list[dict], int]:
        """Up to MAX_COLUMNS columns, those that differ most, in file order; and how many were left out.

        A column of numbers is marked as different when the suspect is more than one standard deviation of the column
        away from the mean of its neighbours, any other column when its text equals none of theirs.
        """
        at = [self.place[int(row)] for row in (suspect, *neighbours)]
        gaps = self._gaps(at) if len(at) > 1 else np.zeros(len(self.names))
        shown = np.sort(np.argsort(-gaps, kind="stable")[:MAX_COLUMNS])
        columns = [
            {
                "name": self.names[j],
                "values": [self._text(value) for value in self.values[at, j]],
                "differs": bool(gaps[j] > 1),
            }
            for j in shown
        ]
        return columns, len(self.names) - len(shown)

    def _gaps(self, at: list[int]) -> np.ndarray:
        """How much the first row differs from the others, per column: standard deviations, or 0 or DIFFERENT."""
        own, others = self.numbers[at[0]], self.numbers[at[1:]]
        filled = np.isfinite(others).sum(axis=0)
        mean = np.nansum(others, axis=0) / np.maximum(filled, 1)
        gaps = np.abs(own - mean) / np.where(self.spread > 0, self.spread, 1)
        for j in np.flatnonzero(~np.isfinite(gaps) | np.isnan(self.spread) | (filled == 0)):
            first, *rest = (self._text(value) for value in self.values[at, j])
            gaps[j] = 0.0 if first in rest else DIFFERENT
        return gaps

    def _text(self, value: Any) -> str:
        import pandas as pd

        if pd.api.types.is_scalar(value) and pd.isna(value):
            return "–"
        return _short(number_text(value) if isinstance(value, float | np.floating) else str(value), self.max_text)


def _numbers(column: Any) -> tuple[np.ndarray, float]:
    """Cells as floats (NaN where there is none) and their standard deviation, NaN for text, dates and mixed columns."""
    import pandas as pd

    if column.dtype.kind in "mM":
        return np.full(len(column), np.nan), np.nan
    numbers = pd.to_numeric(column.astype(object), errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    numbers = np.where(np.isinf(numbers), np.nan, numbers)
    filled = column.notna().to_numpy() & (column.astype(str).str.strip() != "").to_numpy()
    if not filled.any() or np.isnan(numbers[filled]).any():
        return numbers, np.nan
    return numbers, float(numbers[filled].std())


def number_text(value: Any, digits: int | None = None) -> str:
    """A number as people write it, 74500 and not 7.45e+04; digits: rounded to as many, but never before the unit.

    An exponent only where there would be more than 15 digits or zeros.
    """
    value = float(value)
    if not np.isfinite(value) or (value and not 1e-15 < abs(value) < 1e15):
        return f"{value:g}"
    if digits is None:
        return np.format_float_positional(value, trim="-")
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return np.format_float_positional(value, max(digits, whole), unique=False, fractional=False, trim="-")


def _short(text: str, length: int = MAX_TEXT) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
