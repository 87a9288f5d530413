"""The last linear layer of a model: what enters it, what comes out, and the gradient of each row in two factors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from sktda.engine.layers import Mapped, Product, layer_by_layer
from sktda.engine.per_row import PerRow
from sktda.model.base import DifferentiableModel, Rows, forward
from sktda.model.likelihood import Likelihood
from sktda.room import check_held

INSTEAD = "strategy='stratified' needs no features"


@dataclass
class LastLayer:
    """Rows at the last linear layer of a model.

    features (n, d): its inputs. outputs: those of the model. gives_outputs: whether the layer's outputs are the
    model's, at all rows; only then is the gradient at the layer known in closed form.
    """

    model: str
    features: Tensor
    outputs: Tensor
    targets: Tensor
    weight: Tensor | None
    likelihood: Likelihood
    bias: bool
    gives_outputs: bool

    @cached_property
    def inputs(self) -> Tensor:
        """(n, d + 1) features with a one for the bias, (n, d) without a bias."""
        ones = self.features.new_ones(len(self.features), 1)
        return torch.cat([self.features, ones], dim=1) if self.bias else self.features

    def errors(self, outputs: Tensor | None = None) -> Tensor:
        """(n, C) gradients of the rows' losses with respect to the outputs: p - onehot(y) for a softmax.

        outputs: in place of the model's own. Raises TypeError where the last layer does not give the outputs.
        """
        if not self.gives_outputs:
            raise TypeError(
                f"the outputs of this {self.model} are not those of its last nn.Linear, so there is no closed form of "
                "the gradients at its last layer; give a net that ends in one (without a softmax: the criterion "
                "brings it), or estimator=None for the default net"
            )
        outputs = (self.outputs if outputs is None else outputs).detach().requires_grad_()
        with torch.enable_grad():
            losses = self.likelihood.losses(outputs, self.targets)
            losses = losses if self.weight is None else losses * self.weight
            [errors] = torch.autograd.grad(losses.sum(), [outputs])  # no row is in another's loss, so this holds all
        return errors.reshape(len(errors), -1)

    @cached_property
    def gradients(self) -> Product:
        """Gradients of all rows at the layer, as factors that are never multiplied out."""
        return Mapped(self.inputs, self.errors(), True, self.bias)


def last_layer(model: DifferentiableModel, rows: Rows) -> LastLayer:
    """Inputs and outputs of the last nn.Linear that a pass through the model calls, for all rows.

    Raises TypeError where there is none, or where it sees more than one vector per row (tokens, pixels).
    """
    name = type(model.module).__name__
    engine = PerRow(model)
    kept: list[Tensor] = []  # features, outputs, targets, and weights where there are some, of all rows
    layers: set[nn.Linear] = set()
    same = True

    def work(part: slice) -> None:
        nonlocal same
        inputs, targets, weight = rows.block(part, model.device)
        outputs, seen = _pass(model.module, inputs)
        if not seen:
            raise TypeError(
                f"{name} has no nn.Linear, so its rows have no features at a last linear layer; give a net that ends "
                "in one, or estimator=None"
            )
        [(layer, features, made)] = seen
        if features.ndim != 2 or len(features) != len(targets):
            raise TypeError(
                f"the last nn.Linear of {name} takes inputs of the shape {tuple(features.shape)} for {len(targets)} "
                "rows, and one vector per row is needed; give a net that ends in a layer on whole rows"
            )
        layers.add(layer)
        # equal numbers, in whatever shape, in every batch: an activation may leave those of one as they are
        same = same and made.numel() == outputs.numel() and torch.equal(made.reshape(outputs.shape), outputs)
        found = [features, outputs, targets] + ([] if weight is None else [weight])
        if not kept:
            n_bytes = len(rows) * sum(float(each[:1].nbytes) for each in found)
            check_held(f"CoresetSelector by the last layer of {name}", n_bytes, INSTEAD)
            kept.extend([each.new_empty(len(rows), *each.shape[1:]) for each in found])
        for whole, each in zip(kept, found, strict=True):
            whole[part] = each

    engine.sweep(rows, work)
    features, outputs, targets = kept[:3]
    if not bool(torch.isfinite(features).all() and torch.isfinite(outputs).all()):
        raise ValueError(
            f"features or outputs of {name} are NaN or infinite: its training diverged, or X holds values too large "
            "for it; standardise X, or train with a smaller learning rate"
        )
    weight = kept[3] if len(kept) > 3 else None
    bias = all(layer.bias is not None for layer in layers)  # branches may end in different layers
    return LastLayer(name, features, outputs, targets, weight, model.likelihood, bias, same and len(layers) == 1)


def _pass(module: nn.Module, inputs: Any) -> tuple[Tensor, list[tuple[nn.Linear, Tensor, Tensor]]]:
    """(outputs, [(layer, its inputs, its outputs)] of the last call of a linear layer, if there is one)."""
    seen: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def note(layer: nn.Module, args: tuple, output: Tensor) -> None:
        # a copy of what comes out: a later activation may change it in place
        seen[:] = [(layer, args[0].detach(), output.detach().clone())]  # type: ignore[list-item]

    handles = [part.register_forward_hook(note) for part in module.modules() if isinstance(part, nn.Linear)]
    try:
        with torch.no_grad(), layer_by_layer():
            return forward(module, inputs), seen
    finally:
        for handle in handles:
            handle.remove()
