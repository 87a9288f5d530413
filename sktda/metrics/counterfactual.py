"""Attributions beside models that were trained anew: how well they predict what a change of the rows does."""

from __future__ import annotations

import numpy as np

from sktda.distributions import Measure, resolve_measure, wasserstein, wasserstein_floor, wasserstein_gaussian
from sktda.metrics.statistics import finite, pearson, spearman, varies

SPLITS = 50  # of the retrains into halves; the ceiling then moves by about .002 with the draw, where there are 5


def linear_datamodeling_score(values: np.ndarray, kept: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Rank correlation over subsets of what the values predict and what retrained models say, for every query.

    Parameters
    ----------
    values : ndarray of shape (n_query, n_train)
        Predicted rise of each query's loss when one row is removed.
    kept : ndarray of bool, shape (n_subsets, n_train)
        Rows that each retrained model saw. The sum over the other rows predicts its losses.
    measured : ndarray of shape (n_subsets, n_query) or (n_subsets, n_retrains, n_query)
        Loss of each query in the retrained models, lower = better; minus the margin, if the values are of a margin.
        The retrains of a subset are averaged.

    Returns
    -------
    scores : ndarray of shape (n_query,)
        In [-1, 1], 0 where the prediction or the loss is the same for all subsets. Their mean is the LDS.

    Raises
    ------
    ValueError
        For shapes that do not match, fewer than 3 subsets, numbers that are not finite.

    Notes
    -----
    Source: Park et al. 2023 (TRAK, arXiv:2303.14186), definition 2.3.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.metrics import linear_datamodeling_score
    >>> values = np.array([[0.3, 0.1, 0.2]])  # of one query
    >>> kept = np.array([[True, False, True], [True, True, False], [False, True, True]])
    >>> linear_datamodeling_score(values, kept, measured=np.array([[1.1], [1.2], [1.3]]))
    array([1.])
    """
    values, kept, measured = finite("values", values), np.asarray(kept, dtype=bool), finite("measured", measured)
    if measured.ndim == 3:
        measured = measured.mean(axis=1)
    if values.ndim != 2 or kept.shape[1:] != values.shape[1:] or measured.shape != (len(kept), len(values)):
        raise ValueError(
            f"got values {values.shape}, kept {kept.shape} and measured {measured.shape} (retrains averaged); expected "
            "(n_query, n_train), (n_subsets, n_train) and (n_subsets, n_query)"
        )
    if len(kept) < 3:
        raise ValueError(f"{len(kept)} subsets give no rank correlation; retrain on at least 3, better 50")
    # a value is the rise on removal, so the rows that were left out are summed; both sides higher = worse
    return spearman(sums_of_removed(values, kept), measured)


def sums_of_removed(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(n_subsets, n_query) sums of the values over the rows left out; those that only rounding tells apart are equal.

    Equal values, such as one for each row of a class, add up to other last digits in another order: ranks would see it.
    """
    sums = (~kept).astype(float) @ values.T
    digit = np.abs(values).sum(axis=1) * 1e-13  # some hundreds of roundings of the largest sum
    return np.where(digit > 0, np.round(sums / np.where(digit > 0, digit, 1.0)) * digit, sums)


def distributional_lds(
    values: np.ndarray,
    shifts: np.ndarray,
    kept: np.ndarray,
    measured: np.ndarray,
    full: np.ndarray | None = None,
    *,
    measure: str | Measure = "variance",
    floor: bool = True,
) -> np.ndarray:
    """Rank correlation over subsets of how a distribution over training runs is predicted to move, and how it moved.

    Parameters
    ----------
    values : ndarray of shape (n_members, n_query)
        Loss of each query, or what else is measured of it, in each member, trained on all rows.
    shifts : ndarray of shape (n_members, n_query, n_train)
        Predicted rise of it in that member when one row is removed. The sum over the rows that a subset leaves out is
        added to `values`: the predicted distribution.
    kept : ndarray of bool, shape (n_subsets, n_train)
        Rows that each retrained model saw.
    measured : ndarray of shape (n_subsets, n_retrains, n_query)
        The same of each query in the retrained models; at least 2 retrains.
    full : ndarray of shape (n_models, n_query), default=None
        The same in models retrained on all rows; None = `values`.
    measure : {"mean", "variance", "wasserstein", "wasserstein_gaussian"} or callable, default="variance"
        As of `sktda.attribution.Distributional`.
    floor : bool, default=True
        Subtract from a Wasserstein distance of retrained models what chance alone gives between sets of runs of these
        sizes (`sktda.distributions.wasserstein_floor`, at the variances found).

    Returns
    -------
    scores : ndarray of shape (n_query,)
        In [-1, 1], 0 where the prediction or the truth is the same for all subsets.

    Raises
    ------
    ValueError
        For shapes that do not match, fewer than 3 subsets or 2 runs or retrains, numbers that are not finite.

    Notes
    -----
    The predicted distance compares every run with itself and has no floor. The true one is right on average once it is
    subtracted; for few retrains its own noise can cost more rank correlation than it brings. Source: arXiv:2506.12965,
    the distributional LDS.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.metrics import distributional_lds
    >>> rng = np.random.default_rng(0)
    >>> values, shifts = rng.normal(size=(20, 1)), rng.normal(size=(20, 1, 30))
    >>> kept = rng.random((50, 30)) < 0.5
    >>> truth = values[None] + np.einsum("sqn,mn->msq", shifts, ~kept)  # had the runs moved as predicted
    >>> distributional_lds(values, shifts, kept, truth, measure="variance")
    array([1.])
    """
    values, shifts, measured = finite("values", values), finite("shifts", shifts), finite("measured", measured)
    kept, full = np.asarray(kept, dtype=bool), values if full is None else finite("full", full)
    n_subsets, n_train = kept.shape if kept.ndim == 2 else (0, 0)
    expected = (*values.shape, n_train), (n_subsets, measured.shape[1] if measured.ndim == 3 else 0, *values.shape[1:])
    if values.ndim != 2 or (shifts.shape, measured.shape) != expected or full.shape[1:] != values.shape[1:]:
        raise ValueError(
            f"got values {values.shape}, shifts {shifts.shape}, kept {kept.shape}, measured {measured.shape} and full "
            f"{full.shape}; expected (n_members, n_query), (n_members, n_query, n_train), (n_subsets, n_train), "
            "(n_subsets, n_retrains, n_query) and (n_models, n_query)"
        )
    if n_subsets < 3 or min(len(values), len(full), measured.shape[1]) < 2:
        raise ValueError(
            f"{n_subsets} subsets, {len(values)} runs, {len(full)} models on all rows and {measured.shape[1]} retrains "
            "of each subset; needed are at least 3 subsets and 2 of the others"
        )
    function = resolve_measure(measure)
    return spearman(predicted_moves(function, values, shifts, ~kept), measured_moves(function, full, measured, floor))


def predicted_moves(measure: Measure, values: np.ndarray, shifts: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """(n_subsets, n_query) of the measure, with shifts summed over the rows that are removed (n_subsets, n_train)."""
    # (subsets, members, queries); a set's shift is the sum of its rows', to first order
    moved = np.einsum("sqn,mn->msq", shifts, removed.astype(float), optimize=True)
    return np.stack([measure(values, values + each) for each in moved])


def measured_moves(measure: Measure, full: np.ndarray, measured: np.ndarray, floor: bool = True) -> np.ndarray:
    """(n_subsets, n_query) of the measure between models on all rows and those of each subset, less what is chance."""
    return np.stack([measure(full, each) - floor * chance(measure, full, each) for each in measured])


def chance(measure: Measure, x: np.ndarray, y: np.ndarray) -> np.ndarray | float:
    """What a Wasserstein distance of samples x and y would be, were they of one distribution; 0 for other measures."""
    # of these measures, only a distance is above 0 by chance alone, as it is never below
    if measure not in (wasserstein, wasserstein_gaussian):
        return 0.0
    floor = wasserstein_floor(len(x), len(y), gaussian=measure is wasserstein_gaussian)
    # of one distribution, whose variance either sample estimates
    return floor * (x.var(axis=0, ddof=1) + y.var(axis=0, ddof=1)) / 2


def noise_ceiling(measured: np.ndarray) -> float:
    """LDS that a perfect prediction would reach: less than 1, because retraining on one subset varies.

    It is the square root of the reliability of the mean over retrains: the retrains are split at random into two equal
    parts (of an odd number one stays out), the rank correlation of the parts' means is averaged over queries and
    splits, and the Spearman-Brown formula takes it from that length to all retrains.

    Parameters
    ----------
    measured : ndarray of shape (n_subsets, n_retrains, n_query)
        As in `linear_datamodeling_score`, with at least 2 retrains.

    Returns
    -------
    ceiling : float
        In [0, 1].

    Raises
    ------
    ValueError
        For another shape, fewer than 2 retrains or 3 subsets, numbers that are not finite.

    Notes
    -----
    An estimate, and of few retrains rather too high: where the noise has heavy tails, as losses do, the ranks of means
    gain less from further retrains than the formula says.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.metrics import noise_ceiling
    >>> rng = np.random.default_rng(0)
    >>> losses = rng.normal(size=(200, 1, 20)) + rng.normal(size=(200, 4, 20))  # reliability 1 / (1 + 1/4), root .894
    >>> round(noise_ceiling(losses), 2)
    0.89
    """
    measured = finite("measured", measured)
    if measured.ndim != 3 or measured.shape[0] < 3 or measured.shape[1] < 2:
        raise ValueError(
            f"measured has shape {measured.shape}; expected is (n_subsets, n_retrains, n_query) with at least 3 "
            "subsets and 2 retrains of each"
        )
    rng = np.random.default_rng(0)
    n = measured.shape[1]
    half = n // 2
    found = []
    for _ in range(SPLITS):
        order = rng.permutation(n)
        # two means of half the retrains each: they agree as far as the subset, and not the seed, decides
        parts = (measured[:, order[:half]].mean(axis=1), measured[:, order[half : 2 * half]].mean(axis=1))
        found.append(spearman(*parts).mean())
    r, length = max(np.mean(found), 0.0), n / half  # by chance below 0, where retrains agree in nothing
    # Spearman-Brown: r of half a test is k r / (1 + (k - 1) r) of k times its length; a perfect prediction
    # meets only the true part of what was measured, hence the root
    return float(np.sqrt(length * r / (1 + (length - 1) * r)))


def leave_one_out_correlation(values: np.ndarray, retrained: np.ndarray, full: np.ndarray) -> dict[str, np.ndarray]:
    """Agreement of the values of some rows with retraining without each of them, for every query.

    Parameters
    ----------
    values : ndarray of shape (n_query, n_rows)
        Of the rows that were left out: predicted rise of each query's loss.
    retrained : ndarray of shape (n_rows, n_query)
        Loss of each query in the model trained without that row.
    full : ndarray of shape (n_query,)
        Loss of each query in the model of all rows.

    Returns
    -------
    agreement : dict
        Three arrays of shape (n_query,): "pearson" and "spearman", in [-1, 1], and "slope" of the least-squares line
        of the true rise on the predicted one (1 = the scale is right). All are 0 where the values do not vary.

    Raises
    ------
    ValueError
        For shapes that do not match, fewer than 3 rows, numbers that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.metrics import leave_one_out_correlation
    >>> values = np.array([[0.1, 0.2, -0.1]])
    >>> retrained = np.array([[1.2], [1.4], [0.8]])  # without the first, second, third row
    >>> leave_one_out_correlation(values, retrained, full=np.array([1.0]))["slope"].round(6)
    array([2.])
    """
    predicted, retrained, full = finite("values", values).T, finite("retrained", retrained), finite("full", full)
    if predicted.ndim != 2 or retrained.shape != predicted.shape or full.shape != predicted.shape[1:]:
        raise ValueError(
            f"got values {predicted.T.shape}, retrained {retrained.shape} and full {full.shape}; expected "
            "(n_query, n_rows), (n_rows, n_query) and (n_query,)"
        )
    if len(predicted) < 3:
        raise ValueError(f"{len(predicted)} rows give no correlation; leave out at least 3, better 50")
    true = retrained - full
    correlation = pearson(predicted, true)
    # slope = cov / var(predicted) = correlation * sd(true) / sd(predicted)
    spread = np.where(varies(predicted), predicted.std(axis=0), 1.0)
    return {
        "pearson": correlation,
        "spearman": spearman(predicted, true),
        "slope": correlation * true.std(axis=0) / spread,
    }
