"""Cross-fitting, which stands in for validation rows: every fold is judged by the rows of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.model_selection import KFold, StratifiedKFold
from torch import Tensor

from sktda.attribution.gradients.objective_gradients import ObjectiveScores
from sktda.data import encode_target
from sktda.model.given import GivenRows
from sktda.seeds import seed_of

FOLDS = 5


def cross_fitted(attributor: Any, rows: GivenRows, task: str) -> tuple[Tensor, dict[str, ObjectiveScores]]:
    """(scores (n,), objectives by name): means over the folds that a row trains in, the fold held out validating."""
    y, n = rows.y, len(rows)
    random = seed_of(attributor.random_state)
    splitter: Any = KFold(min(FOLDS, n), shuffle=True, random_state=random)
    codes = np.zeros(n)
    if task == "classification" and np.size(y) == n:
        codes = encode_target(y, "classification")[1]
        rarest = np.unique(codes, return_counts=True)[1].min()
        if rarest >= 2:  # a class of one row cannot be stratified
            splitter = StratifiedKFold(min(FOLDS, rarest), shuffle=True, random_state=random)
    total, times = np.zeros(n), np.zeros(n)
    folds: list[dict[str, ObjectiveScores]] = []
    for train, held in splitter.split(np.zeros(n), codes):  # of X splitters ask the length only
        validation = rows.take(held)
        # without the callbacks, which follow the fit as a whole
        part = clone(attributor).set_callbacks().fit(*rows.take(train), X_val=validation.X, y_val=validation.y)
        total[train] += part.scores_
        times[train] += 1
        by_name = {name: np.zeros(n) for name in part.objectives_}
        for name, found in part.objectives_.items():
            by_name[name][train] = found.scores  # 0 for held rows, which `times` does not count
        folds.append({name: replace(found, scores=by_name[name]) for name, found in part.objectives_.items()})
    objectives = {
        name: ObjectiveScores(
            float(np.mean([fold[name].value for fold in folds])), sum(fold[name].scores for fold in folds) / times
        )
        for name in folds[0]
    }
    return torch.from_numpy(total / times), objectives
