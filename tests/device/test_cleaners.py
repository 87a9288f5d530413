"""Every cleaner decides on the device what it decides on the processor, and so does all else that takes one."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from sktda import (
    CoresetSelector,
    Holdout,
    InfluencePruner,
    InfluencePrunerCV,
    InfluenceReweighter,
    NoisyLabelDetector,
    ResampledEstimator,
    retrain,
)
from sktda.attribution import (
    ComplexityGap,
    Influence,
    KernelForest,
    LabelPosterior,
    TracIn,
    adversarial_accuracy,
    adversarial_examples,
    unlearn,
)
from sktda.cleaning.coreset import STRATEGIES, named_strategy
from sktda.objectives import AdversarialLoss, DemographicParity, Margin
from tests.device.test_attributors import CLOSE, NET, X, Y, trained

MODEL = LogisticRegression()
INFLUENCE = Influence(MODEL, damping=0.1)
CLEANERS = {
    "detector": NoisyLabelDetector(LabelPosterior(KernelForest(n_estimators=5))),
    "detector, gap": NoisyLabelDetector(ComplexityGap(), contamination=0.1),
    "pruner": InfluencePruner(MODEL, INFLUENCE, validation=Holdout(X[:9], Y[:9])),
    "pruner, folds": InfluencePruner(MODEL, INFLUENCE, validation=3),
    "pruner, net": InfluencePruner(MODEL, TracIn(FrozenEstimator(NET))),
    "pruner, search": InfluencePrunerCV(MODEL, INFLUENCE, prune_ratios=(0, 0.1), cv=2),
    "reweighter": InfluenceReweighter(MODEL, INFLUENCE),
    "resampled": ResampledEstimator(MODEL, NoisyLabelDetector(ComplexityGap(), contamination=0.1)),
}


def on_both(estimator, device):
    """The estimator, with all its parts on the processor, and all on the device, fitted."""
    names = [name for name in estimator.get_params() if name.endswith("device")]
    assert names
    estimators = [clone(estimator).set_params(**dict.fromkeys(names, place)) for place in ("cpu", device)]
    return [each.fit(X, Y) for each in estimators]


@pytest.mark.parametrize("name", CLEANERS)
def test_cleaners(name, device):
    plain, there = on_both(CLEANERS[name], device)
    for learned in ("support_", "labels_", "sample_weight_", "best_prune_ratio_"):
        np.testing.assert_array_equal(getattr(there, learned, None), getattr(plain, learned, None))
    if hasattr(plain, "scores_"):
        np.testing.assert_allclose(there.scores_, plain.scores_, **CLOSE)


@pytest.mark.parametrize("strategy", [type(s) for s in map(named_strategy, STRATEGIES) if hasattr(s, "device")])
@pytest.mark.parametrize("estimator", [None, FrozenEstimator(NET)], ids=["rows", "net"])
def test_coresets(strategy, estimator, device, short_training):
    chosen = [
        CoresetSelector(n_samples=12, strategy=strategy(estimator, device=place), random_state=0).fit(X, Y)
        for place in ("cpu", device)
    ]
    np.testing.assert_array_equal(chosen[1].sample_indices_, chosen[0].sample_indices_)


@pytest.mark.parametrize("objective", [Margin(), AdversarialLoss(eps=0.1), DemographicParity()], ids=str)
def test_objectives(objective, device):
    y = (Y > 0).astype(int)
    asked = (
        {"metadata_val": {"sensitive_features": np.arange(9) % 2}} if isinstance(objective, DemographicParity) else {}
    )
    scores = [
        Influence(MODEL, damping=0.1, objective=objective, device=place)
        .fit(X, y, X_val=X[:9], y_val=y[:9], **asked)
        .scores_
        for place in ("cpu", device)
    ]
    np.testing.assert_allclose(scores[1], scores[0], **CLOSE)


def test_attacks(device):
    for attack in (adversarial_examples, adversarial_accuracy):
        plain, there = (attack(NET, X, Y, AdversarialLoss(eps=0.1), device=place) for place in ("cpu", device))
        np.testing.assert_allclose(there, plain, **CLOSE)


def test_unlearning(device):
    found = [unlearn(NET, [3, 4], X, Y, attributor=Influence(device=place)) for place in ("cpu", device)]
    for one, other in zip(*(each.estimator.module_.state_dict().values() for each in found), strict=True):
        np.testing.assert_allclose(other.cpu(), one, **CLOSE)


@pytest.mark.parametrize("batched", [True, False])
def test_trainings_side_by_side(batched, device):
    nets = [
        retrain(trained(device=place).set_params(callbacks=[]), X, Y, seeds=[0, 1], batched=batched)
        for place in ("cpu", device)
    ]
    for plain, there in zip(*nets, strict=True):
        assert all(value.device.type == torch.device(device).type for value in there.module_.parameters())
        np.testing.assert_allclose(there.predict_proba(X), plain.predict_proba(X), rtol=1e-3, atol=1e-5)
