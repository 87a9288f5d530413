"""Contrastive losses of pairs, where the pairs of a batch are each other's negatives, and of pairs against a bank."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sktda.model.criterion import OfCriterion, Packing

MEET = (
    "{}: the pairs of a batch are each other's negatives, so a pair has no loss of its own. InnerProduct, TracIn and "
    "DiffIn score the pairs in the batches of a recorded run, with validation pairs (X_val); for anything else give "
    "each pair the same negatives, with FixedNegatives"
)


class BatchLoss(nn.Module, metaclass=ABCMeta):
    """Base of criteria whose loss of a batch is the mean of one term per pair, which depends on the other pairs.

    A subclass says what the terms are; what a pair adds to the loss of its batch follows.
    """

    reduction = "mean"

    @abstractmethod
    def terms(self, outputs: Any) -> Tensor:
        """Terms (m,) of the pairs of one batch, from what the module returned for it."""

    def forward(self, outputs: Any, targets: Any = None) -> Tensor:
        """Mean of the terms; targets, of which skorch makes some where there are none, play no part."""
        return self.terms(outputs).mean()

    def own_likelihood(self) -> InBatch:
        """What the pairs of a batch are to the engine."""
        return InBatch(deepcopy(self).requires_grad_(False))

    def removals(self, outputs: tuple[Tensor, ...]) -> Tensor:
        """(m,) by how much the sum of the terms falls when one pair is taken out of the batch, with all that it does.

        Here by m batches of m - 1; a subclass may know better.
        """
        m = len(outputs[0])
        others = ~torch.eye(m, dtype=torch.bool, device=outputs[0].device)
        # m batches: of a criterion of someone's own nothing else is known
        without = [self.terms(tuple(each[kept] for each in outputs)).sum() for kept in others] if m > 1 else [0.0]
        return self.terms(outputs).sum() - torch.stack([torch.as_tensor(each).to(outputs[0]) for each in without])


class ContrastiveLoss(BatchLoss):
    """Symmetric InfoNCE of pairs, the other pairs of the batch being the negatives (CLIP, arXiv:2103.00020).

    The module returns (images (m, d), texts (m, d)), or a third output, the factor of the similarities (CLIP's
    exponentiated logit scale). Similarities are inner products of what it returns, so it should return unit vectors.
    With Z[i, j] the factor times the inner product of image i and text j, the term of pair i is the mean of minus the
    log softmax of Z[i, i] along its row and of that along its column.

    Parameters
    ----------
    temperature : float, default=0.07
        The factor is 1 / temperature where the module returns none.

    Examples
    --------
    >>> import torch
    >>> from sktda.model.contrastive import ContrastiveLoss
    >>> images = texts = torch.eye(3)
    >>> f"{ContrastiveLoss(temperature=1.0)((images, texts)):.4f}"  # log(1 + 2 / e)
    '0.5514'
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature={temperature!r} must be above 0")
        self.temperature = temperature

    def terms(self, outputs: Any) -> Tensor:
        """Terms (m,)."""
        z = similarities(outputs, self.temperature)
        return (z.logsumexp(1) + z.logsumexp(0)) / 2 - z.diagonal()

    def removals(self, outputs: tuple[Tensor, ...]) -> Tensor:
        """(m,) own terms, and what each pair adds as a negative to those of the others."""
        z = similarities(outputs, self.temperature)
        own = (z.logsumexp(1) + z.logsumexp(0)) / 2 - z.diagonal()
        if len(z) == 1:
            return own
        # with the pair go its own term, and its row and column out of the logsumexp of all others
        return own + (_as_negative(z).sum(0) + _as_negative(z.T).sum(0)) / 2


def _as_negative(z: Tensor) -> Tensor:
    """(m, m): in row j and column i, by how much logsumexp of row j falls without column i; 0 for i = j."""
    # without column i, of share p_i, logsumexp falls by -log(1 - p_i)
    whole = z.logsumexp(1, keepdim=True)
    # 1 - p has no digits left where p is nearly 1, which one column of a row may be
    top = torch.zeros_like(z, dtype=torch.bool).scatter_(1, z.argmax(1, keepdim=True), True)
    rest = -torch.log1p(-(z - whole).exp().masked_fill(top, 0.0))
    fall = torch.where(top, whole - z.masked_fill(top, -torch.inf).logsumexp(1, keepdim=True), rest)
    return fall.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), 0.0)


def similarities(outputs: Any, temperature: float) -> Tensor:
    """(m, m) of images with texts, times the module's factor, or over the temperature where it gives none."""
    images, texts, factor = in_towers(outputs, temperature)
    if images.shape != texts.shape or images.ndim != 2:
        raise ValueError(
            f"a contrastive loss compares embeddings of one shape (m, d), and the module returned "
            f"{tuple(images.shape)} and {tuple(texts.shape)}"
        )
    return factor * images @ texts.T


def in_towers(outputs: Any, temperature: float) -> tuple[Tensor, Tensor, Any]:
    """(images, texts, factor of the similarities) of what a module of two towers returned."""
    if not isinstance(outputs, tuple | list) or len(outputs) not in {2, 3}:
        raise TypeError(
            "a contrastive loss takes a module that returns the tuple (images, texts) or (images, texts, factor), and "
            f"it returned a {type(outputs).__name__}; return the two embeddings, and the exponentiated logit scale"
        )
    images, texts, *factor = outputs
    # its entries are equal: the engine has it once for each row
    return images, texts, factor[0].reshape(-1)[0] if factor else 1 / temperature


def with_rows(outputs: Any) -> tuple[Any, ...]:
    """Two embeddings and their factor, which has one entry, with one of it per row."""
    n = len(outputs[0])
    # one factor is no row; repeated by row it can be packed with the embeddings
    return tuple(e.expand(n) if isinstance(e, Tensor) and e.ndim < 2 and e.numel() == 1 else e for e in outputs)


@dataclass(frozen=True)
class InBatch(OfCriterion):
    """The terms of a BatchLoss: losses of rows only where a block of rows is a batch.

    within: whether whoever asks knows that, and gives blocks that are batches.
    """

    criterion: BatchLoss
    packing: Packing = field(default_factory=partial(Packing, with_rows))
    within: bool = False

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Terms (m,) of the pairs of a batch; ValueError for those who take them for losses of rows."""
        if not self.within:
            raise self.meet()
        return self.criterion.terms(self.packing.open(outputs))

    def removals(self, outputs: Tensor) -> Tensor:
        """(m,) what each pair adds to the sum of the terms of its batch."""
        opened = self.packing.open(outputs)
        return self.criterion.removals(opened if isinstance(opened, tuple) else (opened,))

    def meet(self) -> ValueError:
        """What to say where a pair would need a loss of its own."""
        return ValueError(MEET.format(self._name))

    def slopes(self, outputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Raises ValueError: no row has a curvature of its own."""
        raise self.meet()

    def roots(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Raises ValueError: no row has a curvature of its own."""
        raise self.meet()

    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:
        """Raises ValueError: no row has a curvature of its own."""
        raise self.meet()


def meets(net: Any) -> bool:
    """Whether the pairs of a batch meet in the criterion of a net, fitted or not."""
    criterion = getattr(net, "criterion", None)
    return isinstance(criterion, BatchLoss) or (isinstance(criterion, type) and issubclass(criterion, BatchLoss))


class FixedNegatives(nn.Module):
    """Two towers whose every pair is compared with the same negatives, so that each pair has a loss of its own.

    Returns logits (m, 1 + K, 2): in the first column the similarity of a pair, in the others, of its image with the K
    texts of the bank, and of its text with the K images. With ``CrossEntropyLoss`` and targets of zeros, (m, 2), the
    mean over rows and both directions is the contrastive loss of every pair against the bank. The bank goes through
    the towers as they are at any moment, and no gradient goes through it.

    Parameters
    ----------
    module : nn.Module
        Returns (images (m, d), texts (m, d)), or also the factor of the similarities, for a dict of inputs.
    negatives : dict of array-like of shape (K, ...)
        Pairs as the module's inputs.
    temperature : float, default=0.07
        As of ContrastiveLoss.

    Raises
    ------
    TypeError
        For negatives that are no dict of arrays.
    """

    def __init__(self, module: nn.Module, negatives: Mapping[str, Any], temperature: float = 0.07) -> None:
        super().__init__()
        if not isinstance(negatives, Mapping):
            raise TypeError(
                f"negatives are a dict of arrays by the names of the module's inputs, got a {type(negatives).__name__}"
            )
        self.module = module
        self.temperature = temperature
        self.names = list(negatives)
        for name, value in negatives.items():
            # it moves with the towers to a device, and is no part of their checkpoints
            self.register_buffer(f"negative_{name}", torch.as_tensor(value).clone(), persistent=False)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Logits (m, 1 + K, 2)."""
        images, texts, factor = in_towers(self.module(**inputs), self.temperature)
        with torch.no_grad():
            bank = self.module(**{name: self.get_buffer(f"negative_{name}") for name in self.names})
        # dual numbers do not stop at no_grad
        other_images, other_texts = (each.detach() for each in bank[:2])
        # in the first column, as targets are 0
        own = (images * texts).sum(1, keepdim=True)
        to_texts = torch.cat([own, images @ other_texts.T], dim=1)
        to_images = torch.cat([own, texts @ other_images.T], dim=1)
        return factor * torch.stack([to_texts, to_images], dim=2)
