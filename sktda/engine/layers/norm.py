"""Layers that scale and shift what they get, or have normalised, by a number for each channel or place."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from sktda.engine.layers.layer import Called, Layer
from sktda.engine.layers.rows import Formed

LAST_AXES = nn.LayerNorm | nn.RMSNorm  # parameters span the last axes
BATCH, INSTANCE = nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm
CHANNELS = nn.GroupNorm | BATCH | INSTANCE


class Scaled(Called):
    """The weight multiplies, the bias shifts."""

    @abstractmethod
    def multiplied(self, x: Tensor) -> Tensor:
        """What the weight multiplies."""

    @abstractmethod
    def added(self, values: Tensor) -> Tensor:
        """(n, numbers) sums over the places that share a number."""

    def rows(self, inputs: tuple[Tensor, ...], delta: Tensor) -> Formed:
        """Formed: few numbers."""
        (x,) = inputs
        parts = []
        if "weight" in self.trained:
            # s = w * x~ + b: the weight's gradient is x~ delta, the bias's delta, summed where places share a number
            parts.append(self.added(self.multiplied(x) * delta))
        if "bias" in self.trained:
            parts.append(self.added(delta))
        return Formed(torch.cat(parts, dim=1))


class Norm(Scaled):
    """An affine normalisation."""

    def multiplied(self, x: Tensor) -> Tensor:
        """The normalised inputs."""
        module = self.module
        if isinstance(module, nn.LayerNorm):
            return F.layer_norm(x, module.normalized_shape, eps=module.eps)
        if isinstance(module, nn.RMSNorm):
            return F.rms_norm(x, module.normalized_shape, eps=module.eps)
        if isinstance(module, nn.GroupNorm):
            return F.group_norm(x, module.num_groups, eps=module.eps)
        # as in eval mode: by running statistics where there are some, else by those of the row
        if isinstance(module, INSTANCE):
            if module.running_mean is None:
                return F.instance_norm(x, eps=module.eps)
            return F.instance_norm(x, module.running_mean, module.running_var, use_input_stats=False, eps=module.eps)
        assert isinstance(module, BATCH)
        return F.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)

    def added(self, values: Tensor) -> Tensor:
        """Over positions, or all axes but the last."""
        if isinstance(self.module, LAST_AXES):
            return values.reshape(len(values), -1, self.shapes[0].numel()).sum(1)
        # (n, channels, places): every place of a channel has the same number
        return values.flatten(2).sum(2) if values.ndim > 2 else values


class OwnNorm(Scaled):
    """A normalisation in a class of its own that scales the last axis, such as those of Llama, T5 and Gemma."""

    def multiplied(self, x: Tensor) -> Tensor:
        """What a weight of one gives more than one of zero."""
        weight = self.module.get_parameter("weight").detach()
        # x~ * (c + w) is linear in w, so that this is x~ also where the class adds a one to the weight, as Gemma's does
        one, zero = (functional_call(self.module, {"weight": each}, (x,)) for each in (weight * 0 + 1, weight * 0))
        return one - zero

    def added(self, values: Tensor) -> Tensor:
        """Over all axes but the last."""
        return values.reshape(len(values), -1, values.shape[-1]).sum(1)


class Slope(Scaled):
    """PReLU: the weight, one or one a channel, multiplies what is below zero."""

    def multiplied(self, x: Tensor) -> Tensor:
        """Inputs below zero."""
        # prelu(x) = max(x, 0) + w min(x, 0)
        return x.clamp(max=0)

    def added(self, values: Tensor) -> Tensor:
        """Over positions, and over channels where all share one number."""
        if self.shapes[0].numel() == 1:
            return values.flatten(1).sum(1, keepdim=True)
        return values.flatten(2).sum(2) if values.ndim > 2 else values


def layers(name: str, module: nn.Module) -> list[Layer]:
    """Affine norms and PReLU; norms of their own kind are known by their name, and tried like every layer."""
    if isinstance(module, LAST_AXES | CHANNELS):
        return [Norm(name, module)]
    own = dict(module.named_parameters())
    if type(module).__name__.endswith("Norm") and {"weight"} <= own.keys() <= {"weight", "bias"}:
        return [OwnNorm(name, module)] if all(value.ndim == 1 for value in own.values()) else []
    return [Slope(name, module)] if isinstance(module, nn.PReLU) else []
