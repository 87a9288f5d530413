"""From scores to weights of rows. NumPy and SciPy only; higher score = more weight, mean weight 1."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import rankdata

from sktda.noise import robust_deviation


def probability_shift(log_odds: np.ndarray, rate: float) -> float:
    """What to add to the log odds (n,) of right labels so that on average they are right with probability 1 - rate.

    rate: in [0, 1). inf for 0: all are right.
    """
    if rate <= 0:
        return np.inf
    # moved so far, every single probability is on one side of 1 - rate: the root lies between
    far = np.abs(log_odds).max() - np.log(min(rate, 1 - rate)) + 1
    return float(brentq(lambda shift: expit(log_odds + shift).mean() - (1 - rate), -far, far))


def surplus_weights(probability: np.ndarray) -> np.ndarray:
    """(n,) 2 p - 1, at least 0.001, of the probability p (n,) that a label is right: more for than against it.

    A label that is as likely wrong as right tells nothing. Sharper than p itself, which leaves a wrong label much of
    its weight where models are unsure.
    """
    return np.maximum(1e-3, 2 * probability - 1)


def tail_weights(scores: np.ndarray, rate: float) -> np.ndarray:
    """(n,) weights that rise with the rank from 0 and reach 1 at twice the share `rate` of wrong rows; all 1 for 0.

    The lowest scores are surely wrong, and around the share that is expected wrong and right rows mix.
    """
    return np.minimum(1.0, rank_weights(scores) / (2 * rate)) if rate > 0 else np.ones(len(scores))


def rank_weights(scores: np.ndarray) -> np.ndarray:
    """(n,) shares of rows that score lower, ties sharing theirs: (rank - 1/2) / n, between 0 and 1."""
    return (rankdata(scores) - 0.5) / len(scores)


def sigmoid_weights(scores: np.ndarray) -> np.ndarray:
    """(n,) 1 / (1 + exp(-z)), z = how many robust deviations a score is above the median; between 0 and 1.

    Where more than half of the scores are equal, the deviation is the standard one.
    """
    spread = robust_deviation(scores) or scores.std() or 1.0
    return expit((scores - np.median(scores)) / spread)


def learned_weights(scores: np.ndarray) -> np.ndarray:
    """(n,) max(0, 1 + scores / mean |scores|): one step down the gradient of the objective from equal weights.

    A score is the rise of the objective without the row, so minus it is the derivative with respect to the row's
    weight; the step is as long as makes the mean weight change by 1 before any is cut off at 0. Source: the one-step
    weights of Ren et al. 2018 (arXiv:1803.09050, eq. 5 to 7), which start from 0 in every batch and not from 1.
    """
    scale = np.abs(scores).mean()
    return np.maximum(0.0, 1 + scores / scale) if scale else np.ones_like(scores)


def weigh(scores: np.ndarray, weighting, floor: float, codes: np.ndarray | None = None) -> np.ndarray:
    """Weights (n,) of mean 1, in each group of `codes` (n,) by itself, from its scores.

    weighting: (m,) scores -> (m,) weights of at least 0. floor: the least weight as a share of the largest of a group.
    Raises ValueError for weights of another shape, negative, not finite, or all 0.
    """
    weights = np.empty(len(scores))
    for group in [slice(None)] if codes is None else [codes == code for code in np.unique(codes)]:
        found = np.asarray(weighting(scores[group]), dtype=float)
        expected = scores[group].shape
        if found.shape != expected or not np.isfinite(found).all() or (found < 0).any() or not found.any():
            raise ValueError(
                f"weighting must turn {expected[0]} scores into as many finite weights of at least 0, not all 0; it "
                f"returned {describe(found)}"
            )
        found = floor * found.max() + (1 - floor) * found  # mixed and not cut off, so that their order stays
        # group by group: weights must not change how much each counts
        weights[group] = found / found.mean()
    return weights


def describe(values: np.ndarray) -> str:
    """Shape and range."""
    return f"shape {values.shape}" + (f", from {values.min():g} to {values.max():g}" if values.size else "")
