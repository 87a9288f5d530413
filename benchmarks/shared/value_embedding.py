"""Data value embeddings of a recorded run of SGD (Wang et al. 2025, arXiv:2412.09538), for comparison.

Of row z of the batch of B rows at step t: E = (eta_t / B) (1 - M_t) g, g its gradient there, and what the later steps
leave of it is 1 - M_t = product over later steps of (1 - (eta / B) sum of g g'), the batch's gradients in place of its
Hessian. Going backwards, M grows by the sum of E g' over the batch. Without a row the loss of a query rises by its
gradient at the end times the sum of the row's E. Gradients may be projected first, layer by layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sktda.engine.replay import Replay


class ValueEmbedding:
    """Embeddings (n, p) of all rows, of k projected coordinates if `size` = k is given.

    attributor: a fitted SGDInfluence of a run of SGD without momentum.
    """

    def __init__(self, attributor: Any, size: int | None = None, seed: int = 0) -> None:
        fitted = attributor._ready()
        replay: Replay = attributor._replay(fitted)
        shapes = replay.shapes
        generator = torch.Generator().manual_seed(seed)
        self.maps = None
        if size is not None:
            layers: dict[str, list[int]] = {}
            for name, shape in shapes.items():
                layers.setdefault(name.rpartition(".")[0], []).append(shape.numel())
            each = size // len(layers)
            self.maps = [
                torch.randn(sum(parts), each, generator=generator, dtype=fitted.model.dtype) / each**0.5
                for parts in layers.values()
            ]
        p = sum(s.numel() for s in shapes.values()) if self.maps is None else each * len(self.maps)
        self.embeddings = torch.zeros(len(fitted.rows), p, dtype=fitted.model.dtype)
        later = torch.zeros(p, p, dtype=fitted.model.dtype)
        self.n_bytes = later.nbytes + self.embeddings.nbytes
        rates = fitted.trajectory.step_learning_rates
        try:
            for segment in reversed(replay.segments()):
                for batch in replay.backwards(segment.start, segment.stop):
                    block = batch.rows.block(slice(0, len(batch.rows)), fitted.model.device)
                    g = self.projected(replay.engine.block_gradients(block))
                    found = float(rates[batch.step]) / batch.size * (g - g @ later.T)
                    later += found.T @ g
                    self.embeddings.index_add_(0, torch.from_numpy(batch.positions), found)
        finally:
            replay.finish()
        self.fitted = fitted

    def projected(self, gradients: Tensor) -> Tensor:
        """(n, k) of gradients (n, p)."""
        if self.maps is None:
            return gradients
        parts = gradients.split([len(each) for each in self.maps], dim=1)
        return torch.cat([part @ each for part, each in zip(parts, self.maps, strict=True)], dim=1)

    def values(self, X: Any, y: Any) -> np.ndarray:
        """(q, n) rises of the queries' losses without each row."""
        rows = self.fitted.model.rows(X, y)
        block = rows.block(slice(0, len(rows)), self.fitted.model.device)
        return (self.projected(self.fitted.engine.block_gradients(block)) @ self.embeddings.T).numpy()
