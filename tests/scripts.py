"""Runs an example as a program, in this process: a new one would load torch and scikit-learn again."""

import contextlib
import io
import runpy
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_example(name, *arguments):
    """What examples/`name`.py prints; warnings are errors, as in every test, and nothing may go to stderr."""
    script = str(EXAMPLES / f"{name}.py")
    printed, complained = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        torch.random.fork_rng(),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(complained),
    ):
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(script, run_name="__main__")
    assert complained.getvalue() == ""
    return printed.getvalue()
