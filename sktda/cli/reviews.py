"""The command `review`: what was decided so far corrects the labels, and the rest is ordered anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import _safe_indexing

from sktda.cli.jobs import Job, read_text_cells
from sktda.report.judgement import Judgement
from sktda.review import Review
from sktda.review.active import Corrected, with_new_labels


def scored(job: Job, decisions: Path | None, progress: Callable[[str], None]) -> tuple[pd.DataFrame, Judgement, Any]:
    """(verdicts in file order, judgement, decisions as they were read).

    With decisions, rows are judged by the corrected labels of the others; those that were dropped play no part.
    """
    if decisions is None:
        return *job.score(progress), None
    decided = with_new_labels(read_text_cells(decisions))
    corrected = Corrected.of(job.given, job.judged, job.task, decided, decisions.name)
    part = replace(job, X=_safe_indexing(job.X, corrected.rows), given=corrected.labels, judged=corrected.labels)
    verdicts, judgement = part.score(progress)
    return corrected.frame_of(verdicts, job.given), judgement, decided


def review_of(job: Job, frame: pd.DataFrame, judgement: Judgement, decided: pd.DataFrame | None) -> Review:
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
        decided=decided,
    )


def lines_of(source: Any) -> np.ndarray | None:
    """The line of the file on which each row (n,) begins, from 1; None where rows are no lines."""
    records = getattr(source, "records", None)
    if records is None:
        return None
    breaks = np.array([source.header, *records[:-1]], dtype=object)
    return np.cumsum([len(text.splitlines()) for text in breaks]) + 1
