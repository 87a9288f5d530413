"""Second derivatives of losses: products of the Hessian with directions, and how gradients of rows change along one.

A row's H_i w (H_i the Hessian of its own loss) is the change of its gradient along w. Where gradients are products of
factors, so is this: the change of delta a' is (change of delta) a' + delta (change of a)'. No Hessian is formed, and
where layers have factors no gradient of a row either.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, vmap

from sktda.devices import out_of_memory
from sktda.engine.functional import Direction, batched_gradients, dual_numbers, forward_at
from sktda.engine.layers import Formed, LayerRows, Lookup, Product, Sum, plain_kernels
from sktda.engine.per_row import REST, PerRow
from sktda.model.base import Rows, forward

Factors = dict[str, LayerRows]
AGREES = 16  # times the root of the dtype's precision: relative difference that rounding may make


@dataclass
class Changes:
    """Along a direction w: dots <g_i, w> (n,), factors of the gradients g_i, factors of their changes H_i w."""

    dots: Tensor
    factors: Factors
    changes: Factors


class SecondOrder:
    """Second derivatives for one engine, at its model's present parameters."""

    def __init__(self, engine: PerRow) -> None:
        self.engine = engine
        self._dual: bool | None = None  # whether dual numbers give what backward passes do; tried on the first block

    def products(self, rows: Rows, directions: Direction) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(gradient of the mean loss plus penalty, its Hessian times k directions (k, ...)), by parameter."""
        engine = self.engine
        own, decay = engine.model.parameters, engine.model.decay
        gradient = {name: torch.zeros_like(value) for name, value in own.items()}
        products = {name: torch.zeros_like(directions[name]) for name in own}

        def work(part: slice) -> None:
            _, slopes, bends = self.block_products(rows.block(part, engine.model.device), directions)
            # a cast takes memory, and a batch that runs out of it is tried again: nothing is added before
            bends = {name: bends[name].to(products[name]) for name in own}
            for name in own:
                gradient[name] += slopes[name]
                products[name] += bends[name]

        engine.prepare(rows)
        engine.sweep(rows, work, size=engine.second_order_batch)
        for name, value in own.items():
            rate = decay.get(name, 0.0)
            gradient[name] = gradient[name] / len(rows) + rate * value.detach()
            products[name] = products[name] / len(rows) + rate * directions[name]
        return gradient, products

    def product(self, rows: Rows, direction: Direction) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`products` with one direction."""
        gradient, products = self.products(rows, {name: value[None] for name, value in direction.items()})
        return gradient, {name: value[0] for name, value in products.items()}

    def block_products(
        self, block: tuple, directions: Direction
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Of a block: (dots (n, k) of its rows' gradients with k directions, sum of gradients, sum of H_i directions).

        Two backward passes for the first direction and one for each further one.
        """
        inputs, targets, weight = block
        model = self.engine.model
        own = model.parameters
        with torch.enable_grad(), plain_kernels(model.module):
            losses = model.likelihood.losses(forward(model.module, inputs), targets)
            # the derivative by a row's weight is that of its own part of the sum
            weights = (torch.ones_like(losses) if weight is None else weight.detach().clone()).requires_grad_()
            slopes = torch.autograd.grad(losses, list(own.values()), weights, create_graph=True, materialize_grads=True)
            along = [directions[name].to(slope) for name, slope in zip(own, slopes, strict=True)]
            # others are zeros: no loss reaches these parameters
            used = [k for k, slope in enumerate(slopes) if slope.requires_grad]
            found = batched_gradients([slopes[k] for k in used], [weights, *own.values()], [along[k] for k in used])
        # the derivative of w_i <g_i, v> by w_i has lost the weight, and a row's gradient here includes it
        dots = found[0] if weight is None else found[0] * weights.detach()
        gradient = {name: slope.detach() for name, slope in zip(own, slopes, strict=True)}
        return dots.T, gradient, dict(zip(own, found[1:], strict=True))

    def changes(self, block: tuple, direction: Direction) -> Changes:
        """What the rows' losses and gradients do along a direction.

        By one forward and one backward pass on dual numbers; by gradients of gradients, formed, where an operation's
        backward pass takes no dual numbers.
        """
        engine = self.engine
        assert engine.layers is not None, "call prepare first"
        if self._dual is None:
            self._dual = self._agrees(block, direction) if engine.layers else False
        if self._dual and not engine.rest:
            return self._by_dual_numbers(block, direction)
        names = {} if self._dual else {layer.name: layer.parameters for layer in engine.layers}
        if engine.rest:
            names[REST] = engine.rest
        formed = self._formed(block, direction, names)
        if not self._dual:
            return formed
        known = self._by_dual_numbers(block, direction)
        return Changes(known.dots, known.factors | formed.factors, known.changes | formed.changes)

    def _agrees(self, block: tuple, direction: Direction) -> bool | None:
        """Whether dual numbers go through the backward pass, and give its derivative, at three rows of the block.

        None where nothing changes at these rows, which says nothing.
        """
        inputs, targets, _ = block  # without the weights, which may be 0
        few = {k: v[:3] for k, v in inputs.items()} if isinstance(inputs, Mapping) else inputs[:3]
        few = few, targets[:3], None
        try:
            found = self._by_dual_numbers(few, direction).changes
        except RuntimeError as error:  # an operation without
            if out_of_memory(error):
                raise
            return False
        layers = self.engine.layers or []
        true = self._formed(few, direction, {layer.name: layer.parameters for layer in layers}).changes
        tolerance = AGREES * torch.finfo(self.engine.model.dtype).eps ** 0.5
        pairs = [(found[name].gradients(), true[name].gradients()) for name in true]
        if not any(bool(b.any()) for _, b in pairs):
            return None
        # the absolute part is for layers along which nothing bends
        return all(bool((a - b).norm() <= tolerance * b.norm() + 1e-12) for a, b in pairs)

    def _by_dual_numbers(self, block: tuple, direction: Direction) -> Changes:
        model = self.engine.model
        with dual_numbers(model.parameters, direction) as parameters:
            losses, dual = self.engine.capture(block, layers=list(self.engine.layers or []), parameters=parameters)
            value, dots = _unpacked(losses)
            parts = {name: _parted(factors) for name, factors in dual.items()}
        factors = {name: part[0] for name, part in parts.items()}
        return Changes(_or_zeros(dots, value), factors, {name: part[1] for name, part in parts.items()})

    def _formed(self, block: tuple, direction: Direction, groups: Mapping[str, list[str]]) -> Changes:
        """`changes` of groups of parameters, as formed gradients."""
        inputs, targets, weight = block
        module, likelihood = self.engine.model.module, self.engine.model.likelihood
        own = {name: value.detach() for name, value in self.engine.model.parameters.items()}
        along = {name: direction[name].to(value) for name, value in own.items()}
        wanted = [name for names in groups.values() for name in names]

        def loss(values: dict[str, Tensor], row: Any, target: Tensor) -> Tensor:
            one = {k: v[None] for k, v in row.items()} if isinstance(row, Mapping) else row[None]
            return likelihood.losses(forward_at(module, values, one), target[None])[0]

        def slope(chosen: dict[str, Tensor], row: Any, target: Tensor) -> tuple[Tensor, tuple[Tensor, dict]]:
            slopes = grad(loss)({**own, **chosen}, row, target)
            dot = torch.stack([(slopes[name] * along[name]).sum() for name in own]).sum()
            return dot, (dot, {name: slopes[name] for name in chosen})

        chosen = {name: own[name] for name in wanted}
        # the gradient of <g_i, w> is H_i w; the dot and g_i come along
        both = grad(slope, has_aux=True)
        with torch.enable_grad(), plain_kernels(module), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # of operations without vmap
            try:
                changes, (dots, slopes) = vmap(both, in_dims=(None, 0, 0))(chosen, inputs, targets)
            except RuntimeError as error:  # recurrent layers, branches on values
                if out_of_memory(error):
                    raise
                changes, (dots, slopes) = self._row_by_row(block, along, wanted)
        scale = torch.ones_like(dots) if weight is None else weight

        def grouped(values: dict[str, Tensor]) -> Factors:
            return {
                group: Formed(
                    torch.cat([values[name].detach().reshape(len(scale), -1) for name in names], dim=1) * scale[:, None]
                )
                for group, names in groups.items()
            }

        return Changes(dots.detach() * scale, grouped(slopes), grouped(changes))

    def _row_by_row(self, block: tuple, along: Direction, wanted: list[str]) -> tuple[dict, tuple[Tensor, dict]]:
        inputs, targets, _ = block
        found = []
        for i in range(len(targets)):
            part = slice(i, i + 1)
            one = {k: v[part] for k, v in inputs.items()} if isinstance(inputs, Mapping) else inputs[part]
            # sums over a block of one row are the row's own
            found.append(self.block_products((one, targets[part], None), {k: v[None] for k, v in along.items()}))
        dots, slopes, changes = zip(*found, strict=True)
        moved = {name: torch.cat([each[name] for each in changes]) for name in wanted}
        return moved, (torch.cat(dots)[:, 0], {name: torch.stack([each[name] for each in slopes]) for name in wanted})


def _parted(factors: LayerRows) -> tuple[LayerRows, LayerRows]:
    """Factors of dual numbers as (factors, factors of their change)."""
    if isinstance(factors, Product):
        (inputs, inputs_change), (delta, delta_change) = _unpacked(factors.inputs), _unpacked(factors.delta)
        parts = [factors.like(inputs, delta_change)] if delta_change is not None else []
        if inputs_change is not None:  # the first layer's do not change
            parts.append(factors.like(inputs_change, delta, ones=False))
        return factors.like(inputs, delta), Sum(parts or [factors.like(inputs, torch.zeros_like(delta))])
    if isinstance(factors, Lookup):
        delta, change = _unpacked(factors.delta)
        indices, size = factors.indices, factors.size
        # the padding index has no gradient already
        return Lookup(indices, delta, size, None), Lookup(indices, _or_zeros(change, delta), size, None)
    value, change = _unpacked(factors.gradients())
    return Formed(value), Formed(_or_zeros(change, value))


def _or_zeros(value: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if value is None else value


def _unpacked(value: Tensor) -> tuple[Tensor, Tensor | None]:
    """(value, its change; None = none)."""
    primal, tangent = forward_ad.unpack_dual(value)
    return primal.detach(), None if tangent is None else tangent.detach()
