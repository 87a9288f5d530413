"""A job on Parquet that is too large to be held: what columns hold is learned from some rows and applied to all.

The labels, the verdicts and eight bytes a row for each number on the way are in memory; the cells never are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from sktda.cli.formats.row_groups import Fetched, RowGroups, parquet_files
from sktda.cli.jobs import Job, Settings
from sktda.cli.likeness import among
from sktda.cli.named import each_named, target_of, unknown_column, without
from sktda.cli.plan import FLAGS
from sktda.data import slices
from sktda.files import STANDARD
from sktda.findings.finding import Columns
from sktda.findings.leaks import leaks
from sktda.mapped import mapped_blocks

if TYPE_CHECKING:
    from sktda.findings import Finding
    from sktda.report.judgement import Judgement
    from sktda.tables.encoder import TableEncoder

HELD_BYTES = 2**29  # of cells: fewer are read whole, which takes several times as much memory
LEARNED_CELLS = 20_000_000  # that are drawn, whole rows, to learn what columns hold
LEARNED_ROWS = 200_000  # at most
ENCODED_CELLS = 4_000_000  # at a time


def streamed(settings: Settings) -> RowGroups | None:
    """The rows, where the data are Parquet that is not to be held in memory: a folder, or a large file."""
    files = parquet_files(settings.data)
    if not files:
        return None
    is_folder = settings.data.is_dir()
    if not is_folder and (settings.embeddings or settings.probabilities):
        return None  # the cells are not read as features
    source = RowGroups.open(settings.data, files)
    if not is_folder and source.cells_bytes <= HELD_BYTES:
        return None
    given = {
        "--embeddings": settings.embeddings,
        "--probabilities": settings.probabilities,
        "--labels": settings.labels,
        "--label-level": settings.level,
        "--sheet": settings.part,
        "--query": settings.query,
    }
    if (wrong := [name for name, value in given.items() if value is not None]) or settings.header is False:
        raise ValueError(f"{(wrong or ['--no-header'])[0]} is not for Parquet that is read by row group; leave it out")
    if settings.unlabelled == "predict":
        raise ValueError(
            f"--unlabelled predict holds all rows in memory, which would be {source.cells_bytes / 1e9:.1f} GB of "
            "cells; use keep or drop"
        )
    return source


def check_large(settings: Settings, outputs: dict[str, Path], with_data: bool = False) -> None:
    """Raise ValueError, before any work, for outputs that cannot be written of rows that are not in memory."""
    if (source := streamed(settings)) is None:
        return
    folder = os.path.realpath(settings.data)
    for output in outputs.values() if settings.data.is_dir() else ():
        if output != STANDARD and Path(os.path.realpath(output)).is_relative_to(folder):
            raise ValueError(
                f"{output} is in the folder that is read, and would be read as its rows; name another place"
            )
    if "out" in outputs:
        source.check_place(outputs["out"])
    if "copy" in outputs:
        raise ValueError("--copy is for a folder of images; leave it out")
    if with_data or "review" in outputs:
        what = "--with-data" if with_data else "sktda review"
        raise ValueError(
            f"{what} holds all cells of {source.name} in memory, {source.cells_bytes / 1e9:.2g} GB at least; "
            + ("leave it out" if with_data else "use sktda score")
        )


@dataclass(frozen=True, eq=False)
class StreamedJob(Job):
    """X has the rows that have a label, in a mapped file; positions (n,): of these rows, or part of them, in the file.

    The rest is as in a Job.
    """

    source: RowGroups
    positions: np.ndarray

    @classmethod
    def of(cls, source: RowGroups, settings: Settings, progress: Callable[[str], None]) -> StreamedJob:
        """Learn what columns hold, and map their numbers; raises as Job.load does."""
        from sktda.cli.features import last_row_sums_up, notes_of, one_spelling
        from sktda.cli.labels import check_classes, read_labels
        from sktda.cli.learned import learned

        text, _, said = learned(settings)
        frame, n = source.frame, source.n_rows
        target = target_of(source, settings.target, source.name)
        kinds = each_named(settings.kinds, frame)
        for name in (settings.index, *kinds):
            if name is not None and name not in frame:
                raise ValueError(unknown_column(frame, name, source.name))
        if target in (settings.index, *kinds):
            raise ValueError(f"column {target!r} is that of --target and cannot be another one, too; name another")
        labels = read_labels(source.column(target), settings.task, settings.no_label)
        given, task = labels.given, labels.task
        if task == "classification":
            check_classes(one_spelling(given))
        if settings.index is not None:
            given.index = pd.Index(source.column(settings.index), name=settings.index)
        known = given.notna().to_numpy()
        own = [name for name in FLAGS if name in frame]
        rows = _Rows(
            source, [name for name in map(str, frame) if name not in (target, settings.index, *own)], settings.na_values
        )
        if not rows.names:
            raise ValueError("no column can be used as a feature (there is none beside the labels)")
        drawn = _drawn(n, len(rows.names), settings.seed)
        progress(f"learning the columns from {len(drawn):,} of {n:,} rows")
        encoder, findings = _learned(rows, drawn, given, task, without(kinds, settings.index), text)
        progress(f"encoding by row group {n:,} rows")
        X = mapped_blocks(int(known.sum()), lambda: rows.encoded(encoder, known))
        judged = given
        if task == "classification":
            merged = one_spelling(given[known], X if len(drawn) == n else None)
            judged = given.copy()
            judged[known] = merged.to_numpy()
            check_classes(judged)
        told = notes_of(findings, encoder)
        first = sum(finding.kind == "contradiction" for finding in findings)
        notes = [
            *told[:first],
            _how(source, len(drawn)),
            *labels.notes,
            *told[first:],
            *([f"columns not used as features (written by sktda): {', '.join(own)}"] if own else []),
            *last_row_sums_up(source.rows(np.array([n - 1]))),
            *said,
        ]
        columns, numerals = encoder.columns_, labels.numerals
        return cls(settings, source, target, given, judged, task, X, findings, notes, columns, numerals, np.arange(n))

    @property
    def _labelled(self) -> StreamedJob:
        """The rows that have a label alone, as X has them."""
        rows = np.flatnonzero(~self.unlabelled)
        given, judged = self.given.iloc[rows], self.judged.iloc[rows]
        findings = [among(rows, finding) for finding in self.findings]
        return replace(self, given=given, judged=judged, findings=findings, positions=self.positions[rows])

    def score(self, progress: Callable[[str], None]) -> tuple[pd.DataFrame, Judgement]:
        """As a Job; rows without a label have no verdict, and are compared with no other."""
        if not self.unlabelled.any():
            return super().score(progress)
        part, rows = self._labelled, np.flatnonzero(~self.unlabelled)
        before = len(part.findings)
        found, judgement = part.score(progress)
        self.findings.extend(_named(finding, rows) for finding in part.findings[before:])
        frame = found.set_axis(rows).reindex(range(len(self.given)))
        for name in ("duplicate_of", "near_duplicate_of"):
            own = rows[found[name].notna().to_numpy()]
            frame.loc[own, name] = rows[frame.loc[own, name].to_numpy(dtype=int)]
        for name in ("noisy", "outlier"):
            frame[name] = frame[name].eq(True).to_numpy(dtype=bool)
        return frame.set_axis(self.given.index), judgement

    def write_report(
        self, path: Path, frame: pd.DataFrame, judgement: Judgement, command: str, comparison: bool = True
    ) -> dict[str, Any]:
        """As a Job."""
        if not self.unlabelled.any():
            return super().write_report(path, frame, judgement, command, comparison)
        return self._labelled.write_report(path, frame[~self.unlabelled], judgement, command, comparison)

    @property
    def cells(self) -> Any:
        """The columns that a page shows, of rows that are read when they are asked for."""
        hidden = {self.target, self.given.index.name}
        names = [name for name in map(str, self.source.frame) if name not in hidden]
        return Fetched(self.source, self.positions, names) if names else None

    @property
    def written(self) -> list[str] | None:
        """As of a Job."""
        if self.task != "regression" or self.source.frame[self.target].dtype.kind in "iuf":
            return None
        return self.source.column(self.target).iloc[self.positions].astype(str).tolist()


@dataclass(frozen=True, eq=False)
class _Rows:
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


def _drawn(n: int, width: int, seed: int) -> np.ndarray:
    """Positions (ascending) of the rows that columns are learned from: all, or as many as memory holds easily."""
    size = min(LEARNED_ROWS, max(1_000, LEARNED_CELLS // max(1, width)))
    return np.arange(n) if n <= size else np.sort(np.random.default_rng(seed).choice(n, size, replace=False))


def _learned(
    rows: _Rows, drawn: np.ndarray, given: pd.Series, task: str, kinds: dict[Any, str], text: Any
) -> tuple[TableEncoder, list[Finding]]:
    """(the encoder, findings) by the rows drawn; what must hold in all rows is looked at in all."""
    from sktda.findings import merge_spellings
    from sktda.findings.sentinels import target_sentinels
    from sktda.tables.prepare import learn

    known = given.notna().to_numpy()
    labels, own = given.to_numpy()[known], np.flatnonzero(known[drawn])
    everything = len(drawn) == len(given)
    encoder, _, _, findings = learn(
        rows.drawn(drawn),
        given.to_numpy()[drawn[own]],
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
    rows: _Rows,
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
    rows: _Rows, known: np.ndarray, encoder: TableEncoder, typed: pd.DataFrame, suspected: list[int]
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


def _named(finding: Finding, rows: np.ndarray) -> Finding:
    """The finding about some of the rows, by their positions (k,) among all."""
    detail = dict(finding.detail)
    if "of" in detail:
        detail["of"] = rows[detail["of"]]
    return replace(finding, rows=rows[finding.rows], detail=detail)


def _how(source: RowGroups, n_drawn: int) -> str:
    """How the rows are read, for the user."""
    learned = (
        f"what columns hold was learned from {n_drawn:,} rows drawn at random"
        if n_drawn < source.n_rows
        else "all rows"
    )
    if n_drawn == source.n_rows:
        return f"{source.name} was read by row group"
    return (
        f"{source.name} was read by row group, as its {source.n_rows:,} rows may not fit in memory; {learned}, and "
        "equal rows with different labels were looked for among these"
    )
