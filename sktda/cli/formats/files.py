"""Files as bytes: compressed or not, from standard input, and what they hold by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

STANDARD = Path("-")  # standard input or output
COMPRESSIONS = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ", ".zst": b"\x28\xb5\x2f\xfd", ".zip": b"PK"}
STARTS = {
    b"PAR1": ".parquet",
    b"ARROW1": ".feather",
    b"FEA1": ".feather",
    b"SQLite format 3\0": ".sqlite",
    b"\xd0\xcf\x11\xe0": ".xls",
}
NOT_A_TABLE = {
    b"%PDF": "a PDF file; export its table as CSV",
    b"{\\rtf": "a document of a word processor; export its table as CSV",
    b"<": "a web page or XML file; export its table as CSV",
    b"\x93NUMPY": "a single array; write X and y with numpy.savez",
    b"\x80": "a pickle, which is never read; write CSV or Parquet",
    b"\x89HDF": "an HDF5 file; export its table as CSV or Parquet",
}
HIDDEN = re.compile(r"(^|/)(__MACOSX/|\.[^/]*$)")
DESCRIPTION = re.compile(r"(^|/)(readme|licen[cs]e|notes?|changelog)[^/]*$", re.IGNORECASE)
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


def of_other_program(path: Path) -> str:
    """What a file is by an ending that is known but not read, and what to do; "" for all others."""
    return next((what for ends, what in OTHER_PROGRAMS.items() if {*map(str.lower, path.suffixes[-2:])} & {*ends}), "")


def ending(path: Path) -> str:
    """The ending that names the format, in lower case: `.csv.gz` for `Data.CSV.gz`."""
    last = [suffix.lower() for suffix in path.suffixes[-2:]]
    return "".join(last if last[-1:] and last[-1] in COMPRESSIONS else last[-1:])


def plain_ending(path: Path) -> str:
    """The ending without that of the compression: `.csv` for `data.csv.gz`, nothing for `data.gz`."""
    return "".join(suffix for suffix in Path(f"x{ending(path)}").suffixes if suffix not in COMPRESSIONS)


@dataclass(frozen=True, eq=False)
class Input:
    """A file that is read once. name: as messages show it; ending: that of its format, without the compression."""

    name: str
    ending: str
    opened: Callable[[], IO[bytes]]
    path: Path | None = None
    note: str = ""

    @classmethod
    def of(cls, path: Path, known: Callable[[str], bool]) -> Input:
        """A file, or standard input. The ending says what it is where it is `known`, else its first bytes do.

        Raises ValueError or OSError with one sentence for what is wrong with it.
        """
        if path == STANDARD:
            data = sys.stdin.buffer.read()
            source = cls("standard input", "", lambda: io.BytesIO(data))
            compression = next((end for end, start in COMPRESSIONS.items() if data.startswith(start)), "")
            if compression == ".zip" and _of_archive(data):
                compression = ""
        else:
            if not path.is_file():
                raise FileNotFoundError(f"{path} does not exist or is not a file; check the path")
            source = cls(path.name, plain_ending(path), lambda: path.open("rb"), path)
            compression = ending(path).removeprefix(source.ending)
        if compression:
            source = _decompressed(source, compression, known)
        if not known(source.ending):
            with source.opened() as file:
                found = kind_of(source.read() if file.read(2) == b"PK" else source.head, source.name, source.ending)
            source = replace(source, ending=found)
        return source

    @cached_property
    def head(self) -> bytes:
        """The first bytes."""
        with self.opened() as file:
            return self._safely(lambda: file.read(1 << 16))

    def read(self, look: Callable[[bytes], None] = lambda head: None) -> bytes:
        """All bytes; `look` may refuse the file by its beginning."""

        def everything() -> bytes:
            with self.opened() as file:
                head = file.read(1 << 20)
                look(head)
                return head + file.read()

        return self._safely(everything)

    def _safely(self, read: Callable[[], bytes]) -> bytes:
        try:
            return read()
        except (
            EOFError,
            gzip.BadGzipFile,
            zlib.error,
            lzma.LZMAError,
            zipfile.BadZipFile,
            OSError,
            NotImplementedError,
        ) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"{self.name} is not a whole compressed file ({error}); compress it again") from error


def _decompressed(source: Input, compression: str, known: Callable[[str], bool]) -> Input:
    if compression == ".zip":
        return _member(source, known)

    def opened() -> IO[bytes]:
        file: Any = source.path or source.opened()
        if compression == ".zst":
            import pyarrow as pa

            return pa.input_stream(str(file) if source.path else file, compression="zstd")  # type: ignore[no-any-return]
        return {".gz": gzip, ".bz2": bz2, ".xz": lzma}[compression].open(file)  # type: ignore[attr-defined, no-any-return]

    return Input(source.name, source.ending, opened)


def _member(source: Input, known: Callable[[str], bool]) -> Input:
    """The one file of a ZIP archive, or the one table in it beside descriptions; what a Mac adds does not count."""
    data = source.read()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir() and not HIDDEN.search(e.filename)]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{source.name} is not a whole ZIP archive ({error}); compress it again") from error
    names, note = [entry.filename for entry in entries], ""
    tables = [e for e in entries if known(plain_ending(Path(e.filename))) and not DESCRIPTION.search(e.filename)]
    if len(tables) == 1 < len(entries):
        entries, left_out = tables, [name for name in names if name != tables[0].filename]
        names = [tables[0].filename]
        note = f"{names[0]} of {source.name} was read; it also holds {', '.join(left_out[:5])}"
    if len(names) != 1:
        raise ValueError(
            f"{source.name} holds {len(names)} files ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}); "
            "one table is read: extract it"
        )
    if entries[0].flag_bits & 1:
        raise ValueError(f"{source.name} is protected by a password; extract it first")
    found = plain_ending(Path(names[0])) or source.ending
    return Input(source.name, found, lambda: zipfile.ZipFile(io.BytesIO(data)).open(names[0]), note=note)


def _of_archive(data: bytes) -> str:
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
        found = _of_archive(data)
        if found:
            return found
        raise ValueError(f"{name} is a ZIP archive; rename it to end with .zip")
    for start, found in STARTS.items():
        if data.startswith(start):
            return found
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
    return ".csv"


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes, compressed as the name says; the same bytes give the same file."""
    match path.suffix.lower():
        case ".gz":
            data = gzip.compress(data, mtime=0)
        case ".bz2":
            data = bz2.compress(data)
        case ".xz":
            data = lzma.compress(data)
        case ".zst":
            import pyarrow as pa

            data = pa.compress(data, codec="zstd", asbytes=True)
        case ".zip":
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(zipfile.ZipInfo(f"data{plain_ending(path)}"), data, zipfile.ZIP_DEFLATED)
            data = packed.getvalue()
    path.write_bytes(data)
