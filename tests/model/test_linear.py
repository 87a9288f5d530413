"""scikit-learn's models in torch: the same losses, and a gradient of zero where scikit-learn says the optimum is."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
    SGDClassifier,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sktda.model.adapters import can_differentiate, differentiable
from sktda.model.base import forward
from tests.in_turn import in_turn

N = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3)) + [0.5, 0, -1]
TWO = np.array(["no", "yes"])[(X @ [1.0, -1, 0.5] + RNG.normal(size=N) > 0).astype(int)]
THREE = np.array(["a", "b", "c"])[np.clip(np.round(X[:, 0] + RNG.normal(size=N) + 1), 0, 2).astype(int)]
ONE = X @ [1.0, 2, 3] + RNG.normal(size=N) + 4
SEVERAL = np.column_stack([ONE, X[:, 1] ** 2, RNG.normal(size=N)])
LABELS = np.column_stack([X[:, 0] > 0.3, X[:, 1] + RNG.normal(size=N) > 0]).astype(int)
WEIGHT = RNG.uniform(0.2, 3, N)

TIGHT = {"tol": 1e-12, "max_iter": 20_000}
CV = {"l1_ratios": (0,), "use_legacy_attributes": False, "scoring": "neg_log_loss", "Cs": [0.1, 1.0]}
NET = {
    "solver": "lbfgs",
    "hidden_layer_sizes": (4,),
    "alpha": 0.5,
    "tol": 1e-14,
    "max_iter": 20_000,
    "warm_start": True,
}

CASES = {
    "logistic": (LogisticRegression(C=0.3, **TIGHT), TWO),
    "logistic-no-intercept": (LogisticRegression(C=0.3, fit_intercept=False, **TIGHT), TWO),
    "logistic-free": (LogisticRegression(C=np.inf, **TIGHT), TWO),
    "logistic-balanced": (LogisticRegression(class_weight="balanced", **TIGHT), TWO),
    "logistic-newton": (LogisticRegression(class_weight={"yes": 3.0}, solver="newton-cholesky", **TIGHT), TWO),
    "liblinear": (LogisticRegression(C=0.3, solver="liblinear", intercept_scaling=2.0, **TIGHT), TWO),
    "softmax": (LogisticRegression(C=0.3, **TIGHT), THREE),
    "softmax-balanced": (LogisticRegression(C=0.3, class_weight="balanced", **TIGHT), THREE),
    "softmax-no-intercept": (LogisticRegression(C=0.3, fit_intercept=False, **TIGHT), THREE),
    "logistic-cv": (LogisticRegressionCV(**CV, **TIGHT), TWO),
    "softmax-cv-balanced": (LogisticRegressionCV(**CV, class_weight="balanced", **TIGHT), THREE),
    "least-squares": (LinearRegression(), ONE),
    "least-squares-several": (LinearRegression(fit_intercept=False), SEVERAL),
    "ridge": (Ridge(alpha=3.0), ONE),
    "ridge-no-intercept": (Ridge(alpha=3.0, fit_intercept=False), ONE),
    "ridge-several": (Ridge(alpha=3.0), SEVERAL),
    "ridge-alphas": (Ridge(alpha=[0.0, 1.0, 30.0]), SEVERAL),
    "ridge-cv": (RidgeCV(alphas=[0.1, 5.0]), ONE),
    "ridge-cv-per-target": (RidgeCV(alphas=[0.1, 5.0, 100.0], alpha_per_target=True), SEVERAL),
    "ridge-classifier": (RidgeClassifier(alpha=2.0), TWO),
    "ridge-classifier-balanced": (RidgeClassifier(alpha=2.0, class_weight="balanced"), THREE),
    "ridge-classifier-labels": (RidgeClassifier(alpha=2.0), LABELS),
    "ridge-classifier-cv": (RidgeClassifierCV(alphas=[0.5, 2.0]), THREE),
    "mlp": (MLPClassifier(activation="tanh", random_state=0, **NET), TWO),
    "mlp-softmax": (MLPClassifier(activation="logistic", random_state=0, **NET), THREE),
    "mlp-labels": (MLPClassifier(activation="tanh", random_state=0, **NET), LABELS),
    "mlp-regressor": (MLPRegressor(activation="tanh", random_state=0, **NET), ONE),
    # lbfgs would stumble here: scikit-learn's loss is a mean over the outputs, its gradient that of the sum
    "mlp-regressor-several": (
        MLPRegressor(hidden_layer_sizes=(4,), random_state=0, tol=100, n_iter_no_change=2, alpha=0.5),
        SEVERAL,
    ),
}


def risk_gradient(model, rows):
    """Gradient of mean weighted loss plus penalty, flat, in float64."""
    inputs, targets, weight = rows.block(slice(None), model.device)
    losses = model.likelihood.losses(forward(model.module, inputs), targets)
    risk = (losses if weight is None else losses * weight).mean()
    for name, value in model.parameters.items():
        risk = risk + model.decay.get(name, 0.0) / 2 * value.square().sum()
    return torch.cat([each.reshape(-1) for each in torch.autograd.grad(risk, list(model.parameters.values()))])


def outputs(model, rows):
    with torch.no_grad():
        return forward(model.module, rows.block(slice(None), model.device)[0]).numpy()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("mlp")])
def test_the_gradient_of_the_risk_is_zero_at_the_fitted_parameters(case, weighted):
    estimator, y = CASES[case]
    weight = WEIGHT if weighted else None
    model = differentiable(estimator.fit(X, y, sample_weight=weight), n_rows=N)
    gradient = risk_gradient(model, model.rows(X, y, weight))
    assert gradient.dtype == torch.float64
    assert gradient.abs().max() < (2e-6 if isinstance(estimator, LogisticRegression) else 1e-10)


@in_turn("weighted", [False, True])
@in_turn("case", [case for case in CASES if case.startswith("mlp")])
def test_one_step_of_a_perceptron_follows_the_gradient_of_the_risk(case, weighted):
    estimator, y = CASES[case]
    weight = WEIGHT * N / WEIGHT.sum() if weighted else None  # a batch is divided by the sum of its weights
    plain = {"solver": "sgd", "momentum": 0, "learning_rate_init": 0.25, "shuffle": False}
    estimator = clone(estimator).set_params(**plain)
    classes = {} if case.startswith("mlp-reg") else {"classes": range(2) if case == "mlp-labels" else np.unique(y)}
    estimator.partial_fit(X, y, sample_weight=weight, **classes)
    model = differentiable(estimator, N)
    gradient = risk_gradient(model, model.rows(X, y, weight))
    estimator.partial_fit(X, y, sample_weight=weight)
    after = parameters_to_vector(differentiable(estimator, N).module.parameters())
    moved = parameters_to_vector(model.module.parameters()) - after
    torch.testing.assert_close(moved / 0.25, gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_penalty_is_felt(case):
    estimator, y = CASES[case]
    model = differentiable(estimator.fit(X, y), n_rows=N)
    free = case.startswith("least") or case == "logistic-free"
    assert bool(model.decay) != free
    model.decay = {name: 1.1 * value for name, value in model.decay.items()}
    assert free or risk_gradient(model, model.rows(X, y)).abs().max() > 1e-4


@in_turn("case", CASES)
def test_outputs_are_those_of_the_estimator(case):
    estimator, y = CASES[case]
    model = differentiable(estimator.fit(X, y), n_rows=N)
    out = outputs(model, model.rows(X))
    if hasattr(estimator, "decision_function"):
        expected = estimator.decision_function(X)
    elif isinstance(estimator, MLPClassifier):
        p = estimator.predict_proba(X)
        if case == "mlp-softmax":
            out, expected = torch.from_numpy(out).softmax(1).numpy(), p
        else:
            out, expected = 1 / (1 + np.exp(-out)), p[:, 1] if case == "mlp" else p
    else:
        expected = estimator.predict(X)
    np.testing.assert_allclose(out.reshape(expected.shape), expected, atol=1e-10)
    assert model.linear == (not case.startswith("mlp"))
    assert model.decay.keys() <= model.parameters.keys()


@pytest.mark.parametrize("case", ["mlp", "mlp-softmax", "mlp-labels", "mlp-regressor"])
def test_perceptron_losses_and_penalty_are_scikit_learns_own(case):
    estimator, y = CASES[case]
    model = differentiable(estimator.fit(X, y), n_rows=N)
    rows = model.rows(X, y)
    inputs, targets, _ = rows.block(slice(None), model.device)
    risk = model.likelihood.losses(forward(model.module, inputs), targets).mean().detach()
    for name, value in model.parameters.items():
        risk = risk + model.decay.get(name, 0.0) / 2 * value.detach().square().sum()
    assert float(risk) == pytest.approx(estimator.loss_, rel=1e-9)


@pytest.mark.parametrize(
    ("settings", "n_rows", "size"),
    [
        ({"batch_size": 16}, None, 16),
        ({"batch_size": 1000}, 60, 60),
        ({}, 60, 60),
        ({}, 500, 200),
        ({"early_stopping": True}, 100, 90),
    ],
)
def test_the_penalty_of_a_stochastic_perceptron_is_alpha_over_the_batch(settings, n_rows, size):
    net = MLPRegressor(hidden_layer_sizes=(3,), alpha=0.7, max_iter=1)
    net.partial_fit(X, ONE)
    decay = differentiable(net.set_params(**settings), n_rows).decay
    assert decay == {"0.weight": pytest.approx(0.7 / size), "2.weight": pytest.approx(0.7 / size)}


@pytest.mark.parametrize(
    ("y", "class_weight"), [(TWO, None), (TWO, {"no": 2.0}), (TWO, "balanced"), (THREE, None), (THREE, "balanced")]
)
def test_stochastic_logistic_regression_ends_near_a_zero_gradient(y, class_weight):
    estimator = SGDClassifier(
        "log_loss", alpha=0.1, class_weight=class_weight, average=200 * N, tol=None, max_iter=1_000, random_state=0
    ).fit(X, y)
    model = differentiable(estimator)
    rows = model.rows(X, y)
    assert risk_gradient(model, rows).abs().max() < 2e-3
    assert model.decay == {"weight": 0.1}
    np.testing.assert_allclose(outputs(model, rows).squeeze(), estimator.decision_function(X), atol=1e-12)


def test_no_direction_of_the_invariant_ones_changes_a_prediction_or_a_penalty():
    for settings, n_directions in (({"C": 0.3}, 1), ({"C": np.inf}, 4), ({"fit_intercept": False}, 0)):
        model = differentiable(LogisticRegression(**settings).fit(X, THREE), N)
        if n_directions == 0:
            assert model.invariant is None
            continue
        directions = model.invariant
        np.testing.assert_allclose(directions.T @ directions, np.eye(n_directions), atol=1e-12)
        rows = model.rows(X, THREE)
        inputs, targets, _ = rows.block(slice(None), model.device)
        before = model.likelihood.losses(forward(model.module, inputs), targets)
        vector = parameters_to_vector(model.module.parameters()) + 3 * directions.sum(1)
        penalised = model.module.weight.detach().clone()
        vector_to_parameters(vector, model.module.parameters())
        after = functional_call(model.module, dict(model.module.named_parameters()), (inputs,))
        torch.testing.assert_close(model.likelihood.losses(after, targets), before)
        assert settings["C"] == np.inf or torch.equal(model.module.weight, penalised)


def test_tables_of_every_kind_give_the_same_rows(tmp_path):
    pd = pytest.importorskip("pandas")
    X32 = X.astype(np.float32)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=X.shape)
    mapped[:] = X32
    frame = pd.DataFrame(X32, columns=list("uvw"), index=np.arange(N) + 7)
    for table in (X32, sp.csr_array(X32), sp.coo_array(X32), mapped, frame, X32.tolist()):
        rows = differentiable(Ridge().fit(table, ONE), N).rows(table, pd.Series(ONE))
        some = np.array([5, 0, 5])
        inputs, targets, weight = rows.block(some, torch.device("cpu"))
        np.testing.assert_array_equal(inputs, X32[some].astype(float))
        np.testing.assert_array_equal(targets[:, 0], ONE[some])
        assert weight is None
        assert len(rows) == N


def test_labels_that_were_not_trained_on_are_named():
    model = differentiable(LogisticRegression().fit(X, THREE), N)
    y = THREE.copy().astype(object)
    y[[4, 9]] = "z"
    with pytest.raises(ValueError, match=r"label 'z' \(row 4; 2 such rows\).*its classes are 'a', 'b', 'c'"):
        model.rows(X, y)
    with pytest.raises(ValueError, match="label 1 "):
        model.rows(X[:2], [1, 0])


def test_what_is_not_smooth_is_refused_by_name_before_and_after_the_fit():
    X, y = make_blobs(40, 2, centers=2, random_state=0)
    refused = {
        "only L2 is smooth": [
            LogisticRegression(l1_ratio=1, solver="saga"),
            LogisticRegression(l1_ratio=0.5, solver="saga"),
            LogisticRegressionCV(l1_ratios=(0, 1)),
            SGDClassifier("log_loss", penalty="l1"),
            SGDClassifier("log_loss", penalty="elasticnet"),
        ],
        "allowed is loss='log_loss'": [SGDClassifier()],
        "positive=True": [Ridge(positive=True), LinearRegression(positive=True)],
        "refit=True": [LogisticRegressionCV(refit=False)],
        "allowed is loss='squared_error'": [MLPRegressor("poisson")],
    }
    for message, estimators in refused.items():
        for estimator in estimators:
            assert not can_differentiate(estimator)
            with pytest.raises(ValueError, match=message):
                differentiable(estimator)
    assert can_differentiate(LogisticRegression(C=2))
    assert can_differentiate(SGDClassifier("log_loss"))
    with pytest.raises(ValueError, match="pass n_rows"):
        differentiable(Ridge().fit(X, y))
    with pytest.raises(ValueError, match=r"y has 2 columns, but the model was trained on 1"):
        differentiable(Ridge().fit(X, y), 40).rows(X, np.column_stack([y, y]))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of scikit-learn, that these defaults will change
@pytest.mark.parametrize("y", [TWO, THREE], ids=["two", "three"])
def test_a_search_for_c_by_its_defaults_has_no_l1(y):
    model = LogisticRegressionCV(Cs=[0.1, 1.0], **TIGHT).fit(X, y)
    assert can_differentiate(model)
    found = differentiable(model, n_rows=N)
    assert risk_gradient(found, found.rows(X, y)).abs().max() < 2e-6
