"""Objectives: what "auto" means, what attribute explains, and callables of the user's own."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.utils import check_random_state

from sktda import Holdout, InfluencePruner
from sktda.attribution import Influence, InnerProduct, TracIn
from sktda.attribution.gradients.objective_gradients import resolve_objective
from sktda.model.likelihood import Binary, Gaussian
from sktda.model.recorder import TrajectoryRecorder
from sktda.model.softmax import Categorical
from sktda.objectives import AdversarialLoss, Margin, Output, Predict, ValidationLoss
from tests.model.nets import make_net, rows

N = 60
TWO = make_classification(N, 4, flip_y=0.2, random_state=1)
THREE = make_classification(N, 4, n_informative=3, n_redundant=0, n_classes=3, flip_y=0.1, random_state=2)
NUMBERS = make_regression(N, 4, noise=20.0, random_state=0)
EXACT = {"solver": "newton-cholesky", "tol": 1e-12}
METHODS = [TracIn, InnerProduct, Influence]


def mean_loss(predict, X, y):
    return predict.likelihood.losses(predict(X), y).mean()


def mean_margin(predict, X, y):
    return -predict.likelihood.margins(predict(X), y).mean()


def assert_close(found, expected, tolerance=1e-9):
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


# ---- which objective ------------------------------------------------------------------------------------------------


def test_what_auto_and_the_names_mean():
    assert resolve_objective("auto", has_validation=True) == ValidationLoss()
    assert resolve_objective("auto", has_validation=False) == "self"
    assert resolve_objective("self", has_validation=False) == "self"
    for given in (True, False):
        assert resolve_objective("validation", given) == ValidationLoss()
        assert resolve_objective(None, given) is None
        assert resolve_objective(Margin(), given) == Margin()
        assert resolve_objective(mean_loss, given) is mean_loss


@pytest.mark.parametrize("cls", METHODS)
def test_auto_follows_the_validation_rows(cls):
    X, y = TWO
    held = {"X_val": X[:20], "y_val": y[:20]}
    model = LogisticRegression()
    auto, own = cls(model).fit(X, y).scores_, cls(model, objective="self").fit(X, y).scores_
    np.testing.assert_array_equal(auto, own)
    loss = cls(model, objective="validation").fit(X, y, **held).scores_
    np.testing.assert_array_equal(cls(model).fit(X, y, **held).scores_, loss)
    np.testing.assert_array_equal(cls(model, objective=ValidationLoss()).fit(X, y, **held).scores_, loss)


@pytest.mark.parametrize("cls", METHODS)
def test_what_is_refused(cls):
    X, y = TWO
    held = {"X_val": X[:20], "y_val": y[:20]}
    with pytest.raises(ValueError, match=r"objective='self' does not use validation rows.*'validation' or 'auto'"):
        cls(LogisticRegression(), objective="self").fit(X, y, **held)
    with pytest.raises(ValueError, match=r"objective='accuracy' is not one of 'auto', 'self', 'validation'"):
        cls(LogisticRegression(), objective="accuracy").fit(X, y)
    with pytest.raises(ValueError, match=r"objective=3 is not one of"):
        cls(LogisticRegression(), objective=3).fit(X, y)
    with pytest.raises(TypeError, match=r"objective=Margin is a class; give an instance, Margin\(\)"):
        cls(LogisticRegression(), objective=Margin).fit(X, y, **held)
    with pytest.raises(ValueError, match="X_val came without y_val"):
        cls(LogisticRegression(), objective=Margin()).fit(X, y, X_val=X)


@pytest.mark.parametrize("cls", METHODS)
def test_none_prepares_attribute_only(cls):
    X, y = TWO
    attributor = cls(LogisticRegression(), objective=None).fit(X, y)
    assert not hasattr(attributor, "scores_")
    expected = cls(LogisticRegression()).fit(X, y).attribute(X[:5], y[:5])
    np.testing.assert_array_equal(attributor.attribute(X[:5], y[:5]), expected)
    with pytest.raises(ValueError, match=r"has no scores_ after fit .*give it an objective"):
        InfluencePruner(LogisticRegression(), cls(objective=None)).fit(X, y)


@pytest.mark.parametrize("cls", METHODS)
def test_a_frozen_estimator_without_validation_rows_prepares_attribute_only(cls):
    X, y = TWO
    frozen = FrozenEstimator(LogisticRegression().fit(X, y))
    for objective in ("validation", Margin(), mean_loss):
        attributor = cls(frozen, objective=objective).fit(X, y)
        assert not hasattr(attributor, "scores_")
        assert attributor.attribute(X[:2], y[:2]).shape == (2, N)


# ---- what an objective is worth -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", METHODS)
@pytest.mark.parametrize(
    ("model", "data"),
    [
        (LogisticRegression(), TWO),
        (LogisticRegression(class_weight={0: 1, 1: 4, 2: 0.5}), THREE),
        (LogisticRegression(class_weight="balanced"), THREE),
        (Ridge(), NUMBERS),
        (RidgeClassifier(class_weight="balanced"), THREE),
    ],
    ids=["logistic", "weighted", "balanced", "ridge", "ridge classifier"],
)
def test_an_objective_object_equals_the_callable_that_says_the_same(cls, model, data):
    X, y = data
    held = {"X_val": X[:20], "y_val": y[:20]}
    for objective, function in ((ValidationLoss(), mean_loss), (Margin(), mean_margin)):
        found = cls(model, objective=objective, batch_size=7).fit(X, y, **held).scores_
        expected = cls(model, objective=function).fit(X, y, **held).scores_
        assert_close(found, expected)
        assert np.abs(found).max() > 0


def test_an_objective_follows_the_checkpoints():
    X, y = rows()
    net = FrozenEstimator(make_net(TrajectoryRecorder(n_checkpoints=3)).fit(X, y))
    held = {"X_val": X[:9], "y_val": y[:9]}
    for objective, function in ((ValidationLoss(), mean_loss), (Margin(), mean_margin)):
        found = TracIn(net, objective=objective).fit(X, y, **held).scores_
        assert_close(TracIn(net, objective=function).fit(X, y, **held).scores_, found, 1e-5)
        assert_close(TracIn(net, objective=objective).fit(X, y).attribute(X[:9], y[:9]).mean(axis=0), found, 1e-5)


@pytest.mark.parametrize("data", [TWO, THREE], ids=["two", "three"])
def test_margin_is_what_attribute_explains(data):
    """Refits with one weight nudged: minus log p + log(1 - p) of the right class."""
    X, y = data
    influence = Influence(LogisticRegression(**EXACT), objective=Margin()).fit(X, y, X_val=X[:5], y_val=y[:5])
    values = influence.attribute(X[:5], y[:5])

    def margins(row, nudge):
        weights = np.ones(N)
        weights[row] += nudge
        p = LogisticRegression(**EXACT).fit(X, y, sample_weight=weights).predict_proba(X[:5])[np.arange(5), y[:5]]
        return -np.log(p / (1 - p))

    change = np.stack([(margins(row, -1e-3) - margins(row, 1e-3)) / 2e-3 for row in range(N)], axis=1)
    np.testing.assert_allclose(values, change, rtol=1e-3, atol=1e-4 * np.abs(change).max())
    assert_close(influence.scores_, values.mean(axis=0))


def test_margin_of_a_regression_is_the_absolute_error():
    X, y = NUMBERS
    influence = Influence(Ridge(solver="cholesky"), objective=Margin()).fit(X, y, X_val=X[:5], y_val=y[:5])
    values = influence.attribute(X[:5], y[:5])

    def errors(row, nudge):
        weights = np.ones(N)
        weights[row] += nudge
        return np.abs(Ridge(solver="cholesky").fit(X, y, sample_weight=weights).predict(X[:5]) - y[:5])

    change = np.stack([(errors(row, -1e-3) - errors(row, 1e-3)) / 2e-3 for row in range(N)], axis=1)
    np.testing.assert_allclose(values, change, rtol=1e-3, atol=1e-4 * np.abs(change).max())


def test_the_self_objective_with_a_margin_does_not_exist():
    """An objective object without validation rows is cross-fitted, never silently the self-influence."""
    X, y = TWO
    found = Influence(LogisticRegression(), objective=Margin(), random_state=0).fit(X, y).scores_
    assert not np.allclose(found, Influence(LogisticRegression()).fit(X, y).scores_)
    assert found.max() > 0


def test_per_row_by_hand():
    logits, codes = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]]), torch.tensor([0, 1])
    predict = Predict(lambda X: logits, Categorical())
    p = logits.softmax(1)[[0, 1], codes]
    torch.testing.assert_close(ValidationLoss().per_row(predict, None, codes), -p.log())
    torch.testing.assert_close(Margin().per_row(predict, None, codes), -(p / (1 - p)).log())
    torch.testing.assert_close(Margin()(predict, None, codes), -(p / (1 - p)).log().mean())
    one, labels = torch.tensor([[2.0], [-1.0]]), torch.tensor([[1.0], [1.0]])
    torch.testing.assert_close(
        Margin().per_row(Predict(lambda X: one, Binary()), None, labels), torch.tensor([-2.0, 1.0])
    )
    torch.testing.assert_close(
        ValidationLoss()(Predict(lambda X: one, Gaussian()), None, labels), torch.tensor((1 + 4) / 2)
    )


# ---- callables ------------------------------------------------------------------------------------------------------


class Gap:
    """Difference of the mean outputs of two groups; keeps what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, predict, X, y, group=None, share=None):
        self.calls.append((X, y, group, share))
        outputs = predict(X)[:, 0].sigmoid()
        return (outputs[group == 1].mean() - outputs[group == 0].mean()).abs()


def test_metadata_reach_the_callable():
    X, y = TWO
    group = (X[:20, 1] > 0).astype(int)
    gap = Gap()
    found = Influence(LogisticRegression(**EXACT), objective=gap).fit(
        X, y, X_val=X[:20], y_val=y[:20], metadata_val={"group": group, "share": np.linspace(0, 1, 20)}
    )
    inputs, targets, given, share = gap.calls[0]
    np.testing.assert_array_equal(inputs, X[:20])
    np.testing.assert_array_equal(targets[:, 0], y[:20])
    assert isinstance(given, torch.Tensor)
    np.testing.assert_array_equal(given, group)
    assert share.shape == (20,)

    def value(row, nudge):
        weights = np.ones(N)
        weights[row] += nudge
        p = LogisticRegression(**EXACT).fit(X, y, sample_weight=weights).predict_proba(X[:20])[:, 1]
        return abs(p[group == 1].mean() - p[group == 0].mean())

    change = np.array([(value(row, -1e-3) - value(row, 1e-3)) / 2e-3 for row in range(N)])
    np.testing.assert_allclose(found.scores_, change, rtol=1e-3, atol=1e-4 * np.abs(change).max())


def test_metadata_of_a_holdout_reach_the_callable_through_a_cleaner():
    X, y = TWO
    gap = Gap()
    holdout = Holdout(X[:20], y[:20], group=(X[:20, 1] > 0).astype(int))
    pruner = InfluencePruner(LogisticRegression(), Influence(objective=gap), validation=holdout).fit(X[20:], y[20:])
    assert pruner.n_pruned_ == 4
    direct = Influence(LogisticRegression(), objective=Gap()).fit(
        X[20:], y[20:], X_val=X[:20], y_val=y[:20], metadata_val=holdout.metadata
    )
    np.testing.assert_array_equal(pruner.scores_, direct.scores_)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda predict, X, y: predict.likelihood.losses(predict(X), y),
        lambda predict, X, y: 1.0,
        lambda predict, X, y: torch.tensor(1.0),
        lambda predict, X, y: predict(X).detach().mean(),
        lambda predict, X, y: None,
    ],
    ids=["a vector", "a float", "a constant", "cut off", "nothing"],
)
@pytest.mark.parametrize("cls", METHODS)
def test_a_callable_that_returns_the_wrong_thing(cls, wrong):
    X, y = TWO
    with pytest.raises(TypeError, match="the objective must return a 0-d tensor"):
        cls(LogisticRegression(), objective=wrong).fit(X, y, X_val=X[:20], y_val=y[:20])


# ---- cross-fitting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "model"),  # every method with two models, every model with two methods
    [(METHODS[(k + other) % 3], model) for k, model in enumerate([LogisticRegression(), RidgeClassifier(), Ridge()])
     for other in (0, 1)],
    ids=str,
)  # fmt: skip
def test_rows_are_scored_by_the_other_folds_without_validation_rows(cls, model):
    """Mean over the four folds that a row trains in, each with its own n."""
    X, y = NUMBERS if isinstance(model, Ridge) else THREE
    found = cls(model, objective="validation", random_state=7).fit(X, y).scores_
    # the draws of fit before the folds': one for the training of the whole
    seed = check_random_state(7).randint(2**31 - 1)
    kind = KFold if isinstance(model, Ridge) else StratifiedKFold
    total, times = np.zeros(N), np.zeros(N)
    for train, held in kind(5, shuffle=True, random_state=seed).split(X, y):
        part = cls(clone(model)).fit(X[train], y[train], X_val=X[held], y_val=y[held])
        total[train] += part.scores_
        times[train] += 1
    assert (times == 4).all()
    assert_close(found, total / 4, 1e-6)
    weights = np.random.default_rng(0).uniform(0.5, 2, N)
    weights[3] = 0
    assert cls(model, objective="validation", random_state=7).fit(X, y, sample_weight=weights).scores_[3] == 0


@pytest.mark.parametrize("cls", METHODS)
def test_cross_fitting_keeps_every_class_in_every_fold(cls):
    X, y = THREE
    order = np.argsort(y, kind="stable")
    names = np.array(["ant", "bee", "cat"])[y][order]
    assert np.isfinite(
        cls(LogisticRegression(), objective="validation", random_state=0).fit(X[order], names).scores_
    ).all()


def test_cross_fitting_of_a_cleaner_with_a_margin():
    X, y = THREE
    pruner = InfluencePruner(LogisticRegression(), Influence(objective=Margin()), random_state=0).fit(X, y)
    assert pruner.n_pruned_ == 6
    assert pruner.scores_.min() < 0 < pruner.scores_.max()


@pytest.mark.parametrize("objective", [Output(), AdversarialLoss("pgd", eps=2.0)], ids=["output", "adversarial"])
def test_one_label_per_row_is_its_class_also_where_some_label_does_not_count(objective):
    X, y = rows(30)

    def scores(ignored, y_val):
        criterion = torch.nn.CrossEntropyLoss(ignore_index=ignored)
        net = make_net(criterion=criterion).fit(X, y)
        method = InnerProduct(FrozenEstimator(net), objective=objective)
        return method.fit(X, y, X_val=X, y_val=y_val).objectives_[type(objective).__name__].value

    expected = scores(-100, y)
    assert scores(255, y) == pytest.approx(expected, rel=1e-6)
    without = np.where(np.arange(30) < 10, 255, y)
    net = make_net().fit(X, y)
    method = InnerProduct(FrozenEstimator(net), objective=objective).fit(X, y, X_val=X[10:], y_val=y[10:])
    # 0 where the label does not count, in a mean over 30
    assert scores(255, without) == pytest.approx(method.objectives_[type(objective).__name__].value * 20 / 30, rel=1e-6)
