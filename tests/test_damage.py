"""What can go wrong around the shell: memory, files of odd kinds, labels of odd types. One sentence, or right."""

import datetime
import errno
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sktda.cli.commands import app
from sktda.cli.formats import read_source
from sktda.cli.formats.arrays import read_features
from sktda.cli.labels import read_labels
from sktda.images import list_images

RNG = np.random.default_rng(0)
Y = np.arange(40) % 2
X = RNG.normal(size=(40, 2)) + 4 * Y[:, None]
NOISY = np.where(np.arange(40) == 3, 1 - Y, Y)

pytestmark = pytest.mark.usefixtures("few_trees")


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def refused(result, *words, code=1):
    """One line that says it, and no traceback."""
    lines = [line for line in result.stderr.splitlines() if not line.endswith(" ...")]  # progress
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert len(lines) == 1, lines
    assert lines[0].startswith("sktda: error: ")
    assert all(word in lines[0] for word in words), lines[0]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "data.csv"
    pd.DataFrame(X, columns=["a", "b"]).assign(y=Y).to_csv(path, index=False)
    return path


# ---- memory ----------------------------------------------------------------------------------------------------------

FULL = {
    "Python": MemoryError(),
    "numpy": np._core._exceptions._ArrayMemoryError((10**9,), np.dtype(float)),
    "torch on a card": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "torch": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:116] . DefaultCPUAllocator: can't allocate memory: you tried"
    ),
    "arrow": pa.lib.ArrowMemoryError("malloc of size 1024 failed"),
    "system": OSError(errno.ENOMEM, "Cannot allocate memory"),
    "loader": ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    "threads": RuntimeError("can't start new thread"),
}
SITES = [
    "sktda.cli.formats.text.TextTable.read",
    "sktda.cli.jobs.read_source",
    "sktda.cli.features.of_table",
    "sktda.cleaning.detector.NoisyLabelDetector.fit",
    "sktda.cli.plan.Plan.make",
    "sktda.cli.formats.write_frame",
    "sktda.report.write_report",
]


def full(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize(
    ("site", "kind"),
    [*((site, "Python") for site in SITES), *((SITES[3], kind) for kind in list(FULL)[1:]), (SITES[5], "torch")],
)
def test_a_full_memory_is_one_sentence(table, tmp_path, monkeypatch, site, kind):
    error = FULL[kind]
    if site not in SITES[3:5]:  # the work before takes longer than the test
        monkeypatch.setattr("sktda.cli.jobs.Settings.detector", lambda *_: quick())
    monkeypatch.setattr(site, full(error))
    options = ["--scores", tmp_path / "s.csv", "--report", tmp_path / "r.html", "--no-comparison"]
    result = run("clean", table, "-t", "y", "-o", tmp_path / "out.csv", *options)
    refused(result, "the memory is full; use fewer rows or columns, or a smaller --size")
    assert list(tmp_path.iterdir()) == [table]


def quick():
    from sktda import NoisyLabelDetector
    from sktda.attribution import PrecomputedScores

    return NoisyLabelDetector(PrecomputedScores(X[:, 0]), contamination=0.1)


def test_a_full_memory_behind_another_error_is_said_too(tmp_path, monkeypatch):
    pq.write_table(pa.table({"a": X[:, 0], "y": Y}), tmp_path / "x.parquet")
    monkeypatch.setattr("pyarrow.parquet.ParquetFile", full(FULL["arrow"]))
    refused(run("clean", tmp_path / "x.parquet", "-t", "y", "-o", tmp_path / "o.parquet"), "the memory is full")


def test_another_error_is_no_full_memory(table, tmp_path, monkeypatch):
    monkeypatch.setattr(SITES[3], full(RuntimeError("a bug")))
    result = run("clean", table, "-t", "y", "-o", tmp_path / "out.csv")
    assert isinstance(result.exception, RuntimeError)


# ---- folders of images -----------------------------------------------------------------------------------------------


@pytest.fixture
def pets(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "pets" / name)
    return tmp_path / "pets"


def test_what_is_no_regular_file_is_left_out_and_said(pets):
    os.mkfifo(pets / "cat" / "pipe.png")
    (pets / "cat" / "gone.png").symlink_to("nowhere")
    (pets / "dog" / "zero.png").symlink_to("/dev/zero")
    (pets / "dog" / "link.png").symlink_to(pets / "cat" / "1.png")
    images, others = list_images(pets)
    assert images == ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png", "dog/link.png"]
    assert others == ["cat/gone.png", "cat/pipe.png", "dog/zero.png"]


def test_a_class_folder_that_is_a_link_is_followed_but_not_in_circles(pets, tmp_path):
    (tmp_path / "far").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "far" / "1.png")
    (pets / "fox").symlink_to(tmp_path / "far")
    (pets / "cat" / "up").symlink_to(pets)
    (tmp_path / "far" / "back").symlink_to(pets / "cat")
    images, _ = list_images(pets)
    assert {"fox/1.png", "cat/1.png"} <= set(images)
    assert len(images) < 20


@pytest.mark.parametrize("labels", [False, True])
def test_a_folder_that_cannot_be_read_is_said(pets, tmp_path, monkeypatch, labels):
    scan = os.scandir

    def refuse(path="."):
        if str(path) == str(pets / "dog"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (tmp_path / "l.csv").write_text("path,label\ncat/1.png,a\ndog/1.png,b\n")
    options = ["--labels", tmp_path / "l.csv"] if labels else []
    result = run("clean", pets, "-o", tmp_path / "out.csv", *options)
    refused(result, f"the folder {pets / 'dog'} cannot be read (Permission denied); change its permissions")


@pytest.mark.parametrize("place", ["copy", "cat/copy", "../link/copy"])
def test_a_copy_into_the_folder_that_is_read_is_refused(pets, tmp_path, place):
    (tmp_path / "link").symlink_to(pets)
    result = run("clean", pets, "-o", tmp_path / "out.csv", "--copy", pets / place)
    refused(result, "--copy is in the folder that is read", code=2)
    assert not list(pets.rglob("copy"))


# ---- labels ----------------------------------------------------------------------------------------------------------

DAYS = np.array(["2020-01-01", "2021-05-05"], dtype="M8[D]")
ODD = {
    "bytes.npz": np.array([b"cat", b"dog"]),
    "days.npz": DAYS,
    "times.npz": np.array(["2020-01-01T01", "2021-05-05"], dtype="M8[ns]"),
    "seconds.npz": np.array([1, 2], dtype="m8[s]"),
    "other order.npz": np.array([3, 4], dtype=">i4"),
    "timestamps.parquet": pa.array([datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 2)]),
    "zones.parquet": pa.array([datetime.datetime(2020, 1, day, tzinfo=datetime.UTC) for day in (1, 2)]),
    "durations.parquet": pa.array([datetime.timedelta(1), datetime.timedelta(2)]),
}


@pytest.mark.parametrize("name", ODD)
def test_labels_of_odd_types_are_right(tmp_path, name):
    """Relabelled, listed, and relabelled by decisions about the list."""
    two, path = ODD[name], tmp_path / name
    if path.suffix == ".npz":
        np.savez(path, X=X.astype(">f8"), y=two[NOISY])
    else:
        pq.write_table(pa.table({"a": X[:, 0], "b": X[:, 1], "y": two.take(NOISY)}), path)
    expected = two[Y].tolist() if path.suffix == ".npz" else two.take(Y).to_pylist()

    def written():
        if path.suffix == ".npz":
            with np.load(tmp_path / f"out{path.suffix}") as arrays:
                assert arrays["y"].dtype == two.dtype
                return arrays["y"].tolist()
        return pq.read_table(tmp_path / f"out{path.suffix}")["y"].cast(two.type).to_pylist()

    command = ["clean", path, "-t", "y", "-o", tmp_path / f"out{path.suffix}", "--force", "--action", "relabel"]
    result = run(*command, "--drop", 1, "--scores", tmp_path / "s.csv")
    assert result.exit_code == 0, result.output
    assert written() == expected
    scores = pd.read_csv(tmp_path / "s.csv", dtype=str)
    row = scores["row"] == "5"
    scores.loc[row, ["decision", "new_label"]] = ["relabel", scores[scores["row"] == "6"]["given_label"].item()]
    scores.to_csv(tmp_path / "d.csv", index=False)
    result = run(*command, "--drop", 1, "--decisions", tmp_path / "d.csv")
    assert result.exit_code == 0, result.output
    expected[5] = expected[6]
    assert written() == expected


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (Y + 1j, "y of x.npz holds complex128; labels are text, numbers, or dates"),
        (np.array([(1, 2)] * 40, dtype=[("a", int), ("b", int)]), "labels are text, numbers, or dates"),
        (np.array([b"\0\1"] * 40, dtype="V2"), "labels are text, numbers, or dates"),
        (np.array([b"caf\xe9"] * 40), "y of x.npz holds bytes that are no UTF-8 text"),
        (np.array(["a", 1] * 20, dtype=object), "pickled objects are not read"),
    ],
    ids=["complex", "records", "void", "latin", "objects"],
)
def test_labels_that_are_none_are_refused(tmp_path, labels, message):
    np.savez(tmp_path / "x.npz", X=X, y=labels)
    with pytest.raises(ValueError, match=message):
        read_source(tmp_path / "x.npz").frame  # noqa: B018


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([[("a", 1)]] * 40, pa.map_(pa.string(), pa.int64())),
        pa.array([[1]] * 40),
        pa.array([b"\xff"] * 40),
        pa.array([datetime.time(1)] * 40),
    ],
    ids=["map", "list", "bytes", "time"],
)
def test_columns_that_are_no_labels_are_refused(tmp_path, labels):
    pq.write_table(pa.table({"a": X[:, 0], "y": labels}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"column 'y' holds .* in row 0 .*; labels are all text or all numbers"):
        read_labels(read_source(tmp_path / "x.parquet").frame["y"], "auto")


def test_dates_beyond_those_of_python_cannot_be_changed(tmp_path):
    pq.write_table(pa.table({"a": X[:, 0], "y": pa.array(10**15 + NOISY, pa.timestamp("s"))}), tmp_path / "x.parquet")
    source = read_source(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"column 'y' holds timestamp\[ms\], which cannot take the labels"):
        source.write(tmp_path / "o.parquet", np.arange(40), "y", {3: source.frame["y"][0]}, pd.DataFrame())


# ---- archives of arrays ----------------------------------------------------------------------------------------------


def test_other_members_of_an_archive_are_said(tmp_path):
    np.savez(tmp_path / "x.npz", X=X, y=Y)
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("readme.txt", "hello")
        archive.writestr("X", "the name of an array")
        archive.writestr("bad.npy", "no array")
        archive.mkdir("folder")
    result = run("clean", tmp_path / "x.npz", "-o", tmp_path / "o.npz", "--json")
    assert result.exit_code == 0, result.output
    assert "readme.txt, X, bad.npy of x.npz are no arrays and not in the output" in json.loads(result.stdout)["notes"]
    with np.load(tmp_path / "o.npz") as written:
        assert sorted(written) == ["X", "y"]
    np.testing.assert_array_equal(read_features(tmp_path / "x.npz", 40), X)


@pytest.mark.parametrize(
    ("local", "central", "value", "message"),
    [(6, 8, 1, "password required"), (8, 10, 97, "compression method is not supported")],
    ids=["encrypted", "compression"],
)
def test_archives_that_cannot_be_unpacked_are_refused(tmp_path, local, central, value, message):
    path = tmp_path / "x.npz"
    np.savez(path, X=X, y=Y)
    content = bytearray(path.read_bytes())
    for start, place in ((b"PK\3\4", local), (b"PK\1\2", central)):
        for at in [at for at in range(len(content)) if content.startswith(start, at)]:
            content[at + place] = value
    path.write_bytes(content)
    for read in (read_source, lambda path: read_features(path, 40)):
        with pytest.raises(ValueError, match=rf"x\.npz cannot be read as arrays .*{message}"):
            read(path)


@pytest.mark.parametrize("name", ["x.npz", "x.parquet"])
def test_a_damaged_file_is_refused_or_reads_as_it_was_written(tmp_path, name):
    """Every byte of data has a checksum in both."""
    np.savez_compressed(tmp_path / "x.npz", X=X, y=Y.astype("U1"))
    pq.write_table(
        pa.table({"a": X[:, 0], "s": pa.array([{"q": int(v)} for v in Y]), "y": Y}),
        tmp_path / "whole.parquet",
        write_page_checksum=True,
    )
    read_source(tmp_path / "whole.parquet").write(tmp_path / "x.parquet", np.arange(40), "y", {}, pd.DataFrame())
    path, rng = tmp_path / name, np.random.default_rng(0)
    whole, before, accepted = path.read_bytes(), read_source(path), 0
    data = len(whole) if name == "x.npz" else whole.index(b"ARROW:schema")  # behind it is no data
    for kind in ("flip", "cut", "lost", "zeros") * 40:
        start, stop = sorted(rng.integers(4, data, size=2))
        path.write_bytes(
            {
                "flip": whole[:start] + bytes([whole[start] ^ 1 << rng.integers(8)]) + whole[start + 1 :],
                "cut": whole[:start],
                "lost": whole[:start] + whole[stop:],
                "zeros": whole[:start] + bytes(stop - start) + whole[stop:],
            }[kind]
        )
        try:
            found = read_source(path)
        except ValueError as error:
            assert Path(name).name in str(error)  # noqa: PT017
        else:
            accepted += 1
            pd.testing.assert_frame_equal(found.frame, before.frame)
            if name == "x.npz":
                np.testing.assert_array_equal(found.X, X)
    assert accepted < 40
