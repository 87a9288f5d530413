"""InfluenceReweighter: weights by hand, what reaches the estimator, planted wrong labels."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError

from sktda import Holdout, InfluenceReweighter
from sktda.attribution import ComplexityGap, InnerProduct, LabelPosterior, PrecomputedScores
from sktda.weighting import learned_weights, probability_shift, rank_weights, sigmoid_weights, tail_weights, weigh
from tests.spies import RecordingClassifier, noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees")

X, Y, TRUE = noisy_blobs(120, rate=0.25, centers=3)
SCORES = np.random.default_rng(0).normal(size=120)


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_weights_by_hand():
    np.testing.assert_allclose(rank_weights(np.array([3.0, 1.0, 2.0, 2.0])), [0.875, 0.125, 0.5, 0.5])
    scores = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    np.testing.assert_allclose(sigmoid_weights(scores), 1 / (1 + np.exp(-scores / 1.4826)))
    np.testing.assert_allclose(learned_weights(np.array([-4.0, 1.0, 1.0, 2.0])), [0, 1.5, 1.5, 2.0])


def test_weights_of_scores_that_are_mostly_equal():
    scores = np.array([0.0, 0, 0, 0, 5])
    assert np.isfinite(sigmoid_weights(scores)).all()
    np.testing.assert_array_equal(learned_weights(np.zeros(3)), 1)


@pytest.mark.parametrize("rate", [1e-6, 0.01, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 50.0])
def test_shifted_log_odds_have_the_mean_of_the_rate(rate, spread):
    odds = spread * SCORES
    probability = 1 / (1 + np.exp(-np.clip(odds + probability_shift(odds, rate), -700, 700)))
    assert probability.mean() == pytest.approx(1 - rate, abs=1e-9)
    assert (np.diff(probability[odds.argsort()]) >= 0).all()


def test_without_wrong_labels_all_rows_count_alike():
    assert probability_shift(SCORES, 0.0) == np.inf
    np.testing.assert_array_equal(tail_weights(SCORES, 0.0), 1)


def test_tail_weights_by_hand():
    found = tail_weights(np.array([0.0, 3.0, 1.0, 2.0, 4.0]), 0.2)
    np.testing.assert_allclose(found, [0.25, 1, 0.75, 1, 1])
    assert tail_weights(SCORES, 0.1).mean() == pytest.approx(0.9)  # as many rows are lost as are wrong


def test_every_group_has_mean_one_and_the_floor_holds():
    codes = np.repeat([0, 1], [50, 70])
    weights = weigh(SCORES, rank_weights, 0.2, codes)
    for group in (codes == 0, codes == 1):
        assert np.isclose(weights[group].mean(), 1)
        assert np.isclose(weights[group].min() / weights[group].max(), 0.2 + 0.8 * 0.5 / (group.sum() - 0.5))
    assert np.isclose(
        weigh(SCORES, lambda s: (s > 0).astype(float), 0.3).min() * 1.0, 0.3 / (0.3 + 0.7 * (SCORES > 0).mean())
    )


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("weighting", [rank_weights, sigmoid_weights, learned_weights])
def test_units_do_not_matter(weighting, scale):
    np.testing.assert_allclose(weigh(SCORES * scale, weighting, 0.0), weigh(SCORES, weighting, 0.0), rtol=1e-9)


@pytest.mark.parametrize(
    "weighting", [lambda s: s[:3], lambda s: -np.ones_like(s), lambda s: s * np.nan, lambda s: 0 * s], ids=range(4)
)
def test_weights_that_are_none(weighting):
    with pytest.raises(ValueError, match="weighting must turn 120 scores into as many finite weights of at least 0"):
        InfluenceReweighter(LogisticRegression(), PrecomputedScores(SCORES), weighting=weighting, stratify=False).fit(
            X, Y
        )


# ---- what the estimator gets -----------------------------------------------------------------------------------------


class Weighted(RecordingClassifier):
    def fit(self, X, y, sample_weight=None):
        self.weight_ = sample_weight
        return super().fit(X, y)


def test_the_estimator_gets_the_weights_times_those_given():
    model = InfluenceReweighter(Weighted(), PrecomputedScores(SCORES), weighting="rank", stratify=True).fit(X, Y)
    np.testing.assert_array_equal(model.estimator_.weight_, model.sample_weight_)
    for c in range(3):
        rows = c == Y
        np.testing.assert_allclose(
            model.sample_weight_[rows], 2 * (SCORES[rows].argsort().argsort() + 0.5) / rows.sum(), rtol=1e-12
        )
    given = np.linspace(1, 2, 120)
    again = clone(model).fit(X, Y, sample_weight=given)
    np.testing.assert_allclose(again.estimator_.weight_, model.sample_weight_ * given)
    np.testing.assert_array_equal(again.sample_weight_, model.sample_weight_)


def test_a_pipeline_gets_them_at_its_last_step():
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    model = InfluenceReweighter(pipe, PrecomputedScores(SCORES)).fit(X, Y)
    alone = clone(pipe).fit(X, Y, logisticregression__sample_weight=model.sample_weight_)
    np.testing.assert_array_equal(model.predict_proba(X), alone.predict_proba(X))


def test_an_estimator_without_weights_is_refused_before_the_scoring():
    with pytest.raises(ValueError, match="InfluenceReweighter weights its rows but KNeighborsClassifier"):
        InfluenceReweighter(KNeighborsClassifier(), PrecomputedScores(np.nan * SCORES)).fit(X, Y)


def test_equal_scores_are_refused():
    with pytest.raises(ValueError, match="all 120 scores"):
        InfluenceReweighter(LogisticRegression(), PrecomputedScores(np.ones(120))).fit(X, Y)


@pytest.mark.parametrize("params", [{"weighting": "ranks"}, {"floor": 1.0}, {"floor": -0.1}, {"validation": 1}])
def test_parameters_are_checked(params):
    with pytest.raises(InvalidParameterError):
        InfluenceReweighter(LogisticRegression(), **params).fit(X, Y)


def test_regression_is_one_group():
    y = X[:, 0] + 0.1 * SCORES
    model = InfluenceReweighter(Ridge(), PrecomputedScores(SCORES), weighting="rank", stratify=True).fit(X, y)
    np.testing.assert_allclose(model.sample_weight_, 2 * (SCORES.argsort().argsort() + 0.5) / 120, rtol=1e-12)


# ---- validation ------------------------------------------------------------------------------------------------------


def test_learned_weights_are_one_step_down_the_gradient():
    """InnerProduct's score of least squares by hand: (1/n) <gradient of the validation loss, gradient of the row>."""
    rng = np.random.default_rng(0)
    X, X_val = rng.normal(size=(40, 3)), rng.normal(size=(15, 3))
    theta = np.array([1.0, -2.0, 0.5])
    y, y_val = X @ theta + rng.normal(size=40), X_val @ theta + 0.5 * rng.normal(size=15)
    model = InfluenceReweighter(
        LinearRegression(fit_intercept=False), weighting="learned", validation=Holdout(X_val, y_val)
    )
    model.fit(X, y)
    w = LinearRegression(fit_intercept=False).fit(X, y).coef_
    q = (2 * (X_val @ w - y_val)[:, None] * X_val).mean(axis=0)
    scores = 2 * (X @ w - y)[:, None] * X @ q / 40
    expected = np.maximum(0, 1 + scores / np.abs(scores).mean())
    np.testing.assert_allclose(model.sample_weight_, expected / expected.mean(), rtol=1e-6)

    def validation_loss(weight):
        v = LinearRegression(fit_intercept=False).fit(X, y, sample_weight=weight).coef_
        return ((X_val @ v - y_val) ** 2).mean()

    assert validation_loss(model.sample_weight_) < validation_loss(np.ones(40))


def test_learned_weights_cross_fit_where_nothing_validates():
    model = InfluenceReweighter(LogisticRegression(), weighting="learned", random_state=0).fit(X, Y)
    assert isinstance(model.attributor_, InnerProduct)
    assert model.sample_weight_[Y != TRUE].mean() < 0.6


def test_held_out_rows_count_one():
    model = InfluenceReweighter(
        LogisticRegression(), InnerProduct(), weighting="learned", validation=0.25, random_state=0
    )
    model.fit(X, Y)
    held = np.isnan(model.scores_)
    assert held.sum() == 30
    np.testing.assert_array_equal(model.sample_weight_[held], 1)


def test_routed_validation_rows_and_metadata():
    with sklearn.config_context(enable_metadata_routing=True):
        model = InfluenceReweighter(
            LogisticRegression().set_fit_request(sample_weight=True),
            InnerProduct().set_fit_request(sample_weight=False),
            weighting="learned",
        )
        model.fit(X, Y, X_val=X[:30], y_val=TRUE[:30], sample_weight=np.ones(120))
    assert model.sample_weight_[Y != TRUE].mean() < model.sample_weight_[Y == TRUE].mean()


# ---- planted answers -------------------------------------------------------------------------------------------------


def test_by_default_rows_count_by_how_much_more_probably_they_are_right_than_wrong():
    model = InfluenceReweighter(LogisticRegression()).fit(X, Y)
    posterior = LabelPosterior(task="classification").fit(X, Y)
    np.testing.assert_array_equal(model.scores_, posterior.scores_)
    assert 0 < model.noise_rate_ < 0.3
    odds = np.exp(posterior.scores_ + probability_shift(posterior.scores_, model.noise_rate_))
    expected = np.maximum(0.001, (odds - 1) / (odds + 1))
    np.testing.assert_allclose(model.sample_weight_, expected / expected.mean(), rtol=1e-9)
    assert model.sample_weight_[Y != TRUE].mean() < 0.5 < 1 < model.sample_weight_[Y == TRUE].mean()


def test_right_labels_and_labels_that_nothing_predicts_count_alike():
    clean = InfluenceReweighter(LogisticRegression()).fit(X, TRUE)
    assert clean.noise_rate_ == 0
    np.testing.assert_array_equal(clean.sample_weight_, 1)
    noise = np.random.default_rng(0).normal(size=(200, 3))
    blind = InfluenceReweighter(LogisticRegression()).fit(noise, np.arange(200) % 2)
    np.testing.assert_array_equal(blind.sample_weight_, 1)
    named = InfluenceReweighter(LogisticRegression(), ComplexityGap(), weighting="rank").fit(X, Y)
    assert not hasattr(named, "noise_rate_")


@pytest.mark.parametrize("stratify", [False, True])
def test_other_scores_rise_with_the_rank_up_to_twice_the_share_of_wrong_labels(stratify):
    model = InfluenceReweighter(LogisticRegression(), PrecomputedScores(SCORES), stratify=stratify).fit(X, Y)
    for rows in [c == Y for c in range(3)] if stratify else [Y >= 0]:
        expected = np.minimum(1, rank_weights(SCORES[rows]) / (2 * model.noise_rate_))
        np.testing.assert_allclose(model.sample_weight_[rows], expected / expected.mean(), rtol=1e-12)


@pytest.mark.parametrize("weighting", ["rank", "sigmoid", "learned", lambda s: np.exp(s - s.max())])
def test_wrong_labels_count_less(weighting):
    model = InfluenceReweighter(LogisticRegression(), weighting=weighting, random_state=0).fit(X, Y)
    assert model.sample_weight_[Y != TRUE].mean() < 0.8 < 1 < model.sample_weight_[Y == TRUE].mean()
    assert model.score(X, TRUE) >= LogisticRegression().fit(X, Y).score(X, TRUE)


def test_boosting_on_noisy_rows_gains():
    rows, given, true = noisy_blobs(900, rate=0.3, centers=3, seed=1)
    X, X_test, y, _, _, y_test = train_test_split(rows, given, true, random_state=0)
    plain = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    better = InfluenceReweighter(plain, ComplexityGap()).fit(X, y)
    assert better.score(X_test, y_test) > clone(plain).fit(X, y).score(X_test, y_test) + 0.02


def test_a_search_over_weightings_scores_each_fold_once(tmp_path):
    search = GridSearchCV(
        InfluenceReweighter(LogisticRegression(), memory=str(tmp_path)),
        {"weighting": ["rank", "sigmoid"], "floor": [0.0, 0.2], "attributor": [ComplexityGap(), InnerProduct()]},
        cv=3,
        error_score="raise",
    ).fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_the_frame_has_the_users_index():
    index = [f"row {i}" for i in range(120)]
    model = InfluenceReweighter(LogisticRegression()).fit(pd.DataFrame(X, index=index), pd.Series(Y, index=index))
    frame = model.to_frame()
    assert list(frame) == ["given_label", "score", "weight"]
    assert frame["score"].is_monotonic_increasing
    frame = frame.loc[index]
    np.testing.assert_array_equal(frame["weight"], model.sample_weight_)
    np.testing.assert_array_equal(frame["score"], model.scores_)
    np.testing.assert_array_equal(frame["given_label"], Y)


def test_a_pipeline_with_routing_sends_the_weights_where_they_are_asked_for():
    with sklearn.config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipe = make_pipeline(scaler, LogisticRegression().set_fit_request(sample_weight=True))
        model = InfluenceReweighter(pipe, PrecomputedScores(SCORES)).fit(X, Y)
        alone = clone(pipe).fit(X, Y, sample_weight=model.sample_weight_)
        np.testing.assert_array_equal(model.predict_proba(X), alone.predict_proba(X))


def test_the_target_is_asked_for_by_name():
    with pytest.raises(ValueError, match="InfluenceReweighter requires y"):
        InfluenceReweighter(LogisticRegression()).fit(X, None)
