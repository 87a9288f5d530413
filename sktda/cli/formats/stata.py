"""Stata files, which are only read: what comes out is written in another format."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from sktda.cli.formats.base import Reading, Table, edited
from sktda.cli.formats.files import Input
from sktda.cli.formats.known import PLAIN
from sktda.cli.formats.text import TextTable


@dataclass(frozen=True, eq=False)
class StataTable(Table):
    """cells: values that have labels are these labels."""

    cells: pd.DataFrame
    ending: str = PLAIN
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, file: Input, reading: Reading) -> Self:
        """Read all columns. Raises ValueError for what is no Stata file."""
        data = file.read()
        try:
            try:
                cells = pd.read_stata(io.BytesIO(data))
            except ValueError as error:
                if "not unique" not in str(error):  # labels that several values have
                    raise
                cells = pd.read_stata(io.BytesIO(data), convert_categoricals=False)
        except Exception as error:  # of pandas' reader, which raises what it comes upon
            raise ValueError(f"{file.name} cannot be read as a Stata file ({error}); export it as .csv") from error
        if cells.empty:
            raise ValueError(f"{file.name} has no rows; at least two rows are needed")
        return cls(cells)

    @property
    def frame(self) -> pd.DataFrame:
        """In the types of pandas."""
        return self.cells

    @staticmethod
    def write_frame(frame: pd.DataFrame, path: Path) -> None:
        """As text, where the ending is that of standard output."""
        TextTable.write_frame(frame, path)

    def write_rows(
        self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> None:
        """As text."""
        TextTable.write_frame(edited(self.cells, rows, target, relabelled, extra), path)
