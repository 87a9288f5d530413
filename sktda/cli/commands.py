"""The commands of `sktda`. Heavy modules are imported once a command runs, so that --help is fast."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sktda.cli.options import (
    Action,
    Data,
    Drop,
    Features,
    Force,
    Index,
    Json,
    Method,
    NoComparison,
    Quiet,
    Seed,
    Size,
    Target,
    Task,
    TaskKind,
    option,
)
from sktda.cli.session import command_line, fail, session, show

if TYPE_CHECKING:
    import pandas as pd

    from sktda.cli.jobs import Job, Settings
    from sktda.report.judgement import Judgement

WRITING_REPORT = "writing the report"

app = typer.Typer(
    help="""Find wrong labels in a table or a folder of images, and clean them.

    No model is chosen or trained: what the other rows say about the label of a row is compared with the label that
    it has.

    DATA is a CSV, TSV or JSON lines file (also .gz; encoding and delimiter are detected), a Parquet file, an NPZ file
    with arrays X and y, or a folder that has one folder of images per class.
    """,
    epilog="Example: sktda clean data.csv --target label --out clean.csv",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _app(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from sktda import __version__

        typer.echo(f"sktda {__version__}")
        raise typer.Exit()


@app.command()
def clean(
    ctx: typer.Context,
    data: Data,
    out: Annotated[
        Path, option("--out -o", "The cleaned data; for an image folder a table of paths and labels.", "FILE")
    ],
    target: Target = None,
    report: Annotated[Path | None, option("--report", "HTML page of what was found.", "FILE")] = None,
    no_comparison: NoComparison = False,
    action: Annotated[
        Action,
        option(
            "--action",
            "drop or relabel the rows whose label is wrong, or flag: write all rows with the added columns "
            "sktda_noisy, sktda_suggested_label and sktda_label_quality.",
        ),
    ] = Action.drop,
    drop: Drop = "auto",
    method: Method = "label-posterior",
    index: Index = None,
    features: Features = None,
    size: Size = 64,
    task: TaskKind = Task.auto,
    scores: Annotated[Path | None, option("--scores", "Scores of all rows, as from sktda score.", "FILE")] = None,
    decisions: Annotated[
        Path | None,
        option(
            "--decisions",
            "A scores file in which you filled the column decision: keep, drop or relabel; where it is empty the "
            "tool decides. relabel takes new_label where you filled it, else suggested_label.",
            "FILE",
        ),
    ] = None,
    copy: Annotated[
        Path | None, option("--copy", "Cleaned copy of an image folder, as a new folder.", "FOLDER")
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write DATA without its wrong labels.

    Rows that stay are written exactly as they were read. Outputs appear whole or not at all.
    """
    started = time.perf_counter()
    outputs = _named(out=out, report=report, scores=scores, copy=copy)
    with session(silent=json_output or quiet) as (progress, remarks):
        from sktda.cli.formats import write_frame
        from sktda.cli.formats.images import ImageListing
        from sktda.cli.jobs import Job, Plan, Settings
        from sktda.files import staged
        from sktda.review.decisions import scores_file

        if copy and (not data.is_dir() or action is Action.flag):
            fail("--copy needs an image folder and --action drop or relabel", 2)
        settings = Settings(data, target, index, features, size, task.value, _share(drop), method, seed)
        _check(settings, outputs, decisions, force=force)
        job = Job.load(settings, progress)
        frame, judgement = job.score(progress)
        plan = Plan.make(job, frame, action.value, decisions)
        job.notes.insert(job.n_contradictions, plan.describe(len(frame)))
        job.notes.extend(remarks)
        numbers: dict[str, Any] = {
            "n_written": len(plan.rows),
            "n_relabelled": len(plan.relabelled),
            "n_reviewed": plan.n_reviewed,
        }
        with staged(list(outputs.values()), force=force) as places:
            place = dict(zip(outputs, places, strict=True))
            progress("writing")
            job.source.write(place["out"], plan.rows, job.target, plan.relabelled, plan.extra)
            if scores:
                write_frame(scores_file(frame), place["scores"])
            if copy and isinstance(job.source, ImageListing):
                job.source.copy(place["copy"], plan.rows, plan.relabelled)
            if report:
                progress(WRITING_REPORT)
                numbers["report"] = job.write_report(
                    place["report"], frame, judgement, command_line(ctx), not no_comparison
                )
            job.notes[:0] = _verdict(numbers)
        summary = _summary(job, frame, judgement, numbers, outputs, started)
    show(summary, frame, outputs, json_output, quiet)


@app.command()
def score(
    data: Data,
    out: Annotated[Path, option("--out -o", "Scores as .csv, .tsv, .jsonl or .parquet, the worst row first.", "FILE")],
    target: Target = None,
    drop: Drop = "auto",
    method: Method = "label-posterior",
    index: Index = None,
    features: Features = None,
    size: Size = 64,
    task: TaskKind = Task.auto,
    seed: Seed = 0,
    force: Force = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the scores of all rows, for a review by hand.

    The columns are row (counted from 0), the index, given_label, suggested_label, label_quality (below 0.5 = wrong),
    score (higher = keep), noisy, and the empty decision and new_label. Fill these in where you know better, and give
    the file to sktda clean --decisions.
    """
    started = time.perf_counter()
    outputs = _named(scores=out)
    with session(silent=json_output or quiet) as (progress, remarks):
        from sktda.cli.formats import write_frame
        from sktda.cli.jobs import Job, Settings
        from sktda.files import staged
        from sktda.review.decisions import scores_file

        settings = Settings(data, target, index, features, size, task.value, _share(drop), method, seed)
        _check(settings, outputs, force=force)
        job = Job.load(settings, progress)
        frame, judgement = job.score(progress)
        job.notes.extend(remarks)
        with staged([out], force=force) as (place,):
            progress("writing")
            write_frame(scores_file(frame), place)
        summary = _summary(job, frame, judgement, {"n_written": len(frame)}, outputs, started)
    show(summary, frame, outputs, json_output, quiet)


@app.command()
def review(
    data: Data,
    out: Annotated[Path, option("--out -o", "The page.", "FILE")] = Path("review.html"),
    target: Target = None,
    decisions: Annotated[
        Path | None,
        option("--decisions", "What was decided so far, as the page saved it: the page goes on from there.", "FILE"),
    ] = None,
    sheet: Annotated[
        Path | None, option("--sheet", "The same rows as a spreadsheet with a list of decisions.", "FILE")
    ] = None,
    drop: Drop = "auto",
    method: Method = "label-posterior",
    index: Index = None,
    features: Features = None,
    size: Size = 64,
    task: TaskKind = Task.auto,
    seed: Seed = 0,
    force: Force = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a page on which you decide about the flagged rows of DATA.

    Open it in a browser, where it works without a network. Keep, relabel or drop row by row, save decisions.csv, and
    give that to sktda clean --decisions.
    """
    started = time.perf_counter()
    outputs = _named(review=out, sheet=sheet)
    with session(silent=json_output or quiet) as (progress, remarks):
        from sktda.cli.jobs import Job, Settings
        from sktda.cli.reviews import lines_of, review_of
        from sktda.files import staged
        from sktda.review.sheet import write_sheet

        settings = Settings(data, target, index, features, size, task.value, _share(drop), method, seed)
        _check(settings, outputs, decisions, force=force)
        job = Job.load(settings, progress)
        frame, judgement = job.score(progress)
        job.notes.extend(remarks)
        page = review_of(job, frame, judgement, decisions)
        with staged(list(outputs.values()), force=force) as places:
            place = dict(zip(outputs, places, strict=True))
            progress("writing the page")
            numbers = page.save(place["review"])
            if sheet:
                write_sheet(place["sheet"], page, lines_of(job.source))
        summary = _summary(job, frame, judgement, numbers, outputs, started)
    show(summary, frame, outputs, json_output, quiet)


@app.command()
def report(
    ctx: typer.Context,
    scores: Annotated[Path, typer.Argument(help="Scores of all rows of DATA, from sktda score.")],
    data: Annotated[Path, option("--data -d", "The table or folder that was scored.", "DATA")],
    out: Annotated[Path, option("--out -o", "The HTML page.", "FILE")],
    target: Target = None,
    no_comparison: NoComparison = False,
    drop: Drop = "auto",
    method: Method = "label-posterior",
    index: Index = None,
    features: Features = None,
    size: Size = 64,
    task: TaskKind = Task.auto,
    seed: Seed = 0,
    force: Force = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make the HTML page from scores and their data.

    Give the options that were given to sktda score: the page compares models before and after cleaning with them.
    """
    started = time.perf_counter()
    outputs = _named(report=out)
    with session(silent=json_output or quiet) as (progress, remarks):
        from sktda.cli.jobs import Job, Settings
        from sktda.files import staged
        from sktda.report.judgement import Judgement

        settings = Settings(data, target, index, features, size, task.value, _share(drop), method, seed)
        _check(settings, outputs, scores, force=force)
        job = Job.load(settings, progress)
        frame = job.read_scores(scores)
        judgement = Judgement(float(frame["noisy"].mean()))
        job.notes.extend(remarks)
        with staged([out], force=force) as (place,):
            progress(WRITING_REPORT)
            numbers = {"report": job.write_report(place, frame, judgement, command_line(ctx), not no_comparison)}
            job.notes[:0] = _verdict(numbers)
        summary = _summary(job, frame, judgement, numbers, outputs, started)
    show(summary, frame, outputs, json_output, quiet)


def _named(**paths: Path | None) -> dict[str, Path]:
    return {name: path for name, path in paths.items() if path}


def _verdict(numbers: dict[str, Any]) -> list[str]:
    """What the report's comparison before and after says against the cleaning."""
    if numbers.get("report", {}).get("verdict") != "worse":
        return []
    return [
        "keep these rows: models trained without them did worse on held-out rows, by more than chance (see the report)"
    ]


def _share(drop: str) -> str | float:
    if drop == "auto":
        return drop
    try:
        share = float(drop)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        fail(f"--drop {drop!r} is neither auto nor a number in [0, 1)", 2)
    return share


def _check(settings: Settings, outputs: dict[str, Path], other: Path | None = None, *, force: bool) -> None:
    """All that can be wrong with the command line and the outputs, before anything is read."""
    from sktda.cli.formats import ending, output_endings, table_endings
    from sktda.cli.jobs import methods
    from sktda.files import check_outputs

    if settings.method not in methods():
        fail(f"--method {settings.method!r} is unknown; available: {', '.join(sorted(methods()))}", 2)
    allowed = {"out": output_endings(settings.data), "scores": table_endings()}
    for name in allowed.keys() & outputs.keys():
        if ending(outputs[name]) not in allowed[name]:
            fail(f"the output {outputs[name]} has an unknown ending; allowed are {', '.join(allowed[name])}", 2)
    if "report" in outputs:
        import jinja2  # noqa: F401  a missing extra shows before the work is done
        import matplotlib  # noqa: F401
    inputs = [path for path in (settings.data, settings.features, other) if path]
    check_outputs(list(outputs.values()), inputs, force=force)


def _summary(
    job: Job,
    frame: pd.DataFrame,
    judgement: Judgement,
    numbers: dict[str, Any],
    outputs: dict[str, Path],
    started: float,
) -> dict[str, Any]:
    return {
        "data": str(job.settings.data),
        "target": job.target,
        "task": job.task,
        "n_rows": len(frame),
        "n_noisy": int(frame["noisy"].sum()),
        "noise_rate": judgement.noise_rate,
        **judgement.numbers(),
        "evidence": judgement.evidence(job.task == "regression"),
        **numbers,
        "findings": [finding.to_dict() for finding in job.findings],
        "notes": job.notes,
        "outputs": {name: str(path) for name, path in outputs.items()},
        "seconds": round(time.perf_counter() - started, 3),
    }
