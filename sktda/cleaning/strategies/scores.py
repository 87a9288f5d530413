"""Strategies by the attributor's scores, and the random draw that every strategy has to beat."""

from __future__ import annotations

from sktda.cleaning.strategies.base import Candidates, Chosen, CoresetStrategy
from sktda.selection import coverage_centric_rows, random_rows, stratified_rows, top_rows


class Stratified(CoresetStrategy):
    """Drop the worst rows of each class, then cover easy and hard scores alike: "stratified", the default.

    The share that is dropped is the estimated one of wrong labels or outliers and 10 % more; 30 % where the attributor
    has no `loo_decision_` to estimate it from; fewer where `n_samples` needs them. The rest is drawn from 50 strata of
    equal width in the score, equally many rows from each.

    Notes
    -----
    Source: coverage-centric selection (arXiv:2210.15809), here within each class.
    """

    uses_scores = True

    def choose(self, candidates: Candidates, budget: int) -> Chosen:
        """Positions drawn from the strata of every class."""
        own = candidates
        return stratified_rows(own.scores, budget, own.codes, own.drop, own.random), None


class CCS(CoresetStrategy):
    """As `Stratified`, with the worst rows, and the strata, of all classes together: "ccs".

    A hard class is cut deeper.

    Notes
    -----
    Source: coverage-centric coreset selection (arXiv:2210.15809).
    """

    uses_scores = True

    def choose(self, candidates: Candidates, budget: int) -> Chosen:
        """Positions drawn from the strata of all classes."""
        own = candidates
        return coverage_centric_rows(own.scores, budget, own.codes, own.drop, own.random), None


class Top(CoresetStrategy):
    """Keep the highest scores of every class: "top"."""

    uses_scores = True

    def choose(self, candidates: Candidates, budget: int) -> Chosen:
        """Positions of the highest scores."""
        return top_rows(candidates.scores, budget, candidates.codes), None


class Hardest(CoresetStrategy):
    """Keep the lowest scores of every class, the hard rows: "hardest".

    Easy rows are many, alike, and soon learned, so that where most rows are kept a net may lose little without them.
    Wrong labels are the hardest of all and stay first: only for labels that are right.

    Notes
    -----
    Source: Sorscher et al. 2022 (arXiv:2206.14486), who keep the hard rows where there are many and the easy ones where
    there are few.
    """

    uses_scores = True

    def choose(self, candidates: Candidates, budget: int) -> Chosen:
        """Positions of the lowest scores."""
        return top_rows(-candidates.scores, budget, candidates.codes), None


class RandomRows(CoresetStrategy):
    """Draw rows, which the other strategies have to beat; it looks at no value of X: "random"."""

    def choose(self, candidates: Candidates, budget: int) -> Chosen:
        """Positions drawn of every class."""
        return random_rows(budget, candidates.codes, candidates.random), None
