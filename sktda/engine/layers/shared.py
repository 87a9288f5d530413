"""Parameters that stand in several modules: word vectors that also score the words, or one map in two places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sktda.engine.layers.layer import Layer, Note
from sktda.engine.layers.linear import Linear
from sktda.engine.layers.lookup import Embedding, Lookup
from sktda.engine.layers.product import Mapped, Product
from sktda.engine.layers.rows import Formed, LayerRows, Summed, total


class Tied(Summed):
    """A table (size, d) that is looked up, and multiplied with: two gradients, in their factors."""

    def __init__(self, parts: tuple[Lookup, Product]) -> None:
        super().__init__(parts)
        self.lookup, self.product = parts

    def pairs(self, other: LayerRows) -> Tensor:
        """(n,), of both with both."""
        assert isinstance(other, Tied)
        # <L + P, M + R> = <L, M> + <P, R> + <L, R> + <M, P>: one table, so that its two uses meet
        found = self.lookup.pairs(other.lookup) + self.product.pairs(other.product)
        return found + crossed(self.lookup, other.product) + crossed(other.lookup, self.product)

    def square_norms(self) -> Tensor:
        """(n,) squared lengths."""
        found = self.lookup.square_norms() + self.product.square_norms()
        return found + 2 * crossed(self.lookup, self.product)

    def gram(self, other: LayerRows) -> Tensor:
        """(n, m), of both with both."""
        assert isinstance(other, Tied)
        found = self.lookup.gram(other.lookup) + self.product.gram(other.product)
        return found + crossed_gram(self.lookup, other.product) + crossed_gram(other.lookup, self.product).T


def crossed(lookup: Lookup, product: Product) -> Tensor:
    """(n,) dot products of the gradients of the same rows, over pairs of a position of each."""
    a, delta = positions(product)
    # e_x d' at a lookup of x and delta a' at a product: delta[x] (a . d), for all (n, u, t) pairs of positions
    at = lookup.indices[:, None, :].expand(-1, delta.shape[1], -1)
    return ((a @ lookup.delta.mT) * delta.gather(2, at)).flatten(1).sum(1)


def crossed_gram(lookup: Lookup, product: Product) -> Tensor:
    """(n, m) dot products of the gradients of n rows with those of m others."""
    a, delta = positions(product)
    # one row of the lookups at a time: (m, u, t) numbers, and not n times as many
    rows = [
        (torch.einsum("mud,td->mut", a, own) * delta[:, :, index]).sum((1, 2))
        for index, own in zip(lookup.indices, lookup.delta, strict=True)
    ]
    return torch.stack(rows)


def positions(product: Product) -> tuple[Tensor, Tensor]:
    """The factors with an axis of positions."""
    return (product.a, product.delta) if product.shared else (product.a[:, None], product.delta[:, None])


def joined(calls: Sequence[LayerRows]) -> LayerRows:
    """All calls of a layer in one pass together; those of a kind as further positions."""
    lookups = [call for call in calls if isinstance(call, Lookup)]
    products = [call for call in calls if isinstance(call, Product)]
    if len(lookups) + len(products) < len(calls):
        # a call without factors: what can be added is gradients
        return calls[0] if len(calls) == 1 else Formed(total(call.gradients() for call in calls))
    if lookups and products:
        return Tied((looked_up(lookups), multiplied(products)))
    return looked_up(lookups) if lookups else multiplied(products)


def looked_up(calls: list[Lookup]) -> Lookup:
    """Lookups as one; the padding index has no gradient already."""
    if len(calls) == 1:
        return calls[0]
    indices = torch.cat([call.indices for call in calls], dim=1)
    return Lookup(indices, torch.cat([call.delta for call in calls], dim=1), calls[0].size, None)


def multiplied(calls: list[Product]) -> Product:
    """Products as one."""
    first = calls[0]
    if len(calls) == 1:
        return first
    a, delta = (torch.cat(values, dim=1) for values in zip(*map(positions, calls), strict=True))
    return Mapped(a, delta, first.weight, first.bias, first.transposed)


class Shared(Layer):
    """One weight of several linear maps and tables."""

    is_product = True

    def __init__(self, parts: Sequence[Layer]) -> None:
        first = parts[0]
        super().__init__(first.name, first.module, ("weight",))
        self.parts = parts
        self.transposed = first.transposed

    def watch(self, note: Note, n: int) -> Callable[[], None]:
        """At all places, each once."""
        tables = [part for part in self.parts if isinstance(part, Embedding)]
        # one that sees inside sees every lookup in this weight: a second one would note them again
        tables = [part for part in tables if part.inside][:1] or tables
        ends = [part.watch(note, n) for part in self.parts if part in tables or not isinstance(part, Embedding)]

        def end() -> None:
            for each in ends:
                each()

        return end

    def rows(self, inputs: tuple[Tensor, ...], delta: Tensor) -> LayerRows:
        """Whole numbers are looked up; what floats meets a linear map."""
        floats = inputs[0].is_floating_point()
        part = next((part for part in self.parts if isinstance(part, Embedding) != floats), None)
        if part is None:
            raise RuntimeError(f"layer {self.name!r} met inputs of a kind that it has no part for")
        return part.rows(inputs, delta)


def with_shared(module: nn.Module, layers: list[Layer]) -> list[Layer]:
    """The layers, under the names that the module's parameters have, with one for each weight in several places.

    Layers of other kinds stay as they are: `trusted` finds that their parameters belong to no single one.
    """
    # torch names a shared parameter by its first place, and own has it under every name
    names = {id(value): name for name, value in module.named_parameters()}
    own = dict(module.named_parameters(remove_duplicate=False))
    for layer in layers:
        layer.parameters = [names[id(own[name])] for name in layer.parameters]
    uses = Counter(name for layer in layers for name in layer.parameters)
    tied = {name for name, count in uses.items() if count > 1}
    found: list[Layer] = []
    parts: dict[str, list[Layer]] = {}
    for layer in layers:
        if not tied.intersection(layer.parameters) or not isinstance(layer, Linear | Embedding):
            found.append(layer)
            continue
        for key, name in zip(layer.trained, layer.parameters, strict=True):
            # a shared weight does not make its bias a shared one: a layer for each
            part = type(layer)(layer.name if key == "weight" else f"{layer.name}.{key}", layer.module, (key,))
            part.parameters = [name]
            if key == "weight" and name in tied:
                parts.setdefault(name, []).append(part)
            else:
                found.append(part)
    for name, every in parts.items():
        # a use of another kind, or (out, in) beside (in, out): no part is all of the gradient, and `trusted` takes none
        if len(every) == uses[name] and len({part.transposed for part in every}) == 1:
            shared = Shared(every)
            shared.parameters = [name]
            found.append(shared)
        else:
            found += every
    return found
