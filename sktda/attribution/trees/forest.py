"""Forests and bagged trees of scikit-learn, by `apply` and by which rows each tree drew."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import BaseDecisionTree
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from sktda.attribution.trees.refusals import refuse_option
from sktda.attribution.trees.steps import numbered

FORESTS = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)
BAGGED = (BaggingClassifier, BaggingRegressor)


def is_forest(model: Any) -> bool:
    """Whether a model, fitted or not, is a forest or bagged trees."""
    return isinstance(model, FORESTS) or (
        isinstance(model, BAGGED) and (model.estimator is None or isinstance(model.estimator, BaseDecisionTree))
    )


class Forest:
    """A fitted one: the leaf of every row in every tree, and how often each tree drew every row."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.classifier = is_classifier(model)
        self.classes: Any = model.classes_ if self.classifier else None
        self._first, self._number = numbered([tree.tree_.children_left == -1 for tree in model.estimators_])
        self.n_leaves = int(self._number[-1]) + 1

    def leaves(self, X: Any) -> np.ndarray:
        """(n, trees) number of the leaf."""
        model = self.model
        if isinstance(model, FORESTS):
            nodes = model.apply(X).astype(np.int64)
        else:
            X = np.asarray(X, dtype=np.float32)
            parts = zip(model.estimators_, model.estimators_features_, strict=True)
            nodes = np.stack([tree.apply(X[:, chosen]) for tree, chosen in parts], axis=1).astype(np.int64)
        return self._number[nodes + self._first].astype(np.int32)

    def drawn(self, targets: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
        """(n, trees) weight that a row has in every tree; (n, 1) where it is the same in all."""
        model, n = self.model, len(targets)
        weight = getattr(model, "class_weight", None)
        # every tree sees all rows, so weights count as they are
        if isinstance(model, FORESTS) and not model.bootstrap:
            labels = None if weight is None else self.classes[targets]
            if isinstance(weight, str):  # balanced: the classes' weights are equal with those of the rows
                each = compute_class_weight("balanced", classes=self.classes, y=labels, sample_weight=sample_weight)
                sample_weight = sample_weight * each[targets]
            elif weight is not None:
                sample_weight = sample_weight * compute_sample_weight(weight, labels)
            return sample_weight[:, None]
        if weight == "balanced_subsample":
            refuse_option(model, "class_weight='balanced_subsample'", "the weights differ from tree to tree")
        # weights, of rows and of classes, decide how often a row is drawn
        counts = np.zeros((n, len(model.estimators_)), dtype=np.float32)
        for count, samples in zip(counts.T, model.estimators_samples_, strict=True):
            count += np.bincount(np.asarray(samples, dtype=np.int64), minlength=n)[:n]
        return counts

    def said(self, X: Any) -> np.ndarray:
        """(n, classes) probabilities or (n, 1) predictions of the library."""
        if self.classifier:
            return self.model.predict_proba(X)
        return self.model.predict(X)[:, None]
