"""The problems of the LDS benchmark: rows as the nets get them, retrained truth, nets trained as those of the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from shared.batched import Recipe, cross_entropy, squared_error
from shared.common import concrete_strength, data_folder, fashion_mnist, mnist, quick
from shared.common import load as table
from shared.retraining import OUT, TRUTHS, make, standardised

MLP = (784, 512, 256, 128, 10)
RECIPES = {
    **{name: truth.recipe for name, truth in TRUTHS.items()},
    "fmnist": Recipe(MLP, cross_entropy, lr=0.03, weight_decay=1e-3, batch_size=64, epochs=20),
    "fmnist_n": Recipe(MLP, cross_entropy, lr=0.01, weight_decay=3e-5, batch_size=64, epochs=3),
}
N_CHECKPOINTS = 6
BY_LOSS = ("mnist_lr", "mnist_mlp")  # classes of which, as published, the loss is predicted


@dataclass(frozen=True)
class Problem:
    """What is attributed and what retraining said.

    y is (n,) classes or, of recipes with the squared error, (n, 1) float32. kept (n_subsets, n) bool; measured
    (n_subsets, n_retrains, n_query), lower = better: minus the margin (kind "margin") or the loss (kind "loss").
    """

    name: str
    kind: str
    recipe: Recipe
    X: np.ndarray
    y: np.ndarray
    X_query: np.ndarray
    y_query: np.ndarray
    kept: np.ndarray
    measured: np.ndarray


def truth(name: str) -> Mapping[str, np.ndarray]:
    """From SKTDA_DATA or benchmarks/truth; made there where it is missing and has a recipe (with --quick: in memory).

    Raises FileNotFoundError where it has none.
    """
    if quick():
        return small_truth(name)
    own = OUT / f"{name}.npz"
    places = [folder.parent / "truth" / f"{name}.npz" for folder in filter(None, [data_folder()])]
    for file in (*places, own):
        if file.exists():
            print(f"{name}: truth in {file}", flush=True)
            return np.load(file)
    if name not in TRUTHS:
        raise FileNotFoundError(
            f"no {name}.npz in {' or '.join(str(file.parent) for file in (*places, own))}, and truth.py makes only "
            f"{', '.join(TRUTHS)}; set SKTDA_DATA to the folder whose folder truth has it"
        )
    OUT.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(own, **make(TRUTHS[name]))
    return np.load(own)


@cache
def small_truth(name: str) -> Mapping[str, np.ndarray]:
    """Few subsets and short trainings: shows that it runs."""
    short = replace(TRUTHS[name].recipe, epochs=1)
    return make(replace(TRUTHS[name], recipe=short, n_subsets=4, n_retrains=2))


def load(name: str) -> Problem:
    """The problem of a truth."""
    known = truth(name)
    recipe = replace(RECIPES[name], epochs=2) if quick() else RECIPES[name]
    by_name = {"concrete": concrete, "mnist": mnist_pictures, "digits": digits, "fmnist": fashion}
    rows = by_name[name.split("_")[0]]
    X, X_query, y_query = rows(known["train_index"], known["query_index"])
    kept = np.unpackbits(known["masks"], axis=1)[:, : int(known["n_train"])].astype(bool)
    if recipe.loss is squared_error:
        y, y_query = (part.astype(np.float32)[:, None] for part in (known["y_train"], y_query))
        return Problem(name, "loss", recipe, X, y, X_query, y_query, kept, known["loss"])
    if name in BY_LOSS:
        return Problem(name, "loss", recipe, X, known["y_train"], X_query, y_query, kept, known["loss"])
    return Problem(name, "margin", recipe, X, known["y_train"], X_query, y_query, kept, -known["measure"])


def digits(train: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X, X_query, y_query): pixels in [0, 1]."""
    X, y = table("digits")
    X = (X / 16).astype(np.float32)
    return X[train], X[query], y[query]


def fashion(train: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X, X_query, y_query): standardised pixels; queries are test images, with their true labels."""
    x_train, _, x_test, y_test = fashion_mnist()
    X, X_query = (
        ((part.reshape(len(part), -1) / 255 - 0.2860) / 0.3530).astype(np.float32)
        for part in (x_train[train], x_test[query])
    )
    return X, X_query, y_test[query]


def mnist_pictures(train: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `fashion`, of MNIST."""
    x_train, _, x_test, y_test = mnist()
    return standardised(x_train[train]), standardised(x_test[query]), y_test[query]


def concrete(train: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X, X_query, y_query), inputs and target standardised by the rows that train."""
    X, y = concrete_strength()
    X = ((X - X[train].mean(axis=0)) / (X[train].std(axis=0) + 1e-8)).astype(np.float32)
    return X[train], X[query], ((y - y[train].mean()) / y[train].std())[query]


def trained(problem: Problem, seed: int, *, recorded: bool = True) -> Any:
    """A skorch net after the recipe of the truth, on all rows, recorded at 6 checkpoints (or not)."""
    from shared.nets import mlp
    from skorch import NeuralNetClassifier, NeuralNetRegressor

    from sktda.model.recorder import TrajectoryRecorder

    recipe = problem.recipe
    estimator, criterion = {
        cross_entropy: (NeuralNetClassifier, torch.nn.CrossEntropyLoss),
        squared_error: (NeuralNetRegressor, torch.nn.MSELoss),
    }[recipe.loss]
    optimiser: dict[str, Any] = {"optimizer": torch.optim.AdamW}
    if recipe.momentum is not None:
        optimiser = {"optimizer": torch.optim.SGD, "optimizer__momentum": recipe.momentum}
    recorder = TrajectoryRecorder(n_checkpoints=N_CHECKPOINTS, optimizer_state=recipe.momentum is None)
    torch.manual_seed(seed)
    return estimator(
        mlp(*recipe.widths, dropout=recipe.dropout),
        criterion=criterion,
        **optimiser,
        optimizer__weight_decay=recipe.weight_decay,
        lr=recipe.lr,
        max_epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[recorder] if recorded else [],
    ).fit(problem.X, problem.y)
