"""Features of a pretrained model in the shell: what makes them, and where they are kept for another run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sktda.cli.options import OWN_FEATURES

if TYPE_CHECKING:
    from sktda.cli.formats.base import Reading
    from sktda.cli.settings import Settings
    from sktda.pretrained.encoder import PretrainedEncoder


def learned(settings: Settings) -> tuple[PretrainedEncoder | None, Reading, list[str]]:
    """(what makes the features, how data are read for it, notes); None where --features names no model.

    The images of a folder become features as they are read. Raises ValueError if the model reads no images then.
    """
    reading = settings.reading
    if settings.features in OWN_FEATURES:
        return None, reading, []
    from sktda.pretrained.encoder import PretrainedEncoder

    folder = kept_in()
    kept = f"kept in {folder} for another run" if folder else "not kept, as the folder of caches cannot be written"
    note = f"images and texts are compared by {settings.features}; features are {kept}"
    encoder = PretrainedEncoder(settings.features, cache=folder)
    if settings.data.is_dir():
        backbone = encoder._loaded()
        if "images" not in backbone.readers:
            raise ValueError(
                f"--features {settings.features} reads texts, and {settings.data} is a folder of images; name a model "
                "of images"
            )
        reading = replace(reading, size=settings.size or backbone.side or reading.size, encode=encoder.transform)
    return encoder, reading, [note]


def cache_folder() -> Path:
    """Where the user's programs keep what can be made again; nothing is ever deleted there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sktda"


def kept_in() -> Path | None:
    """The folder of caches, made if it was not there; None if it cannot be written."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
