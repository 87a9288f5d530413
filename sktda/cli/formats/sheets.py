"""Spreadsheets: the values of one sheet, without its formatting and formulas."""

from __future__ import annotations

import io
from abc import abstractmethod
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from python_calamine import CalamineError, CalamineWorkbook, PasswordError, SheetVisibleEnum

from sktda.cli.formats.base import EXACT_FLOAT, Reading, Table, check_flat, column_of, distinct, edited
from sktda.cli.formats.escapes import FORMULA
from sktda.cli.formats.files import Input, write_bytes
from sktda.cli.formats.header import has_header, is_no_row
from sktda.cli.formats.known import PLAIN, kind_of

Rows = list[list[Any]]
MAX_ROWS, MAX_CELL = 1_048_576, 32_767  # of a sheet, and characters of a cell


@dataclass(frozen=True, eq=False)
class _Sheet(Table):
    """name: that of the sheet; above, below: rows above the header, and units under it, which stay."""

    ending: str
    cells: pd.DataFrame
    name: str
    above: Rows
    names: list[str]
    below: Rows
    notes: tuple[str, ...] = ()
    line_numbers: np.ndarray | None = None

    kind: ClassVar[str]

    @classmethod
    def read(cls, file: Input, reading: Reading) -> Self:
        """Read the sheet that was named, or the only one that holds a table."""
        try:
            book = CalamineWorkbook.from_filelike(io.BytesIO(file.read()))
            read = {name: book.get_sheet_by_name(name) for name in book.sheet_names}
            sheets = {name: _cropped(sheet.to_python()) for name, sheet in read.items()}
        except PasswordError as error:
            raise ValueError(f"{file.name} is protected by a password; save it without one") from error
        except (CalamineError, OSError) as error:
            raise ValueError(f"{file.name} cannot be read as {cls.kind} ({_what_it_is(file, error)})") from error
        shown = [sheet.name for sheet in book.sheets_metadata if sheet.visible == SheetVisibleEnum.Visible]
        name, notes = _choose({name: rows for name, (_, rows) in sheets.items()}, shown, reading.part, file.name)
        first, rows = sheets[name]
        top = _header_row(rows) if reading.header is None else 0
        if top:
            notes.append(f"rows above the header are no rows, and stay ({top}, such as {_joined(rows[0])!r})")
        header, body = _split(rows[top:], reading, notes)
        below = body[:1] if _has_names(header) and body and is_no_row(body[0], body[1:]) else []
        if below:
            notes.append(f"the row below the header, {_joined(below[0])!r}, is no row, and stays")
            body = body[1:]
        used = [j for j, called in enumerate(header) if called.strip() or any(row[j] != "" for row in body)]
        names, said = distinct([header[j] for j in used], file.name)
        filled = [i for i, row in enumerate(body) if any(cell != "" for cell in row)]
        numbers = np.array(filled) + 1 + (read[name].start or (0, 0))[0] + first + len(rows) - len(body)
        body = [body[i] for i in filled]
        if len(body) < 2:
            raise ValueError(f"sheet {name!r} of {file.name} has {len(body)} rows below its header; two are needed")
        columns = {called: _column([row[j] for row in body]) for called, j in zip(names, used, strict=True)}
        headers = names if _has_names(header) else []
        below = [[row[j] for j in used] for row in below]
        ending = ".ods" if file.ending == ".ods" else ".xlsx"  # older kinds of Excel are only read
        return cls(ending, pd.DataFrame(columns), name, rows[:top], headers, below, (*notes, *said), numbers)

    @property
    def frame(self) -> pd.DataFrame:
        """The values: numbers, text, dates; None where a cell is empty."""
        return self.cells

    @classmethod
    def write_frame(cls, frame: pd.DataFrame, path: Path) -> None:
        """Write one sheet. Raises ValueError for what it cannot hold."""
        cls._write([list(frame.columns)], frame, "Sheet1", path)

    def write_rows(
        self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> None:
        """Write the values of the sheet and what stood above them, as a new sheet of this name."""
        frame = edited(self.cells, rows, target, relabelled, extra)
        top = [*self.above, *([[*self.names, *extra.columns]] if self.names else []), *self.below]
        self._write(top, frame, self.name, path)

    @classmethod
    def _write(cls, top: Rows, frame: pd.DataFrame, name: str, path: Path) -> None:
        check_flat(frame, "a spreadsheet")
        if len(frame) + len(top) > MAX_ROWS or frame.shape[1] > 16_384:
            raise ValueError(f"{len(frame):,} rows x {frame.shape[1]:,} columns do not fit a sheet; write .csv instead")
        columns = [frame.iloc[:, j].astype(object) for j in range(frame.shape[1])]
        values = [column.where(column.notna(), None).tolist() for column in columns]
        cells = [[_cell(cell) for cell in row] for row in [*top, *zip(*values, strict=True)]]
        for row in cells:
            if any(isinstance(cell, str) and len(cell) > MAX_CELL for cell in row):
                raise ValueError(
                    f"a cell has more than {MAX_CELL:,} characters, more than a sheet can hold; write .csv"
                )
        write_bytes(path, cls._bytes(cells, name))

    @staticmethod
    @abstractmethod
    def _bytes(rows: Rows, name: str) -> bytes:
        """A file with one sheet."""


class ExcelTable(_Sheet):
    """An Excel file."""

    kind = "an Excel file"

    @staticmethod
    def _bytes(rows: Rows, name: str) -> bytes:
        from openpyxl import Workbook
        from openpyxl.cell import WriteOnlyCell
        from openpyxl.utils.exceptions import IllegalCharacterError

        book = Workbook(write_only=True)
        sheet = book.create_sheet(name[:31])
        for row in rows:
            cells = []
            for value in row:
                try:
                    cell = WriteOnlyCell(sheet, value)
                except IllegalCharacterError as error:
                    raise ValueError(
                        f"{value[:40]!r} has control characters, which Excel cannot hold; write .csv instead"
                    ) from error
                if isinstance(value, str):
                    cell.data_type = "s"  # never a formula
                    if value.startswith(FORMULA):
                        cell.quotePrefix = True  # nor once somebody edits the cell
                cells.append(cell)
            sheet.append(cells)
        file = io.BytesIO()
        book.save(file)
        return file.getvalue()


class OpenDocumentTable(_Sheet):
    """An OpenDocument spreadsheet."""

    kind = "an OpenDocument spreadsheet"

    @staticmethod
    def _bytes(rows: Rows, name: str) -> bytes:
        from odf.opendocument import OpenDocumentSpreadsheet
        from odf.table import Table as Sheet
        from odf.table import TableCell, TableRow
        from odf.text import P

        book = OpenDocumentSpreadsheet()
        sheet = Sheet(name=name)
        for row in rows:
            line = TableRow()
            for value in row:
                cell = TableCell(**_typed(value))
                if isinstance(value, str):  # never a formula
                    for paragraph in value.split("\n"):
                        cell.addElement(P(text=paragraph))
                line.addElement(cell)
            sheet.addElement(line)
        book.spreadsheet.addElement(sheet)
        file = io.BytesIO()
        book.write(file)
        return file.getvalue()


def _typed(value: Any) -> dict[str, Any]:
    """What OpenDocument calls a value."""
    match value:
        case None:
            return {}
        case bool():
            return {"valuetype": "boolean", "booleanvalue": str(value).lower()}
        case int() | float():
            return {"valuetype": "float", "value": repr(value)}
        case date():
            return {"valuetype": "date", "datevalue": value.isoformat()}
        case time():
            return {"valuetype": "time", "timevalue": value.strftime("PT%HH%MM%SS")}
    return {"valuetype": "string"}


def _what_it_is(file: Input, error: Exception) -> str:
    """Many programs write text or web pages under the ending of a spreadsheet."""
    try:
        kind = kind_of(file.read(), "it")
    except ValueError as what:
        return f"{what}" if "web page" in str(what) else f"{error}; save it again, or as CSV"
    return f"it holds text; rename it to end with {kind}" if kind == PLAIN else f"{error}; save it again, or as CSV"


def _joined(row: list[Any]) -> str:
    return ", ".join(str(cell) for cell in row if cell != "")[:60]


def _cropped(rows: Rows) -> tuple[int, Rows]:
    """(number of empty rows above a table, the table without empty rows and columns around it)."""
    filled = [i for i, row in enumerate(rows) if any(cell != "" for cell in row)]
    if not filled:
        return 0, []
    rows = rows[filled[0] : filled[-1] + 1]
    width = max(map(len, rows))
    rows = [row + [""] * (width - len(row)) for row in rows]
    used = [j for j in range(width) if any(row[j] != "" for row in rows)]
    return filled[0], [row[used[0] : used[-1] + 1] for row in rows]


def _choose(sheets: dict[str, Rows], shown: list[str], wanted: str | None, file: str) -> tuple[str, list[str]]:
    """The sheet, and what is said of it; shown: the names of those that are not hidden."""
    listed = ", ".join(map(repr, sheets))
    if wanted is not None:
        by_number = dict(enumerate(sheets, 1))
        name = wanted if wanted in sheets else by_number.get(int(wanted) if wanted.isdecimal() else 0)
        if name is None:
            raise ValueError(f"{file} has no sheet {wanted!r}; it has {listed}")
        if not sheets[name]:
            raise ValueError(f"sheet {name!r} of {file} is empty; it has {listed}")
        return name, []
    tables = [name for name in shown if len(sheets[name]) > 2 and len(sheets[name][0]) > 1]
    if len(tables) > 1:
        raise ValueError(f"{file} has several sheets: {', '.join(map(repr, tables))}; name one with --sheet")
    if not tables:
        raise ValueError(f"{file} has no sheet with a header and at least two rows; its sheets are {listed}")
    said = [f"sheet {tables[0]!r} was read; {file} also has {', '.join(repr(s) for s in shown if s != tables[0])}"]
    return tables[0], said if len(shown) > 1 else []


def _header_row(rows: Rows) -> int:
    """The row of the names: titles above a table have fewer cells than its rows usually have.

    It is the first full row where names stand above numbers, else the first with more than half of the usual cells.
    """
    counts = [sum(cell != "" for cell in row) for row in rows[:100]]
    filled = sorted(filter(None, counts))
    usual = filled[len(filled) // 2]
    full = next(i for i, count in enumerate(counts) if count >= usual)
    if all(isinstance(cell, str) for cell in rows[full]) and any(
        has_header(rows[full], rows[full + skipped :]) for skipped in (1, 2)
    ):  # below it, or below a row of units
        return full
    return next(i for i, count in enumerate(counts) if count > usual / 2)


def _split(rows: Rows, reading: Reading, notes: list[str]) -> tuple[list[str], Rows]:
    """(names, rows below them)."""
    first = ["" if cell == "" else str(_whole(cell)).strip() for cell in rows[0]]
    header = reading.header
    if header is None:
        header = bool(set(reading.named) & set(first)) or has_header(first, rows[1:]) is not False
        if not header:
            notes.append("the first row is taken for one like those below; columns are called 'column 1' and so on")
    if header:
        return first, rows[1:]
    return [f"column {number}" for number in range(1, 1 + len(first))], rows


def _has_names(header: list[str]) -> bool:
    return header != [f"column {number}" for number in range(1, 1 + len(header))]


def _whole(cell: Any) -> Any:
    return int(cell) if isinstance(cell, float) and cell.is_integer() and abs(cell) < EXACT_FLOAT else cell


def _column(cells: list[Any]) -> pd.Series:
    """All numbers of a sheet are floats: a column of whole ones holds integers."""
    cells = [None if cell == "" else cell for cell in cells]
    numbers = [cell for cell in cells if isinstance(cell, float)]
    if all(number.is_integer() and abs(number) < EXACT_FLOAT for number in numbers):
        cells = [_whole(cell) for cell in cells]
    dates = [cell for cell in cells if isinstance(cell, (date, datetime, time, timedelta))]
    if dates and any(isinstance(cell, str) for cell in cells):
        return pd.Series(cells, dtype=object)
    return column_of(cells)


def _cell(value: Any) -> Any:
    """A value as sheets have it: integers that floats lose are text, as are other types."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, pd.Timestamp):
        value = value.to_pydatetime()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT_FLOAT:
        return str(value)
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.isoformat()
    if value == "":
        return None
    if value is None or isinstance(value, (str, bool, int, float, date, time)):
        return value
    return str(value)
