"""
Images: files in the wrong folder
=================================

A folder of images, one sub-folder per class, of which some files lie in the wrong one. A small convolutional net is
trained by skorch, ``AUM`` follows how late and how badly it learns each file, and ``InfluencePruner`` drops the worst
and trains again. Nobody tells it which files are wrong, but the share to drop is the true one, which a user has to
guess; :doc:`how_many` shows how.
"""

import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
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
from sktda.displays import ScoreDistributionDisplay, SuspectGalleryDisplay
from sktda.images import ImageFolder

# %%
# A folder to clean
# -----------------
#
# scikit-learn's digits are written as PNG files: 1,000 of them into the folders zero to nine, and 200 of these (20 %)
# into a wrong one. The others stay right and are the test set. ``python examples/image_folder.py FOLDER`` keeps the
# files; without a folder they go when the script ends.

temporary = tempfile.TemporaryDirectory()
folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary.name)
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])

images, truth = load_digits(return_X_y=True)
train, test = train_test_split(np.arange(len(truth)), train_size=1000, stratify=truth, random_state=0)
rng = np.random.default_rng(0)
wrong = rng.choice(train, size=200, replace=False)
labels = truth.copy()
labels[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
for part, rows in (("train", train), ("test", test)):
    for row in rows:
        file = folder / part / NAMES[labels[row]] / f"{row:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((images[row].reshape(8, 8) * 15).astype(np.uint8)).save(file)
misplaced = {f"{NAMES[labels[row]]}/{row:04d}.png" for row in wrong}
print(f"{len(train)} files to train on, {len(misplaced)} of them in the wrong folder; {len(test)} to test on")

# %%
# Read it
# -------
#
# ``ImageFolder`` is the reader of the shell. The index of y is what a file is called in everything that follows.


def read(folder: Path) -> tuple[np.ndarray, pd.Series]:
    """(pixels, class codes by path)."""
    images = ImageFolder.read(folder, size=8)
    codes = pd.Categorical(images.frame["label"], categories=NAMES).codes
    return images.X, pd.Series(codes.astype(np.int64), index=images.frame["path"])


X, y = read(folder / "train")
X_test, y_test = read(folder / "test")

# %%
# The model
# ---------
#
# A pipeline: bytes (n, height, width, 3) become numbers in [0, 1], then two convolutions and a linear layer.


def to_input(pixels: np.ndarray) -> np.ndarray:
    """(n, height, width, 3) bytes -> (n, 1, height, width), as a convolution takes them."""
    return (pixels.mean(axis=3, dtype=np.float32) / 255)[:, None]


class SmallNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 16, 10),
        )  # fmt: skip


net = NeuralNetClassifier(
    SmallNet, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=2e-3, max_epochs=50, batch_size=64,
    iterator_train__shuffle=True, train_split=None, verbose=0,
)  # fmt: skip
model = make_pipeline(FunctionTransformer(to_input), net)

# %%
# Clean, and compare
# ------------------

torch.manual_seed(0)
before = clone(model).fit(X, y).score(X_test, y_test)
torch.manual_seed(0)
pruner = InfluencePruner(model, AUM(), prune_ratio=0.2, random_state=0).fit(X, y)
dropped = y.index[~pruner.support_]
print(f"dropped {len(dropped)} files, {sum(path in misplaced for path in dropped)} of them misplaced")
print("accuracy on the test files")
print(f"  trained on all files   {before:.3f}")
print(f"  trained on the rest    {pruner.score(X_test, y_test):.3f}")

# %%
# The gain is that of a net that learns its files by heart. One that is stopped early hardly learns the wrong ones and
# has little to gain. The scores are the mean margin of the given class over the training; the net never comes to
# believe most of the misplaced files.

display = ScoreDistributionDisplay.from_attributor(pruner.attributor_, marked=y.index.isin(misplaced))
display.figure_.suptitle("Scores of the files; marked: those in the wrong folder")

# %%
# Who are they?
# -------------
#
# The worst files by their path, with what the new net takes them for.

worst = pruner.to_frame().head(12).index
rows = y.index.get_indexer(worst)
suggested = NAMES[pruner.predict(X[rows])]
print("the worst files            the new net says   in fact")
for path, name in zip(worst, suggested, strict=True):
    print(f"  {path:24s} {name:18s} {'misplaced' if path in misplaced else 'right'}")

display = SuspectGalleryDisplay(rows, NAMES[y.iloc[rows]], suggested, names=worst, pictures=X[rows]).plot()
display.figure_.suptitle("The worst files: the folder, and what the new net says")
plt.show()
# sphinx_gallery_thumbnail_number = 2
temporary.cleanup()

# %%
# **The decision**: files whose picture disagrees with their folder are moved; the pruner's model, trained without
# them, is the one to use until that is done.
