"""What attribution asks about: a number that a model has on some rows, lower = better, as an object.

An objective is called as `objective(predict, X, y, **metadata)` and returns a 0-d tensor. `predict(X)` gives raw
outputs, differentiable in the parameters; X and y are tensors as the model takes them. `per_row`, where there is one,
gives the numbers (n,) that `attribute` explains for single queries; without it these are the losses. Objectives that
are the mean of `per_row` set `mean_of_rows`, so that their gradient streams over any number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


class Predict:
    """The model as an objective sees it: a callable from inputs to raw outputs, with the model's likelihood."""

    def __init__(self, call: Callable[[Any], Tensor], likelihood: Any) -> None:
        self._call = call
        self.likelihood = likelihood

    def __call__(self, X: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Raw outputs (n, ...)."""
        return self._call(X)


@dataclass(frozen=True)
class ValidationLoss:
    """The model's own loss, averaged over the rows, in loss units (without the penalty).

    Examples
    --------
    >>> from sktda.objectives import ValidationLoss
    >>> ValidationLoss()
    ValidationLoss()
    """

    mean_of_rows: ClassVar[bool] = True

    def __call__(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """Mean loss."""
        return self.per_row(predict, X, y).mean()

    def per_row(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """Losses (n,)."""
        return predict.likelihood.losses(predict(X), y)


@dataclass(frozen=True)
class Margin:
    """Minus the margin log p - log(1 - p) of the right class, averaged; for numbers, the absolute error.

    Examples
    --------
    >>> from sktda.objectives import Margin
    >>> Margin()
    Margin()
    """

    mean_of_rows: ClassVar[bool] = True

    def __call__(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """Mean of `per_row`."""
        return self.per_row(predict, X, y).mean()

    def per_row(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """Minus the margins (n,)."""
        return -predict.likelihood.margins(predict(X), y)
