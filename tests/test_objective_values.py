"""Objectives at a model: values by plain NumPy, gradients by finite differences, what is settled, attacks on inputs."""

import itertools
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, logit
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sktda.attribution import InnerProduct
from sktda.objectives import (
    AdversarialLoss,
    ClassLoss,
    DemographicParity,
    EqualOpportunity,
    Margin,
    Output,
    SliceLoss,
    ValidationLoss,
    Weighted,
)
from sktda.objectives.weighted import needed
from tests.attribution.run_reference import Perceptron
from tests.in_turn import in_turn

N = 60
TWO = make_classification(N, 4, flip_y=0.2, random_state=1)
THREE = make_classification(N, 4, n_informative=3, n_redundant=0, n_classes=3, flip_y=0.1, random_state=2)
RNG = np.random.default_rng(0)
SEX, RACE = RNG.integers(0, 2, N), RNG.permutation(np.arange(N) % 5)


def net(width=2, X=TWO[0], y=TWO[1], cls=NeuralNetClassifier, **options):
    torch.manual_seed(0)
    settings = {"criterion": nn.CrossEntropyLoss, "max_epochs": 15, "lr": 0.3, "batch_size": 10} | options
    made = cls(Perceptron, module__widths=(4, 6, width), train_split=None, verbose=0, **settings)
    return made.fit(X, y)


@cache
def model(name):
    """A fitted model; do not change it."""
    return {
        "logistic": lambda: LogisticRegression().fit(*TWO),
        "named": lambda: LogisticRegression().fit(TWO[0], np.array(["no", "yes"])[TWO[1]]),
        "three": lambda: LogisticRegression().fit(*THREE),
        "mlp": lambda: MLPClassifier((5,), activation="tanh", max_iter=60, random_state=0).fit(*TWO),
        "net": net,
        "net of three": lambda: net(3, *THREE),
        "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(*TWO),
        "ridge": lambda: Ridge().fit(*TWO),
    }[name]()


def data(name):
    X, y = THREE if "three" in name else TWO
    return (X, np.array(["no", "yes"])[y]) if name == "named" else (X, y)


def quiet(name):
    """Without the warning of an MLPClassifier that would train on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sklearn.neural_network._multilayer_perceptron.warnings.warn", lambda *args, **kwargs: None)
        return model(name)


def asked_of(name, objective, X=None, y=None, batch_size="auto", **metadata):
    """(the question, the torch model, its rows as tensors)."""
    trained = data(name)
    X, y = (trained[0] if X is None else X), (trained[1] if y is None else y)
    attributor = InnerProduct(FrozenEstimator(quiet(name)), objective=None, batch_size=batch_size).fit(*trained)
    fitted = attributor._ready()
    asked = attributor._asked_about(objective, fitted, X, y, metadata)
    return asked, fitted.model, asked.rows.block(slice(0, len(asked.rows)), fitted.model.device)[:2]


def value_of(name, objective, **options):
    """Its value, as an attributor keeps it and as the objective is called."""
    asked, _, (X, y) = asked_of(name, objective, **options)
    metadata = {key: value for key, value in options.items() if key not in {"X", "y", "batch_size"}}
    with torch.no_grad():
        called = float(objective(asked.predict, X, y, **metadata))
    np.testing.assert_allclose(asked.values, called, rtol=1e-12)
    return called


def losses_of(name):
    X, y = data(name)
    estimator = quiet(name)
    codes = np.searchsorted(np.unique(y), y)
    return -np.log(estimator.predict_proba(X)[np.arange(N), codes])


# ---- values ----------------------------------------------------------------------------------------------------------

CLASSIFIERS = ["logistic", "named", "three", "mlp", "net", "net of three", "pipeline"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_losses_by_numpy(name):
    y = data(name)[1]
    losses = losses_of(name)
    p = np.exp(-losses)
    close = {"rtol": 1e-9}
    np.testing.assert_allclose(value_of(name, ValidationLoss()), losses.mean(), **close)
    np.testing.assert_allclose(value_of(name, Margin()), -np.log(p / (1 - p)).mean(), **close)
    for label in np.unique(y):
        np.testing.assert_allclose(value_of(name, ClassLoss(label)), losses[y == label].mean(), **close)
    for group in range(5):
        found = value_of(name, SliceLoss(group, metadata="race"), race=RACE)
        np.testing.assert_allclose(found, losses[group == RACE].mean(), **close)
    worst = max(losses[group == RACE].mean() for group in range(5))
    np.testing.assert_allclose(value_of(name, SliceLoss(metadata="race"), race=RACE), worst, **close)


def test_outputs_by_numpy():
    for name in ("logistic", "three"):
        X, y = data(name)
        outputs = quiet(name).decision_function(X).reshape(N, -1)
        own = outputs[:, 0] if name == "logistic" else outputs[np.arange(N), np.searchsorted(np.unique(y), y)]
        np.testing.assert_allclose(value_of(name, Output()), own.mean(), rtol=1e-9)
        last = outputs.shape[1] - 1
        np.testing.assert_allclose(value_of(name, Output(column=last)), outputs[:, last].mean(), rtol=1e-9)
        with pytest.raises(ValueError, match=f"column={last + 1} is not one of the {last + 1} outputs"):
            value_of(name, Output(column=last + 1))


def gap_of(values, groups, among=None):
    """(largest mean minus smallest, its group, the other's)."""
    among = np.ones(len(values), dtype=bool) if among is None else among
    means = {group: values[(groups == group) & among].mean() for group in np.unique(groups)}
    ahead, behind = max(means, key=means.get), min(means, key=means.get)
    return means[ahead] - means[behind], (str(ahead), str(behind))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_gaps_by_numpy(name):
    """Of two groups and of five by turns: every gap of every model has both, each with another class."""
    X, y = data(name)
    p, losses = quiet(name).predict_proba(X), losses_of(name)
    classes = list(np.unique(y))
    for turn, positive in enumerate(classes if len(classes) > 2 else [None, *classes]):
        k = 1 if positive is None else classes.index(positive)
        cases = [
            (DemographicParity(positive), p[:, k], None),
            (DemographicParity(positive, 4.0), expit(4 * logit(p[:, k])), None),
            (EqualOpportunity("rate", positive, 0.5), expit(0.5 * logit(p[:, k])), y == classes[k]),
            (EqualOpportunity(positive=positive), p[:, k], y == classes[k]),
            (EqualOpportunity("loss", positive), losses, y == classes[k]),
        ]
        for groups, (objective, values, among) in zip(itertools.cycle([SEX, RACE][:: 1 - 2 * (turn % 2)]), cases):
            expected, pair = gap_of(values, groups, among)
            asked, _, (inputs, targets) = asked_of(name, objective, sensitive_features=groups)
            np.testing.assert_allclose(asked.values, expected, atol=1e-9)
            called = objective(asked.predict, inputs, targets, sensitive_features=groups).detach()
            np.testing.assert_allclose(called, expected, atol=1e-9)
            assert asked.groups == [pair]


@in_turn(
    "features",
    [
        np.array(["f", "m"])[SEX],
        SEX.astype(bool),
        SEX.astype(float),
        SEX.astype(np.int8),
        SEX.tolist(),
        pd.Series(SEX, index=np.arange(N)[::-1]),
        pd.Series(np.array(["f", "m"])[SEX], dtype="category"),
        pd.DataFrame({"sex": SEX}),
        SEX[:, None],
        torch.from_numpy(SEX),
    ],
)
def test_groups_in_every_form(features):
    expected = gap_of(quiet("logistic").predict_proba(TWO[0])[:, 1], SEX)[0]
    np.testing.assert_allclose(value_of("logistic", DemographicParity(), sensitive_features=features), expected)


@pytest.mark.parametrize("form", [np.column_stack, lambda parts: pd.DataFrame({"sex": parts[0], "race": parts[1]})])
def test_several_features_make_groups_together(form):
    group = np.array([f"{a}, {b}" for a, b in zip(SEX, RACE, strict=True)])
    expected, pair = gap_of(quiet("logistic").predict_proba(TWO[0])[:, 1], group)
    asked = asked_of("logistic", DemographicParity(), sensitive_features=form([SEX, RACE]))[0]
    np.testing.assert_allclose(asked.values, expected)
    assert asked.groups == [pair]


def test_features_whose_text_runs_together_stay_apart():
    first, second = np.array(["a", "a, b"] * (N // 2), dtype=object), np.array(["b, c", "c"] * (N // 2), dtype=object)
    asked = asked_of("logistic", DemographicParity(), sensitive_features=np.column_stack([first, second]))[0]
    p = quiet("logistic").predict_proba(TWO[0])[:, 1]
    np.testing.assert_allclose(asked.values, gap_of(p, np.arange(N) % 2)[0])


def test_a_weighted_sum():
    objective = Weighted({"loss": ValidationLoss(), "gap": DemographicParity(), "no": Margin()}, [2, 0.5, 0])
    assert needed(objective) == {"sensitive_features"}
    asked, _, (X, y) = asked_of("logistic", objective, sensitive_features=SEX)
    loss, gap = losses_of("logistic").mean(), gap_of(quiet("logistic").predict_proba(TWO[0])[:, 1], SEX)[0]
    assert asked.names == ["loss", "gap", "no"]
    np.testing.assert_allclose(asked.values[:2], [loss, gap])
    called = objective(asked.predict, X, y, sensitive_features=SEX)
    np.testing.assert_allclose(float(called.detach()), 2 * loss + 0.5 * gap)


def test_names_of_weighted_objectives():
    def mine(predict, X, y):
        return predict(X).mean()

    several = Weighted([ClassLoss(0), ClassLoss(1), mine, ClassLoss(2), mine])
    assert list(several.named) == ["ClassLoss", "ClassLoss 2", "mine", "ClassLoss 3", "mine 2"]
    assert several.shares == [1.0] * 5
    for wrong in ([], [ValidationLoss], [several], ["validation"], {}):
        with pytest.raises(ValueError, match="Weighted takes objectives or callables"):
            Weighted(wrong)
    with pytest.raises(ValueError, match="1 weights came for 2 objectives"):
        Weighted([ValidationLoss(), Margin()], [1])


# ---- gradients -------------------------------------------------------------------------------------------------------

OBJECTIVES = {
    "loss": ValidationLoss(),
    "margin": Margin(),
    "output": Output(),
    "class": ClassLoss(1),
    "slice": SliceLoss(2, metadata="race"),
    "worst slice": SliceLoss(metadata="race"),
    "parity": DemographicParity(positive=1),
    "sharp parity": DemographicParity(positive=1, sharpness=3.0),
    "opportunity": EqualOpportunity(positive=1),
    "opportunity of losses": EqualOpportunity("loss", positive=1),
    "adversarial": AdversarialLoss(eps=0.2),
    "fgsm": AdversarialLoss("fgsm", eps=0.2),
}
GROUPS = {"sensitive_features": SEX, "race": RACE}
EXACT = ["logistic", "three", "mlp", "net", "net of three"]


def tensors(metadata=GROUPS):
    return {name: torch.from_numpy(value) for name, value in metadata.items()}


def differences(model, value):
    """By parameter, central differences of value() at the model's parameters."""
    found = {}
    for name, parameter in model.parameters.items():
        flat, slope = parameter.data.view(-1), []
        for k in range(len(flat)):
            kept = float(flat[k])
            ends = []
            for step in (1e-5, -1e-5):
                flat[k] = kept + step
                with torch.no_grad():
                    ends.append(float(value()))
            flat[k] = kept
            slope.append((ends[0] - ends[1]) / 2e-5)
        found[name] = np.reshape(slope, parameter.shape)
    return found


def assert_slopes(found, expected, tolerance=1e-6):
    scale = max(np.abs(value).max() for value in expected.values())
    assert scale > 0
    for name, value in expected.items():
        assert np.abs(found[name] - value).max() <= tolerance * scale, name


@pytest.mark.parametrize(
    ("objective", "name"),
    [(objective, EXACT[(k + other) % len(EXACT)]) for k, objective in enumerate(OBJECTIVES) for other in (0, 2)],
)
def test_gradients_by_finite_differences(objective, name):
    """At the trained model, and at others while what was settled there stays; two models for each, by turns."""
    objective = OBJECTIVES[objective]
    asked, torch_model, (X, y) = asked_of(name, objective, batch_size=7, **GROUPS)
    assert torch_model.dtype == torch.float64
    with torch.no_grad():
        settled = objective.settled(asked.predict, X, y, **tensors()) if hasattr(objective, "settled") else None

    def value():
        return objective(asked.predict, X, y) if settled is None else settled.value(asked.predict, X, y)

    for scale in (1.0, -0.5):
        with torch.no_grad():
            for parameter in torch_model.parameters.values():
                parameter.mul_(scale)
        found = {key: slope[0].numpy() for key, slope in asked.gradients().items()}
        assert_slopes(found, differences(torch_model, value))


@pytest.mark.parametrize("name", ["logistic", "mlp", "net"])
def test_a_gap_keeps_the_sign_that_it_has_at_the_trained_model(name):
    """With the opposite parameters the other group is ahead: the gradient goes on along the signed gap."""
    asked, torch_model, (X, _) = asked_of(name, DemographicParity(), sensitive_features=SEX)
    ahead = torch.from_numpy(int(asked.groups[0][0]) == SEX)

    def gap():
        outputs = torch_model.module(X)
        p = outputs.softmax(1)[:, 1] if outputs.shape[1] == 2 else outputs[:, 0].sigmoid()
        return p[ahead].mean() - p[~ahead].mean()

    assert gap() > 0
    with torch.no_grad():
        last = list(torch_model.parameters.values())[-2:]
        for parameter in last:
            parameter.mul_(-1)
    assert gap() < 0
    found = {key: slope[0].numpy() for key, slope in asked.gradients().items()}
    assert_slopes(found, differences(torch_model, gap))


def test_attacked_inputs_stay_those_of_the_trained_model():
    asked, torch_model, (X, y) = asked_of("net", AdversarialLoss(eps=0.3))
    with torch.no_grad():
        moved = AdversarialLoss(eps=0.3).perturbed(asked.predict, X, y)
        for parameter in torch_model.parameters.values():
            parameter.mul_(0.7)
    own = list(torch_model.parameters.values())
    expected = torch.autograd.grad(nn.functional.cross_entropy(torch_model.module(moved), y), own)
    for found, slope in zip(asked.gradients().values(), expected, strict=True):
        torch.testing.assert_close(found[0], slope)


def test_gradients_of_several_and_their_sum():
    weights = [1, -2, 0.5]
    several = Weighted([ValidationLoss(), DemographicParity(), lambda predict, X, y, **_: predict(X).mean()], weights)
    asked, _, _ = asked_of("net", several, sensitive_features=SEX)
    each = [asked_of("net", one, sensitive_features=SEX)[0].gradients() for one in several.named.values()]
    found, total = asked.gradients(), asked.gradient()
    for name in found:
        parts = torch.cat([one[name] for one in each])
        torch.testing.assert_close(found[name], parts)
        torch.testing.assert_close(total[name], torch.einsum("k,k...->...", torch.tensor(weights).double(), parts))


# ---- attacks ---------------------------------------------------------------------------------------------------------


def attacked(name, objective, batch_size="auto", **options):
    asked, _, (X, y) = asked_of(name, objective, batch_size=batch_size, **options)
    return objective.perturbed(asked.predict, X, y).numpy(), X.numpy()


@pytest.mark.parametrize("gamma", [0.5, 1.3, 2.0])
def test_the_linear_attack_is_the_closed_form(gamma):
    estimator, (X, y) = quiet("logistic"), TWO
    w, b = estimator.coef_[0], estimator.intercept_[0]
    expected = X - gamma * ((X @ w + b) / (w @ w))[:, None] * w
    right = estimator.predict(X) == y
    assert 0 < right.sum() < N
    found, _ = attacked("logistic", AdversarialLoss("linear", gamma=gamma))
    np.testing.assert_allclose(found[right], expected[right], atol=1e-12)
    np.testing.assert_array_equal(found[~right], X[~right])
    np.testing.assert_array_equal(found, attacked("logistic", AdversarialLoss(gamma=gamma))[0], "what auto means")
    changed = estimator.predict(found) != estimator.predict(X)
    np.testing.assert_array_equal(changed, right & (gamma > 1))


@pytest.mark.parametrize("gamma", [0.99, 1.01])
def test_the_linear_attack_crosses_the_nearest_of_several_boundaries(gamma):
    estimator, (X, y) = quiet("three"), THREE
    right = estimator.predict(X) == y
    found, _ = attacked("three", AdversarialLoss("linear", gamma=gamma))
    np.testing.assert_array_equal(estimator.predict(found) != estimator.predict(X), right & (gamma > 1))
    np.testing.assert_array_equal(found[~right], X[~right])
    score = estimator.decision_function(X)
    own = score[np.arange(N), y]
    apart = np.linalg.norm(estimator.coef_[y][:, None] - estimator.coef_, axis=2)
    with np.errstate(invalid="ignore"):
        distance = np.nanmin((own[:, None] - score) / apart, axis=1)
    np.testing.assert_allclose(np.linalg.norm(found - X, axis=1)[right], gamma * distance[right])


def test_the_nearest_boundary_is_not_that_of_the_smallest_margin():
    """The margin to class 1 is 1 at a distance of 1/10, that to class 2 is 0.5 at a distance of 1/2."""
    estimator = LogisticRegression().fit(*THREE)
    estimator.coef_ = np.array([[0.0, 0, 0, 0], [-10, 0, 0, 0], [0, -1, 0, 0]])
    estimator.intercept_ = np.zeros(3)
    X, y = np.array([[0.1, 0.5, 0, 0]]), np.array([0])
    attributor = InnerProduct(FrozenEstimator(estimator), objective=None).fit(*THREE)
    asked = attributor._asked_about(ValidationLoss(), attributor._ready(), X, y, {})
    moved = AdversarialLoss(gamma=1.5).perturbed(asked.predict, torch.from_numpy(X), torch.from_numpy(y))
    np.testing.assert_allclose(moved, [[-0.05, 0.5, 0, 0]], atol=1e-12)
    X = np.array([[0.4, 0.3, 0, 0]])  # 0.4 from the one, 0.3 from the other
    moved = AdversarialLoss(gamma=1.5).perturbed(asked.predict, torch.from_numpy(X), torch.from_numpy(y))
    np.testing.assert_allclose(moved, [[0.4, -0.15, 0, 0]], atol=1e-12)


def test_the_value_is_the_loss_of_the_moved_rows():
    found, _ = attacked("logistic", AdversarialLoss())
    p = quiet("logistic").predict_proba(found)[np.arange(N), TWO[1]]
    np.testing.assert_allclose(value_of("logistic", AdversarialLoss()), -np.log(p).mean())
    moved, _ = attacked("net", AdversarialLoss("fgsm", eps=0.2))
    p = quiet("net").predict_proba(moved)[np.arange(N), TWO[1]]
    np.testing.assert_allclose(value_of("net", AdversarialLoss("fgsm", eps=0.2)), -np.log(p).mean())


def row_losses(name, X):
    return -np.log(quiet(name).predict_proba(X)[np.arange(N), data(name)[1]])


@pytest.mark.parametrize("name", ["net", "net of three", "mlp"])
@pytest.mark.parametrize("bounds", [None, (-4.5, 4.5)])
def test_attacks_stay_in_their_box_and_raise_the_loss(name, bounds):
    eps, (X, y) = 0.3, data(name)
    right = quiet(name).predict(X) == y
    losses = {"none": row_losses(name, X)}
    for attack in ("fgsm", "pgd"):
        moved, _ = attacked(name, AdversarialLoss(attack, eps=eps, bounds=bounds))
        assert np.abs(moved - X).max() <= eps * (1 + 1e-12)
        assert bounds is None or np.abs(moved).max() <= bounds[1]
        np.testing.assert_array_equal(moved[~right], X[~right])
        assert (np.abs(moved - X)[right].max(axis=1) > 0).all()
        losses[attack] = row_losses(name, moved)
        assert (losses[attack] >= losses["none"] - 1e-9).mean() > 0.95
    assert losses["none"].mean() < losses["fgsm"].mean()
    assert losses["fgsm"].mean() <= losses["pgd"].mean() + 1e-6
    np.testing.assert_array_equal(attacked(name, AdversarialLoss(eps=eps, bounds=bounds))[0], moved, "what auto means")


def test_bounds_are_kept_where_they_bite():
    X = np.clip(TWO[0], -1, 1)
    objective = AdversarialLoss("pgd", eps=0.3, bounds=(-1, 1))
    moved, _ = attacked("net", objective, X=X, y=TWO[1])
    assert np.abs(moved).max() == 1
    assert np.abs(attacked("net", AdversarialLoss("pgd", eps=0.3), X=X, y=TWO[1])[0]).max() > 1
    linear = AdversarialLoss(gamma=5, bounds=(-1, 1))
    assert np.abs(attacked("logistic", linear, X=X, y=TWO[1])[0]).max() == 1


@pytest.mark.parametrize("attack", ["linear", "fgsm", "pgd"])
def test_rows_are_attacked_one_by_one(attack, monkeypatch):
    objective = AdversarialLoss(attack, eps=0.2)
    name = "three" if attack == "linear" else "net of three"
    whole, _ = attacked(name, objective)
    monkeypatch.setattr("sktda.objectives.robustness.PORTION", 7)
    np.testing.assert_allclose(attacked(name, objective, batch_size=5)[0], whole, atol=1e-12)
    order = np.random.default_rng(0).permutation(N)
    X, y = data(name)
    np.testing.assert_allclose(attacked(name, objective, X=X[order], y=y[order])[0], whole[order], atol=1e-12)


def test_an_attack_leaves_no_graph_and_the_rows_as_they_are():
    X = TWO[0].copy()
    for name, objective in (("logistic", AdversarialLoss()), ("net", AdversarialLoss())):
        asked, torch_model, (inputs, y) = asked_of(name, objective, X=X, y=TWO[1])
        assert not objective.perturbed(asked.predict, inputs, y).requires_grad
        assert not inputs.requires_grad
        assert all(parameter.grad is None for parameter in torch_model.parameters.values())
    np.testing.assert_array_equal(X, TWO[0])


# ---- errors ----------------------------------------------------------------------------------------------------------


@in_turn(
    ("objective", "features", "message"),
    [
        (DemographicParity(), np.zeros(N), r"all validation rows have sensitive_features=0\.0.*at least two"),
        (EqualOpportunity(), np.full(N, "f"), "all validation rows have sensitive_features=f"),
        (EqualOpportunity(), np.where(TWO[1] == 1, "a", "b"), "no validation row of the groups b is of the positive"),
        (DemographicParity(), np.where(SEX == 1, np.nan, 1.0), "sensitive_features holds missing values"),
        (DemographicParity(), np.where(SEX == 1, None, "f"), "sensitive_features holds missing values"),
        (DemographicParity(), pd.Series([1, None] * (N // 2), dtype="Int64"), "sensitive_features holds missing val"),
        (DemographicParity(), pd.Series([pd.NaT, pd.Timestamp(0)] * (N // 2)), "sensitive_features holds missing val"),
        (DemographicParity(), np.zeros((N, 2, 2)), r"sensitive_features has shape \(60, 2, 2\)"),
        (SliceLoss(9), RACE, "no validation row has sensitive_features=9; there are 0, 1, 2, 3, 4"),
        (SliceLoss("x"), np.arange(N), "there are 0, 1, 10, 11, 12 and 55 more"),
    ],
)
def test_features_that_make_no_groups(objective, features, message):
    with pytest.raises(ValueError, match=message):
        asked_of("logistic", objective, sensitive_features=features)


def test_objectives_called_without_their_metadata():
    asked, _, (X, y) = asked_of("logistic", ValidationLoss())
    with pytest.raises(
        ValueError, match=r"needs the metadata 'sensitive_features'.*got none; give Holdout\(X_val, y_v"
    ):
        DemographicParity()(asked.predict, X, y)
    with pytest.raises(ValueError, match=r"needs the metadata 'region'.*got race, sex; give .*region=\.\.\."):
        SliceLoss(metadata="region")(asked.predict, X, y, sex=SEX, race=RACE)


@in_turn("name", ["three", "net of three"])
@in_turn("objective", [DemographicParity(), EqualOpportunity(), EqualOpportunity("loss")])
def test_one_of_several_classes_must_be_named(name, objective):
    with pytest.raises(ValueError, match="there are 3; name it with positive="):
        asked_of(name, objective, sensitive_features=SEX)


@pytest.mark.parametrize("name", ["logistic", "named", "three", "mlp", "net", "net of three"])
@pytest.mark.parametrize("label", ["maybe", 7, -1], ids=str)
def test_classes_that_the_model_does_not_know(name, label):
    for objective in (ClassLoss(label), DemographicParity(label), EqualOpportunity("loss", label)):
        with pytest.raises(ValueError, match=r"maybe|7|-1"):
            asked_of(name, objective, sensitive_features=SEX)


def test_a_class_that_no_validation_row_has():
    X, y = THREE
    with pytest.raises(ValueError, match=r"ClassLoss\(label=2\) has no validation row of that class"):
        asked_of("three", ClassLoss(2), X=X[y != 2], y=y[y != 2])


@pytest.mark.parametrize(
    "objective", [ClassLoss(1), DemographicParity(), EqualOpportunity(), AdversarialLoss("linear")], ids=str
)
def test_models_of_numbers_have_no_classes(objective):
    with pytest.raises(TypeError, match="this model predicts none"):
        asked_of("ridge", objective, sensitive_features=SEX)


def test_models_of_numbers_can_be_attacked_along_their_gradient():
    asked, _, (X, y) = asked_of("ridge", AdversarialLoss("fgsm", eps=0.1))
    error = quiet("ridge").predict(TWO[0]) - TWO[1]
    moved = TWO[0] + 0.1 * np.sign(error)[:, None] * np.sign(quiet("ridge").coef_)
    np.testing.assert_allclose(AdversarialLoss("fgsm", eps=0.1).perturbed(asked.predict, X, y), moved)


def test_one_against_the_rest_has_no_probability_of_a_class():
    sgd = SGDClassifier(loss="log_loss", random_state=0).fit(*THREE)
    attributor = InnerProduct(FrozenEstimator(sgd), objective=DemographicParity(1))
    with pytest.raises(TypeError, match="DemographicParity compares probabilities of a class"):
        attributor.fit(*THREE, X_val=THREE[0], y_val=THREE[1], metadata_val={"sensitive_features": SEX})


def test_steps_in_the_wrong_units():
    for attack in ("fgsm", "pgd"):
        with pytest.raises(ValueError, match=r"eps=8 is no small change of inputs that lie between .* 8/255"):
            asked_of("net", AdversarialLoss(attack, eps=8))
        with pytest.warns(UserWarning, match=r"eps=0\.0001 is next to nothing beside inputs that lie between"):
            asked_of("net", AdversarialLoss(attack, eps=1e-4))
    with pytest.raises(ValueError, match=r"inputs lie between .* beyond bounds=\(0, 0\.5\); bounds are in the units"):
        asked_of("net", AdversarialLoss(eps=0.01, bounds=(0, 0.5)))
    asked_of("logistic", AdversarialLoss(eps=1e9))  # of the linear attack it plays no part


@in_turn(
    "options",
    [
        {"attack": "cw"}, {"eps": 0}, {"eps": -1}, {"eps": np.nan}, {"steps": 0}, {"gamma": 0}, {"bounds": (1, 0)},
        {"bounds": (0, 1, 2)},
    ],
)  # fmt: skip
def test_settings_of_an_attack_that_are_refused(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}="):
        AdversarialLoss(**options)
    with pytest.raises(ValueError, match="form='odds' is not 'rate' or 'loss'"):
        EqualOpportunity("odds")
    for cls in (DemographicParity, EqualOpportunity):
        with pytest.raises(ValueError, match="sharpness=0 is not above 0"):
            cls(sharpness=0)


def test_words_and_whole_numbers_cannot_be_moved():
    asked, _, (X, y) = asked_of("net", ValidationLoss())
    for inputs, kind in (({"X": X}, "dict"), (X.long(), "torch.int64")):
        with pytest.raises(TypeError, match=f"moves inputs by small amounts, which {kind} does not allow"):
            AdversarialLoss(eps=0.1)(asked.predict, inputs, y)
