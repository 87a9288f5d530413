"""Influence along the training run: which wrong labels it finds, whether it predicts leave-one-out, what it costs.

    python benchmarks/trajectory.py                   # everything; three quarters of an hour on two cores
    python benchmarks/trajectory.py digits cost       # some parts
    python benchmarks/trajectory.py --quick           # few rows, one seed, nothing written: does it run?

digits: softmax regression, 200 steps of SGD with 20 % of the labels flipped, in full batches and in batches of 64,
these at four learning rates. Every row is left out once, in the same batches, and the values of a method are ranked
against the true rises of the validation loss. fashion: 10,000 rows of Fashion-MNIST, MLP 784-256-256-10, 20 and 40 %
flipped; how well the wrong labels are found. Validation rows have right labels. All methods get the same trained net
with the same six checkpoints and their own defaults otherwise. cost: seconds of the methods, alone and in the one pass
of `trajectory_scores`, over those of as many plain forward and backward passes as there are checkpoints, in the
engine's batches; the shortest of five runs each, in turns. Every seed has a process of its own. Writes
benchmarks/results/trajectory_PART.json; `python benchmarks/tables.py` makes the tables from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from shared.common import begin, measured, quick, save

PARTS = ("digits", "fashion", "cost")
SEEDS = (0, 1, 2)
RUNS = (("full", 0.1), ("64", 0.1), ("64", 0.01), ("64", 0.03), ("64", 0.3))  # batches and learning rate on digits
SLOW_SELF = ("SGDInfluence", "Source")  # whose self forms unroll once per row
EXACT_SELF_ROWS = 500  # of the exact self form, which costs a product with the Hessian per row
DIFFERENCES = ("finite-difference", "forward-difference")
LIMIT = 6.0  # of the one pass, set before it was measured


def forms(frozen: Any, seed: int, once_per_row: tuple[str, ...]) -> dict[tuple[str, str], Any]:
    """Attributors by (method, form): "validation", "self", or "" where a method has one only.

    once_per_row: which of SLOW_SELF shall have a self form.
    """
    from sktda.attribution import ComplexityGap, DiffIn, Influence, InnerProduct, MoSo, SGDInfluence, Source, TracIn

    makers: dict[str, Callable] = {
        "SGDInfluence": SGDInfluence,
        "Source": Source,
        "Influence": Influence,
        "TracIn": TracIn,
        "InnerProduct": InnerProduct,
        "DiffIn": DiffIn,
    }
    found: dict[tuple[str, str], Any] = {
        (name, form): make(frozen, objective=form, random_state=seed)
        for form in ("validation", "self")
        for name, make in makers.items()
        if form == "validation" or name not in SLOW_SELF or name in once_per_row
    }
    for hvp in DIFFERENCES:
        found[f"DiffIn, {hvp}", "validation"] = DiffIn(frozen, hvp=hvp, objective="validation", random_state=seed)
    found["MoSo", ""] = MoSo(frozen, checkpoints="even", random_state=seed)
    found["ComplexityGap", ""] = ComplexityGap(random_state=seed)
    return found


def scored(
    problem: Any, net: Any, seed: int, once_per_row: tuple[str, ...] = ()
) -> tuple[dict[tuple[str, str], np.ndarray], list[dict]]:
    """(scores by method and form, one row per method with how it ranks the wrong labels)."""
    from shared.nets import timed
    from shared.trajectory import log_probability
    from sklearn.frozen import FrozenEstimator
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores: dict[tuple[str, str], np.ndarray] = {}
    seconds: dict[tuple[str, str], float] = {}
    for key, attributor in forms(FrozenEstimator(net), seed, once_per_row).items():
        held = problem.held if key[1] == "validation" else {}
        seconds[key], fitted = timed(partial(attributor.fit, problem.X, problem.y, **held))
        scores[key] = fitted.scores_
    seconds["loss", ""], scores["loss", ""] = timed(lambda: log_probability(net, problem))
    rows = [
        {
            "method": method,
            "form": form,
            "auroc": roc_auc_score(problem.wrong, -values),
            "ap": average_precision_score(problem.wrong, -values),
            "seconds": seconds[method, form],
        }
        for (method, form), values in scores.items()
    ]
    return scores, rows


def digits_part(batches: str, lr: float, seed: int, rate: float) -> dict:
    """Leave-one-out and wrong labels on one split, one training."""
    from dataclasses import replace

    from scipy.stats import spearmanr
    from shared.nets import timed
    from shared.trajectory import FULL_BATCH, SOFTMAX, LeaveOneOut, digits, recorded

    problem, recipe = digits(rate, seed), replace({"full": FULL_BATCH, "64": SOFTMAX}[batches], lr=lr)
    net = recorded(recipe, problem.X, problem.y, seed, steps=True)
    scores, rows = scored(problem, net, seed, SLOW_SELF if (batches, lr) == ("64", SOFTMAX.lr) else SLOW_SELF[1:])
    retraining, true = timed(LeaveOneOut(net, problem, recipe).rises)
    common = {"data": "digits", "batches": batches, "lr": lr, "rate": rate, "seed": seed, "n": len(problem.X)}
    common |= {"accuracy": net.score(problem.X_val, problem.y_val), "retraining_seconds": retraining}
    for row in rows:
        if row["form"] == "validation":
            values = scores[row["method"], row["form"]]
            row["spearman"] = spearmanr(values, true).statistic
            row["slope"] = np.polyfit(values, true, 1)[0]
    return {"rows": [common | row for row in rows]}


def fashion_part(n: int, rate: float, seed: int) -> dict:
    """Wrong labels on one training of the MLP, and how the forms of Diff-In agree there."""
    from shared.trajectory import FASHION_MLP, fashion, recorded

    problem = fashion(n, rate, seed)
    net = recorded(FASHION_MLP, problem.X, problem.y, seed, steps=True)
    scores, rows = scored(problem, net, seed)
    common = {"data": "fashion", "rate": rate, "seed": seed, "n": n}
    common |= {"accuracy": net.score(problem.X_val, problem.y_val), "train_accuracy": net.score(problem.X, problem.y)}
    exact = scores["DiffIn", "validation"]
    agreements = [
        {"what": f"exact and {hvp}", "rows": n, **agree(exact, scores[f"DiffIn, {hvp}", "validation"])}
        for hvp in DIFFERENCES
    ]
    if seed == SEEDS[0]:
        agreements += smooth(problem, seed)
        agreements.append(exact_self(net, problem, scores["DiffIn", "self"], seed))
    return {"rows": [common | row for row in rows + agreements]}


def smooth(problem: Any, seed: int) -> list[dict]:
    """The agreement of the forms in a net without kinks: finite differences see those of ReLU, derivatives do not."""
    import torch
    from shared.nets import mlp
    from shared.trajectory import FASHION_MLP, recorded
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import DiffIn

    torch.manual_seed(seed)
    module = mlp(*FASHION_MLP.widths, activation=torch.nn.Tanh)
    net = FrozenEstimator(recorded(FASHION_MLP, problem.X, problem.y, seed, module=module))
    exact, *others = (
        DiffIn(net, hvp=hvp).fit(problem.X, problem.y, **problem.held).scores_ for hvp in ("exact", *DIFFERENCES)
    )
    return [
        {"what": f"exact and {hvp}, tanh for ReLU", "rows": len(problem.X), **agree(exact, values)}
        for hvp, values in zip(DIFFERENCES, others, strict=True)
    ]


def agree(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Pearson and Spearman correlation."""
    from scipy.stats import spearmanr

    return {"pearson": float(np.corrcoef(a, b)[0, 1]), "spearman": float(spearmanr(a, b).statistic)}


def exact_self(net: Any, problem: Any, gauss_newton: np.ndarray, seed: int) -> dict:
    """The self form with the exact Hessian for the first rows, beside the default, which has the Gauss-Newton matrix.

    Both take the Hessian over the same drawn rows. The risk and its gradient are of all rows, which a fit on the first
    ones would not give, so this goes through the method's parts.
    """
    from shared.nets import timed
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import DiffIn
    from sktda.engine.differences import risk_gradient
    from sktda.engine.differential import meeting, own_values, portion

    count = min(10 if quick() else EXACT_SELF_ROWS, len(problem.X))
    method = DiffIn(FrozenEstimator(net), hvp="exact", objective=None, random_state=seed).fit(problem.X, problem.y)
    fitted = method._ready()
    engine, rows = fitted.engine, fitted.rows.rooted()
    engine.prepare(rows)
    bends = method._bends(engine)

    def values() -> np.ndarray:
        total = np.zeros(count)
        for moment, weight in method._moments(fitted):
            risk = method._risk_rows(fitted, moment)
            met, slope = meeting(engine, bends, risk), risk_gradient(engine, fitted.rows)
            found = own_values(engine, rows, bends, met, slope, portion(engine, risk, True), 0, count)
            total -= weight * found.double().cpu().numpy()
        return total

    seconds, exact = timed(values)
    return {"what": "self, exact and gauss-newton", "rows": count, "seconds": seconds} | agree(
        exact, gauss_newton[:count]
    )


def cost_part(name: str, n: int, weight_decay: float, repeats: int) -> dict:
    """Seconds of methods over those of plain passes, for one net."""
    from dataclasses import replace

    from shared.nets import Setting, plain_pass
    from shared.trajectory import FASHION_MLP, N_CHECKPOINTS, fashion, recorded
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import DiffIn, InnerProduct, MoSo, TracIn, trajectory_scores

    problem = fashion(n, 0.2, 0)
    X, X_val, y_val = problem.X, problem.X_val[: n // 10], problem.y_val[: n // 10]
    recipe, module = replace(FASHION_MLP, weight_decay=weight_decay, epochs=2), None
    if name == "cnn":
        module = small_cnn()
        X, X_val = (part.reshape(-1, 1, 28, 28) for part in (X, X_val))
    else:
        recipe = replace(recipe, widths=tuple(int(width) for width in name.split("-")))
    net = recorded(recipe, X, problem.y, 0, module=module)
    setting = Setting(net, X, problem.y, X_val, y_val)
    setting.engine.prepare(setting.rows)
    size, frozen = setting.engine.batch_size, FrozenEstimator(net)
    given, held = (X, problem.y), {"X_val": X_val, "y_val": y_val}
    tasks: dict[str, Callable[[], Any]] = {
        "plain pass": plain_pass(setting, size),
        "all five together": partial(trajectory_scores, frozen, *given, *held.values()),
        "TracIn": partial(TracIn(frozen).fit, *given, **held),
        "TracIn-self": partial(TracIn(frozen, objective="self").fit, *given),
        "InnerProduct": partial(InnerProduct(frozen).fit, *given, **held),
        "MoSo": partial(MoSo(frozen, checkpoints="even").fit, *given),
        "DiffIn": partial(DiffIn(frozen).fit, *given, **held),
        "DiffIn, finite-difference": partial(DiffIn(frozen, hvp="finite-difference").fit, *given, **held),
    }
    seconds = shortest(tasks, repeats)
    plain = seconds.pop("plain pass") * N_CHECKPOINTS
    common = {"net": name, "n": n, "weight_decay": weight_decay, "batch": size, "checkpoints": N_CHECKPOINTS}
    return {
        "rows": [
            common
            | {"what": what, "seconds": value, "plain_seconds": plain, "ratio": value / plain}
            | {"limit": LIMIT if what == "all five together" else None}
            for what, value in seconds.items()
        ]
    }


def small_cnn() -> Any:
    """Two convolutions and a Linear layer for images (1, 28, 28)."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 10),
    )  # fmt: skip


def shortest(tasks: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Least seconds of every task, in turns after one round that does not count."""
    from shared.nets import timed

    rounds = [{name: timed(task)[0] for name, task in tasks.items()} for _ in range(repeats + 1)]
    return {name: min(each[name] for each in rounds[1:]) for name in tasks}


def show(row: dict) -> None:
    """One line."""
    if "ratio" in row:
        limit = f" (limit {row['limit']:g})" if row["limit"] else ""
        print(
            f"{row['net']:16s} weight decay {row['weight_decay']:g} {row['what']:26s} {row['seconds']:8.3f} s "
            f"{row['ratio']:6.2f} x {row['checkpoints']} plain passes{limit}"
        )
    elif "what" in row:
        print(f"  DiffIn, {row['what']}: r {row['pearson']:.5f}, rank r {row['spearman']:.5f}, {row['rows']} rows")
    else:
        truth = (
            f" rank r with leave-one-out {row['spearman']:.3f}, slope {row['slope']:.3g}" if "spearman" in row else ""
        )
        run = f"{row['data']} {row.get('batches', ''):5s} {row.get('lr', '')} {row['rate']:.1f} seed {row['seed']}"
        print(
            f"{run} {row['method']:26s} {row['form']:10s} "
            f"AUROC {row['auroc']:.4f} AP {row['ap']:.4f} {row['seconds']:7.2f} s{truth}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"some of {', '.join(PARTS)}")
    options = begin(parser, arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; allowed are {', '.join(PARTS)}")
    few = options.quick
    seeds = SEEDS[:1] if few else SEEDS
    n = 100 if few else 10_000
    runs, rates, decays = (RUNS[1:2], (0.2,), (5e-4,)) if few else (RUNS, (0.2, 0.4), (5e-4, 0.0))
    nets = {"cnn": 50} if few else {"784-256-256-10": n, "784-512-512-10": n, "cnn": n // 10}
    jobs: dict[str, list[tuple]] = {
        "digits": [(digits_part, batches, lr, seed, 0.2) for batches, lr in runs for seed in seeds],
        "fashion": [(fashion_part, n, rate, seed) for seed in seeds for rate in rates],
        "cost": [(cost_part, net, rows, decay, 1 if few else 5) for net, rows in nets.items() for decay in decays],
    }
    for part in options.parts:
        rows: list[dict] = []
        for job in jobs[part]:
            found = measured(*job)["rows"]
            rows += found
            for row in found:
                show(row)
        save(f"trajectory_{part}", rows)


if __name__ == "__main__":
    main()
