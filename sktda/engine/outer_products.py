"""Matrices as sums of a few outer products, the best first."""

from __future__ import annotations

import torch
from torch import Tensor

from sktda.devices import exact, exact_device

RANK = 48  # outer products that are looked for in a direction, at most
GRAM_DIGITS = 1e-6  # relative errors that values by a Gram matrix in float64 may have, with room
ROUNDING, NO_LENGTH = 1e-13, 1e-300  # shares of the largest eigenvalue of a Gram matrix that are 0, and what is 0


def few_products(matrices: Tensor, allowed: Tensor | float) -> tuple[Tensor, Tensor] | None:
    """(r, q, out) and (r, q, in): r outer products for each of (q, out, in), and a sum of squares <= allowed left out.

    None where r would be above RANK, or as costly as the matrices.
    """
    total = squares(matrices)
    out, width = matrices.shape[1:]
    # a third of the terms first: they often suffice, at a third of the cost
    for most in sorted({min(most, out * width // (out + width)) for most in (RANK // 3, RANK)} - {0}):
        left, strength, right = leading_vectors(matrices, most)
        missing = total - exact(strength).square().sum(0).cumsum(0)  # Eckart & Young: squares that r terms leave out
        rank = int((missing > allowed).sum()) + 1  # missing falls from term to term
        if rank <= most:
            return (left * strength[:, None])[:, :, :rank].permute(2, 0, 1), right[:, :, :rank].permute(2, 0, 1)
    return None


def energies(values: Tensor) -> tuple[Tensor, Tensor]:
    """Roots (out,) and (in,) whose outer product is near the root of the eigenvalues (out, in)."""
    mean = values.mean().clamp_min(torch.finfo(values.dtype).tiny ** 0.5)  # 0 for a layer that is dead
    # above 0 where no row moves anything, too: terms are divided by them again
    return values.mean(1).clamp_min(1e-12 * mean).sqrt(), (values.mean(0) / mean).clamp_min(1e-12).sqrt()


def squares(values: Tensor) -> Tensor:
    """Sum of squares, in float64: differences of such sums are taken."""
    return torch.linalg.vector_norm(values.to(exact_device(values.device)), dtype=torch.float64).square()


def leading_vectors(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """(q, out, rank), (q, rank) and (q, in, rank): the strongest singular vectors and values of (q, out, in).

    By subspace iteration from one random start. Source: Halko et al. 2011 (arXiv:0909.4061), algorithm 4.4.
    """
    generator = torch.Generator().manual_seed(0)
    # drawn on the processor in float64: the same start for every dtype and device
    probe = torch.randn(matrices.shape[2], rank, generator=generator, dtype=torch.float64).to(matrices)
    found = orthonormal(matrices @ probe)
    # one power step, made orthogonal after each product: else all columns turn to the strongest vector
    found = orthonormal(matrices @ orthonormal(matrices.mT @ found))
    small = exact(found.mT @ matrices)
    squared, turn = (each.flip(-1) for each in torch.linalg.eigh(small @ small.mT))
    strength = squared.clamp(min=0).sqrt()
    right = (small.mT @ turn) / strength.clamp(min=NO_LENGTH)[:, None]
    return found @ turn.to(found), strength.to(found), right.to(found)


def orthonormal(matrices: Tensor) -> Tensor:
    """(q, m, rank) orthonormal columns that span those of each matrix, 0 where these span less.

    By the Gram matrix in float64, exact to the root of its precision: an accelerator multiplies fast, and makes its QR
    factorisations one after the other.
    """
    wide = exact(matrices)
    values, vectors = torch.linalg.eigh(wide.mT @ wide)
    inverse = torch.where(values > ROUNDING * values[:, -1:], values.clamp(min=NO_LENGTH).rsqrt(), 0.0)
    return (wide @ (vectors * inverse[:, None])).to(matrices)


def outer_products(values: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """inverse (out, in) as sum_r strength_r left_r right_r', the best first: (r,), (r, out), (r, in).

    The error is weighted by the size of gradients: with d_s and d_a the row and column means of `values`, the singular
    vectors are those of diag(d_s) inverse diag(d_a). Source: Eckart & Young 1936, with weights.
    """
    least = 1e-12 * exact(values).mean()
    s, a = (exact(values).mean(axis).clamp(min=least) for axis in (1, 0))
    weighted = s[:, None] * exact(inverse) * a
    wide = weighted.shape[0] < weighted.shape[1]
    square = weighted @ weighted.T if wide else weighted.T @ weighted  # the smaller Gram: cheap, exact to 1e-8
    found, vectors = torch.linalg.eigh(square)
    strength = found.flip(0).clamp_min(0).sqrt()
    near = vectors.flip(1)  # the strongest first; eigh ascends
    far = (weighted.T @ near if wide else weighted @ near) / strength.clamp_min(NO_LENGTH)
    left, right = (near, far) if wide else (far, near)
    kept = int((strength > 1e-7 * strength[0]).sum())  # the Gram is exact to 1e-14 or so, its roots to 1e-7
    return strength[:kept].to(inverse), (left.T / s)[:kept].to(inverse), (right.T / a)[:kept].to(inverse)
