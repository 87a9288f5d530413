"""Rows without a label: they are not judged, and may get a suggestion."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from sktda.containers import is_missing, numbers


def labelled_rows(y: Any) -> np.ndarray | None:
    """Positions of the rows with a label, None where all have one; none is an empty text, None, NaN or masked.

    Raises ValueError where no row has a label.
    """
    cells = _cells(y).tolist()
    known = np.array([not (is_missing(cell) or (isinstance(cell, str) and not cell.strip())) for cell in cells])
    if not known.any():
        raise ValueError("no row of y has a label; label some")
    return None if known.all() else np.flatnonzero(known)


def labels_of(y: Any, rows: np.ndarray) -> Any:
    """The labels of these rows, in the type they came in."""
    return y.iloc[rows] if hasattr(y, "iloc") else _cells(y)[rows]


def spread(values: np.ndarray, rows: np.ndarray, n: int, missing: Any) -> np.ndarray:
    """(n,) with the values (len(rows),) at the rows and `missing` elsewhere: objects for None, floats for NaN."""
    whole = np.full(n, missing, dtype=object if missing is None else np.result_type(values, missing))
    whole[rows] = values
    return whole


def predicted(features: Any, rows: np.ndarray, labels: np.ndarray, others: np.ndarray, task: str, seed: Any) -> Any:
    """Labels of the rows `others`, by a forest on the rows (k,) that have the labels (k,)."""
    from sktda.attribution.predictions.out_of_sample import default_classifier

    X = numbers(features)
    X = X if sparse.issparse(X) else np.asarray(X).reshape(X.shape[0], -1)
    from sklearn.ensemble import ExtraTreesRegressor  # most data have no rows without a label

    forest = default_classifier()
    if task != "classification":
        forest.steps[-1] = ("trees", ExtraTreesRegressor(300, min_samples_leaf=3))
    forest[-1].set_params(random_state=0 if seed is None else seed)
    return forest.fit(X[rows], labels).predict(X[others])


def _cells(y: Any) -> np.ndarray:
    y = y.tolist() if isinstance(y, np.ma.MaskedArray) else y  # None where it is masked
    cells = np.asarray(y, dtype=object if isinstance(y, list | tuple) else None)
    return cells.ravel() if cells.ndim == 2 and cells.shape[1] == 1 else cells
