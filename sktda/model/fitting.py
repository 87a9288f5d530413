"""Training a copy of a user's estimator: checks before, a seed during, a located error after."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from skorch import NeuralNet
from skorch.dataset import ValidSplit
from torch import nn

from sktda.data import slices
from sktda.model import proxy
from sktda.model.criterion import SAME_SHAPE
from sktda.model.given import GivenModel, GivenRows
from sktda.model.module_copy import unwrapped
from sktda.model.reading import reader
from sktda.model.settings import seed_generators, torch_state_kept
from sktda.model.skorch_net import batch_size, check_targets
from sktda.seeds import seed_of

BLOCK = 1_024  # rows per step of the search for a bad one


def check_trainable(estimator: Any, n_rows: int) -> None:
    """ValueError if fitting this estimator on n_rows rows would hide rows from it, or fail on its last batch.

    A score of a row that the model never saw means nothing.
    """
    given = GivenModel.of(estimator)
    model = given.model
    if given.frozen:
        return
    if not isinstance(model, NeuralNet):
        if getattr(model, "early_stopping", False) is True:
            raise ValueError(
                f"{type(model).__name__} with early_stopping=True trains on "
                f"{100 * (1 - model.validation_fraction):.0f} % of the rows, so the others cannot be attributed to; "
                "set early_stopping=False"
            )
        return
    if model.train_split:
        raise ValueError(
            f"train_split={_spell(model.train_split)} hides {_hidden(model.train_split)} of the rows from the net, so "
            "they cannot be attributed to; set train_split=None"
        )
    size = batch_size(model)
    drop = model.get_params_for("iterator_train").get("drop_last", False)
    # a last batch of one row; at size 1 every batch is one
    if size > 0 and n_rows % size == (0 if size == 1 else 1) and not drop and _has_batch_norm(model):
        raise ValueError(
            f"BatchNorm cannot be trained on a batch of one row, and the last batch of {n_rows} rows has one at "
            f"batch_size={size}; set iterator_train__drop_last=True or another batch_size"
        )


def _spell(split: Any) -> str:
    return f"ValidSplit({split.cv!r})" if isinstance(split, ValidSplit) else repr(split)


def _hidden(split: Any) -> str:
    cv = getattr(split, "cv", None) if isinstance(split, ValidSplit) else None
    if isinstance(cv, int) and cv > 1:
        return f"{100 / cv:.3g} %"
    return f"{100 * cv:.3g} %" if isinstance(cv, float) and cv < 1 else "some"


def _has_batch_norm(net: Any) -> bool:
    # of one-dimensional rows: an image of several pixels is enough for a mean and a variance
    with torch_state_kept():
        module = unwrapped(_initialised(net).module_)
    return any(isinstance(each, nn.BatchNorm1d) for each in module.modules())


def _initialised(net: Any) -> Any:
    return clone(net).initialize()


def train_clone(
    estimator: Any, X: Any, y: Any, sample_weight: Any = None, *, random_state: Any = None, callbacks: Any = None
) -> Any:
    """A clone of the estimator, fitted on (X, y); the estimator and torch's global random state stay as they are.

    sample_weight goes to the model (of a Pipeline: to its last step), which must take it. random_state seeds torch
    and every `random_state` parameter that is None. callbacks: skorch callbacks added to the net's own.
    A clone starts from new weights if its module is given as a class. A module given as an *instance* is copied with
    the weights it has, as skorch does: an instance that was trained before is trained further.
    Raises ValueError for weights that the model does not take, targets that would be broadcast, and a loss that
    became NaN or infinite, naming the epoch and, where one is to blame, the row.
    """
    copy = clone(estimator)
    given = GivenModel.of(copy)
    seed = seed_of(random_state)
    seed_parts(copy, seed)
    if callbacks:
        _add_callbacks(given.model, list(callbacks))
    arguments = _weight_arguments(copy, given.model, sample_weight)
    with torch_state_kept():
        if isinstance(given.model, NeuralNet) and not given.transformers and may_broadcast(given.model):
            check_targets(_initialised(given.model), X, y)
        # seeded last: the check above has drawn weights of its own
        seed_generators(seed)
        copy.fit(X, y, **arguments)
    given = GivenModel.of(copy)
    if given.net is not None:
        X, y = given.seen(GivenRows(X, y, sample_weight))
        _check_history(given.net, X, y)
        if given.transformers and may_broadcast(given.net):  # the net's own X exists only now
            check_targets(given.net, X, y)
    return copy


def seed_parts(estimator: Any, seed: int) -> Any:
    """The estimator, with the seed in every `random_state` of it and its parts that is None."""
    unset = {
        name: seed
        for name, value in estimator.get_params(deep=True).items()
        if value is None and f"__{name}".endswith("__random_state")
    }
    return estimator.set_params(**unset)


def may_broadcast(net: Any) -> bool:
    kind = net.criterion if isinstance(net.criterion, type) else type(net.criterion)
    return issubclass(kind, SAME_SHAPE)


def _add_callbacks(model: Any, callbacks: list[Any]) -> None:
    if isinstance(model, proxy.TYPES):
        model.set_params(callbacks=[*(model.callbacks or []), *callbacks])
        return
    if not isinstance(model, NeuralNet):
        raise TypeError(f"callbacks are for skorch nets, and {type(model).__name__} is none")
    if model.callbacks == "disable":  # keep the defaults off, one by one, but let these in
        model.callbacks = callbacks
        model.set_params(**{f"callbacks__{name}": None for name, _ in model._default_callbacks})
    else:
        model.callbacks = [*(model.callbacks or []), *callbacks]


def _weight_arguments(estimator: Any, model: Any, sample_weight: Any) -> dict[str, Any]:
    if sample_weight is None:
        return {}
    if "sample_weight" not in inspect.signature(model.fit).parameters:
        raise ValueError(
            f"{type(model).__name__} takes no sample_weight; leave the weights out, or use an estimator whose fit has "
            "a sample_weight argument"
        )
    path = []
    while isinstance(estimator, Pipeline):
        step, estimator = estimator.steps[-1]
        path.append(step)
    return {"__".join([*path, "sample_weight"]): sample_weight}


def _check_history(net: Any, X: Any, y: Any) -> None:
    """ValueError if a training loss was not finite, naming the epoch and the learning rate, or the row to blame."""
    for epoch in net.history:
        losses = [batch["train_loss"] for batch in epoch.get("batches", []) if "train_loss" in batch]
        if np.isfinite(losses).all():
            continue
        row = bad_row(net, X, y)
        cause = (
            f"row {row} of X or y holds NaN or infinity; impute or drop it"
            if row is not None
            else f"the training diverged at learning rate {net.lr:g} "
            f"({type(net.optimizer_).__name__}); lower it, or standardise X and y"
        )
        raise ValueError(f"the training loss became NaN or infinite in epoch {epoch['epoch']}: {cause}")
    return


def bad_row(net: Any, X: Any, y: Any) -> int | None:
    n, inputs, targets = reader(net, X, y)
    for rows in slices(n, BLOCK):
        values = [inputs(rows), *([] if targets is None else [targets(rows)])]
        flat = [each for value in values for each in (value.values() if isinstance(value, dict) else [value])]
        for value in flat:
            wrong = ~torch.isfinite(value).reshape(len(value), -1).all(dim=1)
            if wrong.any():
                return rows.start + int(wrong.nonzero()[0])
    return None
