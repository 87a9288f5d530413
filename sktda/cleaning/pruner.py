"""Remove the rows that harm (or look wrong) and refit: a meta-estimator for plain Pipelines."""

from __future__ import annotations

import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.callback import with_callbacks
from sklearn.metrics import check_scoring
from sklearn.model_selection import BaseCrossValidator, check_cv, train_test_split
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils._param_validation import Interval
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, _routing_enabled, process_routing
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import (
    _check_method_params,
    _num_samples,
    check_consistent_length,
    check_is_fitted,
)

from sktda.attribution.base import needs_of, objectives_of
from sktda.cleaning.base import (
    Holdout,
    PruningWarning,
    RefitEstimator,
    fit_attributor,
    import_pandas,
    prepare_attributor,
    refuse_constant,
    scoring_features,
    split_fit_params,
)
from sktda.cleaning.judge import Judge
from sktda.cleaning.objectives import Found, Gap, mean_over_parts, signed
from sktda.cleaning.validation import FOLDS, check_validation_rows, validation_rows
from sktda.data import check_weights, encode_target, plain_target, row_index, sliceable
from sktda.metrics import standard_error
from sktda.selection import prune


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
        Seed of the attributor (unless it has its own) and of `validation` as a float.

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
        "validation": [
            Holdout,
            BaseCrossValidator,
            "cv_object",
            Interval(Integral, 2, None, closed="left"),
            Interval(Real, 0, 1, closed="neither"),
            None,
        ],
        "guard": ["boolean", Interval(Real, 0, None, closed="left"), dict],
        "random_state": ["random_state"],
    }

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
    def fit(self, X, y, *, X_val=None, y_val=None, sensitive_features=None, **params):
        """Score the rows, remove the worst, refit.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), or a dict of arrays by argument name
        y : array-like of shape (n_samples,)
        X_val, y_val : array-like, default=None
            Validation rows, as X and y; in place of the constructor's `validation`.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, k), default=None
            Of the rows of X, for objectives that compare groups: rows that `validation` takes from X (here None = 5
            folds) bring theirs along. Rows of their own have theirs in ``Holdout(X, y, sensitive_features=...)``.
        **params : dict
            Fit parameters of the estimator (and of the attributor: ``scores`` of `PrecomputedScores`), routed where
            metadata routing is on. Arrays with one entry per row are cut with the rows.

        Returns
        -------
        self
        """
        self._validate_params()
        X, y = indexable(sliceable(X, self.estimator), plain_target(y))
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        if params.get("sample_weight") is not None:
            check_weights(params["sample_weight"], _num_samples(X))
        codes = self._codes(y)
        validation = check_validation_rows(self.validation, X, X_val, y_val)
        metadata = {}
        if sensitive_features is not None:
            check_consistent_length(X, sensitive_features)
            metadata["sensitive_features"] = sensitive_features
            validation = FOLDS if validation is None else validation
        self._check_splits(validation)
        self.__dict__.pop("guard_scores_", None)  # of an earlier fit
        self._held_out = np.zeros(_num_samples(X), dtype=bool)
        if isinstance(validation, float):
            everything = np.arange(_num_samples(X))
            val = train_test_split(everything, test_size=validation, stratify=codes, random_state=self.random_state)[1]
            self._held_out[val] = True
            own = _check_method_params(X, metadata, val)
            validation = Holdout(_safe_indexing(X, val), _safe_indexing(y, val), **own)
        plan = self._plan(int((~self._held_out).sum()))
        context = self._init_callback_context(max_subtasks=len(plan) + 2)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        fit_params, score_params = self._split_params(params)
        self._prune(X, y, codes, plan, validation, score_params, metadata, context)
        step = context.subcontext(task_name="guard")
        step.call_on_fit_task_begin(estimator=self, X=X, y=y)
        params |= metadata
        refused = (
            self._guarded() and self.n_pruned_ > 0 and self._guard_refuses(X, y, codes, params, fit_params, validation)
        )
        if refused:
            self.support_[:] = True
            self.n_pruned_ = 0
        step.call_on_fit_task_end(estimator=self, X=X, y=y)
        estimator = clone(self.estimator)
        step = context.subcontext(task_name="refit")
        with step.propagate_callback_context(estimator):
            step.call_on_fit_task_begin(estimator=self, X=X, y=y)
            self.estimator_ = self._refit(estimator, X, y, fit_params, self.support_)
            step.call_on_fit_task_end(estimator=self, X=X, y=y)
        given = np.asarray(y)
        self._given = given.ravel() if given.size == len(given) else list(given)
        self._index = row_index(X, y)
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _guarded(self):
        """Whether there is a guard: 0 and 0.0 are tolerances, only False is none."""
        return bool(self.guard) or not isinstance(self.guard, (bool, np.bool_))

    def _check_splits(self, validation):
        """Explicit splits are positions in all rows: they fit neither later rounds nor the guard's folds."""
        if hasattr(validation, "__iter__") and (len(self._plan(10**6)) > 1 or self._guarded()):
            raise ValueError(
                "validation is a list of splits, which are positions in all rows; with step or guard, rows are scored "
                "again in smaller sets: give a splitter such as KFold(5) instead"
            )

    def _plan(self, n):
        """Rows removed after each scoring."""
        total = round(self.prune_ratio * n)
        if self.step is None or self.step >= self.prune_ratio:
            return [total]
        n_rounds = int(np.ceil(self.prune_ratio / self.step))
        gone = [min(round(self.step * (k + 1) * n), total) for k in range(n_rounds)]
        return [k for k in np.diff([0, *gone]).tolist() if k] or [0]

    def _codes(self, y):
        """Class of each row, or None where there are no classes (regressors, clusterers)."""
        if not is_classifier(self.estimator):
            return None
        return encode_target(y, "classification")[1]

    def _given_attributor(self):
        """What scores the rows; None = the default."""
        return self.attributor

    def _split_params(self, params):
        attributor = prepare_attributor(self._given_attributor())
        if not _routing_enabled():
            return split_fit_params(self.estimator, attributor, params)
        routed = process_routing(self, "fit", **params)
        return routed.estimator.fit, routed.attributor.fit

    def _prune(self, X, y, codes, plan, validation, score_params, metadata, context):
        self.scores_ = np.full(_num_samples(X), np.nan)
        self.objective_values_, self._by_objective, self._first_groups = {}, {}, {}
        self._round = np.zeros(_num_samples(X), dtype=int)
        alive = ~self._held_out
        gap = Gap()
        for number, n_remove in enumerate(plan, start=1):
            step = context.subcontext(task_name=f"score round {number}")
            step.call_on_fit_task_begin(estimator=self, X=X, y=y)
            rows = np.flatnonzero(alive)
            compares = any(groups is not None for groups in self._first_groups.values())
            shown = np.flatnonzero(~self._held_out) if compares else rows
            part = (
                _safe_indexing(X, shown),
                _safe_indexing(y, shown),
                _check_method_params(X, score_params, shown),
            )
            own = _check_method_params(X, metadata, shown)
            scores, found = self._score(*part, validation, own, alive[shown])
            self.scores_[rows] = scores
            self._note(found, rows)
            if len(found) == 1:
                gap.see(*found.values())
            if gap.closed:
                if gap.went_too_far:
                    last = self._round == number - 1
                    alive |= last & ~self._held_out
                    self._round[last] = 0
            elif n_remove:
                refuse_constant(scores, self.attributor_)
                gone = rows[self._worst(scores, n_remove, codes, rows, gap)]
                alive[gone] = False
                self._round[gone] = number
            step.call_on_fit_task_end(estimator=self, X=X, y=y)
            if gap.closed:
                break
        self._last_round = rows, scores, codes, gap
        self.support_ = alive | self._held_out
        self.n_pruned_ = int((~self.support_).sum())

    def _worst(self, scores, n_remove, codes, rows, gap):
        """Those of the rows that go, by position in them."""
        classes = None if codes is None else np.unique(codes[rows], return_inverse=True)[1]
        kept = prune(scores, n_remove, classes, stratify=self.stratify, floor=self.min_samples_per_class)
        return gap.enough(np.flatnonzero(~kept))

    def _support_at(self, ratio):
        """Mask of the rows that would be kept at another share, by the scores of the only round."""
        rows, scores, codes, gap = self._last_round
        support = np.ones(len(self.scores_), dtype=bool)
        n_remove = round(ratio * len(rows))
        if n_remove and not gap.closed:
            support[rows[self._worst(scores, n_remove, codes, rows, gap)]] = False
        return support

    def _note(self, found, rows):
        """Keep values and scores of every objective; gaps with the sign that they have for the groups of round 1."""
        for name, each in found.items():
            value = signed(each.value, each.groups, self._first_groups.setdefault(name, each.groups))
            self.objective_values_[name] = np.append(self.objective_values_.get(name, []), value)
            self._by_objective.setdefault(name, np.full_like(self.scores_, np.nan))[rows] = each.scores

    def _score(self, X, y, params, validation, metadata, trains):
        """(scores (n,), {name: Found}) of the rows that train (mask), mean over the folds that they train in."""
        attributor = prepare_attributor(self._given_attributor(), self.estimator, self.random_state)
        if not needs_of(attributor).validation:
            if validation is not None and not self._guarded():
                warnings.warn(
                    f"{type(attributor).__name__} scores rows without validation rows, and guard=False does not use "
                    "them either: validation has no effect",
                    UserWarning,
                    stacklevel=4,
                )
            validation = None
        n = int(trains.sum())
        folds = validation_rows(validation, X, y, is_classifier(self.estimator), metadata)
        parts = [(rows[trains[rows]], *held) for rows, *held in folds]
        places = [(np.cumsum(trains) - 1)[rows] for rows, *_ in parts]
        fitted = Parallel(n_jobs=self.n_jobs if len(parts) > 1 else 1)(
            delayed(self._fit_part)(clone(attributor), X, y, params, *part) for part in parts
        )
        known = [objectives_of(part) for part in fitted]
        found = {
            name: Found([(rows, each[name]) for rows, each in zip(places, known, strict=True)], n) for name in known[0]
        }
        signs = next(iter(found.values())).signs if len(found) == 1 else [1.0] * len(parts)
        scores = mean_over_parts(
            [(rows, sign * part.scores_) for rows, part, sign in zip(places, fitted, signs, strict=True)], n
        )
        self.attributor_ = fitted[-1]
        if lost := int(np.isnan(scores).sum()):
            raise ValueError(
                f"{lost} rows are in no training part of validation={self.validation!r}, so they "
                "have no score; use folds in which every row trains at least once"
            )
        return scores, found

    def _fit_part(self, attributor, X, y, params, rows, X_val, y_val, metadata_val):
        params = _check_method_params(X, params, rows)
        X, y = _safe_indexing(X, rows), _safe_indexing(y, rows)
        X, X_val = scoring_features(attributor, self.estimator, X, y, X_val)
        if X_val is not None and needs_of(attributor).validation:
            params = {**params, "X_val": X_val, "y_val": y_val}
            if metadata_val:
                params["metadata_val"] = metadata_val
        return fit_attributor(attributor, X, y, params, self.memory)

    def _refit(self, estimator, X, y, params, support):
        if support.all():
            return estimator.fit(X, y, **params)
        rows = np.flatnonzero(support)
        params = _check_method_params(X, params, rows)
        return estimator.fit(_safe_indexing(X, rows), _safe_indexing(y, rows), **params)

    def _guard_refuses(self, X, y, codes, params, fit_params, validation):
        """Whether pruning lowers a score by more than its tolerance; sets guard_scores_."""
        tolerance = 0.0 if isinstance(self.guard, (bool, np.bool_)) else self.guard
        limits = self.guard if isinstance(self.guard, dict) else {self.scoring: tolerance}
        judge = (
            Judge(self.estimator, X, y, codes) if self._held_out.any() or not isinstance(validation, Holdout) else None
        )
        parts = self._guard_parts(X, y, params, fit_params, validation, judge)
        expected = judge is not None and judge.noise_rate >= self.n_pruned_ / (2 * _num_samples(X))
        self.guard_scores_ = {}
        for scoring, limit in limits.items():
            scorer = check_scoring(self.estimator, scoring)
            scores = np.array([[scorer(model, *test) for model in models] for *models, test in parts])
            full, pruned = scores.mean(axis=0)
            name = "score" if scoring is None else str(scoring)
            self.guard_scores_[name] = (float(full), float(pruned))
            by_chance = standard_error(scores[:, 0] - scores[:, 1]) if expected else 0.0
            if not full - pruned <= limit + by_chance:
                warnings.warn(
                    f"all rows are kept: without the {self.n_pruned_} lowest-scored rows {name} would go from "
                    f"{full:.4f} to {pruned:.4f}, a drop of more than {limit + by_chance:g}",
                    PruningWarning,
                    stacklevel=4,
                )
                return True
        return False

    def _guard_parts(self, X, y, params, fit_params, validation, judge):
        """(model of all rows, model of kept rows, (X, y) that judge), once for a Holdout, else per fold."""
        if isinstance(validation, Holdout):
            masks = ~self._held_out, self.support_ & ~self._held_out
            models = [self._refit(clone(self.estimator), X, y, fit_params, mask) for mask in masks]
            if judge is None:
                return [(*models, (validation.X, validation.y))]
            rows = judge.rows(self._held_out)
            return [(*models, (_safe_indexing(X, rows), _safe_indexing(y, rows)))]
        cv = check_cv(5 if validation is None else validation, y, classifier=is_classifier(self.estimator))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class rarer than the folds is not the user's concern here
            folds = list(cv.split(X, y))
        return Parallel(n_jobs=self.n_jobs)(
            delayed(self._guard_fold)(X, y, params, fit_params, train, judge.rows(test)) for train, test in folds
        )

    def _guard_fold(self, X, y, params, fit_params, train, test):
        """Prune within the training part, so that the rows that judge play no part in the choice."""
        X_train, y_train = _safe_indexing(X, train), _safe_indexing(y, train)
        full = clone(self.estimator).fit(X_train, y_train, **_check_method_params(X, fit_params, train))
        floor = self.min_samples_per_class
        if is_classifier(self.estimator):
            floor = min(floor, np.unique(y_train, return_counts=True)[1].min())  # a rare class has fewer rows here
        inner = clone(self).set_params(guard=False, n_jobs=None, min_samples_per_class=int(floor))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said once, by the outer fit
            inner.set_callbacks().fit(X_train, y_train, **_check_method_params(X, params, train))
        return full, inner, (_safe_indexing(X, test), _safe_indexing(y, test))

    def get_support(self, indices=False):
        """Mask (n_samples,) of the kept rows, or their positions."""
        check_is_fitted(self)
        return np.flatnonzero(self.support_) if indices else self.support_

    def to_frame(self):
        """DataFrame of all rows with the user's index, in their order.

        Columns: label, score, rank (1 = first to go; earlier rounds before later ones), kept, round (of removal,
        0 = kept), held_out where `validation` is a float, and the score for each of several objectives.
        """
        check_is_fitted(self)
        pd = import_pandas()
        order = np.lexsort((self.scores_, np.where(self._round == 0, self._round.max() + 1, self._round)))
        rank = np.empty(len(order), dtype=int)
        rank[order] = np.arange(1, len(order) + 1)
        columns = {
            "label": self._given,
            "score": self.scores_,
            "rank": rank,
            "kept": self.support_,
            "round": np.where(self.support_, 0, self._round),
        }
        if self._held_out.any():
            columns["held_out"] = self._held_out
        if len(self._by_objective) > 1:
            columns |= {f"score {name}": scores for name, scores in self._by_objective.items()}
        return pd.DataFrame(columns, index=self._index)

    def get_metadata_routing(self):
        """Where metadata goes: `fit` to the fit of estimator and attributor, `score` to the estimator's score."""
        fit = MethodMapping().add(caller="fit", callee="fit")
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(
                estimator=self.estimator,
                method_mapping=MethodMapping().add(caller="fit", callee="fit").add(caller="score", callee="score"),
            )
            .add(attributor=prepare_attributor(self._given_attributor()), method_mapping=fit)
        )
