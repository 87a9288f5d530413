"""Several attributors as one: the mean of their ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.validation import _num_samples, validate_data

from sktda.attribution.base import (
    Attributor,
    Needs,
    check_fits,
    checked_scores,
    fit_transformed,
    loo_decision_of,
    needs_of,
    seeded,
    told_task,
)
from sktda.attribution.features.complexity_gap import ComplexityGap
from sktda.attribution.predictions.confidence import SelfConfidence
from sktda.attribution.predictions.data_oob import DataOOB
from sktda.attribution.predictions.label_posterior import LabelPosterior
from sktda.attribution.progress import Progress
from sktda.data import check_weights, encode_target, sliceable
from sktda.seeds import random_of
from sktda.workers import in_workers


class Ensemble(CallbackSupportMixin, Attributor):
    """Mean rank of each row over several attributors, in (0, 1): what they agree on counts, in whatever unit.

    Parameters
    ----------
    attributors : list of attributors, list of (name, attributor) or None, default=None
        They are cloned. Names default to those of the classes in lower case, as in `make_pipeline`, and reach their
        parameters: ``complexitygap__ridge``. None = LabelPosterior() and LabelPosterior(SelfConfidence()); for
        regression, where no class has a probability, ComplexityGap() and DataOOB().
    weights : array-like of shape (n_attributors,) or None, default=None
        How much each rank counts, at least 0; None = all alike.
    transformers : transformer or None, default=None
        Prepares the features of the attributors that need numbers; the others get X as it is. None = X as it is for
        all, and in a cleaner around a Pipeline its transformers.
    task : {"auto", "classification", "regression"}, default="auto"
        What y is, for attributors that leave it open; see ComplexityGap.
    n_jobs : int or None, default=None
        Attributors fitted at a time. Does not change the result.
    random_state : int, RandomState instance or None, default=None
        Seeds every attributor that has no seed of its own, each differently. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Mean of the ranks divided by n_samples, ties sharing theirs; higher = keep.
    member_scores_ : ndarray of shape (n_attributors, n_samples)
        In their own units.
    attributors_ : list of attributors
        The fitted clones.
    task_ : str
        "classification" or "regression", of the first of them that says so, else by `task`.

    Raises
    ------
    ValueError
        In `fit`, for an empty list, names that are not unique, weights that do not match, and as the attributors.
    TypeError
        In `fit`, for something in the list that is no attributor.

    Notes
    -----
    `loo_decision_`, from which cleaners estimate how many labels are wrong, is that of the first member that has one.
    Validation rows go to the members that use them. Ranks of several detectors were averaged for outliers by Lazarevic
    and Kumar 2005 ("Feature bagging for outlier detection") and others; a member that knows nothing costs as much as it
    weighs.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import Ensemble
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> y[:3] = [3, 3, 3]  # they are 0, 1, 2
    >>> ensemble = Ensemble().fit(X, y)
    >>> sorted(ensemble.scores_.argsort()[:3].tolist())
    [0, 1, 2]
    """

    _parameter_constraints: dict = {
        "attributors": [list, tuple, None],
        "transformers": [HasMethods(["fit_transform", "transform"]), None],
        "weights": ["array-like", None],
        "task": [StrOptions({"auto", "classification", "regression"})],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self, attributors=None, *, weights=None, transformers=None, task="auto", n_jobs=None, random_state=None
    ):
        self.attributors = attributors
        self.weights = weights
        self.transformers = transformers
        self.task = task
        self.n_jobs = n_jobs
        self.random_state = random_state

    @with_callbacks
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        """Fit the attributors and average their ranks.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, ...), or a dict of them by argument name
            As the attributors take it.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            Passed to the attributors.
        X_val, y_val, metadata_val : default=None
            Validation rows, for the attributors that use them.

        Returns
        -------
        self
        """
        self._validate_params()
        if y is None:
            raise ValueError("Ensemble requires y to be passed, but the target y is None")
        for name in ("n_features_in_", "feature_names_in_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        X = sliceable(X)
        if self.attributors is None and self.transformers is None:
            X, *_ = self._validate(X, y, sample_weight, self.task)
        elif hasattr(X, "shape"):
            validate_data(self, X, skip_check_array=True)
        if sample_weight is not None:
            check_weights(sample_weight, _num_samples(y))
        members = self._members(y)
        weights = self._checked_weights(len(members))
        needs = [needs_of(each) for each in members]
        check_fits(self, 24.0 * _num_samples(y) * len(members))  # scores of each, together, and their ranks
        # transformers are fitted once for all members that need numbers, the others see X as it came
        seen = numbers = X, X_val
        if self.transformers is not None and any(each.features for each in needs):
            numbers = fit_transformed(clone(self.transformers), X, y, X_val)
        tasks = (
            (member, each, *(numbers if each.features else seen), y, sample_weight, y_val, metadata_val)
            for member, each in zip(members, needs, strict=True)
        )
        progress = Progress(self, X, y)
        self.attributors_ = list(progress.each("attributors", in_workers(_fit, tasks, self.n_jobs), len(members)))
        self.member_scores_ = np.stack([checked_scores(each, _num_samples(X)) for each in self.attributors_])
        # ranks, since members have different units; - 1/2 puts them symmetrically about 1/2
        ranks = (rankdata(self.member_scores_, axis=1) - 0.5) / self.member_scores_.shape[1]
        self.scores_ = np.average(ranks, axis=0, weights=weights)
        known = [each.task_ for each in self.attributors_ if hasattr(each, "task_")]
        self.task_ = known[0] if known else encode_target(y, self.task)[0]
        progress.end()
        return self

    @property
    def loo_decision_(self):
        """Leave-one-out or out-of-sample predictions of the first member that makes some."""
        for each in self.__dict__.get("attributors_", []):
            if (decision := loo_decision_of(each)) is not None:
                return decision
        raise AttributeError("none of the attributors makes leave-one-out predictions")

    @property
    def needs(self):
        """Validation rows if a member uses them, numbers if one needs them and no transformers make them."""
        found = [needs_of(each) for _, each in self._named()]
        # `_named` has nothing of the default members, some of which need numbers
        numbers = self.attributors is None or any(each.features for each in found)
        return Needs(features=numbers and self.transformers is None, validation=any(each.validation for each in found))

    # ---- parameters of the members ---------------------------------------------------------------------------------

    def get_params(self, deep=True):
        """Parameters of this estimator and, if `deep`, the members by name and their parameters as name__parameter."""
        params = super().get_params(deep=False)
        if deep:
            for name, each in self._named():
                params[name] = each
                # what is no attributor has none, and is refused in `fit` with a reason
                if hasattr(each, "get_params"):
                    params |= {f"{name}__{key}": value for key, value in each.get_params().items()}
        return params

    def set_params(self, **params):
        """Set parameters, those of members as name__parameter; a member's name alone replaces it."""
        settings = self.get_params(deep=False)
        own = {name: value for name, value in params.items() if name in settings}
        super().set_params(**own)
        # the list first, then members by name, then what is in them: each step looks into what the one before set
        names = [name for name, _ in self._named()]
        if replaced := {name: value for name, value in params.items() if name in names and name not in own}:
            plain = all(not isinstance(each, tuple) for each in self.attributors)
            pairs = [(name, replaced.get(name, each)) for name, each in self._named()]
            self.attributors = [each for _, each in pairs] if plain else pairs
        super().set_params(**{name: value for name, value in params.items() if name not in {*own, *replaced}})
        return self

    def _named(self) -> list[tuple[str, Any]]:
        """(name, attributor) of each member that was given."""
        given = self.attributors if isinstance(self.attributors, Iterable) else []
        kinds = [type(each).__name__.lower() for each in given]
        found = []
        for place, each in enumerate(given):
            if isinstance(each, tuple) and len(each) == 2:
                found.append(each)
            else:
                number = f"-{kinds[: place + 1].count(kinds[place])}" if kinds.count(kinds[place]) > 1 else ""
                found.append((kinds[place] + number, each))
        return found

    # ---- steps ------------------------------------------------------------------------------------------------------

    def prepare_members(self, prepare: Callable[[Any], Any], transformers: Any = None) -> None:
        """Put prepare(attributor) in the place of each: a cleaner fills in what they leave open."""
        self.transformers = transformers if self.transformers is None else self.transformers
        if self.attributors is not None:
            self.attributors = [(name, prepare(each)) for name, each in self._named()]
        elif self.task != "auto":
            # which members are the default depends on the task, and that is known here only if it was told
            self.attributors = [prepare(each) for each in default_members(self.task)]

    def _members(self, y: Any) -> list[Any]:
        """Unfitted clones, seeded."""
        if self.attributors is None:
            given = default_members(encode_target(y, self.task)[0])
        else:
            given = [each for _, each in self._named()]
            self._check_names()
        if not given:
            raise ValueError("attributors is empty; give a list such as [ComplexityGap(), SelfConfidence()]")
        for each in given:
            needs_of(each)  # says what is no attributor, before it is cloned
        # one generator for all, of which every member without a seed draws another one
        random = random_of(self.random_state)
        return [seeded(told_task(clone(each), self.task), random) for each in given]

    def _check_names(self) -> None:
        """ValueError for names that are not unique, or that could not be told from parameters."""
        names = [name for name, _ in self._named()]
        taken = {"attributors", *super().get_params(deep=False)}
        for name in names:
            if names.count(name) > 1 or name in taken or "__" in name:
                raise ValueError(
                    f"the name {name!r} in attributors is not allowed: names must be unique, without two underscores, "
                    f"and none of {', '.join(sorted(taken))}"
                )

    def _checked_weights(self, n: int) -> np.ndarray | None:
        if self.weights is None:
            return None
        weights = np.asarray(self.weights, dtype=float)
        if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
            raise ValueError(
                f"weights={self.weights!r} must be {n} numbers of at least 0, one per attributor, not all 0"
            )
        return weights


def default_members(task: str) -> list[Attributor]:
    """What attributors=None means."""
    if task == "regression":
        return [ComplexityGap(task=task), DataOOB(task=task)]
    return [LabelPosterior(task=task), LabelPosterior(SelfConfidence())]


def _fit(attributor, needs, X, X_val, y, sample_weight, y_val, metadata_val):
    # not passed where there are none: an attributor whose `fit` has no such argument still works
    weight = {} if sample_weight is None else {"sample_weight": sample_weight}
    validation = {"X_val": X_val, "y_val": y_val, "metadata_val": metadata_val} if needs.validation else {}
    return attributor.fit(X, y, **weight, **validation)
