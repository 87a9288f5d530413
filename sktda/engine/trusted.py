"""Which layers' factors give autograd's gradients, found on a few rows; and the gradients that have no factors."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.func import grad, vmap

from sktda.devices import out_of_memory
from sktda.engine.functional import forward_at
from sktda.engine.layers import LAYOUTS, Layer, eval_kernels, joined, plain_kernels, recording
from sktda.engine.layers.layer import FOLDED, FOLDED_SECOND, ONCE
from sktda.model.base import DifferentiableModel, Inputs, forward
from sktda.model.precision import LOWERED

FAILURES = (RuntimeError, IndexError, TypeError, ValueError, AttributeError, AssertionError)
Measure = Callable[[Tensor, Tensor], Tensor]


def trusted(model: DifferentiableModel, layers: list[Layer], inputs: Inputs) -> list[Layer]:
    """The layers whose factors give autograd's gradients of a few rows, in the layout that does so.

    The parameters of the others are used elsewhere, too, or rows meet them in another way. What is differentiated is a
    random sum of each row's outputs: a loss may be flat at some rows, or weigh 0.
    """
    own = model.parameters
    uses = Counter(name for layer in layers for name in layer.parameters)  # of more than one, it belongs to none
    layers = [layer for layer in layers if all(name in own and uses[name] == 1 for name in layer.parameters)]
    if not layers:
        return []
    with torch.enable_grad(), eval_kernels(model.module):
        outputs = forward(model.module, inputs)
        probe = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs)
        wanted = [name for layer in layers for name in layer.parameters]
        found = [
            torch.autograd.grad(value, [own[name] for name in wanted], retain_graph=True, allow_unused=True)
            # row by row, by autograd alone: the truth that factors are held against
            for value in summed(outputs, probe)
        ]
    truths: dict[str, list[Tensor | None]] = {name: [row[k] for row in found] for k, name in enumerate(wanted)}
    calls = _calls(model, layers, inputs, probe)
    if calls is None:  # one of them cannot be recorded; try them one by one
        return [layer for layer in layers if trusted(model, [layer], inputs)] if len(layers) > 1 else []
    # rounding, of TF32 too, is below this; a use elsewhere is above
    tolerance = 4 * torch.finfo(outputs.dtype).eps ** 0.5
    agrees = {
        layer.name: _agrees(layer, calls[layer.name], [truths[name] for name in layer.parameters], own, tolerance)
        for layer in layers
    }
    for layer in layers:
        if layer.may_be_once and not agrees[layer.name]:
            layer.layout = ONCE
            again = _calls(model, [layer], inputs, probe)
            truth = [truths[name] for name in layer.parameters]
            agrees[layer.name] = again is not None and _agrees(layer, again[layer.name], truth, own, tolerance, (ONCE,))
    return [layer for layer in layers if agrees[layer.name]]


def rows_in(inputs: Inputs) -> int:
    """How many rows a batch of inputs has."""
    return len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)


def summed(outputs: Tensor, probe: Tensor) -> Tensor:
    """(n,) sums of each row's outputs times the probe."""
    return (outputs * probe).reshape(len(outputs), -1).sum(1)


def _calls(
    model: DifferentiableModel, layers: list[Layer], inputs: Inputs, probe: Tensor
) -> dict[str, list[tuple[tuple[Tensor, ...], Tensor]]] | None:
    """(inputs, gradient at the output) of the calls of every layer that the outputs depend on."""
    try:
        with torch.enable_grad(), eval_kernels(model.module), recording(layers, rows_in(inputs)) as calls:
            total = summed(forward(model.module, inputs), probe).sum()
            every = [(name, seen, edge) for name, found in calls.items() for seen, edge in found]
            deltas = torch.autograd.grad(total, [edge for *_, edge in every], allow_unused=True) if every else ()
    except FAILURES as error:
        if out_of_memory(error):
            raise
        return None
    result: dict[str, list[tuple[tuple[Tensor, ...], Tensor]]] = {layer.name: [] for layer in layers}
    for (name, seen, _), delta in zip(every, deltas, strict=True):
        if delta is not None:
            result[name].append((tuple(x.detach() for x in seen), delta))
    return result


def _agrees(
    layer: Layer,
    calls: list[tuple[tuple[Tensor, ...], Tensor]],
    truths: list[list[Tensor | None]],
    own: Mapping[str, Tensor],
    tolerance: float,
    layouts: Sequence[str] = LAYOUTS,
) -> bool:
    """Whether a layout of the layer gives the gradients (by parameter, then row); it stays set."""
    if not calls:  # not called as a layer: right only where its parameters change nothing
        return all(gradient is None for rows in truths for gradient in rows)
    n = len(truths[0])
    true = torch.cat(
        [
            torch.stack([(torch.zeros_like(own[name]) if g is None else g).flatten() for g in rows])
            for name, rows in zip(layer.parameters, truths, strict=True)
        ],
        dim=1,
    )
    for layout in layouts:
        layer.layout = layout
        try:
            found = joined([layer.factors(seen, delta, n) for seen, delta in calls]).gradients()
        except FAILURES as error:
            if out_of_memory(error):
                raise
            continue
        if found.shape != true.shape or not found.any():  # zeros say nothing
            continue
        # every row by itself; the absolute part is for rows whose gradient is 0
        if bool(((found - true).norm(dim=1) <= tolerance * true.norm(dim=1) + 1e-12).all()):
            return True
    layer.layout = LAYOUTS[0]
    return False


def is_folded(layer: Layer) -> bool:
    """Whether rows are told from the place of their parts only."""
    return layer.layout in {FOLDED, FOLDED_SECOND}


def check_folded(losses: Tensor, calls: list[tuple[Layer, GradientEdge]]) -> None:
    """RuntimeError unless the gradients at folded layers are those of the rows that their places stand for.

    Places that hold parts of other rows than at the rows that were tried first (tokens chosen by a mask) would give
    gradients of the wrong rows. With the loss of every row times a scale of its own, all must scale with their row: two
    more backward passes.
    """
    if not calls:
        return
    n = len(losses)
    scales = torch.rand(n, generator=torch.Generator().manual_seed(0)).add(0.5).to(losses)
    edges = [edge for _, edge in calls]
    plain, scaled = (
        torch.autograd.grad(total, edges, retain_graph=True, allow_unused=True)
        for total in (losses.sum(), (losses * scales).sum())
    )
    for (layer, _), delta, other in zip(calls, plain, scaled, strict=True):
        if delta is None or other is None:
            continue
        wrong = len(delta) % n != 0
        if not wrong:
            t = len(delta) // n
            # (t * n, ...) has the rows in turn, (n * t, ...) all parts of a row together
            each = scales.repeat(t) if layer.layout == FOLDED_SECOND else scales.repeat_interleave(t)
            expected = delta * each.reshape(-1, *[1] * (delta.ndim - 1))
            # a pass in bfloat16 has its rounding, whatever dtype comes out of it
            eps = torch.finfo(torch.bfloat16 if LOWERED.get() else delta.dtype).eps
            wrong = bool((other - expected).norm() > 4 * eps**0.5 * other.norm())
        if wrong:
            raise RuntimeError(
                f"layer {layer.name!r} is called on {len(delta)} inputs for {n} rows, and not always on the same "
                "number of each row: it has no factors by row; freeze the layer, or give it an input with an axis of "
                "rows"
            )


def formed_gradients(
    model: DifferentiableModel, block: tuple, measure: Measure, names: list[str], batched: bool
) -> tuple[Tensor, bool]:
    """((n, p) gradients with respect to these parameters, whether by vmap), row by row where vmap fails."""
    inputs, targets, weight = block
    own = dict(model.module.named_parameters())
    fixed = {name: value.detach() for name, value in own.items() if name not in names}

    def loss(values: dict[str, Tensor], row: object, target: Tensor) -> Tensor:
        one = {k: v[None] for k, v in row.items()} if isinstance(row, Mapping) else row[None]  # type: ignore[index]
        return measure(forward_at(model.module, {**fixed, **values}, one), target[None])[0]

    chosen = {name: own[name].detach() for name in names}
    gradients: dict[str, Tensor] | None = None
    if batched:
        try:
            with torch.enable_grad(), plain_kernels(model.module), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop")  # of operations without vmap
                gradients = vmap(grad(loss), in_dims=(None, 0, 0))(chosen, inputs, targets)
        except RuntimeError as error:  # recurrent layers, branches on values, custom functions
            if out_of_memory(error):
                raise
            batched = False
    if gradients is None:
        with plain_kernels(model.module):
            gradients = _row_by_row(model, measure, names, inputs, targets)
    flat = torch.cat([gradients[name].reshape(len(targets), -1) for name in names], dim=1)
    return flat if weight is None else flat * weight[:, None], batched


def _row_by_row(
    model: DifferentiableModel, measure: Measure, names: list[str], inputs: Inputs, targets: Tensor
) -> dict[str, Tensor]:
    """By the module's own parameters: what checkpoints compute again in a backward pass has no others."""
    own, found = [model.parameters[name] for name in names], []
    with torch.enable_grad():
        for i in range(len(targets)):
            row = {k: v[i : i + 1] for k, v in inputs.items()} if isinstance(inputs, Mapping) else inputs[i : i + 1]
            value = measure(forward(model.module, row), targets[i : i + 1]).sum()
            value = value + 0 * sum(each.sum() for each in own)  # all take part
            found.append(torch.autograd.grad(value, own))
    return {name: torch.stack(rows) for name, rows in zip(names, zip(*found, strict=True), strict=True)}


def refuse_module(module: nn.Module) -> None:
    """ValueError for complex parameters, and for a layer that normalises over the batch even in eval mode.

    No row then has a loss of its own.
    """
    for name, value in module.named_parameters():
        if value.is_complex():
            raise ValueError(
                f"parameter {name!r} is complex, and gradients of complex numbers are not theirs by row; write it as "
                "two real parameters (torch.view_as_real)"
            )
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
            raise ValueError(
                f"layer {name!r} is a batch normalisation without running statistics: it mixes the rows of a batch, so "
                "single rows have no loss of their own; use track_running_stats=True, or GroupNorm"
            )
