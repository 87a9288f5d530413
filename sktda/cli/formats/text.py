"""Delimited text: encoding, delimiter and header detected, every record kept as it stands in the file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from sktda.cli.formats.base import Reading, Table, check_flat, check_width, distinct
from sktda.cli.formats.dialect import HEAD, Dialect, decode, find_dialect, two_encodings
from sktda.cli.formats.files import Input, write_bytes
from sktda.cli.formats.header import LINE, is_no_row
from sktda.cli.formats.known import LIBSVM, plain_ending
from sktda.cli.formats.line_bytes import Lines

SPARSE = re.compile(r"(?:[+-]?\d+(?:\.\d+)?(?: +\d+:[-+.\deE]+)+ *\r?\n){2}")
TIMES = re.compile(r"(?:\S+(?: +\d\d?:[0-5]\d)+\s+)+")

DELIMITERS = {".tsv": "\t", ".tab": "\t", ".psv": "|"}  # of what is written anew; else a comma


@dataclass(eq=False)
class TextTable(Table):
    """A delimited text file. `records` is the text of each row, line end included.

    header: all text above the rows; names: those of all cells of a row; columns that have neither a name nor cells are
    not in `cells`, which are only their names where they were released; n_trailing: the most empty cells that a row has
    beyond its columns.
    """

    ending: str
    cells: pd.DataFrame | list[str]
    header: str
    records: Sequence[str]
    names: list[str]
    dialect: Dialect
    encoding: str
    n_trailing: int
    notes: tuple[str, ...] = ()
    line_numbers: np.ndarray | None = None

    @classmethod
    def read(cls, file: Input, reading: Reading) -> Self:
        """Read with all cells as text. Raises ValueError naming the line that is wrong."""
        data = file.read(partial(_check_first_line, name=file.name))
        text, encoding = decode(data, file.name)
        if not text.strip():
            raise ValueError(f"{file.name} is empty; a header line and at least two rows are needed")
        if (sparse := SPARSE.match(text)) and not TIMES.fullmatch(sparse[0]):
            raise ValueError(f"{file.name} is {LIBSVM}")
        dialect = find_dialect(text, reading.header, reading.named)
        notes = list(dialect.notes)
        if not encoding.startswith("utf") and two_encodings(data):
            notes.append(
                f"some lines are UTF-8 and others are not; all were read as {encoding}, so some letters are wrong"
            )
        names, header, start = _header(text, dialect, file.name)
        names = [name.strip() for name in names]
        if dialect.has_header and (below := _below_header(text, start, dialect)):
            header, start = header + below, start + len(below)
            notes.append(f"the line below the header, {below.strip()[:60]!r}, is no row, and stays")
        n_trailing = 0
        lines = _lines(text, start, dialect)
        texts: Sequence[str] = lines or ()
        above = text.count("\n", 0, start) or text.count("\r", 0, start)
        numbers = lines.numbers + above if lines else None
        text = "" if texts else text  # large files are held once
        cells = _parsed(lines, dialect, len(names)) if lines else None
        if cells is None:
            records = _Records(text or decode(data, file.name)[0], dialect, file.name, start, len(names))
            cells, texts = _cells(iter(records))
            n_trailing, numbers = records.n_trailing, np.array(records.lines)
        if not texts:
            raise ValueError(f"{file.name} has a header but no rows; at least two rows are needed")
        names = names or [f"column {number}" for number in range(1, 1 + cells.shape[1])]
        if n_trailing:
            notes.append("rows end with delimiters that the header lacks")
        nothing = [j for j, name in enumerate(names) if not name.strip() and (cells[j] == "").all()]
        if nothing:
            notes.append("columns that have neither a name nor cells are not used, and stay")
        used = [j for j in range(len(names)) if j not in nothing]
        called, said = distinct([names[j] for j in used], file.name)
        for j, name in zip(used, called, strict=True):
            names[j] = name
        cells = (cells[used] if nothing else cells).set_axis(called, axis=1)
        header = dialect.preamble + header
        notes += said
        return cls(file.ending, cells, header, texts, names, dialect, encoding, n_trailing, tuple(notes), numbers)

    @property
    def frame(self) -> pd.DataFrame:
        """All cells as text."""
        if isinstance(self.cells, list) and isinstance(self.records, Lines):
            cells = _parsed(self.records, self.dialect, len(self.names))
            used = [j for j, name in enumerate(self.names) if name in self.cells]
            self.cells = cells[used].set_axis(self.cells, axis=1)  # type: ignore[index]  # they were read before
        return self.cells  # type: ignore[return-value]

    def release(self) -> None:
        names = list(self.frame.columns)
        if isinstance(self.records, Lines) and [name for name in self.names if name in names] == names:
            self.cells = names
            import pyarrow as pa

            pa.default_memory_pool().release_unused()  # which would stay with it

    @staticmethod
    def write_frame(frame: pd.DataFrame, path: Path) -> None:
        """Write UTF-8 with the delimiter of the ending."""
        ending = plain_ending(path)
        check_flat(frame, ending)
        text = ""
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC):
            if quoting == csv.QUOTE_MINIMAL or "\r" in text:  # which is only quoted where it ends lines
                separator = DELIMITERS.get(ending, ",")
                text = frame.to_csv(None, sep=separator, index=False, lineterminator="\n", quoting=quoting)
        write_bytes(path, text.encode())

    def write_rows(
        self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> None:
        """Write records as they were read; only relabelled rows and added columns are composed anew."""
        if isinstance(self.records, Lines) and not relabelled and not len(extra.columns):
            kept = self.header.encode() + self.records.joined(rows)
            write_bytes(path, kept if self.encoding == "utf-8" else kept.decode().encode(self.encoding))
            return
        position = self.names.index(target)
        added = extra.astype(object).where(extra.notna(), "").astype(str).to_numpy().tolist()
        lines = [self.header]
        if len(extra.columns) and self.dialect.has_header:
            lines = [self._extended(self.header, [*[""] * self.n_trailing, *extra.columns])]
        for row in rows.tolist():
            record = self.records[row]
            if row in relabelled:
                fields = self.dialect.parse(record)
                fields[position] = relabelled[row]
                record = self._composed(fields) + _line_end(record)
            if added[row] and self.n_trailing:
                missing = len(self.names) + self.n_trailing - len(self.dialect.parse(record))
                record = self._extended(record, [""] * missing)
            lines.append(self._extended(record, added[row]))
        write_bytes(path, "".join(lines).encode(self.encoding))

    def _composed(self, fields: list[str]) -> str:
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=self.dialect.delimiter, lineterminator="\r\n").writerow(fields)  # both are quoted
        return buffer.getvalue().removesuffix("\r\n")

    def _extended(self, record: str, fields: list[str]) -> str:
        if not fields:
            return record
        end = _line_end(record)
        return record.removesuffix(end) + self.dialect.delimiter + self._composed(fields) + end


def _cells(records: Iterator[tuple[list[str], str]]) -> tuple[pd.DataFrame, Sequence[str]]:
    """(cells, text of every row)."""
    frames: list[pd.DataFrame] = [pd.DataFrame(dtype=str)]
    texts: list[str] = []
    while block := list(islice(records, 50_000)):  # a frame takes far less memory than lists of strings
        frames.append(pd.DataFrame([fields for fields, _ in block], dtype=str))
        texts += [record for _, record in block]
    return pd.concat(frames[1:] or frames, ignore_index=True), texts


def _header(text: str, dialect: Dialect, name: str) -> tuple[list[str], str, int]:
    """(names, text of the header, where the rows start); no names where they are to be made up."""
    start = len(dialect.preamble)
    if not dialect.has_header:
        return list(dialect.header), "", start
    names, header = next(iter(_Records(text, dialect, name, start)))
    return ["", *names] if dialect.row_names else names, header, text.index(header, start) + len(header)


def _below_header(text: str, start: int, dialect: Dialect) -> str:
    """The line below the header where it holds units, types or the like, with its end."""
    line = next(iter(io.StringIO(text[start : start + HEAD], newline="")), "")
    if LINE.fullmatch(line) and line.strip():
        return line
    first, *rows = dialect.records(text[start : start + HEAD + 1]) or [[]]
    return line if rows and '"' not in line and is_no_row(first, rows) else ""


def _lines(text: str, start: int, dialect: Dialect) -> Lines | None:
    """The text of every row where each is a line: where there are no quotes, and all lines end in one way."""
    if dialect.runs or '"' in text or text.count("\r") != text.count("\r\n"):
        return None
    return Lines.of(text[start:].encode())


def _parsed(texts: Lines, dialect: Dialect, n_cells: int) -> pd.DataFrame | None:
    """The cells of lines without quotes, quickly and in little memory; None where one wants a closer look."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    columns = [str(j) for j in range(n_cells or len(dialect.parse(texts[0])))]
    try:
        table = arrow.read_csv(
            pa.BufferReader(texts.data),
            arrow.ReadOptions(column_names=columns),
            arrow.ParseOptions(delimiter=dialect.delimiter, quote_char=False),
            arrow.ConvertOptions(column_types=dict.fromkeys(columns, pa.large_string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid:  # rows of other lengths
        return None
    if table.num_rows != len(texts):
        return None
    return table.to_pandas(split_blocks=True, self_destruct=True).set_axis(range(len(columns)), axis=1)


def _check_first_line(head: bytes, name: str) -> None:
    """Before the whole file is read: a transposed or wrongly broken one shows in its first line."""
    check_width(1 + max(head.split(b"\n", 1)[0].count(mark) for mark in b",;\t|"), name)


@dataclass
class _Records:
    """Iterates (fields, text) of every record. A quoted cell may span lines; blank lines are skipped.

    start: where they begin in the text; n_cells: of a record, by the first one where it is 0; n_trailing: the most
    empty cells beyond them; lines: on which they began.
    """

    text: str
    dialect: Dialect
    name: str
    start: int
    n_cells: int = 0
    n_trailing: int = 0
    lines: list[int] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[list[str], str]]:
        taken: list[str] = []
        above = self.text[: self.start]
        start = above.count("\n") or above.count("\r")
        first_line = start + 1

        def lines() -> Iterator[str]:
            for line in io.StringIO(self.text[self.start :], newline=""):
                taken.append(line)
                yield self.dialect.plain(line)

        csv.field_size_limit(max(csv.field_size_limit(), len(self.text)))  # a cell may hold a book
        reader = csv.reader(lines(), strict=True, **self.dialect.options)
        try:
            for fields in reader:
                if fields:
                    self.n_cells = self.n_cells or len(fields)
                    self.lines.append(first_line)
                    yield self._checked(fields, first_line), "".join(taken)
                taken.clear()
                first_line = reader.line_num + start + 1
        except csv.Error as error:
            raise ValueError(
                f"{self.name}, line {first_line}: {error}; a quoted cell ends with a quote before the next "
                f'{self.dialect.delimiter!r} or line end, and quotes inside it are doubled ("")'
            ) from error

    def _checked(self, fields: list[str], line: int) -> list[str]:
        if len(fields) == self.n_cells:
            return fields
        if len(fields) > self.n_cells and not any(fields[self.n_cells :]):
            self.n_trailing = max(self.n_trailing, len(fields) - self.n_cells)
            return fields[: self.n_cells]
        expected = "header" if self.dialect.has_header else "first row"
        raise ValueError(
            f"{self.name}, line {line}: {len(fields)} fields where the {expected} has {self.n_cells} (delimiter "
            f"{self.dialect.delimiter!r}); complete the line, and quote cells that contain the delimiter"
        )


def _line_end(record: str) -> str:
    return record[len(record.rstrip("\r\n")) :]
