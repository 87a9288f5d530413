"""Attributions against the libraries of those who published them, where they are installed."""

from copy import copy, deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sktda.attribution import Influence, TracIn
from sktda.engine.ekfac import EKFAC
from sktda.engine.per_row import PerRow
from sktda.model.adapters import differentiable
from tests.model.nets import record, rows

X, Y = rows(24)
QUERIES = slice(0, 5)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients:UserWarning")
def test_tracin_is_that_of_captum(tmp_path):
    """Its TracInCP sums learning rate x gradient dot product over checkpoints; ours divides by n."""
    influence = pytest.importorskip("captum.influence")
    net, trajectory = record(X, Y, n_checkpoints=3)
    files = [str(tmp_path / f"{c}.pt") for c in range(len(trajectory))]
    for c, file in enumerate(files):
        torch.save(trajectory.state(c), file)

    def load(model, file):
        model.load_state_dict(torch.load(file))
        return float(trajectory.effective_rate_sums[int(Path(file).stem)])

    train = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    loss = nn.CrossEntropyLoss(reduction="sum")
    peer = influence.TracInCP(
        net.module_, train, files, load, loss_fn=loss, batch_size=len(X), sample_wise_grads_per_batch=True
    )
    theirs = peer.influence((torch.from_numpy(X[QUERIES]), torch.from_numpy(Y[QUERIES]))).detach().numpy()
    own = peer.self_influence().detach().numpy()
    load(net.module_, files[-1])
    found = TracIn(FrozenEstimator(net), objective=None).fit(X, Y).attribute(X[QUERIES], Y[QUERIES])
    np.testing.assert_allclose(len(X) * found, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(-len(X) * TracIn(FrozenEstimator(net)).fit(X, Y).scores_, own, rtol=1e-4, atol=1e-6)


class Convolution(nn.Module):
    """A convolution and two linear layers, which both libraries know."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 3, 3, bias=True), nn.Linear(12, 5), nn.Linear(5, 3)

    def forward(self, x):
        """Logits of images (n, 1, 4, 4)."""
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)).flatten(1))))


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3))


def classifier(module, images, labels, epochs=3):
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=epochs, lr=0.1, train_split=None, verbose=0
    )
    return net.fit(images, labels)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("module", [perceptron, Convolution], ids=["linear", "convolution"])
def test_ekfac_is_that_of_kronfluence(module, tmp_path):
    """Eigenvalues, scores of pairs and of rows, with one draw of labels given to both; its scores are without 1/n."""
    analyzer = pytest.importorskip("kronfluence.analyzer")
    arguments, tasks = pytest.importorskip("kronfluence.arguments"), pytest.importorskip("kronfluence.task")
    images = np.random.default_rng(0).normal(size=(40, 1, 4, 4)).astype(np.float32)
    labels = (images.sum((1, 2, 3)) > 0).astype(np.int64) + (images[:, 0, 0, 0] > 1)
    net = classifier(module(), images, labels)
    model = differentiable(net)
    likelihood, rows, n = model.likelihood, model.rows(images, labels), len(images)
    curvature = EKFAC(PerRow(model), rows, 0)

    class Classification(tasks.Task):
        def compute_train_loss(self, batch, model, sample=False):
            inputs, targets, noise = batch
            outputs = model(inputs)
            drawn = likelihood.draw(outputs.detach(), noise) if sample else targets
            return nn.functional.cross_entropy(outputs, drawn, reduction="sum")

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

    noise = likelihood.noise(torch.Size((n,)), torch.Generator().manual_seed(0))
    train = TensorDataset(torch.from_numpy(images), torch.from_numpy(labels), noise)
    task = Classification()
    peer = analyzer.Analyzer(
        "peer", analyzer.prepare_model(deepcopy(net.module_).eval(), task), task, cpu=True, disable_tqdm=True,
        output_dir=str(tmp_path),
    )  # fmt: skip
    peer.fit_all_factors("ekfac", train, n, factor_args=arguments.FactorArguments("ekfac"))
    scoring = arguments.ScoreArguments(damping_factor=None)  # 0.1 times the mean eigenvalue of a layer
    peer.compute_pairwise_scores("pairs", "ekfac", train, train, n, n, score_args=scoring)
    theirs = peer.load_pairwise_scores("pairs")["all_modules"].double().numpy()
    found = peer.load_lambda_matrices("ekfac")
    for name, values in curvature.values.items():
        expected = found["lambda_matrix"][name] / found["num_lambda_processed"][name]
        torch.testing.assert_close(values.to(expected).sort().values, expected.sort().values, rtol=1e-3, atol=1e-6)
    ours = Influence(FrozenEstimator(net), curvature="ekfac", objective=None, random_state=0).fit(images, labels)
    ours._used = copy(ours.curvature_)  # with its damping in place of the default
    ours._used.values = {name: values + 0.1 * values.mean() for name, values in ours.curvature_.values.items()}
    pairs = n * ours.attribute(images, labels)
    assert np.corrcoef(pairs.ravel(), theirs.ravel())[0, 1] > 0.97


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_influence_is_that_of_pydvl():
    """Inverse Hessian of a linear classifier, where it is the Gauss-Newton matrix; its values are without 1/n."""
    peers = pytest.importorskip("pydvl.influence.torch")
    from pydvl.influence import InfluenceMode

    net = classifier(nn.Linear(X.shape[1], 3), X, Y, epochs=20)
    train = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    module = deepcopy(net.module_).eval()
    peer = peers.DirectInfluence(module, nn.functional.cross_entropy, 0.1).fit(DataLoader(train, batch_size=len(X)))
    asked = [each[QUERIES] for each in train.tensors]
    theirs = peer.influences(*asked, *train.tensors, mode=InfluenceMode.Up).detach().numpy()
    ours = Influence(FrozenEstimator(net), curvature="exact", damping=0.1, objective=None).fit(X, Y)
    np.testing.assert_allclose(len(X) * ours.attribute(X[QUERIES], Y[QUERIES]), theirs, rtol=1e-3, atol=1e-5)
