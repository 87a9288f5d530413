"""JSON: one object per line, or an array of objects; objects that stay are kept as they stand in the file."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from sktda.cli.formats.base import Reading, Table, check_width, column_of
from sktda.cli.formats.files import Input, write_bytes
from sktda.cli.formats.known import with_ending
from sktda.cli.formats.wrapped import next_of, rows_within


@dataclass(frozen=True, eq=False)
class _Objects(Table):
    """cells: those of objects within objects have columns such as `address.city`; paths: the keys of each column."""

    cells: pd.DataFrame
    paths: dict[str, tuple[str, ...]]
    ending: str

    @property
    def frame(self) -> pd.DataFrame:
        """The cells in the types of JSON."""
        return self.cells

    @abstractmethod
    def _object(self, row: int) -> dict[str, Any]:
        """The object of a row."""

    def recast(
        self, end: str, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> pd.DataFrame | None:
        """Whole objects for formats that can hold them."""
        format = with_ending(end)
        if format is None or not format.nested:
            return None
        objects = [
            self._object(row) if made is None else made for row, made in self._made(rows, target, relabelled, extra)
        ]
        names = list(dict.fromkeys(name for each in objects for name in each))
        return pd.DataFrame({name: column_of([each.get(name) for each in objects]) for name in names})

    def _made(
        self, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yields (row, its object with its new label and the added columns; None where nothing is new in it)."""
        added = extra.astype(object).where(extra.notna(), None).to_dict("records")
        if extra.shape[1] == 0:
            added = [{}] * len(extra)  # pandas before 3 makes no records of rows without columns
        *above, last = self.paths[target]
        for row in rows.tolist():
            if not added[row] and row not in relabelled:
                yield row, None
                continue
            made = self._object(row)
            if row in relabelled:
                inner = made
                for key in above:
                    inner[key] = inner = dict(inner.get(key) or {})
                inner[last] = relabelled[row]
            yield row, made | added[row]


@dataclass(frozen=True, eq=False)
class LineTable(_Objects):
    """A file of JSON objects, one per line. A key that a line lacks is a missing cell."""

    lines: list[bytes]
    line_numbers: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, file: Input, reading: Reading) -> Self:
        """Read all lines but blank ones. Raises ValueError naming the line that is no object."""
        rows, lines, numbers = [], [], []
        for number, line in enumerate(file.read().splitlines(keepends=True), 1):
            if line.strip():
                rows.append(_row(line, f"{file.name}, line {number}"))
                lines.append(line)
                numbers.append(number)
        cells, paths = _cells(rows, file.name)
        return cls(cells, paths, file.ending, lines, np.array(numbers))

    @staticmethod
    def write_frame(frame: pd.DataFrame, path: Path) -> None:
        """Write every row as an object, missing cells as null."""
        write_bytes(path, "".join(f"{row}\n" for row in _objects(frame)).encode())

    def write_rows(
        self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> None:
        """Write lines as they were read; only relabelled rows and added columns are composed anew."""
        written = []
        for row, made in self._made(rows, target, relabelled, extra):
            written.append(self.lines[row] if made is None else f"{_text(made)}\n".encode())
        write_bytes(path, b"".join(line if line.endswith((b"\n", b"\r")) else line + b"\n" for line in written))

    def _object(self, row: int) -> dict[str, Any]:
        return _row(self.lines[row], "")


@dataclass(frozen=True, eq=False)
class RecordTable(_Objects):
    """An array of JSON objects. `texts` is that of each object as it stands in the file.

    before, after: what stands around the array where that is within an object, such as {"data": [...]}.
    """

    texts: list[str]
    before: str = ""
    after: str = "\n"
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, file: Input, reading: Reading) -> Self | LineTable:  # type: ignore[override]
        """Read all objects; a file of lines is read as such. Raises ValueError naming what is no object."""
        try:
            text = file.read().decode("utf-8-sig")
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}; save it as UTF-8") from error
        if not text.strip():
            raise ValueError(f"{file.name} is empty; at least two objects are needed")
        at, notes = next_of(text, 0), []
        if text[at] == "{":
            try:
                found = rows_within(text, at, file.name)
            except json.JSONDecodeError:
                found = None
            if found is None:
                return _of_lines(file, reading)
            at, key = found
            notes.append(f"the rows are the objects of {key!r}; what stands around them stays")
        elif text[at] != "[":
            raise ValueError(f"{file.name} begins with {text[at]!r}; an array of objects is needed, or one per line")
        rows, texts, end = _elements(text, at, file.name)
        if not notes and text[end:].strip():
            raise ValueError(f"{file.name} goes on after the end of its array (character {end})")
        cells, paths = _cells(rows, file.name)
        around = (text[:at], text[end:]) if notes else ("", "\n")
        return cls(cells, paths, file.ending, texts, *around, tuple(notes))

    @staticmethod
    def write_frame(frame: pd.DataFrame, path: Path) -> None:
        """Write every row as an object, missing cells as null."""
        _write_array(_objects(frame), path)

    def write_rows(
        self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> None:
        """Write objects as they were read; only relabelled rows and added columns are composed anew."""
        changed = self._made(rows, target, relabelled, extra)
        written = [self.texts[row] if made is None else _text(made) for row, made in changed]
        _write_array(written, path, self.before, self.after)

    def _object(self, row: int) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(self.texts[row])
        return made


def _elements(text: str, at: int, name: str) -> tuple[list[dict[str, Any]], list[str], int]:
    """(the objects of the array that begins there, the text of each, where it ends)."""
    decoder = json.JSONDecoder()
    rows: list[dict[str, Any]] = []
    texts: list[str] = []
    at = next_of(text, at + 1)
    try:
        while text[at] != "]":
            row, end = decoder.raw_decode(text, at)
            if not isinstance(row, dict):
                raise ValueError(
                    f"{name}, element {len(rows)} (counted from 0): a JSON {type(row).__name__}; every element of the "
                    "array is one object"
                )
            rows.append(row)
            texts.append(text[at:end])
            at = next_of(text, end)
            if text[at] == ",":
                at = next_of(text, at + 1)
            elif text[at] != "]":
                raise ValueError(f"{name}: {text[at]!r} where a comma or ] is needed (character {at})")
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: {error}; an array of objects is needed") from error
    except IndexError as error:
        raise ValueError(f"{name} ends within its array; was it cut off?") from error
    return rows, texts, at + 1


def _of_lines(file: Input, reading: Reading) -> LineTable:
    try:
        return LineTable.read(file, reading)
    except ValueError as error:
        raise ValueError(f"{file.name} is neither an array of objects nor one object per line ({error})") from error


def _cells(rows: list[dict[str, Any]], name: str) -> tuple[pd.DataFrame, dict[str, tuple[str, ...]]]:
    """(the cells, those of objects within objects in columns of their own, the keys of each column)."""
    if not rows:
        raise ValueError(f"{name} is empty; at least two objects are needed")
    names = list(dict.fromkeys(name for row in rows for name in row))
    check_width(len(names), name)
    columns: dict[str, list[Any]] = {}
    paths: dict[str, tuple[str, ...]] = {}

    def add(path: tuple[str, ...], cells: list[Any]) -> None:
        known = [cell for cell in cells if cell is not None]
        inner = list(dict.fromkeys(key for cell in known for key in cell)) if _are_objects(known) else []
        if inner and not {".".join([*path, key]) for key in inner} & {*names, *paths}:
            for key in inner:
                add((*path, key), [None if cell is None else cell.get(key) for cell in cells])
        else:
            columns[".".join(path)], paths[".".join(path)] = cells, path

    for key in names:
        add((key,), [row.get(key) for row in rows])
    check_width(len(columns), name)
    return pd.DataFrame({called: column_of(cells) for called, cells in columns.items()}), paths


def _are_objects(cells: list[Any]) -> bool:
    return bool(cells) and all(isinstance(cell, dict) for cell in cells)


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


def _write_array(rows: list[str], path: Path, before: str = "", after: str = "\n") -> None:
    write_bytes(path, (before + "[\n" + ",\n".join(rows) + "\n]" + after).encode())


def _text(row: dict[Any, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """What JSON has for a value of NumPy or pandas."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value.isoformat() if isinstance(value, date) else str(value)
