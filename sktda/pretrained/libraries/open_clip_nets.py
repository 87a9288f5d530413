"""Nets of open_clip, which read images and texts alike."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from sktda.pretrained import identity
from sktda.pretrained.backbone import Backbone
from sktda.pretrained.libraries.pictures import by_picture
from sktda.pretrained.names import Model, close_to
from sktda.pretrained.offline import offline


def load(model: Model, device: torch.device) -> Backbone:
    """ARCHITECTURE/WEIGHTS such as ViT-B-32/openai, hf-hub:OWNER/NAME, or a folder with open_clip_config.json."""
    import open_clip

    name, weights = f"local-dir:{model.name}", None
    if not isinstance(model.name, Path):
        name, _, weights = (str(model.name), "", None) if "hf-hub:" in str(model.name) else model.name.partition("/")
        _check(model, name, weights)
    with offline():
        try:
            net, _, transform = open_clip.create_model_and_transforms(name, pretrained=weights, device=device)
        except (OSError, RuntimeError) as error:
            raise model.missing(error) from error
    net.eval()
    prepare = by_picture(transform, device)

    @cache
    def tokenizer():
        with offline():
            try:
                return open_clip.get_tokenizer(name)
            except OSError as error:
                raise model.missing(error) from error

    def described():
        return identity.all_of(
            identity.text("open_clip", name, weights, transform),
            identity.versions("open_clip_torch", "torchvision", "transformers"),
            identity.weights(net),
        )

    readers = {
        "images": lambda rows: net.encode_image(prepare(rows)),
        "texts": lambda rows: net.encode_text(tokenizer()(list(rows)).to(device)),
    }
    size = getattr(net.visual, "image_size", None)
    return Backbone(model.text, readers, described, max(size) if isinstance(size, tuple) else size)


def _check(model: Model, name: str, weights: str | None) -> None:
    """Refuse names that open_clip does not know, and weights that are not where it looks for them."""
    import open_clip

    if name.startswith("hf-hub:"):
        return
    if name not in open_clip.list_models():
        raise ValueError(f"open_clip has no model {name!r}{close_to(name, open_clip.list_models())}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags:
        raise ValueError(
            f"open_clip has no weights {weights!r} for {name!r}; write open_clip:{name}/WEIGHTS with one of "
            f"{', '.join(tags) or 'none that are known'}"
        )
    config = open_clip.get_pretrained_cfg(name, weights)
    if not config.get("hf_hub"):  # fetched by urllib, which has no switch
        file = Path("~/.cache/clip").expanduser() / Path(config.get("url", "")).name
        if not file.is_file():
            raise model.missing()
