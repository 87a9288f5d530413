"""GraNd: the length of each row's gradient early in training (arXiv:2107.07075)."""

from __future__ import annotations

from torch import Tensor

from sktda.attribution.dynamics import AtOneMoment
from sktda.attribution.gradient import Fitted


class GraNd(AtOneMoment):
    """Minus the length of the gradient of each row's loss early in training, in units of loss per parameter.

    A row with a long gradient pulls the net where the others do not: wrong labels, and hard rows.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net, a scikit-learn linear model or MLP, a Pipeline ending in one, or FrozenEstimator of a fitted one.
        A net is cloned and trained with a checkpoint after every epoch, unless it has a TrajectoryRecorder; models
        without a recorded run are measured as they are in the end. None = a small net for tables or images.
    at : float in (0, 1], default=0.1
        Share of the run's steps after which rows are measured, at the first checkpoint from there on: early, before the
        net has learnt wrong labels by heart.
    parameters : str, list of str or None, default=None
        Names of the parameters whose gradient counts, as patterns: ``"classifier.*"``. None = all that were trained.
        Those of the last layer are cheaper and rank much alike: its gradient is
        ``|error| * sqrt(1 + |features|^2)`` long.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or None, default=None
        Rows at a time; changes memory and speed, not the result. None = what fits.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Minus the length of the gradient, higher = keep.
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
    Source: Paul, Ganguli and Dziugaite 2021 (arXiv:2107.07075), definition 2.1, negated; there the mean over ten runs,
    here ``ModelEnsemble(GraNd(), members="seeds")``. No gradient is formed where a product of factors gives its length.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import GraNd
    >>> X, y = load_digits(return_X_y=True)
    >>> y[:3] = [7, 7, 7]  # they are 0, 1, 2
    >>> scores = GraNd(random_state=0).fit(X, y).scores_
    >>> bool((scores[:3] < -5).all())
    True
    """

    def __init__(
        self,
        estimator=None,
        *,
        at=0.1,
        parameters=None,
        device="auto",
        batch_size=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.at = at
        self.parameters = parameters
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state

    def _measured(self, fitted: Fitted) -> Tensor:
        lengths = fitted.engine.square_norms(fitted.rows.unweighted())
        assert isinstance(lengths, Tensor)
        return -lengths.double().sqrt()
