"""What a model gains or loses as more of the rows with the lowest scores are removed."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.model_selection import check_cv
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import _num_samples, check_is_fitted

from sktda.attribution import PrecomputedScores
from sktda.cleaning.pruner_cv import InfluencePrunerCV
from sktda.data import sliceable
from sktda.displays.drawing import FAINT, KEPT, MARKED, legend_above, new_axes
from sktda.seeds import random_of


class PruningCurveDisplay:
    """Score of a model on test folds against the share of training rows removed, beside random removal.

    Parameters
    ----------
    prune_ratios : array-like of shape (n_ratios,)
        Shares of removed rows, ascending.
    test_scores : array-like of shape (n_ratios, n_folds)
        Scores on the test folds after the rows with the lowest scores went; higher = better.
    random_scores : array-like of shape (n_ratios, n_random * n_folds) or None, default=None
        The same after as many random rows went.
    score_name : str or None, default=None
        What the scores are; None = "score".

    Attributes
    ----------
    best_prune_ratio_ : float
        The share with the best mean score, the smallest of equally good ones; marked by a star.
    lines_ : list of matplotlib lines
        The means: attributor, then random.
    figure_, ax_ : matplotlib objects
        After `plot`.

    Raises
    ------
    ValueError
        In `plot`, for scores of another shape; in `from_estimator`, as `InfluencePrunerCV`.

    Notes
    -----
    Test folds are judged by the labels as given, and the best of several means is rather too high, see
    `InfluencePrunerCV`. Bands of one standard deviation show how folds differ, which is more than the means are
    uncertain: both curves are of the same folds.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sktda.attribution import ComplexityGap
    >>> from sktda.displays import PruningCurveDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> y[::5] = (y[::5] + 1) % 3
    >>> settings = {"cv": 2, "n_random": 1, "random_state": 0}
    >>> display = PruningCurveDisplay.from_estimator(RidgeClassifier(), X, y, ComplexityGap(), **settings)
    >>> display.test_scores.shape, display.random_scores.shape
    ((6, 2), (6, 2))
    """

    def __init__(
        self, prune_ratios: Any, test_scores: Any, random_scores: Any = None, *, score_name: str | None = None
    ) -> None:
        self.prune_ratios = prune_ratios
        self.test_scores = test_scores
        self.random_scores = random_scores
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        attributor: Any = None,
        *,
        prune_ratios: Any = (0, 0.05, 0.1, 0.2, 0.3, 0.5),
        cv: Any = 5,
        scoring: Any = None,
        validation: Any = None,
        n_random: int = 3,
        n_jobs: int | None = None,
        random_state: Any = None,
        **kwargs: Any,
    ) -> PruningCurveDisplay:
        """Score the rows once per fold, walk the shares, do the same with random scores, and draw.

        Parameters
        ----------
        estimator : estimator
            Fitted on the rows that stay; the given one stays unfitted.
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,)
        attributor : attributor, default=None
            `LabelPosterior()` if None.
        prune_ratios : sequence of float in [0, 1)
            Shares to remove; within each class, for classifiers.
        cv : int, splitter or iterable of splits, default=5
            Test rows with labels that are known to be right are a split: ``cv=[(train, test)]``.
        scoring : str, callable or None, default=None
            None = the estimator's own.
        validation : None, int, float, splitter or Holdout, default=None
            Validation rows of the attributor, as of `InfluencePruner`.
        n_random : int, default=3
            Random orders of the rows; 0 = no baseline. Each costs as many fits as the attributor's.
        n_jobs : int, default=None
            Folds at a time.
        random_state : int, RandomState instance or None, default=None
            Seed of the attributor and of the random orders. None is 0, so that a fit can be repeated.
        **kwargs
            As for `plot`.

        Returns
        -------
        display : PruningCurveDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        random = random_of(random_state)
        splits = list(check_cv(cv, y, classifier=is_classifier(estimator)).split(sliceable(X), y))
        walker = InfluencePrunerCV(estimator, prune_ratios=prune_ratios, cv=splits, scoring=scoring, n_jobs=n_jobs)
        found = clone(walker).set_params(attributor=attributor, validation=validation, random_state=random_state)
        found.fit(X, y)
        others = []
        for seed in random.randint(2**31 - 1, size=n_random).tolist():
            chance = PrecomputedScores(partial(random_order, seed=seed))
            others.append(_by_fold(clone(walker).set_params(attributor=chance).fit(X, y).cv_results_))
        random_scores = np.hstack(others) if others else None
        results = found.cv_results_
        name = _score_name(scoring, estimator)
        return cls(results["prune_ratio"], _by_fold(results), random_scores, score_name=name).plot(**kwargs)

    @classmethod
    def from_cv_results(cls, pruner: InfluencePrunerCV, **kwargs: Any) -> PruningCurveDisplay:
        """What a fitted `InfluencePrunerCV` found, drawn; without a baseline.

        Parameters
        ----------
        pruner : InfluencePrunerCV
            Fitted.
        **kwargs
            As for `plot`.

        Returns
        -------
        display : PruningCurveDisplay
        """
        check_matplotlib_support(f"{cls.__name__}.from_cv_results")
        if not isinstance(pruner, InfluencePrunerCV):
            raise TypeError(f"from_cv_results takes a fitted InfluencePrunerCV, not a {type(pruner).__name__}")
        check_is_fitted(pruner, "cv_results_")
        results = pruner.cv_results_
        name = _score_name(pruner.scoring, pruner.estimator)
        return cls(results["prune_ratio"], _by_fold(results), score_name=name).plot(**kwargs)

    def plot(self, ax: Any = None, *, std_display_style: str | None = "fill_between") -> PruningCurveDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            None = a new figure.
        std_display_style : {"fill_between", "errorbar"} or None, default="fill_between"
            How one standard deviation over the folds (and random orders) to each side is shown; None = not at all.

        Returns
        -------
        self
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        if std_display_style not in ("fill_between", "errorbar", None):
            raise ValueError(f"std_display_style={std_display_style!r} must be 'fill_between', 'errorbar' or None")
        ratios, scores = np.asarray(self.prune_ratios, dtype=float), np.asarray(self.test_scores, dtype=float)
        curves = [("lowest scores", scores, KEPT, "o", "-")]
        if self.random_scores is not None:
            curves.append(("random rows", np.asarray(self.random_scores, dtype=float), FAINT, "s", "--"))
        for _, each, *_ in curves:
            if each.ndim != 2 or len(each) != len(ratios):
                raise ValueError(f"scores {each.shape} must be (n_ratios, n_folds), for {len(ratios)} prune_ratios")
        ax = new_axes(ax)
        self.lines_ = []
        for name, each, color, marker, style in curves:
            mean, std = each.mean(axis=1), each.std(axis=1)
            self.lines_ += ax.plot(ratios, mean, style, color=color, marker=marker, markersize=5, label=name)
            if std_display_style == "fill_between":
                ax.fill_between(ratios, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
            elif std_display_style == "errorbar":
                ax.errorbar(ratios, mean, std, color=color, fmt="none", capsize=3)
        mean = scores.mean(axis=1)
        best = int(np.nanargmax(mean)) if np.isfinite(mean).any() else 0
        self.best_prune_ratio_ = float(ratios[best])
        label = f"best: {100 * ratios[best]:.3g} %, {mean[best]:.3f}"
        ax.plot(ratios[best], mean[best], "*", color=MARKED, markersize=14, zorder=3, label=label)
        self._label(ax, std_display_style is not None)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _label(self, ax: Any, with_band: bool) -> None:
        ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")
        interval = ", mean ± std over folds" if with_band else ", mean over folds"
        ax.set(xlabel="training rows removed", ylabel=(self.score_name or "score") + interval)
        ax.spines[["top", "right"]].set_visible(False)
        legend_above(ax)


def random_order(X: Any, y: Any, seed: int) -> np.ndarray:
    """Scores by which rows go in a random order."""
    return np.random.default_rng(seed).permutation(_num_samples(X)).astype(float)


def _by_fold(results: dict) -> np.ndarray:
    """(n_ratios, n_folds) scores of `cv_results_`."""
    n_folds = sum(name.startswith("split") for name in results)
    return np.column_stack([results[f"split{k}_test_score"] for k in range(n_folds)])


def _score_name(scoring: Any, estimator: Any) -> str:
    if isinstance(scoring, str):
        return scoring.replace("neg_", "negative ").replace("_", " ")
    if scoring is not None:
        return getattr(scoring, "__name__", "score")
    return "accuracy" if is_classifier(estimator) else "R²" if is_regressor(estimator) else "score"
