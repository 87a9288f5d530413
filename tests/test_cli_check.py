"""`sktda check`: the exit status, where the worst rows are, and what GitHub reads from the output."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from sktda.cli.check import _annotation
from sktda.cli.commands import app

pytestmark = pytest.mark.usefixtures("few_trees")

ROOT = Path(__file__).parents[1]
NAMES = np.array(["1, 2", "50% <b>: ü", "two\nlines"])
COMMAND = re.compile(r"::(error|warning|notice) (?:file=([^,:]*))?(?:,line=(\d+))?,?title=([^,:]*)::([^\r\n]*)")


def run(*args):
    return CliRunner().invoke(app, ["check", *map(str, args)], prog_name="sktda")


def table(n_wrong, n=90, numbers=False):
    """Three classes far apart, of which the first rows have the label of another."""
    rng = np.random.default_rng(0)
    kind = np.arange(n) % 3
    X = rng.normal(size=(n, 3)) + 8 * np.eye(3)[kind]
    label = np.where(np.arange(n) < n_wrong, (kind + 1) % 3, kind)
    return pd.DataFrame(X.round(3), columns=list("abc")).assign(label=label if numbers else NAMES[label])


def unescaped(text):
    for code, sign in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, sign)
    return text


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked")
    table(9).to_csv(folder / "bad, 5%: ü.csv", index=False)
    table(9, numbers=True).to_parquet(folder / "bad.parquet")
    table(0).to_csv(folder / "good.csv", index=False)
    shuffled = table(0)
    shuffled["label"] = np.random.default_rng(1).permutation(shuffled["label"])
    shuffled.to_csv(folder / "shuffled.csv", index=False)
    x = np.random.default_rng(0).uniform(0, 90, 80).round(3)
    prices = pd.DataFrame({"x": x, "price": (3 * x + np.random.default_rng(1).normal(size=80)).round(2)})
    prices.loc[[10, 30, 50], "price"] += 500.25
    prices.to_csv(folder / "prices.csv", index=False)
    return folder


def test_the_status_says_whether_too_many_labels_are_wrong(files):
    bad = files / "bad, 5%: ü.csv"
    cases = {
        (files / "good.csv", "-t", "label"): 0,
        (files / "good.csv", "-t", "label", "--max-noise", "0"): 0,
        (bad, "-t", "label"): 1,
        (bad, "-t", "label", "--max-noise", "0.2"): 0,
        (bad, "-t", "label", "--max-noise", "20 %"): 0,
        (files / "good.csv", bad, "-t", "label"): 1,
        (bad, "-t", "label", "--quiet"): 1,
        (files / "shuffled.csv", "-t", "label", "--max-noise", "0.9"): 1,  # nothing is known of its labels
        (files / "prices.csv", "-t", "price", "--max-noise", "1%"): 1,
        (bad, "-t", "lable"): 2,
        (bad,): 2,
        (files / "none.csv", "-t", "label"): 2,
        (bad, "-t", "label", "--max-noise", "5"): 2,
        (bad, "-t", "label", "--max-noise", "nan"): 2,
        (bad, "-t", "label", "--format", "xml"): 2,
    }
    results = {case: run(*case) for case in cases}
    wrong = {case: result.output for case, result in results.items() if result.exit_code != cases[case]}
    assert not wrong
    assert results[bad, "-t", "label", "--quiet"].output == ""
    assert "cannot be told" in results[files / "shuffled.csv", "-t", "label", "--max-noise", "0.9"].stdout


def test_the_worst_rows_are_named_with_their_lines(files):
    bad = files / "bad, 5%: ü.csv"
    first, *rows = run(bad, "-t", "label").stdout.splitlines()
    assert first.startswith(f"{bad.as_posix()}: 9 of 90 labels are probably wrong (10.0%, by sampling between ")
    text = bad.read_text(encoding="utf-8").splitlines()
    at = [int(row.removeprefix(f"{bad.as_posix()}:").partition(":")[0]) for row in rows if row.startswith(str(bad))]
    frame = table(9)
    starts = [
        next(i for i, line in enumerate(text, 1) if line.startswith(f"{a},{b},"))
        for a, b in frame[["a", "b"]][:9].to_numpy()
    ]
    assert sorted(at) == sorted(starts)
    assert any("label 'two\\nlines' is probably wrong; '50% <b>: ü' is suggested" in row for row in rows)
    parquet = run(files / "bad.parquet", "-t", "label").stdout
    assert f"{(files / 'bad.parquet').as_posix()}: row 3 (from 0): label 1 is probably wrong; 0 is suggested" in parquet
    prices = run(files / "prices.csv", "-t", "price", "--max-noise", "1%").stdout
    assert "prices.csv:52: value 713.09 is probably wrong; 2" in prices


def test_annotations_come_back_as_they_were_meant(files):
    bad = files / "bad, 5%: ü.csv"
    result = run(bad, "-t", "label", "--format", "github")
    found = [COMMAND.fullmatch(line) for line in result.stdout.splitlines()]
    assert all(found)
    assert [match[1] for match in found] == ["error"] + ["warning"] * 9
    assert {unescaped(match[2]) for match in found} == {bad.as_posix()}
    assert all(int(match[3]) > 1 for match in found[1:])
    assert "10.0%" in unescaped(found[0][5])
    hard = "a%0Ab\r\n::error::x, y: z"
    again = COMMAND.fullmatch(_annotation("warning", hard, 3, hard, hard))
    assert [unescaped(again[2]), unescaped(again[4]), unescaped(again[5])] == [hard] * 3
    assert _annotation("warning", "standard input", 3, "t", "m") == "::warning title=t::m"
    good = run(files / "good.csv", "-t", "label", "--format", "github").stdout
    assert COMMAND.fullmatch(good.strip())[1] == "notice"


def test_json_is_an_object_by_file_and_the_same_again(files):
    frame = table(9, numbers=True).rename(columns={"label": "price"})
    frame.to_parquet(files / "second.parquet")
    args = (files / "second.parquet", files / "prices.csv", "-t", "price", "--format", "json", "--max-noise", "1%")
    first, second = ([json.loads(line) for line in run(*args).stdout.splitlines()] for _ in range(2))
    for one in (*first, *second):
        one.pop("seconds")
    assert first == second
    assert [one["passed"] for one in first] == [False, False]
    assert sorted(row["row"] for row in first[0]["rows"]) == list(range(9))
    assert first[0]["rows"][0].keys() == {"row", "given_label", "suggested_label", "label_quality"}
    assert {row["line"] for row in first[1]["rows"]} >= {12, 32, 52}


def test_a_picture_is_a_file_of_its_own(tmp_path):
    rng = np.random.default_rng(0)
    for row in range(40):
        name = "dark, 5%" if (row % 2 == 0) != (row < 4) else "light"
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 60, (8, 8), dtype=np.uint8) + np.uint8(150 * (row % 2))).save(
            folder / f"{row}.png"
        )
    result = run(tmp_path / "photos", "--format", "github", "--features", "pixels")
    assert result.exit_code == 1, result.output
    files = {unescaped(COMMAND.fullmatch(line)[2]) for line in result.stdout.splitlines()[1:]}
    assert files
    assert all(Path(file).suffix == ".png" and Path(file).exists() for file in files)


def test_a_data_set_of_hugging_face_is_read_from_its_folder(tmp_path):
    import datasets

    datasets.disable_progress_bars()
    one = datasets.Dataset.from_pandas(table(9))
    one.save_to_disk(tmp_path / "one")
    assert "9 of 90 labels are probably wrong" in run(tmp_path / "one", "-t", "label").stdout
    one.save_to_disk(tmp_path / "parts", num_shards=2)
    datasets.DatasetDict(train=one, test=one).save_to_disk(tmp_path / "both")
    assert "is a data set of 2 files; write one with" in run(tmp_path / "parts", "-t", "label").stderr
    assert "holds the data sets test, train; name one of them" in run(tmp_path / "both", "-t", "label").stderr
    datasets.enable_progress_bars()


def test_the_hook_of_pre_commit_is_the_command():
    hook = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
    assert re.search(r"^- id: sktda-check$", hook, flags=re.MULTILINE)
    assert re.search(r"^  entry: sktda check$", hook, flags=re.MULTILINE)
