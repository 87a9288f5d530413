"""Source: attribution by approximate unrolling of the training run (arXiv:2405.12186)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import TypeVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from sktda.attribution.base import Needs
from sktda.attribution.gradients.fitted import Fitted, at_the_end, portion_size, unrecorded
from sktda.attribution.gradients.objective_gradients import Asked
from sktda.attribution.gradients.pairs import GradientAttributor
from sktda.attribution.runs.segments import Segment, segments
from sktda.attribution.runs.stages import Run, Stage, Stages, check_same_module, stage_positions
from sktda.devices import exact, exact_device, in_blocks
from sktda.engine.ekfac import EKFAC
from sktda.engine.functional import Direction
from sktda.engine.pairwise import (
    EXACT_WORK,
    QUERY_BYTES,
    Joined,
    LowRank,
    Preconditioned,
    along_each,
    truncated,
    truncated_size,
)
from sktda.engine.unrolling import Flow
from sktda.model.base import Rows
from sktda.model.consistency import check_losses
from sktda.model.fingerprint import row_fingerprints
from sktda.model.given import GivenModel
from sktda.model.recorder import TrajectoryRecorder
from sktda.seeds import seed_of
from sktda.workers import on_cluster, overlapped

Met = TypeVar("Met")


class Source(GradientAttributor):
    """Predicted rise of the objective when a row is removed, in loss units, by unrolling training approximately.

    Training is cut into segments, each a gradient flow with one curvature H_l: (1/n) q' sum over segments l of
    (product over later segments of exp(-x H)) (1 - exp(-x_l H_l)) H_l^-1 g_il, with q the gradient of the objective at
    the final parameters, g_il that of row i's loss averaged over the segment's checkpoints, and x_l the sum of its
    learning rates (divided by 1 - momentum). Unlike influence functions it does not assume that training has converged,
    and knows when a row was seen. Self-influence (no validation rows) is minus the same with q the row's own gradient.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net trained by SGD, Adam or AdamW, or a Pipeline or FrozenEstimator of one. A net is cloned and trained
        with a TrajectoryRecorder, unless it has one; a frozen one must have been recorded (for Adam and AdamW with
        optimizer_state=True). None = a small net for tables or images.
    n_segments : int, default=3
        Segments of equally many checkpoints. A net that is trained here gets two checkpoints per segment, at least 6.
    boundaries : sequence of int or "auto", default="auto"
        A new segment begins after each of these numbers of checkpoints; n_segments is then not used. "auto" = segments
        of equally many checkpoints.
    stages : list of Stage or None, default=None
        Stages of training before that of `estimator`, the first first: pre-training, say. `estimator` must then be
        frozen, and `fit` gets the rows of all stages together.
    curvature : {"auto", "ekfac", "blockwise", "exact"}, default="auto"
        "ekfac": eigenvalue-corrected Kronecker factors, layer by layer. "blockwise": the exact
        Gauss-Newton matrix of each layer, for few rows: up to 5,000 parameters in a layer, or rows times outputs times
        checkpoints of a segment. "exact": the whole Gauss-Newton matrix, up to 5,000 parameters. "auto": "exact" for
        models that are linear in at most 5,000 parameters or have no such layer, else "ekfac".
    fast : bool, default=False
        Average the parameters of a segment, so that it costs as much as one checkpoint.
    tolerance : float, default=0.02
        Relative error that `attribute` may have under "ekfac" where pairs are many: directions written as few outer
        products are an order of magnitude faster. 0 = exact; small problems (queries x rows x parameters up to 1e10)
        are exact in any case.
    objective : {"auto", "self", "validation"}, objective, callable or None, default="auto"
        "auto" is "validation" where validation rows are given, else "self"; None prepares `attribute` only.
    parameters : str, list of str or None, default=None
        Names of the parameters that take part, as patterns: ``"classifier.*"``, ``["*.lora_*", "classifier.*"]``; the
        others count as fixed. None = all that were trained.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or "auto", default="auto"
        Rows at a time; changes memory and speed, not the result. "auto" = what fits.
    precision : {"auto", "float32", "tf32", "bf16"}, default="auto"
        Of passes through the net. "auto" = as torch is set; "float32": never TF32; "tf32": products in TF32, on CUDA;
        "bf16": passes in bfloat16 by autocast, all sums, decompositions and solutions as with "tf32". Spearman
        correlation of "bf16" with "float32", measured on a processor for small nets, at the least
        0.999 by own loss, 0.99 by validation loss, pairs 0.97. "ekfac" only.
    work_dir : path-like or None, default=None
        Folder in which finished shards of a long `fit` are kept until it ends: a fit that was killed and is started
        again (with the same rows, and the same trained model or `random_state`) goes on where it was. None = off.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone and the labels that EK-FAC draws from the model. None is 0, so that a fit can be
        repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep. Not there with objective=None.
    stage_scores_ : ndarray of shape (n_stages, n_samples)
        With `stages`: the part of each stage in `scores_`, which is their sum; 0 where the stage did not see the row.
        The last is that of `estimator`.
    estimator_ : estimator
        The trained model.
    trajectory_ : Trajectory
        The recorded run.
    task_ : str
        "classification" or "regression".

    Raises
    ------
    TypeError
        In `fit`, for an estimator that cannot be differentiated.
    ValueError
        In `fit`, for a model without a recorded run or trained by another optimiser, fewer checkpoints than segments,
        rows that no stage saw, a train_split that hides rows, a weight decay that changed, a diverged training.

    Notes
    -----
    Source: Bae et al. 2024 (arXiv:2405.12186), eqs. 13 to 17 and algorithm 1, divided by n. The curvature has no
    damping: directions that training has not moved along count by their learning rates. Under EK-FAC the penalty of a
    net of several layers is left out, as in `Influence`, and Adam and AdamW use a diagonal for what is left of a
    displacement and an inverse damped by a tenth of a layer's mean eigenvalue; otherwise they use functions of
    P^1/2 H P^1/2, P = 1 / (sqrt(v) + eps), v being at least a twentieth of what it is at the end of the run: one of few
    steps may not have met the rows that move a parameter. Curvatures are kept in a temporary folder, one in memory at a
    time.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktda.attribution import Source
    >>> X, y = load_iris(return_X_y=True)
    >>> y[0] = 2  # it is 0
    >>> int(Source(random_state=0).fit(X, y).scores_.argmin())
    0
    """

    needs = Needs(validation=True, gradients=True, trajectory=True)

    _parameter_constraints: dict = {
        **GradientAttributor._parameter_constraints,
        "n_segments": [Interval(Integral, 1, None, closed="left")],
        "boundaries": ["array-like", StrOptions({"auto"})],
        "stages": [list, tuple, None],
        "curvature": [StrOptions({"auto", "ekfac", "blockwise", "exact"})],
        "fast": ["boolean"],
        "tolerance": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        estimator=None,
        *,
        n_segments=3,
        boundaries="auto",
        stages=None,
        curvature="auto",
        fast=False,
        tolerance=0.02,
        objective="auto",
        parameters=None,
        device="auto",
        batch_size="auto",
        precision="auto",
        work_dir=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.n_segments = n_segments
        self.boundaries = boundaries
        self.stages = stages
        self.curvature = curvature
        self.fast = fast
        self.tolerance = tolerance
        self.objective = objective
        self.parameters = parameters
        self.device = device
        self.batch_size = batch_size
        self.precision = precision
        self.work_dir = work_dir
        self.random_state = random_state

    # ---- the recorded run ------------------------------------------------------------------------------------------

    def _begin(self, X) -> None:
        self.__dict__.pop("stage_scores_", None)
        for stage in self.stages or []:
            if not isinstance(stage, Stage):
                raise TypeError(f"stages holds a {type(stage).__name__}; give Stage(fitted_net) for each earlier stage")
        if self.stages and not GivenModel.of(self.estimator).fixed:
            raise ValueError(
                "stages are of a net that was trained after them, so it must be fitted: estimator=FrozenEstimator(net)"
            )
        self._seed = seed_of(self.random_state)

    def _recorder(self, given: GivenModel) -> TrajectoryRecorder:
        optimizer = getattr(given.model, "optimizer", None)
        # plain SGD is followed by its rates alone; P = 1 / (sqrt(v) + eps) of Adam needs v at every checkpoint
        moments = not (isinstance(optimizer, type) and issubclass(optimizer, torch.optim.SGD))
        return TrajectoryRecorder(n_checkpoints=max(6, 2 * self.n_segments), optimizer_state=moments)

    @property
    def saw_all_rows(self) -> bool:  # type: ignore[override]
        """Not the last one of several stages."""
        return not self.stages

    def _stages(self, fitted: Fitted) -> Stages:
        n = len(self._data)
        # alone, a stage saw all rows: none need be recognised, as rows with random transforms cannot
        stages = [*(self.stages or []), Stage(self.estimator_, None if self.stages else np.arange(n))]
        looked = [*(GivenModel.of(stage.estimator) for stage in stages[:-1]), fitted.given]
        runs = [
            self._run(stage, given, number, len(stages), fitted)
            for number, (stage, given) in enumerate(zip(stages, looked, strict=True), start=1)
        ]
        followed = {name for run in runs for name in run.model.parameters}
        for name, value in fitted.model.module.named_parameters():
            value.requires_grad_(name in followed)  # what only an earlier stage trained matters, too
        check_same_module(runs, fitted.model)
        seen = np.zeros(n, dtype=bool)
        for run in runs:
            seen[run.positions] = True
        if not seen.all():
            raise ValueError(
                f"{(~seen).sum()} of {len(seen)} rows were in no stage, the first is row {np.flatnonzero(~seen)[0]}; "
                "pass the rows of the stages only, with the labels that they were trained on (or say which with "
                "Stage(rows=, y=))"
            )
        return Stages(runs)

    def _run(self, stage: Stage, given: GivenModel, number: int, total: int, final: Fitted) -> Run:
        """The run of one stage; final: the last one's model and rows, which are not read again."""
        data = self._data if stage.y is None else replace(self._data, y=stage.y)
        where = f"stage {number}: " if total > 1 else ""
        model, trajectory = self._differentiable(given, len(data)), given.record
        if trajectory is None:
            raise ValueError(where + unrecorded(type(self).__name__, given))
        positions = stage_positions(stage, given, data, where)
        # n of 1/n: what training divided by, also where only some of its rows were given to the fit
        n = len(positions) if trajectory.rows is None else len(trajectory.rows)
        prefix = f"stage {number} " if total > 1 else ""
        parts = segments(trajectory, model.parameters, self.n_segments, self.boundaries, prefix)
        if number == total:
            # settled by these rows already (class weights, tokens a row), which would be read again for it
            rows, model.likelihood = final.rows, final.model.likelihood
        else:
            rows = model.training_rows(*data)
            check_losses(given, model, rows, data)
        if len(positions) < len(rows):
            rows = rows.chosen(positions)
        labels = b"" if stage.y is None else row_fingerprints(stage.y).tobytes()
        return Run(model, rows, positions, labels, trajectory, n, parts, self.curvature, self.fast, self.batch_size)

    # ---- values ----------------------------------------------------------------------------------------------------

    def _prepare(self, fitted: Fitted) -> None:
        stages: Stages = fitted.stages
        for run in stages.runs:
            self._refuse_lowered(run.kind)
        if on_cluster():
            # workers go through the rows of one segment while the factors of another are decomposed here
            overlapped(run.fitting(segment, self._seed, fitted.passes) for _, run, segment in stages.backwards())
        for _, run, segment in stages.backwards():
            run.flow(segment, self._seed, fitted.passes)

    def _back(
        self, fitted: Fitted, direction: Direction, prepare: Callable[[Run, Flow, Direction], Met], lead: tuple = ()
    ) -> Iterator[tuple[int, Run, Segment, Met]]:
        """From the end of training to its start: (stage, run, segment, what its gradients are dotted with).

        direction: at the end of training, by parameter, with the leading axes `lead`. prepare(run, flow, direction)
        makes of the direction at the end of a segment what is yielded.
        """
        way = list(fitted.stages.backwards())
        for number, (stage, run, segment) in enumerate(way, start=1):
            own = {}
            for name, value in run.model.parameters.items():
                found = direction.get(name)
                if found is None or found.shape != (*lead, *value.shape):
                    found = value.new_zeros(*lead, *value.shape)  # a head that was replaced
                own[name] = found
            flow = run.flow(segment, self._seed, fitted.passes)
            yield stage, run, segment, prepare(run, flow, own)
            if number < len(way):
                # u <- F_S(H) u; parameters that this stage did not train are carried to its start as they are
                direction = {**direction, **flow.remaining(own)}
            del flow  # before the next curvature comes

    def _validation_scores(self, fitted: Fitted, asked: Asked) -> Tensor:
        directions, k = asked.gradients(), len(asked.names)
        total = torch.zeros(len(fitted.rows), len(fitted.stages.runs), k, dtype=torch.float64)
        for stage, run, segment, met in self._back(fitted, directions, lambda _, flow, u: flow.gathered(u), (k,)):
            # the objective is in no other part of a shard's name in work_dir: directions tell it from others
            name, compute = fitted.passes.code(met.values()), partial(along_each, run.engine, run.rows, met)
            states = partial(_at_states, run, segment, name, compute)
            for values in fitted.passes.collected(len(run.rows), states):
                total[run.positions, stage] += run.share(segment) * values
        return self._summed(total, asked.shares).T

    def _self_scores(self, fitted: Fitted) -> Tensor:
        return self._summed(-fitted.passes.collect("self", len(fitted.rows), partial(self._own_values, fitted)))

    def _own_values(self, fitted: Fitted, start: int, stop: int) -> Tensor:
        """(stop - start, n_stages) values of the rows for their own loss."""
        total = torch.zeros(stop - start, len(fitted.stages.runs), dtype=torch.float64)
        # <F u, g_i> has the weight in g_i; the loss that is asked about is the row's own, without it
        queries = fitted.rows.unweighted()
        for part, found in in_blocks(stop, portion_size(fitted), partial(self._own_portion, fitted, queries), start):
            total[part.start - start : part.stop - start] = found
        return total

    def _own_portion(self, fitted: Fitted, queries: Rows, part: slice) -> Tensor:
        """`_own_values` of as many rows as are taken back through the training at a time."""
        size = part.stop - part.start
        shape = size, len(fitted.stages.runs)
        total = torch.zeros(shape, dtype=torch.float64, device=exact_device(fitted.model.device))
        direction = at_the_end(fitted, queries, None, part)
        for stage, run, segment, met in self._back(fitted, direction, Run.formed, (size,)):
            # positions rise, so that the stage's rows of this portion are neighbours
            first, last = np.searchsorted(run.positions, [part.start, part.stop])

            def values(batch: slice, run: Run = run, met: dict[str, Tensor] = met) -> Tensor:
                # each row meets its own direction only, (b,): the other b^2 - b pairs are never multiplied out
                factors, own = run.captured(batch, met), run.places[batch] - part.start
                return sum(factors[name].along(each[own]) for name, each in met.items())  # type: ignore[return-value]

            for _ in run.visit(segment):
                for batch, found in run.engine.computed(run.rows, values, first, last):
                    own = run.places[batch] - part.start
                    total[own.to(total.device), stage] += run.share(segment) * exact(found)
        return total.cpu()

    def _blocks(self, fitted: Fitted, queries: Rows, measure: Callable | None) -> Iterator[tuple[slice, slice, Tensor]]:
        stages: Stages = fitted.stages
        n, size = len(fitted.rows), sum(value.numel() for value in fitted.model.parameters.values())
        # few pairs take about a second exactly, which is worth no error
        tolerance = self.tolerance if len(queries) * n * size > EXACT_WORK else 0.0

        def prepare(run: Run, flow: Flow, direction: Direction) -> LowRank:
            # directions times a root by parameter would be no few outer products any more
            if tolerance and isinstance(flow.curvature, EKFAC) and flow.root is None:
                return truncated(flow, flow.coordinates(direction), run.linear, tolerance)
            return LowRank({}, Preconditioned(run.formed(flow, direction)))

        fitted.engine.prepare(queries)
        kept = size
        if tolerance:
            linear, layers = stages.runs[-1].linear, fitted.engine.layers or []
            kept = sum(truncated_size(layer) if layer.name in linear else layer.n_parameters for layer in layers)
        n_segments = sum(len(run.segments) for run in stages.runs)

        def taken_back(part: slice) -> list[tuple[str, LowRank]]:
            direction = at_the_end(fitted, queries, measure, part)
            back = self._back(fitted, direction, prepare, (part.stop - part.start,))
            return [(segment.name, met) for _, _, segment, met in back]

        def values(asked: slice) -> Tensor:
            # all queries go back first, a portion at a time: rows are then passed through once a checkpoint,
            # and not once for every portion
            ready: dict[str, list[LowRank]] = {}
            for _, each in in_blocks(asked.stop, portion_size(fitted), taken_back, asked.start):
                for name, part in each:
                    ready.setdefault(name, []).append(part)
            shape = asked.stop - asked.start, n
            total = torch.zeros(shape, dtype=torch.float64, device=exact_device(fitted.model.device))
            for _, run, segment in stages.backwards():
                parts = ready.pop(segment.name)
                names = set().union(*(part.layers for part in parts))
                joined = Joined(parts)

                def block(batch: slice, run: Run = run, names: set[str] = names, joined: Joined = joined) -> Tensor:
                    return joined.block(run.captured(batch, names))

                for _ in run.visit(segment):
                    for batch, found in run.engine.computed(run.rows, block):
                        total[:, run.places[batch].to(total.device)] += run.share(segment) * found.to(total.device)
                del parts, joined, block  # before those of the next segment are met
            return total

        # of a query: its direction at every segment in float32, and its line of values in float64
        size = max(1, QUERY_BYTES // (4 * kept * n_segments + 8 * n))
        for asked, total in in_blocks(len(queries), size, values):
            yield asked, slice(0, n), total

    def _summed(self, by_stage: Tensor, shares: Sequence[float] = (1.0,)) -> Tensor:
        """(n, ...) sum over stages of (n, n_stages) or (n, n_stages, k)."""
        if self.stages:
            weighted = by_stage.reshape(*by_stage.shape[:2], -1) @ torch.tensor(shares, dtype=torch.float64)
            self.stage_scores_ = weighted.T.numpy()
        return by_stage.sum(1)

    def _own_bytes(self, fitted: Fitted) -> int:
        return max(run.nbytes for run in fitted.stages.runs)


def _at_states(run: Run, segment: Segment, name: str, compute: Callable) -> Iterator[tuple[str, Callable]]:
    """Stages of a pass, one for each state of the segment."""
    return ((f"values {state} {name}", compute) for state in run.visit(segment))
