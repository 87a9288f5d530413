"""Sums over checkpoints of dot products of gradients: what TracIn and InnerProduct share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial

import torch
from torch import Tensor

from sktda.attribution.gradients.fitted import Fitted
from sktda.attribution.gradients.objective_gradients import Asked
from sktda.attribution.gradients.pairs import GradientAttributor
from sktda.attribution.gradients.rates import Rates
from sktda.devices import exact_device, in_pairs
from sktda.engine.in_batches import removal_slopes, removal_squares
from sktda.engine.layers import LayerRows
from sktda.engine.pairwise import Plain, along_each
from sktda.engine.per_row import PerRow
from sktda.engine.weighed import weighed
from sktda.model.base import Rows

SHARD = 16_384  # training rows between two changes of checkpoint, in `_blocks`


class CheckpointDots(GradientAttributor):
    """value_i = (1/n) sum over checkpoints c of weight_c q_c' g_i(theta_c), weights by parameter where these differ."""

    within_batches = True

    @abstractmethod
    def _weights(self, fitted: Fitted) -> list[tuple[int | None, Rates]]:
        """(checkpoint, weight) pairs; checkpoint None = the final parameters, which the model holds."""

    def _at(self, fitted: Fitted) -> Generator[Rates, None, None]:
        """Puts one checkpoint after another into the model, and the final parameters back; yields the weights."""
        weights = self._weights(fitted)
        trajectory = fitted.trajectory
        try:
            for checkpoint, weight in weights:
                if checkpoint is not None:
                    assert trajectory is not None
                    fitted.model.load(trajectory.state(checkpoint))
                yield weight
        finally:  # also where the memory has run out, and the pass is tried again
            if trajectory is not None:
                fitted.model.load(trajectory.state(-1))

    def _validation_scores(self, fitted: Fitted, asked: Asked) -> Tensor:
        if fitted.batches is not None:
            return self._in_batches(
                fitted, lambda rates, rows: removal_slopes(fitted.engine, rows, rates.along(asked.gradients()))
            ).T

        def values(rates: Rates) -> tuple[str, Callable[[int, int], Tensor]]:
            directions = rates.along(asked.gradients())
            return fitted.passes.code(directions.values()), partial(along_each, fitted.engine, fitted.rows, directions)

        return self._summed(fitted, values).T

    def _self_scores(self, fitted: Fitted) -> Tensor:
        if fitted.batches is not None:
            return -self._in_batches(fitted, lambda rates, rows: removal_squares(fitted.engine, rows, rates.roots))
        # the root of a weight in either gradient: the weight once
        rows = fitted.rows.rooted()
        fitted.engine.prepare(rows)

        def values(rates: Rates) -> tuple[str, Callable[[int, int], Tensor]]:
            return "self", partial(weighed(fitted.engine, rates.roots).square_norms, rows, False)  # type: ignore[return-value]

        return -self._summed(fitted, values)

    def _in_batches(self, fitted: Fitted, measure: Callable[[Rates, Rows], Tensor]) -> Tensor:
        """`_summed` of measure(rates, rows) of the batches that the pairs stood in."""
        assert fitted.batches is not None
        total = torch.zeros(())
        # an error on the way closes the generator at once, which puts the final parameters back
        with closing(self._at(fitted)) as checkpoints:
            for (checkpoint, _), rates in zip(self._weights(fitted), checkpoints, strict=True):
                standing = fitted.batches.at(checkpoint)
                total = total + rates.size * standing.by_pair(measure(rates, standing.rows))
        return total / fitted.n

    def _summed(self, fitted: Fitted, at_checkpoint: Callable) -> Tensor:
        """(1/n) sum over checkpoints of weight x values (n, ...); at_checkpoint(rates): name, values(start, stop)."""
        total: Tensor | float = 0.0
        for number, rates in enumerate(self._at(fitted), start=1):
            name, compute = at_checkpoint(rates)
            values = fitted.passes.collect(f"checkpoint {number} {name}", len(fitted.rows), compute)
            # the rate is size * root^2: root^2 is in the direction, or the root in both gradients of a square
            total = total + rates.size * values.double()
        assert isinstance(total, Tensor)
        return total / fitted.n

    def _blocks(self, fitted: Fitted, queries: Rows, measure: Callable | None) -> Iterator[tuple[slice, slice, Tensor]]:
        rows, device = fitted.rows, fitted.model.device
        fitted.engine.prepare(rows)  # by them, whatever the queries are

        def values(asked: slice, shard: slice) -> Tensor:
            shape = asked.stop - asked.start, shard.stop - shard.start
            # all checkpoints for one shard after the other: of pairs only this sum is held
            total = torch.zeros(shape, dtype=torch.float64, device=exact_device(device))
            with closing(self._at(fitted)) as checkpoints:
                for rates in checkpoints:
                    # the rate of a parameter is size * root^2: a root in either gradient, the size below
                    engine = weighed(fitted.engine, rates.roots)

                    def capture(part: slice, engine: PerRow = engine) -> dict[str, LayerRows]:
                        return engine.capture(queries.block(part, device), measure)[1]

                    plain = Plain([each for _, each in engine.computed(queries, capture, asked.start, asked.stop)])

                    def block(part: slice, engine: PerRow = engine, plain: Plain = plain) -> Tensor:
                        return plain.block(engine.capture(rows.block(part, device))[1])

                    for part, found in engine.computed(rows, block, shard.start, shard.stop):
                        place = slice(part.start - shard.start, part.stop - shard.start)
                        total[:, place] += rates.size * found.to(total.device)
            return total / fitted.n

        n = len(queries)
        yield from in_pairs((n, n), lambda asked: asked, (len(rows), SHARD), values)
