"""DiffIn, SGDInfluence and MoSo inside the cleaners: which run they follow, and what is found."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn, optim

from sktda import CoresetSelector, Holdout, InfluencePruner, NoisyLabelDetector, ResampledEstimator
from sktda.attribution import DiffIn, MoSo, SGDInfluence
from sktda.cleaning.base import scoring_estimator
from sktda.model.proxy import DefaultNet
from tests.spies import flip, noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees", "short_training")

X, Y, TRUE = noisy_blobs(150, rate=0.1, centers=2)
X32 = X.astype(np.float32)
WRONG = Y != TRUE
METHODS = [DiffIn(), SGDInfluence(), MoSo()]
by_method = pytest.mark.parametrize("attributor", METHODS, ids=lambda each: type(each).__name__)
with_validation = pytest.mark.parametrize("attributor", METHODS[:2], ids=lambda each: type(each).__name__)


def found(scores, wrong=WRONG):
    """Area under the curve of low scores as a sign of a wrong label; 0.5 = by chance."""
    return roc_auc_score(wrong, -scores)


class Head(nn.Module):
    """Four inputs, two logits."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, X):
        return self.layers(X)


NET = NeuralNetClassifier(
    Head,
    criterion=nn.CrossEntropyLoss,
    optimizer=optim.SGD,
    optimizer__momentum=0.9,
    train_split=None,
    verbose=0,
    max_epochs=10,
    batch_size=30,
    lr=0.1,
)


@pytest.mark.usefixtures("full_training")
@pytest.mark.filterwarnings("ignore:.* a small net that stands in for it")
@pytest.mark.parametrize(
    ("attributor", "name"),
    [
        (DiffIn(), "net"),
        (DiffIn(), "logistic"),
        (SGDInfluence(), "pipeline"),
        (SGDInfluence(), "forest"),
        (MoSo(), "pipeline"),
        (MoSo(), "logistic"),
    ],
    ids=str,
)
def test_a_pruner_around_any_estimator(attributor, name):
    estimator, own = {
        "net": (NET, True),
        "pipeline": (make_pipeline(StandardScaler(), NET), True),
        "forest": (RandomForestClassifier(10, random_state=0), False),
        "logistic": (LogisticRegression(), False),  # not trained by steps
    }[name]
    # of seeds 0 to 4, two draw checkpoints of the default net from which MoSo finds no wrong label
    pruner = InfluencePruner(estimator, attributor, prune_ratio=0.1, stratify=False, random_state=1).fit(X32, Y)
    assert pruner.n_pruned_ == 15
    assert isinstance(pruner.attributor_.estimator_, DefaultNet) is not own
    assert type(pruner.estimator_) is type(estimator)
    assert np.isfinite(pruner.scores_).all()
    if not (own and isinstance(attributor, MoSo)):  # at the end of a run the rows' gradients pull nowhere together
        assert found(pruner.scores_) > 0.85


@pytest.mark.usefixtures("full_training")
@by_method
def test_a_pruner_around_a_regressor(attributor):
    rng = np.random.default_rng(0)
    target = X @ [1.0, -2.0, 0.5, 0.0] + 0.1 * rng.normal(size=150)
    outliers = rng.choice(150, 15, replace=False)
    target[outliers] += 15 * rng.choice([-1, 1], 15)
    pruner = InfluencePruner(Ridge(), attributor, random_state=0).fit(X, target)
    assert pruner.attributor_.task_ == "regression"
    assert found(pruner.scores_, np.isin(np.arange(150), outliers)) > 0.9


def test_the_default_net_is_the_methods_own():
    assert scoring_estimator(DiffIn(), LogisticRegression()).optimizer == "sgd"
    assert scoring_estimator(SGDInfluence(), LogisticRegression()).hidden is False
    assert scoring_estimator(SGDInfluence(), NET).optimizer is optim.SGD


@with_validation
def test_validation_rows_in_every_form(attributor):
    held = Holdout(X32[:30], TRUE[:30])
    pruner = InfluencePruner(NET, attributor, validation=held, random_state=0).fit(X32[30:], Y[30:])
    direct = clone(pruner.attributor_).fit(X32[30:], Y[30:], X_val=X32[:30], y_val=TRUE[:30])
    np.testing.assert_allclose(pruner.scores_, direct.scores_, rtol=1e-6)
    routed = InfluencePruner(NET, attributor, random_state=0)
    routed.fit(X32[30:], Y[30:], X_val=X32[:30], y_val=TRUE[:30])
    np.testing.assert_allclose(routed.scores_, direct.scores_, rtol=1e-6)
    folded = InfluencePruner(NET, attributor, validation=2, random_state=0).fit(X32, Y)
    assert np.isfinite(folded.scores_).all()
    shared = InfluencePruner(NET, attributor, validation=0.2, random_state=0).fit(X32, Y)
    assert np.isnan(shared.scores_).sum() == 30


def test_moso_says_that_it_uses_no_validation_rows():
    with pytest.warns(UserWarning, match="MoSo"):
        InfluencePruner(NET, MoSo(), validation=Holdout(X32[:30], TRUE[:30]), random_state=0).fit(X32, Y)
    assert not hasattr(MoSo(), "attribute")


@by_method
def test_a_frozen_recorded_net_is_not_trained_again(attributor):
    trained = clone(attributor).set_params(estimator=NET, random_state=0).fit(X32, Y).estimator_
    frozen = clone(attributor).set_params(estimator=FrozenEstimator(trained), random_state=0)
    pruner = InfluencePruner(KNeighborsClassifier(), frozen).fit(X32, Y)
    assert pruner.attributor_.estimator_.estimator is trained
    np.testing.assert_array_equal(pruner.scores_, clone(frozen).fit(X32, Y).scores_)


@pytest.mark.usefixtures("full_training")
@by_method
def test_the_detector_and_the_coreset_of_digits(attributor):
    data, true = load_digits(return_X_y=True)
    data, true = data[:300] / 16, true[:300]
    labels = flip(true, 0.1)
    wrong = labels != true
    detector = NoisyLabelDetector(attributor, random_state=0).fit(data, labels)
    assert found(detector.scores_, wrong) > 0.8
    scored = FrozenEstimator(detector.attributor_)
    kept = CoresetSelector(scored, n_samples=0.5, random_state=0).fit(data, labels).sample_indices_
    assert len(kept) == 150
    assert wrong[kept].mean() < wrong.mean()


def test_a_search_over_the_attributor_and_the_size_of_a_coreset():
    model = ResampledEstimator(LogisticRegression(), CoresetSelector(MoSo(), random_state=0))
    name = "resampledestimator__sampler"
    grid = [
        {f"{name}__attributor": [MoSo(random_state=0)], f"{name}__n_samples": [0.6]},
        {f"{name}__attributor": [DiffIn(random_state=0)], f"{name}__n_samples": [0.3]},
    ]
    search = GridSearchCV(make_pipeline(StandardScaler(), model), grid, cv=2, error_score="raise").fit(X, Y)
    assert (search.cv_results_["mean_test_score"] > 0.7).all()


def test_memory_scores_once_for_all_ratios(tmp_path):
    first = InfluencePruner(NET, DiffIn(), prune_ratio=0.1, memory=str(tmp_path), random_state=0).fit(X32, Y)
    second = clone(first).set_params(prune_ratio=0.2).fit(X32, Y)
    np.testing.assert_array_equal(first.scores_, second.scores_)
    assert second.n_pruned_ == 30
