"""Parquet that is read row group by row group, never whole: a large file, or a folder of files of the same columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sktda.cli.formats.arrow import as_frame, take, with_labels
from sktda.cli.formats.base import Source, check_width
from sktda.cli.formats.known import comes_in_parts

BLOCK_BYTES = 2**25  # read at a time, as estimated by what a row has on the average
BLOCK_ROWS = 65_536
GROUP_BYTES = 2**26  # held before a row group is written: larger ones are written as several
FETCHED = 10_000  # rows that a page may ask for: they are held in memory


def parquet_files(path: Path) -> list[Path]:
    """The file, or those of a folder that holds nothing else; none for all other paths. Hidden files do not count."""
    if not path.is_dir():
        return [path] if path.is_file() and comes_in_parts(path) else []
    files = []
    for each in path.rglob("*"):
        if each.is_file() and not any(part[0] in "._" for part in each.relative_to(path).parts):
            if not comes_in_parts(each):
                return []
            files.append(each)
    return sorted(files)


@dataclass(frozen=True, eq=False)
class RowGroups(Source):
    """Rows of Parquet files, one file after the other.

    files: the files, in the order of their names; schema: that of all of them; sizes: rows of each; n_bytes: of all
    rows, without compression; ending: that of the first file; name: for messages.
    """

    files: list[Path]
    schema: pa.Schema
    sizes: list[int]
    n_bytes: int
    name: str
    ending: str
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path, files: list[Path]) -> RowGroups:
        """Read what the files say of themselves. Raises ValueError with one sentence for what is wrong with them."""
        schema, sizes, n_bytes = None, [], 0
        for file in files:
            if any("=" in part for part in file.relative_to(path).parent.parts):
                raise ValueError(
                    f"{path} has its rows in folders such as {file.parent.name!r}, whose names are a column of their "
                    "own; write one Parquet file of it, or a folder of files without such folders"
                )
            with _readable(file):
                found = pq.read_metadata(file)
                own = found.schema.to_arrow_schema()
            schema = own if schema is None else _same(schema, own, files[0], file)
            sizes.append(found.num_rows)
            n_bytes += sum(found.row_group(k).total_byte_size for k in range(found.num_row_groups))
        if schema is None or not sum(sizes):
            raise ValueError(f"{path.name} has no rows; at least two rows are needed")
        check_width(len(schema), path.name)
        names = schema.names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{path.name} has several columns named {twice!r}; give every column its own name")
        return cls(files, schema, sizes, n_bytes, path.name, files[0].suffix.lower())

    @property
    def n_rows(self) -> int:
        return sum(self.sizes)

    @property
    def cells_bytes(self) -> int:
        """What the cells would take in memory: eight bytes each, or more where the file says so."""
        return max(8 * self.n_rows * len(self.schema), self.n_bytes)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """No rows, of all columns that a user can name."""
        return as_frame(self.schema.empty_table())

    @property
    def block_rows(self) -> int:
        """Rows that are read at a time."""
        return int(np.clip(BLOCK_BYTES // max(1, self.cells_bytes // self.n_rows), 1, BLOCK_ROWS))

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All rows in their order, `block_rows` at a time at most, of all columns or of some (of the file)."""
        for table in self._batches(columns):
            yield table.select(columns) if columns is not None else table

    @staticmethod
    def _opened(file: Path) -> pq.ParquetFile:
        """Read page by page, not a column of a row group at a time."""
        return pq.ParquetFile(file, page_checksum_verification=True, buffer_size=2**20, pre_buffer=False)

    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        for file, size in zip(self.files, self.sizes, strict=True):
            with _readable(file), self._opened(file) as opened:
                done = 0
                for batch in opened.iter_batches(self.block_rows, columns=columns):
                    table = pa.Table.from_batches([batch])
                    table.validate(full=True)  # texts that are no UTF-8
                    done += len(table)
                    yield table
                if done != size:
                    raise ValueError(f"{file.name} had {size} rows, and {done} came; do not change it meanwhile")

    def frames(self, names: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """As `tables`, in the types of pandas; `names`: some of the columns of `frame`."""
        columns = None if names is None else self._columns_of(names)
        for table in self.tables(columns):
            found = as_frame(table)
            yield found if names is None else found[list(names)]

    def _columns_of(self, names: Sequence[str]) -> list[str]:
        """Columns of the file in which these are: `address.city` is in `address`."""
        known = self.schema.names
        return [each for each in known if any(name == each or name.startswith(f"{each}.") for name in names)]

    def column(self, name: str) -> pd.Series:
        """One of the columns of `frame`, whole."""
        whole = pa.concat_tables(self.tables(self._columns_of([name])), promote_options="permissive")
        return as_frame(whole)[name]

    def rows(self, positions: np.ndarray) -> pd.DataFrame:
        """The rows (k,) at these positions, in their order, indexed by them."""
        wanted, place = np.unique(positions, return_inverse=True)
        parts = []
        for start, table in self._holding(wanted):
            found = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + len(table))] - start
            if len(found):
                parts.append(pa.table([take(column, found) for column in table.columns], schema=table.schema))
        found_rows = as_frame(pa.concat_tables(parts, promote_options="permissive"))
        return found_rows.iloc[place].set_axis(np.asarray(positions))

    def _holding(self, wanted: np.ndarray) -> Iterator[tuple[int, pa.Table]]:
        """(position of the first row, rows) of the row groups in which these rows are."""
        start = 0
        for file in self.files:
            with _readable(file), self._opened(file) as opened:
                for group in range(opened.num_row_groups):
                    stop = start + opened.metadata.row_group(group).num_rows
                    if np.searchsorted(wanted, start) < np.searchsorted(wanted, stop):
                        at = start
                        for batch in opened.iter_batches(self.block_rows, row_groups=[group]):
                            yield at, pa.Table.from_batches([batch])
                            at += len(batch)
                    start = stop

    def write(self, path: Path, rows: np.ndarray, target: str, relabelled: dict[int, Any], extra: pd.DataFrame) -> None:
        """The rows at these positions (ascending), block by block, with the schema and the codecs of the first file."""
        self.check_place(path)
        if relabelled and target not in self.schema.names:
            raise ValueError(
                f"column {target!r} is within another, where labels cannot be changed; drop or flag the rows"
            )
        schema, changed = self.schema, np.array(sorted(relabelled), dtype=int)
        added = {name: pa.array(extra[name].tolist(), from_pandas=True) for name in extra}
        for name, values in added.items():
            schema = schema.append(pa.field(name, values.type))
        start, held, n_bytes = 0, [], 0
        with pq.ParquetWriter(path, schema, write_page_checksum=True, **self._codecs(schema)) as writer:
            for table in self.tables():
                stop = start + len(table)
                own = changed[np.searchsorted(changed, start) : np.searchsorted(changed, stop)]
                if len(own):
                    labels = {int(row) - start: relabelled[row] for row in own.tolist()}
                    table = with_labels(table, table.schema.names.index(target), target, labels)
                for name, values in added.items():
                    table = table.append_column(name, values[start:stop])
                kept = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)] - start
                if len(kept):
                    columns = table.columns if len(kept) == len(table) else [take(each, kept) for each in table.columns]
                    held.append(pa.table(columns, schema=schema))
                    n_bytes += held[-1].nbytes
                if n_bytes >= GROUP_BYTES:
                    writer.write_table(pa.concat_tables(held), row_group_size=sum(map(len, held)))
                    held, n_bytes = [], 0
                    pa.default_memory_pool().release_unused()  # of a group it keeps what was freed
                start = stop
            if held:
                writer.write_table(pa.concat_tables(held), row_group_size=sum(map(len, held)))

    def check_place(self, path: Path) -> None:
        """Raise ValueError for an output of another format."""
        if not comes_in_parts(path):
            raise ValueError(
                f"the rows of {self.name} are too many to be held in memory, and are written as they are read; give "
                f"--out a name that ends with .parquet in place of {path.name}"
            )

    def _codecs(self, schema: pa.Schema) -> dict[str, Any]:
        """How the first file with rows compresses its columns."""
        file = next(file for file, size in zip(self.files, self.sizes, strict=True) if size)
        with _readable(file):
            groups = pq.read_metadata(file)
        group = next(g for g in map(groups.row_group, range(groups.num_row_groups)) if g.num_rows)
        found = {}
        for j in range(group.num_columns):
            column = group.column(j)
            found[column.path_in_schema] = column.compression.replace("UNCOMPRESSED", "NONE")
        usual = next(iter(found.values()))
        return {"compression": found | dict.fromkeys(schema.names[len(self.schema) :], usual)}


def _same(schema: pa.Schema, other: pa.Schema, first: Path, file: Path) -> pa.Schema:
    """One schema for both, of the metadata of the first; a column may have gaps in one of them only."""
    if schema.names != other.names:
        differ = sorted({*schema.names} ^ {*other.names}) or [
            next(a for a, b in zip(schema.names, other.names, strict=True) if a != b)
        ]
        raise ValueError(
            f"{file.name} has other columns than {first.name}, or in another order ({', '.join(differ[:5])}); all "
            "files of a folder need the same"
        )
    for one, two in zip(schema, other, strict=True):
        if not one.type.equals(two.type):
            raise ValueError(
                f"column {one.name!r} holds {one.type} in {first.name} and {two.type} in {file.name}; all files of a "
                "folder need the same types"
            )
    fields = [one.with_nullable(one.nullable or two.nullable) for one, two in zip(schema, other, strict=True)]
    return pa.schema(fields, metadata=schema.metadata)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """What pyarrow says of a file that is none, in one sentence."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ValueError(f"{file.name} cannot be read as Parquet ({error})") from error


class Fetched:
    """Rows of a source as pages show them: few are asked for, and these are read when they are.

    known (n,): positions of the rows in the source; names: the columns.
    """

    def __init__(self, source: RowGroups, known: np.ndarray, names: list[str]) -> None:
        self.source, self.known, self.columns = source, known, names
        self.shape = len(known), len(names)

    def __len__(self) -> int:
        return len(self.known)

    def some(self, rows: np.ndarray) -> Fetched:
        """Those of these rows (k,) alone."""
        return Fetched(self.source, self.known[rows], self.columns)

    def labels(self, name: str) -> pd.Series:
        """A column that is no cell of a page, whole."""
        return self.source.column(name).iloc[self.known]

    @property
    def iloc(self) -> Fetched:
        return self

    def __getitem__(self, positions: np.ndarray) -> pd.DataFrame:
        if len(positions) > FETCHED:
            raise ValueError(
                f"{len(positions):,} rows of {self.source.name} would have to be held in memory with all their cells, "
                f"and {FETCHED:,} are the limit; name fewer rows with --drop, or use sktda score"
            )
        return self.source.rows(self.known[positions])[self.columns]
