"""One cell as a number, as people write them: per cent, money, thousands, either decimal mark, units, (negatives)."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

import numpy as np

from sktda.tables.units import CURRENCY, SYMBOLS, Unit, unit_of

MAX_UNIT = 20  # characters; what is longer is text with a number in front
SPACES = " '’"  # also between thousands
NUMBER = re.compile(
    rf"""(?P<open>\()?\s*(?P<sign>[-+−–]?)\s*(?P<before>{CURRENCY})?\s*(?P<inner>[-+−–]?)\s*
    (?P<body>\d(?:[\d.,{SPACES}]*\d)?|[.,]\d+)(?P<power>[eE][-+−]?\d+)?
    (?:[.,][-–—])?\.?\s*(?P<after>[^\W\d_][^\d()<>=:;_-]*[23]?|[%‰°"'+?{SYMBOLS}][^\d()<>=:;_-]*)?
    \s*(?P<minus>[-−])?\s*(?P<close>\))?""",
    re.VERBOSE,
)
GROUPED = {  # what a body may be, by its decimal mark
    ".": re.compile(
        rf"\d*(?:\.\d+)?|[1-9]\d{{0,2}}(?P<mark>[,{SPACES}])\d{{3}}(?:(?P=mark)\d{{3}})*(?:\.\d+)?"
        r"|[1-9]\d?(?:,\d\d)+,\d{3}(?:\.\d+)?"  # as in India
    ),
    ",": re.compile(rf"\d*(?:,\d+)?|[1-9]\d{{0,2}}(?P<mark>[.{SPACES}])\d{{3}}(?:(?P=mark)\d{{3}})*(?:,\d+)?"),
}
OTHER = {".": ",", ",": "."}


class Cell(NamedTuple):
    """One cell: its value with a decimal point and with a decimal comma, None where it cannot be read so."""

    dot: float | None
    comma: float | None
    unit: Unit

    @property
    def mark(self) -> str:
        """The decimal mark that it shows, "" where it shows none, "?" where either could be."""
        if self.dot is None or self.comma is None:
            return "," if self.dot is None else "."
        return "" if self.dot == self.comma else "?"

    def value(self, mark: str) -> float:
        """Its value, by the decimal mark of the column where it shows none of its own; NaN where that is not known."""
        if self.mark == "?" and not mark:
            return np.nan
        value = self.comma if self.dot is None or (self.comma is not None and mark == ",") else self.dot
        return np.nan if value is None else value


def parse(text: str) -> Cell | None:
    """What the text of a cell says as a number, None if nothing."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        if not text.isascii():
            text = "".join(str(unicodedata.decimal(c, c)) for c in text).replace("٫", ".").replace("٬", "'")
    found = NUMBER.fullmatch(text.strip())
    if found is None or bool(found["open"]) != bool(found["close"]):
        return None
    after = (found["after"] or "").strip()
    signs = found["sign"] + found["inner"] + (found["minus"] or "")
    if len(after) > MAX_UNIT or len(signs) + bool(found["open"]) > 1:
        return None
    unit = unit_of(found["before"] or "", after)
    if unit is None:
        return None
    sign = -1.0 if found["open"] or signs not in ("", "+") else 1.0
    power = (found["power"] or "").replace("−", "-")
    dot, comma = (_value(found["body"], mark, power) for mark in ".,")
    if dot is None and comma is None:
        return None
    return Cell(dot if dot is None else sign * dot, comma if comma is None else sign * comma, unit)


def _value(body: str, mark: str, power: str) -> float | None:
    if GROUPED[mark].fullmatch(body) is None:
        return None
    for other in OTHER[mark] + SPACES:
        body = body.replace(other, "")
    return float(body.replace(mark, ".") + power)
