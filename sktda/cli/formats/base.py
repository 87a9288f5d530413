"""What a format is, and what formats share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from sktda.cli.formats.files import Input
from sktda.cli.formats.known import plain_ending, same_form

MAX_COLUMNS = 100_000
EXACT_FLOAT = 2**53  # from here on floats lose integers


@dataclass(frozen=True)
class Reading:
    """What a user said about files that could be read in several ways.

    part: sheet of a spreadsheet, or table of a database; query: SQL in place of a table; header: whether the first line
    holds names, None to find out; named: columns that the user named, which can only be names of a header; labels: a
    table of the labels of images; level: of the folders of images, which is the label; pixels: whether they are needed;
    encode: what makes features of them, None where they are the features.
    """

    part: str | None = None
    query: str | None = None
    header: bool | None = None
    named: tuple[str, ...] = ()
    size: int = 64
    labels: Path | None = None
    level: int | None = None
    pixels: bool = True
    encode: Callable[[np.ndarray], np.ndarray] | None = None


class Source(ABC):
    """Rows that were read from a file or folder."""

    default_index: ClassVar[str | None] = None
    """The column that names the rows where the user names none."""

    default_target: ClassVar[str | None] = None
    """The column of labels where the user names none; None for tables, in which any could be."""

    ending: str
    """That of the format, which standard output gets."""

    notes: tuple[str, ...] = ()
    """What was assumed while reading, one sentence each."""

    line_numbers: np.ndarray | None = None
    """The line of the file, or row of the sheet, on which each row (n,) begins, from 1; None where there is none."""

    unreadable: str = ""
    """A sentence that names what could not be read and is left out."""

    @property
    @abstractmethod
    def frame(self) -> pd.DataFrame:
        """One row per data row, indexed from 0: the columns that a user can name."""

    def release(self) -> None:  # noqa: B027  what most formats hold is all that they have
        """Let go of cells that can be made again when `frame` is asked for: of many rows they fill the memory."""

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
    def read(cls, file: Input, reading: Reading) -> Self:
        """Read a file. Raises ValueError with one sentence for what is wrong with it, and where."""

    @staticmethod
    @abstractmethod
    def write_frame(frame: pd.DataFrame, path: Path) -> None:
        """Write a DataFrame without its index. Raises ValueError naming a column that the format cannot hold."""

    def write(self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame) -> None:
        """Rows as they were read, or their cells in another format."""
        from sktda.cli.formats import write_frame

        end = plain_ending(path)
        if same_form(self.ending, end):
            self.write_rows(path, rows, target, relabelled, extra)
            return
        recast = self.recast(end, rows, target, relabelled, extra)
        write_frame(edited(self.frame, rows, target, relabelled, extra) if recast is None else recast, path)

    def recast(
        self, end: str, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> pd.DataFrame | None:
        """As `write`, for the format with this ending; None where that is the cells of `frame`."""
        return None

    @abstractmethod
    def write_rows(
        self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> None:
        """As `write`, in the format of the source: only relabelled rows and added columns are composed anew."""


def check_width(n_columns: int, name: str) -> None:
    """Refuse files that are transposed or lack line breaks before they fill the memory."""
    if n_columns > MAX_COLUMNS:
        raise ValueError(
            f"{name} has more than {MAX_COLUMNS:,} columns; is it transposed, or without line breaks? "
            "Wide numeric data goes into an .npz with arrays X and y"
        )


def distinct(names: Sequence[str], file: str) -> tuple[list[str], tuple[str, ...]]:
    """(names that differ, notes): `a (1)` and `a (2)` of two columns a, so that neither is taken for the other.

    Raises ValueError for too many columns, and where such names are there already.
    """
    check_width(len(names), file)
    if len(set(names)) == len(names):
        return list(names), ()
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    seen: dict[str, int] = {}
    changed = []
    for number, name in enumerate(names, 1):
        seen[name] = seen.get(name, 0) + 1
        shown = f"{name} ({seen[name]})" if name.strip() else f"column {number}"
        changed.append(shown if counts[name] > 1 else name)
    twice = next(name for name in names if counts[name] > 1)
    if len(set(changed)) < len(changed):
        raise ValueError(f"{file} has several columns named {twice!r}; give every column its own name")
    called = next(new for name, new in zip(names, changed, strict=True) if name == twice)
    return changed, (f"{file} has several columns named {twice!r}; they are called {called!r} and so on here",)


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


def check_flat(frame: pd.DataFrame, ending: str) -> None:
    """Refuse, by name, cells that a format of text cells would write as something else."""
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        if column.dtype != object:
            continue
        nested = column.map(lambda cell: isinstance(cell, (list, dict, tuple, set, np.ndarray, bytes)))
        if nested.any():
            cell = column[nested].iloc[0]
            what = "bytes" if isinstance(cell, bytes) else "lists or records"
            raise ValueError(
                f"column {name!r} holds {what}, which {ending} cannot hold; write the format it came in, or "
                f"{'' if what == 'bytes' else '.jsonl or '}.parquet"
            )


def column_of(cells: list[Any]) -> pd.Series:
    """Cells as a column: pandas would make floats of integers among which one is missing."""
    return pd.Series(cells, dtype=object if any(cell is None for cell in cells) else None)


def edited(
    frame: pd.DataFrame, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
) -> pd.DataFrame:
    """The rows at these positions with their new labels and the added columns."""
    if relabelled:
        labels = frame[target].tolist()
        for row, label in relabelled.items():
            labels[row] = label
        frame = frame.assign(**{target: pd.Series(labels, index=frame.index, dtype=frame[target].dtype)})
    return pd.concat([frame, extra], axis=1).iloc[rows]
