"""What all gradient-based methods promise: one table of methods x models x checks, and every error."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sktda.attribution import Influence, InnerProduct, TracIn
from sktda.engine import systems
from sktda.model.recorder import TrajectoryRecorder
from tests.in_turn import in_turn
from tests.model.nets import Mlp, make_net, rows

pytestmark = [
    pytest.mark.usefixtures("short_training"),
    pytest.mark.filterwarnings("ignore:EK-FAC leaves out:UserWarning"),  # the norm of the images' net
]

N = 50
TWO = make_classification(N, 4, flip_y=0.2, random_state=1)
THREE = make_classification(N, 4, n_informative=3, n_redundant=0, n_classes=3, flip_y=0.1, random_state=2)
NUMBERS = make_regression(N, 4, noise=20.0, random_state=0)
NUMBERS = NUMBERS[0], NUMBERS[1] / 50
FLOATS = THREE[0].astype(np.float32), THREE[1].astype(np.int64)
WEIGHTS = np.random.default_rng(3).uniform(0.2, 3.0, N)
WEIGHTS[5] = 0.0


def quiet(estimator, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence: any parameters will do
        return FrozenEstimator(estimator.fit(X, y))


class Small(nn.Module):
    """Four inputs, three logits."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, X):
        return self.layers(X)


class Conv(nn.Module):
    """(n, 1, 6, 6) pixels to 3 logits: shared weights and a norm."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.last = nn.Linear(12, 3)

    def forward(self, X):
        return self.last(nn.functional.max_pool2d(torch.relu(self.norm(self.conv(X))), 2).flatten(1))


IMAGES = np.random.default_rng(0).normal(size=(N, 1, 6, 6)).astype(np.float32), FLOATS[1]
NET = make_net(TrajectoryRecorder(n_checkpoints=3), module=Small, optimizer__momentum=0.5)
torch.manual_seed(0)
CONV = NeuralNetClassifier(
    Conv, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0, max_epochs=3, batch_size=20, lr=0.05
)
MODELS = {
    "logistic": (LogisticRegression(), TWO),
    "softmax": (LogisticRegression(C=5.0, tol=1e-8), THREE),
    "balanced": (LogisticRegression(class_weight="balanced"), THREE),
    "ridge": (Ridge(), NUMBERS),
    "least squares": (LinearRegression(), NUMBERS),
    "ridge classifier": (RidgeClassifier(class_weight={0: 1.0, 1: 3.0, 2: 0.5}), THREE),
    "sgd": (SGDClassifier(loss="log_loss", alpha=0.01, random_state=0, class_weight={0: 2.0, 1: 1.0, 2: 0.5}), THREE),
    "pipeline": (make_pipeline(StandardScaler(), LogisticRegression()), THREE),
    "perceptron": (quiet(MLPClassifier((6,), alpha=0.1, max_iter=50, random_state=0), *THREE), THREE),
    "regressor": (quiet(MLPRegressor(hidden_layer_sizes=(6,), max_iter=50, random_state=0), *NUMBERS), NUMBERS),
    "net": (FrozenEstimator(NET.fit(*FLOATS)), FLOATS),
    "piped net": (FrozenEstimator(make_pipeline(StandardScaler(), clone(NET)).fit(*FLOATS)), FLOATS),
    "images": (FrozenEstimator(CONV.fit(*IMAGES)), IMAGES),
}
METHODS = {
    "tracin": TracIn(),
    "inner product": InnerProduct(),
    "exact": Influence(curvature="exact", damping=0.01, random_state=0),
    "cg": Influence(curvature="cg", damping=0.05, random_state=0),
    "ekfac": Influence(curvature="ekfac", damping=0.05, random_state=0),
}
# conjugate gradients solve one system per row: two models are enough; test_influence.py has them beside "exact"
PAIRS = [(m, e) for m in METHODS for e in MODELS if m != "cg" or e in {"logistic", "ridge classifier"}]


def built(method, model, **params):
    estimator, (X, y) = MODELS[model]
    n = 24 if method == "cg" else N  # a system for every row takes its time
    return clone(METHODS[method]).set_params(estimator=estimator, **params), X[:n], y[:n]


def precision(model):
    return 1e-4 if model in {"net", "piped net", "images"} else 1e-9


def assert_close(found, expected, tolerance):
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_pairs_by_conjugate_gradients_of_a_recorded_net_are_its_scores_for_one_row_each(monkeypatch):
    """These know the links between layers in some directions, and leave the others to EK-FAC."""
    monkeypatch.setattr(systems, "STOPPED", 0.2)  # so short a run would leave nearly all of them
    X, y = FLOATS
    influence = Influence(MODELS["net"][0], curvature="cg", random_state=0)
    values = clone(influence).fit(X, y).attribute(X[:4], y[:4])
    for k, found in enumerate(values):
        alone = clone(influence).fit(X, y, X_val=X[k : k + 1], y_val=y[k : k + 1])
        assert_close(found, alone.scores_, 1e-4)
    net = MODELS["net"][0].estimator
    assert 0 < len(alone._system(alone._ready()).links) < 0.8 * sum(v.numel() for v in net.module_.parameters())
    values, itself = influence.fit(X, y).attribute(X, y), clone(influence).set_params(objective="self").fit(X, y)
    assert_close(itself.scores_, -values.diagonal(), 1e-4)


# ---- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "model"), PAIRS)
def test_scores_and_the_best_are_those_of_the_matrix(method, model):
    """Of rows for themselves, of validation rows, and one by one: of one training, which takes the most time."""
    attributor, X, y = built(method, model, batch_size=13)
    scores = attributor.fit(X, y).scores_
    assert scores.dtype == np.float64
    assert scores.max() <= 0
    tolerance = 1e-5 if method == "cg" and precision(model) < 1e-5 else precision(model)
    values = attributor.attribute(X, y)
    assert_close(scores, -np.diag(values), tolerance)

    few = attributor.attribute(X[:6], y[:6])
    for k, harmful in ((17, False), (17, True), (len(X), False)):
        order = np.argsort(few if harmful else -few, axis=1, kind="stable")
        found, best = attributor.top_k(X[:6], y[:6], k, harmful=harmful)
        np.testing.assert_array_equal(best, np.take_along_axis(few, found, axis=1))
        assert_close(best, np.take_along_axis(few, order, axis=1)[:, :k], 1e-9)
        assert all(len(set(row)) == k for row in found)

    scores = attributor.fit(X, y, X_val=X[:20], y_val=y[:20]).scores_
    assert_close(scores, values[:20].mean(axis=0), max(precision(model), 1e-6))


WEIGHTED = {"logistic", "softmax", "balanced", "ridge", "ridge classifier", "sgd", "pipeline"}


@in_turn(("method", "model"), [pair for pair in PAIRS if pair[1] in WEIGHTED])
def test_weighted_rows(method, model):
    attributor, X, y = built(method, model)
    weights = WEIGHTS[: len(X)]
    scores = attributor.fit(X, y, sample_weight=weights).scores_
    values = attributor.attribute(X, y)
    assert_close(scores, -np.diag(values), 1e-5 if method == "cg" else 1e-9)
    assert scores[5] == 0
    assert not values[:, 5].any()
    frozen = clone(attributor).set_params(estimator=FrozenEstimator(attributor.estimator_))
    held_out = frozen.fit(X, y, sample_weight=weights, X_val=X[:20], y_val=y[:20]).scores_
    assert held_out[5] == 0
    assert_close(held_out, values[:20].mean(axis=0), 1e-5 if method == "cg" else 1e-9)


@pytest.mark.parametrize(
    ("method", "model"),
    [(m, e) for m in METHODS for e in ("softmax", "ridge", "net", "images") if m != "cg" or e in {"softmax", "net"}],
)
def test_the_batch_size_changes_nothing(method, model):
    tolerance = 1e-5 if precision(model) > 1e-9 else 1e-9
    results = []
    for size in (N, 7, 1) if model == "images" else (N, 7):
        attributor, X, y = built(method, model, batch_size=size)
        X, y = X[:16], y[:16]
        scores = attributor.fit(X, y, X_val=X[:9], y_val=y[:9]).scores_
        if method == "cg":
            tolerance = max(tolerance, 1e-4 if model == "net" else 1e-7)  # two solutions, each to its residual
            results.append((scores, attributor.attribute(X[:9], y[:9])))
        else:
            own = attributor.fit(X, y).scores_
            results.append((scores, attributor.attribute(X[:9], y[:9]), own))
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            assert_close(found, expected, tolerance)


@in_turn(("method", "model"), [(m, e) for m in ("tracin", "exact") for e in ("softmax", "net", "ridge")])
def test_row_order_plays_no_part(method, model):
    attributor, X, y = built(method, model)
    plain = attributor.fit(X, y).scores_
    order = np.random.default_rng(0).permutation(N)
    frozen = clone(attributor).set_params(estimator=FrozenEstimator(attributor.estimator_))
    if model == "net":
        frozen = attributor
    assert_close(frozen.fit(X[order], y[order]).scores_, plain[order], 1e-5)


@pytest.mark.parametrize("method", ["tracin", "inner product", "exact", "cg"])
def test_equal_rows_have_equal_values_and_twice_the_data_halves_them(method):
    """n x value stays: alpha doubles with the sum of the losses, so the mean loss and its penalty stay, too."""
    X, y = (values[:30] for values in NUMBERS)
    once = clone(METHODS[method]).set_params(estimator=Ridge(alpha=2.0, solver="cholesky"))
    twice = clone(METHODS[method]).set_params(estimator=Ridge(alpha=4.0, solver="cholesky"))
    plain = once.fit(X, y).scores_
    doubled = twice.fit(np.vstack([X, X]), np.r_[y, y]).scores_
    assert_close(doubled[:30], doubled[30:], 1e-9)
    assert_close(2 * doubled[:30], plain, 1e-6)
    values = twice.attribute(X[:5], y[:5])
    assert_close(2 * values[:, :30], once.attribute(X[:5], y[:5]), 1e-6)


@pytest.mark.parametrize("k", [0, -1, N + 1])
def test_top_k_out_of_range(k):
    attributor, X, y = built("exact", "logistic", objective=None)
    with pytest.raises(ValueError, match=f"k={k} is not between 1 and the number of training rows, {N}"):
        attributor.fit(X, y).top_k(X[:2], y[:2], k)


@pytest.mark.parametrize("method", METHODS)
def test_pickle_keeps_a_fitted_attributor(method):
    for model in ("softmax", "net"):
        attributor, X, y = built(method, model, objective=None)
        values = attributor.fit(X, y).attribute(X[:3], y[:3])
        restored = pickle.loads(pickle.dumps(attributor))
        np.testing.assert_array_equal(restored.attribute(X[:3], y[:3]), values)
        assert not hasattr(clone(attributor), "estimator_")


@pytest.mark.parametrize("method", METHODS)
def test_fitting_again_forgets_the_first_fit(method):
    attributor, X, y = built(method, "net", objective=None)
    attributor.fit(X, y)
    attributor.set_params(estimator=LogisticRegression()).fit(TWO[0][:, :3], TWO[1])
    assert not hasattr(attributor, "trajectory_")
    assert attributor.n_features_in_ == 3
    assert attributor.attribute(TWO[0][:2, :3], TWO[1][:2]).shape == (2, N)
    attributor.set_params(objective="self").fit(*TWO)
    assert hasattr(attributor, "scores_")
    attributor.set_params(objective=None).fit(*TWO)
    assert not hasattr(attributor, "scores_")


@in_turn("model", ["softmax", "ridge classifier", "perceptron", "net", "ridge", "regressor"])
def test_the_task_is_that_of_the_estimator(model):
    expected = "regression" if model in {"ridge", "regressor"} else "classification"
    for method in METHODS:
        attributor, X, y = built(method, model, objective=None)
        assert attributor.fit(X, y).task_ == expected, method


# ---- what the rows may be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_labels_of_any_kind_and_rows_in_any_container(cls):
    X, y = THREE
    names = np.array(["ant", "bee", "cat"])[y]
    plain = cls(LogisticRegression()).fit(X, y).scores_
    assert_close(cls(LogisticRegression()).fit(X, names).scores_, plain, 1e-12)
    frame = pd.DataFrame(X, columns=list("abcd"), index=np.arange(N)[::-1])
    series = pd.Series(names, index=frame.index)
    fitted = cls(LogisticRegression()).fit(frame, series, X_val=frame[:9], y_val=series[:9])
    assert fitted.feature_names_in_.tolist() == list("abcd")
    assert_close(fitted.scores_, cls(LogisticRegression()).fit(X, y, X_val=X[:9], y_val=y[:9]).scores_, 1e-12)
    assert_close(cls(LogisticRegression()).fit(sp.csr_array(X), names).scores_, plain, 1e-3)
    assert_close(cls(LogisticRegression()).fit(X.tolist(), names.tolist()).scores_, plain, 1e-12)


class Sum(nn.Module):
    """Logits from two named inputs."""

    def __init__(self):
        super().__init__()
        self.left = nn.Linear(2, 2)
        self.right = nn.Linear(1, 2)

    def forward(self, a, b):
        return self.left(a) + self.right(b)


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_a_dict_of_inputs(cls):
    X, y = rows(30)
    inputs = {"a": X[:, :2].copy(), "b": X[:, 2:].copy()}
    net = make_net(module=Sum)
    attributor = cls(net, random_state=0).fit(inputs, y)
    assert attributor.scores_.shape == (30,)
    values = attributor.attribute({name: value[:4] for name, value in inputs.items()}, y[:4])
    np.testing.assert_allclose(np.diag(values), -attributor.scores_[:4], rtol=1e-3)
    crossed = cls(net, objective="validation", random_state=0).fit(inputs, y).scores_
    assert np.isfinite(crossed).all()


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_numbers_in_a_column_for_a_net(cls):
    X, y = NUMBERS[0].astype(np.float32), NUMBERS[1].astype(np.float32).reshape(-1, 1)
    net = NeuralNetRegressor(nn.Linear, module__in_features=4, module__out_features=1, train_split=None, verbose=0)
    attributor = cls(net, random_state=0).fit(X, y)
    assert attributor.task_ == "regression"
    np.testing.assert_allclose(-np.diag(attributor.attribute(X, y)), attributor.scores_, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_the_default_net(cls):
    for X, y in (THREE, NUMBERS, (IMAGES[0][:, 0], np.array(["a", "b", "c"])[IMAGES[1]])):
        attributor = cls(random_state=0).fit(X, y)
        assert np.isfinite(attributor.scores_).all()
        if X is THREE[0]:
            np.testing.assert_array_equal(cls(random_state=0).fit(X, y).scores_, attributor.scores_)
        assert_close(-np.diag(attributor.attribute(X[:9], y[:9]))[:9], attributor.scores_[:9], 1e-4)


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_one_query_of_many_is_worth_what_it_is_alone(cls):
    X, y = THREE
    attributor = cls(LogisticRegression(class_weight="balanced"), objective=None).fit(X, y)
    values = attributor.attribute(X[:9], y[:9])
    for k in range(9):
        np.testing.assert_allclose(attributor.attribute(X[k : k + 1], y[k : k + 1])[0], values[k], rtol=1e-10)


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_an_unfitted_attributor_says_so(cls):
    for call in ("attribute", "top_k"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(cls(LogisticRegression()), call)(*TWO)


@in_turn("cls", [TracIn, InnerProduct, Influence])
@in_turn("model", [None, "logistic", "softmax", "pipeline"])
def test_queries_that_do_not_fit_the_model(cls, model):
    X, y = TWO if model == "logistic" else THREE
    attributor = cls(None if model is None else MODELS[model][0], objective=None, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"y holds the label 9 .*its classes are 0, 1"):
        attributor.attribute(X[:2], [0, 9])
    with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 4 features"):
        attributor.attribute(X[:2, :3], y[:2])
    with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 4 features"):
        attributor.set_params(objective="validation").fit(X, y, X_val=X[:2, :3], y_val=y[:2])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        attributor.attribute(X[:2], y[:3])


def test_queries_that_do_not_fit_a_net():
    attributor, X, y = built("tracin", "net", objective=None)
    attributor.fit(X, y)
    with pytest.raises(ValueError, match="X has 3 features, but TracIn is expecting 4 features"):
        attributor.attribute(X[:2, :3], y[:2])
    with pytest.raises(ValueError, match=r"y holds the label 9 .*allowed are 0 to 2, one per output"):
        attributor.attribute(X[:2], np.array([0, 9]))
    with pytest.raises(ValueError, match="X and y have 2 and 3 rows"):
        attributor.attribute(X[:2], y[:3])


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_a_model_without_gradients_is_refused_by_name(cls):
    for model in (RandomForestClassifier(), make_pipeline(StandardScaler(), RandomForestClassifier())):
        with pytest.raises(
            TypeError, match=r"RandomForestClassifier cannot be differentiated; allowed are skorch nets"
        ):
            cls(model).fit(*TWO)
    with pytest.raises(ValueError, match="only L2 is smooth"):
        cls(LogisticRegression(l1_ratio=1.0, solver="saga")).fit(*TWO)


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_a_frozen_model_that_was_never_fitted(cls):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        cls(FrozenEstimator(LogisticRegression())).fit(*TWO)


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_a_train_split_that_hides_rows(cls):
    X, y = rows()
    net = NeuralNetClassifier(Mlp, criterion=nn.CrossEntropyLoss, verbose=0)
    with pytest.raises(ValueError, match=r"train_split=ValidSplit\(5\) hides 20 % of the rows.*set train_split=None"):
        cls(net).fit(X, y)
    with pytest.raises(ValueError, match=r"hides 20 % of the rows"):
        cls(make_pipeline(StandardScaler(), net)).fit(X, y)
    with pytest.raises(ValueError, match=r"early_stopping=True trains on 90 % of the rows"):
        cls(MLPClassifier(early_stopping=True)).fit(X, y)


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_a_trimmed_net(cls):
    X, y = rows()
    net = make_net().fit(X, y)
    net.trim_for_prediction()
    with pytest.raises(ValueError, match="trim_for_prediction removes them"):
        cls(FrozenEstimator(net)).fit(X, y)


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_a_training_that_diverges_is_located(cls):
    X, y = rows()
    with pytest.raises(ValueError, match=r"became NaN or infinite in epoch \d: the training diverged at learning rate"):
        cls(make_net(lr=1e20), random_state=0).fit(X, y)
    wrong = X.copy()
    wrong[13, 1] = np.nan
    with pytest.raises(ValueError, match="row 13 of X or y holds NaN or infinity"):
        cls(make_net(), random_state=0).fit(wrong, y)


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_a_diverged_frozen_net_and_rows_that_are_not_finite(cls):
    X, y = rows()
    net = make_net().fit(X, y)
    wrong = X.copy()
    wrong[13, 1] = np.nan
    params = {"curvature": "exact", "damping": 0.1} if cls is Influence else {}
    with pytest.raises(ValueError, match="the query or validation rows"):
        cls(FrozenEstimator(net), **params).fit(X, y, X_val=wrong, y_val=y)
    fitted = cls(FrozenEstimator(net), objective=None, **params).fit(X, y)
    with pytest.raises(ValueError, match="because of query 13"):
        fitted.attribute(wrong[:20], y[:20])
    if cls is not Influence:  # its curvature is of all rows
        with pytest.raises(ValueError, match="because of training row 13"):
            cls(FrozenEstimator(net)).fit(wrong, y)
    with torch.no_grad():
        net.module_.last.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"parameter 'last.bias' .*holds NaN or infinity.*smaller learning rate"):
        cls(FrozenEstimator(net), **params).fit(X, y)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))

    def forward(self, X):
        return self.layers(X)


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_a_last_batch_of_one_row_under_batch_norm(cls):
    X, y = rows(41)
    with pytest.raises(ValueError, match=r"last batch of 41 rows .*set iterator_train__drop_last=True"):
        cls(make_net(module=Normed)).fit(X, y)
    scores = cls(make_net(module=Normed, iterator_train__drop_last=True), random_state=0).fit(X, y).scores_
    assert scores.shape == (41,)


class Unbuffered(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2))

    def forward(self, X):
        return self.layers(X)


def test_a_norm_that_mixes_rows_is_refused():
    with pytest.raises(ValueError, match="it mixes the rows of a batch"):
        TracIn(make_net(module=Unbuffered)).fit(*rows())


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_input_that_is_refused(cls):
    X, y = TWO
    model = LogisticRegression()
    with pytest.raises(ValueError, match="X_val came without y_val"):
        cls(model).fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="y_val came without X_val"):
        cls(model).fit(X, y, y_val=y)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: 50 and 49"):
        cls(model).fit(X, y[:-1])
    with pytest.raises(ValueError, match=r"sample_weight has shape \(49,\)"):
        cls(model).fit(X, y, sample_weight=WEIGHTS[:-1])
    with pytest.raises(ValueError, match="finite and non-negative"):
        cls(model).fit(X, y, sample_weight=-WEIGHTS)
    with pytest.raises(ValueError, match="takes no sample_weight"):
        cls(make_net()).fit(*rows(), sample_weight=np.ones(40))
    with pytest.raises(ValueError, match="requires y to be passed"):
        cls().fit(X, None)
    with pytest.raises(ValueError, match="The 'batch_size' parameter"):
        cls(model, batch_size=0).fit(X, y)


@pytest.mark.parametrize("cls", [TracIn, InnerProduct, Influence])
def test_a_device_that_does_not_exist(cls):
    with pytest.raises((RuntimeError, ValueError), match=r"(?i)device"):
        cls(LogisticRegression(), device="abacus").fit(*TWO)


@pytest.mark.parametrize("method", METHODS)
def test_the_torch_copy_of_the_model_is_kept_for_queries_and_not_pickled(method, monkeypatch):
    attributor, X, y = built(method, "net", objective=None)
    attributor.fit(X, y)
    restored = pickle.loads(pickle.dumps(attributor))
    assert "_live" not in vars(restored)
    expected = restored.attribute(X[:3], y[:3])
    monkeypatch.setattr(type(attributor), "_fitted", lambda self: pytest.fail("the model is made again"))
    for _ in range(2):
        np.testing.assert_array_equal(attributor.attribute(X[:3], y[:3]), expected)
