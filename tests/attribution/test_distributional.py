"""Distributional: every run by itself, measures by definition, a known variance, invariances, cleaners, errors."""

import pickle
from contextlib import nullcontext
from functools import cache
from mmap import mmap

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from skorch import NeuralNetRegressor
from torch import nn
from torch.utils.data import TensorDataset

from sktda import Holdout, InfluencePruner, retrain
from sktda.attribution import (
    ComplexityGap,
    Distributional,
    Influence,
    InnerProduct,
    ModelEnsemble,
    MoSo,
    SGDInfluence,
    Source,
    TracIn,
)
from sktda.attribution.several import distributional
from sktda.objectives import DemographicParity, Margin, Output, ValidationLoss, Weighted
from tests.attribution import run_reference as recorded
from tests.in_turn import in_turn
from tests.model.nets import Mlp, make_net, rows
from tests.spies import flip, noisy_blobs

X, Y, N = recorded.X, recorded.Y, recorded.N
RNG = np.random.default_rng(1)
XQ, YQ = RNG.normal(size=(7, 3)), RNG.integers(0, 3, 7)
SEX = np.array([0, 1, 0, 1, 1, 0, 1])
WEIGHT = RNG.uniform(0.5, 2.0, N)
RUNS = [recorded.untrained("tanh", seed=seed).fit(X, Y) for seed in range(4)]
EXACT = Influence(curvature="exact", damping=1e-2)
BLOBS, LABELS, TRUE = noisy_blobs(60, rate=0.1, centers=2)
NET_X, NET_Y = rows()
SAME_MODEL = "members are the same model, so .* Nothing in the training of LogisticRegression may be random"
SMALL = make_net(max_epochs=2)  # untrained, for runs side by side


def brier(predict, X, y, **metadata):
    """Mean squared distance of the class probabilities to the class: an objective without rows."""
    return (predict(X).softmax(dim=1) - nn.functional.one_hot(y, 3)).square().sum(dim=1).mean()


def log_p(net, X):
    """(n, 3) log-probabilities of a net, by torch alone."""
    with torch.no_grad():
        return net.module_(torch.as_tensor(X)).log_softmax(dim=1).numpy()


def losses(net, X, y):
    return -log_p(net, X)[np.arange(len(y)), y]


def minus_margins(net, X, y):
    right = log_p(net, X)[np.arange(len(y)), y]
    return np.log1p(-np.exp(right)) - right


def outputs(net, X, y):
    with torch.no_grad():
        return net.module_(torch.as_tensor(X)).numpy()[np.arange(len(y)), y]


def gap(net):
    chance = np.exp(log_p(net, XQ))[:, 1]
    return abs(chance[SEX == 1].mean() - chance[SEX == 0].mean())


def validated(attributor=None, **options):
    """A fit on the recorded runs with validation rows."""
    each = Distributional(EXACT if attributor is None else attributor, members=RUNS, random_state=0, **options)
    return each.fit(X, Y, X_val=XQ, y_val=YQ)


def on_itself(attributor=None, **options):
    """The same without validation rows."""
    return Distributional(EXACT if attributor is None else attributor, members=RUNS, random_state=0, **options).fit(
        X, Y
    )


FIT, SELF = validated(), on_itself()


@cache
def measured(fitted, measure):
    """Fitted once for all tests that only read it; fitted: one of the two above."""
    return fitted(measure=measure)


# ---- every run by itself ---------------------------------------------------------------------------------------------

BASES = {
    "exact": EXACT,
    "ekfac": Influence(curvature="ekfac", damping=1e-2),
    "tracin": TracIn(),
    "inner product": InnerProduct(),
    "source": Source(curvature="exact"),
    "sgd": SGDInfluence(),
}
OBJECTIVES = {  # and the value at a net on the validation rows
    "loss": ("validation", lambda net: losses(net, XQ, YQ).mean()),
    "margin": (Margin(), lambda net: minus_margins(net, XQ, YQ).mean()),
    "parity": (DemographicParity(positive=1), gap),
    "callable": (brier, lambda net: np.mean(np.sum((np.exp(log_p(net, XQ)) - np.eye(3)[YQ]) ** 2, axis=1))),
    "output": (Output(), lambda net: outputs(net, XQ, YQ).mean()),
    "column": (Output(column=2), lambda net: outputs(net, XQ, np.full(7, 2)).mean()),
    "two": (
        Weighted([ValidationLoss(), Margin()], [2.0, -0.5]),
        lambda net: 2 * losses(net, XQ, YQ).mean() - 0.5 * minus_margins(net, XQ, YQ).mean(),
    ),
    "loss and gap": (
        Weighted({"loss": ValidationLoss(), "gap": DemographicParity(positive=1)}, [1.0, 3.0]),
        lambda net: losses(net, XQ, YQ).mean() + 3 * gap(net),
    ),
}
GIVEN = {"X_val": XQ, "y_val": YQ, "metadata_val": {"sensitive_features": SEX}}


def alone(base, run, each, sample_weight=None, **given):
    """The base around one frozen run, with the seed that it had among the others."""
    one = clone(base).set_params(estimator=FrozenEstimator(run), random_state=each.random_state)
    return one.fit(X, Y, sample_weight, **given)


@pytest.mark.parametrize(
    ("name", "weight"), [*((name, None) for name in BASES), ("exact", WEIGHT), ("inner product", WEIGHT)]
)
def test_every_runs_own_losses(name, weight):
    """With weights in the scores, but not in what a row loses."""
    fit = Distributional(BASES[name], members=RUNS[:2], random_state=0).fit(X, Y, weight)
    for s, (run, each) in enumerate(zip(RUNS[:2], fit.attributors_, strict=True)):
        np.testing.assert_array_equal(fit.member_scores_[s], -alone(BASES[name], run, each, weight).scores_)
        np.testing.assert_allclose(fit.member_values_[s], losses(run, X, Y), rtol=1e-9)
    np.testing.assert_allclose(fit.scores_, -fit.member_scores_.mean(axis=0), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "objective"),
    [  # every base with half of the objectives, every objective with half of the bases
        (name, objective) for i, name in enumerate(BASES) for j, objective in enumerate(OBJECTIVES) if (i + j) % 2 == 0
    ],
)
def test_every_runs_objective(name, objective):
    asked, value = OBJECTIVES[objective]
    base = clone(BASES[name]).set_params(objective=asked)
    fit = Distributional(base, members=RUNS[:2], random_state=0).fit(X, Y, **GIVEN)
    assert fit.member_values_.shape == (2,)
    for s, (run, each) in enumerate(zip(RUNS[:2], fit.attributors_, strict=True)):
        one = alone(base, run, each, **GIVEN)
        np.testing.assert_array_equal(fit.member_scores_[s], one.scores_)
        np.testing.assert_allclose(fit.member_values_[s], value(run), rtol=1e-9)
        for part, found in one.objectives_.items():
            np.testing.assert_array_equal(each.objectives_[part].scores, found.scores)
    for part, found in fit.objectives_.items():
        of_runs = [each.objectives_[part] for each in fit.attributors_]
        np.testing.assert_allclose(found.value, sum(each.value for each in of_runs) / 2)
        np.testing.assert_allclose(found.scores, sum(each.scores for each in of_runs) / 2, atol=1e-15)
    np.testing.assert_allclose(fit.scores_, fit.member_scores_.mean(axis=0), rtol=1e-9, atol=1e-15)


QUERIED = {"callable": (brier, losses), "margin": (Margin(), minus_margins), "output": (Output(), outputs)}


@pytest.mark.parametrize(
    ("name", "objective"),  # every objective with one base, and every base with one of them
    [*(("exact", objective) for objective in QUERIED)]
    + [("ekfac", "callable"), ("tracin", "margin"), ("inner product", "output"), ("source", "callable")]
    + [("sgd", "margin")],
)
def test_every_runs_queries(name, objective):
    asked, value = QUERIED[objective]
    base = clone(BASES[name]).set_params(objective=asked)
    fit = Distributional(base, members=RUNS[:2], random_state=0).fit(X, Y, **GIVEN)
    values, shifts = fit.attribute_members(XQ, YQ)
    assert values.shape == (2, 7)
    assert shifts.shape == (2, 7, N)
    for s, (run, each) in enumerate(zip(RUNS[:2], fit.attributors_, strict=True)):
        np.testing.assert_allclose(values[s], value(run, XQ, YQ), rtol=1e-9)
        np.testing.assert_array_equal(shifts[s], alone(base, run, each, **GIVEN).attribute(XQ, YQ))
    np.testing.assert_allclose(fit.attribute(XQ, YQ), shifts.mean(axis=0), rtol=1e-9, atol=1e-15)


def test_the_runs_are_given_as_they_are():
    """As nets, or frozen; a tuple, too."""
    frozen = Distributional(EXACT, members=tuple(map(FrozenEstimator, RUNS)), random_state=0).fit(
        X, Y, X_val=XQ, y_val=YQ
    )
    np.testing.assert_array_equal(frozen.member_scores_, FIT.member_scores_)
    for fit in (frozen, FIT):
        assert [each.estimator_.estimator for each in fit.attributors_] == RUNS
    elsewhere = validated(estimator=LogisticRegression(), n_members=2)
    np.testing.assert_array_equal(elsewhere.member_scores_, FIT.member_scores_)


def test_a_run_that_is_given_twice():
    """It is scored with other random numbers; a warning comes if nothing differs."""
    base = BASES["ekfac"]  # draws labels
    fit = Distributional(base, members=[RUNS[0], RUNS[0], RUNS[1]], random_state=0).fit(X, Y)
    assert len({each.random_state for each in fit.attributors_}) == 3
    np.testing.assert_array_equal(fit.member_values_[0], fit.member_values_[1])
    assert not np.allclose(fit.member_scores_[0], fit.member_scores_[1])
    for given in ({}, {"X_val": XQ, "y_val": YQ}):
        with pytest.warns(UserWarning, match="all 2 members are the same model, .* training of NeuralNetClassifier"):
            Distributional(base, members=RUNS[:1] * 2).fit(X, Y, **given)


# ---- measures --------------------------------------------------------------------------------------------------------


def covariance(x, d):
    return ((x - x.mean(axis=0)) * (d - d.mean(axis=0))).sum(axis=0) / (len(d) - 1)


def quantile_distance(x, y):
    """Mean over ranks of the squared distance of the k-th smallest to the k-th smallest."""
    x, y = np.sort(x, axis=0), np.sort(y, axis=0)
    return sum((y[k] - x[k]) ** 2 for k in range(len(x))) / len(x)


def gaussian_distance(x, y):
    deviation = np.sqrt(covariance(y, y)) - np.sqrt(covariance(x, x))
    return (y - x).mean(axis=0) ** 2 + deviation**2


def of_middles(x, y):
    return np.median(y, axis=0) - np.median(x, axis=0)


DEFINITIONS = {  # of x and d
    "mean": lambda x, d: d.sum(axis=0) / len(d),
    "variance": lambda x, d: 2 * covariance(x, d) + covariance(d, d),
    "wasserstein": lambda x, d: quantile_distance(x + 0 * d, x + d),
    "wasserstein_gaussian": lambda x, d: gaussian_distance(x + 0 * d, x + d),
    of_middles: lambda x, d: of_middles(x + 0 * d, x + d),
}


@pytest.mark.parametrize("measure", DEFINITIONS)
def test_a_measure_by_its_definition(measure, monkeypatch):
    expected = DEFINITIONS[measure](FIT.member_values_[:, None], FIT.member_scores_)
    own = -DEFINITIONS[measure](SELF.member_values_, SELF.member_scores_)
    named, itself = measured(validated, measure), measured(on_itself, measure)
    values, shifts = FIT.attribute_members(XQ, YQ)
    monkeypatch.setattr(Influence, "fit", None)  # from here on nothing is fitted
    for found in (FIT.measured(measure), named.scores_, named.measured()):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)
    for found in (SELF.measured(measure), itself.scores_, itself.measured()):
        np.testing.assert_allclose(found, own, rtol=1e-9, atol=1e-15)
    by_query = DEFINITIONS[measure](values[:, :, None], shifts)
    np.testing.assert_allclose(FIT.attribute(XQ, YQ, measure=measure), by_query, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(named.attribute(XQ, YQ), by_query, rtol=1e-9, atol=1e-15)
    assert measure == "mean" or not np.allclose(FIT.scores_, expected)


@in_turn("measure", DEFINITIONS)
@in_turn("fitted", [validated, on_itself])
def test_the_standard_error_of_a_measure_leaves_out_each_run(fitted, measure):
    fit = measured(fitted, measure)
    x = np.broadcast_to(fit.member_values_.T, (N, 4)).T
    parts = [DEFINITIONS[measure](np.delete(x, s, axis=0), np.delete(fit.member_scores_, s, axis=0)) for s in range(4)]
    expected = np.sqrt(3 * np.var(parts, axis=0))
    np.testing.assert_allclose(fit.std_error_, expected, rtol=1e-7, atol=1e-15)
    if measure == "mean":
        np.testing.assert_allclose(fit.std_error_, fit.member_scores_.std(axis=0, ddof=1) / 2, rtol=1e-9)


def test_two_runs_have_no_standard_error():
    fit = Distributional(EXACT, members=RUNS[:2], random_state=0).fit(X, Y)
    assert np.isnan(fit.std_error_).all()
    assert np.isfinite(fit.scores_).all()


def test_runs_without_randomness():
    """Ten times the same model: no spread before or after, and both distances are the squared shift."""
    fit = Distributional(Influence(), LogisticRegression(), n_members=10, random_state=0)
    with pytest.warns(UserWarning, match=SAME_MODEL):
        fit.fit(BLOBS, LABELS, X_val=BLOBS[:9], y_val=TRUE[:9])
    model = Influence(FrozenEstimator(LogisticRegression().fit(BLOBS, LABELS)))
    expected = model.fit(BLOBS, LABELS, X_val=BLOBS[:9], y_val=TRUE[:9]).scores_
    np.testing.assert_allclose(fit.scores_, expected, rtol=1e-9)
    np.testing.assert_allclose(fit.std_error_, 0, atol=1e-12)
    np.testing.assert_allclose(fit.measured("variance"), 0, atol=1e-12)
    for distance in ("wasserstein", "wasserstein_gaussian"):
        np.testing.assert_allclose(fit.measured(distance), expected**2, rtol=1e-9)


# ---- groups ----------------------------------------------------------------------------------------------------------

POSITIONS = [[3], [0, 5, 7], np.arange(N), (2, 1)]
MASKS = np.array([np.isin(np.arange(N), each) for each in POSITIONS])


@pytest.mark.parametrize("measure", DEFINITIONS)
def test_the_shift_of_a_group_is_the_sum_of_its_rows(measure):
    summed = np.stack([FIT.member_scores_[:, list(each)].sum(axis=1) for each in POSITIONS], axis=1)
    expected = DEFINITIONS[measure](FIT.member_values_[:, None], summed)
    x, d = FIT.attribute_members(XQ, YQ)
    by_query = np.stack([d[:, :, list(each)].sum(axis=2) for each in POSITIONS], axis=2)
    for groups in (POSITIONS, MASKS):
        np.testing.assert_allclose(FIT.measured(measure, groups=groups), expected, rtol=1e-9, atol=1e-15)
        values, shifts = FIT.attribute_members(XQ, YQ, groups=groups)
        np.testing.assert_array_equal(values, x)
        np.testing.assert_allclose(shifts, by_query, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(
            FIT.attribute(XQ, YQ, measure=measure, groups=groups),
            DEFINITIONS[measure](x[:, :, None], by_query),
            rtol=1e-9,
            atol=1e-15,
        )
    rows_alone = FIT.measured(measure)
    np.testing.assert_allclose(FIT.measured(measure, groups=MASKS[:1]), rows_alone[[3]], rtol=1e-9)
    np.testing.assert_allclose(FIT.measured(measure, groups=np.eye(N, dtype=bool)), rows_alone, rtol=1e-9)
    every = FIT.attribute(XQ, YQ, measure=measure)
    np.testing.assert_allclose(FIT.attribute(XQ, YQ, measure=measure, groups=[[3]]), every[:, [3]], rtol=1e-9)


def test_only_the_mean_is_additive():
    by_hand = [FIT.scores_[list(each)].sum() for each in POSITIONS]
    np.testing.assert_allclose(FIT.measured(groups=POSITIONS), by_hand, rtol=1e-9)
    np.testing.assert_allclose(
        FIT.attribute(XQ, YQ, groups=MASKS), FIT.attribute(XQ, YQ) @ MASKS.T, rtol=1e-9, atol=1e-15
    )
    variance = FIT.measured("variance")
    together = FIT.measured("variance", groups=[[0, 5, 7]])
    cross = sum(2 * covariance(FIT.member_scores_[:, i], FIT.member_scores_[:, j]) for i, j in ((0, 5), (0, 7), (5, 7)))
    assert abs(cross) > 1e-3 * abs(together[0])
    np.testing.assert_allclose(together, variance[[0, 5, 7]].sum() + cross, rtol=1e-9)


def test_queries_of_a_fit_without_validation_rows_have_groups():
    np.testing.assert_allclose(SELF.attribute(XQ, YQ, groups=MASKS), FIT.attribute(XQ, YQ, groups=MASKS), rtol=1e-9)


# ---- planted answers -------------------------------------------------------------------------------------------------


SIDES = np.arange(80) % 2
APART = (RNG.normal(size=(80, 3)) + 6 * SIDES[:, None] - 3).astype(np.float32)
MIXED = flip(SIDES, 0.1)


@pytest.mark.parametrize("base", [Influence(), InnerProduct(), TracIn()], ids=["influence", "inner product", "tracin"])
def test_wrong_labels_have_the_lowest_mean_score(base):
    """The eight wrong labels are the eight lowest, and those whose loss would move furthest."""
    fit = Distributional(base, make_net(), n_members=3, random_state=0).fit(APART, MIXED)
    wrong = set(np.flatnonzero(MIXED != SIDES))
    assert set(fit.scores_.argsort()[:8]) == wrong
    assert set(fit.measured("wasserstein").argsort()[:8]) == wrong
    held = clone(fit).fit(APART[20:], MIXED[20:], X_val=APART[:20], y_val=SIDES[:20])
    assert held.scores_[MIXED[20:] != SIDES[20:]].max() < 0 < held.scores_[MIXED[20:] == SIDES[20:]].mean()


STEPS, RATE, ROWS = 10, 0.05, 100
LINE_X = RNG.normal(size=(ROWS, 4))
LINE_Y = LINE_X @ RNG.normal(size=4) + 0.3 * RNG.normal(size=ROWS)
LINE_Q, NO_Y = RNG.normal(size=(5, 4)), np.zeros((5, 1))


class Start(nn.Linear):
    """Weights that start anywhere: N(0, 4)."""

    def __init__(self):
        super().__init__(4, 1, bias=False, dtype=torch.float64)
        nn.init.normal_(self.weight, std=2.0)


LINE = NeuralNetRegressor(
    Start, criterion=nn.MSELoss, optimizer=torch.optim.SGD, max_epochs=STEPS, batch_size=-1, lr=RATE,
    iterator_train__shuffle=False, train_split=None, verbose=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def lines():
    """Least squares from random starts, stopped early; each run asked for its outputs."""
    fit = Distributional(SGDInfluence(objective=Output()), LINE, n_members=20, random_state=0)
    return fit.fit(LINE_X, LINE_Y[:, None], X_val=LINE_Q, y_val=NO_Y)


def starts_of(lines):
    """(S, 4) weights before the first step."""
    return np.array([each.trajectory_.initial_state()["weight"][0].numpy() for each in lines.attributors_])


def descended(theta, keep):
    """(S, 4) weights after the steps of gradient descent that misses the rows that are not kept."""
    for _ in range(STEPS):
        theta = theta - RATE * 2 / ROWS * ((theta @ LINE_X.T - LINE_Y) * keep) @ LINE_X
    return theta


def test_the_variance_of_outputs_in_closed_form(lines):
    """theta = M theta_0 + m has at x the variance x' M C M' x, C that of the starts; without a row, M becomes M + D."""
    C = np.cov(starts_of(lines), rowvar=False)
    A = np.eye(4) - RATE * 2 / ROWS * LINE_X.T @ LINE_X
    powers = [np.linalg.matrix_power(A, k) for k in range(STEPS + 1)]

    def variance(M):
        return np.einsum("qi,ij,qj->q", LINE_Q @ M, C, LINE_Q @ M)

    expected = np.empty((5, ROWS))
    for i, x in enumerate(LINE_X):
        step = RATE * 2 / ROWS * np.outer(x, x)  # what the row takes from A
        D = sum(powers[k] @ step @ powers[STEPS - 1 - k] for k in range(STEPS))
        expected[:, i] = variance(powers[STEPS] + D) - variance(powers[STEPS])
    values, _ = lines.attribute_members(LINE_Q, NO_Y)
    np.testing.assert_allclose(values.var(axis=0, ddof=1), variance(powers[STEPS]), rtol=1e-9)
    found = lines.attribute(LINE_Q, NO_Y, measure="variance")
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    middle = lines.attribute(LINE_Q.mean(axis=0)[None], NO_Y[:1], measure="variance")[0]  # outputs are linear
    np.testing.assert_allclose(lines.measured("variance"), middle, rtol=1e-9, atol=1e-9 * np.abs(middle).max())


def test_measures_against_training_without_each_row(lines):
    """Every run again from the same start, for rows of at most the middle leverage."""
    start = starts_of(lines)
    full = descended(start, np.ones(ROWS)) @ LINE_Q.T
    leverage = np.einsum("ij,ji->i", LINE_X, np.linalg.pinv(LINE_X))
    small = np.flatnonzero(leverage <= np.median(leverage))
    without = np.stack([descended(start, np.arange(ROWS) != i) @ LINE_Q.T for i in small], axis=2)
    truth = {
        "mean": (without - full[:, :, None]).mean(axis=0),
        "variance": without.var(axis=0, ddof=1) - full.var(axis=0, ddof=1)[:, None],
        "wasserstein": quantile_distance(np.broadcast_to(full[:, :, None], without.shape), without),
    }
    values, shifts = lines.attribute_members(LINE_Q, NO_Y)
    np.testing.assert_allclose(values, full, rtol=1e-9)
    for measure, expected in truth.items():
        found = DEFINITIONS[measure](values[:, :, None], shifts[:, :, small])
        for predicted, true in zip(found, expected, strict=True):  # by query
            assert np.corrcoef(predicted, true)[0, 1] > 0.9999, measure  # measured: at least .99998
            assert abs(np.polyfit(predicted, true, 1)[0] - 1) < 0.04, measure  # measured: 1.012 to 1.031
    np.testing.assert_allclose(
        lines.attribute(LINE_Q, NO_Y, measure="variance")[:, small],
        DEFINITIONS["variance"](values[:, :, None], shifts[:, :, small]),
        rtol=1e-7,
    )


# ---- orders, jobs, seeds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", DEFINITIONS)
def test_the_order_of_the_runs_changes_nothing(measure):
    order = [2, 0, 3, 1]
    other = Distributional(EXACT, members=[RUNS[s] for s in order], measure=measure).fit(X, Y, X_val=XQ, y_val=YQ)
    np.testing.assert_allclose(other.scores_, FIT.measured(measure), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(other.attribute(XQ, YQ), FIT.attribute(XQ, YQ, measure=measure), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(other.member_scores_, FIT.member_scores_[order], rtol=1e-9)


@pytest.mark.parametrize("name", ["exact", "source", "sgd"])
def test_the_order_of_rows_changes_nothing(name):
    order = np.random.default_rng(0).permutation(N)
    for given in ({}, {"X_val": XQ, "y_val": YQ}):
        plain = Distributional(BASES[name], members=RUNS[:2], measure="variance", random_state=0).fit(X, Y, **given)
        moved = clone(plain).set_params(members=RUNS[:2]).fit(X[order], Y[order], **given)
        np.testing.assert_allclose(moved.scores_, plain.scores_[order], rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(moved.std_error_, plain.std_error_[order], rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(moved.attribute(XQ, YQ), plain.attribute(XQ, YQ)[:, order], rtol=1e-7, atol=1e-12)


TRAINED = {
    "side by side": Distributional(Influence(damping=0.1), SMALL, n_members=3, random_state=0),
    "recorded": Distributional(TracIn(), SMALL, n_members=3, random_state=0, measure="variance"),
    "scikit-learn": Distributional(
        InnerProduct(), MLPClassifier((4,), max_iter=5, tol=1.0, n_iter_no_change=2), n_members=3, random_state=0
    ),
}


def found_by(fit):
    """All its numbers; also those of queries."""
    queries = [fit.attribute(NET_X[:2], NET_Y[:2], measure=measure) for measure in ("mean", "wasserstein")]
    return [fit.member_values_, fit.member_scores_, fit.scores_, fit.std_error_, *queries]


@pytest.mark.parametrize("name", TRAINED)
def test_jobs_change_nothing_and_seeds_do(name):
    alone = clone(TRAINED[name]).fit(NET_X, NET_Y)
    assert len({tuple(each) for each in alone.member_scores_}) == 3
    others = [clone(TRAINED[name]).fit(NET_X, NET_Y), pickle.loads(pickle.dumps(alone))]
    with parallel_config("threading"):
        others.append(clone(TRAINED[name]).set_params(n_jobs=2).fit(NET_X, NET_Y))
        found = [found_by(other) for other in others]
    for other, numbers in zip(others, found, strict=True):
        for given, expected in zip(numbers, found_by(alone), strict=True):
            np.testing.assert_array_equal(given, expected)
        assert len({id(each._data.X) for each in other.attributors_}) == 1, "one copy of the rows"
    elsewhere = clone(TRAINED[name]).set_params(random_state=1).fit(NET_X, NET_Y)
    assert not np.allclose(elsewhere.member_scores_, alone.member_scores_)
    one, other = (
        clone(TRAINED[name]).set_params(random_state=np.random.RandomState(3)).fit(NET_X, NET_Y) for _ in range(2)
    )
    np.testing.assert_array_equal(one.member_scores_, other.member_scores_)


def test_the_random_state_of_the_base_is_replaced():
    one, other = (
        Distributional(Influence(SMALL, damping=0.1, random_state=seed), n_members=2, random_state=0).fit(NET_X, NET_Y)
        for seed in (0, 1)
    )
    np.testing.assert_array_equal(one.member_scores_, other.member_scores_)


class Seeded(Mlp):
    """Starts from its own seed."""

    def __init__(self, random_state):
        torch.manual_seed(random_state)
        super().__init__()


def test_the_random_states_of_the_estimator_are_replaced():
    net = make_net(module=Seeded, module__random_state=0, max_epochs=1)
    fit = Distributional(Influence(damping=0.1), net, n_members=3, random_state=0).fit(NET_X, NET_Y)
    seeds = {each.estimator_.estimator.get_params()["module__random_state"] for each in fit.attributors_}
    assert len(seeds | {0}) == 4
    assert len({tuple(each) for each in fit.member_values_}) == 3


def test_side_by_side_is_one_after_the_other(monkeypatch):
    together = clone(TRAINED["side by side"]).fit(NET_X, NET_Y)
    monkeypatch.setattr("sktda.attribution.several.over_models.why_not", lambda *given: "a test")
    apart = clone(TRAINED["side by side"]).fit(NET_X, NET_Y)
    np.testing.assert_allclose(together.member_values_, apart.member_values_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(together.member_scores_, apart.member_scores_, rtol=1e-4, atol=1e-6)


def test_runs_trained_elsewhere():
    nets = retrain(SMALL, NET_X, NET_Y, seeds=range(3))
    fit = Distributional(Influence(damping=0.1), members=nets, random_state=0).fit(NET_X, NET_Y)
    for net, values in zip(nets, fit.member_values_, strict=True):
        with torch.no_grad():
            logits = net.module_(torch.from_numpy(NET_X))
        expected = nn.functional.cross_entropy(logits, torch.from_numpy(NET_Y), reduction="none")
        np.testing.assert_allclose(values, expected.numpy(), rtol=1e-5)


def test_clones_parameters_and_a_second_fit():
    fit = Distributional(Influence(SMALL, damping=0.1), n_members=2, random_state=0).fit(NET_X, NET_Y)
    assert fit.get_params()["attributor__damping"] == 0.1
    assert fit.get_params()["attributor__estimator__max_epochs"] == 2
    again = clone(fit)
    assert not any(name.endswith("_") and not name.startswith("_") for name in vars(again))
    np.testing.assert_array_equal(again.fit(NET_X, NET_Y).member_scores_, fit.member_scores_)
    fit.set_params(attributor__objective=None, measure="variance").fit(NET_X, NET_Y)
    for name in ("scores_", "std_error_", "member_scores_", "member_values_", "objectives_"):
        assert not hasattr(fit, name)
    np.testing.assert_array_equal(fit.attribute(NET_X, NET_Y), again.attribute(NET_X, NET_Y, measure="variance"))
    fit.set_params(attributor__objective="auto").fit(NET_X, NET_Y, X_val=NET_X[:5], y_val=NET_Y[:5])
    assert fit.member_values_.shape == (2,)
    assert list(fit.objectives_) == ["ValidationLoss"]
    fit.fit(NET_X, NET_Y)
    assert not hasattr(fit, "objectives_")
    np.testing.assert_allclose(fit.scores_, again.measured("variance"), rtol=1e-12)


# ---- large ones ------------------------------------------------------------------------------------------------------


def in_a_file(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return isinstance(array.base, memoryview | mmap)


def test_other_processes_give_the_same_and_take_values_in_a_file(monkeypatch):
    """In one test, as processes are slow to start."""
    alone, other = (clone(TRAINED["recorded"]).set_params(n_jobs=jobs).fit(NET_X, NET_Y) for jobs in (None, 2))
    for given, expected in zip(found_by(other), found_by(alone), strict=True):
        np.testing.assert_array_equal(given, expected)
    assert len({id(each._data.X) for each in other.attributors_}) == 1, "one copy of the rows"
    monkeypatch.setattr(distributional, "IN_MEMORY", 0)
    fit = validated()
    found = Parallel(n_jobs=2)(delayed(type(fit).measured)(each) for each in (fit, fit))
    for values in found:
        np.testing.assert_array_equal(values, fit.scores_)


def test_values_of_all_runs_in_a_file(monkeypatch, tmp_path):
    expected = {"values": FIT.attribute_members(XQ, YQ), "groups": FIT.attribute_members(XQ, YQ, groups=MASKS)}
    monkeypatch.setattr(distributional, "IN_MEMORY", 0)
    for whole, fitted in ((FIT, validated), (SELF, on_itself)):
        fit = fitted(work_dir=tmp_path)
        assert in_a_file(fit.member_scores_)
        assert in_a_file(fit.member_values_) or fitted is validated
        for measure in DEFINITIONS:
            np.testing.assert_array_equal(fit.measured(measure), whole.measured(measure))
            np.testing.assert_array_equal(
                fit.attribute(XQ, YQ, measure=measure), whole.attribute(XQ, YQ, measure=measure)
            )
        for groups, (values, shifts) in zip((None, MASKS), expected.values(), strict=True):
            x, d = fit.attribute_members(XQ, YQ, groups=groups)
            assert in_a_file(d)
            np.testing.assert_allclose(x, values, rtol=1e-12)
            np.testing.assert_allclose(d, shifts, rtol=1e-12)
        assert not list(tmp_path.iterdir()), "a file without a name"
        copy = pickle.loads(pickle.dumps(fit))
        np.testing.assert_array_equal(copy.member_scores_, whole.member_scores_)
        np.testing.assert_array_equal(copy.measured("variance"), whole.measured("variance"))
    del fit, copy, d
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        on_itself(work_dir=tmp_path / "missing")


def test_a_group_without_rows():
    masks = np.arange(2)[:, None] == np.zeros(FIT.member_scores_.shape[1])
    with pytest.raises(ValueError, match=r"groups\[1\] has no row"):
        FIT.measured(groups=masks)


@pytest.mark.parametrize("block", [5, 4 * 7 * 5])
def test_blocks_change_nothing(block, monkeypatch):
    expected = {measure: FIT.attribute(XQ, YQ, measure=measure) for measure in DEFINITIONS}
    whole = {measure: measured(validated, measure) for measure in DEFINITIONS}
    sizes = []

    def seen(x, y):
        sizes.append(y[0].size)
        return np.median(y, axis=0)

    monkeypatch.setattr(distributional, "BLOCK", block)
    for measure in DEFINITIONS:
        np.testing.assert_allclose(FIT.attribute(XQ, YQ, measure=measure), expected[measure], rtol=1e-12, atol=1e-18)
        fit = validated(measure=measure)
        np.testing.assert_allclose(fit.scores_, whole[measure].scores_, rtol=1e-12, atol=1e-18)
        np.testing.assert_allclose(fit.std_error_, whole[measure].std_error_, rtol=1e-12, atol=1e-18)
    np.testing.assert_allclose(SELF.measured("variance"), on_itself(measure="variance").scores_, rtol=1e-12)
    FIT.measured(seen)
    assert max(sizes) == min(N, max(1, block // 4))
    assert sum(sizes) == N


# ---- inside the cleaners ---------------------------------------------------------------------------------------------

HELD = Holdout(NET_X[30:], NET_Y[30:])
SEEN, SEEN_Y = NET_X[:30], flip(NET_Y[:30], 0.2)


@pytest.mark.parametrize("held", [None, HELD], ids=["own losses", "validation rows"])
def test_a_pruner_with_given_runs(held):
    nets = [make_net(seed=seed).fit(SEEN, SEEN_Y) for seed in range(3)]
    attributor = Distributional(Influence(damping=0.1), members=[FrozenEstimator(net) for net in nets], random_state=0)
    pruner = InfluencePruner(
        LogisticRegression(), attributor, prune_ratio=0.2, stratify=False, validation=held, random_state=0
    ).fit(SEEN, SEEN_Y)
    given = {} if held is None else {"X_val": NET_X[30:], "y_val": NET_Y[30:]}
    values = []
    for net, each in zip(nets, pruner.attributor_.attributors_, strict=True):
        one = Influence(FrozenEstimator(net), damping=0.1, random_state=each.random_state)
        values.append(one.fit(SEEN, SEEN_Y, **given).scores_)
    mean = sum(values) / 3
    np.testing.assert_allclose(pruner.scores_, mean, rtol=1e-9, atol=1e-15)
    assert set(np.flatnonzero(~pruner.support_)) == set(mean.argsort()[:6])
    kept = LogisticRegression().fit(SEEN[pruner.support_], SEEN_Y[pruner.support_])
    np.testing.assert_array_equal(pruner.estimator_.coef_, kept.coef_)
    bare = clone(attributor).set_params(members=nets)
    with pytest.raises(ValueError, match=r"members\[0\]=NeuralNetClassifier is not a fitted.*as FrozenEstimator"):
        InfluencePruner(LogisticRegression(), bare).fit(SEEN, SEEN_Y)


@pytest.mark.parametrize("validation", [None, 3])
def test_a_pruner_hands_its_estimator_and_seed_on(validation):
    attributor = Distributional(InnerProduct(), n_members=2)
    pruner = InfluencePruner(make_net(lr=0.2), attributor, stratify=False, validation=validation, random_state=0).fit(
        APART, MIXED
    )
    assert {each.estimator_.estimator.lr for each in pruner.attributor_.attributors_} == {0.2}
    if validation is None:  # wrong labels in the folds ask for more of their kind
        assert set(np.flatnonzero(~pruner.support_)) == set(np.flatnonzero(MIXED != SIDES))
    np.testing.assert_array_equal(clone(pruner).fit(APART, MIXED).scores_, pruner.scores_)


@pytest.mark.parametrize("validation", [None, HELD], ids=["own losses", "validation rows"])
def test_a_search_over_measures(validation):
    attributor = Distributional(Influence(SMALL, damping=0.1), n_members=2)
    pruner = InfluencePruner(LogisticRegression(), attributor, validation=validation, random_state=0)
    grid = {"attributor__measure": ["mean", "variance", "wasserstein"]}
    search = GridSearchCV(pruner, grid, cv=2, error_score="raise").fit(SEEN, SEEN_Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    for params in search.cv_results_["params"]:
        found = clone(pruner).set_params(**params).fit(SEEN, SEEN_Y).attributor_
        np.testing.assert_allclose(found.scores_, found.measured(params["attributor__measure"]), rtol=1e-12)


def test_a_pruner_that_closes_a_gap():
    """The gap that it notes is the mean of those of the runs."""
    sex = np.tile([0, 1], 15)[:10]
    base = Influence(make_net(), objective=DemographicParity(), damping=0.1)
    pruner = InfluencePruner(
        LogisticRegression(),
        Distributional(base, n_members=3),
        stratify=False,
        validation=Holdout(NET_X[30:], NET_Y[30:], sensitive_features=sex),
        random_state=0,
    ).fit(SEEN, SEEN_Y)
    found = pruner.attributor_
    gaps = []
    for each in found.attributors_:
        chance = each.estimator_.predict_proba(NET_X[30:])[:, 1]
        gaps.append(abs(chance[sex == 1].mean() - chance[sex == 0].mean()))
    np.testing.assert_allclose(pruner.objective_values_["DemographicParity"], [np.mean(gaps)], rtol=1e-5)
    assert (pruner.scores_[~pruner.support_] < 0).all(), "no row goes that keeps the gap small"


# ---- estimators ------------------------------------------------------------------------------------------------------

ESTIMATORS = {
    "logistic regression": (Influence(), LogisticRegression()),
    "perceptron": (Influence(), MLPClassifier((4,), max_iter=5, random_state=0, tol=1.0, n_iter_no_change=2)),
    "pipeline": (Influence(damping=0.1), make_pipeline(StandardScaler(), SMALL)),
    "recorded pipeline": (TracIn(), make_pipeline(StandardScaler(), SMALL)),
    "net": (Influence(damping=0.1), SMALL),
    "default": (Influence(), None),
    "default of a recorded method": (TracIn(), None),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators(name):
    base, estimator = ESTIMATORS[name]
    same = name == "logistic regression"
    with pytest.warns(UserWarning, match=SAME_MODEL) if same else nullcontext():
        fit = Distributional(base, estimator, n_members=2, random_state=0).fit(NET_X, NET_Y)
    for s, each in enumerate(fit.attributors_):
        one = clone(base).set_params(estimator=each.estimator_, random_state=each.random_state).fit(NET_X, NET_Y)
        np.testing.assert_array_equal(-one.scores_, fit.member_scores_[s])
        chances = each.estimator_.predict_proba(NET_X)
        np.testing.assert_allclose(fit.member_values_[s], -np.log(chances[np.arange(40), NET_Y]), rtol=1e-3, atol=1e-6)
    assert np.allclose(*fit.member_scores_) == same
    x, d = fit.attribute_members(NET_X[:3], NET_Y[:3])
    found = fit.attribute(NET_X[:3], NET_Y[:3], measure="variance")
    np.testing.assert_allclose(found, DEFINITIONS["variance"](x[:, :, None], d), rtol=1e-6, atol=1e-12)
    assert fit.n_features_in_ == 3


def test_the_estimator_of_the_base_comes_first():
    base = InnerProduct(make_net(lr=0.2))
    fit = Distributional(base, SMALL, n_members=2, random_state=0).fit(NET_X, NET_Y)
    assert {each.estimator_.estimator.lr for each in fit.attributors_} == {0.2}
    alone = Distributional(n_members=2).fit(NET_X[:20], NET_Y[:20]).attributors_[0]
    assert isinstance(alone, Influence)


def test_names_of_columns_are_kept():
    frame = pd.DataFrame(BLOBS, columns=list("abcd"))
    with pytest.warns(UserWarning, match=SAME_MODEL):
        fit = Distributional(InnerProduct(), LogisticRegression(), n_members=2).fit(frame, LABELS)
    assert fit.feature_names_in_.tolist() == list("abcd")
    assert fit.attribute(frame[:2], LABELS[:2]).shape == (2, 60)


@pytest.mark.parametrize("base", [Influence(damping=0.1), TracIn()], ids=["influence", "tracin"])
def test_a_dataset_of_torch(base):
    data = TensorDataset(torch.from_numpy(NET_X), torch.from_numpy(NET_Y))
    arrays = Distributional(base, SMALL, n_members=2, random_state=0).fit(NET_X, NET_Y)
    fit = Distributional(base, SMALL, n_members=2, random_state=0).fit(data, None)
    np.testing.assert_allclose(fit.member_scores_, arrays.member_scores_, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(fit.member_values_, arrays.member_values_, rtol=1e-4)
    np.testing.assert_allclose(
        fit.attribute(data, None, measure="variance"),
        arrays.attribute(NET_X, NET_Y, measure="variance"),
        rtol=1e-3,
        atol=1e-6,
    )
    given = Distributional(base, SMALL, n_members=2, random_state=0).fit(data, None, X_val=data, y_val=NET_Y)
    assert given.member_values_.shape == (2,)


def test_weights_reach_the_training_and_the_scores():
    weight = np.random.default_rng(0).uniform(0.5, 2.0, 60)
    with pytest.warns(UserWarning, match=SAME_MODEL):
        fit = Distributional(Influence(), LogisticRegression(), n_members=2, random_state=0).fit(BLOBS, LABELS, weight)
    expected = Influence(LogisticRegression()).fit(BLOBS, LABELS, weight)
    np.testing.assert_allclose(fit.scores_, expected.scores_, rtol=1e-9)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [ComplexityGap(), ModelEnsemble(), Distributional(), LogisticRegression(), Influence])
def test_bases_that_differentiate_no_model(base):
    with pytest.raises(
        TypeError, match=r"Distributional repeats a method that differentiates a model, and .* is no such"
    ):
        Distributional(base).fit(BLOBS, LABELS)


FROZEN = FrozenEstimator(LogisticRegression().fit(BLOBS, LABELS))


@pytest.mark.parametrize(
    "given",
    [
        Distributional(estimator=FROZEN),
        Distributional(Influence(FROZEN)),
        Distributional(Influence(make_pipeline(FROZEN))),
    ],
    ids=["estimator", "of the base", "at the end of a pipeline"],
)
def test_a_frozen_estimator_is_not_trained(given):
    with pytest.raises(
        ValueError, match=r"members='seeds' trains the estimator anew .* without Frozen.*members=\[\.\.\.\]"
    ):
        given.fit(BLOBS, LABELS)


@in_turn(
    ("params", "name"),
    [
        ({"n_members": 1}, "n_members"),
        ({"n_members": 2.5}, "n_members"),
        ({"members": FROZEN}, "members"),
        ({"measure": "median"}, "measure"),
        ({"measure": None}, "measure"),
        ({"n_jobs": "all"}, "n_jobs"),
        ({"random_state": "a"}, "random_state"),
    ],
)
def test_parameters_that_are_refused(params, name):
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of Distributional must be"):
        Distributional(**params).fit(BLOBS, LABELS)


@pytest.mark.parametrize("runs", [[], RUNS[:1]], ids=["none", "one"])
def test_too_few_runs_are_given(runs):
    with pytest.raises(ValueError, match=f"members is a list of {len(runs)}, and at least two fitted estimators"):
        Distributional(members=runs).fit(X, Y)


@pytest.mark.parametrize("stranger", [3, make_net(), LogisticRegression()], ids=["3", "net", "model"])
def test_runs_that_are_no_fitted_estimators(stranger):
    with pytest.raises(ValueError, match=r"members\[1\]=\w+ is not a fitted estimator"):
        Distributional(members=[RUNS[0], stranger]).fit(X, Y)


@pytest.mark.parametrize("objective", ["validation", Output(), brier, Weighted([Margin()])])
def test_an_objective_of_validation_rows_without_them(objective):
    with pytest.raises(ValueError, match=r"of Influence needs validation rows.*pass X_val and y_val .in a cleaner"):
        Distributional(Influence(objective=objective), n_members=2).fit(BLOBS, LABELS)


def test_what_the_base_refuses():
    with pytest.raises(ValueError, match="X_val came without y_val"):
        Distributional(EXACT, members=RUNS).fit(X, Y, X_val=XQ)
    with pytest.raises(ValueError, match="objective='self' does not use validation rows"):
        validated(Influence(objective="self"))
    with pytest.raises(ValueError, match="needs metadata of the validation rows that did not come: sensitive_features"):
        validated(Influence(objective=DemographicParity(positive=1)))
    with pytest.raises(ValueError, match="SGDInfluence follows a recorded training run, and this LogisticRegression"):
        Distributional(SGDInfluence(), LogisticRegression()).fit(BLOBS, LABELS)


def test_measures_that_are_refused():
    with pytest.raises(ValueError, match=r"measure='median' is not one of 'mean', 'variance'.*or a function of"):
        FIT.measured("median")
    with pytest.raises(ValueError, match="measure='median' is not one of"):
        FIT.attribute(XQ, YQ, measure="median")
    with pytest.raises(ValueError, match=r"the measure returned shape \(\) for samples \(4, 24\); expected is \(24,\)"):
        FIT.measured(lambda x, y: y.mean())
    with pytest.raises(ValueError, match=r"returned shape \(4, 24\) .* expected is \(24,\)"):
        validated(measure=lambda x, y: y - x)
    with pytest.raises(ValueError, match=r"returned shape \(7,\) for samples \(4, 7, 24\); expected is \(7, 24\)"):
        FIT.attribute(XQ, YQ, measure=lambda x, y: y.mean(axis=(0, 2)))


@in_turn(
    ("groups", "message"),
    [
        (np.ones((2, N - 1), dtype=bool), r"groups is a mask of shape \(2, 23\); expected is \(n_groups, 24\)"),
        (np.ones(N, dtype=bool), r"groups is a mask of shape \(24,\); expected is \(n_groups, 24\)"),
        ([[0], []], r"groups\[1\] must be positions of rows, at least one"),
        ([0, 1], r"groups\[0\] must be positions of rows"),
        ([[0.0, 1.0]], r"groups\[0\] must be positions of rows"),
        ([["a"]], r"groups\[0\] must be positions of rows"),
        ([[0], [N]], r"groups\[1\] has positions outside 0 to 23"),
        ([[-1]], r"groups\[0\] has positions outside 0 to 23"),
        (MASKS.astype(int), r"groups\[0\] holds 0 and 1 for each row, as a mask does; give an array of bool"),
    ],
)
def test_groups_that_are_refused(groups, message):
    for ask in (FIT.measured, lambda groups: FIT.attribute(XQ, YQ, groups=groups)):
        with pytest.raises(ValueError, match=message):
            ask(groups=groups)


def test_groups_have_no_losses_of_their_own():
    with pytest.raises(
        ValueError, match="groups have no loss of their own: fit with X_val and y_val, or use attribute"
    ):
        SELF.measured(groups=MASKS)


def test_before_a_fit():
    for ask in (
        lambda each: each.attribute(XQ, YQ),
        lambda each: each.attribute(XQ, YQ, measure="variance"),
        lambda each: each.attribute_members(XQ, YQ),
        lambda each: each.measured(),
    ):
        with pytest.raises(NotFittedError):
            ask(Distributional(EXACT, members=RUNS))


def test_queries_only():
    fit = Distributional(clone(EXACT).set_params(objective=None), members=RUNS, random_state=0).fit(X, Y)
    for name in ("scores_", "std_error_", "member_scores_", "member_values_", "objectives_"):
        assert not hasattr(fit, name)
    np.testing.assert_array_equal(fit.attribute(XQ, YQ), FIT.attribute(XQ, YQ))
    with pytest.raises(NotFittedError):
        fit.measured()


def test_a_base_without_queries():
    fit = Distributional(MoSo(), members=RUNS, measure="variance", random_state=0).fit(X, Y)
    np.testing.assert_allclose(fit.member_values_, [losses(run, X, Y) for run in RUNS], rtol=1e-9)
    for name in ("attribute", "attribute_members"):
        assert not hasattr(fit, name)
    assert not fit.needs.validation
    assert fit.needs.trajectory
    assert Distributional().needs.validation
    assert not Distributional().needs.trajectory
