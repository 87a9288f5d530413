"""The losses that boosted trees are read for: their derivatives by the raw outputs, as Newton steps use them.

Outputs are (..., K) raw outputs (K = 1 but for the softmax); targets (...) are numbers, or class codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit, softmax
from torch import Tensor

from sktda.model.likelihood import Binary, Gaussian, Likelihood
from sktda.model.softmax import Categorical


class Loss(ABC):
    """A loss of rows with one raw output, or one per class."""

    n_outputs: int = 1
    classes: bool = False
    """Whether targets are codes of classes, each with an output of its own; else numbers, of one output."""
    coupled: bool = False
    """Whether a Newton step solves for all outputs at once."""
    likelihood: Likelihood
    """The same loss in torch, as objectives see it."""

    @abstractmethod
    def derivatives(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(gradient, curvature) (..., K): by each output, the curvature as the library's Newton step takes it."""

    @abstractmethod
    def pushed(self, outputs: np.ndarray, targets: np.ndarray, along: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """(..., K) how gradient + curvature times theta changes when the outputs move along a vector (..., K)."""

    def rounding(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray | float:
        """(..., K) what a gradient in single precision is rounded relative to."""
        return 1.0

    def torch_outputs(self, outputs: np.ndarray) -> Tensor:
        """Outputs (n, K) as `likelihood` takes them."""
        # one output as (n,): (n, 1) less targets (n,) would be n x n errors
        return torch.from_numpy(np.ascontiguousarray(outputs if self.classes else outputs[:, 0]))

    def torch_targets(self, targets: np.ndarray) -> Tensor:
        """Targets (n,) as `likelihood` takes them."""
        return torch.from_numpy(np.asarray(targets, dtype=np.int64 if self.classes else np.float64))


class SquaredError(Loss):
    """Half the squared error."""

    # libraries' gradient is f - y, that of half the square
    likelihood = Gaussian(scale=0.5)

    def derivatives(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Output minus target, and 1."""
        return outputs - targets[..., None], np.ones_like(outputs)

    def pushed(self, outputs: np.ndarray, targets: np.ndarray, along: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """The gradient changes by as much as the output, the curvature does not."""
        return along

    def rounding(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The size of output and target."""
        return np.abs(outputs) + np.abs(targets[..., None])


class Logistic(Loss):
    """Cross-entropy of one log-odds per row, targets 0 and 1."""

    likelihood = Binary()

    def derivatives(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probability minus target, and p (1 - p)."""
        p = expit(outputs)
        return p - targets[..., None], p * (1 - p)

    def pushed(self, outputs: np.ndarray, targets: np.ndarray, along: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """The gradient by p (1 - p), the curvature by p (1 - p) (1 - 2 p)."""
        p = expit(outputs)
        # along times d(g + h theta)/df: g' = p (1 - p), h' = p (1 - p) (1 - 2 p)
        return p * (1 - p) * along * (1 + (1 - 2 * p) * theta)


@dataclass(frozen=True)
class OfClasses(Loss):
    """Cross-entropy of one logit per class; derivatives take `factor` p (1 - p) for the curvature of each."""

    n_outputs: int
    factor: float = 1.0
    classes = True
    likelihood = Categorical()

    def derivatives(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities minus the class, and factor p (1 - p)."""
        p = softmax(outputs, axis=-1)
        # the factor is of the curvature alone: a Newton step times (K - 1) / K is one of K / (K - 1) its curvature
        return p - (targets[..., None] == np.arange(self.n_outputs)), self.factor * p * (1 - p)


class Softmax(OfClasses):
    """Newton steps take the curvature of each class by itself."""

    def pushed(self, outputs: np.ndarray, targets: np.ndarray, along: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Every probability changes with every output."""
        p = softmax(outputs, axis=-1)
        # dp = (diag(p) - p p') along; each class by itself: dg = dp, d(factor p (1 - p)) = factor (1 - 2 p) dp
        return curved(p, along) * (1 + self.factor * (1 - 2 * p) * theta)


class CoupledSoftmax(OfClasses):
    """Newton steps take the whole curvature, diag(p) - p p'."""

    coupled = True

    def pushed(self, outputs: np.ndarray, targets: np.ndarray, along: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """As of each class, and of all pairs of them."""
        p = softmax(outputs, axis=-1)
        change = curved(p, along)
        # d((diag(p) - p p') theta) = dp theta - dp (p' theta) - p (dp' theta), beside dg = dp
        both = (p * theta).sum(axis=-1, keepdims=True), (change * theta).sum(axis=-1, keepdims=True)
        return change * (1 + theta - both[0]) - p * both[1]


def curved(p: np.ndarray, along: np.ndarray) -> np.ndarray:
    """(diag(p) - p p') times a vector: the whole curvature of a softmax at probabilities p."""
    return p * (along - (p * along).sum(axis=-1, keepdims=True))
