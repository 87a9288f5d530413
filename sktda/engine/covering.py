"""Rows that stand for others by where they lie: k-center, herding, moderate distances, messages between neighbours.

All take the features of one class, (n, d), and return the positions of k rows in the order in which they are chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sktda.devices import exact_device, for_blocks, in_blocks

POOL = 2_048  # rows among which centers are looked for between two passes over all rows
BLOCK = 2**24  # distances, or numbers of a column block, held at a time
AHEAD = 32  # centers that a device chooses before the processor looks at them
NEIGHBOURS = 10  # of each row in the graph of `message_passing`


def k_center(features: Tensor, k: int, pool: int = POOL) -> Tensor:
    """Rows such that the farthest row from its nearest center is near, at most twice as far as need be.

    Starts at the row nearest the mean; each further center is the row farthest from all centers, the first of equals.
    The greedy choice is exact (up to rounding of distances) although most distances are computed late: distances to
    the nearest center only fall, so that a row with an old one below that of the farthest cannot be next. Between two
    passes over all rows, centers are taken from the `pool` farthest, as long as one of them is farther than every
    other row was; a pass is then one matrix product. O(n k d) time; memory beside the features: a centred copy.
    Source: Gonzalez 1985; Sener & Savarese 2018 (arXiv:1708.00489), algorithm 1.
    """
    n = len(features)
    rows = features - features.mean(dim=0)  # shorter rows: less cancellation
    lengths = rows.square().sum(dim=1)
    new = lengths.argmin().reshape(1)
    chosen, count = [new], 1
    nearest = torch.full_like(lengths, torch.inf)  # squared distance to the nearest center; -1 = one itself
    while count < k:
        _approach(nearest, rows, lengths, new)
        nearest.index_fill_(0, new, -1.0)
        order = nearest.argsort(descending=True, stable=True)
        limit = float(nearest[order[pool]]) if pool < n else -torch.inf
        members = order[:pool].sort().values
        new = members[_farthest(rows[members], lengths[members], nearest[members], k - count, limit)]
        chosen.append(new)
        count += len(new)
    return torch.cat(chosen)


def _farthest(rows: Tensor, lengths: Tensor, nearest: Tensor, most: int, limit: float) -> Tensor:
    """Positions of the farthest row from all centers, which becomes one, and so on while one is farther than `limit`.

    At most `most`. A device is not waited for at every row: several are chosen ahead, and those below are dropped.
    """
    at, joined, waits = _positions(rows.device)
    ahead = AHEAD if waits else 1
    found: list[Any] = []
    while len(found) < most:
        values = []
        for step in range(min(ahead, most - len(found))):
            best = at(nearest.argmax())  # the first of equals
            value = nearest[best]
            if not waits and (found or step) and not float(value) > limit:
                return joined(found)
            values.append(value)
            found.append(best)
            distance = torch.addmv(lengths + lengths[best], rows, rows[best].reshape(-1), alpha=-2).clamp_(min=0)
            nearest = torch.minimum(nearest, distance)
            nearest[best] = -1.0
        if waits:
            new = len(found) - len(values)
            for step, value in enumerate(torch.cat(values).tolist(), start=new):
                if step and not value > limit:
                    return joined(found[:step])
            ahead *= 2
    return joined(found)


def _positions(device: torch.device) -> tuple[Callable[[Tensor], Any], Callable[[list], Tensor], bool]:
    """(0-d position -> an index, indices -> (m,) tensor, whether reading a number would wait for the device)."""
    if device.type == "cpu":
        return int, torch.tensor, False  # type: ignore[return-value]
    return partial(torch.reshape, shape=(1,)), torch.cat, True


def _approach(nearest: Tensor, rows: Tensor, lengths: Tensor, new: Tensor) -> None:
    """Lower `nearest` to the squared distances from the rows `new`, in place."""
    centers, center_lengths = rows[new], lengths[new]

    def approach(part: slice) -> None:
        products = torch.addmm(center_lengths, rows[part], centers.T, alpha=-2)
        distance = (products.amin(dim=1) + lengths[part]).clamp_(min=0)
        nearest[part] = torch.minimum(nearest[part], distance)

    for_blocks(len(rows), max(1, BLOCK // len(new)), approach)


def herding(features: Tensor, k: int) -> Tensor:
    """Rows whose mean stays as close as possible to the mean of all, at every size up to k.

    Each next row minimises |mean of the chosen - mean of all|, the first of equals. O(n k d) time.
    Source: Welling 2009, as in Rebuffi et al. 2017 (arXiv:1611.07725), algorithm 4.
    """
    features = features.to(exact_device(features.device))
    rows = features - features.mean(dim=0, dtype=torch.float64).to(features.dtype)
    # |S + c|^2 = |S|^2 + 2 S.c + |c|^2 for the sum S of the chosen, centred; in float64, as k products add up
    cost = rows.square().sum(dim=1, dtype=torch.float64)
    at, joined, _ = _positions(rows.device)
    chosen = []
    for _ in range(k):
        best = at(cost.argmin())
        chosen.append(best)
        cost += 2 * (rows @ rows[best].reshape(-1))
        cost[best] = torch.inf
    return joined(chosen)


def moderate(features: Tensor, k: int) -> Tensor:
    """Rows that are neither close to the middle of the class nor far from it.

    Distances are taken from the median of every feature; the rows nearest the median distance come first, ties by
    position. O(n d log n) time.
    Source: Xia et al. 2023, "Moderate coreset" (ICLR), section 3.
    """
    distance = torch.linalg.vector_norm(features - _medians(features), dim=1)
    return (distance - _medians(distance[:, None])).abs().argsort(stable=True)[:k]


def _medians(values: Tensor) -> Tensor:
    """(d,) medians of the columns of (n, d), the mean of the two middle values where n is even."""
    n = len(values)

    def middle(part: slice) -> Tensor:
        ranked = values[:, part].sort(dim=0).values
        return (ranked[(n - 1) // 2] + ranked[n // 2]) / 2

    return torch.cat([found for _, found in in_blocks(values.shape[1], max(1, BLOCK // n), middle)])


def message_passing(features: Tensor, difficulty: np.ndarray, k: int, n_neighbors: int = NEIGHBOURS) -> Tensor:
    """Rows that are difficult, and lie where others are, without many from one place.

    difficulty (n,), non-negative. Each row is given that of its nearest neighbours times exp(-distance), and the
    highest sum is chosen, again and again: the neighbours of a chosen row lose exp(-distance) times its sum. Distances
    are in units of the mean distance to a neighbour, so that the unit of the features plays no part.
    O(n^2 d) time, O(n n_neighbors) memory beside a block of distances.
    Source: Maharana et al. 2023, "D2 pruning" (arXiv:2310.07931), eq. 2 and 3, with gamma = 1 for both.
    """
    strength, near = neighbour_weights(features, n_neighbors)
    total = difficulty + (strength * difficulty[near]).sum(axis=1)
    chosen = []
    for _ in range(k):
        best = int(total.argmax())
        chosen.append(best)
        total[near[best]] -= strength[best] * total[best]  # of a row chosen before, -inf stays -inf
        total[best] = -np.inf
    return torch.tensor(chosen, device=features.device)


def neighbour_weights(features: Tensor, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """exp(-distance) to, and positions of, the nearest other rows of each; both (n, min(n_neighbors, n - 1))."""
    n = len(features)
    rows = features - features.mean(dim=0)
    lengths = rows.square().sum(dim=1)
    size = min(n_neighbors, n - 1)
    distance = rows.new_empty(n, size)
    near = torch.empty(n, size, dtype=torch.long, device=rows.device)

    def look(part: slice) -> None:
        block = torch.addmm(lengths, rows[part], rows.T, alpha=-2) + lengths[part, None]
        block[:, part].fill_diagonal_(torch.inf)  # a row is no neighbour of its own
        distance[part], near[part] = block.topk(size, dim=1, largest=False)

    for_blocks(n, max(1, BLOCK // n), look)
    roots = distance.clamp_(min=0).sqrt_().cpu().double().numpy()
    unit = roots.mean() if roots.size else 0.0
    return np.exp(-roots / (unit if unit > 0 else 1.0)), near.cpu().numpy()
