"""Dates: how the cells of a column write them, and the numbers that they become."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sktda.tables.months import in_full, iso

MOSTLY = 0.95  # of the texts decide
ISO = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}.*)?")
DIGITS = re.compile(r"\d{4}([-/.])\d{1,2}\1\d{1,2}\.?(?:[T ]\d.*)?|\d{1,2}([-/.])\d{1,2}\2(?:\d{4}|\d{2})(?:,? \d.*)?")
SHORT = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d\d)(?!\d)")
TWO = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2\d{2,4}.*")


@dataclass(frozen=True)
class DateFormat:
    """How the cells of a column write dates; day_first: 3/4/2020 is in April."""

    day_first: bool = False
    note: str = ""

    def read(self, texts: Sequence[str]) -> pd.DatetimeIndex:
        """Dates, NaT for what is none."""
        column = pd.Series(
            [_with_century(text) if DIGITS.fullmatch(text) else iso(text) or text for text in texts], dtype=object
        )
        is_iso, is_digits = column.str.fullmatch(ISO), column.str.fullmatch(DIGITS)
        year_first = column.str.match(r"\d{4}")
        read = pd.Series(pd.NaT, index=column.index, dtype="datetime64[us]")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a format was guessed cell by cell
            for rows, options in (
                (is_iso, {"format": "ISO8601"}),
                (is_iso, {"format": "mixed"}),  # such as with a zone behind a space
                (is_digits & year_first, {"format": "mixed"}),
                (is_digits & ~year_first, {"format": "mixed", "dayfirst": self.day_first}),
            ):
                left = rows & read.isna()
                if left.any():
                    found = pd.to_datetime(column[left], errors="coerce", utc=True, **options)
                    read[left] = found.dt.tz_localize(None).astype("datetime64[us]")
        return pd.DatetimeIndex(read)


def _with_century(text: str) -> str:
    """3/4/1970 for 3/4/70, for which pandas would take a century by the year of today."""
    found = SHORT.match(text)
    if found is None:
        return text
    first, mark, second, last = found.groups()
    if int(first) > 31:
        return f"{in_full(first)}{mark}{second}{mark}{last}{text[found.end() :]}"
    return f"{first}{mark}{second}{mark}{in_full(last)}{text[found.end() :]}"


def without_end(dates: np.ndarray) -> tuple[np.ndarray, str]:
    """(dates (n,), NaT for those of the year 9999, which stand for no end; what is said of them, or "")."""
    never = dates >= np.datetime64("9999-01-01")
    if not never.any():
        return dates, ""
    example = str(dates[never][0].astype("datetime64[D]"))
    return np.where(never, np.datetime64("NaT"), dates), f"{never.sum()} cells are {example}, taken as missing"


def learn_dates(texts: Sequence[str]) -> DateFormat | None:
    """How the different texts of a column write dates, None where hardly any does."""
    looks_so = [DIGITS.fullmatch(text) is not None or iso(text) is not None for text in texts[:100]]
    if np.mean(looks_so) < 0.8:
        return None
    found = _with_order(texts)
    return found if np.mean(found.read(texts).isna()) <= 1 - MOSTLY else None


def _with_order(texts: Sequence[str]) -> DateFormat:
    """Whether 3/4/2020 is in April: where the first number is beyond 12 somewhere, or a point stands between."""
    pairs = [found for text in texts if (found := TWO.fullmatch(text))]
    if not pairs:
        return DateFormat()
    day, month = ([found for found in pairs if int(found[which]) > 12] for which in (1, 3))
    if bool(day) != bool(month):
        return DateFormat(bool(day))
    if pairs[0][2] == ".":
        return DateFormat(True)
    if not day:
        return DateFormat(note=f"{pairs[0][0]!r} read with the month first")
    day_first = len(day) > len(month)
    example, other = (day, month) if day_first else (month, day)
    order = "day" if day_first else "month"
    return DateFormat(
        day_first,
        f"both orders of day and month occur ({example[0][0]!r}, {other[0][0]!r}); read with the {order} first where "
        "either could be",
    )


def parts(dates: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers (n,) float64 of dates (n,) datetime64, NaN where there is none: what varies among days, year, ..."""
    index = pd.DatetimeIndex(dates)
    days = (dates.astype("datetime64[us]").astype(np.int64) / 86_400e6).astype(np.float64)
    hour = index.hour + index.minute / 60 + index.second / 3600
    found = {"days": days, "year": index.year, "month": index.month, "weekday": index.day_of_week, "hour": hour}
    missing = np.isnat(dates)
    return {name: np.where(missing, np.nan, np.asarray(values, dtype=np.float64)) for name, values in found.items()}
