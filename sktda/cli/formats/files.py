"""Files as bytes: compressed or not, from standard input."""

from __future__ import annotations

import bz2
import gzip
import io
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

from sktda.cli.formats.known import COMPRESSIONS, ending, kind_of, named, of_archive, plain_ending, with_ending
from sktda.files import STANDARD

HIDDEN = re.compile(r"(^|/)(__MACOSX/|\.[^/]*$)")
DESCRIPTION = re.compile(r"(^|/)(readme|licen[cs]e|notes?|changelog)[^/]*$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Input:
    """A file that is read once. name: as messages show it; ending: that of its format, without the compression."""

    name: str
    ending: str
    opened: Callable[[], IO[bytes]]
    path: Path | None = None
    note: str = ""

    @classmethod
    def of(cls, path: Path) -> Input:
        """A file, or standard input. The ending says what it is where it is known, else its first bytes do.

        Raises ValueError or OSError with one sentence for what is wrong with it.
        """
        if path == STANDARD:
            data = sys.stdin.buffer.read()
            source = cls("standard input", "", lambda: io.BytesIO(data))
            compression = next((end for end, start in COMPRESSIONS.items() if data.startswith(start)), "")
            if compression == ".zip" and of_archive(data):
                compression = ""
        else:
            if not path.is_file():
                raise FileNotFoundError(f"{path} does not exist or is not a file; check the path")
            source = cls(path.name, plain_ending(path), lambda: path.open("rb"), path)
            compression = ending(path).removeprefix(source.ending)
        if compression:
            source = _decompressed(source, compression)
        if with_ending(source.ending) is None:
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


def _decompressed(source: Input, compression: str) -> Input:
    if compression == ".zip":
        return _member(source)

    def opened() -> IO[bytes]:
        file: Any = source.path or source.opened()
        if compression == ".zst":
            import pyarrow as pa

            return pa.input_stream(str(file) if source.path else file, compression="zstd")  # type: ignore[no-any-return]
        return {".gz": gzip, ".bz2": bz2, ".xz": lzma}[compression].open(file)  # type: ignore[attr-defined, no-any-return]

    return Input(source.name, source.ending, opened)


def _member(source: Input) -> Input:
    """The one file of a ZIP archive, or the one table in it beside descriptions; what a Mac adds does not count."""
    data = source.read()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir() and not HIDDEN.search(e.filename)]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{source.name} is not a whole ZIP archive ({error}); compress it again") from error
    names, note = [entry.filename for entry in entries], ""
    tables = [e for e in entries if named(Path(e.filename)) and not DESCRIPTION.search(e.filename)]
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
