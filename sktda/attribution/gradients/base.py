"""What the gradient-based methods share: a trained model, an objective, scores and values of single queries.

A concrete method says how a query gradient meets the gradients of training rows (`_validation_scores`,
`_self_scores`, `_blocks`); everything before and after is here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import clone, is_classifier
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sktda.attribution.base import Attributor
from sktda.attribution.cost import estimate_fit
from sktda.attribution.gradients.objective_gradients import Asked, ObjectiveScores, row_measure
from sktda.attribution.progress import Progress
from sktda.data import (
    check_weights,
    encode_target,
    infer_task,
    note_columns,
    plain_target,
    resolve_device,
    sliceable,
)
from sktda.engine.journal import Journal, Passes, digest
from sktda.engine.per_row import PerRow
from sktda.model.adapters import can_differentiate, differentiable, peel, trained_net
from sktda.model.base import DifferentiableModel, Rows, restrict
from sktda.model.fingerprint import row_fingerprints
from sktda.model.fitting import check_trainable, train_clone, trained_by_steps
from sktda.model.likelihood import Binary, Categorical
from sktda.model.proxy import default_net
from sktda.model.reading import count
from sktda.model.recorder import TrajectoryRecorder
from sktda.model.skorch_net import recorded_run
from sktda.model.trajectory import Trajectory
from sktda.objectives import ValidationLoss, needed

FOLDS = 5  # of the cross-fitting that stands in for validation rows


@dataclass
class Fitted:
    """A trained model with its training rows, ready for the engine."""

    model: DifferentiableModel
    rows: Rows
    engine: PerRow
    trajectory: Trajectory | None
    n: int
    """Rows that the model was trained on: the n of 1/n."""
    passes: Passes

    @property
    def records(self) -> list[str | bytes]:
        """What tells the recorded runs, and the rows in them, from others."""
        return [] if self.trajectory is None else [self.trajectory.identity]


class GradientScores(CallbackSupportMixin, Attributor):
    """Base of the methods that differentiate a model; see the concrete classes."""

    uses_validation = True
    needs_gradients = True
    """Whether the estimator must be one that the library can differentiate."""
    needs_trajectory = False
    """Whether its training must have been recorded."""
    parameters: Any = None
    """Patterns of the parameters that take part, for the methods that can do without the others; None = all."""
    default_net_settings: Mapping[str, Any] = {}
    """Arguments of `default_net` for this method, such as an optimiser that it is derived for."""

    _parameter_constraints: dict = {
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "parameters": [str, list, tuple, None],
        "random_state": ["random_state"],
    }

    @with_callbacks
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        """Train the estimator (unless it is frozen) and score the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As the estimator takes it.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            Multiplies the loss of each row, in training (where the estimator takes weights) and in the scores.
        X_val, y_val : array-like, default=None
            Validation rows, as X and y.
        metadata_val : dict of array-like, default=None
            Metadata of the validation rows for the objective.

        Returns
        -------
        self
        """
        self._validate_params()
        if (X_val is None) != (y_val is None):
            missing, given = ("X_val", "y_val") if X_val is None else ("y_val", "X_val")
            raise ValueError(f"{given} came without {missing}; validation rows need both")
        if metadata_val and X_val is None:
            raise ValueError("metadata_val came without X_val and y_val, the validation rows that it belongs to")
        objective = resolve_objective(self.objective, X_val is not None)
        if X_val is not None or not isinstance(self.estimator, FrozenEstimator):
            checked_metadata(objective, X_val, metadata_val)  # before the training
        for name in (
            "_live",
            "scores_",
            "objectives_",
            "trajectory_",
            "n_features_in_",
            "feature_names_in_",
        ):  # of an earlier fit
            self.__dict__.pop(name, None)
        estimator, X, y = self._checked(X, y, sample_weight)
        self._data = X, y, sample_weight
        progress = Progress(self, X, y)
        if isinstance(estimator, FrozenEstimator):
            self.estimator_ = estimator
        else:
            progress.begin("train")
            check_trainable(estimator, count(X))
            self.estimator_ = train_clone(
                estimator, X, y, sample_weight, self.random_state, callbacks=self._recorder(estimator)
            )
        fitted = self._fitted()
        fitted.passes = Passes(self._journal(fitted), progress.begin)
        if fitted.trajectory is not None:
            self.trajectory_ = fitted.trajectory
        kind = is_classifier(self.estimator_) or isinstance(fitted.model.likelihood, Categorical | Binary)
        self.task_ = "classification" if kind else "regression"
        self._prepare(fitted)
        scores = None
        if objective == "self":
            scores = self._self_scores(fitted)
        elif objective is not None and X_val is not None:
            asked = self._asked_about(objective, fitted, X_val, y_val, metadata_val)
            each = self._validation_scores(fitted, asked).double().cpu()
            self.objectives_ = asked.found(each.numpy())
            scores = torch.tensor(asked.shares, dtype=torch.float64) @ each
        elif objective is not None and not isinstance(estimator, FrozenEstimator):
            progress.begin("cross-fit")
            scores = self._cross_fitted(X, y, sample_weight)
        if scores is not None:
            self.scores_ = scores.double().cpu().numpy()
            refuse_nan(self.scores_[None])
        fitted.passes.journal.clear()
        progress.end()
        fitted.passes = Passes()
        self._live = fitted
        return self

    def __getstate__(self) -> Any:
        # the torch copy of the model is made again from estimator_ when it is needed
        return {name: value for name, value in super().__getstate__().items() if name != "_live"}

    def _journal(self, fitted: Fitted) -> Journal:
        """Where finished shards of this very problem lie: the model, the rows and the method's parameters name it."""
        if self.work_dir is None:
            return Journal()
        X, y, sample_weight = self._data
        # the objective is in the digest of a direction, which names its pass; its repr may change with the process
        left_out = {"estimator", "stages", "work_dir", "device", "objective"}
        params = {name: value for name, value in self.get_params(deep=False).items() if name not in left_out}
        parts: list[Any] = [
            type(self).__name__,
            repr(sorted(params.items())),
            *fitted.model.module.state_dict().values(),
        ]
        parts += fitted.records
        parts.append(row_fingerprints(X, y).tobytes())
        parts.append(b"" if sample_weight is None else np.asarray(sample_weight, dtype=float).tobytes())
        return Journal(self.work_dir, digest(parts))

    def estimate(self, X, y, X_val=None, y_val=None):
        """What `fit` will cost, measured on a few batches; around a FrozenEstimator only.

        Parameters
        ----------
        X, y, X_val, y_val
            As for `fit`.

        Returns
        -------
        cost : dict
            "rows"; "seconds" that scoring will take; "bytes" beyond the data: parameters, curvature, the activations of
            a batch, and the scores.
        """
        return estimate_fit(self, X, y, {"X_val": X_val, "y_val": y_val})

    def _fixed_bytes(self, fitted: Fitted) -> int:
        """Bytes of what a fit holds whatever the number of rows."""
        return 2 * sum(value.nbytes for value in fitted.model.module.state_dict().values())

    # ---- the method's own ------------------------------------------------------------------------------------------

    def _prepare(self, fitted: Fitted) -> None:
        """What a method computes once after training, such as a curvature."""

    @abstractmethod
    def _validation_scores(self, fitted: Fitted, asked: Asked) -> Tensor:
        """(k, n) values for the k objectives that are asked about."""

    @abstractmethod
    def _self_scores(self, fitted: Fitted) -> Tensor:
        """(n,) minus the value of each row for its own loss."""

    def _recorder(self, estimator: Any) -> list[TrajectoryRecorder] | None:
        """Callbacks that training needs; only nets take any."""
        return None

    # ---- steps -----------------------------------------------------------------------------------------------------

    def _checked(self, X, y, sample_weight):
        """(estimator to train or use, X, y) after the checks that come before training."""
        X, y = sliceable(X), plain_target(y)
        if self.estimator is None:
            X, task, _, _ = self._validate(X, y, sample_weight)
            return default_net(task, **self.default_net_settings), X, np.asarray(y)
        if not can_differentiate(self.estimator):
            differentiable(self.estimator)  # raises and says why
        if self.needs_trajectory and not trained_by_steps(self.estimator):
            raise ValueError(unrecorded(type(self).__name__, self.estimator))
        if y is not None:
            if count(X) != count(y):
                raise ValueError(f"X and y have inconsistent numbers of samples: {count(X)} and {count(y)}")
            if hasattr(y, "shape") or isinstance(y, list | tuple):
                infer_task(np.asarray(y)) if np.ndim(y) == 1 else None
        if sample_weight is not None:
            check_weights(sample_weight, count(X))
        if hasattr(X, "shape"):
            note_columns(self, X, self.estimator)
        return self.estimator, X, y

    def _ready(self) -> Fitted:
        """The fitted model, at its final parameters."""
        check_is_fitted(self, "estimator_")
        return self.__dict__.get("_live") or self._fitted()

    def _fitted(self) -> Fitted:
        X, y, sample_weight = self._data
        model = self._differentiable(self.estimator_, count(X))
        net, X_net, y_net = trained_net(self.estimator_, X, y, sample_weight)
        trajectory = recorded_run(net)
        if trajectory is None and self.needs_trajectory:
            raise ValueError(unrecorded(type(self).__name__, self.estimator_))
        n = count(X)
        if trajectory is not None:
            trajectory.check_final(model.module)
            self._check_rows(trajectory, X_net, y_net)
            n = n if trajectory.rows is None else len(trajectory.rows)
        for name, value in model.parameters.items():
            if not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"parameter '{name}' of the trained {type(self.estimator_).__name__} holds NaN or infinity: its "
                    "training diverged; train it with a smaller learning rate, or standardise X and y"
                )
        engine = PerRow(model, self.batch_size)  # first: it refuses modules that mix rows
        return Fitted(model, model.rows(X, y, sample_weight), engine, trajectory, n, Passes())

    def _differentiable(self, estimator: Any, n: int) -> DifferentiableModel:
        model = differentiable(estimator, n).to(resolve_device(self.device))
        if self.parameters is not None:
            restrict(model, self.parameters)
        return model

    def _check_rows(self, trajectory: Trajectory, X: Any, y: Any) -> None:
        """Raise ValueError unless the trajectory saw these rows, as its net's `fit` receives them."""
        trajectory.check_rows(X, y)

    def _other_rows(self, fitted: Fitted, X, y) -> Rows:
        """Query or validation rows: they count alike, also where the model weighs its training rows by class."""
        if hasattr(X, "shape"):
            note_columns(self, X, self.estimator, reset=False)
        rows = fitted.model.rows(X, y)
        return rows.unweighted()

    def _asked_about(self, objective, fitted: Fitted, X_val, y_val, metadata) -> Asked:
        """The objective on validation rows, at the model's present parameters."""
        metadata = checked_metadata(objective, X_val, metadata)

        def label(values: Any) -> Tensor:
            return fitted.model.rows(part_of(X_val, np.zeros(len(values), dtype=int)), np.asarray(values)).read(
                slice(0, len(values))
            )[1]

        return Asked(objective, fitted.engine, self._other_rows(fitted, X_val, y_val), metadata, label)

    def _cross_fitted(self, X, y, sample_weight) -> Tensor:
        """Mean over folds of the scores that a row gets with the other folds' rows as validation rows."""
        n = count(X)
        random = check_random_state(self.random_state).randint(2**31 - 1)
        splitter: Any = KFold(min(FOLDS, n), shuffle=True, random_state=random)
        codes = np.zeros(n)
        if self.task_ == "classification" and np.size(y) == n:
            codes = encode_target(y, "classification")[1]
            rarest = np.unique(codes, return_counts=True)[1].min()
            if rarest >= 2:
                splitter = StratifiedKFold(min(FOLDS, rarest), shuffle=True, random_state=random)
        total, times = np.zeros(n), np.zeros(n)
        folds: list[dict[str, ObjectiveScores]] = []
        for train, held in splitter.split(np.zeros(n), codes):
            weight = None if sample_weight is None else np.asarray(sample_weight)[train]
            part = (
                clone(self)
                .set_callbacks()
                .fit(
                    part_of(X, train),
                    part_of(y, train),
                    weight,
                    X_val=part_of(X, held),
                    y_val=part_of(y, held),
                )
            )
            total[train] += part.scores_
            times[train] += 1
            by_name = {name: np.zeros(n) for name in part.objectives_}
            for name, found in part.objectives_.items():
                by_name[name][train] = found.scores
            folds.append({name: replace(found, scores=by_name[name]) for name, found in part.objectives_.items()})
        self.objectives_ = {
            name: ObjectiveScores(
                float(np.mean([fold[name].value for fold in folds])), sum(fold[name].scores for fold in folds) / times
            )
            for name in folds[0]
        }
        return torch.from_numpy(total / times)


class SelfScores(GradientScores):
    """Base of the methods that know no objective but their own: validation rows are accepted and do not enter."""

    uses_validation = False
    objective = "self"

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        """Train the estimator (unless it is frozen) and score the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As the estimator takes it.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            Multiplies the loss of each row, in training (where the estimator takes weights) and, except for
            training dynamics, in the scores.
        X_val, y_val, metadata_val : default=None
            Not used.

        Returns
        -------
        self
        """
        return super().fit(X, y, sample_weight)

    def _validation_scores(self, fitted: Fitted, asked: Asked) -> Tensor:
        raise NotImplementedError  # `fit` passes no validation rows on


class GradientAttributor(GradientScores):
    """Those of them that also have a value for every pair of a query and a training row."""

    def attribute(self, X_query, y_query):
        """Predicted rise of each query's loss when one training row is removed.

        Parameters
        ----------
        X_query : array-like of shape (n_query, ...)
        y_query : array-like of shape (n_query,)

        Returns
        -------
        values : ndarray of shape (n_query, n_samples)
            In units of the loss (of the objective's `per_row` where it has one), 1/n included; positive = the row
            helps that query.
        """
        fitted, queries = self._asked(X_query, y_query)
        values = np.empty((len(queries), len(fitted.rows)))
        for asked, rows, block in self._blocks(fitted, queries, row_measure(self.objective, fitted.model.likelihood)):
            values[asked, rows] = block.double().cpu().numpy()
        refuse_nan(values)
        return values

    def top_k(self, X_query, y_query, k=10, *, harmful=False):
        """The k training rows that help each query most (or harm it most), without the whole matrix of values.

        Parameters
        ----------
        X_query : array-like of shape (n_query, ...)
        y_query : array-like of shape (n_query,)
        k : int, default=10
            At most the number of training rows.
        harmful : bool, default=False
            The lowest values in place of the highest.

        Returns
        -------
        rows : ndarray of shape (n_query, k)
            Positions in the training rows, the strongest first.
        values : ndarray of shape (n_query, k)
        """
        fitted, queries = self._asked(X_query, y_query)
        if not 1 <= k <= len(fitted.rows):
            raise ValueError(f"k={k} is not between 1 and the number of training rows, {len(fitted.rows)}")
        best = torch.full((len(queries), k), -torch.inf, dtype=torch.float64)
        rows = torch.full((len(queries), k), -1)
        for asked, part, block in self._blocks(fitted, queries, row_measure(self.objective, fitted.model.likelihood)):
            block = block.double().cpu() * (-1 if harmful else 1)
            values = torch.cat([best[asked], block], dim=1)
            positions = torch.cat([rows[asked], torch.arange(part.start, part.stop).expand(len(block), -1)], dim=1)
            best[asked], chosen = values.topk(k, dim=1)
            rows[asked] = positions.gather(1, chosen)
        return rows.numpy(), (-best if harmful else best).numpy()

    def _asked(self, X_query, y_query):
        fitted = self._ready()
        return fitted, self._other_rows(fitted, X_query, y_query)

    @abstractmethod
    def _blocks(self, fitted: Fitted, queries: Rows, measure: Callable | None) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yields (queries, training rows, values of these pairs) until all pairs are covered."""


def unrecorded(method: str, estimator: Any) -> str:
    """What to say of an estimator without the recorded run that the method needs."""
    return (
        f"{method} follows a recorded training run, and this {type(peel(estimator)[1]).__name__} has none; train a "
        "skorch net with a TrajectoryRecorder among its callbacks (with what the method's docstring says it must "
        "keep), or use Influence"
    )


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


def part_of(data: Any, rows: np.ndarray) -> Any:
    """These rows of an array, a DataFrame, a list, or a dict of arrays."""
    if isinstance(data, Mapping):
        return {name: part_of(value, rows) for name, value in data.items()}
    return _safe_indexing(data, rows)


def refuse_nan(values: np.ndarray) -> None:
    """ValueError naming the first training row or query whose values (n_query, n) are not finite."""
    wrong = ~np.isfinite(values)
    if not wrong.any():
        return
    queries = np.flatnonzero(wrong.all(axis=1))
    if not len(queries):
        cause = f"training row {np.flatnonzero(wrong.any(axis=0))[0]}"
    else:
        cause = f"query {queries[0]}" if len(values) > 1 else "the query or validation rows"
    raise ValueError(
        f"{int(wrong.sum())} of {wrong.size} values are NaN or infinite because of {cause}: X or y holds NaN or "
        "infinity there, or a number too large for the model's precision; impute, scale or drop it"
    )
