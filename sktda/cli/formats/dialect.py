"""How a text was written: its encoding, its delimiter, what stands above its header."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from sktda.cli.formats.header import has_header, is_number

BYTE_ORDER_MARKS = {  # the longer marks first: UTF-32 begins like UTF-16
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
NO_TEXT = {
    b"\x1f\x8b": "compressed by gzip; rename it to end with .gz",
    b"PK": "a spreadsheet or ZIP archive; rename it to end with .xlsx, .ods or .zip",
    b"PAR1": "a Parquet file; rename it to end with .parquet",
}
# in order of preference, for short texts that fit several
ENCODINGS = ["cp1252", "cp1250", "cp1251", "cp932", "gb18030", "euc_kr", "big5", "euc_jp", "cp1253", "cp1254"]
DELIMITERS = ",;\t|^~\x01\x1f"
HEAD = 1 << 16
COMMENT = re.compile(r"[ \t]*(#|%|//)(?!\s*[,;\t|])")  # a column may be called #
MAX_TITLES = 20


@dataclass(frozen=True)
class Dialect:
    """delimiter: one character; runs: any number of spaces and tabs delimits cells; spaced: quotes follow a space.

    preamble: what stands above the header, as it is in the file; row_names: rows begin with a cell that the header
    lacks; header: the names, where they stand in a comment; has_header: whether the first line holds names.
    """

    delimiter: str = ","
    runs: bool = False
    spaced: bool = False
    preamble: str = ""
    row_names: bool = False
    header: tuple[str, ...] = ()
    has_header: bool = True
    notes: tuple[str, ...] = ()

    def parse(self, line: str) -> list[str]:
        """The cells of one record."""
        return next(csv.reader(io.StringIO(self.plain(line), newline=""), **self.options), [])

    def plain(self, line: str) -> str:
        """A line as the csv module reads it."""
        return line.replace("\t", " ").strip() + "\n" if self.runs else line

    @property
    def options(self) -> dict[str, Any]:
        """For the csv module."""
        return {"delimiter": self.delimiter, "skipinitialspace": self.runs or self.spaced}

    def records(self, text: str) -> list[list[str]]:
        """The first records of a text."""
        lines = islice(io.StringIO(text[:HEAD], newline=""), 500)
        found = [fields for fields in csv.reader(map(self.plain, lines), **self.options) if fields]
        return found[: -1 if len(text) > HEAD else None]  # the last one is cut off


def decode(data: bytes, name: str) -> tuple[str, str]:
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
    import charset_normalizer  # only what is no UTF-8 pays for it

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


def two_encodings(data: bytes) -> bool:
    """Whether some lines beyond ASCII are UTF-8 and others are not, as where files were put together."""
    telling = [line for line in data[: 1 << 22].splitlines() if not line.isascii()]
    n_utf8 = sum(_is_utf8(line) for line in telling)
    return 0 < n_utf8 < len(telling)


def _is_utf8(line: bytes) -> bool:
    try:
        return bool(line.decode())
    except UnicodeDecodeError:
        return False


def _without_mark(data: bytes, name: str) -> str:
    """UTF-16 without a byte order mark: every other byte of what is mostly ASCII is zero."""
    for encoding, zeros, others in (("utf-16-le", data[1::2], data[::2]), ("utf-16-be", data[::2], data[1::2])):
        if zeros.count(0) > len(zeros) / 2 and 0 not in others:
            return encoding
    found = next((what for start, what in NO_TEXT.items() if data.startswith(start)), "not text: it has zero bytes")
    raise ValueError(f"{name} is {found}")


def find_dialect(text: str, header: bool | None, named: tuple[str, ...]) -> Dialect:
    """How a text was written.

    header: whether the user says that it has one; named: columns that the user named.
    """
    preamble, notes = "", []
    said = re.match(r"sep=(.)\r?\n", text, re.IGNORECASE)  # as spreadsheets write it
    if said:
        preamble = said[0]
        notes.append(f"the first line says that cells are separated by {said[1]!r}, and stays")
    comments = _comments(text[len(preamble) :])
    preamble += "".join(comments)
    dialect = Dialect(said[1]) if said else _delimiter(text[len(preamble) :])
    titles = _titles(text[len(preamble) :], dialect) if header is None else []
    preamble += "".join(titles)
    records = dialect.records(text[len(preamble) :])
    dialect = replace(dialect, preamble=preamble)
    above = [line for line in comments + titles if line.strip()]
    names = _commented(comments, records, dialect)
    known = bool(records) and {name.strip() for name in named} & {cell.strip() for cell in records[0]}
    if header is None and records and not known:
        header = has_header(records[0], records[1:])
        header = not names if header is None else header
        if not header and not names:
            notes.append(
                f"the first line {_short(records[0])} is taken for a row, as it looks like those below; columns are "
                "called 'column 1' and so on (--header says that it holds names)"
            )
    dialect = replace(dialect, has_header=header is not False)
    if names and not dialect.has_header:
        dialect = replace(dialect, header=tuple(names))
        notes.append(f"the names of the columns were taken from the comment above them: {_short(names)}")
    elif above:
        notes.append(f"lines above the header are no rows, and stay ({len(above)}, such as {above[0].strip()[:60]!r})")
    if dialect.has_header and _names_rows(records, dialect, text[len(preamble) :]):
        dialect = replace(dialect, row_names=True)
        notes.append(
            "rows have one cell more than the header: the first was taken for the name of the row, as R writes it"
        )
    return replace(dialect, notes=tuple(notes))


def _short(cells: list[str]) -> str:
    shown = ", ".join(cells[:4]) + (", ..." if len(cells) > 4 else "")
    return repr(shown if len(shown) <= 60 else f"{shown[:57]}...")


def _comments(text: str) -> list[str]:
    """Lines of comments, and blank ones among them, at the beginning; none where all lines look so."""
    found: list[str] = []
    for line in io.StringIO(text, newline=""):
        if line.strip() and not COMMENT.match(line):
            while found and not found[-1].strip():  # blank lines are skipped in any case
                found.pop()
            return found if any(COMMENT.match(line) for line in found) else []
        found.append(line)
    return []


def _commented(comments: list[str], records: list[list[str]], dialect: Dialect) -> list[str]:
    """The names of the columns where the last comment has as many cells as the rows, as NumPy writes it."""
    if not comments or not records:
        return []
    cells = [cell.strip() for cell in dialect.parse(COMMENT.sub("", comments[-1], count=1).strip())]
    fits = len(cells) == len(records[0]) > 1 and all(cells) and not any(map(is_number, cells))
    return cells if fits else []


def _delimiter(text: str) -> Dialect:
    """The delimiter under which most records are equally long; ties go to the longer header.

    csv.Sniffer is not used: it takes letters for delimiters where a file has one column.
    """
    best, best_key = Dialect(), (0.0, 1)
    dialects = [Dialect(delimiter) for delimiter in DELIMITERS]
    dialects += [replace(each, spaced=True) for each in dialects if f'{each.delimiter} "' in text[:HEAD]]
    for dialect in dialects:
        below = text[sum(map(len, _titles(text, dialect))) :]
        records = dialect.records(below)
        if not records or len(records[0]) == 1:
            continue
        expected = len(records[0]) + _names_rows(records, dialect, below)
        fits = [len(fields) == expected or not any(fields[expected:] or "x") for fields in records[1:]]
        key = (float(np.mean([True, *fits])), expected)
        if key > best_key:
            best, best_key = dialect, key
    if best_key[0]:
        return best
    for dialect in (Dialect(" "), Dialect(" ", runs=True)):  # spaces are common inside cells
        records = dialect.records(text)
        lengths = [len(fields) for fields in records]
        lengths[:1] = [length + _names_rows(records, dialect, text) for length in lengths[:1]]
        if len(lengths) > 1 and lengths[0] > 1 and len(set(lengths)) == 1:
            return dialect
    return best


def _titles(text: str, dialect: Dialect) -> list[str]:
    """Lines with one cell at most, above what is then clearly a header: names, and numbers below them."""
    lines = list(islice(io.StringIO(text[:HEAD], newline=""), MAX_TITLES + 1))
    n_titles = 0
    while n_titles < len(lines) and sum(bool(cell.strip()) for cell in dialect.parse(lines[n_titles])) <= 1:
        n_titles += 1
    titles = lines[:n_titles]
    if not any(line.strip() for line in titles) or n_titles > MAX_TITLES or any('"' in line for line in titles):
        return []
    header, *rows = dialect.records(text[sum(map(len, titles)) :]) or [[]]
    if len(header) < 2 or not rows or any(len(fields) != len(header) for fields in rows):
        return []
    named = all(cell.strip() and not is_number(cell) for cell in header) and len(set(header)) == len(header)
    return titles if named and any(is_number(cell) for fields in rows for cell in fields) else []


def _names_rows(records: list[list[str]], dialect: Dialect, text: str) -> bool:
    """Whether all rows have one cell more than the header because they begin with a name, as R writes it."""
    header, *rows = records or [[]]
    if not rows or any(len(fields) != len(header) + 1 for fields in rows) or not any(fields[-1] for fields in rows):
        return False
    first = [fields[0] for fields in rows]
    if len(set(first)) < len(first):
        return False
    # a decimal comma would look the same, but R quotes its header
    if text.lstrip().startswith('"') or dialect.delimiter == "\t":
        return True
    return dialect.delimiter == " " and first in ([str(i) for i in range(k, k + len(first))] for k in (0, 1))
