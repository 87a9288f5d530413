"""Features of a pretrained model in the shell: what makes them, and where they are kept for another run."""

from __future__ import annotations

import os
from pathlib import Path

from sktda.pretrained.encoder import PretrainedEncoder


def encoder_of(features: str) -> tuple[PretrainedEncoder, str]:
    """(what makes the features, a note that says where they are kept)."""
    folder = kept_in()
    kept = f"kept in {folder} for another run" if folder else "not kept, as the folder of caches cannot be written"
    return PretrainedEncoder(
        features, cache=folder
    ), f"images and texts are compared by {features}; features are {kept}"


def kept_in() -> Path | None:
    """Where the user's programs keep what can be made again, if it can be written; there nothing is ever deleted."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = caches / "sktda"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def image_side(encoder: PretrainedEncoder, features: str, path: Path) -> int | None:
    """Pixels of the images that the model is best given, None for any. Raises ValueError if it reads none."""
    backbone = encoder._loaded()
    if "images" not in backbone.readers:
        raise ValueError(f"--features {features} reads texts, and {path} is a folder of images; name a model of images")
    return backbone.side
