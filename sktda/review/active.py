"""What was decided so far corrects the labels, by which the rest is then judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sktda.review.decisions import positions_and_decisions

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = ["label_quality", "score"]


@dataclass(frozen=True, eq=False)
class Corrected:
    """rows: positions (m,) of the rows that were not dropped; labels (m,): theirs, corrected."""

    rows: np.ndarray
    labels: pd.Series

    @classmethod
    def of(cls, given: pd.Series, judged: pd.Series, task: str, decided: pd.DataFrame, name: str) -> Corrected:
        """From the labels as given, as judged (one spelling per class), and the decisions with cells as text.

        Raises ValueError naming the row where they do not fit.
        """
        frame = given.to_frame("given_label").assign(suggested_label=given)
        positions, fates, new = positions_and_decisions(frame, task, decided, name)
        stays, labels = np.ones(len(given), dtype=bool), judged.tolist()
        for row, fate, label in zip(positions.tolist(), fates, new, strict=True):
            stays[row] = fate != "drop"
            labels[row] = label if fate == "relabel" else labels[row]
        return cls(np.flatnonzero(stays), type(given)(labels, given.index, judged.dtype, judged.name)[stays])

    def frame_of(self, verdicts: pd.DataFrame, given: pd.Series) -> pd.DataFrame:
        """Verdicts of all rows, with labels as given, from those of the rows that stay; dropped ones are flagged."""
        everything = np.arange(len(given))
        dropped = np.isin(everything, self.rows, invert=True)
        frame = verdicts.set_axis(self.rows).reindex(everything).set_axis(given.index)
        suggested: Any = frame["suggested_label"].where(~dropped, given)
        return frame.assign(
            given_label=given,
            suggested_label=suggested.astype(given.dtype),
            noisy=dropped | frame["noisy"].eq(True),
            **{name: frame[name].fillna(frame[name].min()) for name in NUMBERS},
        )


def with_new_labels(decided: pd.DataFrame) -> pd.DataFrame:
    """Decisions that name the suggestion where a relabelling names no label: in a new order it may be another."""
    if not {"decision", "suggested_label"} <= set(decided.columns):
        return decided
    new = decided["new_label"] if "new_label" in decided else decided["decision"].str.slice(0, 0)
    empty = decided["decision"].str.strip().str.lower().eq("relabel") & (new.str.strip() == "")
    return decided.assign(new_label=new.mask(empty, decided["suggested_label"]))
