"""How many labels are wrong, from predictions that did not see them. NumPy and SciPy only."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

ANCHOR_SHARE, ANCHOR_ROWS, ANCHOR_LIMIT = 0.3, 100, 0.6


def noise_matrix(decision: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """How each true class is labelled: T[k, j] = share of true class k that carries label j, rows sum to 1.

    decision (n, n_classes): out-of-sample class scores, so that a row's own label plays no part in them;
    codes (n,): given labels as 0..n_classes-1. The rows most confidently predicted as class k (30 % of them, at least
    100 rows where that is not more than 60 %) count as true class k, and their given labels are tallied: the
    anchor points of Patrini et al. 2017 (arXiv:1609.03683, eq. 12), averaged over many because labels are random.
    Confidence is the lead over the second class. A class that nothing is predicted as keeps T[k, k] = 1.
    """
    n_classes = decision.shape[1]
    best_two = np.sort(decision, axis=1)[:, -2:]
    lead = best_two[:, 1] - best_two[:, 0]
    predicted = decision.argmax(axis=1)
    matrix = np.eye(n_classes)
    for k in range(n_classes):
        rows = np.flatnonzero(predicted == k)
        if len(rows):
            wanted = max(ANCHOR_SHARE * len(rows), min(ANCHOR_ROWS, ANCHOR_LIMIT * len(rows)))
            anchors = rows[np.argsort(-lead[rows], kind="stable")[: max(1, round(wanted))]]
            matrix[k] = np.bincount(codes[anchors], minlength=n_classes) / len(anchors)
    return matrix


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
