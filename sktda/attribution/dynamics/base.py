"""Scores read off a training run: what a net gave each row at the checkpoints of one recorded run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from math import ceil
from numbers import Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from sktda.attribution.base import Needs, check_fits
from sktda.attribution.gradients.base import SelfScores
from sktda.attribution.gradients.fitted import Fitted
from sktda.devices import exact
from sktda.model.criterion import OfCriterion
from sktda.model.given import GivenModel
from sktda.model.likelihood import Binary, Likelihood
from sktda.model.reading import count
from sktda.model.recorder import TrajectoryRecorder
from sktda.model.softmax import Categorical, Tokens

Measure = Callable[[Tensor, Tensor], Tensor]
"""(outputs (n, ...), targets (n, ...)) -> (n,)."""
MARGIN_BYTES = 16.0  # of a row at a checkpoint: alone, and among those of all checkpoints


class Dynamics(SelfScores):
    """Base of the scores from training dynamics: every row is measured at checkpoints of the run, without weights."""

    work_dir = None

    def _recorder(self, given: GivenModel) -> TrajectoryRecorder:
        return TrajectoryRecorder(every=1)


class AtOneMoment(Dynamics):
    """Base of those that look at one moment of the run, `at` a share of its steps; without a record, at its end."""

    _parameter_constraints: dict = {
        **SelfScores._parameter_constraints,
        "at": [Interval(Real, 0, 1, closed="right")],
    }
    at: float

    @abstractmethod
    def _measured(self, fitted: Fitted) -> Tensor:
        """(n,) at the parameters that the model holds, higher = keep."""

    def _self_scores(self, fitted: Fitted) -> Tensor:
        trajectory = fitted.trajectory
        if trajectory is None:
            return self._measured(fitted)
        wanted = ceil(self.at * trajectory.n_steps - 1e-6)  # .55 * 200 is above 110
        fitted.model.load(trajectory.state(int(np.argmax(trajectory.steps >= wanted))))
        found = self._measured(fitted)
        # `fit` keeps this model, whose parameters are those at the end of training
        fitted.model.load(trajectory.state(-1))
        return found


class AlongTheRun(Dynamics):
    """Base of those that follow every checkpoint of a recorded run of a classifier."""

    needs = Needs(gradients=True, trajectory=True)

    def _begin(self, X) -> None:
        check_fits(self, MARGIN_BYTES * count(X))  # how many checkpoints there will be is known later

    def _margins(self, fitted: Fitted) -> Tensor:
        """(n_checkpoints, n) logit margins, on the processor."""
        assert fitted.trajectory is not None
        measure = logit_margin(fitted.model.likelihood, type(self).__name__)
        check_fits(self, MARGIN_BYTES * len(fitted.rows) * len(fitted.trajectory))
        # the last checkpoint is the end of training, so that the loop leaves the model as it was trained
        margins = []
        for checkpoint in range(len(fitted.trajectory)):
            fitted.model.load(fitted.trajectory.state(checkpoint))
            margins.append(measure_rows(fitted, measure).cpu())
        return torch.stack(margins)


def measure_rows(fitted: Fitted, measure: Measure) -> Tensor:
    """(n,) in float64: the measure of every row's outputs, whatever its weight."""
    return exact(fitted.engine.losses(fitted.rows.unweighted(), measure))


def error_length(likelihood: Likelihood, method: str) -> Measure:
    """|p - onehot(label)|_2 of class probabilities p, |prediction - target|_2 of numbers.

    One logit stands for two classes, whose errors are opposite. Raises TypeError for outputs that are neither.
    """

    def measure(outputs: Tensor, targets: Tensor) -> Tensor:
        if isinstance(likelihood, Categorical):
            p = likelihood.log_p(outputs).exp()
            return (p - F.one_hot(targets, p.shape[1])).norm(dim=1)
        if isinstance(likelihood, Binary):
            error = (likelihood.logits(outputs).sigmoid() - targets).reshape(len(outputs), -1)
            # |(e, -e)| = sqrt(2) |e|: as if there were a probability for either class
            return error.norm(dim=1) * (2**0.5 if error.shape[1] == 1 else 1.0)
        if outputs.shape != targets.shape:
            raise TypeError(
                f"{method} compares outputs with targets, and with this criterion they have shapes "
                f"{tuple(outputs.shape)} and {tuple(targets.shape)}; use Loss or GraNd"
            )
        predicted, expected = _compared(likelihood, outputs, targets)
        return (predicted - expected).reshape(len(outputs), -1).norm(dim=1)

    return measure


def _compared(likelihood: Likelihood, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions and targets, of one shape and in one unit: outputs of some losses are logarithms, or logits.

    Those of other criteria, of one's own too, are taken for predictions as they are.
    """
    criterion = getattr(likelihood, "criterion", None)
    if isinstance(likelihood, Tokens):  # of targets that are probabilities
        return outputs.softmax(1), targets
    if isinstance(criterion, nn.PoissonNLLLoss) and criterion.log_input:
        return outputs.exp(), targets
    if isinstance(criterion, nn.KLDivLoss):
        return outputs.exp(), targets.exp() if criterion.log_target else targets
    if isinstance(criterion, nn.MultiLabelSoftMarginLoss):
        return outputs.sigmoid(), targets
    if isinstance(criterion, nn.SoftMarginLoss):  # of targets -1 and 1, which become 0 and 1
        return outputs.sigmoid(), (targets + 1) / 2
    return outputs, targets


def logit_margin(likelihood: Likelihood, method: str) -> Measure:
    """z_y - max over other classes of z; of labels that are yes or no, the logit of what is given, the smallest one.

    Raises ValueError for numbers, which have no classes.
    """
    if not isinstance(likelihood, Categorical | Binary):
        what = "this criterion" if isinstance(likelihood, OfCriterion) else "regression"
        raise ValueError(f"{method} compares the logits of classes, and {what} has none; use Loss, EL2N or GraNd")

    def measure(outputs: Tensor, targets: Tensor) -> Tensor:
        if isinstance(likelihood, Binary):
            # one logit z stands against 0: the margin of a yes is z, that of a no -z
            signed = likelihood.logits(outputs) * (2 * targets.to(outputs.dtype) - 1)
            return signed.reshape(len(outputs), -1).amin(dim=1)
        # log p differs from the logits by one number per row, which the margin does not see
        logits = likelihood.log_p(outputs) if likelihood.probabilities else outputs
        own = targets[:, None]
        return logits.gather(1, own)[:, 0] - logits.scatter(1, own, -torch.inf).amax(dim=1)

    return measure
