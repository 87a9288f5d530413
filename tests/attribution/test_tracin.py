"""TracIn: the sum over checkpoints by hand, and what one step of training really does."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch import nn

from sktda.attribution import InnerProduct, TracIn
from sktda.model.recorder import TrajectoryRecorder
from tests.model.nets import Mlp, make_net, recorder_of, rows
from tests.spies import noisy_blobs

X, Y = rows(40)
MOMENTUM, RATES = 0.8, [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]  # of the six epochs, four steps each


def scheduled_net(**options):
    """SGD with momentum and a learning rate that halves every second epoch."""
    halve = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)
    return make_net(callbacks=[halve], optimizer__momentum=MOMENTUM, **options)


def fitted_net(recorder=None, **options):
    recorder = recorder or TrajectoryRecorder(n_checkpoints=4)
    return scheduled_net(**options).set_params(callbacks=[recorder, *scheduled_net().callbacks]).fit(X, Y)


def row_gradients(state, X, y):
    """(n, p) by one backward pass per row in float64."""
    module = Mlp().double()
    module.load_state_dict(state)
    found = []
    for x, label in zip(torch.from_numpy(X).double(), torch.from_numpy(y), strict=True):
        loss = nn.functional.cross_entropy(module(x[None]), label[None])
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))]))
    return torch.stack(found).numpy()


def assert_close(found, expected, tolerance=1e-5):
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_the_sum_over_checkpoints_by_hand():
    net = fitted_net()
    trajectory = recorder_of(net).trajectory_
    assert trajectory.steps.tolist() == [6, 12, 18, 24]
    rates = np.repeat(RATES, 4)  # of the 24 steps
    weights = rates.reshape(4, 6).sum(axis=1) / (1 - MOMENTUM)
    gradients = [row_gradients(trajectory.state(c), X, Y) for c in range(4)]
    expected = sum(w * g @ g.T for w, g in zip(weights, gradients, strict=True)) / 40

    tracin = TracIn(FrozenEstimator(net)).fit(X, Y)
    assert_close(tracin.scores_, -np.diag(expected))
    assert_close(tracin.attribute(X[:7], Y[:7]), expected[:7])
    assert_close(TracIn(FrozenEstimator(net)).fit(X, Y, X_val=X[:9], y_val=Y[:9]).scores_, expected[:9].mean(axis=0))

    last = gradients[-1] @ gradients[-1].T * weights.sum() / 40
    product = InnerProduct(FrozenEstimator(net)).fit(X, Y)
    assert_close(product.scores_, -np.diag(last))
    assert_close(product.attribute(X[:7], Y[:7]), last[:7])


@pytest.mark.parametrize("cls", [TracIn, InnerProduct])
def test_a_net_is_trained_with_a_recorder_as_it_would_be_without(cls):
    tracin = cls(scheduled_net(), random_state=3).fit(X, Y)
    assert len(tracin.trajectory_) == (6 if cls is TracIn else 1)
    assert tracin.trajectory_.effective_rate_sums.sum() == pytest.approx(4 * sum(RATES) / (1 - MOMENTUM))
    state = tracin.trajectory_.state(-1)
    for name, value in tracin.estimator_.module_.state_dict().items():
        assert torch.equal(state[name], value), "scoring leaves the last parameters in place"
    own = cls(scheduled_net().set_params(callbacks=[TrajectoryRecorder(3), *scheduled_net().callbacks]), random_state=3)
    assert len(own.fit(X, Y).trajectory_) == 3, "the user's own recorder is used"
    for name, value in own.estimator_.module_.state_dict().items():
        assert torch.equal(state[name], value), "recording changes nothing"


def test_the_users_net_is_not_changed():
    net = scheduled_net()
    before = copy.deepcopy(net.get_params(deep=False))
    TracIn(net, random_state=0).fit(X, Y)
    assert not net.initialized_
    assert net.get_params(deep=False).keys() == before.keys()
    assert len(net.callbacks) == 1
    fitted = fitted_net()
    state, mode = copy.deepcopy(fitted.module_.state_dict()), fitted.module_.training
    history, threads = copy.deepcopy(fitted.history), torch.get_num_threads()
    tracin = TracIn(FrozenEstimator(fitted)).fit(X, Y)
    tracin.attribute(X[:3], Y[:3])
    assert all(torch.equal(value, state[name]) for name, value in fitted.module_.state_dict().items())
    assert all(value.requires_grad and value.grad is None for value in fitted.module_.parameters()) or mode
    assert fitted.module_.training == mode
    assert not fitted.module_._forward_hooks
    assert fitted.history == history
    assert torch.get_num_threads() == threads


def test_the_final_parameters_are_back_after_scoring():
    tracin = TracIn(FrozenEstimator(fitted_net()), objective=None).fit(X, Y)
    fitted = tracin._fitted()
    for _ in tracin._at(fitted):
        pass
    final = tracin.trajectory_.state(-1)
    assert all(torch.equal(value, final[name]) for name, value in fitted.model.module.state_dict().items())
    np.testing.assert_array_equal(tracin.attribute(X[:3], Y[:3]), tracin.attribute(X[:3], Y[:3]))


def test_groups_that_differ_in_weight_decay_alone_have_one_rate():
    alike = [("first.*", {"weight_decay": 0.01})]
    net = make_net(TrajectoryRecorder(n_checkpoints=2), optimizer__param_groups=alike).fit(X, Y)
    g = row_gradients(net.module_.state_dict(), X, Y)
    assert_close(InnerProduct(FrozenEstimator(net)).fit(X, Y).scores_, -24 * 0.1 * (g**2).sum(1) / 40)


def test_without_a_recorder_the_final_parameters_count_once():
    net = make_net().fit(X, Y)
    g = row_gradients(net.module_.state_dict(), X, Y)
    for cls in (TracIn, InnerProduct):
        values = cls(FrozenEstimator(net), objective=None).fit(X, Y)
        assert_close(values.attribute(X[:7], Y[:7]), g[:7] @ g.T / 40)
        assert not hasattr(values, "trajectory_")


def test_a_logistic_regression_by_hand():
    wide = X.astype(float)
    A = np.column_stack([wide, np.ones(40)])
    g = (LogisticRegression().fit(wide, Y).predict_proba(wide)[:, 1] - Y)[:, None] * A
    np.testing.assert_allclose(TracIn(LogisticRegression()).fit(wide, Y).scores_, -(g**2).sum(1) / 40, rtol=1e-9)


# ---- what a step really does ----------------------------------------------------------------------------------------


def test_one_full_batch_step_moves_the_loss_by_the_value():
    """Without row i (1/n kept) the step ends eta g_i / n elsewhere, so a query's loss is eta q.g_i / n higher."""
    rate, n = 1e-4, 40
    net = make_net(TrajectoryRecorder(1), max_epochs=1, batch_size=-1, lr=rate).initialize()
    start = {name: value.double() for name, value in copy.deepcopy(net.module_.state_dict()).items()}
    net.partial_fit(X, Y)
    values = TracIn(FrozenEstimator(net), objective=None).fit(X, Y).attribute(X[:7], Y[:7])
    gradients = row_gradients(start, X, Y)
    flat = torch.cat([value.flatten() for value in start.values()]).numpy()

    def losses(theta):
        module, state, position = Mlp().double(), {}, 0
        for name, value in start.items():
            part = theta[position : position + value.numel()]
            state[name] = torch.from_numpy(part.copy()).reshape(value.shape)
            position += value.numel()
        module.load_state_dict(state)
        out = module(torch.from_numpy(X[:7]).double())
        return nn.functional.cross_entropy(out, torch.from_numpy(Y[:7]), reduction="none").detach().numpy()

    after = losses(flat - rate * gradients.mean(axis=0))
    change = np.stack(
        [losses(flat - rate * (gradients.sum(axis=0) - gradients[i]) / n) - after for i in range(n)], axis=1
    )
    assert np.corrcoef(values.ravel(), change.ravel())[0, 1] > 0.99999
    assert np.polyfit(values.ravel(), change.ravel(), 1)[0] == pytest.approx(1, abs=1e-3)


# ---- which rows -----------------------------------------------------------------------------------------------------


def test_n_is_that_of_the_training_when_some_of_its_rows_are_scored():
    net = FrozenEstimator(fitted_net())
    whole = TracIn(net).fit(X, Y, X_val=X[:5], y_val=Y[:5]).scores_
    part = TracIn(net).fit(X[10:25], Y[10:25], X_val=X[:5], y_val=Y[:5]).scores_
    assert_close(part, whole[10:25])


def test_rows_that_were_not_trained_on_are_refused():
    net = FrozenEstimator(fitted_net())
    with pytest.raises(ValueError, match=r"1 of 40 rows are not among the 40 rows .* the first is row 3"):
        TracIn(net).fit(X, np.where(np.arange(40) == 3, 1 - Y, Y))
    with pytest.raises(ValueError, match="30 of 30 rows are not among"):
        TracIn(net).fit(*rows(30, seed=9))


def test_rows_that_train_split_held_out_are_named():
    net = make_net(TrajectoryRecorder(), train_split=NeuralNetClassifier(Mlp).train_split).fit(X, Y)
    with pytest.raises(ValueError, match=r"train_split held out 8 of the 40 rows.*train_split=None"):
        TracIn(FrozenEstimator(net)).fit(X, Y)
    trained = recorder_of(net).trajectory_.rows
    assert TracIn(FrozenEstimator(net)).fit(X[trained], Y[trained]).scores_.shape == (32,)


def test_a_trajectory_of_another_model_is_refused():
    net, other = fitted_net(), make_net(TrajectoryRecorder(), module__width=7).fit(X, Y)
    net.callbacks_ = other.callbacks_
    with pytest.raises(ValueError, match=r"the trajectory is of another model: parameter 'first.weight'"):
        TracIn(FrozenEstimator(net)).fit(X, Y)
    moved = fitted_net()
    with torch.no_grad():
        moved.module_.last.bias += 1
    with pytest.raises(ValueError, match="not those at the end of its trajectory"):
        TracIn(FrozenEstimator(moved)).fit(X, Y)


def test_a_pipeline_around_a_net_with_its_recorder():
    pipe = make_pipeline(StandardScaler(), fitted_net().set_params(callbacks=[TrajectoryRecorder(2)]))
    fitted = clone(pipe).fit(X, Y)
    tracin = TracIn(FrozenEstimator(fitted)).fit(X, Y)
    direct = TracIn(FrozenEstimator(fitted[-1])).fit(fitted[:-1].transform(X), Y)
    np.testing.assert_allclose(tracin.scores_, direct.scores_, rtol=1e-6)
    assert len(tracin.trajectory_) == 2


def test_a_frozen_net_at_the_end_of_a_pipeline_is_neither_trained_nor_changed():
    net = make_net().fit(X, Y)
    pipe = make_pipeline(StandardScaler(with_mean=False, with_std=False), FrozenEstimator(net))
    scores = TracIn(pipe, random_state=0).fit(X, Y).scores_
    np.testing.assert_allclose(scores, TracIn(FrozenEstimator(net)).fit(X, Y).scores_, rtol=1e-5)
    assert not net.callbacks


# ---- planted answers ------------------------------------------------------------------------------------------------


def test_flipped_rows_come_last():
    X, y, true = noisy_blobs(200, centers=2, rate=0.15)
    X, y = X[:, :3].astype(np.float32), y.astype(np.int64)
    assert roc_auc_score(y != true, -TracIn(scheduled_net(), random_state=0).fit(X, y).scores_) > 0.95
