"""Rows whose gradients stand for those of all: facility location, matching pursuit, steps on a validation loss.

Gradients are those of the last layer, in factors: g_i = e_i h_i', so that <g_i, g_j> = (e_i . e_j)(h_i . h_j).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np
import torch
from torch import Tensor

from sktda.devices import in_blocks
from sktda.engine.last_layer import LastLayer
from sktda.engine.layers import Product
from sktda.selection import removal_quota

RIDGE = 0.5  # of `matching_pursuit`, as in its source, times the mean squared length of the gradients
LOCATION_ROWS, PURSUIT_ROWS = 4_096, 2_048  # whose pairs are held at a time: 64 MiB, and 32 MiB in float64
ROUNDS = 50  # in which `validation_steps` chooses, each at a new validation gradient

Chosen = tuple[np.ndarray, np.ndarray]  # positions, and their weights


def in_parts(
    n: int, k: int, most: int, random: np.random.RandomState, choose: Callable[[np.ndarray, int], Chosen]
) -> Chosen:
    """(positions (k,), weights (k,)) of choose(rows, budget) on random parts of at most `most` of n rows.

    Every part gives its share of the k rows; without need for parts nothing is drawn.
    """
    parts = np.array_split(np.arange(n) if n <= most else random.permutation(n), -(-n // most))
    sizes = np.array([len(part) for part in parts])
    budgets = sizes - removal_quota(sizes, n - k, 0)
    found = [(part, *choose(part, budget)) for part, budget in zip(parts, budgets, strict=True) if budget]
    return np.concatenate([rows[own] for rows, own, _ in found]), np.concatenate([weights for *_, weights in found])


def at(gradients: Product, rows: np.ndarray) -> Product:
    """The gradients of some rows."""
    where = torch.from_numpy(rows).to(gradients.delta.device)
    return gradients.like(gradients.inputs[where], gradients.delta[where])


def closeness(gradients: Product) -> np.ndarray:
    """(n, n) largest distance between two gradients minus the distance of each pair."""
    lengths = gradients.square_norms()

    def distances(rows: slice) -> Tensor:
        part = gradients.like(gradients.inputs[rows], gradients.delta[rows])
        found = (lengths + lengths[rows, None] - 2 * part.gram(gradients)).clamp_(min=0)
        # rounding leaves a little of |g|^2 + |g|^2 - 2 |g|^2, and the root makes more of it
        found[:, rows].fill_diagonal_(0)
        return found.sqrt_().cpu()

    distance = _stacked(len(lengths), distances)
    return (distance.max() - distance).numpy()


def products(gradients: Product) -> np.ndarray:
    """(n, n) products of the gradients, float64."""

    def of(rows: slice) -> Tensor:
        return gradients.like(gradients.inputs[rows], gradients.delta[rows]).gram(gradients).cpu()

    return _stacked(len(gradients.delta), of).double().numpy()


def _stacked(n: int, compute: Callable[[slice], Tensor]) -> Tensor:
    """The lines of an (n, n) matrix, computed at once or, where the memory is short, some at a time."""
    parts = [found for _, found in in_blocks(n, n, compute)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def facility_location(similarity: np.ndarray, k: int) -> Chosen:
    """Rows that together are most similar to all rows: greedy on F(S) = sum_i max over j in S of s_ij.

    similarity (n, n), symmetric, >= 0. Weights: how many rows are most similar to each chosen one; they sum to n.
    F(S) is at least 1 - 1/e of the largest. Lazy: gains only fall, so that a row is looked at again only when its old
    gain is the highest; the first of equals is chosen. O(n^2 + n * looks) time.
    Source: Mirzasoleiman et al. 2020, CRAIG (arXiv:1906.01827), eq. 8 and algorithm 1.
    """
    n = len(similarity)
    queue = [(-float(gain), row, 0) for row, gain in enumerate(similarity.sum(axis=1))]  # (-gain, row, |S| then)
    heapify(queue)
    reached = np.zeros(n, dtype=similarity.dtype)  # what the chosen rows give each row
    chosen: list[int] = []
    while len(chosen) < k:
        _, row, known = heappop(queue)
        if known == len(chosen):
            chosen.append(row)
            np.maximum(reached, similarity[row], out=reached)
        else:
            gain = np.maximum(similarity[row] - reached, 0).sum()
            heappush(queue, (-float(gain), row, len(chosen)))
    rows = np.array(chosen)
    own = similarity[rows].argmax(axis=0)
    own[rows] = np.arange(k)  # copies of a chosen row that are chosen, too, stand for themselves
    return rows, np.bincount(own, minlength=k).astype(float)


def matching_pursuit(gram: np.ndarray, k: int, ridge: float = RIDGE) -> Chosen:
    """Rows and weights w >= 0 whose weighted gradients add up to the sum b of all n gradients.

    gram (n, n): products of the gradients, float64. Minimises |sum_j w_j g_j - b|^2 + lambda |w|^2, lambda = ridge
    times the mean squared length, so that the unit of the loss plays no part. The row whose gradient agrees most with
    what is missing joins, all weights are found anew, and rows whose weight would be negative leave again: the active
    set method for non-negative least squares (Lawson & Hanson 1974), which adds rows as matching pursuit does.

    Where no further row helps before there are k, the rows that agree most with what is missing fill up, with the
    smallest weight so far (1 where no row has a gradient). O(n k^2) time.
    Source: Killamsetty et al. 2021, Grad-Match (arXiv:2103.00123), eq. 5 and algorithm 2.
    """
    n, target = len(gram), gram.sum(axis=1)
    penalty = ridge * float(gram.diagonal().mean())
    solver = GrowingRidge(gram, penalty, k)
    missing, weights = target.copy(), np.zeros(0)
    for _ in range(3 * k):  # each exchange lowers the error, so that few are undone
        outside = missing.copy()
        outside[solver.rows] = -np.inf
        best = int(outside.argmax())
        if len(solver.rows) == k or outside[best] <= 1e-12 * abs(target).max(initial=0.0):
            break
        weights = solver.add(best, weights, target)
        missing = target - solver.columns[: len(weights)].T @ weights
    left = np.argsort(-np.where(np.isin(np.arange(n), solver.rows), -np.inf, missing), kind="stable")
    filling = left[: k - len(weights)]
    least = weights.min() if len(weights) else 1.0
    rows = np.concatenate([np.array(solver.rows, dtype=int), filling])
    return rows, np.concatenate([weights, np.full(len(filling), least)])


class GrowingRidge:
    """Non-negative ridge regression on rows that come and go: the inverse of (G_SS + penalty I) is kept up to date."""

    def __init__(self, gram: np.ndarray, penalty: float, most: int) -> None:
        self.gram = gram
        self.penalty = penalty
        self.rows: list[int] = []
        self.columns = np.empty((most, len(gram)))
        self._inverse = np.empty((most, most))

    def add(self, row: int, weights: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Weights >= 0 of `rows` after one more joined, and those that reach 0 left."""
        self._join(row)
        weights = np.append(weights, 0.0)
        while len(weights):
            size = len(weights)
            goal = self._inverse[:size, :size] @ target[self.rows]
            falling = goal <= 0
            if not falling.any():
                return goal
            # as far towards the goal as all weights stay non-negative
            ratio = weights[falling] / np.maximum(weights[falling] - goal[falling], np.finfo(float).tiny)
            weights = weights + ratio.min() * (goal - weights)
            # 0 to the last digit, so that at least one leaves and the loop ends
            weights[np.flatnonzero(falling)[ratio.argmin()]] = 0.0
            # from the end: who leaves is replaced by the last, which stays
            for place in np.flatnonzero(weights <= 0)[::-1]:
                weights = self._leave(int(place), weights)
        return weights

    def _join(self, row: int) -> None:
        m = len(self.rows)
        inner = self._inverse[:m, :m]
        along = inner @ self.gram[row, self.rows]
        # inverse of a matrix with one more line: `rest` is the Schur complement, at least the penalty
        rest = self.gram[row, row] + self.penalty - self.gram[row, self.rows] @ along
        inner += np.outer(along, along / rest)
        self._inverse[m, :m] = self._inverse[:m, m] = -along / rest
        self._inverse[m, m] = 1 / rest
        self.columns[m] = self.gram[row]
        self.rows.append(row)

    def _leave(self, place: int, weights: np.ndarray) -> np.ndarray:
        """Weights without that of the row in this place, which the last row takes."""
        last = len(self.rows) - 1
        swap = [last, place]
        self.rows[place] = self.rows[last]
        self.columns[place] = self.columns[last]
        full = self._inverse[: last + 1, : last + 1]
        full[[place, last]] = full[swap]
        full[:, [place, last]] = full[:, swap]
        # and with one less: the inverse P of what is left is P_11 - P_12 P_21 / P_22
        full[:last, :last] -= np.outer(full[:last, last], full[last, :last] / full[last, last])
        weights[place] = weights[last]
        self.rows.pop()
        return weights[:last]


@dataclass(frozen=True)
class Part:
    """Training rows, by position, and validation rows at the last layer of a model."""

    rows: np.ndarray
    train: LastLayer
    validation: LastLayer


def validation_steps(parts: list[Part], codes: np.ndarray, quota: np.ndarray, rounds: int = ROUNDS) -> np.ndarray:
    """Rows whose gradient step lowers the validation loss most, to first order; quota[c] of the rows with code c.

    gain_i = <g_i, gradient of the mean validation loss>, its mean over the parts that hold row i. After each of at most
    `rounds` rounds, in which every class gives its share, the last layer of each part takes a step of gradient descent
    on the rows of that round, and the validation gradient is taken anew, exactly. The step, 1 / mean |h|^2, is one that
    does not overshoot for a softmax. Rows of no part are not chosen. All rounds are where the gradients are.
    O(rounds (n + n_val) C d) time for each part.
    Source: Killamsetty et al. 2021, GLISTER (arXiv:2012.10630), eq. 6 and algorithm 2.
    """
    steps = [_Steps(part, len(codes)) for part in parts]
    rounds = min(rounds, int(quota.max()))
    like = steps[0].moved
    times = torch.from_numpy(np.bincount(np.concatenate([part.rows for part in parts]), minlength=len(codes))).to(like)
    free, classes = times > 0, torch.from_numpy(codes).to(like.device)
    chosen = []
    for place in _places(np.bincount(codes, minlength=len(quota)), quota, rounds, like.device):
        gain = like.new_zeros(len(codes))
        for step in steps:
            gain.index_add_(0, step.rows, step.gains())
        gain = (gain / times.clamp(min=1)).masked_fill_(~free, -torch.inf)
        order = gain.argsort(descending=True, stable=True)  # the best first, of equals the first
        taken = order[classes[order].argsort(stable=True)[place]]  # class by class
        free[taken] = False
        chosen.append(taken)
        for step in steps:
            step.take(taken)
    return np.sort(torch.cat(chosen).cpu().numpy())


def _places(sizes: np.ndarray, quota: np.ndarray, rounds: int, device: torch.device) -> Sequence[Tensor]:
    """By round, where the first rows of each class are among all, class by class: every class gives its share."""
    starts = np.cumsum(sizes) - sizes
    shares = np.diff([quota * number // rounds for number in range(rounds + 1)], axis=0)
    places = [start + np.arange(size) for share in shares for start, size in zip(starts, share, strict=True)]
    return torch.from_numpy(np.concatenate(places)).to(device).split(shares.sum(axis=1).tolist())  # sent at once


class _Steps:
    """The last layer of one model on its way."""

    def __init__(self, part: Part, n: int) -> None:
        self.gradients, self.validation = part.train.gradients, part.validation
        self.held = part.validation.inputs
        self.moved = self.gradients.delta.new_zeros(self.gradients.delta.shape[1], self.gradients.width)
        square = self.gradients.a.square().sum(dim=1).mean()
        self.size = 1.0 / square.clamp(min=torch.finfo(self.held.dtype).tiny)
        place = np.full(n, -1)  # of each row in the part
        place[part.rows] = np.arange(len(part.rows))
        self.rows, self.place = (torch.from_numpy(each).to(self.held.device) for each in (part.rows, place))

    def gains(self) -> Tensor:
        """Of the rows of the part."""
        return along(self.gradients, validation_gradient(self.validation, self.held, self.moved))

    def take(self, rows: Tensor) -> None:
        """A step on those of the rows that are in the part."""
        place = self.place[rows]
        own = place >= 0
        place = place.clamp(min=0)
        delta = self.gradients.delta[place] * own[:, None]
        self.moved -= self.size / own.sum().clamp(min=1) * (delta.T @ self.gradients.a[place])


def validation_gradient(validation: LastLayer, inputs: Tensor, moved: Tensor) -> Tensor:
    """(C, d + 1) gradient of the mean validation loss with respect to the last layer, moved by (C, d + 1)."""
    outputs = validation.outputs + (inputs @ moved.T).reshape(validation.outputs.shape)
    return validation.errors(outputs).T @ inputs / len(inputs)


def along(gradients: Product, direction: Tensor) -> Tensor:
    """(n,) dot products with one direction (C, d + 1)."""
    return ((gradients.delta @ direction) * gradients.a).sum(dim=1)
