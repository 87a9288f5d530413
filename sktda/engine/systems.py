"""Inverse products with the whole Gauss-Newton matrix: conjugate gradients that EK-FAC preconditions.

The idea of ASTRA (arXiv:2507.14740): EK-FAC knows the sizes of the eigenvalues and not what links the layers, so that
its inverse is a good first step and a few more make up for the links. ASTRA takes steps on batches of rows; here all
rows are in every product, so that a solution is the same every time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import copy
from functools import cached_property, partial

import torch
from torch import Tensor

from sktda.engine.curvature import conjugate_gradients
from sktda.engine.damping import LEAST, tells, unlearned, unpenalised
from sktda.engine.ekfac import EKFAC
from sktda.engine.functional import Direction
from sktda.engine.gauss_newton import FactoredGaussNewton, gauss_newton_products
from sktda.engine.journal import Passes
from sktda.engine.links import ROOTS, Links, output_roots
from sktda.engine.per_row import PerRow
from sktda.model.base import Rows

CG_STEPS = 1_000
ENOUGH = 0.3  # residual, as a share of |b|, of a solution with the default damping
STOPPED = 10.0  # over the sum of the learning rates: the damping of a net whose training was recorded
LEARNED = 0.01  # of the loss that is left: below, training was at its end, and less and less damping serves it best


class Systems:
    """x with (G + penalty + damping) x = b for directions b (k, ...), G the Gauss-Newton matrix of the mean loss.

    rate: sum of the learning rates of SGD, divided by 1 - momentum; None = unknown. With a rate and no damping the
    penalty is left out, as in `engine/damping.py`, and the damping is STOPPED / rate, times (u / LEARNED)^2 where the
    share u of the loss that is left is below LEARNED, and at least a tenth of the mean eigenvalue. The solution is that
    of `links`; where there are none a residual of ENOUGH will do: the rest of it does not predict retraining better.
    Otherwise solutions are exact to rounding.
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
        """What solves with the default damping; None where there is none, EK-FAC lacks layers or outputs are many."""
        if self.rate is None or self.curvature is None or self.curvature.left_out:
            return None
        if output_roots(self.engine, self.rows) > ROOTS:
            return None
        return Links(self.engine, self.rows, self._bare, self.stopped)

    @cached_property
    def _bare(self) -> EKFAC:
        """EK-FAC of the loss alone."""
        assert self.curvature is not None
        return unpenalised(self.curvature, self.engine)

    @cached_property
    def stopped(self) -> float:
        """The default damping of a recorded run."""
        assert self.rate is not None
        if self.curvature is None or not tells(self.engine.model):
            return STOPPED / self.rate
        every = torch.cat([values.flatten() for values in self._bare.values.values()])
        left = (unlearned(self.engine, self.rows) / LEARNED).clamp(max=1)
        return float((LEAST * every.mean()).maximum(left.to(every) ** 2 * STOPPED / self.rate))

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
            damping, tolerance = self.stopped, ENOUGH
        elif model.dtype == torch.float64:
            tolerance = 1e-10
        damping = damping or 0.0
        decay = {name: model.decay.get(name, 0.0) for name in model.parameters}

        def without_penalty(directions: Direction) -> Direction:
            found = self._multiply(directions)
            # products have the penalty in them
            return {name: value - decay[name] * directions[name] for name, value in found.items()}

        multiply = without_penalty if bare else self._multiply
        near = None if self.curvature is None else self._near(damping, bare)
        return conjugate_gradients(multiply, directions, damping, tolerance, CG_STEPS, near)

    def _near(self, damping: float, bare: bool) -> Callable[[Direction], Direction]:
        """EK-FAC's inverse; parameters that it leaves out are divided by the mean eigenvalue."""
        assert self.curvature is not None
        base = self._bare if bare else self.curvature
        scale = {name: values.mean() for name, values in base.values.items()}
        found = copy(base)
        # some damping, so that it is positive definite whatever is asked
        found.values = {name: values + (damping or LEAST * scale[name]) for name, values in base.values.items()}
        mean = torch.stack(list(scale.values())).mean()

        def inverse(directions: Direction) -> Direction:
            known = found.apply(torch.reciprocal, directions)
            # any positive number of about that size will do: it changes how many steps are needed and not their end
            left = {name: v / (mean + damping) for name, v in directions.items() if name not in known}
            return {name: {**known, **left}[name] for name in directions}

        return inverse
