"""Sums over checkpoints of dot products of gradients: what TracIn and InnerProduct share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sktda.attribution.gradients.base import Fitted
from sktda.attribution.gradients.objective_gradients import Asked
from sktda.attribution.gradients.pairs import GradientAttributor
from sktda.data import slices
from sktda.engine.journal import digest
from sktda.engine.layers import LayerRows
from sktda.engine.pairwise import Plain, along_each
from sktda.model.base import Rows
from sktda.model.trajectory import Trajectory

SHARD = 16_384  # training rows between two changes of checkpoint, in `_blocks`


def rate_sums(trajectory: Trajectory) -> list[float]:
    """Sum of the learning rates, divided by 1 - momentum, that each checkpoint stands for."""
    return one_rate(trajectory.group_effective_rate_sums)


def one_rate(groups: np.ndarray) -> list[float]:
    """(C,) from rates of parameter groups (C, n_groups); ValueError where these differ."""
    if not np.allclose(groups, groups[:, :1]):
        raise ValueError(
            f"the optimiser trained its {groups.shape[1]} parameter groups at different learning rates, so gradients "
            "of different parameters cannot be added up; use one rate, or Influence"
        )
    return groups[:, 0].tolist()


class CheckpointDots(GradientAttributor):
    """value_i = (1/n) sum over checkpoints c of weight_c q_c' g_i(theta_c)."""

    @abstractmethod
    def _weights(self, fitted: Fitted) -> list[tuple[int | None, float]]:
        """(checkpoint, weight) pairs; checkpoint None = the final parameters, which the model holds."""

    def _at(self, fitted: Fitted) -> Iterator[float]:
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
        def values(directions: dict[str, Tensor]) -> tuple[str, Callable[[int, int], Tensor]]:
            return digest(directions.values()), partial(along_each, fitted.engine, fitted.rows, directions)

        return self._summed(fitted, lambda: values(asked.gradients())).T

    def _self_scores(self, fitted: Fitted) -> Tensor:
        rows = fitted.rows.rooted()
        return -self._summed(
            fitted, lambda: ("self", lambda start, stop: fitted.engine.square_norms(rows, start=start, stop=stop))
        )

    def _summed(self, fitted: Fitted, at_checkpoint: Callable) -> Tensor:
        """(1/n) sum over checkpoints of weight x values (n, ...); at_checkpoint() gives a name, values(start, stop)."""
        total: Tensor | float = 0.0
        for number, weight in enumerate(self._at(fitted), start=1):
            name, compute = at_checkpoint()
            values = fitted.passes.collect(f"checkpoint {number} {name}", len(fitted.rows), compute)
            total = total + weight * values.double()
        assert isinstance(total, Tensor)
        return total / fitted.n

    def _blocks(self, fitted: Fitted, queries: Rows, measure: Callable | None) -> Iterator[tuple[slice, slice, Tensor]]:
        engine, rows, device = fitted.engine, fitted.rows, fitted.model.device
        engine.prepare(rows)
        everyone = slice(0, len(queries))
        for shard in slices(len(rows), SHARD):
            total = torch.zeros(len(queries), shard.stop - shard.start, dtype=torch.float64, device=device)
            for weight in self._at(fitted):
                asked: list[dict[str, LayerRows]] = [
                    engine.capture(queries.block(part, device), measure)[1] for part in engine.batches(queries)
                ]
                plain = Plain(asked)

                for part in engine.batches(rows, shard.start, shard.stop):
                    block = plain.block(engine.capture(rows.block(part, device))[1])
                    total[:, part.start - shard.start : part.stop - shard.start] += weight * block
            yield everyone, shard, total / fitted.n
