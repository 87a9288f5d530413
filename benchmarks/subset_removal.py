"""Does removing the rows that a method names turn a prediction over?

    python benchmarks/subset_removal.py            # two to five minutes on one core
    python benchmarks/subset_removal.py --quick    # few rows, nothing written: does it run?

1,500 images of Fashion-MNIST, halved in width and height, and an MLP 196-64-64-10. Asked about are 10 test images that
nets trained on all rows get right, on the average of ten, and 10 that they get wrong. Of each, a method names the rows
whose removal should hurt most (right predictions) or help most (wrong ones); nets are trained again without the first
20, 60 and 180 of them, twice from seeds of their own. A prediction has turned over when the mean margin of the
right class has changed its sign. Methods see one net trained on all rows from another seed, at their defaults; random
rows are drawn for every image. Writes benchmarks/results/subset_removal.json after every method; `python
benchmarks/tables.py` makes the table from it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from shared.batched import Recipe, cross_entropy, margin, trained
from shared.common import begin, fashion_mnist, quick, save

WIDTHS = (196, 64, 64, 10)
RECIPE = Recipe(WIDTHS, cross_entropy, lr=0.05, weight_decay=1e-3, batch_size=64, epochs=10)
COUNTS = (20, 60, 180)
N_FULL, N_RETRAINS = 10, 2
FIRST_SEED = 10_000  # of the net that is explained; retrained ones take theirs from 0 up
METHODS = ("random", "Source", "Influence", "TracIn", "InnerProduct", "TRAK")


def images(n: int, n_test: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(X (n, 196), y, X_test, y_test), standardised."""
    x_train, y_train, x_test, y_test = fashion_mnist()
    small = (
        torch.nn.functional.avg_pool2d(torch.from_numpy(part[:count] / 255.0).float()[:, None], 2).flatten(1)
        for part, count in ((x_train, n), (x_test, n_test))
    )
    X, X_test = ((part - 0.2860) / 0.3530 for part in small)
    return X, torch.from_numpy(y_train[:n]), X_test, torch.from_numpy(y_test[:n_test])


def margins(recipe: Recipe, X: Any, y: Any, rows: torch.Tensor, seeds: range, queries: Any, targets: Any) -> np.ndarray:
    """(n_nets, n_query) of nets trained on `rows` (n_nets, n_kept), one group after the other."""
    found = []
    for first in range(0, len(seeds), recipe.group_size):
        group = slice(first, first + recipe.group_size)
        nets = trained(recipe, X, y, rows[group], seeds[group])
        with torch.no_grad():
            outputs = nets(queries)
        found.append(margin(outputs, targets.expand(len(outputs), -1)))
    return torch.cat(found).numpy()


def explained(recipe: Recipe, X: np.ndarray, y: np.ndarray) -> Any:
    """A recorded skorch net of the same recipe."""
    from shared.nets import mlp
    from skorch import NeuralNetClassifier

    from sktda.model.recorder import TrajectoryRecorder

    torch.manual_seed(FIRST_SEED)
    return NeuralNetClassifier(
        mlp(*recipe.widths),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=recipe.momentum,
        optimizer__weight_decay=recipe.weight_decay,
        lr=recipe.lr,
        max_epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints=6)],
    ).fit(X, y)


def values(method: str, net: Any, X: np.ndarray, y: np.ndarray, queries: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Predicted rise (n_query, n) of minus the margin when a row is removed."""
    from sklearn.frozen import FrozenEstimator

    from sktda import attribution
    from sktda.objectives import Margin

    if method == "random":
        return np.random.default_rng(0).normal(size=(len(queries), len(X)))
    make = getattr(attribution, method)
    return make(FrozenEstimator(net), objective=Margin(), random_state=0).fit(X, y).attribute(queries, targets)


def chosen(right: np.ndarray, n: int) -> np.ndarray:
    """n positions of right and then n of wrong predictions, as many as there are of each."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.permutation(np.flatnonzero(which))[:n] for which in (right, ~right)])


def curves(
    recipe: Recipe, X: Any, y: Any, ranked: np.ndarray, queries: Any, targets: Any, counts: tuple[int, ...]
) -> np.ndarray:
    """Mean margin (n_counts, n_query) of each query without the first rows of its own ranking (n_query, n)."""
    found = []
    for count in counts:
        rows = torch.from_numpy(np.sort(ranked[:, count:], axis=1)).repeat_interleave(N_RETRAINS, 0)
        told = margins(recipe, X, y, rows, range(len(rows)), queries, targets)
        own = told[np.arange(len(rows)), np.repeat(np.arange(len(ranked)), N_RETRAINS)]
        found.append(own.reshape(-1, N_RETRAINS).mean(1))
    return np.stack(found)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    begin(parser, arguments, threads=1)
    n, n_test, n_asked, recipe, counts = 1_500, 400, 10, RECIPE, COUNTS
    if quick():
        n, n_test, n_asked, counts = 60, 40, 2, (5, 20)
        recipe = Recipe(WIDTHS, cross_entropy, lr=0.05, weight_decay=1e-3, batch_size=16, epochs=2)
    X, y, X_test, y_test = images(n, n_test)
    full = margins(recipe, X, y, torch.arange(n).expand(N_FULL, n), range(N_FULL), X_test, y_test).mean(0)
    asked = chosen(full > 0, n_asked)
    queries, targets, before = X_test[asked], y_test[asked], full[asked]
    right = before > 0
    print(
        f"{(full > 0).mean():.1%} of {n_test} test images right; asked about {right.sum()} of them and of the others "
        f"{(~right).sum()}"
    )
    net = explained(recipe, X.numpy(), y.numpy())
    common = {"n": n, "n_retrains": N_RETRAINS, "accuracy": float((full > 0).mean()), "seed": FIRST_SEED}
    rows: list[dict] = []
    for method in METHODS:
        start = time.process_time()
        found = values(method, net, X.numpy(), y.numpy(), queries.numpy(), targets.numpy())
        seconds = time.process_time() - start
        ranked = np.argsort(-np.where(right[:, None], found, -found), axis=1, kind="stable")
        after = curves(recipe, X, y, ranked, queries, targets, counts)
        for count, told in zip(counts, after, strict=True):
            for name, part in (("right", right), ("wrong", ~right)):
                if not part.any():  # with --quick
                    continue
                moved = (before - told if name == "right" else told - before)[part]
                turned = ((told > 0) != right)[part]
                row = {"method": method, "seconds": seconds, "predictions": name, "asked": int(part.sum())}
                row |= {"removed": count, "turned": float(turned.mean()), "moved": float(moved.mean())}
                rows.append(common | row | {"margins": told[part].tolist(), "before": before[part].tolist()})
                print(
                    f"{method:12s} {name} predictions, {count:3d} rows removed: {turned.mean():.0%} turned, "
                    f"margin moved by {moved.mean():+.2f}",
                    flush=True,
                )
        save("subset_removal", rows)


if __name__ == "__main__":
    main()
