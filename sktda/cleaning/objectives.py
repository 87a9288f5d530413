"""What a cleaner makes of the objectives of its attributor: one value of each, and scores, from those of the parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Groups = tuple[str, str] | None


class Found:
    """One objective over the parts (folds) of a scoring round.

    value: the mean; of a gap with the sign that it has for `groups`, the one ahead and the one behind.
    signs: of the parts, -1 where the two groups are the other way round there.
    scores (n,): mean over the parts that a row takes part in.
    """

    def __init__(self, parts: Sequence[tuple[np.ndarray, Any]], n: int) -> None:
        self.groups: Groups = parts[0][1].groups
        value = float(np.mean([signed(found.value, found.groups, self.groups) for _, found in parts]))
        if value < 0 and self.groups is not None:
            value, self.groups = -value, self.groups[::-1]
        self.value = value
        self.signs = [signed(1.0, found.groups, self.groups) for _, found in parts]
        scores = [(rows, sign * found.scores) for (rows, found), sign in zip(parts, self.signs, strict=True)]
        self.scores = np.nan_to_num(mean_over_parts(scores, n))  # the cleaner refuses rows that are in no part


def mean_over_parts(parts: Sequence[tuple[np.ndarray, np.ndarray]], n: int) -> np.ndarray:
    """(n,) mean of values over the parts (rows, their values) that a row takes part in; NaN where it is in none."""
    total, times = np.zeros(n), np.zeros(n)
    for rows, values in parts:
        total[rows] += values
        times[rows] += 1
    return np.divide(total, times, out=np.full(n, np.nan), where=times > 0)


def signed(value: float, groups: Groups, reference: Groups) -> float:
    """A gap as seen from `reference`: negative where the two groups have changed places."""
    return -value if groups is not None and reference is not None and groups == reference[::-1] else value
