"""What every attribution method shares: the contract, the one sign and the validation of its input.

**Higher = keep.** `scores_[i]` is the predicted rise of the objective (a loss, lower = better) when training row i
is removed, in loss units, 1/n included: positive = the row helps, most negative = the row harms. Scores that are
not a predicted change are negated where needed, so that low = suspicious holds for all of them; the first line of
each class says its unit. A paper's other sign is converted in that method's file and nowhere else.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length

from sktda.data import check_weights, encode_target, read_features


class Attributor(BaseEstimator, metaclass=ABCMeta):
    """Scores training rows: `fit(X, y)` sets `scores_` (n,), higher = keep."""

    uses_validation = False
    """Whether validation rows change the scores. A cleaner warns when it was given some that nothing uses."""

    scores_features = False
    """Whether X must be numeric features: a cleaner around a Pipeline then passes them through its transformers."""

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
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags


def told_task(attributor: Any, task: str) -> Any:
    """The attributor, told what y is where it leaves that open."""
    if task != "auto" and attributor.get_params(deep=False).get("task") == "auto":
        attributor.set_params(task=task)
    return attributor


def seeded(attributor: Any, random_state: Any) -> Any:
    """The attributor, with a seed drawn from random_state where it has none of its own; None draws nothing."""
    if random_state is not None and attributor.get_params(deep=False).get("random_state", 0) is None:
        attributor.set_params(random_state=check_random_state(random_state).randint(2**31 - 1))
    return attributor
