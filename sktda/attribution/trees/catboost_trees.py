"""CatBoostClassifier and CatBoostRegressor, by `calc_leaf_indexes` and `get_leaf_values`.

CatBoost draws rows for the splits alone: the values of the leaves are Newton steps of all rows, several in a leaf where
`leaf_estimation_iterations` says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sktda.attribution.trees.losses import CoupledSoftmax, Logistic, Loss, SquaredError
from sktda.attribution.trees.refusals import refuse_loss, refuse_option
from sktda.attribution.trees.steps import Facts, Trees


class CatBoostTrees(Trees):
    """A fitted one. Raises ValueError for leaves that are no Newton steps."""

    def __init__(self, model: Any) -> None:
        self.model = model
        params = model.get_all_params()
        refuse_loss(model, params["loss_function"], {"Logloss", "MultiClass", "RMSE"})
        self.classifier = params["loss_function"] != "RMSE"
        self._outputs = len(model.classes_) if params["loss_function"] == "MultiClass" else 1
        if self.classifier and params["leaf_estimation_method"] != "Newton":
            method = params["leaf_estimation_method"]
            refuse_option(model, f"leaf_estimation_method={method!r}", "its leaves are no Newton steps", "set 'Newton'")
        self._class_weights = params.get("class_weights") or None
        # the values come flat: tree after tree, and in each the K values of a leaf together
        self._first = self._outputs * np.cumsum([0, *model.get_tree_leaf_counts()])[:-1]
        self._l2 = float(params["l2_leaf_reg"])
        stumbling = {
            "model_shrink_rate",
            "langevin",
            "posterior_sampling",
            "monotone_constraints",
            "penalties_coefficient",
        }
        inner, backtracking = int(params.get("leaf_estimation_iterations", 1)), "leaf_estimation_backtracking"
        if inner > 1 and params.get(backtracking) != "No":
            # it takes back steps that are no improvement, which is not made again here
            stumbling.add(backtracking)
        if inner > 1 and self._outputs > 1:
            why, remedy = "several Newton steps of all classes are not read", "set leaf_estimation_iterations=1"
            refuse_option(model, "leaf_estimation_iterations above 1", why, remedy)
        named = [name for name in sorted(stumbling) if params.get(name) not in (None, 0, 1, False, [], {})]
        loss: Loss = Logistic() if self.classifier else SquaredError()
        self.facts = Facts(
            loss=loss if self._outputs == 1 else CoupledSoftmax(self._outputs),
            classes=np.asarray(model.classes_) if self.classifier else None,
            start=None,
            values=np.array(model.get_leaf_values(), dtype=float),
            rate=float(params["learning_rate"]),
            inner=inner,
            # of a category it sees other numbers in training than when its leaves are asked for
            named=[*named, *(["cat_features"] if len(model.get_cat_feature_indices()) else [])],
        )

    def leaves(self, X: Any) -> np.ndarray:
        """By `calc_leaf_indexes`."""
        found = np.asarray(self.model.calc_leaf_indexes(X), dtype=np.int64).reshape(-1, len(self._first))
        numbers = self._first + self._outputs * found  # the K values of a leaf follow each other
        return (numbers[:, :, None] + np.arange(self._outputs)).astype(np.int32)

    def raw(self, X: Any) -> np.ndarray:
        """Raw formula values."""
        found = np.asarray(self.model.predict(X, prediction_type="RawFormulaVal"), dtype=float)
        return found.reshape(len(found), -1)

    def weights(self, targets: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
        """Times the weights of the classes; the penalty of a leaf is per mean weight of a row."""
        if self._class_weights is not None:
            sample_weight = sample_weight * np.asarray(self._class_weights, dtype=float)[targets]
        # only here are the weights known; with the mean in it, weights that are all 10 times as large change no leaf
        self.facts.l2 = (self._l2 * float(sample_weight.mean()),)
        return sample_weight
