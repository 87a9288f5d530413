"""Retraining ground truth for LDS: what models trained on random halves of the rows say about each query.

    python benchmarks/truth.py digits             # half a minute on one core; writes benchmarks/truth/digits.npz
    python benchmarks/truth.py concrete --out .   # three minutes; the data come from SKTDA_DATA or OpenML
    python benchmarks/truth.py mnist_mlp          # as published with dattri (mnist.py); ten minutes
    python benchmarks/truth.py digits --check     # compare with a plain training loop; nothing is written
    python benchmarks/truth.py --quick            # few trainings, nothing written: does it run?

Every subset is trained on several times, from seeds of their own (initialisation and order of the rows), and ten more
models are trained on all rows. The file holds `train_index` and `query_index` (rows of the data set), `y_train`,
`n_train`, `masks` (np.unpackbits(masks, axis=1)[:, :n_train], True = kept), `loss` and `measure` (n_subsets,
n_retrains, n_query), `full_loss` and `full_measure` (10, n_query). `measure` is the margin log p - log(1 - p) of the
right class (higher = better) or, for regression, the absolute error.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from shared.batched import Recipe, cross_entropy, margin, trained
from shared.common import begin
from shared.retraining import OUT, TRUTHS, Truth, half_masks, make
from torch import Tensor


def plain_loop(recipe: Recipe, X: Tensor, y: Tensor, seed: int) -> torch.nn.Module:
    """One net, trained as anybody would."""
    from shared.nets import mlp

    torch.manual_seed(seed)
    net = mlp(*recipe.widths, dropout=recipe.dropout).to(X)
    optimiser = recipe.optimiser(net.parameters())
    for _ in range(recipe.epochs):
        for batch in torch.randperm(len(X)).split(recipe.batch_size):
            optimiser.zero_grad()
            loss = (
                torch.nn.functional.cross_entropy(net(X[batch]), y[batch])
                if recipe.loss is cross_entropy
                else torch.nn.functional.mse_loss(net(X[batch])[:, 0], y[batch])
            )
            loss.backward()
            optimiser.step()
    return net.eval()


def check(truth: Truth) -> None:
    """Nets of one batch against nets trained alone, in float64 because rounding grows along a run; the definitions."""
    problem = truth.load()
    problem = replace(problem, X=problem.X.double(), X_query=problem.X_query.double())
    if problem.y.is_floating_point():
        problem = replace(problem, y=problem.y.double(), y_query=problem.y_query.double())
    masks = half_masks(len(problem.X), 3)
    rows = torch.from_numpy(np.stack([np.flatnonzero(mask) for mask in masks]))
    outputs = trained(truth.recipe, problem.X, problem.y, rows, range(7, 10))(problem.X_query).detach()
    for net, (kept, seed) in enumerate(zip(rows, range(7, 10), strict=True)):
        alone = plain_loop(truth.recipe, problem.X[kept], problem.y[kept], seed)(problem.X_query).detach()
        report(f"outputs of net {net}", outputs[net], alone)
    outputs, targets = outputs[0], problem.y_query
    loss, measure = truth.recipe.loss(outputs, targets), truth.measure(outputs, targets)
    if truth.measure is margin:
        p = outputs.softmax(-1)[torch.arange(len(targets)), targets]
        report("loss", loss, -p.log())
        report("margin", measure, p.log() - (1 - p).log())
    else:
        report("loss", loss, (outputs[:, 0] - targets).square())
        report("absolute error", measure, loss.sqrt())


def report(name: str, found: Tensor, expected: Tensor) -> None:
    """Print the largest difference; ValueError if it is more than 1e-5."""
    difference = (found - expected).abs().max().item()
    print(f"{name}: differs by {difference:.1e} at most")
    if not difference <= 1e-5:
        raise ValueError(f"{name} differs by {difference:.1e}; allowed is 1e-5")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="digits", choices=TRUTHS)
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write to")
    parser.add_argument("--check", action="store_true", help="compare with a plain training loop instead")
    options = begin(parser, arguments, threads=1)
    # the products are small: a second thread gains little, and on a busy machine costs tenfold
    truth = TRUTHS[options.name]
    if options.quick:
        truth = replace(truth, recipe=replace(truth.recipe, epochs=1), n_subsets=4, n_retrains=2)
    if options.check:
        check(truth)
        return
    from sktda.metrics import noise_ceiling

    content = make(truth)
    if options.quick:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{options.name}.npz"
    np.savez_compressed(file, **content)
    loss, measure = (noise_ceiling(content[key]) for key in ("loss", "measure"))
    print(f"{file}: ceiling of LDS {loss:.3f} (loss), {measure:.3f} ({truth.measure.__name__.replace('_', ' ')})")


if __name__ == "__main__":
    main()
