"""What the commands do alike: options to settings, checks before the work, the summary behind it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sktda.cli.options import Without, drop_amount, features_name, values
from sktda.cli.session import fail, list_columns

if TYPE_CHECKING:
    import pandas as pd

    from sktda.cli.jobs import Job
    from sktda.cli.plan import Plan
    from sktda.cli.settings import Settings
    from sktda.report.judgement import Judgement


def named_outputs(**paths: Path | None) -> dict[str, Path]:
    """The outputs that were asked for."""
    return {name: path for name, path in paths.items() if path}


def labelling_files(**paths: Path | None) -> dict[str, Path]:
    """The files of programs in which people label: what they show, and beside it how they are to be set up."""
    found: dict[str, Path] = {}
    endings = {"label_studio": ".xml", "argilla": ".settings.json"}
    for name, path in named_outputs(**paths).items():
        if path.suffix.lower() != ".json":
            fail(f"--{name.replace('_', '-')} {path} is written as JSON; let its name end with .json", 2)
        found |= {name: path, f"{name}_setup": path.with_suffix(endings[name])}
    return found


def copy_images(job: Job, destination: Path, plan: Plan) -> None:
    """Write the cleaned copy of a folder of images."""
    from sktda.cli.formats.images import Images

    if isinstance(job.source, Images):
        job.source.copy(destination, plan.rows, job.target, plan.relabelled)


def verdict_of(numbers: dict[str, Any]) -> list[str]:
    """What the report's comparison before and after says against the cleaning."""
    if numbers.get("report", {}).get("verdict") != "worse":
        return []
    return [
        "keep these rows: models trained without them did worse on held-out rows, by more than chance (see the report)"
    ]


def settings_of(ctx: typer.Context, data: Path | None = None) -> Settings:
    """The options that all commands share, as they were given; data: one path of several."""
    from sktda.cli.settings import Settings

    given = {"drop": "auto", "unlabelled": Without.keep, **ctx.params}
    if data is not None:
        given["data"] = data
    try:
        drop = drop_amount(given["drop"])
        features = features_name(given["features"])
    except (ValueError, OSError, ImportError) as error:
        fail(str(error), 2)
    if features != "auto" and given["embeddings"]:
        fail("--features and --embeddings both say what rows are compared by; give one of them", 2)
    kinds = {"ignore": given["ignore"], "text": given["text"], "category": given["as_category"]}
    columns = {name: kind for kind, names in kinds.items() for name in names or ()}
    if len(columns) < sum(len(set(names or ())) for names in kinds.values()):
        fail("a column is named by two of --ignore, --text and --as-category; choose one", 2)
    names = ("data", "target", "index", "embeddings", "probabilities", "size", "method", "seed")
    same = {name: given[name] for name in names}
    return Settings(
        **same,
        task=given["task"].value,
        features=features,
        drop=drop,
        kinds=columns,
        na_values=values(given["na_values"]),
        part=given["sheet"],
        query=given["query"],
        header=given["header"],
        labels=given["labels"],
        level=given["label_level"],
        unlabelled=given["unlabelled"].value,
    )


def need_output(settings: Settings, columns: bool, out: Path | None) -> None:
    """Fail before rows are read where they are not asked for their columns and no output is named."""
    from sktda.cli.formats.row_groups import parquet_files

    pictures = settings.data.is_dir() and not parquet_files(settings.data)
    if out is None and not columns and (settings.target or pictures):
        fail("name the output with --out", 2)


def list_columns_and_stop(job: Job, columns: bool, out: Path | None) -> None:
    """List the columns and stop, where that was asked; an output is needed from here on."""
    if columns:
        if not job.columns:
            fail("--columns lists the columns of a table; here features are those of images, arrays or embeddings", 2)
        list_columns(job.columns)
        raise typer.Exit()
    if out is None:
        fail("name the output with --out", 2)


def check_command(
    settings: Settings,
    outputs: dict[str, Path],
    other: Path | None = None,
    *,
    force: bool,
    json_output: bool,
    with_data: bool = False,
) -> None:
    """All that can be wrong with the command line and the outputs, before anything is read."""
    from sktda.cli.formats.known import check_ending
    from sktda.cli.settings import DEFAULT_METHOD, methods
    from sktda.files import STANDARD, check_outputs

    if settings.method != DEFAULT_METHOD and settings.method not in methods():
        fail(f"--method {settings.method!r} is unknown; available: {', '.join(sorted(methods()))}", 2)
    if settings.probabilities and settings.method != DEFAULT_METHOD:
        fail("--probabilities and --method both say by what labels are judged; give one of them", 2)
    if json_output and STANDARD in outputs.values():
        fail("--json and an output named - would both go to standard output; name a file", 2)
    try:
        for name in {"out", "scores"} & outputs.keys():
            check_ending(outputs[name], settings.data if name == "out" else None)
    except ValueError as error:
        fail(str(error), 2)
    if "report" in outputs:
        import jinja2  # noqa: F401  a missing extra shows before the work is done
        import matplotlib  # noqa: F401
    if "copy" in outputs and Path(os.path.realpath(outputs["copy"])).is_relative_to(os.path.realpath(settings.data)):
        fail("--copy is in the folder that is read, which would hold every image twice; name a place outside of it", 2)
    inputs = (settings.data, settings.embeddings, settings.probabilities, settings.labels, other)
    check_outputs(list(outputs.values()), [path for path in inputs if path], force=force)
    if settings.may_be_large:
        from sktda.cli.streamed import check_large

        check_large(settings, outputs, with_data)


def summary_of(
    job: Job,
    frame: pd.DataFrame,
    judgement: Judgement,
    numbers: dict[str, Any],
    outputs: dict[str, Path],
    started: float,
) -> dict[str, Any]:
    """What the command says when it is done; with --json as it is."""
    return {
        "data": str(job.settings.data),
        "target": job.target,
        "task": job.task,
        "n_rows": len(frame),
        "n_unlabelled": int(job.unlabelled.sum()),
        "n_noisy": int(frame["noisy"].sum()),
        "noise_rate": judgement.noise_rate,
        **judgement.numbers(),
        "evidence": judgement.evidence(job.task == "regression"),
        **numbers,
        "columns": [column._asdict() for column in job.columns],
        "findings": [finding.to_dict() for finding in job.findings],
        "notes": job.notes,
        "outputs": {name: str(path) for name, path in outputs.items()},
        "seconds": round(time.perf_counter() - started, 3),
    }
