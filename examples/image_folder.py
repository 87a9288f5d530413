"""Clean a folder of images, one sub-folder per class, of which some files lie in the wrong one.

The images are scikit-learn's digits, written as PNG files: the script puts 1,200 of them into the folders zero to nine,
and 240 of these (20 %) into a wrong one. The other 597 stay right and are the test set. A small convolutional net is
trained by skorch; `AUM` follows how late and how badly it learns each file; `InfluencePruner` drops the worst and
trains again. Nobody tells it which files are wrong, but the share to drop is the true one, which a user has to guess.

The net is trained until it knows most files by heart, wrong ones too. One that is stopped after 20 epochs has hardly
learnt the wrong ones, and gains nothing: its accuracy is 0.972 with all files and 0.965 without the dropped ones, some
of which are right but rare.

Run with `python examples/image_folder.py`, or `python examples/image_folder.py FOLDER` to keep the images and the
picture of the worst files, `suspects.png`. Needs `pip install "sktda[shell,report]"`. About 20 seconds on one thread.
"""

import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch import NeuralNetClassifier
from torch import nn

from sktda import InfluencePruner
from sktda.attribution import AUM
from sktda.displays import SuspectGalleryDisplay
from sktda.images import ImageFolder

SEED = 0
MISPLACED = 0.2
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


def write_images(folder: Path) -> set[str]:
    """Write folder/train and folder/test; returns the paths of the training files in a wrong sub-folder."""
    images, truth = load_digits(return_X_y=True)
    train, test = train_test_split(np.arange(len(truth)), train_size=1200, stratify=truth, random_state=SEED)
    rng = np.random.default_rng(SEED)
    wrong = rng.choice(train, size=round(MISPLACED * len(train)), replace=False)
    labels = truth.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    for part, rows in (("train", train), ("test", test)):
        for row in rows:
            file = folder / part / NAMES[labels[row]] / f"{row:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((images[row].reshape(8, 8) * 15).astype(np.uint8)).save(file)
    return {f"{NAMES[labels[row]]}/{row:04d}.png" for row in wrong}


def read(folder: Path) -> tuple[np.ndarray, pd.Series]:
    """(pixels, class codes by path): the index of y is what a file is called in everything that follows."""
    images = ImageFolder.read(folder, size=8)
    codes = pd.Categorical(images.frame["label"], categories=NAMES).codes
    return images.X, pd.Series(codes.astype(np.int64), index=images.frame["path"])


def to_input(pixels: np.ndarray) -> np.ndarray:
    """(n, height, width, 3) bytes -> (n, 1, height, width) numbers in [0, 1], as a convolution takes them."""
    return (pixels.mean(axis=3, dtype=np.float32) / 255)[:, None]


class SmallNet(nn.Sequential):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 16, 10),
        )  # fmt: skip


def main(folder: Path) -> None:
    """Write, read, train, clean, train again."""
    misplaced = write_images(folder)
    X, y = read(folder / "train")
    X_test, y_test = read(folder / "test")
    net = NeuralNetClassifier(
        SmallNet, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=2e-3, max_epochs=60, batch_size=64,
        iterator_train__shuffle=True, train_split=None, verbose=0,
    )  # fmt: skip
    model = make_pipeline(FunctionTransformer(to_input), net)
    torch.manual_seed(SEED)
    before = clone(model).fit(X, y).score(X_test, y_test)
    torch.manual_seed(SEED)
    pruner = InfluencePruner(model, AUM(), prune_ratio=MISPLACED, random_state=SEED).fit(X, y)
    after = pruner.score(X_test, y_test)

    dropped = y.index[~pruner.support_]
    found = sum(path in misplaced for path in dropped)
    print(f"{len(y)} files to train on, {len(misplaced)} of them in the wrong folder; {len(y_test)} to test on")
    print(f"dropped {len(dropped)} files, {found} of them misplaced\n")
    print("accuracy on the test files")
    print(f"  trained on all files   {before:.3f}")
    print(f"  trained on the rest    {after:.3f}\n")

    worst = pruner.to_frame().head(12).index
    rows = y.index.get_indexer(worst)
    suggested = NAMES[pruner.predict(X[rows])]
    print("the worst files            the new net says   in fact")
    for path, name in zip(worst, suggested, strict=True):
        print(f"  {path:24s} {name:18s} {'misplaced' if path in misplaced else 'right'}")
    display = SuspectGalleryDisplay(rows, NAMES[y.iloc[rows]], suggested, names=worst, pictures=X[rows]).plot()
    display.figure_.savefig(folder / "suspects.png")


if __name__ == "__main__":
    matplotlib.use("Agg")  # the picture is a file, no window
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
        print(f"\ntheir picture is {Path(sys.argv[1]) / 'suspects.png'}")
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
