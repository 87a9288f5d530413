"""Image-text pre-training: which mismatched pairs are found, and retrieval after training without them.

    python benchmarks/image_text.py            # minutes on one core
    python benchmarks/image_text.py --seed 2   # that one alone, beside those that are written
    python benchmarks/image_text.py --quick    # few pairs, one seed, nothing written: does it run?

10,000 pictures of Fashion-MNIST with captions (eight templates, four names for each class, words as tokens); 30 % of
the pictures have the caption of another class. Two towers (MLPs; the mean of the words' vectors) are trained with
ContrastiveLoss in batches of 128. Each method scores the pairs in the batches that they stood in, along the recorded
run, with 1,000 matched pairs as validation; "InnerProduct, fixed negatives" scores each pair against the same 127
pairs of the validation set. InfluencePruner then removes the worst 30 %. Training on what is left, from the same
start with as many steps, gives retrieval among 2,000 pictures and captions of the test set: the share of the ten
nearest captions of a picture (and pictures of a caption) that are of its class. Needs the folder in SKTDA_DATA (or
OpenML). Writes benchmarks/results/image_text.json, row by row; `python benchmarks/tables.py` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from shared.captions import captions, embedded, precision, tokens, towers
from shared.common import RESULTS, begin, fashion_mnist, save

SEEDS = (1, 2, 3)  # on 0 the settings were chosen
LAST, BANK = "DiffIn, last checkpoint", "InnerProduct, fixed negatives"
RATE, K = 0.3, 10
SIZES = {"n": 10_000, "validation": 1_000, "test": 2_000}
QUICK = {"n": 100, "validation": 40, "test": 60}
BATCH, EPOCHS, LR, MOMENTUM, CHECKPOINTS = 128, 5, 0.05, 0.9, 5


def planted(seed: int, sizes: dict[str, int]) -> tuple[dict, dict, dict, np.ndarray, np.ndarray]:
    """(training pairs, validation pairs, test pairs, mask of the mismatched ones, classes of the test pairs)."""
    X, y, X_test, y_test = fashion_mnist()
    rng = np.random.default_rng(seed)
    n, held = sizes["n"], sizes["validation"]
    rows = rng.permutation(len(X))[: n + held]
    test = rng.permutation(len(X_test))[: sizes["test"]]
    wrong = np.zeros(n + held, dtype=bool)
    wrong[rng.choice(n, round(RATE * n), replace=False)] = True
    told = np.where(wrong, (y[rows] + rng.integers(1, 10, len(rows))) % 10, y[rows])
    pairs = {"images": pixels(X[rows]), "texts": tokens(captions(told, rng))}
    queries = {"images": pixels(X_test[test]), "texts": tokens(captions(y_test[test], rng))}
    train, validation = ({name: v[part] for name, v in pairs.items()} for part in (slice(0, n), slice(n, None)))
    return train, validation, queries, wrong[:n], y_test[test]


def pixels(X: np.ndarray) -> np.ndarray:
    """(n, 784), of mean 0 and variance 1 over the data set."""
    return ((X.reshape(len(X), -1) / 255 - 0.286) / 0.353).astype(np.float32)


def net(seed: int, epochs: float) -> Any:
    """Untrained, always with the same start."""
    import torch
    from skorch import NeuralNet

    from sktda import ContrastiveLoss, TrajectoryRecorder

    torch.manual_seed(seed)
    return NeuralNet(
        towers(),
        criterion=ContrastiveLoss,
        batch_size=BATCH,
        max_epochs=round(epochs),
        lr=LR,
        optimizer__momentum=MOMENTUM,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints=CHECKPOINTS, steps=True)],
    )


def attributors(frozen: Any, seed: int) -> dict[str, Any]:
    """Methods by the batches that pairs stood in."""
    from sktda.attribution import DiffIn, InnerProduct, TracIn

    found = {make.__name__: make(frozen, random_state=seed) for make in (InnerProduct, TracIn, DiffIn)}
    return found | {LAST: DiffIn(frozen, n_checkpoints=1, random_state=seed)}


def against_bank(fitted: Any, X: dict, validation: dict) -> Any:
    """A fitted method that scores each pair against the same negatives, from the validation pairs."""
    from torch import nn

    from sktda import FixedNegatives, TorchModel
    from sktda.attribution import InnerProduct

    bank = {name: value[: BATCH - 1] for name, value in validation.items()}
    model = TorchModel(FixedNegatives(fitted.module_, bank), nn.CrossEntropyLoss())
    zeros = [np.zeros((len(pairs["texts"]), 2), dtype=int) for pairs in (X, validation)]
    return InnerProduct(model).fit(X, zeros[0], X_val=validation, y_val=zeros[1])


def seed_part(seed: int, sizes: dict[str, int]) -> Iterator[dict]:
    """A row per choice of pairs: how it ranks the mismatched ones, and retrieval after training on what it keeps."""
    from sklearn.frozen import FrozenEstimator
    from sklearn.metrics import average_precision_score, roc_auc_score

    from sktda import Holdout, InfluencePruner
    from sktda.attribution import PrecomputedScores

    X, validation, queries, wrong, y_test = planted(seed, sizes)
    n = len(wrong)
    y, held = np.zeros(n), Holdout(validation, np.zeros(len(validation["texts"])))  # nothing reads them
    start = time.perf_counter()
    fitted = net(seed, EPOCHS).fit(X, y)
    common = {"seed": seed, **sizes, "rate": RATE, "k": K, "train_seconds": time.perf_counter() - start}

    def found(name: str, model: Any, more: dict) -> dict:
        images, texts = embedded(model, queries)
        return (
            common
            | more
            | {
                "choice": name,
                "to_texts": precision(images, texts, y_test, K),
                "to_images": precision(texts, images, y_test, K),
            }
        )

    yield found("all pairs", fitted, {"wrong": wrong.mean()})
    random = np.random.default_rng([seed, 1]).random(n)
    choices = {"random": PrecomputedScores(random), "no mismatched pair": PrecomputedScores(random - wrong)}
    choices |= attributors(FrozenEstimator(fitted), seed)
    seconds = {}
    start = time.perf_counter()
    choices[BANK] = PrecomputedScores(against_bank(fitted, X, validation).scores_)
    seconds[BANK] = time.perf_counter() - start
    for name, attributor in choices.items():
        precomputed = isinstance(attributor, PrecomputedScores)
        if not precomputed:
            start = time.perf_counter()
            scores = attributor.fit(X, y, X_val=held.X, y_val=held.y).scores_
            seconds[name] = time.perf_counter() - start
            attributor = PrecomputedScores(scores)
        # as many steps as all pairs had
        pruner = InfluencePruner(net(seed, EPOCHS / (1 - RATE)), attributor, prune_ratio=RATE).fit(X, y)
        more = {"wrong": wrong[pruner.support_].mean()}
        if name in seconds:
            ranks = roc_auc_score(wrong, -pruner.scores_), average_precision_score(wrong, -pruner.scores_)
            more |= {"auroc": ranks[0], "ap": ranks[1], "seconds": seconds[name]}
        yield found(name, pruner.estimator_, more)


def show(row: dict) -> None:
    """One line."""
    ranks = f"AUROC {row['auroc']:.4f} AP {row['ap']:.4f} {row['seconds']:6.1f} s" if "auroc" in row else " " * 34
    print(
        f"seed {row['seed']} {row['choice']:29s} {ranks} {row['wrong']:6.1%} mismatched; of the nearest {K}, "
        f"{row['to_texts']:.4f} of the captions and {row['to_images']:.4f} of the pictures are of the class",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int)
    options = begin(parser, arguments, threads=1)
    quick, rows, seeds = options.quick, [], SEEDS
    if options.seed is not None and (RESULTS / "image_text.json").exists():
        rows = json.loads((RESULTS / "image_text.json").read_text())["rows"]
        rows = [row for row in rows if row["seed"] != options.seed]
    if options.seed is not None:
        seeds = (options.seed,)
    for seed in SEEDS[:1] if quick else seeds:
        for row in seed_part(seed, QUICK if quick else SIZES):
            rows.append(row)
            show(row)
            save("image_text", rows)  # a run that is cut leaves what it has


if __name__ == "__main__":
    main()
