"""The command `review`: a job as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sktda.cli.jobs import Job
from sktda.cli.plan import read_text_cells
from sktda.report.judgement import Judgement
from sktda.review import Review


def review_of(job: Job, frame: pd.DataFrame, judgement: Judgement, decisions: Path | None) -> Review:
    """What the page is made from."""
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


def lines_of(source: Any) -> np.ndarray | None:
    """The line of the file on which each row (n,) begins, from 1; None where rows are no lines."""
    records = getattr(source, "records", None)
    if records is None:
        return None
    breaks = np.array([source.header, *records[:-1]], dtype=object)
    return np.cumsum([len(text.splitlines()) for text in breaks]) + 1
