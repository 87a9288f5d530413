"""The regression beneath `RobustResidual`: every target predicted without itself, and how far residuals reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import ndtri
from scipy.stats import rankdata
from sklearn.ensemble import ExtraTreesRegressor

from sktda.attribution.features.numeric_target import (
    LEAST_SCALE,
    Transform,
    left_out_deviation,
    rounding,
    running_median,
    spread_of,
    standard,
    transforms,
)
from sktda.attribution.features.residual_mixture import (
    FREEDOMS,
    WRONG_SPREADS,
    Mixture,
    best_fit,
    expectation,
    first_as_good,
    wrong_densities,
)
from sktda.model.standard import Standard
from sktda.noise import robust_deviation

LEAF, SCALE_LEAF = 3, 10  # rows in the leaves of the trees that predict the target, and its scale
FEW = 20  # rows, below which nothing is learned of the features
ENDS = (3.0, 100.0)  # the same where fits are only compared
LARGEST = 20.0  # residual, in robust deviations, that the local scale learns from
SHARES = np.linspace(0, 1, 5)  # of the kernel beside the forest; powers of the local scale
LEAF_ROWS = 10.0  # that the forest's odds of an atom count as, against one of
PRIOR_ROWS = (1.0, 3.0, 10.0, 30.0, 100.0, 1e9)  # rows for its share among all
FARTHEST = 3.0  # spreads of the target, beyond which an error counts no more for the predictability
DIGITS = 9


@dataclass(frozen=True)
class Amounts:
    """What the regression of the rows that are not the atom says; arrays in their order."""

    transform: Transform
    kernel_share: float
    prediction: np.ndarray  # in units of y
    of_atoms: np.ndarray  # predictions for the rows that are the atom
    residual: np.ndarray
    fit: Mixture
    fit_if_normal: Mixture  # were right residuals normal
    none: float  # log-likelihood without wrong values
    error: np.ndarray  # of believable rows, in spreads of the target
    deviation: np.ndarray  # the same of the mean


class ResidualRegression:
    """Kernel and forests of `n_estimators` trees; the kernel is computed on `device`."""

    def __init__(self, n_estimators: int, device: Any) -> None:
        self.n_estimators = n_estimators
        self.device = device

    def amounts(self, X: Any, rows: Any, y: np.ndarray, rows_of_atoms: Any, seeds: np.ndarray) -> Amounts:
        """The regression of the rows that are not the atom."""
        n = len(y)
        centre, y_spread = np.median(y), spread_of(y)
        # first pass, to find absurd values: on a scale on which they are near the others
        u = np.arcsinh((y - centre) / y_spread)
        log_slope = -np.log(y_spread) - np.log(np.hypot(1, (y - centre) / y_spread))
        wrong_u = wrong_densities(u, 0.0, 1.0)
        if np.abs(y).min() > 0:  # slips of a factor or of the sign, down to nearly nothing
            size = np.log(np.abs(y))
            slips = wrong_densities(size, np.median(size), spread_of(size))[:, :1] - np.log(2) - size[:, None]
            wrong_u = np.hstack([wrong_u, slips - log_slope[:, None]])
        learn = n >= FEW
        first = np.zeros(n)
        if learn:
            # normal scores: no target is large, whatever its unit
            predicted, _ = self._forest(rows, ndtri((rankdata(y) - 0.5) / n), LEAF, seeds[0])
            first = running_median(predicted[:, 0], u)  # from scores back to u
        pass_one = best_fit(u - first, wrong_u, spread_of(u), rounding(u), ENDS)
        absurd = pass_one.posterior > 0.5
        tame = np.where(absurd, centre + y_spread * np.sinh(first), y)  # as predicted, where y is absurd

        choices = transforms(tame)
        targets = np.column_stack([choice.to(tame) for choice in choices])
        mean, unit = targets.mean(axis=0), targets.std(axis=0)
        unit[unit <= 1e-12 * np.abs(mean)] = 1.0  # a constant target has rounding for a deviation
        targets = (targets - mean) / unit
        predicted, of_atoms = np.zeros_like(targets), np.zeros((rows_of_atoms.shape[0], len(choices)))
        if learn:
            predicted, forest = self._forest(rows, targets, LEAF, seeds[1])
            if len(of_atoms):
                of_atoms = forest.predict(rows_of_atoms).reshape(of_atoms.shape)
        likelihoods = []
        for j, choice in enumerate(choices):
            z, slope = standard(choice.to(y), mean[j], unit[j]), choice.log_slope(y) - np.log(unit[j])
            wrong = wrong_u + (log_slope - slope)[:, None]  # the same densities, per unit of z in place of u
            fitted = best_fit(z - predicted[:, j], wrong, spread_of(z), rounding(z), ENDS)
            likelihoods.append(fitted.total + slope)  # per unit of y: else the transform that squeezes most wins
        j = first_as_good(likelihoods) if learn else 0
        transform, target, f = choices[j], targets[:, j], predicted[:, j]
        z = standard(transform.to(y), mean[j], unit[j])

        kernel_share = 0.0
        if learn and np.ptp(target) > 0:
            from sktda.attribution.features.complexity_gap import ComplexityGap  # loads torch

            gap = ComplexityGap(task="regression", device=self.device, random_state=int(seeds[2])).fit(X, target)
            errors = [np.abs(target - mix(gap.loo_decision_, f, share))[~absurd].mean() for share in SHARES]
            kernel_share = float(SHARES[int(np.argmin(errors))])
            f = mix(gap.loo_decision_, f, kernel_share)
        residual, least = z - f, rounding(z)
        spread = max(spread_of(z), least)
        # so far out that they would be the local scale wherever they are
        gross = absurd & (np.abs(y - centre) > WRONG_SPREADS[1] * y_spread)
        log_scale = self._log_scale(rows, f, residual, gross, seeds[3]) if learn else np.zeros(n)
        wrong_z = wrong_densities(z, np.median(z), spread)
        if wrong_u.shape[1] > wrong_z.shape[1]:
            slope = transform.log_slope(y) - np.log(unit[j])
            wrong_z = np.hstack([wrong_z, wrong_u[:, -1:] + (log_slope - slope)[:, None]])
        power = 0.0
        if learn:
            likelihoods = []
            for power in SHARES:
                shift = power * log_scale
                fitted = best_fit(residual * np.exp(-shift), wrong_z + shift[:, None], 4 * spread, least, ENDS)
                likelihoods.append(fitted.total - shift)  # per unit of z again
            power = SHARES[int(np.argmax([each.mean() for each in likelihoods]))]
        shift = power * log_scale
        relative = residual * np.exp(-shift)
        wrong = wrong_z + shift[:, None]
        fitted = best_fit(relative, wrong, 4 * spread, least)
        none = max(expectation(relative, wrong, nu, 0.0, 4 * spread, least).total.sum() for nu in FREEDOMS)
        kept = (fitted.posterior <= 0.5) | (n < FEW)
        deviation = left_out_deviation(z[kept])
        error = residual[kept] if learn else deviation
        return Amounts(
            transform=transform,
            kernel_share=kernel_share,
            prediction=transform.back(f * unit[j] + mean[j]),
            of_atoms=transform.back(of_atoms[:, j] * unit[j] + mean[j]),
            residual=relative / max(robust_deviation(relative), fitted.scale),
            fit=fitted,
            fit_if_normal=best_fit(relative, wrong, 4 * spread, least, FREEDOMS[-1:]),
            none=none,
            error=np.clip(error / spread, -FARTHEST, FARTHEST),
            deviation=np.clip(deviation / spread, -FARTHEST, FARTHEST),
        )

    def _forest(self, rows: Any, targets: np.ndarray, leaf: int, seed: int) -> tuple[np.ndarray, ExtraTreesRegressor]:
        """(out-of-bag predictions (n, n_targets), the forest)."""
        targets = targets.round(DIGITS)  # errors of rounding, in another unit, shall not decide between equal splits
        forest = ExtraTreesRegressor(
            self.n_estimators, bootstrap=True, oob_score=True, min_samples_leaf=leaf, random_state=int(seed)
        ).fit(rows, targets)
        return forest.oob_prediction_.reshape(len(targets), -1), forest

    def _log_scale(self, rows: Any, f: np.ndarray, residual: np.ndarray, gross: np.ndarray, seed: int) -> np.ndarray:
        """Logarithm (n,) of how far residuals reach, out of the bag, relative to its mean; `gross` rows say nothing."""
        typical = max(robust_deviation(residual), LEAST_SCALE)
        size = np.log(np.minimum(np.abs(residual), LARGEST * typical) + 0.1 * typical)
        size[gross] = size[~gross].mean() if not gross.all() else 0.0
        level = f[:, None].round(DIGITS)
        both = sp.hstack([rows, sp.csr_matrix(level)], format="csr") if sp.issparse(rows) else np.hstack([rows, level])
        log_scale, _ = self._forest(both, size, SCALE_LEAF, seed)
        return log_scale[:, 0] - log_scale.mean()

    def atom_odds(self, rows: Any, atom: np.ndarray, seed: int) -> np.ndarray:
        """Out-of-bag probability (n,) of the atom, drawn towards its share as far as makes it likeliest."""
        base = (atom.sum() - atom + 0.5) / len(atom)  # of the other rows
        share = base
        if len(atom) >= FEW:
            share = self._forest(rows, atom.astype(float), LEAF, seed)[0][:, 0]
        best, least = base, np.inf
        for prior in PRIOR_ROWS:
            odds = (share * LEAF_ROWS + base * prior) / (LEAF_ROWS + prior)
            loss = -np.log(np.where(atom, odds, 1 - odds)).sum()
            if loss < least:
                best, least = odds, loss
        return best


def mix(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """share of a, the rest of b."""
    return share * a + (1 - share) * b


def standard_rows(X: Any) -> Any:
    """Rows for trees, which compute in single precision: flat, columns of mean 0 and deviation 1 (CSR: largest 1)."""
    if sp.issparse(X):
        rows = X.astype(np.float64)
        largest = abs(rows).max(axis=0).toarray().ravel()
        rows.data /= np.where(largest > 0, largest, 1.0)[rows.indices]
        return rows
    standard = Standard.of(X)
    return standard.apply(np.array(X, dtype=np.float64).reshape(len(X), -1)).round(DIGITS)
