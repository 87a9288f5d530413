"""The last layer's factors are the gradients that autograd finds, and models without such a layer are refused."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNet
from torch import nn

from sktda.engine.last_layer import last_layer
from sktda.engine.matching import at
from sktda.model.adapters import differentiable
from sktda.model.base import DifferentiableModel, Rows
from sktda.model.likelihood import Gaussian
from sktda.model.softmax import Categorical
from tests.spies import noisy_blobs

X, Y, _ = noisy_blobs(60)


def rows_of(x, y, weight=None):
    return Rows(len(x), lambda part: (x[part], y[part]), weight)


def model_of(module, likelihood=None):
    return DifferentiableModel(module.double().eval(), likelihood or Categorical(), rows=lambda *args: None)


def formed(model, rows, parameters):
    """(n, p) gradients of every row's loss with respect to these parameters, one backward pass per row."""
    inputs, targets, weight = rows.block(slice(0, len(rows)), model.device)
    losses = model.likelihood.losses(model.module(inputs), targets)
    losses = losses if weight is None else losses * weight
    found = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([part.flatten() for part in each]) for each in found])


NETS = {
    "plain": lambda: nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3)),
    "no bias": lambda: nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3, bias=False)),
    "linear": lambda: nn.Linear(4, 3),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("weighted", [False, True])
def test_factors_are_the_gradients_of_autograd(net, weighted):
    torch.manual_seed(0)
    model = model_of(NETS[net]())
    rows = rows_of(torch.from_numpy(X), torch.from_numpy(Y), torch.rand(60).double() if weighted else None)
    last = last_layer(model, rows)
    head = model.module if net == "linear" else model.module[2]
    expected = formed(model, rows, list(head.parameters()))
    assert last.gives_outputs
    torch.testing.assert_close(last.gradients.gradients(), expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(last.gradients.gram(last.gradients), expected @ expected.T, atol=1e-12, rtol=1e-12)
    some = np.array([5, 2, 40])
    torch.testing.assert_close(at(last.gradients, some).gradients(), expected[some], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("model", [LogisticRegression(), MLPClassifier((5,), tol=1e-2, random_state=0), Ridge()])
def test_models_of_scikit_learn_have_one(model):
    y = X[:, 0] if isinstance(model, Ridge) else Y
    rebuilt = differentiable(model.fit(X, y), 60)
    last = last_layer(rebuilt, rebuilt.rows(X, y))
    expected = formed(rebuilt, rebuilt.rows(X, y), list(rebuilt.parameters.values())[-2:])
    torch.testing.assert_close(last.gradients.gradients(), expected, atol=1e-12, rtol=1e-12)


def test_the_errors_of_a_softmax_are_p_minus_the_label():
    model = model_of(NETS["plain"]())
    last = last_layer(model, rows_of(torch.from_numpy(X), torch.from_numpy(Y)))
    expected = last.outputs.softmax(dim=1) - torch.eye(3)[torch.from_numpy(Y)]
    torch.testing.assert_close(last.errors(), expected, atol=1e-12, rtol=1e-12)
    moved = last.outputs + 1.0 * torch.arange(3)
    torch.testing.assert_close(last.errors(moved).sum(dim=1), torch.zeros(60).double(), atol=1e-12, rtol=0)
    assert (last.errors(moved)[:, 2] > last.errors()[:, 2]).all()


def test_numbers_of_a_squeezed_output():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0))
    model = model_of(module, Gaussian())
    rows = rows_of(torch.from_numpy(X), torch.from_numpy(X[:, 1]))
    last = last_layer(model, rows)
    assert last.errors().shape == (60, 1)
    torch.testing.assert_close(last.gradients.gradients(), formed(model, rows, list(module[2].parameters())))


def test_rows_stream_in_batches(monkeypatch):
    model, rows = model_of(NETS["plain"]()), rows_of(torch.from_numpy(X), torch.from_numpy(Y), torch.rand(60).double())
    whole = last_layer(model, rows)
    monkeypatch.setattr("sktda.engine.per_row.BATCH_BYTES", 4_000)
    parts = last_layer(model, rows)
    torch.testing.assert_close(parts.features, whole.features)
    torch.testing.assert_close(parts.errors(), whole.errors())


class ChangedInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x).relu_()


class TwoHeads(nn.Module):
    """Other layers for other rows."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)])

    def forward(self, x):
        self.calls = getattr(self, "calls", -1) + 1
        return self.heads[self.calls % 2](x)


@pytest.mark.parametrize(
    "module",
    [nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), ChangedInPlace(), nn.Sequential(nn.Linear(4, 3), nn.ReLU())],
    ids=["softmax", "in place", "relu"],
)
def test_features_are_there_where_the_layer_does_not_give_the_outputs_and_gradients_are_not(module):
    torch.manual_seed(0)
    last = last_layer(model_of(module), rows_of(torch.from_numpy(X), torch.from_numpy(Y)))
    np.testing.assert_array_equal(last.features, X)
    with pytest.raises(TypeError, match=r"the outputs of this .* are not those of its last nn\.Linear"):
        last.gradients  # noqa: B018


def test_different_layers_at_different_rows_are_not_one(monkeypatch):
    monkeypatch.setattr("sktda.engine.per_row.BATCH_BYTES", 1_000)
    monkeypatch.setattr("sktda.engine.per_row.ACCELERATED", 1)
    last = last_layer(model_of(TwoHeads()), rows_of(torch.from_numpy(X), torch.from_numpy(Y)))
    assert not last.gives_outputs


def test_a_model_without_a_linear_layer_is_refused():
    module = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 3, 4), nn.Flatten())
    with pytest.raises(TypeError, match=r"Sequential has no nn\.Linear, .*estimator=None"):
        last_layer(model_of(module), rows_of(torch.from_numpy(X), torch.from_numpy(Y)))


def test_a_layer_on_tokens_is_refused():
    module = nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 3), nn.Flatten())
    with pytest.raises(TypeError, match=r"inputs of the shape \(60, 2, 2\) for 60 rows, and one vector per row"):
        last_layer(model_of(module), rows_of(torch.from_numpy(X), torch.from_numpy(Y)))


def test_a_diverged_model_is_refused():
    net = NeuralNet(nn.Linear(4, 3), criterion=nn.CrossEntropyLoss, train_split=None, verbose=0).initialize()
    with torch.no_grad():
        net.module_.weight.fill_(torch.nan)
    model = differentiable(net)
    with pytest.raises(ValueError, match="features or outputs of Linear are NaN or infinite: its training diverged"):
        last_layer(model, model.rows(X.astype(np.float32), Y))
