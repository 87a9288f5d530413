"""Outlier gradient analysis: rows whose loss gradients are unlike the others' (Chhabra et al. 2024)."""

from __future__ import annotations

from functools import partial
from numbers import Integral

import numpy as np
import torch
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import HasMethods, Interval
from torch import Tensor

from sktda.attribution.base import Needs, check_fits
from sktda.attribution.gradients.base import SelfScores
from sktda.attribution.gradients.fitted import Fitted
from sktda.engine.projection import projected, projection_of
from sktda.model.fitting import seed_parts
from sktda.model.standard import power_of_two
from sktda.seeds import random_of


class OutlierGradient(SelfScores):
    """Inlier score of each row's loss gradient among those of all rows, as the outlier detector says it.

    For an isolation forest minus the anomaly score, in [-1, 0]. Rows that pull the parameters where no others do are
    the ones that harm, so influence becomes a search for outliers, without a Hessian.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net, a scikit-learn linear model or MLP, a Pipeline ending in one, or FrozenEstimator of a fitted one.
        None = softmax or linear regression, trained by SGD: a net that learns wrong labels by heart leaves no gradient
        that would be an outlier.
    detector : outlier detector or None, default=None
        Anything of scikit-learn's with `score_samples`, higher = inlier: ``LocalOutlierFactor(novelty=True)``,
        ``OneClassSVM()``, Pipelines that end in one. Clones of it are fitted. None = ``IsolationForest()``.
    by_class : bool, default=False
        Look for outliers among the rows of the same class only. Not for regression.
    proj_dim : int, default=512
        Numbers that gradients of more parameters are projected to before the detector sees them, as in `TRAK`.
    parameters : str, list of str or None, default=None
        Names of the parameters that take part, as patterns: ``"classifier.*"``, ``["*.lora_*", "classifier.*"]``; the
        others count as fixed. None = all that were trained.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or "auto", default="auto"
        Rows at a time; changes memory and speed, not the result. "auto" = what fits.
    work_dir : path-like or None, default=None
        Folder in which finished shards of a long `fit` are kept until it ends: a fit that was killed and is started
        again (with the same rows, the same trained model and an int as `random_state`) goes on where it was.
        None = off.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone, the projection, and the detector where it has no seed of its own. None is 0, so
        that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep.
    detectors_ : list of outlier detectors
        As fitted on the gradients: one, or one per class.
    estimator_ : estimator
        The trained model.
    trajectory_ : Trajectory
        The recorded run of a net that had a recorder.
    task_ : str
        "classification" or "regression".

    Raises
    ------
    TypeError
        In `fit`, for an estimator that cannot be differentiated.
    ValueError
        In `fit`, for by_class=True in a regression or with a class of one row, a train_split that hides rows, a
        trajectory of another model or other rows, a diverged training.

    Notes
    -----
    Validation rows are accepted, as by every attributor, and do not enter. Weights multiply the gradients. Source:
    Chhabra et al. 2024 (arXiv:2405.03869), their score turned round. Their other detectors, thresholds on the length of
    the gradient, rank rows as ``InnerProduct(objective="self")`` does.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktda.attribution.gradients.outlier_gradient import OutlierGradient
    >>> X, y = load_iris(return_X_y=True)
    >>> y[0] = 2  # it is 0
    >>> int(OutlierGradient(LogisticRegression(max_iter=1000), random_state=0).fit(X, y).scores_.argmin())
    0
    """

    needs = Needs(gradients=True, net={"optimizer": "sgd", "hidden": False})

    _parameter_constraints: dict = {
        **SelfScores._parameter_constraints,
        "detector": [HasMethods(["fit", "score_samples"]), None],
        "by_class": ["boolean"],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator=None,
        *,
        detector=None,
        by_class=False,
        proj_dim=512,
        parameters=None,
        device="auto",
        batch_size="auto",
        work_dir=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.detector = detector
        self.by_class = by_class
        self.proj_dim = proj_dim
        self.parameters = parameters
        self.device = device
        self.batch_size = batch_size
        self.work_dir = work_dir
        self.random_state = random_state

    def _self_scores(self, fitted: Fitted) -> Tensor:
        random = random_of(self.random_state)
        groups = self._groups(fitted)  # before the pass over the gradients: it refuses some models
        seed = int(random.randint(2**31 - 1))
        projection = projection_of(fitted.engine, fitted.rows, self.proj_dim, seed)
        # as they come, and in float64 for the detector
        check_fits(self, (8.0 + fitted.model.dtype.itemsize) * len(fitted.rows) * projection.width)
        compute = partial(projected, fitted.engine, fitted.rows, projection, None)
        # the seed is in the name: shards of another projection must not be taken up
        gradients = fitted.passes.collect(f"gradients {seed}", len(fitted.rows), compute).double().numpy()
        refuse_unbounded(gradients)
        largest = np.abs(gradients).max()
        if largest and not 1e-30 < largest < 1e30:  # as of huge weights: an isolation forest computes in float32
            gradients = gradients / power_of_two(largest)
        scores = np.empty(len(gradients))
        self.detectors_ = []
        for rows in groups:
            detector = IsolationForest() if self.detector is None else clone(self.detector)
            seed_parts(detector, int(random.randint(2**31 - 1))).fit(gradients[rows])
            # a local outlier factor of new rows would count each of these as its own neighbour
            last = detector[-1] if isinstance(detector, Pipeline) else detector
            own = getattr(last, "negative_outlier_factor_", None)
            scores[rows] = detector.score_samples(gradients[rows]) if own is None else own
            self.detectors_.append(detector)
        return torch.from_numpy(scores)

    def _groups(self, fitted: Fitted) -> list[np.ndarray]:
        """Positions of the rows that are compared with each other."""
        if not self.by_class:
            return [np.arange(len(fitted.rows))]
        targets = fitted.rows.read(slice(0, len(fitted.rows)))[1].numpy()
        if self.task_ != "classification" or targets[0].size != 1:
            raise ValueError(
                "by_class=True compares rows of the same class, and this model has no classes (or several labels per "
                "row); use by_class=False"
            )
        _, codes, counts = np.unique(targets.reshape(len(targets)), return_inverse=True, return_counts=True)
        if counts.min() < 2:
            raise ValueError(
                f"by_class=True compares rows of the same class, and {int((counts < 2).sum())} classes have one row; "
                "drop or merge them, or use by_class=False"
            )
        return [np.flatnonzero(codes == code) for code in range(len(counts))]


def refuse_unbounded(gradients: np.ndarray) -> None:
    """ValueError naming the first row whose gradient is NaN or infinite, which detectors would say less about."""
    wrong = np.flatnonzero(~np.isfinite(gradients).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"the gradients of {len(wrong)} rows are NaN or infinite, the first is row {wrong[0]}: X or y holds NaN or "
            "infinity there, or a number too large for the model's precision; impute, scale or drop it"
        )
