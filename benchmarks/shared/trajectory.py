"""Problems with wrong labels, and nets trained on them with a record, for the benchmarks of methods along the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from shared.batched import Recipe, cross_entropy
from shared.common import fashion_mnist, flip, load, quick

N_CHECKPOINTS = 6  # the recorder's default: TracIn's and Source's own choice
DIGITS_ROWS, VALIDATION_ROWS = 1_280, 1_000  # 1,280: whole epochs of batches of 64 make 200 steps

SOFTMAX = Recipe((64, 10), cross_entropy, lr=0.1, weight_decay=1e-3, batch_size=64, epochs=10, momentum=0.0)
FULL_BATCH = Recipe(
    (64, 10), cross_entropy, lr=0.1, weight_decay=1e-3, batch_size=DIGITS_ROWS, epochs=200, momentum=0.0
)
DIGITS_MLP = Recipe((64, 64, 64, 10), cross_entropy, lr=0.02, weight_decay=1e-3, batch_size=64, epochs=20)
FASHION_MLP = Recipe((784, 256, 256, 10), cross_entropy, lr=0.01, weight_decay=5e-4, batch_size=64, epochs=20)


@dataclass(frozen=True)
class Problem:
    """Rows to train on with the labels as given, which of these are wrong, and rows that nobody trains on."""

    X: np.ndarray
    y: np.ndarray
    wrong: np.ndarray
    X_val: np.ndarray
    y_val: np.ndarray

    @cached_property
    def held(self) -> dict[str, np.ndarray]:
        """The validation rows, whose labels are right, as `fit` takes them."""
        return {"X_val": self.X_val, "y_val": self.y_val}


def digits(rate: float, seed: int) -> Problem:
    """Digits, pixels in [0, 1]: 1,280 rows, a share `rate` with another label; the other 517 validate."""
    X, y = load("digits")
    order = np.random.default_rng(seed).permutation(len(y))
    n = min(DIGITS_ROWS, 3 * len(y) // 4)
    train, val = order[:n], order[n:]
    X = (X / 16).astype(np.float32)
    given, wrong = flip(y[train], "uniform", rate, seed)
    return Problem(X[train], given, wrong, X[val], y[val])


def fashion(n: int, rate: float, seed: int) -> Problem:
    """Fashion-MNIST, pixels in [0, 1]: the first n training images, as `digits`; the last 1,000 of the file validate.

    Where n takes all, the validation rows are the first test images.
    """
    x_train, y_train, x_test, y_test = fashion_mnist()
    if n + VALIDATION_ROWS > len(x_train):
        x_val, y_val = x_test[:VALIDATION_ROWS], y_test[:VALIDATION_ROWS]
    else:
        x_val, y_val = x_train[-VALIDATION_ROWS:], y_train[-VALIDATION_ROWS:]
    given, wrong = flip(y_train[:n], "uniform", rate, seed)
    return Problem(pixels(x_train[:n]), given, wrong, pixels(x_val), y_val)


def pixels(images: np.ndarray) -> np.ndarray:
    """(n, 784) in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def recorded(
    recipe: Recipe, X: np.ndarray, y: np.ndarray, seed: int, *, steps: bool = False, module: Any = None
) -> Any:
    """A skorch net after the recipe, with a record of 6 checkpoints; `module` takes the place of the recipe's MLP.

    With --quick of two epochs.
    """
    from shared.nets import mlp
    from skorch import NeuralNetClassifier

    from sktda.model.recorder import TrajectoryRecorder

    torch.manual_seed(seed)
    return NeuralNetClassifier(
        mlp(*recipe.widths) if module is None else module,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=recipe.momentum,
        optimizer__weight_decay=recipe.weight_decay,
        lr=recipe.lr,
        max_epochs=2 if quick() else recipe.epochs,
        batch_size=recipe.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints=N_CHECKPOINTS, steps=steps)],
    ).fit(X, y)


def log_probability(net: Any, problem: Any) -> np.ndarray:
    """Minus the loss of each row; ranks as the model's confidence in the given label does."""
    probability = net.predict_proba(problem.X)[np.arange(len(problem.y)), problem.y]
    return np.log(np.maximum(probability, np.finfo(probability.dtype).tiny))


@dataclass
class LeaveOneOut:
    """Softmax regression trained again without each row, all runs side by side: their weights stacked.

    The start, the batches, and the number that a batch's losses are divided by stay those of the recorded run; the
    row that a run leaves out counts nothing. In float64, so that the effect of one row is not lost in rounding.
    """

    net: Any
    problem: Problem
    recipe: Recipe
    runs: int = field(default=256)
    """How many are trained at a time."""

    def rises(self) -> np.ndarray:
        """(n,) rise of the mean validation loss when the row is left out."""
        n = len(self.problem.X)
        losses = [self._losses(torch.arange(start, min(start + self.runs, n))) for start in range(0, n, self.runs)]
        return (torch.cat(losses) - self._losses(torch.tensor([-1]))).numpy()  # -1: all rows count

    def _losses(self, left_out: torch.Tensor) -> torch.Tensor:
        from sktda.model.recorder import find_trajectory

        trajectory = find_trajectory(self.net)
        assert trajectory is not None
        inputs = with_ones(self.problem.X)
        right = torch.nn.functional.one_hot(torch.from_numpy(self.problem.y)).double()
        weight, bias = (value.double() for value in trajectory.initial_state().values())
        weights = torch.cat([weight, bias[:, None]], dim=1).repeat(len(left_out), 1)  # (runs * classes, columns)
        shape = len(left_out), len(bias)
        for step in range(trajectory.n_steps):
            rows = torch.from_numpy(trajectory.step_rows(step))
            errors = (inputs[rows] @ weights.T).unflatten(1, shape).softmax(-1) - right[rows][:, None]
            errors[rows[:, None] == left_out] = 0
            slope = errors.flatten(1).T @ inputs[rows] / len(rows) + self.recipe.weight_decay * weights
            weights -= trajectory.step_learning_rates[step] * slope
        outputs = (with_ones(self.problem.X_val) @ weights.T).unflatten(1, shape)
        right_classes = torch.from_numpy(self.problem.y_val)[:, None].expand(outputs.shape[:2])
        return cross_entropy(outputs, right_classes).mean(0)


def with_ones(X: np.ndarray) -> torch.Tensor:
    """(n, d + 1) float64, the last column 1."""
    rows = torch.from_numpy(X).double()
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
