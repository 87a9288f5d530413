"""How probable the given label is once class-dependent noise is taken out of out-of-sample predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils._param_validation import StrOptions

from sktda.attribution.base import Attributor, seeded, told_task
from sktda.attribution.complexity_gap import ComplexityGap
from sktda.data import encode_target
from sktda.noise import anchor_counts, label_noise_rate, label_posterior, one_sidedness, smoothed_matrix

ONE_SIDED = 0.5  # of `one_sidedness`: from here on wrong labels depend on the class
NOISY = 0.05  # estimated share of wrong labels: with fewer, classes that are alike pass for noise between them


class LabelPosterior(Attributor):
    """Probability that the given label is right, in [0, 1], where wrong labels depend on the class.

    Where many labels of one class are wrong in the same way (cats called dogs), every prediction learns the mistake
    and calls it likely. The noise matrix, estimated from the rows that are predicted most confidently, tells how often
    each class is called what; with it the prediction is turned back into one of the true class. Where labels are wrong
    at random there is nothing to turn back, and the scores are those of the attributor itself, in its unit.

    Parameters
    ----------
    attributor : attributor or None, default=None
        One with `loo_decision_`, leave-one-out or out-of-sample predictions for every class: SelfConfidence, DataOOB.
        None = ``ComplexityGap(task=task)``.
    task : {"auto", "classification", "regression"}, default="auto"
        What y is, for an attributor that leaves it open; see ComplexityGap.
    random_state : int, RandomState instance or None, default=None
        Seed of the attributor, unless it has its own.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep: the probability where `is_corrected_`, else the attributor's scores.
    is_corrected_ : bool
        Whether wrong labels depend on the class and are not few: `one_sidedness_` is at least 0.5, and their share, as
        `sktda.noise.label_noise_rate` estimates it, at least 5 %. Never for regression.
    one_sidedness_ : float
        From about 0, labels wrong at random, to 1, all of one kind; see `sktda.noise.one_sidedness`.
    noise_matrix_ : ndarray of shape (n_classes, n_classes)
        Estimated share of true class k that carries label j, smoothed by one wrong label per class; only for
        classification.
    loo_decision_ : ndarray of shape (n_samples, n_classes) or (n_samples,)
        The attributor's predictions.
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
    Bayes' rule and the inverse of the noise matrix, estimated from anchor rows as in Patrini et al. 2017
    (arXiv:1609.03683). benchmarks/which.py measures both halves of it.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import ComplexityGap, LabelPosterior
    >>> X, y = load_digits(return_X_y=True)
    >>> true = y.copy()
    >>> y[::3] = (y[::3] + 1) % 10  # a third of every digit is called the next one
    >>> posterior = LabelPosterior().fit(X, y)
    >>> posterior.is_corrected_
    True
    >>> worst = {scores.fit(X, y): scores.scores_.argsort()[:599] for scores in (posterior, ComplexityGap())}
    >>> [bool((y != true)[rows].mean() > 0.95) for rows in worst.values()]
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
    def scores_features(self):
        """Whether the attributor needs numbers."""
        return self.attributor is None or getattr(self.attributor, "scores_features", False)

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
        attributor = told_task(ComplexityGap() if self.attributor is None else clone(self.attributor), self.task)
        self.attributor_ = seeded(attributor, self.random_state).fit(X, y, sample_weight)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.attributor_, name):
                setattr(self, name, getattr(self.attributor_, name))
        if not hasattr(self.attributor_, "loo_decision_"):
            raise TypeError(
                f"{type(self.attributor_).__name__} makes no leave-one-out predictions (loo_decision_) to estimate a "
                "noise matrix from; give ComplexityGap(), SelfConfidence() or DataOOB()"
            )
        self.loo_decision_ = self.attributor_.loo_decision_
        self.task_, codes, classes = encode_target(y, self.attributor_.task_)
        self.scores_, self.is_corrected_, self.one_sidedness_ = self.attributor_.scores_, False, 0.0
        if classes is not None:
            self.classes_ = classes
            counts = anchor_counts(self.loo_decision_, codes)
            self.noise_matrix_ = smoothed_matrix(counts)
            self.one_sidedness_ = one_sidedness(counts)
            noisy = label_noise_rate(self.loo_decision_, codes) >= NOISY
            self.is_corrected_ = noisy and self.one_sidedness_ >= ONE_SIDED
        if self.is_corrected_:
            posterior = label_posterior(self.loo_decision_, codes, self.noise_matrix_)
            self.is_corrected_ = bool(np.ptp(posterior) > 0)  # labels that no feature tells apart have one posterior
            self.scores_ = posterior if self.is_corrected_ else self.scores_
        return self

    def with_members(self, prepare: Callable[[Any], Any]) -> None:
        """Put prepare(attributor) in its place: a cleaner fills in what the attributor leaves open."""
        self.attributor = prepare(ComplexityGap(task=self.task) if self.attributor is None else self.attributor)
