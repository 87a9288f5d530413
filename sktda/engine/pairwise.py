"""Values of many rows for many queries: q' M g_i with M = identity, a preconditioner, or EK-FAC in low rank.

A gradient of one Linear layer is delta a', so q' g = (delta_q . delta_i)(a_q . a_i): two small products for a whole
block of pairs. An elementwise EK-FAC inverse written as a sum of R outer products keeps that form: R products of two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sktda.devices import exact, exact_device, in_blocks
from sktda.engine.curvature import Spectral
from sktda.engine.ekfac import EKFAC
from sktda.engine.kronecker import turned_back
from sktda.engine.layers import Layer, LayerRows, Product
from sktda.engine.per_row import REST, PerRow
from sktda.engine.unrolling import Flow
from sktda.model.base import Rows

Measure = Callable[[Tensor, Tensor], Tensor]
QUERY_BYTES = 2**30  # preconditioned query gradients held at a time
EXACT_WORK = 1e10  # queries x rows x parameters that are multiplied out exactly: about a second on two cores
SAFETY = 0.8  # the error on the probe must be below the tolerance by this factor: other pairs may have more
RANK = 48  # outer products that are looked for in a direction, at most
TRUNCATED = 0.5  # as SAFETY, where it is estimated and not measured: segments average over states that differ
PROBE = 32, 1_024  # queries and rows on which the low rank is checked against the exact product


class Queries(ABC):
    """Query rows, ready to be multiplied with the factors of any batch of training rows."""

    @abstractmethod
    def block(self, factors: dict[str, LayerRows]) -> Tensor:
        """(q, n) values."""


class Plain(Queries):
    """q' g_i."""

    def __init__(self, batches: list[dict[str, LayerRows]]) -> None:
        self.batches = batches

    def block(self, factors: dict[str, LayerRows]) -> Tensor:
        """(q, n) dot products, by products of factors."""
        parts = [sum(own[name].gram(factors[name]) for name in own) for own in self.batches]
        return torch.cat(parts)  # type: ignore[arg-type]


class Preconditioned(Queries):
    """(M q)' g_i with M q formed: by layer (q, p) in the order of LayerRows.gradients."""

    def __init__(self, directions: dict[str, Tensor]) -> None:
        self.directions = directions

    def block(self, factors: dict[str, LayerRows]) -> Tensor:
        """(q, n) dot products."""
        # contract gives (n, q)
        return sum(factors[name].contract(values) for name, values in self.directions.items()).T  # type: ignore[union-attr]


class LowRank(Queries):
    """EK-FAC values of Linear layers by R outer products, and of the other layers exactly."""

    def __init__(self, terms: dict[str, tuple[Tensor, Tensor]], exact: Preconditioned) -> None:
        self.terms = terms
        self.exact = exact

    @property
    def layers(self) -> set[str]:
        """Names of the layers whose factors `block` needs."""
        return {*self.terms, *self.exact.directions}

    def block(self, factors: dict[str, LayerRows]) -> Tensor:
        """(q, n) values: for each r, (delta_q,r . delta_i)(a_q,r . a_i)."""
        total: Tensor | None = self.exact.block(factors) if self.exact.directions else None
        for name, (deltas, inputs) in self.terms.items():
            factor = factors[name]
            assert isinstance(factor, Product)
            # transposed once and not for every r
            a, delta = factor.a.T.contiguous(), factor.delta.T.contiguous()
            for left, right in zip(deltas, inputs, strict=True):
                pairs = (left @ delta).mul_(right @ a)
                total = pairs if total is None else total.add_(pairs)
        assert total is not None
        return total


def truncated(flow: Flow, coordinates: Mapping[str, Tensor], linear: set[str], tolerance: float) -> LowRank:
    """Directions of queries, (q, out, in + bias) by layer in the flow's eigenbases, as few outer products each.

    Singular vectors of the coordinates, each weighted by the root of the mean square of training gradients along it:
    what is left out then has, relative to all, the size of the error in the values (Frobenius, over queries and rows).
    It is kept below `tolerance`; layers not in `linear`, or with too many terms, are formed.
    """
    curvature = flow.curvature
    assert isinstance(curvature, EKFAC)
    assert flow.root is None  # it would have to be written as outer products, too
    weights = {name: energies(curvature.values[name]) for name in coordinates}
    weighted = {
        name: value * out[:, None] * into for name, value in coordinates.items() for out, into in [weights[name]]
    }
    # squared errors of layers add up, so each may have an equal share of what is allowed
    allowed = (TRUNCATED * tolerance) ** 2 * sum(squares(value) for value in weighted.values()) / len(coordinates)
    terms, formed = {}, {}
    for layer in curvature.layers:
        name = layer.name
        found = weighted.pop(name)
        pair = None
        if name in linear and tolerance > 1e3 * torch.finfo(found.dtype).eps:  # less is rounding
            pair = few_products(found, allowed)
        if pair is not None:
            # the weights chose the terms and go again: what is written as products are the coordinates
            lefts, rights = (part / root for part, root in zip(pair, weights[name], strict=True))
            q_in, q_out = curvature.bases(name)
            terms[name] = lefts @ q_out.T, rights @ q_in.T  # type: ignore[union-attr]
            continue
        formed[name] = layer.matrix(flow.rooted(curvature.back({name: coordinates[name]})))
    return LowRank(terms, Preconditioned(curvature.by_source(formed)))


def few_products(matrices: Tensor, allowed: Tensor | float) -> tuple[Tensor, Tensor] | None:
    """(r, q, out) and (r, q, in): r outer products for each of (q, out, in), and a sum of squares <= allowed left out.

    None where r would be above RANK, or as costly as the matrices.
    """
    total = squares(matrices)
    out, width = matrices.shape[1:]
    # a third of the terms first: they often suffice, at a third of the cost
    for most in sorted({min(most, out * width // (out + width)) for most in (RANK // 3, RANK)} - {0}):
        left, strength, right = leading_vectors(matrices, most)
        missing = total - exact(strength).square().sum(0).cumsum(0)  # Eckart & Young: squares that r terms leave out
        enough = (missing <= allowed).nonzero()
        if len(enough):
            rank = int(enough[0]) + 1
            return (left * strength[:, None])[:, :, :rank].permute(2, 0, 1), right[:, :, :rank].permute(2, 0, 1)
    return None


def truncated_size(layer: Layer) -> int:
    """Numbers that `truncated` keeps of one direction at a layer, at most."""
    out = layer.shapes[0][0]
    return min(RANK * (out + layer.n_parameters // out), layer.n_parameters)


def energies(values: Tensor) -> tuple[Tensor, Tensor]:
    """Roots (out,) and (in,) whose outer product is near the root of the eigenvalues (out, in)."""
    mean = values.mean().clamp_min(torch.finfo(values.dtype).tiny ** 0.5)  # 0 for a layer that is dead
    # above 0 where no row moves anything, too: terms are divided by them again
    return values.mean(1).clamp_min(1e-12 * mean).sqrt(), (values.mean(0) / mean).clamp_min(1e-12).sqrt()


def squares(values: Tensor) -> Tensor:
    """Sum of squares, in float64: differences of such sums are taken."""
    return torch.linalg.vector_norm(values.to(exact_device(values.device)), dtype=torch.float64).square()


def leading_vectors(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """(q, out, rank), (q, rank) and (q, in, rank): the strongest singular vectors and values of (q, out, in).

    By subspace iteration from one random start. Source: Halko et al. 2011 (arXiv:0909.4061), algorithm 4.4.
    """
    generator = torch.Generator().manual_seed(0)
    # drawn on the processor in float64: the same start for every dtype and device
    probe = torch.randn(matrices.shape[2], rank, generator=generator, dtype=torch.float64).to(matrices)
    found = torch.linalg.qr(matrices @ probe)[0]
    # one power step, made orthogonal after each product: else all columns turn to the strongest vector
    found = torch.linalg.qr(matrices @ torch.linalg.qr(matrices.mT @ found)[0])[0]
    left, strength, right = torch.linalg.svd(found.mT @ matrices, full_matrices=False)
    return found @ left, strength, right.mT


class Joined(Queries):
    """Queries in several parts, one after the other."""

    def __init__(self, parts: Sequence[Queries]) -> None:
        self.parts = parts

    def block(self, factors: dict[str, LayerRows]) -> Tensor:
        """(q, n) values."""
        return torch.cat([part.block(factors) for part in self.parts])


class EKFACQueries:
    """Turns blocks of query rows into `Queries` under an EK-FAC curvature and a function of it.

    tolerance: relative error (Frobenius, on a probe of queries and rows) that the low rank may have; 0 = exact.
    """

    def __init__(self, curvature: EKFAC, fn: Spectral, tolerance: float) -> None:
        self.curvature = curvature
        self.fn = fn
        self.tolerance = tolerance
        self.ranks: dict[str, int] | None = None if tolerance else {}
        self._outer: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def choose_ranks(self, engine: PerRow, queries: Rows, rows: Rows, measure: Measure | None) -> None:
        """Small ranks whose measured error is within the tolerance; layers where exact is cheaper are exact.

        On a probe of queries and rows: the layer whose error is largest for its cost gets one more term, until the
        error of the sum over layers is small enough.
        """
        # own_batch and not batch_size: the ranks, and with them the last digits, must not depend on the latter
        asked = self._capture(engine, queries, spread(len(queries), PROBE[0]), measure)
        known = self._capture(engine, rows, spread(len(rows), min(PROBE[1], engine.own_batch)), None)
        # a list: the order of a set of names, and with it the last digits of sums, differs from process to process
        names = [block.name for block in self.curvature.layers]
        linear = [n for n in names if isinstance(factor := asked.get(n), Product) and not factor.shared]
        missing, terms, cost = {}, {}, {}
        for name in linear:
            values = self.curvature.values[name]
            self._outer[name] = outer_products(values, self.fn(values))
            missing[name] = self._exact(asked, {name}).block(known)
            terms[name] = self._terms(asked[name], known[name], name)
            cost[name] = sum(values.shape)
        others = set(names) - set(linear)
        truth = sum(missing.values()) + (self._exact(asked, others).block(known) if others else 0)
        assert isinstance(truth, Tensor)
        goal = SAFETY * self.tolerance * truth.norm()
        ranks = dict.fromkeys(linear, 0)
        while missing and (torch.stack(list(missing.values())).sum(0).norm() > goal or 0 in ranks.values()):
            # one term for every layer first: without any it would not take part at all
            unused = [name for name in missing if not ranks[name]]
            name = unused[0] if unused else max(missing, key=lambda key: missing[key].norm().item() ** 2 / cost[key])
            term = next(terms[name], None)
            out, width = self.curvature.values[name].shape
            if term is None or (ranks[name] + 1) * cost[name] >= out * width:
                del missing[name], ranks[name]  # exact is cheaper, or no rank is exact enough
                continue
            missing[name] -= term
            ranks[name] += 1
        self.ranks = ranks

    def _terms(self, asked: LayerRows, known: LayerRows, name: str) -> Iterator[Tensor]:
        """Yields what each outer product adds to the values of the probe, the strongest first."""
        assert isinstance(asked, Product)
        assert isinstance(known, Product)
        (a, delta), (a_row, delta_row) = self.curvature.rotated(asked, name), self.curvature.rotated(known, name)
        for strength, left, right in zip(*self._outer[name], strict=True):
            yield (delta * (strength * left) @ delta_row.T) * (a * right @ a_row.T)

    def _capture(
        self, engine: PerRow, queries: Rows, part: slice | np.ndarray, measure: Measure | None
    ) -> dict[str, LayerRows]:
        return engine.capture(queries.block(part, engine.model.device), measure, self.curvature.own(engine))[1]

    def _exact(self, asked: dict[str, LayerRows], names: set[str] | None = None) -> Preconditioned:
        directions = {
            block.name: self._moved(block.taken(asked), block.name)
            for block in self.curvature.layers
            if names is None or block.name in names
        }
        return Preconditioned(self.curvature.by_source(directions))

    def _moved(self, factor: LayerRows, name: str) -> Tensor:
        scale, bases = self.fn(self.curvature.values[name]), self.curvature.bases(name)
        parts = self.curvature.rotated_matrices(factor, name)
        return torch.cat([turned_back(part * scale, bases) for part in parts])

    def prepared(self, asked: dict[str, LayerRows]) -> Queries:
        """The queries of one captured block."""
        ranks = self.ranks or {}
        exact = self._exact(asked, {layer.name for layer in self.curvature.layers} - set(ranks))
        terms = {}
        for name, rank in ranks.items():
            factor = asked[name]
            assert isinstance(factor, Product)
            a, delta = self.curvature.rotated(factor, name)
            strength, left, right = self._outer[name]
            q_in, q_out = self.curvature.bases(name)
            deltas = (delta * (strength[:rank, None] * left[:rank])[:, None]) @ q_out.T  # type: ignore[union-attr]
            terms[name] = deltas, (a * right[:rank, None]) @ q_in.T  # type: ignore[union-attr]
        return LowRank(terms, exact) if terms else exact

    def size(self, n_queries: int) -> int:
        """Queries whose preconditioned gradients, or low-rank factors, fit into QUERY_BYTES at a time."""
        each = 0
        for layer in self.curvature.layers:
            values, rank = self.curvature.values[layer.name], (self.ranks or {}).get(layer.name)
            each += values.element_size() * (layer.n_parameters if rank is None else rank * sum(values.shape))
        return min(n_queries, max(1, QUERY_BYTES // each))

    def blocks(self, engine: PerRow, queries: Rows, measure: Measure | None) -> Iterator[tuple[slice, Queries]]:
        """(query positions, prepared queries), as many at a time as memory takes."""
        return in_blocks(len(queries), self.size(len(queries)), partial(self.part, engine, queries, measure))

    def part(self, engine: PerRow, queries: Rows, measure: Measure | None, part: slice) -> Queries:
        """Some of the queries, at most `size` of them, ready."""
        # activations of the queries in batches, as of any rows: there may be many queries of few parameters
        found = engine.computed(
            queries, lambda batch: self.prepared(self._capture(engine, queries, batch, measure)), part.start, part.stop
        )
        ready = [each for _, each in found]
        return ready[0] if len(ready) == 1 else Joined(ready)


def by_layer(engine: PerRow, directions: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(k, p) per layer, in the order of LayerRows.gradients, from (k, ...) directions per parameter.

    Layers that the directions leave out are left out; of one that they name in part the rest is 0.
    """
    groups = {layer.name: layer.parameters for layer in engine.layers or []}
    if engine.rest:
        groups[REST] = engine.rest
    k, own, result = len(next(iter(directions.values()))), engine.model.parameters, {}
    for layer, names in groups.items():
        if known := [directions[name] for name in names if name in directions]:
            zeros = known[0].new_zeros
            each = [directions[n].reshape(k, -1) if n in directions else zeros(k, own[n].numel()) for n in names]
            result[layer] = torch.cat(each, dim=1)
    return result


def along_each(engine: PerRow, rows: Rows, directions: Mapping[str, Tensor], start: int, stop: int) -> Tensor:
    """(stop - start, k) derivatives of the rows' losses along k directions (k, ...), in one pass.

    Parameters that the directions do not name count as zero in them.
    """
    k = len(next(iter(directions.values())))
    if k == 1:
        return engine.dots(rows, {name: value[0] for name, value in directions.items()}, start, stop)[:, None]
    engine.prepare(rows)
    met = by_layer(engine, directions)
    layers = None if REST in met else [layer for layer in engine.layers or [] if layer.name in met]
    result = torch.empty(stop - start, k, dtype=engine.model.dtype, device=engine.model.device)

    def work(part: slice) -> None:
        factors = engine.capture(rows.block(part, engine.model.device), None, layers)[1]
        dots = [factors[name].contract(each.to(result)) for name, each in met.items()]
        result[part.start - start : part.stop - start] = torch.stack(dots).sum(0)

    engine.sweep(rows, work, start, stop)
    return result


def spread(n: int, count: int) -> np.ndarray:
    """At most `count` positions, evenly from 0 to n - 1."""
    return np.unique(np.linspace(0, n - 1, min(count, n)).astype(int))


def outer_products(values: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """inverse (out, in) as sum_r strength_r left_r right_r', the best first: (r,), (r, out), (r, in).

    The error is weighted by the size of gradients: with d_s and d_a the row and column means of `values`, the singular
    vectors are those of diag(d_s) inverse diag(d_a). Source: Eckart & Young 1936, with weights.
    """
    least = 1e-12 * values.mean().item()
    s, a = (exact(values).mean(axis).clamp_min(least) for axis in (1, 0))
    weighted = s[:, None] * exact(inverse) * a
    wide = weighted.shape[0] < weighted.shape[1]
    square = weighted @ weighted.T if wide else weighted.T @ weighted  # the smaller Gram: cheap, exact to 1e-8
    found, vectors = torch.linalg.eigh(square)
    strength = found.flip(0).clamp_min(0).sqrt()
    near = vectors.flip(1)  # the strongest first; eigh ascends
    far = (weighted.T @ near if wide else weighted @ near) / strength.clamp_min(1e-300)
    left, right = (near, far) if wide else (far, near)
    kept = strength > 1e-7 * strength[0]  # the Gram is exact to 1e-14 or so, its roots to 1e-7
    return strength[kept].to(inverse), (left.T / s)[kept].to(inverse), (right.T / a)[kept].to(inverse)
