"""Sentence transformers: texts, and images where the model reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sktda.pretrained import identity
from sktda.pretrained.backbone import Backbone
from sktda.pretrained.libraries.hub import folder_of
from sktda.pretrained.names import Model
from sktda.pretrained.offline import offline


def load(model: Model, device: torch.device) -> Backbone:
    """A sentence transformer from a folder, or from the hub's cache."""
    from sentence_transformers import SentenceTransformer

    folder = folder_of(model)
    with offline():
        try:
            net = SentenceTransformer(str(folder), device=str(device), local_files_only=True, trust_remote_code=False)
        except OSError as error:
            raise model.missing(error) from error
    return of_object(net.float(), model.text, folder)


def of_object(net: Any, name: str, folder: Path | None = None) -> Backbone:
    """A SentenceTransformer that is loaded, on its device."""
    net.eval()

    def texts(rows: Any) -> np.ndarray:
        return net.encode(list(rows), batch_size=len(rows), show_progress_bar=False, convert_to_numpy=True)

    def described():
        parts = [identity.versions("sentence-transformers", "transformers", "tokenizers"), identity.weights(net)]
        parts += [identity.own_code(net)] if folder is None else [identity.files(folder)]
        return identity.all_of(identity.text("sentence-transformers", net.max_seq_length), *parts)

    return Backbone(name, {"texts": texts}, described)
