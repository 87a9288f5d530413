"""Which rows go, by their scores: in rounds, class by class if asked, and no further than a gap between groups."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from sktda.cleaning.base import refuse_constant
from sktda.cleaning.objectives import Found, Groups, signed
from sktda.cleaning.scoring import Scores
from sktda.selection import prune


def rows_per_round(ratio: float, step: float | None, n: int) -> list[int]:
    """Rows removed after each scoring, of n: a share `ratio` in all, `step` at a time."""
    total = round(ratio * n)
    if step is None or step >= ratio:
        return [total]
    n_rounds = int(np.ceil(ratio / step))
    gone = [*(min(round(step * (k + 1) * n), total) for k in range(n_rounds - 1)), total]  # 3 * .15 is less than .45
    return [k for k in np.diff([0, *gone]).tolist() if k] or [0]


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


class Removal:
    """Removes the worst rows, round by round.

    stratify: the same share of every class. floor: rows that stay in each class. support (n,) bool: kept, held-out rows
    included. rounds (n,): the round that a row went in, 0 = it did not.
    """

    def __init__(self, scores: Scores, stratify: bool, floor: int) -> None:
        self.scores = scores
        self.stratify, self.floor = stratify, floor
        self.support = np.ones(len(scores.values), dtype=bool)
        self.rounds = np.zeros(len(scores.values), dtype=int)

    def run(self, plan: list[int], task: Callable[[str], AbstractContextManager[Any]]) -> Removal:
        """Score and remove as many rows as the plan says in each round; `task` announces a round by its name."""
        held_out, gap = self.scores.data.held_out, Gap()
        alive = ~held_out
        for number, n_remove in enumerate(plan, start=1):
            with task(f"score round {number}"):
                rows, scores, found = self.scores.score(alive)
                if len(found) == 1:
                    gap.see(*found.values())
                if gap.closed:
                    if gap.went_too_far:
                        last = self.rounds == number - 1
                        alive |= last & ~held_out
                        self.rounds[last] = 0
                elif n_remove:
                    refuse_constant(scores, self.scores.attributor)
                    gone = rows[self._worst(rows, scores, gap, n_remove)]
                    alive[gone] = False
                    self.rounds[gone] = number
            if gap.closed:
                break
        self._last_round = rows, scores, gap
        self.support = alive | held_out
        return self

    def support_at(self, ratio: float) -> np.ndarray:
        """Mask of the rows that would be kept at another share, by the scores of the only round."""
        rows, scores, gap = self._last_round
        support = np.ones(len(self.support), dtype=bool)
        n_remove = round(ratio * len(rows))
        if n_remove and not gap.closed:
            support[rows[self._worst(rows, scores, gap, n_remove)]] = False
        return support

    def _worst(self, rows: np.ndarray, scores: np.ndarray, gap: Gap, n_remove: int) -> np.ndarray:
        """Those of the rows that go, by position in them."""
        codes = self.scores.data.codes
        classes = None if codes is None else np.unique(codes[rows], return_inverse=True)[1]
        kept = prune(scores, n_remove, classes, stratify=self.stratify, floor=self.floor)
        return gap.enough(np.flatnonzero(~kept))
