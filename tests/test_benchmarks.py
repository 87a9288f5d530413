"""Every question of benchmarks/ runs with --quick: on few rows that need no download, in seconds, writing nothing."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))
from shared import common  # noqa: E402

from sktda.model import proxy  # noqa: E402

pytestmark = pytest.mark.usefixtures("few_trees")

QUESTIONS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem != "tables")  # tables.py makes the page


@pytest.fixture(autouse=True)
def undo(monkeypatch):
    """What a run sets for its process; data that are here must not be asked for; default nets need not learn."""
    monkeypatch.setattr(common, "_quick", False)
    monkeypatch.setattr(proxy, "EPOCHS", (2, 2))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setenv("SKTDA_DATA", "/there/is/nothing/here")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


def files():
    """All files of benchmarks/ and when they were written."""
    found = (path for path in BENCHMARKS.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_runs_with_quick_and_writes_nothing(question, capsys):
    before = files()
    importlib.import_module(question).main(["--quick"])
    assert len(capsys.readouterr().out) > 20
    assert files() == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("question", "lacking"),
    [
        ("finetuning", ["transformers", "tokenizers", "peft"]),
        ("fairness", ["fairlearn"]),
        ("noisy_labels", ["cleanlab"]),
    ],
)
def test_a_package_that_is_not_installed_is_named_and_only_a_quick_run_goes_on(question, lacking, monkeypatch, capsys):
    monkeypatch.setattr(common, "find_spec", lambda name: None)
    module = importlib.import_module(question)
    module.main(["--quick"])
    assert f"{', '.join(lacking)}: not installed, and needed here (pip install" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=f"{lacking[0]}.*: not installed, and needed here"):
        module.main([])
