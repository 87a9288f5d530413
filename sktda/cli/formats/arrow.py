"""Parquet and Feather files, held as Arrow tables; schema and metadata stay as they are."""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as pf
import pyarrow.parquet as pq

from sktda.cli.formats.base import Reading, Table, distinct, edited
from sktda.cli.formats.files import Input, write_bytes


@dataclass(frozen=True, eq=False)
class _ArrowTable(Table):
    """names: those of the columns, which differ."""

    table: pa.Table
    names: list[str]
    ending: str
    notes: tuple[str, ...] = ()

    kind: ClassVar[str]

    @classmethod
    def read(cls, file: Input, reading: Reading) -> Self:
        """Read all columns; the schema is checked before any data is read."""
        try:
            schema, load = cls._open(pa.BufferReader(file.read()))
            names, notes = distinct(schema.names, file.name)
            table = load()
            table.validate(full=True)  # texts that are no UTF-8
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{file.name} cannot be read as {cls.kind} ({error})") from error
        if not table.num_rows:
            raise ValueError(f"{file.name} has no rows; at least two rows are needed")
        return cls(table, names, file.ending, notes)

    @staticmethod
    @abstractmethod
    def _open(data: pa.BufferReader) -> tuple[pa.Schema, Callable[[], pa.Table]]:
        """The schema, and what reads the table."""

    @staticmethod
    @abstractmethod
    def _write(table: pa.Table, path: Path) -> None:
        """Write a table."""

    @property
    def _as_texts(self) -> pa.Table:
        return pa.table([as_text(column) for column in self.table.columns], names=self.names)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """In the types of pandas, by columns; so are an index, and the fields of records, called `address.city`.

        Texts that were stored as bytes are texts.
        """
        return as_frame(self.table.rename_columns(self.names))

    def recast(
        self, end: str, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> pd.DataFrame:
        """With whole numbers where one is missing among them, of which pandas makes floats."""
        self._check_labels(target, relabelled)
        whole = list(self.frame) == self.names
        frame = self.frame.copy(deep=False) if whole else self._as_texts.to_pandas(ignore_metadata=True)
        for name, column in zip(self.names, self.table.columns, strict=True):
            if pa.types.is_integer(column.type) and column.null_count:
                dtype = "UInt64" if pa.types.is_unsigned_integer(column.type) else "Int64"
                frame[name] = pd.array(column.to_pylist(), dtype=dtype)
        return edited(frame, rows, target, relabelled, extra)

    def _check_labels(self, target: str, relabelled: dict[int, Any]) -> None:
        """Labels within records stay."""
        if relabelled and target not in self.names:
            raise ValueError(
                f"column {target!r} is within another, where labels cannot be changed; drop or flag the rows"
            )

    @classmethod
    def write_frame(cls, frame: pd.DataFrame, path: Path) -> None:
        """Write with the types of pandas. Raises ValueError naming a column that Arrow has no type for."""
        try:
            table = pa.Table.from_pandas(frame, preserve_index=False)
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise ValueError(
                f"these columns cannot be written as {cls.kind} ({error}); write .csv or .jsonl instead"
            ) from error
        cls._write(table, path)

    def write_rows(
        self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame
    ) -> None:
        """Take the rows; a relabelled column keeps its type."""
        self._check_labels(target, relabelled)
        table = self.table
        if relabelled:
            table = with_labels(table, self.names.index(target), target, relabelled)
        for name in extra:
            table = table.append_column(name, pa.array(extra[name].tolist(), from_pandas=True))
        columns = [take(column, rows) for column in table.columns]
        self._write(pa.table(columns, schema=table.schema), path)


def with_labels(table: pa.Table, position: int, name: str, labels: dict[int, Any]) -> pa.Table:
    """The table with other labels in some rows of the column at this position; it keeps its type."""
    field, column = table.schema.field(position), table.column(position)
    try:
        values = as_text(column).to_pylist()
        for row, label in labels.items():
            values[row] = label
        return table.set_column(position, field, pa.array(values).cast(field.type))
    except (pa.ArrowException, OverflowError) as error:  # dates beyond those of Python
        raise ValueError(f"column {name!r} holds {field.type}, which cannot take the labels ({error})") from error


def as_frame(table: pa.Table) -> pd.DataFrame:
    """In the types of pandas; the fields of records are columns. Texts that were stored as bytes are texts."""
    table = pa.table([as_text(column) for column in table.columns], names=table.column_names)
    while any(pa.types.is_struct(kind) for kind in table.schema.types):
        flat = table.flatten()
        if len(set(flat.column_names)) < len(flat.column_names):
            break
        table = flat
    return table.to_pandas(ignore_metadata=True)


def write_parts(frames: Iterable[pd.DataFrame], path: Path) -> None:
    """Write parts of one table as a Parquet file, each a row group, in the types that the first part has."""
    with ExitStack() as stack:
        writer = None
        for frame in frames:
            schema = None if writer is None else writer.schema
            table = pa.Table.from_pandas(frame, schema, preserve_index=False)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(path, table.schema, write_page_checksum=True))
            writer.write_table(table, row_group_size=max(1, len(table)))


def take(column: pa.ChunkedArray, rows: np.ndarray) -> pa.ChunkedArray:
    """The rows at these positions."""
    try:
        return column.take(pa.array(rows))
    except pa.ArrowNotImplementedError:  # of views, which come out of no take
        whole = pa.large_string() if pa.types.is_string_view(column.type) else pa.large_binary()
        return column.cast(whole).take(pa.array(rows)).cast(column.type)


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Bytes that are UTF-8 as text: many programs store texts so."""
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    if any(is_kind(column.type) for is_kind in binary):
        try:
            return column.cast(pa.binary()).cast(pa.string())
        except pa.ArrowException:
            return column
    return column


class ParquetTable(_ArrowTable):
    """A Parquet file."""

    kind = "Parquet"

    @staticmethod
    def _open(data: pa.BufferReader) -> tuple[pa.Schema, Callable[[], pa.Table]]:
        file = pq.ParquetFile(data, page_checksum_verification=True)  # of pages that have one
        return file.schema_arrow, file.read

    @staticmethod
    def _write(table: pa.Table, path: Path) -> None:
        data = io.BytesIO()
        pq.write_table(table, data, write_page_checksum=True)
        write_bytes(path, data.getvalue())


class FeatherTable(_ArrowTable):
    """A Feather file, or Arrow's own file or stream format."""

    kind = "Feather"

    @staticmethod
    def _open(data: pa.BufferReader) -> tuple[pa.Schema, Callable[[], pa.Table]]:
        start = data.read(6)
        data.seek(0)
        if start.startswith(b"FEA1"):  # the first version, which has no schema of its own
            table = pf.read_table(data)
            return table.schema, lambda: table
        reader = pa.ipc.open_file(data) if start == b"ARROW1" else pa.ipc.open_stream(data)
        return reader.schema, reader.read_all

    @staticmethod
    def _write(table: pa.Table, path: Path) -> None:
        data = io.BytesIO()
        pf.write_feather(table, data)
        write_bytes(path, data.getvalue())
