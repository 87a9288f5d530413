"""What docs/ecosystem.md shows of other libraries: what logs are given, and polars where it is installed."""

import re
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest

from sktda import NoisyLabelDetector
from sktda.attribution import PrecomputedProbabilities
from tests.spies import noisy_blobs

PAGE = (Path(__file__).parents[1] / "docs" / "ecosystem.md").read_text(encoding="utf-8")


def block(library):
    """The code that imports a library."""
    (found,) = re.findall(rf"^```\S*(?: python)?\n(import {library}\b.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture
def detector(few_trees):
    X, y, _ = noisy_blobs()
    return NoisyLabelDetector(PrecomputedProbabilities(np.eye(3)[y] * 0.9 + 1 / 30)).fit(X, y)


def test_logs_are_given_plain_dictionaries_and_files(detector, monkeypatch):
    mlflow, wandb = MagicMock(), MagicMock()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for library in ("mlflow", "wandb"):
        exec(block(library), {"detector": detector})
    run = wandb.init.return_value.__enter__.return_value
    for ((metrics,), _), config in (
        (mlflow.log_metrics.call_args, mlflow.log_params.call_args.args[0]),
        (run.log.call_args, wandb.init.call_args.kwargs["config"]),
    ):
        assert metrics == detector.summary()
        assert config == detector.get_params()
    files = [call.args[0] for call in (*mlflow.log_artifact.call_args_list, *run.log_artifact.call_args_list)]
    assert {
        name for name in files if f'"{name}"' not in PAGE.replace(block("mlflow"), "").replace(block("wandb"), "")
    } == set()


def test_polars_as_the_page_has_it(few_trees, tmp_path, monkeypatch):
    polars = pytest.importorskip("polars")
    monkeypatch.chdir(tmp_path)
    X, y, _ = noisy_blobs()
    pd.DataFrame(X, columns=list("abcd")).assign(id=range(len(y)), label=y).to_csv("data.csv", index=False)
    names = {"NoisyLabelDetector": NoisyLabelDetector}
    exec(block("polars"), names)
    detector, n_noisy = names["detector"], int((names["detector"].labels_ == -1).sum())
    assert n_noisy
    assert all(isinstance(names[name], polars.DataFrame) for name in ("clean_X", "suspects", "frame"))
    assert (len(names["clean_X"]), len(names["clean_y"])) == (len(y) - n_noisy,) * 2
    assert len(names["suspects"]) == n_noisy
    assert names["frame"]["row"].to_list() == np.argsort(detector.scores_, kind="stable").tolist()
    as_pandas = NoisyLabelDetector().fit(names["X"].to_pandas(), names["y"].to_pandas())
    np.testing.assert_allclose(as_pandas.scores_, detector.scores_, rtol=1e-9)
