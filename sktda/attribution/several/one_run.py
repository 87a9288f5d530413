"""Several methods from one training: those that weigh gradients along the run, and those that watch its rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from sktda.attribution.dynamics.aum import AUM
from sktda.attribution.dynamics.forgetting import Forgetting
from sktda.attribution.dynamics.one_moment import EL2N, GraNd, LogitMargin, Loss
from sktda.attribution.gradients.fitted import refuse_nan
from sktda.attribution.gradients.objective_gradients import resolve_objective
from sktda.attribution.gradients.rates import one_rate, rate_sums
from sktda.attribution.runs import schedule
from sktda.attribution.runs.diff_in import DiffIn, check_decay
from sktda.engine.differential import first_and_second
from sktda.engine.second_order import SecondOrder
from sktda.model.given import frozen


def trajectory_scores(
    estimator: Any,
    X: Any,
    y: Any,
    X_val: Any,
    y_val: Any,
    *,
    sample_weight: Any = None,
    objective: Any = "validation",
    metadata_val: Any = None,
    device: Any = "auto",
    batch_size: int | str = "auto",
    random_state: Any = None,
) -> dict[str, np.ndarray]:
    """Scores of five methods from one pass over the checkpoints of a recorded run, as a table's columns.

    Each is what the method's own class finds with the same checkpoints; together they cost about as much as the
    dearest of them.

    Parameters
    ----------
    estimator : estimator or None
        As for `DiffIn`; FrozenEstimator of a recorded net, to use the run that it has.
    X, y : array-like of shape (n_samples, ...) and (n_samples,)
    X_val, y_val : array-like of shape (n_val, ...) and (n_val,)
    sample_weight : array-like of shape (n_samples,), default=None
    objective : "validation", objective or callable, default="validation"
    metadata_val : dict of array-like, default=None
    device : str or torch.device, default="auto"
    batch_size : int or "auto", default="auto"
    random_state : int, RandomState instance or None, default=None
        Seeds the training. None is 0, so that a fit can be repeated.

    Returns
    -------
    scores : dict of ndarray of shape (n_samples,)
        "TracIn", "InnerProduct" and "DiffIn" for the validation rows, "TracIn-self" and "MoSo" without them.
        Higher = keep.

    Raises
    ------
    ValueError, TypeError
        As `fit` of `DiffIn`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktda.attribution import trajectory_scores
    >>> X, y = load_iris(return_X_y=True)
    >>> scores = trajectory_scores(None, X[::2], y[::2], X[1::2], y[1::2], random_state=0)
    >>> sorted(scores)
    ['DiffIn', 'InnerProduct', 'MoSo', 'TracIn', 'TracIn-self']
    """
    # without an objective `fit` trains and checks only: the pass over the checkpoints is made below
    attributor = DiffIn(estimator, objective=None, device=device, batch_size=batch_size, random_state=random_state).fit(
        X, y, sample_weight
    )
    fitted = attributor._ready()
    check_decay(fitted)
    asked = attributor._asked_about(resolve_objective(objective, True), fitted, X_val, y_val, metadata_val)
    engine, rows, trajectory = fitted.engine, fitted.rows, fitted.trajectory
    assert trajectory is not None
    weight = np.ones(len(rows)) if rows.weight is None else rows.weight.double().numpy()
    bends = SecondOrder(engine)
    # TracIn's weights, sums of rates; those of MoSo and DiffIn are rates at a checkpoint (`moment.rates`)
    rates = one_rate(rate_sums(trajectory, fitted.model.parameters))
    # all checkpoints, one for each of the sums
    chosen = schedule.moments(trajectory, fitted.model.parameters, "auto", "even", None)
    scale = trajectory.n_steps / len(chosen)
    scores = dict.fromkeys(["TracIn", "TracIn-self", "InnerProduct", "MoSo", "DiffIn"], np.zeros(len(rows)))
    for moment, rate in zip(schedule.visited(fitted, chosen), rates, strict=True):
        # q_c, at the checkpoint's own parameters
        v = asked.gradient()
        slope, product = bends.product(rows, v)
        along_v, along_mean, bent, squares = (
            first_and_second(engine, rows, bends, v, slope, product).cpu().double().numpy()
        )
        # a row's weight is in its gradient; its own loss, which self-influence asks about, has none
        unweighted = np.divide(squares, weight, out=np.zeros_like(squares), where=weight > 0)
        scores["TracIn"] = scores["TracIn"] + rate * along_v / fitted.n
        scores["TracIn-self"] = scores["TracIn-self"] - rate * unweighted / fitted.n
        scores["InnerProduct"] = sum(rates) * along_v / fitted.n  # of the last checkpoint
        scores["MoSo"] = scores["MoSo"] + scale * moment.rates.size * (along_mean - squares / fitted.n) / fitted.n
        scores["DiffIn"] = scores["DiffIn"] + scale * moment.step * moment.rates.size**2 * bent / fitted.n
    for values in scores.values():
        refuse_nan(values[None])
    return scores


def training_dynamics(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    device: Any = "auto",
    batch_size: int | str = "auto",
    random_state: Any = None,
) -> dict[str, np.ndarray]:
    """EL2N, GraNd, forgetting events, AUM, loss and margin from one training, as a table's columns.

    Each is what the method's own class finds on that run.

    Parameters
    ----------
    estimator : estimator or None
        As for `AUM`; FrozenEstimator of a recorded net, to use the run that it has.
    X, y : array-like of shape (n_samples, ...) and (n_samples,)
        Classes; for numbers use `EL2N`, `GraNd` and `Loss`.
    sample_weight : array-like of shape (n_samples,), default=None
        Of the training.
    device : str or torch.device, default="auto"
    batch_size : int or "auto", default="auto"
    random_state : int, RandomState instance or None, default=None
        Seeds the training. None is 0, so that a fit can be repeated.

    Returns
    -------
    scores : dict of ndarray of shape (n_samples,)
        "AUM", "Forgetting", "EL2N", "GraNd", "Loss" and "LogitMargin". Higher = keep.

    Raises
    ------
    ValueError, TypeError
        As `fit` of `AUM`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktda.attribution import training_dynamics
    >>> scores = training_dynamics(None, *load_iris(return_X_y=True), random_state=0)
    >>> sorted(scores)
    ['AUM', 'EL2N', 'Forgetting', 'GraNd', 'LogitMargin', 'Loss']
    """
    settings = {"device": device, "batch_size": batch_size}
    first = AUM(estimator, random_state=random_state, **settings).fit(X, y, sample_weight)
    # trained once: the others read the record that comes with it
    net = frozen(first.estimator_)
    others = [kind(net, **settings) for kind in (Forgetting, EL2N, GraNd, Loss, LogitMargin)]
    return {type(each).__name__: each.scores_ for each in [first, *(other.fit(X, y) for other in others)]}
