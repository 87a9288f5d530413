"""What is learned from patches: their unit, their mean, their whitening, and the centres of their clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from sktda.data import n_columns, row_block, slices
from sktda.patches.layout import Layout

DRAWN = 20_000  # patches
CONTRAST = 0.01  # of the mean variance of patches: what is flatter is not blown up
WHITENING = 0.1  # added to the variances, which are about one
WEAK = 0.05  # squared length by dimension, of about 1, that holds what is as good as nothing small
ROUNDS = 10  # of k-means
TINY = 1e-12  # squared length of what is as good as nothing
FAR = 1e15  # squares of more, summed over a patch, come near the largest float32
ORDER_ROWS = 1_000  # at a time


@dataclass(frozen=True, eq=False)
class Filters:
    """What turns patches into responses.

    Of pixels x, (x - centre) / unit are taken, so that floats of any size keep their precision. contrast is added to
    the variance of a patch; mean (d,) and whitening (d, d) are of patches without brightness and contrast, and
    directions (n, d), of length 1, are the filters.
    """

    centre: float
    unit: float
    contrast: float
    mean: np.ndarray
    whitening: np.ndarray
    directions: np.ndarray

    @classmethod
    def learn(
        cls, patches: np.ndarray, n_filters: int, random: np.random.RandomState, mirror_of: Layout | None
    ) -> Filters:
        """From patches (n, d) of float64. mirror_of: their layout, where mirror images are to be alike."""
        centre = float(patches.mean())
        unit = float(np.abs(patches - centre).mean()) or 1.0
        patches = (patches - centre) / unit
        contrast = CONTRAST * float(_variance(patches - patches.mean(axis=1, keepdims=True)).mean()) or 1.0
        patches = normalised(patches, contrast)
        both = patches if mirror_of is None else np.concatenate([patches, mirror_of.mirrored(patches)])
        mean = both.mean(axis=0)
        variances, axes = np.linalg.eigh((both - mean).T @ (both - mean) / len(both))
        whitening = axes / np.sqrt(np.maximum(variances, 0) + WHITENING) @ axes.T
        white = (patches - mean) @ whitening
        white /= np.sqrt(np.square(white).sum(axis=1, keepdims=True) + WEAK * white.shape[1])
        return cls(centre, unit, contrast, mean, whitening, centres(white, n_filters, random))

    def numbers(self, pictures: np.ndarray) -> np.ndarray:
        """Pixels in the unit of the filters, float32. Raises ValueError where their squares would overflow."""
        values: np.ndarray = pictures.astype("f4" if pictures.dtype.itemsize < 4 else "f8")
        values = (values - self.centre) / self.unit
        if (largest := max(values.max(), -values.min())) > FAR:
            raise ValueError(
                f"a picture has a value that lies {largest:.0e} times as far out as those of `fit` on the average; "
                "look at it"
            )
        return values.astype("f4", copy=False)


def draw(pictures: np.ndarray, layout: Layout, random: np.random.RandomState) -> np.ndarray:
    """Patches (DRAWN, d) of any pictures (n, height, width, channels) from any places, float64.

    Which, depends on what the pictures are, and not on their order.
    """
    order = _any_order(pictures)
    rows = np.sort(random.randint(len(pictures), size=DRAWN))
    top, left = (random.randint(places, size=DRAWN) for places in layout.places)
    (height, width), by_height, by_width = layout.cut, layout.by_height, layout.by_width
    patches = np.empty((DRAWN, layout.channels, height, width))
    for row in np.unique(rows):
        picture = pictures[order[row]].astype(np.float64).transpose(2, 0, 1)
        if layout.shrinks:
            picture = by_height @ picture @ by_width.T
        for k in range(*np.searchsorted(rows, [row, row + 1])):
            patches[k] = picture[:, top[k] : top[k] + height, left[k] : left[k] + width]
    return patches.reshape(DRAWN, -1)


def normalised(patches: np.ndarray, contrast: float) -> np.ndarray:
    """Patches (n, d) freed of their brightness and contrast."""
    centred = patches - patches.mean(axis=1, keepdims=True)
    return centred / np.sqrt(_variance(centred) + contrast)


def centres(rows: np.ndarray, n: int, random: np.random.RandomState) -> np.ndarray:
    """Directions (n, d) of clusters of the rows, by spherical k-means; no more than there are different rows."""
    along = rows @ np.random.RandomState(0).standard_normal(rows.shape[1])
    _, different = np.unique(along.round(6), return_index=True)
    found = _unit(rows[random.permutation(different)[:n]])
    for _ in range(ROUNDS):
        nearest = (rows @ found.T).argmax(axis=1)
        members = sp.csr_array((np.ones(len(rows)), (nearest, np.arange(len(rows)))), shape=(len(found), len(rows)))
        sums = members @ rows
        found = np.where(np.square(sums).sum(axis=1, keepdims=True) < TINY, found, _unit(sums))  # empty ones stay
    return found


def _variance(centred: np.ndarray) -> np.ndarray:
    """(n, 1) of rows (n, d) without their means; 0 of single values."""
    return np.square(centred).sum(axis=1, keepdims=True) / max(1, centred.shape[1] - 1)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows (n, d) of length 1; those of zeros stay."""
    return rows / np.sqrt(np.maximum(np.square(rows).sum(axis=1, keepdims=True), TINY))


def _any_order(pictures: np.ndarray) -> np.ndarray:
    """Positions (n,) of the pictures in an order that only their values decide: along a fixed random direction."""
    direction = np.random.RandomState(0).standard_normal(n_columns(pictures))
    along = [row_block(pictures, rows) @ direction for rows in slices(len(pictures), ORDER_ROWS)]
    return np.argsort(np.concatenate(along), kind="stable")
