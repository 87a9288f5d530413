"""Models of transformers: texts by the mean of their tokens, images by what the model pools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sktda.pretrained import identity
from sktda.pretrained.backbone import Backbone
from sktda.pretrained.libraries.hub import folder_of
from sktda.pretrained.names import Model
from sktda.pretrained.offline import offline

NEVER_USED = ("pooler", "classifier", "lm_head", "position_ids")
"""Parts that a checkpoint may lack: they are random then, or made anew, and play no part in the features."""


def load(model: Model, device: torch.device) -> Backbone:
    """A model from a folder, or from the hub's cache. Code that comes with a model is not run.

    Raises ValueError where its weights do not fill it, or where nothing says how to prepare rows for it.
    """
    from transformers import AutoModel

    folder = folder_of(model)
    with offline():
        try:
            net, told = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
            readers = _readers(net, folder, device, pooled=not told["missing_keys"])
        except OSError as error:
            raise model.missing(error) from error
    missing = [name for name in told["missing_keys"] if not any(part in name for part in NEVER_USED)]
    if missing:
        raise ValueError(
            f"the weights in {folder} do not fill the model: {len(missing)} of its tensors, such as {missing[0]}, "
            "would be random; save the whole model"
        )
    if not readers:
        raise ValueError(
            f"{folder} has neither a tokenizer nor an image processor beside its weights; save one there with "
            "save_pretrained"
        )
    net.eval().to(device)

    def described():
        return identity.all_of(
            identity.text("transformers"),
            identity.versions("transformers", "tokenizers"),
            identity.files(folder),
            identity.weights(net),
        )

    return Backbone(model.text, readers, described, _side(folder))


def _side(folder: Path) -> int | None:
    """What images are resized to before a crop."""
    file = folder / "preprocessor_config.json"
    size = json.loads(file.read_text(encoding="utf-8")).get("size") if file.is_file() else None
    return size if isinstance(size, int | None) else max(size.values(), default=None)


def _readers(net: Any, folder: Path, device: torch.device, pooled: bool) -> dict[str, Callable[[Any], Any]]:
    from transformers import AutoImageProcessor, AutoTokenizer

    found: dict[str, Callable[[Any], Any]] = {}
    options = {"local_files_only": True, "trust_remote_code": False}
    if (folder / "preprocessor_config.json").is_file():
        found["images"] = _of_images(net, AutoImageProcessor.from_pretrained(folder, **options), device, pooled)
    if any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        found["texts"] = _of_texts(net, AutoTokenizer.from_pretrained(folder, **options), device)
    return found


def _of_images(net: Any, processor: Any, device: torch.device, pooled: bool) -> Callable[[Any], Tensor]:
    def images(rows: Any) -> Tensor:
        inputs = processor(images=list(rows), return_tensors="pt").to(device)
        if hasattr(net, "get_image_features"):
            return _vector(net.get_image_features(**inputs))
        output = net(**inputs)
        vector = getattr(output, "pooler_output", None)
        return output.last_hidden_state if vector is None or not pooled else vector

    return images


def _of_texts(net: Any, tokenizer: Any, device: torch.device) -> Callable[[Any], Tensor]:
    longest = getattr(net.config, "max_position_embeddings", None) or 512
    if tokenizer.model_max_length < 10**6:  # else it was never said
        longest = tokenizer.model_max_length
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

    def texts(rows: Any) -> Tensor:
        inputs = tokenizer(list(rows), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        inputs = inputs.to(device)
        if hasattr(net, "get_text_features"):
            return _vector(net.get_text_features(**inputs))
        tokens = net(**inputs).last_hidden_state
        return token_mean(tokens, inputs["attention_mask"])

    return texts


def token_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """(b, d) mean of the tokens (b, t, d) where the mask (b, t) is 1."""
    weights = mask.unsqueeze(2).to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def _vector(output: Any) -> Tensor:
    """Features of CLIP and its like: a tensor in older versions."""
    return output if isinstance(output, Tensor) else output.pooler_output
