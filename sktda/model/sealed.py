"""safetensors files with a checksum over all that is in them: read as they were written, or refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

CHECKSUM = "checksum"


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write tensors, and texts about them, under another name and rename the file: it appears whole or not at all.

    Raises OSError with what to do if the disk is full, for example; an earlier file is then still there.
    """
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    temporary = path.with_name(f".{uuid4().hex}-{path.name}")  # several machines and threads may write the same file
    try:
        save_file(kept, temporary, metadata={**about, CHECKSUM: _checksum(kept, about)})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"could not write {path}: {reason}; free some space or name another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, check: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `save` wrote: (tensors, texts). Raises FileNotFoundError, and ValueError for anything else than that.

    check: whether the checksum is compared, which takes longer than reading.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checksum = about.pop(CHECKSUM, None)
        if check and checksum != _checksum(tensors, about):
            raise ValueError("its checksum is another")
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it from a copy or train again") from error
    return tensors, about


def _checksum(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    names = sorted(tensors)
    return digest([json.dumps([sorted(about.items()), names]), *(tensors[name] for name in names)])


def digest(values: Iterable[Tensor | bytes | str]) -> str:
    """Short hexadecimal digest of tensors, bytes and texts in order."""
    code = blake2b(digest_size=12)
    for value in values:
        if isinstance(value, Tensor):
            code.update(str((value.dtype, tuple(value.shape))).encode())  # equal bytes may be other numbers
            # a clone, as a view of one number counts as contiguous whatever its stride
            whole = value.detach().cpu().reshape(-1).clone(memory_format=torch.contiguous_format)
            code.update(whole.view(torch.uint8).numpy().data)
        else:
            code.update(value.encode() if isinstance(value, str) else value)
    return code.hexdigest()
