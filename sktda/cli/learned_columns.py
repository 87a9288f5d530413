"""What the columns of many rows hold: learned from some of the rows, and applied to all of them block by block."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from sktda.cli.formats.row_groups import RowGroups
from sktda.data import slices
from sktda.findings.finding import Columns
from sktda.findings.leaks import leaks
from sktda.review.decisions import shared_values

if TYPE_CHECKING:
    from sktda.findings import Finding
    from sktda.tables.encoder import TableEncoder

LEARNED_CELLS = 10_000_000  # that are drawn, whole rows
LEARNED_ROWS = 200_000  # at most
ENCODED_CELLS = 4_000_000  # at a time


@dataclass(frozen=True, eq=False)
class RowsOfCells:
    """The columns that may be features, with cells taken as missing as the user said."""

    source: RowGroups
    names: list[str]
    na_values: tuple[str, ...] | None

    def frames(self, names: list[str] | None = None) -> Iterator[tuple[int, pd.DataFrame]]:
        """(position of the first row, cells) of all rows in their order."""
        from sktda.cli.features import without_values

        start = 0
        for frame in self.source.frames(self.names if names is None else names):
            yield start, without_values(frame, self.na_values)
            start += len(frame)

    def drawn(self, positions: np.ndarray) -> pd.DataFrame:
        """The rows at these positions (ascending)."""
        parts = []
        for start, frame in self.frames():
            own = positions[np.searchsorted(positions, start) : np.searchsorted(positions, start + len(frame))]
            parts.append(frame.iloc[own - start])
        categories = [name for name in self.names if any(isinstance(p[name].dtype, pd.CategoricalDtype) for p in parts)]
        for name in categories:  # those of each block: pandas would make objects of them
            union = union_categoricals([pd.Categorical(part[name]) for part in parts])
            codes = np.split(union.codes, np.cumsum([len(part) for part in parts])[:-1])
            for k, part in enumerate(parts):
                parts[k] = part.assign(**{name: pd.Categorical.from_codes(codes[k], dtype=union.dtype)})
        return pd.concat(parts, ignore_index=True)

    def encoded(self, encoder: TableEncoder, known: np.ndarray) -> Iterator[np.ndarray]:
        """The features of the rows (n,) that are known, some at a time."""
        width = max(1, len(encoder.get_feature_names_out()))
        for start, frame in self.frames():
            for part in slices(len(frame), max(1, ENCODED_CELLS // width)):
                try:
                    block = encoder.transform(frame.iloc[part])
                except ValueError as error:  # names the row within the block
                    raise ValueError(_row_of_all(str(error), start + part.start)) from error
                own = known[start + part.start : start + part.stop]
                if own.any():
                    yield block[own]


def _row_of_all(message: str, first: int) -> str:
    """What was said of a row of a block, with its number among all rows."""
    return re.sub(r"(?<=in row )\d+", lambda found: str(int(found[0]) + first), message)


def drawn_rows(n: int, width: int, seed: int) -> np.ndarray:
    """Positions (ascending) of the rows that columns are learned from: all, or as many as memory holds easily."""
    size = min(LEARNED_ROWS, max(1_000, LEARNED_CELLS // max(1, width)))
    return np.arange(n) if n <= size else np.sort(np.random.default_rng(seed).choice(n, size, replace=False))


def learn_columns(
    rows: RowsOfCells, drawn: np.ndarray, given: pd.Series, task: str, kinds: dict[Any, str], text: Any
) -> tuple[TableEncoder, list[Finding]]:
    """(the encoder, findings) by the rows drawn; what must hold in all rows is looked at in all."""
    from sktda.findings import merge_spellings
    from sktda.findings.sentinels import target_sentinels
    from sktda.tables.prepare import learn

    known = given.notna().to_numpy()
    # each text of a column of text would be an object of its own
    values = shared_values(given) if isinstance(given.dtype, pd.StringDtype) else given.to_numpy()
    labels, own = values[known], np.flatnonzero(known[drawn])
    everything = len(drawn) == len(given)
    encoder, _, _, findings = learn(
        rows.drawn(drawn),
        values[drawn[own]],
        task,
        kinds,
        None if len(own) == len(drawn) else own,
        text,
        names=drawn,
        confirm=None if everything else partial(_confirmed, rows, known, labels, task),
    )
    if text is not None and not any(column.kind == "text" for column in encoder.columns_):
        raise ValueError(f"no column is taken for text, which {text.model} reads; name one with --text")
    if everything:
        return encoder, findings
    looked = f" (of {len(drawn):,} rows that were looked at)"
    findings = [replace(f, message=f.message + looked * (f.kind != "leak")) for f in findings if f.kind != "spelling"]
    of_labels = target_sentinels(labels) if task == "regression" else merge_spellings(labels)[1]
    findings = [f for f in findings if f.positions or f.kind == "contradiction"]  # not those of some of the labels
    return encoder, [*findings, *(replace(f, rows=np.flatnonzero(known)[f.rows]) for f in of_labels)]


def _confirmed(
    rows: RowsOfCells,
    known: np.ndarray,
    labels: np.ndarray,
    task: str,
    encoder: TableEncoder,
    typed: pd.DataFrame,
    findings: list[Finding],
) -> list[Finding]:
    """The findings of some rows; a column gives the label away only if it does so in all rows."""
    suspected = sorted({j for finding in findings if finding.kind == "leak" for j in finding.positions})
    others = [finding for finding in findings if finding.kind != "leak"]
    if not suspected:
        return findings
    found = leaks(_typed_columns(rows, known, encoder, typed, suspected), labels, task)
    return [*others, *(replace(f, positions=tuple(suspected[j] for j in f.positions)) for f in found)]


def _typed_columns(
    rows: RowsOfCells, known: np.ndarray, encoder: TableEncoder, typed: pd.DataFrame, suspected: list[int]
) -> Columns:
    """Some of the typed columns, of all rows that have a label; a text has the same number in all of them."""
    wanted = [typed.columns[j] for j in suspected]
    own = [name for name, read in zip(rows.names, encoder._typed_names, strict=True) if {*read} & {*wanted}]
    values = np.empty((len(known), len(wanted)))
    numbers: list[dict[str, int]] = [{} for _ in wanted]
    for start, frame in rows.frames(own):
        for j, column in enumerate(encoder._typed(frame, own, wanted)):
            if isinstance(column.dtype, pd.CategoricalDtype):
                table = numbers[j]
                codes = [table.setdefault(each, len(table)) for each in column.cat.categories]
                cells = np.append(np.array(codes, dtype=float), np.nan)[column.cat.codes]
            else:
                cells = _columns(column.to_frame()).column(0)
            values[start : start + len(frame), j] = cells
    ordered = _columns(typed[wanted]).ordered
    return Columns._named(values[known], wanted, ordered, True)


def _columns(typed: pd.DataFrame) -> Columns:
    columns = Columns.read(typed)
    assert columns is not None  # typed columns are real cells
    return columns
