"""What single pairs do to the loss of the batches that they stand in: derivatives of all that a removal takes away.

Of a batch B with the sum of terms S_B, pair i adds c_i = S_B - S_(B without i): its own term, and what it does as a
negative of the others. Derivatives of all c_i of a batch come from those of sum w_i c_i, by the weights w.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sktda.engine.functional import Direction, batched_gradients
from sktda.engine.layers import plain_kernels
from sktda.engine.per_row import PerRow
from sktda.model.base import Rows, forward
from sktda.model.contrastive import InBatch

JACOBIAN_BYTES = 256 * 2**20  # gradients of pairs that are held at a time


@contextmanager
def removals(engine: PerRow, rows: Rows, part: slice) -> Iterator[Tensor]:
    """c (m,) of the pairs of one batch, in which it can be differentiated."""
    model = engine.model
    assert isinstance(model.likelihood, InBatch)
    with torch.enable_grad(), plain_kernels(model.module):
        yield model.likelihood.removals(forward(model.module, rows.block(part, model.device)[0]))


def _slopes(engine: PerRow, values: Tensor) -> tuple[Tensor, list[Tensor]]:
    """(weights w (m,), the gradient of sum w_i c_i by parameter), from which derivatives can be taken."""
    weights = torch.ones_like(values, requires_grad=True)
    own = list(engine.model.parameters.values())
    return weights, list(torch.autograd.grad(values, own, weights, create_graph=True, materialize_grads=True))


def removal_slopes(engine: PerRow, rows: Rows, directions: Direction) -> Tensor:
    """(len(rows), k) derivatives of c_i along k directions (k, ...) by parameter; those not named count as zero."""
    names = engine.model.parameters

    def work(part: slice) -> Tensor:
        with removals(engine, rows, part) as values:
            weights, slopes = _slopes(engine, values)
            # parameters that no c depends on have zeros without a graph
            used = [
                (s, directions[n].to(s))
                for n, s in zip(names, slopes, strict=True)
                if s.requires_grad and n in directions
            ]
            return batched_gradients([s for s, _ in used], [weights], [d for _, d in used])[0].T.detach()

    return torch.cat([found for _, found in engine.computed(rows, work)])


def removal_bends(engine: PerRow, rows: Rows, v: Direction, product: Direction, slope: Direction) -> Tensor:
    """(len(rows), k) values <H v, c_i'> + v' c_i'' G for k directions v (k, ...); product is H v, slope G."""
    own = engine.model.parameters
    k = len(next(iter(v.values())))

    def work(part: slice) -> Tensor:
        with removals(engine, rows, part) as values:
            weights, slopes = _slopes(engine, values)
            named = dict(zip(own, slopes, strict=True))
            found = []
            for j in range(k):
                along = _dot(named, {name: value[j] for name, value in v.items()})
                # sum_i w_i c_i'' v; the derivative by w_i of its dot with G is v' c_i'' G, by symmetry
                bent = torch.autograd.grad(along, list(own.values()), create_graph=True, materialize_grads=True)
                total = _dot(named, {name: value[j] for name, value in product.items()})
                total = total + _dot(dict(zip(own, bent, strict=True)), slope)
                found.append(torch.autograd.grad(total, weights, retain_graph=j < k - 1)[0])
            return torch.stack(found, dim=1).detach()

    return torch.cat([found for _, found in engine.computed(rows, work)])


def _dot(values: dict[str, Tensor], direction: Direction) -> Tensor:
    return torch.stack([(value * direction[name].to(value)).sum() for name, value in values.items()]).sum()


def removal_squares(engine: PerRow, rows: Rows, roots: dict[str, float] | None) -> Tensor:
    """(len(rows),) squared lengths of the gradients of c_i, parameters multiplied by `roots`."""
    own = engine.model.parameters
    size = sum(value.nbytes for value in own.values())

    def work(part: slice) -> Tensor:
        with removals(engine, rows, part) as values:
            each = torch.eye(len(values)).to(values)
            found = []
            # squares are not linear in w: every c_i needs a backward pass, here along unit vectors
            for some in each.split(max(1, JACOBIAN_BYTES // size)):
                jacobian = batched_gradients([values], list(own.values()), [some])
                scaled = [j * (1.0 if roots is None else roots[n]) for n, j in zip(own, jacobian, strict=True)]
                found.append(sum(j.detach().reshape(len(j), -1).square().sum(1) for j in scaled))
            return torch.cat(found)  # type: ignore[arg-type]

    return torch.cat([found for _, found in engine.computed(rows, work)])
