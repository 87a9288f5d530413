"""Objectives at a trained model: their values there, and their gradients wherever its parameters are moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sktda.devices import exact, in_blocks
from sktda.engine.layers import eval_kernels
from sktda.engine.per_row import PerRow
from sktda.model.base import DifferentiableModel, Inputs, Rows, forward
from sktda.model.likelihood import Likelihood
from sktda.model.reading import count
from sktda.objectives import Predict, Settled, ValidationLoss, Weighted
from sktda.objectives.weighted import needed

Gradient = Callable[[], dict[str, Tensor]]


@dataclass(frozen=True)
class ObjectiveScores:
    """What an attributor found for one objective.

    Parameters
    ----------
    value : float
        Of the trained model on the validation rows, lower = better; the mean over folds where these are cross-fitted.
    scores : ndarray of shape (n_samples,)
        Predicted rise of that value without a row, in its units; higher = keep.
    groups : tuple of two str or None
        For a gap, the group with the larger mean and the one with the smaller.
    """

    value: float
    scores: np.ndarray
    groups: tuple[str, str] | None = None


class Asked:
    """One or several objectives on validation rows, settled at the parameters that the model has now.

    label: (the user's labels (k,)) -> their targets.
    """

    def __init__(
        self, objective: Any, engine: PerRow, rows: Rows, metadata: Mapping[str, Any], label: Callable[[Any], Tensor]
    ) -> None:
        self.engine = engine
        self.rows = rows
        several = isinstance(objective, Weighted)
        named = objective.named if several else Weighted([objective]).named
        self.names = list(named)
        self.shares = objective.shares if several else [1.0]
        model = engine.model
        engine.prepare(rows)
        self.metadata = {name: as_tensor(value, model.device) for name, value in metadata.items()}
        self.predict = Predict(partial(self._outputs, model), model.likelihood, model.linear, label)
        self.groups: list[tuple[str, str] | None] = [None] * len(named)
        self.values: list[float] = []
        # taken when they are asked for: the model may be at a checkpoint then
        self._gradients: list[Gradient] = []
        for position, each in enumerate(named.values()):
            with meeting(model.device):
                self._add(each, position)

    def gradients(self) -> dict[str, Tensor]:
        """(k, ...) by parameter, at the model's present parameters."""
        # (k, ...) keeps objectives apart, so that one pass over the rows gives the values of each
        found = [gradient() for gradient in self._gradients]
        return {name: torch.stack([each[name] for each in found]) for name in found[0]}

    def gradient(self) -> dict[str, Tensor]:
        """Of the weighted sum."""
        return {
            name: torch.einsum("k,k...->...", value.new_tensor(self.shares), value)
            for name, value in self.gradients().items()
        }

    def found(self, scores: np.ndarray) -> dict[str, ObjectiveScores]:
        """By name, from scores (k, n)."""
        parts = zip(self.names, self.values, scores, self.groups, strict=True)
        return {name: ObjectiveScores(value, values, groups) for name, value, values, groups in parts}

    def _outputs(self, model: DifferentiableModel, inputs: Inputs) -> Tensor:
        """Raw outputs, in portions where nothing will be differentiated."""
        with eval_kernels(model.module):
            if torch.is_grad_enabled() or isinstance(inputs, Mapping):  # a graph of all rows is held anyway
                return forward(model.module, inputs)
            found = in_blocks(
                len(inputs), self.engine.batch_size or 1, lambda part: forward(model.module, inputs[part])
            )
            return torch.cat([outputs for _, outputs in found])

    def _add(self, objective: Any, position: int) -> None:
        engine, model = self.engine, self.engine.model
        if getattr(objective, "mean_of_rows", False):
            # a mean of rows streams through the engine in batches, and so does its gradient
            measure = row_measure(objective, model.likelihood)
            self.values.append(float(exact(engine.losses(self.rows, measure)).mean()))
            self._gradients.append(lambda: engine.mean_gradient(self.rows, measure))
            return
        # all rows at once: what is no mean of rows, such as a gap between groups, needs them together
        inputs, targets, _ = self.rows.block(slice(0, len(self.rows)), model.device)
        if not hasattr(objective, "settled"):
            with torch.no_grad():
                value = objective(self.predict, inputs, targets, **self.metadata)
            self.values.append(float(checked(value, differentiable=False)))
            self._gradients.append(partial(self._gradient, objective, inputs, targets))
            return
        with torch.no_grad():
            # what depends on the model, such as the sign of a gap, is that of the trained one at every checkpoint
            settled: Settled = objective.settled(self.predict, inputs, targets, **self.metadata)
        weights = settled.weights.cpu()
        # inputs that the objective made, such as perturbed ones, stand for those that are read
        moved, known = None if settled.X is None else settled.X.cpu(), targets.cpu()
        count = np.flatnonzero(weights.numpy())  # the rows that count; a group or a class may be few

        def read(part: slice | np.ndarray) -> tuple[Inputs, Tensor]:
            rows = count[part]
            return self.rows.read(rows) if moved is None else (moved[rows], known[rows])

        # the engine takes the mean over these rows, and wanted is the weighted sum
        rows = Rows(len(count), read, len(count) * weights[count].to(model.dtype))
        self.groups[position] = settled.groups
        self.values.append(float(exact(engine.losses(rows, settled.measure)).mean()))
        self._gradients.append(lambda: engine.mean_gradient(rows, settled.measure))

    def _gradient(self, objective: Any, inputs: Inputs, targets: Tensor) -> dict[str, Tensor]:
        own = self.engine.model.parameters
        with torch.enable_grad():
            # evaluated anew, with a graph: parameters may have moved since
            value = checked(objective(self.predict, inputs, targets, **self.metadata), differentiable=True)
            found = torch.autograd.grad(value, list(own.values()), allow_unused=True)
        return {name: torch.zeros_like(own[name]) if g is None else g for name, g in zip(own, found, strict=True)}


def checked(value: Any, differentiable: bool) -> Tensor:
    """The value of an objective; TypeError unless it is a 0-d tensor, and one that a gradient can be taken of."""
    if not isinstance(value, Tensor) or value.ndim or (differentiable and not value.requires_grad):
        raise TypeError(
            "the objective must return a 0-d tensor (lower = better) that depends on the model through predict, "
            f"got {value!r}"
        )
    return value


@contextmanager
def meeting(device: torch.device) -> Iterator[None]:
    """In which an objective may compute; ValueError where it brings tensors that are not on the device."""
    try:
        yield
    except RuntimeError as error:
        if "same device" not in str(error):
            raise
        raise ValueError(
            f"the objective has tensors of its own that are not on {device}, where the model's outputs are; send them "
            "there, as with weights.to(outputs.device), or give the attributor device='cpu'"
        ) from error


def as_tensor(value: Any, device: torch.device) -> Any:
    """Numbers and tensors on the device; anything else as a NumPy array."""
    if isinstance(value, Tensor):
        return value.to(device)
    array = np.array(value)  # a copy: pandas gives arrays that cannot be written to, of which torch warns
    return torch.as_tensor(array).to(device) if array.dtype.kind in "biuf" else array


def row_measure(objective: Any, likelihood: Likelihood) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The objective's `per_row` as a function of (outputs, targets); None = the model's loss."""
    per_row = getattr(objective, "per_row", None)
    if per_row is None or isinstance(objective, ValidationLoss):
        return None

    def measure(outputs: Tensor, targets: Tensor) -> Tensor:
        with meeting(outputs.device):
            return per_row(Predict(lambda _: outputs, likelihood), None, targets)

    return measure


def checked_metadata(objective: Any, X_val: Any, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Metadata of the validation rows by name. Raises ValueError if the objective needs more, or a length is wrong."""
    known = {name: value for name, value in (metadata or {}).items() if value is not None}
    missing = sorted(needed(objective) - set(known))
    if missing:
        raise ValueError(
            f"the objective needs metadata of the validation rows that did not come: {', '.join(missing)}; give "
            f"metadata_val={{{missing[0]!r}: ...}}, or Holdout(X_val, y_val, {missing[0]}=...) to a cleaner"
        )
    for name, value in known.items():
        if count(value) != count(X_val):
            raise ValueError(
                f"metadata_val[{name!r}] has {count(value)} entries, and there are {count(X_val)} validation rows"
            )
    return known


def resolve_objective(objective: Any, has_validation: bool) -> Any:
    """ "self", None or a callable objective. Raises ValueError for an unknown one, or "self" with validation rows."""
    if isinstance(objective, type):
        raise TypeError(f"objective={objective.__name__} is a class; give an instance, {objective.__name__}()")
    if objective is None or callable(objective):
        return objective
    if objective == "auto":
        return ValidationLoss() if has_validation else "self"
    if objective == "validation":
        return ValidationLoss()
    if objective == "self":
        if has_validation:
            raise ValueError(
                "objective='self' does not use validation rows, and some were given; use 'validation' or 'auto', or "
                "leave X_val and y_val out"
            )
        return "self"
    raise ValueError(
        f"objective={objective!r} is not one of 'auto', 'self', 'validation', an objective from sktda.objectives, a "
        "callable or None"
    )
