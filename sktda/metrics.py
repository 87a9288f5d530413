"""How far attributions and models can be believed: compared with retrained models, with known mistakes, and by labels
of which some are wrong. NumPy only.

Values are oriented as everywhere here: (n_query, n_train), the predicted rise of a query's loss when a row is removed.
Functions of many queries return one number for each; their mean is what papers report, `bootstrap_interval` its spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sktda.distributions import Measure, resolve_measure, wasserstein, wasserstein_floor, wasserstein_gaussian

SPLITS = 50  # of the retrains into halves; the ceiling then moves by about .002 with the draw, where there are 5


def linear_datamodeling_score(values: np.ndarray, kept: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Rank correlation over subsets of what the values predict and what retrained models say, for every query.

    Parameters
    ----------
    values : ndarray of shape (n_query, n_train)
        Predicted rise of each query's loss when one row is removed.
    kept : ndarray of bool, shape (n_subsets, n_train)
        Rows that each retrained model saw. The sum over the other rows predicts its losses.
    measured : ndarray of shape (n_subsets, n_query) or (n_subsets, n_retrains, n_query)
        Loss of each query in the retrained models, lower = better; minus the margin, if the values are of a margin.
        The retrains of a subset are averaged.

    Returns
    -------
    scores : ndarray of shape (n_query,)
        In [-1, 1], 0 where the prediction or the loss is the same for all subsets. Their mean is the LDS.

    Raises
    ------
    ValueError
        For shapes that do not match, fewer than 3 subsets, numbers that are not finite.

    Notes
    -----
    Source: Park et al. 2023 (TRAK, arXiv:2303.14186), definition 2.3.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.metrics import linear_datamodeling_score
    >>> values = np.array([[0.3, 0.1, 0.2]])  # of one query
    >>> kept = np.array([[True, False, True], [True, True, False], [False, True, True]])
    >>> linear_datamodeling_score(values, kept, measured=np.array([[1.1], [1.2], [1.3]]))
    array([1.])
    """
    values, kept, measured = finite("values", values), np.asarray(kept, dtype=bool), finite("measured", measured)
    if measured.ndim == 3:
        measured = measured.mean(axis=1)
    if values.ndim != 2 or kept.shape[1:] != values.shape[1:] or measured.shape != (len(kept), len(values)):
        raise ValueError(
            f"got values {values.shape}, kept {kept.shape} and measured {measured.shape} (retrains averaged); expected "
            "(n_query, n_train), (n_subsets, n_train) and (n_subsets, n_query)"
        )
    if len(kept) < 3:
        raise ValueError(f"{len(kept)} subsets give no rank correlation; retrain on at least 3, better 50")
    return spearman((~kept).astype(float) @ values.T, measured)


def distributional_lds(
    values: np.ndarray,
    shifts: np.ndarray,
    kept: np.ndarray,
    measured: np.ndarray,
    full: np.ndarray | None = None,
    *,
    measure: str | Measure = "variance",
    floor: bool = True,
) -> np.ndarray:
    """Rank correlation over subsets of how a distribution over training runs is predicted to move, and how it moved.

    Parameters
    ----------
    values : ndarray of shape (n_runs, n_query)
        Loss of each query, or what else is measured of it, in each run on all rows.
    shifts : ndarray of shape (n_runs, n_query, n_train)
        Predicted rise of it in that run when one row is removed. The sum over the rows that a subset leaves out is
        added to `values`: the predicted distribution.
    kept : ndarray of bool, shape (n_subsets, n_train)
        Rows that each retrained model saw.
    measured : ndarray of shape (n_subsets, n_retrains, n_query)
        The same of each query in the retrained models; at least 2 retrains.
    full : ndarray of shape (n_models, n_query), default=None
        The same in models retrained on all rows; None = `values`.
    measure : {"mean", "variance", "wasserstein", "wasserstein_gaussian"} or callable, default="variance"
        As of `sktda.attribution.Distributional`.
    floor : bool, default=True
        Subtract from a Wasserstein distance of retrained models what chance alone gives between sets of runs of these
        sizes (`sktda.distributions.wasserstein_floor`, at the variances found).

    Returns
    -------
    scores : ndarray of shape (n_query,)
        In [-1, 1], 0 where the prediction or the truth is the same for all subsets.

    Raises
    ------
    ValueError
        For shapes that do not match, fewer than 3 subsets or 2 runs or retrains, numbers that are not finite.

    Notes
    -----
    The predicted distance compares every run with itself and has no floor. The true one is right on average once it is
    subtracted; for few retrains its own noise can cost more rank correlation than it brings. Source: arXiv:2506.12965,
    the distributional LDS.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.metrics import distributional_lds
    >>> rng = np.random.default_rng(0)
    >>> values, shifts = rng.normal(size=(20, 1)), rng.normal(size=(20, 1, 30))
    >>> kept = rng.random((50, 30)) < 0.5
    >>> truth = values[None] + np.einsum("sqn,mn->msq", shifts, ~kept)  # had the runs moved as predicted
    >>> distributional_lds(values, shifts, kept, truth, measure="variance")
    array([1.])
    """
    values, shifts, measured = finite("values", values), finite("shifts", shifts), finite("measured", measured)
    kept, full = np.asarray(kept, dtype=bool), values if full is None else finite("full", full)
    n_subsets, n_train = kept.shape if kept.ndim == 2 else (0, 0)
    expected = (*values.shape, n_train), (n_subsets, measured.shape[1] if measured.ndim == 3 else 0, *values.shape[1:])
    if values.ndim != 2 or (shifts.shape, measured.shape) != expected or full.shape[1:] != values.shape[1:]:
        raise ValueError(
            f"got values {values.shape}, shifts {shifts.shape}, kept {kept.shape}, measured {measured.shape} and full "
            f"{full.shape}; expected (n_runs, n_query), (n_runs, n_query, n_train), (n_subsets, n_train), (n_subsets, "
            "n_retrains, n_query) and (n_models, n_query)"
        )
    if n_subsets < 3 or min(len(values), len(full), measured.shape[1]) < 2:
        raise ValueError(
            f"{n_subsets} subsets, {len(values)} runs, {len(full)} models on all rows and {measured.shape[1]} retrains "
            "of each subset; needed are at least 3 subsets and 2 of the others"
        )
    function = resolve_measure(measure)
    return spearman(predicted_moves(function, values, shifts, ~kept), measured_moves(function, full, measured, floor))


def predicted_moves(measure: Measure, values: np.ndarray, shifts: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """(n_subsets, n_query) of the measure, with shifts summed over the rows that are removed (n_subsets, n_train)."""
    moved = np.einsum("sqn,mn->msq", shifts, removed.astype(float), optimize=True)
    return np.stack([measure(values, values + each) for each in moved])


def measured_moves(measure: Measure, full: np.ndarray, measured: np.ndarray, floor: bool = True) -> np.ndarray:
    """(n_subsets, n_query) of the measure between models on all rows and those of each subset, less what is chance."""
    return np.stack([measure(full, each) - floor * chance(measure, full, each) for each in measured])


def chance(measure: Measure, x: np.ndarray, y: np.ndarray) -> np.ndarray | float:
    """What a Wasserstein distance of samples x and y would be, were they of one distribution; 0 for other measures."""
    if measure not in (wasserstein, wasserstein_gaussian):
        return 0.0
    floor = wasserstein_floor(len(x), len(y), gaussian=measure is wasserstein_gaussian)
    return floor * (x.var(axis=0, ddof=1) + y.var(axis=0, ddof=1)) / 2


def noise_ceiling(measured: np.ndarray) -> float:
    """LDS that a perfect prediction would reach: less than 1, because retraining on one subset varies.

    It is the square root of the reliability of the mean over retrains: the retrains are split at random into two equal
    parts (of an odd number one stays out), the rank correlation of the parts' means is averaged over queries and
    splits, and the Spearman-Brown formula takes it from that length to all retrains.

    Parameters
    ----------
    measured : ndarray of shape (n_subsets, n_retrains, n_query)
        As in `linear_datamodeling_score`, with at least 2 retrains.

    Returns
    -------
    ceiling : float
        In [0, 1].

    Raises
    ------
    ValueError
        For another shape, fewer than 2 retrains or 3 subsets, numbers that are not finite.

    Notes
    -----
    An estimate, and of few retrains rather too high: where the noise has heavy tails, as losses do, the ranks of means
    gain less from further retrains than the formula says.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.metrics import noise_ceiling
    >>> rng = np.random.default_rng(0)
    >>> losses = rng.normal(size=(200, 1, 20)) + rng.normal(size=(200, 4, 20))  # reliability 1 / (1 + 1/4), root .894
    >>> round(noise_ceiling(losses), 2)
    0.89
    """
    measured = finite("measured", measured)
    if measured.ndim != 3 or measured.shape[0] < 3 or measured.shape[1] < 2:
        raise ValueError(
            f"measured has shape {measured.shape}; expected is (n_subsets, n_retrains, n_query) with at least 3 "
            "subsets and 2 retrains of each"
        )
    rng = np.random.default_rng(0)
    n = measured.shape[1]
    half = n // 2
    found = []
    for _ in range(SPLITS):
        order = rng.permutation(n)
        parts = (measured[:, order[:half]].mean(axis=1), measured[:, order[half : 2 * half]].mean(axis=1))
        found.append(spearman(*parts).mean())
    r, length = max(np.mean(found), 0.0), n / half
    return float(np.sqrt(length * r / (1 + (length - 1) * r)))


def bootstrap_interval(scores: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of the scores: percentiles of the mean of 10,000 samples drawn with replacement.

    For two methods on the same queries, pass the differences of their scores.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        One number per query.
    level : float, default=0.95
        Share of the samples' means inside the interval.

    Returns
    -------
    low, high : float

    Raises
    ------
    ValueError
        For no scores, another shape, numbers that are not finite, or a level outside (0, 1).

    Notes
    -----
    Only the queries are drawn again: the interval says nothing about other subsets or other training runs.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.metrics import bootstrap_interval
    >>> low, high = bootstrap_interval(np.arange(100))
    >>> round(low), round(high)
    (44, 55)
    """
    scores = finite("scores", scores)
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"scores has shape {scores.shape}; expected is (n,) with at least one number")
    if not 0 < level < 1:
        raise ValueError(f"level={level!r} is not a share between 0 and 1, such as 0.95")
    rng = np.random.default_rng(0)
    means = [rng.choice(scores, (100, len(scores))).mean(axis=1) for _ in range(100)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def detection_curve(scores: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """How many known mistakes are found when rows are inspected from the lowest score up.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Higher = keep.
    wrong : ndarray of bool, shape (n,)
        The mistakes; at least one row is wrong and one right.

    Returns
    -------
    inspected : ndarray of shape (n + 1,)
        Share of the rows inspected, from 0 to 1.
    found : ndarray of shape (n + 1,)
        Share of the mistakes among them; rows of equal score count as inspected in random order.
    auroc : float
        Chance that a wrong row scores below a right one, ties counted half.

    Raises
    ------
    ValueError
        For shapes that do not match, rows that are all right or all wrong, scores that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.metrics import detection_curve
    >>> inspected, found, auroc = detection_curve(np.array([0.1, 0.9, 0.3, 0.7]), np.array([True, False, False, True]))
    >>> found
    array([0. , 0.5, 0.5, 1. , 1. ])
    >>> auroc
    0.75
    """
    scores, wrong = finite("scores", scores), np.asarray(wrong, dtype=bool)
    if scores.ndim != 1 or scores.shape != wrong.shape or wrong.all() or not wrong.any():
        raise ValueError(
            f"got scores {scores.shape} and wrong {wrong.shape} with {int(wrong.sum())} wrong rows; expected is one "
            "entry of each per row, and both wrong and right rows"
        )
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    share = np.bincount(place, wrong) / count  # of wrong rows among those of one score
    found = np.append(0, np.cumsum(np.repeat(share, count))) / wrong.sum()
    inspected = np.linspace(0, 1, len(scores) + 1)
    # inspected = rate * found + (1 - rate) * (share of right rows inspected), so its area holds that of the ROC curve
    rate = wrong.mean()
    auroc = (np.trapezoid(found, inspected) - rate / 2) / (1 - rate)
    return inspected, found, float(auroc)


def removal_curve(
    values: np.ndarray, n_removed: Sequence[int], retrain: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Brittleness: share of queries whose prediction flips when the rows that help them most are removed.

    Parameters
    ----------
    values : ndarray of shape (n_query, n_train)
        Predicted rise of each query's loss when one row is removed.
    n_removed : sequence of int
        How many rows to remove, each below n_train.
    retrain : callable
        Maps a mask of the rows to train on, (n_train,) bool, to the predictions of the queries, (n_query,). Called
        once with all rows, and once per query and entry of n_removed; with a fixed seed, removal is all that differs.

    Returns
    -------
    flipped : ndarray of shape (len(n_removed),)
        Shares of the queries.

    Raises
    ------
    ValueError
        For values that are not 2-D and finite, counts that leave no row, predictions of another shape.

    Notes
    -----
    Source: Ilyas et al. 2022 (datamodels, arXiv:2202.00622) for the question, Bae et al. 2024 (arXiv:2405.12186) for
    the curve; they take queries that are predicted rightly before.

    Examples
    --------
    The nearest of three points decides, and the second nearest after it.

    >>> import numpy as np
    >>> from sktda.metrics import removal_curve
    >>> x, y, query = np.array([0.0, 1.0, 5.0]), np.array([0, 0, 1]), 0.2
    >>> def retrain(kept):
    ...     return y[kept][[np.abs(x[kept] - query).argmin()]]
    >>> removal_curve(np.array([[0.9, 0.5, -0.1]]), [1, 2], retrain)
    array([0., 1.])
    """
    values = finite("values", values)
    if values.ndim != 2:
        raise ValueError(f"values has shape {values.shape}; expected is (n_query, n_train)")
    n_query, n_train = values.shape
    if bad := [k for k in n_removed if not 0 <= k < n_train]:
        raise ValueError(f"{bad[0]} of {n_train} rows cannot be removed; remove 0 to {n_train - 1}")

    def predict(removed: np.ndarray) -> np.ndarray:
        kept = np.ones(n_train, dtype=bool)
        kept[removed] = False
        predictions = np.asarray(retrain(kept))
        if predictions.shape != (n_query,):
            raise ValueError(
                f"retrain returned shape {predictions.shape}; expected is one prediction per query, ({n_query},)"
            )
        return predictions

    before = predict(np.array([], dtype=int))
    most_helpful = np.argsort(-values, axis=1, kind="stable")
    flips = [[predict(rows[:k])[q] != before[q] for q, rows in enumerate(most_helpful)] for k in n_removed]
    return np.mean(flips, axis=1)


def leave_one_out_correlation(values: np.ndarray, retrained: np.ndarray, full: np.ndarray) -> dict[str, np.ndarray]:
    """Agreement of the values of some rows with retraining without each of them, for every query.

    Parameters
    ----------
    values : ndarray of shape (n_query, n_rows)
        Of the rows that were left out: predicted rise of each query's loss.
    retrained : ndarray of shape (n_rows, n_query)
        Loss of each query in the model trained without that row.
    full : ndarray of shape (n_query,)
        Loss of each query in the model of all rows.

    Returns
    -------
    agreement : dict
        Three arrays of shape (n_query,): "pearson" and "spearman", in [-1, 1], and "slope" of the least-squares line
        of the true rise on the predicted one (1 = the scale is right). All are 0 where the values do not vary.

    Raises
    ------
    ValueError
        For shapes that do not match, fewer than 3 rows, numbers that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.metrics import leave_one_out_correlation
    >>> values = np.array([[0.1, 0.2, -0.1]])
    >>> retrained = np.array([[1.2], [1.4], [0.8]])  # without the first, second, third row
    >>> leave_one_out_correlation(values, retrained, full=np.array([1.0]))["slope"].round(6)
    array([2.])
    """
    predicted, retrained, full = finite("values", values).T, finite("retrained", retrained), finite("full", full)
    if predicted.ndim != 2 or retrained.shape != predicted.shape or full.shape != predicted.shape[1:]:
        raise ValueError(
            f"got values {predicted.T.shape}, retrained {retrained.shape} and full {full.shape}; expected "
            "(n_query, n_rows), (n_rows, n_query) and (n_query,)"
        )
    if len(predicted) < 3:
        raise ValueError(f"{len(predicted)} rows give no correlation; leave out at least 3, better 50")
    true = retrained - full
    correlation = pearson(predicted, true)
    spread = np.where(varies(predicted), predicted.std(axis=0), 1.0)
    return {
        "pearson": correlation,
        "spearman": spearman(predicted, true),
        "slope": correlation * true.std(axis=0) / spread,
    }


def demographic_parity_gap(y_pred: np.ndarray, sensitive_features: np.ndarray, positive: object = 1) -> float:
    """Largest difference between groups in the share of rows that are predicted positive.

    Parameters
    ----------
    y_pred : array-like of shape (n_samples,)
        Predicted classes.
    sensitive_features : array-like of shape (n_samples,)
        Group of each row.
    positive : label, default=1

    Returns
    -------
    gap : float
        Between 0 (the same share in every group) and 1.

    Raises
    ------
    ValueError
        For fewer than two groups.

    Examples
    --------
    >>> from sktda.metrics import demographic_parity_gap
    >>> demographic_parity_gap([1, 1, 0, 0], ["a", "a", "a", "b"]) == 2 / 3
    True
    """
    chosen = np.asarray(y_pred) == positive
    return _largest_gap(chosen, np.ones(len(chosen), dtype=bool), sensitive_features)


def equal_opportunity_gap(
    y_true: np.ndarray, y_pred: np.ndarray, sensitive_features: np.ndarray, positive: object = 1
) -> float:
    """Largest difference between groups in the share of positive rows that are predicted positive.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        True and predicted classes.
    sensitive_features : array-like of shape (n_samples,)
        Group of each row.
    positive : label, default=1

    Returns
    -------
    gap : float
        Between 0 and 1.

    Raises
    ------
    ValueError
        For fewer than two groups, or a group without positive rows.

    Examples
    --------
    >>> from sktda.metrics import equal_opportunity_gap
    >>> equal_opportunity_gap([1, 1, 0, 1], [1, 0, 0, 1], ["a", "a", "a", "b"])
    0.5
    """
    return _largest_gap(np.asarray(y_pred) == positive, np.asarray(y_true) == positive, sensitive_features)


def _largest_gap(values: np.ndarray, among: np.ndarray, groups: np.ndarray) -> float:
    groups = np.asarray(groups)
    if not len(values) == len(among) == len(groups):
        raise ValueError(f"got {len(values)} predictions, {len(among)} labels and {len(groups)} groups")
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError(f"a gap is between groups, and all {len(groups)} rows are of one")
    empty = [str(name) for name in names if not among[groups == name].any()]
    if empty:
        raise ValueError(f"no row of the group {empty[0]} is positive")
    shares = [values[among & (groups == name)].mean() for name in names]
    return float(max(shares) - min(shares))


def noise_corrected_accuracy(
    y_true: np.ndarray, y_pred: np.ndarray, noise_matrix: np.ndarray, classes: np.ndarray | None = None
) -> float:
    """Accuracy on the true labels, estimated without bias from labels of which some are wrong.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        The given labels.
    y_pred : array-like of shape (n_samples,)
    noise_matrix : array-like of shape (n_classes, n_classes)
        T[k, j] = share of the rows of true class k that carry label j; rows sum to 1.
    classes : array-like of shape (n_classes,), default=None
        Their labels, in the order of the matrix; None = 0, 1, ...

    Returns
    -------
    accuracy : float
        Mean of inv(T)[given label, prediction]. A row counts more than 1 where label and prediction agree and less
        than 0 where they do not, so that few rows may give a figure outside [0, 1].

    Raises
    ------
    ValueError
        For a matrix that is not square, has rows that do not sum to 1 or no inverse, and for labels or predictions that
        are not among the classes.

    Notes
    -----
    Over the noise, the expected figure is the accuracy on the true labels, whatever the model and the shares of the
    classes, as long as labels are wrong as the matrix says and independently of the features within a class. Noise that
    strikes all classes alike changes the figure of every model by the same line a + b * accuracy, so it puts models in
    no other order; noise that depends on the class does. Source: the backward correction of Natarajan et al. 2013,
    lemma 1, and Patrini et al. 2017 (arXiv:1609.03683, theorem 1), of the 0-1 loss.

    Examples
    --------
    >>> from sktda.metrics import noise_corrected_accuracy
    >>> given = ["cat"] * 7 + ["dog"] * 3  # of ten cats, as 30 % of the cats are called dogs
    >>> noise = [[0.7, 0.3], [0.0, 1.0]]
    >>> round(noise_corrected_accuracy(given, ["cat"] * 10, noise, ["cat", "dog"]), 12)
    1.0
    """
    matrix = np.asarray(noise_matrix, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix.sum(axis=1), 1):
        raise ValueError(
            f"noise_matrix of shape {matrix.shape} must be square, row k the shares of true class k that carry each "
            "label, and every row must sum to 1"
        )
    if not (matrix >= 0).all() or np.linalg.cond(matrix) > 1e12:
        raise ValueError(
            "noise_matrix must have shares of at least 0 and an inverse: where two classes are labelled alike, no "
            "label tells which is right"
        )
    names = np.arange(len(matrix)) if classes is None else np.asarray(classes)
    if len(names) != len(matrix):
        raise ValueError(f"{len(names)} classes do not match a noise_matrix of {len(matrix)}")
    given, predicted = _positions("y_true", y_true, names), _positions("y_pred", y_pred, names)
    if len(given) != len(predicted):
        raise ValueError(f"got {len(given)} labels and {len(predicted)} predictions")
    return float(np.linalg.inv(matrix)[given, predicted].mean())


def _positions(name: str, values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Where each value stands among the classes; ValueError naming one that does not."""
    values = np.ravel(np.asarray(values))
    order = np.argsort(classes, kind="stable")
    place = np.searchsorted(classes[order], values).clip(max=len(classes) - 1)
    found = order[place]
    unknown = values[classes[found] != values]
    if len(unknown):
        raise ValueError(
            f"{name} holds {unknown[0]!r}, which is not among the classes {classes.tolist()}; give classes="
        )
    return found


class NoiseCorrectedScorer:
    """Scorer by `noise_corrected_accuracy`, for ``GridSearchCV(scoring=...)`` and wherever scikit-learn takes one.

    Parameters
    ----------
    noise_matrix : array-like of shape (n_classes, n_classes)
        Of the labels that will judge, as of `noise_corrected_accuracy`; such as `LabelPosterior().fit(X, y)` estimates
        as `noise_matrix_` of the labels that are wrong by class.
    classes : array-like of shape (n_classes,), default=None
        Their labels; None = those of the model that is scored.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.model_selection import cross_val_score
    >>> from sktda.metrics import NoiseCorrectedScorer
    >>> X, y = load_wine(return_X_y=True)
    >>> scorer = NoiseCorrectedScorer([[0.8, 0.2, 0], [0, 0.8, 0.2], [0.2, 0, 0.8]])
    >>> cross_val_score(DummyClassifier(), X, y, scoring=scorer, cv=3).shape
    (3,)
    """

    def __init__(self, noise_matrix: np.ndarray, classes: np.ndarray | None = None) -> None:
        self.noise_matrix = noise_matrix
        self.classes = classes

    def __call__(self, estimator: Any, X: Any, y: np.ndarray) -> float:
        """Corrected accuracy of the estimator's predictions of X by the labels y; higher = better."""
        classes = estimator.classes_ if self.classes is None else self.classes
        return noise_corrected_accuracy(y, estimator.predict(X), self.noise_matrix, classes)

    def __repr__(self) -> str:
        return f"NoiseCorrectedScorer(of {len(self.noise_matrix)} classes)"


def beyond_chance(scores: np.ndarray, prior: int) -> int:
    """Which candidate to take: the best, if it beats the prior one by more than a standard error; else the prior one.

    Parameters
    ----------
    scores : array-like of shape (n_splits, n_candidates)
        Higher = better; all candidates on the same splits.
    prior : int
        Position of the candidate that was best before anything was measured.

    Returns
    -------
    chosen : int
        Of equally good ones the first. The standard error is that of the mean over splits of the difference between
        the two, so that splits which are hard for all do not count; it is 0 for a single split.

    Raises
    ------
    ValueError
        For scores that are not two-dimensional, or a prior that is none of the candidates.

    Notes
    -----
    Of many candidates that are equally good, the best on small or dirty splits is a matter of luck. The rule is that of
    one standard error (Breiman et al. 1984, section 3.4.3), about a prior in place of the simplest model.

    Examples
    --------
    >>> from sktda.metrics import beyond_chance
    >>> beyond_chance([[0.80, 0.83], [0.70, 0.69], [0.75, 0.76]], prior=0)  # better by .01, give or take .0115
    0
    >>> beyond_chance([[0.80, 0.83], [0.70, 0.71], [0.75, 0.77]], prior=0)
    1
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or not 0 <= prior < scores.shape[1]:
        raise ValueError(
            f"got scores of shape {scores.shape} and prior={prior}; expected (n_splits, n_candidates), and "
            "one of the candidates"
        )
    means = scores.mean(axis=0)
    means[np.isnan(means)] = -np.inf  # a fit that failed
    best = int(means.argmax())
    if best == prior or means[prior] == -np.inf:
        return best
    gain = scores[:, best] - scores[:, prior]
    return best if gain.mean() > standard_error(gain) else int(prior)


def standard_error(values: np.ndarray) -> float:
    """Of the mean of values (n,); 0 for one value."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


class BeyondChance:
    """Choice for ``GridSearchCV(refit=...)``: a prior setting, unless another beats it by a paired standard error.

    Parameters
    ----------
    prior : dict
        {parameter of the grid: value that is expected to be best}, such as ``{"prune_ratio": noise_rate}``. The prior
        candidate is the one nearest to it; of several, as where other parameters are searched too, the one with the
        best mean.
    metric : str, default="score"
        Which scores of a search by several metrics decide.

    Raises
    ------
    ValueError
        In the call, for a parameter or a metric that the search does not have.

    Notes
    -----
    A search whose `refit` is a function has `best_index_`, `best_params_` and `best_estimator_`, but no `best_score_`.
    The rule is that of `beyond_chance`.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sktda import InfluencePruner
    >>> from sktda.attribution import ComplexityGap
    >>> from sktda.metrics import BeyondChance
    >>> X, y = load_wine(return_X_y=True)
    >>> grid = {"prune_ratio": [0, 0.1, 0.2]}
    >>> pruner = InfluencePruner(RidgeClassifier(), ComplexityGap())
    >>> GridSearchCV(pruner, grid, refit=BeyondChance({"prune_ratio": 0.01})).fit(X, y).best_params_
    {'prune_ratio': 0}
    """

    def __init__(self, prior: Mapping[str, Any], metric: str = "score") -> None:
        self.prior = prior
        self.metric = metric

    def __call__(self, cv_results: Mapping[str, Any]) -> int:
        """Position of the chosen candidate in the `cv_results_` of a search."""
        candidates = cv_results["params"]
        unknown = set(self.prior) - set.intersection(*map(set, candidates))
        if unknown or not self.prior:
            raise ValueError(
                f"prior={dict(self.prior)!r} must name parameters of the search, which are {sorted(candidates[0])}"
            )
        n_splits = 0
        while f"split{n_splits}_test_{self.metric}" in cv_results:
            n_splits += 1
        if not n_splits:
            raise ValueError(
                f"the search has no scores of metric={self.metric!r}; give the name of one that it measures"
            )
        scores = np.array([cv_results[f"split{k}_test_{self.metric}"] for k in range(n_splits)])
        far = np.sum(
            [_distance([each[name] for each in candidates], value) for name, value in self.prior.items()], axis=0
        )
        nearest = np.flatnonzero(far == far.min())
        means = np.nan_to_num(scores.mean(axis=0), nan=-np.inf)
        return beyond_chance(scores, int(nearest[means[nearest].argmax()]))

    def __repr__(self) -> str:
        return f"BeyondChance({dict(self.prior)!r})"


def _distance(values: list, prior: Any) -> np.ndarray:
    """(n,) how far values are from the prior, as a share of the farthest numbers; 0 or 1 where they are no numbers."""
    try:
        far = np.abs(np.asarray(values, dtype=float) - float(prior))
    except (TypeError, ValueError):
        return np.array([float(value != prior) for value in values])
    return far / (far.max() or 1.0)


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlation along the first axis, ties at their mean rank; 0 where a or b is constant."""
    return pearson(ranks(a), ranks(b))


def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation along the first axis; 0 where a or b is constant."""
    both = varies(a) & varies(b)
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.where(both, (a * b).sum(axis=0) / np.where(both, size, 1.0), 0.0)


def varies(values: np.ndarray) -> np.ndarray:
    """Where the first axis holds more than one number; a spread would be above 0 by rounding alone."""
    return np.ptp(values, axis=0) > 0


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks 0..n-1 along the first axis of (n, m); ties share their mean rank."""
    result = np.empty(values.shape)
    for column, out in zip(values.T, result.T, strict=True):
        _, place, count = np.unique(column, return_inverse=True, return_counts=True)
        out[:] = (np.cumsum(count) - (count + 1) / 2)[place]
    return result


def finite(name: str, values: np.ndarray) -> np.ndarray:
    """values in float64; ValueError if one of them is NaN or infinite."""
    values = np.asarray(values, dtype=float)
    if bad := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{bad} of {values.size} numbers in {name} are NaN or infinite; leave out what diverged")
    return values
