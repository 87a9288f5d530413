"""How much of an LDS is the truth's, and how much the method's? Source on Fashion-MNIST with fewer retrainings.

    python benchmarks/lds_repeats.py            # five minutes on one core; needs fmnist.npz in the folder truth
    python benchmarks/lds_repeats.py --quick    # digits, one model, nothing written: does it run?

The same values are scored against the mean of 1, 2, ... of the retrainings of each half, over all choices of them, and
divided by the ceiling of as many: what is left does not depend on the number if the ceiling is right. How much the LDS
depends on which halves were drawn is the standard deviation between two disjoint halves of them, over 2. Source is
measured with one segment beside its default of 3. Writes benchmarks/results/lds_repeats.json;
`python benchmarks/tables.py` makes the table from it.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from typing import Any

import numpy as np
from shared.common import begin, measured, quick, save
from shared.lds import Problem, load, truth

FIRST_SEED = 10_000  # as lds.py
VARIANTS: dict[str, dict[str, Any]] = {
    "Source": {},
    "Source, 1 segment": {"n_segments": 1},
}


def attributions(problem: Problem, number: int) -> dict[str, np.ndarray]:
    """Values (n_query, n) of one model by method."""
    from shared.lds import trained
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import Influence, Source
    from sktda.objectives import Margin

    net = FrozenEstimator(trained(problem, FIRST_SEED + number))
    makers = {name: Source(net, objective=Margin(), random_state=number, **more) for name, more in VARIANTS.items()}
    makers["Influence"] = Influence(net, curvature="ekfac", objective=Margin(), random_state=number)
    return {
        name: make.fit(problem.X, problem.y).attribute(problem.X_query, problem.y_query)
        for name, make in makers.items()
    }


def scored(values: np.ndarray, kept: np.ndarray, told: np.ndarray) -> float:
    """LDS of values (n_query, n) against what nets said (n_subsets, n_retrains, n_query)."""
    from sktda.metrics import linear_datamodeling_score

    return float(linear_datamodeling_score(values, kept, told).mean())


def between_halves(values: np.ndarray, problem: Problem, n_draws: int = 20) -> float:
    """Standard deviation of the LDS over draws of the halves of the rows."""
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(n_draws):
        first, second = np.array_split(rng.permutation(len(problem.kept)), 2)
        one, other = (scored(values, problem.kept[part], problem.measured[part]) for part in (first, second))
        differences.append(one - other)
    return float(np.std(differences) / 2)


def part(name: str, n_models: int) -> dict:
    """One row per method and number of retrainings."""
    import torch

    from sktda.metrics import noise_ceiling

    torch.set_num_threads(1)
    problem = load(name)
    found: dict[str, list[np.ndarray]] = {}
    for number in range(n_models):
        for method, values in attributions(problem, number).items():
            found.setdefault(method, []).append(values)
        print(f"{name}: model {number + 1} of {n_models}", flush=True)
    n_retrains = problem.measured.shape[1]
    rows = []
    for count in range(1, n_retrains + 1):
        parts = [problem.measured[:, list(each)] for each in combinations(range(n_retrains), count)]
        # one retraining tells nothing about its own noise: from all of them, by Spearman and Brown
        whole = noise_ceiling(problem.measured) ** 2
        single = whole / (n_retrains - (n_retrains - 1) * whole)
        ceiling = float(np.sqrt(count * single / (1 + (count - 1) * single)))
        for method, values in found.items():
            row = {"truth": name, "method": method, "retrains": count, "ceiling": ceiling, "n_models": n_models}
            row["single"] = float(np.mean([scored(each, problem.kept, told) for each in values for told in parts]))
            mean = np.mean(values, axis=0)
            row["averaged"] = float(np.mean([scored(mean, problem.kept, told) for told in parts]))
            if count == n_retrains and len(problem.kept) >= 6:  # not with --quick
                row["between_halves"] = between_halves(mean, problem)
            rows.append(row)
    return {"rows": rows}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=2, help="nets to explain")
    options = begin(parser, arguments, threads=1)
    name = "digits" if quick() else "fmnist"
    truth(name)
    rows = measured(part, name, 1 if quick() else options.models)["rows"]
    for row in rows:
        halves = f", ± {row['between_halves']:.3f} by the draw of the halves" if "between_halves" in row else ""
        print(
            f"{row['method']:20s} {row['retrains']} retrainings, ceiling {row['ceiling']:.3f}: one model "
            f"{row['single']:.3f} ({row['single'] / max(row['ceiling'], 1e-9):.3f}), {row['n_models']} averaged "
            f"{row['averaged']:.3f} ({row['averaged'] / max(row['ceiling'], 1e-9):.3f}){halves}",
            flush=True,
        )
    save("lds_repeats", rows)


if __name__ == "__main__":
    main()
