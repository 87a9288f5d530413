"""Losses and gradients of single rows: values along a direction, lengths, pairwise dots, Hessian products.

Nothing here forms a gradient per row where a product of factors or a directional derivative does: the value of an
aggregated objective costs about one forward and backward pass. Rows stream through in batches of a size that fits
the memory, and results are the same for every batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from sktda.devices import in_blocks, out_of_memory
from sktda.engine.functional import Direction, dual_numbers, forward_at
from sktda.engine.layers import Formed, Layer, LayerRows, eval_kernels, joined, known_layers, plain_kernels, recording
from sktda.engine.layers.product import by_parameter
from sktda.engine.trusted import check_folded, formed_gradients, is_folded, refuse_module, rows_in, trusted
from sktda.model.base import DifferentiableModel, Inputs, Rows, forward
from sktda.model.contrastive import InBatch
from sktda.model.precision import exact_passes, raised

BATCH_BYTES = 256 * 2**20  # inputs and outputs of all layers for one batch on a processor
ACCELERATED = 8  # times as much on an accelerator, which is idle between small batches
OF_DEVICE = 32  # on CUDA one of so many parts of the card's memory: factors and products take several times as much
SECOND_ORDER_BYTES = 16 * 2**20  # the same where second derivatives are taken: larger tensors cost more to allocate
REST = ""  # name of the part of the gradient that no known layer covers
Found = TypeVar("Found")


class PerRow:
    """Per-row quantities of one model at its present parameters.

    model: the parameters that require gradients are the ones differentiated.
    batch_size: rows at a time; "auto" = what keeps activations near 256 MiB (an eighth of a GPU's free memory).

    All results are in the units of the loss, sums over a row's own loss (no 1/n); weights of rows multiply their loss.
    """

    def __init__(self, model: DifferentiableModel, batch_size: int | str = "auto") -> None:
        refuse_module(model.module)
        self.model = model
        self.batch_size = None if batch_size == "auto" else int(batch_size)
        """None until `prepare` has seen a row, where it is automatic."""
        self.layers: list[Layer] | None = None
        self.rest: list[str] = []
        self._forward_mode = True
        self.row_bytes = 0
        """Inputs and outputs of all layers for one row, once `prepare` has seen one."""
        self._vmap = True
        self.roots: dict[str, float] | None = None
        """By parameter, what multiplies the gradients of `capture`, if anything: see `engine/weighed.py`."""

    def __getstate__(self) -> dict:
        # layers alone leave their modules out: here these are a part of the model, which goes along
        layers = None if self.layers is None else [(type(layer), vars(layer)) for layer in self.layers]
        return {**vars(self), "layers": layers, "_vmap": True}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        if self.layers is not None:
            self.layers = [kind.__new__(kind) for kind, _ in state["layers"]]
            for layer, (_, own) in zip(self.layers, state["layers"], strict=True):
                vars(layer).update(own)

    # ---- streaming -------------------------------------------------------------------------------------------------

    def prepare(self, rows: Rows) -> None:
        """Find the layers whose factors give the gradient (checked on three rows), and the batch size."""
        if self.layers is None:
            sample = rows.block(np.linspace(0, len(rows) - 1, 3).astype(int), self.model.device)[0]
            with exact_passes():
                self.layers = trusted(self.model, known_layers(self.model.module), sample)
            covered = {name for layer in self.layers for name in layer.parameters}
            self.rest = [name for name in self.model.parameters if name not in covered]
        if not self.row_bytes:
            self.row_bytes = self._measured(rows)
        if self.batch_size is None:
            self.batch_size = self.own_batch
            if self.model.device.type == "cuda":
                free = torch.cuda.mem_get_info(self.model.device)[0]
                self.batch_size = int(min(max(free // 8 // self.row_bytes, 1), 16384))

    @property
    def groups(self) -> dict[str, list[str]]:
        """The parameters of every layer, and of REST where there is one, in the order of their gradients."""
        return {layer.name: layer.parameters for layer in self.layers or []} | ({REST: self.rest} if self.rest else {})

    @property
    def own_batch(self) -> int:
        """Rows whose activations take 256 MiB, at most 1,024; more on an accelerator.

        Depends on the model and the device only, not on `batch_size` or on how much memory is free.
        """
        times = 1 if self.model.device.type == "cpu" else ACCELERATED
        n_bytes = times * BATCH_BYTES
        if self.model.device.type == "cuda":
            n_bytes = torch.cuda.get_device_properties(self.model.device).total_memory // OF_DEVICE
        return min(max(n_bytes // self.row_bytes, 1), times * 1024)

    @property
    def second_order_batch(self) -> int:
        """Rows at a time where second derivatives are taken, which hold several times what a plain pass does."""
        assert self.batch_size is not None, "call prepare first"
        if self.model.device.type != "cpu":
            return self.batch_size
        return max(1, min(self.batch_size, SECOND_ORDER_BYTES // self.row_bytes))

    def sweep(
        self,
        rows: Rows,
        work: Callable[[slice], None],
        start: int = 0,
        stop: int | None = None,
        size: int | None = None,
        spare: Callable[[], bool] | None = None,
    ) -> None:
        """work(slice) for batches of `size` (batch_size) rows over start..stop; halves them when memory runs out.

        spare: as of `sktda.devices.in_blocks`.
        """
        for _ in self.computed(rows, work, start, stop, size, spare):
            pass

    def computed(
        self,
        rows: Rows,
        compute: Callable[[slice], Found],
        start: int = 0,
        stop: int | None = None,
        size: int | None = None,
        spare: Callable[[], bool] | None = None,
    ) -> Iterator[tuple[slice, Found]]:
        """Yields (slice, compute(slice)), as `sweep` goes over the rows."""
        self.prepare(rows)
        if isinstance(self.model.likelihood, InBatch):
            return ((part, compute(part)) for part in self._whole(rows, start, stop))
        return in_blocks(len(rows) if stop is None else stop, size or self.batch_size or 1, compute, start, spare)

    def _whole(self, rows: Rows, start: int, stop: int | None) -> list[slice]:
        """The blocks of rows that meet in the loss; ValueError where they were not given as such."""
        if rows.blocks is None or start or stop not in {None, len(rows)}:
            assert isinstance(self.model.likelihood, InBatch)
            raise self.model.likelihood.meet()
        return rows.blocks

    def _measured(self, rows: Rows) -> int:
        few = rows.block(np.linspace(0, len(rows) - 1, 3).astype(int), self.model.device)[0]
        # the first row, padded as far as the longest of these
        inputs = {name: value[:1] for name, value in few.items()} if isinstance(few, Mapping) else few[:1]
        n_bytes = 0

        def note(module: nn.Module, args: tuple, output: object) -> None:
            nonlocal n_bytes
            n_bytes += sum(value.nbytes for value in (*args, output) if isinstance(value, Tensor))

        leaves = [part for part in self.model.module.modules() if not list(part.children())]
        handles = [part.register_forward_hook(note) for part in leaves]
        try:
            with torch.no_grad():
                forward(self.model.module, inputs)
        finally:
            for handle in handles:
                handle.remove()
        return max(1, n_bytes)

    # ---- capture ---------------------------------------------------------------------------------------------------

    def capture(
        self,
        block: tuple,
        losses: Callable[[Tensor, Tensor], Tensor] | None = None,
        layers: list[Layer] | None = None,
        parameters: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, LayerRows]]:
        """(losses (n,), factors by layer) of one block of rows; `losses(outputs, targets)` replaces the model's own.

        Parameters outside the known layers come as one more entry, REST, with formed gradients, if `layers` is None.
        parameters: tensors in place of the model's own, such as dual numbers; the factors then are dual, too.
        """
        if layers is None:
            assert self.layers is not None, "call prepare first"
            layers = self.layers
        inputs, targets, weight = block
        if isinstance(self.model.likelihood, InBatch):
            raise self.model.likelihood.meet()
        measure = losses or self.model.likelihood.losses
        module = self.model.module
        kernels = eval_kernels if parameters is None else plain_kernels
        with torch.enable_grad(), kernels(module), recording(layers, rows_in(inputs)) as calls:
            outputs = forward(module, inputs) if parameters is None else forward_at(module, parameters, inputs)
            values = measure(outputs, targets)
            if weight is not None:
                values = values * weight
            found = [(layer, call) for layer in layers for call in calls[layer.name]]
            check_folded(values, [(layer, edge) for layer, (_, edge) in found if is_folded(layer)])
            edges = [edge for _, (_, edge) in found]
            # no row is in another's loss, so that the gradient of the sum at a layer's outputs holds each row's own
            deltas = torch.autograd.grad(values.sum(), edges, allow_unused=True) if edges else ()
        used: dict[str, list[LayerRows]] = {layer.name: [] for layer in layers}
        for (layer, (seen, _)), delta in zip(found, deltas, strict=True):
            if delta is not None:
                seen = tuple(raised(x if parameters is not None else x.detach()) for x in seen)
                used[layer.name].append(layer.factors(seen, raised(delta), len(values)))
        factors: dict[str, LayerRows] = {
            layer.name: joined(used[layer.name])
            if used[layer.name]
            # not called, or nothing that the losses depend on
            else Formed(values.new_zeros(len(values), layer.n_parameters))
            for layer in layers
        }
        # the very list: who asks for some layers does without the rest, which costs a pass or more
        if self.rest and layers is self.layers:
            formed, self._vmap = formed_gradients(self.model, block, measure, self.rest, self._vmap)
            factors[REST] = Formed(formed)
        if self.roots is not None:
            factors = by_parameter(factors, self.groups, self.model.parameters, self.roots)
        return values.detach() if parameters is None else values, factors

    # ---- what the methods ask for ----------------------------------------------------------------------------------

    def outputs(self, inputs: Inputs) -> Tensor:
        """Raw outputs of a block, without a graph."""
        with torch.no_grad():
            return forward(self.model.module, inputs)

    def losses(self, rows: Rows, losses: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
        """Loss of every row (n,); `losses` replaces the model's own."""
        measure = losses or self.model.likelihood.losses
        result = torch.empty(len(rows), dtype=self.model.dtype, device=self.model.device)

        def work(part: slice) -> None:
            inputs, targets, weight = rows.block(part, self.model.device)
            with torch.no_grad():
                values = measure(forward(self.model.module, inputs), targets)
            result[part] = values if weight is None else values * weight

        self.sweep(rows, work)
        return result

    def dots(self, rows: Rows, direction: Direction, start: int = 0, stop: int | None = None) -> Tensor:
        """Directional derivative of every row's loss (n,): <gradient_i, direction>, without any gradient per row.

        Parameters that the direction does not name count as zero in it.
        """
        stop = len(rows) if stop is None else stop
        result = torch.empty(stop - start, dtype=self.model.dtype, device=self.model.device)

        def work(part: slice) -> None:
            result[part.start - start : part.stop - start] = self.block_dots(
                rows.block(part, self.model.device), direction
            )

        self.sweep(rows, work, start, stop)
        return result

    def block_dots(self, block: tuple, direction: Direction) -> Tensor:
        """`dots` of one block: by forward mode, or twice backward, or formed gradients, whichever the module has."""
        inputs, targets, weight = block
        values = {name: value.detach() for name, value in self.model.parameters.items() if name in direction}
        along = {name: direction[name].to(value) for name, value in values.items()}
        run = partial(self._losses_at, inputs, targets, weight)
        if self._forward_mode:
            try:
                with torch.no_grad(), plain_kernels(self.model.module), dual_numbers(values, along) as dual:
                    losses, dots = forward_ad.unpack_dual(run(dual))
                    # no change reaches the losses of these rows
                    return torch.zeros_like(losses) if dots is None else dots
            except RuntimeError as error:  # no forward mode; an error of another kind comes again below
                if out_of_memory(error):
                    raise
                self._forward_mode = False
        try:
            return self._twice_backward(run, values, along)
        except RuntimeError as error:  # neither: the gradients are formed
            if out_of_memory(error):
                raise
            pieces = self.block_gradients(block).split([v.numel() for v in self.model.parameters.values()], dim=1)
            formed = dict(zip(self.model.parameters, pieces, strict=True))
            return sum(formed[name] @ value.flatten() for name, value in along.items())  # type: ignore[return-value]

    def _twice_backward(self, run: Callable, values: dict[str, Tensor], along: dict[str, Tensor]) -> Tensor:
        leaves = {name: value.requires_grad_() for name, value in values.items()}
        with torch.enable_grad(), plain_kernels(self.model.module):
            losses = run(leaves)
            # sum_i p_i <g_i, v> is linear in the probe p: its derivative by p_i is row i's number
            probe = torch.ones_like(losses, requires_grad=True)
            gradients = torch.autograd.grad(losses, list(leaves.values()), probe, create_graph=True, allow_unused=True)
            pairs = zip(gradients, along.values(), strict=True)
            total = sum((g * v).sum() for g, v in pairs if g is not None)
            return torch.autograd.grad(total, probe)[0]  # type: ignore[arg-type]

    def _losses_at(self, inputs, targets, weight, values):  # type: ignore[no-untyped-def]
        losses = self.model.likelihood.losses(forward_at(self.model.module, values, inputs), targets)
        return losses if weight is None else losses * weight

    def square_norms(
        self, rows: Rows, by_layer: bool = False, start: int = 0, stop: int | None = None
    ) -> Tensor | dict[str, Tensor]:
        """Squared gradient length of every row (n,), or one such vector per layer."""
        self.prepare(rows)
        stop = len(rows) if stop is None else stop
        parts = {
            name: torch.empty(stop - start, dtype=self.model.dtype, device=self.model.device) for name in self.groups
        }

        def work(part: slice) -> None:
            _, factors = self.capture(rows.block(part, self.model.device))
            lengths = {name: factor.square_norms() for name, factor in factors.items()}
            for name, values in lengths.items():
                parts[name][part.start - start : part.stop - start] = values

        self.sweep(rows, work, start, stop)
        return parts if by_layer else torch.stack(list(parts.values())).sum(0)

    def gradients(self, rows: Rows, part: slice) -> Tensor:
        """(len(part), p) gradients of a few rows, formed, in the order of the model's parameters."""
        self.prepare(rows)
        return self.block_gradients(rows.block(part, self.model.device))

    def block_gradients(self, block: tuple, losses: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
        """`gradients` of one block; `losses(outputs, targets)` replaces the model's own."""
        return self.formed(self.capture(block, losses)[1])

    def formed(self, factors: Mapping[str, LayerRows]) -> Tensor:
        """(n, p) gradients from their factors, in the order of the model's parameters."""
        own, pieces = self.model.parameters, dict[str, Tensor]()
        for part, names in self.groups.items():
            sizes = [own[name].numel() for name in names]
            pieces |= dict(zip(names, factors[part].gradients().split(sizes, dim=1), strict=True))
        return torch.cat([pieces[name] for name in own], dim=1)

    def mean_gradient(self, rows: Rows, losses: Callable[[Tensor, Tensor], Tensor] | None = None) -> dict[str, Tensor]:
        """Gradient of the rows' mean loss by parameter, without the penalty; `losses` replaces the model's own."""
        return {name: value / len(rows) for name, value in self.gradient(rows, 1.0, losses).items()}

    def gradient(
        self, rows: Rows, size: float, losses: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Gradient of the sum of the rows' losses over `size`, as `mean_gradient`; 0 where there are no rows."""
        own = self.model.parameters
        measure = losses or self.model.likelihood.losses
        total: dict[str, Tensor] = {}

        def work(part: slice) -> None:
            inputs, targets, weight = rows.block(part, self.model.device)
            with torch.enable_grad(), eval_kernels(self.model.module):
                values = measure(forward(self.model.module, inputs), targets)
                shares = torch.full_like(values, 1 / size) if weight is None else weight / size
                gradients = torch.autograd.grad(values, list(own.values()), shares, allow_unused=True)
            found = {name: gradient for name, gradient in zip(own, gradients, strict=True) if gradient is not None}
            # not in place: gradients of several parameters may be one tensor
            total.update({name: total[name] + value if name in total else value for name, value in found.items()})

        if len(rows):
            self.sweep(rows, work)
        # parameters that no loss depends on, too
        return {name: total[name] if name in total else torch.zeros_like(value) for name, value in own.items()}
