"""Strategies by where the rows lie, class by class."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from torch import Tensor

from sktda.cleaning.strategies.base import Candidates, Chosen
from sktda.cleaning.strategies.model import ModelStrategy
from sktda.engine import covering
from sktda.selection import without_lowest


class FeatureStrategy(ModelStrategy):
    """Base of the strategies that need no more than the features of a class."""

    @abstractmethod
    def _of_class(self, features: Tensor, budget: int) -> Tensor:
        """Positions of `budget` of the rows of a class, (n, d)."""

    def choose(self, candidates: Candidates, budget: int) -> Chosen:
        """Positions chosen in every class by its features."""
        features = self._features(candidates)
        return candidates.by_class(
            budget, lambda rows, quota: (rows[self._of_class(features(rows), quota).cpu().numpy()], None)
        )


class KCenter(FeatureStrategy):
    """Take the row farthest from those taken, again and again: "k-center".

    Outliers and wrong labels come early: for clean data.

    Parameters
    ----------
    estimator : estimator, default=None
        Model that represents the rows: the inputs of its last linear layer are the features. A skorch net or one of the
        scikit-learn models that `Influence` takes, trained on all rows, or as it is in a `FrozenEstimator`. None: the
        rows of X, scaled as in `ComplexityGap`.
    device : str or torch.device, default="auto"
        Where features are computed and compared. "auto" is CUDA where there is one.

    Attributes
    ----------
    estimator_ : estimator
        The trained clone of `estimator`, where there is one.

    Notes
    -----
    Source: Sener & Savarese 2018 (arXiv:1708.00489).
    """

    def _of_class(self, features: Tensor, budget: int) -> Tensor:
        return covering.k_center(features, budget)


class Herding(FeatureStrategy):
    """Keep the mean of the class: "herding".

    Parameters
    ----------
    estimator : estimator, default=None
        Model that represents the rows, as of `KCenter`.
    device : str or torch.device, default="auto"
        Where features are computed and compared. "auto" is CUDA where there is one.

    Attributes
    ----------
    estimator_ : estimator
        The trained clone of `estimator`, where there is one.

    Notes
    -----
    Source: Rebuffi et al. 2017 (arXiv:1611.07725).
    """

    def _of_class(self, features: Tensor, budget: int) -> Tensor:
        return covering.herding(features, budget)


class Moderate(FeatureStrategy):
    """Take the rows at a middle distance from the median of the class: "moderate".

    Parameters
    ----------
    estimator : estimator, default=None
        Model that represents the rows, as of `KCenter`.
    device : str or torch.device, default="auto"
        Where features are computed and compared. "auto" is CUDA where there is one.

    Attributes
    ----------
    estimator_ : estimator
        The trained clone of `estimator`, where there is one.

    Notes
    -----
    Source: moderate coresets (Xia et al., ICLR 2023).
    """

    def _of_class(self, features: Tensor, budget: int) -> Tensor:
        return covering.moderate(features, budget)


class D2(ModelStrategy):
    """Drop the worst rows as `Stratified` does, and take of the rest the hard ones among many neighbours: "d2".

    Few come from one place. The difficulty is the rank of the score, low = difficult, among the rows that are not
    dropped: wrong labels are what is most difficult, and would all be kept.

    Parameters
    ----------
    estimator : estimator, default=None
        Model that represents the rows, as of `KCenter`. The attributor gets it where its own `estimator` is None.
    device : str or torch.device, default="auto"
        Where features are computed and compared. "auto" is CUDA where there is one.

    Attributes
    ----------
    estimator_ : estimator
        The trained clone of `estimator`, where there is one.

    Notes
    -----
    Source: D2 pruning (arXiv:2310.07931).
    """

    uses_scores = True

    def choose(self, candidates: Candidates, budget: int) -> Chosen:
        """Positions chosen in every class by messages between its rows."""
        features, scores = self._features(candidates), candidates.scores

        def of_class(rows: np.ndarray, quota: int) -> Chosen:
            rows = without_lowest(rows, scores, candidates.drop, quota)
            # ranks: of the rows that are left the worst has difficulty 1, the best almost 0, whatever the unit
            difficulty = np.empty(len(rows))
            difficulty[np.argsort(scores[rows], kind="stable")] = np.arange(len(rows), 0, -1) / len(rows)
            return rows[covering.message_passing(features(rows), difficulty, quota).cpu().numpy()], None

        return candidates.by_class(budget, of_class)
