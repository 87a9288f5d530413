import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_diabetes, load_digits, load_wine
from typer.testing import CliRunner

import sktda
from sktda.cli.commands import app
from sktda.cli.settings import methods

pytestmark = pytest.mark.usefixtures("few_trees")

NAMES = np.array(["barolo", "grignolino", "barbera"])


def run(*args):
    """A command; the column of labels is called label where a test of a table names none."""
    args = [str(arg) for arg in args]
    data = args[1:2] if args[:1] in (["clean"], ["score"]) else args[args.index("-d") + 1 :][:1] if "-d" in args else []
    if any(Path(name).suffix not in ("", ".npz") for name in data) and not {"-t", "--target", "--help"} & set(args):
        args += ["-t", "label"]
    return CliRunner().invoke(app, args)


def done(*args):
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result.stdout


def summary(*args):
    return json.loads(done(*args, "--json"))


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def wine():
    """178 wines, 18 of them with another label; (frame, mask of the wrong rows, true labels)."""
    rng = np.random.default_rng(0)
    data = load_wine(as_frame=True)
    wrong = np.zeros(len(data.target), dtype=bool)
    wrong[rng.choice(len(wrong), 18, replace=False)] = True
    labels = np.where(wrong, (data.target + rng.integers(1, 3, len(wrong))) % 3, data.target)
    frame = data.data.astype(str)
    frame.insert(0, "code", [f"{7 * i % 178:03d}" for i in range(len(frame))])
    frame["day"] = [f"2020-01-{1 + i % 28:02d}" for i in range(len(frame))]
    frame["label"] = NAMES[labels]
    return frame.astype(str), wrong, NAMES[data.target]


@pytest.fixture
def table(wine, tmp_path):
    path = tmp_path / "wine.csv"
    wine[0].to_csv(path, index=False)
    return path


def blobs(n=240, k=3, seed=0):
    """A table of well separated classes, all labels right."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k, n)
    values = rng.normal(0, 4, (k, 4))[label] + rng.normal(size=(n, 4))
    return pd.DataFrame(values.round(3), columns=list("abcd")).assign(kind=np.array(["low", "mid", "high"])[label])


def recall(found, wrong):
    return (found & wrong).sum() / wrong.sum()


def test_clean_drops_the_wrong_rows_and_nothing_else(wine, table, tmp_path):
    frame, wrong, _ = wine
    out = tmp_path / "clean.csv"
    result = summary("clean", table, "--target", "label", "--out", out, "--index", "code")
    lines = table.read_bytes().splitlines(keepends=True)
    kept = out.read_bytes().splitlines(keepends=True)
    assert kept == [line for line in lines if line in set(kept)]  # the same bytes in the same order
    dropped = ~frame["code"].isin(read(out)["code"]).to_numpy()
    assert recall(dropped, wrong) > 0.6
    assert recall(dropped, ~wrong) < 0.02
    assert result["n_noisy"] == dropped.sum() == 178 - result["n_written"]
    assert result["noise_rate"] == pytest.approx(18 / 178, abs=0.05)
    assert result["outputs"] == {"out": str(out)}
    assert result["task"] == "classification"
    assert result["columns"][-1] == {"name": "day", "kind": "date", "how": "days, weekday", "note": ""}
    assert {path.name for path in tmp_path.iterdir()} == {"wine.csv", "clean.csv"}


def test_the_summary_shows_the_worst_rows_and_the_files(table, tmp_path):
    out = tmp_path / "clean.csv"
    text = done("clean", table, "-o", out, "--index", "code", "--scores", tmp_path / "scores.csv")
    assert re.search(r"\d+ of 178 labels are probably wrong \(\d+\.\d%\); \d+ rows written", text)
    worst = read(tmp_path / "scores.csv").iloc[0]
    assert re.search(rf"{worst.code} +{worst.given_label} +{worst.suggested_label}", text)
    assert str(out) in text
    assert done("clean", table, "-o", out, "--force", "--quiet") == ""


def test_a_share_can_be_given(table, tmp_path):
    assert summary("clean", table, "-o", tmp_path / "a.csv", "--drop", "0.25")["n_noisy"] == round(0.25 * 178)


def test_the_seed_decides_the_result(table, tmp_path):
    for name in ("a.csv", "b.csv"):
        done("score", table, "-o", tmp_path / name, "--seed", "3")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize("name", ["w.tsv", "w.csv.gz", "w.parquet"])
def test_every_format_gives_the_same_rows(wine, table, tmp_path, name):
    frame, _, _ = wine
    path, out = tmp_path / name, tmp_path / f"clean-{name}"
    if name == "w.parquet":
        frame.astype(dict.fromkeys(frame.columns[1:14], float)).to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if name == "w.tsv" else ",")
    done("clean", path, "-o", out)
    done("clean", table, "-o", tmp_path / "clean.csv")
    written = pd.read_parquet(out) if name == "w.parquet" else pd.read_csv(out, sep=None, engine="python", dtype=str)
    assert written["code"].tolist() == read(tmp_path / "clean.csv")["code"].tolist()


@pytest.mark.usefixtures("all_trees")
def test_relabel_corrects_and_flag_marks(wine, table, tmp_path):
    frame, wrong, true = wine
    counts = summary("clean", table, "-o", tmp_path / "relabelled.csv", "--action", "relabel")
    relabelled = read(tmp_path / "relabelled.csv")
    assert (frame["label"] == true).sum() == 160
    assert (relabelled["label"] == true).sum() > 172
    assert counts["n_relabelled"] == (relabelled["label"].to_numpy() != frame["label"].to_numpy()).sum() > 0
    pd.testing.assert_frame_equal(relabelled.drop(columns="label"), frame.drop(columns="label"), check_dtype=False)
    done("clean", table, "-o", tmp_path / "flagged.csv", "--action", "flag")
    flagged = read(tmp_path / "flagged.csv")
    assert flagged.columns[-3:].tolist() == ["sktda_noisy", "sktda_suggested_label", "sktda_label_quality"]
    noisy = (flagged["sktda_noisy"] == "True").to_numpy()
    assert recall(noisy, wrong) > 0.6
    assert noisy.sum() == counts["n_noisy"]
    assert ((flagged["sktda_label_quality"].astype(float) < 0.5) == noisy).all()
    assert (
        flagged["sktda_suggested_label"] == np.where(noisy, relabelled["label"], flagged["sktda_suggested_label"])
    ).all()
    notes = summary("clean", tmp_path / "flagged.csv", "-o", tmp_path / "again.csv")["notes"]  # no leak of the verdict
    assert any("written by sktda" in note and "sktda_noisy" in note for note in notes)
    assert "already" in run("clean", tmp_path / "flagged.csv", "-o", tmp_path / "x.csv", "--action", "flag").stderr


def test_npz_and_embeddings(wine, table, tmp_path):
    rng = np.random.default_rng(0)
    digits = load_digits()
    wrong = rng.random(600) < 0.2
    y = np.where(wrong, (digits.target[:600] + rng.integers(1, 10, 600)) % 10, digits.target[:600])
    np.savez(tmp_path / "d.npz", X=digits.images[:600], y=y, fold=np.arange(600))
    result = summary("clean", tmp_path / "d.npz", "-o", tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz") as written:
        found = ~np.isin(np.arange(600), written["fold"])
        np.testing.assert_array_equal(written["X"], digits.images[:600][~found])
    assert recall(found, wrong) > 0.9
    assert result["noise_rate"] == pytest.approx(wrong.mean(), abs=0.05)
    pd.DataFrame({"text": [f"picture number {i}" for i in range(600)], "label": y}).to_csv(tmp_path / "t.csv")
    np.savez(tmp_path / "e.npz", digits.data[:600])
    done(
        "clean", tmp_path / "t.csv", "-o", tmp_path / "tc.csv", "--embeddings", tmp_path / "e.npz", "--target", "label"
    )
    assert recall(~np.isin(np.arange(600), pd.read_csv(tmp_path / "tc.csv").iloc[:, 0]), wrong) > 0.9


def test_regression(tmp_path):
    data = load_diabetes(as_frame=True)
    frame = data.data.assign(target=data.target)
    frame.loc[[10, 20, 30], "target"] = [900, 800, 1]
    frame.to_csv(tmp_path / "d.csv", index=False)
    assert summary("score", tmp_path / "d.csv", "-t", "target", "-o", tmp_path / "s.csv")["task"] == "regression"
    assert set(read(tmp_path / "s.csv")["row"][:2]) == {"10", "20"}
    done("clean", tmp_path / "d.csv", "-o", tmp_path / "c.csv", "--drop", "0.01", "--action", "relabel", "-t", "target")
    cleaned = pd.read_csv(tmp_path / "c.csv")
    assert cleaned["target"][10] < 400
    assert (cleaned["target"] % 1 == 0).all()  # as the targets of this table are
    pd.testing.assert_frame_equal(cleaned.drop(columns="target"), data.data)


@pytest.mark.parametrize(
    ("target", "task"),
    [
        (["a", "b", "c"] * 40, "classification"),
        (["0", "1", "2"] * 40, "classification"),
        (["0.0", "1.0"] * 60, "classification"),
        ([f"{i}.5" for i in range(120)], "regression"),
        ([str(17 * i % 120) for i in range(120)], "regression"),
    ],
)
def test_what_the_labels_are(tmp_path, target, task):
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=120), "target": target})
    frame.to_csv(tmp_path / "d.csv", index=False)
    assert summary("score", tmp_path / "d.csv", "-t", "target", "-o", tmp_path / "s.csv")["task"] == task


@pytest.fixture
def pets(tmp_path):
    """40 pictures, three of them in the wrong folder."""
    rng = np.random.default_rng(0)
    for i in range(40):
        kind = i % 2
        pixels = rng.integers(0, 60, (12, 12, 3)).astype(np.uint8)
        pixels[3:9, 3:9, kind] += 150
        name = ["cat", "dog"][kind if i not in (4, 11, 30) else 1 - kind]
        (tmp_path / "pets" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i:02d}.png")
    return tmp_path / "pets"


WRONG_PETS = {"dog/04.png", "cat/11.png", "dog/30.png"}


def test_an_image_folder_is_listed_and_copied(pets, tmp_path):
    before = sorted(pets.rglob("*"))
    names = {path.relative_to(pets).as_posix() for path in before if path.is_file()}
    options = ["--size", "8", "--drop", "0.075"]
    done("clean", pets, "-o", tmp_path / "list.csv", "--copy", tmp_path / "copy", *options)
    assert set(read(tmp_path / "list.csv")["path"]) == names - WRONG_PETS
    copied = {p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy").rglob("*.png")}
    assert copied == names - WRONG_PETS
    assert sorted(pets.rglob("*")) == before
    done("clean", pets, "-o", tmp_path / "fixed.csv", "--action", "relabel", *options)
    fixed = read(tmp_path / "fixed.csv").set_index("path")["label"]
    assert fixed[sorted(WRONG_PETS)].tolist() == ["dog", "cat", "cat"]
    again = run("clean", pets, "-o", tmp_path / "x.csv", "--copy", tmp_path / "copy", "--force")
    assert (again.exit_code, "never replaced" in again.stderr) == (1, True)


def test_embeddings_of_images_are_aligned_by_path(pets, tmp_path):
    names = sorted(path.relative_to(pets).as_posix() for path in pets.rglob("*.png"))[::-1]
    number = np.array([int(name[4:6]) for name in names])
    X = np.random.default_rng(0).normal(size=(40, 4)) + 5 * (number % 2)[:, None]
    np.savez(tmp_path / "e.npz", X=X, paths=names)
    (pets / "cat" / "00.png").write_bytes(b"no image")  # pixels are not read
    done("score", pets, "-o", tmp_path / "s.csv", "--embeddings", tmp_path / "e.npz", "--drop", "0.075")
    assert set(read(tmp_path / "s.csv")["path"][:3]) == WRONG_PETS


def test_scores_are_worst_first_and_ready_for_review(wine, table, tmp_path):
    frame, wrong, _ = wine
    done("score", table, "-o", tmp_path / "s.csv", "--index", "code")
    scores = read(tmp_path / "s.csv")
    names = "row code given_label suggested_label label_quality score noisy decision new_label"
    names += " duplicate_of near_duplicate_of outlier"
    assert scores.columns.tolist() == names.split()
    assert sorted(scores["row"].astype(int)) == list(range(178))
    rows = scores["row"].astype(int)
    assert scores["code"].tolist() == frame["code"].iloc[rows].tolist()
    assert scores["given_label"].tolist() == frame["label"].iloc[rows].tolist()
    assert scores["label_quality"].astype(float).is_monotonic_increasing
    assert scores["score"].astype(float).is_monotonic_increasing
    assert set(scores["decision"] + scores["new_label"]) == {""}
    assert wrong[rows[:10]].mean() > 0.8
    done("score", table, "-o", tmp_path / "s.parquet", "--index", "code")
    assert pd.read_parquet(tmp_path / "s.parquet")["row"].tolist() == rows.tolist()


@pytest.mark.usefixtures("all_trees")
@pytest.mark.parametrize("by_index", [True, False], ids=["index", "row"])
def test_a_review_overrides_the_tool(wine, table, tmp_path, by_index):
    frame, _, _ = wine
    index = ["--index", "code"] if by_index else []
    done("score", table, "-o", tmp_path / "s.csv", *index)
    scores = read(tmp_path / "s.csv")
    noisy = scores.index[scores["noisy"] == "True"]
    clean = scores.index[::-1]
    scores.loc[noisy[0], "decision"] = "Keep"
    scores.loc[noisy[1], "decision"] = "relabel"
    scores.loc[noisy[2], "decision"] = "relabel "
    third = next(
        name for name in NAMES if name not in scores.loc[noisy[2], ["given_label", "suggested_label"]].tolist()
    )
    scores.loc[noisy[2], "new_label"] = third
    scores.loc[clean[0], "decision"] = "drop"
    rows = scores["row"].astype(int)
    reviewed = scores.loc[[*noisy[:3], clean[0], *clean[5:9]]].sample(frac=1, random_state=0)
    reviewed.drop(columns="row" if by_index else []).to_csv(tmp_path / "r.csv", index=False)
    args = ["clean", table, "-o", tmp_path / "c.csv", "--decisions", tmp_path / "r.csv", *index]
    result = summary(*args)
    expected = frame.copy()
    expected.loc[rows[noisy[1]], "label"] = scores["suggested_label"][noisy[1]]
    expected.loc[rows[noisy[2]], "label"] = third
    expected = expected.drop([*rows[noisy[3:]], rows[clean[0]]])
    assert read(tmp_path / "c.csv").to_numpy().tolist() == expected.to_numpy().tolist()
    assert (result["n_reviewed"], result["n_relabelled"]) == (4, 2)
    done(*args, "--action", "flag", "--force")
    flagged = read(tmp_path / "c.csv")
    assert flagged["sktda_noisy"][rows[noisy[0]]] == "False"
    assert flagged["sktda_noisy"][rows[clean[0]]] == "True"
    assert flagged["sktda_suggested_label"][rows[noisy[2]]] == third


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decision": "delete"}, "row 5 has the decision 'delete'; allowed are keep, drop, relabel"),
        ({"new_label": "barolo"}, "row 5 has the decision '' with the new label 'barolo'"),
        ({"decision": "relabel", "new_label": "bordeaux"}, "row 5 has the new label 'bordeaux', which no row"),
        ({"decision": "relabel", "new_label": "SAME"}, "row 5 is to be relabelled but has that label"),
        ({"row": "178"}, "row '178' is no row of the data"),
        ({"row": "x"}, "row 'x' is no row of the data"),
        ({"row": "6"}, "row '6' occurs twice"),
        ({"given_label": "merlot"}, "row 5 has given_label 'merlot' but the data has"),
    ],
)
def test_a_wrong_review_names_the_row(table, tmp_path, change, message):
    done("score", table, "-o", tmp_path / "s.csv")
    scores = read(tmp_path / "s.csv")
    at = scores.index[scores["row"] == "5"][0]
    for column, value in change.items():
        scores.loc[at, column] = scores["given_label"][at] if value == "SAME" else value
    scores.sort_values("row", key=lambda rows: pd.to_numeric(rows, errors="coerce")).to_csv(
        tmp_path / "r.csv", index=False
    )
    result = run("clean", table, "-o", tmp_path / "c.csv", "--decisions", tmp_path / "r.csv")
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "c.csv").exists()


@pytest.fixture
def pages(monkeypatch):
    """What the report gets, in place of the report."""
    seen = []

    def write_report(path, data, *, comparison, random_state):
        path.write_text("page")
        seen.append(data)
        return {"accuracy_before": 0.5}

    monkeypatch.setattr("sktda.report.page.write_report", write_report)
    return seen


def test_all_outputs_of_one_command(wine, table, tmp_path, pages):
    names = {"--out": "c.csv", "--report": "r.html", "--scores": "s.csv"}
    paths = [part for option, name in names.items() for part in (option, tmp_path / name)]
    result = summary("clean", table, "--index", "code", "--drop", "0.1", "--seed", "3", *paths)
    assert result["report"] == {"accuracy_before": 0.5}
    assert {path.name for path in tmp_path.iterdir()} == {"wine.csv", *names.values()}
    (page,) = pages
    assert page.name == "wine.csv"
    assert page.frame.index.tolist() == wine[0]["code"].tolist()
    assert page.frame["given_label"].tolist() == wine[0]["label"].tolist()
    assert page.features.shape == (178, 15)  # of the day two numbers
    assert "label" not in page.rows
    assert page.rows["day"].tolist() == wine[0]["day"].tolist()
    assert page.detector.contamination == 0.1
    assert page.detector.random_state == 3
    assert not hasattr(page.detector, "scores_")
    assert (
        page.reproduce
        == f"sktda clean {table} --out {tmp_path}/c.csv --target label --report {tmp_path}/r.html --drop 0.1 "
        + (f"--index code --scores {tmp_path}/s.csv --seed 3 --json")
    )
    page.check()
    done("report", tmp_path / "s.csv", "-d", table, "--index", "code", "-o", tmp_path / "r2.html", "--drop", "0.1")
    pd.testing.assert_frame_equal(pages[1].frame, page.frame, check_dtype=False)
    assert pages[1].noise_rate == pytest.approx(18 / 178)


def test_the_report_shows_pictures(pets, tmp_path, pages):
    result = run("clean", pets, "-o", tmp_path / "c.csv", "--report", tmp_path / "r.html", "--size", "8")
    assert result.stderr.splitlines() == ["sktda: scoring 40 rows ...", "sktda: writing the report ..."]  # piped
    assert pages[0].rows is None
    assert pages[0].features.shape == (40, 8, 8, 3)
    assert pages[0].image(0).size == (12, 12)
    np.savez(tmp_path / "x.npz", X=np.random.default_rng(0).random((30, 9, 9)), y=np.arange(30) % 2)
    done("clean", tmp_path / "x.npz", "-o", tmp_path / "c.npz", "--report", tmp_path / "r2.html")
    assert pages[1].image(3).size == (9, 9)


def test_a_report_needs_the_scores_of_these_rows(table, tmp_path, pages):
    done("score", table, "-o", tmp_path / "s.csv")
    scores = read(tmp_path / "s.csv")
    for change, message in [
        (scores.iloc[1:], "scores of 177 rows but the data has 178"),
        (scores.drop(columns="noisy"), "lacks the columns ['noisy']"),
        (scores.assign(score="x"), "has 'x' as score of row 0; a finite number is needed"),
    ]:
        change.to_csv(tmp_path / "t.csv", index=False)
        result = run("report", tmp_path / "t.csv", "-d", table, "-o", tmp_path / "r.html")
        assert (result.exit_code, message in result.stderr) == (1, True), result.stderr
    assert not (tmp_path / "r.html").exists()


def test_spellings_are_merged_for_judging_and_left_in_the_file(tmp_path):
    frame = blobs()
    frame.loc[::4, "kind"] = " " + frame["kind"]
    frame.loc[::9, "kind"] = frame["kind"].str.upper()
    path, out, scores = tmp_path / "d.csv", tmp_path / "c.csv", tmp_path / "s.csv"
    frame.to_csv(path, index=False)
    result = summary("clean", path, "-t", "kind", "-o", out, "--scores", scores)
    assert result["n_noisy"] <= 2
    kept = out.read_bytes().splitlines()
    assert [line for line in path.read_bytes().splitlines() if line in kept] == kept
    assert sum("one to a reader" in note for note in result["notes"]) == 1
    (finding,) = result["findings"]
    assert finding["kind"] == "spelling"
    assert finding["n_rows"] == (frame["kind"] != frame["kind"].str.strip().str.lower()).sum()
    assert len(finding["rows"]) <= 100
    table = read(scores)
    assert table["given_label"].tolist() == frame["kind"].iloc[table["row"].astype(int)].tolist()
    assert set(table["suggested_label"]) <= {"low", "mid", "high"}


def test_labels_that_are_one_to_a_reader_are_no_two_classes(tmp_path):
    blobs(60).assign(kind=["yes", " Yes"] * 30).to_csv(tmp_path / "d.csv", index=False)
    result = run("clean", tmp_path / "d.csv", "-t", "kind", "-o", tmp_path / "c.csv")
    assert (result.exit_code, "column 'kind' has one label ('yes' in all 60 rows)" in result.stderr) == (1, True)


def test_equal_rows_with_different_labels_come_first(tmp_path, pages):
    frame = blobs()
    frame["day"] = [f"2020-01-{1 + i % 28:02d}" for i in range(len(frame))]
    twins = frame.iloc[:8].assign(kind=frame["kind"].iloc[:8].map({"low": "mid", "mid": "high", "high": "low"}))
    other_day = frame.iloc[20:24].assign(kind=twins["kind"].iloc[:4].to_numpy(), day="2021-12-31")
    pd.concat([frame, twins, other_day]).to_csv(tmp_path / "d.csv", index=False)
    args = ["clean", tmp_path / "d.csv", "-t", "kind", "--report", tmp_path / "r.html"]
    result = summary(*args, "-o", tmp_path / "c.csv")
    assert result["findings"][0]["kind"] == "contradiction"
    assert result["findings"][0]["rows"] == [*range(8), *range(240, 248)]  # a date tells the last four apart
    assert result["notes"][0].startswith("8 groups of equal rows have different labels (16 rows; the first: row 0 has")
    assert pages[0].findings[0].detail["groups"][0].tolist() == [0, 240]


@pytest.mark.parametrize("code", [lambda kind: kind.map({"low": 7, "mid": 3, "high": 5}), lambda kind: "x " + kind])
def test_a_column_that_gives_the_label_away_is_no_feature(tmp_path, pages, code):
    frame = blobs()
    frame.assign(code=code(frame["kind"])).to_csv(tmp_path / "d.csv", index=False)
    args = ["clean", tmp_path / "d.csv", "-t", "kind", "-o", tmp_path / "c.csv", "--report", tmp_path / "r.html"]
    result = summary(*args)
    assert [(found["kind"], found["column"]) for found in result["findings"]] == [("leak", "code")]
    assert any("'code' gives the label away" in note and "left out of the features" in note for note in result["notes"])
    np.testing.assert_array_equal(pages[0].features, frame[list("abcd")])
    assert "code" in pages[0].rows


def test_a_leak_stays_where_nothing_else_is_left(tmp_path):
    frame = blobs()
    frame[["kind"]].assign(code=frame["kind"].map({"low": 7, "mid": 3, "high": 5})).to_csv(
        tmp_path / "d.csv", index=False
    )
    notes = summary("score", tmp_path / "d.csv", "-t", "kind", "-o", tmp_path / "s.csv")["notes"]
    assert any("it stays, as there is no other feature" in note for note in notes)


def test_sentinels_are_named_and_taken_as_missing(tmp_path, pages):
    frame = blobs()
    marked = frame.copy()
    marked.loc[::8, "b"] = -999
    marked.to_csv(tmp_path / "d.csv", index=False)
    args = ["clean", tmp_path / "d.csv", "-t", "kind", "-o", tmp_path / "c.csv", "--report", tmp_path / "r.html"]
    result = summary(*args)
    assert any("'b' holds -999 in 30 rows" in note and "taken as missing" in note for note in result["notes"])
    assert pages[0].features.shape == (240, 5)
    assert pages[0].features.min() > -100
    np.testing.assert_array_equal(pages[0].features[:, 2], np.arange(240) % 8 == 0)
    assert "-999" in (tmp_path / "c.csv").read_text()


@pytest.mark.parametrize("unlabelled", ["keep", "drop", "predict"])
def test_rows_without_a_label_are_kept_aside_and_said(tmp_path, unlabelled, pages):
    frame = blobs(120).astype(str)
    true = frame["kind"].iloc[[5, 50]].tolist()
    frame.loc[[5, 50], "kind"] = ["", "NA"]
    path, out, scores = tmp_path / "d.csv", tmp_path / "c.csv", tmp_path / "s.csv"
    frame.to_csv(path, index=False)
    args = [] if unlabelled == "keep" else ["--unlabelled", unlabelled]
    args += ["-t", "kind", "-o", out, "--scores", scores, "--report", tmp_path / "r.html"]
    result = summary("clean", path, *args)
    assert result["n_unlabelled"] == 2
    assert any(
        "2 of 120 rows have no label in column 'kind' ('NA' is none; --na-values '' says that it is one)" in note
        for note in result["notes"]
    )
    found = read(out)
    if unlabelled == "predict":
        assert found.pop("sktda_suggested_label").iloc[[5, 50]].tolist() == true
    expected = frame.drop(index=[5, 50]) if unlabelled == "drop" else frame
    pd.testing.assert_frame_equal(found, expected.reset_index(drop=True))
    assert len(pages[0].frame) == len(pages[0].features) == 118
    told = read(scores).set_index("row").loc[["5", "50"]]
    assert told["noisy"].tolist() == ["False", "False"]
    assert told["suggested_label"].tolist() == (true if unlabelled == "predict" else ["", ""])
    told = read(scores)
    told.loc[told["row"] == "5", ["decision", "new_label"]] = ["relabel", true[0]]
    told.to_csv(scores, index=False)
    done("clean", path, "-t", "kind", "-o", out, "--force", "--decisions", scores)
    assert read(out)["kind"].iloc[[5, 50]].tolist() == [true[0], "NA"]


def test_numbers_to_predict_are_read_and_corrected_as_they_are_written(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 9, 150)
    pay = 1000 * x + 500
    pay[9] = 250_000
    path, out = tmp_path / "d.csv", tmp_path / "c.csv"
    written = [f"{value:,.2f} €".replace(",", "_").replace(".", ",").replace("_", ".") for value in pay]
    pd.DataFrame({"size": [f"{value:.3f} kg".replace(".", ",") for value in x], "pay": written}).to_csv(
        path, index=False
    )
    result = summary("clean", path, "-t", "pay", "-o", out, "--action", "relabel", "--drop", "0.0067")
    assert result["task"] == "regression"
    assert f"labels: {written[0]!r} read as {pay[0]:.2f} €" in " ".join(result["notes"])
    new = read(out)["pay"].iloc[9]
    assert re.fullmatch(r"\d+\.\d{3},\d\d+ €", new), new
    assert float(new[:-2].replace(".", "").replace(",", ".")) == pytest.approx(1000 * x[9] + 500, rel=0.2)


def test_a_table_of_one_column_of_text_needs_no_option(tmp_path):
    rng = np.random.default_rng(0)
    words = {"ham": "home love dinner later mum sleep tomorrow", "spam": "prize free win cash claim urgent txt"}
    label = rng.choice(["ham", "spam"], 200, p=[0.7, 0.3])
    text = [" ".join([*rng.choice(words[k].split(), 5), *rng.choice(["the", "you", "to", "a"], 4)]) for k in label]
    label[:20] = np.where(label[:20] == "ham", "spam", "ham")
    path = tmp_path / "sms.csv"
    pd.DataFrame({"label": label, "message": text}).to_csv(path, index=False)
    done("clean", path, "--target", "label", "-o", tmp_path / "c.csv", "--scores", tmp_path / "s.csv")
    flagged = read(tmp_path / "s.csv").query("noisy == 'True'")["row"].astype(int)
    assert len(set(flagged) & set(range(20))) >= 19
    assert len(flagged) <= 21


def test_equal_pictures_in_two_folders_are_named(pets, tmp_path):
    (pets / "dog" / "x.png").write_bytes((pets / "cat" / "02.png").read_bytes())
    result = summary("score", pets, "-o", tmp_path / "s.csv", "--size", "12")
    names = sorted(path.relative_to(pets).as_posix() for path in pets.rglob("*.png"))
    assert result["findings"][0]["kind"] == "contradiction"
    assert [names[row] for row in result["findings"][0]["rows"]] == ["cat/02.png", "dog/x.png"]


@pytest.mark.parametrize("kind", ["labels", "values"])
def test_where_features_do_not_predict_the_first_sentence_says_so(tmp_path, kind):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 4)).round(3), columns=list("abcd"))
    frame["y"] = rng.choice(["p", "q"], 200) if kind == "labels" else rng.normal(size=200).round(3)
    path, out = tmp_path / "d.csv", tmp_path / "c.csv"
    frame.to_csv(path, index=False)
    text = done("clean", path, "-o", out, "-t", "y")
    assert text.startswith("The features do not predict the " + kind[:-1])
    assert "none is called wrong; 200 rows written" in text.splitlines()[0]
    assert ("balanced accuracy" if kind == "labels" else "R²") in text.splitlines()[0]
    assert "Worst rows" not in text
    assert out.read_bytes() == path.read_bytes()
    result = summary("clean", path, "-o", out, "--force", "-t", "y")  # to replace a file is not to drop rows
    assert result["can_tell"] is False
    assert (result["n_noisy"], result["noise_rate"], result["noise_rate_interval"][0]) == (0, 0.0, 0.0)
    assert result["predictability"] < result["chance"] + 3 * result["predictability_error"]
    assert not [note for note in result["notes"] if "predict" in note]
    text = done("clean", path, "-o", out, "--force", "--drop", "0.1", "-t", "y")
    assert text.startswith("The features do not predict the " + kind[:-1])
    assert "--drop asked for 20 rows" in text.splitlines()[0]
    assert len(read(out)) == 180


def test_what_was_estimated_is_in_the_json(table, tmp_path):
    result = summary("score", table, "-o", tmp_path / "s.csv")
    low, high = result["noise_rate_interval"]
    assert 0 <= low <= result["noise_rate"] <= high <= 1
    assert result["can_tell"] is True
    assert result["predictability"] > 0.7
    assert result["chance"] == pytest.approx(1 / 3)
    assert result["scale"] in {"standard", "unit"}
    assert any("standardised columns" in note for note in result["notes"])
    assert result["findings"] == []


class Judged:
    """A fitted detector that flags the first rows."""

    def __init__(self, n_flagged):
        self.n_flagged = n_flagged

    def fit(self, X, y):
        self.labels_ = np.where(np.arange(len(y)) < self.n_flagged, -1, 1)
        self.noise_rate_ = self.n_flagged / len(y)
        self.scores_ = self.label_quality_ = np.linspace(0, 1, len(y))
        self.suggested_labels_ = y[::-1]
        return self


@pytest.mark.parametrize(("n_flagged", "drop", "said"), [(90, "auto", True), (90, "0.375", False), (70, "auto", False)])
def test_many_flags_are_doubted(tmp_path, monkeypatch, n_flagged, drop, said):
    blobs().to_csv(tmp_path / "d.csv", index=False)
    monkeypatch.setattr("sktda.cli.jobs.Settings.detector", lambda *_: Judged(n_flagged))
    result = summary("clean", tmp_path / "d.csv", "-t", "kind", "-o", tmp_path / "c.csv", "--drop", drop)
    doubts = [note for note in result["notes"] if "rarely so" in note]
    assert bool(doubts) == said
    assert not said or all(cause in doubts[0] for cause in ("right column", "overlap", "sources or units"))
    assert result["can_tell"] is True  # a detector that says nothing of it is believed


def test_a_cleaning_that_makes_models_worse_is_warned_of(table, tmp_path, monkeypatch):
    def write_report(path, data, *, comparison, random_state):
        path.write_text("page")
        return {"verdict": "worse"}

    monkeypatch.setattr("sktda.report.page.write_report", write_report)
    result = summary("clean", table, "-o", tmp_path / "c.csv", "--report", tmp_path / "r.html", "--drop", "0.3")
    assert result["notes"][0].startswith("keep these rows")


GOOD = "a,b,label\n" + "".join(f"{i % 7},{i * i % 11},{'xy'[i % 2]}\n" for i in range(40))
BAD = {
    "empty": ("", "is empty"),
    "header only": ("a,b,label\n", "no rows"),
    "ragged": (GOOD + "1,2\n", "line 42: 2 fields where the header has 3"),
    "infinity": (GOOD + "inf,2,x\n", "column 'a' holds infinity in row 40"),
    "one class": (GOOD.replace(",y", ",x"), "one label ('x' in all 40 rows)"),
    "one row": ("a,b,label\n1,2,x\n", "two are needed"),
    "no label": ("a,label\n1,\n2,NA\n", "no row has a label in column 'label'; name another column with --target"),
    "no target": (GOOD.replace("label", "lable"), "data.csv has no column 'label'; did you mean 'lable'?"),
    "two targets": (GOOD.replace("b,label", "label,label"), "did you mean 'label (2)', 'label (1)'?"),
    "ids": ("a,label\n" + "".join(f"{i % 3},n{i}\n" for i in range(30)), "30 different labels in 30 rows"),
    "ids only": ("a,label\n" + "".join(f"n{i},{i % 2}\n" for i in range(30)), "identifiers): 'a'); name embeddings"),
    "transposed": ("a," * 200_000 + "label\n", "more than 100,000 columns"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_gives_one_error_and_no_output(tmp_path, case):
    text, message = BAD[case]
    (tmp_path / "data.csv").write_text(text)
    result = run("clean", tmp_path / "data.csv", "-o", tmp_path / "out.csv", "--scores", tmp_path / "s.csv")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("sktda: error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["clean", "DATA", "-o", "OUT", "-t", "lable"], 1, "data.csv has no column 'lable'; did you mean 'label'?"),
        (["clean", "DATA", "-o", "OUT", "-t", "LABEL "], 1, "data.csv has no column 'LABEL '; did you mean 'label'?"),
        (["clean", "DATA", "-o", "OUT", "--index", "c"], 1, "data.csv has no column 'c'; it has 'a', 'b', 'label'"),
        (["clean", "DATA", "-o", "OUT", "--index", "label"], 1, "cannot be both --index and --target"),
        (["clean", "DATA", "-o", "OUT", "--task", "regression"], 1, "column 'label' has 'x' in row 0"),
        (["clean", "DATA", "-o", "DATA", "--force"], 1, "never written over"),
        (["clean", "DATA", "-o", "OTHER"], 1, "exists already; choose another name, or add --force"),
        (["clean", "DATA", "-o", "DATA/x.csv"], 1, "data.csv is not a folder"),
        (["clean", "DATA", "-o", "OUT", "--scores", "OUT"], 1, "two outputs"),
        (["clean", "NO", "-o", "OUT"], 1, "no.csv does not exist"),
        (["clean", "DATA", "-o", "OUT", "--embeddings", "NO"], 1, "no.csv does not exist"),
        (["clean", "FOLDER", "-o", "OUT"], 1, "no images in class folders"),
        (["clean", "DATA", "-o", "OUT.docx"], 2, "unknown ending; allowed are .csv"),
        (
            ["clean", "DATA", "-o", "OUT", "--drop", "1.5"],
            2,
            "--drop '1.5' is neither auto, nor confident-joint",
        ),
        (["clean", "DATA", "-o", "OUT", "--drop", "nan"], 2, "--drop 'nan'"),
        (
            ["clean", "DATA", "-o", "OUT", "--method", "magic"],
            2,
            "--method 'magic' is unknown; available: aum, boostin, complexity-gap",
        ),
        (["clean", "DATA", "-o", "OUT", "--copy", "NEW"], 2, "--copy needs an image folder"),
        (["clean", "DATA", "-o", "OUT", "--drop", "40"], 1, "--drop 40 is no fewer than the 40 rows there are"),
        (["clean", "DATA"], 2, "name the output with --out"),
        (["clean", "DATA", "-o", "OUT", "--task", "magic"], 2, "'--task'"),
        (["magic"], 2, "No such command 'magic'"),
    ],
)
def test_a_wrong_command_gives_one_error_and_no_output(tmp_path, args, code, message):
    (tmp_path / "data.csv").write_text(GOOD)
    (tmp_path / "other.csv").write_text("old")
    (tmp_path / "folder").mkdir()
    words = {
        "DATA": "data.csv",
        "OUT": "out.csv",
        "OTHER": "other.csv",
        "NO": "no.csv",
        "FOLDER": "folder",
        "NEW": "new",
    }
    result = run(*(re.sub("|".join(words), lambda m: str(tmp_path / words[m[0]]), arg) for arg in args))
    assert result.exit_code == code
    assert message in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "folder", "other.csv"]
    assert (tmp_path / "other.csv").read_text() == "old"
    assert (tmp_path / "data.csv").read_text() == GOOD


@pytest.mark.parametrize("name", ["row", "score", "given_label", "label_quality"])
def test_an_index_may_be_named_like_a_column_of_the_scores(wine, tmp_path, name):
    frame, _, _ = wine
    frame.rename(columns={"code": name}).to_csv(tmp_path / "w.csv", index=False)
    text = done("score", tmp_path / "w.csv", "-o", tmp_path / "s.csv", "--index", name)
    worst = read(tmp_path / "s.csv").iloc[0]
    assert re.search(rf"{worst[f'{name}_']} +{worst.given_label} +{worst.suggested_label}", text)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["x"], ["y"]], "column 'label' holds ['x'] in row 0 (counted from 0); labels are all text or all numbers"),
        ([{"n": 1}, "y"], "column 'label' holds {'n': 1} in row 0"),
        (["x", 3], "column 'label' holds 3 in row 1 (counted from 0) beside 'x' in row 0"),
        ([1, "1"], "column 'label' holds '1' in row 1 (counted from 0) beside 1 in row 0"),
    ],
)
def test_labels_are_all_text_or_all_numbers(tmp_path, labels, message):
    lines = [json.dumps({"a": i % 7, "label": labels[i % 2]}) for i in range(20)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    result = run("clean", tmp_path / "data.jsonl", "-o", tmp_path / "out.csv")
    assert result.exit_code == 1
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("noisy", "maybe", "has 'maybe' as noisy of row 3; True or False is needed"),
        ("score", "", "has '' as score of row 3; a finite number is needed"),
        ("label_quality", "inf", "has 'inf' as label_quality of row 3; a finite number is needed"),
    ],
)
def test_scores_that_were_spoilt_are_refused(tmp_path, column, cell, message):
    """A cell that is neither yes nor no would count as no."""
    (tmp_path / "data.csv").write_text(GOOD)
    done("score", tmp_path / "data.csv", "-o", tmp_path / "s.csv")
    scores = read(tmp_path / "s.csv")
    scores.loc[scores["row"] == "3", column] = cell
    scores.to_csv(tmp_path / "s.csv", index=False)
    result = run("report", tmp_path / "s.csv", "-d", tmp_path / "data.csv", "-o", tmp_path / "r.html")
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "r.html").exists()


def test_features_of_another_length_are_refused(tmp_path):
    (tmp_path / "data.csv").write_text(GOOD)
    np.savez(tmp_path / "e.npz", X=np.ones((39, 2)))
    result = run("clean", tmp_path / "data.csv", "-o", tmp_path / "out.csv", "--embeddings", tmp_path / "e.npz")
    assert result.exit_code == 1
    assert "shape (39, 2) but the data has 40 rows" in result.stderr


def test_broken_images_are_named_and_left_out(pets, tmp_path):
    (pets / "cat" / "bad.png").write_bytes(b"no")
    result = summary("clean", pets, "-o", tmp_path / "out.csv", "--size", "8")
    said = "1 of 41 images cannot be read: cat/bad.png (not an image); they are neither judged nor in the output"
    assert said in result["notes"]
    assert ("unreadable", said) in [(finding["kind"], finding["message"]) for finding in result["findings"]]
    assert result["n_rows"] == 40
    assert "bad.png" not in (tmp_path / "out.csv").read_text()


@pytest.mark.parametrize(
    "command",
    [
        ["clean", "data.csv", "-o", "new.csv", "--report", "old.html"],
        ["score", "data.csv", "-o", "old.html"],
        ["score", "data.csv", "-o", "old.csv"],
        ["report", "old.csv", "--data", "data.csv", "-o", "old.html"],
    ],
)
def test_the_outputs_are_checked_before_the_work(tmp_path, monkeypatch, command):
    (tmp_path / "data.csv").write_text(GOOD)
    for name in ("old.html", "old.csv"):
        (tmp_path / name).write_text("old")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sktda.cli.jobs.Job.load", lambda *_: pytest.fail("the data was read"))
    result = run(*command)
    wrong = "unknown ending" if command[:4] == ["score", "data.csv", "-o", "old.html"] else "exists already"
    assert result.exit_code == (2 if wrong == "unknown ending" else 1)
    assert wrong in result.stderr


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device; nothing was left behind"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
        (MemoryError(), 1, "the memory is full"),
    ],
)
def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch, failure, code, message):
    (tmp_path / "data.csv").write_text(GOOD)
    (tmp_path / "out.csv").write_text("old")

    def fail(frame, path):
        path.write_text("half")
        raise failure

    monkeypatch.setattr("sktda.cli.formats.write_frame", fail)  # writes the scores, after the table
    scores = tmp_path / "s.csv"
    result = run("clean", tmp_path / "data.csv", "-o", tmp_path / "out.csv", "--scores", scores, "--force")
    assert result.exit_code == code
    assert message in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "out.csv"]
    assert (tmp_path / "out.csv").read_text() == "old"


@pytest.mark.parametrize(("module", "extra"), [("jinja2", "report"), ("pyarrow", "shell")])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, module, extra):
    (tmp_path / "data.csv").write_text(GOOD)

    def read_source(*_):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    if extra == "report":
        monkeypatch.setitem(sys.modules, module, None)  # the next import fails
        monkeypatch.setattr("sktda.cli.jobs.Job.load", lambda *_: pytest.fail("this shows before the data is read"))
    else:
        monkeypatch.setattr("sktda.cli.jobs.read_source", read_source)
    result = run("clean", tmp_path / "data.csv", "-o", tmp_path / "out.csv", "--report", tmp_path / "r.html")
    assert result.exit_code == 1
    assert result.stderr == f'sktda: error: {module} is not installed; install it with: pip install "sktda[{extra}]"\n'


def test_methods_are_found_by_walking_the_package(monkeypatch):
    assert set(methods()) == {
        "aum",
        "boostin",
        "complexity-gap",
        "confident-learning",
        "data-oob",
        "diffin",
        "distributional",
        "el2n",
        "ensemble",
        "forgetting",
        "grand",
        "influence",
        "inner-product",
        "kernel-forest",
        "knn-shapley",
        "label-posterior",
        "leaf-influence",
        "logit-margin",
        "logra",
        "loss",
        "model-ensemble",
        "moso",
        "normalized-margin",
        "outlier-gradient",
        "robust-residual",
        "self-confidence",
        "sgd-influence",
        "source",
        "tracin",
        "trak",
        "tree-kernel",
    }

    class KNNShapley(sktda.attribution.ComplexityGap):
        pass

    monkeypatch.setattr(sktda.attribution, "KNNShapley", KNNShapley, raising=False)
    monkeypatch.setattr(sktda.attribution, "__all__", ["ComplexityGap", "KNNShapley", "PrecomputedScores"])
    assert methods() == {"complexity-gap": sktda.attribution.ComplexityGap, "knn-shapley": KNNShapley}


def test_a_method_that_trains_a_net_scores_a_file(table, tmp_path):
    scores = tmp_path / "scores.csv"
    done("score", table, "--method", "tracin", "-o", scores)
    assert np.isfinite(pd.read_csv(scores)["score"]).all()


@pytest.mark.parametrize("command", [[], ["clean"], ["score"], ["report"]])
def test_help_fits_the_screen(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = done(*command, "--help")
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("Usage: ")
    assert done("--version").strip() == f"sktda {sktda.__version__}"


def test_the_command_as_a_user_runs_it(table, tmp_path):
    """From the shell, with the real report; the summary is on stdout and nothing is on stderr."""
    out, page = tmp_path / "clean.csv", tmp_path / "report.html"
    command = [
        sys.executable,
        "-m",
        "sktda",
        "clean",
        "wine.csv",
        "-t",
        "label",
        "--out",
        "clean.csv",
        "--report",
        "report.html",
    ]
    finished = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    result = json.loads(finished.stdout)
    assert result["n_written"] == len(read(out))
    assert 0 < result["report"]["accuracy_before"] <= 1
    assert "sktda clean wine.csv --out clean.csv --target label --report report.html" in page.read_text(
        encoding="utf-8"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean.csv", "report.html", "wine.csv"]


def test_help_loads_nothing_heavy():
    code = "import sys, sktda.cli.commands; print({'numpy', 'pandas', 'sklearn', 'torch', 'rich'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert finished.stdout == "set()\n", finished.stderr


def test_the_entry_point_is_installed():
    script = Path(sys.executable).with_name("sktda")
    if not script.exists():
        pytest.skip("the package is not installed as a distribution")
    finished = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert finished.stdout == f"sktda {sktda.__version__}\n"


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet"])
def test_flags_of_rows_without_a_label_are_empty(tmp_path, name):
    frame = blobs(90)
    frame.loc[[5, 50], "kind"] = None
    path, out = tmp_path / name, tmp_path / f"out-{name}"
    {"d.csv": frame.to_csv, "d.parquet": frame.to_parquet}.get(name, lambda path, **_: None)(path, index=False)
    if name == "d.jsonl":
        frame.to_json(path, orient="records", lines=True)
    done("clean", path, "-t", "kind", "-o", out, "--action", "flag")
    assert "nan" not in out.read_bytes().lower().decode("latin-1") or name == "d.parquet"
    found = read(out) if name == "d.csv" else pd.read_parquet(out) if name == "d.parquet" else None
    found = pd.DataFrame(map(json.loads, out.read_text().splitlines())) if found is None else found
    told = found.iloc[[5, 50]]
    assert (told["sktda_label_quality"].isna() | (told["sktda_label_quality"].astype(str) == "")).all()
    assert (told["sktda_suggested_label"].isna() | (told["sktda_suggested_label"] == "")).all()
