"""InfluencePruner with the share of removed rows chosen by cross-validation."""

from __future__ import annotations

from contextlib import nullcontext
from numbers import Integral

import numpy as np
from scipy.stats import rankdata
from sklearn.base import clone, is_classifier
from sklearn.callback import with_callbacks
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing
from sklearn.utils._metadata_requests import UNUSED
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _check_method_params, check_is_fitted

from sktda.cleaning.base import prepare_attributor, task
from sktda.cleaning.judge import Judge
from sktda.cleaning.pruner import InfluencePruner
from sktda.cleaning.refit import RefitEstimator
from sktda.cleaning.removal import Removal, rows_per_round
from sktda.cleaning.routing import fit_and_score, with_weights
from sktda.cleaning.scoring import (
    Scores,
    class_codes,
    fit_rows,
    given,
    rows_and_labels,
    split_apart,
    without_unused_groups,
)
from sktda.cleaning.validation import VALIDATION, groups_for
from sktda.metrics import beyond_chance
from sktda.model.huge import naming_huge_cells
from sktda.workers import in_workers

SHARED = ("stratify", "min_samples_per_class", "validation", "memory", "random_state")


class InfluencePrunerCV(RefitEstimator):
    """`InfluencePruner` that picks the share of rows to remove: the estimated share of wrong labels, or a better one.

    Each fold is scored once, then the shares are walked. Dirty labels on small folds make any share look best by luck.
    So the rows whose label `NoisyLabelDetector` calls wrong do not judge, and the share nearest to what it estimates
    is left only for one that beats it by more than a standard error over the folds.

    Parameters
    ----------
    estimator : estimator
        Fitted on the kept rows; a clone, the given one stays unfitted.
    attributor : attributor, default=None
        Scores the rows, higher = keep; `LabelPosterior()` if None.
    prune_ratios : sequence of float in [0, 1), default=(0, 0.05, 0.1, 0.15, 0.2, 0.3)
        Shares to choose from.
    cv : None, int, splitter or iterable of splits, default=None
        Folds that judge; None = 5, stratified for classifiers. Within a fold, its training part is scored and pruned,
        and the rows of its test part that judge are predicted.
    scoring : str, callable or None, default=None
        Scorer on the test parts; None = the estimator's own.
    stratify : bool, default=False
        Remove the same share of every class; see `InfluencePruner` for when not to.
    min_samples_per_class : int, default=1
        Rows that must stay in each class.
    validation : None, int, float, splitter or Holdout, default=None
        Validation rows for attributors that use them, as of `InfluencePruner`.
    memory : None, str or joblib.Memory, default=None
        Where scores are kept.
    n_jobs : int, default=None
        Folds at a time.
    random_state : int, RandomState instance or None, default=None
        Seed of the attributor (unless it has its own) and of `validation` as a float. None is 0, so that a fit can be
        repeated.

    Attributes
    ----------
    best_prune_ratio_ : float
        The prior one, or the share with the best mean score, where that is better by more than the standard error of
        the difference over the folds (`sktda.metrics.beyond_chance`).
    prior_prune_ratio_ : float
        The share nearest to `noise_rate_`.
    noise_rate_ : float
        Estimated share of wrong labels; 0 where the features do not predict them, or cannot be read as numbers.
    best_score_ : float
        Mean score of the chosen share over the folds, on the rows whose label is not called wrong: not what all rows
        would give, and rather too high.
    best_index_ : int
        Its position in the arrays of `cv_results_`.
    cv_results_ : dict of ndarray
        "prune_ratio" in ascending order, "n_pruned" (mean over the folds), "mean_test_score", "std_test_score",
        "rank_test_score" and "split{k}_test_score".
    pruner_ : InfluencePruner
        Fitted on all rows at the best share.
    support_, scores_, n_pruned_, estimator_, attributor_, objective_values_ :
        Of `pruner_`.

    Raises
    ------
    ValueError
        In `fit`, for shares outside [0, 1), none at all, and as `InfluencePruner`.

    Notes
    -----
    Wrong labels that judge would lower every score alike if they were wrong at random, and bury the difference in
    noise; labels that are wrong in one direction favour the share that keeps the mistake. Without the rows that are
    called wrong, a score estimates that on rows whose label is right and not exceptional. Each class in a test part
    keeps at least one row. A search by `sktda.metrics.NoiseCorrectedScorer` and `BeyondChance` judges by all rows.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sktda import InfluencePrunerCV
    >>> from sktda.attribution import ComplexityGap
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> y[::4] = (y[::4] + 1) % 3  # a quarter of the labels is wrong now
    >>> pruner = InfluencePrunerCV(RidgeClassifier(), ComplexityGap(), prune_ratios=(0, 0.1, 0.25, 0.5)).fit(X, y)
    >>> pruner.best_prune_ratio_
    0.25
    """

    _parameter_constraints: dict = {
        "prune_ratios": ["array-like"],
        "cv": ["cv_object"],
        "stratify": ["boolean"],
        "min_samples_per_class": [Interval(Integral, 0, None, closed="left")],
        "validation": VALIDATION,
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    __metadata_request__fit = {"sample_weight": UNUSED}  # the estimator's and the attributor's to request

    def __init__(
        self,
        estimator,
        attributor=None,
        *,
        prune_ratios=(0, 0.05, 0.1, 0.15, 0.2, 0.3),
        cv=None,
        scoring=None,
        stratify=False,
        min_samples_per_class=1,
        validation=None,
        memory=None,
        n_jobs=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.attributor = attributor
        self.prune_ratios = prune_ratios
        self.cv = cv
        self.scoring = scoring
        self.stratify = stratify
        self.min_samples_per_class = min_samples_per_class
        self.validation = validation
        self.memory = memory
        self.n_jobs = n_jobs
        self.random_state = random_state

    @with_callbacks
    @naming_huge_cells
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sensitive_features=None, **params):
        """Choose the share by cross-validation, then score all rows, remove the worst, refit.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), or a dict of arrays by argument name
        y : array-like of shape (n_samples,)
        sample_weight, X_val, y_val, sensitive_features, **params
            As of `InfluencePruner.fit`; what has one entry per row is cut with the folds, X_val and y_val are not.

        Returns
        -------
        self
        """
        self._validate_params()
        params = with_weights(params, sample_weight)
        ratios = self._ratios()
        X, y = rows_and_labels(self, X, y, params)
        if params.get("groups") is not None and (self.cv is None or isinstance(self.cv, Integral)):
            raise split_apart("cv", self.cv)
        codes = class_codes(self.estimator, y)  # classes are checked before folds are made of them
        if sensitive_features is not None:
            params = {**params, "sensitive_features": sensitive_features}
        held = {} if X_val is None and y_val is None else {"X_val": X_val, "y_val": y_val}
        context = self._init_callback_context(max_subtasks=2)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        with task(self, context, "choose the share", X, y):
            folds = list(
                check_cv(self.cv, y, classifier=is_classifier(self.estimator)).split(
                    X, y, groups_for(self.cv, params.get("groups"))
                )
            )
            judge = Judge(self.estimator, X, y, codes)
            tasks = ((X, y, held, params, ratios, train, judge.rows(test)) for train, test in folds)
            found = np.array(list(in_workers(self._walk, tasks, self.n_jobs)))
            self.noise_rate_ = judge.noise_rate
            self._conclude(ratios, found)
        pruner = InfluencePruner(
            self.estimator,
            self.attributor,
            prune_ratio=self.best_prune_ratio_,
            **{name: getattr(self, name) for name in SHARED},
        )
        with task(self, context, "prune and refit", X, y, pruner):
            self.pruner_ = pruner.fit(X, y, **held, **without_unused_groups(pruner, params))
        self.support_, self.n_pruned_ = pruner.support_, pruner.n_pruned_
        self.scores_, self.objective_values_ = pruner.scores_, pruner.objective_values_
        self.attributor_, self.estimator_ = pruner.attributor_, pruner.estimator_
        self._given = pruner._given
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _ratios(self):
        """Ascending, each once."""
        ratios = np.unique(np.asarray(self.prune_ratios, dtype=float))
        if not len(ratios) or not ((ratios >= 0) & (ratios < 1)).all():
            raise ValueError(f"prune_ratios={self.prune_ratios!r} must be shares from 0 to below 1, at least one")
        return ratios

    def _walk(self, X, y, held, params, ratios, train, test):
        """(n_ratios, 2): scores on the rows `test`, and rows removed."""
        X_train, y_train = _safe_indexing(X, train), _safe_indexing(y, train)
        X_test, y_test = _safe_indexing(X, test), _safe_indexing(y, test)
        params = _check_method_params(X, params, train)
        own = {"X_val": None, "y_val": None, **held, "sensitive_features": params.pop("sensitive_features", None)}
        data = given(self, self.attributor, X_train, y_train, params=params, **own)
        scores = Scores(
            self.attributor, data, self.estimator, self.random_state, memory=self.memory, n_jobs=self.n_jobs
        )
        floor = self.min_samples_per_class
        if data.codes is not None:  # a rare class has fewer rows here
            floor = min(floor, int(np.unique(data.codes[~data.held_out], return_counts=True)[1].min()))
        removal = Removal(scores, self.stratify, floor)
        removal.run(rows_per_round(ratios[-1], None, int((~data.held_out).sum())), lambda name: nullcontext())
        scorer = check_scoring(self.estimator, self.scoring)
        found = []
        for ratio in ratios:
            support = removal.support_at(ratio)
            model = fit_rows(clone(self.estimator), data, support)
            found.append((scorer(model, X_test, y_test), (~support).sum()))
        return found

    def _conclude(self, ratios, found):
        """Set what is known of the shares from (n_folds, n_ratios, 2)."""
        scores = found[:, :, 0]
        if len(undefined := np.argwhere(~np.isfinite(scores))):
            fold, ratio = undefined[0]
            raise ValueError(
                f"scoring={self.scoring!r} gives {scores[fold, ratio]} on fold {fold} of {len(scores)} without "
                f"{ratios[ratio]:.1%} of the rows, so that shares cannot be compared; give a scorer that is defined on "
                "every fold, or fewer folds"
            )
        mean = scores.mean(axis=0)
        prior = int(np.abs(ratios - self.noise_rate_).argmin())
        self.prior_prune_ratio_ = float(ratios[prior])
        self.best_index_ = beyond_chance(scores, prior)
        self.best_prune_ratio_, self.best_score_ = float(ratios[self.best_index_]), float(mean[self.best_index_])
        self.cv_results_ = {
            "prune_ratio": ratios,
            "n_pruned": found[:, :, 1].mean(axis=0),
            "mean_test_score": mean,
            "std_test_score": scores.std(axis=0),
            "rank_test_score": rankdata(-mean, method="min").astype(int),
            **{f"split{k}_test_score": each for k, each in enumerate(scores)},
        }

    def get_support(self, indices=False):
        """Mask (n_samples,) of the kept rows, or their positions."""
        check_is_fitted(self)
        return self.pruner_.get_support(indices)

    def to_frame(self):
        """DataFrame of all rows with the user's index, worst first: that of the fitted `pruner_`."""
        check_is_fitted(self)
        return self.pruner_.to_frame()

    @property
    def _chooser(self):
        return prepare_attributor(self.attributor, self.estimator)

    def get_metadata_routing(self):
        """Where metadata goes: `fit` to the fit of estimator and attributor, `score` to the estimator's score."""
        return fit_and_score(self, self.attributor)
