"""Values of v' b_i, b_i = H g_i + H_i G: what one step of training adds to the influence of row i, seen from v.

G and H are gradient and Hessian of the training risk, g_i and H_i those of row i's loss, all at the model's present
parameters. With one v for all rows H v is formed once; with a v per query, or v = g_i, v' H g_i is either a dot
product with H v of every v, or of short features under the Gauss-Newton matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sktda.engine.differences import FiniteDifferences
from sktda.engine.functional import Direction
from sktda.engine.layers import LayerRows, Product, Sum
from sktda.engine.pairwise import Preconditioned, by_layer
from sktda.engine.per_row import PerRow
from sktda.engine.root_features import RootFeatures, penalised
from sktda.engine.second_order import Changes, SecondOrder
from sktda.engine.softmax_head import SoftmaxHead
from sktda.model.base import Rows, unflatten

PRODUCT_BYTES = 256 * 2**20  # directions, or activations along them, that are held at a time
Factors = dict[str, LayerRows]
Bends = SecondOrder | FiniteDifferences


class Meeting(ABC):
    """Gradients v of some rows, ready to meet gradients g of others in v' H g."""

    @abstractmethod
    def pairs(self, factors: Factors) -> Tensor:
        """(q, n) with every row of a block."""

    @abstractmethod
    def own(self) -> Tensor:
        """(q,) of each v with itself."""


class ByFeatures(Meeting):
    """H = the Gauss-Newton matrix of the features' rows plus the penalty."""

    def __init__(self, engine: PerRow, features: RootFeatures, factors: Factors) -> None:
        self.features = features
        self.factors = factors
        self.mine = features.of(factors)
        self.penalty = penalised(engine, factors)

    def pairs(self, factors: Factors) -> Tensor:
        """(q, n) with every row of a block."""
        # v' (G + diag(wd)) g: no root of a row holds the penalty
        found = self.mine @ self.features.of(factors).T
        return found + sum(factors[name].gram(part).T for name, part in self.penalty.items())

    def own(self) -> Tensor:
        """(q,) of each v with itself."""
        found = self.mine.square().sum(1)
        return found + sum(part.pairs(self.factors[name]) for name, part in self.penalty.items())


class ByProducts(Meeting):
    """H = the Hessian of the risk over some rows plus the penalty, by one product per v."""

    def __init__(self, engine: PerRow, bends: Bends, rows: Rows, factors: Factors) -> None:
        shapes = {name: value.shape for name, value in engine.model.parameters.items()}
        self.engine = engine
        self.v = engine.formed(factors)
        self.product = bends.products(rows, unflatten(self.v, shapes))[1]

    def pairs(self, factors: Factors) -> Tensor:
        """(q, n) with every row of a block."""
        # (H v)' g, as H is symmetric: nothing is multiplied for the rows
        return Preconditioned(by_layer(self.engine, self.product)).block(factors)

    def own(self) -> Tensor:
        """(q,) of each v with itself."""
        return (self.v * torch.cat([part.reshape(len(part), -1) for part in self.product.values()], dim=1)).sum(1)


def meeting(engine: PerRow, bends: Bends | None, rows: Rows) -> Callable[[Factors], Meeting]:
    """What makes a Meeting of factors: by products, or by features where `bends` is None; rows give H."""
    if bends is None:
        return partial(ByFeatures, engine, RootFeatures(engine, rows))
    return partial(ByProducts, engine, bends, rows)


def portion(engine: PerRow, rows: Rows, by_products: bool) -> int:
    """How many v a Meeting may hold at a time; rows are those that give H."""
    engine.prepare(rows)
    batch = min(len(rows), engine.batch_size or 1)
    size = sum(value.nbytes for value in engine.model.parameters.values())
    if by_products:
        return max(1, PRODUCT_BYTES // max(size, batch * engine.row_bytes))
    inputs, targets, _ = rows.block(slice(0, 1), engine.model.device)
    roots = engine.model.likelihood.roots(engine.outputs(inputs), targets)
    # a v has a feature for every root of every row
    return max(1, PRODUCT_BYTES // (roots.element_size() * len(rows) * roots.shape[1]))


def pairs_with(
    engine: PerRow, rows: Rows, bends: Bends, asked: list[tuple[Factors, Meeting]], slope: Direction, part: slice
) -> Tensor:
    """(q, n) values v' b_i of queries and the rows of a part."""
    found = bends.changes(rows.block(part, engine.model.device), slope)
    # v' H g_i by the meeting, v' H_i G by the changes: these are along G
    values = [
        met.pairs(found.factors) + total(change.gram(own[name]) for name, change in found.changes.items()).T
        for own, met in asked
    ]
    return torch.cat(values)


def own_values(
    engine: PerRow,
    rows: Rows,
    bends: Bends,
    met: Callable[[Factors], Meeting],
    slope: Direction,
    size: int,
    start: int,
    stop: int,
) -> Tensor:
    """(stop - start,) values g_i' b_i, at most `size` rows at a time."""
    result = torch.empty(stop - start, dtype=engine.model.dtype, device=engine.model.device)

    def work(part: slice) -> None:
        found = bends.changes(rows.block(part, engine.model.device), slope)
        changed = total(change.pairs(found.factors[name]) for name, change in found.changes.items())  # g_i' H_i G
        result[part.start - start : part.stop - start] = met(found.factors).own() + changed

    engine.sweep(rows, work, start, stop, min(size, engine.batch_size or 1))
    return result


def aggregated(
    engine: PerRow,
    rows: Rows,
    bends: Bends | SoftmaxHead,
    v: Direction,
    slope: Direction,
    product: Direction,
    start: int,
    stop: int,
) -> Tensor:
    """(stop - start, k) values v' b_i for k directions v (k, ...); slope is G, product H v."""
    k = len(next(iter(v.values())))
    result = torch.empty(stop - start, k, dtype=engine.model.dtype, device=engine.model.device)
    # (2k, ...): v, then H v, for <H v, g_i> = v' H g_i
    met = by_layer(engine, {name: torch.cat([v[name], product[name]]) for name in v})

    def work(part: slice) -> None:
        block = rows.block(part, engine.model.device)
        if isinstance(bends, SoftmaxHead):
            found = bends.second(block, v, product, slope)
        else:
            dots, bent = along(bends.changes(block, slope), met, k)
            found = (dots[k:] + bent).T  # dots with H v, and v' H_i G
        result[part.start - start : part.stop - start] = found

    engine.prepare(rows)
    engine.sweep(rows, work, start, stop, engine.second_order_batch)
    return result


def along(found: Changes, met: Mapping[str, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Dots (m, n) of the gradients of a block with directions (m, p) by layer, and (k, n) of H_i G with the first k."""
    dots, bent = [], []
    for name, factor in found.factors.items():
        change = found.changes[name]
        if not isinstance(factor, Product) or not isinstance(change, Sum):
            dots.append(factor.contract(met[name]).T)
            bent.append(change.contract(met[name][:k]).T)
            continue
        images = factor.images(met[name])  # the largest product; changes often have the same inputs
        dots.append(factor.meet(images).T)
        for part in change.parts:
            assert isinstance(part, Product)
            same = part.inputs is factor.inputs
            bent.append(part.meet(images[:, :k] if same else part.images(met[name][:k])).T)
    return total(dots), total(bent)


def first_and_second(
    engine: PerRow, rows: Rows, bends: Bends, v: Direction, slope: Direction, product: Direction
) -> Tensor:
    """(4, n): <v, g_i>, <G, g_i> without the penalty, v' b_i and |g_i|^2 in one pass; slope is G, product H v."""
    engine.prepare(rows)
    own, decay = engine.model.parameters, engine.model.decay
    penalty = [{name: decay.get(name, 0.0) * value.detach() for name, value in own.items()}] if decay else []
    result = torch.empty(4, len(rows), dtype=engine.model.dtype, device=engine.model.device)
    met = each_layer(engine, [v, product, *penalty])  # the order of the dots below

    def work(part: slice) -> None:
        found = bends.changes(rows.block(part, engine.model.device), slope)
        lengths = total(factor.square_norms() for factor in found.factors.values())
        dots, bent = along(found, met, 1)
        # G is of the risk with its penalty, which is no row's doing
        mean = found.dots - dots[2] if penalty else found.dots
        result[:, part] = torch.stack([dots[0], mean, dots[1] + bent[0], lengths])

    engine.sweep(rows, work, size=engine.second_order_batch)
    return result


def each_layer(engine: PerRow, directions: Sequence[Direction]) -> dict[str, Tensor]:
    """(k, p) by layer."""
    return by_layer(engine, {name: torch.stack([each[name] for each in directions]) for name in directions[0]})


def total(parts: Iterable[Tensor]) -> Tensor:
    """The sum."""
    return torch.stack(list(parts)).sum(0)


def drawn(rows: Rows, count: int | None, seed: list[int]) -> Rows:
    """`count` of the rows, without repetition; all of them where there are no more, or for None."""
    if count is None or count >= len(rows):
        return rows
    # sorted, as rows may be read from a file
    return rows.chosen(np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False)))
