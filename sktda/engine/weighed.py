"""Gradients of a run whose parameter groups have learning rates of their own, as if these were one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sktda.engine.layers import Formed, Layer, LayerRows
from sktda.engine.per_row import REST, PerRow


class Weighed(PerRow):
    """The engine with gradients by row times a root for every parameter.

    A step of rate r of a parameter is one of rate 1 of parameter / sqrt(r), whose gradients are sqrt(r) times as long.
    Products of two gradients then have the rate in them. Everything that is made of `capture` is meant so; mean
    gradients and products with the Hessian are those of the model itself.
    """

    roots: dict[str, float]

    @classmethod
    def of(cls, engine: PerRow, roots: dict[str, float] | None) -> PerRow:
        """The engine with these roots by parameter name; the engine itself for None."""
        if roots is None:
            return engine
        weighed = cls.__new__(cls)
        vars(weighed).update(vars(engine), roots=roots)
        return weighed

    def capture(
        self,
        block: tuple,
        losses: Callable[[Tensor, Tensor], Tensor] | None = None,
        layers: list[Layer] | None = None,
        parameters: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, LayerRows]]:
        """As of `PerRow`, each gradient times its parameter's root."""
        values, factors = super().capture(block, losses, layers, parameters)
        if self.layers is None:  # still being looked for
            return values, factors
        names = {layer.name: layer.parameters for layer in self.layers} | {REST: self.rest}
        return values, {name: self._weighed(factor, names[name]) for name, factor in factors.items()}

    def _weighed(self, factor: LayerRows, names: list[str]) -> LayerRows:
        roots = [self.roots[name] for name in names]
        if len(set(roots)) == 1:
            return factor.scaled(roots[0])
        gradients = factor.gradients()
        own = self.model.parameters
        sizes = [own[name].numel() for name in names]
        each = torch.tensor(roots, dtype=gradients.dtype).repeat_interleave(torch.tensor(sizes))
        return Formed(gradients * each.to(gradients.device))
