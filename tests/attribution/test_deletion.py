"""Data deletion: predicted parameters against derivatives and retraining; what `unlearn` takes, returns and refuses."""

import copy
import pickle
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sktda.attribution import DiffIn, Influence, MoSo, SGDInfluence, TracIn, unlearn
from sktda.attribution.gradients.deletion import line_search, removed_gradient
from sktda.model.recorder import TrajectoryRecorder
from tests.attribution import run_reference as runs
from tests.attribution.run_reference import CASES, STEPS, N, X, Y, assert_close, run_of, targets_of, trained
from tests.in_turn import in_turn

GONE = np.array([3, 11, 20])
WEIGHT = np.random.default_rng(1).uniform(0.5, 2.0, N)
NUMBERS = X @ [1.0, -2.0, 0.5] + 0.1 * np.random.default_rng(2).normal(size=N)


def fitted(method, name, **params):
    rows = params.pop("sample_weight", None)
    return method(FrozenEstimator(trained(name)), objective=None, **params).fit(X, targets_of(name), rows)


def change_of(attributor, rows, name):
    """(p,) of the parameters of a case."""
    found = attributor.deletion_update(rows)
    assert list(found) == [key for key, _ in trained(name).module_.named_parameters()]
    return runs.flat(found).numpy() - runs.flat_of(trained(name).module_)


def forgetful(weight):
    """(n,) weights without the rows of GONE."""
    return np.where(np.isin(np.arange(len(weight)), GONE), 0, weight)


# ---- SGD-influence ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tanh, nesterov", "squares", "groups"])  # of all, the rows GONE are removed below
def test_sgd_influence_is_the_derivative_of_the_run(name):
    attributor = fitted(SGDInfluence, name)
    for rows in ([7], np.arange(12)):
        expected = -runs.jacobian_of(name)[:, rows].sum(axis=1)
        assert_close(change_of(attributor, rows, name), expected, 1e-10)
    queries = runs.gradients_of(name, 5)[:4] @ change_of(attributor, [7], name)
    y = targets_of(name)
    assert_close(queries, attributor.attribute(X[:4], y[:4])[:, 7], 1e-9)


def test_the_batch_size_changes_no_prediction():
    for method, name in ((SGDInfluence, "tanh, nesterov"), (DiffIn, "tanh, nesterov"), (Influence, "softmax")):
        params = {"curvature": "exact", "damping": 0.1} if method is Influence else {}
        plain = change_of(fitted(method, name, **params), GONE, name)
        assert_close(change_of(fitted(method, name, batch_size=5, **params), GONE, name), plain, 1e-10)


# ---- Diff-In ---------------------------------------------------------------------------------------------------------


def direction_of(name, rows, weight=None):
    """(p,) sum over checkpoints of T t eta^2 / (N m) times the b_i of the rows."""
    total = 0.0
    for c, (t, rate) in enumerate(runs.weights_of(name)):
        total = total + STEPS * t * rate**2 / (6 * N) * runs.bends(name, c, weight=weight)[rows].sum(axis=0)
    return total


@pytest.mark.parametrize(
    ("name", "hvp"),
    [*((name, "exact") for name in ("softmax, momentum, decay", "tanh, nesterov", "tanh, dampening", "squares"))]
    + [("softmax, momentum, decay", "finite-difference")],
)
def test_diff_in_goes_along_its_own_direction_to_the_lowest_point(name, hvp):
    gauss_newtons = runs.curvatures_of(name, 5)[1]
    gradients = runs.gradients_of(name, 5)
    attributor, far = fitted(DiffIn, name, hvp=hvp), 0
    for rows in ([0], [7], [13], GONE, np.arange(12)):
        direction = direction_of(name, rows)
        found = change_of(attributor, rows, name)
        kept = np.delete(gauss_newtons, rows, axis=0).sum(axis=0) / N + np.diag(runs.decay_of(name))
        lost = gradients[rows].sum(axis=0) / N

        def height(step, direction=direction, kept=kept, lost=lost):
            return -step * lost @ direction + step**2 * direction @ kept @ direction / 2

        scale = found @ direction / (direction @ direction)
        tolerance = 1e-10 if hvp == "exact" else 1e-5
        assert np.abs(found - scale * direction).max() <= tolerance * max(1e-6, np.abs(found).max())
        if lost @ direction <= 0:
            assert scale == 0, "upwards: nothing is better"
            continue
        far += 1
        steps = scale * np.linspace(0, 3, 301)
        assert scale > 0
        assert height(scale) <= min(map(height, steps)) + 1e-12
        assert scale == pytest.approx(lost @ direction / (direction @ kept @ direction), rel=1e-5)
    assert far > 1


def test_a_direction_that_leads_upwards_is_not_taken():
    live = fitted(DiffIn, "tanh")._ready()
    engine, rows = live.engine, live.rows
    engine.prepare(rows)
    downwards = removed_gradient(engine, rows, GONE)
    for sign, moves in ((1, True), (-1, False), (0, False)):
        direction = {name: sign * value for name, value in downwards.items()}
        found = runs.flat(line_search(engine, rows, GONE, N, direction))
        assert bool((found != 0).any()) == moves
    far, near = (line_search(engine, rows, GONE, N, {k: s * v for k, v in downwards.items()}) for s in (1e4, 1e-4))
    assert_close(runs.flat(far).numpy(), runs.flat(near).numpy(), 1e-10)


def test_weights_of_rows_in_diff_in():
    name = "tanh, nesterov"
    direction = direction_of(name, GONE, WEIGHT)
    gauss_newtons = WEIGHT[:, None, None] * runs.curvatures_of(name, 5)[1]
    kept = np.delete(gauss_newtons, GONE, axis=0).sum(axis=0) / N + np.diag(runs.decay_of(name))
    lost = (WEIGHT[:, None] * runs.gradients_of(name, 5))[GONE].sum(axis=0) / N
    expected = lost @ direction / (direction @ kept @ direction) * direction
    assert_close(change_of(fitted(DiffIn, name, sample_weight=WEIGHT), GONE, name), expected)


# ---- Influence -------------------------------------------------------------------------------------------------------


def parameters_of(model):
    return np.concatenate([np.ravel(model.coef_), np.ravel(model.intercept_)])


MODELS = {
    "ridge": (Ridge(alpha=2.0, tol=1e-12), NUMBERS),
    "ridge without intercept": (Ridge(alpha=2.0, fit_intercept=False), NUMBERS),
    "logistic": (LogisticRegression(C=0.5, tol=1e-12, max_iter=10_000), (Y > 0).astype(int)),
    "softmax": (LogisticRegression(C=0.5, tol=1e-12, max_iter=10_000), Y),
}


@in_turn("weight", [None, WEIGHT])
@in_turn("name", MODELS)
def test_influence_is_the_derivative_by_the_rows_weights(name, weight):
    """By training with a little more and a little less of the rows; scikit-learn keeps the penalty as removal does."""
    model, y = MODELS[name]
    own, step = np.ones(N) if weight is None else weight, 1e-4
    less, more = (
        parameters_of(copy.deepcopy(model).fit(X, y, own - sign * step * (own - forgetful(own)))) for sign in (1, -1)
    )
    whole = model.fit(X, y, weight)
    attributor = Influence(FrozenEstimator(whole), objective=None).fit(X, y, weight)
    result = unlearn(attributor, GONE).estimator
    found, expected = parameters_of(result) - parameters_of(whole), (less - more) / (2 * step)
    if name == "softmax":  # a constant added to all intercepts changes nothing
        found[-3:] -= found[-3:].mean()
        expected[-3:] -= expected[-3:].mean()
    assert_close(found, expected, 1e-5)


def test_influence_of_ridge_in_closed_form():
    whole = Ridge(alpha=2.0, fit_intercept=False).fit(X, NUMBERS)
    found = unlearn(whole, GONE, X, NUMBERS).estimator.coef_ - whole.coef_
    residuals = X @ whole.coef_ - NUMBERS
    expected = np.linalg.solve(X.T @ X + 2 * np.eye(3), X[GONE].T @ residuals[GONE])
    assert_close(found, expected, 1e-10)


def test_influence_of_a_net_by_every_curvature():
    """At any parameters: H^-1 of the sum of the rows' gradients, over n, H with the Gauss-Newton matrix."""
    name = "tanh, nesterov"
    H = runs.curvatures_of(name, 5)[1].mean(axis=0) + np.diag(runs.decay_of(name)) + 0.1 * np.eye(31)
    expected = np.linalg.solve(H, runs.gradients_of(name, 5)[GONE].sum(axis=0)) / N
    for curvature, tolerance in (("exact", 1e-10), ("cg", 1e-7)):
        attributor = fitted(Influence, name, curvature=curvature, damping=0.1)
        assert_close(change_of(attributor, GONE, name), expected, tolerance)


@pytest.mark.parametrize("curvature", ["exact", "cg", "ekfac"])
def test_the_change_and_the_values_of_influence_agree(curvature):
    attributor = fitted(Influence, "tanh, nesterov", curvature=curvature, damping=0.1, random_state=0)
    expected = attributor.attribute(X[:4], Y[:4])[:, GONE].sum(axis=1)
    found = runs.gradients_of("tanh, nesterov", 5)[:4] @ change_of(attributor, GONE, "tanh, nesterov")
    assert_close(found, expected, 1e-8)


# ---- which rows ------------------------------------------------------------------------------------------------------


def test_positions_and_masks():
    mask = np.isin(np.arange(N), GONE)
    for method in (SGDInfluence, DiffIn):
        attributor = fitted(method, "softmax")
        plain = change_of(attributor, GONE, "softmax")
        for rows in (GONE.tolist(), GONE[::-1], mask, mask.tolist(), [3, 3, 11, 20], GONE.astype(np.uint8)):
            np.testing.assert_array_equal(change_of(attributor, rows, "softmax"), plain)


REFUSED = {
    "nothing": ([], "0 of 24 rows are to be removed; give at least one, and leave one"),
    "an empty mask": (np.zeros(N, dtype=bool), "0 of 24 rows are to be removed"),
    "everything": (np.arange(N), "24 of 24 rows are to be removed"),
    "a mask of everything": (np.ones(N, dtype=bool), "24 of 24 rows are to be removed"),
    "too far": ([3, N], "rows holds the position 24; allowed are 0 to 23"),
    "negative": ([-1], "rows holds the position -1; allowed are 0 to 23"),
    "a short mask": (np.ones(5, dtype=bool), r"rows is a mask of shape \(5,\), and there are 24 rows"),
    "fractions": ([0.5], "rows must be positions from 0 to 23, or a boolean mask, got"),
    "names": (["a"], "rows must be positions from 0 to 23, or a boolean mask, got"),
    "a mask of numbers": ([0, 1] * 12, "rows holds 0 and 1 for each row, as a mask does; give an array of bool"),
    "one number": (3, "rows must be positions from 0 to 23, or a boolean mask, got 3"),
    "a table": ([[1], [2]], "rows must be positions from 0 to 23, or a boolean mask, got"),
}


@in_turn("case", REFUSED)
def test_rows_that_are_refused(case):
    rows, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        fitted(SGDInfluence, "softmax").deletion_update(rows)
    with pytest.raises(ValueError, match=message):
        unlearn(Ridge().fit(X, NUMBERS), rows, X, NUMBERS)


def test_other_things_that_are_refused():
    ridge = Ridge().fit(X, NUMBERS)
    for given in ({}, {"X": X}, {"y": NUMBERS}):
        with pytest.raises(
            ValueError, match="unlearn needs the X and y that the model was trained on, or a fitted att"
        ):
            unlearn(ridge, GONE, **given)
    for attributor in (TracIn(), MoSo()):
        with pytest.raises(TypeError, match=r"predicts no parameters; use Influence, DiffIn or SGDInfluence"):
            unlearn(ridge, GONE, X, NUMBERS, attributor=attributor)
    with pytest.raises(ValueError, match="SGDInfluence follows a recorded training run, and this Ridge has none"):
        unlearn(ridge, GONE, X, NUMBERS, attributor=SGDInfluence())
    with pytest.raises(ValueError, match="fitted"):
        unlearn(Ridge(), GONE, X, NUMBERS)


@pytest.mark.parametrize("method", [Influence, DiffIn, SGDInfluence])
def test_an_attributor_that_is_not_fitted(method):
    with pytest.raises(NotFittedError):
        method().deletion_update(GONE)
    with pytest.raises(NotFittedError):
        unlearn(method(), GONE)


# ---- unlearn ---------------------------------------------------------------------------------------------------------


def assert_distances(result, before, X, y=None):
    """What the result says of the distances, by hand."""

    def outputs(model):
        if isinstance(model, FrozenEstimator):
            model = model.estimator
        last = model[-1] if hasattr(model, "steps") else model
        if hasattr(last, "module_"):
            inputs = model[:-1].transform(X) if hasattr(model, "steps") else X
            return runs.flat_of(last.module_), last.forward(inputs).detach().numpy()
        found = model.decision_function(X) if hasattr(model, "decision_function") else model.predict(X)
        return parameters_of(last), found

    true = outputs(result.retrained)
    for when, model in (("before", before), ("after", result.estimator)):
        for what, value, truth in zip(("parameters", "predictions"), outputs(model), true, strict=True):
            expected = np.linalg.norm(value - truth) / np.linalg.norm(truth)
            assert result.distances[f"{what}_{when}"] == pytest.approx(expected, rel=1e-5)
    assert set(result.distances) == {
        f"{what}_{w}" for what in ("parameters", "predictions") for w in ("before", "after")
    }


BINARY = (Y > 0).astype(int)


@in_turn("frozen", [False, True])
@in_turn(
    ("model", "y"),
    [
        (LogisticRegression(C=0.5), BINARY),
        (Ridge(alpha=2.0), NUMBERS),
        (make_pipeline(StandardScaler(), Ridge(alpha=2.0)), NUMBERS),
    ],
)
def test_models_of_scikit_learn(model, y, frozen):
    whole = copy.deepcopy(model).fit(X, y)
    before = pickle.dumps(whole)
    result = unlearn(FrozenEstimator(whole) if frozen else whole, GONE, X, y, retrain=True)
    assert type(result.estimator) is type(whole)
    kept = np.setdiff1d(np.arange(N), GONE)
    again = copy.deepcopy(model).fit(X[kept], y[kept])
    np.testing.assert_allclose(result.retrained.predict(X), again.predict(X))
    if not isinstance(y[0], np.integer) or hasattr(whole, "steps"):
        assert_distances(result, whole, X)
    assert result.distances["predictions_after"] < result.distances["predictions_before"]
    assert pickle.dumps(whole) == before, "the model is not changed"
    plain = unlearn(whole, GONE, X, y)
    assert plain.retrained is None
    assert plain.distances is None
    np.testing.assert_array_equal(plain.estimator.predict(X), result.estimator.predict(X))


def test_weights_of_rows_are_those_of_the_others_when_retrained():
    ridge = Ridge(alpha=2.0).fit(X, NUMBERS, WEIGHT)
    kept = np.setdiff1d(np.arange(N), GONE)
    result = unlearn(ridge, GONE, X, NUMBERS, sample_weight=WEIGHT, retrain=True)
    again = Ridge(alpha=2.0).fit(X[kept], NUMBERS[kept], WEIGHT[kept])
    np.testing.assert_allclose(parameters_of(result.retrained), parameters_of(again))
    assert_distances(result, ridge, X)
    assert result.distances["parameters_after"] < result.distances["parameters_before"]


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_net_is_retrained_in_the_same_batches_without_the_rows(name):
    net, y = trained(name), targets_of(name)
    before = {key: value.clone() for key, value in net.module_.state_dict().items()}
    result = unlearn(net, GONE, X, y, attributor=SGDInfluence(), retrain=True)
    weight = torch.from_numpy(forgetful(np.ones(N)))
    expected = runs.end_of(name, weight).detach().numpy()
    assert_close(runs.flat_of(result.retrained.module_), expected, 1e-10)
    assert_close(
        runs.flat_of(result.estimator.module_) - runs.flat_of(net.module_),
        -runs.jacobian_of(name)[:, GONE].sum(axis=1),
        1e-9,
    )
    assert_distances(result, net, X)
    assert all(torch.equal(value, before[key]) for key, value in net.module_.state_dict().items())
    for each in (result.estimator, result.retrained):
        assert each.predict(X).shape == y.shape
        assert each is not net
        assert each.module_ is not net.module_


@pytest.mark.parametrize("frozen", [False, True])
def test_a_net_in_a_pipeline(frozen):
    pipe = make_pipeline(StandardScaler(), runs.untrained("tanh, nesterov")).fit(X, Y)
    scaled = pipe[:-1].transform(X)
    direct = unlearn(pipe[-1], GONE, scaled, Y, attributor=SGDInfluence(), retrain=True)
    result = unlearn(FrozenEstimator(pipe) if frozen else pipe, GONE, X, Y, attributor=SGDInfluence(), retrain=True)
    for found, expected in ((result.estimator, direct.estimator), (result.retrained, direct.retrained)):
        assert_close(runs.flat_of(found[-1].module_), runs.flat_of(expected.module_), 1e-12)
        np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(scaled))
    assert result.distances == pytest.approx(direct.distances)


def test_a_net_without_recorded_steps_is_retrained_as_a_clone():
    net = runs.untrained(recorder=TrajectoryRecorder(), schedule=None).fit(X, Y)
    options = {"attributor": DiffIn(), "retrain": True}
    first, second = (unlearn(net, GONE, X, Y, random_state=0, **options) for _ in range(2))
    assert first.distances == second.distances
    assert first.distances["parameters_before"] != unlearn(net, GONE, X, Y, random_state=1, **options).distances
    assert len(run_of(first.retrained).rows) == N - len(GONE)
    assert_distances(first, net, X)


def test_a_fitted_attributor_knows_its_rows():
    for method in (Influence, DiffIn, SGDInfluence):
        own = method(runs.untrained("tanh"), objective=None, random_state=0)
        params = {"damping": 0.1} if method is Influence else {}
        own.set_params(**params).fit(X, Y)
        expected = own.deletion_update(GONE)
        result = unlearn(own, GONE, retrain=True)
        assert_close(runs.flat_of(result.estimator.module_), runs.flat(expected).numpy(), 1e-12)
        given = unlearn(own.estimator_, GONE, X, Y, attributor=method(random_state=0, **params), retrain=True)
        assert given.distances == pytest.approx(result.distances, rel=1e-6)
    assert unlearn(pickle.loads(pickle.dumps(own)), GONE, retrain=True).distances == result.distances


def test_an_attributor_that_is_given_keeps_its_settings_and_stays_unfitted():
    attributor = Influence(Ridge(), curvature="exact", damping=0.3, objective="self")
    whole = LogisticRegression().fit(X, Y)
    found = unlearn(whole, GONE, X, Y, attributor=attributor).estimator
    own = Influence(FrozenEstimator(whole), curvature="exact", damping=0.3, objective=None).fit(X, Y)
    np.testing.assert_array_equal(parameters_of(found), parameters_of(unlearn(own, GONE).estimator))
    assert isinstance(attributor.estimator, Ridge)
    assert not hasattr(attributor, "estimator_")


def test_queries_after_a_prediction_are_those_before():
    for method in (SGDInfluence, DiffIn):
        attributor = fitted(method, "tanh, nesterov")
        before = attributor.attribute(X[:3], Y[:3])
        attributor.deletion_update(GONE)
        np.testing.assert_array_equal(attributor.attribute(X[:3], Y[:3]), before)
        np.testing.assert_array_equal(
            change_of(attributor, GONE, "tanh, nesterov"), change_of(attributor, GONE, "tanh, nesterov")
        )


# ---- nearer to the retrained model -----------------------------------------------------------------------------------


@cache
def digits():
    X, y = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(X))[:500]
    return X[chosen] / 16, y[chosen]


@cache
def digits_net(widths):
    X, y = digits()
    torch.manual_seed(0)
    return NeuralNetClassifier(
        runs.Perceptron, module__widths=widths, criterion=nn.CrossEntropyLoss, max_epochs=10, batch_size=50, lr=0.1,
        optimizer__momentum=0.5, optimizer__weight_decay=1e-3, train_split=None, iterator_train__shuffle=True,
        verbose=0, callbacks=[TrajectoryRecorder(steps=True)],
    ).fit(X, y)  # fmt: skip


def removed(k):
    return np.random.default_rng(k).choice(500, k, replace=False)


def assert_nearer(distances, factor):
    for what in ("parameters", "predictions"):
        assert distances[f"{what}_after"] < factor * distances[f"{what}_before"]


@pytest.mark.parametrize(
    ("widths", "count"), [((64, 10), 10), *(((64, 16, 10), count) for count in (1, 10, 100))], ids=str
)
def test_sgd_influence_brings_a_net_nearer(widths, count):
    X, y = digits()
    result = unlearn(digits_net(widths), removed(count), X, y, attributor=SGDInfluence(), retrain=True)
    assert_nearer(result.distances, 0.3 if count < 100 else 0.5)


@pytest.mark.parametrize("count", [1, 10, 100])
def test_influence_brings_a_logistic_regression_nearer(count):
    X, y = digits()
    whole = LogisticRegression(tol=1e-8, max_iter=5000).fit(X, y)  # its own would be as far as one row
    result = unlearn(whole, removed(count), X, y, retrain=True)
    assert_nearer(result.distances, 0.5)


def test_a_perceptron_of_scikit_learn_is_corrected_too():
    model = MLPClassifier((4,), alpha=1.0, solver="lbfgs", max_iter=2000, random_state=0).fit(X, Y)
    before = pickle.dumps(model)
    found = unlearn(model, GONE, X, Y, attributor=Influence(curvature="exact", damping=1e-3)).estimator
    assert pickle.dumps(model) == before
    changes = [after - own for after, own in zip(found.coefs_, model.coefs_, strict=True)]
    assert all(np.abs(change).max() > 0 for change in changes)

    p = [each.predict_proba(X)[GONE, Y[GONE]] for each in (model, found)]
    assert -np.log(p[1]).mean() > -np.log(p[0]).mean()
