"""All findings in one call, the labels that are no classes, and X without its leaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from sktda.findings.copies import contradictions
from sktda.findings.finding import Columns, Finding, codes_of
from sktda.findings.leaks import leaks
from sktda.findings.sentinels import sentinels, target_sentinels
from sktda.findings.spellings import merge_spellings


def inspect(
    X: Any, y: Any, task: str = "classification", names: Any = None, rows: np.ndarray | None = None
) -> tuple[np.ndarray, list[Finding]]:
    """Labels with one spelling per class, and what a reader should know of labels and rows before any statistics.

    Parameters
    ----------
    X : array-like, sparse matrix or DataFrame of shape (n, ...)
        Cells of a DataFrame may be text; a dictionary of arrays is not looked into. Columns are looked at only in two
        dimensions: those of a picture mean nothing alone.
    y : array-like of shape (n,)
        Labels as they were given; spellings are merged before rows are compared.
    task : {"classification", "regression"}, default="classification"
    names : list of str, default=None
        Names of the columns; those of a DataFrame if None.
    rows : ndarray of shape (n,), default=None
        What findings call the rows, where these are some of many; their positions in X if None.

    Returns
    -------
    labels : ndarray of shape (n,)
        As `merge_spellings` returns them; for regression, and where nothing is looked into, those given.
    findings : list of Finding
        Contradictions first, then leaks, spellings and sentinels, for regression also those of the target. Time and
        memory are linear in the cells of X.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> X[7] = X[3]
    >>> labels, findings = inspect(X, np.arange(100) % 2 == np.arange(100) // 4 % 2)
    >>> for finding in findings:
    ...     print(finding.kind, finding.rows)
    contradiction [3 7]
    """
    with np.errstate(over="ignore", invalid="ignore"):  # huge and infinite cells are named by who reads the features
        labels, findings = _inspect(Columns.read(X, names), X, y, task, rows)
    return labels, findings if rows is None else [replace(each, rows=rows[each.rows]) for each in findings]


def _inspect(
    columns: Columns | None, X: Any, y: Any, task: str, rows: np.ndarray | None
) -> tuple[np.ndarray, list[Finding]]:
    if columns is None or (len(np.shape(y)) > 1 and np.shape(y)[1] > 1):
        return np.asarray(y), []
    y = np.ravel(y)
    if task == "regression":
        return y, [*leaks(columns, y, task), *target_sentinels(y), *sentinels(columns)]
    merged, spellings = merge_spellings(y, X)
    return merged, [
        *contradictions(columns, merged, rows),
        *leaks(columns, merged, task),
        *spellings,
        *sentinels(columns),
    ]


def check_classes(y: Any) -> None:
    """Raise ValueError where labels (n,) are nearly all different, as names of rows are: no set of classes.

    That is more than n / 2 different ones, and more than two.
    """
    y = np.ravel(y)
    labels = codes_of(y)[0] if y.dtype.kind == "O" else np.unique(y)
    if len(labels) > max(2, len(y) / 2):
        raise ValueError(
            f"y has {len(labels)} different labels in {len(y)} rows, such as {y[0]!r}: these are no classes; give the "
            "column of labels, or numbers with task='regression'"
        )


def leak_positions(findings: list[Finding]) -> tuple[int, ...]:
    """Columns of X that give the label away."""
    return tuple(sorted({j for finding in findings if finding.kind == "leak" for j in finding.positions}))


def without_leaks(X: Any, findings: list[Finding]) -> Any:
    """X (n, p) without the columns that give the label away; X itself where there are none or nothing would be left."""
    left_out = leak_positions(findings)
    if not left_out or len(left_out) == np.shape(X)[1]:
        return X
    kept = np.setdiff1d(np.arange(np.shape(X)[1]), left_out)
    if hasattr(X, "iloc"):
        return X.iloc[:, kept]
    if hasattr(X, "columns"):
        return X[:, kept.tolist()]
    return X.tocsr()[:, kept] if sparse.issparse(X) else np.asarray(X)[:, kept]
