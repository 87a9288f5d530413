"""Gradients that are products of what enters a layer and of the gradient at what comes out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from sktda.data import slices
from sktda.engine.layers.rows import Formed, LayerRows, parted

FORMED_BYTES = 64 * 2**20  # gradients of rows that are formed at a time where weights are shared
SMALL_LAYER = 8_192  # weights up to which a product with formed gradients is the faster one
FEW = 4  # directions that meet a batch in one product, whatever the size of the layer
CONTRACT_BYTES = 128 * 2**20  # products of a batch with the directions of some queries


class Product(LayerRows):
    """Factors a (n, in) or (n, t, in), ending in a one where there is a bias, and delta alike, with out.

    weight, bias: which of the two are trainable; the flat gradient has them in this order.
    transposed: whether the weight is stored as (in, out), and flat in that order.
    """

    a: Tensor
    inputs: Tensor
    """What `a` is made of."""
    delta: Tensor
    weight: bool
    bias: bool
    transposed: bool

    @property
    def shared(self) -> bool:
        """Whether the weights are used at several positions of a row."""
        return self.delta.ndim == 3

    @property
    @abstractmethod
    def width(self) -> int:
        """Inputs that meet an output, with the one."""

    @abstractmethod
    def like(self, inputs: Tensor, delta: Tensor, ones: bool = True) -> Product:
        """Of the same layer with other factors; ones: whether the bias has inputs, which changes of inputs lack."""

    @abstractmethod
    def images(self, directions: Tensor) -> Tensor:
        """(n, q, out) or (n, q, t, out): inputs through the maps that the directions (q, p) are."""

    @abstractmethod
    def matrices(self) -> Tensor:
        """(n, out, in + bias) gradients."""

    def unfolded(self, n: int, second: bool) -> Product:
        """The parts of a row as positions."""
        a, delta = (parted(value, n, second) for value in (self.a, self.delta))
        # positions within a part and the parts of a row are all positions of that row
        if self.shared:
            a, delta = a.flatten(1, 2), delta.flatten(1, 2)
        return Mapped(a, delta, self.weight, self.bias, self.transposed)

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self.a.nbytes + self.delta.nbytes

    def scaled(self, scale: float) -> Product:
        """The gradients times a number."""
        return self.like(self.inputs, scale * self.delta)

    def maps(self, directions: Tensor) -> Tensor:
        """(q, out, in + bias) from flat (q, p): the inverse of `_flat`."""
        q, out = len(directions), self.delta.shape[-1]
        both = self.weight and self.bias
        weights = directions[:, :-out] if both else directions
        if self.weight:
            weights = weights.reshape(q, -1, out).mT if self.transposed else weights.reshape(q, out, -1)
        else:
            weights = weights[:, :, None]
        return torch.cat([weights, directions[:, -out:, None]], dim=2) if both else weights

    def meet(self, images: Tensor) -> Tensor:
        """(n, q) dot products with the directions whose images of the inputs these are."""
        # delta' V a, over outputs and, where there are some, positions
        return (self.delta[:, None] * images).sum(tuple(range(2, images.ndim)))

    def formed(self) -> Iterator[tuple[slice, Tensor]]:
        """(rows, their `matrices`), as many at a time as FORMED_BYTES take."""
        step = max(1, FORMED_BYTES // (self.delta.shape[-1] * self.width * self.delta.element_size()))
        for rows in slices(len(self.delta), step):
            yield rows, self.like(self.inputs[rows], self.delta[rows]).matrices()

    def gradients(self) -> Tensor:
        """(n, p) gradients: weight rows, then bias."""
        return self._flat(self.matrices())

    def _flat(self, matrices: Tensor) -> Tensor:
        return flat_matrices(matrices, self.weight, self.bias, self.transposed)

    def contract(self, directions: Tensor) -> Tensor:
        """(n, q): delta' V a with one product for all; formed gradients for many, on shared weights or small layers."""
        if len(directions) <= FEW:
            return self.meet(self.images(directions))
        out, width = self.delta.shape[-1], self.width
        if self.shared or out * width <= SMALL_LAYER:
            return torch.cat([self._flat(part) @ directions.T for _, part in self.formed()])
        matrices = self.maps(directions)
        result = self.a.new_empty(len(self.a), len(directions))
        step = max(1, CONTRACT_BYTES // (len(self.a) * out * self.a.element_size()))
        for start in range(0, len(directions), step):
            part = matrices[start : start + step]
            # (n, k, out): inputs through k of the maps, then dotted with delta
            moved = (self.a @ part.reshape(-1, width).T).reshape(len(self.a), len(part), out)
            result[:, start : start + step] = (moved @ self.delta[:, :, None])[:, :, 0]
        return result

    def along(self, directions: Tensor) -> Tensor:
        """(n,), formed."""
        return Formed(self.gradients()).along(directions)

    def pairs(self, other: LayerRows) -> Tensor:
        """(n,): (a . a')(delta . delta'); formed gradients where weights are shared."""
        assert isinstance(other, Product)
        if not self.shared:
            # <delta a', d b'> = (a . b)(delta . d)
            return (self.a * other.a).sum(1) * (self.delta * other.delta).sum(1)
        return torch.cat(
            [
                (own * other.like(other.inputs[rows], other.delta[rows]).matrices()).flatten(1).sum(1)
                for rows, own in self.formed()
            ]
        )

    def square_norms(self) -> Tensor:
        """(n,) squared lengths: |a|^2 |delta|^2, or sums over pairs of positions where those are cheaper."""
        if not self.shared:
            return self.a.square().sum(1) * self.delta.square().sum(1)
        (_, t, out), width = self.delta.shape, self.width
        # |sum_t delta_t a_t'|^2 = sum_tu (a_t . a_u)(delta_t . delta_u): t^2 (in + out) products, or t in out formed
        if t * (width + out) < width * out:
            pairs = (self.a @ self.a.transpose(1, 2)) * (self.delta @ self.delta.transpose(1, 2))
            return pairs.flatten(1).sum(1)
        return torch.cat([part.flatten(1).square().sum(1) for _, part in self.formed()])

    def gram(self, other: LayerRows) -> Tensor:
        """(n, m): (a a') * (delta delta'), never a gradient; formed ones where weights are shared at many positions."""
        assert isinstance(other, Product)
        if not self.shared:
            return (self.a @ other.a.T) * (self.delta @ other.delta.T)
        (n, t, out), (m, u, _), width = self.delta.shape, other.delta.shape, self.width
        # of a pair of rows: t u (in + out) products over pairs of positions, or in out of gradients that are formed
        if t * u * (width + out) < width * out:
            a, delta = self.a.flatten(0, 1), self.delta.flatten(0, 1)
            pairs = (a @ other.a.flatten(0, 1).T) * (delta @ other.delta.flatten(0, 1).T)
            return pairs.reshape(n, t, m, u).sum(dim=(1, 3))
        result = self.delta.new_empty(n, m)
        for rows, own in self.formed():
            for columns, part in other.formed():
                result[rows, columns] = own.flatten(1) @ part.flatten(1).T
        return result


class Mapped(Product):
    """Of a linear map, whose inputs are `a` itself."""

    def __init__(self, a: Tensor, delta: Tensor, weight: bool, bias: bool, transposed: bool = False) -> None:
        self.a = a
        self.delta = delta
        self.weight = weight
        self.bias = bias
        self.transposed = transposed

    @property
    def width(self) -> int:
        """Inputs that meet an output, with the one."""
        return self.a.shape[-1]

    @property
    def inputs(self) -> Tensor:  # type: ignore[override]
        """`a`."""
        return self.a

    def like(self, inputs: Tensor, delta: Tensor, ones: bool = True) -> Mapped:
        """With other factors; changes of inputs have their zeros for ones already."""
        return Mapped(inputs, delta, self.weight, self.bias, self.transposed)

    def images(self, directions: Tensor) -> Tensor:
        """(n, q, out) or (n, q, t, out): one product with all of the maps."""
        q, out = len(directions), self.delta.shape[-1]
        # (n * t, in) @ (in, q * out)
        found = self.a.flatten(0, -2) @ self.maps(directions).reshape(q * out, -1).T
        return found.reshape(*self.a.shape[:-1], q, out).movedim(-2, 1)

    def matrices(self) -> Tensor:
        """(n, out, in + bias) gradients."""
        if self.shared:
            return self.delta.transpose(1, 2) @ self.a
        return self.delta[:, :, None] * self.a[:, None, :]


def flat_matrices(matrices: Tensor, weight: bool, bias: bool, transposed: bool = False) -> Tensor:
    """(k, p) weight, then bias, from (k, out, in + bias)."""
    weights = matrices[:, :, :-1] if weight and bias else matrices
    weights = (weights.mT if transposed and weight else weights).flatten(1)
    return torch.cat([weights, matrices[:, :, -1]], dim=1) if weight and bias else weights


def by_parameter(
    factors: Mapping[str, LayerRows],
    groups: Mapping[str, Sequence[str]],
    own: Mapping[str, Tensor],
    numbers: Mapping[str, float],
) -> dict[str, LayerRows]:
    """The gradients of groups of parameters, those of each parameter times a number of its own."""
    found: dict[str, LayerRows] = {}
    for group, factor in factors.items():
        first, *more = each = [numbers[name] for name in groups[group]]
        if len(set(each)) == 1:
            found[group] = factor.scaled(first)
        elif isinstance(factor, Product):  # weight and bias differ: the columns of delta a'
            columns = torch.full_like(factor.a[:1], first)
            columns[..., -1] = more[0]
            found[group] = Mapped(factor.a * columns, factor.delta, factor.weight, factor.bias, factor.transposed)
        else:
            pieces = factor.gradients().split([own[name].numel() for name in groups[group]], dim=1)
            scaled = [piece * number for piece, number in zip(pieces, each, strict=True)]
            found[group] = Formed(torch.cat(scaled, dim=1))
    return found
