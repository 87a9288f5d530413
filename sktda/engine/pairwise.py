"""Values of many rows for many queries: q' M g_i with M = identity, a preconditioner, or EK-FAC in low rank.

A gradient of one Linear layer is delta a', so q' g = (delta_q . delta_i)(a_q . a_i): two small products for a whole
block of pairs. An elementwise EK-FAC inverse written as a sum of R outer products keeps that form: R products of two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sktda.devices import in_blocks, in_pairs
from sktda.engine.curvature import Spectral
from sktda.engine.ekfac import EKFAC
from sktda.engine.kronecker import turned_back
from sktda.engine.layers import Layer, LayerRows, Mapped, Product
from sktda.engine.outer_products import GRAM_DIGITS, RANK, energies, few_products, outer_products, squares
from sktda.engine.per_row import REST, PerRow
from sktda.engine.ranks import Probe, chosen_ranks
from sktda.engine.unrolling import Flow
from sktda.model.base import Rows

Measure = Callable[[Tensor, Tensor], Tensor]
Turned = dict[str, tuple[Tensor, Tensor]]
QUERY_BYTES = 2**30  # preconditioned query gradients held at a time
EXACT_WORK = 1e10  # queries x rows x parameters that are multiplied out exactly: about a second on two cores
TRUNCATED = 0.5  # of the tolerance, where the error is estimated and not measured: segments average over states
PROBE = 32, 128, 1_024  # queries, least and most rows on which the low rank is checked against the exact product
PROBED = 10  # between these, one in so many of all pairs


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
    """(M q)' g_i with M q formed: by layer (q, p) in the order of LayerRows.gradients.

    coordinates: of further layers, (q, out * in) in the eigenbases of a curvature, into which the rows are turned.
    """

    def __init__(
        self,
        directions: dict[str, Tensor],
        coordinates: dict[str, Tensor] | None = None,
        curvature: EKFAC | None = None,
    ) -> None:
        self.directions = directions
        self.coordinates = coordinates or {}
        self.curvature = curvature

    @property
    def layers(self) -> set[str]:
        """Names of the layers whose factors `block` needs."""
        return {*self.directions, *self.coordinates}

    def block(self, factors: dict[str, LayerRows]) -> Tensor:
        """(q, n) dot products."""
        found = [factors[name].contract(values) for name, values in self.directions.items()]  # (n, q)
        for name, values in self.coordinates.items():
            factor = factors[name]
            assert self.curvature is not None
            assert isinstance(factor, Product)
            found.append(Mapped(*self.curvature.rotated(factor, name), True, False).contract(values))
        return sum(found[1:], found[0]).T


class LowRank(Queries):
    """EK-FAC values of Linear layers by R outer products, and of the other layers exactly."""

    def __init__(self, terms: dict[str, tuple[Tensor, Tensor]], exact: Preconditioned) -> None:
        self.terms = terms
        self.exact = exact

    @property
    def layers(self) -> set[str]:
        """Names of the layers whose factors `block` needs."""
        return {*self.terms, *self.exact.layers}

    def block(self, factors: dict[str, LayerRows]) -> Tensor:
        """(q, n) values: for each r, (delta_q,r . delta_i)(a_q,r . a_i)."""
        total: Tensor | None = self.exact.block(factors) if self.exact.layers else None
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
        if name in linear and tolerance > max(GRAM_DIGITS, 1e3 * torch.finfo(found.dtype).eps):  # less is rounding
            pair = few_products(found, allowed)
        if pair is not None:
            # the weights chose the terms and go again: what is written as products are the coordinates
            lefts, rights = (part / root for part, root in zip(pair, weights[name], strict=True))
            q_in, q_out = curvature.bases(name)
            terms[name] = lefts @ q_out.T, rights @ q_in.T  # type: ignore[union-attr]
            continue
        formed[name] = layer.matrix(flow.rooted(curvature.back({name: coordinates[name]})))
    return LowRank(terms, Preconditioned(curvature.by_source(formed)))


def truncated_size(layer: Layer) -> int:
    """Numbers that `truncated` keeps of one direction at a layer, at most."""
    out = layer.shapes[0][0]
    return min(RANK * (out + layer.n_parameters // out), layer.n_parameters)


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
    n_rows: how many rows the queries will meet, None = many. Few are turned into the eigenbases, in place of the
    queries back.
    """

    def __init__(self, curvature: EKFAC, fn: Spectral, tolerance: float, n_rows: int | None = None) -> None:
        self.curvature = curvature
        self.tolerance = tolerance
        self.n_rows = n_rows
        self.ranks: dict[str, int] | None = None if tolerance else {}
        self._scales = {block.name: fn(curvature.values[block.name]) for block in curvature.layers}
        self._outer: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def choose_ranks(self, engine: PerRow, queries: Rows, rows: Rows, measure: Measure | None) -> None:
        """Small ranks whose error is within the tolerance on a probe of the pairs; see `chosen_ranks`."""
        # own_batch and not batch_size: the ranks, and with them the last digits, must not depend on the latter
        most = min(max(len(queries) * len(rows) // (PROBED * PROBE[0]), PROBE[1]), PROBE[2], engine.own_batch)
        queries, rows = (few.chosen(spread(len(few), n)) for few, n in ((queries, PROBE[0]), (rows, most)))

        def prepare(part: slice) -> tuple[Turned, Preconditioned]:
            factors = self._capture(engine, queries, part, measure)
            turned = self._turned(factors, self._scales)
            return turned, self._exact(factors, [name for name in self._scales if name not in turned])

        def compute(ready: tuple[Turned, Preconditioned], part: slice) -> tuple[list[Tensor], Turned, Turned]:
            factors = self._capture(engine, rows, part, None)
            (asked, others), known = ready, self._turned(factors, self._scales)
            each = [
                Mapped(*known[name], True, False).contract(self._coordinates(own, name)).T
                for name, own in asked.items()
            ]
            return each + ([others.block(factors)] if others.layers else []), asked, known

        asked: list[Turned] = []
        known: list[Turned] = []
        wholes: list[Tensor] = []
        for own, part, (values, left, right) in in_pairs((len(queries),) * 2, prepare, (len(rows),) * 2, compute):
            wholes = wholes or [each.new_empty(len(queries), len(rows)) for each in values]
            for whole, each in zip(wholes, values, strict=True):
                whole[own, part] = each
            asked += [] if part.start else [left]
            known += [] if own.start else [right]
        probes = {}
        for name, whole in zip(asked[0], wholes, strict=False):  # the last may be that of other layers
            self._outer[name] = outer_products(self.curvature.values[name], self._scales[name])
            sides = [
                [torch.cat(factors) for factors in zip(*(part[name] for part in parts), strict=True)]
                for parts in (asked, known)
            ]
            probes[name] = Probe(whole, self._outer[name], *sides)
        self.ranks = chosen_ranks(probes, torch.stack(wholes).sum(0).norm(), self.tolerance)

    def _turned(self, factors: dict[str, LayerRows], names: Iterable[str]) -> Turned:
        """Inputs and output gradients in the eigenbases, of those layers that no row uses twice."""
        return {
            name: self.curvature.rotated(factor, name)
            for name in names
            if isinstance(factor := factors.get(name), Product) and not factor.shared
        }

    def _few(self, n_queries: int, out: int, width: int) -> bool:
        """Whether turning the rows takes fewer products than turning the queries back."""
        rows = np.inf if self.n_rows is None else self.n_rows
        return rows * (out**2 + width**2) < n_queries * out * width * (out + width)

    def _coordinates(self, turned: tuple[Tensor, Tensor], name: str) -> Tensor:
        """(q, out * in) of preconditioned gradients in the eigenbases."""
        a, delta = turned
        return (delta[:, :, None] * a[:, None] * self._scales[name]).flatten(1)

    def _capture(self, engine: PerRow, queries: Rows, part: slice, measure: Measure | None) -> dict[str, LayerRows]:
        return engine.capture(queries.block(part, engine.model.device), measure, self.curvature.own(engine))[1]

    def _exact(self, asked: dict[str, LayerRows], names: list[str]) -> Preconditioned:
        directions, coordinates = {}, {}
        for name in names:
            block = self.curvature.block(name)
            if (turned := self._turned(asked, [name])) and self._few(len(turned[name][0]), *block.size):
                coordinates[name] = self._coordinates(turned[name], name)
            else:
                directions[name] = self._moved(block.taken(asked), name)
        return Preconditioned(self.curvature.by_source(directions), coordinates, self.curvature)

    def _moved(self, factor: LayerRows, name: str) -> Tensor:
        parts = self.curvature.rotated_matrices(factor, name)
        return torch.cat([turned_back(part * self._scales[name], self.curvature.bases(name)) for part in parts])

    def prepared(self, asked: dict[str, LayerRows]) -> Queries:
        """The queries of one captured block."""
        ranks = self.ranks or {}
        exact = self._exact(asked, [name for name in self._scales if name not in ranks])
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
