"""Rows that do not fit into memory: read block by block from where they are, once, into a file that is mapped."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from sktda.containers import is_frame, is_table, numbers
from sktda.data import slices

ROWS = 65_536  # read at a time
LOST = 1e-3  # of the spread of a column: what rounding to float32 may change
ARROW = {".parquet": "parquet", ".pq": "parquet", ".feather": "feather", ".arrow": "ipc", ".orc": "orc"}
Block = tuple[np.ndarray, np.ndarray | None]


def mapped_rows(
    source: Any,
    target: Any = None,
    *,
    columns: Sequence[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> tuple[np.memmap, np.ndarray | None]:
    """X as a map of a file, and y: for every estimator, of rows that are too many for the memory.

    Reads the source once, some rows at a time and never whole, into one file of float32 (4 bytes per cell). What
    scikit-learn, torch and this library read of X are then pages of that file; methods that go through the rows block
    by block need no more memory for more rows.

    Parameters
    ----------
    source : path, table, array or Dataset
        A file or folder of Parquet (Feather, Arrow, ORC); a dataset or table of pyarrow; a Dataset of Hugging Face; a
        DataFrame of Dask; an array of Dask, h5py or Zarr, or any other with `shape` that can be sliced, of shape
        (n_samples, ...); a torch Dataset of (x, y).
    target : str or array-like of shape (n_samples,), default=None
        The column of labels, or the labels of an array. None for a torch Dataset, which has its own.
    columns : sequence of str, default=None
        The columns of a table that are features. None = all but the target.
    folder : path-like, default=None
        A new or empty folder for X.npy, which stays there: `numpy.load(folder / "X.npy", mmap_mode="r")` is X again.
        None = a temporary file, which is gone with X.

    Returns
    -------
    X : memmap of shape (n_samples, ...)
        float32. The file does not change with it.
    y : ndarray of shape (n_samples,) or None
        In memory, as the source has them.

    Raises
    ------
    ValueError
        For a column that is no number (text is to be encoded first, for example by `PretrainedEncoder` or as
        categories) or beyond float32, naming the column and the row; for labels that do not fit the rows.
    OSError
        Where the disk is full.

    Examples
    --------
    >>> import numpy as np, pyarrow as pa
    >>> from sktda import mapped_rows
    >>> table = pa.table({"width": [1.0, 2.5], "height": [3, 4], "label": ["cat", "dog"]})
    >>> X, y = mapped_rows(table, "label")
    >>> type(X).__name__, X.tolist(), y.tolist()
    ('memmap', [[1.0, 3.0], [2.5, 4.0]], ['cat', 'dog'])
    """
    n, blocks = _read(source, target, None if columns is None else list(columns))
    if not n:
        raise ValueError("the source has no rows; check the path, or the filter that made it")
    place = _place(folder)
    with _whole(place):
        X, y = _written(place, n, blocks)
    if folder is None:
        weakref.finalize(X, place.unlink, missing_ok=True)
    return X, y


def mapped_blocks(n: int, blocks: Callable[[], Iterator[np.ndarray]]) -> np.memmap:
    """Blocks of rows, n together, as a map of a temporary file, which is gone with it.

    float32, or, where that loses what tells rows apart, float64: the blocks are asked for again then.
    """
    place = _place(None)
    with _whole(place):
        try:
            X, _ = _written(place, n, ((block, None) for block in blocks()))
        except LostDigits:
            X, _ = _written(place, n, ((block, None) for block in blocks()), "<f8")
    weakref.finalize(X, place.unlink, missing_ok=True)
    return X


class LostDigits(ValueError):
    """Numbers that float32 cannot tell apart."""


@contextmanager
def _whole(place: Path) -> Iterator[None]:
    """The file is gone where writing it fails."""
    try:
        yield
    except BaseException as error:
        place.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(
                f"could not write {place}: {error.strerror or error}; free some space, or give another folder"
            ) from error
        raise


def _place(folder: Any) -> Path:
    if folder is None:
        handle, name = tempfile.mkstemp(prefix="sktda-rows-", suffix=".npy")
        os.close(handle)
        return Path(name)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "X.npy").exists():
        raise FileExistsError(f"{folder / 'X.npy'} exists already; give a new or empty folder, or load it with NumPy")
    return folder / "X.npy"


def _written(place: Path, n: int, blocks: Iterator[Block], dtype: str = "<f4") -> tuple[np.memmap, np.ndarray | None]:
    first = next(blocks)
    shape = n, *first[0].shape[1:]
    labels, done = [], 0
    with open(place, "wb") as file:  # written, not mapped: a full disk is an error and not a signal
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for X, y in chain([first], blocks):
            if X.shape[1:] != shape[1:]:
                raise ValueError(f"row {done} has the shape {X.shape[1:]}, and the first {shape[1:]}; make them equal")
            (_single(X, done) if dtype == "<f4" else np.ascontiguousarray(X, dtype)).tofile(file)
            done += len(X)
            if y is not None:
                labels.append(np.asarray(y))
    if done != n:
        raise ValueError(f"the source said that it has {n} rows, and {done} came; do not change it meanwhile")
    # "c": written to in memory only, as torch warns of what cannot be written to
    return np.load(place, mmap_mode="c"), np.concatenate(labels) if labels else None


def _single(X: np.ndarray, start: int) -> np.ndarray:
    """X as float32; ValueError where that loses what tells its rows apart."""
    with np.errstate(over="ignore", invalid="ignore"):
        single = np.ascontiguousarray(X, dtype="<f4")
        if X.dtype.kind == "b" or X.dtype.itemsize <= 2 or X.dtype == np.float32:
            return single
        spread = np.subtract(np.fmax.reduce(X), np.fmin.reduce(X), dtype=float)
        lost = np.abs(single - X.astype(float)) > LOST * np.where(spread == 0, np.inf, spread)
    if lost.any():
        row, *rest = np.argwhere(lost)[0].tolist()
        raise LostDigits(
            f"row {start + row}, column {', '.join(map(str, rest))} of X is {X[(row, *rest)]:.17g}, which float32 "
            "cannot tell from its neighbours; subtract a typical value from the column, and divide it where it is huge"
        )
    return single


# ---- from every kind of source to (number of rows, blocks of them) ----------------------------------------------


def _read(source: Any, target: Any, columns: list[str] | None) -> tuple[int, Iterator[Block]]:
    if isinstance(source, str | os.PathLike):
        source = _opened(Path(source))
    if hasattr(source, "partitions") and is_frame(source):  # Dask's, in which nothing is computed yet
        return len(source), _of_frames((part.compute() for part in source.partitions), target, columns)
    if hasattr(source, "with_format") and hasattr(source, "iter"):  # Hugging Face's
        tables = (each.to_pandas() for each in source.with_format("arrow").iter(ROWS))
        return len(source), _of_frames(tables, target, columns)
    if hasattr(source, "to_batches"):  # pyarrow's
        n = source.count_rows() if hasattr(source, "count_rows") else source.num_rows
        settings = {"batch_size": ROWS} if hasattr(source, "count_rows") else {"max_chunksize": ROWS}
        return n, _of_frames((each.to_pandas() for each in source.to_batches(**settings)), target, columns)
    if is_table(source):
        raise TypeError(f"this {type(source).__name__} is in memory already: give its columns to fit as X and y")
    if isinstance(target, str) or columns is not None:
        raise TypeError(f"{type(source).__name__} has no named columns; give the labels as an array, and no columns")
    if hasattr(source, "shape"):
        return _of_array(source, target)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return len(source), _of_dataset(source, target)
    raise TypeError(
        f"{type(source).__name__} cannot be read block by block; give a path of Parquet, a table of pyarrow, Dask or "
        "Hugging Face, an array with a shape, or a Dataset with a length"
    )


def _opened(path: Path) -> Any:
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r")
    if path.suffix in {".h5", ".hdf5", ".zarr"}:
        raise ValueError(f"{path} may hold several arrays: open it (h5py.File, zarr.open) and give the one that is X")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    import pyarrow.dataset

    kinds = {each.suffix for each in (path.rglob("*") if path.is_dir() else [path])} & set(ARROW)
    if len(kinds) != 1:
        raise ValueError(f"{path} is no file or folder of one of {', '.join(ARROW)}; convert it to Parquet")
    return pyarrow.dataset.dataset(path, format=ARROW[kinds.pop()])


def _of_frames(frames: Iterator[Any], target: Any, columns: list[str] | None) -> Iterator[Block]:
    done = 0
    for frame in frames:
        if not len(frame):
            continue
        if target is not None and not isinstance(target, str):
            raise TypeError("the target of a table is the name of its column")
        for name in [*([] if target is None else [target]), *(columns or [])]:
            if name not in frame.columns:
                raise ValueError(f"there is no column {name!r}; there are {', '.join(map(str, frame.columns))}")
        X = frame[columns] if columns is not None else frame.drop(columns=[] if target is None else [target])
        try:
            values = np.asarray(numbers(X))
        except (TypeError, ValueError) as error:
            raise type(error)(f"among rows {done} to {done + len(frame) - 1}: {error}") from error
        yield values, None if target is None else np.asarray(frame[target])
        done += len(frame)


def _of_array(X: Any, y: Any) -> tuple[int, Iterator[Block]]:
    n = X.shape[0]
    if n != n:  # of Dask, where chunks are not computed
        raise ValueError("the number of rows is not known; call X.compute_chunk_sizes() before")
    if y is not None and len(y) != n:
        raise ValueError(f"X has {n} rows and target {len(y)} labels; give one label per row")
    return n, ((_values(X[part]), None if y is None else _values(y[part])) for part in slices(n, ROWS))


def _values(part: Any) -> np.ndarray:
    return np.asarray(part.compute() if hasattr(part, "compute") else part)


def _of_dataset(dataset: Any, target: Any) -> Iterator[Block]:
    if target is not None:
        raise TypeError("a Dataset has its own labels; leave target out")
    for part in slices(len(dataset), 1024):
        items = [dataset[k] for k in range(part.start, part.stop)]
        pairs = [item if isinstance(item, tuple | list) and len(item) == 2 else (item, None) for item in items]
        has_y = pairs[0][1] is not None
        yield np.stack([np.asarray(x) for x, _ in pairs]), np.asarray([y for _, y in pairs]) if has_y else None
