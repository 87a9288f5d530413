"""Diff-In: differences of influence between steps of training, summed over checkpoints (arXiv:2508.14648)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from numbers import Integral

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from sktda.attribution.base import Needs
from sktda.attribution.gradients.base import SECOND_ORDER
from sktda.attribution.gradients.batches import Batches
from sktda.attribution.gradients.deletion import Deletion, line_search, removed_gradient
from sktda.attribution.gradients.fitted import Fitted
from sktda.attribution.gradients.objective_gradients import Asked
from sktda.attribution.gradients.pairs import GradientAttributor
from sktda.attribution.gradients.rates import one_rate
from sktda.attribution.runs import schedule
from sktda.attribution.runs.schedule import Moment
from sktda.devices import exact_device, in_blocks
from sktda.engine.differences import FiniteDifferences, risk_gradient
from sktda.engine.differential import (
    Bends,
    Factors,
    Meeting,
    aggregated,
    drawn,
    meeting,
    own_values,
    pairs_with,
    portion,
)
from sktda.engine.gauss_newton import gauss_newton_products
from sktda.engine.in_batches import removal_bends
from sktda.engine.per_row import PerRow
from sktda.engine.second_order import SecondOrder
from sktda.engine.softmax_head import SoftmaxHead
from sktda.model.base import Rows
from sktda.model.given import GivenModel
from sktda.model.recorder import TrajectoryRecorder
from sktda.model.trajectory import MISFIT
from sktda.seeds import seed_of


class DiffIn(GradientAttributor, Deletion):
    """Predicted rise of the objective when a row is removed, in loss units, from differences along the training run.

    value_i = sum over m checkpoints of w_t (<H_t v_t, g_i> + v_t' H_i G_t), w_t = T t eta_t^2 / (n m): T the steps of
    the run, t those done at the checkpoint, eta_t the learning rate there (divided by 1 - momentum), G_t and H_t
    gradient and Hessian of the training risk, g_i and H_i those of row i's loss, v_t the gradient of the objective.
    Self-influence (no validation rows) is minus the same with v_t = g_i. Order and sign of the values are those of the
    effect, their size is not: the method drops a term of the recursion, which grows with the steps.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net, or a Pipeline or FrozenEstimator of one. A net is cloned and trained with a TrajectoryRecorder,
        unless it has one; a frozen one must have been recorded. None = a small net for tables or images, trained by
        SGD.
    hvp : {"auto", "exact", "finite-difference", "forward-difference", "gauss-newton"}, default="auto"
        How H_t v_t and H_i G_t are found. "exact": derivatives of gradients. "finite-difference": gradients at
        parameters shifted by 0.001 to both sides; "forward-difference": to one side, as the authors' code does.
        "gauss-newton": H_t is the Gauss-Newton matrix, H_i exact. "auto": "exact" where one product with H_t per
        checkpoint is needed (validation rows), "gauss-newton" where one per row or query is (self-influence,
        `attribute`), which is orders of magnitude faster there, and the same for models linear in their parameters.
    hessian_rows : int or None, default=256
        Rows, drawn at each checkpoint, whose mean loss stands for the training risk in H_t where it meets every row
        or query by itself. None = all. With validation rows H_t is always that of all rows.
    n_checkpoints : int or "auto", default="auto"
        Checkpoints to take. "auto" = all that were recorded (5 where they are drawn).
    checkpoints : {"even", "random"}, default="even"
        Evenly spaced among those recorded, the last one with them, or drawn from them. A net that is trained here gets
        as many as are taken, or four times as many to draw from.
    objective : {"auto", "self", "validation"}, objective, callable or None, default="auto"
        "auto" is "validation" where validation rows are given, else "self"; None prepares `attribute` only.
    parameters : str, list of str or None, default=None
        Names of the parameters that take part, as patterns: ``"classifier.*"``, ``["*.lora_*", "classifier.*"]``; the
        others count as fixed. None = all that were trained.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or "auto", default="auto"
        Rows at a time; changes memory and speed, not the result. "auto" = what fits.
    precision : {"auto", "float32", "tf32"}, default="auto"
        Of passes through the net. "auto" = as torch is set; "float32": never TF32; "tf32": products in TF32, on CUDA.
        Second derivatives would be rounding in bfloat16.
    work_dir : path-like or None, default=None
        Folder in which finished shards of a long `fit` are kept until it ends: a fit that was killed and is started
        again (with the same rows, and the same trained model or `random_state`) goes on where it was. None = off.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone, and draws checkpoints and `hessian_rows`. None is 0, so that a fit can be
        repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep. Not there with objective=None.
    estimator_ : estimator
        The trained model.
    trajectory_ : Trajectory
        The recorded run.
    task_ : str
        "classification" or "regression".

    Raises
    ------
    TypeError
        In `fit`, for an estimator that cannot be differentiated.
    ValueError
        In `fit`, for a model without a recorded run or with fewer checkpoints, parameter groups with rates of their
        own, a weight decay that changed, a train_split that hides rows, a diverged training.

    Notes
    -----
    Source: arXiv:2508.14648, with its sign turned: the paper's I is the effect of including a row. The rate is read
    before a scheduler changes it, and gradients are taken in eval mode. Where the one trained layer is linear and
    gives the logits of a softmax, a closed form replaces derivatives. Adam is followed as if its rates were those of
    SGD. Of a net with ContrastiveLoss, g_i and H_i are of what a pair takes with it from its batch; validation rows are
    needed, and the record must have the steps.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktda.attribution import DiffIn
    >>> X, y = load_iris(return_X_y=True)
    >>> y[0] = 2  # it is 0
    >>> 0 in DiffIn(random_state=0).fit(X, y).scores_.argsort()[:5]
    True
    """

    needs = Needs(validation=True, gradients=True, trajectory=True, net={"optimizer": "sgd"})

    within_batches = True

    _parameter_constraints: dict = {
        **GradientAttributor._parameter_constraints,
        **SECOND_ORDER,
        **schedule.CONSTRAINTS,
        "hvp": [StrOptions({"auto", "exact", "finite-difference", "forward-difference", "gauss-newton"})],
        "hessian_rows": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        estimator=None,
        *,
        hvp="auto",
        hessian_rows=256,
        n_checkpoints="auto",
        checkpoints="even",
        objective="auto",
        parameters=None,
        device="auto",
        batch_size="auto",
        precision="auto",
        work_dir=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.hvp = hvp
        self.hessian_rows = hessian_rows
        self.n_checkpoints = n_checkpoints
        self.checkpoints = checkpoints
        self.objective = objective
        self.parameters = parameters
        self.device = device
        self.batch_size = batch_size
        self.precision = precision
        self.work_dir = work_dir
        self.random_state = random_state

    def _begin(self, X) -> None:
        # once a fit: every later pass must draw the same checkpoints and the same rows
        self._seed = seed_of(self.random_state)

    def _recorder(self, given: GivenModel) -> TrajectoryRecorder:
        return schedule.recorder(self.n_checkpoints, self.checkpoints)

    def _moments(self, fitted: Fitted) -> Generator[tuple[Moment, float], None, None]:
        """(checkpoint, weight w_t), with the model at each checkpoint in turn."""
        trajectory = fitted.trajectory
        assert trajectory is not None
        names = fitted.model.parameters
        chosen = schedule.moments(trajectory, names, self.n_checkpoints, self.checkpoints, self._seed)
        # eta^2 stands before b_t; rates by parameter would stand inside it, on both sides of H
        one_rate([moment.rates for moment in chosen])
        check_decay(fitted)
        for moment in schedule.visited(fitted, chosen):
            # T / (n m): m checkpoints stand for T steps, however many were taken
            scale = trajectory.n_steps / (fitted.n * len(chosen))
            yield moment, scale * moment.step * moment.rates.size**2

    # ---- values ----------------------------------------------------------------------------------------------------

    @property
    def _by_products(self) -> bool:
        """Whether H_t meets rows and queries by one product for each of them."""
        return self.hvp not in {"auto", "gauss-newton"}

    def _bends(self, engine: PerRow) -> Bends:
        if self.hvp.endswith("difference"):
            return FiniteDifferences(engine, central=self.hvp == "finite-difference")
        return SecondOrder(engine)

    def _validation_scores(self, fitted: Fitted, asked: Asked) -> Tensor:
        if fitted.batches is not None:
            return self._in_batches(fitted, fitted.batches, asked)
        engine, rows = fitted.engine, fitted.rows
        engine.prepare(rows)
        bends: Bends | SoftmaxHead = self._bends(engine)
        if self.hvp in {"auto", "exact"}:
            bends = SoftmaxHead.of(engine, rows) or bends
        total = torch.zeros(len(rows), len(asked.names), dtype=torch.float64)
        for moment, weight in self._moments(fitted):
            v = asked.gradients()
            # G_t, and H_t v of each v: <v, H_t g_i> is <H_t v, g_i>, one product for all rows
            slope, product = bends.products(rows, v)
            if self.hvp == "gauss-newton":
                product = gauss_newton_products(engine, rows, v)
            compute = partial(aggregated, engine, rows, bends, v, slope, product)
            name = f"checkpoint {moment.checkpoint} {fitted.passes.code(v.values())}"
            # plus: the paper's I, the effect of a row that is there, is minus this sum
            total += weight * fitted.passes.collect(name, len(rows), compute)
        return total.T

    def _in_batches(self, fitted: Fitted, batches: Batches, asked: Asked) -> Tensor:
        """The same for pairs that meet in the loss: g_i and H_i are those of what goes with a pair from its batch."""
        if self.hvp not in {"auto", "exact"}:
            raise ValueError(f"hvp={self.hvp!r} is of single rows, and here pairs meet in batches; use hvp='exact'")
        engine, total = fitted.engine, torch.zeros(len(fitted.rows), len(asked.names), dtype=torch.float64)
        for moment, weight in self._moments(fitted):
            v, standing = asked.gradients(), batches.at(moment.checkpoint)
            slope, product = SecondOrder(engine).products(standing.rows, v)
            total += weight * standing.by_pair(removal_bends(engine, standing.rows, v, product, slope))
        return total.T

    def _self_scores(self, fitted: Fitted) -> Tensor:
        # g_i stands twice in g_i' b_i: with roots of the weights a row's weight counts once
        engine, rows = fitted.engine, fitted.rows.rooted()
        engine.prepare(rows)
        bends = self._bends(engine)
        total = torch.zeros(len(rows), dtype=torch.float64)
        for moment, weight in self._moments(fitted):
            risk = self._risk_rows(fitted, moment)
            compute = partial(
                own_values,
                engine,
                rows,
                bends,
                meeting(engine, bends if self._by_products else None, risk),
                # G_t is that of the training, with whole weights
                risk_gradient(engine, fitted.rows),
                portion(engine, risk, self._by_products),
            )
            # the seed is in the name: another draw for H_t is another pass, also in the same work_dir
            total -= weight * fitted.passes.collect(f"self {moment.checkpoint} {self._seed}", len(rows), compute)
        return total

    def _blocks(self, fitted: Fitted, queries: Rows, measure: Callable | None) -> Iterator[tuple[slice, slice, Tensor]]:
        engine, rows, device = fitted.engine, fitted.rows, fitted.model.device
        engine.prepare(rows)
        bends = self._bends(engine)

        def values(asked: slice) -> Tensor:
            shape = asked.stop - asked.start, len(rows)
            total = torch.zeros(shape, dtype=torch.float64, device=exact_device(device))
            with closing(self._moments(fitted)) as moments:
                for moment, weight in moments:
                    met = meeting(engine, bends if self._by_products else None, self._risk_rows(fitted, moment))
                    slope = risk_gradient(engine, rows)

                    def ready(part: slice, met: Callable = met) -> tuple[Factors, Meeting]:
                        factors = engine.capture(queries.block(part, device), measure)[1]
                        return factors, met(factors)

                    found = [each for _, each in engine.computed(queries, ready, asked.start, asked.stop)]
                    compute = partial(pairs_with, engine, rows, bends, found, slope)
                    for part, block in engine.computed(rows, compute):
                        total[:, part] += weight * block.to(total.device)
            return total

        # of the drawn rows only their number matters here, so any seed will do
        most = portion(engine, drawn(rows, self.hessian_rows, [0]), self._by_products)
        for asked, total in in_blocks(len(queries), most, values):
            yield asked, slice(0, len(rows)), total

    def _risk_rows(self, fitted: Fitted, moment: Moment) -> Rows:
        return drawn(fitted.rows, self.hessian_rows, [self._seed, moment.checkpoint])

    # ---- deletion --------------------------------------------------------------------------------------------------

    def _change(self, fitted: Fitted, removed: np.ndarray) -> dict[str, Tensor]:
        """The direction sum of w_t (H_t g_S + H_S G_t), as far as the other rows' loss falls along it."""
        engine, rows, decay = fitted.engine, fitted.rows, fitted.model.decay
        engine.prepare(rows)
        bends = self._bends(engine)
        total = {name: torch.zeros_like(value) for name, value in fitted.model.parameters.items()}
        for _, weight in self._moments(fitted):
            # g_S, a sum over the removed rows; w_t has the 1/n
            lost = removed_gradient(engine, rows, removed)
            slope, product = bends.product(rows, lost)
            changed = bends.product(rows.chosen(removed), slope)[1]  # of a mean, with the penalty
            for name in total:
                # H_S G_t of the losses alone: the penalty stays when rows go
                own = len(removed) * (changed[name] - decay.get(name, 0.0) * slope[name])
                total[name] += weight * (product[name] + own)
        # the final parameters are back, and it is there that the other rows' loss is to fall
        return line_search(engine, rows, removed, fitted.n, total)


def check_decay(fitted: Fitted) -> None:
    """ValueError where the penalty of the run is not one number at the rate of the gradients."""
    trajectory = fitted.trajectory
    assert trajectory is not None
    trajectory.check_constant("weight_decay")
    if fitted.model.decay and trajectory.rescalings.max() > MISFIT:
        raise ValueError(
            "DiffIn follows steps whose gradient and weight decay have one rate, and in this training gradients "
            "were scaled before the decay came to them (clipped by norm, accumulated); train without weight decay, "
            "or use Source"
        )
