"""ARFF, the format of Weka; lines that stay are kept as they stand in the file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import arff
import numpy as np
import pandas as pd

from sktda.cli.formats.base import EXACT_FLOAT, Reading, Table, check_flat, column_of, distinct
from sktda.cli.formats.dialect import decode
from sktda.cli.formats.files import Input, write_bytes

ATTRIBUTE = re.compile(
    r"""^([ \t]*@attribute\s+('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\S+)\s+)"""
    r"""(?:(numeric|real|integer)|(date)|string|\{)[^\n]*?(?=\r?$)""",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, eq=False)
class ArffTable(Table):
    """An ARFF file. header: all text up to the data; lines: the text of each row, line end included."""

    cells: pd.DataFrame
    header: str
    lines: list[str]
    encoding: str
    ending: str = ".arff"
    notes: tuple[str, ...] = ()
    line_numbers: np.ndarray | None = None

    @classmethod
    def read(cls, file: Input, reading: Reading) -> Self:
        """Read all rows; `?` is a missing cell. Raises ValueError for sparse rows and what is no ARFF."""
        text, encoding = decode(file.read(), file.name)
        begin = re.search(r"^[ \t]*@data[^\n]*\n", text, re.IGNORECASE | re.MULTILINE)
        if begin is None:
            raise ValueError(f"{file.name} has no line @data; it is no whole ARFF file")
        lines = text[begin.end() :].splitlines(keepends=True)
        numbers = [i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("%")]
        lines = [lines[i] for i in numbers]
        if not lines:
            raise ValueError(f"{file.name} has no rows below @data; at least two rows are needed")
        if lines[0].lstrip().startswith("{"):
            raise ValueError(f"{file.name} has sparse rows, which are not read; save it with Weka's SparseToNonSparse")
        try:
            found = arff.loads(_known_types(text[: begin.end()]) + text[begin.end() :])
        except (arff.ArffException, ValueError) as error:
            raise ValueError(f"{file.name} cannot be read as ARFF: {error}") from error
        if len(found["data"]) != len(lines):
            raise ValueError(f"{file.name} has {len(lines)} lines below @data that make {len(found['data'])} rows")
        names, notes = distinct([name for name, _ in found["attributes"]], file.name)
        columns = {}
        numeric = [match[3] is not None for match in ATTRIBUTE.finditer(text[: begin.end()])]
        for j, name in enumerate(names):
            cells = [row[j] for row in found["data"]]
            columns[name] = _numbers(cells, name, file.name) if numeric[j] else column_of(cells)
        at = np.array(numbers) + len(text[: begin.end()].splitlines()) + 1
        return cls(pd.DataFrame(columns), text[: begin.end()], lines, encoding, notes=notes, line_numbers=at)

    @property
    def frame(self) -> pd.DataFrame:
        """Numbers, and texts; None where a cell is missing."""
        return self.cells

    @staticmethod
    def write_frame(frame: pd.DataFrame, path: Path) -> None:
        """Write numbers as NUMERIC, all else as STRING."""
        check_flat(frame, ".arff")
        attributes = [(str(name), _kind(column)) for name, column in frame.items()]
        cells = frame.astype(object).where(frame.notna(), None)
        texts = [kind == "STRING" for _, kind in attributes]
        rows = [
            [cell if cell is None or not is_text else str(cell) for cell, is_text in zip(row, texts, strict=True)]
            for row in cells.to_numpy(dtype=object).tolist()
        ]
        data = {"relation": "data", "attributes": attributes, "data": rows}
        write_bytes(path, arff.dumps(data).encode())

    def write_rows(
        self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> None:
        """Write lines as they were read; only relabelled rows and added columns are composed anew."""
        declared = "".join(f"@attribute {name} {_kind(extra[name])}\n" for name in extra)
        at = self.header.lower().rindex("@data")
        written = [self.header[:at] + declared + self.header[at:]]
        position = self.cells.columns.get_loc(target)
        for row in rows.tolist():
            line = self.lines[row]
            if row in relabelled:
                cells = [*self.cells.iloc[row].tolist()]
                cells[position] = relabelled[row]
                line = ",".join(map(_text, cells)) + "\n"
            if len(extra.columns):
                line = line.rstrip("\r\n") + "," + ",".join(map(_text, extra.iloc[row])) + "\n"
            written.append(line if line.endswith("\n") else line + "\n")
        write_bytes(path, "".join(written).encode(self.encoding))


def _known_types(header: str) -> str:
    """A header with what the parser does not know: dates are text, spaces in braces, comments behind them.

    Numbers are left to `_numbers`: the parser makes floats of them.
    """
    header = ATTRIBUTE.sub(lambda match: f"{match[1]}STRING" if match[3] or match[4] else match[0], header)
    return re.sub(r"\}[ \t]*%[^\n]*", "}", re.sub(r"\{\s+", "{", header))


def _numbers(cells: list[str | None], name: str, file: str) -> pd.Series:
    """Whole ones as integers, of any length."""
    try:
        if all(cell is None or re.fullmatch(r"[+-]?\d+", cell) for cell in cells):
            return column_of([None if cell is None else int(cell) for cell in cells])
        return pd.Series([np.nan if cell is None else float(cell) for cell in cells])
    except ValueError as error:
        raise ValueError(f"attribute {name!r} of {file} is numeric, but: {error}") from error


def _kind(column: pd.Series) -> str:
    """Integers that floats lose are text."""
    if column.dtype.kind in "iu":
        return "STRING" if column.abs().max() >= EXACT_FLOAT else "NUMERIC"
    return "NUMERIC" if column.dtype.kind == "f" else "STRING"


def _text(cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return "?"
    cell = cell.item() if isinstance(cell, np.generic) else cell
    if isinstance(cell, (int, float)) and not isinstance(cell, bool):
        return str(int(cell)) if cell == int(cell) else repr(cell)
    text = str(cell)
    if re.fullmatch(r"[^\s,'\"{}%\\?]+", text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
