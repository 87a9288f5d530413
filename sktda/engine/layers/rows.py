"""Gradients of a batch of rows at one layer: what every form of them can do, and the form without factors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from typing import Self

from torch import Tensor


class LayerRows(ABC):
    """Gradients of a batch of rows with respect to one layer's trainable parameters, flat: weight, then bias."""

    @abstractmethod
    def gradients(self) -> Tensor:
        """(n, p) gradients, formed."""

    @abstractmethod
    def square_norms(self) -> Tensor:
        """(n,) squared lengths."""

    @abstractmethod
    def gram(self, other: LayerRows) -> Tensor:
        """(n, m) dot products with the rows of another batch."""

    @abstractmethod
    def contract(self, directions: Tensor) -> Tensor:
        """(n, q) dot products with directions (q, p)."""

    @abstractmethod
    def along(self, directions: Tensor) -> Tensor:
        """(n,) dot products of every row with a direction of its own, directions (n, p)."""

    @abstractmethod
    def pairs(self, other: LayerRows) -> Tensor:
        """(n,) dot products with the same rows of another batch."""

    @abstractmethod
    def scaled(self, scale: float) -> LayerRows:
        """The gradients times a number."""

    @abstractmethod
    def unfolded(self, n: int, second: bool) -> LayerRows:
        """Of n rows, where these are their parts: one row after the other, or with the rows on the `second` axis."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that are held."""


class Formed(LayerRows):
    """Gradients that were formed from the start: few parameters, or no factors known."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def gradients(self) -> Tensor:
        """(n, p) gradients."""
        return self.values

    def square_norms(self) -> Tensor:
        """(n,) squared lengths."""
        return self.values.square().sum(dim=1)

    def gram(self, other: LayerRows) -> Tensor:
        """(n, m) dot products with the rows of another batch."""
        return self.values @ other.gradients().T

    def contract(self, directions: Tensor) -> Tensor:
        """(n, q) dot products with directions (q, p)."""
        return self.values @ directions.T

    def along(self, directions: Tensor) -> Tensor:
        """(n,) dot products of every row with a direction of its own."""
        return (self.values * directions).sum(dim=1)

    def pairs(self, other: LayerRows) -> Tensor:
        """(n,) dot products with the same rows of another batch."""
        return (self.values * other.gradients()).sum(dim=1)

    def scaled(self, scale: float) -> Formed:
        """The gradients times a number."""
        return Formed(scale * self.values)

    def unfolded(self, n: int, second: bool) -> Formed:
        """Sums over the parts of a row."""
        return Formed(parted(self.values, n, second).sum(1))

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self.values.nbytes


class Summed(LayerRows):
    """Sums of several gradients of the same rows, in their parts."""

    def __init__(self, parts: Sequence[LayerRows]) -> None:
        self.parts = parts

    def gradients(self) -> Tensor:
        """(n, p), formed."""
        return total(part.gradients() for part in self.parts)

    def contract(self, directions: Tensor) -> Tensor:
        """(n, q) dot products with directions (q, p)."""
        return total(part.contract(directions) for part in self.parts)

    def along(self, directions: Tensor) -> Tensor:
        """(n,) dot products of every row with a direction of its own, formed."""
        return Formed(self.gradients()).along(directions)

    def scaled(self, scale: float) -> Self:
        """The gradients times a number."""
        return type(self)([part.scaled(scale) for part in self.parts])

    def unfolded(self, n: int, second: bool) -> Self:
        """Of the parts."""
        return type(self)([part.unfolded(n, second) for part in self.parts])

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return sum(part.nbytes for part in self.parts)


class Sum(Summed):
    """What a product of factors changes by, when both factors change; it meets products."""

    def gram(self, other: LayerRows) -> Tensor:
        """(n, m) dot products with the rows of another batch."""
        return total(part.gram(other) for part in self.parts)

    def pairs(self, other: LayerRows) -> Tensor:
        """(n,) dot products with the same rows of another batch."""
        return total(part.pairs(other) for part in self.parts)

    def square_norms(self) -> Tensor:
        """(n,) squared lengths, formed."""
        return Formed(self.gradients()).square_norms()


def total(parts: Iterable[Tensor]) -> Tensor:
    """The sum, without the zero that Python's begins with."""
    return reduce(add, parts)


def parted(values: Tensor, n: int, second: bool) -> Tensor:
    """(n, parts, ...) from (n * parts, ...), or (parts * n, ...) where the rows are on the `second` axis."""
    if len(values) % n:
        raise RuntimeError(f"{len(values)} inputs are no whole number for each of {n} rows")
    if second:
        return values.reshape(-1, n, *values.shape[1:]).transpose(0, 1)
    return values.reshape(n, -1, *values.shape[1:])
