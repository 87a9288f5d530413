"""Numbers that stand for "not known": -999, 9999, -1 among counts.

A value is named where it is repeated (in 5 rows and half a per cent of them) and stands apart from all others:

- written as sentinels are (nines such as 99, -999 or 99.9, -999.25, the extreme whole numbers of 16 and 32 bits), it is
  further from the others than these are from each other, or is negative where all others are not;
- -1 only where all others are not negative and have ten values at least: in fewer it may be a step of a scale;
- any other number but 0 only where ten others at least lie within a third of that distance. Zero is left in peace: it
  is a true nothing more often than not.

Sparse matrices are not looked into: what is not known is not stored there.
"""

from __future__ import annotations

import numpy as np

from sktda.findings.finding import Columns, Finding
from sktda.findings.leaks import _bare
from sktda.room import parts

LEAST = 5  # rows
SHARE = 0.005  # of the rows
MANY = 10  # different values make a measurement or a count; fewer may be a scale
APART = 3.0  # ranges of the other values, for a number that does not look like a sentinel
SAMPLE = 256  # rows that rule out most columns
_NINES = [float(whole + part) for k in range(1, 10) for whole in ["9" * k] for part in ("", ".9", ".99")]
_WRITTEN = np.array([-1.0, -999.25, -32768.0, 32767.0, -2147483648.0, 2147483647.0, *_NINES, *(-v for v in _NINES)])
_SINGLE = _WRITTEN.astype(np.float32).astype(np.float64)
LOOK = np.union1d(_WRITTEN, _SINGLE[_SINGLE % 1 != 0])  # 99.9 in single precision is another number


def sentinels(columns: Columns) -> list[Finding]:
    """A finding for each sentinel value of each column, with the rows that hold it. O(n p)."""
    n = columns.values.shape[0]
    if not columns.is_table or columns.is_sparse or n < 2 * LEAST:
        return []
    found = []
    for j in _candidates(columns, max(LEAST, SHARE * n)):
        found += _found(columns.column(int(j)), columns.names[j], _bare(columns.names[j]), (int(j),))
    return found


def target_sentinels(y: np.ndarray) -> list[Finding]:
    """The same for a numeric target (n,), whose rows then have no value at all; `positions` is empty."""
    y = np.asarray(y, dtype=np.float64)
    return _found(y, "the target", None, ()) if len(y) >= 2 * LEAST else []


def _found(column: np.ndarray, shown: str, name: str | None, positions: tuple[int, ...]) -> list[Finding]:
    values, counts = np.unique(column[~np.isnan(column)], return_counts=True)
    found = []
    for value in sentinel_values(values, counts, max(LEAST, SHARE * len(column))):
        rows = np.flatnonzero(column == value)
        number = f"{value:g}" if value != np.round(value) else f"{value:.0f}"
        message = (
            f"{shown} holds {number} in {len(rows):,} rows, far from all its other values: probably a mark for a "
            "missing value"
        )
        found.append(Finding("sentinel", message, rows, name, positions, {"value": float(value)}))
    return found


def sentinel_values(values: np.ndarray, counts: np.ndarray, least: float) -> list[float]:
    """Those of the different values (ascending, with their counts) that are sentinels, by the rule of this module."""
    marked = np.isin(values, LOOK) & (counts >= least)
    rest = values[~marked]
    found = []
    if len(rest) >= 3:
        low, high = rest[0], rest[-1]
        for value in values[marked]:
            gap = max(low - value, value - high)
            alone = value < 0 <= low
            if (alone and len(rest) >= MANY) if value == -1 else (alone or gap > high - low):
                found.append(float(value))
    others = values[~np.isin(values, found)]  # one sentinel must not hide another
    if len(others) > MANY:
        for value, inner in ((others[0], others[1:]), (others[-1], others[:-1])):
            count = counts[np.searchsorted(values, value)]
            gap = max(inner[0] - value, value - inner[-1])
            if value != 0 and count >= least and gap > APART * (inner[-1] - inner[0]):
                found.append(float(value))
    return found


def _candidates(columns: Columns, least: float) -> np.ndarray:
    """Columns of numbers whose smallest or largest value is repeated often enough."""
    values = columns.values
    if values.dtype.kind not in "iuf":
        return np.arange(0)
    if values.dtype.kind == "f":
        low, high = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
    else:
        low, high = values.min(axis=0), values.max(axis=0)
    lowest, highest = np.zeros((2, values.shape[1]), dtype=int)
    for part in parts(*values.shape):
        lowest += (values[part] == low).sum(axis=0)
        highest += (values[part] == high).sum(axis=0)
    often = (lowest >= least) | (highest >= least)
    often &= columns.ordered & (low < high)
    # what is not isolated in a sample is not isolated at all
    block = np.array(values[np.sort(np.random.default_rng(0).permutation(len(values))[:SAMPLE])], dtype=np.float64)
    block[(block == low) | (block == high) | np.isin(block, LOOK)] = np.nan
    first, last = np.fmin.reduce(block, axis=0), np.fmax.reduce(block, axis=0)
    near = np.fmax(first - low, high - last) <= last - first
    return np.flatnonzero(often & ~(near & ((low >= 0) | (first < 0))))
