"""One layer's share of an EK-FAC curvature: its parameters as a matrix, and squares of gradients in an eigenbasis.

The eigenbasis of a (out, in) matrix is an orthogonal matrix for its rows and one for its columns; None stands for the
identity. The kinds of blocks are in `engine/kronecker_blocks.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping

import torch
from scipy.linalg import eigh
from torch import Tensor

from sktda.devices import where_it_fits
from sktda.engine.functional import Direction
from sktda.engine.layers import Formed, LayerRows

FORMED_BYTES = 64 * 2**20  # per-row gradients of one layer that are formed at a time
LARGE = 256  # columns from which SciPy's eigenvectors on a processor take a quarter to a third less time than torch's

Bases = tuple[Tensor | None, Tensor | None]
"""(for the columns (in, in), for the rows (out, out)) of a block's matrix."""


class Block(ABC):
    """Some parameters as a matrix (out, in).

    source: name of the factors that they are in, columns: their place there (None = all).
    """

    def __init__(
        self,
        name: str,
        parameters: list[str],
        shapes: list[torch.Size],
        source: str | None = None,
        columns: slice | None = None,
    ) -> None:
        self.name = name
        self.parameters = parameters
        self.shapes = shapes
        self.source = name if source is None else source
        self.columns = columns

    @property
    def n_parameters(self) -> int:
        """Numbers of the matrix."""
        return sum(shape.numel() for shape in self.shapes)

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(out, in)."""

    @property
    @abstractmethod
    def rotates(self) -> tuple[bool, bool]:
        """Whether the columns, and the rows, have an eigenbasis; if not, the identity is it."""

    @abstractmethod
    def matrix(self, direction: Direction) -> Tensor:
        """(..., out, in) from a direction by parameter."""

    @abstractmethod
    def direction(self, matrix: Tensor) -> dict[str, Tensor]:
        """The inverse of `matrix`."""

    @abstractmethod
    def flat(self, matrices: Tensor) -> Tensor:
        """(k, p) in the order of LayerRows.gradients, from (k, out, in)."""

    @abstractmethod
    def columns_of(self, values: Mapping[str, float]) -> list[tuple[int, float]]:
        """(number of columns, value in all of them) of a matrix whose parameters are these constants."""

    def taken(self, factors: Mapping[str, LayerRows]) -> LayerRows:
        """The gradients of this block's parameters."""
        found = factors[self.source]
        return found if self.columns is None else Formed(found.gradients()[:, self.columns])

    @abstractmethod
    def products(self, factor: LayerRows, root: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Sums whose eigenvectors are the bases; root (n,): of the rows' weights, which delta has already."""

    @abstractmethod
    def rotated_matrices(self, factor: LayerRows, bases: Bases) -> Iterator[Tensor]:
        """Yields (k, out, in) gradients of a few rows at a time in the eigenbasis."""

    @abstractmethod
    def squares(self, factor: LayerRows, bases: Bases) -> Tensor:
        """(out, in) sum over rows of the squared gradient in the eigenbasis."""

    @abstractmethod
    def energies(self, factor: LayerRows, bases: Bases, scale: Tensor) -> Tensor:
        """(n,) sums of squares in the eigenbasis, times the scale (out, in)."""

    def step(self, element_size: int) -> int:
        """Rows whose gradients are formed at a time."""
        return max(1, FORMED_BYTES // max(1, self.n_parameters * element_size))


def squares_of(matrices: Iterable[Tensor]) -> Tensor:
    """(out, in) sum of the squares of matrices (k, out, in) that come a few at a time."""
    return sum(part.square().sum(0) for part in matrices)  # type: ignore[return-value]


def energies_of(matrices: Iterable[Tensor], scale: Tensor) -> Tensor:
    """(n,) sums of the squares of each of these, times the scale (out, in)."""
    # g_i' Q diag(scale) Q' g_i, by the coordinates Q' g_i that come
    flat = scale.flatten()
    return torch.cat([part.square().flatten(1) @ flat for part in matrices])


def turned(matrix: Tensor, bases: Bases) -> Tensor:
    """(..., out, in) in the eigenbases."""
    q_in, q_out = bases
    # Q_out' G Q_in: coordinates in the basis of the products q_out q_in'
    matrix = matrix if q_out is None else q_out.T @ matrix
    return matrix if q_in is None else matrix @ q_in


def turned_back(matrix: Tensor, bases: Bases) -> Tensor:
    """The inverse of `turned`."""
    q_in, q_out = bases
    matrix = matrix if q_out is None else q_out @ matrix
    return matrix if q_in is None else matrix @ q_in.T


def squared(bases: Bases) -> Bases:
    """The squares, which turn a diagonal into the diagonal in the eigenbasis."""
    q_in, q_out = bases
    # diag(Q' diag(d) Q) = (Q * Q)' d
    return None if q_in is None else q_in.square(), None if q_out is None else q_out.square()


def flat(values: Tensor) -> Tensor:
    """(n * positions, width)."""
    return values.reshape(-1, values.shape[-1])


def eigenvectors(matrix: Tensor) -> Tensor:
    """Columns of eigenvectors of a symmetric matrix, of which the lower triangle is read, in float64.

    In float32 rounding mixes the vectors of all eigenvalues below a millionth of the largest, which an inverse with
    little damping, or `Source` with none, weighs most.
    """
    return where_it_fits(matrix.device, lambda place: _eigenvectors(matrix.to(place)))


def _eigenvectors(matrix: Tensor) -> Tensor:
    if matrix.device.type != "cpu" or len(matrix) < LARGE or not matrix.isfinite().all():
        return torch.linalg.eigh(matrix, UPLO="L")[1]
    return torch.from_numpy(eigh(matrix.numpy(), driver="evd", check_finite=False)[1])


def self_product(x: Tensor) -> Tensor:
    """x' x, (width, width): of the two equal halves off the diagonal only one is multiplied out."""
    width = x.shape[1]
    if width < 256:
        return x.T @ x
    left, right = x[:, : width // 2], x[:, width // 2 :]
    corner = left.T @ right
    return torch.cat([torch.cat([self_product(left), corner], 1), torch.cat([corner.T, self_product(right)], 1)])
