"""A column that determines the label alone: made from it, or what it was made from.

Classes: the column has few values, every one of them goes with a single label in *every* row, and that is beyond
chance. A number of more values than there are classes is no leak where a threshold would do: an honest measurement may
separate the classes. Several columns together leak where each is 1 for one class alone and they leave at most one
class without (the label, one-hot encoded). Regression: the column orders the rows as the target does (an affine or
monotone copy, such as the price in another currency or on a log scale), but for rounding.

Only agreement in every row counts. Such a column cannot tell a wrong label from a right one, it would only hide all of
them; a column that disagrees somewhere is evidence, however strong, and stays.
"""

from __future__ import annotations

import numpy as np

from sktda.findings.finding import Columns, Finding, codes_of

SAMPLE = 256  # rows that rule out most columns
BEYOND_CHANCE = 30.0  # nats of label that a column must give away; 50 rows of two even classes have 33
KNOWN = 0.9  # of the cells of a column must be there
COPY = 0.9999  # rank correlation with a numeric target, and
MISPLACED = 0.05  # share of neighbours in the other order: only rounding is in between
NEARLY = 0.999  # in a sample
ENOUGH = 30  # rows, and 10 different values, to call an order a copy


def leaks(columns: Columns, y: np.ndarray, task: str) -> list[Finding]:
    """A finding for every column that gives the label away, and one for a one-hot encoded label.

    `positions` are the columns to leave out. A cheap look at SAMPLE rows goes first, O(n log n) for what is left.
    """
    n, p = columns.values.shape
    if not columns.is_table or n < ENOUGH or p == 0:
        return []
    if task == "regression":
        return _copies(columns, np.asarray(y, dtype=np.float64))
    labels, codes = codes_of(y)
    if len(labels) < 2:
        return []
    found = []
    candidates = _candidates(columns, codes)
    for j in candidates:
        column = columns.column(j)
        if gives_away(column, codes, ordered=bool(columns.ordered[j])):
            values = len(np.unique(column[~np.isnan(column)]))
            message = (
                f"{columns.names[j]} gives the label away: each of its {values} values goes with one label in all "
                "rows, so it cannot tell wrong labels from right ones"
            )
            found.append(Finding("leak", message, np.arange(0), _bare(columns.names[j]), (int(j),)))
    return found + _one_hot(columns, codes, candidates, {finding.positions[0] for finding in found})


def gives_away(column: np.ndarray, codes: np.ndarray, *, ordered: bool) -> bool:
    """Whether every value (NaN = unknown) goes with one label, more than by chance, and not by a threshold."""
    known = ~np.isnan(column)
    if known.mean() < KNOWN:
        return False
    values, value = np.unique(column[known], return_inverse=True)
    code = codes[known]
    n_classes = len(np.unique(code))
    # values that hardly repeat, such as names of rows, go with one label each whatever they are
    if len(values) < n_classes or n_classes < 2 or 2 * len(values) > len(value):
        return False
    label = np.empty(len(values), dtype=np.int64)
    label[value] = code  # that of the last such row, to which all are held
    if (label[value] != code).any():
        return False
    if ordered and len(values) > n_classes and np.count_nonzero(np.diff(label)) == n_classes - 1:
        return False  # classes are intervals
    # the first row of a value says which label goes with it; each further one would have that by chance only
    surprise = -np.log(np.bincount(code)[label] / len(code))
    return float((np.bincount(value) - 1) @ surprise) >= BEYOND_CHANCE


def _candidates(columns: Columns, codes: np.ndarray) -> np.ndarray:
    """Columns whose values all go with one label in a sample, and repeat there."""
    rows = np.sort(np.random.default_rng(0).permutation(len(codes))[:SAMPLE])
    if columns.is_sparse:  # a leak is nonzero in all rows of a class or in none; a class at a time saves memory
        whole, filled = np.ones(columns.values.shape[1], dtype=bool), np.zeros(columns.values.shape[1], dtype=bool)
        for c in np.unique(codes):
            rows = np.flatnonzero(codes == c)
            nonzero = columns.values[rows].count_nonzero(axis=0)
            whole &= (nonzero == len(rows)) | (nonzero == 0)
            filled |= nonzero > 0
        return np.flatnonzero(whole & filled)
    block = np.asarray(columns.values[rows], dtype=np.float64)
    order = np.argsort(block, axis=0, kind="stable")
    same = np.diff(np.take_along_axis(block, order, axis=0), axis=0) == 0
    other = np.diff(codes[rows][order], axis=0) != 0
    return np.flatnonzero(~(same & other).any(axis=0) & (same.sum(axis=0) >= len(rows) // 4))


def _one_hot(columns: Columns, codes: np.ndarray, candidates: np.ndarray, named: set[int]) -> list[Finding]:
    """Columns of two values, one of them for all rows of one class and for no other."""
    classes, sizes = np.unique(codes, return_counts=True)
    if len(classes) < 3 or len(codes) < 2 * ENOUGH:
        return []
    first = np.array([np.flatnonzero(codes == c)[0] for c in classes])
    seen = columns.values[first]
    seen = seen.toarray() if columns.is_sparse else np.asarray(seen, dtype=np.float64)
    # in one row of each class, the value of one class differs from that of all the others
    ranks = np.sort(seen, axis=0)
    alone = (ranks[0] != ranks[1]) & (ranks[1] == ranks[-1]) | (ranks[-1] != ranks[-2]) & (ranks[0] == ranks[-2])
    told: dict[int, list[int]] = {}
    for j in np.intersect1d(np.flatnonzero(alone), candidates) if columns.is_sparse else np.flatnonzero(alone):
        usual = ranks[len(classes) // 2, j]  # of three or more all but one are equal, the middle one among them
        k = int(np.flatnonzero(seen[:, j] != usual)[0])
        column = columns.column(int(j))
        if (column[codes == classes[k]] == seen[k, j]).all() and (column[codes != classes[k]] == usual).all():
            told.setdefault(k, []).append(int(j))
    if len(told) < len(classes) - 1 or sizes.min() < 2:
        return []
    positions = tuple(sorted(j for group in told.values() for j in group if j not in named))
    if not positions:
        return []
    names = [columns.names[j] for j in positions]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    message = f"{shown} give the label away together: each is one value for all rows of one label and for no other"
    return [Finding("leak", message, np.arange(0), ", ".join(map(_bare, names)), positions)]


def _copies(columns: Columns, y: np.ndarray) -> list[Finding]:
    if len(np.unique(y)) < 10:
        return []
    rows = np.sort(np.random.default_rng(0).permutation(len(y))[:SAMPLE])
    found = []
    for part in range(0, len(columns.ordered), SAMPLE):
        block = columns.values[rows, part : part + SAMPLE]
        block = block.toarray() if columns.is_sparse else np.asarray(block, dtype=np.float64)
        # unknown cells would hide a copy in the ranks of a sample: such columns are looked at whole
        close = np.isnan(block).any(axis=0) | (np.abs(_rank_correlation(block, y[rows][:, None])) > NEARLY)
        found += [int(part + j) for j in np.flatnonzero(close & columns.ordered[part : part + SAMPLE])]
    return [_copy(columns, j) for j in found if is_copy(columns.column(j), y)]


def is_copy(column: np.ndarray, y: np.ndarray) -> bool:
    """Whether a column (NaN = unknown) orders the rows as y (n,) does, or the other way round, but for rounding."""
    known = ~np.isnan(column)
    if known.mean() < KNOWN or len(np.unique(column[known])) < 10:
        return False
    column, y = column[known], y[known]
    correlation = float(_rank_correlation(column, y))
    if abs(correlation) < COPY:
        return False
    # ties of the column, which rounding makes, in the order of y
    in_order = y[np.lexsort((y, column if correlation > 0 else -column))]
    return bool((np.diff(in_order) < 0).mean() < MISPLACED)


def _copy(columns: Columns, j: int) -> Finding:
    message = f"{columns.names[j]} gives the target away: it orders the rows exactly as the target does"
    return Finding("leak", message, np.arange(0), _bare(columns.names[j]), (j,))


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's, of columns along the first axis; 0 for constant ones."""
    from scipy.stats import rankdata

    a, b = (ranks - ranks.mean(axis=0) for ranks in (rankdata(a, axis=0), rankdata(b, axis=0)))
    return (a * b).sum(axis=0) / np.maximum(np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0)), 1e-300)


def _bare(name: str) -> str:
    """The name of a column without the word column."""
    return name.removeprefix("column ").strip("'\"").removesuffix(" (counted from 0)")
