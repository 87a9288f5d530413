"""How many labels are wrong, from predictions that did not see them. NumPy and SciPy only."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from scipy.stats import binom

ANCHOR_SHARE, ANCHOR_ROWS, ANCHOR_LIMIT = 0.3, 100, 0.6
LEAST_PROBABILITY, UNFOLDING_STEPS = 1e-3, 30


def anchor_counts(decision: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """How many rows that are confidently predicted as class k carry label j: (n_classes, n_classes) whole numbers.

    decision (n, n_classes): out-of-sample class scores, so that a row's own label plays no part in them;
    codes (n,): given labels as 0..n_classes-1. The rows most confidently predicted as class k (30 % of them, at least
    100 rows where that is not more than 60 %) count as true class k: the anchor points of Patrini et al. 2017
    (arXiv:1609.03683, eq. 12), many because labels are random. Confidence is the lead over the second class.
    """
    n_classes = decision.shape[1]
    best_two = np.sort(decision, axis=1)[:, -2:]
    lead = best_two[:, 1] - best_two[:, 0]
    predicted = decision.argmax(axis=1)
    counts = np.zeros((n_classes, n_classes), dtype=int)
    for k in range(n_classes):
        rows = np.flatnonzero(predicted == k)
        if len(rows):
            wanted = max(ANCHOR_SHARE * len(rows), min(ANCHOR_ROWS, ANCHOR_LIMIT * len(rows)))
            anchors = rows[np.argsort(-lead[rows], kind="stable")[: max(1, round(wanted))]]
            counts[k] = np.bincount(codes[anchors], minlength=n_classes)
    return counts


def noise_matrix(decision: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """How each true class is labelled: T[k, j] = share of true class k that carries label j, rows sum to 1.

    decision, codes and the rows that count as true class k are those of `anchor_counts`. A class that nothing is
    predicted as keeps T[k, k] = 1.
    """
    counts = anchor_counts(decision, codes)
    seen = counts.sum(axis=1, keepdims=True)
    return np.where(seen > 0, counts / np.maximum(seen, 1), np.eye(len(counts)))


def smoothed_matrix(counts: np.ndarray) -> np.ndarray:
    """`noise_matrix` from `anchor_counts` with one more wrong label per class, spread over the other classes.

    No mistake then counts as impossible because none was among the anchors.
    """
    n_classes = len(counts)
    other = (1 - np.eye(n_classes)) / (n_classes - 1)
    own = np.where(counts.sum(axis=1, keepdims=True) > 0, counts, np.eye(n_classes))
    return (own + other) / (own + other).sum(axis=1, keepdims=True)


def label_noise_rate(decision: np.ndarray, codes: np.ndarray) -> float:
    """Estimated share of wrong labels, in [0, 1]: any kind of noise that depends on the class, two classes included.

    The shares p of the true classes solve T' p = shares of the given labels (p >= 0, least squares), and the rate
    is sum_k p_k (1 - T[k, k]). Never more than the share of rows whose prediction differs from their label.
    decision and codes as in `noise_matrix`. Measured by benchmarks/noisy_labels.py.
    """
    n, n_classes = decision.shape
    matrix = noise_matrix(decision, codes)
    shares = np.bincount(codes, minlength=n_classes) / n
    true_shares, _ = nnls(matrix.T, shares)
    rate = 1 - true_shares @ matrix.diagonal() / true_shares.sum()
    disagreement = np.mean(decision.argmax(axis=1) != codes)
    return float(np.clip(rate, 0, disagreement))


def outlier_rate(residual: np.ndarray, target: np.ndarray) -> float:
    """Share of targets that their neighbours contradict: residuals more than 3.5 robust deviations from their median.

    residual (n,): out-of-sample errors of target (n,). The robust deviation is 1.4826 times the median absolute
    deviation, of the residuals or a fifth of the target's, whichever is larger: the errors of a smooth target without
    noise are tiny and heavy-tailed, which is no reason to distrust it. 3.5 is the cut of Iglewicz and Hoaglin 1993.
    """
    spread = max(robust_deviation(residual), 0.2 * robust_deviation(target))
    return float(np.mean(np.abs(residual - np.median(residual)) > 3.5 * spread))


def robust_deviation(values: np.ndarray) -> float:
    """1.4826 times the median absolute deviation: the standard deviation, where values are normal."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def one_sidedness(counts: np.ndarray) -> float:
    """How far wrong labels are from being any other class at random: about 0 = uniform noise, 1 = all of one kind.

    counts (n_classes, n_classes) as `anchor_counts` gives them. Total variation between the shares of their
    off-diagonal entries and equal ones, as a share of the largest that is possible; less what so few wrong labels have
    of it by chance, as a share of what chance leaves. 0 where nothing is off the diagonal.
    """
    wrong = counts[~np.eye(len(counts), dtype=bool)]
    n_wrong = int(wrong.sum())
    if n_wrong < 2:  # one is always one-sided
        return 0.0
    equal = 1 / len(wrong)
    largest = 1 - equal
    found = np.abs(wrong / n_wrong - equal).sum() / 2 / largest
    above = int(n_wrong * equal) + 1  # mean absolute deviation of one entry at random, after de Moivre 1730
    deviation = 2 * above * (1 - equal) * binom.pmf(above, n_wrong, equal) / n_wrong
    by_chance = len(wrong) * deviation / 2 / largest
    return float((found - by_chance) / (1 - by_chance)) if by_chance < 1 else 0.0


def label_posterior(decision: np.ndarray, codes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Probability (n,) that the given label is the true class, from predictions of the given labels.

    decision (n, n_classes): out-of-sample class probabilities, or scores that differ from them by a constant per
    class; codes (n,) given labels; matrix T as `noise_matrix` gives it. With q = decision, shifted so that its means
    are the shares of the given labels, the true class has the probabilities p >= 0, sum p = 1, under which labels
    drawn with shares q are likeliest: 30 steps p_k <- p_k sum_j T_kj q_j / (p T)_j from equal ones. (q T^-1 is the same
    where it is positive, and breaks down where T is nearly singular.) By Bayes' rule the label j is right with
    probability p_j T_jj / (p T)_j.
    Source: noise matrix and its inversion, Patrini et al. 2017 (arXiv:1609.03683); the steps, Richardson 1972 and Lucy
    1974.
    """
    rows, n_classes = np.arange(len(codes)), decision.shape[1]
    shares = np.bincount(codes, minlength=n_classes) / len(codes)
    given = as_probabilities(decision + (shares - decision.mean(axis=0)))
    true = np.full_like(given, 1 / n_classes)
    for _ in range(UNFOLDING_STEPS):
        true *= (given / (true @ matrix)) @ matrix.T
    true = as_probabilities(true)
    return true[rows, codes] * matrix[codes, codes] / (true @ matrix)[rows, codes]


def as_probabilities(values: np.ndarray) -> np.ndarray:
    """Rows of at least 0.001 that sum to 1."""
    values = np.clip(values, LEAST_PROBABILITY, None)
    return values / values.sum(axis=1, keepdims=True)
