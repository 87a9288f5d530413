"""What the gradient-based methods share: a trained model, an objective, scores and values of single queries.

A concrete method says how a query gradient meets the gradients of training rows (`_validation_scores` and
`_self_scores`, and `_blocks` of `pairs`); everything before and after is here.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from skorch.utils import is_dataset
from torch import Tensor

from sktda.attribution.base import Attributor, Needs, check_validation
from sktda.attribution.cost import estimate_fit
from sktda.attribution.gradients.batches import Batches
from sktda.attribution.gradients.fitted import Fitted, refuse_nan, unrecorded
from sktda.attribution.gradients.objective_gradients import Asked, checked_metadata, resolve_objective
from sktda.attribution.progress import Progress
from sktda.data import check_weights, infer_task, note_columns, plain_target, sliceable
from sktda.devices import moved, resolve_device
from sktda.engine.journal import Journal, Passes, check_folder
from sktda.engine.per_row import PerRow
from sktda.model.adapters import can_differentiate, differentiable
from sktda.model.base import DifferentiableModel, Rows, restrict
from sktda.model.batches import Relabelled, as_dataset
from sktda.model.consistency import check_losses
from sktda.model.contrastive import InBatch, meets
from sktda.model.fingerprint import row_fingerprints
from sktda.model.fitting import check_trainable, train_clone
from sktda.model.given import GivenModel, GivenRows, part_of
from sktda.model.huge import check_squares, naming_huge_cells
from sktda.model.likelihood import Binary
from sktda.model.precision import at_precision
from sktda.model.proxy import DefaultNet, default_net
from sktda.model.reading import count
from sktda.model.recorder import TrajectoryRecorder
from sktda.model.sealed import digest
from sktda.model.settings import plain_modes
from sktda.model.softmax import Categorical, Tokens

SECOND_ORDER = {"precision": [StrOptions({"auto", "float32", "tf32"})]}
"""Constraint of methods by second derivatives, of which bfloat16 leaves no digit."""


class TrainedScores(CallbackSupportMixin, Attributor):
    """Base of the methods that train a model which can be differentiated, or are given it, and score the rows by it."""

    needs = Needs(gradients=True)
    objective: Any
    """What a score is about."""
    parameters: Any = None
    """Patterns of the parameters that take part, for the methods that can do without the others; None = all."""
    within_batches = False
    """Whether the method scores pairs that meet in the loss of a batch, by the batches that they stood in."""
    precision: str = "auto"
    """Of passes through the model, for the methods whose values are not changed by it."""
    resumes_passes = True
    """Whether finished shards of a pass lie in work_dir."""
    saw_all_rows = True
    """Whether the recorded training must have seen every row."""
    on_device: tuple[str, ...] = ()
    """Attributes whose tensors are where the model is: a pickle has them on the processor."""

    _parameter_constraints: dict = {
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "parameters": [str, list, tuple, None],
        "precision": [StrOptions({"auto", "float32", "tf32", "bf16"})],
        "random_state": ["random_state"],
    }

    @with_callbacks
    @plain_modes
    @naming_huge_cells
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        """Train the estimator (unless it is frozen) and score the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As the estimator takes it.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            Multiplies the loss of each row, in training (where the estimator takes weights) and, except for training
            dynamics, in the scores.
        X_val, y_val : array-like, default=None
            Validation rows, as X and y, for methods that use them.
        metadata_val : dict of array-like, default=None
            Metadata of the validation rows for the objective.

        Returns
        -------
        self
        """
        self._validate_params()
        check_folder(self.work_dir)  # before the training
        if not self.needs.validation:
            X_val = y_val = metadata_val = None
        X, X_val = (as_dataset(rows) if targets is None else rows for rows, targets in ((X, y), (X_val, y_val)))
        # a Dataset holds its targets, and where the training has none, validation has none
        check_validation(X_val, X_val if is_dataset(X_val) or y is None else y_val, metadata_val)
        objective = resolve_objective(self.objective, X_val is not None)
        if X_val is not None or not GivenModel.of(self.estimator).fixed:
            checked_metadata(objective, X_val, metadata_val)  # before the training
        for name in ("_live", "scores_", "objectives_", "trajectory_", "n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)  # of an earlier fit
        estimator, X, y = self._checked(X, y, sample_weight)
        self._data = GivenRows(X, y, sample_weight)
        given = GivenModel.of(estimator)
        progress = Progress(self, X, y)
        if given.fixed:
            self.estimator_ = estimator
        else:
            progress.begin("train")
            check_trainable(given, len(self._data))
            recorder = self._callbacks(given)
            self.estimator_ = train_clone(estimator, *self._data, random_state=self.random_state, callbacks=recorder)
        fitted = self._fitted()
        within = partial(at_precision, self.precision, fitted.model.device, fitted.model.dtype)
        fitted.passes = Passes(self._journal(fitted), progress.begin, within)
        if fitted.trajectory is not None:
            self.trajectory_ = fitted.trajectory
        kind = is_classifier(self.estimator_) or isinstance(fitted.model.likelihood, Categorical | Binary | Tokens)
        self.task_ = "classification" if kind else "regression"
        with self._precisely(fitted):
            self._prepare(fitted)
            scores = self._scored(fitted, objective, X_val, y_val, metadata_val)
        if scores is not None:
            self.scores_ = scores.cpu().double().numpy()
            refuse_nan(self.scores_[None])
        # only at the end: a fit that is killed before goes on from its shards
        fitted.passes.journal.clear()
        progress.end()
        # what is asked of it later reports no progress of this fit, and keeps no shards
        fitted.passes = Passes()
        self._live = fitted
        return self

    def __getstate__(self) -> Any:
        # the torch copy of the model is made again from estimator_ when it is needed, by whoever opens a pickle: he may
        # have another card, or none
        state = {name: value for name, value in super().__getstate__().items() if name != "_live"}
        return state | moved({name: state.get(name) for name in self.on_device}, torch.device("cpu"))

    def _journal(self, fitted: Fitted) -> Journal:
        """Where finished shards of this very problem lie: the model, the rows and the method's parameters name it."""
        if self.work_dir is None or not self.resumes_passes:
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
        return 2 * sum(value.nbytes for value in fitted.model.module.state_dict().values()) + self._own_bytes(fitted)

    # ---- the method's own ------------------------------------------------------------------------------------------

    def _begin(self, X) -> None:
        """What a method checks, and draws, before the training."""

    def _prepare(self, fitted: Fitted) -> None:
        """What a method computes once after training, such as a curvature."""

    @abstractmethod
    def _scored(self, fitted: Fitted, objective, X_val, y_val, metadata_val) -> Tensor | None:
        """(n,) scores for the objective; None where there are no validation rows to have some."""

    def _recorder(self, given: GivenModel) -> TrajectoryRecorder | None:
        """What records the training as the method needs it."""
        return None

    def _stages(self, fitted: Fitted) -> Any:
        """Those of the training, where the method follows several."""
        return None

    def _elsewhere(self) -> Fitted | None:
        """The fitted model, where the training rows are not here."""
        return None

    def _own_bytes(self, fitted: Fitted) -> int:
        """Bytes of what the method keeps beside the model, whatever the number of rows."""
        return 0

    def _callbacks(self, given: GivenModel) -> list[TrajectoryRecorder] | None:
        """Callbacks that training needs; only nets take any."""
        recorder = self._recorder(given) if given.can_record else None
        # pairs are each other's negatives: a value needs to know which stood in a batch together
        if recorder is not None and meets(given.model):
            recorder.steps = True
        return None if recorder is None else [recorder]

    # ---- steps -----------------------------------------------------------------------------------------------------

    def _checked(self, X, y, sample_weight):
        """(estimator to train or use, X, y) after the checks that come before training."""
        X, y, estimator = sliceable(X), plain_target(y), self.estimator
        if estimator is None:
            X, task, _, _ = self._validate(X, y, sample_weight)
            estimator, y = default_net(task, **self.needs.net), np.asarray(y)
        else:
            self._check_given(X, y, sample_weight)
        self._begin(X)
        return estimator, X, y

    def _check_given(self, X, y, sample_weight) -> None:
        """Whether the estimator is one for the method, and the rows are some that it can learn."""
        if not can_differentiate(self.estimator):
            differentiable(self.estimator)  # raises and says why
        if self.needs.trajectory and not GivenModel.of(self.estimator).trained_by_steps:
            raise ValueError(unrecorded(type(self).__name__, GivenModel.of(self.estimator)))
        if y is not None:
            if count(X) != count(y):
                raise ValueError(f"X and y have inconsistent numbers of samples: {count(X)} and {count(y)}")
            if hasattr(y, "shape") or isinstance(y, list | tuple):
                infer_task(np.asarray(y)) if np.ndim(y) == 1 else None  # for what it refuses
        if not isinstance(GivenModel.of(self.estimator).model, DefaultNet):  # which standardises it
            check_squares(y)
        if sample_weight is not None:
            check_weights(sample_weight, count(X))
        if hasattr(X, "shape"):
            note_columns(self, X, self.estimator)

    def _ready(self) -> Fitted:
        """The fitted model, at its final parameters."""
        check_is_fitted(self, "estimator_")
        if (live := self.__dict__.get("_live")) is not None:
            return live  # type: ignore[no-any-return]
        fitted = self._fitted()  # it was pickled
        self.__dict__.update(moved({name: getattr(self, name, None) for name in self.on_device}, fitted.model.device))
        return fitted

    def _precisely(self, fitted: Fitted) -> AbstractContextManager[None]:
        """In which the fitted model is passed through at this method's precision."""
        return at_precision(self.precision, fitted.model.device, fitted.model.dtype)

    def _fitted(self) -> Fitted:
        if (elsewhere := self._elsewhere()) is not None:
            return elsewhere
        given, n = GivenModel.of(self.estimator_), len(self._data)
        model = self._differentiable(given, n)
        record = given.record
        if record is None and self.needs.trajectory:
            raise ValueError(unrecorded(type(self).__name__, given))
        if record is not None:
            if self.saw_all_rows:
                record.check_rows(*given.seen(self._data))
            # the n of 1/n is of the training, also where only some of its rows are given
            n = n if record.rows is None else len(record.rows)
        for name, value in model.parameters.items():
            if not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"parameter '{name}' of the trained {type(self.estimator_).__name__} holds NaN or infinity: its "
                    "training diverged; train it with a smaller learning rate, or standardise X and y"
                )
        engine = PerRow(model, self.batch_size)  # first: it refuses modules that mix rows
        rows = model.training_rows(*self._data)
        fitted = Fitted(model, rows, engine, given, n, Passes(), record)
        if isinstance(model.likelihood, InBatch):
            if not self.within_batches:
                raise model.likelihood.meet()
            if self.work_dir is not None:
                raise ValueError(
                    "work_dir keeps passes over single rows, and here pairs meet in batches; leave it None"
                )
            fitted.batches = Batches(given, self._data, rows)
            model.likelihood = replace(model.likelihood, within=True)
            rows = fitted.batches.split(rows)
        check_losses(given, model, rows, self._data)
        fitted.stages = self._stages(fitted)
        return fitted

    def _differentiable(self, given: GivenModel, n: int) -> DifferentiableModel:
        model = differentiable(given, n).to(resolve_device(self.device))
        if self.parameters is not None:
            restrict(model, self.parameters)
        return model

    def _other_rows(self, fitted: Fitted, X, y) -> Rows:
        """Query or validation rows: they count alike, also where the model weighs its training rows by class."""
        if hasattr(X, "shape"):
            note_columns(self, X, self.estimator, reset=False)
        rows = fitted.model.rows(as_dataset(X) if y is None else X, y)
        if fitted.settled is not None:
            fitted.model.likelihood = fitted.settled(fitted.model.likelihood)
        return rows.unweighted() if fitted.batches is None else fitted.batches.split(rows)

    def _asked_about(self, objective, fitted: Fitted, X_val, y_val, metadata) -> Asked:
        """The objective on validation rows, at the model's present parameters."""
        metadata = checked_metadata(objective, X_val, metadata)

        def label(values: Any) -> Tensor:
            # labels become targets as rows do, and rows have an X: the first one again and again
            first, y = part_of(X_val, np.zeros(len(values), dtype=int)), np.asarray(values)
            within = is_dataset(X_val)  # its rows hold labels of their own
            rows = fitted.model.rows(Relabelled(first, y)) if within else fitted.model.rows(first, y)
            return rows.read(slice(0, len(values)))[1]

        return Asked(objective, fitted.engine, self._other_rows(fitted, X_val, y_val), metadata, label)


class SelfScores(TrainedScores):
    """Base of the methods that know no objective but their own: validation rows are accepted and do not enter."""

    objective = "self"

    @abstractmethod
    def _self_scores(self, fitted: Fitted) -> Tensor:
        """(n,) higher = keep."""

    def _scored(self, fitted: Fitted, objective, X_val, y_val, metadata_val) -> Tensor:
        return self._self_scores(fitted)
