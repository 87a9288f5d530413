"""What a distribution over training runs says: many runs against one, variance against mean, limits and speed.

    python benchmarks/distributional.py                  # all parts, about half an hour on two cores
    python benchmarks/distributional.py lds groups       # some of them
    python benchmarks/distributional.py --quick          # few runs, nothing written: does it run?

- lds: distributional LDS of the loss on Concrete (truth.py: half of the rows, 20 retrains of each of 100 subsets),
  from 20 runs of EK-FAC influence and of Source, for every measure, and how well the *mean* predicts the variance.
- groups: the same question for smaller groups, 1, 5 and 10 % of the rows, and for the model's output beside its loss:
  30 random groups of each size; 40 nets after the recipe of the truth, and 200 small ones (8-16-1, 5 epochs), trained
  without each, in the order of batches of as many nets on all rows. Predictions come from these same nets, or from as
  many others. Both kinds of net at a time.
- loo: how many seeds it takes until leaving one row out is predictable (figure 8 of arXiv:2506.12965): 30 rows of 200
  digits, each left out in up to 200 trainings, whose batches are drawn anew or in the same order.
- unrolled: how near the derivative of the whole run (SGDInfluence) is to influence functions, after more steps.
- speed: 50 nets 64-64-64-10 side by side against 50 skorch fits.

Parts are processes of their own. Writes benchmarks/results/distributional_PART.json; `python benchmarks/tables.py`
makes the tables from them. lds needs the truth of Concrete (folder truth of SKTDA_DATA, or truth.py makes it).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from shared.common import begin, measured, quick, save, set_threads
from torch import nn

N_RUNS = 20  # of lds
FIRST_SEED = 20_000  # those of the truths begin at 0
MEASURES = ("mean", "variance", "wasserstein", "wasserstein_gaussian")
SHARES, N_GROUPS = (0.01, 0.05, 0.1), 30
LOO_SEEDS, LOO_ROWS, LOO_TRAIN, LOO_QUERIES = (1, 2, 5, 10, 20, 50, 100, 200), 30, 200, 50
STEPS, STEP_SEEDS = (10, 30, 100, 300, 1_000, 3_000), (0, 1, 2)


class MLP(nn.Sequential):
    """Linear layers of these widths with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        from shared.nets import mlp

        super().__init__(*mlp(*widths))


def net(kind: str, *widths: int, epochs: int, lr: float, batch_size: int, decay: float, momentum: float = 0.9) -> Any:
    """A new skorch net, trained by SGD."""
    from functools import partial

    from skorch import NeuralNetClassifier, NeuralNetRegressor

    estimator, criterion = {
        "class": (NeuralNetClassifier, nn.CrossEntropyLoss),
        "number": (NeuralNetRegressor, nn.MSELoss),
    }[kind]
    return estimator(
        partial(MLP, *widths),
        criterion=criterion,
        optimizer__momentum=momentum,
        optimizer__weight_decay=decay,
        lr=lr,
        max_epochs=epochs,
        batch_size=batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )


def concrete_net() -> Any:
    """As the recipe of the truth says."""
    from shared.lds import RECIPES

    recipe = RECIPES["concrete"]
    return net(
        "number",
        *recipe.widths,
        epochs=2 if quick() else recipe.epochs,
        lr=recipe.lr,
        batch_size=recipe.batch_size,
        decay=recipe.weight_decay,
    )


def runs_of(base: Any, nets: list[Any], X: np.ndarray, y: np.ndarray) -> Any:
    """Distributional around trained nets, ready to explain queries."""
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import Distributional

    return Distributional(base, members=[FrozenEstimator(each) for each in nets], random_state=0).fit(X, y)


def spelt(name: str, scores: np.ndarray) -> dict[str, float]:
    """The mean over queries of scores (n_query,) and its bootstrap interval."""
    from sktda.metrics import bootstrap_interval

    low, high = bootstrap_interval(scores)
    return {name: float(scores.mean()), f"{name}_low": low, f"{name}_high": high}


# ---- distributional LDS ----------------------------------------------------------------------------------------------


def lds_part(quick: bool) -> dict:
    """Every measure predicted and true, and the mean as a prediction of the variance."""
    from shared.lds import load, truth
    from sklearn.base import clone

    from sktda import TrajectoryRecorder, retrain
    from sktda.attribution import Influence, Source
    from sktda.metrics.counterfactual import measured_moves, predicted_moves
    from sktda.metrics.statistics import spearman

    problem, full = load("concrete"), truth("concrete")["full_loss"]
    n_runs = 3 if quick else N_RUNS
    seeds = range(FIRST_SEED, FIRST_SEED + n_runs)
    recorded = clone(concrete_net()).set_params(callbacks=[TrajectoryRecorder()])
    nets = retrain(recorded, problem.X, problem.y, seeds=seeds)
    rows = []
    functions = named_measures()
    moves = {
        (name, floor): measured_moves(f, full, problem.measured, floor)
        for name, f in functions.items()
        for floor in ((True, False) if "wasserstein" in name else (True,))
    }
    for method, base in {
        "Influence": Influence(curvature="ekfac", objective=None),
        "Source": Source(objective=None),
    }.items():
        x, d = runs_of(base, nets, problem.X, problem.y).attribute_members(problem.X_query, problem.y_query)
        predicted = {name: predicted_moves(f, x, d, ~problem.kept) for name, f in functions.items()}
        for (of, floor), true in moves.items():
            for by in dict.fromkeys((of, "mean", "variance")):
                row = {"method": method, "n_runs": n_runs, "of": of, "by": by, "floor": floor}
                rows.append(row | spelt("lds", spearman(predicted[by], true)))
                print(f"{method}, {of} (floor {floor}) predicted by {by}: {rows[-1]['lds']:.3f}", flush=True)
    return {"rows": rows}


def named_measures() -> dict[str, Callable]:
    """The library's, by name."""
    from sktda.distributions import MEASURES as known

    return {name: known[name] for name in MEASURES}


# ---- small groups and the output -------------------------------------------------------------------------------------


def small_net() -> Any:
    """Few parameters and few steps: the start can still be seen in the outputs."""
    return net("number", 8, 16, 1, epochs=5, lr=0.03, batch_size=32, decay=1e-3, momentum=0.0)


@dataclass(frozen=True)
class Nets:
    """Which net, how many runs of it, and what predicts."""

    make: Callable[[], Any]
    n_runs: int
    methods: dict[str, Callable[[Any], Any]]  # by name: objective -> attributor
    n_queries: int = 103


def exact(objective: Any) -> Any:
    """Influence with the whole Gauss-Newton matrix."""
    from sktda.attribution import Influence

    return Influence(curvature="exact", damping=1e-3, objective=objective)


def ekfac(objective: Any) -> Any:
    """Influence with EK-FAC."""
    from sktda.attribution import Influence

    return Influence(curvature="ekfac", objective=objective)


def derivative(objective: Any) -> Any:
    """The exact derivative of the run."""
    from sktda.attribution import SGDInfluence

    return SGDInfluence(objective=objective)


NETS = {
    "recipe": Nets(concrete_net, 40, {"Influence, EK-FAC": ekfac}),
    "small": Nets(small_net, 200, {"Influence, exact": exact, "SGDInfluence": derivative}, n_queries=30),
}


def groups_part(quick: bool) -> dict:
    """How the variance over runs of output and loss changes without groups of rows, predicted and true."""
    with ThreadPoolExecutor(1 if quick else 2) as pool:
        found = list(pool.map(lambda name: measured(of_nets, name, quick), NETS))
    return {"rows": [row for each in found for row in each["rows"]]}


def of_nets(name: str, quick: bool) -> dict:
    """Groups of every size, for one kind of net."""
    from shared.lds import load
    from sklearn.base import clone

    from sktda import TrajectoryRecorder, retrain
    from sktda.objectives import Output

    set_threads(1)
    nets, problem = NETS[name], load("concrete")
    problem = replace(problem, X_query=problem.X_query[: nets.n_queries], y_query=problem.y_query[: nets.n_queries])
    X, y = problem.X, problem.y
    n_groups, n_runs = (3, 4) if quick else (N_GROUPS, nets.n_runs)
    estimator = nets.make()
    if name == "small":  # the derivative of a run needs its record
        estimator = clone(estimator).set_params(callbacks=[TrajectoryRecorder(steps=True)])
    runs = {
        "same": retrain(estimator, X, y, seeds=range(n_runs)),
        "other": retrain(estimator, X, y, seeds=range(FIRST_SEED, FIRST_SEED + n_runs)),
    }
    explained = {
        (outcome, which, method): runs_of(make(objective), each, X, y).attribute_members(
            problem.X_query, problem.y_query
        )
        for outcome, objective in (("output", Output()), ("loss", None))
        for which, each in runs.items()
        for method, make in nets.methods.items()
    }
    before = outcomes(runs["same"], problem)
    rng = np.random.default_rng(0)
    rows: list[dict] = []
    for share in SHARES[1:2] if quick else SHARES:
        start = time.perf_counter()
        removed = np.zeros((n_groups, len(X)), dtype=bool)
        for group in removed:
            group[rng.choice(len(X), round(share * len(X)), replace=False)] = True
        each = [
            outcomes(retrain(nets.make(), X, y, seeds=range(n_runs), rows=[~group] * n_runs, same_order=True), problem)
            for group in removed
        ]
        print(f"{name}, {share:.0%}: {n_groups * n_runs} nets in {time.perf_counter() - start:.0f} s", flush=True)
        about = {"net": name, "n_groups": n_groups, "n_runs": n_runs, "share": share}
        for (outcome, which, method), values in explained.items():
            after = np.stack([found[outcome] for found in each])
            row = about | {"outcome": outcome, "runs": which, "method": method}
            rows += [row | found for found in correlations(values, removed, before[outcome], after)]
    return {"rows": rows}


def correlations(values: tuple, removed: np.ndarray, before: np.ndarray, after: np.ndarray) -> list[dict]:
    """How well predicted mean and variance rank the groups by their true change of mean and variance."""
    from sktda.metrics.counterfactual import predicted_moves
    from sktda.metrics.statistics import spearman

    functions = {of: f for of, f in named_measures().items() if of in ("mean", "variance")}
    guesses = {of: predicted_moves(f, *values, removed) for of, f in functions.items()}
    guesses["size of mean"] = np.abs(guesses["mean"])
    true = {of: np.stack([f(before, each) for each in after]) for of, f in functions.items()}
    found = {("mean", "mean"): spearman(guesses["mean"], true["mean"])}
    found |= {("variance", by): spearman(guess, true["variance"]) for by, guess in guesses.items()}
    found["variance", "variance minus mean"] = found["variance", "variance"] - found["variance", "mean"]
    rows = []
    for (of, by), scores in found.items():
        rows.append(
            {"of": of, "by": by, "ceiling": ceiling(functions[of], before, after)} | spelt("correlation", scores)
        )
        print(", ".join(value if isinstance(value, str) else f"{value:.3f}" for value in rows[-1].values()), flush=True)
    return rows


def ceiling(measure: Callable, before: np.ndarray, after: np.ndarray) -> float:
    """Correlation that a perfect prediction would have with the truth: from that of two halves of the runs."""
    from sktda.metrics.statistics import spearman

    halves = [
        np.stack([measure(before[part], each[part]) for each in after])
        for part in (slice(0, None, 2), slice(1, None, 2))
    ]
    r = max(float(spearman(*halves).mean()), 0.0)
    return float(np.sqrt(2 * r / (1 + r)))


def outcomes(nets: list[Any], problem: Any) -> dict[str, np.ndarray]:
    """Outputs and squared errors (n_nets, n_query) of the queries."""
    outputs = np.stack([each.predict(problem.X_query)[:, 0] for each in nets]).astype(float)
    return {"output": outputs, "loss": (outputs - problem.y_query[:, 0]) ** 2}


# ---- one row ---------------------------------------------------------------------------------------------------------


def loo_part(quick: bool) -> dict:
    """Correlation of leave-one-out, averaged over seeds, with influence averaged over as many other runs."""
    from shared.common import load

    from sktda import retrain
    from sktda.attribution import Influence
    from sktda.metrics.statistics import pearson, spearman

    counts, n_left_out = (LOO_SEEDS[:2], 3) if quick else (LOO_SEEDS, LOO_ROWS)
    X, y = load("digits")
    order = np.random.default_rng(0).permutation(len(y))
    X, y = (X[order] / 16).astype(np.float32), y[order]
    train, query = slice(0, LOO_TRAIN), slice(LOO_TRAIN, LOO_TRAIN + LOO_QUERIES)
    X_query, y_query, X, y = X[query], y[query], X[train], y[train]
    width, epochs = (4, 2) if quick else (16, 30)
    estimator = net("class", 64, width, 10, epochs=epochs, lr=0.05, batch_size=20, decay=1e-2)
    most = max(counts)

    def losses(nets: list[Any]) -> np.ndarray:
        found = np.stack([each.predict_proba(X_query) for each in nets])
        return -np.log(np.take_along_axis(found, y_query[None, :, None], axis=2)[..., 0].astype(float))

    same, other = range(most), range(FIRST_SEED, FIRST_SEED + most)
    before = losses(retrain(estimator, X, y, seeds=same))
    changes: dict[str, list[np.ndarray]] = {"drawn anew": [], "same order": []}
    for row in range(n_left_out):
        rows = [np.flatnonzero(np.arange(LOO_TRAIN) != row)] * most
        changes["same order"].append(losses(retrain(estimator, X, y, seeds=same, rows=rows, same_order=True)) - before)
        changes["drawn anew"].append(losses(retrain(estimator, X, y, seeds=same, rows=rows)) - before)
        print(f"row {row} left out of {2 * most} trainings", flush=True)
    runs = runs_of(Influence(curvature="exact", objective=None), retrain(estimator, X, y, seeds=other), X, y)
    _, d = runs.attribute_members(X_query, y_query)
    d = d[..., :n_left_out]
    found = []
    for batches, each in changes.items():
        true = np.stack(each, axis=-1)  # (seeds, queries, rows)
        for n in counts:
            predicted, real = d[:n].mean(axis=0), true[:n].mean(axis=0)
            row = {"batches": batches, "seeds": n, "n_rows": n_left_out}
            row |= spelt("pearson", pearson(predicted.T, real.T)) | spelt("spearman", spearman(predicted.T, real.T))
            found.append(row)
            print(f"{batches}, {n} seeds: pearson {row['pearson']:.3f}, spearman {row['spearman']:.3f}", flush=True)
    return {"rows": found}


# ---- the derivative of the run ---------------------------------------------------------------------------------------


def unrolled_part(quick: bool) -> dict:
    """SGDInfluence (the exact derivative of the run) against Influence at its end, after more and more steps."""
    from shared.common import load
    from sklearn.base import clone
    from sklearn.frozen import FrozenEstimator

    from sktda import TrajectoryRecorder, retrain
    from sktda.attribution import Influence, SGDInfluence
    from sktda.metrics.statistics import pearson, spearman

    X, y = load("digits")
    order = np.random.default_rng(0).permutation(len(y))
    X, y = (X[order] / 16).astype(np.float32), y[order]
    X_query, y_query, X, y = X[200:220], y[200:220], X[:200], y[:200]
    rows = []
    seeds = STEP_SEEDS[:1] if quick else STEP_SEEDS
    for widths, steps, seed in product(((64, 10), (64, 16, 10)), STEPS[:1] if quick else STEPS, seeds):
        estimator = net("class", *widths, epochs=steps // 10, lr=0.1, batch_size=20, decay=3e-2, momentum=0.0)
        estimator = clone(estimator).set_params(callbacks=[TrajectoryRecorder(steps=True)])
        frozen = FrozenEstimator(retrain(estimator, X, y, seeds=[seed])[0])
        unrolled = SGDInfluence(frozen, objective=None).fit(X, y).attribute(X_query, y_query)
        values = Influence(frozen, curvature="exact", objective=None).fit(X, y).attribute(X_query, y_query)
        row = {"net": "-".join(map(str, widths)), "steps": steps, "seed": seed}
        row["accuracy"] = float(frozen.score(X_query, y_query))
        row["pearson"] = float(pearson(unrolled.T, values.T).mean())
        row["spearman"] = float(spearman(unrolled.T, values.T).mean())
        row["slope"] = float((unrolled * values).sum() / (values**2).sum())
        rows.append(row)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return {"rows": rows}


# ---- speed -----------------------------------------------------------------------------------------------------------


def speed_part(quick: bool) -> dict:
    """50 nets side by side, and one after the other by skorch; the same again, to compare bit by bit."""
    from shared.common import load
    from sklearn.base import clone

    from sktda import retrain

    set_threads(2)
    X, y = load("digits")
    X = (X / 16).astype(np.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    n, epochs = (3, 1) if quick else (50, 10)
    estimator = net("class", 64, 64, 64, 10, epochs=epochs, lr=0.05, batch_size=64, decay=1e-3)
    estimator.set_params(device=device)
    retrain(estimator, X, y, seeds=[0])  # the first call of everything
    rows, kept = [], {}
    for repeat in range(1 if quick else 3):
        for way in ("side by side", "side by side again", "skorch"):
            start = time.perf_counter()
            if way == "skorch":
                nets = []
                for seed in range(n):
                    torch.manual_seed(seed)
                    nets.append(clone(estimator).fit(X, y))
            else:
                nets = retrain(estimator, X, y, seeds=range(n), batched=True)
            seconds = time.perf_counter() - start
            kept[way] = [[p.detach().clone() for p in each.module_.parameters()] for each in nets]
            rows.append({"way": way, "repeat": repeat, "nets": n, "epochs": epochs, "seconds": seconds})
            rows[-1] |= {"device": device, "accuracy": float(np.mean([each.score(X, y) for each in nets]))}
            print(f"{way}: {seconds:.2f} s, accuracy {rows[-1]['accuracy']:.4f}", flush=True)
    pairs = zip(kept["side by side"], kept["side by side again"], strict=True)
    identical = all(torch.equal(p, q) for a, b in pairs for p, q in zip(a, b, strict=True))
    print(f"bitwise the same when repeated: {identical}")
    return {"rows": [row | {"identical": identical} for row in rows]}


PARTS: dict[str, Callable[[bool], dict]] = {
    "lds": lds_part,
    "groups": groups_part,
    "loo": loo_part,
    "unrolled": unrolled_part,
    "speed": speed_part,
}


def in_one_thread(part: str, quick: bool) -> dict:
    """A part, in the process that measures it."""
    set_threads(1)
    return PARTS[part](quick)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="part", help=f"some of {', '.join(PARTS)}")
    options = begin(parser, arguments)
    for part in options.parts or PARTS:
        found = measured(in_one_thread, part, options.quick)
        print(f"{part}: {found['seconds']:.0f} s, {found['peak_gib']:.1f} GiB", flush=True)
        save(f"distributional_{part}", found["rows"])


if __name__ == "__main__":
    main()
