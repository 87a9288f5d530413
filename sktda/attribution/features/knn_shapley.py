"""kNN-Shapley: the exact Shapley value of each row for a nearest-neighbour classifier (arXiv:1908.08619)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_consistent_length
from torch import Tensor

from sktda.attribution.base import Attributor, Needs, check_validation
from sktda.containers import read_target
from sktda.data import BLOCK_BYTES, block_rows, read_features, slices
from sktda.devices import exact_device, for_blocks, resolve_device
from sktda.engine.unit_rows import UnitRows
from sktda.room import room
from sktda.seeds import random_of

FOLDS = 5  # of cross-fitting, where no validation rows came
POSITION_BITS = 25  # of a sorting key; the 38 bits above hold the cosine, in steps of 2^-36, and the last one the label
LEAST = 32  # validation rows for each pass over the rows, whose distances may lie in a file: passes are what costs
CHUNK = {"cpu": 2**16, "cuda": 2**25}  # distances that are sorted at a time: on a processor they stay in its cache


class KNNShapley(Attributor):
    """Shapley value of each row for a k-nearest-neighbour classifier, in shares of right votes.

    The players are the training rows; what a set of them is worth is the share of right votes that it gives a
    validation row: how many of the row's k nearest neighbours in the set carry its label, divided by k, averaged over
    the validation rows. The values add up to what all rows together are worth. They are exact: no set is sampled, no
    model is trained.

    Parameters
    ----------
    n_neighbors : int, default=5
        k, the neighbours that vote. With k >= n_samples all rows vote everywhere.
    scale : {"auto", "standard", "unit"}, default="auto"
        Distances are those between rows of length 1, as for ComplexityGap, where Euclidean and cosine distance order
        neighbours alike. "standard" standardises the columns and appends a constant before rows are normalised, "unit"
        only normalises the rows; "auto" picks "unit" for pixels and sparse matrices. Validation rows are scaled with
        the training rows' means and spreads.
    task : {"auto", "classification", "regression"}, default="auto"
        "auto": strings, booleans and whole numbers are classes (unless nearly all differ). Regression is refused.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or "auto", default="auto"
        Validation rows per block, each with its distances to all training rows; changes memory and speed, not the
        result. "auto" = as many as fit into 256 MiB.
    random_state : int, RandomState instance or None, default=None
        Draws the folds, where no validation rows are given; else nothing is drawn. None is 0, so that a fit can be
        repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Shapley values, higher = keep. Every validation row adds something positive to the rows of its own class and
        something negative (or 0) to the others, most of it to those nearby. Below zero: the wrong votes prevail.
    classes_ : ndarray of shape (n_classes,)
        The classes.
    task_ : str
        "classification".

    Raises
    ------
    ValueError
        In `fit`, for regression, NaN or infinity (naming the column), a single class, and validation rows without
        labels, labels without rows, rows of another shape, or labels none of which is in y.

    Notes
    -----
    Without validation rows, the rows are cross-fitted over 5 stratified folds: each fold in turn validates the rows of
    the others, and a row's value is the mean over the rows that it was not in a fold with. Labels of validation rows
    count as right, so wrong ones among them cost accuracy. A validation label that no training row carries is matched
    by none.

    With rows sorted from near (1) to far (n), theorem 1 of Jia et al. 2019 (arXiv:1908.08619) is
    ``s_n = [y_n = y] / max(K, n)`` and ``s_i = s_(i+1) + ([y_i = y] - [y_(i+1) = y]) / max(K, i)``: a cumulative sum
    from the far end. (The paper has K <= n, where its 1/n is the same.) Distances are in float64; two that differ by
    less than 2^-36 in cosine are a tie, which the row that comes first wins, whatever the blocks. Rows of zeros are
    alike, and at a right angle to all others.

    Weights are accepted, as by every attributor, and do not enter: a player is a row. Time is O(n_val * n (d + log n)),
    memory O(batch_size * n), of which the distances of many rows are in a temporary file.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import KNNShapley
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:500], y[:500]
    >>> y[:3] = [7, 7, 7]  # they are 0, 1, 2
    >>> scores = KNNShapley(random_state=0).fit(X, y).scores_
    >>> int(scores.argmin()), bool((scores[:3] < 0).all())
    (0, True)
    """

    _parameter_constraints: dict = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "scale": [StrOptions({"auto", "standard", "unit"})],
        "task": [StrOptions({"auto", "classification", "regression"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "random_state": ["random_state"],
    }

    needs = Needs(features=True, validation=True)
    __metadata_request__fit = {"sample_weight": False}  # ignored, so a weighted fit need not ask about it

    def __init__(
        self,
        n_neighbors=5,
        *,
        scale="auto",
        task="auto",
        device="auto",
        batch_size="auto",
        random_state=None,
    ):
        self.n_neighbors = n_neighbors
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
            Class labels of any kind.
        X_val, y_val : array-like, default=None
            Rows that the values are asked about, in the form of X and y. None = cross-fitting over 5 folds.
        sample_weight, metadata_val : ignored
            Part of the contract of all attributors.

        Returns
        -------
        self
        """
        self._validate_params()
        check_validation(X_val, y_val)
        X, task, codes, classes = self._validate(X, y, sample_weight, self.task)
        if classes is None:
            raise ValueError(
                "KNNShapley counts neighbours with the right label, so it needs classes, and this is a regression; "
                "use ComplexityGap() or Influence() from sktda.attribution, or task='classification' if the numbers "
                "in y are classes"
            )
        self.task_, self.classes_ = task, classes
        rows = UnitRows(X, self.scale)
        if X_val is None:
            self.scores_ = self._cross_fitted(rows, codes)
            return self
        held = copy(rows)  # with the means and spreads of X
        held.X, held_codes = self._validation_rows(X, X_val, y_val)
        total = self._values(rows, np.arange(len(rows)), codes, held, np.arange(len(held)), held_codes)
        self.scores_ = total / len(held)
        return self

    def _validation_rows(self, X, X_val, y_val) -> tuple[Any, np.ndarray]:
        """(X_val as array or CSR, codes (n_val,); -1 = a class that is not in y)."""
        try:
            X_val = read_features(self, X_val, reset=False)
            labels = column_or_1d(read_target(y_val), warn=True).tolist()
        except (TypeError, ValueError) as error:
            raise type(error)(f"in the validation rows: {error}") from error
        if X_val.shape[1:] != X.shape[1:]:
            raise ValueError(f"rows of X_val have the shape {X_val.shape[1:]}, but those of X have {X.shape[1:]}")
        check_consistent_length(X_val, labels)
        known = {label: code for code, label in enumerate(self.classes_.tolist())}
        codes = np.array([known.get(label, -1) for label in labels])
        if (codes < 0).all():
            raise ValueError(
                f"none of the labels in y_val (such as {labels[0]!r}) is a class of y (such as "
                f"{self.classes_.tolist()[0]!r}); give labels of the same kind"
            )
        return X_val, codes

    def _cross_fitted(self, rows: UnitRows, codes: np.ndarray) -> np.ndarray:
        """Values of each row, averaged over the validation rows in other folds than its own."""
        n = len(rows)
        order = random_of(self.random_state).permutation(n)
        fold = np.empty(n, dtype=int)
        fold[order[np.argsort(codes[order], kind="stable")]] = np.arange(n) % FOLDS  # dealt out class by class
        total, times = np.zeros(n), np.zeros(n)
        for number in range(min(FOLDS, n)):
            train, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            total[train] += self._values(rows, train, codes[train], rows, held, codes[held])
            times[train] += len(held)
        return total / times

    def _values(
        self,
        rows: UnitRows,
        train: np.ndarray,
        codes: np.ndarray,
        held_rows: UnitRows,
        held: np.ndarray,
        held_codes: np.ndarray,
    ) -> np.ndarray:
        """Sums over the validation rows `held` of the values of the rows `train`."""
        device, n = exact_device(resolve_device(self.device)), len(train)
        labels, held_labels = torch.from_numpy(codes).to(device), torch.from_numpy(held_codes).to(device)
        total = torch.zeros(n, dtype=torch.float64, device=device)
        cells = CHUNK.get(device.type, CHUNK["cpu"])
        lines = max(1, cells // n)
        weights = _weights(n, self.n_neighbors, device)

        def work(part: slice) -> None:
            cosine = _cosines(rows, train, held_rows.block(held[part], torch.float64, device))
            found = torch.zeros_like(total)
            shape = min(lines, len(cosine)), n
            # of many rows it takes long to have the memory given anew
            every_key, every_value = (torch.empty(shape, dtype=t, device=device) for t in (torch.int64, torch.float64))
            for some in slices(len(cosine), lines):
                keys, values = (each[: some.stop - some.start] for each in (every_key, every_value))
                for columns in slices(n, cells):
                    right = labels[columns] == held_labels[part][some, None]
                    keys[:, columns] = _keys(cosine[some, columns], right, columns.start, n)
                _sort(keys)
                farther: Any = 0.0
                for columns in reversed(list(slices(n, cells))):
                    order, right = _read(keys[:, columns], n)
                    part_values, farther = _valued(right, [each[columns] for each in weights], farther)
                    values.scatter_(1, order, part_values)  # index_add_ varies on CUDA
                found += values.sum(dim=0) if len(values) > 1 else values[0]
            total.add_(found)

        size = max(LEAST, 4 * BLOCK_BYTES // (8 * n)) if self.batch_size == "auto" else self.batch_size
        for_blocks(len(held), size, work)
        return total.cpu().numpy()


def shapley_values(right: Tensor, k: int) -> Tensor:
    """Shapley value of each training row for the share of right votes among its k nearest (float64, shape of right).

    right (n_val, n): whether the label is that of the validation row, from the nearest row to the farthest.
    A line sums to the number of True among its first k, divided by k. O(n_val n) time and memory.
    Source: Jia et al. 2019 (arXiv:1908.08619), theorem 1, its recursion summed by parts: with c_i = 1/max(k, i),
    s_i = c_i r_i - sum over j > i of (c_(j-1) - c_j) r_j.
    """
    return _valued(right.double(), _weights(right.shape[1], k, right.device), 0.0)[0]


def _weights(n: int, k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(c_(i-1) - c_i, c_i + the former) of `shapley_values`, from near to far, (n,) each."""
    share = 1.0 / torch.arange(1, n + 1, device=device).clamp(min=k).double()
    fall = torch.cat([share[:1], share[:-1]]) - share
    return fall, share + fall


def _valued(right: Tensor, weights: Sequence[Tensor], farther: Any) -> tuple[Tensor, Tensor]:
    """(`shapley_values` of consecutive rows, the sums at the nearest of them).

    right (n_val, m) of 0 and 1, float64; weights as `_weights`, of these rows; farther (n_val, 1): the sums of all
    rows farther away.
    """
    fall, own = weights
    sums = (right * fall).flip(1).cumsum(dim=1).flip(1).add_(farther)  # row i included, hence its fall in `own`
    return (right * own).sub_(sums), sums[:, :1]


def _cosines(rows: UnitRows, train: np.ndarray, held: Tensor) -> Tensor:
    """(n_val, n_train) cosines of validation rows of length 1 with training rows, which are read block by block."""
    shape = len(held), len(train)
    in_file = held.device.type == "cpu" and 8 * len(held) * len(train) > 4 * BLOCK_BYTES
    cosine = torch.from_numpy(room(shape)) if in_file else held.new_empty(shape)
    blank = ~held.any(dim=1)
    for part in slices(len(train), block_rows(rows.X)):
        block = rows.block(train[part], torch.float64, held.device)
        torch.mm(held, block.T, out=cosine[:, part])
        if blank.any():
            cosine[blank, part] = (~block.any(dim=1)).double()
    return cosine


def _keys(cosine: Tensor, right: Tensor, start: int, n: int) -> Tensor:
    """Whole numbers that order rows start, start + 1, ... of n by falling cosine, ties by position.

    Distance, position and whether the label is right share one number, so that plain values are sorted, and nothing is
    looked up after it: NumPy sorts them with vector instructions, 15 times as fast as a stable argsort.
    """
    bits = _position_bits(n)
    # a cosine is at most 1, so that a key stays within 2^62 once the position and the label are behind it
    keys = cosine.mul(-(2.0 ** (61 - bits))).round_().long()
    position = torch.arange(start, start + cosine.shape[1], device=keys.device)
    return keys.bitwise_left_shift_(bits).add_(position).bitwise_left_shift_(1).add_(right)


def _position_bits(n: int) -> int:
    return max(POSITION_BITS, n.bit_length())


def _sort(keys: Tensor) -> None:
    """Each line."""
    if keys.device.type == "cpu":
        keys.numpy().sort(axis=1)
    else:
        keys.copy_(keys.sort(dim=1).values)


def _read(keys: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """(positions, whether their label is right as 0 and 1) of `_keys`."""
    return (keys >> 1).bitwise_and_((1 << _position_bits(n)) - 1), (keys & 1).double()
