"""The shell command `sktda`: clean, score and report on a table or a folder of images.

`commands` and `check` are the commands, `options` what they share, `session` how they show progress and failures;
`jobs` is what they do, `review` the scores file that a human fills in.
"""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit codes 0 done, 1 the data or a file is at fault, 2 the command line, 130 Ctrl-C."""
    try:
        from sktda.cli.commands import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit('sktda: error: typer is not installed; install it with: pip install "sktda[shell]"')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files are removed
    app(prog_name="sktda")
