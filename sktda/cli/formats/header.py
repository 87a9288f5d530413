"""Whether the first row of a table holds the names of its columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

NUMBER = re.compile(r"[+-]?(\d[\d.,]*|\.\d+)([eE][+-]?\d+)?\s*%?")
DATE = re.compile(r"\d{4}[-/.]\d\d?[-/.]\d\d?([T ].*)?|\d\d?[-/.]\d\d?[-/.]\d{2,4}( .*)?")
NO_CELL = {"", "na", "n/a", "nan", "null", "none", "?", "-"}
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


def _kind(text: str) -> str:
    if NUMBER.fullmatch(text):
        return "number"
    return "date" if DATE.fullmatch(text) else "text"
