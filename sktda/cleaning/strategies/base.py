"""What a strategy of CoresetSelector is given, and what it returns."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from sktda.selection import class_budgets

Chosen = tuple[np.ndarray, np.ndarray | None]  # positions of rows, and their weights


@dataclass(frozen=True)
class Candidates:
    """The rows that a strategy chooses from.

    Parameters
    ----------
    X, y
        As the user gave them, in a form of which scikit-learn can take rows.
    task : {"classification", "regression"}
    codes : ndarray of shape (n_samples,)
        Class of each row as 0..n_classes-1; all 0 for regression.
    random : RandomState
        What is drawn is drawn from it.
    random_state : int, RandomState instance or None
        Seed of a model that the strategy trains.
    scores : ndarray of shape (n_samples,) or None
        The attributor's, higher = keep, where the strategy has ``uses_scores = True``.
    drop : float
        Share of the rows with the lowest scores that is wrong, or an outlier, and not worth covering.
    numbers : ndarray of shape (n_samples, ...), CSR matrix or None
        X as finite numbers, where the strategy has ``reads_numbers = True``.
    encoder : TableEncoder or None
        What made X of the user's table, where that was not all numbers: other rows of theirs need it, too.
    """

    X: Any
    y: Any
    task: str
    codes: np.ndarray
    random: np.random.RandomState
    random_state: Any = None
    scores: Any = None
    drop: float = 0.0
    numbers: Any = None
    encoder: Any = None

    def by_class(self, budget: int, choose: Callable[[np.ndarray, int], Chosen]) -> Chosen:
        """What choose(positions of a class, its share of the budget) finds in each class, together."""
        quotas = class_budgets(budget, self.codes)
        found = [choose(np.flatnonzero(self.codes == c), int(quota)) for c, quota in enumerate(quotas)]
        weights = [own for _, own in found if own is not None]
        return np.concatenate([rows for rows, _ in found]), np.concatenate(weights) if weights else None


class CoresetStrategy(BaseEstimator, metaclass=ABCMeta):
    """Chooses the rows that `CoresetSelector` keeps: a subclass implements `choose`.

    Its parameters are those of its ``__init__``, as of any scikit-learn estimator, so that a search reaches them as
    ``strategy__<name>``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sktda import CoresetSelector
    >>> from sktda.cleaning import CoresetStrategy
    >>> class Shortest(CoresetStrategy):
    ...     reads_numbers = True
    ...
    ...     def choose(self, candidates, budget):
    ...         length = np.linalg.norm(candidates.numbers, axis=1)
    ...         return candidates.by_class(budget, lambda rows, quota: (rows[length[rows].argsort()[:quota]], None))
    >>> CoresetSelector(strategy=Shortest(), n_samples=6).fit(*load_iris(return_X_y=True)).sample_indices_.tolist()
    [13, 41, 57, 93, 106, 121]
    """

    uses_scores: bool = False
    """Whether the attributor is fitted, for `candidates.scores`."""
    reads_numbers: bool = False
    """Whether X must be finite numbers, for `candidates.numbers`."""
    estimator: Any = None
    """The model that represents the rows, of strategies that have one as a parameter."""

    _parameter_constraints: dict = {}

    @abstractmethod
    def choose(self, candidates: Candidates, budget: int) -> Chosen:
        """(positions (budget,) of different rows in any order, their weights (budget,) or None)."""
