"""SGD-influence: automatic differentiation of the whole run, rows nudged and left out, runs that cannot be followed."""

import copy
import pickle
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import RandomSampler

from sktda.attribution import Influence, SGDInfluence
from sktda.attribution.runs import sgd_influence
from sktda.engine import journal, replay
from sktda.engine.journal import Journal
from sktda.model.recorder import TrajectoryRecorder
from sktda.objectives import Margin
from tests.attribution import run_reference as runs
from tests.attribution import source_reference as reference
from tests.attribution.run_reference import CASES, QUERIES, STEPS, N, X, Y, assert_close, run_of, targets_of, trained
from tests.in_turn import in_turn
from tests.model.nets import make_net
from tests.model.nets import rows as float_rows
from tests.spies import flip


def fitted(net, X=X, y=Y, **params):
    rows = {name: params.pop(name) for name in ("X_val", "y_val", "sample_weight") if name in params}
    return SGDInfluence(FrozenEstimator(net), **params).fit(X, y, **rows)


@cache
def expected(name):
    """(N, N) values of all rows for all rows: minus the derivative of a row's loss by the weight of a row."""
    queries = reference.row_gradients(trained(name).module_, X, targets_of(name))
    return -queries @ runs.jacobian_of(name)


# ---- the derivative of the run ---------------------------------------------------------------------------------------


@in_turn("name", CASES)
def test_the_reference_goes_where_the_training_went(name):
    found = runs.end_of(name).detach().numpy()
    assert_close(found, runs.flat_of(trained(name).module_), 1e-13)


@pytest.mark.parametrize("name", CASES)
def test_values_are_the_derivatives_of_the_whole_run(name):
    y = targets_of(name)
    validated = fitted(trained(name), y=y, X_val=X[:QUERIES], y_val=y[:QUERIES])
    assert_close(validated.attribute(X[:QUERIES], y[:QUERIES]), expected(name)[:QUERIES], 1e-10)
    assert_close(validated.scores_, expected(name)[:QUERIES].mean(axis=0), 1e-10)
    assert_close(fitted(trained(name), y=y).scores_, -np.diag(expected(name)), 1e-10)


@pytest.mark.parametrize("name", ["softmax, momentum, decay", "tanh, nesterov", "sum", "groups"])
def test_values_are_what_nudged_weights_do(name):
    """Without any derivative: the run with a little more and a little less of a row."""
    y, step = targets_of(name), 1e-4

    def losses(i, change):
        weight = torch.ones(N, dtype=torch.float64)
        weight[i] += change
        module, theta = copy.deepcopy(trained(name).module_), runs.end_of(name, weight).detach()
        nn.utils.vector_to_parameters(theta, module.parameters())
        return runs.row_losses(module(torch.from_numpy(X[:QUERIES])), torch.from_numpy(y[:QUERIES])).detach().numpy()

    values = fitted(trained(name), y=y, objective=None).attribute(X[:QUERIES], y[:QUERIES])
    for i in (0, 11, 23):
        assert_close(values[:, i], (losses(i, -step) - losses(i, step)) / (2 * step), 1e-6)


def test_a_margin_in_place_of_the_loss():
    module = trained("tanh").module_
    slopes = []
    for i in range(QUERIES):
        logits = module(torch.from_numpy(X[i : i + 1]))[0]
        others = torch.cat([logits[: Y[i]], logits[Y[i] + 1 :]])
        slopes.append(reference.flat_gradient(torch.logsumexp(others, 0) - logits[Y[i]], module))
    found = fitted(trained("tanh"), objective=Margin(), X_val=X[:QUERIES], y_val=Y[:QUERIES])
    values = -np.stack(slopes) @ runs.jacobian_of("tanh")
    assert_close(found.attribute(X[:QUERIES], Y[:QUERIES]), values)
    assert_close(found.scores_, values.mean(axis=0))


def derivative(net, batches, **options):
    """(N, N) values for a net of the case "tanh" that was trained in another way."""

    def settings(parameter, step):
        return 0.2, 0.0, 0.0, False, 0.0

    def end(weight):
        start = run_of(net).initial_state()
        return runs.flat(runs.final_parameters(net.module_, start, batches, settings, X, Y, weight, **options))

    whole = torch.ones(N, dtype=torch.float64)
    assert_close(end(whole).detach().numpy(), runs.flat_of(net.module_), 1e-12)
    return -reference.row_gradients(net.module_, X, Y) @ runs.jacobian(end, whole)


def test_a_row_several_times_in_a_batch():
    sampler = RandomSampler(range(N), replacement=True)
    torch.manual_seed(1)
    net = runs.untrained(iterator_train__shuffle=False, iterator_train__sampler=sampler, schedule=None).fit(X, Y)
    run = run_of(net)
    batches = [run.step_rows(k) for k in range(STEPS)]
    assert max(np.bincount(batch).max() for batch in batches) > 1
    assert len(np.unique(np.concatenate(batches[:4]))) < N, "some rows are in no batch of the first epoch"
    values = derivative(net, batches)
    assert_close(fitted(net).scores_, -np.diag(values))
    assert_close(fitted(net, objective=None).attribute(X[:QUERIES], Y[:QUERIES]), values[:QUERIES])


def test_classes_that_are_weighted():
    weight = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    net = runs.untrained(criterion=nn.CrossEntropyLoss(weight=weight), schedule=None).fit(X, Y)
    run, y = run_of(net), torch.from_numpy(Y)

    def losses(outputs, targets):
        return weight[targets] * nn.functional.cross_entropy(outputs, targets, reduction="none")

    batches = [run.step_rows(k) for k in range(STEPS)]
    values = derivative(net, batches, losses=losses, divisor=lambda rows: weight[y[rows]].sum())
    own = (weight / weight[y].mean())[y].numpy()  # the queries' losses are the model's, of mean weight 1
    values = own[:, None] * values
    assert_close(fitted(net, objective=None).attribute(X[:QUERIES], Y[:QUERIES]), values[:QUERIES])
    assert_close(fitted(net).scores_, -np.diag(values))


def test_weights_of_rows_in_the_training_of_the_default_net():
    rng = np.random.default_rng(0)
    X, y, weight = rng.normal(size=(40, 4)), rng.integers(0, 2, 40), rng.uniform(0.5, 2.0, 40)
    found = SGDInfluence(random_state=0).fit(X, y, weight, X_val=X[:8], y_val=y[:8])
    net = found.estimator_.net_
    run, data = run_of(net), found.estimator_.dataset(X, y)
    inputs = np.stack([data[k][0].double().numpy() for k in range(40)])
    decay, rate, module = run.groups[0]["weight_decay"], run.learning_rates[0], copy.deepcopy(net.module_).double()
    w = torch.from_numpy(weight / weight.mean()).requires_grad_()  # whose size, but for ratios, is nothing to the net

    def settings(parameter, step):
        return rate, 0.9, 0.0, False, decay

    batches = [run.step_rows(k) for k in range(run.n_steps)]
    theta = runs.final_parameters(module, run.initial_state(), batches, settings, inputs, y, w)
    outputs = torch.func.functional_call(module, theta, torch.from_numpy(inputs[:8]))
    (slope,) = torch.autograd.grad(nn.functional.cross_entropy(outputs, torch.from_numpy(y[:8])), w)
    assert_close(found.scores_, -w.detach().numpy() * slope.numpy(), 1e-2)  # 240 steps of a float32 net with ReLU


# ---- rows left out ---------------------------------------------------------------------------------------------------

LEFT, RATE, BATCH = 100, 0.1, 25


@cache
def noisy_digits():
    """(X, labels of which a fifth is wrong, X and labels of 200 clean validation rows)."""
    X, y = load_digits(return_X_y=True)
    X, order = X / 16, np.random.default_rng(0).permutation(len(X))
    train, held = order[:LEFT], order[-200:]
    return X[train], flip(y[train], 0.2), X[held], y[held], y[train]


@cache
def softmax_net():
    """Softmax regression on the digits: 50 epochs of 4 batches are 200 steps."""
    X, y, *_ = noisy_digits()
    torch.manual_seed(0)
    return NeuralNetClassifier(
        nn.Linear(64, 10).double(), criterion=nn.CrossEntropyLoss, max_epochs=50, batch_size=BATCH, lr=RATE,
        optimizer__momentum=0.5, optimizer__weight_decay=1e-3, train_split=None, iterator_train__shuffle=True,
        verbose=0, callbacks=[TrajectoryRecorder(steps=True)],
    ).fit(X, y)  # fmt: skip


def validation_loss(without=None):
    """Of softmax regression trained in the same batches, where one row counts nothing; NumPy alone."""
    X, y, X_val, y_val, _ = noisy_digits()
    run = run_of(softmax_net())
    start = run.initial_state()
    theta = np.column_stack([start["weight"].numpy(), start["bias"].numpy()])
    buffer, features = np.zeros_like(theta), np.column_stack([X, np.ones(len(X))])

    def probabilities(features):
        odds = np.exp(features @ theta.T)
        return odds / odds.sum(axis=1, keepdims=True)

    for k in range(run.n_steps):
        rows = run.step_rows(k)
        errors = probabilities(features[rows]) - np.eye(10)[y[rows]]
        if without is not None:
            errors[rows == without] = 0
        buffer = 0.5 * buffer + errors.T @ features[rows] / BATCH + 1e-3 * theta
        theta = theta - RATE * buffer
    p = probabilities(np.column_stack([X_val, np.ones(len(X_val))]))
    return -np.log(p[np.arange(len(p)), y_val]).mean()


def test_exact_leave_one_out_in_the_same_batches():
    X, y, X_val, y_val, true = noisy_digits()
    assert run_of(softmax_net()).n_steps == 200
    whole = validation_loss()
    truth = np.array([validation_loss(i) - whole for i in range(LEFT)])
    scores = fitted(softmax_net(), X, y, X_val=X_val, y_val=y_val).scores_
    assert spearmanr(scores, truth).statistic > 0.95  # .974
    assert 0.9 < np.polyfit(scores, truth, 1)[0] < 1.3, "in the units of the loss"
    assert roc_auc_score(y != true, -scores) > 0.9


# ---- forms, orders, batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["squares", "sum"])
def test_the_batch_size_changes_nothing(name):
    net, y = trained(name), targets_of(name)
    queries = X[:QUERIES], y[:QUERIES]
    for options in ({}, {"X_val": queries[0], "y_val": queries[1]}):
        plain = fitted(net, y=y, **options)
        other = fitted(net, y=y, batch_size=3, **options)
        assert_close(other.scores_, plain.scores_, 1e-10)
    assert_close(other.attribute(*queries), plain.attribute(*queries), 1e-10)


def few_at_a_time(patch, k):
    """Only k queries are held at a time."""
    own = sgd_influence.portion
    patch.setattr(sgd_influence, "portion", lambda *args, **options: min(k, own(*args, **options)))


def test_few_steps_at_a_time_and_few_queries_at_a_time_change_nothing(monkeypatch):
    plain = fitted(trained("tanh, nesterov"))
    values = plain.attribute(X, Y)
    monkeypatch.setattr(replay, "STRIDE", 5)
    few_at_a_time(monkeypatch, 7)
    again = fitted(trained("tanh, nesterov"))
    assert_close(again.scores_, plain.scores_, 1e-12)
    assert_close(again.attribute(X, Y), values, 1e-12)
    monkeypatch.setattr(replay, "STATE_BYTES", 1)  # less than one state: as many starts as steps between them
    assert_close(fitted(trained("tanh, nesterov")).scores_, plain.scores_, 1e-12)


def test_the_order_of_rows_plays_no_part():
    order = np.random.default_rng(0).permutation(N)
    plain = fitted(trained("tanh"), X_val=X[:QUERIES], y_val=Y[:QUERIES])
    shuffled = fitted(trained("tanh"), X[order], Y[order], X_val=X[:QUERIES], y_val=Y[:QUERIES])
    assert_close(shuffled.scores_, plain.scores_[order], 1e-12)
    assert_close(fitted(trained("tanh"), X[order], Y[order]).scores_, fitted(trained("tanh")).scores_[order], 1e-12)


def test_twice_the_data_halves_the_values():
    """Full batches: the run of all rows twice is the same run."""
    name = "tanh, full batches"
    both, labels = np.concatenate([X, X]), np.concatenate([Y, Y])
    twice = runs.untrained(name).fit(both, labels)
    once, values = fitted(trained(name)), fitted(twice, both, labels).attribute(X, Y)
    assert_close(2 * values[:, :N], once.attribute(X, Y), 1e-9)
    assert_close(values[:, N:], values[:, :N], 1e-9)


def test_pickle_and_queries_later_keep_the_values():
    plain = fitted(trained("tanh, nesterov"))
    values = plain.attribute(X[:QUERIES], Y[:QUERIES])
    np.testing.assert_array_equal(plain.attribute(X[:QUERIES], Y[:QUERIES]), values)
    restored = pickle.loads(pickle.dumps(plain))
    np.testing.assert_array_equal(restored.attribute(X[:QUERIES], Y[:QUERIES]), values)
    rows, best = plain.top_k(X[:QUERIES], Y[:QUERIES], 3)
    np.testing.assert_array_equal(best, -np.sort(-values, axis=1)[:, :3])
    np.testing.assert_array_equal(np.take_along_axis(values, rows, axis=1), best)


def test_the_net_is_trained_with_a_recorder_of_steps_and_not_changed():
    net = runs.untrained(callbacks=[], schedule=None)
    found = SGDInfluence(net, random_state=3).fit(X, Y)
    assert not net.initialized_
    assert not net.callbacks
    assert found.trajectory_.n_steps == STEPS
    final = found.trajectory_.state(-1)
    assert all(torch.equal(v, final[name]) for name, v in found.estimator_.module_.state_dict().items())
    batches = [found.trajectory_.step_rows(k) for k in range(STEPS)]
    assert_close(found.scores_, -np.diag(derivative(found.estimator_, batches)))

    frozen = trained("tanh")
    before = {name: value.clone() for name, value in frozen.module_.state_dict().items()}
    fitted(frozen).attribute(X[:QUERIES], Y[:QUERIES])
    assert all(torch.equal(v, before[name]) for name, v in frozen.module_.state_dict().items())
    assert all(value.grad is None or value.requires_grad for value in frozen.module_.parameters())


def test_the_final_parameters_are_back_after_queries_and_after_an_error(monkeypatch):
    found = fitted(trained("tanh"), objective=None)
    live, final = found._ready(), found.trajectory_.state(-1)
    found.attribute(X[:QUERIES], Y[:QUERIES])
    assert all(torch.equal(v, final[name]) for name, v in live.model.module.state_dict().items())
    monkeypatch.setattr(SGDInfluence, "_step_back", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found.attribute(X[:QUERIES], Y[:QUERIES])
    assert all(torch.equal(v, final[name]) for name, v in live.model.module.state_dict().items())
    assert all(value.grad is None for value in live.model.parameters.values())


def test_a_pipeline_around_a_net():
    pipe = make_pipeline(StandardScaler(), runs.untrained("tanh, nesterov")).fit(X, Y)
    direct = fitted(pipe[-1], pipe[:-1].transform(X))
    assert_close(SGDInfluence(FrozenEstimator(pipe)).fit(X, Y).scores_, direct.scores_, 1e-12)


def test_flipped_digits_come_last():
    X, y, _, _, true = noisy_digits()
    assert roc_auc_score(y != true, -fitted(softmax_net(), X, y).scores_) > 0.85


# ---- runs that cannot be followed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [torch.optim.RAdam, torch.optim.Adamax, torch.optim.Rprop])
def test_other_optimisers_are_refused_by_name(optimizer):
    net = runs.untrained(optimizer=optimizer, schedule=None).fit(X, Y)
    name = optimizer.__name__
    with pytest.raises(ValueError, match=rf"steps of SGD, Adam, AdamW, .*, and this net was trained with {name}; .*Tr"):
        fitted(net)
    with pytest.raises(ValueError, match=f"trained with {name}"):
        fitted(net, objective=None).attribute(X[:QUERIES], Y[:QUERIES])


def test_steps_that_were_not_recorded():
    net = runs.untrained(recorder=TrajectoryRecorder()).fit(X, Y)
    with pytest.raises(ValueError, match=r"the steps were not recorded; train with TrajectoryRecorder\(steps=True\)"):
        fitted(net)


@pytest.mark.parametrize("model", [LogisticRegression(), make_net()], ids=["logistic", "net without a recorder"])
def test_a_model_without_a_recorded_run(model):
    X, y = float_rows()
    with pytest.raises(ValueError, match="SGDInfluence follows a recorded training run"):
        SGDInfluence(FrozenEstimator(model.fit(X, y))).fit(X, y)


def test_rows_that_are_missing():
    with pytest.raises(ValueError, match=r"4 of the 24 rows that were trained on are missing in X and y.*give all"):
        fitted(trained("tanh"), X[:20], Y[:20])
    with pytest.raises(ValueError, match="1 of 24 rows are not among the 24 rows"):
        fitted(trained("tanh"), X, np.where(np.arange(N) == 3, (Y + 1) % 3, Y))


def test_rows_that_are_given_twice_are_worth_the_same_twice():
    queries = {"X_val": X[:QUERIES], "y_val": Y[:QUERIES]}
    plain = fitted(trained("tanh"), **queries).scores_
    again = np.concatenate([np.arange(N), [0, 1]])
    assert_close(fitted(trained("tanh"), X[again], Y[again], **queries).scores_, plain[again], 1e-12)


def test_random_transforms():
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return N

        def __getitem__(self, i):
            return X[i] + 0.01 * torch.randn(3, dtype=torch.float64).numpy(), Y[i]

    net = runs.untrained(schedule=None).fit(Noisy(), None)
    with pytest.raises(ValueError, match="rows differ from read to read"):
        fitted(net, Noisy(), None)


class Dropped(nn.Sequential):
    """With dropout in training."""

    def __init__(self):
        super().__init__(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.3), nn.Linear(4, 3))
        self.double()


def test_a_training_that_cannot_be_gone_through_again():
    net = runs.untrained(schedule=None, module=Dropped).fit(X, Y)
    with pytest.raises(ValueError, match=r"do not lead to the recorded parameters: after step 4 .* a checkpoint after"):
        fitted(net)


def test_dropout_with_a_checkpoint_after_every_step():
    """The recorded path is linearised in eval mode."""
    recorder = TrajectoryRecorder(n_checkpoints=STEPS, steps=True)
    options = {"optimizer__momentum": 0.5, "optimizer__weight_decay": 0.02, "schedule": None}
    net = runs.untrained(recorder=recorder, module=Dropped, **options).fit(X, Y)
    run = run_of(net)
    states = [run.initial_state(), *(run.state(c) for c in range(STEPS - 1))]
    u = reference.row_gradients(net.module_.eval(), X, Y)
    p, values, moved = u.shape[1], np.zeros((N, N)), np.zeros_like(u)
    for step in reversed(range(STEPS)):
        rows = run.step_rows(step)
        module = reference.at(net.module_, states[step])
        gradients = reference.row_gradients(module, X[rows], Y[rows])
        hessian = runs.row_hessians(module, X[rows], Y[rows]).mean(axis=0) + 0.02 * np.eye(p)
        moved = moved - 0.2 * u
        values[:, rows] -= moved @ gradients.T / len(rows)
        u = u + moved @ hessian
        moved = 0.5 * moved
    assert_close(fitted(net).scores_, -np.diag(values))
    assert_close(fitted(net, objective=None).attribute(X[:QUERIES], Y[:QUERIES]), values[:QUERIES])


# ---- a fit that was killed -------------------------------------------------------------------------------------------


@pytest.fixture
def short_strides(monkeypatch):
    monkeypatch.setattr(replay, "STRIDE", 5)
    monkeypatch.setattr(journal, "PAUSE", 0.0)
    few_at_a_time(monkeypatch, 10)


@pytest.mark.parametrize(("validation", "after"), [(True, 3), (False, 2), (False, 7)])
def test_an_interrupted_fit_ends_with_the_same_scores(validation, after, short_strides, tmp_path, monkeypatch):
    options = {"X_val": X[:QUERIES], "y_val": Y[:QUERIES]} if validation else {}
    net = trained("tanh, nesterov")
    plain = fitted(net, **options).scores_
    written, write, steps = [], Journal.write, []

    def interrupted(self, *args):
        write(self, *args)
        written.append(args[0])
        if len(written) == after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fitted(net, work_dir=tmp_path, **options)
    back = SGDInfluence._step_back
    monkeypatch.setattr(SGDInfluence, "_step_back", lambda *args: (steps.append(0), back(*args)))
    np.testing.assert_array_equal(fitted(net, work_dir=tmp_path, **options).scores_, plain)
    # strides of 5, 5, 5, 5 and 4 steps, the last one first; without validation rows for 10, 10 and 4 of them
    assert len(steps) == (STEPS if validation else 3 * STEPS) - (after // 5 * STEPS + [0, 4, 9, 14, 19][after % 5])
    assert list(tmp_path.iterdir()) == []


# ---- the limit of a long training ------------------------------------------------------------------------------------


def test_a_long_training_is_influence_even_where_it_had_ended_before_its_last_checkpoints():
    """Steps of rounding alone cannot be compared with the way that they went."""
    options = {"batch_size": -1, "optimizer__momentum": 0.5, "optimizer__weight_decay": 0.2, "lr": 2.0}
    net = runs.untrained("softmax", max_epochs=300, **options).fit(X, Y)
    values = Influence(FrozenEstimator(net), curvature="exact", objective=None).fit(X, Y)
    found = fitted(net, objective=None).attribute(X[:QUERIES], Y[:QUERIES])
    assert_close(found, values.attribute(X[:QUERIES], Y[:QUERIES]), 1e-8)
