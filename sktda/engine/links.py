"""What the links between layers change in EK-FAC's solutions, along the directions of the largest eigenvalues."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from sktda.devices import exact, exact_device
from sktda.engine.curvature import along_root, rooted_targets
from sktda.engine.ekfac import EKFAC
from sktda.engine.functional import Direction
from sktda.engine.kronecker import self_product
from sktda.engine.kronecker_blocks import ProductBlock
from sktda.engine.layers import LayerRows, Product
from sktda.engine.pairwise import Measure, Queries
from sktda.engine.per_row import PerRow
from sktda.model.base import Rows

MOST = 2_500  # directions; on a net of half a million parameters their matrix takes two to three times EK-FAC's fit
WORK = 1e8  # squared directions times output roots of a row
ROOTS = 128  # output roots of a row, each of which takes a pass over the rows
SMALL = 0.1  # of the damping: directions of smaller eigenvalues are left to EK-FAC


class Links:
    """(G + damping)^-1 with all of the Gauss-Newton matrix G along some of EK-FAC's eigenvectors, which has the rest.

    Where eigenvalues are far below the damping, the inverse is 1 / damping whatever links there are: those below SMALL
    damping are left to EK-FAC, and of more than MOST, or of more than WORK allows, the smallest. The link between one
    that is left out and one that is kept is at most sqrt(s / (s + damping)) of what both are with the damping, s the
    eigenvalue that is left out, since G is positive semidefinite.

    curvature: EK-FAC of the loss alone. Time of the fit: a pass over the rows for each output root, and n roots m^2 for
    m directions; m^2 for each solution. O(m^2) memory.
    """

    def __init__(self, engine: PerRow, rows: Rows, curvature: EKFAC, damping: float) -> None:
        self.curvature = copy(curvature)
        # (G + damping)^-1 by EK-FAC alone is then the reciprocal of its values
        self.curvature.values = {name: values + damping for name, values in curvature.values.items()}
        every = torch.cat([values.flatten() for values in curvature.values.values()])
        most = min(MOST, int((WORK / output_roots(engine, rows)) ** 0.5), int((every >= SMALL * damping).sum()))
        least = every.topk(most).values[-1].item() if most else float("inf")
        self._kept = {name: (values >= least).nonzero(as_tuple=True) for name, values in curvature.values.items()}
        # lines and columns in which there are such directions, and where each has its own among them
        self._sides = {n: [side.unique(return_inverse=True) for side in kept] for n, kept in self._kept.items()}
        self._values = exact(torch.cat([values[self._kept[name]] for name, values in self.curvature.values.items()]))
        matrix = self._matrix(engine, rows)
        matrix.diagonal().add_(damping)
        self._root = cholesky_root(matrix, damping)

    def __len__(self) -> int:
        """How many directions there are."""
        return len(self._values)

    def _matrix(self, engine: PerRow, rows: Rows) -> Tensor:
        """(m, m) Gauss-Newton matrix of the mean loss along the directions, float64."""
        total = torch.zeros(len(self), len(self), dtype=torch.float64, device=exact_device(engine.model.device))
        own = self.curvature.own(engine)

        def work(part: slice) -> None:
            inputs, roots = rooted_targets(engine.model, rows.block(part, engine.model.device))
            found: Tensor | None = None
            # G = (1/n) sum_ik g_ik g_ik' with g_ik = J_i' r_ik: S' G S for directions S by the (n, m) numbers S' g_ik
            for k in range(roots.shape[1]):
                square = self_product(self.along(engine.capture((inputs, roots[:, k], None), along_root, own)[1]))
                found = square if found is None else found.add_(square)
            assert found is not None
            total.add_(exact(found))

        engine.sweep(rows, work)
        return total / len(rows)

    def along(self, factors: dict[str, LayerRows]) -> Tensor:
        """(n, m) gradients of rows along the directions, from their factors by layer."""
        found = []
        for block in self.curvature.layers:
            (lines, columns), bases = self._kept[block.name], self.curvature.bases(block.name)
            if not len(lines):
                continue
            factor = block.taken(factors)
            if isinstance(block, ProductBlock) and isinstance(factor, Product) and not factor.shared:
                out, into = self._sides[block.name]
                # q_out' (delta a') q_in = (q_out . delta)(a . q_in)
                found.append(_turned(factor.delta, bases[1], *out) * _turned(factor.a, bases[0], *into))
            else:
                found.append(torch.cat([part[:, lines, columns] for part in block.rotated_matrices(factor, bases)]))
        if not found:
            return next(iter(factors.values())).square_norms()[:, None][:, :0]  # of no gradient that is formed
        return torch.cat(found, dim=1)

    def changes(self, coordinates: Tensor) -> Tensor:
        """What the links change in EK-FAC's solutions along the directions, (k, m) float64 from coordinates (k, m)."""
        right = exact(coordinates)
        # (S' G S + damping)^-1 - diag(1 / (s + damping)): what is added to the solution of EK-FAC, which has the second
        return torch.cholesky_solve(right.T, self._root).T - right / self._values

    def of_queries(self, plain: Queries, engine: PerRow, queries: Rows, measure: Measure | None, part: slice) -> Linked:
        """Some of the queries, which are ready (`plain`) as EK-FAC alone has them."""

        def along(batch: slice) -> Tensor:
            block = queries.block(batch, engine.model.device)
            return self.along(engine.capture(block, measure, self.curvature.own(engine))[1])

        asked = torch.cat([found for _, found in engine.computed(queries, along, part.start, part.stop)])
        return Linked(plain, self, self.changes(asked).to(asked))

    def quadratic(self, engine: PerRow, rows: Rows, start: int, stop: int) -> Tensor:
        """(stop - start,) g_i' (G + damping)^-1 g_i, float64."""
        result = torch.empty(stop - start, dtype=torch.float64, device=exact_device(engine.model.device))
        scales = {name: values.reciprocal() for name, values in self.curvature.values.items()}

        def work(part: slice) -> None:
            factors = engine.capture(rows.block(part, engine.model.device), None, self.curvature.own(engine))[1]
            own, alone = exact(self.along(factors)), exact(self.curvature.energies(factors, scales))
            result[part.start - start : part.stop - start] = alone + (own * self.changes(own)).sum(1)

        engine.sweep(rows, work, start, stop)
        return result

    def solved(self, directions: Direction) -> dict[str, Tensor]:
        """x of directions (k, ...) by parameter."""
        turned = self.curvature.rotate(directions)
        found = self.curvature.scale(torch.reciprocal, turned)
        along = [turned[name][:, lines, columns] for name, (lines, columns) in self._kept.items()]
        parts = self.changes(torch.cat(along, dim=1)).split([each.shape[1] for each in along], dim=1)
        for (name, (lines, columns)), part in zip(self._kept.items(), parts, strict=True):
            found[name][:, lines, columns] += part.to(found[name])
        return self.curvature.back(found)


def _turned(values: Tensor, basis: Tensor | None, own: Tensor, places: Tensor) -> Tensor:
    """(n, m) values along some vectors of a basis, each of which may be there many times."""
    return (values[:, own] if basis is None else values @ basis[:, own])[:, places]


class Linked(Queries):
    """Queries under EK-FAC, and what the links change in them along their directions, (q, m)."""

    def __init__(self, plain: Queries, links: Links, changes: Tensor) -> None:
        self.plain, self.links, self.changes = plain, links, changes

    def block(self, factors: dict[str, LayerRows]) -> Tensor:
        """(q, n) values."""
        return self.plain.block(factors) + self.changes @ self.links.along(factors).T


def cholesky_root(matrix: Tensor, least: float) -> Tensor:
    """Cholesky factor of a symmetric matrix whose eigenvalues are at least `least` but for rounding."""
    root, failed = torch.linalg.cholesky_ex(matrix)
    if not bool(failed):
        return root
    # gradients in float32 err by 1e-7 of the largest eigenvalue, and the damping may be less
    values, vectors = torch.linalg.eigh(matrix)
    return torch.linalg.cholesky((vectors * values.clamp(min=least)) @ vectors.T)


def output_roots(engine: PerRow, rows: Rows) -> int:
    """How many roots the output Fisher of a row has: one for each number that comes out."""
    return engine.outputs(rows.block(slice(0, 1), engine.model.device)[0])[0].numel()
