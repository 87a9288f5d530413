"""The shell command `sktda`: clean, score and report on a table or a folder of images.

`commands` and `check` are the commands, `options` what they share, `session` how they show progress and failures;
`jobs` is what they do, `review` the scores file that a human fills in.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from typing import NoReturn

__all__ = ["entry_point", "main"]


def entry_point() -> NoReturn:
    """Run the command line as a process, which ends here.

    The interpreter is not taken apart: a thread of pyarrow or torch that wakes up meanwhile aborts the process (status
    134), once in some hundred runs, though all is done. What was registered to run at the end does.
    """
    code: int | str = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    except OSError as error:  # standard output is on a full disk
        code = f"sktda: error: {error}"
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):  # the reader of a pipe has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


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
