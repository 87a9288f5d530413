"""Gradients of single rows in few numbers, layer by layer, without forming those that are products of factors.

The gradient of a layer s = W a + b is sum_t delta_t [a_t; 1]' over the positions t. With P_in (in, r) and P_out
(out, r), orthonormal columns each, it becomes sum_t (P_out' delta_t) (P_in' [a_t; 1])', r x r numbers: the part of the
gradient that moves the layer within the two subspaces. Source: Choe et al. 2024 (arXiv:2405.13954), section 3.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sktda.engine.functional import Direction
from sktda.engine.kronecker import Block
from sktda.engine.kronecker_blocks import FormedBlock, LookupBlock, ProductBlock, covered_blocks
from sktda.engine.layers import Formed, Layer, LayerRows, Lookup, Mapped, Product, known_layers
from sktda.engine.per_row import REST, PerRow
from sktda.engine.projection import Projection
from sktda.model.base import DifferentiableModel, Rows, unflatten


class Map(ABC):
    """One block's gradients to `width` numbers. `kind` are the factors that are taken without forming a gradient."""

    kind: ClassVar[type[LayerRows]]
    width: int

    def __init__(self, block: Block) -> None:
        self.block = block

    def rows(self, factor: LayerRows) -> Tensor:
        """(n, width) of a batch."""
        if isinstance(factor, self.kind):
            return self.of_factors(factor)
        # of a layer that this batch did not use, or that was called in several ways
        shapes = dict(zip(self.block.parameters, self.block.shapes, strict=True))
        return self.of_matrices(self.block.matrix(unflatten(factor.gradients(), shapes)))

    @abstractmethod
    def of_factors(self, factor: LayerRows) -> Tensor:
        """(n, width)."""

    @abstractmethod
    def of_matrices(self, matrices: Tensor) -> Tensor:
        """(k, width) from (k, out, in), as `Block.matrix` gives them."""


class ProductMap(Map):
    """Inputs (in, r_in) and output gradients (out, r_out) of a linear layer or a convolution."""

    kind = Product

    def __init__(self, block: Block, inputs: Tensor, outputs: Tensor) -> None:
        super().__init__(block)
        self.inputs = inputs
        self.outputs = outputs
        self.width = inputs.shape[1] * outputs.shape[1]

    def of_factors(self, factor: LayerRows) -> Tensor:
        """Either side by itself, and the outer products of what is left."""
        assert isinstance(factor, Product)
        # P_out' (delta a') P_in = (P_out' delta)(P_in' a)': no gradient (out, in) is formed, nor is one at any position
        a, delta = factor.a @ self.inputs, factor.delta @ self.outputs
        # no column is the bias any more: P_in has mixed its one into all r of them
        return Mapped(a, delta, True, False).matrices().flatten(1)

    def of_matrices(self, matrices: Tensor) -> Tensor:
        """P_out' M P_in."""
        return (self.outputs.T.to(matrices) @ matrices @ self.inputs.to(matrices)).flatten(1)


class LookupMap(Map):
    """A table (size, d): its indices are dealt out to r places with random signs, its vectors projected (d, r_out)."""

    kind = Lookup

    def __init__(self, block: Block, outputs: Tensor, rank: int, seed: list[int]) -> None:
        super().__init__(block)
        self.outputs = outputs
        size = block.size[0]
        self.places = min(size, rank)
        self.width = self.places * outputs.shape[1]
        # drawn again from the seed where a store is opened, by NumPy: the same on every device
        random = np.random.default_rng(seed)
        # a permutation: places differ by at most one in how many indices they hold, and none is empty
        place = random.permutation(size) % self.places
        signs = random.choice([-1.0, 1.0], size) / np.sqrt(np.bincount(place, minlength=self.places))[place]
        self.place = torch.from_numpy(place).to(outputs.device)
        self.signs = torch.from_numpy(signs).to(outputs)  # the columns of the matrix that this is are orthonormal

    def of_factors(self, factor: LayerRows) -> Tensor:
        """Sums over the positions whose indices share a place."""
        assert isinstance(factor, Lookup)
        # (n, t, r_out), then (n, places, r_out): only positions are touched, never the table (size, d) of each row
        delta = (factor.delta @ self.outputs) * self.signs[factor.indices][:, :, None]
        found = delta.new_zeros(len(delta), self.places, delta.shape[2])
        return found.scatter_add_(1, self.place[factor.indices][:, :, None].expand_as(delta), delta).flatten(1)

    def of_matrices(self, matrices: Tensor) -> Tensor:
        """The same for tables (k, size, d)."""
        moved = (matrices @ self.outputs.to(matrices)) * self.signs.to(matrices)[:, None]
        return moved.new_zeros(len(moved), self.places, moved.shape[2]).index_add_(1, self.place, moved).flatten(1)


class FormedMap(Map):
    """Gradients that are formed in any case: as they are where they are few, else by a sparse random projection."""

    kind = LayerRows

    def __init__(self, block: Block, width: int, seed: int) -> None:
        super().__init__(block)
        self.projection = Projection({block.name: block.n_parameters}, width, seed)
        self.width = self.projection.width

    def of_factors(self, factor: LayerRows) -> Tensor:
        """Projected."""
        return self.projection({self.block.name: factor})

    def of_matrices(self, matrices: Tensor) -> Tensor:
        """The numbers one after the other."""
        return self.of_factors(Formed(matrices.flatten(1)))


class Compression:
    """Maps gradients to `width` numbers, those of one block of parameters after the other.

    blocks: as EK-FAC covers the parameters; what it leaves out is named in one warning.
    rank: numbers that the inputs, and the output gradients, of a layer are projected to; a side of fewer is rotated.
    sides: matrices (in or out, rank) with orthonormal columns by "in/BLOCK" and "out/BLOCK".
    """

    def __init__(
        self, blocks: list[Block], rank: int, sides: Mapping[str, Tensor], seed: int, model: DifferentiableModel
    ) -> None:
        self.blocks = blocks
        self.rank, self.seed = rank, seed
        self.device = model.device
        self.sides = sides = {name: value.to(model.device, model.dtype) for name, value in sides.items()}
        self.maps: dict[str, Map] = {}
        for number, block in enumerate(blocks):
            name = block.name
            if isinstance(block, ProductBlock):
                self.maps[name] = ProductMap(block, sides[f"in/{name}"], sides[f"out/{name}"])
            elif isinstance(block, LookupBlock):
                self.maps[name] = LookupMap(block, sides[f"out/{name}"], rank, [seed, number])
            else:
                self.maps[name] = FormedMap(block, rank**2, seed + number)
        edges = np.cumsum([0, *(each.width for each in self.maps.values())]).tolist()
        self.parts = {name: slice(*edges[k : k + 2]) for k, name in enumerate(self.maps)}
        self.width: int = edges[-1]

    def about(self, engine: PerRow) -> dict[str, Any]:
        """All but the tensors, as JSON has it, with the layers that the engine has found."""
        layers = [[layer.name, layer.layout] for layer in engine.layers or []]
        return {
            "rank": self.rank,
            "seed": self.seed,
            "width": self.width,
            "layers": layers,
            "blocks": [described(block) for block in self.blocks],
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By name, for `restored`."""
        return {f"side/{name}": value for name, value in self.sides.items()}

    @classmethod
    def restored(
        cls, about: Mapping[str, Any], tensors: Mapping[str, Tensor], model: DifferentiableModel
    ) -> Compression:
        """The one that said this about itself."""
        layers = {layer.name: layer for layer in known_layers(model.module)}
        blocks = [recalled(block, layers) for block in about["blocks"]]
        sides = {name.removeprefix("side/"): value for name, value in tensors.items() if name.startswith("side/")}
        return cls(blocks, about["rank"], sides, about["seed"], model)

    def own(self, engine: PerRow) -> list[Layer] | None:
        """The engine's layers that are needed; None = all of the gradient."""
        return needed_layers(engine, self.blocks)

    def rows(self, factors: Mapping[str, LayerRows]) -> Tensor:
        """(n, width) of a batch, from its factors by layer."""
        return torch.cat([each.rows(each.block.taken(factors)) for each in self.maps.values()], dim=1)

    def directions(self, directions: Direction) -> Tensor:
        """(k, width) of directions (k, ...) by parameter; parameters that are left out play no part."""
        return torch.cat([each.of_matrices(each.block.matrix(directions)) for each in self.maps.values()], dim=1)


def described(block: Block) -> dict[str, Any]:
    """What a block is, as JSON has it."""
    columns = block.columns
    return {
        "kind": type(block).__name__,
        "name": block.name,
        "parameters": block.parameters,
        "shapes": [list(shape) for shape in block.shapes],
        "source": block.source,
        "columns": None if columns is None else [columns.start, columns.stop],
    }


def recalled(about: Mapping[str, Any], layers: Mapping[str, Layer]) -> Block:
    """The block that was so described, of one of these layers."""
    if about["kind"] == ProductBlock.__name__:
        return ProductBlock(layers[about["name"]])
    kind = {each.__name__: each for each in (LookupBlock, FormedBlock)}[about["kind"]]
    columns = None if about["columns"] is None else slice(*about["columns"])
    shapes = [torch.Size(shape) for shape in about["shapes"]]
    return kind(about["name"], about["parameters"], shapes, about["source"], columns)


def recall_layers(engine: PerRow, layers: list[list[str]]) -> None:
    """Give an engine the layers that one of the same model has found on its rows."""
    # `PerRow.prepare` would try them on rows, and there may be none to read
    known = {layer.name: layer for layer in known_layers(engine.model.module)}
    engine.layers = [known[name] for name, _ in layers]
    for layer, (_, layout) in zip(engine.layers, layers, strict=True):
        layer.layout = layout
    covered = {name for layer in engine.layers for name in layer.parameters}
    engine.rest = [name for name in engine.model.parameters if name not in covered]


def needed_layers(engine: PerRow, blocks: list[Block]) -> list[Layer] | None:
    """The engine's layers that the blocks are of; None = all of the gradient."""
    sources = {block.source for block in blocks}
    # `capture` forms the gradients of REST only where it is not given layers
    return None if REST in sources else [layer for layer in engine.layers or [] if layer.name in sources]


def compressed(
    engine: PerRow, rows: Rows, compression: Compression, measure: Callable | None, start: int, stop: int
) -> Tensor:
    """(stop - start, width) of the losses of the rows start..stop, or of `measure`, in the model's dtype."""
    result = torch.empty(stop - start, compression.width, dtype=engine.model.dtype, device=engine.model.device)
    engine.prepare(rows)
    own = compression.own(engine)

    def work(part: slice) -> None:
        factors = engine.capture(rows.block(part, engine.model.device), measure, own)[1]
        result[part.start - start : part.stop - start] = compression.rows(factors)

    engine.sweep(rows, work, start, stop)
    return result


def taken_blocks(engine: PerRow, rows: Rows) -> list[Block]:
    """The blocks that gradients are made of. Warns of parameters that are left out; ValueError if none remains."""
    engine.prepare(rows)
    blocks, share = covered_blocks(engine, rows)
    covered = {name for block in blocks for name in block.parameters}
    left_out = [name for name in engine.model.parameters if name not in covered]
    if not blocks:
        raise ValueError(
            f"none of the parameters can be compressed: no loss depends on them, or they are in no known layer and too "
            f"large: {', '.join(left_out)}; use Influence(curvature='cg')"
        )
    if left_out:
        warnings.warn(
            f"the store leaves out {len(left_out)} parameters that are not used, or in no known layer and too large or "
            f"too unimportant to form their gradients: {', '.join(left_out)}; they count as fixed, and hold "
            f"{1 - share:.0%} of the gradients' squares",
            UserWarning,
            stacklevel=2,
        )
    return blocks
