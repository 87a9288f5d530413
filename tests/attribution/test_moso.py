"""MoSo: the sum over checkpoints by loops, which checkpoints, planted answers."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.utils._param_validation import InvalidParameterError
from skorch import NeuralNetClassifier
from torch import nn

from sktda.attribution import MoSo
from sktda.engine import journal
from sktda.engine.journal import Journal
from sktda.model.recorder import TrajectoryRecorder
from tests.attribution import run_reference as runs
from tests.attribution.run_reference import ONE_RATE, QUERIES, N, X, Y, assert_close, targets_of, trained
from tests.spies import flip

WEIGHT = np.random.default_rng(1).uniform(0.5, 2.0, N)


def fitted(name="tanh", X=X, y=None, weight=None, **params):
    params = {"checkpoints": "even"} | params
    return MoSo(FrozenEstimator(trained(name)), **params).fit(X, targets_of(name) if y is None else y, weight)


# ---- by loops --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_RATE)
def test_scores_equal_those_of_the_second_implementation(name):
    assert_close(fitted(name).scores_, runs.moso(name), 1e-12)
    assert_close(fitted(name, n_checkpoints=3).scores_, runs.moso(name, checkpoints=[1, 3, 5]), 1e-12)
    assert_close(fitted(name, weight=WEIGHT).scores_, runs.moso(name, weight=WEIGHT), 1e-12)


def test_the_rise_of_the_other_rows_loss_after_one_step():
    """One full batch: the sum that moves the parameters loses row i, and the others' loss (1/N kept) is read."""
    rate, step = 1e-4, 1e-4
    options = {"batch_size": -1, "max_epochs": 1, "lr": rate, "recorder": TrajectoryRecorder(1, steps=True)}
    net = runs.untrained("softmax", **options).fit(X, Y)
    start = runs.run_of(net).initial_state()

    def loss(i, kept):
        weight = torch.ones(N, dtype=torch.float64)
        weight[i] = kept
        theta = runs.final_parameters(
            net.module_, start, [np.arange(N)], lambda *_: (rate, 0.0, 0.0, False, 0.0), X, Y, weight
        )
        outputs = torch.func.functional_call(net.module_, theta, torch.from_numpy(X))
        losses = runs.row_losses(outputs, torch.from_numpy(Y)).detach()
        return float(losses.sum() - losses[i]) / N

    rises = np.array([(loss(i, 1 - step) - loss(i, 1 + step)) / (2 * step) for i in range(N)])
    assert_close(MoSo(FrozenEstimator(net)).fit(X, Y).scores_, rises, 1e-3)


# ---- which checkpoints -----------------------------------------------------------------------------------------------


def test_random_checkpoints_by_seed():
    first = fitted(checkpoints="random", n_checkpoints=2, random_state=0).scores_
    np.testing.assert_array_equal(fitted(checkpoints="random", n_checkpoints=2, random_state=0).scores_, first)
    pairs = [runs.moso("tanh", checkpoints=[a, b]) for a in range(6) for b in range(a + 1, 6)]
    seen = set()
    for seed in range(12):
        scores = fitted(checkpoints="random", n_checkpoints=2, random_state=seed).scores_
        close = [k for k, pair in enumerate(pairs) if np.allclose(scores, pair, rtol=1e-10)]
        assert len(close) == 1, "two different checkpoints"
        seen |= set(close)
    assert len(seen) > 4
    every = fitted(checkpoints="random", n_checkpoints=6, random_state=3).scores_
    assert_close(every, runs.moso("tanh"), 1e-12)
    five = MoSo(FrozenEstimator(trained("tanh")), random_state=0).fit(X, Y).scores_
    assert any(np.allclose(five, runs.moso("tanh", checkpoints=[c for c in range(6) if c != k])) for k in range(6))


def test_what_a_net_that_is_trained_here_records():
    net = runs.untrained(callbacks=[], schedule=None)
    assert len(MoSo(net, random_state=0).fit(X, Y).trajectory_) == 20
    assert len(MoSo(net, n_checkpoints=4, random_state=0).fit(X, Y).trajectory_) == 16
    assert len(MoSo(net, checkpoints="even", random_state=0).fit(X, Y).trajectory_) == 5
    assert len(MoSo(net, checkpoints="even", n_checkpoints=3, random_state=0).fit(X, Y).trajectory_) == 3
    first = MoSo(net, random_state=0).fit(X, Y).scores_
    np.testing.assert_array_equal(MoSo(net, random_state=0).fit(X, Y).scores_, first)
    assert not net.initialized_


@pytest.mark.parametrize("checkpoints", ["even", "random"])
def test_more_checkpoints_than_there_are(checkpoints):
    with pytest.raises(
        ValueError, match=r"n_checkpoints=7 .* the recorded run has 6; train with Traj.*checkpoints=7\)"
    ):
        fitted(n_checkpoints=7, checkpoints=checkpoints)


@pytest.mark.parametrize("params", [{"n_checkpoints": 0}, {"n_checkpoints": 2.5}, {"checkpoints": "last"}], ids=str)
def test_parameters_that_are_refused(params):
    with pytest.raises(InvalidParameterError, match=f"The '{next(iter(params))}' parameter of MoSo must be"):
        fitted(**params)


# ---- validation rows, queries ----------------------------------------------------------------------------------------


def test_validation_rows_play_no_part_and_there_are_no_values_of_queries():
    plain = fitted()
    np.testing.assert_array_equal(plain.fit(X, Y, X_val=X[:QUERIES], y_val=Y[:QUERIES]).scores_, fitted().scores_)
    for name in ("attribute", "top_k", "deletion_update"):
        assert not hasattr(plain, name)
    assert not plain.needs.validation
    assert "objective" not in plain.get_params()


# ---- orders, batches, duplicates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["softmax, momentum, decay", "tanh, nesterov", "squares"])
def test_the_batch_size_and_the_order_of_rows_change_nothing(name):
    plain, y = fitted(name).scores_, targets_of(name)
    for size in (1, 7):
        assert_close(fitted(name, batch_size=size).scores_, plain, 1e-10)
    order = np.random.default_rng(0).permutation(N)
    assert_close(fitted(name, X[order], y[order]).scores_, plain[order], 1e-12)


def test_equal_rows_have_equal_scores():
    both, labels = np.concatenate([X, X]), np.concatenate([Y, Y])
    net = runs.untrained("tanh, full batches").fit(both, labels)
    scores = MoSo(FrozenEstimator(net), checkpoints="even").fit(both, labels).scores_
    assert_close(scores[:N], scores[N:], 1e-12)


def test_models_that_are_refused():
    with pytest.raises(ValueError, match="MoSo follows a recorded training run, and this LogisticRegression has none"):
        MoSo(LogisticRegression()).fit(X, Y)


def test_an_interrupted_fit_ends_with_the_same_scores(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SHARD", 10)
    plain, written, write = fitted().scores_, [], Journal.write

    def interrupted(self, *args):
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(args[0])
        write(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fitted(work_dir=tmp_path)
    again = []
    monkeypatch.setattr(Journal, "write", lambda self, *args: (again.append(args[0]), write(self, *args)))
    np.testing.assert_array_equal(fitted(work_dir=tmp_path).scores_, plain)
    assert len(again) == 6 * 3 - 7
    assert not set(again) & set(written)
    assert list(tmp_path.iterdir()) == []


def test_a_fit_that_goes_on_without_a_seed_mixes_no_checkpoints(tmp_path):
    """It draws others than the one that was interrupted, and then may not take its results for theirs."""
    write, pairs = Journal.write, [runs.moso("tanh", checkpoints=[a, b]) for b in range(6) for a in range(b)]

    def once(self, *args):
        write(self, *args)
        raise KeyboardInterrupt

    np.random.seed(0)  # noqa: NPY002  what random_state=None draws from
    for k in range(5):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Journal, "write", once)
            with pytest.raises(KeyboardInterrupt):
                fitted(checkpoints="random", n_checkpoints=2, work_dir=tmp_path / str(k))
        scores = fitted(checkpoints="random", n_checkpoints=2, work_dir=tmp_path / str(k)).scores_
        assert any(np.allclose(scores, pair, rtol=1e-9) for pair in pairs)


# ---- planted answers -------------------------------------------------------------------------------------------------


def test_flipped_digits_come_last():
    X, y = load_digits(return_X_y=True)
    X, true = (X[:600] / 16).astype(np.float32), y[:600]
    labels = flip(true, 0.2)
    net = NeuralNetClassifier(
        nn.Linear(64, 10), criterion=nn.CrossEntropyLoss, max_epochs=10, batch_size=32, lr=0.1, train_split=None,
        verbose=0,
    )  # fmt: skip
    assert roc_auc_score(labels != true, -MoSo(net, random_state=0).fit(X, labels).scores_) > 0.95
