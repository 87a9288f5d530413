"""Convolutions: of one group through their patches, grouped and transposed ones formed."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sktda.engine.layers.layer import Called, Layer
from sktda.engine.layers.product import Mapped, Product
from sktda.engine.layers.rows import Formed

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transpose = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


class Convolved(Product):
    """Convolution: the `a` (n, t, in * kernel) of its inputs (n, in, ...) is formed where something needs it.

    ones: whether the bias has inputs; changes of inputs have none.
    """

    def __init__(self, module: Convolution, inputs: Tensor, delta: Tensor, bias: bool, ones: bool = True) -> None:
        self.module = module
        self.inputs = inputs
        self.delta = delta
        self.weight = True
        self.bias = bias
        self.transposed = False
        self.ones = ones

    @cached_property
    def a(self) -> Tensor:  # type: ignore[override]
        """(n, t, in * kernel), with a one where there is a bias."""
        found = patches(self.module, self.inputs)
        if not self.bias:
            return found
        return torch.cat([found, found.new_full((*found.shape[:-1], 1), float(self.ones))], dim=-1)

    @property
    def width(self) -> int:
        """Inputs that meet an output, with the one."""
        return self.module.weight.shape[1:].numel() + self.bias

    def like(self, inputs: Tensor, delta: Tensor, ones: bool = True) -> Convolved:
        """Of the same layer with other factors; ones: whether the bias has inputs, which changes of inputs lack."""
        return Convolved(self.module, inputs, delta, self.bias, self.ones and ones)

    def images(self, directions: Tensor) -> Tensor:
        """(n, q, t, out): one convolution with all directions (q, p) as its weights."""
        q, out = len(directions), self.delta.shape[2]
        # a flat direction is the weight as it is stored, then the bias: q kernels of `out` outputs each
        biases = directions[:, -out:].reshape(-1) if self.bias and self.ones else None
        weights = directions[:, : out * (self.width - self.bias)].reshape(q * out, *self.module.weight.shape[1:])
        found = self.module._conv_forward(self.inputs, weights, biases)  # with its own padding
        return found.flatten(2).unflatten(1, (q, out)).transpose(2, 3)

    def matrices(self) -> Tensor:
        """(n, out, in + bias) gradients."""
        delta = self.delta.transpose(1, 2)
        # sum_t delta_t patch_t': (n, out, t) @ (n, t, in * kernel)
        weights = delta @ patches(self.module, self.inputs)
        # the bias meets a one at every position, and a zero where these are changes of inputs
        return torch.cat([weights, self.ones * delta.sum(2, keepdim=True)], dim=2) if self.bias else weights


class Dense(Called):
    """A convolution of one group."""

    is_product = True

    def rows(self, inputs: tuple[Tensor, ...], delta: Tensor) -> Product:
        """Products of patches and output gradients."""
        (x,), module = inputs, self.module
        assert isinstance(module, Convolution)
        delta, bias = delta.flatten(2).transpose(1, 2), "bias" in self.trained
        if "weight" in self.trained:
            return Convolved(module, x, delta, bias)
        # the bias alone is trained: no patches, its input is a one at every position
        return Mapped(delta.new_ones(*delta.shape[:-1], 1), delta, False, bias)


class Grouped(Called):
    """A convolution of several groups, depthwise too: every output meets the patches of its own group."""

    def rows(self, inputs: tuple[Tensor, ...], delta: Tensor) -> Formed:
        """(n, out * in/groups * kernel + out), formed: no larger than the weight."""
        (x,), module = inputs, self.module
        assert isinstance(module, Convolution)
        n, groups = len(delta), module.groups
        delta, parts = delta.flatten(2), []
        if "weight" in self.trained:
            # channels come before places of the kernel, so that those of a group are side by side
            a = patches(module, x).unflatten(2, (groups, -1))
            # sum_t delta_t patch_t' of each group, (n, groups, out / groups, in / groups * kernel): flat as the weight
            parts.append(torch.einsum("ngot,ntgi->ngoi", delta.unflatten(1, (groups, -1)), a).reshape(n, -1))
        if "bias" in self.trained:
            parts.append(delta.sum(2))
        return Formed(torch.cat(parts, dim=1))


class Transposed(Called):
    """A transposed convolution (in, out/groups, kernel), formed: every input meets where it was spread to."""

    def rows(self, inputs: tuple[Tensor, ...], delta: Tensor) -> Formed:
        """(n, in * out/groups * kernel + out)."""
        (x,), module = inputs, self.module
        assert isinstance(module, Transpose)
        parts = []
        if "weight" in self.trained:
            # a transposed convolution is the adjoint of a convolution with its settings, which would read these patches
            a = transposed_patches(module, delta, x.shape[2:]).unflatten(2, (module.groups, -1))
            x = x.flatten(2).unflatten(1, (module.groups, -1))
            parts.append(torch.einsum("ngit,ntgo->ngio", x, a).reshape(len(x), -1))
        if "bias" in self.trained:
            parts.append(delta.flatten(2).sum(2))
        return Formed(torch.cat(parts, dim=1))


def patches(module: Convolution, x: Tensor) -> Tensor:
    """(n, positions, in * kernel) inputs that meet the kernel at every output position."""
    # other modes, as in torch's own forward, and "same", which may pad one side more than the other: unfold pads zeros,
    # and as many on both
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
        padding: tuple[int, ...] = (0,) * len(module.kernel_size)
    else:
        padding = module.padding
    if isinstance(module, nn.Conv2d):
        return F.unfold(x, module.kernel_size, module.dilation, padding, module.stride).transpose(1, 2)
    if isinstance(module, nn.Conv1d):
        # unfold takes images only: one line of them
        kernel, dilation, stride = (1, *module.kernel_size), (1, *module.dilation), (1, *module.stride)
        return F.unfold(x[:, :, None], kernel, dilation, (0, *padding), stride).transpose(1, 2)
    # unfold has no third axis
    return windows(x, module.kernel_size, module.dilation, padding, module.stride).flatten(1, 3)


def windows(
    x: Tensor, kernel: tuple[int, ...], dilation: tuple[int, ...], padding: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    """(n, *positions, channels * kernel) cuts of (n, channels, ...), of any number of axes."""
    # F.pad counts the axes from the last
    x, axes = F.pad(x, [size for each in reversed(padding) for size in (each, each)]), len(kernel)
    for axis in range(axes):
        # a kernel with gaps: cut with them, then leave them out
        span = dilation[axis] * (kernel[axis] - 1) + 1
        x = x.unfold(2 + axis, span, stride[axis])[..., :: dilation[axis]]
    # channels before places of the kernel, as in the weight
    return x.movedim(1, 1 + axes).flatten(1 + axes)


def transposed_patches(module: Transpose, delta: Tensor, positions: torch.Size) -> Tensor:
    """(n, positions, out * kernel): what of the output every input position was spread over."""
    padding = tuple(int(each) for each in module.padding)
    found = windows(delta, module.kernel_size, module.dilation, padding, module.stride)
    for axis, size in enumerate(positions):  # an output that was padded may hold more of them
        found = found.narrow(1 + axis, 0, size)
    return found.flatten(1, len(positions))


def layers(name: str, module: nn.Module) -> list[Layer]:
    """Convolutions in one to three axes."""
    if isinstance(module, Convolution):
        return [Dense(name, module) if module.groups == 1 else Grouped(name, module)]
    if isinstance(module, Transpose):
        return [Transposed(name, module)]
    return []
