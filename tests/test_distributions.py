"""Measures of two samples: definitions, SciPy, linear programming, invariances; what chance gives, by Monte Carlo."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import wasserstein_distance

from sktda.distributions import (
    MEASURES,
    jackknife,
    mean_shift,
    resolve_measure,
    variance_shift,
    wasserstein,
    wasserstein_floor,
    wasserstein_gaussian,
)
from tests.in_turn import in_turn

DISTANCES = [wasserstein, wasserstein_gaussian]
SIZES = [(5, 5), (10, 20), (20, 20)]


def samples(n_x, n_y=None, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_x, *shape)), 0.7 + 1.5 * rng.normal(size=(n_y or n_x, *shape))


# ---- definitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_x", "n_y"), SIZES)
def test_moments_by_hand(n_x, n_y):
    x, y = samples(n_x, n_y, 3)
    for j in range(3):
        mean_x, mean_y = sum(x[:, j]) / n_x, sum(y[:, j]) / n_y
        var_x = sum((value - mean_x) ** 2 for value in x[:, j]) / (n_x - 1)
        var_y = sum((value - mean_y) ** 2 for value in y[:, j]) / (n_y - 1)
        assert mean_shift(x, y)[j] == pytest.approx(mean_y - mean_x, abs=1e-12)
        assert variance_shift(x, y)[j] == pytest.approx(var_y - var_x, abs=1e-12)
        expected = (mean_y - mean_x) ** 2 + (var_y**0.5 - var_x**0.5) ** 2
        assert wasserstein_gaussian(x, y)[j] == pytest.approx(expected, abs=1e-12)


def test_variance_shift_of_pairs_is_twice_the_covariance_plus_the_variance_in_exact_arithmetic():
    rng = np.random.default_rng(0)
    x, d = ([Fraction(int(number), 7) for number in rng.integers(-50, 50, 6)] for _ in range(2))
    mean_x, mean_d = sum(x) / 6, sum(d) / 6
    covariance = sum((a - mean_x) * (b - mean_d) for a, b in zip(x, d, strict=True)) / 5
    variance = sum((b - mean_d) ** 2 for b in d) / 5
    x, d = np.array(x, dtype=object), np.array(d, dtype=object)
    found = variance_shift(x, x + d)
    assert isinstance(found, Fraction)
    assert found == 2 * covariance + variance
    assert covariance != 0


def transport(x, y):
    """Least cost of moving the mass of x to that of y, squared distances: a linear programme."""
    n_x, n_y = len(x), len(y)
    rows = [np.kron(np.eye(n_x)[i], np.ones(n_y)) for i in range(n_x)]
    columns = [np.kron(np.ones(n_x), np.eye(n_y)[j]) for j in range(n_y)]
    masses = [1 / n_x] * n_x + [1 / n_y] * n_y
    cost = (x[:, None] - y[None]) ** 2
    return linprog(cost.ravel(), A_eq=np.array(rows + columns), b_eq=masses).fun


@pytest.mark.parametrize(("n_x", "n_y"), [(2, 2), (5, 5), (2, 3), (4, 6), (6, 4), (7, 5), (1, 4), (3, 12)])
@pytest.mark.parametrize("ties", [False, True], ids=["", "ties"])
def test_wasserstein_is_the_cost_of_optimal_transport(n_x, n_y, ties):
    x, y = samples(n_x, n_y, seed=n_x + n_y)
    if ties:
        x, y = x.round(), y.round()
    assert wasserstein(x, y) == pytest.approx(transport(x, y), abs=1e-9)


@pytest.mark.parametrize(("n_x", "n_y"), [(10, 20), (20, 10), (9, 12), (13, 8)])
def test_wasserstein_of_unequal_sizes_on_a_fine_grid_of_quantiles(n_x, n_y):
    x, y = samples(n_x, n_y)
    u = (np.arange(n_x * n_y * 10) + 0.5) / (n_x * n_y * 10)  # no step of either quantile function lies inside a cell
    x_at, y_at = (np.quantile(sample, u, method="inverted_cdf") for sample in (x, y))
    assert wasserstein(x, y) == pytest.approx(((x_at - y_at) ** 2).mean(), rel=1e-10)


@pytest.mark.parametrize(("n_x", "n_y"), SIZES)
def test_wasserstein_is_not_below_the_square_of_that_of_order_one(n_x, n_y):
    x, y = samples(n_x, n_y)
    assert wasserstein(x, y) >= wasserstein_distance(x, y) ** 2
    constant = np.full(n_x, 2.0), np.full(n_y, 5.0)
    assert wasserstein(*constant) == pytest.approx(wasserstein_distance(*constant) ** 2) == pytest.approx(9.0)


def test_wasserstein_of_many_normal_numbers_is_the_gaussian_formula():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=200_000), 0.5 + 2 * rng.normal(size=100_000)
    assert wasserstein(x, y) == pytest.approx(0.5**2 + 1, rel=0.02)
    assert wasserstein_gaussian(x, y) == pytest.approx(0.5**2 + 1, rel=0.02)


# ---- invariances -----------------------------------------------------------------------------------------------------


@in_turn("measure", MEASURES.values())
@in_turn(("n_x", "n_y"), SIZES)
def test_the_order_of_samples_does_not_matter(measure, n_x, n_y):
    x, y = samples(n_x, n_y, 4)
    rng = np.random.default_rng(1)
    found = measure(rng.permutation(x, axis=0), rng.permutation(y, axis=0))
    np.testing.assert_allclose(found, measure(x, y), rtol=1e-12, atol=1e-12)


@in_turn("measure", MEASURES.values())
@in_turn(("n_x", "n_y"), SIZES)
def test_moving_both_samples_changes_nothing_and_scaling_them_scales(measure, n_x, n_y):
    x, y = samples(n_x, n_y, 4)
    power = 1 if measure is mean_shift else 2
    np.testing.assert_allclose(measure(x + 3, y + 3), measure(x, y), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(measure(5 * x, 5 * y), 5**power * measure(x, y), rtol=1e-12, atol=1e-12)


@in_turn("measure", DISTANCES)
@in_turn(("n_x", "n_y"), SIZES)
def test_distances_are_symmetric_and_that_to_a_moved_copy_is_the_square_of_the_move(measure, n_x, n_y):
    x, y = samples(n_x, n_y, 4)
    np.testing.assert_allclose(measure(x, y), measure(y, x), rtol=1e-12)
    np.testing.assert_allclose(measure(x, x), 0, atol=1e-30)
    np.testing.assert_allclose(measure(x, x - 3), 9, rtol=1e-12)
    assert (measure(x, y) > 0).all()


@pytest.mark.parametrize(("x_times", "y_times"), [(1, 3), (2, 3), (4, 4)])
def test_repeated_samples_are_the_same_distribution(x_times, y_times):
    x, y = samples(6, 6, 2)
    found = wasserstein(np.repeat(x, x_times, axis=0), np.repeat(y, y_times, axis=0))
    np.testing.assert_allclose(found, wasserstein(x, y), rtol=1e-12)


@in_turn("measure", MEASURES.values())
@in_turn(("n_x", "n_y"), SIZES)
def test_each_column_is_measured_by_itself(measure, n_x, n_y):
    x, y = samples(n_x, n_y, 2, 3)
    before = x.copy(), y.copy()
    found = measure(x, y)
    assert found.shape == (2, 3)
    for a in range(2):
        for b in range(3):
            assert found[a, b] == pytest.approx(measure(x[:, a, b], y[:, a, b]), abs=1e-12)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


# ---- what chance alone gives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("gaussian", [False, True], ids=["empirical", "gaussian"])
@pytest.mark.parametrize(("n_x", "n_y"), [*SIZES, (2, 2), (2, 9)])
def test_floor_by_monte_carlo(n_x, n_y, gaussian):
    rng = np.random.default_rng(n_x + n_y)
    x, y = rng.normal(size=(n_x, 40_000)), rng.normal(size=(n_y, 40_000))
    found = (wasserstein_gaussian if gaussian else wasserstein)(x, y)
    error = found.std() / len(found) ** 0.5
    assert abs(found.mean() - wasserstein_floor(n_x, n_y, gaussian=gaussian)) < 4.5 * error
    assert error < 0.02 * found.mean()  # the test is not empty


@pytest.mark.parametrize("gaussian", [False, True], ids=["empirical", "gaussian"])
def test_floor_falls_with_the_sizes_and_does_not_know_which_is_which(gaussian):
    found = [wasserstein_floor(n, gaussian=gaussian) for n in (2, 3, 5, 10, 20, 50, 200, 1000)]
    assert found[0] < 2
    assert (np.diff(found) < 0).all()
    assert 0 < found[-1] < 0.01
    assert wasserstein_floor(7, 12, gaussian=gaussian) == pytest.approx(wasserstein_floor(12, 7, gaussian=gaussian))
    assert wasserstein_floor(7, gaussian=gaussian) == wasserstein_floor(7, 7, gaussian=gaussian)
    assert wasserstein_floor(20, gaussian=gaussian) < wasserstein_floor(10, 20, gaussian=gaussian)


def test_floor_of_two_runs_in_closed_form():
    # sorted pairs have means -+1 / sqrt(pi), and the deviation of two numbers has mean sqrt(2 / pi)
    assert wasserstein_floor(2) == pytest.approx(2 - 2 / np.pi, abs=1e-10)
    assert wasserstein_floor(2, gaussian=True) == pytest.approx(1 + 2 - 2 * 2 / np.pi, abs=1e-12)


@pytest.mark.parametrize("sizes", [(1,), (0,), (5, 1), (1, 5)])
@pytest.mark.parametrize("gaussian", [False, True])
def test_floor_needs_two_runs(sizes, gaussian):
    with pytest.raises(ValueError, match="at least two runs"):
        wasserstein_floor(*sizes, gaussian=gaussian)


# ---- names and errors of runs ----------------------------------------------------------------------------------------


def test_measures_by_name_and_as_functions():
    assert resolve_measure("mean") is mean_shift
    assert resolve_measure("variance") is variance_shift
    assert resolve_measure("wasserstein") is wasserstein
    assert resolve_measure("wasserstein_gaussian") is wasserstein_gaussian
    assert resolve_measure(transport) is transport
    with pytest.raises(ValueError, match=r"'median' is not one of 'mean', .*'wasserstein_gaussian', or a function"):
        resolve_measure("median")


@pytest.mark.parametrize("n", [3, 10, 50])
def test_jackknife_of_the_mean_is_the_deviation_over_the_root(n):
    x, d = samples(n, None, 4)
    expected = d.std(axis=0, ddof=1) / n**0.5
    np.testing.assert_allclose(jackknife(mean_shift, x, x + d), expected, rtol=1e-10)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_jackknife_leaves_out_one_pair_at_a_time(measure):
    x, d = samples(6, None, 3)
    y = x + d
    others = [measure(x[np.arange(6) != s], y[np.arange(6) != s]) for s in range(6)]
    expected = np.sqrt(5 / 6 * sum((each - sum(others) / 6) ** 2 for each in others))
    found = jackknife(measure, x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(jackknife(measure, x[::-1], y[::-1]), found, rtol=1e-9)
    assert jackknife(measure, x[:, 0], y[:, 0]) == pytest.approx(found[0])


def test_jackknife_is_the_spread_over_sets_of_runs():
    x, d = samples(40, None, 4000)
    y = x + 0.3 * d
    for measure in (mean_shift, variance_shift, wasserstein_gaussian):
        errors = jackknife(measure, x, y)
        assert np.sqrt((errors**2).mean()) == pytest.approx(measure(x, y).std(), rel=0.15)


@pytest.mark.parametrize("n", [1, 2])
def test_jackknife_of_too_few_runs_is_nan(n):
    x, d = samples(n, None, 3)
    assert np.isnan(jackknife(wasserstein, x, x + d)).all()
    assert jackknife(mean_shift, x, x + d).shape == (3,)
    assert jackknife(mean_shift, x[:, :1], x + d).shape == (3,)  # one x for all columns
    assert jackknife(mean_shift, x[:, 0], d[:, 0]).shape == ()
