"""How far a recorded training moved the parameters per unit of gradient, by parameter where groups differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sktda.model.trajectory import Trajectory


@dataclass(frozen=True)
class Rates:
    """A learning rate: `size`, times root^2 for each parameter; roots None = all 1."""

    size: float
    roots: dict[str, float] | None = None

    def along(self, direction: dict) -> dict:
        """The direction, by parameter, times root^2."""
        if self.roots is None:
            return direction
        return {name: self.roots[name] ** 2 * value for name, value in direction.items()}


def group_rates(trajectory: Trajectory, sums: np.ndarray, names: Iterable[str]) -> list[Rates]:
    """From rates of parameter groups (C, n_groups): those of the parameters of these names.

    A parameter that the optimiser did not have has the rate 0. Raises ValueError as `check_gradients` of Trajectory.
    """
    trajectory.check_gradients()
    groups, found = trajectory.parameter_groups, []
    for row in sums:
        each = {name: float(row[groups[name]]) if name in groups else 0.0 for name in names}
        size = max(each.values(), default=0.0)
        # one rate for all: gradients need no roots
        same = np.allclose(list(each.values()), size)
        # only where rates differ is the largest surely above 0
        roots = None if same else {name: (rate / size) ** 0.5 for name, rate in each.items()}
        found.append(Rates(size, roots))
    return found


def rate_sums(trajectory: Trajectory, names: Iterable[str]) -> list[Rates]:
    """Sum of the learning rates, divided by 1 - momentum, that each checkpoint stands for."""
    return group_rates(trajectory, trajectory.group_effective_rate_sums, names)


def one_rate(rates: list[Rates]) -> list[float]:
    """Their sizes; ValueError where parameters differ."""
    if any(each.roots is not None for each in rates):
        raise ValueError(
            "the optimiser trained its parameter groups at different learning rates, and this needs one; train with "
            "one rate, or use TracIn, MoSo or Source(curvature='exact'), or Influence with a damping"
        )
    return [each.size for each in rates]
