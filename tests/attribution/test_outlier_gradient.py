"""OutlierGradient: detectors on gradients made with NumPy alone, groups, planted answers, invariances, errors."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, make_classification
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from sklearn.utils._param_validation import InvalidParameterError

from sktda import CoresetSelector, Holdout, InfluencePruner, NoisyLabelDetector
from sktda.attribution.gradients import outlier_gradient as module
from sktda.attribution.gradients.outlier_gradient import OutlierGradient
from tests.in_turn import in_turn
from tests.spies import flip, noisy_blobs

X, Y = make_classification(90, 4, n_informative=3, n_redundant=0, n_classes=3, flip_y=0.1, random_state=2)
MODEL = LogisticRegression(max_iter=1000, tol=1e-8).fit(X, Y)
FROZEN = FrozenEstimator(MODEL)
DETECTORS = {
    "neighbours": LocalOutlierFactor(n_neighbors=9, novelty=True),
    "support vectors": OneClassSVM(gamma=0.1),
    "pipeline": make_pipeline(StandardScaler(), OneClassSVM()),
    "forest": IsolationForest(n_estimators=30, random_state=4),
}


def gradients(weight=None):
    """(n, 15) of the softmax loss, coefficients then intercepts: (p - onehot) times (x, 1)."""
    error = MODEL.predict_proba(X) - np.eye(3)[Y]
    found = np.column_stack([(error[:, :, None] * X[:, None, :]).reshape(90, -1), error])
    return found if weight is None else found * weight[:, None]


# ---- what the scores are ---------------------------------------------------------------------------------------------


@in_turn("weight", [None, np.random.default_rng(3).uniform(0.2, 3.0, 90)])
@in_turn("name", DETECTORS)
def test_scores_are_the_detectors_on_the_gradients(name, weight):
    detector = clone(DETECTORS[name])
    detector.fit(gradients(weight))
    own = getattr(detector, "negative_outlier_factor_", None)  # of rows that are not their own neighbours
    expected = detector.score_samples(gradients(weight)) if own is None else own
    found = OutlierGradient(FROZEN, detector=DETECTORS[name]).fit(X, Y, weight)
    np.testing.assert_allclose(found.scores_, expected, rtol=1e-7)
    assert len(found.detectors_) == 1
    assert np.ptp(found.scores_) > 0
    assert not hasattr(DETECTORS[name], "offset_"), "a clone is fitted"


def test_by_class_compares_the_rows_of_a_class():
    expected = np.empty(90)
    for label in range(3):
        part = gradients()[label == Y]
        expected[label == Y] = LocalOutlierFactor(n_neighbors=9).fit(part).negative_outlier_factor_
    found = OutlierGradient(FROZEN, detector=DETECTORS["neighbours"], by_class=True).fit(X, Y)
    np.testing.assert_allclose(found.scores_, expected, rtol=1e-7)
    assert len(found.detectors_) == 3


def test_the_default_is_an_isolation_forest_with_a_seed_of_its_own():
    found = OutlierGradient(FROZEN, random_state=0).fit(X, Y)
    (forest,) = found.detectors_
    assert isinstance(forest, IsolationForest)
    np.testing.assert_allclose(forest.score_samples(gradients()), found.scores_, atol=0.01)
    np.testing.assert_array_equal(OutlierGradient(FROZEN, random_state=0).fit(X, Y).scores_, found.scores_)
    assert not np.array_equal(OutlierGradient(FROZEN, random_state=1).fit(X, Y).scores_, found.scores_)
    own = IsolationForest(random_state=5)
    seeded = OutlierGradient(FROZEN, detector=own, random_state=0).fit(X, Y).detectors_[0]
    assert seeded.random_state == 5
    assert own.random_state == 5
    assert not hasattr(own, "estimators_")
    inside = make_pipeline(StandardScaler(), IsolationForest())
    assert OutlierGradient(FROZEN, detector=inside, random_state=0).fit(X, Y).detectors_[0][-1].random_state is not None


def test_neighbours_of_projected_gradients_are_nearly_those_of_the_gradients():
    data, y = load_digits(return_X_y=True)
    data, y = data[:300] / 16, flip(y[:300], 0.1)
    model = FrozenEstimator(LogisticRegression(max_iter=1000).fit(data, y))
    found = [
        OutlierGradient(model, detector=DETECTORS["neighbours"], proj_dim=dim, random_state=0).fit(data, y).scores_
        for dim in (8, 300, 650)
    ]
    assert np.corrcoef(found[1], found[2])[0, 1] > max(0.9, np.corrcoef(found[0], found[2])[0, 1])
    assert not np.allclose(found[1], found[2])


# ---- planted answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_class", [False, True])
def test_flips_of_the_digits_are_found(by_class):
    data, y = load_digits(return_X_y=True)
    data, y = data[:800] / 16, y[:800]
    given = flip(y, 0.1)
    for estimator in (None, LogisticRegression(max_iter=1000)):
        scores = OutlierGradient(estimator, by_class=by_class, random_state=0).fit(data, given).scores_
        assert roc_auc_score(given != y, -scores) > 0.95


def test_wrong_numbers_are_found():
    data, y = load_diabetes(return_X_y=True)
    data, y = StandardScaler().fit_transform(data), (y - y.mean()) / y.std()
    rows = np.arange(0, len(y), 20)
    y[rows] += 6
    scores = OutlierGradient(Ridge(), random_state=0).fit(data, y).scores_
    assert roc_auc_score(np.isin(np.arange(len(y)), rows), -scores) > 0.95


def test_the_cleaners_take_it():
    data, given, y = noisy_blobs(200, 0.1)
    outlier = OutlierGradient(LogisticRegression())
    pruner = InfluencePruner(LogisticRegression(), OutlierGradient(), stratify=False, random_state=0).fit(data, given)
    assert (given != y)[~pruner.support_].mean() > 0.8
    detector = NoisyLabelDetector(outlier, random_state=0).fit(data, given)
    assert ((detector.labels_ == -1) == (given != y)).mean() > 0.9
    kept = CoresetSelector(outlier, n_samples=0.5, strategy="top", random_state=0).fit(data, given).sample_indices_
    assert (given == y)[kept].mean() > 0.98
    with pytest.warns(UserWarning, match="validation"):
        pruner.set_params(validation=Holdout(data[:9], y[:9])).fit(data, given)


# ---- invariances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, "auto"])
def test_batches_validation_rows_label_names_and_row_order_do_not_matter(batch_size):
    net = FrozenEstimator(MLPClassifier((40,), max_iter=1000, tol=1e-2, random_state=0).fit(X, Y))
    params = {"detector": DETECTORS["neighbours"], "proj_dim": 60, "random_state": 0}
    base = OutlierGradient(net, **params).fit(X, Y).scores_
    same = OutlierGradient(net, batch_size=batch_size, **params).fit(X, Y, X_val=X[:5], y_val=Y[:5])
    np.testing.assert_allclose(same.scores_, base, rtol=1e-6)
    order = np.random.default_rng(0).permutation(90)
    np.testing.assert_allclose(OutlierGradient(net, **params).fit(X[order], Y[order]).scores_, base[order], rtol=1e-6)
    names = np.array(["c", "a", "b"])
    named = OutlierGradient(LogisticRegression(), **params).fit(X, names[Y]).scores_
    np.testing.assert_allclose(named, OutlierGradient(LogisticRegression(), **params).fit(X, Y).scores_, rtol=1e-4)


def test_pickling_keeps_the_scores_and_the_detectors():
    found = OutlierGradient(FROZEN, random_state=0).fit(X, Y)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.scores_, found.scores_)
    rows = gradients()
    np.testing.assert_array_equal(again.detectors_[0].score_samples(rows), found.detectors_[0].score_samples(rows))


def test_a_fit_that_was_killed_goes_on(tmp_path, monkeypatch):
    expected = OutlierGradient(FROZEN, random_state=0).fit(X, Y).scores_

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "seed_parts", killed)
    with pytest.raises(KeyboardInterrupt):
        OutlierGradient(FROZEN, random_state=0, work_dir=tmp_path).fit(X, Y)
    monkeypatch.undo()
    monkeypatch.setattr(module, "projected", killed)
    again = OutlierGradient(FROZEN, random_state=0, work_dir=tmp_path).fit(X, Y)
    np.testing.assert_array_equal(again.scores_, expected)
    assert not list(tmp_path.rglob("gradients*"))


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_groups_of_classes_need_classes_of_several_rows():
    with pytest.raises(ValueError, match="this model has no classes"):
        OutlierGradient(Ridge(), by_class=True).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="1 classes have one row"):
        OutlierGradient(LogisticRegression(), by_class=True).fit(X, np.where(np.arange(90) == 4, 7, Y))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"detector": LogisticRegression()}, "'detector' parameter"),
        ({"detector": "forest"}, "'detector' parameter"),
        ({"proj_dim": 0}, "'proj_dim' parameter"),
        ({"by_class": "yes"}, "'by_class' parameter"),
    ],
)
def test_bad_parameters_are_named(params, message):
    with pytest.raises(InvalidParameterError, match=message):
        OutlierGradient(**params).fit(X, Y)


def test_a_row_without_a_finite_gradient_is_named():
    wild = X.copy()
    wild[17, 2] = 1e200
    with pytest.raises(ValueError, match=r"the gradients of 1 rows are NaN or infinite, the first is row 17"):
        OutlierGradient(FrozenEstimator(Ridge().fit(X, X[:, 0]))).fit(wild, X[:, 0])


def test_a_local_outlier_factor_does_not_count_a_row_as_its_own_neighbour():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], y[:300].copy()
    y[::10] = (y[::10] + 3) % 10
    scorer = OutlierGradient(detector=LocalOutlierFactor(2, novelty=True), random_state=0).fit(X, y)
    [detector] = scorer.detectors_
    np.testing.assert_array_equal(scorer.scores_, detector.negative_outlier_factor_)
