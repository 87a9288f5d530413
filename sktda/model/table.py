"""Rows for the models that scikit-learn trains: validated tables in float64, encoded labels, class weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.utils import column_or_1d
from sklearn.utils.validation import check_consistent_length, validate_data
from torch import Tensor

from sktda.data import check_weights, row_block
from sktda.model.base import Inputs, Rows

Encode = Callable[[Any], Tensor]
Weigh = Callable[[Any, "np.ndarray | None"], "np.ndarray | None"]


def need_rows(n_rows: int | None, model: Any, penalty: str) -> int:
    """n_rows; ValueError if it is not known although the penalty of the mean loss depends on it."""
    if n_rows is None:
        raise ValueError(
            f"{type(model).__name__} adds its penalty {penalty} to a sum over the training rows, whose number it does "
            "not keep; pass n_rows, the number of rows it was trained on"
        )
    return n_rows


def table_rows(model: Any, encode: Encode, weigh: Weigh | None = None) -> Callable[..., Rows]:
    """The `rows` of a DifferentiableModel for a model of two-dimensional X.

    encode turns y into targets (n, ...); weigh maps (y, sample_weight) to row weights with those of the classes.
    X is read block by block; checks and warnings are those of the model's own predict.
    """

    def rows(X: Any, y: Any = None, sample_weight: Any = None) -> Rows:
        X = validate_data(model, X, reset=False, accept_sparse="csr", dtype="numeric")
        n = X.shape[0]
        targets = torch.empty(n, 0) if y is None else encode(y)
        check_consistent_length(X, targets)
        weight = None if sample_weight is None else check_weights(sample_weight, n)
        if weigh is not None and y is not None:
            weight = weigh(y, weight)

        def read(block: slice | np.ndarray) -> tuple[Inputs, Tensor]:
            return torch.from_numpy(row_block(X, block)), targets[block]

        return Rows(n, read, None if weight is None else torch.from_numpy(weight))

    return rows


def class_codes(y: Any, classes: np.ndarray) -> np.ndarray:
    """Position of every label in classes, (n,) int64; ValueError naming labels that are none of them."""
    positions = {label: position for position, label in enumerate(classes.tolist())}
    labels = column_or_1d(np.asarray(y)).tolist()
    codes = np.array([positions.get(label, -1) for label in labels], dtype=np.int64)
    unseen = np.flatnonzero(codes < 0)
    if len(unseen):
        shown = ", ".join(map(repr, classes.tolist()[:10])) + (", ..." if len(classes) > 10 else "")
        raise ValueError(
            f"y holds the label {labels[unseen[0]]!r} (row {unseen[0]}; {len(unseen)} such rows), which the model was "
            f"not trained on; its classes are {shown}. Drop those rows or train with them"
        )
    return codes


def class_targets(classes: np.ndarray) -> Encode:
    """Labels -> codes (n,)."""
    return lambda y: torch.from_numpy(class_codes(y, classes))


def indicator_targets(classes: np.ndarray, low: float = 0.0) -> Encode:
    """Labels -> 1 for the label and `low` elsewhere: (n, 1), 1 = the second class, or (n, k) for k > 2 classes.

    y of several columns, one label per column, becomes the same numbers.
    """

    def encode(y: Any) -> Tensor:
        values = np.asarray(y)
        if values.ndim == 2 and values.shape[1] > 1:
            if values.shape[1] != len(classes):
                raise ValueError(f"y has {values.shape[1]} columns, but the model was trained on {len(classes)}")
            return torch.from_numpy(np.where(values > 0, 1.0, low))
        codes = class_codes(y, classes)
        # two classes: one column, as models with one logit have one output
        hot = codes[:, None] == (np.arange(1, 2) if len(classes) == 2 else np.arange(len(classes)))
        return torch.from_numpy(np.where(hot, 1.0, low))

    return encode


def number_targets(width: int) -> Encode:
    """Numbers -> (n, width) float64."""

    def encode(y: Any) -> Tensor:
        values = np.array(y, dtype=np.float64)
        values = values.reshape(len(values), -1)
        if values.shape[1] != width:
            raise ValueError(f"y has {values.shape[1]} columns, but the model was trained on {width}")
        return torch.from_numpy(values)

    return encode


def class_weights(setting: Any, classes: np.ndarray, balance_weighted: bool = False) -> Weigh | None:
    """What multiplies the row weights: None, or for a dict or "balanced" the weight of each row's class.

    "balanced" is computed from the y (with balance_weighted from the sample weights, too) that is passed to `rows`,
    as a fit on those rows would: no estimator keeps it.
    """
    if setting is None:
        return None

    def weigh(y: Any, weight: np.ndarray | None) -> np.ndarray:
        codes = class_codes(y, classes)
        if isinstance(setting, str):  # "balanced"; over the classes that occur
            counts = np.bincount(codes, weight if balance_weighted else None, minlength=len(classes))
            # n / (classes that occur * n_c), as scikit-learn has it; 1 stands in where no row is of a class
            per_class = counts.sum() / np.where(counts > 0, (counts > 0).sum() * counts, 1)
        else:
            per_class = np.array([float(setting.get(label, 1.0)) for label in classes.tolist()])
        return per_class[codes] if weight is None else per_class[codes] * weight

    return weigh
