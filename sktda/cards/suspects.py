"""The rows whose labels are most likely wrong, each beside the nearest rows that agree with its suggestion."""

from __future__ import annotations

from typing import Any

import numpy as np

from sktda.cards.cells import Cells, number_text
from sktda.cards.neighbours import nearest_agreeing
from sktda.cards.pairs import Labels, label_text
from sktda.cards.pictures import data_uri


def worst_first(frame: Any) -> np.ndarray:
    """Positions (n,) of all rows by label quality, equal ones by score."""
    return np.lexsort((frame["score"].to_numpy(), frame["label_quality"].to_numpy()))


def suspects_of(frame: Any, n_suspects: int) -> np.ndarray:
    """Positions of the worst flagged rows; where none is flagged, of the most doubtful ones."""
    noisy, order = frame["noisy"].to_numpy(dtype=bool), worst_first(frame)
    return (order[noisy[order]] if noisy.any() else order)[:n_suspects]


def rows_beside(data: Any, labels: Labels | None, suspects: np.ndarray) -> list[np.ndarray]:
    """Positions of the nearest rows that are not flagged and carry the suggested label, per suspect; none of suspects.

    data: name, frame, features and scale as in a ReportInput; labels: the frame's labels as codes, None for regression,
    where every row that is not flagged may stand beside a suspect.
    """
    if data.features is None or not len(suspects):
        return [np.array([], dtype=int)] * len(suspects)
    witness = ~data.frame["noisy"].to_numpy(dtype=bool)
    witness[suspects] = False
    clean = np.flatnonzero(witness)
    if labels is None:
        allowed = [clean] * len(suspects)
    else:
        wanted = labels.suggested[suspects]
        by_class = {c: clean[labels.given[clean] == c] for c in np.unique(wanted)}
        allowed = [by_class[c] for c in wanted]
    return nearest_agreeing(data.features, suspects, allowed, data.scale or "auto")


def suspect_cards(data: Any, labels: Labels | None, n_suspects: int) -> list[dict]:
    """What a page shows of the rows of `suspects_of`: texts, cells and pictures only; the template does the rest."""
    suspects = suspects_of(data.frame, n_suspects)
    beside = rows_beside(data, labels, suspects)
    shown = np.concatenate([suspects, *beside]).astype(int)
    cells = Cells(data.rows, shown) if data.rows is not None and len(suspects) else None
    return [_card(data, cells, row, near) for row, near in zip(suspects, beside, strict=True)]


def given_text(data: Any, row: int) -> str:
    """The label of a row as it was written."""
    written = getattr(data, "written", None)
    label = data.frame["given_label"].iloc[row] if written is None else written[row]
    return number_text(label) if data.task == "regression" and written is None else label_text(label)


def suggested_text(data: Any, row: int) -> str:
    """The suggested label of a row; numbers are predictions, so that six digits are enough."""
    label = data.frame["suggested_label"].iloc[row]
    return number_text(label, 6) if data.task == "regression" else label_text(label)


def _card(data: Any, cells: Cells | None, row: int, neighbours: np.ndarray) -> dict:
    frame = data.frame
    card: dict = {
        "index": str(frame.index[row]),
        "given": given_text(data, row),
        "suggested": suggested_text(data, row),
        "quality": float(frame["label_quality"].iloc[row]),
        "neighbours": [{"index": str(frame.index[near]), "given": given_text(data, near)} for near in neighbours],
    }
    if cells is not None:
        card["columns"], card["n_left_out"] = cells.compare(row, neighbours)
    if data.image is not None:
        card["picture"] = data_uri(data.image(int(row)))
        for shown, near in zip(card["neighbours"], neighbours, strict=True):
            shown["picture"] = data_uri(data.image(int(near)))
    return card
