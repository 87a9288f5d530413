"""Products of directions with the Gauss-Newton matrix of the training risk, which is never formed."""

from __future__ import annotations

import torch
from torch import Tensor

from sktda.engine.functional import Direction, batched_gradients
from sktda.engine.layers import plain_kernels
from sktda.engine.per_row import PerRow
from sktda.model.base import Rows, forward


def gauss_newton_products(engine: PerRow, rows: Rows, directions: Direction) -> dict[str, Tensor]:
    """Gauss-Newton matrix of the mean loss plus penalty, times k directions (k, ...), by parameter.

    One forward and backward pass over the rows for all directions, and two further backward passes for each.
    """
    own, decay = engine.model.parameters, engine.model.decay
    total = {name: torch.zeros_like(directions[name]) for name in own}

    def work(part: slice) -> None:
        found = _of_block(engine, rows.block(part, engine.model.device), directions)
        for name, value in found.items():
            total[name] += value

    engine.prepare(rows)
    k = len(next(iter(directions.values())))
    engine.sweep(rows, work, size=max(1, (engine.batch_size or 1) // k))
    return {name: value / len(rows) + decay.get(name, 0.0) * directions[name] for name, value in total.items()}


def gauss_newton_product(engine: PerRow, rows: Rows, direction: Direction) -> dict[str, Tensor]:
    """`gauss_newton_products` of one direction."""
    found = gauss_newton_products(engine, rows, {name: value[None] for name, value in direction.items()})
    return {name: value[0] for name, value in found.items()}


def _of_block(engine: PerRow, block: tuple, directions: Direction) -> dict[str, Tensor]:
    """J' F J v: outputs along v, times the output Fisher, pulled back."""
    inputs, targets, weight = block
    own, likelihood = engine.model.parameters, engine.model.likelihood
    with torch.enable_grad(), plain_kernels(engine.model.module):
        outputs = forward(engine.model.module, inputs)
        probe = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(outputs, list(own.values()), probe, create_graph=True, allow_unused=True)
        pairs = [(g, directions[name].to(g)) for name, g in zip(own, pulled, strict=True) if g is not None]
        # J' probe is linear in the probe: its derivative along v is J v
        along = batched_gradients([g for g, _ in pairs], [probe], [v for _, v in pairs])[0].detach()
        with torch.no_grad():
            pushed = likelihood.curved(outputs.detach(), targets, along)
            if weight is not None:
                pushed = pushed * weight.reshape(-1, *[1] * (outputs.ndim - 1))
        products = batched_gradients([outputs], list(own.values()), [pushed])
    return dict(zip(own, products, strict=True))
