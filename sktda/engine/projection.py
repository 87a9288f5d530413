"""Random projections of per-row gradients to a few numbers, without the matrix of parameters x numbers.

The matrix is a sparse Johnson-Lindenstrauss transform: each parameter enters GROUPS of the numbers, one in each group,
with a random sign. It is drawn block by block of parameters from seeds of their own, so that neither batches nor
devices matter, and a block of the gradients is formed, projected and dropped before the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sktda.data import slices
from sktda.engine.layers import FORMED_BYTES, Formed, LayerRows, Lookup, Product
from sktda.engine.per_row import REST, PerRow
from sktda.model.base import Rows

BLOCK = 65_536  # parameters that are formed and projected at a time; the draws depend on it
DRAWN_BYTES = 128 * 2**20  # draws that are kept, of 2.8 million parameters in float32
GROUPS = 4  # numbers that a parameter enters
NEAR_BYTES = 2 * 2**20  # of a processor's cache, in which reordering takes less than half the time


class Projection:
    """Maps gradients of any number of parameters to `dim` numbers, keeping dot products on average.

    sizes: number of parameters by layer, in a fixed order. Gradients of at most `dim` parameters are not projected but
    put one after the other, so that dot products are exact; `width` is the length of the result.

    With S the matrix, E[(S g)' (S h)] = g' h, with a variance below (|g|^2 |h|^2 + (g' h)^2) / dim, which is that of a
    dense matrix of random signs. O(p * GROUPS) time a row in place of O(p * dim), O(BLOCK) memory beside the results.
    Source: Kane & Nelson 2014 (arXiv:1012.1577), the block construction, whose hash within a block of parameters is
    a permutation here.
    """

    def __init__(self, sizes: Mapping[str, int], dim: int, seed: int) -> None:
        self.sizes = dict(sizes)
        self.seed = seed
        total = sum(self.sizes.values())
        self.exact = total <= dim
        self.width = total if self.exact else dim
        edges = np.linspace(0, self.width, min(GROUPS, self.width) + 1).astype(int)
        self._groups = list(pairwise(edges.tolist()))
        self._drawn: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        self._left = DRAWN_BYTES

    def __call__(self, factors: Mapping[str, LayerRows]) -> Tensor:
        """(n, width) projected gradients of a batch of rows, from their factors by layer."""
        if self.exact:
            return torch.cat([factors[name].gradients() for name in self.sizes], dim=1)
        total = blank(factors[next(iter(self.sizes))], self.width)
        for number, (name, size) in enumerate(self.sizes.items()):
            for part in slices(size, BLOCK):
                draws: list[tuple[Tensor, Tensor]] = []
                for rows, values in formed_parts(factors[name], part):
                    draws = draws or self._draws(number, part, values)  # once per block, however many rows at a time
                    for some in slices(len(values), near(values)):
                        place = slice(rows.start + some.start, rows.start + some.stop)
                        for (start, stop), (order, signs) in zip(self._groups, draws, strict=True):
                            total[place, start:stop] += folded(values[some], order, signs, stop - start)
        # each group alone keeps dot products on average; all of them together keep their mean
        return total.div_(len(self._groups) ** 0.5)

    def directions(self, by_layer: Mapping[str, Tensor]) -> Tensor:
        """(k, width) of directions (k, p) by layer, in the order of LayerRows.gradients; missing layers count as 0."""
        some = next(iter(by_layer.values()))
        return self(
            {
                name: Formed(by_layer[name] if name in by_layer else some.new_zeros(len(some), size))
                for name, size in self.sizes.items()
            }
        )

    def _draws(self, number: int, part: slice, like: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each group the order (p,) in which the parameters of a block go round its numbers, and their signs.

        Kept for the next batch of rows, as far as DRAWN_BYTES take them.
        """
        kept = self._drawn.get((number, part.start))
        if kept is not None and kept[0][1].device == like.device and kept[0][1].dtype == like.dtype:
            return kept
        random = np.random.default_rng([self.seed, number, part.start])
        size = part.stop - part.start
        found = []
        for _ in self._groups:
            order = torch.from_numpy(random.permutation(size)).to(like.device)
            signs = torch.from_numpy(random.integers(0, 2, size, dtype=np.int8) * 2 - 1).to(like)
            found.append((order, signs))
        size = sum(order.nbytes + signs.nbytes for order, signs in found)
        if kept is None and size <= self._left:
            self._left -= size
            self._drawn[number, part.start] = found
        return found


def folded(values: Tensor, order: Tensor, signs: Tensor, width: int) -> Tensor:
    """(n, width): values (n, p) with their signs, in this order, dealt out to the columns in turn and added up."""
    mixed = values.index_select(1, order).mul_(signs)  # of a copy: the gradients stay as they are
    short = -mixed.shape[1] % width
    if short:
        mixed = torch.cat([mixed, mixed.new_zeros(len(mixed), short)], dim=1)  # a full last round
    return mixed.reshape(len(mixed), -1, width).sum(1)


def near(values: Tensor) -> int:
    """Rows to reorder at a time."""
    if values.device.type != "cpu":
        return len(values)
    return max(1, NEAR_BYTES // (values.element_size() * max(1, values.shape[1])))


def projection_of(engine: PerRow, rows: Rows, dim: int, seed: int) -> Projection:
    """For the gradients of this model, whose layers are found on the rows."""
    engine.prepare(rows)
    sizes = {layer.name: layer.n_parameters for layer in engine.layers or []}
    if engine.rest:
        sizes[REST] = sum(engine.model.parameters[name].numel() for name in engine.rest)
    return Projection(sizes, dim, seed)


def projected(
    engine: PerRow, rows: Rows, projection: Projection, measure: Callable | None, start: int, stop: int
) -> Tensor:
    """(stop - start, width) projected gradients of the losses of the rows start..stop, or of `measure`."""
    result = torch.empty(stop - start, projection.width, dtype=engine.model.dtype, device=engine.model.device)

    def work(part: slice) -> None:
        found = projection(engine.capture(rows.block(part, engine.model.device), measure)[1])
        result[part.start - start : part.stop - start] = found

    engine.sweep(rows, work, start, stop)
    return result


def blank(factor: LayerRows, width: int) -> Tensor:
    """(n, width) zeros for the rows of a batch."""
    some = factor.delta if isinstance(factor, Product | Lookup) else factor.gradients()
    return some.new_zeros(len(some), width)


def formed_parts(factor: LayerRows, part: slice) -> Iterator[tuple[slice, Tensor]]:
    """(rows, the coordinates `part` of their gradients), as many rows at a time as FORMED_BYTES take.

    Rows for which all of these are 0 may be left out.
    """
    size = part.stop - part.start
    if isinstance(factor, Product):
        # whole rows of the weight are formed, up to two more than needed
        step = max(1, FORMED_BYTES // (factor.delta.element_size() * (size + 2 * factor.width)))
        for rows in slices(len(factor.delta), step):
            yield rows, product_part(factor, rows, part)
    elif isinstance(factor, Lookup):
        step = max(1, FORMED_BYTES // (factor.delta.element_size() * (size + 2 * factor.delta.shape[-1])))
        for rows in slices(len(factor.delta), step):
            found = lookup_part(factor, rows, part)
            if found is not None:
                yield rows, found
    else:
        values = factor.gradients()
        yield slice(0, len(values)), values[:, part]


def product_part(factor: Product, rows: slice, part: slice) -> Tensor:
    """(n, p) coordinates `part` of the gradients of a Linear layer or a convolution: weight rows, then bias."""
    a, delta = factor.a[rows], factor.delta[rows]
    if not factor.shared:
        a, delta = a[:, None], delta[:, None]  # as one position
    out, both = delta.shape[-1], factor.weight and factor.bias
    width = factor.width - both
    pieces = []
    if part.start < out * width:
        lines, columns = (a, delta) if factor.transposed and factor.weight else (delta, a[:, :, :width])
        size = columns.shape[2]
        first, last = part.start // size, -(-min(part.stop, out * width) // size)
        weights = (lines[:, :, first:last].transpose(1, 2) @ columns).flatten(1)
        pieces.append(weights[:, part.start - first * size : part.stop - first * size])
    if both and part.stop > out * width:
        biases = (delta * a[:, :, -1:]).sum(1)
        pieces.append(biases[:, max(0, part.start - out * width) : part.stop - out * width])
    return torch.cat(pieces, dim=1)


def lookup_part(factor: Lookup, rows: slice, part: slice) -> Tensor | None:
    """(n, p) coordinates `part` of the gradients of an embedding, or None where no row has looked up any of them."""
    indices, delta = factor.indices[rows], factor.delta[rows]
    n, _, d = delta.shape
    first, last = part.start // d, -(-part.stop // d)
    inside = (indices >= first) & (indices < last)
    if not inside.any():
        return None
    # the others go to the first vector, with a delta of zero: scatter_add_ takes no index outside
    place = torch.where(inside, indices - first, 0)[:, :, None].expand_as(delta)
    table = delta.new_zeros(n, last - first, d).scatter_add_(1, place, delta * inside[:, :, None])
    # a block of parameters may begin and end within a vector
    return table.flatten(1)[:, part.start - first * d : part.stop - first * d]
