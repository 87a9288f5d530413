"""How often a method waits for the device, and sends to it, does not depend on the number of rows but by the batch."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import nn

from sktda import CoresetSelector
from sktda.attribution import ComplexityGap, Influence, KNNShapley, Loss, SGDInfluence, Stage
from sktda.cleaning.coreset import STRATEGIES, named_strategy
from sktda.engine import replay
from sktda.model import base
from sktda.model.base import DifferentiableModel
from sktda.model.softmax import Categorical
from tests.device.test_attributors import CLASSES, PAIRS, SCORES, WIDTH, trained

D = "simulated"
N = 48  # and twice as many
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2 * N, WIDTH)).astype(np.float32)
Y = (X @ RNG.normal(size=(WIDTH, CLASSES))).argmax(axis=1)
COUNTED = ("syncs", "uploads", "downloads")
RIDGES = ("KernelForest",)  # looks at several ridges, and how many depends on the rows
OWN_BATCHES = ("Influence, cg", "SGDInfluence", "ComplexityGap", "ComplexityGap, landmarks", "KNNShapley")


def nets(optimizer):
    """The same number of steps over n and over 2n rows."""
    return {n: FrozenEstimator(trained(optimizer).set_params(batch_size=n // 2).fit(X[:n], Y[:n])) for n in (N, 2 * N)}


NETS, ADAMS = nets(torch.optim.SGD), nets(torch.optim.Adam)


def counts(counting, run):
    with counting.watched() as seen:
        run()
    return {kind: seen.counts[kind] for kind in COUNTED}, seen


def around(attributor, n, **settings):
    copy = clone(attributor).set_params(device=D, **settings)
    given = copy.get_params(deep=False)
    if given.get("stages"):
        copy.set_params(stages=[Stage(NETS[n].estimator)])
    if given.get("curvature") == "cg" and given["damping"] != "auto":
        copy.set_params(damping=1.0)  # in few rounds
    if "estimator" not in given:
        return copy
    return copy.set_params(estimator=(ADAMS if given["estimator"].optimizer is torch.optim.Adam else NETS)[n])


@pytest.mark.parametrize("name", [name for name in (*PAIRS, *SCORES) if name not in RIDGES])
def test_twice_the_rows_of_a_batch_cost_no_more(name, counting):
    attributor = {**PAIRS, **SCORES}[name]
    if isinstance(attributor, ComplexityGap):
        attributor = clone(attributor).set_params(ridge=0.3)  # how many ridges are looked at depends on the rows
    validation = {"X_val": X[:9], "y_val": Y[:9]} if attributor.needs.validation else {}
    fitted = {n: around(attributor, n) for n in (N, 2 * N)}
    found = [counts(counting, lambda n=n: fitted[n].fit(X[:n], Y[:n], **validation))[0] for n in fitted]
    assert found[0] == found[1]
    if name in PAIRS:
        found = [counts(counting, lambda n=n: fitted[n].attribute(X[:9], Y[:9]))[0] for n in fitted]
        assert found[0] == found[1]


def test_conjugate_gradients_wait_for_systems_and_not_for_rounds(counting):
    """One system for each row, solved side by side, and looked at after every eighth round."""
    cg = around(Influence(NETS[N], curvature="cg", damping=0.1), N)
    waits = counts(counting, lambda: cg.fit(X[:N], Y[:N]))[0]["syncs"]
    plain = counts(counting, lambda: around(Loss(NETS[N]), N).fit(X[:N], Y[:N]))[0]["syncs"]
    assert waits - plain < N / 4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_are_chosen_without_waiting(strategy, counting):
    kind = type(named_strategy(strategy))
    given = hasattr(kind(), "device")
    selectors = {
        n: CoresetSelector(
            Loss(NETS[n], device=D),
            n_samples=n // 2,
            strategy=kind(NETS[n], device=D) if given else strategy,
            random_state=0,
        )
        for n in (N, 2 * N)
    }
    found = [counts(counting, lambda n=n: selectors[n].fit(X[:n], Y[:n]))[0] for n in (N, 2 * N)]
    assert found[0] == found[1]


@pytest.mark.parametrize("name", [name for name in (*PAIRS, *SCORES) if name not in (*RIDGES, *OWN_BATCHES)])
def test_a_further_batch_sends_its_rows_and_waits_for_nothing(name, counting):
    attributor = {**PAIRS, **SCORES}[name]
    validation = {"X_val": X[:9], "y_val": Y[:9]} if attributor.needs.validation else {}
    (few, seen), (many, more) = (
        counts(counting, lambda size=size: around(attributor, N, batch_size=size).fit(X[:N], Y[:N], **validation))
        for size in (N // 2, N // 6)
    )
    assert (many["syncs"], many["downloads"]) == (few["syncs"], few["downloads"])
    sent = {line for line, n in more.lines("uploads").items() if n > seen.lines("uploads").get(line, 0)}
    # inputs and targets
    assert {line.split(":")[0] for line in sent} == {"model/base.py"}


def test_a_step_of_a_recorded_training_waits_three_times(counting):
    """For the loss, which skorch and the record read, and once for what was done to the gradients."""
    found = []
    for epochs in (2, 4):
        net = trained(device=D, epochs=epochs).set_params(batch_size=24)
        found.append(counts(counting, lambda net=net: net.fit(X[:N], Y[:N]))[0])
    steps = 2 * (4 - 2)
    assert found[1]["syncs"] - found[0]["syncs"] <= 3 * steps


@pytest.mark.parametrize("held", [True, False])
def test_a_step_taken_back_waits_for_nothing_and_sends_no_row_that_is_held(held, counting, monkeypatch):
    """Rows that there is no room for are sent twice: for a gradient, and for the product with its Hessian."""
    if not held:
        monkeypatch.setattr(replay, "ROW_BYTES", N * X[0].nbytes)
    found = []
    for epochs in (4, 8):
        net = FrozenEstimator(
            trained(epochs=epochs).set_params(batch_size=24, optimizer__momentum=0.5).fit(X[:N], Y[:N])
        )
        back = SGDInfluence(net, device=D)
        found.append(counts(counting, lambda back=back: back.fit(X[:N], Y[:N], X_val=X[:9], y_val=Y[:9]))[0])
    steps = 2 * (8 - 4)
    assert found[1]["syncs"] == found[0]["syncs"]
    assert found[1]["uploads"] - found[0]["uploads"] == (0 if held else 4 * steps)  # inputs and targets


def test_a_checkpoint_is_sent_as_one_tensor_of_each_type(counting):
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2), nn.Linear(2, 600))
    state = {name: value + 1 for name, value in net.state_dict().items()}
    model = DifferentiableModel(net, Categorical(), rows=None).to(torch.device(D))
    sent, seen = counts(counting, lambda: model.load(state))
    assert (sent, seen.counts["uploaded"]) == (
        {"syncs": 0, "uploads": 2, "downloads": 0},  # the number of batches is a whole one
        sum(value.nbytes for value in state.values()),
    )
    for name, value in model.module.state_dict().items():
        assert torch.equal(value.cpu(), state[name])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "SMALL", 4 * 600)  # the last weight and bias are as large, and go by themselves
        assert counts(counting, lambda: model.load(state))[0]["uploads"] == 4


def test_distances_are_ranked_where_they_are(counting):
    found = [counts(counting, lambda n=n: KNNShapley(device=D).fit(X[:n], Y[:n]))[0] for n in (N, 2 * N)]
    assert found[0] == found[1]
