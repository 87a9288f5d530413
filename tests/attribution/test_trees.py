"""BoostIn and LeafInfluence against the derivative that they are, a second implementation, and what must not matter."""

import pickle

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktda.attribution import BoostIn, LeafInfluence
from sktda.objectives import AdversarialLoss, ClassLoss, DemographicParity, Margin, ValidationLoss, Weighted

METHODS = [BoostIn, LeafInfluence]
TASKS = ["regression", "two classes", "three classes"]


def rows(task, n=70, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    z = X[:, 0] + X[:, 1] ** 2 + 0.4 * rng.normal(size=n)
    return X, {"regression": z, "two classes": (z > 1) * 1, "three classes": np.digitize(z, [0.3, 1.3])}[task]


def boosting(task, **options):
    kind = GradientBoostingRegressor if task == "regression" else GradientBoostingClassifier
    return kind(**{"n_estimators": 5, "max_depth": 2, "learning_rate": 0.3, "random_state": 0, **options})


def hist(task, **options):
    kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    chosen = {"max_iter": 8, "min_samples_leaf": 5, "learning_rate": 0.3, "early_stopping": False, **options}
    return kind(**chosen, random_state=0)


class Refitted:
    """Boosting with the trees of a GradientBoosting model, row by row in loops: the leaves' values follow the weights.

    held: whose outputs stay what they are in the model while weights change: "all", those of "others" than one row.
    """

    def __init__(self, model, task, X, y):
        self.task, self.y, self.rate = task, y, model.learning_rate
        self.trees = model.estimators_
        self.leaves = np.array(
            [[[t.apply(row[None].astype(np.float32))[0] for t in s] for s in self.trees] for row in X]
        )
        raw = model.predict(X[:1]) if task == "regression" else model.decision_function(X[:1])
        self.start = np.reshape(raw, -1) - sum(
            model.learning_rate * np.array([t.tree_.value[leaf, 0, 0] for t, leaf in zip(s, at, strict=True)])
            for s, at in zip(self.trees, self.leaves[0], strict=True)
        )
        self.own = self.run(np.ones(len(y)))

    def gradient(self, output, label):
        if self.task == "regression":
            return output - label, np.ones(1)
        if self.task == "two classes":
            p = expit(output)
            return p - label, p * (1 - p)
        p, k = softmax(output), len(output)
        return p - (np.arange(k) == label), k / (k - 1) * p * (1 - p)

    def run(self, weights, held="none", mover=None):
        """(steps) of dicts {(tree, leaf): what it adds}, and the outputs before each step (T + 1, n, K)."""
        n, T, K = self.leaves.shape
        before = np.tile(self.start, (T + 1, n, 1)).astype(float)
        steps = []
        for t in range(T):
            made = {}
            for k in range(K):
                for leaf in set(self.leaves[:, t, k].tolist()):
                    G = H = 0.0
                    for i in np.flatnonzero(self.leaves[:, t, k] == leaf):
                        kept = held == "all" or (held == "others" and i != mover)
                        g, h = self.gradient(self.own[1][t, i] if kept else before[t, i], self.y[i])
                        G, H = G + weights[i] * g[k], H + weights[i] * h[k]
                    made[k, leaf] = -self.rate * G / H
            for i in range(n):
                before[t + 1, i] = before[t, i] + [made[k, self.leaves[i, t, k]] for k in range(K)]
            steps.append(made)
        return steps, before

    def removal(self, i, held, measure):
        """Minus the derivative of measure(steps) by the weight of row i."""
        up, down = np.ones((2, len(self.y)))
        up[i], down[i] = 1 + 1e-4, 1 - 1e-4
        return -(measure(self.run(up, held, i)[0]) - measure(self.run(down, held, i)[0])) / 2e-4

    def added(self, steps, e):
        """(T, K) what every tree adds to the output of row e."""
        _, T, K = self.leaves.shape
        return np.array([[steps[t][k, self.leaves[e, t, k]] for k in range(K)] for t in range(T)])

    def slopes(self, e):
        """(T + 1, K) derivatives of the loss of row e by its output before each step, and at the end."""
        return np.array([self.gradient(output, self.y[e])[0] for output in self.own[1][:, e]])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_values_are_the_derivative_of_leaves_that_are_made_again(method, task):
    X, y = rows(task, 40)
    model = boosting(task, n_estimators=3).fit(X, y)
    brute = Refitted(model, task, X, y)
    np.testing.assert_allclose(brute.own[1][-1][:, 0], _first_output(model, task, X), atol=1e-8)
    found = method(FrozenEstimator(model)).fit(X, y).attribute(X[:3], y[:3])
    for e in range(3):
        slopes = brute.slopes(e)
        if method is BoostIn:  # a step's first-order effect on the loss, with what came before it as it is
            held, weigh = "all", slopes[:-1]
        else:
            held, weigh = "others", slopes[-1]
        for i in (0, 1, 7):
            expected = brute.removal(i, held, lambda steps, e=e, weigh=weigh: (weigh * brute.added(steps, e)).sum())
            assert found[e, i] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def _first_output(model, task, X):
    found = model.predict(X) if task == "regression" else model.decision_function(X)
    return found.reshape(len(X), -1)[:, 0]


@pytest.mark.parametrize("task", TASKS)
def test_a_single_step_of_leaf_influence_is_the_whole_derivative(task):
    X, y = rows(task, 40)
    model = boosting(task, n_estimators=1).fit(X, y)
    brute = Refitted(model, task, X, y)
    found = LeafInfluence(FrozenEstimator(model)).fit(X, y).attribute(X[:2], y[:2])
    for e, i in ((0, 0), (0, 5), (1, 9)):
        weigh = brute.slopes(e)[-1]
        expected = brute.removal(i, "none", lambda steps, e=e, weigh=weigh: (weigh * brute.added(steps, e)).sum())
        assert found[e, i] == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_boostin_is_the_papers_sum_in_loops(task):
    X, y = rows(task)
    model = boosting(task).fit(X, y)
    brute = Refitted(model, task, X, y)
    found = BoostIn(FrozenEstimator(model)).fit(X, y).attribute(X[:4], y[:4])
    expected = np.zeros((4, len(y)))
    steps, before = brute.own
    for e in range(4):
        for t, made in enumerate(steps):
            for k in range(before.shape[2]):
                leaf = brute.leaves[e, t, k]
                there = [i for i in range(len(y)) if brute.leaves[i, t, k] == leaf]
                mass = sum(brute.gradient(before[t, i], y[i])[1][k] for i in there)
                theta = made[k, leaf] / brute.rate
                q = brute.gradient(before[t, e], y[e])[0][k]
                for i in there:
                    g, h = brute.gradient(before[t, i], y[i])
                    expected[e, i] += q * brute.rate * (g[k] + theta * h[k]) / mass
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [boosting, hist])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_scores_are_sums_of_the_values_of_pairs(method, task, make):
    X, y = rows(task)
    alone = method(make(task)).fit(X, y)
    np.testing.assert_allclose(alone.scores_, -np.diag(alone.attribute(X, y)), rtol=1e-9, atol=1e-12)
    asked = method(make(task)).fit(X, y, X_val=X[:20] + 0.1, y_val=y[:20])
    values = asked.attribute(X[:20] + 0.1, y[:20])
    np.testing.assert_allclose(asked.scores_, values.mean(axis=0), rtol=1e-9, atol=1e-12)
    best, top = asked.top_k(X[:20] + 0.1, y[:20], 5)
    np.testing.assert_allclose(top, -np.sort(-values, axis=1)[:, :5])
    np.testing.assert_allclose(np.take_along_axis(values, best, axis=1), top)
    _, low = asked.top_k(X[:20] + 0.1, y[:20], 5, harmful=True)
    np.testing.assert_allclose(low, np.sort(values, axis=1)[:, :5])


@pytest.mark.parametrize("task", TASKS)
def test_rows_of_unregularised_boostin_that_share_a_leaf_sum_to_nothing(task):
    X, y = rows(task)
    values = BoostIn(boosting(task)).fit(X, y).attribute(X[:9], y[:9])
    assert np.abs(values).max() > 1e-4
    np.testing.assert_allclose(values.sum(axis=1), 0, atol=1e-10)  # G + H theta = 0 in every leaf


@pytest.mark.parametrize("task", TASKS)
def test_a_weight_is_so_many_copies_to_boostin(task):
    X, y = rows(task)
    times = np.random.default_rng(1).integers(1, 4, len(y))
    weighed = BoostIn(boosting(task, max_depth=3)).fit(X, y, sample_weight=times)
    copied = BoostIn(boosting(task, max_depth=3)).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    of = np.repeat(np.arange(len(y)), times)
    summed = np.stack([np.bincount(of, each) for each in copied.attribute(X[:5], y[:5])])
    np.testing.assert_allclose(summed, weighed.attribute(X[:5], y[:5]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_rows_does_not_matter(method):
    X, y = rows("two classes")
    order = np.random.default_rng(2).permutation(len(y))
    first = method(boosting("two classes")).fit(X, y, X_val=X, y_val=y)
    other = method(boosting("two classes")).fit(X[order], y[order], X_val=X, y_val=y)
    np.testing.assert_allclose(other.scores_, first.scores_[order], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("make", [boosting, hist])
@pytest.mark.parametrize("method", METHODS)
def test_wrong_labels_are_found(method, make):
    X, y = rows("two classes", 300)
    rng = np.random.default_rng(3)
    wrong = rng.choice(300, 30, replace=False)
    planted = y.copy()
    planted[wrong] = 1 - planted[wrong]
    is_wrong = np.isin(np.arange(300), wrong)
    own = method(make("two classes")).fit(X, planted).scores_
    new, labels = rows("two classes", 200, seed=5)
    asked = method(make("two classes")).fit(X, planted, X_val=new, y_val=labels).scores_
    assert roc_auc_score(is_wrong, -own) > 0.8
    assert roc_auc_score(is_wrong, -asked) > 0.8


# ---- objectives -----------------------------------------------------------------------------------------------------


def test_objectives_share_a_pass_and_add_up():
    X, y = rows("two classes")
    group = np.where(X[:, 2] > 0, "a", "b")
    both = Weighted([ValidationLoss(), DemographicParity()], [1.0, 0.5])
    given = {"X_val": X, "y_val": y, "metadata_val": {"sensitive_features": group}}
    found = BoostIn(boosting("two classes"), objective=both).fit(X, y, **given)
    parts = found.objectives_
    assert parts["DemographicParity"].groups is not None
    np.testing.assert_allclose(found.scores_, parts["ValidationLoss"].scores + 0.5 * parts["DemographicParity"].scores)
    alone = BoostIn(boosting("two classes"), objective=DemographicParity()).fit(X, y, **given)
    np.testing.assert_allclose(alone.scores_, parts["DemographicParity"].scores)
    p = alone.estimator_.predict_proba(X)[:, 1]
    assert parts["DemographicParity"].value == pytest.approx(abs(p[group == "a"].mean() - p[group == "b"].mean()))


@pytest.mark.parametrize("task", TASKS)
def test_an_objective_of_ones_own_is_what_the_same_one_of_ours_is(task):
    X, y = rows(task)

    def mean_loss(predict, X, y):
        return predict.likelihood.losses(predict(X), y).mean()

    own = BoostIn(boosting(task), objective=mean_loss).fit(X, y, X_val=X[:9], y_val=y[:9])
    ours = BoostIn(boosting(task)).fit(X, y, X_val=X[:9], y_val=y[:9])
    np.testing.assert_allclose(own.scores_, ours.scores_)
    assert own.objectives_["mean_loss"].value == pytest.approx(ours.objectives_["ValidationLoss"].value)


def test_a_class_by_its_name_and_margins_of_queries():
    X, y = rows("two classes")
    names = np.array(["no", "yes"])[y]
    one = BoostIn(boosting("two classes"), objective=ClassLoss("yes")).fit(X, names, X_val=X, y_val=names)
    values = BoostIn(boosting("two classes")).fit(X, names).attribute(X[y == 1], names[y == 1])
    np.testing.assert_allclose(one.scores_, values.mean(axis=0))
    margins = BoostIn(boosting("two classes"), objective=Margin()).fit(X, names, X_val=X, y_val=names)
    np.testing.assert_allclose(margins.scores_, margins.attribute(X, names).mean(axis=0))


def test_an_objective_that_moves_the_inputs_is_refused():
    X, y = rows("two classes")
    with pytest.raises(TypeError, match="no derivative by their inputs"):
        BoostIn(boosting("two classes"), objective=AdversarialLoss()).fit(X, y, X_val=X, y_val=y)


# ---- the contract ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_pipelines_frozen_models_and_pickles(method):
    X, y = rows("two classes")
    pipe = make_pipeline(StandardScaler(), hist("two classes"))
    trained = method(pipe).fit(X, y)
    frozen = method(FrozenEstimator(trained.estimator_)).fit(X, y)
    np.testing.assert_array_equal(frozen.scores_, trained.scores_)
    kept = method(FrozenEstimator(trained.estimator_), objective=None).fit(X, y)
    assert not hasattr(kept, "scores_")
    again = pickle.loads(pickle.dumps(trained))
    np.testing.assert_array_equal(again.attribute(X[:3], y[:3]), kept.attribute(X[:3], y[:3]))


def test_without_validation_rows_an_objective_is_cross_fitted():
    X, y = rows("two classes", 100)
    found = BoostIn(hist("two classes"), objective="validation").fit(X, y)
    assert found.scores_.shape == (100,)
    assert set(found.objectives_) == {"ValidationLoss"}


def test_blocks_do_not_change_the_numbers(monkeypatch):
    X, y = rows("three classes", 150)
    whole = BoostIn(hist("three classes")).fit(X, y, X_val=X[:70], y_val=y[:70])
    values = whole.attribute(X, y)
    monkeypatch.setattr("sktda.attribution.trees.steps.ENTRIES", 1)  # 64 rows at a time
    monkeypatch.setattr("sktda.attribution.trees.base.QUERIES", 7)
    monkeypatch.setattr("sktda.attribution.trees.base.TABLE_BYTES", 50_000)
    parts = BoostIn(hist("three classes")).fit(X, y, X_val=X[:70], y_val=y[:70])
    np.testing.assert_allclose(parts.scores_, whole.scores_)
    np.testing.assert_allclose(parts.attribute(X, y), values)


def test_what_is_no_boosted_ensemble_is_refused_by_name():
    X, y = rows("two classes")
    with pytest.raises(TypeError, match="BoostIn reads boosted trees, and LogisticRegression is none"):
        BoostIn(LogisticRegression()).fit(X, y)


def test_queries_are_checked():
    X, y = rows("two classes")
    found = BoostIn(hist("two classes")).fit(X, y)
    with pytest.raises(
        ValueError, match="labels that the HistGradientBoostingClassifier was not trained on, such as 5"
    ):
        found.attribute(X[:2], [0, 5])
    with pytest.raises(ValueError, match="no queries"):
        found.attribute(X[:0], y[:0])
    with pytest.raises(ValueError, match="k=71 is not between 1 and"):
        found.top_k(X[:2], y[:2], 71)
