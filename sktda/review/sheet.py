"""Rows to review as a table with their own cells, and that table as a spreadsheet with lists to choose from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sktda.containers import is_missing
from sktda.review.decisions import DECISIONS, columns_of, index_column
from sktda.review.page import Review, rows_shown

if TYPE_CHECKING:
    import pandas as pd

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # what no spreadsheet can hold
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what Excel would compute once somebody edits the cell
MAX_ROWS, MAX_COLUMNS, MAX_CELL = 1_048_576, 16_384, 32_767  # of a sheet; characters of a cell
WIDTHS = {"given_label": 20, "suggested_label": 20, "decision": 14, "new_label": 20}


def with_cells(
    frame: pd.DataFrame,
    rows: np.ndarray,
    cells: pd.DataFrame | None = None,
    lines: np.ndarray | None = None,
    decided: dict[int, list[str]] | None = None,
) -> pd.DataFrame:
    """The rows at these positions as in a scores file, with their line and their own cells behind it.

    frame: verdicts (file order); cells: the user's columns beside the labels; lines (n,): where rows begin in the file;
    decided: decision and new label of rows that have one. Columns of the user whose names are taken get an underscore.
    """
    decided = decided or {}
    made = [decided.get(i, ["", ""]) for i in range(len(frame))]
    table = frame.assign(row=range(len(frame)), decision=[d for d, _ in made], new_label=[label for _, label in made])
    names = columns_of(frame)
    if index := index_column(frame.index):
        table[index] = frame.index
        names.insert(1, index)
    table = table[names].iloc[rows].reset_index(drop=True)
    if lines is not None:
        table.insert(1, _free("line", table), np.asarray(lines)[rows])
    if cells is not None:
        own = cells.iloc[rows].reset_index(drop=True).astype(object)
        for position, called in enumerate(own.columns):
            table[_free(str(called), table)] = own.iloc[:, position].map(_flat)
    return table


def _free(name: str, table: pd.DataFrame) -> str:
    while name in table:
        name += "_"
    return name


def review_table(review: Review, lines: np.ndarray | None = None) -> pd.DataFrame:
    """The rows of a review page, worst first, as `with_cells` has them."""
    rows, decided = rows_shown(review)
    return with_cells(review.frame, rows, review.rows, lines, decided)


def write_sheet(path: str | os.PathLike, table: pd.DataFrame, labels: Sequence[str] = ()) -> None:
    """An XLSX file that `sktda clean --decisions` takes: a table of `with_cells`, with lists of what may be chosen.

    labels: what new_label may be; anything if there are none. Cells that look like formulas are text.
    Raises ModuleNotFoundError if openpyxl is not installed, and ValueError for what no sheet can hold.
    """
    try:
        from openpyxl import Workbook
        from openpyxl.cell import WriteOnlyCell
        from openpyxl.styles import Font
        from openpyxl.utils import get_column_letter
        from openpyxl.worksheet.datavalidation import DataValidation
    except ImportError as error:
        message = "a spreadsheet needs openpyxl, which is missing: pip install openpyxl"
        raise ModuleNotFoundError(message, name="openpyxl") from error
    if len(table) >= MAX_ROWS or table.shape[1] > MAX_COLUMNS:
        raise ValueError(f"{len(table):,} rows x {table.shape[1]:,} columns do not fit a sheet; write .csv instead")
    book = Workbook(write_only=True)
    sheet, hidden = book.create_sheet("review"), book.create_sheet("lists")
    hidden.sheet_state = "hidden"  # a list in the cell itself holds 255 characters, and no comma
    sheet.freeze_panes = "A2"
    sheet.auto_filter.ref = f"A1:{get_column_letter(table.shape[1])}{len(table) + 1}"
    for j, name in enumerate(table.columns, start=1):
        sheet.column_dimensions[get_column_letter(j)].width = WIDTHS.get(name, 12)
    lists = {"decision": list(DECISIONS)} | ({"new_label": list(labels)} if labels else {})
    for k, (name, values) in enumerate(lists.items(), start=1):
        letter, at = get_column_letter(k), get_column_letter(list(table.columns).index(name) + 1)
        rule = DataValidation("list", formula1=f"lists!${letter}$1:${letter}${len(values)}", allow_blank=True)
        rule.error, rule.errorTitle = "choose one of the list, or leave the cell empty", name
        rule.add(f"{at}2:{at}{len(table) + 1}")
        sheet.data_validations.append(rule)

    def written(row: Sequence[Any], font: Any = None) -> list[Any]:
        cells = []
        for value in map(_value, row):
            cell = WriteOnlyCell(sheet, value)
            if font is not None:
                cell.font = font
            if isinstance(value, str):
                cell.data_type = "s"  # "=1+1" is what the cell says, not what is to be computed
                cell.quotePrefix = value.startswith(FORMULA)
            cells.append(cell)
        return cells

    sheet.append(written(list(table.columns), Font(bold=True)))
    for row in zip(*(table.iloc[:, j].tolist() for j in range(table.shape[1])), strict=True):
        sheet.append(written(row))
    for i in range(max(map(len, lists.values()))):
        hidden.append(written([values[i] if i < len(values) else None for values in lists.values()]))
    with Path(path).open("wb") as file:
        book.save(file)


def _flat(cell: Any) -> Any:
    """A cell of lists or records as JSON, which any table can hold."""
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    if isinstance(cell, bytes):
        return cell.decode(errors="replace")
    return json.dumps(cell, ensure_ascii=False, default=str) if isinstance(cell, list | tuple | dict) else cell


def _value(value: Any) -> Any:
    """What a sheet can hold of a cell."""
    if isinstance(value, bool | int | float) and value == value:
        return value
    if is_missing(value):
        return None
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value))[:MAX_CELL]
