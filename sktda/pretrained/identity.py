"""What the features of a model depend on, as bytes: its weights, its code and its settings."""

from __future__ import annotations

import inspect
import marshal
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import joblib
import torch
from torch import Tensor, nn

SETTINGS = {".json", ".txt", ".model", ".py", ".spm", ".bpe", ".yaml"}  # files beside weights
OF_TORCH = {"_parameters", "_buffers", "_modules", "training", "_non_persistent_buffers_set"}


def text(*parts: Any) -> Iterator[bytes]:
    """The parts as they are shown."""
    yield from (str(part).encode() for part in parts)


def versions(*packages: str) -> Iterator[bytes]:
    """Which versions are installed."""
    for package in packages:
        try:
            yield f"{package} {version(package)}".encode()
        except PackageNotFoundError:
            yield f"{package} of no version".encode()


def weights(module: nn.Module) -> Iterator[bytes]:
    """Names, shapes and values of all parameters and buffers, also of those that are not saved."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield _bytes(tensor)
    yield str(module).encode()  # the layers and their settings


def own_code(module: nn.Module) -> Iterator[bytes]:
    """Code and plain attributes of the modules of a user's net, which neither its weights nor a version tell."""
    for name, part in module.named_modules():
        for key, value in sorted(vars(part).items()):
            if key not in OF_TORCH and not (key.endswith("_hooks") or "_hooks_" in key):
                yield f"{name}.{key}".encode()
                yield _value(value)
    for cls in sorted(
        {type(part) for part in module.modules()}, key=lambda cls: f"{cls.__module__}.{cls.__qualname__}"
    ):
        yield f"{cls.__module__}.{cls.__qualname__}".encode()
        yield _source(cls)


def files(folder: Path) -> Iterator[bytes]:
    """Names and contents of the settings and vocabularies in a folder; the weights are told by the loaded ones."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in SETTINGS and path.is_file():
            yield str(path.relative_to(folder)).encode()
            yield path.read_bytes()


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous()
    if plain.is_quantized:
        return str((plain.q_scale(), plain.q_zero_point())).encode() + plain.int_repr().numpy().tobytes()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""


def _value(value: Any) -> bytes:
    """An attribute by its content where that can be had; else as it is shown, which may change from run to run."""
    if isinstance(value, Tensor):
        return _bytes(value)
    if inspect.isfunction(value) or inspect.ismethod(value):
        return value.__qualname__.encode() + _code(value.__code__)
    try:
        return joblib.hash(value).encode()
    except Exception:  # whatever pickle raises
        return repr(value).encode()


def _source(cls: type) -> bytes:
    try:
        return inspect.getsource(cls).encode()
    except (OSError, TypeError):  # written in a session: its byte code
        functions = sorted((name, value) for name, value in vars(cls).items() if inspect.isfunction(value))
        return b"".join(name.encode() + _code(function.__code__) for name, function in functions)


def _code(code: Any) -> bytes:
    return marshal.dumps(code)


def all_of(*parts: Iterable[bytes]) -> Iterator[bytes]:
    """One after the other."""
    for part in parts:
        yield from part
