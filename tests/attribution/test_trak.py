"""TRAK: the formula with NumPy alone, influence on linear models, the ridge, projections, planted answers."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_classification, make_regression
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetRegressor
from torch import nn

from sktda import CoresetSelector, Holdout, InfluencePruner, NoisyLabelDetector
from sktda.attribution import Influence, ModelEnsemble
from sktda.attribution.gradients import trak as module
from sktda.attribution.gradients.trak import TRAK, output_of, whitening
from sktda.engine.per_row import PerRow
from sktda.model.base import DifferentiableModel, Rows
from sktda.model.likelihood import Binary, Gaussian
from sktda.model.softmax import Categorical
from sktda.objectives import Margin
from tests.in_turn import in_turn
from tests.model.nets import record, rows
from tests.spies import flip, noisy_blobs

N, QUERIES = 60, 7
TWO = make_classification(N, 4, flip_y=0.2, random_state=1)
THREE = make_classification(N, 4, n_informative=3, n_redundant=0, n_classes=3, flip_y=0.1, random_state=2)
NUMBERS = make_regression(N, 4, noise=20.0, random_state=0)
WEIGHTS = np.random.default_rng(3).uniform(0.2, 3.0, N)
WEIGHTS[5] = 0.0


def queries(data, seed=5):
    rng = np.random.default_rng(seed)
    return data[0][:QUERIES] + rng.normal(size=(QUERIES, 4)), np.roll(data[1], 3)[:QUERIES]


def logistic(**params):
    return LogisticRegression(**{"tol": 1e-10, "max_iter": 5000} | params)


# ---- the formula, by hand --------------------------------------------------------------------------------------------


def by_hand(model, X, y):
    """(features phi (n, p), probability of the given class (n,)) of a logistic or softmax regression."""
    A = np.column_stack([X, np.ones(len(X))])
    p = model.predict_proba(X)
    own = y[:, None] == model.classes_
    others = np.where(own, 0, p)
    towards = own - others / others.sum(axis=1, keepdims=True)  # of log p - log(1 - p) with respect to the logits
    return (towards[:, :, None] * A[:, None, :]).reshape(len(X), -1), p[own]


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("data", [TWO, THREE], ids=["two", "three"])
def test_values_are_those_of_the_published_formula(data, weight):
    (X, y), (X_query, y_query) = data, queries(data)
    model = logistic().fit(X, y, weight)
    phi, p = by_hand(model, X, y)
    asked, p_query = by_hand(model, X_query, y_query)
    row_weight = np.ones(N) if weight is None else weight
    inverse = np.linalg.pinv(phi.T @ (row_weight[:, None] * phi), rcond=1e-9)
    published = (asked @ inverse @ phi.T) * (1 - p) * row_weight
    trak = TRAK(FrozenEstimator(model)).fit(X, y, weight)
    assert trak.ridge_ == 0
    np.testing.assert_allclose(trak.attribute(X_query, y_query), (1 - p_query)[:, None] * published, rtol=1e-8)
    margins = TRAK(FrozenEstimator(model), objective=Margin()).fit(X, y, weight, X_val=X_query, y_val=y_query)
    np.testing.assert_allclose(margins.attribute(X_query, y_query), published, rtol=1e-8)
    np.testing.assert_allclose(margins.scores_, published.mean(axis=0), rtol=1e-8, atol=1e-15)
    own = ((1 - p)[:, None] * phi) @ inverse @ ((1 - p)[:, None] * phi).T
    np.testing.assert_allclose(trak.scores_, -np.diag(own) * row_weight, rtol=1e-8, atol=1e-15)


def test_the_margin_of_a_query_falls_by_so_much_when_a_row_is_left_out():
    """The paper's model: probabilities near one half, where its kernel has a fourth of the curvature."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 3)) / 10, rng.integers(2, size=200)
    model = logistic(C=1e9).fit(X, y)
    values = TRAK(FrozenEstimator(model), objective=Margin()).fit(X, y).attribute(X[:5], y[:5])
    sign = 2 * y[:5] - 1
    for i in range(0, 200, 20):
        kept = np.arange(200) != i
        fall = sign * (model.decision_function(X[:5]) - logistic(C=1e9).fit(X[kept], y[kept]).decision_function(X[:5]))
        np.testing.assert_allclose(4 * values[:, i], fall, rtol=0.1, atol=2e-3)


@pytest.mark.parametrize("weight", [None, WEIGHTS])
def test_least_squares_is_influence(weight):
    (X, y), (X_query, y_query) = NUMBERS, queries(NUMBERS)
    model = FrozenEstimator(LinearRegression().fit(X, y, weight))
    ours, exact = TRAK(model).fit(X, y, weight), Influence(model).fit(X, y, weight)
    np.testing.assert_allclose(ours.attribute(X_query, y_query), exact.attribute(X_query, y_query), rtol=1e-9)
    np.testing.assert_allclose(ours.scores_, exact.scores_, rtol=1e-9)
    X_val, y_val = queries(NUMBERS, seed=6)
    found = [each.fit(X, y, weight, X_val=X_val, y_val=y_val).scores_ for each in (ours, exact)]
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-12)


def test_the_ridge_is_that_of_ridge_regression():
    (X, y), (X_query, y_query) = NUMBERS, queries(NUMBERS)
    model = FrozenEstimator(Ridge(alpha=7.0, fit_intercept=False).fit(X, y))
    trak = TRAK(model, ridge=7.0 / (np.sum(X**2) / 4)).fit(X, y)
    assert trak.ridge_ == pytest.approx(14.0)
    exact = Influence(model).fit(X, y)
    np.testing.assert_allclose(trak.attribute(X_query, y_query), exact.attribute(X_query, y_query), rtol=1e-9)


def test_scores_are_minus_the_values_of_the_rows_for_themselves():
    X, y = THREE
    net = MLPClassifier((40,), max_iter=100, random_state=0)
    with pytest.warns(UserWarning, match="converge"):
        net.fit(X, y)
    trak = TRAK(FrozenEstimator(net), proj_dim=50, random_state=0).fit(X, y)
    assert trak.features_.shape == (N, 50)
    values = trak.attribute(X, y)
    np.testing.assert_allclose(trak.scores_, -np.diag(values), rtol=1e-9)
    np.testing.assert_allclose(values, trak.features_ @ trak.features_.T, rtol=1e-9, atol=1e-12)
    validated = TRAK(FrozenEstimator(net), proj_dim=50, random_state=0).fit(X, y, X_val=X[:9], y_val=y[:9])
    np.testing.assert_allclose(validated.scores_, values[:9].mean(axis=0), rtol=1e-7, atol=1e-10)


# ---- the kernel and its ridge ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 0.3, "auto"])
@pytest.mark.parametrize(("n", "k"), [(30, 8), (8, 30)])
def test_the_root_is_that_of_the_inverse_on_the_range(n, k, ridge, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 7)
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(n, k)), rng.uniform(size=n)
    features[:, 0] = 2 * features[:, 1]
    root, added = whitening(torch.from_numpy(features), torch.from_numpy(weights), ridge)
    kernel = features.T @ (weights[:, None] * features)
    expected = (0.1 * (k > n) if ridge == "auto" else ridge) * np.trace(kernel) / min(n, k)
    assert added == pytest.approx(expected)
    projector = np.linalg.pinv(features, rcond=1e-9) @ features
    inverse = np.linalg.pinv(kernel, rcond=1e-9) if not added else np.linalg.inv(kernel + added * np.eye(k))
    np.testing.assert_allclose((root @ root.T).numpy(), projector @ inverse @ projector, atol=1e-9)
    assert root.shape == (k, min(n, k) - (n > k))


def test_more_features_than_rows_need_the_ridge_and_get_it():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    model = FrozenEstimator(LogisticRegression(max_iter=1000).fit(X[:200], y[:200]))
    exact = Influence(model).fit(X[:200], y[:200]).attribute(X[200:230], y[200:230])

    def agreement(ridge):
        found = TRAK(model, ridge=ridge).fit(X[:200], y[:200])
        assert (found.ridge_ == 0) == (ridge == 0)
        values = found.attribute(X[200:230], y[200:230])
        return np.mean([np.corrcoef(one, two)[0, 1] for one, two in zip(values, exact, strict=True)])

    assert agreement("auto") > 0.8
    assert agreement(0.0) < 0.6


def test_the_ridge_is_off_where_rows_are_more_than_features():
    X, y, _ = noisy_blobs(100)
    net = TRAK(proj_dim=99, random_state=0).fit(X, y)
    assert net.ridge_ == 0
    assert TRAK(proj_dim=100, random_state=0).fit(X, y).ridge_ > 0


def test_agreement_with_influence_rises_with_the_dimension():
    X, y = load_digits(return_X_y=True)
    X, y, X_query, y_query = X[:1000] / 16, y[:1000], X[1000:1030] / 16, y[1000:1030]
    model = FrozenEstimator(LogisticRegression(C=10, max_iter=2000).fit(X, y))
    exact = Influence(model).fit(X, y).attribute(X_query, y_query)
    found = []
    for dim in (4, 32, 256, 1000):
        values = TRAK(model, proj_dim=dim, ridge=0.1, random_state=0).fit(X, y).attribute(X_query, y_query)
        found.append(np.mean([np.corrcoef(one, two)[0, 1] for one, two in zip(values, exact, strict=True)]))
    assert (np.diff(found) > 0.05).all(), found
    assert found[-1] > 0.6


# ---- outputs and losses ----------------------------------------------------------------------------------------------

CLASSES = torch.arange(12) % 3
BITS = (torch.arange(12) % 2).double()
LIKELIHOODS = {
    "classes": (Categorical(), 3, CLASSES),
    "weighted classes": (Categorical(class_weight=torch.tensor([1.0, 2.0, 5.0])), 3, CLASSES),
    "probabilities": (Categorical(probabilities=True), 3, CLASSES),
    "bits": (Binary(), 1, BITS[:, None]),
    "weighted bits": (Binary(pos_weight=3.0), 1, BITS[:, None]),
    "numbers": (Gaussian(), 1, BITS[:, None]),
    "half squares": (Gaussian(scale=0.5), 1, BITS[:, None]),
    "smoothed": (Categorical(label_smoothing=0.1), 3, CLASSES),
    "several bits": (Binary(), 2, torch.stack([BITS, 1 - BITS], 1)),
    "several numbers": (Gaussian(), 2, torch.stack([BITS, BITS + 1], 1)),
}


@in_turn("name", LIKELIHOODS)
def test_the_slope_times_the_outputs_gradient_is_the_losses_gradient(name):
    likelihood, width, targets = LIKELIHOODS[name]
    torch.manual_seed(0)
    net = nn.Linear(4, width).double()
    net = nn.Sequential(net, nn.Softmax(dim=1)) if name == "probabilities" else net
    x = torch.randn(12, 4, dtype=torch.float64)
    engine = PerRow(DifferentiableModel(net, likelihood, lambda *_: None))
    data = Rows(12, lambda part: (x[part], targets[part]))

    class Fitted:
        model = engine.model

    Fitted.engine, Fitted.rows = engine, data
    output, slope, curvature = output_of(Fitted)
    engine.prepare(data)
    block = data.block(slice(0, 12), engine.model.device)
    slopes = engine.losses(data, slope)
    features = engine.block_gradients(block, output)
    torch.testing.assert_close(slopes[:, None] * features, engine.block_gradients(block), rtol=1e-6, atol=1e-12)
    whole = name in {"smoothed", "several bits", "several numbers"}  # no function of one number
    assert bool((slopes == 1).all()) == whole
    weights = {"weighted classes": torch.tensor([1.0, 2.0, 5.0])[CLASSES], "weighted bits": 1 + 2 * BITS}
    expected = weights.get(name, torch.full((12,), {"numbers": 2.0}.get(name, 1.0)))
    torch.testing.assert_close(engine.losses(data, curvature), expected.double())


def test_a_net_of_several_numbers_is_scored():
    X, y = NUMBERS
    targets = np.column_stack([y, -y]).astype(np.float32) / 100
    torch.manual_seed(0)
    net = NeuralNetRegressor(nn.Linear(4, 2), train_split=None, verbose=0, max_epochs=20, lr=0.05)
    wrong = targets.copy()
    wrong[3] += 20
    found = TRAK(net, random_state=0).fit(X.astype(np.float32), wrong)
    assert found.task_ == "regression"
    assert found.scores_.argmin() == 3


# ---- planted answers and invariances ---------------------------------------------------------------------------------


def test_flips_of_the_digits_are_found_by_a_net_and_by_several():
    X, y = load_digits(return_X_y=True)
    X, y = X[:500] / 16, y[:500]
    given = flip(y, 0.1)
    trak = TRAK(proj_dim=256, random_state=0).fit(X, given)
    assert roc_auc_score(given != y, -trak.scores_) > 0.95
    several = ModelEnsemble(TRAK(proj_dim=256), members="seeds", n_members=2, random_state=0).fit(X, given)
    assert roc_auc_score(given != y, -several.scores_) > 0.95
    one = [each.attribute(X[:3], y[:3]) for each in several.attributors_]
    np.testing.assert_allclose(several.attribute(X[:3], y[:3]), np.mean(one, axis=0), rtol=1e-9)


@pytest.mark.parametrize("holdout", [False, True])
def test_the_pruner_removes_planted_flips(holdout):
    X, given, y = noisy_blobs(200, 0.1)
    X_val, _, y_val = noisy_blobs(60, 0.0)
    validation = Holdout(X_val, y_val) if holdout else None
    pruner = InfluencePruner(
        LogisticRegression(), TRAK(), validation=validation, prune_ratio=0.1, stratify=False, random_state=0
    ).fit(X, given)
    assert (given != y)[~pruner.support_].mean() > (0.7 if holdout else 0.95)


def test_the_detector_and_the_coreset_take_it():
    X, given, y = noisy_blobs(200, 0.1)
    trak = TRAK(LogisticRegression())
    assert ((NoisyLabelDetector(trak, random_state=0).fit(X, given).labels_ == -1) == (given != y)).mean() > 0.95
    kept = CoresetSelector(trak, n_samples=0.5, strategy="top", random_state=0).fit(X, given).sample_indices_
    assert (given == y)[kept].all()


@pytest.fixture(scope="module")
def net():
    """(fitted net of 963 parameters, X, y)."""
    X, y, _ = noisy_blobs(120)
    return FrozenEstimator(MLPClassifier((120,), max_iter=400, tol=1e-2, random_state=0).fit(X, y)), X, y


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("dim", [60, 2048])
def test_batches_do_not_matter(net, batch_size, dim, monkeypatch):
    model, X, y = net
    whole = TRAK(model, proj_dim=dim, random_state=0).fit(X, y, X_val=X[:5], y_val=y[:5])
    monkeypatch.setattr(module, "SHARD", 13)
    part = TRAK(model, proj_dim=dim, batch_size=batch_size, random_state=0).fit(X, y, X_val=X[:5], y_val=y[:5])
    np.testing.assert_allclose(part.scores_, whole.scores_, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(part.attribute(X[:9], y[:9]), whole.attribute(X[:9], y[:9]), rtol=1e-7, atol=1e-12)


def test_the_order_of_rows_and_the_names_of_labels_do_not_matter(net):
    model, X, y = net
    base = TRAK(model, proj_dim=60, random_state=0).fit(X, y).scores_
    order = np.random.default_rng(0).permutation(len(X))
    moved = TRAK(model, proj_dim=60, random_state=0).fit(X[order], y[order]).scores_
    np.testing.assert_allclose(moved, base[order], rtol=1e-7)
    names = np.array(["a", "b", "c"])
    named = TRAK(LogisticRegression()).fit(X, names[y]).scores_
    np.testing.assert_allclose(named, TRAK(LogisticRegression()).fit(X, y).scores_, rtol=1e-9)


def test_a_seed_decides_the_projection_and_pickling_keeps_it(net):
    model, X, y = net
    first = TRAK(model, proj_dim=60, random_state=0).fit(X, y)
    np.testing.assert_array_equal(TRAK(model, proj_dim=60, random_state=0).fit(X, y).scores_, first.scores_)
    assert not np.allclose(TRAK(model, proj_dim=60, random_state=1).fit(X, y).scores_, first.scores_, rtol=1e-3)
    for seed in (first, TRAK(model, proj_dim=60).fit(X, y)):  # None: drawn once
        again = pickle.loads(pickle.dumps(seed))
        np.testing.assert_array_equal(again.attribute(X[:4], y[:4]), seed.attribute(X[:4], y[:4]))


def test_a_part_of_the_rows_of_a_run_is_counted_as_a_part():
    X, y = rows()
    X, y = np.vstack([X, X]), np.r_[y, y]
    recorded, _ = record(X, y)
    whole = TRAK(FrozenEstimator(recorded), proj_dim=9, random_state=0).fit(X, y).scores_
    part = TRAK(FrozenEstimator(recorded), proj_dim=9, random_state=0).fit(X[:40], y[:40]).scores_
    np.testing.assert_allclose(part, whole[:40], rtol=1e-3)
    assert np.ptp(part) > 0


def test_a_fit_that_was_killed_goes_on(net, tmp_path, monkeypatch):
    model, X, y = net
    expected = TRAK(model, proj_dim=60, random_state=0).fit(X, y).scores_

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "whitening", killed)
    with pytest.raises(KeyboardInterrupt):
        TRAK(model, proj_dim=60, random_state=0, work_dir=tmp_path).fit(X, y)
    monkeypatch.undo()
    assert list(tmp_path.rglob("features*"))
    monkeypatch.setattr(module, "projected", killed)
    again = TRAK(model, proj_dim=60, random_state=0, work_dir=tmp_path).fit(X, y)
    np.testing.assert_array_equal(again.scores_, expected)
    assert not list(tmp_path.rglob("features*"))


def test_the_cost_is_estimated(net):
    model, X, y = net
    cost = TRAK(model, proj_dim=60, random_state=0).estimate(X, y)
    assert cost["rows"] == 120
    assert cost["bytes"] > 120 * 60 * 8


@pytest.mark.parametrize(("params", "message"), [({"proj_dim": 0}, "proj_dim"), ({"ridge": -1.0}, "ridge")])
def test_bad_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        TRAK(**params).fit(*TWO)
