"""Class probabilities that the user has already, out of sample, as an attributor."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import _num_samples, check_consistent_length

from sktda.attribution.base import Attributor
from sktda.attribution.predictions.precomputed import aligned
from sktda.containers import as_columns, is_table
from sktda.data import check_weights, encode_target, row_index
from sktda.noise import judge_labels

SUM_TOLERANCE, TOLERANCE = 0.01, 1e-6  # of rows, and of values above 1, that were rounded; of values below 0


class PrecomputedProbabilities(Attributor):
    """Log odds of the given label, in nats, by out-of-sample class probabilities of a model of your own.

    What `LabelPosterior` does with the predictions of its attributor is done with these: labels that are wrong by class
    are taken out, and the probabilities decide in `NoisyLabelDetector` how many labels are wrong and what they should
    be. They must come from models that did not see the row: ``cross_val_predict(model, X, y, method="predict_proba")``.
    A model that did agrees with the wrong labels, too, and nothing is found.

    Parameters
    ----------
    probabilities : DataFrame or array-like of shape (n_samples, n_classes), default=None
        Columns of a table are the classes, by name. Rows of a DataFrame are aligned by the index of X, so it works
        inside cross-validation, where only part of the rows arrive, and on rows in another order; a table without an
        index, and an array, must have the rows of X one by one, columns of an array those of the sorted classes. None =
        equal probabilities, which a cleaner refuses.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        log p(given label) - log p(best other class), higher = keep; below 0 another class is more probable. Where
        `is_corrected_`, log p(given label) - log p(any other class). No p counts as less than 0.1 / n_classes.
    loo_decision_ : ndarray of shape (n_samples, n_classes)
        The probabilities of the rows, in the order of `classes_`; rows sum to 1.
    posterior_ : ndarray of shape (n_samples, n_classes)
        Probabilities of the true class, see `LabelPosterior`.
    noise_matrix_ : ndarray of shape (n_classes, n_classes)
        See `LabelPosterior`.
    is_corrected_ : bool
        Whether `noise_matrix_` mislabels any class.
    classes_ : ndarray of shape (n_classes,)
    task_ : str
        "classification".

    Raises
    ------
    ValueError
        In `fit`, for rows or classes without a probability, columns that are no class, values that are NaN, below 0 or
        above 1.01, and rows that sum to something else than 1 (by more than 0.01).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import cross_val_predict
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sktda import NoisyLabelDetector
    >>> from sktda.attribution import PrecomputedProbabilities
    >>> X, y = load_digits(return_X_y=True)
    >>> X, y = X[:500], y[:500]
    >>> y[:2] = [7, 7]  # they are 0 and 1
    >>> probabilities = cross_val_predict(GaussianNB(), X, y, method="predict_proba")
    >>> detector = NoisyLabelDetector(PrecomputedProbabilities(probabilities)).fit(X, y)
    >>> detector.suggested_labels_[:2].tolist()
    [0, 1]
    """

    looks_into_features = False

    __metadata_request__fit = {"sample_weight": False}  # ignored, so a weighted fit need not ask about it

    def __init__(self, probabilities=None):
        self.probabilities = probabilities

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        """Look up the probabilities of every row, and score the labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Only its length and index are used.
        y : array-like of shape (n_samples,)
            Class labels of any kind.
        sample_weight, X_val, y_val, metadata_val : ignored
            Part of the contract of all attributors.

        Returns
        -------
        self
        """
        self._forget()
        if y is None:
            raise ValueError("PrecomputedProbabilities requires y to be passed, but the target y is None")
        self.task_, codes, self.classes_ = encode_target(y, "classification")
        check_consistent_length(X, codes)
        if sample_weight is not None:
            check_weights(sample_weight, len(codes))
        self.loo_decision_ = self._looked_up(X, self.classes_.tolist())
        judged = judge_labels(self.loo_decision_, codes)
        self.scores_, self.posterior_ = judged.scores, judged.posterior
        self.noise_matrix_, self.is_corrected_ = judged.matrix, judged.is_corrected
        return self

    def _looked_up(self, X: Any, classes: list) -> np.ndarray:
        """Probabilities (n, n_classes) of the rows of X. Raises ValueError for what are none."""
        n, given = _num_samples(X), self.probabilities
        if given is None:
            return np.full((n, len(classes)), 1 / len(classes))
        if is_table(given):
            values = in_order(given, classes, row_index(X), n)
        else:
            values = np.asarray(given)
            if values.shape != (n, len(classes)):
                raise ValueError(
                    f"probabilities has shape {values.shape}, and ({n}, {len(classes)}) is needed: one row per row of "
                    "X, and one column per class of y, in sorted order. Inside cross-validation, or where classes are "
                    "missing, give a DataFrame with the index of X and the classes as columns"
                )
        return checked(values)


def in_order(table: Any, classes: list, index: Any, n: int) -> np.ndarray:
    """Values (n, n_classes) of a table with the classes as columns, rows as those of X with this index (None: without).

    Names are compared as they are, or as text where that finds more. Raises ValueError for columns that are no class
    and classes without one, and as `aligned`.
    """
    has_index = hasattr(table, "reindex")
    table = as_columns(table)
    names = list(table.columns)
    if set(names) != set(classes):  # a file gives "0" where y has 0
        names, classes = [str(name) for name in names], [str(label) for label in classes]
    if missing := [label for label in classes if label not in names]:
        raise ValueError(
            f"probabilities has no column for {len(missing)} of the {len(classes)} classes of y, the first is "
            f"{missing[0]!r}; its columns are {_listed(names)}, and must be named as the classes"
        )
    if len(names) > len(classes):
        other = next((name for name in names if name not in classes), None)
        what = (
            "several columns of one name"
            if other is None
            else f"the column {other!r}, which is the label of no row of y"
        )
        raise ValueError(f"probabilities has {what}; give one column for each of the classes {_listed(classes)}")
    if has_index:
        # rows in an order of their own: taken one by one they would be others' probabilities, in silence
        if index is None and len(table) == n and not np.array_equal(table.index, np.arange(n)):
            raise ValueError(
                "probabilities has an index, and X none to align it by; pass X as a DataFrame, or probabilities as an "
                "array if its rows are those of X one by one"
            )
        table = aligned(table, "probabilities", "no probabilities", index, n)
    elif len(table) != n:
        raise ValueError(f"probabilities has {len(table)} rows but X has {n}; a pandas DataFrame is aligned by index")
    columns = [names.index(label) for label in classes]
    values = table.iloc[:, columns] if hasattr(table, "iloc") else table[:, columns]
    return np.asarray(values.to_numpy())


def checked(values: np.ndarray) -> np.ndarray:
    """Probabilities (n, n_classes) as float64 whose rows sum to 1. Raises ValueError for what are none."""
    if values.dtype.kind not in "biufO":
        raise ValueError(f"probabilities holds {values.dtype} values; numbers in [0, 1] are needed")
    try:
        values = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"probabilities holds cells that are no numbers ({error}); give numbers in [0, 1]") from error
    problems = (
        (np.isnan(values), "NaN", "predict these rows too"),
        (values < -TOLERANCE, "values below 0", "give probabilities, such as the softmax of what a net returns"),
        (values > 1 + SUM_TOLERANCE, "values above 1", "give probabilities, such as the softmax of what a net returns"),
    )
    for wrong, what, remedy in problems:
        rows = np.flatnonzero(wrong.any(axis=1))
        if len(rows):
            raise ValueError(f"probabilities has {what} in {len(rows)} rows, the first is row {rows[0]}; {remedy}")
    # what is left outside of [0, 1] is rounding, in a file or in float32
    values = np.clip(values, 0.0, 1.0)
    sums = values.sum(axis=1, keepdims=True)
    rows = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if len(rows):
        raise ValueError(
            f"{len(rows)} rows of probabilities do not sum to 1, the first is row {rows[0]} with "
            f"{sums[rows[0], 0]:.3f}; give the probabilities of all classes"
        )
    return values / sums


def _listed(names: list) -> str:
    return f"{', '.join(map(repr, names[:6]))}{', ...' if len(names) > 6 else ''}"
