"""Pipelines, models and metadata as users have them, with every cleaner."""

import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import AdaBoostClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.validation import has_fit_parameter

from sktda import (
    CoresetSelector,
    Holdout,
    InfluencePruner,
    InfluencePrunerCV,
    InfluenceReweighter,
    NoisyLabelDetector,
    ResampledEstimator,
)
from sktda.attribution import (
    ComplexityGap,
    Influence,
    InnerProduct,
    KNNShapley,
    LabelPosterior,
    SelfConfidence,
    TracIn,
)
from sktda.cleaning.refit import RefitEstimator
from tests.spies import RecordingClassifier, ValidationScores, noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees", "short_training")

X, Y, _ = noisy_blobs(60, centers=2)
SCORED = [InfluencePruner, InfluencePrunerCV, InfluenceReweighter]
CLEANERS = [*SCORED, ResampledEstimator]


def cleaner(kind, estimator, attributor=None, **settings):
    """A cheap one of its kind."""
    attributor = ComplexityGap() if attributor is None else attributor
    if kind is ResampledEstimator:
        return kind(estimator, CoresetSelector(attributor, random_state=0))
    return kind(
        estimator, attributor, **({"prune_ratios": (0, 0.1), "cv": 3} if kind is InfluencePrunerCV else {}), **settings
    )


class Doubled(TransformerMixin, BaseEstimator):
    """Learns nothing, and leaves nothing behind."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return 2 * np.asarray(X)


class ReturnsNothing(ClassifierMixin, BaseEstimator):
    """A classifier of somebody who forgot `return self`."""

    def fit(self, X, y, sample_weight=None):
        self.model_ = LogisticRegression().fit(X, y, sample_weight)
        self.classes_ = self.model_.classes_

    def predict(self, X):
        return self.model_.predict(X)


def test_no_cleaner_is_built_on_another():
    for kind in CLEANERS:
        assert kind.__bases__ == (RefitEstimator,)
        own = {name for name in vars(RefitEstimator) if callable(getattr(RefitEstimator, name)) and name[:2] != "__"}
        assert not own & set(vars(kind))


STEPS = [
    [StandardScaler(), Doubled()],
    [Doubled()],
    ["passthrough"],
    [make_pipeline(Doubled(), StandardScaler())],
    [make_pipeline(StandardScaler(), make_pipeline(Doubled(), StandardScaler()))],
    [FeatureUnion([("a", Doubled()), ("b", "passthrough")])],
]


@pytest.mark.parametrize(
    ("attributor", "steps"),  # rows alone, gradients and probabilities with all steps, the others with one
    [(attributor, steps) for attributor in (None, InnerProduct(), SelfConfidence()) for steps in STEPS]
    + [(each, STEPS[0]) for each in (LabelPosterior(), KNNShapley(), Influence(objective="validation"), TracIn())],
    ids=str,
)
def test_transformers_that_learn_nothing(attributor, steps):
    model = make_pipeline(*steps, LogisticRegression())
    for kind in (InfluencePruner, InfluenceReweighter):
        fitted = cleaner(kind, model, attributor, validation=0.3, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # most use no validation rows
            fitted.fit(X, Y)
        assert fitted.score(X, Y) > 0.6


@pytest.mark.parametrize("kind", [InfluencePruner, InfluenceReweighter, ResampledEstimator])
def test_a_pipeline_of_transformers_that_learn_nothing_within_another(kind):
    """To scikit-learn such a Pipeline is never fitted, so that nobody can predict with it; rows can be scored."""
    model = make_pipeline(make_pipeline(Doubled()), LogisticRegression())
    fitted = cleaner(kind, model).fit(X, Y)
    for each in (fitted, model.fit(X, Y)):
        with pytest.raises(NotFittedError, match="This Pipeline instance is not fitted yet"):
            each.predict(X)


@pytest.mark.parametrize("kind", CLEANERS)
@pytest.mark.parametrize("attributor", [ComplexityGap(), InnerProduct(), SelfConfidence()], ids=str)
def test_samplers_act_when_the_model_is_trained_and_not_when_rows_are_scored(kind, attributor):
    rows = np.r_[np.flatnonzero(Y == 0), np.flatnonzero(Y == 1)[:12]]
    model = make_imblearn_pipeline(StandardScaler(), RandomOverSampler(random_state=0), RecordingClassifier())
    if kind is InfluenceReweighter:
        with pytest.raises(ValueError, match="has a sampler, which changes their number"):
            cleaner(kind, model, attributor).fit(X[rows], Y[rows])
        return
    if not isinstance(attributor, ComplexityGap):
        model.steps[-1] = ("logisticregression", LogisticRegression())
    fitted = cleaner(kind, model, attributor, **({} if kind is ResampledEstimator else {"random_state": 0}))
    fitted.fit(X[rows], Y[rows])
    assert fitted.predict(X).shape == (60,)
    if isinstance(attributor, ComplexityGap):
        counts = np.bincount(fitted.estimator_[-1].y_)
        assert counts[0] == counts[1]


def test_texts_are_resampled_as_the_model_sees_them():
    frame = pd.DataFrame({"colour": np.where(X[:, 0] > np.median(X[:, 0]), "red", "blue"), "size": X[:, 1]})
    encode = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
    for sampler in (None, NoisyLabelDetector(ComplexityGap()), CoresetSelector(ComplexityGap(), random_state=0)):
        fitted = ResampledEstimator(make_pipeline(encode, LogisticRegression()), sampler)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a handful of rows
            fitted.fit(frame, Y)
        assert fitted.score(frame, Y) > 0.6


@pytest.mark.parametrize("kind", CLEANERS)
def test_a_fit_that_returns_nothing(kind):
    assert cleaner(kind, ReturnsNothing()).fit(X, Y).predict(X).shape == (60,)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("kind", CLEANERS)
def test_weights_for_an_estimator_that_takes_none(kind, routing):
    with sklearn.config_context(enable_metadata_routing=routing):
        model = cleaner(kind, KNeighborsClassifier())
        if kind is InfluenceReweighter:
            with pytest.raises(ValueError, match="takes no sample_weight"):
                model.fit(X, Y)
        else:
            with pytest.raises(ValueError, match="sample_weight was given, but KNeighborsClassifier"):
                model.fit(X, Y, sample_weight=np.ones(60))
            nested = cleaner(kind, make_pipeline(StandardScaler(), KNeighborsClassifier()))
            with pytest.raises(ValueError, match="sample_weight was given, but KNeighborsClassifier"):
                nested.fit(X, Y, sample_weight=np.ones(60))


@pytest.mark.parametrize("kind", CLEANERS)
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0] * 59 + [-1.0], "is -1 in row 59"),
        ([None] + [1.0] * 59, "is nan in row 0"),
        (pd.array([pd.NA] + [1.0] * 59, dtype="Float64"), "is nan in row 0"),
        ([1.0, 1j] + [1.0] * 58, r"is \(1\+0j\) in row 0"),
        (["a"] * 60, "is 'a' in row 0"),
        (np.ones(59), "one weight per row is needed"),
        (np.zeros(60), "all zero"),
    ],
    ids=["negative", "None", "NA", "complex", "text", "too few", "zero"],
)
def test_weights_that_are_none(kind, weights, message):
    with pytest.raises(ValueError, match=f"sample_weight .*{message}"):
        cleaner(kind, LogisticRegression()).fit(X, Y, sample_weight=weights)


@pytest.mark.parametrize("kind", CLEANERS)
@pytest.mark.parametrize("outer", [AdaBoostClassifier(n_estimators=2), CalibratedClassifierCV(cv=2)], ids=str)
def test_boosting_and_calibration_see_that_weights_are_taken(kind, outer):
    for estimator in (LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())):
        model = cleaner(kind, estimator)
        assert has_fit_parameter(model, "sample_weight")
        outer.set_params(estimator=model).fit(X, Y, np.linspace(0.5, 1.5, 60))
        assert outer.predict(X).shape == (60,)


class StopsEarly(RecordingClassifier):
    """Has validation rows of its own, as gradient boosting."""

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        self.n_val_ = None if X_val is None else len(X_val)
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize("kind", SCORED)
def test_validation_rows_reach_an_estimator_that_takes_them(kind):
    fitted = cleaner(kind, StopsEarly(), ValidationScores()).fit(X, Y, X_val=X[:20], y_val=Y[:20])
    assert fitted.estimator_.n_val_ == 20
    fitted = cleaner(kind, StopsEarly(), ValidationScores(), validation=Holdout(X[:20], Y[:20])).fit(X, Y)
    assert fitted.estimator_.n_val_ is None
    boosting = HistGradientBoostingClassifier(max_iter=3, early_stopping=True)
    model = cleaner(kind, boosting, ValidationScores()).fit(X, Y, X_val=X[:20], y_val=Y[:20])
    assert model.estimator_.validation_score_.shape == (4,)


def test_validation_rows_as_many_as_the_rows_are_not_cut():
    with pytest.warns(UserWarning, match="as many rows as X"):
        fitted = InfluencePruner(StopsEarly(), ValidationScores()).fit(X, Y, X_val=X, y_val=Y)
    assert fitted.n_pruned_ == 6
    assert fitted.estimator_.n_val_ == 60


FOREST = RandomForestClassifier(5, random_state=0)


@pytest.mark.parametrize("kind", SCORED)
def test_a_classifier_as_attributor_predicts_the_rows_it_did_not_see(kind):
    scores = cleaner(kind, LogisticRegression(), FOREST).fit(X, Y).scores_
    np.testing.assert_array_equal(scores, cleaner(kind, LogisticRegression(), SelfConfidence(FOREST)).fit(X, Y).scores_)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_classifier_given_to_detector_and_coreset():
    for kind in (NoisyLabelDetector, CoresetSelector):
        np.testing.assert_array_equal(kind(FOREST).fit(X, Y).scores_, kind(SelfConfidence(FOREST)).fit(X, Y).scores_)
        with pytest.raises(TypeError, match="is a model, and no attributor"):
            kind(sklearn.linear_model.Ridge()).fit(X, Y)


class Kerasish:
    def compile(self):
        """As Keras."""

    def fit(self, X, y):
        """As Keras."""


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (Influence(), "is an attributor, which scores rows"),
        (Kerasish(), "SciKeras"),
        (torch.nn.Linear(2, 2), "skorch"),
        (LogisticRegression, "give an instance"),
        ("forest", "no scikit-learn estimator"),
    ],
)
@pytest.mark.parametrize("kind", CLEANERS)
def test_what_is_no_estimator_is_told_what_to_do(kind, estimator, message):
    with pytest.raises(TypeError, match=message):
        kind(estimator).fit(X, Y)
