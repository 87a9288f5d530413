"""Complexity gap: data valuation without training a model (CG-score, arXiv:2301.00930)."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from sktda.attribution.base import Attributor, Needs
from sktda.data import n_columns
from sktda.devices import exact_device, resolve_device, where_it_fits
from sktda.engine.kernel import LeaveOneOut, arc_cosine_gram, leave_one_out_exact, leave_one_out_nystrom
from sktda.engine.unit_rows import MANY_COLUMNS, UnitRows
from sktda.room import check_held, kept, room, row_by_row
from sktda.seeds import random_of

EXACT_ROWS = 5_000  # above, mode="auto" goes over to Nyström
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
LOOK_ROWS, LEAST_LOOK_ROWS, LOOK_BYTES = 1_000, 100, 2**28  # what ridge and scale are chosen by
CLEARLY = 2.0  # standard errors by which the other scale must be better
BLOCK_ROWS = 2_048  # of "nystrom" at a time
ROUNDING = 1e-9  # errors that are equal but for it have no standard error to speak of


class ComplexityGap(Attributor):
    """Minus the complexity gap of each row, in squared target units: what the row adds to y' H^-1 y.

    H is the kernel of an infinitely wide two-layer ReLU net on rows scaled to length 1. No model is chosen and
    none is trained. The gap of row i is ``label_part_[i] * label_free_part_[i]``: how badly the other rows predict
    its label, times how firmly they determine the row. Mislabelled rows have large gaps, so low scores.

    Parameters
    ----------
    mode : {"auto", "exact", "nystrom", "paper"}, default="auto"
        "exact" factorises the kernel of all rows once for all classes, O(n^3). "nystrom" streams over landmarks,
        with a share of what they leave unexplained as noise of each row, O(n * n_landmarks^2) time and memory
        independent of n. "auto" is "exact" up to 5,000 rows. "paper" is the
        published scheme: each class against an equally large sample of the rest, repeated, without a ridge.
    ridge : "auto" or float, default="auto"
        Added to the diagonal of H; > 0 for "nystrom". "auto" takes, of 0.03, 0.1, 0.3, 1, 3 and 10, the one with the
        smallest squared leave-one-out error (on at most 1,000 rows): the more labels are wrong, the more it smooths.
        Not used by "paper".
    n_landmarks : int or "auto", default="auto"
        Rows that span the Nyström approximation. "auto" = 3,000 just above 5,000 rows, fewer by the square of the rows
        beyond, but a tenth of the rows, at least 1,000 and at most 2,000.
    n_repeats : int, default=10
        Samples of the rest per class in "paper" mode.
    scale : {"auto", "standard", "unit"}, default="auto"
        "standard" standardises the columns and appends a constant before rows are normalised, "unit" only
        normalises the rows, which loses their level. "auto" takes "unit" for many columns of one unit with a meaningful
        zero (pixels, word counts, one-hot), else "standard", unless the other one has the smaller squared leave-one-out
        error by more than two standard errors, paired over at most 1,000 rows. Fewer than 16 columns are always
        standardised. The container does not matter.
    task : {"auto", "classification", "regression"}, default="auto"
        "auto": strings, booleans and whole numbers are classes (unless nearly all differ), the rest is regression,
        on the standardised target.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or "auto", default="auto"
        Rows per block of "nystrom"; changes memory and speed, not the result. "auto" = 2,048.
    random_state : int, RandomState instance or None, default=None
        Draws the landmarks and the paper's samples. "exact" draws nothing. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Minus the complexity gap, higher = keep.
    ridge_ : float
        The ridge that was used.
    scale_ : {"standard", "unit"}
        How rows were scaled.
    label_part_, label_free_part_ : ndarray of shape (n_samples,)
        ``|Y_i - f_{-i}(x_i)|^2``, which depends on the labels, and P_ii = 1 / (ridge + leave-one-out variance of the
        kernel), which depends on the features only. In "paper" mode both are means over repeats, and the score is the
        mean of the products.
    loo_decision_ : ndarray of shape (n_samples, n_classes), or (n_samples,) for regression
        Leave-one-out predictions of the one-hot target (of the target itself, in its own units); the labels and
        decisions are not defined in "paper" mode, which compares two classes at a time.
    loo_labels_ : ndarray of shape (n_samples,)
        The class that the other rows suggest (the prediction, for regression).
    loo_margins_ : ndarray of shape (n_samples,)
        Decision of the given class minus the largest other one (minus the absolute error, for regression).
    classes_ : ndarray of shape (n_classes,)
        Only for classification.
    task_ : str
        "classification" or "regression".

    Raises
    ------
    ValueError
        In `fit`, for NaN or infinity (naming the column), a single class, several target columns, ridge=0 in
        "nystrom" mode, and regression in "paper" mode.

    Notes
    -----
    Weights and validation rows are accepted, as by every attributor, and do not enter: the score is defined by the
    training rows alone. Sources: complexity gap, arXiv:2301.00930, eq. 3 and 5; leave-one-out residuals of kernel
    ridge regression as (P Y)_i / P_ii. What the defaults find is measured by benchmarks/noisy_labels.py.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import ComplexityGap
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:500], y[:500]
    >>> y[:3] = [7, 7, 7]  # they are 0, 1, 2
    >>> gap = ComplexityGap().fit(X, y)
    >>> sorted(int(i) for i in gap.scores_.argsort()[:3])
    [0, 1, 2]
    >>> gap.loo_labels_[:3].tolist()
    [0, 1, 2]
    """

    _parameter_constraints: dict = {
        "mode": [StrOptions({"auto", "exact", "nystrom", "paper"})],
        "ridge": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "n_landmarks": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        "scale": [StrOptions({"auto", "standard", "unit"})],
        "task": [StrOptions({"auto", "classification", "regression"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    needs = Needs(features=True)
    __metadata_request__fit = {"sample_weight": False}  # ignored, so a weighted fit need not ask about it

    def __init__(
        self,
        *,
        mode="auto",
        ridge="auto",
        n_landmarks="auto",
        n_repeats=10,
        scale="auto",
        task="auto",
        device="auto",
        batch_size="auto",
        random_state=None,
    ):
        self.mode = mode
        self.ridge = ridge
        self.n_landmarks = n_landmarks
        self.n_repeats = n_repeats
        self.scale = scale
        self.task = task
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        """Score the rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, ...)
            Numbers of any shape per row: a table, images, embeddings.
        y : array-like of shape (n_samples,)
            Class labels of any kind, or numbers.
        sample_weight, X_val, y_val, metadata_val : ignored
            Part of the contract of all attributors.

        Returns
        -------
        self
        """
        self._validate_params()
        self._forget()
        X, self.task_, target, classes = self._validate(X, y, sample_weight, self.task)
        if classes is not None:
            self.classes_ = classes
        if self.mode == "paper" and classes is None:
            raise ValueError("mode='paper' is defined for classes only; use mode='exact' for regression")
        random = random_of(self.random_state)
        targets, centre, unit = self._targets(target, classes)
        rows = self._look(X, torch.from_numpy(targets))
        if self.mode == "paper":
            self._fit_paper(rows, target, random)
            return self
        loo = self._leave_one_out(rows, targets, random)
        self.label_free_part_ = loo.precision.cpu().numpy()
        residual = loo.residual.cpu().numpy()
        self.label_part_ = row_by_row(lambda rows: np.square(rows).sum(axis=1), residual)
        self.scores_ = kept(-self.label_part_ * self.label_free_part_)
        # f_{-i}, in units of the target
        decision = row_by_row(lambda y, r: (y - r) * unit + centre, targets, residual, width=targets.shape[1])
        self._set_predictions(target, decision)
        return self

    @property
    def loo_labels_(self):
        """What the other rows predict."""
        decision = self.loo_decision_
        return decision if self.task_ == "regression" else self.classes_[decision.argmax(axis=1)]

    def _targets(self, target, classes):
        """Centred one-hot columns (or the standardised target), what was subtracted, and the unit."""
        if classes is None:
            size = np.abs(target).max() or 1.0  # squares of huge or tiny targets would over- or underflow
            target = target / size
            spread = target.std() or 1.0
            return ((target - target.mean()) / spread)[:, None], target.mean() * size, spread * size
        onehot = room((len(target), len(classes)))
        onehot[np.arange(len(target)), target] = 1
        centre = onehot.mean(axis=0)
        onehot -= centre
        return onehot, centre, 1.0

    def _leave_one_out(self, rows: UnitRows, targets: np.ndarray, random) -> LeaveOneOut:
        n, y = len(rows), torch.from_numpy(targets)
        if self.mode == "exact" or (self.mode == "auto" and n <= EXACT_ROWS):
            check_held("ComplexityGap(mode='exact')", 16.0 * n * n, "mode='nystrom' goes through them block by block")

            def exactly(place: torch.device) -> LeaveOneOut:
                # float64: near copies of a row make H nearly singular, and the ridge is small
                gram = arc_cosine_gram(rows.block(slice(0, n), torch.float64, place))
                return leave_one_out_exact(gram, y.to(place), self.ridge_)

            return where_it_fits(resolve_device(self.device), exactly)
        if self.ridge_ == 0:
            raise ValueError("ridge=0 is not defined for mode='nystrom'; use ridge > 0 or mode='exact'")
        chosen = sample(n, default_landmarks(n) if self.n_landmarks == "auto" else self.n_landmarks, random)
        device = exact_device(resolve_device(self.device))
        # float32 where all rows pass through, at half the time; what is factorised there is float64
        landmarks = rows.block(chosen, torch.float32, device)
        size = BLOCK_ROWS if self.batch_size == "auto" else self.batch_size
        return leave_one_out_nystrom(
            lambda part: rows.block(part, torch.float32, device), landmarks, y.to(device), self.ridge_, size
        )

    def _look(self, X, y: torch.Tensor) -> UnitRows:
        """The scaled rows; sets scale_ and ridge_, if need be by the leave-one-out error on a sample of the rows."""
        rows = UnitRows(X, self.scale)
        ridges = RIDGES if self.ridge == "auto" else (float(self.ridge),)
        self.scale_, self.ridge_ = rows.scale, ridges[0]
        if self.scale != "auto" and len(ridges) == 1:
            return rows
        size = max(LEAST_LOOK_ROWS, min(LOOK_ROWS, LOOK_BYTES // (8 * n_columns(X))))
        chosen = sample(len(rows), size, np.random.RandomState(0))  # always the same: exact mode has no seed
        device = resolve_device(self.device)
        self.ridge_, errors = where_it_fits(device, partial(_best_ridge, rows, y, chosen, ridges))
        if self.scale == "auto" and (rows.scale == "unit" or n_columns(X) >= MANY_COLUMNS):
            other = rows.rescaled("standard" if rows.scale == "unit" else "unit")
            ridge, other_errors = where_it_fits(device, partial(_best_ridge, other, y, chosen, ridges))
            gain = errors - other_errors
            error = gain.std() / np.sqrt(len(gain))
            if gain.mean() > CLEARLY * error + ROUNDING:
                rows, self.scale_, self.ridge_ = other, other.scale, ridge
        return rows

    def _set_predictions(self, target, decision):
        if self.task_ == "regression":
            self.loo_decision_ = decision[:, 0]
            self.loo_margins_ = -np.abs(target - self.loo_decision_)
            return
        self.loo_decision_ = decision

        def margins(decision, target):
            own = decision[np.arange(len(target)), target]
            rest = np.array(decision)
            rest[np.arange(len(target)), target] = -np.inf
            return own - rest.max(axis=1)

        self.loo_margins_ = row_by_row(margins, decision, target)

    def _fit_paper(self, rows: UnitRows, codes, random):
        """Each class as +1 against an equally large sample of the rest as -1, no ridge, mean over repeats."""
        device = exact_device(resolve_device(self.device))
        gap, self.label_part_, self.label_free_part_ = np.zeros((3, len(codes)))
        for c in range(len(self.classes_)):
            own, rest = np.flatnonzero(codes == c), np.flatnonzero(codes != c)
            for _ in range(self.n_repeats):
                others = random.choice(rest, size=min(len(own), len(rest)), replace=False)
                sign = torch.ones(len(own) + len(others), 1, dtype=torch.float64, device=device)
                sign[len(own) :] = -1
                block = rows.block(np.concatenate([own, others]), torch.float64, device)
                loo = leave_one_out_exact(arc_cosine_gram(block), sign, 0.0)
                # rows of the rest get their scores in the turn of their own class
                precision = loo.precision[: len(own)].cpu().numpy() / self.n_repeats
                label = loo.residual[: len(own), 0].square().cpu().numpy()
                gap[own] += precision * label
                self.label_part_[own] += label / self.n_repeats
                self.label_free_part_[own] += precision
        self.scores_ = -gap


def _best_ridge(
    rows: UnitRows, y: torch.Tensor, chosen: np.ndarray, ridges, device: torch.device
) -> tuple[float, np.ndarray]:
    """(ridge of the smallest squared leave-one-out error on the chosen rows, those errors row by row)."""
    gram, y = arc_cosine_gram(rows.block(chosen, torch.float64, device)), y[chosen].to(device)
    best, least = ridges[0], np.empty(0)
    for ridge in ridges:
        errors = leave_one_out_exact(gram, y, ridge).residual.square().sum(dim=1).cpu().numpy()
        if len(least) and errors.sum() >= least.sum():
            break  # it only rises from here
        best, least = ridge, errors
    return best, least


def default_landmarks(n: int) -> int:
    """Three fifths of the rows where the exact kernel stops, then fewer by the square of the rows, down to a floor.

    With 3,000 of 5,001 rows the approximation costs what the exact kernel of 5,000 did, and scores as well. The floor
    is a tenth of the rows, at least 1,000 and at most 2,000.
    """
    return max(min(3 * n // 5, 3 * EXACT_ROWS**3 // (5 * n**2)), int(np.clip(n // 10, 1_000, 2_000)))


def sample(n: int, size: int, random: np.random.RandomState) -> np.ndarray:
    """Sorted positions of `size` of n rows, drawn without replacement; all of them, without a draw, if they suffice."""
    return np.arange(n) if size >= n else np.sort(random.permutation(n)[:size])
