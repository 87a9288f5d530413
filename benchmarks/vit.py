"""A vision transformer without the tenth of its rows that is said to harm most: by one training run, or by ten.

    python benchmarks/vit.py            # about twelve minutes on two cores
    python benchmarks/vit.py --quick    # few rows, short trainings, nothing written: does it run?

arXiv:2506.12965 averages the influence on a validation loss over ten training runs, which differ in their seed, and
removes the 10 % of the rows that are predicted to lower that loss most by leaving. Here: a ViT of two pre-norm blocks
on Fashion-MNIST (16 patches of 7x7 pixels, learned positions, width 32), trained by Adam, with the labels as published
and with 10 % of them flipped. The validation rows have right labels. EK-FAC takes Linear layers, so the positions and
the weights and biases of the norms are left out of the influence. With a CUDA device 50,000 rows train and 10,000
validate, without one 5,000 and 1,000.

`InfluencePruner` with `Distributional` trains ten nets and removes 10 % of every class by their mean (or 10 % of all
rows, as the paper does), each of the first five nets removes as many by itself, and chance does. Nets are then trained
on what is left, as many epochs, from seeds that are the same for all ways and other than those of the ten, and tested
on 10,000 rows. Scores of the two settings, and then all trainings, run side by side in processes. Writes
benchmarks/results/vit.json.
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from shared.common import begin, fashion_mnist, flip, measured, save
from torch import nn
from torch.nn import functional as F

RATES = (0.0, 0.1)  # of flipped labels
PRUNED = 0.1
MEAN, DEVIATION = np.float32(0.286), np.float32(0.353)  # of the pixels of all training images
LEARNING_RATE, WEIGHT_DECAY = 5e-3, 3e-4  # of a few, the lowest loss on the validation rows


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    n: int
    n_val: int
    n_test: int
    epochs: int
    batch_size: int
    n_runs: int = 10
    singles: int = 5
    """Runs that also remove rows by themselves."""
    seeds: int = 5
    """Trainings on what each way of removing has left."""
    side_by_side: int = 2
    """Processes, with one thread each: the products are small."""
    device: str = "cpu"


QUICK = Size(n=100, n_val=50, n_test=50, epochs=1, batch_size=64, n_runs=2, singles=1, seeds=2, side_by_side=1)
REDUCED = Size(n=5_000, n_val=1_000, n_test=10_000, epochs=15, batch_size=64)
FULL = Size(n=50_000, n_val=10_000, n_test=10_000, epochs=10, batch_size=256, side_by_side=6, device="cuda")


class Block(nn.Module):
    """Attention and a hidden layer of twice the width, each of the normalised input and added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, patches, width), as it came."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    """A vision transformer for images of 28x28 pixels; the head sees the mean over the patches."""

    def __init__(self, width: int = 32, depth: int = 2, heads: int = 4, patch: int = 7) -> None:
        super().__init__()
        self.side = patch
        self.patch = nn.Linear(patch**2, width)
        self.position = nn.Parameter(0.02 * torch.randn((28 // patch) ** 2, width))
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (n, 10) of (n, 28, 28)."""
        tiles = images.unflatten(2, (-1, self.side)).unflatten(1, (-1, self.side)).transpose(2, 3)
        x = self.patch(tiles.flatten(3).flatten(1, 2)) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


def network(size: Size) -> Any:
    """The ViT as an estimator, not yet trained; its learning rate falls along a half cosine."""
    from skorch import NeuralNetClassifier
    from skorch.callbacks import LRScheduler

    return NeuralNetClassifier(
        ViT,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        optimizer__weight_decay=WEIGHT_DECAY,  # AdamW's would not be a penalty of the loss, as Influence has it
        lr=LEARNING_RATE,
        max_epochs=size.epochs,
        batch_size=size.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        device=size.device,
        verbose=0,
        callbacks=[("schedule", LRScheduler("CosineAnnealingLR", T_max=size.epochs))],
    )


@dataclass(frozen=True)
class Problem:
    """Rows to train on with the labels as given, which of these are wrong, and others with right labels."""

    X: np.ndarray
    y: np.ndarray
    wrong: np.ndarray
    X_val: np.ndarray
    y_val: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def problem(size: Size, rate: float) -> Problem:
    """The first training images, a share `rate` of them with another label; the last ones of the file validate."""
    x_train, y_train, x_test, y_test = fashion_mnist()
    given, wrong = flip(y_train[: size.n], "uniform", rate)
    X, X_val, X_test = (
        (part / np.float32(255) - MEAN) / DEVIATION
        for part in (x_train[: size.n], x_train[-size.n_val :], x_test[: size.n_test])
    )
    return Problem(X, given, wrong, X_val, y_train[-size.n_val :], X_test, y_test[: size.n_test])


def quality(net: Any, X: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(accuracy, mean cross-entropy)."""
    outputs = net.forward(X).cpu()
    return float((outputs.argmax(1).numpy() == y).mean()), float(F.cross_entropy(outputs, torch.from_numpy(y)))


# ---- scores ----------------------------------------------------------------------------------------------------------


def score_part(size: Size, rate: float) -> dict:
    """Ten runs and their scores; what stays by every way of removing; how well runs agree with each other."""
    from shared.nets import timed

    from sktda import Holdout, InfluencePruner
    from sktda.attribution import Distributional, Influence
    from sktda.selection import prune

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "EK-FAC leaves out")  # said in the docstring, and noted in the result
    data, n_remove = problem(size, rate), round(PRUNED * size.n)
    pruner = InfluencePruner(
        network(size),
        Distributional(Influence(curvature="ekfac"), n_members=size.n_runs),
        prune_ratio=PRUNED,
        stratify=True,
        validation=Holdout(data.X_val, data.y_val),
        random_state=0,
    )
    seconds, pruner = timed(lambda: pruner.fit(data.X, data.y))
    runs = pruner.attributor_
    kept = {
        "all rows": [np.ones(size.n, dtype=bool)],
        # other draws than those that flipped the labels
        "random": [prune(np.random.default_rng([k, 1]).random(size.n), n_remove, data.y) for k in range(size.seeds)],
        "one run": [prune(scores, n_remove, data.y) for scores in runs.member_scores_[: size.singles]],
        "ten runs": [pruner.support_],
        "ten runs, any class": [prune(runs.scores_, n_remove, data.y, stratify=False)],
    }
    curvature, model = runs.attributors_[0].curvature_, runs.attributors_[0].estimator_.estimator.module_
    sizes = {name: value.numel() for name, value in model.named_parameters()}
    row = {
        "part": "scores",
        "rate": rate,
        "n": size.n,
        "n_runs": size.n_runs,
        "parameters": sum(sizes.values()),
        "left_out": curvature.left_out,
        "left_out_parameters": sum(sizes[name] for name in curvature.left_out),
        "pruner_seconds": seconds,
        "run_losses": runs.member_values_.tolist(),
        "train_accuracy": float(np.mean([each.estimator_.score(data.X, data.y) for each in runs.attributors_])),
    }
    row |= agreement(runs.member_scores_, data, size)
    choices = {
        way: [
            {"kept": mask, "predicted": float(runs.scores_[~mask].sum()), "wrong_removed": int(data.wrong[~mask].sum())}
            for mask in masks
        ]
        for way, masks in kept.items()
    }
    return {"row": row, "choices": choices}


def agreement(run_scores: np.ndarray, data: Problem, size: Size) -> dict[str, Any]:
    """Of single runs with each other, and of the means of two halves: ranks, and rows that both remove."""
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    from sktda.selection import prune

    half = size.n_runs // 2
    sets = {"one": run_scores, "half": np.stack([run_scores[:half].mean(0), run_scores[half : 2 * half].mean(0)])}
    found: dict[str, Any] = {}
    for name, scores in sets.items():
        gone = [~prune(each, round(PRUNED * size.n), data.y) for each in scores]
        pairs = list(combinations(range(len(scores)), 2))
        found[f"spearman_{name}"] = float(np.mean([spearmanr(scores[i], scores[j])[0] for i, j in pairs]))
        found[f"common_{name}"] = float(np.mean([(gone[i] & gone[j]).sum() / gone[i].sum() for i, j in pairs]))
    if data.wrong.any():
        found["auroc_one"] = [float(roc_auc_score(data.wrong, -each)) for each in run_scores]
        found["auroc_mean"] = float(roc_auc_score(data.wrong, -run_scores.mean(0)))
    return found


# ---- retraining ------------------------------------------------------------------------------------------------------


def retrain_part(size: Size, rate: float, masks: list[np.ndarray], seeds: list[int]) -> dict:
    """One row per net: trained from this seed on the rows of this mask."""
    from sktda import retrain

    torch.set_num_threads(1)
    data = problem(size, rate)
    rows = []
    for seed, net in zip(seeds, retrain(network(size), data.X, data.y, seeds=seeds, rows=masks), strict=True):
        accuracy, loss = quality(net, data.X_test, data.y_test)
        val_accuracy, val_loss = quality(net, data.X_val, data.y_val)
        rows.append(
            {"seed": seed, "accuracy": accuracy, "loss": loss, "val_accuracy": val_accuracy, "val_loss": val_loss}
        )
    return {"rows": rows}


def retrained(size: Size, rate: float, way: str, numbers: list[int], choices: list[dict]) -> list[dict]:
    """Rows of nets trained on each of these choices of a way: from every seed, or (chance) from the seed of its own."""
    own = way == "random"
    pairs = [(number, seed) for number in numbers for seed in ([number] if own else range(size.seeds))]
    masks = [choices[number]["kept"] for number, _ in pairs]
    found = measured(retrain_part, size, rate, masks, [seed for _, seed in pairs])["rows"]
    return [
        {"part": "retrained", "rate": rate, "way": way, "number": number, "n": size.n}
        | {name: value for name, value in choices[number].items() if name != "kept"}
        | row
        for (number, _), row in zip(pairs, found, strict=True)
    ]


def compared(rows: list[dict], rate: float) -> list[dict]:
    """One row per way of removing: test accuracy and loss over seeds, and their differences to all rows, to one run.

    A way with several choices of rows counts at each seed with the mean over them, unless every seed has its own
    (chance). `choices` is the standard deviation over choices of their mean; `error` the standard error over seeds.
    """
    rows = [row for row in rows if row["part"] == "retrained" and row["rate"] == rate]
    by_seed: dict[str, dict[str, np.ndarray]] = {}
    summary = []
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        seeds, choices = sorted({row["seed"] for row in own}), sorted({row["number"] for row in own})
        result: dict[str, Any] = {"part": "compared", "rate": rate, "way": way, "nets": len(own)}
        by_seed[way] = {}
        for measure in ("accuracy", "loss", "val_loss"):
            values = np.array([np.mean([row[measure] for row in own if row["seed"] == seed]) for seed in seeds])
            by_seed[way][measure] = values
            result[measure] = values.mean()
            result[f"{measure}_sd"] = float(np.std([row[measure] for row in own], ddof=1))
            if len(own) > len(seeds):
                each = [np.mean([row[measure] for row in own if row["number"] == number]) for number in choices]
                result[f"{measure}_choices"] = float(np.std(each, ddof=1))
        summary.append(result)
    for result, (other, measure) in product(
        summary, product(("all rows", "one run"), ("accuracy", "loss", "val_loss"))
    ):
        if result["way"] != other:
            moved = by_seed[result["way"]][measure] - by_seed[other][measure]
            name = f"{measure}_to_{other.replace(' ', '_')}"
            result[name] = moved.mean()
            result[f"{name}_error"] = moved.std(ddof=1) / len(moved) ** 0.5
    return summary


def show(row: dict) -> None:
    """One line of `compared`."""

    def moved(other: str) -> str:
        if f"accuracy_to_{other}" not in row:
            return " " * 38
        parts = (f"{row[f'{m}_to_{other}']:+.4f} ± {row[f'{m}_to_{other}_error']:.4f}" for m in ("accuracy", "loss"))
        return ", ".join(parts)

    print(
        f"{row['rate']:.0%} {row['way']:20s} accuracy {row['accuracy']:.4f} ± {row['accuracy_sd']:.4f}, loss "
        f"{row['loss']:.4f} ± {row['loss_sd']:.4f}; to all rows {moved('all_rows')}; to one run {moved('one_run')}; "
        f"validation loss {row['val_loss']:.4f}",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    quick = begin(parser, arguments).quick
    size = QUICK if quick else FULL if torch.cuda.is_available() else REDUCED
    device = torch.cuda.get_device_name() if size.device == "cuda" else "CPU"
    rows: list[dict] = []
    with ThreadPoolExecutor(size.side_by_side) as pool:
        scored = list(pool.map(lambda rate: measured(score_part, size, rate), RATES))
        for found in scored:
            row = found["row"] | {"device": device, "seconds": found["seconds"], "peak_gib": found["peak_gib"]}
            rows.append(row)
            print({name: value for name, value in row.items() if name not in ("part", "left_out")}, flush=True)
        tasks: list[tuple] = []
        for rate, found in zip(RATES, scored, strict=True):
            for way, choices in found["choices"].items():
                together = [list(range(len(choices)))] if way == "random" else [[k] for k in range(len(choices))]
                tasks += [(size, rate, way, numbers, choices) for numbers in together]
        for part in pool.map(lambda task: retrained(*task), tasks):
            rows += part
            nets = ", ".join(f"{row['accuracy']:.4f} / {row['loss']:.4f}" for row in part)
            print(f"{part[0]['rate']:.0%} {part[0]['way']} {part[0]['number']}: {nets}", flush=True)
    for rate in RATES:
        summary = compared(rows, rate)
        rows += summary
        for row in summary:
            show(row)
    save("vit", rows)


if __name__ == "__main__":
    main()
