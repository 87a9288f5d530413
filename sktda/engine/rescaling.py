"""Gradients that were multiplied by a number before a step: always by the same one, or clipped by their norm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sktda.model.trajectory import MISFIT

CLIP_EPS = 1e-6  # that torch's clipping adds to a norm


class Rescaling:
    """The recorded scales of a run's gradients, as functions of the gradients.

    scales: (T, n_groups). places: where the coordinates of each group are, None = one group has all. A scale that is
    not the same at all steps is taken for clipping by the norm of all parameters (of each group's, where groups differ)
    at one limit: min(1, limit / (norm + 1e-6)). ValueError at a step where that is not so.
    """

    def __init__(self, scales: np.ndarray, places: Sequence[Tensor | None]) -> None:
        # groups that never differ count as scaled together, by the norm of all parameters
        if scales.shape[1] > 1 and not np.ptp(scales, axis=1).any():
            scales, places = scales[:, :1], [None]
        self.scales = scales
        self.places = places
        self.constant = np.ptp(scales, axis=0) <= MISFIT
        self.limits = np.full(scales.shape[1], np.nan)  # not known before the first step that was clipped
        self.largest = np.zeros(scales.shape[1])  # norm that was not

    @property
    def none(self) -> bool:
        """Whether gradients came as they were."""
        return bool(np.abs(self.scales - 1).max() <= MISFIT)

    def scaled(self, step: int, gradient: Tensor, recorded: bool = True) -> Tensor:
        """What the optimiser got for a gradient (p,); recorded=False: what it would get for another than it had."""
        found = gradient.clone()
        for k, place in enumerate(self.places):
            part = gradient if place is None else gradient[place]
            scale = float(self.scales[step, k])
            if not self.constant[k]:
                norm = float(part.norm()) + CLIP_EPS
                if recorded:
                    self._check(k, scale, norm, step)
                elif not np.isnan(self.limits[k]):
                    scale = min(1.0, self.limits[k] / norm)
            found[... if place is None else place] = scale * part
        return found

    def _check(self, k: int, scale: float, norm: float, step: int) -> None:
        if scale < 1 - MISFIT and np.isnan(self.limits[k]):
            self.limits[k] = scale * norm
        if abs(scale - 1) <= MISFIT:
            self.largest[k] = max(self.largest[k], norm)
        limit = self.limits[k]
        # one limit must explain all: no clipped step misses it, and no norm above it came through
        clipped = scale >= 1 - MISFIT or abs(scale * norm / limit - 1) <= MISFIT
        if scale > 1 + MISFIT or not clipped or self.largest[k] > (1 + MISFIT) * limit:
            raise ValueError(
                f"the gradient of step {step + 1} was multiplied by {scale:.3g}, which is neither the factor of the "
                "other steps nor clipping by norm at their limit, so that its derivative is not known; train with "
                "torch.nn.utils.clip_grad_norm_ at one limit, or use TracIn or Source"
            )

    def along(self, step: int, gradient: Tensor, directions: Tensor) -> Tensor:
        """Directions (k, p) times the derivative of `scaled` at a gradient; it is symmetric."""
        found = torch.empty_like(directions)
        for k, place in enumerate(self.places):
            each = ... if place is None else place
            part, scale = gradient[each], float(self.scales[step, k])
            moved = directions[:, each] if place is not None else directions
            if not self.constant[k] and scale < 1 - MISFIT:
                norm = part.norm()
                # s = limit / (|g| + eps): d(s g) = s (v - g <g, v> / (|g| (|g| + eps)))
                moved = moved - (moved @ part / (norm * (norm + CLIP_EPS)))[:, None] * part
            found[:, each] = scale * moved
        return found
