"""Values that are NaN or infinite are refused wherever they would be ranked or summed."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

import sktda.attribution
from sktda import TorchModel, TrajectoryRecorder
from sktda.attribution import Distributional, InnerProduct, TracIn
from sktda.attribution.gradients.pairs import GradientAttributor
from sktda.attribution.trees.base import LeafScores
from tests.in_turn import in_turn

N = 12
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(N, 3)).astype(np.float32), np.arange(N) % 3
EVERY = [getattr(sktda.attribution, name) for name in sktda.attribution.__all__]
GRADIENTS = [each for each in EVERY if isinstance(each, type) and issubclass(each, GradientAttributor)]
TREES = [each for each in EVERY if isinstance(each, type) and issubclass(each, LeafScores)]
ASKED = {
    "attribute": lambda fitted, *rows: fitted.attribute(*rows),
    "top_k": lambda fitted, *rows: fitted.top_k(*rows, k=2),
    "top_k, harmful": lambda fitted, *rows: fitted.top_k(*rows, k=2, harmful=True),
}


def spoiled(row, value):
    found = X.copy()
    found[row, 1] = value
    return found


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    options = {"max_epochs": 2, "lr": 0.1, "batch_size": 6, "train_split": None, "verbose": 0}
    recorder = TrajectoryRecorder(n_checkpoints=4, steps=True)
    return NeuralNetClassifier(nn.Linear(3, 3), criterion=nn.CrossEntropyLoss, callbacks=[recorder], **options).fit(
        X, Y
    )


@in_turn("value", [np.nan, np.inf])
@in_turn("kind", GRADIENTS)
def test_a_query(net, kind, value):
    settings = {"n_segments": 2} if kind.__name__ == "Source" else {}
    fitted = kind(FrozenEstimator(net), objective=None, **settings).fit(X, Y)
    queries = spoiled(1, value)[:3]
    for ask in ASKED.values():
        with pytest.raises(ValueError, match=f"{N} of {3 * N} values are NaN or infinite because of query 1: X or y"):
            ask(fitted, queries, Y[:3])


@in_turn("name", ASKED)
@in_turn("kind", [InnerProduct, TracIn])
def test_a_training_row(kind, name):
    """Of methods that may be made ready without a look at each row."""
    torch.manual_seed(0)
    fitted = kind(TorchModel(nn.Linear(3, 3), nn.CrossEntropyLoss()), objective=None).fit(spoiled(5, np.nan), Y)
    with pytest.raises(ValueError, match=f"3 of {3 * N} values are NaN or infinite because of training row 5: X or y"):
        ASKED[name](fitted, X[:3], Y[:3])


@in_turn("kind", TREES)
def test_trees(kind):
    settings = {"max_iter": 2, "min_samples_leaf": 2}
    target = Y + 0.5

    def lost(predict, X, y):
        return (predict(X) - y).square().mean() * torch.nan

    with pytest.raises(ValueError, match=f"{N} of {N} values are NaN or infinite because of the query or validation r"):
        kind(HistGradientBoostingRegressor(**settings), objective=lost).fit(X, target, X_val=X, y_val=target)
    fitted = kind(HistGradientBoostingRegressor(**settings), objective=None).fit(X, target)
    blocks = fitted._blocks

    def spoilt(queries):
        for asked, rows, block in blocks(queries):
            block = np.array(block)
            block[5] = np.nan
            yield asked, rows, block

    fitted._blocks = spoilt
    for ask in ASKED.values():
        with pytest.raises(ValueError, match=f"3 of {3 * N} values are NaN or infinite because of training row 5"):
            ask(fitted, X[:3], target[:3])


def test_a_measure_of_the_distribution():
    members = [TorchModel(nn.Linear(3, 3), nn.CrossEntropyLoss()) for _ in range(2)]
    fitted = Distributional(InnerProduct(), members=members, measure=lambda before, after: after.mean(0) * np.nan)
    with pytest.raises(ValueError, match=f"the measure returned {N} of {N} values that are NaN or infinite; mend it"):
        fitted.fit(X, Y, X_val=X, y_val=Y)
