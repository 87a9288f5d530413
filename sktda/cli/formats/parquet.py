"""Parquet files; schema and metadata stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sktda.cli.formats import format_of, write_frame
from sktda.cli.formats.base import Table, check_header, edited


@dataclass(frozen=True, eq=False)
class ParquetTable(Table):
    """A Parquet file, held as an Arrow table."""

    path: Path
    table: pa.Table

    @classmethod
    def read(cls, path: Path) -> ParquetTable:
        """Read all columns; the schema is checked before any data is read."""
        try:
            with pq.ParquetFile(path) as file:
                check_header(file.schema_arrow.names, path.name)
                table = file.read()
        except pa.ArrowException as error:
            raise ValueError(f"{path.name} cannot be read as Parquet ({error}); write it again") from error
        if not table.num_rows:
            raise ValueError(f"{path.name} has columns but no rows; at least two rows are needed")
        return cls(path, table)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The cells as pandas holds them; a pandas index in the file is a column like any other."""
        return self.table.to_pandas(ignore_metadata=True)

    @staticmethod
    def write_frame(frame: pd.DataFrame, path: Path) -> None:
        """Write with the types of pandas. Raises ValueError naming a column that Arrow has no type for."""
        try:
            frame.to_parquet(path, index=False)
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise ValueError(
                f"these columns cannot be written as Parquet ({error}); write .csv or .jsonl instead"
            ) from error

    def write(self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame) -> None:
        """Take the rows; a relabelled column keeps its type."""
        if format_of(path) is not format_of(self.path):
            write_frame(edited(self._exact(), rows, target, relabelled, extra), path)
            return
        table = self.table
        if relabelled:
            position = table.schema.get_field_index(target)
            field = table.schema.field(position)
            values = table.column(position).to_pylist()
            for row, label in relabelled.items():
                values[row] = label
            table = table.set_column(position, field, pa.array(values).cast(field.type))
        for name in extra:
            table = table.append_column(name, pa.array(extra[name].tolist(), from_pandas=True))
        pq.write_table(table.take(pa.array(rows)), path)

    def _exact(self) -> pd.DataFrame:
        """The cells for writing: pandas makes floats of integers among which one is missing."""
        frame = self.frame.copy(deep=False)
        for field in self.table.schema:
            if pa.types.is_integer(field.type) and self.table[field.name].null_count:
                dtype = "UInt64" if pa.types.is_unsigned_integer(field.type) else "Int64"
                frame[field.name] = pd.array(self.table[field.name].to_pylist(), dtype=dtype)
        return frame
