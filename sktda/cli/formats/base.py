"""What a format is, and what formats share."""

from __future__ import annotations

import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

MAX_COLUMNS = 100_000


class Source(ABC):
    """Rows that were read from a file or folder."""

    default_index: ClassVar[str | None] = None
    """The column that names the rows where the user names none."""

    notes: tuple[str, ...] = ()
    """What was assumed while reading, one sentence each."""

    @property
    @abstractmethod
    def frame(self) -> pd.DataFrame:
        """One row per data row, indexed from 0: the columns that a user can name."""

    @property
    def X(self) -> np.ndarray | None:
        """Numeric features (n, ...), or None where they are made from the columns."""
        return None

    @property
    def picture(self) -> Callable[[int], Any] | None:
        """row -> PIL image, or None where rows are no pictures."""
        return None

    @abstractmethod
    def write(self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame) -> None:
        """Write the rows at these positions, exactly as they were read where `path` has the format of the source.

        relabelled: {position: label} in place of those of the column `target`; extra (n, k): columns that are added.
        """


class Table(Source):
    """A file of rows and columns, in a format that can hold any table."""

    @classmethod
    @abstractmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises ValueError with one sentence for what is wrong with it, and where."""

    @staticmethod
    @abstractmethod
    def write_frame(frame: pd.DataFrame, path: Path) -> None:
        """Write a DataFrame without its index."""


def read_bytes(path: Path, look: Callable[[bytes], None] = lambda head: None) -> bytes:
    """The bytes of a file, which is gzipped where its name ends with .gz; `look` may refuse it by its beginning."""
    try:
        with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
            head: bytes = file.read(1 << 20)
            look(head)
            return head + file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path.name} is not a whole gzip file ({error}); compress it again") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes, gzipped where the name ends with .gz."""
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.lower().endswith(".gz") else data)


def check_width(n_columns: int, name: str) -> None:
    """Refuse files that are transposed or lack line breaks before they fill the memory."""
    if n_columns > MAX_COLUMNS:
        raise ValueError(
            f"{name} has more than {MAX_COLUMNS:,} columns; is it transposed, or without line breaks? "
            "Wide numeric data goes into an .npz with arrays X and y"
        )


def check_header(names: list[str], file: str) -> None:
    """Refuse too many columns and names that occur twice."""
    check_width(len(names), file)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{file} has several columns named {twice!r}; give every column its own name")


def check_numbers(X: np.ndarray, name: str) -> None:
    """Refuse anything but finite numbers, naming the first row that holds something else."""
    if X.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {X.dtype} values; numbers are needed")
    if X.dtype.kind == "f" and not np.isfinite(X).all():
        bad = ~np.isfinite(X).reshape(len(X), -1).all(axis=1)
        raise ValueError(
            f"{name} has NaN or infinity in {bad.sum()} rows, the first is row {bad.argmax()} (counted from 0); "
            "impute or remove them"
        )


def edited(
    frame: pd.DataFrame, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
) -> pd.DataFrame:
    """The rows at these positions with their new labels and the added columns."""
    labels = frame[target].tolist()
    for row, label in relabelled.items():
        labels[row] = label
    frame = frame.assign(**{target: pd.Series(labels, index=frame.index, dtype=frame[target].dtype)})
    return pd.concat([frame, extra], axis=1).iloc[rows]
