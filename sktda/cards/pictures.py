"""Pictures of any kind as small data URIs."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

SIDE = 128  # pixels; with this, four dozen photographs stay below a megabyte
EXACT_SIDE = 64  # up to here a picture is stored without loss


def data_uri(picture: Any, side: int = SIDE) -> str:
    """A PIL image or an array (height, width[, 1, 3 or 4 channels]) as the URI of a thumbnail of at most `side` pixels.

    Arrays of floats in [0, 1] are taken as shares of white, all others but bytes are stretched to their own range.
    """
    from PIL import Image

    if not isinstance(picture, Image.Image):
        picture = _from_array(np.asarray(picture))
    elif picture.mode.startswith(("I", "F")):  # 16 bits and floats, which no browser format holds
        picture = _from_array(np.asarray(picture, dtype=float))
    if picture.mode not in {"L", "RGB", "RGBA"}:
        picture = picture.convert("RGBA" if "transparency" in picture.info or picture.mode in {"PA", "LA"} else "RGB")
    exact = max(picture.size) <= EXACT_SIDE
    picture = picture.copy()
    picture.thumbnail((side, side))
    kind = "PNG" if exact or picture.mode == "RGBA" else "JPEG"
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _from_array(pixels: np.ndarray) -> Any:
    from PIL import Image

    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in {2, 3} or (pixels.ndim == 3 and pixels.shape[2] not in {3, 4}):
        raise ValueError(
            f"a picture of shape {pixels.shape} cannot be shown; allowed are (height, width) and "
            "(height, width, channels) with 1, 3 or 4 channels, or a PIL image"
        )
    if pixels.dtype != np.uint8:
        pixels = np.nan_to_num(pixels.astype(float))
        low, high = min(pixels.min(), 0.0), pixels.max()
        low, high = (0.0, 1.0) if low == 0 and high <= 1 else (low, high)
        pixels = np.round((pixels - low) / (high - low or 1.0) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels))
