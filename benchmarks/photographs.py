"""Are wrong labels of photographs found by pixels or by patches? Human mistakes on CIFAR-10, planted ones elsewhere.

    SKTDA_DATA=folder python benchmarks/photographs.py          # what folder/data has of the sets
    SKTDA_DATA=folder python benchmarks/photographs.py --only cifar-10k
    SKTDA_DATA=folder python benchmarks/photographs.py --make IMAGES LABELS   # makes folder/data/cifar10n.npz, and ends
    python benchmarks/photographs.py --quick                    # made textures and digits, nothing is written

CIFAR-10N (Wei et al. 2022, arXiv:2110.12088) is CIFAR-10 labelled again by people: "aggregate" is the majority of three
(9 % wrong), "worst" a wrong one of the three where there is any (40 %). --make reads IMAGES, a folder
train/CLASS/NUMBER.ext and test/CLASS/NUMBER.ext with the images of each class in their original order (as YoongiKim's
repository CIFAR-10-images has them, as JPEG), and LABELS, the file CIFAR-10_human.pt of its authors.

Rows are drawn by the seed. The default (`LabelPosterior()`) ranks them on pixels and on `PatchFeatures()`; "chosen" is
what the shell takes, by the labels that are predicted of at most 2,000 images. Head: test accuracy of a ridge
classifier on standardised patch features, trained on all rows, without those that `NoisyLabelDetector()` calls wrong,
without as many of the worst as are wrong, and without the truly wrong ones. Seconds are the processor's, on one thread.
Writes benchmarks/results/photographs.json.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from pages.common import found
from shared.common import begin, data_folder, fashion_mnist, flip, load, quick, save, set_threads
from shared.photographs import cifar, drawn, heads

set_threads(1)

import pandas as pd  # noqa: E402
from sklearn.metrics import average_precision_score, roc_auc_score  # noqa: E402

from sktda import NoisyLabelDetector, PatchFeatures  # noqa: E402
from sktda.cli.pictures import balanced, clearly_more, known  # noqa: E402

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SETS = {"cifar-10k": 10_000, "cifar-50k": 50_000, "fashion-10k": 10_000, "digits": None, "textures": 120}
SEEDS = (0, 1, 2)


def make(images: Path, labels: Path) -> None:
    """Write cifar10n.npz from images in their original order by class, and the labels of people."""
    import torch
    from PIL import Image

    reconstruct = (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct")
    with torch.serialization.safe_globals([reconstruct, np.ndarray, np.dtype, np.dtypes.Int64DType]):
        given = {name: np.asarray(values) for name, values in torch.load(labels, weights_only=True).items()}
    arrays = {"true": given["clean_label"], "aggregate": given["aggre_label"], "worst": given["worse_label"]}
    arrays["y_test"] = np.repeat(np.arange(10), 1_000)
    for name, part, true in (("x_train", "train", arrays["true"]), ("x_test", "test", arrays["y_test"])):
        arrays[name] = np.empty((len(true), 32, 32, 3), dtype=np.uint8)
        for code, label in enumerate(CLASSES):
            files = sorted((images / part / label).iterdir())
            arrays[name][true == code] = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    place = data_folder()
    if place is None:
        raise SystemExit("set SKTDA_DATA to the folder in whose data/ the file is to be")
    np.savez(place / "cifar10n.npz", **{k: v.astype(np.uint8) for k, v in arrays.items()})


def tasks(name: str, seed: int, humans: dict[str, np.ndarray] | None):
    """(noise, pictures, given labels, true labels, (pictures, labels) of a test) of a set."""
    if name.startswith("cifar"):
        if humans is not None:
            rows = drawn(len(humans["true"]), SETS[name], seed)
            for noise in ("aggregate", "worst"):
                test = humans["x_test"], humans["y_test"]
                yield noise, humans["x_train"][rows], humans[noise][rows], humans["true"][rows], test
        return
    if name == "textures":
        rng = np.random.default_rng(seed)
        true = np.arange(SETS[name]) % 2
        rough = rng.normal(size=(len(true), 16, 16))
        smooth = (rough + np.roll(rough, 1, axis=1) + np.roll(rough, 1, axis=2)) / 3**0.5
        pictures = np.where(true[:, None, None] == 0, rough, smooth)
    elif name == "digits":
        pictures, true = load("digits")
        pictures = pictures.reshape(-1, 8, 8)
    else:
        X, y, _, _ = fashion_mnist()
        rows = drawn(len(y), SETS[name], seed)
        pictures, true = X[rows], y[rows]
    for noise in ("uniform", "class"):
        yield f"{noise} 20 %", pictures, flip(true, noise, 0.2, seed)[0], true, None


def judged(features: np.ndarray, given: np.ndarray, true: np.ndarray, seed: int) -> tuple[dict, NoisyLabelDetector]:
    """What the default makes of the labels, and its detector."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = NoisyLabelDetector(random_state=seed).fit(features, given)
    wrong = given != true
    return {
        "fit_seconds": time.process_time() - start,
        "auroc": roc_auc_score(wrong, -detector.scores_),
        "ap": average_precision_score(wrong, -detector.scores_),
        "estimated_rate": detector.noise_rate_,
    }, detector


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="SET", help=f"some of {', '.join(SETS)}; the others stay")
    parser.add_argument("--make", nargs=2, type=Path, metavar=("IMAGES", "LABELS"), help="write cifar10n.npz, and end")
    options = begin(parser, arguments, threads=1)
    if options.make:
        make(*options.make)
        return
    names, seeds = options.only or [*SETS], SEEDS
    if quick():
        names, seeds = ["textures", "digits"], SEEDS[:1]
    humans = cifar()
    rows = [row for row in found("photographs")[1] if row["data"] not in names]
    for name in names:
        for seed in seeds if name != "cifar-50k" else seeds[:1]:
            made: dict[str, np.ndarray] = {}
            for noise, pictures, given, true, test in tasks(name, seed, humans):
                start = time.process_time()
                if not made:  # of both kinds of noise
                    patches = PatchFeatures(random_state=seed).fit(pictures)
                    made = {"pixels": pictures, "patches": patches.transform(pictures)}
                    seconds = {"pixels": 0.0, "patches": time.process_time() - start}
                    of_test = patches.transform(test[0]) if test else None
                look = balanced(pd.Series(given), seed)
                masks = {kind: known(made[kind][look], given[look].astype(str), seed) for kind in made}
                chosen = "patches" if clearly_more(masks["patches"], masks["pixels"]) else "pixels"
                for kind, features in made.items():
                    row = {"data": name, "noise": noise, "seed": seed, "n": len(given), "features": kind}
                    row |= {"chosen": kind == chosen, "predicted": masks[kind].mean()}
                    row |= {"true_rate": (given != true).mean(), "seconds": seconds[kind]}
                    figures, detector = judged(features, given, true, seed)
                    row |= figures
                    if test and kind == "patches":
                        row["head"] = heads(
                            features, given, true, (of_test, test[1]), detector.scores_, detector.labels_ == 1
                        )
                    rows.append(row)
                    print(*(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
                    save("photographs", rows)


if __name__ == "__main__":
    main()
