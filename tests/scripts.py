"""What examples print: as the build of the pages ran them, or run as a program in this process."""

import contextlib
import io
import runpy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
GALLERY = runpy.run_path(str(EXAMPLES.parent / "docs" / "gallery_run.py"))


def run_example(name, *arguments):
    """What examples/`name`.py prints; warnings are errors, as in every test, and nothing may go to stderr.

    Without arguments, what it printed as `make docs` made its page, if that was with the code that is here: each
    example runs once in `make test`. A new process would load torch and scikit-learn again.
    """
    if not arguments and GALLERY["is_current"]():
        return GALLERY["printed"](name)
    script = str(EXAMPLES / f"{name}.py")
    printed, complained = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        torch.random.fork_rng(),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(complained),
    ):
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        patch.setattr(plt, "show", lambda: plt.close("all"))
        runpy.run_path(script, run_name="__main__")
    assert complained.getvalue() == ""
    return printed.getvalue()
