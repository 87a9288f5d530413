"""Ensemble: mean ranks by hand, its members' parameters, what goes to them, planted answers."""

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_blobs
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils._param_validation import InvalidParameterError

import sktda.attribution
from sktda import Holdout, InfluencePruner, InfluenceReweighter, NoisyLabelDetector
from sktda.attribution import (
    AUM,
    EL2N,
    ComplexityGap,
    DataOOB,
    Ensemble,
    Influence,
    InnerProduct,
    KernelForest,
    KNNShapley,
    LabelPosterior,
    PrecomputedScores,
    SelfConfidence,
)
from sktda.attribution.base import Attributor, Needs
from tests.spies import noisy_blobs

pytestmark = pytest.mark.usefixtures("few_trees", "short_training")

X, Y, TRUE = noisy_blobs(120, rate=0.2, centers=3)
A, B, C = np.random.default_rng(0).normal(size=(3, 120))


def given(*scores):
    return [PrecomputedScores(each) for each in scores]


# ---- ranks -----------------------------------------------------------------------------------------------------------


def test_scores_are_mean_ranks():
    ensemble = Ensemble(given(A, 1e6 * B, C.round())).fit(X, Y)
    ranks = np.stack([rankdata(A), rankdata(B), rankdata(C.round())])
    np.testing.assert_allclose(ensemble.scores_, (ranks.mean(axis=0) - 0.5) / 120)
    np.testing.assert_array_equal(ensemble.member_scores_, [A, 1e6 * B, C.round()])
    assert 0 < ensemble.scores_.min() < ensemble.scores_.max() < 1


def test_weights_of_the_members():
    ensemble = Ensemble(given(A, B), weights=[3, 1]).fit(X, Y)
    np.testing.assert_allclose(ensemble.scores_, ((3 * rankdata(A) + rankdata(B)) / 4 - 0.5) / 120)
    alone = Ensemble(given(A, B), weights=[0, 1]).fit(X, Y)
    np.testing.assert_array_equal(alone.scores_.argsort(), B.argsort())


@pytest.mark.parametrize("change", [np.exp, lambda s: 7 * s - 3, lambda s: s**3])
def test_units_of_the_members_do_not_matter(change):
    np.testing.assert_array_equal(
        Ensemble(given(change(A), B)).fit(X, Y).scores_, Ensemble(given(A, B)).fit(X, Y).scores_
    )


def test_the_order_of_members_and_workers_does_not_matter():
    members = [ComplexityGap(), EL2N(random_state=0), KNNShapley(random_state=0)]
    expected = Ensemble(members).fit(X, Y).scores_
    np.testing.assert_allclose(Ensemble(members[::-1]).fit(X, Y).scores_, expected)
    with parallel_config("threading"):
        np.testing.assert_array_equal(Ensemble(members, n_jobs=2).fit(X, Y).scores_, expected)


# ---- defaults --------------------------------------------------------------------------------------------------------


def test_the_default_members():
    ensemble = Ensemble(random_state=0).fit(X, Y)
    assert [type(each) for each in ensemble.attributors_] == [LabelPosterior, LabelPosterior]
    assert [type(each.attributor_) for each in ensemble.attributors_] == [KernelForest, SelfConfidence]
    assert roc_auc_score(Y == TRUE, ensemble.scores_) > 0.97
    regression = Ensemble(random_state=0).fit(X, X[:, 0] + 0.1 * A)
    assert [type(each) for each in regression.attributors_] == [ComplexityGap, DataOOB]
    assert regression.task_ == "regression"
    counts = np.resize([0, 1, 2, 3], 120)
    assert Ensemble(random_state=0).fit(X, counts).task_ == "classification"
    pruner = InfluencePruner(Ridge(), Ensemble(random_state=0)).fit(X, counts)
    assert pruner.attributor_.task_ == "regression"


def test_seeds_go_to_members_without_one():
    ensemble = Ensemble([AUM(), AUM(random_state=5), ComplexityGap()], random_state=1).fit(X, Y)
    first, second, _ = ensemble.attributors_
    assert first.random_state is not None
    assert second.random_state == 5
    again = clone(ensemble).fit(X, Y)
    np.testing.assert_array_equal(again.scores_, ensemble.scores_)


# ---- parameters of the members ---------------------------------------------------------------------------------------


def test_members_are_reached_by_name():
    ensemble = Ensemble([ComplexityGap(ridge=2.0), KNNShapley()])
    assert ensemble.get_params()["complexitygap__ridge"] == 2.0
    ensemble.set_params(complexitygap__ridge=3.0, knnshapley=KNNShapley(7))
    assert ensemble.attributors[0].ridge == 3.0
    assert ensemble.attributors[1].n_neighbors == 7
    twice = Ensemble([ComplexityGap(), ComplexityGap()]).set_params(**{"complexitygap-2__ridge": 1.0})
    assert [each.ridge for each in twice.attributors] == ["auto", 1.0]
    named = Ensemble([("a", ComplexityGap()), ("b", KNNShapley())]).set_params(a__ridge=4.0, b=AUM())
    assert named.get_params()["a__ridge"] == 4.0
    assert isinstance(dict(named.attributors)["b"], AUM)
    assert clone(named).get_params().keys() == named.get_params().keys()
    with pytest.raises(ValueError, match="Invalid parameter"):
        ensemble.set_params(aum__at=1)


def test_a_search_over_which_attributor_and_its_parameters():
    pruner = InfluencePruner(LogisticRegression(), Ensemble([ComplexityGap(), KNNShapley(random_state=0)]))
    search = GridSearchCV(
        pruner,
        [
            {"attributor": [ComplexityGap(), AUM(random_state=0), SelfConfidence(), Ensemble()]},
            {"attributor__complexitygap__ridge": [0.1, 1.0], "attributor__weights": [None, [2, 1]]},
        ],
        cv=3,
        error_score="raise",
    ).fit(X, Y)
    assert len(search.cv_results_["params"]) == 8
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


# ---- what goes to the members ----------------------------------------------------------------------------------------


def test_validation_rows_go_to_those_that_use_them():
    assert not Ensemble([ComplexityGap()]).needs.validation
    ensemble = Ensemble([ComplexityGap(), InnerProduct(LogisticRegression())])
    assert ensemble.needs.validation
    ensemble.fit(X[:90], Y[:90], X_val=X[90:], y_val=TRUE[90:])
    alone = InnerProduct(LogisticRegression()).fit(X[:90], Y[:90], X_val=X[90:], y_val=TRUE[90:])
    np.testing.assert_array_equal(ensemble.member_scores_[1], alone.scores_)
    pruner = InfluencePruner(LogisticRegression(), ensemble, validation=Holdout(X[90:], TRUE[90:])).fit(X[:90], Y[:90])
    np.testing.assert_array_equal(pruner.scores_, ensemble.scores_)


def test_weights_of_rows_go_to_all():
    weight = np.linspace(0.5, 2, 120)
    found = Ensemble([EL2N(random_state=0), AUM(random_state=0)]).fit(X, Y, weight).member_scores_
    np.testing.assert_array_equal(found[0], EL2N(random_state=0).fit(X, Y, weight).scores_)


def test_a_pipelines_transformers_come_first():
    pruner = InfluencePruner(make_pipeline(StandardScaler(), LogisticRegression()), Ensemble([ComplexityGap()]))
    pruner.fit(X * [1, 1e3, 1, 1], Y)
    expected = ComplexityGap().fit(StandardScaler().fit_transform(X * [1, 1e3, 1, 1]), Y).scores_
    np.testing.assert_array_equal(pruner.scores_.argsort(), expected.argsort())


FRAME = pd.DataFrame({"colour": np.array(["red", "green", "blue"])[Y[:60]], "x": 1e3 * A[:60], "z": X[:60, 0]})
ENCODED = make_column_transformer((OneHotEncoder(), ["colour"]), (StandardScaler(), ["x", "z"]))
MEMBERS = {
    name: cls
    for name in sktda.attribution.__all__
    if isinstance(cls := getattr(sktda.attribution, name), type) and issubclass(cls, Attributor)
}
OF_NUMBERS = ["ComplexityGap", "Influence", "PrecomputedScores", "RobustResidual"]
OF_TREES = ["BoostIn", "LeafInfluence", "TreeKernel"]
# what they ask a cleaner for is said by the classes that they share with SelfConfidence, AUM and EL2N
ALIKE = {"ConfidentLearning", "NormalizedMargin", "Forgetting", "GraNd", "LogitMargin", "Loss"}
CASES = [(name, LogisticRegression()) for name in MEMBERS if name not in {"RobustResidual", *OF_TREES, *ALIKE}]
CASES += [(name, GradientBoostingClassifier(n_estimators=3)) for name in OF_TREES]
CASES += [(name, Ridge()) for name in OF_NUMBERS]


def member(name):
    settings = {"random_state": 0, "n_runs": 2, "n_members": 2, "n_checkpoints": 2}
    settings["n_estimators"] = 50 if name == "RobustResidual" else 20
    if name == "PrecomputedScores":
        return PrecomputedScores(pd.Series(B[:60]))
    known = MEMBERS[name]().get_params(deep=False)
    return MEMBERS[name](**{key: value for key, value in settings.items() if key in known})


@pytest.mark.filterwarnings("ignore:all 2 members are the same model")  # of a Distributional of logistic regressions
@pytest.mark.parametrize(("name", "model"), CASES)
def test_every_member_sees_the_rows_that_it_would_see_by_itself(name, model):
    # columns by name, text, and a transformer that is no array function: a second pass fails or is another table
    target = Y[:60] if is_classifier(model) else FRAME["z"] + 0.1 * C[:60]
    alone, together = (
        InfluencePruner(make_pipeline(ENCODED, model), attributor, prune_ratio=0.0).fit(FRAME, target).attributor_
        for attributor in (member(name), Ensemble([member(name), ComplexityGap()]))
    )
    np.testing.assert_allclose(together.member_scores_[0], alone.scores_, rtol=1e-9)
    assert together.attributors_[1].n_features_in_ == 5


@pytest.mark.parametrize("model", [LogisticRegression(), Ridge()], ids=["classes", "numbers"])
def test_the_default_members_see_columns_by_name(model):
    target = Y[:60] if isinstance(model, LogisticRegression) else FRAME["z"] + 0.1 * C[:60]
    validation = Holdout(FRAME[50:], target[50:])
    for cleaner in (InfluencePruner, InfluenceReweighter):
        fitted = cleaner(make_pipeline(ENCODED, model), Ensemble(), validation=validation)
        with pytest.warns(UserWarning, match="validation has no effect|without validation rows"):
            fitted.fit(FRAME[:50], target[:50])
        assert len(fitted.attributor_.attributors_) == 2


def test_a_detector_takes_the_predictions_of_the_first_that_has_some():
    members = [EL2N(random_state=0), SelfConfidence(LogisticRegression()), ComplexityGap()]
    ensemble = Ensemble(members).fit(X, Y)
    np.testing.assert_array_equal(ensemble.loo_decision_, ensemble.attributors_[1].pred_probs_)
    assert not hasattr(Ensemble([EL2N(random_state=0)]).fit(X, Y), "loo_decision_")
    assert not hasattr(Ensemble(), "loo_decision_")
    detector = NoisyLabelDetector(Ensemble(members)).fit(X, Y)
    assert abs(detector.noise_rate_ - 0.2) < 0.05


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_an_ensemble():
    with pytest.raises(ValueError, match="attributors is empty"):
        Ensemble([]).fit(X, Y)
    with pytest.raises(TypeError, match="is not an attributor; give an instance"):
        Ensemble([ComplexityGap]).fit(X, Y)
    with pytest.raises(InvalidParameterError, match="attributors"):
        Ensemble(ComplexityGap()).fit(X, Y)
    for weights in ([1], [1, -1], [0, 0], [1, np.nan]):
        with pytest.raises(ValueError, match="must be 2 numbers of at least 0"):
            Ensemble(given(A, B), weights=weights).fit(X, Y)
    with pytest.raises(ValueError, match="the target y is None"):
        Ensemble().fit(X, None)


def test_a_member_that_fails_says_so_itself():
    with pytest.raises(ValueError, match="regression has none"):
        Ensemble([ComplexityGap(), AUM()]).fit(X, X[:, 0])


def test_regression():
    pruner = InfluencePruner(Ridge(), Ensemble(random_state=0)).fit(X, X[:, 0] + 0.1 * A)
    assert pruner.n_pruned_ == 12


# ---- inside a cleaner ------------------------------------------------------------------------------------------------


def test_members_get_the_task_and_the_estimator_of_the_cleaner():
    X, y = make_blobs(320, 6, centers=40, random_state=0)
    for attributor in (
        Ensemble(),
        Ensemble([ComplexityGap()]),
        Ensemble([LabelPosterior()]),
        Ensemble([DataOOB(n_estimators=50, random_state=0)]),
        LabelPosterior(ComplexityGap()),
        LabelPosterior(),
    ):
        assert InfluencePruner(RidgeClassifier(), attributor).fit(X, y).attributor_.task_ == "classification"
    assert Ensemble(task="classification", random_state=0).fit(X, y).task_ == "classification"
    # of members that do not say what y is
    scores, counts = np.arange(len(y)), np.arange(len(y)) // 2
    for task in ("classification", "regression"):
        assert Ensemble([PrecomputedScores(scores)], task=task).fit(X, counts).task_ == task
    model = LogisticRegression(C=0.5, max_iter=2000)
    members = (
        InfluencePruner(model, Ensemble([Influence(), SelfConfidence()])).fit(X[:120] / 9, Y).attributor_.attributors_
    )
    assert [each.estimator.C for each in members] == [0.5, 0.5]


def test_members_get_the_transformers_of_the_cleaner():
    frame = pd.DataFrame({"city": np.resize(["a", "b", "c"], 120), "x": X[:, 0], "z": X[:, 1]})
    encoder = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    pipe = make_pipeline(encoder, LogisticRegression())
    for attributor in (LabelPosterior(SelfConfidence()), Ensemble([SelfConfidence()]), DataOOB(random_state=0)):
        assert InfluencePruner(pipe, attributor).fit(frame, Y).n_pruned_ == 12


def test_names_that_cannot_be_told_apart():
    for names in (("a", "a"), ("a__b", "c"), ("weights", "c")):
        members = [(name, PrecomputedScores(A)) for name in names]
        with pytest.raises(ValueError, match="in attributors is not allowed"):
            Ensemble(members).fit(X, Y)


def test_a_member_without_one_number_per_row_is_named():
    class Short(BaseEstimator):
        needs = Needs()

        def fit(self, X, y):
            self.scores_ = np.full(len(X), np.nan) if len(X) > 50 else np.zeros(3)
            return self

    for rows, message in ((120, "120 scores that are NaN"), (30, "3 scores for 30 rows")):
        with pytest.raises(ValueError, match=message):
            Ensemble([Short()]).fit(X[:rows], Y[:rows])
