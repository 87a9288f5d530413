"""Estimators and attributors that show what reached them, and data with planted errors.

They live in a module of their own so that worker processes can import them.
"""

import os
import sys

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_blobs

from sktda.attribution.base import Attributor, Needs


class RecordingClassifier(ClassifierMixin, BaseEstimator):
    """Predicts its first class; keeps what `fit` received."""

    def fit(self, X, y, sample_weight=None, group=None):
        self.X_, self.y_, self.sample_weight_, self.group_ = X, y, sample_weight, group
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


class CountingScores(Attributor):
    """The first column as score; every fit adds a line to the file `log`: its number of rows."""

    def __init__(self, log=None, damping=0.0):
        self.log = log
        self.damping = damping

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        X = np.asarray(X)
        if self.log is not None:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(f"{len(X)}\n")
        self.scores_ = X[:, 0].astype(float)
        self.sample_weight_ = sample_weight
        return self


def dask_worker(address):
    """A worker of the cluster at this address, until it is killed; what it says goes nowhere."""
    from distributed.cli.dask_worker import main

    with open(os.devnull, "w", encoding="utf-8") as sys.stderr:
        main([address, "--no-nanny", "--nthreads=1", "--no-dashboard"])


def fits(log):
    """Rows of every fit that CountingScores(log) did."""
    return [int(line) for line in log.read_text().split()] if log.exists() else []


class ValidationScores(Attributor):
    """First column of the row plus the sum of the validation rows' first column: shows which rows validated."""

    needs = Needs(validation=True)

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        X = np.asarray(X)
        self.received_ = {"X": X, "X_val": X_val, "y_val": y_val, "metadata_val": metadata_val}
        self.scores_ = X[:, 0] + (0.0 if X_val is None else np.sum(np.asarray(X_val)[:, 0]))
        return self


class ModelScores(Attributor):
    """Takes a model, as methods that differentiate one do."""

    def __init__(self, estimator=None, task="auto", random_state=None):
        self.estimator = estimator
        self.task = task
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        self.scores_ = np.asarray(X)[:, 0].astype(float)
        return self


def flip(y, rate, kind="uniform", seed=0):
    """A copy of y (codes 0..k-1) with round(rate * n) wrong labels: any other class, or always the next one."""
    rng = np.random.default_rng(seed)
    y, k = y.copy(), y.max() + 1
    rows = rng.choice(len(y), round(rate * len(y)), replace=False)
    shift = rng.integers(1, k, len(rows)) if kind == "uniform" else 1
    y[rows] = (y[rows] + shift) % k
    return y


def noisy_blobs(n=120, rate=0.2, centers=3, seed=0):
    """(X, labels of which `rate` are wrong, true labels) of well separated classes."""
    X, y = make_blobs(n, 4, centers=centers, cluster_std=1.0, center_box=(-8, 8), random_state=seed)
    return X, flip(y, rate, seed=seed), y


def visiting(model, states):
    """A generator function that loads one state after another, as the `visit` of a curvature."""

    def visit():
        for number, state in enumerate(states, start=1):
            model.load(state)
            yield f"state {number}"

    return visit
