"""Which rows are written, by the verdicts and a human's review of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sktda.cli.formats import read_source
from sktda.cli.formats.base import Reading
from sktda.cli.formats.escapes import unescaped
from sktda.review.decisions import decide

if TYPE_CHECKING:
    from sktda.cli.jobs import Job

FLAGS = ("sktda_noisy", "sktda_suggested_label", "sktda_label_quality")


@dataclass(frozen=True, eq=False)
class Plan:
    """Which rows are written, with which labels and added columns."""

    rows: np.ndarray
    relabelled: dict[int, Any]
    extra: pd.DataFrame
    n_reviewed: int

    @classmethod
    def make(cls, job: Job, frame: pd.DataFrame, action: str, decisions: Path | None) -> Plan:
        """From verdicts and a human's review of them; raises ValueError for a review that does not fit."""
        review = read_text_cells(decisions) if decisions else None
        verdict = "relabel" if action == "relabel" else "drop"
        fate, labels, n_reviewed = decide(frame, job.task, verdict, review, decisions.name if decisions else "")
        everything = np.arange(len(frame))
        without = job.unlabelled & (fate == "keep")  # and no decision about them
        if job.settings.unlabelled == "drop" and action != "flag":
            fate[without] = "drop"
        as_written = job.task == "regression" and job.source.frame[job.target].dtype.kind not in "iuf"

        def label_of(row: int) -> Any:
            value = labels[row]
            return job.numerals.write(value) if as_written and value is not None else value

        if action != "flag":
            relabelled = {row: label_of(row) for row in np.flatnonzero(fate == "relabel").tolist()}
            extra = pd.DataFrame(index=everything)
            if job.settings.unlabelled == "predict" and without.any():
                _check_free(job, FLAGS[1:2], "--unlabelled predict")
                extra[FLAGS[1]] = [label_of(row) if predicted else "" for row, predicted in enumerate(without)]
            return cls(np.flatnonzero(fate != "drop"), relabelled, extra, n_reviewed)
        _check_free(job, FLAGS, "--action flag")
        suggested = [label_of(row) for row in range(len(frame))]
        values = (fate != "keep", suggested, frame["label_quality"].round(4).to_numpy())
        return cls(everything, {}, pd.DataFrame(dict(zip(FLAGS, values, strict=True))), n_reviewed)

    def describe(self, n_rows: int) -> str:
        """What was done, for the report."""
        done = [f"{n_rows - len(self.rows):,} of {n_rows:,} rows dropped"] if len(self.rows) < n_rows else []
        done += [f"{len(self.relabelled):,} relabelled"] if self.relabelled else []
        done += ["all rows written with added columns"] if len(self.extra.columns) else []
        done += [f"{self.n_reviewed:,} decisions taken from the review"] if self.n_reviewed else []
        return "; ".join(done) or "all rows written as they were"


def _check_free(job: Job, names: tuple[str, ...], before: str) -> None:
    """Raise ValueError if the data has a column of a name that is to be added."""
    if taken := [name for name in names if name in job.source.frame]:
        raise ValueError(f"the data has the columns {', '.join(taken)} already; remove them before {before}")


def read_text_cells(path: Path) -> pd.DataFrame:
    """Any table with all cells as text and missing cells empty; quotes put before formulas are taken away.

    An export of Label Studio or Argilla is the table of the decisions in it.
    """
    if path.suffix.lower() == ".json" and path.is_file():
        from sktda.review.items import exported

        if (decisions := exported(path)) is not None:
            return decisions
    frame = read_source(path, Reading(header=True)).frame
    return unescaped(frame.astype(object).where(frame.notna(), "").astype(str))
