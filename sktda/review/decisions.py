"""The scores file and the decisions: written for a human to review, and read back with the decisions filled in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sktda.cards.pairs import label_text

MIDNIGHT = " 00:00:00"  # behind days, where some write it and others do not
DECISIONS = ("keep", "drop", "relabel")
COLUMNS = (
    "row",
    "given_label",
    "suggested_label",
    "label_quality",
    "score",
    "noisy",
    "decision",
    "new_label",
)
OF_ROWS = ("duplicate_of", "near_duplicate_of", "outlier")  # where the verdicts have them


def columns_of(frame: pd.DataFrame) -> list[str]:
    """The columns of a scores file of these verdicts, without that of the user's index."""
    return [*COLUMNS, *(name for name in OF_ROWS if name in frame)]


def scores_file(frame: pd.DataFrame, rows: np.ndarray | None = None) -> pd.DataFrame:
    """The verdicts (file order) as a table, worst first, with empty columns for the review.

    `row` counts from 0. An index other than the row number comes next, under its name (with an underscore behind it
    where a column of the scores file has that name). rows: some of the rows, in their order.
    """
    rows = worst_first(frame) if rows is None else rows
    table = frame.iloc[rows]
    table = table.assign(row=rows, decision="", new_label="")
    columns = columns_of(frame)
    name = index_column(frame.index)
    if name:
        table[name] = table.index
        columns.insert(1, name)
    return table[columns]


def worst_first(frame: pd.DataFrame) -> np.ndarray:
    """Positions (n,) of the verdicts as a scores file has them."""
    return np.lexsort([frame["score"], frame["label_quality"]])


def index_column(index: pd.Index) -> str | None:
    """The name that the user's index has in a scores file; None if rows only have numbers."""
    if index.name is None:
        return None
    return f"{index.name}_" if index.name in (*COLUMNS, *OF_ROWS) else str(index.name)


def row_positions(review: pd.DataFrame, index: pd.Index, name: str) -> np.ndarray:
    """The data row that each row of a scores file is about: by the user's index where it is there, else by `row`.

    Raises ValueError naming the first row that is unknown or occurs twice.
    """
    key = index_column(index)
    if key in review.columns:
        if not index.is_unique:
            twice = index[index.duplicated()][0]
            raise ValueError(
                f"column {index.name!r} holds {twice!r} twice, so it cannot tell rows apart; leave out --index"
            )
        cells = review[key]
        positions = pd.Index(index.astype(str)).get_indexer(cells)
    elif "row" in review.columns:
        key, cells = "row", review["row"]
        numbers = pd.to_numeric(cells, errors="coerce").fillna(-1)
        positions = np.where((numbers % 1 == 0) & (numbers < len(index)), numbers, -1).astype(int)
    else:
        raise ValueError(f"{name} has neither the column 'row' nor that of --index; use a file written by sktda score")
    if (positions < 0).any():
        raise ValueError(
            f"{name}: {key} {cells[positions < 0].iloc[0]!r} is no row of the data ({len(index)} rows); does the file "
            "belong to other data?"
        )
    again = pd.Series(positions).duplicated().to_numpy()
    if again.any():
        raise ValueError(f"{name}: {key} {cells[again].iloc[0]!r} occurs twice; leave one line per row")
    return positions


def check_given(review: pd.DataFrame, positions: np.ndarray, given: pd.Series, name: str) -> None:
    """Raise ValueError if the labels in a scores file are not those of the data it is used with."""
    if "given_label" not in review.columns:
        return
    expected = given.astype(object).where(given.notna(), "").iloc[positions]
    # spreadsheets rewrite 007 as 7 and True as TRUE
    read, known = (
        cells.astype(str).str.strip().str.lower().str.removesuffix(MIDNIGHT).reset_index(drop=True)
        for cells in (review["given_label"], expected)
    )
    numbers, known_numbers = (pd.to_numeric(cells, errors="coerce").to_numpy(dtype=float) for cells in (read, known))
    same = (read == known).to_numpy() | np.isclose(numbers, known_numbers)
    if not same.all():
        at = int(same.argmin())
        raise ValueError(
            f"{name}: row {positions[at]} has given_label {review['given_label'].iloc[at]!r} but the data has "
            f"{str(expected.iloc[at])!r}; was the file written for other data or another --target?"
        )


def shared_values(column: pd.Series) -> np.ndarray:
    """Values as objects (n,), equal ones the same object, None for none: a text of its own takes fifty bytes a row."""
    codes, different = pd.factorize(column)
    return np.array([*different.tolist(), None], dtype=object)[codes]


def decide(
    frame: pd.DataFrame, task: str, action: str, review: pd.DataFrame | None = None, name: str = ""
) -> tuple[np.ndarray, np.ndarray, int]:
    """(fate, labels, n_reviewed): what happens to each row, "keep", "drop" or "relabel", and the label it would get.

    Both (n,) of objects; no label is None.

    The tool's verdict is `action` ("drop" or "relabel") for noisy rows. A review overrides it where its column
    `decision` is filled; `new_label`, where filled, replaces the suggested label.
    Raises ValueError naming the row for a decision or a label that is unknown.
    """
    fate = np.array(["keep", action], dtype=object)[frame["noisy"].to_numpy(dtype=np.int8)]
    labels = shared_values(frame["suggested_label"])
    if review is None:
        return fate, labels, 0
    positions, decisions, new_labels = positions_and_decisions(frame, task, review, name)
    for row, decision, label in zip(positions.tolist(), decisions, new_labels, strict=True):
        fate[row], labels[row] = decision or fate[row], label
    return fate, labels, sum(map(bool, decisions))


def positions_and_decisions(
    frame: pd.DataFrame, task: str, review: pd.DataFrame, name: str
) -> tuple[np.ndarray, list[str], list[Any]]:
    """(row, decision or "", label if relabelled) of each row of a review, whose cells are text.

    frame: as in `decide`; name: of the review's file, for messages. The label is new_label where that is filled, else
    the suggested one. Raises ValueError naming the row for a decision or a label that is unknown.
    """
    if "decision" not in review.columns:
        raise ValueError(f"{name} has no column 'decision'; fill in one with {', '.join(DECISIONS)} or nothing")
    positions = row_positions(review, frame.index, name)
    check_given(review, positions, frame["given_label"], name)
    given = frame["given_label"].iloc[positions].tolist()
    labels = shared_values(frame["suggested_label"].iloc[positions]).tolist()
    decisions = review["decision"].str.strip().str.lower().tolist()
    new_labels = review["new_label"].str.strip().tolist() if "new_label" in review.columns else [""] * len(review)
    known = None if task == "regression" else frame["given_label"].unique().tolist()
    for i, (row, decision, new_label) in enumerate(zip(positions.tolist(), decisions, new_labels, strict=True)):
        if decision not in ("", *DECISIONS) or (new_label and decision != "relabel"):
            raise ValueError(
                f"{name}: row {row} has the decision {decision!r}"
                + (f" with the new label {new_label!r}" if new_label else "")
                + "; allowed are keep, drop, relabel (with or without new_label), or nothing to follow the tool"
            )
        if new_label:
            labels[i] = _label(new_label, known, f"{name}: row {row}")
        if decision == "relabel" and labels[i] == given[i]:
            raise ValueError(f"{name}: row {row} is to be relabelled but has that label; fill in another new_label")
    return positions, decisions, labels


def _label(text: str, known: list[Any] | None, where: str) -> Any:
    """The label that a reviewer wrote, in the type of the data; known=None: any number."""
    try:
        number = float(text)
    except ValueError:
        number = None
    if known is None:
        if number is None:
            raise ValueError(f"{where} has the new label {text!r}; a number is needed")
        return number
    for label in known:
        if text.removesuffix(MIDNIGHT) in (str(label).strip().removesuffix(MIDNIGHT), label_text(label)) or (
            number is not None and number == label
        ):
            return label
    raise ValueError(
        f"{where} has the new label {text!r}, which no row of the data has; known are {', '.join(map(str, known[:20]))}"
    )
