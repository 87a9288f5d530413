"""One label per row from the labels of several annotators, and how sure it is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning

from sktda.containers import is_frame, is_missing, read_target

PRIOR = 2.0  # labels of a class that an annotator like the others is taken to have given before
STEPS, TOLERANCE = 1000, 1e-6


@dataclass(frozen=True, eq=False)
class Consensus:
    """What `consensus_labels` finds.

    Parameters
    ----------
    labels : ndarray of shape (n_samples,)
        The most probable label of each row.
    quality : ndarray of shape (n_samples,)
        Its probability in [0, 1] by the model, higher = surer. Too high where annotators err together; see the notes.
    probabilities : ndarray of shape (n_samples, n_classes)
        Of each class, in the order of `classes`.
    classes : ndarray of shape (n_classes,)
        The labels that occur, sorted.
    annotators : list
        Names of the columns, or their positions.
    confusion : ndarray of shape (n_annotators, n_classes, n_classes)
        ``confusion[a, k, j]``: probability that annotator a calls a row of class k by the label of class j.
    accuracy : ndarray of shape (n_annotators,)
        Share of rows that each annotator is expected to label rightly.
    n_labels : ndarray of shape (n_annotators,)
        How many rows each has labelled.
    """

    labels: np.ndarray
    quality: np.ndarray
    probabilities: np.ndarray
    classes: np.ndarray
    annotators: list
    confusion: np.ndarray
    accuracy: np.ndarray
    n_labels: np.ndarray


def consensus_labels(annotations: Any, *, annotators: Sequence | None = None) -> Consensus:
    """The label that several annotators together say, by how far each of them is to be trusted.

    The model of Dawid and Skene (1979): each annotator has a confusion matrix, and both these and the true labels are
    estimated by expectation maximisation, from the shares of votes. An annotator who has labelled little is taken to be
    like the others: the matrix is drawn to that of all annotators together, with the weight of two labels per class
    (maximum a posteriori under Dirichlet priors).

    Parameters
    ----------
    annotations : array-like of shape (n_samples, n_annotators)
        One column per annotator; None, NaN or NA where an annotator has not labelled the row. A list of (row,
        annotator, label) becomes one by ``frame.pivot(index="row", columns="annotator", values="label")``.
    annotators : sequence of length n_annotators, default=None
        Their names. None = those of the columns of a DataFrame, else positions.

    Returns
    -------
    consensus : Consensus

    Raises
    ------
    ValueError
        Where a row has no label at all, or no row has two: nothing then tells annotators apart.

    Warns
    -----
    ConvergenceWarning
        After 1,000 steps.

    Notes
    -----
    The model takes annotators to err independently of each other, given the class. People do not: hard rows are hard
    for all of them. The order of the qualities then still says which rows to look at, and their values are too high
    (benchmarks/annotators.py compares them with the share of right labels). Costs a few passes over the labels that
    were given, O(n_labels * n_classes) each.

    References
    ----------
    A. P. Dawid and A. M. Skene, Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm, Applied
    Statistics 28(1), 1979, equations 2.3 to 2.5.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda import consensus_labels
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.integers(0, 2, 200)
    >>> wrong = rng.random((200, 3)) < [0.1, 0.2, 0.5]  # the third one tosses a coin
    >>> consensus = consensus_labels(np.where(wrong, 1 - truth[:, None], truth[:, None]))
    >>> consensus.accuracy.round(2).tolist(), float((consensus.labels == truth).mean())
    ([0.83, 0.83, 0.5], 0.855)
    """
    given, classes, names = _read(annotations, annotators)
    rows, columns = np.nonzero(given >= 0)
    n, n_annotators, n_classes = *given.shape, len(classes)
    # (annotator, label) of every label that was given, by row: both steps are products with it
    said = columns * n_classes + given[rows, columns]
    votes = sp.csr_array((np.ones(len(rows)), (said, rows)), shape=(n_annotators * n_classes, n))
    posterior = (sp.csr_array((np.ones(len(rows)), (rows, given[rows, columns])), shape=(n, n_classes))).toarray()
    posterior /= posterior.sum(axis=1, keepdims=True)
    for _ in range(STEPS):
        shares = posterior.mean(axis=0)
        confusion = _confusion(votes @ posterior, n_annotators)
        before, posterior = posterior, _posterior(votes, shares, confusion)
        if np.abs(posterior - before).max() < TOLERANCE:
            break
    else:
        warnings.warn(
            f"the labels of annotators still change after {STEPS} steps; what two classes share may not be decided",
            ConvergenceWarning,
            stacklevel=2,
        )
    best = posterior.argmax(axis=1)
    return Consensus(
        labels=classes[best],
        quality=posterior[np.arange(n), best],
        probabilities=posterior,
        classes=classes,
        annotators=names,
        confusion=confusion,
        accuracy=np.einsum("k,akk->a", posterior.mean(axis=0), confusion),
        n_labels=np.bincount(columns, minlength=n_annotators),
    )


def _confusion(counts: np.ndarray, n_annotators: int) -> np.ndarray:
    """(n_annotators, n_classes, n_classes) from what each said of each class (n_annotators * n_classes, n_classes)."""
    each = counts.reshape(n_annotators, -1, counts.shape[1]).transpose(0, 2, 1)
    # of all together, with one label of every kind in addition: nothing is impossible
    pooled = each.sum(axis=0) + 1 / each.shape[1]
    each = each + PRIOR * pooled / pooled.sum(axis=1, keepdims=True)
    return each / each.sum(axis=2, keepdims=True)


def _posterior(votes: sp.csr_array, shares: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    """Probability of each class of each row (n, n_classes)."""
    by_label = np.log(confusion).transpose(0, 2, 1).reshape(votes.shape[0], -1)
    evidence = votes.T @ by_label + np.log(np.maximum(shares, np.finfo(float).tiny))
    posterior = np.exp(evidence - evidence.max(axis=1, keepdims=True))
    return posterior / posterior.sum(axis=1, keepdims=True)


def _read(annotations: Any, annotators: Sequence | None) -> tuple[np.ndarray, np.ndarray, list]:
    """(codes (n, n_annotators) with -1 for none, classes, names)."""
    cells = np.asarray(annotations, dtype=object)
    if cells.ndim != 2:
        raise ValueError(f"annotations should be (n_samples, n_annotators), one column each, got shape {cells.shape}")
    if annotators is None:
        annotators = list(annotations.columns) if is_frame(annotations) else range(cells.shape[1])
    if len(annotators) != cells.shape[1]:
        raise ValueError(f"{len(annotators)} names of annotators for {cells.shape[1]} columns")
    given = np.array([not is_missing(cell) for cell in cells.ravel()], dtype=bool).reshape(cells.shape)
    per_row = given.sum(axis=1)
    if not per_row.all():
        row = int(np.flatnonzero(per_row == 0)[0])
        raise ValueError(f"{int((per_row == 0).sum())} rows have no label, the first is row {row}; drop them")
    if per_row.max(initial=0) < 2:
        raise ValueError(
            "no row has labels of two annotators, and nothing else tells how good they are; give one column each"
        )
    labels = read_target(cells[given])
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all() and np.abs(labels).max() < 2**53:
        labels = labels.astype(np.int64)  # whole numbers beside missing ones are floats in pandas
    classes, codes = np.unique(labels, return_inverse=True)
    found = np.full(cells.shape, -1)
    found[given] = codes
    return found, classes, list(annotators)
