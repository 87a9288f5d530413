"""The demo cleans by the commands that it shows, and what it prints is what its files say."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from sktda.cli.commands import app
from tests.scripts import run_example


def in_this_process(command, check):
    """What `subprocess.run` does for the demo; test_cli.py has the process itself, which loads everything again."""
    assert command[:3] == [sys.executable, "-m", "sktda"]
    assert check
    result = CliRunner().invoke(app, command[3:], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(printed text, folder) of one run."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", in_this_process)
        return run_example("demo", folder), folder


def printed(text: str, name: str) -> list[float]:
    """The numbers in the line that begins with this name."""
    line = re.search(rf"^ *{name} (.*)$", text, flags=re.MULTILINE)
    assert line, f"no line {name!r} in\n{text}"
    return [float(number) for number in re.findall(r"\d+\.?\d*", line[1])]


def test_figures_are_those_of_the_files(demo):
    text, folder = demo
    dirty, clean = (pd.read_csv(folder / name, index_col="id") for name in ("dirty.csv", "clean.csv"))
    truth = load_digits().target
    wrong = dirty["label"].to_numpy() != truth[dirty.index]
    dropped = ~dirty.index.isin(clean.index)
    found = int((wrong & dropped).sum())
    assert wrong.sum() == round(0.2 * len(dirty))
    assert printed(text, "injected")[0] == wrong.sum()
    assert printed(text, "dropped")[:2] == [dropped.sum(), round(100 * dropped.mean(), 1)]
    assert printed(text, "found")[0] == found
    assert printed(text, "precision")[0] == pytest.approx(found / dropped.sum(), abs=5e-4)
    assert printed(text, "recall")[0] == pytest.approx(found / wrong.sum(), abs=5e-4)
    pd.testing.assert_frame_equal(clean, dirty[~dropped])  # kept rows are unchanged and in their order


def test_cleaning_finds_the_mistakes_and_helps(demo):
    text, _ = demo
    assert printed(text, "precision")[0] > 0.95
    assert printed(text, "recall")[0] > 0.9
    for model in ("nearest neighbour", "logistic regression", "random forest"):
        dirty, cleaned, right = printed(text, model)
        assert cleaned > dirty, model
        assert cleaned > right - 0.03, model


def test_rates_are_those_of_the_labels_that_were_drawn(demo):
    _, folder = demo
    dirty = pd.read_csv(folder / "dirty.csv", index_col="id")
    truth = load_digits().target[dirty.index]
    wrong = dirty["label"].to_numpy() != truth
    shift = (dirty["label"].to_numpy()[wrong] - truth[wrong]) % 10
    assert set(np.unique(shift)) == set(range(1, 10))  # uniform over the other nine digits


def test_the_report_is_a_whole_page_and_named(demo):
    text, folder = demo
    assert f"report is {folder / 'report.html'}" in text
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
