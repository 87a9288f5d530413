"""Many nets of any module trained at once in one program: their parameters stacked, each step one pass for all.

`batched` does the same for MLPs and is faster there. Here the module is any that `torch.func` can map over: no dropout,
no batch statistics. Every net is what a plain loop would make of it: `torch.manual_seed(seed)`, the module's own
initialisation, in every epoch `torch.randperm` over its own rows, batches with the last partial one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


@dataclass(frozen=True)
class Run:
    """One stage of training on the mean loss. momentum: of SGD; None = AdamW."""

    lr: float
    epochs: int
    batch_size: int = 32
    weight_decay: float = 0.0  # torch's
    momentum: float | None = 0.9

    def optimiser(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Of the parameters: elementwise, so that those of many nets can share it."""
        if self.momentum is None:
            return torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


class Stacked:
    """One untrained net per seed; they are called as one."""

    def __init__(self, build: Callable[[], nn.Module], seeds: Sequence[int]) -> None:
        nets = []
        for seed in seeds:
            torch.manual_seed(seed)
            nets.append(build())
        self.module = nets[0]
        self.parameters, self.buffers = stack_module_state(nets)
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.seeds = list(seeds)

    def __call__(self, X: Tensor, *, same: bool = False) -> Tensor:
        """Outputs (n_nets, n, ...) of each net's own inputs (n_nets, n, ...), or of the same (n, ...) for all."""

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self.module, (parameters, buffers), (x,))

        return vmap(one, in_dims=(0, 0, None if same else 0))(self.parameters, self.buffers, X)

    def train(
        self,
        run: Run,
        loss: Callable[[Tensor, Tensor], Tensor],
        X: Tensor,
        y: Tensor,
        rows: Tensor,
        after: Callable[[int], None] = lambda epoch: None,
    ) -> None:
        """One stage: net b sees the rows `rows[b]`; loss (outputs, targets) -> (n_nets, n); after(epochs done).

        Raises ValueError if a net diverges.
        """
        optimiser = run.optimiser(self.parameters.values())
        for epoch in range(run.epochs):
            orders = torch.stack([torch.randperm(rows.shape[1], generator=each) for each in self.generators])
            for batch in rows.gather(1, orders).split(run.batch_size, dim=1):
                # the sum over nets of each one's mean loss: no net's gradient depends on another
                optimiser.zero_grad()
                loss(self(X[batch]), y[batch]).mean(dim=1).sum().backward()
                optimiser.step()
            after(epoch + 1)
        finite = torch.stack([p.detach().isfinite().flatten(1).all(1) for p in self.parameters.values()]).all(0)
        if not finite.all():
            seed = self.seeds[int((~finite).nonzero()[0])]
            raise ValueError(f"{int((~finite).sum())} nets diverged, the first with seed {seed}; lower lr={run.lr}")
