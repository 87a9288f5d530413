"""Per-row losses, and what curvature needs to know about them: labels drawn from the model, output Fisher.

A likelihood maps raw module outputs (n, ...) and targets (n, ...) to losses (n,). `draw` turns noise, fixed per row
so that batches do not matter, into targets that the model itself would produce; `roots` are vectors r_k of each
row's output with sum_k r_k r_k' = the Hessian of its loss with respect to its outputs (for these losses also the
Fisher information), and `slopes` are random vectors with that covariance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F


class Likelihood(ABC):
    """A per-row loss with its noise model."""

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
    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """log p - log(1 - p) of the right class (n,); minus the absolute error for numbers. Higher = better."""


@dataclass(frozen=True)
class Categorical(Likelihood):
    """Cross-entropy of class logits (n, C), targets (n,) int64; `probabilities`: the module ends in a softmax.

    class_weight (C,) multiplies the loss of a row by the weight of its class, label_smoothing as in torch.
    weighted_mean: the criterion divides the losses of its rows by the sum of these weights and not by their number.
    """

    class_weight: Tensor | None = None
    label_smoothing: float = 0.0
    probabilities: bool = False
    weighted_mean: bool = False

    def settled(self, targets: Tensor) -> Categorical:
        """With class weights of mean 1 over these targets (n,), so that the mean over them is what training saw."""
        if not self.weighted_mean or self.class_weight is None:
            return self
        mean = self.class_weight.double()[targets.to(self.class_weight.device)].mean()
        return replace(
            self, class_weight=(self.class_weight.double() / mean).to(self.class_weight), weighted_mean=False
        )

    def log_p(self, outputs: Tensor) -> Tensor:
        """(n, C) logarithms of the class probabilities."""
        if self.probabilities:  # as skorch does for NLLLoss
            return torch.log(outputs + torch.finfo(outputs.dtype).eps)
        return F.log_softmax(outputs, dim=1)

    def _weight(self, outputs: Tensor) -> Tensor | None:
        return None if self.class_weight is None else self.class_weight.to(outputs)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Negative log-probability of the target class."""
        if not self.probabilities:
            weight = self._weight(outputs)
            return F.cross_entropy(
                outputs, targets, weight=weight, label_smoothing=self.label_smoothing, reduction="none"
            )
        return F.nll_loss(self.log_p(outputs), targets, weight=self._weight(outputs), reduction="none")

    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Uniform numbers (n,)."""
        return torch.rand(shape[0], generator=generator, dtype=torch.float64)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Class codes (n,)."""
        cumulated = self.log_p(outputs).double().exp().cumsum(dim=1)
        chosen = torch.searchsorted(cumulated, (noise * cumulated[:, -1])[:, None])[:, 0]
        return chosen.clamp(max=outputs.shape[1] - 1)

    def roots(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(n, C, C): sqrt(p_c) times the gradient of the loss under label c, times the root of the row's weight."""
        p = self.log_p(outputs).exp()
        scores = self._scores(outputs, torch.eye(outputs.shape[1], dtype=p.dtype, device=p.device), p[:, None, :])
        return (p * self._row_weight(outputs, targets)).sqrt()[:, :, None] * scores

    def slopes(self, outputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """(n, C) gradients of the loss under drawn classes, times the root of the weight of the given class."""
        drawn = F.one_hot(self.draw(outputs, noise), outputs.shape[1]).to(outputs.dtype)
        scores = self._scores(outputs[:, None], drawn[:, None], self.log_p(outputs).exp()[:, None])[:, 0]
        return self._row_weight(outputs, targets).sqrt() * scores

    def _scores(self, outputs: Tensor, label: Tensor, p: Tensor) -> Tensor:
        if not self.probabilities:
            return p - label
        outputs = outputs if outputs.ndim == 3 else outputs[:, None]
        return -label / (outputs + torch.finfo(outputs.dtype).eps)

    def _row_weight(self, outputs: Tensor, targets: Tensor) -> Tensor:
        weight = self._weight(outputs)
        if weight is None:
            return outputs.new_ones(len(outputs), 1)
        smoothing = self.label_smoothing  # a share of it is spread evenly over the classes, with their weights
        return ((1 - smoothing) * weight[targets] + smoothing * weight.mean())[:, None]

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """log p - log(1 - p) of the target class."""
        log_p = self.log_p(outputs)
        own = log_p.gather(1, targets[:, None])
        others = log_p.scatter(1, targets[:, None], -torch.inf)
        return own[:, 0] - torch.logsumexp(others, dim=1)


@dataclass(frozen=True)
class Binary(Likelihood):
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
        return 1 / outputs[0].numel() if self.average and len(outputs) else 1.0

    def logits(self, outputs: Tensor) -> Tensor:
        """Logarithms of p / (1 - p), shaped as the outputs."""
        if not self.probabilities:
            return outputs
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
        roots = (p * (1 - p)).sqrt() * self._scale(outputs, targets, p)
        if roots.ndim == 1:
            return roots[:, None]
        return torch.diag_embed(roots.flatten(1)).reshape(len(p), -1, *outputs.shape[1:])

    def slopes(self, outputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Gradients of the loss under drawn labels, times the root of the weight of the given ones."""
        p = self.logits(outputs).sigmoid()
        return (p - self.draw(outputs, noise)) * self._scale(outputs, targets, p)

    def _scale(self, outputs: Tensor, targets: Tensor, p: Tensor) -> Tensor:
        weight = 1 + (self._pos_weight(outputs) - 1) * targets.to(outputs.dtype)
        inner = 1 / (p * (1 - p)) if self.probabilities else torch.ones_like(p)
        return (weight * self._share(outputs)).sqrt() * inner

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The logit, negated where the target is 0, summed over the outputs of a row."""
        signed = self.logits(outputs) * (2 * targets.to(outputs.dtype) - 1)
        return signed.flatten(1).sum(1) if signed.ndim > 1 else signed


@dataclass(frozen=True)
class Gaussian(Likelihood):
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
        return outputs + noise.to(outputs) * (0.5 / self._scale(outputs)) ** 0.5

    def slopes(self, outputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Vectors of random signs, of variance 2 scale."""
        return noise.to(outputs) * (2 * self._scale(outputs)) ** 0.5

    def roots(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(n, k, ...): sqrt(2 scale) times each unit vector."""
        width = outputs[0].numel()
        eye = torch.eye(width, dtype=outputs.dtype, device=outputs.device) * (2 * self._scale(outputs)) ** 0.5
        return eye.reshape(1, width, *outputs.shape[1:]).expand(len(outputs), width, *outputs.shape[1:])

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Minus the absolute error."""
        errors = -(outputs - targets).abs()
        return errors.flatten(1).sum(1) if errors.ndim > 1 else errors
