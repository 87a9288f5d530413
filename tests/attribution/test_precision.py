"""Passes at another precision: what torch is set to inside and afterwards, how much scores move, what is refused."""

import threading
from inspect import signature

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from torch import nn

from sktda import attribution as methods
from sktda.attribution import TRAK, DiffIn, GraNd, Influence, InnerProduct, LoGra, MoSo, SGDInfluence, Source, TracIn
from sktda.model.precision import at_precision
from sktda.model.recorder import TrajectoryRecorder
from tests.in_turn import in_turn

N = 300
X, Y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
VALIDATION = {"X_val": X[900:1000], "y_val": Y[900:1000]}
torch.manual_seed(0)
SEEN = []


class Net(nn.Module):
    """Convolution, norms and linear layers, which note how torch is set when they are called."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        )
        self.head = nn.Sequential(nn.LayerNorm(54), nn.Linear(54, 24), nn.ReLU(), nn.Linear(24, 10))

    def forward(self, x):
        found = self.head(self.body(x))
        SEEN.append((settings(), found.dtype))
        return found


def settings():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


NET = FrozenEstimator(
    NeuralNetClassifier(
        Net,
        criterion=nn.CrossEntropyLoss,
        lr=0.1,
        optimizer__momentum=0.9,
        max_epochs=6,
        batch_size=50,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints=4, steps=True)],
    ).fit(X[:N], Y[:N])
)
LOWEST = {  # as the docstrings say: by own loss, by validation loss, of pairs
    "Influence": (Influence(NET), 0.999, 0.92, 0.88),
    "TracIn": (TracIn(NET), 0.999, 0.99, 0.99),
    "InnerProduct": (InnerProduct(NET), 0.999, 0.99, 0.99),
    "TRAK": (TRAK(NET), 0.999, 0.95, 0.95),
    "LoGra": (LoGra(NET), 0.999, 0.95, 0.95),
    "Source": (Source(NET, n_segments=2), 0.999, 0.99, 0.97),
    "MoSo": (MoSo(NET), 0.999),
    "GraNd": (GraNd(NET), 0.999),
}


def test_all_methods_with_a_precision_are_here():
    every = [getattr(methods, name) for name in methods.__all__]
    taking = {one for one in every if isinstance(one, type) and "precision" in signature(one).parameters}
    assert {type(one) for one, *_ in LOWEST.values()} | {DiffIn, SGDInfluence} == taking


@pytest.mark.parametrize("name", LOWEST)
def test_scores_in_bfloat16_rank_the_rows_as_those_in_float32(name):
    method, *lowest = LOWEST[name]
    for given, least in zip(({}, VALIDATION), lowest, strict=False):
        full, low = (clone(method).set_params(precision=p).fit(X[:N], Y[:N], **given) for p in ("float32", "bf16"))
        assert least <= spearmanr(full.scores_, low.scores_)[0] < 1
        plain = clone(method).fit(X[:N], Y[:N], **given).scores_
        np.testing.assert_array_equal(full.scores_, plain)  # on a processor there is no TF32
    if len(lowest) == 3:
        pairs = [each.attribute(X[900:920], Y[900:920]).ravel() for each in (full, low)]
        assert lowest[2] <= spearmanr(*pairs)[0] < 1


INSIDE = {
    "auto": (settings(), torch.float32),
    "float32": (("highest", False), torch.float32),
    "tf32": (("high", True), torch.float32),
    "bf16": (("high", True), torch.bfloat16),
}


@pytest.mark.parametrize("own", [("highest", True), ("medium", False)])
@pytest.mark.parametrize("precision", INSIDE)
def test_torch_is_set_inside_and_put_back(precision, own):
    before = settings()
    try:
        torch.set_float32_matmul_precision(own[0])
        torch.backends.cudnn.allow_tf32 = own[1]
        expected = (own, torch.float32) if precision == "auto" else INSIDE[precision]
        tracin = TracIn(NET, precision=precision).fit(X[:N], Y[:N])
        assert settings() == own
        SEEN.clear()
        tracin.attribute(X[:4], Y[:4])
        assert set(SEEN) - {(own, torch.float32)} == {expected} - {(own, torch.float32)}  # one row shows the outputs
        assert settings() == own
        with pytest.raises(KeyError), at_precision(precision, torch.device("cpu"), torch.float32):
            raise KeyError
        assert settings() == own
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_a_precision_within_another_is_put_back_and_another_thread_waits():
    order, device = [], torch.device("cpu")

    def other():
        with at_precision("tf32", device, torch.float32):
            order.append(settings())

    with at_precision("float32", device, torch.float32):
        thread = threading.Thread(target=other)
        thread.start()
        with at_precision("bf16", device, torch.float32):
            order.append(settings())
        order.append(settings())
    thread.join()
    assert order == [("high", True), ("highest", False), ("high", True)]


@in_turn(
    ("method", "match"),
    [
        (Influence(NET, precision="half"), "precision"),
        (TracIn(NET, precision=16), "precision"),
        (DiffIn(NET, precision="bf16"), "precision"),
        (SGDInfluence(NET, precision="bf16"), "precision"),
        (Influence(NET, precision="bf16", curvature="cg", damping=0.1), "curvature='ekfac', and 'cg'"),
        (Source(NET, precision="bf16", curvature="exact", n_segments=2), "curvature='ekfac', and 'exact'"),
        (InnerProduct(LogisticRegression(), precision="bf16"), "this one is in float64"),
    ],
)
def test_what_cannot_be_is_refused(method, match):
    with pytest.raises(ValueError, match=match):
        method.fit(X[:N], Y[:N])
