"""Parquet that is read by row group: what comes out is what comes out of the same rows in memory, or one sentence."""

import json
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sktda.cli import learned_columns, reviews, streamed
from sktda.cli.commands import app
from sktda.cli.formats import row_groups

pytestmark = pytest.mark.usefixtures("few_trees")
N = 240


@pytest.fixture
def by_row_group(monkeypatch):
    monkeypatch.setattr(streamed, "HELD_BYTES", 0)
    monkeypatch.setattr(row_groups, "BLOCK_ROWS", 37)


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def done(*args):
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result.stdout


def summary(*args):
    return json.loads(done(*args, "--json"))


def said(*args):
    """The one sentence of a refusal."""
    result = run(*args)
    assert result.exit_code == 1, result.output
    assert len([line for line in result.output.splitlines() if "encoding" not in line]) == 1, result.output
    return result.output


def table(n=N, seed=0):
    """Rows of every type of column that people have, a tenth of the labels wrong, some missing."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    width = kind + rng.normal(scale=0.2, size=n)
    labels = np.where(rng.random(n) < 0.1, (kind + 1) % 3, kind)
    named = np.array(["barbera", "barolo", "grignolino"], dtype=object)[labels]
    named[[5, n - 3]] = None
    days = np.datetime64("2024-01-01", "us") + (kind * 90 + rng.integers(0, 60, n)).astype("timedelta64[D]")
    colours = np.array(["red", "rosé", "white"])[np.where(rng.random(n) < 0.2, rng.integers(0, 3, n), kind)]
    columns = {
        "id": pa.array([f"wine {7 * i % n:05d}" for i in range(n)]),
        "width": pa.array(np.where(rng.random(n) < 0.05, np.nan, width), from_pandas=True),
        "count": pa.array([None if i % 11 == 0 else int(10 * width[i]) for i in range(n)], pa.int16()),
        "colour": pa.array(colours).dictionary_encode(),
        "day": pa.array(days, pa.timestamp("us", tz="Europe/Berlin")),
        "place": pa.array([{"city": "Bern" if k else "Rome", "height": float(k)} for k in kind]),
        "tags": pa.array([["dry", "old"] if k else ["dry"] for k in kind]),
        "label": pa.array(named),
    }
    return pa.table(columns).replace_schema_metadata({"made by": "a test"})


def folder_of(rows, folder):
    """Several files with row groups of several sizes, an empty one and an empty file among them."""
    folder.mkdir()
    for k, (start, stop, size) in enumerate([(0, 50, 7), (50, 50, 9), (50, 201, 60), (201, len(rows), 1000)]):
        with pq.ParquetWriter(folder / f"part-{k}.parquet", rows.schema, compression="zstd") as writer:
            writer.write_table(rows[start:stop], row_group_size=size)
            writer.write_table(rows[:0])
    (folder / "_SUCCESS").touch()
    return folder


@pytest.mark.parametrize("action", ["drop", "relabel", "flag"])
def test_rows_come_out_as_from_memory(tmp_path, monkeypatch, action):
    pq.write_table(table(), tmp_path / "x.parquet", row_group_size=50, compression="zstd")
    found = {}
    for name, limit in (("memory", 2**40), ("streamed", 0)):
        monkeypatch.setattr(streamed, "HELD_BYTES", limit)
        monkeypatch.setattr(row_groups, "BLOCK_ROWS", 37)
        out, scores = tmp_path / f"{name}.parquet", tmp_path / f"{name} scores.parquet"
        outputs = ("--out", out, "--scores", scores, "--action", action)
        told = summary("clean", tmp_path / "x.parquet", "-t", "label", "--index", "id", *outputs)
        found[name] = told, pq.read_table(out), pd.read_parquet(scores).sort_values("row", ignore_index=True)
    (told, rows, scores), (told_before, rows_before, scores_before) = found["streamed"], found["memory"]
    assert any("by row group" in note for note in told["notes"])
    assert told["n_noisy"] == told_before["n_noisy"] > 5
    assert told["n_unlabelled"] == 2
    assert told["columns"] == told_before["columns"]
    assert rows.schema.equals(rows_before.schema, check_metadata=True)
    for name in rows.column_names:
        if name != "sktda_label_quality":
            assert rows[name].to_pylist() == rows_before[name].to_pylist(), name
    numbers = ["score", "label_quality"]
    pd.testing.assert_frame_equal(scores.drop(columns=numbers), scores_before.drop(columns=numbers))
    np.testing.assert_allclose(scores[numbers], scores_before[numbers], atol=1e-3)
    codecs = {pq.read_metadata(tmp_path / "streamed.parquet").row_group(0).column(j).compression for j in range(3)}
    assert codecs == {"ZSTD"}


def test_a_folder_of_files_is_one_table(tmp_path, by_row_group):
    rows = table()
    folder = folder_of(rows, tmp_path / "rows")
    out, page = tmp_path / "clean.parquet", tmp_path / "page.html"
    told = summary("clean", folder, "-t", "label", "-o", out, "--report", page, "--no-comparison")
    kept = pq.read_table(out)
    assert told["n_rows"] == N
    assert told["n_noisy"] > 5
    assert kept.num_rows == N - told["n_noisy"] == told["n_written"]
    assert kept.schema.equals(pq.read_schema(folder / "part-0.parquet"), check_metadata=True)
    position = {name: row for row, name in enumerate(rows["id"].to_pylist())}
    at = [position[name] for name in kept["id"].to_pylist()]
    assert at == sorted(at)
    assert kept.to_pylist() == rows.take(at).to_pylist()
    assert "Rome" in page.read_text()
    scores = tmp_path / "scores.csv"
    done("score", folder, "-t", "label", "-o", scores)
    again = tmp_path / "again.html"
    done("report", scores, "-d", folder, "-t", "label", "-o", again, "--no-comparison")
    assert "Rome" in again.read_text()


def test_a_page_of_a_review_has_the_cells_of_its_rows(tmp_path, by_row_group):
    rows = table()
    known = pa.compute.is_valid(rows["label"])
    pq.write_table(rows.filter(known), tmp_path / "x.parquet", row_group_size=50)
    done("review", tmp_path / "x.parquet", "-t", "label", "-o", tmp_path / "review.html")
    assert "Rome" in (tmp_path / "review.html").read_text()


def test_what_the_sample_did_not_hold_does_not_stop_it(tmp_path, monkeypatch, by_row_group):
    """Categories, words, missing cells, a rare class, and a label that gives itself away in the sample alone."""
    monkeypatch.setattr(learned_columns, "LEARNED_ROWS", 120)
    n = 800
    rows = table(n)
    drawn = learned_columns.drawn_rows(n, 8, 0)
    late = np.setdiff1d(np.arange(n), drawn)[-40:]
    changed = rows.to_pandas()
    changed["colour"] = changed["colour"].astype(object)
    changed.loc[late, "colour"] = "never seen"
    changed.loc[late[:10], "label"] = "rare"
    changed.loc[:99, "label"] = None  # there is no label in the first row group
    changed["code"] = changed["label"].fillna("barolo").factorize()[0].astype(float)
    changed.loc[late, "code"] = np.nan
    changed["told"] = changed["label"].fillna("barolo")
    changed.loc[late[20:], "told"] = "barolo"
    pq.write_table(pa.Table.from_pandas(changed), tmp_path / "x.parquet", row_group_size=100)
    told = summary("clean", tmp_path / "x.parquet", "-t", "label", "-o", tmp_path / "y.parquet")
    assert told["n_rows"] == n
    kinds = {column["name"]: column["kind"] for column in told["columns"]}
    assert kinds["code"] == "leak", kinds
    assert kinds["told"] != "leak", "it disagrees with some labels that were not drawn"
    assert any("drawn at random" in note for note in told["notes"])
    for name, size in (("whole", n), ("in parts", 200)):
        monkeypatch.setattr(reviews, "PART", size)
        done("score", tmp_path / "x.parquet", "-t", "label", "-o", tmp_path / f"{name}.parquet")
    assert pq.read_metadata(tmp_path / "in parts.parquet").num_row_groups == 4
    assert pq.read_table(tmp_path / "in parts.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))


def test_what_cannot_be_right_is_refused_in_a_sentence(tmp_path, by_row_group):
    rows = table()
    good = tmp_path / "x.parquet"
    pq.write_table(rows, good, row_group_size=50)
    out = ("-t", "label", "-o", tmp_path / "y.parquet")

    def folder(name, *tables):
        (tmp_path / name).mkdir()
        for k, each in enumerate(tables):
            pq.write_table(each, tmp_path / name / f"{k}.parquet")
        return tmp_path / name

    cast = rows.set_column(1, "width", rows["width"].cast(pa.float32()))
    beyond = rows.set_column(1, "width", pa.array([1.0] * 200 + [np.inf] + [1.0] * (N - 201)))
    damaged = bytearray(good.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 400] = bytes(400)
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    (tmp_path / "by year" / "year=2020").mkdir(parents=True)
    pq.write_table(rows, tmp_path / "by year" / "year=2020" / "0.parquet")
    none = rows.set_column(7, "label", pa.nulls(N, pa.string()))
    for words, command in {
        "other columns": ("clean", folder("columns", rows, rows.drop_columns("width")), *out),
        "holds double in 0.parquet and float in 1.parquet": ("clean", folder("types", rows, cast), *out),
        "infinity in row 200": ("clean", folder("infinity", beyond), *out),
        "cannot be read as Parquet": ("clean", tmp_path / "damaged.parquet", *out),
        "year=2020": ("clean", tmp_path / "by year", *out),
        "no row has a label": ("clean", folder("none", none), *out),
        "there is none beside the labels": ("clean", folder("no features", rows.select(["label"])), *out),
        "no rows": ("clean", folder("empty", rows[:0]), *out),
        "is in the folder that is read": (
            *("clean", tmp_path / "no features", "-t", "label", "--force"),
            *("-o", tmp_path / "no features" / "0.parquet"),
        ),
        "ends with .parquet": ("clean", good, "-t", "label", "-o", tmp_path / "y.csv"),
        "have no label": ("review", good, "-t", "label", "-o", tmp_path / "y.html"),
        "--with-data": ("score", good, *out, "--with-data"),
        "--unlabelled predict": ("clean", good, *out, "--unlabelled", "predict"),
        "did you mean 'label'": ("clean", good, "-t", "lable", "-o", tmp_path / "y.parquet"),
    }.items():
        assert words in said(*command), said(*command)
    assert not (tmp_path / "y.parquet").exists()
    assert not list(tmp_path.glob(".sktda-*"))


def test_the_columns_are_never_whole_in_memory(tmp_path, monkeypatch, by_row_group):
    """Four times the rows: what is held beyond the labels and their verdicts does not grow."""
    monkeypatch.setattr(learned_columns, "LEARNED_ROWS", 500)
    monkeypatch.setattr(row_groups, "BLOCK_ROWS", 500)
    peaks = []
    for n in (2_000, 8_000):
        rng = np.random.default_rng(0)
        columns = {f"x{j}": rng.normal(size=n) for j in range(60)}
        rows = pa.table({**columns, "label": columns["x0"] > 0})
        path = tmp_path / f"{n}.parquet"
        pq.write_table(rows, path, row_group_size=1_000)
        settings = streamed.Settings(path, "label")
        tracemalloc.start()
        job = streamed.read_by_row_group(streamed.streamed(settings), settings, lambda text: None)
        job.source.write(tmp_path / f"out {n}.parquet", np.arange(n), "label", {}, pd.DataFrame(index=range(n)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        del job
    assert peaks[1] < peaks[0] + 6_000 * 100, peaks  # of a row 480 bytes are cells
