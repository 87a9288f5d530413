"""Given class probabilities in the shell: read from every kind of file, aligned, or refused with one sentence."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from typer.testing import CliRunner

from sktda import NoisyLabelDetector
from sktda.attribution import PrecomputedProbabilities
from sktda.cli.commands import app
from tests.spies import noisy_blobs

X, Y, _ = noisy_blobs()
CLASSES = np.array([10, 200, 3000])  # in the same order as numbers and as text
LABELS = CLASSES[Y]
P = cross_val_predict(LogisticRegression(), X, Y, method="predict_proba")
IDS = [f"n{i:03d}" for i in np.random.default_rng(0).permutation(len(Y))]
TABLE = pd.DataFrame(P, columns=CLASSES.astype(str))
SHUFFLED = np.random.default_rng(1).permutation(len(Y))
EXPECTED = NoisyLabelDetector(PrecomputedProbabilities(P)).fit(X, Y)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.csv"
    pd.DataFrame(X.round(3)).add_prefix("f").assign(id=IDS, label=LABELS).to_csv(path, index=False)
    return path


def run(*args):
    return CliRunner().invoke(app, [*map(str, args), "-t", "label", "--index", "id"])


def write(folder, kind):
    """(the file, TABLE in it in some form)."""
    path = folder / f"p{kind[kind.index('.') :]}"
    if kind == "order.npy":
        np.save(path, P)
    elif kind == "order.npz":
        np.savez(path, P[:, ::-1], classes=CLASSES[::-1])
    elif kind == "order.csv":
        TABLE.to_csv(path, index=False)
    elif kind == "index.parquet":
        TABLE.assign(id=IDS).iloc[SHUFFLED, ::-1].to_parquet(path, index=False)
    else:
        TABLE.assign(row=range(len(Y))).iloc[SHUFFLED].to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", ["order.npy", "order.npz", "order.csv", "index.parquet", "row.csv"])
def test_every_file_gives_the_detectors_scores(data, tmp_path, kind):
    result = run("score", data, "-o", tmp_path / "s.csv", "--probabilities", write(tmp_path, kind), "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    how = {"index": "by the column 'id'", "row": "by the column 'row'"}.get(
        kind.split(".")[0], "in the order of the data"
    )
    assert any(
        note == f"labels were judged by the probabilities of p.{kind.split('.')[1]}, {how}" for note in summary["notes"]
    )
    assert summary["noise_rate"] == EXPECTED.noise_rate_
    scores = pd.read_csv(tmp_path / "s.csv").sort_values("row")
    np.testing.assert_allclose(scores["score"], EXPECTED.scores_, rtol=1e-9)
    assert scores["id"].tolist() == IDS


def test_rows_without_a_label_need_none_and_the_report_compares_nothing(data, tmp_path):
    frame = pd.read_csv(data)
    frame["label"] = frame["label"].astype(object).where(frame.index != 7, "")
    frame.to_csv(data, index=False)
    TABLE.assign(id=IDS).drop(index=7).to_csv(tmp_path / "p.csv", index=False)
    files = {name: tmp_path / name for name in ("clean.csv", "report.html", "again.html", "scores.csv")}
    given = ("--probabilities", tmp_path / "p.csv", "--json")
    result = run(
        "clean",
        data,
        "-o",
        files["clean.csv"],
        "--report",
        files["report.html"],
        "--scores",
        files["scores.csv"],
        *given,
    )
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["n_unlabelled"] == 1
    why = "the labels of all rows were used for the given probabilities, so that no row is held out"
    assert summary["report"]["left_out"]["comparison"] == why
    result = run("report", files["scores.csv"], "-d", data, "-o", files["again.html"], *given)
    assert json.loads(result.stdout)["report"]["left_out"]["comparison"] == why
    assert why in files["again.html"].read_text()


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (TABLE[:100], (), "p.csv has 100 rows of probabilities but the data has 120; give one per row"),
        (TABLE.assign(id=IDS)[:100], (), "p.csv has no probabilities for 20 rows of the data, the first is row 100"),
        (TABLE.assign(id=["n000", *IDS[1:]]), (), "id 'n000' occurs twice"),
        (TABLE.assign(id=["other", *IDS[1:]]), (), "id 'other' is no row of the data"),
        (TABLE.drop(columns="200"), (), "no column for 1 of the 3 classes of y, the first is '200'"),
        (TABLE.assign(fold=0), (), "has the column 'fold', which is the label of no row"),
        (TABLE * 0.5, (), "do not sum to 1"),
        (TABLE, ("--method", "aum"), "--probabilities and --method both say by what labels are judged"),
        (TABLE, ("--task", "regression"), "--probabilities are of classes, and the labels are numbers"),
        (None, (), "p.csv does not exist or is not a file"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(data, tmp_path, table, options, message):
    if table is not None:
        table.to_csv(tmp_path / "p.csv", index=False)
    result = run("clean", data, "-o", tmp_path / "out.csv", "--probabilities", tmp_path / "p.csv", *options)
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert result.output.startswith("sktda: error:") or "\nsktda: error:" in result.output
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("arrays", "labels", "message"),
    [
        ({"a": P, "b": P}, LABELS, "holds the arrays a, b; one is needed"),
        ({"a": P[:, :2]}, LABELS, "probabilities of shape (120, 2) but there are 3 classes"),
        ({"a": P[:, 0]}, LABELS, "probabilities of shape (120,) but there are 3 classes"),
        (
            {"a": P},
            np.array([2, 10, 300])[Y],
            "classes are in another order as numbers than as text; add an array `classes`",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(data, tmp_path, arrays, labels, message):
    pd.read_csv(data).assign(label=labels).to_csv(data, index=False)
    np.savez(tmp_path / "p.npz", **arrays)
    result = run("score", data, "-o", tmp_path / "out.csv", "--probabilities", tmp_path / "p.npz")
    assert result.exit_code == 1
    assert message in result.output
