"""Many small MLPs trained at once in one program: their weights stacked, one matrix product per layer for all of them.

Every net is what a plain loop would make of it: `torch.manual_seed(seed)`, torch's default Linear layers, in every
epoch `torch.randperm` over its own rows, batches with the last partial one, torch's dropout, SGD or AdamW. Only the
rounding of the products differs (`python benchmarks/truth.py digits --check`). On a CPU, nets of 9,000 parameters take
about a third of the time that they take one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from shared.common import quick
from torch import Tensor
from torch.nn import functional as F

GROUP_BYTES = 2**24  # of parameters, gradients, momentum and activations; what fits the caches of a CPU is fastest


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Losses (...,) of logits (..., n_classes) and classes (...,)."""
    return -outputs.log_softmax(-1).gather(-1, targets[..., None])[..., 0]


def margin(outputs: Tensor, targets: Tensor) -> Tensor:
    """log p - log(1 - p) of the right class (...,): its logit minus the logsumexp of the others."""
    right = F.one_hot(targets, outputs.shape[-1]).bool()
    others = outputs.masked_fill(right, -torch.inf).logsumexp(-1)
    return outputs.gather(-1, targets[..., None])[..., 0] - others


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Losses (...,) of outputs (..., 1) and targets (...,)."""
    return (outputs[..., 0] - targets) ** 2


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """As `squared_error`."""
    return (outputs[..., 0] - targets).abs()


@dataclass(frozen=True)
class Recipe:
    """How a net is built and trained: Linear layers of these widths with ReLU between them, on the mean loss.

    momentum: of SGD; None = AdamW, which is as good as one optimiser per net, being elementwise. dropout: share of the
    hidden units at zero in each step.
    """

    widths: tuple[int, ...]
    loss: Callable[[Tensor, Tensor], Tensor]
    lr: float
    weight_decay: float  # torch's, of weights and biases: added to the gradient, or decoupled from it (AdamW)
    batch_size: int
    epochs: int
    momentum: float | None = 0.9
    dropout: float = 0.0

    def optimiser(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """SGD or AdamW on these parameters."""
        if self.momentum is None:
            return torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    @property
    def group_size(self) -> int:
        """Nets that are trained together."""
        parameters = sum((a + 1) * b for a, b in pairwise(self.widths))
        activations = self.batch_size * sum(self.widths)
        return max(1, GROUP_BYTES // (4 * 3 * (parameters + activations)))


class StackedMLP:
    """One untrained net per seed. Parameters are (n_nets, out, in) and (n_nets, 1, out), in turns.

    Drawn in float32 on the CPU, so that a seed means the same net on any device and in any dtype.
    """

    def __init__(self, widths: Sequence[int], generators: Sequence[torch.Generator], like: Tensor) -> None:
        self.parameters: list[Tensor] = []
        for n_in, n_out in pairwise(widths):
            for shape in ((n_out, n_in), (1, n_out)):
                drawn = [torch.empty(shape).uniform_(-(n_in**-0.5), n_in**-0.5, generator=g) for g in generators]
                self.parameters.append(torch.stack(drawn).to(like).requires_grad_())

    def __call__(self, X: Tensor, dropout: float = 0.0, generators: Sequence[torch.Generator] = ()) -> Tensor:
        """Outputs (n_nets, n, out) of each net's own inputs (n_nets, n, in), or of the same ones (n, in) for all.

        dropout: of the hidden units, drawn from one generator per net.
        """
        X = X.expand(len(self.parameters[0]), *X.shape[-2:])
        for layer in range(0, len(self.parameters), 2):
            weight, bias = self.parameters[layer : layer + 2]
            if layer:
                X = X.relu()
                if dropout:
                    X = X * kept_units(X, dropout, generators)
            X = torch.baddbmm(bias, X, weight.mT)
        return X


def kept_units(X: Tensor, dropout: float, generators: Sequence[torch.Generator]) -> Tensor:
    """1 / (1 - dropout) where a unit of X (n_nets, n, width) is kept, else 0; drawn as torch's dropout does."""
    drawn = [torch.empty(X.shape[1:], dtype=X.dtype).bernoulli_(1 - dropout, generator=each) for each in generators]
    return torch.stack(drawn).div_(1 - dropout).to(X)


def trained(recipe: Recipe, X: Tensor, y: Tensor, rows: Tensor, seeds: Sequence[int]) -> StackedMLP:
    """One net per seed after training; net b sees the rows `rows[b]` of X and y.

    X (n, in) and y (n,): on the device to train on; rows (n_nets, n_kept): positions, as many for every net.
    Deterministic on one device and for one number of threads. Memory grows with the number of nets: cut them into
    groups of `recipe.group_size`. Raises ValueError if a net diverges. With --quick two epochs.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    nets = StackedMLP(recipe.widths, generators, like=X)
    optimiser = recipe.optimiser(nets.parameters)
    n_kept = rows.shape[1]
    for _ in range(2 if quick() else recipe.epochs):
        orders = torch.stack([torch.randperm(n_kept, generator=generator) for generator in generators])
        for batch in rows.gather(1, orders).to(X.device).split(recipe.batch_size, dim=1):
            # the sum over nets of each one's mean loss: no net's gradient depends on another
            loss = recipe.loss(nets(X[batch], recipe.dropout, generators), y[batch]).mean(dim=1).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    finite = torch.stack([p.detach().isfinite().flatten(1).all(1) for p in nets.parameters]).all(0)
    if not finite.all():
        seed = seeds[int((~finite).nonzero()[0])]
        raise ValueError(f"{int((~finite).sum())} nets diverged, the first with seed {seed}; lower lr={recipe.lr}")
    return nets
