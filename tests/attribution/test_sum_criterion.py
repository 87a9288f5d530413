"""A criterion that adds the losses of a batch, at a rate divided by the batch size, is the same training."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from sktda import TrajectoryRecorder
from sktda.attribution import DiffIn, InnerProduct, MoSo, SGDInfluence, Source, TracIn

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 4)), RNG.integers(0, 3, 32)


def trained(reduction, rate):
    torch.manual_seed(0)
    return NeuralNetClassifier(
        nn.Linear(4, 3).double(),
        criterion=nn.CrossEntropyLoss(reduction=reduction),
        optimizer__momentum=0.5,
        lr=rate,
        max_epochs=6,
        batch_size=8,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(steps=True)],
    ).fit(X, Y)


@pytest.mark.parametrize("method", [TracIn, InnerProduct, Source, DiffIn, SGDInfluence, MoSo])
def test_the_scores_are_those_of_the_mean(method):
    mean, added = (FrozenEstimator(trained(*how)) for how in (("mean", 0.1), ("sum", 0.1 / 8)))
    held = {} if method is MoSo else {"X_val": X[:9], "y_val": Y[:9]}
    expected = method(mean, random_state=0).fit(X, Y, **held).scores_
    np.testing.assert_allclose(method(added, random_state=0).fit(X, Y, **held).scores_, expected, rtol=1e-9)
