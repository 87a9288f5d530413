"""
A generated image: which training images made it?
=================================================

A small denoising diffusion model is trained on scikit-learn's digits from five seeds, sampled and asked. As that takes
about four minutes on one core, this script is not run when these pages are made, and the picture is of an earlier run.
``python examples/diffusion.py PICTURE.png`` makes it, with ``--quick`` in seconds from a model that is hardly trained.

.. image:: /_static/diffusion.png
   :alt: A generated digit, and the training images that help it most, harm it most, move it most, and are nearest

The data are 1,797 images of 8 x 8 pixels. The model has no classes: a multilayer perceptron gets a noised image and its
noise level, one of 200, and predicts the noise.

Attribution needs a loss per row that depends on nothing but the row and the parameters. Here it is the mean squared
error of the predicted noise over pairs of level and noise that belong to the row: a generator seeded by the row's
position draws them once. A generated image gets pairs of its own in the same way. In training the module draws new
pairs at every step instead: a model that sees the same few again and again learns their noise by heart, and makes worse
images. So the net's outputs are the errors of the predicted noise, its targets are zeros, and its criterion is
``MSELoss``.

The query is a generated image. ``Distributional`` predicts, in every run, how its loss rises without each training
image, and two measures rank the images by it: the mean over the runs, and the squared Wasserstein distance between the
distributions over the runs with the image and without. The picture shows what each puts first, beside the nearest
neighbours of the query in pixels. The last lines check an answer that is known: asked about a training image, or a
noisy copy of it, its own row should come first, although the query has other pairs of level and noise.
"""

# sphinx_gallery_thumbnail_path = '_static/diffusion.png'
import argparse
import math

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet
from skorch.callbacks import LRScheduler
from torch import Tensor, nn

from sktda import retrain
from sktda.attribution import Distributional, Influence
from sktda.distributions import jackknife, mean_shift, wasserstein

LEVELS = 200
TRAINING_PAIRS, PAIRS, QUERY_PAIRS = 4, 16, 64  # of level and noise: a row's loss is a mean over so many
SHOWN = 8
COPIES, COPY_NOISE = 8, 0.2  # pixels go from -1 to 1


class Denoiser(nn.Module):
    """Errors of the predicted noise (n, pairs, 64) of images (n, 64), at levels (n, pairs), for noise (n, pairs, 64).

    In training mode new levels and noise of the same shapes take the place of those that are given.
    """

    def __init__(self, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        steps = (torch.arange(LEVELS + 1) / LEVELS + 0.008) / 1.008
        kept = (steps * math.pi / 2).cos().square()  # the cosine schedule of Nichol & Dhariwal 2021
        self.register_buffer("signal", (kept / kept[0]).clamp(min=1e-3)[1:])  # share of the image in the variance
        self.register_buffer("frequencies", torch.logspace(0, -3, 16))
        self.first = nn.Linear(64 + 32, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, 64)

    def forward(self, images: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        if self.training:
            levels, noise = spread_levels(torch.rand(levels.shape)), torch.randn(noise.shape)
        signal = self.signal[levels][..., None]
        return self.predict(signal.sqrt() * images[:, None] + (1 - signal).sqrt() * noise, levels) - noise

    def predict(self, noised: Tensor, levels: Tensor) -> Tensor:
        """Noise (..., 64) in noised images (..., 64)."""
        angles = levels[..., None] * self.frequencies
        hidden = nn.functional.silu(self.first(torch.cat([noised, angles.sin(), angles.cos()], dim=-1)))
        for block in self.blocks:
            hidden = hidden + nn.functional.silu(block(hidden))
        signal = self.signal[levels][..., None]
        # the part of the answer that is in plain sight need not be learned
        return (1 - signal).sqrt() * noised + signal.sqrt() * self.last(hidden)

    @torch.no_grad()
    def sample(self, n: int, seed: int) -> Tensor:
        """Images (n, 64) by ancestral sampling."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, 64, generator=generator)
        before = torch.cat([torch.ones(1), self.signal[:-1]])  # signal that is left one level lower
        for level in reversed(range(LEVELS)):
            own, lower = self.signal[level], before[level]
            noise = self.predict(x, torch.full((n,), level))
            image = ((x - (1 - own).sqrt() * noise) / own.sqrt()).clamp(-1, 1)
            fresh = 1 - own / lower
            mean = (lower.sqrt() * fresh * image + (own / lower).sqrt() * (1 - lower) * x) / (1 - own)
            deviation = (fresh * (1 - lower) / (1 - own)).sqrt()  # 0 at the lowest level
            x = mean + deviation * torch.randn(n, 64, generator=generator)
        return x.clamp(-1, 1)


def spread_levels(uniform: Tensor) -> Tensor:
    """Levels (..., pairs), one from each of as many equal parts of the range, for uniform numbers in [0, 1)."""
    pairs = uniform.shape[-1]
    return ((torch.arange(pairs) + uniform) * LEVELS / pairs).long().clamp(max=LEVELS - 1)


def make_rows(images: np.ndarray, pairs: int, first: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(X, y) with fixed pairs of level and noise for every row; the seeds count on from `first`."""
    levels, noise = [], []
    for row in range(len(images)):
        generator = torch.Generator().manual_seed(first + row)
        levels.append(spread_levels(torch.rand(pairs, generator=generator)))
        noise.append(torch.randn(pairs, 64, generator=generator))
    X = {"images": images, "levels": torch.stack(levels).numpy(), "noise": torch.stack(noise).numpy()}
    return X, np.zeros_like(X["noise"])


def make_net(width: int, epochs: int) -> NeuralNet:
    """The untrained model."""
    return NeuralNet(
        Denoiser,
        module__width=width,
        criterion=nn.MSELoss,
        optimizer=torch.optim.Adam,
        lr=3e-3,
        max_epochs=epochs,
        batch_size=32,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[LRScheduler("CosineAnnealingLR", T_max=epochs)],
    )


def train(images: np.ndarray, quick: bool, seed: int) -> list[NeuralNet]:
    """The model, trained from several seeds."""
    width, epochs, n_runs = (32, 2, 3) if quick else (256, 120, 5)
    X, y = make_rows(images, TRAINING_PAIRS)  # training draws pairs of its own, as many as these
    runs = retrain(make_net(width, epochs), X, y, seeds=range(seed, seed + n_runs))
    losses = np.array([run.history[-1, "train_loss"] for run in runs])
    print(
        f"{n_runs} runs on {len(images)} images; training loss {losses.mean():.3f} (deviation {losses.std(ddof=1):.3f})"
    )
    return runs


def print_table(title: str, rows: np.ndarray, digits: np.ndarray, values: np.ndarray, errors: np.ndarray) -> None:
    """Rank, row, digit, value and standard error of these rows."""
    print(f"\n{title}\n  {'rank':>4s}{'row':>7s}{'digit':>7s}{'value':>12s}{'std error':>12s}")
    for rank, row in enumerate(rows, start=1):
        print(f"  {rank:4d}{row:7d}{digits[row]:7d}{values[row]:12.2e}{errors[row]:12.2e}")


def rank_images(values: np.ndarray, shifts: np.ndarray, digits: np.ndarray, in_pixels: np.ndarray) -> list[np.ndarray]:
    """Print and return the first rows by each measure, and the nearest ones by their distances in pixels.

    values (S,), shifts (S, n): the query's loss in every run, and its predicted rise without each row.
    """
    print(f"Loss of the query {values.mean():.3f} (deviation over the runs {values.std(ddof=1):.3f})")
    x = values[:, None]
    mean, distance = mean_shift(x, x + shifts), wasserstein(x, x + shifts)
    mean_errors, distance_errors = (jackknife(measure, x, x + shifts) for measure in (mean_shift, wasserstein))
    best, worst, moved, near = (np.argsort(each)[:SHOWN] for each in (-mean, mean, -distance, in_pixels))
    print_table("Mean influence, images that help most", best, digits, mean, mean_errors)
    print_table("Mean influence, images that harm most", worst, digits, mean, mean_errors)
    print_table("Squared Wasserstein distance, largest", moved, digits, distance, distance_errors)

    def shared(rows: np.ndarray, others: np.ndarray) -> int:
        return len(np.intersect1d(rows, others))

    size = np.abs(mean)
    largest, correlation = np.argsort(-size)[:SHOWN], spearmanr(distance, size)[0]
    print(f"\nOf the {SHOWN} images that Wasserstein puts first")
    print(f"  {shared(moved, best)} are among the {SHOWN} that help most")
    print(f"  {shared(moved, worst)} are among the {SHOWN} that harm most")
    print(f"  {shared(moved, largest)} are among the {SHOWN} of the largest mean influence, whatever its sign")
    print(f"Rank correlation of distance and size of the mean influence, over all images: {correlation:.3f}")
    print(f"Of the {SHOWN} images that help most, {shared(best, near)} are among the {SHOWN} nearest in pixels")
    return [best, worst, moved, near]


def print_own_ranks(mean: np.ndarray, originals: np.ndarray) -> None:
    """mean (2 m, n): mean influence on m training images, and on noisy copies of these."""
    rows = np.tile(originals, 2)
    own = mean[np.arange(len(rows)), rows]
    ranks = 1 + (mean > own[:, None]).sum(axis=1)
    print(f"\nRank of the own row among {mean.shape[1]} by mean influence, for {len(originals)} training images")
    for name, part in zip(("as they are", "noisy copies"), np.split(ranks, 2), strict=True):
        print(f"  {name:14s}{' '.join(map(str, part))}")


def draw(path: str, lines: list[tuple[str, np.ndarray, list[str]]]) -> None:
    """One line per (title, images (SHOWN, 64), captions)."""
    figure = Figure(figsize=(1.1 * SHOWN, 1.55 * len(lines)), layout="constrained")
    for part, (title, images, captions) in zip(figure.subfigures(len(lines), 1), lines, strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize=10)
        for axes, image, caption in zip(part.subplots(1, SHOWN), images, captions, strict=True):
            axes.imshow(image.reshape(8, 8), cmap="gray_r", vmin=-1, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(caption, fontsize=8)
    figure.savefig(path, dpi=130)


def main(path: str, quick: bool, seed: int) -> None:
    """Train, sample, attribute, print and draw."""
    torch.set_num_threads(1)  # products as small as these gain nothing from more
    pixels, digits = load_digits(return_X_y=True)
    pixels, digits = (pixels[:200], digits[:200]) if quick else (pixels, digits)
    images = (pixels / 8 - 1).astype(np.float32)
    runs = train(images, quick, seed)

    samples = runs[0].module_.eval().sample(SHOWN, seed).numpy()
    rng = np.random.default_rng(seed)
    originals = rng.choice(len(images), COPIES, replace=False)
    copies = images[originals] + COPY_NOISE * rng.standard_normal((COPIES, 64), dtype=np.float32)
    queries = np.concatenate([samples[:1], images[originals], copies.clip(-1, 1)])

    base = Influence(curvature="ekfac", objective=None)
    attributor = Distributional(base, members=[FrozenEstimator(run) for run in runs], random_state=seed)
    attributor.fit(*make_rows(images, PAIRS))
    values, shifts = attributor.attribute_members(*make_rows(queries, QUERY_PAIRS, first=len(images)))

    in_pixels = np.square(images - samples[0]).sum(axis=1)
    found = rank_images(values[:, 0], shifts[:, 0], digits, in_pixels)
    print_own_ranks(shifts[:, 1:].mean(axis=0), originals)
    titles = "help most", "harm most", "move the distribution over runs most (Wasserstein)", "nearest in pixels"
    lines = [("generated; the first is the query", samples, ["query", *[""] * (SHOWN - 1)])]
    for title, rows in zip(titles, found, strict=True):
        lines.append((title, images[rows], [f"{digits[row]} (row {row})" for row in rows]))
    draw(path, lines)
    print(f"\nThe picture is {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Training images behind a generated digit.")
    parser.add_argument("picture", nargs="?", default="diffusion.png")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    main(given.picture, given.quick, given.seed)
