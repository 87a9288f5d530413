"""
Several yes/no labels per row
=============================

A quarter of the rows has one of its four answers turned round. A row is scored as a whole, and goes as a whole, three
right answers with the wrong one. Which answer was it? The one with which the net of the remaining rows disagrees most.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import train_test_split
from skorch import NeuralNet
from torch import nn

from sktda import InfluencePruner
from sktda.attribution import EL2N, LogitMargin
from sktda.displays import ScoreDistributionDisplay, SuspectGalleryDisplay

# %%
# Four questions about digits
# ---------------------------
#
# Is it even, larger than 4, prime, drawn with a closed loop? Of 1,000 training rows, 250 have one answer flipped.

LABELS = {"even": (0, 2, 4, 6, 8), "larger than 4": (5, 6, 7, 8, 9), "prime": (2, 3, 5, 7), "loop": (0, 6, 8, 9)}
N_WRONG = 250

X, digits = load_digits(return_X_y=True)
y = np.column_stack([np.isin(digits, group) for group in LABELS.values()]).astype(np.float32)
X, X_test, y, y_test = train_test_split((X / 16).astype(np.float32), y, train_size=1000, random_state=0)
rng = np.random.default_rng(0)
wrong = rng.choice(len(y), size=N_WRONG, replace=False)
entry = rng.integers(len(LABELS), size=N_WRONG)
truth = y.copy()
y[wrong, entry] = 1 - y[wrong, entry]
print(f"{len(y)} rows with {len(LABELS)} labels each, one wrong in {N_WRONG} of them; {len(y_test)} to test on")

# %%
# A net with a sigmoid per label
# ------------------------------


def make_net() -> NeuralNet:
    return NeuralNet(
        nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, len(LABELS))),
        criterion=nn.BCEWithLogitsLoss,
        predict_nonlinearity=torch.sigmoid,
        optimizer=torch.optim.Adam,
        lr=1e-2,
        max_epochs=60,
        batch_size=64,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )


def show(name: str, model: NeuralNet | InfluencePruner, n_wrong: int) -> None:
    probabilities = model.predict(X_test)
    precision, f1 = (
        average_precision_score(y_test, probabilities),
        f1_score(y_test, probabilities > 0.5, average="macro"),
    )
    print(f"{name:34s}{n_wrong:12d}{precision:20.3f}{f1:8.3f}")


# %%
# Drop the worst rows, and train again
# ------------------------------------
#
# ``EL2N`` looks at the length of a row's error after a fifth of the training, ``LogitMargin`` at its worst label after
# three tenths. The pruner is told how many are wrong, not which.

print(f"{'trained on':34s}{'wrong rows':>12s}{'average precision':>20s}{'F1':>8s}")
torch.manual_seed(0)
show("all rows", make_net().fit(X, y), N_WRONG)
for attributor in (EL2N(at=0.2), LogitMargin(at=0.3)):
    torch.manual_seed(0)
    pruner = InfluencePruner(make_net(), attributor, prune_ratio=N_WRONG / len(y), random_state=0).fit(X, y)
    show(f"without the worst by {type(attributor).__name__}", pruner, int(pruner.support_[wrong].sum()))
torch.manual_seed(0)
right = np.setdiff1d(np.arange(len(y)), wrong)
show("without the wrong rows, if known", make_net().fit(X[right], y[right]), 0)

# %%
# When to look matters: before the net knows the digits, rows go that are merely hard.

display = ScoreDistributionDisplay.from_attributor(pruner.attributor_, marked=np.isin(np.arange(len(y)), wrong))
display.figure_.suptitle("Margins of the worst label; marked: rows with a wrong answer")

# %%
# Which answer is wrong?
# ----------------------

rows = np.argsort(pruner.scores_)[:10]
worst = np.abs(pruner.predict(X[rows]) - y[rows]).argmax(axis=1)
questions = [
    f"{list(LABELS)[label]}? {'yes' if y[row, label] else 'no'}" for row, label in zip(rows, worst, strict=True)
]
print(f"the worst rows by {type(attributor).__name__}")
for row, label, question in zip(rows, worst, questions, strict=True):
    print(f"  row {row:4d}   {question:22s}{'wrong' if y[row, label] != truth[row, label] else 'right'}")

display = SuspectGalleryDisplay(rows, questions, pictures=X[rows].reshape(-1, 8, 8)).plot(n_columns=5)
display.figure_.suptitle("The worst rows, and the answer that is doubted")
plt.show()
# sphinx_gallery_thumbnail_number = 2

# %%
# **The decision**: turn the doubted answers of these rows round after a look, or leave the rows to the pruner.
