"""docs/benchmarks/ is what tables.py makes of the results; pages are short, have pictures, and links that lead."""

import io
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "benchmarks"
sys.path.append(str(ROOT / "benchmarks"))
import tables  # noqa: E402
from pages import plots  # noqa: E402
from pages.common import table as markdown  # noqa: E402
from pages.page import WORDS, Page, Picture, as_csv  # noqa: E402

LINK = re.compile(r"\]\(([^)#\s]+)\)")


@pytest.fixture(scope="module")
def groups():
    return tables.pages()


def test_the_pages_are_those_of_the_results(groups):
    made = tables.texts_of(groups)
    there = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*.*") if path.suffix != ".svg"}
    stale = sorted(name for name, text in made.items() if name not in there or there[name].read_text("utf-8") != text)
    assert not stale, f"run benchmarks/tables.py: {stale}"
    assert there.keys() == made.keys(), f"run benchmarks/tables.py: {there.keys() ^ made.keys()}"


def test_every_page_is_short_has_its_picture_and_links_that_lead(groups):
    names = [page.name for own in groups.values() for page in own]
    assert len(set(names)) == len(names)
    assert {path.stem for path in (FOLDER / "pictures").iterdir()} == set(names)
    for path in FOLDER.glob("*.md"):
        text = path.read_text("utf-8")
        assert len(text.split()) <= WORDS, path.name
        lost = [link for link in LINK.findall(text) if "://" not in link and not (FOLDER / link).exists()]
        assert not lost, f"{path.name} links to {lost}"


def test_a_long_table_becomes_a_file_and_keeps_every_cell():
    rows = [["`a`", "**0.5**"]] * WORDS
    table = markdown(["x", "y"], rows)
    page = Page(
        "p", "?", "!", Picture("", None), "", "", [], {"few": "| x |\n| --- |\n| 1 |", "many": f"{table}\n\nNote."}
    )
    files = page.files()
    assert files["tables/p-2.csv"].splitlines() == ["x,y", *["a,0.5"] * WORDS]
    assert "many: [table](tables/p-2.csv).\n\nNote." in files["p.md"]
    assert "<summary>few</summary>" in files["p.md"]
    assert as_csv("text\n\n| a |\n| --- |\n| 1 |\n\n| b |\n| --- |\n| 2, 3 |") == 'a\n1\n\nb\n"2, 3"\n'


@pytest.mark.filterwarnings("error")
def test_a_plot_names_what_it_shows_begins_bars_at_zero_and_is_the_same_twice():
    panels = {
        "first": {"ours": {"a": 0.5, "b": (0.6, 0.5, 0.7)}, "theirs": {"a": 0.4, "b": None}},
        "second": {"ours": {"c": 3.0}, "theirs": {}},
    }
    curves = {"first": {"ours": [(10, 1.0), (1_000, (2.0, 1.5, 2.5))]}}
    for draw in (
        lambda: plots.dots(panels, "score", joined=True, mark=0),
        lambda: plots.bars(panels, "score"),
        lambda: plots.lines(curves, "rows", "seconds", log="xy"),
    ):
        files = [io.BytesIO(), io.BytesIO()]
        for file in files:
            plots.save(draw(), file)
        assert files[0].getvalue() == files[1].getvalue()
        shown = files[0].getvalue().decode()
        assert "first" in shown
        assert "<dc:date>" not in shown
    first, second = plots.bars(panels, "score").axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_xlim()[0] == 0
    assert [text.get_text() for text in first.get_yticklabels()] == ["a", "b"]
