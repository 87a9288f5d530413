"""On a device without float64, as MPS is, every method works: what must be exact is computed on the processor."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from sktda import InfluencePruner
from sktda.attribution import Influence, Source
from sktda.cleaning.coreset import STRATEGIES, CoresetSelector, named_strategy
from sktda.devices import has_float64
from tests.device.test_attributors import CLOSE, FROZEN, PAIRS, SCORES, VALIDATION, X, Y, trained


@pytest.fixture
def reduced(counting):
    """The name of a device that has no float64."""
    with counting.without_float64():
        has_float64.cache_clear()
        yield counting.NAME
    has_float64.cache_clear()


def both(estimator, device, **given):
    return [clone(estimator).set_params(device=name).fit(X, Y, **given) for name in ("cpu", device)]


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name, reduced):
    plain, there = both(PAIRS[name], reduced, **VALIDATION)
    np.testing.assert_allclose(there.scores_, plain.scores_, **CLOSE)
    np.testing.assert_allclose(there.attribute(X[:4], Y[:4]), plain.attribute(X[:4], Y[:4]), **CLOSE)


@pytest.mark.parametrize("name", ["Influence", "Influence, exact", "DiffIn", "Source", "Source, blockwise", "TRAK"])
def test_own_losses(name, reduced):
    plain, there = both(PAIRS[name], reduced)
    np.testing.assert_allclose(there.scores_, plain.scores_, **CLOSE)


@pytest.mark.parametrize("name", SCORES)
def test_scores(name, reduced):
    plain, there = both(SCORES[name], reduced, **(VALIDATION if SCORES[name].needs.validation else {}))
    np.testing.assert_allclose(there.scores_, plain.scores_, **CLOSE)


@pytest.mark.parametrize("strategy", [type(s) for s in map(named_strategy, STRATEGIES) if hasattr(s, "device")])
def test_coresets(strategy, reduced):
    chosen = [
        CoresetSelector(n_samples=12, strategy=strategy(FROZEN, device=place), random_state=0).fit(X, Y)
        for place in ("cpu", reduced)
    ]
    np.testing.assert_array_equal(chosen[1].sample_indices_, chosen[0].sample_indices_)


def test_a_model_in_float64_stays_on_the_processor(reduced):
    pruners = [
        InfluencePruner(LogisticRegression(), Influence(damping=0.1, device=place), validation=3).fit(X, Y)
        for place in ("cpu", reduced)
    ]
    np.testing.assert_array_equal(pruners[1].scores_, pruners[0].scores_)


def test_a_recorded_training_and_its_source(reduced):
    scores = [
        Source(trained(torch.optim.Adam, place), device=place, random_state=0).fit(X, Y).scores_
        for place in ("cpu", reduced)
    ]
    np.testing.assert_allclose(scores[1], scores[0], **CLOSE)
