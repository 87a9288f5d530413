"""A recorded run, cut into segments: stretches of training with the sum of their learning rates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sktda.attribution.gradients.rates import Rates, group_rates
from sktda.model.trajectory import MISFIT, Trajectory


@dataclass(frozen=True)
class Segment:
    """A stretch of training: numbers of its checkpoints, and the sum of its effective learning rates.

    decay: by parameter, weight decay per unit of its effective rate, as a multiple of the optimiser's.
    """

    name: str
    checkpoints: list[int]
    rates: Rates
    decay: dict[str, float]


def segments(
    trajectory: Trajectory, names: Iterable[str], n_segments: int, boundaries: Any, prefix: str
) -> list[Segment]:
    """The segments, first to last: n_segments of equal size, or with a new one after each number in `boundaries`.

    names: parameters that take part. Raises ValueError for a weight decay that changed on the way.
    """
    trajectory.check_constant("weight_decay")
    count = len(trajectory)
    if isinstance(boundaries, str):  # "auto"
        if n_segments > count:
            raise ValueError(
                f"n_segments={n_segments} needs as many checkpoints, and the recorded run has {count}; train with "
                f"TrajectoryRecorder(n_checkpoints={2 * n_segments}), or take fewer segments"
            )
        parts = np.array_split(np.arange(count), n_segments)
    else:
        cuts = np.asarray(boundaries)
        whole = cuts.ndim == 1 and (cuts.size == 0 or cuts.dtype.kind in "iu")
        if not whole or (np.diff([0, *cuts, count]) <= 0).any():
            raise ValueError(
                f"boundaries={boundaries!r} must be rising whole numbers between 1 and {count - 1}: a new segment "
                f"begins after that many of the {count} checkpoints"
            )
        parts = np.split(np.arange(count), cuts)
    names = list(names)
    # x_l by parameter group: a checkpoint brings the rates of the steps that led to it from the one before
    sums = np.array([trajectory.group_effective_rate_sums[part].sum(axis=0) for part in parts])
    rates = group_rates(trajectory, sums, names)
    # steps are rooted: P^-1/2 of a rate of 0 would be infinite
    if still := [name for each in rates for name, root in (each.roots or {}).items() if not root]:
        raise ValueError(
            f"Source follows parameters that the optimiser moved, and '{still[0]}' had no learning rate; freeze it "
            "(requires_grad=False) or leave it out with `parameters`"
        )
    return [
        Segment(f"{prefix}segment {k}", part.tolist(), rate, _decay(trajectory, part, names))
        for k, (part, rate) in enumerate(zip(parts, rates, strict=True), start=1)
    ]


def _decay(trajectory: Trajectory, part: np.ndarray, names: list[str]) -> dict[str, float]:
    """What scaling the gradients of a segment, but not their weight decay, makes of the decay."""
    if trajectory.rescalings.max() <= MISFIT or not any(trajectory.weight_decay.values()):
        return dict.fromkeys(names, 1.0)
    trajectory.momentum  # noqa: B018  says if it changed on the way
    trajectory.check_constant("dampening")
    # the optimiser adds the decay to a gradient that was clipped before: per unit of effective rate
    # there is more of it, by one over the mean scale
    plain, scaled = (
        each[part].sum(axis=0) for each in (trajectory.group_rate_sums, trajectory.group_effective_rate_sums)
    )
    found: dict[str, float] = {}
    for group, about in enumerate(trajectory.groups):
        momentum = about.get("momentum", 0)
        # in `scaled` already: what momentum makes of a step in the long run
        share = (1 - about.get("dampening", 0)) / (1 - momentum) if momentum else 1.0
        ratio = float(share * plain[group] / scaled[group]) if scaled[group] else 1.0
        found |= dict.fromkeys(about["parameters"], ratio)
    return found
