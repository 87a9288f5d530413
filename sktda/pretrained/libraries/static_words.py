"""Static embeddings of model2vec: a text is the mean of its words' vectors, at the speed of a look-up."""

from __future__ import annotations

from typing import Any

import joblib
import numpy as np
import torch

from sktda.pretrained import identity
from sktda.pretrained.backbone import Backbone
from sktda.pretrained.libraries.hub import folder_of
from sktda.pretrained.names import Model
from sktda.pretrained.offline import offline


def load(model: Model, device: torch.device) -> Backbone:
    """A static model from a folder, or from the hub's cache."""
    from model2vec import StaticModel

    folder = folder_of(model)
    with offline():
        try:
            net = StaticModel.from_pretrained(folder, force_download=False)
        except (OSError, KeyError) as error:
            raise model.missing(error) from error
    return of_object(net, model.text)


def of_object(net: Any, name: str) -> Backbone:
    """A StaticModel that is loaded."""

    def texts(rows: Any) -> np.ndarray:
        return net.encode(list(rows), show_progress_bar=False, use_multiprocessing=False)

    def described():
        settings = [getattr(net, each, None) for each in ("weights", "token_mapping", "config")]
        return identity.all_of(
            identity.text("model2vec", net.tokenizer.to_str()),
            identity.versions("model2vec", "tokenizers"),
            identity.text(joblib.hash([net.embedding, *settings])),
        )

    return Backbone(name, {"texts": texts}, described)
