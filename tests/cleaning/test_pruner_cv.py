"""InfluencePrunerCV: the share by cross-validation, each fold scored once."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from joblib import parallel_config
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktda import Holdout, InfluencePruner, InfluencePrunerCV, NoisyLabelDetector
from sktda.attribution import ComplexityGap, Influence, InnerProduct, LabelPosterior, PrecomputedScores
from sktda.cleaning.judge import Judge
from sktda.metrics import beyond_chance
from sktda.objectives import DemographicParity
from tests.spies import CountingScores, RecordingClassifier, fits, noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees")

X, Y, TRUE = noisy_blobs(120, centers=3)
WRONG = Y != TRUE
RATIOS = (0.3, 0, 0.1, 0.2)
MODEL = LogisticRegression()
GAP = ComplexityGap()  # cheaper than the default, and as good here


def test_a_score_that_is_no_number_is_refused():
    pruner = InfluencePrunerCV(MODEL, GAP, prune_ratios=(0.1, 0.2), scoring=lambda *_: np.nan)
    with pytest.raises(ValueError, match=r"gives nan on fold 0 of 5 without 10\.0% of the rows.*; give a scorer"):
        pruner.fit(X, Y)


def test_a_class_that_has_as_many_rows_as_must_stay_is_cut_by_the_folds():
    y = np.where(np.arange(120) < 5, 3, Y)
    fitted = InfluencePrunerCV(MODEL, GAP, prune_ratios=(0.1, 0.2), min_samples_per_class=5).fit(X, y)
    assert fitted.support_[:5].all()
    with pytest.raises(ValueError, match="has 5 rows, fewer than min_samples_per_class=6"):
        InfluencePrunerCV(MODEL, GAP, prune_ratios=(0.1, 0.2), min_samples_per_class=6).fit(X, y)


def by_hand(estimator, cv, scoring=None, y=Y, task="classification", **settings):
    """(n_folds, n_ratios) scores of InfluencePruner on the test rows whose label is not called wrong."""
    scorer = (lambda model, X, y: model.score(X, y)) if scoring is None else get_scorer(scoring)
    trusted = NoisyLabelDetector(LabelPosterior(task=task)).fit(X, y).labels_ == 1
    assert 0 < (~trusted).sum() < len(y) / 3

    def score(ratio, train, test):
        pruner = InfluencePruner(estimator, prune_ratio=ratio, **settings).fit(X[train], y[train])
        return scorer(pruner, X[test][trusted[test]], y[test][trusted[test]])

    return np.array([[score(ratio, *fold) for ratio in sorted(RATIOS)] for fold in cv.split(X, y)])


@pytest.mark.parametrize(
    ("scoring", "settings"),
    [
        (None, {"attributor": GAP, "stratify": True}),
        (None, {"attributor": GAP}),
        ("neg_log_loss", {"attributor": GAP}),
        (None, {"attributor": InnerProduct(), "validation": 0.2, "random_state": 0}),
    ],
    ids=str,
)
def test_scores_are_those_of_a_pruner_at_each_share(scoring, settings):
    found = InfluencePrunerCV(MODEL, prune_ratios=RATIOS, scoring=scoring, cv=3, **settings).fit(X, Y)
    expected = by_hand(MODEL, StratifiedKFold(3), scoring, **settings)
    results = found.cv_results_
    np.testing.assert_array_equal(results["prune_ratio"], sorted(RATIOS))
    np.testing.assert_allclose(results["mean_test_score"], expected.mean(axis=0))
    np.testing.assert_allclose(results["std_test_score"], expected.std(axis=0))
    for k in range(3):
        np.testing.assert_allclose(results[f"split{k}_test_score"], expected[k])
    assert found.noise_rate_ == NoisyLabelDetector(LabelPosterior(task="classification")).fit(X, Y).noise_rate_
    prior = np.abs(np.array(sorted(RATIOS)) - found.noise_rate_).argmin()
    assert found.prior_prune_ratio_ == sorted(RATIOS)[prior]
    best = beyond_chance(expected, prior)
    assert found.best_index_ == best
    assert found.best_prune_ratio_ == sorted(RATIOS)[best]
    assert found.best_score_ == results["mean_test_score"][best]
    assert results["rank_test_score"][expected.mean(axis=0).argmax()] == 1
    assert results["n_pruned"][0] == 0


def test_what_is_learned_is_that_of_a_pruner_at_the_best_share():
    found = InfluencePrunerCV(MODEL, GAP, prune_ratios=RATIOS, cv=3).fit(X, Y)
    alone = InfluencePruner(MODEL, GAP, prune_ratio=found.best_prune_ratio_).fit(X, Y)
    np.testing.assert_array_equal(found.support_, alone.support_)
    np.testing.assert_array_equal(found.get_support(indices=True), alone.get_support(indices=True))
    np.testing.assert_array_equal(found.scores_, alone.scores_)
    np.testing.assert_array_equal(found.predict_proba(X), alone.predict_proba(X))
    assert found.n_pruned_ == alone.n_pruned_
    pd.testing.assert_frame_equal(found.to_frame(), alone.to_frame())
    assert found.score(X, Y) == alone.score(X, Y)


def test_wrong_labels_make_it_prune_and_right_ones_do_not_hurt():
    found = InfluencePrunerCV(MODEL, prune_ratios=(0, 0.1, 0.2, 0.3), cv=3).fit(X, Y)
    assert found.best_prune_ratio_ in (0.1, 0.2)
    assert WRONG[~found.support_].mean() > 0.8
    useless = InfluencePrunerCV(MODEL, PrecomputedScores(), prune_ratios=(0, 0.5)).fit(
        X, Y, scores=np.where(WRONG, 1.0, 0.0) + 1e-3 * np.arange(len(Y))
    )
    assert useless.best_prune_ratio_ == 0


def test_labels_that_no_feature_predicts_leave_all_rows():
    """There is nothing to find, and most shares look better than all rows by chance."""
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(200, 4)), rng.integers(0, 2, 200)
    found = InfluencePrunerCV(MODEL, GAP, prune_ratios=(0, 0.1, 0.2, 0.3), cv=3).fit(noise, labels)
    assert found.noise_rate_ == found.prior_prune_ratio_ == 0


@pytest.mark.parametrize("data", [{"x": X}, np.where(X > 3, np.nan, X), X.astype(str)], ids=["dict", "NaN", "text"])
def test_rows_that_are_no_numbers_are_judged_alike(data):
    judge = Judge(RecordingClassifier(), data, Y, Y)
    assert judge.trusted.all()
    assert judge.noise_rate == 0
    if not isinstance(data, dict):
        found = InfluencePrunerCV(RecordingClassifier(), PrecomputedScores(), prune_ratios=(0, 0.2), cv=2)
        found.fit(data, Y, scores=np.arange(len(Y)))
        assert found.noise_rate_ == found.best_prune_ratio_ == 0


def test_a_judge_keeps_a_row_of_each_class():
    judge = Judge(MODEL, X, Y, Y)
    judge.trusted = Y != 2
    judge.scores = np.arange(len(Y))
    test = np.arange(0, 120, 2)
    rows = judge.rows(test)
    np.testing.assert_array_equal(rows, np.sort(np.append(test[Y[test] != 2], test[Y[test] == 2].max())))
    np.testing.assert_array_equal(judge.rows(np.isin(np.arange(120), test)), rows)
    judge.trusted[:] = True
    np.testing.assert_array_equal(judge.rows(test), test)
    judge.codes, judge.trusted[:] = None, False
    np.testing.assert_array_equal(judge.rows(test), test)  # none would be left


def test_every_fold_is_scored_once(tmp_path):
    log = tmp_path / "log"
    InfluencePrunerCV(RecordingClassifier(), CountingScores(log), prune_ratios=RATIOS, cv=4).fit(X, Y)
    assert len(fits(log)) == 5  # four folds and all rows


def test_of_equally_good_shares_the_estimated_one():
    constant = lambda model, X, y: 1.0  # noqa: E731
    found = InfluencePrunerCV(MODEL, GAP, prune_ratios=RATIOS, scoring=constant, cv=3).fit(X, Y)
    assert found.best_prune_ratio_ == found.prior_prune_ratio_ > 0
    right = InfluencePrunerCV(MODEL, GAP, prune_ratios=RATIOS, scoring=constant, cv=3).fit(X, TRUE)
    assert right.best_prune_ratio_ == 0
    assert right.support_.all()
    assert set(found.cv_results_["rank_test_score"]) == {1}


def test_folds_of_every_kind():
    folds = list(KFold(3, shuffle=True, random_state=1).split(X))
    expected = InfluencePrunerCV(MODEL, GAP, cv=KFold(3, shuffle=True, random_state=1)).fit(X, Y).cv_results_
    with parallel_config("threading"):
        found = InfluencePrunerCV(MODEL, GAP, cv=folds, n_jobs=2).fit(X, Y).cv_results_
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values)
    assert "split2_test_score" in InfluencePrunerCV(MODEL, GAP, cv=3).fit(X, Y).cv_results_


def test_regression():
    rng = np.random.default_rng(0)
    target = X @ np.array([1.0, -2.0, 0.5, 3.0]) + 0.1 * rng.normal(size=len(X))
    target[::6] += 20
    found = InfluencePrunerCV(Ridge(), GAP, prune_ratios=RATIOS, cv=3).fit(X, target)
    expected = by_hand(Ridge(), KFold(3), y=target, task="regression", attributor=GAP)
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], expected.mean(axis=0), rtol=1e-9)


def test_validation_rows_come_in_every_form():
    held = slice(0, 30)
    base = InfluencePrunerCV(MODEL, InnerProduct(), prune_ratios=(0, 0.1), cv=3)
    given = clone(base).set_params(validation=Holdout(X[held], Y[held])).fit(X[30:], Y[30:])
    routed = clone(base).fit(X[30:], Y[30:], X_val=X[held], y_val=Y[held])
    np.testing.assert_allclose(given.cv_results_["mean_test_score"], routed.cv_results_["mean_test_score"])
    np.testing.assert_allclose(given.scores_, routed.scores_)
    crossed = clone(base).set_params(validation=3).fit(X, Y)
    assert crossed.scores_.shape == Y.shape
    groups = np.where(X[:, 1] > 0, "a", "b")
    gap = Influence(objective=DemographicParity(positive=0))
    fair = InfluencePrunerCV(MODEL, gap, prune_ratios=(0, 0.1), cv=3, stratify=False)
    fair.fit(X, np.where(Y == 0, 0, 1), sensitive_features=groups)
    assert list(fair.objective_values_) == ["DemographicParity"]


def test_weights_are_cut_with_the_folds():
    weight = np.random.default_rng(0).uniform(0.1, 3, len(Y))
    found = InfluencePrunerCV(MODEL, GAP, prune_ratios=(0, 0.2), cv=3).fit(X, Y, sample_weight=weight)
    trusted = NoisyLabelDetector(LabelPosterior(task="classification")).fit(X, Y).labels_ == 1
    for k, (train, test) in enumerate(StratifiedKFold(3).split(X, Y)):
        test = test[trusted[test]]
        for r, ratio in enumerate((0, 0.2)):
            alone = InfluencePruner(MODEL, GAP, prune_ratio=ratio).fit(X[train], Y[train], sample_weight=weight[train])
            np.testing.assert_allclose(found.cv_results_[f"split{k}_test_score"][r], alone.score(X[test], Y[test]))


def test_routed_weights():
    weight = np.random.default_rng(0).uniform(0.1, 3, len(Y))
    expected = InfluencePrunerCV(MODEL, GAP, prune_ratios=(0, 0.2), cv=3).fit(X, Y, sample_weight=weight)
    with sklearn.config_context(enable_metadata_routing=True):
        model = LogisticRegression().set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        attributor = ComplexityGap().set_fit_request(sample_weight=True)
        found = InfluencePrunerCV(model, attributor, prune_ratios=(0, 0.2), cv=3).fit(X, Y, sample_weight=weight)
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])


def test_inside_a_search_and_a_pipeline():
    pruner = InfluencePrunerCV(MODEL, GAP, prune_ratios=(0, 0.2), cv=2)
    grid = {"attributor": [GAP, Influence()], "estimator__C": [0.1, 1.0]}
    search = GridSearchCV(pruner, grid, cv=2, error_score="raise").fit(X, Y)
    assert search.best_estimator_.best_prune_ratio_ in (0, 0.2)
    nested = cross_val_score(make_pipeline(StandardScaler(), pruner), X, Y, cv=2, error_score="raise")
    assert np.isfinite(nested).all()


def test_frames_keep_their_index():
    frame = pd.DataFrame(X, columns=list("abcd"), index=[f"row {k}" for k in range(len(X))])
    found = InfluencePrunerCV(MODEL, GAP, prune_ratios=(0, 0.2), cv=3).fit(frame, pd.Series(Y, index=frame.index))
    assert sorted(found.to_frame().index) == sorted(frame.index)
    assert list(found.feature_names_in_) == list("abcd")


@pytest.mark.parametrize("ratios", [(), (0, 1), (-0.1, 0.2), (0.1, np.nan)])
def test_shares_that_are_refused(ratios):
    with pytest.raises(ValueError, match="must be shares from 0 to below 1"):
        InfluencePrunerCV(MODEL, prune_ratios=ratios).fit(X, Y)
    with pytest.raises(ValueError, match="requires y to be passed"):
        InfluencePrunerCV(MODEL).fit(X, None)
