"""The commands of `sktda`. Heavy modules are imported once a command runs, so that --help is fast."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from sktda.cli.check import check
from sktda.cli.doctor import doctor
from sktda.cli.formats.escapes import visible
from sktda.cli.options import (
    Action,
    AsCategory,
    Data,
    Drop,
    Embeddings,
    Features,
    Force,
    Header,
    Ignore,
    Index,
    Json,
    Labels,
    Level,
    Listing,
    Method,
    NaValues,
    NoComparison,
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
    Unlabelled,
    WithData,
    Without,
    data_path,
    option,
)
from sktda.cli.session import command_line, fail, session, show
from sktda.cli.steps import (
    check_command,
    copy_images,
    labelling_files,
    list_columns_and_stop,
    named_outputs,
    need_output,
    settings_of,
    summary_of,
    verdict_of,
)

WRITING_REPORT = "writing the report"


class Commands(typer.core.TyperGroup):
    """What a terminal would act upon is shown in complaints about the command line, too: shells fill in file names."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:  # of click, which typer brings under names that change
            message = getattr(error, "message", None)
            if isinstance(message, str):
                error.__dict__["message"] = visible(message)
            raise


app = typer.Typer(
    cls=Commands,
    help="""Find wrong labels in a table or a folder of images, and clean them.

    No model is chosen or trained: what the other rows say about the label of a row is compared with the label that
    it has.

    DATA is a CSV, Excel, OpenDocument, JSON, Parquet, Feather, ARFF or SQLite file (encoding, delimiter and header are
    found out; also compressed), an NPZ file with arrays X and y, or a folder of images or of Parquet files.
    Large Parquet is read by row group.
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
        Path | None,
        option(
            "--out -o",
            "The cleaned data, - for standard output; for an image folder a table of paths and labels.",
            "FILE",
        ),
    ] = None,
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
    ignore: Ignore = None,
    text: Text = None,
    as_category: AsCategory = None,
    columns: Listing = False,
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
    scores: Annotated[Path | None, option("--scores", "Scores of all rows, as from sktda score.", "FILE")] = None,
    with_data: WithData = False,
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
    unlabelled: Unlabelled = Without.keep,
    seed: Seed = 0,
    force: Force = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write DATA without its wrong labels.

    Rows that stay are written exactly as they were read. Outputs appear whole or not at all.
    """
    started = time.perf_counter()
    outputs = named_outputs(out=out, report=report, scores=scores, copy=copy)
    with session(silent=json_output or quiet) as (progress, remarks):
        from sktda.cli.jobs import Job
        from sktda.cli.plan import Plan
        from sktda.cli.reviews import write_scores
        from sktda.files import staged

        if copy and (not data.is_dir() or action is Action.flag):
            fail("--copy needs an image folder and --action drop or relabel", 2)
        if with_data and not scores:
            fail("--with-data is about the file of --scores; name one", 2)
        settings = settings_of(ctx)
        check_command(settings, outputs, decisions, force=force, json_output=json_output, with_data=with_data)
        need_output(settings, columns, out)
        job = Job.load(settings, progress)
        list_columns_and_stop(job, columns, out)
        frame, judgement = job.score(progress)
        plan = Plan.make(job, frame, action.value, decisions)
        job.notes.insert(job.n_contradictions, plan.describe(len(frame)))
        job.notes.extend(remarks)
        numbers: dict[str, Any] = {
            "n_written": len(plan.rows),
            "n_relabelled": len(plan.relabelled),
            "n_reviewed": plan.n_reviewed,
        }
        with staged(list(outputs.values()), force=force, ending=job.source.ending) as places:
            place = dict(zip(outputs, places, strict=True))
            progress("writing")
            job.source.write(place["out"], plan.rows, job.target, plan.relabelled, plan.extra)
            if scores:
                write_scores(job, frame, place["scores"], with_data)
            if copy:
                copy_images(job, place["copy"], plan)
            if report:
                progress(WRITING_REPORT)
                numbers["report"] = job.write_report(
                    place["report"], frame, judgement, command_line(ctx), not no_comparison
                )
            job.notes[:0] = verdict_of(numbers)
        summary = summary_of(job, frame, judgement, numbers, outputs, started)
    show(summary, frame, outputs, json_output, quiet)


app.command()(check)


@app.command()
def score(
    ctx: typer.Context,
    data: Data,
    out: Annotated[
        Path | None,
        option(
            "--out -o", "Scores, the worst row first: .csv, .xlsx or any other table, - for standard output.", "FILE"
        ),
    ] = None,
    with_data: WithData = False,
    target: Target = None,
    drop: Drop = "auto",
    method: Method = "label-posterior",
    index: Index = None,
    ignore: Ignore = None,
    text: Text = None,
    as_category: AsCategory = None,
    columns: Listing = False,
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
    unlabelled: Unlabelled = Without.keep,
    seed: Seed = 0,
    force: Force = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the scores of all rows, for a review by hand.

    The columns are row (counted from 0), the index, given_label, suggested_label, label_quality (below 0.5 = wrong),
    score (higher = keep), noisy, the empty decision and new_label, then duplicate_of and near_duplicate_of (the first
    such row) and outlier. Fill in decisions where you know better, and give the file to sktda clean --decisions.
    """
    started = time.perf_counter()
    outputs = named_outputs(scores=out)
    with session(silent=json_output or quiet) as (progress, remarks):
        from sktda.cli.formats.known import PLAIN
        from sktda.cli.jobs import Job
        from sktda.cli.reviews import write_scores
        from sktda.files import staged

        settings = settings_of(ctx)
        check_command(settings, outputs, force=force, json_output=json_output, with_data=with_data)
        need_output(settings, columns, out)
        job = Job.load(settings, progress)
        list_columns_and_stop(job, columns, out)
        frame, judgement = job.score(progress)
        job.notes.extend(remarks)
        with staged(list(outputs.values()), force=force, ending=PLAIN) as (place,):
            progress("writing")
            write_scores(job, frame, place, with_data)
        summary = summary_of(job, frame, judgement, {"n_written": len(frame)}, outputs, started)
    show(summary, frame, outputs, json_output, quiet)


@app.command()
def review(
    ctx: typer.Context,
    data: Data,
    out: Annotated[Path, option("--out -o", "The page.", "FILE")] = Path("review.html"),
    target: Target = None,
    decisions: Annotated[
        Path | None,
        option("--decisions", "What was decided so far, as the page saved it: the page goes on from there.", "FILE"),
    ] = None,
    spreadsheet: Annotated[
        Path | None, option("--spreadsheet", "The same rows as a spreadsheet with a list of decisions.", "FILE")
    ] = None,
    label_studio: Annotated[
        Path | None,
        option(
            "--label-studio", "The same rows as tasks of Label Studio, and its configuration beside as .xml.", "JSON"
        ),
    ] = None,
    argilla: Annotated[
        Path | None,
        option("--argilla", "The same rows as records of Argilla, and its settings beside as .settings.json.", "JSON"),
    ] = None,
    drop: Drop = "auto",
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
    unlabelled: Unlabelled = Without.keep,
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
    outputs = named_outputs(
        review=out, spreadsheet=spreadsheet, **labelling_files(label_studio=label_studio, argilla=argilla)
    )
    with session(silent=json_output or quiet) as (progress, remarks):
        from sktda.cli.jobs import Job
        from sktda.cli.reviews import labels_to_choose, review_of, write_labelling_files
        from sktda.files import staged
        from sktda.review.sheet import review_table, write_sheet

        settings = settings_of(ctx)
        check_command(settings, outputs, decisions, force=force, json_output=json_output)
        job = Job.load(settings, progress)
        job.check_review()
        frame, judgement = job.score(progress)
        job.notes.extend(remarks)
        page = review_of(job, frame, judgement, decisions)
        with staged(list(outputs.values()), force=force) as places:
            place = dict(zip(outputs, places, strict=True))
            progress("writing the page")
            numbers = page.save(place["review"])
            if spreadsheet:
                table = review_table(page, job.source.line_numbers)
                write_sheet(place["spreadsheet"], table, labels_to_choose(job, frame))
            write_labelling_files(page, place)
        summary = summary_of(job, frame, judgement, numbers, outputs, started)
    show(summary, frame, outputs, json_output, quiet)


@app.command()
def report(
    ctx: typer.Context,
    scores: Annotated[Path, typer.Argument(help="Scores of all rows of DATA, from sktda score.")],
    data: Annotated[
        Path,
        typer.Option("--data", "-d", help="The table or folder that was scored.", metavar="DATA", parser=data_path),
    ],
    out: Annotated[Path, option("--out -o", "The HTML page.", "FILE")],
    target: Target = None,
    no_comparison: NoComparison = False,
    drop: Drop = "auto",
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
    unlabelled: Unlabelled = Without.keep,
    seed: Seed = 0,
    force: Force = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make the HTML page from scores and their data.

    Give the options that were given to sktda score: the page compares models before and after cleaning with them.
    """
    started = time.perf_counter()
    outputs = named_outputs(report=out)
    with session(silent=json_output or quiet) as (progress, remarks):
        from sktda.cli.jobs import Job
        from sktda.files import staged
        from sktda.report.judgement import Judgement

        settings = settings_of(ctx)
        check_command(settings, outputs, scores, force=force, json_output=json_output)
        job = Job.load(settings, progress)
        frame = job.read_scores(scores)
        judgement = Judgement(float(frame["noisy"].mean()))
        job.notes.extend(remarks)
        with staged([out], force=force) as (place,):
            progress(WRITING_REPORT)
            numbers = {"report": job.write_report(place, frame, judgement, command_line(ctx), not no_comparison)}
            job.notes[:0] = verdict_of(numbers)
        summary = summary_of(job, frame, judgement, numbers, outputs, started)
    show(summary, frame, outputs, json_output, quiet)


app.command()(doctor)
