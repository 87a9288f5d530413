"""The nearest rows that agree with a suspect's suggested label, in the feature space that the detector uses."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from sktda.data import block_rows, slices
from sktda.engine.unit_rows import UnitRows

N_NEIGHBOURS = 3


def nearest_agreeing(
    features: Any, suspects: np.ndarray, agreeing: list[np.ndarray], scale: str = "auto"
) -> list[np.ndarray]:
    """Positions of up to N_NEIGHBOURS rows per suspect, nearest first.

    features (n, ...); suspects (k,) positions; agreeing[i]: positions of the rows allowed beside suspect i, the same
    array object for suspects that share them, so that these are searched together; scale: that of `ComplexityGap`, by
    which rows are compared. Cost O(k n d), streamed by blocks.
    """
    import torch

    rows = UnitRows(features.tocsr() if sparse.issparse(features) else features, scale)

    def unit(positions: np.ndarray) -> np.ndarray:
        return rows.block(positions, torch.float32, torch.device("cpu")).numpy()

    nearest = [np.array([], dtype=int)] * len(suspects)
    groups: dict[int, list[int]] = {}
    for i, allowed in enumerate(agreeing):
        groups.setdefault(id(allowed), []).append(i)
    for members in groups.values():
        allowed, queries = agreeing[members[0]], unit(suspects[members])
        distances, found = [], []
        for part in slices(len(allowed), block_rows(rows.X)):
            block = allowed[part]
            search = NearestNeighbors(n_neighbors=min(N_NEIGHBOURS, len(block)), algorithm="brute").fit(unit(block))
            distance, local = search.kneighbors(queries)
            distances.append(distance)
            found.append(block[local])
        if found:
            order = np.argsort(np.hstack(distances), axis=1, kind="stable")[:, :N_NEIGHBOURS]
            for i, row in zip(members, np.take_along_axis(np.hstack(found), order, axis=1), strict=True):
                nearest[i] = row
    return nearest
