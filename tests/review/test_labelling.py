"""Rows to review as Label Studio and Argilla take them, and the answers that these export."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from sktda.cli.commands import app
from sktda.review import Review

NAMES = ['<b>"x"</b> & y', "two\nlines, ü", " "]
N = 12


def review_of(kind, labels=NAMES):
    """Twelve rows, of which the first six are flagged; labels None: numbers."""
    numbers = labels is None
    given = np.arange(N) * 1.5 if numbers else np.array(labels, dtype=object)[np.arange(N) % len(labels)]
    suggested = given + 100 / 3 if numbers else np.roll(given, 1)
    frame = pd.DataFrame({"given_label": given, "suggested_label": suggested})
    frame = frame.assign(label_quality=np.linspace(0.1, 0.9, N), score=np.arange(N) * 1.0, noisy=np.arange(N) < N // 2)
    frame.index = pd.Index([f"row, {i}" for i in range(N)], name="name")
    text = [f"<i>text</i>\n{i}" for i in range(N)]
    rows = {
        "text": pd.DataFrame({"text": text}),
        "cells": pd.DataFrame({"a": np.arange(N) / 4, "b, ü": text, "none": [None] * N, "list": [[1, "x"]] * N}),
        "image": None,
    }[kind]
    image = (lambda row: np.full((8, 8), row, dtype=np.uint8)) if kind == "image" else None
    return Review(name="n", frame=frame, task="regression" if numbers else "classification", rows=rows, image=image)


def answered_in_label_studio(task, name=None, value=None, drop=False, cancelled=False):
    """The task as Label Studio exports it."""
    results = [{"from_name": name, "to_name": "row", "type": next(iter(value)), "value": value}] if name else []
    if drop:
        results.append({"from_name": "decision", "to_name": "row", "type": "choices", "value": {"choices": ["drop"]}})
    annotation = {"id": 1, "completed_by": 1, "was_cancelled": cancelled, "result": results}
    return {**json.loads(json.dumps(task)), "id": 7, "annotations": [annotation]}


def answered_in_argilla(record, user="u", **answers):
    """The record as Argilla exports it."""
    responses = {question: [{"value": value, "user_id": user}] for question, value in answers.items()}
    return {**json.loads(json.dumps(record)), "responses": responses, "status": "completed", "_server_id": "s"}


KINDS = [("text", NAMES), ("cells", NAMES), ("image", NAMES), ("cells", [1, 2, 3]), ("text", ["01", "1", "001"])]


def test_what_is_shown_is_what_the_row_holds():
    for kind, labels in [*KINDS, ("cells", None)]:
        review = review_of(kind, labels)
        setup, tasks = review.label_studio()
        settings, records = review.argilla()
        assert json.loads(json.dumps([tasks, settings, records], allow_nan=False)) == [tasks, settings, records]
        root = ElementTree.fromstring(setup)
        shown = {element.get("value", "").rpartition("$")[2] for element in root if "$" in element.get("value", "")}
        names = {element.get("name"): element.tag for element in root if element.get("name")}
        question = "value" if labels is None else "label"
        assert names == {
            "row": {"text": "Text", "cells": "Table", "image": "Image"}[kind],
            question: "Number" if labels is None else "Choices",
            "decision": "Choices",
            "given": "Text",
        }
        assert [task["data"]["row"] for task in tasks] == [record["metadata"]["row"] for record in records]
        assert [task["data"]["row"] for task in tasks] == list(range(N // 2)), "the worst first, and no other"
        choices = {choice.get("value") for element in root for choice in element if element.get("name") == "label"}
        options = {option["value"] for option in settings["questions"][0]["settings"].get("options", [])}
        assert choices == options
        assert len(choices) == (0 if labels is None else 3)
        for task, record in zip(tasks, records, strict=True):
            assert shown <= task["data"].keys()
            (prediction,) = task["predictions"]
            (result,) = prediction["result"]
            assert names[result["from_name"]] == ("Number" if labels is None else "Choices")
            value = result["value"][result["type"]]
            suggestion = record["suggestions"][question]
            assert set(choices) >= set(value if isinstance(value, list) else ())
            assert suggestion["value"] in choices if labels else float(suggestion["value"]) == value
            assert prediction["score"] == suggestion["score"] == pytest.approx(1 - task["data"]["label_quality"])
            assert record["fields"].keys() == {field["name"] for field in settings["fields"]}
            assert record["metadata"].keys() == {field["name"] for field in settings["metadata"]}
        if kind == "cells":
            text = f"<i>text</i>\n{1}"
            assert tasks[1]["data"]["cells"] == {"a": "0.25", "b, ü": text, "none": "", "list": '[1, "x"]'}
        assert kind != "image" or tasks[0]["data"]["image"].startswith("data:image/png;base64,")


def test_answers_come_back_as_decisions(tmp_path):
    path = tmp_path / "export.json"
    for kind, labels in KINDS:
        review = review_of(kind, labels)
        _, tasks = review.label_studio()
        _, records = review.argilla()
        right = [str(task["predictions"][0]["result"][0]["value"]["choices"][0]) for task in tasks]
        others = [answered_in_label_studio(task) for task in tasks[4:]]
        in_label_studio = [
            answered_in_label_studio(tasks[0], "label", {"choices": [right[1]]}),  # which is what row 0 has
            answered_in_label_studio(tasks[1], "label", {"choices": [right[1]]}),
            answered_in_label_studio(tasks[2], "label", {"choices": [right[2]]}, drop=True),
            answered_in_label_studio(tasks[3], "label", {"choices": [right[3]]}, cancelled=True),
            *others,
        ]
        in_argilla = [
            answered_in_argilla(records[0], label=right[1]),
            answered_in_argilla(records[1], label=right[1]),
            answered_in_argilla(records[2], label=right[2], decision="drop"),
            answered_in_argilla(records[3], label=right[3], decision="skip"),
            *records[4:],
        ]
        for export in (in_label_studio, in_argilla):
            path.write_text(json.dumps(export), encoding="utf-8")
            back = review.decisions(path)
            assert back["decision"].tolist() == ["keep", "relabel", "drop"], (kind, labels)
            assert back["row"].tolist() == [0, 1, 2]
            assert back["new_label"].iloc[1] == review.frame["suggested_label"].iloc[1]


def test_numbers_come_back_as_numbers(tmp_path):
    path = tmp_path / "export.json"
    review = review_of("cells", None)
    (first, second, *_), (one, two, *_) = review.label_studio()[1], review.argilla()[1]
    exports = [
        [
            answered_in_label_studio(first, "value", {"number": 0}),
            answered_in_label_studio(second, "value", {"number": 7.25}),
        ],
        [answered_in_argilla(one, value="0.0"), answered_in_argilla(two, value="7.25")],
    ]
    for export in exports:
        path.write_text(json.dumps(export), encoding="utf-8")
        back = review.decisions(path)
        assert back["decision"].tolist() == ["keep", "relabel"]
        assert back["new_label"].tolist()[1] == 7.25
    path.write_text(json.dumps([answered_in_argilla(one, value="much")]), encoding="utf-8")
    with pytest.raises(ValueError, match="row 0 has the new label 'much'; a number is needed"):
        review.decisions(path)


def test_what_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "export.json"
    review = review_of("text")
    _, (first, *_) = review.label_studio()
    _, (record, *_) = review.argilla()
    disagreeing = answered_in_argilla(record, label=NAMES[0])
    disagreeing["responses"]["label"].append({"value": NAMES[1], "user_id": "v"})
    other_data = answered_in_label_studio(first, "label", {"choices": [NAMES[1]]})
    other_data["data"]["given_label"] = "another"
    cases = {
        "people disagree about row 0": [disagreeing],
        "row 0 has given_label 'another' but the data has": [other_data],
        "which no row of the data has": [answered_in_label_studio(first, "label", {"choices": ["none"]})],
        "is no export of Label Studio or Argilla": [{"data": {"text": "x"}, "annotations": []}],
    }
    for message, export in cases.items():
        path.write_text(json.dumps(export), encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            review.decisions(path)


@pytest.mark.usefixtures("few_trees")
def test_the_shell_writes_the_files_and_takes_the_export_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    kind = np.arange(90) % 3
    X = rng.normal(size=(90, 3)) + 8 * np.eye(3)[kind]
    label = np.array(["a, b", "<b>", "c"])[np.where(np.arange(90) < 6, (kind + 1) % 3, kind)]
    pd.DataFrame(X, columns=list("xyz")).assign(label=label).to_csv("data.csv", index=False)

    def run(*args):
        result = CliRunner().invoke(app, [*args, "-t", "label", "--json"], prog_name="sktda")
        return json.loads(result.stdout) if result.exit_code == 0 else result.output

    made = run("review", "data.csv", "--label-studio", "tasks.json", "--argilla", "records.json")
    assert set(made["outputs"].values()) == {
        *("review.html", "tasks.json", "tasks.xml", "records.json", "records.settings.json")
    }
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert sorted(task["data"]["row"] for task in tasks) == list(range(6))
    right = [task["predictions"][0]["result"][0]["value"] for task in tasks]
    export = [answered_in_label_studio(task, "label", value) for task, value in zip(tasks, right, strict=True)]
    (tmp_path / "export.json").write_text(json.dumps(export))
    done = run("clean", "data.csv", "--decisions", "export.json", "--out", "clean.csv")
    assert (done["n_written"], done["n_relabelled"], done["n_reviewed"]) == (90, 6, 6)
    assert (pd.read_csv("clean.csv")["label"] == np.array(["a, b", "<b>", "c"])[kind]).all()
    assert "let its name end with .json" in run("review", "data.csv", "--argilla", "records.csv", "--force")
