"""How a distribution moves: measures of two samples, such as an outcome of training runs with and without a row.

A measure takes x (S, ...) and y (S, ...), samples along the first axis, and returns (...).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import gammaln, log_ndtr

Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]


def mean_shift(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean of y minus mean of x."""
    return y.mean(axis=0) - x.mean(axis=0)


def variance_shift(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Variance of y minus variance of x, both with S - 1 below; of pairs y = x + d this is 2 Cov(x, d) + Var(d)."""
    return y.var(axis=0, ddof=1) - x.var(axis=0, ddof=1)


def wasserstein(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared 2-Wasserstein distance of the two empirical distributions, which may have different sizes.

    Between two samples of one distribution it is not 0; see `wasserstein_floor`.
    """
    x, y = np.sort(x, axis=0), np.sort(y, axis=0)
    if len(x) == len(y):
        return ((y - x) ** 2).mean(axis=0)
    # both quantile functions are steps: constant between neighbouring fractions i / len(x), j / len(y)
    ends = np.union1d(np.arange(1, len(x) + 1) * len(y), np.arange(1, len(y) + 1) * len(x))  # in 1 / (len(x) len(y))
    widths = np.diff(ends, prepend=0) / (len(x) * len(y))
    gaps = y[(ends - 1) // len(x)] - x[(ends - 1) // len(y)]
    return np.einsum("k,k...->...", widths, gaps**2)


def wasserstein_gaussian(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared 2-Wasserstein distance of two normal distributions with the samples' means and standard deviations."""
    return mean_shift(x, y) ** 2 + (y.std(axis=0, ddof=1) - x.std(axis=0, ddof=1)) ** 2


def wasserstein_floor(n_x: int, n_y: int | None = None, *, gaussian: bool = False) -> float:
    """Expected squared 2-Wasserstein distance of two independent samples of one normal distribution of variance 1.

    Times the variance of an outcome, it is what chance alone gives between two sets of runs.

    Parameters
    ----------
    n_x, n_y : int
        Sizes of the samples, at least 2; n_y=None is n_x.
    gaussian : bool, default=False
        Of `wasserstein_gaussian`, in place of `wasserstein`.

    Returns
    -------
    floor : float
        Between 0 and 2.

    Examples
    --------
    >>> from sktda.distributions import wasserstein_floor
    >>> [round(wasserstein_floor(n), 2) for n in (5, 10, 20, 50)]
    [0.72, 0.42, 0.23, 0.1]
    """
    n_y = n_x if n_y is None else n_y
    if min(n_x, n_y) < 2:
        raise ValueError(f"a distribution needs at least two runs, got samples of {n_x} and {n_y}")
    if gaussian:
        a, b = _mean_of_deviation(n_x), _mean_of_deviation(n_y)
        return 1 / n_x + 1 / n_y + 2 - 2 * a * b
    # E (Q_y - Q_x)^2 = E Q_x^2 + E Q_y^2 - 2 E Q_x E Q_y, with the mean of x_(i)^2 being 1
    x, y = _mean_order_statistics(n_x), _mean_order_statistics(n_y)
    steps = np.lcm(n_x, n_y)
    return float(2 - 2 * np.mean(np.repeat(x, steps // n_x) * np.repeat(y, steps // n_y)))


def _mean_of_deviation(n: int) -> float:
    """Mean of the standard deviation (n - 1 below) of n standard normal numbers."""
    return float(np.sqrt(2 / (n - 1)) * np.exp(gammaln(n / 2) - gammaln((n - 1) / 2)))


def _mean_order_statistics(n: int) -> np.ndarray:
    """Means (n,) of n sorted standard normal numbers."""
    at = np.linspace(-9, 9, 2_001)
    i = np.arange(1, n + 1)[:, None]
    log_weight = gammaln(n + 1) - gammaln(i) - gammaln(n - i + 1) - (at**2 + np.log(2 * np.pi)) / 2
    density = np.exp(log_weight + (i - 1) * log_ndtr(at) + (n - i) * log_ndtr(-at))
    return density @ at * (at[1] - at[0])


MEASURES: dict[str, Measure] = {
    "mean": mean_shift,
    "variance": variance_shift,
    "wasserstein": wasserstein,
    "wasserstein_gaussian": wasserstein_gaussian,
}


def resolve_measure(measure: str | Measure) -> Measure:
    """The function that is meant. Raises ValueError for an unknown name."""
    if callable(measure):
        return measure
    if measure not in MEASURES:
        known = ", ".join(map(repr, MEASURES))
        raise ValueError(f"measure={measure!r} is not one of {known}, or a function of (x, y)")
    return MEASURES[measure]


def jackknife(measure: Measure, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Standard error (...) of measure(x, y) for pairs, from leaving out one run at a time.

    x, y (S, ...): y_s belongs to x_s. Of the mean it is the usual standard deviation over the root of S.
    """
    n = len(x)
    if n < 3:
        return np.full(np.broadcast_shapes(x.shape[1:], y.shape[1:]), np.nan)
    others = np.stack([measure(np.delete(x, s, axis=0), np.delete(y, s, axis=0)) for s in range(n)])
    return np.sqrt((n - 1) / n * ((others - others.mean(axis=0)) ** 2).sum(axis=0))
