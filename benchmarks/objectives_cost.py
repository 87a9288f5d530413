"""What several objectives cost in one fit, over what one costs.

    python benchmarks/objectives_cost.py            # about four minutes on two cores
    python benchmarks/objectives_cost.py --quick    # few rows, nothing written: does it run?

10,000 rows of Fashion-MNIST, MLP 784-256-256-10, recorded; 1,000 validation rows. One objective is the validation loss,
k of them are that and the losses of k - 1 classes, which every method gives in one `fit` on the same trained net. The
least of three times each, in turns; what comes before any objective (the curvature, for Influence and Source) is also
timed alone. The target, set before the measurement: k objectives take at most 1 + 0.5 (k - 1) times as long as one.
Writes benchmarks/results/objectives_cost.json; `python benchmarks/tables.py` makes the table from it.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from shared.common import begin, measured, save

COUNTS = (1, 2, 4, 8)
REPEATS = 3


def limit(k: int) -> float:
    """Of the seconds for k objectives over those for one."""
    return 1 + 0.5 * (k - 1)


def objectives(k: int) -> Any:
    """The validation loss, and the losses of the first k - 1 classes."""
    from sktda.objectives import ClassLoss, ValidationLoss, Weighted

    return Weighted([ValidationLoss(), *map(ClassLoss, range(k - 1))]) if k > 1 else ValidationLoss()


def part(n: int, epochs: int, repeats: int, counts: tuple[int, ...]) -> dict:
    """All methods and numbers of objectives, on one net."""
    from dataclasses import replace

    from shared.nets import timed
    from shared.trajectory import FASHION_MLP, fashion, recorded
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import DiffIn, Influence, InnerProduct, Source, TracIn

    problem = fashion(n, 0.0, 0)
    frozen = FrozenEstimator(recorded(replace(FASHION_MLP, epochs=epochs), problem.X, problem.y, 0))
    makers = {
        "InnerProduct": InnerProduct,
        "TracIn": TracIn,
        "Influence": partial(Influence, curvature="ekfac"),
        "Source": Source,
        "DiffIn": DiffIn,
    }
    tasks = {}
    for name, make in makers.items():
        tasks[name, 0] = partial(make(frozen, objective=None, random_state=0).fit, problem.X, problem.y)
        for k in counts:
            method = make(frozen, objective=objectives(k), random_state=0)
            tasks[name, k] = partial(method.fit, problem.X, problem.y, **problem.held)
    rounds = [{key: timed(task)[0] for key, task in tasks.items()} for _ in range(repeats)]
    seconds = {key: min(each[key] for each in rounds) for key in tasks}
    return {
        "rows": [
            {"method": name, "k": k, "n": n, "n_val": len(problem.X_val), "epochs": epochs, "limit": limit(k)}
            | {"seconds": seconds[name, k], "preparation": seconds[name, 0]}
            | {"ratio": seconds[name, k] / seconds[name, 1]}
            for name in makers
            for k in counts
        ]
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    quick = begin(parser, arguments).quick
    result = measured(part, *((100, 5, 1, (1, 2)) if quick else (10_000, 5, REPEATS, COUNTS)))
    for row in result["rows"]:
        print(
            f"{row['method']:13s} {row['k']} objectives {row['seconds']:7.3f} s, {row['ratio']:5.2f} x one "
            f"(limit {row['limit']:g}), {row['preparation']:.3f} s of it before any",
            flush=True,
        )
    print(f"    {result['seconds']:.0f} s in all")
    save("objectives_cost", result["rows"])


if __name__ == "__main__":
    main()
