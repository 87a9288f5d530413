"""What the README and the guide show is run: python and shell blocks, their output, links, options and names."""

import contextlib
import doctest
import functools
import io
import json
import re
import shlex
import sys
from pathlib import Path
from unittest.mock import MagicMock

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import sktda
import sktda.attribution
import sktda.displays
import sktda.report
import sktda.review
from sktda.attribution import KernelForest
from sktda.cli import doctor
from sktda.cli.commands import app
from sktda.patches import filters
from sktda.report import comparison
from sktda.report.page import write_report
from tests.conftest import fewer_trees, shorter_training

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("[!_]*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$(\n+(?=```text\n))?", re.MULTILINE | re.DOTALL)
SHOW_NO_SCORES = {"shell", "which"}  # tests/test_docs_without_scores.py runs them, with forests of few trees
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FORMULAS = {*(ROOT / "docs" / "methods").glob("*.md"), ROOT / "docs" / "scores.md"}
NOT_RUN = {
    # installing, and what make does
    ("CONTRIBUTING", "make quick"),
    ("README", "pip install"),
    ("contributing", "make help"),
    ("gpu", "make gpu-wheels"),
    ("install", "# on macOS, on Windows for the processor"),
    ("install", "pip download"),
    ("other-libraries", "pip install --no-deps captum"),
    ("scale", 'pip install "sktda[cluster]"'),
    # a network, a cluster, a service, another machine; a sentence beside it says so
    ("ecosystem", "- run: pip install"),
    ("ecosystem", "repos:"),
    ("finetuning", "tokenizer = AutoTokenizer.from_pretrained(name)"),
    ("gpu", "with joblib.parallel_config(n_jobs=4):  # four cards"),
    ("install", "sktda     0.1.0 in /home/me/.venv"),
    ("learned_features", "sktda clean photos --features timm:resnet18"),
    ("learned_features", "sktda: error: the weights of timm:resnet18"),
    ("scale", "from distributed import Client"),
    ("scale", "import ray"),
}
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")


def blocks(page: Path) -> list[tuple[str, str, str | None]]:
    """(language, code, output or None) of the fenced blocks; a text block right behind another is its output."""
    found = []
    shown = False
    for language, code, output_follows in BLOCK.findall(page.read_text(encoding="utf-8")):
        if shown:
            found[-1] = (*found[-1][:2], code)
        else:
            found.append((language, code, None))
        shown = bool(output_follows)
    return found


def runnable(page: Path) -> list[tuple[str, str, str | None]]:
    """Its blocks that are run."""
    return [block for block in blocks(page) if block[0] in {"python", "shell"}]


WITH_SCORES = [page for page in PAGES if page.stem not in SHOW_NO_SCORES and runnable(page)]
NO_SCORES = [page for page in PAGES if page.stem in SHOW_NO_SCORES]


def commands(code: str) -> list[list[str]]:
    """The arguments of every sktda command in a shell block."""
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("sktda ")]


@functools.cache
def remembering():
    """`KernelForest.fit`, which fits once where pages ask for the same scores of the same rows."""
    fit, kept = KernelForest.fit, {}

    @functools.wraps(fit)
    def remembered(self, X, y, *others, **options):
        key = joblib.hash((self.get_params(), X, y))
        if key not in kept:
            kept[key] = vars(fit(self, X, y, *others, **options)).copy()
        vars(self).update(kept[key])
        return self

    return remembered


@pytest.fixture
def workplace(tmp_path, monkeypatch, request):
    """A folder with the files that the pages name."""
    monkeypatch.setattr(KernelForest, "fit", remembering())
    rng = np.random.default_rng(0)
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], y[:300]
    wrong = np.arange(0, 300, 10)
    y[wrong] = (y[wrong] + 3) % 10
    table = pd.DataFrame(X[:, ::3].round(2)).add_prefix("f").assign(id=range(1000, 1300), label=y)
    table.to_csv(tmp_path / "data.csv", index=False)
    table.to_parquet(tmp_path / "data.parquet")
    area = rng.uniform(50, 200, 300)
    prices = pd.DataFrame(
        {"area": area, "garden": rng.choice(["yes", "no"], 300), "price": area * 3 + rng.normal(size=300)}
    )
    prices.loc[::50, "price"] *= 10
    prices.to_csv(tmp_path / "houses.csv", index=False)
    np.savez(tmp_path / "digits.npz", X=X.reshape(-1, 8, 8), y=y)
    np.savez(tmp_path / "embeddings.npz", X=X)
    for row in range(60):
        folder = tmp_path / "photos" / f"digit{y[row]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((X[row].reshape(8, 8) * 15).astype(np.uint8)).save(folder / f"{row}.png")
    (tmp_path / "decisions.csv").write_text("row,decision\n0,keep\n1,drop\n")  # as the page of a review saves it
    answered = {"data": {"row": 0, "given_label": str(y[0])}, "annotations": []}  # as Label Studio exports it
    (tmp_path / "export.json").write_text(json.dumps([answered]))
    # of one page alone, as other libraries look for them; tests/test_ecosystem.py sees what they are given
    for logs in ("mlflow", "wandb") if "[ecosystem]" in request.node.name else ():
        monkeypatch.setitem(sys.modules, logs, MagicMock())
    monkeypatch.chdir(tmp_path)
    # no page shows what a report says of the models, so that two folds are as good as five
    monkeypatch.setitem(write_report.__kwdefaults__, "cv", 2)
    monkeypatch.setattr(comparison, "N_REPEATS", 1)
    monkeypatch.setattr(doctor, "try_imports", lambda modules: {name: {"error": None, "more": {}} for name in modules})
    if "photographs" not in request.node.name:  # which shows what patches tell
        monkeypatch.setattr(filters, "DRAWN", 2_000)  # patches, which few pictures have


def run(language: str, code: str, names: dict) -> str:
    """Run a block, return what it prints."""
    if language == "shell":
        results = [CliRunner().invoke(app, arguments, prog_name="sktda") for arguments in commands(code)]
        for result in results:
            assert result.exit_code == 0, result.output
        return "".join(result.stdout for result in results)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "block", "exec"), names)
    return printed.getvalue()


def check_blocks(page: Path) -> None:
    """Run all blocks of a page; what they print is what the page shows.

    Behind the last output nothing depends on what forests and nets find, and they may be small.
    """
    check = doctest.OutputChecker().check_output
    names = {"__name__": "page"}
    found = runnable(page)
    last = max((place for place, block in enumerate(found) if block[2] is not None), default=-1)
    with contextlib.ExitStack() as rest:
        for place, (language, code, expected) in enumerate(found):
            if place == last + 1:
                rest.enter_context(fewer_trees())
                rest.enter_context(shorter_training())
            printed = run(language, code, names)
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert expected is None or check(expected, printed, flags), f"{code}prints\n{printed}not\n{expected}"


@pytest.mark.parametrize("page", WITH_SCORES, ids=lambda page: page.stem)
def test_blocks_run_and_print_what_is_shown(page, workplace):
    check_blocks(page)


def not_run(page: Path) -> list[str]:
    """The first lines of blocks that no test runs and that are not what a block before them prints."""
    found = []
    text, end, runs = page.read_text(encoding="utf-8"), 0, False
    for block in FENCE.finditer(text):
        language, code = block.groups()
        lines = [line for line in code.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
        is_output = language == "text" and runs and not text[end : block.start()].strip()
        runs = language == "python" or (language == "shell" and all(line.startswith("sktda ") for line in lines))
        end = block.end()
        is_formula = page in FORMULAS and language == "text" and "import " not in code and ".fit(" not in code
        if not (runs or is_output or is_formula or language.startswith("{")):
            found.append(code.splitlines()[0])
    return found


def test_no_block_is_shown_that_nobody_runs_but_those_that_are_listed():
    shown = [(page.stem, line) for page in PAGES for line in not_run(page)]
    listed = {
        each: [known for known in NOT_RUN if known[0] == each[0] and each[1].startswith(known[1])] for each in shown
    }
    assert [each for each, known in listed.items() if not known] == []
    assert {known for each in listed.values() for known in each} == NOT_RUN, "the list names blocks that are gone"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target, anchor in LINK.findall(text):
        if target.startswith("https:"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor and file.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{page.name} links to {target}#{anchor}"


def test_the_comparison_in_the_readme_is_the_one_that_was_measured():
    files = ROOT / "README.md", ROOT / "docs/benchmarks/tables.md"
    readme, measured = (path.read_text(encoding="utf-8") for path in files)
    rows = re.findall(r"^\| (.+?) \|((?: 0\.\d+ \|)+)$", readme, flags=re.MULTILINE)
    assert len(rows) == 3
    for name, cells in rows:
        row = re.search(rf"^\| {re.escape(name)} \|(.*)$", measured, flags=re.MULTILINE)  # the first table
        assert row, name
        assert re.findall(r"0\.\d+", cells) == re.findall(r"(0\.\d+) \(", row[1]), name


def test_every_shell_option_is_documented():
    page = (ROOT / "docs" / "shell.md").read_text(encoding="utf-8")
    for command in ("clean", "score", "report", "review", "check"):
        usage = CliRunner().invoke(app, [command, "--help"], prog_name="sktda").output
        for option in sorted(set(re.findall(r"--[a-z]+", usage)) - {"--help"}):
            assert f"`{option}" in page, f"{option} of sktda {command} is missing in docs/shell.md"


def test_every_public_name_is_in_the_reference():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for package in (sktda, sktda.attribution, sktda.displays, sktda.report, sktda.review):
        for name in package.__all__:
            assert f"{package.__name__}.{name}" in page, f"{package.__name__}.{name} is missing in docs/api.md"
