"""scikit-learn's linear models in torch: least squares, ridge, logistic regression, each with its own penalty.

The risk is the mean loss plus (decay / 2) |w|^2, so a penalty that scikit-learn adds to a sum over N rows is
divided by N. Intercepts are not penalised (but liblinear's is).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
    SGDClassifier,
)
from torch import Tensor, nn

from sktda.model.base import DifferentiableModel
from sktda.model.likelihood import Binary, Gaussian
from sktda.model.softmax import Categorical
from sktda.model.table import (
    class_targets,
    class_weights,
    indicator_targets,
    need_rows,
    number_targets,
    table_rows,
)

LOGISTIC = (LogisticRegression, LogisticRegressionCV)
RIDGE_CLASSIFIERS = (RidgeClassifier, RidgeClassifierCV)
RIDGES = (Ridge, RidgeCV)
TYPES = (*LOGISTIC, *RIDGES, *RIDGE_CLASSIFIERS, LinearRegression, SGDClassifier)


def check(model: Any) -> None:
    """Raise ValueError for a setting whose optimum is not that of a smooth loss plus an L2 penalty."""
    name = type(model).__name__
    if isinstance(model, SGDClassifier) and model.loss != "log_loss":
        raise ValueError(f"{name} with loss={model.loss!r} cannot be differentiated; allowed is loss='log_loss'")
    if _l1(model):
        raise ValueError(
            f"{name} with an L1 part in its penalty (l1, elasticnet) cannot be differentiated: only L2 is smooth. "
            "Use an L2 penalty, or score the rows with another model"
        )
    if getattr(model, "positive", False):
        raise ValueError(f"{name} with positive=True cannot be differentiated: its optimum is on a bound")
    if isinstance(model, LogisticRegressionCV) and not model.refit:
        raise ValueError(
            f"{name} with refit=False averages the coefficients of the folds, which minimise no loss; use refit=True"
        )


def _l1(model: Any) -> bool:
    if isinstance(model, LogisticRegressionCV):  # its ratio is only known after the search
        ratios = getattr(model, "l1_ratio_", model.l1_ratios)
        # its defaults leave None in the ratios that were found, which is no L1
        by_ratio = not isinstance(ratios, str) and bool(set(np.ravel(ratios).tolist()) - {None, 0})
    else:
        by_ratio = bool(getattr(model, "l1_ratio", None))
    penalty = getattr(model, "penalty", "l2")  # a ratio counts only where the penalty does not say "l2"
    return penalty == "l1" or (by_ratio and penalty in {"deprecated", "elasticnet"})


def rebuild(model: Any, n_rows: int | None) -> DifferentiableModel:
    """The torch model of a fitted linear model; n_rows as in `differentiable`."""
    if isinstance(model, LOGISTIC):
        return _logistic(model, n_rows)
    if isinstance(model, SGDClassifier):
        return _sgd(model)
    return _least_squares(model, n_rows)


def module_of(model: Any) -> nn.Module:
    """The linear layer of a fitted model, or one per output where each has a penalty of its own; float64."""
    # a decay is one number for each parameter by name, so outputs with penalties of their own have weights of their own
    if len(np.unique(_alphas(model))) > 1:
        return Heads([_layer(model, slice(k, k + 1)) for k in range(len(np.atleast_2d(model.coef_)))])
    return _layer(model)


def write(model: Any, parameters: Mapping[str, Tensor]) -> None:
    """Put parameters, named as in `module_of`, into what predictions use; running averages of SGD stay as they are."""
    model.coef_ = _filled(model.coef_, [value for name, value in parameters.items() if name.endswith("weight")])
    if model.fit_intercept:
        biases = [value for name, value in parameters.items() if name.endswith("bias")]
        model.intercept_ = _filled(model.intercept_, biases)


def _filled(old: Any, parts: list[Tensor]) -> Any:
    """The numbers of all parts in the shape, dtype and memory order of the old array or scalar."""
    new = np.empty_like(old)
    new[...] = torch.cat(parts).numpy().reshape(new.shape)
    return new if isinstance(old, np.ndarray) else new[()]


def _layer(model: Any, rows: slice | None = None) -> nn.Linear:
    """nn.Linear with (these rows of) coef_ and intercept_, float64."""
    coef = np.atleast_2d(np.array(model.coef_, dtype=np.float64))
    keep = slice(None) if rows is None else rows
    layer = nn.utils.skip_init(
        nn.Linear, coef.shape[1], len(coef[keep]), bias=bool(model.fit_intercept), dtype=torch.float64
    )
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(coef[keep]))
        if model.fit_intercept:
            bias = np.broadcast_to(np.array(model.intercept_, dtype=np.float64).reshape(-1), len(coef))
            layer.bias.copy_(torch.from_numpy(bias[keep].copy()))
    return layer


def _logistic(model: Any, n_rows: int | None) -> DifferentiableModel:
    # scikit-learn minimises C sum_i w_i l_i + |w|^2 / 2, whatever the sum of the weights
    strength = np.unique(model.C_) if isinstance(model, LogisticRegressionCV) else np.array([model.C])
    if len(strength) > 1:
        raise ValueError(f"{type(model).__name__} with a different C per class ({strength}) has no common penalty")
    # C = inf is no penalty, too
    penalised = model.penalty is not None and np.isfinite(strength[0])
    # over C N: the mean loss + |w|^2 / (2 C N)
    decay = 1 / (float(strength[0]) * need_rows(n_rows, model, "|w|^2 / (2 C)")) if penalised else 0.0
    layer, classes = _layer(model), model.classes_
    decays = {"weight": decay} if decay else {}
    if model.solver == "liblinear" and model.fit_intercept:  # the weight of a constant feature, so penalised
        decays["bias"] = decay / float(model.intercept_scaling) ** 2
    # one logit stays one: as two, [-w/2, w/2], the same model would need twice the decay
    binary = len(classes) == 2
    weigh = class_weights(model.class_weight, classes, balance_weighted=True)
    return DifferentiableModel(
        module=layer,
        likelihood=Binary() if binary else Categorical(),
        rows=table_rows(model, indicator_targets(classes) if binary else class_targets(classes), weigh),
        decay=decays,
        # a softmax does not feel what all logits share: H is singular along it, and is filled up there
        invariant=None if binary else _shifts(layer, features=not decay),
        linear=True,
    )


def _shifts(layer: nn.Linear, features: bool) -> Tensor | None:
    """(p, k) directions that add one number to all logits: of the intercepts, and of each feature if asked."""
    n_classes, n_features = layer.weight.shape
    columns = ([*range(n_features)] if features else []) + ([n_features] if layer.bias is not None else [])
    if not columns:
        return None
    # C entries of C^(-1/2) have length 1, and two columns share no entry: orthonormal
    value = n_classes**-0.5
    directions = torch.zeros(n_classes * (n_features + (layer.bias is not None)), len(columns), dtype=torch.float64)
    for k, column in enumerate(columns):  # flat order: weight (n_classes, n_features) row by row, then bias
        where = torch.arange(n_classes)
        directions[where * n_features + column if column < n_features else n_classes * n_features + where, k] = value
    return directions


def _sgd(model: Any) -> DifferentiableModel:
    classes = model.classes_
    likelihood, weigh = Binary(), class_weights(model.class_weight, classes)
    if len(classes) > 2 and model.class_weight is not None:
        # one against the rest: the weight of a class multiplies only its own column's positive rows
        likelihood, weigh = Binary(pos_weight=torch.tensor(model._expanded_class_weight, dtype=torch.float64)), None
    return DifferentiableModel(
        module=_layer(model),
        likelihood=likelihood,
        rows=table_rows(model, indicator_targets(classes), weigh),
        # beside the loss of one row at each step, and so beside the mean: no N
        decay={"weight": float(model.alpha)} if model.penalty is not None and model.alpha else {},
        linear=True,
    )


class Heads(nn.Module):
    """One linear layer per output on the same inputs: outputs with a penalty each."""

    def __init__(self, heads: list[nn.Linear]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> Tensor:
        """(n, number of heads)."""
        return torch.cat([head(x) for head in self.heads], dim=1)


def _alphas(model: Any) -> np.ndarray:
    """The alphas of a least squares model, (1,) or one per output; of other models nothing is asked here."""
    return np.ravel(getattr(model, "alpha_", getattr(model, "alpha", 0.0))).astype(float)


def _least_squares(model: Any, n_rows: int | None) -> DifferentiableModel:
    width = len(np.atleast_2d(model.coef_))
    alpha = _alphas(model)
    # (sum of squares + alpha |w|^2) / N is the mean + (decay / 2) |w|^2 at decay = 2 alpha / N
    decays = 2 * alpha / need_rows(n_rows, model, "alpha |w|^2") if alpha.any() else np.zeros(1)
    module = module_of(model)
    decay = {"weight": float(decays[0])}
    if isinstance(module, Heads):
        decay = {f"heads.{k}.weight": float(value) for k, value in enumerate(decays)}
    encode, weigh = number_targets(width), None
    if isinstance(model, RIDGE_CLASSIFIERS):
        # a regression on -1 and 1, the outputs of which are compared with 0
        encode, weigh = indicator_targets(model.classes_, low=-1.0), class_weights(model.class_weight, model.classes_)
    return DifferentiableModel(
        module=module,
        likelihood=Gaussian(),
        rows=table_rows(model, encode, weigh),
        decay={name: value for name, value in decay.items() if value},
        linear=True,
    )
