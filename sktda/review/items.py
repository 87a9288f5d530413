"""The rows of a review for programs in which people label, as plain texts, and what they answered."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sktda.cards.cells import number_text
from sktda.cards.pairs import encode, label_text
from sktda.cards.pictures import data_uri
from sktda.cards.suspects import given_text
from sktda.containers import is_missing
from sktda.review.page import Review, picture_side, rows_shown

if TYPE_CHECKING:
    import pandas as pd

DROP = "drop"


@dataclass(frozen=True)
class Item:
    """A row to decide about.

    given, suggested: the labels as `decisions` reads them; shown: the given one as the file has it; score: in [0, 1],
    the higher the more likely it is wrong, an order and no probability. What the row holds is one of `cells`, `text`
    and `image` (a data URI).
    """

    row: int
    index: str
    given: str
    suggested: str
    shown: str
    score: float
    cells: dict[str, str] | None = None
    text: str | None = None
    image: str | None = None

    @property
    def about(self) -> dict[str, Any]:
        """What comes back with the answer, and says which row it is about."""
        return {
            "row": self.row,
            "row_name": self.index,
            "given_label": self.given,
            "suggested_label": self.suggested,
            "label_quality": round(1 - self.score, 4),
        }


@dataclass(frozen=True)
class Answer:
    """What a person said of a row: a label, or a number where labels are numbers, or that it is to be dropped."""

    row: int
    given: str
    label: str | None = None
    number: str | None = None
    drop: bool = False


def kind_of(review: Review) -> str:
    """What rows hold: "image", "cells" (several columns) or "text"."""
    if review.image is not None:
        return "image"
    return "cells" if review.rows is not None and review.rows.shape[1] > 1 else "text"


def classes_of(review: Review) -> list[str]:
    """The labels to choose from, as texts; none where labels are numbers."""
    return [] if review.task == "regression" else [label_text(label) for label in encode(review.frame).classes]


def items(review: Review) -> Iterator[Item]:
    """The rows that are left to decide about, the worst first; those without a label are none."""
    rows, decided = rows_shown(review)
    frame, kind, side = review.frame, kind_of(review), picture_side(len(rows))
    regression = review.task == "regression"
    for row in rows.tolist():
        given, suggested = (frame[name].iloc[row] for name in ("given_label", "suggested_label"))
        if row in decided or is_missing(given) or is_missing(suggested):
            continue
        cells = {}
        if review.rows is not None:
            cells = {
                str(name): _text(value)
                for name, value in zip(review.rows.columns, review.rows.iloc[row].tolist(), strict=True)
            }
        yield Item(
            row,
            str(frame.index[row]),
            number_text(given) if regression else str(given),
            number_text(suggested, 6) if regression else label_text(suggested),
            given_text(review, row),
            round(1 - float(frame["label_quality"].iloc[row]), 4),
            cells=cells if kind == "cells" else None,
            text=" ".join(cells.values()) or f"row {row}" if kind == "text" else None,
            image=data_uri(review.image(row), side) if kind == "image" and review.image else None,
        )


def read_decisions(path: str | os.PathLike) -> pd.DataFrame:
    """What was decided, with all cells as text: the CSV of a review page, or an export of Label Studio or Argilla.

    Raises ValueError for JSON that is neither, and for answers that contradict each other.
    """
    import pandas as pd

    if Path(path).suffix.lower() != ".json":
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    found = exported(path)
    if found is None:
        raise ValueError(f"{Path(path).name} is no export of Label Studio or Argilla; export as JSON with all answers")
    return found


def exported(path: str | os.PathLike) -> pd.DataFrame | None:
    """The decisions in an export of Label Studio or Argilla, with all cells as text; None for another file."""
    from sktda.review import argilla, label_studio

    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except ValueError:
        return None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        return None
    for program in (label_studio, argilla):
        if all(program.is_export(entry) for entry in entries):
            return _decisions([answer for entry in entries for answer in program.answers(entry)], Path(path).name)
    return None


def _decisions(answers: list[Answer], name: str) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame(
        [_decision(answer) for answer in answers],
        columns=["row", "given_label", "decision", "new_label"],
        dtype=str,
    ).drop_duplicates()  # of people who agree
    again = table["row"].duplicated()
    if again.any():
        raise ValueError(f"{name}: people disagree about row {table['row'][again].iloc[0]}; leave one answer per row")
    return table.reset_index(drop=True)


def _decision(answer: Answer) -> tuple[str, str, str, str]:
    label = answer.label or answer.number
    if answer.drop or label is None:
        return str(answer.row), answer.given, DROP, ""
    if answer.number is not None:
        same = _is_number(label) and float(label) == float(answer.given)
    else:
        same = label.strip() in (answer.given.strip(), label_text(answer.given))
    return str(answer.row), answer.given, *(("keep", "") if same else ("relabel", label))


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False  # positions_and_decisions says so, with the row


def _text(value: Any) -> str:
    """A cell as text; an empty one is nothing."""
    if isinstance(value, list | tuple | dict | np.ndarray):
        return json.dumps(value, ensure_ascii=False, default=str)
    if is_missing(value):
        return ""
    return number_text(value) if isinstance(value, float | np.floating) else str(value)
