"""Which of several settings to believe: the best, unless it is best by chance."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from sktda.metrics.statistics import standard_error

TRUTHS = (bool, np.bool_)
ROUNDING = 1e-9  # shares of a range that are equal but for it: 0.1 and 0.2 are as far from 0.15


def beyond_chance(scores: np.ndarray, prior: int) -> int:
    """Which candidate to take: the best, if it beats the prior one by more than a standard error; else the prior one.

    Parameters
    ----------
    scores : array-like of shape (n_splits, n_candidates)
        Higher = better; all candidates on the same splits.
    prior : int
        Position of the candidate that was best before anything was measured.

    Returns
    -------
    chosen : int
        Of equally good ones the first. The standard error is that of the mean over splits of the difference between
        the two, so that splits which are hard for all do not count; it is 0 for a single split.

    Raises
    ------
    ValueError
        For scores that are not two-dimensional, or a prior that is none of the candidates.

    Notes
    -----
    Of many candidates that are equally good, the best on small or dirty splits is a matter of luck. The rule is that of
    one standard error (Breiman et al. 1984, section 3.4.3), about a prior in place of the simplest model.

    Examples
    --------
    >>> from sktda.metrics import beyond_chance
    >>> beyond_chance([[0.80, 0.83], [0.70, 0.69], [0.75, 0.76]], prior=0)  # better by .01, give or take .0115
    0
    >>> beyond_chance([[0.80, 0.83], [0.70, 0.71], [0.75, 0.77]], prior=0)
    1
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or not 0 <= prior < scores.shape[1]:
        raise ValueError(
            f"got scores of shape {scores.shape} and prior={prior}; expected (n_splits, n_candidates), and "
            "one of the candidates"
        )
    means = scores.mean(axis=0)
    means[np.isnan(means)] = -np.inf  # a fit that failed
    best = int(means.argmax())
    # of a prior that could not be fitted there is no difference to test
    if best == prior or means[prior] == -np.inf:
        return best
    gain = scores[:, best] - scores[:, prior]
    # paired: what makes a split hard for both cancels in the difference
    return best if gain.mean() > standard_error(gain) else int(prior)


class BeyondChance:
    """Choice for ``GridSearchCV(refit=...)``: a prior setting, unless another beats it by a paired standard error.

    Parameters
    ----------
    prior : dict
        {parameter of the grid: value that is expected to be best}, such as ``{"prune_ratio": noise_rate}``. The prior
        candidate is the one nearest to it; of several, as where other parameters are searched too, the one with the
        best mean. What is no number, such as None, is equal or is as far away as the farthest number.
    metric : str, default="score"
        Which scores of a search by several metrics decide.

    Raises
    ------
    ValueError
        In the call, for a parameter or a metric that the search does not have.

    Notes
    -----
    A search whose `refit` is a function has `best_index_`, `best_params_` and `best_estimator_`, but no `best_score_`.
    The rule is that of `beyond_chance`.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sktda import InfluencePruner
    >>> from sktda.attribution import ComplexityGap
    >>> from sktda.metrics import BeyondChance
    >>> X, y = load_wine(return_X_y=True)
    >>> grid = {"prune_ratio": [0, 0.1, 0.2]}
    >>> pruner = InfluencePruner(RidgeClassifier(), ComplexityGap())
    >>> GridSearchCV(pruner, grid, refit=BeyondChance({"prune_ratio": 0.01})).fit(X, y).best_params_
    {'prune_ratio': 0}
    """

    def __init__(self, prior: Mapping[str, Any], metric: str = "score") -> None:
        self.prior = prior
        self.metric = metric

    def __call__(self, cv_results: Mapping[str, Any]) -> int:
        """Position of the chosen candidate in the `cv_results_` of a search."""
        candidates = cv_results["params"]
        unknown = set(self.prior) - set.intersection(*map(set, candidates))
        if unknown or not self.prior:
            raise ValueError(
                f"prior={dict(self.prior)!r} must name parameters of the search, which are {sorted(candidates[0])}"
            )
        n_splits = 0
        while f"split{n_splits}_test_{self.metric}" in cv_results:
            n_splits += 1
        if not n_splits:
            raise ValueError(
                f"the search has no scores of metric={self.metric!r}; give the name of one that it measures"
            )
        scores = np.array([cv_results[f"split{k}_test_{self.metric}"] for k in range(n_splits)])
        # shares of the range of each parameter, which have units of their own
        far = np.sum(
            [_distance([each[name] for each in candidates], value) for name, value in self.prior.items()], axis=0
        )
        nearest = np.flatnonzero(far <= far.min() + ROUNDING)
        means = np.nan_to_num(scores.mean(axis=0), nan=-np.inf)
        return beyond_chance(scores, int(nearest[means[nearest].argmax()]))

    def __repr__(self) -> str:
        return f"BeyondChance({dict(self.prior)!r})"


def _distance(values: list, prior: Any) -> np.ndarray:
    """(n,) how far values are from the prior, as a share of the farthest number; 0 or 1 where one is no number."""
    found = np.array([float(not _same(value, prior)) for value in values])
    numbers = np.array([_ordered(value) for value in values])
    if _ordered(prior) and numbers.any():
        far = np.array([abs(float(value) - float(prior)) for value in itertools.compress(values, numbers)])
        found[numbers] = far / (far.max() or 1.0)
    return found


def _ordered(value: Any) -> bool:
    """Whether it is a number with a place among others; that of True is none, nor is that of NaN."""
    return isinstance(value, Real) and not isinstance(value, TRUTHS) and bool(np.isfinite(float(value)))


def _same(value: Any, prior: Any) -> bool:
    if value is prior:
        return True
    if isinstance(value, TRUTHS) != isinstance(prior, TRUTHS):  # True is no 1
        return False
    if isinstance(value, Real) and isinstance(prior, Real) and np.isnan([float(value), float(prior)]).all():
        return True
    try:
        return bool(np.all(value == prior))
    except (TypeError, ValueError):  # of pandas.NA, and of arrays of different shapes
        return False
