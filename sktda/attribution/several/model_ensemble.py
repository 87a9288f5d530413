"""Scores averaged over several models: parameter dropout, checkpoints, seeds, or given ones (arXiv:2405.17490)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sktda.attribution.gradients.base import TrainedScores
from sktda.attribution.gradients.inner_product import InnerProduct
from sktda.attribution.progress import Progress
from sktda.attribution.several.over_models import OverModels, refuse_frozen
from sktda.model.adapters import differentiable, with_parameters
from sktda.model.fitting import check_trainable, train_clone
from sktda.model.given import GivenModel, GivenRows
from sktda.model.recorder import TrajectoryRecorder
from sktda.model.trajectory import Trajectory


def _attributor_has(name: str):
    return lambda self: hasattr(self._attributor, name)


class ModelEnsemble(OverModels):
    """Mean of a gradient-based attributor's scores over several models, in its own unit, with the standard error.

    Every member is scored by itself: its own gradients, its own objective gradient, its own curvature.

    Parameters
    ----------
    attributor : attributor or None, default=None
        One that differentiates a model; it is cloned for every member. None = InnerProduct().
    estimator : estimator or None, default=None
        What the members are made of, where the attributor's own `estimator` is None.
    members : {"dropout", "checkpoints", "seeds"} or list of fitted estimators, default="dropout"
        "dropout": the trained model with a random part of its parameters at zero, theta * Bernoulli(1 - p) with p
        uniform in (0, `dropout`) for each member. "checkpoints": the checkpoints of the recorded run of a net. "seeds":
        the estimator trained `n_members` times. A list is taken as it is; inside a cleaner, which clones the
        attributor, give ``FrozenEstimator(net)`` of each.
    n_members : int, default=10
        Members of "dropout" and "seeds"; checkpoints to record where "checkpoints" trains the net.
    dropout : float, default=0.01
        Largest share of parameters at zero, between 0 and 1. Every trainable parameter takes part.
    n_jobs : int or None, default=None
        Members scored (and for "seeds" trained) at a time. Does not change the result.
    random_state : int, RandomState instance or None, default=None
        Seeds the training, the members and what the attributor draws, in place of the attributor's own; for "seeds"
        also in place of every `random_state` of the estimator. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep. As the next two, not there where the attributor has none (objective=None).
    std_error_ : ndarray of shape (n_samples,)
        Standard deviation over the members divided by the square root of their number.
    member_scores_ : ndarray of shape (n_members, n_samples)
    objectives_ : dict
        What was found for each objective of validation rows, as the attributor's: means over the members of value and
        scores, and the groups of a gap where all members agree on them.
    attributors_ : list of attributors
        One fitted clone per member, around ``FrozenEstimator(member)``.
    estimator_ : estimator
        The model that "dropout" and "checkpoints" made the members from.

    Raises
    ------
    TypeError
        In `fit`, for an attributor that differentiates no model.
    ValueError
        In `fit`, for "checkpoints" without a recorded run, "seeds" of a FrozenEstimator, fewer than two members, an
        attributor that follows a run (Source, DiffIn, SGDInfluence, MoSo) with members that have none, an objective of
        validation rows without these; else as the attributor.

    Notes
    -----
    Members of "dropout" and "checkpoints" have no recorded run: InnerProduct and TracIn then count the sum of the
    learning rates as 1, which changes the scale of their values, not the order. "seeds" of a model that training does
    not vary (LogisticRegression) are one and the same. An objective that needs validation rows is not cross-fitted
    here: pass them, or set the cleaner's `validation`. What dropout members were measured to do is on the benchmarks
    page. Source: arXiv:2405.17490, the ensemble of models by parameter dropout.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktda.attribution import InnerProduct, ModelEnsemble
    >>> X, y = load_iris(return_X_y=True)
    >>> y[0] = 2  # it is 0
    >>> ensemble = ModelEnsemble(InnerProduct(LogisticRegression(max_iter=1000)), random_state=0).fit(X, y)
    >>> int(ensemble.scores_.argmin())
    0
    >>> ensemble.member_scores_.shape
    (10, 150)
    """

    _parameter_constraints: dict = {
        "members": [StrOptions({"dropout", "checkpoints", "seeds"}), list, tuple],
        "n_members": [Interval(Integral, 2, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="neither")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        attributor=None,
        *,
        estimator=None,
        members="dropout",
        n_members=10,
        dropout=0.01,
        n_jobs=None,
        random_state=None,
    ):
        self.attributor = attributor
        self.estimator = estimator
        self.members = members
        self.n_members = n_members
        self.dropout = dropout
        self.n_jobs = n_jobs
        self.random_state = random_state

    @property
    def _attributor(self) -> Any:
        return InnerProduct() if self.attributor is None else self.attributor

    @available_if(_attributor_has("attribute"))
    def attribute(self, X_query, y_query):
        """Mean over the members of the attributor's `attribute`.

        Parameters
        ----------
        X_query : array-like of shape (n_query, ...)
        y_query : array-like of shape (n_query,)

        Returns
        -------
        values : ndarray of shape (n_query, n_samples)
            As the attributor's: positive = the row helps that query.
        """
        check_is_fitted(self, "attributors_")
        # added up one by one: (n_members, n_query, n) may not fit
        total = 0.0
        for each in self.attributors_:
            total = total + each.attribute(X_query, y_query)
        return total / len(self.attributors_)

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _prepared(self, has_validation: bool) -> TrainedScores:
        given = None if isinstance(self.members, str) else self.members
        attributor = self._cloned(given, "members")
        if self.members == "seeds":
            refuse_frozen(attributor.estimator, "members='seeds'", "members=[...]")
        elif given is None and attributor.needs.trajectory:
            raise ValueError(
                f"{type(attributor).__name__} follows a recorded training run, and members='{self.members}' are "
                "parameters without one; use members='seeds', a list of recorded nets, or Influence"
            )
        trains = given is None and not GivenModel.of(attributor.estimator).fixed
        self._refuse_cross_fitting(attributor, trains, has_validation)
        return attributor

    def _models(
        self, attributor: TrainedScores, estimator: Any, rows: GivenRows, random: RandomState, progress: Progress
    ) -> list[Any]:
        if not isinstance(self.members, str):
            return list(self.members)
        if self.members == "seeds":
            return self._trainings(attributor, estimator, rows, random, self.n_members, progress)
        n_rows = len(rows)
        self.estimator_, trajectory = self._one_training(estimator, rows, random)
        if trajectory is not None:
            return [at_checkpoint(self.estimator_, trajectory, c, n_rows) for c in range(len(trajectory))]
        seeds = random.randint(2**31 - 1, size=self.n_members)
        return [with_dropout(self.estimator_, self.dropout, int(seed), n_rows) for seed in seeds]

    def _summarise(self, X: Any, y: Any) -> None:
        self.member_scores_ = np.stack([each.scores_ for each in self.attributors_])
        self.scores_ = self.member_scores_.mean(axis=0)
        self.std_error_ = self.member_scores_.std(axis=0, ddof=1) / np.sqrt(len(self.attributors_))

    def _one_training(self, estimator: Any, rows: GivenRows, random: RandomState) -> tuple[Any, Trajectory | None]:
        """(the model, its run where members are checkpoints)."""
        from_run = self.members == "checkpoints"
        given = GivenModel.of(estimator)
        if not given.fixed:
            if from_run and not given.trained_by_steps:
                raise ValueError(_no_run(given))
            # a net with a recorder of its own keeps that one, and has as many members as it took checkpoints
            recorder = [TrajectoryRecorder(self.n_members)] if from_run and given.can_record else None
            check_trainable(given, len(rows))
            seed = int(random.randint(2**31 - 1))
            estimator = train_clone(estimator, *rows, random_state=seed, callbacks=recorder)
            given = GivenModel.of(estimator)
        trajectory = given.record
        if trajectory is not None:
            # here, since members are copies without the record, by which other rows would be noticed later
            trajectory.check_rows(*given.seen(rows))
        if not from_run:
            return estimator, None
        if trajectory is None:
            raise ValueError(_no_run(given))
        if len(trajectory) < 2:
            raise ValueError(
                "the recorded run has one checkpoint, and an ensemble needs at least two; train with "
                "TrajectoryRecorder(n_checkpoints=10)"
            )
        return estimator, trajectory


def with_dropout(estimator: Any, largest: float, seed: int, n_rows: int) -> Any:
    """A copy of a fitted estimator with each parameter at zero with one probability, drawn from (0, largest)."""
    generator = torch.Generator().manual_seed(seed)  # on the processor, whatever device the model is on
    share = largest * torch.rand((), generator=generator)
    # theta * Bernoulli(1 - p), as published: not divided by 1 - p, as dropout in training is
    kept = {
        name: value.detach().cpu() * (torch.rand(value.shape, generator=generator) >= share)
        for name, value in differentiable(estimator, n_rows).parameters.items()
    }
    return with_parameters(estimator, kept)


def at_checkpoint(estimator: Any, trajectory: Trajectory, c: int, n_rows: int) -> Any:
    """A copy of a fitted net, or a Pipeline of one, with the parameters and buffers of checkpoint c."""
    state = trajectory.state(c)
    member = with_parameters(estimator, {name: state[name] for name in differentiable(estimator, n_rows).parameters})
    with torch.no_grad():
        # running statistics of BatchNorm must be of the same time as the parameters
        for name, value in GivenModel.of(member).net.module_.named_buffers():
            if (name := name.replace("_orig_mod.", "")) in state:  # of a compiled module; not kept: not in the state
                value.copy_(state[name])
    return member


def _no_run(given: GivenModel) -> str:
    return (
        f"members='checkpoints' are those of a recorded run, and this {given.name} has none; "
        "train a skorch net with a TrajectoryRecorder among its callbacks, or use members='dropout' or 'seeds'"
    )
