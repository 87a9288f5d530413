"""What is asked of an ensemble: objectives on validation rows, as derivatives by the outputs that these rows have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sktda.attribution.gradients.objective_gradients import ObjectiveScores, as_tensor, checked, row_measure
from sktda.attribution.trees.losses import Loss
from sktda.objectives import Predict, Settled, Weighted


def row_slopes(loss: Loss, measure: Callable | None, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(n, K) derivative of every row's measure, None = the loss, by its outputs (n, K)."""
    if measure is None:
        # in closed form: BoostIn asks at every step of every row
        return loss.derivatives(outputs, targets)[0]
    return _derivative(loss, outputs, lambda found: measure(found, loss.torch_targets(targets)).sum())


def _derivative(loss: Loss, outputs: np.ndarray, value: Callable[[Tensor], Tensor]) -> np.ndarray:
    found = loss.torch_outputs(outputs).clone().requires_grad_(True)
    with torch.enable_grad():
        number = checked(value(found), differentiable=True)
        (slope,) = torch.autograd.grad(number, [found])
    return slope.numpy().reshape(outputs.shape)


@dataclass(frozen=True)
class ByRows:
    """An objective that is a sum over the rows of weights (m,) times a measure of each, None = the loss."""

    measure: Callable | None
    weights: np.ndarray


Whole = Callable[[np.ndarray], np.ndarray]
"""An objective of all rows together: from their outputs (m, K) to its derivatives by them (m, K)."""


class TreesAsked:
    """One or several objectives on validation rows, settled at the outputs (m, K) of the whole ensemble.

    parts: one of ByRows or Whole per objective.
    """

    def __init__(
        self,
        objective: Any,
        loss: Loss,
        X: Any,
        targets: np.ndarray,
        outputs: np.ndarray,
        metadata: Mapping[str, Any],
        encode: Callable[[Any], Tensor] | None,
    ) -> None:
        several = isinstance(objective, Weighted)
        named = objective.named if several else Weighted([objective]).named
        self.names = list(named)
        self.shares = objective.shares if several else [1.0]
        self._loss, self._encode = loss, encode
        self._X = _features(X)
        self._y = loss.torch_targets(targets)
        self._metadata = {name: as_tensor(value, torch.device("cpu")) for name, value in metadata.items()}
        self.groups: list[tuple[str, str] | None] = []
        self.values: list[float] = []
        self.parts: list[ByRows | Whole] = []
        final = loss.torch_outputs(outputs)
        for each in named.values():
            self._add(each, final)

    def found(self, scores: np.ndarray) -> dict[str, ObjectiveScores]:
        """By name, from scores (k, n)."""
        parts = zip(self.names, self.values, scores, self.groups, strict=True)
        return {name: ObjectiveScores(value, values, groups) for name, value, values, groups in parts}

    def _predict(self, outputs: Tensor) -> Predict:
        def call(X: Any) -> Tensor:
            # by identity, as outputs are known for these rows alone: an attack brings rows of its own
            if X is not self._X:
                raise TypeError(
                    "the objective asked for outputs of inputs that are not the validation rows, and trees have no "
                    "derivative by their inputs; use an objective of the outputs, or Influence with a net"
                )
            return outputs

        return Predict(call, self._loss.likelihood, False, self._encode)

    def _add(self, objective: Any, final: Tensor) -> None:
        likelihood, groups = self._loss.likelihood, None
        if getattr(objective, "mean_of_rows", False):
            measure = row_measure(objective, likelihood)
            weights = torch.full((len(self._y),), 1 / len(self._y), dtype=torch.float64)
        elif hasattr(objective, "settled"):
            with torch.no_grad():
                settled: Settled = objective.settled(self._predict(final), self._X, self._y, **self._metadata)
            measure, weights, groups = settled.measure, settled.weights.double().cpu(), settled.groups
        else:
            with torch.no_grad():
                value = objective(self._predict(final), self._X, self._y, **self._metadata)
            self.values.append(float(checked(value, differentiable=False)))
            self.groups.append(None)
            # not settled: derivatives are taken anew at the outputs before every step, of all rows at a time
            self.parts.append(partial(self._slopes, objective))
            return
        with torch.no_grad():
            self.values.append(float((weights * (measure or likelihood.losses)(final, self._y)).sum()))
        self.groups.append(groups)
        self.parts.append(ByRows(measure, weights.numpy()))

    def _slopes(self, objective: Any, outputs: np.ndarray) -> np.ndarray:
        return _derivative(
            self._loss, outputs, lambda found: objective(self._predict(found), self._X, self._y, **self._metadata)
        )


def _features(X: Any) -> Any:
    """The validation rows as a tensor where they are numbers; else as they are."""
    try:
        return torch.from_numpy(np.array(X, dtype=np.float64))
    except (TypeError, ValueError):
        return X
