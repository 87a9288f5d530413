"""Models of the Hugging Face hub, in the folder where its client keeps them."""

from __future__ import annotations

from pathlib import Path

from sktda.pretrained.names import Model


def folder_of(model: Model) -> Path:
    """Where the files of a model are; fetches nothing. Raises FileNotFoundError where they are not here."""
    if isinstance(model.name, Path):
        return model.name
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    name = model.name
    if model.library == "sentence-transformers" and "/" not in name:
        name = f"sentence-transformers/{name}"  # as the library completes it
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise model.missing() from error
