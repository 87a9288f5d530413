"""TreeKernel: an ensemble of trees as a vote of the training rows that share leaves with a query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from torch import Tensor

from sktda.attribution.gradients.objective_gradients import row_measure
from sktda.attribution.trees.asked import ByRows, TreesAsked, row_slopes
from sktda.attribution.trees.base import Entries, LeafScores
from sktda.attribution.trees.forest import Forest, is_forest
from sktda.attribution.trees.losses import Loss, SquaredError
from sktda.attribution.trees.reading import check_boosted, read_boosted, reader_of
from sktda.attribution.trees.steps import ENTRIES
from sktda.data import slices
from sktda.model.given import GivenModel, GivenRows, part_of
from sktda.model.reading import count
from sktda.model.softmax import Categorical


@dataclass(frozen=True)
class ShareError(Categorical):
    """Half the Brier score of class shares (n, C)."""

    probabilities: bool = True

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Half the squared distance from the class."""
        # outputs are shares: no softmax comes before
        wanted = torch.nn.functional.one_hot(targets, outputs.shape[1]).to(outputs)
        return 0.5 * (outputs - wanted).square().sum(dim=1)


@dataclass(frozen=True)
class Shares(Loss):
    """Half the Brier score, as the losses of trees are."""

    n_outputs: int
    classes = True
    likelihood = ShareError()

    def derivatives(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Share minus class, and 1."""
        return outputs - (targets[..., None] == np.arange(self.n_outputs)), np.ones_like(outputs)

    def pushed(self, outputs: np.ndarray, targets: np.ndarray, along: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """As of the squared error."""
        return along


class TreeKernel(LeafScores):
    """Predicted rise of the vote's squared error when a row's vote is taken out, in units of half the squared error.

    The vote of a query is the mean over trees of the mean label of its leaf: f = sum_i k(query, i) y_i, where k is the
    mean over trees of the share that row i has in the query's leaf. For forests that is the prediction itself. Without
    row i the others' votes count by so much more: value = k (f - y_i) times the derivative of the query's loss by f.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A random forest, ExtraTrees, bagged trees, or boosted trees as `BoostIn` takes them; a Pipeline ending in one,
        or FrozenEstimator of a fitted one. None = a random forest.
    objective : {"auto", "self", "validation"}, objective, callable or None, default="auto"
        "auto" is "validation" where validation rows are given, else "self"; None prepares `attribute` only.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep. Not there with objective=None.
    objectives_ : dict of ObjectiveScores
        What was found for each objective of validation rows, by name.
    estimator_ : estimator
        The trained model; for estimator=None behind a transformer that brings columns near 1.
    classes_ : ndarray of shape (n_classes,)
        Only for classification.
    task_ : str
        "classification" or "regression".

    Raises
    ------
    TypeError
        In `fit`, for an estimator that is not an ensemble of trees, and an objective that moves the inputs.
    ValueError
        In `fit`, for a forest whose predictions are no means of its rows' labels, and for a frozen one with other rows,
        labels or weights than it was trained on.

    Notes
    -----
    The loss of classes is half the Brier score, as the logarithm of a vote may be infinite. Of a boosted ensemble the
    vote only stands in for what it predicts: `BoostIn` is about the predictions. Source: the kernel of a forest
    (Scornet 2016, arXiv:1502.03836), and "TreeSim" among the baselines of arXiv:2205.00359.

    Examples
    --------
    >>> import numpy as np
    >>> from sktda.attribution import TreeKernel
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> y[:5] = 1 - y[:5]
    >>> sorted(np.argsort(TreeKernel().fit(X, y).scores_)[:5].tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, estimator=None, *, objective="auto", random_state=None):
        self.estimator = estimator
        self.objective = objective
        self.random_state = random_state

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _default(self, classes: bool, sparse: bool) -> Any:
        return RandomForestClassifier() if classes else RandomForestRegressor()

    def _check_model(self, model: Any) -> None:
        if not is_forest(model) and reader_of(model) is None:
            check_boosted(model, "TreeKernel", "a random forest, ExtraTrees, bagged trees")

    def _read(self, given: GivenModel) -> None:
        model = given.model
        self._X = given.transformed(self._data.X)
        self._ensemble: Any
        if is_forest(model):
            self._ensemble = Forest(model)
            self._note_task(model, self._ensemble.classes)
            self._n_leaves = self._ensemble.n_leaves
            self._y = self._targets(self._data.y)
            self._drawn = self._ensemble.drawn(self._y, self._training_weights())
        else:
            self._ensemble = read_boosted(model, "TreeKernel")
            self._note_task(model, self._ensemble.facts.classes)
            self._n_leaves = len(self._ensemble.facts.values)
            self._y = self._targets(self._data.y)
            # (n, 1): every tree of a boosting counts all rows
            self._drawn = self._ensemble.weights(self._y, self._training_weights())[:, None]
        classes = self.task_ == "classification"
        self._loss: Loss = Shares(len(self.classes_)) if classes else SquaredError()
        # a leaf has a column per class, or for numbers two, see _given
        self._n_columns = self._n_leaves * max(2, self._loss.n_outputs)
        # per leaf: the weight of its rows, and their labels' sums
        self._mass = np.zeros(self._n_leaves)
        self._votes = np.zeros((self._n_leaves, self._loss.n_outputs))
        for rows, leaves in self._leaf_blocks(self._X):
            weight = np.broadcast_to(self._drawn[rows], leaves.shape)
            self._mass += np.bincount(leaves.ravel(), weight.ravel(), self._n_leaves)
            labels = self._labels(self._y[rows])
            for k, votes in enumerate(self._votes.T):
                votes += np.bincount(leaves.ravel(), (weight * labels[:, k, None]).ravel(), self._n_leaves)
        # 0 / tiny and not 0 / 0: all rows of a leaf may have weight 0, or be held back
        self._votes /= np.maximum(self._mass, np.finfo(float).tiny)[:, None]
        if is_forest(model):
            self._check_votes()

    def _check_votes(self) -> None:
        """ValueError unless the votes are what the forest predicts."""
        for rows, leaves in self._leaf_blocks(self._X):
            said = self._ensemble.said(part_of(self._X, np.arange(rows.start, rows.stop)))
            votes = self._votes[leaves].mean(axis=1)
            # relative to the largest prediction: numbers may have any unit
            wrong = np.abs(said - votes).max(axis=1) > 1e-5 * (1 + np.abs(said).max())
            if wrong.any():
                raise ValueError(
                    f"this {type(self._ensemble.model).__name__} does not predict the mean label of its leaves' rows "
                    f"(row {rows.start + int(wrong.argmax())}): give X, y and sample_weight as it was trained on, or "
                    "the model without FrozenEstimator, and without monotonic_cst and criterion='absolute_error'"
                )

    def _labels(self, targets: np.ndarray) -> np.ndarray:
        """(n, K) numbers, or 1 for the class of a row."""
        if self.task_ == "regression":
            return targets[:, None]
        return (targets[:, None] == np.arange(self._loss.n_outputs)).astype(float)

    def _leaf_blocks(self, X: Any) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields (rows, their leaves (b, trees))."""
        width = self._ensemble.leaves(part_of(X, np.arange(1))).size
        for rows in slices(count(X), max(64, ENTRIES // width)):
            leaves = self._ensemble.leaves(part_of(X, np.arange(rows.start, rows.stop)))
            yield rows, leaves.reshape(len(leaves), -1)

    # ---- values ----------------------------------------------------------------------------------------------------

    def _shares(self, rows: slice, leaves: np.ndarray) -> np.ndarray:
        """(b, trees) share of the rows in what their leaves say, so that the kernel is a sum over common leaves."""
        # k(query, i) = sum over common leaves of w_i / (weight of the leaf) / trees
        return self._drawn[rows] / np.maximum(self._mass[leaves], np.finfo(float).tiny) / leaves.shape[1]

    def _given(self) -> Iterator[tuple[slice, Entries]]:
        # a column by leaf and class; for numbers one for the vote and one for the label in it
        for rows, leaves in self._leaf_blocks(self._X):
            shares = self._shares(rows, leaves)
            if self.task_ == "classification":
                yield rows, (leaves * np.int64(self._loss.n_outputs) + self._y[rows, None], shares)
                continue
            columns = np.concatenate([leaves * np.int64(2), leaves * np.int64(2) + 1], axis=1)
            yield rows, (columns, np.concatenate([shares, shares * self._y[rows, None]], axis=1))

    def _entries(self, leaves: np.ndarray, outputs: np.ndarray, slopes: np.ndarray) -> Entries:
        """What rows with these outputs and slopes (b, K) take: slope (f - y_i), by the class of row i."""
        # slope (f - y_i) = slope f - slope y_i: all that depends on row i is its class, or its number
        along = (slopes * outputs).sum(axis=1, keepdims=True)
        classes = self.task_ == "classification"
        taken = along - slopes if classes else np.concatenate([along, -slopes], axis=1)
        columns = leaves[:, :, None] * np.int64(taken.shape[1]) + np.arange(taken.shape[1])
        values = np.broadcast_to(taken[:, None], columns.shape)
        return columns.reshape(len(leaves), -1), values.reshape(len(leaves), -1)

    def _taken(self, queries: GivenRows) -> Iterator[tuple[slice, Entries]]:
        measure = row_measure(self.objective, self._loss.likelihood)
        for rows, leaves in self._leaf_blocks(queries.X):
            outputs = self._votes[leaves].mean(axis=1)
            yield rows, self._entries(leaves, outputs, row_slopes(self._loss, measure, outputs, queries.y[rows]))

    def _self_scores(self) -> np.ndarray:
        scores = np.empty(len(self._data))
        for rows, leaves in self._leaf_blocks(self._X):
            outputs = self._votes[leaves].mean(axis=1)
            slopes = row_slopes(self._loss, None, outputs, self._y[rows])
            change = (slopes * (outputs - self._labels(self._y[rows]))).sum(axis=1)
            # a row shares all of its leaves with itself; minus, as self scores are low where suspicious
            scores[rows] = -self._shares(rows, leaves).sum(axis=1) * change
        return scores

    def _objective_columns(self, objective: Any, rows: GivenRows, metadata: dict) -> tuple[TreesAsked, np.ndarray]:
        leaves = np.concatenate([block for _, block in self._leaf_blocks(rows.X)])
        # row by row: votes of all rows at once would be rows x trees x classes
        outputs = np.concatenate([self._votes[part].mean(axis=1) for part in np.array_split(leaves, len(leaves))])
        asked = TreesAsked(objective, self._loss, rows.X, rows.y, outputs, metadata, self._encode())
        table = np.zeros((len(asked.names), self._n_columns))
        for total, each in zip(table, asked.parts, strict=True):
            if isinstance(each, ByRows):
                slopes = each.weights[:, None] * row_slopes(self._loss, each.measure, outputs, rows.y)
            else:
                slopes = each(outputs)
            columns, values = self._entries(leaves, outputs, slopes)
            total += np.bincount(columns.ravel(), values.ravel(), self._n_columns)
        return asked, table
