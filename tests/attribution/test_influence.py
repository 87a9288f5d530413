"""Influence: closed forms with NumPy alone, refits with one row's weight nudged, and the three curvatures."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from skorch import NeuralNetClassifier
from torch import nn

from sktda.attribution import Influence, unlearn
from sktda.engine.curvature import DenseCurvature
from sktda.engine.ekfac import EKFAC
from tests.model.nets import make_net, rows

N, QUERIES = 60, 7  # 7 queries of 60 rows: a swap would show
NUMBERS = make_regression(N, 4, noise=20.0, random_state=0)
TARGETS = (NUMBERS[0], np.column_stack([NUMBERS[1], NUMBERS[1] ** 2 / 50 + NUMBERS[0][:, 0]]))
TWO = make_classification(N, 4, flip_y=0.2, random_state=1)
THREE = make_classification(N, 4, n_informative=3, n_redundant=0, n_classes=3, flip_y=0.1, random_state=2)
WEIGHTS = np.random.default_rng(3).uniform(0.2, 3.0, N)
WEIGHTS[5] = 0.0
EXACT = {"solver": "newton-cholesky", "tol": 1e-12, "max_iter": 1000}


def logistic(**params):
    return LogisticRegression(**EXACT | params)


# ---- the closed forms, by hand --------------------------------------------------------------------------------------


def design(model, X):
    return np.column_stack([X, np.ones(len(X))]) if model.fit_intercept else X


def penalty_mask(model, d):
    return np.r_[np.ones(d - 1), 0.0] if model.fit_intercept else np.ones(d)


def row_weights(model, y, sample_weight):
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    setting = getattr(model, "class_weight", None)
    if setting == "balanced":
        counted = np.ones(len(y)) if isinstance(model, RidgeClassifier) else weight  # as scikit-learn balances each
        counts = np.array([counted[y == c].sum() for c in model.classes_])
        setting = dict(zip(model.classes_, counted.sum() / (len(counts) * counts), strict=True))
    return weight if setting is None else weight * np.array([setting[c] for c in y])


def least_squares_parts(model, X, y):
    """(gradients (n, p), Hessian of the weighted mean loss + penalty as a function of row weights)."""
    A = design(model, X)
    targets = y
    if isinstance(model, RidgeClassifier):
        targets = np.where(y[:, None] == model.classes_, 1.0, -1.0)
        targets = targets[:, 1:] if len(model.classes_) == 2 else targets
    targets = targets.reshape(len(y), -1)
    theta = np.atleast_2d(model.coef_).T
    theta = np.vstack([theta, np.broadcast_to(model.intercept_, theta.shape[1])]) if model.fit_intercept else theta
    residual = A @ theta - targets
    gradients = (2 * residual[:, :, None] * A[:, None, :]).reshape(len(y), -1)

    def hessian(weight):
        alpha = getattr(model, "alpha", 0.0)
        one = 2 / len(y) * (A.T @ (weight[:, None] * A) + alpha * np.diag(penalty_mask(model, A.shape[1])))
        return np.kron(np.eye(targets.shape[1]), one)

    return gradients, hessian


def logistic_parts(model, X, y):
    A = design(model, X)
    k = len(model.classes_)
    scores = model.decision_function(X)
    if k == 2:
        p = 1 / (1 + np.exp(-scores))
        gradients = (p - (y == model.classes_[1]))[:, None] * A
        bends = (p * (1 - p))[:, None, None]
    else:
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        error = p - (y[:, None] == model.classes_)
        gradients = (error[:, :, None] * A[:, None, :]).reshape(len(y), -1)
        bends = np.stack([np.diag(row) - np.outer(row, row) for row in p])

    def hessian(weight):
        total = sum(w * np.kron(bend, np.outer(a, a)) for w, bend, a in zip(weight, bends, A, strict=True)) / len(y)
        mask = np.tile(penalty_mask(model, A.shape[1]), len(total) // A.shape[1])
        return total + np.diag(mask) / (model.C * len(y))

    return gradients, hessian


def closed_form(model, X, y, sample_weight=None):
    """(QUERIES, n) values: (1/n) q' H^-1 (w_i g_i); the pseudo-inverse leaves out shifts of all logits."""
    parts = logistic_parts if isinstance(model, LogisticRegression) else least_squares_parts
    gradients, hessian = parts(model, X, y)
    weight = row_weights(model, y, sample_weight)
    inverse = np.linalg.pinv(hessian(weight), rcond=1e-12, hermitian=True)
    return gradients[:QUERIES] @ inverse @ (weight[:, None] * gradients).T / len(y)


CLOSED = {
    "ridge": (Ridge(alpha=3.0, tol=1e-12), NUMBERS),
    "ridge without intercept": (Ridge(alpha=3.0, fit_intercept=False), NUMBERS),
    "ridge of two targets": (Ridge(alpha=0.5), TARGETS),
    "least squares": (LinearRegression(), NUMBERS),
    "least squares without intercept": (LinearRegression(fit_intercept=False), NUMBERS),
    "ridge classifier of two": (RidgeClassifier(alpha=2.0), TWO),
    "ridge classifier of three": (RidgeClassifier(alpha=2.0), THREE),
    "ridge classifier, class weights": (RidgeClassifier(class_weight={0: 1.0, 1: 3.0, 2: 0.5}), THREE),
    "ridge classifier, balanced": (RidgeClassifier(class_weight="balanced"), TWO),
    "logistic C=0.01": (logistic(C=0.01), TWO),
    "logistic C=1": (logistic(), TWO),
    "logistic C=100": (logistic(C=100.0), TWO),
    "logistic without intercept": (logistic(fit_intercept=False), TWO),
    "logistic, class weights": (logistic(class_weight={0: 2.0, 1: 0.3}), TWO),
    "logistic, balanced": (logistic(class_weight="balanced"), TWO),
    "softmax C=0.1": (logistic(C=0.1), THREE),
    "softmax C=10": (logistic(C=10.0), THREE),
    "softmax without intercept": (logistic(fit_intercept=False), THREE),
    "softmax, balanced": (logistic(class_weight="balanced"), THREE),
}


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["", "weighted"])
@pytest.mark.parametrize("case", CLOSED)
def test_the_closed_form(case, weight):
    estimator, (X, y) = CLOSED[case]
    influence = Influence(estimator, objective=None).fit(X, y, sample_weight=weight)
    expected = closed_form(clone(estimator).fit(X, y, sample_weight=weight), X, y, weight)
    found = influence.attribute(X[:QUERIES], y[:QUERIES])
    assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()
    assert np.linalg.norm(found - expected, axis=0) == pytest.approx(0, abs=1e-9 * np.linalg.norm(expected))


def test_unpenalised_softmax_is_determined_up_to_shifts():
    X, y = THREE
    model = logistic(C=np.inf).fit(X, y)
    found = Influence(FrozenEstimator(model), objective=None).fit(X, y).attribute(X[:QUERIES], y[:QUERIES])
    expected = closed_form(model, X, y)
    assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


def test_softmax_against_autograd_of_the_whole_risk():
    X, y = THREE
    model = logistic(C=2.0).fit(X, y)
    inputs, labels = torch.from_numpy(X), torch.from_numpy(y)
    theta = torch.from_numpy(np.column_stack([model.coef_, model.intercept_]))

    def losses(theta):
        return nn.functional.cross_entropy(inputs @ theta[:, :4].T + theta[:, 4], labels, reduction="none")

    def risk(flat):
        theta = flat.reshape(3, 5)
        return losses(theta).mean() + theta[:, :4].square().sum() / (2 * model.C * N)

    hessian = torch.func.jacrev(torch.func.jacrev(risk))(theta.flatten()).numpy()
    gradients = torch.func.jacrev(losses)(theta).reshape(N, -1).numpy()
    expected = gradients[:QUERIES] @ np.linalg.pinv(hessian, rcond=1e-12, hermitian=True) @ gradients.T / N
    found = Influence(FrozenEstimator(model), objective=None).fit(X, y).attribute(X[:QUERIES], y[:QUERIES])
    assert np.abs(torch.func.jacrev(risk)(theta.flatten()).numpy()).max() < 1e-10, "the reference's own penalty"
    assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


def test_validation_scores_are_the_mean_over_validation_rows():
    X, y = TWO
    influence = Influence(logistic()).fit(X, y, X_val=X[:QUERIES], y_val=y[:QUERIES])
    expected = closed_form(logistic().fit(X, y), X, y).mean(axis=0)
    assert np.abs(influence.scores_ - expected).max() <= 1e-9 * np.abs(expected).max()


# ---- refits ---------------------------------------------------------------------------------------------------------

REFITS = {
    "ridge": (Ridge(alpha=3.0, solver="cholesky"), NUMBERS),
    "logistic": (logistic(C=0.5), TWO),
    "softmax": (logistic(C=0.5), THREE),
    "softmax, balanced": (logistic(C=0.5, class_weight={0: 1.0, 1: 2.0, 2: 0.7}), THREE),
}


def query_losses(model, X, y):
    if isinstance(model, Ridge):
        return (model.predict(X) - y) ** 2
    return -model.predict_log_proba(X)[np.arange(len(y)), np.searchsorted(model.classes_, y)]


def refitted_losses(estimator, X, y, row, weight):
    weights = np.ones(N)
    weights[row] = weight
    return query_losses(clone(estimator).fit(X, y, sample_weight=weights), X[:QUERIES], y[:QUERIES])


@pytest.mark.parametrize("case", REFITS)
def test_refits_with_one_weight_nudged(case):
    """Pearson >= 0.9995 and slope 1 +- 0.02 (in fact 1 to 1e-4)."""
    estimator, (X, y) = REFITS[case]
    found = Influence(estimator, objective=None).fit(X, y).attribute(X[:QUERIES], y[:QUERIES])
    change = np.empty((QUERIES, N))
    for row in range(N):
        up, down = (refitted_losses(estimator, X, y, row, 1 + nudge) for nudge in (1e-3, -1e-3))
        change[:, row] = (down - up) / 2e-3  # per unit of weight taken away
    assert np.corrcoef(found.ravel(), change.ravel())[0, 1] >= 0.9995
    assert np.polyfit(found.ravel(), change.ravel(), 1)[0] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("case", ["ridge", "logistic", "softmax"])
def test_leaving_a_row_out_altogether_is_more_by_about_one_over_one_minus_leverage(case):
    """Full leave-one-out changes more than the derivative says, by about 1 / (1 - leverage)."""
    estimator, (X, y) = REFITS[case]
    found = Influence(estimator, objective=None).fit(X, y).attribute(X[:QUERIES], y[:QUERIES])
    before = query_losses(clone(estimator).fit(X, y), X[:QUERIES], y[:QUERIES])
    change = np.stack([refitted_losses(estimator, X, y, row, 0.0) - before for row in range(N)], axis=1)
    assert np.corrcoef(found.ravel(), change.ravel())[0, 1] > 0.97
    assert 1.0 < np.polyfit(found.ravel(), change.ravel(), 1)[0] < 1.35


def test_the_change_of_a_ridge_prediction_is_exact_after_the_division_by_one_minus_leverage():
    X, y = NUMBERS
    estimator = Ridge(alpha=3.0, solver="cholesky")
    model = clone(estimator).fit(X, y)
    A = np.column_stack([X, np.ones(N)])
    leverage = np.einsum("ij,ji->i", A, np.linalg.solve(A.T @ A + 3 * np.diag([1, 1, 1, 1, 0]), A.T))
    error = (model.predict(X) - y)[:QUERIES]
    found = Influence(FrozenEstimator(model), objective=None).fit(X, y).attribute(X[:QUERIES], y[:QUERIES])
    for row in range(N):
        keep = np.arange(N) != row
        moved = clone(estimator).fit(X[keep], y[keep]).predict(X[:QUERIES]) - model.predict(X[:QUERIES])
        np.testing.assert_allclose(found[:, row] / (1 - leverage[row]), 2 * error * moved, rtol=1e-7, atol=1e-7)


# ---- the three curvatures -------------------------------------------------------------------------------------------


def quiet(estimator, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence: any parameters will do
        return estimator.fit(X, y)


MLP = quiet(MLPClassifier((6,), alpha=0.1, max_iter=300, random_state=0), *THREE)
MLP_NUMBERS = quiet(
    MLPRegressor(hidden_layer_sizes=(6,), alpha=0.1, max_iter=300, random_state=0), NUMBERS[0], NUMBERS[1] / 50
)


@pytest.mark.parametrize(
    ("estimator", "data", "damping"),
    [
        (Ridge(), NUMBERS, "auto"),
        (logistic(), TWO, "auto"),
        (logistic(), THREE, "auto"),
        (logistic(), THREE, 0.1),
        (FrozenEstimator(MLP), THREE, 0.05),
        (FrozenEstimator(MLP_NUMBERS), (NUMBERS[0], NUMBERS[1] / 50), 0.05),
    ],
    ids=["ridge", "logistic", "softmax", "damped softmax", "perceptron", "regressor"],
)
def test_conjugate_gradients_equal_the_dense_solution(estimator, data, damping):
    X, y = (each[:12] for each in data)  # a system for every row takes its time
    exact, cg = (Influence(estimator, curvature=kind, damping=damping) for kind in ("exact", "cg"))
    for options in ({}, {"X_val": X[:9], "y_val": y[:9]}):
        expected = exact.fit(X, y, **options).scores_
        assert np.abs(cg.fit(X, y, **options).scores_ - expected).max() <= 1e-6 * np.abs(expected).max()
    expected = exact.attribute(X[:QUERIES], y[:QUERIES])
    assert np.abs(cg.attribute(X[:QUERIES], y[:QUERIES]) - expected).max() <= 1e-6 * np.abs(expected).max()
    assert isinstance(exact.curvature_, DenseCurvature)
    assert cg.curvature_ is None


def test_damping_is_added_to_the_hessian_of_the_mean_loss():
    X, y = NUMBERS
    model = Ridge(alpha=3.0).fit(X, y)
    gradients, hessian = least_squares_parts(model, X, y)
    expected = gradients[:QUERIES] @ np.linalg.inv(hessian(np.ones(N)) + 0.7 * np.eye(5)) @ gradients.T / N
    found = Influence(FrozenEstimator(model), damping=0.7, objective=None).fit(X, y)
    np.testing.assert_allclose(found.attribute(X[:QUERIES], y[:QUERIES]), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["perceptron", "skorch"])
def test_ekfac_ranks_rows_as_the_dense_curvature_does(kind):
    """It drops what links two layers, so values come out larger: by 1.4 to 1.6 here, with two layers."""
    X, y = rows(300) if kind == "skorch" else THREE
    model = FrozenEstimator(make_net(max_epochs=30).fit(X, y) if kind == "skorch" else MLP)
    exact, ekfac = (
        Influence(model, curvature=curvature, damping=0.5, random_state=0).fit(X, y) for curvature in ("exact", "ekfac")
    )
    assert isinstance(ekfac.curvature_, EKFAC)
    assert spearmanr(exact.scores_, ekfac.scores_).statistic > 0.97
    found, expected = ekfac.attribute(X[:20], y[:20]), exact.attribute(X[:20], y[:20])
    assert np.mean([spearmanr(*pair).statistic for pair in zip(found, expected, strict=True)]) > 0.85
    assert 0.9 < np.polyfit(expected.ravel(), found.ravel(), 1)[0] < 2.0, "the scale comes from the eigenvalues"


def test_ekfac_draws_its_labels_from_the_seed():
    X, y = THREE
    first, again, other = (
        Influence(FrozenEstimator(MLP), curvature="ekfac", random_state=seed).fit(X, y).scores_ for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, rtol=1e-6)


class Scale(nn.Module):
    """One number per feature, not a layer of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, -0.3, 0.2]))

    def forward(self, X):
        z = (X * self.scale).sum(1, keepdim=True)
        return torch.cat([torch.zeros_like(z), z], 1)


@pytest.mark.parametrize(
    ("model", "data", "kind"),
    [
        (logistic(), TWO, DenseCurvature),
        (SGDClassifier(loss="log_loss", alpha=0.01, random_state=0), TWO, DenseCurvature),
        (FrozenEstimator(MLP), THREE, EKFAC),
        (make_net(), rows(), EKFAC),
        (make_net(module=Scale), rows(), type(None)),
    ],
    ids=["logistic", "sgd", "perceptron", "net", "no layers"],
)
def test_the_automatic_curvature(model, data, kind):
    assert type(Influence(model, objective=None, random_state=0).fit(*data).curvature_) is kind


def test_a_linear_model_of_many_parameters_goes_to_ekfac(monkeypatch):
    monkeypatch.setattr("sktda.attribution.gradients.influence.DENSE_PARAMETERS", 4)
    assert isinstance(Influence(Ridge(), objective=None, random_state=0).fit(*NUMBERS).curvature_, EKFAC)


class Normed(nn.Module):
    """A norm between two layers, and a table that is added `used` times."""

    def __init__(self, used=1.0):
        super().__init__()
        self.first = nn.Linear(3, 6)
        self.norm = nn.LayerNorm(6)
        self.last = nn.Linear(6, 2)
        self.table, self.used = nn.Parameter(torch.zeros(9, 6)), used

    def forward(self, X):
        hidden = self.norm(self.first(X))
        return self.last(torch.relu(hidden + self.used * self.table.sum(0) if self.used else hidden))


def test_parameters_left_out_of_ekfac_are_named_in_one_warning():
    X, y = rows()
    net = FrozenEstimator(make_net(module=Normed, module__used=0.0).fit(X, y))
    with pytest.warns(UserWarning, match=r"leaves out 1 parameters .*: table;") as caught:
        influence = Influence(net, random_state=0).fit(X, y)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diagonal = np.diag(influence.attribute(X, y))
    np.testing.assert_allclose(influence.scores_, -diagonal, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("most", [False, True])
def test_how_much_ekfac_leaves_out_is_said(most, monkeypatch):
    monkeypatch.setattr("sktda.engine.kronecker_blocks.FORMED_SIZE", 20)
    monkeypatch.setattr("sktda.engine.kronecker_blocks.ENERGY_ROWS", 1_000)
    X, y = rows()
    net = make_net(module=Normed, module__used=3.0 if most else 0.1).fit(X, y)
    with pytest.warns(UserWarning, match="EK-FAC leaves out") as caught:
        curvature = Influence(FrozenEstimator(net), objective=None, random_state=0).fit(X, y).curvature_
    assert curvature.left_out == ["table"]
    own = {name: value for name, value in net.module_.named_parameters() if value.requires_grad}
    total = sum(value.numel() for value in own.values())
    assert curvature.parameter_share == pytest.approx(1 - own["table"].numel() / total)
    energy = dict.fromkeys(own, 0.0)
    for i in range(len(X)):
        loss = net.get_loss(net.infer(torch.from_numpy(X[[i]])), torch.from_numpy(y[[i]]))
        for name, value in zip(energy, torch.autograd.grad(loss, list(own.values())), strict=True):
            energy[name] += float(value.square().sum())
    expected = 1 - energy["table"] / sum(energy.values())
    assert curvature.energy_share == pytest.approx(expected, rel=1e-4)
    assert (curvature.energy_share < 0.5) == most == ("most of it: use curvature='cg'" in str(caught[0].message))


@pytest.mark.filterwarnings("ignore:EK-FAC leaves out:UserWarning")
@pytest.mark.parametrize("used", [0.0, 1.0])
def test_what_ekfac_leaves_out_stays_when_rows_are_deleted(used):
    X, y = rows()
    net = make_net(module=Normed, module__used=used).fit(X, y)
    influence = Influence(FrozenEstimator(net), random_state=0, damping=0.1).fit(X, y)
    before = dict(influence.estimator_.estimator.module_.named_parameters())
    after = influence.deletion_update([0, 3])
    assert list(after) == list(before)
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert same == set(influence.curvature_.left_out) == (set() if used else {"table"})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no steps of SGD")
        unlearn(influence, [0, 3])


def test_the_low_rank_is_within_its_tolerance(monkeypatch):
    monkeypatch.setattr("sktda.attribution.gradients.influence.EXACT_WORK", 0)
    X, y = rows(200)
    net = FrozenEstimator(make_net(module__width=24, max_epochs=10).fit(X, y))
    values = {
        tolerance: Influence(net, tolerance=tolerance, objective=None, random_state=0).fit(X, y).attribute(X, y)
        for tolerance in (0.0, 0.02, 0.2)
    }
    errors = [np.linalg.norm(values[t] - values[0.0]) / np.linalg.norm(values[0.0]) for t in (0.02, 0.2)]
    assert 0 < errors[0] < 0.03
    assert errors[0] < errors[1] < 0.3


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_a_singular_curvature_names_damping():
    X = np.random.default_rng(0).normal(size=(10, 20))
    with pytest.raises(ValueError, match=r"the curvature is singular.*Give a damping above 0"):
        Influence(LinearRegression()).fit(X, X[:, 0])
    assert np.isfinite(Influence(LinearRegression(), damping=0.1).fit(X, X[:, 0] + X[:, 1] ** 2).scores_).all()


def test_a_dense_curvature_of_many_parameters_names_the_others():
    X = np.random.default_rng(0).normal(size=(30, 5001))
    with pytest.raises(ValueError, match=r"5002 trainable parameters; .* use another curvature, such as 'ekfac'"):
        Influence(Ridge(), curvature="exact").fit(X, X[:, 0])


def test_a_net_without_layers_has_an_exact_block():
    X, y = rows()
    net = FrozenEstimator(make_net(module=Scale).fit(X, y))
    assert isinstance(Influence(net, curvature="ekfac", objective=None).fit(X, y).curvature_, EKFAC)


def test_conjugate_gradients_that_do_not_converge_are_an_error(monkeypatch):
    monkeypatch.setattr("sktda.engine.systems.CG_STEPS", 2)
    with pytest.raises(ValueError, match="did not converge in 2 products"):
        Influence(logistic(C=1e4), curvature="cg").fit(*THREE)


@pytest.mark.parametrize(
    ("param", "value"), [("curvature", "dense"), ("damping", -1.0), ("tolerance", 1.0), ("batch_size", 0)]
)
def test_a_parameter_out_of_range_is_named(param, value):
    with pytest.raises(ValueError, match=f"The '{param}' parameter of Influence"):
        Influence(logistic(), **{param: value}).fit(*TWO)


def test_a_frozen_layer_takes_no_part():
    X, y = rows(60)
    net = make_net().fit(X, y)
    whole = Influence(FrozenEstimator(net), curvature="exact", damping=0.1).fit(X, y).scores_
    net.module_.first.requires_grad_(False)
    head = Influence(FrozenEstimator(net), curvature="exact", damping=0.1).fit(X, y)
    assert not np.allclose(head.scores_, whole, rtol=1e-3)
    hidden = torch.relu(net.module_.first(torch.from_numpy(X))).detach().numpy().astype(float)
    logits = net.module_.last(torch.from_numpy(hidden.astype(np.float32))).detach().double()
    p = logits.softmax(1).numpy()
    A = np.column_stack([hidden, np.ones(60)])
    gradients = ((p - np.eye(2)[y])[:, :, None] * A[:, None, :]).reshape(60, -1)
    hessian = sum(np.kron(np.diag(q) - np.outer(q, q), np.outer(a, a)) for q, a in zip(p, A, strict=True)) / 60
    expected = -np.einsum("ij,ji->i", gradients, np.linalg.solve(hessian + 0.1 * np.eye(12), gradients.T)) / 60
    np.testing.assert_allclose(head.scores_, expected, rtol=1e-4, atol=1e-8)


def test_weight_decay_of_a_net_is_part_of_the_curvature():
    """A linear net with decay is scikit-learn's softmax regression with a penalised intercept."""
    X, y = rows(60)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        nn.Linear, module__in_features=3, module__out_features=2, criterion=nn.CrossEntropyLoss, max_epochs=1,
        train_split=None, verbose=0, optimizer__weight_decay=0.2,
    ).fit(X, y)  # fmt: skip
    found = Influence(FrozenEstimator(net), curvature="exact", objective=None).fit(X, y).attribute(X[:7], y[:7])
    layer = net.module_
    p = layer(torch.from_numpy(X)).detach().double().softmax(1).numpy()
    A = np.column_stack([X, np.ones(60)])
    gradients = ((p - np.eye(2)[y])[:, :, None] * A[:, None, :]).reshape(60, -1)
    hessian = sum(np.kron(np.diag(q) - np.outer(q, q), np.outer(a, a)) for q, a in zip(p, A, strict=True)) / 60
    expected = gradients[:7] @ np.linalg.solve(hessian + 0.2 * np.eye(8), gradients.T) / 60
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
