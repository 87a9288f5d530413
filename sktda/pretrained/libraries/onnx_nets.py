"""ONNX files, by ONNX Runtime: nets of images, and of texts with a tokenizer.json beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sktda.pretrained import identity
from sktda.pretrained.backbone import Backbone
from sktda.pretrained.libraries.transformers_nets import token_mean
from sktda.pretrained.names import Model

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as nearly all nets of images want it
POOLED = ("sentence_embedding", "image_embeds", "text_embeds", "pooler_output")  # outputs, the best first
MANY_TOKENS = 512


def load(model: Model, device: torch.device) -> Backbone:
    """A .onnx file, or a folder with one."""
    import onnxruntime

    file = Path(model.name)
    if file.is_dir():
        found = sorted(file.glob("*.onnx"))
        if len(found) != 1:
            raise ValueError(f"{file} has {len(found)} files .onnx; name one of them")
        (file,) = found
    wanted = ["CUDAExecutionProvider"] * (device.type == "cuda") + ["CPUExecutionProvider"]
    providers = [each for each in wanted if each in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(str(file), providers=providers)
    inputs = {each.name: each for each in session.get_inputs()}
    if "input_ids" in inputs:
        return Backbone(model.text, {"texts": _of_texts(session, file)}, lambda: _identity(file))
    if len(inputs) != 1:
        raise ValueError(f"{file.name} takes {', '.join(inputs)}; one input of images is needed, or input_ids of texts")
    (given,) = inputs.values()
    prepare = _Preparation.of(given, file)
    images = lambda rows: _run(session, prepare.fixed, {given.name: prepare(rows)})  # noqa: E731
    return Backbone(model.text, {"images": images}, lambda: _identity(file), prepare.height, prepare.note)


def _identity(file: Path) -> Iterator[bytes]:
    """The file, and of the others in its folder, among which its weights may be, what changes when they do."""
    yield from identity.versions("onnxruntime")
    yield file.read_bytes()
    yield from identity.files(file.parent)
    for other in sorted(file.parent.glob("*")):
        if other.is_file() and other.suffix not in identity.SETTINGS | {".onnx", ".sqlite3"}:
            about = other.stat()
            yield f"{other.name} {about.st_size} {about.st_mtime_ns}".encode()


def _run(session: Any, fixed: int | None, feed: dict[str, np.ndarray]) -> np.ndarray:
    """The features among the outputs; row by row where the file was made for a fixed number of rows."""
    names = [each.name for each in session.get_outputs()]
    wanted = next((name for name in POOLED if name in names), names[0])
    n = len(next(iter(feed.values())))
    if fixed is None:
        return session.run([wanted], feed)[0]
    parts = []
    for start in range(0, n, fixed):
        part = {name: rows[start : start + fixed] for name, rows in feed.items()}
        short = fixed - len(next(iter(part.values())))
        padded = {name: np.concatenate([rows, np.repeat(rows[-1:], short, axis=0)]) for name, rows in part.items()}
        parts.append(session.run([wanted], padded)[0][: fixed - short])
    return np.concatenate(parts)


@dataclass(frozen=True)
class _Preparation:
    """How pictures become the input of a net: its size, its order of axes, and its scale of numbers."""

    height: int
    width: int
    channels_last: bool
    integers: bool
    fixed: int | None  # rows at a time
    mean: tuple[float, ...]
    std: tuple[float, ...]
    note: str

    @classmethod
    def of(cls, given: Any, file: Path) -> _Preparation:
        """From the input, and from preprocessor_config.json beside the file. Raises ValueError for another input."""
        shape = given.shape
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise ValueError(f"{file.name} takes an input of shape {shape}; (rows, 3, height, width) is needed")
        last = shape[1] != 3
        height, width = (shape[1], shape[2]) if last else (shape[2], shape[3])
        config = _json(file.parent / "preprocessor_config.json")
        size = config.get("crop_size") or config.get("size") or {}
        size = {"height": size, "width": size} if isinstance(size, int) else size
        side = size.get("height") or size.get("shortest_edge") or 224
        integers = given.type == "tensor(uint8)"
        note = ""
        if not config and not integers:
            note = (
                f"{file.name} does not say how images are prepared for it: as ImageNet's nets want them, scaled to "
                "[0, 1] and standardised, unless a preprocessor_config.json beside it says otherwise"
            )
        return cls(
            height if isinstance(height, int) else side,
            width if isinstance(width, int) else size.get("width") or side,
            last,
            integers,
            shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None,
            tuple(config.get("image_mean", MEAN if config.get("do_normalize", True) else (0, 0, 0))),
            tuple(config.get("image_std", STD if config.get("do_normalize", True) else (1, 1, 1))),
            note,
        )

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        from PIL import Image

        size = (self.width, self.height)
        pictures = [Image.fromarray(row) for row in rows]
        resized = [each if each.size == size else each.resize(size, Image.Resampling.BILINEAR) for each in pictures]
        pixels = np.stack([np.asarray(each) for each in resized])
        if not self.integers:
            mean, std = np.array(self.mean, dtype=np.float32), np.array(self.std, dtype=np.float32)
            pixels = (pixels / np.float32(255) - mean) / std
        return np.ascontiguousarray(pixels if self.channels_last else pixels.transpose(0, 3, 1, 2))


def _of_texts(session: Any, file: Path) -> Callable[[Any], Any]:
    from tokenizers import Tokenizer

    near = [folder / "tokenizer.json" for folder in (file.parent, file.parent.parent)]  # model/onnx/model.onnx
    found = [path for path in near if path.is_file()]
    if not found:
        raise ValueError(f"{file.name} reads texts, and no tokenizer.json is beside it; put that of the model there")
    tokenizer = Tokenizer.from_file(str(found[0]))
    tokenizer.enable_truncation(min(MANY_TOKENS, (tokenizer.truncation or {}).get("max_length", MANY_TOKENS)))
    tokenizer.enable_padding(**{k: v for k, v in (tokenizer.padding or {}).items() if k != "length"})
    names = [each.name for each in session.get_inputs()]

    def texts(rows: Any) -> Any:
        found = tokenizer.encode_batch(list(rows))
        feed = {
            "input_ids": np.array([each.ids for each in found], dtype=np.int64),
            "attention_mask": np.array([each.attention_mask for each in found], dtype=np.int64),
            "token_type_ids": np.array([each.type_ids for each in found], dtype=np.int64),
        }
        output = _run(session, None, {name: feed[name] for name in names})
        if output.ndim != 3:
            return output
        return token_mean(torch.from_numpy(output), torch.from_numpy(feed["attention_mask"]))

    return texts


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
