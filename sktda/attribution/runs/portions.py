"""Gradients along the stages of a training, as many at a time as the memory takes."""

from __future__ import annotations

from collections.abc import Callable, Container

import torch
from torch import Tensor

from sktda.attribution.gradients.fitted import Fitted
from sktda.attribution.runs.stages import Run
from sktda.engine.functional import Direction
from sktda.engine.layers import LayerRows
from sktda.engine.pairwise import QUERY_BYTES, by_layer
from sktda.engine.per_row import REST
from sktda.engine.unrolling import Flow
from sktda.model.base import Rows, unflatten

COPIES = 5  # of a portion's gradients: as they come, by layer, and in the bases of a product


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


def formed(run: Run, flow: Flow, direction: Direction) -> dict[str, Tensor]:
    """(k, p) by layer: what gradients of a segment are dotted with, for k directions at its end."""
    return by_layer(run.engine, flow.gathered(direction))


def captured(run: Run, batch: slice, names: Container[str]) -> dict[str, LayerRows]:
    """Factors of a batch of the run's rows, of the layers of these names."""
    layers = None if REST in names else [layer for layer in run.engine.layers or [] if layer.name in names]
    return run.engine.capture(run.rows.block(batch, run.model.device), None, layers)[1]
