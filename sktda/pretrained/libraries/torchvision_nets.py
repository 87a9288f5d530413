"""Nets of torchvision: what their last layer is given, of images prepared as their weights say."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import nn

from sktda.pretrained import identity
from sktda.pretrained.backbone import Backbone
from sktda.pretrained.libraries.pictures import channels_first
from sktda.pretrained.names import Model, close_to


def load(model: Model, device: torch.device) -> Backbone:
    """A classifier of torchvision by name, with its default weights, from torch's folder of checkpoints."""
    from torchvision import models

    name = str(model.name)
    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"torchvision has no model {name!r}{close_to(name, known)}")
    weights = models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
    if not file.is_file():
        raise model.missing()
    torch.load(file, map_location="meta", weights_only=True)  # refuses a pickle of more than weights
    net = without_head(models.get_model(name, weights=weights)).eval().to(device)  # reads the file that is there
    prepare = weights.transforms()

    def described():
        return identity.all_of(
            identity.text("torchvision", prepare), identity.versions("torchvision"), identity.weights(net)
        )

    side = max(prepare.resize_size) if getattr(prepare, "resize_size", None) else None
    return Backbone(model.text, {"images": lambda rows: net(prepare(channels_first(rows, device)))}, described, side)


def without_head(net: nn.Module) -> nn.Module:
    """The net with its last linear layer taken out; in place. A head of convolutions (SqueezeNet) becomes a mean."""
    linear = [name for name, part in net.named_modules() if isinstance(part, nn.Linear)]
    classifier = getattr(net, "classifier", None)
    if linear:
        net.set_submodule(linear[-1], nn.Identity())
    elif classifier is not None:
        net.classifier = nn.AdaptiveAvgPool2d(1)
    return net
