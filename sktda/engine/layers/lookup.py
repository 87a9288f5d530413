"""Tables of vectors that rows look up by index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sktda.engine.layers.layer import Called, Layer, Note
from sktda.engine.layers.rows import LayerRows, parted


class Lookup(LayerRows):
    """Embeddings: indices (n, t) into `size` vectors, delta (n, t, d); the padding index gets no gradient."""

    def __init__(self, indices: Tensor, delta: Tensor, size: int, padding: int | None) -> None:
        self.indices = indices
        self.delta = delta if padding is None else delta * (indices != padding)[:, :, None]
        self.size = size

    def scaled(self, scale: float) -> Lookup:
        """The gradients times a number."""
        return Lookup(self.indices, scale * self.delta, self.size, None)

    def unfolded(self, n: int, second: bool) -> Lookup:
        """The parts of a row as positions."""
        indices, delta = (parted(value, n, second).flatten(1, 2) for value in (self.indices, self.delta))
        return Lookup(indices, delta, self.size, None)

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self.indices.nbytes + self.delta.nbytes

    def gradients(self) -> Tensor:
        """(n, size * d), mostly zeros."""
        n, _, d = self.delta.shape
        table = self.delta.new_zeros(n, self.size, d)
        # added and not set: an index that a row holds twice gets both
        return table.scatter_add_(1, self.indices[:, :, None].expand_as(self.delta), self.delta).flatten(1)

    def contract(self, directions: Tensor) -> Tensor:
        """(n, q), from the rows of the directions that the indices name."""
        tables = directions.reshape(len(directions), self.size, -1)
        # one direction after the other: at once the vectors that the deltas meet would be (n, q, t, d)
        return torch.stack([(self.delta * table[self.indices]).flatten(1).sum(1) for table in tables], dim=1)

    def along(self, directions: Tensor) -> Tensor:
        """(n,), from the rows of each direction that the indices name."""
        tables = directions.reshape(len(directions), self.size, -1)
        return (self.delta * tables.gather(1, self.indices[:, :, None].expand_as(self.delta))).flatten(1).sum(1)

    def pairs(self, other: LayerRows) -> Tensor:
        """(n,), over pairs of positions that hold the same index."""
        assert isinstance(other, Lookup)
        # gradients e_x d' and e_y f' of one position each: their product is [x = y] <d, f>
        same = self.indices[:, :, None] == other.indices[:, None, :]
        return ((self.delta @ other.delta.transpose(1, 2)) * same).flatten(1).sum(1)

    def square_norms(self) -> Tensor:
        """(n,) squared lengths."""
        return self.pairs(self)

    def gram(self, other: LayerRows) -> Tensor:
        """(n, m), over pairs of positions that hold the same index."""
        assert isinstance(other, Lookup)
        (n, t), (m, u) = self.indices.shape, other.indices.shape
        dots = self.delta.flatten(0, 1) @ other.delta.flatten(0, 1).T
        same = self.indices.reshape(-1, 1) == other.indices.reshape(1, -1)
        return (dots * same).reshape(n, t, m, u).sum(dim=(1, 3))


class Inside(TorchFunctionMode):
    """The lookup in a table whose forward does more, such as an offset to positions, or a scale after it."""

    def __init__(self, module: nn.Module, seen: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.module, self.seen = module, seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one torch function."""
        found = func(*args, **(kwargs or {}))
        # known by the weight: the forward of a class of its own calls the function, and no layer with a hook
        if func is F.embedding and len(args) > 1 and args[1] is self.module.weight:
            return self.seen(args[0], found)
        return found


class Embedding(Layer):
    """One vector for every index."""

    is_product = True
    may_be_once = True

    @property
    def inside(self) -> bool:
        """Whether lookups are seen where torch makes them, in all modules of the same weight."""
        return type(self.module).forward is not nn.Embedding.forward

    def watch(self, note: Note, n: int) -> Callable[[], None]:
        """Indices that are given once for all rows have their vectors repeated, so that each row has a gradient."""

        def seen(x: Tensor, output: Tensor) -> Tensor:
            if self.is_once(x):
                # (1, t, d) or (t, d) into (n, t, d)
                output = (output if x.ndim > 1 else output[None]).expand(n, *output.shape[x.ndim > 1 :])
            note((x,), output)
            return output

        if not self.inside:
            return self.module.register_forward_hook(lambda module, inputs, output: seen(inputs[0], output)).remove
        inside = Inside(self.module, seen)
        inside.__enter__()
        return lambda: inside.__exit__(None, None, None)

    def rows(self, inputs: tuple[Tensor, ...], delta: Tensor) -> Lookup:
        """Indices and the gradients at their vectors."""
        (x,), module = inputs, self.module
        assert isinstance(module, nn.Embedding)
        return Lookup(
            x.reshape(len(x), -1), delta.reshape(len(x), -1, delta.shape[-1]), len(module.weight), module.padding_idx
        )


class Bag(Called):
    """The sum or the mean of the vectors of a row's indices."""

    is_product = True

    def rows(self, inputs: tuple[Tensor, ...], delta: Tensor) -> Lookup:
        """Every index of a row has the gradient of the row, a share of it for the mean."""
        (x,), module = inputs, self.module  # with offsets there is no axis of rows
        assert isinstance(module, nn.EmbeddingBag)
        if x.ndim != 2:
            raise RuntimeError("indices of an embedding bag without a row each")
        kept = torch.ones_like(x) if module.padding_idx is None else (x != module.padding_idx).to(x.dtype)
        # the mean is over what is no padding; a row of padding alone has no gradient whatever the share
        share = kept.sum(1, keepdim=True).clamp(min=1) if module.mode == "mean" else torch.ones_like(x[:, :1])
        each = (delta / share)[:, None].expand(-1, x.shape[1], -1)
        return Lookup(x, each, len(module.weight), module.padding_idx)


def layers(name: str, module: nn.Module) -> list[Layer]:
    """Tables whose gradient is that of their lookups."""
    if not isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return []
    # these change the table as they read it, divide by how often the batch holds an index, or give sparse gradients
    if module.max_norm is not None or module.scale_grad_by_freq or module.sparse:
        return []
    if isinstance(module, nn.Embedding):
        return [Embedding(name, module)]
    # which vector is the largest depends on the table itself
    return [] if module.mode == "max" else [Bag(name, module)]
