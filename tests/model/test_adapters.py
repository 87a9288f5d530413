"""One door for every estimator: Pipelines, frozen ones, refusals; training a clone leaves everything else alone."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from torch import nn

from sktda.model import proxy
from sktda.model.adapters import can_differentiate, differentiable
from sktda.model.fitting import check_trainable, train_clone
from sktda.model.given import GivenModel, GivenRows
from sktda.model.proxy import default_net
from tests.in_turn import in_turn

N = 41
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
Y = (X[:, 0] + 0.3 * RNG.normal(size=N) > 0).astype(int)
CPU = torch.device("cpu")


def small():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Dropout(0.2), nn.Linear(3, 2))


class Small(nn.Module):
    def __init__(self, norm=False):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3) if norm else nn.ReLU(), nn.Linear(3, 2))

    def forward(self, x):
        return self.layers(x)


def net(module=Small, **settings):
    fixed = {"train_split": None, "max_epochs": 2, "verbose": 0, "batch_size": 8, "iterator_train__shuffle": True}
    return NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, **{**fixed, **settings})


@in_turn(
    "estimator",
    [
        LogisticRegression(),
        FrozenEstimator(LogisticRegression().fit(X, Y)),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(StandardScaler(), FrozenEstimator(MLPClassifier())),
        FrozenEstimator(make_pipeline(StandardScaler(), make_pipeline(SelectKBest(), Ridge()))),
        net(),
        default_net("regression"),
    ],
)
def test_what_can_be_differentiated_is_known_from_the_type_fitted_or_not(estimator):
    assert can_differentiate(estimator)


@pytest.mark.parametrize(
    "estimator",
    [RandomForestClassifier(), make_pipeline(StandardScaler(), GaussianNB()), SGDClassifier(), StandardScaler(), None],
)
def test_what_cannot_is_refused_with_what_is_allowed(estimator):
    assert not can_differentiate(estimator)
    with pytest.raises((TypeError, ValueError), match="cannot be differentiated; allowed") as error:
        differentiable(estimator)
    assert type(getattr(estimator, "steps", [[None, estimator]])[-1][1]).__name__ in str(error.value)


def test_a_module_of_torch_is_refused_with_what_makes_an_estimator_of_it():
    with pytest.raises(TypeError, match=r"Linear is a torch module and no estimator.*TorchModel\(module, criterion\)"):
        differentiable(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    "estimator", [Ridge(), make_pipeline(StandardScaler(), Ridge()), net(), default_net("regression")]
)
def test_an_unfitted_estimator_raises_not_fitted(estimator):
    with pytest.raises(NotFittedError):
        differentiable(estimator)


def test_rows_of_a_pipeline_go_through_its_transformers_once():
    calls = []

    def double(X):
        calls.append(len(X))
        return 2 * X

    inner = make_pipeline(FunctionTransformer(double), LogisticRegression())
    exact = X.astype(float)
    pipe = FrozenEstimator(make_pipeline(StandardScaler(), inner).fit(exact, Y))
    calls.clear()
    model = differentiable(pipe, N)
    rows = model.rows(exact, Y)
    for block in (slice(0, 10), slice(10, N), np.array([3, 1])):
        inputs, _, _ = rows.block(block, CPU)
        logits = model.module(inputs).detach().numpy()[:, 0]
        np.testing.assert_allclose(logits, pipe.decision_function(exact)[block], atol=1e-9)
    assert calls == [N, N, N, N]  # one by rows, three by decision_function


def test_the_copy_does_not_follow_a_refit_and_the_estimator_does_not_change():
    pipe = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    state = pickle.dumps(pipe)
    model = differentiable(pipe, N)
    before = model.rows(X, Y).block(slice(None), CPU)[0]
    assert pickle.dumps(pipe) == state
    weight = model.module.weight.detach().clone()
    pipe.fit(5 * X + 1, 1 - Y)
    torch.testing.assert_close(model.rows(X, Y).block(slice(None), CPU)[0], before)
    assert torch.equal(model.module.weight, weight)


def test_the_net_inside_and_the_rows_that_it_saw_are_found():
    pipe = make_pipeline(StandardScaler(), net()).fit(X, Y)
    given = GivenModel.of(FrozenEstimator(pipe))
    seen, y = given.seen(GivenRows(X, Y))
    assert given.net is pipe[-1]
    np.testing.assert_array_equal(seen, pipe[0].transform(X))
    assert y is Y
    assert GivenModel.of(Ridge().fit(X, Y)).net is None
    default = default_net("classification").fit(X, Y)
    given = GivenModel.of(default)
    seen, y = given.seen(GivenRows(X, Y))
    assert (given.net, len(seen), y) == (default.net_, N, None)


class Count(Callback):
    def on_train_begin(self, net, **kwargs):
        self.batches_ = 0

    def on_batch_end(self, net, training=False, **kwargs):
        self.batches_ += training


@pytest.mark.parametrize(
    "settings", [{}, {"callbacks": []}, {"callbacks": "disable"}, {"callbacks": [("mine", Count())]}]
)
def test_a_clone_is_trained_by_seed_with_callbacks_and_leaves_the_global_state_alone(settings):
    user = net(module=Small, **settings)
    state = torch.random.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = train_clone(user, X, Y, random_state=3, callbacks=[("added", Count())])
    second = train_clone(make_pipeline("passthrough", user), X, Y, random_state=3, callbacks=[("added", Count())])
    other = train_clone(user, X, Y, random_state=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    weights = [each.module_.layers[0].weight for each in (first, second[-1], other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert dict(first.callbacks_)["added"].batches_ == 2 * 6
    assert not hasattr(user, "module_")
    assert user.callbacks == settings.get("callbacks")
    if settings.get("callbacks") == "disable":
        assert [name for name, each in first.callbacks_ if each is not None] == ["added"]


def test_trainings_in_threads_do_not_draw_from_each_other(monkeypatch):
    monkeypatch.setattr(proxy, "EPOCHS", (10, 10))
    nets = [default_net("classification") for _ in range(4)]

    def trained(seed):
        return train_clone(nets[seed], X, Y, random_state=seed)

    def weights(net):
        return [value.detach().numpy() for value in differentiable(net).parameters.values()]

    alone = [weights(trained(seed)) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = [weights(net) for net in pool.map(trained, range(4))]
    for own, other in zip(alone, together, strict=True):
        for one, two in zip(own, other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_seed_reaches_estimators_that_have_none():
    for estimator in (SGDClassifier("log_loss"), make_pipeline(StandardScaler(), SGDClassifier("log_loss"))):
        one, two = (train_clone(estimator, X, Y, random_state=0) for _ in range(2))
        np.testing.assert_array_equal(one.decision_function(X), two.decision_function(X))
    kept = train_clone(SGDClassifier("log_loss", random_state=5), X, Y, random_state=0)
    assert kept.random_state == 5


def test_weights_reach_the_model_or_are_refused():
    weight = RNG.uniform(0, 2, N)
    expected = Ridge().fit(X, Y, weight)
    np.testing.assert_allclose(train_clone(Ridge(), X, Y, weight).coef_, expected.coef_)
    pipe = train_clone(make_pipeline("passthrough", make_pipeline("passthrough", Ridge())), X, Y, weight)
    np.testing.assert_allclose(pipe[-1][-1].coef_, expected.coef_)
    with pytest.raises(ValueError, match="NeuralNetClassifier takes no sample_weight"):
        train_clone(net(), X, Y, weight)
    with pytest.raises(TypeError, match="callbacks are for skorch nets"):
        train_clone(Ridge(), X, Y, callbacks=[Count()])


def test_a_module_instance_goes_on_from_its_weights_in_a_copy():
    module = small()
    before = copy.deepcopy(module.state_dict())
    fitted = train_clone(net(module=module, lr=1e-12), X, Y, random_state=0)
    torch.testing.assert_close(fitted.module_.state_dict(), before)
    train_clone(net(module=module, lr=0.5), X, Y, random_state=0)
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: make_pipeline("passthrough", net)])
def test_rows_that_would_be_hidden_are_refused(wrap):
    for split, hidden in ((ValidSplit(5), "20 %"), (ValidSplit(0.1), "10 %"), (ValidSplit(4, stratified=True), "25 %")):
        with pytest.raises(ValueError, match=f"hides {hidden} of the rows.*set train_split=None"):
            check_trainable(wrap(net(train_split=split)), N)
    with pytest.raises(ValueError, match="hides some of the rows"):
        check_trainable(wrap(net(train_split=lambda data, y: (data, data))), N)
    with pytest.raises(ValueError, match=r"trains on 90 % of the rows.*early_stopping=False"):
        check_trainable(wrap(MLPClassifier(early_stopping=True)), N)
    for fine in (net(), MLPClassifier(), Ridge()):
        check_trainable(wrap(fine), N)


def test_a_last_batch_of_one_row_is_refused_only_where_batch_norm_fails_on_it():
    norm = {"module__norm": True}
    state = torch.random.get_rng_state()
    with pytest.raises(ValueError, match=r"last batch of 41 rows.*batch_size=8; set iterator_train__drop_last=True"):
        check_trainable(net(**norm), 41)
    assert torch.equal(torch.random.get_rng_state(), state)
    for settings, n in (
        ({}, 41),
        (norm, 40),
        ({**norm, "iterator_train__drop_last": True}, 41),
        ({**norm, "iterator_train__batch_size": 10}, 42),
        ({**norm, "batch_size": -1}, 41),
    ):
        check_trainable(net(**settings), n)
        train_clone(net(**settings), X[:1].repeat(n, 0), np.arange(n) % 2)
    with pytest.raises(ValueError, match="batch_size=1"):
        check_trainable(net(**norm, batch_size=1), 40)


def test_a_loss_that_is_not_finite_is_located():
    y = (1e3 * X[:, :1] + 5).astype(np.float32)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    user = NeuralNetRegressor(module, train_split=None, verbose=0, lr=50.0, max_epochs=30, batch_size=8)
    with pytest.raises(ValueError, match=r"NaN or infinite in epoch \d+: the training diverged at learning rate 50"):
        train_clone(user, X, y, random_state=0)
    bad = X.copy()
    bad[17, 2] = np.nan
    user.set_params(lr=1e-3)
    for estimator in (user, make_pipeline("passthrough", user)):
        with pytest.raises(ValueError, match="in epoch 1: row 17 of X or y holds NaN"):
            train_clone(estimator, bad, y, random_state=0)


def test_broadcast_targets_are_refused_before_the_training():
    module = nn.Sequential(nn.Linear(4, 1))
    user = NeuralNetRegressor(module, train_split=None, verbose=0, callbacks=[("count", Count())])
    with pytest.raises(ValueError, match=r"pass y.reshape\(-1, 1\)"):
        train_clone(user, X, X[:, 0])
    train_clone(user, X, X[:, :1])
