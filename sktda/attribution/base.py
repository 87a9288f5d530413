"""What every attribution method shares: the contract, the one sign and the validation of its input.

**Higher = keep.** `scores_[i]` is the predicted rise of the objective (a loss, lower = better) when training row i
is removed, in loss units, 1/n included: positive = the row helps, most negative = the row harms. Scores that are
not a predicted change are negated where needed, so that low = suspicious holds for all of them; the first line of
each class says its unit. A paper's other sign is converted in that method's file and nowhere else.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import get_tags
from sklearn.utils.validation import check_consistent_length

from sktda.containers import is_pipeline
from sktda.data import check_weights, encode_target, n_columns, read_features, transformed
from sktda.room import check_held
from sktda.seeds import seed_of


@dataclass(frozen=True)
class Needs:
    """What an attributor needs of whoever fits it: the class attribute (or property) `needs` of every attributor.

    Parameters
    ----------
    features : bool, default=False
        X must be numeric features: a cleaner around a Pipeline passes the rows through its transformers first.
    validation : bool, default=False
        Validation rows change the scores, and `fit` takes them as X_val and y_val. A cleaner warns when it was given
        some that nothing uses.
    gradients : bool, default=False
        The estimator must be one that the library can differentiate; a cleaner whose own is none gives the default net.
    trajectory : bool, default=False
        The estimator's training must have been recorded, so it must be one of steps.
    probabilities : bool, default=False
        The estimator must have `predict_proba`; a cleaner whose own has none gives the default classifier.
    net : dict, default={}
        Arguments of the default net for this method, such as an optimiser that it is derived for.
    """

    features: bool = False
    validation: bool = False
    gradients: bool = False
    trajectory: bool = False
    probabilities: bool = False
    net: Mapping[str, Any] = field(default_factory=dict)


class Attributor(BaseEstimator, metaclass=ABCMeta):
    """Scores training rows: `fit(X, y)` sets `scores_` (n,), higher = keep."""

    needs: Needs = Needs()
    """What it needs beyond the rows as they are."""
    looks_into_features = True
    """Whether it reads more of X than its length and index."""
    requires_target = True
    """Whether `fit` needs y."""

    @abstractmethod
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        metadata_val: Any = None,
    ) -> Attributor:
        """Score the rows of (X, y)."""

    def prepare_members(self, prepare: Callable[[Any], Any], transformers: Any = None) -> None:
        """Put prepare(attributor) in the place of each attributor inside, before `fit`; here there is none.

        A cleaner fills in what they leave open. transformers: an unfitted Pipeline that prepares the features of those
        that need numbers, where the cleaner's estimator has one.
        """

    def _forget(self) -> None:
        """Drop what an earlier fit learned."""
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            delattr(self, name)

    def _validate(
        self, X: Any, y: Any, sample_weight: Any, task: str = "auto"
    ) -> tuple[Any, str, np.ndarray, np.ndarray | None]:
        """(X as array or CSR, task, codes or values, classes or None); sets n_features_in_ and friends."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        X = read_features(self, X)
        target = encode_target(y, task)
        check_consistent_length(X, target[1])
        if sample_weight is not None:
            check_weights(sample_weight, X.shape[0])
        return X, *target

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.no_validation = not self.looks_into_features
        tags.target_tags.required = self.requires_target
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = not self.looks_into_features or self._passes_missing_values_on()
        return tags

    def _passes_missing_values_on(self) -> bool:
        """Whether nobody but the estimators and attributors inside looks at X, and all of them take missing values."""
        given = self.get_params(deep=False)
        inside = [given.get("estimator"), given.get("attributor"), *(given.get("attributors") or [])]
        inside = [each for each in inside if each is not None]
        passed_on = bool(inside) and all(map(takes_missing_values, inside))
        return passed_on and not (self.needs.features or self.needs.gradients)


def check_rows_fit(owner: Any, X: Any, bytes_per_cell: float, n_rows: int | None = None) -> None:
    """Raise ValueError, before the work, where a method copies dense rows and the memory has no room for it.

    bytes_per_cell: at the least; n_rows: held at a time, all if None.
    """
    if isinstance(X, np.ndarray) and X.dtype.kind in "biuf":
        check_fits(owner, bytes_per_cell * (X.shape[0] if n_rows is None else n_rows) * n_columns(X))


def check_fits(owner: Any, n_bytes: float) -> None:
    """Raise ValueError, before the work, where the memory has no room for what a method holds: n_bytes at the least."""
    check_held(
        type(owner).__name__,
        n_bytes,
        "LabelPosterior (the default) of classes, ComplexityGap and methods of gradients, such as Influence with "
        "curvature='ekfac', go through the rows block by block",
    )


def takes_missing_values(estimator: Any) -> bool:
    """What an estimator, attributor or sampler says of itself; what has no tags says no."""
    return isinstance(estimator, BaseEstimator) and get_tags(estimator).input_tags.allow_nan


def needs_of(attributor: Any) -> Needs:
    """What an attributor needs. TypeError, saying what to add, for what is none or does not declare it."""
    kind = type(attributor).__name__
    if isinstance(attributor, type) or not (hasattr(attributor, "fit") and hasattr(attributor, "get_params")):
        raise TypeError(
            f"attributor={attributor!r} is not an attributor; give an instance such as LabelPosterior() from "
            "sktda.attribution, or PrecomputedScores(scores) for scores of your own"
        )
    if is_pipeline(attributor):
        raise TypeError(
            "a Pipeline is no attributor; give it to one that trains an estimator, such as "
            "SelfConfidence(make_pipeline(OneHotEncoder(), LogisticRegression())), or give "
            "PrecomputedScores(function), function(X, y) being what transforms and scores"
        )
    needs = getattr(attributor, "needs", None)
    if isinstance(needs, Needs):
        return needs
    if needs is not None:
        raise TypeError(
            f"needs of {kind} is {needs!r}, and must be declared as Needs(features=..., validation=...) from "
            "sktda.attribution.base"
        )
    if hasattr(attributor, "predict"):
        raise TypeError(
            f"{kind} is a model, and no attributor, which scores rows; give one that trains a model, such as "
            "SelfConfidence(classifier with predict_proba) or Influence(model) from sktda.attribution"
        )
    raise TypeError(
        f"{kind} does not say what it needs; add `needs = Needs()` to the class (from sktda.attribution.base), with "
        "features=True if X must be numbers, and validation=True if fit uses X_val and y_val"
    )


def check_validation(X_val: Any, y_val: Any, metadata_val: Any = None) -> None:
    """ValueError where validation rows came without their targets, or these or metadata without rows."""
    if (X_val is None) != (y_val is None):
        missing, given = ("X_val", "y_val") if X_val is None else ("y_val", "X_val")
        raise ValueError(f"{given} came without {missing}; validation rows need both")
    if metadata_val and X_val is None:
        raise ValueError("metadata_val came without X_val and y_val, the validation rows that it belongs to")


def checked_scores(attributor: Any, n: int) -> np.ndarray:
    """The scores of a fitted attributor as floats; ValueError unless there is one finite number for each of n rows."""
    kind, scores = type(attributor).__name__, getattr(attributor, "scores_", None)
    if scores is None:
        raise ValueError(
            f"{kind} has no scores_ after fit (objective=None prepares attribute() only); give it an objective"
        )
    if np.shape(scores) != (n,):
        what = f"{len(scores)} scores" if np.ndim(scores) == 1 else f"scores of shape {np.shape(scores)}"
        raise ValueError(f"{kind} returned {what} for {n} rows; one number per row is due")
    scores = np.asarray(scores)
    if scores.dtype not in (np.float32, np.float64):  # ranks and counts are whole numbers
        scores = scores.astype(np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"{kind} returned {int((~np.isfinite(scores)).sum())} scores that are NaN or infinite")
    return scores


def loo_decision_of(attributor: Any) -> np.ndarray | None:
    """Leave-one-out or out-of-sample predictions that a fitted attributor has made: (n, n_classes) or (n,)."""
    return getattr(attributor, "loo_decision_", None)


def objectives_of(attributor: Any) -> dict[str, Any]:
    """What a fitted attributor found for each objective of validation rows, by name; empty where it asked none."""
    return getattr(attributor, "objectives_", {})


def fit_transformed(transformers: Any, X: Any, y: Any, X_val: Any = None) -> tuple[Any, Any]:
    """(X, X_val or None) through transformers that are fitted on (X, y)."""
    return transformers.fit_transform(X, y), None if X_val is None else transformed(transformers, X_val)


def told_task(attributor: Any, task: str) -> Any:
    """The attributor, told what y is where it leaves that open."""
    if task != "auto" and attributor.get_params(deep=False).get("task") == "auto":
        attributor.set_params(task=task)
    return attributor


def seeded(attributor: Any, random_state: Any) -> Any:
    """The attributor, with this seed where it has none of its own: None is 0, and of a RandomState one is drawn."""
    if attributor.get_params(deep=False).get("random_state", 0) is None:
        drawn = isinstance(random_state, np.random.RandomState)
        attributor.set_params(random_state=seed_of(random_state) if drawn else random_state or 0)
    return attributor
