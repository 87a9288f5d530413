"""Inverse products with the whole Gauss-Newton matrix: conjugate gradients that EK-FAC preconditions.

The idea of ASTRA (arXiv:2507.14740): EK-FAC knows the sizes of the eigenvalues and not what links the layers, so that
its inverse is a good first step and a few more make up for the links. ASTRA takes steps on batches of rows; here all
rows are in every product, so that a solution is the same every time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from copy import copy
from functools import cached_property, partial

import torch
from torch import Tensor

from sktda.engine.curvature import conjugate_gradients
from sktda.engine.damping import LEAST, unpenalised
from sktda.engine.ekfac import EKFAC
from sktda.engine.functional import Direction
from sktda.engine.gauss_newton import FactoredGaussNewton, gauss_newton_products
from sktda.engine.journal import Passes
from sktda.engine.layers import LayerRows, Product
from sktda.engine.pairwise import Measure, Queries
from sktda.engine.per_row import PerRow
from sktda.model.base import Rows

CG_STEPS = 1_000
ENOUGH = 0.3  # residual, as a share of |b|, of a solution with the default damping
SMALL = 0.1  # of the default damping: directions of smaller eigenvalues are left to EK-FAC
STOPPED = 10.0  # over the sum of the learning rates: the damping of a net whose training was recorded


class Systems:
    """x with (G + penalty + damping) x = b for directions b (k, ...), G the Gauss-Newton matrix of the mean loss.

    rate: sum of the learning rates of SGD, divided by 1 - momentum; None = unknown. With a rate and no damping the
    penalty is left out, as in `engine/damping.py`, the damping is STOPPED / rate and a residual of ENOUGH will do: the
    rest of a solution does not predict retraining better. Otherwise solutions are exact to rounding.
    """

    def __init__(self, engine: PerRow, rows: Rows, seed: int, passes: Passes, rate: float | None) -> None:
        self.engine, self.rows = engine, rows
        engine.prepare(rows)
        model = engine.model
        self.rate = None if model.linear else rate
        self.curvature: EKFAC | None = None
        if not model.linear and any(layer.is_product for layer in engine.layers or []):
            with warnings.catch_warnings():  # nothing is left out of the products
                warnings.filterwarnings("ignore", "EK-FAC leaves out")
                self.curvature = EKFAC(engine, rows, seed, passes)
        self._suits = self.curvature is not None and FactoredGaussNewton.suits(engine, rows)

    @cached_property
    def factored(self) -> bool:
        """Whether many directions share the passes over the rows."""
        if not self._suits:
            return False
        assert self.curvature is not None
        return FactoredGaussNewton.fits(self.engine, self.rows, [block.size for block in self.curvature.layers])

    @cached_property
    def links(self) -> Links | None:
        """What solves with the default damping in few directions; None where there is none, or the net is another."""
        if not self._suits or self.rate is None:
            return None
        assert self.curvature is not None
        if self.curvature.left_out:  # such as a layer that no loss depends on
            return None
        links = Links(unpenalised(self.curvature, self.engine), STOPPED / self.rate)
        if not FactoredGaussNewton.fits(self.engine, self.rows, links.sizes):
            return None
        links.meet(self.engine, self.rows)
        return links

    @cached_property
    def _multiply(self) -> Callable[[Direction], dict[str, Tensor]]:
        if self.factored:
            return FactoredGaussNewton(self.engine, self.rows)
        return partial(gauss_newton_products, self.engine, self.rows)

    def solved(self, directions: Direction, damping: float | None) -> dict[str, Tensor]:
        """The solutions. ValueError where the matrix is singular or CG_STEPS products do not suffice."""
        if damping is None and self.links is not None:
            return self.links.solved(directions)
        model, tolerance = self.engine.model, 1e-5  # below, products in float32 are rounding
        bare = damping is None and self.rate is not None
        if bare:
            damping, tolerance = STOPPED / self.rate, ENOUGH  # type: ignore[operator]
        elif model.dtype == torch.float64:
            tolerance = 1e-10
        damping = damping or 0.0
        decay = {name: model.decay.get(name, 0.0) for name in model.parameters}

        def without_penalty(directions: Direction) -> Direction:
            found = self._multiply(directions)
            return {name: value - decay[name] * directions[name] for name, value in found.items()}

        multiply = without_penalty if bare else self._multiply
        near = None if self.curvature is None else self._near(damping, bare)
        return conjugate_gradients(multiply, directions, damping, tolerance, CG_STEPS, near)

    def _near(self, damping: float, bare: bool) -> Callable[[Direction], Direction]:
        """EK-FAC's inverse; parameters that it leaves out are divided by the mean eigenvalue."""
        assert self.curvature is not None
        base = unpenalised(self.curvature, self.engine) if bare else self.curvature
        scale = {name: values.mean() for name, values in base.values.items()}
        found = copy(base)
        # some damping, so that it is positive definite whatever is asked
        found.values = {name: values + (damping or LEAST * scale[name]) for name, values in base.values.items()}
        mean = torch.stack(list(scale.values())).mean()

        def inverse(directions: Direction) -> Direction:
            known = found.apply(torch.reciprocal, directions)
            left = {name: v / (mean + damping) for name, v in directions.items() if name not in known}
            return {name: {**known, **left}[name] for name in directions}

        return inverse


class Links:
    """Solutions that know the links between the layers in the directions in which these matter.

    Where eigenvalues are far below the damping, the inverse of G + damping is 1 / damping whatever links there are.
    Lines and columns of a layer, in its eigenbases, in which all eigenvalues are below SMALL damping are left to
    EK-FAC. Among the others conjugate gradients solve to a residual of ENOUGH, with EK-FAC's inverse, which is diagonal
    there, as the preconditioner. A link between a direction left out and one that is kept is at most
    sqrt(SMALL / (1 + SMALL)), .3, of what both are with the damping, since G is positive semidefinite.

    curvature: EK-FAC of the loss alone.
    """

    def __init__(self, curvature: EKFAC, damping: float) -> None:
        self.damping = damping
        self.curvature = copy(curvature)
        self.curvature.values = {name: values + damping for name, values in curvature.values.items()}
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}
        for name, values in curvature.values.items():
            large = values >= SMALL * damping
            if bool(large.any()):
                self._kept[name] = large.any(1).nonzero()[:, 0], large.any(0).nonzero()[:, 0]
        self._values = {name: self._among(values, name) for name, values in self.curvature.values.items()}
        self._product: FactoredGaussNewton | None = None

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(lines, columns) that are kept, by layer."""
        return [(len(lines), len(columns)) for lines, columns in self._kept.values()]

    def meet(self, engine: PerRow, rows: Rows) -> None:
        """Keep what the products with the matrix of these rows need."""
        self._product = FactoredGaussNewton(engine, rows, self.turned)

    def turned(self, name: str, a: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (n, in) and output gradients (n, out) of a layer along what is kept."""
        if name not in self._kept:
            return a[:, :0], delta[:, :0]
        lines, columns = self._kept[name]
        q_in, q_out = self.curvature.bases(name)
        inputs = a[:, columns] if q_in is None else a @ q_in[:, columns]
        return inputs, delta[:, lines] if q_out is None else delta @ q_out[:, lines]

    def _among(self, values: Tensor, name: str) -> Tensor:
        """What is kept of values (..., out, in) in the eigenbases."""
        if name not in self._kept:
            return values[..., :0, :0]
        lines, columns = self._kept[name]
        return values[..., lines, :][..., columns]

    def changes(self, coordinates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the links change in EK-FAC's solutions along what is kept, (k, lines, columns) by layer."""
        assert self._product is not None
        alone = self._near(coordinates)
        found = conjugate_gradients(self._product.products, coordinates, self.damping, ENOUGH, CG_STEPS, self._near)
        return {name: value - alone[name] for name, value in found.items()}

    def of_queries(self, plain: Queries, engine: PerRow, queries: Rows, measure: Measure | None, part: slice) -> Linked:
        """Some of the queries, which are ready (`plain`) as EK-FAC alone has them."""

        def along(batch: slice) -> dict[str, Tensor]:
            factors = engine.capture(queries.block(batch, engine.model.device), measure, engine.layers)[1]
            return {name: Product(*self._of(factor, name), True, False).matrices() for name, factor in factors.items()}

        each = [found for _, found in engine.computed(queries, along, part.start, part.stop)]
        asked = {name: torch.cat([found[name] for found in each]) for name in each[0]}
        return Linked(plain, self._of, {n: value.to(asked[n]).flatten(1) for n, value in self.changes(asked).items()})

    def _of(self, factor: LayerRows, name: str) -> tuple[Tensor, Tensor]:
        assert isinstance(factor, Product)
        return self.turned(name, factor.a, factor.delta)

    def _near(self, coordinates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value / self._values[name] for name, value in coordinates.items()}

    def solved(self, directions: Direction) -> dict[str, Tensor]:
        """x of directions (k, ...) by parameter."""
        turned = self.curvature.rotate(directions)
        found = self.curvature.scale(torch.reciprocal, turned)
        for name, change in self.changes({name: self._among(value, name) for name, value in turned.items()}).items():
            if name in self._kept:
                lines, columns = self._kept[name]
                found[name][:, lines[:, None], columns] += change.to(found[name])
        return self.curvature.back(found)


class Linked(Queries):
    """Queries under EK-FAC, and what the links change in them, (q, lines * columns) by layer.

    of: a layer's inputs and output gradients along what is kept, from its factor and its name.
    """

    def __init__(
        self, plain: Queries, of: Callable[[LayerRows, str], tuple[Tensor, Tensor]], changes: Direction
    ) -> None:
        self.plain, self.of, self.changes = plain, of, changes

    def block(self, factors: dict[str, LayerRows]) -> Tensor:
        """(q, n) values."""
        found = self.plain.block(factors)
        for name, change in self.changes.items():
            if change.shape[1]:
                found = found + Product(*self.of(factors[name], name), True, False).contract(change).T
        return found
