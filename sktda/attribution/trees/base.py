"""What the methods share that read trees: rows that meet in a leaf, scores, and values of single queries.

A concrete method says what a training row gives to the leaves that it is in (`_given`), and what a query takes from
those that it is in (`_taken`); the value of a pair is the sum over their common leaves of one times the other. So all
pairs are a product of two sparse matrices, rows x leaves and leaves x queries, and a sum over queries comes before it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import is_classifier, is_regressor
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from sktda.attribution.base import Attributor, Needs, check_rows_fit, check_validation
from sktda.attribution.gradients.cross_fit import cross_fitted
from sktda.attribution.gradients.fitted import NotFinite, refuse_nan
from sktda.attribution.gradients.objective_gradients import checked_metadata, resolve_objective
from sktda.attribution.progress import Progress
from sktda.data import check_weights, encode_target, is_dictionary, note_columns, plain_target, sliceable, slices
from sktda.model.fitting import train_clone
from sktda.model.given import GivenModel, GivenRows
from sktda.model.huge import check_forest_target, check_squares, naming_huge_cells
from sktda.model.reading import count
from sktda.model.standard import NearOne

TABLE_BYTES = 128 * 2**20  # of what the queries of a portion take from all leaves
PORTION = 1_024  # queries at a time where a dense table would be too large
QUERIES = 64  # whose columns are multiplied at a time: the part of the table in use stays in a processor's cache

Entries = tuple[np.ndarray, np.ndarray]
"""(columns (b, s), values (b, s)): s entries of every row of a sparse matrix."""


class LeafScores(CallbackSupportMixin, Attributor):
    """Base of the methods that train an ensemble of trees, or are given it, and score the rows by its leaves."""

    needs = Needs(validation=True)
    objective: Any

    _parameter_constraints: dict = {"random_state": ["random_state"]}

    @with_callbacks
    @naming_huge_cells
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        """Train the ensemble (unless it is frozen) and score the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As the estimator takes it: also with text or missing cells where it reads them.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            Of the rows in training, and so in the scores.
        X_val, y_val : array-like, default=None
            Validation rows, as X and y.
        metadata_val : dict of array-like, default=None
            Metadata of the validation rows for the objective.

        Returns
        -------
        self
        """
        self._validate_params()
        check_validation(X_val, y_val, metadata_val)
        objective = resolve_objective(self.objective, X_val is not None)
        fixed = GivenModel.of(self.estimator).fixed
        if X_val is not None or not fixed:
            checked_metadata(objective, X_val, metadata_val)  # before the training
        self._forget()
        estimator, X, y = self._checked(X, y, sample_weight)
        check_rows_fit(self, X, 1)  # in which a boosted model bins its rows
        if self.estimator is None and sample_weight is not None:  # of its settings, only ratios are to matter
            weights = check_weights(sample_weight, len(y))
            sample_weight = weights / weights.mean()
        self._data = GivenRows(X, y, sample_weight)
        progress = Progress(self, X, y)
        if fixed:
            self.estimator_ = estimator
        else:
            progress.begin("train")
            self.estimator_ = train_clone(estimator, X, y, sample_weight, random_state=self.random_state)
        progress.begin("read")
        self._read(GivenModel.of(self.estimator_))
        if objective == "self":
            progress.begin("score")
            self.scores_ = self._self_scores()
        elif objective is not None and X_val is not None:
            progress.begin("score")
            self.scores_ = self._validation_scores(objective, X_val, y_val, metadata_val)
        elif objective is not None and not fixed:
            progress.begin("cross-fit")
            scores, self.objectives_ = cross_fitted(self, self._data, self.task_)
            self.scores_ = scores.numpy()
        if hasattr(self, "scores_"):
            refuse_nan(self.scores_[None])
        progress.end()
        return self

    def attribute(self, X_query, y_query):
        """Predicted rise of each query's loss when one training row is removed.

        Parameters
        ----------
        X_query : array-like of shape (n_query, ...)
        y_query : array-like of shape (n_query,)

        Returns
        -------
        values : ndarray of shape (n_query, n_samples)
            In units of the loss (of the objective's `per_row` where it has one); positive = the row helps that query.
        """
        queries = self._queries(X_query, y_query)
        # one row of memory per training row, as the blocks come
        values = np.empty((len(self._data), count(queries.X)))
        for asked, rows, block in self._blocks(queries):
            values[rows, asked] = block
        refuse_nan(values.T)
        return values.T

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
        queries = self._queries(X_query, y_query)
        if not 1 <= k <= len(self._data):
            raise ValueError(f"k={k} is not between 1 and the number of training rows, {len(self._data)}")
        sign = -1.0 if harmful else 1.0
        best = np.full((count(queries.X), k), -np.inf)
        found, wrong = np.full(best.shape, -1), NotFinite(len(best), len(self._data))
        for asked, rows, block in self._blocks(queries):
            wrong.count(asked, rows, ~np.isfinite(block.T))
            values = np.concatenate([best[asked], sign * block.T], axis=1)  # the k best so far against the new ones
            numbers = np.broadcast_to(np.arange(rows.start, rows.stop), block.T.shape)
            positions = np.concatenate([found[asked], numbers], axis=1)
            chosen = np.argpartition(-values, k - 1, axis=1)[:, :k]
            best[asked] = np.take_along_axis(values, chosen, axis=1)
            found[asked] = np.take_along_axis(positions, chosen, axis=1)
        wrong.refuse()
        order = np.argsort(-best, axis=1, kind="stable")
        return np.take_along_axis(found, order, axis=1), sign * np.take_along_axis(best, order, axis=1)

    # ---- the method's own ------------------------------------------------------------------------------------------

    @abstractmethod
    def _default(self, classes: bool, sparse: bool) -> Any:
        """The estimator where none is given."""

    @abstractmethod
    def _check_model(self, model: Any) -> None:
        """TypeError for a model that the method cannot read."""

    @abstractmethod
    def _read(self, given: GivenModel) -> None:
        """Look into the trained model and the rows it was trained on; sets `_n_columns`, task_ and classes_."""

    @abstractmethod
    def _given(self) -> Iterator[tuple[slice, Entries]]:
        """Yields (training rows, what they give to the columns)."""

    @abstractmethod
    def _taken(self, queries: GivenRows) -> Iterator[tuple[slice, Entries]]:
        """Yields (queries, what they take from the columns), for the loss or the objective's `per_row`."""

    @abstractmethod
    def _self_scores(self) -> np.ndarray:
        """(n,) minus the value of each row for itself."""

    @abstractmethod
    def _objective_columns(self, objective: Any, rows: GivenRows, metadata: dict) -> tuple[Any, np.ndarray]:
        """(what is asked, (k, columns) what its k objectives take from the columns)."""

    # ---- steps -----------------------------------------------------------------------------------------------------

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """(estimator to train or use, X, y) after the checks that come before training."""
        if self.estimator is None:
            X, task, target, classes = self._validate(X, y, sample_weight)
            X = X if sp.issparse(X) else X.reshape(len(X), -1)
            if classes is None:
                check_squares(target)
            model = self._default(task == "classification", sp.issparse(X))
            check_forest_target(model, target)
            return make_pipeline(NearOne(), model), X, target if classes is None else np.asarray(y)
        given = GivenModel.of(self.estimator)
        self._check_model(given.model)
        if given.frozen:
            check_is_fitted(given.model)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        if is_dictionary(X):
            raise ValueError(
                f"{type(self).__name__} reads the columns of one table, and X is a dictionary "
                f"({', '.join(map(str, X))}); give a table, or Influence with a net"
            )
        X, y = sliceable(X), plain_target(y)
        check_consistent_length(X, y)
        _, target, classes = encode_target(y, "regression" if is_regressor(given.model) else "classification")
        if classes is None:
            check_squares(target)
            check_forest_target(given.model, target)
        if sample_weight is not None:
            check_weights(sample_weight, count(X))
        note_columns(self, X, self.estimator)
        return self.estimator, X, y

    def _features(self, X: Any) -> Any:
        """Queries or validation rows as the estimator takes them."""
        if self.estimator is None:
            X = np.asarray(X) if not hasattr(X, "shape") else X
            return X if sp.issparse(X) or np.ndim(X) == 2 else np.asarray(X).reshape(len(X), -1)
        X = sliceable(X)
        if hasattr(X, "shape"):
            note_columns(self, X, self.estimator, reset=False)
        return X

    def _targets(self, y: Any) -> np.ndarray:
        """Numbers, or codes of the classes of the model; ValueError for a label that it does not know."""
        y = np.asarray(plain_target(y))
        y = y.reshape(len(y))
        if self.task_ == "regression":
            return encode_target(y, "regression")[1]
        known = {label: code for code, label in enumerate(self.classes_.tolist())}
        unknown = [label for label in y.tolist() if label not in known]
        if unknown:
            raise ValueError(
                f"y has labels that the {GivenModel.of(self.estimator_).name} was not trained on, such as "
                f"{unknown[0]!r}; it knows {', '.join(map(repr, list(known)[:5]))}"
            )
        return np.array([known[label] for label in y.tolist()], dtype=np.int64)

    def _note_task(self, model: Any, classes: Any) -> None:
        self.task_ = "classification" if is_classifier(model) else "regression"
        if classes is not None:
            self.classes_ = np.asarray(classes)

    def _encode(self) -> Any:
        """The user's labels as codes, for objectives; None of numbers."""
        if self.task_ == "regression":
            return None
        return lambda labels: torch.from_numpy(self._targets(labels))

    def _training_weights(self) -> np.ndarray:
        n, given = len(self._data), self._data.sample_weight
        return np.ones(n) if given is None else check_weights(given, n)

    def _queries(self, X: Any, y: Any) -> GivenRows:
        """Queries as the model takes them, with their targets."""
        check_is_fitted(self, "estimator_")
        X = self._features(X)
        if not count(X):
            raise ValueError("there are no queries: X_query has no rows")
        check_consistent_length(X, y)
        return GivenRows(GivenModel.of(self.estimator_).transformed(X), self._targets(y))

    def _validation_scores(self, objective: Any, X_val: Any, y_val: Any, metadata: Any) -> np.ndarray:
        rows = self._queries(X_val, y_val)
        asked, table = self._objective_columns(objective, rows, checked_metadata(objective, X_val, metadata))
        each = np.zeros((len(table), len(self._data)))
        for part, (columns, values) in self._given():
            for scores, taken in zip(each, table, strict=True):
                # row i: sum over its leaves of what it gives times what all queries together take there
                scores[part] = (taken[columns] * values).sum(axis=1)
        self.objectives_ = asked.found(each)
        # derivatives are linear, so the weighted sum of objectives has the weighted sum of scores
        return np.asarray(asked.shares) @ each

    def _blocks(self, queries: GivenRows) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Yields (queries, training rows, values (rows, queries)) until all pairs are covered."""
        # of few columns a dense table is faster; of many, as of deep forests, it would be empty nearly everywhere
        dense = 8 * QUERIES * self._n_columns <= TABLE_BYTES
        portion = TABLE_BYTES // (8 * self._n_columns) if dense else PORTION
        for asked in slices(count(queries.X), portion):
            tables: list[tuple[slice, Any]] = []
            for some, (columns, values) in self._taken(queries.take(np.arange(asked.start, asked.stop))):
                for chosen in slices(some.stop - some.start, QUERIES):
                    start = asked.start + some.start + chosen.start
                    taken = self._matrix(columns[chosen], values[chosen])
                    # (columns, queries): a training row then reads the few lines of its leaves, each in one piece
                    table = np.ascontiguousarray(taken.toarray().T) if dense else taken.T.tocsr()
                    tables.append((slice(start, start + taken.shape[0]), table))
            for rows, (columns, values) in self._given():
                matrix = self._matrix(columns, values)
                for some, table in tables:
                    product = matrix @ table
                    yield some, rows, product if dense else product.toarray()

    def _matrix(self, columns: np.ndarray, values: np.ndarray) -> sp.csr_array:
        """(b, all columns) of the entries of b rows."""
        ends = np.arange(len(columns) + 1) * columns.shape[1]
        return sp.csr_array((values.ravel(), columns.ravel(), ends), shape=(len(columns), self._n_columns))
