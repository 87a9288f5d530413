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
POWER = re.compile(r"\s*[×x*·]\s*10\s*\^?\s*([-+−]?\d+)$")  # 1.5 × 10^-3
FOOTNOTES = "]*†‡§"
FOOTNOTE = re.compile(r"(?<=\d)\s*(?:\[[^\]\s]{1,6}\]|[*†‡§]{1,3})$")
DEGREES = re.compile(
    r"(?P<sign>[-−]?)(?P<whole>\d{1,3}(?:[.,]\d+)?)\s*°\s*(?:(?P<minutes>\d{1,2}(?:[.,]\d+)?)\s*['′’]\s*)?"
    r"(?:(?P<seconds>\d{1,2}(?:[.,]\d+)?)\s*(?:[\"″”]|''|′′)\s*)?(?P<side>[NSEW])?"
)
FEET_SIGNS = " '′’f"  # behind one or two digits
FEET = re.compile(
    r"(?P<feet>\d{1,2})\s*(?:['′’]|ft\.?|feet)\s*(?P<inches>\d{1,2}(?:\.\d+)?)\s*(?:[\"″”]|''|′′|in\.?|inch(?:es)?)?"
)


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
    text = plain(text)
    if (several := of_parts(text)) is not None:
        return several
    found = NUMBER.fullmatch(text)
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


def plain(text: str) -> str:
    """The text of a cell in digits, spaces and marks of ASCII, without a mark of a footnote."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        if not text.isascii():
            text = "".join(str(unicodedata.decimal(c, c)) for c in text).replace("٫", ".").replace("٬", "'")
    text = text.strip()
    if text[-1:] in FOOTNOTES:
        text = FOOTNOTE.sub("", text)
    return POWER.sub(r"e\1", text) if "10" in text else text


def of_parts(text: str) -> Cell | None:
    """What a cell of several parts says, such as 5'11" in feet or 48° 8' N in degrees; None for all others."""
    if "°" in text:
        return _degrees(text)
    return _feet(text) if text[1:2] in FEET_SIGNS or text[2:3] in FEET_SIGNS else None


def _degrees(text: str) -> Cell | None:
    """Degrees with minutes or the side of the earth, south and west being negative."""
    found = DEGREES.fullmatch(text)
    if found is None or not (found["minutes"] or found["side"]):
        return None
    parts = [float((found[name] or "0").replace(",", ".")) for name in ("whole", "minutes", "seconds")]
    value = parts[0] + parts[1] / 60 + parts[2] / 3600
    value = -value if found["sign"] or found["side"] in ("S", "W") else value
    return Cell(value, value, Unit("°"))


def _feet(text: str) -> Cell | None:
    """Feet and inches, in feet."""
    found = FEET.fullmatch(text)
    if found is None or float(found["inches"]) >= 12:
        return None
    value = int(found["feet"]) + float(found["inches"]) / 12
    return Cell(value, value, unit_of("", "ft") or Unit("m"))


def _value(body: str, mark: str, power: str) -> float | None:
    if GROUPED[mark].fullmatch(body) is None:
        return None
    for other in OTHER[mark] + SPACES:
        body = body.replace(other, "")
    return float(body.replace(mark, ".") + power)
