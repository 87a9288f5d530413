"""LoGra: influence on compressed gradients that are kept, so that queries read them once (Choe et al. 2024)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from sktda.attribution.gradients.fitted import Fitted
from sktda.attribution.gradients.kept import (
    as_stored,
    earlier_store,
    identity,
    labelled,
    listed,
    settled_numbers,
    store_of,
    unread,
)
from sktda.attribution.gradients.objective_gradients import Asked
from sktda.attribution.gradients.pairs import GradientAttributor
from sktda.data import slices
from sktda.devices import exact, in_pairs
from sktda.engine.compressed_curvature import compressed_curvature, inverse_roots, principal_sides, random_sides
from sktda.engine.compression import Compression, compressed, recall_layers, taken_blocks
from sktda.engine.journal import Passes
from sktda.engine.per_row import PerRow
from sktda.engine.store import DTYPES, GradientStore, Stored
from sktda.model.base import Rows
from sktda.model.given import GivenModel, GivenRows
from sktda.model.sealed import digest
from sktda.room import check_held
from sktda.seeds import seed_of

QUERIES = 2_048  # that meet a shard at a time
KEPT = ("rank", "init", "dtype", "parameters", "precision")
"""Parameters that what is stored depends on, beside the seed."""


class LoGra(GradientAttributor):
    """Predicted rise of the objective when a row is removed, in loss units: (1/n) q' H^-1 g_i on compressed gradients.

    Every layer's gradients are projected to at most rank x rank numbers, without being formed; the numbers of all
    rows are kept, in memory or in the folder `work_dir`. Any number of queries then costs one pass over what is kept,
    and none through the model but for the queries themselves, also after a restart: see `load`. H is the Gauss-Newton
    matrix of the mean loss, block by block of parameters (mostly layers), within the subspaces that are kept.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net, a scikit-learn linear model or MLP, a Pipeline ending in one, or FrozenEstimator of a fitted one.
        None = a small net for tables or images.
    rank : int, default=16
        Numbers that the inputs of a layer, and the gradients at its outputs, are projected to. A row takes up to
        rank^2 numbers a layer. With a rank as large as the layers nothing is lost.
    init : {"pca", "random"}, default="pca"
        What they are projected on: "pca" = the eigenvectors of largest eigenvalues of their second moments; "random" =
        random subspaces, without the pass that finds the others.
    damping : float or "auto", default="auto"
        Added to H. "auto" = a tenth of each block's mean eigenvalue.
    dtype : {"float16", "float32"}, default="float16"
        Of the numbers that are kept. Each row has a scale of its own, so that float16 changes values by a few
        thousandths of the size of their terms.
    objective : {"auto", "self", "validation"}, objective, callable or None, default="auto"
        "auto" is "validation" where validation rows are given, else "self"; None prepares `attribute` only.
    parameters : str, list of str or None, default=None
        Names of the parameters that take part, as patterns: ``"classifier.*"``, ``["*.lora_*", "classifier.*"]``; the
        others count as fixed. None = all that were trained.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    batch_size : int or "auto", default="auto"
        Rows at a time; changes memory and speed, not the result. "auto" = what fits.
    precision : {"auto", "float32", "tf32", "bf16"}, default="auto"
        Of passes through the net. "auto" = as torch is set; "float32": never TF32; "tf32": products in TF32, on CUDA;
        "bf16": passes in bfloat16 by autocast, all sums, decompositions and solutions as with "tf32".
    work_dir : path-like or None, default=None
        Folder of the store, in which every model, set of rows and kind of compression has a folder of its own. It
        stays after `fit`; the same fit again reads it, and a fit that was killed goes on where it was. None = memory.
        Where validation rows are cross-fitted, the model of every fold has one, too.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone, random projections, and labels that are drawn from the model. None is 0, so
        that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep. Not there with objective=None.
    width_ : int
        Numbers that are kept of a row.
    folder_ : str or None
        Where the store is, None in memory.
    estimator_ : estimator
        The trained model.
    trajectory_ : Trajectory
        The recorded run of a net that had a recorder.
    task_ : str
        "classification" or "regression".

    Raises
    ------
    TypeError
        In `fit`, for an estimator that cannot be differentiated.
    ValueError
        In `fit`, for a train_split that hides rows, a trajectory of another model or other rows, a diverged training,
        a curvature that is singular without damping. In `attribute` and `top_k`, for a damaged shard.

    Notes
    -----
    Source: Choe et al. 2024 (arXiv:2405.13954). There the curvature is that of the given labels; here it is that of
    labels the model would draw, as for `Influence`. The penalty of the training is not in it. Linear maps, those of
    attention, convolutions and embeddings are taken without forming their gradients; of an embedding the vectors are
    projected, and the indices dealt out to `rank` places with random signs. Norms and other small parameters are kept
    as they are up to rank^2 numbers, and projected at random above.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktda.attribution import LoGra
    >>> X, y = load_iris(return_X_y=True)
    >>> y[0] = 2  # it is 0
    >>> logra = LoGra(LogisticRegression(max_iter=1000)).fit(X, y)
    >>> int(logra.scores_.argmin())
    0
    >>> rows, values = logra.top_k(X[1:3], y[1:3], k=5)
    >>> rows.shape
    (2, 5)
    """

    resumes_passes = False  # what takes long is kept in the store

    _parameter_constraints: dict = {
        **GradientAttributor._parameter_constraints,
        "rank": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"pca", "random"})],
        "damping": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "dtype": [StrOptions({"float16", "float32"})],
    }

    def __init__(
        self,
        estimator=None,
        *,
        rank=16,
        init="pca",
        damping="auto",
        dtype="float16",
        objective="auto",
        parameters=None,
        device="auto",
        batch_size="auto",
        precision="auto",
        work_dir=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.rank = rank
        self.init = init
        self.damping = damping
        self.dtype = dtype
        self.objective = objective
        self.parameters = parameters
        self.device = device
        self.batch_size = batch_size
        self.precision = precision
        self.work_dir = work_dir
        self.random_state = random_state

    @classmethod
    def load(cls, work_dir, estimator) -> LoGra:
        """The attributor of a store that a finished fit has left, without the training rows.

        Parameters
        ----------
        work_dir : path-like
            As it was given to the fit, or the folder of one store in it.
        estimator : estimator
            The model of that fit, trained.

        Returns
        -------
        attributor : LoGra
            Ready for `attribute` and `top_k`; it has no `scores_`.

        Raises
        ------
        ValueError
            For a folder without a finished store of this very model, or with several.
        """
        self = cls(estimator, work_dir=work_dir)
        given = GivenModel.of(estimator)
        self._store = store = store_of(Path(work_dir), given)
        store.check_complete()
        self.set_params(**store.about["params"])
        self.estimator_, self.task_ = estimator, store.about["task"]
        self.width_, self.folder_ = store.about["width"], str(store.folder)
        # no rows, of the shape that queries are checked against
        shape = store.about["row_shape"]
        self._data = GivenRows(None if shape is None else np.empty((0, *shape)), elsewhere=True)
        return self

    # ---- fitting ---------------------------------------------------------------------------------------------------

    def _prepare(self, fitted: Fitted) -> None:
        engine, rows = fitted.engine, fitted.rows
        self.__dict__.pop("_store", None)  # of an earlier fit, should this one be stopped
        store = self._begun(fitted)
        compression = Compression.restored(store.about, store.tensors, fitted.model)
        plain = rows.unweighted()  # a weight enters a value once, and a score by the own loss too
        store.fill(fitted.passes, partial(compressed, engine, plain, compression, None), rows.weight)
        self._store = store
        self.width_, self.folder_ = compression.width, None if store.folder is None else str(store.folder)

    def _begun(self, fitted: Fitted) -> GradientStore:
        """The store of this fit: that of an earlier one, or one with the curvature and no rows yet."""
        engine, rows, model = fitted.engine, fitted.rows, fitted.model
        seed = seed_of(self.random_state)
        params = {name: getattr(self, name) for name in KEPT}
        params |= {"rank": int(self.rank), "parameters": listed(self.parameters)}
        # of a generator, only what it drew is known
        params["random_state"] = int(self.random_state) if isinstance(self.random_state, Integral) else None
        about: dict[str, Any] = {"params": params, "task": self.task_, "seed": seed, "trained_on": fitted.n}
        folder = None
        if self.work_dir is not None:
            about |= identity(fitted.given, self._data, fitted.records)
            folder = Path(self.work_dir) / f"gradients-{digest([json.dumps(about)])}"
            if (earlier := earlier_store(folder, about)) is not None:
                return earlier
        fitted.passes.begin("curvature")
        blocks = taken_blocks(engine, rows)
        if self.init == "pca":
            sides = principal_sides(engine, rows, blocks, self.rank, seed)
        else:
            sides = random_sides(blocks, self.rank, seed)
        compression = Compression(blocks, self.rank, sides, seed, model)
        if folder is None:
            n_bytes = float(DTYPES[self.dtype].itemsize) * len(rows) * compression.width
            check_held(type(self).__name__, n_bytes, "with a work_dir they lie there")
        curvature = compressed_curvature(engine, rows, compression, seed)
        numbers = settled_numbers(model.likelihood)
        about |= compression.about(engine) | {"likelihood": type(model.likelihood).__name__}
        tensors = {**labelled("curvature/", curvature), **labelled("likelihood/", numbers), **compression.tensors}
        store = GradientStore(folder, about, tensors, len(rows))
        store.begin()
        return store

    def _elsewhere(self) -> Fitted | None:
        if not self._data.elsewhere:
            return None
        store, given = self._store, GivenModel.of(self.estimator_)
        model = self._differentiable(given, store.n)
        engine = PerRow(model, self.batch_size)
        recall_layers(engine, store.about["layers"])
        rows, n = Rows(store.n, unread), store.about["trained_on"]
        return Fitted(model, rows, engine, given, n, Passes(), given.record, settled=partial(as_stored, store))

    def _own_bytes(self, fitted: Fitted) -> int:
        return 3 * sum(value.nbytes for value in self._store.tensors.values())

    # ---- values ----------------------------------------------------------------------------------------------------

    def _compression(self, fitted: Fitted) -> Compression:
        return Compression.restored(self._store.about, self._store.tensors, fitted.model)

    def _roots(self) -> dict[str, Tensor]:
        """Of the inverse of the curvature, by block, at the present damping."""
        # the curvature is stored without a damping, which may be set anew after the fit
        store, damping, roots = self.__dict__.get("_rooted", (None, None, {}))
        if store is not self._store or damping != self.damping:
            added = None if self.damping == "auto" else self.damping
            roots = inverse_roots(self._store.named("curvature/"), added)
            self._rooted = self._store, self.damping, roots
        return roots

    def _solved(self, compression: Compression, queries: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """((q, width) H^-1 q / n in float32, (q,) what they are to be multiplied with), for the stored rows."""
        roots, queries = self._roots(), exact(queries)
        # H^-1 = R R' for each block
        parts = [
            queries[:, columns] @ roots[name].to(queries) @ roots[name].T.to(queries)
            for name, columns in compression.parts.items()
        ]
        # by powers of two, so that no solution leaves float32, in which it meets the rows
        stored = Stored.of(torch.cat(parts, dim=1) / n, None, torch.float32)
        return stored.values.to(compression.device), stored.scale

    def _pairs(self, solved: tuple[Tensor, Tensor], rows: slice) -> Tensor:
        """(q, m) values of the stored rows."""
        (values, scale), stored = solved, self._store.block(rows)
        dots = values @ stored.values.to(values.device).float().T
        return (dots.cpu() * stored.factor).mul_(scale[:, None])  # in float64: the scales may be of any size

    def _validation_scores(self, fitted: Fitted, asked: Asked) -> Tensor:
        compression = self._compression(fitted)
        solved = self._solved(compression, compression.directions(asked.gradients()), fitted.n)
        return torch.cat([self._pairs(solved, rows) for rows in slices(self._store.n, self._store.shard)], dim=1)

    def _self_scores(self, fitted: Fitted) -> Tensor:
        compression = self._compression(fitted)
        roots, scores = self._roots(), []
        for rows in slices(self._store.n, self._store.shard):
            stored = self._store.block(rows)
            values = stored.values.to(fitted.model.device).float()
            total = torch.zeros(len(values), dtype=torch.float64)
            for name, columns in compression.parts.items():
                largest = float(roots[name].abs().max()) or 1.0  # of any size: float32 has the rest
                # g_i' H^-1 g_i = |R' g_i|^2
                own = (values[:, columns] @ (roots[name] / largest).to(values)).square().sum(1)
                total += largest**2 * own.cpu().double()
            # the scale twice, for either gradient, and the weight of the row once
            scores.append(-total * stored.scale * stored.factor)
        return torch.cat(scores) / fitted.n

    def _blocks(self, fitted: Fitted, queries: Rows, measure: Callable | None) -> Iterator[tuple[slice, slice, Tensor]]:
        engine = fitted.engine
        compression = self._compression(fitted)

        def prepare(asked: slice) -> tuple[Tensor, Tensor]:
            found = compressed(engine, queries, compression, measure, asked.start, asked.stop)
            return self._solved(compression, found, fitted.n)

        yield from in_pairs((len(queries), QUERIES), prepare, (self._store.n, self._store.shard), self._pairs)
