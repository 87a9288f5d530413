"""Coreset strategies by name: functions of what is known about the rows and of a budget, class by class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sktda.engine import covering, matching
from sktda.engine.last_layer import LastLayer
from sktda.selection import (
    class_budgets,
    coverage_centric_rows,
    random_rows,
    stratified_rows,
    top_rows,
    without_lowest,
)


@dataclass(frozen=True)
class Candidates:
    """What a strategy chooses from. What it does not need may be left None."""

    codes: np.ndarray
    """(n,) class of each row as 0..n_classes-1; all 0 for regression."""
    random: np.random.RandomState
    scores: Any = None
    """(n,) higher = keep."""
    drop: float = 0.0
    """Share of the rows that score lowest, and are not to be covered: wrong labels and outliers."""
    features: Callable[[np.ndarray], Tensor] | None = None
    """Rows by position -> (len, d)."""
    last: LastLayer | None = None
    """The rows at the last layer of a trained model."""
    validation: LastLayer | None = None
    """Validation rows there."""


Chosen = tuple[np.ndarray, np.ndarray | None]  # positions, and their weights


@dataclass(frozen=True)
class Strategy:
    """choose(candidates, number of rows to keep) -> positions in any order, weights or None; what it needs for that."""

    choose: Callable[[Candidates, int], Chosen]
    scores: bool = False
    features: bool = False
    gradients: bool = False


def class_by_class(choose: Callable[[Candidates, np.ndarray, int], Chosen]) -> Callable[[Candidates, int], Chosen]:
    """The strategy that calls choose(candidates, positions of a class, its budget) -> (positions, weights or None)."""

    def strategy(candidates: Candidates, budget: int) -> Chosen:
        codes = candidates.codes
        found = [
            choose(candidates, np.flatnonzero(codes == c), int(quota))
            for c, quota in enumerate(class_budgets(budget, codes))
        ]
        weights = [own for _, own in found if own is not None]
        return np.concatenate([rows for rows, _ in found]), np.concatenate(weights) if weights else None

    return strategy


def _by_features(choose: Callable[[Tensor, int], Tensor]) -> Strategy:
    def one_class(candidates: Candidates, rows: np.ndarray, budget: int) -> Chosen:
        assert candidates.features is not None
        return rows[choose(candidates.features(rows), budget).cpu().numpy()], None

    return Strategy(class_by_class(one_class), features=True)


def _by_scores(choose: Callable[[Candidates, int], np.ndarray]) -> Strategy:
    return Strategy(lambda candidates, budget: (choose(candidates, budget), None), scores=True)


def _random(candidates: Candidates, budget: int) -> Chosen:
    return random_rows(budget, candidates.codes, candidates.random), None


def _top(candidates: Candidates, budget: int) -> np.ndarray:
    return top_rows(candidates.scores, budget, candidates.codes)


def _stratified(candidates: Candidates, budget: int) -> np.ndarray:
    return stratified_rows(candidates.scores, budget, candidates.codes, candidates.drop, candidates.random)


def _coverage_centric(candidates: Candidates, budget: int) -> np.ndarray:
    return coverage_centric_rows(candidates.scores, budget, candidates.codes, candidates.drop, candidates.random)


def _message_passing(candidates: Candidates, rows: np.ndarray, budget: int) -> Chosen:
    assert candidates.features is not None
    rows = without_lowest(rows, candidates.scores, candidates.drop, budget)
    # ranks: of the rows that are left the worst has difficulty 1, the best almost 0, whatever the unit of the scores
    difficulty = np.empty(len(rows))
    difficulty[np.argsort(candidates.scores[rows], kind="stable")] = np.arange(len(rows), 0, -1) / len(rows)
    chosen = covering.message_passing(candidates.features(rows), difficulty, budget)
    return rows[chosen.cpu().numpy()], None


def _craig(candidates: Candidates, rows: np.ndarray, budget: int) -> Chosen:
    assert candidates.last is not None
    gradients = matching.at(candidates.last.gradients, rows)

    def choose(part: np.ndarray, size: int) -> matching.Chosen:
        return matching.facility_location(matching.closeness(matching.at(gradients, part)), size)

    chosen, weights = matching.in_parts(len(rows), budget, matching.LOCATION_ROWS, candidates.random, choose)
    return rows[chosen], weights


def _grad_match(candidates: Candidates, rows: np.ndarray, budget: int) -> Chosen:
    assert candidates.last is not None
    gradients = matching.at(candidates.last.gradients, rows)

    def choose(part: np.ndarray, size: int) -> matching.Chosen:
        own = matching.at(gradients, part)
        return matching.matching_pursuit(own.gram(own).double().cpu().numpy(), size)

    chosen, weights = matching.in_parts(len(rows), budget, matching.PURSUIT_ROWS, candidates.random, choose)
    return rows[chosen], weights


def _glister(candidates: Candidates, budget: int) -> Chosen:
    assert candidates.last is not None
    validation = candidates.last if candidates.validation is None else candidates.validation
    quota = class_budgets(budget, candidates.codes)
    return matching.validation_steps(candidates.last, validation, candidates.codes, quota), None


STRATEGIES: dict[str, Strategy] = {
    "stratified": _by_scores(_stratified),
    "top": _by_scores(_top),
    "random": Strategy(_random),
    "ccs": _by_scores(_coverage_centric),
    "moderate": _by_features(covering.moderate),
    "k-center": _by_features(covering.k_center),
    "herding": _by_features(covering.herding),
    "craig": Strategy(class_by_class(_craig), gradients=True),
    "grad-match": Strategy(class_by_class(_grad_match), gradients=True),
    "glister": Strategy(_glister, gradients=True),
    "d2": Strategy(class_by_class(_message_passing), scores=True, features=True),
}
