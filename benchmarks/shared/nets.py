"""Trained nets for the benchmarks of the engine, functions timed side by side, and how well numbers agree."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from shared.common import fashion_mnist, load, quick
from torch import nn
from torch.nn import functional as F

from sktda.engine.per_row import PerRow
from sktda.model.adapters import differentiable
from sktda.model.base import DifferentiableModel, Rows

SEED = 0


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of these widths with an activation between them, and dropout after it."""
    between = [activation, lambda: nn.Dropout(dropout)] if dropout else [activation]
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), *(make() for make in between)]
    return nn.Sequential(*layers[: -len(between)])


class ResNet9(nn.Module):
    """The small residual net of the CIFAR speed records: eight convolutions with batch normalisation, one Linear."""

    def __init__(self, width: int = 32, n_classes: int = 10) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(block(3, w), block(w, 2 * w), nn.MaxPool2d(2))
        self.first = nn.Sequential(block(2 * w, 2 * w), block(2 * w, 2 * w))
        self.middle = nn.Sequential(block(2 * w, 4 * w), nn.MaxPool2d(2), block(4 * w, 8 * w), nn.MaxPool2d(2))
        self.second = nn.Sequential(block(8 * w, 8 * w), block(8 * w, 8 * w))
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8 * w, n_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, n_classes) of images (n, 3, 32, 32)."""
        x = self.stem(x)
        x = self.middle(x + self.first(x))
        return self.head(x + self.second(x))


class SmallCNN(nn.Module):
    """Three convolutions with batch normalisation and a Linear, 34,000 parameters; mirrored at random in training."""

    def __init__(self, width: int = 16, n_classes: int = 10) -> None:
        super().__init__()
        w = width
        blocks = [layer for n in ((3, w), (w, 2 * w), (2 * w, 4 * w)) for layer in (block(*n), nn.MaxPool2d(2))]
        self.layers = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(16 * 4 * w, n_classes))
        self.layers.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, n_classes) of images (n, 3, 32, 32)."""
        if self.training:
            x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
        return self.layers(x)


def block(n_in: int, n_out: int) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())


@dataclass
class Setting:
    """A trained net with its rows, the engine on it, and rows to ask about."""

    net: Any
    X: np.ndarray
    y: np.ndarray
    X_val: np.ndarray
    y_val: np.ndarray

    def __post_init__(self) -> None:
        self.model: DifferentiableModel = differentiable(self.net)
        self.rows: Rows = self.model.rows(self.X, self.y)
        self.validation: Rows = self.model.rows(self.X_val, self.y_val)
        self.engine = PerRow(self.model)


def trained(
    module: nn.Module,
    X: np.ndarray,
    y: np.ndarray,
    epochs: int,
    lr: float,
    n_checkpoints: int = 5,
    device: str = "cpu",
    batch_size: int = 128,
) -> Any:
    """skorch net after `epochs` of SGD with momentum 0.9, recorded; with --quick five at most."""
    from skorch import NeuralNetClassifier

    from sktda.model.recorder import TrajectoryRecorder

    torch.manual_seed(SEED)
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=lr,
        max_epochs=min(epochs, 5) if quick() else epochs,
        batch_size=batch_size,
        train_split=None,
        verbose=0,
        device=device,
        callbacks=[TrajectoryRecorder(n_checkpoints=n_checkpoints)],
    ).fit(X, y)


def fashion(n: int, n_queries: int = 1000, n_checkpoints: int = 5) -> Setting:
    """Fashion-MNIST, n rows, MLP 784-512-512-10 after 5 epochs; the validation rows are test images.

    With --quick the first digits, whose curvature takes milliseconds, and their net.
    """
    if quick():
        return digits(n, n_queries, n_checkpoints)
    x_train, y_train, x_test, y_test = fashion_mnist()
    X, X_val = (part.reshape(len(part), -1).astype(np.float32) / 255 for part in (x_train[:n], x_test[:n_queries]))
    torch.manual_seed(SEED)
    net = trained(mlp(784, 512, 512, 10), X, y_train[:n], epochs=5, lr=0.05, n_checkpoints=n_checkpoints)
    return Setting(net, X, y_train[:n], X_val, y_test[:n_queries])


def digits(n: int = 1_437, n_queries: int = 360, n_checkpoints: int = 5) -> Setting:
    """Digits, n rows, MLP 64-64-64-10 after 30 epochs; other rows to ask about."""
    from sklearn.model_selection import train_test_split

    X, y = load("digits")
    X, X_val, y, y_val = train_test_split(
        (X / 16).astype(np.float32), y, train_size=n, test_size=n_queries, random_state=SEED
    )
    torch.manual_seed(SEED)
    return Setting(trained(mlp(64, 64, 64, 10), X, y, 30, 0.05, n_checkpoints), X, y, X_val, y_val)


def images(n: int, n_queries: int = 100, width: int = 32, device: str = "cpu") -> Setting:
    """Random 32x32x3 images and labels, ResNet-9 of this width after one epoch (so that its statistics are set)."""
    rng = np.random.default_rng(SEED)
    X = rng.standard_normal((n + n_queries, 3, 32, 32), dtype=np.float32)
    y = rng.integers(0, 10, len(X))
    torch.manual_seed(SEED)
    net = trained(ResNet9(width), X[:1024][:n], y[:1024][:n], epochs=1, lr=0.01, n_checkpoints=1, device=device)
    return Setting(net, X[:n], y[:n], X[n:], y[n:])


def plain_pass(setting: Setting, size: int, n: int | None = None) -> Callable[[], None]:
    """One forward and backward pass over the (first n) rows in batches of this size: what every ratio is to."""
    model = setting.model
    X, y = torch.from_numpy(setting.X[:n]), torch.from_numpy(setting.y[:n])

    def run() -> None:
        for start in range(0, len(X), size):
            inputs, targets = X[start : start + size].to(model.device), y[start : start + size].to(model.device)
            model.module.zero_grad(set_to_none=True)
            F.cross_entropy(model.module(inputs), targets).backward()
        model.module.zero_grad(set_to_none=True)

    return run


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, result)."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def interleaved(tasks: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of every task: one after the other in every round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats + 1):
        for name, task in tasks.items():
            seconds[name].append(timed(task)[0])
    return {name: float(np.median(values[1:])) for name, values in seconds.items()}


def agreement(ours: Any, theirs: Any) -> dict[str, float]:
    """Pearson and Spearman correlation of all pairs, and |ours - theirs| / |theirs|; both as theirs are scaled."""
    from scipy.stats import rankdata

    a, b = (np.asarray(values, dtype=float).ravel() for values in (ours, theirs))
    return {
        "pearson": float(np.corrcoef(a, b)[0, 1]),
        "spearman": float(np.corrcoef(rankdata(a), rankdata(b))[0, 1]),
        "relative_error": float(np.linalg.norm(a - b) / np.linalg.norm(b)),
    }
