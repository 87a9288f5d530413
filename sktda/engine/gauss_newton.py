"""Products of directions with the Gauss-Newton matrix of the training risk, which is never formed.

`gauss_newton_products` passes through the module for every product. `FactoredGaussNewton` keeps what Linear layers need
for it, the inputs of each layer and the gradients of each output root at what comes out of it: a product is then two
matrix products per layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from sktda.data import slices
from sktda.engine.curvature import along_root, rooted_targets
from sktda.engine.functional import Direction, batched_gradients
from sktda.engine.layers import Mapped, Product, plain_kernels
from sktda.engine.per_row import PerRow
from sktda.model.base import Rows, forward

FACTOR_BYTES = 2**30  # factors of all rows and output roots that are kept
IMAGE_BYTES = 128 * 2**20  # what some rows make of all directions, at a time


def gauss_newton_products(engine: PerRow, rows: Rows, directions: Direction) -> dict[str, Tensor]:
    """Gauss-Newton matrix of the mean loss plus penalty, times k directions (k, ...), by parameter.

    One forward and backward pass over the rows for all directions, and two further backward passes for each.
    """
    own, decay = engine.model.parameters, engine.model.decay
    total = {name: torch.zeros_like(directions[name]) for name in own}

    def work(part: slice) -> None:
        found = _of_block(engine, rows.block(part, engine.model.device), directions)
        # a cast takes memory, and a batch that runs out of it is tried again: nothing is added before
        found = {name: value.to(total[name]) for name, value in found.items()}
        for name, value in found.items():
            total[name] += value

    engine.prepare(rows)
    k = len(next(iter(directions.values())))
    # every direction has derivatives of its own through the graph of the batch
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


class FactoredGaussNewton:
    """Products as `gauss_newton_products` makes them, of a net of Linear layers whose weights no row uses twice.

    Memory: n (in + roots * out) numbers per layer. Time: about 4 n p per direction, and once a pass per output root.
    """

    def __init__(self, engine: PerRow, rows: Rows) -> None:
        self.engine = engine
        self.parts: list[dict[str, tuple[Tensor, Tensor]]] = []
        engine.sweep(rows, lambda part: self.parts.append(self._captured(rows.block(part, engine.model.device))))
        self.n = len(rows)

    @staticmethod
    def suits(engine: PerRow, rows: Rows) -> bool:
        """Whether the model is such a net."""
        engine.prepare(rows)
        if engine.rest or not engine.layers:
            return False
        seen = engine.capture(rows.block(slice(0, 1), engine.model.device), None, engine.layers)[1].values()
        # of one position <G, V> is delta' V a, V (out, in); over several it is a sum, which `products` does not take
        return all(isinstance(factor, Mapped) and not factor.shared and not factor.transposed for factor in seen)

    @staticmethod
    def fits(engine: PerRow, rows: Rows, sizes: Iterable[tuple[int, int]]) -> bool:
        """Whether factors of these sizes (out, in) are few enough to be kept."""
        roots = rooted_targets(engine.model, rows.block(slice(0, 1), engine.model.device))[1].shape[1]
        numbers = len(rows) * sum(width + roots * out for out, width in sizes)
        return bool(numbers * engine.model.dtype.itemsize <= FACTOR_BYTES)

    def _captured(self, block: tuple) -> dict[str, tuple[Tensor, Tensor]]:
        """By layer: inputs, and the (n, roots, out) gradients of all output roots."""
        inputs, roots = rooted_targets(self.engine.model, block)
        found: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for k in range(roots.shape[1]):
            factors = self.engine.capture((inputs, roots[:, k], None), along_root, self.engine.layers)[1]
            for name, factor in factors.items():
                assert isinstance(factor, Product)
                found.setdefault(name, []).append((factor.a, factor.delta))
        # every root has the same inputs: one of them stands for all
        return {name: (each[0][0], torch.stack([delta for _, delta in each], dim=1)) for name, each in found.items()}

    def products(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gauss-Newton matrix of the mean loss times k directions, (k, out, in) by layer as it is kept."""
        k = len(next(iter(maps.values())))
        total = {name: torch.zeros_like(each) for name, each in maps.items()}
        for part in self.parts:
            n = len(next(iter(part.values()))[1])
            each = k * sum(delta.shape[-1] * delta.element_size() for _, delta in part.values())
            for rows in slices(n, max(1, IMAGE_BYTES // max(1, each))):
                # r_k' J v = sum over layers of delta_k' V a
                pushed: Tensor | None = None
                for name, (a, delta) in part.items():
                    out = delta.shape[-1]
                    image = (a[rows] @ maps[name].reshape(k * out, -1).T).reshape(-1, k, out)
                    found = image @ delta[rows].mT  # (n, k, roots)
                    pushed = found if pushed is None else pushed.add_(found)
                assert pushed is not None
                for name, (a, delta) in part.items():
                    # J' sum_k r_k (r_k' J v): summed over the roots before it meets a
                    pulled = (pushed @ delta[rows]).flatten(1)  # (n, k * out)
                    total[name] += (pulled.T @ a[rows]).reshape(total[name].shape)
        return {name: value / self.n for name, value in total.items()}

    def __call__(self, directions: Direction) -> dict[str, Tensor]:
        """Gauss-Newton matrix of the mean loss plus penalty, times k directions (k, ...), by parameter."""
        layers = {layer.name: layer for layer in self.engine.layers or []}
        k, decay = len(next(iter(directions.values()))), self.engine.model.decay
        total = self.products({name: layer_maps(layer.parameters, directions) for name, layer in layers.items()})
        result: dict[str, Tensor] = {}
        for name, layer in layers.items():
            found, start = total[name], 0
            for parameter, shape in zip(layer.parameters, layer.shapes, strict=True):
                width = shape.numel() // found.shape[1]
                value = found[:, :, start : start + width].reshape(k, *shape)
                result[parameter] = value + decay.get(parameter, 0.0) * directions[parameter]
                start += width
        return {name: result[name] for name in self.engine.model.parameters}


def layer_maps(parameters: list[str], directions: Direction) -> Tensor:
    """(k, out, in + bias) of the weight and the bias of a Linear layer."""
    pieces = [directions[name] if directions[name].ndim == 3 else directions[name][:, :, None] for name in parameters]
    return torch.cat(pieces, dim=2)
