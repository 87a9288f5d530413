"""From a fitted estimator to a model that can be differentiated, and back: one door for every kind of estimator.

Each kind has a module with five names: `TYPES`; `check(estimator)`, which raises if its settings cannot be
differentiated; `module_of(estimator)`, a torch module with its parameters; `rebuild(estimator, n_rows)`, the torch
model; `write(estimator, parameters)`, which puts all trainable parameters, by their names in that module, into the
estimator.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sktda.data import transformed
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
    kind = _fitted_kind(model)
    result: DifferentiableModel = kind.rebuild(model, n_rows)
    if not before:
        return result
    transformers, rows_of_model = deepcopy(before), result.rows

    def rows(X: Any, y: Any = None, sample_weight: Any = None) -> Rows:
        return rows_of_model(_transform(transformers, X), y, sample_weight)

    return replace(result, rows=rows)


def with_parameters(estimator: Any, parameters: Mapping[str, Tensor]) -> Any:
    """A copy of a fitted estimator whose model has these trainable parameters.

    The inverse of `differentiable`: parameters are named as in the `parameters` of its model, on any device; those
    that are missing stay. Each is cast to the dtype that the estimator keeps it in (float32 for some). Whatever else
    the estimator holds is copied as it is: transformers, buffers such as those of BatchNorm, the optimiser's state.
    The record of a training is left out. Nothing is shared with the estimator.
    Raises TypeError, ValueError and NotFittedError as `differentiable` does; ValueError for unknown names and wrong
    shapes.
    """
    _, model = peel(estimator)
    own = _trainable(_fitted_kind(model).module_of(model))
    _check_parameters(type(model).__name__, parameters, {name: value.shape for name, value in own.items()})
    with torch.no_grad():
        for name, value in parameters.items():
            own[name].copy_(value)
    copy = _copy(estimator)
    _, model = peel(copy)
    _kind(model).write(model, {name: value.detach() for name, value in own.items()})
    return copy


def _trainable(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def _check_parameters(model: str, given: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    unknown = [name for name in given if name not in shapes]
    if unknown:
        raise ValueError(
            f"{model} has no trainable parameter {', '.join(map(repr, unknown))}; allowed are {', '.join(shapes)}"
        )
    wrong = [
        f"'{name}' is {tuple(value.shape)} and must be {tuple(shapes[name])}"
        for name, value in given.items()
        if value.shape != shapes[name]
    ]
    if wrong:
        raise ValueError(
            f"parameters of another shape than those of the {model}: {'; '.join(wrong)}. Pass tensors shaped as in "
            "differentiable(estimator).parameters"
        )


def _copy(estimator: Any) -> Any:
    memo: dict[int, Any] = {}
    net, _, _ = trained_net(estimator)
    if net is not None:
        skorch_net.duplicate(net, memo)
    return deepcopy(estimator, memo)


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
        X = transformed(step, X)
    return X


def _fitted_kind(model: Any) -> ModuleType:
    kind = _kind(model)
    kind.check(model)
    check_is_fitted(model)
    return kind


def _kind(model: Any) -> ModuleType:
    for kind in KINDS:
        if isinstance(model, kind.TYPES):
            return kind
    allowed = ", ".join(each.__name__ for kind in (linear, perceptron) for each in kind.TYPES)
    raise TypeError(
        f"{type(model).__name__} cannot be differentiated; allowed are skorch nets, {allowed}, and a Pipeline or "
        "FrozenEstimator of one. Use one of these to score the rows (a cheaper model than the final one is normal)"
    )
