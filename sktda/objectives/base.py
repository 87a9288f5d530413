"""The model as an objective sees it, and a sum over rows that equals an objective at one model."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class Predict:
    """The model as an objective sees it: a callable from inputs to raw outputs, with the model's likelihood.

    linear: whether the outputs are linear in the inputs. encode: the user's labels (k,) as targets of the model.
    """

    def __init__(
        self,
        call: Callable[[Any], Tensor],
        likelihood: Any,
        linear: bool = False,
        encode: Callable[[Any], Tensor] | None = None,
    ) -> None:
        self._call = call
        self.likelihood = likelihood
        self.linear = linear
        self._encode = encode

    def __call__(self, X: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Raw outputs (n, ...)."""
        return self._call(X)

    def encode(self, label: Any) -> int:
        """Code of one of the user's labels; ValueError for one that the model does not know."""
        return int(label) if self._encode is None else int(self._encode([label]).reshape(-1)[0])


Measure = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Settled:
    """The sum over rows of weights (n,) times measure(outputs, targets) (n,), equal to an objective at one model.

    X: the rows, where others than the objective was given; None = those. measure: None = the model's loss. groups:
    of a gap, the one with the larger mean and the one with the smaller.
    """

    weights: Tensor
    measure: Measure | None = None
    X: Tensor | None = None
    groups: tuple[str, str] | None = None

    def value(self, predict: Predict, X: Any, y: Tensor) -> Tensor:
        """The sum (0-d), differentiable."""
        # weights may be on the processor and in float64, beside outputs in float32 on a card
        outputs = predict(X if self.X is None else self.X)
        return (self.weights.to(outputs) * (self.measure or predict.likelihood.losses)(outputs, y)).sum()


class SettledObjective(metaclass=ABCMeta):
    """Calls an objective that has `settled`."""

    @abstractmethod
    def settled(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Settled:
        """The objective as a weighted sum over rows, at the model that `predict` is of."""

    def __call__(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """The objective's value (0-d)."""
        # what the trained model decides (a sign, groups, an attack) is a constant of the derivative
        with torch.no_grad():
            found = self.settled(predict, X, y, **metadata)
        return found.value(predict, X, y)
