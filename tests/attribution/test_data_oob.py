"""DataOOB: loops over members, scikit-learn's own out-of-bag predictions, pyDVL, planted answers, errors."""

import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from sktda import CoresetSelector, Holdout, InfluencePruner, NoisyLabelDetector
from sktda.attribution.predictions.data_oob import DataOOB
from tests.in_turn import in_turn
from tests.spies import flip, noisy_blobs

WINE = load_wine(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)
TREE, STUMP = DecisionTreeClassifier(random_state=0), DecisionTreeClassifier(max_depth=1)

CLASSIFIERS = {
    "trees": BaggingClassifier(TREE, 30, random_state=0),
    "columns": BaggingClassifier(STUMP, 30, max_features=0.4, bootstrap_features=True, random_state=0),
    "without replacement": BaggingClassifier(STUMP, 30, bootstrap=False, max_samples=0.5, random_state=0),
    "linear": BaggingClassifier(make_pipeline(StandardScaler(), LogisticRegression()), 30, random_state=0),
    "forest": RandomForestClassifier(30, max_depth=3, random_state=0),
    "half forest": RandomForestClassifier(30, max_samples=0.5, random_state=0),
    "extra trees": ExtraTreesClassifier(30, bootstrap=True, random_state=0),
}
REGRESSORS = {
    "trees": BaggingRegressor(DecisionTreeRegressor(random_state=0), 30, random_state=0),
    "columns": BaggingRegressor(Ridge(), 30, max_features=0.5, random_state=0),
    "forest": RandomForestRegressor(30, random_state=0),
}


def by_loops(ensemble, X, y):
    """Mean of T over the members that did not draw the row; y as positions of the classes."""
    values = [[] for _ in y]
    drawn = ensemble.estimators_samples_
    columns = getattr(ensemble, "estimators_features_", [np.arange(X.shape[1])] * len(drawn))
    for member, rows, chosen in zip(ensemble.estimators_, drawn, columns, strict=True):
        for i in sorted(set(range(len(y))) - set(np.arange(len(y))[rows].tolist())):
            found = member.predict(X[i : i + 1, chosen])[0]
            values[i].append(float(found == y[i]) if hasattr(ensemble, "classes_") else -((found - y[i]) ** 2))
    return np.array([np.mean(each) for each in values]), np.array([len(each) for each in values])


# ---- what the values are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classes_by_loops(name):
    X, y = WINE[0][::3], WINE[1][::3]
    names = np.array(["c", "a", "b"])
    oob = DataOOB(CLASSIFIERS[name]).fit(X, names[y])
    expected, times = by_loops(oob.estimator_, X, np.array([2, 0, 1])[y])
    np.testing.assert_allclose(oob.scores_, expected, rtol=1e-12)
    np.testing.assert_array_equal(oob.n_out_of_bag_, times)
    assert 0 < expected.mean() < 1
    assert oob.classes_.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(oob.loo_decision_.sum(axis=1), 1)
    np.testing.assert_array_equal(oob.loo_decision_[np.arange(len(y)), np.array([2, 0, 1])[y]], oob.scores_)


@pytest.mark.parametrize("name", REGRESSORS)
def test_numbers_by_loops(name):
    X, y = DIABETES[0][:80], DIABETES[1][:80]
    oob = DataOOB(REGRESSORS[name]).fit(X, y)
    expected, times = by_loops(oob.estimator_, X, y)
    np.testing.assert_allclose(oob.scores_, expected, rtol=1e-12)
    np.testing.assert_array_equal(oob.n_out_of_bag_, times)
    assert oob.task_ == "regression"
    assert not hasattr(oob, "classes_")


def test_votes_and_predictions_are_scikit_learns_out_of_bag_ones():
    X, y = load_digits(return_X_y=True)
    forest = RandomForestClassifier(100, oob_score=True, random_state=0)  # grown until leaves are pure: trees vote
    oob = DataOOB(forest).fit(X[:400], y[:400])
    np.testing.assert_allclose(oob.loo_decision_, oob.estimator_.oob_decision_function_, rtol=1e-12)
    numbers = DataOOB(RandomForestRegressor(100, oob_score=True, random_state=0)).fit(*DIABETES)
    np.testing.assert_allclose(numbers.loo_decision_, numbers.estimator_.oob_prediction_, rtol=1e-12)


@pytest.mark.parametrize("kind", ["bagging", "forest", "numbers"])
def test_values_equal_those_of_pydvl(kind, monkeypatch):
    pytest.importorskip("pydvl")
    try:
        import cvxpy  # noqa: F401
    except ImportError:  # pyDVL imports it for another method
        monkeypatch.setitem(sys.modules, "cvxpy", ModuleType("cvxpy"))
    from pydvl.valuation.dataset import Dataset
    from pydvl.valuation.methods.data_oob import DataOOBValuation

    X, y = DIABETES if kind == "numbers" else (WINE[0], flip(WINE[1], 0.1))
    ensemble = {"bagging": CLASSIFIERS["trees"], "forest": CLASSIFIERS["forest"], "numbers": REGRESSORS["trees"]}[kind]
    fitted = clone(ensemble).fit(X, y)
    theirs = DataOOBValuation(fitted)
    theirs.fit(Dataset(X, y, data_names=np.arange(len(y))))
    expected = np.zeros(len(y))
    expected[theirs.result.indices] = theirs.result.values
    ours = DataOOB(FrozenEstimator(fitted)).fit(X, y).scores_
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


# ---- which ensemble --------------------------------------------------------------------------------------------------


def test_what_is_not_bagged_is_bagged():
    X, y = WINE
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    found = DataOOB(pipe, n_estimators=25).fit(X, y)
    bagged = found.estimator_[-1]
    assert isinstance(bagged, BaggingClassifier)
    assert len(bagged.estimators_) == 25
    assert found.scores_.mean() > 0.9
    same = BaggingClassifier(LogisticRegression(), n_estimators=25, random_state=bagged.random_state)
    alone = DataOOB(same).fit(StandardScaler().fit_transform(X), y)
    np.testing.assert_allclose(alone.scores_, found.scores_)
    numbers = DataOOB(Ridge(), n_estimators=25).fit(*DIABETES)
    assert isinstance(numbers.estimator_, BaggingRegressor)
    boosted = DataOOB(GradientBoostingClassifier(n_estimators=2), n_estimators=25).fit(X, y)  # has estimators_, no bags
    assert isinstance(boosted.estimator_, BaggingClassifier)


def test_the_default_is_a_forest_of_200():
    for data, kind in ((WINE, RandomForestClassifier), (DIABETES, RandomForestRegressor)):
        found = DataOOB().fit(*data).estimator_[-1]  # behind the transformer
        assert isinstance(found, kind)
        assert len(found.estimators_) == 200


def test_n_estimators_is_that_of_the_ensemble_also_in_a_pipeline():
    for forest in (RandomForestClassifier(7), make_pipeline(StandardScaler(), RandomForestClassifier(7))):
        found = DataOOB(forest, n_estimators=40).fit(*WINE)
        assert found.n_out_of_bag_.max() > 7
        assert forest.get_params()[next(k for k in forest.get_params() if k.endswith("n_estimators"))] == 7


def test_a_pipeline_that_ends_in_a_bagged_estimator():
    X, y = WINE
    forest = RandomForestClassifier(60, random_state=0)
    base = DataOOB(forest).fit(StandardScaler().fit_transform(X), y).scores_
    pipe = make_pipeline(StandardScaler(), forest)
    np.testing.assert_array_equal(DataOOB(pipe).fit(X, y).scores_, base)
    np.testing.assert_array_equal(DataOOB(FrozenEstimator(pipe.fit(X, y))).fit(X, y).scores_, base)


def test_a_frozen_ensemble_is_not_trained_again():
    X, y = WINE
    names = np.array(["a", "b", "c"])[y]
    forest = RandomForestClassifier(60, random_state=0).fit(X, names)
    members = list(forest.estimators_)
    found = DataOOB(FrozenEstimator(forest)).fit(X, names)
    assert all(one is two for one, two in zip(found.estimator_.estimators_, members, strict=True))
    np.testing.assert_array_equal(found.scores_, DataOOB(RandomForestClassifier(60, random_state=0)).fit(X, y).scores_)
    two = np.where(names == "c", "b", names)  # the forest knows a third class: a vote for it is a vote for no label
    votes = DataOOB(FrozenEstimator(forest)).fit(X, two)
    assert votes.classes_.tolist() == ["a", "b"]
    assert votes.scores_[y == 2].mean() < 0.2


class Names(ClassifierMixin, BaseEstimator):
    """Bags of its own, whose members predict labels, or their positions; says by masks what was drawn."""

    def __init__(self, encoded=False, classes=None):
        self.encoded = encoded
        self.classes = classes

    def fit(self, X, y):
        rng = np.random.default_rng(0)
        self.classes_ = np.unique(y)
        drawn = [rng.random(len(y)) < 0.5 for _ in range(30)]
        for k, each in enumerate(drawn):  # every member lacks a class
            each[y == self.classes_[k % len(self.classes_)]] = False
        learnt = np.searchsorted(self.classes_, y) if self.encoded else y
        self.estimators_samples_ = drawn
        self.estimators_ = [DecisionTreeClassifier(random_state=0).fit(X[each], learnt[each]) for each in drawn]
        self.classes_ = self.classes_ if self.classes is None else self.classes
        return self

    def predict(self, X):
        return self.estimators_[0].predict(X)


LABELS = {
    "text": ["p", "q", "r"],
    "numbers": [7, 8, 9],
    "from 1": [1, 2, 3],
    "from 2": [2, 3, 4],
    "with gaps": [0, 2, 5],
    "negative": [-1, 0, 1],
    "floats": [1.0, 2.0, 3.0],
    "from 0": [0, 1, 2],
}


@pytest.mark.parametrize("encoded", [False, True], ids=["labels", "positions"])
@pytest.mark.parametrize("labels", LABELS)
def test_any_class_with_members_and_samples_is_bagged(labels, encoded):
    X, y = WINE
    labels = np.array(LABELS[labels])
    fitted = Names(encoded).fit(X, labels[y])
    found = DataOOB(FrozenEstimator(fitted)).fit(X, labels[y])
    right = y if encoded else labels[y]
    expected = [
        np.mean([m.predict(X[i : i + 1])[0] == right[i] for m, d in zip(*parts(fitted), strict=True) if not d[i]])
        for i in range(0, 178, 20)
    ]
    np.testing.assert_allclose(found.scores_[::20], expected, rtol=1e-12)
    assert found.scores_.mean() > 0.3  # of the members without the row half had its class


def test_classes_of_an_ensemble_in_another_order():
    X, y = WINE
    labels = np.array([7, 8, 9])
    plain, turned = (FrozenEstimator(Names(classes=each).fit(X, labels[y])) for each in (labels, labels[::-1]))
    np.testing.assert_array_equal(*(DataOOB(each).fit(X, labels[y]).scores_ for each in (plain, turned)))


def test_members_that_do_not_tell_what_they_predict_are_refused():
    X, y = WINE[0][:100], np.where(WINE[1][:100] == 0, 1, 2)
    model = Names().fit(X, y)
    model.estimators_ = [DecisionTreeClassifier().fit(X, np.ones(100, int)) for _ in range(30)]  # 1, or the second
    with pytest.raises(ValueError, match="predict labels or positions among 1, 2; fit it on labels 0 to 1"):
        DataOOB(FrozenEstimator(model)).fit(X, y)
    model = Names(classes=np.array([7, 9])).fit(X, np.where(y == 1, 7, 8))
    with pytest.raises(ValueError, match="classes_ of the members of this Names do not tell"):
        DataOOB(FrozenEstimator(model)).fit(X, np.where(y == 1, 7, 9))
    model = Names().fit(X, y)
    model.estimators_[3] = type("Odd", (), {"predict": lambda self, X: np.full(len(X), 5)})()
    with pytest.raises(ValueError, match="predicts 5, which is none of its classes_, 1, 2"):
        DataOOB(FrozenEstimator(model)).fit(X, y)


def parts(fitted):
    return fitted.estimators_, fitted.estimators_samples_


# ---- planted answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uniform", "next"])
def test_flips_of_the_digits_are_found_counted_and_corrected(kind):
    X, y = load_digits(return_X_y=True)
    X, y = X[:900], y[:900]
    given = flip(y, 0.15, kind)
    detector = NoisyLabelDetector(DataOOB()).fit(X, given)
    assert roc_auc_score(given != y, -detector.scores_) > 0.98
    assert detector.noise_rate_ == pytest.approx(0.15, abs=0.03)
    wrong = (detector.labels_ == -1) & (given != y)
    assert (detector.suggested_labels_ == y)[wrong].mean() > 0.9


@pytest.mark.filterwarnings("ignore::sktda.NothingToLearnWarning")  # the forest is thrown off by them
def test_wrong_numbers_are_found():
    X, y = DIABETES
    rows = np.random.default_rng(0).choice(len(y), 30, replace=False)
    y = y.copy()
    y[rows] += 400
    detector = NoisyLabelDetector(DataOOB()).fit(X, y)
    assert roc_auc_score(np.isin(np.arange(len(y)), rows), -detector.scores_) > 0.97
    np.testing.assert_array_equal(detector.suggested_labels_, detector.attributor_.loo_decision_)


@pytest.mark.parametrize("model", [LogisticRegression(), RandomForestClassifier(50)], ids=["linear", "forest"])
def test_the_pruner_bags_its_own_estimator(model):
    X, given, y = noisy_blobs(200, 0.1)
    pruner = InfluencePruner(model, DataOOB(n_estimators=30), prune_ratio=0.1, stratify=False, random_state=0)
    assert (given != y)[~pruner.fit(X, given).support_].mean() > 0.9
    assert type(peeled(pruner.attributor_.estimator_)) is type(model)
    with pytest.warns(UserWarning, match="validation"):
        pruner.set_params(validation=Holdout(X[:9], y[:9])).fit(X, given)


def peeled(ensemble):
    return ensemble.estimator if isinstance(ensemble, BaggingClassifier) else ensemble


def test_the_coreset_leaves_planted_flips_out():
    X, given, y = noisy_blobs(200, 0.15)
    kept = CoresetSelector(DataOOB(), n_samples=0.5, strategy="top", random_state=0).fit(X, given).sample_indices_
    assert (given == y)[kept].all()


# ---- forms of X, weights, seeds --------------------------------------------------------------------------------------


def test_images_sparse_rows_and_frames_equal_the_table():
    X, y = load_digits(return_X_y=True)
    X, y = X[:60], y[:60]
    for estimator in (None, BaggingClassifier(TREE, max_features=0.5)):
        base = DataOOB(estimator, n_estimators=30).fit(X, y).scores_
        forms = [sp.csr_matrix(X), sp.coo_array(X), pd.DataFrame(X).add_prefix("p")]
        for form in forms + ([X.reshape(-1, 8, 8)] if estimator is None else []):
            found = DataOOB(estimator, n_estimators=30).fit(form, pd.Series(y))
            np.testing.assert_array_equal(found.scores_, base)


def test_a_fit_can_be_repeated_and_another_seed_is_another_fit():
    few = DataOOB(n_estimators=50)
    first = few.fit(*WINE).scores_
    np.testing.assert_array_equal(few.fit(*WINE).scores_, first)
    np.testing.assert_array_equal(clone(few).set_params(n_jobs=2).fit(*WINE).scores_, first)
    assert not np.array_equal(clone(few).set_params(random_state=1).fit(*WINE).scores_, first)


def test_weights_reach_the_ensemble():
    X, y = WINE[0][::3], WINE[1][::3]
    weight = np.random.default_rng(0).uniform(0.5, 1.5, len(y))
    forest = RandomForestClassifier(30, random_state=0)
    found = DataOOB(forest).fit(X, y, weight)
    assert not np.array_equal(found.scores_, DataOOB(forest).fit(X, y).scores_)
    np.testing.assert_array_equal(found.scores_, by_loops(forest.fit(X, y, weight), X, y)[0])


def test_a_row_so_heavy_that_all_members_draw_it_is_predicted_by_all():
    X, y = WINE[0][::5], WINE[1][::5]
    weight = np.ones(len(y))
    weight[3] = 1000.0
    found = DataOOB(BaggingClassifier(TREE, 60, random_state=0)).fit(X, y, weight)
    assert found.n_out_of_bag_[3] == 0
    assert found.scores_[3] == 1
    assert np.isfinite(found.scores_).all()
    np.testing.assert_allclose(found.loo_decision_.sum(axis=1), 1)


# ---- errors ----------------------------------------------------------------------------------------------------------


@in_turn(
    ("estimator", "params", "message"),
    [
        (BaggingClassifier(n_estimators=3, random_state=0), {}, "were drawn by each of the 3 members .*n_estimators"),
        (RandomForestClassifier(9, bootstrap=False), {}, "trained on all 178 rows.*bootstrap=True"),
        (ExtraTreesClassifier(9), {}, "bootstrap=True"),
        (None, {"n_estimators": 0}, "n_estimators"),
        (LogisticRegression(), {"task": "regression"}, "LogisticRegression is for classification"),
        (FrozenEstimator(LogisticRegression().fit([[0], [1]], [0, 1])), {}, "is not bagged"),
        (
            FrozenEstimator(clone(CLASSIFIERS["trees"]).fit(WINE[0][::2], WINE[1][::2])),
            {},
            "fitted on 89 rows and came with",
        ),
        (
            FrozenEstimator(clone(CLASSIFIERS["forest"]).fit(WINE[0][::2], WINE[1][::2])),
            {},
            "fitted on 89 rows and came with",
        ),
        (FrozenEstimator(RandomForestClassifier(9).fit(*WINE)), {"n_estimators": 5}, "cannot be set on a Frozen"),
        (FrozenEstimator(RandomForestClassifier(9).fit(WINE[0], WINE[1] + 5)), {}, "labels that this .* 5, 6, 7"),
    ],
)
def test_errors_say_what_and_what_to_do(estimator, params, message):
    with pytest.raises(ValueError, match=message):
        DataOOB(estimator, **params).fit(*WINE)


def test_a_dictionary_is_no_table():
    with pytest.raises(ValueError, match=r"X is a dictionary \(a, b\)"):
        DataOOB(TREE).fit({"a": WINE[0], "b": WINE[0]}, WINE[1])


def test_an_unfitted_frozen_ensemble_says_so():
    with pytest.raises(NotFittedError):
        DataOOB(FrozenEstimator(RandomForestClassifier())).fit(*WINE)


def test_a_later_fit_leaves_nothing_of_an_earlier_one():
    oob = DataOOB(n_estimators=50).fit(*WINE).fit(*DIABETES)
    assert not hasattr(oob, "classes_")
    with pytest.raises(ValueError, match="NaN"):
        oob.fit(np.full((20, 2), np.nan), np.arange(20) % 2)
    assert not hasattr(oob, "scores_")
