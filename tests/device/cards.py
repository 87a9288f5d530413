"""Several simulated cards: one in each process, with the number that the library's workers take.

Imported by workers with the module of the net that they are sent.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import nn

from sktda import devices
from tests.device import backend
from tests.device.simulated import NAME, STATE

FOLDER = Path(os.environ.setdefault("SKTDA_CARDS", tempfile.mkdtemp(prefix="sktda-")))  # workers inherit the name


class Net(nn.Sequential):
    """Writes down on which cards it is passed through, and by which process."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if rows.device.type == NAME:
            with open(FOLDER / "passes", "a") as file:
                file.write(f"{STATE.card} {os.getpid()}\n")
        return super().forward(rows)

    def __setstate__(self, state: dict) -> None:
        """In a worker that is scikit-learn's own, too, a net is on the worker's card: a process has only that here."""
        if current_process().name != "MainProcess":
            _taken("auto")
        super().__setstate__(state)


class Means(ClassifierMixin, BaseEstimator):
    """An estimator that a user wrote: the nearest mean of a class, on a device."""

    def __init__(self, device: str = NAME) -> None:
        self.device = device

    def fit(self, X: Any, y: Any) -> Means:
        self.classes_ = np.unique(y)
        means = [X[y == label].mean(axis=0) for label in self.classes_]
        self.module_ = nn.Linear(X.shape[1], len(means)).to(self.device)
        with torch.no_grad():
            self.module_.weight.copy_(torch.from_numpy(np.stack(means)))
            self.module_.bias.copy_(-torch.from_numpy(np.stack(means)).square().sum(dim=1) / 2)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        with torch.no_grad():
            return self.module_(torch.from_numpy(X).to(self.device)).softmax(dim=1).cpu().numpy()


def visible(count: int) -> None:
    """So many cards from now on, and no passes yet."""
    (FOLDER / "count").write_text(str(count))
    (FOLDER / "passes").write_text("")


def passes() -> Counter[int]:
    """Of each card, how often the net was passed through on it in a process of workers."""
    lines = [tuple(map(int, line.split())) for line in (FOLDER / "passes").read_text().splitlines()]
    return Counter(card for card, process in lines if process != os.getpid())


def _taken(device: Any) -> torch.device:
    """`resolve_device`, which finds as many cards of CUDA, and the simulated one of that number."""
    if device != "auto":
        return torch.device(device)
    number, count = devices._worker_number(), int((FOLDER / "count").read_text())
    assert number is not None
    STATE.card = number % count
    return torch.device(NAME)


if current_process().name != "MainProcess":
    backend.install()
    for module in [module for name, module in sys.modules.items() if name.startswith("sktda.")]:
        if hasattr(module, "resolve_device"):
            module.resolve_device = _taken  # type: ignore[attr-defined]
    _taken("auto")
