"""JSON: one object per line, or an array of objects; objects that stay are kept as they stand in the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from sktda.cli.formats.base import Reading, Table, check_width, column_of
from sktda.cli.formats.files import Input, write_bytes


@dataclass(frozen=True, eq=False)
class LineTable(Table):
    """A file of JSON objects, one per line. A key that a line lacks is a missing cell."""

    cells: pd.DataFrame
    lines: list[bytes]
    ending: str
    line_numbers: np.ndarray | None = None

    own = frozenset({".jsonl", ".ndjson"})

    @classmethod
    def read(cls, file: Input, reading: Reading) -> Self:
        """Read all lines but blank ones. Raises ValueError naming the line that is no object."""
        rows, lines, numbers = [], [], []
        for number, line in enumerate(file.read().splitlines(keepends=True), 1):
            if line.strip():
                rows.append(_row(line, f"{file.name}, line {number}"))
                lines.append(line)
                numbers.append(number)
        return cls(_cells(rows, file.name), lines, file.ending, np.array(numbers))

    @property
    def frame(self) -> pd.DataFrame:
        """The cells in the types of JSON."""
        return self.cells

    @staticmethod
    def write_frame(frame: pd.DataFrame, path: Path) -> None:
        """Write every row as an object, missing cells as null."""
        write_bytes(path, "".join(f"{row}\n" for row in _objects(frame)).encode())

    def write_rows(
        self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> None:
        """Write lines as they were read; only relabelled rows and added columns are composed anew."""
        written = []
        for row, changes in _changes(rows, target, relabelled, extra):
            line = self.lines[row]
            written.append(f"{_text(_row(line, '') | changes)}\n".encode() if changes else line)
        write_bytes(path, b"".join(line if line.endswith((b"\n", b"\r")) else line + b"\n" for line in written))


@dataclass(frozen=True, eq=False)
class RecordTable(Table):
    """An array of JSON objects. `texts` is that of each object as it stands in the file."""

    cells: pd.DataFrame
    texts: list[str]
    ending: str

    @classmethod
    def read(cls, file: Input, reading: Reading) -> Self | LineTable:  # type: ignore[override]
        """Read all objects; a file of lines is read as such. Raises ValueError naming what is no object."""
        try:
            text = file.read().decode("utf-8-sig")
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}; save it as UTF-8") from error
        if text.lstrip().startswith("{"):
            return _of_lines(file, reading)
        if not text.strip():
            raise ValueError(f"{file.name} is empty; at least two objects are needed")
        decoder = json.JSONDecoder()
        rows: list[dict[str, Any]] = []
        texts: list[str] = []
        at = _next(text, 0)
        if text[at] != "[":
            raise ValueError(f"{file.name} begins with {text[at]!r}; an array of objects is needed, or one per line")
        at = _next(text, at + 1)
        try:
            while text[at] != "]":
                row, end = decoder.raw_decode(text, at)
                if not isinstance(row, dict):
                    raise ValueError(
                        f"{file.name}, element {len(rows)} (counted from 0): a JSON {type(row).__name__}; every "
                        "element of the array is one object"
                    )
                rows.append(row)
                texts.append(text[at:end])
                at = _next(text, end)
                if text[at] == ",":
                    at = _next(text, at + 1)
                elif text[at] != "]":
                    raise ValueError(f"{file.name}: {text[at]!r} where a comma or ] is needed (character {at})")
            if text[at + 1 :].strip():
                raise ValueError(f"{file.name} goes on after the end of its array (character {at + 1})")
        except json.JSONDecodeError as error:
            raise ValueError(f"{file.name}: {error}; an array of objects is needed") from error
        except IndexError as error:
            raise ValueError(f"{file.name} ends within its array; was it cut off?") from error
        return cls(_cells(rows, file.name), texts, file.ending)

    @property
    def frame(self) -> pd.DataFrame:
        """The cells in the types of JSON."""
        return self.cells

    @staticmethod
    def write_frame(frame: pd.DataFrame, path: Path) -> None:
        """Write every row as an object, missing cells as null."""
        _write_array(_objects(frame), path)

    def write_rows(
        self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> None:
        """Write objects as they were read; only relabelled rows and added columns are composed anew."""
        written = []
        for row, changes in _changes(rows, target, relabelled, extra):
            written.append(_text(json.loads(self.texts[row]) | changes) if changes else self.texts[row])
        _write_array(written, path)


def _changes(
    rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (row, what is new in its object): the cells of added columns, and its label where it was relabelled."""
    added = extra.astype(object).where(extra.notna(), None).to_dict("records")
    for row in rows.tolist():
        yield row, added[row] | ({target: relabelled[row]} if row in relabelled else {})


def _of_lines(file: Input, reading: Reading) -> LineTable:
    try:
        return LineTable.read(file, reading)
    except ValueError as error:
        raise ValueError(f"{file.name} is neither an array of objects nor one object per line ({error})") from error


def _next(text: str, at: int) -> int:
    """The position of the next character that is no space."""
    while text[at : at + 1].isspace():
        at += 1
    return at


def _cells(rows: list[dict[str, Any]], name: str) -> pd.DataFrame:
    if not rows:
        raise ValueError(f"{name} is empty; at least two objects are needed")
    names = list(dict.fromkeys(name for row in rows for name in row))
    check_width(len(names), name)
    return pd.DataFrame({name: column_of([row.get(name) for row in rows]) for name in names})


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{where}: {error}; every line is one JSON object in UTF-8") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a JSON {type(row).__name__}; every line is one JSON object")
    return row


def _objects(frame: pd.DataFrame) -> list[str]:
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        if column.dtype == object and column.map(lambda cell: isinstance(cell, bytes)).any():
            raise ValueError(f"column {name!r} holds bytes, which JSON cannot hold; write .parquet instead")
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [_text(row) for row in rows]


def _write_array(rows: list[str], path: Path) -> None:
    write_bytes(path, ("[\n" + ",\n".join(rows) + "\n]\n").encode())


def _text(row: dict[Any, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """What JSON has for a value of NumPy or pandas."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value.isoformat() if isinstance(value, date) else str(value)
