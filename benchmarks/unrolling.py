"""The exact derivative of a run of SGD and AdamW, and what comes near it: leave-one-out, wrong labels, cost.

    python benchmarks/unrolling.py            # a few minutes on one core
    python benchmarks/unrolling.py --quick    # few rows and steps, one seed, nothing written: does it run?

200 digits with 20 % of the labels flipped, softmax regression (64-10) and an MLP (64-32-10, tanh), 200 steps in batches
of 20, by SGD without momentum and by AdamW with two epsilons. Every row is left out once, from the same start
in the same batches. All methods get the same net and record; validation rows have right labels. Data value embeddings
(arXiv:2412.09538) are computed as published, with all coordinates and with projected ones; the script holds the code,
for the package does not have them. Writes benchmarks/results/unrolling.json after every net.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from shared.common import begin, flip, load, save

SEEDS = (0, 1, 2)
ROWS, BATCH, EPOCHS, VALIDATION = 200, 20, 20, 300
WIDTHS = {"MLP": (64, 32, 10), "softmax regression": (64, 10)}
OPTIMIZERS: dict[str, dict] = {
    "AdamW, epsilon 1e-8": {"lr": 0.003, "eps": 1e-8},
    "AdamW, epsilon 1e-1": {"lr": 0.03, "eps": 1e-1},
    "SGD": {"lr": 0.1},
}
PROJECTED = (256, 1024)
QUERIES = 100  # asked about one by one


def trained(net: str, optimizer: str, X: np.ndarray, y: np.ndarray, seed: int, epochs: int) -> Any:
    """A recorded skorch net in float64."""
    import torch
    from shared.nets import mlp
    from skorch import NeuralNetClassifier

    from sktda.model.recorder import TrajectoryRecorder

    torch.manual_seed(seed)
    return NeuralNetClassifier(
        mlp(*WIDTHS[net], activation=torch.nn.Tanh).double(),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD if optimizer == "SGD" else torch.optim.AdamW,
        **{key if key == "lr" else f"optimizer__{key}": value for key, value in OPTIMIZERS[optimizer].items()},
        max_epochs=epochs,
        batch_size=BATCH,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(steps=True, optimizer_state=optimizer != "SGD")],
    ).fit(X, y)


def leave_one_out(
    net: Any, optimizer: str, X: np.ndarray, y: np.ndarray, X_val: np.ndarray, y_val: np.ndarray
) -> np.ndarray:
    """(n,) rises of the mean validation loss without each row: all runs side by side, their parameters stacked."""
    import torch
    from torch.func import functional_call, vmap
    from torch.nn.functional import cross_entropy

    from sktda.model.recorder import find_trajectory

    run = find_trajectory(net)
    weight = torch.cat([torch.ones(1, len(X)), 1 - torch.eye(len(X))]).double()
    start = run.initial_state()
    own = {name: value[None].repeat(len(weight), *[1] * value.ndim).requires_grad_() for name, value in start.items()}
    kind = torch.optim.SGD if optimizer == "SGD" else torch.optim.AdamW
    steps = kind(own.values(), **OPTIMIZERS[optimizer])  # works by coordinate, so for all runs at once
    forward = vmap(lambda parameters, inputs: functional_call(net.module_, parameters, inputs), (0, None))
    inputs, targets = torch.from_numpy(X), torch.from_numpy(y)
    for k in range(run.n_steps):
        rows = run.step_rows(k)
        outputs = forward(own, inputs[rows])
        losses = cross_entropy(outputs.flatten(0, 1), targets[rows].repeat(len(weight)), reduction="none")
        steps.zero_grad()
        (weight[:, rows] * losses.reshape(len(weight), -1) / len(rows)).sum().backward()
        steps.step()
    with torch.no_grad():
        outputs = forward(own, torch.from_numpy(X_val))
        losses = [cross_entropy(each, torch.from_numpy(y_val)).item() for each in outputs]
    return np.array(losses[1:]) - losses[0]


def timed(task: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds of the processor, result); other work beside this one does not count."""
    start = time.process_time()
    result = task()
    return time.process_time() - start, result


def net_part(net: str, optimizer: str, seed: int, n: int, epochs: int) -> list[dict]:
    """All methods on one training."""
    from scipy.stats import pearsonr, spearmanr
    from shared.value_embedding import ValueEmbedding
    from sklearn.frozen import FrozenEstimator
    from sklearn.metrics import roc_auc_score

    from sktda.attribution import DiffIn, Influence, InnerProduct, SGDInfluence, Source, TracIn

    X, y = load("digits")
    X, order = X / 16, np.random.default_rng(seed).permutation(len(y))
    train, held = order[:n], order[-min(VALIDATION, len(y) - n) :]
    given, wrong = flip(y[train], "uniform", 0.2, seed)
    X_val, y_val, X = X[held], y[held], X[train]
    fitted = trained(net, optimizer, X, given, seed, epochs)
    truth = leave_one_out(fitted, optimizer, X, given, X_val, y_val)
    frozen = FrozenEstimator(fitted)
    values, seconds, asked, n_bytes = {}, {}, {}, {}
    queries = X_val[:QUERIES], y_val[:QUERIES]
    for method in (SGDInfluence, Source, DiffIn, TracIn, InnerProduct, Influence):
        name = method.__name__
        seconds[name], done = timed(partial(method(frozen, random_state=0).fit, X, given, X_val=X_val, y_val=y_val))
        values[name] = done.scores_
    unrolled = SGDInfluence(frozen, objective=None).fit(X, given)
    asked["SGDInfluence"], _ = timed(partial(unrolled.attribute, *queries))
    if optimizer == "SGD":
        for size in (None, *PROJECTED[: 1 + (net == "MLP")]):
            name = f"DVEmb, {size or 'all'} coordinates"
            seconds[name], made = timed(partial(ValueEmbedding, unrolled, size))
            values[name], n_bytes[name] = made.values(X_val, y_val).mean(axis=0), made.n_bytes
            asked[name], _ = timed(partial(made.values, *queries))
    common = {"net": net, "optimizer": optimizer, "seed": seed, "n": n, "steps": epochs * n // BATCH}
    common |= {"accuracy": fitted.score(X_val, y_val), "train_accuracy": fitted.score(X, given)}
    return [
        common
        | {
            "method": name,
            "loo_pearson": pearsonr(scores, truth).statistic,
            "loo_spearman": spearmanr(scores, truth).statistic,
            "slope": float(np.polyfit(scores, truth, 1)[0]),
            "exact_spearman": spearmanr(scores, values["SGDInfluence"]).statistic,
            "auroc": roc_auc_score(wrong, -scores),
            "seconds": seconds[name],
            "query_seconds": asked.get(name),
            "mib": n_bytes[name] / 2**20 if name in n_bytes else None,
        }
        for name, scores in values.items()
    ] + [common | {"method": "leave-one-out itself", "auroc": roc_auc_score(wrong, -truth)}]


def show(row: dict) -> None:
    """One line."""
    line = f"{row['net']:18s} {row['optimizer']:20s} seed {row['seed']} {row['method']:24s} AUROC {row['auroc']:.3f}"
    if "seconds" in row:
        line += f" LOO r {row['loo_pearson']:6.3f} rank r {row['loo_spearman']:6.3f} slope {row['slope']:.3g}"
        line += f" with exact {row['exact_spearman']:6.3f} {row['seconds']:6.2f} s"
    print(line, flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many")
    options = begin(parser, arguments, threads=1)
    few = options.quick
    runs = [(net, optimizer) for net in WIDTHS for optimizer in OPTIMIZERS]
    rows: list[dict] = []
    for seed in SEEDS[: 1 if few else options.seeds]:
        for net, optimizer in runs[-2:] if few else runs:
            found = net_part(net, optimizer, seed, 40 if few else ROWS, 2 if few else EPOCHS)
            rows += found
            for row in found:
                show(row)
            save("unrolling", rows)


if __name__ == "__main__":
    main()
