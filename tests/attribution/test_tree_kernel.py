"""TreeKernel against votes that are counted row by row, in every ensemble, and what must not matter."""

import numpy as np
import pytest
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sktda.attribution import TreeKernel
from sktda.objectives import DemographicParity, ValidationLoss, Weighted
from tests.in_turn import in_turn

TASKS = ["regression", "two classes", "three classes"]
KINDS = {
    "forest": (RandomForestRegressor, RandomForestClassifier, {"n_estimators": 7}),
    "shallow": (RandomForestRegressor, RandomForestClassifier, {"n_estimators": 7, "max_depth": 2, "max_samples": 0.6}),
    "extra": (ExtraTreesRegressor, ExtraTreesClassifier, {"n_estimators": 7, "max_depth": 4}),
    "bagging": (BaggingRegressor, BaggingClassifier, {"n_estimators": 7, "max_features": 0.7}),
    "boosting": (HistGradientBoostingRegressor, HistGradientBoostingClassifier, {"max_iter": 5}),
}
BOOTSTRAPPED = ["forest", "shallow", "bagging"]


def rows(task, n=90, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    z = X[:, 0] + X[:, 1] ** 2 + 0.4 * rng.normal(size=n)
    return X, {"regression": z, "two classes": (z > 1) * 1, "three classes": np.digitize(z, [0.3, 1.3])}[task]


def ensemble(kind, task, **options):
    regressor, classifier, own = KINDS[kind]
    return (regressor if task == "regression" else classifier)(**{"random_state": 0, **own, **options})


def one_hot(task, y):
    return y[:, None] if task == "regression" else (y[:, None] == np.arange(y.max() + 1)).astype(float)


def counted(kind, model, X, n):
    """(trees, n, n) share of the second row in the leaf of the first, in loops over the library's own leaves."""
    if kind == "boosting":
        stages = list(model.staged_decision_function(X) if hasattr(model, "classes_") else model.staged_predict(X))
        raw = np.concatenate([model._baseline_prediction.repeat(n, axis=0)[None], [s.reshape(n, -1) for s in stages]])
        leaves = np.round(np.diff(raw, axis=0), 10)
        leaves = np.concatenate(list(np.moveaxis(leaves, 2, 1)))
    elif kind == "bagging":
        parts = zip(model.estimators_, model.estimators_features_, strict=True)
        leaves = np.stack([tree.apply(X[:, columns]) for tree, columns in parts])
    else:
        leaves = model.apply(X).T
    shares = []
    for t, at in enumerate(leaves):
        drawn = np.ones(n)
        if kind in BOOTSTRAPPED:
            drawn = np.bincount(model.estimators_samples_[t], minlength=n)
        share = np.zeros((n, n))
        for e in range(n):
            there = (at == at[e]) * drawn
            share[e] = there / there.sum()
        shares.append(share)
    return np.array(shares)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_values_are_the_derivative_of_the_vote(kind, task):
    X, y = rows(task)
    found = TreeKernel(ensemble(kind, task)).fit(X, y)
    kernel = counted(kind, found.estimator_, X, len(y)).mean(axis=0)
    labels = one_hot(task, y)

    def loss(e, weights):
        vote = (kernel[e] * weights) @ labels / (kernel[e] @ weights)
        return 0.5 * ((vote - labels[e]) ** 2).sum()

    values = found.attribute(X[:4], y[:4])
    for e in range(4):
        for i in np.flatnonzero(kernel[e])[:6]:
            change = np.zeros(len(y))
            change[i] = 1e-5
            slope = (loss(e, 1 + change) - loss(e, 1 - change)) / 2e-5
            assert values[e, i] == pytest.approx(-slope, rel=1e-5, abs=1e-9)
        assert (values[e, kernel[e] == 0] == 0).all()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_sums_of_the_values_of_pairs(kind, task, monkeypatch):
    X, y = rows(task)
    alone = TreeKernel(ensemble(kind, task)).fit(X, y)
    values = alone.attribute(X, y)
    np.testing.assert_allclose(alone.scores_, -np.diag(values), rtol=1e-9, atol=1e-12)
    asked = TreeKernel(ensemble(kind, task)).fit(X, y, X_val=X[:20] + 0.1, y_val=y[:20])
    np.testing.assert_allclose(asked.scores_, asked.attribute(X[:20] + 0.1, y[:20]).mean(axis=0), atol=1e-12)
    monkeypatch.setattr("sktda.attribution.trees.base.TABLE_BYTES", 0)  # as of forests of very many leaves
    monkeypatch.setattr("sktda.attribution.trees.tree_kernel.ENTRIES", 1)
    np.testing.assert_allclose(alone.attribute(X, y), values, atol=1e-12)
    best, top = alone.top_k(X[:5], y[:5], 3)
    np.testing.assert_allclose(np.take_along_axis(values[:5], best, axis=1), top, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_labels_are_found(kind):
    X, y = rows("two classes", 300)
    wrong = np.random.default_rng(3).choice(300, 30, replace=False)
    planted = y.copy()
    planted[wrong] = 1 - planted[wrong]
    model = ensemble(kind, "two classes", **({"max_iter": 20} if kind == "boosting" else {"n_estimators": 40}))
    is_wrong = np.isin(np.arange(300), wrong)
    assert roc_auc_score(is_wrong, -TreeKernel(model).fit(X, planted).scores_) > 0.65
    new, labels = rows("two classes", 200, seed=5)
    assert roc_auc_score(is_wrong, -TreeKernel(model).fit(X, planted, X_val=new, y_val=labels).scores_) > 0.75


@in_turn(
    ("kind", "options"),
    [
        ("extra", {"class_weight": "balanced"}),
        ("extra", {"class_weight": "balanced_subsample"}),
        ("extra", {"class_weight": {0: 1, 1: 3}}),
        ("forest", {"class_weight": "balanced"}),
        ("bagging", {"estimator": DecisionTreeClassifier(max_depth=2)}),
    ],
)
@in_turn("weighed", [False, True])
def test_weights_are_those_of_the_training(kind, options, weighed):
    X, y = rows("two classes")
    weights = np.random.default_rng(1).uniform(0.3, 3, len(y)) if weighed else None
    found = TreeKernel(ensemble(kind, "two classes", **options)).fit(X, y, sample_weight=weights)
    assert np.abs(found.scores_).max() > 1e-4  # its votes are the forest's predictions, or it were refused


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["forest", "extra", "bagging"])
def test_a_frozen_forest_with_other_labels_or_weights_is_refused(kind, task):
    X, y = rows(task)
    model = FrozenEstimator(ensemble(kind, task, n_estimators=10).fit(X, y))
    assert np.isfinite(TreeKernel(model).fit(X, y).scores_).all()
    one = y.copy()
    one[0] = 1 - one[0]
    with pytest.raises(ValueError, match="does not predict the mean label"):
        TreeKernel(model).fit(X, one)
    with pytest.raises(ValueError, match="does not predict the mean label"):
        TreeKernel(model).fit(X[::-1], y)


def test_what_is_not_read_is_refused_by_name():
    X, y = rows("two classes")
    with pytest.raises(ValueError, match="balanced_subsample"):
        TreeKernel(ensemble("forest", "two classes", class_weight="balanced_subsample")).fit(X, y)
    with pytest.raises(ValueError, match="criterion='absolute_error'"):
        TreeKernel(ensemble("shallow", "regression", criterion="absolute_error")).fit(X, X[:, 0] + y)
    for model in (LogisticRegression(), BaggingClassifier(KNeighborsClassifier())):
        with pytest.raises(TypeError, match=f"TreeKernel reads ensembles of trees, and {type(model).__name__} is none"):
            TreeKernel(model).fit(X, y)


def test_objectives_of_shares_and_names_of_classes():
    X, y = rows("two classes")
    names = np.array(["no", "yes"])[y]
    both = Weighted([ValidationLoss(), DemographicParity("yes")])
    group = {"sensitive_features": X[:, 2] > 0}
    model = make_pipeline(StandardScaler(), ensemble("shallow", "two classes"))
    found = TreeKernel(model, objective=both).fit(X, names, X_val=X, y_val=names, metadata_val=group)
    share = found.estimator_.predict_proba(X)
    assert found.objectives_["ValidationLoss"].value == pytest.approx(((share[:, 1] - y) ** 2).mean())
    gap = share[X[:, 2] > 0, 1].mean() - share[X[:, 2] <= 0, 1].mean()
    assert found.objectives_["DemographicParity"].value == pytest.approx(abs(gap), abs=1e-6)
