"""What a user sees of a command: progress, failures, the summary."""

from __future__ import annotations

import errno
import json
import re
import shlex
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from sktda.cli.formats.escapes import visible
from sktda.devices import ALLOCATION
from sktda.files import STANDARD

if TYPE_CHECKING:
    import pandas as pd

# in errors of torch, Python, joblib and the loader of libraries
SIGNS = (*ALLOCATION, "start new thread", "excessive memory usage", "failed to map segment")
EXTRA = {"jinja2": "report", "matplotlib": "report", "pillow_heif": "heic"}


@contextmanager
def session(silent: bool, fault: int = 1) -> Iterator[tuple[Callable[[str], None], list[str]]]:
    """(progress on a terminal, list that receives warnings); expected failures become one line and an exit code.

    fault: the code where the data or a file is at fault.
    """
    remarks: list[str] = []
    try:
        from rich.console import Console
        from rich.text import Text

        console = Console(stderr=True)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: remarks.append(str(message))
            if silent:
                yield lambda text: None, remarks
            elif not console.is_terminal:
                yield _line, remarks
            else:
                with console.status("starting") as status:
                    yield lambda text: status.update(Text(f"{visible(text)} ...")), remarks  # brackets are no markup
    except KeyboardInterrupt:
        fail("interrupted; nothing was written", 130)
    except ModuleNotFoundError as error:
        if (error.name or "sktda").startswith("sktda"):
            raise
        extra = EXTRA.get(error.name or "", "shell")
        fail(f'{error.name} is not installed; install it with: pip install "sktda[{extra}]"', fault)
    except Exception as error:
        if _memory_is_full(error):
            fail("the memory is full; use fewer rows or columns, or a smaller --size", fault)
        if not isinstance(error, ValueError | OSError | ImportError):
            raise
        listing = getattr(error, "listing", None)
        if listing:
            _say("\n".join(["Columns:", *_aligned(listing)]))
        fail(str(error), 2 if listing else fault)


def _memory_is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says so: NumPy, Arrow, torch, the loader of a library, the system."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if isinstance(error, RuntimeError | ImportError) and any(sign in str(error) for sign in SIGNS):
            return True
        error = error.__cause__
    return False


def _line(text: str) -> None:
    """Progress where standard error is a file or a pipe: what can take long, once the input is known to be right."""
    if text.startswith(("encoding by", "scoring", "writing the report")):
        _say(f"sktda: {text} ...", err=True)


def fail(message: str, code: int = 1) -> NoReturn:
    """One line on stderr; 1: the data or a file is at fault, 2: the command line."""
    line = re.sub(r"[ \t\r\n]+", " ", message.strip())
    _say(f"sktda: error: {line}", err=True)
    raise typer.Exit(code)


def _say(text: str, err: bool = False) -> None:
    """Print; what a terminal would act upon is shown."""
    typer.echo(visible(text), err=err)


def say_line(text: str) -> None:
    """Print one line: line feeds in it are shown, as is what a terminal would act upon."""
    typer.echo(_one_line(text))


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    rows = [(_one_line(first), _one_line(second)) for first, second in rows]
    width = min(40, max(len(first) for first, _ in rows))
    return [f"  {first:<{width}}  {second}".rstrip() for first, second in rows]


def _one_line(text: str) -> str:
    return visible(text).replace("\n", "\\n")


def list_columns(columns: list[Any]) -> None:
    """Print what each column of a table is used as."""
    _say("\n".join(_aligned([(c.name, f"{c.how}{f' ({c.note})' if c.note else ''}") for c in columns])))


def command_line(ctx: typer.Context) -> str:
    """The command that was given, without options left at their defaults."""
    words = ["sktda", ctx.info_name or ""]
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        if value in (None, (), []) or value == parameter.default:
            continue
        if parameter.param_type_name == "option":
            words.append(max(parameter.opts, key=len))
        if value is False:
            words[-1] = parameter.secondary_opts[0]
        elif isinstance(value, (list, tuple)):
            words[-1:] = [word for one in value for word in (words[-1], str(one))]
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)


def show(
    summary: dict[str, Any], frame: pd.DataFrame, outputs: dict[str, Path], json_output: bool, quiet: bool
) -> None:
    """Print the summary and the worst rows, or one JSON object; on stderr where stdout is taken by an output."""
    err = STANDARD in outputs.values()
    if json_output:
        typer.echo(json.dumps(summary))
        return
    if quiet:
        return
    from sktda.cards.cells import number_text

    _say(_first_sentence(summary), err)
    if summary["n_noisy"]:
        order = frame["label_quality"].to_numpy().argsort(kind="stable")
        worst = frame.iloc[order[: min(5, summary["n_noisy"])]]
        worst = worst[["given_label", "suggested_label", "label_quality"]]
        worst = worst.assign(label_quality=worst["label_quality"].map("{:.3f}".format))
        name = str(frame.index.name or "row")  # may be the name of one of the other columns
        worst.insert(0, name, worst.index.to_numpy(), allow_duplicates=True)
        worst = worst.apply(lambda column: column.map(lambda cell: _one_line(cell) if isinstance(cell, str) else cell))
        worst.columns = [_one_line(called) for called in worst.columns]
        _say("\nWorst rows:", err)
        rounded = worst.to_string(index=False, max_colwidth=28, float_format=lambda number: number_text(number, 6))
        _say(rounded + "\n", err)
        if summary["task"] == "classification" and len(worst) < summary["n_noisy"]:
            flagged = frame[frame["noisy"]].reset_index(drop=True)  # whose name may be that of a column
            pairs = flagged.groupby(["given_label", "suggested_label"]).size().nlargest(3)
            said = [
                f"{n:,} {given} that should be {other}" for (given, other), n in zip(pairs.index, pairs, strict=True)
            ]
            _say(f"Most often: {_one_line(', '.join(said))}\n", err)
    for note in summary["notes"]:
        _say(f"Note: {_one_line(note)}", err)
    width = max(7, *map(len, outputs))
    for name, path in outputs.items():
        _say(f"{name.replace('_', ' '):<{width}} {_one_line(str(path))}", err)


def _first_sentence(summary: dict[str, Any]) -> str:
    n_noisy, what = summary["n_noisy"], "value" if summary["task"] == "regression" else "label"
    written = f"; {summary['n_written']:,} rows written" if "n_written" in summary else ""
    if summary["can_tell"] is not False:
        rate = f"({summary['noise_rate']:.1%})"
        are = "is" if n_noisy == 1 else "are"
        return f"{n_noisy:,} of {summary['n_rows']:,} {what}s {are} probably wrong {rate}{written}"
    evidence = f" ({summary['evidence']})" if summary["evidence"] else ""
    told = f"--drop asked for {n_noisy:,} rows, which are no better than drawn" if n_noisy else "none is called wrong"
    return f"The features do not predict the {what}{evidence}: which {what}s are wrong cannot be told; {told}{written}"
