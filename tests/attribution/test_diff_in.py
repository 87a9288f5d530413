"""Diff-In: a second implementation, closed form and finite differences, the identity behind it, planted answers."""

import copy
import pickle
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sktda.attribution import DiffIn
from sktda.attribution.runs import diff_in
from sktda.engine import differential, journal
from sktda.engine.differences import FiniteDifferences
from sktda.engine.journal import Journal
from sktda.engine.per_row import PerRow
from sktda.engine.root_features import RootFeatures
from sktda.engine.second_order import SecondOrder
from sktda.engine.softmax_head import SoftmaxHead
from sktda.model.adapters import differentiable
from sktda.model.base import unflatten
from sktda.model.recorder import TrajectoryRecorder
from sktda.objectives import Margin
from tests.attribution import run_reference as runs
from tests.attribution import source_reference as reference
from tests.attribution.run_reference import ONE_RATE, QUERIES, N, X, Y, assert_close, run_of, targets_of, trained
from tests.spies import flip

WEIGHT = np.random.default_rng(1).uniform(0.5, 2.0, N)
HEADS = [name for name in ONE_RATE if name.startswith("softmax")]
EXACT = {"hvp": "exact", "hessian_rows": None}


def fitted(net, X=X, y=None, **params):
    rows = {name: params.pop(name) for name in ("X_val", "y_val", "sample_weight") if name in params}
    net, y = (trained(net), targets_of(net)) if isinstance(net, str) else (net, Y if y is None else y)
    return DiffIn(FrozenEstimator(net), **params).fit(X, y, **rows)


def all_forms(name, **params):
    """(values of the first rows as queries, scores with these as validation rows, self-scores)."""
    queries = X[:QUERIES], targets_of(name)[:QUERIES]
    validated = fitted(name, X_val=queries[0], y_val=queries[1], **params)
    return validated.attribute(*queries), validated.scores_, fitted(name, **params).scores_


def assert_forms(found, expected, tolerance=1e-10):
    """expected (N, N)."""
    assert_close(found[0], expected[:QUERIES], tolerance)
    assert_close(found[1], expected[:QUERIES].mean(axis=0), tolerance)
    assert_close(found[2], -np.diag(expected), tolerance)


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


# ---- against the reference -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_RATE)
def test_values_equal_those_of_the_second_implementation(name):
    assert_forms(all_forms(name, **EXACT), runs.diff_in(name))


@pytest.mark.parametrize("name", ["softmax, momentum, decay", "tanh, nesterov", "squares"])
def test_weights_of_rows(name):
    """They multiply a training row's loss, and that of a query not."""
    expected = runs.diff_in(name, weight=WEIGHT)
    assert_forms(all_forms(name, sample_weight=WEIGHT, **EXACT), expected)
    half = runs.diff_in(name, weight=WEIGHT, gauss_newton=True)
    found = all_forms(name, sample_weight=WEIGHT, hvp="gauss-newton", hessian_rows=None)
    assert_forms(found, half)


@pytest.mark.parametrize("name", ONE_RATE)
def test_the_gauss_newton_form(name):
    expected = runs.diff_in(name, gauss_newton=True)
    assert_forms(all_forms(name, hvp="gauss-newton", hessian_rows=None), expected)
    exact = runs.diff_in(name)
    if name in HEADS:
        assert_close(expected, exact, 1e-12)
    else:
        assert np.abs(expected - exact).max() > 1e-3 * np.abs(exact).max()


@pytest.mark.parametrize("name", ["softmax", "tanh", "squares"])
def test_auto_is_exact_for_validation_rows_and_gauss_newton_for_single_ones(name):
    exact, fast = runs.diff_in(name), runs.diff_in(name, gauss_newton=True)
    values, validated, own = all_forms(name, hessian_rows=None)
    assert_close(validated, exact[:QUERIES].mean(axis=0), 1e-10)
    assert_close(values, fast[:QUERIES], 1e-10)
    assert_close(own, -np.diag(fast), 1e-10)


def test_a_margin_in_place_of_the_loss():
    def slopes(c):
        module = runs.module_at("tanh", c)
        found = []
        for i in range(QUERIES):
            logits = module(torch.from_numpy(X[i : i + 1]))[0]
            others = torch.cat([logits[: Y[i]], logits[Y[i] + 1 :]])
            found.append(reference.flat_gradient(torch.logsumexp(others, 0) - logits[Y[i]], module))
        return np.stack(found)

    expected = runs.diff_in("tanh", queries=slopes)
    found = fitted("tanh", objective=Margin(), X_val=X[:QUERIES], y_val=Y[:QUERIES], **EXACT)
    assert_close(found.attribute(X[:QUERIES], Y[:QUERIES]), expected)
    assert_close(found.scores_, expected.mean(axis=0))


def test_an_objective_with_metadata():
    def gap(predict, X, y, group):
        logits = predict(X)[:, 0]
        return logits[group == 1].mean() - logits[group == 0].mean()

    group = np.arange(QUERIES) % 2

    def slope(c):
        module = runs.module_at("tanh", c)
        logits = module(torch.from_numpy(X[:QUERIES]))[:, 0]
        return reference.flat_gradient(logits[group == 1].mean() - logits[group == 0].mean(), module)[None]

    found = DiffIn(FrozenEstimator(trained("tanh")), objective=gap)
    found.fit(X, Y, X_val=X[:QUERIES], y_val=Y[:QUERIES], metadata_val={"group": group})
    assert_close(found.scores_, runs.diff_in("tanh", queries=slope)[0])


# ---- rows that stand for the risk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hvp", ["exact", "gauss-newton"])
def test_rows_that_stand_for_all_in_the_hessian(hvp, monkeypatch):
    """Where it meets each row or query by itself; with validation rows it is that of all."""
    drawn = {}

    def watched(rows, count, seed):
        found = own(rows, count, seed)
        assert count == 6
        drawn.setdefault(seed[-1], []).append(np.flatnonzero(np.isin(X[:, 0], found.read(slice(0, 6))[0][:, 0])))
        return found

    own = diff_in.drawn
    # a seed without a checkpoint is that of a probe of the memory
    monkeypatch.setattr(diff_in, "drawn", lambda *args: watched(*args) if len(args[2]) > 1 else own(*args))
    values, validated, scores = all_forms("tanh", hvp=hvp, hessian_rows=6, random_state=0)
    assert sorted(drawn) == list(range(6))
    assert all(len(rows) == 6 for each in drawn.values() for rows in each)
    assert all(np.array_equal(rows, each[0]) for each in drawn.values() for rows in each), "queries see the same rows"
    assert len({tuple(each[0]) for each in drawn.values()}) > 1, "other rows at every checkpoint"
    fast = hvp == "gauss-newton"
    expected = runs.diff_in("tanh", gauss_newton=fast, risk=lambda c: drawn[c][0])
    assert_close(values, expected[:QUERIES])
    assert_close(scores, -np.diag(expected))
    assert_close(validated, runs.diff_in("tanh", gauss_newton=fast)[:QUERIES].mean(axis=0))


def test_rows_that_stand_for_all_are_the_seeds():
    def scores(**params):
        return fitted("tanh", **{"hessian_rows": 6, "random_state": 0} | params).scores_

    np.testing.assert_array_equal(scores(), scores())
    np.testing.assert_array_equal(scores(batch_size=N), scores())
    assert np.abs(scores() - scores(random_state=1)).max() > 1e-3 * np.abs(scores()).max()
    whole = scores(hessian_rows=None)
    for count in (N, N + 1, 1024):
        np.testing.assert_array_equal(scores(hessian_rows=count, random_state=5), whole)
    mean = np.mean([scores(random_state=seed) for seed in range(20)], axis=0)
    assert_close(mean, whole, 0.15)
    one = fitted("tanh", hessian_rows=6, random_state=0)
    np.testing.assert_array_equal(one.attribute(X[:3], Y[:3]), one.attribute(X[:3], Y[:3]))
    assert_close(np.diag(one.attribute(X, Y)), -one.scores_, 1e-12)


# ---- finite differences ----------------------------------------------------------------------------------------------


@cache
def single(name):
    """A net of CASES in float32, with its rows."""
    y = targets_of(name)
    small, y = X.astype(np.float32), y if y.ndim == 1 else y.astype(np.float32)
    return runs.untrained(name, module__dtype=torch.float32).fit(small, y), small, y


@pytest.mark.parametrize("hvp", ["finite-difference", "forward-difference"])
@pytest.mark.parametrize("name", ["softmax, momentum, decay", "tanh, nesterov", "squares"])
def test_finite_differences_agree_with_derivatives(name, hvp):
    found, expected = all_forms(name, hvp=hvp, hessian_rows=None), runs.diff_in(name)
    # the error of central differences falls with the square of the distance, 0.001
    assert_forms(found, expected, 1e-5 if hvp == "finite-difference" else 1e-2)
    assert correlation(found[0], expected[:QUERIES]) >= 0.999
    assert correlation(found[1], expected[:QUERIES].mean(axis=0)) >= 0.999
    assert correlation(found[2], -np.diag(expected)) >= 0.999


@pytest.mark.parametrize(
    ("name", "hvp"),
    [
        *(("tanh, nesterov", hvp) for hvp in ("exact", "finite-difference", "forward-difference", "gauss-newton")),
        *((name, hvp) for name in ("softmax, momentum, decay", "squares") for hvp in ("exact", "gauss-newton")),
    ],
)
def test_single_precision(name, hvp):
    net, inputs, y = single(name)
    expected = runs.diff_in(name, gauss_newton=hvp == "gauss-newton")
    queries = inputs[:QUERIES], y[:QUERIES]
    validated = fitted(net, inputs, y, hvp=hvp, X_val=queries[0], y_val=queries[1])
    own = fitted(net, inputs, y, hvp=hvp)
    for found, true in (
        (validated.scores_, expected[:QUERIES].mean(axis=0)),
        (validated.attribute(*queries), expected[:QUERIES]),
        (own.scores_, -np.diag(expected)),
    ):
        assert correlation(found, true) >= 0.999
        assert_close(found, true, 1e-2 if "difference" in hvp else 1e-4)


def test_the_difference_is_over_a_thousandth_of_the_parameters_length():
    """Along any direction, whatever its length: gradients at theta + 0.001 w / |w|."""
    model = differentiable(trained("tanh"))
    engine, rows = PerRow(model), model.rows(X, Y)
    engine.prepare(rows)
    module = reference.at(trained("tanh").module_, run_of(trained("tanh")).state(-1))
    theta, w = runs.flat_of(module), np.random.default_rng(0).normal(size=31)
    shapes = {name: value.shape for name, value in model.parameters.items()}

    def slope(distance):
        nn.utils.vector_to_parameters(torch.from_numpy(theta + distance * w / np.linalg.norm(w)), module.parameters())
        return reference.row_gradients(module, X, Y)

    ahead, here, behind = slope(1e-3), slope(0.0), slope(-1e-3)
    size = np.linalg.norm(w)
    for central, expected in ((True, (ahead - behind) * size / 2e-3), (False, (ahead - here) * size / 1e-3)):
        found = FiniteDifferences(engine, central=central)
        product = found.product(rows, unflatten(torch.from_numpy(w), shapes))[1]
        assert_close(runs.flat(product).numpy(), expected.mean(axis=0), 1e-8)
        changes = found.changes(rows.block(slice(0, N), model.device), unflatten(torch.from_numpy(w), shapes)).changes
        assert_close(engine.formed(changes).numpy(), expected, 1e-8)


# ---- the closed form of a softmax head -------------------------------------------------------------------------------


class Head(nn.Module):
    """A frozen network, and a linear layer of which some is trained."""

    def __init__(self, frozen=()):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(3, 5), nn.Tanh()).requires_grad_(False)
        self.last = nn.Linear(5, 3)
        for name in frozen:
            getattr(self.last, name).requires_grad_(False)
        self.double()

    def forward(self, X):
        return self.last(self.features(X))


NETS = {name: {"name": name} for name in HEADS} | {
    "head": {"module": Head, "schedule": None, "optimizer__weight_decay": 0.02},
    "head without bias": {"module": Head, "module__frozen": ("bias",), "schedule": None},
    "head of a bias": {"module": Head, "module__frozen": ("weight",), "schedule": None},
}


@pytest.mark.parametrize(("hvp", "weight"), [("auto", WEIGHT), ("exact", None)], ids=["auto, weights", "exact"])
@pytest.mark.parametrize("case", NETS)
def test_the_closed_form_equals_automatic_differentiation(case, hvp, weight, monkeypatch):
    net = runs.untrained(**NETS[case]).fit(X, Y)
    taken = []
    second = SoftmaxHead.second
    monkeypatch.setattr(SoftmaxHead, "second", lambda *args: (taken.append(0), second(*args))[1])
    options = {"X_val": X[:QUERIES], "y_val": Y[:QUERIES], "sample_weight": weight, "hvp": hvp}
    closed = fitted(net, **options).scores_
    assert len(taken) == 6
    monkeypatch.setattr(SoftmaxHead, "of", lambda *args: None)
    assert_close(fitted(net, **options).scores_, closed, 1e-10)
    assert len(taken) == 6
    assert np.abs(closed).max() > 0


@pytest.mark.parametrize("name", ["tanh", "squares"])
def test_other_nets_have_no_closed_form(name, monkeypatch):
    monkeypatch.setattr(SoftmaxHead, "second", lambda *args: 1 / 0)
    fitted(name, X_val=X[:QUERIES], y_val=targets_of(name)[:QUERIES])


# ---- the identity behind it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_second_differences_of_influence_for_least_squares(decay):
    """I_{t+2} - 2 I_{t+1} + I_t = eta^2 (b_t + H^2 I_t): Diff-In sums the first part and drops the second.

    I_t is the derivative of the parameters after t full batches by a row's weight, b_t the library's.
    """
    rate, steps = 0.05, 12
    recorder = TrajectoryRecorder(n_checkpoints=steps, steps=True)
    net = NeuralNetRegressor(
        runs.Perceptron, module__widths=(3, 2), criterion=nn.MSELoss, max_epochs=steps, batch_size=-1, lr=rate,
        optimizer__weight_decay=decay, train_split=None, verbose=0, callbacks=[recorder],
    )  # fmt: skip
    torch.manual_seed(0)
    net.fit(X, runs.TARGETS)
    run = run_of(net)

    def influence(t):
        """(p, N)"""
        if t == 0:
            return np.zeros((8, N))

        def end(weight):
            args = net.module_, run.initial_state(), [np.arange(N)] * t, lambda *_: (rate, 0.0, 0.0, False, decay)
            return runs.flat(runs.final_parameters(*args, X, runs.TARGETS, weight))

        return runs.jacobian(end, torch.ones(N, dtype=torch.float64))

    found = [influence(t) for t in range(steps + 1)]
    model = differentiable(net)
    engine, rows = PerRow(model), model.rows(X, runs.TARGETS)
    engine.prepare(rows)
    second = SecondOrder(engine)
    shapes = {name: value.shape for name, value in model.parameters.items()}

    def products(directions):
        """(p, k) H times directions (p, k)."""
        by_name = unflatten(torch.from_numpy(np.ascontiguousarray(directions.T)), shapes)
        result = second.products(rows, by_name)[1]
        return torch.cat([value.flatten(1) for value in result.values()], dim=1).numpy().T

    for t in range(steps - 1):
        model.load(run.initial_state() if t == 0 else run.state(t - 1))
        gradients = engine.gradients(rows, slice(0, N)).numpy().T
        slope = second.product(rows, {name: value.detach() for name, value in model.parameters.items()})[0]
        changes = engine.formed(second.changes(rows.block(slice(0, N), model.device), slope).changes).numpy().T
        b = (products(gradients) + changes) / N
        left = found[t + 2] - 2 * found[t + 1] + found[t]
        kept = products(products(found[t]))
        assert_close(left, rate**2 * (b + kept), 1e-9)
        if t > 3:
            assert np.abs(left - rate**2 * b).max() > 1e-2 * np.abs(left).max(), "what is dropped is not nothing"


# ---- which checkpoints -----------------------------------------------------------------------------------------------


def test_even_and_random_checkpoints():
    expected = runs.diff_in("tanh", checkpoints=[1, 3, 5])
    assert_forms(all_forms("tanh", n_checkpoints=3, **EXACT), expected)
    pairs = [runs.diff_in("tanh", checkpoints=[a, b]) for a in range(6) for b in range(a + 1, 6)]
    seen = set()
    for seed in range(6):
        values, validated, own = all_forms("tanh", checkpoints="random", n_checkpoints=2, random_state=seed, **EXACT)
        [place] = [k for k, pair in enumerate(pairs) if np.allclose(own, -np.diag(pair), rtol=1e-9)]
        assert_forms((values, validated, own), pairs[place])
        seen.add(place)
    assert len(seen) > 2
    assert len({fitted("tanh", checkpoints="random", random_state=k).scores_[0] for k in range(8)}) > 2, "5 of 6"


def test_what_a_net_that_is_trained_here_records():
    net = runs.untrained(callbacks=[], schedule=None)
    for params, expected in (
        ({}, 5),
        ({"n_checkpoints": 3}, 3),
        ({"checkpoints": "random"}, 20),
        ({"checkpoints": "random", "n_checkpoints": 2}, 8),
    ):
        found = DiffIn(net, random_state=0, **params).fit(X, Y)
        assert len(found.trajectory_) == expected
        np.testing.assert_array_equal(DiffIn(net, random_state=0, **params).fit(X, Y).scores_, found.scores_)
    assert not net.initialized_
    assert not net.callbacks


@pytest.mark.parametrize("checkpoints", ["even", "random"])
def test_more_checkpoints_than_there_are(checkpoints):
    with pytest.raises(
        ValueError, match=r"n_checkpoints=7 .* the recorded run has 6; train with Traj.*checkpoints=7\)"
    ):
        fitted("tanh", n_checkpoints=7, checkpoints=checkpoints)


WRONG = [{"hvp": "best"}, {"hessian_rows": 0}, {"hessian_rows": 0.5}, {"n_checkpoints": 0}, {"checkpoints": "last"}]


@pytest.mark.parametrize("params", WRONG, ids=str)
def test_parameters_that_are_refused(params):
    with pytest.raises(InvalidParameterError, match=f"The '{next(iter(params))}' parameter of DiffIn must be"):
        fitted("tanh", **params)


def test_models_that_are_refused():
    with pytest.raises(
        ValueError, match="DiffIn follows a recorded training run, and this LogisticRegression has none"
    ):
        DiffIn(LogisticRegression()).fit(X, Y)
    plain = runs.untrained(callbacks=[], schedule=None).fit(X, Y)
    with pytest.raises(
        ValueError, match="this NeuralNetClassifier has none; train a skorch net with a TrajectoryRecor"
    ):
        fitted(plain)
    with pytest.raises(ValueError, match="parameter groups at different learning rates, and this needs one"):
        fitted("groups")
    with pytest.raises(ValueError, match="1 of 24 rows are not among the 24 rows"):
        fitted(trained("tanh"), y=np.where(np.arange(N) == 3, (Y + 1) % 3, Y))


# ---- batches, orders, duplicates -------------------------------------------------------------------------------------

FORMS = ["auto", "exact", "finite-difference", "forward-difference", "gauss-newton"]


@pytest.mark.parametrize("hvp", ["finite-difference", "forward-difference"])
def test_self_scores_of_differences_are_minus_the_diagonal(hvp):
    """More closely than either is to the derivatives."""
    values = fitted("tanh, nesterov", hvp=hvp, hessian_rows=None, objective=None).attribute(X, Y)
    assert_close(fitted("tanh, nesterov", hvp=hvp, hessian_rows=None).scores_, -np.diag(values), 1e-10)


@pytest.mark.parametrize(
    ("name", "hvp"),
    [("softmax, momentum, decay", "auto"), ("squares", "exact"), ("squares", "finite-difference")],
)
def test_the_batch_size_changes_nothing(name, hvp):
    tolerance = 1e-7 if hvp == "finite-difference" else 1e-10  # rounding over the distance
    queries = X[:QUERIES], targets_of(name)[:QUERIES]
    for options in ({}, {"X_val": queries[0], "y_val": queries[1]}):
        plain = fitted(name, hvp=hvp, **options)
        other = fitted(name, hvp=hvp, batch_size=7, **options)
        assert_close(other.scores_, plain.scores_, tolerance)
    assert_close(other.attribute(*queries), plain.attribute(*queries), tolerance)


def test_few_queries_and_rows_at_a_time_change_nothing(monkeypatch):
    plain = [all_forms("tanh", hvp=hvp) for hvp in ("auto", "exact")]
    monkeypatch.setattr(differential, "PRODUCT_BYTES", 1)
    for hvp, expected in zip(("auto", "exact"), plain, strict=True):
        for found, true in zip(all_forms("tanh", hvp=hvp), expected, strict=True):
            assert_close(found, true, 1e-10)


@pytest.mark.parametrize("hvp", ["auto", "exact", "finite-difference"])
def test_the_order_of_rows_plays_no_part(hvp):
    order = np.random.default_rng(0).permutation(N)
    for options in ({}, {"X_val": X[:QUERIES], "y_val": Y[:QUERIES]}):
        plain = fitted("tanh", hvp=hvp, **options).scores_
        shuffled = fitted(trained("tanh"), X[order], Y[order], hvp=hvp, **options).scores_
        assert_close(shuffled, plain[order], 1e-8)


def test_twice_the_data_halves_the_values():
    """Full batches: the run of all rows twice is the same run."""
    name = "tanh, full batches"
    both, labels = np.concatenate([X, X]), np.concatenate([Y, Y])
    twice = runs.untrained(name).fit(both, labels)
    values = fitted(twice, both, labels, **EXACT).attribute(X, Y)
    assert_close(2 * values[:, :N], fitted(name, **EXACT).attribute(X, Y), 1e-9)
    assert_close(values[:, N:], values[:, :N], 1e-9)


def test_a_row_without_weight_is_worth_nothing():
    weight = WEIGHT * (np.arange(N) != 3)
    for found in all_forms("tanh", sample_weight=weight):
        assert np.all(found.T[3] == 0)
        assert np.all(np.delete(found.T, 3, axis=0) != 0)


def test_pickle_and_queries_later_keep_the_values():
    plain = fitted("tanh", random_state=0, hessian_rows=6)
    values = plain.attribute(X[:QUERIES], Y[:QUERIES])
    restored = pickle.loads(pickle.dumps(plain))
    np.testing.assert_array_equal(restored.attribute(X[:QUERIES], Y[:QUERIES]), values)
    rows, best = plain.top_k(X[:QUERIES], Y[:QUERIES], 3, harmful=True)
    np.testing.assert_array_equal(best, np.sort(values, axis=1)[:, :3])
    np.testing.assert_array_equal(np.take_along_axis(values, rows, axis=1), best)


def test_the_net_is_not_changed_and_the_final_parameters_are_back():
    frozen = trained("tanh")
    before = copy.deepcopy(frozen.module_.state_dict())
    for hvp in FORMS:
        found = fitted("tanh", hvp=hvp)
        found.attribute(X[:QUERIES], Y[:QUERIES])
        live = found._ready().model
        assert all(torch.equal(v, before[name]) for name, v in live.module.state_dict().items())
        assert all(torch.equal(v, before[name]) for name, v in frozen.module_.state_dict().items())
    assert not frozen.module_._forward_hooks


def test_a_pipeline_around_a_net():
    pipe = make_pipeline(StandardScaler(), runs.untrained("tanh, nesterov")).fit(X, Y)
    direct = fitted(pipe[-1], pipe[:-1].transform(X))
    assert_close(DiffIn(FrozenEstimator(pipe)).fit(X, Y).scores_, direct.scores_, 1e-12)


# ---- a fit that was killed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", [True, False])
def test_an_interrupted_fit_ends_with_the_same_scores(validation, tmp_path, monkeypatch):
    """10 of the 24 rows to a shard, so three files at each of the six checkpoints."""
    monkeypatch.setattr(journal, "SHARD", 10)
    options = {"X_val": X[:QUERIES], "y_val": Y[:QUERIES]} if validation else {}
    plain, written, write = fitted("tanh", **options).scores_, [], Journal.write

    def interrupted(self, *args):
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(args[0])
        write(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fitted("tanh", work_dir=tmp_path, random_state=0, **options)
    again = []
    monkeypatch.setattr(Journal, "write", lambda self, *args: (again.append(args[0]), write(self, *args)))
    np.testing.assert_array_equal(fitted("tanh", work_dir=tmp_path, random_state=0, **options).scores_, plain)
    assert len(again) == 6 * 3 - 7
    assert not set(again) & set(written)
    assert list(tmp_path.iterdir()) == []


def test_a_fit_that_goes_on_without_a_seed_mixes_no_draws(tmp_path, monkeypatch):
    """Of `hessian_rows`: the values of queries say what the later draw gives."""
    monkeypatch.setattr(journal, "SHARD", 10)
    written, write = [], Journal.write

    def interrupted(self, *args):
        write(self, *args)
        written.append(args[0])
        if len(written) == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fitted("tanh", hessian_rows=6, work_dir=tmp_path)
    again = fitted("tanh", hessian_rows=6, work_dir=tmp_path)
    assert_close(again.scores_, -np.diag(again.attribute(X, Y)), 1e-10)


# ---- cost and planted answers ----------------------------------------------------------------------------------------


def test_one_product_with_the_hessian_for_all_validation_rows(monkeypatch):
    asked, products = [], SecondOrder.products
    monkeypatch.setattr(SecondOrder, "products", lambda *args: (asked.append(0), products(*args))[1])
    monkeypatch.setattr(RootFeatures, "of", lambda *args: 1 / 0)
    fitted("tanh", X_val=X, y_val=Y)
    assert len(asked) == 6


@cache
def digits():
    """(X, labels of which a fifth is wrong, true ones)."""
    X, y = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(X))[:600]
    return (X[chosen] / 16).astype(np.float32), flip(y[chosen], 0.2), y[chosen]


@pytest.mark.parametrize("hvp", ["auto", "exact"])
@pytest.mark.parametrize("widths", [(64, 10), (64, 16, 10)], ids=["softmax", "perceptron"])
def test_flipped_digits_come_last(widths, hvp):
    X, labels, true = digits()
    net = NeuralNetClassifier(
        runs.Perceptron, module__widths=widths, module__dtype=torch.float32, criterion=nn.CrossEntropyLoss,
        max_epochs=10, batch_size=32, lr=0.1, optimizer__momentum=0.5, train_split=None, verbose=0,
    )  # fmt: skip
    own = DiffIn(net, hvp=hvp, n_checkpoints=3, hessian_rows=100, random_state=0).fit(X, labels).scores_
    assert roc_auc_score(labels != true, -own) > 0.9
