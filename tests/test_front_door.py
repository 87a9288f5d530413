"""The shell with what people type and have: options, standard input and output, terminals, image folders."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from sktda.cli.commands import app
from sktda.cli.options import drop_amount
from sktda.cli.plan import read_text_cells

pytestmark = pytest.mark.usefixtures("few_trees")

TEXT = "a,b,word,kind\n" + "".join(
    f"{i * 7 % 11},{i * i % 13},{'pqr'[i % 3]},{'xy'[(i * 7 % 11 > 5) ^ (i % 9 == 4)]}\n" for i in range(60)
)


def run(*args, stdin=None):
    return CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)


def done(*args, stdin=None):
    result = run(*args, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(TEXT)
    return path


@pytest.fixture
def judged(monkeypatch):
    """The amounts that the detector is asked for, in place of its work: it flags so many of the first rows."""
    asked = []

    class Judged:
        def __init__(self, amount, n_rows):
            self.share = 0.05 if amount == "auto" else amount / n_rows if isinstance(amount, int) else amount

        def fit(self, X, y):
            n_flagged = round(self.share * len(y))
            self.labels_ = np.where(np.arange(len(y)) < n_flagged, -1, 1)
            self.noise_rate_ = n_flagged / len(y)
            self.scores_ = self.label_quality_ = np.linspace(0, 1, len(y))
            self.suggested_labels_ = np.roll(y, 1)
            return self

    def detector(self, task, n_rows, unlabelled="error"):
        asked.append((self.drop, task, n_rows))
        return Judged(self.drop, n_rows)

    monkeypatch.setattr("sktda.cli.jobs.Settings.detector", detector)
    return asked


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("auto", "auto"),
        ("Auto", "auto"),
        ("10%", 0.1),
        ("2.5 %", 0.025),
        ("0.1", 0.1),
        (".5", 0.5),
        ("10", 10),
        ("0", 0),
        ("Confident-Joint", "confident-joint"),
    ],
)
def test_amounts_are_read_as_people_type_them(text, amount):
    assert drop_amount(text) == amount
    assert isinstance(drop_amount(text), type(amount))


@pytest.mark.parametrize("text", ["1.5", "100%", "150%", "-1", "nan", "ten", "", "1e-1", "10 rows", "0.1.2"])
def test_other_amounts_are_refused(table, text):
    result = run("clean", table, "-t", "kind", "-o", "o.csv", "--drop", text)
    assert (result.exit_code, "neither auto, nor confident-joint, nor a share" in result.stderr) == (2, True)


def test_the_confident_joint_is_for_classes(table, tmp_path):
    done("clean", table, "-t", "kind", "-o", tmp_path / "o.csv", "--drop", "confident-joint")
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("a,b\n" + "".join(f"{i % 7},{i * 1.37:.2f}\n" for i in range(60)))
    result = run("clean", numbers, "-t", "b", "-o", tmp_path / "n.csv", "--drop", "confident-joint")
    assert (result.exit_code, "take --drop auto" in result.stderr) == (1, True)


@pytest.mark.parametrize(("text", "n_kept"), [("10%", 54), ("7", 53), ("0.25", 45)])
def test_so_many_rows_are_dropped(table, tmp_path, judged, text, n_kept):
    done("clean", table, "-t", "kind", "-o", tmp_path / "o.csv", "--drop", text)
    assert len((tmp_path / "o.csv").read_text().splitlines()) == n_kept + 1


def test_the_number_of_rows_is_what_the_detector_drops(table, tmp_path):
    done("clean", table, "-t", "kind", "-o", tmp_path / "o.csv", "--drop", "7")
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 54


def test_without_target_the_columns_are_listed_and_none_is_guessed(table, tmp_path):
    table.write_text(TEXT.replace("kind", "label", 1))  # not even this one
    for args in (["clean", table], ["clean", table, "-o", tmp_path / "o.csv"], ["score", table]):
        result = run(*args)
        assert result.exit_code == 2
        assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["a", "b", "word", "label"]
        assert "p, q, r" in result.stdout
        assert "(11 different)" in result.stdout
        assert (
            result.stderr
            == "sktda: error: name the column of labels with --target; t.csv has 'a', 'b', 'word', 'label'\n"
        )
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ([], {"a", "b", "word"}),
        (["--ignore", "a"], {"b", "word"}),
        (["--ignore", "a,word"], {"b"}),
        (["--ignore", "a", "--ignore", "b"], {"word"}),
        (["--index", "word"], {"a", "b"}),
    ],
)
def test_features_are_listed_and_nothing_is_written(table, options, used):
    result = done("clean", table, "-t", "kind", "--columns", *options)
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert {name for name, line in lines.items() if "not used" not in line} == used
    assert [path.name for path in table.parent.iterdir()] == ["t.csv"]


def test_numbers_may_be_categories(table, tmp_path, judged):
    for options, kind in (([], "number"), (["--as-category", "a"], "category")):
        result = done("score", table, "-t", "kind", "-o", tmp_path / "s.csv", "--json", "--force", *options)
        columns = {column["name"]: column["kind"] for column in json.loads(result.stdout)["columns"]}
        assert columns["a"] == kind


def test_na_is_a_label_where_the_user_says_so(table, tmp_path, judged):
    def n_unlabelled(text, *options):
        table.write_text(text)
        result = json.loads(
            done("score", table, "-t", "kind", "-o", tmp_path / "s.csv", "--force", "--json", *options).stdout
        )
        assert ("--na-values '' says that it is one" in " ".join(result["notes"])) == bool(result["n_unlabelled"])
        return result["n_unlabelled"]

    some = TEXT.replace("q,x\n", "q,NA\n")
    assert n_unlabelled(some) == some.count("NA") > 3
    assert n_unlabelled(some, "--na-values", "") == 0
    assert n_unlabelled(TEXT.replace(",x\n", ",unknown\n", 1), "--na-values", "unknown, -") == 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [(TEXT, TEXT), (TEXT.replace(",", "\t"), None), ('{"a": 1, "kind": "x"}\n{"a": 2,  "kind": "y"}\n' * 30, None)],
    ids=["csv", "tabs", "lines"],
)
def test_standard_input_and_output_keep_the_format(judged, given, kept):
    result = done("clean", "-", "-t", "kind", "-o", "-", stdin=given)
    first = 0 if given.startswith("{") else 1  # the header stays
    lines = given.splitlines(keepends=True)
    assert result.stdout == "".join(lines[:first] + lines[first + 3 :])
    assert "3 of 60 labels" in result.stderr
    assert "nothing" not in result.stderr


def test_scores_go_to_standard_output(table, judged):
    result = done("score", table, "-t", "kind", "-o", "-", "--quiet")
    assert result.stdout.startswith("row,given_label,")
    assert len(result.stdout.splitlines()) == 61
    assert result.stderr == ""


def test_binary_formats_pass_through_standard_input(tmp_path, judged):
    frame = pd.DataFrame({"a": range(60), "b": np.arange(60) % 7, "kind": ["x", "y"] * 30})
    for name in ("t.parquet", "t.xlsx", "t.csv.gz"):
        path = tmp_path / name
        {"t.parquet": frame.to_parquet, "t.xlsx": frame.to_excel}.get(name, frame.to_csv)(path, index=False)
        result = done("clean", "-", "-t", "kind", "-o", tmp_path / f"{name}.out.csv", stdin=path.read_bytes())
        assert "3 of 60 labels" in result.stdout
        assert (tmp_path / f"{name}.out.csv").read_text().splitlines()[1] == "3,3,y"


def test_a_database_is_named_as_a_url(tmp_path, judged):
    import sqlite3

    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE TABLE t (a INTEGER, b INTEGER, kind TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?)", [(i, i % 7, "xy"[i % 2]) for i in range(60)])
    connection.close()
    done("clean", f"sqlite:///{tmp_path}/x.db", "-t", "kind", "-o", tmp_path / "o.csv", "--table", "t")
    query = "SELECT b, kind FROM t WHERE a < 40"
    done("clean", tmp_path / "x.db", "-t", "kind", "-o", tmp_path / "q.xlsx", "--query", query)
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 58
    assert openpyxl.load_workbook(tmp_path / "q.xlsx").active.max_row == 1 + 40 - 2


ESCAPE = "\x1b]0;pwned\x07"


def test_a_label_does_not_change_the_title_of_a_terminal(tmp_path, judged):
    text = TEXT.replace(",x\n", f",{ESCAPE}x\n").replace("word", f"wo{ESCAPE}rd", 1).replace(",p,", f",{ESCAPE}p,")
    path = tmp_path / "t.csv"
    path.write_text(text)
    for args in (
        [
            "clean",
            path,
            "-t",
            "kind",
            "-o",
            tmp_path / "o.csv",
            "--index",
            f"wo{ESCAPE}rd",
            "--scores",
            tmp_path / "s.csv",
        ],
        ["clean", path, "-t", "kind", "--columns"],
        ["clean", path, "-t", "kind", "-o", tmp_path / "j.csv", "--json"],
        ["clean", path],
        ["clean", path, "-t", f"kin{ESCAPE}", "-o", tmp_path / "o2.csv"],
        ["clean", path, "-t", f"wo{ESCAPE}rd", "-o", tmp_path / "o3.csv", "--task", "regression"],
        ["clean", f"no{ESCAPE}.csv", "-t", "kind", "-o", tmp_path / "o4.csv"],
        ["clean", path, f"more{ESCAPE}.csv"],
        ["clean", path, "-t", "kind", "-o", tmp_path / "o.csv", "--action", ESCAPE],
        [f"cle{ESCAPE}an"],
    ):
        output = run(*args).output
        assert "\x1b" not in output
        assert "\x07" not in output
        assert "\\x1b" in output or "\\u001b" in output or "--json" in args
    assert ESCAPE in (tmp_path / "o.csv").read_text()  # the file stays exact


def test_scores_for_spreadsheets_have_no_formulas_and_come_back_as_decisions(tmp_path, judged):
    path = tmp_path / "t.csv"
    path.write_text(TEXT.replace(",x\n", ',"=HYPERLINK(""http://x"",""y"")"\n').replace(",y\n", ",@sum\n"))
    for name in ("s.csv", "s.xlsx"):
        args = ["-t", "kind", "-o"]
        done("score", path, *args, tmp_path / name)
        if name == "s.csv":
            cells = pd.read_csv(tmp_path / name, dtype=str)["given_label"]
            assert set(cells) == {'\'=HYPERLINK("http://x","y")', "'@sum"}
        else:
            sheet = openpyxl.load_workbook(tmp_path / name).active
            assert "f" not in {cell.data_type for row in sheet.iter_rows() for cell in row}
        scores = pd.read_csv(tmp_path / name, dtype=str) if name == "s.csv" else cells_of(sheet)
        scores["decision"] = np.where(scores["row"] == "5", "relabel", "keep")
        scores["new_label"] = np.where(scores["row"] == "5", "'@sum" if name == "s.csv" else "@sum", "")
        scores.to_csv(tmp_path / "d.csv", index=False)
        done("clean", path, *args, tmp_path / f"{name}.out.csv", "--decisions", tmp_path / "d.csv")
        expected = path.read_text().splitlines()
        assert expected[6].endswith('""y"")"')
        expected[6] = "2,12,r,@sum"
        assert (tmp_path / f"{name}.out.csv").read_text().splitlines() == expected  # exact, without quotes


@pytest.mark.parametrize("end", [".csv", ".xlsx", ".xlsx.gz"])
def test_scores_with_data_have_the_lines_and_cells_of_the_rows_and_come_back_as_decisions(tmp_path, judged, end):
    lines = [f'{i},{i % 7},"=a{i}\nb",@x,{"xy"[i % 2]}\n' + "\n" * (i % 5 == 4) for i in range(60)]
    path = tmp_path / "t.csv"
    path.write_text("# a comment\n\nid,score,note,1,kind\n" + "".join(lines))
    scores, args = tmp_path / f"s{end}", ["-t", "kind", "--index", "id", "-o"]
    done("score", path, *args, scores, "--with-data")
    cells = read_text_cells(scores)
    assert cells.columns[-3:].tolist() == ["score_", "note", "1"]
    assert cells.columns[:4].tolist() == ["row", "line", "id", "given_label"]
    raw = path.read_text().split("\n")
    for _, row in cells.iterrows():
        assert raw[int(row["line"]) - 1] == f'{row["id"]},{row["score_"]},"=a{row["row"]}'
        assert row[["note", "1"]].tolist() == [f"=a{row['row']}\nb", "@x"]
    if end == ".csv":
        assert not any(cell.startswith(("=", "@")) for cell in pd.read_csv(scores, dtype=str)["note"])
    if end == ".xlsx":
        book = openpyxl.load_workbook(scores)
        sheet = book["review"]
        assert "f" not in {cell.data_type for row in sheet.iter_rows() for cell in row}
        assert all(row[-1].quotePrefix for row in sheet.iter_rows(min_row=2))
        assert {str(rule.sqref) for rule in sheet.data_validations.dataValidation} == {"I2:I61", "J2:J61"}
        assert [cell.value for cell in book["lists"]["B"]] == ["x", "y", None]
    cells["decision"] = np.where(cells["id"] == "7", "relabel", "keep")
    cells.to_csv(tmp_path / "d.csv", index=False)
    done("clean", path, *args, tmp_path / "o.csv", "--decisions", tmp_path / "d.csv")
    kept = (tmp_path / "o.csv").read_text().splitlines()
    assert len(kept) == 3 - 1 + 2 * 60


def cells_of(sheet):
    header, *rows = sheet.iter_rows(values_only=True)
    return pd.DataFrame(rows, columns=header).astype(str)


def pictures(folder, names, size=12):
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 60, (size, size, 3)).astype(np.uint8)
        pixels[3:9, 3:9, number % 2] += 150
        Image.fromarray(pixels).save(path)
    return folder


FLAT = {
    "kaggle": [f"{'cat' if i % 2 else 'dog'}.{i}.jpg" for i in range(20)],
    "scores": [f"{'Cat' if i % 2 else 'dog_house'}_{i:03d}.png" for i in range(20)],
    "after": [f"{i:03d}_{'cat' if i % 2 else 'dog'}.png" for i in range(20)],
    "copies": [f"{'cat' if i % 2 else 'dog'} ({i}).png" for i in range(20)],
}


@pytest.mark.parametrize("case", FLAT)
def test_labels_in_the_names_of_a_flat_folder_are_found(tmp_path, judged, case):
    folder = pictures(tmp_path / "flat", FLAT[case])
    result = done("score", folder, "-o", tmp_path / "s.csv", "--size", "8")
    labels = pd.read_csv(tmp_path / "s.csv").set_index("path")["given_label"]
    assert labels.nunique() == 2
    assert all(label in name for name, label in labels.items())
    assert "labels were taken from the names of the files" in result.stdout


def test_names_that_tell_nothing_are_refused(tmp_path):
    folder = pictures(tmp_path / "flat", ["a.png", "b.png", "c.png"])
    result = run("score", folder, "-o", tmp_path / "s.csv")
    assert (result.exit_code, "tell no labels" in result.stderr, "--labels" in result.stderr) == (1, True, True)


def test_which_level_is_the_label_is_asked_for(tmp_path, judged):
    names = [f"{split}/{kind}/{i}.png" for split in ("train", "val") for kind in ("cat", "dog") for i in range(5)]
    folder = pictures(tmp_path / "pets", names)
    result = run("clean", folder, "-o", tmp_path / "o.csv", "--size", "8")
    assert result.exit_code == 1
    assert "train, val, and cat, dog in them; which are the labels?" in result.stderr
    assert "--label-level 2 for cat, dog, or --label-level 1 for train, val" in result.stderr
    copy = tmp_path / "copy"
    args = ["clean", folder, "--size", "8", "--label-level"]
    done(*args, "2", "-o", tmp_path / "o.csv", "--copy", copy, "--action", "relabel")
    assert set(pd.read_csv(tmp_path / "o.csv")["label"]) == {"cat", "dog"}
    made = {path.relative_to(copy).as_posix() for path in copy.rglob("*.png")}
    assert len(made) == 20
    assert {name.split("/")[0] for name in made} == {"train", "val"}
    done(*args, "1", "-o", tmp_path / "o1.csv")
    assert set(pd.read_csv(tmp_path / "o1.csv")["label"]) == {"train", "val"}
    assert "give a lower level" in run(*args, "4", "-o", tmp_path / "o4.csv").stderr


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "beside"])
@pytest.mark.parametrize("name", [lambda i: f"imgs/{i}.png", lambda i: f"{i}.png", lambda i: f"{i:d}"])
def test_labels_come_from_a_table(tmp_path, judged, name, inside):
    folder = pictures(tmp_path / "photos", [f"imgs/{i}.png" for i in range(100, 120)])
    (folder / "imgs" / "105.png").write_bytes(b"no image")
    text = "file;note;kind\n" + "".join(f"{name(i)};n;{'pq'[i % 2]}\n" for i in range(100, 122))
    labels = (folder if inside else tmp_path) / "labels.csv"
    labels.write_text(text)
    extra = [] if inside else ["--labels", labels]
    result = done(
        "clean", folder, *extra, "-t", "kind", "-o", tmp_path / "o.csv", "--size", "8", "--drop", "3", "--json"
    )
    summary = json.loads(result.stdout)
    assert summary["n_rows"] == 19
    lines = text.splitlines(keepends=True)
    stay = [line for i, line in enumerate(lines[1:21]) if i not in (0, 1, 2, 5)]
    assert (tmp_path / "o.csv").read_text() == "".join([lines[0], *stay])
    said = " ".join(summary["notes"])
    assert "2 rows of labels.csv have no image" in said
    assert "105.png (not an image)" in said


def test_splits_without_classes_are_no_labels(tmp_path, judged):
    """As competitions give them: folders train and test, and a table of labels for one of them."""
    names = [f"{'train' if i < 20 else 'test'}/{i}.png" for i in range(30)]
    folder = pictures(tmp_path / "photos", names)
    result = run("clean", folder, "-o", tmp_path / "o.csv")
    assert (result.exit_code, "give a table of labels with --labels" in result.stderr) == (1, True)
    (folder / "train.csv").write_text("id,kind\n" + "".join(f"{i},{'pq'[i % 2]}\n" for i in range(20)))
    result = done("clean", folder, "-o", tmp_path / "o.csv", "--size", "8", "--json")  # one column is left to be it
    assert json.loads(result.stdout)["n_rows"] == 20
    assert any("10 images have no row in train.csv" in note for note in json.loads(result.stdout)["notes"])


def test_a_table_that_names_no_images_is_refused(tmp_path):
    folder = pictures(tmp_path / "photos", ["1.png", "2.png"])
    (tmp_path / "labels.csv").write_text("file,kind\nx.png,a\ny.png,b\n")
    result = run("clean", folder, "--labels", tmp_path / "labels.csv", "-t", "kind", "-o", tmp_path / "o.csv")
    assert "no column of labels.csv names the images" in result.stderr


@pytest.mark.parametrize("end", [".jfif", ".avif", ".pgm", ".jp2", ".heic", ".webp", ".tga", ".ico"])
def test_every_format_that_pillow_opens_is_read(tmp_path, judged, end):
    import pillow_heif

    pillow_heif.register_heif_opener()
    folder = tmp_path / "pets"
    for i in range(8):
        path = folder / "ab"[i % 2] / f"{i}{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = np.full((16, 16), 40 + 20 * i, np.uint8)
        Image.fromarray(grey).convert("L" if end == ".pgm" else "RGB").save(path)
    (folder / "a" / "notes.txt").write_text("no image")
    (folder / "a" / "Thumbs.db").write_text("no image")
    result = done("clean", folder, "-o", tmp_path / "o.csv", "--size", "8", "--json")
    summary = json.loads(result.stdout)
    assert summary["n_rows"] == 8
    assert any("2 files are no images and were left out: a/Thumbs.db, a/notes.txt" in note for note in summary["notes"])


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["clean", "t.csv", "-t", "knid", "-o", "o.csv"], 1, "no column 'knid'; did you mean 'kind'?"),
        (
            ["clean", "t.csv", "-t", "kind", "-o", "o.csv", "--ignore", "wrod"],
            1,
            "no column 'wrod'; did you mean 'word'?",
        ),
        (["clean", "t.csv", "-t", "kind", "-o", "o.csv", "--text", "kind"], 1, "cannot be both --text and --target"),
        (
            ["clean", "t.csv", "-t", "kind", "-o", "o.csv", "--as-category", "kind"],
            1,
            "both --as-category and --target",
        ),
        (["clean", "t.csv", "-t", "kind", "-o", "o.csv", "--text", "a", "--ignore", "a"], 2, "named by two of"),
        (["clean", "t.csv", "-t", "kind", "-o", "o.csv", "--sheet", "A"], 1, "t.csv has one table"),
        (["clean", "t.csv", "-t", "kind", "-o", "o.csv", "--query", "SELECT 1"], 1, "t.csv is none"),
        (["clean", "t.csv", "-t", "kind", "-o", "o.csv", "--labels", "t2.csv"], 1, "for folders of images"),
        (["clean", "t.csv", "-t", "kind", "-o", "o.csv", "--label-level", "2"], 1, "for folders of images"),
        (["clean", "t.csv", "-t", "kind", "-o", "o.csv", "--label-level", "0"], 2, "label-level"),
        (["clean", "t.csv", "-t", "kind", "-o", "o.csv", "--drop", "60"], 1, "no fewer than the 60 rows"),
        (["clean", "t.csv", "-t", "kind", "-o", "o.zip"], 2, "unknown ending"),
        (["clean", "t.csv", "-t", "kind", "-o", "o.xls"], 2, "unknown ending"),
        (["clean", "t.csv", "-t", "kind", "-o", "o.csv.7z"], 2, "unknown ending"),
        (["clean", "t.csv", "-t", "kind", "-o", "-", "--json"], 2, "would both go to standard output"),
        (["clean", "t.csv", "-t", "kind", "-o", "-", "--scores", "-"], 1, "named for two outputs"),
        (["clean", "t.csv", "-t", "kind", "-o", "t.csv", "--force"], 1, "is an input and is never written over"),
        (["clean", "-", "-t", "kind", "-o", "o.csv"], 1, "standard input is empty"),
        (["clean", "t.csv", "-t", "kind"], 2, "name the output with --out"),
        (["clean", "t.csv", "-t", "5", "-o", "o.csv"], 1, "no column '5'"),
        (["clean", "e.npz", "-o", "o.csv"], 2, "unknown ending; allowed are .npz"),
        (["clean", "e.npz", "--columns"], 2, "lists the columns of a table"),
        (["clean", "e.npz", "-o", "o.npz", "--no-header"], 1, "the columns of e.npz have names"),
        (["clean", "empty", "-o", "o.csv"], 1, "no images in class folders"),
        (["clean", "empty", "-o", "o.csv", "--labels", "t.csv"], 1, "has no images; check the folder"),
        (["clean", "t.csv", "-t", "kind", "-o", "no/o.csv"], 1, "no is not a folder; create it first"),
        (["clean", "t.csv", "-t", "kind", "-o", "empty"], 2, "unknown ending"),
        (["clean", "sqlite:///no.db", "-t", "kind", "-o", "o.csv"], 1, "no.db does not exist"),
        (["score", "t.csv", "-t", "kind"], 2, "name the output with --out"),
        (["clean", "t.csv", "-t", "kind", "-o", "o.csv", "--with-data"], 2, "is about the file of --scores"),
    ],
)
def test_a_wrong_command_leaves_everything_as_it_was(tmp_path, monkeypatch, args, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(TEXT)
    (tmp_path / "t2.csv").write_text(TEXT)
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "e.npz", X=np.eye(4), y=[0, 1, 0, 1])
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    result = run(*args)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output
    assert result.stdout == ""
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_row_of_an_output_that_cannot_be_written_leaves_nothing(tmp_path, judged):
    lines = [json.dumps({"a": i % 7, "b": [i], "kind": "xy"[i % 2]}) for i in range(60)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    result = run("clean", tmp_path / "t.jsonl", "-t", "kind", "-o", tmp_path / "o.csv", "--scores", tmp_path / "s.csv")
    assert (result.exit_code, "'b' holds lists or records" in result.stderr) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"]


def test_the_file_is_read_before_anything_heavy_is_loaded(tmp_path):
    """A wrong name is known in a second or two."""
    (tmp_path / "t.csv").write_text(TEXT)
    code = (
        "import sys; sys.argv = ['sktda', 'clean', 't.csv', '-t', 'knid', '-o', 'o.csv']\n"
        "from sktda.cli import main\n"
        "try:\n    main()\nfinally:\n    print({'torch', 'sklearn', 'scipy', 'matplotlib', 'PIL'} & set(sys.modules))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert "did you mean 'kind'?" in finished.stderr
    assert finished.stdout == "set()\n"


ENDS = """
import atexit, sys
from sktda import cli

class Last:
    def __del__(self, out=sys.stderr):
        print("taken apart", file=out)

def command():
    print("said")
    raise SystemExit({code})

last = Last()
cli.main = command
atexit.register(print, "at the end")
cli.entry_point()
"""


@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (3, 3), ("'a sentence'", 1)])
def test_a_command_ends_without_taking_the_interpreter_apart(code, status):
    """Threads of pyarrow and torch that wake up while that goes on abort it, now and then."""
    ended = subprocess.run([sys.executable, "-c", ENDS.format(code=code)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (status, "said\nat the end\n")
    assert ended.stderr == ("a sentence\n" if status == 1 else "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("command", ["--version", "--help"])
def test_a_full_disk_under_standard_output_is_one_sentence(command):
    with open("/dev/full", "w") as full:
        call = [sys.executable, "-m", "sktda", command]
        ended = subprocess.run(call, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, "sktda: error: [Errno 28] No space left on device\n")
