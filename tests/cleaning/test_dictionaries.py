"""Cleaners on X as a dictionary of arrays by argument name: word numbers and an attention mask."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from skorch.helper import SliceDict

from sktda import CoresetSelector, Holdout, InfluencePruner, NoisyLabelDetector, ResampledEstimator
from sktda.attribution import InnerProduct
from sktda.objectives import DemographicParity

pytestmark = pytest.mark.usefixtures("few_trees")

N, LENGTH, WORDS = 60, 5, 20
RNG = np.random.default_rng(0)
MASK = (np.arange(LENGTH) < RNG.integers(1, LENGTH + 1, N)[:, None]).astype(np.int64)
IDS = RNG.integers(1, WORDS, (N, LENGTH)) * MASK
X = {"input_ids": IDS, "attention_mask": MASK}
Y = (IDS[:, 0] > WORDS // 2).astype(np.int64)
FLIPPED = np.arange(0, N, 10)
Y_NOISY = Y.copy()
Y_NOISY[FLIPPED] = 1 - Y[FLIPPED]


class First(torch.nn.Module):
    """Mean of the words that are there, and the first word once more."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(WORDS, 4)
        self.head = torch.nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask):
        words, mask = self.words(input_ids), attention_mask[:, :, None].float()
        return self.head(torch.cat([words[:, 0], (words * mask).sum(1) / mask.sum(1)], dim=1))


def net():
    return NeuralNetClassifier(
        First, criterion=torch.nn.CrossEntropyLoss, max_epochs=20, lr=0.5, batch_size=20, train_split=None, verbose=0
    )


@pytest.mark.parametrize(
    ("validation", "guard"), [(None, 0.5), (3, False), (0.25, 0.5), ("holdout", False), ("routed", 0.5)]
)
def test_a_pruner_takes_and_keeps_a_dictionary(validation, guard):
    routed = {"X_val": {k: v[:20] for k, v in X.items()}, "y_val": Y[:20]} if validation == "routed" else {}
    validation = {"holdout": Holdout({k: v[:20] for k, v in X.items()}, Y[:20]), "routed": None}.get(
        validation, validation
    )
    attributor = InnerProduct(objective="validation" if validation or routed else "self", random_state=0)
    pruner = InfluencePruner(net(), attributor, prune_ratio=0.1, guard=guard, validation=validation, random_state=0)
    torch.manual_seed(0)
    pruner.fit(X, Y_NOISY, **routed)
    assert pruner.support_.shape == (N,)
    kept = pruner.support_
    torch.manual_seed(0)
    again = net().fit({name: values[kept] for name, values in X.items()}, Y_NOISY[kept])
    np.testing.assert_allclose(pruner.predict_proba(X), again.predict_proba(X), atol=1e-6)
    assert len(pruner.to_frame()) == N


def test_scores_are_those_of_the_attributor():
    attributor = InnerProduct(net(), random_state=0)
    holdout = Holdout(X, Y)
    pruner = InfluencePruner(net(), attributor, prune_ratio=0.1, guard=False, validation=holdout).fit(X, Y_NOISY)
    np.testing.assert_allclose(pruner.scores_, attributor.fit(X, Y_NOISY, X_val=X, y_val=Y).scores_, rtol=1e-5)


def test_sensitive_features_go_along():
    groups = np.where(IDS[:, 0] % 2, "odd", "even")
    attributor = InnerProduct(objective=DemographicParity(positive=1), random_state=0)
    pruner = InfluencePruner(net(), attributor, prune_ratio=0.1, guard=False, validation=3, random_state=0)
    pruner.fit(X, Y, sensitive_features=groups)
    assert len(pruner.objective_values_["DemographicParity"]) == 1


def test_a_selector_and_a_resampled_estimator():
    selector = CoresetSelector(InnerProduct(net(), objective="self", random_state=0), n_samples=30, random_state=0)
    X_kept, y_kept = selector.fit_resample(X, Y_NOISY)
    rows = selector.sample_indices_
    np.testing.assert_array_equal(X_kept["input_ids"], IDS[rows])
    np.testing.assert_array_equal(X_kept["attention_mask"], MASK[rows])
    np.testing.assert_array_equal(y_kept, Y_NOISY[rows])
    assert ResampledEstimator(net(), selector).fit(X, Y_NOISY).predict(X).shape == (N,)


def test_a_search_over_ratios_slices_the_dictionary_of_skorch():
    pruner = InfluencePruner(net(), InnerProduct(objective="self", random_state=0), guard=False, random_state=0)
    search = GridSearchCV(pruner, {"prune_ratio": [0.0, 0.1]}, cv=2, error_score="raise").fit(SliceDict(**X), Y_NOISY)
    assert search.predict(X).shape == (N,)


def test_arrays_of_unequal_length_are_refused():
    wrong = {"input_ids": IDS, "attention_mask": MASK[:-1]}
    for fit in (
        lambda: InfluencePruner(net(), InnerProduct(), validation=3).fit(wrong, Y),
        lambda: CoresetSelector(InnerProduct(net())).fit(wrong, Y),
        lambda: Holdout(wrong, Y),
    ):
        with pytest.raises(ValueError, match=r"equally many rows.*input_ids.*60.*attention_mask.*59"):
            fit()
    with pytest.raises(ValueError, match=r"60, 59"):
        InfluencePruner(net(), InnerProduct(), validation=3).fit(X, Y[:-1])


def test_scores_of_features_need_a_table():
    for cleaner in (CoresetSelector(), InfluencePruner(net())):
        with pytest.raises(ValueError, match=r"KernelForest.*dictionary \(input_ids, attention_mask\).*Influence"):
            cleaner.fit(X, Y)
    with pytest.raises(ValueError, match=r"NoisyLabelDetector.*dictionary.*InfluencePruner"):
        NoisyLabelDetector(InnerProduct(net(), objective="self")).fit(X, Y)
