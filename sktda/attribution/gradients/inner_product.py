"""Inner product of gradients at the final parameters (arXiv:2405.17490)."""

from __future__ import annotations

from sktda.attribution.gradients.checkpoint_dots import CheckpointDots
from sktda.attribution.gradients.fitted import Fitted
from sktda.attribution.gradients.rates import Rates, group_rates
from sktda.model.given import GivenModel
from sktda.model.recorder import TrajectoryRecorder


class InnerProduct(CheckpointDots):
    """Predicted rise of the objective when a row is removed, in loss units: influence without the inverse Hessian.

    value_i = (x/n) <q, g_i> at the final parameters, x the sum of the learning rates of the whole run (1 where it is
    not recorded): TracIn with one final checkpoint.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net, a scikit-learn linear model or MLP, a Pipeline ending in one, or FrozenEstimator of a fitted one.
        None = a small net for tables or images.
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
    Source: arXiv:2405.17490, the Hessian-free inner product, with its sign turned and divided by n. Of a net with
    ContrastiveLoss, g_i is the gradient of what a pair takes with it from its batch, and the record must have steps.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktda.attribution import InnerProduct
    >>> X, y = load_iris(return_X_y=True)
    >>> y[0] = 2  # it is 0
    >>> int(InnerProduct(LogisticRegression(max_iter=1000)).fit(X, y).scores_.argmin())
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
        return TrajectoryRecorder(n_checkpoints=1)  # for the learning rates

    def _weights(self, fitted: Fitted) -> list[tuple[int | None, Rates]]:
        if fitted.trajectory is None:
            return [(None, Rates(1.0))]
        # (checkpoints, groups): the final parameters stand for all steps of the run
        total = fitted.trajectory.group_effective_rate_sums.sum(axis=0, keepdims=True)
        return [(None, group_rates(fitted.trajectory, total, fitted.model.parameters)[0])]
