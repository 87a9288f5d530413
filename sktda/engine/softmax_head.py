"""Closed form of second derivatives where the only trained layer is a linear one that gives the logits of a softmax."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sktda.engine.functional import Direction
from sktda.engine.layers import Layer, recording
from sktda.engine.per_row import PerRow
from sktda.model.base import Inputs, Rows, forward
from sktda.model.softmax import Categorical


class SoftmaxHead:
    """Cross-entropy of logits V'f with fixed features f: d = in + bias columns, C classes.

    Of a block with features F (n, d), E = P - Y, and for a direction V (C, d): A = F V', S = P * A - P * rowsum(P * A).
    The gradient of row i is e_i f_i', and its change along V is s_i f_i'. Weights of rows multiply E and S.
    """

    def __init__(self, engine: PerRow, layer: Layer) -> None:
        self.engine = engine
        self.layer = layer

    @classmethod
    def of(cls, engine: PerRow, rows: Rows) -> SoftmaxHead | None:
        """The closed form for this model, or None where it does not hold."""
        engine.prepare(rows)
        model = engine.model
        if len(engine.layers or []) != 1 or engine.rest or model.likelihood != Categorical():
            return None
        head = cls(engine, engine.layers[0])  # type: ignore[index]
        if not isinstance(head.layer.module, nn.Linear):
            return None
        inputs, _, _ = rows.block(slice(0, 1), model.device)
        with torch.enable_grad(), recording([head.layer], 1) as calls:
            outputs = forward(model.module, inputs)
        # the output itself and not only the same numbers, which may be changed later, in place, or at other rows only
        last = torch.autograd.graph.get_gradient_edge(outputs)
        return head if [edge for _, edge in calls[head.layer.name]] == [last] else None

    def products(self, rows: Rows, directions: Direction) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(gradient of the mean loss plus penalty, its Hessian times k directions (k, ...)), by parameter."""
        model, v = self.engine.model, self._matrices(directions)
        gradient, product = torch.zeros_like(v[0]), torch.zeros_like(v)

        def work(part: slice) -> None:
            features, errors, changes = self._parts(rows.block(part, model.device), v)
            slope = errors.T @ features
            bend = changes.transpose(1, 2) @ features  # (k, C, n) @ (n, d): sum of s_i f_i'
            gradient.add_(slope)  # only now: a batch that runs out of memory is tried again
            product.add_(bend)

        self.engine.sweep(rows, work)
        own = {name: value.detach() for name, value in model.parameters.items()}
        results = []
        for mean, at in ((gradient / len(rows), own), (product / len(rows), directions)):
            parts = self._by_parameter(mean)
            results.append({name: parts[name] + model.decay.get(name, 0.0) * at[name] for name in own})
        return results[0], results[1]

    def second(self, block: tuple, v: Direction, moved: Direction, gradient: Direction) -> Tensor:
        """(n, k) <moved, g_i> + v' H_i gradient of the rows of a block, for k directions v and moved (k, ...)."""
        features, errors, changes = self._parts(block, self._matrices(v))
        by_error = (errors * (features @ self._matrices(moved).transpose(1, 2))).sum(2)  # (k, n): e_i' M f_i
        one = {name: value[None] for name, value in gradient.items()}
        # s_i' G f_i: H_i v is s_i f_i', and H_i is symmetric
        return (by_error + (changes * (features @ self._matrices(one)[0].T)).sum(2)).T

    def _parts(self, block: tuple, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(F, E, S) of a block, S (k, n, C) for k matrices v."""
        inputs, targets, weight = block
        features, logits = self._seen(inputs)
        p = logits.softmax(dim=1)
        errors = p - nn.functional.one_hot(targets, p.shape[1])
        along = p * (features @ v.transpose(1, 2))
        changes = along - p * along.sum(2, keepdim=True)  # (diag(p) - p p') a_i, the Hessian of the loss by the logits
        if weight is None:
            return features, errors, changes
        return features, weight[:, None] * errors, weight[:, None] * changes

    def _seen(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(features with a one for the bias, logits)."""
        [(features, logits)] = self._calls(inputs)
        if "weight" not in self.layer.trained:
            features = features[:, :0]  # the bias alone is trained
        if "bias" in self.layer.trained:
            features = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
        return features, logits

    def _calls(self, inputs: Inputs) -> list[tuple[Tensor, Tensor]]:
        """(input, output) of every call of the layer."""
        seen: list[tuple[Tensor, Tensor]] = []
        handle = self.layer.module.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
        try:
            with torch.no_grad():
                forward(self.engine.model.module, inputs)
        finally:
            handle.remove()
        return seen

    def _matrices(self, directions: Direction) -> Tensor:
        """(k, C, d)."""
        parts = [directions[name] for name in self.layer.parameters]
        # the bias (k, C) is one more column
        return torch.cat([part.reshape(*part.shape[:2], -1) for part in parts], dim=2)

    def _by_parameter(self, matrix: Tensor) -> dict[str, Tensor]:
        """From (C, d) or (k, C, d)."""
        widths = [shape.numel() // shape[0] for shape in self.layer.shapes]
        parts = matrix.split(widths, dim=-1)
        return {
            name: part.reshape(*matrix.shape[:-2], *shape)
            for name, part, shape in zip(self.layer.parameters, parts, self.layer.shapes, strict=True)
        }
