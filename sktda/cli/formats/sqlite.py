"""SQLite databases: one table, or what a query returns. The database is read from memory and never changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from sktda.cli.formats.base import Reading, Table, check_width, column_of, distinct, edited
from sktda.cli.formats.files import Input, write_bytes


@dataclass(frozen=True, eq=False)
class SqliteTable(Table):
    """name: that of the table; declared: the types of its columns, as the database has them."""

    ending: str
    cells: pd.DataFrame
    name: str
    declared: dict[str, str]
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, file: Input, reading: Reading) -> Self:
        """Read the table that was named, the only one, or the result of the query."""
        if reading.query is not None and reading.part is not None:
            raise ValueError("--query and --table cannot be given together")
        database = sqlite3.connect(":memory:")
        try:
            database.deserialize(_bytes(file))
            names = [name for (name,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY 1"
            )]  # fmt: skip
            name = "data" if reading.query is not None else _choose(names, reading.part, file.name)
            cursor = database.execute(reading.query or f"SELECT * FROM {_quoted(name)}")
            if cursor.description is None:
                raise ValueError("--query returns no rows; give a SELECT")
            names, notes = distinct([column[0] for column in cursor.description], file.name)
            rows = cursor.fetchall()
            declared = {} if reading.query is not None else {
                column: kind for _, column, kind, *_ in database.execute(f"PRAGMA table_info({_quoted(name)})")
            }  # fmt: skip
        except sqlite3.Error as error:
            raise ValueError(
                f"{file.name} cannot be read as SQLite: {error}; its tables are {_tables(database)}"
            ) from error
        finally:
            database.close()
        check_width(len(names), file.name)
        if not rows:
            raise ValueError(f"{'the query' if reading.query else f'table {name!r}'} of {file.name} has no rows")
        cells = {column: column_of([row[j] for row in rows]) for j, column in enumerate(names)}
        return cls(file.ending, pd.DataFrame(cells), name, declared, notes)

    @property
    def frame(self) -> pd.DataFrame:
        """The values as the database has them; None where they are NULL."""
        return self.cells

    @classmethod
    def write_frame(cls, frame: pd.DataFrame, path: Path) -> None:
        """Write a database with one table `data`."""
        kinds = {"i": "INTEGER", "u": "INTEGER", "b": "BOOLEAN", "f": "REAL"}
        _write(frame, "data", {name: kinds.get(column.dtype.kind, "") for name, column in frame.items()}, path)

    def write_rows(
        self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> None:
        """Write a database with this table alone, its columns declared as they were."""
        _write(edited(self.cells, rows, target, relabelled, extra), self.name, self.declared, path)


def _bytes(file: Input) -> bytes:
    """Of a database without a journal: what another program has not put into the file yet would be missed."""
    journal = file.path.with_name(f"{file.path.name}-wal") if file.path else None
    if journal is not None and journal.exists() and journal.stat().st_size:
        raise ValueError(f"{file.name} is in use: {journal.name} holds changes; close the program that has it open")
    data = file.read()
    return data[:18] + b"\1\1" + data[20:]  # in memory there is no journal


def _tables(database: sqlite3.Connection) -> str:
    try:
        return ", ".join(name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
    except sqlite3.Error:
        return "unknown"


def _choose(names: list[str], wanted: str | None, file: str) -> str:
    listed = ", ".join(map(repr, names)) or "none"
    if wanted is not None:
        if wanted not in names:
            raise ValueError(f"{file} has no table {wanted!r}; it has {listed}")
        return wanted
    if len(names) != 1:
        raise ValueError(f"{file} has the tables {listed}; name one with --table, or give a --query")
    return names[0]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _write(frame: pd.DataFrame, name: str, declared: Mapping[Any, str], path: Path) -> None:
    database = sqlite3.connect(":memory:")
    try:
        columns = ", ".join(f"{_quoted(str(column))} {declared.get(column, '')}" for column in frame.columns)
        database.execute(f"CREATE TABLE {_quoted(name)} ({columns})")
        cells = frame.astype(object).where(frame.notna(), None)
        values = ([_value(cell) for cell in row] for row in cells.to_numpy(dtype=object).tolist())
        places = ", ".join("?" * frame.shape[1])
        database.executemany(f"INSERT INTO {_quoted(name)} VALUES ({places})", values)
        database.commit()
        write_bytes(path, database.serialize())
    except (sqlite3.Error, OverflowError) as error:
        raise ValueError(
            f"these columns cannot be written as SQLite ({error}); write .csv or .jsonl instead"
        ) from error
    finally:
        database.close()


def _value(cell: Any) -> Any:
    """A value as SQLite has it; dates, for example, are text."""
    cell = cell.item() if isinstance(cell, np.generic) else cell
    if isinstance(cell, (list, dict, np.ndarray)):
        raise ValueError("lists and records cannot be written as SQLite; write .jsonl or .parquet instead")
    return cell if cell is None or isinstance(cell, (int, float, str, bytes)) else str(cell)
