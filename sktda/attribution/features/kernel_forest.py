"""Out-of-sample class probabilities of an arc-cosine kernel and of one bagged forest, mixed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.parallel import Parallel, delayed

from sktda.attribution.base import Attributor, Needs
from sktda.data import n_columns, row_block, slices
from sktda.model.standard import power_of_two
from sktda.noise import as_probabilities, log_margin
from sktda.room import CELLS, parts, room, row_by_row
from sktda.seeds import random_of

NARROW = 256  # columns up to which the forest is grown; beyond, it would cost more than the kernel
LARGEST = 2**27  # values that the forest may hold in memory, half a GiB
EXACT_ROWS, LANDMARKS = 2_000, 1_000  # of the kernel beside a forest, which sees what landmarks blur: it costs as much
KERNEL_ROWS = 100_000  # beyond, fewer landmarks: n m^2 operations are as many as here
TREE_ROWS = 50_000  # different ones, that a tree is grown from where a bag would hold more
MANY_ROWS = 20_000  # beyond, the weights of kernel and forest can be told by their likelihood
BATCH, BLOCK = 10, 50_000  # trees in memory, and rows that they predict at a time, where rows are many
WEIGHT_STEPS = 50
LEAF = 3  # rows: leaves of one would hand its wrong label on to the neighbours
DRAWN = 1 - 1 / math.e  # share of the rows that are in a bag of as many
Grown = tuple[Any, np.ndarray]  # a tree, and the positions of its rows
ALONE = 0.6  # over the number of classes: the least probability of a kernel that no forest holds back
SPREAD_ROWS = 200_000  # drawn, that tell the median and the spread of columns
FAR = 100.0  # spreads from the median, from where on values count as equal
SAMPLE, SAMPLE_TREES, CLEARLY = 500, 20, 3.0  # rows and trees that decide about wide data, standard errors to win by


class KernelForest(Attributor):
    """Log margin of the given label, in nats, by a kernel and a forest that predict each row without its label.

    Half of each probability comes from the kernel of `ComplexityGap`, which leaves rows out in closed form, half from
    the out-of-bag trees of one forest, in which every other tree is extremely randomised and the others look for the
    best thresholds. Smooth classes and classes cut out by single columns are then both seen, for one fit each and
    without cross-validation. Beside the forest the kernel is exact up to 2,000 rows and has 1,000 landmarks above.

    Of many rows the work is bounded. Above 20,000 rows the weights of kernel and forest are those under which the
    given labels are likeliest: one of the two may then be left with all of it. Above 79,000 rows each tree is grown
    from 50,000 of them, and there are as many trees as leave each row the same number of predictions, from 200 down to
    74. Above 100,000 rows the kernel has 1,000 landmarks times the root of 100,000 / n. What is large and has a line
    per row lies in temporary files that are mapped.

    Parameters
    ----------
    n_estimators : int, default=200
        Trees of the forest. Each row is predicted by about a third of them.
    task : {"auto", "classification"}, default="auto"
        "classification" takes whole numbers as classes however many they are.
    device : str or torch.device, default="auto"
        Of the kernel; "auto" is CUDA where there is one.
    n_jobs : int or None, default=None
        Trees grown at a time; None is one, or, above 79,000 rows, as many as PyTorch has threads. Does not change the
        result.
    random_state : int, RandomState instance or None, default=None
        Seeds the forest and the kernel's landmarks. None is 0, so that a fit can be repeated.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        log p(given label) - log p(best other class), higher = keep; below 0 another class is more probable. No p counts
        as less than 0.1 / n_classes.
    loo_decision_ : ndarray of shape (n_samples, n_classes)
        The probabilities, in the order of `classes_`. Those of the kernel are at least 0.1 / n_classes, or 0.6 /
        n_classes where it predicts alone: its decisions are no probabilities, and below that only scatter.
    forest_weight_ : float
        That of the forest in them, in [0, 1]: one half up to 20,000 rows; 0 where the kernel predicts alone.
    uses_forest_ : bool
        Whether the forest took part: for up to 256 columns always, for wider data where a small one of 500 rows
        predicts these clearly better than the kernel of all rows does. Elsewhere the kernel predicts alone.
    kernel_ : ComplexityGap
        The fitted kernel.
    scale_ : {"standard", "unit"}
        The representation that the kernel took, see `ComplexityGap`.
    classes_ : ndarray of shape (n_classes,)
    task_ : str
        "classification".

    Raises
    ------
    ValueError
        In `fit`, for a regression target (use `RobustResidual`), a single class, NaN or infinity.

    Notes
    -----
    Out-of-bag predictions: Breiman 1996; the trees: Breiman 2001, Geurts, Ernst and Wehenkel 2006. Weights are accepted
    and do not enter. benchmarks/tables_battery.py measures what kernel and forest find together; on its tables of up to
    3,000 rows, weighing them by their log loss was not better than halves.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sktda.attribution import KernelForest
    >>> X, y = load_wine(return_X_y=True)
    >>> y[:3] = 2  # they are 0
    >>> forest = KernelForest().fit(X, y)
    >>> sorted(forest.scores_.argsort()[:3].tolist())
    [0, 1, 2]
    """

    _parameter_constraints: dict = {
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "task": [StrOptions({"auto", "classification"})],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    needs = Needs(features=True)
    __metadata_request__fit = {"sample_weight": False}  # ignored, so a weighted fit need not ask about it

    def __init__(self, *, n_estimators=200, task="auto", device="auto", n_jobs=None, random_state=None):
        self.n_estimators = n_estimators
        self.task = task
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, metadata_val=None):
        """Predict every row without its label, and score the labels.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, ...)
            Numbers of any shape per row.
        y : array-like of shape (n_samples,)
            Class labels of any kind.
        sample_weight, X_val, y_val, metadata_val : ignored
            Part of the contract of all attributors.

        Returns
        -------
        self
        """
        self._validate_params()
        self._forget()
        X, self.task_, codes, classes = self._validate(X, y, sample_weight, self.task)
        if classes is None:
            raise ValueError(
                f"Unknown label type: KernelForest compares class probabilities, and y, with {len(np.unique(codes))} "
                f"different numbers in {len(codes)} rows, is a regression target; use RobustResidual() from "
                "sktda.attribution for regression. Where the numbers are classes, make them text: y.astype(str)"
            )
        self.classes_ = classes
        random = random_of(self.random_state)
        kernel_seed, forest_seed = random.randint(2**31 - 1, size=2).tolist()
        wide, large = n_columns(X) > NARROW, X.shape[0] * n_columns(X) > LARGEST
        landmarks = round(LANDMARKS * min(1.0, KERNEL_ROWS / len(codes)) ** 0.5)
        fewer = {} if wide or len(codes) <= EXACT_ROWS else {"mode": "nystrom", "n_landmarks": landmarks}
        from sktda.attribution.features.complexity_gap import ComplexityGap  # loads torch

        kernel = ComplexityGap(task="classification", device=self.device, random_state=kernel_seed, **fewer)
        self.kernel_ = kernel.fit(X, classes[codes])
        self.scale_ = self.kernel_.scale_
        self.uses_forest_ = not wide or (not large and self._forest_wins(X, codes, random))
        if self.uses_forest_:
            by_kernel = as_probabilities(self.kernel_.loo_decision_)
            by_forest = self._out_of_bag(X, codes, self.n_estimators, forest_seed)
            weight = 0.5 if len(codes) <= MANY_ROWS else likeliest_weight(by_forest, by_kernel, codes)
            self.forest_weight_, self.loo_decision_ = weight, by_forest
            for part in parts(*by_forest.shape):
                by_forest[part] = weight * by_forest[part] + (1 - weight) * by_kernel[part]
        else:
            self.forest_weight_, self.loo_decision_ = 0.0, as_probabilities(self.kernel_.loo_decision_, ALONE)
        self.scores_ = log_margin(as_probabilities(self.loo_decision_), codes)
        return self

    def _out_of_bag(self, X: Any, codes: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
        """Probabilities (n, n_classes) by the trees that did not draw the row; equal ones where all drew it."""
        n = len(codes)
        rows = evened(X)
        order = any_order(rows, codes)  # bags are drawn by position: let it not matter which row comes first
        if n * DRAWN <= TREE_ROWS:
            grown, jobs = bagged(rows[order], codes[order], n_trees, self.n_jobs, seed), self.n_jobs
        else:
            import torch

            jobs = torch.get_num_threads() if self.n_jobs is None else self.n_jobs
            grown = subsampled(rows, codes, order, n_trees, jobs, seed)
        total = room((n, int(codes.max()) + 1))
        for batch in grown:
            trees = [(tree, np.unique(order[positions])) for tree, positions in batch]
            Parallel(n_jobs=jobs, require="sharedmem")(
                delayed(add_votes)(total[part], trees, rows[part], part.start) for part in slices(n, BLOCK)
            )
        for part in parts(*total.shape):
            votes = total[part]
            votes[votes.sum(axis=1) == 0] = 1
            votes /= votes.sum(axis=1, keepdims=True)
        return total

    def _forest_wins(self, X: Any, codes: np.ndarray, random: np.random.RandomState) -> bool:
        """Whether a small forest of a sample predicts its labels better than the kernel of all rows, beyond chance."""
        rows = np.sort(random.permutation(len(codes))[:SAMPLE])
        known, labels = np.unique(codes[rows], return_inverse=True)
        if len(known) == 1:
            return False
        forest = self._out_of_bag(X[rows], labels, SAMPLE_TREES, int(random.randint(2**31 - 1)))
        by_kernel = self.kernel_.loo_decision_[rows].argmax(axis=1) == codes[rows]
        gain = (forest.argmax(axis=1) == labels) - by_kernel.astype(float)
        return bool(gain.mean() > CLEARLY * gain.std() / np.sqrt(len(rows)))


def halves(n_trees: int) -> dict[str, int]:
    """How many trees of the forest split in which way: at random thresholds, and at the best ones."""
    return {"random": n_trees - n_trees // 2, "best": n_trees // 2}


def bagged(rows: np.ndarray, codes: np.ndarray, n_trees: int, n_jobs: int | None, seed: int) -> Iterator[list[Grown]]:
    """The trees of a forest, each of a bag of all rows, with the positions that it drew: half by half."""
    kinds = {"random": ExtraTreesClassifier, "best": RandomForestClassifier}
    for splitter, size in halves(n_trees).items():
        if size:
            forest = kinds[splitter](size, min_samples_leaf=LEAF, bootstrap=True, n_jobs=n_jobs, random_state=seed)
            forest.fit(rows, codes)
            yield list(zip(forest.estimators_, forest.estimators_samples_, strict=True))


def subsampled(
    rows: np.ndarray, codes: np.ndarray, order: np.ndarray, n_trees: int, n_jobs: int | None, seed: int
) -> Iterator[list[Grown]]:
    """As `bagged`, of TREE_ROWS different rows for each tree; a few at a time, for large trees take memory.

    order (n,): that of the rows, of whose positions in it a tree draws. Each row is left out by as many trees, on the
    average, as n_trees bags leave it out.
    """
    left_out = 1 - TREE_ROWS / len(rows)
    random = np.random.RandomState(seed)

    def grow(splitter: str, own_seed: int) -> Grown:
        drawn = np.sort(np.random.default_rng(own_seed).choice(len(rows), TREE_ROWS, replace=False, shuffle=False))
        tree = DecisionTreeClassifier(
            splitter=splitter, max_features="sqrt", min_samples_leaf=LEAF, random_state=own_seed
        )
        return tree.fit(rows[order[drawn]], codes[order[drawn]]), drawn

    for splitter, size in halves(math.ceil(n_trees * (1 - DRAWN) / left_out)).items():
        seeds = random.randint(2**31 - 1, size=size).tolist()
        for part in slices(size, BATCH):
            yield Parallel(n_jobs=n_jobs, require="sharedmem")(delayed(grow)(splitter, own) for own in seeds[part])


def add_votes(total: np.ndarray, trees: list[Grown], rows: np.ndarray, start: int) -> None:
    """Add the probabilities (n, n_classes) of the rows start.. by each tree to those rows that it did not draw.

    trees: each with the positions (ascending) of the rows that it drew.
    """
    for tree, positions in trees:
        drawn = positions[slice(*np.searchsorted(positions, [start, start + len(rows)]))] - start
        known = tree.classes_.astype(int)  # a few rows may lack a class
        if 2 * len(drawn) <= len(rows):  # to leave them out of the prediction would cost more than to predict them
            found = tree.predict_proba(rows, check_input=False)  # float32 already
            found[drawn] = 0
            if len(known) == total.shape[1]:
                total += found
            else:
                total[:, known] += found
        elif len(out := np.setdiff1d(np.arange(len(rows)), drawn, assume_unique=True)):
            total[np.ix_(out, known)] += tree.predict_proba(rows[out], check_input=False)


def likeliest_weight(first: np.ndarray, second: np.ndarray, codes: np.ndarray) -> float:
    """The weight w in [0, 1] under which labels drawn from w first + (1 - w) second, (n, n_classes), are likeliest.

    50 steps of expectation and maximisation from one half, the share of the labels that the first one explains.
    """

    def taken(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, codes[:, None], axis=1)[:, 0]

    first, second = row_by_row(taken, first, codes), np.maximum(row_by_row(taken, second, codes), 1e-12)
    weight = 0.5
    for _ in range(WEIGHT_STEPS):
        explained = ((weight * first[part], (1 - weight) * second[part]) for part in parts(len(codes)))
        weight = float(sum(np.sum(own / (own + other)) for own, other in explained) / len(codes))
    return weight


def evened(X: Any) -> np.ndarray:
    """Columns of X for trees that draw thresholds between the extremes: dense float32 (n, n_features).

    arcsinh((x - median) / spread), cut off at a hundred spreads, is nearly x in the middle of a column and its
    logarithm far out, so that large values leave thresholds for the others; neither unit nor offset plays a part. The
    spread is the distance of the quartiles or, where they are equal, the mean distance from the median; constant
    columns become 0. Of more than SPREAD_ROWS rows, so many tell both.
    """
    n, width = X.shape[0], n_columns(X)
    seen = slice(0, n) if n <= SPREAD_ROWS else np.sort(np.random.RandomState(0).permutation(n)[:SPREAD_ROWS])
    some = X[seen]
    flat = some.tocsc() if sp.issparse(X) else some.reshape(len(some), -1)
    unit, middle, largest, spread = np.ones((4, width))
    for part in slices(width, max(1, CELLS // some.shape[0])):
        columns = (flat[:, part].toarray() if sp.issparse(X) else flat[:, part]).T.astype(np.float64, order="C")
        unit[part] = power_of_two(np.abs(columns).max(axis=1))  # the distance of the largest numbers overflows
        columns /= unit[part, None]
        low, middle[part], high = np.percentile(columns, [25, 50, 75], axis=1)
        distance = np.abs(columns - middle[part, None])
        largest[part] = distance.max(axis=1)
        # in shares of the largest, so that no sum over- or underflows
        share = np.where(largest[part] > 0, largest[part], 1.0)
        quartiles = (high - low) / share
        spread[part] = np.where(quartiles > 0, quartiles, (distance / share[:, None]).mean(axis=1))
    rows = room((n, width), np.float32)
    varies = largest > 0
    largest[~varies] = spread[~varies] = 1.0
    for part in slices(n, max(1, CELLS // width)):
        with np.errstate(over="ignore"):  # of a row that is far beyond those that told the spread
            distance = row_block(X, part) / unit - middle
            rows[part] = np.where(varies, np.arcsinh(np.clip(distance / largest / spread, -FAR, FAR)), 0)
    return rows


def any_order(rows: Any, target: np.ndarray) -> np.ndarray:
    """Positions (n,) of the rows (n, p) in an order that only their values decide: along a fixed random direction."""
    direction = np.random.RandomState(0).standard_normal(rows.shape[1])
    along = [rows[part].astype(np.float64) @ direction for part in slices(rows.shape[0], BLOCK)]
    return np.lexsort((target, np.concatenate(along)))
