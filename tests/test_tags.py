"""What an estimator's tags say about missing values and several labels is what its fit does."""

import re

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils import get_tags

from sktda import (
    CoresetSelector,
    InfluencePruner,
    InfluencePrunerCV,
    InfluenceReweighter,
    NoisyLabelDetector,
    ResampledEstimator,
)
from sktda.attribution import (
    ComplexityGap,
    ConfidentLearning,
    DataOOB,
    Ensemble,
    InnerProduct,
    KNNShapley,
    LabelPosterior,
    PrecomputedScores,
    SelfConfidence,
    TracIn,
)
from sktda.cleaning import KCenter
from tests.in_turn import in_turn
from tests.spies import noisy_blobs

X, Y, _ = noisy_blobs(40, centers=2)
HOLES = np.where(np.arange(160).reshape(40, 4) % 50 == 5, np.nan, X)
TREES = HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=2)


def in_order(X, y):
    return np.arange(len(y))


def name(estimator):
    """Without the address of a function, which differs between the processes that share these tests."""
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", repr(estimator))


SCORES = PrecomputedScores(in_order)
ATTRIBUTORS = [
    *(KNNShapley(), ComplexityGap(), LabelPosterior(KNNShapley()), InnerProduct(), TracIn(LogisticRegression())),
    *(SelfConfidence(), ConfidentLearning(TREES, cv=2), DataOOB(n_estimators=50), SCORES),
    *(SelfConfidence(TREES, cv=2), SelfConfidence(KNeighborsClassifier(), cv=2), DataOOB(TREES, n_estimators=50)),
    *(LabelPosterior(SelfConfidence(TREES, cv=2)), Ensemble([SelfConfidence(TREES, cv=2), SCORES])),
    *(Ensemble([SelfConfidence(TREES, cv=2), ComplexityGap()]), Ensemble([KNNShapley()])),
]
INNER = [KNNShapley(), SelfConfidence(cv=2), SelfConfidence(TREES, cv=2), SCORES]
CLEANERS = [
    *(InfluencePruner(TREES, each) for each in [*INNER, None]),
    *(InfluencePruner(KNeighborsClassifier(), each) for each in INNER),
    *(InfluenceReweighter(TREES, each, weighting="rank") for each in INNER),
    *(InfluencePrunerCV(TREES, each, prune_ratios=[0.1], cv=2) for each in (INNER[0], SCORES)),
    *(NoisyLabelDetector(each) for each in INNER),
    *(CoresetSelector(each) for each in INNER),
    CoresetSelector(strategy="random"),
    CoresetSelector(strategy=KCenter(LogisticRegression())),
    CoresetSelector(strategy="k-center"),
    *(ResampledEstimator(TREES, CoresetSelector(each)) for each in INNER),
    *(ResampledEstimator(LogisticRegression(), CoresetSelector(each)) for each in (INNER[0], SCORES)),
    ResampledEstimator(TREES, NoisyLabelDetector(INNER[2])),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("estimator", ATTRIBUTORS + CLEANERS, ids=name)
def test_missing_values_are_taken_where_the_tags_say_so(estimator):
    if get_tags(estimator).input_tags.allow_nan:
        estimator.fit(HOLES, Y)
        return
    with pytest.raises(ValueError, match="NaN"):
        estimator.fit(HOLES, Y)


@in_turn("kind", [InfluencePruner, InfluencePrunerCV, InfluenceReweighter, ResampledEstimator, NoisyLabelDetector])
@in_turn("estimator", [KNeighborsClassifier(), DecisionTreeRegressor(), Ridge()])
def test_several_labels_are_not_promised_and_refused(kind, estimator):
    model = NoisyLabelDetector(KNNShapley()) if kind is NoisyLabelDetector else kind(estimator)
    tags = get_tags(model)
    assert not tags.target_tags.multi_output
    assert tags.classifier_tags is None or not tags.classifier_tags.multi_label
    with pytest.raises(
        ValueError, match=r"y should be a 1d array, got an array of shape \(\d\d, 2\)|takes no sample_w"
    ):
        model.fit(X, np.column_stack([Y, 1 - Y]))


@in_turn("attributor", ATTRIBUTORS[:4] + ATTRIBUTORS[5:8])
def test_attributors_neither(attributor):
    assert not get_tags(attributor).target_tags.multi_output
    with pytest.raises(ValueError, match="y should be a 1d array"):
        attributor.fit(X, np.column_stack([Y, 1 - Y]))
