"""The low rank of an EK-FAC inverse is chosen on the device, in the memory that there is, and read in few pieces."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sktda.engine.ekfac import EKFAC
from sktda.engine.pairwise import EKFACQueries
from sktda.engine.per_row import PerRow
from sktda.model.adapters import differentiable
from tests.device.test_memory import within

N, WIDTH, CLASSES = 600, 60, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, WIDTH)).astype(np.float32)
Y = (X @ RNG.normal(size=(WIDTH, CLASSES))).argmax(axis=1)


@pytest.fixture(scope="module")
def net():
    module = nn.Sequential(nn.Linear(WIDTH, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, CLASSES))
    return NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=2, lr=0.1, batch_size=50, train_split=None, verbose=0
    ).fit(X, Y)


def choosing(net, n, device, tolerance):
    """A function that chooses the ranks for n rows."""
    model = differentiable(net).to(torch.device(device))
    engine, rows = PerRow(model), model.rows(X[:n], Y[:n])
    curvature = EKFAC(engine, rows)

    def choose():
        source = EKFACQueries(curvature, curvature.inverse(), tolerance)
        source.choose_ranks(engine, model.rows(X[:60], Y[:60]), rows, None)
        return source.ranks

    return choose


def test_ranks_are_chosen_in_a_quarter_of_the_memory(net, counting):
    plenty, few, emptied = within(counting, choosing(net, N, counting.NAME, 0.05))
    assert plenty == few
    assert len(plenty) > 1
    assert emptied


def test_choosing_waits_for_no_row_and_no_term(net, counting):
    found = []
    for n in (N // 2, N):
        choose = choosing(net, n, counting.NAME, 0.002)
        with counting.watched() as seen:
            ranks = choose()
        found.append(seen.counts["syncs"])
    assert found[1] == found[0]
    assert found[1] < sum(ranks.values())
