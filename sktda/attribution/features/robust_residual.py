"""Residuals of a numeric target as people have it: skewed, full of zeros, heavy-tailed, with a few absurd values."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from scipy.special import ndtri
from sklearn.utils._param_validation import Interval

from sktda.attribution.base import Attributor, Needs, check_rows_fit
from sktda.attribution.features.kernel_forest import any_order
from sktda.attribution.features.numeric_target import (
    find_atom,
    left_out_deviation,
    r_squared,
    surer,
    unit_of,
)
from sktda.attribution.features.residual_mixture import (
    GRID,
    Mixture,
    posterior,
    share_of_wrong,
)
from sktda.attribution.features.residual_regression import ResidualRegression, standard_rows
from sktda.data import LARGEST
from sktda.seeds import random_of

EVIDENCE = 3.0  # what wrong values must gain in log-likelihood over none: by chance once in 20, for 2 parameters more


class RobustResidual(Attributor):
    """Minus the absolute studentised residual of each row of a regression, in robust standard deviations.

    Every target is compared with a prediction that it had no part in, after the transform under which the residuals
    are most regular, and relative to how far residuals reach for rows like it. Neither a few absurd values, nor a
    skewed target, one with many zeros, heavy tails or errors that grow with the level make right rows look wrong.

    Parameters
    ----------
    n_estimators : int, default=100
        Trees of each of the three forests (four where there is an atom), at least 50. More = less noise.
    device : str or torch.device, default="auto"
        Where the kernel is computed; "auto" is CUDA where there is one.
    random_state : int, RandomState instance or None, default=None
        Seeds the forests and the kernel's landmarks. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        ``-abs(residuals_)``, higher = keep.
    residuals_ : ndarray of shape (n_samples,)
        Studentised: given minus predicted target, both transformed, over the local scale, in robust standard
        deviations. Positive = the given value is higher than the rest suggests.
    loo_decision_ : ndarray of shape (n_samples,)
        Predictions without the row, in units of y and within the range of the believable values: the median that is
        expected, so the atom where that is likelier than not.
    suggested_values_ : ndarray of shape (n_samples,)
        The same, given that the row is the atom or not: where an amount is doubted, the amount that is expected; where
        zero itself is doubted, the same; where it is doubted that the row is anything but zero, zero.
    transform_ : {"identity", "square root", "logarithm", "signed logarithm"}
        Of the target: the one under which residuals are likeliest, by more than a standard error above the identity.
        The signed logarithm is ``arcsinh(y / median(abs(y)))``.
    atom_ : float or None
        A value held by so many rows that it is its own kind, such as zero where most people claim nothing: more than
        half of the rows, or a twentieth and ten times as many as any other value. It takes no part in the regression;
        whether a row is the atom is predicted beside it.
    outlier_rate_ : float
        Share of the rows that are more likely wrong than right. 0 where wrong values do not explain the residuals
        clearly better than a heavy tail does.
    outlier_rate_interval_ : tuple of (float, float)
        Shares of all wrong values, also of those that look right, with which the residuals agree: from the lower end of
        the 95 % profile interval under the tail that fits best, to the upper end of that under normal right residuals,
        where most of a heavy tail would be wrong values.
    wrong_probability_ : ndarray of shape (n_samples,)
        Probability that the value is wrong, under the model below; 0 where `outlier_rate_` is.
    predictability_ : float
        Out-of-sample R2 of the transformed target, with errors cut at 3 spreads of the target; about 0 or less where
        the features say nothing. With an atom that of the amounts, or of what is the atom (its Brier skill), whichever
        is surer.
    predictability_error_ : float
        Its standard error.
    kernel_share_ : float
        Weight of the kernel in the predictions; the forest has the rest.
    task_ : "regression"

    Raises
    ------
    ValueError
        In `fit`, for NaN or infinity (naming the column), several target columns, and a target that is no number.

    Notes
    -----
    Two passes. The first predicts normal scores of the target, of which no value is large, out of the bag of a forest,
    and puts its predictions in the place of what is then absurd. The second predicts the transformed target by the
    leave-one-out arc-cosine kernel ridge of `ComplexityGap` and by a forest out of the bag, mixed by absolute error. A
    third forest predicts the logarithm of the absolute residual: the local scale, taken to the likeliest power up to 1.

    The model of a residual is Student's t of 3 or more degrees of freedom, of mean zero, mixed with values that know
    nothing of the features: Cauchy distributions around the target's median, as wide as the target, 30 and 1,000 times
    wider; where no target is zero, also one around its median size, of either sign. It is fitted by expectation and
    maximisation. Errors with tails heavier than those of 3 degrees are taken for wrong values in part. Transforms are
    compared by the same likelihood in units of y (Box & Cox 1964, with predictions out of sample). Weights and
    validation rows do not enter.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.attribution import RobustResidual
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 3))
    >>> price = np.exp(8 + X[:, 0] + 0.2 * rng.normal(size=300))
    >>> price[:3] *= 100
    >>> residual = RobustResidual().fit(X, price)
    >>> residual.transform_
    'logarithm'
    >>> sorted(int(i) for i in residual.scores_.argsort()[:3])
    [0, 1, 2]
    >>> residual.outlier_rate_
    0.01
    """

    _parameter_constraints: dict = {
        "n_estimators": [Interval(Integral, 50, None, closed="left")],
        "random_state": ["random_state"],
    }

    needs = Needs(features=True)
    __metadata_request__fit = {"sample_weight": False}  # ignored, so a weighted fit need not ask about it

    def __init__(self, *, n_estimators=100, device="auto", random_state=None):
        self.n_estimators = n_estimators
        self.device = device
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        """Predict every target without itself, and score the rows by their residuals.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, ...)
            Numbers of any shape per row: a table, images, embeddings.
        y : array-like of shape (n_samples,)
            Numbers.
        sample_weight, X_val, y_val, metadata_val : ignored
            Part of the contract of all attributors.

        Returns
        -------
        self
        """
        self._validate_params()
        self._forget()
        X, self.task_, y, _ = self._validate(X, y, sample_weight, "regression")
        check_rows_fit(self, X, 12 + getattr(X, "itemsize", 0))  # standardised, and both in another order
        rows = standard_rows(X)
        order = any_order(rows, y)
        unit = unit_of(y)
        X, rows, y = X[order], rows[order], np.clip(y[order] / unit, -LARGEST, LARGEST)
        random = random_of(self.random_state)
        self._fit_sorted(X, rows, y, random)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        for name in ("residuals_", "loo_decision_", "suggested_values_", "wrong_probability_"):
            setattr(self, name, getattr(self, name)[back])
        self.loo_decision_, self.suggested_values_ = self.loo_decision_ * unit, self.suggested_values_ * unit
        self.atom_ = None if self.atom_ is None else self.atom_ * unit
        self.scores_ = -np.abs(self.residuals_)
        return self

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _fit_sorted(self, X: Any, rows: Any, y: np.ndarray, random: np.random.RandomState) -> None:
        self.atom_ = find_atom(y)
        atom = np.zeros(len(y), dtype=bool) if self.atom_ is None else y == self.atom_
        rest = np.flatnonzero(~atom)
        seeds = random.randint(2**31 - 1, size=5)  # all at once: that of one forest does not depend on another
        regression = ResidualRegression(self.n_estimators, self.device)
        amounts = regression.amounts(X[rest], rows[rest], y[rest], rows[atom], seeds)
        self.transform_, self.kernel_share_ = amounts.transform.name, amounts.kernel_share
        odds, base = np.zeros(len(y)), atom.mean()  # probability of the atom, by the features and without them
        self.predictability_, self.predictability_error_ = r_squared(amounts.error, amounts.deviation)
        if atom.any():
            odds = regression.atom_odds(rows, atom, seeds[4])
            whether = r_squared(atom - odds, left_out_deviation(atom.astype(float)))
            if surer(whether, (self.predictability_, self.predictability_error_)):
                self.predictability_, self.predictability_error_ = whether

        def densities(fit: Mixture) -> tuple[np.ndarray, np.ndarray]:
            right, wrong = np.empty((2, len(y)))
            if atom.any():
                right[atom], wrong[atom] = np.log(odds[atom]), np.log(base)
            right[rest], wrong[rest] = np.log1p(-odds[rest]) + fit.right, np.log1p(-base) + fit.wrong
            return right, wrong

        right, wrong = densities(amounts.fit)
        share, likelihood, low, high = share_of_wrong(right, wrong)
        # over the same rows without wrong values: the atom's odds as they are, amounts by the t that then fits best
        gain = likelihood - (right.sum() - amounts.fit.right.sum() + amounts.none)
        self.wrong_probability_ = np.zeros(len(y))
        if gain > EVIDENCE and share < GRID[-1]:  # at half of the rows, wrong and right cannot be told apart
            self.wrong_probability_ = posterior(share, right, wrong)
        else:
            low = 0.0
        flagged = self.wrong_probability_ > 0.5
        self.outlier_rate_ = float(flagged.mean())
        high = max(high, share_of_wrong(*densities(amounts.fit_if_normal))[3], self.outlier_rate_)
        self.outlier_rate_interval_ = (min(low, self.outlier_rate_), high)

        believable = y if flagged.all() else y[~flagged]
        amount = np.empty(len(y))
        amount[rest], amount[atom] = amounts.prediction, amounts.of_atoms
        amount = amount.clip(believable.min(), believable.max())
        self.residuals_ = np.zeros(len(y))
        self.residuals_[rest] = amounts.residual
        self.loo_decision_ = self.suggested_values_ = amount
        if atom.any():
            self._judge_atom(y, atom, odds, amount, float(y[atom][0]))

    def _judge_atom(self, y: np.ndarray, atom: np.ndarray, odds: np.ndarray, amount: np.ndarray, value: float) -> None:
        """Residuals and suggestions, where a row can be wrong in being the atom or in being none."""
        surprise = -ndtri(np.where(atom, odds, 1 - odds) / 2)  # of a normal value that is as rare
        direction = np.where(atom, value - amount, y - value)
        doubted = atom | (surprise > np.abs(self.residuals_))
        self.residuals_ = np.where(doubted, np.copysign(surprise, direction), self.residuals_)
        self.loo_decision_ = np.where(odds > 0.5, value, amount)
        self.suggested_values_ = np.where(doubted, self.loo_decision_, amount)
