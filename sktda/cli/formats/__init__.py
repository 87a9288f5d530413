"""Data on disk: one file per format, and one table of the formats (`known`).

A format is a `Source` (see `base`) in a file of this folder, and a line of FORMATS there. Rows that stay are written
exactly as they were read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sktda.cli.formats.files import STANDARD, Input
from sktda.cli.formats.known import Format, format_of, named, of_other_program, plain_ending

if TYPE_CHECKING:
    import pandas as pd

    from sktda.cli.formats.base import Reading, Source


def read_source(
    path: Path, reading: Reading | None = None, progress: Callable[[str], None] = lambda text: None
) -> Source:
    """Read a file by its ending or its first bytes, a folder of images or of a data set, or standard input for `-`.

    Raises ValueError or OSError with one sentence for what is wrong with it.
    """
    from sktda.cli.formats.base import Reading

    reading = reading or Reading()
    path = _of_data_set(path)
    if path.is_dir():
        from sktda.cli.formats.images import read_images

        return read_images(path, reading, progress)
    if path.is_file() and named(path) is None and (what := of_other_program(path)):
        raise ValueError(f"{path.name} is {what}")
    if not _might_be_table(path):
        format_of(path)  # says which endings are allowed
    file = Input.of(path)
    found = format_of(Path(f"x{file.ending}"))
    _check_reading(reading, found, file.name)
    source: Source = found.load().read(file, reading)
    return replace(source, notes=(file.note, *source.notes)) if file.note else source  # type: ignore[type-var]


def _of_data_set(path: Path) -> Path:
    """The one file of a folder that `save_to_disk` of Hugging Face's datasets wrote; any other path as it is."""
    if (path / "dataset_dict.json").is_file():
        parts = sorted(part.parent.name for part in path.glob("*/dataset_info.json"))
        raise ValueError(f"{path.name} holds the data sets {', '.join(parts)}; name one of them, {path / parts[0]}")
    if not (path / "dataset_info.json").is_file():
        return path
    files = sorted(path.glob("*.arrow"))
    if len(files) != 1:
        raise ValueError(
            f"{path.name} is a data set of {len(files)} files; write one with datasets.load_from_disk({str(path)!r})"
            ".to_parquet('data.parquet')"
        )
    return files[0]


def _might_be_table(path: Path) -> bool:
    """Whether the first bytes are asked where the ending is unknown: not for a picture or a program."""
    end = plain_ending(path)
    return path == STANDARD or not path.is_file() or not end[1:].isalpha() or named(path) is not None


def _check_reading(reading: Reading, found: Format, name: str) -> None:
    """Refuse options that would do nothing."""
    if reading.part is not None and found.module not in ("sheets", "sqlite"):
        raise ValueError(f"--sheet and --table are for spreadsheets and databases; {name} has one table")
    if reading.query is not None and found.module != "sqlite":
        raise ValueError(f"--query is for SQLite databases; {name} is none")
    if reading.header is False and found.module not in ("text", "sheets"):
        raise ValueError(f"--no-header is for text and spreadsheets; the columns of {name} have names")
    if reading.labels is not None or reading.level is not None:
        raise ValueError(f"--labels and --label-level are for folders of images; {name} is a file")


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a DataFrame without its index as the ending says; one of `table_endings`."""
    format_of(path).load().write_frame(frame, path)
