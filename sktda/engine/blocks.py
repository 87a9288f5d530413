"""The Gauss-Newton matrix layer by layer, exactly: for nets of any width on few rows."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

import torch
from torch import Tensor

from sktda.devices import exact
from sktda.engine.curvature import DENSE_PARAMETERS, Spectral, Visit, here, root_gradients
from sktda.engine.functional import Direction
from sktda.engine.per_row import PerRow
from sktda.model.base import Rows, flatten_each, unflatten

BLOCK_BYTES = 8 * 2**30  # of the root gradients of all layers, or of their bases
NULL = 1e-9  # eigenvalues below this share of the largest count as 0: their vectors would not be orthogonal to 1e-7


class BlockCurvature:
    """Eigen-decompositions of the Gauss-Newton matrices of single layers, plus penalty; `EKFAC` approximates these.

    The matrix of a layer is the mean of r r' over its root gradients r (one per row, output and state), so that its
    eigenvectors follow from their Gram matrix where they are fewer than the layer's parameters; all directions across
    them have the penalty as their eigenvalue. A penalty that differs within such a layer counts by its diagonal in the
    eigenbasis.
    visit, root, decay: as of `DenseCurvature`, but root and decay by parameter.
    O(m^2 p + m^3) time a layer for m root gradients of p parameters, the smaller of them being limited to 5,000.
    Raises ValueError beyond that, or if the bases would take more than 8 GiB.
    """

    def __init__(
        self,
        engine: PerRow,
        rows: Rows,
        visit: Visit = here,
        root: Direction | None = None,
        decay: Mapping[str, float] | None = None,
    ) -> None:
        own = engine.model.parameters
        self.blocks: dict[str, list[str]] = {}
        for name in own:
            self.blocks.setdefault(name.rpartition(".")[0], []).append(name)  # one per module: weight and bias together
        self._shapes = {name: value.shape for name, value in own.items()}
        penalty = self._by_block(
            {
                name: exact(
                    # a penalty of the loss is preconditioned like the loss, decoupled decay is not
                    engine.model.decay.get(name, 0.0) * (torch.ones_like(value) if root is None else root[name] ** 2)
                    + (decay or {}).get(name, 0.0)
                )
                for name, value in own.items()
            }
        )
        found, summed = self._root_gradients(engine, rows, visit, root)
        self.values: dict[str, Tensor] = {}
        self.bases: dict[str, Tensor] = {}
        for block in self.blocks:
            self._decompose(block, found.pop(block), block in summed, penalty[block])

    def _by_block(self, direction: Direction) -> dict[str, Tensor]:
        """(..., p) by block."""
        return {block: flatten_each(direction, self._shapes_of(block)) for block in self.blocks}

    def _shapes_of(self, block: str) -> dict[str, torch.Size]:
        return {name: self._shapes[name] for name in self.blocks[block]}

    def _root_gradients(
        self, engine: PerRow, rows: Rows, visit: Visit, root: Direction | None
    ) -> tuple[dict[str, Tensor], set[str]]:
        """By block (m, p) root gradients, or where these are more than parameters (p, p) sums of their products.

        And the names of the blocks that have sums: m may be p, too, where several states are visited.
        """
        parts: dict[str, list[Tensor]] = {block: [] for block in self.blocks}
        squares: dict[str, Tensor] = {}

        def work(part: slice) -> None:
            found: dict[str, list[Tensor]] = {block: [] for block in self.blocks}
            for gradients in root_gradients(engine, rows.block(part, engine.model.device)):
                direction = unflatten(gradients, self._shapes)
                if root is not None:
                    direction = {name: root[name] * value.to(root[name].device) for name, value in direction.items()}
                for block, values in self._by_block(direction).items():
                    found[block].append(values)
            sums: dict[str, Tensor] = {}
            rest: dict[str, Tensor] = {}
            for block, each in found.items():
                joined = torch.cat(each)
                if joined.shape[1] <= len(rows) * len(each):  # p <= m at one state: the sum is the smaller one
                    sums[block] = exact(joined).T @ exact(joined)
                else:
                    rest[block] = joined
            # only now, and without new memory: a batch that runs out of it is tried again
            for block, square in sums.items():
                squares[block] = squares[block].add_(square) if block in squares else square
            for block, joined in rest.items():
                parts[block].append(joined)
            self._refuse(squares, parts)  # after each batch: before the memory is full, not after

        states = 0
        for _ in visit():
            engine.sweep(rows, work)
            states += 1
        # a mean of r r' over rows and states: n divides sums of products, and its root each r
        n = states * len(rows)
        found = {
            block: squares[block] / n if block in squares else torch.cat(parts[block]) / n**0.5 for block in self.blocks
        }
        return found, set(squares)

    def _refuse(self, squares: dict[str, Tensor], parts: dict[str, list[Tensor]]) -> None:
        sizes = {block: (len(value), len(value)) for block, value in squares.items()}
        sizes |= {block: (sum(map(len, found)), found[0].shape[1]) for block, found in parts.items() if found}
        block = max(sizes, key=lambda key: sizes[key][0])
        n_bytes = sum(8 * m * p for m, p in sizes.values())
        if sizes[block][0] > DENSE_PARAMETERS or n_bytes > BLOCK_BYTES:
            raise ValueError(
                "curvature='blockwise' decomposes matrices of the size of a layer's parameters or, where these are "
                f"fewer, of rows x outputs x checkpoints of a segment; allowed are {DENSE_PARAMETERS} and "
                f"{BLOCK_BYTES / 2**30:g} GiB in all, and layer {block!r} has {sizes[block][0]} or more, all layers "
                f"{n_bytes / 2**30:.2g} GiB or more; use curvature='ekfac'"
            )

    def _decompose(self, block: str, found: Tensor, summed: bool, penalty: Tensor) -> None:
        if summed:
            self.values[block], self.bases[block] = torch.linalg.eigh((found + found.T) / 2 + torch.diag(penalty))
            return
        wide = exact(found)  # the Gram squares the condition number
        values, vectors = torch.linalg.eigh(wide @ wide.T)
        kept = values > NULL * values[-1]
        values = values[kept]
        basis = wide.T @ (vectors[:, kept] / values.sqrt())  # of length 1: |R' u|^2 = s
        self.values[block] = values + basis.square().T @ penalty
        self.values[across(block)] = penalty.mean()[None]
        self.bases[block] = basis.to(found.dtype)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that the fit found; put back with `restored`."""
        parts = {"values": self.values, "bases": self.bases}
        return {f"{part}/{name}": value for part, found in parts.items() for name, value in found.items()}

    def restored(self, tensors: Mapping[str, Tensor]) -> BlockCurvature:
        """A curvature of the same layers with these tensors."""
        other = copy(self)
        other.values, other.bases = (
            {name: tensors[f"{part}/{name}"] for name in found}
            for part, found in (("values", self.values), ("bases", self.bases))
        )
        return other

    @property
    def nbytes(self) -> int:
        """Bytes at the largest moment of the fit."""
        # a matrix, its vectors, and the workspace of eigh
        return 3 * sum(basis.numel() * 8 for basis in self.bases.values())

    def rotate(self, direction: Direction) -> dict[str, Tensor]:
        """By block: coordinates in the eigenbasis, and under `across(block)` the part across it, as it is."""
        result = {}
        for block, value in self._by_block(direction).items():
            basis = self.bases[block]
            result[block] = value.to(basis) @ basis
            if across(block) in self.values:
                result[across(block)] = value.to(basis) - result[block] @ basis.T
        return result

    def scale(self, fn: Spectral, coordinates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """fn of the eigenvalues times the coordinates."""
        return {name: fn(self.values[name]).to(value) * value for name, value in coordinates.items()}

    def back(self, coordinates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `rotate`."""
        result: dict[str, Tensor] = {}
        for block in self.blocks:
            moved = coordinates[block] @ self.bases[block].T
            if across(block) in coordinates:
                moved = moved + coordinates[across(block)]
            result |= unflatten(moved, self._shapes_of(block))
        return result


def across(block: str) -> str:
    """Name of the directions of a block that none of its root gradients has a part in."""
    return f"{block} across"
