"""Models that return an object: the logits in it, and the cross-entropy of logits whose classes are the last axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

IGNORED = -100
"""Label of a position that counts nothing, in torch and in Hugging Face's data."""


def logits_of(output: Any) -> Tensor | None:
    """The logits in what a module returned: a tensor, `logits` of an object or a dict, or the first of a tuple."""
    if isinstance(output, Mapping):
        found = output.get("logits")
    elif isinstance(output, tuple):
        found = getattr(output, "logits", output[0] if output else None)
    else:
        found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    return found if isinstance(found, Tensor) else None


class LogitsLoss(nn.Module):
    """Cross-entropy for models that return logits (n, ..., classes), in an object with `logits` or as they are.

    So a Hugging Face model is trained in a skorch net as it is, with labels (n,), or (n, positions) and -100 where a
    position counts nothing. Logits may also stand in a dict, or first in a tuple.

    Parameters
    ----------
    shift : bool, default=False
        Whether the logits at a position are about the next one, as in causal language models; labels then are the
        input tokens, in their places.
    per : {"token", "sequence"}, default="token"
        What the mean is over. "token": all labels of a batch that count, as in the models' own loss. "sequence": the
        rows, the loss of each being the mean over its labels, so that long rows count no more than short ones.
    label_smoothing : float, default=0.0
        As in torch's CrossEntropyLoss.
    reduction : {"mean", "sum", "none"}, default="mean"
        Of the tokens, or of the sequences' means. "none": a loss for each row, (n,): the sum over its labels, or their
        mean.

    Raises
    ------
    ValueError
        For other settings, and for labels that do not fit the logits.
    TypeError
        For an output without logits.
    """

    def __init__(
        self, shift: bool = False, per: str = "token", label_smoothing: float = 0.0, reduction: str = "mean"
    ) -> None:
        super().__init__()
        if per not in {"token", "sequence"}:
            raise ValueError(f"per={per!r} must be 'token' or 'sequence'")
        if reduction not in {"mean", "sum", "none"}:
            raise ValueError(f"reduction={reduction!r} must be 'mean', 'sum' or 'none'")
        self.shift = shift
        self.per = per
        self.label_smoothing = label_smoothing
        self.reduction = reduction

    def forward(self, output: Any, labels: Tensor) -> Tensor:
        """One number, or (n,) losses of the rows."""
        logits = logits_of(output)
        if logits is None:
            raise TypeError(f"the module returned a {type(output).__name__} without logits; give a model with a head")
        labels = self.about(labels)
        outputs = self.classes_second(logits)
        if outputs.ndim != labels.ndim + 1 or outputs.shape[:1] + outputs.shape[2:] != labels.shape:
            raise ValueError(
                f"logits {tuple(logits.shape)} need labels {tuple(logits.shape[:-1])}, one for each position, got "
                f"{tuple(labels.shape)}" + (" after the first of each row" if self.shift else "")
            )
        found = F.cross_entropy(
            outputs, labels, ignore_index=IGNORED, label_smoothing=self.label_smoothing, reduction="none"
        )
        losses, counts = (x.reshape(len(labels), -1).sum(1) for x in (found, (labels != IGNORED).to(found)))
        if self.per == "sequence":
            # a row whose labels all are -100 has a loss of 0, not 0 / 0
            losses, counts = losses / counts.clamp(min=1), counts.new_ones(counts.shape)
        if self.reduction == "none":
            return losses
        # counts are of labels that count, as padding is none, or 1 for each sequence
        return losses.sum() / counts.sum() if self.reduction == "mean" else losses.sum()

    def classes_second(self, logits: Tensor) -> Tensor:
        """(n, classes, *positions) as torch's losses take them, without the last position where there is a shift."""
        if self.shift:
            if logits.ndim != 3:
                raise ValueError(f"shift=True needs logits (n, positions, classes), got {tuple(logits.shape)}")
            # those at the last position are about a token beyond the end
            logits = logits[:, :-1]
        return logits.movedim(-1, 1)

    def about(self, labels: Tensor) -> Tensor:
        """The labels that `classes_second` are about."""
        if self.shift and labels.ndim != 2:
            raise ValueError(f"shift=True needs labels (n, positions), got {tuple(labels.shape)}")
        # nothing comes before the first token that could say it
        return labels[:, 1:] if self.shift else labels
