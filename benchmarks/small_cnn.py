"""Does a small CNN on photographs get better without the rows that are called wrong, and which rows does it need?

    SKTDA_DATA=folder python benchmarks/small_cnn.py                        # about an hour on one core
    SKTDA_DATA=folder python benchmarks/small_cnn.py MODEL --cache features  # beside it by a net as in backbones.py
    python benchmarks/small_cnn.py --only pruning --seeds 2   # this part and seed again, the others stay in the file
    python benchmarks/small_cnn.py --quick                    # few made rows, one epoch, nothing written

5,000 training images of CIFAR-10, drawn by the seed, and the 10,000 test images (cifar10n.npz, which photographs.py
makes). The CNN: three convolutions with batch normalisation, mirrored images, SGD for six epochs, one cycle of the
learning rate.

"cleaning": the labels are people's (CIFAR-10N, "aggregate" and "worst") or planted, 20 % of the right ones flipped. The
gradient methods look into the CNN that was trained on all rows, with 1,000 further images with right labels to ask
about (arXiv:2405.17490 asks so on CIFAR-10N); ComplexityGap sees pixels, and the default, LabelPosterior, patches or
the features of MODEL. As many rows as are wrong, the lowest of the scores, go, and the CNN is trained again, from the
same start for as many steps. "random" removes as many, "oracle" the wrong ones.

"pruning": labels are right; 90, 70 and 50 % of each class are kept, of the easy rows ("top"), the hard ones ("hardest")
or at random, as arXiv:2301.00930 and arXiv:2206.14486 do. Seconds are the processor's, on one thread.
Writes benchmarks/results/small_cnn.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from pages.common import found
from shared.common import begin, flip, quick, save
from shared.photographs import cifar, drawn

ROWS, VALIDATION_ROWS = 5_000, 1_000
LABELS = ("aggregate", "worst", "planted")
RATE = 0.2  # of planted flips
SHARES = (0.9, 0.7, 0.5)
SEEDS = (0, 1, 2)
EPOCHS, BATCH, RATE_AT_MOST = 6, 64, 0.1
N_MEMBERS = 10


class Images:
    """Rows that the seed draws, as the CNN and as the encoders see them."""

    def __init__(self, seed: int, model: str | None, cache: str | None) -> None:
        arrays = cifar()
        if arrays is None:
            raise SystemExit("cifar10n.npz is not in SKTDA_DATA/data; photographs.py makes it")
        n, n_val = (120, 30) if quick() else (ROWS, VALIDATION_ROWS)
        order = np.random.default_rng(seed).permutation(len(arrays["true"]))
        rows, val = drawn(len(order), n, seed), order[n : n + n_val]
        self.seed, self.pictures = seed, arrays["x_train"][rows]
        self.labels = {name: arrays[name][rows] for name in ("true", "aggregate", "worst")}
        self.labels["planted"] = flip(self.labels["true"], "uniform", RATE, seed)[0]
        self.X = scaled(self.pictures)
        self.held = {"X_val": scaled(arrays["x_train"][val]), "y_val": arrays["true"][val]}
        self.test = scaled(arrays["x_test"]), arrays["y_test"]
        self.features = {"pixels": self.pictures.reshape(n, -1), **encoded(self.pictures, seed, model, cache)}


def scaled(pictures: np.ndarray) -> np.ndarray:
    """(n, 3, 32, 32) float32, about mean 0 and deviation 1."""
    return np.ascontiguousarray(((pictures.astype(np.float32) / 255 - 0.47) / 0.25).transpose(0, 3, 1, 2))


def encoded(pictures: np.ndarray, seed: int, model: str | None, cache: str | None) -> dict[str, np.ndarray]:
    """Patches, and the features of the model where there is one."""
    from sktda import PatchFeatures, PretrainedEncoder

    made = {"patches": PatchFeatures(20 if quick() else 200, random_state=seed).fit_transform(pictures)}
    if model is not None:
        made["net"] = PretrainedEncoder(model, cache=cache).fit_transform(pictures)
    return made


def trained(images: Images, y: np.ndarray, kept: np.ndarray) -> Any:
    """The CNN after as many steps on the kept rows as six epochs of all take."""
    import torch
    from shared.nets import SmallCNN
    from skorch import NeuralNetClassifier
    from skorch.callbacks import LRScheduler

    epochs = 1 if quick() else round(EPOCHS * len(y) / len(kept))
    steps = epochs * -(-len(kept) // BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR
    torch.manual_seed(images.seed)
    return NeuralNetClassifier(
        SmallCNN,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__weight_decay=5e-4,
        max_epochs=epochs,
        batch_size=BATCH,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[LRScheduler(cycle, max_lr=RATE_AT_MOST, total_steps=steps, step_every="batch")],
    ).fit(images.X[kept], y[kept])


def scorers(images: Images, net: Any, y: np.ndarray) -> dict[tuple[str, str], Callable[[], np.ndarray]]:
    """What gives the scores, by (method, what it sees)."""
    from sklearn.frozen import FrozenEstimator

    from sktda.attribution import ComplexityGap, Influence, InnerProduct, LabelPosterior, ModelEnsemble

    seed, asked = images.seed, {"objective": "validation", "random_state": images.seed}
    inner = InnerProduct(FrozenEstimator(net), **asked)
    members = 2 if quick() else N_MEMBERS
    of_net = {
        "InnerProduct": inner,
        "ModelEnsemble of InnerProduct": ModelEnsemble(inner, n_members=members, random_state=seed),
        "Influence": Influence(FrozenEstimator(net), curvature="ekfac", **asked),
    }
    of_features = [("ComplexityGap", ComplexityGap(random_state=seed), "pixels")] + [
        ("LabelPosterior", LabelPosterior(random_state=seed), kind) for kind in images.features if kind != "pixels"
    ]
    return {
        (name, "the CNN"): lambda each=each: each.fit(images.X, y, **images.held).scores_
        for name, each in of_net.items()
    } | {
        (name, kind): lambda each=each, kind=kind: each.fit(images.features[kind], y).scores_
        for name, each, kind in of_features
    }


def cleaning(images: Images, labels: str) -> list[dict]:
    """A row for each way to remove rows."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    y, true = images.labels[labels], images.labels["true"]
    wrong = y != true
    everything = np.arange(len(y))
    net = trained(images, y, everything)
    about = {"part": "cleaning", "labels": labels, "seed": images.seed, "n": len(y), "true_rate": wrong.mean()}
    rows = [about | {"method": "all rows", "sees": "", "accuracy": net.score(*images.test)}]
    ways = scorers(images, net, y)
    ways["random", ""] = lambda: np.random.default_rng([images.seed, 1]).random(len(y))
    ways["oracle", ""] = lambda: -wrong.astype(float)
    for (method, sees), score in ways.items():
        start = time.process_time()
        scores = score()
        row = about | {"method": method, "sees": sees, "seconds": time.process_time() - start}
        row |= {"auroc": roc_auc_score(wrong, -scores), "ap": average_precision_score(wrong, -scores)}
        kept = np.sort(scores.argsort(kind="stable")[wrong.sum() :])
        rows.append(row | {"accuracy": trained(images, y, kept).score(*images.test), "wrong": wrong[kept].mean()})
    return rows


def pruning(images: Images) -> list[dict]:
    """A row for each way to keep rows, labels as they should be."""
    from sktda import CoresetSelector
    from sktda.attribution import ComplexityGap, LabelPosterior, PrecomputedScores

    y, seed = images.labels["true"], images.seed
    scores = {
        ("ComplexityGap", "pixels"): ComplexityGap(random_state=seed).fit(images.features["pixels"], y).scores_,
        ("LabelPosterior", "patches"): LabelPosterior(random_state=seed).fit(images.features["patches"], y).scores_,
        ("", ""): np.arange(len(y)) * 1.0,  # at random, whatever they are
    }
    about = {"part": "pruning", "labels": "right", "seed": seed, "n": len(y)}
    whole = trained(images, y, np.arange(len(y))).score(*images.test)
    rows = [about | {"method": "", "sees": "", "kept": "all", "share": 1.0, "accuracy": whole}]
    for (method, sees), values in scores.items():
        for kept in ("hardest", "top") if method else ("random",):
            for share in SHARES[-1:] if quick() else SHARES:
                selector = CoresetSelector(PrecomputedScores(values), n_samples=share, strategy=kept, random_state=seed)
                chosen = selector.fit(images.X, y).sample_indices_
                row = about | {"method": method, "sees": sees, "kept": kept, "share": share}
                rows.append(row | {"accuracy": trained(images, y, chosen).score(*images.test)})
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="of images, as sktda.PretrainedEncoder takes it")
    parser.add_argument("--cache", metavar="FOLDER", help="where features of the model stay, for a second run")
    parser.add_argument("--only", nargs="+", default=["cleaning", "pruning"], choices=("cleaning", "pruning"))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    options = begin(parser, arguments, threads=1)
    parts: dict[tuple[str, str], Callable[[Images], list[dict]]] = {}
    if "cleaning" in options.only:
        parts |= {("cleaning", labels): partial(cleaning, labels=labels) for labels in LABELS[-1 if quick() else 0 :]}
    if "pruning" in options.only:
        parts["pruning", "right"] = pruning
    rows = found("small_cnn")[1]
    for seed in options.seeds[: 1 if quick() else None]:
        images = Images(seed, options.model, options.cache)
        for (part, labels), measure in parts.items():
            rows = [row for row in rows if (row["part"], row["labels"], row["seed"]) != (part, labels, seed)]
            new = measure(images)
            rows += new
            save("small_cnn", rows)
            for row in new:
                said = (f"{v:.4f}" if isinstance(v, float) else str(v) for k, v in row.items() if v != "")
                print(*said, flush=True)


if __name__ == "__main__":
    main()
