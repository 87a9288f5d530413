"""scikit-learn's multi-layer perceptrons in torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch import Tensor, nn

from sktda.model.base import DifferentiableModel
from sktda.model.likelihood import Binary, Gaussian, Likelihood
from sktda.model.softmax import Categorical
from sktda.model.table import Encode, class_targets, indicator_targets, need_rows, number_targets, table_rows

TYPES = (MLPClassifier, MLPRegressor)
ACTIVATIONS = {"identity": nn.Identity, "logistic": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}


def check(model: Any) -> None:
    """Raise ValueError for a loss that is not rebuilt."""
    if isinstance(model, MLPRegressor) and model.loss != "squared_error":
        raise ValueError(
            f"MLPRegressor with loss={model.loss!r} cannot be differentiated; allowed is loss='squared_error'"
        )


def module_of(model: Any) -> nn.Sequential:
    """Linear layers and activations of a fitted perceptron in a row, without the last activation; float64."""
    layers: list[nn.Module] = []
    for weight, bias in zip(model.coefs_, model.intercepts_, strict=True):
        if layers:
            layers.append(ACTIVATIONS[model.activation]())
        layer = nn.utils.skip_init(nn.Linear, weight.shape[0], weight.shape[1], dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.array(weight.T, dtype=np.float64)))
            layer.bias.copy_(torch.from_numpy(np.array(bias, dtype=np.float64)))
        layers.append(layer)
    return nn.Sequential(*layers)


def rebuild(model: Any, n_rows: int | None) -> DifferentiableModel:
    """The torch model of a fitted perceptron."""
    module = module_of(model)
    likelihood, encode = _loss(model)
    # scikit-learn adds (alpha / 2) |w|^2 to the sum of a batch, and divides both by its rows
    decay = float(model.alpha) / _batch_size(model, n_rows) if model.alpha else 0.0
    # every other place is an activation; intercepts are not penalised
    weights = {f"{place}.weight": decay for place in range(0, len(module), 2)} if decay else {}
    return DifferentiableModel(module, likelihood, table_rows(model, encode), decay=weights)


def write(model: Any, parameters: Mapping[str, Tensor]) -> None:
    """Put parameters, named as in `module_of`, into the arrays of the perceptron."""
    for k, (weight, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        weight[...] = parameters[f"{2 * k}.weight"].numpy().T  # layers alternate with activations
        bias[...] = parameters[f"{2 * k}.bias"].numpy()


def _loss(model: Any) -> tuple[Likelihood, Encode]:
    if isinstance(model, MLPRegressor):
        # its loss_ is the mean over outputs, but the gradient it follows is that of their sum
        return Gaussian(scale=0.5), number_targets(model.n_outputs_)
    if model.out_activation_ == "softmax":
        return Categorical(), class_targets(model.classes_)
    return Binary(), indicator_targets(model.classes_)  # one output for two classes, or one per label


def _batch_size(model: Any, n_rows: int | None) -> int:
    """Rows over whose sum of losses the penalty (alpha / 2) |w|^2 is added: a batch, or all rows under lbfgs."""
    if model.solver == "lbfgs":
        return need_rows(n_rows, model, "(alpha / 2) |w|^2")
    size = 200 if model.batch_size == "auto" else int(model.batch_size)
    if n_rows is None and model.batch_size == "auto":
        n_rows = need_rows(n_rows, model, "(alpha / 2) |w|^2")
    if n_rows is not None and model.early_stopping:
        # as train_test_split rounds, which sets them aside
        n_rows -= int(np.ceil(model.validation_fraction * n_rows))
    return size if n_rows is None else min(size, n_rows)
