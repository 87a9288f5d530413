"""A trained model as the methods of gradients have it, and what they all ask of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sktda.attribution.gradients.batches import Batches
from sktda.engine.journal import Passes
from sktda.engine.pairwise import QUERY_BYTES
from sktda.engine.per_row import PerRow
from sktda.model.base import DifferentiableModel, Rows, unflatten
from sktda.model.given import GivenModel
from sktda.model.likelihood import Likelihood
from sktda.model.sealed import digest
from sktda.model.trajectory import Trajectory
from sktda.model.trajectory_files import contents

COPIES = 5  # of a portion's gradients: as they come, by layer, and in the bases of a product


@dataclass
class Fitted:
    """A trained model with its training rows, ready for the engine."""

    model: DifferentiableModel
    rows: Rows
    engine: PerRow
    given: GivenModel
    n: int
    """Rows that the model was trained on: the n of 1/n."""
    passes: Passes
    trajectory: Trajectory | None = None
    """The record of its training, where there is one."""
    batches: Batches | None = None
    """Where pairs meet in the loss: those that they stood in."""
    stages: Any = None
    """Those of the training, where the method follows several; `records` as here."""
    settled: Callable[[Likelihood], Likelihood] | None = None
    """Where the training rows are elsewhere: what puts into a likelihood what they told it."""

    @property
    def records(self) -> list[str | bytes]:
        """What tells the recorded runs, and the rows in them, from others."""
        if self.stages is not None:
            return self.stages.records  # type: ignore[no-any-return]
        return [] if self.trajectory is None else [digest(contents(self.trajectory))]


def portion_size(fitted: Fitted) -> int:
    """How many queries' gradients may be held at a time."""
    return max(1, QUERY_BYTES // (COPIES * 4 * sum(value.numel() for value in fitted.model.parameters.values())))


def at_the_end(fitted: Fitted, queries: Rows, measure: Callable | None, part: slice) -> dict[str, Tensor]:
    """(k, ...) gradients of some queries at the end of training, by parameter."""
    engine, device = fitted.engine, fitted.model.device
    shapes = {name: value.shape for name, value in fitted.model.parameters.items()}
    found = engine.computed(
        queries, lambda batch: engine.block_gradients(queries.block(batch, device), measure), part.start, part.stop
    )
    return unflatten(torch.cat([each for _, each in found]), shapes)


def unrecorded(method: str, given: GivenModel) -> str:
    """What to say of an estimator without the recorded run that the method needs."""
    return (
        f"{method} follows a recorded training run, and this {given.name} has none; train a "
        "skorch net with a TrajectoryRecorder among its callbacks (with what the method's docstring says it must "
        "keep), pass TorchModel the trajectory of record_run, or use Influence"
    )


class NotFinite:
    """Which of the values (n_query, n) are not finite, counted block by block: ranks would put them first or last."""

    def __init__(self, n_query: int, n: int) -> None:
        self.by_query, self.by_row = np.zeros(n_query, dtype=int), np.zeros(n, dtype=int)

    def count(self, asked: slice, rows: slice, wrong: np.ndarray) -> None:
        """wrong: mask of the values of these pairs."""
        if wrong.any():
            self.by_query[asked] += wrong.sum(axis=1)
            self.by_row[rows] += wrong.sum(axis=0)

    def refuse(self) -> None:
        """ValueError naming the first training row or query whose values are not finite."""
        if not self.by_row.any():
            return
        (n,), (n_query,) = self.by_row.shape, self.by_query.shape
        # a wrong query spoils its whole line, a wrong training row a column
        queries = np.flatnonzero(self.by_query == n)
        if not len(queries):
            cause = f"training row {np.flatnonzero(self.by_row)[0]}"
        else:
            cause = f"query {queries[0]}" if n_query > 1 else "the query or validation rows"
        raise ValueError(
            f"{int(self.by_row.sum())} of {n_query * n} values are NaN or infinite because of {cause}: X or y holds "
            "NaN or infinity there, or a number too large for the model's precision; impute, scale or drop it"
        )


def refuse_nan(values: np.ndarray) -> None:
    """ValueError as of NotFinite, for values (n_query, n) that are all there."""
    found = NotFinite(*values.shape)
    found.count(slice(None), slice(None), ~np.isfinite(values))
    found.refuse()
