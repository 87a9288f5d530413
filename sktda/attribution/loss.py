"""Loss: of the given label, at one moment of training."""

from __future__ import annotations

from torch import Tensor

from sktda.attribution.dynamics import AtOneMoment, measure_rows
from sktda.attribution.gradient import Fitted


class Loss(AtOneMoment):
    """Minus the loss of each row at one moment of training, in units of the loss.

    The end of a run that fits everything has no large losses left; an earlier moment (``at=0.1``) shows wrong labels
    better.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net, a scikit-learn linear model or MLP, a Pipeline ending in one, or FrozenEstimator of a fitted one.
        A net is cloned and trained with a checkpoint after every epoch, unless it has a TrajectoryRecorder; models
        without a recorded run are measured as they are in the end. None = a small net for tables or images.
    at : float in (0, 1], default=1.0
        Share of the run's steps after which rows are measured, at the first checkpoint from there on. 1.0 = the end.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or None, default=None
        Rows at a time; changes memory and speed, not the result. None = what fits.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Minus the loss, higher = keep.
    estimator_ : estimator
        The trained model.
    trajectory_ : Trajectory
        The recorded run, if there is one.
    task_ : str
        "classification" or "regression".

    Raises
    ------
    TypeError
        In `fit`, for an estimator that cannot be differentiated.
    ValueError
        In `fit`, for a train_split that hides rows, a trajectory of another model or other rows, a diverged training.

    Notes
    -----
    The small-loss criterion of learning with noisy labels: Arpit et al. 2017 (arXiv:1706.05394), Han et al. 2018
    (arXiv:1804.06872).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import Loss
    >>> X, y = load_digits(return_X_y=True)
    >>> y[:3] = [7, 7, 7]  # they are 0, 1, 2
    >>> scores = Loss(at=0.1, random_state=0).fit(X, y).scores_
    >>> bool((scores[:3] < -1).all())
    True
    """

    def __init__(
        self,
        estimator=None,
        *,
        at=1.0,
        device="auto",
        batch_size=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.at = at
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state

    def _measured(self, fitted: Fitted) -> Tensor:
        return -measure_rows(fitted, fitted.model.likelihood.losses)
