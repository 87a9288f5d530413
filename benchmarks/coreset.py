"""Coresets: how well a net trains on a part of the rows that was chosen by scores, beside a random part.

    python benchmarks/coreset.py                 # 10,000 rows of Fashion-MNIST; half an hour on two cores
    python benchmarks/coreset.py --rows 60000    # all of them
    python benchmarks/coreset.py --quick         # 2,000 rows, one seed, nothing written: does it run?

10, 30 and 50 % of the rows are kept, with the labels as published and with 20 % of them flipped, for three seeds.
`CoresetSelector` keeps the highest scores ("top") or spreads over them ("stratified") within each class. Scores are of
one MLP 784-256-256-10 trained on all rows for 20 epochs: DiffIn (self; validation, with 1,000 rows whose labels are
right) and MoSo. EL2N is |p - onehot(label)| after the second epoch, the mean of three nets; it is used both ways, to
keep the hard rows and to keep the easy ones. An MLP of the same widths is then trained on what was kept, for as many
steps as 20 epochs of all rows take, and its accuracy is that on the 10,000 test rows. Every seed has a process of its
own. Writes benchmarks/results/coreset.json (with --rows, coreset_ROWS.json); `python benchmarks/tables.py` makes the
tables from it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from _common import fashion_mnist, measured, save, set_threads

ROWS, SEEDS, SHARES, RATES = 10_000, (0, 1, 2), (0.1, 0.3, 0.5), (0.0, 0.2)
EARLY_EPOCHS, EARLY_NETS = 2, 3  # of EL2N


def scores(problem: Any, seed: int) -> dict[tuple[str, str], tuple[np.ndarray, float]]:
    """(scores, seconds beyond training a net) by (method, form); higher = keep."""
    from _nets import timed
    from _trajectory import FASHION_MLP, recorded
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import DiffIn, MoSo

    net = FrozenEstimator(recorded(FASHION_MLP, problem.X, problem.y, seed))
    attributors = {
        ("DiffIn", "self"): (DiffIn(net, objective="self", random_state=seed), {}),
        ("DiffIn", "validation"): (DiffIn(net, random_state=seed), problem.held),
        ("MoSo", ""): (MoSo(net, random_state=seed), {}),
    }
    found = {}
    for key, (attributor, held) in attributors.items():
        seconds, fitted = timed(partial(attributor.fit, problem.X, problem.y, **held))
        found[key] = fitted.scores_, seconds
    seconds, hard = timed(partial(el2n, problem, seed))
    found["EL2N", "keep hard"] = hard, seconds
    found["EL2N", "keep easy"] = -hard, seconds
    found["random", ""] = np.random.default_rng(seed).permutation(len(problem.y)).astype(float), 0.0
    return found


def el2n(problem: Any, seed: int) -> np.ndarray:
    """|p - onehot(label)| of each row early in training (arXiv:2107.07075), the mean over nets."""
    from _trajectory import FASHION_MLP, recorded

    early = replace(FASHION_MLP, epochs=EARLY_EPOCHS)
    lengths = []
    for number in range(EARLY_NETS):
        errors = recorded(early, problem.X, problem.y, 1_000 * (number + 1) + seed).predict_proba(problem.X)
        errors[np.arange(len(errors)), problem.y] -= 1
        lengths.append(np.linalg.norm(errors, axis=1))
    return np.mean(lengths, axis=0)


def accuracy(problem: Any, kept: np.ndarray, X_test: np.ndarray, y_test: np.ndarray, seed: int) -> float:
    """On the test rows, of the MLP that was trained on the kept rows for as many steps as all rows take."""
    import torch
    from _batched import trained
    from _trajectory import FASHION_MLP

    epochs = round(FASHION_MLP.epochs * len(problem.y) / len(kept))
    X, y = torch.from_numpy(problem.X), torch.from_numpy(problem.y)
    nets = trained(replace(FASHION_MLP, epochs=epochs), X, y, torch.from_numpy(kept)[None], [seed])
    with torch.no_grad():
        predicted = nets(torch.from_numpy(X_test))[0].argmax(1).numpy()
    return float((predicted == y_test).mean())


def part(n: int, rate: float, seed: int) -> dict:
    """Every way to choose, on one draw of flips."""
    from _trajectory import fashion, pixels

    from sktda import CoresetSelector
    from sktda.attribution import PrecomputedScores

    problem = fashion(n, rate, seed)
    _, _, x_test, y_test = fashion_mnist()
    X_test, all_rows = pixels(x_test), np.arange(len(problem.y))
    common = {"n": len(all_rows), "rate": rate, "seed": seed}
    rows = [
        {"method": name, "form": "", "strategy": "", "share": len(kept) / len(all_rows), "seconds": 0.0}
        | {"wrong": problem.wrong[kept].mean(), "accuracy": accuracy(problem, kept, X_test, y_test, seed)}
        for name, kept in {"all rows": all_rows, "all right rows": np.flatnonzero(~problem.wrong)}.items()
        if rate or name == "all rows"
    ]
    for (method, form), (values, seconds) in scores(problem, seed).items():
        for strategy in ("top", "stratified"):
            if strategy == "stratified" and (method == "random" or form == "keep hard"):
                continue  # strata of random numbers are random, and nobody drops the easiest rows
            for share in SHARES:
                selector = CoresetSelector(
                    PrecomputedScores(values), n_samples=share, strategy=strategy, random_state=seed
                ).fit(problem.X, problem.y)
                kept = selector.sample_indices_
                row = {"method": method, "form": form, "strategy": strategy, "share": share, "seconds": seconds}
                row |= {"wrong": problem.wrong[kept].mean()}
                rows.append(row | {"accuracy": accuracy(problem, kept, X_test, y_test, seed)})
    return {"rows": [common | row for row in rows]}


def show(rows: list[dict]) -> None:
    """One line per way to choose."""
    for row in rows:
        print(
            f"{row['rate']:.1f} flipped, seed {row['seed']}, keep {row['share']:4.0%} {row['method']:15s} "
            f"{row['form']:10s} {row['strategy']:10s} accuracy {row['accuracy']:.4f}, {row['wrong']:.3f} of them wrong",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of Fashion-MNIST")
    parser.add_argument("--quick", action="store_true", help="2,000 rows, one seed, and no file written")
    options = parser.parse_args()
    set_threads()
    n = 2_000 if options.quick else options.rows
    rows: list[dict] = []
    for seed in SEEDS[:1] if options.quick else SEEDS:
        for rate in RATES:
            found = measured(part, n, rate, seed)["rows"]
            rows += found
            show(found)
    if not options.quick:
        save("coreset" if n == ROWS else f"coreset_{n}", rows)


if __name__ == "__main__":
    main()
