"""Labels drawn from the model's own predictions, of which the Fisher matrix is made."""

from __future__ import annotations

import torch
from torch import Tensor

from sktda.engine.per_row import PerRow
from sktda.model.base import Rows, forward
from sktda.model.likelihood import Likelihood


class Noise:
    """What labels are drawn with, (n, ...) by the number of a state: the same in every process."""

    def __init__(self, engine: PerRow, rows: Rows, seed: int) -> None:
        self._engine, self._rows, self._seed = engine, rows, seed
        self._drawn: dict[int, Tensor] = {}

    def __getstate__(self) -> dict:
        # workers draw the same from the seed: numbers for all rows need not be sent
        return {**vars(self), "_drawn": {}}

    def __call__(self, state: int) -> Tensor:
        if state not in self._drawn:
            model = self._engine.model
            generator = torch.Generator().manual_seed(self._seed + state)
            with torch.no_grad():
                shape = forward(model.module, self._rows.block(slice(0, 1), model.device)[0]).shape
            # for all rows at once, on the processor: batches, shards and devices then change no row's label
            self._drawn[state] = model.likelihood.noise(torch.Size((len(self._rows), *shape[1:])), generator)
        return self._drawn[state]


def drawn_slopes(likelihood: Likelihood, outputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
    """Slopes at labels that the noise, in float64, draws from the outputs; computed where the noise is."""
    # the processor where the device has no float64
    place = noise.device
    return likelihood.slopes(outputs.detach().to(place), targets.to(place), noise).to(outputs)
