"""Influence functions: exact, by conjugate gradients, or with EK-FAC (Koh & Liang 2017, Grosse et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from sktda.attribution.gradients.deletion import Deletion, removed_gradient
from sktda.attribution.gradients.fitted import Fitted
from sktda.attribution.gradients.objective_gradients import Asked
from sktda.attribution.gradients.pairs import GradientAttributor
from sktda.attribution.gradients.rates import one_rate, rate_sums
from sktda.devices import exact_device, for_blocks, in_blocks, in_pairs
from sktda.engine.curvature import DENSE_PARAMETERS, DenseCurvature, Spectral
from sktda.engine.damping import damped, without_penalty
from sktda.engine.ekfac import EKFAC
from sktda.engine.links import Links
from sktda.engine.pairwise import (
    EXACT_WORK,
    QUERY_BYTES,
    EKFACQueries,
    Measure,
    Preconditioned,
    Queries,
    along_each,
    by_layer,
)
from sktda.engine.systems import Systems
from sktda.model.base import Rows, unflatten
from sktda.seeds import seed_of

SYSTEM_VECTORS = 6  # of conjugate gradients, in float64


class Influence(GradientAttributor, Deletion):
    """Predicted rise of the objective when a row is removed, in loss units: (1/n) q' H^-1 g_i.

    q is the gradient of the objective, g_i that of row i's loss, H the curvature of the training risk: the
    Gauss-Newton matrix of the mean loss (the Hessian itself for linear, logistic and softmax models) plus the penalty
    that the model was trained with, plus `damping`; for the penalty of nets see the notes. Self-influence (no
    validation rows) is minus the same with q = g_i.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net, a scikit-learn linear model or MLP, a Pipeline ending in one, or FrozenEstimator of a fitted one.
        None = a small net for tables or images.
    curvature : {"auto", "exact", "cg", "ekfac"}, default="auto"
        "exact": dense matrix, up to 5,000 parameters. "cg": conjugate gradients on products with H, once per query,
        preconditioned by EK-FAC where a layer allows it; with its own damping for a recorded net directly, along the
        eigenvectors of EK-FAC that matter. "ekfac": eigenvalue-corrected Kronecker factors, layer by
        layer. "auto": "exact" for models that are linear in at most 5,000 parameters, else "ekfac" where a layer allows
        it, else "cg".
    damping : float or "auto", default="auto"
        Added to H. "auto" = 0 for "exact". For "ekfac" a tenth of each layer's mean eigenvalue s, and more where
        training had not ended: u / (X L) where that is larger, or u s without a record of SGD. X is the sum of the
        learning rates, divided by 1 - momentum; L the number of layers that matter; u the mean loss of the training
        rows over that for the targets of other rows. For "cg" in a net whose run of SGD was recorded 10 / X, of
        which nets with u < 0.01 take the share (100 u)^2 but at least a tenth of the mean eigenvalue; else 0.
    tolerance : float, default=0.02
        Relative error that `attribute` may have by EK-FAC where pairs are many: a low-rank form of the inverse,
        checked against the exact product on a probe, is an order of magnitude faster. 0 = exact; small problems
        (queries x rows x parameters up to 1e10) are exact in any case.
    objective : {"auto", "self", "validation"}, objective, callable or None, default="auto"
        "auto" is "validation" where validation rows are given, else "self"; None prepares `attribute` only.
    parameters : str, list of str or None, default=None
        Names of the parameters that take part, as patterns: ``"classifier.*"``, ``["*.lora_*", "classifier.*"]``; the
        others count as fixed. None = all that were trained.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or "auto", default="auto"
        Rows at a time; changes memory and speed, not the result. "auto" = what fits.
    precision : {"auto", "float32", "tf32", "bf16"}, default="auto"
        Of passes through the net. "auto" = as torch is set; "float32": never TF32; "tf32": products in TF32, on CUDA;
        "bf16": passes in bfloat16 by autocast, all sums, decompositions and solutions as with "tf32". Spearman
        correlation of "bf16" with "float32", measured on a processor for small nets, at the least
        0.999 by own loss, 0.92 by validation loss, pairs 0.88. "ekfac" only.
    work_dir : path-like or None, default=None
        Folder in which finished shards of a long `fit` are kept until it ends: a fit that was killed and is started
        again (with the same rows, and the same trained model or `random_state`) goes on where it was. None = off.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone and the labels that EK-FAC draws from the model. None is 0, so that a fit can be
        repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep. Not there with objective=None.
    estimator_ : estimator
        The trained model.
    curvature_ : object or None
        The eigen-decomposition; None for "cg".
    trajectory_ : Trajectory
        The recorded run of a net that had a recorder.
    task_ : str
        "classification" or "regression".

    Raises
    ------
    TypeError
        In `fit`, for an estimator that cannot be differentiated.
    ValueError
        In `fit`, for a curvature that is singular without damping, conjugate gradients that do not converge, a
        train_split that hides rows, a trajectory of another model or other rows, a diverged training.

    Notes
    -----
    In nets of several layers "ekfac", and "cg" with its own damping, leave the penalty out: at an optimum the second
    derivatives that Gauss-Newton drops take away L - 1 times as much along the parameters, and with the penalty alone
    the values of well fitted nets predict retraining worse. "cg" then has the whole Gauss-Newton matrix, with the links
    between the layers, along up to 2,500 of EK-FAC's eigenvectors, those of the largest eigenvalues down to a tenth of
    the damping (fewer for more than 16 outputs), and EK-FAC's solution, with the same damping, along the others. For
    nets of more than 128 outputs, or with parameters that EK-FAC leaves out, it stops at a residual of 0.3, since what
    is left of the solution predicts no better; in all other cases at 1e-10 of the gradient (1e-5 in float32), and after
    1,000 products with an error.

    The derivative is with respect to the weight of a row, at zero distance: leaving a row out altogether changes more,
    by about 1 / (1 - leverage). `deletion_update` is the move of the optimum, (1/n) H^-1 times the sum of the rows'
    gradients. A net whose run of SGD was recorded is not at its optimum: there, unless `damping` is given, 1 over the
    sum of the learning rates takes its place, so that directions in which training had no time to move stay. Sources:
    Koh & Liang 2017 (arXiv:1703.04730), eq. 2 times -1/n; EK-FAC: George et al. 2018 (arXiv:1806.03884), Grosse et al.
    2023 (arXiv:2308.03296), eq. 20.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktda.attribution import Influence
    >>> X, y = load_iris(return_X_y=True)
    >>> y[0] = 2  # it is 0
    >>> influence = Influence(LogisticRegression(max_iter=1000)).fit(X, y)
    >>> int(influence.scores_.argmin())
    0
    >>> influence.attribute(X[1:3], y[1:3]).shape
    (2, 150)
    """

    on_device = ("curvature_", "_used")

    _parameter_constraints: dict = {
        **GradientAttributor._parameter_constraints,
        "curvature": [StrOptions({"auto", "exact", "cg", "ekfac"})],
        "damping": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "tolerance": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        estimator=None,
        *,
        curvature="auto",
        damping="auto",
        tolerance=0.02,
        objective="auto",
        parameters=None,
        device="auto",
        batch_size="auto",
        precision="auto",
        work_dir=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.curvature = curvature
        self.damping = damping
        self.tolerance = tolerance
        self.objective = objective
        self.parameters = parameters
        self.device = device
        self.batch_size = batch_size
        self.precision = precision
        self.work_dir = work_dir
        self.random_state = random_state

    def _prepare(self, fitted: Fitted) -> None:
        kind = self.curvature if self.curvature != "auto" else self._automatic(fitted)
        self._refuse_lowered(kind)
        self.curvature_: Any = None
        if kind == "exact":
            self.curvature_ = DenseCurvature(fitted.engine, fitted.rows)
            self.curvature_.inverse(self._damping or 0.0)  # says at once if it is singular
        elif kind == "ekfac":
            seed = seed_of(self.random_state)
            self.curvature_ = without_penalty(EKFAC(fitted.engine, fitted.rows, seed, fitted.passes), fitted.engine)
            self._used = self.curvature_
            if self.damping == "auto":
                self._used = damped(self.curvature_, fitted.engine, fitted.rows, _rate(fitted))
        else:
            self._seed = seed_of(self.random_state)
            self._system(fitted)

    @property
    def _damping(self) -> float | None:
        """None where it is left to the curvature."""
        return None if self.damping == "auto" else self.damping

    def _automatic(self, fitted: Fitted) -> str:
        size = sum(value.numel() for value in fitted.model.parameters.values())
        if fitted.model.linear and size <= DENSE_PARAMETERS:
            return "exact"
        fitted.engine.prepare(fitted.rows)
        return "ekfac" if any(layer.is_product for layer in fitted.engine.layers or []) else "cg"

    def _own_bytes(self, fitted: Fitted) -> int:
        return 0 if self.curvature_ is None else self.curvature_.nbytes

    def _inverse(self, damping: float | None) -> tuple[Any, Callable[[Tensor], Tensor]]:
        """(curvature, function of its eigenvalues)."""
        if damping is None and isinstance(self.curvature_, EKFAC):
            return self._used, self._used.inverse(0.0)  # which has its damping in its eigenvalues
        return self.curvature_, self.curvature_.inverse(damping or 0.0)

    def _solve(self, fitted: Fitted, directions: dict[str, Tensor], damping: float | None) -> dict[str, Tensor]:
        """H^-1 times k directions (k, ...)."""
        if self.curvature_ is not None:
            curvature, inverse = self._inverse(damping)
            return curvature.apply(inverse, directions)

        def solved(part: slice) -> dict[str, Tensor]:
            return self._system(fitted).solved({name: value[part] for name, value in directions.items()}, damping)

        k = len(next(iter(directions.values())))
        parts = [found for _, found in in_blocks(k, self._systems(fitted), solved)]
        return {name: torch.cat([part[name] for part in parts]) for name in directions}

    def _system(self, fitted: Fitted) -> Systems:
        """Made again with the torch copy of the model after a pickle."""
        # at the fitted model and not at self: it holds the torch copy, which a pickle leaves out
        found = vars(fitted).get("system")
        if found is None:
            found = Systems(fitted.engine, fitted.rows, self._seed, fitted.passes, _rate(fitted))
            vars(fitted)["system"] = found
        return found

    def _links(self, fitted: Fitted) -> Links | None:
        """What solves for "cg" with its own damping, where it does."""
        return self._system(fitted).links if self.curvature_ is None and self.damping == "auto" else None

    def _systems(self, fitted: Fitted) -> int:
        """Systems that conjugate gradients solve side by side: as many as share a batch of all rows."""
        fitted.engine.prepare(fitted.rows)
        each = SYSTEM_VECTORS * 8 * sum(value.numel() for value in fitted.model.parameters.values())
        together = QUERY_BYTES if self._system(fitted).factored else (fitted.engine.batch_size or 1) // len(fitted.rows)
        return max(1, min(together, QUERY_BYTES // each))

    def _validation_scores(self, fitted: Fitted, asked: Asked) -> Tensor:
        # value_i = (1/n) <H^-1 q, g_i>, H symmetric: solved once a query, and not once a row
        directions = self._solve(fitted, asked.gradients(), self._damping)
        values = partial(along_each, fitted.engine, fitted.rows, directions)
        return (
            # the name has a digest of them: shards of other directions must not be taken up
            fitted.passes.collect(f"values {fitted.passes.code(directions.values())}", len(fitted.rows), values).T
            / fitted.n
        )

    def _self_scores(self, fitted: Fitted) -> Tensor:
        rows = fitted.rows.rooted()  # the root of a weight in either gradient: the weight once
        if self.curvature_ is not None:
            curvature, inverse = self._inverse(self._damping)
            values = partial(curvature.quadratic, fitted.engine, rows, inverse)
            # minus: the loss of a row that nothing else explains rises most without it, and low is suspicious
            return -fitted.passes.collect("self", len(rows), values) / fitted.n
        if (links := self._links(fitted)) is not None:
            # the whole Gauss-Newton matrix inverted along the eigenvectors that were kept, EK-FAC along the others
            values = partial(links.quadratic, fitted.engine, rows)
            return -fitted.passes.collect("self", len(rows), values) / fitted.n
        shapes = {name: value.shape for name, value in fitted.model.parameters.items()}
        scores = torch.empty(len(rows), dtype=torch.float64, device=exact_device(fitted.model.device))

        def own(part: slice) -> None:  # one system per row: exact, and slow
            gradients = unflatten(fitted.engine.gradients(rows, part), shapes)
            found = self._solve(fitted, gradients, self._damping)
            # (1/n) g_i' H^-1 g_i by the product of either, in float64
            scores[part] = -sum((found[n] * g.to(scores)).flatten(1).sum(1) for n, g in gradients.items())

        for_blocks(len(rows), self._systems(fitted), own)
        return scores / fitted.n

    def _blocks(self, fitted: Fitted, queries: Rows, measure: Callable | None) -> Iterator[tuple[slice, slice, Tensor]]:
        engine, rows, device = fitted.engine, fitted.rows, fitted.model.device
        engine.prepare(rows)
        layers = engine.layers
        links = self._links(fitted)
        if links is not None:
            layers = links.curvature.own(engine)
            # its damping is in its eigenvalues already
            source = self._by_factors(fitted, queries, measure, links.curvature, links.curvature.inverse(0.0))
            size = source.size(len(queries))

            def prepare(part: slice) -> Queries:
                alone = source.part(engine, queries, measure, part)
                return links.of_queries(alone, engine, queries, measure, part)

        elif isinstance(self.curvature_, EKFAC):
            # nothing is captured of layers that the curvature leaves out
            layers = self.curvature_.own(engine)
            source = self._by_factors(fitted, queries, measure, *self._inverse(self._damping))
            size, prepare = source.size(len(queries)), partial(source.part, engine, queries, measure)
        else:
            each = sum(value.numel() for value in fitted.model.parameters.values()) * 8  # solved in float64
            size = min(engine.batch_size or 1, max(1, QUERY_BYTES // each))
            prepare = partial(self._preconditioned, fitted, queries, measure)

        def values(ready: Queries, part: slice) -> Tensor:
            return ready.block(engine.capture(rows.block(part, device), None, layers)[1]) / fitted.n

        yield from in_pairs((len(queries), size), prepare, (len(rows), engine.batch_size or 1), values)

    def _by_factors(
        self, fitted: Fitted, queries: Rows, measure: Measure | None, curvature: EKFAC, inverse: Spectral
    ) -> EKFACQueries:
        """What makes queries ready, in low rank where there are many pairs."""
        work = len(queries) * len(fitted.rows) * sum(block.n_parameters for block in curvature.layers)
        tolerance = self.tolerance if work > EXACT_WORK else 0.0
        source = EKFACQueries(curvature, inverse, tolerance, len(fitted.rows))
        if tolerance:
            source.choose_ranks(fitted.engine, queries, fitted.rows, measure)
        return source

    def _preconditioned(self, fitted: Fitted, queries: Rows, measure: Callable | None, part: slice) -> Queries:
        """H^-1 q of some queries."""
        model, engine = fitted.model, fitted.engine
        shapes = {name: value.shape for name, value in model.parameters.items()}
        gradients = engine.block_gradients(queries.block(part, model.device), measure)
        solved = self._solve(fitted, unflatten(gradients, shapes), self._damping)
        moved = {name: value.to(model.device, model.dtype) for name, value in solved.items()}
        return Preconditioned(by_layer(engine, moved))

    def _change(self, fitted: Fitted, removed: np.ndarray) -> dict[str, Tensor]:
        damping = self._damping
        if damping is None and fitted.trajectory is not None and fitted.trajectory.optimizer == "SGD":
            damping = 1 / sum(one_rate(rate_sums(fitted.trajectory, fitted.model.parameters)))
        lost = removed_gradient(fitted.engine, fitted.rows, removed)
        # theta without S - theta = (1/n) H^-1 sum_S g_i: plus, for these gradients leave the risk
        solved = self._solve(fitted, {name: value[None] for name, value in lost.items()}, damping)
        return {name: value[0] / fitted.n for name, value in solved.items()}


def _rate(fitted: Fitted) -> float | None:
    """Sum of the learning rates of a recorded run of SGD; None where there is none, or no single one."""
    if fitted.trajectory is None or fitted.trajectory.optimizer != "SGD":
        return None
    try:
        return sum(one_rate(rate_sums(fitted.trajectory, fitted.model.parameters))) or None
    except ValueError:  # what is recorded is not a rate of all parameters
        return None
