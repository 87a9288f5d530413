"""A boosted ensemble in a form of our own, whatever library trained it: leaves, their values, and what made these.

A step adds to the outputs of the rows of a leaf rate * theta, theta = -G / (H + l2), G and H the sums over the rows of
the leaf of their weighted gradients and curvatures before the step: so a row moves the leaf's output, when it goes, by
w_i rate (g_i + h_i theta) / (H + l2). What was read is used only if both hold of the rows: the values of the leaves
add up to the library's own raw outputs, and every value is the Newton step of the rows in its leaf.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sktda.attribution.trees.losses import Loss
from sktda.data import slices
from sktda.model.given import part_of
from sktda.model.reading import count

ENTRIES = 1_000_000  # leaves of rows that are worked on at a time
KEPT = 64_000_000  # leaves of the training rows that are kept, 256 MB; beyond that the trees are asked again
CHECKED = 256  # rows of every block whose outputs are compared with the library's own
STEP_TOLERANCE = 2e-3  # relative, of what libraries compute in single precision
ROUNDING = 16 * float(np.finfo(np.float32).eps)
DRAWN_AGREEMENT = 0.8  # correlation of leaves of drawn rows with what all rows say; measured are 0.92 to 0.99


@dataclass
class Facts:
    """What is known of an ensemble of T steps of K trees, its L leaves numbered through.

    start (K,): outputs before the first step; None = what the leaves leave of the library's outputs. values (L,): what
    a leaf adds to the output. rate: learning rate. l1, l2: penalties of a leaf; several of l2 where the library chooses
    by the kind of split. limit: the largest step, 0 = none. share: of the rows, drawn for every step. named: options
    in force that the check of the steps may stumble over.
    """

    loss: Loss
    classes: np.ndarray | None
    start: np.ndarray | None
    values: np.ndarray
    rate: float
    l2: tuple[float, ...] = (0.0,)
    l1: float = 0.0
    limit: float = 0.0
    share: float = 1.0
    named: list[str] = field(default_factory=list)


class Trees(ABC):
    """A trained boosted ensemble, as one library has it."""

    facts: Facts

    @abstractmethod
    def leaves(self, X: Any) -> np.ndarray:
        """(n, T, K) number of the leaf of every row in every tree."""

    @abstractmethod
    def raw(self, X: Any) -> np.ndarray:
        """(n, K) raw outputs as the library computes them."""

    def weights(self, targets: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
        """(n,) weights that the rows had in training; 0 for rows that took no part."""
        return sample_weight


@dataclass
class Block:
    """Some rows at every step: leaves (b, T, K), outputs before the steps (b, T, K), outputs of the ensemble (b, K)."""

    leaves: np.ndarray
    before: np.ndarray
    outputs: np.ndarray


class Steps:
    """The ensemble with the sums over the rows that it was trained on. Raises ValueError where these do not make it.

    theta, scale (L,): the Newton step of a leaf, and rate / (H + l2), 0 where no row moves the value. weights (n,).
    trained_here: whether X, targets and weights are known to be those of the training.
    """

    def __init__(
        self, trees: Trees, X: Any, targets: np.ndarray, sample_weight: np.ndarray, trained_here: bool = False
    ) -> None:
        self.trees, self.facts, self.X = trees, trees.facts, X
        self.targets = targets
        self.weights = trees.weights(targets, sample_weight)
        facts = self.facts
        if facts.share < 1 and not trained_here:
            raise ValueError(
                f"this model drew {100 * facts.share:g} % of the rows for every step, and which ones is not known, so "
                "that rows, labels and weights cannot be checked to be its own; give it without FrozenEstimator, to "
                "have it trained here, or without subsampling"
            )
        if facts.start is None:
            first = part_of(X, np.arange(1))
            self.start = trees.raw(first)[0] - facts.values[trees.leaves(first)[0]].sum(axis=0)
        else:
            self.start = facts.start
        n_leaves = len(facts.values)
        sums = np.zeros((4, n_leaves))  # G, H, |G| and rounding
        self.theta = facts.values / facts.rate
        self._kept: list[np.ndarray] | None = None
        kept = []
        for rows, block in self.blocks(X):
            some = np.arange(rows.start, min(rows.stop, rows.start + CHECKED))
            self._check_outputs(block.outputs[:CHECKED], trees.raw(part_of(X, some)), rows.start)
            if count(X) * block.leaves[0].size <= KEPT:
                kept.append(block.leaves)
            g, h = facts.loss.derivatives(block.before, targets[rows, None])
            weight = self.weights[rows, None, None]
            flat = block.leaves.ravel()
            rounding = facts.loss.rounding(block.before, targets[rows, None])
            for total, each in zip(sums, (g, h, np.abs(g), rounding), strict=True):
                each = weight * each
                total += np.bincount(flat, each.ravel(), n_leaves)
        self._settle(*sums)
        self._kept = kept or None

    def __getstate__(self) -> dict:
        return vars(self) | {"_kept": None}

    def _settle(self, G: np.ndarray, H: np.ndarray, size: np.ndarray, rounding: np.ndarray) -> None:
        """Check the leaves' values against the sums over their rows, and set `scale`."""
        facts, theta = self.facts, self.theta
        # of rows drawn by chance the sums are this share of those over all rows
        l1, candidates = facts.l1 / facts.share, np.array(facts.l2)[:, None] / facts.share
        pulled = np.sign(G) * np.maximum(np.abs(G) - l1, 0)
        step = -pulled / np.maximum(H + candidates, np.finfo(float).tiny)
        if facts.limit:
            step = step.clip(-facts.limit, facts.limit)
        chosen = np.abs(step - theta).argmin(axis=0)
        l2, step = candidates[chosen, 0], step[chosen, np.arange(len(theta))]
        mass = H + l2
        idle = theta == 0  # libraries leave a tree without a split at 0, whatever its rows say
        if facts.share == 1:
            wrong = np.abs(theta - step) * mass > STEP_TOLERANCE * (size + np.abs(theta) * mass) + ROUNDING * rounding
            wrong &= ~idle
        else:
            sizes = np.sqrt((mass * theta**2).sum() * (mass * step**2).sum())
            wrong = np.full(len(theta), (mass * theta * step).sum() < DRAWN_AGREEMENT * sizes)
        if wrong.any():
            raise ValueError(self._disagreement(int(wrong.sum()), len(theta)))
        free = (H > 0) & ((np.abs(G) > l1) | (facts.l1 == 0)) & ~(idle & (step != 0))
        if facts.limit:
            free &= np.abs(theta) < facts.limit * (1 - 1e-6)
        self.scale = np.divide(facts.rate, mass, out=np.zeros(len(theta)), where=free & (mass > 0))

    def _disagreement(self, wrong: int, n_leaves: int) -> str:
        named = f" ({', '.join(self.facts.named)} may be why: leave it out)" if self.facts.named else ""
        return (
            f"the values of {wrong} of {n_leaves} leaves do not follow from these rows, so nothing can be said of what "
            "a row did: give X, y and sample_weight as the model was trained on, or the model without "
            f"FrozenEstimator, and without what changes its leaves afterwards{named}"
        )

    def training_blocks(self) -> Iterator[tuple[slice, Block]]:
        """Yields (rows, what the trees say of them) of the rows that the ensemble was trained on."""
        if self._kept is None:
            yield from self.blocks(self.X)
            return
        start = 0
        for leaves in self._kept:
            yield slice(start, start + len(leaves)), self._block(leaves)
            start += len(leaves)

    def blocks(self, X: Any) -> Iterator[tuple[slice, Block]]:
        """Yields (rows, what the trees say of them)."""
        n = count(X)
        width = max(1, self.trees.leaves(part_of(X, np.arange(min(n, 1)))).size)
        for rows in slices(n, max(64, ENTRIES // width)):
            yield rows, self._block(self.trees.leaves(part_of(X, np.arange(rows.start, rows.stop))))

    def _block(self, leaves: np.ndarray) -> Block:
        values = self.facts.values[leaves]
        sums = self.start + np.cumsum(values, axis=1)
        return Block(leaves, sums - values, sums[:, -1])

    def _check_outputs(self, outputs: np.ndarray, raw: np.ndarray, start: int) -> None:
        """ValueError unless the leaves' values add up to the library's raw outputs."""
        off = np.abs(outputs - raw)
        wrong = off > 1e-4 * (1 + np.abs(raw) + np.abs(self.facts.values).max(initial=0))
        if wrong.any():
            row = int(wrong.any(axis=1).argmax())
            named = f"; {', '.join(self.facts.named)} may be why" if self.facts.named else ""
            raise ValueError(
                f"the leaves of this model add up to {outputs[row, 0]:g} for row {start + row}, and it says "
                f"{raw[row, 0]:g}: it has parts beyond its leaves' values{named}; leave them out"
            )

    def moves(self, rows: slice, block: Block) -> np.ndarray:
        """(b, T, K) by how much each training row moves the output of its leaf when it is removed, to first order."""
        return self.moves_and_slopes(rows, block)[0]

    def moves_and_slopes(self, rows: slice, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """(moves, derivatives of the rows' own losses by their outputs before each step), each (b, T, K)."""
        g, h = self.facts.loss.derivatives(block.before, self.targets[rows, None])
        moves = self.weights[rows, None, None] * self.scale[block.leaves] * (g + h * self.theta[block.leaves])
        return moves, g


def numbered(is_leaf: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """From masks of the nodes of every tree that are leaves: (first node (trees,), number of the leaf by node)."""
    first = np.cumsum([0, *map(len, is_leaf)])[:-1]
    return first, np.cumsum(np.concatenate(is_leaf)) - 1
