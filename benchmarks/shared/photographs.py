"""CIFAR-10 with the labels that people gave, rows of it drawn by a seed, and what a linear head learns from them."""

from __future__ import annotations

import numpy as np
from shared.common import data_folder, fashion_mnist, flip, quick

PENALTY = 0.3  # of the ridge, by row: features are standardised


def cifar() -> dict[str, np.ndarray] | None:
    """x_train, x_test (n, 32, 32, 3) uint8, y_test; of x_train the labels true, aggregate and worst.

    They are in cifar10n.npz, which photographs.py makes; None where it is not there. With --quick 600 and 100 digits.
    """
    if quick():
        x_train, true, x_test, y_test = fashion_mnist()
        x_train, x_test = (np.repeat(np.pad(x, ((0, 0), (2, 2), (2, 2)))[..., None], 3, 3) for x in (x_train, x_test))
        noisy = {"aggregate": flip(true, "uniform", 0.1)[0], "worst": flip(true, "uniform", 0.4)[0]}
        return {"x_train": x_train, "true": true, "x_test": x_test, "y_test": y_test} | noisy
    folder = data_folder()
    path = folder and folder / "cifar10n.npz"
    if not path or not path.exists():
        return None
    return {name: each if name.startswith("x") else each.astype(int) for name, each in np.load(path).items()}


def drawn(n_all: int, n: int, seed: int) -> np.ndarray:
    """n positions in ascending order."""
    return np.sort(np.random.default_rng(seed).permutation(n_all)[:n])


def heads(
    X: np.ndarray,
    given: np.ndarray,
    true: np.ndarray,
    test: tuple[np.ndarray, np.ndarray],
    scores: np.ndarray,
    called_right: np.ndarray,
) -> dict[str, float]:
    """Test accuracy of a ridge classifier on standardised features, by the rows that it is trained on."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import LabelBinarizer, StandardScaler

    scaler = StandardScaler().fit(X)
    X, X_test = scaler.transform(X), scaler.transform(test[0])
    right = given == true
    worst = np.ones(len(X), dtype=bool)
    worst[scores.argsort()[: int((~right).sum())]] = False
    accuracy = {}
    for name, rows in {"all": slice(None), "detector": called_right, "worst ones out": worst, "oracle": right}.items():
        targets = LabelBinarizer(neg_label=-1).fit_transform(given[rows]).astype(np.float32)
        head = Ridge(PENALTY * len(targets), solver="cholesky").fit(X[rows], targets)
        accuracy[name] = float((head.predict(X_test).argmax(axis=1) == test[1]).mean())
    return accuracy
