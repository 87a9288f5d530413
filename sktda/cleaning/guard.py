"""Whether a model is better off with all rows: with and without pruning, on rows that played no part in the choice."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_method_params, _num_samples

from sktda.cleaning.base import Holdout, PruningWarning
from sktda.cleaning.judge import Judge
from sktda.cleaning.scoring import Given, fit_rows, per_row
from sktda.cleaning.validation import groups_for
from sktda.data import plain_target
from sktda.metrics import standard_error
from sktda.workers import in_workers


def is_guarded(guard: Any) -> bool:
    """Whether there is a guard: 0 and 0.0 are tolerances, only False is none."""
    return bool(guard) or not isinstance(guard, (bool, np.bool_))


class Guard:
    """Compares the model of all rows with that of the kept ones, for a pruner and what it was given.

    scores: {scorer: (all rows, pruned)}, as far as they were compared.
    """

    def __init__(self, pruner: Any, data: Given, support: np.ndarray) -> None:
        self.pruner, self.data, self.support = pruner, data, support
        self.scores: dict[str, tuple[float, float]] = {}

    def refuses(self) -> bool:
        """Whether pruning lowers a score by more than its tolerance, which a PruningWarning then says."""
        guard, scoring, estimator = self.pruner.guard, self.pruner.scoring, self.pruner.estimator
        tolerance = 0.0 if isinstance(guard, (bool, np.bool_)) else guard
        limits = guard if isinstance(guard, dict) else {scoring: tolerance}
        data, n_pruned = self.data, int((~self.support).sum())
        own_rows = data.held_out.any() or not isinstance(data.validation, Holdout)
        judge = Judge(estimator, data.X, data.y, data.codes) if own_rows else None
        parts = self._parts(judge)
        expected = judge is not None and judge.noise_rate >= n_pruned / (2 * _num_samples(data.X))
        for scoring, limit in limits.items():
            scorer = check_scoring(estimator, scoring)
            scores = np.array([[scorer(model, *test) for model in models] for *models, test in parts])
            full, pruned = scores.mean(axis=0)
            name = "score" if scoring is None else str(scoring)
            self.scores[name] = (float(full), float(pruned))
            by_chance = standard_error(scores[:, 0] - scores[:, 1]) if expected else 0.0
            if not full - pruned <= limit + by_chance:
                warnings.warn(
                    f"all rows are kept: without the {n_pruned} lowest-scored rows {name} would go from "
                    f"{full:.4f} to {pruned:.4f}, a drop of more than {limit + by_chance:g}",
                    PruningWarning,
                    stacklevel=4,
                )
                return True
        return False

    def _parts(self, judge: Judge | None) -> list[tuple]:
        """(model of all rows, model of kept rows, (X, y) that judge), once for a Holdout, else per fold."""
        data, estimator = self.data, self.pruner.estimator
        if isinstance(data.validation, Holdout):
            masks = ~data.held_out, self.support & ~data.held_out
            models = [fit_rows(clone(estimator), data, mask) for mask in masks]
            if judge is None:
                return [(*models, (data.validation.X, plain_target(data.validation.y)))]
            return [(*models, self._rows(judge.rows(data.held_out)))]
        assert judge is not None  # there is one wherever rows of X judge
        cv = check_cv(5 if data.validation is None else data.validation, data.y, classifier=is_classifier(estimator))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class rarer than the folds is not the user's concern here
            folds = list(cv.split(data.X, data.y, groups_for(data.validation, data.groups)))
        data = replace(data, X=None, y=None)  # rows go to the workers as arguments of their own
        tasks = ((self.pruner, data, self.data.X, self.data.y, train) for train, _ in folds)
        found = in_workers(models_of_fold, tasks, self.pruner.n_jobs)
        return [(*models, self._rows(judge.rows(test))) for models, (_, test) in zip(found, folds, strict=True)]

    def _rows(self, rows: np.ndarray) -> tuple[Any, Any]:
        return _safe_indexing(self.data.X, rows), _safe_indexing(self.data.y, rows)


def models_of_fold(pruner: Any, data: Given, X: Any, y: Any, train: np.ndarray) -> tuple[Any, Any]:
    """(model of all rows, pruner): pruned within the training part, so that the rows that judge play no part in it."""
    estimator, floor = pruner.estimator, pruner.min_samples_per_class
    fit_params, params = per_row(X, data.fit_params, train), _check_method_params(X, data.params | data.metadata, train)
    X, y = _safe_indexing(X, train), _safe_indexing(y, train)
    full = clone(estimator)
    full.fit(X, y, **fit_params)
    if is_classifier(estimator):
        floor = min(floor, np.unique(y, return_counts=True)[1].min())  # a rare class has fewer rows here
    inner = clone(pruner).set_params(guard=False, n_jobs=None, min_samples_per_class=int(floor))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said once, by the outer fit
        inner.set_callbacks().fit(X, y, **params)
    return full, inner
