"""How many labels are wrong, and which, from predictions that did not see them. NumPy and SciPy only.

`decision` (n, n_classes) is what predicts each row without its own label: class probabilities, or scores of classes
that are near 1 for the class that fits and near 0 for the others. `codes` (n,) are the given labels, 0..n_classes-1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls
from scipy.special import ndtri

from sktda.room import row_by_row

ANCHOR_SHARE, ANCHOR_ROWS, ANCHOR_LIMIT = 0.3, 50, 0.6
SHARES = (0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
LEAST_ROWS = 20  # before the share of wrong labels among them says something
FLOOR = 0.1  # over the number of classes: no class is called less probable
BOUND = 0.98  # confidence of the bound that a share of few rows has to make up for: it is the smallest of several
LEAST_EXCESS, ENOUGH = 0.1, 2.0  # of a class that is called another one; standard errors
UNFOLDING_STEPS = 30
WIDE = 0.997  # confidence of the interval of such a share
INTERVAL = 1.96  # standard errors on each side, 95 %


def as_probabilities(decision: np.ndarray, floor: float = FLOOR) -> np.ndarray:
    """Rows of at least floor / n_classes that sum to 1 (slightly less, once they are normalised)."""
    least = max(floor / decision.shape[1], 1e-12)

    def normalised(values: np.ndarray) -> np.ndarray:
        values = np.clip(values, least, None)
        return values / values.sum(axis=1, keepdims=True)

    return row_by_row(normalised, decision, width=decision.shape[1])


def anchor_counts(decision: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """How many rows that are confidently predicted as class k carry label j: (n_classes, n_classes) whole numbers.

    The rows most confidently predicted as class k (30 % of them, at least 50 rows where that is not more than 60 %)
    count as true class k: the anchor points of Patrini et al. 2017 (arXiv:1609.03683, eq. 12), many because labels are
    random. Confidence is the lead over the second class.
    """
    n_classes = decision.shape[1]
    lead = row_by_row(lambda values: np.subtract(*np.sort(values, axis=1)[:, :-3:-1].T), decision)
    predicted = decision.argmax(axis=1)
    counts = np.zeros((n_classes, n_classes), dtype=int)
    for k in range(n_classes):
        rows = np.flatnonzero(predicted == k)
        if len(rows):
            wanted = max(ANCHOR_SHARE * len(rows), min(ANCHOR_ROWS, ANCHOR_LIMIT * len(rows)))
            anchors = rows[largest(lead[rows], max(1, round(wanted)))]
            counts[k] = np.bincount(codes[anchors], minlength=n_classes)
    return counts


def largest(values: np.ndarray, k: int, cut: float | None = None) -> np.ndarray:
    """Positions of the k largest of values (n,), of equal ones the first; in no order. Sorting many would take longer.

    cut: the smallest of these, if it is known.
    """
    if cut is None:
        cut = np.partition(values, len(values) - k)[len(values) - k]
    above = np.flatnonzero(values > cut)
    return np.append(above, np.flatnonzero(values == cut)[: k - len(above)])


def noise_matrix(decision: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """How each true class is labelled: T[k, j] = share of true class k that carries label j, rows sum to 1.

    The rows that count as true class k are those of `anchor_counts`. A class that nothing is predicted as keeps
    T[k, k] = 1. Classes that overlap are confused here, too; `one_way_matrix` leaves that out.
    """
    counts = anchor_counts(decision, codes)
    seen = counts.sum(axis=1, keepdims=True)
    return np.where(seen > 0, counts / np.maximum(seen, 1), np.eye(len(counts)))


def excess(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much more class k is called j than j is called k: (E, its standard errors), both (n_classes, n_classes).

    counts C as `anchor_counts` gives them, n_k their row sums, T_kj = C_kj / n_k. Classes that overlap are taken for
    each other both ways, wrong labels of a class go mostly one way: E_kj = T_kj - max(T_jk, C_jk / n_k).
    """
    seen = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    share = counts / seen
    # with 1/n_k, for a share of 0 or 1 among few rows is not certain
    variance = (share * (1 - share) + 1 / seen) / seen
    return share - np.maximum(share.T, counts.T / seen), np.sqrt(variance + variance.T)


def one_way_matrix(counts: np.ndarray) -> np.ndarray:
    """The part of the confusion that overlap of classes cannot explain: like `noise_matrix`, rows sum to 1.

    counts (n_classes, n_classes) as `anchor_counts` gives them. k is mislabelled as j to the share E_kj of `excess`
    where that is at least 0.1 and by enough standard errors above 0, else 0; the identity where no pair is. Less than
    a tenth of a class costs little where it is left in, and overlap of many rows is one-sided to that extent. Enough
    for the j-th largest of m pairs is what the largest of m / j pairs reaches by chance, sqrt(2 log(m / j)), and at
    least 2: a step up as that of Benjamini and Hochberg 1995, since where many pairs are certain, so are more. Of two
    classes there is one pair, and 1 is enough.
    """
    n_classes = len(counts)
    beyond, error = excess(counts)
    apart = ~np.eye(n_classes, dtype=bool)
    ratio = np.where(apart, beyond / error, -np.inf)
    n_pairs = max(1, n_classes * (n_classes - 1) // 2)
    largest = -np.sort(-ratio[apart])[:n_pairs]  # of a pair one way only: the other one is negative
    limits = np.sqrt(2 * np.log(n_pairs / np.arange(1, len(largest) + 1)))
    passed = largest[largest > np.maximum(limits, ENOUGH if n_pairs > 1 else 1.0)]
    matrix = np.where((ratio >= passed.min(initial=np.inf)) & (beyond >= LEAST_EXCESS), beyond, 0.0)
    np.fill_diagonal(matrix, 1 - matrix.sum(axis=1))
    return matrix


def likely_matrix(counts: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The `one_way_matrix` with what else is likely: confusions it is not certain of, as counted, and a little of each.

    (n_classes, n_classes). A pair k, j that `matrix` leaves out gets the share E_kj of `excess`, at least 0.1 /
    n_classes: what is not seen in the anchors may still be. Rows sum to about 1.
    """
    others = np.maximum(excess(counts)[0], FLOOR / len(counts))
    return np.where((matrix > 0) | np.eye(len(matrix), dtype=bool), matrix, others)


def unfold(probabilities: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Probabilities p (n, n_classes) of the true class from those of the label q, with q = p T.

    matrix T (n_classes, n_classes), T[k, j] = share of true class k that is labelled j. Of p >= 0 that sum to 1 those
    under which labels drawn with shares q are likeliest: 30 steps p_k <- p_k sum_j T_kj q_j / (p T)_j from equal ones.
    q T^-1 is the same where it is positive, and breaks down where T is nearly singular.
    Source: the matrix and its inversion, Patrini et al. 2017 (arXiv:1609.03683); the steps, Richardson 1972, Lucy 1974.
    """
    if np.array_equal(matrix, np.eye(len(matrix))):
        return probabilities

    def unfolded(values: np.ndarray) -> np.ndarray:
        true = np.full_like(values, 1 / len(matrix))
        for _ in range(UNFOLDING_STEPS):
            labelled = np.maximum(true @ matrix, 1e-300)  # 0 for a class that is always called another one
            true = true * ((values / labelled) @ matrix.T)
        return true / true.sum(axis=1, keepdims=True)

    return row_by_row(unfolded, probabilities, width=len(matrix))


def log_margin(probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """log p(given label) - log p(most probable other class), (n,), in nats; below 0 another class is more probable."""

    def margin(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
        rows = np.arange(len(codes))
        logs = np.log(np.clip(values, 1e-6, None))  # one class may have been unfolded to nothing
        own = logs[rows, codes]
        logs[rows, codes] = -np.inf
        return own - logs.max(axis=1)

    return row_by_row(margin, probabilities, codes)


def label_posterior(true: np.ndarray, codes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Probabilities (n, n_classes) of the true class, by the features and by the label that the row was given.

    true p (n, n_classes): by the features alone, see `unfold`; matrix T (n_classes, n_classes), T[k, j] = share of
    true class k that is labelled j. By Bayes' rule class k has the probability p_k T_kj / (p T)_j, if j is the label.
    """

    def weighed(true: np.ndarray, codes: np.ndarray) -> np.ndarray:
        joint = true * matrix[:, codes].T
        return joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-300)

    return row_by_row(weighed, true, codes, width=len(matrix))


def log_odds(probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """log p(given label) - log p(any other class), (n,), in nats; below 0 the label is rather wrong."""

    def odds(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
        rows = np.arange(len(codes))
        own = values[rows, codes]
        others = values.copy()
        others[rows, codes] = 0.0
        return np.log(np.maximum(own, 1e-12)) - np.log(np.maximum(others.sum(axis=1), 1e-12))

    return row_by_row(odds, probabilities, codes)


@dataclass(frozen=True)
class JudgedLabels:
    """What out-of-sample predictions say of each label: see `judge_labels`.

    scores (n,), in nats, higher = keep; posterior (n, n_classes): of the true class; matrix (n_classes, n_classes): the
    `one_way_matrix`, the identity where nothing was corrected.
    """

    scores: np.ndarray
    posterior: np.ndarray
    matrix: np.ndarray

    @property
    def is_corrected(self) -> bool:
        """Whether any class is mislabelled in one way."""
        return bool((self.matrix.diagonal() < 1).any())


def judge_labels(decision: np.ndarray, codes: np.ndarray) -> JudgedLabels:
    """How probable the given labels are once labels that are wrong by class are taken out of the predictions.

    Where `one_way_matrix` T finds none, the scores are the `log_margin`. Else predictions q of the label are turned
    back into those of the true class by `unfold`, and the scores are the `log_odds` of the `label_posterior`. A net
    that was stopped early predicts the true class in spite of the labels: where q T explains them better than q, by
    more than two standard errors of the difference of the log likelihoods, q is taken as it is. Measured by
    benchmarks/given_probabilities.py.
    """
    q = as_probabilities(decision)
    counts = anchor_counts(q, codes)
    matrix = one_way_matrix(counts)
    if (matrix.diagonal() == 1).all():
        return JudgedLabels(log_margin(q, codes), q, matrix)

    def log_ratio(q: np.ndarray, codes: np.ndarray) -> np.ndarray:
        taken = np.arange(len(codes)), codes
        return np.log(q[taken]) - np.log(np.maximum((q @ matrix)[taken], 1e-12))

    gain = row_by_row(log_ratio, q, codes)
    learnt = gain.mean() >= -ENOUGH * gain.std() / np.sqrt(len(codes))
    # only what is certain is undone: to undo doubtful confusions spoils predictions, to weigh by them does not
    true = unfold(q, matrix) if learnt else q
    posterior = label_posterior(true, codes, likely_matrix(counts, matrix))
    return JudgedLabels(log_odds(posterior, codes), posterior, matrix)


@dataclass(frozen=True)
class NoiseRate:
    """Estimated share of wrong labels, and its interval as far as sampling goes."""

    rate: float
    low: float
    high: float


def counted(rate: float, n: int) -> NoiseRate:
    """The share of n rows that were counted as wrong, with the interval of a count (one half added on either side)."""
    smoothed = (rate * n + 0.5) / (n + 1)
    error = float(INTERVAL * np.sqrt(smoothed * (1 - smoothed) / n))
    return NoiseRate(rate, max(0.0, rate - error), min(1.0, rate + error))


def _wilson(k: np.ndarray, n: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of Wilson's interval for k in n. SciPy's brings a p-value, which takes a hundred times as long."""
    z, p = ndtri(0.5 + 0.5 * confidence), k / n
    width = 2 * (n + z**2)
    centre, error = (2 * n * p + z**2) / width, z / width * np.sqrt(4 * n * p * (1 - p) + z**2)
    return np.where(k == 0, 0.0, centre - error), np.where(k == n, 1.0, centre + error)


def label_noise(decision: np.ndarray, codes: np.ndarray) -> NoiseRate:
    """How many labels are wrong: no more than the most predictable rows show.

    If labels are wrong independently of the features, predictable rows carry as many wrong ones as any others, while
    overlap of classes spares them. So the most confident rows are counted: 5, 7, 10, ... or 100 % of them (at least
    20), whichever has the lowest upper bound of the share of labels that differ from the prediction. The bounds are
    those of Wilson's 98 % interval, by which none among few rows is not taken for none at all: none of 60 may still be
    .083 of them, 12 of 300 no more than .075. The rate is the share among the chosen rows, or that of
    `one_way_matrix` if it is more: labels of a class that are wrong in one way keep predictions from being confident.
    There the shares p of the true classes solve T' p = shares of the given labels (p >= 0, least squares). The interval
    reaches as far below and above the rate as Wilson's of 99.7 % does from the share among the chosen rows, since the
    smallest of several was taken. It knows nothing of overlap that reaches the most confident rows.
    Source: the interval, Wilson 1927. Measured by benchmarks/tables_battery.py.
    """
    probabilities = as_probabilities(decision)
    wrong = probabilities.argmax(axis=1) != codes
    confidence = probabilities.max(axis=1)
    sizes = np.clip(np.round(np.multiply(SHARES, len(codes))), min(LEAST_ROWS, len(codes)), None).astype(int)
    cuts = np.partition(confidence, len(codes) - sizes)[len(codes) - sizes]
    counts = np.array([wrong[largest(confidence, *each)].sum() for each in zip(sizes, cuts, strict=True)])
    best = _wilson(counts, sizes, BOUND)[1].argmin()
    share, (low, high) = float(counts[best] / sizes[best]), _wilson(counts[best], sizes[best], WIDE)
    matrix = one_way_matrix(anchor_counts(probabilities, codes))
    true_shares, _ = nnls(matrix.T, np.bincount(codes, minlength=len(matrix)) / len(codes))
    one_way = true_shares @ (1 - matrix.diagonal()) / true_shares.sum()
    # no more than all labels that are not as predicted
    rate = float(min(max(share, one_way), wrong.mean()))
    below, above = float(share - low), float(high - share)
    return NoiseRate(rate, max(0.0, rate - below), min(1.0, rate + above))


def label_noise_rate(decision: np.ndarray, codes: np.ndarray) -> float:
    """Estimated share of wrong labels, in [0, 1]: the rate of `label_noise`."""
    return label_noise(decision, codes).rate


def balanced_prediction(decision: np.ndarray) -> np.ndarray:
    """Predicted classes (n,): those whose probability is largest in proportion to its mean over the rows.

    The majority alone is then no prediction. 0.1 / n_classes is added to the means, so that scatter is none either.
    """
    probabilities = as_probabilities(decision, 0.0)
    usual = probabilities.mean(axis=0) + FLOOR / decision.shape[1]
    return row_by_row(lambda values: (values / usual).argmax(axis=1), probabilities).astype(np.int64)


def balanced_accuracy(predicted: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """(mean over the classes of the share of their rows predicted (n,) as them, its standard error)."""
    counts = np.bincount(codes)
    hits = np.bincount(codes[predicted == codes], minlength=len(counts))[counts > 0]
    counts = counts[counts > 0]
    smoothed = (hits + 0.5) / (counts + 1)
    variance = (smoothed * (1 - smoothed) / counts).sum() / len(counts) ** 2
    return float((hits / counts).mean()), float(np.sqrt(variance))


def association(predicted: np.ndarray, codes: np.ndarray) -> float:
    """Standard errors by which predicted classes (n,) meet the labels more often than if neither knew of the other."""
    classes = np.arange(max(predicted.max(), codes.max()) + 1)
    shares = [np.bincount(values, minlength=len(classes)) / len(codes) for values in (predicted, codes)]
    by_chance = float(shares[0] @ shares[1])
    error = np.sqrt(by_chance * (1 - by_chance) / len(codes))  # of the accuracy of classes drawn by chance
    return float((np.mean(predicted == codes) - by_chance) / error) if error else 0.0


def explained_variance(prediction: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """(R2 of out-of-sample predictions (n,) against the middle of the target (n,), its standard error); chance is 0.

    Errors count up to three robust deviations of the target: a few absurd values decide nothing.
    """
    n = len(target)
    farthest = 3 * (robust_deviation(target) or target.std())
    alone = (target - np.median(target)) * n / (n - 1)  # a row has a part in the middle, and none in its prediction
    alone, own = (np.square(np.clip(error, -farthest, farthest)) for error in (alone, target - prediction))
    total = alone.sum()
    if not total:
        return 0.0, 0.0
    gain = alone - own
    return float(gain.sum() / total), float(gain.std() * np.sqrt(n) / total)


def outlier_rate(residual: np.ndarray, target: np.ndarray) -> float:
    """Share of targets that their neighbours contradict: residuals more than 3.5 robust deviations from their median.

    residual (n,): out-of-sample errors of target (n,). The robust deviation is 1.4826 times the median absolute
    deviation, of the residuals or a fifth of the target's, whichever is larger: the errors of a smooth target without
    noise are tiny and heavy-tailed, which is no reason to distrust it. 3.5 is the cut of Iglewicz and Hoaglin 1993.
    """
    spread = max(robust_deviation(residual), 0.2 * robust_deviation(target))
    return float(np.mean(np.abs(residual - np.median(residual)) > 3.5 * spread))


def outliers(attributor: Any, target: np.ndarray) -> NoiseRate:
    """How many targets (n,) of a regression are outliers, by a fitted attributor.

    Its own estimate (outlier_rate_ and outlier_rate_interval_) where it makes one, else the `outlier_rate` of the
    errors of its out-of-sample predictions (loo_decision_).
    """
    if hasattr(attributor, "outlier_rate_"):
        return NoiseRate(attributor.outlier_rate_, *attributor.outlier_rate_interval_)
    return counted(outlier_rate(target - attributor.loo_decision_, target), len(target))


def robust_deviation(values: np.ndarray) -> float:
    """1.4826 times the median absolute deviation: the standard deviation, where values are normal."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
