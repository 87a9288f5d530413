"""How much each training row matters: for an objective on validation rows, and for every single query."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from sktda.attribution.base import Needs
from sktda.attribution.gradients.base import TrainedScores
from sktda.attribution.gradients.cross_fit import cross_fitted
from sktda.attribution.gradients.fitted import Fitted, NotFinite, refuse_nan
from sktda.attribution.gradients.objective_gradients import Asked, row_measure
from sktda.model.base import Rows
from sktda.model.given import GivenModel
from sktda.model.settings import plain_modes


class GradientAttributor(TrainedScores):
    """Base of the methods that know how much each row matters for an objective on validation rows, and for a query."""

    needs = Needs(validation=True, gradients=True)

    @plain_modes
    def attribute(self, X_query, y_query):
        """Predicted rise of each query's loss when one training row is removed.

        Parameters
        ----------
        X_query : array-like of shape (n_query, ...)
        y_query : array-like of shape (n_query,)

        Returns
        -------
        values : ndarray of shape (n_query, n_samples)
            In units of the loss (of the objective's `per_row` where it has one), 1/n included; positive = the row
            helps that query.
        """
        fitted, queries = self._asked(X_query, y_query)
        values = np.empty((len(queries), len(fitted.rows)))
        measure = row_measure(self.objective, fitted.model.likelihood)
        with self._precisely(fitted):
            for asked, rows, block in self._blocks(fitted, queries, measure):
                values[asked, rows] = block.cpu().double().numpy()
        refuse_nan(values)
        return values

    @plain_modes
    def top_k(self, X_query, y_query, k=10, *, harmful=False):
        """The k training rows that help each query most (or harm it most), without the whole matrix of values.

        Parameters
        ----------
        X_query : array-like of shape (n_query, ...)
        y_query : array-like of shape (n_query,)
        k : int, default=10
            At most the number of training rows.
        harmful : bool, default=False
            The lowest values in place of the highest.

        Returns
        -------
        rows : ndarray of shape (n_query, k)
            Positions in the training rows, the strongest first.
        values : ndarray of shape (n_query, k)
        """
        fitted, queries = self._asked(X_query, y_query)
        if not 1 <= k <= len(fitted.rows):
            raise ValueError(f"k={k} is not between 1 and the number of training rows, {len(fitted.rows)}")
        best = torch.full((len(queries), k), -torch.inf, dtype=torch.float64)
        rows = torch.full((len(queries), k), -1)
        measure, wrong = row_measure(self.objective, fitted.model.likelihood), NotFinite(len(queries), len(fitted.rows))
        with self._precisely(fitted):
            for asked, part, block in self._blocks(fitted, queries, measure):
                block = block.cpu()  # once: for the check as for the ranks
                wrong.count(asked, part, ~block.isfinite().numpy())
                # of a block k at most: 2k numbers a query meet, and never all n
                found, chosen = block.topk(min(k, block.shape[1]), dim=1, largest=not harmful)
                # turned round where the lowest are asked for, so that one merge does, and back at the end
                found = found.double() * (-1 if harmful else 1)
                values = torch.cat([best[asked], found], dim=1)  # the k best so far against those of the block
                positions = torch.cat([rows[asked], chosen + part.start], dim=1)
                best[asked], chosen = values.topk(k, dim=1)
                rows[asked] = positions.gather(1, chosen)
        wrong.refuse()
        return rows.numpy(), (-best if harmful else best).numpy()

    def _scored(self, fitted: Fitted, objective, X_val, y_val, metadata_val) -> Tensor | None:
        if objective == "self":
            return self._self_scores(fitted)
        if objective is not None and X_val is not None:
            asked = self._asked_about(objective, fitted, X_val, y_val, metadata_val)
            each = self._validation_scores(fitted, asked).cpu().double()
            self.objectives_ = asked.found(each.numpy())
            # values are linear in the objective: of a weighted sum the weighted sum of the parts'
            return torch.tensor(asked.shares, dtype=torch.float64) @ each
        # a fixed model was trained on all rows, and there are no others to judge them
        if objective is not None and not GivenModel.of(self.estimator).fixed:
            fitted.passes.begin("cross-fit")
            scores, self.objectives_ = cross_fitted(self, self._data, self.task_)
            return scores
        return None

    def _refuse_lowered(self, curvature: str) -> None:
        """ValueError for passes in bfloat16 under a curvature whose small eigenvalues they would leave no digit of."""
        if self.precision == "bf16" and curvature != "ekfac":
            raise ValueError(
                f"precision='bf16' goes with curvature='ekfac', and {curvature!r} would be solved for the "
                "rounding of its gradients; use precision='tf32' or 'float32'"
            )

    def _asked(self, X_query, y_query):
        fitted = self._ready()
        X = self._data.X
        # a net may take one row for a batch of numbers, and answer
        if hasattr(X, "shape") and hasattr(X_query, "shape") and X_query.ndim == X.ndim - 1:
            raise ValueError(
                f"X_query has the shape {tuple(X_query.shape)}, which is that of one row; give queries as X has rows: "
                "X_query[None], [y_query]"
            )
        queries = self._other_rows(fitted, X_query, y_query)
        if not len(queries):
            raise ValueError("there are no queries: X_query has no rows")
        return fitted, queries

    @abstractmethod
    def _validation_scores(self, fitted: Fitted, asked: Asked) -> Tensor:
        """(k, n) values for the k objectives that are asked about."""

    @abstractmethod
    def _self_scores(self, fitted: Fitted) -> Tensor:
        """(n,) minus the value of each row for its own loss."""

    @abstractmethod
    def _blocks(self, fitted: Fitted, queries: Rows, measure: Callable | None) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yields (queries, training rows, values of these pairs) until all pairs are covered."""
