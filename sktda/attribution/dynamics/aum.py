"""AUM: the area under a row's margin over the run, with the threshold of a made-up class (arXiv:2001.10528)."""

from __future__ import annotations

from numbers import Real

import numpy as np
from sklearn.base import clone
from sklearn.utils._param_validation import Interval
from skorch import NeuralNetBinaryClassifier
from skorch.utils import is_dataset
from torch import Tensor

from sktda.attribution.dynamics.base import AlongTheRun
from sktda.attribution.gradients.fitted import Fitted
from sktda.data import encode_target
from sktda.model import proxy
from sktda.model.batches import Relabelled, as_dataset, targets_of
from sktda.model.given import GivenModel
from sktda.seeds import random_of


class AUM(AlongTheRun):
    """Mean over training of the logit of the given label minus the largest other one.

    Rows with a wrong label are learnt late and against their neighbours, so their margin is low for most of the run.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net, a Pipeline ending in one, or FrozenEstimator of one that was recorded. It is cloned and trained
        with a checkpoint after every epoch, unless it has a TrajectoryRecorder. None = a small net for tables or
        images.
    percentile : float in [0, 100] or None, default=None
        Where labels are called wrong: 99 in the paper. n / (n_classes + 1) rows get the label of a class that does not
        exist, the net is trained, and whatever has a margin below that percentile of theirs is as badly fitted as a
        label that is wrong for certain. A second run with other such rows gives the first ones a margin. None = one
        run, no threshold.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or "auto", default="auto"
        Rows at a time; changes memory and speed, not the result. "auto" = what fits.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone, and draws the rows of the made-up class. None is 0, so that a fit can be
        repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        The mean margin, higher = keep; with `percentile` the mean over the runs in which the row had its own label.
    threshold_ : float
        With `percentile`: below it a label is called wrong; the mean of both runs.
    is_wrong_ : ndarray of bool of shape (n_samples,)
        With `percentile`: the labels called wrong.
    estimator_ : estimator
        The trained model; with `percentile` that of the last run, whose classes are numbers and one more than y has.
    trajectory_ : Trajectory
        The recorded run, the last one.
    task_ : str
        "classification".

    Raises
    ------
    TypeError
        In `fit`, for an estimator that cannot be differentiated.
    ValueError
        In `fit`, for regression, an estimator without a recorded run, a train_split that hides rows, a trajectory of
        another model or other rows, a diverged training; with `percentile` also for a net without an output for one
        more class, labels of a given net that are not 0..n_classes-1, and a FrozenEstimator.

    Notes
    -----
    Source: Pleiss et al. 2020 (arXiv:2001.10528), definition 1 and section 3.2. There margins are those of a row's own
    batches, here those after every epoch; the authors stop before the learning rate falls, when wrong labels are not
    yet learnt by heart. Of several labels that are yes or no, the smallest margin of a row counts.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import AUM
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:500], y[:500]
    >>> y[::10] = (y[::10] + 3) % 10  # 50 of 500 labels are wrong now
    >>> aum = AUM(percentile=99, random_state=0).fit(X, y)
    >>> bool(aum.is_wrong_[::10].mean() > 0.9)
    True
    """

    _parameter_constraints: dict = {
        **AlongTheRun._parameter_constraints,
        "percentile": [Interval(Real, 0, 100, closed="both"), None],
    }

    def __init__(
        self,
        estimator=None,
        *,
        percentile=None,
        device="auto",
        batch_size="auto",
        random_state=None,
    ):
        self.estimator = estimator
        self.percentile = percentile
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        """Train the estimator (unless it is frozen) and score the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As the estimator takes it, also a torch Dataset that holds the labels, with y=None.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            Of the training, where the estimator takes weights. It does not weight the scores.
        X_val, y_val, metadata_val : default=None
            Not used.

        Returns
        -------
        self
        """
        self._validate_params()
        for name in ("threshold_", "is_wrong_", "n_features_in_", "feature_names_in_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        X = as_dataset(X) if y is None else X
        within = is_dataset(X)  # whose own labels are what a given net learns, whatever y is
        nothing = self.estimator is None if within else y is None  # what super says in one sentence
        if self.percentile is None or nothing:
            return super().fit(X, y, sample_weight)
        if GivenModel.of(self.estimator).fixed:
            raise ValueError(
                "percentile trains the net on labels of a made-up class, which a FrozenEstimator cannot learn; give "
                "the net itself, or percentile=None"
            )
        labels, made_up = self._labels(targets_of(X) if within else y)
        random = random_of(self.random_state)
        n_classes = len(np.unique(labels))
        # the made-up class is as large as the others are on average; two of it, for two runs
        drawn = random.permutation(len(labels))[: 2 * max(1, len(labels) // (n_classes + 1))]
        total, times = np.zeros(len(labels)), np.zeros(len(labels))
        thresholds = []
        for fake in np.array_split(drawn, 2):
            own = np.ones(len(labels), dtype=bool)
            own[fake] = False
            one = clone(self).set_params(percentile=None, random_state=random.randint(2**31 - 1)).set_callbacks()
            given = np.where(own, labels, made_up)
            try:
                one.fit(*((Relabelled(X, given), None) if within else (X, given)), sample_weight)
            except IndexError as error:  # of a target beyond the outputs
                raise ValueError(
                    f"percentile={self.percentile} adds a class to the {n_classes} of y; give the net {n_classes + 1} "
                    "outputs, or percentile=None"
                ) from error
            # nobody is drawn twice, so every row has its own label in one run at least
            total[own] += one.scores_[own]
            times[own] += 1
            thresholds.append(np.percentile(one.scores_[fake], self.percentile))
        settings = one.get_params(deep=False)
        # what the last run learned
        self.__dict__.update({name: value for name, value in vars(one).items() if name not in settings})
        self.scores_ = total / times
        self.threshold_ = float(np.mean(thresholds))
        self.is_wrong_ = self.scores_ < self.threshold_
        return self

    def _labels(self, y):
        """(labels 0..n_classes-1, the one of the made-up class); ValueError for what has none."""
        _, codes, classes = encode_target(y)
        if classes is None:
            raise ValueError(
                "AUM compares the logits of classes, and regression has none; use ComplexityGap, Loss or EL2N"
            )
        model = GivenModel.of(self.estimator).model
        if isinstance(model, NeuralNetBinaryClassifier):
            raise ValueError(
                f"percentile={self.percentile} adds a class to the two of y, for which a net with one logit has no "
                "output; use NeuralNetClassifier with three outputs, or percentile=None"
            )
        if model is None or isinstance(model, proxy.TYPES):
            # of nine digits: as text they sort like the numbers, and the made-up class comes last
            return np.char.mod("%09d", codes), f"{len(classes):09d}"  # text: so many numbers may not pass for classes
        if not np.array_equal(codes, np.asarray(y).ravel()):
            raise ValueError(
                f"percentile={self.percentile} adds a class to those of y, which a given estimator must know as 0 to "
                f"{len(classes) - 1}; encode y with LabelEncoder, and give the net {len(classes) + 1} outputs"
            )
        return codes, len(classes)

    def _self_scores(self, fitted: Fitted) -> Tensor:
        return self._margins(fitted).mean(dim=0)
