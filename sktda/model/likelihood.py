"""Per-row losses, and what curvature needs to know about them: labels drawn from the model, output Fisher.

A likelihood maps raw module outputs (n, ...) and targets (n, ...) to losses (n,). `draw` turns noise, fixed per row
so that batches do not matter, into targets that the model itself would produce; `roots` are vectors r_k of each
row's output with sum_k r_k r_k' = the Hessian of its loss with respect to its outputs (for these losses also the
Fisher information), and `slopes` are random vectors with that covariance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


class Likelihood(ABC):
    """A per-row loss with its noise model."""

    def to(self, device: torch.device) -> Likelihood:
        """The same for outputs on a device, which most losses follow by themselves."""
        return self

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss (n,) of every row."""

    @abstractmethod
    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Random numbers for `draw`, for outputs of this shape (n, ...), on the processor."""

    @abstractmethod
    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Targets drawn from the model, shaped as `losses` takes them."""

    @abstractmethod
    def roots(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(n, k, *outputs.shape[1:]) vectors whose outer products sum to each row's output curvature.

        Targets matter only where they choose the weight of a row (class weights), or for a custom criterion.
        """

    @abstractmethod
    def slopes(self, outputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Random vectors of the outputs' shape, with mean 0 and the output curvature as covariance.

        They are the gradients of the losses under labels drawn from the model, times the root of the row's weight.
        """

    @abstractmethod
    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:
        """The Hessian of each row's loss with respect to its outputs times vectors (..., *outputs.shape)."""

    def size(self, targets: Tensor) -> float:
        """By what a criterion that takes the mean of a batch divides the sum of these losses of its rows."""
        return float(len(targets))

    @property
    def unsettled(self) -> bool:
        """Whether the training targets decide what the criterion divides by."""
        return False

    def settled(self, parts: Sequence[Tensor]) -> Likelihood:
        """The likelihood whose mean over these training targets, in parts, is what the criterion is to a batch."""
        return self

    @abstractmethod
    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """log p - log(1 - p) of the right class (n,); minus the absolute error for numbers. Higher = better."""


class Rooted(Likelihood):
    """A loss whose few roots are what its curvature is multiplied with."""

    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:
        """The roots, there and back."""
        return by_roots(self.roots(outputs, targets), along)


def by_roots(roots: Tensor, along: Tensor) -> Tensor:
    """The sum of the outer products of roots (n, k, ...) times vectors (..., n, ...)."""
    flat = along.reshape(*along.shape[: along.ndim - roots.ndim + 1], len(roots), -1)
    roots = roots.reshape(*roots.shape[:2], -1)
    # sum_k r_k (r_k . v): the matrix of outputs x outputs is not formed
    pushed = torch.einsum("nko,...no->...nk", roots, flat)
    return torch.einsum("nko,...nk->...no", roots, pushed).reshape(along.shape)


@dataclass(frozen=True)
class Binary(Rooted):
    """Cross-entropy of one logit per row, (n,) or (n, 1), or of several, (n, k); targets 0/1 of the same shape.

    pos_weight, a number or one per output (k,), multiplies the loss of the positive targets, as in torch. The losses
    of a row's outputs are added, or averaged if `average`.
    """

    pos_weight: float | Tensor = 1.0
    probabilities: bool = False
    average: bool = False

    def _pos_weight(self, outputs: Tensor) -> Tensor:
        return torch.as_tensor(self.pos_weight, dtype=outputs.dtype, device=outputs.device)

    def _share(self, outputs: Tensor) -> float:
        # a mean criterion divides by rows times outputs: the mean over rows of the mean over outputs
        return 1 / outputs[0].numel() if self.average and len(outputs) else 1.0

    def logits(self, outputs: Tensor) -> Tensor:
        """Logarithms of p / (1 - p), shaped as the outputs."""
        if not self.probabilities:
            return outputs
        # a module may put out exactly 0 or 1, whose log-odds are infinite
        p = outputs.clamp(torch.finfo(outputs.dtype).eps, 1 - torch.finfo(outputs.dtype).eps)
        return p.log() - (-p).log1p()

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Negative log-probability of the target, summed or averaged over the outputs of a row."""
        losses = F.binary_cross_entropy_with_logits(
            self.logits(outputs), targets.to(outputs.dtype), pos_weight=self._pos_weight(outputs), reduction="none"
        )
        return self._share(outputs) * losses.flatten(1).sum(1) if losses.ndim > 1 else losses

    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Uniform numbers of the outputs' shape."""
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Zeros and ones of the outputs' shape."""
        return (noise < self.logits(outputs).double().sigmoid()).to(outputs.dtype)

    def roots(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(n, k, ...): for each output sqrt(p (1 - p)) times the root of its weight."""
        p = self.logits(outputs).sigmoid()
        # by the logit, p (1 - p) is the curvature under either label: only its weight asks which it is
        roots = (p * (1 - p)).sqrt() * self._scale(outputs, targets, p)
        if roots.ndim == 1:
            return roots[:, None]
        # no output of a row enters the loss of another, so each has a root for itself
        return torch.diag_embed(roots.flatten(1)).reshape(len(p), -1, *outputs.shape[1:])

    def slopes(self, outputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Gradients of the loss under drawn labels, times the root of the weight of the given ones."""
        p = self.logits(outputs).sigmoid()
        return (p - self.draw(outputs, noise)) * self._scale(outputs, targets, p)

    def _scale(self, outputs: Tensor, targets: Tensor, p: Tensor) -> Tensor:
        # pos_weight at t = 1, 1 at t = 0, in proportion between
        weight = 1 + (self._pos_weight(outputs) - 1) * targets.to(outputs.dtype)
        # by p and not by the logit: dz/dp = 1 / (p (1 - p)), and the Fisher information is 1 / (p (1 - p))
        inner = 1 / (p * (1 - p)) if self.probabilities else torch.ones_like(p)
        return (weight * self._share(outputs)).sqrt() * inner

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The logit, negated where the target is 0, summed over the outputs of a row."""
        signed = self.logits(outputs) * (2 * targets.to(outputs.dtype) - 1)
        return signed.flatten(1).sum(1) if signed.ndim > 1 else signed


@dataclass(frozen=True)
class Gaussian(Rooted):
    """scale * squared error, summed or averaged over the outputs of a row; targets have the outputs' shape.

    scale=1: (y - t)^2, targets drawn with variance 1/2; scale=1/2: half of it, variance 1.
    average: the mean over the outputs of a row, as torch's MSELoss takes it, in place of the sum.
    """

    scale: float = 1.0
    average: bool = False

    def _scale(self, outputs: Tensor) -> float:
        return self.scale / outputs[0].numel() if self.average and len(outputs) else self.scale

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Squared error of a row."""
        squares = self._scale(outputs) * (outputs - targets).square()
        return squares.flatten(1).sum(1) if squares.ndim > 1 else squares

    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Random signs of the outputs' shape: of the variance of normal numbers, and their squares do not vary."""
        return torch.randn(shape, generator=generator, dtype=torch.float64).sign()

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Output plus or minus the standard deviation of the model's targets; their variance is 1 / (2 scale)."""
        # exp(-scale e^2) is a normal density of variance 1 / (2 scale)
        return outputs + noise.to(outputs) * (0.5 / self._scale(outputs)) ** 0.5

    def slopes(self, outputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Vectors of random signs, of variance 2 scale."""
        # the slope 2 scale e at errors of +- (2 scale)^(-1/2)
        return noise.to(outputs) * (2 * self._scale(outputs)) ** 0.5

    def roots(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(n, k, ...): sqrt(2 scale) times each unit vector."""
        width = outputs[0].numel()
        eye = torch.eye(width, dtype=outputs.dtype, device=outputs.device) * (2 * self._scale(outputs)) ** 0.5
        # expanded, not repeated: all rows have the same curvature, 2 scale I
        return eye.reshape(1, width, *outputs.shape[1:]).expand(len(outputs), width, *outputs.shape[1:])

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Minus the absolute error."""
        errors = -(outputs - targets).abs()
        return errors.flatten(1).sum(1) if errors.ndim > 1 else errors
