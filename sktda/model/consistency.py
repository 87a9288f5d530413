"""Whether the losses by row are those that a net was trained with: tried on a few rows before any pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sktda.model.base import DifferentiableModel, Inputs, Rows, forward
from sktda.model.contrastive import InBatch
from sktda.model.criterion import OfCriterion, criterion_total
from sktda.model.given import GivenModel, GivenRows
from sktda.model.module_copy import unwrapped
from sktda.model.reading import as_dtype, reader
from sktda.model.settings import torch_state_kept
from sktda.model.skorch_net import named_parameters

ROWS = 6
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4}  # relative; less precise numbers: HALF
HALF = 5e-2


def check_losses(given: GivenModel, model: DifferentiableModel, rows: Rows, data: GivenRows) -> None:
    """Raise ValueError unless the criterion of a fitted net is the mean (or sum) of the model's losses by row.

    On up to 6 of the rows of data, as skorch calls the criterion, in eval mode: outputs are the same when they are
    computed twice and row by row, the loss of a batch is that of its rows, and so is its gradient. Weights of single
    rows are no part of it. The net, its buffers and the random numbers stay as they are. Models of scikit-learn and
    the default net have the library's own losses.
    """
    net = given.net
    if net is None or net is not given.model or not len(data):
        return
    chosen = np.unique(np.linspace(0, len(data) - 1, ROWS).astype(int))
    # without targets skorch hands zeros to the criterion
    targets = reader(net, *given.seen(data.take(chosen)))[2] or torch.zeros(len(chosen), 1).__getitem__
    # cuDNN's recurrent layers have no backward pass in eval mode
    with _undisturbed(unwrapped(net.module_), net.criterion_), torch.backends.cudnn.flags(enabled=False):
        _check_lengths(model, rows, chosen)
        _check_rows_alone(model, rows.block(chosen, model.device)[0])
        # at two sizes: at one, a sum over a fixed number looks like a mean
        for n in sorted({len(chosen), (len(chosen) + 1) // 2}, reverse=True):
            _compare(net, model, rows, chosen[:n], targets(slice(0, n)).to(model.device))


def _check_rows_alone(model: DifferentiableModel, inputs: Inputs) -> None:
    name, tolerance = type(model.module).__name__, _tolerance(model)
    with torch.no_grad():
        # in eval mode: what still differs is drawn, or kept, by the forward pass itself
        together, again = (forward(model.module, inputs) for _ in range(2))
        if (moved := _distance(together, again)) > tolerance:
            raise ValueError(
                f"outputs of {name} differ by {moved:.2g} (relative) when the same rows are given twice, in eval mode: "
                "its forward draws random numbers or changes itself. Use modules such as nn.Dropout, which eval mode "
                "turns off, or keep no state in forward"
            )
        try:
            alone = torch.cat([forward(model.module, _row(inputs, i)) for i in range(len(together))])
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{name} cannot take one row alone, in eval mode ({str(error).splitlines()[0]}), so rows have no "
                "losses of their own; use normalisation with running statistics, or LayerNorm"
            ) from error
        if (moved := _distance(together, alone)) > tolerance:
            raise ValueError(
                f"outputs of {name} for a row differ by {moved:.2g} (relative) with the other rows of its batch, in "
                "eval mode: rows meet in its forward (a mean, an attention over the first axis), so single rows have "
                "no loss of their own. Let each row be computed from itself alone"
            )


def _check_lengths(model: DifferentiableModel, rows: Rows, chosen: np.ndarray) -> None:
    """ValueError for words that are drawn anew at every read, or a loss that depends on how far a batch is padded."""
    (inputs, targets, _), (again, labels, _) = (rows.block(chosen, model.device) for _ in range(2))
    if not _same(_words(inputs), _words(again)) or not _same(_words(targets), _words(labels)):
        raise ValueError(
            "the words or labels are not the same when they are read twice: a Dataset or collate_fn draws at random "
            "(masked words), so no score would be that of a row. Draw once, and train and score with what was drawn"
        )
    with torch.no_grad():
        together = model.likelihood.losses(forward(model.module, inputs), targets)
        for k, row in enumerate(chosen):
            own, label, _ = rows.block(np.array([row]), model.device)
            if _shapes(own) == _shapes(_row(inputs, k)):  # nothing was padded
                continue
            alone = model.likelihood.losses(forward(model.module, own), label)
            if (moved := _distance(together[k : k + 1], alone)) > 10 * _tolerance(model):
                raise ValueError(
                    f"the loss of row {row} differs by {moved:.2g} (relative) when its batch is padded further, so it "
                    "depends on the rows beside it: give an attention_mask and labels of -100 at the padding, and "
                    "position_ids that count from the first token where the padding is on the left"
                )


def _words(inputs: Inputs) -> Inputs:
    """The inputs that are whole numbers; a picture may be another crop each time."""
    values = inputs if isinstance(inputs, Mapping) else {"": inputs}
    return {name: value for name, value in values.items() if not value.is_floating_point()}


def _shapes(inputs: Inputs) -> dict[str, torch.Size]:
    values = inputs if isinstance(inputs, Mapping) else {"": inputs}
    return {name: value.shape for name, value in values.items()}


def _same(one: Inputs, other: Inputs) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(one[name].shape == value.shape and torch.equal(one[name], value) for name, value in other.items())
    return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)


def _compare(net: Any, model: DifferentiableModel, rows: Rows, part: np.ndarray, given: Tensor) -> None:
    criterion = unwrapped(net.criterion_)
    total = criterion_total(criterion)
    copies = model.parameters
    trained = {name: value for name, value in named_parameters(net) if name in copies}
    with torch.enable_grad():
        inputs, targets, _ = rows.block(part, model.device)
        if not isinstance(model.likelihood, OfCriterion) or given.is_floating_point():
            given = given.to(targets.dtype)  # labels in the precision that NumPy gives them
        output = net.infer(_as_parameters(inputs, net.module_))
        expected = net.get_loss(output, given, X=inputs, training=False)
        outputs = forward(model.module, inputs)
        losses = model.likelihood.losses(outputs, targets)
        alone = (
            losses[:1] if isinstance(model.likelihood, InBatch) else model.likelihood.losses(outputs[:1], targets[:1])
        )
        if (moved := _distance(losses[:1], alone)) > _tolerance(model):
            raise ValueError(
                f"the loss of a row by {type(criterion).__name__} differs by {moved:.2g} (relative) with the other "
                f"rows of its batch: outputs {_shape(output)} meet targets {tuple(given.shape)} of all rows by "
                "broadcasting, or rows meet in it. Give y the shape of the outputs; for pairs that are each other's "
                "negatives there is ContrastiveLoss"
            )
        # the mean of a batch may be over labels that count, or weights of classes, and not over rows
        size = 1.0 if total else model.likelihood.size(targets)
        found = losses.sum() / size
        if expected.ndim:
            raise ValueError(f"{type(criterion).__name__} returned shape {tuple(expected.shape)} and not one number")
        tolerance = max(_tolerance(model), _precision(net.module_))
        theirs, ours = float(expected.detach()), float(found.detach())
        if not np.isfinite(theirs) or not np.isfinite(ours):
            return  # rows that hold NaN are refused by their scores, by position
        # losses near 0 are compared by their difference: relative to themselves they are rounding
        if abs(theirs - ours) > tolerance * max(abs(theirs), abs(ours), 1e-3):
            kind = "sum" if total else "mean"
            raise ValueError(
                f"{type(criterion).__name__} of {len(part)} rows is {theirs:.6g}, the {kind} of its losses by row is "
                f"{ours:.6g}: it is no {kind} over rows (a root of a mean, pairs of rows), or it compares outputs "
                f"{_shape(output)} with targets {tuple(given.shape)} by broadcasting. Write it as a {kind} of one loss "
                "per row, which reduction='none' returns, and give y the shape of the outputs"
            )
        gradients = [
            torch.autograd.grad(value, list(own.values()), allow_unused=True, materialize_grads=True)
            for value, own in ((expected, trained), (found, {name: copies[name] for name in trained}))
        ]
    first, second = (torch.cat([each.reshape(-1) for each in every]) for every in gradients)
    if torch.isfinite(first).all() and (moved := _distance(first, second)) > 10 * tolerance:
        raise ValueError(
            f"the gradient of {type(criterion).__name__} differs by {moved:.2g} (relative) from that of the losses by "
            "row, which have the same value: a backward hook or a detached part of the forward changes it in training"
        )


def _row(inputs: Inputs, i: int) -> Inputs:
    """A batch of one."""
    if isinstance(inputs, Mapping):
        return {name: value[i : i + 1] for name, value in inputs.items()}
    return inputs[i : i + 1]


def _shape(output: Any) -> Any:
    return tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__


def _tolerance(model: DifferentiableModel) -> float:
    return _precision(model.module)


def _precision(module: nn.Module) -> float:
    """Tolerance of the least precise numbers in a module."""
    dtypes = {value.dtype for value in module.parameters() if value.is_floating_point()}
    return max(TOLERANCE.get(dtype, HALF) for dtype in dtypes)


def _as_parameters(inputs: Inputs, module: nn.Module) -> Inputs:
    """Inputs in the dtype of the parameters, where these have one: a copy may be in a more precise one."""
    dtypes = {value.dtype for value in module.parameters() if value.is_floating_point()}
    return as_dtype(inputs, dtypes.pop()) if len(dtypes) == 1 else inputs


def _distance(one: Tensor, other: Tensor) -> float:
    """Largest difference relative to the largest value; equal infinities and NaN are equal."""
    # the model may be on another device than the net
    one, other = (value.detach().cpu().double() for value in (one, other))
    both = torch.isfinite(one) & torch.isfinite(other)
    if one.shape != other.shape or not torch.equal(torch.isfinite(one), torch.isfinite(other)):
        return float("inf")
    if not both.any():
        return 0.0
    # by the largest entry: a small one beside it has the rounding of what it was summed of
    return float((one - other)[both].abs().max() / one[both].abs().max().clamp(min=1e-12))


@contextmanager
def _undisturbed(*modules: nn.Module) -> Iterator[None]:
    """Eval mode, with random numbers, modes and buffers as before in the end."""
    with torch_state_kept():  # another thread may have the same modules in hand
        modes = [(part, part.training) for module in modules for part in module.modules()]
        buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
        for module in modules:
            module.eval()
        try:
            yield
        finally:
            for part, mode in modes:
                part.training = mode
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
