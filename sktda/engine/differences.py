"""Second derivatives from gradients at shifted parameters: the interface of `SecondOrder` by finite differences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sktda.devices import exact
from sktda.engine.functional import Direction
from sktda.engine.layers import Sum
from sktda.engine.per_row import PerRow
from sktda.engine.second_order import Changes
from sktda.model.base import Rows

DISTANCE = 1e-3  # length of a shift of the parameters


class FiniteDifferences:
    """Second derivatives along a direction w as gradients at theta + 0.001 w / |w|, less those on the other side.

    central=False: less those at theta itself, with an error of first order in the distance in place of the second.
    Source of the distance and of the one-sided form: the released code of Diff-In (arXiv:2508.14648).
    """

    def __init__(self, engine: PerRow, central: bool = True) -> None:
        self.engine = engine
        self.central = central

    def products(self, rows: Rows, directions: Direction) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(gradient of the mean loss plus penalty, its Hessian times k directions (k, ...)), by parameter."""
        gradient = risk_gradient(self.engine, rows)
        found = {name: torch.empty_like(value) for name, value in directions.items()}
        for k in range(len(next(iter(directions.values())))):
            for name, value in self._product(rows, {n: v[k] for n, v in directions.items()}, gradient).items():
                found[name][k] = value
        return gradient, found

    def product(self, rows: Rows, direction: Direction) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`products` with one direction."""
        gradient = risk_gradient(self.engine, rows)
        return gradient, self._product(rows, direction, gradient)

    def changes(self, block: tuple, direction: Direction) -> Changes:
        """What the rows' losses and gradients do along a direction."""
        losses, factors = self.engine.capture(block)  # at theta, before any shift
        size = length(direction)
        if size == 0:
            still = {name: factor.scaled(0.0) for name, factor in factors.items()}
            return Changes(torch.zeros_like(losses), factors, still)
        with self._shifted(direction, DISTANCE / size):
            values, ahead = self.engine.capture(block)
        before, behind = losses, factors
        if self.central:
            with self._shifted(direction, -DISTANCE / size):
                before, behind = self.engine.capture(block)
        # per unit of w: the points are one or two DISTANCEs apart, and w is `size` long
        scale = size / (DISTANCE * (2 if self.central else 1))
        changes = {name: Sum([ahead[name].scaled(scale), behind[name].scaled(-scale)]) for name in factors}
        return Changes(scale * (values - before), factors, dict(changes))

    def _product(self, rows: Rows, direction: Direction, gradient: Direction) -> dict[str, Tensor]:
        size = length(direction)
        if size == 0:
            return {name: torch.zeros_like(value) for name, value in direction.items()}
        with self._shifted(direction, DISTANCE / size):
            ahead = risk_gradient(self.engine, rows)
        behind = gradient
        if self.central:
            with self._shifted(direction, -DISTANCE / size):
                behind = risk_gradient(self.engine, rows)
        scale = size / (DISTANCE * (2 if self.central else 1))
        return {name: scale * (ahead[name] - behind[name]) for name in ahead}

    @contextmanager
    def _shifted(self, direction: Direction, scale: float) -> Iterator[None]:
        own = self.engine.model.parameters
        before = {name: value.detach().clone() for name, value in own.items()}
        with torch.no_grad():
            for name, value in own.items():
                value.add_(direction[name].to(value), alpha=scale)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in own.items():
                    # taking the shift back would leave its rounding in the parameters
                    value.copy_(before[name])


def length(direction: Direction) -> float:
    """Euclidean length over all parameters."""
    return float(sum(exact(value).square().sum() for value in direction.values())) ** 0.5


def risk_gradient(engine: PerRow, rows: Rows) -> dict[str, Tensor]:
    """Gradient of the mean loss plus penalty, by parameter."""
    own, decay = engine.model.parameters, engine.model.decay
    found = engine.mean_gradient(rows)
    # decay * theta: differences of it at two points are the penalty's part of H w
    return {name: value + decay.get(name, 0.0) * own[name].detach() for name, value in found.items()}
