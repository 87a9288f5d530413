"""GradientBoostingClassifier and GradientBoostingRegressor of scikit-learn, by their public `apply`."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import train_test_split

from sktda.attribution.trees.losses import Logistic, Loss, Softmax, SquaredError
from sktda.attribution.trees.refusals import refuse_loss, refuse_option
from sktda.attribution.trees.steps import Facts, Trees, numbered


class GradientBoosting(Trees):
    """A fitted one. Raises ValueError for another loss than squared error and log loss, and for an `init` estimator."""

    def __init__(self, model: Any) -> None:
        refuse_loss(model, model.loss, {"log_loss", "squared_error"})
        if model.init is not None and model.init != "zero":
            refuse_option(model, "init", "its own predictions come before the trees' and depend on the rows")
        self.model = model
        self.classifier = is_classifier(model)
        n_outputs = model.n_trees_per_iteration_
        nodes = [tree.tree_ for tree in model.estimators_.ravel()]
        self._first, self._number = numbered([tree.children_left == -1 for tree in nodes])
        values = np.concatenate([tree.value[tree.children_left == -1, 0, 0] for tree in nodes])
        loss: Loss = SquaredError()
        if self.classifier:  # the trees' Newton step is multiplied by (K - 1) / K
            loss = Logistic() if n_outputs == 1 else Softmax(n_outputs, n_outputs / (n_outputs - 1))
        self.facts = Facts(
            loss=loss,
            classes=model.classes_ if self.classifier else None,
            start=None,
            # leaves of these trees are plain steps, and the rate comes when they are added
            values=model.learning_rate * values,
            rate=model.learning_rate,
            share=model.subsample,
        )

    def leaves(self, X: Any) -> np.ndarray:
        """By the nodes that `apply` names."""
        nodes = self.model.apply(X).astype(np.int64).reshape(-1, *self.model.estimators_.shape)
        return self._number[nodes + self._first.reshape(self.model.estimators_.shape)].astype(np.int32)

    def raw(self, X: Any) -> np.ndarray:
        """Decision values, or predictions."""
        found = self.model.decision_function(X) if self.classifier else self.model.predict(X)
        return np.asarray(found, dtype=float).reshape(len(found), -1)

    def weights(self, targets: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
        """0 for the rows that early stopping held back."""
        model = self.model
        if model.n_iter_no_change is None:
            return sample_weight
        if not isinstance(model.random_state, int | np.integer):
            raise ValueError(
                f"{type(model).__name__} with n_iter_no_change and random_state={model.random_state!r} held rows back "
                "that nobody knows any more; give random_state a number, or set n_iter_no_change=None"
            )
        return held_back(targets, sample_weight, model.validation_fraction, model.random_state, self.classifier)


def held_back(
    codes: np.ndarray, sample_weight: np.ndarray, fraction: Any, random_state: Any, classifier: bool
) -> np.ndarray:
    """The weights, 0 for the rows that scikit-learn's boosting sets aside to decide when to stop."""
    # the call of the boosting again: it depends on how many rows there are, their classes and the seed alone
    kept, _ = train_test_split(
        np.arange(len(codes)), test_size=fraction, stratify=codes if classifier else None, random_state=random_state
    )
    weights = np.zeros_like(sample_weight)
    weights[kept] = sample_weight[kept]
    return weights
