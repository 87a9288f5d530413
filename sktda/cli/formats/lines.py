"""JSON lines: one object per line; lines that stay are kept as they stand in the file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sktda.cli.formats import format_of, write_frame
from sktda.cli.formats.base import Table, check_width, edited, read_bytes, write_bytes


@dataclass(frozen=True, eq=False)
class LineTable(Table):
    """A file of JSON objects, one per line. A key that a line lacks is a missing cell."""

    path: Path
    cells: pd.DataFrame
    lines: list[bytes]

    @classmethod
    def read(cls, path: Path) -> LineTable:
        """Read all lines but blank ones. Raises ValueError naming the line that is no object."""
        rows, lines = [], []
        for number, line in enumerate(read_bytes(path).splitlines(keepends=True), 1):
            if line.strip():
                rows.append(_row(line, f"{path.name}, line {number}"))
                lines.append(line)
        if not rows:
            raise ValueError(f"{path.name} is empty; at least two lines with an object each are needed")
        names = list(dict.fromkeys(name for row in rows for name in row))
        check_width(len(names), path.name)
        return cls(path, pd.DataFrame({name: _column([row.get(name) for row in rows]) for name in names}), lines)

    @property
    def frame(self) -> pd.DataFrame:
        """The cells in the types of JSON."""
        return self.cells

    @staticmethod
    def write_frame(frame: pd.DataFrame, path: Path) -> None:
        """Write every row as an object, missing cells as null."""
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        write_bytes(path, "".join(_line(row) for row in rows).encode())

    def write(self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame) -> None:
        """Write lines as they were read; only relabelled rows and added columns are composed anew."""
        if format_of(path) is not format_of(self.path):
            write_frame(edited(self.frame, rows, target, relabelled, extra), path)
            return
        added = extra.astype(object).where(extra.notna(), None).to_dict("records")
        written = []
        for row in rows.tolist():
            line = self.lines[row]
            changes = added[row] | ({target: relabelled[row]} if row in relabelled else {})
            written.append(_line(_row(line, "") | changes).encode() if changes else line)
        write_bytes(path, b"".join(line if line.endswith((b"\n", b"\r")) else line + b"\n" for line in written))


def _column(cells: list[Any]) -> pd.Series:
    """pandas would make floats of integers among which one is missing."""
    return pd.Series(cells, dtype=object if any(cell is None for cell in cells) else None)


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{where}: {error}; every line is one JSON object in UTF-8") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a JSON {type(row).__name__}; every line is one JSON object")
    return row


def _line(row: dict[Any, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """What JSON has for a value of NumPy or pandas."""
    return value.item() if isinstance(value, np.generic) else str(value)
