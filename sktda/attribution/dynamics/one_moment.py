"""Scores of each row at one moment of a training run: its error, its gradient, its loss, its margin."""

from __future__ import annotations

from torch import Tensor

from sktda.attribution.dynamics.base import AtOneMoment, error_length, logit_margin, measure_rows
from sktda.attribution.gradients.fitted import Fitted
from sktda.devices import exact


class EL2N(AtOneMoment):
    """Minus the length of the error ``|p - onehot(label)|_2`` early in training, in [-sqrt(2), 0] for classes.

    Of numbers it is minus the distance between prediction and target. Rows whose label the net has not taken to score
    low: wrong labels, and hard rows.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net, a scikit-learn linear model or MLP, a Pipeline ending in one, or FrozenEstimator of a fitted one.
        A net is cloned and trained with a checkpoint after every epoch, unless it has a TrajectoryRecorder; models
        without a recorded run are measured as they are in the end. None = a small net for tables or images.
    at : float in (0, 1], default=0.1
        Share of the run's steps after which rows are measured, at the first checkpoint from there on: early, before the
        net has learnt wrong labels by heart.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or "auto", default="auto"
        Rows at a time; changes memory and speed, not the result. "auto" = what fits.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Minus the length of the error, higher = keep.
    estimator_ : estimator
        The trained model.
    trajectory_ : Trajectory
        The recorded run, if there is one.
    task_ : str
        "classification" or "regression".

    Raises
    ------
    TypeError
        In `fit`, for an estimator that cannot be differentiated, or whose outputs are neither classes nor numbers.
    ValueError
        In `fit`, for a train_split that hides rows, a trajectory of another model or other rows, a diverged training.

    Notes
    -----
    Source: Paul, Ganguli and Dziugaite 2021 (arXiv:2107.07075), definition 2.2, negated; there the mean over ten runs,
    here ``ModelEnsemble(EL2N(), members="seeds")``, and the highest are kept, which keeps wrong labels too. A net with
    one logit has two classes, whose errors are opposite.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import EL2N
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> y[:3] = [3, 3, 3]  # they are 0, 1, 2
    >>> scores = EL2N(random_state=0).fit(X, y).scores_
    >>> bool((scores[:3] < -0.9).all())
    True
    """

    def __init__(
        self,
        estimator=None,
        *,
        at=0.1,
        device="auto",
        batch_size="auto",
        random_state=None,
    ):
        self.estimator = estimator
        self.at = at
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state

    def _measured(self, fitted: Fitted) -> Tensor:
        # minus, as in GraNd and Loss: the paper keeps long errors, which wrong labels have, too
        return -measure_rows(fitted, error_length(fitted.model.likelihood, "EL2N"))


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
    batch_size : int or "auto", default="auto"
        Rows at a time; changes memory and speed, not the result. "auto" = what fits.
    precision : {"auto", "float32", "tf32", "bf16"}, default="auto"
        Of passes through the net. "auto" = as torch is set; "float32": never TF32; "tf32": products in TF32, on CUDA;
        "bf16": passes in bfloat16 by autocast, all sums, decompositions and solutions as with "tf32". Spearman
        correlation of "bf16" with "float32", measured on a processor for small nets, at the least
        0.999.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone. None is 0, so that a fit can be repeated.

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
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> y[:3] = [3, 3, 3]  # they are 0, 1, 2
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
        batch_size="auto",
        precision="auto",
        random_state=None,
    ):
        self.estimator = estimator
        self.at = at
        self.parameters = parameters
        self.device = device
        self.batch_size = batch_size
        self.precision = precision
        self.random_state = random_state

    def _measured(self, fitted: Fitted) -> Tensor:
        # |g|^2 = |a|^2 |delta|^2 at a Linear layer: no (n, p) gradients
        lengths = fitted.engine.square_norms(fitted.rows.unweighted())
        assert isinstance(lengths, Tensor)
        return -exact(lengths).sqrt()


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
    batch_size : int or "auto", default="auto"
        Rows at a time; changes memory and speed, not the result. "auto" = what fits.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone. None is 0, so that a fit can be repeated.

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
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> y[:3] = [3, 3, 3]  # they are 0, 1, 2
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
        batch_size="auto",
        random_state=None,
    ):
        self.estimator = estimator
        self.at = at
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state

    def _measured(self, fitted: Fitted) -> Tensor:
        return -measure_rows(fitted, fitted.model.likelihood.losses)


class LogitMargin(AtOneMoment):
    """Logit of the given label minus the largest other one, at one moment of training.

    Below 0 the net predicts another class. `AUM` is its mean over the run, `NormalizedMargin` that of out-of-sample
    probabilities.

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
    batch_size : int or "auto", default="auto"
        Rows at a time; changes memory and speed, not the result. "auto" = what fits.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        The margin, higher = keep.
    estimator_ : estimator
        The trained model.
    trajectory_ : Trajectory
        The recorded run, if there is one.
    task_ : str
        "classification".

    Raises
    ------
    TypeError
        In `fit`, for an estimator that cannot be differentiated.
    ValueError
        In `fit`, for regression, a train_split that hides rows, a trajectory of another model or other rows, a
        diverged training.

    Notes
    -----
    Of several labels that are yes or no, the smallest margin of a row counts.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import LogitMargin
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> y[:3] = [3, 3, 3]  # they are 0, 1, 2
    >>> scores = LogitMargin(at=0.1, random_state=0).fit(X, y).scores_
    >>> bool((scores[:3] < 0).all())
    True
    """

    def __init__(
        self,
        estimator=None,
        *,
        at=1.0,
        device="auto",
        batch_size="auto",
        random_state=None,
    ):
        self.estimator = estimator
        self.at = at
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state

    def _measured(self, fitted: Fitted) -> Tensor:
        return measure_rows(fitted, logit_margin(fitted.model.likelihood, "LogitMargin"))
