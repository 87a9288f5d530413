"""The damping of EK-FAC for nets, where none is given.

Three things decide it (measured in benchmarks/damping.py).

The penalty is left out. At a stationary point of a net whose L layers are homogeneous (Linear, ReLU), the part of the
Hessian that Gauss-Newton drops, sum_i r_i times the second derivatives of the outputs, has along the parameters the
curvature -(L - 1) times the weight decay: with two layers it cancels the penalty. One without the other is neither; on
a net with small losses, whose eigenvalues are below its decay, it makes the inverse flat. A model of one layer has its
penalty, which is exact.

Training had no time for small eigenvalues. After steps of total rate x the weight of a gradient there is x and not
1 / s: the average gradient on the way, which is the last one over the share u of the loss that is left. A damping of
u / x does that. EK-FAC has no links between its layers, which all answer to the same loss: each takes 1 / L of it.

A tenth of the mean eigenvalue is the least (Grosse et al. 2023), and without a record u of the mean.
"""

from __future__ import annotations

from copy import copy

import numpy as np
import torch
from torch import Tensor

from sktda.devices import in_blocks
from sktda.engine.ekfac import EKFAC
from sktda.engine.per_row import PerRow
from sktda.model.base import DifferentiableModel, Rows, forward, sent
from sktda.model.criterion import OfCriterion
from sktda.model.softmax import Tokens

LEAST = 0.1  # of a layer's mean eigenvalue
SEEN = 256  # rows by whose losses it is told how much training has left to learn
OTHERS = 4  # targets of other rows that each of them meets


def without_penalty(curvature: EKFAC, engine: PerRow) -> EKFAC:
    """The curvature of the loss alone; the same one for a model of one layer, whose penalty is all of its Hessian."""
    return curvature if single(curvature, engine) else unpenalised(curvature, engine)


def unpenalised(curvature: EKFAC, engine: PerRow) -> EKFAC:
    """The curvature of the loss alone, of any model."""
    bare = copy(curvature)
    bare.values = {
        # mean squares, below 0 only by the rounding of the penalty that was added
        block.name: (curvature.values[block.name] - curvature.penalty(engine, block)).clamp(min=0)
        for block in curvature.layers
    }
    return bare


def damped(curvature: EKFAC, engine: PerRow, rows: Rows, rate: float | None) -> EKFAC:
    """What `without_penalty` gives, with the default damping in its eigenvalues.

    rate: sum of the learning rates of SGD, divided by 1 - momentum; None = unknown.
    """
    found = curvature.values
    if single(curvature, engine):
        added = {name: LEAST * values.mean() for name, values in found.items()}
    else:
        left = unlearned(engine, rows)
        if rate is None:
            added = {name: left.clamp(min=LEAST).to(values) * values.mean() for name, values in found.items()}
        else:
            traces = torch.stack([values.sum() for values in found.values()])
            count = traces.sum().square() / traces.square().sum()  # of layers, those that matter little counting little
            stopped = left.to(count) / (rate * count)
            added = {name: (LEAST * values.mean()).maximum(stopped) for name, values in found.items()}
    result = copy(curvature)
    result.values = {name: values + added[name] for name, values in found.items()}
    return result


def single(curvature: EKFAC, engine: PerRow) -> bool:
    """Whether the Hessian of the model is the Gauss-Newton matrix: nothing stands before or behind its one layer."""
    return engine.model.linear or len(curvature.layers) == 1


def tells(model: DifferentiableModel) -> bool:
    """Whether targets of other rows say what is left to learn: those of several positions count at others there."""
    return not isinstance(model.likelihood, Tokens | OfCriterion)


def unlearned(engine: PerRow, rows: Rows) -> Tensor:
    """Mean loss of some rows, divided by that of the same outputs for the targets of other rows; 0-d, between 0 and 1.

    1 = the outputs say nothing about their own row. 0 where it cannot be told: losses below 0, targets of several
    positions.
    """
    model = engine.model
    if not tells(model):
        return torch.zeros((), dtype=model.dtype, device=model.device)
    engine.prepare(rows)
    chosen = np.unique(np.linspace(0, len(rows) - 1, SEEN).astype(int))
    rng = np.random.default_rng(0)
    partners = torch.from_numpy(np.stack([rng.permutation(len(chosen)) for _ in range(OTHERS)]))
    # read and sent once: a row is read with its inputs
    labels, places = (sent(each, model.device) for each in (rows.read(chosen)[1], partners))

    @torch.no_grad()
    def losses(part: slice) -> Tensor:
        """Sums over these rows (2,): of their own losses, and of the mean one for other targets."""
        inputs, targets, _ = rows.block(chosen[part], model.device)
        outputs = forward(model.module, inputs)
        others = [labels[each[part]] for each in places]
        if any(each.shape != targets.shape for each in others):
            return torch.zeros(2, dtype=outputs.dtype, device=outputs.device)
        found = [model.likelihood.losses(outputs, each).sum() for each in (targets, *others)]
        return torch.stack([found[0], torch.stack(found[1:]).mean()])

    # in batches of the engine's own, not of `batch_size`: the damping must not change with it
    own, other = torch.stack([found for _, found in in_blocks(len(chosen), min(engine.own_batch, SEEN), losses)]).sum(0)
    told = (own >= 0) & (other > 0) & other.isfinite()
    return torch.where(told, (own / other).clamp(max=1), torch.zeros_like(own))
