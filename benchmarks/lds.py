"""Which attribution predicts retraining? Linear datamodeling scores of every method that gives pairwise values.

    python benchmarks/lds.py digits                        # 5 minutes on two cores; makes the truth first (truth.py)
    python benchmarks/lds.py fmnist fmnist_n concrete      # the truths that are in the folder truth of SKTDA_DATA
    python benchmarks/lds.py digits --peers                # also kronfluence, captum and TRAK; --peers-only adds them;
                                                           # those that are there already stay
    python benchmarks/lds.py digits --quick                # two models, nothing written: does it run?

Nets are trained as those of the truth were, on all rows and from other seeds. Every method predicts, for every query,
what leaving out half of the rows does (the sum of its values of these rows); LDS is the rank correlation of that with
the mean of the retrained nets, over the subsets, averaged over the queries. Classification: minus the margin of the
right class; regression: the squared error. A single model's LDS is the mean over the first --scored models; averaging
the values of all models first takes away what depends on the seed. Intervals are bootstrap intervals over the queries
(95 %). Every truth is measured in a process of its own. Writes benchmarks/results/lds_NAME.json;
`python benchmarks/tables.py` makes the table and the plot from it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from shared.common import RESULTS, begin, measured, save, set_threads
from shared.lds import BY_LOSS, RECIPES, Problem, load, trained, truth

FIRST_SEED = 10_000  # truth.py takes its seeds from 0 up, one for every retrained net
METHODS = ("InnerProduct", "TracIn", "Influence", "Source", "Source, fast")
FEW_ROWS = ("Source, blockwise",)  # where rows x outputs are few enough for the exact curvature of each layer
REFERENCE = "Influence"  # that the others' scores and seconds are compared with
AVERAGED = (1, 2, 3, 5, 10)
PEERS = {"kronfluence EK-FAC": 1, "captum TracIn": 1, "TRAK": 3}  # and on how many of the models
COMMON = ("truth", "f", "ceiling", "first_seed", "n_models", "n_scored", "n_train", "n_queries")  # of all rows
MODULES = ("kronfluence", "captum", "trak")


def attributor(method: str, net: Any, kind: str, number: int) -> Any:
    """The method with its defaults around a trained net, ready to explain single queries."""
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import Influence, InnerProduct, Source, TracIn
    from sktda.objectives import Margin

    make = {
        "InnerProduct": InnerProduct,
        "TracIn": TracIn,
        "Influence": lambda *args, **kwargs: Influence(*args, curvature="ekfac", **kwargs),
        "Source": Source,
        "Source, fast": lambda *args, **kwargs: Source(*args, fast=True, **kwargs),
        "Source, blockwise": lambda *args, **kwargs: Source(*args, curvature="blockwise", **kwargs),
    }[method]
    objective = Margin() if kind == "margin" else None
    return make(FrozenEstimator(net), objective=objective, random_state=number)


def peer(method: str) -> Callable:
    """(nets, X, y, X_query, y_query, kind) -> values."""
    from shared.lds_peers import captum_tracin, kronfluence_ekfac, trak

    if method == "TRAK":
        return trak
    of_one = {"kronfluence EK-FAC": kronfluence_ekfac, "captum TracIn": captum_tracin}[method]
    return lambda nets, *args: of_one(nets[0], *args)


def lds(problem: Problem, values: np.ndarray) -> np.ndarray:
    """(n_query,) of values (n_query, n)."""
    from sktda.metrics import linear_datamodeling_score

    return linear_datamodeling_score(values, problem.kept, problem.measured)


def part(name: str, n_models: int, n_scored: int, with_peers: bool) -> dict:
    """Everything about one truth."""
    from sktda.metrics import noise_ceiling

    problem = load(name)
    methods = METHODS + (FEW_ROWS if problem.kind == "loss" and len(problem.X) < 2_000 else ())
    values: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    nets = []
    for number in range(n_models):
        start = time.perf_counter()
        nets.append(trained(problem, FIRST_SEED + number))
        words = [f"{name}, model {number + 1} of {n_models}, trained in {time.perf_counter() - start:.0f} s. LDS"]
        for method in methods:
            start = time.perf_counter()
            explained = attributor(method, nets[-1], problem.kind, number).fit(problem.X, problem.y)
            found = explained.attribute(problem.X_query, problem.y_query).astype(np.float32)
            seconds[method].append(time.perf_counter() - start)
            values[method].append(found)
            words.append(f"{method} {lds(problem, found).mean():.3f} ({seconds[method][-1]:.1f} s)")
        print(words[0], "; ".join(words[1:]), flush=True)
    ceiling = noise_ceiling(problem.measured)
    common = {"truth": name, "f": problem.kind, "ceiling": ceiling, "first_seed": FIRST_SEED, "n_models": n_models}
    common |= {"n_scored": n_scored, "n_train": len(problem.X), "n_queries": len(problem.X_query)}
    rows = [common | row for row in compared(problem, values, seconds, n_scored)]
    for row in rows:
        print(words_of(row), flush=True)
    if with_peers:
        rows += [common | row for row in beside(problem, nets)]
    return {"rows": rows}


def compared(
    problem: Problem, values: dict[str, list[np.ndarray]], seconds: dict[str, list[float]], n_scored: int
) -> list[dict]:
    """One row per method: its scores, how they differ from the reference, what it cost."""
    singles = {method: np.array([lds(problem, each) for each in found[:n_scored]]) for method, found in values.items()}
    averaged = {method: lds(problem, np.mean(found, axis=0)) for method, found in values.items()}
    rows = []
    for method, found in values.items():
        spread = singles[method].mean(axis=1).std(ddof=1) if n_scored > 1 else None
        row = {"method": method, "single_sd": spread}
        row |= interval("single", singles[method].mean(axis=0)) | interval("averaged", averaged[method])
        if method != REFERENCE:
            row |= interval("single_gain", (singles[method] - singles[REFERENCE]).mean(axis=0))
            row |= interval("averaged_gain", averaged[method] - averaged[REFERENCE])
        row["seconds"] = np.median(seconds[method])
        row["ratio"] = np.median(np.divide(seconds[method], seconds[REFERENCE]))
        counts = [count for count in AVERAGED if count <= len(found)]
        row["curve"] = {count: in_groups(problem, found, count, n_scored) for count in counts}
        row["first"] = {count: lds(problem, np.mean(found[:count], axis=0)).mean() for count in counts}
        rows.append(row)
    return rows


def in_groups(problem: Problem, values: list[np.ndarray], count: int, n_scored: int) -> float:
    """LDS of the average of `count` models, the mean over as many groups as the scored models make."""
    groups = [values[i * count : (i + 1) * count] for i in range(max(1, n_scored // count))]
    return float(np.mean([lds(problem, np.mean(group, axis=0)) for group in groups]))


def interval(name: str, scores: np.ndarray) -> dict[str, float]:
    """The mean of the scores (n_query,) and its bootstrap interval."""
    from sktda.metrics import bootstrap_interval

    low, high = bootstrap_interval(scores)
    return {name: float(scores.mean()), f"{name}_low": low, f"{name}_high": high}


def peers_part(name: str, n_models: int) -> dict:
    """The peers alone, on nets that are trained again from the same seeds."""
    problem = load(name)
    return {"rows": beside(problem, [trained(problem, FIRST_SEED + number) for number in range(n_models)])}


def add_peers(name: str) -> None:
    """Put the peers into the result that is there, in place of former ones."""
    rows = [row for row in json.loads((RESULTS / f"lds_{name}.json").read_text())["rows"] if "method" in row]
    common = {key: rows[0][key] for key in COMMON}
    save(f"lds_{name}", rows + [common | row for row in measured(peers_part, name, max(PEERS.values()))["rows"]])


def known_peers(name: str) -> list[dict]:
    """The peers in the result that is there: they saw the nets of the same seeds."""
    file = RESULTS / f"lds_{name}.json"
    return [row for row in json.loads(file.read_text())["rows"] if "peer" in row] if file.exists() else []


def beside(problem: Problem, nets: list[Any]) -> list[dict]:
    """One row per peer, on the first of the nets."""
    rows = []
    for method, count in PEERS.items():
        start = time.perf_counter()
        found = peer(method)(nets[:count], problem.X, problem.y, problem.X_query, problem.y_query, problem.kind)
        row = {"peer": method, "models": count, "seconds": time.perf_counter() - start}
        rows.append(row | interval("lds", lds(problem, found)))
        print(f"{problem.name}, {method}, models {count}: {spelt(rows[-1], 'lds')}, {row['seconds']:.1f} s", flush=True)
    return rows


def spelt(row: dict, name: str, ceiling: float = 1.0) -> str:
    """A number of the row with its interval."""
    value, low, high = (row[f"{name}{end}"] / ceiling for end in ("", "_low", "_high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def words_of(row: dict) -> str:
    """A row for the screen: raw scores, the same divided by the ceiling, the difference, the cost."""
    spread = "" if row["single_sd"] is None else f" (sd {row['single_sd']:.3f})"
    head = f"{row['truth']}, {row['method']}: one model {spelt(row, 'single')}{spread}"
    lines = [f"{head}, {row['n_models']} averaged {spelt(row, 'averaged')}"]
    shares = [spelt(row, name, row["ceiling"]) for name in ("single", "averaged")]
    lines += [f"divided by the ceiling {row['ceiling']:.3f}: {', '.join(shares)}"]
    if "single_gain" in row:
        lines += [f"minus {REFERENCE}: {spelt(row, 'single_gain')}, {spelt(row, 'averaged_gain')}"]
    lines += [f"{row['seconds']:.1f} s per model, {row['ratio']:.2f} times {REFERENCE}"]
    lines += ["averages of " + ", ".join(f"{count}: {value:.3f}" for count, value in row["curve"].items())]
    return "\n    ".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of {', '.join(RECIPES)}; default: digits")
    parser.add_argument("--models", type=int, default=10, help="nets to train")
    parser.add_argument("--scored", type=int, default=5, help="of these, nets whose own LDS are averaged")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="also kronfluence and captum on the first model and TRAK on the first three; minutes for each",
    )
    parser.add_argument("--peers-only", action="store_true", help="add the peers to the results that are there")
    options = begin(parser, arguments)
    options.names = options.names or ["digits"]
    if unknown := set(options.names) - set(RECIPES):
        parser.error(f"unknown truths {', '.join(sorted(unknown))}; allowed are {', '.join(RECIPES)}")
    if options.quick:
        options.models, options.scored, options.peers = 2, 2, False
    if not 1 <= options.scored <= options.models:
        parser.error(f"--scored {options.scored} must be between 1 and the number of models, {options.models}")
    if options.peers or options.peers_only:
        if by_loss := set(options.names) & set(BY_LOSS):
            parser.error(f"the peers predict margins of classes, not losses as for {', '.join(sorted(by_loss))}")
        if missing := [module for module in MODULES if importlib.util.find_spec(module) is None]:
            parser.error(
                f"--peers needs {', '.join(missing)}; docs/benchmarks/other-libraries.md says how to install them"
            )
        if options.models < max(PEERS.values()):
            parser.error(f"--peers needs {max(PEERS.values())} models; got --models {options.models}")
    set_threads(1)  # as truth.py; the measured processes set their own
    for name in options.names:
        truth(name)  # now, and not in the process that is measured
    for name in options.names:
        if options.peers_only:
            add_peers(name)
            continue
        found = measured(part, name, options.models, options.scored, options.peers)
        save(f"lds_{name}", found["rows"] + ([] if options.peers or options.quick else known_peers(name)))


if __name__ == "__main__":
    main()
