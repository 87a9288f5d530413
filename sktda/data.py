"""From what a user holds (X, y) to arrays and tensors; the only door into torch.

Features stay in the form they came in (array of any number of dimensions, memory map, sparse matrix) and
become scaled float tensors block by block, so memory does not grow with a second copy of X.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _num_samples, check_array, validate_data

from sktda.containers import check_kinds, column_name, is_frame, is_missing, is_pipeline, numbers, read_target

WEIGHTS = 1e100  # the largest one lies below it, and above its inverse: products of several do not overflow
LARGEST = 1e300  # of a target: sums and differences of several do not overflow
BLOCK_BYTES = 64 * 2**20  # one float64 block of features in the streamed passes


def slices(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows that cover 0..n."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def refuse_numbers_as_mask(name: str, positions: np.ndarray, n: int) -> None:
    """ValueError for 0 and 1 for each of n rows: as positions, all of these would be the rows 0 and 1, in silence."""
    if len(positions) == n > 2 and np.isin(positions, (0, 1)).all():
        raise ValueError(f"{name} holds 0 and 1 for each row, as a mask does; give an array of bool")


def row_block(X: Any, rows: slice | np.ndarray, dtype: Any = np.float64) -> np.ndarray:
    """Rows of X as one new dense (len(rows), n_features) array; images and other shapes are flattened."""
    block = X[rows]
    if sp.issparse(block):
        block = block.toarray()
    return np.array(block, dtype=dtype).reshape(block.shape[0], -1)


def n_columns(X: Any) -> int:
    """Features per row once a row is flattened."""
    return int(np.prod(X.shape[1:]))


def check_finite(X: Any, names: np.ndarray | None = None) -> None:
    """Raise ValueError if X (n, ...) holds NaN or infinity, naming the column, the first row and the count."""
    if X.dtype.kind not in "fc":
        return
    bad = np.zeros(n_columns(X), dtype=int)
    first: dict[int, int] = {}
    for rows in slices(X.shape[0], block_rows(X)):
        wrong = ~np.isfinite(row_block(X, rows, X.dtype))
        bad += wrong.sum(axis=0)
        for column in np.flatnonzero(wrong.any(axis=0)).tolist():
            first.setdefault(column, rows.start + int(wrong[:, column].argmax()))
    if not bad.any():
        return
    column = int(np.flatnonzero(bad)[0])
    row = first[column]
    what = "NaN" if np.isnan(row_block(X, slice(row, row + 1))[0, column]) else "infinity"
    name = column_name(names, column)
    raise ValueError(
        f"Input X contains {what}: column {name} has {bad[column]} values that are NaN or inf, the first in row "
        f"{row} ({int((bad > 0).sum())} columns are affected); impute them first, e.g. with "
        "sklearn.impute.SimpleImputer, or drop those rows"
    )


def read_features(owner: Any, X: Any, *, reset: bool = True) -> Any:
    """X (n, ...) as an array or CSR matrix of finite numbers, whatever container holds them.

    What a column is, its cells decide: numbers that are stored as Python objects or as categories are numbers. Sets
    n_features_in_ and feature_names_in_ of the owner (with reset=False, compares them).
    Raises ValueError naming the column, and where there is one the row, for text, dates, complex numbers, missing
    values and infinity, and for fewer than two rows.
    """
    reader = type(owner).__name__
    if is_dictionary(X):
        raise ValueError(
            f"{reader} reads the columns of one table, and X is a dictionary ({', '.join(map(str, X))}); give a net "
            "and an attributor that scores rows by its gradients, such as Influence(net) from sktda.attribution"
        )
    if is_text(X):
        raise ValueError(
            f"could not convert string to float: {reader} needs numbers, and X holds texts; turn them into numbers "
            "first, e.g. with TfidfVectorizer in a Pipeline before the cleaner, or score them by a model that does "
            "so: SelfConfidence(make_pipeline(TfidfVectorizer(), LogisticRegression()))"
        )
    cells = numbers(X)
    note_columns(owner, X, None, reset=reset)
    X = check_array(
        cells,
        accept_sparse="csr",
        allow_nd=True,
        ensure_all_finite=False,
        ensure_min_samples=2 if reset else 1,
        estimator=owner,
        input_name="X",
    )
    check_finite(X, getattr(owner, "feature_names_in_", None))
    return X


def note_columns(owner: Any, X: Any, estimator: Any, *, reset: bool = True) -> None:
    """Set n_features_in_ and feature_names_in_ of the owner, or compare them; X itself is checked by who reads it.

    estimator: who that is, or None. Raises as `check_columns`.
    """
    check_columns(X, estimator)
    validate_data(owner, X, reset=reset, skip_check_array=True)


def check_columns(X: Any, estimator: Any) -> None:
    """Raise ValueError naming columns of equal names, and what an estimator of scikit-learn's cannot read or misreads.

    That are dates, durations, complex numbers and pandas.NA among objects, unless a transformer inside the estimator
    comes first; TypeError for other objects.
    """
    if is_frame(X):
        names = list(X.columns)
        if len(set(names)) < len(names):
            name = next(name for name in names if names.count(name) > 1)
            raise ValueError(
                f"X has {names.count(name)} columns named {name!r}; give every column a name of its own, e.g. "
                "X.columns = range(X.shape[1])"
            )
    if estimator is not None and reads_numbers_only(estimator):
        check_kinds(X)


def reads_numbers_only(estimator: Any) -> bool:
    """Whether this is an estimator of scikit-learn's without a transformer in it."""
    if not type(estimator).__module__.startswith("sklearn."):
        return False
    inside = estimator.get_params(deep=True).values()
    return not any(hasattr(each, "transform") or is_pipeline(each) for each in inside)


def is_text(X: Any) -> bool:
    """Whether X is a list or array of texts, one per row."""
    if getattr(X, "ndim", 1 if isinstance(X, list | tuple) else 0) != 1:
        return False
    first = list(X[:100])
    return bool(first) and all(isinstance(value, str) for value in first)


def block_rows(X: Any) -> int:
    """Rows per block that keep one float64 block of X near BLOCK_BYTES."""
    return max(1, BLOCK_BYTES // (8 * max(1, n_columns(X))))


def infer_task(y: np.ndarray) -> str:
    """ "classification" or "regression", from the target alone.

    Strings, booleans and whole numbers are classes, except for whole numbers with so many different values
    (more than 20, and more than a tenth of the rows) that they are counts or measurements.
    Raises ValueError for targets of several columns.
    """
    with np.errstate(invalid="ignore"):  # whether numbers beyond the integers are whole is found by a cast
        kind = type_of_target(y, input_name="y")
    if kind not in {"binary", "multiclass", "continuous"}:
        raise ValueError(f"Unknown label type: y is '{kind}'; allowed is one column of class labels or of numbers")
    if kind == "continuous":
        return "regression"
    n_values = len(np.unique(y))
    numbers = np.asarray(y).dtype.kind in "iuf"
    return "regression" if numbers and n_values > max(20, len(y) // 10) else "classification"


DICT_TARGETS = (
    "y is a dict of arrays ({}), and a row has one target here; put the arrays side by side into one array (n, k), and "
    "take them apart in the criterion"
)


def plain_target(y: Any) -> Any:
    """`read_target` of y, as a Series with its index where y is of pandas, for those who pass it on.

    A column of class labels becomes (n,), with a warning; one of numbers may be what a net is trained on and stays.
    Raises as `read_target`.
    """
    if isinstance(y, Mapping):
        raise TypeError(DICT_TARGETS.format(", ".join(map(repr, y))))
    if y is None or hasattr(y, "requires_grad") or getattr(y, "shape", ())[1:] not in {(), (1,)}:
        return y  # of tensors and of several columns only a net knows what they are
    read = read_target(y)
    if read.ndim == 2 and read.shape[1] == 1 and read.dtype.kind != "f":
        read = column_or_1d(read, warn=True)
    if not hasattr(y, "iloc"):
        return read
    if read.ndim == 2:
        return y
    series = y if y.ndim == 1 else y.iloc[:, 0]
    same = getattr(series.dtype, "kind", "") == read.dtype.kind
    return series if same else type(series)(read, index=y.index, name=series.name)


def encode_target(y: Any, task: str = "auto") -> tuple[str, np.ndarray, np.ndarray | None]:
    """Target as the methods need it: (task, codes or values (n,), classes or None).

    Raises ValueError for missing labels, a single class, several columns, text where numbers are needed, and
    numbers beyond 1e300, naming the row.
    """
    y = read_target(y)
    if y.ndim == 2 and y.shape[1] > 1:
        raise ValueError(
            f"y should be a 1d array, got an array of shape {y.shape}; several labels or numbers per row can be "
            "scored by a net with as many outputs, such as InfluencePruner(net, EL2N())"
        )
    y = column_or_1d(y, warn=True)
    if task not in {"auto", "classification", "regression"}:
        raise ValueError(f"task={task!r} is not one of 'auto', 'classification', 'regression'")
    if task == "auto":
        task = infer_task(y)
    if task == "regression":
        if y.dtype.kind not in "iufb":
            raise ValueError(f"Unknown label type: regression needs numbers as target, got {y.dtype} such as {y[0]!r}")
        values = y.astype(np.float64)
        if np.abs(values).max() > LARGEST:
            row = int(np.abs(values).argmax())
            raise ValueError(f"y is {values[row]:g} in row {row}, beyond {LARGEST:g}; correct it, or drop the row")
        return task, values, None
    classes, codes = _sorted_classes(y)
    if y.dtype.kind == "f" and (classes != np.round(classes)).any():
        raise ValueError(
            "Unknown label type: continuous. Classes cannot be fractions such as "
            f"{classes[classes != np.round(classes)][0]!r}; for regression use task='regression'"
        )
    if len(classes) < 2:
        raise ValueError(
            f"y holds 1 class ({classes.tolist()[0]!r} in all {len(y)} rows); at least 2 classes are needed to tell "
            "labels apart"
        )
    return task, codes, classes


def _sorted_classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As np.unique(y, return_inverse=True), which sorts a million objects where a few are different."""
    if y.dtype.kind != "O":
        return np.unique(y, return_inverse=True)
    labels = y.tolist()
    code = dict.fromkeys(labels, 0)
    classes = np.unique(np.fromiter(code, dtype=object, count=len(code)))
    code.update((label, k) for k, label in enumerate(classes.tolist()))
    return classes, np.fromiter(map(code.__getitem__, labels), dtype=np.int64, count=len(labels))


def check_weights(sample_weight: Any, n: int) -> np.ndarray:
    """Row weights (n,) as new floats.

    Raises ValueError naming the first row of a weight that is negative, missing, infinite or no number, and for a wrong
    shape, weights that are all zero, and a largest one below 1e-100 or above 1e100.
    """
    weights = np.asarray(sample_weight)
    if weights.shape != (n,):
        raise ValueError(f"sample_weight has shape {weights.shape}, but one weight per row is needed: ({n},)")
    if weights.dtype.kind not in "biuf":
        cells = weights.astype(object).tolist()
        real = [is_missing(cell) or isinstance(cell, Real | Decimal | np.bool_) for cell in cells]
        if not all(real):
            row = real.index(False)
            raise ValueError(f"sample_weight is {cells[row]!r} in row {row}; give one real number per row")
        weights = np.array([np.nan if is_missing(cell) else float(cell) for cell in cells])
    weights = np.array(weights, dtype=np.float64)
    if len(bad := np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))):
        raise ValueError(
            f"sample_weight must be finite and non-negative, and is {weights[bad[0]]:g} in row {bad[0]} "
            f"({len(bad)} such rows); give 0 to rows that do not count"
        )
    largest = float(weights.max()) if n else 0.0
    if not largest:
        raise ValueError("sample_weight is all zero, and must be non-negative, with at least one weight above zero")
    if not 1 / WEIGHTS <= largest <= WEIGHTS:
        raise ValueError(
            f"sample_weight reaches {largest:g} (row {weights.argmax()}), beyond what can be multiplied safely; only "
            "ratios of weights matter, so divide all by the largest"
        )
    return weights


def is_dictionary(X: Any) -> bool:
    """Whether X holds arrays by name; a sparse matrix by keys looks like one, and is none."""
    return isinstance(X, Mapping) and not sp.issparse(X)


def sliceable(X: Any, estimator: Any = None) -> Any:
    """X, in a form of which scikit-learn can take rows, its columns checked for an estimator that will be given them.

    A dict of arrays by argument name becomes skorch's SliceDict, a sparse matrix of any format CSR, and what can only
    be made an array one. Raises ValueError for None, for a dict of arrays of different lengths, and as `check_columns`.
    """
    check_columns(X, estimator)
    if X is None:
        raise ValueError("X is None: Expected 2D array, got scalar array instead; give one row of features per label")
    if sp.issparse(X):
        return X if X.format == "csr" else X.tocsr()
    if not is_dictionary(X):
        return np.asarray(X) if hasattr(X, "__array__") and not hasattr(X, "__getitem__") else X
    sizes = {name: _num_samples(value) for name, value in X.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"the arrays in X must have equally many rows, got {sizes}")
    from skorch.helper import SliceDict

    return X if isinstance(X, SliceDict) else SliceDict(**X)


def transformed(pipeline: Any, X: Any) -> Any:
    """X through the steps of a fitted Pipeline of transformers.

    Step by step, since a Pipeline asks its last step whether it is fitted, and a transformer that learns nothing has
    no answer. Samplers choose rows to train on and pass others on as they are.
    """
    for _, step in pipeline.steps:
        if hasattr(step, "steps"):
            X = transformed(step, X)
        elif step not in (None, "passthrough") and hasattr(step, "transform"):
            X = step.transform(X)
        elif step not in (None, "passthrough") and not hasattr(step, "fit_resample"):
            raise TypeError(f"{type(step).__name__} stands before the model of a Pipeline, but has no transform")
    return X


def row_index(X: Any, y: Any = None) -> Any:
    """The user's row index (of X, else of y), or None where neither is a pandas object."""
    for data in (X, y):
        if hasattr(data, "iloc"):
            return data.index
    return None
