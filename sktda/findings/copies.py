"""Rows that are equal in all features and differ in their label: one of the labels must be wrong.

That holds for copies, not for rows of a coarse table that coincide by nature: with three yes-or-no columns, equal rows
with different labels are no mistake. Copies are told from coincidences by leaving out one attribute at a time (a
column, or a block of adjacent columns of which at most one is 1, as one-hot encoding makes them). If the values of an
attribute agree in a share m of all pairs of rows, and P' pairs agree in everything else, then about m P' pairs agree
in everything by chance. Where the attribute that expects most explains a twentieth of the equal pairs (attributes that
depend on each other agree more often than that), rows coincide by nature, and nothing is reported; in tables with
copies it explains less than a hundredth. One column can never tell.
Nor is a group of more than ten rows and one per cent of them a mistake: that many are a common state, such as an empty
text or a row of defaults.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sktda.findings.finding import Columns, Finding, codes_of

MAX_ATTRIBUTES = 50  # left out in turn, evenly spaced in wider data;
SORTED = 5_000_000  # fewer, but eight at least, where that would sort more than this many numbers
EXPLAINED = 0.05  # share of the equal pairs that chance explains, from which on they are no copies
COMMON = 10, 0.01  # rows, and share of them: larger groups are a state that is common
BLOCK = 1 << 17  # values hashed at a time


def contradictions(columns: Columns, y: Any, names: np.ndarray | None = None) -> list[Finding]:
    """One finding (or none) of the groups of equal rows with more than one label.

    y (n,) labels; names (n,): what the message and the groups call the rows, their positions if None. `rows`: those of
    each group without its majority label, all rows of a group without a majority; detail["groups"]: all rows of each
    group. Rows are compared by a hash of 64 bits and then cell by cell; O(n p), and, where there are any, up to
    MAX_ATTRIBUTES sorts of n.
    """
    labels, codes = codes_of(y)
    if columns.values.shape[1] == 0:
        return []
    weights = _weights(columns.values.shape[1])
    hashes = row_hashes(columns, weights)
    common = max(COMMON[0], COMMON[1] * len(codes))
    groups = [group for group in _contradicting(hashes, codes) if len(group) <= common]
    if not groups or _coincide_by_nature(columns, hashes, weights):
        return []
    groups = [group for group in groups if _equal(columns, group)]
    if not groups:
        return []
    rows = np.sort(np.concatenate([_minority(group, codes) for group in groups]))
    what = "1 group of equal rows has" if len(groups) == 1 else f"{len(groups):,} groups of equal rows have"
    first, other = _two_labels(groups[0], codes)
    names = np.arange(len(codes)) if names is None else names
    message = (
        f"{what} different labels ({sum(map(len, groups)):,} rows; the first: row {names[first]} has "
        f"{labels[codes[first]]!r} and row {names[other]} has {labels[codes[other]]!r}, counted from 0), so that at "
        "least one label of each is wrong"
    )
    return [Finding("contradiction", message, rows, detail={"groups": [names[group] for group in groups]})]


def equal_rows(columns: Columns) -> tuple[np.ndarray, bool]:
    """(position (n,) of the first row that each is equal to, itself where that is the first; whether by nature).

    By nature: see the module; of groups that are common, too. O(n p), and as `contradictions` where there are any.
    """
    first = np.arange(columns.values.shape[0])
    if columns.values.shape[1] == 0:
        return first, False
    weights = _weights(columns.values.shape[1])
    hashes = row_hashes(columns, weights)
    order = np.argsort(hashes, kind="stable")
    in_order = hashes[order]
    again = 1 + np.flatnonzero(in_order[1:] == in_order[:-1])  # few, so that nothing else has a line per row
    begins = np.flatnonzero(np.diff(again, prepend=-1) > 1)  # of the runs of equal hashes
    first[order[again]] = np.repeat(order[again[begins] - 1], np.diff(begins, append=len(again)))
    later = np.sort(order[again])
    different = later[~_equal_pairs(columns, later, first[later])]
    first[different] = different  # of the same hash by chance
    if len(later) == 0:
        return first, False
    return first, _coincide_by_nature(columns, hashes, weights)


def row_hashes(columns: Columns, weights: np.ndarray) -> np.ndarray:
    """64-bit hashes (n,) of rows: equal for equal rows, dense or sparse, whatever the sign of a zero."""
    values = columns.values
    if columns.is_sparse:
        # sums modulo 2^64, whose differences are those of the rows all the same
        parts = np.concatenate([[np.uint64(0)], np.cumsum(_mixed(values.data) * weights[values.indices])])
        return parts[values.indptr[1:]] - parts[values.indptr[:-1]]
    hashes = np.empty(len(values), dtype=np.uint64)
    size = max(1, BLOCK // values.shape[1])
    for start in range(0, len(values), size):
        block = values[start : start + size]
        hashes[start : start + size] = (_mixed(block) * weights).sum(axis=1, dtype=np.uint64)
    return hashes


def _weights(n_columns: int) -> np.ndarray:
    """One odd number per column."""
    # odd, so that no bit of a value is lost
    return np.random.default_rng(0).integers(0, 2**64, n_columns, dtype=np.uint64) | np.uint64(1)


def _mixed(values: np.ndarray) -> np.ndarray:
    """The bits of numbers, stirred; 0 stays 0, so that zeros which a sparse matrix leaves out add nothing."""
    numbers = np.array(values, dtype=np.float64) + 0.0  # -0.0 becomes 0.0
    numbers[np.isnan(numbers)] = np.nan  # NaN has many bit patterns
    bits = np.ascontiguousarray(numbers).view(np.uint64)
    for shift, factor in ((32, 0xD6E8FEB86659FD93), (32, 0xA0761D6478BD642F)):
        bits ^= bits >> np.uint64(shift)
        bits *= np.uint64(factor)
    return bits ^ (bits >> np.uint64(32))


def _contradicting(hashes: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
    """Positions of the rows of every hash that has more than one label."""
    order = np.argsort(hashes, kind="stable")
    again = hashes[order]
    again = np.concatenate([[False], again[1:] == again[:-1]])  # as the one before
    several = again | np.append(again[1:], False)
    order, again = order[several], again[several]
    if not len(order):
        return []
    starts = np.flatnonzero(~again)
    low, high = (reduce.reduceat(codes[order], starts) for reduce in (np.minimum, np.maximum))
    ends = np.append(starts[1:], len(order))
    groups = [order[starts[i] : ends[i]] for i in np.flatnonzero(low != high)]
    return sorted(groups, key=lambda group: group[0])


def _equal(columns: Columns, group: np.ndarray) -> bool:
    block = columns.values[group]
    if columns.is_sparse:
        return (block[1:] - block[np.zeros(len(group) - 1, dtype=int)]).count_nonzero() == 0
    return np.array_equal(block, np.broadcast_to(block[:1], block.shape), equal_nan=block.dtype.kind == "f")


def _equal_pairs(columns: Columns, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each row (k,) is equal to the other one of its pair."""
    values = columns.values
    if columns.is_sparse:
        apart = values[rows] - values[others]
        apart.eliminate_zeros()
        return apart.getnnz(axis=1) == 0
    same = np.empty(len(rows), dtype=bool)
    size = max(1, BLOCK // values.shape[1])
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        one, other = values[rows[part]], values[others[part]]
        same[part] = ((one == other) | ((one != one) & (other != other))).all(axis=1)
    return same


def _minority(group: np.ndarray, codes: np.ndarray) -> np.ndarray:
    labels, counts = np.unique(codes[group], return_counts=True)
    if (counts == counts.max()).sum() > 1:
        return group
    return group[codes[group] != labels[counts.argmax()]]


def _two_labels(group: np.ndarray, codes: np.ndarray) -> tuple[int, int]:
    """The first row, and the first one with another label."""
    return int(group[0]), int(group[codes[group] != codes[group[0]]][0])


def _coincide_by_nature(columns: Columns, hashes: np.ndarray, weights: np.ndarray) -> bool:
    equal = _pairs(hashes)
    for attribute in _attributes(columns):
        parts = np.zeros(len(hashes), dtype=np.uint64)
        for j in attribute:
            parts += _mixed(columns.column(j)) * weights[j]
        share = _pairs(parts) / (len(hashes) * (len(hashes) - 1) / 2)
        # Hashes are sums over columns, so a difference leaves the attribute out. Pairs that agree in all else and
        # differ here are the share 1 - m of those by chance, of which the share m is equal.
        by_chance = (_pairs(hashes - parts) - equal) * share / max(1 - share, 1e-12) if share < 1 else 0.0
        if by_chance >= EXPLAINED * equal:
            return True
    return False


def _pairs(hashes: np.ndarray) -> float:
    """How many pairs of rows are equal."""
    counts = np.unique(hashes, return_counts=True)[1].astype(float)
    return float((counts * (counts - 1)).sum() / 2)


def _attributes(columns: Columns) -> list[list[int]]:
    """Columns, or blocks of adjacent ones of which at most one is 1 and the others are 0."""
    n, p = columns.values.shape
    most = min(MAX_ATTRIBUTES, max(8, SORTED // n))
    if columns.is_sparse:  # the fullest ones; single columns
        filled = np.asarray((columns.values != 0).sum(axis=0)).ravel()
        return [[int(j)] for j in np.argsort(-filled, kind="stable")[:most]]
    if p > 20 * MAX_ATTRIBUTES:
        return [[int(j)] for j in np.linspace(0, p - 1, most).astype(int)]
    blocks: list[list[int]] = []
    taken = np.zeros(0)
    for j in range(p):
        column = columns.column(j)
        binary = bool(((column == 0) | (column == 1)).all())
        if binary and blocks and len(taken) and not (taken * column).any():  # no row has two ones
            blocks[-1].append(j)
            taken = taken + column
        else:
            blocks.append([j])
            taken = column.copy() if binary else np.zeros(0)
    chosen = np.unique(np.linspace(0, len(blocks) - 1, min(len(blocks), most)).astype(int))
    return [blocks[i] for i in chosen]
