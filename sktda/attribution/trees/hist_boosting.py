"""HistGradientBoostingClassifier and -Regressor of scikit-learn, by their predictors.

They have no public `apply`: copies of their predictors, with the number of a leaf in place of its value, say where a
row goes, by the library's own walk through missing values and categories.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
from sklearn.utils.class_weight import compute_sample_weight

from sktda.attribution.trees.gradient_boosting import held_back
from sktda.attribution.trees.losses import Logistic, Loss, Softmax, SquaredError
from sktda.attribution.trees.refusals import refuse_loss
from sktda.attribution.trees.steps import Facts, Trees


class HistBoosting(Trees):
    """A fitted one. Raises ValueError for another loss than squared error and log loss."""

    def __init__(self, model: Any) -> None:
        refuse_loss(model, model.loss, {"log_loss", "squared_error"})
        self.model = model
        self.classifier = is_classifier(model)
        n_outputs = model.n_trees_per_iteration_
        values: list[np.ndarray] = []
        self._walks: list[list[TreePredictor]] = []
        total = 0
        for step in model._predictors:
            walks = []
            for tree in step:
                nodes = tree.nodes.copy()
                leaves = np.flatnonzero(nodes["is_leaf"])
                # the learning rate is in them
                values.append(nodes["value"][leaves])
                nodes["value"][leaves] = np.arange(total, total + len(leaves))
                total += len(leaves)
                walks.append(TreePredictor(nodes, tree.binned_left_cat_bitsets, tree.raw_left_cat_bitsets))
            self._walks.append(walks)
        loss: Loss = SquaredError()
        if self.classifier:
            loss = Logistic() if n_outputs == 1 else Softmax(n_outputs)
        self.facts = Facts(
            loss=loss,
            classes=model.classes_ if self.classifier else None,
            start=np.asarray(model._baseline_prediction, dtype=float).ravel(),
            values=np.concatenate(values),
            rate=model.learning_rate,
            l2=(model.l2_regularization,),
            named=["monotonic_cst"] if model.monotonic_cst is not None else [],
        )

    def leaves(self, X: Any) -> np.ndarray:
        """By the library's own walk."""
        X = self.model._preprocess_X(X, reset=False)
        threads = _openmp_effective_n_threads()
        known, positions = self.model._bin_mapper.make_known_categories_bitsets()
        found = np.empty((len(self._walks), self.facts.loss.n_outputs, X.shape[0]), dtype=np.int32)  # as it is written
        for step, walks in enumerate(self._walks):
            for k, walk in enumerate(walks):
                found[step, k] = walk.predict(X, known, positions, n_threads=threads)
        return np.moveaxis(found, 2, 0)

    def raw(self, X: Any) -> np.ndarray:
        """Decision values, or predictions."""
        found = self.model.decision_function(X) if self.classifier else self.model.predict(X)
        return np.asarray(found, dtype=float).reshape(len(found), -1)

    def weights(self, targets: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
        """Times the weights of the classes; 0 for the rows that early stopping held back."""
        model = self.model
        if self.classifier and model.class_weight is not None:
            sample_weight = sample_weight * compute_sample_weight(model.class_weight, model.classes_[targets])
        # without a fraction early stopping looks at the training loss, and holds nothing back
        if model.do_early_stopping_ and model.validation_fraction is not None:
            # kept by the model, so that the split can be drawn again where random_state is None
            seed = model._random_seed
            return held_back(targets, sample_weight, model.validation_fraction, seed, self.classifier)
        return sample_weight
