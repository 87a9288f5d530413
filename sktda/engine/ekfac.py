"""EK-FAC: eigenvalue-corrected Kronecker curvature of Linear and convolution layers.

George et al. 2018 (arXiv:1806.03884) and Grosse et al. 2023 (arXiv:2308.03296). A layer s = W a + b has the factors
A = mean [a; 1][a; 1]' and S = mean delta delta', delta = gradient of the loss at s with labels drawn from the model;
their eigenvectors Q_A, Q_S are the basis, and the eigenvalues are the mean squares of the per-row gradients in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from copy import copy
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from sktda.engine.curvature import Spectral, Visit, here
from sktda.engine.journal import Passes
from sktda.engine.layers import Convolved, Layer, Product
from sktda.engine.per_row import Direction, PerRow
from sktda.model.base import Rows, forward

ENERGY_ROWS = 64  # by which it is told how much is left out
FORMED_BYTES = 64 * 2**20  # per-row gradients of one layer that are formed at a time
KEPT_BYTES = 256 * 2**20  # factors kept from the first pass over the rows, so that the second need not redo them

Noise = Callable[[int], Tensor]


class EKFAC:
    """One eigen-object: `apply(fn, direction)` is fn(curvature) times a direction.

    Eigenvalues `values[layer]` (out, in + bias) are of the mean loss plus the layer's penalty, without damping.
    Trainable parameters outside Linear and convolution layers are left out, with one warning that names them;
    `parameter_share` of the parameters and `energy_share` of the squared gradients (of up to 64 rows) are covered.
    Labels are drawn from the model with `seed`, one draw per row and state; the fit has its own batch size, so that the
    engine's does not matter.
    visit: a generator function that puts one state after another into the model and yields their names: factors are
    averaged over these states and decomposed once, eigenvalues in that basis averaged over them.
    Cost: about three forward and backward passes over the rows a state, and one eigen-decomposition per factor.
    Raises ValueError if no layer remains.
    """

    def __init__(
        self, engine: PerRow, rows: Rows, seed: int = 0, passes: Passes | None = None, visit: Visit = here
    ) -> None:
        passes = passes or Passes()
        engine.prepare(rows)
        layers = [layer for layer in engine.layers or [] if layer.is_product]
        seen = engine.capture(rows.block(slice(0, 1), engine.model.device), None, layers)[1]
        self.layers = [layer for layer in layers if isinstance(seen[layer.name], Product)]  # others are never called
        covered = {name for layer in self.layers for name in layer.parameters}
        self.left_out = [name for name in engine.model.parameters if name not in covered]
        if not self.layers:
            raise ValueError(
                f"EK-FAC covers Linear and convolution layers, and none of the trainable parameters is in one: "
                f"{', '.join(self.left_out)}; use curvature='exact' or 'cg'"
            )
        self.parameter_share, self.energy_share = 1.0, 1.0
        if self.left_out:
            self.parameter_share, self.energy_share = self._shares(engine, rows)
            much = "" if self.energy_share >= 0.5 else ", most of it: use curvature='cg', or parameters= without these"
            warnings.warn(
                f"EK-FAC leaves out {len(self.left_out)} parameters that are not in a Linear or (ungrouped) "
                f"convolution layer of their own, or in one that is not used: {', '.join(self.left_out)}; they count "
                f"as fixed. They hold {1 - self.parameter_share:.0%} of the numbers and {1 - self.energy_share:.0%} of "
                f"the gradients' squares{much}",
                UserWarning,
                stacklevel=2,
            )
        self._names = [layer.name for layer in self.layers]
        noise = cache(lambda state: self._noise(engine, rows, seed + state))
        kept: dict[tuple[int, int, int], dict[str, Product]] = {}
        self.basis_in, self.basis_out = self._bases(engine, rows, noise, kept, passes, visit)
        self.values = self._values(engine, rows, noise, kept, passes, visit)
        for layer in self.layers:
            self.values[layer.name] += self._penalty(engine, layer)

    def own(self, engine: PerRow) -> list[Layer]:
        """The engine's layers that this curvature covers."""
        return [layer for layer in engine.layers or [] if layer.name in self._names]

    def _shares(self, engine: PerRow, rows: Rows) -> tuple[float, float]:
        """(share of the parameters, share of the squared gradients of up to 64 rows) that the layers cover."""
        sizes = {name: value.numel() for name, value in engine.model.parameters.items()}
        parameters = 1 - sum(sizes[name] for name in self.left_out) / sum(sizes.values())
        few = rows.chosen(np.unique(np.linspace(0, len(rows) - 1, ENERGY_ROWS).astype(int)))
        found = engine.square_norms(few, by_layer=True)
        assert isinstance(found, dict)
        energy = {name: float(value.double().sum()) for name, value in found.items()}
        covered = sum(energy.get(layer.name, 0.0) for layer in self.layers)
        return parameters, covered / (sum(energy.values()) or 1.0)

    # ---- fitting ---------------------------------------------------------------------------------------------------

    def _noise(self, engine: PerRow, rows: Rows, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            shape = forward(engine.model.module, rows.block(slice(0, 1), engine.model.device)[0]).shape
        return engine.model.likelihood.noise(torch.Size((len(rows), *shape[1:])), generator)

    def _captured(self, engine: PerRow, rows: Rows, noise: Tensor, part: slice) -> dict[str, Product]:
        likelihood = engine.model.likelihood
        inputs, targets, weight = rows.block(part, engine.model.device)

        def sampled(outputs: Tensor, noise: Tensor) -> Tensor:
            return (outputs * likelihood.slopes(outputs.detach(), targets, noise)).reshape(len(outputs), -1).sum(1)

        # curvature is linear in a row's weight, its gradient too: the root of it goes into the gradient
        block = (inputs, noise[part].to(engine.model.device), None if weight is None else weight.sqrt())
        return engine.capture(block, sampled, self.own(engine))[1]  # type: ignore[return-value]

    def _bases(
        self, engine: PerRow, rows: Rows, noise: Noise, kept: dict, passes: Passes, visit: Visit
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        widths = {layer.name: self._widths(layer) for layer in self.layers}
        sums = self._zeros(
            engine, {f"{side}/{name}": (w, w) for name, pair in widths.items() for side, w in pair.items()}
        )
        left = KEPT_BYTES

        def work(state: int, part: slice) -> None:
            nonlocal left
            factors = self._captured(engine, rows, noise(state), part)
            root = None if rows.weight is None else rows.weight[part].sqrt().to(engine.model.device)
            products = {}
            for name, factor in factors.items():
                # delta has the root of the weight; a row of weight 2 counts as two rows in both factors
                a = met(factor)
                a = a if root is None else a * root.reshape(-1, *[1] * (a.ndim - 1))
                products[f"in/{name}"] = self_product(flat(a))
                products[f"out/{name}"] = self_product(flat(factor.delta))
            for key, product in products.items():  # only now: a batch that runs out of memory is tried again
                sums[key] += product
            left -= sum(factor.a.nbytes + factor.delta.nbytes for factor in factors.values())
            if left >= 0:
                kept[state, part.start, part.stop] = factors

        n = self._accumulate("factors", engine, rows, work, sums, passes, visit)
        found = {key: eigenvectors(total / n).to(engine.model.dtype) for key, total in sums.items()}
        return {name: found[f"in/{name}"] for name in widths}, {name: found[f"out/{name}"] for name in widths}

    def _values(
        self, engine: PerRow, rows: Rows, noise: Noise, kept: dict, passes: Passes, visit: Visit
    ) -> dict[str, Tensor]:
        sums = self._zeros(
            engine, {name: (len(self.basis_out[name]), len(self.basis_in[name])) for name in self._names}
        )

        def work(state: int, part: slice) -> None:
            factors = kept.pop((state, part.start, part.stop), None) or self._captured(engine, rows, noise(state), part)
            squares = {name: self._squares(factor, name) for name, factor in factors.items()}
            for name, values in squares.items():
                sums[name] += values

        n = self._accumulate("eigenvalues", engine, rows, work, sums, passes, visit)
        return {name: (total / n).to(engine.model.dtype) for name, total in sums.items()}

    @staticmethod
    def _accumulate(
        name: str,
        engine: PerRow,
        rows: Rows,
        work: Callable[[int, slice], None],
        sums: dict[str, Tensor],
        passes: Passes,
        visit: Visit,
    ) -> int:
        """work(state, batch) for all rows at all states; returns how many rows that were."""
        n = 0
        for state, label in enumerate(visit()):

            def add(start: int, stop: int, state: int = state) -> None:
                # Always in the same batches: eigenvectors of close eigenvalues turn with the rounding of a product in
                # float32, and scores with them, by more than 1e-5. Products in float64 would do as well, and double
                # the cost of the fit.
                engine.sweep(rows, partial(work, state), start, stop, size=engine.own_batch)

            passes.accumulate(f"{name} {label}".strip(), len(rows), add, sums)
            n += len(rows)
        return n

    @staticmethod
    def _widths(layer: Layer) -> dict[str, int]:
        sizes = dict(zip(layer.trained, layer.shapes, strict=True))
        out = layer.shapes[0][0]
        return {"in": (sizes["weight"].numel() // out if "weight" in sizes else 0) + ("bias" in sizes), "out": out}

    @staticmethod
    def _zeros(engine: PerRow, shapes: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
        device = engine.model.device
        return {key: torch.zeros(shape, dtype=torch.float64, device=device) for key, shape in shapes.items()}

    def _squares(self, factor: Product, name: str) -> Tensor:
        """Sum over rows of the squared gradient in the eigenbasis, (out, in + bias)."""
        if not factor.shared:
            a, delta = self.rotated(factor, name)
            return delta.square_().T @ a.square_()
        return sum(part.square().sum(0) for part in self.rotated_matrices(factor, name))  # type: ignore[return-value]

    def _penalty(self, engine: PerRow, layer: Layer) -> Tensor:
        """Diagonal of the layer's penalty in the eigenbasis: exact where weight and bias are penalised alike."""
        basis = self.basis_in[layer.name]
        decay = dict(zip(layer.trained, (engine.model.decay.get(name, 0.0) for name in layer.parameters), strict=True))
        columns = torch.full((len(basis),), decay.get("weight", 0.0), dtype=basis.dtype, device=basis.device)
        if "bias" in decay:
            columns[-1] = decay["bias"]
        return basis.square().T @ columns

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that the fit found; put back with `restored`."""
        parts = {"in": self.basis_in, "out": self.basis_out, "values": self.values}
        return {f"{part}/{name}": value for part, found in parts.items() for name, value in found.items()}

    def restored(self, tensors: Mapping[str, Tensor]) -> EKFAC:
        """A curvature of the same layers with these tensors."""
        other = copy(self)
        other.basis_in, other.basis_out, other.values = (
            {name: tensors[f"{part}/{name}"] for name in self._names} for part in ("in", "out", "values")
        )
        return other

    @property
    def nbytes(self) -> int:
        """Bytes at the largest moment of the fit."""
        bases = [*self.basis_in.values(), *self.basis_out.values()]
        return KEPT_BYTES + 3 * sum(basis.numel() * 8 for basis in bases) + sum(v.nbytes for v in self.values.values())

    # ---- use -------------------------------------------------------------------------------------------------------

    def inverse(self, damping: float | None = None) -> Spectral:
        """Function of a layer's eigenvalues for `apply`: 1 / (s + damping); None = a tenth of the layer's mean."""

        def fn(values: Tensor) -> Tensor:
            added = 0.1 * values.mean() if damping is None else damping
            shifted = values + added
            # values are squares: below the squared rounding error of the largest they are rounding errors themselves
            if not bool(shifted.min() > 10 * torch.finfo(values.dtype).eps ** 2 * shifted.max()):
                raise ValueError(f"the EK-FAC curvature is singular with damping={damping}; give a damping above 0")
            return 1 / shifted

        return fn

    def rotated(self, factor: Product, name: str) -> tuple[Tensor, Tensor]:
        """Inputs and output gradients in the layer's eigenbases."""
        return factor.a @ self.basis_in[name], factor.delta @ self.basis_out[name]

    def rotated_matrices(self, factor: Product, name: str):  # type: ignore[no-untyped-def]
        """Yields (k, out, in + bias) gradients of a few rows at a time in the eigenbasis."""
        q_in, q_out = self.basis_in[name], self.basis_out[name]
        n, width, out = len(factor.a), len(q_in), len(q_out)
        positions = factor.a.shape[1] if factor.shared else 1
        step = max(1, FORMED_BYTES // (width * out * q_in.element_size()))
        early = positions * (width**2 + out**2) < width * out * (width + out)
        for start in range(0, n, step):
            part = Product(factor.a[start : start + step], factor.delta[start : start + step], True, True)
            if early:
                a, delta = self.rotated(part, name)
                yield Product(a, delta, True, True).matrices()
            else:
                yield q_out.T @ part.matrices() @ q_in

    def matrix(self, direction: Direction, layer: Layer) -> Tensor:
        """(..., out, in + bias) matrix of a direction at one layer."""
        parts = dict(zip(layer.trained, (direction[name] for name in layer.parameters), strict=True))
        out = len(self.basis_out[layer.name])
        pieces = []
        if "weight" in parts:
            lead = parts["weight"].ndim - len(layer.shapes[0])
            pieces.append(parts["weight"].reshape(*parts["weight"].shape[:lead], out, -1))
        if "bias" in parts:
            pieces.append(parts["bias"][..., None])
        return torch.cat(pieces, dim=-1)

    def direction(self, matrix: Tensor, layer: Layer) -> dict[str, Tensor]:
        """The inverse of `matrix`: by parameter."""
        found = {}
        for key, name, shape in zip(layer.trained, layer.parameters, layer.shapes, strict=True):
            if key == "bias":
                found[name] = matrix[..., -1]
            else:
                values = matrix[..., : shape.numel() // shape[0]]
                found[name] = values.reshape(*matrix.shape[:-2], *shape)
        return found

    def rotate(self, direction: Direction) -> dict[str, Tensor]:
        """(..., out, in + bias) by layer: a direction in the eigenbases; left-out parameters are dropped."""
        found = {}
        for layer in self.layers:
            q_in, q_out = self.basis_in[layer.name], self.basis_out[layer.name]
            found[layer.name] = q_out.T @ self.matrix(direction, layer).to(q_in) @ q_in
        return found

    def scale(self, fn: Spectral, coordinates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """fn of the eigenvalues times the coordinates."""
        return {name: fn(self.values[name]) * value for name, value in coordinates.items()}

    def back(self, coordinates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `rotate`, of the layers that are there."""
        result: dict[str, Tensor] = {}
        for layer in self.layers:
            if layer.name in coordinates:
                q_in, q_out = self.basis_in[layer.name], self.basis_out[layer.name]
                result |= self.direction(q_out @ coordinates[layer.name] @ q_in.T, layer)
        return result

    def apply(self, fn: Spectral, direction: Direction) -> dict[str, Tensor]:
        """fn(curvature) times the direction, or directions with a leading axis; left-out parameters are dropped."""
        return self.back(self.scale(fn, self.rotate(direction)))

    def quadratic(self, engine: PerRow, rows: Rows, fn: Spectral, start: int, stop: int) -> Tensor:
        """g_i' fn(H) g_i for the rows start..stop, without a gradient per row where weights are not shared."""
        result = torch.empty(stop - start, dtype=engine.model.dtype, device=engine.model.device)
        scales = {name: fn(self.values[name]) for name in self._names}

        def work(part: slice) -> None:
            factors = engine.capture(rows.block(part, engine.model.device), None, self.own(engine))[1]
            total = torch.zeros(part.stop - part.start, dtype=result.dtype, device=result.device)
            for name, factor in factors.items():
                assert isinstance(factor, Product)
                if not factor.shared:
                    a, delta = self.rotated(factor, name)
                    total += ((delta.square_() @ scales[name]) * a.square_()).sum(1)
                else:
                    scale = scales[name].flatten()
                    parts = [part.square().flatten(1) @ scale for part in self.rotated_matrices(factor, name)]
                    total += torch.cat(parts)
            result[part.start - start : part.stop - start] = total

        engine.sweep(rows, work, start, stop)
        return result


def met(factor: Product) -> Tensor:
    """The inputs `a` of a batch, those of padded tokens as zeros: no gradient meets them, so they belong to no row.

    They would turn the basis with every change of the padding, and of what the module makes of it. Positions of
    images are all there.
    """
    if not factor.shared or isinstance(factor, Convolved):
        return factor.a
    return factor.a * factor.delta.any(-1, keepdim=True)


def flat(values: Tensor) -> Tensor:
    """(n * positions, width)."""
    return values.reshape(-1, values.shape[-1])


def eigenvectors(matrix: Tensor) -> Tensor:
    """Columns of eigenvectors of a symmetric matrix, of which the lower triangle is read, in float64."""
    return torch.linalg.eigh(matrix, UPLO="L")[1]


def self_product(x: Tensor) -> Tensor:
    """x' x, (width, width): of the two equal halves off the diagonal only one is multiplied out."""
    width = x.shape[1]
    if width < 256:
        return x.T @ x
    left, right = x[:, : width // 2], x[:, width // 2 :]
    corner = left.T @ right
    return torch.cat([torch.cat([self_product(left), corner], 1), torch.cat([corner.T, self_product(right)], 1)])
