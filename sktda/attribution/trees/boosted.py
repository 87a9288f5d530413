"""What the methods for boosted trees share: a row moves the value of its leaf, a query has a slope by its output."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)

from sktda.attribution.gradients.objective_gradients import row_measure
from sktda.attribution.trees.asked import ByRows, TreesAsked, Whole
from sktda.attribution.trees.base import Entries, LeafScores
from sktda.attribution.trees.reading import check_boosted, read_boosted
from sktda.attribution.trees.steps import Block, Steps
from sktda.model.given import GivenModel, GivenRows


class BoostedScores(LeafScores):
    """Base of the methods whose value is the sum over common leaves of a row's move times the query's slope."""

    @abstractmethod
    def _moves(self, rows: slice, block: Block) -> np.ndarray:
        """(b, T, K) by how much the training rows move the outputs of their leaves when they are removed."""

    @abstractmethod
    def _slopes(self, block: Block, targets: np.ndarray, measure: Any) -> np.ndarray:
        """(b, T, K) derivative of the queries' measure, None = the loss, by what each tree adds to their outputs."""

    @abstractmethod
    def _whole_slopes(self, slopes: Whole, before: np.ndarray, outputs: np.ndarray) -> Iterator[np.ndarray]:
        """Yields (m, K) step by step: derivatives of an objective by what the trees of a step add to the outputs."""

    @abstractmethod
    def _moves_and_slopes(self, rows: slice, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """`_moves` of training rows, and `_slopes` of their own losses."""

    def _default(self, classes: bool, sparse: bool) -> Any:
        # HistGradientBoosting takes no sparse rows
        if sparse:
            return GradientBoostingClassifier() if classes else GradientBoostingRegressor()
        kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
        # "auto" would hold rows back where there are more than 10,000, and those have no score
        return kind(early_stopping=False)

    def _check_model(self, model: Any) -> None:
        check_boosted(model, type(self).__name__)

    def _read(self, given: GivenModel) -> None:
        trees = read_boosted(given.model, type(self).__name__)
        self._note_task(given.model, trees.facts.classes)
        rows = given.transformed(self._data.X), self._targets(self._data.y), self._training_weights()
        self._steps = Steps(trees, *rows, trained_here=not given.frozen)
        self._n_columns = len(trees.facts.values)
        held_back = int(((self._steps.weights == 0) & (rows[2] > 0)).sum())
        if held_back:
            warnings.warn(
                f"early stopping held {held_back} of {len(self._data)} rows back from the {given.name}: they took no "
                "part in its trees, and score 0; set early_stopping=False (n_iter_no_change=None) to score all rows",
                UserWarning,
                stacklevel=2,
            )

    def _given(self) -> Iterator[tuple[slice, Entries]]:
        for rows, block in self._steps.training_blocks():
            yield rows, (_flat(block.leaves), _flat(self._moves(rows, block)))

    def _taken(self, queries: GivenRows) -> Iterator[tuple[slice, Entries]]:
        measure = row_measure(self.objective, self._steps.facts.loss.likelihood)
        for rows, block in self._steps.blocks(queries.X):
            yield rows, (_flat(block.leaves), _flat(self._slopes(block, queries.y[rows], measure)))

    def _self_scores(self) -> np.ndarray:
        scores = np.empty(len(self._data))
        for rows, block in self._steps.training_blocks():
            # minus: a row without which its own loss rises most has only itself for its label, so it is suspicious
            scores[rows] = -np.einsum("ntk,ntk->n", *self._moves_and_slopes(rows, block))
        return scores

    def _objective_columns(self, objective: Any, rows: GivenRows, metadata: dict) -> tuple[TreesAsked, np.ndarray]:
        steps = self._steps
        # a gap's sign and groups are those of the whole ensemble, also for slopes before its earlier steps
        outputs = np.concatenate([block.outputs for _, block in steps.blocks(rows.X)])
        asked = TreesAsked(objective, steps.facts.loss, rows.X, rows.y, outputs, metadata, self._encode())
        table = np.zeros((len(asked.names), self._n_columns))
        for part, block in steps.blocks(rows.X):
            for total, each in zip(table, asked.parts, strict=True):
                if isinstance(each, ByRows):
                    slopes = each.weights[part, None, None] * self._slopes(block, rows.y[part], each.measure)
                    # summed over the queries of a leaf first: the cost is of rows + queries, and not of their pairs
                    total += np.bincount(block.leaves.ravel(), slopes.ravel(), self._n_columns)
        whole = [(total, each) for total, each in zip(table, asked.parts, strict=True) if not isinstance(each, ByRows)]
        if whole:  # which need all rows at a time
            blocks = [block for _, block in steps.blocks(rows.X)]
            leaves, before = (np.concatenate([getattr(b, name) for b in blocks]) for name in ("leaves", "before"))
            for total, each in whole:
                for step, slopes in enumerate(self._whole_slopes(each, before, outputs)):
                    total += np.bincount(leaves[:, step].ravel(), slopes.ravel(), self._n_columns)
        return asked, table


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)
