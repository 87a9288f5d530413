"""Whether the first rows of a table hold the names of its columns, and what else stands there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sktda.tables.units import is_known, unit_of

NUMBER = re.compile(r"[+-]?(\d[\d.,]*|\.\d+)([eE][+-]?\d+)?\s*%?")
DATE = re.compile(r"\d{4}[-/.]\d\d?[-/.]\d\d?([T ].*)?|\d\d?[-/.]\d\d?[-/.]\d{2,4}( .*)?|\d\d?:\d\d(:\d\d)?")
NO_CELL = {"", "na", "n/a", "nan", "null", "none", "?", "-", "–", ".", "n.d.", "k.a.", "#n/a", "\\n"}
LINE = re.compile(r"[\s|+:=-]*--[\s|+:=-]*")
IN_BRACKETS = re.compile(r"[\[(].*[\])]")
RATIO = re.compile(r"[^\s/]{1,6}(?:/[^\s/]{1,6}){1,2}")  # mg/dl
TYPES = {"float", "double", "int", "integer", "numeric", "number", "string", "str", "text", "char", "object", "bool"}
SAMPLE = 300
MOSTLY = 0.9


def is_number(cell: Any) -> bool:
    """Whether a cell is a number, with either decimal mark."""
    return NUMBER.fullmatch(str(cell).strip()) is not None


def has_header(first: Sequence[Any], rows: Sequence[Sequence[Any]]) -> bool | None:
    """Whether a first row holds names, judged by what stands below it; None where nothing tells.

    It is a row like the others if it has numbers where these have numbers and text nowhere else, or texts that occur
    again below. Numbers that count up, or years beside a name, are names.
    """
    numbers: list[str] = []
    n_texts = n_again = 0
    for position, cell in enumerate(first):
        below = [str(row[position]).strip() for row in rows[:SAMPLE] if position < len(row)]
        below = [other for other in below if other.lower() not in NO_CELL]
        text = str(cell).strip()
        if not below or text.lower() in NO_CELL:
            continue
        kind, kinds = _kind(text), [_kind(other) for other in below]
        if kinds.count("text") <= (1 - MOSTLY) * len(kinds):
            if kind == "text":
                return True
            numbers.append(text)
        else:
            n_texts += 1
            n_again += text in below
    if numbers:
        whole = [int(text) for text in numbers if re.fullmatch(r"\d{1,9}", text)]
        if len(whole) == len(numbers) == len(set(whole)) and not n_again:
            return not (n_texts == 0 and whole != list(range(whole[0], whole[0] + len(whole))))
        return False
    sentence = any(str(cell).count(" ") >= 4 for cell in first)
    again = (n_again >= 2 and n_again >= n_texts / 2) or (n_again == 1 and n_texts <= 2 and sentence)
    return False if again else None


def is_no_row(first: Sequence[Any], rows: Sequence[Sequence[Any]]) -> bool:
    """Whether the row below the names holds units, types, a line, or further names: words where numbers stand below."""
    if all(LINE.fullmatch(f"-{str(cell).strip()}") for cell in first if str(cell).strip()):
        return any(str(cell).strip() for cell in first)
    words, n_numeric = [], 0
    for position, cell in enumerate(first):
        text = str(cell).strip()
        below = [str(row[position]).strip() for row in rows[:SAMPLE] if position < len(row)]
        known = [other for other in below if other.lower() not in NO_CELL]
        if len(known) > 1 and [_kind(other) for other in known].count("number") > len(known) / 2 and text not in below:
            n_numeric += 1
            if is_number(text):
                return False
            words += [text] if text.lower() not in NO_CELL else []
        elif text and text in below:
            return False
    further_names = 2 <= n_numeric == len(words) == len(set(words))
    return bool(words) and (further_names or all(map(_says_what, words)))


def _says_what(text: str) -> bool:
    """Whether a text is a unit or a type."""
    unit = unit_of("", text) if text else None
    return (
        IN_BRACKETS.fullmatch(text) is not None
        or RATIO.fullmatch(text) is not None
        or text.lower() in TYPES
        or (unit is not None and bool(unit.base) and is_known(unit.base))
    )


def _kind(text: str) -> str:
    if NUMBER.fullmatch(text):
        return "number"
    return "date" if DATE.fullmatch(text) else "text"
