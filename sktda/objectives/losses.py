"""Objectives that are losses, margins or outputs of rows, or of the rows of a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from sktda.model.logits import IGNORED
from sktda.model.softmax import Categorical, Tokens
from sktda.objectives.base import Predict, Settled, SettledObjective
from sktda.objectives.groups import of_class, shared


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
        # minus, as every objective is lower = better
        return -predict.likelihood.margins(predict(X), y)


@dataclass(frozen=True)
class Output:
    """What the model puts out, averaged: a number, or the raw output (logit) of one class.

    Neither good nor bad: for asking how rows move predictions, or their variance over runs (`Distributional`).

    Parameters
    ----------
    column : int or None, default=None
        Position of the output, where there are several; None = that of the row's own class, or the mean of all.

    Examples
    --------
    >>> from sktda.objectives import Output
    >>> Output(column=2)
    Output(column=2)
    """

    column: int | None = None
    mean_of_rows: ClassVar[bool] = True

    def __call__(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """Mean of `per_row`."""
        return self.per_row(predict, X, y).mean()

    def per_row(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """Outputs (n,)."""
        outputs = predict(X).reshape(len(y), -1)
        if self.column is not None:
            if not 0 <= self.column < outputs.shape[1]:
                raise ValueError(f"column={self.column} is not one of the {outputs.shape[1]} outputs of the model")
            return outputs[:, self.column]
        if isinstance(predict.likelihood, Categorical | Tokens) and y.ndim == 1:
            # a label that does not count is no class: 0, as in the loss
            counts = y != getattr(predict.likelihood, "ignore_index", IGNORED)
            return outputs.gather(1, y.where(counts, 0)[:, None])[:, 0] * counts
        return outputs.mean(dim=1)


@dataclass(frozen=True)
class ClassLoss(SettledObjective):
    """The model's loss, averaged over the validation rows of one class, in loss units.

    Parameters
    ----------
    label : label
        The class, as y names it (for skorch nets its code).

    Raises
    ------
    ValueError
        For a label that the model does not know or no validation row has.

    Examples
    --------
    >>> from sktda.objectives import ClassLoss
    >>> ClassLoss("spam")
    ClassLoss(label='spam')
    """

    label: Any

    def settled(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Settled:
        """The same weight for all rows of the class."""
        mask = of_class(self, predict, y, self.label)
        if not mask.any():
            raise ValueError(f"{self} has no validation row of that class; give some, or another label")
        return Settled(shared(mask))
