"""Strategies of CoresetSelector that see the rows at the last linear layer of a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import _num_samples

from sktda.cleaning.scoring import rows_of
from sktda.cleaning.strategies.base import Candidates, CoresetStrategy
from sktda.data import n_columns
from sktda.devices import resolve_device
from sktda.engine.last_layer import INSTEAD, LastLayer, last_layer
from sktda.engine.unit_rows import UnitRows
from sktda.model.adapters import can_differentiate, differentiable
from sktda.model.base import DifferentiableModel
from sktda.model.fitting import check_trainable, train_clone
from sktda.model.proxy import default_net
from sktda.room import check_held


class ModelStrategy(CoresetStrategy):
    """Base of these strategies."""

    def __init__(self, estimator=None, *, device="auto"):
        self.estimator = estimator
        self.device = device

    @property
    def reads_numbers(self) -> bool:  # type: ignore[override]
        """A model of the user's reads X itself; the scaled rows and the default net need numbers."""
        return self.estimator is None

    def _features(self, candidates: Candidates) -> Callable[[np.ndarray], torch.Tensor]:
        """Function from positions to features (len, d): at the model's last layer, else the scaled rows of X."""
        if self.estimator is None:
            n_bytes = 4.0 * np.bincount(candidates.codes).max() * n_columns(candidates.numbers)  # of the largest class
            check_held(f"CoresetSelector by {type(self).__name__}", n_bytes, INSTEAD)
            rows = UnitRows(candidates.numbers)
            return partial(rows.block, dtype=torch.float32, device=resolve_device(self.device))
        features = self._last_layer(candidates).features
        return lambda rows: features[torch.from_numpy(rows).to(features.device)]

    def _last_layer(self, candidates: Candidates) -> LastLayer:
        """All rows at the last layer of the model, which is trained unless it is frozen."""
        model = self._model(candidates)
        return last_layer(model, model.rows(candidates.X, candidates.y))

    def _model(self, candidates: Candidates, rows: np.ndarray | None = None) -> DifferentiableModel:
        """The model trained on these rows (None = all), or as it is where it is frozen; sets estimator_."""
        estimator = default_net(candidates.task) if self.estimator is None else self.estimator
        if not can_differentiate(estimator):
            differentiable(estimator)  # raises and says why
        X, y = candidates.X, candidates.y
        if rows is not None:
            X, y = rows_of(X, rows), rows_of(y, rows)
        n = _num_samples(X)
        # a feature and an output of a row, before the training; how many there are is known at the layer
        check_held(f"CoresetSelector by {type(self).__name__}", 8.0 * n, INSTEAD)
        if isinstance(estimator, FrozenEstimator):
            self.estimator_ = estimator
        else:
            check_trainable(estimator, n)
            self.estimator_ = train_clone(estimator, X, y, random_state=candidates.random_state)
        return differentiable(self.estimator_, n).to(resolve_device(self.device))
