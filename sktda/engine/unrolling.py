"""What a stretch of training does to a direction: gradient flow in the eigenbasis of the curvature (arXiv:2405.12186).

After steps of total rate x on a quadratic risk of curvature H, exp(-x H) of a displacement is left, and a gradient met
at every one of them has moved the parameters by (1 - exp(-x H)) H^-1 of itself. A flow applies the transposes of the
two: `gathered` turns the gradient of an objective into the direction that training gradients are dotted with,
`remaining` carries it to the start of the stretch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sktda.engine.blocks import BlockCurvature
from sktda.engine.curvature import DenseCurvature, Spectral
from sktda.engine.ekfac import EKFAC
from sktda.engine.functional import Direction


def remaining(rate: float) -> Spectral:
    """exp(-rate s): what is left of a displacement along an eigenvalue s."""
    return lambda values: torch.exp(-rate * values)


def gathered(rate: float) -> Spectral:
    """(1 - exp(-rate s)) / s: the weight of gradients along an eigenvalue s; `rate` itself at s = 0."""

    def fn(values: Tensor) -> Tensor:
        # below 1e-30 the quotient is the rate to the last digit, and its denominator may be 0
        tiny = (rate * values).abs() < 1e-30
        # 1 - exp(-x s) itself would lose its digits where little was learned
        return torch.where(tiny, rate, -torch.expm1(-rate * values) / torch.where(tiny, 1.0, values))

    return fn


Curvature = EKFAC | BlockCurvature | DenseCurvature


class Flow(ABC):
    """One stretch of training. Directions, by parameter, may have one leading axis of several.

    root: square root of the preconditioner P by parameter, where the curvature is of P^1/2 H P^1/2.
    """

    def __init__(self, curvature: Curvature, root: Direction | None = None) -> None:
        self.curvature = curvature
        self.root = root

    @abstractmethod
    def coordinates(self, direction: Direction) -> dict[str, Tensor]:
        """What gradients of this stretch are dotted with, in the eigenbasis of the curvature, before `root`."""

    @abstractmethod
    def remaining(self, direction: Direction) -> dict[str, Tensor]:
        """The direction at the start of the stretch."""

    def gathered(self, direction: Direction) -> dict[str, Tensor]:
        """What gradients of this stretch are dotted with, by parameter."""
        found = self.rooted(self.curvature.back(self.coordinates(direction)))
        return {name: value.to(direction[name]) for name, value in found.items()}

    def rooted(self, direction: Direction) -> Direction:
        return (
            direction
            if self.root is None
            else {name: self.root[name] * v.to(self.root[name].device) for name, v in direction.items()}
        )


class SpectralFlow(Flow):
    """Functions of the curvature itself: SGD, or steps preconditioned by P.

    With M = P^1/2 H P^1/2 (plus a decoupled weight decay), gathered is P^1/2 F_r(M) P^1/2 u and remaining
    P^-1/2 F_S(M) P^1/2 u.
    rate: sum of the learning rates, divided by 1 - momentum.
    """

    def __init__(self, curvature: Curvature, rate: float, root: Direction | None = None) -> None:
        super().__init__(curvature, root)
        self.rate = rate
        self._seen: tuple[Direction, dict[str, Tensor]] | None = None

    def coordinates(self, direction: Direction) -> dict[str, Tensor]:
        """F_r(M) P^1/2 u."""
        return self.curvature.scale(gathered(self.rate), self._rotated(direction))

    def remaining(self, direction: Direction) -> dict[str, Tensor]:
        """P^-1/2 F_S(M) P^1/2 u."""
        found = self.curvature.back(self.curvature.scale(remaining(self.rate), self._rotated(direction)))
        if self.root is not None:
            found = {name: value.to(self.root[name].device) / self.root[name] for name, value in found.items()}
        return {name: value.to(direction[name]) for name, value in found.items()}

    def _rotated(self, direction: Direction) -> dict[str, Tensor]:
        if self._seen is None or self._seen[0] is not direction:  # both methods are asked about one direction
            self._seen = direction, self.curvature.rotate(self.rooted(direction))
        return self._seen[1]


class DiagonalFlow(Flow):
    """Adam and AdamW under EK-FAC, which has no eigenbasis together with P: decay by diagonals, H^-1 by EK-FAC.

    scale: P by parameter, a diagonal; decay: decoupled weight decay by parameter. The inverse is of H plus decay / P
    (its diagonal in the eigenbasis) plus a tenth of the layer's mean eigenvalue.
    """

    def __init__(self, curvature: EKFAC, rate: float, scale: Direction, decay: dict[str, float]) -> None:
        super().__init__(curvature)
        self.fall: dict[str, Tensor] = {}
        self.inverse: dict[str, Tensor] = {}
        for layer in curvature.layers:
            values = curvature.values[layer.name]
            added = {name: torch.full_like(scale[name], decay.get(name, 0.0)).to(values) for name in layer.parameters}
            by_decay = curvature.matrix(added, layer)
            steps = curvature.matrix({name: scale[name].to(values) for name in layer.parameters}, layer)
            # d = (Q_S * Q_S) values (Q_A * Q_A)', the diagonal of H by parameter
            diagonal = curvature.diagonal(values, layer.name, back=True)
            self.fall |= curvature.direction(-rate * (steps * diagonal + by_decay), layer)
            # P H + decay = P (H + decay / P)
            shifted = values + curvature.diagonal(by_decay / steps, layer.name)
            self.inverse[layer.name] = 1 / (shifted + 0.1 * shifted.mean())

    def coordinates(self, direction: Direction) -> dict[str, Tensor]:
        """H^-1 (1 - exp(-x (P diag(H) + decay))) u."""
        assert isinstance(self.curvature, EKFAC)
        # the transpose of (1 - S) H^-1: the factors, which do not commute, change places
        met = self.curvature.rotate({name: -torch.expm1(fall) * direction[name] for name, fall in self.fall.items()})
        return {name: self.inverse[name] * value for name, value in met.items()}

    def remaining(self, direction: Direction) -> dict[str, Tensor]:
        """exp(-x (P diag(H) + decay)) u."""
        return {name: torch.exp(fall) * direction[name] for name, fall in self.fall.items()}
