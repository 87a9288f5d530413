"""Distributional attribution: how a row moves the distribution over training runs (arXiv:2506.12965)."""

from __future__ import annotations

import mmap
import tempfile
import warnings
from collections.abc import Callable, Iterator
from math import prod
from numbers import Integral
from typing import Any

import numpy as np
from numpy.random import RandomState
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sktda.attribution.base import objectives_of
from sktda.attribution.gradients.base import TrainedScores
from sktda.attribution.gradients.influence import Influence
from sktda.attribution.gradients.objective_gradients import row_measure
from sktda.attribution.gradients.pairs import GradientAttributor
from sktda.attribution.progress import Progress
from sktda.attribution.several.over_models import OverModels, refuse_frozen
from sktda.data import refuse_numbers_as_mask, slices
from sktda.distributions import MEASURES, jackknife, resolve_measure
from sktda.model.given import GivenModel, GivenRows
from sktda.workers import in_workers

IN_MEMORY = 2**30  # bytes of values per member; more go to a file
BLOCK = 2**22  # numbers that a measure sees at a time


def _attributor_has(name: str):
    return lambda self: hasattr(self._attributor, name)


class Distributional(OverModels):
    """How the distribution of an objective over trainings moves when a row is removed.

    Training is random: its seed decides the start and the order of the batches. S members give the objective's values
    x_s, and the attributor, around every member by itself, its predicted shift d_s when the row is removed; y_s = x_s +
    d_s are the values without the row. A measure compares the two distributions.

    Parameters
    ----------
    attributor : attributor or None, default=None
        One that differentiates a model; it is cloned for every member. None = Influence().
    estimator : estimator or None, default=None
        What is trained, where the attributor's own `estimator` is None.
    members : {"seeds"} or list of fitted estimators, default="seeds"
        "seeds": the estimator trained `n_members` times, each from a seed of its own. A list is taken as it is; inside
        a cleaner, which clones the attributor, give ``FrozenEstimator(net)`` of each.
    n_members : int, default=10
        Trainings of "seeds". Where no run has to be recorded and the net allows it, they go side by side in one program
        (`sktda.retrain`).
    measure : {"mean", "variance", "wasserstein", "wasserstein_gaussian"} or callable, default="mean"
        "mean": mean of d, the attributor's value averaged; positive = the row helps. "variance": 2 Cov(x, d) + Var(d),
        the rise of the variance over members; positive = the row makes training more stable. "wasserstein": squared
        2-Wasserstein distance of the two samples; large = the row matters, for better or worse. "wasserstein_gaussian":
        the same of normal distributions with their means and deviations. A callable gets x (S, ...) and y (S, ...) and
        returns (...).
    n_jobs : int or None, default=None
        Runs scored at a time (and trained, where not side by side). Does not change the result.
    work_dir : path-like or None, default=None
        Folder for the values of all members where they take more than 1 GiB. None = the system's for temporary files.
    random_state : int, RandomState instance or None, default=None
        Seeds the members and what the attributor draws, in place of its own; also every `random_state` of the
        estimator. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        The measure for the objective; without validation rows minus the measure for a row's own loss, as the
        attributor's self-influence. "mean" and "variance": higher = keep, for the objective or for its stability. As
        the next four, not there where the attributor has no scores (objective=None).
    std_error_ : ndarray of shape (n_samples,)
        Of `scores_`, over the members: by the jackknife, of a mean the deviation over the root of S. NaN for two.
    member_scores_ : ndarray of shape (n_members, n_samples)
        d: the predicted rise of the objective by every member.
    member_values_ : ndarray of shape (n_members,), or (n_members, n_samples) without validation rows
        x: the objective of every member, or the rows' own losses.
    objectives_ : dict
        What was found for each objective of validation rows, as the attributor's: means over the members of value and
        scores, and the groups of a gap where all members agree on them.
    attributors_ : list of attributors
        One fitted clone per member, around ``FrozenEstimator(member)``.

    Raises
    ------
    TypeError
        In `fit`, for an attributor that differentiates no model.
    ValueError
        In `fit`, for a FrozenEstimator (give `members`), fewer than two members, an objective of validation rows
        without these; else as the attributor.

    Notes
    -----
    The shift of a set of rows is the sum of theirs: `groups` are measured as a whole, which is not the sum of the rows'
    measures, except for the mean. Variances and distances of few members are noisy; `wasserstein_floor` in
    `sktda.distributions` says what distance chance alone gives between two sets of members. Values of InnerProduct and
    TracIn are of first order without a curvature: their size, which "variance" and "wasserstein" depend on, is that of
    the sum of learning rates.
    Source: arXiv:2506.12965, whose mean influence is minus this one's.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skorch import NeuralNetClassifier
    >>> from sktda.attribution import Distributional, Influence
    >>> X = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    >>> y = (X[:, 0] > 0).astype(int)
    >>> y[4] = 1 - y[4]  # a wrong label
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Linear, module__in_features=3, module__out_features=2, criterion=torch.nn.CrossEntropyLoss,
    ...     max_epochs=30, lr=0.3, train_split=None, verbose=0)
    >>> nets = Distributional(Influence(net, curvature="exact", damping=1e-3), n_members=5, random_state=0).fit(X, y)
    >>> int(nets.scores_.argmin()), nets.member_scores_.shape
    (4, (5, 60))
    >>> nets.measured("variance").shape, nets.attribute(X[:2], y[:2], measure="wasserstein").shape
    ((60,), (2, 60))
    """

    _parameter_constraints: dict = {
        "n_members": [Interval(Integral, 2, None, closed="left")],
        "members": [StrOptions({"seeds"}), list, tuple],
        "measure": [StrOptions(set(MEASURES)), callable],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        attributor=None,
        estimator=None,
        *,
        members="seeds",
        n_members=10,
        measure="mean",
        n_jobs=None,
        work_dir=None,
        random_state=None,
    ):
        self.attributor = attributor
        self.estimator = estimator
        self.n_members = n_members
        self.members = members
        self.measure = measure
        self.n_jobs = n_jobs
        self.work_dir = work_dir
        self.random_state = random_state

    @property
    def _attributor(self) -> Any:
        return Influence() if self.attributor is None else self.attributor

    def _prepared(self, has_validation: bool) -> TrainedScores:
        given = None if isinstance(self.members, str) else self.members
        attributor = self._cloned(given, "members")
        if given is None:
            refuse_frozen(attributor.estimator, "members='seeds'", "members=[...]")
            self._refuse_cross_fitting(attributor, True, has_validation)
        return attributor

    def _models(
        self, attributor: TrainedScores, estimator: Any, rows: GivenRows, random: RandomState, progress: Progress
    ) -> list[Any]:
        if not isinstance(self.members, str):
            return list(self.members)
        return self._trainings(attributor, estimator, rows, random, self.n_members, progress)

    def _summarise(self, X: Any, y: Any) -> None:
        fitted = self.attributors_
        self._own_losses = not objectives_of(self)
        self.member_scores_ = self._empty(len(fitted), len(fitted[0].scores_))
        for s, each in enumerate(fitted):
            # self-influence is minus the rise
            self.member_scores_[s] = -each.scores_ if self._own_losses else each.scores_
        if self._own_losses:
            self.member_values_ = self._empty(*self.member_scores_.shape)
            for s, each in enumerate(fitted):
                self.member_values_[s] = losses_of(each, X, y)
        else:
            # x is the same weighted sum of objectives that scores_, and so d, are of
            shares = getattr(fitted[0].objective, "shares", [1.0])
            found = [[one.value for one in each.objectives_.values()] for each in fitted]
            self.member_values_ = np.array(found) @ shares
        if all(np.array_equal(values, self.member_values_[0]) for values in self.member_values_[1:]):
            warnings.warn(
                f"all {len(fitted)} members are the same model, so their distribution is a point. Nothing in the "
                f"training of {GivenModel.of(fitted[0].estimator_).name} may be random: a module that is given as "
                "an instance starts from its own weights, and batches are shuffled with iterator_train__shuffle=True",
                UserWarning,
                stacklevel=3,
            )
        self.scores_, self.std_error_ = self._measured(resolve_measure(self.measure), None, error=True)

    def measured(self, measure=None, groups=None):
        """Another measure of the objective, or that of groups of rows, from the same members.

        Parameters
        ----------
        measure : as the parameter of the class, default=None
            None = the class's own.
        groups : array of bool of shape (n_groups, n_samples), or sequence of arrays of positions, default=None
            Rows that are removed together. None = every row by itself.

        Returns
        -------
        values : ndarray of shape (n_samples,) or (n_groups,)
            With the sign of `scores_`.
        """
        check_is_fitted(self, "member_scores_")
        measure = resolve_measure(self.measure if measure is None else measure)
        return self._measured(measure, groups)[0]

    def _measured(self, measure: Callable, groups: Any, error: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """(values, their standard errors)."""
        # a row's own loss rises without it the more it had to be learnt by heart: low = suspicious needs a minus
        x, d, sign = self.member_values_, self.member_scores_, -1.0 if self._own_losses else 1.0
        if groups is not None:
            if self._own_losses:
                raise ValueError(
                    "groups have no loss of their own: fit with X_val and y_val, or use attribute(X_query, y_query, "
                    "groups=...)"
                )
            # to first order, shifts of rows that go together add up
            d = d @ membership(groups, d.shape[1])
        # one objective for all rows, or each row's own loss
        values, errors = measured(measure, x if x.ndim == 2 else x[:, None], d, error)
        return sign * values, errors

    @available_if(_attributor_has("attribute"))
    def attribute(self, X_query, y_query, *, measure=None, groups=None):
        """The measure of every query's loss, for every row or group of rows.

        Parameters
        ----------
        X_query : array-like of shape (n_query, ...)
        y_query : array-like of shape (n_query,)
        measure, groups
            As for `measured`.

        Returns
        -------
        values : ndarray of shape (n_query, n_samples) or (n_query, n_groups)
            Of the loss, or of what the attributor's objective measures of a row. "mean" is in its units, positive =
            helps that query; the others are in their squares.
        """
        measure = resolve_measure(self.measure if measure is None else measure)
        if measure is MEASURES["mean"]:  # all members need not be there at once
            check_is_fitted(self, "attributors_")
            total = np.zeros(())
            for _, d in self._asked(X_query, y_query, groups):
                total = total + d
            return total / len(self.attributors_)
        x, d = self.attribute_members(X_query, y_query, groups=groups)
        # (S, q, 1): before a removal a query has one loss, whichever row is to go
        return measured(measure, x[:, :, None], d)[0]

    @available_if(_attributor_has("attribute"))
    def attribute_members(self, X_query, y_query, *, groups=None):
        """What every member says of every query: the loss, and its predicted rise for every row or group of rows.

        Parameters
        ----------
        X_query : array-like of shape (n_query, ...)
        y_query : array-like of shape (n_query,)
        groups
            As for `measured`.

        Returns
        -------
        values : ndarray of shape (n_members, n_query)
        shifts : ndarray of shape (n_members, n_query, n_samples) or (n_members, n_query, n_groups)
            In a memory-mapped temporary file where they take more than 1 GiB.
        """
        check_is_fitted(self, "attributors_")
        values, shifts = [], None
        for s, (x, d) in enumerate(self._asked(X_query, y_query, groups)):
            if shifts is None:
                shifts = self._empty(len(self.attributors_), *d.shape)
            values.append(x)
            shifts[s] = d
        return np.stack(values), shifts

    def _asked(self, X_query: Any, y_query: Any, groups: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(losses (n_query,), shifts (n_query, n)) of one member after the other."""
        return in_workers(_ask, ((each, X_query, y_query, groups) for each in self.attributors_), self.n_jobs)

    def _empty(self, *shape: int) -> np.ndarray:
        """Room for numbers, in a file that vanishes with the array where they are many."""
        if 8 * prod(shape) <= IN_MEMORY:
            return np.empty(shape)
        with tempfile.TemporaryFile(dir=self.work_dir) as file:
            file.truncate(8 * prod(shape))
            # not np.memmap, which joblib would hand to other processes by a name that this file has not
            return np.frombuffer(mmap.mmap(file.fileno(), 0), dtype=np.float64).reshape(shape)


def _ask(each: GradientAttributor, X_query: Any, y_query: Any, groups: Any) -> tuple[np.ndarray, np.ndarray]:
    d = each.attribute(X_query, y_query)
    if groups is not None:
        # in the worker, so that (q, n_groups) comes back and not (q, n)
        d = d @ membership(groups, d.shape[1])
    return losses_of(each, X_query, y_query), d


def losses_of(each: TrainedScores, X: Any, y: Any) -> np.ndarray:
    """What the attributor's objective measures of every row (n,) at its trained model: the loss, where nothing else."""
    fitted = each._ready()
    measure = row_measure(each.objective, fitted.model.likelihood)  # type: ignore[attr-defined]
    # rows of weight 1, as `_other_rows` makes them: x is the loss itself
    return fitted.engine.losses(each._other_rows(fitted, X, y), measure).cpu().double().numpy()


def measured(
    measure: Callable, x: np.ndarray, d: np.ndarray, error: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """(the measure of x (S, ..., 1 or n) and x + d (S, ..., n), its jackknife error), some rows at a time."""
    shape = d.shape[1:]
    values, errors = np.empty(shape), np.empty(shape) if error else None
    # measures and the jackknife copy what they get, and d may be a file larger than the memory
    for part in slices(shape[-1], max(1, BLOCK // max(1, len(d) * prod(shape[:-1])))):
        before = np.broadcast_to(x[..., part] if x.shape[-1] > 1 else x, d[..., part].shape)
        after = before + d[..., part]
        found = np.asarray(measure(before, after))
        if found.shape != after.shape[1:]:
            raise ValueError(
                f"the measure returned shape {found.shape} for samples {after.shape}; expected is {after.shape[1:]}"
            )
        if bad := int((~np.isfinite(found)).sum()):
            raise ValueError(f"the measure returned {bad} of {found.size} values that are NaN or infinite; mend it")
        values[..., part] = found
        if errors is not None:
            errors[..., part] = jackknife(measure, before, after)
    return values, errors


def membership(groups: Any, n: int) -> np.ndarray:
    """(n, n_groups) of 0 and 1 from masks or lists of positions. Raises ValueError if they do not fit n rows."""
    if isinstance(groups, np.ndarray) and groups.dtype == bool:
        if groups.ndim != 2 or groups.shape[1] != n:
            raise ValueError(f"groups is a mask of shape {groups.shape}; expected is (n_groups, {n})")
        if not groups.any(axis=1).all():
            raise ValueError(f"groups[{int(groups.any(axis=1).argmin())}] has no row")
        return groups.T.astype(float)
    result = np.zeros((n, len(groups)))
    for g, rows in enumerate(groups):
        positions = np.asarray(rows)
        if positions.ndim != 1 or not (positions.dtype.kind in "iu" and len(positions)):
            raise ValueError(f"groups[{g}] must be positions of rows, at least one, got {rows!r}")
        refuse_numbers_as_mask(f"groups[{g}]", positions, n)
        # negative ones would count from the end in silence
        if positions.min() < 0 or positions.max() >= n:
            raise ValueError(f"groups[{g}] has positions outside 0 to {n - 1}")
        # set and not added: a row that is named twice can go but once
        result[positions, g] = 1
    return result
