"""A torch module of the user's, and TorchScript files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sktda.pretrained import identity
from sktda.pretrained.backbone import Backbone
from sktda.pretrained.libraries.pictures import by_picture, channels_first
from sktda.pretrained.names import Model


def load(model: Model, device: torch.device) -> Backbone:
    """A TorchScript file: its code runs in torch's interpreter, and no pickle is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript, which the user has
        net = torch.jit.load(str(model.name), map_location=device).eval()
    content = model.name.read_bytes()  # type: ignore[union-attr]
    return Backbone(model.text, _readers(net, device), lambda: identity.all_of(identity.text("torchscript"), [content]))


def of_object(net: nn.Module, device: torch.device) -> Backbone:
    """A module as it is, of which nothing is changed: a copy in eval mode on the device.

    Images become floats (b, 3, h, w) in [0, 1], unless the module is one of timm's, which says how it wants them; any
    other array comes as float32.
    """
    net = getattr(net, "_orig_mod", net)  # of a compiled one
    copy = deepcopy(net).eval().to(device)
    name = type(net).__name__

    def described():
        return identity.all_of(identity.text("module"), identity.weights(copy), identity.own_code(copy))

    return Backbone(name, _readers(copy, device), described)


def _readers(net: nn.Module, device: torch.device) -> dict[str, Callable[[Any], Any]]:
    return {
        "images": _of_timm(net, device) or (lambda rows: net(channels_first(rows, device).float() / 255)),
        "numbers": lambda rows: net(_floats(rows, device)),
    }


def _of_timm(net: nn.Module, device: torch.device) -> Callable[[Any], Any] | None:
    """A reader of images for a net of timm's, which carries how they are to be prepared."""
    if not getattr(net, "pretrained_cfg", None):
        return None
    import timm

    config = timm.data.resolve_model_data_config(net)
    prepare = by_picture(timm.data.create_transform(**config, is_training=False), device)
    return lambda rows: net(prepare(rows))


def _floats(rows: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32)).to(device)
