"""Small skorch nets and data for the tests of trajectories."""

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sktda.model.recorder import TrajectoryRecorder


class Mlp(nn.Module):
    """Linear, ReLU, (dropout,) Linear."""

    def __init__(self, width=5, dropout=0.0):
        super().__init__()
        self.first = nn.Linear(3, width)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(width, 2)

    def forward(self, X):
        return self.last(self.dropout(torch.relu(self.first(X))))


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, X):
        return self.second(torch.relu(self.first(X)))


def rows(n=40, seed=0):
    """(X (n, 3) float32, y (n,) 0/1)."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    return X, (X[:, 0] + 0.3 * rng.normal(size=n) > 0).astype(np.int64)


def make_net(recorder=None, *, module=Mlp, callbacks=(), seed=0, **options):
    """An untrained classifier: SGD, 6 epochs of 4 batches of 10 rows, shuffled, weights from the seed."""
    settings = {
        "criterion": nn.CrossEntropyLoss,
        "max_epochs": 6,
        "batch_size": 10,
        "lr": 0.1,
        "train_split": None,
        "iterator_train__shuffle": True,
        "verbose": 0,
    } | options
    torch.manual_seed(seed)
    return NeuralNetClassifier(module, callbacks=[*([recorder] if recorder else []), *callbacks], **settings)


def record(X, y, callbacks=(), seed=0, net_options=None, **options):
    """(fitted net, its trajectory) recorded with these options of TrajectoryRecorder."""
    net = make_net(TrajectoryRecorder(**options), callbacks=callbacks, seed=seed, **(net_options or {}))
    net.fit(X, y)
    return net, recorder_of(net).trajectory_


def recorder_of(net):
    """The recorder of a fitted net."""
    return next(callback for _, callback in net.callbacks_ if isinstance(callback, TrajectoryRecorder))
