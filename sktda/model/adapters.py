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
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sktda.model import skorch_net
from sktda.model.base import DifferentiableModel, Rows
from sktda.model.given import GivenModel, through


def can_differentiate(estimator: Any) -> bool:
    """Whether `differentiable` takes this estimator once it is fitted, from its type and settings alone."""
    given = GivenModel.of(estimator)
    try:
        given.kind.check(given.model)
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
    given = GivenModel.of(estimator)
    result: DifferentiableModel = _checked(given).rebuild(given.model, n_rows)
    if not given.transformers:
        return result
    transformers, rows_of_model = deepcopy(given.transformers), result.rows

    def rows(X: Any, y: Any = None, sample_weight: Any = None) -> Rows:
        return rows_of_model(through(transformers, X), y, sample_weight)

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
    given = GivenModel.of(estimator)
    own = _trainable(_checked(given).module_of(given.model))
    _check_parameters(given.name, parameters, {name: value.shape for name, value in own.items()})
    with torch.no_grad():
        for name, value in parameters.items():
            own[name].copy_(value)
    copy = _copy(given)
    given.kind.write(GivenModel.of(copy).model, {name: value.detach() for name, value in own.items()})
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


def _copy(given: GivenModel) -> Any:
    memo: dict[int, Any] = {}
    if given.net is not None:
        skorch_net.duplicate(given.net, memo)
    return deepcopy(given.estimator, memo)


def _checked(given: GivenModel) -> ModuleType:
    kind = given.kind
    kind.check(given.model)
    check_is_fitted(given.model)
    return kind
