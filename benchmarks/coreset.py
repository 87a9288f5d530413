"""Coresets: how well a net trains on a part of the rows that was chosen by scores, beside a random part.

    python benchmarks/coreset.py                 # 10,000 rows of Fashion-MNIST; half an hour on two cores
    python benchmarks/coreset.py --rows 60000    # all of them
    python benchmarks/coreset.py --only MoSo     # this method again, the others stay as they are in the file
    python benchmarks/coreset.py --quick         # few rows, one seed, nothing written: does it run?

10, 30 and 50 % of the rows are kept, with the labels as published and with 20 % of them flipped, for three seeds.
`CoresetSelector` keeps the highest scores ("top") or spreads over them ("stratified") within each class. Scores are of
one MLP 784-256-256-10 trained on all rows for 20 epochs: DiffIn (self; validation, with 1,000 rows whose labels are
right) and MoSo; ComplexityGap, the default of CoresetSelector, takes no net. EL2N is |p - onehot(label)| after the
second epoch, the mean of three nets; it is used both ways, to keep the hard rows and to keep the easy ones. An MLP of
the same widths is then trained on what was kept, for as many steps as 20 epochs of all rows take, and its accuracy is
that on the 10,000 test rows. Every seed has a process of its own. Writes benchmarks/results/coreset.json (with --rows,
coreset_ROWS.json); `python benchmarks/tables.py` makes the tables from it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from shared.common import RESULTS, begin, fashion_mnist, measured, save

ROWS, SEEDS, SHARES, RATES = 10_000, (0, 1, 2), (0.1, 0.3, 0.5), (0.0, 0.2)
EARLY_EPOCHS, EARLY_NETS = 2, 3  # of EL2N


def scores(problem: Any, seed: int, only: str | None) -> dict[tuple[str, str], tuple[np.ndarray, float]]:
    """(scores, seconds beyond training a net) by (method, form), of one method or all; higher = keep."""
    from shared.nets import timed

    found = {}
    for method, compute in METHODS.items():
        if only in (None, method):
            for form, values in compute(problem, seed).items():
                seconds, value = timed(values)
                found[method, form] = value, seconds
    return found


def trained_on_all(problem: Any, seed: int) -> Any:
    """The recorded net."""
    from shared.trajectory import FASHION_MLP, recorded
    from sklearn.frozen import FrozenEstimator

    return FrozenEstimator(recorded(FASHION_MLP, problem.X, problem.y, seed))


def fitted(attributor: Any, problem: Any, **held: np.ndarray) -> Callable[[], np.ndarray]:
    """What gives the scores."""
    return lambda: attributor.fit(problem.X, problem.y, **held).scores_


def diff_in(problem: Any, seed: int) -> dict[str, Callable[[], np.ndarray]]:
    """Both forms on one net."""
    from sktda.attribution import DiffIn

    net = trained_on_all(problem, seed)
    return {
        "self": fitted(DiffIn(net, objective="self", random_state=seed), problem),
        "validation": fitted(DiffIn(net, random_state=seed), problem, **problem.held),
    }


def moso(problem: Any, seed: int) -> dict[str, Callable[[], np.ndarray]]:
    """On the same net."""
    from sktda.attribution import MoSo

    return {"": fitted(MoSo(trained_on_all(problem, seed), random_state=seed), problem)}


def complexity_gap(problem: Any, seed: int) -> dict[str, Callable[[], np.ndarray]]:
    """Without a net."""
    from sktda.attribution import ComplexityGap

    return {"": fitted(ComplexityGap(random_state=seed), problem)}


def early_errors(problem: Any, seed: int) -> dict[str, Callable[[], np.ndarray]]:
    """Used both ways."""
    hard = cache(partial(el2n, problem, seed))
    return {"keep hard": hard, "keep easy": lambda: -hard()}


def shuffled(problem: Any, seed: int) -> dict[str, Callable[[], np.ndarray]]:
    """At random."""
    return {"": lambda: np.random.default_rng(seed).permutation(len(problem.y)).astype(float)}


METHODS = {
    "DiffIn": diff_in,
    "MoSo": moso,
    "ComplexityGap": complexity_gap,
    "EL2N": early_errors,
    "random": shuffled,
}


def el2n(problem: Any, seed: int) -> np.ndarray:
    """|p - onehot(label)| of each row early in training (arXiv:2107.07075), the mean over nets."""
    from shared.trajectory import FASHION_MLP, recorded

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
    from shared.batched import trained
    from shared.trajectory import FASHION_MLP

    epochs = round(FASHION_MLP.epochs * len(problem.y) / len(kept))
    X, y = torch.from_numpy(problem.X), torch.from_numpy(problem.y)
    nets = trained(replace(FASHION_MLP, epochs=epochs), X, y, torch.from_numpy(kept)[None], [seed])
    with torch.no_grad():
        predicted = nets(torch.from_numpy(X_test))[0].argmax(1).numpy()
    return float((predicted == y_test).mean())


def part(n: int, rate: float, seed: int, only: str | None, shares: tuple[float, ...]) -> dict:
    """Every way to choose, on one draw of flips."""
    from shared.trajectory import fashion, pixels

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
        if only is None and (rate or name == "all rows")
    ]
    for (method, form), (values, seconds) in scores(problem, seed, only).items():
        for strategy in ("top", "stratified"):
            if strategy == "stratified" and (method == "random" or form == "keep hard"):
                continue  # strata of random numbers are random, and nobody drops the easiest rows
            for share in shares:
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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of Fashion-MNIST")
    parser.add_argument("--only", choices=METHODS, help="one method, beside what the file has of the others")
    options = begin(parser, arguments)
    n = 200 if options.quick else options.rows
    seeds, rates, shares = (SEEDS[:1], RATES[1:], SHARES[1:2]) if options.quick else (SEEDS, RATES, SHARES)
    rows: list[dict] = []
    for seed in seeds:
        for rate in rates:
            found = measured(part, n, rate, seed, options.only, shares)["rows"]
            rows += found
            show(found)
    if not options.quick:
        name = "coreset" if n == ROWS else f"coreset_{n}"
        if options.only:
            known = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
            rows = [row for row in known if row["method"] != options.only] + rows
        save(name, rows)


if __name__ == "__main__":
    main()
