"""What the default net is trained on: rows of tables and images, scaled to float32 when they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from sktda.data import block_rows, n_columns, row_block, slices
from sktda.model.standard import Standard

LIMIT = 10.0  # standard deviations at which a table's values are cut off, so that no outlier rules the training


class Scaled:
    """Rows of X as float32 for the net: tables standardised, images by channel and channels first."""

    def __init__(self, X: Any) -> None:
        self.shape = X.shape[1:]
        self.channels = _channel_axis(X.shape) if X.ndim in {3, 4} else None
        width = n_columns(X) if self.channels is None else self._block(X, slice(0, 1)).shape[1]
        self.standard = Standard.of_blocks(
            # (rows x places, channels): a channel has one mean, wherever in an image
            lambda: (self._columns_last(X, rows).reshape(-1, width) for rows in slices(X.shape[0], block_rows(X))),
            width,
        )

    @property
    def width(self) -> int:
        """Columns of a table, channels of images."""
        return len(self.standard.factor)

    def _columns_last(self, X: Any, rows: slice | np.ndarray) -> np.ndarray:
        """(n, n_features) or (n, height, width, channels) of float64, a copy."""
        block = self._block(X, rows)
        return block if self.channels is None else np.moveaxis(block, 1, -1)

    def _block(self, X: Any, rows: slice | np.ndarray) -> np.ndarray:
        block = row_block(X, rows)
        if self.channels is None:
            return block
        block = block.reshape(-1, *self.shape)
        return block[:, None] if self.channels == 0 else np.moveaxis(block, self.channels, 1)

    def block(self, X: Any, rows: slice | np.ndarray) -> Tensor:
        """(n, n_features) or (n, channels, height, width)."""
        values = self.standard.apply(self._columns_last(X, rows))
        values = np.clip(values, -LIMIT, LIMIT).astype(np.float32)
        # in the order of memory that the net expects
        return torch.from_numpy(values if self.channels is None else np.moveaxis(values, -1, 1).copy())


def _channel_axis(shape: tuple[int, ...]) -> int:
    """Axis of the channels of images; 0 = there is none. One of 1, 3 or 4, last if both could be, else the smaller."""
    if len(shape) == 3:
        return 0
    first, last = shape[1] in {1, 3, 4}, shape[3] in {1, 3, 4}
    return (3 if last else 1) if first != last else (3 if last or shape[3] < shape[1] else 1)


class ScaledRows(Dataset):
    """X and encoded y as the net is trained on them, scaled when read; a batch at a time where the loader can."""

    def __init__(self, X: Any, y: Tensor, scaled: Scaled, weight: Tensor | None = None) -> None:
        self.X = X
        self.y = y
        self.scaled = scaled
        self.weight = weight

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """(inputs, targets) at these positions, as one by one."""
        return self.scaled.block(self.X, rows), self.y[rows]

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        x, y = self.take(np.array([row]))
        return x[0], y[0]

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, Any]:
        # only the loader of the training asks for batches; a row by itself, and its fingerprint, has no weight
        x, y = self.take(np.array(rows))
        return x, y if self.weight is None else (y, self.weight[rows])


def whole_batch(batch: Any) -> Any:
    """A batch as ScaledRows gives it; rows that came one by one are put together."""
    return default_collate(batch) if isinstance(batch, list) else batch
