"""The rows of a review as a spreadsheet, for those who prefer one: with their cells, and a list of decisions."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from sktda.review.decisions import COLUMNS, DECISIONS, index_column
from sktda.review.page import Review, rows_shown

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # what no spreadsheet can hold
WIDTHS = {"given_label": 20, "suggested_label": 20, "decision": 14, "new_label": 20}


def write_sheet(path: str | os.PathLike, review: Review, lines: np.ndarray | None = None) -> None:
    """An XLSX file that `sktda clean --decisions` takes: the rows of the page, worst first, each with its cells.

    lines (n,): the line of the file on which each row begins. Cells that look like formulas are text.
    Raises ModuleNotFoundError if openpyxl is not installed.
    """
    try:
        from openpyxl import Workbook
        from openpyxl.styles import Font
        from openpyxl.utils import get_column_letter
        from openpyxl.worksheet.datavalidation import DataValidation
    except ImportError as error:
        message = "a spreadsheet needs openpyxl, which is missing: pip install openpyxl"
        raise ModuleNotFoundError(message, name="openpyxl") from error
    table = _table(review, lines)
    book = Workbook()
    sheet = book.active
    sheet.title = "review"
    for j, name in enumerate(table.columns, start=1):
        _write(sheet.cell(1, j), str(name))
        sheet.cell(1, j).font = Font(bold=True)
        sheet.column_dimensions[get_column_letter(j)].width = WIDTHS.get(name, 12)
        for i, value in enumerate(table.iloc[:, j - 1].tolist(), start=2):
            _write(sheet.cell(i, j), value)
    sheet.freeze_panes = "A2"
    sheet.auto_filter.ref = sheet.dimensions
    lists = {"decision": list(DECISIONS)}
    if review.task == "classification":
        lists["new_label"] = sorted(map(str, review.frame["given_label"].unique()))
    hidden = book.create_sheet("lists")  # a list in the cell itself holds 255 characters, and no comma
    hidden.sheet_state = "hidden"
    for k, (name, values) in enumerate(lists.items(), start=1):
        for i, value in enumerate(values, start=1):
            _write(hidden.cell(i, k), value)
        letter, at = get_column_letter(k), get_column_letter(list(table.columns).index(name) + 1)
        rule = DataValidation("list", formula1=f"lists!${letter}$1:${letter}${len(values)}", allow_blank=True)
        rule.error, rule.errorTitle = "choose one of the list, or leave the cell empty", name
        sheet.add_data_validation(rule)
        rule.add(f"{at}2:{at}{len(table) + 1}")
    with Path(path).open("wb") as file:
        book.save(file)


def _table(review: Review, lines: np.ndarray | None) -> Any:
    """The columns of a scores file, the line, and the row's own cells where their names are free."""
    frame = review.frame
    rows, decided = rows_shown(review)
    table = frame.assign(
        row=range(len(frame)),
        decision=[decided.get(i, ["", ""])[0] for i in range(len(frame))],
        new_label=[decided.get(i, ["", ""])[1] for i in range(len(frame))],
    )
    names = list(COLUMNS)
    if index := index_column(frame.index):
        table[index] = frame.index
        names.insert(1, index)
    table = table[names].iloc[rows].reset_index(drop=True)
    if lines is not None:
        table.insert(1, "line", np.asarray(lines)[rows])
    if review.rows is not None:
        own = review.rows.iloc[rows].reset_index(drop=True)
        for name in own.columns:
            table[str(name) if str(name) not in table else f"{name}_"] = own[name].astype(object)
    return table


def _write(cell: Any, value: Any) -> None:
    if isinstance(value, str):
        cell.value = CONTROL.sub("\N{REPLACEMENT CHARACTER}", value)
        cell.data_type = "s"  # "=1+1" is what the cell says, not what is to be computed
    elif isinstance(value, bool | int | float) and value == value:
        cell.value = value
    elif value is not None and value == value:
        cell.value = str(value)
        cell.data_type = "s"
