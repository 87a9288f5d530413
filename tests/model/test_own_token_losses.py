"""Criteria of a user's own that are cross-entropies by position: their curvature without a Hessian of a row."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet
from torch import nn

from sktda.attribution import Influence, InnerProduct
from sktda.model.criterion import Custom

LABELS = torch.tensor([[0, 2, 1], [2, 2, 0], [1, 0, 2], [0, 1, 1]])
MASKED = LABELS.masked_fill(torch.tensor([[False, True, False]]), -100)
WEIGHT = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)


class Own(nn.Module):
    """Calls a function (outputs, targets) -> losses (n, ...)."""

    def __init__(self, losses, reduction="mean"):
        super().__init__()
        self.losses, self.reduction = losses, reduction

    def forward(self, outputs, targets):
        found = self.losses(outputs, targets)
        return found if self.reduction == "none" else found.flatten(1).mean()


def at_positions(outputs, targets, **options):
    found = nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none", **options)
    return found.reshape(len(outputs), -1)


def shifted(outputs, targets):
    return at_positions(outputs[:, :-1], targets[:, 1:])


CASES = {  # losses, targets, class axis
    "last": (at_positions, LABELS, -1),
    "second": (lambda z, y: nn.functional.cross_entropy(z, y, reduction="none"), LABELS, 1),
    "shifted": (shifted, LABELS, -1),
    "masked": (at_positions, MASKED, -1),
    "weighted": (lambda z, y: at_positions(z, y, weight=WEIGHT), LABELS, -1),
    "smoothed": (lambda z, y: at_positions(z, y, label_smoothing=0.2), LABELS, -1),
    "focal by rows": (lambda z, y: torch.tensor([[1.0], [2.0], [0.5], [0.0]]) * at_positions(z, y), LABELS, -1),
    "one position": (lambda z, y: at_positions(z[:, 0], y[:, 0]), LABELS, -1),
}


def drawn(n=4, axis=-1, seed=0):
    outputs = torch.randn(n, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return outputs if axis == -1 else outputs.transpose(1, 2)


@pytest.mark.parametrize("name", CASES)
def test_the_curvature_of_a_row_is_its_hessian(name):
    losses, targets, axis = CASES[name]
    likelihood, outputs = Custom(Own(losses, "none")), drawn(axis=axis)
    H = torch.autograd.functional.hessian(lambda z: likelihood.losses(z, targets).sum(), outputs).reshape(36, 36)
    H = torch.stack([H[9 * i : 9 * i + 9, 9 * i : 9 * i + 9] for i in range(4)])
    assert likelihood._softmax(outputs, targets)[2] == (2 if axis == -1 else 1)
    roots = likelihood.roots(outputs, targets).reshape(4, -1, 9)
    torch.testing.assert_close(roots.mT @ roots, H, rtol=1e-9, atol=1e-12)
    along = drawn(axis=axis, seed=1)
    expected = torch.einsum("nij,nj->ni", H, along.reshape(4, 9)).reshape(along.shape)
    torch.testing.assert_close(likelihood.curved(outputs, targets, along), expected, rtol=1e-9, atol=1e-12)
    if name == "focal by rows":
        return  # its weights are of four rows
    many, labels = outputs.repeat(5000, 1, 1), targets.repeat(5000, 1)
    slopes = likelihood.slopes(many, labels, likelihood.noise(many.shape, torch.Generator().manual_seed(0)))
    slopes = slopes.reshape(5000, 4, 9)
    sampled = torch.einsum("kni,knj->nij", slopes, slopes) / 5000
    assert (sampled - H).abs().max() < 0.05 * H.abs().max()


def test_other_losses_have_no_softmax_and_large_ones_are_refused():
    def huber(z, y):
        return nn.functional.huber_loss(z, y, reduction="none")

    def squares(z, y):
        return (z - y).square() / 2

    for losses in (huber, squares):
        assert Custom(Own(losses, "none"))._softmax(drawn(), drawn(seed=1)) is None
    outputs = torch.randn(1, 70, 70)
    with pytest.raises(ValueError, match=r"the curvature of Own is no softmax's.* 4900 outputs, .* 2\.4e\+07 entries"):
        Custom(Own(squares, "none")).roots(outputs, outputs)
    slopes = Custom(Own(at_positions, "none")).slopes(
        torch.randn(2, 64, 1000), torch.zeros(2, 64, dtype=torch.long), torch.randn(2, 64, 1000)
    )
    assert slopes.shape == (2, 64, 1000)


def test_influence_is_that_of_the_same_loss_by_torch():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 4, 3)), rng.integers(0, 5, (20, 4))
    torch.manual_seed(0)
    module = nn.Linear(3, 5).double()
    settings = {"max_epochs": 0, "train_split": None, "verbose": 0}
    own = NeuralNet(module, criterion=Own(at_positions), **settings).fit(X, y)

    class Second(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = module

        def forward(self, X):
            return self.linear(X).transpose(1, 2)

    torchs = NeuralNet(Second(), criterion=nn.CrossEntropyLoss, **settings).fit(X, y)
    found, expected = (
        Influence(FrozenEstimator(net), curvature="exact", damping=0.01).fit(X, y).scores_ for net in (own, torchs)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("method", [InnerProduct, Influence])
def test_values_of_single_tokens_add_up_to_that_of_the_query(method):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 3, 4)), rng.integers(0, 5, (20, 4))
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv1d(4, 5, 1)).double()
    net = NeuralNet(module, criterion=nn.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0).fit(X, y)
    fitted = method(FrozenEstimator(net), random_state=0).fit(X, y)
    labels = np.full((4, 4), -100)
    np.fill_diagonal(labels, y[0])
    by_token = fitted.attribute(np.repeat(X[:1], 4, axis=0), labels)
    assert by_token.std(axis=0).min() > 0
    np.testing.assert_allclose(by_token.sum(0), fitted.attribute(X[:1], y[:1])[0], rtol=1e-9)
