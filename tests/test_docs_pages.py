"""The pages as a whole: every method has its family, no page is too long, charts and tables are of their scripts."""

import inspect
import re
import sys
from pathlib import Path

import sktda.attribution
import sktda.cleaning

DOCS = Path(__file__).parents[1] / "docs"
sys.path.append(str(DOCS))
import flow  # noqa: E402
import measured  # noqa: E402

PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts]
MOST_WORDS = 2_500
REFERENCE = {"api.md"}  # what is looked up, not read
NO_METHODS = {
    "adversarial_accuracy",
    "adversarial_examples",
    "training_dynamics",
    "trajectory_scores",
    "unlearn",
    "Stage",
}


def headings(page: Path) -> list[str]:
    """Names in the headings of a page."""
    found = re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [name.strip() for heading in found for name in heading.split(",")]


def test_every_method_and_strategy_is_on_the_page_of_one_family():
    strategies = {
        name
        for name in sktda.cleaning.__all__
        if isinstance(made := getattr(sktda.cleaning, name), type)
        and issubclass(made, sktda.cleaning.CoresetStrategy)
        and made is not sktda.cleaning.CoresetStrategy
    }
    methods = (set(sktda.attribution.__all__) - NO_METHODS) | strategies
    families = [headings(page) for page in sorted((DOCS / "methods").glob("*.md"))]
    counts = {name: sum(name in family for family in families) for name in methods}
    assert {name: count for name, count in counts.items() if count != 1} == {}


def test_a_family_page_has_a_picture_says_when_and_where_it_was_published_and_is_short():
    for page in (DOCS / "methods").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        lacking = [
            word
            for word in ("**When**", "**Source**", "higher = keep", "```python", "](../_static/")
            if word not in text
        ]
        assert not lacking, f"{page.name} lacks {lacking}"
        assert 300 <= len(text.split()) <= 900, f"{page.name} has {len(text.split())} words"


def test_papers_of_the_family_pages_are_those_of_the_docstrings():
    other = []
    for page in sorted((DOCS / "methods").glob("*.md")):
        for section in page.read_text(encoding="utf-8").split("\n## ")[1:]:
            names = [name.strip() for name in section.splitlines()[0].split(",")]
            made = [getattr(sktda.attribution, name, None) or getattr(sktda.cleaning, name, None) for name in names]
            known = " ".join(inspect.getsource(each) for each in made if each)
            ids = set(re.findall(r"\d{4}\.\d{5}", section)) if known else set()
            other += [f"{page.name}, {names}: {number}" for number in ids if number not in known]
    assert not other, other


def test_no_page_is_too_long_to_be_read():
    words = {page.name: len(page.read_text(encoding="utf-8").split()) for page in PAGES if page.name not in REFERENCE}
    assert {name: count for name, count in words.items() if count > MOST_WORDS} == {}


def test_every_page_is_in_the_navigation():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    named = {line for block in re.findall(r"```{toctree}\n(.*?)```", index, re.DOTALL) for line in block.split()}
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES}
    assert {page for page in pages - named if not page.startswith(("benchmarks/", "gallery/"))} == {"index"}


def test_the_flow_chart_is_the_one_that_its_script_draws_and_leads_somewhere():
    assert (DOCS / "_static" / "which.svg").read_text(encoding="utf-8") == flow.flow()
    which = (DOCS / "which.md").read_text(encoding="utf-8")
    for question, answers in flow.CHART:
        for holds, take, link in answers:
            file, _, anchor = link.partition("#")
            page = DOCS / file.replace(".html", ".md") if file else DOCS / "which.md"
            titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert not anchor or anchor in anchors, f"{question} / {holds} leads to {link}"
            for name in re.findall(r"[A-Za-z]\w+", take.split("(")[0]):
                assert name in sktda.__all__ or name in sktda.attribution.__all__, name
                assert name in which or file, f"{name} is in the chart and not on the page"


def test_tables_of_figures_are_those_of_the_results():
    stale = [
        page.name
        for page in measured.PAGES
        if measured.filled(page.read_text(encoding="utf-8")) != page.read_text(encoding="utf-8")
    ]
    assert not stale, f"python docs/measured.py brings {stale} up to date"
