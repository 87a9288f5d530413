"""What the review page is made from, and what comes back from it; see tests/test_pages_in_a_browser.py for the page."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from typer.testing import CliRunner

from sktda import NoisyLabelDetector
from sktda.cli.commands import app
from sktda.review import Review, page, write_review
from sktda.review.decisions import decide
from sktda.review.sheet import with_cells
from tests.report.pages import Page, frame_of
from tests.spies import noisy_blobs

HOSTILE = "</script><img src=x onerror=alert(1)>&"
NAMES = np.array(["ash", HOSTILE, "=1+1"])


def content_of(path):
    """The data on a page, which parses and asks nothing of anywhere."""
    text = path.read_text(encoding="utf-8")
    Page(text)
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert text.count("</script>") == 2
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


@pytest.fixture(scope="module")
def blobs():
    """(X, y, true, fitted detector) of 120 rows in three classes, 24 labels wrong."""
    X, y, true = noisy_blobs()
    index = [f"tree-{i}" for i in range(len(y))]
    X = pd.DataFrame(X.round(3), columns=["height", "girth", HOSTILE, "crown"], index=index)
    y = pd.Series(NAMES[y], index=index)
    return X, y, NAMES[true], NoisyLabelDetector(random_state=0).fit(X, y)


def test_all_flagged_rows_are_on_the_page_worst_first_beside_rows_of_the_suggestion(blobs, tmp_path):
    X, y, _, detector = blobs
    review = detector.review(X, y)
    numbers = review.save(tmp_path / "page.html")
    content = content_of(tmp_path / "page.html")
    flagged = np.flatnonzero(detector.labels_ == -1)
    rows = [card["row"] for card in content["rows"]]
    assert sorted(rows) == flagged.tolist()
    assert numbers == {"n_rows": 120, "n_noisy": len(flagged), "n_shown": len(flagged), "n_decided": 0, "n_left_out": 0}
    assert np.all(np.diff(detector.label_quality_[rows]) >= 0)
    for card in content["rows"]:
        assert card["given"] == y.iloc[card["row"]]
        assert card["index"] == y.index[card["row"]]
        assert {near["given"] for near in card["near"]} == {card["suggestedText"]}
        assert {column["name"] for column in card["columns"]} == set(X.columns)
    assert [label for label, _ in content["classes"]] == sorted(NAMES)


def test_a_notebook_shows_the_same_page(blobs, tmp_path):
    X, y, _, detector = blobs
    review = detector.review(X, y)
    review.save(tmp_path / "page.html")
    frame = Page(review._repr_html_()).all("iframe")[0]
    assert frame["srcdoc"] == (tmp_path / "page.html").read_text(encoding="utf-8")


def test_decisions_come_back_as_a_frame_and_a_new_page_goes_on_from_there(blobs, tmp_path):
    X, y, true, detector = blobs
    rows = [card["row"] for card in json.loads(json.dumps(page._content(detector.review(X, y))[0]))["rows"]][:4]
    cells = {"row": rows, "given_label": y.iloc[rows].tolist(), "decision": ["relabel", "keep", "drop", ""]}
    decided = pd.DataFrame({**cells, "new_label": [true[rows[0]], "", "", ""]})
    decided.to_csv(tmp_path / "decisions.csv", index=False)
    back = detector.review(X, y).decisions(tmp_path / "decisions.csv")
    assert back["row"].tolist() == rows[:3]
    assert back.index.tolist() == y.index[rows[:3]].tolist()
    assert back["decision"].tolist() == ["relabel", "keep", "drop"]
    assert back["new_label"].iloc[0] == true[rows[0]]
    assert back["new_label"].isna().tolist() == [False, True, True]

    again = detector.review(X, y, tmp_path / "decisions.csv")
    content, numbers = page._content(again)
    assert content["decided"] == {rows[0]: ["relabel", true[rows[0]]], rows[1]: ["keep", ""], rows[2]: ["drop", ""]}
    assert numbers["n_decided"] == 3
    assert {card["row"] for card in content["rows"][-3:]} == set(rows[:3])  # those that are decided come last
    assert content["key"] == page._content(detector.review(X, y))[0]["key"]


@pytest.mark.parametrize("change", ["label", "cell", "name"])
def test_other_data_have_decisions_of_their_own(blobs, change):
    X, y, _, detector = blobs
    key = page.fingerprint(detector.review(X, y))
    X, y = X.copy(), y.copy()
    if change == "label":
        y.iloc[5] = next(name for name in NAMES if name != y.iloc[5])
    elif change == "cell":
        X.iloc[5, 2] += 1
    else:
        X.index = y.index = ["other", *y.index[1:]]
    assert page.fingerprint(Review.of(detector, X, y)) != key


def test_where_nothing_is_flagged_the_most_doubtful_rows_are_shown_as_such(tmp_path):
    quality = np.linspace(0.6, 0.9, 80)
    frame = frame_of(["a", "b"] * 40, quality=quality)
    numbers = write_review(tmp_path / "page.html", Review(name="all right", frame=frame, task="classification"))
    assert numbers["n_shown"] == page.N_DOUBTFUL
    assert "No row is flagged" in Page((tmp_path / "page.html").read_text()).text
    assert [card["row"] for card in content_of(tmp_path / "page.html")["rows"]] == list(range(page.N_DOUBTFUL))


@pytest.mark.parametrize("kind", ["pictures", "sparse", "lists", "numbers"])
def test_every_kind_of_data_gets_a_page(kind, tmp_path, monkeypatch):
    X, y, _ = noisy_blobs()
    if kind == "numbers":
        y = (X[:, 0] * 1000).round(2)
        y[:5] += 70_000
    data = {"pictures": np.abs(X).reshape(-1, 2, 2), "sparse": sparse.csr_matrix(X), "lists": X.tolist()}.get(kind, X)
    detector = NoisyLabelDetector(random_state=0, contamination=0.1).fit(data, y)
    detector.review(data, y).save(tmp_path / "page.html")
    cards = content_of(tmp_path / "page.html")["rows"]
    assert len(cards) == 12
    assert all(len(card["near"]) == 3 for card in cards)
    assert all(("picture" in card) == (kind == "pictures") for card in cards)
    assert not any("e+" in card["givenText"] for card in cards)


def test_what_does_not_fit_on_a_page_is_counted(blobs, monkeypatch):
    X, y, _, detector = blobs
    monkeypatch.setattr(page, "MAX_ROWS", 10)
    _, numbers = page._content(detector.review(X, y))
    assert (numbers["n_shown"], numbers["n_left_out"]) == (10, numbers["n_noisy"] - 10)


def test_labels_of_other_data_are_refused(blobs):
    X, y, _, detector = blobs
    with pytest.raises(ValueError, match="y has 119 labels but the detector was fitted on 120 rows"):
        detector.review(X.iloc[1:], y.iloc[1:])


def test_the_spreadsheet_has_the_lines_of_the_file_a_list_of_decisions_and_no_formula(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    X, y, _ = noisy_blobs()
    rows = ["height,note,label", *(f'{a:.3f},"two\nlines",{NAMES[c]}' for a, c in zip(X[:, 0], y, strict=True)), ""]
    table = tmp_path / "trees.csv"
    table.write_text("\n".join(rows))
    command = [
        "review",
        table,
        "-o",
        tmp_path / "r.html",
        "--spreadsheet",
        tmp_path / "r.xlsx",
        "--drop",
        "0.1",
        "-t",
        "label",
    ]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == 0, result.stderr
    book = openpyxl.load_workbook(tmp_path / "r.xlsx")
    sheet = book["review"]
    head, *cells = [[cell.value for cell in row] for row in sheet.iter_rows()]
    assert head[:4] == ["row", "line", "given_label", "suggested_label"]
    assert len(cells) == 12
    lines = table.read_text().split("\n")
    for line in cells:
        made = dict(zip(head, line, strict=True))
        assert made["line"] == 2 + 2 * made["row"]
        assert lines[made["line"] - 1].startswith(f"{made['height']},")
        assert made["given_label"] == NAMES[y[made["row"]]]
    assert all(cell.data_type != "f" for row in sheet.iter_rows() for cell in row)
    rules = {rule.formula1 for rule in sheet.data_validations.dataValidation}
    assert rules == {"lists!$A$1:$A$3", "lists!$B$1:$B$3"}
    assert [cell.value for cell in book["lists"]["A"]] == ["keep", "drop", "relabel"]
    assert book["lists"].sheet_state == "hidden"


def test_names_that_are_taken_get_underscores():
    frame = pd.DataFrame(
        {"given_label": ["a", "b"], "suggested_label": ["b", "a"], "label_quality": 0.1, "score": 0.0, "noisy": True},
        index=pd.Index([7, 8], name="line"),
    )
    cells = pd.DataFrame([[1, 2, [3]], [4, 5, {"x": 6}]], columns=["line", "score", "score_"])
    table = with_cells(frame, np.array([1, 0]), cells, np.array([2, 3]))
    assert table.columns.tolist()[:3] == ["row", "line_", "line"]
    assert table.columns.tolist()[-3:] == ["line__", "score_", "score__"]
    assert table.iloc[0, [0, 1, 2, -3, -2, -1]].tolist() == [1, 3, 8, 4, 5, '{"x": 6}']


@pytest.mark.parametrize("missing", [np.nan, None])
def test_a_row_without_a_label_is_given_none_whether_it_was_reviewed_or_not(missing):
    frame = pd.DataFrame(
        {"given_label": [1.5, missing, 2.5], "suggested_label": [9.0, missing, 2.5], "noisy": [True, False, False]}
    )
    review = pd.DataFrame({"row": ["0", "1"], "given_label": ["1.5", ""], "decision": ["", ""]})
    for found in (decide(frame, "regression", "drop"), decide(frame, "regression", "drop", review, "r.csv")):
        assert found[0].tolist() == ["drop", "keep", "keep"]
        assert found[1].tolist() == [9.0, None, 2.5]
