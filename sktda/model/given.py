"""What the user gave, looked into once: the estimator with what stands in it, and the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from torch import nn
from torch.utils.data import Dataset, Subset

from sktda.data import transformed
from sktda.model import linear, perceptron, proxy, skorch_net
from sktda.model.reading import count
from sktda.model.recorder import TrajectoryRecorder
from sktda.model.trajectory import Trajectory

KINDS: tuple[ModuleType, ...] = (linear, perceptron, skorch_net, proxy)


@dataclass(frozen=True, eq=False)
class GivenRows:
    """X, y and sample_weight as the user gave them; y and the weights may be None. `fit(*rows)` takes them apart.

    elsewhere: of an attributor whose training rows are not here; X has the shape of none of them.
    """

    X: Any
    y: Any = None
    sample_weight: Any = None
    elsewhere: bool = False

    def __len__(self) -> int:
        return count(self.X)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.X, self.y, self.sample_weight))

    def take(self, positions: np.ndarray) -> GivenRows:
        """The rows at these positions, in the types they came in."""
        weight = None if self.sample_weight is None else np.asarray(self.sample_weight)[positions]
        return GivenRows(part_of(self.X, positions), part_of(self.y, positions), weight)


def part_of(data: Any, positions: np.ndarray) -> Any:
    """These rows of an array, a DataFrame, a list, a torch Dataset, or a dict of them; None of None."""
    if data is None:
        return None
    if isinstance(data, Mapping):
        return {name: part_of(value, positions) for name, value in data.items()}
    if isinstance(data, Dataset):
        return Subset(data, positions.tolist())
    return _safe_indexing(data, positions)


@dataclass(frozen=True, eq=False)
class GivenModel:
    """An estimator and what stands in it, through Pipelines and FrozenEstimators. `of` makes one.

    transformers: what stands before the model, as pipelines. frozen: whether `fit` leaves the model as it is; fixed:
    whether it leaves the transformers, too. Fitting may put other objects into the estimator: look again after it.
    """

    estimator: Any
    transformers: list[Pipeline]
    model: Any
    frozen: bool
    fixed: bool

    @classmethod
    def of(cls, estimator: Any) -> GivenModel:
        """Look into an estimator; one that was looked into is returned as it is."""
        if isinstance(estimator, GivenModel):
            return estimator
        before: list[Pipeline] = []
        model, frozen = estimator, False
        while isinstance(model, FrozenEstimator | Pipeline):
            if isinstance(model, Pipeline):
                if len(model.steps) > 1:
                    before.append(model[:-1])
                model = model.steps[-1][1]
            else:
                frozen, model = True, model.estimator
        return cls(estimator, before, model, frozen, isinstance(estimator, FrozenEstimator))

    @property
    def name(self) -> str:
        """Of the model's class."""
        return type(self.model).__name__

    @property
    def kind(self) -> ModuleType:
        """The module that differentiates such models; TypeError if there is none."""
        for kind in KINDS:
            if isinstance(self.model, kind.TYPES):
                return kind
        if isinstance(self.model, nn.Module):
            raise TypeError(
                f"{self.name} is a torch module and no estimator. If it is trained, pass TorchModel(module, criterion) "
                "with the criterion that it was trained with; to have it trained, a skorch net of it"
            )
        allowed = ", ".join(each.__name__ for kind in (linear, perceptron) for each in kind.TYPES)
        raise TypeError(
            f"{self.name} cannot be differentiated; allowed are skorch nets, {allowed}, and a Pipeline or "
            "FrozenEstimator of one. Use one of these to score the rows (a cheaper one than the final model is usual); "
            "for trees there are BoostIn and TreeKernel"
        )

    @property
    def trained_by_steps(self) -> bool:
        """Whether training it is a run of steps that a TrajectoryRecorder can follow."""
        return isinstance(self.model, (*skorch_net.TYPES, *proxy.TYPES))

    @property
    def can_record(self) -> bool:
        """Whether training it takes callbacks, and it has no TrajectoryRecorder yet."""
        if self.frozen or not self.trained_by_steps:
            return False
        if isinstance(self.model, proxy.TYPES):
            return not self.model.callbacks
        given = self.model.callbacks if isinstance(self.model.callbacks, list | tuple) else []
        return not any(isinstance(each[1] if isinstance(each, tuple) else each, TrajectoryRecorder) for each in given)

    # ---- of a fitted one -------------------------------------------------------------------------------------------

    @property
    def net(self) -> Any:
        """The skorch net inside; None where there is none. It carries callbacks such as a recorder."""
        if isinstance(self.model, proxy.TYPES):
            return self.model.net_
        return self.model if isinstance(self.model, skorch_net.TYPES) else None

    @cached_property
    def record(self) -> Trajectory | None:
        """The record of the training, checked once to be that of these parameters; see `skorch_net.recorded_run`."""
        return skorch_net.recorded_run(self.net)

    def transformed(self, X: Any) -> Any:
        """X as the model's `fit` receives it."""
        return through(self.transformers, X)

    def seen(self, rows: GivenRows) -> tuple[Any, Any]:
        """(X, y) as the net's `fit` receives them, of which a recorder's fingerprints are."""
        X = self.transformed(rows.X)
        if isinstance(self.model, proxy.TYPES):
            return self.model.dataset(X, rows.y, rows.sample_weight), None
        return X, rows.y


def through(transformers: list[Pipeline], X: Any) -> Any:
    """X after one transformer after the other."""
    for each in transformers:
        X = transformed(each, X)
    return X


def frozen(model: Any) -> FrozenEstimator:
    """The model as one that fit leaves as it is."""
    return model if isinstance(model, FrozenEstimator) else FrozenEstimator(model)
