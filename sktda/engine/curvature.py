"""Curvature of the risk as an object that applies functions of itself: dense eigenbasis, and conjugate gradients.

The curvature is the Gauss-Newton matrix of the mean training loss (for the losses here also the Fisher information,
and for models linear in their parameters the Hessian) plus the model's own penalty. `EKFAC` in ekfac.py has the same
methods as `DenseCurvature`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy

import torch
from torch import Tensor

from sktda.data import slices
from sktda.devices import exact, exact_device
from sktda.engine.functional import Direction
from sktda.engine.per_row import PerRow
from sktda.model.base import DifferentiableModel, Inputs, Rows, flatten, flatten_each, forward, unflatten

Spectral = Callable[[Tensor], Tensor]
Visit = Callable[[], Iterator[str]]
ALL = "all"  # name of the coordinates that belong to no single layer
DENSE_PARAMETERS = 5_000  # a dense matrix of more takes minutes and gigabytes
ROUNDS = 8  # of conjugate gradients on an accelerator between two looks at what is solved
ROOT_BYTES = 128 * 2**20  # output roots held at a time: a row has as many as outputs, each of that length


def here() -> Iterator[str]:
    """The model's present parameters, as the one state at which a curvature is taken."""
    yield ""


class DenseCurvature:
    """Eigen-decomposition of the dense (p, p) Gauss-Newton matrix plus penalty, in float64.

    visit: a generator function that puts one state after another into the model, over which the matrix is averaged.
    root, decay: by parameter; the decomposition is then of root H root + decay, for steps preconditioned by root^2.
    Eigenvalues are those of the mean loss plus penalty, without damping. Directions in which no prediction changes
    and nothing is penalised (`DifferentiableModel.invariant`) get the mean eigenvalue: no gradient has a part there.
    O(n k p^2 + p^3) time for k output roots per row, O(p^2) memory.
    Raises ValueError for more than 5,000 parameters.
    """

    def __init__(
        self,
        engine: PerRow,
        rows: Rows,
        visit: Visit = here,
        root: Direction | None = None,
        decay: Mapping[str, float] | None = None,
    ) -> None:
        model = engine.model
        p = sum(value.numel() for value in model.parameters.values())
        if p > DENSE_PARAMETERS:
            raise ValueError(
                f"the model has {p} trainable parameters; a dense curvature is limited to {DENSE_PARAMETERS}: "
                "use another curvature, such as 'ekfac', or freeze layers"
            )
        matrix = torch.zeros(p, p, dtype=torch.float64, device=exact_device(model.device))
        found = 0
        for _ in visit():
            matrix += gauss_newton(engine, rows)
            found += 1
        matrix /= found
        matrix += torch.diag(penalty(engine, model.decay))
        if model.invariant is not None:
            v = model.invariant.to(matrix)
            # 1 where nothing curves at all: the mean would leave these directions singular
            matrix += v @ v.T * (matrix.diagonal().mean() or 1.0)
        if root is not None:
            scale = flatten({name: root[name] for name in model.parameters}).to(matrix)
            # P^1/2 H P^1/2, of the penalty too; the decoupled decay below is no part of what P multiplies
            matrix *= scale[:, None] * scale
        if decay:
            matrix += torch.diag(penalty(engine, decay))
        # eigh reads one triangle, and sums of products are symmetric only up to rounding
        self.values, self.basis = torch.linalg.eigh((matrix + matrix.T) / 2)
        self._shapes = {name: value.shape for name, value in model.parameters.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that the fit found; put back with `restored`."""
        return {"values": self.values, "basis": self.basis}

    def restored(self, tensors: Mapping[str, Tensor]) -> DenseCurvature:
        """A curvature of the same parameters with these tensors."""
        other = copy(self)
        other.values, other.basis = tensors["values"], tensors["basis"]
        return other

    @property
    def nbytes(self) -> int:
        """Bytes at the largest moment of the fit."""
        # the matrix, its vectors, and the workspace of eigh
        return 3 * self.basis.nbytes

    def inverse(self, damping: float) -> Spectral:
        """Function of the eigenvalues for `apply`: 1 / (s + damping). ValueError if that is singular."""
        least, largest = self.values[0].item() + damping, self.values[-1].item() + damping
        # eigh errs by roundings of the largest: what is below 450 p of these may be noise; "not >" refuses nan, too
        if not least > 1e-13 * len(self.values) * largest:
            raise ValueError(
                f"the curvature is singular: its smallest eigenvalue is {least:.3g}, its largest {largest:.3g}, so "
                "some parameters are not determined by the rows and the penalty. Give a damping above 0 "
                f"(damping={damping:g}), or standardise X"
            )
        return lambda s: 1 / (s + damping)

    def rotate(self, direction: Direction) -> dict[str, Tensor]:
        """Coordinates (..., p) of a direction in the eigenbasis, under the name ALL."""
        return {ALL: flatten_each(direction, self._shapes).to(self.basis) @ self.basis}

    def scale(self, fn: Spectral, coordinates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """fn of the eigenvalues times the coordinates."""
        return {ALL: fn(self.values) * coordinates[ALL]}

    def back(self, coordinates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `rotate`."""
        return unflatten(coordinates[ALL] @ self.basis.T, self._shapes)

    def apply(self, fn: Spectral, direction: Direction) -> dict[str, Tensor]:
        """fn(H) times the direction, or directions with a leading axis, by parameter."""
        return self.back(self.scale(fn, self.rotate(direction)))

    def quadratic(self, engine: PerRow, rows: Rows, fn: Spectral, start: int, stop: int) -> Tensor:
        """g_i' fn(H) g_i for the rows start..stop."""
        # g' fn(H) g = sum over eigenvectors q of fn(s) (q' g)^2
        scale = fn(self.values)
        result = torch.empty(stop - start, dtype=self.basis.dtype, device=self.basis.device)

        def work(part: slice) -> None:
            rotated = engine.gradients(rows, part).to(self.basis) @ self.basis
            result[part.start - start : part.stop - start] = rotated.square() @ scale

        engine.sweep(rows, work, start, stop)
        return result


def penalty(engine: PerRow, decay: Mapping[str, float]) -> Tensor:
    """(p,) diagonal of the penalty's Hessian, float64."""
    model = engine.model
    parts = [
        torch.full((value.numel(),), decay.get(name, 0.0), dtype=torch.float64, device=exact_device(model.device))
        for name, value in model.parameters.items()
    ]
    return torch.cat(parts)


def gauss_newton(engine: PerRow, rows: Rows) -> Tensor:
    """(p, p) mean over rows of J' F J, float64: J the outputs' Jacobian, F the output Fisher."""
    model = engine.model
    p = sum(value.numel() for value in model.parameters.values())
    total = torch.zeros(p, p, dtype=torch.float64, device=exact_device(model.device))

    with torch.no_grad():
        inputs, targets, _ = rows.block(slice(0, 1), model.device)
        first = model.likelihood.roots(forward(model.module, inputs), targets)
    step = max(1, ROOT_BYTES // first.nbytes)

    def work(part: slice) -> None:
        found = torch.zeros_like(total)
        for few in slices(part.stop - part.start, step):
            block = rows.block(slice(part.start + few.start, part.start + few.stop), model.device)
            found += block_gauss_newton(engine, block)
        # only now: a batch that runs out of memory is tried again from its first row
        total.add_(found)

    engine.prepare(rows)
    engine.sweep(rows, work)
    return total / len(rows)


def block_gauss_newton(engine: PerRow, block: tuple) -> Tensor:
    """Sum over the block's rows of J' F J."""
    total = None
    for rows in root_gradients(engine, block):
        rows = exact(rows)
        total = rows.T @ rows if total is None else total.addmm_(rows.T, rows)
    assert total is not None
    return total


def root_gradients(engine: PerRow, block: tuple) -> Iterator[Tensor]:
    """Yields (n, p) gradients r_k' J of the block's rows for one output root r_k after another: J' F J sums squares."""
    inputs, roots = rooted_targets(engine.model, block)
    for k in range(roots.shape[1]):
        # no weight: its root is in r_k, and `capture` would multiply by it once more
        yield engine.block_gradients((inputs, roots[:, k], None), along_root)


def rooted_targets(model: DifferentiableModel, block: tuple) -> tuple[Inputs, Tensor]:
    """(inputs, (n, k, ...) output roots times the root of the row's weight) of a block."""
    inputs, targets, weight = block
    with torch.no_grad():
        roots = model.likelihood.roots(forward(model.module, inputs), targets)
    # w F = sum_k (w^1/2 r_k)(w^1/2 r_k)'
    return inputs, roots if weight is None else roots * weight.sqrt().reshape(-1, *[1] * (roots.ndim - 1))


def along_root(outputs: Tensor, root: Tensor) -> Tensor:
    """(n,) outputs times the root: a "loss" whose gradient is the root pulled back."""
    return (outputs * root).reshape(len(outputs), -1).sum(1)


def conjugate_gradients(
    multiply: Callable[[Direction], Direction],
    b: Direction,
    damping: float,
    tolerance: float,
    max_iter: int,
    precondition: Callable[[Direction], Direction] | None = None,
) -> dict[str, Tensor]:
    """x with (H + damping) x = b for k right sides (k, ...) by parameter, H given by its products with k or fewer.

    precondition: products with a positive definite matrix near (H + damping)^-1, which spare most of the rounds.
    A system stops at a residual of `tolerance` times its |b|. That is looked at after every product on the processor,
    and after every ROUNDS elsewhere, where the program has to wait for it.
    Raises ValueError where H + damping is not positive definite or max_iter products do not suffice: a half-solved
    system would be a silent number.
    """
    shapes = {name: value.shape[1:] for name, value in b.items()}
    like = next(iter(b.values()))

    def preconditioned(r: Tensor) -> Tensor:
        if precondition is None or not len(r):
            return r
        return exact(flatten_each(precondition(unflatten(r.to(like), shapes)), shapes))

    # float64, though products are of the model's dtype: residuals are updated and not recomputed, and rounding adds up
    r = exact(flatten_each(b, shapes))
    z = preconditioned(r)
    solved, x, d = torch.zeros_like(r), torch.zeros_like(r), z.clone()
    waiting, squared, energy = torch.arange(len(r), device=r.device), r.square().sum(1), (r * z).sum(1)
    # met: the least d' (H + damping) d / |d|^2 of a system so far; all are above 0 for a positive definite matrix
    goal, met = tolerance**2 * squared, torch.ones_like(squared)
    rounds = 1 if like.device.type == "cpu" else ROUNDS
    # one round more than products: the residual after the last one counts, too
    for done in range(max_iter + 1):
        if done % rounds == 0 or done == max_iter:
            ended, curvatures = torch.stack([(squared <= goal).to(met), met]).tolist()
            if singular := [each for each in curvatures if not each > 0]:
                raise ValueError(
                    f"conjugate gradients met a direction of curvature {singular[0]:.3g}: the curvature is singular; "
                    f"give a damping above 0 (damping={damping:g})"
                )
            if any(ended):
                solved[waiting] = x
                left = torch.tensor([k for k, end in enumerate(ended) if not end], dtype=torch.long, device=r.device)
                waiting, x, r, d, squared, energy, goal, met = (
                    each[left] for each in (waiting, x, r, d, squared, energy, goal, met)
                )
            if not len(waiting):
                return unflatten(solved, shapes)
        if done == max_iter:
            break
        product = multiply(unflatten(d.to(like), shapes))
        moved = exact(flatten_each(product, shapes)) + damping * d
        bend = (d * moved).sum(1)
        step, curvature = energy / bend, bend / d.square().sum(1)
        live = None if rounds == 1 else squared > goal
        if live is not None:  # those that have ended since they were looked at stay as they are
            step, curvature = torch.where(live, step, 0.0), torch.where(live, curvature, met)
        met = torch.minimum(met, curvature)
        x += step[:, None] * d
        r -= step[:, None] * moved
        z = preconditioned(r)
        squared, energy, before = r.square().sum(1), (r * z).sum(1), energy
        share = energy / before if live is None else torch.where(live, energy / before, 0.0)
        d = z + share[:, None] * d
    missed = (squared / goal).max().sqrt().item() * tolerance
    raise ValueError(
        f"conjugate gradients did not converge in {max_iter} products: relative residual "
        f"{missed:.2g}, wanted {tolerance:g}; give a larger damping "
        f"(damping={damping:g}), or curvature='ekfac'"
    )
