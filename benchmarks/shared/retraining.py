"""Models trained again on random halves of the rows, as truth.py keeps them and lds.py compares with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from shared.batched import Recipe, absolute_error, cross_entropy, margin, squared_error, trained
from shared.common import concrete_strength, load, mnist
from torch import Tensor

OUT = Path(__file__).parents[1] / "truth"
N_FULL = 10
NET = (64, 64, 64, 10)


@dataclass(frozen=True)
class Problem:
    """Rows to train on and to ask about, as the nets get them."""

    X: Tensor
    y: Tensor
    X_query: Tensor
    y_query: Tensor
    train_index: np.ndarray
    query_index: np.ndarray


@dataclass(frozen=True)
class Truth:
    """What is retrained, how often, and what is noted beside the loss."""

    load: Callable[[], Problem]
    recipe: Recipe
    measure: Callable[[Tensor, Tensor], Tensor]
    n_subsets: int
    n_retrains: int


def split(n: int, n_train: int, n_query: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of rows to train on and to ask about."""
    if n < n_train + n_query:  # with --quick
        n_train, n_query = 3 * n // 4, n // 4
    order = np.random.default_rng(0).permutation(n).astype(np.int32)
    return order[:n_train], order[n_train : n_train + n_query]


def digits() -> Problem:
    """1,347 rows of digits, pixels in [0, 1], and 100 queries."""
    X, y = load("digits")
    train, query = split(len(X), 1347, 100)
    inputs, targets = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)
    return Problem(inputs[train], targets[train], inputs[query], targets[query], train, query)


def concrete() -> Problem:
    """927 rows of concrete strength and 103 queries, inputs and target standardised by the rows that train."""
    X, y = concrete_strength()
    train, query = split(len(X), 927, 103)
    X = (X - X[train].mean(axis=0)) / (X[train].std(axis=0) + 1e-8)
    y = (y - y[train].mean()) / y[train].std()
    inputs, targets = torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    return Problem(inputs[train], targets[train], inputs[query], targets[query], train, query)


def digits28() -> Problem:
    """6,144 training pictures of MNIST and 100 test pictures, pixels standardised by their mean and spread."""
    x_train, y_train, x_test, y_test = mnist()
    train, query = split(len(x_train), 6_144, 0)[0], split(len(x_test), 0, 100)[1]
    inputs, asked = (torch.from_numpy(standardised(part)) for part in (x_train[train], x_test[query]))
    return Problem(inputs, torch.tensor(y_train[train]), asked, torch.tensor(y_test[query]), train, query)


def first_digits28() -> Problem:
    """The first 5,000 training and 500 test pictures of MNIST, as in the benchmark of dattri (arXiv:2410.04555)."""
    x_train, y_train, x_test, y_test = mnist()
    train, query = (np.arange(min(n, len(x)), dtype=np.int32) for n, x in ((5_000, x_train), (500, x_test)))
    inputs, asked = (torch.from_numpy(standardised(part)) for part in (x_train[train], x_test[query]))
    return Problem(inputs, torch.tensor(y_train[train]), asked, torch.tensor(y_test[query]), train, query)


def standardised(pictures: np.ndarray) -> np.ndarray:
    """(n, 784) float32 of MNIST's pictures."""
    return ((pictures.reshape(len(pictures), -1) / 255 - 0.1307) / 0.3081).astype(np.float32)


def noisy_digits() -> Problem:
    """The digits, 30 % of whose training labels are drawn again."""
    problem = digits()
    rng = np.random.default_rng(7)
    y = problem.y.numpy().copy()
    noisy = rng.random(len(y)) < 0.3
    y[noisy] = rng.integers(0, 10, noisy.sum())
    return replace(problem, y=torch.tensor(y))


def few(recipe: Recipe) -> Truth:
    """A truth of the digits from fewer trainings, enough to compare settings."""
    return Truth(digits, recipe, margin, n_subsets=40, n_retrains=3)


TRUTHS = {
    # after 20 epochs the nets of half the rows are not there yet: loss .11 on their own rows, .04 after 40
    "digits": Truth(
        digits,
        Recipe((64, 64, 64, 10), cross_entropy, lr=0.03, weight_decay=1e-3, batch_size=64, epochs=40),
        margin,
        n_subsets=50,
        n_retrains=10,
    ),
    "digits_adamw": Truth(
        digits,
        Recipe((64, 64, 64, 10), cross_entropy, lr=2e-3, weight_decay=1e-2, batch_size=64, epochs=20, momentum=None),
        margin,
        n_subsets=50,
        n_retrains=10,
    ),
    "mnist": Truth(
        digits28,
        Recipe((784, 512, 256, 128, 10), cross_entropy, lr=0.03, weight_decay=1e-3, batch_size=64, epochs=20),
        margin,
        n_subsets=50,
        n_retrains=2,
    ),
    # dattri's mnist_lr and mnist_mlp: its subsets are 100, trained on once; a second training shows the ceiling
    "mnist_lr": Truth(
        first_digits28,
        Recipe((784, 10), cross_entropy, lr=0.01, weight_decay=0.0, batch_size=32, epochs=20, momentum=0.0),
        margin,
        n_subsets=100,
        n_retrains=2,
    ),
    "mnist_mlp": Truth(
        first_digits28,
        Recipe((784, 128, 64, 10), cross_entropy, lr=0.01, weight_decay=0.0, batch_size=64, epochs=50, dropout=0.1),
        margin,
        n_subsets=100,
        n_retrains=2,
    ),
    "mnist_decay": Truth(
        first_digits28,
        Recipe((784, 512, 256, 128, 10), cross_entropy, lr=0.03, weight_decay=1e-3, batch_size=64, epochs=20),
        margin,
        n_subsets=50,
        n_retrains=2,
    ),
    "digits_short": few(Recipe(NET, cross_entropy, lr=0.03, weight_decay=1e-5, batch_size=64, epochs=5)),
    "digits_decay": few(Recipe(NET, cross_entropy, lr=0.03, weight_decay=1e-2, batch_size=64, epochs=40)),
    "digits_wide": few(Recipe((64, 256, 10), cross_entropy, lr=0.05, weight_decay=1e-4, batch_size=32, epochs=20)),
    "digits_noise": replace(
        few(Recipe(NET, cross_entropy, lr=0.03, weight_decay=3e-4, batch_size=64, epochs=20)), load=noisy_digits
    ),
    "concrete": Truth(
        concrete,
        Recipe((8, 128, 128, 128, 1), squared_error, lr=0.03, weight_decay=1e-5, batch_size=32, epochs=20),
        absolute_error,
        n_subsets=100,
        n_retrains=20,
    ),
}


def half_masks(n: int, n_subsets: int) -> np.ndarray:
    """(n_subsets, n) bool: random subsets of half the rows."""
    rng = np.random.default_rng(1)
    masks = np.zeros((n_subsets, n), dtype=bool)
    for mask in masks:
        mask[rng.choice(n, n // 2, replace=False)] = True
    return masks


def answers(truth: Truth, problem: Problem, rows: Tensor, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Loss and measure (n_nets, n_query) of nets trained on `rows` (n_nets, n_kept), one group after the other."""
    loss, measure = [], []
    start = time.perf_counter()
    for first in range(0, len(seeds), truth.recipe.group_size):
        group = slice(first, min(first + truth.recipe.group_size, len(seeds)))
        nets = trained(truth.recipe, problem.X, problem.y, rows[group], seeds[group])
        with torch.no_grad():
            outputs = nets(problem.X_query)
        targets = problem.y_query.expand(len(outputs), -1)
        loss.append(truth.recipe.loss(outputs, targets))
        measure.append(truth.measure(outputs, targets))
        print(f"{group.stop} of {len(seeds)} nets of {rows.shape[1]} rows: {time.perf_counter() - start:.0f} s")
    return torch.cat(loss).cpu().numpy(), torch.cat(measure).cpu().numpy()


def make(truth: Truth) -> dict[str, np.ndarray]:
    """The content of the file."""
    problem = truth.load()
    n = len(problem.X)
    masks = half_masks(n, truth.n_subsets)
    rows = torch.from_numpy(np.stack([np.flatnonzero(mask) for mask in masks]))
    n_nets = truth.n_subsets * truth.n_retrains
    retrains = answers(truth, problem, rows.repeat_interleave(truth.n_retrains, dim=0), range(n_nets))
    loss, measure = (found.reshape(truth.n_subsets, truth.n_retrains, -1) for found in retrains)
    full_loss, full_measure = answers(truth, problem, torch.arange(n).expand(N_FULL, n), range(n_nets, n_nets + N_FULL))
    return {
        "train_index": problem.train_index,
        "query_index": problem.query_index,
        "masks": np.packbits(masks, axis=1),
        "n_train": np.array(n),
        "y_train": problem.y.cpu().numpy(),
        "loss": loss,
        "measure": measure,
        "full_loss": full_loss,
        "full_measure": full_measure,
    }
