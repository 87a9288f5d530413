"""The kinds of blocks of an EK-FAC curvature: products of factors, tables, and gradients without factors.

Bases come from the factors of the gradients where there are such, else from the gradients G_i themselves: those of
mean G_i' G_i and of mean G_i G_i', which are one step of a power iteration towards the nearest Kronecker product
(Morwani et al. 2024, arXiv:2406.17748). A block of one row has the exact eigenbasis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from sktda.data import slices
from sktda.devices import exact
from sktda.engine.functional import Direction
from sktda.engine.kronecker import Bases, Block, energies_of, flat, self_product, squares_of, turned
from sktda.engine.layers import Convolved, Layer, LayerRows, Lookup, Mapped, Product, Tied
from sktda.engine.layers.product import flat_matrices
from sktda.engine.layers.rows import total
from sktda.engine.per_row import REST, PerRow
from sktda.model.base import Rows

EXACT = 1_024  # parameters up to which a layer without factors has an exact block
WIDE = 16_384  # outputs of a linear map up to which they have an eigenbasis, which the words of a language exceed
SIDE = 4_096  # rows or columns up to which a matrix of formed gradients has an eigenbasis of its own
ENERGY_ROWS = 16  # by which it is told how much is left out: forming the gradients of one costs several of its passes
FORMED_SIZE = 2**22  # numbers of a parameter without factors up to which its gradients are formed
CHEAP = 100_000  # parameters of a model up to which those without factors are covered in any case: gradients that are
RARE = 0.05  # formed cost several passes, so that of a larger one they have to hold this share of the squared gradients


class ProductBlock(Block):
    """A layer whose gradients are products; the bases are those of its inputs and of its output gradients."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer.name, layer.parameters, layer.shapes)
        self.trained = layer.trained
        self.transposed = bool(getattr(layer, "transposed", False))

    @property
    def size(self) -> tuple[int, int]:
        """(out, in + bias)."""
        sizes = dict(zip(self.trained, self.shapes, strict=True))
        if "weight" not in sizes:
            # the bias alone is trained: its input is the one
            return sizes["bias"][0], 1
        out = sizes["weight"][-1 if self.transposed else 0]
        return out, sizes["weight"].numel() // out + ("bias" in sizes)

    @property
    def rotates(self) -> tuple[bool, bool]:
        """The columns, and the rows where they are not too many."""
        return True, self.size[0] <= WIDE

    def matrix(self, direction: Direction) -> Tensor:
        """(..., out, in + bias)."""
        pieces = []
        for key, name, shape in zip(self.trained, self.parameters, self.shapes, strict=True):
            value = direction[name]
            if key == "bias":
                pieces.append(value[..., None])
            elif self.transposed:
                pieces.append(value.mT)
            else:
                pieces.append(value.reshape(*value.shape[: value.ndim - len(shape)], shape[0], -1))
        return torch.cat(pieces, dim=-1)

    def direction(self, matrix: Tensor) -> dict[str, Tensor]:
        """The inverse of `matrix`: by parameter."""
        found = {}
        for key, name, shape in zip(self.trained, self.parameters, self.shapes, strict=True):
            if key == "bias":
                found[name] = matrix[..., -1]
            else:
                values = matrix[..., : shape.numel() // self.size[0]]
                found[name] = values.mT if self.transposed else values.reshape(*matrix.shape[:-2], *shape)
        return found

    def flat(self, matrices: Tensor) -> Tensor:
        """(k, p): weight, then bias."""
        return flat_matrices(matrices, "weight" in self.trained, "bias" in self.trained, self.transposed)

    def columns_of(self, values: Mapping[str, float]) -> list[tuple[int, float]]:
        """Those of the weight, and the one of the bias."""
        out = self.size[0]
        return [(shape.numel() // out, values[name]) for name, shape in zip(self.parameters, self.shapes, strict=True)]

    def products(self, factor: LayerRows, root: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """(in, in) of the inputs, (out, out) of the output gradients, over rows and positions."""
        assert isinstance(factor, Product)
        a = met(factor)
        if root is not None:  # a row of weight 2 counts as two rows in both
            a = a * root.reshape(-1, *[1] * (a.ndim - 1))
        return self_product(flat(a)), self_product(flat(factor.delta)) if self.rotates[1] else None

    def rotated(self, factor: Product, bases: Bases) -> tuple[Tensor, Tensor]:
        """Inputs and output gradients in the eigenbases."""
        q_in, q_out = bases
        assert q_in is not None
        return factor.a @ q_in, factor.delta if q_out is None else factor.delta @ q_out

    def rotated_matrices(self, factor: LayerRows, bases: Bases) -> Iterator[Tensor]:
        """By the factors where that takes fewer products, else by the gradients."""
        assert isinstance(factor, Product)
        q_in, _ = bases
        assert q_in is not None
        width, out = len(q_in), factor.delta.shape[-1]
        positions = factor.a.shape[1] if factor.shared else 1
        # products a row: of the factors at every position, or of the (out, in) gradient that is formed of them
        early = positions * (width**2 + out**2) < width * out * (width + out)
        for rows in slices(len(factor.a), self.step(q_in.element_size())):
            part = Mapped(factor.a[rows], factor.delta[rows], True, True)
            if early:
                a, delta = self.rotated(part, bases)
                yield Mapped(a, delta, True, True).matrices()
            else:
                yield turned(part.matrices(), bases)

    def squares(self, factor: LayerRows, bases: Bases) -> Tensor:
        """Without a gradient per row where weights are not shared."""
        assert isinstance(factor, Product)
        if factor.shared:
            return squares_of(self.rotated_matrices(factor, bases))
        a, delta = self.rotated(factor, bases)
        # (delta_o a_i)^2 = delta_o^2 a_i^2, summed over rows by one product; `a` is surely new, and may change
        return delta.square().T @ a.square_()

    def energies(self, factor: LayerRows, bases: Bases, scale: Tensor) -> Tensor:
        """Without a gradient per row where weights are not shared."""
        assert isinstance(factor, Product)
        if factor.shared:
            return energies_of(self.rotated_matrices(factor, bases), scale)
        a, delta = self.rotated(factor, bases)
        # sum_oi delta_o^2 scale_oi a_i^2
        return ((delta.square() @ scale) * a.square_()).sum(1)


class AsStored(Block):
    """The numbers of the parameters one after the other, as they are stored."""

    def matrix(self, direction: Direction) -> Tensor:
        """(..., out, in) of all parameters, one after the other."""
        pieces = [
            direction[name].reshape(*direction[name].shape[: direction[name].ndim - len(shape)], -1)
            for name, shape in zip(self.parameters, self.shapes, strict=True)
        ]
        joined = torch.cat(pieces, dim=-1) if len(pieces) > 1 else pieces[0]
        return joined.reshape(*joined.shape[:-1], *self.size)

    def direction(self, matrix: Tensor) -> dict[str, Tensor]:
        """The inverse of `matrix`."""
        lead = matrix.shape[:-2]
        parts = matrix.reshape(*lead, -1).split([shape.numel() for shape in self.shapes], dim=-1)
        return {
            name: part.reshape(*lead, *shape)
            for name, part, shape in zip(self.parameters, parts, self.shapes, strict=True)
        }

    def flat(self, matrices: Tensor) -> Tensor:
        """(k, p)."""
        return matrices.flatten(1)

    def columns_of(self, values: Mapping[str, float]) -> list[tuple[int, float]]:
        """One after the other in a block of one row, else those of the one parameter."""
        out = self.size[0]
        return [(shape.numel() // out, values[name]) for name, shape in zip(self.parameters, self.shapes, strict=True)]


class LookupBlock(AsStored):
    """A table (size, d): one-hot indices have diagonal second moments. It may also score the words (tied weights)."""

    @property
    def size(self) -> tuple[int, int]:
        """(size, d)."""
        return self.shapes[0][0], self.shapes[0][1]

    @property
    def rotates(self) -> tuple[bool, bool]:
        """The columns only."""
        return True, False

    def vectors(self, factor: LayerRows) -> list[Tensor]:
        """(positions, d): gradients at the vectors, and what meets the table, as long as its gradients."""
        if isinstance(factor, Tied):
            a, delta = factor.product.a, factor.product.delta
            # their products sum to G' G, G = sum_t delta_t a_t', without the terms of two positions, or of both uses:
            # it is for a basis, in which the eigenvalues then have all terms
            return [flat(factor.lookup.delta), flat(a * delta.norm(dim=-1, keepdim=True))]
        assert isinstance(factor, Lookup)
        return [flat(factor.delta)]

    def products(self, factor: LayerRows, root: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """(d, d) of the gradients at the vectors."""
        return total(self_product(each) for each in self.vectors(factor)), None

    def _summed(self, factor: LayerRows, bases: Bases) -> tuple[Tensor, Tensor, Tensor]:
        """(row, index, (k, d) rotated gradient) of every index of every row, each once."""
        assert isinstance(factor, Lookup)
        n = len(factor.indices)
        # a row's gradient at an index that it holds twice is the sum of both: added up before it is squared
        codes = factor.indices + self.size[0] * torch.arange(n, device=factor.indices.device)[:, None]
        found, place = codes.reshape(-1).unique(return_inverse=True)
        (q_in, _) = bases
        assert q_in is not None
        delta = flat(factor.delta) @ q_in
        total = delta.new_zeros(len(found), delta.shape[1]).index_add_(0, place, delta)
        return found // self.size[0], found % self.size[0], total

    def squares(self, factor: LayerRows, bases: Bases) -> Tensor:
        """At the indices that rows hold, or all."""
        if isinstance(factor, Tied):
            return squares_of(self.rotated_matrices(factor, bases))
        _, index, total = self._summed(factor, bases)
        return total.new_zeros(self.size).index_add_(0, index, total.square_())

    def energies(self, factor: LayerRows, bases: Bases, scale: Tensor) -> Tensor:
        """At the indices that rows hold, or all."""
        if isinstance(factor, Tied):
            return energies_of(self.rotated_matrices(factor, bases), scale)
        row, index, total = self._summed(factor, bases)
        each = (total.square_() * scale[index]).sum(1)
        assert isinstance(factor, Lookup)
        return each.new_zeros(len(factor.indices)).index_add_(0, row, each)

    def rotated_matrices(self, factor: LayerRows, bases: Bases) -> Iterator[Tensor]:
        """Tables, of lookups mostly zeros."""
        (q_in, _) = bases
        assert q_in is not None
        if isinstance(factor, Tied):
            looked_up, met = factor.lookup, factor.product
            for rows in slices(len(met.a), self.step(q_in.element_size())):
                one = Lookup(looked_up.indices[rows], looked_up.delta[rows] @ q_in, looked_up.size, None)
                both = Tied((one, met.like(met.a[rows] @ q_in, met.delta[rows])))
                yield both.gradients().unflatten(1, self.size)
            return
        assert isinstance(factor, Lookup)
        for rows in slices(len(factor.indices), self.step(factor.delta.element_size())):
            part = Lookup(factor.indices[rows], factor.delta[rows] @ q_in, factor.size, None)
            yield part.gradients().unflatten(1, self.size)


class FormedBlock(AsStored):
    """Parameters whose gradients are formed: exact where they are few, else a matrix (first axis, all others).

    Vectors that are too long for an exact block have a diagonal.
    """

    @property
    def size(self) -> tuple[int, int]:
        """(1, all) where exact or diagonal."""
        shape = self.shapes[0]
        if self.n_parameters <= EXACT or len(shape) < 2:
            return 1, self.n_parameters
        return shape[0], shape[1:].numel()

    @property
    def rotates(self) -> tuple[bool, bool]:
        """Sides that are not too long; there is nothing to rotate in one row."""
        out, width = self.size
        return width <= (EXACT if out == 1 else SIDE), 1 < out <= SIDE

    def products(self, factor: LayerRows, root: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """(in, in) G' G and (out, out) G G' of the gradients G, which have the root of the weight."""
        # stacked as (n * out, in) and (n * in, out), whose products with themselves sum G' G and G G' over the rows
        matrices = factor.gradients().reshape(-1, *self.size)
        columns, rows = self.rotates
        return (
            self_product(matrices.flatten(0, 1)) if columns else None,
            self_product(matrices.transpose(1, 2).flatten(0, 1)) if rows else None,
        )

    def rotated_matrices(self, factor: LayerRows, bases: Bases) -> Iterator[Tensor]:
        """The gradients, turned."""
        gradients = factor.gradients()
        for rows in slices(len(gradients), self.step(gradients.element_size())):
            yield turned(gradients[rows].reshape(-1, *self.size), bases)

    def squares(self, factor: LayerRows, bases: Bases) -> Tensor:
        """Of the gradients."""
        return squares_of(self.rotated_matrices(factor, bases))

    def energies(self, factor: LayerRows, bases: Bases, scale: Tensor) -> Tensor:
        """Of the gradients."""
        return energies_of(self.rotated_matrices(factor, bases), scale)


def blocks_of(layer: Layer, factor: LayerRows) -> list[Block]:
    """The blocks of a layer whose gradients come as this factor: one, or one for each large matrix among them."""
    if isinstance(factor, Product):
        return [ProductBlock(layer)]
    if isinstance(factor, Lookup | Tied):
        return [LookupBlock(layer.name, layer.parameters, layer.shapes)]
    if layer.n_parameters <= EXACT:
        return [FormedBlock(layer.name, layer.parameters, layer.shapes)]
    return formed_blocks(layer.name, dict(zip(layer.parameters, layer.shapes, strict=True)))


def formed_blocks(source: str, shapes: Mapping[str, torch.Size]) -> list[Block]:
    """One for each of the parameters, whose gradients stand in this order under the name of their source."""
    found: list[Block] = []
    start = 0
    for name, shape in shapes.items():
        found.append(FormedBlock(name, [name], [shape], source, slice(start, start + shape.numel())))
        start += shape.numel()
    return found


def met(factor: Product) -> Tensor:
    """The inputs `a` of a batch, those of padded tokens as zeros: no gradient meets them, so they belong to no row.

    They would turn the basis with every change of the padding, and of what the module makes of it. Positions of
    images are all there.
    """
    if not factor.shared or isinstance(factor, Convolved):
        return factor.a
    return factor.a * factor.delta.any(-1, keepdim=True)


def covered_blocks(engine: PerRow, rows: Rows) -> tuple[list[Block], float]:
    """(the blocks that EK-FAC makes of a model's parameters, share of the squared gradients of a few rows in them)."""
    # a list of its own, for which `capture` forms no gradients of what has no factors
    layers, own = list(engine.layers or []), engine.model.parameters
    seen = engine.capture(rows.block(slice(0, 1), engine.model.device), None, layers)[1]
    found = [block for layer in layers for block in blocks_of(layer, seen[layer.name])]
    found += formed_blocks(REST, {name: own[name].shape for name in engine.rest})
    if not any(isinstance(block, FormedBlock) for block in found):
        return found, 1.0
    energy = _energies(engine, rows, found)
    size = sum(value.numel() for value in own.values())
    small = [block for block in found if block.source != REST or block.n_parameters <= FORMED_SIZE]
    rest = sum(energy[block.name] for block in small if block.source == REST)
    cheap = size <= CHEAP or rest >= RARE * sum(energy[block.name] for block in small)
    unused = {layer.name for layer in layers if layer.is_product}  # without its products a layer is never called
    # without energy go those whose formed gradients are 0 at all of these rows: no loss depends on them
    taken = [
        block
        for block in small
        if not isinstance(block, FormedBlock)
        or (energy[block.name] and block.source not in unused and (cheap or block.source != REST))
    ]
    return taken, sum(energy[block.name] for block in taken) / (sum(energy.values()) or 1.0)


def _energies(engine: PerRow, rows: Rows, blocks: list[Block]) -> dict[str, float]:
    """Sum of the squared gradients of ENERGY_ROWS rows, evenly spread, in each block."""
    few = rows.chosen(np.unique(np.linspace(0, len(rows) - 1, ENERGY_ROWS).astype(int)))
    energy = dict.fromkeys([block.name for block in blocks], 0.0)

    def squares(part: slice) -> list[Tensor]:
        factors = engine.capture(few.block(part, engine.model.device))[1]
        return [exact(block.taken(factors).square_norms()).sum() for block in blocks]

    for _, found in engine.computed(few, squares):
        # one wait for the device a batch, and not one a block
        for block, value in zip(blocks, torch.stack(found).tolist(), strict=True):
            energy[block.name] += value
    return energy
