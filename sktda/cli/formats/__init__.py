"""Data on disk: one file per format, and one table of the endings that lead to it.

A format is a `Source` (see `base`) in a file of this folder, and a line of FORMATS. Rows that stay are written exactly
as they were read.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

    from sktda.cli.formats.base import Source


class Format(NamedTuple):
    """Endings of file names, and the class that reads and writes such files, by name: it is imported when used."""

    endings: tuple[str, ...]
    module: str
    source: str
    gzipped: bool = False  # each ending also with .gz
    is_table: bool = True  # a `base.Table`, so that other tables can be written as it

    @property
    def all_endings(self) -> tuple[str, ...]:
        return self.endings + tuple(f"{end}.gz" for end in self.endings if self.gzipped)

    def load(self) -> Any:
        """The class."""
        return getattr(import_module(f"{__name__}.{self.module}"), self.source)


FORMATS = (
    Format((".csv", ".txt", ".tsv", ".tab"), "text", "TextTable", gzipped=True),
    Format((".jsonl", ".ndjson"), "lines", "LineTable", gzipped=True),
    Format((".parquet", ".pq"), "parquet", "ParquetTable"),
    Format((".npz",), "arrays", "ArrayFile", is_table=False),
)


def ending(path: Path) -> str:
    """The ending that names the format, in lower case: `.csv.gz` for `Data.CSV.gz`."""
    last = [suffix.lower() for suffix in path.suffixes[-2:]]
    return "".join(last if last[-1:] == [".gz"] else last[-1:])


def format_of(path: Path) -> Format:
    """The format of a file by its ending; raises ValueError for an ending that is unknown."""
    for format in FORMATS:
        if ending(path) in format.all_endings:
            return format
    allowed = ", ".join(end for format in FORMATS for end in format.all_endings)
    raise ValueError(
        f"{path.name} has the unknown ending {ending(path)!r}; allowed are {allowed}, and a folder of class folders of "
        "images"
    )


def table_endings() -> list[str]:
    """The endings that any table can be written with."""
    return [end for format in FORMATS if format.is_table for end in format.all_endings]


def output_endings(data: Path) -> list[str]:
    """The endings that the cleaned data can have: those of its own format, or of any table where it is one."""
    own = None if data.is_dir() else format_of(data)
    return table_endings() if own is None or own.is_table else list(own.all_endings)


def read_source(path: Path, size: int = 64, progress: Callable[[str], None] = lambda text: None) -> Source:
    """Read a file by its ending, or a folder of images, which are resized to `size` pixels.

    Raises ValueError or OSError with one sentence for what is wrong with it.
    """
    if path.is_dir():
        from sktda.cli.formats.images import ImageListing

        return ImageListing.read(path, size, progress)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file; check the path")
    source: Source = format_of(path).load().read(path)
    return source


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a DataFrame without its index as the ending says; one of `table_endings`."""
    format_of(path).load().write_frame(frame, path)
