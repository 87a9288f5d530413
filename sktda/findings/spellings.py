"""Labels that are one to a reader: " no" and "no", "Yes" and "yes", "0" and "0.0".

Two labels are one, and are merged, where they are equal after

- composing Unicode (NFC), and full-width and half-width forms and non-breaking spaces as the common ones. Not NFKC:
  it also makes "10²" the number 102 and "①" a 1;
- stripping, one space for several, and no invisible characters (zero-width spaces, soft hyphens, byte order marks);
- dashes and apostrophes of any kind as "-" and "'";
- leaving out one full stop at the end;
- lower case. Not case folding: it makes one of "Maße" and "Masse". The capital İ of Turkish is an i; ı stays a letter
  of its own;
- for decimal numbers, leaving out zeros at the end of the fraction: "0", "0." and "0.0".

Two kinds are reported and not merged. Leading zeros may belong to a code ("01" and "1" as postal codes do). In a label
of one or two characters case may be the meaning (handwritten a and A, Co and CO, mg and Mg): such labels are merged
unless a column of the features tells them apart, or there are no features to look at.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import numpy as np

from sktda.findings.finding import Columns, Finding, codes_of

INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))
ONE_FOR_ALL = str.maketrans(
    {**dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"), **dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'")}
)
DECIMAL = re.compile(r"([+-]?)(\d+)(?:\.(\d*))?")
SHORT = 2  # characters: in longer labels case is never the meaning
APART = 5.0  # standard errors between the means of two spellings, in any column: 1 in 3.5 million by chance
ENOUGH = 5  # rows of both spellings to see a difference


def merge_spellings(y: Any, X: Any = None) -> tuple[np.ndarray, list[Finding]]:
    """Labels with one spelling per class, and what was merged or looks as if it should be.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels. Numbers and booleans have no spelling: they come back as they are.
    X : array-like or sparse matrix of shape (n, ...), default=None
        Features, which decide about labels of one or two characters that differ by case.

    Returns
    -------
    merged : ndarray of shape (n,)
        The most frequent tidy spelling (no needless spaces, composed) of each label; the text is one that y has.
    findings : list of Finding
        At most one of what was merged (`rows`: those whose spelling is another), one of labels that differ by case and
        one of numbers with leading zeros that were left apart.

    Examples
    --------
    >>> merged, findings = merge_spellings(["yes", "no", " no", "Yes", "yes", "no"])
    >>> merged.tolist()
    ['yes', 'no', 'no', 'yes', 'yes', 'no']
    >>> findings[0].message
    "labels that are one to a reader were taken as one: ' no' (1 row) as 'no', 'Yes' (1 row) as 'yes'"
    """
    y = np.asarray(y)
    if y.dtype.kind not in "OUST":
        return y, []
    labels, codes = codes_of(y)
    counts = np.bincount(codes, minlength=len(labels))
    cased = _groups(labels, reader_key)
    groups, apart = [], []
    for members in cased:
        parts = _by_case(members, labels, codes, X)
        groups += parts
        apart += [members] if len(parts) > 1 else []
    what = "differ by case only, which may be their meaning"
    findings = _left_apart(apart, labels, codes, counts, what)
    target = np.arange(len(labels))
    for members in groups:
        target[members] = min(members, key=lambda i: (not _is_tidy(labels[i]), -counts[i], str(labels[i])))
    kept = np.unique(target)
    numbers = [kept[group].tolist() for group in _groups([labels[i] for i in kept], _number_key) if len(group) > 1]
    what = "are one number, but leading zeros may belong to a code"
    findings += _left_apart(numbers, labels, codes, counts, what)
    changed = np.flatnonzero(target != np.arange(len(labels)))
    if not len(changed):
        return y, findings
    merged = np.array(labels, dtype=object)[target[codes]]
    order = sorted(changed.tolist(), key=lambda i: -counts[i])
    shown = [f"{labels[i]!r} ({_rows(counts[i])}) as {labels[target[i]]!r}" for i in order[:10]]
    more = f" and {len(order) - 10} more" if len(order) > 10 else ""
    note = f"labels that are one to a reader were taken as one: {', '.join(shown)}{more}"
    detail = {"spellings": {labels[i]: labels[target[i]] for i in order}, "merged": True}
    rows = np.flatnonzero(np.isin(codes, changed))
    merged = merged.astype(y.dtype) if y.dtype.kind == "U" else merged
    return merged, [Finding("spelling", note, rows, detail=detail), *findings]


def reader_key(label: Any) -> str:
    """What a reader takes a label for: equal keys, one label."""
    return _cased_key(label).lower().replace("i\u0307", "i")


def _cased_key(label: Any) -> str:
    text = _composed(str(label)).translate(ONE_FOR_ALL)
    text = text[:-1].rstrip() if text[-1:] in {".", "\u3002"} and len(text) > 1 else text
    number = DECIMAL.fullmatch(text)
    if number:
        sign, whole, fraction = number[1], number[2], (number[3] or "").rstrip("0")
        zero = not fraction and not whole.strip("0")
        return ("-" if sign == "-" and not zero else "") + whole + ("." + fraction if fraction else "")
    return text


def _composed(text: str) -> str:
    """NFC, common widths and spaces, nothing invisible, single spaces."""
    text = unicodedata.normalize("NFC", text).translate(INVISIBLE)
    text = "".join(_common_width(c) for c in text)
    return " ".join(unicodedata.normalize("NFC", text).split())


def _common_width(character: str) -> str:
    tag = unicodedata.decomposition(character).split(" ")[0]
    return unicodedata.normalize("NFKC", character) if tag in {"<wide>", "<narrow>", "<noBreak>"} else character


def _is_tidy(label: Any) -> bool:
    return str(label) == _composed(str(label))


def _number_key(label: Any) -> str:
    key = reader_key(label)
    number = DECIMAL.fullmatch(key)
    if not number:
        return f"text {label}"
    return number[1] + (number[2].lstrip("0") or "0") + ("." + number[3] if number[3] else "")


def _groups(labels: list[Any], key: Any) -> list[list[int]]:
    found: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        found.setdefault(key(label), []).append(i)
    return list(found.values())


def _by_case(members: list[int], labels: list[Any], codes: np.ndarray, X: Any) -> list[list[int]]:
    """Parts of a group that are merged; more than one where short labels differ by case and features tell why."""
    parts: dict[str, list[int]] = {}
    for i in members:
        parts.setdefault(_cased_key(labels[i]), []).append(i)
    if len(parts) == 1 or len(reader_key(labels[members[0]])) > SHORT:
        return [members]
    columns = None if X is None else Columns.read(X)
    if columns is None:
        return list(parts.values())
    rows = [np.flatnonzero(np.isin(codes, part)) for part in parts.values()]
    apart = any(told_apart(columns, a, b) for i, a in enumerate(rows) for b in rows[:i])
    return list(parts.values()) if apart else [members]


def told_apart(columns: Columns, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the means of rows a (k,) and b (l,) differ by more than APART standard errors in any column.

    The larger one of the pooled and of Welch's standard error is taken: each alone is too small where one of the
    groups is small and has an outlier, or has none by chance. False with fewer than ENOUGH rows. O((k + l) p).
    """
    if min(len(a), len(b)) < ENOUGH:
        return False
    (mean_a, var_a), (mean_b, var_b) = (_moments(columns, rows) for rows in (a, b))
    k, m = len(a), len(b)
    welch = var_a / k + var_b / m
    pooled = ((k - 1) * var_a + (m - 1) * var_b) / (k + m - 2) * (1 / k + 1 / m)
    gap = np.abs(mean_a - mean_b)[columns.ordered]
    error = np.sqrt(np.maximum(welch, pooled))[columns.ordered]
    # means of a constant column differ by rounding, with no error beside it
    return bool((gap > APART * error + 1e-12 * (np.abs(mean_a) + np.abs(mean_b))[columns.ordered]).any())


def _moments(columns: Columns, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    block = columns.values[rows]
    if columns.is_sparse:
        block = block.astype(np.float64)  # squares of small integers overflow
        mean = np.asarray(block.mean(axis=0)).ravel()
        square = np.asarray(block.multiply(block).mean(axis=0)).ravel()
        # zeros are not stored, and count
        return mean, np.maximum(square - mean**2, 0) * len(rows) / (len(rows) - 1)
    block = np.nan_to_num(np.asarray(block, dtype=np.float64))
    return block.mean(axis=0), block.var(axis=0, ddof=1)


def _left_apart(
    groups: list[list[int]], labels: list[Any], codes: np.ndarray, counts: np.ndarray, what: str
) -> list[Finding]:
    """One finding (or none) of groups of labels that are not merged."""
    if not groups:
        return []
    groups = [sorted(members, key=lambda i: -counts[i]) for members in groups]
    shown = [" and ".join(f"{labels[i]!r} ({_rows(counts[i])})" for i in members) for members in groups[:5]]
    more = f", and {len(groups) - 5} more pairs" if len(groups) > 5 else ""
    message = f"the labels {', '.join(shown)}{more} {what}, and were left apart; if they are one, write them alike"
    rows = np.flatnonzero(np.isin(codes, np.concatenate(groups)))
    spellings = [[labels[i] for i in members] for members in groups]
    return [Finding("spelling", message, rows, detail={"spellings": spellings, "merged": False})]


def _rows(count: int) -> str:
    return f"{count:,} row" + ("s" if count != 1 else "")
