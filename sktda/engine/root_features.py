"""The Gauss-Newton matrix of some rows as features: g_q' G g_i is a dot product of two short vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from sktda.engine.curvature import along_root, rooted_targets
from sktda.engine.layers import LayerRows, Product
from sktda.engine.layers.product import by_parameter
from sktda.engine.per_row import PerRow
from sktda.model.base import Rows


class RootFeatures:
    """phi(g) = (<r_jk' J_j, g>)_jk / sqrt(B) for B rows j and their output roots r_jk, so that phi(g)' phi(h) = g' G h.

    G = (1/B) sum_j J_j' (sum_k r_jk r_jk') J_j, J_j the Jacobian of row j's outputs; the penalty is not in it. Dots of
    gradients are products of factors: nothing of the size of the parameters is formed for layers that have them.
    """

    def __init__(self, engine: PerRow, rows: Rows) -> None:
        engine.prepare(rows)
        model = engine.model
        self.scale = len(rows) ** -0.5
        self.batches: list[list[dict[str, LayerRows]]] = []

        def work(part: slice) -> None:
            inputs, roots = rooted_targets(model, rows.block(part, model.device))
            own = [engine.capture((inputs, roots[:, k], None), along_root)[1] for k in range(roots.shape[1])]
            for name, first in own[0].items():
                if isinstance(first, Product):  # the inputs are the same for every root
                    for other in own[1:]:
                        other[name].a = first.a  # type: ignore[attr-defined]
            self.batches.append(own)

        engine.sweep(rows, work)

    def of(self, factors: dict[str, LayerRows]) -> Tensor:
        """(n, B k) features of the gradients of a block of rows."""
        parts = []
        for roots in self.batches:
            dots: list[Tensor | int] = [0] * len(roots)
            for name, own in factors.items():
                first = roots[0][name]
                if isinstance(own, Product) and isinstance(first, Product) and not own.shared:
                    inputs = own.a @ first.a.T  # one product for all roots, which differ in delta only
                    for k, root in enumerate(roots):
                        assert isinstance(root[name], Product)
                        dots[k] = dots[k] + inputs * (own.delta @ root[name].delta.T)  # type: ignore[attr-defined]
                else:
                    for k, root in enumerate(roots):
                        dots[k] = dots[k] + own.gram(root[name])
            parts += dots
        return torch.cat(parts, dim=1) * self.scale  # type: ignore[arg-type]


def penalised(engine: PerRow, factors: dict[str, LayerRows]) -> dict[str, LayerRows]:
    """Factors of the gradients times the penalty's Hessian, which is a number per parameter; unpenalised layers go."""
    own, decay = engine.model.parameters, engine.model.decay
    some = {name: each for name, each in factors.items() if any(map(decay.get, engine.groups[name]))}
    return by_parameter(some, engine.groups, own, {name: decay.get(name, 0.0) for name in own})
