"""Which coreset strategy? All of them on Fashion-MNIST, one chosen on a validation split, beside random rows.

    python benchmarks/coreset_strategies.py           # 55,000 rows to choose from; an hour on two cores
    python benchmarks/coreset_strategies.py --quick   # few rows, one seed, nothing written: does it run?
    python benchmarks/coreset_strategies.py --k-center  # only: 60,000 rows, no classes, 6,000 picks, how long

1, 5, 10 and 30 % of the rows are kept, of every class its share, with the labels as published and with 20 % of them
replaced by another class at random. The last 5,000 training images, whose labels are as wrong as the others, are the
validation split: of each size and seed, the strategy whose net is most accurate there is "chosen", "random" being one
of them. Scores are those of ComplexityGap; "net" marks features of an MLP of the library's default size, trained once
on all rows, in place of pixels; gradients are always its own. The net that is trained on what was kept is an MLP
784-128-128-10 with Adam (1e-3), batches of 64, for 1,500 (1 %), 3,000 (5 and 10 %) or 5,000 (30 %) steps, with the
weights that a strategy gives. Five seeds of flips, draws and nets. Every seed has a process of its own.
Writes benchmarks/results/coreset_strategies.json; `python benchmarks/tables.py` makes the tables from it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from shared.common import begin, fashion_mnist, flip, measured, save

VALIDATION, SEEDS, RATES = 5_000, (0, 1, 2, 3, 4), (0.0, 0.2)
STEPS = {0.01: 1_500, 0.05: 3_000, 0.1: 3_000, 0.3: 5_000}  # by the share that is kept
BY_SCORE = ("random", "top", "stratified", "ccs", "d2")
BY_FEATURES = ("moderate", "k-center", "herding")
BY_NET = ("d2", "moderate", "k-center", "herding", "craig", "grad-match", "glister")
BATCH, RATE = 64, 1e-3


def accuracies(X: np.ndarray, y: np.ndarray, weight: np.ndarray | None, steps: int, seed: int, tests: list) -> list:
    """Of an MLP trained on these rows, on each (X, y) of tests."""
    import torch
    from shared.nets import mlp

    torch.manual_seed(seed)
    net = mlp(784, 128, 128, 10)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)
    rows, labels = torch.from_numpy(X), torch.from_numpy(y)
    weights = torch.ones(len(y)) if weight is None else torch.from_numpy(weight).float()
    order = torch.cat([torch.randperm(len(y)) for _ in range(-(-steps * BATCH // len(y)))])
    for step in range(steps):
        part = order[step * BATCH : (step + 1) * BATCH]
        losses = torch.nn.functional.cross_entropy(net(rows[part]), labels[part], reduction="none")
        optimizer.zero_grad()
        (losses * weights[part]).mean().backward()
        optimizer.step()
    with torch.no_grad():
        return [float((net(torch.from_numpy(X)).argmax(1).numpy() == y).mean()) for X, y in tests]


def part(n: int, rate: float, seed: int, n_val: int, step_counts: dict[float, int]) -> dict:
    """All strategies on one draw of flips."""
    from shared.trajectory import pixels
    from sklearn.frozen import FrozenEstimator

    from sktda import CoresetSelector
    from sktda.attribution import ComplexityGap
    from sktda.cleaning.coreset import named_strategy
    from sktda.model.proxy import default_net

    x_train, y_train, x_test, y_test = fashion_mnist()
    given, wrong = flip(y_train, "uniform", rate, seed)
    X, y, wrong = pixels(x_train[:n]), given[:n], wrong[:n]
    tests = [(pixels(x_train[-n_val:]), given[-n_val:]), (pixels(x_test), y_test)]
    start = time.perf_counter()
    gap = ComplexityGap(random_state=seed).fit(X, y)
    scoring = time.perf_counter() - start
    scores = known(gap.scores_, gap.loo_decision_)
    start = time.perf_counter()
    net = FrozenEstimator(default_net("classification", random_state=seed).fit(X, y))
    training = time.perf_counter() - start
    candidates = [(name, None) for name in (*BY_SCORE, *BY_FEATURES)] + [(name, net) for name in BY_NET]
    rows = []
    for share, steps in step_counts.items():
        for name, model in candidates:
            strategy = name if model is None else named_strategy(name).set_params(estimator=model)
            selector = CoresetSelector(scores, n_samples=share, strategy=strategy, random_state=seed)
            start = time.perf_counter()
            kept = selector.fit(X, y).sample_indices_
            seconds = time.perf_counter() - start
            val, test = accuracies(X[kept], y[kept], selector.sample_weight_, steps, seed, tests)
            row = {"n": n, "rate": rate, "seed": seed, "share": share, "strategy": name, "net": model is not None}
            row |= {"seconds": seconds, "wrong": wrong[kept].mean(), "validation": val, "accuracy": test}
            rows.append(row)
            print(
                f"{rate:.1f} flipped, seed {seed}, keep {share:4.0%} {name:11s}{' net' if model else '':4s} accuracy "
                f"{test:.4f} (validation {val:.4f}), {row['wrong']:.3f} wrong, {seconds:5.1f} s",
                flush=True,
            )
    return {"rows": rows, "scoring": scoring, "training": training}


def known(scores: np.ndarray, decision: np.ndarray) -> Any:
    """PrecomputedScores with the leave-one-out predictions that they came with, for the share of wrong labels."""
    from sktda.attribution import PrecomputedScores

    class Known(PrecomputedScores):
        """Of an attributor that was fitted once."""

        loo_decision_ = decision

    return Known(scores)


def k_center_seconds(n: int, picks: int) -> dict:
    """Greedy k-center of all rows together, on the pixels."""
    import torch
    from shared.trajectory import pixels

    from sktda.engine.covering import k_center

    X = torch.from_numpy(pixels(fashion_mnist()[0][:n]))
    start = time.perf_counter()
    chosen = k_center(X, picks)
    seconds = time.perf_counter() - start
    return {"rows": [{"n": n, "picks": picks, "seconds": seconds, "different": len(set(np.asarray(chosen).tolist()))}]}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k-center", action="store_true", help="only how long 6,000 of 60,000 rows take")
    options = begin(parser, arguments)
    if options.k_center:
        rows = measured(k_center_seconds, *((300, 30) if options.quick else (60_000, 6_000)))["rows"]
        print(rows)
        save("k_center", rows)
        return
    n, n_val, step_counts = (250, 50, {0.1: 20}) if options.quick else (60_000 - VALIDATION, VALIDATION, STEPS)
    rows: list[dict] = []
    for seed in SEEDS[:1] if options.quick else SEEDS:
        for rate in RATES[1:] if options.quick else RATES:
            found = measured(part, n, rate, seed, n_val, step_counts)
            rows += found["rows"]
            print(f"scores {found['scoring']:.1f} s, net {found['training']:.1f} s", flush=True)
        save("coreset_strategies", rows)


if __name__ == "__main__":
    main()
