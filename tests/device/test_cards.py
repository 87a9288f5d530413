"""Workers have a card each, where the passes and trainings of one fit find the same on 1, 2 and 3."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from sktda import retrain
from sktda.attribution import Distributional, Influence, ModelEnsemble, Source
from sktda.engine import journal
from sktda.model.recorder import TrajectoryRecorder
from tests.device import cards, placing
from tests.device.simulated import NAME
from tests.device.test_attributors import CLASSES, CLOSE, WIDTH, X, Y

WORKERS = 3


def net(**options):
    torch.manual_seed(0)
    return NeuralNetClassifier(
        cards.Net(nn.Linear(WIDTH, 6), nn.Tanh(), nn.Linear(6, CLASSES)),
        criterion=nn.CrossEntropyLoss,
        max_epochs=2,
        batch_size=12,
        train_split=None,
        verbose=0,
        **options,
    )


@pytest.fixture(scope="module")
def frozen():
    recorder = TrajectoryRecorder(n_checkpoints=3, optimizer_state=True, steps=True)
    return FrozenEstimator(net(callbacks=[recorder]).fit(X, Y))


@pytest.fixture
def here(monkeypatch, counting):
    """This process has the first card."""
    monkeypatch.setattr(placing, "_place", torch.device(NAME))
    monkeypatch.setattr(journal, "LEAST", 6)


def by_cards(find):
    """find(workers or None) in this process, and by workers with so many cards."""
    found = {1: find(None)}
    for count in (1, 2, 3):
        cards.visible(count)
        with joblib.parallel_config("loky", n_jobs=WORKERS):
            found[count, WORKERS] = find(WORKERS)
        passed = cards.passes()
        assert set(passed) <= set(range(count))
        assert len(passed) > 1 or count == 1
    plain = found.pop(1)
    for each in found.values():
        np.testing.assert_allclose(each, plain, **CLOSE)
    return plain


@pytest.mark.parametrize(
    "method",
    [
        lambda frozen: Influence(frozen, curvature="ekfac"),
        lambda frozen: Source(frozen, n_segments=2, curvature="ekfac"),
    ],
)
def test_passes_over_the_rows(method, frozen, here):
    found = by_cards(lambda _: method(frozen).fit(X, Y).scores_)
    np.testing.assert_allclose(found, method(frozen).set_params(device="cpu").fit(X, Y).scores_, **CLOSE)


@pytest.mark.parametrize(
    "ensemble",
    [
        lambda inner: ModelEnsemble(inner, n_members=3, members="seeds", random_state=0),
        lambda inner: Distributional(inner, n_members=3, random_state=0),
    ],
)
def test_members(ensemble, here):
    def find(n_jobs):
        fitted = clone(ensemble(Influence(net(device=NAME), curvature="ekfac"))).set_params(n_jobs=n_jobs).fit(X, Y)
        # members that come from other cards are asked here
        return np.concatenate([fitted.scores_, *(each.attribute(X[:2], Y[:2]).ravel() for each in fitted.attributors_)])

    by_cards(find)


def test_trainings(here):
    def find(n_jobs):
        nets = retrain(net(device=NAME), X, Y, seeds=range(4), batched=False, n_jobs=n_jobs)
        return np.stack([each.predict_proba(X) for each in nets])

    by_cards(find)
