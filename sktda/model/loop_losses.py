"""Whether a loop trains with the loss that it says: the gradient at the module's outputs beside the criterion's."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from sktda.devices import exact_device
from sktda.model.base import to_device
from sktda.model.batches import first_output
from sktda.model.contrastive import BatchLoss
from sktda.model.criterion import SAME_SHAPE, criterion_total
from sktda.model.logits import LogitsLoss
from sktda.model.module_copy import unwrapped

ONE_OUTPUT = (nn.CrossEntropyLoss, nn.NLLLoss, nn.BCELoss, nn.BCEWithLogitsLoss, *SAME_SHAPE)
SHAPED = (nn.BCELoss, nn.BCEWithLogitsLoss, *SAME_SHAPE)
"""Whose targets are numbers of the outputs' shape."""
OF_LABELS = {nn.CrossEntropyLoss, nn.NLLLoss, LogitsLoss}
"""Whose targets are labels, or probabilities of the outputs' shape; a subclass may take anything."""


def criterion_given(criterion: Any) -> nn.Module:
    """The criterion that a user gave, an instance or a class; TypeError for what is none."""
    if isinstance(criterion, type) and issubclass(criterion, nn.Module):
        criterion = criterion()
    if not isinstance(criterion, nn.Module):
        name = getattr(criterion, "__name__", type(criterion).__name__)
        raise TypeError(
            f"criterion must be a torch.nn.Module such as nn.CrossEntropyLoss(), got {name}; functions have one of "
            "these beside them, and a loss that a module computes itself is written as one with a `reduction`"
        )
    criterion_total(unwrapped(criterion))
    return criterion


class LossAtOutputs:
    """A criterion, and what the gradient of a backward pass at a module's outputs has to do with its own."""

    def __init__(self, criterion: Any) -> None:
        self.criterion = deepcopy(unwrapped(criterion_given(criterion))).requires_grad_(False)
        self.total = criterion_total(self.criterion)

    def outputs(self, output: Any) -> tuple[Tensor, ...] | None:
        """The raw outputs that the criterion gets, of what a forward returned; None where they have no gradient."""
        whole = isinstance(output, tuple | list) and not isinstance(self.criterion, ONE_OUTPUT)
        found = tuple(output) if whole else (first_output(output),)
        kept = all(isinstance(each, Tensor) for each in found) and any(each.requires_grad for each in found)
        return found if kept else None

    def watch(self, outputs: tuple[Tensor, ...], seen: Callable[[list[Tensor | None]], None]) -> None:
        """Call `seen` with the gradients at the outputs, at every backward pass through them."""
        if len(outputs) == 1:
            made_by = outputs[0].grad_fn
            if made_by is not None and made_by.name().startswith("ToCopyBackward"):
                # a cast after the loss was computed (accelerate's mixed precision): no gradient comes through it
                node, place = made_by.next_functions[0]
                assert node is not None  # it has a gradient
                node.register_prehook(lambda gradients: seen([gradients[place]]))
            else:
                outputs[0].register_hook(lambda gradient: seen([gradient]))
            return
        wanted = [each for each in outputs if each.requires_grad]

        def sorted_in(gradients: Any) -> None:
            found = iter(gradients)
            seen([next(found) if each.requires_grad else None for each in outputs])

        torch.autograd.graph.register_multi_grad_hook(wanted, sorted_in)

    def size(self, outputs: tuple[Tensor, ...], targets: Any) -> int:
        """Of how many rows (or labels that count) the criterion takes the mean."""
        ignored = getattr(self.criterion, "ignore_index", None)
        # of targets (n, positions) the mean is over the labels that count, and not over rows
        if ignored is not None and isinstance(targets, Tensor) and not targets.is_floating_point() and targets.ndim > 1:
            return max(1, int((targets.long() != ignored).sum()))
        return len(outputs[0])

    @staticmethod
    def rounding(gradients: list[Tensor | None]) -> float:
        """Of c, a quotient of sums over the outputs."""
        return max(1e-5, *(torch.finfo(each.dtype).eps for each in gradients if each is not None))

    def compare(
        self, outputs: tuple[Tensor, ...], gradients: list[Tensor | None], targets: Any
    ) -> tuple[Tensor, Tensor]:
        """(c, rest): the gradients are c times those of the criterion, beside a share `rest` of their length.

        rest is 1 where the criterion cannot be computed: of unknown targets, or of outputs that it does not take.
        """
        device = outputs[0].device
        nothing = torch.ones((), device=device), torch.ones((), device=device)
        if isinstance(self.criterion, BatchLoss):
            targets = torch.zeros(0)  # there are none, and the last of several inputs may be taken for them
        elif targets is None:
            return nothing
        # a hook in a backward pass: gradients are off there, and a loop's autocast may be on
        with torch.enable_grad(), torch.autocast(device.type, enabled=False):
            # in float32, as autocast computes losses of outputs in half precision
            given = [each.detach().float() if each.dtype in _HALF else each.detach() for each in outputs]
            given = [each.requires_grad_(outputs[i].requires_grad) for i, each in enumerate(given)]
            try:
                value = self.criterion.to(device)(
                    given[0] if len(given) == 1 else tuple(given),
                    self._shaped(given[0], to_device(targets, device)),
                )
                kept = [each for each in given if each.requires_grad]
                own = torch.autograd.grad(value, kept, allow_unused=True, materialize_grads=True)
            # whatever a criterion says of outputs or targets that are not its own
            except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
                return nothing
        theirs = [g for each, g in zip(outputs, gradients, strict=True) if each.requires_grad]
        pairs = [(a, torch.zeros_like(a) if b is None else b.detach()) for a, b in zip(own, theirs, strict=True)]
        return _multiple(pairs, max(torch.finfo(b.dtype).eps for _, b in pairs))

    def _shaped(self, output: Tensor, targets: Any) -> Any:
        if not isinstance(targets, Tensor):
            return targets
        if isinstance(self.criterion, SHAPED):
            return targets.to(output.dtype).reshape(output.shape)
        if type(self.criterion) not in OF_LABELS:
            return targets
        # labels may be stored in int32 or as floats, which a loop casts; of the outputs' shape they are probabilities
        return targets.to(output.dtype) if targets.shape == output.shape else targets.long()


_HALF = (torch.float16, torch.bfloat16)


def _multiple(pairs: list[tuple[Tensor, Tensor]], eps: float) -> tuple[Tensor, Tensor]:
    """c and |b - c a| / |b| of the c that brings c a nearest to b; without waiting for a device."""
    # c = a.b / a.a minimises |b - c a|; sums stay on their device, as reading one would wait for it
    aa, ab, bb = (
        sum(_sum(one * other.to(one.dtype)) for one, other in chosen)
        for chosen in ([(a, a) for a, _ in pairs], pairs, [(b, b) for _, b in pairs])
    )
    aa, ab, bb = torch.as_tensor(aa), torch.as_tensor(ab), torch.as_tensor(bb)
    one, zero = torch.ones_like(aa), torch.zeros_like(aa)
    scale = torch.where(aa > 0, ab / torch.where(aa > 0, aa, one), torch.where(bb > 0, zero, one))
    beside = sum(_sum((b.to(a.dtype) - scale.to(device=a.device, dtype=a.dtype) * a).square()) for a, b in pairs)
    share = torch.where(bb > 0, (beside / torch.where(bb > 0, bb, one)).sqrt(), zero)
    # what two ways of computing one gradient differ by
    return scale, torch.where(share <= 4 * eps, zero, share)


def _sum(values: Tensor) -> Tensor:
    # squares of millions of numbers lose digits in float32
    return values.to(exact_device(values.device)).sum(dtype=torch.float64)
