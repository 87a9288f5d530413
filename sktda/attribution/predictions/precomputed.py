"""Scores that the user already has, as an attributor."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import _num_samples, check_array

from sktda.attribution.base import Attributor
from sktda.data import check_weights, row_index


class PrecomputedScores(Attributor):
    """Scores from elsewhere, in the user's own unit; higher = keep.

    Parameters
    ----------
    scores : array-like of shape (n_samples,), pandas Series, callable or None, default=None
        A Series is aligned by the index of X, so it works inside cross-validation, where only part of the rows
        arrive; where X has none, that of the Series must be in ascending order. An array must have one score per row; a
        callable is called as ``scores(X, y)``. None = all zeros, which a cleaner refuses, unless `fit` receives scores.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        In `fit`, if lengths differ, a row has no score, a score is NaN or infinite, or an index in an order of its own
        meets an X without one.

    Examples
    --------
    >>> import pandas as pd
    >>> from sktda.attribution import PrecomputedScores
    >>> X = pd.DataFrame({"x": [1.0, 2.0]}, index=["b", "a"])
    >>> PrecomputedScores(pd.Series({"a": 0.1, "b": 0.2, "c": 0.3})).fit(X).scores_.tolist()
    [0.2, 0.1]
    """

    looks_into_features = requires_target = False

    __metadata_request__fit = {"sample_weight": False}  # ignored, so a weighted fit need not ask about it

    def __init__(self, scores=None):
        self.scores = scores

    def fit(self, X, y=None, sample_weight=None, X_val=None, y_val=None, metadata_val=None, scores=None):
        """Look up the score of every row.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Only its length and index are used.
        y : array-like of shape (n_samples,), default=None
            Passed on to a callable.
        sample_weight, X_val, y_val, metadata_val : ignored
            Part of the contract of all attributors.
        scores : array-like of shape (n_samples,), default=None
            Used in place of the constructor's; routable as metadata.

        Returns
        -------
        self
        """
        given = self.scores if scores is None else scores
        n = _num_samples(X)
        if sample_weight is not None:
            check_weights(sample_weight, n)
        if callable(given):
            given = given(X, y)
        if given is None:
            given = np.zeros(n)
        elif hasattr(given, "reindex"):
            given = aligned(given, "scores", "no score", row_index(X), n).to_numpy()
        scores = check_array(
            np.asarray(given, dtype=float).ravel() if np.ndim(given) == 1 else given,
            ensure_2d=False,
            ensure_all_finite=True,
            input_name="scores",
        )
        if scores.shape != (n,):
            raise ValueError(
                f"scores has shape {scores.shape} but X has {n} rows; an array must match X row by row. Inside "
                "cross-validation give a pandas Series instead: it is aligned by the index of X"
            )
        self.scores_ = scores
        return self


def aligned(given, name, lacking, index, n):
    """`given` (Series or DataFrame) at the rows of X, by index; by position where X has none and the lengths agree.

    name: what the message calls it; lacking: that a row has none, such as "no score". Raises ValueError for rows that
    are not there, indices with duplicates, and where X has no index for lengths that differ and rows out of order.
    """
    if index is None:
        if len(given) == n and not given.index.is_monotonic_increasing:
            # such as sorted by value: taken one by one they would be other rows', in silence
            raise ValueError(
                f"the index of {name} is not in ascending order, and X has none to align it by; pass X as a DataFrame, "
                f"or {name} as an array if its rows are those of X one by one"
            )
        if len(given) == n:
            return given
        raise ValueError(
            f"{name} is a {type(given).__name__} of {len(given)} rows but X has {n} rows and no index to align by; "
            "pass X as a DataFrame (in a Pipeline: set_output(transform='pandas'))"
        )
    if not given.index.is_unique:
        raise ValueError(f"the index of {name} holds duplicates, so rows cannot be aligned; use a unique index")
    found = given.reindex(index)
    missing = found.isna().to_numpy().reshape(n, -1).any(axis=1)
    if missing.any():
        raise ValueError(
            f"{missing.sum()} rows of X have {lacking}, the first is {index[missing][0]!r}; give one per row"
        )
    return found
