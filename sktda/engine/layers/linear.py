"""Linear maps of vectors, or of every token of a row, of pairs of vectors, and inside of other modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from sktda.engine.layers.layer import Called, Layer, Note, Opened
from sktda.engine.layers.product import Mapped


class Linear(Called):
    """s = W a + b; the weight of Conv1D of Hugging Face's GPT models is (in, out)."""

    is_product = True

    def __init__(self, name: str, module: nn.Module, keys: Sequence[str] = ("weight", "bias")) -> None:
        super().__init__(name, module, keys)
        self.transposed = not isinstance(module, nn.Linear)

    def rows(self, inputs: tuple[Tensor, ...], delta: Tensor) -> Mapped:
        """Products of inputs and output gradients."""
        (x,) = inputs
        # all axes between the rows and the inputs are positions
        a = x if x.ndim <= 3 else x.flatten(1, -2)
        delta = delta if delta.ndim <= 3 else delta.flatten(1, -2)
        return mapped(self, a, delta)


class Bilinear(Called):
    """s_k = x' W_k z + b_k: a linear map of the products of two vectors."""

    is_product = True

    def rows(self, inputs: tuple[Tensor, ...], delta: Tensor) -> Mapped:
        """With the products of all pairs as inputs."""
        left, right = inputs
        # x' W_k z = <W_k, x z'>: linear in the outer product, flat in the order of the weight
        pairs = (left[..., :, None] * right[..., None, :]).flatten(-2)
        if pairs.ndim > 3:
            pairs, delta = pairs.flatten(1, -2), delta.flatten(1, -2)
        return mapped(self, pairs, delta)


class Part(Layer):
    """A linear map inside of a module that torch runs in one operation, `opened` to see the map by its key.

    own: the module in it that has the parameters of these keys; None = itself.
    """

    is_product = True

    def __init__(
        self,
        name: str,
        module: nn.Module,
        key: str,
        keys: Sequence[str],
        opened: type[Opened],
        own: nn.Module | None = None,
    ) -> None:
        full = f"{name}.{key}".removeprefix(".")
        super().__init__(full, own or module, keys, full if own else name)
        self.whole, self.key, self.opened = module, key, opened
        self.trained = ["bias" if "bias" in each else "weight" for each in self.trained]  # as of any linear map

    def watch(self, note: Note, n: int) -> Callable[[], None]:
        """By running the module step by step."""
        return self.opened.watch(self.whole, self.key, note)

    def rows(self, inputs: tuple[Tensor, ...], delta: Tensor) -> Mapped:
        """Products with the tokens or steps as positions."""
        return mapped(self, inputs[0], delta)


def mapped(layer: Layer, a: Tensor, delta: Tensor) -> Mapped:
    """The factors of a linear map from inputs with one or no axis of positions: with a one for the bias."""
    weight, bias = "weight" in layer.trained, "bias" in layer.trained
    if not weight:
        # the bias alone is trained: its one is all that is left of the inputs
        a = a[..., :0]
    if bias:
        a = torch.cat([a, a.new_ones(*a.shape[:-1], 1)], dim=-1)
    return Mapped(a, delta, weight, bias, layer.transposed)


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
        return [Linear(name, module)]
    return []
