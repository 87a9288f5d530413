"""MoSo: what the training risk would gain if a row had not been there, along the run (NeurIPS 2023)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sktda.attribution.base import Needs
from sktda.attribution.gradients.base import SelfScores
from sktda.attribution.gradients.fitted import Fitted
from sktda.attribution.runs import schedule
from sktda.engine.differential import each_layer, total
from sktda.engine.per_row import PerRow
from sktda.engine.weighed import weighed
from sktda.model.base import Rows
from sktda.model.given import GivenModel
from sktda.model.recorder import TrajectoryRecorder


class MoSo(SelfScores):
    """Predicted rise of the training loss of the other rows when a row is removed, in loss units.

    score_i = (T / (n m)) sum over m checkpoints of eta_t <G_t - g_i / n, g_i>: T the steps of the run, eta_t the
    learning rate (divided by 1 - momentum, times what gradients were scaled by; by parameter where groups have their
    own), g_i the gradient of row i's loss at checkpoint t and G_t the mean of all of them. Rows that pull with the
    others score high, rows that pull against them low. No validation rows are needed.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net, or a Pipeline or FrozenEstimator of one. A net is cloned and trained with a TrajectoryRecorder,
        unless it has one; a frozen one must have been recorded. None = softmax or linear regression, trained by
        SGD: a net that learns wrong labels by heart leaves no gradient that they could pull against.
    n_checkpoints : int or "auto", default="auto"
        Checkpoints to take. "auto" = 5 where they are drawn, else all that were recorded.
    checkpoints : {"random", "even"}, default="random"
        Draw them from those recorded (a net that is trained here gets 20), or take them evenly spaced, the last one
        with them (a net that is trained here gets as many as are taken).
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
        0.999.
    work_dir : path-like or None, default=None
        Folder in which finished shards of a long `fit` are kept until it ends: a fit that was killed and is started
        again (with the same rows, and the same trained model or `random_state`) goes on where it was. None = off.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone and draws the checkpoints. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep.
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
        In `fit`, for a model without a recorded run or with fewer checkpoints, a train_split that hides rows, a
        diverged training.

    Notes
    -----
    Validation rows are accepted, as by every attributor, and do not enter. Adam is followed as if its rates were those
    of SGD. Source: Tan et al. 2023, "Data Pruning via
    Moving-one-Sample-out" (NeurIPS 2023), its gradient-based approximation; higher = keep as published.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktda.attribution import MoSo
    >>> X, y = load_iris(return_X_y=True)
    >>> y[0] = 2  # it is 0
    >>> int(MoSo(random_state=0).fit(X, y).scores_.argmin())
    0
    """

    needs = Needs(gradients=True, trajectory=True, net={"optimizer": "sgd", "hidden": False})

    _parameter_constraints: dict = {**SelfScores._parameter_constraints, **schedule.CONSTRAINTS}

    def __init__(
        self,
        estimator=None,
        *,
        n_checkpoints="auto",
        checkpoints="random",
        parameters=None,
        device="auto",
        batch_size="auto",
        precision="auto",
        work_dir=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.n_checkpoints = n_checkpoints
        self.checkpoints = checkpoints
        self.parameters = parameters
        self.device = device
        self.batch_size = batch_size
        self.precision = precision
        self.work_dir = work_dir
        self.random_state = random_state

    def _recorder(self, given: GivenModel) -> TrajectoryRecorder:
        return schedule.recorder(self.n_checkpoints, self.checkpoints)

    def _self_scores(self, fitted: Fitted) -> Tensor:
        assert fitted.trajectory is not None
        names = fitted.model.parameters
        chosen = schedule.moments(fitted.trajectory, names, self.n_checkpoints, self.checkpoints, self.random_state)
        fitted.engine.prepare(fitted.rows)
        total = torch.zeros(len(fitted.rows), dtype=torch.float64)
        for moment in schedule.visited(fitted, chosen):
            # G_t without the penalty, which is no row's
            mean, roots = fitted.engine.mean_gradient(fitted.rows), moment.rates.roots
            if roots is not None:
                # <r^2 G, g>: `weighed` gives the rows' gradients one root of the rates, and G gets the other
                mean = {name: roots[name] * value for name, value in mean.items()}
            compute = partial(agreement, weighed(fitted.engine, roots), fitted.rows, mean, fitted.n)
            total += moment.rates.size * fitted.passes.collect(
                f"checkpoint {moment.checkpoint}", len(fitted.rows), compute
            )
        # T / (n m): m checkpoints stand for T steps; no minus, since the paper's high is 'keep', too
        return total * fitted.trajectory.n_steps / (fitted.n * len(chosen))


def agreement(engine: PerRow, rows: Rows, mean: dict[str, Tensor], n: int, start: int, stop: int) -> Tensor:
    """<mean - g_i / n, g_i> of the rows start..stop."""
    engine.prepare(rows)
    result = torch.empty(stop - start, dtype=engine.model.dtype, device=engine.model.device)
    met = each_layer(engine, [mean])

    def work(part: slice) -> None:
        factors = engine.capture(rows.block(part, engine.model.device))[1]
        values = [factor.contract(met[name])[:, 0] - factor.square_norms() / n for name, factor in factors.items()]
        result[part.start - start : part.stop - start] = total(values)

    engine.sweep(rows, work, start, stop)
    return result
