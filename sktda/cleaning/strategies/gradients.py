"""Strategies by the gradients of the rows at the last layer of a model: (p - onehot) times its inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np

from sktda.cleaning.base import Holdout
from sktda.cleaning.scoring import rows_of
from sktda.cleaning.strategies.base import Candidates, Chosen
from sktda.cleaning.strategies.model import ModelStrategy
from sktda.cleaning.validation import VALIDATION, check_validation_rows, set_aside, validation_rows
from sktda.engine import matching
from sktda.engine.last_layer import last_layer
from sktda.engine.layers import Product
from sktda.selection import class_budgets


class MatchingStrategy(ModelStrategy):
    """Base of the strategies whose rows and weights stand for the gradients of a class."""

    n_rows: int
    """Rows whose pairs are looked at together; of a larger class, random parts of so many."""

    @abstractmethod
    def _of_part(self, gradients: Product, budget: int) -> matching.Chosen:
        """(positions, weights) of `budget` of the rows of a part."""

    def choose(self, candidates: Candidates, budget: int) -> Chosen:
        """Positions and weights chosen in every class by its gradients."""
        every = self._last_layer(candidates).gradients

        def of_class(rows: np.ndarray, quota: int) -> Chosen:
            own = matching.at(every, rows)
            found, weights = matching.in_parts(
                len(rows),
                quota,
                self.n_rows,
                candidates.random,
                lambda part, size: self._of_part(matching.at(own, part), size),
            )
            return rows[found], weights

        return candidates.by_class(budget, of_class)


class CRAIG(MatchingStrategy):
    """Rows that stand for the gradients of all, weighted by how many each stands for: "craig".

    Wrong labels have the longest gradients, so it seeks them out.

    Parameters
    ----------
    estimator : estimator, default=None
        Model whose gradients count, as of `KCenter`, trained on all rows; None: the library's default net.
    device : str or torch.device, default="auto"
        Where gradients are computed and compared. "auto" is CUDA where there is one.

    Attributes
    ----------
    estimator_ : estimator
        The trained clone of `estimator`, or the default net.

    Notes
    -----
    Looks at random parts of at most 4,096 rows of a class, each with its share of the budget, so that its cost grows
    with the rows and not with their square. Source: Mirzasoleiman et al. 2020 (arXiv:1906.01827).
    """

    n_rows = matching.LOCATION_ROWS

    def _of_part(self, gradients: Product, budget: int) -> matching.Chosen:
        return matching.facility_location(matching.closeness(gradients), budget)


class GradMatch(MatchingStrategy):
    """Rows and weights whose gradients add up to those of all: "grad-match".

    Wrong labels have the longest gradients, so it seeks them out.

    Parameters
    ----------
    estimator : estimator, default=None
        Model whose gradients count, as of `KCenter`, trained on all rows; None: the library's default net.
    device : str or torch.device, default="auto"
        Where gradients are computed and compared. "auto" is CUDA where there is one.

    Attributes
    ----------
    estimator_ : estimator
        The trained clone of `estimator`, or the default net.

    Notes
    -----
    Looks at random parts of at most 2,048 rows of a class, as `CRAIG` does.
    Source: Killamsetty et al. 2021 (arXiv:2103.00123).
    """

    n_rows = matching.PURSUIT_ROWS

    def _of_part(self, gradients: Product, budget: int) -> matching.Chosen:
        return matching.matching_pursuit(matching.products(gradients), budget)


class GLISTER(ModelStrategy):
    """Rows whose training step lowers the validation loss most: "glister".

    Parameters
    ----------
    estimator : estimator, default=None
        Model whose gradients count, as of `KCenter`; None: the library's default net.
    validation : None, int, float, splitter or Holdout, default=None
        Validation rows. None = the rows themselves, and wrong labels are then what matters most. An int or splitter:
        each fold in turn validates the others, of which a model is trained, and a row counts by its mean over these
        models. A float sets that share of the rows aside, which are not kept.
    device : str or torch.device, default="auto"
        Where gradients are computed and compared. "auto" is CUDA where there is one.

    Attributes
    ----------
    estimator_ : estimator
        The trained clone of `estimator`, or the default net; of folds that of the last one.

    Notes
    -----
    Source: Killamsetty et al. 2021 (arXiv:2012.10630).
    """

    _parameter_constraints: dict = {"validation": VALIDATION}

    def __init__(self, estimator=None, *, validation=None, device="auto"):
        self.estimator = estimator
        self.validation = validation
        self.device = device

    def choose(self, candidates: Candidates, budget: int) -> Chosen:
        """Positions chosen by what a step on them does to the validation loss."""
        parts, codes = list(self._parts(candidates)), candidates.codes
        eligible = np.zeros(len(codes), dtype=bool)
        for part in parts:
            eligible[part.rows] = True
        if eligible.sum() < budget or not np.bincount(codes[eligible], minlength=codes.max() + 1).all():
            raise ValueError(
                f"validation={self.validation!r} sets {int((~eligible).sum())} of {len(codes)} rows aside, so that "
                f"{budget} rows of all classes cannot be kept; keep fewer, or give folds or a Holdout"
            )
        return matching.validation_steps(parts, codes, class_budgets(budget, codes[eligible])), None

    def _parts(self, candidates: Candidates) -> Iterator[matching.Part]:
        """The rows at the model that is trained on them, beside the validation rows there: once, or once per fold."""
        X, y = candidates.X, candidates.y
        validation = self.validation
        if isinstance(validation, Holdout) and candidates.encoder is not None:
            validation = Holdout(candidates.encoder.transform(validation.X), validation.y, **validation.metadata)
        validation = check_validation_rows(validation, X, None, None)
        classes = candidates.codes if candidates.task == "classification" else None
        if isinstance(validation, float):
            validation = [set_aside(validation, len(candidates.codes), classes, candidates.random_state)]
        for rows, X_val, y_val, _ in validation_rows(validation, X, y, classes is not None):
            model = self._model(candidates, rows)
            own = last_layer(model, model.rows(rows_of(X, rows), rows_of(y, rows)))
            held = own
            if X_val is not None:  # they count alike, whatever the weights of classes
                held = last_layer(model, model.rows(X_val, y_val).unweighted())
            yield matching.Part(rows, own, held)
