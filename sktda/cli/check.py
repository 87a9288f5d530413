"""`sktda check`: whether too many labels are wrong, as an exit status, for a job that runs with every change of data.

Annotations are the workflow commands that GitHub documents under "Workflow commands for GitHub Actions":
`::warning file={name},line={line},title={title}::{message}`, with `%`, carriage return and line feed as %25, %0D and
%0A, and in properties `:` and `,` as %3A and %2C.
"""

from __future__ import annotations

import json
import time
from enum import StrEnum
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sktda.cli.options import (
    AsCategory,
    Embeddings,
    Features,
    Header,
    Ignore,
    Index,
    Labels,
    Level,
    Method,
    NaValues,
    Probabilities,
    Query,
    Quiet,
    Seed,
    Sheet,
    Size,
    Target,
    Task,
    TaskKind,
    Text,
    data_path,
    noise_bound,
    option,
)
from sktda.cli.session import fail, say_line, session
from sktda.cli.steps import check_command, settings_of, summary_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from sktda.cli.jobs import Job
    from sktda.report.judgement import Judgement

N_ROWS = 10  # as many annotations of a kind GitHub shows of one step
NO_FILE = "standard input"
MAX_LABEL = 60  # characters of a label in a message


class Format(StrEnum):
    """How the result is printed."""

    plain = "plain"
    github = "github"
    json = "json"


def check(
    ctx: typer.Context,
    data: Annotated[
        list[Path],
        typer.Argument(help="Tables, folders of images, or - for standard input.", metavar="DATA", parser=data_path),
    ],
    target: Target = None,
    max_noise: Annotated[
        str, option("--max-noise", "The share of wrong labels that is allowed, such as 0.05 or 5%.", "SHARE")
    ] = "5%",
    output: Annotated[
        Format,
        option(
            "--format",
            "plain: a sentence and the worst rows. github: annotations, as a workflow of GitHub reads them from the "
            "output. json: one object per DATA, on a line of its own.",
            "FORMAT",
        ),
    ] = Format.plain,
    method: Method = "label-posterior",
    index: Index = None,
    ignore: Ignore = None,
    text: Text = None,
    as_category: AsCategory = None,
    features: Features = "auto",
    embeddings: Embeddings = None,
    probabilities: Probabilities = None,
    na_values: NaValues = None,
    header: Header = None,
    sheet: Sheet = None,
    query: Query = None,
    labels: Labels = None,
    label_level: Level = None,
    size: Size = None,
    task: TaskKind = Task.auto,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fail if too many labels of DATA are wrong: exit status 0 if not, 1 if so, 2 if DATA cannot be read.

    The estimated share of wrong labels is compared with --max-noise. Where the features do not predict the labels
    nothing can be said about them, and the status is 1, too. Nothing is written.
    """
    try:
        allowed = noise_bound(max_noise)
    except ValueError as error:
        fail(str(error), 2)
    passed = True
    for path in data:
        started = time.perf_counter()
        with session(silent=quiet or output is Format.json, fault=2) as (progress, remarks):
            from sktda.cli.jobs import Job

            settings = settings_of(ctx, path)
            check_command(settings, {}, force=False, json_output=False)
            job = Job.load(settings, progress)
            frame, judgement = job.score(progress)
            job.notes.extend(remarks)
            fine = judgement.can_tell is not False and judgement.noise_rate <= allowed
            passed = passed and fine
            if output is Format.json and not quiet:
                typer.echo(json.dumps(_object(job, frame, judgement, allowed, fine, started)))
            elif not quiet:
                shown = _annotations if output is Format.github else _plain
                for line in shown(job, frame, _sentence(job, frame, judgement, allowed), fine):
                    say_line(line)
    if not passed:
        raise typer.Exit(1)


def _what(job: Job) -> str:
    return "value" if job.task == "regression" else "label"


def _name(path: Path) -> str:
    return NO_FILE if path == Path("-") else path.as_posix()


def _sentence(job: Job, frame: pd.DataFrame, judgement: Judgement, allowed: float) -> str:
    """What was found, and what is allowed."""
    what = _what(job)
    if judgement.can_tell is False:
        evidence = judgement.evidence(job.task == "regression")
        return f"the features do not predict the {what}s ({evidence}): which are wrong cannot be told"
    between = ""
    if judgement.noise_rate_interval is not None:
        low, high = judgement.noise_rate_interval
        between = f", by sampling between {low:.1%} and {high:.1%}"
    n_noisy, n = int(frame["noisy"].sum()), int((~job.unlabelled).sum())
    are = "is" if n_noisy == 1 else "are"
    found = f"{n_noisy:,} of {n:,} {what}s {are} probably wrong ({judgement.noise_rate:.1%}{between})"
    return f"{found}; at most {100 * allowed:.3g}% may be"


def _flagged(frame: pd.DataFrame) -> np.ndarray:
    """Positions of the rows whose label is probably wrong, the worst first."""
    from sktda.cards.suspects import worst_first

    order = worst_first(frame)
    return order[frame["noisy"].to_numpy(dtype=bool)[order]]


def _label_text(job: Job, row: int, label: Any, written: list[str] | None = None) -> str:
    from sktda.cards.cells import number_text

    if written is not None:
        return _short(written[row])
    if isinstance(label, Number) and not isinstance(label, bool):
        return number_text(label, 6) if job.task == "regression" else f"{label}"
    return repr(_short(label)) if isinstance(label, str) else _short(str(label))


def _short(text: str) -> str:
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 1]}…"


def _rows(job: Job, frame: pd.DataFrame) -> list[tuple[str, int | None, str]]:
    """(file, its line, what is wrong there) of the worst rows; a picture is a file of its own."""
    lines, index, written = job.source.line_numbers, frame.index, job.written
    found: list[tuple[str, int | None, str]] = []
    for row in _flagged(frame)[:N_ROWS].tolist():
        given, suggested = frame["given_label"].iloc[row], frame["suggested_label"].iloc[row]
        said = (
            f"{_what(job)} {_label_text(job, row, given, written)} is probably wrong; "
            f"{_label_text(job, row, suggested)} is suggested"
        )
        path = job.settings.data
        if index.name is not None and index.name == job.source.default_index:
            found.append(((path / str(index[row])).as_posix(), None, said))
            continue
        named = "" if index.name is None else f"{index.name} {index[row]}: "
        if lines is None:
            found.append((_name(path), None, f"row {row} (from 0): {named}{said}"))
        else:
            found.append((_name(path), int(lines[row]), f"{named}{said}"))
    return found


def _plain(job: Job, frame: pd.DataFrame, sentence: str, fine: bool) -> list[str]:
    first = f"{_name(job.settings.data)}: {sentence}"
    if fine:
        return [first]
    rows = [f"{file}{'' if line is None else f':{line}'}: {said}" for file, line, said in _rows(job, frame)]
    more = int(frame["noisy"].sum()) - len(rows)
    last = [f"and {more:,} more; sktda score lists all of them"] if more > 0 else []
    return [first, *rows, *last, *(f"Note: {note}" for note in job.notes)]


def _annotations(job: Job, frame: pd.DataFrame, sentence: str, fine: bool) -> list[str]:
    """Workflow commands: an error about the file and warnings about its worst rows, or a notice."""
    file, title = _name(job.settings.data), f"{_what(job)}s that are probably wrong"
    if fine:
        return [_annotation("notice", file, None, title, sentence)]
    rows = [
        _annotation("warning", at, line, f"{_what(job)} probably wrong", said) for at, line, said in _rows(job, frame)
    ]
    return [_annotation("error", file, None, title, sentence), *rows]


def _annotation(kind: str, file: str, line: int | None, title: str, message: str) -> str:
    places = {} if file == NO_FILE else {"file": file} if line is None else {"file": file, "line": line}
    properties = ",".join(f"{name}={_escaped(str(value), True)}" for name, value in {**places, "title": title}.items())
    return f"::{kind} {properties}::{_escaped(message)}"


def _escaped(text: str, in_property: bool = False) -> str:
    signs = {"%": "%25", "\r": "%0D", "\n": "%0A"} | ({":": "%3A", ",": "%2C"} if in_property else {})
    return "".join(signs.get(character, character) for character in text)


def _object(
    job: Job, frame: pd.DataFrame, judgement: Judgement, allowed: float, fine: bool, started: float
) -> dict[str, Any]:
    """The summary of the other commands, the verdict, and all rows that are probably wrong."""
    lines, named = job.source.line_numbers, frame.index.name is not None
    rows = [
        {
            "row": row,
            **({} if lines is None else {"line": int(lines[row])}),
            **({"index": _plain_value(frame.index[row])} if named else {}),
            "given_label": _plain_value(frame["given_label"].iloc[row]),
            "suggested_label": _plain_value(frame["suggested_label"].iloc[row]),
            "label_quality": round(float(frame["label_quality"].iloc[row]), 4),
        }
        for row in _flagged(frame).tolist()
    ]
    return summary_of(job, frame, judgement, {"max_noise": allowed, "passed": fine, "rows": rows}, {}, started)


def _plain_value(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, str | int | float | bool) else str(value)
