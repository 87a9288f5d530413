"""SGD-influence: the recursion of a recorded run of SGD, or of Adam, linearised at every step (Hara et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from sktda.attribution.base import Needs
from sktda.attribution.gradients.base import SECOND_ORDER
from sktda.attribution.gradients.deletion import Deletion
from sktda.attribution.gradients.fitted import Fitted, at_the_end
from sktda.attribution.gradients.objective_gradients import Asked
from sktda.attribution.gradients.pairs import GradientAttributor
from sktda.devices import exact, exact_device, in_blocks
from sktda.engine.differential import portion
from sktda.engine.functional import Direction
from sktda.engine.optimizer_steps import KINDS
from sktda.engine.replay import Batch, Replay
from sktda.model.base import Rows, flatten, flatten_each, unflatten
from sktda.model.given import GivenModel
from sktda.model.recorder import TrajectoryRecorder

LINEARISED = ("SGD", *KINDS)


class SGDInfluence(GradientAttributor, Deletion):
    """Predicted rise of the objective when a row is removed from every batch that held it, in loss units.

    The derivative of the whole run by the weight of a row, exactly: from the gradient of the objective u at the final
    parameters back to the first step, for SGD u <- u - eta_t H_t u and value_i += (eta_t / B) <u, g_i> wherever row i
    was in the batch of B rows. Momentum (Nesterov's too), the moments of Adam, AdamW, NAdam, RMSprop and Adagrad, their
    bias corrections and epsilons, weight decay, schedules, parameter groups and clipping by norm are parts of it. One
    product with a batch's Hessian per step: for small models, and as the reference for faster methods. Self-influence
    (no validation rows) goes back once per row.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net trained by one of these optimisers, or a Pipeline or FrozenEstimator of one. A net is cloned and
        trained with a TrajectoryRecorder, unless it has one; the recorder must keep steps=True (optimizer_state is not
        needed: moments are computed again). None = softmax or linear regression, trained by SGD.
    objective : {"auto", "self", "validation"}, objective, callable or None, default="auto"
        "auto" is "validation" where validation rows are given, else "self"; None prepares `attribute` only.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or "auto", default="auto"
        Rows of a step at a time; changes memory and speed, not the result. "auto" = what fits.
    precision : {"auto", "float32", "tf32"}, default="auto"
        Of passes through the net. "auto" = as torch is set; "float32": never TF32; "tf32": products in TF32, on CUDA.
        Second derivatives would be rounding in bfloat16.
    work_dir : path-like or None, default=None
        Folder in which the state of a long `fit` is kept until it ends: a fit that was killed and is started again
        (with the same rows, and the same trained model or `random_state`) goes on where it was. None = off.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep. Not there with objective=None.
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
        In `fit`, for a model without a recorded run with steps=True or trained by another optimiser, rows other than
        all that it was trained on, gradients that were clipped by value or scaled by a number of the user's own at each
        step, an optimiser that had made steps before, and a run that cannot be gone through again (dropout, batch
        normalisation) unless it is one of SGD and every step a recorded checkpoint.

    Notes
    -----
    Source: Hara et al. 2019 (arXiv:1906.08473), algorithm 1, with all that is not plain SGD added. Parameters between
    two checkpoints are computed again, which takes the time of a training; up to 1 GiB of them (with moments) are held
    at a time, besides one vector per query and moment. Gradients are taken in eval mode.

    A derivative says what a small change of a row's weight does. Adam divides a gradient by its own size: a parameter
    that one row alone moves goes as far with a little less of that row, and does not move at all without it. Where
    second moments are 0, no gradient having come, the derivative is that by epsilon alone.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktda.attribution import SGDInfluence
    >>> X, y = load_iris(return_X_y=True)
    >>> y[0] = 2  # it is 0
    >>> scores = SGDInfluence(random_state=0).fit(X[5:], y[5:], X_val=X[:5], y_val=[0] * 5).scores_
    >>> scores.shape
    (145,)
    """

    _parameter_constraints: dict = {**GradientAttributor._parameter_constraints, **SECOND_ORDER}

    needs = Needs(validation=True, gradients=True, trajectory=True, net={"optimizer": "sgd", "hidden": False})

    def __init__(
        self,
        estimator=None,
        *,
        objective="auto",
        device="auto",
        batch_size="auto",
        precision="auto",
        work_dir=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.objective = objective
        self.device = device
        self.batch_size = batch_size
        self.precision = precision
        self.work_dir = work_dir
        self.random_state = random_state

    def _recorder(self, given: GivenModel) -> TrajectoryRecorder:
        return TrajectoryRecorder(steps=True)

    def _replay(self, fitted: Fitted) -> Replay:
        """The run, once it is one that can be linearised."""
        trajectory = fitted.trajectory
        assert trajectory is not None
        if trajectory.optimizer not in LINEARISED:
            raise ValueError(
                f"SGDInfluence differentiates steps of {', '.join(LINEARISED)}, and this net was trained with "
                f"{trajectory.optimizer}; train it with one of these, or use TracIn"
            )
        if any(group.get("maximize") for group in trajectory.groups):
            raise ValueError("SGDInfluence follows falling losses, and this optimiser has maximize=True")
        given = fitted.given
        return Replay.of(fitted.engine, fitted.rows, trajectory, given.net, *given.seen(self._data))

    # ---- values ----------------------------------------------------------------------------------------------------

    def _validation_scores(self, fitted: Fitted, asked: Asked) -> Tensor:
        directions = asked.gradients()
        name = f"back {fitted.passes.code(directions.values())}"
        return self._back(fitted, self._replay(fitted), directions, name)

    def _self_scores(self, fitted: Fitted) -> Tensor:
        replay, queries = self._replay(fitted), fitted.rows.unweighted()  # a row's own loss, without its weight

        def values(part: slice) -> Tensor:
            name, v = f"self {part.start}-{part.stop}", at_the_end(fitted, queries, None, part)
            return self._back(fitted, replay, v, name, part)

        size = self._portion(fitted, replay)
        return -torch.cat([found for _, found in in_blocks(len(queries), size, values)])

    def _blocks(self, fitted: Fitted, queries: Rows, measure: Callable | None) -> Iterator[tuple[slice, slice, Tensor]]:
        replay = self._replay(fitted)

        def values(part: slice) -> Tensor:
            return self._back(fitted, replay, at_the_end(fitted, queries, measure, part))

        size = self._portion(fitted, replay)
        for part, found in in_blocks(len(queries), size, values):
            yield part, slice(0, len(fitted.rows)), found

    def _portion(self, fitted: Fitted, replay: Replay) -> int:
        """How many queries go back at a time: each is as many vectors as there are moments, and one more."""
        return max(1, portion(fitted.engine, fitted.rows, by_products=True) // max(1, len(replay.steps.memory)))

    def _back(
        self,
        fitted: Fitted,
        replay: Replay,
        directions: Direction,
        name: str | None = None,
        own: slice | None = None,
    ) -> Tensor:
        """(k, n) values of k directions at the end of training; with `own` (k,), of the rows there, each for itself."""
        u = flatten_each(directions, replay.shapes)
        k, place = len(u), exact_device(fitted.model.device)
        total = torch.zeros(k, *(() if own else (len(fitted.rows),)), dtype=torch.float64, device=place)
        # the objective sees the final parameters alone: its slopes by the last moments are 0
        state = {"total": total, "parameters": u, **{name: torch.zeros_like(u) for name in replay.steps.memory}}
        # of a row that was given twice one copy stands for both in the batches
        asked = None if own is None else torch.from_numpy(replay.copies[own]).to(place)
        segments = list(reversed(replay.segments()))

        def add(start: int, stop: int) -> None:
            for segment in segments[start:stop]:
                for batch in replay.backwards(segment.start, segment.stop):
                    self._step_back(replay, batch, state, asked)

        try:
            if name is None:
                add(0, len(segments))
            else:
                fitted.passes.accumulate(name, len(segments), add, state, size=1)
        finally:
            replay.finish()
        return state["total"] if own else state["total"][:, replay.copies]

    def _step_back(self, replay: Replay, batch: Batch, state: dict[str, Tensor], asked: Tensor | None) -> None:
        """Takes the derivatives by parameters and moments (k, p) back over one step."""
        # chain rule through the optimiser: slopes by where the step began, and by the gradient that it got
        slopes = replay.linear(batch).back(state)
        # back through the clipping: slopes by the gradient of the batch's loss
        met = replay.rescaled(batch, slopes.pop("gradient"))
        # <met, g_i> / B of each row, and H_B met: the gradient moves with the parameters, too
        dots, moved = replay.products(batch, met)
        state |= slopes
        state["parameters"] += moved
        dots, places = exact(dots), replay.places[batch.step]
        if asked is None:
            # met is -eta u (SGD): minus turns what the row did into what its removal does. Rows may be in a batch
            # several times, which index_add_ adds up
            state["total"].index_add_(1, places, dots.T, alpha=-1)
        else:
            # (rows, k): of row i only the direction that is its own
            state["total"] -= (dots * (places[:, None] == asked)).sum(0)

    # ---- deletion --------------------------------------------------------------------------------------------------

    def _change(self, fitted: Fitted, removed: np.ndarray) -> Mapping[str, Tensor]:
        replay = self._replay(fitted)
        gone = np.zeros(len(fitted.rows), dtype=bool)
        gone[replay.copies[removed]] = True
        start = torch.zeros_like(flatten(fitted.model.parameters)[None], requires_grad=False)
        changes = {"parameters": start, **dict.fromkeys(replay.steps.memory, start)}
        try:
            for batch in replay.forwards():
                # d gradient = H_B d theta - g_S / B: rows leave the batch, which is divided by B as before
                slope = replay.products(batch, changes["parameters"])[1] - flatten(replay.gradient(batch, gone))
                inputs = {**changes, "gradient": replay.rescaled(batch, slope)}
                changes |= replay.linear(batch).forward(inputs)
        finally:
            replay.finish()
        return unflatten(changes["parameters"][0], replay.shapes)
