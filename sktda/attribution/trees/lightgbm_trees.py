"""LGBMClassifier and LGBMRegressor, by `pred_leaf`, the dump of the trees and the parameters that the booster keeps."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from scipy.special import logit
from sklearn.utils.class_weight import compute_sample_weight

from sktda.attribution.trees.losses import Logistic, Loss, Softmax, SquaredError
from sktda.attribution.trees.refusals import refuse_loss, refuse_option
from sktda.attribution.trees.steps import Facts, Trees


class LightGBMTrees(Trees):
    """A fitted one, up to its best iteration. ValueError for what is not gradient boosting of constant leaves."""

    def __init__(self, model: Any) -> None:
        self.model = model
        booster = model.booster_
        # the parameters stand behind the trees, of which one is enough to get at them
        text = booster.model_to_string(num_iteration=1)
        params = dict(re.findall(r"^\[(\w+): (.*)\]$", text[text.index("\nparameters:") :], re.MULTILINE))
        objective = params["objective"]
        refuse_loss(model, objective, {"binary", "multiclass", "regression"})
        if params["boosting"] != "gbdt":
            refuse_option(model, f"boosting_type={params['boosting']!r}", "it does not add up trees as they were grown")
        if params["data_sample_strategy"] == "goss":
            refuse_option(model, "data_sample_strategy='goss'", "which rows a step drew depends on them")
        for name in ("linear_tree", "reg_sqrt", "use_quantized_grad"):
            if params.get(name, "0") != "0":
                refuse_option(model, name, "its leaves are no Newton steps of their rows")
        for name in ("pos_bagging_fraction", "neg_bagging_fraction", "sigmoid"):
            if float(params[name]) != 1:
                refuse_option(model, name, "it is not read")
        self._params = params
        self.classifier = hasattr(model, "classes_")
        self._outputs = int(params["num_class"])
        trees = booster.dump_model()["tree_info"]
        each = [leaves_of(tree["tree_structure"]) for tree in trees]
        self._first = np.cumsum([0, *map(len, each)])[:-1]
        loss: Loss = SquaredError()
        if objective == "binary":
            loss = Logistic()
        elif objective == "multiclass":
            # LightGBM's curvature of a class is K / (K - 1) p (1 - p)
            loss = Softmax(self._outputs, self._outputs / (self._outputs - 1))
        penalty = float(params["lambda_l2"])
        categories = any(tree["num_cat"] for tree in trees)
        self.facts = Facts(
            loss=loss,
            classes=model.classes_ if self.classifier else None,
            start=None,
            values=np.concatenate(each),
            rate=float(params["learning_rate"]),
            # a split on many categories adds cat_l2, and which leaves have it is not read
            l2=(penalty, penalty + float(params["cat_l2"])) if categories else (penalty,),
            l1=float(params["lambda_l1"]),
            limit=float(params["max_delta_step"]),
            # without a frequency LightGBM draws no rows, whatever the fraction
            share=float(params["bagging_fraction"]) if int(params["bagging_freq"]) else 1.0,
            named=[
                name
                for name, none in (("monotone_constraints", {""}), ("path_smooth", {"0"}))
                if params[name] not in none
            ],
        )

    def leaves(self, X: Any) -> np.ndarray:
        """By `pred_leaf`."""
        found = np.asarray(self.model.predict(X, pred_leaf=True), dtype=np.int64).reshape(-1, len(self._first))
        return (found + self._first).astype(np.int32).reshape(len(found), -1, self._outputs)

    def raw(self, X: Any) -> np.ndarray:
        """Raw scores."""
        found = np.asarray(self.model.predict(X, raw_score=True), dtype=float)
        return found.reshape(len(found), -1)

    def weights(self, targets: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
        """Times the weights of the classes. Moves the mean that LightGBM puts into the first trees to the start."""
        if self.classifier and self.model.class_weight is not None:
            sample_weight = sample_weight * compute_sample_weight(self.model.class_weight, self.model.classes_[targets])
        # before the balance of the classes below, which is no part of LightGBM's mean
        self._split_start(targets, sample_weight)
        if self._params["objective"] != "binary":
            return sample_weight
        positive, negative = float(self._params["scale_pos_weight"]), 1.0
        if self._params["is_unbalance"] != "0":
            # of rows, not of their weights; the rarer class counts more, the other 1
            ones = (targets == 1).sum()
            zeros = len(targets) - ones
            positive, negative = max(zeros / ones, 1.0), max(ones / zeros, 1.0)
        return sample_weight * np.where(targets == 1, positive, negative)

    def _split_start(self, targets: np.ndarray, weight: np.ndarray) -> None:
        facts = self.facts
        if facts.start is not None or self._params["boost_from_average"] == "0":
            return
        if isinstance(facts.loss, Softmax):
            shares = np.bincount(targets, weight, self._outputs) / weight.sum()
            start = np.log(np.maximum(shares, 1e-15))
        else:
            mean = np.average(targets, weights=weight)
            start = np.array([logit(mean) if isinstance(facts.loss, Logistic) else mean])
        ends = [*self._first[1:], len(facts.values)]
        # a first tree is mean + rate * step: without the mean its leaves are Newton steps as all others
        for k in range(self._outputs):
            facts.values[self._first[k] : ends[k]] -= start[k]
        facts.start = start


def leaves_of(node: dict) -> np.ndarray:
    """Values of the leaves of a tree, by their index."""
    found: dict[int, float] = {}
    # no recursion: trees that grow leaf by leaf may be as deep as they have leaves
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if "leaf_value" in node:
            # a tree without a split is one leaf without an index
            found[node.get("leaf_index", 0)] = node["leaf_value"]
        else:
            waiting += [node["left_child"], node["right_child"]]
    return np.array([found[index] for index in range(len(found))])
