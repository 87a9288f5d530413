"""Dates and times of day: how the cells of a column write them, and the numbers that they become."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

ISO = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}.*)?")
DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ]\d.*)?|\d{1,2}([-/.])\d{1,2}\1(?:\d{4}|\d{2})(?:,? \d.*)?"
    r"|\d{1,2}\.?[- ][^\W\d_]{3,9}\.?[- ,]+\d{2,4}(?: \d.*)?"
    r"|(?:[^\W\d_]{3,9},? )?[^\W\d_]{3,9}\.? \d{1,2},? \d{4}(?: \d.*)?"
)
TIME = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d)(?:\.\d+)?)?(?:\s*([AaPp])\.?[Mm]\.?)?")
TWO = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2\d{2,4}.*")


@dataclass(frozen=True)
class DateFormat:
    """How the cells of a column write dates; day_first: 3/4/2020 is in April; time: cells are times of a day."""

    day_first: bool = False
    time: bool = False
    note: str = ""

    def read(self, texts: Sequence[str]) -> pd.DatetimeIndex:
        """Dates, NaT for what is none; times of day are those of 1970-01-01."""
        if self.time:
            return pd.to_datetime([_seconds(text) for text in texts], unit="s")
        column = pd.Series(list(texts), dtype=object)
        iso = column.str.fullmatch(ISO)
        read = pd.Series(pd.NaT, index=column.index, dtype="datetime64[ns]")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a format was guessed cell by cell
            for rows, options in (
                (iso, {"format": "ISO8601"}),
                (~iso, {"format": "mixed", "dayfirst": self.day_first}),
            ):
                if rows.any():
                    found = pd.to_datetime(column[rows], errors="coerce", utc=True, **options)
                    read[rows] = found.dt.tz_localize(None).astype("datetime64[ns]")
        return pd.DatetimeIndex(read)


def learn_dates(texts: Sequence[str]) -> DateFormat | None:
    """How the different texts of a column write dates, None where hardly any does."""
    if np.mean([TIME.fullmatch(text) is not None for text in texts]) >= 0.95:
        return DateFormat(time=True)
    if np.mean([DATE.fullmatch(text) is not None for text in texts]) < 0.95:
        return None
    pairs = [(int(found[1]), int(found[3]), found[2]) for text in texts if (found := TWO.fullmatch(text))]
    if not pairs:
        return DateFormat()
    day_first = any(first > 12 for first, _, _ in pairs)
    if day_first == any(second > 12 for _, second, _ in pairs):  # neither or both
        day_first = pairs[0][2] == "."
        example = next(text for text in texts if TWO.fullmatch(text))
        return DateFormat(day_first, note="" if day_first else f"{example!r} read with the month first")
    return DateFormat(day_first)


def _seconds(text: str) -> float:
    found = TIME.fullmatch(text)
    if found is None:
        return np.nan
    hour = int(found[1])
    if found[4]:
        hour = hour % 12 + (12 if found[4] in "Pp" else 0)
    return hour * 3600.0 + int(found[2]) * 60 + int(found[3] or 0)


def parts(dates: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers (n,) float64 of dates (n,) datetime64, NaN where there is none: what varies among days, year, ..."""
    index = pd.DatetimeIndex(dates)
    days = (dates.astype("datetime64[us]").astype(np.int64) / 86_400e6).astype(np.float64)
    hour = index.hour + index.minute / 60
    found = {"days": days, "year": index.year, "month": index.month, "weekday": index.day_of_week, "hour": hour}
    missing = np.isnat(dates)
    return {name: np.where(missing, np.nan, np.asarray(values, dtype=np.float64)) for name, values in found.items()}
