"""A boosted ensemble in a form of our own, whatever library trained it: leaves, their values, and what made these.

A step adds to the outputs of the rows of a leaf rate * theta, theta = -G / (H + l2), G and H the sums over the rows of
the leaf of their weighted gradients and curvatures before the step: so a row moves the leaf's output, when it goes, by
w_i rate (g_i + h_i theta) / (H + l2). Some libraries take several Newton steps in a leaf, one after the other, before
the rate. What was read is used only if both hold of the rows: the values of the leaves
add up to the library's own raw outputs, and every value is the Newton step of the rows in its leaf.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import softmax

from sktda.attribution.trees.losses import Loss, curved
from sktda.data import slices
from sktda.model.given import part_of
from sktda.model.reading import count

ENTRIES = 300_000  # leaves of rows that are worked on at a time
WALKED = 16_000_000  # leaves that the library is asked for at a time
KEPT = 64_000_000  # leaves of the training rows that are kept, 256 MB; beyond that the trees are asked again
CHECKED = 32  # rows of every block whose outputs are compared with the library's own
STEP_TOLERANCE = 2e-3  # relative, of what libraries compute in single precision
ROUNDING = 64 * float(np.finfo(np.float32).eps)  # a sum over hundreds of trees is rounded as often
SINGULAR = 1e-12  # relative, eigenvalues of curvatures that are rounding
DRAWN_AGREEMENT = 0.8  # correlation of leaves of drawn rows with what all rows say; measured are 0.92 to 0.99


@dataclass
class Facts:
    """What is known of an ensemble of T steps of K trees, its L leaves numbered through.

    start (K,): outputs before the first step; None = what the leaves leave of the library's outputs. values (L,): what
    a leaf adds to the output. rate: learning rate. l1, l2: penalties of a leaf; several of l2 where the library chooses
    by the kind of split. limit: the largest step, 0 = none. share: of the rows, drawn for every step. inner: Newton
    steps in a leaf. named: options in force that the check of the steps may stumble over.
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
    inner: int = 1
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


@dataclass
class Newton:
    """A Newton step in every leaf (L,): its size theta, rate / (H + l2), where the leaf stands before it, and what it
    keeps of a change that was there before it.
    """

    theta: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    keep: np.ndarray
    inverse: np.ndarray | None = None
    """Of steps that solve for all K outputs at once, in place of `scale`: rate times the inverses (L / K, K, K)."""

    def scaled(self, leaves: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """What is lost by the leaves (b, T, K) as a move of their outputs."""
        if self.inverse is None:
            # theta = -G / (H + l2) rises by (g_i + h_i theta) / (H + l2) without row i; scale has the rate, too
            return self.scale[leaves] * lost
        # the K outputs of a step share a tree, so any of its K leaves names the matrix
        return np.einsum("btij,btj->bti", self.inverse[leaves[:, :, 0] // leaves.shape[2]], lost)


@dataclass
class Sums:
    """Over the rows of every leaf (L,): gradients, curvatures, what rounding may do to G, curvatures by the output."""

    G: np.ndarray
    H: np.ndarray
    slack: np.ndarray
    bend: np.ndarray


class Steps:
    """The ensemble with the sums over the rows that it was trained on. Raises ValueError where these do not make it.

    weights (n,). newton: the Newton steps in a leaf, mostly one; its scale is 0 where no row moves the value.
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
            # what the library starts from is the same for all rows: one tells it, and the check below whether it is so
            first = part_of(X, np.arange(1))
            self.start = trees.raw(first)[0] - facts.values[trees.leaves(first)[0]].sum(axis=0)
        else:
            self.start = facts.start
        # checks and derivatives are of the Newton step itself, before the learning rate
        self.theta = facts.values / facts.rate
        self._kept: list[np.ndarray] | None = self._checked_leaves()
        if facts.loss.coupled:
            self.newton = [self._coupled()]
        elif facts.inner == 1:
            self.newton = [self._settled(self._sums(np.zeros(len(self.theta))))]
        else:
            self.newton = self._inner()

    def __getstate__(self) -> dict:
        # up to 256 MB that the trees can say again
        return vars(self) | {"_kept": None}

    def _checked_leaves(self) -> list[np.ndarray] | None:
        """Leaves of the training rows, block by block, where they are not too many; the outputs of some are checked."""
        kept: list[np.ndarray] | None = []
        for rows, leaves in self._walked(self.X):
            some = np.arange(rows.start, min(rows.stop, rows.start + CHECKED))
            outputs = self._block(leaves[: len(some)]).outputs
            self._check_outputs(outputs, self.trees.raw(part_of(self.X, some)), rows.start)
            if kept is not None and len(self.targets) * leaves[0].size <= KEPT:
                kept.append(leaves)
            else:
                kept = None
        return kept

    def _sums(self, offset: np.ndarray) -> Sums:
        """Where the leaves' outputs stand this much above those before the step."""
        loss, n_leaves = self.facts.loss, len(offset)
        sums = Sums(*np.zeros((4, n_leaves)))
        for rows, block in self.training_blocks():
            at, targets = block.before + offset[block.leaves], self.targets[rows, None]
            g, h = loss.derivatives(at, targets)
            found = {"G": g, "H": h, "slack": STEP_TOLERANCE * np.abs(g) + ROUNDING * loss.rounding(at, targets)}
            # h by the output: pushed along 1 at theta 1 is g' + h', and g' = h for a loss of one output
            if self.facts.inner > 1:
                ones = np.ones_like(at)
                found["bend"] = loss.pushed(at, targets, ones, ones) - h
            for name, each in found.items():
                each = self.weights[rows, None, None] * each
                getattr(sums, name)[:] += np.bincount(block.leaves.ravel(), each.ravel(), n_leaves)
        return sums

    def _settled(self, sums: Sums) -> Newton:
        """The one step of every leaf, checked against the sums over its rows."""
        facts, theta = self.facts, self.theta
        # of rows drawn by chance the sums are this share of those over all rows
        l1, candidates = facts.l1 / facts.share, np.array(facts.l2)[:, None] / facts.share
        # an l1 penalty brings G nearer to 0, and a leaf of |G| <= l1 to 0
        pulled = np.sign(sums.G) * np.maximum(np.abs(sums.G) - l1, 0)
        step = -pulled / np.maximum(sums.H + candidates, np.finfo(float).tiny)
        if facts.limit:
            step = step.clip(-facts.limit, facts.limit)
        # the kind of split above a leaf is not read, so its penalty is the one that explains its value
        chosen = np.abs(step - theta).argmin(axis=0)
        l2, step = candidates[chosen, 0], step[chosen, np.arange(len(theta))]
        mass = sums.H + l2
        idle = theta == 0  # libraries leave a tree without a split at 0, whatever its rows say
        if facts.share == 1:
            self._check_steps(step, mass, sums)
        else:
            # which rows were drawn is not known, so single values are off by chance: only all together can be compared
            sizes = np.sqrt((mass * theta**2).sum() * (mass * step**2).sum())
            if (mass * theta * step).sum() < DRAWN_AGREEMENT * sizes:
                raise ValueError(self._disagreement(len(theta)))
        # a value that l1 holds at 0, or of a tree without a split, stays there when a row goes
        free = (sums.H > 0) & ((np.abs(sums.G) > l1) | (facts.l1 == 0)) & ~(idle & (step != 0))
        if facts.limit:
            # the same at the limit, which a value in single precision may miss by a little
            free &= np.abs(theta) < facts.limit * (1 - 1e-6)
        scale = np.divide(facts.rate, mass, out=np.zeros(len(theta)), where=free & (mass > 0))
        return Newton(theta, scale, np.zeros(len(theta)), np.zeros(len(theta)))

    def _coupled(self) -> Newton:
        """One step of every leaf for all outputs at once; the numbers of a leaf's K values follow each other."""
        facts, zeros = self.facts, np.zeros(len(self.theta))
        sums, n_outputs = self._sums(zeros), facts.loss.n_outputs
        # (leaves of the trees, K, K): sums over rows of w_i (diag(p) - p p')
        H = np.zeros((len(zeros) // n_outputs, n_outputs, n_outputs))
        for rows, block in self.training_blocks():
            of = (block.leaves[:, :, 0] // n_outputs).ravel()
            for k, unit in enumerate(np.eye(n_outputs)):
                # column k, by a unit vector: K x K matrices of all rows and steps would be K times as large
                column = self.weights[rows, None, None] * coupled_curvature(block.before, unit)
                for j in range(n_outputs):
                    H[:, j, k] += np.bincount(of, column[:, :, j].ravel(), len(H))
        # without l2 the curvature is singular where all outputs move alike, and where there are no rows: CatBoost's
        # step is the shortest one
        inverse = np.linalg.pinv(H + facts.l2[0] * np.eye(n_outputs), rcond=SINGULAR, hermitian=True)
        step = -np.einsum("lij,lj->li", inverse, sums.G.reshape(-1, n_outputs)).ravel()
        self._check_steps(step, sums.H + facts.l2[0], sums)
        return Newton(self.theta, zeros, zeros, zeros, facts.rate * inverse)

    def _inner(self) -> list[Newton]:
        """Several steps of every leaf, made again from the rows: their sum is checked."""
        facts, offset = self.facts, np.zeros(len(self.theta))
        found = []
        for _ in range(facts.inner):
            # each step is of the gradients where the last one has left the outputs
            sums = self._sums(offset)
            mass = np.maximum(sums.H + facts.l2[0], np.finfo(float).tiny)
            step = np.where(sums.H > 0, -sums.G / mass, 0.0)
            scale = np.where(sums.H > 0, facts.rate / mass, 0.0)
            # o - G(o) / (H(o) + l2) by o is 1 - (dG/do + dH/do step) / (H + l2), with dG/do = H and dH/do = bend
            found.append(Newton(step, scale, offset, 1 - (sums.H + sums.bend * step) / mass))
            offset = offset + step
        self._check_steps(offset, mass, sums)
        return found

    def _check_steps(self, step: np.ndarray, mass: np.ndarray, sums: Sums) -> None:
        """ValueError unless the leaves' values are these steps, as far as single precision tells."""
        # in units of G, where the rounding is: over a small curvature it may become a step of any size
        off = np.abs(self.theta - step) * mass
        wrong = off > STEP_TOLERANCE * np.abs(self.theta) * mass + sums.slack
        wrong &= self.theta != 0
        if wrong.any():
            raise ValueError(self._disagreement(int(wrong.sum())))

    def _disagreement(self, wrong: int) -> str:
        named = f" ({', '.join(self.facts.named)} may be why: leave it out)" if self.facts.named else ""
        return (
            f"the values of {wrong} of {len(self.theta)} leaves do not follow from these rows, so nothing can be said "
            "of what a row did: give X, y and sample_weight as the model was trained on, or the model without "
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
        for rows, leaves in self._walked(X):
            yield rows, self._block(leaves)

    def _walked(self, X: Any) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields (rows, their leaves (b, T, K))."""
        n = count(X)
        width = max(1, self.trees.leaves(part_of(X, np.arange(min(n, 1)))).size)
        for part in slices(n, max(64, WALKED // width)):
            leaves = self.trees.leaves(part_of(X, np.arange(part.start, part.stop)))
            for rows in slices(len(leaves), max(64, ENTRIES // width)):
                # of HistGradientBoosting rows are the last axis in memory
                yield slice(part.start + rows.start, part.start + rows.stop), np.ascontiguousarray(leaves[rows])

    def _block(self, leaves: np.ndarray) -> Block:
        leaves = leaves.astype(np.intp)  # once, where every look-up would do it
        values = self.facts.values[leaves]
        sums = np.cumsum(values, axis=1)
        sums += self.start
        outputs = sums[:, -1].copy()
        # outputs before a step: those after it less its own
        sums -= values
        return Block(leaves, sums, outputs)

    def _check_outputs(self, outputs: np.ndarray, raw: np.ndarray, start: int) -> None:
        """ValueError unless the leaves' values add up to the library's raw outputs."""
        off = np.abs(outputs - raw)
        # single precision rounds by the size of what is added, and large leaves may cancel in the sum
        wrong = off > 1e-4 * (1 + np.abs(raw) + np.abs(self.facts.values).max(initial=0))
        if wrong.any():
            row = int(wrong.any(axis=1).argmax())
            named = f"; {', '.join(self.facts.named)} may be why" if self.facts.named else ""
            raise ValueError(
                f"the leaves of this model add up to {outputs[row, 0]:g} for row {start + row}, and it says "
                f"{raw[row, 0]:g}: it has parts beyond its leaves' values{named}; leave them out"
            )

    def moves(
        self, rows: slice, leaves: np.ndarray, before: np.ndarray, moved: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """By how much training rows move the outputs of their leaves when they are removed, to first order.

        leaves, before (b, T, K): of some steps. moved: by how much the removal has moved each row's own output before.
        Returns (moves, derivatives of the rows' own losses by their outputs before the steps), each (b, T, K).
        """
        loss, targets = self.facts.loss, self.targets[rows, None]
        weight = self.weights[rows, None, None]
        moves, slopes = np.zeros(0), np.zeros(0)
        for position, newton in enumerate(self.newton):
            at = before + newton.offset[leaves] if position else before
            g, h = loss.derivatives(at, targets)
            # the row's loss by what the tree adds, so from before the first step in its leaf
            slopes = slopes if position else g
            theta = newton.theta[leaves]
            # what G + H theta loses with the row; without a penalty these sum to 0 over the rows of a leaf
            lost = g + (coupled_curvature(at, theta) if loss.coupled else h * theta)
            if moved is not None:
                # to first order the row is still there, at an output that its removal has moved: that much comes back
                lost = lost - loss.pushed(at, targets, moved, theta)
            found = weight * newton.scaled(leaves, lost)
            # what moved the leaf in an earlier step changes the gradients of this one
            moves = newton.keep[leaves] * moves + found if position else found
        return moves, slopes


def coupled_curvature(outputs: np.ndarray, along: np.ndarray) -> np.ndarray:
    """The curvature of a softmax at these outputs (..., K) times a vector of their shape."""
    return curved(softmax(outputs, axis=-1), along)


def numbered(is_leaf: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """From masks of the nodes of every tree that are leaves: (first node (trees,), number of the leaf by node)."""
    first = np.cumsum([0, *map(len, is_leaf)])[:-1]
    return first, np.cumsum(np.concatenate(is_leaf)) - 1
