"""Every public attributor finds on the device what it finds on the processor."""

import io
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import Dataset

from sktda import attribution as methods
from sktda.attribution import (
    AUM,
    EL2N,
    TRAK,
    ComplexityGap,
    ConfidentLearning,
    DataOOB,
    DiffIn,
    Distributional,
    Ensemble,
    Forgetting,
    GraNd,
    Influence,
    InnerProduct,
    KernelForest,
    KNNShapley,
    LabelPosterior,
    LogitMargin,
    LoGra,
    Loss,
    ModelEnsemble,
    MoSo,
    NormalizedMargin,
    OutlierGradient,
    RobustResidual,
    SelfConfidence,
    SGDInfluence,
    Source,
    Stage,
    TracIn,
    training_dynamics,
    trajectory_scores,
)
from sktda.attribution.base import Attributor
from sktda.devices import resolve_device
from sktda.model.fingerprint import row_fingerprints
from sktda.model.recorder import TrajectoryRecorder
from sktda.workers.pickles import packed, unpacked

N, WIDTH, CLASSES = 36, 5, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, WIDTH)).astype(np.float32)
Y = (X @ RNG.normal(size=(WIDTH, CLASSES)) + 0.5 * RNG.normal(size=(N, CLASSES))).argmax(axis=1)
TARGET = X[:, 0] * X[:, 1] + 0.1 * RNG.normal(size=N)
VALIDATION = {"X_val": X[:7], "y_val": Y[:7]}
CLOSE = {"rtol": 2e-4, "atol": 2e-6}  # float32, whose sums are in another order on a card


class Items(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def trained(optimizer=torch.optim.SGD, device="cpu", epochs=2, **options):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(WIDTH, 6), nn.Tanh(), nn.Linear(6, CLASSES))
    net = NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=optimizer,
        lr=0.1 if optimizer is torch.optim.SGD else 0.01,
        max_epochs=epochs,
        batch_size=12,
        train_split=None,
        verbose=0,
        device=device,
        callbacks=[TrajectoryRecorder(n_checkpoints=3, optimizer_state=True, steps=True)],
        **options,
    )
    return net


NET = trained().fit(X, Y)
ADAM = trained(torch.optim.Adam).fit(X, Y)
FROZEN = FrozenEstimator(NET)
PAIRS = {
    "Influence": Influence(FROZEN),
    "Influence, exact": Influence(FROZEN, curvature="exact", damping=0.1),
    "Influence, cg": Influence(FROZEN, curvature="cg", damping=0.1),
    "Influence, cg of a run": Influence(FROZEN, curvature="cg"),
    "TracIn": TracIn(FROZEN),
    "InnerProduct": InnerProduct(FROZEN),
    "DiffIn": DiffIn(FROZEN),
    "Source": Source(FROZEN, n_segments=2),
    "Source, exact": Source(FROZEN, n_segments=2, curvature="exact"),
    "Source, blockwise": Source(FROZEN, n_segments=2, curvature="blockwise", fast=True),
    "Source, Adam": Source(FrozenEstimator(ADAM), n_segments=2),
    "Source, stages": Source(FROZEN, n_segments=1, stages=[Stage(NET)]),
    "TRAK": TRAK(FROZEN, proj_dim=16),
    "LoGra": LoGra(FROZEN, rank=4),
}
SCORES = {
    "SGDInfluence": SGDInfluence(FROZEN),
    "MoSo": MoSo(FROZEN),
    "GraNd": GraNd(FROZEN),
    "EL2N": EL2N(FROZEN),
    "Loss": Loss(FROZEN),
    "LogitMargin": LogitMargin(FROZEN),
    "Forgetting": Forgetting(FROZEN),
    "AUM": AUM(FROZEN),
    "OutlierGradient": OutlierGradient(FROZEN, random_state=0),
    "ComplexityGap": ComplexityGap(),
    "ComplexityGap, landmarks": ComplexityGap(n_landmarks=12, random_state=0),
    "KNNShapley": KNNShapley(n_neighbors=3),
    "KernelForest": KernelForest(n_estimators=5, random_state=0),
}
WITHOUT = {  # methods that compute with NumPy, or by other attributors that have a device each
    *(ConfidentLearning, DataOOB, LabelPosterior, NormalizedMargin, SelfConfidence, Ensemble, RobustResidual),
    *(Distributional, ModelEnsemble, methods.PrecomputedProbabilities, methods.PrecomputedScores),
    *(methods.BoostIn, methods.LeafInfluence, methods.TreeKernel),
}


def both(attributor, device, **fitted):
    """The attributor fitted on the processor, and on the device."""
    y = fitted.pop("y", Y)
    return [clone(attributor).set_params(device=name).fit(X, y, **fitted) for name in ("cpu", device)]


class Bound(pickle.Pickler):
    """What an object holds of a device, which whoever opens its pickle may not have."""

    def __init__(self, value):
        super().__init__(io.BytesIO())
        self.found = []
        self.dump(value)

    def reducer_override(self, value):
        place = value.device if isinstance(value, torch.Tensor | torch.Generator) else value
        if isinstance(place, torch.device) and place.type != "cpu":
            self.found.append(value)
        return NotImplemented


def test_every_attributor_with_a_device_is_here():
    every = {getattr(methods, name) for name in methods.__all__}
    public = {one for one in every if isinstance(one, type) and issubclass(one, Attributor)}
    tried = {type(one) for one in (*PAIRS.values(), *SCORES.values())}
    assert public - tried == WITHOUT
    assert {one for one in WITHOUT if "device" in one().get_params(deep=False)} == {RobustResidual}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name, device):
    plain, there = both(PAIRS[name], device, **VALIDATION)
    np.testing.assert_allclose(there.scores_, plain.scores_, **CLOSE)
    expected = plain.attribute(X[:4], Y[:4])
    np.testing.assert_allclose(there.attribute(X[:4], Y[:4]), expected, **CLOSE)
    assert not Bound(there).found
    if name == "Influence":  # all go over the same blocks
        np.testing.assert_allclose(there.top_k(X[:4], Y[:4], k=3)[1], np.sort(expected)[:, :-4:-1], **CLOSE)


@pytest.mark.parametrize("name", ["Influence", "Influence, exact"])  # which alone hold numbers of a device
def test_a_pickle_is_opened_on_any_device(name, device):
    for fitted in both(PAIRS[name], device):
        expected, sent = fitted.attribute(X[:4], Y[:4]), pickle.dumps(fitted)
        for place in ("cpu", device):
            opened = pickle.loads(sent).set_params(device=place)
            np.testing.assert_allclose(opened.attribute(X[:4], Y[:4]), expected, **CLOSE)


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "Influence, cg"])  # one solution per row
def test_own_losses(name, device):
    plain, there = both(PAIRS[name], device)
    np.testing.assert_allclose(there.scores_, plain.scores_, **CLOSE)


@pytest.mark.parametrize("name", SCORES)
def test_scores(name, device):
    validation = VALIDATION if SCORES[name].needs.validation else {}
    plain, there = both(SCORES[name], device, **validation)
    np.testing.assert_allclose(there.scores_, plain.scores_, **CLOSE)
    assert not Bound(there).found


@pytest.mark.parametrize("attributor", [ComplexityGap(), RobustResidual(n_estimators=50)])
def test_numbers_as_target(attributor, device):
    plain, there = both(attributor.set_params(random_state=0), device, y=TARGET)
    np.testing.assert_allclose(there.scores_, plain.scores_, **CLOSE)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_net_that_is_trained_on_the_device(optimizer, device):
    scores = [
        Source(trained(optimizer, name), device=name, random_state=0).fit(X, Y).scores_ for name in ("cpu", device)
    ]
    np.testing.assert_allclose(scores[1], scores[0], **CLOSE)


@pytest.mark.parametrize(
    "attributor",
    [
        ModelEnsemble(Influence(FROZEN), n_members=2, random_state=0),
        ModelEnsemble(TracIn(FROZEN), members="checkpoints"),
        Ensemble([("gap", ComplexityGap()), ("tracin", TracIn(FROZEN))], random_state=0),
    ],
)
def test_several(attributor, device):
    inner = [name for name in attributor.get_params() if name.endswith("device")]
    assert inner
    scores = [clone(attributor).set_params(**dict.fromkeys(inner, name)).fit(X, Y).scores_ for name in ("cpu", device)]
    np.testing.assert_allclose(scores[1], scores[0], **CLOSE)


@pytest.mark.parametrize(
    "find", [partial(training_dynamics, FROZEN, X, Y), partial(trajectory_scores, FROZEN, X, Y, X[:7], Y[:7])]
)
def test_one_pass_for_several_methods(find, device):
    plain, there = (find(device=name) for name in ("cpu", device))
    assert list(plain) == list(there)
    for name in plain:
        np.testing.assert_allclose(there[name], plain[name], **CLOSE)


def test_what_a_task_holds_arrives_on_the_device_of_its_worker(device):
    layer, values = torch.nn.Linear(2, 2).to(device), torch.arange(3.0, device=device)
    opened, numbers, place = unpacked(*packed(lambda: (layer, values, values.device)))()
    here = resolve_device("auto")
    assert {opened.weight.device.type, numbers.device.type, place.type} == {here.type}
    assert isinstance(opened.weight, torch.nn.Parameter)
    assert opened.weight.requires_grad
    assert torch.equal(numbers.cpu(), values.cpu())


def test_rows_of_a_dataset_have_the_same_fingerprints(device):
    """Of one length or of several."""
    for lengths in ([3, 3, 3], [3, 5, 2]):
        rows = [(torch.arange(k), torch.arange(k).float()) for k in lengths]
        there = [tuple(each.to(device) for each in row) for row in rows]
        found = [row_fingerprints(Items(each)) for each in (rows, there)]
        np.testing.assert_array_equal(*found)


class OfClasses(nn.Module):
    """A criterion that a user wrote, around weights of its own."""

    reduction = "mean"

    def __init__(self):
        super().__init__()
        self.inner = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 0.5]), reduction="none")

    def forward(self, outputs, targets):
        found = self.inner(outputs, targets)
        return found if self.reduction == "none" else found.mean()


@pytest.mark.parametrize("method", [Influence(damping=0.1), TracIn()], ids=str)
def test_a_criterion_with_weights_of_its_own(method, device):
    net = trained().set_params(criterion=OfClasses).fit(X, Y)
    given = clone(method).set_params(estimator=FrozenEstimator(net))
    plain, there = (clone(given).set_params(device=place).fit(X, Y) for place in ("cpu", device))
    np.testing.assert_allclose(there.scores_, plain.scores_, **CLOSE)
    assert net.criterion_.inner.weight.device.type == "cpu"  # the user's own


PRICES = torch.tensor([1.0, 2.0, 0.5])


class Price:
    """The mean price of the rows, as a row's own or as that of all of them."""

    def __init__(self, sends, mean_of_rows):
        self.sends, self.mean_of_rows = sends, mean_of_rows

    def per_row(self, predict, X, y):
        outputs = predict(X)
        return outputs.softmax(dim=1) @ (PRICES.to(outputs) if self.sends else PRICES)

    def __call__(self, predict, X, y):
        return self.per_row(predict, X, y).mean()


@pytest.mark.parametrize("mean_of_rows", [True, False])
def test_an_objective_sends_the_tensors_that_it_holds(mean_of_rows, device):
    kept, sent = (InnerProduct(FROZEN, objective=Price(sends, mean_of_rows), device=device) for sends in (False, True))
    with pytest.raises(ValueError, match=f"tensors of its own that are not on {device}"):
        kept.fit(X, Y, **VALIDATION)
    plain, there = both(sent, device, **VALIDATION)
    np.testing.assert_allclose(there.scores_, plain.scores_, **CLOSE)
