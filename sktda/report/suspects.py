"""The rows whose labels are most likely wrong, each beside the nearest rows that agree with its suggestion."""

from __future__ import annotations

from typing import Any

import numpy as np

from sktda.report.cells import Cells
from sktda.report.neighbours import nearest_agreeing
from sktda.report.pairs import Labels, label_text
from sktda.report.pictures import data_uri


def suspect_cards(data: Any, labels: Labels | None, n_suspects: int) -> list[dict]:
    """What the page shows of the flagged rows with the lowest label quality, worst first.

    data: a ReportInput; labels: the frame's labels as codes, None for regression, where every row that is not flagged
    may stand beside a suspect. A card holds texts, cells and pictures only; the template does the rest.
    """
    frame = data.frame
    noisy = frame["noisy"].to_numpy(dtype=bool)
    order = np.lexsort((frame["score"].to_numpy(), frame["label_quality"].to_numpy()))
    suspects = order[noisy[order]][:n_suspects]
    beside = [np.array([], dtype=int)] * len(suspects)
    if data.features is not None and len(suspects):
        clean = np.flatnonzero(~noisy)
        if labels is None:
            allowed = [clean] * len(suspects)
        else:
            wanted = labels.suggested[suspects]
            by_class = {c: clean[labels.given[clean] == c] for c in np.unique(wanted)}
            allowed = [by_class[c] for c in wanted]
        scale = data.judgement.scale if data.judgement else None
        beside = nearest_agreeing(data.features, suspects, allowed, scale or "auto")
    shown = np.concatenate([suspects, *beside])
    cells = Cells(data.rows, shown) if data.rows is not None and len(suspects) else None
    return [_card(data, cells, row, near) for row, near in zip(suspects, beside, strict=True)]


def _card(data: Any, cells: Cells | None, row: int, neighbours: np.ndarray) -> dict:
    frame = data.frame
    text = _number_text if data.task == "regression" else label_text
    card: dict = {
        "index": str(frame.index[row]),
        "given": text(frame["given_label"].iloc[row]),
        "suggested": text(frame["suggested_label"].iloc[row]),
        "quality": float(frame["label_quality"].iloc[row]),
        "neighbours": [
            {"index": str(frame.index[near]), "given": text(frame["given_label"].iloc[near])} for near in neighbours
        ],
    }
    if cells is not None:
        card["columns"], card["n_left_out"] = cells.compare(row, neighbours)
    if data.image is not None:
        card["picture"] = data_uri(data.image(int(row)))
        for shown, near in zip(card["neighbours"], neighbours, strict=True):
            shown["picture"] = data_uri(data.image(int(near)))
    return card


def _number_text(value: Any) -> str:
    return f"{float(value):.6g}"
