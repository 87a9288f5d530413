"""Remove the rows that harm (or look wrong) and refit: a meta-estimator for plain Pipelines."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real

import numpy as np
from sklearn.base import clone
from sklearn.callback import with_callbacks
from sklearn.utils._metadata_requests import UNUSED
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from sktda.cleaning.base import prepare_attributor, task
from sktda.cleaning.frame import frame_of
from sktda.cleaning.guard import Guard, is_guarded
from sktda.cleaning.refit import RefitEstimator
from sktda.cleaning.removal import Removal, rows_per_round
from sktda.cleaning.routing import fit_and_score, with_weights
from sktda.cleaning.scoring import Scores, fit_rows, given, labels_as_given, split_apart
from sktda.cleaning.shown import below, pruner_shown, pruner_summary
from sktda.cleaning.validation import VALIDATION
from sktda.data import row_index
from sktda.model.huge import naming_huge_cells


class InfluencePruner(RefitEstimator):
    """Score the training rows, drop the worst share, refit on the rest. Nothing is dropped at predict time.

    Parameters
    ----------
    estimator : estimator
        Fitted on the kept rows; a clone, the given one stays unfitted. A Pipeline's transformers also prepare the
        features of attributors that need numbers.
    attributor : attributor, default=None
        Scores the rows, higher = keep; `LabelPosterior()` if None.
    prune_ratio : float in [0, 1), default=0.1
        Share of the rows to remove.
    step : float in (0, 1) or None, default=None
        Share of the rows removed between re-scorings; None = all at once.
    stratify : bool, default=False
        Remove the same share of every class, for scores that cannot be compared between classes. Wrong labels are not
        spread evenly: of those wrong at random most carry a rare class, and labels wrong by class are all of some
        classes. The same share of every class then takes right labels of the others. Regression has no classes.
    min_samples_per_class : int, default=1
        Rows that must stay in each class.
    validation : None, int, float, splitter or Holdout, default=None
        Validation rows for attributors that use them and for the guard. An int or splitter cross-fits: each fold in
        turn validates the others. A float holds out that share of the rows: they are kept, their score is NaN.
    guard : bool, float or dict, default=False
        Compare the model with and without pruning on the validation rows (by 5-fold cross-validation of the whole
        procedure if there are none) and keep all rows, with a `PruningWarning`, if the score drops by more than the
        tolerance (True = 0), or {scorer name: largest drop}. Rows of X whose label `NoisyLabelDetector` calls wrong do
        not judge. Where it calls at least half as many wrong as are removed, pruning is expected to help, and a drop
        counts only beyond one standard error over the folds.
    scoring : str, callable or None, default=None
        Scorer of the guard; None = the estimator's own.
    memory : None, str or joblib.Memory, default=None
        Where scores are kept: a search over `prune_ratio` then scores each fold once.
    n_jobs : int, default=None
        Parallel cross-fits and guard folds.
    random_state : int, RandomState instance or None, default=None
        Seed of the attributor (unless it has its own) and of `validation` as a float. None is 0, so that a fit can be
        repeated.

    Attributes
    ----------
    support_ : ndarray of shape (n_samples,)
        True = kept.
    scores_ : ndarray of shape (n_samples,)
        Of each row in the last round that it took part in, higher = keep.
    n_pruned_ : int
        Number of removed rows.
    objective_values_ : dict
        {objective: ndarray of its value before each round}, of the attributor's models on the validation rows, for
        attributors that ask about one. A gap between groups (`DemographicParity`, `EqualOpportunity`) ends the pruning
        where it is closed: no row goes that is predicted to widen it, nor more than are predicted to close it, and
        rounds end when the groups change places, without the last one if the gap was smaller before it. Of folds,
        removed rows still validate: without them a gap would look wider than it is.
    guard_scores_ : dict
        {scorer: (all rows, pruned)}, where a guard ran: means over the folds, on the rows that judge.
    estimator_, attributor_ :
        The fitted clones. `attributor_` is that of the last round (of the last fold under cross-fitting).
    n_features_in_, feature_names_in_, classes_ :
        Of `estimator_`.

    Raises
    ------
    ValueError
        In `fit`, for scores that are all equal, a class below its floor, X_val without y_val, and validation rows
        given twice.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn.model_selection import train_test_split
    >>> from sktda import InfluencePruner
    >>> X, X_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
    >>> y[::4] = (y[::4] + 3) % 10
    >>> pruner = InfluencePruner(RidgeClassifier(), prune_ratio=0.25).fit(X, y)
    >>> pruner.n_pruned_, pruner.score(X_test, y_test) > RidgeClassifier().fit(X, y).score(X_test, y_test)
    (337, True)
    """

    _parameter_constraints: dict = {
        "prune_ratio": [Interval(Real, 0, 1, closed="left")],
        "step": [Interval(Real, 0, 1, closed="neither"), None],
        "stratify": ["boolean"],
        "min_samples_per_class": [Interval(Integral, 0, None, closed="left")],
        "validation": VALIDATION,
        "guard": ["boolean", Interval(Real, 0, None, closed="left"), dict],
        "random_state": ["random_state"],
    }

    __metadata_request__fit = {"sample_weight": UNUSED}  # the estimator's and the attributor's to request

    def __init__(
        self,
        estimator,
        attributor=None,
        *,
        prune_ratio=0.1,
        step=None,
        stratify=False,
        min_samples_per_class=1,
        validation=None,
        guard=False,
        scoring=None,
        memory=None,
        n_jobs=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.attributor = attributor
        self.prune_ratio = prune_ratio
        self.step = step
        self.stratify = stratify
        self.min_samples_per_class = min_samples_per_class
        self.validation = validation
        self.guard = guard
        self.scoring = scoring
        self.memory = memory
        self.n_jobs = n_jobs
        self.random_state = random_state

    @with_callbacks
    @naming_huge_cells
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sensitive_features=None, **params):
        """Score the rows, remove the worst, refit.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), or a dict of arrays by argument name
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            For the estimator, and for the attributor if it takes weights.
        X_val, y_val : array-like, default=None
            Validation rows, as X and y; in place of the constructor's `validation`. An estimator whose own `fit` takes
            them, such as gradient boosting that stops early, gets them, too: a Holdout is for the cleaner alone.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, k), default=None
            Of the rows of X, for objectives that compare groups: rows that `validation` takes from X (here None = 5
            folds) bring theirs along. Rows of their own have theirs in ``Holdout(X, y, sensitive_features=...)``.
        **params : dict
            Fit parameters of the estimator (and of the attributor: ``scores`` of `PrecomputedScores`), routed where
            metadata routing is on. Arrays with one entry per row are cut with the rows. ``groups`` are also those of a
            splitter such as GroupKFold as `validation`.

        Returns
        -------
        self
        """
        self._validate_params()
        params = with_weights(params, sample_weight)
        data = given(self, self.attributor, X, y, X_val, y_val, sensitive_features, params)
        X, y = data.X, data.y
        plan = rows_per_round(self.prune_ratio, self.step, int((~data.held_out).sum()))
        guarded = is_guarded(self.guard)
        if guarded and data.groups is not None and data.validation is None:
            raise split_apart("validation", None)
        self.__dict__.pop("guard_scores_", None)  # of an earlier fit
        context = self._init_callback_context(max_subtasks=len(plan) + 2)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        scores = Scores(
            self.attributor,
            data,
            self.estimator,
            self.random_state,
            memory=self.memory,
            n_jobs=self.n_jobs,
            guarded=guarded,
        )
        removal = Removal(scores, self.stratify, self.min_samples_per_class)
        removal.run(plan, partial(task, self, context, X=X, y=y))
        self.scores_, self.attributor_ = scores.values, scores.attributor
        self.objective_values_, self._by_objective = scores.objective_values, scores.by_objective
        self.support_, self._round = removal.support, removal.rounds
        with task(self, context, "guard", X, y):
            if guarded and not self.support_.all():
                guard = Guard(self, data, self.support_)
                if guard.refuses():
                    self.support_ = np.ones_like(self.support_)
                self.guard_scores_ = guard.scores
        self.n_pruned_ = int((~self.support_).sum())
        estimator = clone(self.estimator)
        with task(self, context, "refit", X, y, estimator):
            self.estimator_ = fit_rows(estimator, data, self.support_)
        self._held_out, self._given, self._index = data.held_out, labels_as_given(y), row_index(X, y)
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def get_support(self, indices=False):
        """Mask (n_samples,) of the kept rows, or their positions."""
        check_is_fitted(self)
        return np.flatnonzero(self.support_) if indices else self.support_

    def to_frame(self):
        """DataFrame of all rows with the user's index, worst first.

        Columns: given_label, score, rank (1 = first to go; earlier rounds before later ones), kept, round (of removal,
        0 = kept), held_out where `validation` is a float, and the score for each of several objectives.
        """
        check_is_fitted(self)
        order = np.lexsort((self.scores_, np.where(self._round == 0, self._round.max() + 1, self._round)))
        rank = np.empty(len(order), dtype=int)
        rank[order] = np.arange(1, len(order) + 1)
        columns = {
            "given_label": self._given,
            "score": self.scores_,
            "rank": rank,
            "kept": self.support_,
            "round": np.where(self.support_, 0, self._round),
        }
        if self._held_out.any():
            columns["held_out"] = self._held_out
        if len(self._by_objective) > 1:
            columns |= {f"score {name}": scores for name, scores in self._by_objective.items()}
        return frame_of(columns, self._index, order)

    def summary(self):
        """What was done, as a flat dictionary of numbers, for the log of an experiment.

        Returns
        -------
        summary : dict of str to int or float
            n_rows, n_pruned, pruned_share; where a guard ran, guard_all_SCORER and guard_pruned_SCORER.
        """
        check_is_fitted(self)
        return pruner_summary(self)

    def _html_repr(self):
        return below(super()._html_repr(), self, pruner_shown)

    @property
    def _chooser(self):
        return prepare_attributor(self.attributor, self.estimator)

    def get_metadata_routing(self):
        """Where metadata goes: `fit` to the fit of estimator and attributor, `score` to the estimator's score."""
        return fit_and_score(self, self.attributor)
