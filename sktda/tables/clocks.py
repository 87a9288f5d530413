"""Times of day and durations as one number: what a colon means, the whole column tells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

MOSTLY = 0.95  # of the texts decide
CLOCK = re.compile(
    r"(-?)(\d{1,4}):([0-5]\d)(?::([0-5]\d))?([.,]\d+)?(?:\s*([AaPp])\.?\s?[Mm]\.?)?"
    r"(?:\s*(?:Uhr|h))?(\s*(?:min)?\s?/\s?[\w ]{1,6})?"
)
WORDS = re.compile(
    r"-?P?T?(?:\d+(?:[.,]\d+)?\s*[A-Za-z]{1,7}\.?[\s,]*(?:and\s|T)?)+(?:[-+]?\d\d(?::\d\d){0,2}(?:\.\d+)?)?"
)
UNITS = {"std": "h", "stunde": "h", "stunden": "h", "minuten": "min", "sek": "s", "tag": "days", "tage": "days"}
UNITS |= {
    "d": "days",
    "j": "days",
    "jours": "days",
    "heures": "h",
    "horas": "h",
    "minutos": "min",
    "hrs": "h",
    "mins": "min",
    "secs": "s",
}
PARTS = re.compile(r"(\d)\s*([A-Za-z]+)\.?")


@dataclass(frozen=True)
class Clock:
    """How the cells of a column write times.

    unit: of the numbers that are read, "h" or "s", or "" where a colon is known to stand between a whole and its
    sixtieths only; minutes_first: of two parts the first is minutes, where there are three it is hours.
    """

    unit: str
    minutes_first: bool = False
    words: bool = False
    example: str = ""
    note: str = ""
    shown = ""
    doubtful = False

    def read(self, texts: Sequence[str]) -> np.ndarray:
        """Numbers (n,) float64 in the unit, NaN for what is no time."""
        if self.words:
            spans = pd.to_timedelta([_spelled(text) for text in texts], errors="coerce")
            return np.asarray(spans.total_seconds(), dtype=np.float64)
        return np.array([self._value(text) for text in texts], dtype=np.float64)

    def _value(self, text: str) -> float:
        found = CLOCK.fullmatch(text)
        if found is None:
            return np.nan
        sign, first, second, third, fraction, half, _ = found.groups()
        a, b, c = int(first), int(second), int(third or 0)
        part = float((fraction or ".0").replace(",", "."))
        if half:
            a = a % 12 + (12 if half in "Pp" else 0)
        if self.minutes_first:
            value = 60 * a + b + part if third is None else 3600 * a + 60 * b + c + part
        else:
            value = a + (b + part) / 60 if third is None else a + b / 60 + (c + part) / 3600
        return -value if sign else value

    def write(self, value: float, digits: int = 8) -> str:
        """The value as the cells are written: 1:02:33."""
        if self.words:
            return f"{value:.{digits}g} s"
        seconds = round(abs(value) * (1 if self.minutes_first else 3600))
        hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
        sign = "-" if value < 0 else ""
        three = self.example.count(":") == 2 if not self.minutes_first else hours > 0
        if three:
            return f"{sign}{hours}:{minutes:02d}:{rest:02d}"
        return f"{sign}{seconds // 60}:{rest:02d}" if self.minutes_first else f"{sign}{hours}:{minutes:02d}"


def learn_clocks(texts: Sequence[str]) -> Clock | None:
    """How the different texts of a column write times of day or durations; None where hardly any does.

    9:30 and 21:03 are hours and minutes, or minutes and seconds; as a number it is the same up to the unit, unless some
    cells have three parts and others two. Then two are minutes and seconds where programs that write times of day
    would not write so: 21:03 beside 1:02:33.
    """
    if _few(CLOCK, texts):
        return _of_words(texts)
    found = [match for text in texts if (match := CLOCK.fullmatch(text))]
    if len(found) < MOSTLY * len(texts):
        return None
    two = [match for match in found if match[4] is None]
    three = [match for match in found if match[4] is not None]
    longest = max(int(match[2]) for match in found)
    ends_in_fraction = any(match[5] for match in two)
    of_day = any(match[6] for match in found) or (longest <= 24 and all(len(match[2]) == 2 for match in found))
    if ends_in_fraction or (two and three and not of_day):
        clock = Clock("s", minutes_first=True)
        shown = [max(group, key=lambda match: int(match[2]))[0] for group in (two, three) if group]
        return _noted(clock, shown)
    example = found[0][0]
    is_pace = any(match[7] for match in found)  # 4:30 /km
    clock = Clock("h" if (longest <= 24 or three) and not is_pace else "", example=example)
    return _noted(clock, [example])


def _of_words(texts: Sequence[str]) -> Clock | None:
    """1h 30m, PT2H1M, 4 days 06:00:00: with two parts at least somewhere, else they are numbers with a unit."""
    if _few(WORDS, texts):
        return None
    clock = Clock("s", words=True)
    several = next((text for text in texts if len(PARTS.findall(_spelled(text))) > 1 or ":" in text), None)
    if several is None or np.mean(np.isnan(clock.read(texts))) > 1 - MOSTLY:
        return None
    return _noted(clock, [several])


def _noted(clock: Clock, examples: list[str]) -> Clock:
    values = clock.read(examples)
    behind = f" {clock.unit}" if clock.unit else ", behind the colon being sixtieths"
    said = ", ".join(f"{text!r} read as {value:.6g}" for text, value in zip(examples, values, strict=True))
    return Clock(clock.unit, clock.minutes_first, clock.words, examples[-1], said + behind)


def _few(pattern: re.Pattern[str], texts: Sequence[str]) -> bool:
    """Whether hardly any of the texts is of this form, by the first ones where that is clear."""
    return not texts or any(
        np.mean([pattern.fullmatch(text) is not None for text in some]) < share
        for some, share in ((texts[:100], 0.8), (texts, MOSTLY))
    )


def _spelled(text: str) -> str:
    """As pandas reads it."""
    text = re.sub(r"([hH])\s?(\d\d)$", r"\1\2m", text.strip())  # 1h30
    if text.startswith("P"):
        return text
    text = re.sub(r"(\d),(\d)", r"\1.\2", re.sub(r"[\s,]+(?:and|et|und|y)\s", " ", text))
    return PARTS.sub(lambda match: f"{match[1]} {UNITS.get(match[2].lower(), match[2].lower())} ", text)
