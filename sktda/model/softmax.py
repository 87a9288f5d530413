"""Losses of a softmax: of one class per row, and of one at every position of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sktda.devices import exact, exact_device
from sktda.model.likelihood import Likelihood, Rooted

ROOT_LIMIT = 2**24  # entries of the roots of a row


def softmax_roots(p: Tensor, weight: Tensor) -> Tensor:
    """(n, C * P, C, P) roots of weight (diag(p) - p p') at every position, each 0 at the others.

    p (n, C, P): probabilities; weight (n, 1, P). O(n (C P)^2) memory: ValueError above ROOT_LIMIT for a row.
    """
    n, n_classes, n_positions = p.shape
    if n_positions**2 * n_classes**2 > ROOT_LIMIT:
        raise ValueError(
            f"the exact curvature of {n_positions} positions of {n_classes} classes has "
            f"{(n_positions * n_classes) ** 2:.2g} entries in a row; use curvature='ekfac' or 'cg'"
        )
    eye = torch.eye(n_classes, dtype=p.dtype, device=p.device)
    # sum_c p_c (p - e_c) (p - e_c)' = diag(p) - p p': one root for each label c that could be drawn
    each = (p * weight).sqrt()[:, :, None] * (p[:, None] - eye[None, :, :, None])  # (n, drawn, class, position)
    roots = each.new_zeros(n, n_positions, n_classes, n_classes, n_positions)
    place = torch.arange(n_positions, device=p.device)
    # indices with others between them come first: (positions, n, drawn, classes)
    roots[:, place, :, :, place] = each.movedim(3, 0)
    return roots.reshape(n, n_positions * n_classes, n_classes, n_positions)


@dataclass(frozen=True)
class Categorical(Rooted):
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

    def settled(self, parts: Sequence[Tensor]) -> Categorical:
        """With class weights of mean 1 over these targets (n,), so that the mean over them is what training saw."""
        if not self.weighted_mean or self.class_weight is None:
            return self
        targets = torch.cat(list(parts))
        mean = exact(self.class_weight)[targets.to(exact_device(self.class_weight.device))].mean()
        # sum w_i l_i / sum w_i over the training is the mean of (w_i / mean w) l_i
        return replace(self, class_weight=(exact(self.class_weight) / mean).to(self.class_weight), weighted_mean=False)

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
        # times the last sum, which is 1 but for rounding: a draw above it would find no class
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
        # (n, 1, C), as `roots` asks it for (n, C, C)
        scores = self._scores(outputs[:, None], drawn[:, None], self.log_p(outputs).exp()[:, None])[:, 0]
        return self._row_weight(outputs, targets).sqrt() * scores

    def _scores(self, outputs: Tensor, label: Tensor, p: Tensor) -> Tensor:
        if not self.probabilities:
            return p - label
        outputs = outputs if outputs.ndim == 3 else outputs[:, None]
        # the derivative of -log(p + eps), with the eps that skorch adds
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
        # log(1 - p) as logsumexp of the others: 1 - p itself has no digits left where p is nearly 1
        others = log_p.scatter(1, targets[:, None], -torch.inf)
        return own[:, 0] - torch.logsumexp(others, dim=1)


@dataclass(frozen=True)
class Tokens(Likelihood):
    """Cross-entropy at every position of a row: logits (n, C, *positions), targets (n, *positions) int64.

    Also soft labels: targets (n, C, *positions), probabilities of the classes. Positions that carry `ignore_index`
    count nothing. class_weight (C,) and label_smoothing as in torch. A row's loss is the sum over its positions times
    `scale`; for a mean criterion (`mean`) that is one over the mean number of positions of a row (or the mean sum of
    their weights), as `settled` finds it in the training targets. by_row: the mean over its own positions in place of
    the sum. Rows may have any number of positions, in every batch another. Every position has curvature of its own, so
    that nothing is as large as the square of a row's outputs but `roots`.
    """

    class_weight: Tensor | None = None
    label_smoothing: float = 0.0
    ignore_index: int = -100
    mean: bool = True
    scale: float | None = None
    by_row: bool = False
    longest: int | None = None
    """Positions that count in the longest training row, once it is settled."""

    @property
    def unsettled(self) -> bool:
        """Whether the number of positions that count is not known."""
        return self.longest is None

    def settled(self, parts: Sequence[Tensor]) -> Tokens:
        """With the scale of a mean over these targets."""
        if not self.unsettled:
            return self
        total = sum(float(exact(self._counts(targets, None)).sum()) for targets in parts)
        if not total:
            raise ValueError(
                f"every label is {self.ignore_index}, which ignore_index leaves out; give labels that count"
            )
        longest = max(int(self._kept(targets).reshape(len(targets), -1).sum(1).max()) for targets in parts)
        # (1 / positions) sum over all = mean over rows of (rows / positions) times the sum of a row
        scale = sum(map(len, parts)) / total if self.mean else None
        return replace(self, scale=scale, longest=longest)

    def size(self, targets: Tensor) -> float:
        """The scale times what the mean divides by: positions that count, or the sum of their weights; or the rows."""
        if self.by_row:
            return float(len(targets))
        return float(exact(self._counts(targets, None)).sum()) * (self.scale or 1.0)

    def _kept(self, targets: Tensor) -> Tensor:
        """(n, *positions) whether a position counts."""
        if self._soft(targets):
            return torch.ones_like(targets[:, 0], dtype=torch.bool)
        return targets != self.ignore_index

    def _soft(self, targets: Tensor) -> bool:
        return targets.is_floating_point()

    def _counts(self, targets: Tensor, outputs: Tensor | None) -> Tensor:
        """(n, *positions) what every position counts in the denominator of torch's mean."""
        if self._soft(targets):
            return torch.ones_like(targets[:, 0])
        kept = self._kept(targets)
        weight = self.class_weight
        if weight is None:
            return kept.to(torch.float64 if outputs is None else outputs.dtype)
        # what does not count may be no index: any class stands there until the 0 replaces it
        return torch.where(kept, weight.to(targets.device)[targets.where(kept, 0)], 0.0)

    def _unit(self, outputs: Tensor, targets: Tensor) -> float | Tensor:
        """What the sum over the positions of a row is multiplied by: a number, or one for each row (n,)."""
        if self.by_row:
            # at least 1: of a row without a label that counts the mean is 0, not 0 / 0
            return 1 / self._kept(targets).reshape(len(targets), -1).sum(1).clamp(min=1).to(outputs.dtype)
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
            counted = self._kept(targets)
            kept, own = counted.to(outputs), weight[targets.where(counted, 0)]
        unit = self._unit(outputs, targets)
        unit = unit.reshape(-1, *[1] * (kept.ndim - 1)) if isinstance(unit, Tensor) else unit
        # 0 at padding, so that it has no curvature, as it has no loss
        return (kept * ((1 - smoothing) * own + smoothing * weight.mean()) * unit)[:, None]

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
        return self._unit(outputs, targets) * found.reshape(len(outputs), -1).sum(1)

    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Uniform numbers (n, longest): one for each position that counts, so that padding changes no draw."""
        longest = shape[2:].numel() if self.longest is None else self.longest
        return torch.rand((shape[0], longest), generator=generator, dtype=torch.float64)

    def _placed(self, noise: Tensor, targets: Tensor) -> Tensor:
        """(n, *positions) the noise (n, longest) at the positions that count, one after the other."""
        kept = self._kept(targets)
        order = kept.reshape(len(kept), -1).cumsum(1).sub(1).clamp(0, noise.shape[1] - 1)
        return noise.gather(1, order).reshape(kept.shape)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Class codes (n, *positions), for noise of that shape."""
        cumulated = outputs.double().softmax(1).cumsum(1).movedim(1, -1).contiguous()
        chosen = torch.searchsorted(cumulated, (noise * cumulated[..., -1])[..., None].contiguous())[..., 0]
        return chosen.clamp(max=outputs.shape[1] - 1)

    def slopes(self, outputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Gradients of the loss under classes drawn at every position, times the root of its weight."""
        labels = self.draw(outputs, self._placed(noise, targets))
        drawn = F.one_hot(labels, outputs.shape[1]).movedim(-1, 1).to(outputs.dtype)
        return self._row_weight(outputs, targets).sqrt() * (outputs.softmax(1) - drawn)

    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:
        """(diag(p) - p p') times the vectors, position by position."""
        p = outputs.softmax(1)
        return self._row_weight(outputs, targets) * p * (along - (p * along).sum(1 - outputs.ndim, keepdim=True))

    def roots(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(n, C * positions, C, *positions), as those of `Categorical`, each 0 at the other positions."""
        p = outputs.flatten(2).softmax(1) if outputs.ndim > 2 else outputs.softmax(1)[:, :, None]
        roots = softmax_roots(p, self._row_weight(outputs, targets).reshape(len(outputs), 1, -1))
        return roots.reshape(*roots.shape[:2], *outputs.shape[1:])

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the positions that count of log p - log(1 - p) of their classes. ValueError for soft labels."""
        if self._soft(targets):
            raise ValueError("soft labels have no right class, and so no margin; use the loss")
        kept = self._kept(targets)
        labels = targets.where(kept, 0)[:, None]
        log_p = outputs.log_softmax(1)
        others = torch.logsumexp(log_p.scatter(1, labels, -torch.inf), dim=1)
        # times kept: what stands at padding is the margin of a class that nobody named
        found = (log_p.gather(1, labels)[:, 0] - others) * kept
        return found.reshape(len(found), -1).sum(1) / kept.reshape(len(found), -1).sum(1).clamp(min=1)
