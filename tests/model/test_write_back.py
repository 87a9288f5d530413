"""Parameters back into estimators: the way out and in changes nothing, new ones predict as the torch module does."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeClassifier,
    RidgeCV,
    SGDClassifier,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import LRScheduler
from torch import nn

from sktda.attribution import Influence
from sktda.model.adapters import differentiable, with_parameters
from sktda.model.base import forward
from sktda.model.given import GivenModel
from sktda.model.proxy import default_net
from sktda.model.recorder import TrajectoryRecorder, find_trajectory
from tests.in_turn import in_turn
from tests.model.nets import Mlp, Tied, make_net, record

N = 48
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3)) + [0.5, 0, -1]
X32 = X.astype(np.float32)
TWO = np.array(["no", "yes"])[(X @ [1.0, -1, 0.5] + RNG.normal(size=N) > 0).astype(int)]
THREE = np.array(["a", "b", "c"])[np.clip(np.round(X[:, 0] + RNG.normal(size=N) + 1), 0, 2).astype(int)]
BITS, CODES = (TWO == "yes").astype(np.int64), np.unique(THREE, return_inverse=True)[1].astype(np.int64)
ONE = X @ [1.0, 2, 3] + RNG.normal(size=N) + 4
SEVERAL = np.column_stack([ONE, X[:, 1] ** 2, RNG.normal(size=N)])
LABELS = np.column_stack([X[:, 0] > 0.3, X[:, 1] + RNG.normal(size=N) > 0]).astype(int)
IMAGES = RNG.normal(size=(N, 6, 6))

CV = {"l1_ratios": (0,), "use_legacy_attributes": False, "scoring": "neg_log_loss", "Cs": [0.1, 1.0]}
MLP = {"hidden_layer_sizes": (4, 3), "random_state": 0, "tol": 100, "n_iter_no_change": 2}
SGD = {"loss": "log_loss", "random_state": 0}
SKORCH = {"train_split": None, "max_epochs": 2, "verbose": 0, "lr": 0.05}


def mlp(k, *end):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, k), *end)


def half_frozen():
    module = mlp(3)
    module[0].requires_grad_(False)
    return module


def compiled_inside():
    module = mlp(3)
    module[3] = torch.compile(module[3], backend="eager")
    return module


def skorch_net(kind, module, criterion, **settings):
    return kind(module, criterion=criterion, **SKORCH, **settings)


def cross_entropy(module, **settings):
    return skorch_net(NeuralNetClassifier, module, nn.CrossEntropyLoss(), **settings)


def local_class():
    class Local(Mlp):
        pass

    return cross_entropy(Local)


# outputs of the torch module -> what the estimator predicts
def sign(z):
    return (z > 0).astype(int)


def logistic(z):
    return 1 / (1 + np.exp(-z))


def both(z):
    return np.column_stack([1 - logistic(z), logistic(z)])


def softmax(z):
    return torch.from_numpy(z).softmax(1).numpy()


CASES = {
    "logistic": (LogisticRegression(), X, TWO, "decision_function", None),
    "logistic-no-intercept": (LogisticRegression(fit_intercept=False), X, TWO, "decision_function", None),
    "logistic-float32": (LogisticRegression(), X32, TWO, "decision_function", None),
    "liblinear": (LogisticRegression(solver="liblinear"), X, TWO, "decision_function", None),
    "softmax": (LogisticRegression(), X, THREE, "decision_function", None),
    "softmax-cv": (LogisticRegressionCV(**CV), X, THREE, "decision_function", None),
    "least-squares": (LinearRegression(), X, ONE, "predict", None),
    "least-squares-float32": (LinearRegression(), X32, ONE.astype(np.float32), "predict", None),
    "least-squares-column": (LinearRegression(), X, ONE[:, None], "predict", None),
    "least-squares-no-intercept": (LinearRegression(fit_intercept=False), X, SEVERAL, "predict", None),
    "ridge": (Ridge(), X, ONE, "predict", None),
    "ridge-float32": (Ridge(), X32, ONE.astype(np.float32), "predict", None),
    "ridge-several": (Ridge(), X, SEVERAL, "predict", None),
    "ridge-alphas": (Ridge(alpha=[0.0, 1.0, 30.0]), X, SEVERAL, "predict", None),
    "ridge-alphas-no-intercept": (Ridge(alpha=[0.0, 1.0, 30.0], fit_intercept=False), X, SEVERAL, "predict", None),
    "ridge-cv-per-target": (RidgeCV([0.1, 5.0, 100.0], alpha_per_target=True), X, SEVERAL, "predict", None),
    "ridge-classifier": (RidgeClassifier(), X, TWO, "decision_function", None),
    "ridge-classifier-labels": (RidgeClassifier(), X, LABELS, "predict", sign),
    "sgd": (SGDClassifier(**SGD), X, TWO, "decision_function", None),
    "sgd-several": (SGDClassifier(**SGD), X, THREE, "decision_function", None),
    "sgd-average": (SGDClassifier(average=True, **SGD), X, TWO, "decision_function", None),
    "sgd-several-average": (SGDClassifier(average=20, **SGD), X, THREE, "decision_function", None),
    "sgd-average-not-begun": (SGDClassifier(average=10**6, **SGD), X, THREE, "decision_function", None),
    "perceptron": (MLPClassifier(**MLP), X, TWO, "predict_proba", both),
    "perceptron-softmax": (MLPClassifier(activation="tanh", **MLP), X, THREE, "predict_proba", softmax),
    "perceptron-labels": (MLPClassifier(solver="sgd", **MLP), X, LABELS, "predict_proba", logistic),
    "perceptron-lbfgs": (MLPRegressor(**MLP | {"solver": "lbfgs", "tol": 1}), X, ONE, "predict", None),
    "perceptron-float32": (MLPRegressor(**MLP), X32, SEVERAL, "predict", None),
    "pipeline": (make_pipeline(StandardScaler(), Ridge()), X, ONE, "predict", None),
    "pipelines": (make_pipeline(StandardScaler(), make_pipeline("passthrough", Ridge())), X, ONE, "predict", None),
    "net": (cross_entropy(Mlp), X32, BITS, "predict_proba", softmax),
    "net-batch-norm": (cross_entropy(mlp(3)), X32, CODES, "predict_proba", softmax),
    "net-of-a-local-class": (local_class(), X32, BITS, "predict_proba", softmax),
    "net-float64": (skorch_net(NeuralNetRegressor, mlp(3).double(), nn.MSELoss()), X, SEVERAL, "predict", None),
    "net-half-frozen": (cross_entropy(half_frozen()), X32, CODES, "predict_proba", softmax),
    "net-tied": (skorch_net(NeuralNet, Tied(), nn.MSELoss()), X32, SEVERAL.astype(np.float32), "predict", None),
    "net-compiled": (cross_entropy(torch.compile(mlp(3), backend="eager")), X32, CODES, "predict_proba", softmax),
    "net-compiled-inside": (cross_entropy(compiled_inside()), X32, CODES, "predict_proba", softmax),
    "net-adam": (cross_entropy(Mlp, optimizer=torch.optim.Adam), X32, BITS, "predict_proba", softmax),
    "net-schedule": (
        cross_entropy(Mlp, callbacks=[LRScheduler("StepLR", step_size=1)]),
        X32,
        BITS,
        "predict_proba",
        softmax,
    ),
    "net-binary": (
        skorch_net(NeuralNetBinaryClassifier, mlp(1, nn.Flatten(0)), nn.BCEWithLogitsLoss()),
        X32,
        BITS.astype(np.float32),
        "predict_proba",
        both,
    ),
    "net-in-a-pipeline": (make_pipeline(StandardScaler(), cross_entropy(Mlp)), X32, BITS, "predict_proba", softmax),
    "default-table": (default_net("classification", 0), X, THREE, "predict_proba", softmax),
    "default-images": (default_net("classification", 0), IMAGES, THREE, "predict_proba", softmax),
    "default-numbers": (default_net("regression", 0), X, SEVERAL, "predict", None),
}
WRAPPED = ["pipelines", "softmax", "net", "net-in-a-pipeline", "default-table"]
pytestmark = [  # torch's own, as it loads the compiler and as it compiles a part of a module
    pytest.mark.filterwarnings("ignore:.*torch.jit.script"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


@pytest.fixture(scope="module")
def fitted():
    done = {}

    def of(case):
        if case not in done:
            estimator, inputs, y, *_ = CASES[case]
            torch.manual_seed(0)
            done[case] = clone(estimator).fit(inputs, y)
        return done[case]

    return of


def moved(model, seed=1):
    """The model's parameters, each a little off."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: value.detach() + 0.3 * torch.randn(value.shape, generator=draw, dtype=value.dtype)
        for name, value in model.parameters.items()
    }


def outputs(model, inputs, parameters=None):
    """Of the torch module with these parameters, or its own."""
    if parameters is not None:
        with torch.no_grad():
            for name, value in parameters.items():
                model.parameters[name].copy_(value)
    with torch.no_grad():
        return forward(model.module, model.rows(inputs).block(slice(None), model.device)[0]).numpy()


def predicted(case, estimator, values):
    """What an estimator with these raw outputs predicts."""
    _, _, _, _, link = CASES[case]
    values = values if link is None else link(values)
    if case == "default-numbers":  # losses are of standardised targets, predictions in the user's units
        values = values * estimator.standard_.spread + estimator.standard_.mean
    return values


def ask(case, estimator):
    _, inputs, _, method, _ = CASES[case]
    return getattr(estimator, method)(inputs)


def storages(estimator):
    """Where the numbers of parameters and optimiser of the net inside are, or those of a scikit-learn model."""
    net = GivenModel.of(estimator).net
    if net is None:
        model = GivenModel.of(estimator).model
        arrays = [*getattr(model, "coefs_", []), *([model.coef_] if hasattr(model, "coef_") else [])]
        return {array.__array_interface__["data"][0] for array in arrays}
    states = [value for state in net.optimizer_.state.values() for value in state.values()]
    kept = [*net.module_.parameters(), *net.module_.buffers(), *states]
    return {each.data_ptr() for each in kept if isinstance(each, torch.Tensor)}


@pytest.mark.parametrize("case", CASES)
def test_out_and_in_again_changes_no_prediction(case, fitted):
    estimator = fitted(case)
    same = with_parameters(estimator, dict(differentiable(estimator, N).parameters))
    assert type(same) is type(estimator)
    np.testing.assert_array_equal(ask(case, same), ask(case, estimator))
    none = with_parameters(estimator, {})
    np.testing.assert_array_equal(ask(case, none), ask(case, estimator))


@in_turn("case", CASES)
def test_new_parameters_predict_as_the_module_that_has_them(case, fitted):
    estimator = fitted(case)
    _, inputs, _, _, link = CASES[case]
    before, state = ask(case, estimator), differentiable(estimator, N)
    model = differentiable(estimator, N)
    new = moved(model)
    changed = with_parameters(estimator, new)
    values = ask(case, changed)
    expected = predicted(case, estimator, outputs(model, inputs, new))
    if link is sign:
        np.testing.assert_array_equal(values, expected)
        assert (values != before).any()
    else:
        close = 1e-10 if values.dtype == np.float64 and not case.startswith("default") else 2e-5
        np.testing.assert_allclose(values, expected.reshape(values.shape), rtol=close, atol=close)
        assert np.abs(values - before).max() > 0.01
    single = "float32" in case  # scikit-learn keeps these in single precision
    again = differentiable(changed, N).parameters
    assert again.keys() == new.keys()
    for name, value in again.items():
        torch.testing.assert_close(value.detach(), new[name].float().double() if single else new[name], rtol=0, atol=0)
    # the estimator itself is as it was, and nothing of it is in the copy
    np.testing.assert_array_equal(ask(case, estimator), before)
    for name, value in differentiable(estimator, N).parameters.items():
        assert torch.equal(value, state.parameters[name])
    assert not storages(changed) & storages(estimator)


@in_turn("case", CASES)
def test_a_part_of_the_parameters_leaves_the_others(case, fitted):
    estimator = fitted(case)
    old = differentiable(estimator, N)
    name = list(old.parameters)[-1]
    changed = differentiable(with_parameters(estimator, {name: moved(old)[name]}), N)
    assert {each for each in old.parameters if not torch.equal(old.parameters[each], changed.parameters[each])} == {
        name
    }
    for each, value in old.module.named_buffers():
        assert torch.equal(value, dict(changed.module.named_buffers())[each])


@pytest.mark.parametrize("case", ["logistic-float32", "least-squares", "least-squares-column", "ridge-float32"])
def test_shape_dtype_and_kind_of_the_attributes_stay(case, fitted):
    estimator = fitted(case)
    changed = with_parameters(estimator, moved(differentiable(estimator, N)))
    for name in ("coef_", "intercept_"):
        old, new = getattr(estimator, name), getattr(changed, name)
        assert (type(new), new.dtype, new.shape) == (type(old), old.dtype, old.shape)


@pytest.mark.parametrize("case", WRAPPED)
def test_frozen_estimators_are_copied_with_what_is_inside(case, fitted):
    estimator = FrozenEstimator(make_pipeline("passthrough", FrozenEstimator(fitted(case))))
    model = differentiable(estimator, N)
    new = moved(model)
    changed = with_parameters(estimator, new)
    assert type(changed) is FrozenEstimator
    assert GivenModel.of(changed).model is not GivenModel.of(estimator).model
    expected = with_parameters(fitted(case), new)
    np.testing.assert_array_equal(ask(case, changed), ask(case, expected))
    np.testing.assert_array_equal(ask(case, estimator), ask(case, fitted(case)))


@in_turn("case", [case for case in CASES if case != "net-of-a-local-class"])
def test_a_copy_can_be_pickled(case, fitted):
    changed = with_parameters(fitted(case), moved(differentiable(fitted(case), N)))
    np.testing.assert_array_equal(ask(case, pickle.loads(pickle.dumps(changed))), ask(case, changed))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_copy_of_a_net_trains_on_its_own_parameters_with_the_state_of_the_optimiser(optimizer):
    extra = {"optimizer__momentum": 0.9} if optimizer is torch.optim.SGD else {}
    net = make_net(optimizer=optimizer, **extra).fit(X32, BITS)
    before = copy.deepcopy(net.module_.state_dict())
    same = with_parameters(net, dict(differentiable(net).parameters))
    by_hand = copy.deepcopy(net)
    for each in (same, by_hand):
        torch.manual_seed(5)
        each.partial_fit(X32, BITS)
    torch.testing.assert_close(same.module_.state_dict(), by_hand.module_.state_dict(), rtol=0, atol=0)
    assert not torch.equal(same.module_.last.weight, before["last.weight"])
    torch.testing.assert_close(net.module_.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("case", ["sgd", "sgd-several", "perceptron"])
def test_a_copy_trains_on_from_its_parameters(case, fitted):
    estimator = fitted(case)
    _, inputs, y, _, _ = CASES[case]
    new = moved(differentiable(estimator, N))
    changed = with_parameters(estimator, new)
    still = changed.set_params(**({"learning_rate": "constant", "eta0": 1e-14} if case.startswith("sgd") else {}))
    if not case.startswith("sgd"):
        still._optimizer.learning_rate = still._optimizer.learning_rate_init = 1e-14
    still.partial_fit(inputs, y)
    for name, value in differentiable(still, N).parameters.items():
        torch.testing.assert_close(value.detach(), new[name], rtol=0, atol=1e-9)


def test_the_record_of_a_training_is_not_taken_for_that_of_other_parameters():
    net, trajectory = record(X32, BITS)
    changed = with_parameters(net, {"last.bias": torch.zeros(2)})
    assert not np.array_equal(changed.forward(X32), net.forward(X32))
    assert find_trajectory(changed) is None
    assert np.isfinite(Influence(FrozenEstimator(changed)).fit(X32, BITS).scores_).all()
    assert find_trajectory(net) is trajectory


def test_the_default_net_with_a_recorder_is_copied_as_one():
    net = default_net("classification", 0).set_params(callbacks=[TrajectoryRecorder()]).fit(X, TWO)
    changed = with_parameters(net, moved(differentiable(net)))
    recorders = [each for _, each in changed.net_.callbacks_ if isinstance(each, TrajectoryRecorder)]
    assert recorders == changed.callbacks
    assert recorders[0] is not net.callbacks[0]
    assert find_trajectory(changed.net_) is None
    assert find_trajectory(net.net_) is not None


@in_turn("case", ["ridge", "ridge-alphas", "perceptron", "net", "net-in-a-pipeline", "default-table"])
def test_unknown_names_and_wrong_shapes_are_named(case, fitted):
    estimator = fitted(case)
    own = differentiable(estimator, N).parameters
    name, value = next(iter(own.items()))
    with pytest.raises(ValueError, match=rf"no trainable parameter 'head', 'x'; allowed are .*{name}"):
        with_parameters(estimator, {"head": value, name: value, "x": value})
    with pytest.raises(ValueError, match=rf"'{name}' is \(7, 2\) and must be \({value.shape[0]}, "):
        with_parameters(estimator, {name: torch.zeros(7, 2)})
    with pytest.raises(ValueError, match=rf"'{name}' is \(\) and must be"):  # it would be broadcast
        with_parameters(estimator, {name: torch.tensor(1.0)})


def test_frozen_parameters_and_intercepts_that_are_not_there_are_refused(fitted):
    with pytest.raises(ValueError, match=r"no trainable parameter '0.weight'; allowed are 1.weight"):
        with_parameters(fitted("net-half-frozen"), {"0.weight": torch.zeros(5, 3)})
    with pytest.raises(ValueError, match=r"no trainable parameter 'bias'; allowed are weight$"):
        with_parameters(fitted("logistic-no-intercept"), {"bias": torch.zeros(1)})


def test_what_cannot_be_differentiated_or_is_not_fitted_is_refused():
    with pytest.raises(TypeError, match="cannot be differentiated; allowed are"):
        with_parameters(RandomForestClassifier(), {})
    with pytest.raises(ValueError, match="positive=True"):
        with_parameters(Ridge(positive=True), {})
    for estimator in (Ridge(), make_pipeline(StandardScaler(), cross_entropy(Mlp)), default_net("regression")):
        with pytest.raises(NotFittedError):
            with_parameters(estimator, {})
