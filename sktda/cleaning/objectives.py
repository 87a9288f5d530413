"""What a cleaner makes of the objectives of its attributor: their values by round, and when a gap is closed."""

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


class Gap:
    """Follows the gap between two groups over the rounds of a pruning, which ends where the gap is closed.

    An objective that is no gap is never closed. Of several groups, those two count that were furthest apart before.
    """

    def __init__(self) -> None:
        self.values: list[float] = []
        self._reference: Groups = None

    def see(self, found: Found) -> None:
        """The gap before a round."""
        self.values.append(signed(found.value, found.groups, self._reference))
        self._reference, self._scores = found.groups, found.scores

    @property
    def closed(self) -> bool:
        """Whether the groups have changed places."""
        return self._reference is not None and self.values[-1] <= 0

    @property
    def went_too_far(self) -> bool:
        """Whether the gap was smaller before the last removal."""
        return len(self.values) > 1 and abs(self.values[-1]) > abs(self.values[-2])

    def enough(self, rows: np.ndarray) -> np.ndarray:
        """Those of the rows, given by position, that are predicted to close the gap, the worst first.

        Where they do not, all that are predicted to narrow it: of a gap, no row goes that would widen it.
        """
        if self._reference is None:
            return rows
        rows = rows[np.argsort(self._scores[rows], kind="stable")]
        rows = rows[self._scores[rows] < 0]
        closed = np.flatnonzero(self.values[-1] + np.cumsum(self._scores[rows]) <= 0)
        return rows[: closed[0] + 1] if len(closed) else rows
