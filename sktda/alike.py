"""Rows that are equal or nearly equal to others, and rows that are unlike all others, by the features alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from sktda.attribution.features.kernel_forest import NARROW, evened
from sktda.data import block_rows, n_columns, row_block, slices
from sktda.engine.unit_rows import UnitRows
from sktda.findings.copies import equal_rows
from sktda.findings.finding import Columns, Finding

MOST_ROWS = 20_000  # different ones, up to which each is compared with each
NEIGHBOURS = 10
FEWEST_ROWS = 3 * NEIGHBOURS
WIDE = 64  # columns; of more, distances are those in as many random directions, which are right to some 9 %
BY_CHANCE = 0.1  # pairs as near as near duplicates that independent rows would have, at most
NEAR = 0.2  # of the distance to the tenth neighbour: no pair farther apart is a near duplicate
SLIGHT = 0.1  # spreads of the columns, root mean square: nor is a pair that differs by more
GAP, OFTEN = 3.0, 0.2  # by which the next row is farther, in all but so many cases
GROWTH, HALVINGS = 1.4, 8  # times as many pairs within a limit as within half of it
FAR = 5.0  # robust deviations of the log of the isolation, beyond which a row is unlike all others
AT_LEAST = 1.5  # times farther from its neighbours than these from theirs
BLOCK = 2**22  # similarities held at a time


@dataclass(frozen=True, eq=False)
class Alike:
    """What `compare_rows` finds.

    Parameters
    ----------
    duplicate_of : ndarray of shape (n,)
        Position of the first row that the row is equal to in all features; -1 for none and for that first row itself.
    near_duplicate_of : ndarray of shape (n,)
        The same of rows that are nearly equal; -1 for those that are equal to an earlier one, too.
    isolation : ndarray of shape (n,)
        How many times farther the row is from its nearest neighbours than these are from theirs. NaN where rows were
        not compared.
    is_outlier : ndarray of shape (n,)
        Whether the row is unlike all others.
    copy_of : ndarray of shape (n_val,)
        Of each validation row the position of the first row of X that it is equal or nearly equal to; -1 for none.
    by_nature : bool
        Whether rows are equal because there are few different ones that a row can be, such as answers to three
        questions; nearly equal ones say nothing then, and are not looked for.
    is_compared : bool
        Whether each row was compared with each: for 30 to 20,000 different ones.
    """

    duplicate_of: np.ndarray
    near_duplicate_of: np.ndarray
    isolation: np.ndarray
    is_outlier: np.ndarray
    copy_of: np.ndarray
    by_nature: bool
    is_compared: bool

    def findings(self, codes: np.ndarray | None = None) -> list[Finding]:
        """One finding for each of "duplicate", "near_duplicate" and "outlier", if there are any.

        codes (n,): class of each row, -1 for none, by which copies with another label are counted. Equal rows that are
        so by nature are none. detail["of"]: positions of the first rows; of outliers their "isolation".
        """
        found = []
        equal = np.full_like(self.duplicate_of, -1) if self.by_nature else self.duplicate_of
        for kind, what, first in (
            ("duplicate", "equal to an earlier one in all features", equal),
            ("near_duplicate", "nearly equal to an earlier one", self.near_duplicate_of),
        ):
            rows = np.flatnonzero(first >= 0)
            if not len(rows):
                continue
            message = f"{_rows(rows)} {what}"
            if codes is not None:
                known = (codes[rows] >= 0) & (codes[first[rows]] >= 0)
                other = int((known & (codes[rows] != codes[first[rows]])).sum())
                same = f", {other:,} of them with another label" if other else ", with the same label"
                message += ", with another label" if other == len(rows) == 1 else same
            found.append(Finding(kind, message, rows, detail={"of": first[rows]}))
        rows = np.flatnonzero(self.is_outlier)
        if len(rows):
            times = self.isolation[rows]
            message = (
                f"{_rows(rows)} unlike all others: at least {times.min():.1f} times farther from the nearest rows than "
                "these are from theirs"
            )
            found.append(Finding("outlier", message, rows, detail={"isolation": times}))
        return found


def compare_rows(X: Any, X_val: Any = None) -> Alike:
    """Look for equal rows, for nearly equal ones and for rows that are unlike all others.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (n, ...)
        Numbers without NaN; rows of more dimensions are flattened.
    X_val : ndarray or CSR matrix of shape (n_val, ...), default=None
        Validation or test rows: which of them are copies of rows of X. They take part in everything else, too.

    Returns
    -------
    alike : Alike

    Notes
    -----
    Equal rows are found at any size, by hashes that are then compared cell by cell. The rest takes the distance of each
    of at most 20,000 different rows from each: O(n^2) time, memory in blocks. Distances are those of pixels and the
    like as they are, and of other columns after their scales are evened (as for the forest of `KernelForest`), so that
    a large value in a skewed column does not make a row strange.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 5))
    >>> X[7], X[9] = X[3], X[4] + 1e-3
    >>> X[11] = 20
    >>> alike = compare_rows(X)
    >>> for finding in alike.findings():
    ...     print(finding.kind, finding.rows, finding.detail.get("of"))
    duplicate [7] [3]
    near_duplicate [9] [4]
    outlier [11] None
    """
    n = X.shape[0]
    if X_val is not None:
        X = sp.vstack([X, X_val], format="csr") if sp.issparse(X) else np.concatenate([X, X_val])
    rows = np.arange(X.shape[0])
    with np.errstate(over="ignore", invalid="ignore"):
        columns = Columns.read(X)
        first, by_nature = (rows, False) if columns is None else equal_rows(columns)
    kept = np.flatnonzero(first == rows)
    near, isolation, outlier = rows.copy(), np.full(len(rows), np.nan), np.zeros(len(rows), dtype=bool)
    is_compared = FEWEST_ROWS <= len(kept) <= MOST_ROWS
    if is_compared:
        distance, at = nearest(points_of(X, kept))
        if not by_nature:
            near[kept] = kept[first_of_near(distance, at)]
        isolation[kept] = isolated(distance, at)
        outlier[kept] = unlike(isolation[kept])
    any_of = np.where(first[n:] < rows[n:], near[first[n:]], near[n:])
    copy_of = np.where(any_of < n, any_of, -1)
    isolation = isolation[first[:n]]
    duplicate_of, near_of = (np.where(found < rows, found, -1)[:n] for found in (first, near))
    parts = duplicate_of, near_of, isolation, outlier[:n]
    return Alike(*parts, copy_of, by_nature, is_compared)


def points_of(X: Any, kept: np.ndarray) -> np.ndarray:
    """The rows `kept` of X as float64 points (k, at most WIDE): distances are differences in spreads, root mean square.

    More columns than WIDE are projected; of more than NARROW, columns of different units are standardised, not evened.
    """
    columns, width = UnitRows(X), n_columns(X)
    spread = columns.spread
    if columns.scale == "unit":
        spread = np.full(width, np.sqrt(np.square(spread).mean()))
    elif width <= NARROW:
        X, spread = evened(X), np.ones(width)
    project = np.eye(width) if width <= WIDE else np.random.RandomState(0).standard_normal((width, WIDE)) / WIDE**0.5
    project /= spread[:, None] * np.sqrt(width)
    if sp.issparse(X):
        return np.asarray(X[kept] @ project)
    return np.vstack([row_block(X, kept[part]) @ project for part in slices(len(kept), block_rows(X))])


def nearest(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distances, positions), both (n, NEIGHBOURS), of the nearest other points (n, d), nearest first."""
    import torch

    n = len(points)
    about = torch.from_numpy(points - points.mean(axis=0)).float()
    lengths = about.square().sum(dim=1)
    candidates = np.empty((n, NEIGHBOURS + 2), dtype=np.int64)  # itself, and one that rounding lets in
    for part in slices(n, max(1, BLOCK // n)):
        closeness = torch.addmm(lengths, about[part], about.T, beta=-1, alpha=2)
        candidates[part] = closeness.topk(NEIGHBOURS + 2, dim=1, sorted=False).indices.numpy()
    distance = np.empty(candidates.shape)
    for part in slices(n, max(1, BLOCK // points.shape[1] // NEIGHBOURS)):
        gaps = points[candidates[part]] - points[part, None]
        distance[part] = np.sqrt(np.einsum("ijk,ijk->ij", gaps, gaps))
    distance[candidates == np.arange(n)[:, None]] = np.inf
    order = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
    return np.take_along_axis(distance, order, axis=1), np.take_along_axis(candidates, order, axis=1)


def first_of_near(distance: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Position (n,) of the first of the rows that a row is nearly equal to, itself where there is none.

    distance, at (n, k) as `nearest` gives them for `points_of`. Of independent rows of m dimensions, (distance to the
    first neighbour / that to the k-th)^m is the smallest of k - 1 uniform numbers. A pair is nearly equal where rows as
    near are expected BY_CHANCE times among all. m is that of the fifth neighbour, by its median, which near duplicates
    do not move. Rows that differ in a number or two beside equal categories are nearer than that by nature, and others
    follow closely: where more than OFTEN of the near rows have a next neighbour less than GAP times as far as their
    farthest near one, or more than GROWTH times as many rows are near as within half the limit, it is halved, and at
    last there are none.
    """
    n, k = distance.shape
    ratio = np.divide(distance, distance[:, -1:], out=np.ones_like(distance), where=distance[:, -1:] > 0)
    ratio = np.maximum(ratio, NEAR / SLIGHT * distance)
    half = np.clip(np.median(ratio[:, k // 2 - 1]), 1e-3, 0.999)
    limit = min(NEAR, (BY_CHANCE / (n * (k - 1))) ** (np.log(half) / np.log(0.5)))
    padded = np.column_stack([np.zeros(n), ratio, np.ones(n)])
    for _ in range(HALVINGS):
        inside = (ratio <= limit).sum(axis=1)
        near = np.flatnonzero(inside)
        follows = (padded[near, inside[near] + 1] < GAP * padded[near, inside[near]]).sum()
        if follows <= OFTEN * len(near) <= OFTEN * GROWTH * (ratio[:, 0] <= limit / 2).sum():
            break
        limit /= 2
    else:
        return np.arange(n)
    i, j = np.nonzero(ratio <= limit)
    graph = sp.coo_array((np.ones(len(i)), (i, at[i, j])), shape=(n, n))
    group = connected_components(graph, directed=False)[1]
    firsts = np.full(group.max() + 1, n)
    np.minimum.at(firsts, group, np.arange(n))
    return firsts[group]


def isolated(distance: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Mean distance (n,) to the neighbours, by the median of theirs."""
    own = distance.mean(axis=1)
    return own / np.maximum(np.median(own[at], axis=1), 1e-300)


def unlike(isolation: np.ndarray) -> np.ndarray:
    """Which rows (n,) are farther from all others than the bulk: FAR robust deviations above the median of the log."""
    logs = np.log(np.maximum(isolation, 1e-300))
    middle = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - middle))
    return logs > np.maximum(middle + FAR * spread, np.log(AT_LEAST))


def _rows(rows: np.ndarray) -> str:
    return "1 row is" if len(rows) == 1 else f"{len(rows):,} rows are"
