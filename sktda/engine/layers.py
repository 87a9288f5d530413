"""Per-row gradients in factored form, captured at the layers of one forward and backward pass.

For a layer s = W a + b, row i's gradient is sum_t delta_it [a_it; 1]' over the positions t where the weights are
shared (pixels of a convolution, tokens; one position for a plain Linear). The factors a and delta are kept; the
gradient itself, out x in numbers per row, is formed only where no product of factors does the job.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from threading import RLock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from sktda.data import slices

FORMED_BYTES = 64 * 2**20  # gradients of rows that are formed at a time where weights are shared
SMALL_LAYER = 8_192  # weights up to which a product with formed gradients is the faster one
FEW = 4  # directions that meet a batch in one product, whatever the size of the layer
CONTRACT_BYTES = 128 * 2**20  # products of a batch with the directions of some queries
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.RMSNorm)


class LayerRows(ABC):
    """Gradients of a batch of rows with respect to one layer's trainable parameters, flat: weight, then bias."""

    @abstractmethod
    def gradients(self) -> Tensor:
        """(n, p) gradients, formed."""

    def square_norms(self) -> Tensor:
        """(n,) squared lengths."""
        return self.gradients().square().sum(dim=1)

    def gram(self, other: LayerRows) -> Tensor:
        """(n, m) dot products with the rows of another batch."""
        return self.gradients() @ other.gradients().T

    def contract(self, directions: Tensor) -> Tensor:
        """(n, q) dot products with directions (q, p)."""
        return self.gradients() @ directions.T

    def along(self, directions: Tensor) -> Tensor:
        """(n,) dot products of every row with a direction of its own, directions (n, p)."""
        return (self.gradients() * directions).sum(dim=1)

    def pairs(self, other: LayerRows) -> Tensor:
        """(n,) dot products with the same rows of another batch."""
        return (self.gradients() * other.gradients()).sum(dim=1)

    @abstractmethod
    def scaled(self, scale: float) -> LayerRows:
        """The gradients times a number."""


class Formed(LayerRows):
    """Gradients that were formed from the start: few parameters, or no factors known."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def gradients(self) -> Tensor:
        """(n, p) gradients."""
        return self.values

    def scaled(self, scale: float) -> Formed:
        """The gradients times a number."""
        return Formed(scale * self.values)


class Product(LayerRows):
    """Linear and convolution: a (n, in) or (n, t, in), ending in a one where there is a bias; delta alike, with out.

    weight, bias: which of the two are trainable; the flat gradient has them in this order.
    """

    def __init__(self, a: Tensor, delta: Tensor, weight: bool, bias: bool) -> None:
        self.a = a
        self.delta = delta
        self.weight = weight
        self.bias = bias

    @property
    def shared(self) -> bool:
        """Whether the weights are used at several positions of a row."""
        return self.delta.ndim == 3

    @property
    def width(self) -> int:
        """Inputs that meet an output, with the one."""
        return self.a.shape[-1]

    @property
    def inputs(self) -> Tensor:
        """What `a` is made of."""
        return self.a

    def like(self, inputs: Tensor, delta: Tensor, ones: bool = True) -> Product:
        """Of the same layer with other factors; ones: whether the bias has inputs, which changes of inputs lack."""
        return Product(inputs, delta, self.weight, self.bias)

    def scaled(self, scale: float) -> Product:
        """The gradients times a number."""
        return self.like(self.inputs, scale * self.delta)

    def images(self, directions: Tensor) -> Tensor:
        """(n, q, out) or (n, q, t, out): inputs through the maps that the directions (q, p) are."""
        q, out = len(directions), self.delta.shape[-1]
        a = self.a.flatten(0, -2)
        maps = directions.reshape(q * out, -1)
        if self.weight and self.bias:
            weight, bias = directions[:, :-out].reshape(q * out, -1), directions[:, -out:].reshape(-1, 1)
            maps = torch.cat([weight, bias], dim=1)
        found = a @ maps.T
        return found.reshape(*self.a.shape[:-1], q, out).movedim(-2, 1)

    def meet(self, images: Tensor) -> Tensor:
        """(n, q) dot products with the directions whose images of the inputs these are."""
        return (self.delta[:, None] * images).sum(tuple(range(2, images.ndim)))

    def matrices(self) -> Tensor:
        """(n, out, in + bias) gradients."""
        if self.shared:
            return self.delta.transpose(1, 2) @ self.a
        return self.delta[:, :, None] * self.a[:, None, :]

    def formed(self) -> Iterator[tuple[slice, Tensor]]:
        """(rows, their `matrices`), as many at a time as FORMED_BYTES take."""
        step = max(1, FORMED_BYTES // (self.delta.shape[-1] * self.width * self.delta.element_size()))
        for rows in slices(len(self.delta), step):
            yield rows, self.like(self.inputs[rows], self.delta[rows]).matrices()

    def gradients(self) -> Tensor:
        """(n, p) gradients: weight rows, then bias."""
        return self._flat(self.matrices())

    def _flat(self, matrices: Tensor) -> Tensor:
        if self.weight and self.bias:
            return torch.cat([matrices[:, :, :-1].flatten(1), matrices[:, :, -1]], dim=1)
        return matrices.flatten(1)

    @staticmethod
    def flatten(matrices: Tensor, layer: Layer) -> Tensor:
        """(k, p) flat directions from (k, out, in + bias) matrices of this layer."""
        empty = matrices[:0, 0]
        return Product(empty, empty, "weight" in layer.trained, "bias" in layer.trained)._flat(matrices)

    def contract(self, directions: Tensor) -> Tensor:
        """(n, q): delta' V a with one product for all; formed gradients for many, on shared weights or small layers."""
        if len(directions) <= FEW:
            return self.meet(self.images(directions))
        out, width = self.delta.shape[-1], self.width
        if self.shared or out * width <= SMALL_LAYER:
            return torch.cat([self._flat(part) @ directions.T for _, part in self.formed()])
        if self.weight and self.bias:
            weights, biases = directions[:, : out * (width - 1)], directions[:, out * (width - 1) :]
            matrices = torch.cat([weights.reshape(-1, out, width - 1), biases[:, :, None]], dim=2)
        else:
            matrices = directions.reshape(-1, out, width)
        result = self.a.new_empty(len(self.a), len(directions))
        step = max(1, CONTRACT_BYTES // (len(self.a) * out * self.a.element_size()))
        for start in range(0, len(directions), step):
            part = matrices[start : start + step]
            moved = (self.a @ part.reshape(-1, width).T).reshape(len(self.a), len(part), out)
            result[:, start : start + step] = (moved @ self.delta[:, :, None])[:, :, 0]
        return result

    def pairs(self, other: LayerRows) -> Tensor:
        """(n,): (a . a')(delta . delta'); formed gradients where weights are shared."""
        assert isinstance(other, Product)
        if not self.shared:
            return (self.a * other.a).sum(1) * (self.delta * other.delta).sum(1)
        return torch.cat(
            [
                (own * other.like(other.inputs[rows], other.delta[rows]).matrices()).flatten(1).sum(1)
                for rows, own in self.formed()
            ]
        )

    def square_norms(self) -> Tensor:
        """(n,) squared lengths: |a|^2 |delta|^2, or sums over pairs of positions where those are cheaper."""
        if not self.shared:
            return self.a.square().sum(1) * self.delta.square().sum(1)
        (_, t, out), width = self.delta.shape, self.width
        if t * (width + out) < width * out:
            pairs = (self.a @ self.a.transpose(1, 2)) * (self.delta @ self.delta.transpose(1, 2))
            return pairs.flatten(1).sum(1)
        return torch.cat([part.flatten(1).square().sum(1) for _, part in self.formed()])

    def gram(self, other: LayerRows) -> Tensor:
        """(n, m): (a a') * (delta delta'), never a gradient; formed ones where weights are shared at many positions."""
        assert isinstance(other, Product)
        if not self.shared:
            return (self.a @ other.a.T) * (self.delta @ other.delta.T)
        (n, t, out), (m, u, _), width = self.delta.shape, other.delta.shape, self.width
        if t * u * (width + out) < width * out:
            a, delta = self.a.flatten(0, 1), self.delta.flatten(0, 1)
            pairs = (a @ other.a.flatten(0, 1).T) * (delta @ other.delta.flatten(0, 1).T)
            return pairs.reshape(n, t, m, u).sum(dim=(1, 3))
        result = self.delta.new_empty(n, m)
        for rows, own in self.formed():
            for columns, part in other.formed():
                result[rows, columns] = own.flatten(1) @ part.flatten(1).T
        return result


class Convolved(Product):
    """Convolution: the `a` (n, t, in * kernel) of its inputs (n, in, ...) is formed where something needs it.

    ones: whether the bias has inputs; changes of inputs have none.
    """

    def __init__(
        self, module: nn.Conv1d | nn.Conv2d, inputs: Tensor, delta: Tensor, bias: bool, ones: bool = True
    ) -> None:
        self.module = module
        self._inputs = inputs
        self.delta = delta
        self.weight = True
        self.bias = bias
        self.ones = ones

    @cached_property
    def a(self) -> Tensor:  # type: ignore[override]
        """(n, t, in * kernel), with a one where there is a bias."""
        found = patches(self.module, self._inputs)
        if not self.bias:
            return found
        return torch.cat([found, found.new_full((*found.shape[:-1], 1), float(self.ones))], dim=-1)

    @property
    def width(self) -> int:
        """Inputs that meet an output, with the one."""
        return self.module.weight.shape[1:].numel() + self.bias

    @property
    def inputs(self) -> Tensor:
        """What `a` is made of."""
        return self._inputs

    def like(self, inputs: Tensor, delta: Tensor, ones: bool = True) -> Convolved:
        """Of the same layer with other factors; ones: whether the bias has inputs, which changes of inputs lack."""
        return Convolved(self.module, inputs, delta, self.bias, self.ones and ones)

    def images(self, directions: Tensor) -> Tensor:
        """(n, q, t, out): one convolution with all directions (q, p) as its weights."""
        q, out = len(directions), self.delta.shape[2]
        biases = directions[:, -out:].reshape(-1) if self.bias and self.ones else None
        weights = directions[:, : out * (self.width - self.bias)].reshape(q * out, *self.module.weight.shape[1:])
        found = self.module._conv_forward(self._inputs, weights, biases)  # with its own padding
        return found.flatten(2).unflatten(1, (q, out)).transpose(2, 3)

    def matrices(self) -> Tensor:
        """(n, out, in + bias) gradients."""
        delta = self.delta.transpose(1, 2)
        weights = delta @ patches(self.module, self._inputs)
        return torch.cat([weights, self.ones * delta.sum(2, keepdim=True)], dim=2) if self.bias else weights


class Sum(LayerRows):
    """Sums of several gradients of the same rows: what a product of factors changes by, when both factors change."""

    def __init__(self, parts: Sequence[LayerRows]) -> None:
        self.parts = parts

    def gradients(self) -> Tensor:
        """(n, p), formed."""
        return sum(part.gradients() for part in self.parts)  # type: ignore[return-value]

    def scaled(self, scale: float) -> Sum:
        """The gradients times a number."""
        return Sum([part.scaled(scale) for part in self.parts])

    def gram(self, other: LayerRows) -> Tensor:
        """(n, m) dot products with the rows of another batch."""
        return sum(part.gram(other) for part in self.parts)  # type: ignore[return-value]

    def contract(self, directions: Tensor) -> Tensor:
        """(n, q) dot products with directions (q, p)."""
        return sum(part.contract(directions) for part in self.parts)  # type: ignore[return-value]

    def pairs(self, other: LayerRows) -> Tensor:
        """(n,) dot products with the same rows of another batch."""
        return sum(part.pairs(other) for part in self.parts)  # type: ignore[return-value]


class Lookup(LayerRows):
    """Embedding: indices (n, t) into `size` vectors, delta (n, t, d); the padding index gets no gradient."""

    def __init__(self, indices: Tensor, delta: Tensor, size: int, padding: int | None) -> None:
        self.indices = indices
        self.delta = delta if padding is None else delta * (indices != padding)[:, :, None]
        self.size = size

    def scaled(self, scale: float) -> Lookup:
        """The gradients times a number."""
        return Lookup(self.indices, scale * self.delta, self.size, None)

    def gradients(self) -> Tensor:
        """(n, size * d), mostly zeros."""
        n, _, d = self.delta.shape
        table = self.delta.new_zeros(n, self.size, d)
        return table.scatter_add_(1, self.indices[:, :, None].expand_as(self.delta), self.delta).flatten(1)

    def contract(self, directions: Tensor) -> Tensor:
        """(n, q), from the rows of the directions that the indices name."""
        tables = directions.reshape(len(directions), self.size, -1)
        return torch.stack([(self.delta * table[self.indices]).flatten(1).sum(1) for table in tables], dim=1)

    def square_norms(self) -> Tensor:
        """(n,) squared lengths, over pairs of positions that hold the same index."""
        same = self.indices[:, :, None] == self.indices[:, None, :]
        return ((self.delta @ self.delta.transpose(1, 2)) * same).flatten(1).sum(1)

    def gram(self, other: LayerRows) -> Tensor:
        """(n, m), over pairs of positions that hold the same index."""
        assert isinstance(other, Lookup)
        (n, t), (m, u) = self.indices.shape, other.indices.shape
        dots = self.delta.flatten(0, 1) @ other.delta.flatten(0, 1).T
        same = self.indices.reshape(-1, 1) == other.indices.reshape(1, -1)
        return (dots * same).reshape(n, t, m, u).sum(dim=(1, 3))


class Layer:
    """A module whose per-row gradients are known in factors: Linear, Conv1d/2d, Embedding or an affine norm."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.module = module
        own = dict(module.named_parameters(recurse=False))
        self.trained = [
            key for key in ("weight", "bias") if key in own and own[key] is not None and own[key].requires_grad
        ]
        self.parameters = [f"{name}.{key}" if name else key for key in self.trained]
        self.shapes = [own[key].shape for key in self.trained]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "module": None}  # a pickled curvature describes its layers and leaves the model out

    @property
    def is_product(self) -> bool:
        """Whether the gradient is a product of inputs and output gradients, as Kronecker factors need."""
        return isinstance(self.module, nn.Linear | nn.Conv1d | nn.Conv2d)

    @property
    def n_parameters(self) -> int:
        """Trainable numbers of the layer."""
        return sum(shape.numel() for shape in self.shapes)

    def rows(self, x: Tensor, delta: Tensor) -> LayerRows:
        """Factors of the rows from the layer's input and the gradient of the losses at its output."""
        module, weight, bias = self.module, "weight" in self.trained, "bias" in self.trained
        if isinstance(module, nn.Linear):
            a = x if x.ndim <= 3 else x.flatten(1, -2)
            delta = delta if delta.ndim <= 3 else delta.flatten(1, -2)
        elif isinstance(module, nn.Conv1d | nn.Conv2d):
            delta = delta.flatten(2).transpose(1, 2)
            if weight:
                return Convolved(module, x, delta, bias)
            a = patches(module, x)
        elif isinstance(module, nn.Embedding):
            return Lookup(
                x.reshape(len(x), -1),
                delta.reshape(len(x), -1, delta.shape[-1]),
                len(module.weight),
                module.padding_idx,
            )
        else:
            return self._affine_rows(x, delta)
        if not weight:
            a = a[..., :0]
        if bias:
            a = torch.cat([a, a.new_ones(*a.shape[:-1], 1)], dim=-1)
        return Product(a, delta, weight, bias)

    def _affine_rows(self, x: Tensor, delta: Tensor) -> Formed:
        module = self.module
        parts = []
        if "weight" in self.trained:
            parts.append(self._sum_positions(normalised(module, x) * delta))
        if "bias" in self.trained:
            parts.append(self._sum_positions(delta))
        return Formed(torch.cat(parts, dim=1))

    def _sum_positions(self, values: Tensor) -> Tensor:
        if isinstance(self.module, nn.LayerNorm | nn.RMSNorm):  # parameters span the last axes
            width = self.shapes[0].numel()
            return values.reshape(len(values), -1, width).sum(1)
        return values.flatten(2).sum(2) if values.ndim > 2 else values


def patches(module: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """(n, positions, in * kernel) inputs that meet the kernel at every output position."""
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
        padding: tuple[int, ...] = (0,) * len(module.kernel_size)
    else:
        padding = module.padding
    if isinstance(module, nn.Conv2d):
        columns = F.unfold(x, module.kernel_size, module.dilation, padding, module.stride)
    else:
        columns = F.unfold(
            x[:, :, None], (1, *module.kernel_size), (1, *module.dilation), (0, *padding), (1, *module.stride)
        )
    return columns.transpose(1, 2)


def normalised(module: nn.Module, x: Tensor) -> Tensor:
    """What the norm layer multiplies by its weight."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.RMSNorm):
        return F.rms_norm(x, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, eps=module.eps)
    assert isinstance(module, nn.modules.batchnorm._BatchNorm)
    return F.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)


def known_layers(module: nn.Module) -> list[Layer]:
    """Layers with trainable parameters of their own whose factors are known; grouped convolutions are not."""
    found = []
    for name, part in module.named_modules():
        known = isinstance(part, (nn.Linear, nn.Embedding, *NORMS)) or (
            isinstance(part, nn.Conv1d | nn.Conv2d) and part.groups == 1
        )
        if isinstance(part, nn.Embedding) and (part.max_norm is not None or part.scale_grad_by_freq or part.sparse):
            known = False
        if known and any(value.requires_grad for value in part.parameters(recurse=False)):
            found.append(Layer(name, part))
    return found


@contextmanager
def recording(layers: list[Layer]) -> Iterator[dict[str, list]]:
    """Collects (input, gradient edge of the output) of every call of the layers."""
    calls: dict[str, list] = {layer.name: [] for layer in layers}

    def hook(name: str):
        def note(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            # an edge, not the tensor: a later in-place activation would change the tensor's place in the graph
            calls[name].append((inputs[0], torch.autograd.graph.get_gradient_edge(output)))

        return note

    handles = [layer.module.register_forward_hook(hook(layer.name)) for layer in layers]
    try:
        with layer_by_layer():
            yield calls
    finally:
        for handle in handles:
            handle.remove()


class Held:
    """A setting of torch's, which is one for all threads: the first holder makes it, the last puts back what was."""

    def __init__(self, make: Callable[[], AbstractContextManager]) -> None:
        self.make = make
        self.lock = RLock()
        self.holders = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if not self.holders:
                self.setting = self.make()
                self.setting.__enter__()
            self.holders += 1
        try:
            yield
        finally:
            with self.lock:
                self.holders -= 1
                if not self.holders:
                    self.setting.__exit__(None, None, None)


@contextmanager
def _no_fast_path() -> Iterator[None]:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


layer_by_layer = Held(_no_fast_path)  # transformers' fast path bypasses the layers, and so the hooks
math_attention = Held(lambda: sdpa_kernel(SDPBackend.MATH))
no_cudnn = Held(lambda: torch.backends.cudnn.flags(enabled=False))


@contextmanager
def eval_kernels(module: nn.Module) -> Iterator[None]:
    """Kernels that can be differentiated in eval mode; cuDNN's of recurrent layers cannot."""
    if any(isinstance(part, nn.RNNBase) for part in module.modules()):
        with no_cudnn():
            yield
    else:
        yield


@contextmanager
def plain_kernels(module: nn.Module) -> Iterator[None]:
    """Kernels that also have forward mode and second derivatives; the fused ones of attention do not."""
    with eval_kernels(module), layer_by_layer(), math_attention():
        yield
