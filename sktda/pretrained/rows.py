"""Rows of images and texts, in whatever container they come."""

from __future__ import annotations

from typing import Any

import numpy as np

from sktda.containers import is_frame, is_missing


class Pictures:
    """Images as an array or memory map holds them, of which any rows can be had as (b, h, w, 3) uint8.

    Raises ValueError for shapes and ranges that are none of images.
    """

    def __init__(self, X: Any) -> None:
        shape = X.shape
        if X.ndim == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3):
            raise ValueError(f"X of shape {shape} has its channels first; give X.transpose(0, 2, 3, 1)")
        if X.ndim not in (3, 4) or (X.ndim == 4 and shape[3] not in (1, 3)):
            raise ValueError(
                f"X of shape {shape} holds no images; (n, height, width, 3) is needed, or (n, height, width) of grey "
                "ones"
            )
        self.is_float = X.dtype.kind == "f"
        if X.dtype != np.uint8 and not (self.is_float and X.min() >= 0 and X.max() <= 1):
            raise ValueError(
                f"X holds {X.dtype} from {X.min():g} to {X.max():g}; images are uint8 from 0 to 255, or floats from 0 "
                "to 1"
            )
        self.X = X

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, int):  # what tells an image from others
            return self.X[rows]
        chosen = self.X[rows]
        if isinstance(rows, slice):
            return Pictures(chosen)
        if self.is_float:
            chosen = np.rint(255 * chosen).astype(np.uint8)
        if chosen.ndim == 3:
            chosen = chosen[..., None]
        return chosen if chosen.shape[3] == 3 else np.repeat(chosen, 3, axis=3)


def read_texts(X: Any) -> np.ndarray | None:
    """X (n,), or (n, 1), of str as an array of objects; None if it holds no texts.

    Raises ValueError for cells that are missing or no texts, where others are texts, and naming the first.
    """
    if is_frame(X) or getattr(X, "ndim", 1) == 2:
        if X.shape[1] != 1 or getattr(getattr(X, "dtype", None), "kind", "O") not in "OUT":
            return None
        X = X.iloc[:, 0] if hasattr(X, "iloc") else np.asarray(X)[:, 0]
    if getattr(X, "ndim", 1) != 1 or not (isinstance(X, list | tuple) or hasattr(X, "dtype")):
        return None
    cells = list(X)
    if not any(isinstance(cell, str) for cell in cells[:100]):
        return None
    wrong = [row for row, cell in enumerate(cells) if not isinstance(cell, str)]
    if wrong:
        cell = cells[wrong[0]]
        what = "missing" if is_missing(cell) else f"{cell!r}"
        raise ValueError(f"X holds texts, and row {wrong[0]} is {what} ({len(wrong)} such rows); give '' for no text")
    texts = np.empty(len(cells), dtype=object)
    texts[:] = [str(cell) for cell in cells]
    return texts
