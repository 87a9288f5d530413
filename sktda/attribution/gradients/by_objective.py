"""Scores for an objective: on validation rows, where there are none on the rows of other folds, or by the own loss."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from sktda.attribution.base import Needs
from sktda.attribution.gradients.base import TrainedScores
from sktda.attribution.gradients.cross_fit import cross_fitted
from sktda.attribution.gradients.fitted import Fitted
from sktda.attribution.gradients.objective_gradients import Asked
from sktda.model.given import GivenModel


class GradientScores(TrainedScores):
    """Base of the methods that know how much each row matters for an objective on validation rows."""

    needs = Needs(validation=True, gradients=True)

    @abstractmethod
    def _validation_scores(self, fitted: Fitted, asked: Asked) -> Tensor:
        """(k, n) values for the k objectives that are asked about."""

    @abstractmethod
    def _self_scores(self, fitted: Fitted) -> Tensor:
        """(n,) minus the value of each row for its own loss."""

    def _scored(self, fitted: Fitted, objective, X_val, y_val, metadata_val) -> Tensor | None:
        if objective == "self":
            return self._self_scores(fitted)
        if objective is not None and X_val is not None:
            asked = self._asked_about(objective, fitted, X_val, y_val, metadata_val)
            each = self._validation_scores(fitted, asked).cpu().double()
            self.objectives_ = asked.found(each.numpy())
            return torch.tensor(asked.shares, dtype=torch.float64) @ each
        if objective is not None and not GivenModel.of(self.estimator).fixed:
            fitted.passes.begin("cross-fit")
            scores, self.objectives_ = cross_fitted(self, self._data, self.task_)
            return scores
        return None


class SelfScores(TrainedScores):
    """Base of the methods that know no objective but their own: validation rows are accepted and do not enter."""

    objective = "self"

    @abstractmethod
    def _self_scores(self, fitted: Fitted) -> Tensor:
        """(n,) higher = keep."""

    def _scored(self, fitted: Fitted, objective, X_val, y_val, metadata_val) -> Tensor:
        return self._self_scores(fitted)
