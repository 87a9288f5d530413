"""Per-row gradients in factored form, captured at the layers of one forward and backward pass.

For a layer s = W a + b, row i's gradient is sum_t delta_it [a_it; 1]' over the positions t where the weights are
shared (pixels of a convolution, tokens; one position for a plain Linear). The factors a and delta are kept; the
gradient itself, out x in numbers per row, is formed only where no product of factors does the job.

A family of layers is a file with a function `layers(name, module)`, listed here.
"""

from __future__ import annotations

from torch import nn

from sktda.engine.layers import attention, convolution, linear, lookup, norm, recurrent
from sktda.engine.layers.convolution import Convolved, patches
from sktda.engine.layers.kernels import eval_kernels, layer_by_layer, plain_kernels
from sktda.engine.layers.layer import LAYOUTS, Layer, recording
from sktda.engine.layers.lookup import Lookup
from sktda.engine.layers.product import FORMED_BYTES, Mapped, Product
from sktda.engine.layers.rows import Formed, LayerRows, Sum
from sktda.engine.layers.shared import Tied, joined, with_shared

FAMILIES = (linear, attention, convolution, lookup, norm, recurrent)

__all__ = [
    "FORMED_BYTES",
    "LAYOUTS",
    "Convolved",
    "Formed",
    "Layer",
    "LayerRows",
    "Lookup",
    "Mapped",
    "Product",
    "Sum",
    "Tied",
    "eval_kernels",
    "joined",
    "known_layers",
    "layer_by_layer",
    "patches",
    "plain_kernels",
    "recording",
]


def known_layers(module: nn.Module) -> list[Layer]:
    """Layers with trainable parameters of their own whose factors are known, in the order of the modules."""
    found = [
        layer for name, part in module.named_modules() for family in FAMILIES for layer in family.layers(name, part)
    ]
    return with_shared(module, [layer for layer in found if layer.parameters])
