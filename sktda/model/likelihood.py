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

ROOT_LIMIT = 2**24  # entries of a row of `Tokens.roots`


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

    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:
        """The Hessian of each row's loss with respect to its outputs times a vector of their shape."""
        roots = self.roots(outputs, targets)
        roots = roots.reshape(*roots.shape[:2], -1)
        pushed = torch.einsum("nko,no->nk", roots, along.reshape(len(along), -1))
        return torch.einsum("nko,nk->no", roots, pushed).reshape(outputs.shape)

    def size(self, targets: Tensor) -> float:
        """By what a criterion that takes the mean of a batch divides the sum of these losses of its rows."""
        return float(len(targets))

    @property
    def unsettled(self) -> bool:
        """Whether the training targets decide what the criterion divides by."""
        return False

    def settled(self, targets: Tensor) -> Likelihood:
        """The likelihood whose mean over these training targets is what the criterion is to a batch."""
        return self

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

    @property
    def unsettled(self) -> bool:
        """Whether there are class weights whose mean is not known."""
        return self.weighted_mean and self.class_weight is not None

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

    def size(self, targets: Tensor) -> float:
        """The number of rows, or the sum of the weights of their classes."""
        weight = self.class_weight
        return float(len(targets)) if weight is None else float(weight.to(targets.device)[targets].sum())

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
class Tokens(Likelihood):
    """Cross-entropy at every position of a row: logits (n, C, *positions), targets (n, *positions) int64.

    Also soft labels: targets (n, C, *positions), probabilities of the classes. Positions that carry `ignore_index`
    count nothing. class_weight (C,) and label_smoothing as in torch. A row's loss is the sum over its positions times
    `scale`; for a mean criterion (`mean`) that is one over the mean number of positions of a row (or the mean sum of
    their weights), as `settled` finds it in the training targets. Every position has curvature of its own, so that
    nothing is as large as the square of a row's outputs but `roots`.
    """

    class_weight: Tensor | None = None
    label_smoothing: float = 0.0
    ignore_index: int = -100
    mean: bool = True
    scale: float | None = None

    @property
    def unsettled(self) -> bool:
        """Whether the number of positions that count is not known."""
        return self.mean and self.scale is None

    def settled(self, targets: Tensor) -> Tokens:
        """With the scale of a mean over these targets."""
        if not self.unsettled:
            return self
        total = float(self._counts(targets, None).double().sum())
        if not total:
            raise ValueError(
                f"every label is {self.ignore_index}, which ignore_index leaves out; give labels that count"
            )
        return replace(self, scale=len(targets) / total)

    def size(self, targets: Tensor) -> float:
        """The scale times what the mean divides by: positions that count, or the sum of their weights."""
        return float(self._counts(targets, None).double().sum()) * (self.scale or 1.0)

    def _soft(self, targets: Tensor) -> bool:
        return targets.is_floating_point()

    def _counts(self, targets: Tensor, outputs: Tensor | None) -> Tensor:
        """(n, *positions) what every position counts in the denominator of torch's mean."""
        if self._soft(targets):
            return torch.ones_like(targets[:, 0])
        kept = targets != self.ignore_index
        weight = self.class_weight
        if weight is None:
            return kept.to(torch.float64 if outputs is None else outputs.dtype)
        return torch.where(kept, weight.to(targets.device)[targets.where(kept, torch.zeros_like(targets))], 0.0)

    def _unit(self, outputs: Tensor) -> float:
        if self.scale is not None or not self.mean:
            return self.scale or 1.0
        return 1 / max(1, outputs[0, 0].numel())  # before the training targets were seen

    def _row_weight(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(n, 1, *positions) factors of the curvature of a softmax at every position."""
        weight = outputs.new_ones(outputs.shape[1]) if self.class_weight is None else self.class_weight.to(outputs)
        smoothing = self.label_smoothing
        if self._soft(targets):
            own = torch.einsum("nc...,c->n...", targets.to(outputs), weight)
            kept = torch.ones_like(own)
        else:
            kept = (targets != self.ignore_index).to(outputs)
            own = weight[targets.clamp(min=0)]
        return (kept * ((1 - smoothing) * own + smoothing * weight.mean()) * self._unit(outputs))[:, None]

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sum over the positions of the negative log-probabilities of their classes, times the scale."""
        weight = None if self.class_weight is None else self.class_weight.to(outputs)
        found = F.cross_entropy(
            outputs,
            targets.to(outputs.dtype) if self._soft(targets) else targets,
            weight=weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        return self._unit(outputs) * found.reshape(len(outputs), -1).sum(1)

    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Uniform numbers (n, *positions)."""
        return torch.rand((shape[0], *shape[2:]), generator=generator, dtype=torch.float64)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Class codes (n, *positions)."""
        cumulated = outputs.double().softmax(1).cumsum(1).movedim(1, -1).contiguous()
        chosen = torch.searchsorted(cumulated, (noise * cumulated[..., -1])[..., None].contiguous())[..., 0]
        return chosen.clamp(max=outputs.shape[1] - 1)

    def slopes(self, outputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Gradients of the loss under classes drawn at every position, times the root of its weight."""
        drawn = F.one_hot(self.draw(outputs, noise), outputs.shape[1]).movedim(-1, 1).to(outputs.dtype)
        return self._row_weight(outputs, targets).sqrt() * (outputs.softmax(1) - drawn)

    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:
        """(diag(p) - p p') times the vector, position by position."""
        p = outputs.softmax(1)
        return self._row_weight(outputs, targets) * p * (along - (p * along).sum(1, keepdim=True))

    def roots(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(n, C * positions, C, *positions), as those of `Categorical`, each 0 at the other positions."""
        n, n_classes = outputs.shape[:2]
        p = outputs.flatten(2).softmax(1) if outputs.ndim > 2 else outputs.softmax(1)[:, :, None]
        n_positions = p.shape[2]
        if n_positions**2 * n_classes**2 > ROOT_LIMIT:
            raise ValueError(
                f"the exact curvature of {n_positions} positions of {n_classes} classes has "
                f"{(n_positions * n_classes) ** 2:.2g} entries in a row; use curvature='ekfac' or 'cg'"
            )
        weight = self._row_weight(outputs, targets).reshape(n, 1, n_positions)
        eye = torch.eye(n_classes, dtype=p.dtype, device=p.device)
        each = (p * weight).sqrt()[:, :, None] * (p[:, None] - eye[None, :, :, None])  # (n, drawn, class, position)
        roots = each.new_zeros(n, n_positions, n_classes, n_classes, n_positions)
        place = torch.arange(n_positions, device=p.device)
        roots[:, place, :, :, place] = each.movedim(3, 0)
        return roots.reshape(n, n_positions * n_classes, *outputs.shape[1:])

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the positions that count of log p - log(1 - p) of their classes. ValueError for soft labels."""
        if self._soft(targets):
            raise ValueError("soft labels have no right class, and so no margin; use the loss")
        kept = targets != self.ignore_index
        labels = targets.where(kept, torch.zeros_like(targets))[:, None]
        log_p = outputs.log_softmax(1)
        others = torch.logsumexp(log_p.scatter(1, labels, -torch.inf), dim=1)
        found = (log_p.gather(1, labels)[:, 0] - others) * kept
        return found.reshape(len(found), -1).sum(1) / kept.reshape(len(found), -1).sum(1).clamp(min=1)


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
