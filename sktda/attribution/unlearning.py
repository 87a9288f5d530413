"""A trained model as it would be without some of its rows: predicted, and compared with a training without them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sktda.attribution.gradients.deletion import Deletion, removed_positions
from sktda.attribution.gradients.influence import Influence
from sktda.attribution.gradients.rates import one_rate, rate_sums
from sktda.attribution.runs.sgd_influence import LINEARISED, SGDInfluence
from sktda.engine.per_row import PerRow
from sktda.engine.replay import Replay
from sktda.model.adapters import differentiable, with_parameters
from sktda.model.base import flatten
from sktda.model.fitting import train_clone
from sktda.model.given import GivenModel, GivenRows, frozen
from sktda.model.reading import count


@dataclass(frozen=True)
class Unlearned:
    """What `unlearn` returns.

    Parameters
    ----------
    estimator : estimator
        A copy of the fitted estimator with the predicted parameters.
    retrained : estimator or None
        The one that was really trained without the rows, where that was asked for.
    distances : dict of float or None
        Relative distances to the retrained one: "parameters_before", "parameters_after", "predictions_before" and
        "predictions_after"; ``|a - b| / |b|`` over all parameters, and over the raw outputs for all given rows.
    """

    estimator: Any
    retrained: Any = None
    distances: dict[str, float] | None = None


def unlearn(
    estimator: Any,
    rows: Any,
    X: Any = None,
    y: Any = None,
    *,
    sample_weight: Any = None,
    attributor: Any = None,
    retrain: bool = False,
    random_state: Any = None,
) -> Unlearned:
    """A copy of a fitted model with the parameters that it would have without some of its training rows, predicted.

    It is an estimate, not a guarantee of privacy: what the rows have taught the model is reduced, not proven to be
    gone. Where that must be certain, train again.

    Parameters
    ----------
    estimator : estimator or attributor
        A fitted model, with the X and y that it was trained on; or a fitted attributor that has `deletion_update`
        (Influence, DiffIn, SGDInfluence), which knows them.
    rows : array-like of shape (n_removed,) or (n_samples,)
        Positions in X, or a boolean mask.
    X : array-like of shape (n_samples, ...), default=None
    y : array-like of shape (n_samples,), default=None
    sample_weight : array-like of shape (n_samples,), default=None
        As the model was trained with.
    attributor : attributor, default=None
        Predicts the change; its `estimator` is replaced. None = SGDInfluence for a net whose steps of SGD or Adam were
        recorded (TrajectoryRecorder(steps=True)), else Influence.
    retrain : bool, default=False
        Also train without the rows, and compare: a net whose steps were recorded (TrajectoryRecorder(steps=True)) from
        the same start in the same batches, without the rows; another estimator as a clone on the other rows.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of that clone. None is 0, so that a fit can be repeated.

    Returns
    -------
    result : Unlearned

    Raises
    ------
    ValueError
        For a model without X and y, positions that do not exist, and what `fit` of the attributor refuses.
    TypeError
        For an attributor without `deletion_update`.

    Warns
    -----
    UserWarning
        Without an attributor, for a net that has no record: how far its training went is not known, and Influence,
        which takes it to be at its optimum, may predict too much.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktda.attribution import unlearn
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LogisticRegression(max_iter=1000, tol=1e-8).fit(X, y)
    >>> result = unlearn(model, [0, 70], X, y, retrain=True)
    >>> result.distances["parameters_after"] < 0.5 * result.distances["parameters_before"]
    True
    """
    if isinstance(estimator, Deletion):
        check_is_fitted(estimator, "estimator_")
        fitted_attributor: Any = estimator
        X, y, sample_weight = estimator._data  # type: ignore[attr-defined]
        estimator = fitted_attributor.estimator_
    else:
        if X is None or y is None:
            raise ValueError("unlearn needs the X and y that the model was trained on, or a fitted attributor")
        if attributor is None:
            attributor = _default_attributor(estimator)
        if not isinstance(attributor, Deletion):
            raise TypeError(
                f"{type(attributor).__name__} predicts no parameters; use Influence, DiffIn or SGDInfluence"
            )
        # the change of parameters needs no scores
        fitted_attributor = clone(attributor).set_params(estimator=frozen(estimator), objective=None)
        fitted_attributor.fit(X, y, sample_weight)
    removed = removed_positions(rows, count(X))
    if GivenModel.of(estimator).fixed:
        estimator = estimator.estimator
    corrected = with_parameters(estimator, fitted_attributor.deletion_update(removed))
    if not retrain:
        return Unlearned(corrected)
    retrained = _retrained(estimator, removed, X, y, sample_weight, random_state)
    return Unlearned(corrected, retrained, _distances(estimator, corrected, retrained, X))


def _default_attributor(estimator: Any) -> Any:
    trajectory = GivenModel.of(estimator).record
    if trajectory is not None and trajectory.optimizer in LINEARISED and trajectory.step_index is not None:
        return SGDInfluence()
    if not differentiable(estimator, 1).linear:
        warnings.warn(
            "no steps of SGD or Adam were recorded for this net, so it is taken to be near its optimum, and the "
            "prediction may be further away than the model as it is; train it with a TrajectoryRecorder(steps=True), "
            "or compare with retrain=True",
            UserWarning,
            stacklevel=3,
        )
    if trajectory is None or trajectory.optimizer != "SGD":
        return Influence()
    total = sum(one_rate(rate_sums(trajectory, trajectory.parameter_groups)))
    return Influence(damping=1 / total)  # as its deletion_update, also where H is singular


def _retrained(estimator: Any, removed: np.ndarray, X: Any, y: Any, sample_weight: Any, random_state: Any) -> Any:
    given, rows = GivenModel.of(estimator), GivenRows(X, y, sample_weight)
    trajectory = given.record
    if trajectory is None or trajectory.step_index is None:
        kept = rows.take(np.setdiff1d(np.arange(len(rows)), removed))
        return train_clone(estimator, *kept, random_state=random_state)
    model = differentiable(given, len(rows))
    replay = Replay.of(PerRow(model), model.training_rows(*rows), trajectory, given.net, *given.seen(rows))
    gone = np.zeros(len(rows), dtype=bool)
    gone[replay.copies[removed]] = True  # of a row given twice, the one that is in the batches
    for _ in replay.forwards(gone):
        pass
    return with_parameters(estimator, {name: value.detach() for name, value in model.parameters.items()})


def _distances(before: Any, after: Any, retrained: Any, X: Any) -> dict[str, float]:
    def seen(estimator: Any) -> tuple[Tensor, Tensor]:
        model = differentiable(estimator, count(X))
        rows, engine = model.rows(X), PerRow(model)
        engine.prepare(rows)
        found = engine.computed(rows, lambda part: engine.outputs(rows.block(part, model.device)[0]).cpu())
        outputs = [each for _, each in found]
        return flatten({name: value.detach().cpu() for name, value in model.parameters.items()}), torch.cat(outputs)

    true = seen(retrained)
    found = {}
    for when, estimator in (("before", before), ("after", after)):
        for what, value, truth in zip(("parameters", "predictions"), seen(estimator), true, strict=True):
            found[f"{what}_{when}"] = float((value - truth).norm() / truth.norm())
    return found
