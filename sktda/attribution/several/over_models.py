"""What the attributors over several models share: which models, how they are trained, one fit around each."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import RandomState
from sklearn.base import clone
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from sktda.attribution.base import Attributor, Needs, check_fits, needs_of, objectives_of
from sktda.attribution.gradients.base import TrainedScores
from sktda.attribution.progress import Progress
from sktda.model.fitting import check_trainable, train_clone
from sktda.model.given import GivenModel, GivenRows, frozen
from sktda.model.huge import naming_huge_cells
from sktda.model.side_by_side import side_by_side, why_not
from sktda.seeds import random_of
from sktda.workers import in_workers


class OverModels(CallbackSupportMixin, Attributor):
    """Base of the attributors that fit another one around each of several models."""

    estimator: Any
    members: Any
    n_jobs: int | None
    random_state: Any

    @property
    @abstractmethod
    def _attributor(self) -> Any:
        """What is fitted around each model."""

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        """What the attributor needs, a model that can be differentiated, and its run where checkpoints are members."""
        needs = needs_of(self._attributor)
        trajectory = needs.trajectory or self.members == "checkpoints"
        return replace(needs, gradients=True, features=False, probabilities=False, trajectory=trajectory)

    # ---- fit --------------------------------------------------------------------------------------------------------

    @with_callbacks
    @naming_huge_cells
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        """Train what has to be trained, and score the rows with every model.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As the estimator takes it.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            Multiplies the loss of each row, in training (where the estimator takes weights) and in the scores.
        X_val, y_val : array-like, default=None
            Validation rows, as X and y.
        metadata_val : dict of array-like, default=None
            Metadata of the validation rows for the objective.

        Returns
        -------
        self
        """
        self._validate_params()
        for name in [name for name in vars(self) if name.endswith("_")]:  # of an earlier fit
            delattr(self, name)
        attributor = self._prepared(X_val is not None)
        random = random_of(self.random_state)
        estimator, X, y = attributor._checked(X, y, sample_weight)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(attributor, name):
                setattr(self, name, getattr(attributor, name))
        rows = GivenRows(X, y, sample_weight)
        # scores of each; of a run it is not known how many checkpoints it will have
        n_members = len(self.members) if not isinstance(self.members, str) else self.n_members
        check_fits(self, 8.0 * len(rows) * (2 if self.members == "checkpoints" else n_members))
        progress = Progress(self, X, y)
        models = self._models(attributor, estimator, rows, random, progress)
        seeds = random.randint(2**31 - 1, size=len(models))  # before the workers start: n_jobs does not matter
        tasks = (
            (attributor, model, int(seed), *rows, X_val, y_val, metadata_val)
            for model, seed in zip(models, seeds, strict=True)
        )
        self.attributors_ = list(progress.each("score", in_workers(fitted_clone, tasks, self.n_jobs), len(models)))
        # they came back without rows (`fitted_clone`), and share these
        for each in self.attributors_:
            each._data = rows
        if all(found := [objectives_of(each) for each in self.attributors_]):
            self.objectives_ = averaged(found)
        # with objective=None there is `attribute` only
        if all(hasattr(each, "scores_") for each in self.attributors_):
            self._summarise(X, y)
        progress.end()
        return self

    @abstractmethod
    def _prepared(self, has_validation: bool) -> TrainedScores:
        """A clone of the attributor around the estimator, after the checks that need no data."""

    @abstractmethod
    def _models(
        self, attributor: TrainedScores, estimator: Any, rows: GivenRows, random: RandomState, progress: Progress
    ) -> list[Any]:
        """Fitted estimators."""

    @abstractmethod
    def _summarise(self, X: Any, y: Any) -> None:
        """Set the scores from those of `attributors_`."""

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _cloned(self, given: Any, name: str) -> TrainedScores:
        """A clone of the attributor around the estimator, or the first of the given models. name: of the parameter."""
        attributor = self._attributor
        if not isinstance(attributor, TrainedScores):
            raise TypeError(
                f"{type(self).__name__} repeats a method that differentiates a model, and {attributor!r} is no such "
                "attributor; allowed are instances of Influence, InnerProduct, TracIn, Source, DiffIn, SGDInfluence, "
                "MoSo, TRAK, LoGra, OutlierGradient, and those of training dynamics, such as EL2N"
            )
        attributor = clone(attributor)
        if attributor.estimator is None:
            attributor.set_params(estimator=self.estimator)
        if given is not None:
            attributor.set_params(estimator=frozen(checked_models(given, name)[0]))
        return attributor

    def _refuse_cross_fitting(self, attributor: TrainedScores, trains: bool, has_validation: bool) -> None:
        """ValueError if the attributor would look for validation rows of its own in every fit."""
        objective = getattr(attributor, "objective", None)
        if trains and not has_validation and not (objective is None or objective in ("auto", "self")):
            raise ValueError(
                f"objective={objective!r} of {type(attributor).__name__} needs validation rows, since "
                f"{type(self).__name__} does not cross-fit; pass X_val and y_val (in a cleaner: validation=5 or a "
                "Holdout), or use objective='self'"
            )

    def _trainings(
        self,
        attributor: TrainedScores,
        estimator: Any,
        rows: GivenRows,
        random: RandomState,
        n: int,
        progress: Progress,
    ) -> list[Any]:
        """The estimator after n trainings, each from a seed of its own."""
        seeds = [int(seed) for seed in random.randint(2**31 - 1, size=n)]
        # also those that are set: at one fixed seed all members would be the same model
        names = [name for name in estimator.get_params(deep=True) if f"__{name}".endswith("__random_state")]
        given = GivenModel.of(estimator)
        check_trainable(given, len(rows))
        # one program for all, where seeds are all that tells the trainings apart
        alike = attributor._callbacks(given) is None and rows.sample_weight is None and not names
        if alike and why_not(estimator, rows.X, rows.y) is None:
            progress.begin("train")
            return side_by_side(estimator, rows.X, rows.y, seeds, [None] * n)
        tasks = (
            (clone(estimator).set_params(**dict.fromkeys(names, seed)), *rows, seed, attributor._callbacks(given))
            for seed in seeds
        )
        return list(progress.each("train", in_workers(_trained, tasks, self.n_jobs), n))


def refuse_frozen(estimator: Any, setting: str, remedy: str) -> None:
    """ValueError if the estimator is not trained by fit, for a setting that trains it several times."""
    if GivenModel.of(estimator).frozen:
        raise ValueError(
            f"{setting} trains the estimator anew for each model, and a FrozenEstimator is not trained; give the "
            f"estimator without FrozenEstimator, or the trained models as a list: {remedy}"
        )


def _trained(estimator: Any, X: Any, y: Any, sample_weight: Any, seed: int, callbacks: Any) -> Any:
    return train_clone(estimator, X, y, sample_weight, random_state=seed, callbacks=callbacks)


def fitted_clone(attributor: TrainedScores, model: Any, seed: int, *rows: Any) -> TrainedScores:
    """The attributor fitted around one model; rows: what `fit` takes."""
    found = clone(attributor).set_params(estimator=frozen(model), random_state=seed).fit(*rows)
    found._data = GivenRows(None)  # the caller has them
    return found


def checked_models(models: Any, name: str) -> list[Any]:
    """A list of at least two fitted estimators; ValueError if it is not."""
    models = list(models)
    if len(models) < 2:
        raise ValueError(f"{name} is a list of {len(models)}, and at least two fitted estimators are needed")
    for k, model in enumerate(models):
        try:
            check_is_fitted(GivenModel.of(model).model)
        except (NotFittedError, TypeError) as error:
            raise ValueError(
                f"{name}[{k}]={type(model).__name__} is not a fitted estimator. Fit it; a cleaner or a search clones "
                "the attributor and with it these models, unless each is given as FrozenEstimator(fitted)"
            ) from error
    return models


def averaged(found: list[dict[str, Any]]) -> dict[str, Any]:
    """ObjectiveScores by name from those of each member."""
    result = {}
    for name in found[0]:
        each = [member[name] for member in found]
        # which group is the larger one may differ from member to member: the mean gap is then of no pair
        agree = all(one.groups == each[0].groups for one in each)
        value, scores = float(np.mean([one.value for one in each])), np.mean([one.scores for one in each], axis=0)
        result[name] = replace(each[0], value=value, scores=scores, groups=each[0].groups if agree else None)
    return result
