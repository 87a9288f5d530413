"""How a cleaner scores rows: what `fit` was given, checked once, and the attributor fitted with validation rows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from inspect import Parameter, signature
from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.metadata_routing import _routing_enabled, process_routing
from sklearn.utils.validation import _check_method_params, _num_samples, check_consistent_length, has_fit_parameter

from sktda.attribution.base import checked_scores, needs_of, objectives_of
from sktda.cleaning.base import Holdout, check_estimator, prepare_attributor, scoring_features
from sktda.cleaning.objectives import Found, mean_over_parts, signed
from sktda.cleaning.remembered import fit_attributor
from sktda.cleaning.routing import named_weights, refuse_unweighted, split_fit_params
from sktda.cleaning.validation import FOLDS, check_validation_rows, set_aside, validation_rows
from sktda.data import check_weights, encode_target, plain_target, sliceable
from sktda.workers import in_workers


@dataclass(frozen=True)
class Given:
    """What the `fit` of a cleaner was given, checked.

    codes (n,): class of each row, None where there are no classes. held_out (n,) bool: rows that a share as
    `validation` set aside; `validation` is then a Holdout of them. metadata: per-row arrays for objectives. groups
    (n,): of rows that splitters keep together, or None. params: all fit parameters; fit_params and score_params:
    those of the estimator and of the attributor.
    """

    X: Any
    y: Any
    codes: np.ndarray | None
    validation: Any
    held_out: np.ndarray
    metadata: dict
    groups: Any
    params: dict
    fit_params: dict
    score_params: dict

    @classmethod
    def of(cls, X: Any, y: Any) -> Given:
        """Rows and labels alone, of a cleaner whose fit takes no more."""
        return cls(X, y, None, None, np.zeros(_num_samples(X), dtype=bool), {}, None, {}, {}, {})


def given(
    cleaner: Any, attributor: Any, X: Any, y: Any, X_val: Any, y_val: Any, sensitive_features: Any, params: dict
) -> Given:
    """What the cleaner was given, for an attributor (None = the default). Raises ValueError for what does not fit."""
    X, y = rows_and_labels(cleaner, X, y, params)
    codes = class_codes(cleaner.estimator, y)
    validation = check_validation_rows(cleaner.validation, X, X_val, y_val)
    metadata = {}
    if sensitive_features is not None:
        check_consistent_length(X, sensitive_features)
        metadata["sensitive_features"] = sensitive_features
        validation = FOLDS if validation is None else validation
    if params.get("groups") is not None and isinstance(validation, Real):
        raise split_apart("validation", validation)
    held_out = np.zeros(_num_samples(X), dtype=bool)
    if isinstance(validation, float):
        val = set_aside(validation, _num_samples(X), codes, cleaner.random_state)[1]
        held_out[val] = True
        own = _check_method_params(X, metadata, val)
        validation = Holdout(_safe_indexing(X, val), _safe_indexing(y, val), **own)
    routed, groups = split_params(cleaner, attributor, params), params.get("groups")
    if groups is not None:
        check_consistent_length(X, groups)
    if X_val is not None and reads_validation_rows(cleaner.estimator):
        routed[0].update(X_val=X_val, y_val=y_val)
    return Given(X, y, codes, validation, held_out, metadata, groups, params, *routed)


def rows_and_labels(cleaner: Any, X: Any, y: Any, params: dict) -> tuple[Any, Any]:
    """(X, y) of which rows can be taken; ValueError without y, TypeError for an estimator that cannot be fitted."""
    check_estimator(cleaner.estimator)
    X, y = indexable(sliceable(X, cleaner.estimator), plain_target(y))
    if y is None:
        raise ValueError(f"{type(cleaner).__name__} requires y to be passed, but the target y is None")
    if params.get("sample_weight") is not None:
        check_weights(params["sample_weight"], _num_samples(X))
    return X, y


def split_apart(name: str, value: Any) -> ValueError:
    """What to say where groups are given and a cleaner would make folds, or a share, without regard to them."""
    return ValueError(
        f"groups were given, and the folds of {name}={value!r} would take them apart; give a splitter that keeps them "
        f"together, such as {name}=GroupKFold(), or leave them out"
    )


def class_codes(estimator: Any, y: Any) -> np.ndarray | None:
    """Class of each row, or None where there are no classes (regressors, clusterers)."""
    return encode_target(y, "classification")[1] if is_classifier(estimator) else None


def labels_as_given(y: Any) -> Any:
    """The column of labels for a DataFrame of the rows; a list of rows where there are several labels."""
    labels = np.asarray(y)
    return labels.ravel() if labels.size == len(labels) else list(labels)


def split_params(cleaner: Any, attributor: Any, params: dict) -> tuple[dict, dict]:
    """Fit parameters of (estimator, attributor), routed where metadata routing is on."""
    attributor = prepare_attributor(attributor)
    if not _routing_enabled():
        own, params = splitter_params(cleaner, attributor, params)
        fit_params, score_params = split_fit_params(cleaner.estimator, attributor, params)
        return named_weights(cleaner.estimator, fit_params | own), score_params
    if params.get("sample_weight") is not None:
        refuse_unweighted(cleaner.estimator)
    routed = process_routing(cleaner, "fit", **params)
    return routed.estimator.fit, routed.attributor.fit


def splitter_params(cleaner: Any, attributor: Any, params: dict) -> tuple[dict, dict]:
    """({"groups": ...} if the estimator's fit takes them, the other params and groups if the attributor takes them).

    `groups` are those of the splitters of the cleaner. ValueError if nobody uses them.
    """
    if params.get("groups") is None:
        return {}, {name: value for name, value in params.items() if name != "groups"}
    to_estimator, to_attributor, splits = users_of_groups(cleaner, attributor)
    if not (to_estimator or to_attributor or splits):
        raise ValueError(
            f"{type(cleaner).__name__}.fit was given groups that nothing uses; give a splitter that keeps them "
            "together, such as validation=GroupKFold(), or leave them out"
        )
    own = {"groups": params["groups"]} if to_estimator else {}
    return own, {name: value for name, value in params.items() if name != "groups" or to_attributor}


def users_of_groups(cleaner: Any, attributor: Any) -> tuple[bool, bool, bool]:
    """Whether (the estimator's fit, the attributor's fit, a splitter of the cleaner) uses groups; without routing."""
    kinds = signature(cleaner.estimator.fit).parameters
    passes_on = any(kind.kind is Parameter.VAR_KEYWORD for kind in kinds.values())
    to_estimator = "groups" in kinds or (passes_on and not isinstance(cleaner.estimator, Pipeline))
    splits = any(hasattr(getattr(cleaner, name, None), "split") for name in ("validation", "cv"))
    return to_estimator, has_fit_parameter(attributor, "groups"), splits


def without_unused_groups(cleaner: Any, params: dict) -> dict:
    """Fit parameters for a cleaner inside another one, whose own splitter may be the only one to use groups."""
    if _routing_enabled():
        used = bool(cleaner.get_metadata_routing().consumes("fit", ["groups"]))
    else:
        used = any(users_of_groups(cleaner, prepare_attributor(cleaner.attributor)))
    return params if used else {name: value for name, value in params.items() if name != "groups"}


def reads_validation_rows(estimator: Any) -> bool:
    """Whether the estimator's own fit takes X_val, y_val (early stopping), and asks for them where routing is on."""
    if not has_fit_parameter(estimator, "X_val"):
        return False
    if not _routing_enabled():
        return True
    request = getattr(estimator.get_metadata_routing(), "fit", None)  # a router has none of its own
    return request is not None and request.requests.get("X_val") is True


def per_row(X: Any, params: dict, rows: np.ndarray) -> dict:
    """Fit parameters of these rows; validation rows are nobody's metadata, however many they are."""
    whole = {name: params[name] for name in ("X_val", "y_val") if name in params}
    return _check_method_params(X, {name: value for name, value in params.items() if name not in whole}, rows) | whole


def fit_rows(estimator: Any, data: Given, support: np.ndarray) -> Any:
    """The estimator fitted on the rows of a mask."""
    if support.all():
        estimator.fit(data.X, data.y, **data.fit_params)
        return estimator  # not what fit returns, which is nothing for some
    rows = np.flatnonzero(support)
    params = per_row(data.X, data.fit_params, rows)
    estimator.fit(_safe_indexing(data.X, rows), _safe_indexing(data.y, rows), **params)
    return estimator


def rows_of(X: Any, rows: np.ndarray) -> Any:
    """These rows of X; X itself where they are all of it, in their order."""
    n = _num_samples(X)
    return X if len(rows) == n and (rows == np.arange(n)).all() else _safe_indexing(X, rows)


class Scores:
    """Scores of the rows and values of the objectives, over the rounds of a cleaner.

    attributor: as the cleaner was given it, None = the default. estimator: the cleaner's, None where it has none.
    guarded: whether somebody else uses the validation rows of an attributor that does not.

    values (n,): of each row in the last round that it took part in, higher = keep; NaN where it took part in none.
    objective_values: {name: value before each round}. by_objective: {name: scores (n,)}. attributor: fitted last.
    """

    def __init__(
        self,
        attributor: Any,
        data: Given,
        estimator: Any = None,
        random_state: Any = None,
        *,
        memory: Any = None,
        n_jobs: Any = None,
        guarded: bool = False,
    ) -> None:
        self.data, self.estimator, self.memory, self.n_jobs = data, estimator, memory, n_jobs
        self._attributor = prepare_attributor(attributor, estimator, random_state)
        self._validation = data.validation
        if not needs_of(self._attributor).validation:
            if self._validation is not None and not guarded:
                warnings.warn(
                    f"{type(self._attributor).__name__} scores rows without validation rows, and guard=False does not "
                    "use them either: validation has no effect",
                    UserWarning,
                    stacklevel=4,
                )
            self._validation = None
        self.values = np.full(len(data.held_out), np.nan)
        self.objective_values: dict[str, np.ndarray] = {}
        self.by_objective: dict[str, np.ndarray] = {}
        self._first_groups: dict[str, Any] = {}

    def score(self, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Found]]:
        """(positions of the rows of the mask, their scores, {objective: Found}) by a round in which these rows train.

        The score is the mean over the folds that a row trains in. Where groups were compared before, rows that no
        longer train still validate: without them a gap would look wider than it is.
        """
        compares = any(groups is not None for groups in self._first_groups.values())
        shown = np.flatnonzero(~self.data.held_out if compares else alive)
        trains, rows = alive[shown], np.flatnonzero(alive)
        X, y = rows_of(self.data.X, shown), rows_of(self.data.y, shown)
        params = _check_method_params(self.data.X, self.data.score_params, shown)
        metadata = _check_method_params(self.data.X, self.data.metadata, shown)
        groups = None if self.data.groups is None else _safe_indexing(self.data.groups, shown)
        folds = validation_rows(self._validation, X, y, self.data.codes is not None, metadata, groups)
        parts = [(part[trains[part]], *held) for part, *held in folds]
        tasks = ((clone(self._attributor), self.estimator, self.memory, X, y, params, *part) for part in parts)
        fitted = list(in_workers(fit_part, tasks, self.n_jobs if len(parts) > 1 else 1))
        places = [(np.cumsum(trains) - 1)[part] for part, *_ in parts]
        scores, found = combined(fitted, places, len(rows))
        if lost := int(np.isnan(scores).sum()):
            raise ValueError(
                f"{lost} rows are in no training part of validation={self.data.validation!r}, so they "
                "have no score; use folds in which every row trains at least once"
            )
        self.attributor = fitted[-1]
        self.values[rows] = scores
        self._note(found, rows)
        return rows, scores, found

    def _note(self, found: dict[str, Found], rows: np.ndarray) -> None:
        """Keep values and scores of every objective; gaps with the sign that they have for the groups of round 1."""
        for name, each in found.items():
            value = signed(each.value, each.groups, self._first_groups.setdefault(name, each.groups))
            self.objective_values[name] = np.append(self.objective_values.get(name, []), value)
            self.by_objective.setdefault(name, np.full_like(self.values, np.nan))[rows] = each.scores


def fit_part(
    attributor: Any,
    estimator: Any,
    memory: Any,
    X: Any,
    y: Any,
    params: dict,
    rows: np.ndarray,
    X_val: Any,
    y_val: Any,
    own: Any,
) -> Any:
    """The attributor fitted on these rows, with validation rows and their metadata (`own`) where there are some."""
    params = _check_method_params(X, params, rows)
    X, y = rows_of(X, rows), rows_of(y, rows)
    X, X_val = scoring_features(attributor, estimator, X, y, X_val)
    if X_val is not None:
        params = {**params, "X_val": X_val, "y_val": y_val}
        if own:
            params["metadata_val"] = own
    return fit_attributor(attributor, X, y, params, memory)


def combined(fitted: list, places: list[np.ndarray], n: int) -> tuple[np.ndarray, dict[str, Found]]:
    """(scores (n,), {objective: Found}) from attributors fitted on parts of n rows, which stand at these places."""
    known = [objectives_of(part) for part in fitted]
    found = {
        name: Found([(rows, each[name]) for rows, each in zip(places, known, strict=True)], n) for name in known[0]
    }
    signs = next(iter(found.values())).signs if len(found) == 1 else [1.0] * len(fitted)
    each = zip(places, fitted, signs, strict=True)
    parts = [(rows, sign * checked_scores(part, len(rows))) for rows, part, sign in each]
    return mean_over_parts(parts, n), found
