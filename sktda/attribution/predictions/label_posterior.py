"""How probable the given label is, by predictions that did not see it, once one-sided label noise is taken out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.base import clone
from sklearn.utils._param_validation import StrOptions

from sktda.attribution.base import Attributor, Needs, loo_decision_of, needs_of, seeded, told_task
from sktda.attribution.features.kernel_forest import KernelForest
from sktda.data import encode_target
from sktda.noise import judge_labels

TOLD = (  # by the attributor, where it knows them
    "n_features_in_",
    "feature_names_in_",
    "scale_",
    "transform_",
    "suggested_values_",
    "wrong_probability_",
    "outlier_rate_",
    "outlier_rate_interval_",
    "predictability_",
    "predictability_error_",
)


class LabelPosterior(Attributor):
    """Log odds of the given label, in nats, after labels that are wrong by class are taken out of the predictions.

    The default of every cleaner. Where many labels of one class are wrong in the same way (cats called dogs), every
    prediction learns the mistake and calls it likely. How often each class is called another one, beyond what classes
    that are alike are taken for each other both ways, is estimated from the rows that are predicted most confidently;
    with it the prediction of the label is turned back into one of the true class, and Bayes' rule gives the probability
    that the label is right. Predictions that did not learn the mistakes, so that the matrix makes the labels likelier
    than they do, are not turned back, only weighed. Where labels are wrong at random the score is the log margin. Of a
    regression the scores are those of the attributor.

    Parameters
    ----------
    attributor : attributor or None, default=None
        One with `loo_decision_`, leave-one-out or out-of-sample predictions: SelfConfidence, DataOOB, ComplexityGap.
        None = `KernelForest()`, for regression `RobustResidual()`.
    task : {"auto", "classification", "regression"}, default="auto"
        What y is, for an attributor that leaves it open; see ComplexityGap.
    random_state : int, RandomState instance or None, default=None
        Seed of the attributor, unless it has its own. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        log p(given label) - log p(best other class), higher = keep; below 0 another class is more probable. Where
        `is_corrected_`, log p(given label) - log p(any other class). For regression the attributor's scores.
    posterior_ : ndarray of shape (n_samples, n_classes)
        Probabilities of the true class by the features, where `is_corrected_` by the given label, too; only for
        classification.
    noise_matrix_ : ndarray of shape (n_classes, n_classes)
        Estimated share of true class k that carries label j in excess of the reverse, see `sktda.noise.one_way_matrix`;
        only for classification.
    is_corrected_ : bool
        Whether `noise_matrix_` mislabels any class. Never for regression.
    loo_decision_ : ndarray of shape (n_samples, n_classes) or (n_samples,)
        The attributor's predictions.
    scale_, transform_, suggested_values_, wrong_probability_ :
        The attributor's, where it has them: see `ComplexityGap` and `RobustResidual`.
    outlier_rate_, outlier_rate_interval_, predictability_, predictability_error_ :
        Of `RobustResidual`.
    attributor_ : attributor
        The fitted clone.
    classes_ : ndarray of shape (n_classes,)
        Only for classification.
    task_ : str
        "classification" or "regression".

    Raises
    ------
    TypeError
        In `fit`, for an attributor without `loo_decision_`.
    ValueError
        In `fit`, as the attributor.

    Notes
    -----
    The noise matrix from anchor rows and its inversion are those of Patrini et al. 2017 (arXiv:1609.03683); that only
    the excess of a confusion over its reverse counts is this library's, measured by benchmarks/tables_battery.py.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import LabelPosterior
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:500], y[:500]
    >>> true = y.copy()
    >>> y[::3] = (y[::3] + 1) % 10  # a third of every digit is called the next one
    >>> posterior = LabelPosterior().fit(X, y)
    >>> posterior.is_corrected_
    True
    >>> worst = [fitted.scores_.argsort()[:167] for fitted in (posterior, posterior.attributor_)]
    >>> [bool((y != true)[rows].mean() > 0.95) for rows in worst]
    [True, False]
    """

    _parameter_constraints: dict = {
        "task": [StrOptions({"auto", "classification", "regression"})],
        "random_state": ["random_state"],
    }

    def __init__(self, attributor=None, *, task="auto", random_state=None):
        self.attributor = attributor
        self.task = task
        self.random_state = random_state

    @property
    def needs(self):
        """What the attributor needs, without validation rows: it is fitted on the rows alone."""
        return Needs(features=self.attributor is None or needs_of(self.attributor).features)

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        """Fit the attributor, estimate the noise matrix, and score the rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, ...)
            As the attributor takes it.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            Passed to the attributor.
        X_val, y_val, metadata_val : default=None
            Not used.

        Returns
        -------
        self
        """
        self._validate_params()
        self._forget()
        attributor = seeded(self._attributor(y), self.random_state)
        self.attributor_ = attributor.fit(X, y, sample_weight)
        for name in TOLD:
            if hasattr(self.attributor_, name):
                setattr(self, name, getattr(self.attributor_, name))
        if (decision := loo_decision_of(self.attributor_)) is None:
            raise TypeError(
                f"{type(self.attributor_).__name__} makes no leave-one-out predictions (loo_decision_) to estimate a "
                "noise matrix from; give ComplexityGap(), SelfConfidence() or DataOOB()"
            )
        self.loo_decision_ = decision
        # by the task that the attributor took y for: its predictions are of these classes
        self.task_, codes, classes = encode_target(y, self.attributor_.task_)
        self.is_corrected_ = False
        if classes is None:
            self.scores_ = self.attributor_.scores_
            return self
        self.classes_ = classes
        # T = I: log margin; else q = p T is solved for p (if learnt), then Bayes' rule with T and the given label
        judged = judge_labels(self.loo_decision_, codes)
        self.scores_, self.posterior_ = judged.scores, judged.posterior
        self.noise_matrix_, self.is_corrected_ = judged.matrix, judged.is_corrected
        return self

    def _attributor(self, y: Any) -> Any:
        """An unfitted attributor, told the task."""
        if self.attributor is not None:
            return told_task(clone(self.attributor), self.task)
        if y is None:
            raise ValueError("LabelPosterior requires y to be passed, but the target y is None")
        if encode_target(y, self.task)[0] == "regression":
            from sktda.attribution.features.robust_residual import RobustResidual

            return RobustResidual()
        # as decided above: KernelForest must not infer it anew where `task` was given
        return KernelForest(task="classification")

    def prepare_members(self, prepare: Callable[[Any], Any], transformers: Any = None) -> None:
        """Put prepare(attributor) in the place of the attributor: a cleaner fills in what it leaves open."""
        if self.attributor is not None:
            self.attributor = prepare(self.attributor)
