"""
Two stages of training: which one did the harm?
===============================================

A small net is pre-trained and fine-tuned, one of the two on wrong labels. ``Source`` gets both recorded runs and all
rows together, and is not told which labels are wrong: a stage's harmful rows are those with a negative validation score
in it, and the stage that did the harm is the one whose harmful rows are predicted to cost more. Did it?
"""

import copy
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sktda import TrajectoryRecorder
from sktda.attribution import Source, Stage

# %%
# Rows of two stages
# ------------------
#
# scikit-learn's digits: 600 rows to pre-train on and 400 to fine-tune on; of the others, whose labels stay right, one
# half validates and one half tests. Of one stage's labels 20 % are replaced by another digit, drawn uniformly.

SEED = 0
NOISE = 0.2
NAMES = "pre-training", "fine-tuning"
PARTS = np.arange(600), np.arange(600, 1000)  # rows of each stage
EPOCHS = 10, 5
RATES = 0.05, 0.01


@dataclass
class Rows:
    """Images and labels: of both stages together, to validate and to test."""

    X: np.ndarray
    y: np.ndarray
    X_val: np.ndarray
    y_val: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def make_rows(harmed: int) -> tuple[Rows, np.ndarray]:
    """(rows of which a fifth of one stage's labels is wrong, positions of these)."""
    X, y = load_digits(return_X_y=True)
    X, X_rest, y, y_rest = train_test_split((X / 16).astype(np.float32), y, train_size=1000, random_state=SEED)
    X_val, X_test, y_val, y_test = train_test_split(X_rest, y_rest, test_size=0.5, random_state=SEED)
    rng = np.random.default_rng(SEED)
    wrong = rng.choice(PARTS[harmed], size=round(NOISE * len(PARTS[harmed])), replace=False)
    y[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return Rows(X, y, X_val, y_val, X_test, y_test), wrong


# %%
# Training, recorded
# ------------------


def train(rows: Rows, left_out: np.ndarray | tuple = (), epochs: tuple[int, int] = EPOCHS) -> list[NeuralNetClassifier]:
    """The net after pre-training and after fine-tuning, each with its own record."""
    torch.manual_seed(SEED)
    module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    nets = []
    for stage, part in enumerate(PARTS):
        own = np.setdiff1d(part, left_out)
        net = NeuralNetClassifier(
            copy.deepcopy(module),  # skorch trains an instance in place, and the first stage must stay as it was
            criterion=nn.CrossEntropyLoss,
            optimizer__momentum=0.9,
            lr=RATES[stage],
            max_epochs=epochs[stage],
            batch_size=32,
            iterator_train__shuffle=True,
            train_split=None,
            verbose=0,
            callbacks=[TrajectoryRecorder()],
        )
        nets.append(net.fit(rows.X[own], rows.y[own]))
        module = net.module_
    return nets


def stage_scores(nets: list[NeuralNetClassifier], rows: Rows) -> np.ndarray:
    """(2, n): predicted rise of the validation loss without a row, by the stage in which it was trained on."""
    pretrained, fine_tuned = nets
    source = Source(FrozenEstimator(fine_tuned), stages=[Stage(pretrained)], random_state=SEED)
    return source.fit(rows.X, rows.y, X_val=rows.X_val, y_val=rows.y_val).stage_scores_


def loss(net: NeuralNetClassifier, X: np.ndarray, y: np.ndarray) -> float:
    """Mean cross-entropy."""
    return float(nn.functional.cross_entropy(net.forward(X), torch.as_tensor(y)))


# %%
# Ask, and check
# --------------
#
# The net is trained again without the rows that are said to harm, and tested: right rows are among them, so that this
# is a check of the prediction and no recipe.


def find_the_stage(harmed: int) -> None:
    """Train with one stage harmed, ask which one it was, and train again without what is said to harm."""
    rows, wrong = make_rows(harmed)
    nets = train(rows)
    scores = stage_scores(nets, rows)
    print(f"\n{len(wrong)} wrong labels among the rows of {NAMES[harmed]}")
    print(
        f"  {'':14s}{'harmful rows':>14s}{'wrong labels':>14s}{'of which found':>16s}{'cost of the harmful rows':>26s}"
    )
    for name, part, values in zip(NAMES, PARTS, scores, strict=True):
        harmful = np.flatnonzero(values < 0)
        counts = len(harmful), np.isin(part, wrong).sum(), np.isin(harmful, wrong).sum()
        print(f"  {name:14s}{counts[0]:14d}{counts[1]:14d}{counts[2]:16d}{-values[harmful].sum():26.3f}")
    named = int(np.minimum(scores, 0).sum(axis=1).argmin())
    again = train(rows, np.flatnonzero(scores[named] < 0))
    before, after = (loss(each[-1], rows.X_test, rows.y_test) for each in (nets, again))
    print(f"  Source names {NAMES[named]}: the test loss is {before:.3f}, and {after:.3f} without its harmful rows")


find_the_stage(harmed=0)

# %%

find_the_stage(harmed=1)

# %%
# Forgetting
# ----------
#
# Fine-tuning is made longer and longer, after pre-training on wrong labels: what they cost fades, as ``Source``
# predicts. Rows are predicted one by one and add up to more than all of them together cost.

rows, wrong = make_rows(harmed=0)
n_epochs = [1, 4, 16, 64]
predicted, measured = [], []
for n in n_epochs:
    nets, without = (train(rows, left_out, (EPOCHS[0], n)) for left_out in ((), wrong))
    predicted.append(-stage_scores(nets, rows)[0, wrong].sum())
    before, after = (loss(each[-1], rows.X_val, rows.y_val) for each in (nets, without))
    measured.append(before - after)
print("\nCost of the wrong rows of pre-training, in validation loss, after more and more fine-tuning")
print(f"  {'epochs':>8s}{'predicted':>12s}{'by retraining':>16s}")
for row in zip(n_epochs, predicted, measured, strict=True):
    print("  {:8d}{:12.3f}{:16.3f}".format(*row))

# %%

figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
ax.loglog(n_epochs, predicted, "o-", color="#0072b2", label="predicted, row by row")
ax.loglog(n_epochs, measured, "s--", color="#444444", label="by retraining without them")
ax.set(xlabel="epochs of fine-tuning", ylabel="validation loss", title="Cost of the wrong rows of pre-training")
ax.set_xticks(n_epochs, map(str, n_epochs))
ax.minorticks_off()
ax.legend()
plt.show()

# %%
# **The decision**: look at the labels of the stage that is named. See :doc:`../source`.
