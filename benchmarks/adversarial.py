"""Adversarial defence: is a net harder to attack after training without the rows that are said to make it fragile?

    python benchmarks/adversarial.py            # about twelve minutes on two cores
    python benchmarks/adversarial.py --quick    # few rows, one seed, nothing written: does it run?

10,000 rows of Fashion-MNIST with the labels as published, MLP 784-256-256-10, 20 epochs of SGD with momentum. Rows are
scored on the net that was trained on all of them, for its loss on 1,000 validation rows that PGD moved against it
(eps 8/255, ten steps, pixels stay in [0, 1]), for the sum of that and the loss on the same rows as they are, and for
their own loss. This eps was chosen because it leaves the net between 20 and 60 % of the validation rows (57 % for the
first seed). The 5, 10 and 20 % with the lowest scores are removed, or all rows are weighted by the rank of their score,
from 0 to 1 (over the mean). A net is then trained from the same start, for as many steps as whole epochs allow, and
attacked itself: accuracy on the 10,000 test rows as they are, and on the first 2,000 after PGD with three eps. Beside
every score stands a random one. Every seed has a process of its own, two at a time. Writes
benchmarks/results/adversarial.json; `python benchmarks/tables.py` makes the table from it.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from shared.common import begin, fashion_mnist, measured, save

SEEDS = (0, 1, 2, 3, 4)
SHARES = (0.05, 0.1, 0.2)
EPS = (4, 8, 12)  # of 255
SCORED_EPS = 8  # of the attack that the scores are for
ATTACKED = 2_000  # test rows
SIDE_BY_SIDE = 2  # processes, with one thread each: the products are small


def attack(eps: int) -> Any:
    """PGD with this eps, in 255ths."""
    from sktda.objectives import AdversarialLoss

    return AdversarialLoss("pgd", eps=eps / 255, bounds=(0, 1))


def scores(problem: Any, net: Any, seed: int) -> dict[tuple[str, str], np.ndarray]:
    """By (method, objective); higher = keep."""
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import Influence, InnerProduct
    from sktda.objectives import ValidationLoss, Weighted

    frozen, both = FrozenEstimator(net), Weighted([ValidationLoss(), attack(SCORED_EPS)])
    inner = InnerProduct(frozen, objective=attack(SCORED_EPS)).fit(problem.X, problem.y, **problem.held)
    influence = Influence(frozen, curvature="ekfac", objective=both, random_state=seed)
    influence.fit(problem.X, problem.y, **problem.held)
    own = Influence(frozen, curvature="ekfac", objective="self", random_state=seed)
    return {
        ("InnerProduct", "adversarial"): inner.scores_,
        ("Influence", "adversarial"): influence.objectives_["AdversarialLoss"].scores,
        ("Influence", "both"): influence.scores_,
        ("Influence", "self"): own.fit(problem.X, problem.y).scores_,
        ("random", ""): np.random.default_rng(seed).random(len(problem.y)),
    }


def weighted_loss(outputs: Any, targets: Any) -> Any:
    """Losses (nets, batch) of targets (nets, batch, 1 + nets): the class, and what each net multiplies the loss by."""
    from shared.batched import cross_entropy

    weights = targets[..., 1:].diagonal(dim1=0, dim2=2).T
    return weights * cross_entropy(outputs, targets[..., 0].long())


def as_estimator(nets: Any, position: int) -> Any:
    """One of the nets that were trained side by side."""
    import torch
    from shared.nets import mlp
    from shared.trajectory import FASHION_MLP
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        mlp(*FASHION_MLP.widths),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer__weight_decay=FASHION_MLP.weight_decay,
    ).initialize()
    with torch.no_grad():
        for own, stacked in zip(net.module_.parameters(), nets.parameters, strict=True):
            own.copy_(stacked[position].reshape(own.shape))
    return net


def accuracies(net: Any, X_test: np.ndarray, y_test: np.ndarray, attacked: int) -> dict[str, float]:
    """On the test rows, and on the first of them after each attack."""
    from sktda.attribution import adversarial_accuracy

    found = {"clean": float((net.predict(X_test) == y_test).mean())}
    for eps in EPS:
        found[f"pgd_{eps}"] = adversarial_accuracy(net, X_test[:attacked], y_test[:attacked], attack(eps))
    return found


def part(n: int, seed: int, shares: tuple[float, ...], attacked: int) -> dict:
    """Every score and every way to use it, on one training."""
    import torch
    from shared.batched import trained
    from shared.trajectory import FASHION_MLP, fashion, pixels

    torch.set_num_threads(1)
    problem = fashion(n, 0.0, seed)
    _, _, x_test, y_test = fashion_mnist()
    X_test = pixels(x_test)
    X, y, everyone = torch.from_numpy(problem.X), torch.from_numpy(problem.y), torch.arange(n)
    common = {"n": n, "seed": seed, "attacked": attacked, "scored_eps": SCORED_EPS}

    before = as_estimator(trained(FASHION_MLP, X, y, everyone[None], [seed]), 0)
    rows = [{"method": "all rows", "objective": "", "way": "", "share": 0.0}]
    rows[0] |= accuracies(before, X_test, y_test, attacked)
    found = scores(problem, before, seed)
    for share in shares:
        kept = [np.sort(np.argsort(values, kind="stable")[round(share * n) :]) for values in found.values()]
        recipe = replace(FASHION_MLP, epochs=round(FASHION_MLP.epochs * n / len(kept[0])))
        nets = trained(recipe, X, y, torch.from_numpy(np.stack(kept)), [seed] * len(kept))
        for position, (method, objective) in enumerate(found):
            row = {"method": method, "objective": objective, "way": "removed", "share": share}
            rows.append(row | accuracies(as_estimator(nets, position), X_test, y_test, attacked))
    ranks = [2 * np.argsort(np.argsort(values, kind="stable")) / (n - 1) for values in found.values()]
    targets = torch.cat([y[:, None], torch.from_numpy(np.stack(ranks, axis=1))], dim=1).float()
    recipe = replace(FASHION_MLP, loss=weighted_loss)
    nets = trained(recipe, X, targets, everyone.expand(len(ranks), -1), [seed] * len(ranks))
    for position, (method, objective) in enumerate(found):
        row = {"method": method, "objective": objective, "way": "weighted", "share": 0.0}
        rows.append(row | accuracies(as_estimator(nets, position), X_test, y_test, attacked))
    return {"rows": [common | row for row in rows]}


def show(row: dict) -> None:
    """One line."""
    way = f"{row['way']} {row['share']:.0%}" if row["way"] == "removed" else row["way"]
    attacks = ", ".join(f"{eps}/255 {row[f'pgd_{eps}']:.4f}" for eps in EPS)
    print(
        f"seed {row['seed']} {way:12s} {row['method']:12s} {row['objective']:11s} clean {row['clean']:.4f}, "
        f"PGD {attacks}",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    quick = begin(parser, arguments).quick
    n, seeds, shares, attacked = (150, SEEDS[:1], SHARES[1:2], 30) if quick else (10_000, SEEDS, SHARES, ATTACKED)
    rows: list[dict] = []
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for result in pool.map(lambda seed: measured(part, n, seed, shares, attacked), seeds):
            rows += result["rows"]
            for row in result["rows"]:
                show(row)
            print(f"    {result['seconds']:.0f} s and {result['peak_gib']:.1f} GiB", flush=True)
    save("adversarial", rows)


if __name__ == "__main__":
    main()
