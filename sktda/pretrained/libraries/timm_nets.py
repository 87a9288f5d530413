"""Nets of timm: what they see before their classifier, of images prepared as their configuration says."""

from __future__ import annotations

from math import floor
from pathlib import Path

import torch

from sktda.pretrained import identity
from sktda.pretrained.backbone import Backbone
from sktda.pretrained.libraries.pictures import by_picture
from sktda.pretrained.names import Model, close_to
from sktda.pretrained.offline import offline


def load(model: Model, device: torch.device) -> Backbone:
    """A net of timm by name, or as timm.models.save_for_hf wrote it into a folder."""
    import timm

    name = f"local-dir:{model.name}" if isinstance(model.name, Path) else model.name
    if not isinstance(model.name, Path):
        _check(model)
    with offline():
        try:
            net = timm.create_model(name, pretrained=True, num_classes=0)
        except (OSError, RuntimeError) as error:
            raise model.missing(error) from error
    net = net.eval().to(device)
    config = timm.data.resolve_model_data_config(net)
    prepare = by_picture(timm.data.create_transform(**config, is_training=False), device)
    side = floor(max(config["input_size"][1:]) / config["crop_pct"])

    def described():
        return identity.all_of(
            identity.text("timm", sorted(config.items())),
            identity.versions("timm", "torchvision"),
            identity.weights(net),
        )

    return Backbone(model.text, {"images": lambda rows: net(prepare(rows))}, described, side)


def _check(model: Model) -> None:
    """Refuse names that timm does not know, and weights that are not where it looks for them."""
    import timm

    name = str(model.name)
    if name.startswith("hf-hub:"):
        return
    base = name.partition(".")[0]
    if not timm.is_model(base):
        raise ValueError(f"timm has no model {name!r}{close_to(base, timm.list_models())}")
    config = timm.get_pretrained_cfg(name, allow_unregistered=False) if timm.is_model_pretrained(name) else None
    if config is None:
        known = timm.list_pretrained(f"{base}.*")
        what = f"only for {', '.join(known[:5])}" if known else "none for this net"
        raise ValueError(f"timm has no weights for {name!r}, {what}; name another")
    if not config.hf_hub_id and config.url:  # fetched by torch, which has no switch
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name
        if not file.is_file():
            raise model.missing()
