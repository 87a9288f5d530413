"""The recorded stages of a training, as `Source` follows them."""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

import numpy as np
import torch
from torch import Tensor

from sktda.attribution.runs.segments import Segment
from sktda.devices import exact, has_float64, placed
from sktda.engine.blocks import BlockCurvature
from sktda.engine.curvature import DENSE_PARAMETERS, DenseCurvature
from sktda.engine.damping import without_penalty
from sktda.engine.ekfac import EKFAC
from sktda.engine.functional import Direction
from sktda.engine.journal import Journal, Passes
from sktda.engine.layers import LayerRows, Product
from sktda.engine.pairwise import by_layer
from sktda.engine.per_row import REST, PerRow
from sktda.engine.unrolling import Curvature, DiagonalFlow, Flow, SpectralFlow
from sktda.model.base import DifferentiableModel, Rows, together
from sktda.model.given import GivenModel, GivenRows
from sktda.model.sealed import digest
from sktda.model.trajectory import Trajectory
from sktda.model.trajectory_files import contents

UNROLLED = ("SGD", "Adam", "AdamW")
UNMET = 0.05  # of Adam's second moments at the end of a run: one that is below has not met all rows yet


@dataclass(frozen=True, eq=False)
class Stage:
    """An earlier stage of training, for `Source`: a fitted net with its record, and the rows that it was trained on.

    Parameters
    ----------
    estimator : estimator
        A fitted skorch net that a TrajectoryRecorder has recorded, or a Pipeline or FrozenEstimator of one. Its
        criterion is the stage's training objective. Parameters are followed into the next stage by their names.
    rows : array-like of shape (n_stage,) or (n_samples,), default=None
        Positions, or a boolean mask, of the stage's rows in the X given to `Source.fit`. None = those that the
        recorded run saw.
    y : array-like of shape (n_samples,), default=None
        Targets of this stage, one per row of that X, where they are not those given to `Source.fit`.

    Examples
    --------
    >>> from sktda.attribution import Source, Stage
    >>> def explain(fine_tuned, pretrained):  # fitted skorch nets
    ...     return Source(FrozenEstimator(fine_tuned), stages=[Stage(pretrained)])
    """

    estimator: Any
    rows: Any = None
    y: Any = None

    def __sklearn_clone__(self) -> Stage:
        return self  # it is trained: a clone would lose the record


class Run:
    """One stage of training as a method follows it: model, rows, segments, and the flow through each segment.

    rows: those of this stage; positions (n_stage,): where they are among the rows of the fit, and places the same on
    the model's device; labels: a fingerprint of their targets where these are not those of the fit.
    n: rows that the stage was trained on. Weight decay that the optimiser decouples is not in the model's penalty.
    Curvatures are kept on disk once they are fitted, so that one at a time is in memory (while workers fit
    them, two).
    """

    def __init__(
        self,
        model: DifferentiableModel,
        rows: Rows,
        positions: np.ndarray,
        labels: bytes,
        trajectory: Trajectory,
        n: int,
        segments: list[Segment],
        curvature: str,
        average: bool,
        batch_size: int | str,
    ) -> None:
        if trajectory.optimizer not in UNROLLED:
            raise ValueError(
                f"Source unrolls {', '.join(UNROLLED)}, and this net was trained with {trajectory.optimizer}; train it "
                "with one of them, or use Influence"
            )
        self.model = model
        self.engine = PerRow(model, batch_size)
        self.rows = rows
        self.positions = positions
        self.places = torch.from_numpy(positions).to(model.device)
        self.labels = labels
        self.shapes = {name: value.shape for name, value in model.parameters.items()}
        self.trajectory = trajectory
        self.n = n
        self.segments = segments
        self.average = average
        self.kind = self._automatic() if curvature == "auto" else curvature
        self.decay: dict[str, float] = {}
        self.penalty = model.decay
        if trajectory.decoupled_weight_decay:
            # AdamW shrinks weights beside the loss: exp(-x (P H + wd)), where P does not meet wd as it would in H
            self.decay, self.penalty = trajectory.weight_decay, {}
        self._shelf = Journal(mkdtemp(prefix="sktda-"))
        finalize(self, self._shelf.clear)
        self._fitted: dict[str, Curvature] = {}
        self._told = False  # what EK-FAC leaves out
        self.nbytes = 0
        """Bytes of the largest curvature at the largest moment of its fit, once there is one."""

    def __getstate__(self) -> dict:  # with what lies in the folder, which another machine has not
        return {**vars(self), "_shelf": Journal(held={name: self._shelf.read(name) for name in self._fitted})}

    def _automatic(self) -> str:
        size = sum(value.numel() for value in self.model.parameters.values())
        self.engine.prepare(self.rows)
        layers = any(layer.is_product for layer in self.engine.layers or [])
        return "exact" if size <= DENSE_PARAMETERS and (self.model.linear or not layers) else "ekfac"

    @cached_property
    def linear(self) -> set[str]:
        """Names of the layers whose gradients are one outer product per row."""
        self.engine.prepare(self.rows)
        seen = self.engine.capture(self.rows.block(slice(0, 1), self.model.device), None, self.engine.layers)[1]
        return {name for name, factor in seen.items() if isinstance(factor, Product) and not factor.shared}

    def visit(self, segment: Segment) -> Iterator[str]:
        """Puts the segment's checkpoints, or the average of their parameters, into the model; yields a name of each."""
        if self.average:
            self.model.load(self._averaged([self.trajectory.state(c) for c in segment.checkpoints]))
            yield segment.name
            return
        for c in segment.checkpoints:
            self.model.load(self.trajectory.state(c))
            yield f"{segment.name} checkpoint {c + 1}"

    def formed(self, flow: Flow, direction: Direction) -> dict[str, Tensor]:
        """(k, p) by layer: what gradients of a segment are dotted with, for k directions at its end."""
        return by_layer(self.engine, flow.gathered(direction))

    def captured(self, batch: slice, names: Container[str]) -> dict[str, LayerRows]:
        """Factors of a batch of the rows, of the layers of these names."""
        layers = None if REST in names else [layer for layer in self.engine.layers or [] if layer.name in names]
        return self.engine.capture(self.rows.block(batch, self.model.device), None, layers)[1]

    def share(self, segment: Segment) -> float:
        """What a gradient at one state of the segment counts."""
        # F_r(H) meets the mean of a segment's gradients: dots are linear in them, so their mean will do
        return 1 / (self.n * (1 if self.average else len(segment.checkpoints)))

    @staticmethod
    def _averaged(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {
            # counters, such as the batches that BatchNorm has seen, have no mean
            name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
            for name, value in states[-1].items()
        }

    def flow(self, segment: Segment, seed: int, passes: Passes) -> Flow:
        """What the segment does to a direction."""
        self._penalise(segment)
        curvature, rate = self._curvature(segment), segment.rates.size
        if curvature is None:
            for _ in self.fitting(segment, seed, passes):
                pass
            curvature = self._curvature(segment)
            assert curvature is not None
        # P by coordinate and Kronecker factors have no eigenbasis in common; one rate for a whole layer
        # only multiplies its eigenvalues
        if isinstance(curvature, EKFAC):
            if self.trajectory.optimizer != "SGD":
                return DiagonalFlow(curvature, rate, self._scale(segment), self._decoupled(segment))
            if segment.rates.roots is not None:
                return SpectralFlow(_weighed(curvature, segment.rates.roots), rate, self._root(segment))
        return SpectralFlow(curvature, rate, self._root(segment))

    def _root(self, segment: Segment) -> dict[str, Tensor] | None:
        """Square root of what steps are preconditioned by, beside the segment's rate; None = nothing."""
        if self.trajectory.optimizer == "SGD" and segment.rates.roots is None:
            return None
        return {name: exact(value).sqrt() for name, value in self._scale(segment).items()}

    def _decoupled(self, segment: Segment) -> dict[str, float]:
        """Decoupled weight decay by parameter, per unit of the segment's rate."""
        every = {name: value * segment.decay.get(name, 1.0) for name, value in self.decay.items()}
        return segment.rates.along(every)

    def fitting(self, segment: Segment, seed: int, passes: Passes) -> Iterator[None]:
        """Fits the segment's curvature; stops where it would wait for workers, so that more can begin."""
        visit = partial(self.visit, segment)
        if self.kind == "ekfac":
            steps = EKFAC.begun(self.engine, self.rows, seed, passes, visit)
            found: Curvature | None = None
            while found is None:
                # another segment's fit may have had the model since the last step
                self._penalise(segment)
                with warnings.catch_warnings():
                    if self._told:
                        warnings.filterwarnings("ignore", "EK-FAC leaves out")  # said for the first one
                    self._told = True
                    try:
                        next(steps)
                    except StopIteration as end:
                        found = without_penalty(end.value, self.engine)
                if found is None:
                    yield
        else:
            self._penalise(segment)
            # fitted as P^1/2 H P^1/2 + wd: its eigenvectors are others than those of H, so P cannot come in later
            kind = BlockCurvature if self.kind == "blockwise" else DenseCurvature
            found = kind(self.engine, self.rows, visit, self._root(segment), self._decoupled(segment))
        self.nbytes = max(self.nbytes, found.nbytes)
        self._shelf.write(segment.name, found.tensors)
        # the form without its numbers; an empty view would keep all of them, a clone of it does not
        self._fitted[segment.name] = found.restored({key: value[:0].clone() for key, value in found.tensors.items()})

    def _penalise(self, segment: Segment) -> None:
        """Put the weight decay of the segment into the model."""
        self.model.decay = {name: value * segment.decay[name] for name, value in self.penalty.items()}

    def _curvature(self, segment: Segment) -> Curvature | None:
        """From the disk; None where it is not there."""
        # what clears temporary folders may have taken it: the caller then fits it again
        kept = self._shelf.read(segment.name)
        if kept is None or segment.name not in self._fitted:
            return None
        device = self.model.device
        # small tensors go to an accelerator as one; with float64 among them only where it has such numbers
        near = together(kept, device) if has_float64(device.type) else kept
        return self._fitted[segment.name].restored({name: placed(value, device) for name, value in near.items()})

    def _scale(self, segment: Segment) -> dict[str, Tensor]:
        """What multiplies gradients, beside the segment's rate, by parameter.

        That is the share of its own rate, and Adam's 1 / (sqrt(v) + eps), v averaged over the segment's checkpoints.
        After few steps v may not have met the rows that move a parameter, and would make a leap of what they do: it is
        at least the share UNMET of what it is at the end of the run.
        """
        if self.trajectory.optimizer == "SGD":
            return segment.rates.along({name: torch.ones_like(value) for name, value in self.model.parameters.items()})
        moments: dict[str, Tensor] = {}
        for c in segment.checkpoints:
            for name, v in self._moments(c).items():
                moments[name] = moments.get(name, 0) + v / len(segment.checkpoints)
        last = self._moments(len(self.trajectory) - 1)
        moments = {name: v.maximum(UNMET * last[name]) for name, v in moments.items()}
        # P near 0, but not 0 itself, by which flows would divide
        still = torch.tensor(1e30)  # of a parameter that no step has moved
        settings = [self._settings(c) for c in segment.checkpoints]
        eps = {name: float(np.mean([each[name]["eps"] for each in settings])) for name in moments}
        steps = {
            name: (1 / (moments.get(name, still).sqrt() + eps.get(name, 0.0))).expand(value.shape).to(value)
            for name, value in self.model.parameters.items()
        }
        return segment.rates.along(steps)

    def _moments(self, c: int) -> dict[str, Tensor]:
        """Adam's v at a checkpoint, corrected for its start, by parameter."""
        settings = self._settings(c)
        return {
            # v / (1 - beta2^t) as in the step; amsgrad divides by the largest v so far
            name: state.get("max_exp_avg_sq", state["exp_avg_sq"])
            / (1 - settings[name]["betas"][1] ** float(state["step"]))
            for name, state in self.trajectory.optimizer_state(c).items()
        }

    def _settings(self, c: int) -> dict[str, dict[str, Any]]:
        """What the optimiser was set to at the step that led to a checkpoint, by parameter."""
        groups = self.trajectory.step_groups(int(self.trajectory.steps[c]) - 1)
        return {name: group for group in groups for name in group["parameters"]}


def _weighed(curvature: EKFAC, roots: dict[str, float]) -> EKFAC:
    """EK-FAC of root H root, for roots that are one number in each layer."""
    weighed = copy(curvature)
    weighed.values = {}
    for layer in curvature.layers:
        own = {roots[name] for name in layer.parameters}
        if len(own) > 1:
            raise ValueError(
                f"weight and bias of layer '{layer.name}' were trained at different learning rates, which the factors "
                "of EK-FAC do not know apart; take Source(curvature='blockwise') or 'exact'"
            )
        # r H r with a number r: the eigenvectors stay
        weighed.values[layer.name] = own.pop() ** 2 * curvature.values[layer.name]
    return weighed


@dataclass(frozen=True)
class Stages:
    """The recorded stages of a training, first to last."""

    runs: list[Run]

    @property
    def records(self) -> list[str | bytes]:
        """What tells the runs, and the rows in them, from others."""
        return [
            part
            for run in self.runs
            for part in (digest(contents(run.trajectory)), run.positions.tobytes(), run.labels)
        ]

    def backwards(self) -> Iterator[tuple[int, Run, Segment]]:
        """(stage, run, segment) from the end of training to its start."""
        for stage in reversed(range(len(self.runs))):
            for segment in reversed(self.runs[stage].segments):
                yield stage, self.runs[stage], segment


def check_same_module(runs: list[Run], final: DifferentiableModel) -> None:
    """Raise ValueError for a stage that trained nothing of the final model."""
    shapes = {name: value.shape for name, value in final.module.named_parameters()}
    for number, run in enumerate(runs, start=1):
        # some may differ, such as a head that was replaced; with none in common no stage hands anything on
        if run.shapes.items().isdisjoint(shapes.items()):
            raise ValueError(
                f"stage {number} trained {', '.join(run.shapes)}, and none of these is in the final model with the "
                "same shape; stages must train the same module"
            )


def stage_positions(stage: Stage, given: GivenModel, data: GivenRows, where: str) -> np.ndarray:
    """Positions (n_stage,) of the stage's rows among those of the fit; where: how an error begins."""
    if stage.rows is None:
        assert given.record is not None
        chosen = given.record.contains(*given.seen(data))
    else:
        chosen = np.zeros(len(data), dtype=bool)
        try:
            chosen[np.asarray(stage.rows)] = True
        except IndexError as error:
            raise ValueError(
                f"{where}rows must be positions in the {len(data)} rows given to fit, or a mask of them: {error}"
            ) from error
    if not chosen.any():
        raise ValueError(f"{where}none of the {len(data)} rows were trained on; pass the rows of all stages together")
    # rising and without repetition: `Source` searches in them, and adds to them by position
    return np.flatnonzero(chosen)
