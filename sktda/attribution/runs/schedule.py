"""Which checkpoints of a recorded run a method takes, and the learning rates there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from sktda.attribution.gradients.fitted import Fitted
from sktda.attribution.gradients.rates import Rates, group_rates
from sktda.model.recorder import TrajectoryRecorder
from sktda.model.trajectory import Trajectory
from sktda.seeds import random_of

CHECKPOINTS = 5  # of a net that is trained for the purpose
CANDIDATES = 4  # times as many are recorded where some are to be drawn

CONSTRAINTS: dict = {
    "n_checkpoints": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "checkpoints": [StrOptions({"even", "random"})],
}


@dataclass(frozen=True)
class Moment:
    """A checkpoint: its number in the trajectory, the steps done by then, and the learning rates there."""

    checkpoint: int
    step: int
    rates: Rates


def moments(
    trajectory: Trajectory, names: Iterable[str], count: int | str, spacing: str, random_state: Any
) -> list[Moment]:
    """`count` checkpoints of a run, evenly spaced up to the last one or drawn; "auto" = all (5 where they are drawn).

    The rates are those of the step that led to the checkpoint for the parameters of these names, divided by 1 -
    momentum and times what gradients were scaled by since the checkpoint before. Raises ValueError where the run
    has fewer checkpoints.
    """
    recorded = len(trajectory)
    if isinstance(count, str):
        count = min(CHECKPOINTS, recorded) if spacing == "random" else recorded
    if count > recorded:
        raise ValueError(
            f"n_checkpoints={count} needs as many checkpoints, and the recorded run has {recorded}; train with "
            f"TrajectoryRecorder(n_checkpoints={count}), or take fewer"
        )
    if spacing == "random":
        chosen = np.sort(random_of(random_state).choice(recorded, count, replace=False))
    else:
        chosen = np.round(np.arange(1, count + 1) * recorded / count).astype(int) - 1
    # momentum and scales may change on the way, so they are taken from the sums of the interval
    shares = trajectory.group_effective_rate_sums / np.where(
        trajectory.group_rate_sums == 0, 1, trajectory.group_rate_sums
    )
    rates = group_rates(trajectory, trajectory.group_learning_rates * shares, names)
    return [Moment(int(c), int(trajectory.steps[c]), rates[c]) for c in chosen]


def visited(fitted: Fitted, chosen: list[Moment]) -> Iterator[Moment]:
    """Puts one checkpoint after another into the model, and the final parameters back."""
    assert fitted.trajectory is not None
    try:
        for moment in chosen:
            fitted.model.load(fitted.trajectory.state(moment.checkpoint))
            yield moment
    finally:  # also where the memory has run out, and the pass is tried again
        fitted.model.load(fitted.trajectory.state(-1))


def recorder(count: int | str, spacing: str) -> TrajectoryRecorder:
    """The callback that records what `moments` will ask for."""
    needed = (CHECKPOINTS if isinstance(count, str) else count) * (CANDIDATES if spacing == "random" else 1)
    return TrajectoryRecorder(n_checkpoints=needed)
