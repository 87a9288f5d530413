"""What an attributor declares, who reads it, and what is said of one that does not."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import sktda.attribution
from sktda import InfluencePruner, NoisyLabelDetector
from sktda.attribution import (
    DiffIn,
    Distributional,
    Ensemble,
    InnerProduct,
    KNNShapley,
    LabelPosterior,
    ModelEnsemble,
    SelfConfidence,
)
from sktda.attribution.base import Attributor, Needs, checked_scores, needs_of
from tests.in_turn import in_turn
from tests.spies import noisy_blobs

X, Y, _ = noisy_blobs(60, rate=0.1)
ATTRIBUTORS = [
    cls
    for cls in (getattr(sktda.attribution, name) for name in sktda.attribution.__all__)
    if isinstance(cls, type) and issubclass(cls, Attributor)
]


class Own(BaseEstimator):
    """An attributor that shares no class with the library's."""

    def fit(self, X, y):
        self.seen_ = X
        self.scores_ = np.arange(len(X), dtype=float)
        return self


@in_turn("cls", ATTRIBUTORS)
def test_every_attributor_declares_what_it_needs(cls):
    assert isinstance(needs_of(cls()), Needs)


@in_turn(
    ("wrapper", "needs"),
    [
        (LabelPosterior(), Needs(features=True)),
        (LabelPosterior(SelfConfidence()), Needs()),
        (Ensemble([KNNShapley(), SelfConfidence()]), Needs(features=True, validation=True)),
        (Ensemble([KNNShapley()], transformers=StandardScaler()), Needs(validation=True)),
        (Distributional(), Needs(validation=True, gradients=True)),
        (Distributional(DiffIn()), DiffIn.needs),
        (ModelEnsemble(InnerProduct(), members="checkpoints"), Needs(validation=True, gradients=True, trajectory=True)),
        (FrozenEstimator(KNNShapley()), KNNShapley.needs),
    ],
)
def test_wrappers_need_what_is_inside(wrapper, needs):
    assert needs_of(wrapper) == needs


@pytest.mark.parametrize("declared", [Needs(), Needs(features=True)])
def test_an_attributor_of_the_users_own_gets_what_it_declares(declared):
    own = type("Own", (Own,), {"needs": declared})()
    pipeline = make_pipeline(FunctionTransformer(lambda rows: 2 * rows), LogisticRegression())
    for attributor in (own, Ensemble([own, SelfConfidence()])):
        fitted = InfluencePruner(pipeline, attributor).fit(X, Y).attributor_
        seen = fitted.seen_ if attributor is own else fitted.attributors_[0].seen_
        np.testing.assert_array_equal(seen, 2 * X if declared.features else X)


@in_turn(
    ("attributor", "message"),
    [
        (Own(), r"Own does not say what it needs; add `needs = Needs\(\)` to the class"),
        (type("Typed", (Own,), {"needs": {"features": True}})(), r"needs of Typed is {'features': True}, and must be"),
        (Own, "is not an attributor; give an instance"),
        ("loss", "is not an attributor; give an instance"),
        (Ridge(), r"is a model, and no attributor.* such as SelfConfidence\("),
        (make_pipeline(StandardScaler(), SelfConfidence()), "a Pipeline is no attributor"),
    ],
)
def test_what_is_no_attributor_is_told_what_to_add(attributor, message):
    for fit in (
        NoisyLabelDetector(attributor).fit,
        InfluencePruner(LogisticRegression(), attributor).fit,
        Ensemble([attributor]).fit,
    ):
        with pytest.raises(TypeError, match=message):
            fit(X, Y)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (None, "has no scores_ after fit"),
        (np.zeros(3), "returned 3 scores for 60 rows"),
        (np.zeros((60, 1)), r"returned scores of shape \(60, 1\) for 60 rows"),
        (0.5, r"returned scores of shape \(\) for 60 rows"),
        (np.r_[np.zeros(59), np.inf], "1 scores that are NaN or infinite"),
    ],
)
def test_there_is_one_finite_score_per_row(scores, message):
    fitted = Own()
    if scores is not None:
        fitted.scores_ = scores
    with pytest.raises(ValueError, match=message):
        checked_scores(fitted, 60)
