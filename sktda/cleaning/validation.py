"""Validation rows in every form a cleaner takes: None, cross-fitting, a Holdout, or routed X_val, y_val."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.model_selection import BaseCrossValidator, check_cv, train_test_split
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _check_method_params, _num_samples

from sktda.cleaning.base import Holdout
from sktda.data import row_index
from sktda.seeds import random_of

FOLDS = 5  # of validation rows for metadata that came with the training rows

VALIDATION = [
    Holdout,
    BaseCrossValidator,
    "cv_object",
    Interval(Integral, 2, None, closed="left"),
    Interval(Real, 0, 1, closed="neither"),
    None,
]
"""What a cleaner takes as `validation`, as scikit-learn checks parameters."""


class Grouped:
    """A splitter that brings its groups: ``SelfConfidence(model, cv=Grouped(GroupKFold(5), patients))``.

    For `validation` of a cleaner and `cv` of an attributor, where a search or a Pipeline passes no ``groups`` on. Rows
    are looked up by the index of X, so that those of any part of X are found. `clone` returns the same object.

    Parameters
    ----------
    splitter : splitter
        One that keeps groups together, such as GroupKFold.
    groups : pandas Series
        Group of each row, by the index of X, which must be a DataFrame.

    Raises
    ------
    TypeError
        For groups without an index.
    ValueError
        For an index of which some labels occur twice. In `split`, for X without an index, and for rows whose group is
        not known.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.model_selection import GroupKFold
    >>> from sktda import Grouped
    >>> X = pd.DataFrame({"x": [1, 2, 3]}, index=["a", "b", "c"])
    >>> folds = Grouped(GroupKFold(2), pd.Series({"c": 1, "b": 0, "a": 1}))
    >>> [test.tolist() for _, test in folds.split(X)]
    [[0, 2], [1]]
    """

    def __init__(self, splitter: Any, groups: Any) -> None:
        if not hasattr(groups, "reindex"):
            raise TypeError("groups must be a pandas Series with the index of X; pd.Series(groups, index=X.index)")
        if not groups.index.is_unique:
            twice = groups.index[groups.index.duplicated()].tolist()
            raise ValueError(f"groups has several entries for {twice[0]!r}; give one group per row")
        self.splitter, self.groups = splitter, groups

    def __sklearn_clone__(self) -> Grouped:
        return self

    def __repr__(self) -> str:
        return f"Grouped({self.splitter!r})"

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(positions to train on, positions to judge) of each fold; groups given here would be a second kind."""
        return self.splitter.split(X, y, self._groups(X, groups))

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of folds."""
        return self.splitter.get_n_splits(X, y, None if X is None else self._groups(X, groups))

    def _groups(self, X: Any, groups: Any) -> np.ndarray:
        if groups is not None:
            raise ValueError("groups came twice: to fit and in Grouped(splitter, groups); give one")
        index = row_index(X)
        if index is None:
            raise ValueError("Grouped finds the groups of rows by the index of X, and X has none; give a DataFrame")
        if unknown := index.difference(self.groups.index).tolist():
            raise ValueError(f"groups has no entry for {len(unknown)} rows of X, such as {unknown[0]!r}")
        return self.groups.reindex(index).to_numpy()


def check_validation_rows(validation: Any, X: Any, X_val: Any, y_val: Any) -> Any:
    """`validation`, or the routed rows as a Holdout. Raises ValueError for both, for half, and for what is none."""
    if (X_val is None) != (y_val is None):
        given, missing = ("X_val", "y_val") if y_val is None else ("y_val", "X_val")
        raise ValueError(f"{given} came without {missing}; validation needs both")
    if isinstance(validation, tuple) and len(validation) == 2 and _num_samples(validation[1]) != 2:
        raise ValueError("validation is a pair of rows and labels; give validation=Holdout(X_val, y_val)")
    refuse_list_of_splits(validation)
    if X_val is None:
        if isinstance(validation, Holdout):
            warn_if_unlike(X, validation.X)
        share = isinstance(validation, Real) and not isinstance(validation, Integral)
        return float(validation) if share else validation
    if validation is not None:
        raise ValueError(f"validation rows came twice: as X_val, y_val and as validation={validation!r}; give one")
    if _num_samples(X_val) == _num_samples(X):
        warnings.warn(
            f"X_val has as many rows as X ({_num_samples(X)}): a search slices every array of that length with its "
            "folds; give the constructor validation=Holdout(X_val, y_val) instead, which is never sliced",
            UserWarning,
            stacklevel=5,
        )
    warn_if_unlike(X, X_val)
    return Holdout(X_val, y_val)


def set_aside(share: float, n: int, codes: np.ndarray | None, random_state: Any) -> tuple[np.ndarray, np.ndarray]:
    """(positions that stay, ascending, positions of validation rows) of n rows; of every class its share."""
    stay, held = train_test_split(np.arange(n), test_size=share, stratify=codes, random_state=random_of(random_state))
    return np.sort(stay), held


def refuse_list_of_splits(validation: Any) -> None:
    """ValueError for explicit splits: positions in all rows, which fit neither later rounds nor parts of the rows."""
    if hasattr(validation, "__iter__"):
        raise ValueError(
            "validation is a list of splits, which are positions in all rows, and a cleaner may score smaller sets, in "
            "later rounds or in the folds of a search: give a splitter such as KFold(5) instead"
        )


def warn_if_unlike(X: Any, X_val: Any) -> None:
    """Warn if a numeric column's centre or spread differs tenfold: validation rows that missed the preprocessing."""
    try:
        train, val = np.asarray(X, dtype=float), np.asarray(X_val, dtype=float)
    except (TypeError, ValueError):  # text, categories, sparse: nothing to compare
        return
    if train.ndim != 2 or val.ndim != 2 or train.shape[1] != val.shape[1]:
        return
    spread, spread_val = train.std(axis=0), val.std(axis=0)
    moved = np.abs(val.mean(axis=0) - train.mean(axis=0)) > 10 * np.maximum(spread, spread_val)
    varies = (spread > 0) & (spread_val > 0)
    stretched = varies & ((spread_val > 10 * spread) | (spread > 10 * spread_val))
    unlike = np.flatnonzero(stretched | (moved & varies))
    if len(unlike):
        names = [str(X.columns[j]) if hasattr(X, "columns") else str(j) for j in unlike[:3]]
        warnings.warn(
            f"validation rows differ tenfold from X in centre or spread in {len(unlike)} columns (such as "
            f"{', '.join(names)}): they must be as the cleaner receives X. With preprocessing, put the Pipeline inside "
            "the cleaner: InfluencePruner(make_pipeline(StandardScaler(), model), validation=Holdout(X_raw, y))",
            UserWarning,
            stacklevel=6,
        )


def groups_for(splitter: Any, groups: Any) -> Any:
    """The groups for a splitter of the user's; the folds that a number stands for know none."""
    return groups if hasattr(splitter, "split") else None


def validation_rows(
    validation: Any, X: Any, y: Any, classifier: bool, metadata: dict | None = None, groups: Any = None
) -> Iterator[tuple]:
    """(rows to score, X_val, y_val, metadata_val), once or once per fold.

    metadata and groups: those of the rows of X.
    """
    everything = np.arange(_num_samples(X))
    if validation is None:
        yield everything, None, None, None
    elif isinstance(validation, Holdout):
        yield everything, validation.X, validation.y, validation.metadata
    else:
        for train, val in check_cv(validation, y, classifier=classifier).split(X, y, groups_for(validation, groups)):
            own = _check_method_params(X, metadata or {}, val)
            yield train, _safe_indexing(X, val), _safe_indexing(y, val), own
