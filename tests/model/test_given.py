"""What was given is looked into once: the estimator with what stands in it, and the rows in whatever they came in."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch.utils.data import Subset, TensorDataset

from sktda import TrajectoryRecorder
from sktda.attribution import EL2N, InnerProduct, SGDInfluence, Source, Stage, TracIn
from sktda.model.given import GivenModel, GivenRows
from sktda.model.proxy import default_net
from sktda.model.trajectory import Trajectory
from tests.in_turn import in_turn
from tests.model.nets import make_net

X = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
SCALE, MODEL = StandardScaler(), LogisticRegression()


@in_turn(
    ("estimator", "n_transformers", "frozen", "fixed"),
    [
        (MODEL, 0, False, False),
        (make_pipeline(MODEL), 0, False, False),
        (make_pipeline(SCALE, MODEL), 1, False, False),
        (make_pipeline(SCALE, make_pipeline(SCALE, SCALE, MODEL)), 2, False, False),
        (make_pipeline(SCALE, FrozenEstimator(MODEL)), 1, True, False),
        (FrozenEstimator(MODEL), 0, True, True),
        (FrozenEstimator(make_pipeline(SCALE, MODEL)), 1, True, True),
        (FrozenEstimator(make_pipeline(SCALE, FrozenEstimator(MODEL))), 1, True, True),
    ],
)
def test_through_pipelines_and_frozen_estimators(estimator, n_transformers, frozen, fixed):
    given = GivenModel.of(estimator)
    assert given.model is MODEL
    assert (len(given.transformers), given.frozen, given.fixed) == (n_transformers, frozen, fixed)
    assert (given.name, given.trained_by_steps, given.can_record, given.net) == ("LogisticRegression", 0, 0, None)
    assert GivenModel.of(given) is given


@in_turn(
    ("net", "can_record"),
    [
        (make_net(), True),
        (make_pipeline(SCALE, make_net()), True),
        (make_net(callbacks=[TrajectoryRecorder()]), False),
        (make_net(callbacks=[("record", TrajectoryRecorder())]), False),
        (FrozenEstimator(make_net()), False),
        (make_pipeline(SCALE, FrozenEstimator(make_net())), False),
        (default_net("classification"), True),
        (default_net("classification").set_params(callbacks=[TrajectoryRecorder()]), False),
    ],
)
def test_which_trainings_take_a_recorder(net, can_record):
    given = GivenModel.of(net)
    assert given.trained_by_steps
    assert given.can_record == can_record


CONTAINERS = {
    "array": (X, lambda part: np.asarray(part)),
    "list": (X.tolist(), lambda part: np.array(part, dtype=np.float32)),
    "DataFrame": (pd.DataFrame(X, index=[f"row {i}" for i in range(30)]), lambda part: part.to_numpy()),
    "CSR": (sp.csr_array(X), lambda part: part.toarray()),
    "tensor": (torch.from_numpy(X), lambda part: np.asarray(part)),
    "dict": ({"a": X, "b": X[:, :1]}, lambda part: part["a"]),
    "Dataset": (TensorDataset(torch.from_numpy(X)), lambda part: np.stack([row[0].numpy() for row in part])),
}


@in_turn("kind", CONTAINERS)
@in_turn("weight", [None, np.arange(30.0), list(range(30)), pd.Series(np.arange(30.0))])
def test_rows_of_any_container_are_counted_and_taken(kind, weight):
    data, read = CONTAINERS[kind]
    positions = np.array([4, 0, 29])
    rows = GivenRows(data, None if kind == "Dataset" else pd.Series(Y), weight)
    some = rows.take(positions)
    assert (len(rows), len(some)) == (30, 3)
    np.testing.assert_array_equal(read(some.X), X[positions])
    assert isinstance(some.X, Subset if kind == "Dataset" else type(data))
    if kind != "Dataset":
        np.testing.assert_array_equal(some.y, Y[positions])
    assert (some.sample_weight is None) == (weight is None)
    if weight is not None:
        np.testing.assert_array_equal(some.sample_weight, positions)
    taken = list(some)
    assert [taken[0] is some.X, taken[1] is some.y, len(taken)] == [True, True, 3]


def scaled(X):
    CALLS.append(len(X))
    return X


CALLS = []


@pytest.mark.parametrize("method", [EL2N, InnerProduct, TracIn, SGDInfluence, Source], ids=lambda each: each.__name__)
def test_a_fit_checks_the_record_once(method, monkeypatch):
    recorder = TrajectoryRecorder(n_checkpoints=6, steps=True)
    pipe = make_pipeline(FunctionTransformer(scaled), make_net(callbacks=[recorder], max_epochs=6))
    pipe.fit(X, Y)
    checks, check = [], Trajectory.check_final
    monkeypatch.setattr(Trajectory, "check_final", lambda self, module: (checks.append(module), check(self, module)))
    CALLS.clear()
    method(FrozenEstimator(pipe)).fit(X, Y)
    assert len(checks) == 1
    assert sum(n == len(X) for n in CALLS) <= 3  # the rows, their fingerprints, and those that are replayed
    checks.clear()
    if method is Source:
        method(FrozenEstimator(pipe), stages=[Stage(pipe)]).fit(X, Y)
        assert len(checks) == 2, "of each stage"
