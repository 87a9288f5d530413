"""TRAK: attribution by a kernel machine on randomly projected gradients (Park et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from numbers import Integral, Real

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from sktda.attribution.base import check_fits
from sktda.attribution.gradients.fitted import Fitted
from sktda.attribution.gradients.objective_gradients import Asked
from sktda.attribution.gradients.pairs import GradientAttributor
from sktda.data import slices
from sktda.devices import in_blocks, in_pairs
from sktda.engine.pairwise import by_layer
from sktda.engine.projection import Projection, projected, projection_of
from sktda.model.base import Rows
from sktda.model.likelihood import Binary, Gaussian, Likelihood
from sktda.model.softmax import Categorical
from sktda.seeds import seed_of

RIDGE = 0.1  # times the mean eigenvalue, where the features could tell all rows apart
NULL = 1e-10  # eigenvalues below this share of the largest are rounding
SHARD = 4_096  # rows whose features are in float64, or meet the queries, at a time

Measure = Callable[[Tensor, Tensor], Tensor]


class TRAK(GradientAttributor):
    """Predicted rise of the objective when a row is removed, in loss units of a linear model on projected gradients.

    The model is replaced by its linearisation, whose features phi_i are the gradients of its output (log p - log(1 - p)
    of the given class, or the number predicted) through a random matrix to `proj_dim` numbers. With s_i the slope of
    row i's loss in its output, p - 1 for classes, value_i = s_q s_i phi_q' (Phi' Phi + ridge)^-1 phi_i. One model is
    noisy: average several, ``ModelEnsemble(TRAK(net), members="seeds")``.

    Parameters
    ----------
    estimator : estimator or None, default=None
        A skorch net, a scikit-learn linear model or MLP, a Pipeline ending in one, or FrozenEstimator of a fitted one.
        None = a small net for tables or images.
    proj_dim : int, default=2048
        Numbers that a gradient is projected to. A model of no more parameters is not projected. Best well below the
        number of rows; more is closer to the model's own kernel, where there are rows enough to estimate it.
    ridge : float or "auto", default="auto"
        Added to the eigenvalues of Phi' Phi, in units of their mean. "auto" = 0, as published, where there are more
        rows than numbers per row, else 0.1: without it every row would then explain itself alone.
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
        "bf16": passes in bfloat16 by autocast, all sums, decompositions and solutions as with "tf32". Spearman
        correlation of "bf16" with "float32", measured on a processor for small nets, at the least
        0.999 by own loss, 0.95 by validation loss, pairs 0.95.
    work_dir : path-like or None, default=None
        Folder in which finished shards of a long `fit` are kept until it ends: a fit that was killed and is started
        again (with the same rows, the same trained model and an int as `random_state`) goes on where it was.
        None = off.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the clone and draws the projection. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Higher = keep. Not there with objective=None.
    features_ : ndarray of shape (n_samples, n_kept)
        Gradients of the rows' losses, projected and whitened: values are dot products of these. n_kept is the rank of
        the kernel, at most `proj_dim`.
    ridge_ : float
        What was added to the eigenvalues of Phi' Phi.
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
        In `fit`, for a train_split that hides rows, a trajectory of another model or other rows, a diverged training.

    Notes
    -----
    Source: Park et al. 2023 (arXiv:2303.14186), section 3, for one model: the predicted fall of the margin,
    (1 - p_i) phi_q' (Phi' Phi)^-1 phi_i, times the slope 1 - p_q of the query's loss. As published, the kernel has no
    weights p (1 - p), so that values are smaller than the effect of a removal by about their mean, which is at most
    1/4; for squared errors the scale is exact. ``objective=Margin()`` leaves out the slope of the query, and gives the
    published scores.

    Where a row has several outputs, or a loss that is no function of its margin (label smoothing, criteria of one's
    own), the output is the loss itself, with slope 1. The projection is a sparse Johnson-Lindenstrauss transform,
    see `sktda.engine.projection`: the matrix of parameters x `proj_dim` is never there. Memory is that of the features,
    n_samples x proj_dim. Directions in which no training row has a gradient are left out.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktda.attribution.gradients.trak import TRAK
    >>> X, y = load_iris(return_X_y=True)
    >>> y[0] = 2  # it is 0
    >>> trak = TRAK(LogisticRegression(max_iter=1000)).fit(X, y)
    >>> int(trak.scores_.argmin())
    0
    >>> trak.attribute(X[1:3], y[1:3]).shape
    (2, 150)
    """

    _parameter_constraints: dict = {
        **GradientAttributor._parameter_constraints,
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
        "ridge": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        estimator=None,
        *,
        proj_dim=2048,
        ridge="auto",
        objective="auto",
        parameters=None,
        device="auto",
        batch_size="auto",
        precision="auto",
        work_dir=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.proj_dim = proj_dim
        self.ridge = ridge
        self.objective = objective
        self.parameters = parameters
        self.device = device
        self.batch_size = batch_size
        self.precision = precision
        self.work_dir = work_dir
        self.random_state = random_state

    def _prepare(self, fitted: Fitted) -> None:
        self._seed = seed_of(self.random_state)
        engine, rows = fitted.engine, fitted.rows
        plain = rows.unweighted()  # features are of outputs; weights enter K, and each value once
        projection = self._projection(fitted)
        output, slope, curvature = output_of(fitted)
        # projected, and these whitened
        check_fits(self, 2.0 * engine.model.dtype.itemsize * len(rows) * projection.width)
        compute = partial(projected, engine, plain, projection, output)
        features = fitted.passes.collect(f"features {self._seed}", len(rows), compute)
        # K is of all n rows that were trained on, also where only some of them are given
        weights = engine.losses(rows, curvature).cpu().double() * fitted.n / len(rows)
        root, self.ridge_ = whitening(features, weights, self.ridge)
        self._root = root.numpy()
        slopes = engine.losses(plain, slope).cpu()
        self.features_ = (slopes[:, None] * (features @ root.to(features))).numpy()

    def _projection(self, fitted: Fitted) -> Projection:
        return projection_of(fitted.engine, fitted.rows, self.proj_dim, self._seed)

    def _own_bytes(self, fitted: Fitted) -> int:
        width = self._root.shape[0]  # features before and after, of which the fit that measures has a few rows only
        return self._root.nbytes + 2 * 8 * width * min(width, len(fitted.rows))

    def _weighted(self, fitted: Fitted, shard: slice) -> Tensor:
        """Whitened loss gradients of some training rows, times their weights, on the model's device."""
        found = torch.from_numpy(self.features_[shard]).to(fitted.model.device)
        weight = fitted.rows.weight
        return found if weight is None else found * weight[shard].to(found)[:, None]

    def _whitened(self, queries: Tensor) -> Tensor:
        """Projected query gradients (q, width), ready for `_weighted` rows."""
        return queries @ torch.from_numpy(self._root).to(queries)

    def _validation_scores(self, fitted: Fitted, asked: Asked) -> Tensor:
        projection = self._projection(fitted)
        queries = self._whitened(projection.directions(by_layer(fitted.engine, asked.gradients())))
        found = in_blocks(len(fitted.rows), SHARD, lambda shard: queries @ self._weighted(fitted, shard).T)
        return torch.cat([block for _, block in found], dim=1)

    def _self_scores(self, fitted: Fitted) -> Tensor:
        def values(shard: slice) -> Tensor:
            own = torch.from_numpy(self.features_[shard]).to(fitted.model.device)
            # minus: low = suspicious, as of every self-influence here
            return -(self._weighted(fitted, shard) * own).sum(1)

        return torch.cat([found for _, found in in_blocks(len(fitted.rows), SHARD, values)])

    def _blocks(self, fitted: Fitted, queries: Rows, measure: Measure | None) -> Iterator[tuple[slice, slice, Tensor]]:
        engine, projection = fitted.engine, self._projection(fitted)

        def prepare(asked: slice) -> Tensor:
            return self._whitened(projected(engine, queries, projection, measure, asked.start, asked.stop))

        def values(asked: Tensor, shard: slice) -> Tensor:
            return asked @ self._weighted(fitted, shard).T

        engine.prepare(queries)
        yield from in_pairs((len(queries), engine.batch_size or 1), prepare, (len(fitted.rows), SHARD), values)


def output_of(fitted: Fitted) -> tuple[Measure, Measure, Measure]:
    """(output f, slope, curvature), each (outputs, targets) -> (n,), of the loss as a function of one number f.

    Curvature: that of squared errors; for classes the weight of the row's class, without the published method's p (1 -
    p). Losses that are no function of one number are themselves f, with slope and curvature 1.
    """
    likelihood = fitted.model.likelihood
    first = fitted.engine.outputs(fitted.rows.block(slice(0, 1), fitted.model.device)[0])
    single = first.numel() == 1
    if isinstance(likelihood, Gaussian) and single:
        scale = 2 * likelihood.scale
        return (
            lambda outputs, targets: outputs.reshape(len(outputs)),
            lambda outputs, targets: scale * (outputs - targets).reshape(len(outputs)),
            lambda outputs, targets: outputs.new_full((len(outputs),), scale),
        )
    if (isinstance(likelihood, Binary) and single) or (
        isinstance(likelihood, Categorical) and not likelihood.label_smoothing
    ):
        weight = partial(class_weights, likelihood)

        def slope(outputs: Tensor, targets: Tensor) -> Tensor:
            # -log p = log(1 + exp(-f)), whose slope in f is -sigmoid(-f) = p - 1
            return -weight(outputs, targets) * torch.sigmoid(-likelihood.margins(outputs, targets))

        return likelihood.margins, slope, weight

    def ones(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.new_ones(len(outputs))

    return likelihood.losses, ones, ones


def class_weights(likelihood: Likelihood, outputs: Tensor, targets: Tensor) -> Tensor:
    """What the losses (n,) of rows of these classes are multiplied by."""
    weights = outputs.new_ones(len(outputs))
    if isinstance(likelihood, Binary):
        positive = torch.as_tensor(likelihood.pos_weight).to(outputs).reshape(-1)
        # pos_weight multiplies the loss of targets 1 and leaves that of targets 0
        weights = 1 + (positive - 1) * targets.to(outputs).reshape(len(outputs))
    elif isinstance(likelihood, Categorical) and likelihood.class_weight is not None:
        weights = likelihood.class_weight.to(outputs)[targets]
    return weights


def whitening(features: Tensor, weights: Tensor, ridge: float | str) -> tuple[Tensor, float]:
    """((k, r) float64 root R with R R' = (K + ridge)^-1 on the range of K, what was added), K = Phi' diag(w) Phi.

    features (n, k), weights (n,); ridge in units of trace(K) / min(n, k), "auto" = RIDGE where k >= n, else 0.
    O(min(n, k)^2 max(n, k)) time.
    """
    n, k = features.shape
    if n < k:  # by the Gram matrix of the rows
        scaled = features.double() * weights.sqrt()[:, None]
        values, vectors = torch.linalg.eigh(scaled @ scaled.T)  # (n, n): the same eigenvalues but for zeros
    else:
        kernel = torch.zeros(k, k, dtype=torch.float64, device=features.device)
        for shard in slices(n, SHARD):
            part = features[shard].double()
            kernel += part.T @ (weights[shard, None] * part)
        values, vectors = torch.linalg.eigh(kernel)
    kept = values > NULL * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    # eigenvectors of K, from those of the Gram
    basis = scaled.T @ (vectors / values.sqrt()) if n < k else vectors
    share = float(ridge) if ridge != "auto" else RIDGE if k >= n else 0.0
    added = share * float(values.sum()) / min(n, k)  # the mean over as many as K can have above 0
    return basis / (values + added).sqrt(), added
