"""From a torch criterion to a likelihood: the loss per row whose mean over rows is what the criterion returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import torch
from skorch import NeuralNetClassifier
from torch import Tensor, nn

from sktda.model.likelihood import Binary, Gaussian, Likelihood, by_roots
from sktda.model.logits import IGNORED, LogitsLoss, logits_of
from sktda.model.softmax import ROOT_LIMIT, Categorical, Tokens, softmax_roots

SAME_SHAPE = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.PoissonNLLLoss)
"""Criteria of numbers, which broadcast targets of another shape than the outputs with no more than a warning."""

KNOWN = "CrossEntropyLoss, NLLLoss, BCELoss, BCEWithLogitsLoss and MSELoss"


@dataclass(eq=False)
class Packing:
    """Several outputs of a module as one tensor (n, width), and back: the engine works on one."""

    before: Callable[[Any], Any] | None = None
    """What is made of the outputs first."""
    shapes: list[torch.Size] | None = None
    """Of the outputs of a row in a tuple, once a forward has run."""
    around: type | None = None
    """Class of the object that the logits stood in, such as a dict, which is made again around them alone."""

    def close(self, outputs: Any) -> Tensor:
        """The outputs of a batch side by side, in their common dtype; of an object the logits alone."""
        if self.before is not None:
            outputs = self.before(outputs)
        if isinstance(outputs, Tensor):
            return outputs
        found = logits_of(outputs)
        if found is not None and (isinstance(outputs, Mapping) or not isinstance(outputs, tuple)):
            self.around = type(outputs)
            return found
        # caches and hidden states, of which some models return one for each layer, are no outputs
        outputs = tuple(takewhile(lambda each: isinstance(each, Tensor), outputs)) or outputs
        if not all(isinstance(each, Tensor) and each.ndim and len(each) == len(outputs[0]) for each in outputs):
            kinds = ", ".join(f"{tuple(e.shape)}" if isinstance(e, Tensor) else type(e).__name__ for e in outputs)
            raise TypeError(f"outputs of a module must be tensors with one entry per row, and forward returned {kinds}")
        self.shapes = [each.shape[1:] for each in outputs]
        return torch.cat([each.reshape(len(each), -1) for each in outputs], dim=1)

    def open(self, outputs: Tensor) -> Any:
        """What the module returned: a tuple, an object with the logits, or the tensor itself if it was one."""
        if self.around is not None:
            return self.around(logits=outputs)
        if self.shapes is None:
            return outputs
        parts = outputs.split([shape.numel() for shape in self.shapes], dim=1)
        return tuple(part.reshape(len(part), *shape) for part, shape in zip(parts, self.shapes, strict=True))


@dataclass(frozen=True)
class OfCriterion(Likelihood):
    """A loss without a noise model: that of a criterion; packing gives it all outputs of a module with several."""

    criterion: nn.Module
    packing: Packing = field(default_factory=Packing)

    def to(self, device: torch.device) -> OfCriterion:
        """With a criterion whose own weights are there; what was given stays where it is."""
        if all(value.device == device for value in (*self.criterion.parameters(), *self.criterion.buffers())):
            return self
        return replace(self, criterion=deepcopy(self.criterion).to(device))

    @property
    def _name(self) -> str:
        return type(self.criterion).__name__

    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Normal numbers of the outputs' shape."""
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Raises ValueError: there is no noise model to draw labels from."""
        raise ValueError(f"{self._name} has no noise model to draw labels from; those that have one are {KNOWN}")

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Minus the loss."""
        return -self.losses(outputs, targets)


@dataclass(frozen=True)
class Custom(OfCriterion):
    """Any criterion with a `reduction`, averaged over the outputs of a row (added, if `total`).

    Its roots are those of the Hessian of each row's loss with respect to its outputs, which depends on the targets,
    negative eigenvalues cut off. Where that Hessian is that of a softmax at every position (a cross-entropy of tokens,
    shifted, weighted or masked), it is not formed.
    """

    total: bool = False

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss (n,) of every row."""
        values = self.criterion(self.packing.open(outputs), targets)
        if not isinstance(values, Tensor):
            raise TypeError(
                f"{self._name} returned a {type(values).__name__}; of a model's output it may use the logits, not the "
                "loss that the model computes itself, which is a mean over the batch"
            )
        if values.ndim == 0 or len(values) != len(outputs):
            raise TypeError(
                f"{self._name} with reduction='none' returned shape {tuple(values.shape)} for {len(outputs)} rows; it "
                "must return a loss per row (or per output of a row)"
            )
        if values.ndim == 1:
            return values
        # torch's mean over (n, k) is the mean over rows of means over outputs, its sum that of sums
        return values.flatten(1).sum(1) if self.total else values.flatten(1).mean(1)

    def slopes(self, outputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Vectors whose covariance is the Hessian of each row's loss, negative eigenvalues cut off.

        Of a softmax they are gradients under labels drawn from it, else normal vectors.
        """
        if noise.shape != outputs.shape:
            raise ValueError(
                f"rows have outputs {tuple(outputs.shape[1:])} and {tuple(noise.shape[1:])}; for rows of several "
                "lengths use LogitsLoss or CrossEntropyLoss"
            )
        if (found := self._softmax(outputs, targets)) is not None:
            p, weight, axis = found
            # normal numbers, as of any criterion here, made uniform; at 0 or 1 the logarithms would be infinite
            uniform = torch.special.ndtr(noise.to(p)).clamp(1e-7, 1 - 1e-7)
            drawn = (p.log() - (-uniform.log()).log()).argmax(axis, keepdim=True)  # Gumbel's way
            # under labels drawn from p, p - e_c has mean 0 and covariance diag(p) - p p'
            return weight.sqrt() * (p - torch.zeros_like(p).scatter_(axis, drawn, 1.0))
        roots = self.roots(outputs, targets)
        n, k = roots.shape[:2]
        along = noise.to(outputs).reshape(n, k)
        # sum_k r_k e_k with independent e_k of variance 1 has the covariance sum_k r_k r_k'
        return torch.einsum("nko,nk->no", roots.reshape(n, k, -1), along).reshape(outputs.shape)

    def roots(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(n, k, *outputs.shape[1:]) for these targets."""
        if (found := self._softmax(outputs, targets)) is not None:
            *parts, axis = found
            roots = softmax_roots(
                *(each.reshape(*each.shape[:2], -1) for each in (part.movedim(axis, 1) for part in parts))
            )
            shape = outputs.movedim(axis, 1).shape[1:]
            return roots.reshape(*roots.shape[:2], *shape).movedim(2, axis + 1)
        width = outputs[0].numel()
        if width**2 > ROOT_LIMIT:
            raise ValueError(
                f"the curvature of {self._name} is no softmax's at any axis of its {width} outputs, and their Hessian "
                f"has {width**2:.2g} entries in a row; use CrossEntropyLoss, or a method without curvature (TracIn)"
            )
        with torch.enable_grad():
            outputs = outputs.detach().requires_grad_()
            (slopes,) = torch.autograd.grad(self.losses(outputs, targets).sum(), outputs, create_graph=True)
            with self._twice():
                # rows do not meet: the derivative of a slope summed over rows is that column of the Hessian of each
                columns = [
                    torch.autograd.grad(each.sum(), outputs, retain_graph=True, materialize_grads=True)[0].reshape(
                        len(outputs), -1
                    )
                    if each.requires_grad  # a loss of straight pieces has no second derivative
                    else torch.zeros_like(outputs).reshape(len(outputs), -1)
                    for each in slopes.reshape(len(outputs), -1).unbind(1)
                ]
        hessians = torch.stack(columns, dim=1).detach()
        # symmetric but for rounding, which eigh would not see: it reads one triangle
        values, vectors = torch.linalg.eigh((hessians + hessians.mT) / 2)
        roots = vectors * values.clamp(min=0).sqrt()[:, None, :]
        return roots.mT.reshape(len(outputs), -1, *outputs.shape[1:])

    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:
        """The Hessian of each row's loss, negative eigenvalues cut off, times vectors (..., *outputs.shape)."""
        found = self._softmax(outputs, targets)
        if found is None:
            return by_roots(self.roots(outputs, targets), along)
        p, weight, axis = found
        return weight * p * (along - (p * along).sum(axis - outputs.ndim, keepdim=True))

    def _softmax(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, int] | None:
        """(p, weight, class axis) where the Hessian of each row is weight (diag(p) - p p') at every position, or None.

        p: probabilities in the outputs' shape; weight: the same with one entry on the class axis. It is tried on one
        random vector, by differentiating twice.
        """
        if outputs.ndim < 2:
            return None
        # a generator of its own: torch's global one draws what it would have drawn
        probe = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs)
        with torch.enable_grad():
            outputs = outputs.detach().requires_grad_()
            (slopes,) = torch.autograd.grad(self.losses(outputs, targets).sum(), outputs, create_graph=True)
            if not slopes.requires_grad:
                return None
            with self._twice():
                (bent,) = torch.autograd.grad((slopes * probe).sum(), outputs, materialize_grads=True)
        # of the largest entry of all rows: rows that are learned have curvature near 0, and rounding beside it
        tolerance = {torch.float64: 1e-9, torch.float32: 1e-4}.get(outputs.dtype, 2e-2) * bent.abs().max()
        # torch has classes second, and criteria of language models often last
        for axis in sorted({1, outputs.ndim - 1}):
            p = outputs.detach().softmax(axis)
            expected = p * (probe - (p * probe).sum(axis, keepdim=True))
            lengths = expected.square().sum(axis, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny)
            # the multiple of (diag(p) - p p') probe that is nearest, position by position
            weight = (bent * expected).sum(axis, keepdim=True) / lengths
            if bool(((bent - weight * expected).abs() <= tolerance).all()) and bool((weight >= -tolerance).all()):
                return p, weight.clamp(min=0), axis
        return None

    @contextmanager
    def _twice(self) -> Iterator[None]:
        """ValueError in place of torch's, where it cannot differentiate the loss a second time."""
        try:
            yield
        except RuntimeError as error:
            if "not implemented" not in str(error):
                raise
            raise ValueError(
                f"torch has no second derivative of {self._name}, so it has no curvature; use a method of gradients, "
                "such as TracIn or InnerProduct"
            ) from error


def likelihood_of(net: Any, criterion: Any) -> Likelihood:
    """The likelihood of a net's criterion (with reduction "mean" or "sum", which differ for several outputs)."""
    if (own := getattr(criterion, "own_likelihood", None)) is not None:  # of a BatchLoss
        return own()
    name, kind, total = type(criterion).__name__, type(criterion), criterion_total(criterion)
    # `is` where a class is taken for what it computes: a subclass may compute anything
    if kind is LogitsLoss:
        return tokens_of(criterion) if criterion.shift else Categorical(None, criterion.label_smoothing)
    as_probabilities = isinstance(criterion, nn.NLLLoss) and isinstance(net, NeuralNetClassifier)
    if kind in {nn.CrossEntropyLoss, nn.NLLLoss} and criterion.ignore_index != -100 and not as_probabilities:
        return tokens_of(criterion)
    if getattr(criterion, "ignore_index", -100) != -100:
        raise ValueError(
            f"{name}(ignore_index={criterion.ignore_index}) leaves rows out of the loss; drop those rows from X and y "
            "and train without ignore_index"
        )
    weight = None if getattr(criterion, "weight", None) is None else criterion.weight.detach().clone()
    by_weights = weight is not None and not total
    if kind is nn.CrossEntropyLoss:
        return Categorical(weight, criterion.label_smoothing, weighted_mean=by_weights)
    if as_probabilities:
        if kind is not nn.NLLLoss:
            raise TypeError(f"{name}: a subclass of NLLLoss in a NeuralNetClassifier; use NLLLoss or CrossEntropyLoss")
        return Categorical(weight, probabilities=True, weighted_mean=by_weights)  # skorch takes the logarithm
    if kind is nn.NLLLoss:  # log-probabilities are logits, too
        return Categorical(weight, weighted_mean=by_weights)
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
    return Custom(per_row, total=total)


def tokens_of(criterion: nn.CrossEntropyLoss | nn.NLLLoss | LogitsLoss) -> Tokens:
    """The likelihood of a cross-entropy whose rows have several positions, soft labels, or labels that do not count."""
    if isinstance(criterion, LogitsLoss):
        by_row = criterion.per == "sequence"
        mean = not by_row and not criterion_total(criterion)
        return Tokens(None, criterion.label_smoothing, IGNORED, mean=mean, by_row=by_row)
    weight = None if criterion.weight is None else criterion.weight.detach().clone()
    smoothing = getattr(criterion, "label_smoothing", 0.0)
    return Tokens(weight, smoothing, criterion.ignore_index, mean=not criterion_total(criterion))


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
