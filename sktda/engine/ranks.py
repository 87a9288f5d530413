"""How many outer products each layer needs so that values of pairs are exact enough, by a probe of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

SAFETY = 0.8  # the error on the probe must be below the tolerance by this factor: other pairs may have more
TERMS = 16  # of a layer that are computed at a time: one wait for the device, however many rows there are


class Probe:
    """Values of one layer on a probe of pairs, and what its first outer products leave out of them.

    values (q, n): exact. terms: (r,) strengths, (r, out) and (r, in), the best first. asked, known: inputs and output
    gradients, in the eigenbases, of the queries and of the rows.
    """

    def __init__(
        self,
        values: Tensor,
        terms: tuple[Tensor, Tensor, Tensor],
        asked: Sequence[Tensor],
        known: Sequence[Tensor],
    ) -> None:
        strength, self._out, self._in = terms
        self._out = strength[:, None] * self._out
        self._asked, self._known = asked, known
        self.cost = self._out.shape[1] + self._in.shape[1]
        # more would cost as much as the exact form
        self.most = min(len(strength), (self._out.shape[1] * self._in.shape[1] - 1) // self.cost)
        self.missing = values[None]
        """(r + 1, q, n): without any term, with one, and so on."""

    def grow(self) -> None:
        """Some more terms."""
        done = len(self.missing) - 1
        part = slice(done, min(done + TERMS, self.most))
        (a, delta), (a_row, delta_row) = self._asked, self._known
        # (r, q, n): term r of a pair is (delta_q . out_r . delta_i)(a_q . in_r . a_i)
        found = (delta * self._out[part, None] @ delta_row.T).mul_(a * self._in[part, None] @ a_row.T)
        self.missing = torch.cat([self.missing, self.missing[-1] - found.cumsum(0)])


def chosen_ranks(probes: Mapping[str, Probe], length: Tensor, tolerance: float) -> dict[str, int]:
    """Terms by layer whose error on the probe, in all layers together, is within `tolerance` times a length.

    The layer whose error is largest for its cost gets one more, until the error of the sum over layers is small enough.
    Layers where the exact form is cheaper, or where no rank is exact enough, are left out.
    """
    goal = SAFETY * tolerance * length.item()
    for probe in probes.values():
        probe.grow()
    errors = Errors(probes)
    ranks = dict.fromkeys(probes, 0)
    missing = list(probes)
    while missing and (0 in ranks.values() or errors.of(ranks) > goal):
        # one term for every layer first: without any it would not take part at all
        unused = [name for name in missing if not ranks[name]]
        name = unused[0] if unused else max(missing, key=lambda key: errors.single(key, ranks) / probes[key].cost)
        if ranks[name] == probes[name].most:
            missing.remove(name)
            del ranks[name]
            continue
        ranks[name] += 1
        if ranks[name] == len(probes[name].missing):
            probes[name].grow()
            errors = Errors(probes)
    return ranks


class Errors:
    """Lengths of sums of what layers leave out, from the products of all that was computed, which are read once."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        every = torch.cat([probe.missing.flatten(1) for probe in probes.values()]) if probes else torch.zeros(0, 0)
        self._products = (every @ every.T).tolist()
        self._start = {}
        start = 0
        for name, probe in probes.items():
            self._start[name] = start
            start += len(probe.missing)

    def of(self, ranks: Mapping[str, int]) -> float:
        """With so many terms of each layer."""
        # |sum_l m_l|^2 = sum_lk <m_l, m_k>: what two layers leave out may add up or cancel
        at = [self._start[name] + rank for name, rank in ranks.items()]
        return max(sum(self._products[i][j] for i in at for j in at), 0.0) ** 0.5

    def single(self, name: str, ranks: Mapping[str, int]) -> float:
        """Squared, of one layer."""
        at = self._start[name] + ranks[name]
        return self._products[at][at]
