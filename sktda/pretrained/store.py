"""Features that were computed before: one SQLite file in a folder, by what the model and the row are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np

AT_ONCE = 500  # keys of a query

TABLE = (
    "CREATE TABLE IF NOT EXISTS features "
    "(model BLOB, row BLOB, vector BLOB NOT NULL, PRIMARY KEY (model, row)) WITHOUT ROWID"
)


class Store:
    """Float32 vectors by (key of a model, key of a row), in a folder or, without one, in memory.

    Several processes can use a folder at once; what was put in stays, also when one is killed.
    Raises OSError for a folder that cannot be written, and ValueError for a file that is no such store.
    """

    def __init__(self, folder: str | PathLike[str] | None) -> None:
        self.file: Path | None = None
        if folder is not None:
            self.file = Path(folder) / "features.sqlite3"
            self.file.parent.mkdir(parents=True, exist_ok=True)
        with self._named_errors():
            self._database = sqlite3.connect(self.file or ":memory:", timeout=60, check_same_thread=False)
            self._database.execute(TABLE)

    def get(self, model: bytes, rows: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors that are there, by key of the row."""
        found: dict[bytes, np.ndarray] = {}
        with self._named_errors():
            for start in range(0, len(rows), AT_ONCE):
                keys = rows[start : start + AT_ONCE]
                marks = ",".join("?" * len(keys))
                query = f"SELECT row, vector FROM features WHERE model = ? AND row IN ({marks})"
                for row, vector in self._database.execute(query, [model, *keys]):
                    found[row] = np.frombuffer(vector, dtype="<f4").astype(np.float32, copy=False)
        return found

    def put(self, model: bytes, rows: Sequence[bytes], vectors: np.ndarray) -> None:
        """Add vectors (len(rows), d)."""
        packed = np.ascontiguousarray(vectors, dtype="<f4")
        entries = [(model, row, vector.tobytes()) for row, vector in zip(rows, packed, strict=True)]
        with self._named_errors(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", entries)

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.file} cannot be used to keep features: {error}; name another folder") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.file} is damaged or no store of features ({error}); delete it") from error
