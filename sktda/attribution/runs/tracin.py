"""TracIn: gradient dot products summed over the checkpoints of training (arXiv:2002.08484)."""

from __future__ import annotations

from sktda.attribution.gradients.checkpoint_dots import CheckpointDots
from sktda.attribution.gradients.fitted import Fitted
from sktda.attribution.gradients.rates import Rates, rate_sums
from sktda.model.given import GivenModel
from sktda.model.recorder import TrajectoryRecorder


class TracIn(CheckpointDots):
    """Predicted rise of the objective when a row is removed, in loss units, along the recorded training run.

    value_i = (1/n) sum over checkpoints c of eta_c K_c <q_c, g_i(theta_c)>: q the gradient of the objective, g_i that
    of row i's loss, eta_c K_c the sum of the learning rates of the steps that c stands for, divided by 1 - momentum
    and times what gradients were scaled by (clipped by norm, accumulated); by parameter where groups have their own.
    Self-influence (no validation rows) is minus the same with q = g_i: rows that training had to learn by heart.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net, a scikit-learn linear model or MLP, a Pipeline ending in one, or FrozenEstimator of a fitted one.
        A net is cloned and trained with a TrajectoryRecorder, unless it has one; models without a recorded run count
        as one checkpoint, their final parameters, with eta K = 1. None = a small net for tables or images.
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
        0.999 by own loss, 0.99 by validation loss, pairs 0.99.
    work_dir : path-like or None, default=None
        Folder in which finished shards of a long `fit` are kept until it ends: a fit that was killed and is started
        again (with the same rows, and the same trained model or `random_state`) goes on where it was. None = off.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep. Not there with objective=None.
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
    Source: Pruthi et al. 2020 (arXiv:2002.08484), eq. 1 for steps and TracInCP for checkpoints, divided by n. Without
    validation rows and with an explicit objective, rows are scored by cross-fitting over 5 folds. Of a net with
    ContrastiveLoss, g_i is the gradient of what a pair takes with it from its batch, and the record must have steps.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktda.attribution import TracIn
    >>> X, y = load_iris(return_X_y=True)
    >>> y[0] = 2  # it is 0
    >>> int(TracIn(LogisticRegression(max_iter=1000)).fit(X, y).scores_.argmin())
    0
    """

    def __init__(
        self,
        estimator=None,
        *,
        objective="auto",
        parameters=None,
        device="auto",
        batch_size="auto",
        precision="auto",
        work_dir=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.objective = objective
        self.parameters = parameters
        self.device = device
        self.batch_size = batch_size
        self.precision = precision
        self.work_dir = work_dir
        self.random_state = random_state

    def _recorder(self, given: GivenModel) -> TrajectoryRecorder:
        return TrajectoryRecorder()

    def _weights(self, fitted: Fitted) -> list[tuple[int | None, Rates]]:
        if fitted.trajectory is None:
            # without a run eta K is unknown: of a single checkpoint it decides the scale, not the order
            return [(None, Rates(1.0))]
        return list(enumerate(rate_sums(fitted.trajectory, fitted.model.parameters)))
