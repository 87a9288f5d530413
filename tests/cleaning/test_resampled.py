"""ResampledEstimator: any sampler inside a plain Pipeline, weights follow the rows, nothing is dropped at predict."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktda import NoisyLabelDetector, ResampledEstimator
from tests.spies import RecordingClassifier, noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees")

X, Y, TRUE = noisy_blobs(120)
WEIGHT, GROUP = np.arange(120.0) + 1, np.array([f"g{i}" for i in range(120)])


class EveryOther(BaseEstimator):
    """Keeps rows 0, 2, 4, ... and weighs them 1, 2, 3, ... if asked."""

    def __init__(self, weigh=False):
        self.weigh = weigh

    def fit_resample(self, X, y):
        self.sample_indices_ = np.arange(0, len(y), 2)
        if self.weigh:
            self.sample_weight_ = np.arange(1.0, len(self.sample_indices_) + 1)
        return X[self.sample_indices_], y[self.sample_indices_]


class Nothing(BaseEstimator):
    def fit_resample(self, X, y):
        return X[:0], y[:0]


def test_the_default_sampler_drops_noisy_rows():
    fitted = ResampledEstimator(RecordingClassifier()).fit(X, Y)
    detector = NoisyLabelDetector().fit(X, Y)
    np.testing.assert_array_equal(fitted.estimator_.X_, X[detector.labels_ == 1])
    np.testing.assert_array_equal(fitted.estimator_.y_, Y[detector.labels_ == 1])
    assert (fitted.estimator_.y_ != TRUE[detector.labels_ == 1]).mean() < (Y != TRUE).mean() / 2


@pytest.mark.parametrize("sampler", [None, EveryOther(), RandomUnderSampler(random_state=0), SMOTE(random_state=0)])
def test_predict_answers_for_every_row_that_comes(sampler):
    fitted = ResampledEstimator(LogisticRegression(), sampler).fit(X, Y)
    for n in (1, 7, 120, 300):
        rows = np.resize(np.arange(120), n)
        for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
            assert len(getattr(fitted, method)(X[rows])) == n
        np.testing.assert_array_equal(fitted.predict(X[rows]), fitted.estimator_.predict(X[rows]))
    assert fitted.score(X, Y) == fitted.estimator_.score(X, Y)


def test_nothing_given_is_fitted():
    model, sampler = LogisticRegression(), EveryOther()
    fitted = ResampledEstimator(model, sampler).fit(X, Y)
    assert not hasattr(model, "coef_")
    assert not hasattr(sampler, "sample_indices_")
    assert len(fitted.sampler_.sample_indices_) == 60


@pytest.mark.parametrize("routing", [False, True])
def test_metadata_follows_the_rows(routing):
    model = RecordingClassifier()
    if routing:
        sklearn.set_config(enable_metadata_routing=True)
        model.set_fit_request(sample_weight=True, group=True)
    fitted = ResampledEstimator(model, EveryOther()).fit(X, Y, sample_weight=WEIGHT, group=list(GROUP))
    np.testing.assert_array_equal(fitted.estimator_.sample_weight_, WEIGHT[::2])
    np.testing.assert_array_equal(fitted.estimator_.group_, GROUP[::2])


def test_metadata_follows_repeated_rows():
    fitted = ResampledEstimator(RecordingClassifier(), RandomOverSampler(random_state=0))
    rare = np.concatenate([np.flatnonzero(Y == 0)[:5], np.flatnonzero(Y == 1)])
    fitted.fit(X[rare], Y[rare], sample_weight=np.exp(X[rare, 1]))
    assert len(fitted.estimator_.y_) > len(rare)
    np.testing.assert_array_equal(fitted.estimator_.sample_weight_, np.exp(fitted.estimator_.X_[:, 1]))


def test_a_samplers_weights_multiply_those_given():
    fitted = ResampledEstimator(RecordingClassifier(), EveryOther(weigh=True))
    np.testing.assert_array_equal(fitted.fit(X, Y).estimator_.sample_weight_, np.arange(1, 61))
    weighed = fitted.fit(X, Y, sample_weight=WEIGHT).estimator_.sample_weight_
    np.testing.assert_array_equal(weighed, np.arange(1, 61) * WEIGHT[::2])


def test_a_samplers_weights_reach_the_last_step_of_a_pipeline():
    pipe = make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), LogisticRegression()))
    fitted = ResampledEstimator(pipe, EveryOther(weigh=True)).fit(X, Y)
    name = "pipeline__logisticregression__sample_weight"
    alone = clone(pipe).fit(X[::2], Y[::2], **{name: np.arange(1, 61)})
    np.testing.assert_array_equal(fitted.predict_proba(X), alone.predict_proba(X))


def test_a_samplers_weights_need_an_estimator_that_takes_them():
    with pytest.raises(
        ValueError, match=r"EveryOther weights its rows but KNeighborsClassifier\.fit takes no sample_wei"
    ):
        ResampledEstimator(KNeighborsClassifier(), EveryOther(weigh=True)).fit(X, Y)


def test_metadata_that_cannot_follow_is_an_error():
    with pytest.raises(
        ValueError, match=r"SMOTE does not say which rows it kept .* metadata \['sample_weight'\] cannot"
    ):
        ResampledEstimator(LogisticRegression(), SMOTE(random_state=0)).fit(X, Y, sample_weight=WEIGHT)


def test_no_row_left_is_an_error():
    with pytest.raises(ValueError, match="Nothing kept none of the 120 rows"):
        ResampledEstimator(LogisticRegression(), Nothing()).fit(X, Y)


def test_a_plain_pipeline_searches_over_cleaning_parameters():
    pipe = make_pipeline(StandardScaler(), ResampledEstimator(LogisticRegression(), NoisyLabelDetector()))
    grid = {"resampledestimator__sampler__contamination": [0, 0.2], "resampledestimator__estimator__C": [1.0, 10.0]}
    search = GridSearchCV(pipe, grid, cv=3, error_score="raise").fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(search.predict(X)) == 120


def test_cleaning_inside_the_folds_helps_and_every_row_is_predicted():
    plain, cleaned = KNeighborsClassifier(1), ResampledEstimator(KNeighborsClassifier(1))
    accuracy = [(cross_val_predict(model, X, Y, cv=5) == TRUE).mean() for model in (plain, cleaned)]
    assert accuracy[1] > accuracy[0] + 0.1


def test_kind_and_classes_are_those_of_the_estimator():
    assert is_classifier(ResampledEstimator(LogisticRegression()))
    assert is_regressor(ResampledEstimator(Ridge()))
    assert ResampledEstimator(LogisticRegression()).fit(X, np.array(["z", "a", "m"])[Y]).classes_.tolist() == [
        "a",
        "m",
        "z",
    ]
    assert not hasattr(ResampledEstimator(Ridge()), "predict_proba")
    assert not hasattr(ResampledEstimator(Ridge()).fit(X, X[:, 0]), "classes_")


def test_sorted_labels_are_stratified_by_a_search():
    order = np.argsort(TRUE, kind="stable")
    scores = cross_validate(ResampledEstimator(LogisticRegression()), X[order], TRUE[order], cv=3, error_score="raise")
    assert scores["test_score"].min() > 0.9


def test_regression_drops_outliers():
    rng = np.random.default_rng(0)
    y = X @ [1.0, -2.0, 0.5, 3.0] + 0.1 * rng.normal(size=120)
    wrong = y.copy()
    wrong[:10] += 200
    fitted = ResampledEstimator(Ridge()).fit(X, wrong)
    assert fitted.score(X, y) > 0.99 > Ridge().fit(X, wrong).score(X, y)


def test_pandas_in_pandas_to_the_estimator():
    frame = pd.DataFrame(X, index=GROUP).add_prefix("f")
    fitted = ResampledEstimator(RecordingClassifier(), NoisyLabelDetector(contamination=0.2))
    fitted.fit(frame, pd.Series(Y, GROUP))
    assert isinstance(fitted.estimator_.X_, pd.DataFrame)
    assert fitted.estimator_.X_.index.equals(fitted.estimator_.y_.index)
    assert len(fitted.estimator_.X_) == 96


def test_metadata_of_score_is_routed():
    sklearn.set_config(enable_metadata_routing=True)
    model = LogisticRegression().set_score_request(sample_weight="w")
    result = cross_validate(ResampledEstimator(model), X, Y, params={"w": (Y == 0) * 1.0}, cv=2, error_score="raise")
    assert len(result["test_score"]) == 2


def test_a_clone_behaves_the_same():
    model = ResampledEstimator(LogisticRegression(C=3), NoisyLabelDetector(contamination=0.1))
    copy = clone(model)
    assert copy.get_params()["estimator__C"] == 3
    np.testing.assert_array_equal(copy.fit(X, Y).predict_proba(X), model.fit(X, Y).predict_proba(X))
