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
from sktda.review.decisions import positions_and_decisions


def scored(job: Job, decisions: Path | None, progress: Callable[[str], None]) -> tuple[pd.DataFrame, Judgement, Any]:
    """(verdicts in file order, judgement, decisions as they were read).

    With decisions, rows are judged by the corrected labels of the others; those that were dropped play no part.
    """
    if decisions is None:
        return *job.score(progress), None
    decided = read_text_cells(decisions)
    labels = job.given.to_frame("given_label").assign(suggested_label=job.given)
    if "suggested_label" in decided:
        decided["new_label"] = _filled(decided)
    positions, fates, new = positions_and_decisions(labels, job.task, decided, decisions.name)
    stays, judged = np.ones(len(job.given), dtype=bool), job.judged.tolist()
    for row, fate, label in zip(positions.tolist(), fates, new, strict=True):
        stays[row] = fate != "drop"
        if fate == "relabel":
            judged[row] = label
    corrected = pd.Series(judged, index=job.judged.index, dtype=job.judged.dtype, name=job.judged.name)
    rows = np.flatnonzero(stays)
    part = replace(
        job, X=_safe_indexing(job.X, rows), given=corrected.iloc[rows], judged=corrected.iloc[rows], notes=job.notes
    )
    verdicts, judgement = part.score(progress)
    frame = verdicts.set_axis(rows).reindex(range(len(stays))).set_axis(job.given.index)
    dropped = ~stays
    frame["noisy"] = dropped | frame["noisy"].eq(True)
    frame["suggested_label"] = frame["suggested_label"].where(stays, job.given).astype(job.given.dtype)
    frame[["label_quality", "score"]] = frame[["label_quality", "score"]].fillna(
        frame[["label_quality", "score"]].min()
    )
    frame["given_label"] = job.given
    return frame, judgement, decided


def _filled(decided: pd.DataFrame) -> pd.Series:
    """New labels with the suggestion where a relabelling names none: after the new order it may be another."""
    new = decided["new_label"] if "new_label" in decided else pd.Series("", index=decided.index)
    empty = decided["decision"].str.strip().str.lower().eq("relabel") & (new.str.strip() == "")
    return new.mask(empty, decided["suggested_label"])


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
