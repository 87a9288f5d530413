"""Several objectives at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sktda.objectives.base import Predict


@dataclass(frozen=True)
class Weighted:
    """Weighted sum of objectives; an attributor also shows the scores for each of them.

    Their gradients are met with those of the training rows in one pass. A weight of 0 only shows an objective.

    Parameters
    ----------
    objectives : sequence or mapping
        Objectives or callables; a mapping names them, otherwise the names of their types do.
    weights : sequence of float or None, default=None
        One per objective; None = 1 for each.

    Raises
    ------
    ValueError
        For none, or another number of weights.

    Examples
    --------
    >>> from sktda.objectives import DemographicParity, ValidationLoss, Weighted
    >>> list(Weighted([ValidationLoss(), DemographicParity()], [1, 0.5]).named)
    ['ValidationLoss', 'DemographicParity']
    """

    objectives: Sequence[Any] | Mapping[str, Any]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        found = list(self.named.values())
        # a sum inside of a sum would have no score of its own, and a class is callable but no objective
        wrong = [each for each in found if isinstance(each, type | Weighted) or not callable(each)]
        if not found or wrong:
            raise ValueError(f"Weighted takes objectives or callables, and got {wrong[0] if wrong else 'none'!r}")
        if self.weights is not None and len(self.weights) != len(found):
            raise ValueError(f"{len(self.weights)} weights came for {len(found)} objectives")

    @property
    def named(self) -> dict[str, Any]:
        """The objectives by name."""
        if isinstance(self.objectives, Mapping):
            return dict(self.objectives)
        result: dict[str, Any] = {}
        for each in self.objectives:
            name = getattr(each, "__name__", type(each).__name__)
            number = sum(known.split(" ")[0] == name for known in result)
            result[f"{name} {number + 1}" if number else name] = each
        return result

    @property
    def shares(self) -> list[float]:
        """The weights, one per objective."""
        return [1.0] * len(self.named) if self.weights is None else [float(each) for each in self.weights]

    def __call__(self, predict: Predict, X: Any, y: Tensor, **metadata: Any) -> Tensor:
        """The weighted sum (0-d)."""
        parts = zip(self.shares, self.named.values(), strict=True)
        return torch.stack([share * each(predict, X, y, **metadata) for share, each in parts]).sum()


def needed(objective: Any) -> set[str]:
    """Names of the metadata that an objective must be given."""
    if isinstance(objective, Weighted):
        return set().union(*(needed(each) for each in objective.named.values()))
    return set(getattr(objective, "needs", ()))
