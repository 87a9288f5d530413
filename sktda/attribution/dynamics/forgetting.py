"""Forgetting events: how often training loses what it had right (arXiv:1812.05159)."""

from __future__ import annotations

import torch
from torch import Tensor

from sktda.attribution.dynamics.base import AlongTheRun
from sktda.attribution.gradients.fitted import Fitted


class Forgetting(AlongTheRun):
    """Minus how often a row went from right to wrong between two checkpoints of training.

    Rows that were never right score below all others. Scores are whole numbers, so many are equal; more checkpoints
    tell more rows apart.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net, a Pipeline ending in one, or FrozenEstimator of one that was recorded. It is cloned and trained
        with a checkpoint after every epoch, unless it has a TrajectoryRecorder. None = a small net for tables or
        images.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or "auto", default="auto"
        Rows at a time; changes memory and speed, not the result. "auto" = what fits.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Minus the number of forgetting events, or minus the number of checkpoints for a row that was never right.
    first_learned_ : ndarray of shape (n_samples,)
        Checkpoint, from 0, at which the row was right for the first time; -1 = never.
    estimator_ : estimator
        The trained model.
    trajectory_ : Trajectory
        The recorded run.
    task_ : str
        "classification".

    Raises
    ------
    TypeError
        In `fit`, for an estimator that cannot be differentiated.
    ValueError
        In `fit`, for regression, an estimator without a recorded run, a train_split that hides rows, a trajectory of
        another model or other rows, a diverged training.

    Notes
    -----
    Source: Toneva et al. 2019 (arXiv:1812.05159), section 3, negated. There a row is looked at whenever it is in a
    batch, here at the end of every epoch.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import Forgetting
    >>> X, y = load_digits(return_X_y=True)
    >>> y[:3] = [7, 7, 7]  # they are 0, 1, 2
    >>> scores = Forgetting(random_state=0).fit(X, y).scores_
    >>> bool((scores[:3] < -3).all())
    True
    """

    def __init__(
        self,
        estimator=None,
        *,
        device="auto",
        batch_size="auto",
        random_state=None,
    ):
        self.estimator = estimator
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state

    def _self_scores(self, fitted: Fitted) -> Tensor:
        # a tie, margin 0, is not right: another class is as probable
        right = self._margins(fitted) > 0
        learned = right.any(dim=0)
        first = torch.where(learned, right.int().argmax(dim=0), -1)  # of equal values the first
        self.first_learned_ = first.numpy()
        # at most half of the checkpoints can be events: never right is below every row that was right once
        events = (right[:-1] & ~right[1:]).sum(dim=0)
        return -torch.where(learned, events, len(right)).double()
