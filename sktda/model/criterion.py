"""From a torch criterion to a likelihood: the loss per row whose mean over rows is what the criterion returns."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from skorch import NeuralNetClassifier
from torch import Tensor, nn

from sktda.model.likelihood import Binary, Categorical, Gaussian, Likelihood

SAME_SHAPE = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.PoissonNLLLoss)
"""Criteria of numbers, which broadcast targets of another shape than the outputs with no more than a warning."""

KNOWN = "CrossEntropyLoss, NLLLoss, BCELoss, BCEWithLogitsLoss and MSELoss"


@dataclass(frozen=True)
class Custom(Likelihood):
    """Any criterion with a `reduction`, averaged over the outputs of a row (added, if `total`).

    It has no noise model. Its roots are those of the Hessian of each row's loss with respect to its outputs, which
    depends on the targets, negative eigenvalues cut off.
    """

    criterion: nn.Module
    total: bool = False

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss (n,) of every row."""
        values = self.criterion(outputs, targets)
        if values.ndim == 0 or len(values) != len(outputs):
            raise TypeError(
                f"{self._name} with reduction='none' returned shape {tuple(values.shape)} for {len(outputs)} rows; it "
                "must return a loss per row (or per output of a row)"
            )
        if values.ndim == 1:
            return values
        return values.flatten(1).sum(1) if self.total else values.flatten(1).mean(1)

    @property
    def _name(self) -> str:
        return type(self.criterion).__name__

    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Normal numbers of the outputs' shape."""
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Raises ValueError: there is no noise model to draw labels from."""
        raise ValueError(f"{self._name} has no noise model to draw labels from; those that have one are {KNOWN}")

    def slopes(self, outputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Normal vectors whose covariance is the Hessian of each row's loss, negative eigenvalues cut off."""
        roots = self.roots(outputs, targets)
        return torch.einsum("nko,nk->no", roots.flatten(2), noise.to(outputs).flatten(1)).reshape(outputs.shape)

    def roots(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(n, k, *outputs.shape[1:]) for these targets."""
        with torch.enable_grad():
            outputs = outputs.detach().requires_grad_()
            (slopes,) = torch.autograd.grad(self.losses(outputs, targets).sum(), outputs, create_graph=True)
            columns = [
                torch.autograd.grad(each.sum(), outputs, retain_graph=True, materialize_grads=True)[0].flatten(1)
                if each.requires_grad  # a loss of straight pieces has no second derivative
                else torch.zeros_like(outputs).flatten(1)
                for each in slopes.reshape(len(outputs), -1).unbind(1)
            ]
        hessians = torch.stack(columns, dim=1).detach()
        values, vectors = torch.linalg.eigh((hessians + hessians.mT) / 2)
        roots = vectors * values.clamp(min=0).sqrt()[:, None, :]
        return roots.mT.reshape(len(outputs), -1, *outputs.shape[1:])

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Minus the loss."""
        return -self.losses(outputs, targets)


def likelihood_of(net: Any, criterion: Any) -> Likelihood:
    """The likelihood of a net's criterion (with reduction "mean" or "sum", which differ for several outputs)."""
    name, kind, total = type(criterion).__name__, type(criterion), criterion_total(criterion)
    if getattr(criterion, "ignore_index", -100) != -100:
        raise ValueError(
            f"{name}(ignore_index={criterion.ignore_index}) leaves rows out of the loss; drop those rows from X and y "
            "and train without ignore_index"
        )
    weight = None if getattr(criterion, "weight", None) is None else criterion.weight.detach().clone()
    if kind is nn.CrossEntropyLoss:
        return Categorical(class_weight=weight, label_smoothing=criterion.label_smoothing)
    if isinstance(criterion, nn.NLLLoss) and isinstance(net, NeuralNetClassifier):
        if kind is not nn.NLLLoss:
            raise TypeError(f"{name}: a subclass of NLLLoss in a NeuralNetClassifier; use NLLLoss or CrossEntropyLoss")
        return Categorical(class_weight=weight, probabilities=True)  # skorch takes the logarithm
    if kind is nn.NLLLoss:  # log-probabilities are logits, too
        return Categorical(class_weight=weight)
    if kind in {nn.BCELoss, nn.BCEWithLogitsLoss} and weight is None:
        positive = getattr(criterion, "pos_weight", None)
        pos_weight = 1.0 if positive is None else positive.detach().clone()
        return Binary(pos_weight=pos_weight, probabilities=kind is nn.BCELoss, average=not total)
    if weight is not None and kind in {nn.BCELoss, nn.BCEWithLogitsLoss}:
        raise ValueError(f"{name}(weight=...) weighs places of a batch; use pos_weight or sample_weight")
    if kind is nn.MSELoss:
        return Gaussian(average=not total)
    per_row = deepcopy(criterion).requires_grad_(False)
    per_row.reduction = "none"
    return Custom(per_row, total)


def criterion_total(criterion: nn.Module) -> bool:
    """Whether the criterion adds the losses of a batch; TypeError if it tells no reduction to one number."""
    reduction = getattr(criterion, "reduction", None)
    if reduction not in {"mean", "sum"}:
        raise TypeError(
            f"the criterion {type(criterion).__name__} has reduction={reduction!r}, so its loss per row is not known. "
            f"Use {KNOWN}, or give your criterion an attribute `reduction` ('none', 'mean' or 'sum') that its forward "
            "follows, as torch's own do"
        )
    return reduction == "sum"
