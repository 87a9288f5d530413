"""Lines of a large text, which as objects would take more memory than the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK = 1 << 24  # bytes that are looked through at a time


@dataclass(frozen=True, eq=False)
class Lines(Sequence[str]):
    """The lines of a text in UTF-8 that are not blank, with their ends; each is decoded when it is asked for.

    starts, stops (n,): where they are in data; numbers (n,): counted from 1, with those that are blank.
    """

    data: bytes
    starts: np.ndarray
    stops: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of(cls, data: bytes) -> Lines:
        """Lines end with a line feed, before which there may be a carriage return."""
        values = np.frombuffer(data, dtype=np.uint8)
        ends = [np.flatnonzero(values[i : i + BLOCK] == ord("\n")) + i + 1 for i in range(0, len(data), BLOCK)]
        stops = np.concatenate([*ends, [len(data)]]).astype(np.int64)
        starts = np.concatenate([[0], stops[:-1]])
        size = stops - starts
        blank = (size == 0) | ((size == 1) & (values[stops - 1] == ord("\n"))) if len(data) else size == 0
        returned = np.flatnonzero(size == 2)
        blank[returned] = (values[starts[returned]] == ord("\r")) & (values[stops[returned] - 1] == ord("\n"))
        return cls(data, starts[~blank], stops[~blank], 1 + np.flatnonzero(~blank))

    def joined(self, rows: np.ndarray) -> bytes:
        """The lines at these positions one after the other, copied in runs of such as follow each other in the text."""
        starts, stops = self.starts[rows], self.stops[rows]
        first = np.flatnonzero(np.append(True, starts[1:] != stops[:-1])[: len(rows)])
        last = np.append(first[1:] - 1, len(rows) - 1)[: len(first)]
        text = memoryview(self.data)
        return b"".join([text[i:j] for i, j in zip(starts[first].tolist(), stops[last].tolist(), strict=True)])

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows: Any) -> Any:
        """One line, or those of a slice."""
        if isinstance(rows, slice):
            return [self[row] for row in range(*rows.indices(len(self)))]
        return self.data[self.starts[rows] : self.stops[rows]].decode()
