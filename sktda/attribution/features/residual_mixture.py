"""Residuals as a mixture: Student's t of right values, and wrong values that know nothing of the features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, gammaln, logsumexp

from sktda.noise import robust_deviation

FREEDOMS = (3.0, 5.0, 10.0, 100.0)  # of Student's t: tails heavier than 3 could not be told from wrong values
WRONG_SPREADS = (1.0, 30.0, 1000.0)  # of wrong values, in spreads of the target: another row's, a slip, absurd
MOST_WRONG = 0.5
STEPS = 30  # of expectation and maximisation
GRID = np.concatenate([[0.0], np.geomspace(1e-5, 0.49, 100)])
HALF_CHI2 = 1.92  # fall of the log-likelihood at the ends of a 95 % interval


@dataclass(frozen=True)
class Mixture:
    """Residuals as a share of wrong values, whose densities are known, among Student's t of right ones."""

    share: float
    scale: float
    right: np.ndarray  # log density of each residual, if right
    wrong: np.ndarray  # the same if wrong
    total: np.ndarray  # of the mixture

    @property
    def posterior(self) -> np.ndarray:
        """Probability (n,) that the value is wrong."""
        return posterior(self.share, self.right, self.wrong)


def expectation(
    residual: np.ndarray, wrong: np.ndarray, freedom: float, share: float, most: float, least: float
) -> Mixture:
    """Fit shares of the wrong densities and the scale of Student's t by expectation and maximisation.

    residual (n,); wrong (n, k) log densities of k kinds of wrong values; freedom of the t; share: of all wrong values
    together to begin with, 0 = there are none; most and least: allowed scales. Scale step: Lange, Little & Taylor 1989.
    """
    shares = np.full(wrong.shape[1], share / wrong.shape[1])
    scale = np.clip(robust_deviation(residual), least, most)
    keep = np.ones_like(residual)
    for _ in range(STEPS):
        if share > 0:
            joint = np.column_stack([np.log1p(-shares.sum()) + log_t(residual, freedom, scale), np.log(shares) + wrong])
            joint = np.exp(joint - joint.max(axis=1, keepdims=True))  # densities far out underflow
            joint /= joint.sum(axis=1, keepdims=True)
            keep, shares = joint[:, 0], np.maximum(joint[:, 1:].mean(axis=0), 1e-12)
            shares *= min(1.0, MOST_WRONG / shares.sum())
        pull = keep * (freedom + 1) / (freedom + np.square(residual / scale))
        scale = np.clip(np.sqrt((pull * np.square(residual)).sum() / keep.sum()), least, most)
    right = log_t(residual, freedom, scale)
    if share == 0:
        return Mixture(0.0, scale, right, np.full_like(right, -np.inf), right)
    share = float(shares.sum())
    wrong = logsumexp(wrong, axis=1, b=shares / share)
    return Mixture(share, scale, right, wrong, np.logaddexp(np.log1p(-share) + right, np.log(share) + wrong))


def best_fit(
    residual: np.ndarray, wrong: np.ndarray, most: float, least: float, freedoms: tuple[float, ...] = FREEDOMS
) -> Mixture:
    """The likeliest mixture over degrees of freedom."""
    fits = [expectation(residual, wrong, freedom, 0.05, most, least) for freedom in freedoms]
    return max(fits, key=lambda fit: fit.total.sum())


def log_t(residual: np.ndarray, freedom: float, scale: float) -> np.ndarray:
    """Log density of Student's t."""
    constant = gammaln((freedom + 1) / 2) - gammaln(freedom / 2) - np.log(freedom * np.pi) / 2 - np.log(scale)
    return constant - (freedom + 1) / 2 * np.log1p(np.square(residual / scale) / freedom)


def wrong_densities(values: np.ndarray, centre: float, spread: float) -> np.ndarray:
    """Log densities (n, 3) of values that know nothing of the features: Cauchy of WRONG_SPREADS spreads."""
    width = spread * np.array(WRONG_SPREADS)
    return -np.log(np.pi * width) - np.log1p(np.square((values - centre)[:, None] / width))


def posterior(share: float, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Probability (n,) of being wrong, from log densities."""
    return expit(np.log(share) + wrong - np.log1p(-share) - right)


def share_of_wrong(right: np.ndarray, wrong: np.ndarray) -> tuple[float, float, float, float]:
    """(likeliest share, its log-likelihood, ends of the 95 % profile interval) for log densities (n,)."""
    with np.errstate(divide="ignore"):
        profile = np.array([np.logaddexp(np.log1p(-s) + right, np.log(s) + wrong).sum() for s in GRID])
    agree = GRID[profile >= profile.max() - HALF_CHI2]
    best = int(profile.argmax())
    # above 0: who asks for odds takes its logarithm
    return max(float(GRID[best]), GRID[1]), float(profile[best]), float(agree.min()), float(agree.max())


def first_as_good(likelihoods: list[np.ndarray]) -> int:
    """The likeliest, or the first where that is not likelier by more than a standard error."""
    best = int(np.argmax([each.mean() for each in likelihoods]))
    gain = likelihoods[best] - likelihoods[0]
    return best if gain.mean() > gain.std() / np.sqrt(len(gain)) else 0
