"""With a quarter of the memory that it would take, a method takes smaller blocks and finds the same."""

import gc

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from sktda import CoresetSelector, Holdout, InfluencePruner, NoisyLabelDetector, retrain
from sktda.attribution import (
    TRAK,
    ComplexityGap,
    DiffIn,
    GraNd,
    Influence,
    KernelForest,
    KNNShapley,
    LabelPosterior,
    LoGra,
    MoSo,
    SGDInfluence,
    Source,
    TracIn,
    adversarial_examples,
)
from sktda.cleaning.strategies.features import D2, Herding, KCenter, Moderate
from sktda.cleaning.strategies.gradients import CRAIG, GradMatch
from sktda.model.recorder import TrajectoryRecorder
from sktda.objectives import AdversarialLoss

N, WIDTH, CLASSES = 320, 8, 3
SHARE = 0.25
SAME = {"rtol": 1e-5, "atol": 1e-5}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, WIDTH)).astype(np.float32)
Y = (X[:, :3] + 0.3 * RNG.normal(size=(N, CLASSES))).argmax(axis=1)
Y[::20] = (Y[::20] + 1) % CLASSES


def trained():
    torch.manual_seed(0)
    return NeuralNetClassifier(
        nn.Sequential(nn.Linear(WIDTH, 24), nn.Tanh(), nn.Linear(24, 4), nn.Tanh(), nn.Linear(4, CLASSES)),
        criterion=nn.CrossEntropyLoss,
        lr=0.1,
        max_epochs=2,
        batch_size=100,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints=2, steps=True)],
    ).fit(X, Y)


NET = FrozenEstimator(trained())


def within(counting, run, share=SHARE):
    """(What run() returns, the same with a share of the memory, how often the memory was short)."""
    run()  # what is made once
    with counting.watched() as seen:
        before = counting.STATE.memory.used
        plenty = run()
    gc.collect()
    with counting.watched() as short, counting.limited(int(share * (seen.peak - before))):
        few = run()
    return plenty, few, short.counts["emptied"]


D = "simulated"
PAIRS = {
    "Influence": Influence(NET),
    "TracIn": TracIn(NET),
    "DiffIn": DiffIn(NET, hessian_rows=64),
    "SGDInfluence": SGDInfluence(NET),
    "Source": Source(NET, n_segments=1),
    "TRAK": TRAK(NET, proj_dim=16),
    "LoGra": LoGra(NET, rank=4),
}
SCORES = {
    "Influence": Influence(NET),
    "Source": Source(NET, n_segments=1),
    "TRAK": TRAK(NET, proj_dim=16),
    "MoSo": MoSo(NET),
    "GraNd": GraNd(NET),
    "KNNShapley": KNNShapley(),
    "ComplexityGap": ComplexityGap(),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name, counting):
    fitted = clone(PAIRS[name]).set_params(device=D, objective=None).fit(X, Y)
    asked = (X[:40], Y[:40]) if name != "SGDInfluence" else (X[:12], Y[:12])  # which takes them step by step
    plenty, few, emptied = within(counting, lambda: fitted.attribute(*asked))
    np.testing.assert_allclose(few, plenty, **SAME)
    assert emptied
    if name == "Influence":  # all go over the same blocks
        values = within(counting, lambda: fitted.top_k(*asked, k=3)[1])[1]
        np.testing.assert_allclose(values, np.sort(plenty)[:, :-4:-1], **SAME)


@pytest.mark.parametrize("name", SCORES)
def test_scores(name, counting):
    plenty, few, emptied = within(counting, lambda: clone(SCORES[name]).set_params(device=D).fit(X, Y).scores_)
    np.testing.assert_allclose(few, plenty, **SAME)
    assert emptied


def test_kernel_by_landmarks(counting):
    wide = np.random.default_rng(0).normal(size=(N, 100))
    gap = ComplexityGap(mode="nystrom", n_landmarks=12, scale="unit", ridge=0.3, random_state=0, device=D)
    plenty, few, emptied = within(counting, lambda: clone(gap).fit(wide, Y).scores_)
    np.testing.assert_allclose(few, plenty, **SAME)
    assert emptied


@pytest.mark.parametrize("kind", [KCenter, Herding, Moderate, D2, CRAIG, GradMatch])
def test_coresets(kind, counting):
    selector = CoresetSelector(n_samples=60, strategy=kind(NET, device=D), random_state=0)
    plenty, few, emptied = within(counting, lambda: clone(selector).fit(X, Y).sample_indices_)
    np.testing.assert_array_equal(few, plenty)
    assert emptied


def test_trainings_side_by_side(counting):
    net = clone(NET.estimator).set_params(callbacks=[], device=D)
    plenty, few, emptied = within(
        counting, lambda: [each.predict_proba(X) for each in retrain(net, X, Y, seeds=range(4))]
    )
    np.testing.assert_allclose(few, plenty, **SAME)
    assert emptied


def test_attacks(counting):
    plenty, few, emptied = within(counting, lambda: adversarial_examples(NET, X, Y, AdversarialLoss(eps=0.1), device=D))
    np.testing.assert_allclose(few, plenty, **SAME)
    assert emptied


FLOWS = {
    "detector": (NoisyLabelDetector(LabelPosterior(KernelForest(n_estimators=4, device=D), random_state=0)), "labels_"),
    "pruner": (
        InfluencePruner(NET.estimator, Influence(NET, device=D), validation=Holdout(X[:90], Y[:90])),
        "support_",
    ),
}


@pytest.mark.parametrize("name", FLOWS)
def test_whole_flows(name, counting):
    estimator, learned = FLOWS[name]
    plenty, few, emptied = within(counting, lambda: clone(estimator).fit(X, Y))
    np.testing.assert_allclose(few.scores_, plenty.scores_, **SAME)
    np.testing.assert_array_equal(getattr(few, learned), getattr(plenty, learned))
    assert emptied


def test_whole_flow_of_source(counting):
    def flow():
        fitted = Source(NET, n_segments=1, device=D).fit(X, Y, X_val=X[:90], y_val=Y[:90])
        return np.concatenate([fitted.scores_[None], fitted.attribute(X[:90], Y[:90])])

    plenty, few, emptied = within(counting, flow)
    np.testing.assert_allclose(few, plenty, **SAME)
    assert emptied


def test_an_error_says_so_where_a_single_row_does_not_fit(counting):
    with counting.limited(2_000), pytest.raises(torch.OutOfMemoryError):
        GraNd(NET, device=D).fit(X, Y)
