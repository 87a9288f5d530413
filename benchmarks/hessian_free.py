"""Is influence without the Hessian as good? Wrong labels found by gradient methods as training goes on.

    python benchmarks/hessian_free.py            # about ten minutes on two cores
    python benchmarks/hessian_free.py --quick    # few rows, one training, nothing written: does it run?

arXiv:2405.17490 says that an inner product of gradients, influence with the identity for the Hessian, finds harmful
rows as well as influence does, and that an ensemble of models with some parameters at zero makes it better. Here:
10,000 rows of Fashion-MNIST with 20 and 40 % of the labels flipped, MLP 784-256-256-10 trained for 1, 2, 5, 10 and 20
epochs of SGD, recorded. The validation rows are 1,000 with right labels. All methods get the same trained net with the
same six checkpoints, and their defaults otherwise. Every seed (of flips and training) has a process of its own. Writes
benchmarks/results/hessian_free.json; `python benchmarks/tables.py` makes the tables from it.
"""

from __future__ import annotations

import argparse
from typing import Any

from shared.common import begin, measured, save

SEEDS = (0, 1, 2)
RATES = (0.2, 0.4)
EPOCHS = (1, 2, 5, 10, 20)
N_MEMBERS = 10


def attributors(frozen: Any, seed: int) -> dict[tuple[str, str], Any]:
    """By (method, form)."""
    from sktda.attribution import Influence, InnerProduct, ModelEnsemble, TracIn

    inner = InnerProduct(frozen, objective="validation", random_state=seed)
    return {
        ("InnerProduct", "validation"): inner,
        ("ModelEnsemble of InnerProduct", "validation"): ModelEnsemble(inner, n_members=N_MEMBERS, random_state=seed),
        ("TracIn", "validation"): TracIn(frozen, objective="validation", random_state=seed),
        ("Influence", "validation"): Influence(frozen, curvature="ekfac", objective="validation", random_state=seed),
        ("Influence", "self"): Influence(frozen, curvature="ekfac", objective="self", random_state=seed),
    }


def part(n: int, rate: float, seed: int, lengths: tuple[int, ...]) -> dict:
    """Wrong labels found on nets after so many epochs, each trained from the start."""
    from dataclasses import replace

    from shared.trajectory import FASHION_MLP, fashion, recorded

    problem = fashion(n, rate, seed)
    rows: list[dict] = []
    for epochs in lengths:
        net = recorded(replace(FASHION_MLP, epochs=epochs), problem.X, problem.y, seed)
        common = {"n": n, "rate": rate, "seed": seed, "epochs": epochs, "members": N_MEMBERS}
        common["accuracy"] = net.score(problem.X_val, problem.y_val)
        common["train_accuracy"] = net.score(problem.X, problem.y)
        rows += [common | row for row in scored(problem, net, seed)]
    return {"rows": rows}


def scored(problem: Any, net: Any, seed: int) -> list[dict]:
    """One row per method: how it ranks the wrong labels, and its seconds."""
    from functools import partial

    from shared.nets import timed
    from shared.trajectory import log_probability
    from sklearn.frozen import FrozenEstimator
    from sklearn.metrics import average_precision_score, roc_auc_score

    found = {}
    for key, attributor in attributors(FrozenEstimator(net), seed).items():
        held = problem.held if key[1] == "validation" else {}
        seconds, fitted = timed(partial(attributor.fit, problem.X, problem.y, **held))
        found[key] = seconds, fitted.scores_
    found["loss", ""] = timed(partial(log_probability, net, problem))
    return [
        {
            "method": method,
            "form": form,
            "auroc": roc_auc_score(problem.wrong, -scores),
            "ap": average_precision_score(problem.wrong, -scores),
            "seconds": seconds,
        }
        for (method, form), (seconds, scores) in found.items()
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    quick = begin(parser, arguments).quick
    n, seeds, rates, lengths = (150, SEEDS[:1], RATES[:1], EPOCHS[1:2]) if quick else (10_000, SEEDS, RATES, EPOCHS)
    rows: list[dict] = []
    for seed in seeds:
        for rate in rates:
            result = measured(part, n, rate, seed, lengths)
            rows += result["rows"]
            for row in result["rows"]:
                print(
                    f"{rate:.0%} seed {seed} epochs {row['epochs']:2d} (accuracy {row['accuracy']:.3f}) "
                    f"{row['method']:30s} {row['form']:10s} "
                    f"AUROC {row['auroc']:.4f} AP {row['ap']:.4f} {row['seconds']:6.2f} s",
                    flush=True,
                )
            print(f"    {result['seconds']:.1f} s and {result['peak_gib']:.2f} GiB in all", flush=True)
    save("hessian_free", rows)


if __name__ == "__main__":
    main()
