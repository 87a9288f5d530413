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

from sktda.files import PARQUET_SUFFIXES, suffix, write_frame
from sktda.tables.base import check_header, edited


@dataclass(frozen=True, eq=False)
class ParquetTable:
    """A Parquet file, held as an Arrow table."""

    path: Path
    table: pa.Table

    X = None
    picture = None
    default_index = None

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

    def write(self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame) -> None:
        """Take the rows; a relabelled column keeps its type."""
        if suffix(path) not in PARQUET_SUFFIXES:
            write_frame(edited(self.frame, rows, target, relabelled, extra), path)
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
            table = table.append_column(name, pa.array(extra[name].tolist()))
        pq.write_table(table.take(pa.array(rows)), path)
