"""What formats there are: their endings, their first bytes and what they can hold; all others ask here."""

from __future__ import annotations

import io
import json
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from sktda.files import STANDARD

COMPRESSIONS = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ", ".zst": b"\x28\xb5\x2f\xfd", ".zip": b"PK"}
NOT_A_TABLE = {
    b"%PDF": "a PDF file; export its table as CSV",
    b"{\\rtf": "a document of a word processor; export its table as CSV",
    b"<": "a web page or XML file; export its table as CSV",
    b"\x93NUMPY": "a single array; write X and y with numpy.savez",
    b"\x80": "a pickle, which is never read; write CSV or Parquet",
    b"\x89HDF": "an HDF5 file; export its table as CSV or Parquet",
}
LIBSVM = "a LIBSVM file; read it with sklearn.datasets.load_svmlight_file and write X and y with numpy.savez as .npz"
OTHER_PROGRAMS = {  # endings that people try, and what to do
    (".sav", ".zsav", ".por"): "an SPSS file; save it there as .csv or .dta (Stata)",
    (".sas7bdat", ".xpt", ".sas7bcat"): "a SAS file; write pandas.read_sas(...) as .csv or .parquet",
    (".rds", ".rda", ".rdata"): "a file of R's; write the table there with write.csv",
    (".pkl", ".pickle", ".joblib"): "a pickle, which is never read; write .csv or .parquet",
    (".h5", ".hdf5", ".hdf"): "an HDF5 file; export its table as .csv or .parquet",
    (".npy", ".mat"): "an array without names; write X and y with numpy.savez as .npz",
    (".svm", ".libsvm", ".svmlight"): LIBSVM,
    (".tar", ".tgz", ".7z", ".rar", ".z", ".lz4", ".br"): "an archive of a kind that is not read; extract it",
    (".xml", ".html", ".htm"): "a web page or XML file; export its table as .csv",
    (".pdf", ".doc", ".docx"): "a document; export its table as .csv",
    (".numbers",): "a file of Numbers; export it as .csv or .xlsx",
    (".mdb", ".accdb"): "an Access database; export its table as .csv",
    (".geojson",): "GeoJSON; rename it to end with .json",
}


class Format(NamedTuple):
    """Endings of file names, and the class that reads and writes such files, by name: it is imported when used.

    starts: first bytes, of any file of it. is_table: a `base.Table`, so that other tables can be written as it. alike:
    with all its endings it is the same; nested: its cells can be lists and objects; in_parts: it can be read and
    written without being held.
    """

    endings: tuple[str, ...]
    module: str
    source: str
    starts: tuple[bytes, ...] = ()
    is_table: bool = True
    is_written: bool = True
    alike: bool = False
    nested: bool = False
    in_parts: bool = False

    def load(self) -> Any:
        """The class."""
        return getattr(import_module(f"{__package__}.{self.module}"), self.source)


FORMATS = (
    Format((".csv", ".tsv", ".txt", ".tab", ".psv", ".data", ".dat"), "text", "TextTable"),
    Format((".jsonl", ".ndjson"), "lines", "LineTable", alike=True, nested=True),
    Format((".json",), "lines", "RecordTable", nested=True),
    Format((".xlsx",), "sheets", "ExcelTable"),
    Format((".ods",), "sheets", "OpenDocumentTable"),
    Format((".xls", ".xlsb", ".xlsm"), "sheets", "ExcelTable", (b"\xd0\xcf\x11\xe0",), is_written=False),
    Format((".parquet", ".pq"), "arrow", "ParquetTable", (b"PAR1",), alike=True, nested=True, in_parts=True),
    Format((".feather", ".arrow", ".ipc"), "arrow", "FeatherTable", (b"ARROW1", b"FEA1"), alike=True, nested=True),
    Format((".arff",), "arff", "ArffTable"),
    Format((".sqlite", ".sqlite3", ".db"), "sqlite", "SqliteTable", (b"SQLite format 3\0",), alike=True),
    Format((".dta",), "stata", "StataTable", is_written=False),
    Format((".npz",), "arrays", "ArrayFile", is_table=False),
)
PLAIN = ".csv"
"""What text without an ending is taken for, and what goes to standard output where nothing else is due."""


def with_ending(end: str) -> Format | None:
    """The format of an ending, without that of a compression; None where there is none."""
    return next((format for format in FORMATS if end in format.endings), None)


def same_form(one: str, other: str) -> bool:
    """Whether what has one ending is as it stands what the other ending says."""
    found = with_ending(one)
    return one == other or (found is not None and found.alike and other in found.endings)


def comes_in_parts(path: Path) -> bool:
    """Whether a file is to be of a format that can be read and written without being held; compressed it can not."""
    found = with_ending(path.suffix.lower())
    return found is not None and found.in_parts


def ending(path: Path) -> str:
    """The ending that names the format, in lower case: `.csv.gz` for `Data.CSV.gz`."""
    last = [suffix.lower() for suffix in path.suffixes[-2:]]
    return "".join(last if last[-1:] and last[-1] in COMPRESSIONS else last[-1:])


def plain_ending(path: Path) -> str:
    """The ending without that of the compression: `.csv` for `data.csv.gz`, nothing for `data.gz`."""
    return "".join(suffix for suffix in Path(f"x{ending(path)}").suffixes if suffix not in COMPRESSIONS)


def named(path: Path) -> Format | None:
    """The format that the name of a file says; None where its ending is unknown."""
    return with_ending(plain_ending(path))


def _listed(endings: list[str]) -> str:
    return f"{', '.join(endings)}, each also with {', '.join(COMPRESSIONS)}"


def format_of(path: Path) -> Format:
    """The format of a file by its ending; raises ValueError for an ending that is unknown."""
    found = named(path)
    if found is None:
        allowed = _listed([end for format in FORMATS for end in format.endings])
        raise ValueError(f"{path.name} has the unknown ending {ending(path)!r}; allowed are {allowed}")
    return found


def table_endings() -> list[str]:
    """The endings that any table can be written with, each also compressed."""
    return [end for format in FORMATS if format.is_table and format.is_written for end in format.endings]


def check_ending(path: Path, data: Path | None = None) -> None:
    """Raise ValueError unless a table, or the data that come from the file `data`, can be written with this ending."""
    own = named(data) if data is not None and not data.is_dir() else None
    allowed = table_endings() if own is None or own.is_table else list(own.endings)
    if own is None and data is not None and not data.is_dir():  # what it holds is only known once it is read
        allowed = [end for format in FORMATS if format.is_written for end in format.endings]
    if path != STANDARD and plain_ending(path) not in allowed:
        raise ValueError(f"the output {path} has an unknown ending; allowed are {_listed(allowed)}")


def of_other_program(path: Path) -> str:
    """What a file is by an ending that is known but not read, and what to do; "" for all others."""
    return next((what for ends, what in OTHER_PROGRAMS.items() if {*map(str.lower, path.suffixes[-2:])} & {*ends}), "")


def of_archive(data: bytes) -> str:
    """The format whose files are ZIP archives, by what is in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if "xl/workbook.xml" in names:
                return ".xlsx"
            if "mimetype" in names and b"opendocument.spreadsheet" in archive.read("mimetype"):
                return ".ods"
            return ".npz" if names and all(name.endswith(".npy") for name in names) else ""
    except (zipfile.BadZipFile, NotImplementedError):
        return ""


def kind_of(data: bytes, name: str, given: str = "") -> str:
    """The ending for what the bytes hold. Raises ValueError for what is no table."""
    if data.startswith(b"PK"):
        found = of_archive(data)
        if found:
            return found
        raise ValueError(f"{name} is a ZIP archive; rename it to end with .zip")
    for format in FORMATS:
        if data.startswith(format.starts):
            return format.endings[0]
    for compression, start in COMPRESSIONS.items():
        if data.startswith(start):
            raise ValueError(f"{name} is compressed; rename it to end with {compression}")
    text = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, what in NOT_A_TABLE.items():
        if text.startswith(start):
            raise ValueError(f"{name} is {what}")
    if text.startswith(b"{"):
        return ".jsonl" if _is_object(text.split(b"\n", 1)[0]) else ".json"
    if text.startswith(b"[") and text[1:].lstrip()[:1] in (b"{", b"]"):
        return ".json"
    lines = (line for line in text.splitlines() if not line.startswith(b"%"))
    if next(lines, b"").lower().startswith(b"@relation"):
        return ".arff"
    if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")) and data.count(b"\0") < len(data) / 4:
        raise ValueError(f"{name} is in no format that is known here{f' ({given})' if given else ''}; export it as CSV")
    return PLAIN


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
