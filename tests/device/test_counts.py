"""How often a method waits for the device, and sends to it, does not depend on the number of rows but by the batch."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from sktda import CoresetSelector
from sktda.attribution import ComplexityGap, KNNShapley
from sktda.cleaning.strategies.features import D2, Herding, KCenter, Moderate
from sktda.cleaning.strategies.gradients import CRAIG, GradMatch
from tests.device.test_attributors import CLASSES, PAIRS, SCORES, WIDTH, trained

D = "simulated"
N = 48  # and twice as many
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2 * N, WIDTH)).astype(np.float32)
Y = (X @ RNG.normal(size=(WIDTH, CLASSES))).argmax(axis=1)
COUNTED = ("syncs", "uploads", "downloads")
OWN_MODEL = ("Influence, cg", "Source, Adam", "Source, stages", "KernelForest")  # around others, or too slow here
OWN_BATCHES = ("SGDInfluence", "ComplexityGap", "ComplexityGap, landmarks", "KNNShapley")


def nets():
    """The same number of steps over n and over 2n rows."""
    return {n: FrozenEstimator(trained().set_params(batch_size=n // 2).fit(X[:n], Y[:n])) for n in (N, 2 * N)}


NETS = nets()


def counts(counting, run):
    with counting.watched() as seen:
        run()
    return {kind: seen.counts[kind] for kind in COUNTED}, seen


def around(attributor, n, **settings):
    copy = clone(attributor).set_params(device=D, **settings)
    return copy.set_params(estimator=NETS[n]) if "estimator" in copy.get_params(deep=False) else copy


@pytest.mark.parametrize("name", [name for name in (*PAIRS, *SCORES) if name not in OWN_MODEL])
def test_twice_the_rows_of_a_batch_cost_no_more(name, counting):
    attributor = {**PAIRS, **SCORES}[name]
    if isinstance(attributor, ComplexityGap):
        attributor = clone(attributor).set_params(ridge=0.3)  # how many ridges are looked at depends on the rows
    validation = {"X_val": X[:9], "y_val": Y[:9]} if attributor.needs.validation else {}
    found = [counts(counting, lambda n=n: around(attributor, n).fit(X[:n], Y[:n], **validation))[0] for n in (N, 2 * N)]
    assert found[0] == found[1]
    if name in PAIRS:
        fitted = {n: around(attributor, n, objective=None).fit(X[:n], Y[:n]) for n in (N, 2 * N)}
        found = [counts(counting, lambda n=n: fitted[n].attribute(X[:9], Y[:9]))[0] for n in (N, 2 * N)]
        assert found[0] == found[1]


@pytest.mark.parametrize("strategy", [KCenter, Herding, Moderate, D2, CRAIG, GradMatch])
def test_rows_are_chosen_without_waiting(strategy, counting):
    selectors = {
        n: CoresetSelector(n_samples=n // 2, strategy=strategy(NETS[n], device=D), random_state=0) for n in (N, 2 * N)
    }
    found = [counts(counting, lambda n=n: selectors[n].fit(X[:n], Y[:n]))[0] for n in (N, 2 * N)]
    assert found[0] == found[1]


@pytest.mark.parametrize("name", [name for name in (*PAIRS, *SCORES) if name not in (*OWN_MODEL, *OWN_BATCHES)])
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


def test_distances_are_ranked_where_they_are(counting):
    found = [counts(counting, lambda n=n: KNNShapley(device=D).fit(X[:n], Y[:n]))[0] for n in (N, 2 * N)]
    assert found[0] == found[1]
