"""Which subspaces a compression keeps, and the curvature of the loss within them.

The curvature is the Gauss-Newton matrix, block by block: of all rows by the roots of their output curvature where rows
x outputs are few, else by labels drawn from the model for rows spread evenly over all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod

import numpy as np
import torch
from torch import Tensor

from sktda.devices import exact_device
from sktda.engine.compression import Compression, needed_layers
from sktda.engine.curvature import along_root, rooted_targets
from sktda.engine.drawn_labels import drawn_slopes
from sktda.engine.kronecker import Block, eigenvectors, flat, self_product
from sktda.engine.kronecker_blocks import LookupBlock, ProductBlock, met
from sktda.engine.layers import Layer, LayerRows, Lookup, Product, Tied
from sktda.engine.pairwise import spread
from sktda.engine.per_row import PerRow
from sktda.model.base import Rows

BASIS_ROWS = 8_192  # that the principal subspaces are those of: a few dozen directions need no more
CURVATURE_ROWS = 32_768  # from which it is estimated: many times the numbers of a block
ROOTS = 65_536  # rows x outputs up to which every root is pulled back, and labels are not drawn
FEW_OUTPUTS = 64  # of a row, whose roots are held at once
WHOLE = 1_024  # numbers of a side up to which its second moments are a matrix; of more they are sketched
OVERSAMPLED = 2, 16  # times the rank, and more, columns of a sketch

Pulled = Callable[[slice], Iterator[dict[str, LayerRows]]]


def pulls(engine: PerRow, rows: Rows, layers: list[Layer] | None, seed: int) -> Pulled:
    """For a batch of rows: factors of gradients whose outer products, summed, are its curvature, or are on average.

    They have the root of the row's weight.
    """
    model = engine.model
    shape = engine.outputs(rows.block(slice(0, 1), model.device)[0]).shape
    numbers = prod(shape[1:])
    exactly = numbers <= FEW_OUTPUTS and len(rows) * numbers <= ROOTS

    def noise(part: slice, outputs: Tensor) -> Tensor:
        # a generator for every row: neither batches nor the length of the longest row in one matter
        each = torch.Size((1, *outputs.shape[1:]))
        drawn = [
            model.likelihood.noise(each, torch.Generator().manual_seed(seed + row))
            for row in range(part.start, part.stop)
        ]
        return torch.cat(drawn).to(exact_device(model.device))

    def vectors(part: slice) -> tuple:
        block = rows.block(part, model.device)
        if exactly:
            inputs, roots = rooted_targets(model, block)
            return inputs, roots.unbind(1)
        inputs, targets, weight = block
        outputs = engine.outputs(inputs)
        slopes = drawn_slopes(model.likelihood, outputs, targets, noise(part, outputs))
        return inputs, [slopes if weight is None else slopes * weight.sqrt().reshape(-1, *[1] * (slopes.ndim - 1))]

    def pulled(part: slice) -> Iterator[dict[str, LayerRows]]:
        inputs, each = vectors(part)
        for vector in each:
            yield engine.capture((inputs, vector, None), along_root, layers)[1]

    return pulled


def evenly(rows: Rows, count: int) -> Rows:
    """At most `count` of the rows."""
    return rows if len(rows) <= count else rows.chosen(spread(len(rows), count))


# ---- subspaces -------------------------------------------------------------------------------------------------------


def side_sizes(blocks: list[Block]) -> dict[str, int]:
    """Numbers at the sides that are projected, by "in/BLOCK" and "out/BLOCK"."""
    found: dict[str, int] = {}
    for block in blocks:
        out, width = block.size
        if isinstance(block, ProductBlock):
            found |= {f"in/{block.name}": width, f"out/{block.name}": out}
        elif isinstance(block, LookupBlock):
            found |= {f"out/{block.name}": width}  # the vectors of the table
    return found


def random_sides(blocks: list[Block], rank: int, seed: int) -> dict[str, Tensor]:
    """Orthonormal bases (size, rank) of random subspaces, square where a side is no larger."""
    found = {}
    for number, (key, size) in enumerate(side_sizes(blocks).items()):
        values = np.random.default_rng([seed, number]).normal(size=(size, min(rank, size)))
        found[key] = torch.from_numpy(np.linalg.qr(values)[0])
    return found


def principal_sides(engine: PerRow, rows: Rows, blocks: list[Block], rank: int, seed: int) -> dict[str, Tensor]:
    """The eigenvectors (size, rank) of largest eigenvalues of the second moments of inputs and output gradients."""
    sizes, layers = side_sizes(blocks), needed_layers(engine, blocks)
    place = exact_device(engine.model.device)
    tests, sums = {}, {}
    for number, (key, size) in enumerate(sizes.items()):
        columns = size
        if size > WHOLE:
            times, more = OVERSAMPLED
            columns = min(times * rank + more, size)
            random = np.random.default_rng([seed, number]).normal(size=(size, columns))
            tests[key] = torch.from_numpy(random).to(engine.model.device, engine.model.dtype)
        sums[key] = torch.zeros(size, columns, dtype=torch.float64, device=place)
    few = evenly(rows, BASIS_ROWS)
    pulled = pulls(engine, few, layers, seed)

    def moments(part: slice) -> dict[str, Tensor]:
        root = None if few.weight is None else few.weight[part].sqrt().to(engine.model.device)
        found: dict[str, Tensor] = {}
        for factors in pulled(part):
            for key, values in side_values(blocks, factors, root).items():
                own = self_product(values) if key not in tests else values.T @ (values @ tests[key])
                found[key] = found[key] + own if key in found else own
        return found

    # always in the same batches: eigenvectors of close eigenvalues turn with the rounding of a product
    for _, found in engine.computed(few, moments, size=engine.own_batch):
        for key, value in found.items():
            sums[key] += value.to(place, torch.float64)
    return {
        key: leading(total, rank) if key not in tests else sketched(total, tests[key].to(total), rank)
        for key, total in sums.items()
    }


def side_values(blocks: list[Block], factors: Mapping[str, LayerRows], root: Tensor | None) -> dict[str, Tensor]:
    """(rows x positions, size) by side; those of layers that the batch did not use are left out."""
    found: dict[str, Tensor] = {}
    for block in blocks:
        factor = factors[block.source]
        if isinstance(block, ProductBlock) and isinstance(factor, Product):
            a = met(factor)
            if root is not None:  # a row of weight 2 counts as two rows at either side
                a = a * root.reshape(-1, *[1] * (a.ndim - 1))
            found |= {f"in/{block.name}": flat(a), f"out/{block.name}": flat(factor.delta)}
        elif isinstance(block, LookupBlock) and isinstance(factor, Lookup | Tied):
            found[f"out/{block.name}"] = torch.cat(block.vectors(factor))
    return found


def leading(moments: Tensor, rank: int) -> Tensor:
    """(size, rank) eigenvectors of the largest eigenvalues of a symmetric matrix."""
    return eigenvectors(moments).to(moments)[:, -rank:]


def sketched(sketch: Tensor, test: Tensor, rank: int) -> Tensor:
    """The same from C T (size, columns) for a random T, as those of C T (T' C T)^-1 T' C.

    Source: Tropp et al. 2017 (arXiv:1706.05736), algorithm 3.
    """
    # of products in float32, mostly: where C has a lower rank than T, their rounding may leave T' C T indefinite
    shift = torch.finfo(torch.float32).eps * sketch.norm()
    if not shift:  # dead units, or outputs that are sure: no direction is better than another
        return torch.linalg.qr(test)[0][:, :rank]
    moved = sketch + shift * test
    inner = test.T @ moved
    root = torch.linalg.cholesky((inner + inner.T) / 2 + shift * torch.eye(len(inner)).to(inner))
    # with T' C T = L L' that matrix is B B', B = C T L'^-1: its eigenvectors are the left singular vectors of B
    return torch.linalg.svd(torch.linalg.solve_triangular(root, moved.T, upper=False).T, full_matrices=False)[0][
        :, :rank
    ]


# ---- curvature -------------------------------------------------------------------------------------------------------


def compressed_curvature(engine: PerRow, rows: Rows, compression: Compression, seed: int) -> dict[str, Tensor]:
    """(width, width) Gauss-Newton matrix of the mean loss by block, in float64."""
    few, place = evenly(rows, CURVATURE_ROWS), exact_device(engine.model.device)
    pulled = pulls(engine, few, compression.own(engine), seed)
    sums = {
        name: torch.zeros(each.width, each.width, dtype=torch.float64, device=place)
        for name, each in compression.maps.items()
    }

    def products(part: slice) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for factors in pulled(part):
            values = compression.rows(factors)
            for name, columns in compression.parts.items():
                own = self_product(values[:, columns])
                found[name] = found[name] + own if name in found else own
        return found

    for _, found in engine.computed(few, products):
        for name, value in found.items():
            sums[name] += value.to(place, torch.float64)
    return {name: total / len(few) for name, total in sums.items()}


def inverse_roots(curvature: Mapping[str, Tensor], damping: float | None) -> dict[str, Tensor]:
    """W (width, width) by block with W W' = (curvature + damping)^-1; None = a tenth of the block's mean eigenvalue.

    A block on which no output depends has none: its values are 0. ValueError where a block is singular.
    """
    found = {}
    for name, matrix in curvature.items():
        values, vectors = torch.linalg.eigh(matrix)
        added = 0.1 * float(values.mean()) if damping is None else damping
        if damping is None and not added > 0:
            found[name] = torch.zeros_like(matrix)
            continue
        shifted = values + added
        if not float(shifted[0]) > 1e-12 * float(shifted[-1]):
            raise ValueError(
                f"the curvature of {name or 'the parameters in no known layer'} is singular with damping={added:g}: "
                "there are directions that no row's output depends on; give a damping above 0"
            )
        # W = V (s + d)^-1/2, by columns
        found[name] = vectors / shifted.sqrt()
    return found
