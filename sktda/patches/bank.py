"""Filters on a device, by which blocks of pictures become features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sktda.patches.filters import WEAK, Filters
from sktda.patches.layout import Layout, averages

if TYPE_CHECKING:
    import torch
    from torch import Tensor

THRESHOLD = 0.2  # a cosine
CACHE_BYTES, DEVICE_BYTES = 2**24, 2**28  # of responses at a time: what a processor's cache holds; on an accelerator


class Bank:
    """Filters on a device. n_rows: how many pictures are best taken at a time."""

    def __init__(self, filters: Filters, layout: Layout, device: torch.device, *, mirror: bool) -> None:
        import torch

        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)

        self.layout, self.learned, self.device, self.mirror = layout, filters, device, mirror
        directions = filters.directions
        if mirror:
            directions = np.concatenate([directions, layout.mirrored(directions)])
        self.directions = tensor(directions.T)
        self.whitening, self.shift = tensor(filters.whitening), tensor(-filters.mean @ filters.whitening)
        self.by_height, self.by_width = tensor(layout.by_height), tensor(layout.by_width.T)
        rows, columns = (averages(n, parts) for n, parts in zip(layout.places, layout.grid, strict=True))
        self.parts = tensor(np.kron(rows, columns))
        n_bytes = 8 * self.parts.shape[1] * (layout.n_values + len(directions))
        self.n_rows = max(1, (CACHE_BYTES if device.type == "cpu" else DEVICE_BYTES) // n_bytes)

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Features (b, n_features) of pictures (b, height, width, channels)."""
        import torch

        values = torch.from_numpy(self.learned.numbers(pictures)).to(self.device).permute(0, 3, 1, 2)
        if self.layout.shrinks:
            values = self.by_height @ values @ self.by_width
        values = values.contiguous()
        cut = values.unfold(2, self.layout.cut[0], 1).unfold(3, self.layout.cut[1], 1)
        patches = cut.permute(0, 2, 3, 1, 4, 5).reshape(-1, self.layout.n_values)
        patches = patches - patches.mean(dim=1, keepdim=True)
        variance = patches.square().sum(dim=1, keepdim=True) / max(1, patches.shape[1] - 1)
        patches *= (variance + self.learned.contrast).rsqrt()
        white = torch.addmm(self.shift, patches, self.whitening)
        white *= (white.square().sum(dim=1, keepdim=True) + WEAK * white.shape[1]).rsqrt()
        agrees = (white @ self.directions).view(len(values), self.parts.shape[1], -1)
        agrees = torch.nn.functional.softshrink(agrees, THRESHOLD)  # both responses, one of them as a negative number
        sides = [self.parts @ agrees.clamp(min=0), -(self.parts @ agrees.clamp_(max=0))]
        found = torch.stack(sides, dim=2).view(len(values), *self.layout.grid, 2, -1)
        if self.mirror:
            straight, mirrored = found.chunk(2, dim=4)
            found = (straight + mirrored.flip(2)) / 2
        return found.sqrt().reshape(len(values), -1).cpu().numpy()
