"""Rows that do not fit: whatever holds them, the map has the same numbers, and the memory does not hold them all."""

import errno
import gc
import tracemalloc
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
import torch
from skorch import NeuralNetClassifier

from sktda import NoisyLabelDetector, mapped, mapped_rows

N = 60
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
y = np.where(X[:, 0] > 0, "up", "down")
FRAME = pd.DataFrame(X, columns=["a", "b", "c"]).assign(label=y)


@pytest.fixture(autouse=True)
def few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(mapped, "ROWS", 16)


def parquet_folder(folder):
    for k, part in enumerate([FRAME[:25], FRAME[25:]]):
        part.to_parquet(folder / f"{k}.parquet", row_group_size=10)
    return folder, "label"


def parquet_file(folder):
    FRAME.to_parquet(folder / "rows.parquet", row_group_size=10)
    return str(folder / "rows.parquet"), "label"


def feather(folder):
    FRAME.to_feather(folder / "rows.feather")
    return folder / "rows.feather", "label"


def hdf5(folder):
    import h5py

    return h5py.File(folder / "rows.h5", "w").create_dataset("X", data=X), y


def zarr_array(folder):
    import zarr

    return zarr.create_array(folder / "rows.zarr", data=X, chunks=(7, 3)), y


def dask_array(folder):
    import dask.array

    return dask.array.from_array(X, chunks=(11, 2)), dask.array.from_array(y, chunks=13)


def dask_frame(folder):
    import dask.dataframe

    return dask.dataframe.from_pandas(FRAME, npartitions=4), "label"


def hugging_face(folder):
    import datasets

    return datasets.Dataset.from_pandas(FRAME, preserve_index=False), "label"


def npy(folder):
    np.save(folder / "rows.npy", X.astype(np.float64))
    return folder / "rows.npy", y


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return N

    def __getitem__(self, k):
        return torch.from_numpy(X[k]), str(y[k])


SOURCES = [
    parquet_file,
    parquet_folder,
    feather,
    hdf5,
    zarr_array,
    dask_array,
    dask_frame,
    hugging_face,
    npy,
    lambda folder: (pa.table(FRAME), "label"),
    lambda folder: (pyarrow.dataset.dataset(pa.table(FRAME)), "label"),
    lambda folder: (Pairs(), None),
    lambda folder: (X[::-1][::-1], y.tolist()),
]


@pytest.mark.filterwarnings("default::DeprecationWarning")  # of the libraries among themselves
@pytest.mark.parametrize("source", SOURCES, ids=lambda each: getattr(each, "__name__", "other"))
def test_every_source_gives_the_same_rows(source, tmp_path):
    rows, labels = mapped_rows(*source(tmp_path))
    assert isinstance(rows, np.memmap)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, X)
    np.testing.assert_array_equal(labels, y)


def test_an_estimator_takes_the_map(tmp_path):
    rows, labels = mapped_rows(pa.table(FRAME), "label")
    np.testing.assert_allclose(
        NoisyLabelDetector().fit(rows, labels).scores_, NoisyLabelDetector().fit(X, y).scores_, rtol=1e-6
    )


def test_columns_are_chosen_and_numbers_may_be_of_any_kind():
    table = pa.table(
        {
            "none": pa.array([1, None, 3]),
            "decimal": pa.array([Decimal("1.50"), Decimal("2"), None]),
            "yes": pa.array([True, False, True]),
            "text": ["x", "y", "z"],
        }
    )
    rows, labels = mapped_rows(table, columns=["yes", "none", "decimal"])
    assert labels is None
    np.testing.assert_array_equal(rows, [[1, 1, 1.5], [0, np.nan, 2], [1, 3, np.nan]])


@pytest.mark.parametrize(
    "column", [[np.nan, np.nan], [123456789.0, 123456789.0], [np.inf, 1.0], [2**40, 0], [0.1, 0.2]]
)
def test_rounding_that_tells_no_rows_apart_is_no_error(column):
    rows, _ = mapped_rows(np.array(column)[:, None])
    np.testing.assert_array_equal(rows[:, 0], np.float32(column))


def test_pictures_keep_their_shape():
    images = np.arange(2 * 4 * 4).reshape(2, 4, 4).astype(np.uint8)
    rows, _ = mapped_rows(images)
    np.testing.assert_array_equal(rows, images)


def test_the_temporary_file_goes_with_the_map_and_a_named_one_stays(tmp_path):
    rows, _ = mapped_rows(X)
    place = Path(rows.filename)
    del rows
    gc.collect()
    assert not place.exists()
    rows, _ = mapped_rows(X, folder=tmp_path / "new")
    del rows
    np.testing.assert_array_equal(np.load(tmp_path / "new" / "X.npy", mmap_mode="r"), X)
    with pytest.raises(FileExistsError, match="exists already"):
        mapped_rows(X, folder=tmp_path / "new")


def test_memory_holds_a_block_and_not_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "ROWS", 1000)
    wide = np.lib.format.open_memmap(tmp_path / "wide.npy", "w+", np.float64, (20_000, 50))
    tracemalloc.start()
    rows, _ = mapped_rows(tmp_path / "wide.npy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.shape == wide.shape
    assert peak < 0.3 * wide.nbytes  # a block is a twentieth


@pytest.mark.parametrize(
    ("source", "target", "options", "words"),
    [
        (pa.table({"a": [1.0, 2.0], "t": ["x", "y"]}), None, {}, "columns 't' of X are not numbers"),
        (pa.table({"a": [1.0, 2.0]}), "b", {}, "no column 'b'; there are a"),
        (pa.table({"a": [1.0, 2.0]}), None, {"columns": ["z"]}, "no column 'z'"),
        (pa.table({"a": [1.0, 2.0]}), [0, 1], {}, "the name of its column"),
        (pa.table({"a": pa.array([], pa.float64())}), None, {}, "no rows"),
        (np.array([[1.0], [1e300]]), None, {}, "row 1, column 0"),
        (np.array([[1.7e9], [1.7e9 + 1], [1.7e9 + 2]]), None, {}, "row 1, column 0 of X is 1700000001, which float32"),
        (X, y[:-1], {}, "60 rows and target 59 labels"),
        (X, "label", {}, "no named columns"),
        (FRAME, "label", {}, "in memory already"),
        (iter([1]), None, {}, "cannot be read block by block"),
        ("rows.h5", None, {}, "may hold several arrays"),
        ("nowhere.parquet", None, {}, "does not exist"),
        (".", None, {}, "no file or folder of one of .parquet"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(source, target, options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=words):
        mapped_rows(source, target, **options)
    assert not list(tmp_path.glob("sktda-*"))


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(X, start):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mapped, "_single", full)
    with pytest.raises(OSError, match="No space left on device; free some space"):
        mapped_rows(X, folder=tmp_path / "rows")
    assert not list((tmp_path / "rows").iterdir())


def test_a_net_is_trained_on_the_map_without_a_word_and_the_file_stays(tmp_path):
    pa.parquet.write_table(pa.Table.from_pandas(FRAME), tmp_path / "rows.parquet")
    rows, labels = mapped_rows(tmp_path / "rows.parquet", "label", folder=tmp_path / "kept")
    net = NeuralNetClassifier(torch.nn.Linear(3, 2), criterion=torch.nn.CrossEntropyLoss, max_epochs=1, verbose=0)
    net.set_params(train_split=None).fit(rows, (labels == "up").astype(np.int64))
    rows[0] = 7
    np.testing.assert_array_equal(np.load(tmp_path / "kept" / "X.npy"), X)
