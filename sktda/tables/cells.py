"""The cells of a column whatever type they came in: numbers, dates, or texts that are stored once each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date, time
from itertools import islice
from numbers import Integral, Number
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sktda.containers import refuse_kind
from sktda.tables.numerals import PLAIN

MISSING = {"", "na", "n/a", "nan", "<na>", "null", "none", "?", "-"}  # after stripping, in lower case
MISSING |= {
    "–",
    "—",
    "--",
    ".",
    "..",
    "...",
    "\\n",
    "n.a.",
    "n. a.",
    "k.a.",
    "k. a.",
    "n.d.",
    "s/d",
    "(null)",
    "(blank)",
}
MISSING |= {"0000-00-00", "0000-00-00 00:00:00", "00/00/0000", "00.00.0000"}
MISSING |= {"#n/a", "#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!", "#wert!", "#bezug!", "#nv"}
EXACT = 2**53  # from here on floats lose integers
HEAD = 10_000  # cells with something in them, of which one with zeros in front is looked for
IN_DOUBT = re.compile(r"[-+]?[1-9]\d{0,2}\.\d{3}")  # one and a bit, or more than a thousand?


class Texts(NamedTuple):
    """Cells of text: codes (n,) into `different`, -1 where a cell is missing."""

    codes: np.ndarray
    different: list[str]

    @property
    def counts(self) -> np.ndarray:
        """How often each of the different texts occurs."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.different))

    def take(self, values: Any) -> np.ndarray:
        """(n,) from one value for each of the different texts; NaN or NaT where a cell is missing."""
        values = np.asarray(values)
        missing = np.array([np.nan if values.dtype.kind == "f" else "NaT"]).astype(values.dtype)
        return np.concatenate([values, missing])[self.codes]

    @classmethod
    def of(cls, cells: np.ndarray) -> Texts:
        """From cells (n,) of any kind."""
        codes, different = pd.factorize(np.asarray(cells, dtype=object))
        table: dict[str, int] = {}
        new = np.full(len(different) + 1, -1)
        for code, cell in enumerate(different):
            text = _text(cell)
            if text.lower() not in MISSING:
                new[code] = table.setdefault(text, len(table))
        return cls(new[codes], list(table))


class Values(NamedTuple):
    """Cells that are no text: array (n,) float64 or datetime64[us], NaN or NaT where a cell is missing.

    shows_point: they were text, and showed a decimal point beyond doubt.
    """

    array: np.ndarray
    shows_point: bool = False


def as_texts(cells: Values | Texts) -> Texts:
    """The cells as text, numbers and dates as they are shown."""
    return cells if isinstance(cells, Texts) else Texts.of(pd.Series(cells.array).astype(object).to_numpy())


def cells_of(column: pd.Series) -> Values | Texts | None:
    """The cells of a column; None for anything but numbers, dates, booleans and text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        kept = column.cat.categories.dtype
        column = column.astype(object if kept.kind in "iu" and column.hasnans else kept)
    if isinstance(column.dtype, pd.IntervalDtype):
        return Texts.of(column.astype(object).map(str, na_action="ignore").to_numpy())
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    kind = getattr(column.dtype, "kind", "O")
    refuse_kind(kind if kind == "c" else "O", f"column {column.name!r}")
    if kind in "iu" and len(known := column.dropna()) and (int(known.max()) >= EXACT or int(known.min()) <= -EXACT):
        return Texts.of(column.to_numpy(dtype=object, na_value=np.nan))  # as floats several would be one
    if kind in "iuf":
        return Values(np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan)))
    if kind == "M":
        return _dates(column)
    if kind == "m":
        return Values(np.asarray(column.dt.total_seconds(), dtype=np.float64))
    if kind == "b":
        return Texts.of(column.to_numpy(dtype=object, na_value=np.nan))
    cells = column.to_numpy(dtype=object, na_value=np.nan)
    if (plain := _plain(cells)) is not None:
        return plain
    found = pd.api.types.infer_dtype(cells, skipna=True)
    if found in {"integer", "mixed-integer-float"} and any(map(_is_inexact, cells)):
        return Texts.of(cells)
    if found in {"integer", "floating", "mixed-integer-float", "decimal", "empty"}:
        return Values(cells.astype(np.float64))
    if found in {"date", "datetime", "datetime64"}:
        return _dates(pd.Series(pd.to_datetime(cells, utc=True, errors="coerce")))
    if found == "time":
        return Values(np.array([np.nan if pd.isna(cell) else _hours(cell) for cell in cells]))
    if found in {"timedelta", "timedelta64"}:
        return Values(np.asarray(pd.to_timedelta(cells).total_seconds(), dtype=np.float64))
    if found == "mixed" and all(map(_is_list_or_missing, cells)):
        joined = ["; ".join(cell) if isinstance(cell, Iterable) else None for cell in cells]
        return Texts.of(np.array(joined, dtype=object))
    if found in {"string", "boolean"} or all(isinstance(cell, str | Number) for cell in cells):
        return Texts.of(cells)
    if all(isinstance(cell, str | Number | date | time | None) or cell is pd.NaT or cell is pd.NA for cell in cells):
        shown = [cell.isoformat() if isinstance(cell, date | time) else cell for cell in cells]
        return Texts.of(np.array(shown, dtype=object))
    return None


def _is_inexact(cell: Any) -> bool:
    """Whether it is an integer that as a float might be another one."""
    return isinstance(cell, Integral) and not -EXACT < int(cell) < EXACT


def _hours(cell: time) -> float:
    return cell.hour + cell.minute / 60 + (cell.second + cell.microsecond / 1e6) / 3600


def _is_list_or_missing(cell: Any) -> bool:
    """Whether a cell is a list of texts, such as tags, or nothing."""
    if isinstance(cell, list | tuple | np.ndarray):
        return all(isinstance(each, str) for each in cell)
    return cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell))


def _plain(cells: np.ndarray) -> Values | None:
    """Texts that are all numbers as programs write them, or missing; None if any is another, or 1.234 is in doubt."""
    first = next((cell for cell in cells if isinstance(cell, str) and cell), None)
    if first is None or PLAIN.fullmatch(first) is None:
        return None
    try:
        values = _floats(cells)
    except (ValueError, TypeError):  # such as of a date among them
        empty = cells == ""
        if not empty.any():
            return None
        try:
            values = _floats(np.where(empty, np.nan, cells))
        except (ValueError, TypeError):
            return None
    if first.startswith("+") or (len(first) > 2 and first.isdecimal() and _may_be_padded(cells, values)):
        return None
    in_doubt = False
    for cell in cells:  # the first ones of a sorted column may all be below 1.000
        if isinstance(cell, str) and "." in cell:
            if IN_DOUBT.fullmatch(cell) is None:
                return Values(values, True)
            in_doubt = True
    return None if in_doubt else Values(values)


def _may_be_padded(cells: np.ndarray, values: np.ndarray) -> bool:
    """Whether `zeros_in_front` should look at all cells: some of the first have, or are longer than their numbers."""
    head = list(islice((text for cell in cells if isinstance(cell, str) and (text := cell.strip())), HEAD))
    if zeros_in_front(head):
        return True
    length = len(head[0])
    return all(len(text) == length for text in head) and bool(np.nanmin(values) < 10 ** (length - 1))


def _floats(cells: np.ndarray) -> np.ndarray:
    """As cells.astype(float), which raises ValueError, but several times faster where pyarrow is installed."""
    try:
        import pyarrow as pa

        return np.asarray(pa.array(cells, pa.large_string(), from_pandas=True).cast(pa.float64()).to_numpy(False))
    except (ImportError, ValueError, TypeError):  # what it does not read so may still be a number
        return cells.astype(np.float64)


def _dates(column: pd.Series) -> Values:
    """Of any unit and time zone, as those of UTC."""
    if isinstance(column.dtype, pd.DatetimeTZDtype) or getattr(column.dtype, "pyarrow_dtype", None) is not None:
        column = pd.to_datetime(column, utc=True).dt.tz_convert(None)
    return Values(column.to_numpy().astype("datetime64[us]"))


def zeros_in_front(texts: Sequence[str]) -> str | None:
    """One of the texts, where they are digits that are not written so as numbers: 01067 among others of its length.

    None where they are numbers: none has zeros in front, or they are short, such as months.
    """
    first = texts[0]
    if len(first) < 3 or not first.isdecimal():
        return None
    padded = [text for text in texts if text[0] == "0" and len(text) > 2]
    if not padded or not all(text.isdecimal() for text in texts):
        return None
    if len(padded) > len(texts) / 2 or all(len(text) == len(first) for text in texts):
        return padded[0]
    return None


def _text(cell: Any) -> str:
    if isinstance(cell, str):
        text = cell.strip()
        return text[2:-1] if text.startswith('="') and text.endswith('"') else text  # as Excel is told what is a text
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    return f"{cell:.15g}" if isinstance(cell, float) else str(cell)
