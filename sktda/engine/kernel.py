"""Leave-one-out predictions of arc-cosine kernel ridge regression: exact by Cholesky, streamed by Nyström."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from typing import Any

import torch
from scipy.linalg.lapack import dpstrf
from torch import Tensor

from sktda.data import slices
from sktda.devices import for_blocks, in_blocks
from sktda.engine.journal import shard_size
from sktda.room import room
from sktda.workers import spread

PIVOT_CUTOFF = 1e-6  # a landmark that the others determine to this share of its variance adds only rounding noise
CACHE_ELEMENTS = 2**25  # features of up to 128 MiB are kept between the passes instead of being made again
PANELS = 8  # products with triangular matrices skip the zeros panel by panel: (1 + 1/8)/2 of a full product


@dataclass(frozen=True)
class LeaveOneOut:
    """What removing each row in turn does to kernel ridge regression.

    precision (n,): P_ii of P = (H + ridge I)^-1; residual (n, c): Y_i - f_{-i}(x_i), the error of the
    prediction made without row i. The complexity gap is precision * |residual|^2.
    """

    precision: Tensor
    residual: Tensor


def arc_cosine(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Kernel x.x' (pi - arccos(x.x')) / (2 pi) of rows of length 1: a (n, d), b (m, d) -> (n, m), `out` or new.

    The infinite-width two-layer ReLU kernel of the complexity gap (arXiv:2301.00930, eq. 2); 1/2 at x = x'.
    """
    cosine = torch.mm(a, b.T, out=out)
    # a row with itself: rounding of 1 - 1e-7 would become an angle of 5e-4, different in every block
    cosine.masked_fill_(cosine > 1 - 8 * torch.finfo(cosine.dtype).eps, 1)
    angle = cosine.clamp_(min=-1).acos()
    return cosine.mul_(angle.neg_().add_(math.pi)).div_(2 * math.pi)


def arc_cosine_gram(a: Tensor) -> Tensor:
    """Kernel of rows with themselves, (n, n); the diagonal is exactly 1/2, also for rows of zeros."""
    found = a.new_empty(len(a), len(a))
    for_blocks(len(a), len(a), lambda rows: arc_cosine(a[rows], a, found[rows]))
    return found.fill_diagonal_(0.5)


def raised(matrix: Tensor, by: float) -> Tensor:
    """A copy of the matrix with more on its diagonal."""
    found = matrix.clone()
    found.diagonal().add_(by)
    return found


def cholesky(matrix: Tensor) -> Tensor:
    """Lower Cholesky factor; a singular matrix (duplicate rows without a ridge) gets the least jitter that works."""
    scale = matrix.diagonal().mean()
    jitter = 0.0
    # none at first, then 1e-13 to 1e-5 of the diagonal: more would be a ridge that nobody asked for
    for power in range(-13, -3):
        factor, info = torch.linalg.cholesky_ex(raised(matrix, jitter) if jitter else matrix)
        if not info.item():
            return factor
        jitter = float(scale) * 10.0**power
    raise ValueError("the kernel matrix is not positive definite; use ridge > 0")


def pivoted_cholesky(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(U, order) with matrix[order][:, order] = U'U, U (rank, rank) upper: rows that others determine are left out."""
    factor, order, rank, info = dpstrf(matrix.cpu().numpy(), tol=PIVOT_CUTOFF * float(matrix.diagonal().max()))
    if info < 0:
        raise ValueError("the landmark kernel holds NaN")
    # LAPACK leaves the other half as it was, and counts from 1
    upper = torch.from_numpy(factor[:rank, :rank]).to(matrix.device).triu()
    return upper, torch.from_numpy(order[:rank].astype("int64") - 1).to(matrix.device)


def panels(width: int) -> Iterator[slice]:
    """Column panels of a square matrix, none of them wide enough to waste much on zeros."""
    return slices(width, max(64, -(-width // PANELS)))


def times_upper(a: Tensor, upper: Tensor) -> Tensor:
    """a @ upper for an upper triangular matrix: a (n, m), upper (m, m) -> (n, m)."""
    out = torch.empty_like(a)
    for part in panels(len(upper)):
        torch.mm(a[:, : part.stop], upper[: part.stop, part], out=out[:, part])
    return out


def upper_gram(phi: Tensor) -> Tensor:
    """phi.T @ phi (m, m), of which only the upper triangle is right."""
    out = phi.new_zeros(phi.shape[1], phi.shape[1])
    for part in panels(phi.shape[1]):
        torch.mm(phi[:, : part.stop].T, phi[:, part], out=out[: part.stop, part])
    return out


def leave_one_out_exact(gram: Tensor, targets: Tensor, ridge: float) -> LeaveOneOut:
    """Leave-one-out of all rows and all target columns from one Cholesky factor.

    gram (n, n) kernel H, targets (n, c), ridge >= 0, same dtype and device. With P = (H + ridge I)^-1 and
    A = P Y, the prediction without row i is f_{-i} = Y_i - A_i / P_ii. O(n^3) time, O(n^2) memory.
    """
    factor = cholesky(raised(gram, ridge))
    precision = torch.cholesky_inverse(factor).diagonal().clone()  # a view would keep the inverse alive
    alpha = torch.cholesky_solve(targets, factor)
    return LeaveOneOut(precision, alpha / precision[:, None])


def leave_one_out_nystrom(
    block: Callable[[slice], Tensor],
    landmarks: Tensor,
    targets: Tensor,
    ridge: float,
    batch_size: int,
) -> LeaveOneOut:
    """Leave-one-out of kernel ridge regression through landmarks, streamed: O(n m^2) time, O(batch m + m^2) memory.

    On top of that at most CACHE_ELEMENTS features are kept between the two passes.

    block(rows) gives the scaled rows (len(rows), d); landmarks (m, d) in the same dtype; targets (n, c); ridge > 0.
    The kernel is Q + (m / n) diag(K - Q), Q = Phi Phi' with Phi = k_m U^-1 and K_mm = U'U (pivoted Cholesky; landmarks
    that others determine are dropped). What the landmarks leave of a row, 1/2 - |phi_i|^2, is in part noise of its own
    and in part shared with other rows that are none; with many landmarks mostly the first. Left out altogether, rows
    far from all landmarks look well determined, and more landmarks make the leave-one-out errors worse; counted in
    full, few landmarks waste the rows between them. With d_i = ridge + (m / n) (1/2 - |phi_i|^2) and leverage
    h_i = phi_i' (Phi' D^-1 Phi + I)^-1 phi_i / d_i the precision is (1 - h_i) / d_i. Exact when all rows are landmarks.
    Products run in the dtype of landmarks, factors in float64; every m x m factor is triangular, which halves the work.
    Source: Bui, Yan & Turner 2017 (arXiv:1605.07066), power EP with alpha = m / n, between the projected process
    (alpha = 0) and FITC (alpha = 1).
    """
    n, dtype, device = len(targets), landmarks.dtype, landmarks.device
    alpha = len(landmarks) / n
    factor, order = pivoted_cholesky(arc_cosine_gram(landmarks.double()))
    landmarks, rank = landmarks[order], len(order)
    eye = torch.eye(rank, dtype=torch.float64, device=device)
    inverse = torch.linalg.solve_triangular(factor, eye, upper=True)
    gram = torch.zeros(rank, rank, dtype=torch.float64, device=device)
    moment = torch.zeros(rank, targets.shape[1], dtype=torch.float64, device=device)
    noise = torch.empty(n, dtype=torch.float64, device=device)
    cache = None
    if n * rank <= CACHE_ELEMENTS:
        with suppress(torch.OutOfMemoryError):  # they are made again
            cache = torch.empty(n, rank, dtype=dtype, device=device)
    # with few rows workers take longer to be told than to be done, and would not have the cache
    parts = [(part.start, part.stop) for part in slices(n, shard_size(n))]
    held: dict = {}

    def each(function: Callable, parts: list[tuple[int, int]]) -> Iterator[Any]:
        if cache is not None:
            return starmap(function, parts)
        return (take() for _, take in spread(lambda: [(function, parts)], held))

    rows = _Streamed(block, landmarks, targets, ridge, alpha, batch_size)
    for part, found in zip(parts, each(partial(rows.sums, inverse.to(dtype), cache), parts), strict=True):
        gram += found[0].to(device)
        moment += found[1].to(device)
        noise[slice(*part)] = found[2].to(device)
    gram = gram.triu() + gram.triu(1).T  # the half that upper_gram leaves open
    root = torch.linalg.cholesky(gram.diagonal_scatter(gram.diagonal() + 1), upper=True)
    # psi = phi R^-1 with Phi' D^-1 Phi + I = R'R makes the leverage a squared row norm over d_i
    made_from = inverse if cache is None else eye  # of kernel values, or of the features that were kept
    whiten = torch.linalg.solve_triangular(root, made_from, upper=True, left=False).to(dtype)
    # R'^-1 Phi' D^-1 Y: psi times this is the prediction with all rows, Phi (R'R)^-1 Phi' D^-1 Y
    weights = torch.linalg.solve_triangular(root.T, moment, upper=False).to(dtype)
    predict = partial(rows.predictions, whiten, weights, noise, cache)
    precision, residual = _place((n,), device), _place((n, targets.shape[1]), device)
    for part, found in zip(parts, each(predict, parts), strict=True):
        precision[slice(*part)], residual[slice(*part)] = (value.to(device) for value in found)
    return LeaveOneOut(precision, residual)


def _place(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Of float64, to be filled; on a processor in `room`."""
    if device.type == "cpu":
        return torch.from_numpy(room(shape))
    return torch.empty(shape, dtype=torch.float64, device=device)


@dataclass(frozen=True)
class _Streamed:
    """The rows of `leave_one_out_nystrom`, of which each shard is done by itself."""

    block: Callable[[slice], Tensor]
    landmarks: Tensor
    targets: Tensor
    ridge: float
    alpha: float
    batch_size: int

    def sums(self, project: Tensor, cache: Tensor | None, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """(Gram matrix and moments of D^-1/2 Phi of rows start..stop, their d_i)."""
        rank = project.shape[1]
        place: dict[str, Any] = {"dtype": torch.float64, "device": project.device}
        gram, moment = torch.zeros(rank, rank, **place), torch.zeros(rank, self.targets.shape[1], **place)
        noise = torch.empty(stop - start, **place)

        def accumulate(rows: slice) -> tuple[Tensor, ...]:
            phi = times_upper(arc_cosine(self.block(rows), self.landmarks), project)
            # d_i; 1/2 is the kernel of a row with itself, which |phi|^2 may exceed by rounding
            own = self.ridge + self.alpha * (0.5 - phi.square().sum(dim=1).double()).clamp(min=0)
            weighted = phi / own.sqrt().to(phi)[:, None]  # D^-1/2 Phi: its Gram is Phi' D^-1 Phi
            target = (self.targets[rows] / own.sqrt()[:, None]).to(phi)
            if cache is not None:
                cache[rows] = phi
            return own, upper_gram(weighted), weighted.T @ target

        for rows, (own, square, product) in in_blocks(stop, self.batch_size, accumulate, start):
            noise[rows.start - start : rows.stop - start] = own
            gram += square
            moment += product
        return gram, moment, noise

    def predictions(
        self, whiten: Tensor, weights: Tensor, noise: Tensor, cache: Tensor | None, start: int, stop: int
    ) -> tuple[Tensor, Tensor]:
        """(precision, residual) of rows start..stop."""

        def predict(rows: slice) -> tuple[Tensor, Tensor]:
            made = arc_cosine(self.block(rows), self.landmarks) if cache is None else cache[rows]
            psi = times_upper(made, whiten)
            leverage = psi.square().sum(dim=1).double() / noise[rows]
            rest = (1 - leverage).clamp(min=1e-6)  # 0 but for rounding where a row alone fixes its prediction
            error = self.targets[rows].double() - (psi @ weights).double()
            # a row of zeros is orthogonal to every other one, and exactly so
            precision = torch.where(leverage > 0, rest / noise[rows], 1 / (self.ridge + 0.5))
            return precision, error / rest[:, None]

        found = [each for _, each in in_blocks(stop, self.batch_size, predict, start)]
        return torch.cat([each[0] for each in found]), torch.cat([each[1] for each in found])
