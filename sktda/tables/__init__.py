"""Tables on disk: CSV and TSV, Parquet, NPZ. Rows that stay are written exactly as they were read.

Every source of rows, `sktda.images.ImageFolder` included, has

- `path`, and `frame`: one row per data row, the columns a user can name;
- `X`: numeric features (n, ...), or None where they are made from the columns (`sktda.tables.columns`);
- `picture(row)`, or None where rows are no pictures; `default_index`, the column that names rows, or None;
- `write(path, rows, target, relabelled, extra)`: write the rows at these positions, with the labels in `relabelled`
  ({position: new label}) in place of those of the column `target` and with the columns of the DataFrame `extra`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sktda.files import PARQUET_SUFFIXES, TEXT_SUFFIXES, suffix

if TYPE_CHECKING:
    from sktda.tables.arrays import ArrayFile
    from sktda.tables.parquet import ParquetTable
    from sktda.tables.text import TextTable


def read_table(path: Path) -> TextTable | ParquetTable | ArrayFile:
    """Read a file by its ending. Raises ValueError or OSError with one sentence for what is wrong with it."""
    from sktda.tables.arrays import ArrayFile
    from sktda.tables.parquet import ParquetTable
    from sktda.tables.text import TextTable

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file; check the path")
    kind = suffix(path)
    if kind in TEXT_SUFFIXES:
        return TextTable.read(path)
    if kind in PARQUET_SUFFIXES:
        return ParquetTable.read(path)
    if kind == ".npz":
        return ArrayFile.read(path)
    allowed = ", ".join([*TEXT_SUFFIXES, *sorted(PARQUET_SUFFIXES), ".npz"])
    raise ValueError(
        f"{path.name} has the unknown ending {kind!r}; allowed are {allowed}, .gz of the text formats, and a folder "
        "of class folders of images"
    )
