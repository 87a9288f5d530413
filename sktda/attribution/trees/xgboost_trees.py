"""XGBClassifier and XGBRegressor, by `apply` and the documented JSON of the booster."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from sktda.attribution.trees.losses import Logistic, Loss, Softmax, SquaredError
from sktda.attribution.trees.refusals import refuse_loss, refuse_option
from sktda.attribution.trees.steps import Facts, Trees, numbered

LOSSES = {
    "reg:squarederror": "squared error",
    "binary:logistic": "logistic",
    "reg:logistic": "logistic",
    "multi:softprob": "softmax",
    "multi:softmax": "softmax",
}


class XGBoostTrees(Trees):
    """A fitted one, up to its best iteration. Raises ValueError for what is not gradient boosting of single trees."""

    def __init__(self, model: Any) -> None:
        self.model = model
        booster = model.get_booster()
        learner = json.loads(booster.save_config())["learner"]
        objective = learner["objective"]["name"]
        refuse_loss(model, objective, LOSSES)
        if learner["gradient_booster"]["name"] != "gbtree":
            name = learner["gradient_booster"]["name"]
            refuse_option(model, f"booster={name!r}", "it does not add up trees as they were grown")
        if int(learner["gradient_booster"]["gbtree_model_param"]["num_parallel_tree"]) > 1:
            refuse_option(model, "num_parallel_tree above 1", "a step of several trees is not read")
        if learner["learner_train_param"]["multi_strategy"] != "one_output_per_tree":
            refuse_option(model, "multi_strategy='multi_output_tree'", "a tree of several outputs is not read")
        if int(learner["learner_model_param"]["num_target"]) > 1:
            refuse_option(model, "several targets", "one is read")
        params = learner["gradient_booster"]["tree_train_param"]
        if params["sampling_method"] != "uniform" and float(params["subsample"]) < 1:
            refuse_option(model, "sampling_method='gradient_based'", "which rows a step drew depends on them")
        self.classifier = hasattr(model, "classes_")
        self._positive = float(learner["objective"].get("reg_loss_param", {}).get("scale_pos_weight", 1))
        self._outputs = max(1, int(learner["learner_model_param"]["num_class"]))
        trees = json.loads(booster.save_raw("json").decode())["learner"]["gradient_booster"]["model"]["trees"]
        best = model.best_iteration + 1 if getattr(booster, "best_iteration", None) is not None else None
        trees = trees[: None if best is None else best * self._outputs]
        masks = [np.array(tree["left_children"]) == -1 for tree in trees]
        self._first, self._number = numbered(masks)
        # a leaf has its value where other nodes have their threshold; the learning rate is in it
        values = [np.array(tree["split_conditions"])[mask] for tree, mask in zip(trees, masks, strict=True)]
        kind = LOSSES[objective]
        loss: Loss = SquaredError() if kind == "squared error" else Logistic()
        if kind == "softmax":
            loss = Softmax(self._outputs, 2.0)  # XGBoost's curvature is 2 p (1 - p)
        self.facts = Facts(
            loss=loss,
            classes=model.classes_ if self.classifier else None,
            start=None,
            values=np.concatenate(values),
            rate=float(params["eta"]),
            l2=(float(params["lambda"]),),
            l1=float(params["alpha"]),
            limit=float(params["max_delta_step"]),
            share=float(params["subsample"]),
            named=["monotone_constraints"] if params["monotone_constraints"] not in ("", "()") else [],
        )

    def leaves(self, X: Any) -> np.ndarray:
        """By the nodes that `apply` names."""
        nodes = np.asarray(self.model.apply(X)).astype(np.int64).reshape(-1, len(self._first))
        return self._number[nodes + self._first].astype(np.int32).reshape(len(nodes), -1, self._outputs)

    def raw(self, X: Any) -> np.ndarray:
        """Margins."""
        found = np.asarray(self.model.predict(X, output_margin=True), dtype=float)
        return found.reshape(len(found), -1)

    def weights(self, targets: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
        """Times scale_pos_weight for the second of two classes."""
        return sample_weight * np.where(targets == 1, self._positive, 1.0)
