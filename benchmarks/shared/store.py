"""The sparse relatives of compressed gradients, for the benchmark of the store: GraSS and its factored form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

TIMES = 4  # as many coordinates as numbers are kept, before the random projection


class Grass:
    """Random coordinates of the gradients of an MLP, and a sparse random projection of these to `dim` numbers.

    In the place of TRAK's projection of all coordinates. Source: arXiv:2505.18976, with a random mask.
    """

    def __init__(self, engine: Any, rows: Any, dim: int, seed: int) -> None:
        from sktda.engine.projection import Projection

        engine.prepare(rows)
        shapes = {}
        for layer in engine.layers:
            out, width = layer.shapes[0]
            shapes[layer.name] = out, width + 1  # with the bias
        sizes = [out * width for out, width in shapes.values()]
        random = np.random.default_rng(seed)
        count = min(TIMES * dim, sum(sizes))
        chosen = np.sort(random.choice(sum(sizes), count, replace=False))
        self.places, start = {}, 0
        for name, size in zip(shapes, sizes, strict=True):
            own = chosen[(chosen >= start) & (chosen < start + size)] - start
            self.places[name] = tuple(torch.from_numpy(each) for each in np.divmod(own, shapes[name][1]))
            start += size
        self.scale = (sum(sizes) / count) ** 0.5
        self.projection = Projection({"": count}, dim, seed)
        self.width = self.projection.width

    def __call__(self, factors: Mapping[str, Any]) -> Tensor:
        """(n, dim)."""
        from sktda.engine.layers import Formed

        parts = [
            factors[name].delta[:, lines] * factors[name].a[:, columns]
            for name, (lines, columns) in self.places.items()
        ]
        return self.projection({"": Formed(self.scale * torch.cat(parts, dim=1))})


def coordinate_sides(blocks: list, rank: int, seed: int) -> dict[str, Tensor]:
    """Some inputs and some output gradients in the place of projections of all: the mask of factored GraSS."""
    from sktda.engine.compressed_curvature import side_sizes

    found = {}
    for number, (key, size) in enumerate(side_sizes(blocks).items()):
        chosen = np.random.default_rng([seed, number]).permutation(size)[: min(rank, size)]
        found[key] = torch.eye(size)[:, torch.from_numpy(chosen)]
    return found
