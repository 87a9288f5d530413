"""RobustResidual: every kind of target with right values, planted wrong ones, closed forms, invariances."""

import functools

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import t as student

from sktda.attribution.features.numeric_target import find_atom, r_squared, transforms
from sktda.attribution.features.residual_mixture import best_fit, log_t, wrong_densities
from sktda.attribution.features.robust_residual import RobustResidual
from tests.in_turn import in_turn

N = 400


def zeros(rng, X, share, amount):
    return np.where(rng.random(len(X)) < share, 0.0, amount)


RIGHT = {  # name: target of X (n, 3) that is right everywhere
    "linear": lambda rng, X: X[:, 0] - 2 * X[:, 1] + 0.5 * rng.normal(size=len(X)),
    "without noise": lambda rng, X: np.sin(X[:, 0]) + X[:, 1] * X[:, 2],
    "lognormal": lambda rng, X: np.exp(8 + 0.8 * X[:, 0] + 0.3 * rng.normal(size=len(X))),
    "wide lognormal": lambda rng, X: np.exp(1.5 * X[:, 0] + 1.2 * rng.normal(size=len(X))),
    "Pareto": lambda rng, X: np.exp(0.5 * X[:, 0]) * (1 + rng.pareto(1.5, size=len(X))),
    "half zeros": lambda rng, X: zeros(rng, X, 0.5, 2000 + 500 * X[:, 0] + 100 * rng.normal(size=len(X))),
    "87 % zeros": lambda rng, X: zeros(rng, X, 0.87, (2000 + 500 * X[:, 0] + 100 * rng.normal(size=len(X))).round()),
    "95 % zeros, skewed": lambda rng, X: zeros(rng, X, 0.95, np.exp(6 + X[:, 0] + 0.8 * rng.normal(size=len(X)))),
    "zeros by features": lambda rng, X: zeros(rng, X, 1 / (1 + np.exp(-3 * X[:, 1])), np.exp(6 + X[:, 0])),
    "rare counts": lambda rng, X: rng.poisson(0.3 * np.exp(0.5 * X[:, 0])),
    "counts": lambda rng, X: rng.poisson(5 * np.exp(0.5 * X[:, 0])),
    "many counts": lambda rng, X: rng.poisson(500 * np.exp(0.5 * X[:, 0])),
    "t with 3 degrees": lambda rng, X: X[:, 0] + 0.5 * rng.standard_t(3, size=len(X)),
    "noise by level": lambda rng, X: (10 + 3 * X[:, 0]) * (1 + 0.3 * rng.normal(size=len(X))),
    "noise by feature": lambda rng, X: X[:, 0] + 0.3 * np.exp(1.2 * X[:, 1]) * rng.normal(size=len(X)),
    "noise by group": lambda rng, X: X[:, 0] + np.where(X[:, 2] > 1, 3, 0.2) * rng.normal(size=len(X)),
    "one-sided noise": lambda rng, X: 2 * X[:, 0] + rng.exponential(size=len(X)),
    "Kelvin": lambda rng, X: 293 + X[:, 0] + 0.5 * rng.normal(size=len(X)),
    "years": lambda rng, X: np.round(2000 + 5 * X[:, 0] + rng.normal(size=len(X))),
    "scores to 100": lambda rng, X: np.clip(70 + 20 * X[:, 0] + 10 * rng.normal(size=len(X)), 0, 100).round(),
    "steps": lambda rng, X: np.array([0.0, 1, 2, 5])[np.digitize(X[:, 0], [-1, 0, 1])],
    "two clusters": lambda rng, X: np.where(X[:, 0] > 1, 1000.0, 0) + rng.normal(size=len(X)),
    "grades": lambda rng, X: np.clip(np.round(5.5 + 0.6 * X[:, 0] + 0.6 * rng.normal(size=len(X))), 3, 8),
    "gains and losses": lambda rng, X: 100 * np.sinh(1.5 * X[:, 0] + rng.normal(size=len(X))),
    "constant but for few": lambda rng, X: np.where(np.arange(len(X)) < 5, 10 * rng.normal(size=len(X)), 3.0),
    "pure noise": lambda rng, X: rng.normal(size=len(X)),
    "skewed noise": lambda rng, X: np.exp(2 * rng.normal(size=len(X))),
}


def made(name, n=N, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    return X, np.asarray(RIGHT[name](rng, X), dtype=float)


def few():
    """With the fewest trees, which are the noisiest: what they leave alone, more of them do."""
    return RobustResidual(n_estimators=50)


@functools.cache
def of(name):
    """Fitted once for all tests that only read it."""
    return few().fit(*made(name))


# ---- right values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RIGHT)
def test_right_values_are_left_alone(name):
    (_, y), residual = made(name), of(name)
    assert residual.outlier_rate_ <= 0.02
    assert residual.outlier_rate_interval_[0] <= residual.outlier_rate_ <= residual.outlier_rate_interval_[1]
    for values in (residual.scores_, residual.residuals_, residual.loo_decision_, residual.suggested_values_):
        assert values.shape == (N,)
        assert np.isfinite(values).all()
    assert y.min() <= residual.loo_decision_.min()
    assert residual.loo_decision_.max() <= y.max()


@in_turn(
    ("name", "transform"),
    [
        ("linear", "identity"),
        ("Kelvin", "identity"),
        ("t with 3 degrees", "identity"),
        ("lognormal", "logarithm"),
        ("wide lognormal", "logarithm"),
        ("counts", "square root"),
        ("gains and losses", "signed logarithm"),
        ("87 % zeros", "identity"),
        ("95 % zeros, skewed", "logarithm"),
    ],
)
def test_the_transform_is_the_one_that_made_the_target(name, transform):
    assert of(name).transform_ == transform


@pytest.mark.parametrize("name", ["pure noise", "skewed noise", "constant but for few"])
def test_noise_is_not_predictable(name):
    residual = of(name)
    assert residual.predictability_ <= 2 * residual.predictability_error_


@in_turn("name", ["linear", "lognormal", "87 % zeros", "zeros by features", "counts", "scores to 100"])
def test_what_features_say_is_predictable(name):
    residual = of(name)
    assert residual.predictability_ > 5 * residual.predictability_error_ > 0


def test_whether_a_row_is_the_atom_can_be_all_that_is_predictable():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 3))
    y = np.where(X[:, 1] > 0, 0.0, rng.normal(size=N))
    residual = few().fit(X, y)
    assert residual.predictability_ > 0.5
    assert np.mean((residual.loo_decision_ == 0) == (y == 0)) > 0.9


# ---- wrong values ---------------------------------------------------------------------------------------------------

WRONG = {
    "ten times": lambda rng, y, rows: 10 * y[rows],
    "a tenth": lambda rng, y, rows: 0.1 * y[rows],
    "sign": lambda rng, y, rows: -y[rows],
    "absurd": lambda rng, y, rows: 1e9 * rng.uniform(0.5, 2, size=len(rows)),
    "one row's for another": lambda rng, y, rows: np.roll(y[rows], 1),
}


@pytest.mark.parametrize(
    ("name", "kind", "share"),
    [*(("Kelvin", kind, 0.15) for kind in WRONG if kind != "absurd")]
    + [*(("lognormal", kind, 0.15) for kind in WRONG if kind != "one row's for another")]
    + [("Kelvin", "one row's for another", 0.05), ("lognormal", "a tenth", 0.05), ("lognormal", "absurd", 0.05)],
)
def test_planted_values_have_the_lowest_scores(name, kind, share):
    rng = np.random.default_rng(1)
    X, y = made(name)
    rows = rng.permutation(N)[: round(share * N)]
    given = y.copy()
    given[rows] = WRONG[kind](rng, y, rows)
    residual = few().fit(X, given)
    worst = residual.scores_.argsort()[: len(rows)]
    hit = np.isin(worst, rows).mean()
    if kind == "one row's for another":  # many of them are much alike
        assert hit > (5 if share < 0.1 else 3) * share
        assert residual.outlier_rate_ <= share
        return
    assert hit >= 0.85
    assert residual.outlier_rate_ <= share + 0.03
    assert residual.outlier_rate_interval_[0] - 0.03 <= share <= residual.outlier_rate_interval_[1]
    assert np.abs(np.log(residual.suggested_values_[rows] / y[rows])).max() < 2
    assert residual.loo_decision_.max() <= y.max()
    if name == "Kelvin" or kind in ("absurd", "ten times", "sign"):
        assert residual.outlier_rate_ == pytest.approx(share, abs=0.03)


@functools.cache
def without_row_17():
    X, y = made("linear")
    return RobustResidual().fit(np.delete(X, 17, axis=0), 40_000 + 9_000 * np.delete(y, 17)).loo_decision_


@pytest.mark.parametrize("absurd", [1e5, 1e11, -1e11, 1e300])
def test_one_absurd_value_is_found_and_moves_nothing(absurd):
    X, y = made("linear")
    given = 40_000 + 9_000 * y
    given[17] = absurd
    residual = RobustResidual().fit(X, given)
    assert residual.scores_.argmin() == 17
    assert residual.outlier_rate_ == 1 / N
    assert residual.wrong_probability_[17] > 0.9
    shift = np.delete(residual.loo_decision_, 17) - without_row_17()
    assert np.abs(shift).mean() < 0.1 * np.delete(given, 17).std()


def test_an_absurd_amount_among_zeros_is_told_to_be_an_amount():
    X, y = made("87 % zeros")
    row = np.flatnonzero(y)[3]
    y[row] *= 100
    residual = few().fit(X, y)
    assert residual.atom_ == 0
    assert residual.scores_.argmin() == row
    assert residual.loo_decision_[row] == 0  # the likeliest
    assert 500 < residual.suggested_values_[row] < 4000  # given that there is an amount
    assert residual.outlier_rate_ == 1 / N


def test_zeros_where_the_features_rule_them_out_rank_low():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 3))
    y = np.where(X[:, 1] > 0, 0.0, 100 + 10 * X[:, 0] + rng.normal(size=N))
    rows = np.flatnonzero(X[:, 1] < -0.5)[:5]
    y[rows] = 0
    residual = few().fit(X, y)
    assert np.isin(rows, residual.scores_.argsort()[:60]).all()
    assert (residual.residuals_[rows] < 0).all()
    assert (residual.suggested_values_[rows] > 50).all()


# ---- invariances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unit"),  # every transform in a larger unit, and one of them in a smaller
    [*((name, 1e-6) for name in ("linear", "lognormal", "87 % zeros", "gains and losses", "counts"))]
    + [("lognormal", 1024.0)],
)
def test_units_of_the_target_do_not_matter(name, unit):
    X, y = made(name)
    base, other = of(name), few().fit(X, unit * y)
    assert other.transform_ == base.transform_
    np.testing.assert_allclose(other.scores_, base.scores_, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(other.loo_decision_, unit * base.loo_decision_, rtol=1e-3, atol=1e-3 * unit * y.std())


def test_offset_of_a_target_on_its_own_scale_does_not_matter():
    X, y = made("linear")
    base, other = of("linear"), few().fit(X, y + 1000)
    assert base.transform_ == other.transform_ == "identity"
    assert np.corrcoef(other.residuals_, base.residuals_)[0, 1] > 0.98  # the forest's splits weigh all transforms


@pytest.mark.parametrize("name", ["lognormal", "87 % zeros"])
def test_order_of_the_rows_and_units_of_the_features_do_not_matter(name):
    X, y = made(name)
    order = np.random.default_rng(0).permutation(N)
    base = of(name)
    for other in (few().fit(X[order], y[order]), few().fit(4096 * X[order] - 8192, y[order])):
        np.testing.assert_allclose(other.scores_, base.scores_[order], rtol=1e-5, atol=1e-5)
        assert other.outlier_rate_ == base.outlier_rate_


def test_container_and_shape_of_the_features_do_not_matter_and_sparse_rows_are_taken():
    X, y = made("lognormal", n=200)
    base = few().fit(X, y)
    np.testing.assert_allclose(few().fit(X.reshape(200, 3, 1), y).residuals_, base.residuals_, rtol=1e-9)
    sparse = few().fit(sp.csr_matrix(np.maximum(X, 0)), y)
    assert np.isfinite(sparse.scores_).all()
    assert sparse.n_features_in_ == 3


def test_seed():
    X, y = made("lognormal", n=200)
    base = few().fit(X, y)
    assert (few().set_params(random_state=0).fit(X, y).scores_ == base.scores_).all()
    assert (few().set_params(random_state=1).fit(X, y).scores_ != base.scores_).any()


# ---- edges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 19, 20, 25])
@pytest.mark.parametrize("target", ["equal", "two values", "normal"])
def test_few_rows_and_few_values(n, target):
    rng = np.random.default_rng(0)
    y = {"equal": np.full(n, 2.0), "two values": np.arange(n) % 2.0, "normal": rng.normal(size=n)}[target]
    residual = few().fit(rng.normal(size=(n, 2)), y)
    assert np.isfinite(residual.scores_).all()
    assert residual.outlier_rate_ == 0
    assert y.min() <= residual.loo_decision_.min() <= residual.loo_decision_.max() <= y.max()


def test_features_that_say_nothing_at_all():
    _, y = made("linear")
    residual = few().fit(np.ones((N, 2)), y)
    assert residual.outlier_rate_ == 0
    assert residual.predictability_ <= 2 * residual.predictability_error_


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_missing_and_infinite_numbers_are_named(bad):
    X, y = made("linear", n=30)
    X[4, 1] = bad
    with pytest.raises(ValueError, match="column 1 has 1 values that are NaN or inf, the first in row 4"):
        few().fit(X, y)
    X, y = made("linear", n=30)
    y[3] = bad
    with pytest.raises(ValueError, match="Input y contains"):
        few().fit(X, y)


def test_texts_are_no_numbers():
    X, y = made("linear", n=30)
    with pytest.raises(ValueError, match="regression needs numbers as target"):
        few().fit(X, y.astype(str))


# ---- parts ----------------------------------------------------------------------------------------------------------


@in_turn(
    ("y", "atom"),
    [
        (np.r_[np.zeros(60), np.arange(1.0, 41)], 0.0),
        (np.r_[np.zeros(11), np.arange(1.0, 90)], 0.0),  # a tenth, ten times as many as any other
        (np.r_[np.full(51, 3.0), np.full(49, 4.0)], 3.0),
        (np.r_[np.full(43, 5.0), np.full(40, 6.0), np.full(17, 7.0)], None),
        (np.r_[np.zeros(9), np.arange(1.0, 92)], None),
        (np.full(10, 2.0), None),
        (np.arange(10.0), None),
    ],
)
def test_atoms(y, atom):
    assert find_atom(y) == atom


def test_slopes_and_inverses_of_the_transforms():
    y = np.geomspace(0.5, 2e4, 50)
    found = transforms(y)
    assert [each.name for each in found] == ["identity", "square root", "logarithm", "signed logarithm"]
    for each in found:
        np.testing.assert_allclose(each.back(each.to(y)), y, rtol=1e-9)
        slope = (each.to(y * (1 + 1e-6)) - each.to(y * (1 - 1e-6))) / (2e-6 * y)
        np.testing.assert_allclose(each.log_slope(y), np.log(slope), atol=1e-5)
        wide = np.r_[-1e12, -5.0, 0.0, 0.1, y, 1e12]  # absurd values are transformed too
        assert (np.diff(each.to(wide)) > 0).all()
    assert [each.name for each in transforms(y - 1)] == ["identity", "signed logarithm"]


def test_density_of_student():
    x = np.linspace(-8, 8, 17)
    np.testing.assert_allclose(log_t(x, 3.0, 2.0), student(3, scale=2).logpdf(x), rtol=1e-12)


def test_mixture_recovers_share_and_scale():
    rng = np.random.default_rng(0)
    z = rng.normal(size=5000)
    residual = np.where(rng.random(5000) < 0.1, z, 0.05 * rng.normal(size=5000))
    fitted = best_fit(residual, wrong_densities(z, 0.0, 1.0), 1.0, 1e-3)
    assert fitted.share == pytest.approx(0.1, abs=0.02)
    assert fitted.scale == pytest.approx(0.05, rel=0.05)


def test_r_squared_and_its_error():
    rng = np.random.default_rng(0)
    values = [r_squared(0.5 * rng.normal(size=300), rng.normal(size=300)) for _ in range(300)]
    estimates, errors = np.transpose(values)
    assert estimates.mean() == pytest.approx(0.75, abs=0.01)
    assert errors.mean() == pytest.approx(estimates.std(), rel=0.15)
    assert r_squared(np.zeros(3), np.zeros(3)) == (0.0, 0.0)
