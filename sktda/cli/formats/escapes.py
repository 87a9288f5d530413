"""Cells that programs act upon: formulas in spreadsheets, control characters in terminals."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a cell begins with that a spreadsheet reckons with
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def write_for_spreadsheet(frame: pd.DataFrame, path: Path) -> None:
    """Write a table that people open in a spreadsheet: in text formats a quote stands before what is a formula."""
    from sktda.cli.formats import format_of, write_frame

    if format_of(path).module == "text":  # in which a text cannot say that it is one
        frame = frame.apply(escaped)
        frame.columns = [_escaped(name) for name in frame.columns]
    write_frame(frame, path)


def escaped(column: pd.Series) -> pd.Series:
    """With a quote before texts that are no numbers but begin like a formula, or with such a quote."""
    if column.dtype.kind in "iufbM":
        return column
    if column.dtype == object:
        return column.map(_escaped)
    codes, different = column.factorize()  # of a million texts few are different
    texts = type(column)([*map(_escaped, different), None], dtype=object)
    return type(column)(texts.to_numpy()[codes], index=column.index, name=column.name, dtype=object)


def unescaped(frame: pd.DataFrame) -> pd.DataFrame:
    """Texts without the quotes that `write_for_spreadsheet` put before them."""
    frame = frame.apply(lambda column: column.map(_unescaped))
    return frame.rename(columns=_unescaped)


def _escaped(cell: Any) -> Any:
    if not isinstance(cell, str) or NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}" if cell.lstrip("'").startswith(FORMULA) else cell


def _unescaped(cell: Any) -> Any:
    if isinstance(cell, str) and cell.startswith("'") and cell.lstrip("'").startswith(FORMULA):
        return cell[1:]
    return cell


def visible(text: str) -> str:
    """Text whose control characters are shown as `\\x1b`, so that a terminal does not act upon them.

    Line feeds stay. Marks that change the direction of what follows are shown, too.
    """
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() or not _acts(c) else _shown(c) for c in text)


def _acts(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in "\u200c\u200d"


def _shown(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
