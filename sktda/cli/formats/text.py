"""Delimited text: encoding and delimiter detected, every record kept as it stands in the file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import charset_normalizer
import numpy as np
import pandas as pd

from sktda.cli.formats import ending, write_frame
from sktda.cli.formats.base import Table, check_header, check_width, edited, read_bytes, write_bytes

BYTE_ORDER_MARKS = {  # the longer marks first: UTF-32 begins like UTF-16
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
NO_TEXT = {
    b"\x1f\x8b": "compressed by gzip; rename it to end with .gz",
    b"PK": "a spreadsheet or ZIP archive; save it as CSV",
    b"PAR1": "a Parquet file; rename it to end with .parquet",
}
# in order of preference, for short texts that fit several
ENCODINGS = ["cp1252", "cp1250", "cp1251", "cp932", "gb18030", "euc_kr", "big5", "euc_jp", "cp1253", "cp1254"]
DELIMITERS = {".csv": ",", ".txt": ",", ".tsv": "\t", ".tab": "\t"}  # of what is written anew
HEAD = 1 << 16
ROW_NAMES = "rows have one cell more than the header: the first was taken for the name of the row, as R writes it"
TRAILING = "rows end with a delimiter that the header lacks"


@dataclass(frozen=True, eq=False)
class TextTable(Table):
    """A delimited text file. `records` is the text of each row, line end included.

    names: those of all cells of a row; columns that have neither a name nor cells are not in `cells`.
    """

    path: Path
    cells: pd.DataFrame
    header: str
    records: list[str]
    names: list[str]
    delimiter: str
    encoding: str
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> TextTable:
        """Read with all cells as text. Raises ValueError naming the line that is wrong."""
        text, encoding = _decode(read_bytes(path, partial(_check_first_line, name=path.name)), path.name)
        if not text.strip():
            raise ValueError(f"{path.name} is empty; a header line and at least two rows are needed")
        notes = []
        said = re.match(r"sep=(.)\r?\n", text, re.IGNORECASE)  # as spreadsheets write it
        if said:
            notes.append(f"the first line says that cells are separated by {said[1]!r}, and stays")
        text = text[said.end() :] if said else text
        delimiter = said[1] if said else _find_delimiter(text)
        more = _more_than_header(text, delimiter)
        records = _records(text, delimiter, path.name, 2 if said else 1, more)
        names, header = next(records)
        if more:
            names = ["", *names] if more == ROW_NAMES else [*names, ""]
            notes.append(more)
        check_header([name for name in names if name.strip()], path.name)
        frames, texts = [], []
        while block := list(islice(records, 50_000)):  # a frame takes far less memory than lists of strings
            frames.append(pd.DataFrame([fields for fields, _ in block], dtype=str))
            texts += [record for _, record in block]
        if not texts:
            raise ValueError(f"{path.name} has a header but no rows; at least two rows are needed")
        cells = pd.concat(frames, ignore_index=True)
        nothing = [j for j, name in enumerate(names) if not name.strip() and (cells[j] == "").all()]
        if nothing:
            notes.append("columns that have neither a name nor cells are not used, and stay")
        used = [j for j in range(len(names)) if j not in nothing]
        cells = cells[used].set_axis([names[j] for j in used], axis=1)
        check_header(cells.columns.tolist(), path.name)
        header = (said[0] if said else "") + header
        return cls(path, cells, header, texts, names, delimiter, encoding, tuple(notes))

    @property
    def frame(self) -> pd.DataFrame:
        """All cells as text."""
        return self.cells

    @staticmethod
    def write_frame(frame: pd.DataFrame, path: Path) -> None:
        """Write UTF-8 with the delimiter of the ending, compressed for .gz."""
        delimiter = DELIMITERS[ending(path).removesuffix(".gz")]
        frame.to_csv(path, sep=delimiter, index=False, lineterminator="\n")

    def write(self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame) -> None:
        """Write records as they were read; only relabelled rows and added columns are composed anew."""
        if ending(path).removesuffix(".gz") != ending(self.path).removesuffix(".gz"):
            write_frame(edited(self.frame, rows, target, relabelled, extra), path)
            return
        position = self.names.index(target)
        added = extra.astype(object).where(extra.notna(), "").astype(str).to_numpy().tolist()
        padding = [""] if len(extra.columns) and TRAILING in self.notes else []  # the header lacks a cell
        lines = [self._extended(self.header, [*padding, *extra.columns])]
        for row in rows.tolist():
            record = self.records[row]
            if row in relabelled:
                fields = next(csv.reader([record], delimiter=self.delimiter))
                fields[position] = relabelled[row]
                record = self._composed(fields) + _line_end(record)
            lines.append(self._extended(record, added[row]))
        write_bytes(path, "".join(lines).encode(self.encoding))

    def _composed(self, fields: list[str]) -> str:
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=self.delimiter, lineterminator="").writerow(fields)
        return buffer.getvalue()

    def _extended(self, record: str, fields: list[str]) -> str:
        if not fields:
            return record
        end = _line_end(record)
        return record.removesuffix(end) + self.delimiter + self._composed(fields) + end


def _check_first_line(head: bytes, name: str) -> None:
    """Before the whole file is read: a transposed or wrongly broken one shows in its first line."""
    check_width(1 + max(head.split(b"\n", 1)[0].count(mark) for mark in b",;\t|"), name)


def _decode(data: bytes, name: str) -> tuple[str, str]:
    """(text, encoding); encoding the text again gives the same bytes."""
    mark = next((mark for mark in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    encoding = BYTE_ORDER_MARKS[mark] if mark else "utf-8"
    if mark is None and b"\0" in data:
        encoding = _without_mark(data, name)
    try:
        return data.decode(encoding), encoding
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise ValueError(f"{name} begins like {encoding} but is not: {error}; save it again as UTF-8") from error
    telling = b"\n".join(line for line in data.splitlines() if not line.isascii())[:HEAD]
    guesses = charset_normalizer.from_bytes(telling, cp_isolation=ENCODINGS)
    for guess in sorted(guesses, key=lambda g: (g.chaos, -g.coherence, ENCODINGS.index(g.encoding))):
        try:
            text = data.decode(guess.encoding)
            if text.encode(guess.encoding) == data:
                return text, guess.encoding
        except UnicodeError:  # the sample fitted, a later line does not
            continue
    return data.decode("latin-1"), "latin-1"  # never fails


def _without_mark(data: bytes, name: str) -> str:
    """UTF-16 without a byte order mark: every other byte of what is mostly ASCII is zero."""
    for encoding, zeros, others in (("utf-16-le", data[1::2], data[::2]), ("utf-16-be", data[::2], data[1::2])):
        if zeros.count(0) > len(zeros) / 2 and 0 not in others:
            return encoding
    found = next((what for start, what in NO_TEXT.items() if data.startswith(start)), "not text: it has zero bytes")
    raise ValueError(f"{name} is {found}")


def _find_delimiter(text: str) -> str:
    """The delimiter under which most records are as long as the header; ties go to the longer header.

    csv.Sniffer is not used: it takes letters for delimiters where a file has one column.
    """
    head = list(islice(io.StringIO(text[:HEAD], newline=""), 500))
    best, best_key = ",", (0.0, 1)
    for delimiter in ",;\t| ":
        lengths = [len(fields) for fields in csv.reader(head, delimiter=delimiter) if fields]
        lengths = lengths[:1] + lengths[1:-1] if len(text) > HEAD else lengths  # the last one is cut off
        if not lengths or lengths[0] == 1:
            continue
        if _more_than_header(text, delimiter):
            lengths[0] += 1
        key = (float(np.mean([length == lengths[0] for length in lengths])), lengths[0])
        if delimiter == " " and (best_key[0] or key[0] < 1):  # spaces are common inside cells
            continue
        if key > best_key:
            best, best_key = delimiter, key
    return best


def _more_than_header(text: str, delimiter: str) -> str:
    """TRAILING or ROW_NAMES where all rows at the beginning have one cell more than the header, and look like that."""
    head = list(islice(io.StringIO(text[:HEAD], newline=""), 500))
    records = [fields for fields in csv.reader(head, delimiter=delimiter) if fields]
    header, *rows = records[: -1 if len(text) > HEAD else None] or [[]]  # the last one is cut off
    if not rows or any(len(fields) != len(header) + 1 for fields in rows):
        return ""
    if not any(fields[-1] for fields in rows):
        return TRAILING
    # a decimal comma would look the same, but R quotes its header
    quoted = text.lstrip().startswith('"') and len({fields[0] for fields in rows}) == len(rows)
    return ROW_NAMES if quoted else ""


def _records(
    text: str, delimiter: str, name: str, first_line: int = 1, more: str = ""
) -> Iterator[tuple[list[str], str]]:
    """(fields, text) of every record, the header first. A quoted cell may span lines; blank lines are skipped.

    first_line: number of the first line of `text` in the file; more: rows have one cell more than the header.
    """
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a cell may hold a book
    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    expected, offset = 0, first_line
    try:
        for fields in reader:
            if fields:
                expected = expected or len(fields)
                if len(fields) != expected:
                    raise ValueError(
                        f"{name}, line {first_line}: {len(fields)} fields where the header has {expected} (delimiter "
                        f"{delimiter!r}); complete the line, and quote cells that contain the delimiter"
                    )
                yield fields, "".join(taken)
                if more:
                    expected, more = expected + 1, ""
            taken.clear()
            first_line = reader.line_num + offset
    except csv.Error as error:
        raise ValueError(
            f"{name}, line {first_line}: {error}; a quoted cell ends with a quote before the next {delimiter!r} or "
            'line end, and quotes inside it are doubled ("")'
        ) from error


def _line_end(record: str) -> str:
    return record[len(record.rstrip("\r\n")) :]
