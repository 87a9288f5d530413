"""Many trainings of one estimator: side by side in one program where the net allows it, one after the other else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sktda.data import refuse_numbers_as_mask, sliceable
from sktda.model.fitting import check_trainable, train_clone
from sktda.model.given import GivenRows
from sktda.model.reading import count
from sktda.model.side_by_side import side_by_side, why_not
from sktda.workers import in_workers


def retrain(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    seeds: Sequence[int],
    rows: Any = None,
    same_order: bool = False,
    batched: bool | str = "auto",
    n_jobs: int | None = None,
) -> list[Any]:
    """Train an estimator once per seed, each on rows of its own: for ensembles and as truth for attributions.

    Small skorch nets are trained side by side in one program, their weights stacked; the result is that of training
    them one after the other, up to the rounding of the products. The estimator itself is not changed.

    Parameters
    ----------
    estimator : estimator
        It is cloned. A `random_state` that is None is seeded, and so is torch.
    X : array-like of shape (n_samples, ...), or a dict of arrays by argument name
    y : array-like of shape (n_samples,)
    seeds : sequence of int
        One per training.
    rows : None, array of bool of shape (n_trainings, n_samples), or sequence of arrays of positions, default=None
        What each training sees, in ascending order of position if a mask; None = all rows.
    same_order : bool, default=False
        Draw batches from all rows, and take the mean loss of those that a training sees: trainings of one seed then
        differ by these rows alone, and their difference is less noisy. A batch in which none counts is a step of
        momentum and weight decay. Only side by side.
    batched : {"auto"} or bool, default="auto"
        Whether to train nets side by side. "auto": where it is possible. True: ValueError where it is not.
    n_jobs : int or None, default=None
        Trainings at a time where they are not side by side.

    Returns
    -------
    estimators : list of fitted estimators
        In the order of the seeds. Nets that were trained side by side have their parameters and the mean training
        loss of every epoch in `history`, and the state of a new optimiser.

    Raises
    ------
    ValueError
        If training would hide rows (`train_split`), for rows that do not match, a training that diverges, and for
        `batched` or `same_order` where the trainings cannot run side by side.

    Notes
    -----
    Side by side: skorch's own classes with a module of torch that draws no random numbers (no dropout) and changes
    nothing but its parameters (no batch normalisation), one of torch's losses, an optimiser that treats every number
    by itself, no callbacks, and arrays. On one device and with one number of threads the result is the same each time.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skorch import NeuralNetClassifier
    >>> from sktda import retrain
    >>> X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    >>> y = (X[:, 0] > 0).astype(int)
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Linear, module__in_features=3, module__out_features=2, criterion=torch.nn.CrossEntropyLoss,
    ...     max_epochs=20, lr=0.5, train_split=None, verbose=0)
    >>> nets = retrain(net, X, y, seeds=range(5))
    >>> [round(float(net.score(X, y)), 1) for net in nets]
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    if batched not in (True, False, "auto"):
        raise ValueError(f"batched={batched!r} is not one of 'auto', True, False")
    seeds, X = list(map(int, seeds)), sliceable(X)
    if not seeds:
        return []
    if y is not None and count(X) != count(y):
        raise ValueError(f"X and y have inconsistent numbers of samples: {count(X)} and {count(y)}")
    parts = _parts(rows, len(seeds), count(X))
    for size in {count(X) if part is None else len(part) for part in parts}:
        check_trainable(estimator, size)
    reason = why_not(estimator, X, y)
    if (batched is True or same_order) and reason is not None:
        raise ValueError(f"these trainings cannot run side by side: {reason}")
    if batched and reason is None:
        return side_by_side(estimator, X, y, seeds, parts, same_order)
    if same_order:
        raise ValueError("same_order=True needs trainings side by side, and batched=False is given")
    tasks = ((estimator, X, y, seed, part) for seed, part in zip(seeds, parts, strict=True))
    return list(in_workers(_one, tasks, n_jobs))


def _one(estimator: Any, X: Any, y: Any, seed: int, part: np.ndarray | None) -> Any:
    rows = GivenRows(X, y)
    return train_clone(estimator, *(rows if part is None else rows.take(part)), random_state=seed)


def _parts(rows: Any, n_trainings: int, n: int) -> list[np.ndarray | None]:
    """Positions of each training; None = all rows."""
    if rows is None:
        return [None] * n_trainings
    if len(rows) != n_trainings:
        raise ValueError(f"rows are given for {len(rows)} trainings, and there are {n_trainings} seeds")
    parts: list[np.ndarray | None] = []
    for k, part in enumerate(np.asarray(each) for each in rows):
        if part.dtype == bool:
            if part.shape != (n,):
                raise ValueError(f"rows[{k}] is a mask of shape {part.shape}, and X has {n} rows")
            part = np.flatnonzero(part)
        if part.ndim != 1 or (part.size and part.dtype.kind not in "iu"):
            raise ValueError(f"rows[{k}] must be a mask or an array of positions, got {rows[k]!r}")
        refuse_numbers_as_mask(f"rows[{k}]", part, n)
        if not len(part) or part.min() < 0 or part.max() >= n:
            raise ValueError(f"rows[{k}] must be positions from 0 to {n - 1}, at least one")
        parts.append(part)
    return parts
