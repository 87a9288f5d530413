"""What a human reviews: a job as a page, and its scores as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sktda.cli.jobs import Job
from sktda.cli.plan import read_text_cells
from sktda.report.judgement import Judgement
from sktda.review.decisions import scores_file, worst_first

if TYPE_CHECKING:
    from sktda.review import Review

PART = 250_000  # rows of a Parquet file of scores that are put together at a time


def review_of(job: Job, frame: pd.DataFrame, judgement: Judgement, decisions: Path | None) -> Review:
    """What the page is made from."""
    from sktda.review import Review

    return Review(
        name=job.settings.data.resolve().name,
        frame=frame,
        task=job.task,
        features=job.X,
        rows=job.cells,
        image=job.source.picture,
        written=job.written,
        scale=judgement.scale,
        decided=read_text_cells(decisions) if decisions else None,
    )


def write_scores(job: Job, frame: pd.DataFrame, path: Path, with_data: bool) -> None:
    """Write the scores of all rows, the worst first, for a review by hand, as the ending says.

    with_data: also the line and the cells of each row; a spreadsheet then has lists to choose from.
    """
    from sktda.cli.formats.arrow import write_parts
    from sktda.cli.formats.escapes import write_for_spreadsheet
    from sktda.cli.formats.known import comes_in_parts

    if not with_data:
        if len(frame) > PART and comes_in_parts(path):
            order = worst_first(frame)
            write_parts((scores_file(frame, order[at : at + PART]) for at in range(0, len(order), PART)), path)
        else:
            write_for_spreadsheet(scores_file(frame), path)
        return
    from sktda.review.sheet import with_cells, write_sheet

    rows = scores_file(frame)["row"].to_numpy()
    table = with_cells(frame, rows, job.cells, job.source.line_numbers)
    if path.suffix.lower() == ".xlsx":
        write_sheet(path, table, labels_to_choose(job, frame))
    else:
        write_for_spreadsheet(table, path)


def write_labelling_files(page: Review, places: dict[str, Path]) -> None:
    """The rows of a review for Label Studio and Argilla, where these were asked for."""
    if "label_studio" in places:
        setup, rows = page.label_studio()
        places["label_studio_setup"].write_text(setup, encoding="utf-8")
        places["label_studio"].write_text(json.dumps(rows), encoding="utf-8")
    if "argilla" in places:
        settings, rows = page.argilla()
        places["argilla_setup"].write_text(json.dumps(settings), encoding="utf-8")
        places["argilla"].write_text(json.dumps(rows), encoding="utf-8")


def labels_to_choose(job: Job, frame: pd.DataFrame) -> list[str]:
    """The classes; none where labels are numbers."""
    return [] if job.task == "regression" else sorted(map(str, frame["given_label"].dropna().unique()))
