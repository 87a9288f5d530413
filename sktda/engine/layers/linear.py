"""Linear maps of vectors, or of every token of a row, and of pairs of vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from sktda.engine.layers.layer import Layer
from sktda.engine.layers.product import Product


class Mapped(Layer):
    """A linear map; `product` makes its factors from inputs with one or no axis of positions."""

    is_product = True
    transposed = False
    """Whether the weight is (in, out)."""

    def product(self, a: Tensor, delta: Tensor) -> Product:
        """With a one for the bias."""
        weight, bias = "weight" in self.trained, "bias" in self.trained
        if not weight:
            a = a[..., :0]
        if bias:
            a = torch.cat([a, a.new_ones(*a.shape[:-1], 1)], dim=-1)
        return Product(a, delta, weight, bias, self.transposed)


class Linear(Mapped):
    """s = W a + b."""

    def rows(self, inputs: tuple[Tensor, ...], delta: Tensor) -> Product:
        """Products of inputs and output gradients."""
        (x,) = inputs
        a = x if x.ndim <= 3 else x.flatten(1, -2)
        delta = delta if delta.ndim <= 3 else delta.flatten(1, -2)
        return self.product(a, delta)


class Transposed(Linear):
    """Conv1D of Hugging Face's GPT models, whose weight is (in, out)."""

    transposed = True


class Bilinear(Mapped):
    """s_k = x' W_k z + b_k: a linear map of the products of two vectors."""

    def rows(self, inputs: tuple[Tensor, ...], delta: Tensor) -> Product:
        """With the products of all pairs as inputs."""
        left, right = inputs
        pairs = (left[..., :, None] * right[..., None, :]).flatten(-2)
        if pairs.ndim > 3:
            pairs, delta = pairs.flatten(1, -2), delta.flatten(1, -2)
        return self.product(pairs, delta)


def layers(name: str, module: nn.Module) -> list[Layer]:
    """What is linear."""
    if isinstance(module, NonDynamicallyQuantizableLinear):  # of an attention, which never calls it
        return []
    if isinstance(module, nn.Linear):
        return [Linear(name, module)]
    if isinstance(module, nn.Bilinear):
        return [Bilinear(name, module)]
    # by its name and its shapes: transformers need not be there
    weight = getattr(module, "weight", None)
    if type(module).__name__ == "Conv1D" and isinstance(weight, Tensor) and weight.ndim == 2 and hasattr(module, "nf"):
        return [Transposed(name, module)]
    return []
