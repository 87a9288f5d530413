"""Where patches are cut from pictures, and which part of a picture each is in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRID = 3  # parts of a picture along its height, and along its width


@dataclass(frozen=True)
class Layout:
    """Sizes as (height, width), in pixels.

    shape: of the pictures that are given; size: of those that patches are cut from; cut: of a patch.
    """

    shape: tuple[int, int]
    channels: int
    size: tuple[int, int]
    cut: tuple[int, int]

    @classmethod
    def of(cls, shape: tuple[int, ...], patch_size: int, max_side: int | None) -> Layout:
        """For pictures of a shape (height, width, channels), of which no side is to be longer than max_side."""
        height, width, channels = shape
        longer = max(height, width)
        limit = longer if max_side is None else min(max_side, longer)
        size = max(1, round(height * limit / longer)), max(1, round(width * limit / longer))
        return cls((height, width), channels, size, (min(patch_size, size[0]), min(patch_size, size[1])))

    @property
    def places(self) -> tuple[int, int]:
        """Places of a patch, along the height and along the width."""
        return self.size[0] - self.cut[0] + 1, self.size[1] - self.cut[1] + 1

    @property
    def grid(self) -> tuple[int, int]:
        """Parts along the height and along the width, at most as many as there are places of a patch."""
        return min(GRID, self.places[0]), min(GRID, self.places[1])

    @property
    def n_values(self) -> int:
        """Values of a patch."""
        return self.channels * self.cut[0] * self.cut[1]

    @property
    def shrinks(self) -> bool:
        """Whether pictures are averaged down to `size`, which is `by_height @ picture @ by_width.T`."""
        return self.size != self.shape

    @property
    def by_height(self) -> np.ndarray:
        """Shares (size[0], shape[0])."""
        return averages(self.shape[0], self.size[0])

    @property
    def by_width(self) -> np.ndarray:
        """Shares (size[1], shape[1])."""
        return averages(self.shape[1], self.size[1])

    def mirrored(self, patches: np.ndarray) -> np.ndarray:
        """The mirror images of patches (n, n_values)."""
        return patches.reshape(len(patches), self.channels, *self.cut)[..., ::-1].reshape(len(patches), -1)


def averages(n: int, parts: int) -> np.ndarray:
    """(parts, n) shares by which n values become the means of equal parts of them, cut through where need be."""
    edges = np.linspace(0, n, parts + 1)
    low, high = edges[:-1, None], edges[1:, None]
    overlap = np.minimum(high, np.arange(1, n + 1)) - np.maximum(low, np.arange(n))
    return np.maximum(overlap, 0) * parts / n
