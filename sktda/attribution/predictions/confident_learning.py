"""Which labels are wrong, and how many, by counting rows that are confidently another class."""

from __future__ import annotations

import numpy as np

from sktda.attribution.predictions.out_of_sample import TOLERANCE, OutOfSample, margins
from sktda.room import parts


class ConfidentLearning(OutOfSample):
    """Normalised margin in [-1, 1], and 2 less where confident learning calls the label wrong (arXiv:1911.00068).

    Rows that are confidently another class are counted for every pair of classes. The counts, calibrated, estimate the
    joint distribution of given and true labels, hence how many labels are wrong, and which.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Any classifier with `predict_proba`, Pipelines included; clones of it are trained. None =
        ``ExtraTreesClassifier(100, min_samples_leaf=5)``, for sparse matrices standardised columns and
        ``LogisticRegression(C=0.1)``.
    cv : int, splitter or iterable of (train, test), default=5
        Folds. An int is stratified and shuffled, and lowered, with a warning, to the rows of the rarest class that has
        at least two. Others are taken as they are, if they predict every row once.
    task : {"auto", "classification"}, default="auto"
        "classification" takes whole numbers as classes however many they are, also for estimator=None.
    n_jobs : int or None, default=None
        Folds trained at a time. Does not change the result.
    random_state : int, RandomState instance or None, default=None
        Seeds the folds and every `random_state` of the estimator that is None. None is 0, so that a fit can be
        repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep: first all rows of `is_wrong_`, in [-3, -2], then the others, in [-1, 1], each by margin.
    is_wrong_ : ndarray of shape (n_samples,)
        Mask of the labels called wrong: those that "prune by class" and "prune by noise rate" agree on (C+NR in the
        paper), without rows whose given label is the most probable one. One row of each class stays.
    noise_rate_ : float
        Estimated share of wrong labels, 1 - trace of `joint_`. The mask holds fewer rows.
    joint_ : ndarray of shape (n_classes, n_classes)
        Estimated share of rows with given label i and true label j, eq. 3: rows sum to the shares of the given labels.
    noise_matrix_ : ndarray of shape (n_classes, n_classes)
        Share of true class k that carries label j, rows sum to 1 (as `sktda.noise.noise_matrix`).
    confident_joint_ : ndarray of shape (n_classes, n_classes)
        Rows with given label i that are confidently class j, eq. 1; at least 1 on the diagonal.
    thresholds_ : ndarray of shape (n_classes,)
        Mean probability of class j over the rows labelled j, eq. 2: from there on a row is confidently class j.
        Infinite for a class that none of its rows has any probability of.
    pred_probs_ : ndarray of shape (n_samples, n_classes)
        Out-of-sample probabilities, see `SelfConfidence`.
    classes_ : ndarray of shape (n_classes,)
    task_ : str
        "classification".

    Raises
    ------
    TypeError, ValueError
        As `SelfConfidence`.

    Notes
    -----
    Source: Northcutt, Jiang and Chuang 2021 (arXiv:1911.00068), sections 3.1 and 3.2. A row that is confidently several
    classes counts as the most probable of these (cleanlab takes the most probable of all classes); where the given
    label ties, as the given one. `NoisyLabelDetector` takes its own estimate of the noise rate, and this one with
    ``contamination="confident_joint"``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktda.attribution import ConfidentLearning
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> y[::10] = (y[::10] + 3) % 4  # 72 of 720 labels are wrong now
    >>> learning = ConfidentLearning().fit(X, y)
    >>> round(learning.noise_rate_, 1)
    0.1
    >>> bool(learning.is_wrong_[::10].mean() > 0.8)
    True
    """

    def _summarise(self, codes: np.ndarray) -> None:
        self.confident_joint_, self.thresholds_ = confident_joint(self.pred_probs_, codes)
        self.joint_ = calibrated_joint(self.confident_joint_, codes)
        self.noise_matrix_ = (self.joint_ / self.joint_.sum(axis=0)).T  # the joint is [given, true]
        self.noise_rate_ = float(1 - self.joint_.trace())
        self.is_wrong_ = wrong_labels(self.pred_probs_, codes, self.joint_)
        self.scores_ = margins(self.pred_probs_, codes) - 2 * self.is_wrong_


def confident_joint(pred_probs: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(counts C[i, j] of rows labelled i and confidently class j, thresholds t (n_classes,)).

    pred_probs (n, n_classes) out of sample, codes (n,) given labels. Row x is confidently class j
    if j = argmax over {l: p_l(x) >= t_l} of p_l(x), and t_l is the mean of p_l over the rows labelled l. The diagonal
    is at least 1, so that C can be calibrated. Source: arXiv:1911.00068, eq. 1 and 2.
    """
    n, n_classes = pred_probs.shape
    own = np.bincount(codes, pred_probs[np.arange(n), codes], n_classes)
    thresholds = own / np.maximum(np.bincount(codes, minlength=n_classes), 1)
    thresholds[thresholds == 0] = np.inf  # else every row would be as confident as it takes
    counts = np.zeros((n_classes, n_classes), dtype=int)
    for part in parts(n, n_classes):
        probabilities, given = pred_probs[part], codes[part]
        # a class whose rows all have the mean reaches it, whichever way that was rounded
        confident = probabilities >= thresholds - TOLERANCE
        candidates = np.where(confident, probabilities, -1.0)
        candidates[np.arange(len(given)), given] += TOLERANCE  # ties go to the given label
        some = confident.any(axis=1)
        np.add.at(counts, (given[some], candidates.argmax(axis=1)[some]), 1)
    np.fill_diagonal(counts, np.maximum(counts.diagonal(), 1))
    return counts, thresholds


def calibrated_joint(counts: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The confident joint as shares that sum to 1, its rows to the shares of the given labels (eq. 3)."""
    given = np.bincount(codes, minlength=len(counts)) / len(codes)
    return counts / counts.sum(axis=1, keepdims=True) * given[:, None]


def wrong_labels(pred_probs: np.ndarray, codes: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """Mask (n,) of the labels that are called wrong both by class and by noise rate (C+NR, section 3.2).

    By class: of the rows labelled i as many as are not truly i, lowest p_i first. By noise rate: for every other j as
    many as are truly j, largest p_j - p_i first. A label that is the most probable one is never called wrong.
    """
    by_class, by_rate = np.zeros((2, len(codes)), dtype=bool)
    for i in range(len(joint)):
        rows = np.flatnonzero(codes == i)
        own = pred_probs[rows, i]
        counts = rounded(joint[i] * len(codes), i)
        by_class[rows[np.argsort(own, kind="stable")[: len(rows) - max(1, counts[i])]]] = True
        for j in np.flatnonzero(counts):
            if j != i:
                by_rate[rows[np.argsort(own - pred_probs[rows, j], kind="stable")[: counts[j]]]] = True
    return by_class & by_rate & (margins(pred_probs, codes) < -TOLERANCE)


def rounded(values: np.ndarray, first: int) -> np.ndarray:
    """Whole numbers (k,) with the sum of values (k,), by largest remainder; of equal ones, `first` is served first."""
    whole = np.floor(values + 1e-9)  # 2.9999999999 is 3
    rest = np.round(values - whole, 9)
    order = np.lexsort((np.arange(len(values)) != first, -rest))
    whole[order[: round(values.sum() - whole.sum())]] += 1
    return whole.astype(int)
