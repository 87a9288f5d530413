"""Several yes/no labels per row, some of them wrong: which rows should a net not be trained on?

The rows are scikit-learn's digits with four labels each: is it even, larger than 4, prime, drawn with a closed loop? Of
1,000 training rows, 250 have one of their four answers flipped. The net is trained by skorch with a sigmoid per
label (`BCEWithLogitsLoss`). The attributors look at all labels of a row at once: `EL2N` at the length of its error
after a fifth of the training, `LogitMargin` at its worst label after three tenths. `InfluencePruner` drops the worst
rows and trains again; it is told how many are wrong, not which.

A whole row goes for one wrong answer, three right ones with it. The last lines ask which answer that was: the one with
which the net of the remaining rows disagrees most.

When to look matters: with `EL2N(at=0.05)`, before the net knows the digits, rows go that are merely hard, and the net
of the rest is worse than that of all rows.

Run with `python examples/multilabel.py`. About 5 seconds on one thread.
"""

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import train_test_split
from skorch import NeuralNet
from torch import nn

from sktda import InfluencePruner
from sktda.attribution import EL2N, LogitMargin

SEED = 0
N_WRONG = 250
LABELS = {"even": (0, 2, 4, 6, 8), "larger than 4": (5, 6, 7, 8, 9), "prime": (2, 3, 5, 7), "loop": (0, 6, 8, 9)}


def make_net() -> NeuralNet:
    """A small net with one output per label."""
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


def measures(model: NeuralNet | InfluencePruner, X: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(average precision, F1), each the mean over the labels."""
    probabilities = model.predict(X)
    return average_precision_score(y, probabilities), f1_score(y, probabilities > 0.5, average="macro")


def main() -> None:
    """Flip, train, prune, train again."""
    X, digits = load_digits(return_X_y=True)
    y = np.column_stack([np.isin(digits, group) for group in LABELS.values()]).astype(np.float32)
    X, X_test, y, y_test = train_test_split((X / 16).astype(np.float32), y, train_size=1000, random_state=SEED)
    rng = np.random.default_rng(SEED)
    wrong = rng.choice(len(y), size=N_WRONG, replace=False)
    entry = rng.integers(len(LABELS), size=N_WRONG)
    truth = y.copy()
    y[wrong, entry] = 1 - y[wrong, entry]

    print(f"{len(y)} rows with {len(LABELS)} labels each, one wrong in {N_WRONG} of them; {len(y_test)} to test on\n")
    print(f"{'trained on':34s}{'wrong rows':>12s}{'average precision':>20s}{'F1':>8s}")

    def show(name: str, model: NeuralNet | InfluencePruner, n_wrong: int) -> None:
        precision, f1 = measures(model, X_test, y_test)
        print(f"{name:34s}{n_wrong:12d}{precision:20.3f}{f1:8.3f}")

    torch.manual_seed(SEED)
    show("all rows", make_net().fit(X, y), N_WRONG)
    for attributor in (EL2N(at=0.2), LogitMargin(at=0.3)):
        torch.manual_seed(SEED)
        pruner = InfluencePruner(make_net(), attributor, prune_ratio=N_WRONG / len(y), random_state=SEED).fit(X, y)
        show(f"without the worst by {type(attributor).__name__}", pruner, int(pruner.support_[wrong].sum()))
    torch.manual_seed(SEED)
    right = np.setdiff1d(np.arange(len(y)), wrong)
    show("without the wrong rows, if known", clone(make_net()).fit(X[right], y[right]), 0)

    rows = np.argsort(pruner.scores_)[:10]
    worst = np.abs(pruner.predict(X[rows]) - y[rows]).argmax(axis=1)
    print(f"\nthe worst rows by {type(attributor).__name__}")
    for row, label in zip(rows, worst, strict=True):
        said = "yes" if y[row, label] else "no"
        question = f"{list(LABELS)[label]}? {said}"
        print(f"  row {row:4d}   {question:22s}{'wrong' if y[row, label] != truth[row, label] else 'right'}")


if __name__ == "__main__":
    main()
