"""From a fitted estimator to a model that can be differentiated: one door for every kind of estimator.

Each kind has a module with three names: `TYPES`; `check(estimator)`, which raises if its settings cannot be
differentiated; `rebuild(estimator, n_rows)`, which returns the torch model.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from types import ModuleType
from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sktda.model import linear, perceptron, proxy, skorch_net
from sktda.model.base import DifferentiableModel, Rows

KINDS: tuple[ModuleType, ...] = (linear, perceptron, skorch_net, proxy)


def peel(estimator: Any) -> tuple[list[Pipeline], Any]:
    """(transformers before the model as pipelines, the model), through Pipelines and FrozenEstimators."""
    before: list[Pipeline] = []
    while isinstance(estimator, FrozenEstimator | Pipeline):
        if isinstance(estimator, Pipeline):
            if len(estimator.steps) > 1:
                before.append(estimator[:-1])
            estimator = estimator.steps[-1][1]
        else:
            estimator = estimator.estimator
    return before, estimator


def can_differentiate(estimator: Any) -> bool:
    """Whether `differentiable` takes this estimator once it is fitted, from its type and settings alone."""
    _, model = peel(estimator)
    try:
        _kind(model).check(model)
    except (TypeError, ValueError):
        return False
    return True


def differentiable(estimator: Any, n_rows: int | None = None) -> DifferentiableModel:
    """The torch copy of a fitted estimator, with its loss and its penalty.

    n_rows: number of training rows, which turns the penalty of most scikit-learn models into that of the mean loss.
    Nothing is shared with the estimator, which is not changed. The rows of a Pipeline go through its transformers
    once, when `rows` is called. scikit-learn models are rebuilt in float64; nets keep their dtype and device.
    Raises TypeError for an estimator that cannot be differentiated, ValueError for settings that cannot (an L1
    penalty, say), NotFittedError if it is not fitted.
    """
    before, model = peel(estimator)
    kind = _kind(model)
    kind.check(model)
    check_is_fitted(model)
    result: DifferentiableModel = kind.rebuild(model, n_rows)
    if not before:
        return result
    transformers, rows_of_model = deepcopy(before), result.rows

    def rows(X: Any, y: Any = None, sample_weight: Any = None) -> Rows:
        return rows_of_model(_transform(transformers, X), y, sample_weight)

    return replace(result, rows=rows)


def trained_net(estimator: Any, X: Any = None, y: Any = None, sample_weight: Any = None) -> tuple[Any, Any, Any]:
    """(the skorch net inside, or None where there is none; X and y as that net's `fit` receives them).

    The net carries callbacks such as a recorder, whose fingerprints are of the rows that the net saw.
    """
    before, model = peel(estimator)
    X = X if X is None else _transform(before, X)
    if isinstance(model, proxy.TYPES):
        return model.net_, None if X is None else model.dataset(X, y, sample_weight), None
    return (model, X, y) if isinstance(model, skorch_net.TYPES) else (None, X, y)


def _transform(before: list[Pipeline], X: Any) -> Any:
    for step in before:
        X = step.transform(X)
    return X


def _kind(model: Any) -> ModuleType:
    for kind in KINDS:
        if isinstance(model, kind.TYPES):
            return kind
    allowed = ", ".join(each.__name__ for kind in (linear, perceptron) for each in kind.TYPES)
    raise TypeError(
        f"{type(model).__name__} cannot be differentiated; allowed are skorch nets, {allowed}, and a Pipeline or "
        "FrozenEstimator of one. Use one of these to score the rows (a cheaper model than the final one is normal)"
    )
