"""Which damping, and with or without the penalty? LDS of Influence and Source under all settings, those that lose too.

    python benchmarks/damping.py                    # the truths of the digits: minutes on two cores; makes them first
    python benchmarks/damping.py mnist concrete     # others of truth.py, or those in the folder truth of SKTDA_DATA
    python benchmarks/damping.py --quick            # one truth, one short training, nothing written

Nets are those of lds.py, fewer of them. "constant" is added to the eigenvalues of the loss alone; "default" is what
the methods do. The truths named HELD were looked at after the default was chosen. Writes
benchmarks/results/lds_damping.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import numpy as np
from lds import FIRST_SEED, lds
from shared.common import begin, save, set_threads
from shared.lds import RECIPES, Problem, load, trained

CHOSEN_ON = ("digits", "digits_short", "digits_decay", "concrete", "fmnist", "fmnist_n", "mnist")
METHODS = ["EK-FAC", "CG", "Source"]
HELD = ("digits_noise", "digits_wide", "mnist_decay", "mnist_mlp")
CONSTANTS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
SHARES = (0.01, 0.1, 0.3, 1.0)


def settings(influence: Any, decay: float) -> Iterator[tuple[str, Any]]:
    """(name, curvature with its damping in its eigenvalues) beside the default."""
    bare = influence.curvature_
    yield "default", influence._used

    def of(added: Callable) -> Any:
        other = copy(bare)
        other.values = {name: values + added(values) for name, values in bare.values.items()}
        return other

    yield "penalty and a tenth of the mean", of(lambda values: decay + 0.1 * (values + decay).mean())
    for share in SHARES:
        yield f"{share:g} of the mean", of(lambda values, share=share: share * values.mean())
    for constant in CONSTANTS:
        yield f"constant {constant:g}", of(lambda values, constant=constant: constant)


def rows_of(problem: Problem, n_models: int, methods: list[str]) -> list[dict]:
    """One row per method and setting."""
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import Influence, Source
    from sktda.attribution.runs import stages
    from sktda.objectives import Margin

    found: dict[tuple[str, str], list[np.ndarray]] = {}
    seconds: dict[tuple[str, str], list[float]] = {}

    def note(method: str, setting: str, start: float, values: np.ndarray) -> None:
        seconds.setdefault((method, setting), []).append(time.perf_counter() - start)
        found.setdefault((method, setting), []).append(values.astype(np.float32))

    for number in range(n_models):
        net = trained(problem, FIRST_SEED + number)
        common = {"objective": Margin() if problem.kind == "margin" else None, "random_state": number}
        for method, attributor in (
            ("EK-FAC", Influence(FrozenEstimator(net), curvature="ekfac", **common)),
            ("CG", Influence(FrozenEstimator(net), curvature="cg", **common)),
            ("Source", Source(FrozenEstimator(net), **common)),
        ):
            if method not in methods:
                continue
            start = time.perf_counter()
            fitted = attributor.fit(problem.X, problem.y)
            note(method, "default", start, fitted.attribute(problem.X_query, problem.y_query))
            if method == "EK-FAC":
                for setting, curvature in settings(fitted, problem.recipe.weight_decay):
                    if setting != "default":
                        fitted._used = curvature
                        start = time.perf_counter()
                        note(method, setting, start, fitted.attribute(problem.X_query, problem.y_query))
        if "Source" not in methods:
            continue
        without, stages.without_penalty = stages.without_penalty, lambda curvature, engine: curvature
        try:
            start = time.perf_counter()
            fitted = Source(FrozenEstimator(net), **common).fit(problem.X, problem.y)
            note("Source", "with the penalty", start, fitted.attribute(problem.X_query, problem.y_query))
        finally:
            stages.without_penalty = without
    rows = []
    for (method, setting), values in found.items():
        row = {"truth": problem.name, "method": method, "setting": setting, "n_models": n_models}
        row |= {"single": float(np.mean([lds(problem, each).mean() for each in values]))}
        row |= {"averaged": float(lds(problem, np.mean(values, axis=0)).mean())}
        row |= {"seconds": float(np.median(seconds[method, setting])), "decay": problem.recipe.weight_decay}
        print(f"{problem.name}, {method}, {setting}: {row['single']:.3f}, averaged {row['averaged']:.3f}", flush=True)
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of {', '.join(RECIPES)}")
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="CG takes long on large nets")
    options = begin(parser, arguments, threads=1)
    names = options.names or [name for name in (*CHOSEN_ON, *HELD) if name.startswith("digits")]
    if unknown := set(names) - set(RECIPES):
        parser.error(f"unknown truths {', '.join(sorted(unknown))}; allowed are {', '.join(RECIPES)}")
    if options.quick:
        names, options.models = ["digits"], 1
    set_threads(1)
    done: list[dict] = kept(names)
    for name in names:
        done += rows_of(load(name), options.models, options.methods)
        save("lds_damping", done)


def kept(names: list[str]) -> list[dict]:
    """Rows of other truths in the result that is there."""
    import json

    from shared.common import RESULTS, quick

    file = RESULTS / "lds_damping.json"
    if quick() or not file.exists():
        return []
    return [row for row in json.loads(file.read_text())["rows"] if "truth" in row and row["truth"] not in names]


if __name__ == "__main__":
    main()
