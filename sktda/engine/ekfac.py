"""EK-FAC: eigenvalue-corrected Kronecker curvature, layer by layer.

George et al. 2018 (arXiv:1806.03884) and Grosse et al. 2023 (arXiv:2308.03296). A layer s = W a + b has the factors
A = mean [a; 1][a; 1]' and S = mean delta delta', delta = gradient of the loss at s with labels drawn from the model;
their eigenvectors Q_A, Q_S are the basis, and the eigenvalues are the mean squares of the per-row gradients in it.
Layers of other kinds have bases of their own (`engine/kronecker.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sktda.devices import exact_device
from sktda.engine.curvature import Spectral, Visit, along_root, here
from sktda.engine.drawn_labels import Noise, drawn_slopes
from sktda.engine.functional import Direction
from sktda.engine.journal import Passes
from sktda.engine.kronecker import Bases, Block, eigenvectors, squared, turned, turned_back
from sktda.engine.kronecker_blocks import ProductBlock, covered_blocks
from sktda.engine.layers import Layer, LayerRows, Product
from sktda.engine.per_row import REST, PerRow
from sktda.model.base import Rows, forward

KEPT_BYTES = 256 * 2**20  # factors kept from the first pass over the rows, so that the second need not redo them


class Kept:
    """Factors of batches from the first pass over the rows, as many as KEPT_BYTES and the memory take."""

    def __init__(self) -> None:
        self._left = KEPT_BYTES
        self._found: dict[tuple[int, int, int], dict[str, LayerRows]] = {}

    def keep(self, batch: tuple[int, int, int], factors: dict[str, LayerRows]) -> None:
        """Hold the factors of a batch, (state, start, stop), if there is room."""
        self._left -= sum(factor.nbytes for factor in factors.values())
        if self._left >= 0:
            self._found[batch] = factors

    def taken(self, batch: tuple[int, int, int]) -> dict[str, LayerRows] | None:
        """The factors of a batch, which are held no longer."""
        return self._found.pop(batch, None)

    def __getstate__(self) -> dict:
        return {"_left": -1, "_found": {}}  # what one worker keeps another has no use for

    def drop(self) -> bool:
        """Let go of all, and keep none from now on; returns whether there were any."""
        some = bool(self._found)
        self._found.clear()
        self._left = -1
        return some


@dataclass
class _Rows:
    """The rows of a fit, with what is drawn for them and what is known of them."""

    engine: PerRow
    rows: Rows
    noise: Noise
    kept: Kept


class EKFAC:
    """One eigen-object: `apply(fn, direction)` is fn(curvature) times a direction.

    Eigenvalues `values[block]` (out, in) are of the mean loss plus the block's penalty, without damping. A block is a
    layer, or a parameter that is in no known layer. Left out, with one warning that names them, are parameters that
    the losses do not depend on, and of those in no known layer the ones of more than four million numbers, and all if
    they hold less than a twentieth of the squared gradients of a model of more than 100,000 parameters.
    `parameter_share` of the parameters and `energy_share` of the squared gradients (of up to 16 rows) are covered.
    Labels are drawn from the model with `seed`, one draw per row and state; the fit has its own batch size, so that the
    engine's does not matter.
    visit: a generator function that puts one state after another into the model and yields their names: factors are
    averaged over these states and decomposed once, eigenvalues in that basis averaged over them.
    Cost: about three forward and backward passes over the rows a state, and one eigen-decomposition per factor.
    Raises ValueError if no parameter remains.
    """

    def __init__(
        self, engine: PerRow, rows: Rows, seed: int = 0, passes: Passes | None = None, visit: Visit = here
    ) -> None:
        for _ in self._steps(engine, rows, seed, passes or Passes(), visit):
            pass

    @classmethod
    def begun(cls, engine: PerRow, rows: Rows, seed: int, passes: Passes, visit: Visit) -> Generator[None, None, EKFAC]:
        """The same fit, which stops where it has handed out a pass to workers and would wait for it.

        What the model and its penalty are is asked for at every step.
        """
        found = cls.__new__(cls)
        yield from found._steps(engine, rows, seed, passes, visit)
        return found

    def _steps(self, engine: PerRow, rows: Rows, seed: int, passes: Passes, visit: Visit) -> Iterator[None]:
        engine.prepare(rows)
        own = engine.model.parameters
        self.layers, self.energy_share = covered_blocks(engine, rows)
        covered = {name for block in self.layers for name in block.parameters}
        self.left_out = [name for name in own if name not in covered]
        if not self.layers:
            raise ValueError(
                f"EK-FAC covers none of the trainable parameters, on which no loss depends or which are too large: "
                f"{', '.join(self.left_out)}; use curvature='cg'"
            )
        self._sources = {REST: sum(own[name].numel() for name in engine.rest)}
        self._sources |= {layer.name: layer.n_parameters for layer in engine.layers or []}
        self.parameter_share = sum(own[name].numel() for name in covered) / sum(value.numel() for value in own.values())
        if self.left_out:
            much = "" if self.energy_share >= 0.5 else ", most of it: use curvature='cg', or parameters= without these"
            warnings.warn(
                f"EK-FAC leaves out {len(self.left_out)} parameters that are not used, or in no known layer and too "
                f"large or too unimportant to form their gradients: {', '.join(self.left_out)}; they count as fixed. "
                f"They hold {1 - self.parameter_share:.0%} of the numbers and {1 - self.energy_share:.0%} of the "
                f"gradients' squares{much}",
                UserWarning,
                stacklevel=3,
            )
        self._names = [block.name for block in self.layers]
        over = _Rows(engine, rows, Noise(engine, rows, seed), Kept())
        like = next(iter(own.values()))
        means = self._begun("factors", self._products, self._factors(), over, passes, visit)
        yield
        # only the vectors are kept: for products of the eigenvalues of A and S stands Lambda, fitted below
        bases = {key: eigenvectors(mean).to(like) for key, mean in means().items()}
        self.basis_in, self.basis_out = ({n: bases.get(f"{way}/{n}") for n in self._names} for way in ("in", "out"))
        sizes = {block.name: block.size for block in self.layers}
        means = self._begun("eigenvalues", self._squares, sizes, over, passes, visit)  # the sums of before are let go
        yield
        self.values = {name: mean.to(like) for name, mean in means().items()}
        for block in self.layers:
            self.values[block.name] += self.penalty(engine, block)

    def own(self, engine: PerRow) -> list[Layer] | None:
        """The engine's layers that this curvature needs; None = all of the gradient."""
        sources = {block.source for block in self.layers}
        return None if REST in sources else [layer for layer in engine.layers or [] if layer.name in sources]

    # ---- fitting ---------------------------------------------------------------------------------------------------

    def _captured(self, over: _Rows, state: int, part: slice) -> dict[str, LayerRows]:
        engine = over.engine
        likelihood = engine.model.likelihood
        inputs, targets, weight = over.rows.block(part, engine.model.device)

        def sampled(outputs: Tensor, noise: Tensor) -> Tensor:
            return along_root(outputs, drawn_slopes(likelihood, outputs, targets, noise))

        # curvature is linear in a row's weight, its gradient too: the root of it goes into the gradient
        root = None if weight is None else weight.sqrt()
        own, drawn = self.own(engine), over.noise(state)[part].to(exact_device(engine.model.device))
        if own is None:  # gradients without factors are of one row at a time: each needs its own slopes
            with torch.no_grad():
                outputs = forward(engine.model.module, inputs)
            block = (inputs, drawn_slopes(likelihood, outputs, targets, drawn), root)
            factors = engine.capture(block, along_root)[1]
        else:
            factors = engine.capture((inputs, drawn, root), sampled, own)[1]
        return {block.name: block.taken(factors) for block in self.layers}

    def _factors(self) -> dict[str, tuple[int, int]]:
        """Shapes of what is decomposed."""
        shapes: dict[str, tuple[int, int]] = {}
        for block in self.layers:
            (out, width), rotates = block.size, block.rotates
            shapes |= {f"in/{block.name}": (width, width)} if rotates[0] else {}
            shapes |= {f"out/{block.name}": (out, out)} if rotates[1] else {}
        return shapes

    def _products(self, over: _Rows, state: int, part: slice) -> dict[str, Tensor]:
        factors, weight = self._captured(over, state, part), over.rows.weight
        # for the inputs: delta has the root of the weight from `_captured`, a has not, and A weighs rows as S does
        root = None if weight is None else weight[part].sqrt().to(over.engine.model.device)
        products: dict[str, Tensor | None] = {}
        for block in self.layers:
            columns, lines = block.products(factors[block.name], root)
            products |= {f"in/{block.name}": columns, f"out/{block.name}": lines}
        over.kept.keep((state, part.start, part.stop), factors)
        return {key: product for key, product in products.items() if product is not None}

    def _squares(self, over: _Rows, state: int, part: slice) -> dict[str, Tensor]:
        factors = over.kept.taken((state, part.start, part.stop)) or self._captured(over, state, part)
        # Lambda = sum over rows of (Q_S' G_i Q_A)^2; G_i is summed over positions before it is squared
        return {b.name: b.squares(factors[b.name], self.bases(b.name)) for b in self.layers}

    def _begun(
        self,
        name: str,
        of_batch: Callable[[_Rows, int, slice], dict[str, Tensor]],
        shapes: dict[str, tuple[int, int]],
        over: _Rows,
        passes: Passes,
        visit: Visit,
    ) -> Callable[[], dict[str, Tensor]]:
        """Begins a pass over all rows at all states; what it returns waits for it, and gives means of these shapes."""
        sums, n_states = self._zeros(over.engine, shapes), 0

        def stages() -> Iterator[tuple[str, Callable[[int, int], dict[str, Tensor]]]]:
            nonlocal n_states
            for state, label in enumerate(visit()):
                n_states = state + 1
                yield label, partial(self._shard, of_batch, shapes, over, state)

        finish = passes.begun(name, len(over.rows), stages, sums)

        def means() -> dict[str, Tensor]:
            finish()
            # over rows, not positions: the scale of A and S does not matter to their vectors, that of Lambda counts
            return {key: total.div_(n_states * len(over.rows)) for key, total in sums.items()}

        return means

    def _shard(
        self, of_batch: Callable, shapes: dict[str, tuple[int, int]], over: _Rows, state: int, start: int, stop: int
    ) -> dict[str, Tensor]:
        sums, engine = self._zeros(over.engine, shapes), over.engine
        # Always in the same batches: eigenvectors of close eigenvalues turn with the rounding of a product in float32,
        # and scores with them, by more than 1e-5. Products in float64 would do as well, and double the cost of the fit.
        work, size = partial(of_batch, over, state), engine.own_batch
        for _, products in engine.computed(over.rows, work, start, stop, size, over.kept.drop):
            for key in products:  # of which there may be none
                sums[key] += products[key].to(sums[key].device)
            del products  # before the next batch is made
        return sums

    @staticmethod
    def _zeros(engine: PerRow, shapes: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
        device = exact_device(engine.model.device)
        return {key: torch.zeros(shape, dtype=torch.float64, device=device) for key, shape in shapes.items()}

    def penalty(self, engine: PerRow, block: Block) -> Tensor:
        """Diagonal of the block's penalty in the eigenbasis: exact where all of it is penalised alike."""
        decay = {name: engine.model.decay.get(name, 0.0) for name in block.parameters}
        like, basis = self.values[block.name], self.basis_in[block.name]
        columns = torch.cat([like.new_full((count,), value) for count, value in block.columns_of(decay)])
        # diag(Q_A' C Q_A) = (Q_A * Q_A)' c; a column has one decay for all outputs, so that Q_S cancels
        return columns if basis is None else basis.square().T @ columns

    def bases(self, name: str) -> Bases:
        """(for the columns, for the rows) of a block."""
        return self.basis_in[name], self.basis_out[name]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that the fit found; put back with `restored`."""
        parts: dict[str, Mapping[str, Tensor | None]] = {
            "in": self.basis_in,
            "out": self.basis_out,
            "values": self.values,
        }
        return {f"{part}/{k}": v for part, found in parts.items() for k, v in found.items() if v is not None}

    def restored(self, tensors: Mapping[str, Tensor]) -> EKFAC:
        """A curvature of the same layers with these tensors."""
        other = copy(self)
        other.basis_in, other.basis_out = (
            {name: tensors.get(f"{side}/{name}") for name in self._names} for side in ("in", "out")
        )
        other.values = {name: tensors[f"values/{name}"] for name in self._names}
        return other

    @property
    def nbytes(self) -> int:
        """Bytes at the largest moment of the fit."""
        bases = [basis for basis in (*self.basis_in.values(), *self.basis_out.values()) if basis is not None]
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

    def block(self, name: str) -> Block:
        """The block of this name."""
        return self.layers[self._names.index(name)]

    def rotated(self, factor: Product, name: str) -> tuple[Tensor, Tensor]:
        """Inputs and output gradients in the layer's eigenbases."""
        block = self.block(name)
        assert isinstance(block, ProductBlock)
        return block.rotated(factor, self.bases(name))

    def rotated_matrices(self, factor: LayerRows, name: str) -> Iterator[Tensor]:
        """Yields (k, out, in) gradients of a few rows at a time in the eigenbasis."""
        return self.block(name).rotated_matrices(factor, self.bases(name))

    def by_source(self, directions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(k, p) as the factors of a batch are contracted with, from (k, out, in) by block; 0 where there is none."""
        found: dict[str, Tensor] = {}
        for block in self.layers:
            if block.name not in directions:
                continue
            values = block.flat(directions[block.name])
            if block.columns is None:
                found[block.source] = values
                continue
            if block.source not in found:
                # pieces of one flat gradient: of the parameters left out nothing may count
                found[block.source] = values.new_zeros(len(values), self._sources[block.source])
            found[block.source][:, block.columns] = values
        return found

    def matrix(self, direction: Direction, block: Block) -> Tensor:
        """(..., out, in) matrix of a direction at one block."""
        return block.matrix(direction)

    def direction(self, matrix: Tensor, block: Block) -> dict[str, Tensor]:
        """The inverse of `matrix`: by parameter."""
        return block.direction(matrix)

    def rotate(self, direction: Direction) -> dict[str, Tensor]:
        """(..., out, in) by block: a direction in the eigenbases; left-out parameters are dropped."""
        return {
            block.name: turned(block.matrix(direction).to(self.values[block.name]), self.bases(block.name))
            for block in self.layers
        }

    def diagonal(self, values: Tensor, name: str, back: bool = False) -> Tensor:
        """Diagonal in the eigenbasis of a block of one outside of it, or `back`."""
        return (turned_back if back else turned)(values, squared(self.bases(name)))

    def scale(self, fn: Spectral, coordinates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """fn of the eigenvalues times the coordinates."""
        return {name: fn(self.values[name]) * value for name, value in coordinates.items()}

    def back(self, coordinates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `rotate`, of the blocks that are there."""
        result: dict[str, Tensor] = {}
        for block in self.layers:
            if block.name in coordinates:
                result |= block.direction(turned_back(coordinates[block.name], self.bases(block.name)))
        return result

    def apply(self, fn: Spectral, direction: Direction) -> dict[str, Tensor]:
        """fn(curvature) times the direction, or directions with a leading axis; left-out parameters are dropped."""
        # Q_S ((Q_S' V Q_A) * fn(Lambda)) Q_A'
        return self.back(self.scale(fn, self.rotate(direction)))

    def quadratic(self, engine: PerRow, rows: Rows, fn: Spectral, start: int, stop: int) -> Tensor:
        """g_i' fn(H) g_i for the rows start..stop, without a gradient per row where weights are not shared."""
        result = torch.empty(stop - start, dtype=engine.model.dtype, device=engine.model.device)
        scales = {name: fn(self.values[name]) for name in self._names}

        def work(part: slice) -> None:
            factors = engine.capture(rows.block(part, engine.model.device), None, self.own(engine))[1]
            result[part.start - start : part.stop - start] = self.energies(factors, scales)

        engine.sweep(rows, work, start, stop)
        return result

    def energies(self, factors: dict[str, LayerRows], scales: Mapping[str, Tensor]) -> Tensor:
        """(n,) squares of gradients in the eigenbases times scales (out, in) by block, summed, from their factors."""
        parts = (b.energies(b.taken(factors), self.bases(b.name), scales[b.name]) for b in self.layers)
        return torch.stack(list(parts)).sum(0)
