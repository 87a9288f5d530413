"""Sums over checkpoints of dot products of gradients: what TracIn and InnerProduct share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from sktda.attribution.gradients.base import Fitted
from sktda.attribution.gradients.objective_gradients import Asked
from sktda.attribution.gradients.pairs import GradientAttributor
from sktda.attribution.gradients.rates import Rates
from sktda.data import slices
from sktda.engine.journal import digest
from sktda.engine.layers import LayerRows
from sktda.engine.pairwise import Plain, along_each
from sktda.engine.weighed import Weighed
from sktda.model.base import Rows

SHARD = 16_384  # training rows between two changes of checkpoint, in `_blocks`


class CheckpointDots(GradientAttributor):
    """value_i = (1/n) sum over checkpoints c of weight_c q_c' g_i(theta_c), weights by parameter where these differ."""

    @abstractmethod
    def _weights(self, fitted: Fitted) -> list[tuple[int | None, Rates]]:
        """(checkpoint, weight) pairs; checkpoint None = the final parameters, which the model holds."""

    def _at(self, fitted: Fitted) -> Iterator[Rates]:
        """Puts one checkpoint after another into the model, and the final parameters back; yields the weights."""
        weights = self._weights(fitted)
        trajectory = fitted.trajectory
        for checkpoint, weight in weights:
            if checkpoint is not None:
                assert trajectory is not None
                fitted.model.load(trajectory.state(checkpoint))
            yield weight
        if trajectory is not None:
            fitted.model.load(trajectory.state(-1))

    def _validation_scores(self, fitted: Fitted, asked: Asked) -> Tensor:
        def values(rates: Rates) -> tuple[str, Callable[[int, int], Tensor]]:
            directions = rates.along(asked.gradients())
            return digest(directions.values()), partial(along_each, fitted.engine, fitted.rows, directions)

        return self._summed(fitted, values).T

    def _self_scores(self, fitted: Fitted) -> Tensor:
        rows = fitted.rows.rooted()
        fitted.engine.prepare(rows)

        def values(rates: Rates) -> tuple[str, Callable[[int, int], Tensor]]:
            return "self", partial(Weighed.of(fitted.engine, rates.roots).square_norms, rows, False)  # type: ignore[return-value]

        return -self._summed(fitted, values)

    def _summed(self, fitted: Fitted, at_checkpoint: Callable) -> Tensor:
        """(1/n) sum over checkpoints of weight x values (n, ...); at_checkpoint(rates): name, values(start, stop)."""
        total: Tensor | float = 0.0
        for number, rates in enumerate(self._at(fitted), start=1):
            name, compute = at_checkpoint(rates)
            values = fitted.passes.collect(f"checkpoint {number} {name}", len(fitted.rows), compute)
            total = total + rates.size * values.double()
        assert isinstance(total, Tensor)
        return total / fitted.n

    def _blocks(self, fitted: Fitted, queries: Rows, measure: Callable | None) -> Iterator[tuple[slice, slice, Tensor]]:
        rows, device = fitted.rows, fitted.model.device
        fitted.engine.prepare(rows)
        everyone = slice(0, len(queries))
        for shard in slices(len(rows), SHARD):
            total = torch.zeros(len(queries), shard.stop - shard.start, dtype=torch.float64, device=device)
            for rates in self._at(fitted):
                engine = Weighed.of(fitted.engine, rates.roots)
                asked: list[dict[str, LayerRows]] = [
                    engine.capture(queries.block(part, device), measure)[1] for part in engine.batches(queries)
                ]
                plain = Plain(asked)

                for part in engine.batches(rows, shard.start, shard.stop):
                    block = plain.block(engine.capture(rows.block(part, device))[1])
                    total[:, part.start - shard.start : part.stop - shard.start] += rates.size * block
            yield everyone, shard, total / fitted.n
