"""A recorded training, gone through again step by step, forwards and backwards, with the parameters of every step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sktda.data import slices
from sktda.devices import exact, exact_device, has_float64, out_of_memory, release
from sktda.engine.optimizer_steps import Before, Linear, OptimizerSteps
from sktda.engine.per_row import PerRow
from sktda.engine.rescaling import Rescaling
from sktda.engine.second_order import SecondOrder
from sktda.model.base import Inputs, Rows, flatten, flatten_each, together, unflatten
from sktda.model.likelihood import Likelihood
from sktda.model.module_copy import unwrapped
from sktda.model.reading import in_columns
from sktda.model.scaled import ScaledRows
from sktda.model.step_settings import BY_STEP
from sktda.model.trajectory import MISFIT, Trajectory

STATE_BYTES = 2**30  # parameters of steps that are held at a time
ROW_BYTES = 2**30  # rows that are held on an accelerator, whose steps send them otherwise, forwards and backwards
OF_FREE = 8  # and no more than one of so many parts of CUDA's free memory
STRIDE = 512  # steps after which an interrupted pass can go on
DRIFT = 1e-2  # of the way since the last checkpoint: rounding stays below, another loss or dropout does not


@dataclass
class Batch:
    """One step: its number from 0, its rows, what the sum of their losses is divided by, and where it begins."""

    step: int
    rows: Rows
    positions: np.ndarray
    size: float
    before: Before | None = None


class Replay:
    """The steps of one training, with the model put where each of them began.

    rows: all rows that were trained on, in any order; place (n_trained,): where the trained rows are among them.
    total: whether the criterion adds the losses of a batch in place of averaging them.
    Parameters at a checkpoint are the recorded ones; between two they are computed again, which must lead from one to
    the next: ValueError where it does not (dropout, batch normalisation). Gradients that were clipped by norm, or
    scaled by one number, are so again.
    """

    @classmethod
    def of(cls, engine: PerRow, rows: Rows, trajectory: Trajectory, net: Any, X: Any, y: Any) -> Replay:
        """The replay of a net's trajectory; rows are those of (X, y) as the net's `fit` received them.

        Raises ValueError unless these are all rows that were trained on, and their steps were recorded.
        """
        trajectory.step_positions(0)  # says so if there are none
        trajectory.check_gradients()
        if not _scales_known(trajectory):
            raise ValueError(
                "the training cannot be gone through again: gradients were scaled before a step (clipped by norm, "
                "divided), and the record does not say by how much at each, or the rows of a step did not count alike; "
                "train with losses that are means over as many rows each, or use TracIn or Source"
            )
        if trajectory.began_in_the_middle():
            raise ValueError(
                "the training cannot be gone through again: the optimiser had made steps before the record began, and "
                "goes on from their moments; record a training from its first step"
            )
        assert trajectory.rows is not None
        n_trained = len(trajectory.rows)
        if trajectory.fingerprints is None:  # rows that differ from read to read, so not random steps again
            raise ValueError(
                "the training cannot be gone through again: its rows differ from read to read (random transforms); "
                "train on a Dataset whose rows do not change"
            )
        positions = trajectory.positions(X, y)
        place = np.full(n_trained, -1)
        place[positions] = np.arange(len(positions))  # of copies of a row the last one
        if (place < 0).any():
            raise ValueError(
                f"{(place < 0).sum()} of the {n_trained} rows that were trained on are missing in X and y; every step "
                "is gone through again, so give all of them"
            )
        total = getattr(unwrapped(net.criterion_), "reduction", "mean") == "sum"
        replay = cls(engine, rows, trajectory, place, total)
        replay.copies = place[positions]
        # read together, rows of a Dataset might be others: padded as far as the longest of all
        replay.alike = isinstance(X, ScaledRows) or in_columns(net, X)
        return replay

    def __init__(self, engine: PerRow, rows: Rows, trajectory: Trajectory, place: np.ndarray, total: bool) -> None:
        self.engine = engine
        self.rows = rows
        self.trajectory = trajectory
        self.place = place
        self.total = total
        self.copies = np.arange(len(rows))
        """(n,) for every row the one that stands for it in the batches: another one where a row is given twice."""
        self.alike = False
        """Whether a row is the same tensor in whatever batch it is read."""
        self.shapes = {name: value.shape for name, value in engine.model.parameters.items()}
        self.initial = trajectory.initial_state()
        n_bytes = sum(value.nbytes for value in engine.model.parameters.values())
        vectors = 2 + (len(self.steps.memory) if self.steps.adaptive else 0)
        held = max(1, STATE_BYTES // (vectors * n_bytes))
        # as many starts as steps between two of them, where not all fit
        self.stride = min(held, STRIDE) if trajectory.n_steps <= held else int(trajectory.n_steps**0.5) + 1
        """Steps whose parameters are held at a time, going backwards."""
        self._starts: dict[int, tuple] = {}

    # ---- steps -----------------------------------------------------------------------------------------------------

    def batch(self, step: int) -> Batch:
        """The rows of a step."""
        positions = self.place[self.trajectory.step_positions(step)]
        rows = self.rows.chosen(positions)
        size = self._size(rows)
        if self._held is not None:
            rows = self._of_held(self._held, self.places[step])
        return Batch(step, rows, positions, size)

    @cached_property
    def _held(self) -> tuple[Inputs, Tensor, Tensor | None] | None:
        """All rows on the model's device, sent once, where that is no processor and has room for them."""
        device, n = self.engine.model.device, len(self.rows)
        if device.type == "cpu" or not self.alike or not has_float64(device.type):  # where `places` are elsewhere
            return None
        inputs, targets = self.rows.read(slice(0, 1))
        each = [targets, *(inputs.values() if isinstance(inputs, Mapping) else [inputs])]
        room = min(ROW_BYTES, torch.cuda.mem_get_info(device)[0] // OF_FREE) if device.type == "cuda" else ROW_BYTES
        if n * sum(value.nbytes for value in each) > room:
            return None
        try:
            return self.rows.block(slice(0, n), device)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        release()
        return None

    @staticmethod
    def _of_held(held: tuple[Inputs, Tensor, Tensor | None], places: Tensor) -> Rows:
        inputs, targets, weight = held

        def read(part: slice | np.ndarray) -> tuple[Inputs, Tensor]:
            own = places[part]
            if isinstance(inputs, Mapping):
                return {name: value[own] for name, value in inputs.items()}, targets[own]
            return inputs[own], targets[own]

        return Rows(len(places), read, None if weight is None else weight[places])

    def _size(self, rows: Rows) -> float:
        if self.total:
            return 1.0
        likelihood = self.engine.model.likelihood
        if type(likelihood).size is Likelihood.size:  # the targets need not be read
            return float(len(rows))
        return likelihood.size(rows.read(slice(0, len(rows)))[1])

    @cached_property
    def places(self) -> Sequence[Tensor]:
        """By step, the positions of its rows, where float64 numbers of the model's device are."""
        steps = [self.place[self.trajectory.step_positions(step)] for step in range(self.trajectory.n_steps)]
        every = torch.from_numpy(np.concatenate(steps)).to(exact_device(self.engine.model.device))
        return every.split([len(step) for step in steps])

    @cached_property
    def steps(self) -> OptimizerSteps:
        """The optimiser's steps as functions."""
        trajectory = self.trajectory
        return OptimizerSteps(trajectory.optimizer, trajectory.groups, self.shapes, self.engine.model.device)

    @cached_property
    def rescaling(self) -> Rescaling | None:
        """What gradients were multiplied by before the steps; None = by nothing."""
        scales = self.trajectory.group_step_scales
        found = None if scales is None else Rescaling(scales, self.steps.places)
        return None if found is None or found.none else found

    def linear(self, batch: Batch) -> Linear:
        """Derivatives of a step of `forwards` or `backwards`; its input "gradient" is what the optimiser got."""
        before, step = batch.before, batch.step
        assert before is not None
        if self.rescaling is not None:
            before = replace(before, gradient=self.rescaling.scaled(step, before.gradient))
        return self.steps.linear(self.trajectory.step_groups(step), self._rates[step], step, before)

    def rescaled(self, batch: Batch, directions: Tensor) -> Tensor:
        """Directions (k, p) times the derivative of what the optimiser got by the gradient of the batch's loss."""
        if self.rescaling is None:
            return directions
        assert batch.before is not None
        return self.rescaling.along(batch.step, batch.before.gradient, directions)

    @property
    def _rates(self) -> np.ndarray:
        assert self.trajectory.group_step_rates is not None
        return self.trajectory.group_step_rates

    def products(self, batch: Batch, directions: Tensor) -> tuple[Tensor, Tensor]:
        """(dots (rows of the batch, k) of gradients with k directions (k, p), Hessian times them), both of its loss.

        The penalty is in neither. At the model's present parameters.
        """
        second, device = SecondOrder(self.engine), self.engine.model.device
        # both are linear in them, so that the mean over the batch may be taken here
        shared = unflatten(directions / batch.size, self.shapes)
        dots: list[Tensor] = []
        total: list[Tensor] = []

        def work(part: slice) -> None:
            found, _, bends = second.block_products(batch.rows.block(part, device), shared)
            moved = flatten_each(bends, self.shapes)
            dots.append(found)
            total[:] = [total[0].add_(moved) if total else moved]

        self.engine.sweep(batch.rows, work)
        return dots[0] if len(dots) == 1 else torch.cat(dots), total[0]

    def gradient(self, batch: Batch, chosen: np.ndarray) -> dict[str, Tensor]:
        """What the rows of a mask (n,) add to the gradient of the batch's loss."""
        kept = chosen[batch.positions]
        rows = batch.rows if kept.all() else self.rows.chosen(batch.positions[kept])
        # over the size of the whole batch: rows that are left out count nothing, and others no more
        return self.engine.gradient(rows, batch.size)

    def finish(self) -> None:
        """Puts the final parameters back into the model."""
        for value in self.engine.model.parameters.values():
            value.grad = None  # that of the last step
        self.engine.model.load(self.trajectory.state(-1))

    def forwards(self, without: np.ndarray | None = None) -> Iterator[Batch]:
        """Every step from the first, yielded with the model where the step begins; at the end it holds the result.

        without (n,): mask of rows whose losses count nothing, in batches that stay as they were. That path is another
        than the recorded one, which is gone through first to see that steps are computed as they were.
        """
        if without is not None:
            self.engine.model.load(self.initial)
            for _ in self._steps(self._optimizer(), 0, self.trajectory.n_steps, every=True):
                pass
        self.engine.model.load(self.initial)
        yield from self._steps(self._optimizer(), 0, self.trajectory.n_steps, without)

    def backwards(self, start: int, stop: int) -> Iterator[Batch]:
        """The steps stop - 1, ..., start; start is a multiple of `stride`, and stop at most one stride further."""
        if not self._starts:
            self._find_starts()
        state, moments = self._starts[start]
        self.engine.model.load(state)
        optimizer = self._optimizer()
        optimizer.load_state_dict(_copied(moments))  # torch would go on with these tensors themselves
        for batch in reversed(list(self._steps(optimizer, start, stop))):
            assert batch.before is not None
            with torch.no_grad():
                began = unflatten(batch.before.parameters, self.shapes)
                torch._foreach_copy_(list(self.engine.model.parameters.values()), list(began.values()))
            yield batch

    def segments(self) -> list[slice]:
        """Ranges of steps for `backwards`, first to last."""
        return list(slices(self.trajectory.n_steps, self.stride))

    def _find_starts(self) -> None:
        self.engine.model.load(self.initial)
        optimizer = self._optimizer()
        starts = {part.start for part in self.segments()}
        found = {}
        for batch in self._steps(optimizer, 0, max(starts) + 1, looked_at=False):
            if batch.step in starts:
                state = {name: value.detach().clone() for name, value in self.engine.model.module.state_dict().items()}
                found[batch.step] = state, _copied(optimizer.state_dict())
        self._starts = found  # all or none: where memory runs out on the way the steps are gone through again

    def _steps(
        self,
        optimizer: torch.optim.Optimizer,
        start: int,
        stop: int,
        without: np.ndarray | None = None,
        every: bool = False,
        looked_at: bool = True,
    ) -> Iterator[Batch]:
        """looked_at: whether batches say where their steps began."""
        model, trajectory = self.engine.model, self.trajectory
        own = model.parameters
        recorded = {int(step): c for c, step in enumerate(trajectory.steps)}
        since, before = start, flatten(own).detach()
        for step in range(start, stop):
            batch = self.batch(step)
            kept = np.ones(len(self.rows), dtype=bool) if without is None else ~without
            gradient = flatten(self.gradient(batch, kept))  # without the penalty, which the optimiser adds
            if looked_at:
                batch.before = self.steps.before(own, gradient, optimizer)
            yield batch
            if self.rescaling is not None:
                gradient = self.rescaling.scaled(step, gradient, recorded=without is None)
            for name, value in unflatten(gradient, self.shapes).items():
                own[name].grad = value
            self._set(optimizer, step)
            optimizer.step()
            if without is None and step + 1 in recorded:
                state = together(trajectory.state(recorded[step + 1]), model.device)
                # a single step is not needed where both of its ends are known, and nothing else comes from its gradient
                recorded_point = flatten({name: state[name] for name in own})
                if step > since or every or self.steps.adaptive:
                    self._compare(recorded_point, before, step + 1)
                model.load(state)
                since, before = step + 1, recorded_point

    def _set(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Gives an optimiser the settings of a step."""
        for own, group, rate in zip(
            optimizer.param_groups, self.trajectory.step_groups(step), self._rates[step], strict=True
        ):
            own |= {name: group[name] for name in group.get(BY_STEP, {})}
            own["lr"] = float(rate)

    def _optimizer(self) -> torch.optim.Optimizer:
        """The recorded optimiser, on the model's parameters."""
        own, trajectory = self.engine.model.parameters, self.trajectory
        kind = getattr(torch.optim, trajectory.optimizer, None)
        if kind is None:
            raise ValueError(
                f"the steps of {trajectory.optimizer} cannot be computed again, for it is no optimiser of torch.optim; "
                "train with one of these"
            )
        groups = [
            {
                **{key: value for key, value in group.items() if key not in {"parameters", "initial_lr", BY_STEP}},
                "params": [own[name] for name in group["parameters"] if name in own],
            }
            for group in trajectory.groups
        ]
        optimizer = kind(groups, lr=1.0)  # each step sets its own
        for group in optimizer.param_groups if trajectory.optimizer == "Adagrad" else []:
            for value in group["params"]:  # which begin with the default's number, not with their group's
                optimizer.state[value]["sum"].fill_(group["initial_accumulator_value"])
        return optimizer

    def _compare(self, recorded: Tensor, before: Tensor, step: int) -> None:
        found = flatten(self.engine.model.parameters).detach()
        ways = (exact(each).norm() for each in (found - recorded, before - recorded, recorded))
        missed, way, size = torch.stack(list(ways)).tolist()
        # late steps may be shorter than what rounding moves the parameters by
        rounding = 16 * torch.finfo(self.engine.model.dtype).eps * size
        if missed > DRIFT * way + rounding:
            share = f"{missed / way:.1%} of the way" if way else "more than the whole way"
            raise ValueError(
                f"the recorded steps do not lead to the recorded parameters: after step {step} the distance is "
                f"{share} since the last checkpoint. Dropout, batch normalisation "
                "or another loss than the criterion's can be the cause; train with a checkpoint after every step, "
                "TrajectoryRecorder(n_checkpoints=<number of steps>, steps=True), to have none computed again"
            )


def _scales_known(trajectory: Trajectory) -> bool:
    """Whether the recorded scales of steps are all that gradients were changed by."""
    largest, scales = trajectory.rescalings.max(), trajectory.group_step_scales
    if largest <= MISFIT:
        return True
    return scales is not None and bool(np.abs(scales - 1).max() >= largest - MISFIT)  # not where one is NaN


def _copied(state: dict) -> dict:
    """A deep copy of an optimiser's state."""
    return {
        **state,
        "state": {
            key: {name: value.clone() if isinstance(value, Tensor) else value for name, value in own.items()}
            for key, own in state["state"].items()
        },
    }
