"""Arrays of pixels as the inputs that a library's own preparation makes of pictures."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor


def by_picture(transform: Callable[[Any], Tensor], device: torch.device) -> Callable[[np.ndarray], Tensor]:
    """(b, h, w, 3) uint8 -> (b, 3, H, W) on the device, by a transform of one Pillow image."""
    from PIL import Image

    def prepare(rows: np.ndarray) -> Tensor:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # Pillow lets others run meanwhile
            return torch.stack(list(pool.map(lambda row: transform(Image.fromarray(row)), rows))).to(device)

    return prepare


def channels_first(rows: np.ndarray, device: torch.device) -> Tensor:
    """(b, h, w, 3) uint8 -> (b, 3, h, w) uint8 on the device."""
    return torch.from_numpy(np.ascontiguousarray(rows)).to(device).permute(0, 3, 1, 2)
